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
# # The problem: masks from captions
#
# A caption says *that* there is an umbrella in an image, not *where*. Many captions together say
# where: the umbrella is what images whose captions name it share, and the other images lack.
#
# Two difficulties remain, and MGCA answers both. What is trained (images, regions) is not what is
# asked for (pixels). And what gets a name, a group or a pixel, is either too large or too small.
#
# The images are scenes of [the world](scenes_world.ipynb), whose masks are exact and never seen in
# training, and photographs that come with scikit-image.

# %% tags=["parameters"]
words = ["umbrella", "water"]  # of the 30 words of the world
pairs_seen = 240  # images with captions that the contrast is drawn from
scenes = 40  # validation scenes over which numbers are taken
shown = 2  # the validation scene that is segmented below
groups = 4  # meta-points of the coarse unit
in_batch = 10  # image of the batch that is drawn at the end

# %% tags=["hide-input"]
import dataclasses
import re
import textwrap
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import skimage.data
import torch
from matplotlib.patches import Patch
from scipy.stats import rankdata
from torch.nn import functional as F

import mgca
from mgca.backbone import load_backbone
from mgca.config import SegmentConfig
from mgca.data.scenes import CLASSES, THINGS, VALIDATION_SEED, evaluation_set, training_pairs
from mgca.experiments.report import figures
from mgca.experiments.scenes import SIDE, scenes_training
from mgca.inference.overlay import palette
from mgca.losses.levels import area_in_pixels, rank_in_region, region_embeddings, similarity
from mgca.model import Model
from mgca.utils.images import to_tensor
from mgca.weights import load_weights
from mgca.weights.decoders import decoder_from

figures.use_style()
torch.set_grad_enabled(False)
window = SegmentConfig(short_side=SIDE, window=SIDE, stride=SIDE)  # one window that is the image
backbone = load_backbone("scenes")


def trunk_features(images) -> torch.Tensor:
    """(n, 112, 14, 14) features of the frozen convolutions below the small CLIP."""
    tensors = [to_tensor(image, backbone.mean, backbone.std) for image in images]
    return torch.cat([backbone.trunk.features(part) for part in torch.stack(tensors).split(30)])


def panel(axis, picture, title="", **options):
    """An image without axes."""
    axis.set_title(title)
    axis.set_axis_off()
    return axis.imshow(picture, **options)


# %%
pairs = training_pairs(pairs_seen, seed=0)
captions = [own[0] for own in pairs.captions]
features = trunk_features(pairs.images)

validation = evaluation_set("scenes", scenes, seed=VALIDATION_SEED)
_, pictures, masks = zip(*validation, strict=True)
unseen = trunk_features(pictures)

# %% [markdown]
# ## Captions sort images
#
# Take the crudest learner: no text encoder, no training. The captions only sort the images into two
# heaps, $W$ whose captions have the word $w$ and $W^c$ whose captions have not. Let $\bar f_i$ be
# the mean over the positions of image $i$ of frozen features (here those of a network trained on
# ImageNet's labels). The difference of the heaps' means is a direction,
#
# $$
# c_w = \frac{1}{|W|} \sum_{i \in W} \bar f_i - \frac{1}{|W^c|} \sum_{i \in W^c} \bar f_i ,
# \qquad s^n = \langle f^n, c_w \rangle ,
# $$
#
# and its product with the feature $f^n$ at a position of a *new* image is a similarity map.

# %%
spread = features.std(dim=(0, 2, 3))[:, None, None]  # channels differ in scale
seen, new = features / spread, unseen / spread
means = seen.mean(dim=(2, 3))  # (images, channels): where is lost


def saying(word: str) -> torch.Tensor:
    """(images,) bool: whose caption has the word."""
    return torch.tensor([re.search(rf"\b{word}\b", text.lower()) is not None for text in captions])


