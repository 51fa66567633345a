"""Evaluate a model on images with masks: mean IoU for any number of units in one pass."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mgca.config import config_hash, to_dict
from mgca.data.masks import MaskedSet
from mgca.evaluation.metrics import Confusion
from mgca.inference.segmentation import Embedded
from mgca.model import Model
from mgca.utils.files import replacing
from mgca.utils.progress import progress

PIXEL = "pixel"


def unit_name(meta_points: int | None) -> str:
    """How a results table names a unit: ``"pixel"`` or the number of meta-points."""
    return PIXEL if meta_points is None else str(meta_points)


@torch.inference_mode()
def evaluate(
    model: Model,
    data: MaskedSet,
    units: Sequence[int | None] = (None, 36),
    *,
    background: float | None = None,
    temperature: float | None = None,
    rule: str = "softmax",
    features: str | os.PathLike | None = None,
    kept: dict[tuple[str, str], Embedded] | None = None,
    also: Callable[[str, np.ndarray, np.ndarray], None] | None = None,
) -> dict[str, Confusion]:
    """Segment every image with the set's own class names and count its pixels.

    Args:
        model: To be evaluated.
        data: Images with masks; ignored pixels do not count.
        units: Numbers of meta-points, None for the pixel unit. All share one pass of the network.
        background, temperature, rule: Threshold, temperature and kind of the probabilities, for a
            set with a background; they have no effect on others. As in :meth:`Model.segment`.
        features: Folder to keep the frozen trunk's features of the windows in, so that another
            decoder on the same trunk needs not compute them again. None keeps nothing.
        kept: Embedded images by source and identifier, to share them among sets of one source: what
            is there is used, and what is not is added. They take about 10 MB each.
        also: Called with the name of each unit, and labels and truth (H, W) of each image.

    Returns:
        One confusion matrix per unit, by the name of the unit. With a background, its class is
        number 0.

    Raises:
        FileNotFoundError, ImageError, DataError: If an image or mask cannot be used.
        ValueError: If the set has a background and no threshold is given.
    """
    if not data.background:
        background = None
    elif background is None:
        raise ValueError(f"{data.name} has a background: give the threshold, background=")
    count = len(data.classes) + data.background
    confusions = {unit_name(unit): Confusion(count) for unit in units}
    cache = _WindowFeatures(model, data, features) if features else None
    bar = progress(total=len(data), desc=data.name, unit="image")
    for identifier, image, truth in data:
        embedded = kept.get((data.source, identifier)) if kept is not None else None
        if embedded is None:
            embedded = model.embed(image) if cache is None else cache.embed(identifier, image)
            if kept is not None:
                kept[data.source, identifier] = embedded
        for unit in units:
            segmentation = model.segment(
                embedded, data.classes, unit, background, temperature, rule
            )
            labels = segmentation.labels.numpy()
            confusions[unit_name(unit)].add(labels, truth)
            if also:
                also(unit_name(unit), labels, truth)
        bar.update()
    bar.close()
    return confusions


class _WindowFeatures:
    """Trunk features of the windows of each image, one file per image."""

    def __init__(self, model: Model, data: MaskedSet, folder: str | os.PathLike) -> None:
        key = config_hash(
            {
                "trunk": model.backbone.trunk_digest,
                "data": data.digest,
                "name": data.source,
                "window": {k: to_dict(model.config)[k] for k in _WINDOW_FIELDS},
            }
        )
        self.model = model
        self.folder = Path(folder) / f"windows-{data.source}-{key}"

    def embed(self, identifier: str, image) -> Embedded:
        path = self.folder / f"{identifier}.npy"
        geometry, windows = self.model.windows(image)
        if path.is_file():
            features = torch.from_numpy(np.load(path)).float()
        else:
            features = self.model.features(windows)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, features.half().numpy())
            # As a later run will read it, so that the first run has the same result.
            features = features.half().float()
        return dataclasses.replace(geometry, pixels=self.model.pixels(features))


_WINDOW_FIELDS = ("short_side", "long_side", "window", "stride")


def result_rows(
    confusions: dict[str, Confusion], *, variant: str, dataset: str, seed: int, run: str
) -> list[dict]:
    """Rows of a results table: mean IoU and pixel accuracy of each unit."""
    return [
        {
            "variant": variant,
            "dataset": dataset,
            "unit": unit,
            "seed": seed,
            "metric": metric,
            "value": round(value, 3),
            "run": run,
        }
        for unit, confusion in confusions.items()
        for metric, value in (("miou", confusion.miou), ("accuracy", confusion.accuracy))
    ]
