"""Charts of results tables: bars, curves over a parameter, differences, losses, thresholds.

Each takes a table and gives a figure; what it shows is said by who shows it. Pictures of images are
:mod:`mgca.experiments.report.pictures`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mgca.experiments.report.words import worded

try:
    import seaborn as sns
except ImportError as error:
    raise ImportError(f"figures of the book need it ({error}): pip install 'mgca[book]'") from error


def bars(table: pd.DataFrame, x: str, hue: str, *, rotation: float = 0, **order: Any) -> Figure:
    """mIoU as bars, with the standard deviation over the seeds.

    Args:
        table: Rows with ``value`` and the two columns named.
        x: Column of the bars' places.
        hue: Column of their colours.
        rotation: Degrees by which the names below are turned.
        order: ``order`` and ``hue_order`` of seaborn.
    """
    figure, axis = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
    sns.barplot(table, x=x, y="value", hue=hue, errorbar="sd", ax=axis, **order)
    axis.set(xlabel="", ylabel="mIoU (%)")
    axis.tick_params(axis="x", rotation=rotation)
    above = {"bbox_to_anchor": (0.5, 1), "ncol": 3, "title": "", "frameon": False}
    sns.move_legend(axis, "lower center", **above)
    return figure


def bars_by_group(table: pd.DataFrame, groups: Sequence[str], **order: Any) -> Figure:
    """mIoU of variants by unit as bars, a chart for each group of sets.

    Args:
        table: Rows of a results table, whose ``dataset`` is a group.
        groups: The groups.
        order: ``order`` of the variants and ``hue_order`` of the units.
    """
    figure, axes = plt.subplots(
        1, len(groups), figsize=(6.8, 3.2), sharey=True, layout="constrained", squeeze=False
    )
    for axis, group in zip(axes[0], groups, strict=True):
        sns.barplot(
            table[table["dataset"] == group],
            x="variant",
            y="value",
            hue="unit",
            errorbar="sd",
            ax=axis,
            legend=axis is axes[0, 0],
            **order,
        )
        axis.set(title=group, xlabel="", ylabel="mIoU (%)")
    axes[0, 0].legend(title="", loc="upper left")
    return figure


def steps(axis: Axes, table: pd.DataFrame, x: str, *, legend: bool, **order: Any) -> None:
    """Draw the mean of each group of sets at values in equal steps, with its deviation.

    Args:
        axis: Where to draw.
        table: Rows of a results table, whose ``dataset`` is a group.
        x: Column of the values.
        legend: Whether to name the groups.
        order: ``order`` of the values and ``hue_order`` of the groups.
    """
    bar = {"errorbar": "sd", "capsize": 0.15, "dodge": 0.15}
    sns.pointplot(table, x=x, y="value", hue="dataset", ax=axis, legend=legend, **bar, **order)
    if legend:
        axis.legend(title="")


def ranks(table: pd.DataFrame, names: Sequence[str], groups: Sequence[str]) -> Figure:
    """mIoU over parameters of which a value stands beside the next in equal steps.

    Args:
        table: Rows of a results table with ``parameter`` and ``share``.
        names: The parameters, a chart each.
        groups: The groups of sets.
    """
    figure, axes = plt.subplots(1, len(names), figsize=(7, 3.4), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        # Equal steps: the values range from 0 to 1 and lie densest near 0.
        shown = table[table["parameter"] == name].sort_values("share")
        shown = shown.assign(share=shown["share"].map("{:g}".format))
        steps(axis, shown, "share", legend=axis is axes[0], hue_order=groups)
        axis.set(xlabel=f"{name}, share of the object", ylabel="mIoU (%)")
    return figure


def metrics_by_unit(
    table: pd.DataFrame, metrics: Mapping[str, str], units: Sequence[str], groups: Sequence[str]
) -> Figure:
    """Metrics over the number of meta-points, one below the other.

    Args:
        table: Rows of a results table, whose ``dataset`` is a group.
        metrics: Title by name; a dotted line is at 1 in the last.
        units: The units, in order.
        groups: The groups of sets.
    """
    figure, axes = plt.subplots(len(metrics), 1, figsize=(6.5, 8), layout="constrained")
    for axis, (metric, title) in zip(axes, metrics.items(), strict=True):
        shown = table[table["metric"] == metric]
        steps(axis, shown, "unit", legend=axis is axes[0], order=units, hue_order=groups)
        axis.set(xlabel="meta-points per window", ylabel=title)
    axes[-1].axhline(1, color="grey", linestyle=":")
    return figure


def areas(
    table: pd.DataFrame, names: Sequence[str], groups: Sequence[str], own: Mapping[str, float]
) -> Figure:
    """mIoU over areas on a logarithmic axis, a row for each group of sets.

    Args:
        table: Rows of a results table with ``parameter``, ``share`` and ``losses``.
        names: The parameters, a column each; the first names the losses.
        groups: The groups of sets.
        own: The scale's own value of each parameter, which has a dotted line.
    """
    losses = list(dict.fromkeys(table["losses"]))
    figure, axes = plt.subplots(
        len(groups),
        len(names),
        figsize=(7, 2.9 * len(groups)),
        squeeze=False,
        layout="constrained",
    )
    for row, group in zip(axes, groups, strict=True):
        for axis, name in zip(row, names, strict=True):
            shown = table[(table["dataset"] == group) & (table["parameter"] == name)]
            sns.lineplot(
                shown,
                x="share",
                y="value",
                hue="losses",
                style="losses",
                hue_order=losses,
                style_order=losses,
                markers=True,
                errorbar="sd",
                err_style="bars",
                ax=axis,
                legend=axis is row[0],
            )
            axis.axvline(own[name], color="grey", linestyle=":")
            axis.set(xscale="log", xlabel=f"{name}, share of the image", ylabel="mIoU (%)")
            shares = sorted(shown["share"].unique())
            # The own value has the dotted line, and its label would run into its neighbour's.
            shares = [a for a, b in zip(shares, [*shares[1:], 9], strict=True) if b > 1.3 * a]
            axis.set_xticks(shares, [f"{share:g}" for share in shares])
            axis.minorticks_off()
            axis.set_title(group)
        row[0].legend(title="")
    return figure


def points(
    table: pd.DataFrame,
    line: str,
    series: str,
    *,
    xlabel: str,
    height: float = 0.5,
    apart: float = 0.22,
    names: Sequence[str] | None = None,
) -> Figure:
    """Differences with deviations or intervals, a line for each of what was compared, around 0.

    Args:
        table: Rows with ``mean``, with ``std`` or ``low`` and ``high``, and the two columns named.
        line: Column of the lines.
        series: Column of the marks, beside one another on a line.
        xlabel: What the differences are.
        height: Inches of a line.
        apart: By how much of a line the marks are apart.
        names: What the lines are called, in their order; None: as they are.
    """
    lines, titles = (list(dict.fromkeys(table[column])) for column in (line, series))
    figure, axis = plt.subplots(figsize=(7, height * len(lines) + 1.2), layout="constrained")
    for number, (title, marker) in enumerate(zip(titles, "osD^v", strict=False)):
        rows = table[table[series] == title]
        places = [lines.index(n) + apart * (number - (len(titles) - 1) / 2) for n in rows[line]]
        mean = rows["mean"].astype(float)
        if "low" in rows:
            reach = np.array([mean - rows["low"], rows["high"] - mean])
            reach = np.where(np.isfinite(reach), reach, 0)  # one seed has no interval
        else:
            reach = rows["std"].astype(float).fillna(0)
        bar = {"xerr": reach, "fmt": marker, "capsize": 3, "label": title}
        axis.errorbar(mean, places, **bar)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(lines)), names or lines)
    axis.invert_yaxis()
    axis.set_xlabel(xlabel)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def gains(table: pd.DataFrame, order: Sequence[str], groups: Sequence[str], xlabel: str) -> Figure:
    """A row of dots for each method, one dot per seed.

    Args:
        table: Rows with ``gain``, ``variant`` and ``dataset``, a group of sets.
        order: The methods.
        groups: The groups of sets.
        xlabel: What the gain is.
    """
    figure, axis = plt.subplots(figsize=(6.2, 0.42 * len(order) + 1.3), layout="constrained")
    dots = {"dodge": True, "jitter": False, "size": 6, "alpha": 0.8}
    by = {"x": "gain", "y": "variant", "hue": "dataset", "order": order, "hue_order": groups}
    sns.stripplot(table, ax=axis, **by, **dots)
    axis.axvline(0, color="black", linewidth=1)
    axis.set(xlabel=xlabel, ylabel="")
    axis.legend_.remove()
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center")
    return figure


def before_and_after(
    table: pd.DataFrame, pairs: Mapping[str, str], groups: Sequence[str]
) -> Figure:
    """A frozen method's mIoU and, joined to it, that of each seed of what was trained on it.

    Args:
        table: Rows of a results table, whose ``dataset`` is a group.
        pairs: What was trained, by the frozen method.
        groups: The groups of sets, a chart each.
    """
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(6.2, 2.3 * len(groups) + 0.4), layout="constrained", squeeze=False
    )
    for axis, group in zip(axes[:, 0], groups, strict=True):
        values = table[table["dataset"] == group].groupby("variant")["value"]
        average = values.mean()
        for place, (frozen, trained) in enumerate(pairs.items()):
            axis.plot(average[frozen], place, "o", color="C7", markersize=8)
            if trained in average:
                both = [average[frozen], average[trained]]
                axis.plot(both, [place] * 2, color="C7", zorder=0)
                seeds = values.get_group(trained)
                axis.plot(seeds, [place] * len(seeds), "o", color="C0", alpha=0.7)
        axis.set_yticks(range(len(pairs)), map(worded, pairs))
        axis.set_ylim(len(pairs) - 0.5, -0.5)
        axis.set_title(group)
    axes[-1, 0].set_xlabel("mIoU (%), pixel")
    handles = [
        plt.Line2D([], [], marker="o", color=colour, linestyle="none", label=label)
        for colour, label in (("C7", "frozen"), ("C0", "with MGCA's decoder, a dot per seed"))
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def losses(table: pd.DataFrame, *, smooth: int = 0, height: float = 5) -> Figure:
    """The total loss and that of each level over the steps, four charts.

    Args:
        table: Columns ``step``, ``total``, those of ``object``, ``region`` and ``pixel`` that were
            trained, and ``seed`` where there are several runs.
        smooth: Steps over which a mean is drawn above the single run; 0 for several runs.
        height: Inches.
    """
    names = ["total", "object", "region", "pixel"]
    table = table.assign(**{name: 0.0 for name in names if name not in table})  # switched off
    figure, axes = plt.subplots(2, 2, figsize=(6.8, height), sharex=True, layout="constrained")
    for axis, name in zip(axes.flat, names, strict=True):
        if smooth:
            run = table.set_index("step")[name]
            axis.plot(run, color="C0", alpha=0.35)
            axis.plot(run.rolling(smooth, min_periods=1, center=True).mean(), color="C0")
        else:
            by = {"x": "step", "y": name, "hue": "seed", "palette": "colorblind"}
            sns.lineplot(table, **by, legend=name == "total", ax=axis)
        axis.set(title=name, ylabel="loss")
    for axis in axes[1]:
        axis.set_xlabel("step")
    return figure


def threshold_curves(
    curves: pd.DataFrame, units: Mapping[str, str], threshold: float, temperature: float
) -> Figure:
    """mIoU over the threshold of the background, variants by units, a line per temperature.

    Args:
        curves: Columns ``variant``, ``unit``, ``threshold``, ``temperature`` and ``miou``.
        units: Title by unit.
        threshold: The one in use, which has a dot.
        temperature: The one in use, among those of the curves; its line is thick.
    """
    variants = curves["variant"].unique()
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
                sizes={t: 2.5 if t == temperature else 1.2 for t in colours},
                legend=axis is axes[0, 0],
                errorbar=None,
                ax=axis,
            )
            near = own[own["temperature"] == temperature].set_index("threshold")["miou"]
            at = near.index[abs(near.index - threshold).argmin()]
            axis.plot(at, near[at], "o", color="black", markersize=8, zorder=5)
            axis.set_title(f"{variant}, {units[unit]}")
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
