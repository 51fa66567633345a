"""The two figures of the page to handle: their data, and the pictures where no script runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mgca.experiments.report import overlays
from mgca.experiments.report.page import Page
from mgca.experiments.report.words import worded

#: Sets of the scenes, and the average of the paper that stands beside each.
DATASETS = {"things": "avg_with_bg", "scenes": "avg_without_bg", "open": None}
METRICS = {
    "miou": "mIoU (%)",
    "accuracy": "pixel accuracy (%)",
    "boundary_iou": "boundary IoU (%)",
    "components": "regions / those of the mask",
}
_UNITS = {"pixel": "pixel", "36": "36 units"}
_PAPER = "the paper, other data"
_LEVELS = ["baseline", "maskclip", "object", "region", "pixel", "object+region", "all"]


def window(photo: np.ndarray) -> Image.Image:
    """The square in the middle of a photograph (H, W, 3), at the size of a window."""
    return overlays.square(photo).resize((448, 448))


def word_maps(
    title: str, photo: Image.Image, words: Sequence[str], maps: Mapping[str, Tensor]
) -> dict[str, Any]:
    """A photograph of a figure of the kind ``"similarity"``.

    Args:
        title: What it shows.
        photo: The photograph.
        words: K words.
        maps: (K, H, W) cosines by the name of the unit.
    """
    low = min(each.min().item() for each in maps.values())
    high = max(each.max().item() for each in maps.values())
    steps = {  # in 256 steps, which is finer than the two decimals shown
        name: ((each - low) / (high - low) * 255).round().byte().numpy()
        for name, each in maps.items()
    }
    shown = {"title": title, "picture": photo, "words": words, "low": low, "high": high}
    return shown | {"maps": steps}


def draw_word_maps(photograph: Mapping[str, Any], unit: str) -> Figure:
    """A photograph and the maps of its eight words.

    Args:
        photograph: As :func:`word_maps` gives it.
        unit: Name of the unit.
    """
    figure, axes = plt.subplots(3, 3, figsize=(7, 7.4), layout="constrained")
    pictures = [photograph["picture"], *photograph["maps"][unit]]
    titles = ["photograph", *photograph["words"]]
    for axis, drawn, title in zip(axes.flat, pictures, titles, strict=True):
        limits = {"vmin": 0, "vmax": 255} if title != "photograph" else {}
        shown = axis.imshow(drawn, **limits)
        axis.set_title(title)
        axis.axis("off")
    bar = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.6, label="cosine similarity")
    bar.set_ticks([0, 255], labels=[f"{photograph[end]:.2f}" for end in ("low", "high")])
    return figure


def compared(title: str, words: Sequence[str], single: Tensor, joint: Tensor) -> str:
    """How often the last word, which is absent, is the best, and what units change, in words.

    Args:
        title: What the photograph shows.
        words: K words.
        single: (K, H, W) cosines of the pixels.
        joint: The same of their units.
    """
    best = single.argmax(dim=0)
    absent = 100 * (best == len(words) - 1).float().mean()
    changed = 100 * (best != joint.argmax(dim=0)).float().mean()
    ahead, behind = single.topk(2, dim=0).values
    return (
        f"* {title}: *{words[-1]}*, which is not there, is the best word of {absent:.0f} % of the "
        f"pixels. The best word leads the second by {(ahead - behind).mean():.3f} on average. With "
        f"meta-points {changed:.0f} % of the pixels change their best word."
    )


@dataclass(frozen=True)
class _Ablation:
    """An ablation of the figure: its lines have ``tick`` and ``series``."""

    title: str
    axis: str
    lines: pd.DataFrame
    ticks: list[str]
    paper: pd.DataFrame | None = None

    @property
    def series(self) -> list[str]:
        return list(self.lines["series"].unique())


def _named(table: pd.DataFrame, pattern: str, rest: Mapping[str, str]) -> pd.DataFrame:
    """The lines whose variant matches, with the value as tick, unit and rest as series."""
    found = table["variant"].str.extract(pattern)
    series = found[1].fillna("").map(rest) + table["unit"].map(_UNITS)
    return table.assign(tick=found[0], series=series)[found[0].notna()]


def _ablations(page: Page) -> list[_Ablation]:
    """Levels and meta-points with the paper's numbers; ranks and areas."""
    names = ("granularity", "meta_points", "areas", "k")
    tables = {name: page.read(f"scenes/{name}.csv") for name in names}
    levels, units = page.paper("table3.csv"), page.paper("table4.csv")
    trained = levels[["object", "region", "pixel"]].astype(bool)
    ticks = ["+".join(trained.columns[row]) or "baseline" for row in trained.to_numpy()]
    levels["tick"] = [{"object+region+pixel": "all"}.get(name, name) for name in ticks]
    units["tick"] = units["meta_points"].astype(str).replace("3136", "pixel")
    points = tables["meta_points"].assign(series="MGCA", tick=tables["meta_points"]["unit"])
    fewest = [*sorted(set(points["tick"]) - {"pixel"}, key=int), "pixel"]
    found = [
        _Ablation(
            "Levels of alignment",
            "trained with",
            _named(tables["granularity"], r"^([a-z+]+)()$", {"": ""}),
            _LEVELS,
            levels,
        ),
        _Ablation("Number of meta-points", "meta-points per window", points, fewest, units),
    ]
    without = {"": "all levels, ", ",no pixel": "no pixel level, "}
    for title, source, name, of, rest in (
        ("Rank of the positive pixel, k", "k", "k", "object", {"": ""}),
        ("Rank of the negative pixel, k_neg", "k", "k_neg", "object", {"": ""}),
        ("Area of the object, alpha", "areas", "alpha", "image", {"": ""}),
        ("Area of the negative region, alpha_neg", "areas", "alpha_neg", "image", without),
    ):
        ending = "(,no pixel)?" if rest is without else "()"
        lines = _named(tables[source], rf"^{name}=([\d.]+){ending}$", rest)
        ticks = sorted(lines["tick"].unique(), key=float)
        found.append(_Ablation(title, f"{name}, share of the {of}", lines, ticks))
    return found


