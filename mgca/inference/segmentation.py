"""The result of segmenting an image: labels, scores and a picture, at the original's size.

Scores of the windows are kept at the resolution of the pixel embeddings. Everything larger is
computed in bands of rows and blocks of pixels, so that neither 2,000 classes nor a large photograph
needs more memory than a few hundred megabytes.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

from mgca.config import BACKGROUND
from mgca.inference.score_map import PixelScores, ScoreMap
from mgca.inference.segmenter import Embedded, check_background

if TYPE_CHECKING:
    import pandas as pd
    from mmseg.structures import SegDataSample
    from supervision import Detections

# Pixels of a band of rows.
_BAND = 1_000_000
# Closer than this, rounding may decide: such scores are summed, and not inferred from their taps'.
_CLOSE = 1e-5
_CLOSE_PROBABILITY = 1e-4
# Pixels of a class whose scores its mean is of.
_LOOKUP = 20_000


class Segmentation:
    """The segmentation of an image: a class for every pixel.

    Args:
        embedded: The image and its windows.
        classes: Names of the K classes.
        maps: Scores of the windows' positions for the K classes: cosine similarities, or any others
            of which the largest wins. Where the background has words of its own, its scores come
            before those of the classes.
        background: Threshold on the largest probability, or None for no background class. Where
            each class has its own, they are given by name: the class that leads at a pixel is held
            against its threshold, and against 0 without one.
        temperature: Temperature of the softmax over classes that gives probabilities of scores;
            None where scores are probabilities already. It matters to the background only.

    Attributes:
        classes: Names that ``labels`` index; ``"background"`` comes first where there is a
            threshold.
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
        background: float | Mapping[str, float] | None = None,
        temperature: float | None = 0.01,
    ) -> None:
        check_background(classes, background)
        if background is not None and maps.table.shape[1] < 2 and temperature is not None:
            raise ValueError(
                "a background needs at least two classes: the softmax over one is always 1"
            )
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature must be positive, not {temperature}")
        self.image = embedded.image
        self.classes = tuple(classes) if background is None else (BACKGROUND, *classes)
        # Columns of the table that are not among the classes' own: the background's words.
        self._own = maps.table.shape[1] - len(classes)
        self._thresholds = None
        if background is not None:
            # What the background's words win needs to reach nothing.
            each = (
                background
                if isinstance(background, Mapping)
                else dict.fromkeys(classes, background)
            )
            own = [each.get(name, 0.0) for name in classes]
            self._thresholds = torch.tensor([-math.inf] * self._own + own)
        self._temperature = temperature
        self._maps = maps
        self._geometry = (
            self._size,
            embedded.size,
            embedded.boxes,
            embedded.padded,
            embedded.blend,
            embedded.padding,
        )
        self._pixels = PixelScores(maps, *self._geometry)

    @cached_property
    def labels(self) -> Tensor:
        """(H, W) int64, indices into ``classes``: the class of the highest score at each pixel."""
        labels = torch.empty(self._size, dtype=torch.int64)
        certain = self._certain()
        for rows in self._bands():
            band = self._pixels.agreement(certain, rows)
            y, x = (band < 0).nonzero(as_tuple=True)
            for part, scores in self._pixels.blocks(y + rows.start, x):
                best, index = self._values(scores).max(dim=1)
                if self._thresholds is not None:
                    kept = best > self._thresholds[index]
                    index = torch.where(kept, index + self._skip, 0)
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
        if self._thresholds is None:
            return torch.where(leads, index[:, 0], -1)
        thresholds = self._thresholds.to(scores.device)
        probability = self._values(scores).amax(dim=1)
        above = probability > thresholds[index[:, 0]] + _CLOSE_PROBABILITY
        certain = torch.where(leads & above, index[:, 0] + self._skip, -1)
        if self._temperature is None:
            lowest = thresholds[self._own :].min()
            certain[probability < lowest - _CLOSE_PROBABILITY] = 0
        return certain

    def _values(self, scores: Tensor) -> Tensor:
        """Scores (p, K), or their probabilities where there is a background."""
        if self._thresholds is None or self._temperature is None:
            return scores
        return (scores / self._temperature).softmax(dim=1)

    @property
    def _skip(self) -> int:
        """Number of the classes that the table has no column of: a background without words."""
        return len(self.classes) - self._pixels.table.shape[1]

    @property
    def scores(self) -> Tensor:
        """Scores (K, H, W) float32, computed when asked for; ``labels`` is their argmax.

        They are cosine similarities to the classes; with a background, the probabilities of the
        softmax over the classes, and as the score of the background the threshold of the class
        that leads, or the probability of the background's words where that is larger.

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
        for pixels, scores in self._all():
            values = self._values(scores)
            out[self._skip :, pixels] = values.t()
            if self._thresholds is not None:
                threshold = self._thresholds[values.max(dim=1).indices]
                words = values[:, 0] if self._own else threshold
                out[0, pixels] = torch.maximum(threshold, words)
        return out.view(-1, height, width)

    def confidence(self, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """The best class (H, W) int64, background aside, and its probability (H, W) float32.

        Args:
            temperature: Temperature of the softmax over classes; by default the segmentation's own,
                and the scores as they are where they are probabilities already.
        """
        temperature = temperature or self._temperature
        labels = torch.empty(self._size, dtype=torch.int64)
        probability = torch.empty(self._size)
        for pixels, scores in self._all():
            if temperature is not None:
                scores = (scores / temperature).softmax(dim=1)
            best, index = scores[:, self._own :].max(dim=1)
            labels.view(-1)[pixels] = index
            probability.view(-1)[pixels] = best
        return labels, probability

    def probabilities(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Probabilities of the classes, background aside, in blocks that take little memory.

        Yields:
            Pixels (p,), counted row by row, and their probabilities (p, K) float32: the softmax
            of the scores over the classes, or the scores where they are probabilities already.
        """
        for pixels, scores in self._all():
            if self._temperature is not None:
                scores = (scores / self._temperature).softmax(dim=1)
            yield pixels, scores[:, self._own :]

    def mean_scores(self) -> dict[str, float]:
        """Mean score of each class over its own pixels; NaN for the background and without pixels.

        Scores are cosine similarities, or TCL's sigmoids of them. In a class of more than 20,000
        pixels that many are looked up, evenly spread in reading order.
        """
        table, index = self._maps
        # Of few bytes each, which are searched several times as fast.
        labels, width = self.to_numpy().ravel(), self._size[1]
        skip = self._skip
        means = [float("nan")] * len(self.classes)
        counts = np.bincount(labels, minlength=len(self.classes)).tolist()
        for label in range(skip, len(self.classes)):
            if not counts[label]:
                continue
            chosen = min(counts[label], _LOOKUP)
            members = np.flatnonzero(labels == label)
            pixels = torch.from_numpy(members[np.arange(chosen) * counts[label] // chosen])
            # A table of this class alone, so that no other's scores are computed.
            class_scores = table[:, label - skip, None].contiguous()
            lookup = PixelScores(ScoreMap(class_scores, index), *self._geometry)
            y = torch.div(pixels, width, rounding_mode="floor")
            blocks = [scores.squeeze(1) for _, scores in lookup.blocks(y, pixels % width)]
            means[label] = torch.cat(blocks).double().mean().item()
        return dict(zip(self.classes, means, strict=True))

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

    def mask(self, name: str) -> np.ndarray:
        """The pixels (H, W) bool of one class.

        Args:
            name: Name of the class, as it was asked for, or ``"background"``.

        Raises:
            ValueError: If there is no such class.
        """
        if name not in self.classes:
            raise ValueError(f"no class {name!r}, only {', '.join(self.classes)}")
        mask: np.ndarray = self.labels.eq(self.classes.index(name)).numpy()
        return mask

    def save(
        self, path: str | os.PathLike[str], *, alpha: float = 0.6, legend: bool = True
    ) -> None:
        """Write the picture of :meth:`overlay`; the labels themselves are those of :meth:`to_pil`.

        Args:
            path: Name of the file, whose suffix says the format: ``.png``, ``.jpg`` ...
            alpha: Opacity of the colours.
            legend: Whether the names of the classes stand beside the photograph.

        Raises:
            ValueError: If the suffix is of no format that can be written.
            OSError: If the file cannot be written. It is written whole or not at all.
        """
        from mgca.inference.overlay import save_picture

        save_picture(self.overlay(alpha, legend=legend), path)

    def to_numpy(self) -> np.ndarray:
        """Labels (H, W) as uint8, or uint16 for more than 256 classes."""
        from mgca.inference.formats import label_array

        return label_array(self)

    def to_pil(self) -> Image.Image:
        """Labels as a palette image in the overlay's colours, whose pixels are the labels.

        With more than 256 classes a 16-bit grey image.
        """
        from mgca.inference.formats import label_image

        return label_image(self)

    def to_pandas(self) -> "pd.DataFrame":
        """One row per class, indexed by its label: ``class``, ``pixels``, ``area``, ``score``."""
        from mgca.inference.formats import table

        return table(self)

    def to_coco(self, image_id: int = 1, *, rle: bool = True) -> dict[str, Any]:
        """A COCO data set of this image: see :func:`mgca.inference.formats.coco`."""
        from mgca.inference.formats import coco

        return coco(self, image_id, rle=rle)

    def to_supervision(self) -> "Detections":
        """supervision's detections by class: see :func:`mgca.inference.formats.detections`."""
        from mgca.inference.formats import detections

        return detections(self)

    def to_mmseg(self) -> "SegDataSample":
        """mmsegmentation's sample: see :func:`mgca.inference.formats.seg_data_sample`."""
        from mgca.inference.formats import seg_data_sample

        return seg_data_sample(self)

    def overlay(self, alpha: float = 0.6, *, legend: bool = True) -> Image.Image:
        """The image under the colours of its classes, beside a legend of those that occur.

        Args:
            alpha: Opacity of the colours.
            legend: Whether a legend stands beside the image; without it the picture has its size.
        """
        from mgca.inference.overlay import overlay

        return overlay(self.image, self.labels.numpy(), self.classes, alpha=alpha, legend=legend)

    def __repr__(self) -> str:
        width, height = self.image.size
        names, more = ", ".join(self.classes[:8]), len(self.classes) - 8
        end = f" and {more} more" if more > 0 else ""
        return f"<Segmentation of {width}x{height} pixels into {names}{end}>"

    def _repr_png_(self) -> bytes:
        from mgca.inference.overlay import png_bytes

        return png_bytes(self.overlay())

    def _repr_html_(self) -> str:
        from mgca.inference.formats import html_page

        return html_page(self)

    @property
    def _size(self) -> tuple[int, int]:
        return self.image.height, self.image.width
