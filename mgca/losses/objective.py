"""What training minimises: the sum of the three levels (Eq. 8)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.config import LossConfig
from mgca.losses.lean import Comparison, compare
from mgca.losses.levels import (
    _check,
    _scores,
    area_in_pixels,
    info_nce,
    object_loss,
    pixel_loss,
    rank_in_region,
    region_loss,
)


def mgca_loss(
    pixels: Tensor,
    texts: Tensor,
    config: LossConfig | None = None,
    *,
    exclude: Tensor | None = None,
    budget: int | None = None,
) -> dict[str, Tensor]:
    """The objective of MGCA: the weighted sum of the three levels (Eq. 8, choice D8).

    Equal to the levels above up to rounding, for a fraction of their time and memory
    (:mod:`mgca.losses.lean`).

    Args:
        pixels: (B, C, H, W) pixel embeddings. texts: (B, C) text embeddings.
        config: Areas, ranks, temperature, weights and choices; the paper's by default. A level
            whose weight is 0 is not computed.
        exclude: Pairs that are no negatives, as in :func:`info_nce`.
        budget: Bytes that may be held beside the inputs and their gradients, at the price of time.

    Returns:
        The levels in use under ``"object"``, ``"region"`` and ``"pixel"``, and ``"total"``.

    Raises:
        ValueError: If the shapes do not fit each other, or the budget is too small.
    """
    config = config or LossConfig()
    _check(pixels, texts)
    return losses_of(logits_of(pixels, texts, config, budget=budget), config, exclude)


def plain_loss(
    pixels: Tensor,
    texts: Tensor,
    config: LossConfig,
    *,
    exclude: Tensor | None = None,
) -> dict[str, Tensor]:
    """What :func:`mgca_loss` computes, level by level from the functions above.

    For reading, for tests, and for the small scales, whose published numbers it gives bit for bit:
    training carries the rounding of another order of additions on to some tenths of a point.
    """
    scores = _scores(pixels, texts, config.measure, None)
    common: dict[str, Any] = {
        "measure": config.measure,
        "direction": config.direction,
        "exclude": exclude,
        "scores": scores,
    }
    regional = common | {
        "temperature": config.temperature,
        "detach_weights": config.detach_weights,
    }
    losses: dict[str, Tensor] = {}
    if config.object:
        losses["object"] = object_loss(pixels, texts, alpha=config.alpha, **regional)
    if config.region:
        losses["region"] = region_loss(
            pixels, texts, alpha=config.alpha, alpha_neg=config.alpha_neg, **regional
        )
    if config.pixel:
        losses["pixel"] = pixel_loss(
            pixels, texts, alpha=config.alpha, k=config.k, k_neg=config.k_neg, **common
        )
    return losses | {"total": _weighted(losses, config)}


def logits_of(
    pixels: Tensor,
    texts: Tensor,
    config: LossConfig,
    *,
    first: int = 0,
    budget: int | None = None,
) -> dict[str, Tensor]:
    """Logits (b, T) of b images and T texts at each level in use (Eq. 5 to 7).

    Together, the rows of all images of a batch are what :func:`losses_of` takes. They need not be
    computed at the same time, or in the same process.

    Args:
        pixels: (b, C, H, W). texts: (T, C), of all images of the batch.
        first: Text of the first of these images.
        budget: As for :func:`mgca_loss`.
    """
    size = pixels.shape[2] * pixels.shape[3]
    area = area_in_pixels(config.alpha, size)
    compared = compare(
        pixels,
        texts,
        Comparison(
            first=first,
            area=area,
            rank=rank_in_region(config.k, area),
            negative_area=area_in_pixels(config.alpha_neg, size) if config.region else 0,
            negative_rank=rank_in_region(config.k_neg, area) if config.pixel else 0,
            cosine=config.measure == "cosine",
            detach_weights=config.detach_weights,
            budget=budget,
        ),
    )
    logits = {}
    if config.object:
        objects = F.normalize(compared.objects, dim=-1)
        directions = F.normalize(texts.to(objects.dtype), dim=-1)
        logits["object"] = objects @ directions.t() / config.temperature
    if config.region:
        logits["region"] = compared.regions / config.temperature
    if config.pixel:
        logits["pixel"] = compared.ranked / math.sqrt(pixels.shape[1])
    return logits


def losses_of(
    logits: dict[str, Tensor], config: LossConfig, exclude: Tensor | None = None
) -> dict[str, Tensor]:
    """Each level's loss, and ``"total"``, from the logits (B, B) of the whole batch (Eq. 8)."""
    losses = {name: info_nce(of, config.direction, exclude) for name, of in logits.items()}
    return losses | {"total": _weighted(losses, config)}


def _weighted(losses: dict[str, Tensor], config: LossConfig) -> Tensor:
    """Eq. 8."""
    return torch.stack([getattr(config, level) * loss for level, loss in losses.items()]).sum()
