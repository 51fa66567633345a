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
#
# **After this page you can** compute Eq. 7 by hand, and say what the rank of the positive trades.

# %% tags=["parameters"]
alpha = 0.4  # area of the object, the paper's
k = 0.06  # rank of the semi-hard positive as a share of the object, the paper's
alpha_scenes = 0.34  # as alpha, for the scenes
counted = 256  # scenes to measure on
batch = 32  # scenes of a batch, as in training

# %% tags=["hide-input"]
import math

import numpy as np
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import mgca
from mgca.data.scenes import CLASSES
from mgca.decoder import upsample2
from mgca.experiments.report import figures, level_figures, truth
from mgca.experiments.report.correspondence import frozen_features, photo_pairs
from mgca.experiments.report.page import open_page
from mgca.losses.levels import area_in_pixels, pixel_loss, rank_in_region, similarity

page = open_page("pixel_level")
lite = mgca.load("lite")
photos = photo_pairs()
scenes = truth.Scenes(mgca.load("scenes"), counted)

# %% [markdown]
# ## The two pixels, written out
#
# Let $s_{ij}^{(r)}$ be the $r$-th largest of the similarities of image $i$'s pixels to caption $j$.
# The object has $\lfloor \alpha N \rfloor$ pixels. The semi-hard positive is the one at the share
# $k$ of their ranks, the hard negative is the first:
#
# $$
# \begin{aligned}
# z_{ij} &= \frac{1}{\sqrt{C}} \begin{cases}
# s_{ii}^{(\lceil k \lfloor \alpha N \rfloor \rceil)} & i = j \cr
# s_{ij}^{(1)} & i \ne j
# \end{cases} \cr
# \mathcal{L}_\mathrm{pixel} &= -\frac{1}{2B} \sum_i \left[
# \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ij}}} + \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ji}}} \right]
# \end{aligned} \tag{7}
# $$
#
# With the paper's $\alpha = 0.4$, $k = 0.06$ and $N = 784$ this is rank 19 of 313. The similarities
# are plain dot products; $1 / \sqrt{C}$ takes the place of a temperature.

# %%
pixels = upsample2(lite.pixels(frozen_features(lite, photos.images)))
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


def ranks_of(area):
    """The ranks of the three positives in an object of an area."""
    return (1, rank_in_region(k, area_in_pixels(area, 784)), area_in_pixels(area, 784))


# %% tags=["hide-input"]
own, at = truth.own_scores(pixels, texts), ranks_of(alpha)
shown = [(photos.images[n], photos.captions[n], own[n], at) for n in (3, 5)]
# A caption of one thing and nothing else, smaller than the object that is assumed.
i, at = scenes.first(1, 0.08, 0.25), ranks_of(alpha_scenes)
own = truth.own_scores(scenes.trained, scenes.captions.embeddings)[i]
shown.append((scenes.images[i], scenes.captions.words[i], own, at))
last = own.argsort(descending=True)[at[-1] - 1]
last_shows = CLASSES[scenes.shares[i, :, last].argmax()]
figures.show(
    level_figures.positive_pixels(shown, MARKS),
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
kinds = {"a caption": scenes.captions, "one class it names": scenes.single}
# Ranks in bins of equal width on a logarithmic axis, so that single scenes show less.
edges = np.unique(np.geomspace(1, 785, 22).round().astype(int))
centres, right = np.sqrt(edges[:-1] * (edges[1:] - 1)), {}
for kind, own in kinds.items():
    stages = [truth.trust(p, own, edges) for p in (scenes.trained, scenes.frozen)]
    right[kind] = (*stages, own.truth[own.visible].mean())
figures.show(
    level_figures.trust_curves(centres, right, ranks_of(alpha_scenes), MARKS),
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

# %% tags=["hide-input"]
trained = page.read("scenes/k.csv")
trained = trained[(trained["unit"] == "pixel") & (trained["metric"] == "miou")]
reached = trained.groupby(["variant", "dataset"])["value"].mean().round(1)
values, size = (0, 0.03, 0.06, 0.12, 0.25, 0.5, 1), area_in_pixels(alpha_scenes, 784)
table = truth.positives(scenes, kinds, values, size, batch)
for name in ("things", "scenes"):
    table[f"mIoU, {name}"] = [reached[f"k={share}", name] for share in table.index]
figures.table(
    table,
    caption="The positive at different $k$. *Right* is how often it shows what the text names; "
    "similarity and pull are for texts of one class; mIoU per pixel is of decoders trained with "
    "this $k$, mean of five seeds.",
    results="scenes/k.csv",
)

# %% tags=["hide-input"]
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
foreign = {"motorcycle": (3, "#56B4E9", "o"), "rocket": (4, "#E69F00", "D")}
foreign |= {"flower": (6, "#CC79A7", "s")}
shown, scores = [2, 1, 5], similarity(pixels, texts)
images = [photos.images[i] for i in shown]
figures.show(
    level_figures.foreign_pixels(images, scores[shown], foreign),
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

# %% tags=["hide-input"]
kinds = {"a caption": scenes.captions, "one class": scenes.single}
table = truth.negatives(scenes, kinds, (0, 0.06, 0.25, 1), size, batch)
for name in ("things", "scenes"):
    table[f"mIoU, {name}"] = [reached[f"k_neg={share}", name] for share in table.index]
figures.table(
    table,
    caption="How often the negative pixel of a pair shows what the foreign text names, by its rank "
    "as a share of the object's, and the mIoU per pixel of decoders trained with it, mean of three "
    "seeds.",
    results="scenes/k.csv",
)

# %% [markdown]
# ## What to take away
#
# * The positive is one pixel, at a rank inside the object: the first is nearly always right (for 95
#   of 100 single classes), and the last of the object often wrong.
# * The negative is one pixel too, the most similar of each other image.
# * On scenes the cost of a hard positive is clear and the gain of a semi-hard one over the easiest
#   is not.
#
# ## Try it
#
# 1. Set `k` to 0.5 and look at the first figure again: is the star still on the object?
# 2. Set `alpha_scenes` to 0.1. The hardest positive moves forward; how much of the trust comes
#    back?
# 3. Give the photographs captions of one word. Which of the curves become steeper?
#
# ```{dropdown} What to expect
# 1. With $k = 0.5$ the positive is at rank 157 of 313. It lies on what a caption names in 86 %
#    of the scenes, and on a single class in 43 %: the table above has both.
# 2. With $\alpha = 0.1$ the object has 78 pixels, and the last of them is about as trustworthy
#    as rank 67 of the table: right for two thirds of the single classes, against 24 %.
# 3. Where the caption named several things: one word covers less of the picture, so that what it
#    names ends at an earlier rank.
# ```
