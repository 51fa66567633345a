"""One test of one model on one set by mmengine's Runner, which goes on where it stopped."""

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.models.data_preprocessor import SegDataPreProcessor
from torch.utils.data import Dataset

from mgca.evaluation.evaluate import unit_name
from mgca.evaluation.metrics import Confusion
from mgca.evaluation.mmseg.metric import UnitIoU
from mgca.evaluation.mmseg.segmentor import OpenVocabulary
from mgca.model import Model
from mgca.utils.files import replacing
from mgca.utils.progress import progress

log = logging.getLogger(__name__)

_SAVE_EVERY = 30.0  # seconds


class Tested(NamedTuple):
    """What a test counted.

    Attributes:
        confusions: One confusion matrix per unit, by its name; background, if any, is class 0.
        mmsegmentation: ``mIoU``, ``aAcc`` and ``mAcc`` of its ``IoUMetric`` per unit, in percent.
        seconds: Wall time, of all the parts if it was interrupted.
    """

    confusions: dict[str, Confusion]
    mmsegmentation: dict[str, dict[str, float]]
    seconds: float


def run_test(
    model: Model,
    dataset: Dataset,
    classes: Sequence[str],
    units: Sequence[int | None],
    folder: str | os.PathLike,
    *,
    background: float | None = None,
    temperature: float | None = None,
    rule: str = "softmax",
    workers: int = 0,
    name: str = "test",
    stamps: Sequence[Any] | None = None,
) -> Tested:
    """Evaluate by ``Runner.test()``, or go on where an interrupted call stopped.

    Args:
        model: To be evaluated.
        dataset: Of mmsegmentation, or :class:`mgca.evaluation.mmseg.sets.MaskedImages`.
        classes: Names that are asked for, without "background".
        units: Numbers of meta-points, None for the pixel unit. All share one pass of the network.
        folder: Of this test alone: mmengine's log, and what has been counted so far.
        background, temperature, rule: As in :meth:`mgca.model.Model.segment`.
        workers: Processes that read images ahead.
        name: For the progress bar.
        stamps: One per image, JSON data that changes when the image or its mask does. Where that of
            a counted image has changed, counting starts again.

    Raises:
        FileNotFoundError, ImageError, DataError: If an image or a mask cannot be used. What was
            counted before it is kept.
        OSError: If the folder cannot be written to.
    """
    folder = Path(folder)
    names = [unit_name(unit) for unit in units]
    count = len(classes) + (background is not None)
    state = _State(folder / "counted.npz", names, count, stamps)
    done, before = state.counted
    if done:
        log.info("%d images are counted already", done)
    metrics = [UnitIoU(unit, count, before[unit]) for unit in names]
    segmentor = OpenVocabulary(
        model, classes, units, background, temperature, rule, SegDataPreProcessor()
    )
    device = next(model.backbone.parameters()).device
    keep = _Keep(state, metrics, len(dataset), name)
    runner = Runner(
        model=segmentor,
        work_dir=str(folder),
        test_dataloader={
            "dataset": _Rest(dataset, done),
            "batch_size": 1,
            "num_workers": workers,
            # Not rounded up, which divides by the number of images left: there may be none.
            "sampler": {"type": "DefaultSampler", "shuffle": False, "round_up": False},
        },
        test_evaluator=metrics,
        test_cfg={"type": "TestLoop"},
        custom_hooks=[keep],
        default_scope="mmseg",
        log_level="WARNING",
        experiment_name=f"{name}-{time.monotonic_ns()}",
    )
    segmentor.to(device)  # back from where the Runner moved it: a GPU, wherever there is one
    try:
        found = runner.test()
    except BaseException:
        keep.save()
        raise
    finally:
        keep.bar.close()
    return Tested(
        {metric.unit: metric.confusion for metric in metrics},
        {
            unit: {key: float(found[f"{unit}/{key}"]) for key in ("mIoU", "aAcc", "mAcc")}
            for unit in names
        },
        state.seconds,
    )


class _Rest(Dataset):
    """The images of a dataset from ``first`` on; the dataset itself stays whole.

    An error comes as the item, and the hook below raises it: a worker process would hand it over
    as a traceback in the place of its message.
    """

    def __init__(self, dataset: Dataset, first: int) -> None:
        self.dataset, self.first = dataset, first
        self.metainfo = dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset) - self.first

    def __getitem__(self, index: int) -> dict | Exception:
        try:
            return self.dataset[self.first + index]
        except (OSError, ValueError) as error:
            return error


class _State:
    """Counts of the images seen so far, kept in a file.

    Attributes:
        counted: How many images, and their counts (K, K) by unit. In one, so that an interruption
            cannot come between.
        seconds: That they took.
    """

    def __init__(
        self, path: Path, units: list[str], classes: int, stamps: Sequence[Any] | None
    ) -> None:
        self.path, self.stamps = path, stamps or ()
        zeros = {unit: np.zeros((classes, classes), dtype=np.int64) for unit in units}
        self.counted: tuple[int, dict[str, np.ndarray]] = (0, zeros)
        self.seconds = 0.0
        if not path.is_file():
            return
        try:
            with np.load(path) as kept:
                done, seconds, stamp = int(kept["done"]), float(kept["seconds"]), kept["stamp"]
                counts = {unit: kept[f"unit {unit}"] for unit in units}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise OSError(f"{path} is damaged ({error}): delete it to start again") from error
        if stamp == self._stamp(done):
            self.counted, self.seconds = (done, counts), seconds
        else:
            log.warning("images have changed since they were counted: starting again")

    def _stamp(self, done: int) -> str:
        """Names the first so many images as they are now."""
        return hashlib.sha256(json.dumps(self.stamps[:done]).encode()).hexdigest()

    def save(self) -> None:
        """Write the counts, whole or not at all."""
        done, counts = self.counted
        arrays = {f"unit {unit}": array for unit, array in counts.items()}
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, done=done, seconds=self.seconds, stamp=self._stamp(done), **arrays)


class _Keep(Hook):
    """Shows the progress, and keeps what has been counted, now and then and at the end."""

    def __init__(self, state: _State, metrics: Sequence[UnitIoU], total: int, name: str) -> None:
        self.state, self.metrics = state, metrics
        self.bar = progress(total=total, initial=state.counted[0], desc=name, unit="image")
        self.before = state.seconds
        self.began = self.saved = time.perf_counter()

    def before_test_iter(self, runner, batch_idx, data_batch=None) -> None:
        # mmengine's collation makes a list of what it does not know.
        if isinstance(data_batch, list):
            raise data_batch[0]

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        # A copy of whole images' counts: an interruption may come between two units of an image.
        counts = {metric.unit: metric.confusion.counts.copy() for metric in self.metrics}
        self.state.counted = (self.state.counted[0] + 1, counts)
        self.bar.update()
        if time.perf_counter() - self.saved > _SAVE_EVERY:
            self.save()

    def after_test_epoch(self, runner, metrics=None) -> None:
        self.save()

    def save(self) -> None:
        self.saved = time.perf_counter()
        self.state.seconds = self.before + self.saved - self.began
        self.state.save()
