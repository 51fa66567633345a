"""The objective of TCL: text-grounded masks, contrasted over regions and over masked images.

Cha, Mun and Roh, "Learning to Generate Text-grounded Mask for Open-world Semantic Segmentation
from Only Image-Text Pairs", CVPR 2023 (arXiv 2212.00785), Section 3; what the paper leaves open,
such as where the areas are weighted and which masks are smoothed, is as in its released code.

Pixel embeddings ``pixels`` (B, C, H, W) and texts ``texts`` (B, C) are those of
:mod:`mgca.losses.levels`, text ``j`` describing image ``j``; ``N = H W``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.config import ObjectiveConfig
from mgca.losses.levels import check_pairs, info_nce, similarity
from mgca.losses.objective import Objective, objective

# Bound of the inverse temperature, as in CLIP.
_MAX_SCALE = 100.0
# Keeps a mask that is empty everywhere from dividing by zero.
_EMPTY = 1e-6


@dataclass(frozen=True, kw_only=True)
class TCLConfig(ObjectiveConfig):
    """Settings of TCL's objective; the defaults are the released configuration.

    Attributes:
        area_prior: Expected area of what a text describes, as a share of the image.
        area: Weight of the two area terms; 0 leaves them out, as for the other weights.
        contrast: Weight of the contrast of regions and of that of masked images.
        variation: Weight of the total variation of embeddings and of masks.
        w: Start of the learned scale of ``w cos + b``, which turns a cosine into a mask's logit.
        b: Start of the learned offset of ``w cos + b``.
        temperature: Start of the two learned temperatures of the contrasts.
        gumbel_temperature: Temperature of the relaxation behind the sampled masks.
    """

    area_prior: float = 0.4
    area: float = 0.4
    contrast: float = 0.1
    variation: float = 1.0
    w: float = 10.0
    b: float = -2.5
    temperature: float = 0.07
    gumbel_temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.area_prior <= 1:
            raise ValueError(f"area_prior is a share and must lie in (0, 1], not {self.area_prior}")
        weights = (self.area, self.contrast, self.variation)
        if not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise ValueError("the weights of the terms must not be negative, nor all zero")
        if not (0 < self.w < math.inf and math.isfinite(self.b)):
            raise ValueError(f"w must be positive and b finite, not {self.w} and {self.b}")
        for name in ("temperature", "gumbel_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


def logistic_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws from the standard logistic distribution, the difference of two Gumbel variables."""
    uniform = torch.rand(tuple(shape), generator=generator)
    # A uniform number may be exactly 0, but the noise must be finite.
    return torch.logit(uniform, eps=1e-7)


def sampled_masks(logits: Tensor, noise: Tensor, temperature: float = 1.0) -> Tensor:
    """Masks of 0 and 1 drawn from logits, with the gradient of their relaxation (Gumbel-sigmoid).

    Args:
        logits: Logits of the masks, of any shape.
        noise: Logistic noise of the same shape; 0 for the likelier value.
        temperature: Temperature of the relaxation ``sigmoid((logits + noise) / temperature)``.
    """
    soft = torch.sigmoid((logits + noise) / temperature)
    # The difference is 0: the values are the hard ones, the gradient that of the soft ones.
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())


def total_variation(maps: Tensor) -> Tensor:
    """Mean absolute difference of horizontal plus that of vertical neighbours.

    Args:
        maps: (..., H, W) maps.

    Raises:
        ValueError: If a side is a single pixel, which has no neighbour.
    """
    if min(maps.shape[-2:]) < 2:
        raise ValueError(f"total variation needs sides of 2 or more, got {tuple(maps.shape)}")
    return maps.diff(dim=-1).abs().mean() + maps.diff(dim=-2).abs().mean()


def pooled(pixels: Tensor, masks: Tensor) -> Tensor:
    """``v_ij``: the mean of image ``i``'s pixel embeddings under the mask of text ``j``.

    Args:
        pixels: (B, C, H, W) pixel embeddings, not normalised.
        masks: (B, T, N) masks, not negative.

    Returns:
        (B, T, C) mean embeddings.
    """
    weights = masks / (masks.sum(dim=-1, keepdim=True) + _EMPTY)
    # One product of (B, T, N) and (B, N, C).
    return torch.matmul(weights, pixels.flatten(2).transpose(1, 2))


