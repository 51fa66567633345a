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
#
# Change the parameters with papermill, for example
# `papermill ablation_areas.ipynb out.ipynb -p scale photos -p seeds "[0]"`. What `results`
# holds is read, what it lacks is computed; with `FRESH=1` in the environment everything is computed
# again.

# %% tags=["parameters"]
scale = "scenes"  # "scenes" or "photos"; "paper" says what it would take
seeds = [0, 1, 2]
data = ""  # folder of the real data sets; empty: see mgca.data.masks.data_root
jobs = -1  # runs at a time where some are missing; -1: as many as there are cores

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import seaborn as sns
from IPython.display import Markdown

from mgca.experiments.report import figures
from mgca.experiments.report.page import open_ablation
from mgca.experiments.report.tables import difference, group_means, mean_and_std, with_group_means

page = open_ablation("areas", scale, seeds, data=data, jobs=jobs)
setting, table = page.setting, page.table
means = group_means(table, setting.groups)
groups = list(setting.groups)

pixel = means[(means["unit"] == "pixel") & (means["metric"] == "miou")]
name = pixel["variant"].str.extract(
    r"^(?P<parameter>\w+)=(?P<share>[\d.]+)(?P<without>,no pixel)?$"
)
pixel = pixel.assign(
    parameter=name["parameter"],
    share=name["share"].astype(float),
    losses=name["without"].notna().map({True: "object and region", False: "all three levels"}),
)

# %% [markdown]
# ## Table

# %% tags=["remove-input"]
lines = with_group_means(table, setting.groups)
figures.table(
    mean_and_std(lines[lines["unit"] == "pixel"]).droplevel("unit"),
    caption="Areas of object and hard region: mIoU in percent, pixel unit, mean ± standard "
    "deviation over the seeds.",
    results=page.file,
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
own = setting.training.loss
figure, axes = plt.subplots(
    len(groups), 2, figsize=(7, 2.9 * len(groups)), squeeze=False, layout="constrained"
)
for row, group in zip(axes, groups, strict=True):
    for axis, parameter in zip(row, ["alpha_neg", "alpha"], strict=True):
        shown = pixel[(pixel["dataset"] == group) & (pixel["parameter"] == parameter)]
        sns.lineplot(
            shown,
            x="share",
            y="value",
            hue="losses",
            style="losses",
            hue_order=["all three levels", "object and region"],
            style_order=["all three levels", "object and region"],
            markers=True,
            errorbar="sd",
            err_style="bars",
            ax=axis,
            legend=parameter == "alpha_neg",
        )
        axis.axvline(getattr(own, parameter), color="grey", linestyle=":")
        axis.set(xscale="log", xlabel=f"{parameter}, share of the image", ylabel="mIoU (%)")
        shares = sorted(shown["share"].unique())
        # The scale's own value has the dotted line, and its label would run into its neighbour's.
        shares = [a for a, b in zip(shares, [*shares[1:], 9], strict=True) if b > 1.3 * a]
        axis.set_xticks(shares, [f"{share:g}" for share in shares])
        axis.minorticks_off()
        axis.set_title(group)
    row[0].legend(title="")
by_value = pixel.groupby(["dataset", "parameter", "losses", "share"])["value"].mean()
best = {curve: by_value[curve].idxmax() for curve in by_value.index.droplevel("share").unique()}
found = ". ".join(
    f"{group.capitalize()}: best `alpha_neg` is "
    f"{best[group, 'alpha_neg', 'all three levels']:g} with all levels and "
    f"{best[group, 'alpha_neg', 'object and region']:g} without the pixel level, best "
    f"`alpha` {best[group, 'alpha', 'all three levels']:g}"
    for group in groups
)
figures.show(
    figure,
    caption=f"mIoU over the two areas. {found}. Bars: standard deviation over the seeds; dotted: "
    "the scale's own value.",
    alt="Line charts: mIoU against alpha_neg, with and without the pixel level, and against alpha, "
    "for each group of sets.",
    name="fig-areas",
    results=page.file,
)

# %% [markdown]
# ## What holds here
#
# A claim holds here if the difference, seed by seed, is positive by more than its standard
# deviation over the seeds.


# %% tags=["remove-input"]
def gain(more: str, less: str, group: str):
    """By how much one variant exceeds another, per pixel."""
    return difference(means, (more, "pixel"), (less, "pixel"), group)


text = []
for group in groups:
    text.append(f"\n**{group.capitalize()}**\n")
    full, reduced = (
        by_value[group, "alpha_neg", losses] for losses in ("all three levels", "object and region")
    )
    spread = [curve.max() - curve.min() for curve in (full, reduced)]
    seeds_std = pixel[pixel["dataset"] == group].groupby("variant")["value"].std().median()
    little = spread[0] < spread[1]
    text.append(
        f"* `alpha_neg` has less effect with all levels than without the pixel level: "
        f"**{'holds' if little else 'does not hold'}** (the curve spans {spread[0]:.2f} points "
        f"with all levels, {spread[1]:.2f} without; a seed's standard deviation is typically "
        f"{seeds_std:.2f})."
    )
    low, high = f"alpha_neg={own.alpha_neg:g}", f"alpha_neg={reduced.index.max():g}"
    small = gain(f"{low},no pixel", f"{high},no pixel", group)
    text.append(
        "* Without the pixel level a small `alpha_neg` is better than a large one: "
        f"{small.verdict}, {own.alpha_neg:g} less {reduced.index.max():g}."
    )
    area = best[group, "alpha", "all three levels"]
    if area == own.alpha:
        text.append(f"* The scale's own `alpha`, {own.alpha:g}, is the best of those tried.")
    else:
        text.append(
            f"* `alpha` = {area:g} exceeds the scale's own, {own.alpha:g}, by "
            f"{gain(f'alpha={area:g}', f'alpha={own.alpha:g}', group)} points."
        )
Markdown("\n".join(text))

# %% [markdown]
# ## Pictures
#
# Small and large areas, on the same images as in the ablation of the granularity.

# %% tags=["remove-input"]
columns = {
    name: (name, None)
    for name in (
        f"alpha_neg={own.alpha_neg:g}",
        "alpha_neg=0.05,no pixel",
        "alpha_neg=0.8,no pixel",
        "alpha=0.05",
        "alpha=0.8",
    )
}
page.show_pictures(columns, "Small and large areas, on the same images.")

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input", "hide-output"]
page.show_runs()

# %% [markdown]
# `results/<scale>/runs/<run>.json` holds the configuration, the environment, the digests of the
# data and everything that was measured. A run that stands in several tables was computed once.
