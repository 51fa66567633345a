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
# The paper leaves [twelve choices](../open-choices.md) open, D1 to D12. This page changes one at a
# time and measures what that does. A choice that moves nothing need not worry a reader who chose
# otherwise; one that moves much is where two implementations of the paper may differ.
#
# **How it is measured.** One decoder per value and seed, everything else as in the scale's
# configuration. D11 and D12 concern the units alone: the decoder is the same, and so the pixel's
# numbers are. No value was chosen by these numbers: they were measured after all others.

# %% tags=["parameters"]
scale = "scenes"  # "scenes" or "photos"; "paper" says what it would take
seeds = [0, 1, 2]
data = ""  # folder of the real data sets; empty: $MGCA_DATA
jobs = -1  # runs at a time where some are missing; -1: as many as there are cores

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

from mgca.evaluation.results import read_results
from mgca.experiments.report import figures
from mgca.experiments.report.page import open_ablation
from mgca.experiments.report.tables import Difference, difference, group_means

page = open_ablation("choices", scale, seeds, data=data, jobs=jobs)
setting, table = page.setting, page.table
groups = list(setting.groups)

# %% [markdown]
# ## Every choice
#
# The difference to the chosen value in points of mIoU, seed by seed, mean ± standard deviation.
# D6, D7 and D8 are varied by ablations of their own, D1 by the comparison of methods; the table
# takes its lines from there.

# %% tags=["remove-input"]
own = setting.training.loss
OTHERS = [  # choice, value, table, the line, the line with the chosen value
    ("D1", "last block as trained", "benchmarks", "clip+mgca", "mgca"),
    ("D1", "last block as in SCLIP", "benchmarks", "sclip+mgca", "mgca"),
    ("D1", "last block as in ClearCLIP", "benchmarks", "clearclip+mgca", "mgca"),
    ("D1", "last block as in NACLIP", "benchmarks", "naclip+mgca", "mgca"),
    ("D2", "nearest upsampling", "choices", "upsample=nearest", "chosen"),
    ("D3", "cosine similarity", "choices", "measure=cosine", "chosen"),
    ("D4", "weights without gradient", "choices", "detach_weights=True", "chosen"),
    ("D5", "images against texts only", "choices", "direction=image", "chosen"),
    ("D5", "texts against images only", "choices", "direction=text", "chosen"),
    ("D6", "the easiest positive, k = 0", "k", "k=0", f"k={own.k:g}"),
    ("D6", "the hardest positive, k = 1", "k", "k=1", f"k={own.k:g}"),
    ("D7", "a softer negative, k_neg = 1", "k", "k_neg=1", "k_neg=0"),
    ("D8", "pixel level of weight 0", "granularity", "object+region", "all"),
    ("D8", "object level alone", "granularity", "object", "all"),
    ("D9", "Adam", "choices", "optimizer=adam", "chosen"),
    ("D10", "captions as they are", "choices", "captions=original", "chosen"),
    ("D10", "generated texts only", "choices", "captions=nouns", "chosen"),
    ("D11", "meta-points to the edge", "choices", "placement=corner", "chosen"),
    ("D12", "mean of directions", "choices", "average=normalised", "chosen"),
]
tables = {
    name: table if name == "choices" else read_results(page.results / f"{name}.csv")
    for name in ("choices", "k", "granularity", "benchmarks")
}
means = {
    name: group_means(lines, setting.groups) if len(lines) else lines
    for name, lines in tables.items()
}


def change(source: str, other: str, chosen: str, group: str, unit: str) -> Difference | None:
    """By how much another value exceeds the chosen one; None where it was not run."""
    try:
        return difference(means[source], (other, unit), (chosen, unit), group)
    except KeyError:
        return None


lines = []
for choice, value, source, other, chosen in OTHERS:
    for group in groups:
        for unit in ("pixel", "36"):
            found = change(source, other, chosen, group, unit)
            if found is not None:
                lines.append((choice, value, group, unit, found.mean, found.std))
