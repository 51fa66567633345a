"""The evaluation loop: what a model makes of a set's images is counted, for any number of units in
one pass."""

import dataclasses
import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mgca.config import BACKGROUND, config_hash, to_dict
from mgca.data.masks import DataError, MaskedSet, id_names
from mgca.evaluation import shares
from mgca.evaluation.metrics import Confusion, Contours, Counter, PerImage
from mgca.evaluation.results import row
from mgca.inference.scoring import SOFTMAX
from mgca.inference.segmenter import Embedded
from mgca.model import Model
from mgca.utils.devices import allow_tf32
from mgca.utils.files import replacing
from mgca.utils.progress import progress

log = logging.getLogger(__name__)

PIXEL = "pixel"
# Metrics of single classes are "iou:<class>".
CLASS_IOU = "iou:"
# Added to a table by mgca.experiments.timing, not by a run.
SECONDS = "seconds_per_image"

#: What decides which windows an image is cut into: a benchmark's protocol says it.
WINDOWS = ("short_side", "long_side", "window", "stride")
# Those, and what else decides what the network sees in them.
_SEEN = (*WINDOWS, "resize", "padding", "positions")
#: In the folder of a run, outside git: what was counted of each image, for intervals over images.
IMAGES = "images.npz"
_SAVE_EVERY = 30.0  # seconds


def unit_name(meta_points: int | None) -> str:
    """How a results table names a unit: ``"pixel"`` or the number of meta-points."""
    return PIXEL if meta_points is None else str(meta_points)


@torch.inference_mode()
def evaluate(
    model: Model,
    data: MaskedSet,
    units: Sequence[int | None] = (None, 36),
    *,
    words: Mapping[str, Sequence[str]] | None = None,
    background: float | Mapping[str, float] | None = None,
    temperature: float | None = None,
    rule: str = SOFTMAX,
    features: str | os.PathLike | None = None,
    kept: dict[tuple[str, str], Embedded] | None = None,
    counters: Mapping[str, Sequence[Counter]] | None = None,
    state: "State | None" = None,
    workers: int = 0,
) -> dict[str, Confusion]:
    """Segment every image with the set's own class names and count its pixels.

    On several processes, of ``torchrun``, each takes its share of the images, and all return the
    counts of all images.

    Args:
        model: Model to be evaluated.
        data: Images with masks; ignored pixels do not count.
        units: Numbers of meta-points, None for the pixel unit. All share one pass of the network.
        words: Words that the classes are asked for as, by the set's own names, and those of the
            background where it has some; the names themselves by default.
        background: Threshold of the background, for a set that has one; without effect on others.
        temperature: Temperature of the softmax over classes, as in :meth:`Model.segment`.
        rule: Name of the rule that makes probabilities, as in :meth:`Model.segment`.
        features: Folder to keep the frozen trunk's features of the windows in, so that another
            decoder on the same trunk needs not compute them again. None keeps nothing.
        kept: Embedded images by source and identifier, to share them among sets of one source: what
            is there is used, and what is not is added. They take about 10 MB each.
        counters: What else counts the images of each unit, by the name of the unit.
        state: Where what has been counted is kept, so that an interrupted call goes on from there.
        workers: Number of processes that read images ahead.

    Returns:
        One confusion matrix per unit, by the name of the unit. With a background, its class is
        number 0.

    Raises:
        FileNotFoundError, ImageError, DataError: If an image or mask cannot be used, or all pixels
            are ignored; with a state, what was counted before is kept.
        ValueError: If the set has a background and no threshold is given.
        OSError: If the state cannot be read or written.
    """
    if not data.background:
        background = None
    elif background is None and BACKGROUND not in (words or ()):
        raise ValueError(f"{data.name} has a background: give the threshold, background=")
    # Whatever was trained before in this process.
    allow_tf32(next(model.backbone.parameters()).device, model.precision != "float32")
    # In the order of the ids.
    asked = {n: words[n] for n in id_names(data) if n in words} if words else data.classes
    confusions = {unit_name(unit): Confusion(len(id_names(data))) for unit in units}
    counting: dict[str, list[Counter]] = {
        unit: [confusion, *(counters or {}).get(unit, ())] for unit, confusion in confusions.items()
    }
    done = state.begin(counting) if state else 0
    images = shares.own(range(len(data)))
    cache = _WindowFeatures(model, data, features) if features else None
    bar = progress(total=len(images), initial=done, desc=data.name, unit="image")
    bar.disable = bar.disable or shares.place()[0] > 0
    try:
        for identifier, image, truth in _read(data, images[done:], workers):
            embedded = kept.get((data.source, identifier)) if kept is not None else None
            if embedded is None:
                embedded = model.embed(image) if cache is None else cache.embed(identifier, image)
                if kept is not None:
                    kept[data.source, identifier] = embedded
            for unit in units:
                segmentation = model.segment(embedded, asked, unit, background, temperature, rule)
                labels = segmentation.labels.numpy()
                for counter in counting[unit_name(unit)]:
                    counter.add(labels, truth)
            if state:
                state.counted_one()
            bar.update()
    finally:
        bar.close()
        if state:
            state.save()
    shares.add_up(
        getattr(counter, table)
        for several in counting.values()
        for counter in several
        for table in counter.tables
    )
    if any(not confusion.counts.any() for confusion in confusions.values()):
        raise DataError(f"{data.name}: every pixel of its masks is ignored, so there is no mIoU")
    return confusions