@objective(TCLConfig)
class TCLObjective(Objective):
    """The weighted sum of TCL's terms, with what it learns beside the decoder.

    Its area terms are means over a batch and no rows of logits, so that it takes whole batches.

    Args:
        config: Weights and where the learned numbers start; the released ones by default.
        encode: Function of masked, normalised images (B, 3, H', W') that gives the frozen
            encoder's embeddings (B, C) of them, with gradient to the images; may be None where
            ``contrast`` is 0.

    Attributes:
        w: Learned scale of the masks ``sigmoid(w cos + b)``.
        b: Learned offset of the masks.
        feature_scale: Logarithm of the inverse temperature of the contrast of regions.
        image_scale: Logarithm of the inverse temperature of the contrast of masked images.
    """

    terms = ("area", "feature", "image", "variation")

    def __init__(
        self, config: TCLConfig | None = None, encode: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(config or TCLConfig())
        self.encode = encode
        self.needs_images = bool(self.config.contrast)
        scale = math.log(1 / self.config.temperature)
        self.w = nn.Parameter(torch.tensor(float(self.config.w)))
        self.b = nn.Parameter(torch.tensor(float(self.config.b)))
        self.feature_scale = nn.Parameter(torch.tensor(scale))
        self.image_scale = nn.Parameter(torch.tensor(scale))

    def sigmoid(self) -> tuple[float, float]:
        """``w`` and ``b`` as learned so far, for :func:`mgca.inference.scoring.sigmoid_scores`."""
        return self.w.item(), self.b.item()

    def forward(
        self,
        pixels: Tensor,
        texts: Tensor,
        *,
        exclude: Tensor | None = None,
        images: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """TCL's terms in use, not weighted, and ``"total"``, their weighted sum.

        Args:
            pixels: (B, C, H, W) pixel embeddings.
            texts: (B, C) text embeddings.
            images: (B, 3, H', W') normalised images; not needed where ``contrast`` is 0.
            noise: (B, H, W) of :func:`logistic_noise` for the sampled masks of the images' own
                texts; None for no noise, the masks are then the likelier ones.
            exclude: (B, B) bool, pairs off the diagonal that are no negatives, because the text
                is known to describe the image too, as in :func:`mgca.losses.levels.info_nce`.

        Returns:
            ``"area"``: the distance of the mean positive mask from the prior, plus the mean
            negative mask. ``"feature"`` and ``"image"``: the contrasts of regions and of masked
            images. ``"variation"``: total variation of the embeddings plus that of the masks.
            ``"total"``. Terms whose weight is 0 are not computed.

        Raises:
            ValueError: If the shapes do not fit each other, or the contrast lacks images or the
                encoder.
        """
        config = self.config
        self._check(pixels, texts, images)
        logits = self.w * similarity(pixels, texts, "cosine") + self.b  # (B, B, N)
        masks = torch.sigmoid(logits)
        losses: dict[str, Tensor] = {}
        total = logits.new_zeros(())
        if config.area:
            losses["area"] = area_loss(masks, config.area_prior, exclude)
            total = total + config.area * losses["area"]
        if config.contrast:
            losses["feature"] = self._feature_loss(pixels, texts, masks, exclude)
            to_own_text = logits.diagonal(dim1=0, dim2=1).t()  # (B, N)
            to_own_text = to_own_text.unflatten(1, pixels.shape[2:])
            losses["image"] = self._image_loss(to_own_text, texts, images, noise, exclude)
            total = total + config.contrast * (losses["feature"] + losses["image"])
        if config.variation:
            maps = masks.unflatten(2, pixels.shape[2:])
            losses["variation"] = total_variation(pixels) + total_variation(maps)
            total = total + config.variation * losses["variation"]
        return losses | {"total": total}

    def _feature_loss(
        self, pixels: Tensor, texts: Tensor, masks: Tensor, exclude: Tensor | None
    ) -> Tensor:
        """Contrast of the region of image ``i`` under text ``j`` with that text, over all pairs."""
        regions = F.normalize(pooled(pixels, masks), dim=-1)
        cosines = (regions * F.normalize(texts, dim=-1)).sum(dim=-1)
        return info_nce(_inverse(self.feature_scale) * cosines, exclude=exclude)

    def _image_loss(
        self,
        logits: Tensor,
        texts: Tensor,
        images: Tensor,
        noise: Tensor | None,
        exclude: Tensor | None,
    ) -> Tensor:
        """Contrast of the images, cut out by the sampled masks of their own texts, with the texts.

        Args:
            logits: (B, H, W) logits of the masks of the images' own texts.
            texts: (B, C) text embeddings.
            images: (B, 3, H', W') normalised images.
            noise: (B, H, W) logistic noise, or None for none.
            exclude: (B, B) bool, pairs off the diagonal that are no negatives.
        """
        noise = torch.zeros_like(logits) if noise is None else noise
        masks = sampled_masks(logits, noise, self.config.gumbel_temperature)[:, None]
        masks = F.interpolate(masks, images.shape[-2:], mode="nearest")
        embeddings = self.encode(masks.to(images.dtype) * images).to(texts.dtype)
        cosines = F.normalize(embeddings, dim=-1) @ F.normalize(texts, dim=-1).t()
        return info_nce(_inverse(self.image_scale) * cosines, exclude=exclude)

    def _check(self, pixels: Tensor, texts: Tensor, images: Tensor | None) -> None:
        check_pairs(pixels, texts)
        if not self.config.contrast:
            return
        if self.encode is None or images is None:
            raise ValueError(
                "TCL's contrast needs the images of the batch and the frozen encoder of images"
            )
        if images.ndim != 4 or len(images) != len(pixels):
            raise ValueError(
                f"expected {len(pixels)} images (B, 3, H', W'), got {tuple(images.shape)}"
            )


def area_loss(masks: Tensor, prior: float, exclude: Tensor | None = None) -> Tensor:
    """``|mean of the positive masks - prior| + mean of the negative masks``.

    Args:
        masks: (B, B, N) masks in [0, 1], those of the images' own texts on the diagonal.
        prior: Expected share of the image.
        exclude: (B, B) bool, pairs that are no negatives, as in :meth:`TCLObjective.forward`; with
            no negative left, their mean is 0.
    """
    areas = masks.mean(dim=-1)
    negative = ~torch.eye(len(areas), dtype=torch.bool, device=areas.device)
    if exclude is not None:
        negative &= ~exclude
    mean = (areas * negative).sum() / negative.sum().clamp(min=1)
    return (areas.diagonal().mean() - prior).abs() + mean


def _inverse(scale: Tensor) -> Tensor:
    """The inverse temperature, bounded, whose logarithm is learned."""
    return scale.exp().clamp(max=_MAX_SCALE)
