"""Whether the published numbers are what the records say, and what the code gives: ``mgca verify``.

Two levels. :func:`inconsistencies` holds tables against the records of their runs: each row stands
in both, each run is named by its configuration, and no row of a record is missing. It takes seconds
and computes nothing; it finds a changed digit where a number is kept twice, and says nothing about
whether the code gives it. :func:`verify` computes the runs behind rows again from nothing and
compares table, record and computation.
"""

import datetime
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mgca.evaluation.results import read_run
from mgca.experiments import load_scale
from mgca.experiments.grid import ABLATIONS
from mgca.experiments.recompute import (
    Outcome,
    Target,
    code_state,
    is_named_by_configuration,
    measured,
    targets,
)
from mgca.experiments.rows import published_rows, timed
from mgca.experiments.runner import missing, table_rows
from mgca.utils.provenance import provenance

#: Computes runs again, as :func:`mgca.experiments.recompute.recompute` does.
Recompute = Callable[[Mapping[tuple[str, str], Target]], Mapping[tuple[str, str], Outcome]]
# What of a record the numbers depend on besides the configuration.
_CAUSES = ("config", "seed", "data", "background")
_KIND = ("instructions", "blas", "kernels")
_TITLE = 60  # characters of what was asked for that a title takes
_KEY = ["variant", "seed", "dataset", "unit", "metric"]


class Mismatch(ValueError):
    """Published numbers are not the ones of their records, or of the code."""


def inconsistencies(results: str | os.PathLike) -> list[str]:
    """What does not agree among tables and records, a line each; empty where all agrees.

    Curves of thresholds, times and the small CLIP's accuracy stand in their table alone: of these
    only the run's record is looked for.

    Args:
        results: The folder ``results`` of a clone.

    Raises:
        FileNotFoundError: If there is no table.
    """
    rows = published_rows(results)
    records, found = {}, []
    for (folder, run), part in rows.groupby(["folder", "run"], sort=False):
        try:
            record = records[folder, run] = read_run(Path(results) / folder, run)
        except (FileNotFoundError, ValueError) as error:
            found.append(f"{part['name'].iloc[0]}: {error}")
            continue
        if not is_named_by_configuration(record, run):
            found.append(f"{folder}/runs/{run}.json: its configuration has another name")
        found += [
            f"{name}: the seed of run {run} is {record['seed']}"
            for name in part.loc[part["seed"] != record["seed"], "name"]
        ]
    doubled = rows[rows["name"].duplicated()]
    found += [f"{name}: stands there twice" for name in doubled["name"]]
    for folder, part in rows.groupby("folder", sort=False):
        found += _against_records(Path(results) / folder, part, records)
    return found


def _against_records(
    folder: Path, rows: pd.DataFrame, records: Mapping[tuple[str, str], Mapping]
) -> list[str]:
    """What of the tables of a scale is not what its records give."""
    try:
        scale = load_scale(folder.name)
    except ValueError:  # no scale: times
        return []
    found = []
    for ablation in ABLATIONS:
        table = rows[(rows["table"] == ablation) & ~timed(rows)]
        table = table[
            [bool(records.get((folder.name, r), {}).get("measured")) for r in table["run"]]
        ]
        if table.empty:  # not run, or of records that keep no numbers
            continue
        # A seed that was dropped as a whole has its records still.
        others = [int(seed) for seed in {*rows["seed"]} - {*table["seed"]}]
        complete = [seed for seed in others if not missing(ablation, scale, [seed], folder)]
        seeds = sorted({*table["seed"], *complete})
        path = f"{folder.name}/{ablation}"
        expected = {
            "/".join([path, *(str(row[key]) for key in _KEY)]): (row["value"], row["run"])
            for row in table_rows(ablation, scale, seeds, folder)
        }
        there = dict(
            zip(table["name"], zip(table["value"], table["run"], strict=True), strict=True)
        )
        for row in expected.keys() | there.keys():
            if row not in there:
                found.append(f"{row}: the record of run {expected[row][1]} has it, the table not")
            elif row not in expected:
                found.append(f"{row}: the table has it, no record of the grid does")
            elif expected[row] != there[row]:
                (value, run), (shown, shown_run) = expected[row], there[row]
                found.append(
                    f"{row}: {shown:g} of run {shown_run} in the table, {value:g} of run {run} in "
                    "the records"
                )
    return sorted(found)


