"""The unit of a segmentation from one for the whole image to one for each pixel: what the page on
the adaptive unit shows and measures."""

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

from mgca.data.masks import MaskedSet
from mgca.evaluation.evaluate import CLASS_IOU, measure
from mgca.evaluation.metrics import count_components
from mgca.experiments.report import overlays, plots
from mgca.experiments.report.tables import mean_and_std
from mgca.inference.overlay import palette
from mgca.inference.segmenter import Embedded
from mgca.model import Model
from mgca.units import meta_point_index, semantic_units

#: Meta-points along a side, by step; 28 squared is 784. The pixel unit follows as the last step.
SIDES = range(1, 29)
_CELLS = 28  # pixel embeddings along a side of a scene
_SHOWN = 448  # side of a picture that a reader handles


def unit_image(
    title: str,
    model: Model,
    picture: Image.Image,
    classes: Sequence[str],
    truth: np.ndarray | None = None,
) -> dict[str, Any]:
    """An image of the interactive figure ``"units"``, with every number of meta-points.

    Args:
        title: The title of the image.
        model: The model that names the units.
        picture: A square image, of one window.
        classes: The words.
        truth: The (H, W) mask; None if there is none.

    Returns:
        What :mod:`mgca.experiments.report.interactive` says of such an image.
    """
    embedded = model.embed(picture)
    colours = palette(classes) if truth is None else overlays.own_colours(classes, np.unique(truth))
    if truth is not None:
        truth = _at_pixels(truth, embedded.pixels)
    return {
        "title": title,
        "picture": picture.resize((_SHOWN, _SHOWN), Image.Resampling.BICUBIC),
        "classes": list(classes),
        "colours": colours.tolist(),
        "truth": truth,
        "steps": [_step(model, embedded, classes, side, truth) for side in (*SIDES, None)],
    }


def _step(
    model: Model,
    embedded: Embedded,
    classes: Sequence[str],
    side: int | None,
    truth: np.ndarray | None,
) -> dict[str, Any]:
    """The units of one window, and what they are named."""
    scores = model.scores(embedded.pixels, model.texts(classes), side)
    named = scores.table.argmax(dim=1)
    index = scores.index[0]
    labels = named[index].numpy()
    smallest = np.uint8 if side and side < 17 else np.uint16
    return {
        "points": side,
        "assignment": index.numpy().astype(smallest) if side else None,
        "named": (named.numpy() if side else labels).astype(np.uint8),
        "regions": count_components(labels),
        "right": None if truth is None else 100 * float((labels == truth).mean()),
    }


