"""The threshold of the background: mIoU at every threshold, from one pass over a set.

Neither the paper's threshold nor its temperature is known. They are chosen on images that are no
benchmark, one pair for all rows of a table, and the whole curve is shown.
``mgca experiment thresholds --scale photos`` writes ``background.csv``.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from mgca.config import BACKGROUND
from mgca.data.masks import IGNORE, MaskedSet
from mgca.evaluation.evaluate import unit_name
from mgca.model import Model
from mgca.utils.progress import progress

log = logging.getLogger(__name__)
THRESHOLDS = np.linspace(0, 1, 101)
TEMPERATURES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1)


@torch.inference_mode()
def threshold_curve(
    model: Model,
    data: MaskedSet,
    units: Sequence[int | None] = (None, 36),
    temperatures: Sequence[float] = TEMPERATURES,
    thresholds: np.ndarray = THRESHOLDS,
    words: Mapping[str, Sequence[str]] | None = None,
) -> pd.DataFrame:
    """mIoU of a set with background at each temperature and threshold.

    Equal to evaluating anew with each: a pixel keeps its class at all the thresholds below its
    probability, so counting pixels by the interval of their probability says all.

    Args:
        model: To be evaluated.
        data: A set with background.
        thresholds: Rising, in [0, 1].
        words: Words that the classes are asked for as, as in
            :func:`mgca.evaluation.evaluate.evaluate`.

    Returns:
        Columns ``unit``, ``temperature``, ``threshold``, ``miou`` (percent).

    Raises:
        ValueError: If the set has no background, or its background has words.
    """
    if words and BACKGROUND in words:
        raise ValueError(
            "a threshold is chosen for classes alone: leave the background's words out"
        )
    asked = words or data.classes
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
            segmentation = model.segment(embedded, asked, unit)
            for temperature in temperatures:
                if classes == 1:  # its probability is against words for the rest
                    segmentation = model.segment(embedded, asked, unit, 0.0, temperature)
                own = None if classes == 1 else temperature
                label, probability = (t.numpy() for t in segmentation.confidence(own))
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
