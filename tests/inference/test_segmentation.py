"""A segmentation: labels and scores agree, in whatever blocks, with and without a background."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import TinyBackbone
from torch.nn import functional as F

import mgca.inference.score_map
import mgca.inference.segmentation
from mgca.config import BACKGROUND
from mgca.decoder import GatedConvDecoder
from mgca.inference.score_map import ScoreMap
from mgca.inference.scoring import rules
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Embedded
from mgca.inference.windows import window_boxes
from mgca.model import Model

CLASSES = ("cat", "dog", "house", "sky", "grass")
BLOCKS = [1, 300, 2_000, 16_000_000]  # one row of one class, one class, two classes, all at once


def embedded(original=(50, 71), size=(32, 45), window=32, stride=16) -> Embedded:
    boxes = window_boxes(*size, window, stride)
    image = Image.new("RGB", original[::-1])
    return Embedded(image, size, boxes, (window, window), torch.empty(0))


def random_maps(windows: Embedded, classes=5) -> ScoreMap:
    """Cosines of maps at a quarter of the windows' size."""
    return ScoreMap.of_maps(torch.rand(len(windows.boxes), classes, 8, 8) * 0.2 + 0.1)


def limit_blocks(monkeypatch, floats: int) -> None:
    """Blocks of so many floats, and bands of so many pixels."""
    monkeypatch.setattr(mgca.inference.score_map, "_BLOCK", floats)
    monkeypatch.setattr(mgca.inference.segmentation, "_BAND", floats)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("background", [None, 0.0, 0.35, 1.0])
