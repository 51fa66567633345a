"""Runs computed again from nothing: what they measure now.

Nothing of an earlier run is used but the weights that come with the package. What is computed is
kept below one folder for one state of the code and one kind of machine, so that an interrupted
verification goes on, and no number of other code is taken for one of this.
"""

import ast
import hashlib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mgca.config import config_hash
from mgca.evaluation.results import read_results, read_run
from mgca.experiments import load_scale, protocol, protocol_rows, thresholds
from mgca.experiments.changes import PACKAGE
from mgca.experiments.grid import ABLATIONS, grid
from mgca.experiments.runner import AblationError, run_ablations
from mgca.experiments.scale import Scale
from mgca.utils.processes import threads
from mgca.utils.provenance import machine

#: What a run measured: by set, unit and metric, a number. The name of a set follows that of the
#: variant where a run has several.
Values = dict[tuple[str, str, str], float]
#: Why a run was not computed again, or what it measured and its record.
Outcome = str | tuple[Values, Mapping[str, Any]]
# Parts of the package that decide no number.
_WITHOUT = ("cli", "experiments/report", "experiments/rows.py", "experiments/verify.py")


@dataclass(frozen=True)
class Target:
    """How a published run is computed again.

    Attributes:
        scale: Name of its scale.
        table: Table of the scale that it stands in; ``"background"`` for the curves of thresholds,
            ``"clip"`` for the small CLIP of the scenes.
        seed: Seed of the run.
        parts: Variant and set of each part of the run that was asked for, joined by ``"/"``; those
            of the protocol are computed alone.
    """

    scale: str
    table: str
    seed: int
    parts: frozenset[str] = frozenset()


def code_state() -> str:
    """Digest of the code that decides numbers, whatever its comments and docstrings say."""
    total = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(_WITHOUT):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):  # texts that stand alone do nothing
                node.body = [part for part in body if not _is_text(part)]
        total.update(f"{name}\n{ast.dump(tree)}\n".encode())
    return total.hexdigest()[:12]


