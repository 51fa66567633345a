"""Why a word goes where it goes: its similarities over an image, and the units that decide.

For each unit the words that are most similar to it say what else it could be called.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mgca.config import grid_side
from mgca.inference.segmenter import Embedded, Segmenter
from mgca.prompts import check_classes
from mgca.units import meta_point_index
from mgca.utils.images import ImageSource

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_DRAWN = 1000  # pixels along the longer side of the photograph in a figure
_LABELLED = 0.01  # share of the image from which on a unit's word is written into it


@dataclass(frozen=True, repr=False)
class Explanation:
    """The similarities of an image to a word.

    Units belong to windows, which overlap: at each pixel the one of the window whose centre is
    nearest is shown. Scores, like those of a segmentation, are averaged over windows.

    Attributes:
        image: The upright RGB original, (H, W).
        word: Word that the similarities are to.
        pixel: (H, W) float32, cosine similarities of the pixel unit.
        unit: (H, W) float32, cosine similarities of the adaptive semantic units.
        units: (h, w) int64, which unit is shown, at the size that the windows are laid on.
        points: (U, 2) float32, the meta-point of each unit, x and y in pixels of the original.
        similarity: (U,) float32, similarity of each unit to the word.
        words: For each unit the most similar words of the vocabulary and their similarities.
    """

    image: Image.Image
    word: str
    pixel: np.ndarray
    unit: np.ndarray
    units: np.ndarray
    points: np.ndarray
    similarity: np.ndarray
    words: list[list[tuple[str, float]]]

    @property
    def areas(self) -> np.ndarray:
        """(U,) float64: the share of the image that shows each unit."""
        return np.bincount(self.units.ravel(), minlength=len(self.points)) / self.units.size

    @property
    def borders(self) -> np.ndarray:
        """(h, w) bool: pixels whose right or lower neighbour shows another unit."""
        borders = np.zeros(self.units.shape, dtype=bool)
        borders[:, :-1] |= self.units[:, :-1] != self.units[:, 1:]
        borders[:-1] |= self.units[:-1] != self.units[1:]
        return borders

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON data, without the maps; units by area, the largest first."""
        areas = self.areas
        return {
            "word": self.word,
            "width": self.image.width,
            "height": self.image.height,
            "similarity": {
                name: {"min": float(m.min()), "mean": float(m.mean()), "max": float(m.max())}
                for name, m in (("pixel", self.pixel), ("unit", self.unit))
            },
            "units": [
                {
                    "meta_point": self.points[u].tolist(),
                    "area": float(areas[u]),
                    "similarity": float(self.similarity[u]),
                    "words": [{"word": w, "similarity": s} for w, s in self.words[u]],
                }
                for u in np.argsort(-areas, kind="stable")
            ],
        }

    def figure(self) -> "Figure":
        """The photograph with meta-points and borders, both similarity maps, and units' words."""
        from matplotlib.figure import Figure

        photo = self.image.copy()
        photo.thumbnail((_DRAWN, _DRAWN))
        height, width = self.pixel.shape
        extent = (0, width, height, 0)
        figure = Figure(figsize=(11, 10 * height / width + 1), layout="constrained")
        axes = figure.subplots(2, 2).ravel()
        low = min(self.pixel.min(), self.unit.min())
        high = max(self.pixel.max(), self.unit.max())
        for axis, title in zip(
            axes,
            (
                f"photograph, {len(self.points)} units and their meta-points",
                "most similar word of each unit",
                f"similarity to “{self.word}”: pixel unit",
                f"similarity to “{self.word}”: adaptive unit",
            ),
            strict=True,
        ):
            axis.set_title(title, fontsize=11, parse_math=False)  # any word will do
            axis.axis("off")
        for axis in axes[:2]:
            axis.imshow(photo, extent=extent)
            borders = np.ma.masked_equal(self.borders, False)
            axis.imshow(borders, extent=extent, cmap="gray_r", vmin=0, vmax=1)
        axes[0].scatter(*self.points.T, s=22, c="white", edgecolors="black", linewidths=1)
        for axis, values in zip(axes[2:], (self.pixel, self.unit), strict=True):
            step = max(1, max(values.shape) // _DRAWN)
            drawn = axis.imshow(
                values[::step, ::step], extent=extent, vmin=low, vmax=high, cmap="viridis"
            )
        figure.colorbar(drawn, ax=axes[2:], label="cosine similarity", shrink=0.8)
        figure.draw_without_rendering()  # from here on all has its place
        self._write_words(axes[1])
        return figure

    def to_png(self) -> bytes:
        """The figure as the bytes of a PNG file; notebooks show it."""
        buffer = io.BytesIO()
        self.figure().savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()

    _repr_png_ = to_png

    def _write_words(self, axis: "Axes") -> None:
        """The word of each unit, the larger first; none over another, nor in small units."""
        taken: list[Bbox] = []
        places, words, areas = self._labels()
        for unit in np.argsort(-areas, kind="stable"):
            if areas[unit] < _LABELLED:
                break
            x, y = places[unit]
            near = int(8 * x / self.image.width)  # words near an edge go to the other side
            side = {0: "left", 7: "right"}.get(near, "center")
            label = axis.text(x, y, textwrap.fill(words[unit][0][0], 18), ha=side, va="center")
            label.set(fontsize=8, color="white", parse_math=False, in_layout=False)
            label.set_bbox({"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0})
            box = label.get_window_extent().padded(2)
            if box.count_overlaps(taken):
                label.remove()
            else:
                taken.append(box)

    def _labels(self) -> tuple[np.ndarray, list, np.ndarray]:
        """Where units' words are written: at the pixel of each that is nearest to its centre."""
        from scipy import ndimage

        numbers = np.arange(len(self.points))
        centres = np.array(ndimage.center_of_mass(np.ones_like(self.units), self.units, numbers))
        scale = np.array(self.pixel.shape) / np.array(self.units.shape)
        places = []
        for number, centre in enumerate(centres):
            members = np.argwhere(self.units == number)
            places.append(members[((members - centre) ** 2).sum(axis=1).argmin()])
        return ((np.array(places) + 0.5) * scale)[:, ::-1], self.words, self.areas


@torch.inference_mode()
def explain(
    model: Segmenter,
    image: ImageSource | Embedded,
    word: str,
    vocabulary: Sequence[str],
    *,
    meta_points: int = 36,
    top: int = 5,
) -> Explanation:
    """Similarities of an image to a word, and the words most similar to its units.

    Args:
        model: The model whose similarities are explained.
        image: The image, as for :meth:`mgca.model.Model.segment`.
        word: A word or phrase; it need not be of the vocabulary.
        vocabulary: Words that units may be called by, such as
            :func:`mgca.data.benchmarks.known_names`.
        meta_points: Square number of meta-points per window.
        top: Number of words per unit.

    Raises:
        FileNotFoundError, ImageError: If the image cannot be read.
        ValueError: For empty or repeated words, or numbers out of range.
    """
    side = grid_side(meta_points)
    if top < 1:
        raise ValueError(f"top must be positive, not {top}")
    (word,) = check_classes([word])
    names = check_classes(vocabulary)
    embedded = image if isinstance(image, Embedded) else model.embed(image)
    pixel = model.segment(embedded, [word], None).scores[0].numpy()
    unit = model.segment(embedded, [word], meta_points).scores[0].numpy()

    to_word, index = model.scores(embedded.pixels, model.texts([word]), side, **embedded.grouped)
    to_names = model.scores(embedded.pixels, model.texts(names), side, **embedded.grouped).table
    units = _nearest(embedded, index.cpu())
    present, units = torch.unique(units, return_inverse=True)
    values, best = to_names[present].topk(min(top, len(names)), dim=1)
    words = [
        [(names[i], value) for i, value in zip(row, similarities, strict=True)]
        for row, similarities in zip(best.tolist(), values.tolist(), strict=True)
    ]
    return Explanation(
        image=embedded.image,
        word=word,
        pixel=pixel,
        unit=unit,
        units=units.numpy(),
        points=_points(model, embedded, index.shape, side)[present].numpy(),
        similarity=to_word[present, 0].cpu().numpy(),
        words=words,
    )


def _nearest(embedded: Embedded, index: Tensor) -> Tensor:
    """(h, w) int64: the unit of each pixel of the resized image, in the window nearest to it."""
    height, width = embedded.size
    unit_at = torch.empty(height, width, dtype=torch.int64)
    nearest = torch.full((height, width), torch.inf)
    for box, units in zip(embedded.boxes, index, strict=True):
        above, left = embedded.before
        y = (torch.arange(box.height) + above) * units.shape[0] // embedded.padded[0]
        x = (torch.arange(box.width) + left) * units.shape[1] // embedded.padded[1]
        down = (torch.arange(box.height) + 0.5 - box.height / 2)[:, None]
        across = (torch.arange(box.width) + 0.5 - box.width / 2)[None]
        distance = down**2 + across**2
        place = (
            slice(box.top, box.top + box.height),
            slice(box.left, box.left + box.width),
        )
        closer = distance < nearest[place]
        nearest[place] = torch.where(closer, distance, nearest[place])
        unit_at[place] = torch.where(closer, units[y[:, None], x], unit_at[place])
    return unit_at


def _points(model: Segmenter, embedded: Embedded, shape: Sequence[int], side: int) -> Tensor:
    """(R, 2): the meta-points of all windows, x and y in pixels of the original."""
    _, rows, columns = shape
    grid = (min(side, rows), min(side, columns))
    index = meta_point_index(rows, columns, grid, model.config.placement)
    above, left = embedded.before
    y = (torch.div(index, columns, rounding_mode="floor") + 0.5) * embedded.padded[0] / rows - above
    x = (index % columns + 0.5) * embedded.padded[1] / columns - left
    height, width = embedded.size
    points = torch.cat([torch.stack((x + b.left, y + b.top), dim=1) for b in embedded.boxes])
    return points * torch.tensor([embedded.image.width / width, embedded.image.height / height])
