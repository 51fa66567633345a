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
# # Ablation: areas of the object and of the hard negative
#
# **What the paper claims** (Section 4.3, Fig. 7, on sets without a background class). The area of
# the hard negative region, `alpha_neg`, has little effect on the full model. Without the pixel
# level its effect shows: a smaller area makes the model distinguish more challenging regions, and
# helps. Sets with a background are our addition. The area of the object, `alpha`, is not varied:
# the paper takes the average area of what texts describe in the training data.
#
# **How it is measured here.** One decoder per value and seed, everything else as in the scale's
# configuration: `alpha_neg` with all three levels and without the pixel level, `alpha` with all
# three. The unit is the pixel; `results/<scale>/areas.csv` has the numbers with 36 meta-points too.

# %% tags=["parameters"]
scale = "scenes"  # "scenes", "photos", or "paper" with a config
seeds = [0, 1, 2]
data = ""  # folder of the real data sets; empty: see mgca.data.masks.data_root
jobs = -1  # runs at a time where some are missing; -1: as many as there are cores
config = ""  # TOML file of the scale "paper"

# %% tags=["hide-input"]
from mgca.experiments.report import charts
from mgca.experiments.report.ablation import open_ablation

page = open_ablation("areas", scale, seeds, data=data, jobs=jobs, config=config)
own = page.setting.training.loss

# %% [markdown]
# ## Table

# %% tags=["remove-input"]
page.show_table(
    "Areas of object and hard region: mIoU in percent, pixel unit, mean ± standard "
    "deviation over the seeds."
)

# %% [markdown]
# ### What the paper reports
#
# The paper shows its curves in Fig. 7 without a table. Its text, for comparison:
#
# | of the paper | finding |
# |---|---|
# | `alpha_neg`, all three levels | alterations exert little effect |
# | `alpha_neg`, no pixel level | a smaller area benefits the dense predictions |
# | `alpha_neg` chosen | 0.05 |
# | `alpha` chosen | 0.4, the average area of what the texts of CC3M describe |

# %% [markdown]
# ## Figure

# %% tags=["remove-input"]
held = page.parameters(r"^(?P<parameter>\w+)=(?P<share>[\d.]+)(?P<losses>,no pixel)?$")
held["losses"] = held["losses"].map({",no pixel": "object and region"})
held = held.fillna({"losses": "all three levels"})
mean = held.groupby(["dataset", "parameter", "losses", "share"])["value"].mean()

# %% tags=["remove-input"]
best = mean.unstack("share").idxmax(axis=1)
found = ". ".join(
    f"{group.capitalize()}: best `alpha_neg` is "
    f"{best[group, 'alpha_neg', 'all three levels']:g} with all levels and "
    f"{best[group, 'alpha_neg', 'object and region']:g} without the pixel level, best "
    f"`alpha` {best[group, 'alpha', 'all three levels']:g}"
    for group in page.groups
)

# %% tags=["remove-input"]
page.show(
    charts.areas(held, ["alpha_neg", "alpha"], page.groups, vars(own)),
    f"mIoU over the two areas. {found}. Bars: standard deviation over the seeds; "
    "dotted: the scale's own value.",
    alt="Line charts: mIoU against alpha_neg, with and without the pixel level, and "
    "against alpha, for each group of sets.",
)

# %% [markdown]
# ## What holds here
#
# A claim holds here if the difference, seed by seed, is positive by more than its standard
# deviation over the seeds.


# %% tags=["remove-input"]
page.show_claims()

# %% [markdown]
# ## Pictures
#
# Small and large areas, on the same images as in the ablation of the granularity.

# %% tags=["remove-input"]
shown = [f"alpha_neg={own.alpha_neg:g}"]
shown += [
    "alpha_neg=0.05,no pixel",
    "alpha_neg=0.8,no pixel",
    "alpha=0.05",
    "alpha=0.8",
]
columns = {name: (name, None) for name in shown}
page.show_pictures(columns, "Small and large areas, on the same images.")

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input", "hide-output"]
page.show_runs()

# %% [markdown]
# `results/<scale>/runs/<run>.json` holds the configuration, the environment, the digests of the
# data and everything that was measured. A run that stands in several tables was computed once.
#
# **With other parameters**: `mgca ablate areas --scale photos --seeds 0`, or
# [papermill](#one-notebook) on `notebooks/ablation_areas.ipynb`. What `results` holds is
# read, and what it lacks is computed.
