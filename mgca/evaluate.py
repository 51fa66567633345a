"""Evaluate a model on images with masks: mean IoU for any number of units in one pass."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mgca.config import config_hash, to_dict
from mgca.data import Masked
from mgca.files import replacing
from mgca.images import open_image
from mgca.metrics import Confusion
from mgca.model import Model
from mgca.progress import progress
from mgca.segment import Embedded

PIXEL = "pixel"


def unit_name(meta_points: int | None) -> str:
    """How a results table names a unit: ``"pixel"`` or the number of meta-points."""
    return PIXEL if meta_points is None else str(meta_points)


@torch.inference_mode()
def evaluate(
    model: Model,
    data: Masked,
    units: Sequence[int | None] = (None, 36),
    *,
    features: str | os.PathLike | None = None,
) -> dict[str, Confusion]:
    """Segment every image with the set's own class names and count its pixels.

    Args:
        model: To be evaluated.
        data: Images with masks; every pixel gets one of its classes, ignored ones do not count.
        units: Numbers of meta-points, None for the pixel unit. All share one pass of the network.
        features: Folder to keep the frozen trunk's features of the windows in, so that another
            decoder on the same trunk needs not compute them again. None keeps nothing.

    Returns:
        One confusion matrix per unit, by the name of the unit.

    Raises:
        FileNotFoundError, ImageError, DataError: If an image or mask cannot be used.
    """
    confusions = {unit_name(unit): Confusion(len(data.classes)) for unit in units}
    cache = _WindowFeatures(model, data, features) if features else None
    bar = progress(total=len(data), desc=data.name, unit="image")
    for index, (identifier, path, _) in enumerate(data.items):
        image = open_image(path)
        truth = data.mask(index, (image.height, image.width))
        embedded = model.embed(image) if cache is None else cache.embed(identifier, image)
        for unit in units:
            labels = model.segment(embedded, data.classes, unit).labels
            confusions[unit_name(unit)].add(labels.numpy(), truth)
        bar.update()
    bar.close()
    return confusions


class _WindowFeatures:
    """Trunk features of the windows of each image, one file per image."""

    def __init__(self, model: Model, data: Masked, folder: str | os.PathLike) -> None:
        key = config_hash(
            {
                "trunk": model.backbone.trunk_digest,
                "data": data.digest,
                "name": data.name,
                "window": {k: to_dict(model.config)[k] for k in _WINDOW_FIELDS},
            }
        )
        self.model = model
        self.folder = Path(folder) / f"windows-{data.name}-{key}"

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
