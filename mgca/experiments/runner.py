"""The paper's ablations: grids of variants, computed where missing, over seeds and processes.

``python -m mgca.experiments.runner granularity areas k meta_points --scale scenes --seeds 0 1 2
--jobs 2`` computes what ``results/<scale>`` lacks. A run is named by the hash of its
configuration, and what it measured is kept in ``results/<scale>/runs/<run>.json``, so that a
configuration that stands in several tables is trained once. ``results/<scale>/<ablation>.csv`` is
put together from these files.
"""

import argparse
import logging
import os
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from joblib import Parallel, delayed

from mgca.backbone.base import Backbone
from mgca.config import TrainConfig
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.evaluate import unit_name
from mgca.evaluation.measure import CLASS_IOU, SECONDS, measure
from mgca.evaluation.results import COLUMNS, read_results, read_run, write_run
from mgca.experiments import load_scale
from mgca.experiments.grid import ABLATIONS, Variant, grid
from mgca.experiments.scale import Scale
from mgca.inference.scoring import Rule, rules
from mgca.inference.segmentation import Embedded
from mgca.model import Model
from mgca.training.train import train
from mgca.utils.files import write_text
from mgca.utils.processes import threads
from mgca.utils.progress import progress
from mgca.utils.provenance import provenance
from mgca.weights import read_tensors
from mgca.weights.decoders import decoder_from, learned_sigmoid

log = logging.getLogger(__name__)


class AblationError(RuntimeError):
    """Some runs of a grid failed; the message names them, the others are kept."""


def missing(
    ablation: str, scale: Scale, seeds: Sequence[int], out: str | os.PathLike
) -> list[tuple[Variant, int]]:
    """Variants and seeds of an ablation that the runs in ``<out>/runs`` do not measure."""
    return [
        (variant, seed)
        for seed in seeds
        for variant in grid(ablation, scale)
        if not _measures(_record(out, variant.run(scale, seed)), scale, variant.units)
    ]


def _record(out: str | os.PathLike, run: str) -> dict[str, Any]:
    """What is kept of a run; empty without any."""
    try:
        return read_run(out, run)
    except FileNotFoundError:
        return {}


def _measures(record: dict[str, Any], scale: Scale, units: Sequence[int | None]) -> bool:
    """Whether a run's record has numbers of all the sets and units."""
    there = {(row["dataset"], row["unit"]) for row in record.get("measured", ())}
    return {(name, unit_name(unit)) for name in scale.datasets for unit in units} <= there


def run_ablation(
    ablation: str,
    scale: Scale,
    seeds: Sequence[int],
    *,
    out: str | os.PathLike,
    work: str | os.PathLike,
    jobs: int | None = None,
    fresh: bool = False,
) -> pd.DataFrame:
    """Compute what is missing of an ablation; the arguments and errors of :func:`run_ablations`.

    Returns:
        The rows of these seeds, with the columns of a results table.
    """
    tables = run_ablations([ablation], scale, seeds, out=out, work=work, jobs=jobs, fresh=fresh)
    return tables[ablation]


def run_ablations(
    ablations: Sequence[str],
    scale: Scale,
    seeds: Sequence[int],
    *,
    out: str | os.PathLike,
    work: str | os.PathLike,
    jobs: int | None = None,
    fresh: bool = False,
) -> dict[str, pd.DataFrame]:
    """Compute what is missing of some ablations, each run once, several at a time.

    A run's record and the tables are written as it ends, so that an interrupted call goes on where
    it stopped. If nothing is missing, no data is needed and nothing is written.

    Args:
        ablations: Names, as :func:`mgca.experiments.grid.grid` knows them.
        scale: What to train on and evaluate on.
        seeds: One run of each variant per seed.
        out: Results folder of the scale, such as ``results/scenes``.
        work: Folder of decoders and checkpoints, one folder per run.
        jobs: Runs at a time, in processes of one thread each, so that numbers do not depend on it.
            None leaves it to ``joblib.parallel_config``, one without.
        fresh: Compute everything again.

    Returns:
        The rows of these seeds by ablation, with the columns of a results table.

    Raises:
        ValueError: For an unknown ablation.
        FileNotFoundError: If runs are missing and so is the scale's data.
        AblationError: If runs failed, after the others have ended.
    """
    plan = _plan(ablations, scale, seeds, out, fresh)
    failed = []
    if plan:
        with threads(1):
            variants = [task.variant for task in plan.values()]
            trained = {variant.last_block for variant in variants if variant.train}
            scale.prepare(
                {variant.last_block: variant.last_block in trained for variant in variants}
            )
            # A backbone that each seed trains anew is trained here, and not by every worker.
            for seed in sorted({task.seed for task in plan.values()}):
                scale.backbone(seed, scale.training.last_block)
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered")
        ended = parallel(
            delayed(_attempt)(task, scale, run, Path(work) / run, fresh)
            for run, task in plan.items()
        )
        bar = progress(total=len(plan), desc=f"{scale.name} runs", unit="run")
        for run, record, error in ended:
            bar.update()
            if error:
                log.error("run %s (%s) failed:\n%s", run, plan[run], error)
                failed.append(f"{plan[run]}: {error.strip().splitlines()[-1]}")
                continue
            write_run(out, run, record)
            for ablation in ablations:
                _assemble(ablation, scale, seeds, out)
        bar.close()
    if failed:
        raise AblationError(f"{len(failed)} of {len(plan)} runs failed\n" + "\n".join(failed))
    return {ablation: _assemble(ablation, scale, seeds, out) for ablation in ablations}


