"""How sure a difference is: over seeds by Student's t, over images by the bootstrap, and over many
claims by Holm's correction.

Seeds say whether another training would show the difference, images whether other images of the
same kind would. Mean IoU is no mean over images: images are drawn again and the IoU taken anew.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

ALPHA = 0.05  # how often one of a family of claims may be said to hold by chance
_EQUAL = 1e-9  # a spread below it is rounding: every seed has the same


def student_p(mean: float, std: float, seeds: int) -> float:
    """The two-sided p of a mean difference being 0, by Student's t over paired seeds.

    Args:
        mean: Mean of the seeds' own differences.
        std: Their standard deviation, with one degree of freedom less.
        seeds: Number of seeds.

    Returns:
        1 with one seed, which says nothing; where all seeds have the same difference, 0, or 1 if
        it is none.
    """
    if seeds < 2:
        return 1.0
    if not std > _EQUAL:
        return float(abs(mean) <= _EQUAL)
    return float(2 * stats.t.sf(abs(mean) / (std / seeds**0.5), seeds - 1))


def student_interval(
    mean: float, std: float, seeds: int, alpha: float = ALPHA
) -> tuple[float, float]:
    """The interval of a mean difference that misses it with probability ``alpha``, by Student's t.

    It excludes 0 exactly where :func:`student_p` is below ``alpha``.

    Args:
        mean: Mean of the seeds' own differences.
        std: Their standard deviation.
        seeds: Number of seeds; one alone has no end.
        alpha: Probability of the miss.
    """
    if seeds < 2:
        return -np.inf, np.inf
    if not std > _EQUAL:
        return mean, mean
    reach = float(stats.t.isf(alpha / 2, seeds - 1)) * std / seeds**0.5
    return mean - reach, mean + reach


def holm(values: Sequence[float], alpha: float = ALPHA) -> list[float]:
    """The level at which each p of a family is judged, by Holm's correction.

    From the smallest p on, the levels are ``alpha`` over the number of those that are left; from
    the first that is not below its level on, all have that level. A p below its level is one that
    Holm (1979) rejects.

    Args:
        values: The p of each claim of the family.
        alpha: How often any may be rejected by chance.
    """
    levels, level, stopped = [alpha] * len(values), alpha, False
    for rank, place in enumerate(np.argsort(values, kind="stable")):
        if not stopped:
            level = alpha / (len(values) - rank)
            stopped = values[place] >= level
        levels[place] = level
    return levels


def draws(images: int, replicates: int, seed: int = 0) -> np.ndarray:
    """How often each image is drawn in each replicate of the bootstrap, (replicates, images).

    Args:
        images: Number of images of the set.
        replicates: Number of drawings, of as many images each.
        seed: Seed of the drawing. Equal seeds draw the same: differences are paired.
    """
    equal = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, equal, size=replicates)


def resampled(counts: Mapping[str, np.ndarray], drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of sets of images that were drawn, each (replicates,).

    Args:
        counts: Per image ``confusion`` (n, K, K), ``contours`` (n, 3, K) and ``pieces`` (n, 2), as
            :class:`mgca.evaluation.metrics.PerImage` has them.
        drawn: (replicates, n) how often each image was drawn.

    Returns:
        ``miou`` and ``boundary_iou`` in percent, and ``components``.
    """
    both, at_predicted, at_true = (drawn @ counts["contours"][:, part] for part in range(3))
    pieces = drawn @ counts["pieces"]
    return {
        "miou": resampled_miou(counts["confusion"], drawn),
        "boundary_iou": _mean_iou(both, at_predicted, at_true),
        "components": pieces[:, 0] / np.maximum(pieces[:, 1], 1),
    }


def resampled_miou(confusion: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Mean IoU in percent, (replicates,), of sets of images that were drawn.

    Args:
        confusion: (n, K, K) confusion matrices of the images.
        drawn: (replicates, n) how often each image was drawn.
    """
    # Floats hold these numbers exactly, and their products are many times as fast.
    counts, drawn = confusion.astype(float), drawn.astype(float)
    hits = drawn @ np.diagonal(counts, axis1=1, axis2=2)
    return _mean_iou(hits, drawn @ counts.sum(axis=1), drawn @ counts.sum(axis=2))


def _mean_iou(both: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Mean over the classes that occur in the truth, in percent."""
    iou = np.where(true > 0, both / np.maximum(predicted + true - both, 1), np.nan)
    return 100 * np.nanmean(iou, axis=1)


def bootstrap_interval(values: np.ndarray, alpha: float = ALPHA) -> tuple[float, float, float]:
    """The percentile interval of replicates, and the two-sided p of 0.

    Args:
        values: (replicates,) a difference in each drawing.
        alpha: Probability of the miss.

    Returns:
        Low end, high end, p. The least p is 2 / (replicates + 1).
    """
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    beyond = min((values <= 0).sum(), (values >= 0).sum())
    return float(low), float(high), min(1.0, float(2 * (beyond + 1) / (len(values) + 1)))