changes = pd.DataFrame(lines, columns=["choice", "instead", "sets", "unit", "mean", "std"])
# A difference that is the same for every seed, as that of equal decoders, has no spread.
changes["std"] = changes["std"].fillna(0)
missing = [v for _, v, *_ in OTHERS if v not in set(changes["instead"])]
counted = table["seed"].nunique()
if len(changes):
    shown = changes.assign(
        points=[
            f"{m:+.2f} ± {s:.2f}" for m, s in zip(changes["mean"], changes["std"], strict=True)
        ],
        column=changes["sets"] + ", " + changes["unit"].replace({"36": "36 units"}),
    )
    wide = shown.pivot(index=["choice", "instead"], columns="column", values="points")
    order = [(choice, value) for choice, value, *_ in OTHERS if (choice, value) in wide.index]
    figures.table(
        wide.loc[order].fillna("not run"),
        caption="Another value in place of the chosen one: change of mIoU in points, mean ± "
        f"standard deviation over {counted} seeds. Below 0: the chosen value is the better.",
        results=page.file,
    )
if missing:
    display(Markdown(f"**Not run** at this scale: {'; '.join(missing)}."))

# %% tags=["remove-input"]
if len(changes):
    pixel = changes[changes["unit"] == "36"]
    names = [f"{choice}: {value}" for choice, value in order]
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(names) + 1.2), layout="constrained")
    for number, (group, marker) in enumerate(zip(groups, "os", strict=False)):
        rows = pixel[pixel["sets"] == group]
        places = [
            names.index(f"{c}: {v}") + 0.22 * (number - 0.5)
            for c, v in zip(rows["choice"], rows["instead"], strict=True)
        ]
        axis.errorbar(rows["mean"], places, xerr=rows["std"], fmt=marker, capsize=3, label=group)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("change of mIoU in points, 36 units")
    figure.legend(loc="outside upper center", ncols=2)
    size = changes.assign(size=changes["mean"].abs()).groupby("choice")["size"].max()
    moved = size.sort_values(ascending=False)
    most = ", ".join(f"{name} ({moved[name]:.1f})" for name in moved.index[:3])
    least = ", ".join(f"{name} ({moved[name]:.1f})" for name in moved.index[-3:])
    figures.show(
        figure,
        caption=f"Largest change of any value, in points: most by {most}, least by {least}. Bars: "
        "standard deviation over the seeds.",
        alt="A point and a bar for each value of each choice and for both groups of sets: the "
        "change of mIoU with 36 units.",
        name="fig-choices",
        results=page.file,
    )

# %% [markdown]
# ## Which of them matter
#
# A change matters here if it is larger than its standard deviation over the seeds, in either
# direction.

# %% tags=["remove-input"]
text = []
for choice, rows in changes.groupby("choice", sort=False):
    clear = rows[(rows["mean"].abs() > rows["std"]) & (rows["mean"].abs() > 0.005)]
    better, worse = clear[clear["mean"] > 0], clear[clear["mean"] < 0]
    parts = []
    for found, word in ((better, "gains"), (worse, "loses")):
        for value, own_rows in found.groupby("instead", sort=False):
            low, high = own_rows["mean"].abs().min(), own_rows["mean"].abs().max()
            span = f"{low:.1f}" if f"{low:.1f}" == f"{high:.1f}" else f"{low:.1f} to {high:.1f}"
            every = (rows["instead"] == value).sum()
            parts.append(f"*{value}* {word} {span} in {len(own_rows)} of {every} columns")
    text.append(f"* **{choice}**: {'; '.join(parts) if parts else 'nothing beyond the spread'}.")
Markdown("\n".join(text) or "Not run.")

# %% [markdown]
# What this does not say: on CLIP, whose embeddings have other norms, D3, D4 and D5 may weigh
# differently. The choice of the norm itself, which stands behind D3, is on the
# [page of the choices](#scenes-choices).

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input"]
page.show_runs()
