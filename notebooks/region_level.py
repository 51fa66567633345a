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
# how often they are false negatives. [Method](../method.md) has all equations; this page is
# about Eq. 6 and comes after [the object level](object_level.ipynb).
#
# **After this page you can** compute Eq. 6 by hand, and say what a hard negative shows and how
# often it is a false one.

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

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch.nn import functional as F

import mgca
from mgca.data.scenes import CLASSES, THINGS
from mgca.decoder import upsample2
from mgca.experiments.report import figures, level_figures, plots, truth
from mgca.experiments.report.correspondence import (
    cut_out,
    frozen_features,
    kept,
    photo_pairs,
)
from mgca.experiments.report.page import open_page
from mgca.experiments.report.plots import Panel
from mgca.losses.levels import area_in_pixels, region_loss, similarity

open_page("region_level")
lite = mgca.load("lite")
photos = photo_pairs()
scenes = truth.Scenes(mgca.load("scenes"), counted)

# %% [markdown]
# ## The region, written out
#
# For image $i$ and the caption $j$ of another image the region is that of Eq. 4, with the small
# area $\alpha_\mathrm{neg} = 0.05$, 39 of 784 pixels, in place of $\alpha$:
#
# $$
# \begin{aligned}
# z_{ij} &= \frac{1}{\tau} \begin{cases}
# \varphi\big(o_{ii}(\alpha), t_i\big) & i = j \cr
# \varphi\big(o_{ij}(\alpha_\mathrm{neg}), t_j\big) & i \ne j
# \end{cases} \cr
# \mathcal{L}_\mathrm{region} &= -\frac{1}{2B} \sum_i \left[
# \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ij}}} + \log \frac{e^{z_{ii}}}{\sum_j e^{z_{ji}}} \right]
# \end{aligned} \tag{6}
# $$
#
# Each pair of image and caption has a region of its own. The diagonal is as at object level.


# %%
def region_of(pixels, text, area):
    """The region most like a text: a softmax-weighted mean over its pixels (Eq. 4)."""
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


