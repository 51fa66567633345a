"""What the pages of the book draw of pictures, maps and masks: arrays in, a figure out."""

import base64
import html
import io
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

from mgca.inference.overlay import palette
from mgca.inference.segmentation import Segmentation

#: Colour of a class that an image does not have.
ABSENT = (245, 245, 245)
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
        legend: Handles of a legend below, as :func:`key` makes them.
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


def outline(axis: Axes, mask: np.ndarray) -> None:
    """Draw the border of a (H, W) mask, black between white, so that it shows on any ground."""
    axis.contour(mask, levels=[0.5], colors="white", linewidths=2.4)
    axis.contour(mask, levels=[0.5], colors="black", linewidths=1.2)


def over(
    labels: np.ndarray, photo: Image.Image, colours: np.ndarray, opacity: float = 0.65
) -> np.ndarray:
    """(H, W, 3) uint8: an image under the colours (K, 3) of its labels (H, W)."""
    return ((1 - opacity) * np.asarray(photo) + opacity * colours[labels]).astype(np.uint8)


def own_colours(classes: Sequence[str], truth: np.ndarray) -> np.ndarray:
    """(K, 3) uint8: the colours of the classes that a mask has, and one for all others."""
    present = np.unique(truth)
    colours = np.full((len(classes), 3), ABSENT, np.uint8)
    colours[present] = palette([classes[k] for k in present])
    return colours


def coloured(result: Segmentation) -> np.ndarray:
    """(H, W, 3) uint8: a segmented photograph under the colours of its classes."""
    return over(result.labels.numpy(), result.image, palette(result.classes), 0.6)


def key(names: Sequence[str], colours: Any = None, *, edge: bool = False) -> list[Patch]:
    """Handles of a legend: a patch of each colour beside its name.

    Args:
        names: What the colours stand for.
        colours: (K, 3) RGB from 0 to 255; None: the colours of the names as classes.
        edge: Whether patches have a border, without which a pale one is not seen.
    """
    colours = np.asarray(palette(names) if colours is None else colours) / 255
    return [
        Patch(facecolor=colour, edgecolor="0.4" if edge else colour, label=name)
        for colour, name in zip(colours, names, strict=True)
    ]


def sheet(columns: Sequence[Mapping[str, Any]], legends: Sequence[Sequence[Patch]]) -> Figure:
    """Images in columns, what is made of them in rows, and under each column its legend.

    Args:
        columns: Pictures by the title of their row, the same titles in each column.
        legends: Handles for each column, as :func:`key` makes them.
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
        axis.set_ylabel(title)
    return figure


def gallery(items: Sequence[tuple[Image.Image, str]], width: int) -> str:
    """Images with a text under each, as many in a row as fit, as HTML.

    Args:
        items: Images and their texts.
        width: Least width of an image in the units of a web page.
    """
    cells = []
    for image, text in items:
        file = io.BytesIO()
        image.save(file, format="WEBP", quality=85)
        data = base64.b64encode(file.getvalue()).decode()
        cells.append(
            f'<div><img alt="{html.escape(text)}" src="data:image/webp;base64,{data}" '
            f'width="{image.width}" height="{image.height}" '
            'style="display:block;width:100%;height:auto;margin:0">'
            f'<div style="font-size:0.85em;line-height:1.3">{html.escape(text)}</div></div>'
        )
    columns = f"grid-template-columns:repeat(auto-fill,minmax({width}px,1fr))"
    return f'<div style="display:grid;gap:12px;margin-bottom:1rem;{columns}">{"".join(cells)}</div>'


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
