"""The small CLIP of the scenes: its parts, its training, its gap between image and pixels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from mgca.data.masks import MaskedSet
from mgca.data.scenes import CLASSES, THINGS
from mgca.experiments.report.charts import sns
from mgca.experiments.report.validation import inside_beats_outside
from mgca.model import Model


def parts(model: Model) -> pd.DataFrame:
    """Weights, sizes and parameters of the parts of the model, and of MGCA's decoder on top."""
    backbone = model.backbone
    sizes = backbone.config
    grid = f"image enlarged {sizes.enlarge} times, grid of {sizes.grid} × {sizes.grid}"
    blocks = f"{sizes.layers} blocks, width {sizes.width}, {sizes.heads} heads"
    lines = [
        ("EfficientNet-Lite0, first stages", "ImageNet, frozen", grid, backbone.trunk),
        ("transformer", "trained here", blocks, backbone.model.visual),
        ("all-MiniLM-L6-v2", "frozen", "sentences", backbone.sentences),
        ("linear map of texts", "trained here", f"to {sizes.dim} dimensions", backbone.model.text),
        (
            "MGCA's decoder",
            "trained on top, afterwards",
            "two gated convolution blocks",
            model.decoder,
        ),
    ]
    table = pd.DataFrame(lines, columns=["part", "weights", "what", "parameters"])
    return table.assign(parameters=table["parameters"].map(_parameters)).set_index("part")


def _parameters(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"


def how_trained(run: str, record: Mapping[str, Any]) -> pd.DataFrame:
    """What the record of its training says, a line each."""
    config, trained = record["config"], record["trained"]
    lines = {
        "image-caption pairs": f"{config['images']:,}",
        "epochs": config["epochs"],
        "batch": config["batch_size"],
        "learning rate": config["learning_rate"],
        "loss of the last epoch": f"{trained['loss']:.3f}",
        "temperature": f"{trained['temperature']:.4f}",
        "time": f"{record['seconds'] / 60:.0f} min",
        "device": record["device"],
        "commit": record["commit"][:12],
        "date": record["date"][:10],
    }
    return pd.Series(lines, name=f"run {run}").to_frame().astype(str)


def epochs(table: pd.DataFrame, chance: float) -> Figure:
    """The mean loss of each epoch.

    Args:
        table: Columns ``epoch`` and ``loss``.
        chance: The loss by chance, a dotted line.
    """
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    sns.lineplot(table, x="epoch", y="loss", marker="o", ax=axis)
    axis.axhline(chance, color="grey", linestyle=":", label="chance")
    axis.set(ylabel="mean loss of the epoch", ylim=(0, None), xticks=table["epoch"])
    axis.legend()
    return figure


def similarities(model: Model, image: Image.Image) -> np.ndarray:
    """(30, H, W) cosine similarities to the classes, pixel by pixel."""
    return model.segment(image, CLASSES, None).scores.numpy()


def largest_thing(mask: np.ndarray) -> int:
    """The thing that most of a scene shows, as an index into the classes."""
    return int(np.bincount(mask.ravel(), minlength=len(CLASSES))[: len(THINGS)].argmax())


def word_maps(
    models: Mapping[str, Model], scenes: Sequence[tuple[Image.Image, np.ndarray]]
) -> Figure:
    """Scenes, the mask of their largest thing, and where each model sees its word.

    Args:
        models: Models by title.
        scenes: Images with their masks.
    """
    words = [largest_thing(mask) for _, mask in scenes]
    drawn = []
    for (image, _), word in zip(scenes, words, strict=True):
        own = [similarities(model, image)[word] for model in models.values()]
        drawn.append([each - each.mean() for each in own])
    reach = max(np.abs(similarity).max() for row in drawn for similarity in row)
    figure, axes = plt.subplots(
        len(scenes),
        2 + len(models),
        figsize=(7, 1.4 * len(scenes) + 0.9),
        squeeze=False,
        layout="constrained",
    )
    for row, (image, mask), word, own in zip(axes, scenes, words, drawn, strict=True):
        row[0].imshow(image)
        row[1].imshow(mask == word, cmap="gray_r", vmin=0, vmax=1.4)
        row[1].set_title(CLASSES[word])
        for axis, similarity in zip(row[2:], own, strict=True):
            last = axis.imshow(similarity, vmin=-reach, vmax=reach, cmap="PuOr_r")
    for axis, title in zip(axes[0, 2:], models, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_axis_off()
    label = "cosine similarity minus its mean"
    figure.colorbar(last, ax=axes[:, 2:], label=label, location="bottom", shrink=0.7)
    return figure


def gap(models: Mapping[str, Model], scenes: MaskedSet | Iterable) -> pd.DataFrame:
    """What models know of the pixels of scenes, a line each, things and stuffs apart.

    Args:
        models: Models by title.
        scenes: Identifier, image and mask of each scene.

    Returns:
        ``ordered``, percent of the pairs of a pixel of a word and one elsewhere of which the first
        is more similar to it, mean over the words of each scene; and ``right``, percent of the
        pixels that are labelled correctly.
    """
    rows = []
    for _, image, mask in scenes:
        for name, model in models.items():
            scores = similarities(model, image)
            best = scores.argmax(axis=0)
            for word in np.unique(mask):
                inside = mask == word
                if inside.all():
                    continue
                ordered = inside_beats_outside(torch.from_numpy(scores[word]), inside)
                kind = "things" if word < len(THINGS) else "stuff"
                right = (best[inside] == word).sum()
                rows.append((name, kind, ordered, 100 * right, inside.sum()))
    table = pd.DataFrame(rows, columns=["model", "kind", "ordered", "right", "pixels"])
    by = table.groupby(["model", "kind"], sort=False)
    shares = by["right"].sum() / by["pixels"].sum()
    means = pd.DataFrame({"ordered": by["ordered"].mean(), "right": shares})
    return means.unstack("kind").loc[list(models)]
