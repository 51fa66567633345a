"""What is measured of a model on a set, as rows of a results table."""

import os
from collections.abc import Sequence
from typing import Any

from mgca.data.masks import MaskedSet, id_names
from mgca.evaluation.boundary import Contours
from mgca.evaluation.evaluate import evaluate, unit_name
from mgca.inference.segmentation import Embedded
from mgca.model import Model

# Metrics of single classes are "iou:<class>".
CLASS_IOU = "iou:"
# Added to a table by mgca.experiments.timing, not by a run.
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
        background: Threshold and temperature, as :meth:`mgca.experiments.scale.Scale.background`
            gives them; they are of use to a set with a background class only.
        features, kept: As :func:`mgca.evaluation.evaluate.evaluate` takes them.

    Returns:
        Rows with ``"dataset"``, ``"unit"``, ``"metric"`` and ``"value"``. Metrics in percent are
        ``miou``, ``accuracy``, ``boundary_iou`` and ``iou:<class>`` of each class that occurs;
        ``components`` is the number of connected components over that of the truth.
    """
    classes = id_names(data)
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


def own_rule(
    model: Model,
    data: MaskedSet,
    units: Sequence[int | None],
    *,
    features: str | os.PathLike | None = None,
    kept: dict[tuple[str, str], Embedded] | None = None,
) -> list[dict[str, Any]]:
    """mIoU on a set with background under TCL's own rule, as ``miou_sigmoid``; arguments as
    :func:`measure` takes them."""
    found = evaluate(
        model, data, units, background=0.5, rule="sigmoid", features=features, kept=kept
    )
    return [
        {"dataset": data.name, "unit": unit, "metric": "miou_sigmoid", "value": round(c.miou, 3)}
        for unit, c in found.items()
    ]
