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
# # The background's threshold
#
# No method here asks for "background": it is no description, and what it covers differs from set
# to set. Where a set has it as a class, it is what is left when no class is likely enough. The
# cosines of a pixel, or of its unit, to the $K$ class texts become probabilities,
#
# $$p_k = \frac{\exp(\cos_k / \tau)}{\sum_{j=1}^{K} \exp(\cos_j / \tau)},$$
#
# and the pixel is background where the largest does not exceed a threshold. So two numbers decide,
# the threshold and the temperature $\tau$, and they go together: the higher the temperature, the
# lower the threshold that serves best. The paper follows GroupViT in the rule and
# {ref}`states neither <background>`.
#
# **Rules in use.** They cannot be carried over from one to the other, because a probability depends
# on the temperature and on how many classes are asked for.
#
# | method | score | background where it is at most |
# |---|---|---|
# | GroupViT {cite:p}`xu2022groupvit` | softmax | 0.95 on VOC and COCO-Object, 0.35 on Context |
# | TCL {cite:p}`cha2023tcl` | its own sigmoid of every class | 0.5 |
# | MGCA {cite:p}`liu2024mgca` | softmax | not stated |
#
# **Chosen off the benchmarks.** A threshold that is chosen on the images of a table is fitted to
# the table: every method would look better than it is, and the more it depends on the threshold the
# more so. The curves here are of other images: of VOC some of its training split, and scenes of a
# validation seed. One pair serves all lines of a table, so that none is favoured by a choice of its
# own.

# %% tags=["remove-input"]
import os
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from mgca.evaluation.results import read_run
from mgca.evaluation.thresholds import choose
from mgca.experiments import load_scale
from mgca.experiments.report import figures
from mgca.experiments.thresholds import COLUMNS

figures.use_style()
here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
# A path relative to the project, also when the notebook runs in its own folder.
os.chdir(project)
results = project / "results"
UNITS = {"pixel": "pixel", "36": "36 units"}


@dataclass(frozen=True)
class Chosen:
    """Curves of a scale and the pair that its tables use."""

    name: str
    curves: pd.DataFrame
    threshold: float
    temperature: float

    @property
    def near(self) -> float:
        """The temperature that has curves nearest to the one in use."""
        return min(self.curves["temperature"].unique(), key=lambda t: abs(t - self.temperature))

    @property
    def where(self) -> str:
        """The pair, and which curves stand for it."""
        text = f"threshold {self.threshold:g}, temperature {self.temperature:.3g}"
        if f"{self.near:.3g}" == f"{self.temperature:.3g}":
            return text
        return f"{text}, for which the curves of {self.near:g} stand here"

    def lines(self) -> pd.DataFrame:
        """By line: mIoU at the pair, the line's own best, and what is lost."""
        rows = []
        for (variant, unit), curve in self.curves.groupby(["variant", "unit"], sort=False):
            at = curve[curve["temperature"] == self.near].set_index("threshold")["miou"]
            used = at[at.index[abs(at.index - self.threshold).argmin()]]
            best = curve.loc[curve["miou"].idxmax()]
            close = at[at >= at.max() - 1].index
            rows.append(
                {
                    "line": variant,
                    "unit": UNITS[unit],
                    "chosen pair": used,
                    "own best": best["miou"],
                    "at threshold": best["threshold"],
                    "and temperature": best["temperature"],
                    "lost": best["miou"] - used,
                    "within a point of the best": f"{close.min():.2f} to {close.max():.2f}",
                }
            )
        return pd.DataFrame(rows)

    def temperatures(self) -> pd.DataFrame:
        """By temperature: the best threshold for all lines together, and their mean mIoU."""
        mean = self.curves.groupby(["temperature", "threshold"])["miou"].mean()
        best = mean.groupby("temperature").idxmax()
        return pd.DataFrame(
            {"best threshold": [pair[1] for pair in best], "mean mIoU": mean[best].to_numpy()},
            index=best.index,
        )


def read(name: str) -> Chosen | None:
    """The curves of a scale, None without any."""
    path = results / name / "background.csv"
    if not path.is_file():
        return None
    curves = pd.read_csv(path, dtype={"unit": str, "run": str})
    if list(curves.columns) != COLUMNS:
        raise ValueError(f"{path} holds no curves")
    scale = load_scale(name)
    # The scenes take the temperature that their small CLIP has learned.
    own = getattr(scale, "temperature", None) or scale.published_backbone().temperature
    return Chosen(name, curves, scale.threshold, own)


