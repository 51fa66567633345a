"""Seconds an image of every method of a scale, side by side in one run.

``mgca experiment timing --scale scenes`` adds the metric ``seconds_per_image`` to the scale's
``benchmarks.csv``: from the open image to labels at its size, weights at hand,
nothing cached. Decoders are not trained for it, which takes no different time.
"""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mgca.config import config_hash
from mgca.evaluation.evaluate import SECONDS, unit_name
from mgca.evaluation.results import COLUMNS, read_results, row, write_run
from mgca.experiments.grid import UNITS, grid
from mgca.experiments.scale import Scale
from mgca.model import Model
from mgca.utils.files import write_text
from mgca.utils.processes import threads
from mgca.utils.progress import progress
from mgca.utils.provenance import provenance
from mgca.weights.decoders import new_decoder


def seconds_per_image(
    scale: Scale,
    out: str | os.PathLike,
    *,
    published: str | os.PathLike | None = None,
    images: int = 5,
    units: Sequence[int | None] = UNITS,
    cores: int = 2,
) -> list[dict]:
    """Median seconds of each method and unit on each set of a scale.

    Methods take turns image by image, so that whatever else the machine does falls on all.

    Args:
        scale: Scale whose methods and sets are timed.
        out: Folder of the table; the rows take the place of the times that it holds.
        published: Results folder with the table's other rows, where ``out`` has none.
        images: Number of images of each set, after one that is not counted.
        units: Numbers of meta-points, None for the pixel unit.
        cores: Number of threads.

    Returns:
        Rows of a results table.
    """
    began = time.perf_counter()
    variants = grid("benchmarks", scale)
    models = {}
    for variant in variants:
        backbone = scale.backbone(0, variant.last_block)
        decoder = new_decoder(backbone).requires_grad_(False) if variant.train else None
        models[variant.name] = Model(backbone, decoder, scale.segment())
    taken: dict[tuple[str, str, str], list[float]] = {}
    sets = scale.sets()
    bar = progress(total=len(sets) * (images + 1), desc="timing", unit="image")
    with threads(cores):
        for data in sets:
            for number, (_, image, _) in enumerate(data.first(images + 1)):
                for name, model in models.items():
                    options = scale.background(model) if data.background else {}
                    for unit in units:
                        start = time.perf_counter()
                        _ = model.segment(image, data.classes, unit, **options).labels
                        if number:
                            seconds = time.perf_counter() - start
                            taken.setdefault((name, data.name, unit_name(unit)), []).append(seconds)
                bar.update()
    bar.close()
    config = {"scale": scale.name, "timing": images, "cores": cores, "sets": list(scale.datasets)}
    run = config_hash(config)
    rows = [
        row(name, data, unit, 0, SECONDS, statistics.median(seconds), run, digits=4)
        for (name, data, unit), seconds in taken.items()
    ]
    record = provenance(config, seed=0, data=scale.digests(), seconds=time.perf_counter() - began)
    write_run(out, run, record)
    path = Path(out) / "benchmarks.csv"
    previous = read_results(path)
    if published and not len(previous):
        previous = read_results(Path(published) / path.name)
    # In the order of the methods that the table has, and below it.
    table = [*previous[previous["metric"] != SECONDS].to_dict("records"), *rows]
    write_text(path, pd.DataFrame(table, columns=COLUMNS).to_csv(index=False))
    return rows
