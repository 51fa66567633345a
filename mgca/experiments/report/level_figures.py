"""Figures of the pages on the object, the region and the pixel level."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mgca.experiments.report import plots
from mgca.experiments.report.correspondence import cut_out, kept
from mgca.experiments.report.plots import Panel
from mgca.experiments.report.truth import Scenes
from mgca.losses.levels import similarity

_ENOUGH = 0.08  # share of a scene that a content has to cover to be shown
_COLOURS = {"precision": "#0072B2", "recall": "#E69F00", "weighted precision": "#CC79A7"}


def quality_curves(
    areas: Sequence[float],
    quality: Mapping[tuple[str, str], Tensor],
    described: Mapping[str, float],
    marked: float,
) -> Figure:
    """Precision, recall and weighted precision by the area that is kept, before and after training.

    Args:
        areas: The areas.
        quality: (areas, 3) by kind of text and ``"trained"`` or ``"frozen"``.
        described: Mean area of what the texts of a kind name, in the order of the panels.
        marked: The area at which a line stands.
    """
    figure, axes = plt.subplots(
        len(described),
        1,
        figsize=(6, 3.5 * len(described)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (kind, area) in zip(axes[:, 0], described.items(), strict=True):
        for column, (name, colour) in enumerate(_COLOURS.items()):
            axis.plot(areas, quality[kind, "trained"][:, column], color=colour, label=name)
            axis.plot(areas, quality[kind, "frozen"][:, column], color=colour, linestyle=":")
        axis.axvline(marked, color="grey", linewidth=1)
        axis.text(marked + 0.01, 0.03, f"α = {marked:g}", color="dimgrey")
        title = f"text: {kind} ({100 * area:.0f} % of the image)"
        axis.set(title=title, ylim=(0, 1.02), ylabel="share")
    axes[0, 0].plot([], [], color="grey", linestyle=":", label="before training")
    axes[0, 0].legend(loc="lower right")
    axes[-1, 0].set_xlabel("α")
    return figure


def mistakes(rows: pd.DataFrame) -> Figure:
    """What the regions for words show that are not in the picture.

    Args:
        rows: Some rows of :func:`mgca.experiments.report.truth.mistakes`.
    """
    figure, axis = plt.subplots(figsize=(6, 5.4), layout="constrained")
    y, image, region = np.arange(len(rows)), rows["image"], rows["region"]
    hollow = {"facecolors": "white", "edgecolors": "#D55E00", "s": 50, "zorder": 3}
    axis.hlines(y, image, region, color="lightgrey", linewidth=3, zorder=1)
    axis.scatter(image, y, color="grey", marker="|", s=120, label="of the image", zorder=2)
    axis.scatter(rows["before"], y, label="of the region, before training", **hollow)
    axis.scatter(region, y, color="#D55E00", s=50, label="of the region", zorder=3)
    pairs = zip(rows["word"], rows["content"], strict=True)
    axis.set_yticks(y, [f"{word} → {content}" for word, content in pairs])
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), xlabel="share that the content has, where it is in the picture")
    axis.legend(loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=1)
    return figure


def positive_pixels(
    shown: Sequence[tuple[Image.Image, str, Tensor, Sequence[int]]], marks: Mapping[str, Any]
) -> Figure:
    """Positives of several ranks in their images, and on the falling curve of the similarities.

    Args:
        shown: Image, caption, similarities (N,) of its pixels to the caption, and a rank for each
            mark, of which the last is the size of the object.
        marks: Colour and shape of each positive by name.
    """
    figure, axes = plt.subplots(len(shown), 2, figsize=(7, 3 * len(shown)), layout="constrained")
    for (left, right), (image, caption, scores, ranks) in zip(axes, shown, strict=True):
        falling, cells = scores.sort(descending=True), round(len(scores) ** 0.5)
        Panel(image, plots.quoted(caption, 28)).draw(left)
        right.plot(range(1, len(scores) + 1), falling.values, color="dimgrey")
        right.axvspan(0, ranks[-1], color="lightgrey", alpha=0.4, linewidth=0)
        for rank, (label, style) in zip(ranks, marks.items(), strict=True):
            x, y = plots.centre(falling.indices[rank - 1].item(), cells, image.width)
            plots.mark(left, x, y, style)
            plots.mark(right, rank, falling.values[rank - 1], style, label)
        right.set(ylabel="similarity")
    axes[0, 1].legend(loc="upper right")
    axes[-1, 1].set_xlabel("rank of the pixel; grey: the object")
    return figure


def trust_curves(
    centres: np.ndarray,
    right: Mapping[str, tuple[Sequence[float], Sequence[float], float]],
    ranks: Sequence[int],
    marks: Mapping[str, Any],
) -> Figure:
    """How often the pixel at a rank shows what its text names, by kind of text.

    Args:
        centres: Ranks in the middle of the bins.
        right: For each kind the shares after training, before it, and of a pixel taken at random.
        ranks: Rank of each mark.
        marks: Colour and shape of each positive by name.
    """
    figure, axes = plt.subplots(
        len(right),
        1,
        figsize=(6, 3.3 * len(right)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (kind, (after, before, chance)) in zip(axes[:, 0], right.items(), strict=True):
        axis.plot(centres, after, color="#0072B2", label="trained")
        axis.plot(centres, before, ":", color="#0072B2", label="before training")
        for rank, (label, style) in zip(ranks, marks.items(), strict=True):
            height = np.interp(np.log(rank), np.log(centres), after)
            plots.mark(axis, rank, height, style, label)
        axis.axhline(chance, color="grey", linewidth=1, linestyle="--")
        axis.set(xscale="log", ylim=(0, 1.02), ylabel="shows what is named", title=f"text: {kind}")
    axes[0, 0].legend(loc="lower left")
    axes[-1, 0].set_xlabel("rank of the pixel")
    axes[-1, 0].set_xticks([1, 10, 100], ["1", "10", "100"])
    return figure


def foreign_pixels(
    images: Sequence[Image.Image], scores: Tensor, marks: Mapping[str, tuple[int, str, str]]
) -> Figure:
    """The pixel of each image most like some captions.

    Args:
        images: Square images.
        scores: (images, B, N) similarities to the captions of a batch.
        marks: Number of the caption, colour and shape by name.
    """
    figure = plots.panels([[Panel(image) for image in images]], (7, 3.1))
    cells = round(scores.shape[-1] ** 0.5)
    for axis, image, own in zip(figure.axes, images, scores, strict=True):
        for name, (text, *style) in marks.items():
            x, y = plots.centre(own[text].argmax().item(), cells, image.width)
            plots.mark(axis, x, y, style, f"“{name}”")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def look_alike(
    scenes: Scenes, word: int, content: int, text: Tensor, area: float
) -> tuple[np.ndarray, float]:
    """The first scene without a word in which a content covers enough of it: the picture with all
    but the region for the word faded, and the share that the content has of the region.

    Args:
        scenes: The scenes.
        word: Index of the word.
        content: Index of the content.
        text: (C,) embedding of the word.
        area: Area of the region.
    """
    absent = scenes.shares[:, word].sum(-1) == 0
    seen = absent & (scenes.shares[:, content].mean(-1) > _ENOUGH)
    i = int(seen.nonzero()[0])
    inside = kept(similarity(scenes.trained[i][None], text[None])[0, 0], area)
    shown = scenes.shares[i, content][inside].mean().item()
    return cut_out(scenes.images[i], inside), shown
