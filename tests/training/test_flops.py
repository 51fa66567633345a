"""FLOPs: counts of real passes against closed forms, and what is measured of a machine."""

import math

import pytest
import torch
from test_vit import small_vit
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca.backbone import load_backbone
from mgca.decoder import GatedConvDecoder
from mgca.losses.levels import object_loss, region_loss, similarity
from mgca.training.flops import (
    _affordable,
    bandwidth,
    best_seconds,
    ceiling,
    count_bytes,
    count_flops,
    decoder_flops,
    image_flops,
    loss_flops,
    slowness,
    text_flops,
    unit_flops,
)
from mgca.units import semantic_units


def vit_flops(patches, patch, width, layers, mlp, dim, last_block) -> float:
    """A vision transformer's dense features by hand, from patch embedding to projection."""
    tokens = patches + 1
    block = 2 * tokens * width**2 * (4 + 2 * mlp) + 4 * tokens**2 * width
    # Without the class token, the queries, the keys and their products.
    value_only = 2 * patches * width**2 * (2 + 2 * mlp)
    last = value_only if last_block == "value" else block
    ends = 2 * patches * (3 * patch**2 * width + width * dim)
    return ends + (layers - 1) * block + last


def text_transformer_flops(tokens, width, layers, dim) -> float:
    return layers * (24 * tokens * width**2 + 4 * tokens**2 * width) + 2 * width * dim


