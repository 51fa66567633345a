"""Figures that one page of the book draws and no other; what is common stands in ``plots``."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mgca.experiments.report import overlays, plots
from mgca.experiments.report.plots import Panel
from mgca.inference.segmentation import Segmentation
from mgca.model import Model

_GREYS = (70, 220)  # of words of what is not in a scene, so that wrong pieces are seen and not read
_MEAN_GREY = (153, 153, 153)


def photo_row(title: str, results: Mapping[str, Segmentation], *, large: bool = False) -> Figure:
    """A photograph, beside it under the colours of its words by title, and their legend.

    Args:
        title: What the photograph is called.
        results: Two segmentations of the photograph by title.
        large: Whether two panels are as wide as the page, and not all three.
    """
    first = next(iter(results.values()))
    photo, classes = first.image, first.classes
    row = [Panel(photo, title)]
    row += [Panel(overlays.coloured(result), name) for name, result in results.items()]
    if large:
        size = (6.8, 6.8 * photo.height / photo.width)
        figure = plots.panels([row[:2], [row[2], None]], size)
        figure.axes[-1].axis("off")
        figure.axes[-1].legend(handles=overlays.key(classes), loc="center left")
        return figure
    size = (6.8, 6.8 / len(row) * photo.height / photo.width + 0.7)
    return plots.panels([row], size, legend=overlays.key(classes), columns=len(classes))


def whole_method(
    picture: Image.Image,
    caption: str,
    kept: Any,
    units: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
) -> Figure:
    """A scene with its caption, the pixels that the caption keeps, the units, and the segmentation.

    Args:
        picture: The scene, square.
        caption: Its caption.
        kept: Indices of the pixel embeddings that the caption keeps.
        units: (h, h) unit of each pixel embedding.
        labels: (H, H) segmentation, indices into the classes.
        classes: The words.
    """
    cells = len(units)
    step = picture.width // cells
    blocks = np.asarray(picture).reshape(cells, step, cells, step, 3).mean(axis=(1, 3))
    colours = np.stack([blocks[units == own].mean(axis=0) for own in units.flat])
    flat = np.kron(colours.reshape(cells, cells, 3), np.ones((step, step, 1))).astype(np.uint8)
    present = np.argsort(-np.bincount(labels.ravel(), minlength=len(classes)))
    present = present[np.isin(present, labels)]
    segmented = overlays.over(labels, picture, overlays.own_colours(classes, present))
    row = [
        Panel(picture, "image and caption", below=textwrap.fill(f"“{caption}”", 26)),
        Panel(overlays.dimmed(picture, kept, cells), "pixels kept"),
        Panel(flat, "units"),
        Panel(segmented, "segmentation"),
    ]
    names = [classes[k] for k in present]
    return plots.panels([row], (7, 3.5), legend=overlays.key(names), columns=6)


def outlined(
    rows: Sequence[Mapping[str, Any]],
    outlines: Sequence[np.ndarray],
    height: float,
    *,
    colorbar: str = "",
) -> Figure:
    """Rows of pictures and maps of images, in each the outline of what a word names.

    Args:
        rows: Pictures and maps by title.
        outlines: (H, H) bool for each row.
        height: Height of a row in inches.
        colorbar: Label of a scale that is common to all and symmetric about 0; empty: each map has
            a scale of its own.
    """
    options: dict[str, Any] = {}
    if colorbar:
        reach = max(own.abs().max() for row in rows for own in row.values())
        options = plots.DIVERGING | {"vmin": -reach, "vmax": reach}
    drawn = [
        [Panel(own, title, inside, options=options) for title, own in row.items()]
        for row, inside in zip(rows, outlines, strict=True)
    ]
    size, side = (6.6, height * len(rows)), outlines[0].shape[0]
    return plots.panels(drawn, size, side=side, colorbar=colorbar, location="bottom")


def granularity_lines(answers: pd.DataFrame) -> Figure:
    """Percent of right answers by what is asked for, a line for each row."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for (trained, row), marker in zip(answers.iterrows(), "ovs^D", strict=False):
        axis.plot(row.index, row, marker=marker, markersize=8, label=trained)
    axis.set(ylim=(0, 103), ylabel="right, %", xlabel="asked for")
    axis.legend(title="trained", loc="lower left")
    return figure


