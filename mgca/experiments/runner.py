"""The tables of a scale: grids of variants, computed where missing, over seeds and processes.

``mgca experiment run granularity areas --scale scenes --jobs 2`` computes what ``results/<scale>``
lacks, into ``_build/experiments/<scale>`` or with ``--publish`` into ``results/<scale>`` itself. A
run is named by the hash of its configuration, and what it measured is kept in ``runs/<run>.json``
there, so that a configuration that stands in several tables is trained once. ``<ablation>.csv`` is
put together from these files.
"""

import dataclasses
import logging
import os
import shutil
import time
import traceback
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mgca.evaluation.evaluate import CLASS_IOU, SECONDS, unit_name
from mgca.evaluation.results import COLUMNS, read_results, read_run, row, write_run
from mgca.experiments.changes import code_digest, warn_of_changes
from mgca.experiments.fanout import ended
from mgca.experiments.grid import ABLATIONS, Variant, grid
from mgca.experiments.scale import Scale
from mgca.model import Model
from mgca.training.trainer import Stopped
from mgca.utils.files import alone_in, write_text
from mgca.utils.processes import threads
from mgca.utils.progress import progress
from mgca.utils.provenance import provenance

log = logging.getLogger(__name__)


class AblationError(ValueError):
    """Some runs of a grid failed; the message names them, the others are kept."""


def folders(
    scale: str,
    *,
    publish: bool = False,
    fresh: bool = False,
    project: str | os.PathLike = ".",
) -> dict[str, Path]:
    """Folders in which the runs of a scale are read and written, as :func:`run_ablations` asks.

    Args:
        scale: Name of the scale.
        publish: Whether ``results/<scale>`` is written to. Otherwise it is read only.
        fresh: Whether what is trained may differ from what was published under the same name, and
            is kept apart from it.
        project: Folder of the clone.

    Raises:
        FileNotFoundError: If there is no ``results`` to publish in.
    """
    results, build = Path(project) / "results", Path(project) / "_build"
    if publish:
        if not results.is_dir():
            raise FileNotFoundError(f"no folder {results} to publish in: go to that of a clone")
        return {"out": results / scale, "work": build / scale}
    out = build / "experiments" / scale
    work = out / "decoders" if fresh else build / scale
    return {"out": out, "published": results / scale, "work": work}


def missing(
    ablation: str, scale: Scale, seeds: Sequence[int], *places: str | os.PathLike
) -> list[tuple[Variant, int]]:
    """Variants and seeds of an ablation that no run measures.

    Args:
        ablation: Name of the ablation.
        scale: Scale that it is run at.
        seeds: Seeds of the runs.
        places: Results folders, each with records in ``runs``.
    """
    return [
        (variant, seed)
        for seed in seeds
        for variant in grid(ablation, scale)
        if not _record(places, variant, scale, seed)
    ]


def _record(
    places: Iterable[str | os.PathLike], variant: Variant, scale: Scale, seed: int
) -> dict[str, Any]:
    """The first record of a variant's run with numbers of all its sets and units, or nothing."""
    names = scale.present(scale.datasets)
    wanted = {(name, unit_name(n)) for name in names for n in variant.units}
    for place in places:
        try:
            record = read_run(place, variant.run(scale, seed))
        except FileNotFoundError:
            continue
        if wanted <= {(row["dataset"], row["unit"]) for row in record.get("measured", ())}:
            return record
    return {}


def run_ablation(
    ablation: str,
    scale: Scale,
    seeds: Sequence[int],
    *,
    out: str | os.PathLike,
    work: str | os.PathLike,
    published: str | os.PathLike | None = None,
    jobs: int | None = None,
    fresh: bool = False,
) -> pd.DataFrame:
    """Compute what is missing of an ablation; the arguments and errors of :func:`run_ablations`.

    Returns:
        The rows of these seeds, with the columns of a results table.
    """
    options: dict[str, Any] = {"published": published, "jobs": jobs, "fresh": fresh}
    return run_ablations([ablation], scale, seeds, out=out, work=work, **options)[ablation]


