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
#
# Change the parameters with papermill, for example
# `papermill ablation_granularity.ipynb out.ipynb -p scale photos -p seeds "[0]"`. What `results`
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

from mgca.evaluation.measure import CLASS_IOU
from mgca.experiments.report import figures
from mgca.experiments.report.page import open_ablation
from mgca.experiments.report.tables import difference, group_means, mean_and_std, with_group_means

page = open_ablation("granularity", scale, seeds, data=data, jobs=jobs)
setting, table = page.setting, page.table
means = group_means(table, setting.groups)
groups = list(setting.groups)

# %% [markdown]
# ## Table

# %% tags=["remove-input"]
lines = with_group_means(table, setting.groups)
figures.table(
    mean_and_std(lines[lines["unit"] == "pixel"]).droplevel("unit"),
    caption="What each level adds: mIoU in percent, pixel unit, mean ± standard deviation over the "
    "seeds.",
    results=page.file,
)

# %% [markdown]
# ### The paper's own table

# %% tags=["remove-input"]
paper = page.paper("table3.csv")
levels = ["object", "region", "pixel"]
paper.insert(0, "levels", [" + ".join(x for x in levels if row[x]) for _, row in paper.iterrows()])
paper = paper.replace({"levels": {"": "baseline"}}).drop(columns=levels).set_index("levels")
averages = {"avg_with_bg": "mean with background", "avg_without_bg": "mean without"}
figures.table(
    paper.rename(columns=averages).add_prefix("paper, "),
    caption="Table 3 of the paper: mIoU in percent, CLIP ViT-B/16, CC3M, eight benchmarks. These "
    "are the paper's numbers, on other data and with another encoder: to be compared in their "
    "order only.",
    results="paper/table3.csv",
)

# %% [markdown]
# ## Figure

# %% tags=["remove-input"]
shown = means[(means["unit"] == "pixel") & (means["metric"] == "miou")]
variants = list(shown["variant"].unique())
figure, axis = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
sns.barplot(shown, x="variant", y="value", hue="dataset", errorbar="sd", ax=axis)
axis.set(xlabel="", ylabel="mIoU (%)")
axis.tick_params(axis="x", rotation=20)
sns.move_legend(axis, "lower center", bbox_to_anchor=(0.5, 1), ncol=2, title="", frameon=False)
by_variant = shown.groupby(["dataset", "variant"])["value"].mean()
found = ". ".join(
    f"{group.capitalize()}: best is **{by_variant[group].idxmax()}** with "
    f"{by_variant[group].max():.1f}, "
    f"{by_variant[group].max() - by_variant[group, 'baseline']:+.1f} over the baseline"
    for group in groups
)
figures.show(
    figure,
    caption=f"mIoU by what was trained. {found}. Error bars: standard deviation over the seeds.",
    alt="Bar chart: mIoU of the frozen features, of each level alone, of object and region level "
    "together and of all three, for each group of sets.",
    name="fig-granularity",
    results=page.file,
)

# %% [markdown]
# ## What holds here
#
# A claim holds here if the difference, seed by seed, is positive by more than its standard
# deviation over the seeds.


# %% tags=["remove-input"]
def gain(more: str, less: str, group: str, metric: str = "miou"):
    """By how much one variant exceeds another, per pixel."""
    return difference(means, (more, "pixel"), (less, "pixel"), group, metric)


def smallest_gain(variant: str, others: list[str], group: str):
    """The difference to the nearest of the others, and which that is."""
    return min((gain(variant, other, group), other) for other in others)


frozen = variants[: variants.index("object")]
pieces = (
    means[means["metric"] == "components"].groupby(["dataset", "variant", "unit"])["value"].mean()
)
text = []
for group in groups:
    text.append(f"\n**{group.capitalize()}**\n")
    for level in levels:
        against = "; ".join(f"over {name} {gain(level, name, group).verdict}" for name in frozen)
        text.append(f"* The {level} level alone improves the frozen features: {against}.")
    nearest, other = smallest_gain("pixel", ["object", "region"], group)
    text.append(f"* The pixel level brings most: {nearest.verdict}, against the {other} level.")
    nearest, other = smallest_gain("all", [name for name in variants if name != "all"], group)
    text.append(f"* All three together are best: {nearest.verdict}, against {other}.")
    patches = gain("baseline", "object+region", group, "components")
    before, after = (pieces[group, name, "pixel"] for name in ("baseline", "object+region"))
    text.append(
        f"* Object and region level remove noisy patches: {patches.verdict}, in connected "
        f"components per component of the truth: {before:.2f} without them, {after:.2f} with both."
    )
    contours = gain("all", "object+region", group, "boundary_iou")
    text.append(
        f"* The pixel level makes masks more accurate: {contours.verdict} points of boundary IoU, "
        "all less object+region."
    )
Markdown("\n".join(text))

# %% [markdown]
# ## Class by class
#
# IoU in percent with the pixel as the unit, mean over the seeds; classes that occur.

# %% tags=["remove-input", "hide-output"]
classes = table[(table["unit"] == "pixel") & table["metric"].str.startswith(CLASS_IOU)]
classes = classes.assign(**{"class": classes["metric"].str.removeprefix(CLASS_IOU)})
for dataset, rows in classes.groupby("dataset", sort=False):
    wide = rows.pivot_table(index="class", columns="variant", values="value", sort=False)
    figures.table(
        wide[variants].round(1),
        caption=f"{dataset}: IoU of each class in percent, pixel unit, mean over the seeds.",
        results=page.file,
    )

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
page.show_pictures(
    columns, "What each level adds, image by image. Colours are the classes of the legend."
)

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input", "hide-output"]
page.show_runs()

# %% [markdown]
# `results/<scale>/runs/<run>.json` holds the configuration, the environment, the digests of the
# data and everything that was measured. A run that stands in several tables was computed once.
