"""What other images would say of each claim: ``mgca experiment intervals``.

A run counts every image by itself, into ``images.npz`` in the folder of its decoder: outside git,
and there again whenever the run is computed. Here images are drawn again from these counts, the
same for both lines of a difference, mIoU is taken anew, and the interval of each claim's least sure
difference goes into ``intervals.json`` of the scale's results.
"""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgca.evaluation.evaluate import IMAGES, unit_name
from mgca.evaluation.intervals import bootstrap_interval, draws, resampled
from mgca.experiments.grid import grid
from mgca.experiments.report.claims import CLAIMS, SOURCES
from mgca.experiments.report.judging import Column, least_sure
from mgca.experiments.scale import Scale
from mgca.utils.files import write_text

FILE = "intervals.json"
REPLICATES = 5_000  # so that the least p lies below the first level of Holm's correction


def read_intervals(results: str | os.PathLike) -> list[dict[str, Any]]:
    """What images say of the claims at a scale, a line each; none where it was not computed."""
    path = Path(results) / FILE
    return json.loads(path.read_text(encoding="utf-8"))["claims"] if path.is_file() else []


def image_intervals(
    scale: Scale, seeds: Sequence[int], work: str | os.PathLike, replicates: int = REPLICATES
) -> dict[str, Any]:
    """The intervals over images of all claims whose runs counted their images one by one.

    Args:
        scale: The scale.
        seeds: Seeds whose runs are taken, the mean over those that are there.
        work: Folder of the runs' decoders.
        replicates: Number of drawings.

    Returns:
        JSON data: what it was computed with, and ``claims``, each with ``claim``, ``group``,
        ``mean``, ``low``, ``high`` and ``p``.

    Raises:
        FileNotFoundError: If no run has its images counted.
    """
    found = []
    seeds_of: dict[str, list[int]] = {}
    for ablation in SOURCES:
        variants = grid(ablation, scale)
        files = {
            seed: [scale.run_folder(Path(work), variant, seed) / IMAGES for variant in variants]
            for seed in seeds
        }
        there = [seed for seed in seeds if all(path.is_file() for path in files[seed])]
        if not there:
            continue
        seeds_of[ablation] = there
        for group, sets in scale.groups.items():
            lines: dict[tuple[str, str, str], list[np.ndarray]] = {}
            for seed in there:
                for variant, path in zip(variants, files[seed], strict=True):
                    for unit in map(unit_name, variant.units):
                        for metric, values in _drawn(path, sets, unit, replicates).items():
                            lines.setdefault((variant.name, unit, metric), []).append(values)
            means = {line: np.mean(values, axis=0) for line, values in lines.items()}
            table = pd.DataFrame(means)
            table.columns = pd.MultiIndex.from_tuples(table.columns)
            column = Column(group, group, {ablation: table}, scale.training.loss)
            found += [
                _interval(claim, column)
                for claim in CLAIMS
                if claim.ablation == ablation and claim.applies(column) and _was_run(claim, column)
            ]
    if not found:
        raise FileNotFoundError(
            f"no run below {work} has {IMAGES}: mgca experiment run TABLE --fresh makes it, and "
            "mgca verify --all, whose decoders --work takes"
        )
    return {"replicates": replicates, "seeds": seeds_of, "claims": found}


def write_intervals(out: str | os.PathLike, found: dict[str, Any]) -> Path:
    """Write what :func:`image_intervals` gives into a results folder."""
    path = Path(out) / FILE
    write_text(path, json.dumps(found, indent=1) + "\n")
    return path


def _drawn(path: Path, sets: Sequence[str], unit: str, replicates: int) -> dict[str, np.ndarray]:
    """Metrics of a run's unit in each drawing, the mean over the sets of a group."""
    found: dict[str, list[np.ndarray]] = {}
    with np.load(path) as kept:
        for name in sets:
            counts = {
                table: kept[f"{name}/{unit}/{table}"]
                for table in ("confusion", "contours", "pieces")
            }
            # By the name of the set, so that all lines see the same images.
            drawn = draws(len(counts["pieces"]), replicates, zlib.crc32(name.encode()))
            for metric, values in resampled(counts, drawn).items():
                found.setdefault(metric, []).append(values)
    return {metric: np.mean(values, axis=0) for metric, values in found.items()}


def _was_run(claim: Any, column: Column) -> bool:
    try:
        claim.differences(column)
    except KeyError:
        return False
    return True


def _interval(claim: Any, column: Column) -> dict[str, Any]:
    against, one = least_sure(claim.differences(column))
    values = claim.differences(column)[against].to_numpy()
    low, high, p = bootstrap_interval(values)
    numbers = {"mean": one.mean, "low": low, "high": high, "p": p}
    return {
        "claim": claim.text,
        "group": column.group,
        "against": against,
        **{name: round(float(value), 4) for name, value in numbers.items()},
    }
