"""Resizing and the sliding window: the parts of an image that go through the network."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mgca.config import SegmentConfig


class Box(NamedTuple):
    """A window on the resized image, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def resized_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """The size (height, width) that an image is resized to, its ratio kept.

    The shorter side becomes ``short_side``, unless the longer would exceed ``long_side``: the rule
    of mmcv's ``rescale_size``.
    """
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def window_boxes(height: int, width: int, window: int, stride: int) -> list[Box]:
    """Windows that cover an image, row by row; the last of a row or column is moved back inside.

    The rule of mmsegmentation's ``slide_inference``. An image smaller than the window in one
    direction has a window of its own size there.
    """
    rows = max(height - window + stride - 1, 0) // stride + 1
    columns = max(width - window + stride - 1, 0) // stride + 1
    boxes = []
    for row in range(rows):
        bottom = min(row * stride + window, height)
        top = max(bottom - window, 0)
        for column in range(columns):
            right = min(column * stride + window, width)
            left = max(right - window, 0)
            boxes.append(Box(top, left, bottom - top, right - left))
    return boxes


def pad_before(window: int, padded: int, padding: str) -> int:
    """Number of pixels that a window is padded by before its first, along one axis.

    Args:
        window: Pixels of the window.
        padded: Pixels of it with its padding.
        padding: Where the padding lies, as in :class:`~mgca.config.SegmentConfig`.
    """
    return (padded - window) // 2 if padding == "centre" else 0


def cut_windows(image: Tensor, boxes: list[Box], multiple: int, padding: str = "corner") -> Tensor:
    """The windows of a normalised image (3, H, W) as a batch (n, 3, h, w).

    Windows smaller than the next multiple of the backbone's stride are padded with 0, the mean
    colour. All windows of an image have the same size.

    Args:
        image: The image.
        boxes: Its windows.
        multiple: Stride of the backbone.
        padding: Where the padding lies, ``"corner"`` or ``"centre"``.
    """
    crops = torch.stack(
        [image[:, b.top : b.top + b.height, b.left : b.left + b.width] for b in boxes]
    )
    height, width = crops.shape[-2:]
    down, across = -height % multiple, -width % multiple
    top = pad_before(height, height + down, padding)
    left = pad_before(width, width + across, padding)
    return F.pad(crops, (left, across - left, top, down - top))


def resize(image: Image.Image, config: SegmentConfig) -> Image.Image:
    """The image resized to the size that the windows are laid on."""
    height, width = resized_size(image.height, image.width, config.short_side, config.long_side)
    if config.resize == "opencv":
        return _four_pixels(image, height, width)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _four_pixels(image: Image.Image, height: int, width: int) -> Image.Image:
    """An RGB image resized by the rule of OpenCV's ``INTER_LINEAR``.

    Its centre lies between four pixels of the image, which alone count, however much it shrinks.
    OpenCV rounds weights to 11 bits, so that its values may differ by one level.
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
    return Image.fromarray(resized[0].round().to(torch.uint8).permute(1, 2, 0).numpy())
