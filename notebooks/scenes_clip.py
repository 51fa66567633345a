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
# # A small CLIP and its alignment gap
#
# MGCA starts from a CLIP that is trained on whole images and captions, and asks it for pixels. The
# model of this page is such a CLIP, small enough to be trained in minutes on the captions of
# [the world](scenes_world.ipynb). It shows the *alignment granularity gap* of the paper: what it
# knows of an image, and what it knows of the image's pixels, are two things.
#
# **After this page you can** measure what a CLIP knows of images and of their pixels, and read
# the gap between the two.

# %% tags=["parameters"]
scenes = 4  # shown, the first of the validation scenes
compared = 60  # validation scenes over which similarities are compared

# %% tags=["hide-input"]
import numpy as np
import pandas as pd
from IPython.display import Markdown

import mgca
from mgca.backbone import load_backbone
from mgca.config import SegmentConfig
from mgca.data.scenes import CLASSES, THINGS, VALIDATION_SEED, evaluation_set
from mgca.evaluation.results import read_run
from mgca.experiments.report import figures, small_clip, words
from mgca.experiments.report.page import open_page
from mgca.experiments.report.pictures import pictures
from mgca.experiments.report.tables import mean_and_std
from mgca.experiments.scenes import SIDE
from mgca.model import Model

page = open_page("scenes_clip", "scenes")
window = SegmentConfig(short_side=SIDE, window=SIDE, stride=SIDE)  # that is the image

# %% tags=["hide-input"]
models = {
    words.PLAIN: Model(load_backbone("scenes", last_block="attention"), config=window),
    words.MASKCLIP: Model(load_backbone("scenes"), config=window),
    "MGCA": mgca.load("scenes", config=window),
}

# %% [markdown]
# ## What it is
#
# The first stages of EfficientNet-Lite0, frozen, see the image at an enlarged size and give a grid
# of features. They take the place of the patch embedding of a vision transformer. Above them stands
# the transformer of OpenCLIP, trained here: class token, positional embeddings, attention blocks,
# `ln_post` and projection. The dense path is therefore that of CLIP ViT-B/16, down to the last
# attention block that is reduced to its values ([D1](#d1)). Texts go through the frozen
# sentence encoder of the photos scale and a trained linear map. The contrast is CLIP's: whole
# images against whole captions.

# %% tags=["hide-input"]
figures.table(
    small_clip.parts(models["MGCA"]),
    caption="The parts of the small CLIP, and MGCA's decoder.",
)

# %% [markdown]
# The trunk was trained on the labels of ImageNet. It has seen no drawn scene, but its features are
# not made from captions alone.
#
# ## What it knows of whole images
#
# Measured on test scenes. *Top word present*: the class most similar to an image occurs in it.
# *Largest thing first*: the thing most similar to an image is the largest in it. *R@k*: the image's
# own caption is among the k most similar captions of all images. *By chance* is what a random class
# would reach.

# %% tags=["hide-input"]
card = page.read("scenes/clip.csv")
run = card["run"].iloc[0]
validation = evaluation_set("scenes", compared, seed=VALIDATION_SEED)
present = np.mean([len(np.unique(mask)) for _, _, mask in validation]) / len(CLASSES)
chance = {"top word present": 100 * present, "largest thing first": 100 / len(THINGS)}
order = [*chance, "R@1", "R@5"]
image_level = card.set_index("metric")["value"].reindex(order).rename("%").to_frame()
image_level["by chance"] = [f"{chance[m]:.1f}" if m in chance else "" for m in order]

# %% tags=["hide-input"]
record, file = read_run(page.results, run), "scenes/clip.csv"
caption = "The small CLIP on whole test scenes."
figures.table(image_level.round(1), caption=caption, results=file)
trained = small_clip.how_trained(run, record)
figures.table(trained, caption="How it was trained.", results=file)

# %% tags=["hide-input"]
losses = pd.read_csv(page.results / "runs" / f"{run}.csv")
chance = np.log(record["config"]["batch_size"])
start, end = losses["loss"].iloc[[0, -1]]
caption = f"The contrastive loss falls from {start:.2f} to {end:.2f}; chance is "
caption += f"{chance:.2f}, the logarithm of the batch."
alt = "Line chart: mean loss of each epoch, falling, below a dotted line for chance."
said = {"caption": caption, "alt": alt, "name": "fig-clip-loss", "results": file}
figures.show(small_clip.epochs(losses, chance), **said)

# %% [markdown]
# ## What it knows of pixels
#
# The first validation scenes, and the similarity of every pixel to the thing that is largest in
# them, minus its mean over the image: where in the image the word is seen. {term}`Plain CLIP <plain
# CLIP>` is the network as it was trained, {term}`MaskCLIP` has the last attention block reduced to
# its values, and MGCA has its trained decoder on top of the latter. All maps have one colour scale.

