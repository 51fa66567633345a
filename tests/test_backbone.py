"""Dense features of vision transformers: against open_clip's own passes, and what is refused."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgca.backbone import ConvTower, PlainViT, UnsupportedBackbone, load_backbone
from mgca.backbone.vit import interpolate_positions, value_only

# isort: split
# After mgca.backbone, which lets them import beside a CPU build of torch.
import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg, resize_pos_embed
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

STATISTICS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
TEXT = CLIPTextCfg(context_length=16, width=32, heads=2, layers=1)


def small_clip(image_size=32, **vision) -> open_clip.CLIP:
    """A CLIP in float64 of two blocks and patches of 8, random also where training starts at 0."""
    options = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8} | vision
    config = CLIPVisionCfg(image_size=image_size, output_tokens=True, **options)
    model = open_clip.CLIP(24, config, TEXT).double().eval()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def small_vit(model=None, last_block="value", **vision) -> PlainViT:
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    model = model or small_clip(**vision)
    return PlainViT("small", model, tokenizer, last_block=last_block, **STATISTICS)


def images(*size) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64)


def only_itself(count) -> torch.Tensor:
    """The attention mask under which a token sees no other."""
    mask = torch.full((count, count), -math.inf, dtype=torch.float64)
    return mask.fill_diagonal_(0)


@torch.no_grad()
@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_value_only_is_attention_under_a_diagonal_mask(layer_scale):
    block = small_clip(ls_init_value=layer_scale).visual.transformer.resblocks[-1]
    tokens = torch.randn(2, 10, 64, dtype=torch.float64)
    mask = only_itself(10)
    torch.testing.assert_close(value_only(block, tokens), block(tokens, attn_mask=mask))
    attended = block.ls_1(block.attention(block.ln_1(tokens), attn_mask=mask))
    torch.testing.assert_close(value_only(block, tokens, bare=True), attended)
    assert not torch.allclose(value_only(block, tokens), block(tokens), atol=1e-3)


def of_another_size(clip, size) -> open_clip.CLIP:
    """open_clip's model of that image size, with the positions as open_clip resizes them."""
    other, state = small_clip(image_size=size), clip.state_dict()
    resize_pos_embed(state, other)
    other.load_state_dict(state)
    return other


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (48, 24), (64, 40)])
def test_with_its_attention_it_gives_the_models_own_tokens(size):
    clip, pixels = small_clip(), images(*size)
    visual = of_another_size(clip, size).visual
    _, tokens = visual(pixels)
    expected = (tokens @ visual.proj).mT.unflatten(2, (size[0] // 8, size[1] // 8))
    torch.testing.assert_close(small_vit(clip, "attention").dense(pixels), expected)


@torch.no_grad()
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_without_it_gives_them_under_a_diagonal_mask(size, bare):
    clip, pixels = small_clip(), images(*size)
    visual = of_another_size(clip, size).visual
    first, last = visual.transformer.resblocks
    tokens = first(visual._embeds(pixels))
    mask = only_itself(tokens.shape[1])
    if bare:
        tokens = last.attention(last.ln_1(tokens), attn_mask=mask)
    else:
        tokens = last(tokens, attn_mask=mask)
    expected = (visual.ln_post(tokens)[:, 1:] @ visual.proj).mT
    found = small_vit(clip, "value-bare" if bare else "value").dense(pixels)
    torch.testing.assert_close(found, expected.unflatten(2, (size[0] // 8, size[1] // 8)))


@pytest.mark.parametrize("size", [(4, 4), (7, 7), (3, 9), (2, 2), (14, 5)])
def test_positions_are_interpolated_as_open_clip_does(size):
    embedding = torch.randn(1 + 16, 12)
    found = interpolate_positions(embedding, (4, 4), size)
    other = small_clip(image_size=(8 * size[0], 8 * size[1]))
    state = {"visual.positional_embedding": embedding}
    resize_pos_embed(state, other)
    assert torch.equal(found, state["visual.positional_embedding"])
    # And channel by channel.
    assert torch.equal(found[0], embedding[0])
    resized = partial(F.interpolate, mode="bicubic", antialias=True, align_corners=False)
    for channel in range(12):
        grid = embedding[1:, channel].view(1, 1, 4, 4)
        expected = grid if size == (4, 4) else resized(grid, size)
        torch.testing.assert_close(found[1:, channel].view(1, 1, *size), expected)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (16, 80)])
def test_any_multiple_of_the_stride_will_do(size):
    assert small_vit().dense(images(*size)).shape[2:] == (size[0] // 8, size[1] // 8)


@pytest.mark.parametrize("size", [(33, 32), (32, 36), (4, 8), (0, 32)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=rf"multiples of 8, not {size[0]}x{size[1]}"):
        small_vit().dense(images(*size))


def test_what_a_small_clip_offers():
    clip = small_clip()
    vit = small_vit(clip)
    assert (vit.dim, vit.stride, vit.mean, vit.std) == (24, 8, (0.5,) * 3, (0.25,) * 3)
    assert vit.temperature == pytest.approx(0.07)
    assert not any(p.requires_grad for p in vit.parameters())
    assert not any(module.training for module in vit.train().modules())
    texts = ["a cat", "a very long text " * 30]
    embeddings = vit.encode_text(texts)
    torch.testing.assert_close(embeddings, clip.encode_text(vit.tokenizer(texts)))
    digests = {small_vit(clip, last).digest for last in ("value", "value-bare", "attention")}
    assert len(digests) == 3
    with torch.no_grad():
        clip.visual.proj[0, 0] += 1e-9
    assert small_vit(clip).digest not in digests
    assert small_vit(clip).text_digest != vit.text_digest


def stand_in(visual) -> nn.Module:
    """A model of which only the image tower is looked at before it is refused."""
    model = nn.Module()
    model.visual = visual
    model.logit_scale = nn.Parameter(torch.tensor(1.0))
    return model


TOWER = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1, "heads": 2, "mlp_ratio": 2.0}
REFUSED_VITS = {
    "attentional pooling": {"attentional_pool": True},
    "cascaded pooling": {"attentional_pool": "cascade"},
    "no pooling": {"pool_type": "none"},
    "custom block": {"block_type": "custom"},
    "norm of queries": {"qk_norm": True},
    "oblong patches": {"patch_size": (8, 4)},
}


@pytest.mark.parametrize("options", REFUSED_VITS.values(), ids=REFUSED_VITS)
def test_transformers_without_a_dense_path_are_refused(options):
    model = stand_in(VisionTransformer(**TOWER | options))
    with pytest.raises(UnsupportedBackbone, match="^odd-model: "):
        PlainViT("odd-model", model, None, **STATISTICS)


def test_a_transformer_without_projection_is_refused():
    model = stand_in(VisionTransformer(**TOWER))
    model.visual.proj = None
    with pytest.raises(UnsupportedBackbone, match="^odd-model: has no projection"):
        PlainViT("odd-model", model, None, **STATISTICS)


@pytest.mark.parametrize("visual", [nn.Identity(), TimmModel("test_vit", 32)])
def test_other_towers_are_not_plain_transformers(visual):
    with pytest.raises(UnsupportedBackbone, match="^odd-model: .* not a plain vision transformer"):
        PlainViT("odd-model", stand_in(visual), None, **STATISTICS)
    with pytest.raises(UnsupportedBackbone, match="^odd-model: "):
        ConvTower("odd-model", stand_in(visual), None, **STATISTICS)


def test_an_unknown_last_block_is_refused():
    with pytest.raises(ValueError, match="value, value-bare, attention, not 'key'"):
        small_vit(last_block="key")


@pytest.mark.parametrize(
    "name, pretrained, message",
    [
        ("vit-b-17", True, "unknown backbone 'vit-b-17'"),
        ("ViT-B-32", True, "say which weights.*openai"),
        ("ViT-B-32", "laion3b", "no weights 'laion3b', only .*openai"),
    ],
)
def test_unknown_names_and_weights_are_refused(name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(name, pretrained)


@torch.no_grad()
def test_the_papers_backbone_with_random_weights():
    vit = load_backbone("vit-b-16", pretrained=False)
    assert (type(vit), vit.dim, vit.stride, vit.last_block) == (PlainViT, 512, 16, "value")
    assert vit.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    assert vit.std == pytest.approx((0.2686, 0.2613, 0.2758), abs=1e-4)
    assert vit.model.visual.transformer.resblocks[0].mlp.gelu.__class__.__name__ == "QuickGELU"
    assert vit.dense(torch.randn(1, 3, 32, 48)).shape == (1, 512, 2, 3)
    assert vit.encode_text(["a cat", "a dog"]).shape == (2, 512)
