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
# This page trains MGCA's decoder at the *photos* scale: captions and photographs of Flickr8k, the
# two frozen encoders of `lite`, and the names that the image encoder's own classifier recognises.
# No mask is seen in training. What is trained is then asked to segment Pascal VOC, COCO and CamVid.
#
# Change the parameters with papermill, for example
# `papermill training.ipynb out.ipynb -p steps 120 -p seed 1`.

# %% tags=["parameters"]
scale = "photos"
data = ""  # folder of the data sets; empty: see mgca.data.masks.data_root
seed = 0
steps = 20  # of the short run on this page; the published runs have more
images = 512  # captioned images of the short run
evaluate_images = 10  # images per set that the short run is evaluated on
losses = ["object", "region", "pixel"]

# %% tags=["hide-input"]
import dataclasses
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import HTML

from mgca.backbone.lite import Lite
from mgca.data.masks import data_root, load_masked
from mgca.evaluation.evaluate import evaluate
from mgca.evaluation.results import read_results, read_run, summary
from mgca.experiments import photos
from mgca.experiments.report import figures
from mgca.model import Model
from mgca.training.alignment import AlignConfig
from mgca.training.trainer import Trainer

if scale != "photos":
    raise ValueError(f"scale {scale!r} is not run by this notebook, only 'photos'")
figures.use_style()
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
results = project / "results" / scale
# A path relative to the project, also when the notebook runs in its own folder.
os.chdir(project)
root = data_root(data or None)
corpus_found = root is not None and (root / "flickr8k").is_dir()

# %% tags=["remove-input"]
if corpus_found:
    kind, text = (
        "note",
        (
            f"The captions were found, so this page trains a short run of {steps} steps from "
            "nothing. The curves and tables of the full runs come from <code>results/photos</code>."
        ),
    )
else:
    kind, text = (
        "important",
        (
            "This page was built on a machine without the captions and masks, which may not be "
            "redistributed. Nothing was trained here: all curves and tables are those of the "
            "committed runs in <code>results/photos</code>."
        ),
    )
HTML(
    f'<div class="admonition {kind}"><p class="admonition-title">{kind.capitalize()}</p>'
    f"<p>{text}</p></div>"
)

# %% [markdown]
# ## A short run, from nothing
#
# The same code as the published runs: pooled features are aligned with the captions' sentence
# embeddings by one linear map; on top of its dense features the decoder learns from the object, the
# region and the pixel level at once. `decoder=None` is the alignment alone. So few steps on so few
# images show that it trains, not how well.

# %%
if corpus_found:
    work = Path(tempfile.mkdtemp(prefix="mgca-training-"))
    corpus = photos.load_corpus(root, work, images=images)
    published = photos.photos_training()
    level = {name: float(name in losses) for name in ("object", "region", "pixel")}
    config = dataclasses.replace(
        published,
        seed=seed,
        steps=steps,
        batch_size=32,
        loss=dataclasses.replace(published.loss, **level),
    )
    backbone = Lite(pretrained=False)
    alignment = AlignConfig(seed=seed, batch_size=min(images, 128))
    aligned = photos.align(alignment, backbone, corpus)
    aligned = pd.Series(aligned, name="value").round(3)
    figures.table(
        aligned.rename(lambda key: key.replace("_", " ")).to_frame(),
        caption="The alignment: loss and temperature at its end, recall in percent on held-out "
        "photographs, and the share of the pixels that a text's softmax spreads over.",
    )
    rows = []
    trainer = Trainer(config, backbone, photos.training_data(backbone, corpus))
    decoder = trainer.run(work / "run", on_step=rows.append)
    figures.table(
        pd.DataFrame(rows).set_index("step").iloc[:: max(1, steps // 5)].round(4),
        caption="The short run, step by step.",
    )
else:
    print("not run: no captions here")

# %% tags=["hide-input"]
if corpus_found:
    few = []
    for name in photos.DATASETS:
        masked = load_masked(name, root).first(evaluate_images)
        for variant, model in (
            ("alignment", Model(backbone)),
            ("mgca", Model(backbone, decoder)),
        ):
            for unit, confusion in evaluate(model, masked).items():
                few.append({"variant": variant, "unit": unit, "set": name, "mIoU": confusion.miou})
    table = pd.DataFrame(few).pivot_table(index=["variant", "unit"], columns="set", values="mIoU")
    figures.table(
        table.round(1),
        caption=f"After so little training: mIoU in percent on {evaluate_images} images a set.",
    )
else:
    print("not run: no masks here")

# %% [markdown]
# ## The published runs
#
# Three seeds, full data, evaluated on every image of the three sets; a run is named by the hash of
# its configuration, and `results/photos/runs/<run>.json` says how it came about.

# %% tags=["hide-input"]
main = read_results(results / "main.csv")
runs = main[main["variant"] == "mgca"].groupby("seed")["run"].first()
curves = pd.concat(
    pd.read_csv(results / "runs" / f"{run}.csv").assign(seed=number) for number, run in runs.items()
)
figure, axes = plt.subplots(2, 2, figsize=(6.8, 5), sharex=True, layout="constrained")
for axis, name in zip(axes.flat, ["total", "object", "region", "pixel"], strict=True):
    sns.lineplot(
        curves, x="step", y=name, hue="seed", palette="colorblind", legend=name == "total", ax=axis
    )
    axis.set(title=name, ylabel="loss")
total = curves.groupby("step")["total"].mean()
fifth = max(1, len(total) // 5)
first, last = total.iloc[:fifth].mean(), total.iloc[-fifth:].mean()
figures.show(
    figure,
    caption=f"The total goes from {first:.2f} in the first fifth of the steps to {last:.2f} in the "
    "last, mean of the seeds: on a linear alignment there is little for the losses to gain.",
    alt="Four line charts against the step, a line for each seed: the total loss, and those of "
    "object, region and pixel level.",
    name="fig-photos-losses",
    results="photos/main.csv",
)

# %% tags=["remove-input"]
means = summary(main[main["dataset"].isin(photos.DATASETS)])
means["mIoU"] = means["mean"].map("{:.1f}".format) + " ± " + means["std"].map("{:.1f}".format)
figures.table(
    means.pivot(index=["variant", "unit"], columns="dataset", values="mIoU"),
    caption="The published runs: mIoU in percent, mean ± standard deviation over the seeds.",
    results="photos/main.csv",
)

# %% [markdown]
# The mean is over the classes that occur in each set. `unit` is `pixel` or the number of
# meta-points per window.

# %% tags=["remove-input"]
record = read_run(results, runs.iloc[0])
align = record["config"].get("settings", record["config"])["align"]
card = pd.Series(
    {
        "commit": record["commit"],
        "device": record["device"],
        "wall time": f"{record['seconds'] / 60:.0f} min",
        "date": record["date"],
        **{f"train.{key}": str(value) for key, value in record["config"]["train"].items()},
        **{f"align.{key}": str(value) for key, value in align.items()},
    },
    name=f"run {runs.iloc[0]}",
)
figures.table(
    card.to_frame().astype(str), caption="The first of the runs.", results="photos/main.csv"
)
