"""The unit of a segmentation from one for the whole image to one for each pixel: what the page on
the adaptive unit shows and measures."""

from collections.abc import Sequence
from typing import Any

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
from mgca.inference.overlay import palette
from mgca.inference.segmentation import Embedded
from mgca.model import Model
from mgca.units import semantic_units

#: Meta-points along a side, by step; 28 squared is 784. The pixel unit follows as the last step.
SIDES = range(1, 29)
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
