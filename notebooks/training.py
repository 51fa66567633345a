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
# # Training on real captions
#
# This page trains the head of `lite`, the map that joins its two frozen encoders, at the *photos*
# scale: captions and photographs of Flickr8k, and the names that the image encoder's own classifier
# recognises. First whole images are contrasted with captions, as CLIP is trained; then object,
# region and pixels are, as MGCA has it. No mask is seen in training. What is trained is then asked
# to segment Pascal VOC, COCO and CamVid.
#
# **After this page you can** train an encoder's head on captioned photographs, by image level and
# by finer ones, and say what the published runs found.

# %% tags=["parameters"]
scale = "photos"
data = ""  # folder of the data sets; empty: see mgca.data.masks.data_root
seed = 0
steps = 20  # of the short run on this page; the published runs have more
images = 512  # captioned images of the short run
evaluate_images = 10  # images per set that the short run is evaluated on
losses = ["object", "region", "pixel"]

# %% tags=["hide-input"]
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from mgca.backbone.lite import Lite
from mgca.data.masks import load_masked
from mgca.evaluation.results import read_run
from mgca.experiments import photos
from mgca.experiments.report import charts, figures, words
from mgca.experiments.report.page import open_page
from mgca.experiments.report.short_runs import fall, reached, shortened
from mgca.experiments.report.tables import mean_and_std
from mgca.model import Model
from mgca.training.alignment import AlignConfig
from mgca.training.runs import head_training
from mgca.training.trainer import Trainer

if scale != "photos":
    raise ValueError(f"scale {scale!r} is not run by this notebook, only 'photos'")
page = open_page("training", scale, data=data)
corpus_found = page.data is not None and (page.data / "flickr8k").is_dir()

# %% tags=["remove-input"]
kind = "note" if corpus_found else "important"
text = (
    f"The captions were found, so this page trains a short run of {steps} steps from "
    "nothing. The curves and tables of the full runs come from "
    "<code>results/photos</code>."
    if corpus_found
    else "This page was built on a machine without the captions and masks, which may "
    "not be redistributed. Nothing was trained here: all curves and tables are those "
    "of the committed runs in <code>results/photos</code>."
)

# %% tags=["remove-input"]
HTML(
    f'<div class="admonition {kind}"><p class="admonition-title">'
    f"{kind.capitalize()}</p><p>{text}</p></div>"
)

# %% [markdown]
# ## What the published runs found
#
# Two seeds, full data, evaluated on every image of the three sets; a run is named by the hash of
# its configuration, and `results/photos/runs/<run>.json` says how it came about.

# %% tags=["hide-input"]
main = page.read("photos/granularity.csv")
runs = main[main["variant"] == "all"].groupby("seed")["run"].first()
curves = pd.concat(
    pd.read_csv(page.results / "runs" / f"{run}.csv").assign(seed=number)
    for number, run in runs.items()
)
first, last = fall(curves.groupby("step")["total"].mean(), 5)

# %% tags=["remove-input"]
figures.show(
    charts.losses(curves),
    caption=f"The total goes from {first:.2f} in the first fifth of the steps to "
    f"{last:.2f} in the last, mean of the seeds.",
    alt="Line charts against the step, a line for each seed: the total loss, and those "
    "of object, region and pixel level.",
    name="fig-photos-losses",
    results="photos/granularity.csv",
)

# %% tags=["remove-input"]
figures.table(
    words.relabelled(mean_and_std(main), "photos"),
    caption="The published runs: mIoU in percent, mean ± standard deviation over the "
    "seeds.",
    results="photos/granularity.csv",
)

# %% [markdown]
# The mean is over the classes that occur in each set. `unit` is `pixel` or the number of
# meta-points per window.

# %% tags=["remove-input"]
run = runs.iloc[0]
record = read_run(page.results, run)
card = {name: record[name] for name in ("commit", "device")}
card |= {"wall time": f"{record['seconds'] / 60:.0f} min", "date": record["date"]}
config = record["config"] | record["config"].get("settings", {})
for part in ("train", "align"):
    card |= {f"{part}.{key}": str(value) for key, value in config[part].items()}
card = pd.Series(card, name=f"run {run}").to_frame().astype(str)
figures.table(card, caption="The first of the runs.", results="photos/granularity.csv")

# %% [markdown]
# ## A short run, from nothing
#
# The same code as the published runs: pooled features are aligned with the captions' sentence
# embeddings by one linear map; the same map then learns from the object, the region and the pixel
# level at once. So few steps on so few images show that it trains, not how well.

# %%
if corpus_found:
    work = Path(tempfile.mkdtemp(prefix="mgca-training-"))
    corpus = photos.load_corpus(page.data, work, images=images)
    short = {"seed": seed, "steps": steps, "batch_size": 32}
    config = shortened(head_training(), losses, **short)
    alignment = AlignConfig(seed=seed, batch_size=min(images, 128))

    backbone = Lite(pretrained=False)
    aligned = photos.align(alignment, backbone, corpus)
    image_level = Lite(pretrained=False)
    image_level.set_alignment(**backbone.alignment())
    curve = []
    trainer = Trainer(config, backbone, photos.training_data(backbone, corpus))
    trainer.run(work / "run", on_step=curve.append)

# %% tags=["remove-input"]
if corpus_found:
    aligned = pd.Series(aligned, name="value").round(3)
    figures.table(
        aligned.rename(lambda key: key.replace("_", " ")).to_frame(),
        caption="The alignment: loss and temperature at its end, recall in percent on "
        "held-out photographs, and the share of the pixels that a text's softmax "
        "spreads over.",
    )

# %% tags=["remove-input"]
if corpus_found:
    shown = pd.DataFrame(curve).set_index("step").iloc[:: max(1, steps // 5)]
    figures.table(shown.round(4), caption="The short run, step by step.")
else:
    print("not run: no captions here")

# %% tags=["hide-input"]
if corpus_found:
    models = {words.ALONE: Model(image_level), "MGCA": Model(backbone)}
    sets = [load_masked(name, page.data) for name in photos.PhotosScale.datasets]
    few = reached(models, [each.first(evaluate_images) for each in sets])
    few = few.sort_index().round(1)
    caption = "After so little training: mIoU in percent on "
    caption += f"{evaluate_images} images a set."
    figures.table(few[sorted(few)], caption=caption)
else:
    print("not run: no masks here")

# %% [markdown]
# ## What to take away
#
# * A head is one linear map: it learns from captioned photographs in minutes on two cores, first by
#   whole images, then by object, region and pixel.
# * A run this short shows that the code trains. What training reaches is in the published runs, and
#   in [the results](results.ipynb).

# %% [markdown]
# **With other parameters**: [after](#one-notebook) `make
# notebooks/training.ipynb`,
# `papermill notebooks/training.ipynb out.ipynb -p steps 120 -p seed 1`.
