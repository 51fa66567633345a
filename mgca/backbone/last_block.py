"""The last block of a CLIP vision transformer, as dense prediction changes it (choice D1).

Every one is a choice of three things: whom a token attends to, and whether the residual branch and
the MLP stay. Nothing is trained.

====================  =====================================================  ========  ===
name                  attention                                              residual  MLP
====================  =====================================================  ========  ===
``attention``         queries to keys, as trained: plain dense features      yes       yes
``value``             each token to itself only (MaskCLIP, TCL, MGCA)        yes       yes
``value-bare``        each token to itself only                              no        no
``sclip``             queries to queries plus keys to keys (SCLIP)           yes       yes
``clearclip``         queries to queries (ClearCLIP)                         no        no
``naclip``            keys to keys, nearer patches preferred (NACLIP)        no        no
====================  =====================================================  ========  ===

Sources: MaskCLIP, Zhou et al. 2022; SCLIP, Wang et al., arXiv 2312.01597; ClearCLIP, Lan et al.,
arXiv 2407.12442; NACLIP, Hajimiri et al., arXiv 2404.08181.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.config import LAST_BLOCKS

if TYPE_CHECKING:
    from open_clip.transformer import ResidualAttentionBlock


def check_last_block(name: str) -> None:
    """Refuse a change that there is not.

    Raises:
        ValueError: If it is none of :data:`mgca.config.LAST_BLOCKS`.
    """
    if name not in LAST_BLOCKS:
        raise ValueError(f"last_block must be one of {', '.join(LAST_BLOCKS)}, not {name!r}")


# Standard deviation, in patches, of the neighbourhood that NACLIP prefers.
NACLIP_DEVIATION = 5.0


def last_block(
    block: "ResidualAttentionBlock", tokens: Tensor, size: tuple[int, int], name: str = "value"
) -> Tensor:
    """Patch tokens (B, h * w, width) after a changed last block.

    Args:
        block: The last block as trained.
        tokens: (B, 1 + h * w, width) tokens before it, the class token first.
        size: Rows and columns (h, w) of the grid of patches.
        name: Name of the change, one of :data:`mgca.config.LAST_BLOCKS`.
    """
    kind = LAST_BLOCKS[name]
    if kind == LAST_BLOCKS["attention"]:
        return block(tokens)[:, 1:]
    if kind.attention == "self":
        # Dropped first: no other token sees it.
        tokens = tokens[:, 1:]
    attended = block.ls_1(_attend(block, block.ln_1(tokens), size, kind.attention))
    if kind.residual:
        attended = tokens + attended
    if kind.mlp:
        attended = attended + block.ls_2(block.mlp(block.ln_2(attended)))
    return attended if kind.attention == "self" else attended[:, 1:]


def _attend(block: "ResidualAttentionBlock", x: Tensor, size: tuple[int, int], kind: str) -> Tensor:
    """Normalised tokens (B, n, width) after the attention layer with attention of a given kind."""
    attention = block.attn
    width, heads = attention.embed_dim, attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if kind == "self":
        return attention.out_proj(F.linear(x, weight[2 * width :], bias[2 * width :]))
    # (B, heads, n, width / heads) each.
    query, key, value = (
        F.linear(x, weight, bias).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    )
    attended = attended_values(query, key, value, size, kind)
    return attention.out_proj(attended.transpose(1, 2).flatten(2))


def attended_values(
    query: Tensor, key: Tensor, value: Tensor, size: tuple[int, int], kind: str, prefix: int = 1
) -> Tensor:
    """Values (B, heads, n, d) after attention of a given kind, head by head.

    Args:
        query: (B, heads, n, d) queries.
        key: (B, heads, n, d) keys.
        value: (B, heads, n, d) values.
        size: Rows and columns (h, w) of the grid of patches.
        kind: Kind of attention, ``"correlative"``, ``"queries"`` or ``"neighbours"``.
        prefix: Number of tokens before those of the patches.
    """
    if kind == "correlative":
        # The sum of two softmaxes, as published: not halved.
        attended = F.scaled_dot_product_attention(query, query, value)
        return attended + F.scaled_dot_product_attention(key, key, value)
    if kind == "queries":
        return F.scaled_dot_product_attention(query, query, value)
    bonus = neighbourhood(size, value, prefix=prefix)
    return F.scaled_dot_product_attention(key, key, value, attn_mask=bonus)


def neighbourhood(
    size: tuple[int, int], like: Tensor, deviation: float = NACLIP_DEVIATION, prefix: int = 1
) -> Tensor:
    """NACLIP's bonus to the logit of each pair of tokens: ``exp(-d^2 / (2 deviation^2))``.

    Returns:
        (prefix + h * w, prefix + h * w), where ``d`` is the distance of two patches; 0 for the
        tokens before them, such as the class token.
    """
    rows, columns = (torch.arange(side, device=like.device, dtype=like.dtype) for side in size)
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1)  # (2, h * w)
    squared = (place[:, :, None] - place[:, None, :]).square().sum(dim=0)
    bonus = torch.exp(-squared / (2 * deviation**2))
    return F.pad(bonus, (prefix, 0, prefix, 0))