def _at_pixels(mask: np.ndarray, pixels: Tensor) -> np.ndarray:
    """One pixel of a mask for each pixel embedding (B, C, h, w), from its middle."""
    step = mask.shape[0] // pixels.shape[2]
    return mask[step // 2 :: step, step // 2 :: step]


def still(images: Sequence[dict[str, Any]], sides: Sequence[int | None]) -> Figure:
    """The picture that stands for the interactive figure: some steps of each image in a row."""
    rows = []
    for image in images:
        photo, colours = image["picture"].resize((224, 224)), np.array(image["colours"], np.uint8)
        row = []
        for side in sides:
            step = image["steps"][-1 if side is None else SIDES.index(side)]
            labels = step["named"] if side is None else step["named"][step["assignment"]]
            labels = np.kron(labels, np.ones((224 // len(labels),) * 2, int))
            title = "pixel" if side is None else f"{side**2}, {step['regions']} regions"
            row.append(plots.Panel(overlays.over(labels, photo, colours), title))
        rows.append(row)
    return plots.panels(rows, (7, 5.8))


def measured(
    model: Model,
    data: MaskedSet,
    numbers: Sequence[int | None],
    embedded: dict[tuple[str, str], Embedded],
) -> pd.DataFrame:
    """Measures over a set by number of meta-points, as :func:`mgca.evaluation.evaluate.measure`.

    Args:
        model: The model.
        data: The set.
        numbers: Numbers of meta-points; None: the pixel unit.
        embedded: The images that are embedded already; those that are missing are added.

    Returns:
        A row for each number, as text or ``"pixel"``, and a column for each measure of the set.
    """
    rows = pd.DataFrame(measure(model, data, numbers, kept=embedded))
    rows = rows[~rows["metric"].str.startswith(CLASS_IOU)]
    table = rows.pivot(index="unit", columns="metric", values="value")
    return table.loc[["pixel" if number is None else str(number) for number in numbers]]


def averaged(
    model: Model, data: MaskedSet, side: int, embedded: dict[tuple[str, str], Embedded]
) -> dict[str, float]:
    """What the average over a unit does to pixels, over a set.

    Args:
        model: The model.
        data: The set.
        side: Meta-points along a side.
        embedded: The images of the set as the model has embedded them.

    Returns:
        Percent of the pixels that units have ``"mended"`` (right, where the pixel alone was wrong)
        and ``"spoilt"``; the mean cosine to the true class of a pixel's own embedding,
        ``"alone"``, and of its unit's, ``"together"``.
    """
    texts = model.texts(data.classes)
    counts, closer = np.zeros(3, dtype=int), []
    for identifier, _, mask in data:
        own = embedded[data.source, identifier]
        single = model.segment(own, data.classes, None).labels.numpy() == mask
        joint = model.segment(own, data.classes, side**2).labels.numpy() == mask
        counts += [(~single & joint).sum(), (single & ~joint).sum(), mask.size]
        units = semantic_units(own.pixels, side)
        members = units.units[0][units.assignment[0]].permute(2, 0, 1)[None]  # (1, C, H, W)
        true = texts[torch.from_numpy(_at_pixels(mask, own.pixels).astype(int))]
        closer.append(
            [
                F.cosine_similarity(each[0].permute(1, 2, 0), true, dim=-1).mean().item()
                for each in (own.pixels, members)
            ]
        )
    mended, spoilt = 100 * counts[:2] / counts[2]
    alone, together = np.mean(closer, axis=0)
    return {"mended": mended, "spoilt": spoilt, "alone": alone, "together": together}


def unit_curve(curve: pd.DataFrame) -> Figure:
    """mIoU and regions by number of meta-points, with a line for the pixel unit.

    Args:
        curve: Rows of :func:`measured`, the last one of the pixel unit.
    """
    numbers = [int(number) for number in curve.index[:-1]]
    figure, axes = plt.subplots(2, 1, figsize=(5.2, 5.6), sharex=True, layout="constrained")
    labels = {"miou": "mIoU (%)", "components": "regions / those of the mask"}
    for axis, (metric, label) in zip(axes, labels.items(), strict=True):
        axis.plot(numbers, curve[metric].iloc[:-1], "o-", color="C0")
        axis.axhline(curve.loc["pixel", metric], color="C1", linestyle="--", label="pixel unit")
        axis.set(xscale="log", ylabel=label)
        axis.set_xticks([1, 4, 16, 36, 100, 784], ["1", "4", "16", "36", "100", "784"])
        axis.minorticks_off()
    axes[0].legend(loc="lower right")
    axes[1].axhline(1, color="grey", linestyle=":")
    axes[1].set_xlabel("meta-points")
    return figure


def steps_figure(
    picture: Image.Image,
    truth: np.ndarray,
    classes: Sequence[str],
    assignment: np.ndarray,
    named: Mapping[str, np.ndarray],
) -> Figure:
    """A scene with its meta-points, its units in arbitrary colours, its mask, and what is named.

    Args:
        picture: The scene.
        truth: Its mask (H, H).
        classes: The words.
        assignment: (h, h) unit of each pixel embedding; units stand in the order of their
            meta-points.
        named: Three segmentations (H, H) by title.
    """
    count, cells = int(assignment.max()) + 1, len(assignment)
    shuffled = np.random.default_rng(0).permutation(count) / count
    arbitrary = (255 * plt.get_cmap("nipy_spectral")(shuffled)[:, :3]).astype(np.uint8)
    present = np.unique(truth)
    colours = overlays.own_colours(classes, present)
    units = np.kron(assignment, np.ones((picture.height // cells,) * 2, int))
    first = [
        plots.Panel(picture, "meta-points"),
        plots.Panel(overlays.over(units, picture, arbitrary), f"{count} units"),
        plots.Panel(overlays.over(truth, picture, colours), "exact mask"),
    ]
    second = [
        plots.Panel(overlays.over(labels, picture, colours), title)
        for title, labels in named.items()
    ]
    legend = overlays.own_key(classes, present)
    figure = plots.panels([first, second], (7, 5.6), legend=legend)
    points = meta_point_index(cells, cells, round(count**0.5)).numpy()
    for axis in figure.axes[:2]:
        plots.dots(axis, points, cells, picture.height)
    return figure


def choices_figure(
    picture: Image.Image,
    truth: np.ndarray,
    classes: Sequence[str],
    default: np.ndarray,
    named: Mapping[str, np.ndarray],
    points: Sequence[np.ndarray],
) -> Figure:
    """A scene under its classes by choice, outlined where they change, with its meta-points.

    Args:
        picture: The scene.
        truth: Its mask (H, H).
        classes: The words.
        default: Labels (H, H) of the default.
        named: Labels (H, H) by title.
        points: For each of them the pixel embeddings that are meta-points.
    """
    colours = overlays.own_colours(classes, np.unique(truth))
    panels = [
        plots.Panel(overlays.over(labels, picture, colours), title, outline=labels != default)
        for title, labels in named.items()
    ]
    figure = plots.panels([panels], (7, 2.9))
    for axis, index in zip(figure.axes, points, strict=True):
        plots.dots(axis, index, _CELLS, picture.height)
    return figure


def published_table(means: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """The runs with several numbers of meta-points beside those of the paper, a row each.

    Args:
        means: Results over the groups ``"with background"`` and ``"without background"``.
        paper: The paper's Table 4.
    """
    paper = paper.set_index(paper["meta_points"].astype(str).replace("3136", "pixel"))
    table = pd.DataFrame(index=paper.index[::-1].rename("meta-points"))
    for metric, name, digits in (("miou", "mIoU", 1), ("components", "regions", 2)):
        ours = mean_and_std(means, metric, digits=digits).droplevel("variant")
        table[f"{name}, with background"] = ours["with background"]
        table[f"{name}, without"] = ours["without background"]
    table["paper: mIoU, with background"] = paper["avg_with_bg"]
    table["paper: mIoU, without"] = paper["avg_without_bg"]
    return table