# %%
gap = small_clip.gap(models, validation)  # a line for each model

# %% tags=["hide-input"]
shown = [(image, mask) for _, image, mask in validation.first(scenes)]
top = image_level.loc["top word present", "%"]
ordered = gap["ordered", "things"].map("{:.0f} %".format)
text = ", ".join(f"{share} ({name})" for name, share in ordered.items())

# %% tags=["hide-input"]
alt = "A grid. Each row: a scene, the mask of its largest thing, and the similarity "
alt += "of every pixel to that thing's word with plain CLIP, MaskCLIP and MGCA."

# %% tags=["hide-input"]
figures.show(
    small_clip.word_maps(models, shown),
    caption="The similarity to a word, pixel by pixel. For whole images the top word "
    f"is right in {top:.0f} % of the cases. Over {compared} validation scenes, a "
    "pixel of a thing is more similar to the thing's word than a pixel elsewhere in "
    f"the image in {text} of the pairs; 50 % is chance.",
    alt=alt,
    name="fig-gap",
)

# %% tags=["hide-input"]
titles = {"ordered": "pairs of pixels in the right order, %"}
titles["right"] = "pixels labelled correctly, %"
caption = f"The order of pixels, and their labels, over {compared} validation scenes."
figures.table(gap.round(1).rename(columns=titles), caption=caption)

# %% [markdown]
# The first is a mean over the words of each scene. The second is the {term}`pixel accuracy`: all
# words compete for all pixels.
#
# ## The segmentation
#
# All 30 words compete for each pixel of the same scenes.

# %% tags=["hide-input"]
columns = {name: (model, None, {}) for name, model in models.items()}
columns["MGCA, 36 units"] = (models["MGCA"], 36, {})

# %% tags=["hide-input"]
figures.show(
    pictures(validation.first(scenes), columns, range(scenes)),
    caption="All 30 words compete: plain CLIP labels little correctly, MaskCLIP more, "
    "MGCA most. The units take some of the specks away, and parts of small things with "
    "them.",
    alt="A grid. Columns: scenes. Rows: the image, its true classes, and the "
    "predictions of plain CLIP, MaskCLIP, MGCA, and MGCA with 36 units.",
    name="fig-gap-pictures",
)

# %% [markdown]
# ## The gap in numbers
#
# mIoU in percent on the test sets. Nothing is trained for pixels here, so seeds do not differ.

# %% tags=["hide-input"]
file = "scenes/granularity.csv"
frozen = page.read(file)
frozen = frozen[frozen["variant"].isin(["baseline", "maskclip"])]
frozen = frozen[frozen["seed"] == frozen["seed"].min()]
caption = "The two frozen models on the test sets."
shown = words.relabelled(mean_and_std(frozen))
figures.table(shown, caption=caption, results=file)
lines = frozen.set_index(["metric", "dataset", "unit", "variant"])["value"].sort_index()
accuracy = lines.loc["accuracy", "scenes", "pixel"]

# %% tags=["hide-input"]
Markdown(
    f"In `scenes` plain CLIP labels {accuracy['baseline']:.0f} % of the pixels "
    f"correctly, MaskCLIP {accuracy['maskclip']:.0f} %. For whole images the "
    f"top word is right in {top:.0f} %, which asks for less: any of the classes "
    "present will do."
)

# %% [markdown]
# This is the gap that MGCA is made to close. [Training MGCA on scenes](scenes_training.ipynb) shows
# how far it does.
#
# ## What to take away
#
# * A CLIP that labels nearly every image correctly labels a quarter of the pixels correctly.
# * Without any training, values instead of attention in the last block double that. MGCA's
#   decoder starts there.
#
# ## Try it
#
# 1. Why is the loss by chance 5.55, and the top word present by chance in 18.6 % of the images?
# 2. Why do plain CLIP's pairs of pixels come out at 49 %, and its pixel accuracy far above 1 in
#    30?
#
# ```{dropdown} What to expect
# 1. The logarithm of the batch, $\log 256 = 5.55$; and a scene shows 5.6 of 30 contents on
#    average, $5.6 / 30 = 18.7$ %.
# 2. The order says *where* a word is within an image: as trained that is chance. The label says
#    *what*, and a patch that repeats the whole image names something that is in it.
# ```
#
# **With other parameters**: [after](#one-notebook) `make
# notebooks/scenes_clip.ipynb`,
# `papermill notebooks/scenes_clip.ipynb out.ipynb -p scenes 8`.
