"""The paper's Tables 1 to 4, with the rows of the paper's scale below the paper's own."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mgca.evaluation.results import summary
from mgca.experiments.paper import PaperScale
from mgca.utils.files import write_text

#: The ablation whose runs fill each table.
TABLES = {1: "main", 2: "main", 3: "granularity", 4: "meta_points"}
_WITH, _WITHOUT = PaperScale.groups.values()
#: Sets of the tables, and their means by the name of its column.
_SETS: dict[int, dict[str, Sequence[str]]] = {
    1: {"avg": _WITH},
    2: {"avg": _WITHOUT},
    3: {"avg_with_bg": _WITH, "avg_without_bg": _WITHOUT},
}
_SETS[4] = _SETS[3]
_METHODS = {"clip": "CLIP", "maskclip": "MaskCLIP", "mgca": "MGCA"}
_LEVELS = ("object", "region", "pixel")
_PIXELS = 3136  # meta-points that the paper's Table 4 writes for the pixel unit


def beside_the_papers(
    number: int, scale: PaperScale, table: pd.DataFrame, paper: pd.DataFrame | None = None
) -> pd.DataFrame:
    """A table of the paper, then ours: means over the seeds, of whole groups of sets only.

    Args:
        number: Number of the paper's table, 1 to 4.
        scale: The paper's scale.
        table: The rows of the ablation behind it, as a results table.
        paper: The paper's own numbers, from ``results/paper``; None for ours alone.

    Returns:
        A column ``source``, with the preset; those that say which line it is; one for each set, NaN
        where it was not measured; the means; ``seeds``, their number, and the largest standard
        deviation over them of a set, ``std``.
    """
    said = ", ".join(filter(None, ["here", scale.note or f"preset {scale.file.preset}"]))
    lines, miou = [], summary(table)
    for variant, unit in table[["variant", "unit"]].drop_duplicates().itertuples(index=False):
        rows = miou[(miou["variant"] == variant) & (miou["unit"] == unit)]
        line = _line(number, variant, unit)
        if line is None:
            continue
        mean = rows.set_index("dataset")["mean"].round(2)
        found: dict[str, object] = {"source": said, **line}
        for heading, sets in _SETS[number].items():
            found |= {name: mean.get(name, float("nan")) for name in sets}
            whole = all(name in mean for name in sets)
            found[heading] = round(mean[list(sets)].mean(), 2) if whole else float("nan")
        found |= {"seeds": int(rows["count"].max()), "std": round(rows["std"].max(), 2)}
        lines.append(found)
    ours = pd.DataFrame(lines)
    if paper is None:
        return ours
    theirs = paper.assign(source="the paper").drop(columns="pretrain_data", errors="ignore")
    return pd.concat([theirs, ours], ignore_index=True)[[*ours.columns]]


def _line(number: int, variant: str, unit: str) -> dict[str, object] | None:
    """The columns that say which line of a table it is; None for a line that it does not have."""
    if number <= 2:
        unit = "" if unit == "pixel" else f", {unit} units"
        # The paper's frozen rows are per pixel.
        return None if unit and variant != "mgca" else {"method": _METHODS[variant] + unit}
    if number == 3:
        named = _LEVELS if variant == "all" else variant.split("+")
        levels = {level: int(level in named) for level in _LEVELS}
        return None if unit != "pixel" else {"line": variant} | levels
    pixel = unit == "pixel"
    points = _PIXELS if pixel else int(unit)
    return {"semantic_unit": "pixel" if pixel else "ours", "meta_points": points}


def write_tables(
    scale: PaperScale, numbers: Sequence[int], found: Mapping[str, pd.DataFrame]
) -> dict[int, pd.DataFrame]:
    """Write ``table<number>.csv`` beside the results of the scale.

    Args:
        scale: The paper's scale.
        numbers: Numbers of the tables.
        found: Rows of the ablations behind them, by name.

    Returns:
        The tables by number.
    """
    tables = {}
    for number in numbers:
        table = beside_the_papers(number, scale, found[TABLES[number]], papers_own(number))
        write_text(scale.results / f"table{number}.csv", table.to_csv(index=False))
        tables[number] = table
    return tables


def papers_own(number: int, folder: str | os.PathLike | None = None) -> pd.DataFrame | None:
    """A table of the paper; None for a library that was installed without its project.

    Args:
        number: Number of the table.
        folder: Folder of the paper's tables; None: that of the clone.
    """
    places = Path(folder or Path(__file__).parents[2] / "results" / "paper")
    path = places / f"table{number}.csv"
    return pd.read_csv(path) if path.is_file() else None
