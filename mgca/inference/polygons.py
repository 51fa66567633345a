"""Masks as polygons along the edges of their pixels, so that drawing them gives the mask again.

Formats such as COCO's have no holes in polygons. A region with holes is therefore cut, from top to
bottom at the left edge of each hole, into parts that have none.
"""

import numpy as np
from scipy import ndimage


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Polygons that cover exactly the pixels of a mask, none of them twice.

    Args:
        mask: (H, W) mask, true inside.

    Returns:
        Arrays (n, 2) of corners (x, y), clockwise, in pixels from the top left corner of the image.

    >>> polygons(np.array([[0, 1, 1]])).pop().tolist()
    [[1, 0], [3, 0], [3, 1], [1, 1]]
    """
    # A frame of outside, so that every region has an edge all around.
    y, x, after = _edges(_parts(np.pad(np.asarray(mask, dtype=bool), 1)))
    corners = np.stack((x, y), axis=1) - 1
    outlines, left, following = [], np.ones(len(after), dtype=bool), after.tolist()
    for first in range(len(after)):
        if not left[first]:
            continue
        loop, edge = [first], following[first]
        while edge != first:
            loop.append(edge)
            edge = following[edge]
        left[loop] = False
        outlines.append(_turns(corners[loop]))
    return outlines


def _parts(mask: np.ndarray) -> np.ndarray:
    """(H, W) numbers of parts, 0 outside: connected by the sides of pixels, and without holes."""
    regions, _ = ndimage.label(mask)
    # What is outside is connected by corners too, or else it would cross the regions that are not.
    outside, count = ndimage.label(~mask, structure=np.ones((3, 3)))
    if count < 2:
        return regions
    cuts: dict[int, set[int]] = {}
    for number, (rows, columns) in enumerate(ndimage.find_objects(outside), start=1):
        if number == outside[0, 0]:
            continue
        y = rows.start + int(np.argmax(outside[rows, columns.start] == number))
        # Left of a hole lies the region around it.
        cuts.setdefault(int(regions[y, columns.start - 1]), set()).add(columns.start)
    boxes = ndimage.find_objects(regions)
    total = len(boxes)
    for region, at in cuts.items():
        rows, columns = boxes[region - 1]
        edges = [columns.start, *sorted(at), columns.stop]
        for left, right in zip(edges, edges[1:], strict=False):
            strip = regions[rows, left:right]
            pieces, number_of_pieces = ndimage.label(strip == region)
            strip[pieces > 0] = pieces[pieces > 0] + total
            total += number_of_pieces
    return regions


def _edges(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sides of pixels between parts, clockwise around each: start (y, x), and which follows.

    Where two corners of a part touch, its boundary goes on around the same pixel.
    """
    width = parts.shape[1] + 1
    # Sides in the directions right, down, left, up: the pixel beyond, and the corner it starts at.
    beyond = (((-1, 0), (0, 0)), ((0, 1), (0, 1)), ((1, 0), (1, 1)), ((0, -1), (1, 0)))
    starts, owners = [], []
    for (down, across), (corner_y, corner_x) in beyond:
        other = np.roll(parts, (-down, -across), axis=(0, 1))
        y, x = np.nonzero((parts != other) & (parts > 0))
        starts.append((y + corner_y) * width + x + corner_x)
        owners.append(parts[y, x].astype(np.int64))
    direction = np.repeat(np.arange(4), [len(start) for start in starts])
    start, owner = np.concatenate(starts), np.concatenate(owners)
    end = start + np.array([1, width, -1, -width])[direction]
    # From its end an edge turns right if it can, goes straight on otherwise, or else turns left.
    keys = (owner * (parts.size + sum(parts.shape) + 1) + start) * 4
    order = np.argsort(keys + direction)
    ordered = (keys + direction)[order]
    after = np.full(len(start), -1)
    base = keys - start * 4 + end * 4
    for turn in (1, 0, 3):
        wanted = base + (direction + turn) % 4
        place = np.searchsorted(ordered, wanted).clip(max=max(len(ordered) - 1, 0))
        hit = (after < 0) & (ordered[place] == wanted) if len(ordered) else after < 0
        after[hit] = order[place[hit]]
    return start // width, start % width, after


def _turns(loop: np.ndarray) -> np.ndarray:
    """The points of a closed loop of unit steps at which it turns."""
    step = np.roll(loop, -1, axis=0) - loop
    return loop[(step != np.roll(step, 1, axis=0)).any(axis=1)]
