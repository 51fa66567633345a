"""Evaluation: counts as by hand, one pass for all units, and features kept for another decoder."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyBackbone

from mgca.data import DataError, Masked
from mgca.decoder import GatedConvDecoder
from mgca.evaluate import evaluate, result_rows, unit_name
from mgca.metrics import Confusion
from mgca.model import Model

CLASSES = ("red", "green", "blue")


@pytest.fixture
def masked(tmp_path):
    generator = np.random.default_rng(0)
    items = []
    for number, (height, width) in enumerate([(60, 80), (90, 50), (33, 47)]):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        mask = generator.integers(0, 3, (height, width), dtype=np.uint8)
        mask[:3] = 255
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
        for path, array in zip(paths, (image, mask), strict=True):
            Image.fromarray(array).save(path)
        items.append((str(number), *paths))
    return Masked("colours", items, CLASSES, 0, "digest")


def decoder_of(seed: int) -> GatedConvDecoder:
    torch.manual_seed(seed)
    decoder = GatedConvDecoder(16)
    for block in decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.5)
    return decoder


def by_hand(model: Model, masked: Masked, unit: int | None) -> np.ndarray:
    counts = np.zeros((3, 3), dtype=int)
    for _, image, mask in masked:
        labels = model.segment(image, CLASSES, unit).labels.numpy()
        for true in range(3):
            for predicted in range(3):
                counts[true, predicted] += int(((mask == true) & (labels == predicted)).sum())
    return counts


def test_units_are_named_as_in_the_tables():
    assert (unit_name(None), unit_name(36)) == ("pixel", "36")


def test_counts_are_those_of_segmenting_each_image(masked):
    model = Model(TinyBackbone(), decoder_of(0))
    confusions = evaluate(model, masked, (None, 16))
    assert list(confusions) == ["pixel", "16"]
    for unit, name in ((None, "pixel"), (16, "16")):
        assert np.array_equal(confusions[name].counts, by_hand(model, masked, unit))
    assert not np.array_equal(confusions["pixel"].counts, confusions["16"].counts)


def test_kept_features_serve_another_decoder(masked, tmp_path, monkeypatch):
    first = Model(TinyBackbone(), decoder_of(0))
    before = evaluate(first, masked, features=tmp_path / "cache")
    again = evaluate(first, masked, features=tmp_path / "cache")
    second = Model(TinyBackbone(), decoder_of(1))
    plain = evaluate(second, masked)
    # From here on every feature has to come from the cache.
    monkeypatch.setattr(TinyBackbone, "features", lambda *_: pytest.fail("computed again"))
    other = evaluate(second, masked, features=tmp_path / "cache")
    assert np.array_equal(before["pixel"].counts, again["pixel"].counts)
    difference = np.abs(other["pixel"].counts - plain["pixel"].counts).sum()
    assert difference < 0.01 * plain["pixel"].counts.sum()  # features are kept in half precision
    assert not np.array_equal(other["pixel"].counts, before["pixel"].counts)


def test_a_mask_that_does_not_fit_is_named(masked):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(masked.items[1][2])
    with pytest.raises(DataError, match=r"1-mask\.png: the mask is \(5, 5\)"):
        evaluate(Model(TinyBackbone()), masked)


def test_rows_of_the_results_table():
    confusion = Confusion(2)
    confusion.add(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    rows = result_rows({"36": confusion}, variant="v", dataset="d", seed=2, run="r")
    shared = {"variant": "v", "dataset": "d", "unit": "36", "seed": 2, "run": "r"}
    miou = 100 * (2 / 3 + 1 / 2) / 2
    assert rows == [
        shared | {"metric": "miou", "value": round(miou, 3)},
        shared | {"metric": "accuracy", "value": 75.0},
    ]
