"""Resizing and the sliding window: the parts of an image that go through the network."""

from typing import NamedTuple

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


def cut_windows(image: Tensor, boxes: list[Box], multiple: int) -> Tensor:
    """The windows of a normalised image (3, H, W) as a batch (n, 3, h, w).

    Windows smaller than the next multiple of the backbone's stride are padded at the bottom and
    right with 0, the mean colour. All windows of an image have the same size.
    """
    crops = torch.stack(
        [image[:, b.top : b.top + b.height, b.left : b.left + b.width] for b in boxes]
    )
    height, width = crops.shape[-2:]
    return F.pad(crops, (0, -width % multiple, 0, -height % multiple))


def resize(image: Image.Image, config: SegmentConfig) -> Image.Image:
    """The image resized to the size that the windows are laid on."""
    height, width = resized_size(image.height, image.width, config.short_side, config.long_side)
    return image.resize((width, height), Image.Resampling.BILINEAR)
