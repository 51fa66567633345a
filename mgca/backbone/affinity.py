"""Maps that pixels are grouped in, where these are not the ones that are named.

A text encoder's images need not be the best ones to say which pixels belong together: an earlier
stage of the same trunk, or an encoder that never saw a text (DINO), has clearer contours. Units are
grouped there, and their embeddings averaged and named in the joint space.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mgca.backbone.base import Backbone, BackboneUnavailable, UnsupportedBackbone
from mgca.backbone.hybrid import Hybrid
from mgca.backbone.lite import Lite
from mgca.backbone.timm_vit import TimmViT
from mgca.backbone.vit import PlainViT
from mgca.utils.network import from_hub

EARLY, TIMM = "early", "timm:"
_STAGES = 5  # of EfficientNet-Lite0: stride 16, 112 channels


def affinity_of(name: str, backbone: Backbone) -> Callable[[Tensor], Tensor]:
    """A function from normalised windows (n, 3, H, W) to a map (n, A, h, w) to group pixels in.

    Args:
        name: Name of the map: ``"early"`` is an earlier stage of the backbone's own trunk, that of
            the last block's input for a transformer; ``"timm:NAME"`` are the tokens of a vision
            transformer of timm, such as ``"timm:vit_base_patch16_224.dino"``.
        backbone: Backbone whose windows they are.

    Raises:
        ValueError: If there is no such map.
        UnsupportedBackbone: If the backbone has no earlier stage that is known.
        BackboneUnavailable: If weights cannot be had.
    """
    if name == EARLY:
        return _early(backbone)
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM), backbone)
    raise ValueError(f"affinity is early or timm:NAME, not {name!r}")


def _early(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    if isinstance(backbone, Hybrid):
        return backbone.trunk.features
    if isinstance(backbone, Lite):
        trunk = backbone.tower.trunk
        return lambda images: trunk.blocks[:_STAGES](trunk.bn1(trunk.conv_stem(images)))
    if isinstance(backbone, PlainViT | TimmViT):

        def before_last(images: Tensor) -> Tensor:
            size = tuple(side // backbone.stride for side in images.shape[-2:])
            tokens = backbone.tokens(images)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
            return tokens[:, -size[0] * size[1] :].mT.unflatten(2, size)

        return before_last
    raise UnsupportedBackbone(f"{backbone.name}: no earlier stage of its trunk is known")


def _timm(name: str, backbone: Backbone) -> Callable[[Tensor], Tensor]:
    import timm
    from timm.data import resolve_model_data_config

    with from_hub(f"the weights of {name}", BackboneUnavailable):
        network = timm.create_model(name, pretrained=True, num_classes=0, dynamic_img_size=True)
    network = network.requires_grad_(False).eval()
    config = resolve_model_data_config(network)
    ours = [torch.tensor(each)[:, None, None] for each in (backbone.mean, backbone.std)]
    theirs = [torch.tensor(config[each])[:, None, None] for each in ("mean", "std")]
    patch = network.patch_embed.feat_ratio()

    def tokens(images: Tensor) -> Tensor:
        network.to(images.device)
        mean, std, own_mean, own_std = (each.to(images) for each in (*ours, *theirs))
        size = [-(-side // patch) for side in images.shape[-2:]]
        pixels = (images * std + mean - own_mean) / own_std
        if list(images.shape[-2:]) != [side * patch for side in size]:
            pixels = torch.nn.functional.interpolate(
                pixels, [side * patch for side in size], mode="bilinear", align_corners=False
            )
        found = network.forward_features(pixels)[:, network.num_prefix_tokens :]
        return found.mT.unflatten(2, size)

    return tokens
