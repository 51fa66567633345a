"""The objective that training minimises, which a configuration's class stands for.

:class:`MGCA` is the sum of the three levels (Eq. 8). A file of one's own adds another::

    @dataclass(frozen=True, kw_only=True)
    class Mine(LossConfig):
        weight: float = added(0.1)

    @objective(Mine)
    class MyObjective(MGCA):
        ...
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.config import LossConfig, ObjectiveConfig
from mgca.losses import lean
from mgca.losses.levels import (
    area_in_pixels,
    check_pairs,
    info_nce,
    object_logits,
    pixel_logits,
    rank_in_region,
    region_logits,
    similarity,
)

if TYPE_CHECKING:
    from mgca.backbone.base import Backbone

T = TypeVar("T", bound="type[Objective]")
_OBJECTIVES: dict[type[ObjectiveConfig], "type[Objective]"] = {}


def objective(config: type[ObjectiveConfig]) -> Callable[[T], T]:
    """Register the class below as the objective of a class of configurations.

    Args:
        config: Dataclass of its settings, which no other objective has.
    """

    def register(kind: T) -> T:
        _OBJECTIVES[config] = kind
        return kind

    return register


def registered() -> list[type[ObjectiveConfig]]:
    """The classes of configurations that have an objective."""
    return list(_OBJECTIVES)


def make_objective(config: ObjectiveConfig) -> "Objective":
    """The objective of a configuration.

    Args:
        config: An instance of a registered class.

    Raises:
        ValueError: If no objective is registered for the configuration's class.
    """
    kind = _OBJECTIVES.get(type(config))
    if kind is None:
        raise ValueError(
            f"no objective is registered for {type(config).__qualname__}: put "
            f"@objective({type(config).__qualname__}) above its class"
        )
    return kind(config)


class Objective(nn.Module):
    """A training objective: gives the losses of a batch of pixel and text embeddings.

    A subclass whose losses are made of rows of logits, one row for each image, states
    :meth:`logits` and gets everything else: batches on several processes, and in parts. One whose
    losses are not overrides :meth:`forward` and says ``whole_batch``.

    Args:
        config: Settings of the objective.

    Attributes:
        terms: Names of the losses that it reports beside ``"total"``: columns of ``metrics.csv``.
        needs_images: Whether :meth:`forward` takes the images themselves, not their features alone.
        whole_batch: Whether :meth:`forward` must see all images of a batch at once, in one process.
        encode: Function of images (B, 3, H', W') that gives the frozen encoder's embeddings (B, C)
            of them; set by the trainer where ``needs_images``.
        budget: Bytes that the losses may hold beside their inputs, at the price of time; None for
            as many as speed them up.
    """

    terms: tuple[str, ...] = ()
    needs_images: bool = False
    whole_batch: bool = False
    encode: Callable[[Tensor], Tensor] | None = None
    budget: int | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # What is not made of rows is one whole, whether its author says so or not.
        if "forward" in cls.__dict__:
            cls.whole_batch = True

    def __init__(self, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config: Any = config

    def prepare(self, backbone: "Backbone") -> None:
        """Take what the losses need of the frozen encoders; called once before training.

        Args:
            backbone: Frozen encoders, on the device of the training.
        """

    def sigmoid(self) -> tuple[float, float] | None:
        """``w`` and ``b`` that turn cosines into scores, where the objective learns such."""
        return None

    def logits(self, pixels: Tensor, texts: Tensor, first: int = 0) -> dict[str, Tensor]:
        """By term, the logits (b, T) of some images with the texts of the whole batch.

        Args:
            pixels: (b, C, H, W) pixel embeddings of these images.
            texts: (T, C) embeddings of the texts of the whole batch.
            first: Index of the text of the first of these images.
        """
        raise NotImplementedError(f"{type(self).__qualname__} states no logits")

    def combine(
        self, logits: dict[str, Tensor], exclude: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Each term's loss, and ``"total"``, from the logits (B, B) of the whole batch.

        The total is the sum of the losses weighted by the configuration's fields of their names,
        where it has such, and by 1 where it has none (Eq. 8).

        Args:
            logits: Rows of all images, as :meth:`logits` gives them, by term.
            exclude: Pairs that are no negatives, as in :func:`mgca.losses.levels.info_nce`.
        """
        direction = getattr(self.config, "direction", "both")
        losses = {name: info_nce(of, direction, exclude) for name, of in logits.items()}
        weighted = [getattr(self.config, name, 1.0) * loss for name, loss in losses.items()]
        return losses | {"total": torch.stack(weighted).sum()}

    def forward(
        self,
        pixels: Tensor,
        texts: Tensor,
        *,
        exclude: Tensor | None = None,
        images: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each term's loss, and ``"total"``, of a whole batch.

        Args:
            pixels: (B, C, H, W) pixel embeddings.
            texts: (B, C) text embeddings, text ``i`` describing image ``i``.
            exclude: (B, B) bool, pairs off the diagonal that are no negatives.
            images: (B, 3, H', W') normalised images, for an objective that needs them.
            noise: (B, H, W) logistic noise, for an objective that draws masks.

        Raises:
            ValueError: If the shapes do not fit each other.
        """
        check_pairs(pixels, texts)
        return self.combine(self.logits(pixels, texts), exclude)


@objective(LossConfig)
class MGCA(Objective):
    """The objective of MGCA: the weighted sum of the three levels (Eq. 8, choice D8).

    Computed from :mod:`mgca.losses.levels`, or, where the similarities of a batch take more than
    256 MiB, from :mod:`mgca.losses.lean`: the same up to rounding, in a fraction of the memory.

    Args:
        config: Areas, ranks, temperature, weights and choices; the paper's by default. A level
            whose weight is 0 is not computed.
        lean: Whether the lean form computes; None leaves it to the size of the batch.
        budget: Bytes that may be held beside the inputs and their gradients; the lean form keeps
            it, and computes where it is given.
    """

    terms = ("object", "region", "pixel")

    def __init__(
        self,
        config: LossConfig | None = None,
        *,
        lean: bool | None = None,
        budget: int | None = None,
    ) -> None:
        super().__init__(config or LossConfig())
        self.lean, self.budget = lean, budget

    def is_lean(self, texts: int, pixels: int) -> bool:
        """Whether the lean form computes a batch.

        Args:
            texts: Number of images, and of texts, in the whole batch.
            pixels: Number of pixel embeddings of an image.
        """
        if self.lean is None:
            return self.budget is not None or 4 * texts**2 * pixels > lean.WORKSPACE
        return self.lean

    def logits(self, pixels: Tensor, texts: Tensor, first: int = 0) -> dict[str, Tensor]:
        # Similarities and softmaxes over hundreds of pixels need float32.
        with torch.autocast(pixels.device.type, enabled=False):
            pixels, texts = (x if x.dtype == torch.float64 else x.float() for x in (pixels, texts))
            if self.is_lean(len(texts), pixels.shape[2] * pixels.shape[3]):
                return self._lean(pixels, texts, first)
            return self._plain(pixels, texts, first)

    def _plain(self, pixels: Tensor, texts: Tensor, first: int) -> dict[str, Tensor]:
        """Logits of the three levels, in plain operations as the equations state them."""
        config = self.config
        common = {
            "alpha": config.alpha,
            "first": first,
            "scores": similarity(pixels, texts, config.measure),
        }
        soft = common | {
            "temperature": config.temperature,
            "detach_weights": config.detach_weights,
        }
        logits = {}
        if config.object:
            logits["object"] = object_logits(pixels, texts, **soft)
        if config.region:
            logits["region"] = region_logits(pixels, texts, alpha_neg=config.alpha_neg, **soft)
        if config.pixel:
            logits["pixel"] = pixel_logits(pixels, texts, k=config.k, k_neg=config.k_neg, **common)
        return logits

    def _lean(self, pixels: Tensor, texts: Tensor, first: int) -> dict[str, Tensor]:
        """Logits of the three levels, computed a few images at a time."""
        config, size = self.config, pixels.shape[2] * pixels.shape[3]
        area = area_in_pixels(config.alpha, size)
        compared = lean.compare(
            pixels,
            texts,
            lean.Comparison(
                first=first,
                area=area,
                rank=rank_in_region(config.k, area),
                negative_area=area_in_pixels(config.alpha_neg, size) if config.region else 0,
                negative_rank=rank_in_region(config.k_neg, area) if config.pixel else 0,
                cosine=config.measure == "cosine",
                detach_weights=config.detach_weights,
                budget=self.budget,
            ),
        )
        logits = {}
        if config.object:
            objects = F.normalize(compared.objects, dim=-1)
            directions = F.normalize(texts, dim=-1)
            logits["object"] = objects @ directions.t() / config.temperature
        if config.region:
            logits["region"] = compared.regions / config.temperature
        if config.pixel:
            logits["pixel"] = compared.ranked / pixels.shape[1] ** 0.5
        return logits

    def forms_agree(self, dim: int, rows: int, columns: int, images: int = 4) -> bool:
        """Whether the lean form computes what the levels state, tried on a few images of noise.

        Args:
            dim: Number of channels ``C``.
            rows: Rows of the map of pixel embeddings.
            columns: Columns of the map of pixel embeddings.
            images: Number of images to try.
        """
        noise = torch.Generator().manual_seed(0)
        pixels = torch.randn(images, dim, rows, columns, generator=noise, dtype=torch.float64)
        texts = torch.randn(images, dim, generator=noise, dtype=torch.float64)
        pixels.requires_grad_()
        by_form = []
        for form in (self._plain, self._lean):
            losses = self.combine(form(pixels, texts, 0))
            (gradient,) = torch.autograd.grad(losses["total"], pixels)
            by_form.append((losses, gradient))
        (plain, of_plain), (lean_, of_lean) = by_form
        same = plain.keys() == lean_.keys()
        same = same and all(torch.isclose(plain[name], lean_[name], rtol=1e-6) for name in plain)
        return bool(same and (of_plain - of_lean).norm() <= 1e-6 * of_plain.norm())


def mgca_loss(
    pixels: Tensor,
    texts: Tensor,
    config: LossConfig | None = None,
    *,
    exclude: Tensor | None = None,
    budget: int | None = None,
) -> dict[str, Tensor]:
    """MGCA's losses of a batch, as :class:`MGCA` computes them (Eq. 8).

    Args:
        pixels: (B, C, H, W) pixel embeddings.
        texts: (B, C) text embeddings.
        config: Areas, ranks, temperature, weights and choices; the paper's by default.
        exclude: Pairs that are no negatives, as in :func:`mgca.losses.levels.info_nce`.
        budget: Bytes that may be held beside the inputs and their gradients, at the price of time.

    Returns:
        The levels in use under ``"object"``, ``"region"`` and ``"pixel"``, and ``"total"``.

    Raises:
        ValueError: If the shapes do not fit each other, or the budget is too small.
    """
    return MGCA(config, budget=budget)(pixels, texts, exclude=exclude)
