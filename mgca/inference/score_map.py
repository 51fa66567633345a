"""From the scores of units in windows to the scores of an image's pixels, exactly and quickly.

Upsampling a window, averaging windows where they overlap and resizing to the original are all
linear, and all act on rows and columns apart. Together they are one weighted sum: the score of a
pixel is made of those of the few positions around it, its taps, and a position's score is that of
its unit. So no map of scores is ever upsampled: units are scored once, and pixels refer to them.

Being weighted means, these sums also obey bounds. Where all taps of a pixel prefer the same class,
so does the pixel, and needs no sum at all.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.inference.windows import Box, pad_before

# Floats of a block. Blocks of 32 MB and more would go back to the system each time, and getting
# them again takes longer than filling them.
_BLOCK = 4_000_000


class ScoreMap(NamedTuple):
    """Scores of the pixel embeddings of an image's windows.

    Attributes:
        table: (R, K), the class scores of each unit; of each position, for the pixel unit.
        index: (n, H', W') int64, which row of the table each position of each window has.
    """

    table: Tensor
    index: Tensor

    @classmethod
    def of_maps(cls, maps: Tensor) -> "ScoreMap":
        """The score map of windows in which each position has scores of its own.

        Args:
            maps: (n, K, H', W') scores of the windows' positions.
        """
        n, classes, height, width = maps.shape
        table = maps.permute(0, 2, 3, 1).reshape(-1, classes)
        index = torch.arange(n * height * width, device=maps.device).view(n, height, width)
        return cls(table, index)


class Taps(NamedTuple):
    """The windows' positions, along one axis, whose weighted sum is each pixel of an image.

    Attributes:
        index: (size, t) int64, positions; windows follow one another. Unused places repeat the
            first.
        weight: (size, t) float32, weights; rows add up to 1, unused places are 0.
        count: (size,) int64, number of places in use.
    """

    index: Tensor
    weight: Tensor
    count: Tensor


# Photographs of a set have a few sizes: what depends on the size alone is computed once.
@functools.lru_cache(maxsize=64)
def axis_taps(
    size: int,
    resized: int,
    starts: tuple[int, ...],
    window: int,
    padded: int,
    positions: int,
    blend: str = "equal",
    padding: str = "corner",
) -> Taps:
    """The taps along an axis: windows upsampled, joined, and resized to the original.

    Args:
        size: Number of pixels of the original.
        resized: Number of pixels of the resized image.
        starts: Pixels of the resized image at which the windows begin.
        window: Number of pixels of a window without its padding.
        padded: Number of pixels of a window with its padding.
        positions: Number of positions of a window, padding included.
        blend: Mean of windows that overlap: the ``"equal"`` one, or one weighted towards the
            ``"middle"`` of each window, linearly down to its edges.
        padding: Where a window's padding lies, as in :class:`~mgca.config.SegmentConfig`.
    """
    first = pad_before(window, padded, padding)
    inside = _bilinear(positions, padded)[first : first + window]  # (window, positions)
    share = torch.ones(window, 1, dtype=torch.float64)
    if blend == "middle":
        share[:, 0] = window / 2 - (torch.arange(window) + 0.5 - window / 2).abs()
    joined = torch.zeros(resized, len(starts) * positions, dtype=torch.float64)
    covering = torch.zeros(resized, 1, dtype=torch.float64)
    for number, start in enumerate(starts):
        columns = slice(number * positions, (number + 1) * positions)
        joined[start : start + window, columns] = share * inside
        covering[start : start + window] += share
    dense = _bilinear(resized, size) @ (joined / covering)
    count = (dense > 0).sum(dim=1)
    weight, index = dense.topk(int(count.max()), dim=1)
    used = torch.arange(weight.shape[1]) < count[:, None]
    index = torch.where(used, index, index[:, :1])
    return Taps(index, weight.float() * used, count)


def _bilinear(source: int, size: int) -> Tensor:
    """(size, source) float64: bilinear interpolation, corners not aligned, as a matrix."""
    place = ((torch.arange(size, dtype=torch.float64) + 0.5) * source / size - 0.5).clamp(min=0)
    below = place.long().clamp(max=source - 1)
    above = (below + 1).clamp(max=source - 1)
    share = (place - below)[:, None]
    matrix = torch.zeros(size, source, dtype=torch.float64)
    matrix.scatter_add_(1, below[:, None], 1 - share)
    return matrix.scatter_add_(1, above[:, None], share)


class PixelScores:
    """The scores of an image's pixels, computed for any of them from those of its windows.

    Args:
        scores: Scores of the windows' positions.
        size: (H, W) of the original.
        resized: (h, w) of the resized image.
        boxes: Windows on the resized image, row by row over a grid.
        padded: (height, width) of a window as it went through the network.
        blend: How windows are joined, as for :func:`axis_taps`.
        padding: Where the windows' padding lies, likewise.
    """

    def __init__(
        self,
        scores: ScoreMap,
        size: tuple[int, int],
        resized: tuple[int, int],
        boxes: list[Box],
        padded: tuple[int, int],
        blend: str = "equal",
        padding: str = "corner",
    ) -> None:
        self.table, index = scores
        self.size = size
        tops = tuple(sorted({box.top for box in boxes}))
        lefts = tuple(sorted({box.left for box in boxes}))
        height, width = index.shape[1:]
        window = boxes[0]
        how = (blend, padding)
        self._rows = axis_taps(size[0], resized[0], tops, window.height, padded[0], height, *how)
        self._columns = axis_taps(size[1], resized[1], lefts, window.width, padded[1], width, *how)
        # All windows beside each other, as the taps count positions.
        grid = index.view(len(tops), len(lefts), height, width)
        self._grid = grid.transpose(1, 2).reshape(len(tops) * height, -1).cpu()

    def blocks(self, y: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Scores of the pixels (y, x), block by block: which of them (p,), and scores (p, K).

        A pixel's scores have the same bits whatever other pixels are asked for.
        """
        at_once = max(1, _BLOCK // self.table.shape[1])
        rows, columns = self._rows.count[y], self._columns.count[x]
        # Pixels with as many taps together, so that none is padded.
        for down in self._rows.count.unique().tolist():
            for across in self._columns.count.unique().tolist():
                chosen = ((rows == down) & (columns == across)).nonzero().squeeze(1)
                for part in chosen.split(at_once):
                    yield part, self._sum(y[part], x[part], down, across)

    def _sum(self, y: Tensor, x: Tensor, down: int, across: int) -> Tensor:
        row, column = self._rows.index[y, :down], self._columns.index[x, :across]
        index = self._grid[row[:, :, None], column[:, None, :]].flatten(1)
        weight = self._rows.weight[y, :down, None] * self._columns.weight[x, None, :across]
        return F.embedding_bag(
            index.to(self.table.device),
            self.table,
            per_sample_weights=weight.flatten(1).to(self.table),
            mode="sum",
        ).cpu()

    def agreement(self, labels: Tensor, rows: slice) -> Tensor:
        """(rows, W) int64: the label that all the taps of a pixel have, or -1 where they differ.

        Args:
            labels: (R,) label of each row of the table; -1 for one that agrees with none.
            rows: Rows of the image.
        """
        labels = labels.cpu().to(torch.int32)[self._grid]
        low, high = labels, labels.masked_fill(labels < 0, torch.iinfo(torch.int32).max)
        down, across = self._rows.index[rows], self._columns.index
        low = _along(_along(low, down, torch.minimum).t(), across, torch.minimum).t()
        high = _along(_along(high, down, torch.maximum).t(), across, torch.maximum).t()
        return torch.where(low == high, low, -1).long()


def _along(values: Tensor, taps: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The least or largest of the taps' values (positions, ...) of each pixel: (size, ...)."""
    out = values[taps[:, 0]]
    for place in taps[:, 1:].t():
        out = combine(out, values[place])
    return out
