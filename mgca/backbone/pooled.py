"""Embeddings of whole images by a frozen encoder, with gradient to the images.

TCL contrasts images cut out by its masks: gradient reaches the masks through the frozen encoder.
Nothing here is trained, and nothing of the backbone is changed.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mgca.backbone.base import Backbone
from mgca.backbone.hybrid import Hybrid
from mgca.backbone.lite import Lite
from mgca.backbone.timm_vit import TimmViT
from mgca.backbone.vit import PlainViT


def global_encoder(backbone: Backbone, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """A function that gives a frozen backbone's embeddings of whole images.

    Args:
        backbone: The backbone. A vision transformer gives its class token (or whatever it pools),
            the last block as trained; others give the projection of their mean feature, which is
            what their tower was trained with.
        precision: Number format, ``"float32"`` for the backbone's own, or ``"bfloat16"``.

    Returns:
        Normalised images (B, 3, H, W), of sides that the backbone's stride divides, to embeddings
        (B, C), not normalised, in float32 or the images' type. Gradient reaches the images.
    """
    embed = _embedding(backbone)

    def encode(images: Tensor) -> Tensor:
        enabled = precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=enabled):
            return embed(images).to(images.dtype)

    return encode


def global_embedding(backbone: Backbone, images: Tensor) -> Tensor:
    """The embeddings (B, C) of a few images (B, 3, H, W), as :func:`global_encoder` gives them."""
    return global_encoder(backbone)(images)


def _embedding(backbone: Backbone) -> Callable[[Tensor], Tensor]:
    if isinstance(backbone, Hybrid):
        trunk = folded(backbone.trunk)
        # The tokens of a plain transformer whose image is the trunk's features.
        return lambda images: pooled_token(
            backbone, PlainViT.tokens(backbone, trunk.features(images))
        )
    if isinstance(backbone, TimmViT):
        return backbone.embed
    if isinstance(backbone, PlainViT) and backbone.model.visual.attn_pool is not None:
        return lambda images: backbone.model.visual(images)[0]
    if isinstance(backbone, PlainViT):
        return lambda images: pooled_token(backbone, backbone.tokens(images))
    if isinstance(backbone, Lite):
        network = folded(backbone.tower.trunk)
        return lambda images: _project_mean(
            backbone,
            network.forward_features(images.contiguous(memory_format=torch.channels_last)),
        )
    return lambda images: _project_mean(backbone, backbone.features(images))


def pooled_token(backbone: PlainViT, tokens: Tensor) -> Tensor:
    """Image embeddings (B, C) made of all tokens (B, 1 + h * w, width) before the last block.

    This is open_clip's own forward pass. Where the class token alone is pooled, only its row of
    the last attention and of the last MLP is computed.
    """
    visual = backbone.model.visual
    block = visual.transformer.resblocks[-1]
    if visual.pool_type == "tok":
        normed = block.ln_1(tokens)
        attended = block.attn(normed[:, :1], normed, normed, need_weights=False)[0]
        token = tokens[:, :1] + block.ls_1(attended)
        token = token + block.ls_2(block.mlp(block.ln_2(token)))
        return visual.ln_post(token[:, 0]) @ visual.proj
    patches = block(tokens)[:, 1:]
    if visual.final_ln_after_pool:
        return visual.ln_post(patches.mean(dim=1)) @ visual.proj
    return visual.ln_post(patches).mean(dim=1) @ visual.proj


def folded(network: nn.Module) -> nn.Module:
    """A copy of a frozen EfficientNet, or of its first stages, without batch normalisation.

    Its fixed scale and shift are folded into the convolution before it: twice as fast with a
    gradient to the images, equal but for rounding.
    """
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        names = [name for name, _ in module.named_children()]
        for first, second in zip(names, names[1:], strict=False):
            convolution, norm = getattr(module, first), getattr(module, second)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                # timm keeps the activation inside the normalisation.
                setattr(module, second, getattr(norm, "act", nn.Identity()))
    return network.to(memory_format=torch.channels_last).requires_grad_(False).eval()


def _project_mean(backbone: Backbone, features: Tensor) -> Tensor:
    """(B, C): the projection of the mean over positions of trunk features (B, F, h, w)."""
    return backbone.project(features.mean(dim=(2, 3), keepdim=True))[:, :, 0, 0]