def _is_text(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def work_folder(project: str | os.PathLike, cores: int = 1) -> Path:
    """Where this state of the code keeps what it computes again on this kind of machine.

    Args:
        project: Folder of the clone.
        cores: Threads of a run.
    """
    kind = f"{machine()['instructions'].lower()}-{cores}"
    return Path(project) / "_build" / "verify" / f"{code_state()}-{kind}"


def targets(rows: pd.DataFrame) -> dict[tuple[str, str], Target]:
    """How each run of some rows is computed again, by folder and name.

    Runs of no present configuration are left out.

    Args:
        rows: As :func:`mgca.experiments.rows.published_rows` gives them.
    """
    found: dict[tuple[str, str], Target] = {}
    for (folder, table), part in rows.groupby(["folder", "table"]):
        if table in _ALONE:
            places = part["variant"] + "/" + part["dataset"]
            for run, of_run in places.groupby(part["run"]):
                found[folder, run] = Target(folder, table, 0, frozenset(of_run))
            continue
        try:
            scale = load_scale(folder)
        except ValueError:  # no scale: times
            continue
        wanted, seeds = set(part["run"]), sorted({int(seed) for seed in part["seed"]})
        for ablation in ABLATIONS:
            for variant, seed in itertools.product(grid(ablation, scale), seeds):
                run = variant.run(scale, seed)
                if run in wanted:
                    found.setdefault((folder, run), Target(folder, ablation, seed))
    return found


def recompute(
    wanted: Mapping[tuple[str, str], Target],
    work: str | os.PathLike,
    *,
    data: str | os.PathLike | None = None,
    jobs: int = 1,
    cores: int = 1,
) -> dict[tuple[str, str], Outcome]:
    """Compute some runs again, those that ``work`` does not hold yet.

    Args:
        wanted: The runs, as :func:`targets` gives them.
        work: Folder that keeps features, decoders and records.
        data: Folder of the photographs, as :func:`mgca.experiments.load_scale` takes it.
        jobs: Runs at a time.
        cores: Threads of a run.

    Returns:
        What each run measured, or why it was not computed.
    """
    work = Path(work)
    outcomes: dict[tuple[str, str], Outcome] = {}
    for name in dict.fromkeys(target.scale for target in wanted.values()):
        runs = {key: target for key, target in wanted.items() if target.scale == name}
        scale = load_scale(name, data=data, cache=work / "cache")
        if cores != scale.threads:
            scale.threads = cores
        out, decoders = work / name, work / name / "decoders"
        for table, compute in _ALONE.items():
            for key in [key for key, target in runs.items() if target.table == table]:
                parts = runs.pop(key).parts
                try:
                    outcomes[key] = compute(scale, key[1], out, decoders, parts)
                except FileNotFoundError as error:
                    outcomes[key] = str(error)
        seeds = sorted({target.seed for target in runs.values()})
        tables = [t for t in ABLATIONS if any(target.table == t for target in runs.values())]
        if not runs:
            continue
        names = {run for _, run in runs}
        options = {"out": out, "work": decoders, "jobs": jobs, "only": names}
        reason = ""
        try:
            run_ablations(tables, scale, seeds, **options)
        except (AblationError, FileNotFoundError) as error:
            reason = str(error)
        for key in runs:
            try:
                record = read_run(out, key[1])
            except FileNotFoundError:
                outcomes[key] = reason or "the present code has no such run"
                continue
            outcomes[key] = measured(record), record
    return outcomes


def measured(record: Mapping[str, Any]) -> Values:
    """What the record of a run of a table says it measured."""
    return {
        (row["dataset"], row["unit"], row["metric"]): row["value"]
        for row in record.get("measured", ())
    }


def _curves(scale: Scale, run: str, out: Path, *_: Any) -> Outcome:
    """The curves of thresholds of the scale's published models."""
    path = out / "background.csv"
    if not path.is_file():
        with threads(2):  # as it was published
            thresholds.scale_curves(scale, out)
    return _of_run(thresholds.as_rows(pd.read_csv(path, dtype={"unit": str})), out, run)


def _clip(scale: Scale, run: str, out: Path, decoders: Path, *_: Any) -> Outcome:
    """The training of the scenes' small CLIP, and its accuracy on images as a whole."""
    from mgca.experiments.publish import train_scenes_clip
    from mgca.experiments.scenes import scenes_clip

    path = out / "clip.csv"
    if not path.is_file():
        with threads(2):
            train_scenes_clip(scenes_clip(), out=out, work=decoders, cache=scale.cache)
    return _of_run(read_results(path), out, run)


def _protocol(scale: Scale, run: str, out: Path, decoders: Path, parts: frozenset[str]) -> Outcome:
    """What each knob of the protocol moves, on as many images as were published."""
    asked = protocol.PUBLISHED[scale.name]
    wanted = {protocol_rows.part_named(part) for part in parts}
    table, record = protocol.protocol_parts(scale, wanted, work=decoders, **asked)
    return _values(protocol_rows.as_rows(table)), record


# Tables that one run fills.
_ALONE = {"clip": _clip, "background": _curves, "protocol": _protocol}


def _of_run(table: pd.DataFrame, out: Path, run: str) -> Outcome:
    """The numbers of a table of rows, where they are of the run that was asked for."""
    (now,) = set(table["run"])
    if now != run:
        return f"the present configuration has another name, {now}"
    return _values(table), read_run(out, run)


def _values(table: pd.DataFrame) -> Values:
    """The numbers of a table of a run that has several variants."""
    return {
        (f"{row.variant}/{row.dataset}", row.unit, row.metric): row.value
        for row in table.itertuples()
    }


def is_named_by_configuration(record: Mapping[str, Any], run: str) -> bool:
    """Whether a run's name is the hash of the configuration in its record."""
    return config_hash(record["config"]) == run
