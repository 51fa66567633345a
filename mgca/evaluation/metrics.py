"""What is counted over the images of a set: confusions, contours, components; and recall.

Mean IoU says little about contours: most pixels lie far from any, and a speck counts as a speck.
Boundary IoU (Cheng et al., CVPR 2021) counts the pixels near a contour only; the number of
connected components, over that of the truth, shows over-segmentation (above 1) and
under-segmentation (below 1).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy import ndimage
from torch import Tensor


class Counter(Protocol):
    """What the loop of :func:`mgca.evaluation.evaluate.evaluate` counts with.

    Attributes:
        tables: Names of the attributes that hold all it has counted: arrays, added to in place, so
            that an interrupted evaluation can go on from them.
    """

    tables: tuple[str, ...]

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, maps (H, W) of class ids."""


class Confusion:
    """Counts of pixels by true and predicted class.

    Args:
        classes: Number of classes ``K``.
        ignore: Id of pixels that do not count.

    Attributes:
        counts: (K, K) numbers of pixels, by true class and by predicted class.
        ignored: (1,) number of pixels that do not count.
    """

    tables = ("counts", "ignored")

    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.ignore = ignore
        self.counts = np.zeros((classes, classes), dtype=np.int64)
        self.ignored = np.zeros(1, dtype=np.int64)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count the pixels of an image, maps of class ids of any equal shape.

        Raises:
            ValueError: If the maps differ in size, or a counted id is not a class.
        """
        classes = len(self.counts)
        _check_ids(predicted, truth, classes, self.ignore)
        counted = truth != self.ignore
        flat = truth[counted].astype(np.int64) * classes + predicted[counted].astype(np.int64)
        self.counts += np.bincount(flat, minlength=classes * classes).reshape(classes, classes)
        self.ignored += counted.size - flat.size

    @property
    def iou(self) -> np.ndarray:
        """(K,) intersection over union of each class; NaN for classes absent from the truth."""
        hit = np.diag(self.counts).astype(float)
        truth, predicted = self.counts.sum(1), self.counts.sum(0)
        return np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), np.nan)

    @property
    def miou(self) -> float:
        """Mean over the classes that occur in the truth, in percent; NaN without any."""
        return _mean(self.iou)

    @property
    def miou_with_absent(self) -> float:
        """Mean as mmsegmentation takes it, in percent: a class that is predicted but does not occur
        in the truth counts as 0."""
        hit = np.diag(self.counts).astype(float)
        union = self.counts.sum(1) + self.counts.sum(0) - hit
        return _mean(np.where(union > 0, hit / np.maximum(union, 1), np.nan))

    @property
    def accuracy(self) -> float:
        """Share of the counted pixels that are right, in percent; NaN without any."""
        total = self.counts.sum()
        return 100 * float(np.diag(self.counts).sum() / total) if total else float("nan")

    @property
    def share_ignored(self) -> float:
        """Share of all the pixels that do not count; NaN without any pixel."""
        total = self.counts.sum() + self.ignored[0]
        return float(self.ignored[0] / total) if total else float("nan")


class Contours:
    """Boundary IoU and connected components over the images of a set.

    Args:
        classes: Number of classes ``K``.
        ignore: Id of pixels that do not count, in the truth; the prediction is ignored there too.
    """

    tables = ("counts", "pieces")

    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.ignore = ignore
        self.counts = np.zeros((3, classes), dtype=np.int64)  # both, predicted, true
        self.pieces = np.zeros(2, dtype=np.int64)  # predicted, true

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, maps (H, W) of class ids.

        Raises:
            ValueError: If the maps differ in size, or a counted id is not a class.
        """
        classes = self.counts.shape[1]
        _check_ids(predicted, truth, classes, self.ignore)
        truth = truth.astype(np.int64)
        predicted = np.where(truth == self.ignore, self.ignore, predicted)
        distance = boundary_width(*truth.shape)
        at_predicted = boundary_region(predicted, distance, self.ignore)
        at_truth = boundary_region(truth, distance, self.ignore)
        both = at_predicted & at_truth & (predicted == truth)
        for row, ids in enumerate((truth[both], predicted[at_predicted], truth[at_truth])):
            self.counts[row] += np.bincount(ids, minlength=classes)
        self.pieces += [count_components(ids, self.ignore) for ids in (predicted, truth)]

    @property
    def iou(self) -> np.ndarray:
        """(K,) boundary IoU of each class; NaN for classes absent from the truth."""
        both, predicted, truth = self.counts
        return np.where(truth > 0, both / np.maximum(predicted + truth - both, 1), np.nan)

    @property
    def boundary_iou(self) -> float:
        """Mean over the classes that occur in the truth, in percent; NaN without any."""
        return _mean(self.iou)

    @property
    def components(self) -> float:
        """Components of all predictions over those of all truths; NaN without any truth."""
        predicted, truth = self.pieces
        return float(predicted / truth) if truth else float("nan")


