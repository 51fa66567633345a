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
# # Your own photographs
#
# From an installed package to labels on disk: first with the command, then the same in Python.
#
# ```bash
# pip install "mgca[formats]"
# mgca segment photos --classes "cat, cup, a wooden table" --out results
# ```
#
# The photographs of this page are three that ship with [scikit-image](https://scikit-image.org):
# the cat *Chelsea* (Stéfan van der Walt, CC0), *coffee* (Rachel Michetti, CC0) and a rocket launch
# (SpaceX, public domain). Name a folder of yours instead to see your own.
#
# **After this page you can** segment folders of photographs from the shell and in Python, hand
# the labels to other tools, and ask why a word was chosen.

# %% tags=["parameters"]
folder = ""  # of your photographs; empty: the three of scikit-image
words = "cat, cup, a wooden table, sky, rocket"
word = "cat"  # to look at closely

# %% tags=["hide-input"]
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mgca.experiments.report import figures
from mgca.experiments.report.page import open_page

page = open_page("own_photos")
work = tempfile.TemporaryDirectory()
results = Path(work.name) / "results"
photos = page.folder(folder) if folder else Path(work.name) / "photos"
if not folder:
    import skimage.data

    for name in ("animals/chelsea", "things/coffee", "things/rocket"):
        path = photos / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(getattr(skimage.data, path.stem)()).save(path, quality=95)


