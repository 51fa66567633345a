"""What the pages of the book draw of pictures, maps and masks: arrays in, a figure out."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from PIL import Image

from mgca.experiments.report import overlays
from mgca.inference.overlay import palette

#: Options of a map of differences, whose colours part at 0; it needs ``vmin`` and ``vmax`` too.
DIVERGING = {"cmap": "PuOr_r"}


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture or a map, drawn without axes.

    Attributes:
        picture: An image, or the (h, w) values of a map.
        title: The text above it.
        outline: A (H, W) mask whose border is drawn on it; None: no border.
        below: The text under it.
        options: More options of ``imshow``, such as ``cmap``, ``vmin`` and ``vmax``.
    """

    picture: Any
    title: str = ""
    outline: np.ndarray | None = None
    below: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def draw(self, axis: Axes, side: int | None = None) -> AxesImage:
        """Draw it.

        Args:
            axis: Where to draw.
            side: Width of the image that a smaller map is stretched over; None: as it is.
        """
        axis.set_title(self.title)
        axis.set_axis_off()
        options = dict(self.options)
        if side is not None and np.shape(self.picture)[0] != side:
            options["extent"] = (0, side, side, 0)
        drawn = axis.imshow(self.picture, **options)
        if self.outline is not None and self.outline.any():
            outline(axis, self.outline)
        if self.below:
            axis.text(
                0.5, -0.03, self.below, ha="center", va="top", fontsize=10, transform=axis.transAxes
            )
        return drawn


def panels(
    rows: Sequence[Sequence[Panel | None]],
    size: tuple[float, float],
    *,
    side: int | None = None,
    colorbar: str = "",
    location: str = "right",
    legend: Sequence[Patch] = (),
    columns: int = 3,
) -> Figure:
    """Pictures and maps in rows.

    Args:
        rows: The panels; the axes of None are left for the caller, in ``figure.axes`` row by row.
        size: Width and height of the figure in inches.
        side: Width of the image that smaller maps are stretched over; None: as they are.
        colorbar: Label of a colour bar for the scale of the last panel; empty: no bar.
        location: Side of the figure on which the bar lies.
        legend: Handles of a legend below, from :func:`mgca.experiments.report.overlays.key`.
        columns: Columns of the legend.
    """
    figure, axes = plt.subplots(
        len(rows), len(rows[0]), figsize=size, squeeze=False, layout="constrained"
    )
    drawn = [
        panel.draw(axis, side)
        for row, own in zip(axes, rows, strict=True)
        for axis, panel in zip(row, own, strict=True)
        if panel is not None
    ]
    if colorbar:
        shrink = 0.6 if location == "bottom" else 0.8
        figure.colorbar(drawn[-1], ax=axes, label=colorbar, location=location, shrink=shrink)
    if legend:
        figure.legend(handles=list(legend), loc="outside lower center", ncols=columns)
    return figure


def word_maps(
    maps: Mapping[str, Any], words: Sequence[str], mask: np.ndarray, largest: int = 3
) -> Figure:
    """How much more similar each place is to a word than to the mean of all words.

    Args:
        maps: (K, h, w) cosines with the K words, a row for each title.
        words: The words.
        mask: (H, H), index into the words; its largest contents are drawn, and outlined.
        largest: How many of them.
    """
    contents = np.argsort(-np.bincount(mask.ravel(), minlength=len(words)))[:largest]
    differences = {title: own - own.mean(dim=0) for title, own in maps.items()}
    reach = max(own[contents].abs().max() for own in differences.values())
    options = DIVERGING | {"vmin": -reach, "vmax": reach}
    rows = [
        [Panel(own[k], f"{words[k]}, {title}", mask == k, options=options) for k in contents]
        for title, own in differences.items()
    ]
    label, side = "cosine minus its mean over words", mask.shape[0]
    return panels(rows, (6.6, 5.3), side=side, colorbar=label, location="bottom")


def quoted(text: str, width: int) -> str:
    """A text in quotation marks, wrapped for a title."""
    return f"“{textwrap.fill(text, width)}”"


def outline(axis: Axes, mask: np.ndarray) -> None:
    """Draw the border of a (H, W) mask, black between white, so that it shows on any ground."""
    axis.contour(mask, levels=[0.5], colors="white", linewidths=2.4)
    axis.contour(mask, levels=[0.5], colors="black", linewidths=1.2)


