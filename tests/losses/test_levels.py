"""The three losses and their sum: against the loops of reference.py and against closed forms."""

import itertools
import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgca.config import LossConfig
from mgca.losses.levels import (
    area_in_pixels,
    object_loss,
    pixel_loss,
    rank_in_region,
    region_loss,
    similarity,
)
from mgca.losses.objective import mgca_loss

OBJECT = {"alpha": 0.4, "temperature": 0.07, "measure": "dot", "direction": "both"}
SOFT = OBJECT | {"detach_weights": False}
REGION = SOFT | {"alpha_neg": 0.05}
PIXEL = {"alpha": 0.4, "k": 0.06, "k_neg": 0.0, "measure": "dot", "direction": "both"}
LOSSES = {
    "object": (object_loss, reference.object_loss, SOFT),
    "region": (region_loss, reference.region_loss, REGION),
    "pixel": (pixel_loss, reference.pixel_loss, PIXEL),
}
SHAPES = [(1, 4, 3, 3), (2, 3, 2, 2), (3, 5, 4, 3), (4, 6, 3, 7), (3, 4, 1, 9), (2, 8, 6, 1)]


def pairs(shape, seed=0, scale=1.5):
    """Pixels and texts in float64. Of normal numbers none are tied."""
    generator = torch.Generator().manual_seed(seed)
    pixels = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    texts = scale * torch.randn(shape[:2], generator=generator, dtype=torch.float64)
    return pixels.requires_grad_(), texts.requires_grad_()


def assert_same(mine, theirs, inputs):
    """Two scalars agree, and their gradients with respect to the inputs."""
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    ours = torch.autograd.grad(mine, inputs, allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad(theirs, inputs, allow_unused=True, materialize_grads=True)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("level", LOSSES)
def test_equals_the_loops_at_the_papers_values(level, shape):
    ours, loops, options = LOSSES[level]
    inputs = pairs(shape)
    assert_same(ours(*inputs, **options), loops(*inputs, **options), inputs)


shares = st.sampled_from([0.001, 0.05, 0.1, 0.29, 0.4, 0.55, 0.7, 1.0])
ranks = st.sampled_from([0.0, 0.06, 0.3, 0.5, 0.7, 1.0])
weights = st.sampled_from([0.0, 0.5, 1.0, 2.0])
configs = st.builds(
    LossConfig,
    object=weights,
    region=weights,
    pixel=st.sampled_from([0.25, 1.0]),
    alpha=shares,
    alpha_neg=shares,
    k=ranks,
    k_neg=ranks,
    temperature=st.sampled_from([0.07, 0.5, 1.0]),
    measure=st.sampled_from(["dot", "cosine"]),
    detach_weights=st.booleans(),
    direction=st.sampled_from(["both", "image", "text"]),
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    config=configs, shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6), known=st.booleans()
)
def test_total_equals_the_loops_with_every_option(config, shape, seed, known):
    inputs = pairs(shape, seed)
    # Half of the pairs are no negatives; what the diagonal says must not matter.
    drawn = torch.rand(shape[0], shape[0], generator=torch.Generator().manual_seed(seed))
    exclude = drawn < 0.5 if known else None
    ours = mgca_loss(*inputs, config, exclude=exclude)["total"]
    assert_same(ours, reference.total_loss(*inputs, config, exclude), inputs)


@pytest.mark.parametrize("measure", ["dot", "cosine"])
@pytest.mark.parametrize("level", [*LOSSES, "total"])
def test_gradcheck(level, measure):
    inputs = pairs((3, 3, 2, 4), seed=1, scale=1.0)
    if level == "total":
        config = LossConfig(measure=measure, alpha_neg=0.3, k=0.5)
        assert torch.autograd.gradcheck(lambda p, t: mgca_loss(p, t, config)["total"], inputs)
    else:
        ours, _, options = LOSSES[level]
        options = options | {"measure": measure}
        assert torch.autograd.gradcheck(lambda p, t: ours(p, t, **options), inputs)


