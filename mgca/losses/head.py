"""The objective of the photographs' head: what its pixels are contrasted with, level by level.

The head is the map that joins an image encoder to a text encoder. CLIP's was trained by the
contrast of whole images with captions; here the same head on the same features is trained by that
contrast or by the three levels of MGCA (Eq. 8), which is Table 3's question asked of the encoder.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from mgca.config import LossConfig
from mgca.losses.levels import info_nce
from mgca.losses.objective import MGCA, objective

if TYPE_CHECKING:
    from mgca.backbone.base import Backbone


@dataclass(frozen=True, kw_only=True)
class HeadConfig(LossConfig):
    """Settings of the head's objective: those of MGCA's levels, and two terms more.

    Attributes:
        image: Weight of the contrast of whole images with captions, as CLIP is trained; with it
            the levels' weights may all be 0.
        classes: Weight of the term that makes a position's similarities to the texts of the image
            encoder's classes agree with the classifier there. It keeps the words that captions
            lack.
    """

    image: float = 0.0
    classes: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 <= weight < math.inf for weight in (self.image, self.classes)):
            raise ValueError("the weights image and classes must not be negative")
        if self.object or self.region or self.pixel or not self.image:
            super().__post_init__()


@objective(HeadConfig)
class HeadObjective(MGCA):
    """The weighted sum of image, object, region and pixel level, and of the classes' term."""

    terms = ("image", *MGCA.terms, "classes")

    def prepare(self, backbone: "Backbone") -> None:
        """Take the texts of the classes from a ``lite``.

        Raises:
            ValueError: If the backbone has no head that is trained.
        """
        texts = getattr(backbone, "class_texts", None)
        if texts is None:
            raise ValueError(f"{backbone.name} has no head that is trained: only lite has")
        self.class_texts, self.class_temperature = texts, backbone.temperature

    def forward(
        self,
        pixels: Tensor,
        texts: Tensor,
        *,
        exclude: Tensor | None = None,
        images: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each term's loss, and ``"total"``.

        The arguments are those of :meth:`mgca.losses.objective.Objective.forward`.
        """
        config, learned = self.config, self.class_texts.shape[1]
        # What is learned is contrasted; the classes' half has nothing to learn.
        roots, pixels, texts = pixels[:, learned:], pixels[:, :learned], texts[:, :learned]
        texts = F.normalize(texts, dim=-1)
        losses: dict[str, Tensor] = {}
        if config.object or config.region or config.pixel:
            losses = super().forward(pixels, texts, exclude=exclude)
        total = losses.pop("total", pixels.new_zeros(()))
        if config.image:
            whole = F.normalize(pixels.mean(dim=(2, 3)), dim=-1)
            losses["image"] = info_nce(
                whole @ texts.t() / config.temperature, config.direction, exclude
            )
            total = total + config.image * losses["image"]
        if config.classes:
            losses["classes"] = self.classes(pixels, roots)
            total = total + config.classes * losses["classes"]
        return losses | {"total": total}

    def classes(self, pixels: Tensor, roots: Tensor) -> Tensor:
        """Cross-entropy between the classifier's probabilities and the softmax over class texts.

        Args:
            pixels: (B, 384, H, W) aligned channels, of any norm.
            roots: (B, 1000, H, W) square roots of the probabilities, of any norm; 0 where they are
                not to be compared.
        """
        b, y, x = roots.abs().amax(dim=1).nonzero(as_tuple=True)
        probabilities = F.normalize(roots.detach()[b, :, y, x], dim=1).square()
        logits = F.normalize(pixels[b, :, y, x], dim=1) @ self.class_texts.t()
        return F.cross_entropy(logits / self.class_temperature, probabilities)