# %% tags=["hide-input"]
def mgca_command(*arguments: str) -> None:
    """Run `mgca` as a shell would, and print what it prints."""
    command = [sys.executable, "-m", "mgca", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    shown = (done.stdout + done.stderr).replace(work.name, "...").strip()
    print(f"{shown}\nexit code {done.returncode}")


# %% [markdown]
# ## The command
#
# `mgca segment` takes files, folders with all below them, and patterns. Every pixel gets one of
# your words, single nouns or short phrases. `mgca_command` runs it as a shell would.

# %%
options = ["--classes", words, "--out", results, "--polygons"]
mgca_command("segment", photos, *options, "--verbose")

# %% [markdown]
# An image's results are named after its path below the folder that all the images share, suffix
# included, so that `a/x.jpg` and `b/x.png` do not meet:

# %%
for path in sorted(results.rglob("*.*")):
    size, name = path.stat().st_size, path.relative_to(results)
    print(f"{size / 1000:7.1f} kB  {name.as_posix()}")

# %% [markdown]
# - `NAME.labels.png`: a palette image whose pixels are the labels. 0 is the first word, or the
#   background where there is one. With more than 256 words it is 16-bit grey.
# - `NAME.overlay.jpg`: the photograph under the colours of its classes, with a legend.
# - `NAME.json`: the record. Share and mean score of each class, the model and its weights, all
#   settings, and the SHA-256 of the photograph and of each file.
# - `NAME.rle.json` and `NAME.polygons.json`, with `--rle` and `--polygons`: annotations as COCO has
#   them, exact to the pixel.
# - `NAME.probabilities.npz`, with `--probabilities`: the probability of each class at each pixel,
#   as float16.

# %% tags=["hide-input"]
records = (p for p in results.rglob("*.json") if ".polygons" not in p.suffixes)
record_file = min(records)
record = json.loads(record_file.read_text())
overlay = Image.open(record_file.with_name(f"{record_file.stem}.overlay.jpg"))
figures.show(
    overlay,
    caption="`NAME.overlay.jpg`: the photograph under its classes, and their shares.",
    alt=f"{Path(record['image']['path']).stem} under the colours of its classes, with a legend.",
    name="fig-own-overlay",
)
columns = ["name", "pixels", "area", "score"]
table = pd.DataFrame(record["classes"]).set_index("label")[columns]
figures.table(table.round(3), caption="The classes of the first record.")

# %% [markdown]
# The same call again computes nothing, and after an interruption only what is missing. Results of
# other words or settings are not replaced unless `--force` says so, and a picture that cannot be
# read does not stop the others; the exit code is 1 in both cases.

# %%
mgca_command("segment", photos, *options)

# %% [markdown]
# With `--background 0.4` pixels whose largest probability does not exceed the threshold become
# background; the right threshold depends on the number of words, see
# [the background's threshold](background.ipynb).
#
# ## The same in Python

# %%
import mgca
from mgca.config import SegmentConfig
from mgca.inference.batches import ImageFailure, segment_all

# As the command joins windows: weighted towards their middle, so that none leaves a seam.
model = mgca.load("lite", config=SegmentConfig(blend="middle"))
classes = [name.strip() for name in words.split(",")]
paths = sorted(path for path in photos.rglob("*") if path.is_file())
tables = []
for path, result in zip(paths, segment_all(model, paths, classes), strict=True):
    if isinstance(result, ImageFailure):
        print(result.error)
    else:
        tables.append(result.to_pandas().assign(photograph=path.stem))
areas = pd.concat(tables).pivot(index="photograph", columns="class", values="area")
figures.table(
    areas.round(3),
    caption="Share of each photograph that each class covers.",
)

# %% [markdown]
# `segment_all` reads the next photographs while one is segmented, and holds no more of them than
# that. A single one is `model.segment`, which takes a path, the bytes of a file, a PIL image, an
# array or a tensor. As the last value of a cell the result shows itself:

# %%
result = model.segment(paths[0], classes)
result

# %% [markdown]
# ## On to other tools
#
# | method | what it gives |
# |---|---|
# | `result.labels`, `result.scores` | tensors (H, W) and (K, H, W) |
# | `result.to_numpy()`, `result.to_pil()` | labels as an array, and as a palette image |
# | `result.to_pandas()` | a row per class: pixels, share of the image, mean score |
# | `result.to_coco(image_id=1, rle=True)` | a COCO data set of one image |
# | `result.to_supervision()` | supervision's `Detections` |
# | `result.to_mmseg()` | mmsegmentation's `SegDataSample` |

# %%
coco = result.to_coco(rle=False)
names = {c["id"]: c["name"] for c in coco["categories"]}
for annotation in coco["annotations"]:
    print(
        f"{names[annotation['category_id']]:16} {annotation['area']:7} pixels in "
        f"{len(annotation['segmentation'])} polygons, box {annotation['bbox']}"
    )
# What the command wrote is what Python gives.
written = Image.open(results / f"{paths[0].relative_to(photos).as_posix()}.labels.png")
assert np.array_equal(np.asarray(written), result.to_numpy())

# %% [markdown]
# ## Why this word?
#
# `mgca explain photo.jpg --word cat --out cat.png` draws where a word is found: its similarity to
# each pixel, and to each unit, which is what decides. The units come from the meta-points, the
# dots, 36 in each of the windows that cover the photograph. Each unit gets the most similar word of
# a vocabulary, by default the classes of the eight benchmarks. In Python it is
# `mgca.inference.explain.explain`.

# %%
from mgca.inference.explain import explain

vocabulary = [*classes, "eye", "ear", "nose", "fur", "blanket", "wall", "dog"]
found = explain(model, paths[0], word, vocabulary)

# %% tags=["hide-input"]
figures.show(
    Image.open(io.BytesIO(found.to_png())),
    caption=f"Where *{word}* is found in {paths[0].stem}: by pixel, by unit, and the most similar "
    "word of each unit.",
    alt=f"The photograph, its similarity to {word} by pixel and by unit, and its units with "
    "meta-points and names.",
    name="fig-own-explain",
)

# %% tags=["hide-input"]
largest = found.to_dict()["units"][:5]
similar = [[own["word"] for own in unit["words"][:3]] for unit in largest]
units = pd.DataFrame({"share of the image": [unit["area"] for unit in largest]})
units[f"similarity to {word}"] = [unit["similarity"] for unit in largest]
units["most similar"] = [", ".join(own) for own in similar]
figures.table(
    units.round(3), caption="The largest units, and the words most similar to each."
)

# %% [markdown]
# Where a word loses, the table says to which. Then add a word for what is there instead, or say
# yours more precisely.

# %% [markdown]
# ## What to take away
#
# * One command segments folders, goes on where it stopped, and keeps with each result how it came
#   about.
# * In Python the result is tensors, tables, COCO's annotations or another library's objects.
# * Where a word loses, `explain` says to which other.

# %% tags=["remove-cell"]
work.cleanup()
