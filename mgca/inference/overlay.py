"""Pictures of segmentations: the image under the colours of its classes, with a legend."""

import colorsys
import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgca.utils.files import replacing

# Okabe and Ito's colours, which colour-blind readers tell apart; further ones follow by hue.
_SAFE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_GREY = (60, 60, 60)
_MAX_LEGEND = 24
_MAX_NAME = 40


def palette(classes: Sequence[str]) -> np.ndarray:
    """(K, 3) uint8 colours of the classes; grey for the background."""
    colours, used = [], 0
    for name in classes:
        if name == "background":
            colours.append(_GREY)
            continue
        if used < len(_SAFE):
            colours.append(_SAFE[used])
        else:
            # Steps of the golden ratio keep neighbours in the list apart in hue.
            hue = used * 0.618034 % 1
            value = (0.95, 0.7)[used % 2]
            colours.append(tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.65, value)))
        used += 1
    return np.array(colours, dtype=np.uint8)


def overlay(
    image: Image.Image,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    alpha: float = 0.6,
    legend: bool = True,
) -> Image.Image:
    """The image under its classes' colours, beside a legend of those that occur, largest first.

    Args:
        image: The photograph, (H, W).
        labels: (H, W) labels, indices into ``classes``.
        classes: Names of the classes.
        alpha: Opacity of the colours.
        legend: Whether a legend stands beside the image; without it the picture has its size.

    Raises:
        ValueError: If ``alpha`` does not lie in [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    colours = palette(classes)
    picture = Image.blend(image.convert("RGB"), Image.fromarray(colours[labels]), alpha)
    if not legend:
        return picture
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return _with_legend(picture, present, classes, colours, counts / counts.sum())


def _with_legend(
    picture: Image.Image,
    present: list[int],
    classes: Sequence[str],
    colours: np.ndarray,
    shares: np.ndarray,
) -> Image.Image:
    size = max(12, min(28, picture.height // 18))
    font = _font(size)
    lines = [
        (colours[i], f"{_one_line(classes[i])}  {percent(shares[i])}")
        for i in present[:_MAX_LEGEND]
    ]
    if len(present) > _MAX_LEGEND:
        lines.append((np.array(_GREY), f"and {len(present) - _MAX_LEGEND} more"))
    width = 3 * size + max(int(font.getlength(text)) for _, text in lines)
    step = round(1.5 * size)
    height = max(picture.height, step * len(lines) + size)
    canvas = Image.new("RGB", (picture.width + width, height), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, (colour, text) in enumerate(lines):
        x, y = picture.width + size // 2, size // 2 + row * step
        draw.rectangle((x, y, x + size, y + size), fill=tuple(int(c) for c in colour))
        draw.text((x + size + size // 2, y + size // 2), text, fill="black", font=font, anchor="lm")
    return canvas


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own font, which has the letters of most European languages; Pillow's has few."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def percent(share: float) -> str:
    """A share that is not zero, as people read it."""
    rounded = f"{100 * share:.0f} %"
    return "<1 %" if rounded == "0 %" else rounded


def _one_line(name: str) -> str:
    """A class name as the legend shows it: line breaks as spaces, a long name cut."""
    name = " ".join(name.split())
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def save_picture(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture whole or not at all, in the format of the file's suffix.

    Raises:
        ValueError: If the suffix is of no format that Pillow writes.
        OSError: If the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    kind = Image.registered_extensions().get(suffix)
    if kind not in Image.SAVE:
        raise ValueError(f"{path}: no format of pictures to write, give a name in .png or .jpg")
    with replacing(path) as temporary:
        image.save(temporary, format=kind, **({"quality": 90} if kind == "JPEG" else {}))


def png_bytes(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
