"""What is measured of a model on a set, as rows of a results table."""

import os
from collections.abc import Sequence
from typing import Any

from mgca.boundary import Contours
from mgca.evaluate import MaskedSet, evaluate, unit_name
from mgca.model import Model
from mgca.scales import Scale
from mgca.segment import BACKGROUND, Embedded

# Metrics of single classes are "iou:<class>".
CLASS_IOU = "iou:"
# Added to a table by mgca.timing, not by a run.
SECONDS = "seconds_per_image"


def measure(
    model: Model,
    data: MaskedSet,
    units: Sequence[int | None],
    *,
    features: str | os.PathLike | None = None,
    background: dict[str, float] | None = None,
    kept: dict[tuple[str, str], Embedded] | None = None,
) -> list[dict[str, Any]]:
    """All metrics of a model on a set: IoU, accuracy, contours and components, of each unit.

    Args:
        background: Threshold and temperature, as :meth:`mgca.scales.Scale.background` gives them;
            they are of use to a set with a background class only.
        features, kept: As :func:`mgca.evaluate.evaluate` takes them.

    Returns:
        Rows with ``"dataset"``, ``"unit"``, ``"metric"`` and ``"value"``. Metrics in percent are
        ``miou``, ``accuracy``, ``boundary_iou`` and ``iou:<class>`` of each class that occurs;
        ``components`` is the number of connected components over that of the truth.
    """
    classes = (BACKGROUND, *data.classes) if data.background else data.classes
    contours = {unit_name(unit): Contours(len(classes)) for unit in units}
    confusions = evaluate(
        model,
        data,
        units,
        features=features,
        kept=kept,
        also=lambda unit, labels, truth: contours[unit].add(labels, truth),
        **(background or {}),
    )
    rows = []
    for unit, confusion in confusions.items():
        values = {
            "miou": confusion.miou,
            "accuracy": confusion.accuracy,
            "boundary_iou": contours[unit].boundary_iou,
            "components": contours[unit].components,
        }
        values |= {
            CLASS_IOU + name: 100 * float(iou)
            for name, iou in zip(classes, confusion.iou, strict=True)
            if iou == iou  # not of a class that does not occur
        }
        rows += [
            {"dataset": data.name, "unit": unit, "metric": metric, "value": round(value, 3)}
            for metric, value in values.items()
        ]
    return rows


def own_rule(model: Model, scale: Scale, units: Sequence[int | None]) -> list[dict[str, Any]]:
    """mIoU under TCL's own rule of the background, as ``miou_sigmoid``."""
    return [
        {"dataset": data.name, "unit": unit, "metric": "miou_sigmoid", "value": round(c.miou, 3)}
        for data in scale.sets()
        if data.background
        for unit, c in evaluate(
            model, data, units, background=0.5, rule="sigmoid", features=scale.cache
        ).items()
    ]