@pytest.mark.parametrize("last_block", ["value", "attention"])
@pytest.mark.parametrize("size", [32, 64])
def test_a_small_transformer_by_hand(size, last_block):
    vit = small_vit(last_block=last_block)
    expected = vit_flops((size // 8) ** 2, 8, 64, 2, 4, 24, last_block)
    assert image_flops(vit, size) == expected
    # Of one text, whatever its length: it is padded to the context of 16.
    assert text_flops(vit) == text_flops(vit, "cat") == text_transformer_flops(16, 32, 1, 24)


@pytest.mark.parametrize(
    "size, last_block, gflop",
    [
        (224, "value", 34.68),
        (224, "attention", 35.28),
        (448, "value", 153.85),
        (448, "attention", 157.61),
    ],
)
def test_the_papers_encoder_by_hand(size, last_block, gflop):
    expected = vit_flops((size // 16) ** 2, 16, 768, 12, 4, 512, last_block)
    assert expected / 1e9 == pytest.approx(gflop, abs=0.005)


def test_the_papers_encoders():
    # On the device meta nothing is computed, and the counts are the same.
    vit = load_backbone("vit-b-16", pretrained=False).to("meta")
    assert image_flops(vit, 224) == vit_flops(14**2, 16, 768, 12, 4, 512, "value")
    assert image_flops(vit, 448) == vit_flops(28**2, 16, 768, 12, 4, 512, "value")
    assert text_flops(vit) == text_transformer_flops(77, 512, 12, 512)
    assert text_flops(vit) / 1e9 == pytest.approx(5.96, abs=0.005)


def test_a_backbone_without_matrix_products():
    assert text_flops(TinyBackbone()) == 0
    assert image_flops(TinyBackbone(), 32) == 2 * 3 * 16 * 4


def test_counting_leaves_the_fast_path_as_it_was():
    def fail() -> None:
        raise RuntimeError("inside")

    torch.backends.mha.set_fastpath_enabled(True)
    with pytest.raises(RuntimeError, match="inside"):
        count_flops(fail)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("blocks, height, width", [(1, 4, 6), (2, 28, 28), (3, 2, 10)])
def test_the_decoder_is_counted_as_it_is(blocks, height, width):
    with torch.device("meta"):
        decoder = GatedConvDecoder(16, blocks=blocks)
        features = torch.empty(1, 16, height // 2, width // 2)
    expected = decoder_flops(16, height, width, blocks=blocks)
    assert count_flops(lambda: decoder(features)) == expected
    both = decoder_flops(16, height, width, blocks=blocks, backward=True)
    assert count_flops(lambda: decoder(features).sum().backward()) == both == 3 * expected


def test_the_papers_decoder():
    assert decoder_flops(512, 28, 28) / 1e9 == pytest.approx(7.40, abs=0.005)
    assert decoder_flops(512, 56, 56) / 1e9 == pytest.approx(29.60, abs=0.005)


@pytest.mark.parametrize("backward", [False, True])
def test_losses_over_whole_images_are_counted_as_their_plain_form_does(backward):
    images, pixels, dim = 5, 42, 8
    values = torch.empty(images, dim, 6, 7, device="meta", requires_grad=backward)
    texts = torch.empty(images, dim, device="meta")

    def plain() -> None:
        scores = similarity(values, texts)
        loss = region_loss(values, texts, alpha=1, alpha_neg=1, scores=scores)
        loss = loss + object_loss(values, texts, alpha=1, scores=scores)
        if backward:
            loss.backward()

    found = loss_flops(images, images, pixels, dim, alpha=1, alpha_neg=1, backward=backward)
    # The plain form makes the objects twice, and a region for the pairs that need none.
    again = 2 * images * 2 * pixels * dim
    assert found == count_flops(plain) - again * (3 if backward else 1)


def test_losses_by_hand():
    # 3 images, 12 texts, 100 pixels of 8 channels: objects of 40 pixels, regions of 5.
    similarities = 2 * 3 * 12 * 100 * 8
    regions = 2 * (3 * 40 + 33 * 5) * 8
    cosines = 2 * 2 * 36 * 8
    assert loss_flops(3, 12, 100, 8, backward=False) == similarities + regions + cosines
    assert loss_flops(3, 12, 100, 8) == similarities + 4 * regions + 2 * cosines


def test_units():
    pixels = torch.randn(1, 8, 6, 9)
    assert count_flops(lambda: semantic_units(pixels, (2, 3))) == unit_flops(8, 54, 6)


def test_bytes_by_hand():
    a, b = torch.zeros(10, 20), torch.zeros(20, 30)
    assert count_bytes(lambda: a @ b) == 4 * (200 + 600 + 300)
    assert count_bytes(lambda: a.view(4, 50).t()[1:]) == 0
    # 20 numbers in memory, however often they are shown; 200 are written.
    assert count_bytes(lambda: F.relu(a[:1].expand(10, 20))) == 4 * (200 + 200)
    row = torch.zeros(20)
    assert count_bytes(lambda: F.relu(row.expand(10, 20))) == 4 * (20 + 200)
    assert count_bytes(lambda: torch.cat([a, a])) == 4 * (400 + 400)


def test_the_quickest_call_counts():
    calls = []

    def work() -> None:
        calls.append(None)
        sum(range(2000 if len(calls) == 3 else 200_000))

    quickest = best_seconds(work, seconds=0, repeats=4)
    assert len(calls) == 5
    assert 0 < quickest < best_seconds(lambda: sum(range(200_000)), seconds=0) / 5


def test_a_machine_has_a_ceiling(monkeypatch):
    for measured in (ceiling("cpu", torch.float32, 0.0), bandwidth("cpu", 0.0)):
        assert math.isfinite(measured) and 1e8 < measured < 1e15
    # Known times: 2 * 2048^3 FLOP, and 256 MiB that are read and written.
    counts = []

    def taken(function, *_) -> float:
        counts.append(count_flops(function))
        return 2.0 + len(counts)

    monkeypatch.setattr("mgca.training.flops.best_seconds", taken)
    monkeypatch.setattr("mgca.training.flops._affordable", lambda *_: 2048)
    assert ceiling("cpu", torch.float32) == 2 * 2048**3 / 3
    assert counts == [2 * 2048**3] * 2
    assert bandwidth("cpu") == 2**29 / 5


def test_products_are_as_large_as_the_time_allows(monkeypatch):
    """Of a processor whose product takes so long, and eight times that for twice the side."""
    clock = [0.0]

    def product(a, b, seconds=1e-3):
        clock[0] += seconds * (len(a) / 128) ** 3

    monkeypatch.setattr("mgca.training.flops.torch.mm", product)
    monkeypatch.setattr("mgca.training.flops.time.perf_counter", lambda: clock[0])
    assert _affordable(torch.float32, 0.5) == 512  # 64 ms; 1024 would take 512
    assert _affordable(torch.float32, 1e9) == 2048
    clock[0] = 0.0
    assert _affordable(torch.float32, 1e-9) == 128 and clock[0] == pytest.approx(2e-3)


def test_a_precision_is_as_slow_as_its_products(monkeypatch):
    times = iter([0.6, 0.2])
    monkeypatch.setattr("mgca.training.flops.best_seconds", lambda *_: next(times))
    assert slowness("cpu", torch.bfloat16) == pytest.approx(3.0)
