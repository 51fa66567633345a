"""Results: one tidy table per experiment, one provenance file per run.

``results/<scale>/<experiment>.csv`` has the columns of :data:`COLUMNS`;
``results/<scale>/runs/<run>.json`` says how a run came about. Both are written whole or not at all.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from mgca.utils.files import replacing, write_text

#: One row is one number, and the name of the run that it comes from.
COLUMNS = ["variant", "dataset", "unit", "seed", "metric", "value", "run"]
_KEY = COLUMNS[:5]


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A results table; empty if the file does not exist yet.

    Raises:
        ValueError: If the columns are not those of a results table.
    """
    if not Path(path).is_file():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path, dtype={"unit": str, "run": str, "variant": str, "dataset": str})
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} is not a results table: its columns are {list(table.columns)}")
    return table


def row(
    variant: str,
    dataset: str,
    unit: str,
    seed: int,
    metric: str,
    value: float,
    run: str,
    *,
    digits: int = 3,
) -> dict[str, Any]:
    """A row of a results table, by its columns.

    Args:
        variant: Name of what was measured.
        dataset: Name of the set that it was measured on.
        unit: Name of the unit, as :func:`mgca.evaluation.evaluate.unit_name` gives it.
        seed: Seed of the run that made what was measured.
        metric: Name of the number.
        value: The number, which is rounded.
        run: Name of the run, whose record says how the number came about.
        digits: Number of decimals that are kept.
    """
    return dict(
        zip(COLUMNS, (variant, dataset, unit, seed, metric, round(value, digits), run), strict=True)
    )


def add_results(
    path: str | os.PathLike[str], rows: Iterable[dict[str, Any]], *, keep_runs: bool = False
) -> pd.DataFrame:
    """Add rows to a results table; a row of the same variant, dataset, unit, seed and metric is
    replaced.

    Args:
        path: File of the table; made if it is not there.
        rows: What :func:`row` gives.
        keep_runs: Whether rows of other runs stay, whatever else they have in common.

    Returns:
        The whole table.
    """
    added = pd.DataFrame(list(rows), columns=COLUMNS).astype({"unit": str})
    present = read_results(path)
    table = pd.concat([present, added], ignore_index=True) if len(present) else added
    key = [*_KEY, "run"] if keep_runs else _KEY
    table = table.drop_duplicates(key, keep="last").sort_values(key, ignore_index=True)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
    return table


def summary(table: pd.DataFrame, metric: str = "miou") -> pd.DataFrame:
    """Mean, standard deviation and number of seeds by variant, unit and dataset."""
    chosen = table[table["metric"] == metric]
    grouped = chosen.groupby(["variant", "unit", "dataset"])["value"]
    return grouped.agg(["mean", "std", "count"]).reset_index()


def write_run(folder: str | os.PathLike[str], run: str, record: dict[str, Any]) -> Path:
    """Write ``<folder>/runs/<run>.json``."""
    path = Path(folder) / "runs" / f"{run}.json"
    write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path


def read_run(folder: str | os.PathLike[str], run: str) -> dict[str, Any]:
    """The provenance of a run.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(folder) / "runs" / f"{run}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no provenance of run {run}: {path}")
    record: dict[str, Any] = json.loads(path.read_text())
    return record
