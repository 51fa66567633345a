"""Intervals against closed forms, plain loops and the whole set."""

import numpy as np
import pytest
from scipy import stats

from mgca.evaluation.intervals import (
    bootstrap_interval,
    draws,
    holm,
    resampled,
    student_interval,
    student_p,
)
from mgca.evaluation.metrics import Confusion, Contours, PerImage


def test_student_is_scipys_paired_test():
    more, less = np.array([3.0, 4.5, 5.0, 4.0, 6.0]), np.array([2.0, 4.0, 3.5, 4.2, 4.0])
    test = stats.ttest_rel(more, less)
    given = (more - less).mean(), (more - less).std(ddof=1), 5
    assert student_p(*given) == pytest.approx(test.pvalue)
    assert student_interval(*given) == pytest.approx(tuple(test.confidence_interval(0.95)))


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_an_interval_leaves_out_0_where_p_is_small(alpha):
    for mean in np.linspace(-3, 3, 25):
        low, high = student_interval(mean, 0.7, 4, alpha)
        assert (low > 0 or high < 0) == (student_p(mean, 0.7, 4) < alpha)


def test_one_seed_says_nothing_and_equal_seeds_all():
    assert student_p(3.0, float("nan"), 1) == 1
    assert student_interval(3.0, float("nan"), 1) == (-np.inf, np.inf)
    assert student_p(3.0, 0.0, 3) == 0 and student_p(0.0, 0.0, 3) == 1
    assert student_interval(3.0, 0.0, 3) == (3.0, 3.0)


def test_holm_by_hand():
    # Sorted: 0.01 < 0.05/4, 0.012 < 0.05/3, 0.03 is not < 0.05/2: it and the rest are kept.
    levels = holm([0.03, 0.01, 0.04, 0.012])
    assert levels == pytest.approx([0.025, 0.0125, 0.025, 0.05 / 3])
    assert holm([0.2]) == [0.05] and holm([]) == []


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (6, 20, 16))
    predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 3, truth.shape))
    truth[0, :3] = 255
    return predicted, truth


def counted(counter, predicted, truth):
    for pair in zip(predicted, truth, strict=True):
        counter.add(*pair)
    return counter


def test_images_drawn_once_each_are_the_set(images):
    each = counted(PerImage(3), *images).images
    found = resampled(each, np.ones((1, 6), dtype=int))
    contours = counted(Contours(3), *images)
    assert found["miou"] == pytest.approx(counted(Confusion(3), *images).miou)
    assert found["boundary_iou"] == pytest.approx(contours.boundary_iou)
    assert found["components"] == pytest.approx(contours.components)
    assert counted(PerImage(3), *images).components == contours.components


def test_a_drawing_is_the_set_of_the_images_drawn(images):
    predicted, truth = images
    drawn = draws(6, 4, seed=1)
    assert (drawn.sum(axis=1) == 6).all() and (drawn == draws(6, 4, seed=1)).all()
    found = resampled(counted(PerImage(3), *images).images, drawn)["miou"]
    for row, miou in zip(drawn, found, strict=True):
        chosen = np.repeat(np.arange(6), row)
        assert miou == pytest.approx(counted(Confusion(3), predicted[chosen], truth[chosen]).miou)


def test_percentiles_and_p_of_replicates():
    low, high, p = bootstrap_interval(np.arange(-1, 99, dtype=float))
    assert (low, high) == pytest.approx((1.475, 95.525))
    assert p == pytest.approx(2 * 3 / 101)  # -1 and 0 are not above 0
    assert bootstrap_interval(np.ones(99))[2] == pytest.approx(2 / 100)
