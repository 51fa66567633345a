"""Counts: mean IoU against mmsegmentation's metric and sets of pixels, contours and components
against slow loops and shapes whose answer is known."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mgca.evaluation.metrics import (
    Confusion,
    Contours,
    boundary_region,
    boundary_width,
    count_components,
)
from mgca.utils import torchvision as _torchvision

IGNORE = 255
maps = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))
fast = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def mmseg_metric():
    """mmsegmentation's IoUMetric: maps in, its unrounded and its reported numbers out."""
    _torchvision.make_importable()
    metrics = pytest.importorskip("mmseg.evaluation.metrics")

    def evaluate(pairs, classes, ignore=255):
        metric = metrics.IoUMetric(ignore_index=ignore)
        metric.dataset_meta = {"classes": [str(k) for k in range(classes)]}
        for predicted, truth in pairs:
            sample = {
                "pred_sem_seg": {"data": torch.from_numpy(predicted)[None]},
                "gt_sem_seg": {"data": torch.from_numpy(truth)[None]},
            }
            metric.process({}, [sample])
        areas = [sum(part) for part in zip(*metric.results, strict=True)]
        logging.disable()
        try:
            reported = metric.compute_metrics(metric.results)
        finally:
            logging.disable(logging.NOTSET)
        return metric.total_area_to_metrics(*areas), reported

    return evaluate


def random_pairs(seed, classes, images, absent=(), ignored=0.1):
    """Predictions right in about half of the pixels; ``absent`` classes only in predictions."""
    random = np.random.default_rng(seed)
    present = [k for k in range(classes) if k not in absent]
    pairs = []
    for _ in range(images):
        size = random.integers(8, 20, 2)
        truth = random.choice(present, size)
        predicted = np.where(random.random(size) < 0.5, truth, random.integers(0, classes, size))
        truth[random.random(size) < ignored] = 255
        pairs.append((predicted, truth))
    return pairs


def confusion(pairs, classes, ignore=255) -> Confusion:
    counts = Confusion(classes, ignore)
    for predicted, truth in pairs:
        counts.add(predicted, truth)
    return counts


@pytest.mark.parametrize("classes, images", [(2, 1), (5, 4), (21, 3)])
def test_equals_mmsegmentation_where_every_class_occurs(mmseg_metric, classes, images):
    pairs = random_pairs(classes, classes, images)
    mine = confusion(pairs, classes)
    theirs, reported = mmseg_metric(pairs, classes)
    np.testing.assert_allclose(mine.iou, theirs["IoU"], rtol=1e-6)
    assert mine.accuracy == pytest.approx(100 * float(theirs["aAcc"]), rel=1e-6)
    assert round(mine.miou, 2) == pytest.approx(reported["mIoU"], abs=0.0051)
    assert round(mine.accuracy, 2) == pytest.approx(reported["aAcc"], abs=0.0051)


def test_classes_absent_from_the_truth_are_left_out(mmseg_metric):
    # mmsegmentation gives classes 1 and 4 an intersection over union of 0: they are predicted.
    pairs = random_pairs(3, 6, images=3, absent=(1, 4))
    mine = confusion(pairs, 6)
    theirs, _ = mmseg_metric(pairs, 6)
    present = [0, 2, 3, 5]
    assert np.flatnonzero(~np.isnan(mine.iou)).tolist() == present
    np.testing.assert_allclose(mine.iou[present], theirs["IoU"][present], rtol=1e-6)
    assert mine.miou == pytest.approx(100 * theirs["IoU"][present].mean(), rel=1e-6)
    assert mine.accuracy == pytest.approx(100 * float(theirs["aAcc"]), rel=1e-6)
    assert theirs["IoU"][[1, 4]].tolist() == [0, 0]


@fast
@given(
    classes=st.integers(1, 6),
    images=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    ignore=st.sampled_from([255, 0]),
)
def test_equals_sets_of_pixels(classes, images, seed, ignored, ignore):
    pairs = random_pairs(seed, classes, images, ignored=ignored)
    pairs = [(p, np.where(t == 255, ignore, t)) for p, t in pairs]
    truth, predicted = {}, {}
    for number, (p, t) in enumerate(pairs):
        for place in np.ndindex(*t.shape):
            if t[place] != ignore:
                truth[number, place] = int(t[place])
                predicted[number, place] = int(p[place])
    expected = []
    for k in range(classes):
        a = {place for place, name in truth.items() if name == k}
        b = {place for place, name in predicted.items() if name == k}
        expected.append(len(a & b) / len(a | b) if a else math.nan)
    mine = confusion(pairs, classes, ignore)
    np.testing.assert_allclose(mine.iou, expected, rtol=1e-12)
    present = [iou for iou in expected if not math.isnan(iou)]
    mean = 100 * sum(present) / len(present) if present else math.nan
    assert mine.miou == pytest.approx(mean, rel=1e-12, nan_ok=True)
    right = sum(truth[place] == predicted[place] for place in truth)
    share = 100 * right / len(truth) if truth else math.nan
    assert mine.accuracy == pytest.approx(share, rel=1e-12, nan_ok=True)


def test_by_hand():
    counts = Confusion(3)
    counts.add(np.array([[0, 0, 1], [1, 1, 0]]), np.array([[0, 0, 0], [1, 255, 1]]))
    assert counts.counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(counts.iou, [2 / 4, 1 / 3, np.nan])
    assert counts.miou == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)
    assert counts.accuracy == pytest.approx(60)
    assert counts.share_ignored == pytest.approx(1 / 6)


