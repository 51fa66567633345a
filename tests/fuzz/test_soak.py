"""A process that segments and segments keeps nothing of what it has done."""

import gc
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from tiny import TinyBackbone

from mgca.config import SegmentConfig
from mgca.model import Model

BENCHMARKS = Path(__file__).resolve().parents[1] / "speed"
WARM_UP, PICTURES = 40, 150


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak

    yield soak
    del sys.modules["soak"]


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def test_nothing_is_kept(soak, monkeypatch):
    backbone = TinyBackbone()
    model = Model(backbone, config=SegmentConfig(short_side=64, window=64, stride=64))
    monkeypatch.setattr(soak, "SIDES", (60, 160))
    tracemalloc.start()
    try:
        for done in soak.segment_many(model, PICTURES):
            backbone.asked.clear()
            if done == WARM_UP:
                before = tensors(), soak.resident(), tracemalloc.get_traced_memory()[0]
        after = tensors(), soak.resident(), tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert done == PICTURES
    assert after[0] <= before[0]  # tensors alive: of the last lists of classes, no more
    assert after[1] - before[1] < 8  # MiB; the labels alone have 10
    assert after[2] - before[2] < 100_000  # bytes of Python and NumPy; a name a picture is more


def test_pictures_words_and_units_change(soak):
    asked = []

    class Recorder:
        def segment(self, image, classes, **options):
            asked.append((image.size, tuple(classes), *options.values()))
            return self

        areas = overlay = lambda self: None
        labels = None

    assert list(soak.segment_many(Recorder(), 60)) == list(range(1, 61))
    sizes, words, units, backgrounds = zip(*asked, strict=True)
    assert len(set(sizes)) > 55 and len(set(words)) > 55
    assert set(units) == {None, 4, 36} and set(backgrounds) == {None, 0.3}


def test_flatness(soak):
    flat = soak.flatness([100, 150, 200], [400, 400, 400])
    assert flat == {"max_over_min": 1, "MiB_per_1000": pytest.approx(0, abs=1e-6)}
    rising = soak.flatness([100, 150, 200], [400, 410, 420])
    assert rising == pytest.approx({"max_over_min": 1.05, "MiB_per_1000": 200})
