"""Pictures of models side by side, and the models that are at hand for them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mgca.backbone.lite import Lite
from mgca.config import config_hash
from mgca.data.masks import MaskedSet, id_names
from mgca.experiments.grid import Variant, grid
from mgca.experiments.report.plots import scene_sheet
from mgca.experiments.scale import Scale
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
    head = training is not None and training.part == "head"
    path = scale.run_folder(work, variant, seed)
    path = path / ("alignment.safetensors" if head else "decoder.safetensors")
    weights = read_tensors(path) if training and path.is_file() else None
    if training and weights is None:
        # By its training and not by its name: a line of several tables was trained once.
        own = (name for name in manifest() if name.startswith(f"{training.backbone}-"))
        runs = (config_hash(training), variant.run(scale, seed))
        weights = next((w for w in map(load_weights, own) if w[1].get("run") in runs), None)
        if weights is None:
            return None
    if head and weights:
        backbone, decoder = Lite(pretrained=False), None
        backbone.set_alignment(**weights[0])
    else:
        backbone = scale.backbone(seed, variant.last_block)
        decoder = weights and decoder_from(*weights, backbone)
    device = next(backbone.parameters()).device
    return Model(backbone, decoder, variant.segmenting(scale)).to(device)


def pictures(
    data: MaskedSet,
    models: dict[str, tuple[Model, int | None, dict[str, Any]]],
    numbers: Sequence[int] = (0, 1, 2),
) -> Figure:
    """Images, their masks and what models make of them, one below the other, each image with the
    legend of its own classes and ignored pixels white.

    Args:
        data: The set.
        models: Model, unit and (for a set with a background) threshold and temperature, by title.
        numbers: Which images of the set, a column each.
    """
    chosen = [item for number, item in enumerate(data) if number in numbers]
    _, images, masks = zip(*chosen, strict=True)
    named = {
        title: [
            model.segment(
                image, data.classes, unit, **(background if data.background else {})
            ).labels.numpy()
            for image in images
        ]
        for title, (model, unit, background) in models.items()
    }
    return scene_sheet(images, masks, named, id_names(data))
