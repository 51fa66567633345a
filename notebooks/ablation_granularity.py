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
# # Ablation: granularity of the alignment
#
# **What the paper claims** (Section 4.3, Table 3, Fig. 5). Every level of alignment improves dense
# prediction over the frozen features: the object level by 10.6 and the region level by 8.7 points
# on sets with a background class. The pixel level brings most, 15.3 points by itself there and 14.3
# on sets without, and all three together are best, 16.1 and 14.9. In pictures, the object and
# region levels remove noisy patches, and the pixel level makes masks more complete and accurate.
#
# **How it is measured here.** One decoder is trained per line of the table and per seed, with the
# configuration of the scale and only the losses named. `baseline` is the frozen encoder as it was
# trained, `maskclip` has its last attention block reduced to its values, which is what the decoders
# build on (an encoder without such a block has `baseline` only). As in the paper, the unit is the
# pixel, so that the units of inference play no part.

# %% tags=["parameters"]
scale = "scenes"  # "scenes", "photos", or "paper" with a config
seeds = [0, 1, 2]
data = ""  # folder of the real data sets; empty: see mgca.data.masks.data_root
jobs = -1  # runs at a time where some are missing; -1: as many as there are cores
config = ""  # TOML file of the scale "paper"

# %% tags=["hide-input"]
from mgca.experiments.report import charts
from mgca.experiments.report.ablation import open_ablation
from mgca.experiments.report.tables import best_of_each

page = open_ablation("granularity", scale, seeds, data=data, jobs=jobs, config=config)

# %% [markdown]
# ## Table

# %% tags=["remove-input"]
page.show_table(
    "What each level adds: mIoU in percent, pixel unit, mean ± standard deviation over the seeds."
)

# %% [markdown]
# ### The paper's own table

# %% tags=["remove-input"]
page.show_paper(3)

# %% [markdown]
# ## Figure

# %% tags=["remove-input"]
best = best_of_each(page.pixel, "variant", over="baseline", marked=True)
page.show(
    charts.bars(page.pixel, x="variant", hue="dataset", rotation=20),
    f"mIoU by what was trained. {best}. Error bars: standard deviation over the seeds.",
    alt="Bar chart: mIoU of the frozen features, of each level alone, of object and "
    "region level together and of all three, for each group of sets.",
)

# %% [markdown]
# ## What holds here
#
# A claim holds here if the difference, seed by seed, is positive by more than its standard
# deviation over the seeds.


# %% tags=["remove-input"]
page.show_claims()

# %% [markdown]
# ## Class by class
#
# IoU in percent with the pixel as the unit, mean over the seeds; classes that occur.

# %% tags=["remove-input", "hide-output"]
page.show_classes()

# %% [markdown]
# ## Pictures
#
# As in the paper's Fig. 5: the object, region and pixel levels are added one after the other, then
# the units of inference (36 meta-points).

# %% tags=["remove-input"]
columns = {
    "baseline": ("baseline", None),
    "+ object": ("object", None),
    "+ region": ("object+region", None),
    "+ pixel": ("all", None),
    "+ units": ("all", 36),
}
caption = "What each level adds, image by image. Colours are the classes of the legend."
page.show_pictures(columns, caption)

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input", "hide-output"]
page.show_runs()

# %% [markdown]
# `results/<scale>/runs/<run>.json` holds the configuration, the environment, the digests of the
# data and everything that was measured. A run that stands in several tables was computed once.
#
# **With other parameters**: `mgca ablate granularity --scale photos --seeds 0`, or
# [papermill](#one-notebook) on `notebooks/ablation_granularity.ipynb`. What `results` holds is
# read, and what it lacks is computed.
