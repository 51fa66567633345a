"""Conventions of others: of TCL's harness, and of the masks of one's own folder.

Masks say nothing of their convention: those of another pass, and the numbers are wrong without a
word. What can be seen of the ids that occur is looked at before anything is computed.
"""

import logging

import numpy as np

from mgca.data.masks import IGNORE, DataError, Masked

#: How TCL's harness, and those of its successors, prepare an image, where this project does
#: otherwise unless told: fields of :class:`mgca.config.SegmentConfig`, and the default of the scale
#: of the paper.
TCL_PROTOCOL = {"resize": "opencv", "padding": "centre", "positions": "plain"}

log = logging.getLogger(__name__)


def ids_of(data: Masked) -> dict[int, int]:
    """Number of pixels of each id on disk, over all masks of a set.

    Raises:
        DataError: If a mask cannot be read, or holds more than one channel.
    """
    pixels: dict[int, int] = {}
    for index in range(len(data)):
        for value, count in zip(*np.unique(data.ids(index), return_counts=True), strict=True):
            pixels[int(value)] = pixels.get(int(value), 0) + int(count)
    return dict(sorted(pixels.items()))


def look_through(data: Masked) -> dict[int, int]:
    """The ids of all masks, as :func:`ids_of`; warns where they look like another convention.

    Raises:
        DataError: If they can only be of another convention, or all pixels are ignored.
    """
    pixels = ids_of(data)
    used = [value for value in pixels if value != IGNORE]
    count = len(data.classes) + data.background
    what = f"the masks of {data.name} hold {ranges(list(pixels))}"
    if data.foreground is not None:
        if data.foreground not in pixels:
            raise DataError(f"{what}, and never {data.foreground}, the foreground")
        return pixels
    if not any(value >= data.subtract for value in used):
        raise DataError(f"{what}, all of which is ignored: there is nothing to count")
    if used[-1] - data.subtract >= count:
        if used[0] > 0 and used[-1] == count and not data.subtract:
            raise DataError(
                f"{what}, and the first of {count} classes is 0: if 0 is ignored and they begin at "
                "1, give --ignore-zero; if it is a background, --with-background"
            )
        for index in range(len(data)):
            data.mask(index)  # says which file it is
    if used == [0] and IGNORE in pixels:
        log.warning(
            "%s only, and 255 is ignored: if it is what the masks show, give --foreground 255 "
            "with one class",
            what,
        )
    elif data.background and used[0] > 0:
        log.warning("%s, and never 0, which would be the background", what)
    return pixels


def ranges(numbers: list[int]) -> str:
    """Whole numbers in rising order, neighbours together: ``"0-2, 5, 255"``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if part[1:] else str(part[0]) for part in parts)