@pytest.mark.parametrize("original", [(50, 71), (20, 33), (32, 45)])
def test_labels_are_the_largest_score(monkeypatch, block, background, original):
    windows = embedded(original)
    options = {"background": background, "temperature": 0.05}
    maps = random_maps(windows)
    whole = Segmentation(windows, CLASSES, maps, **options)
    expected = whole.scores, whole.labels
    limit_blocks(monkeypatch, block)
    blocks = Segmentation(windows, CLASSES, maps, **options)
    assert blocks.scores.shape == (len(blocks.classes), *original)
    assert blocks.labels.shape == original and blocks.labels.dtype == torch.int64
    assert torch.equal(blocks.labels, blocks.scores.argmax(0))
    torch.testing.assert_close(blocks.scores, expected[0], rtol=0, atol=1e-5)
    assert torch.equal(blocks.labels, expected[1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    units=st.integers(1, 9),
    spread=st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
    background=st.sampled_from([None, 0.2, 0.5]),
    temperature=st.sampled_from([None, 0.05]),
)
def test_labels_of_units_are_the_largest_score(seed, units, spread, background, temperature):
    # Few units, so that most pixels are made of one or two, and their labels are inferred.
    torch.manual_seed(seed)
    windows = embedded()
    table = 0.3 + spread * torch.rand(units, 5)
    maps = ScoreMap(table, torch.randint(units, (len(windows.boxes), 1, 8)).expand(-1, 8, -1))
    found = Segmentation(windows, CLASSES, maps, background=background, temperature=temperature)
    assert torch.equal(found.labels, found.scores.argmax(0))


def test_labels_that_all_agree_need_no_sums(monkeypatch):
    windows = embedded()
    maps = ScoreMap(torch.tensor([[0.1, 0.3], [0.2, 0.9]]), torch.zeros(2, 8, 8, dtype=torch.long))
    maps.index[0, 3:, :4] = 1
    summed = []
    blocks = mgca.inference.score_map.PixelScores.blocks
    monkeypatch.setattr(
        mgca.inference.score_map.PixelScores,
        "blocks",
        lambda self, y, x: summed.append(len(y)) or blocks(self, y, x),
    )
    assert (Segmentation(windows, ("a", "b"), maps).labels == 1).all()
    assert not any(summed)


def test_confidence_is_the_largest_probability():
    windows, temperature = embedded(), 0.05
    maps = random_maps(windows)
    probabilities = (Segmentation(windows, CLASSES, maps).scores / temperature).softmax(0)
    labels, confidence = Segmentation(windows, CLASSES, maps).confidence(temperature)
    assert torch.equal(labels, probabilities.argmax(0))
    torch.testing.assert_close(confidence, probabilities.amax(0))


def test_confidence_is_by_default_at_the_own_temperature():
    model, image = Model(TinyBackbone()), np.random.default_rng(0).integers(0, 256, (40, 60, 3))
    found = model.segment(image.astype(np.uint8), ["cat", "dog"], background=0.6)
    asked = found.confidence(model.backbone.temperature)
    assert all(map(torch.equal, found.confidence(), asked))
    alone = model.segment(image.astype(np.uint8), ["cat"], background=0.1)  # probabilities already
    assert torch.equal(alone.confidence()[1], alone.scores[1])


def test_masks_pictures_and_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = Model(TinyBackbone()).segment(image, ["cat", "dog"], background=0.55)
    for label, name in enumerate(found.classes):
        mask = found.mask(name)
        assert mask.dtype == bool and np.array_equal(mask, found.to_numpy() == label)
    with pytest.raises(ValueError, match="no class 'bird', only background, cat, dog"):
        found.mask("bird")
    plain = found.overlay(legend=False)
    assert plain.size == (60, 40)
    with_legend = found.overlay().crop((0, 0, 60, 40))
    assert np.array_equal(np.asarray(plain), np.asarray(with_legend))
    found.save(tmp_path / "new" / "x.png", legend=False)
    written = Image.open(tmp_path / "new" / "x.png")
    assert np.array_equal(np.asarray(written), np.asarray(plain))
    found.save(str(tmp_path / "x.JPG"), alpha=1)
    assert Image.open(tmp_path / "x.JPG").format == "JPEG"
    for name in ("x", "x.txt", "x.pdf.zip"):
        with pytest.raises(ValueError, match="no format of pictures"):
            found.save(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "x.JPG"]


def test_scores_are_the_windows_averaged_and_resized():
    windows = embedded()
    maps = torch.rand(len(windows.boxes), 5, 8, 8)
    total, count = torch.zeros(5, 32, 45), torch.zeros(32, 45)
    for box, window in zip(windows.boxes, maps, strict=True):
        columns = slice(box.left, box.left + 32)
        total[:, :, columns] += F.interpolate(window[None], (32, 32), mode="bilinear")[0]
        count[:, columns] += 1
    expected = F.interpolate((total / count)[None], (50, 71), mode="bilinear")[0]
    found = Segmentation(windows, CLASSES, ScoreMap.of_maps(maps)).scores
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("block", BLOCKS)
def test_background_is_where_no_probability_reaches_the_threshold(monkeypatch, block):
    limit_blocks(monkeypatch, block)
    windows, threshold, temperature = embedded(), 0.4, 0.04
    maps = random_maps(windows)
    cosines = Segmentation(windows, CLASSES, maps).scores.double()
    found = Segmentation(windows, CLASSES, maps, background=threshold, temperature=temperature)
    assert found.classes == (BACKGROUND, *CLASSES)
    scores = found.scores
    assert torch.equal(scores[0], torch.full((50, 71), threshold))
    kept = 0
    for y in range(0, 50, 7):
        for x in range(71):
            exponentials = [math.exp(c / temperature) for c in cosines[:, y, x].tolist()]
            probabilities = [e / sum(exponentials) for e in exponentials]
            assert scores[1:, y, x].tolist() == pytest.approx(probabilities, abs=1e-4)
            if abs(max(probabilities) - threshold) > 1e-4:
                best = probabilities.index(max(probabilities)) + 1
                assert found.labels[y, x] == (best if max(probabilities) > threshold else 0)
                kept += max(probabilities) > threshold
    assert 0.1 < kept / (8 * 71) < 0.9


def test_threshold_0_keeps_every_class_and_1_none():
    windows = embedded()
    maps = random_maps(windows)
    plain = Segmentation(windows, CLASSES, maps).labels
    assert torch.equal(Segmentation(windows, CLASSES, maps, background=0.0).labels, plain + 1)
    assert not Segmentation(windows, CLASSES, maps, background=1.0).labels.any()


def test_a_probability_equal_to_the_threshold_is_background():
    windows = embedded()
    maps = random_maps(windows)
    best = Segmentation(windows, CLASSES, maps, background=0.0).scores.amax(0)
    threshold = best.median().item()
    found = Segmentation(windows, CLASSES, maps, background=threshold)
    assert (best == threshold).any()
    assert torch.equal(found.labels > 0, best > threshold)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.lists(st.sampled_from([0.1, 0.2, 0.25, 0.3]), min_size=2, max_size=6),
    step=st.integers(0, 3),
    block=st.sampled_from(BLOCKS),
    background=st.sampled_from([None, 0.0, 0.3, 0.5]),
    temperature=st.sampled_from([0.01, 0.07, 1.0]),
)
def test_labels_are_the_largest_score_with_ties(values, step, block, background, temperature):
    # The same everywhere; some classes are equal, and some differ in the last bits only.
    maps = torch.tensor(values)
    for _ in range(step):
        maps[1::2] = torch.nextafter(maps[1::2], torch.tensor(1.0))
    windows = embedded((8, 9), (8, 8), 8, 8)
    maps = ScoreMap.of_maps(maps[None, :, None, None].expand(1, -1, 2, 2))
    names = [f"class {k}" for k in range(len(values))]
    with pytest.MonkeyPatch.context() as patch:
        limit_blocks(patch, block)
        segmentation = Segmentation(
            windows, names, maps, background=background, temperature=temperature
        )
        assert torch.equal(segmentation.labels, segmentation.scores.argmax(0))