@dataclass(frozen=True)
class _Task:
    """A run to be computed, under the name of the first variant that needs it."""

    ablation: str
    variant: Variant
    seed: int
    units: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.ablation}, variant {self.variant.name}, seed {self.seed}"


def _plan(
    ablations: Sequence[str],
    scale: Scale,
    seeds: Sequence[int],
    out: str | os.PathLike,
    fresh: bool,
) -> dict[str, _Task]:
    """What to compute, by the name of the run; the units of all tables that a run stands in."""
    chosen: dict[str, _Task] = {}
    for seed in seeds:
        units: dict[str, list[int | None]] = {}
        for variant in (variant for name in ABLATIONS for variant in grid(name, scale)):
            units.setdefault(variant.run(scale, seed), []).extend(variant.units)
        for ablation in ablations:
            for variant in grid(ablation, scale):
                run = variant.run(scale, seed)
                if fresh or not _measures(_record(out, run), scale, variant.units):
                    once = tuple(dict.fromkeys(units[run]))
                    chosen.setdefault(run, _Task(ablation, variant, seed, once))
    return chosen


def _assemble(
    ablation: str, scale: Scale, seeds: Sequence[int], out: str | os.PathLike
) -> pd.DataFrame:
    """Put an ablation's table together from the records of its runs; rows of the seeds given.

    Other seeds that the table holds stay in it. Variants that the grid no longer has do not.
    """
    path = Path(out) / f"{ablation}.csv"
    there = read_results(path)
    present = {int(seed) for seed in there["seed"]}
    rows = []
    for seed in sorted({*seeds, *present}):
        for variant in grid(ablation, scale):
            run = variant.run(scale, seed)
            shown = {unit_name(unit) for unit in variant.units}
            rows += [
                {"variant": variant.name, "seed": seed, "run": run} | row
                for row in _record(out, run).get("measured", ())
                if row["unit"] in shown
                and (ablation == "granularity" or not row["metric"].startswith(CLASS_IOU))
            ]
    rows += there[there["metric"] == SECONDS].to_dict("records")
    table = pd.DataFrame(rows, columns=COLUMNS)
    text = table.to_csv(index=False)
    if rows and not (path.is_file() and path.read_text(encoding="utf-8") == text):
        write_text(path, text)
    return table[table["seed"].isin(seeds)].reset_index(drop=True)


def _attempt(
    task: _Task, scale: Scale, run: str, folder: Path, fresh: bool
) -> tuple[str, dict[str, Any], str]:
    """The run, and its record or what went wrong: an error must not end the other runs."""
    try:
        with threads(1):
            return run, _compute(task, scale, folder, fresh), ""
    except Exception:
        return run, {}, traceback.format_exc()


def _compute(task: _Task, scale: Scale, folder: Path, fresh: bool) -> dict[str, Any]:
    """Train and measure; the record of the run."""
    began = time.perf_counter()
    torch.use_deterministic_algorithms(True)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    backbone = scale.backbone(task.seed, task.variant.last_block)
    training = task.variant.trained_with(task.seed)
    decoder, scoring = _trained(training, scale, backbone, folder) if training else (None, None)
    model = Model(backbone, decoder, task.variant.segmenting(scale), scoring)
    background = scale.background(model)
    sets = scale.sets()
    left = Counter(data.source for data in sets)
    kept: dict[tuple[str, str], Embedded] = {}
    measured = []
    for data in sets:
        measured += measure(
            model,
            data,
            task.units,
            background=background,
            features=scale.cache,
            kept=kept if kept or left[data.source] > 1 else None,
        )
        left[data.source] -= 1
        if not left[data.source]:
            kept.clear()
    record = provenance(
        task.variant.config(scale, task.seed),
        seed=task.seed,
        data=scale.digests(),
        seconds=time.perf_counter() - began,
    )
    return record | {"background": background, "measured": measured}


def _trained(
    config: TrainConfig, scale: Scale, backbone: Backbone, folder: Path
) -> tuple[GatedConvDecoder, dict[str, Rule]]:
    """The decoder kept in a folder, or else trained, or trained further, and its rules."""
    path, decoder = folder / "decoder.safetensors", None
    if not path.is_file():
        decoder = train(config, backbone, scale.data(backbone), folder)
        # Three times the size of the decoder, and of no use to a run that has ended.
        (folder / "checkpoint.safetensors").unlink()
    state, meta = read_tensors(path)
    return decoder or decoder_from(state, meta, backbone), rules(learned_sigmoid(meta))


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m mgca.experiments.runner``: compute what the results of a scale lack."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("ablations", nargs="+", choices=ABLATIONS, metavar="ablation")
    parser.add_argument("--scale", default="scenes", help="scenes or photos")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=None, help="runs at a time")
    parser.add_argument("--data", default=None, help="data sets; $MGCA_DATA or ../shared/data")
    parser.add_argument("--cache", default=None, help="features; $MGCA_CACHE or ~/.cache/mgca")
    parser.add_argument("--out", default=None, help="results folder; results/<scale>")
    parser.add_argument("--work", default=None, help="decoders; _build/<scale>")
    parser.add_argument("--fresh", action="store_true", help="compute everything again")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        run_ablations(
            given.ablations,
            load_scale(given.scale, data=given.data, cache=given.cache),
            given.seeds,
            out=given.out or Path("results") / given.scale,
            work=given.work or Path("_build") / given.scale,
            jobs=given.jobs,
            fresh=given.fresh,
        )
    except (AblationError, ValueError, FileNotFoundError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