def sheet(columns: Sequence[Mapping[str, Any]], legends: Sequence[Sequence[Patch]]) -> Figure:
    """Images in columns, what is made of them in rows, and under each column its legend.

    Args:
        columns: Pictures by the title of their row, the same titles in each column.
        legends: Handles for each column, from :func:`mgca.experiments.report.overlays.key`.
    """
    rows = list(columns[0])
    below = 0.25 * max(map(len, legends))
    figure, axes = plt.subplots(
        len(rows) + 1,
        len(columns),
        figsize=(6.6, 2.05 * len(rows) + below),
        height_ratios=[2.05] * len(rows) + [below],
        squeeze=False,
        layout="constrained",
    )
    for column, legend, own in zip(axes.T, legends, columns, strict=True):
        for axis, title in zip(column, rows, strict=False):
            axis.imshow(own[title])
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        column[-1].legend(handles=list(legend), loc="upper left", borderaxespad=0, handlelength=1)
        column[-1].axis("off")
    for axis, title in zip(axes[:, 0], rows, strict=False):
        axis.set_ylabel(textwrap.fill(title, 21))
    return figure


def scene_sheet(
    images: Sequence[Image.Image],
    masks: Sequence[np.ndarray],
    named: Mapping[str, Sequence[np.ndarray]],
    classes: Sequence[str],
) -> Figure:
    """Images, their masks and several segmentations of each, as :func:`sheet`.

    Args:
        images: The images.
        masks: (H, W) each; values that are no class are ignored pixels.
        named: Labels (H, W) of each image by title.
        classes: What masks and labels stand for.
    """
    present = [own[own < len(classes)] for own in map(np.unique, masks)]
    columns = []
    for number, (image, own) in enumerate(zip(images, present, strict=True)):
        colours = overlays.own_colours(classes, own)
        maps = {title: labels[number] for title, labels in {"mask": masks, **named}.items()}
        pictures = {title: overlays.over(labels, image, colours) for title, labels in maps.items()}
        columns.append({"image": np.asarray(image), **pictures})
    return sheet(columns, [overlays.own_key(classes, own) for own in present])


def photo_sheet(
    photos: Sequence[Image.Image],
    words: Sequence[Sequence[str]],
    named: Sequence[Mapping[str, np.ndarray]],
) -> Figure:
    """Photographs and several segmentations of each, as :func:`sheet`.

    Args:
        photos: The photographs.
        words: The words for each.
        named: For each, labels (H, W) by title.
    """
    columns, legends = [], []
    for photo, own, labels in zip(photos, words, named, strict=True):
        colours, present = palette(own), np.unique(list(labels.values()))
        pictures = {title: overlays.over(map_, photo, colours) for title, map_ in labels.items()}
        columns.append({"photograph": np.asarray(photo), **pictures})
        legends.append(overlays.key([own[k] for k in present], colours[present], edge=True))
    return sheet(columns, legends)


