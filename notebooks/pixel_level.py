# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The pixel level: neither the easiest positive nor the last
#
# A mask is made of pixels, so pixels are aligned too. One pixel of an image stands for its caption:
# not the one most like it, which is easy, and not the last of the object, which may lie outside.
# Against it stands, in every other image, the pixel most like the caption.
#
# This page draws these pixels, and on [drawn scenes](scenes_world.ipynb) measures at which rank
# they stop being right. [Method](../method.md) has all equations; this page is about Eq. 7 and
# comes after [the object level](object_level.ipynb) and [the region level](region_level.ipynb).

# %% tags=["parameters"]
alpha = 0.4  # area of the object, the paper's
k = 0.06  # rank of the semi-hard positive as a share of the object, the paper's
alpha_scenes = 0.34  # as alpha, for the scenes
counted = 256  # scenes to measure on
batch = 32  # scenes of a batch, as in training

# %% tags=["hide-input"]
import math
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import mgca
from mgca.data.scenes import CLASSES
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.results import read_results
from mgca.experiments.report import figures
from mgca.experiments.report.correspondence import (
    by_rank,
    contents,
    described,
    frozen_features,
    named,
    photo_pairs,
    scene_pairs,
)
from mgca.losses.levels import area_in_pixels, pixel_loss, rank_in_region, similarity

figures.use_style()
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
lite, small_clip = mgca.load("lite"), mgca.load("scenes")
photos = photo_pairs()
scenes = scene_pairs(counted)


# %% [markdown]
# ## The two pixels, written out
#
# Let $s_{ij}^{(r)}$ be the $r$-th largest of the similarities of image $i$'s pixels to caption $j$.
# The object has $\lfloor \alpha N \rfloor$ pixels. The semi-hard positive is the one at the share
# $k$ of their ranks, the hard negative is the first:
#
# $$
# z_{ij} = \frac{1}{\sqrt{C}} \begin{cases}
# s_{ii}^{(\lceil k \lfloor \alpha N \rfloor \rceil)} & i = j \cr
# s_{ij}^{(1)} & i \ne j
# \end{cases}
# \qquad
# \mathcal{L}_\mathrm{pixel} = -\frac{1}{2B} \sum_i \left[
# \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ij}}} + \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ji}}} \right]
# \tag{7}
# $$
#
# With the paper's $\alpha = 0.4$, $k = 0.06$ and $N = 784$ this is rank 19 of 313. The similarities
# are plain dot products; $1 / \sqrt{C}$ takes the place of a temperature.

# %%
pixels = lite.pixels(frozen_features(lite, photos.images))
texts = lite.backbone.encode_text(photos.captions)
size = math.floor(alpha * 784)
rank = math.ceil(k * size)

logits = torch.empty(len(texts), len(texts))
for i in range(len(texts)):
    for j in range(len(texts)):
        s = (pixels[i].flatten(1).T @ texts[j]).sort(descending=True).values  # (N,)
        logits[i, j] = s[rank - 1] if i == j else s[0]
logits = logits / math.sqrt(pixels.shape[1])
pairs = torch.arange(len(photos.captions))
loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
torch.testing.assert_close(loss, pixel_loss(pixels, texts, alpha=alpha, k=k))
assert (size, rank) == (area_in_pixels(alpha, 784), rank_in_region(k, size))
print(f"rank {rank} of {size}, loss {loss:.2f}")

# %% [markdown]
# ## Three positives
#
# $k = 0$ is the most trustworthy positive and $k = 1$ the hardest. Where do they lie?

# %% tags=["hide-input"]
# The three ranks, in colours that colour-blind readers tell apart, and in shapes.
MARKS = {
    "easy, k = 0": ("#56B4E9", "o"),
    f"semi-hard, k = {k:g}": ("#E69F00", "*"),
    "hardest, k = 1": ("#CC79A7", "s"),
}


def ranks_of(size):
    """The ranks of the three positives in an object of so many pixels."""
    return [1, rank_in_region(k, size), size]


def point(axis, x, y, colour, shape, label=None):
    """One mark, above the lines."""
    size = 240 if shape == "*" else 110
    axis.scatter(x, y, size, color=colour, marker=shape, edgecolors="black", zorder=3, label=label)


