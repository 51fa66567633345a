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
# # Training MGCA on scenes
#
# This page trains MGCA's decoder on [the world](scenes_world.ipynb) from nothing, on top of
# [the small CLIP](scenes_clip.ipynb), and asks it for masks. It needs no data and no network. No
# mask is seen in training, only images and captions.
#
# Change the parameters with papermill, for example
# `papermill scenes_training.ipynb out.ipynb -p steps 60 -p losses '["pixel"]'`.

# %% tags=["parameters"]
seed = 0
steps = None  # of the training; None: as many as the published runs
images = 1000  # first training scenes; all of them if the cache has their features
evaluate_images = 40  # of each evaluation set
losses = ["object", "region", "pixel"]

# %% tags=["hide-input"]
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown

from mgca.data.features import features_file, image_features, text_embeddings
from mgca.data.scenes import TRAINING_SEED, training_pairs
from mgca.data.texts import build_pool
from mgca.evaluation.evaluate import evaluate
from mgca.evaluation.results import read_results
from mgca.experiments.report import figures
from mgca.experiments.report.pictures import pictures
from mgca.experiments.report.tables import Difference, difference, group_means
from mgca.experiments.scenes import IMAGES, SIDE, ScenesScale
from mgca.model import Model
from mgca.training.sources import Cached
from mgca.training.trainer import Trainer

figures.use_style()
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
# A path relative to the project, also when the notebook runs in its own folder.
os.chdir(project)
results = project / "results" / "scenes"
if isinstance(losses, str):  # as papermill -p passes a list
    losses = json.loads(losses)
temporary = tempfile.TemporaryDirectory(prefix="mgca-scenes-")
cache = Path(os.environ.get("MGCA_CACHE") or temporary.name)
scale = ScenesScale(cache)

# %% [markdown]
# ## Training data
#
# The encoders are frozen, so their features are computed once and kept in `$MGCA_CACHE`. That is
# most of the work: therefore this page takes the first scenes only, unless the features of all are
# there. Texts are captions, and texts made of their nouns.

# %%
backbone = scale.backbone(seed)
pairs = training_pairs(IMAGES, TRAINING_SEED)
if not features_file(backbone, pairs, size=SIDE, folder=cache).is_file():
    pairs = training_pairs(min(images, IMAGES), TRAINING_SEED)
began = time.perf_counter()
features = image_features(backbone, pairs, size=SIDE, folder=cache)
pool = build_pool(pairs.captions)
data = Cached(features, pool, text_embeddings(backbone, pool.texts, folder=cache))
print(
    f"{len(pairs):,} of the {IMAGES:,} training scenes, {len(pool.texts):,} texts, "
    f"features {tuple(features.shape)}: {time.perf_counter() - began:.0f} s"
)

# %% [markdown]
# ## The run
#
# The configuration of the published runs, but for what the parameters above change.

# %%
level = {name: float(name in losses) for name in ("object", "region", "pixel")}
config = dataclasses.replace(
    scale.training,
    seed=seed,
    steps=steps or scale.training.steps,
    loss=dataclasses.replace(scale.training.loss, **level),
)
curve = []
trainer = Trainer(config, backbone, data)
decoder = trainer.run(Path(temporary.name) / "run", on_step=curve.append)

# %% tags=["remove-input"]
frame = pd.DataFrame(curve).set_index("step")
figure, axes = plt.subplots(2, 2, figsize=(6.8, 4.8), sharex=True, layout="constrained")
for axis, name in zip(axes.flat, ["total", *level], strict=True):
    axis.plot(frame[name], color="C0", alpha=0.35)
    axis.plot(frame[name].rolling(10, min_periods=1, center=True).mean(), color="C0")
    axis.set(title=name, ylabel="loss")
for axis in axes[1]:
    axis.set_xlabel("step")
