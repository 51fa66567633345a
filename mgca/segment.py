"""The result of segmenting an image: labels, scores and a picture, at the original's size.

Scores of the windows are kept at the resolution of the pixel embeddings. Everything larger is
computed in bands of rows and blocks of pixels, so that neither 2,000 classes nor a large photograph
needs more memory than a few hundred megabytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import psutil
import torch
from PIL import Image
from torch import Tensor

from mgca.score_map import PixelScores, ScoreMap
from mgca.windows import Box

BACKGROUND = "background"
# Pixels of a band of rows.
_BAND = 1_000_000
# Closer than this, rounding may decide: such scores are summed, and not inferred from their taps'.
_CLOSE = 1e-5
_CLOSE_PROBABILITY = 1e-4


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
        maps: Scores of the windows' positions for the K classes: cosine similarities, or any others
            of which the largest wins.
        background: Threshold on the largest probability, or None for no background class.
        temperature: Of the softmax over classes that gives probabilities of scores; None where
            scores are probabilities already. It matters to the background only.

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
        maps: ScoreMap,
        *,
        background: float | None = None,
        temperature: float | None = 0.01,
    ) -> None:
        if background is not None:
            if not 0 <= background <= 1:
                raise ValueError(f"background is a probability in [0, 1], not {background}")
            if len(classes) < 2 and temperature is not None:
                raise ValueError(
                    "a background needs at least two classes: the softmax over one is always 1"
                )
            if BACKGROUND in classes:
                raise ValueError("the class 'background' is the threshold's own; do not ask for it")
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.image = embedded.image
        self.classes = tuple(classes) if background is None else (BACKGROUND, *classes)
        self._background = background
        self._temperature = temperature
        self._pixels = PixelScores(maps, self._size, embedded.size, embedded.boxes, embedded.padded)

    @cached_property
    def labels(self) -> Tensor:
        """(H, W) int64, index into ``classes``: the class of the highest score."""
        labels = torch.empty(self._size, dtype=torch.int64)
        certain = self._certain()
        for rows in self._bands():
            band = self._pixels.agreement(certain, rows)
            y, x = (band < 0).nonzero(as_tuple=True)
            for part, scores in self._pixels.blocks(y + rows.start, x):
                best, index = self._values(scores).max(dim=1)
                if self._background is not None:
                    index = torch.where(best > self._background, index + 1, 0)
                band[y[part], x[part]] = index
            labels[rows] = band
        return labels

    def _certain(self) -> Tensor:
        """(R,): the label of a pixel whose taps all have this row of the table's class; else -1.

        A pixel's scores are weighted means of its taps', so a class that leads at all of them
        leads, and probabilities that are nowhere above a threshold stay below. The logarithm of a
        softmax is concave in the scores, so one that is everywhere above the threshold stays above.
        """
        scores = self._pixels.table
        best, index = scores.topk(min(2, scores.shape[1]), dim=1)
        leads = (
            best[:, 0] - best[:, -1] > _CLOSE if scores.shape[1] > 1 else best[:, 0] == best[:, 0]
        )
        if self._background is None:
            return torch.where(leads, index[:, 0], -1)
        probability = self._values(scores).amax(dim=1)
        above = probability > self._background + _CLOSE_PROBABILITY
        certain = torch.where(leads & above, index[:, 0] + 1, -1)
        if self._temperature is None:
            certain[probability < self._background - _CLOSE_PROBABILITY] = 0
        return certain

    def _values(self, scores: Tensor) -> Tensor:
        """Scores (p, K), or their probabilities where there is a background."""
        if self._background is None or self._temperature is None:
            return scores
        return (scores / self._temperature).softmax(dim=1)

    @property
    def scores(self) -> Tensor:
        """(K, H, W) float32, computed when asked for; ``labels`` is their argmax.

        Cosine similarities to the classes. With a background, the probabilities of the softmax
        over the classes, and the threshold as the score of the background.

        Raises:
            MemoryError: If they would not fit into the memory that is free.
        """
        height, width = self._size
        needed = 4 * len(self.classes) * height * width
        free = psutil.virtual_memory().available
        if needed > 0.8 * free:
            raise MemoryError(
                f"scores of {len(self.classes)} classes at {width}x{height} take "
                f"{needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: use labels, fewer "
                "classes or a smaller image"
            )
        out = torch.empty(len(self.classes), height * width)
        skip = len(self.classes) - self._pixels.table.shape[1]
        out[:skip] = self._background if skip else 0
        for pixels, scores in self._all():
            out[skip:, pixels] = self._values(scores).t()
        return out.view(-1, height, width)

    def confidence(self, temperature: float) -> tuple[Tensor, Tensor]:
        """The best class (H, W) int64, background aside, and its probability (H, W) float32.

        Args:
            temperature: Of the softmax over classes.
        """
        labels = torch.empty(self._size, dtype=torch.int64)
        probability = torch.empty(self._size)
        for pixels, scores in self._all():
            best, index = (scores / temperature).softmax(dim=1).max(dim=1)
            labels.view(-1)[pixels] = index
            probability.view(-1)[pixels] = best
        return labels, probability

    def _all(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All pixels, counted row by row, in blocks (p,), and their scores (p, K)."""
        width = self._size[1]
        for rows in self._bands():
            y = torch.arange(rows.start, rows.stop).repeat_interleave(width)
            x = torch.arange(width).repeat(rows.stop - rows.start)
            for part, scores in self._pixels.blocks(y, x):
                yield y[part] * width + x[part], scores

    def _bands(self) -> Iterator[slice]:
        height, width = self._size
        at_once = max(1, _BAND // width)
        for top in range(0, height, at_once):
            yield slice(top, min(top + at_once, height))

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
