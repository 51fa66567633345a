"""Sliding windows: where they lie, as mmsegmentation lays them, and how their scores are joined."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca import _torchvision
from mgca.config import SegmentConfig
from mgca.model import Model
from mgca.segment import Embedded, average_windows, resize_rows
from mgca.windows import cut_windows, resize, resized_size, window_boxes

fast = settings(max_examples=80, deadline=None, derandomize=True)
sides = st.integers(1, 90)
CLASSES = ["cat", "dog", "a red house", "sky", "grass"]


@pytest.fixture(scope="module")
def mmcv_rescale_size():
    return pytest.importorskip("mmcv").rescale_size


@pytest.fixture(scope="module")
def slide_inference():
    """mmsegmentation's own sliding window around any function of a crop."""
    _torchvision.make_importable()
    segmentors = pytest.importorskip("mmseg.models.segmentors")

    def slide(image, classes, window, stride, crop_scores):
        stand_in = SimpleNamespace(
            test_cfg=SimpleNamespace(stride=(stride, stride), crop_size=(window, window)),
            out_channels=classes,
            encode_decode=lambda crop, metas: crop_scores(crop),
        )
        return segmentors.EncoderDecoder.slide_inference(stand_in, image[None], [{}])[0]

    return slide


@fast
@given(
    height=st.integers(1, 6000),
    width=st.integers(1, 6000),
    short=st.integers(8, 800),
    extra=st.integers(0, 2000),
)
def test_resized_size_is_mmcvs(mmcv_rescale_size, height, width, short, extra):
    theirs = mmcv_rescale_size((width, height), (short + extra, short))
    assert (
        resized_size(height, width, short, short + extra) == tuple(max(1, s) for s in theirs)[::-1]
    )


@pytest.mark.parametrize(
    "size, expected",
    [((375, 500), (448, 597)), ((500, 375), (597, 448)), ((448, 448), (448, 448)),
     ((100, 1000), (205, 2048)), ((1, 5000), (1, 2048)), ((30, 20), (672, 448))],
)  # fmt: skip
def test_resized_size_by_hand(size, expected):
    assert resized_size(*size, 448, 2048) == expected
    assert resize(Image.new("RGB", size[::-1]), SegmentConfig()).size == expected[::-1]


def test_windows_of_a_photo():
    tops = {box.top for box in window_boxes(448, 597, 448, 224)}
    lefts = [box.left for box in window_boxes(448, 597, 448, 224)]
    assert (tops, lefts) == ({0}, [0, 149])
    assert [box.left for box in window_boxes(448, 1000, 448, 224)] == [0, 224, 448, 552]
    # An image smaller than the window in one direction.
    assert window_boxes(205, 448, 448, 224) == [(0, 0, 205, 448)]


@fast
@given(height=sides, width=sides, window=st.integers(1, 40), share=st.floats(0.01, 1))
def test_windows_cover_every_pixel_and_lie_inside(height, width, window, share):
    stride = max(1, int(share * window))
    boxes = window_boxes(height, width, window, stride)
    count = torch.zeros(height, width)
    for box in boxes:
        assert box.top >= 0 and box.top + box.height <= height
        assert box.left >= 0 and box.left + box.width <= width
        assert (box.height, box.width) == (min(window, height), min(window, width))
        count[box.top : box.top + box.height, box.left : box.left + box.width] += 1
    assert count.min() >= 1
    assert len(set(boxes)) == len(boxes)


@fast
@given(height=sides, width=sides, window=st.integers(4, 40), share=st.floats(0.2, 1))
def test_windows_are_mmsegmentations(slide_inference, height, width, window, share):
    stride = max(1, int(share * window))
    # The pixels of this image say where they are.
    image = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ).float()
    theirs = []

    def record(crop):
        top, left = crop[0, :, 0, 0].int().tolist()
        theirs.append((top, left, *crop.shape[2:]))
        return crop.sum(dim=1, keepdim=True)

    slide_inference(image, 1, window, stride, record)
    assert window_boxes(height, width, window, stride) == theirs


