"""Mean intersection over union, from a confusion matrix, and recall of retrieval."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor


class Confusion:
    """Counts of pixels by true and predicted class.

    Args:
        classes: Number of classes ``K``.
        ignore: Id of pixels that do not count.
    """

    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.ignore = ignore
        self.counts = np.zeros((classes, classes), dtype=np.int64)  # (true, predicted)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count the pixels of an image.

        Raises:
            ValueError: If the maps differ in size, or an id is not a class.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} differ in size")
        classes = len(self.counts)
        counted = truth != self.ignore
        truth = truth[counted].astype(np.int64)
        predicted = predicted[counted].astype(np.int64)
        for name, ids in (("truth", truth), ("prediction", predicted)):
            if ids.size and not (0 <= ids.min() and ids.max() < classes):
                raise ValueError(f"the {name} has ids outside 0 to {classes - 1}")
        flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
        self.counts += flat.reshape(classes, classes)

    @property
    def iou(self) -> np.ndarray:
        """(K,) intersection over union of each class; NaN for classes absent from the truth."""
        hit = np.diag(self.counts).astype(float)
        truth, predicted = self.counts.sum(1), self.counts.sum(0)
        return np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), np.nan)

    @property
    def miou(self) -> float:
        """Mean over the classes that occur in the truth, in percent; NaN without any."""
        present = self.iou[~np.isnan(self.iou)]
        return 100 * float(present.mean()) if present.size else float("nan")

    @property
    def accuracy(self) -> float:
        """Share of the counted pixels that are right, in percent; NaN without any."""
        total = self.counts.sum()
        return 100 * float(np.diag(self.counts).sum() / total) if total else float("nan")


def recall(scores: Tensor, at: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Image-to-text recall in percent: how often an image's own text is among the first few.

    Args:
        scores: (n, n) similarities of images (rows) to texts, the pairs on the diagonal.
        at: How many texts count as the first few.
    """
    rank = (scores > scores.diagonal()[:, None]).sum(dim=1)
    return {f"R@{k}": 100 * float((rank < k).float().mean()) for k in at}
