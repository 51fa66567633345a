"""The threshold of the background: mIoU at every threshold, from one pass over a set.

Neither the paper's threshold nor its temperature is known. They are chosen on images that are no
benchmark, one pair for all rows of a table, and the whole curve is shown.
``python -m mgca.evaluation.thresholds --scale photos`` writes ``results/<scale>/background.csv``.
"""

import argparse
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mgca.config import config_hash, to_dict
from mgca.data.masks import IGNORE, MaskedSet
from mgca.evaluation.evaluate import unit_name
from mgca.evaluation.results import write_run
from mgca.model import Model
from mgca.scales import Scale, load_scale
from mgca.utils.files import replacing
from mgca.utils.progress import progress
from mgca.utils.provenance import provenance
from mgca.weights import load_weights
from mgca.weights.decoders import decoder_from

log = logging.getLogger(__name__)

COLUMNS = ["variant", "dataset", "unit", "seed", "temperature", "threshold", "miou", "run"]
THRESHOLDS = np.linspace(0, 1, 101)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1)


@torch.inference_mode()
def threshold_curve(
    model: Model,
    data: MaskedSet,
    units: Sequence[int | None] = (None, 36),
    temperatures: Sequence[float] = TEMPERATURES,
    thresholds: np.ndarray = THRESHOLDS,
) -> pd.DataFrame:
    """mIoU of a set with background at each temperature and threshold.

    Equal to evaluating anew with each: a pixel keeps its class at all the thresholds below its
    probability, so counting pixels by the interval of their probability says all.

    Args:
        model: To be evaluated.
        data: A set with background.
        thresholds: Rising, in [0, 1].

    Returns:
        Columns ``unit``, ``temperature``, ``threshold``, ``miou`` (percent).

    Raises:
        ValueError: If the set has no background.
    """
    if not data.background:
        raise ValueError(f"{data.name} has no background, so there is no threshold to choose")
    classes, intervals = len(data.classes), len(thresholds) + 1
    # Foreground pixels by (true class, predicted class, interval of the probability); true class 0
    # is the background.
    counts = {
        (unit, temperature): np.zeros((classes + 1, classes, intervals), dtype=np.int64)
        for unit in units
        for temperature in temperatures
    }
    bar = progress(total=len(data), desc=f"thresholds on {data.name}", unit="image")
    for _, image, truth in data:
        embedded = model.embed(image)
        counted = truth != IGNORE
        for unit in units:
            segmentation = model.segment(embedded, data.classes, unit)
            for temperature in temperatures:
                label, probability = (t.numpy() for t in segmentation.confidence(temperature))
                # How many of the thresholds lie below the probability: it is kept at those.
                interval = np.searchsorted(
                    thresholds.astype(np.float32), probability[counted], side="left"
                )
                flat = np.ravel_multi_index(
                    (truth[counted].astype(np.int64), label[counted], interval),
                    counts[unit, temperature].shape,
                )
                found = np.bincount(flat, minlength=counts[unit, temperature].size)
                counts[unit, temperature] += found.reshape(counts[unit, temperature].shape)
        bar.update()
    bar.close()
    rows = [
        {
            "unit": unit_name(unit),
            "temperature": temperature,
            "threshold": round(float(threshold), 6),
            "miou": round(value, 3),
        }
        for (unit, temperature), count in counts.items()
        for threshold, value in zip(thresholds, _mious(count), strict=True)
    ]
    return pd.DataFrame(rows)


def _mious(counts: np.ndarray) -> list[float]:
    """mIoU in percent at each threshold, over the classes that occur in the truth."""
    # kept[..., t]: pixels above threshold t, which lie in the intervals after it.
    kept = counts[:, :, ::-1].cumsum(axis=2)[:, :, ::-1][:, :, 1:]
    truth = counts.sum(axis=(1, 2))
    predicted = kept.sum(axis=0)  # (classes, thresholds)
    hit = kept[1:][np.arange(len(predicted)), np.arange(len(predicted))]
    background = truth[:, None] - kept.sum(axis=1)  # predicted background, by true class
    hit = np.concatenate([background[:1], hit])
    predicted = np.concatenate([background.sum(axis=0, keepdims=True), predicted])
    union = truth[:, None] + predicted - hit
    return (100 * (hit / np.maximum(union, 1))[truth > 0].mean(axis=0)).tolist()


def choose(curves: pd.DataFrame) -> tuple[float, float, float]:
    """Threshold and temperature with the largest mean over all lines, and that mean.

    One pair for all lines, so that none is favoured.
    """
    mean = curves.groupby(["temperature", "threshold"])["miou"].mean()
    temperature, threshold = mean.idxmax()
    return float(threshold), float(temperature), float(mean.max())


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m mgca.evaluation.thresholds``: the curves of a scale, on images that are no benchmark."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--scale", default="scenes", help="scenes or photos")
    parser.add_argument("--data", default=None, help="data sets; $MGCA_DATA or ../shared/data")
    parser.add_argument("--cache", default=None, help="features; $MGCA_CACHE or ~/.cache/mgca")
    parser.add_argument("--out", default=None, help="results folder; results/<scale>")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    scale = load_scale(given.scale, data=given.data, cache=given.cache)
    table = scale_curves(scale, given.out or Path("results") / scale.name)
    threshold, temperature, miou = choose(table)
    log.info("best: threshold %.2f, temperature %g, mean mIoU %.2f", threshold, temperature, miou)


def scale_curves(scale: Scale, out: str | os.PathLike) -> pd.DataFrame:
    """Curves of the published models of a scale, with and without their decoder, both units.

    Writes ``<out>/background.csv`` and the run's provenance.
    """
    began = time.perf_counter()
    data = scale.calibration()
    state, meta = load_weights(f"{scale.training.backbone}-mgca")
    backbone = scale.published_backbone()
    decoders = {"dense": None, "mgca": decoder_from(state, meta, backbone)}
    config = {
        "scale": scale.name,
        "set": [data.name, data.digest, len(data)],
        "decoder": meta["run"],
        "backbone": backbone.digest,
        "segment": to_dict(scale.segment()),
        "temperatures": TEMPERATURES,
    }
    run = config_hash(config)
    curves = []
    for variant, decoder in decoders.items():
        model = Model(backbone, decoder, scale.segment())
        # The one in use among them, so that its curve is there.
        own = round(scale.background(model)["temperature"], 4)
        curve = threshold_curve(model, data, temperatures=sorted({*TEMPERATURES, own}))
        curves.append(curve.assign(variant=variant, dataset=data.name, seed=0, run=run))
    table = pd.concat(curves, ignore_index=True)[COLUMNS]
    record = provenance(
        config, seed=0, data={data.name: data.digest}, seconds=time.perf_counter() - began
    )
    write_run(out, run, record)
    with replacing(Path(out) / "background.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


if __name__ == "__main__":
    main()
