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
# # The region level: what looks most like a foreign caption
#
# In every image some region is more like a *foreign* caption than the rest. It is not what the
# caption describes, but it is what the model would take for it. The region level takes this region
# as the negative and pushes it away from the caption.
#
# This page draws such hard negatives, says on [drawn scenes](scenes_world.ipynb) what they are, and
# how often they are no negatives at all. [Method](../method.md) has all equations; this page is
# about Eq. 6 and comes after [the object level](object_level.ipynb).

# %% tags=["parameters"]
alpha = 0.4  # area of the positive object, the paper's
alpha_neg = 0.05  # area of the hard negative region, the paper's
alpha_scenes = 0.34  # as alpha, for the scenes
temperature = 0.07
counted = 256  # scenes to measure on
batch = 32  # scenes of a batch, as in training

# %% tags=["hide-input"]
import math
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import mgca
from mgca.data.scenes import CLASSES, COLOURS, TEST_SEED, THINGS, WorldConfig, compose
from mgca.decoder import GatedConvDecoder
from mgca.experiments.report import figures
from mgca.experiments.report.correspondence import (
    contents,
    cut_out,
    described,
    frozen_features,
    kept,
    named,
    photo_pairs,
    scene_pairs,
)
from mgca.losses.levels import area_in_pixels, region_embeddings, region_loss, similarity

figures.use_style()
lite, small_clip = mgca.load("lite"), mgca.load("scenes")
photos = photo_pairs()
scenes = scene_pairs(counted)


# %% [markdown]
# ## The region, written out
#
# For image $i$ and the caption $j$ of another image the region is that of Eq. 4, with the small
# area $\alpha_\mathrm{neg} = 0.05$, 39 of 784 pixels, in place of $\alpha$:
#
# $$
# z_{ij} = \frac{1}{\tau} \begin{cases}
# \varphi\big(o_{ii}(\alpha), t_i\big) & i = j \cr
# \varphi\big(o_{ij}(\alpha_\mathrm{neg}), t_j\big) & i \ne j
# \end{cases}
# \qquad
# \mathcal{L}_\mathrm{region} = -\frac{1}{2B} \sum_i \left[
# \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ij}}} + \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ji}}} \right]
# \tag{6}
# $$
#
# Each pair of image and caption has a region of its own. The diagonal is as at object level.


# %%
def region_of(pixels, text, area):
    """The region of an image most like a text: a softmax-weighted mean over its pixels (Eq. 4)."""
    p = pixels.flatten(1).T  # (N, C)
    s, n = (p @ text).topk(math.floor(area * len(p)))
    return s.softmax(0) @ p[n]


def logits_of(pixels, texts):
    """The matrix z of Eq. 6, pair by pair."""
    z = torch.empty(len(texts), len(texts))
    for i in range(len(texts)):
        for j in range(len(texts)):
            region = region_of(pixels[i], texts[j], alpha if i == j else alpha_neg)
            z[i, j] = F.cosine_similarity(region, texts[j], dim=0) / temperature
    return z


pixels = lite.pixels(frozen_features(lite, photos.images))
texts = lite.backbone.encode_text(photos.captions)
logits = logits_of(pixels, texts)
pairs = torch.arange(len(photos.captions))
loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
torch.testing.assert_close(
    loss, region_loss(pixels, texts, alpha=alpha, alpha_neg=alpha_neg, temperature=temperature)
)

# %% [markdown]
# ## Hard negatives of photographs
#
# Two photographs, and what the model finds in them for captions of others.


# %% tags=["hide-input"]
def bare(axis, title=""):
    """A panel without axes, with a title of a few lines at most."""
    axis.set_axis_off()
    axis.set_title(textwrap.fill(title, 22))


scores = similarity(pixels, texts)  # (B, B, N)
drawn = {2: [3, 4, 6], 1: [0, 3, 6]}  # image: foreign captions
figure, axes = plt.subplots(len(drawn), 3, figsize=(7, 5.6), layout="constrained")
for row, (i, foreign) in zip(axes, drawn.items(), strict=True):
    for axis, j in zip(row, foreign, strict=True):
        axis.imshow(cut_out(photos.images[i], kept(scores[i, j], alpha_neg)))
        bare(axis, photos.captions[j])
figures.show(
    figure,
    caption=f"The {area_in_pixels(alpha_neg, 784)} pixels of a photograph that are most like "
    "captions of others. The orange suit and the helmet go for the motorcycle and the flag for the "
    "flower. For the rocket it is the model of a space shuttle: a negative that is none.",
    alt="A woman in a space suit in front of a flag and a model rocket, and a cup on a table, each "
    "three times with other small regions kept and the rest faded.",
    name="fig-region-photos",
)

