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
# # What the open choices change
#
# On scenes six of the twelve choices that the paper leaves open move mIoU by more than 5 points:
# the last block (D1), the weights of the levels (D8), the similarity (D3), the optimiser (D9), the
# texts (D10) and the upsampling (D2). The gradient through the weights (D4) and both choices of the
# units (D11, D12) move it by less than one.
#
# This page changes one of the [twelve](../open-choices.md) at a time. A choice that moves nothing
# need not worry a reader who chose otherwise; one that moves much is where two implementations of
# the paper may differ.
#
# **How it is measured.** One decoder per value and seed, everything else as in the scale's
# configuration. D11 and D12 concern the units alone: the decoder is the same, and so the pixel's
# numbers are. No value was chosen by these numbers: they were measured after all others.
#
# **After this page you can** say which of the twelve open choices move the numbers, and by how
# much.

# %% tags=["parameters"]
scale = "scenes"  # "scenes", "photos", or "paper" with a config
seeds = [0, 1, 2]
data = ""  # folder of the real data sets; empty: $MGCA_DATA
jobs = -1  # runs at a time where some are missing; -1: as many as there are cores
config = ""  # TOML file of the scale "paper"

# %% tags=["hide-input"]
from IPython.display import Markdown

from mgca.experiments.report import charts, choices
from mgca.experiments.report.ablation import open_ablation

page = open_ablation("choices", scale, seeds, data=data, jobs=jobs, config=config)
changes = choices.changes(page)

# %% [markdown]
# ## Every choice
#
# The difference to the chosen value in points of mIoU, seed by seed, mean ± standard deviation.
# D6, D7 and D8 are varied by ablations of their own, D1 by the comparison of methods; the table
# takes its lines from there.

# %% tags=["remove-input"]
choices.show_table(page, changes)

# %% tags=["remove-input"]
units = changes[changes["unit"] == "36"]
units = units.assign(line=units["choice"] + ": " + units["instead"])
size = changes.assign(size=changes["mean"].abs()).groupby("choice")["size"].max()
moved = [f"{name} ({most:.1f})" for name, most in size.nlargest(len(size)).items()]

# %% tags=["remove-input"]
axis = "change of mIoU in points, 36 units"
page.show(
    charts.points(units, "line", "sets", xlabel=axis),
    f"Largest change of any value, in points: most by {', '.join(moved[:3])}, least by "
    f"{', '.join(moved[-3:])}. Bars: standard deviation over the seeds.",
    alt="A point and a bar for each value of each choice and for both groups of sets: "
    "the change of mIoU with 36 units.",
)

# %% [markdown]
# ## Which of them matter
#
# A change matters here if it is larger than its standard deviation over the seeds, in either
# direction.

# %% tags=["remove-input"]
Markdown(choices.which_matter(changes))

# %% [markdown]
# What this does not say: on CLIP, whose embeddings have other norms, D3, D4 and D5 may weigh
# differently. The choice of the norm itself, which stands behind D3, is on the
# [page of the choices](#scenes-choices).

# %% [markdown]
# ## What to take away
#
# * Who implements the paper anew should first settle the last block, the levels' weights, the
#   similarity, the optimiser, the texts and the upsampling.
# * The gradient through the weights and both choices of the units can be made either way.

# %% [markdown]
# ## The runs behind the numbers

# %% tags=["remove-input", "hide-output"]
page.show_runs()

# %% [markdown]
# **With other parameters**: `mgca ablate choices --scale photos --seeds 0`, or
# [papermill](#one-notebook) on `notebooks/ablation_choices.ipynb`. What `results` holds is
# read, and what it lacks is computed.
