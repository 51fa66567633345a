"""Pictures of models side by side, and the models that are at hand for them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from mgca.config import config_hash
from mgca.data.masks import MaskedSet, id_names
from mgca.experiments.grid import Variant, grid, published_name
from mgca.experiments.scale import Scale
from mgca.inference.overlay import palette
from mgca.model import Model
from mgca.weights import load_weights, manifest, read_tensors
from mgca.weights.decoders import decoder_from


def models_at_hand(
    ablation: str,
    columns: dict[str, tuple[str, int | None]],
    scale: Scale,
    seed: int,
    work: str | os.PathLike,
) -> dict[str, tuple[Model, int | None, dict[str, float]]]:
    """Models for :func:`mgca.experiments.report.pictures.pictures`, those that need no training:
    their decoder is in ``work``, or comes with the project, or there is none.

    Args:
        columns: Variant and unit by title.

    Returns:
        Model, unit, and threshold and temperature by title; titles of other models are left out.

    Raises:
        FileNotFoundError: If a backbone needs data that is missing.
        mgca.weights.WeightsError: If a decoder was trained for another backbone.
    """
    variants = {variant.name: variant for variant in grid(ablation, scale)}
    found = {}
    for title, (name, unit) in columns.items():
        model = _at_hand(variants[name], scale, seed, Path(work))
        if model is not None:
            found[title] = (model, unit, scale.background(model))
    return found


def _at_hand(variant: Variant, scale: Scale, seed: int, work: Path) -> Model | None:
    """The model of a variant, or None if it has to be trained."""
    training = variant.trained_with(seed)
    path = scale.run_folder(work, variant, seed) / "decoder.safetensors"
    if training is None or path.is_file():
        backbone = scale.backbone(seed, variant.last_block)
        decoder = training and decoder_from(*read_tensors(path), backbone)
        device = next(backbone.parameters()).device
        return Model(backbone, decoder, variant.segmenting(scale)).to(device)
    name = published_name(variant, scale)
    if name in manifest():
        state, meta = load_weights(name)
        if meta["run"] == config_hash(training):
            backbone = scale.backbone(seed, variant.last_block)
            return Model(backbone, decoder_from(state, meta, backbone), variant.segmenting(scale))
    return None


_IGNORED = (255, 255, 255)


def pictures(
    data: MaskedSet,
    models: dict[str, tuple[Model, int | None, dict[str, Any]]],
    numbers: Sequence[int] = (0, 1, 2),
) -> Figure:
    """Images, their truth and what models make of them, one below the other, ignored pixels white.

    Args:
        data: The set.
        models: Model, unit and (for a set with a background) threshold and temperature, by title.
        numbers: Which images of the set, a column each.
    """
    classes = id_names(data)
    chosen = [item for number, item in enumerate(data) if number in numbers]
    titles = ("image", "truth", *models)
    figure, axes = plt.subplots(
        len(titles),
        len(chosen),
        figsize=(6.8, 6.4 / len(chosen) * len(titles) + 0.8),
        squeeze=False,
        layout="constrained",
    )
    present: set[int] = set()
    for column, (_, image, truth) in zip(axes.T, chosen, strict=True):
        maps = {"truth": truth}
        for title, (model, unit, background) in models.items():
            options = background if data.background else {}
            maps[title] = model.segment(image, data.classes, unit, **options).labels.numpy()
        column[0].imshow(image)
        for axis, labels in zip(column[1:], maps.values(), strict=True):
            axis.imshow(_coloured(image, labels, classes))
            present |= set(np.unique(labels[labels < len(classes)]).tolist())
    for axis, title in zip(axes[:, 0], titles, strict=True):
        axis.set_ylabel(title)
    for axis in axes.flat:
        # Not set_axis_off, which would take the label along.
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    colours = palette(classes) / 255
    figure.legend(
        handles=[Patch(color=colours[i], label=classes[i]) for i in sorted(present)],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    return figure


def _coloured(image: Image.Image, labels: np.ndarray, classes: Sequence[str]) -> Image.Image:
    colours = np.full((256, 3), _IGNORED, dtype=np.uint8)
    colours[: len(classes)] = palette(classes)
    return Image.blend(image, Image.fromarray(colours[labels]), 0.6)