# %% [markdown]
# ## Harder than the negatives of the object level
#
# At object level image $i$ meets the foreign caption $j$ with the object of its *own* caption,
# $o_{ii}$. Here it meets it with the region that suits $j$ best, $o_{ij}$.

# %% tags=["hide-input"]
objects = torch.stack([region_of(p, t, alpha) for p, t in zip(pixels, texts, strict=True)])
at_object_level = F.normalize(objects, dim=-1) @ F.normalize(texts, dim=-1).T
at_region_level = logits * temperature
figure, axes = plt.subplots(1, 2, figsize=(7, 4.4), sharey=True, layout="constrained")
top = max(at_object_level.abs().max().item(), at_region_level.abs().max().item())
for axis, matrix, title in zip(
    axes, (at_object_level, at_region_level), ("object level", "region level"), strict=True
):
    image = axis.imshow(matrix, cmap="PuOr", vmin=-top, vmax=top)
    axis.set_xticks(
        range(len(photos.names)), photos.names, rotation=60, ha="right", rotation_mode="anchor"
    )
    axis.set_yticks(range(len(photos.names)), photos.names)
    axis.set(title=title, xlabel="caption")
    axis.grid(False)
axes[0].set_ylabel("image")
figure.colorbar(image, ax=axes, label="cosine similarity", location="bottom", shrink=0.6)
off = ~torch.eye(len(photos.names), dtype=torch.bool)
figures.show(
    figure,
    caption="The same seven photographs at both levels. The diagonal is the same. The mean of the "
    f"others goes from {at_object_level[off].mean():.2f} to {at_region_level[off].mean():.2f}, and "
    f"the loss is {loss:.2f}.",
    alt="Two matrices of images by captions. The left has a dark diagonal and pale surroundings; "
    "in the right the surroundings are darker.",
    name="fig-region-matrix",
)

# %% [markdown]
# The scenes have enough pairs to show it as a distribution.

# %% tags=["hide-input"]
features = frozen_features(small_clip, scenes.images)
backbone = small_clip.backbone
scene_pixels = small_clip.pixels(features)
scene_texts = backbone.encode_text(scenes.captions)
# A new decoder is upsampling and nothing else: where training starts.
frozen_pixels = mgca.Model(backbone, GatedConvDecoder(backbone.dim)).pixels(features)
shares = contents(scenes.masks, 28)


def by_batch(pixels, texts, words):
    """One row per foreign pair of a batch: its cosines at both levels, and what is in its region.

    And the cosines of the pairs that belong together.
    """
    rows, positives = [], []
    others = ~torch.eye(batch, dtype=torch.bool)
    for start in range(0, counted - batch + 1, batch):
        now = slice(start, start + batch)
        s = similarity(pixels[now], texts[now])
        unit = F.normalize(texts[now], dim=-1)
        own = s.diagonal(dim1=0, dim2=1).T[:, None]
        objects = F.normalize(region_embeddings(pixels[now], own, alpha_scenes)[:, 0], dim=-1)
        regions = F.normalize(region_embeddings(pixels[now], s, alpha_neg), dim=-1)
        truth = described(shares[now], words[now])
        inside = kept(s, alpha_neg)
        found = (truth * inside).sum(-1) / inside.sum(-1)
        columns = {
            "object level": objects @ unit.T,
            "region level": torch.einsum("ijc,jc->ij", regions, unit),
            "in the image": (truth.mean(-1) > 0).float(),
            "in the region": found,
        }
        rows.append(pd.DataFrame({k: v[others].numpy() for k, v in columns.items()}))
        positives.append(columns["object level"].diagonal())
    return pd.concat(rows, ignore_index=True), torch.cat(positives).numpy()


negatives, positives = by_batch(scene_pixels, scene_texts, scenes.captions)
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
bins = np.linspace(-0.6, 1, 65)
for values, colour, label in (
    (negatives["object level"], "#56B4E9", "negatives, object level"),
    (negatives["region level"], "#D55E00", "negatives, region level"),
    (positives, "#000000", "positives"),
):
    axis.hist(values, bins, density=True, histtype="step", linewidth=1.8, color=colour, label=label)
