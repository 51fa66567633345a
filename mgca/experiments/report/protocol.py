"""What the table of the protocol says: its findings in words, parts of it, and its figure."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from mgca.evaluation.conventions import TCL_PROTOCOL
from mgca.evaluation.evaluate import PIXEL
from mgca.experiments.knobs import USUAL
from mgca.experiments.protocol_rows import over_seeds, spread, turned_around


def findings(table: pd.DataFrame, unit: str) -> str:
    """Which knobs move most, how far beside the methods, and how often their order turns.

    Args:
        table: As :func:`mgca.experiments.protocol_rows.read_protocol` reads it.
        unit: Name of the unit that the first two are of.

    Returns:
        Three points as Markdown.
    """
    moved, methods = _moved(table, unit)
    mean = moved.mean(axis=1).groupby("knob").mean().sort_values(ascending=False)
    most = ", ".join(f"{knob} ({points:.1f})" for knob, points in mean.head(3).items())
    still = ", ".join(mean[mean < 0.5].index) or "none"
    largest = moved.stack().sort_values(ascending=False)
    _, knob, method = largest.index[0]
    turned = turned_around(table).assign(share=lambda t: t["turned"] / t["pairs"])
    pairs, changed = turned["pairs"].sum(), turned["turned"].sum()
    often = turned.loc[turned["share"].idxmax()]
    return (
        f"* The knobs that move most, in points of mIoU, mean over sets and methods: {most}. "
        f"Less than half a point: {still}.\n"
        f"* With all knobs as usual the methods are {methods:.1f} points apart. The largest move "
        f"of one of them is {largest.iloc[0]:.1f}: {knob}, of {method}.\n"
        f"* Of {pairs:,} pairs of methods, {changed:,} change places ({changed / pairs:.0%}), "
        f"most often with {often['knob']} "
        f"({often['share']:.0%})."
    )


def _moved(table: pd.DataFrame, unit: str) -> tuple[pd.DataFrame, float]:
    """How far each knob moves each method on each set, and how far methods are apart, the mean."""
    moved = spread(table).xs(unit, level="unit")
    return moved, moved.pop("methods").groupby("dataset").first().mean()


def prepared(table: pd.DataFrame, unit: str) -> pd.DataFrame:
    """What each of TCL's three choices changes, a line for each knob and set, means over methods.

    Args:
        table: As :func:`findings` takes it.
        unit: Name of the unit.
    """
    table = over_seeds(table)
    part = table[table["knob"].isin(TCL_PROTOCOL) & (table["unit"] == unit)]
    part = part.assign(largest=part["difference"].abs())
    found = part.groupby(["knob", "dataset"]).agg(
        {"changed": "mean", "difference": "mean", "largest": "max"}
    )
    names = ["% of labels changed", "mIoU, mean", "mIoU, largest"]
    return found.round(2).set_axis(names, axis=1)


def affinity(table: pd.DataFrame) -> pd.DataFrame:
    """mIoU of each method by its own map and by the other, a line for each set and unit.

    Args:
        table: As :func:`findings` takes it.
    """
    table = over_seeds(table)
    part = table[table["knob"].isin([USUAL, "affinity"]) & (table["unit"] != PIXEL)]
    part = part.assign(map=part["knob"].map({USUAL: "own", "affinity": "other"}))
    return part.pivot(index=["dataset", "unit"], columns=["method", "map"], values="miou").round(1)


def choices(table: pd.DataFrame) -> dict[str, Any]:
    """The data of a figure of the kind ``"ablation"``: a reader turns a knob, and sees all methods.

    Args:
        table: As :func:`findings` takes it.
    """
    means = over_seeds(table)
    usual, turned = means[means["knob"] == USUAL], means[means["knob"] != USUAL]
    places = {column: list(means[column].unique()) for column in ("dataset", "unit", "method")}
    shown, rows = [], []
    for number, (knob, part) in enumerate(turned.groupby("knob", sort=False)):
        ticks = [USUAL, *part["value"].unique()]
        series = [{"name": name, "paper": False} for name in places["method"]]
        shown.append({"title": knob, "axis": knob, "ticks": ticks, "series": series})
        for each in pd.concat([usual, part]).itertuples():
            at = [places[column].index(getattr(each, column)) for column in places]
            std = None if pd.isna(each.std) else round(each.std, 3)
            place = [number, *at, ticks.index(each.value)]
            rows.append([*place, round(each.miou, 3), std, each.seeds])
    metrics = [f"mIoU (%), unit {unit}" for unit in places["unit"]]
    figure = {"what": "Knob", "ablations": shown, "datasets": places["dataset"]}
    return figure | {"metrics": metrics, "rows": rows}


def draw_spread(table: pd.DataFrame, unit: str) -> Figure:
    """A line for each knob: how far it moves each method, the mean over the sets; dashed, how far
    the methods are apart.

    Args:
        table: As :func:`findings` takes it.
        unit: Name of the unit.
    """
    moved, apart = _moved(table, unit)
    mean = moved.groupby("knob").mean()
    mean = mean.loc[mean.mean(axis=1).sort_values().index]
    figure, axis = plt.subplots(figsize=(7, 0.32 * len(mean) + 1.2), layout="constrained")
    for place, method in enumerate(mean):
        marker = "osD^v<>P"[place % 8]
        axis.plot(mean[method], range(len(mean)), marker, label=method, alpha=0.75)
    axis.axvline(apart, color="0.4", linestyle="--", label="between methods")
    axis.set_yticks(range(len(mean)), mean.index)
    axis.set_xlabel("points of mIoU")
    axis.legend(fontsize="small")
    return figure
