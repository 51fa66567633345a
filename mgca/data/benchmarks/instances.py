"""COCO's instance annotations as masks, by pycocotools, which never sees what it cannot take."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from mgca.data.masks import DataError

# A number is characters from "P" on, and a last one below. Of a string that stops within a number
# pycocotools reads on behind its end.
_STRING = re.compile(rb"[0-o]*[0-O]")
_FARTHEST = 1e6  # pixels; it keeps a point for each fifth of a pixel along an outline


def _coder() -> Any:
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise ImportError(
            f"COCO's annotations need pycocotools ({error}): pip install 'mgca[benchmarks]'"
        ) from error
    return mask


def decode_rle(rle: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask (H, W) bool of run lengths, ``{"size": [H, W], "counts": list or string}``.

    Runs go down the columns, the first is of zeros.

    Raises:
        DataError: If they are damaged, or not of an image of this size.
        ImportError: If pycocotools is not installed.
    """
    coder = _coder()
    size, counts = rle.get("size"), rle.get("counts")
    if size != [height, width]:
        raise DataError(f"run lengths of {size} in an image of {[height, width]}")
    unfilled = DataError(f"run lengths that do not fill {height} x {width} pixels")
    if isinstance(counts, str | bytes):
        text = counts.encode() if isinstance(counts, str) else counts
        if not _STRING.fullmatch(text):
            raise DataError("run lengths that are no string of COCO, or cut off")
    elif isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts):
        if sum(counts) != height * width:
            raise unfilled
        text = coder.frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
    else:
        raise DataError(f"not run lengths: {counts!r:.80}")
    try:
        mask = coder.decode({"size": size, "counts": text})
    except ValueError as error:
        raise unfilled from error
    # What runs that end too early leave is not set to anything.
    if isinstance(counts, str | bytes) and coder.encode(mask)["counts"] != text:
        raise unfilled
    return mask.astype(bool)


def draw_polygons(polygons: Iterable[Iterable[float]], height: int, width: int) -> np.ndarray:
    """The union (H, W) bool of polygons, each a list x, y, x, y, … in pixels.

    Raises:
        DataError: If a polygon is not of pairs, or not of finite numbers near the image.
        ImportError: If pycocotools is not installed.
    """
    coder, outlines = _coder(), []
    for polygon in polygons:
        points = np.asarray(polygon, dtype=np.float64)
        if points.ndim != 1 or points.size % 2 or not (np.abs(points) < _FARTHEST).all():
            raise DataError(
                f"a polygon of {points.size} numbers, which are not pairs of finite ones"
            )
        if points.size >= 6:  # a point or a line covers nothing
            outlines.append(points.tolist())
    if not outlines:
        return np.zeros((height, width), dtype=bool)
    return coder.decode(coder.merge(coder.frPyObjects(outlines, height, width))).astype(bool)


def instance_mask(annotation: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The mask (H, W) bool of one instance.

    Raises:
        DataError: If its segmentation is neither polygons nor run lengths of that size.
    """
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        return decode_rle(segmentation, height, width)
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
        annotations: The annotations of the image's instances, as in COCO's JSON.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
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