pixels = upsample2(lite.pixels(frozen_features(lite, photos.images)))
texts = lite.backbone.encode_text(photos.captions)
logits = logits_of(pixels, texts)
pairs = torch.arange(len(photos.captions))
loss = (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
areas = {"alpha": alpha, "alpha_neg": alpha_neg}
library = region_loss(pixels, texts, **areas, temperature=temperature)
torch.testing.assert_close(loss, library)

# %% [markdown]
# ## Hard negatives of photographs
#
# Two photographs, and what the model finds in them for captions of others.


# %% tags=["hide-input"]
scores = similarity(pixels, texts)  # (B, B, N)
rows = []
for i, foreign in {2: [3, 4, 6], 1: [0, 3, 6]}.items():  # image: captions of others
    cuts = [cut_out(photos.images[i], kept(scores[i, j], alpha_neg)) for j in foreign]
    titles = [textwrap.fill(photos.captions[j], 22) for j in foreign]
    rows.append([Panel(*pair) for pair in zip(cuts, titles, strict=True)])
figures.show(
    plots.panels(rows, (7, 5.6)),
    caption=f"The {area_in_pixels(alpha_neg, 784)} pixels of a photograph that are most like "
    "captions of others. The orange suit and the helmet pass for the motorcycle, the flag for the "
    "flower. For the rocket it is the model of a space shuttle: a false negative.",
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
pairs_of = zip(pixels, texts, strict=True)
objects = torch.stack([region_of(p, t, alpha) for p, t in pairs_of])
own_level = F.normalize(objects, dim=-1) @ F.normalize(texts, dim=-1).T
levels = {"object level": own_level, "region level": logits * temperature}
labels = {"rows": "image", "columns": "caption", "colorbar": "cosine similarity"}
ticks = {"rotation": 60, "rotation_mode": "anchor"}
figure = plots.matrices(levels, photos.names, (7, 4.4), **labels, **ticks)
off = ~torch.eye(len(photos.names), dtype=torch.bool)
at_object_level, at_region_level = (level[off].mean() for level in levels.values())
figures.show(
    figure,
    caption="The same seven photographs at both levels. The diagonal is the same. The mean of the "
    f"others goes from {at_object_level:.2f} to {at_region_level:.2f}, and "
    f"the loss is {loss:.2f}.",
    alt="Two matrices of images by captions. The left has a dark diagonal and pale surroundings; "
    "in the right the surroundings are darker.",
    name="fig-region-matrix",
)

# %% [markdown]
# The scenes have enough pairs to show it as a distribution.

# %% tags=["hide-input"]
foreign = {"alpha": alpha_scenes, "alpha_neg": alpha_neg, "batch": batch}
told = (scenes.trained, scenes.captions, scenes.shares)
negatives, positives = truth.foreign_pairs(*told, **foreign)
values = {f"negatives, {level}": negatives[level] for level in levels}
bins, colours = np.linspace(-0.6, 1, 65), ("#56B4E9", "#D55E00", "#000000")
figure = plots.histogram(values | {"positives": positives}, bins, colours)
figure.axes[0].set_xlabel("cosine similarity to the caption")
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
shares = scenes.shares
prompts = scenes.backbone.encode_text([f"a photo of a {name}" for name in CLASSES])
trained, frozen = (
    truth.shown_in_regions(pixels, prompts, shares, alpha_neg)
    for pixels in (scenes.trained, scenes.frozen)
)
mistaken = truth.mistakes(trained, frozen, shares)

# %% tags=["hide-input"]
panels, things = [], mistaken[mistaken["thing"]]
for _, row in things.head(3).iterrows():
    pair = CLASSES.index(row["word"]), CLASSES.index(row["content"])
    found = level_figures.look_alike(scenes, *pair, prompts[pair[0]], alpha_neg)
    below = f"{100 * found[1]:.0f} % {row['content']}"
    panels.append(Panel(found[0], f"“{row['word']}”", below=below))
figures.show(
    plots.panels([panels], (7, 3)),
    caption="The region for a word that is not in the picture, and what it truly shows: the three "
    "most frequent mistakes among things.",
    alt="Three drawn scenes with a small region kept and the rest faded.",
    name="fig-region-scenes",
)

# %% tags=["hide-input"]
top = pd.concat([things.head(8), mistaken[~mistaken["thing"]].head(6)])
more = (top["region"] > top["before"]).sum()
figures.show(
    level_figures.mistakes(top),
    caption="What the region shows for a word that is not in the picture: the most frequent "
    "mistakes after training, things above, stuff below. The content has up to "
    f"{(top['region'] / top['image']).max():.0f} times the share of the region that it has of the "
    f"image. {more} of the {len(top)} were less frequent before training.",
    alt="For fourteen pairs of a word and a content, the share of the image that the content has, "
    "and its larger share of the region, before and after training.",
    name="fig-region-mistakes",
)

# %% tags=["hide-input"]
area = shares[:, : len(THINGS)].sum(1).mean().item()
before, after = (truth.things_in_regions(shown, shares) for shown in (frozen, trained))
Markdown(
    f"Things cover {100 * area:.0f} % of a scene. Of the region for a thing that is not "
    f"there, {100 * before:.0f} % shows things before training, and "
    f"{100 * after:.0f} % after: the negatives become look-alikes as the model learns."
)

# %% [markdown]
# Does a colour in the text draw the region to things of that colour? Here the thing is absent
# again, and something of the colour is there.

# %% tags=["hide-input"]
of_image, without, with_colour = truth.colour_in_regions(scenes, alpha_neg)
Markdown(
    f"Things of the colour cover {100 * of_image:.0f} % of the image. They have "
    f"{100 * without:.0f} % of the region for *a photo of a leaf* and its like, because that lies "
    f"on things in the first place, and {100 * with_colour:.0f} % of the region for *a photo of a "
    "red leaf*: the colour draws it only a little."
)

# %% [markdown]
# ## False negatives
#
# The caption of another image may name something that this image has too. The region then shows
# just that, and pushing it away is wrong. Scenes have 30 classes, so this happens often.

# %% tags=["hide-input"]
single = (scenes.trained, scenes.single, shares)
rows = {"a caption": negatives}
rows["one class it names"], _ = truth.foreign_pairs(*single, **foreign)
figures.table(
    truth.false_negatives(rows),
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
# 1. Set `alpha_neg` to 0.4. By how much do the cosines of the region level fall?
# 2. Set `alpha_neg` to 0.002, one pixel. That is nearly [the pixel level](pixel_level.ipynb): what
#    differs?
# 3. Write a caption of your own in place of one of the seven. Which photograph has the hardest
#    region for it?
#
# ```{dropdown} What to expect
# 1. They fall towards those of the object level: a region of 40 % cannot be the best place
#    alone, and averages what is unlike the text.
# 2. $\lfloor 0.002 \cdot 784 \rfloor = 1$ pixel is left. The pixel level also takes the most
#    similar pixel as its negative, but compares dot products over $\sqrt C$ instead of cosines
#    over $\tau$, and its positive is one pixel, not a region.
# 3. Any photograph in which something resembles what you named; its row in the matrix has the
#    largest number off the diagonal.
# ```
