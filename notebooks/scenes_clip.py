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
# Change the parameters with papermill, for example
# `papermill scenes_clip.ipynb out.ipynb -p scenes 8`.

# %% tags=["parameters"]
scenes = 4  # shown, the first of the validation scenes
compared = 60  # validation scenes over which similarities are compared

# %% tags=["hide-input"]
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown
from scipy.stats import rankdata

import mgca
from mgca.backbone import load_backbone
from mgca.config import SegmentConfig
from mgca.data.scenes import CLASSES, THINGS, VALIDATION_SEED, evaluation_set
from mgca.evaluation.results import read_results, read_run
from mgca.experiments.report import figures
from mgca.experiments.report.pictures import pictures
from mgca.experiments.report.tables import mean_and_std
from mgca.experiments.scenes import SIDE
from mgca.model import Model

figures.use_style()
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
# A path relative to the project, also when the notebook runs in its own folder.
os.chdir(project)
results = project / "results" / "scenes"
window = SegmentConfig(short_side=SIDE, window=SIDE, stride=SIDE)  # one window that is the image
models = {
    "plain dense": Model(load_backbone("scenes", last_block="attention"), config=window),
    "MaskCLIP": Model(load_backbone("scenes"), config=window),
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

# %% tags=["remove-input"]
backbone, decoder = models["MGCA"].backbone, models["MGCA"].decoder


def parameters(module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


sizes = backbone.config
parts = pd.DataFrame(
    [
        (
            "EfficientNet-Lite0, first stages",
            "ImageNet, frozen",
            f"image enlarged {sizes.enlarge} times, grid of {sizes.grid} × {sizes.grid}",
            parameters(backbone.trunk),
        ),
        (
            "transformer",
            "trained here",
            f"{sizes.layers} blocks, width {sizes.width}, {sizes.heads} heads",
            parameters(backbone.model.visual),
        ),
        ("all-MiniLM-L6-v2", "frozen", "sentences", parameters(backbone.sentences)),
        (
            "linear map of texts",
            "trained here",
            f"to {sizes.dim} dimensions",
            parameters(backbone.model.text),
        ),
        (
            "MGCA's decoder",
            "trained on top, afterwards",
            "two gated convolution blocks",
            parameters(decoder),
        ),
    ],
    columns=["part", "weights", "what", "parameters"],
)
figures.table(
    parts.assign(parameters=parts["parameters"].map("{:,}".format)).set_index("part"),
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

# %% tags=["remove-input"]
card = read_results(results / "clip.csv")
record = read_run(results, card["run"].iloc[0])
validation = evaluation_set("scenes", compared, seed=VALIDATION_SEED)
present = np.mean([len(np.unique(mask)) for _, _, mask in validation]) / len(CLASSES)
chance = {"top word present": 100 * present, "largest thing first": 100 / len(THINGS)}
order = [*chance, "R@1", "R@5"]
image_level = card.set_index("metric")["value"].reindex(order).rename("%").to_frame()
image_level["by chance"] = [f"{chance[m]:.1f}" if m in chance else "" for m in order]
figures.table(
    image_level.round(1),
    caption="The small CLIP on whole test scenes.",
    results="scenes/clip.csv",
)
run = card["run"].iloc[0]
config = record["config"]
trained = pd.Series(
    {
        "image-caption pairs": f"{config['images']:,}",
        "epochs": config["epochs"],
        "batch": config["batch_size"],
        "learning rate": config["learning_rate"],
        "loss of the last epoch": f"{record['trained']['loss']:.3f}",
        "temperature": f"{record['trained']['temperature']:.4f}",
        "time": f"{record['seconds'] / 60:.0f} min",
        "device": record["device"],
        "commit": record["commit"][:12],
        "date": record["date"][:10],
    },
    name=f"run {run}",
)
figures.table(
    trained.to_frame().astype(str), caption="How it was trained.", results="scenes/clip.csv"
)

# %% tags=["remove-input"]
curve = results / "runs" / f"{run}.csv"
if curve.is_file():
    losses = pd.read_csv(curve)
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    sns.lineplot(losses, x="epoch", y="loss", marker="o", ax=axis)
    axis.axhline(np.log(config["batch_size"]), color="grey", linestyle=":", label="chance")
    axis.set(ylabel="mean loss of the epoch", ylim=(0, None), xticks=losses["epoch"])
    axis.legend()
    figures.show(
        figure,
        caption=f"The contrastive loss falls from {losses['loss'].iloc[0]:.2f} to "
        f"{losses['loss'].iloc[-1]:.2f}; chance is {np.log(config['batch_size']):.2f}, the "
        "logarithm of the batch.",
        alt="Line chart: mean loss of each epoch, falling, below a dotted line for chance.",
        name="fig-clip-loss",
        results="scenes/clip.csv",
    )

# %% [markdown]
# ## What it knows of pixels
#
# The first validation scenes, and the similarity of every pixel to the thing that is largest in
# them, less its mean over the image: where in the image the word is seen. *Plain dense* are the
# spatial tokens as the network was trained, *MaskCLIP* has the last attention block reduced to its
# values, *MGCA* has its trained decoder on top of the latter. All maps have one colour scale.


# %% tags=["remove-input"]
def similarities(model: Model, image) -> np.ndarray:
    """(30, H, W) cosine similarities to the classes, pixel by pixel."""
    return model.segment(image, CLASSES, None).scores.numpy()


def largest_thing(mask: np.ndarray) -> int:
    """The thing that most of a scene shows."""
    return int(np.bincount(mask.ravel(), minlength=len(CLASSES))[: len(THINGS)].argmax())


chosen = [(image, mask) for _, image, mask in validation.first(scenes)]
maps = [[similarities(model, image) for model in models.values()] for image, _ in chosen]
words = [largest_thing(mask) for _, mask in chosen]
drawn = [
    [own[word] - own[word].mean() for own in row] for row, word in zip(maps, words, strict=True)
]
reach = max(np.abs(similarity).max() for row in drawn for similarity in row)
figure, axes = plt.subplots(scenes, 5, figsize=(7, 1.4 * scenes + 0.9), layout="constrained")
for row, (image, mask), word, own in zip(axes, chosen, words, drawn, strict=True):
    row[0].imshow(image)
    row[1].imshow(mask == word, cmap="gray_r", vmin=0, vmax=1.4)
    row[1].set_title(CLASSES[word])
    for axis, similarity in zip(row[2:], own, strict=True):
        last = axis.imshow(similarity, vmin=-reach, vmax=reach, cmap="PuOr_r")
for axis, title in zip(axes[0, 2:], models, strict=True):
    axis.set_title(title)
for axis in axes.flat:
    axis.set_axis_off()
figure.colorbar(
    last, ax=axes[:, 2:], label="cosine similarity less its mean", location="bottom", shrink=0.7
)

rows = []
for _, image, mask in validation:
    for name, model in models.items():
        scores = similarities(model, image)
        for word in np.unique(mask):
            inside = mask == word
            ranks = rankdata(scores[word])[inside.ravel()]
            pairs = inside.sum() * (~inside).sum()
            if pairs:
                area = (ranks.sum() - inside.sum() * (inside.sum() + 1) / 2) / pairs
                rows.append(
                    {
                        "model": name,
                        "kind": "things" if word < len(THINGS) else "stuffs",
                        "ordered": 100 * area,
                        "right": 100 * (scores.argmax(axis=0)[inside] == word).mean(),
                    }
                )
gap = pd.DataFrame(rows).groupby(["model", "kind"], sort=False)[["ordered", "right"]].mean()
shown = gap.unstack("kind").loc[list(models)]
top = image_level.loc["top word present", "%"]
figures.show(
    figure,
    caption="The similarity to a word, pixel by pixel. For whole images the top word is right in "
    f"{top:.0f} % of the cases. Over {compared} validation scenes, a pixel of a thing is more "
    "similar to the thing's word than a pixel elsewhere in the image in "
    + ", ".join(f"{gap.loc[(name, 'things'), 'ordered']:.0f} % ({name})" for name in models)
    + " of the pairs; 50 % is chance.",
    alt="A grid. Each row: a scene, the mask of its largest thing, and the similarity of every "
    "pixel to that thing's word in the plain dense features, MaskCLIP's and MGCA's.",
    name="fig-gap",
)
titles = {"ordered": "pairs of pixels in the right order, %", "right": "pixels named rightly, %"}
figures.table(
    shown.round(1).rename(columns=titles),
    caption=f"The order of pixels, and their names, over {compared} validation scenes.",
)

# %% [markdown]
# Both numbers are means over the words of each scene. For the second, all words compete.
#
# ## The segmentation
#
# All 30 words compete for each pixel of the same scenes.

# %% tags=["remove-input"]
columns = {name: (model, None, {}) for name, model in models.items()}
columns["MGCA, 36 units"] = (models["MGCA"], 36, {})
figures.show(
    pictures(validation.first(scenes), columns, range(scenes)),
    caption="All 30 words compete: the plain dense features name little rightly, MaskCLIP's more, "
    "MGCA's most. The units take most specks away, and parts of small things with them.",
    alt="A grid. Columns: scenes. Rows: the image, its true classes, and the predictions of plain "
    "dense features, MaskCLIP, MGCA, and MGCA with 36 units.",
    name="fig-gap-pictures",
)

# %% [markdown]
# ## The gap in numbers
#
# mIoU in percent on the test sets. `baseline` are the plain dense features, `maskclip` has the last
# attention block reduced to its values. Nothing is trained for pixels here, so seeds do not differ.

# %% tags=["remove-input"]
table = read_results(results / "granularity.csv")
frozen = table[table["variant"].isin(["baseline", "maskclip"])]
frozen = frozen[frozen["seed"] == frozen["seed"].min()]
figures.table(
    mean_and_std(frozen),
    caption="The frozen features on the test sets.",
    results="scenes/granularity.csv",
)
accuracy = frozen[
    (frozen["metric"] == "accuracy") & (frozen["dataset"] == "scenes") & (frozen["unit"] == "pixel")
].set_index("variant")["value"]
Markdown(
    f"In `scenes` the plain dense features name {accuracy['baseline']:.0f} % of the pixels "
    f"rightly, MaskCLIP's {accuracy['maskclip']:.0f} %. For whole images the top word is right in "
    f"{top:.0f} %, which asks for less: any of the classes present will do."
)

# %% [markdown]
# This is the gap that MGCA is made to close. [Training MGCA on scenes](scenes_training.ipynb) shows
# how far it does.