def mark(axis, image, positions, styles):
    """Pixel embeddings marked on the image that they are of."""
    axis.imshow(image)
    axis.set_axis_off()
    cell = image.width / 28
    for position, (colour, shape) in zip(positions, styles, strict=True):
        x, y = (position % 28 + 0.5) * cell, (position // 28 + 0.5) * cell
        point(axis, x, y, colour, shape)


features = frozen_features(small_clip, scenes.images)
backbone = small_clip.backbone
scene_pixels, scene_texts = small_clip.pixels(features), backbone.encode_text(scenes.captions)
# A new decoder is upsampling and nothing else: where training starts.
frozen_pixels = mgca.Model(backbone, GatedConvDecoder(backbone.dim)).pixels(features)
shares = contents(scenes.masks, 28)


def own_scores(pixels, texts):
    """(B, N): similarities to each image's own text."""
    return torch.einsum("bcn,bc->bn", pixels.flatten(2), texts)


def of_own(texts):
    """(B, N): how much of each pixel shows what the image's own text names."""
    return torch.cat([described(s[None], [t])[0] for s, t in zip(shares, texts, strict=True)])


own = own_scores(pixels, texts)
scene_own, truth = own_scores(scene_pixels, scene_texts), of_own(scenes.captions)
# A caption of one thing and nothing else, smaller than the object that is assumed.
scene = next(
    i
    for i, text in enumerate(scenes.captions)
    if len(named(text)) == 1 and 0.08 < truth[i].mean() < 0.25
)
shown = [
    (photos.images[3], photos.captions[3], own[3], alpha),
    (photos.images[5], photos.captions[5], own[5], alpha),
    (scenes.images[scene], scenes.captions[scene], scene_own[scene], alpha_scenes),
]
figure, axes = plt.subplots(3, 2, figsize=(7, 9), layout="constrained")
for row, (image, caption, scores, area) in zip(axes, shown, strict=True):
    falling = scores.sort(descending=True)
    ranks = ranks_of(area_in_pixels(area, 784))
    mark(row[0], image, [falling.indices[r - 1].item() for r in ranks], MARKS.values())
    row[0].set_title(f"“{textwrap.fill(caption, 28)}”")
    row[1].plot(range(1, 785), falling.values, color="dimgrey")
    row[1].axvspan(0, ranks[2], color="lightgrey", alpha=0.4, linewidth=0)
    for r, (label, (colour, shape)) in zip(ranks, MARKS.items(), strict=True):
        point(row[1], r, falling.values[r - 1], colour, shape, label)
    row[1].set(ylabel="similarity")
last = scene_own[scene].sort(descending=True).indices[area_in_pixels(alpha_scenes, 784) - 1]
last_shows = CLASSES[shares[scene, :, last].argmax()]
axes[0, 1].legend(loc="upper right")
axes[2, 1].set_xlabel("rank of the pixel; grey: the object")
figures.show(
    figure,
    caption="Left, the three positives; right, the similarities to the caption in falling order. "
    "The easy and the semi-hard pixel lie on what the caption names. The last pixel of the object "
    f"lies on the floor, on the trees and, in the scene, on the {last_shows}.",
    alt="A motorcycle, a temple and a drawn scene, each with three marked pixels, beside the curve "
    "of the similarities of its pixels with the same marks.",
    name="fig-pixel-positives",
)

# %% [markdown]
# ## Why semi-hard
#
# A positive should be right, and it should have something to learn. Over many scenes the masks tell
# how often the pixel at a rank shows what the text names. As in training, the text is a caption, or
# is made of one class that it names.

# %% tags=["hide-input"]
generator = np.random.default_rng(0)
single = [f"a photo of a {CLASSES[generator.choice(named(text))]}" for text in scenes.captions]
kinds = {
    "a caption": (scene_texts, truth),
    "one class it names": (backbone.encode_text(single), of_own(single)),
}
size = area_in_pixels(alpha_scenes, 784)
# Ranks in bins of equal width on a logarithmic axis, so that single scenes show less.
edges = np.unique(np.geomspace(1, 785, 22).round().astype(int))
centres = np.sqrt(edges[:-1] * (edges[1:] - 1))


def trust(pixels, texts, truth):
    """By bins of the rank, how often the pixel shows what its text, if anything, names."""
    right = by_rank(own_scores(pixels, texts), truth)[truth.sum(-1) > 0].mean(0)
    return [right[low - 1 : high - 1].mean() for low, high in zip(edges, edges[1:], strict=False)]


figure, axes = plt.subplots(2, 1, figsize=(6, 6.6), sharex=True, layout="constrained")
for axis, (kind, (of_texts, of_truth)) in zip(axes, kinds.items(), strict=True):
    right = trust(scene_pixels, of_texts, of_truth)
    axis.plot(centres, right, color="#0072B2", label="trained")
    before = trust(frozen_pixels, of_texts, of_truth)
    axis.plot(centres, before, ":", color="#0072B2", label="before training")
    for r, (label, (colour, shape)) in zip(ranks_of(size), MARKS.items(), strict=True):
        height = np.interp(np.log(r), np.log(centres), right)
        point(axis, r, height, colour, shape, label=label)
    axis.axhline(of_truth[of_truth.sum(-1) > 0].mean(), color="grey", linewidth=1, linestyle="--")
    axis.set(xscale="log", ylim=(0, 1.02), ylabel="shows what is named", title=f"text: {kind}")
axes[0].legend(loc="lower left")
axes[1].set_xlabel("rank of the pixel")
axes[1].set_xticks([1, 10, 100], ["1", "10", "100"])
figures.show(
    figure,
    caption=f"How often the pixel at a rank truly shows what the text names, over {counted} "
    "scenes; dashed, a pixel taken at random. Up to the semi-hard positive little trust is lost. "
    "The last pixel of the object is better than chance for captions, which name most of a scene, "
    "and no better for single classes, which are smaller than the object that is assumed.",
    alt="Two diagrams over the logarithm of the rank. The share of right pixels is nearly level up "
    "to about rank twenty and falls after that, more steeply for single classes.",
    name="fig-pixel-trust",
)

# %% [markdown]
# Trust is one side. The other is how hard the loss pulls at the positive: its gradient with respect
# to the logit $z_{ii}$ is $p_{ii} - 1$, with $p_{ii}$ the probability that the softmax gives to the
# pair. The table has both for several $k$, and what decoders trained with each $k$ reach ([the
# ablation](ablation_k.ipynb)).

# %% tags=["remove-input"]
values = [0, 0.03, 0.06, 0.12, 0.25, 0.5, 1]


def positives_at(share, pixels, texts, truth):
    """Over the batches: similarity, pull and truth of the positive at a share of the object."""
    rows = []
    at = rank_in_region(share, size)
    for start in range(0, counted - batch + 1, batch):
        now = slice(start, start + batch)
        s = similarity(pixels[now], texts[now])
        own = s.diagonal(dim1=0, dim2=1).T
        positive = own.sort(-1, descending=True).values[:, at - 1]
        z = torch.where(torch.eye(batch, dtype=torch.bool), positive[:, None], s.amax(-1))
        z = z / math.sqrt(pixels.shape[1])
        pull = 1 - (z.softmax(0) + z.softmax(1)).diagonal() / 2
        rows.append(torch.stack([positive, pull, by_rank(own, truth[now])[:, at - 1]]))
    similar, pull, right = torch.cat(rows, dim=1)
    return similar.mean(), pull.mean(), right[truth.sum(-1)[: len(right)] > 0].mean()


trained = read_results(project / "results" / "scenes" / "k.csv")
trained = trained[(trained["unit"] == "pixel") & (trained["metric"] == "miou")]
reached = trained.groupby(["variant", "dataset"])["value"].mean()
rows = []
for share in values:
    row = {"k": f"{share:g}", "rank": rank_in_region(share, size)}
    for kind, (of_texts, of_truth) in kinds.items():
        similar, pull, right = positives_at(share, scene_pixels, of_texts, of_truth)
        row |= {f"right, {kind} (%)": round(100 * right.item(), 1)}
    row |= {"similarity": round(similar.item(), 1), "pull": round(pull.item(), 3)}
    for name in ("things", "scenes"):
        row |= {f"mIoU, {name}": round(reached[f"k={share:g}", name], 1)}
    rows.append(row)
table = pd.DataFrame(rows).set_index("k")
figures.table(
    table,
    caption="The positive at different $k$. *Right* is how often it shows what the text names; "
    "similarity and pull are for texts of one class; mIoU per pixel is of decoders trained with "
    "this $k$, mean of three seeds.",
    results="scenes/k.csv",
)

# %% tags=["remove-input"]
low, half, last = table.loc["0"], table.loc["0.06"], table.loc["1"]
column = "right, one class it names (%)"
Markdown(
    f"The last pixel of the object is right for {last[column]:.0f} % of the single classes, the "
    f"semi-hard one for {half[column]:.0f} % and the first for {low[column]:.0f} %. The pull "
    f"hardly differs, from {low['pull']:.3f} to {last['pull']:.3f}: one positive shares the "
    f"softmax with {batch - 1} hard negatives, so that its probability is small at any rank. On "
    "scenes there is much to lose with a large *k* and little to win. The trained decoders fall "
    "with it, and *k* = 0.06 is about as good as *k* = 0."
)

# %% [markdown]
# The paper finds the semi-hard positive superior to both ends. [What held](what_held.ipynb) has the
# verdict on that for the runs of this project.
#
# ## The hard negative
#
# In every image, the pixel most like each foreign caption. It is the region of [the region
# level](region_level.ipynb), shrunk to one pixel.

# %% tags=["hide-input"]
foreign = {"motorcycle": 3, "rocket": 4, "flower": 6}
styles = [("#56B4E9", "o"), ("#E69F00", "D"), ("#CC79A7", "s")]
scores = similarity(pixels, texts)
figure, axes = plt.subplots(1, 3, figsize=(7, 3.1), layout="constrained")
for axis, i in zip(axes, (2, 1, 5), strict=True):
    mark(axis, photos.images[i], [scores[i, j].argmax().item() for j in foreign.values()], styles)
handles = [
    plt.Line2D(
        [], [], color=colour, marker=shape, linestyle="", markeredgecolor="black", markersize=10
    )
    for colour, shape in styles
]
figure.legend(handles, [f"“{name}”" for name in foreign], loc="outside lower center", ncols=3)
figures.show(
    figure,
    caption="The pixels most like the captions of the motorcycle, the rocket and the flower, in "
    "three other photographs. In the first, the rocket's lies on the model of a shuttle, "
    "which the loss pushes away although it is one.",
    alt="A woman in a space suit, a cup and a temple, each with three marked pixels.",
    name="fig-pixel-negatives",
)

# %% [markdown]
# Are these negatives truly negative? The caption of another scene may name something that this one
# has too, and the most similar pixel is the likeliest to show it. A lower rank, `k_neg` above 0, is
# safer and easier.

# %% tags=["remove-input"]
rows = []
for share in (0, 0.06, 0.25, 1):
    at = rank_in_region(share, size)
    row = {"k_neg": f"{share:g}", "rank": at}
    for kind, words, of_texts in (
        ("a caption", scenes.captions, scene_texts),
        ("one class", single, kinds["one class it names"][0]),
    ):
        wrong = []
        for start in range(0, counted - batch + 1, batch):
            now = slice(start, start + batch)
            shown_there = by_rank(
                similarity(scene_pixels[now], of_texts[now]), described(shares[now], words[now])
            )[..., at - 1]
            wrong.append(shown_there[~torch.eye(batch, dtype=torch.bool)])
        row |= {f"wrong, {kind} (%)": round(100 * torch.cat(wrong).mean().item(), 1)}
    for name in ("things", "scenes"):
        row |= {f"mIoU, {name}": round(reached[f"k_neg={share:g}", name], 1)}
    rows.append(row)
figures.table(
    pd.DataFrame(rows).set_index("k_neg"),
    caption="How often the negative pixel of a pair shows what the foreign text names, by its rank "
    "as a share of the object's, and the mIoU per pixel of decoders trained with it, mean of three "
    "seeds.",
    results="scenes/k.csv",
)

# %% [markdown]
# ## What to take away
#
# * The positive is one pixel, at a rank inside the object: the first is surely right, the last of
#   the object is often wrong.
# * The negative is one pixel too, the most similar of each other image.
# * On scenes the cost of a hard positive is clear and the gain of a semi-hard one over the easiest
#   is not.
#
# ## Try it
#
# * Set `k` to 0.5 and look at the first figure again: is the star still on the object?
# * Set `alpha_scenes` to 0.1. The hardest positive moves forward; how much of the trust comes back?
# * Give the photographs captions of one word. Which of the curves become steeper?
