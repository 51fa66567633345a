"""Contours: against slow loops over classes and pixels, and shapes whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mgca.evaluation.boundary import Contours, boundary_region, boundary_width, count_components

IGNORE = 255
maps = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


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


def test_maps_that_do_not_fit_are_refused():
    contours = Contours(2)
    with pytest.raises(ValueError, match="differ in size"):
        contours.add(np.zeros((4, 4), int), np.zeros((4, 5), int))
    with pytest.raises(ValueError, match="prediction has ids outside 0 to 1"):
        contours.add(np.full((4, 4), 2), np.zeros((4, 4), int))