def verify(
    results: str | os.PathLike,
    rows: pd.DataFrame,
    recompute: Recompute,
    *,
    asked: str = "",
    cores: int = 1,
) -> dict[str, Any]:
    """Compute the runs behind some rows again, and compare all that these runs measured.

    Args:
        results: The folder ``results`` of a clone.
        rows: Rows of :func:`mgca.experiments.rows.published_rows`.
        recompute: Computes runs again.
        asked: What was asked for, to be told in the report.
        cores: Threads of a run.

    Returns:
        A report, JSON data: what was compared, how far it was off, and what was not compared and
        why.
    """
    began = time.perf_counter()
    every = published_rows(results)
    left_out = {"times, memory and speeds": int(timed(rows).sum())}
    rows = rows[~timed(rows)]
    ways = targets(rows)
    outcomes = recompute(ways)
    compared, runs = [], []
    for key, part in rows.groupby(["folder", "run"], sort=False):
        outcome = outcomes.get(key, "no configuration of the present code has this name")
        if isinstance(outcome, str):
            left_out[outcome] = left_out.get(outcome, 0) + len(part)
            continue
        of_run = every[(every["folder"] == key[0]) & (every["run"] == key[1]) & ~timed(every)]
        values, now = outcome
        part = ways[key].table == "protocol"  # of which only what was asked for is computed
        if part:
            of_run = of_run[(of_run["variant"] + "/" + of_run["dataset"]).isin(ways[key].parts)]
        record = read_run(Path(results) / key[0], key[1])
        pairs = _compared(key, of_run, record, values, now, part=part)
        compared.append(pairs)
        runs.append(
            {
                "run": "/".join(key),
                "rows": len(pairs),
                "identical": int((pairs["difference"] == 0).sum()),
                "largest_miou": _largest(pairs),
                "same_kind": same_kind(record, now),
                "seconds": now["seconds"],
            }
        )
    none = pd.DataFrame(columns=["name", "published", "computed", "difference", "metric"])
    pairs = pd.concat(compared, ignore_index=True) if compared else none
    differing = pairs[pairs["difference"] != 0]
    here = provenance({}, seed=0, data={}, seconds=time.perf_counter() - began)
    return {
        "asked": asked,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "code": code_state(),
        **{key: here[key] for key in ("commit", "device", "machine", "environment", "seconds")},
        "threads": cores,
        "rows": len(pairs),
        "identical": len(pairs) - len(differing),
        "largest_miou": _largest(pairs),
        "mean_miou": _mean(pairs),
        "left_out": {reason: number for reason, number in left_out.items() if number},
        "differences": differing.drop(columns="metric")
        .astype(object)
        .where(differing.notna(), None)
        .to_dict("records"),
        "runs": runs,
    }


def _compared(
    key: tuple[str, str],
    rows: pd.DataFrame,
    record: Mapping[str, Any],
    values: Mapping[tuple[str, str, str], float],
    now: Mapping[str, Any],
    *,
    part: bool,
) -> pd.DataFrame:
    """Every number that tables and record of a run, or a part, have, beside what was computed."""
    folder, run = key
    path = f"{folder}/runs/{run}.json"
    pairs = []
    for row in rows.itertuples():
        # A run of a grid is of one variant, by whatever names; others hold several.
        dataset = row.dataset if "measured" in now else f"{row.variant}/{row.dataset}"
        pairs.append((row.name, row.value, values.get((dataset, row.unit, row.metric)), row.metric))
    kept = measured(record)
    for place in kept.keys() | (values.keys() if kept else ()):
        name = "/".join([path, *place])
        pairs.append((name, kept.get(place), values.get(place), place[2]))
    table = pd.DataFrame(pairs, columns=["name", "published", "computed", "metric"])
    table["difference"] = (table["published"] - table["computed"]).abs().round(9)
    # No number depends on the background's threshold where no set has a background.
    for cause in [cause for cause in _CAUSES if cause != "background" or cause in now]:
        if not _same(now.get(cause), record.get(cause), part=part):
            table.loc[len(table)] = [f"{path}/{cause}", None, None, cause, None]
    return table


def _same(now: Any, published: Any, *, part: bool) -> bool:
    """Whether a run was made as a published one, or as the part of it that was computed."""
    if part and isinstance(now, dict) and isinstance(published, dict):
        return all(k in published and _same(v, published[k], part=True) for k, v in now.items())
    if part and isinstance(now, list) and isinstance(published, list):
        return all(value in published for value in now)
    return bool(now == published)


def _of_miou(pairs: pd.DataFrame) -> pd.Series:
    return pairs.loc[pairs["metric"].str.startswith("miou"), "difference"].dropna()


def _largest(pairs: pd.DataFrame) -> float:
    found = _of_miou(pairs)
    return float(found.max()) if len(found) else 0.0


