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
# two frozen encoders of `lite`, and nothing else. No mask is seen in training. What is trained is
# then asked to segment Pascal VOC, COCO and CamVid.
#
# Change the parameters with papermill, for example
# `papermill training.ipynb out.ipynb -p steps 120 -p seed 1`.

# %% tags=["parameters"]
scale = "photos"
data = ""  # folder of the data sets; empty: $MGCA_DATA, or ../shared/data beside the project
seed = 0
steps = 8  # of the short run on this page; the published runs have more
images = 256  # captioned images of the short run
evaluate_images = 6  # images per set that the short run is evaluated on
losses = ["object", "region", "pixel"]

# %%
import dataclasses
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown

from mgca import photos
from mgca.backbone.lite import Lite
from mgca.data import benchmark_names, data_root, load_masked
from mgca.evaluate import evaluate
from mgca.model import Model
from mgca.results import read_results, read_run, summary
from mgca.train import train

if scale != "photos":
    raise ValueError(f"scale {scale!r} is not run by this notebook, only 'photos'")
sns.set_theme(style="whitegrid", palette="colorblind")
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
results = project / "results" / scale
# A path relative to the project, also when the notebook runs in its own folder.
os.chdir(project)
root = data_root(data or None)
corpus_found = root is not None and (root / "flickr8k").is_dir()

# %% tags=["remove-input"]
if corpus_found:
    box = (
        "```{note}\\nThe captions were found, so this page trains a short run of "
        f"{steps} steps from nothing. The curves and tables of the full runs come from "
        "`results/photos`.\\n```"
    )
else:
    box = (
        "```{important}\\nThis page was built on a machine **without the captions and masks**, which "
        "may not be redistributed. Nothing was trained here: all curves and tables are those of the "
        "committed runs in `results/photos`.\\n```"
    )
Markdown(box)