def test_images_add_up_and_nothing_gives_nothing():
    pairs = random_pairs(0, 4, 3)
    apart = sum(confusion([pair], 4).counts for pair in pairs)
    assert (confusion(pairs, 4).counts == apart).all()
    # Ids of a byte do not overflow.
    narrow = [(p.astype(np.uint8), t.astype(np.uint8)) for p, t in random_pairs(1, 150, 2)]
    wide = [(p.astype(np.int64), t.astype(np.int64)) for p, t in narrow]
    assert (confusion(narrow, 150).counts == confusion(wide, 150).counts).all()
    assert math.isnan(Confusion(3).miou) and math.isnan(Confusion(3).accuracy)


@pytest.mark.parametrize(
    "predicted, truth, message",
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "differ in size"),
        (np.full((2, 2), 3), np.zeros((2, 2)), "prediction has ids outside 0 to 2"),
        (np.zeros((2, 2)), np.full((2, 2), 3), "truth has ids outside 0 to 2"),
        (np.zeros((2, 2)), np.full((2, 2), -1), "truth has ids outside"),
    ],
)
@pytest.mark.parametrize("kind", [Confusion, Contours])
def test_maps_that_do_not_fit_are_refused(kind, predicted, truth, message):
    with pytest.raises(ValueError, match=message):
        kind(3).add(predicted.astype(np.int64), truth.astype(np.int64))


# Contours


def with_holes(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == 3, IGNORE, labels)


def region_by_loops(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask from which a square of the distance reaches something else."""
    padded = np.pad(mask, distance)
    side = 2 * distance + 1
    region = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        region[y, x] = not padded[y : y + side, x : x + side].all()
    return region


def components_by_flooding(labels: np.ndarray) -> int:
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(labels != IGNORE), strict=True)}
    number = 0
    while left:
        number += 1
        edge = [left.pop()]
        while edge:
            y, x = edge.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left and labels[near] == labels[y, x]:
                    left.remove(near)
                    edge.append(near)
    return number


@given(maps, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_regions_are_masks_minus_their_erosions(labels, distance):
    labels = with_holes(labels)
    expected = np.zeros(labels.shape, dtype=bool)
    for label in range(3):
        expected |= region_by_loops(labels == label, distance)
    assert np.array_equal(boundary_region(labels, distance), expected)


@given(maps)
@settings(max_examples=60, deadline=None)
def test_components_are_those_that_flooding_finds(labels):
    labels = with_holes(labels)
    assert count_components(labels) == components_by_flooding(labels)


def test_counts_over_images_are_those_of_each_class_by_itself():
    generator = np.random.default_rng(1)
    contours, both, either = Contours(4), np.zeros(4), np.zeros(4)
    pieces = [0, 0]
    for size in ((20, 30), (41, 27)):
        predicted, truth = generator.integers(0, 3, (2, *size)).repeat(6, 1).repeat(6, 2)
        truth[:5, :7] = IGNORE
        contours.add(predicted, truth)
        counted = truth != IGNORE
        distance = boundary_width(*truth.shape)
        for label in range(4):
            ours, theirs = (
                region_by_loops((ids == label) & counted, distance) for ids in (predicted, truth)
            )
            both[label] += (ours & theirs).sum()
            either[label] += (ours | theirs).sum()
        pieces[0] += components_by_flooding(np.where(counted, predicted, IGNORE))
        pieces[1] += components_by_flooding(truth)
    assert np.allclose(contours.iou[:3], (both / np.maximum(either, 1))[:3])
    assert np.isnan(contours.iou[3])
    assert contours.boundary_iou == pytest.approx(100 * np.mean(both[:3] / either[:3]))
    assert contours.components == pytest.approx(pieces[0] / pieces[1])


def test_the_distance_is_a_fiftieth_of_the_diagonal():
    assert boundary_width(300, 400) == 10
    assert boundary_width(3, 4) == 1


def test_a_shifted_square_has_the_closed_form():
    truth = np.zeros((300, 400), dtype=np.uint8)
    predicted = truth.copy()
    side, shift, distance = 100, 4, 10
    truth[100 : 100 + side, 100 : 100 + side] = 1
    predicted[100 : 100 + side, 100 + shift : 100 + side + shift] = 1
    contours = Contours(2)
    contours.add(predicted, truth)
    ring = side**2 - (side - 2 * distance) ** 2
    rows = 2 * distance * (side - shift)  # the two bands along the shift
    columns = 2 * (distance - shift) * (side - 2 * distance)  # the two across it
    both = rows + columns
    assert contours.iou[1] == pytest.approx(both / (2 * ring - both))
    assert contours.components == 1


def test_a_perfect_prediction_and_a_wrong_one():
    truth = np.repeat(np.arange(3, dtype=np.uint8), 20)[None].repeat(40, 0)
    right, wrong = Contours(3), Contours(3)
    right.add(truth, truth)
    wrong.add((truth + 1) % 3, truth)
    assert (right.boundary_iou, right.components) == (100, 1)
    assert (wrong.boundary_iou, wrong.components) == (0, 1)


def test_a_chessboard_falls_into_its_squares():
    board = (np.indices((8, 8)).sum(0) % 2).astype(np.uint8)
    contours = Contours(2)
    contours.add(board, np.zeros_like(board))
    assert contours.components == 64


def test_nothing_counted_is_not_a_number():
    contours = Contours(2)
    contours.add(np.zeros((4, 4), np.uint8), np.full((4, 4), IGNORE, np.uint8))
    assert np.isnan(contours.boundary_iou) and np.isnan(contours.components)