class PerImage(Contours):
    """Contours, and besides what each image by itself adds to them and to a confusion matrix: for
    intervals over images.

    Args:
        classes: Number of classes ``K``.
        ignore: Id of pixels that do not count.
    """

    def __init__(self, classes: int, ignore: int = 255) -> None:
        super().__init__(classes, ignore)
        self._images: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, maps (H, W) of class ids."""
        counts, pieces = self.counts.copy(), self.pieces.copy()
        super().add(predicted, truth)
        confusion = Confusion(self.counts.shape[1], self.ignore)
        confusion.add(predicted, truth)
        self._images.append((confusion.counts, self.counts - counts, self.pieces - pieces))

    @property
    def images(self) -> dict[str, np.ndarray]:
        """``confusion`` (n, K, K), ``contours`` (n, 3, K) and ``pieces`` (n, 2) of n images."""
        tables = zip(*self._images, strict=True)
        return {
            name: np.stack(table)
            for name, table in zip(("confusion", "contours", "pieces"), tables, strict=True)
        }


def boundary_width(height: int, width: int, share: float = 0.02) -> int:
    """Distance in pixels that a contour reaches inwards: a share of the diagonal, at least 1.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        share: Share of the diagonal.
    """
    return max(1, round(share * float(np.hypot(height, width))))


def boundary_region(labels: np.ndarray, distance: int, ignore: int = 255) -> np.ndarray:
    """Of the mask of every class, the pixels that an erosion by ``distance`` would remove.

    As in Cheng et al., the erosion is by a square and what lies outside the image is not part of
    any mask. Ignored pixels belong to no mask either.

    Args:
        labels: (H, W) class ids, not negative.
        distance: Width of the region in pixels, along rows, columns and diagonals alike.
        ignore: Id of pixels that belong to no mask.

    Returns:
        (H, W) bool; False at ignored pixels.
    """
    around = {"size": 2 * distance + 1, "mode": "constant", "cval": -1}
    ids = labels.astype(np.int32)
    uniform = ndimage.maximum_filter(ids, **around) == ndimage.minimum_filter(ids, **around)
    edges: np.ndarray = ~uniform & (labels != ignore)
    return edges


def count_components(labels: np.ndarray, ignore: int = 255) -> int:
    """Connected components of all classes together; pixels touch along sides, not at corners.

    Args:
        labels: (H, W) class ids.
        ignore: Id of pixels that are in no component.
    """
    height, width = labels.shape
    counted = labels != ignore
    # Pixels at even places, and between two neighbours of one class a link: a single labelling then
    # does for all classes.
    linked = np.zeros((2 * height - 1, 2 * width - 1), dtype=bool)
    linked[::2, ::2] = counted
    linked[::2, 1::2] = (labels[:, 1:] == labels[:, :-1]) & counted[:, 1:]
    linked[1::2, ::2] = (labels[1:] == labels[:-1]) & counted[1:]
    return int(ndimage.label(linked)[1])


def recall(scores: Tensor, at: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Image-to-text recall in percent: how often an image's own text is among the first few.

    Args:
        scores: (n, n) similarities of images (rows) to texts, the pairs on the diagonal.
        at: Numbers of texts that count as the first few.
    """
    rank = (scores > scores.diagonal()[:, None]).sum(dim=1)
    return {f"R@{k}": 100 * float((rank < k).float().mean()) for k in at}


def _check_ids(predicted: np.ndarray, truth: np.ndarray, classes: int, ignore: int) -> None:
    """Refuse maps that differ in size, and counted ids that are no classes."""
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} differ in size")
    counted = truth != ignore
    for name, ids in (("truth", truth[counted]), ("prediction", predicted[counted])):
        if ids.size and not (0 <= ids.min() and ids.max() < classes):
            raise ValueError(f"the {name} has ids outside 0 to {classes - 1}")


def _mean(iou: np.ndarray) -> float:
    """Mean of the numbers that are there, in percent; NaN without any."""
    present = iou[~np.isnan(iou)]
    return 100 * float(present.mean()) if present.size else float("nan")