@pytest.mark.parametrize("loss, options", [(object_loss, SOFT), (region_loss, REGION)])
def test_detaching_the_weights_changes_the_gradient_only(loss, options):
    inputs = pairs((3, 5, 4, 4))
    through = loss(*inputs, **options)
    stopped = loss(*inputs, **options | {"detach_weights": True})
    assert torch.equal(through, stopped)
    a, b = (torch.autograd.grad(value, inputs[0])[0] for value in (through, stopped))
    assert not torch.allclose(a, b, rtol=1e-3)


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0])
def test_region_equals_object_where_the_region_does_not_depend_on_the_text(alpha):
    pixels, texts = pairs((4, 6, 3, 5))
    options = SOFT | {"alpha": alpha}
    same_pixels = pixels[:, :, :1, :1].expand_as(pixels)
    same_texts = texts[:1].expand_as(texts)
    for p, t in ((same_pixels, texts), (pixels, same_texts)):
        expected = object_loss(p, t, **options)
        torch.testing.assert_close(region_loss(p, t, **options, alpha_neg=alpha), expected)
    different = region_loss(pixels, texts, **options, alpha_neg=alpha)
    assert (different - object_loss(pixels, texts, **options)).abs() > 1e-2


def test_region_equals_object_with_whole_images_of_constant_scores():
    # The texts see the first four channels only, and those are the same all over an image.
    pixels, texts = pairs((4, 6, 3, 5))
    texts = torch.cat([texts[:, :4], torch.zeros(4, 2)], dim=1)
    pixels = torch.cat([pixels[:, :4, :1, :1].expand(4, 4, 3, 5), pixels[:, 4:]], dim=1)
    options = SOFT | {"alpha": 1.0}
    expected = object_loss(pixels, texts, **options)
    torch.testing.assert_close(region_loss(pixels, texts, **options, alpha_neg=1.0), expected)
    mean = torch.nn.functional.cosine_similarity(
        pixels.mean(dim=(2, 3))[:, None], texts[None], dim=-1
    )
    by_hand = reference.info_nce([[v / 0.07 for v in row] for row in mean], "both")
    torch.testing.assert_close(expected, by_hand)


@pytest.mark.parametrize("level", LOSSES)
def test_order_of_pairs_and_of_pixels_does_not_matter(level):
    ours, _, options = LOSSES[level]
    pixels, texts = pairs((5, 4, 3, 6))
    expected = ours(pixels, texts, **options)
    order, places = torch.randperm(5), torch.randperm(18)
    torch.testing.assert_close(ours(pixels[order], texts[order], **options), expected)
    moved = pixels.flatten(2)[:, :, places].view(5, 4, 6, 3)
    torch.testing.assert_close(ours(moved, texts, **options), expected)
    assert (ours(pixels, texts.roll(1, 0), **options) - expected).abs() > 1e-2
    at_hand = similarity(pixels, texts)
    assert torch.equal(ours(pixels, texts, **options, scores=at_hand), expected)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_orthonormal_texts_and_pixels_equal_to_their_text(count):
    texts = torch.eye(8, dtype=torch.float64)[:count]
    pixels = 3 * texts[:, :, None, None].expand(count, 8, 4, 4)
    contrast = math.log(1 + (count - 1) * math.exp(-1 / 0.07))
    assert object_loss(pixels, texts).item() == pytest.approx(contrast, rel=1e-9)
    assert region_loss(pixels, texts).item() == pytest.approx(contrast, rel=1e-9)
    dot = math.log(1 + (count - 1) * math.exp(-3 / math.sqrt(8)))
    assert pixel_loss(pixels, texts).item() == pytest.approx(dot, rel=1e-12)


@pytest.mark.parametrize("direction", ["both", "image", "text"])
def test_identical_pairs_cannot_be_told_apart(direction):
    pixels, texts = (tensor[:1].expand(6, *tensor.shape[1:]) for tensor in pairs((2, 4, 3, 3)))
    config = LossConfig(alpha=0.4, alpha_neg=0.4, k=0.0, direction=direction)
    for name, loss in mgca_loss(pixels, texts, config).items():
        assert loss.item() == pytest.approx(math.log(6) * (3 if name == "total" else 1))


def crossed(own, other):
    """Two pairs whose pixels have scores ``own`` with their text and ``other`` with the other."""
    own, other = (torch.tensor(v, dtype=torch.float64)[None, :] for v in (own, other))
    pixels = torch.stack([torch.cat([own, other]), torch.cat([other, own])])
    pixels = torch.cat([pixels, torch.zeros(2, 2, own.numel(), dtype=torch.float64)], dim=1)
    return pixels[:, :, :, None], torch.eye(4, dtype=torch.float64)[:2]  # C = 4, sqrt(C) = 2