def matrices(
    values: Mapping[str, Any],
    names: Sequence[str],
    size: tuple[float, float],
    *,
    rows: str,
    columns: str,
    numbers: bool = False,
    colorbar: str = "",
    **ticks: Any,
) -> Figure:
    """Square matrices of cosines side by side, on one scale that is symmetric about 0.

    Args:
        values: (B, B) tensors by title.
        names: Names of the B rows, which are those of the columns.
        size: Width and height of the figure in inches.
        rows: Label of the rows.
        columns: Label of the columns.
        numbers: Whether each cell shows its value.
        colorbar: Label of a colour bar below; empty: no bar.
        ticks: How the names of the columns stand, such as ``rotation``.
    """
    figure, axes = plt.subplots(
        1, len(values), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    top = max(matrix.abs().max().item() for matrix in values.values())
    for axis, (title, matrix) in zip(axes[0], values.items(), strict=True):
        drawn = axis.imshow(matrix, cmap="PuOr", vmin=-top, vmax=top)
        for i, j in np.ndindex(*matrix.shape) if numbers else ():
            text = f"{matrix[i, j] + 0.0:.2f}".replace("-0.00", "0.00")
            shade = "white" if abs(matrix[i, j]) > 0.6 * top else "black"
            axis.text(j, i, text, ha="center", va="center", color=shade)
        axis.set_xticks(range(len(names)), names, ha="right", **ticks)
        axis.set_yticks(range(len(names)), names)
        axis.set(title=title, xlabel=columns)
        axis.grid(False)
    axes[0, 0].set_ylabel(rows)
    if colorbar:
        figure.colorbar(drawn, ax=axes, label=colorbar, location="bottom", shrink=0.6)
    return figure


def framed(axis: Axes, values: Any, cell: tuple[int, int], *, rows: str, columns: str) -> None:
    """A (B, B) matrix with numbered rows and columns, and a frame around one cell.

    Args:
        axis: Where to draw.
        values: The matrix; NaN where there is nothing.
        cell: Row and column of the cell.
        rows: Label of the rows.
        columns: Label of the columns.
    """
    axis.imshow(values, "viridis")
    style = {"markersize": 9, "markerfacecolor": "none", "markeredgewidth": 2}
    axis.plot(cell[1], cell[0], "s", color="white", **style)
    ticks = range(0, len(values), 5)
    axis.set(xlabel=columns, ylabel=rows, xticks=ticks, yticks=ticks)
    axis.grid(False)


def heat(
    table: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    size: tuple[float, float],
    *,
    crossed: np.ndarray,
    colorbar: str,
) -> Figure:
    """Counts by row and column as colours; cells that are left out have a cross.

    Args:
        table: (R, C) counts.
        rows: Names of the rows.
        columns: Names of the columns.
        size: Width and height of the figure in inches.
        crossed: (R, C) bool, the cells left out.
        colorbar: Label of the scale.
    """
    import seaborn as sns

    figure, axis = plt.subplots(figsize=size, layout="constrained")
    sns.heatmap(
        table,
        mask=crossed,
        xticklabels=list(columns),
        yticklabels=list(rows),
        cmap="cividis",
        cbar_kws={"label": colorbar, "shrink": 0.6},
        ax=axis,
    )
    for y, x in zip(*np.nonzero(crossed), strict=True):
        axis.text(x + 0.5, y + 0.5, "×", ha="center", va="center")
    axis.grid(False)
    axis.tick_params(axis="x", rotation=60)
    return figure


def histogram(values: Mapping[str, np.ndarray], bins: np.ndarray, colours: Sequence[str]) -> Figure:
    """Densities of several samples as steps, by name."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    style = {"density": True, "histtype": "step", "linewidth": 1.8}
    for (label, sample), colour in zip(values.items(), colours, strict=True):
        axis.hist(sample, bins, color=colour, label=label, **style)
    axis.set_ylabel("density")
    axis.legend(loc="upper left")
    return figure


def centre(pixel: Any, cells: int, side: float) -> tuple[Any, Any]:
    """x and y of pixel embeddings in an image: of the middle of their cells.

    Args:
        pixel: Index into the ``cells * cells`` pixel embeddings of a square image, or an array of
            indices.
        cells: Pixel embeddings along a side of the image.
        side: Width of the image.
    """
    return (pixel % cells + 0.5) * side / cells, (pixel // cells + 0.5) * side / cells


def ring(axis: Axes, x: float, y: float) -> None:
    """A ring around a place, black between white, so that it shows on any ground."""
    for colour, width in (("white", 3.5), ("black", 1.5)):
        axis.plot(
            x, y, "o", markersize=11, markerfacecolor="none", color=colour, markeredgewidth=width
        )


def mark(axis: Axes, x: float, y: float, style: tuple[str, str], label: str | None = None) -> None:
    """A mark of a colour and a shape, above the lines."""
    colour, shape = style
    size = 240 if shape == "*" else 110
    axis.scatter(x, y, size, color=colour, marker=shape, edgecolors="black", zorder=3, label=label)


def dots(axis: Axes, pixels: np.ndarray, cells: int, side: float) -> None:
    """Small white dots at pixel embeddings of an image, as for :func:`centre`."""
    x, y = centre(pixels, cells, side)
    axis.scatter(x - 0.5, y - 0.5, s=16, c="white", edgecolors="black", linewidths=1)