def directions(said: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the images with the word, and that less the mean of the others."""
    return means[said].mean(dim=0), means[said].mean(dim=0) - means[~said].mean(dim=0)


def maps(direction: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
    """(h, w) products of a direction with the features (channels, h, w) of an image."""
    return torch.einsum("c,chw->hw", direction, feature)


# %% tags=["hide-input"]
def example(word: str) -> int:
    """The first validation scene that shows enough of it."""
    return next(i for i, mask in enumerate(masks) if (mask == CLASSES.index(word)).mean() > 0.08)


def outline(axis, mask: np.ndarray) -> None:
    axis.contour(mask, levels=[0.5], colors="white", linewidths=2.4)
    axis.contour(mask, levels=[0.5], colors="black", linewidths=1.2)


def ordered(score: torch.Tensor, inside: np.ndarray) -> float:
    """Of the pairs of a pixel inside and one outside, % in which the one inside scores higher."""
    score = F.interpolate(score[None, None], inside.shape, mode="bilinear")[0, 0].numpy()
    ranks, size = rankdata(score)[inside.ravel()], inside.sum()
    return 100 * float((ranks.sum() - size * (size + 1) / 2) / (size * (~inside).sum()))


figure, axes = plt.subplots(len(words), 3, figsize=(6.6, 2.4 * len(words)), layout="constrained")
for row, word in zip(axes, words, strict=True):
    i = example(word)
    alone, contrast = (maps(direction, new[i]) for direction in directions(saying(word)))
    panel(row[0], pictures[i], f"new image: {word}")
    panel(row[1], alone, "images with the word", extent=(0, SIDE, SIDE, 0))
    panel(row[2], contrast, "minus the others", extent=(0, SIDE, SIDE, 0))
    for axis in row:
        outline(axis, masks[i] == CLASSES.index(word))

shuffle = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0))
right = defaultdict(list)
for number, word in enumerate(CLASSES):
    said = saying(word)
    if not said.any():
        continue
    kind = "thing" if word in THINGS else "stuff"
    for feature, mask in zip(new, masks, strict=True):
        inside = mask == number
        if 0.01 < inside.mean() < 1:
            alone, contrast = directions(said)
            right["alone", kind].append(ordered(maps(alone, feature), inside))
            right["contrast", kind].append(ordered(maps(contrast, feature), inside))
            # Each caption beside the image of another.
            shuffled = directions(said[shuffle])[1]
            right["shuffled", kind].append(ordered(maps(shuffled, feature), inside))
right = {key: np.mean(values) for key, values in right.items()}
figures.show(
    figure,
    caption="Where a word is, from captions that only sort images; outlined, the truth. The mean "
    "of the images with the word points to much else; minus the mean of the others it points more "
    "to the word. Over all words, a pixel inside beats one outside in "
    f"{right['alone', 'thing']:.0f} % of the pairs for things and {right['alone', 'stuff']:.0f} % "
    f"for stuffs without the contrast, in {right['contrast', 'thing']:.0f} % and "
    f"{right['contrast', 'stuff']:.0f} % with it, and in {right['shuffled', 'thing']:.0f} % and "
    f"{right['shuffled', 'stuff']:.0f} % if the captions are shuffled (chance: 50 %).",
    alt="Drawn scenes with the outline of what a word names. Beside each, two heat maps: the first "
    "is bright on much else, the second more within the outline.",
    name="fig-problem-contrast",
)

# %% [markdown]
# No position was ever told. What both heaps show cancels; what goes with the word is left. This is
# why MGCA, like CLIP, learns from *contrast*: an image's own caption against the captions of the
# other images of the batch.
#
# It also says what can go wrong. What always comes with a word cannot be told from it, and what
# captions leave out is not learned.
#
# ## The same with text embeddings
#
# A text encoder sorts by all words at once. The paper's Eq. 2 (see [Method](../method.md)) is the
# similarity of pixel $n$ of image $i$ to text $j$,
#
# $$
# s_{ij}^n = \langle p_i^n, t_j \rangle . \tag{2}
# $$
#
# In plain code, and in the library:

# %%
model = mgca.load("scenes", config=window)  # the small CLIP and its trained decoder
shown_images = [example(word) for word in words]
pixels = model.decoder(backbone.project(backbone.from_trunk(unseen[shown_images])))
texts = backbone.encode_text(captions)

mine = torch.empty(len(pixels), len(texts), 28 * 28)
for i, image in enumerate(pixels.flatten(2)):  # (C, N)
    for j, text in enumerate(texts):  # (C,)
        mine[i, j] = (image * text[:, None]).sum(dim=0)
scores = similarity(pixels, texts)  # (images, texts, N)
torch.testing.assert_close(mine, scores, rtol=1e-4, atol=1e-4)

# %% tags=["hide-input"]
figure, axes = plt.subplots(len(words), 3, figsize=(6.6, 2.5 * len(words)), layout="constrained")
averages = {"captions with it": [], "captions without": [], "difference": []}
for word, own in zip(words, scores, strict=True):
    said = saying(word)
    averages["captions with it"].append(own[said].mean(dim=0).view(28, 28))
    averages["captions without"].append(own[~said].mean(dim=0).view(28, 28))
    averages["difference"].append((own[said].mean(dim=0) - own[~said].mean(dim=0)).view(28, 28))
reach = max(map_.abs().max() for own in averages.values() for map_ in own)
higher = defaultdict(list)
for column, (title, own) in zip(axes.T, averages.items(), strict=True):
    for axis, map_, word, i in zip(column, own, words, shown_images, strict=True):
        inside = masks[i] == CLASSES.index(word)
        drawn = panel(
            axis,
            map_,
            f"{word}: {title}" if title.startswith("captions") else title,
            cmap="PuOr_r",
            vmin=-reach,
            vmax=reach,
            extent=(0, SIDE, SIDE, 0),
        )
        outline(axis, inside)
        fine = F.interpolate(map_[None, None], (SIDE, SIDE), mode="bilinear")[0, 0]
        higher[title].append((fine[inside].mean() - fine[~inside].mean()).item())
figure.colorbar(drawn, ax=axes, location="bottom", shrink=0.6, label="mean similarity")
gained = {
    title: " and ".join(f"{v:+.1f}".replace("-", "−") for v in values)
    for title, values in higher.items()
}
figures.show(
    figure,
    caption="$s_{ij}^n$ of the trained model for the same images, averaged over the captions $j$ "
    "with the word and those without. The former alone now tell where: training has put the "
    f"contrast into the embeddings. Within the outlines the mean is higher by "
    f"{gained['captions with it']} with them, {gained['captions without']} with the others.",
    alt="Three heat maps for each of two scenes with the outline of what the word names: mean "
    "similarity to captions with the word, high within; to captions without it, pale; and the "
    "difference, much like the first.",
    name="fig-problem-texts",
)

# %% [markdown]
# ## The granularity gap
#
# CLIP contrasts whole images with whole captions, and so it knows whole images. Segmentation asks
# for pixels. Methods before MGCA align groups or regions, which is nearer, but still not what is
# asked for. The paper's Figure 1 names this the *alignment granularity gap*.
#
# On scenes it can be measured. One small CLIP is taken as it is; with its last layer changed, as
# [dense features](dense_features.ipynb) need it; and on top of that with decoders that were trained
# at one, two and all three levels. Each is asked three questions:
#
# * **image**: is the word most similar to the whole image in it?
# * **region**: is the mean embedding of a content, over its exact mask, named rightly?
# * **pixel**: are the pixels of that content named rightly, one by one?

# %% tags=["hide-input"]
plain = Model(load_backbone("scenes", last_block="attention"), config=window)
decoders = {
    trained: decoder_from(*load_weights(f"scenes-{weights}"), backbone)
    for trained, weights in {
        "object": "object",
        "object, region": "object+region",
        "object, region, pixel": "mgca",
    }.items()
}
names = plain.texts(CLASSES)  # (30, C)
asked = defaultdict(list)
for mask, trunk in zip(masks, unseen, strict=True):
    trunk = trunk[None]
    value = backbone.project(backbone.from_trunk(trunk))
    embedded = {"image (CLIP)": plain.backbone.project(plain.backbone.from_trunk(trunk))}
    embedded["image, last layer changed"] = value
    embedded |= {trained: decoder(value) for trained, decoder in decoders.items()}
    for trained, pixels in embedded.items():
        pixels = F.interpolate(pixels, (SIDE, SIDE), mode="bilinear")[0].flatten(1)  # (C, N)
        # What CLIP itself takes for the image is its class token.
        whole = plain.backbone.model.visual(trunk)[0] if "CLIP" in trained else pixels.mean(dim=1)
        asked[trained, "image"].append((names @ whole).argmax().item() in mask)
        found = (names @ F.normalize(pixels, dim=0)).argmax(dim=0)
        for number in np.unique(mask):
            within = torch.from_numpy(mask.ravel() == number)
            if within.float().mean() > 0.01:
                mean = pixels[:, within].mean(dim=1)
                asked[trained, "region"].append((names @ mean).argmax().item() == number)
                asked[trained, "pixel"].append((found[within] == number).float().mean().item())
answers = 100 * pd.Series({key: np.mean(values) for key, values in asked.items()}).unstack()
answers = answers.loc[list(embedded), ["image", "region", "pixel"]]

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for (trained, row), marker in zip(answers.iterrows(), "ovs^D", strict=True):
    axis.plot(row.index, row, marker=marker, markersize=8, label=trained)
axis.set(ylim=(0, 103), ylabel="right, %", xlabel="asked for")
axis.legend(title="trained", loc="lower left")
clip, start, first, _, last = (row for _, row in answers.iterrows())
figures.show(
    figure,
    caption="What is trained against what is asked for. The CLIP that names "
    f"{clip['image']:.0f} % of the images rightly names {clip['pixel']:.0f} % of the pixels. "
    f"Object-level training lifts regions from {start['region']:.0f} to {first['region']:.0f} %, "
    f"but pixels from {start['pixel']:.0f} to {first['pixel']:.0f} %; all three levels reach "
    f"{last['region']:.0f} and {last['pixel']:.0f} %. Means over {scenes} validation scenes and "
    "the contents in them; one training seed.",
    alt="Line plot: share of right answers for image, region and pixel, one line for each "
    "training. All lines fall from left to right, that of CLIP the most.",
    name="fig-problem-gap",
)

# %% [markdown]
# Training at object level helps with regions far more than with pixels. What the finer levels add,
# they add to the pixels. For images any of the words that are present counts as right, which is
# easier than the other two questions; only the fall from region to pixel compares like with like.
#
# The published runs, over three seeds, are on the page of the
# [granularity](ablation_granularity.ipynb).
#
# ## Too few units, and too many
#
# The second difficulty is what gets a name. The paper's Figure 1 sets two answers against each
# other. *Group units*, few and large, merge what differs: under-segmentation. *Pixel units* break
# up what belongs together: over-segmentation.
#
# The [adaptive unit](adaptive_unit.ipynb) gathers pixels around a grid of meta-points. With 36 it
# is the paper's. With one for each pixel it is the pixel unit. With very few it stands for a group
# unit here; the groups of methods such as GroupViT are learned, these are not.

# %% tags=["hide-input"]
units = {f"{groups} groups": groups, "adaptive, 36": 36, "pixels": None}


def found_and_named(points: int | None) -> tuple[float, float]:
    """Mean number of words used, and share of a scene's contents whose word is among them."""
    used, share = [], []
    for embedded, mask in zip(embeddings, masks, strict=True):
        labels = np.unique(model.segment(embedded, CLASSES, points).labels.numpy())
        used.append(len(labels))
        share.append(np.isin(np.unique(mask), labels).mean())
    return float(np.mean(used)), 100 * float(np.mean(share))


# As model.embed, from the features at hand.
embeddings = [
    dataclasses.replace(model.windows(picture)[0], pixels=decoded[None])
    for picture, decoded in zip(
        pictures, model.decoder(backbone.project(backbone.from_trunk(unseen))), strict=True
    )
]
counted = {title: found_and_named(points) for title, points in units.items()}
true = np.mean([len(np.unique(mask)) for mask in masks])

picture, mask = pictures[shown], masks[shown]
present = [int(i) for i in np.argsort(-np.bincount(mask.ravel())) if (mask == i).any()]
colours = np.empty((len(CLASSES), 3), np.uint8)
# Words of what is not in the scene: greys, so that wrong pieces are seen and not read.
colours[:] = np.linspace(70, 220, len(CLASSES)).astype(np.uint8)[:, None]
colours[present] = palette([CLASSES[i] for i in present])
figure, axes = plt.subplots(2, 3, figsize=(6.6, 4.9), layout="constrained")
panel(axes[0, 0], picture, "scene")
panel(axes[0, 1], colours[mask], "truth")
axes[0, 2].axis("off")
axes[0, 2].legend(
    handles=[Patch(color=colours[i] / 255, label=CLASSES[i]) for i in present]
    + [Patch(color="0.6", label="not in the scene")],
    loc="center left",
)
for axis, (title, points) in zip(axes[1], units.items(), strict=True):
    labels = model.segment(embeddings[shown], CLASSES, points).labels.numpy()
    panel(axis, colours[labels], title)
numbers = "; ".join(
    f"{title}: {used:.1f} words used, {share:.0f} % of the contents among them"
    for title, (used, share) in counted.items()
)
figures.show(
    figure,
    caption="Few groups lose the things, single pixels shatter them into words of things that are "
    f"not there. Means over {scenes} scenes, which have {true:.1f} contents each; {numbers}.",
    alt="A drawn scene, its true mask, and three segmentations: a few large pieces, more and "
    "smaller ones, and many small scattered ones, mostly grey.",
    name="fig-problem-units",
)

# %% [markdown]
# The same on photographs, with the model `lite`. Every pixel goes to one of the words given.

# %% tags=["hide-input"]
lite = mgca.load("lite")
photographs = {
    "rocket": (skimage.data.rocket(), ["rocket", "sky", "smoke", "tower"]),
    "cat": (skimage.data.chelsea(), ["cat", "sofa", "wall", "dog"]),
}
figure = plt.figure(figsize=(7, 4.5), layout="constrained")
parts = figure.subfigures(len(photographs), 1)
for part, (photograph, vocabulary) in zip(parts, photographs.values(), strict=True):
    embedded = lite.embed(photograph)
    for axis, (title, points) in zip(part.subplots(1, 3), units.items(), strict=True):
        labels = lite.segment(embedded, vocabulary, points).labels.numpy()
        blended = 0.4 * np.asarray(embedded.image) + 0.6 * palette(vocabulary)[labels]
        panel(axis, blended.astype(np.uint8), title if part is parts[0] else "")
    handles = [
        Patch(color=colour / 255, label=name)
        for colour, name in zip(palette(vocabulary), vocabulary, strict=True)
    ]
    part.legend(handles=handles, loc="outside lower center", ncols=4)
figures.show(
    figure,
    caption="A rocket launch: four groups lose the rocket among the towers, single pixels tear it "
    "apart, 36 units keep its upper part in one piece. A cat that fills the picture: here four "
    "groups do best, and 36 units mend only a part of what the pixels break up.",
    alt="Two photographs, each under the colours of its words three times: with four groups, with "
    "36 adaptive units, and with single pixels.",
    name="fig-problem-photographs",
)

# %% [markdown]
# ## What MGCA does about it
#
# The similarities of Eq. 2, of every image to every caption of a batch, are all it needs. From the
# map of an image and *its own* caption it takes an object and one pixel as positives. From the map
# of the image and *another* caption it takes a small region and one pixel as negatives. So all
# three sizes are trained, and no mask is needed. The figure below has one batch; the paper's
# Figure 2 shows the same as a diagram.

# %%
loss = scenes_training().loss
batch = 16
pixels = model.decoder(backbone.project(backbone.from_trunk(features[:batch])))
texts = texts[:batch]
scores = similarity(pixels, texts)  # (B, B, N)

size = area_in_pixels(loss.alpha, 784)  # pixels of an object
small = area_in_pixels(loss.alpha_neg, 784)  # pixels of a hard negative region
rank = rank_in_region(loss.k, size)  # of the semi-hard positive pixel
order = scores.argsort(dim=2, descending=True)  # pixels of each map, most similar first
regions = F.normalize(region_embeddings(pixels, scores, loss.alpha_neg), dim=-1)
hardness = torch.einsum("ijc,jc->ij", regions, F.normalize(texts, dim=-1))
print(f"object {size}, hard region {small} of 784 pixels; positive pixel of rank {rank}")

# %% tags=["hide-input"]
i = in_batch
# Of the other captions the one whose hard region is most like it: the hardest negative.
j = int(hardness[i].masked_fill(torch.arange(batch) == i, -1).argmax())
image = np.asarray(pairs.images[i])


def spot(pixel: int) -> tuple[float, float]:
    """Where a pixel embedding lies in the image, x and y."""
    return (pixel % 28 + 0.5) * SIDE / 28, (pixel // 28 + 0.5) * SIDE / 28


figure, axes = plt.subplots(2, 3, figsize=(6.9, 5.6), layout="constrained")
panel(axes[0, 0], image, f"image {i}")
axes[1, 0].imshow(hardness.masked_fill(torch.eye(batch, dtype=torch.bool), torch.nan), "viridis")
axes[1, 0].plot(j, i, "s", markersize=9, markerfacecolor="none", color="white", markeredgewidth=2)
axes[1, 0].set(
    title="hard regions",
    xlabel="caption $j$",
    ylabel="image $i$",
    xticks=range(0, batch, 5),
    yticks=range(0, batch, 5),
)
axes[1, 0].grid(False)
low, high = scores[i, [i, j]].min(), scores[i, [i, j]].max()
for row, text, count, at, role in (
    (axes[0], i, size, rank - 1, "object, pixel"),
    (axes[1], j, small, 0, "hard region, pixel"),
):
    whose = "own caption" if text == i else f"caption {j}"
    panel(
        row[1], scores[i, text].view(28, 28), whose, extent=(0, SIDE, SIDE, 0), vmin=low, vmax=high
    )
    wrapped = "\n".join(textwrap.wrap(f"“{captions[text]}”", 25))
    row[1].text(0.5, -0.03, wrapped, ha="center", va="top", fontsize=10, transform=row[1].transAxes)
    kept = torch.zeros(784)
    kept[order[i, text, :count]] = 1
    kept = kept.view(28, 28).repeat_interleave(4, 0).repeat_interleave(4, 1)[..., None].numpy()
    panel(row[2], (image * (0.25 + 0.75 * kept)).astype(np.uint8), role)
    x, y = spot(int(order[i, text, at]))
    row[2].plot(
        x, y, "o", markersize=11, markerfacecolor="none", color="white", markeredgewidth=3.5
    )
    row[2].plot(
        x, y, "o", markersize=11, markerfacecolor="none", color="black", markeredgewidth=1.5
    )
figures.show(
    figure,
    caption="From similarities to pairs. Above: the map of an image and its own caption gives the "
    f"object, the {100 * loss.alpha:.0f} % of the pixels most similar (bright), and the positive "
    "pixel (ring). Below: of the other captions of the batch the one whose hard region is most "
    f"like it (framed): its map gives the region, {100 * loss.alpha_neg:.0f} %, and the most "
    "similar pixel, both negatives.",
    alt="Six panels: a drawn scene; its similarity map to its own caption; the chosen object and "
    "pixel; a matrix of the cosines of all hard regions with all captions; the map to another "
    "caption; the small region and the pixel chosen there.",
    name="fig-problem-batch",
)

# %% [markdown]
# The pairs are guesses. As the figure is built here, the other caption speaks of a ring, and the
# region it picks fills the hole of this image's ring and touches the ring, which its own caption
# does not name. By the mask it is mostly water; and yet the loss pushes the place of a true ring
# away from a text that names one.
#
# Each of the three sizes has its own page: the [object](object_level.ipynb), the
# [region](region_level.ipynb) and the [pixel](pixel_level.ipynb). What they start from is on two
# more: the [dense features](dense_features.ipynb) of CLIP, and the [decoder](decoder.ipynb).
#
# ## What to take away
#
# * Captions tell where, because their contrast across images cancels what the images share.
# * A model trained on images or objects falls behind when it is asked for pixels. MGCA trains at
#   all three sizes, with pairs made from its own similarities.
# * Few large units lose contents, single pixels invent them; 36 adaptive units lie between.
#
# ## Try it
#
# 1. Set `pairs_seen = 60`, then 480. How many captions does the difference of two means need?
# 2. Set `words = ["boat", "gravel"]`, or other words of [the world](scenes_world.ipynb). Which
#    things are hard, and why are stuffs easier?
# 3. Set `groups` to 1, 9 and 16. Where does under-segmentation end?
