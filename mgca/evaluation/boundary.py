"""How well the contours of a segmentation fit, and into how many pieces it falls.

Mean IoU says little about either: most pixels lie far from any contour, and a speck counts as a
speck. Boundary IoU (Cheng et al., CVPR 2021) counts the pixels near a contour only; the number of
connected components, over that of the truth, shows over-segmentation (above 1) and
under-segmentation (below 1).
"""

import numpy as np
from scipy import ndimage


def boundary_width(height: int, width: int, share: float = 0.02) -> int:
    """Distance in pixels that a contour reaches inwards: a share of the diagonal, at least 1."""
    return max(1, round(share * float(np.hypot(height, width))))


def boundary_region(labels: np.ndarray, distance: int, ignore: int = 255) -> np.ndarray:
    """Of the mask of every class, the pixels that an erosion by ``distance`` would remove.

    As in Cheng et al., the erosion is by a square and what lies outside the image is not part of
    any mask. Ignored pixels belong to no mask either.

    Args:
        labels: (H, W) class ids, not negative.
        distance: In pixels, along rows and columns and diagonals alike.

    Returns:
        (H, W) bool; False at ignored pixels.
    """
    around = {"size": 2 * distance + 1, "mode": "constant", "cval": -1}
    ids = labels.astype(np.int32)
    uniform = ndimage.maximum_filter(ids, **around) == ndimage.minimum_filter(ids, **around)
    return ~uniform & (labels != ignore)


def count_components(labels: np.ndarray, ignore: int = 255) -> int:
    """Connected components of all classes together; pixels touch along sides, not at corners.

    Args:
        labels: (H, W) class ids; ignored pixels are in no component.
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


class Contours:
    """Boundary IoU and connected components over the images of a set.

    Args:
        classes: Number of classes ``K``.
        ignore: Id of pixels that do not count, in the truth; the prediction is ignored there too.
    """

    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.ignore = ignore
        self.counts = np.zeros((3, classes), dtype=np.int64)  # both, predicted, true
        self.pieces = np.zeros(2, dtype=np.int64)  # predicted, true

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, maps (H, W) of class ids.

        Raises:
            ValueError: If the maps differ in size, or a counted id is not a class.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} differ in size")
        truth = truth.astype(np.int64)
        predicted = np.where(truth == self.ignore, self.ignore, predicted)
        classes = self.counts.shape[1]
        for name, ids in (("truth", truth), ("prediction", predicted)):
            if ((ids != self.ignore) & ((ids < 0) | (ids >= classes))).any():
                raise ValueError(f"the {name} has ids outside 0 to {classes - 1}")
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
        present = self.iou[~np.isnan(self.iou)]
        return 100 * float(present.mean()) if present.size else float("nan")

    @property
    def components(self) -> float:
        """Components of all predictions over those of all truths; NaN without any truth."""
        predicted, truth = self.pieces
        return float(predicted / truth) if truth else float("nan")
