"""The gated convolution decoder: its start as the identity, its size, its formula, its gradient."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgca.decoder import GatedConvBlock, GatedConvDecoder, LayerNorm2d, upsample2

MODES = ("bilinear", "nearest")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (14, 14)])
def test_a_new_decoder_is_the_upsampled_input(mode, size):
    features = torch.randn(2, 16, *size)
    decoder = GatedConvDecoder(16, upsample=mode)
    align = {"align_corners": False} if mode == "bilinear" else {}
    expected = F.interpolate(features, (2 * size[0], 2 * size[1]), mode=mode, **align)
    assert torch.equal(decoder(features), expected)
    assert torch.equal(upsample2(features, mode), expected)


def test_bilinear_upsampling_by_hand():
    # New positions lie at -1/4, 1/4, 3/4 and 5/4 of the two old ones; the ends are held.
    row = torch.tensor([[[[0.0, 4.0]]]])
    assert upsample2(row)[0, 0].tolist() == [[0, 1, 3, 4], [0, 1, 3, 4]]
    assert upsample2(row, "nearest")[0, 0].tolist() == [[0, 0, 4, 4], [0, 0, 4, 4]]


def test_size_is_the_papers():
    decoder = GatedConvDecoder(512)
    weights = [m.weight.numel() for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    assert sum(weights) == 2 * 512 * 512 * 9 == 4_718_592
    total = sum(parameter.numel() for parameter in decoder.parameters())
    # Beside the weights: a bias and the two vectors of the norm in each block, and its gate.
    assert total == 4_718_592 + 2 * (512 + 2 * 512 + 1)
    assert round(total / 1e6, 2) == 4.72
    assert [gate.item() for name, gate in decoder.named_parameters() if "gate" in name] == [0, 0]


def test_layer_norm_2d_is_layer_norm_at_each_position():
    norm, plain = LayerNorm2d(6).double(), nn.LayerNorm(6).double()
    with torch.no_grad():
        for parameter, other in zip(norm.parameters(), plain.parameters(), strict=True):
            parameter.copy_(torch.randn(6))
            other.copy_(parameter)
    maps = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    out = norm(maps)
    assert out.shape == maps.shape
    for image in range(2):
        for y in range(3):
            for x in range(4):
                torch.testing.assert_close(out[image, :, y, x], plain(maps[image, :, y, x]))


def opened(module: nn.Module) -> nn.Module:
    """The module in float64 with random parameters, its gates open."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return module


def by_hand(block: GatedConvBlock, maps: torch.Tensor) -> torch.Tensor:
    """``x + tanh(g) conv3x3(GELU(LayerNorm(x)))`` of one image (C, H, W), position by position."""
    channels, height, width = maps.shape
    mean, variance = maps.mean(dim=0), maps.var(dim=0, correction=0)
    normal = (maps - mean) / (variance + 1e-5).sqrt()
    normal = normal * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]
    active = normal * 0.5 * (1 + torch.erf(normal / 2**0.5))
    out = maps.clone()
    for y in range(height):
        for x in range(width):
            value = block.conv.bias.clone()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        kernel = block.conv.weight[:, :, dy + 1, dx + 1]
                        value = value + kernel @ active[:, y + dy, x + dx]
            out[:, y, x] += torch.tanh(block.gate) * value
    assert out.shape == (channels, height, width)
    return out


@torch.no_grad()
def test_block_by_hand():
    block = opened(GatedConvBlock(5))
    maps = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    expected = torch.stack([by_hand(block, image) for image in maps])
    torch.testing.assert_close(block(maps), expected, rtol=1e-11, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_decoder_is_upsampling_and_then_its_blocks(mode):
    decoder = opened(GatedConvDecoder(4, upsample=mode))
    features = torch.randn(1, 4, 2, 3, dtype=torch.float64)
    expected = upsample2(features, mode)[0]
    for block in decoder.blocks:
        expected = by_hand(block, expected)
    torch.testing.assert_close(decoder(features)[0], expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_channels_beyond_the_learned_ones_are_upsampled_alone():
    decoder, features = opened(GatedConvDecoder(5, learned=3)), torch.randn(2, 5, 4, 3)
    alone = GatedConvDecoder(3)
    alone.load_state_dict({k: v.float() for k, v in decoder.state_dict().items()})
    expected = torch.cat([alone(features[:, :3]), upsample2(features[:, 3:])], dim=1)
    torch.testing.assert_close(decoder.float()(features), expected)


def test_gradient_opens_the_gates_first_and_then_reaches_everything():
    decoder = GatedConvDecoder(8)
    features, target = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 8, 8)

    def gradients() -> dict[str, float]:
        decoder.zero_grad()
        ((decoder(features) - target) ** 2).mean().backward()
        return {name: p.grad.abs().max().item() for name, p in decoder.named_parameters()}

    closed = gradients()
    assert {name for name, size in closed.items() if size} == {"blocks.0.gate", "blocks.1.gate"}
    with torch.no_grad():
        for block in decoder.blocks:
            block.gate.fill_(0.1)
    assert all(size > 0 for size in gradients().values())
    assert len(closed) == 2 * 5


def test_gradcheck_with_open_gates():
    decoder = opened(GatedConvDecoder(2, blocks=1))
    features = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(decoder, features)


def test_unknown_upsampling_is_refused():
    with pytest.raises(ValueError, match="'bilinear' or 'nearest', not 'bicubic'"):
        GatedConvDecoder(8, upsample="bicubic")
