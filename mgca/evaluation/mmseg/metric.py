"""mmsegmentation's IoUMetric for one unit, beside the confusion matrix; both can be resumed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmseg.evaluation.metrics import IoUMetric
from mmseg.registry import METRICS

from mgca.data.masks import DataError
from mgca.evaluation.metrics import Confusion

# mmsegmentation counts pixels in float32, and adds two counts: exact up to 16 million.
_EXACT = 2**23


@METRICS.register_module()
class UnitIoU(IoUMetric):
    """``IoUMetric`` on the prediction of one unit.

    Beside mmsegmentation's areas it keeps ``confusion``, of which this project's numbers come,
    and compares the two at the end.

    Args:
        unit: ``"pixel"`` or the number of meta-points.
        classes: Number of classes, the background included.
        before: Confusion counts (K, K) of the images that an interrupted test has seen.
    """

    def __init__(
        self, unit: str, classes: int, before: np.ndarray | None = None, **options
    ) -> None:
        super().__init__(prefix=unit, **options)
        self.unit = unit
        self._start(np.zeros((classes, classes), dtype=np.int64) if before is None else before)

    def _start(self, before: np.ndarray) -> None:
        self.confusion = Confusion(len(before), self.ignore_index)
        self.confusion.counts += before
        self._before, self._ended = areas(before), False

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch.

        Raises:
            DataError: If a mask has unknown ids, or another size than its image.
        """
        if self._ended:  # another test with the same metric, as after each epoch
            self._start(np.zeros_like(self.confusion.counts))
        for sample in data_samples:
            predicted = sample[f"pred_{self.unit}"]["data"][0].cpu().numpy()
            truth = sample["gt_sem_seg"]["data"].squeeze(0).cpu().numpy()
            try:
                self.confusion.add(predicted, truth)
            except ValueError as error:
                raise DataError(
                    f"{sample.get('seg_map_path', 'a mask')}: {error}. Check the set with "
                    "'mgca data check'"
                ) from error
        own = [part for sample in data_samples for part in self._parts(sample)]
        super().process(data_batch, own)

    def _parts(self, sample: dict) -> Iterator[dict]:
        """A sample with this unit's prediction, in bands of rows where it has many pixels."""
        predicted, truth = sample[f"pred_{self.unit}"]["data"], sample["gt_sem_seg"]["data"]
        rows = max(1, _EXACT // predicted.shape[-1])
        for first in range(0, predicted.shape[-2], rows):
            band = slice(first, first + rows)
            yield {
                **sample,
                "pred_sem_seg": {"data": predicted[..., band, :]},
                "gt_sem_seg": {"data": truth[..., band, :]},
            }

    def evaluate(self, size: int) -> dict[str, Any]:
        """The metrics; ``size`` images were counted by this test, others before it."""
        self._ended = True
        self.results.append(self._before)
        return super().evaluate(max(size, len(self.results)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """mmsegmentation's ``aAcc``, ``mIoU`` and ``mAcc`` in percent, and this project's ``miou``.

        Raises:
            RuntimeError: If mmsegmentation's areas are not those of the confusion matrix.
        """
        # mmsegmentation adds areas up in float32, which is exact for 16 million pixels only.
        totals = [sum(area.double() for area in column) for column in zip(*results, strict=True)]
        expected = areas(self.confusion.counts)
        for name, found, own in zip(
            ("intersection", "union", "prediction", "truth"), totals, expected, strict=True
        ):
            if not torch.equal(found, own.double()):
                raise RuntimeError(f"two counts of the {name} of each class differ: {found}, {own}")
        return super().compute_metrics([tuple(totals)]) | {"miou": self.confusion.miou}


def areas(counts: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Intersection, union, prediction and truth of each class, as mmsegmentation keeps them."""
    counts = torch.from_numpy(counts)
    hit, predicted, truth = counts.diagonal(), counts.sum(0), counts.sum(1)
    return hit, predicted + truth - hit, predicted, truth
