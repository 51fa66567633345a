"""COCO's instance annotations as masks: polygons and run lengths, without pycocotools."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from mgca.data.masks import DataError


def decode_counts(text: str | bytes) -> np.ndarray:
    """The run lengths in COCO's compressed string.

    Numbers are written in characters from "0" on that carry five bits each, the lowest first, with
    a sixth bit where another character follows; the last one's highest bit is the sign. From the
    fourth number on, it is the difference to the number two places before.

    Raises:
        DataError: If the string ends within a number, or holds other characters.
    """
    if isinstance(text, str):
        try:
            text = text.encode("ascii")
        except UnicodeEncodeError as error:
            raise DataError("run lengths with a character that is not ASCII") from error
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            raise DataError(f"run lengths with the character {chr(character)!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError("run lengths that end in the middle of a number")
    return np.array(counts, dtype=np.int64)


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """The mask (H, W) bool of run lengths, ``{"size": [H, W], "counts": list or string}``.

    Runs go down the columns, the first is of zeros.

    Raises:
        DataError: If they do not fill the mask exactly.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        compressed = isinstance(counts, str | bytes)
        runs = decode_counts(counts) if compressed else np.asarray(counts, dtype=np.int64)
    except (KeyError, TypeError) as error:
        raise DataError(f"not run lengths: {error!r}") from error
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise DataError(f"run lengths that do not fill {height} x {width} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def draw_polygons(polygons: Iterable[Iterable[float]], height: int, width: int) -> np.ndarray:
    """The union (H, W) bool of polygons, each a list x, y, x, y, … in pixels.

    A pixel belongs to a polygon if its centre does, by the even-odd rule. Pillow's own polygons
    take in every pixel that the outline touches: 8 times as many errors on a sample of COCO.

    Raises:
        DataError: If a polygon is not of pairs, or not of finite numbers.
    """
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64)
        if points.ndim != 1 or points.size % 2 or not np.isfinite(points).all():
            raise DataError(
                f"a polygon of {points.size} numbers, which are not pairs of finite ones"
            )
        if points.size >= 6:  # a point or a line covers nothing
            _fill(mask, points.reshape(-1, 2))
    return mask


def _fill(mask: np.ndarray, points: np.ndarray) -> None:
    """Set the pixels of ``mask`` (H, W) whose centre lies in the polygon of ``points`` (N, 2)."""
    height, width = mask.shape
    sides = np.array([points[:, 0].min(), points[:, 0].max()])
    left, right = np.clip(np.ceil(sides - 0.5), 0, width).astype(int)
    ends = np.roll(points, -1, axis=0)
    upward = (points[:, 1] > ends[:, 1])[:, None]
    top, bottom = np.where(upward, ends, points), np.where(upward, points, ends)
    # The rows whose centre lines an edge crosses: first to last - 1.
    first = np.clip(np.ceil(top[:, 1] - 0.5), 0, height).astype(int)
    last = np.clip(np.ceil(bottom[:, 1] - 0.5), 0, height).astype(int)
    above, below = first.min(), last.max()
    if above >= below or left >= right:
        return
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (bottom[edge, 0] - top[edge, 0]) / (bottom[edge, 1] - top[edge, 1])
    x = top[edge, 0] + (row + 0.5 - top[edge, 1]) * slope
    # Each crossing switches inside to outside, from the first centre to its right on.
    column = np.clip(np.ceil(x - 0.5), left, right).astype(int) - left
    wide = right - left + 1
    switches = np.bincount((row - above) * wide + column, minlength=(below - above) * wide)
    inside = np.cumsum(switches.reshape(-1, wide), axis=1)[:, :-1] % 2 == 1
    mask[above:below, left:right] |= inside


def instance_mask(annotation: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask (H, W) bool of one instance.

    Raises:
        DataError: If its segmentation is neither polygons nor run lengths of that size.
    """
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        mask = decode_rle(segmentation)
        if mask.shape != (height, width):
            raise DataError(f"run lengths of {mask.shape} in an image of {(height, width)}")
        return mask
    if isinstance(segmentation, list):
        return draw_polygons(segmentation, height, width)
    raise DataError(f"a segmentation that is neither polygons nor run lengths: {segmentation!r}")


def render(
    annotations: Iterable[Mapping[str, Any]],
    height: int,
    width: int,
    id_of: Callable[[int], int],
) -> np.ndarray:
    """The ids (H, W) uint8 of an image's instances, 0 where there is none.

    Large instances are drawn first, so that what lies on them is seen; crowds count as their class.

    Args:
        id_of: The id in the mask of a category.

    Raises:
        DataError: As :func:`instance_mask`, with the number of the annotation.
    """
    ids = np.zeros((height, width), dtype=np.uint8)
    for annotation in sorted(annotations, key=lambda a: -float(a["area"])):
        try:
            ids[instance_mask(annotation, height, width)] = id_of(annotation["category_id"])
        except DataError as error:
            raise DataError(f"annotation {annotation.get('id')}: {error}") from error
    return ids
