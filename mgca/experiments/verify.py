"""``make verify``: compute a part of the published results from nothing, and compare.

The part is Table 4 of the first seed at the scenes scale: the world is drawn, the frozen features
computed, the decoder trained with all three losses, and the three sets evaluated with every number
of meta-points. Nothing of an earlier run is used but the small CLIP's weights.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mgca.evaluation.results import read_results, read_run
from mgca.experiments import load_scale
from mgca.experiments.runner import run_ablation
from mgca.utils.provenance import provenance

TABLE = "meta_points"
SCALE = "scenes"
_KEY = ["variant", "dataset", "unit", "seed", "metric"]


class Mismatch(AssertionError):
    """Recomputed numbers are not the published ones."""


def compare(published: pd.DataFrame, computed: pd.DataFrame) -> pd.DataFrame:
    """Both values of each row, and their absolute difference.

    Raises:
        Mismatch: If the published table has no such run, or lacks rows of it.
    """
    runs = set(computed["run"])
    there = published[published["run"].isin(runs)]
    if there.empty:
        raise Mismatch(
            f"the published table has no run {', '.join(sorted(runs))}: the configuration or the "
            "drawing of the scenes has changed since it was made"
        )
    both = there.merge(computed, on=_KEY, how="outer", suffixes=(" published", " computed"))
    if both[["value published", "value computed"]].isna().any(axis=None):
        raise Mismatch("the published table and the computed one do not have the same rows")
    both["difference"] = (both["value published"] - both["value computed"]).abs()
    return both[[*_KEY, "value published", "value computed", "difference"]]


def same_kind(record: dict) -> bool:
    """Whether a run was made on this kind of machine, with these versions of the packages."""
    here = provenance({}, seed=0, data={}, seconds=0)
    return all(record[key] == here[key] for key in ("device", "environment"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print the differences, and fail if they are too large."""
    parser = argparse.ArgumentParser(prog="python -m mgca.experiments.verify", description=__doc__)
    parser.add_argument("--out", default=f"results/{SCALE}", help="the published results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--tolerance", type=float, default=1.0, help="mIoU points allowed on other machines"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    published = read_results(Path(given.out) / f"{TABLE}.csv")
    with tempfile.TemporaryDirectory(prefix="mgca-verify-") as folder:
        scale = load_scale(SCALE, cache=Path(folder) / "cache")
        computed = run_ablation(
            TABLE, scale, [given.seed], out=Path(folder) / "out", work=Path(folder) / "work"
        )
    table = compare(published, computed)
    shown = table[table["metric"] == "miou"]
    print(shown.drop(columns=["variant", "seed", "metric"]).to_string(index=False))
    identical = same_kind(read_run(given.out, computed["run"].iloc[0]))
    # Counts of components have another scale than percentages; they are compared where bits are.
    judged, allowed = (table, 0.0) if identical else (shown, given.tolerance)
    worst = judged["difference"].max()
    kind = "the kind of machine" if identical else "another kind of machine than the one"
    print(f"This is {kind} that made the results: allowed {allowed:g}, largest {worst:g}.")
    if worst > allowed:
        raise Mismatch(f"a number differs by {worst:g}, more than {allowed:g}")


if __name__ == "__main__":
    main()
