"""Many images: in order, read ahead but not too far, and failures in their places."""

import doctest
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyBackbone

import mgca.inference.batches
from mgca.config import SegmentConfig
from mgca.inference.batches import ImageFailure, segment_all
from mgca.inference.segmentation import Segmentation
from mgca.model import Model
from mgca.utils.images import ImageError

CLASSES = ["cat", "dog", "sky"]
SMALL = SegmentConfig(short_side=64, window=64, stride=32)


@pytest.fixture(scope="module")
def model():
    return Model(TinyBackbone(), None, SMALL)


def photos(number: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    sizes = generator.integers(20, 90, (number, 2))
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("options", [{}, {"meta_points": None, "background": 0.4}])
def test_results_are_those_of_one_at_a_time_in_their_order(model, workers, options):
    images = photos(7)
    found = list(segment_all(model, images, CLASSES, workers=workers, **options))
    assert len(found) == 7
    for image, result in zip(images, found, strict=True):
        expected = model.segment(image, CLASSES, **options)
        assert result.classes == expected.classes
        assert torch.equal(result.labels, expected.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_cannot_be_read_keep_their_places(model, workers, tmp_path):
    good = photos(2)
    missing = tmp_path / "missing.jpg"
    found = list(segment_all(model, [good[0], b"text", missing, good[1]], CLASSES, workers=workers))
    kinds = [Segmentation, ImageFailure, ImageFailure, Segmentation]
    assert [type(result) for result in found] == kinds
    assert found[1].image == b"text" and isinstance(found[1].error, ImageError)
    assert found[2].image == missing and isinstance(found[2].error, FileNotFoundError)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_more_images_are_taken_than_workers_ahead(model, workers):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield np.zeros((20, 20, 3), np.uint8)

    results = segment_all(model, endless(), CLASSES, workers=workers)
    for done in range(1, 6):
        next(results)
        assert len(taken) <= done + workers
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("mgca-images")]


def test_reading_goes_on_while_an_image_is_segmented(monkeypatch, model):
    # The second image must be opened while the first is being segmented, or the wait fails.
    opened, images = threading.Event(), photos(2)

    def opening(image):
        if image is images[1]:
            opened.set()
        return Image.fromarray(image)

    monkeypatch.setattr(mgca.inference.batches, "open_image", opening)
    segment = model.segment
    waited = []

    def segmenting(*arguments, **options):
        waited.append(opened.wait(10))
        return segment(*arguments, **options)

    monkeypatch.setattr(model, "segment", segmenting)
    assert len(list(segment_all(model, images, CLASSES))) == 2
    assert waited == [True, True]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("place", ["reading", "segmenting"])
def test_whatever_goes_wrong_with_one_is_its_own(monkeypatch, model, place, workers):
    images, what = photos(3), RuntimeError("out of memory")
    work = mgca.inference.batches.open_image if place == "reading" else model.segment

    def breaking(image, *arguments, **options):
        if np.array_equal(np.asarray(image), images[1]):
            raise what
        return work(image, *arguments, **options)

    if place == "reading":
        monkeypatch.setattr(mgca.inference.batches, "open_image", breaking)
    else:
        monkeypatch.setattr(model, "segment", breaking)
    found = list(segment_all(model, images, CLASSES, workers=workers))
    assert [type(result) for result in found] == [Segmentation, ImageFailure, Segmentation]
    assert found[1].image is images[1] and found[1].error is what


@pytest.mark.parametrize(
    ("classes", "options", "error", "message"),
    [
        ([], {}, ValueError, "at least one"),
        ("cat", {}, TypeError, "one string"),
        (["cat", "cat"], {}, ValueError, "more than once"),
        (CLASSES, {"meta_points": 35}, ValueError, "square"),
        (CLASSES, {"background": 1.5}, ValueError, "probability"),
        ({"cat": ["kitten"], "dog": []}, {}, ValueError, "words of 'dog': expected at least one"),
        ({"cat", "dog"}, {}, TypeError, "not a set, of no order"),
        (CLASSES, {"workers": -1}, ValueError, "workers"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(model, classes, options, error, message):
    with pytest.raises(error, match=message):
        segment_all(model, [], classes, **options)


@pytest.mark.parametrize("one", ["a.jpg", Path("a.jpg"), b"bytes"])
def test_one_path_is_not_several(model, one):
    with pytest.raises(TypeError, match="several images, not one"):
        segment_all(model, one, ["cat", "dog"])


def test_the_example_of_the_docstring():
    assert doctest.testmod(mgca.inference.batches) == (0, 4)