def ablations(page: Page) -> dict[str, Any]:
    """The data of a figure of the kind ``"ablation"``: the ablations on scenes.

    Args:
        page: The page that shows it.
    """
    shown, rows = [], []
    for number, each in enumerate(_ablations(page)):
        series = [{"name": name, "paper": False} for name in each.series]
        series += [] if each.paper is None else [{"name": _PAPER, "paper": True}]
        ticks = [worded(tick) for tick in each.ticks]
        parts = {"title": each.title, "axis": each.axis, "ticks": ticks}
        shown.append(parts | {"series": series})
        rows += [[number, *row] for row in (*_measured(each), *_published(each))]
    metrics = list(METRICS.values())
    return {"ablations": shown, "datasets": list(DATASETS), "metrics": metrics, "rows": rows}


def _measured(each: _Ablation) -> list[list[Any]]:
    rows, datasets = [], list(DATASETS)
    for place, metric in enumerate(METRICS):
        lines = each.lines[each.lines["metric"] == metric]
        grouped = lines.groupby(["dataset", "series", "tick"])["value"]
        found = grouped.agg(["mean", "std", "count", "nunique"])
        for (dataset, name, tick), value in found.iterrows():
            at = [datasets.index(dataset), place, each.series.index(name), each.ticks.index(tick)]
            # Where nothing is trained all seeds agree, and there is no spread to speak of.
            std = _rounded(value["std"]) if value["nunique"] > 1 else None
            rows.append([*at, _rounded(value["mean"]), std, int(value["count"])])
    return rows


def _published(each: _Ablation) -> list[list[Any]]:
    if each.paper is None:
        return []
    lines = each.paper[each.paper["tick"].isin(each.ticks)]
    return [
        [which, 0, len(each.series), each.ticks.index(line["tick"])]
        + [_rounded(line[column]), None, 1]
        for which, column in enumerate(DATASETS.values())
        if column
        for _, line in lines.iterrows()
    ]


def _rounded(value: float) -> float | None:
    """As JSON has it: None for the missing deviation of a single number."""
    return None if pd.isna(value) else round(float(value), 3)


def draw_ablations(data: Mapping[str, Any]) -> Figure:
    """mIoU on the set ``scenes`` of every ablation.

    Args:
        data: As :func:`ablations` gives it.
    """
    shown = data["ablations"]
    figure, axes = plt.subplots(len(shown) // 2, 2, figsize=(7, 8.4), layout="constrained")
    for number, (axis, own) in enumerate(zip(axes.flat, shown, strict=True)):
        for place, one in enumerate(own["series"]):
            line = sorted(row for row in data["rows"] if row[:4] == [number, 1, 0, place])
            axis.errorbar(
                [row[4] for row in line],
                [row[5] for row in line],
                [row[6] or 0 for row in line],
                fmt="s--" if one["paper"] else "o-",
                color="0.5" if one["paper"] else f"C{place}",
                label=one["name"],
            )
        axis.set_title(own["title"])
        axis.set_xticks(range(len(own["ticks"])), own["ticks"], rotation=40, ha="right")
    axes[0, 0].legend()
    axes[-1, -1].set_ylim(bottom=26)  # room for the names
    axes[-1, -1].legend(loc="lower right")
    for axis in axes[:, 0]:
        axis.set_ylabel("mIoU (%)")
    return figure