axis.set(xlabel="cosine similarity to the caption", ylabel="density")
axis.legend(loc="upper left")
harder = (negatives["region level"] > negatives["object level"]).mean()
figures.show(
    figure,
    caption=f"Pairs in batches of {batch} scenes, small CLIP with the published decoder. The mean "
    f"negative goes from {negatives['object level'].mean():.2f} to "
    f"{negatives['region level'].mean():.2f}, the mean positive is {positives.mean():.2f}. In "
    f"{100 * harder:.1f} % of the pairs the region is harder than the object.",
    alt="Three histograms of cosine similarity: negatives of the object level around zero, those "
    "of the region level further right, positives furthest right, with overlap.",
    name="fig-region-cosines",
)

# %% [markdown]
# ## What the region is
#
# In scenes the exact mask says what lies in the region. Below the model looks for things that are
# not in the picture.

# %% tags=["hide-input"]
prompts = [f"a photo of a {name}" for name in CLASSES]
prompt_texts = backbone.encode_text(prompts)
present = shares.amax(-1) > 0.5  # (B, classes): at least one pixel shows mostly this


def contents_of_regions(pixels):
    """(B, texts, classes): shares of the classes in the region most like each class's text."""
    inside = kept(similarity(pixels, prompt_texts), alpha_neg).float()
    return torch.einsum("icn,iwn->iwc", shares, inside) / inside.sum(-1, keepdim=True)


trained, frozen = contents_of_regions(scene_pixels), contents_of_regions(frozen_pixels)
rows = []
for word in range(len(CLASSES)):
    absent = shares[:, word].sum(-1) == 0
    for content in range(len(CLASSES)):
        where = absent & present[:, content]
        if word != content and where.sum() >= 20:
            rows.append(
                {
                    "word": CLASSES[word],
                    "content": CLASSES[content],
                    "region": trained[where, word, content].mean().item(),
                    "before": frozen[where, word, content].mean().item(),
                    "image": shares[where, content].mean().item(),
                    "thing": content < len(THINGS),
                }
            )
mistaken = pd.DataFrame(rows).sort_values("region", ascending=False)
chosen = mistaken[mistaken["thing"]].head(3)
figure, axes = plt.subplots(1, 3, figsize=(7, 3), layout="constrained")
for axis, (_, row) in zip(axes, chosen.iterrows(), strict=True):
    word, content = CLASSES.index(row["word"]), CLASSES.index(row["content"])
    candidates = (shares[:, word].sum(-1) == 0) & (shares[:, content].mean(-1) > 0.08)
    i = candidates.nonzero()[0].item()  # the first that there is
    inside = kept(similarity(scene_pixels[i][None], prompt_texts[word][None])[0, 0], alpha_neg)
    axis.imshow(cut_out(scenes.images[i], inside))
    bare(axis, f"“{row['word']}”")
    axis.text(
        0.5,
        -0.04,
        f"{100 * shares[i, content][inside].mean():.0f} % {row['content']}",
        ha="center",
        va="top",
        transform=axis.transAxes,
    )
figures.show(
    figure,
    caption="The region for a word that is not in the picture, and what it truly shows: the three "
    "most frequent mistakes among things.",
    alt="Three drawn scenes with a small region kept and the rest faded.",
    name="fig-region-scenes",
)

# %% tags=["hide-input"]
top = pd.concat([mistaken[mistaken["thing"]].head(8), mistaken[~mistaken["thing"]].head(6)])
figure, axis = plt.subplots(figsize=(6, 5.4), layout="constrained")
y, more = np.arange(len(top)), (top["region"] > top["before"]).sum()
axis.hlines(y, top["image"], top["region"], color="lightgrey", linewidth=3, zorder=1)
axis.scatter(top["image"], y, color="grey", marker="|", s=120, label="of the image", zorder=2)
axis.scatter(
    top["before"],
    y,
    facecolors="white",
    edgecolors="#D55E00",
    s=50,
    label="of the region, before training",
    zorder=3,
)
axis.scatter(top["region"], y, color="#D55E00", s=50, label="of the region", zorder=3)
axis.set_yticks(y, [f"{w} → {c}" for w, c in zip(top["word"], top["content"], strict=True)])
axis.invert_yaxis()
axis.set(xlim=(0, 1), xlabel="share that the content has, where it is in the picture")
axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=1)
figures.show(
    figure,
    caption="What the region shows for a word that is not in the picture: the most frequent "
    "mistakes after training, things above, stuffs below. The content has up to "
    f"{(top['region'] / top['image']).max():.0f} times the share of the region that it has of the "
    f"image. {more} of the {len(top)} were less frequent before training.",
    alt="For fourteen pairs of a word and a content, the share of the image that the content has, "
    "and its larger share of the region, before and after training.",
    name="fig-region-mistakes",
)

# %% tags=["remove-input"]
absent = shares.sum(-1) == 0  # (B, classes)
things = slice(0, len(THINGS))