def run_ablations(
    ablations: Sequence[str],
    scale: Scale,
    seeds: Sequence[int],
    *,
    out: str | os.PathLike,
    work: str | os.PathLike,
    published: str | os.PathLike | None = None,
    jobs: int | None = None,
    fresh: bool = False,
    only: Collection[str] | None = None,
) -> dict[str, pd.DataFrame]:
    """Compute what is missing of some ablations, each run once, several at a time.

    A run's record and the tables are written as it ends, so that an interrupted call goes on where
    it stopped. If nothing is missing, no data is needed and nothing is written. Two calls at once
    share the runs: what another computes is left to the end, and waited for.

    Args:
        ablations: Names, as :func:`mgca.experiments.grid.grid` knows them.
        scale: Scale to train and evaluate at.
        seeds: Seeds; each variant has one run per seed.
        out: Folder of what is computed: records in ``runs``, and tables.
        work: Folder of decoders and checkpoints, one folder per run.
        published: Results folder that is read and not written. What it holds counts as computed,
            unless all is computed again.
        jobs: Number of runs at a time, in processes of one thread each, so that results do not
            depend on it. None leaves it to ``joblib.parallel_config``, one without. A scale that
            has ``jobs`` of its own decides itself.
        fresh: Whether everything is computed again.
        only: Names of the runs that are computed where they are missing; None for all.

    Returns:
        The rows of these seeds by ablation, with the columns of a results table.

    Raises:
        ValueError: For an unknown ablation.
        FileNotFoundError: If runs are missing and so is the scale's data.
        AblationError: If runs failed, after the others have ended.
    """
    places = [place for place in (None if fresh else published, out) if place is not None]
    plan = _plan(ablations, scale, seeds, () if fresh else places)
    plan = {run: task for run, task in plan.items() if only is None or run in only}
    if not fresh:
        used = {
            variant.run(scale, seed): record
            for ablation in ablations
            for variant in grid(ablation, scale)
            for seed in seeds
            if (record := _record(places, variant, scale, seed))
        }
        warn_of_changes(used.values())
    failed = []
    if plan:
        with threads(1):
            variants = [task.variant for task in plan.values()]
            trained = {variant.last_block for variant in variants if variant.train}
            scale.prepare({each.last_block: each.last_block in trained for each in variants})
            # A backbone that each seed trains anew is trained here, and not by every worker.
            for seed in sorted({task.seed for task in plan.values()}):
                scale.backbone(seed, scale.training.last_block)
        bar = progress(total=len(plan), desc=f"{scale.name} runs", unit="run")
        left = list(plan.values())
        for wait in (False, True):
            held = []
            for task, error in ended(
                _attempt,
                left,
                scale,
                Path(out),
                Path(work),
                fresh,
                wait,
                folder=Path(work) / "jobs",
                jobs=scale.jobs.at_once if scale.jobs else jobs,
                submitted=scale.jobs,
            ):
                if error == _HELD:
                    held.append(task)
                    continue
                bar.update()
                if error:
                    log.error("%s failed:\n%s", task, error)
                    failed.append(f"{task}: {error.strip().splitlines()[-1]}")
                    continue
                for ablation in ablations:
                    _assemble(ablation, scale, seeds, places)
            left = held
            if not left:
                break
        bar.close()
    if failed:
        raise AblationError(f"{len(failed)} of {len(plan)} runs failed\n" + "\n".join(failed))
    return {ablation: _assemble(ablation, scale, seeds, places) for ablation in ablations}


_HELD = "another process computes it"


@dataclass(frozen=True)
class _Task:
    """A run to be computed, under the name of the first variant that needs it.

    Attributes:
        variant: The variant, with the units of all tables that the run stands in.
    """

    ablation: str
    variant: Variant
    seed: int

    def __str__(self) -> str:
        return f"{self.ablation}, variant {self.variant.name}, seed {self.seed}"


def _plan(
    ablations: Sequence[str],
    scale: Scale,
    seeds: Sequence[int],
    places: Sequence[str | os.PathLike],
) -> dict[str, _Task]:
    """The runs that have to be computed, by name."""
    chosen: dict[str, _Task] = {}
    for seed in seeds:
        units: dict[str, list[int | None]] = {}
        for variant in (variant for name in ABLATIONS for variant in grid(name, scale)):
            units.setdefault(variant.run(scale, seed), []).extend(variant.units)
        for ablation in ablations:
            for variant in grid(ablation, scale):
                if not _record(places, variant, scale, seed):
                    run = variant.run(scale, seed)
                    once = tuple(dict.fromkeys(units[run]))
                    whole = dataclasses.replace(variant, units=once)
                    chosen.setdefault(run, _Task(ablation, whole, seed))
    return chosen


def _assemble(
    ablation: str, scale: Scale, seeds: Sequence[int], places: Sequence[str | os.PathLike]
) -> pd.DataFrame:
    """Put an ablation's table together from the records of its runs; rows of the seeds given.

    Other seeds that the tables hold stay in it. Variants that the grid no longer has do not.

    Args:
        places: Folders of records and tables; the table is written into the last where none has it.
    """
    paths = [Path(place) / f"{ablation}.csv" for place in places]
    tables = [read_results(path) for path in paths]
    present = {int(seed) for table in tables for seed in table["seed"]}
    rows = table_rows(ablation, scale, sorted({*seeds, *present}), *places)
    timed = [table[table["metric"] == SECONDS] for table in tables]
    rows += next((t.to_dict("records") for t in timed if len(t)), [])
    table = pd.DataFrame(rows, columns=COLUMNS)
    text = table.to_csv(index=False)
    *others, path = paths
    existing = [path] if path.is_file() else [other for other in others if other.is_file()]
    if rows and text not in [path.read_text(encoding="utf-8") for path in existing]:
        write_text(path, text)
    return table[table["seed"].isin(seeds)].reset_index(drop=True)