@pytest.mark.parametrize(
    "k, positive", [(0.0, 10), (0.2, 10), (0.21, 9), (0.4, 9), (0.6, 8), (0.81, 6), (1.0, 6)]
)
@pytest.mark.parametrize("k_neg, negative", [(0.0, 5.5), (0.4, 4.5), (1.0, 1.5)])
def test_ranks_of_the_pixels(k, positive, k_neg, negative):
    # Ten pixels, of which alpha keeps the five with own scores 10 to 6.
    own = [3, 10, 1, 8, 6, 2, 9, 4, 7, 5]
    other = [2.5, 0.5, 5.5, 0.1, 3.5, 4.5, 1.5, 0.2, 0.3, 0.4]
    expected = math.log(1 + math.exp((negative - positive) / 2))
    loss = pixel_loss(*crossed(own, other), alpha=0.5, k=k, k_neg=k_neg)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_directions_are_rows_and_columns():
    # Images of one pixel; text 0 is found in both of them.
    texts = torch.eye(4, dtype=torch.float64)[:2]
    pixels = torch.stack([2 * texts[0], 2 * texts[0] + 3 * texts[1]])[:, :, None, None]
    e = math.exp  # The logits are [[1, 0], [1, 1.5]].
    rows = (math.log(e(1) + e(0)) - 1 + math.log(e(1) + e(1.5)) - 1.5) / 2
    columns = (math.log(e(1) + e(1)) - 1 + math.log(e(0) + e(1.5)) - 1.5) / 2
    assert rows != pytest.approx(columns)
    assert pixel_loss(pixels, texts, direction="image").item() == pytest.approx(rows)
    assert pixel_loss(pixels, texts, direction="text").item() == pytest.approx(columns)
    assert pixel_loss(pixels, texts).item() == pytest.approx((rows + columns) / 2)


def test_the_smallest_area_is_one_pixel():
    pixels, texts = pairs((3, 5, 4, 4))
    best = similarity(pixels, texts).diagonal().argmax(dim=0)
    alone = torch.stack([pixels.flatten(2)[i, :, n] for i, n in enumerate(best)])[:, :, None, None]
    tiny = object_loss(pixels, texts, alpha=1e-6)
    torch.testing.assert_close(tiny, object_loss(alone, texts, alpha=1.0))


def test_areas_and_ranks_are_free_of_rounding():
    assert [area_in_pixels(a, 784) for a in (0.4, 0.05, 1.0, 1e-9)] == [313, 39, 784, 1]
    assert [rank_in_region(k, 313) for k in (0.0, 0.06, 1.0)] == [1, 19, 313]
    # In floating point 0.29 * 100 is below 29 and 0.07 * 100 above 7.
    assert (area_in_pixels(0.29, 100), rank_in_region(0.07, 100)) == (29, 7)
    for share, size in itertools.product([i / 100 for i in range(1, 101)], [1, 9, 100, 784, 3136]):
        assert area_in_pixels(share, size) == reference.area(share, size)
        assert rank_in_region(share, size) == reference.rank(share, size)


@pytest.mark.parametrize(
    "levels", [c for n in (1, 2, 3) for c in itertools.combinations(LOSSES, n)], ids="+".join
)
def test_every_subset_of_levels(levels):
    inputs = pairs((3, 4, 3, 3))
    weights = {level: (0.5 if level in levels else 0.0) for level in LOSSES}
    losses = mgca_loss(*inputs, LossConfig(**weights))
    assert set(losses) == {*levels, "total"}
    for level in levels:
        assert losses[level].item() == pytest.approx(LOSSES[level][0](*inputs).item(), rel=1e-12)
    total = sum(0.5 * losses[level].item() for level in levels)
    assert losses["total"].item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    "pixels, texts", [((2, 3, 4, 4), (3, 3)), ((2, 3, 4, 4), (2, 4)), ((2, 3, 4), (2, 3))]
)
@pytest.mark.parametrize("loss", [object_loss, region_loss, pixel_loss, mgca_loss])
def test_shapes_that_do_not_fit(loss, pixels, texts):
    with pytest.raises(ValueError, match="same B and C"):
        loss(torch.ones(pixels), torch.ones(texts))