@pytest.mark.parametrize("background", [None, 0.35])
def test_areas_are_the_shares_of_the_labels(background):
    windows = embedded()
    segmentation = Segmentation(windows, CLASSES, random_maps(windows), background=background)
    areas = segmentation.areas()
    assert tuple(areas) == segmentation.classes
    assert sum(areas.values()) == pytest.approx(1, abs=1e-12)
    for k, area in enumerate(areas.values()):
        assert area == pytest.approx((segmentation.labels == k).sum().item() / (50 * 71))


@pytest.mark.parametrize(
    "classes, options, message",
    [
        (CLASSES, {"background": 1.1}, "probability"),
        (CLASSES, {"background": -0.1}, "probability"),
        (CLASSES[:1], {"background": 0.5}, "two classes"),
        ((BACKGROUND, *CLASSES[1:]), {"background": 0.5}, "the threshold's own"),
        (CLASSES, {"temperature": 0}, "temperature"),
    ],
)
def test_a_background_that_cannot_be_is_refused(classes, options, message):
    windows = embedded()
    with pytest.raises(ValueError, match=message):
        Segmentation(windows, classes, random_maps(windows, len(classes)), **options)


def test_scores_that_do_not_fit_are_refused_and_labels_are_not(monkeypatch):
    little = SimpleNamespace(available=50_000)  # bytes; the scores take 71,000
    monkeypatch.setattr(mgca.inference.segmentation.psutil, "virtual_memory", lambda: little)
    windows = embedded()
    segmentation = Segmentation(windows, CLASSES, random_maps(windows))
    with pytest.raises(MemoryError, match="5 classes at 71x50"):
        _ = segmentation.scores
    assert segmentation.labels.shape == (50, 71)


def test_the_rule_of_tcl_thresholds_sigmoids_of_the_cosines():
    model = Model(TinyBackbone(), GatedConvDecoder(16))
    image = torch.randint(256, (3, 50, 71), dtype=torch.uint8)
    with pytest.raises(ValueError, match="rule 'sigmoid' is not one of this model's"):
        model.segment(image, CLASSES, background=0.5, rule="sigmoid")
    model.scoring = rules((4.0, -0.5))
    cosines = model.segment(image, CLASSES, 16)
    found = model.segment(image, CLASSES, 16, background=0.5, rule="sigmoid")
    # Sigmoids are averaged and not taken of averages, as TCL does: equal where units are whole.
    embedded = model.embed(image)
    table, index = model.scores(embedded.pixels, model.texts(CLASSES), 4)
    maps = ScoreMap(torch.sigmoid(4 * table - 0.5), index)
    expected = Segmentation(embedded, CLASSES, maps, temperature=None).scores
    torch.testing.assert_close(found.scores[1:], expected)
    assert torch.equal(found.labels, torch.where(expected.amax(0) > 0.5, expected.argmax(0) + 1, 0))
    assert found.classes == (BACKGROUND, *cosines.classes)
    with pytest.raises(ValueError, match="rule 'hard' is not one"):
        model.segment(image, CLASSES, rule="hard")


def test_shorter_numbers_are_near_and_what_follows_is_float32():
    model = Model(TinyBackbone(), GatedConvDecoder(16))
    for block in model.decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.5)
    image = torch.randint(0, 256, (3, 80, 96), dtype=torch.uint8)
    exact = model.embed(image).pixels
    assert model.precision == "float32"
    model.precision = "bfloat16"
    near = model.embed(image).pixels
    assert near.dtype == torch.float32
    error = (near - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.03
    assert model.segment(image, ["sky", "sea"]).scores.dtype == torch.float32
    model.precision = "float32"
    assert torch.equal(model.embed(image).pixels, exact)
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, float16"):
        model.precision = "float8"