def named_pieces(
    picture: Image.Image,
    mask: np.ndarray,
    named: Mapping[str, np.ndarray],
    classes: Sequence[str],
) -> Figure:
    """A scene, its mask, and segmentations in which words of what is not there are grey.

    Args:
        picture: The scene.
        mask: (H, W), index into the classes.
        named: Three segmentations (H, W) by title.
        classes: The words.
    """
    count = np.bincount(mask.ravel(), minlength=len(classes))
    present = np.argsort(-count)[: (count > 0).sum()]
    greys = np.linspace(*_GREYS, len(classes)).astype(np.uint8)[:, None]
    colours = overlays.own_colours(classes, present, greys)
    first = [Panel(picture, "scene"), Panel(colours[mask], "truth"), None]
    second = [Panel(colours[labels], title) for title, labels in named.items()]
    figure = plots.panels([first, second], (6.6, 4.9))
    names = [*(classes[k] for k in present), "not in the scene"]
    handles = overlays.key(names, [*colours[present], _MEAN_GREY])
    figure.axes[2].axis("off")
    figure.axes[2].legend(handles=handles, loc="center left")
    return figure


def photographs_by_unit(
    model: Model,
    photographs: Sequence[tuple[np.ndarray, Sequence[str]]],
    units: Mapping[str, int | None],
) -> Figure:
    """Photographs in rows under the colours of their words, by the number of meta-points.

    Args:
        model: The model.
        photographs: (H, W, 3) arrays and the words for each.
        units: Number of meta-points by title; None: the pixel unit.
    """
    figure = plt.figure(figsize=(7, 2.25 * len(photographs)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(photographs), 1))
    for part, (photograph, words) in zip(parts, photographs, strict=True):
        embedded = model.embed(photograph)
        axes = part.subplots(1, len(units))
        for axis, (title, points) in zip(axes, units.items(), strict=True):
            picture = overlays.coloured(model.segment(embedded, words, points))
            Panel(picture, title if part is parts[0] else "").draw(axis)
        part.legend(handles=overlays.key(words), loc="outside lower center", ncols=4)
    return figure


def choice_of_pairs(
    image: Image.Image,
    captions: Sequence[str],
    scores: Tensor,
    hardness: Tensor,
    own: int,
    sizes: tuple[int, int],
    rank: int,
) -> Figure:
    """From the similarities of an image to its pairs: object, hard region and the two pixels.

    Args:
        image: The image, square.
        captions: The B captions of the batch.
        scores: (B, N) similarities of the image to them.
        hardness: (B, B) cosines of the hard regions of all images with all captions.
        own: Number of the image in the batch.
        sizes: Pixels of an object and of a hard region.
        rank: Rank of the positive pixel.
    """
    cells = round(scores.shape[1] ** 0.5)
    others = hardness.masked_fill(torch.eye(len(hardness), dtype=torch.bool), torch.nan)
    # Of the other captions the one whose hard region is most like it: the hardest negative.
    other = int(others[own].nan_to_num(-1).argmax())
    order = scores.argsort(dim=1, descending=True)  # pixels, most similar first
    limits = {"vmin": scores[[own, other]].min(), "vmax": scores[[own, other]].max()}
    rows: list[list[Panel | None]] = [[Panel(image, f"image {own}")], [None]]
    roles = ("own caption", "object, pixel"), (f"caption {other}", "hard region, pixel")
    for row, text, size, (whose, role) in zip(rows, (own, other), sizes, roles, strict=True):
        said = textwrap.fill(f"“{captions[text]}”", 25)
        map_ = scores[text].view(cells, cells)
        row.append(Panel(map_, whose, below=said, options=limits))
        row.append(Panel(overlays.dimmed(image, order[text, :size], cells), role))
    figure = plots.panels(rows, (6.9, 5.6), side=image.width)
    for axis, pixel in ((2, order[own, rank - 1]), (5, order[other, 0])):
        plots.ring(figure.axes[axis], *plots.centre(int(pixel), cells, image.width))
    plots.framed(figure.axes[3], others, (own, other), rows="image $i$", columns="caption $j$")
    figure.axes[3].set_title("hard regions")
    return figure


