"""Dense features of timm's vision transformers behind open_clip: SigLIP, EVA, PE, ViTamin, others.

One path for all: every block but the last as it is; the last block changed as for CLIP's own
(choice D1); the trunk's norm; tokens that stand for no place dropped. Then each position is treated
as an image of one token, by the model's own pooling and head. So an image of a single patch, which
has nothing else to attend to, has exactly the embedding that the model gives it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.backbone.base import OpenClip, UnsupportedBackbone, state_digest
from mgca.backbone.last_block import attended_values, check_last_block
from mgca.backbone.vit import interpolate_positions
from mgca.config import LAST_BLOCKS, LastBlock


def is_timm_vit(visual: nn.Module) -> bool:
    """Whether an image tower of open_clip is a vision transformer of timm."""
    trunk = getattr(visual, "trunk", None)
    return hasattr(trunk, "blocks") and hasattr(trunk, "_pos_embed")


class TimmViT(OpenClip):
    """An open_clip model whose image tower is a vision transformer of timm.

    Takes what :class:`mgca.backbone.base.OpenClip` takes, and besides:

    Args:
        last_block: Variant of the last block, one of :data:`mgca.config.LAST_BLOCKS`.

    Raises:
        UnsupportedBackbone: If its last block is none of those that are known.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        tokenizer: Any,
        *,
        last_block: str = "value",
        **statistics: Any,
    ) -> None:
        check_last_block(last_block)
        trunk = model.visual.trunk
        _require_known(name, trunk)
        super().__init__(name, model, tokenizer, **statistics)
        self.last_block = last_block
        self.sigmoid = learned_sigmoid(model)
        self.digest = self.trunk_digest = f"{state_digest(model.visual)}-{last_block}"
        _take_any_size(trunk)
        self.stride = trunk.patch_embed.feat_ratio()
        with torch.no_grad():
            like = trunk.blocks[-1].norm1.weight
            self.dim = self.project(like.new_zeros(1, trunk.num_features, 1, 1)).shape[1]

    def tokens(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """All tokens (B, prefix + h * w, width) before the last block, and what blocks also take.

        The second are the rotary embeddings, where the model has some.
        """
        trunk = self.model.visual.trunk
        patches = trunk.patch_embed(images)
        if getattr(trunk, "rope", None) is not None:
            trunk.rope.update_feat_shape(list(patches.shape[1:3]))
        if self.positions == "plain" and getattr(trunk, "pos_embed", None) is not None:
            placed = self._placed_plainly(patches)
        else:
            placed = trunk._pos_embed(patches)
        tokens, rope = placed if isinstance(placed, tuple) else (placed, None)
        also = {} if rope is None else {"rope": rope}
        tokens = trunk.norm_pre(tokens)
        for block in trunk.blocks[:-1]:
            tokens = block(tokens, **also)
        return tokens, also

    def _placed_plainly(self, patches: Tensor) -> Any:
        """Patches (B, h, w, width) as the trunk places them, its positions resized by our rule."""
        trunk = self.model.visual.trunk
        trained, grid = trunk.pos_embed, trunk.patch_embed.grid_size
        prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
        size = (patches.shape[1], patches.shape[2])
        resized = interpolate_positions(trained[0], grid, size, "plain", prefix)
        try:
            trunk.pos_embed = nn.Parameter(resized[None], requires_grad=False)
            trunk.patch_embed.grid_size = size  # so that timm resizes nothing
            return trunk._pos_embed(patches)
        finally:
            trunk.pos_embed, trunk.patch_embed.grid_size = trained, grid

    def features(self, images: Tensor) -> Tensor:
        trunk = self.model.visual.trunk
        size = tuple(side // self.stride for side in images.shape[-2:])
        tokens, also = self.tokens(images)
        kind = LAST_BLOCKS[self.last_block]
        tokens = _last(trunk.blocks[-1], tokens, size, kind, trunk.num_prefix_tokens, also)
        return trunk.norm(tokens).transpose(1, 2).unflatten(2, size)

    def project(self, features: Tensor) -> Tensor:
        visual = self.model.visual
        single = features.permute(0, 2, 3, 1).flatten(0, 2)[:, None]
        if getattr(visual.trunk, "attn_pool", None) is None and visual.trunk.global_pool != "token":
            # What is averaged are the tokens after those that stand for no place.
            single = single.expand(-1, visual.trunk.num_prefix_tokens + 1, -1)
        joint = visual.head(visual.trunk.forward_head(single))
        batch, _, height, width = features.shape
        return joint.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def embed(self, images: Tensor) -> Tensor:
        """The model's own embeddings (B, C) of whole images, its last block as trained."""
        visual = self.model.visual
        tokens, also = self.tokens(images)
        tokens = visual.trunk.norm(visual.trunk.blocks[-1](tokens, **also))
        return visual.head(visual.trunk.forward_head(tokens))


def learned_sigmoid(model: nn.Module) -> tuple[float, float] | None:
    """Scale and bias of the sigmoid that a model such as SigLIP was trained with; else None."""
    bias = getattr(model, "logit_bias", None)
    if bias is None:
        return None
    return float(model.logit_scale.detach().exp()), float(bias.detach())


def _require_known(name: str, trunk: nn.Module) -> None:
    """Refuse, by name, a transformer whose last block is not one of those that are known."""
    from timm.layers import Attention, AttentionRope
    from timm.models.eva import EvaAttention, EvaBlock, EvaBlockPostNorm
    from timm.models.vision_transformer import Block

    block = trunk.blocks[-1]
    known = isinstance(block, Block | EvaBlock | EvaBlockPostNorm)
    if not known or not isinstance(block.attn, Attention | AttentionRope | EvaAttention):
        raise UnsupportedBackbone(
            f"{name}: its last block, {type(block).__name__}, is not a standard attention block"
        )
    if block.attn.gate is not None or getattr(block.attn, "num_kv_groups", 1) > 1:
        raise UnsupportedBackbone(f"{name}: the attention of its last block has gates or groups")
    if getattr(trunk, "rope_mixed", False):
        raise UnsupportedBackbone(f"{name}: each of its blocks has rotary embeddings of its own")


def _take_any_size(trunk: nn.Module) -> None:
    """Let a transformer take images of any size, its positions resized for each.

    As if it had been made with timm's ``dynamic_img_size``, which open_clip does not ask for.
    """
    from timm.layers import Format

    trunk.dynamic_img_size = True
    embed = trunk.patch_embed
    embed.flatten, embed.output_fmt, embed.strict_img_size = False, Format.NHWC, False
    inner = getattr(embed, "backbone", None)
    if inner is not None and hasattr(inner, "strict_img_size"):
        inner.strict_img_size = False


def _last(
    block: Any,
    tokens: Tensor,
    size: tuple[int, int],
    kind: LastBlock,
    prefix: int,
    also: dict[str, Tensor],
) -> Tensor:
    """Patch tokens (B, h * w, width) after a changed last block, as
    :func:`mgca.backbone.last_block.last_block`."""
    if kind == LAST_BLOCKS["attention"]:
        return block(tokens, **also)[:, prefix:]
    if kind.attention == "self":
        # Images of one token each, whatever the block is made of.
        tokens = tokens[:, prefix:]
        single = tokens.flatten(0, 1)[:, None]
        after = block(single) if kind.mlp else _attention(block, single, block.attn)
        return after.view_as(tokens)

    def attend(x: Tensor) -> Tensor:
        query, key, value = _heads(block.attn, x, **also)
        joint = attended_values(query, key, value, size, kind.attention, prefix)
        return block.attn.proj(block.attn.norm(joint.transpose(1, 2).flatten(2)))

    attended = _attention(block, tokens, attend)
    if kind.residual:
        attended = tokens + attended
    if kind.mlp:
        attended = attended + _mlp(block, attended)
    return attended[:, prefix:]


def _attention(block: Any, tokens: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
    """What the attention of a block adds to tokens, with another attention in its place."""
    if _norms_after(block):
        return block.norm1(attend(tokens))
    return _scaled(block, "1", attend(block.norm1(tokens)))


def _mlp(block: Any, tokens: Tensor) -> Tensor:
    """What the MLP of a block adds to tokens."""
    if _norms_after(block):
        return block.norm2(block.mlp(tokens))
    return _scaled(block, "2", block.mlp(block.norm2(tokens)))


def _norms_after(block: nn.Module) -> bool:
    from timm.models.eva import EvaBlockPostNorm

    return isinstance(block, EvaBlockPostNorm)


def _scaled(block: Any, which: str, branch: Tensor) -> Tensor:
    """A branch after the block's layer scale, a module in some and a parameter in others."""
    if hasattr(block, f"ls{which}"):
        return getattr(block, f"ls{which}")(branch)
    gamma = getattr(block, f"gamma_{which}")
    return branch if gamma is None else gamma * branch


def _heads(attention: Any, x: Tensor, rope: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, heads, n, width / heads) of tokens (B, n, width)."""
    from timm.layers import apply_rot_embed_cat

    if attention.qkv is None:
        three = [getattr(attention, f"{name}_proj")(x) for name in "qkv"]
    else:
        bias = attention.qkv.bias
        if bias is None and getattr(attention, "q_bias", None) is not None:
            bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        three = list(F.linear(x, attention.qkv.weight, bias).chunk(3, dim=-1))
    query, key, value = (
        part.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for part in three
    )
    query, key = attention.q_norm(query), attention.k_norm(key)
    if rope is not None:
        first, half = attention.num_prefix_tokens, attention.rotate_half
        query, key = (
            torch.cat(
                [part[:, :, :first], apply_rot_embed_cat(part[:, :, first:], rope, half=half)], 2
            )
            for part in (query, key)
        )
    return query, key, value