def measure(
    model: Model,
    data: MaskedSet,
    units: Sequence[int | None],
    *,
    features: str | os.PathLike | None = None,
    background: dict[str, float] | None = None,
    kept: dict[tuple[str, str], Embedded] | None = None,
    images: dict[str, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """All metrics of a model on a set: IoU, accuracy, contours and components, of each unit.

    Args:
        model: Model to be measured.
        data: Images with masks.
        units: Numbers of meta-points, None for the pixel unit.
        features: Folder of kept features, as :func:`evaluate` takes it.
        background: Threshold and temperature, as :meth:`mgca.experiments.scale.Scale.background`
            gives them; they are of use to a set with a background class only.
        kept: Embedded images, as :func:`evaluate` takes them.
        images: Where what :class:`mgca.evaluation.metrics.PerImage` keeps is put, by the names
            ``SET/UNIT/TABLE``; None keeps none of it.

    Returns:
        Rows with ``"dataset"``, ``"unit"``, ``"metric"`` and ``"value"``. Metrics in percent are
        ``miou``, ``accuracy``, ``boundary_iou`` and ``iou:<class>`` of each class that occurs;
        ``components`` is the number of connected components over that of the truth. Of a set with
        background, ``miou_<rule>`` is the mIoU by each of the model's rules that has a threshold of
        its own.
    """
    classes = id_names(data)
    counted = {unit_name(unit): PerImage(len(classes)) for unit in units}
    confusions = evaluate(
        model,
        data,
        units,
        features=features,
        kept=kept,
        counters={unit: [counter] for unit, counter in counted.items()},
        **(background or {}),
    )
    if images is not None:
        for unit, counter in counted.items():
            tables = counter.images.items()
            images |= {f"{data.name}/{unit}/{name}": table for name, table in tables}
    rows = measured_rows(data.name, classes, confusions, counted)
    # A rule with a threshold of its own says another background.
    for rule, how in model.scoring.items():
        if how.threshold is not None and data.background:
            found = evaluate(
                model,
                data,
                units,
                background=how.threshold,
                rule=rule,
                features=features,
                kept=kept,
            )
            rows += [_measured(data.name, u, f"miou_{rule}", c.miou) for u, c in found.items()]
    return rows


def measured_rows(
    name: str,
    classes: Sequence[str],
    confusions: Mapping[str, Confusion],
    contours: Mapping[str, Contours],
) -> list[dict[str, Any]]:
    """The rows of :func:`measure`, of what was counted.

    Args:
        name: Name of the set.
        classes: Names of all its ids, the background included.
        confusions: Confusion matrix of each unit.
        contours: Contours of each unit.
    """
    return [
        _measured(name, unit, metric, value)
        for unit, confusion in confusions.items()
        for metric, value in {
            "miou": confusion.miou,
            "accuracy": confusion.accuracy,
            "boundary_iou": contours[unit].boundary_iou,
            "components": contours[unit].components,
            **{
                CLASS_IOU + each: 100 * float(iou)
                for each, iou in zip(classes, confusion.iou, strict=True)
                if iou == iou  # not of a class that does not occur
            },
        }.items()
    ]


def _measured(name: str, unit: str, metric: str, value: float) -> dict[str, Any]:
    return {"dataset": name, "unit": unit, "metric": metric, "value": round(value, 3)}


def result_rows(
    confusions: dict[str, Confusion], *, variant: str, dataset: str, seed: int, run: str
) -> list[dict[str, Any]]:
    """Rows of a results table: mean IoU and pixel accuracy of each unit."""
    return [
        row(variant, dataset, unit, seed, metric, value, run)
        for unit, confusion in confusions.items()
        for metric, value in (("miou", confusion.miou), ("accuracy", confusion.accuracy))
    ]


class State:
    """What an evaluation has counted so far, in a file from which an interrupted one goes on.

    Args:
        path: File to keep it in.
        stamps: One for each image, JSON data that changes when the image or its mask does. Where
            that of a counted image has changed, counting starts again.

    Attributes:
        seconds: Wall time that counting took, all its parts together.
    """

    def __init__(self, path: str | os.PathLike[str], stamps: Sequence[Any] = ()) -> None:
        self.path, self.stamps = Path(path), stamps
        self.seconds = 0.0
        self._counted: tuple[int, dict[str, np.ndarray]] = (0, {})

    def begin(self, counters: Mapping[str, Sequence[Counter]]) -> int:
        """Give counters what was counted before, and return the number of images that it was.

        Raises:
            OSError: If the file is damaged.
        """
        self._tables = {
            f"{unit} {number} {table}": getattr(counter, table)
            for unit, several in counters.items()
            for number, counter in enumerate(several)
            for table in counter.tables
        }
        done, before = 0, 0.0
        if self.path.is_file():
            try:
                with np.load(self.path) as kept:
                    stamp, arrays = kept["stamp"], {name: kept[name] for name in self._tables}
                    if stamp == self._stamp(int(kept["done"])):
                        done, before = int(kept["done"]), float(kept["seconds"])
                        for name, array in arrays.items():
                            self._tables[name][...] = array
                        log.info("%d images are counted already", done)
                    else:
                        log.warning("images have changed since they were counted: starting again")
            except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
                raise OSError(
                    f"{self.path} is damaged ({error}): delete it to start again"
                ) from error
        self._began = time.perf_counter() - before
        self._saved = time.perf_counter()
        self._counted = done, self._copies()
        return done

    def counted_one(self) -> None:
        """Note that one more image is counted by all, and save now and then."""
        # In one, so that an interruption cannot come between, and a copy, because it may come
        # between two units of the next image.
        self._counted = self._counted[0] + 1, self._copies()
        if time.perf_counter() - self._saved > _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write what has been counted, whole or not at all."""
        self._saved = time.perf_counter()
        self.seconds = self._saved - self._began
        done, arrays = self._counted
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, done=done, seconds=self.seconds, stamp=self._stamp(done), **arrays)

    def _copies(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._tables.items()}

    def _stamp(self, done: int) -> str:
        """Names the first so many images as they are now."""
        return hashlib.sha256(json.dumps(list(self.stamps[:done])).encode()).hexdigest()


def _read(
    data: MaskedSet, images: Sequence[int], workers: int
) -> Iterator[tuple[str, Image.Image, Any]]:
    """The images of a set at some positions, read ahead by so many processes."""
    if not workers:
        yield from (data[index] for index in images)
        return
    # A generator of its own, so that reading ahead draws nothing from the global one.
    loader = DataLoader(
        _Rest(data, images),
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )
    for item in loader:
        if isinstance(item, Exception):
            raise item
        yield item


class _Rest(Dataset):
    """The images of a set at some positions.

    An error comes as the item: a worker process would hand it over as a traceback in the place of
    its message.
    """

    def __init__(self, data: MaskedSet, images: Sequence[int]) -> None:
        self.data, self.images = data, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[str, Image.Image, np.ndarray] | Exception:
        try:
            return self.data[self.images[index]]
        except (OSError, ValueError) as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


class _WindowFeatures:
    """Trunk features of the windows of each image, one file per image."""

    def __init__(self, model: Model, data: MaskedSet, folder: str | os.PathLike) -> None:
        key = config_hash(
            {
                "trunk": model.backbone.trunk_digest,
                "data": data.digest,
                "name": data.source,
                "window": {k: v for k, v in to_dict(model.config).items() if k in _SEEN},
                "threads": torch.get_num_threads(),  # last bits depend on it
            }
        )
        self.model = model
        self.folder = Path(folder) / f"windows-{data.source}-{key}"

    def embed(self, identifier: str, image: Image.Image) -> Embedded:
        model = self.model
        geometry, windows = model.windows(image)
        features = self._kept(self.folder, identifier, lambda: model.features(windows))
        affinity = None
        if name := model.config.affinity:
            folder = self.folder.with_name(f"{self.folder.name}-{name.replace(':', '-')}")
            affinity = self._kept(folder, identifier, lambda: model.affinity(windows))
        return dataclasses.replace(geometry, pixels=model.pixels(features), affinity=affinity)

    @staticmethod
    def _kept(folder: Path, identifier: str, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What is kept of an image in a folder, or else computed and kept."""
        path = folder / f"{identifier}.npy"
        if path.is_file():
            return torch.from_numpy(np.load(path)).float()
        found = compute().half()
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, found.cpu().numpy())
        # As a later run will read it, so that the first run has the same result.
        return found.float()