def _mean(pairs: pd.DataFrame) -> float:
    found = _of_miou(pairs)
    return round(float(found.mean()), 4) if len(found) else 0.0


def same_kind(record: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether two records were made on one kind of machine, with the same versions of packages.

    A kind is the processor's name, the instructions that PyTorch uses, the library of its matrix
    products and its kernel, and the number of threads. What an old record does not say is taken to
    be the same.

    Args:
        record: The record of a published run.
        here: The record of the run that was computed again.
    """
    kinds = record.get("machine", {}), here["machine"]
    return (
        record["device"].split(", ")[0] == here["device"].split(", ")[0]
        and record["environment"] == here["environment"]
        and record["threads"] == here["threads"]
        and all(kinds[0].get(part, kinds[1][part]) == kinds[1][part] for part in _KIND)
    )


def measured_spread(results: str | os.PathLike) -> float | None:
    """The largest difference in mIoU that was measured between kinds of machines, in points.

    Args:
        results: The folder ``results``; reports of other kinds lie in its folder ``verify``.

    Returns:
        None where nothing was measured.
    """
    reports = [json.loads(path.read_text()) for path in Path(results).glob("verify/*.json")]
    spreads = [
        run["largest_miou"] for report in reports for run in report["runs"] if not run["same_kind"]
    ]
    return max(spreads, default=None)


def judge(report: Mapping[str, Any], tolerance: float | None) -> str:
    """A sentence on a report.

    Args:
        report: As :func:`verify` gives it.
        tolerance: Difference in points of mIoU that is allowed on another kind of machine.

    Raises:
        Mismatch: If a number differs by more, or nothing was compared.
    """
    if not report["rows"]:
        reasons = "; ".join(report["left_out"]) or "no rows"
        raise Mismatch(f"nothing could be compared: {reasons}")
    same = all(run["same_kind"] for run in report["runs"])
    differing, largest = report["rows"] - report["identical"], report["largest_miou"]
    said = f"{report['identical']:,} of {report['rows']:,} numbers are identical"
    if not differing:
        return f"{said}."
    first = report["differences"][0]
    lost = [pair for pair in report["differences"] if pair["difference"] is None]
    if same or lost:
        raise Mismatch(f"{said}; {differing} are not, first {first['name']}")
    said += f"; on this other kind of machine mIoU differs by up to {largest:g}"
    if tolerance is None:
        return f"{said}, and nothing was measured to hold that against."
    if largest > tolerance:
        raise Mismatch(f"{said}, more than the {tolerance:g} that were measured between kinds")
    return f"{said}, within the {tolerance:g} that were measured between kinds."


def as_page(reports: Sequence[Mapping[str, Any]]) -> str:
    """Reports as Markdown, a section each."""
    parts = []
    for report in sorted(reports, key=lambda r: (r["rows"], r["date"]), reverse=True):
        parts.append(_section(report))
    return "\n\n".join(parts) + "\n" if parts else "Not run.\n"


def _section(report: Mapping[str, Any]) -> str:
    kind, runs = report["machine"], report["runs"]
    computing = sum(run["seconds"] for run in runs) / 3600
    asked = report["asked"]
    title = asked if len(asked) <= _TITLE else f"{len(runs)} runs by name"
    lines = [
        f"## {title}, {kind['instructions']}, {report['threads']} thread"
        + "s" * (report["threads"] > 1),
        f"{report['date'][:10]}, commit `{report['commit'][:12]}`, {report['device']}: "
        f"{kind['instructions']}, {kind['blas']}, {', '.join(kind['kernels']) or 'no kernel'}, "
        f"{kind['system']}.",
        *([f"* Asked for: `{asked}`."] if title != asked else []),
        f"* **{report['identical']:,} of {report['rows']:,} numbers are identical**, in "
        f"{len(runs)} runs that took {computing:.1f} hours of computing.",
        f"* Largest difference in mIoU: {report['largest_miou']:g} points; mean "
        f"{report['mean_miou']:g}.",
        *(f"* Not compared, {number:,} rows: {why}." for why, number in report["left_out"].items()),
    ]
    if report["differences"]:
        # What was not computed at all comes first.
        shown = sorted(
            report["differences"],
            key=lambda d: (d["difference"] is not None, -(d["difference"] or 0)),
        )[:50]
        lines += [
            f"\nThe largest {len(shown)} of {len(report['differences'])} differences:\n",
            "| number | published | computed |\n|---|---|---|\n"
            + "\n".join(f"| `{d['name']}` | {d['published']} | {d['computed']} |" for d in shown),
        ]
    return "\n".join([lines[0], "", lines[1], "", *lines[2:]])
