"""Sliding windows: where they lie, as mmsegmentation lays them, and how their scores are joined."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca.config import SegmentConfig, to_dict
from mgca.inference.score_map import PixelScores, ScoreMap
from mgca.inference.windows import Box, cut_windows, resize, resized_size, window_boxes
from mgca.model import Model
from mgca.utils import torchvision as _torchvision

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
    """Windows on a resized image, and random maps of half the resolution of a stride of 8."""
    boxes = window_boxes(*size, window, stride)
    padded = tuple(-(-side // multiple) * multiple for side in (boxes[0].height, boxes[0].width))
    maps = torch.randn(len(boxes), classes, padded[0] // 4, padded[1] // 4)
    return boxes, padded, maps


def everywhere(pixels: PixelScores) -> torch.Tensor:
    """(K, H, W): the scores of all pixels."""
    height, width = pixels.size
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    out = torch.full((height * width, pixels.table.shape[1]), torch.nan)
    for part, scores in pixels.blocks(y.flatten(), x.flatten()):
        out[part] = scores
    return out.t().unflatten(1, pixels.size)


def step_by_step(boxes, padded, maps, resized, original, blend="equal") -> torch.Tensor:
    """(K, H, W): windows upsampled, joined where they overlap, and resized, one after another."""

    def weights(side):  # of the pixels of a window, by their distance to the nearer edge
        place = torch.arange(side) + 0.5
        return torch.ones(side) if blend == "equal" else torch.minimum(place, side - place)

    whole = F.interpolate(maps, padded, mode="bilinear", align_corners=False)
    total, weight = torch.zeros(maps.shape[1], *resized), torch.zeros(resized)
    for window, box in zip(whole, boxes, strict=True):
        inside = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
        share = weights(box.height)[:, None] * weights(box.width)
        total[:, *inside] += share * window[:, : box.height, : box.width]
        weight[inside] += share
    averaged = (total / weight)[None]
    return F.interpolate(averaged, original, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("original", [(30, 41), (47, 33), (11, 90), (1, 1)])
@pytest.mark.parametrize("size, window, stride", [((30, 41), 20, 9), ((13, 50), 24, 24)])
@pytest.mark.parametrize("blend", ["equal", "middle"])
def test_the_weighted_sum_is_the_steps_one_after_another(size, window, stride, original, blend):
    boxes, padded, maps = geometry(size, window, stride, classes=2)
    pixels = PixelScores(ScoreMap.of_maps(maps), original, size, boxes, padded, blend)
    expected = step_by_step(boxes, padded, maps, size, original, blend)
    torch.testing.assert_close(everywhere(pixels), expected, rtol=0, atol=3e-5)


@fast
@given(height=sides, width=sides, window=st.integers(8, 40), share=st.floats(0.2, 1))
def test_windows_of_a_constant_give_the_constant(height, width, window, share):
    size = (height, width)
    boxes, padded, maps = geometry(size, window, max(1, int(share * window)), classes=3)
    constant = torch.tensor([0.25, -1.0, 3.0])
    maps = constant[None, :, None, None].expand_as(maps)
    pixels = PixelScores(ScoreMap.of_maps(maps), (40, 31), size, boxes, padded)
    expected = constant[:, None, None].expand(3, 40, 31)
    torch.testing.assert_close(everywhere(pixels), expected, rtol=1e-5, atol=1e-5)


@fast
@given(
    source=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    target=st.tuples(st.integers(1, 90), st.integers(1, 12)),
)
def test_one_window_of_single_pixels_is_resized(source, target):
    maps, box = torch.randn(1, 2, *source), [Box(0, 0, *source)]
    pixels = PixelScores(ScoreMap.of_maps(maps), target, source, box, source)
    whole = F.interpolate(maps, target, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(everywhere(pixels), whole, rtol=0, atol=2e-5)


@pytest.mark.slow
@fast
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 4), units=st.integers(1, 6))
def test_pixels_agree_where_all_the_positions_they_are_made_of_do(seed, classes, units):
    torch.manual_seed(seed)
    size = (30, 41)
    boxes, padded, maps = geometry(size, 20, 9, classes=1)
    index = torch.randint(units, (len(boxes), *maps.shape[2:]))
    labels = torch.randint(-1, classes, (units,))
    pixels = PixelScores(ScoreMap(torch.zeros(units, 1), index), (25, 50), size, boxes, padded)
    found = pixels.agreement(labels, slice(3, 20))
    # A pixel that is made of nothing else has all the weight on that label.
    shares = [
        step_by_step(boxes, padded, (labels[index] == k)[:, None].float(), size, (25, 50))[0, 3:20]
        for k in range(classes)
    ]
    expected = torch.full_like(found, -1)
    for k, share in enumerate(shares):
        expected[share > 1 - 1e-5] = k
    assert torch.equal(found, expected)


def test_scores_do_not_jump_at_the_edge_of_a_window_that_is_weighted_towards_its_middle():
    """Two windows that disagree, 0 and 1: at an inner edge the step is 1/2, or next to none."""
    boxes, padded, _ = geometry((16, 48), 32, 16, classes=1)
    assert [box.left for box in boxes] == [0, 16]
    maps = torch.stack([torch.full((1, 4, 8), float(n)) for n in range(2)])
    rows = {}
    for blend in ("equal", "middle"):
        scores = PixelScores(ScoreMap.of_maps(maps), (16, 48), (16, 48), boxes, padded, blend)
        rows[blend] = everywhere(scores)[0, 0]
    assert rows["equal"].tolist() == [0.0] * 16 + [0.5] * 16 + [1.0] * 16
    ramp = (torch.arange(16) + 0.5) / 16
    torch.testing.assert_close(rows["middle"], torch.cat([torch.zeros(16), ramp, torch.ones(16)]))


def test_how_windows_are_joined_is_no_part_of_the_names_of_published_runs():
    assert "blend" not in to_dict(SegmentConfig()) and SegmentConfig().blend == "equal"
    assert to_dict(SegmentConfig(blend="middle"))["blend"] == "middle"
    with pytest.raises(ValueError, match="blend must be one of equal, middle"):
        SegmentConfig(blend="hann")
