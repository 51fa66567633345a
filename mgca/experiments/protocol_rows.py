"""The table of the protocol: its rows, and what is read from them."""

import itertools
import os
from pathlib import Path

import pandas as pd

from mgca.experiments.knobs import USUAL

COLUMNS = [
    "method", "seed", "dataset", "knob", "value", "unit",
    "miou", "difference", "low", "high", "changed", "run",
]  # fmt: skip


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """The table with one row in the place of those of several seeds.

    Means over the seeds, under ``"std"`` how far their mIoU spreads, under ``"seeds"`` their
    number. ``"low"`` and ``"high"`` are the ends of all the seeds' intervals together.
    """
    keys = ["method", "dataset", "knob", "value", "unit"]
    return (
        table.groupby(keys, sort=False)
        .agg(
            seeds=("seed", "size"),
            miou=("miou", "mean"),
            std=("miou", "std"),
            difference=("difference", "mean"),
            low=("low", "min"),
            high=("high", "max"),
            changed=("changed", "mean"),
        )
        .reset_index()
    )


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """How far each knob moves each method, in points of mIoU, of means over the seeds.

    Largest minus smallest, the usual value among them; beside it, under ``"methods"``, how far the
    methods are apart with all as usual.

    Returns:
        A line for each set, unit and knob; a column for each method.
    """
    table = over_seeds(table)
    keys = ["dataset", "unit"]
    usual, turned = table[table["knob"] == USUAL], table[table["knob"] != USUAL]
    lines = turned.groupby([*keys, "knob", "method"], sort=False)["difference"].agg(
        lambda each: max(each.max(), 0) - min(each.min(), 0)
    )
    apart = usual.groupby(keys)["miou"].agg(lambda each: each.max() - each.min())
    return lines.unstack("method").join(apart.rename("methods"))


def turned_around(table: pd.DataFrame) -> pd.DataFrame:
    """How often two methods change places when a knob is turned, by their means over seeds.

    Returns:
        Columns ``knob``, ``pairs`` and ``turned``, the number of pairs over all sets, units and
        values, and of those whose order is another one than before it was turned.
    """
    table = over_seeds(table)
    counts: dict[str, list[int]] = {}
    keys = ["knob", "value", "dataset", "unit"]
    for (knob, *_), part in table[table["knob"] != USUAL].groupby(keys, sort=False):
        now, before = part["miou"].to_numpy(), (part["miou"] - part["difference"]).to_numpy()
        for one, other in itertools.combinations(range(len(part)), 2):
            count = counts.setdefault(knob, [0, 0])
            count[0] += 1
            count[1] += bool((now[one] - now[other]) * (before[one] - before[other]) < 0)
    rows = [[knob, pairs, turned] for knob, (pairs, turned) in counts.items()]
    return pd.DataFrame(rows, columns=["knob", "pairs", "turned"])


def as_rows(table: pd.DataFrame) -> pd.DataFrame:
    """A table of the protocol with the columns of the tables of runs.

    One run has all of it, and is of seed 0. The variant is ``METHOD of seed SEED``, and the metric
    ``miou with KNOB at VALUE``.
    """
    metric = [f"miou with {row.knob} at {row.value}" for row in table.itertuples()]
    return pd.DataFrame(
        {
            "variant": table["method"] + " of seed " + table["seed"].astype(str),
            "dataset": table["dataset"],
            "unit": table["unit"],
            "seed": 0,
            "metric": metric,
            "value": table["miou"],
            "run": table["run"],
        }
    )


def part_named(name: str) -> tuple[str, int, str]:
    """Method, seed and set of ``METHOD of seed SEED/SET``, as :func:`as_rows` names them."""
    variant, data = name.rsplit("/", 1)
    method, seed = variant.rsplit(" of seed ", 1)
    return method, int(seed), data


def read_protocol(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """The table that a results folder holds; no rows if there is none."""
    path = Path(folder) / "protocol.csv"
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path, dtype={"value": str, "unit": str})
