"""Every published number by its name: ``scenes/k/k=0/1/things/pixel/miou``.

A name is the path to a row: folder below ``results``, table, variant, seed, set, unit, metric. What
is left off at the end means all that is below: ``scenes/k`` is a table, ``scenes`` a scale. A run
is named by its hash, and a figure by its label in the book.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mgca.evaluation.evaluate import SECONDS
from mgca.experiments import protocol_rows, thresholds

COLUMNS = [
    "name",
    "folder",
    "table",
    "variant",
    "seed",
    "dataset",
    "unit",
    "metric",
    "value",
    "run",
]
_PATH = ["folder", "table", "variant", "seed", "dataset", "unit", "metric"]
# Their numbers are seconds, bytes and images a second of one machine on one day, and what one
# browser computes.
_MEASURED_ONCE = ("speed", "shards", "soak", "browser")


def published_rows(results: str | os.PathLike) -> pd.DataFrame:
    """All rows of all tables that this project measured.

    Args:
        results: The folder ``results`` of a clone.

    Returns:
        Columns ``COLUMNS``. A point of a curve of thresholds has the metric ``miou at
        TEMPERATURE, THRESHOLD``, and of a knob of the protocol ``miou with KNOB at VALUE``. The
        paper's tables are not among them: they have no runs.

    Raises:
        FileNotFoundError: If there is no table.
    """
    parts = []
    for path in sorted(Path(results).glob("*/*.csv")):
        table = pd.read_csv(path, dtype={"variant": str, "dataset": str, "unit": str, "run": str})
        if "run" not in table:
            continue
        for kind in (protocol_rows, thresholds):
            if list(table.columns) == kind.COLUMNS:
                table = kind.as_rows(table)
        parts.append(table.assign(folder=path.parent.name, table=path.stem))
    if not parts:
        raise FileNotFoundError(f"no tables in {results}: go to the folder of a clone")
    rows = pd.concat(parts, ignore_index=True)
    parts_of_names = (rows[column].astype(str) for column in _PATH)
    rows["name"] = ["/".join(path) for path in zip(*parts_of_names, strict=True)]
    return rows[COLUMNS]


def timed(rows: pd.DataFrame) -> pd.Series:
    """Which rows are times, memory or speeds: another day gives others."""
    return (rows["metric"] == SECONDS) | rows["folder"].isin(_MEASURED_ONCE)


def select(rows: pd.DataFrame, names: Sequence[str], project: str | os.PathLike) -> pd.DataFrame:
    """The rows that some names mean.

    Args:
        rows: As :func:`published_rows` gives them.
        names: Paths of rows or their beginnings, files such as ``results/scenes/k.csv``, runs, or
            labels of figures.
        project: Folder of the clone, whose executed notebooks say what a figure rests on.

    Raises:
        ValueError: If a name means nothing.
    """
    chosen = pd.Series(False, index=rows.index)
    for name in names:
        if name.startswith("fig-"):
            found = rows["folder"].str.cat(rows["table"], "/").isin(tables_of_figure(name, project))
        else:
            path = name.removeprefix("results/").rstrip("/").replace(".csv", "", 1)
            found = (rows["name"] == path) | rows["name"].str.startswith(f"{path}/")
            if len(path) >= 6:
                found |= rows["run"].str.startswith(path)
        if not found.any():
            tables = rows["folder"].str.cat(rows["table"], "/").unique()
            raise ValueError(
                f"nothing published is called {name!r}: give a table ({', '.join(tables)}), the "
                "beginning of a row such as scenes/k/k=0/1, a run, or a figure such as fig-k"
            )
        chosen |= found
    return rows[chosen]


def tables_of_figure(name: str, project: str | os.PathLike) -> list[str]:
    """The tables that a figure of the book rests on, as ``folder/table``.

    Raises:
        ValueError: If no executed notebook has such a figure, or it rests on no table.
    """
    folder = Path(project) / "_build" / "executed"
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", ()):
                described = output.get("metadata", {}).get("mgca", {})
                if described.get("name"):
                    tables = found.setdefault(described["name"], [])
                    tables += [described["results"]] if described.get("results") else []
    if name not in found:
        raise ValueError(f"no figure {name!r} in {folder}: make notebooks executes them")
    if not found[name]:
        raise ValueError(
            f"{name} rests on no table, its notebook computes it: make notebooks FRESH=1"
        )
    return [table.removesuffix(".csv") for table in found[name]]


def sample(rows: pd.DataFrame, number: int, seed: int) -> pd.DataFrame:
    """So many of the rows that can be computed again, drawn at random.

    Args:
        rows: Rows to draw from; times are left out.
        number: How many are drawn, all where there are fewer.
        seed: Seed of the drawing.
    """
    known = rows[~timed(rows)]
    drawn = np.random.default_rng(seed).choice(
        len(known), size=min(number, len(known)), replace=False
    )
    return known.iloc[np.sort(drawn)]
