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
# # Ablation: the semantic unit and the number of meta-points
#
# **What the paper claims** (Section 4.3, Table 4). Fewer units give more consistent masks: from the
# pixel down to 36 meta-points per window, segmentation improves with every step. Below 36 the
# returns are marginal, and some sets get worse. The units alleviate both the over-segmentation of
# pixels and the under-segmentation of learned groups.
#
# **How it is measured here.** Only inference differs: one decoder per seed, trained with all three
# levels, is asked with each unit. Beside mIoU this page measures boundary IoU (Cheng et al. 2021),
# which counts only pixels within 2 % of the diagonal from a contour, and the number of connected
# components of the prediction over that of the truth: above 1 is over-segmentation, below 1
# under-segmentation.
#
# Change the parameters with papermill, for example
# `papermill ablation_meta_points.ipynb out.ipynb -p scale photos -p seeds "[0]"`. What `results`
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

from mgca.experiments.grid import META_POINTS
from mgca.experiments.report import figures
from mgca.experiments.report.page import open_ablation
from mgca.experiments.report.tables import difference, group_means, mean_and_std, with_group_means

page = open_ablation("meta_points", scale, seeds, data=data, jobs=jobs)
setting, table = page.setting, page.table
means = group_means(table, setting.groups)
groups = list(setting.groups)

units = ["pixel", *(str(points) for points in sorted(META_POINTS[1:], reverse=True))]
metrics = {
    "miou": "mIoU (%)",
    "boundary_iou": "boundary IoU (%)",
    "components": "components / those of the truth",
}

# %% [markdown]
# ## Tables

# %% tags=["remove-input"]
lines = with_group_means(table, setting.groups)
for metric, title in metrics.items():
    shown = mean_and_std(lines, metric, digits=2 if metric == "components" else 1)
    figures.table(
        shown.droplevel("variant").loc[units],
        caption=f"By number of meta-points: {title}, mean ± standard deviation over the seeds.",
        results=page.file,
    )

# %% [markdown]
# ### The paper's own table

# %% tags=["remove-input"]
paper = page.paper("table4.csv")
averages = {"avg_with_bg": "mean with background", "avg_without_bg": "mean without"}
keys = {"semantic_unit": "unit", "meta_points": "meta-points"}
paper = paper.rename(columns=keys | averages).set_index(list(keys.values()))
figures.table(
    paper.add_prefix("paper, "),
    caption="Table 4 of the paper: mIoU in percent, CLIP ViT-B/16, CC3M, eight benchmarks. These "
    "are the paper's numbers, on other data and with another encoder: to be compared in their "
    "order only.",
    results="paper/table4.csv",
)

# %% [markdown]
# ## Figure

# %% tags=["remove-input"]
figure, axes = plt.subplots(3, 1, figsize=(6.5, 8), layout="constrained")
for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
    sns.pointplot(
        means[means["metric"] == metric],
        x="unit",
        y="value",
        hue="dataset",
        order=units,
        hue_order=groups,
        errorbar="sd",
        capsize=0.15,
        dodge=0.15,
        ax=axis,
        legend=metric == "miou",
    )
    axis.set(xlabel="meta-points per window", ylabel=title)
axes[0].legend(title="")
axes[2].axhline(1, color="grey", linestyle=":")
by_unit = means.groupby(["metric", "dataset", "unit"])["value"].mean()
found = ". ".join(
    f"{group.capitalize()}: best is {by_unit['miou', group].idxmax()} with "
    f"{by_unit['miou', group].max():.1f} mIoU, "
    f"{by_unit['miou', group].max() - by_unit['miou', group, 'pixel']:+.1f} over the pixel, and "
    f"components fall from {by_unit['components', group, 'pixel']:.2f} (pixel) to "
    f"{by_unit['components', group, '36']:.2f} (36) times those of the truth"
    if by_unit["components", group, "36"] < by_unit["components", group, "pixel"]
    else f"{group.capitalize()}: best is {by_unit['miou', group].idxmax()} with "
    f"{by_unit['miou', group].max():.1f} mIoU, and components do not fall"
    for group in groups
)
figures.show(
    figure,
    caption=f"From the pixel to ever fewer units. {found}. Bars: standard deviation over the "
    "seeds; dotted: as many components as the truth.",
    alt="Three line charts against the number of meta-points, from the pixel to 16: mIoU, boundary "
    "IoU, and connected components per component of the truth, for each group of sets.",
    name="fig-meta-points",
    results=page.file,
)

# %% [markdown]
# ## What holds here
#
# A claim holds here if the difference, seed by seed, is positive by more than its standard
# deviation over the seeds.


# %% tags=["remove-input"]
def gain(more: str, less: str, group: str, metric: str = "miou"):
    """By how much one unit exceeds another."""
    return difference(means, ("all", more), ("all", less), group, metric)


text = []
for group in groups:
    text.append(f"\n**{group.capitalize()}**\n")
    text.append(f"* 36 meta-points are better than pixels: {gain('36', 'pixel', group).verdict}.")
    down = units[: units.index("36") + 1]
    rises = [gain(fewer, more, group).mean > 0 for more, fewer in zip(down, down[1:], strict=False)]
    text.append(
        "* Every reduction down to 36 improves on the one before: "
        f"**{'holds' if all(rises) else 'does not hold'}** ({sum(rises)} of {len(rises)} steps)."
    )
    further = [gain(fewer, "36", group) for fewer in ("25", "16")]
    marginal = all(step.mean < gain("36", "pixel", group).mean / 2 for step in further)
    text.append(
        "* Below 36 the returns are marginal, less than half of the gain from the pixel to 36: "
        f"**{'holds' if marginal else 'does not hold'}** (25 against 36: {further[0]}, 16 against "
        f"36: {further[1]})."
    )
    pieces = by_unit["components", group]
    text.append(
        "* Units make predictions less over-segmented: "
        f"{gain('pixel', '36', group, 'components').verdict}, in components per component of the "
        f"truth: {pieces['pixel']:.2f} with pixels, {pieces['36']:.2f} with 36 meta-points."
    )
    text.append(
        "* Not a claim of the paper: the contours with 36 meta-points against the pixel's, "
        f"{gain('36', 'pixel', group, 'boundary_iou')} points of boundary IoU."
    )
Markdown("\n".join(text))

# %% [markdown]
# ## Pictures
#
# The same decoder with each unit, on the same images as in the other ablations.

# %% tags=["remove-input"]
columns = {
    "pixel" if points is None else f"{points} points": ("all", points)
    for points in (None, 121, 64, 36, 16)
}
page.show_pictures(columns, "The same decoder with each unit, on the same images.")

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input"]
page.show_runs()

# %% [markdown]
# `results/<scale>/runs/<run>.json` holds the configuration, the environment, the digests of the
# data and everything that was measured. A run that stands in several tables was computed once.
