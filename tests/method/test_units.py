"""Semantic units: where meta-points lie, which pixels join them, what a unit's embedding is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca.config import SegmentConfig
from mgca.model import Model
from mgca.units import meta_point_index, semantic_units

CASES = [((2, 5, 6, 8), 3), ((1, 4, 7, 5), (2, 4)), ((3, 3, 4, 4), 1), ((1, 8, 3, 11), (3, 5))]
fast = settings(max_examples=60, deadline=None, derandomize=True)


def random_pixels(shape, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    "size, points, centre, corner",
    [
        (4, 2, [1, 3], [0, 3]),
        (6, 2, [1, 4], [0, 5]),
        (9, 3, [1, 4, 7], [0, 4, 8]),
        (5, 1, [2], [2]),
        (5, 3, [0, 2, 4], [0, 2, 4]),
        (5, 5, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (56, 6, [4, 14, 23, 32, 42, 51], [0, 11, 22, 33, 44, 55]),
    ],
)
def test_meta_points_by_hand(size, points, centre, corner):
    for placement, expected in (("centre", centre), ("corner", corner)):
        along = meta_point_index(size, 1, (points, 1), placement)
        assert along.tolist() == expected
        assert meta_point_index(1, size, (1, points), placement).tolist() == expected
        both = meta_point_index(size, size, points, placement)
        assert both.tolist() == [y * size + x for y in expected for x in expected]


@fast
@given(size=st.integers(1, 300), share=st.floats(0.001, 1))
def test_a_meta_point_is_the_pixel_under_the_centre_of_its_cell(size, share):
    points = max(1, int(share * size))
    centre = meta_point_index(1, size, (1, points)).tolist()
    assert len(set(centre)) == points
    # Cell k reaches from k size / points to (k + 1) size / points, pixel i from i to i + 1.
    assert all(i <= (k + 0.5) * size / points < i + 1 for k, i in enumerate(centre))
    corner = meta_point_index(1, size, (1, points), "corner").tolist()
    assert len(set(corner)) == points and corner == sorted(corner)
    assert points == 1 or (corner[0], corner[-1]) == (0, size - 1)


@pytest.mark.parametrize("grid", [5, (5, 1), (1, 7), 0, (0, 2)])
@pytest.mark.parametrize("placement", ["centre", "corner"])
def test_a_grid_that_does_not_fit_is_refused(grid, placement):
    with pytest.raises(ValueError, match="does not fit a map of 4x6 pixels"):
        semantic_units(torch.ones(1, 2, 4, 6), grid, placement=placement)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="placement"):
        semantic_units(torch.ones(1, 2, 4, 4), 2, placement="random")
    with pytest.raises(ValueError, match="average"):
        semantic_units(torch.ones(1, 2, 4, 4), 2, average="median")


@pytest.mark.parametrize("placement", ["centre", "corner"])
@pytest.mark.parametrize("average", ["raw", "normalised"])
@pytest.mark.parametrize("shape, grid", CASES)
def test_equals_loops(shape, grid, average, placement):
    pixels = random_pixels(shape)
    index = meta_point_index(*shape[2:], grid, placement).tolist()
    assignment, units = semantic_units(pixels, grid, placement=placement, average=average)
    assert assignment.shape == (shape[0], *shape[2:]) and assignment.dtype == torch.int64
    assert units.shape == (shape[0], len(index), shape[1])
    for b, image in enumerate(pixels.flatten(2).transpose(1, 2)):
        members = {g: [] for g in range(len(index))}
        for n, pixel in enumerate(image):
            cosines = [F.cosine_similarity(pixel, image[point], dim=0) for point in index]
            own = max(members, key=lambda g: cosines[g])
            assert assignment[b].flatten()[n] == own
            members[own].append(pixel if average == "raw" else pixel / pixel.norm())
        for g, group in members.items():
            torch.testing.assert_close(units[b, g], sum(group) / len(group), rtol=1e-12, atol=0)


@pytest.mark.parametrize("placement", ["centre", "corner"])
def test_as_many_meta_points_as_pixels_leave_every_pixel_alone(placement):
    pixels = torch.randn(2, 7, 5, 9)
    assignment, units = semantic_units(pixels, (5, 9), placement=placement)
    assert torch.equal(assignment[0], torch.arange(45).view(5, 9))
    assert torch.equal(units, pixels.flatten(2).transpose(1, 2))


def test_as_many_meta_points_as_pixels_give_the_per_pixel_prediction():
    # One window of 4 x 4 features: 16 meta-points. Asked for more, the window has as many as fit.
    config = SegmentConfig(short_side=64, window=64, stride=32)
    model = Model(TinyBackbone(), config=config)
    embedded = model.embed(torch.randint(256, (3, 50, 50), dtype=torch.uint8))
    classes = ["cat", "dog", "a red house", "sky", "grass"]
    single = model.segment(embedded, classes, meta_points=None)
    assert len(single.labels.unique()) > 2
    for points in (16, 36):
        units = model.segment(embedded, classes, meta_points=points)
        assert torch.equal(units.labels, single.labels)
        torch.testing.assert_close(units.scores, single.scores, rtol=0, atol=1e-6)
    assert not torch.equal(model.segment(embedded, classes, meta_points=4).labels, single.labels)


def test_every_pixel_takes_the_scores_of_its_unit():
    config = SegmentConfig(short_side=64, window=64, stride=32)
    model = Model(TinyBackbone(), config=config)
    embedded = model.embed(torch.randint(256, (3, 64, 64), dtype=torch.uint8))
    classes = ["cat", "dog", "sky"]
    assignment, units = semantic_units(embedded.pixels, 2)
    table, index = model.scores(embedded.pixels, model.texts(classes), 2)
    assert len(table) == 4
    for y in range(4):
        for x in range(4):
            unit = units[0, assignment[0, y, x]]
            expected = F.cosine_similarity(model.texts(classes), unit[None], dim=1)
            torch.testing.assert_close(table[index[0, y, x]], expected)


@fast
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["random", "equal", "zero", "some zero", "two", "huge", "opposite"]),
    placement=st.sampled_from(["centre", "corner"]),
)
def test_units_partition_the_pixels_whatever_they_are(size, grid, seed, kind, placement):
    grid = (min(grid[0], size[0]), min(grid[1], size[1]))
    pixels = random_pixels((2, 3, *size), seed).float()
    pixels = {
        "random": pixels,
        "equal": pixels[:, :, :1, :1].expand_as(pixels),
        "zero": torch.zeros_like(pixels),
        "some zero": pixels * (pixels[:, :1] > 0),
        "two": torch.where(pixels[:, :1] > 0, 1.0, 2.0).expand_as(pixels),
        "huge": pixels * 1e15,
        "opposite": pixels[:, :1].sign().expand_as(pixels),
    }[kind]
    assignment, units = semantic_units(pixels, grid, placement=placement)
    groups = grid[0] * grid[1]
    for image in assignment:
        counts = torch.bincount(image.flatten(), minlength=groups)
        assert len(counts) == groups and counts.min() >= 1
    assert units.isfinite().all()
    # The units' sizes and embeddings keep the sum of all pixels.
    sizes = F.one_hot(assignment.flatten(1), groups).sum(dim=1).float()
    torch.testing.assert_close(
        torch.einsum("bg,bgc->bc", sizes, units),
        pixels.sum(dim=(2, 3)),
        rtol=1e-4,
        atol=1e-4 * float(pixels.abs().max()),
    )
    if kind == "equal":
        torch.testing.assert_close(units, pixels.flatten(2).mT[:, :1].expand_as(units))


@fast
@given(seed=st.integers(0, 10**6), grid=st.integers(1, 4))
def test_length_of_an_embedding_does_not_move_it(seed, grid):
    pixels = random_pixels((1, 5, 6, 4), seed)
    lengths = 2.0 ** torch.randint(
        -8, 9, (1, 1, 6, 4), generator=torch.Generator().manual_seed(seed)
    )
    plain, scaled = semantic_units(pixels, grid), semantic_units(pixels * lengths, grid)
    assert torch.equal(plain.assignment, scaled.assignment)
    # Directions are averaged under "normalised", so the units stay too; under "raw" they move.
    plain, scaled = (
        semantic_units(p, grid, average="normalised") for p in (pixels, pixels * lengths)
    )
    torch.testing.assert_close(plain.units, scaled.units)
    assert not torch.allclose(semantic_units(pixels * lengths, grid).units, plain.units)


def test_of_equally_similar_meta_points_the_first_wins():
    # Columns of equal pixels: every second point of a row is as good as the first of its kind.
    columns = torch.eye(2)[[0, 1, 0, 1]].t()  # (C, W)
    pixels = columns[None, :, None, :].expand(1, 2, 3, 4)
    assignment, _ = semantic_units(pixels, (1, 4))
    assert assignment[0, 0].tolist() == assignment[0, 2].tolist() == [0, 1, 0, 1]
    assert assignment[0, 1].tolist() == [0, 1, 2, 3]  # the meta-points themselves


@pytest.mark.parametrize("average", ["raw", "normalised"])
def test_order_in_memory_does_not_matter(average):
    # Encoders and decoder give channels_last.
    pixels = random_pixels((2, 7, 9, 8))
    plain = semantic_units(pixels, 3, average=average)
    other = pixels.contiguous(memory_format=torch.channels_last)
    found = semantic_units(other, 3, average=average)
    assert torch.equal(found.assignment, plain.assignment)
    torch.testing.assert_close(found.units, plain.units, rtol=1e-12, atol=1e-12)


def test_images_of_a_batch_do_not_mix():
    pixels = random_pixels((4, 5, 6, 6))
    together = semantic_units(pixels, 3)
    for b in range(4):
        alone = semantic_units(pixels[b : b + 1], 3)
        assert torch.equal(together.assignment[b], alone.assignment[0])
        torch.testing.assert_close(together.units[b], alone.units[0])


def test_units_may_be_grouped_in_another_map_than_the_one_that_is_averaged():
    pixels, other = torch.randn(2, 5, 6, 8), torch.randn(2, 3, 6, 8)
    found = semantic_units(pixels, (2, 3), affinity=other)
    groups = semantic_units(other, (2, 3))
    assert torch.equal(found.assignment, groups.assignment)
    for image in range(2):
        for unit in range(6):
            members = pixels[image][:, groups.assignment[image] == unit]
            torch.testing.assert_close(found.units[image, unit], members.mean(dim=1))
    assert torch.equal(
        semantic_units(pixels, 2, affinity=pixels).units, semantic_units(pixels, 2).units
    )
