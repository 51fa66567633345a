"""The result of segmenting an image: labels, scores and a picture, at the original's size.

Scores of the windows are kept at the resolution of the pixel embeddings. Everything larger is
computed in blocks of classes and rows, so that neither 2,000 classes nor a large photograph needs
more memory than a few hundred megabytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mgca.windows import Box

BACKGROUND = "background"
# Floats of a block of scores. Blocks of 32 MB and more would go back to the system each time, and
# getting them again takes longer than filling them.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Embedded:
    """Pixel embeddings of an image: computed once, whatever the classes and units.

    Attributes:
        image: The upright RGB original.
        size: (h, w) it was resized to.
        boxes: Windows on the resized image, each padded at the bottom and right to ``padded``.
        padded: (height, width) of a window as it went through the network.
        pixels: (n, C, H', W') pixel embeddings of the windows.
    """

    image: Image.Image
    size: tuple[int, int]
    boxes: list[Box]
    padded: tuple[int, int]
    pixels: Tensor


class Segmentation:
    """Classes of every pixel of an image.

    Args:
        embedded: The image and its windows.
        classes: Names of the K classes.
        maps: (n, K, H', W') cosine similarities of each window's pixels to the classes.
        background: Threshold on the largest probability, or None for no background class.
        temperature: Of the softmax over classes; it matters to the background only.

    Attributes:
        classes: What ``labels`` index; ``"background"`` comes first where there is a threshold.
        image: The original, upright and RGB.

    Raises:
        ValueError: If a background is asked for that no threshold can give.
    """

    def __init__(
        self,
        embedded: Embedded,
        classes: Sequence[str],
        maps: Tensor,
        *,
        background: float | None = None,
        temperature: float = 0.01,
    ) -> None:
        if background is not None:
            if not 0 <= background <= 1:
                raise ValueError(f"background is a probability in [0, 1], not {background}")
            if len(classes) < 2:
                raise ValueError(
                    "a background needs at least two classes: the softmax over one is always 1"
                )
            if BACKGROUND in classes:
                raise ValueError("the class 'background' is the threshold's own; do not ask for it")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.image = embedded.image
        self.classes = tuple(classes) if background is None else (BACKGROUND, *classes)
        self._embedded = embedded
        self._maps = maps
        self._background = background
        self._temperature = temperature

    @cached_property
    def labels(self) -> Tensor:
        """(H, W) int64, index into ``classes``: the class of the highest score."""
        best = torch.full(self._size, -torch.inf)
        labels = torch.zeros(self._size, dtype=torch.int64)
        for first, rows, scores in self._scored():
            value, index = scores.max(dim=0)
            # Strictly better, so that of equal scores the first class wins, as in argmax.
            better = value > best[rows]
            best[rows] = torch.where(better, value, best[rows])
            labels[rows] = torch.where(better, index + first, labels[rows])
        if self._background is None:
            return labels
        return torch.where(best > self._background, labels + 1, 0)

    @property
    def scores(self) -> Tensor:
        """(K, H, W) float32, computed when asked for; ``labels`` is their argmax.

        Cosine similarities to the classes. With a background, the probabilities of the softmax
        over the classes, and the threshold as the score of the background.

        Raises:
            MemoryError: If they would not fit into the memory that is free.
        """
        needed = 4 * len(self.classes) * self._size[0] * self._size[1]
        free = psutil.virtual_memory().available
        if needed > 0.8 * free:
            raise MemoryError(
                f"scores of {len(self.classes)} classes at {self._size[1]}x{self._size[0]} take "
                f"{needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: use labels, fewer "
                "classes or a smaller image"
            )
        skip = len(self.classes) - self._maps.shape[1]
        out = torch.empty(len(self.classes), *self._size)
        for first, rows, scores in self._scored():
            out[skip + first : skip + first + len(scores), rows] = scores
        if self._background is not None:
            out[0] = self._background
        return out

    def areas(self) -> dict[str, float]:
        """Share of the image that each class covers."""
        counts = torch.bincount(self.labels.flatten(), minlength=len(self.classes)).double()
        return dict(zip(self.classes, (counts / counts.sum()).tolist(), strict=True))

    def overlay(self, alpha: float = 0.6) -> Image.Image:
        """The image under the colours of its classes, beside a legend of those that occur."""
        from mgca.overlay import overlay

        return overlay(self.image, self.labels.numpy(), self.classes, alpha=alpha)

    def _repr_png_(self) -> bytes:
        from mgca.overlay import png_bytes

        return png_bytes(self.overlay())

    @property
    def _size(self) -> tuple[int, int]:
        return self.image.height, self.image.width

    @cached_property
    def _normaliser(self) -> Tensor:
        """(H, W): log of the sum of the exponentials over the classes, of the softmax."""
        total = torch.full(self._size, -torch.inf)
        for _, rows, scores in self._blocks():
            total[rows] = total[rows].logaddexp((scores / self._temperature).logsumexp(dim=0))
        return total

    def _scored(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Blocks of ``scores``: cosines, or probabilities where there is a background."""
        for first, rows, scores in self._blocks():
            if self._background is not None:
                scores = (scores / self._temperature - self._normaliser[rows]).exp()
            yield first, rows, scores

    def _blocks(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Scores at the original size: first class, rows, and the block (k, rows, W)."""
        height, width = self._size
        classes = self._maps.shape[1]
        at_once = min(classes, max(1, _BLOCK // (self._embedded.size[0] * self._embedded.size[1])))
        rows_at_once = max(1, _BLOCK // (width * at_once))
        for first in range(0, classes, at_once):
            averaged = average_windows(self._embedded, self._maps[:, first : first + at_once])
            for top in range(0, height, rows_at_once):
                rows = slice(top, min(top + rows_at_once, height))
                yield first, rows, resize_rows(averaged, self._size, rows).cpu()


def average_windows(embedded: Embedded, maps: Tensor) -> Tensor:
    """Scores (K, h, w) of the resized image: windows upsampled bilinearly, averaged where they
    overlap.

    Args:
        maps: (n, K, H', W').
    """
    total = maps.new_zeros(maps.shape[1], *embedded.size)
    count = maps.new_zeros(embedded.size)
    for box, window in zip(embedded.boxes, maps, strict=True):
        scores = F.interpolate(window[None], embedded.padded, mode="bilinear", align_corners=False)
        area = (..., slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
        total[area] += scores[0, :, : box.height, : box.width]
        count[area] += 1
    return total / count


def resize_rows(scores: Tensor, size: tuple[int, int], rows: slice) -> Tensor:
    """Some rows of the bilinear resizing of ``scores`` (K, h, w) to ``size``: (K, rows, W)."""
    height, width = size
    if scores.shape[1:] == (height, width):
        return scores[:, rows]
    if rows.stop - rows.start == height:
        return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    source = scores.shape[1]
    centre = (
        torch.arange(rows.start, rows.stop, device=scores.device) + 0.5
    ) * source / height - 0.5
    centre = centre.clamp(min=0)
    above = centre.long()
    below = (above + 1).clamp(max=source - 1)
    weight = (centre - above)[:, None].to(scores.dtype)
    mixed = scores[:, above] * (1 - weight) + scores[:, below] * weight
    return F.interpolate(mixed[None], (len(centre), width), mode="bilinear", align_corners=False)[0]