def draw(chosen: Chosen) -> Figure:
    """Small multiples of the curves, variants by units, with the pair in use."""
    curves = chosen.curves
    variants, units = curves["variant"].unique(), list(UNITS)
    colours = dict(zip(sorted(curves["temperature"].unique()), sns.color_palette(), strict=False))
    figure, axes = plt.subplots(
        len(variants),
        len(units),
        figsize=(6.4, 2.3 * len(variants) + 0.9),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, variant in zip(axes, variants, strict=True):
        for axis, unit in zip(row, units, strict=True):
            own = curves[(curves["variant"] == variant) & (curves["unit"] == unit)]
            sns.lineplot(
                own,
                x="threshold",
                y="miou",
                hue="temperature",
                palette=colours,
                size="temperature",
                sizes={t: 2.5 if t == chosen.near else 1.2 for t in colours},
                legend=axis is axes[0, 0],
                errorbar=None,
                ax=axis,
            )
            near = own[own["temperature"] == chosen.near].set_index("threshold")["miou"]
            at = near.index[abs(near.index - chosen.threshold).argmin()]
            axis.plot(at, near[at], "o", color="black", markersize=8, zorder=5)
            axis.set_title(f"{variant}, {UNITS[unit]}")
            axis.set(xlabel="threshold", ylabel="mIoU (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    axes[0, 0].legend_.remove()
    figure.legend(
        handles,
        labels,
        title="temperature (the thick line is in use)",
        loc="outside upper center",
        ncols=len(labels),
        columnspacing=0.8,
        handlelength=1.2,
    )
    return figure


def show(name: str) -> None:
    """Curves, table and finding of a scale."""
    chosen = read(name)
    if chosen is None:
        display(Markdown(f"**Not run**: `mgca experiment thresholds --scale {name}`."))
        return
    figure = draw(chosen)
    run = read_run(results / name, chosen.curves["run"].iloc[0])
    dataset, _, images = run["config"]["set"]
    lines, temperatures = chosen.lines(), chosen.temperatures()
    best = choose(chosen.curves)
    agrees = (
        "which is the best mean over the lines"
        if (round(best[0], 6), best[1]) == (chosen.threshold, chosen.temperature)
        else f"where the best mean over the lines is at threshold {best[0]:g} and temperature "
        f"{best[1]:g}, with {best[2]:.1f} against {lines['chosen pair'].mean():.1f}"
    )
    near = abs(chosen.curves["threshold"] - chosen.threshold)
    fixed = chosen.curves[near == near.min()].groupby("temperature")["miou"].mean()
    span = temperatures["mean mIoU"].max() - temperatures["mean mIoU"].min()
    figures.show(
        figure,
        caption=f"mIoU over the threshold on `{dataset}`, {images} images; the dot is the pair in "
        f"use: {chosen.where}, {agrees}. It costs the lines between {lines['lost'].min():.1f} and "
        f"{lines['lost'].max():.1f} points against a pair of their own. With the best threshold "
        f"for each, the {len(temperatures)} temperatures differ by {span:.1f} points in the mean; "
        f"with the threshold of the pair, they differ by {fixed.max() - fixed.min():.1f}.",
        alt="Line charts, one for each method and unit: mIoU against the threshold, a line for "
        "each temperature, with a dot at the pair in use.",
        name=f"fig-background-{name}",
        results=f"{name}/background.csv",
    )
    for column in ("chosen pair", "own best", "lost"):
        lines[column] = lines[column].map("{:.1f}".format)
    figures.table(
        lines.set_index(["line", "unit"]),
        caption="What the one pair costs each line.",
        results=f"{name}/background.csv",
    )
    figures.table(
        temperatures.rename(index="{:g}".format).round({"best threshold": 2, "mean mIoU": 1}),
        caption="Each temperature with its best threshold.",
        results=f"{name}/background.csv",
    )


# %% [markdown]
# ## Photographs
#
# `dense` is the alignment alone, `mgca` has the decoder on top; both as they come with the project.

# %% tags=["remove-input"]
show("photos")

# %% [markdown]
# VOC's 20 classes are asked for here. The same pair then serves COCO's 80, where the softmax has
# four times as many terms and probabilities are smaller: it may suit `voc21` better than `coco81`.
# The images are also among those on which MGCA's settings on photographs
# [were tried](results.ipynb).

# %% [markdown]
# ## Scenes
#
# The pair was chosen before these curves were drawn, on scenes of the same validation seed: the
# best of a few thresholds, at the temperature that the small CLIP has learned
# ([the scenes](#scenes-choices)). It was then left alone. `dense` has the last block reduced to its
# values, which is MaskCLIP.

# %% tags=["remove-input"]
show("scenes")

# %% [markdown]
# ## What follows
#
# * A method whose scores are spread otherwise than those of the lines above is handled less well
#   by the common pair. It is a property of the comparison, not of the method.
# * [Every method, one harness](methods.ipynb) has TCL under its own rule beside the common one.
# * For a photograph of your own no threshold is right: `Model.segment(..., background=None)`, the
#   default, gives every pixel a class.

# %% [markdown]
# `mgca experiment thresholds --scale photos` draws the curves again, from one pass over
# the images. `results/<scale>/background.csv` holds them, `results/<scale>/runs/<run>.json` where
# they come from.
