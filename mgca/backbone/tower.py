"""Dense features of convolutional towers: their map, through their own projection."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mgca.backbone.base import OpenClip, UnsupportedBackbone, state_digest

if TYPE_CHECKING:
    from open_clip.timm_model import TimmModel


def project_positions(tower: "TimmModel", features: Tensor) -> Tensor:
    """The positions of a map (B, F, h, w), each through the tower's pooling-and-projection head.

    A position is treated as an image of one feature, of which the pooling is that feature.
    """
    batch, channels, height, width = features.shape
    single = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
    joint = tower.head(tower.trunk.forward_head(single))
    return joint.view(batch, height, width, -1).permute(0, 3, 1, 2)


class ConvTower(OpenClip):
    """An open_clip model whose image tower is a convolutional timm network or CLIP's ResNet.

    Takes what :class:`mgca.backbone.base.OpenClip` takes.

    Raises:
        UnsupportedBackbone: If the tower has no feature map, or pools it by attention that no
            single position can pass through.
    """

    def __init__(self, name: str, model: nn.Module, tokenizer: Any, **statistics: Any) -> None:
        resnet = _is_resnet(name, model.visual)
        super().__init__(name, model, tokenizer, **statistics)
        self.is_resnet = resnet
        self.stride, self.dim = _stride_and_dim(name, self)
        self.digest = self.trunk_digest = state_digest(model.visual)

    def features(self, images: Tensor) -> Tensor:
        visual = self.model.visual
        if self.is_resnet:
            maps = visual.stem(images)
            for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
                maps = stage(maps)
            return maps
        return visual.trunk.forward_features(images)

    def project(self, features: Tensor) -> Tensor:
        visual = self.model.visual
        if self.is_resnet:
            # Attention pooling of a single position is its value and output projection.
            pool = visual.attnpool
            joint = pool.c_proj(pool.v_proj(features.permute(0, 2, 3, 1)))
            return joint.permute(0, 3, 1, 2)
        return project_positions(visual, features)


def _is_resnet(name: str, visual: nn.Module) -> bool:
    """Whether a tower is CLIP's ResNet or a network of timm; refuses all others."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel

    if isinstance(visual, ModifiedResNet):
        return True
    if not isinstance(visual, TimmModel):
        raise UnsupportedBackbone(f"{name}: no dense path for a {type(visual).__name__}")
    if "pool" in dict(visual.head.named_children()):
        raise UnsupportedBackbone(
            f"{name}: its attention pooling is fixed to one image size and mixes positions"
        )
    return False


@torch.no_grad()
def _stride_and_dim(name: str, backbone: ConvTower) -> tuple[int, int]:
    """Stride and channels, by trying a small image; refuses towers without a feature map."""
    side = 128
    try:
        maps = backbone.features(torch.zeros(1, 3, side, side))
        stride = side // maps.shape[-1]
        if maps.ndim != 4 or maps.shape[-2] != maps.shape[-1] or maps.shape[-1] * stride != side:
            raise UnsupportedBackbone(f"{name}: the tower gives tokens, not a feature map")
        return stride, backbone.project(maps).shape[1]
    except (RuntimeError, AssertionError, AttributeError) as error:
        raise UnsupportedBackbone(f"{name}: the tower gives no feature map ({error})") from error
