"""The gated convolution decoder, the only part of MGCA that is trained."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of a (B, C, H, W) map, at each position."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GatedConvBlock(nn.Module):
    """``x + tanh(g) * conv3x3(GELU(LayerNorm2d(x)))``, with a scalar gate ``g`` that starts at 0.

    The closed gate makes a new block the identity, so training starts from the backbone's own
    dense features instead of from noise.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(dim)
        self.conv = nn.Conv2d(dim, dim, kernel_size=3, padding=1)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        return x + torch.tanh(self.gate) * self.conv(F.gelu(self.norm(x)))


class GatedConvDecoder(nn.Module):
    """The decoder ``D`` of Eq. 1: one x2 upsampling, then gated convolution blocks.

    Args:
        dim: Number of channels ``C`` of the embeddings; 512 gives the paper's 4.72 M parameters.
        blocks: Number of gated convolution blocks.
        upsample: Interpolation of the upsampling, ``"bilinear"`` or ``"nearest"`` (choice D2).
        learned: Number of leading channels that the blocks change, the others being upsampled
            alone; None for all, as in the paper.

    Raises:
        ValueError: For an unknown upsampling mode.
    """

    def __init__(
        self,
        dim: int = 512,
        *,
        blocks: int = 2,
        upsample: str = "bilinear",
        learned: int | None = None,
    ) -> None:
        super().__init__()
        if upsample not in ("bilinear", "nearest"):
            raise ValueError(f"upsample must be 'bilinear' or 'nearest', not {upsample!r}")
        self.dim = dim
        self.upsample = upsample
        self.learned = dim if learned is None else learned
        self.blocks = nn.ModuleList(GatedConvBlock(self.learned) for _ in range(blocks))

    def forward(self, features: Tensor) -> Tensor:
        """Pixel embeddings (B, C, 2h, 2w) made of the encoder's dense features (B, C, h, w)."""
        upsampled = upsample2(features, self.upsample)
        x = upsampled[:, : self.learned]
        for block in self.blocks:
            x = block(x)
        return torch.cat([x, upsampled[:, self.learned :]], 1) if self.learned < self.dim else x


def upsample2(features: Tensor, mode: str = "bilinear") -> Tensor:
    """A (B, C, h, w) map at twice its resolution, (B, C, 2h, 2w)."""
    align = False if mode == "bilinear" else None
    return F.interpolate(features, scale_factor=2, mode=mode, align_corners=align)
