"""The interface of a frozen backbone: dense image features and text embeddings."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class UnsupportedBackbone(ValueError):
    """The dense path is not defined for this architecture."""


class BackboneUnavailable(RuntimeError):
    """The backbone's weights could not be had."""


class Backbone(nn.Module, ABC):
    """A frozen image encoder with dense output, and the text encoder it is aligned with.

    Attributes:
        name: Name of the backbone, as given to :func:`mgca.backbone.load_backbone`.
        dim: Number of channels ``C`` of both embeddings.
        stride: Pixels of the image per dense feature.
        mean: Mean of each channel, for RGB in [0, 1], that images are normalised with.
        std: Standard deviation of each channel that images are normalised with.
        temperature: Temperature of the softmax over classes that the encoders were trained with.
        trunk_digest: Digest of what :meth:`features` depends on; part of the key of cached
            features.
        digest: Digest of what :meth:`dense` depends on; a decoder is trained for one digest.
        text_digest: Digest of the text encoder's weights.
        window: Side of the sliding window, and of an image's shorter side, that models use unless
            told otherwise, in pixels.
        last_block: Variant of a vision transformer's last block (choice D1).
        positions: How positional embeddings are resized for another grid, one of
            ``mgca.config.POSITIONS``. May be set; encoders without any ignore it.
        sigmoid: Scale and bias of the sigmoid that the encoders were trained with, as SigLIP; None
            for those that were trained with a softmax.
        learned: Number of leading channels that a decoder changes, upsampling the others as they
            are; None for all.
    """

    name: str
    dim: int
    stride: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    temperature: float
    trunk_digest: str
    digest: str
    text_digest: str
    window: int = 448
    last_block: str = "value"
    positions: str = "antialiased"
    sigmoid: tuple[float, float] | None = None
    learned: int | None = None

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Trunk features (B, F, h, w) of normalised images (B, 3, H, W)."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Dense features (B, C, h, w) in the joint space, of trunk features (B, F, h, w).

        Each position is projected alone.
        """

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text embeddings (n, C), not normalised. Texts beyond the context are cut there."""

    def dense(self, images: Tensor) -> Tensor:
        """Dense features ``E_v(x)`` (B, C, H / stride, W / stride) of Eq. 1.

        Args:
            images: (B, 3, H, W) images, normalised with ``mean`` and ``std``.

        Raises:
            ValueError: If ``H`` or ``W`` is not a multiple of the stride.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride or not (height and width):
            raise ValueError(
                f"{self.name} takes images whose sides are multiples of {self.stride}, "
                f"not {height}x{width}"
            )
        return self.project(self.features(images))

    def freeze(self) -> "Backbone":
        """The backbone itself, in evaluation mode and with no parameter that takes a gradient."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: batch statistics of a frozen encoder must not drift."""
        return super().train(False)


class OpenClip(Backbone):
    """An open_clip model, frozen: what is common to all its image towers.

    Args:
        name: Name of the model, for messages.
        model: The open_clip model.
        tokenizer: Function of texts that gives token ids (n, context).
        mean: Mean of each channel in the model's image preprocessing.
        std: Standard deviation of each channel in the model's image preprocessing.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        tokenizer: Any,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.mean, self.std = tuple(mean), tuple(std)
        self.temperature = float(1 / model.logit_scale.detach().exp())
        self.freeze()
        self.text_digest = state_digest(model)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(check_texts(texts))
        return self.model.encode_text(tokens.to(next(self.parameters()).device))


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list, after checking that there is one and that none is empty."""
    if isinstance(texts, str):
        raise TypeError("expected a list of texts, not one string")
    texts = list(texts)
    if not texts:
        raise ValueError("expected at least one text")
    for position, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text {position} is empty: {text!r}")
    return texts


def state_digest(module: nn.Module) -> str:
    """12 hexadecimal digits that name a module's parameters and buffers."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(_bytes(value))
    return digest.hexdigest()[:12]


def tensor_digest(tensor: Tensor) -> str:
    """12 hexadecimal digits that name a tensor's values."""
    return hashlib.sha256(_bytes(tensor)).hexdigest()[:12]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
