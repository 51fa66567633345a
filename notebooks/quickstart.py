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
# # Quickstart: your words, real photographs
#
# This page segments photographs that the model has never seen with words that it was never trained
# to segment. It needs no network and no GPU: the encoders' weights come inside Python packages, the
# small parts trained by this project come with it.
#
# ```{admonition} What to expect
# `lite` is a small model: EfficientNet-Lite0 (4.7 M parameters, trained on ImageNet) beside a
# sentence encoder, aligned on 7,291 captioned photographs of mostly people and dogs. It shows how
# the method works and runs anywhere, and it is often wrong; CLIP under the same method is far
# better. The [results](results.ipynb) have its numbers.
# ```
#
# The photographs ship with [scikit-image](https://scikit-image.org) and
# [scikit-learn](https://scikit-learn.org): the cat *Chelsea* (Stéfan van der Walt, CC0), *coffee*
# (Rachel Michetti, CC0), the astronaut Eileen Collins (NASA, public domain), a rocket launch
# (SpaceX, public domain), a motorcycle (Middlebury 2014 stereo benchmark: Nesic, Westling, Wang,
# Kitajima, Krathwohl, Scharstein), a Chinese temple (danielbuechele, CC BY 2.0) and a flower
# (vultilion, CC BY 2.0).
#
# **After this page you can** segment a photograph with words of your choice, choose the unit, and
# say what to expect of the small model.

# %% tags=["parameters"]
meta_points = 36
picture_file = ""  # where to save the first picture, if anywhere

# %%
import skimage.data
from sklearn.datasets import load_sample_image

import mgca
from mgca.config import SegmentConfig
from mgca.experiments.report import figures, overlays, page_figures, plots
from mgca.experiments.report.page import open_page

open_page("quickstart")
# Windows that overlap are weighted towards their middle: no seam shows where they meet.
model = mgca.load("lite", config=SegmentConfig(blend="middle"))

photos = {
    "chelsea": skimage.data.chelsea(),
    "coffee": skimage.data.coffee(),
    "astronaut": skimage.data.astronaut(),
    "motorcycle": skimage.data.stereo_motorcycle()[0],
    "rocket": skimage.data.rocket(),
    "temple": load_sample_image("china.jpg"),
    "flower": load_sample_image("flower.jpg"),
}

# %% [markdown]
# ## One photograph, a few words
#
# `segment` labels every pixel with the word whose embedding is most similar to the pixel's unit.
# The words are free: single nouns, or short phrases.

# %%
result = model.segment(photos["temple"], ["a temple", "the sky", "trees"])
if picture_file:
    result.overlay().save(picture_file)
result

# %% [markdown]
# `labels` holds an index into `classes` for every pixel of the original, `scores` the similarities
# themselves, and `areas()` the share of each class.

# %%
print(result.labels.shape, result.classes)
print({name: f"{100 * share:.0f} %" for name, share in result.areas().items()})

# %% [markdown]
# ## Seven photographs: the pixel unit beside the adaptive unit
#
# With the *pixel unit* each pixel embedding is labelled by itself; with the *adaptive semantic
# unit* the embeddings are first grouped around a grid of meta-points and averaged. The network runs
# once per photograph: `embed` keeps its pixel embeddings, and any words and units can be tried on
# them.

# %%
vocabulary = {
    "chelsea": ["cat", "sofa", "wall", "dog"],
    "coffee": ["cup", "spoon", "table", "coffee", "plate"],
    "astronaut": ["woman", "flag", "spacecraft", "spacesuit", "wall"],
    "motorcycle": ["motorcycle", "wall", "floor", "shelf", "helmet"],
    "rocket": ["rocket", "sky", "smoke", "fire", "tower"],
    "temple": ["temple", "sky", "tree", "people", "pavement"],
    "flower": ["flower", "leaf", "grass", "bee"],
}
embedded = {name: model.embed(photo) for name, photo in photos.items()}

coffee, words = embedded["coffee"], vocabulary["coffee"]
pixel = model.segment(coffee, words, meta_points=None)
adaptive = model.segment(coffee, words, meta_points=meta_points)
same = (pixel.labels == adaptive.labels).float().mean()
print(f"coffee: both units give the same word to {100 * same:.0f} % of the pixels")