def table_rows(
    ablation: str, scale: Scale, seeds: Sequence[int], *places: str | os.PathLike
) -> list[dict[str, Any]]:
    """The rows that an ablation's table has by the records of its runs, without times.

    Args:
        ablation: Name of the ablation.
        scale: Scale that it was run at.
        seeds: Seeds of the runs, in the order of the rows.
        places: Results folders, each with records in ``runs``.
    """
    rows = []
    for seed in seeds:
        for variant in grid(ablation, scale):
            run = variant.run(scale, seed)
            units = {unit_name(unit) for unit in variant.units}
            rows += [
                row(variant.name, m["dataset"], m["unit"], seed, m["metric"], m["value"], run)
                for m in _record(places, variant, scale, seed).get("measured", ())
                if m["unit"] in units
                and (ablation == "granularity" or not m["metric"].startswith(CLASS_IOU))
            ]
    return rows


def _attempt(
    task: _Task, scale: Scale, out: Path, work: Path, fresh: bool, wait: bool
) -> tuple[_Task, str]:
    """Compute a run and keep its record, or say what went wrong: the other runs go on.

    ``_HELD`` says that another process computes it, and that this one was not to wait for it.
    """
    run, folder = (
        task.variant.run(scale, task.seed),
        scale.run_folder(work, task.variant, task.seed),
    )
    try:
        alone = _alone_with(folder.name, work, wait)
        if alone is None:
            return task, _HELD
        with threads(scale.threads), alone:
            # Another process may have computed it while this one waited.
            if fresh or not _record([out], task.variant, scale, task.seed):
                write_run(out, run, _compute(task, scale, folder, fresh))
                main = {v.run(scale, task.seed) for v in grid("main", scale) if v.train}
                if scale.decoder is not None and run in main:
                    shutil.copyfile(folder / "metrics.csv", out / "runs" / f"{run}.csv")
        return task, ""
    except Stopped as stopped:  # by Ctrl-C, or by a signal: the runs that follow are not wanted
        raise KeyboardInterrupt from stopped
    except Exception:
        return task, traceback.format_exc()


def _alone_with(run: str, work: Path, wait: bool) -> ExitStack | None:
    """Hold a run for this process, after whichever other process computes it.

    None if another does, and it is not to be waited for.
    """
    held = ExitStack()
    try:
        # Not in the folder of the run, which training holds.
        held.enter_context(alone_in(work / ".alone" / run, wait=wait))
    except BlockingIOError:
        return None
    return held


def _compute(task: _Task, scale: Scale, folder: Path, fresh: bool) -> dict[str, Any]:
    """Train and measure; the record of the run."""
    began, code = time.perf_counter(), code_digest()
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    scale.join(task.variant, task.seed, folder)
    background, measured = compute(task.variant, task.seed, scale, folder)
    names = scale.present(scale.datasets)
    record = provenance(
        task.variant.config(scale, task.seed),
        seed=task.seed,
        data=scale.digests(names),
        seconds=time.perf_counter() - began,
    )
    if any(data.background for data in scale.sets(names)):
        record["background"] = background
    record |= {"measured": measured, "code": code}
    record |= {"note": scale.note} if scale.note else {}
    encoder = scale.encoder_measured(task.seed)
    return record | ({"encoder": encoder} if encoder else {})


def compute(
    variant: Variant, seed: int, scale: Scale, folder: Path
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Train a run and measure it.

    Args:
        variant: The variant that is run.
        seed: Seed of the run.
        scale: Scale that it is run at.
        folder: Folder of what the run leaves, and of what it has left before.

    Returns:
        Threshold and temperature of the background, and rows as
        :func:`mgca.evaluation.evaluate.measure` gives them.
    """
    model = trained_model(variant, seed, scale, folder)
    background = scale.background(model)
    names = scale.present(scale.datasets)
    return background, scale.measured(model, names, variant.units, background, folder)


def trained_model(variant: Variant, seed: int, scale: Scale, folder: Path) -> Model:
    """The model of a run, trained unless its folder has it; arguments as of :func:`compute`."""
    torch.use_deterministic_algorithms(True)
    backbone = scale.backbone(seed, variant.last_block)
    training = variant.trained_with(seed)
    decoder, scoring = scale.trained(training, backbone, folder) if training else (None, None)
    return Model(backbone, decoder, variant.segmenting(scale), scoring)
