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
        ``components`` is the number of connected components over that of the truth. Of a set with
        background, ``miou_<rule>`` is the mIoU by each of the model's rules that has a threshold of
        its own.
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
    # A rule with a threshold of its own says another background.
    for rule, how in model.scoring.items():
        if how.threshold is None or not data.background:
            continue
        confusions = evaluate(
            model, data, units, background=how.threshold, rule=rule, features=features, kept=kept
        )
        rows += [
            {"dataset": data.name, "unit": unit, "metric": f"miou_{rule}"}
            | {"value": round(confusion.miou, 3)}
            for unit, confusion in confusions.items()
        ]
    return rows
