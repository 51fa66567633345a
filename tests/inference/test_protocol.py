"""TCL's protocol against a plain restatement: filter, padding, positions, and all of it at once."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca.backbone.vit import interpolate_positions
from mgca.config import SegmentConfig, config_hash
from mgca.evaluation.conventions import TCL_PROTOCOL
from mgca.inference.windows import cut_windows, resize, window_boxes
from mgca.model import Model


def photo(height, width) -> Image.Image:
    return Image.fromarray(np.random.randint(0, 256, (height, width, 3), dtype=np.uint8))


def of_four_pixels(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation, centres of pixels at halves, edges repeated: (H, W, C) float64."""
    out = np.zeros((height, width, values.shape[2]))
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * values.shape[0] / height - 0.5, 0)
            u = max((x + 0.5) * values.shape[1] / width - 0.5, 0)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, len(values) - 1), min(left + 1, values.shape[1] - 1)
            v, u = v - top, u - left
            above = (1 - u) * values[top, left] + u * values[top, right]
            below = (1 - u) * values[bottom, left] + u * values[bottom, right]
            out[y, x] = (1 - v) * above + v * below
    return out


@pytest.mark.parametrize("size", [(40, 60), (11, 17), (20, 30)])  # smaller, larger, the same
def test_opencvs_filter_looks_at_four_pixels(size):
    image = photo(*size)
    config = SegmentConfig(short_side=20, window=20, stride=10, resize="opencv")
    found = np.array(resize(image, config)).astype(float)
    expected = of_four_pixels(np.array(image).astype(float), *found.shape[:2])
    assert np.abs(found - expected).max() <= 0.5 + 1e-4
    if size == (20, 30):
        assert np.array_equal(found, np.array(image))
    pillow = np.array(resize(image, SegmentConfig(short_side=20, window=20, stride=10)))
    assert (np.abs(pillow - expected).max() > 5) == (size == (40, 60))


def test_padding_in_the_centre():
    image = torch.rand(3, 23, 37)
    (window,) = cut_windows(image, window_boxes(23, 37, 48, 24), 16, "centre")
    # 9 rows and 11 columns too few: 4 above and 5 below, 5 to the left and 6 to the right.
    assert window.shape == (3, 32, 48)
    assert torch.equal(window[:, 4:27, 5:42], image)
    assert window.sum() == pytest.approx(float(image.sum()), rel=1e-5)
    corner = cut_windows(image, window_boxes(23, 37, 48, 24), 16)[0]
    assert torch.equal(corner[:, :23, :37], image)


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' kernel with torch's and OpenCV's parameter."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def cubic_matrix(source: int, size: int) -> torch.Tensor:
    matrix = torch.zeros(size, source, dtype=torch.float64)
    for i in range(size):
        place = (i + 0.5) * source / size - 0.5
        for j in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            matrix[i, min(max(j, 0), source - 1)] += cubic(place - j)
    return matrix


@pytest.mark.parametrize("size", [(7, 9), (3, 2)])
def test_positions_without_antialiasing(size):
    embedding = torch.randn(1 + 16, 5, dtype=torch.float64)
    found = interpolate_positions(embedding, (4, 4), size, "plain")
    grid = embedding[1:].view(4, 4, 5)
    rows, columns = (cubic_matrix(4, side) for side in size)
    expected = torch.einsum("yi,xj,ijc->yxc", rows, columns, grid).flatten(0, 1)
    torch.testing.assert_close(found, torch.cat([embedding[:1], expected]))
    assert not torch.allclose(found, interpolate_positions(embedding, (4, 4), size), atol=1e-3)


def test_all_of_it_at_once():
    """Scores of a window by the rules in words: resize, normalise, pad, encode, enlarge, cut."""
    image, names = photo(50, 71), ["cat", "dog", "sky"]
    config = SegmentConfig(short_side=40, window=64, stride=32, meta_points=None, **TCL_PROTOCOL)
    model = Model(TinyBackbone(), config=config)
    found = model.segment(image, names)
    resized = of_four_pixels(np.array(image).astype(float), 40, 57).round()
    pixels = torch.from_numpy((resized / 255 - 0.5) / 0.25).permute(2, 0, 1).float()
    padded = torch.zeros(3, 48, 64)
    padded[:, 4:44, 3:60] = pixels  # 8 rows and 7 columns too few
    dense = F.normalize(TinyBackbone().dense(padded[None]), dim=1)
    scores = torch.einsum("kc,bchw->bkhw", model.texts(names), dense)
    large = F.interpolate(scores, (48, 64), mode="bilinear", align_corners=False)
    cut = large[:, :, 4:44, 3:60]
    expected = F.interpolate(cut, (50, 71), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found.scores, expected, rtol=0, atol=2e-3)
    agree = (found.labels == expected.argmax(0)).double().mean()
    assert agree > 0.99
    usual = Model(TinyBackbone(), config=SegmentConfig(short_side=40, window=64, stride=32))
    other = usual.segment(image, names, None).labels
    assert (found.labels != other).any()


def test_the_names_of_published_runs_stay():
    neutral = SegmentConfig(resize="pillow", padding="corner", positions="antialiased")
    assert config_hash(neutral) == config_hash(SegmentConfig())
    for name, value in TCL_PROTOCOL.items():
        assert config_hash(SegmentConfig(**{name: value})) != config_hash(SegmentConfig())
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            SegmentConfig(**{name: "other"})
