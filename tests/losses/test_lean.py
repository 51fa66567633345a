"""All pairs of images and texts in parts: equal to the plain losses, within memory and budget."""

import itertools

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from mgca.config import LossConfig
from mgca.losses.lean import Comparison, compare, room, workspace
from mgca.losses.objective import MGCA


def plain_loss(pixels, texts, config=None, **options):
    return MGCA(config, lean=False)(pixels, texts, **options)


def lean_loss(pixels, texts, config=None, *, budget=None, **options):
    return MGCA(config, lean=True, budget=budget)(pixels, texts, **options)


def pairs(images, dim, height, width, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    pixels = 1.5 * torch.randn(images, dim, height, width, generator=generator, dtype=dtype)
    texts = 1.5 * torch.randn(images, dim, generator=generator, dtype=dtype)
    return pixels.requires_grad_(), texts.requires_grad_()


def gradients(loss, inputs):
    return torch.autograd.grad(
        loss, inputs, allow_unused=True, materialize_grads=True, retain_graph=True
    )


shares = st.sampled_from([0.001, 0.05, 0.1, 0.29, 0.4, 0.7, 1.0])
configs = st.builds(
    LossConfig,
    object=st.sampled_from([0.0, 1.0]),
    region=st.sampled_from([0.0, 0.5]),
    pixel=st.sampled_from([0.25, 1.0]),
    alpha=shares,
    alpha_neg=shares,
    k=st.sampled_from([0.0, 0.06, 0.5, 1.0]),
    k_neg=st.sampled_from([0.0, 0.06, 0.5, 1.0]),
    temperature=st.sampled_from([0.07, 1.0]),
    measure=st.sampled_from(["dot", "cosine"]),
    detach_weights=st.booleans(),
    direction=st.sampled_from(["both", "image", "text"]),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    config=configs,
    images=st.integers(1, 6),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 99),
    tight=st.booleans(),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_equals_the_plain_losses_and_their_gradients(config, images, size, seed, tight, layout):
    inputs = pairs(images, 5, *size, seed=seed)
    given_pixels = inputs[0].contiguous(memory_format=layout)
    pixels = size[0] * size[1]
    budget = None
    if tight:
        # One image at a time, and nothing kept for the backward pass.
        budget = 4 * (4 * images * pixels + 8 * images * 5 + 6 * pixels * 5) + 60 * images * pixels
    ours = lean_loss(given_pixels, inputs[1], config, budget=budget)
    plain = plain_loss(*inputs, config)
    assert set(ours) == set(plain)
    for name in ours:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-10, atol=1e-12)
        for a, b in zip(gradients(ours[name], inputs), gradients(plain[name], inputs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("measure", ["dot", "cosine"])
def test_float32_is_within_1e_5_of_the_loops_in_float64(measure):
    inputs = pairs(6, 16, 7, 7)
    config = LossConfig(measure=measure)
    options = {"alpha": 0.4, "measure": measure, "direction": "both"}
    soft = options | {"temperature": 0.07, "detach_weights": False}
    loops = (
        reference.object_loss(*inputs, **soft)
        + reference.region_loss(*inputs, **soft, alpha_neg=0.05)
        + reference.pixel_loss(*inputs, **options, k=0.06, k_neg=0.0)
    )
    narrow = [x.detach().float().requires_grad_() for x in inputs]
    ours = lean_loss(*narrow, config)["total"]
    assert ours.item() == pytest.approx(loops.item(), rel=1e-5)
    for a, b in zip(gradients(ours, narrow), gradients(loops, inputs), strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_bfloat16_pixels_cost_their_own_rounding_and_nothing_more():
    """The bound that is stated: losses are those of the rounded pixels in float32, and the gradient
    is rounded once, to 8 bits."""
    pixels, texts = pairs(6, 16, 7, 7, dtype=torch.float32)
    half = pixels.detach().bfloat16().requires_grad_()
    rounded = half.detach().float().requires_grad_()
    ours, same = lean_loss(half, texts)["total"], lean_loss(rounded, texts)["total"]
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(same.item(), rel=1e-6)
    (a,), (b,) = gradients(ours, [half]), gradients(same, [rounded])
    assert a.dtype == torch.bfloat16
    assert ((a.float() - b).abs() <= 2**-8 * b.abs() + 1e-12).all()
    # And the rounded pixels' loss is not far from that of the pixels themselves.
    assert same.item() == pytest.approx(lean_loss(pixels, texts)["total"].item(), rel=2e-2)


def test_autocast_does_not_reach_the_similarities():
    inputs = pairs(5, 16, 6, 6, dtype=torch.float32)
    expected = lean_loss(*inputs)["total"]
    with torch.autocast("cpu", torch.bfloat16):
        found = compare(*inputs, Comparison(0, 14, 1, 2, 1))
    plainly = compare(*inputs, Comparison(0, 14, 1, 2, 1))
    for a, b in zip(found, plainly, strict=True):
        assert torch.equal(a, b)
    assert expected.isfinite()


@pytest.mark.parametrize("measure", ["dot", "cosine"])
def test_gradcheck(measure):
    inputs = pairs(3, 4, 3, 2)
    config = LossConfig(measure=measure, alpha=0.5, alpha_neg=0.34, k=0.5, k_neg=0.5)
    assert torch.autograd.gradcheck(lambda p, t: lean_loss(p, t, config)["total"], inputs)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("cuts", [[6], [1, 5], [2, 2, 2], [3, 1, 2]])
def test_rows_computed_apart_make_the_loss_of_the_whole(cuts, lean):
    pixels, texts = pairs(6, 5, 4, 4)
    config = LossConfig()
    rows, first = [], 0
    for part in pixels.split(cuts):
        rows.append(MGCA(config, lean=lean).logits(part, texts, first))
        first += len(part)
    whole = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    ours, plain = MGCA(config).combine(whole)["total"], plain_loss(pixels, texts, config)["total"]
    torch.testing.assert_close(ours, plain)
    for a, b in zip(
        gradients(ours, [pixels, texts]), gradients(plain, [pixels, texts]), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_pairs_that_are_no_negatives_are_left_out():
    inputs = pairs(5, 6, 4, 4)
    exclude = torch.zeros(5, 5, dtype=torch.bool)
    exclude[0, 3] = exclude[3, 0] = exclude[1, 1] = True
    ours = lean_loss(*inputs, exclude=exclude)["total"]
    torch.testing.assert_close(ours, plain_loss(*inputs, LossConfig(), exclude=exclude)["total"])
    assert abs(ours.item() - lean_loss(*inputs)["total"].item()) > 1e-3


def test_positions_beyond_int16_are_kept():
    pixels, texts = pairs(2, 2, 1, 2**15 + 9, dtype=torch.float32)
    last = torch.zeros_like(pixels)
    last[..., -1] = 9.0 * texts.detach()[:, :, None]
    pixels = (pixels.detach() * 0.01 + last).requires_grad_()
    config = LossConfig(alpha=1e-9, alpha_neg=1e-9)
    (ours,) = gradients(lean_loss(pixels, texts, config)["total"], [pixels])
    (plain,) = gradients(plain_loss(pixels, texts, config)["total"], [pixels])
    assert ours[..., -1].abs().min() > 0
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def extra_bytes(function, pixels):
    """Most that a call allocates at once, less the gradient of the pixels, which it returns."""
    function()  # what is allocated once and kept is not counted
    pixels.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        function()
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = list(
        itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    )
    return max(held) - pixels.numel() * pixels.element_size()


@pytest.mark.parametrize("images", [32, 64])
def test_memory_beside_the_inputs_and_their_gradient(images):
    """At most twice one (B, B, N) tensor of similarities; the plain losses hold many times that."""
    torch.manual_seed(0)
    pixels = torch.randn(images, 64, 16, 16).to(memory_format=torch.channels_last)
    pixels.requires_grad_()
    texts = torch.randn(images, 64)
    similarities = 4 * images * images * 256

    def ours():
        lean_loss(pixels, texts)["total"].backward()

    def plainly():
        plain_loss(pixels, texts, LossConfig())["total"].backward()

    assert extra_bytes(ours, pixels) <= 2 * similarities
    assert extra_bytes(plainly, pixels) > 3 * similarities


@pytest.mark.parametrize("measure", ["dot", "cosine"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(96, 32, 24, 24), (32, 256, 16, 16)])
@pytest.mark.parametrize("mebibytes", [3, 16])
def test_a_budget_is_kept(mebibytes, shape, layout, measure):
    torch.manual_seed(0)
    pixels = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    texts = torch.randn(shape[:2])
    config = LossConfig(measure=measure)
    used = extra_bytes(
        lambda: lean_loss(pixels, texts, config, budget=mebibytes * 2**20)["total"].backward(),
        pixels,
    )
    # The logits themselves, their softmaxes and gradients, and the texts' come on top.
    assert used <= mebibytes * 2**20 + 20 * 4 * shape[0] ** 2 + 16 * texts.numel()


def test_a_budget_that_is_too_small_says_what_it_takes():
    inputs = pairs(4, 8, 8, 8)
    with pytest.raises(ValueError, match=r"0\.0 MiB is too small .* one image and 4 texts take 0"):
        lean_loss(*inputs, budget=100)


def test_less_budget_takes_fewer_images_and_then_keeps_nothing():
    def of(budget):
        comparison = Comparison(0, 300, 19, 39, 1, budget=budget)
        return workspace(comparison, 64, 64, 784, 512)

    sizes = [of(budget * 2**20) for budget in (8, 16, 64, 512)]
    assert [size for size, _ in sizes] == sorted(size for size, _ in sizes)
    assert sizes[-1] == (64, True)
    smallest = next(b for b in range(2**20, 2**24, 2**14) if _fits(b))
    assert of(smallest) == (1, False)


def test_a_gpu_takes_more_images_at_a_time():
    comparison, sizes = Comparison(0, 300, 19, 39, 1), (1024, 1024, 784, 512)
    few, many = (workspace(comparison, *sizes, room(device))[0] for device in ("cpu", "cuda:1"))
    assert many > 3 * few > 0
    assert workspace(comparison, *sizes)[0] == few


def _fits(budget):
    try:
        workspace(Comparison(0, 300, 19, 39, 1, budget=budget), 64, 64, 784, 512)
    except ValueError:
        return False
    return True
