"""A short training on a page of the book: its configuration, and what its models reach."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from mgca.config import TrainConfig
from mgca.data.masks import MaskedSet
from mgca.evaluation.evaluate import evaluate
from mgca.model import Model

LEVELS = ("object", "region", "pixel")


def shortened(training: TrainConfig, losses: Collection[str], **values: Any) -> TrainConfig:
    """A published training with some of its losses, and other values.

    Args:
        training: The published configuration.
        losses: The levels that are trained, of ``LEVELS``.
        values: Fields of the configuration, such as ``steps`` and ``seed``.

    Raises:
        ValueError: If there is no such level, or none is named.
    """
    if not losses or not set(losses) <= set(LEVELS):
        raise ValueError(f"losses are some of {', '.join(LEVELS)}, not {', '.join(losses) or '-'}")
    weights = {level: float(level in losses) for level in LEVELS}
    loss = dataclasses.replace(training.loss, **weights)
    return dataclasses.replace(training, loss=loss, **values)


def reached(
    models: Mapping[str, Model],
    sets: Iterable[MaskedSet],
    background: Mapping[str, Mapping[str, float]] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """mIoU in percent of some models, (variant, unit) by set.

    Args:
        models: Models by the name of the variant.
        sets: The sets with masks.
        background: Threshold and temperature by model, where sets have a background.
        options: Of :func:`mgca.evaluation.evaluate.evaluate`.
    """
    rows = []
    for masked in sets:
        for name, model in models.items():
            rule = background[name] if background else {}
            for unit, confusion in evaluate(model, masked, **rule, **options).items():
                rows.append((name, unit, masked.name, confusion.miou))
    table = pd.DataFrame(rows, columns=["variant", "unit", "set", "mIoU"])
    index = ["variant", "unit"]
    return table.pivot_table(index=index, columns="set", values="mIoU", sort=False)


def fall(losses: pd.Series, share: int) -> tuple[float, float]:
    """The mean loss at the start and at the end of a run.

    Args:
        losses: Loss of each step.
        share: The first and the last of so many parts are taken.
    """
    part = max(1, len(losses) // share)
    return losses.iloc[:part].mean(), losses.iloc[-part:].mean()