tenth = max(1, len(frame) // 10)
first, last = frame["total"].iloc[:tenth].mean(), frame["total"].iloc[-tenth:].mean()
figures.show(
    figure,
    caption=f"The total loss goes from {first:.2f} in the first tenth of the {len(frame)} steps to "
    f"{last:.2f} in the last, in {frame['seconds'].iloc[-1]:.0f} s. Dark: mean over ten steps. A "
    "loss of a level that is switched off stays 0.",
    alt="Four line charts against the step: the total loss, and those of object, region and pixel "
    "level.",
    name="fig-scenes-losses",
)

# %% [markdown]
# ## What it segments
#
# The first images of each evaluation set, mIoU in percent over the classes that occur. `baseline`
# are the plain dense features of the small CLIP, `maskclip` those with the last attention block
# reduced to its values. With so few images the numbers are rougher than those of the published runs
# below.

# %%
models = {
    "baseline": Model(scale.backbone(seed, "attention"), config=scale.segment()),
    "maskclip": Model(backbone, config=scale.segment()),
    "mgca": Model(backbone, decoder, scale.segment()),
}
rows = []
for masked in scale.sets():
    for name, model in models.items():
        confusions = evaluate(
            model, masked.first(evaluate_images), features=cache, **scale.background(model)
        )
        for unit, confusion in confusions.items():
            rows.append({"variant": name, "unit": unit, "set": masked.name, "mIoU": confusion.miou})
short = pd.DataFrame(rows).pivot_table(
    index=["variant", "unit"], columns="set", values="mIoU", sort=False
)
figures.table(
    short.round(1),
    caption=f"The decoder of this page: mIoU in percent on the first {evaluate_images} images of "
    "each set.",
)

# %% tags=["remove-input"]
gained = short.loc[("mgca", "pixel")] - short.loc[("maskclip", "pixel")]
units = short.loc[("mgca", "36")] - short.loc[("mgca", "pixel")]


def signed(values: pd.Series) -> str:
    """The differences by set."""
    return ", ".join(f"{name} {value:+.1f}" for name, value in values.items())


Markdown(
    f"The decoder of this page against MaskCLIP, both per pixel: {signed(gained)}. Its 36 units "
    f"against its pixels: {signed(units)}."
)

# %% [markdown]
# ## Before and after
#
# *Before* is MaskCLIP: a new decoder is upsampling and nothing else.

# %% tags=["remove-input"]
background = scale.background(models["mgca"])
columns = {
    "before": (models["maskclip"], None, background),
    "after, pixel": (models["mgca"], None, background),
    "after, 36 units": (models["mgca"], 36, background),
}
by_name = {masked.name: masked for masked in scale.sets()}
for name in ("scenes", "things"):
    figures.show(
        pictures(by_name[name].first(3), columns),
        caption=f"Before and after training, the first images of the set `{name}`.",
        alt="A grid. Columns: three images. Rows: the image, its true classes, the prediction "
        "before training, after it with pixels, and after it with 36 units.",
        name=f"fig-before-after-{name}",
    )

# %% [markdown]
# ## The published runs, and the goals
#
# Three seeds, all training scenes, all images of the sets; from `results/scenes/granularity.csv`.
# The goals were set before the runs: MGCA with 36 units beats the plain dense features by at least
# 15 points, and MaskCLIP by at least 8, on both groups of sets. `with background` is the set
# `things`, `without background` is `scenes`. Both frozen models are taken per pixel, as they are
# used elsewhere; the last column gives them the 36 units too.

# %% tags=["remove-input"]
goals = {"baseline": 15, "maskclip": 8}
table = read_results(results / "granularity.csv")
means = group_means(table, scale.groups)


def points(gain: Difference) -> str:
    """Mean and spread over the seeds."""
    return f"{gain.mean:+.1f} ± {gain.std:.1f}"


rows, met = [], []
for group in scale.groups:
    for less, goal in goals.items():
        gain = difference(means, ("all", "36"), (less, "pixel"), group)
        met.append(gain.mean >= goal)
        rows.append(
            {
                "group": group,
                "MGCA, 36 units, against": less,
                "goal": f"+{goal}",
                "measured": points(gain),
                "verdict": "met" if met[-1] else "not met",
                "against it with 36 units": points(
                    difference(means, ("all", "36"), (less, "36"), group)
                ),
            }
        )
figures.table(
    pd.DataFrame(rows).set_index(["group", "MGCA, 36 units, against"]),
    caption="The goals, in points of mIoU, mean ± standard deviation over three seeds.",
    results="scenes/granularity.csv",
)
Markdown(f"**Goals met: {sum(met)} of {len(met)}.**")

# %% tags=["remove-input"]
shown = means[
    means["variant"].isin(["baseline", "maskclip", "all"]) & (means["metric"] == "miou")
].replace({"variant": {"all": "mgca"}, "unit": {"36": "36 units"}})
figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.2), sharey=True, layout="constrained")
for axis, group in zip(axes, scale.groups, strict=True):
    sns.barplot(
        shown[shown["dataset"] == group],
        x="variant",
        y="value",
        hue="unit",
        order=["baseline", "maskclip", "mgca"],
        hue_order=["pixel", "36 units"],
        errorbar="sd",
        ax=axis,
        legend=axis is axes[0],
    )
    axis.set(title=group, xlabel="", ylabel="mIoU (%)")
axes[0].legend(title="", loc="upper left")
level = means[means["metric"] == "miou"].groupby(["dataset", "variant", "unit"])["value"].mean()
found = ". ".join(
    f"{group.capitalize()}: plain dense {level[group, 'baseline', 'pixel']:.1f}, MaskCLIP "
    f"{level[group, 'maskclip', 'pixel']:.1f}, MGCA {level[group, 'all', 'pixel']:.1f} per pixel "
    f"and {level[group, 'all', '36']:.1f} with 36 units"
    for group in scale.groups
)
figures.show(
    figure,
    caption=f"The published runs. {found}. Error bars: standard deviation over the seeds.",
    alt="Bar charts for sets with and without background: mIoU of the plain dense features, of "
    "MaskCLIP and of MGCA, per pixel and with 36 units.",
    name="fig-scenes-published",
    results="scenes/granularity.csv",
)

# %% [markdown]
# Which of the three levels does what is on the page of the
# [granularity](ablation_granularity.ipynb).

# %% tags=["remove-cell"]
temporary.cleanup()