# %% tags=["hide-input"]
units = {"pixel unit": None, "adaptive unit": meta_points}
for number, (name, classes) in enumerate(vocabulary.items()):
    photo = embedded[name]
    results = {unit: model.segment(photo, classes, n) for unit, n in units.items()}
    by_pixel, by_unit = (result.labels for result in results.values())
    same = 100 * (by_pixel == by_unit).float().mean()
    figures.show(
        page_figures.photo_row(name, results, large=number < 2),
        caption=f"{name.capitalize()}, by pixel and by unit, which agree on {same:.0f} % of the "
        "pixels.",
        alt=f"Three panels: the photograph {name}, its classes with pixel units, and with "
        f"{meta_points} meta-points, in the colours of the words {', '.join(classes)}.",
        name=f"fig-quickstart-{name}",
    )

# %% [markdown]
# How scattered each prediction is: the number of connected regions in which all pixels have one
# class. Fewer is not better in itself, but over-segmentation shows here first.

# %% tags=["hide-input"]
import pandas as pd
from skimage.measure import label

regions = pd.DataFrame(index=pd.Index(vocabulary, name="photograph").sort_values())
for points, unit in ((meta_points, f"{meta_points} meta-points"), (None, "pixel")):
    for name, classes in vocabulary.items():
        labels = model.segment(embedded[name], classes, points).labels.numpy()
        regions.loc[name, unit] = label(labels, background=-1).max()
figures.table(regions.astype(int), caption="Number of connected regions of one class.")

# %% [markdown]
# ## The similarity map of one word
#
# Before anything is decided there is a similarity for each word and pixel. Only its comparison with
# other words matters: the highest value of a word that is not in the picture can exceed the lowest
# of one that is.

# %%
words = ["temple", "sky", "tree", "motorcycle"]
scores = model.segment(embedded["temple"], words, meta_points=None).scores  # (4, H, W)

# %% tags=["hide-input"]
limits = {"vmin": scores.min().item(), "vmax": scores.max().item()}
pairs = list(zip(words, scores, strict=True))
maps = [plots.Panel(own, word, options=limits) for word, own in pairs]
highest = ", ".join(f"{word} {own.max().item():.2f}" for word, own in pairs)
figures.show(
    plots.panels([maps[:2], maps[2:]], (6.8, 4.6), colorbar="cosine similarity"),
    caption="Each of the first three words has its own place in the photograph: *temple* on the "
    "building, *tree* at the right, *sky* beside the temple rather than above it. The highest "
    f"values: {highest}.",
    alt="Four similarity maps of the photograph of a temple, for the words temple, sky, tree and "
    "motorcycle, with one colour scale.",
    name="fig-quickstart-words",
)

# %% [markdown]
# ## Another vocabulary, another segmentation
#
# Every pixel goes to one of the words given, so the words compete. A missing word is replaced by
# the nearest one there is; a threshold on the softmax over the words sends what fits none of them
# to the background.

# %%
lists = [
    ["cat", "wall"],
    ["ear", "eye", "fur", "blanket"],
    ["dog", "table"],
    ["animal", "furniture"],
]
cat = embedded["chelsea"]
results = [model.segment(cat, classes, meta_points) for classes in lists]

# %% tags=["hide-input"]
pictures = [plots.Panel(overlays.coloured(result)) for result in results]
figure = plots.panels([pictures[:2], pictures[2:]], (6.8, 6))
for axis, classes in zip(figure.axes, lists, strict=True):
    axis.legend(
        handles=overlays.key(classes),
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=2,
    )
figures.show(
    figure,
    caption="Four lists of words on one photograph: the same pixels go to whatever is nearest.",
    alt="Four segmentations of the photograph of a cat, each with the legend of its words.",
    name="fig-quickstart-lists",
)

# %% [markdown]
# The same with a threshold. None of the words is *sky*; with this threshold most of the sky still
# goes to one of them.

# %%
words = ["rocket", "smoke", "tower"]
model.segment(embedded["rocket"], words, meta_points, background=0.45)

# %% [markdown]
# ## What to take away
#
# * A model, a photograph and a few words are all it takes; the words compete for the pixels.
# * The units make the result calmer, and not always right.
# * A wrong label often means a missing word: add one for what is there instead, or set a threshold.