def of_things(found):
    """Share of the regions for absent things that shows things at all."""
    return found[:, things, things].sum(-1)[absent[:, things]].mean().item()


area_of_things = shares[:, things].sum(1).mean().item()
Markdown(
    f"Things cover {100 * area_of_things:.0f} % of a scene. Of the region for a thing that is not "
    f"there, {100 * of_things(frozen):.0f} % shows things before training, and "
    f"{100 * of_things(trained):.0f} % after: the negatives become look-alikes as the model learns."
)

# %% [markdown]
# Does a colour in the text draw the region to things of that colour? Here the thing is absent
# again, and something of the colour is there.

# %% tags=["remove-input"]
world = WorldConfig()
composed = [compose(world, TEST_SEED, index) for index in range(counted)]
of_colour = torch.zeros(counted, len(COLOURS), 784)  # how much of each pixel shows a thing of it
for i, own in enumerate(composed):
    for thing in own.things:
        of_colour[i, list(COLOURS).index(thing.colour)] += shares[i, CLASSES.index(thing.name)]
plain = kept(similarity(scene_pixels, prompt_texts[things]), alpha_neg)  # without a colour
rows = []
for number, colour in enumerate(COLOURS):
    coloured = backbone.encode_text([f"a photo of a {colour} {thing}" for thing in THINGS])
    inside = kept(similarity(scene_pixels, coloured), alpha_neg)
    where = absent[:, things] & (of_colour[:, number].amax(-1) > 0.5)[:, None]
    here = of_colour[:, None, number]
    rows.append(
        [
            here.mean(-1).expand(-1, len(THINGS))[where],
            *((here * of).sum(-1)[where] / of.sum(-1)[where] for of in (plain, inside)),
        ]
    )
of_image, without, with_colour = (
    100 * torch.cat(values).mean().item() for values in zip(*rows, strict=True)
)
Markdown(
    f"Things of the colour cover {of_image:.0f} % of the image. They have {without:.0f} % of the "
    "region for *a photo of a leaf* and its like, because that lies on things in the first place, "
    f"and {with_colour:.0f} % of the region for *a photo of a red leaf*: the colour draws it only "
    "a little."
)

# %% [markdown]
# ## Negatives that are none
#
# The caption of another image may name something that this image has too. The region then shows
# just that, and pushing it away is wrong. Scenes have 30 classes, so this happens often.

# %% tags=["remove-input"]
generator = np.random.default_rng(0)
single = [f"a photo of a {CLASSES[generator.choice(named(text))]}" for text in scenes.captions]
by_text = {
    "a caption": negatives,
    "one class it names": by_batch(scene_pixels, backbone.encode_text(single), single)[0],
}
table = pd.DataFrame(
    [
        {
            "text of another scene": kind,
            "names something in the image (%)": f"{100 * rows['in the image'].mean():.0f}",
            "names most of the region (%)": f"{100 * most.mean():.0f}",
            "cosine, then": f"{rows['region level'][most].mean():.2f}",
            "cosine, otherwise": f"{rows['region level'][~most].mean():.2f}",
        }
        for kind, rows in by_text.items()
        for most in [rows["in the region"] > 0.5]
    ]
).set_index("text of another scene")
figures.table(
    table,
    caption="How often a hard negative is truly a positive, by the exact masks. Such regions have "
    "the highest cosines, so the loss pushes them away hardest.",
)

# %% [markdown]
# The paper takes all of them for negatives. A batch from the web has far more than 30 subjects, and
# fewer such accidents; a small data set has more. For photographs this library can leave out pairs
# that are known to fit: `known` in `TrainConfig`, `exclude` in `mgca.losses.levels`.
#
# The paper finds that a smaller $\alpha_\mathrm{neg}$ helps where the pixel level is left out. On
# scenes it does not: very small regions do worse than larger ones, as [the ablation of the
# areas](ablation_areas.ipynb) shows. What the level is worth alone is in [the ablation of the
# levels](ablation_granularity.ipynb).
#
# ## What to take away
#
# * A hard negative is the region of an image most like the caption of *another* image, Eq. 4 with a
#   small area.
# * It is much harder than the negatives of the object level, and with training it becomes a
#   look-alike of what is missing.
# * Hard is near to wrong: some of these regions do show what the foreign caption names.
#
# ## Try it
#
# * Set `alpha_neg` to 0.4. By how much do the cosines of the region level fall?
# * Set `alpha_neg` to 0.002, one pixel. That is nearly [the pixel level](pixel_level.ipynb): what
#   differs?
# * Write a caption of your own in place of one of the seven. Which photograph has the hardest
#   region for it?