def test_cut_windows_pads_with_the_mean_colour():
    image = torch.randn(3, 30, 50)
    boxes = window_boxes(30, 50, 40, 16)
    windows = cut_windows(image, boxes, 16)
    assert windows.shape == (2, 3, 32, 48)
    for window, box in zip(windows, boxes, strict=True):
        assert torch.equal(window[:, :30, :40], image[:, :, box.left : box.left + 40])
        assert not window[:, 30:].any() and not window[:, :, 40:].any()


def tiny_model(window=64, stride=32) -> Model:
    config = SegmentConfig(short_side=64, window=window, stride=stride, meta_points=None)
    return Model(TinyBackbone(), config=config)


def noise(height, width) -> torch.Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


@torch.inference_mode()
def test_an_image_of_one_window_is_a_single_pass():
    model, image = tiny_model(), noise(64, 64)
    segmentation = model.segment(image, CLASSES)
    normalised = (image / 255 - 0.5) / 0.25
    dense = F.normalize(model.backbone.dense(normalised[None]), dim=1)
    scores = torch.einsum("kc,nchw->nkhw", model.texts(CLASSES), dense)
    expected = F.interpolate(scores, (64, 64), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(segmentation.scores, expected, rtol=0, atol=1e-5)
    assert torch.equal(segmentation.labels, expected.argmax(0))


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 96), (150, 64), (64, 101), (64, 64)])
def test_sliding_window_is_mmsegmentations(slide_inference, size):
    model, image = tiny_model(), noise(*size)
    normalised = (image / 255 - 0.5) / 0.25

    def crop_scores(crop):
        dense = F.normalize(model.backbone.dense(crop), dim=1)
        scores = torch.einsum("kc,nchw->nkhw", model.texts(CLASSES), dense)
        return F.interpolate(scores, crop.shape[2:], mode="bilinear", align_corners=False)

    expected = slide_inference(normalised, len(CLASSES), 64, 32, crop_scores)
    found = model.segment(image, CLASSES).scores
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def geometry(size, window, stride, classes, multiple=8):
    """Windows on a resized image and random maps of half the resolution of a stride of 8."""
    boxes = window_boxes(*size, window, stride)
    padded = tuple(-(-side // multiple) * multiple for side in (boxes[0].height, boxes[0].width))
    maps = torch.randn(len(boxes), classes, padded[0] // 4, padded[1] // 4)
    return Embedded(Image.new("RGB", size[::-1]), size, boxes, padded, torch.empty(0)), maps


@pytest.mark.parametrize("size, window, stride", [((30, 41), 20, 9), ((13, 50), 24, 24)])
def test_average_windows_equals_loops(size, window, stride):
    embedded, maps = geometry(size, window, stride, classes=2)
    whole = F.interpolate(maps, embedded.padded, mode="bilinear", align_corners=False)
    averaged = average_windows(embedded, maps)
    assert averaged.shape == (2, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            seen = [
                whole[n, :, y - box.top, x - box.left]
                for n, box in enumerate(embedded.boxes)
                if 0 <= y - box.top < box.height and 0 <= x - box.left < box.width
            ]
            torch.testing.assert_close(averaged[:, y, x], sum(seen) / len(seen))


@fast
@given(height=sides, width=sides, window=st.integers(8, 40), share=st.floats(0.2, 1))
def test_windows_of_a_constant_give_the_constant(height, width, window, share):
    embedded, maps = geometry((height, width), window, max(1, int(share * window)), classes=3)
    constant = torch.tensor([0.25, -1.0, 3.0])
    averaged = average_windows(embedded, constant[None, :, None, None].expand_as(maps))
    torch.testing.assert_close(averaged, constant[:, None, None].expand(3, height, width))


@fast
@given(
    source=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    target=st.tuples(st.integers(1, 90), st.integers(1, 12)),
    at_once=st.integers(1, 30),
)
def test_resizing_in_blocks_of_rows_is_resizing(source, target, at_once):
    scores = torch.randn(2, *source)
    whole = F.interpolate(scores[None], target, mode="bilinear", align_corners=False)[0]
    blocks = [
        resize_rows(scores, target, slice(top, min(top + at_once, target[0])))
        for top in range(0, target[0], at_once)
    ]
    torch.testing.assert_close(torch.cat(blocks, dim=1), whole, rtol=0, atol=2e-5)
