"""``mgca experiment verify``: compute a part of the published results from nothing, and compare.

The part is Table 4 of the first seed at the scenes scale: the world is drawn, the frozen features
computed, the decoder trained with all three losses, and the three sets evaluated with every number
of meta-points. Nothing of an earlier run is used but the small CLIP's weights.
"""

import os
import tempfile
from pathlib import Path

import pandas as pd

from mgca.evaluation.results import read_results, read_run
from mgca.experiments import load_scale
from mgca.experiments.runner import run_ablation
from mgca.utils.provenance import provenance

TABLE = "meta_points"
SCALE = "scenes"
_KEY = ["variant", "dataset", "unit", "seed", "metric"]


class Mismatch(ValueError):
    """Recomputed numbers are not the published ones."""


def compare(published: pd.DataFrame, computed: pd.DataFrame) -> pd.DataFrame:
    """A table of both values of each row, published and computed, and their absolute difference.

    Raises:
        Mismatch: If the published table has no such run, or lacks rows of it.
    """
    runs = set(computed["run"])
    of_runs = published[published["run"].isin(runs)]
    if of_runs.empty:
        raise Mismatch(
            f"the published table has no run {', '.join(sorted(runs))}: the configuration or the "
            "drawing of the scenes has changed since it was made"
        )
    both = of_runs.merge(computed, on=_KEY, how="outer", suffixes=(" published", " computed"))
    if both[["value published", "value computed"]].isna().any(axis=None):
        raise Mismatch("the published table and the computed one do not have the same rows")
    both["difference"] = (both["value published"] - both["value computed"]).abs()
    return both[[*_KEY, "value published", "value computed", "difference"]]


def same_kind(record: dict) -> bool:
    """Whether a run was made on this kind of machine, with these versions of the packages."""
    this_machine = provenance({}, seed=0, data={}, seconds=0)
    return all(record[key] == this_machine[key] for key in ("device", "environment"))


def recompute(published: str | os.PathLike, seed: int = 0) -> tuple[pd.DataFrame, bool]:
    """Compute a part of the results from nothing, and compare it with the published one.

    Args:
        published: Results folder of the scale.
        seed: Seed of the runs.

    Returns:
        What :func:`compare` gives, and whether the results were made on this kind of machine.

    Raises:
        Mismatch: As :func:`compare` does.
        FileNotFoundError: If there is no such table.
    """
    path = Path(published) / f"{TABLE}.csv"
    if not path.is_file():
        raise FileNotFoundError(f"no published table {path}: go to the folder of a clone")
    table = read_results(path)
    with tempfile.TemporaryDirectory(prefix="mgca-verify-") as folder:
        scale = load_scale(SCALE, cache=Path(folder) / "cache")
        computed = run_ablation(
            TABLE, scale, [seed], out=Path(folder) / "out", work=Path(folder) / "work"
        )
    both = compare(table, computed)
    return both, same_kind(read_run(published, computed["run"].iloc[0]))


def judge(both: pd.DataFrame, identical: bool, tolerance: float) -> str:
    """A sentence on the largest difference.

    Args:
        both: Both values of each row, as :func:`recompute` gives them.
        identical: Whether all bits have to be the same.
        tolerance: Difference, in points of mIoU, that is allowed where they have not.

    Raises:
        Mismatch: If a number differs by more.
    """
    # Counts of components have another scale than percentages; they are compared where bits are.
    judged, allowed = (both, 0.0) if identical else (both[both["metric"] == "miou"], tolerance)
    worst = judged["difference"].max()
    if worst > allowed:
        raise Mismatch(f"a number differs by {worst:g}, more than {allowed:g}")
    kind = "the kind of machine" if identical else "another kind of machine than the one"
    return f"This is {kind} that made the results: allowed {allowed:g}, largest {worst:g}."