def attention_of_patch(
    scene: Image.Image,
    inside: np.ndarray,
    content: str,
    patch: int,
    attention: Tensor,
    embeddings: Mapping[str, Tensor],
) -> Figure:
    """What one patch takes in, and which patches its embedding is like.

    Args:
        scene: The scene, square.
        inside: (H, W) bool, the content that the patch lies on.
        content: Name of the content.
        patch: Number of the patch.
        attention: (N,) weights of the patches in its attention.
        embeddings: (N, C) of the patches by title.
    """
    cells, side = round(len(attention) ** 0.5), scene.width
    itself = torch.eye(len(attention))[patch]
    first = [
        Panel(scene, "scene and patch"),
        Panel(attention.view(cells, cells), "attention, trained"),
        Panel(itself.view(cells, cells), "value only"),
    ]
    second = [Panel(overlays.dimmed(scene, inside.ravel(), side), f"its content: {content}")]
    options = plots.DIVERGING | {"vmin": -1, "vmax": 1}
    for title, own in embeddings.items():
        cosines = F.cosine_similarity(own[patch], own, dim=-1).view(cells, cells)
        second.append(Panel(cosines, f"alike, {title}", inside, options=options))
    label = "cosine to the patch"
    figure = plots.panels([first, second], (6.6, 5.3), side=side, colorbar=label, location="bottom")
    x, y = plots.centre(patch, cells, side)
    for axis in figure.axes[:6]:
        axis.plot(x, y, "o", color="white", markeredgecolor="black")
    return figure


def positions(
    grids: Sequence[Tensor], right: Mapping[str, Mapping[int, float]], side: int
) -> Figure:
    """Cosines of the position in the middle with all others, and the pixel accuracy by size.

    Args:
        grids: (n * n, C) embeddings of positions, for several n.
        right: Percent by the side of the images, two lines by name.
        side: Width that the maps are drawn with.
    """
    options, maps = plots.DIVERGING | {"vmin": -1, "vmax": 1}, []
    for grid in grids:
        size = round(len(grid) ** 0.5)
        cosines = F.cosine_similarity(grid[(size // 2) * size + size // 2], grid, dim=-1)
        title = f"{size} × {size} positions"
        maps.append(Panel(cosines.view(size, size), title, options=options))
    figure = plots.panels([[*maps, None]], (7, 2.7), side=side)
    axis = figure.axes[-1]
    for (label, line), style in zip(right.items(), ("o-", "s--"), strict=True):
        axis.plot(list(line), list(line.values()), style, label=label)
    axis.set(xlabel="side of the image", ylabel="pixels right, %", ylim=(0, 50), xticks=list(line))
    axis.legend(loc="lower center")
    return figure


def opening_gates(curve: pd.DataFrame, parts: Sequence[str]) -> Figure:
    """The gates of both blocks by step, and the norms of the gradients of a decoder's parts.

    Args:
        curve: A row for each step from 1; columns ``"gate 1"``, ``"gate 2"`` and the parts.
        parts: Names of three parts.
    """
    figure, (gates, gradients) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for n, style in ((1, "-"), (2, "--")):
        opening = [0, *np.tanh(curve[f"gate {n}"])]
        gates.plot([0, *curve.index], opening, style, label=f"block {n}")
    gates.axhline(0, color="0.4", linewidth=0.8)
    gates.set(xlabel="step", ylabel="tanh of the gate")
    for name, style in zip(parts, ("-", "--", ":"), strict=True):
        gradients.plot(curve.index, curve[name].replace(0, np.nan), style, label=name)
    gradients.set(xlabel="step", ylabel="norm of the gradient", yscale="log", xlim=(0, None))
    for axis in (gates, gradients):
        axis.legend()
    return figure


def scene_and_maps(scene: Image.Image, maps: Mapping[str, Tensor], inside: np.ndarray) -> Figure:
    """A scene, beside it maps (h, w) by title on one scale, with the outline of a content."""
    limits = {
        "vmin": min(own.min() for own in maps.values()),
        "vmax": max(own.max() for own in maps.values()),
    }
    row = [Panel(own, title, inside, options=limits) for title, own in maps.items()]
    return plots.panels([[Panel(scene, "scene"), *row]], (7, 2.5), side=scene.width)
