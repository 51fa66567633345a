"""Dense features of a plain CLIP vision transformer (Eq. 1, choice D1)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.backbone.base import OpenClip, UnsupportedBackbone, state_digest
from mgca.backbone.last_block import check_last_block, last_block


def interpolate_positions(
    embedding: Tensor,
    grid: tuple[int, int],
    size: tuple[int, int],
    how: str = "antialiased",
    prefix: int = 1,
) -> Tensor:
    """Positional embeddings for another grid of patches, as open_clip's ``resize_pos_embed``.

    Args:
        embedding: (prefix + rows * columns, width) embeddings, the class token first.
        grid: (rows, columns) that they were trained for.
        size: (rows, columns) wanted.
        how: One of ``mgca.config.POSITIONS``: ``"plain"`` is without
            antialiasing, as in TCL's harness. Where the grid grows it differs too: torch's cubic
            has a = -0.5 with antialiasing and -0.75 without.
        prefix: Number of embeddings of tokens that stand for no place.

    Returns:
        (prefix + rows * columns, width) for ``size``.
    """
    if grid == size:
        return embedding
    token, patches = embedding[:prefix], embedding[prefix:]
    patches = patches.reshape(1, *grid, -1).permute(0, 3, 1, 2)
    antialias = how == "antialiased"
    patches = F.interpolate(patches, size, mode="bicubic", antialias=antialias, align_corners=False)
    return torch.cat([token, patches.permute(0, 2, 3, 1).flatten(1, 2)[0]])


class PlainViT(OpenClip):
    """An open_clip model with a plain vision transformer.

    Takes what :class:`mgca.backbone.base.OpenClip` takes, and besides:

    Args:
        last_block: Variant of the last block, one of :data:`mgca.config.LAST_BLOCKS`.

    Raises:
        UnsupportedBackbone: If the image tower is not a plain vision transformer.
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
        _require_plain(name, model.visual)
        super().__init__(name, model, tokenizer, **statistics)
        self.last_block = last_block
        self.dim = model.visual.output_dim
        self.stride = model.visual.patch_size[0]
        self.digest = self.trunk_digest = f"{state_digest(model.visual)}-{last_block}"

    def tokens(self, images: Tensor) -> Tensor:
        """All tokens (B, 1 + h * w, width) before the last block, the class token first."""
        visual = self.model.visual
        patches = visual.conv1(images)
        rows, columns = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        token = visual.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        positions = interpolate_positions(
            visual.positional_embedding, visual.grid_size, (rows, columns), self.positions
        )
        tokens = visual.ln_pre(torch.cat([token, patches], dim=1) + positions.to(patches.dtype))
        for block in visual.transformer.resblocks[:-1]:
            tokens = block(tokens)
        return tokens

    def features(self, images: Tensor) -> Tensor:
        rows, columns = (side // self.stride for side in images.shape[-2:])
        return self.last(self.tokens(images), (rows, columns))

    def last(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        """Patch tokens (B, width, h, w) after the last block, of all tokens before it.

        Args:
            tokens: (B, 1 + h * w, width) tokens before the last block, the class token first.
            size: Rows and columns (h, w) of the grid of patches.
        """
        block = self.model.visual.transformer.resblocks[-1]
        tokens = last_block(block, tokens, size, self.last_block)
        return tokens.transpose(1, 2).unflatten(2, size)

    def project(self, features: Tensor) -> Tensor:
        visual = self.model.visual
        tokens = features.flatten(2).transpose(1, 2)
        if visual.attn_pool is not None:
            tokens = _pooled_alone(visual.attn_pool, tokens)
        tokens = visual.ln_post(tokens) @ visual.proj
        return tokens.transpose(1, 2).unflatten(2, features.shape[-2:])


def _pooled_alone(pool: nn.Module, tokens: Tensor) -> Tensor:
    """Tokens (B, n, width), each after attentional pooling (CoCa) as if it were the only one.

    Whatever asks, of one key attention takes its value: all the pooler's queries have one answer.
    """
    attention = pool.attn
    dim = attention.embed_dim
    weight = attention.v_proj_weight
    if weight is None:
        weight = attention.in_proj_weight[2 * dim :]
    values = F.linear(pool.ln_k(tokens), weight, attention.in_proj_bias[2 * dim :])
    return attention.out_proj(values)


def _require_plain(name: str, visual: nn.Module) -> None:
    """Refuse, by name, a tower for which dropping the last attention is not defined."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if not isinstance(visual, VisionTransformer):
        raise UnsupportedBackbone(
            f"{name}: {type(visual).__name__} is not a plain vision transformer"
        )
    if visual.pool_type == "none" or getattr(visual, "attn_pool_contrastive", None) is not None:
        raise UnsupportedBackbone(
            f"{name}: its pooling leaves single tokens outside the joint space"
        )
    if visual.proj is None:
        raise UnsupportedBackbone(f"{name}: has no projection to the joint space")
    last = visual.transformer.resblocks[-1]
    if not (
        isinstance(last, ResidualAttentionBlock)
        and isinstance(last.attn, nn.MultiheadAttention)
        and last.attn.in_proj_weight is not None
    ):
        raise UnsupportedBackbone(
            f"{name}: its last block is not a standard attention block, so the value-only path "
            "is not defined for it"
        )
    if visual.patch_size[0] != visual.patch_size[1]:
        raise UnsupportedBackbone(f"{name}: patches of {visual.patch_size} are not square")
