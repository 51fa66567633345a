"""Dense features of vision transformers: against open_clip's own passes, and what is refused."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgca.backbone import ConvTower, PlainViT, UnsupportedBackbone, load_backbone
from mgca.backbone.last_block import last_block, neighbourhood
from mgca.backbone.vit import interpolate_positions
from mgca.config import LAST_BLOCKS

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
    value = last_block(block, tokens, (3, 3), "value")
    torch.testing.assert_close(value, block(tokens, attn_mask=mask)[:, 1:])
    attended = block.ls_1(block.attention(block.ln_1(tokens), attn_mask=mask))
    bare = last_block(block, tokens, (3, 3), "value-bare")
    torch.testing.assert_close(bare, attended[:, 1:])
    assert not torch.allclose(value, block(tokens)[:, 1:], atol=1e-3)


def published_last_block(block, tokens, size, name) -> torch.Tensor:
    """SCLIP, ClearCLIP and NACLIP as their papers say, token by token and head by head."""
    attention, columns = block.attn, size[1]
    width, heads = attention.embed_dim, attention.num_heads
    per_head = width // heads
    out = torch.zeros_like(tokens)
    for b in range(len(tokens)):
        x = block.ln_1(tokens[b])
        joint = torch.zeros_like(x)
        for head in range(heads):
            part = slice(head * per_head, (head + 1) * per_head)
            q, k, v = (
                x @ attention.in_proj_weight[start : start + width][part].T
                + attention.in_proj_bias[start : start + width][part]
                for start in (0, width, 2 * width)
            )
            for i in range(len(x)):
                queries = torch.stack([q[i] @ other for other in q]) / math.sqrt(per_head)
                keys = torch.stack([k[i] @ other for other in k]) / math.sqrt(per_head)
                if name == "sclip":
                    weights = queries.softmax(0) + keys.softmax(0)
                elif name == "clearclip":
                    weights = queries.softmax(0)
                else:
                    if i:
                        y, x_ = divmod(i - 1, columns)
                        for j in range(1, len(keys)):
                            v_, u = divmod(j - 1, columns)
                            keys[j] += math.exp(-((y - v_) ** 2 + (x_ - u) ** 2) / (2 * 5.0**2))
                    weights = keys.softmax(0)
                joint[i, part] = weights @ v
        out[b] = block.ls_1(attention.out_proj(joint))
    if name == "sclip":
        out = tokens + out
        out = out + block.ls_2(block.mlp(block.ln_2(out)))
    return out[:, 1:]


@torch.no_grad()
@pytest.mark.parametrize("layer_scale", [None, 0.3])
@pytest.mark.parametrize("size", [(3, 3), (2, 5)])
@pytest.mark.parametrize("name", ["sclip", "clearclip", "naclip"])
def test_other_last_blocks_are_the_published_ones(name, size, layer_scale):
    block = small_clip(ls_init_value=layer_scale).visual.transformer.resblocks[-1]
    tokens = 3 * torch.randn(2, 1 + size[0] * size[1], 64, dtype=torch.float64)
    expected = published_last_block(block, tokens, size, name)
    torch.testing.assert_close(last_block(block, tokens, size, name), expected)


def test_every_last_block_of_the_configurations_can_be_loaded():
    outputs = {name: small_vit(small_clip(), name).last_block for name in LAST_BLOCKS}
    assert list(outputs) == list(outputs.values())


def test_the_neighbourhood_prefers_near_patches_and_leaves_the_class_token_alone():
    bonus = neighbourhood((2, 3), torch.zeros((), dtype=torch.float64), deviation=2.0)
    assert bonus.shape == (7, 7)
    assert not bonus[0].any() and not bonus[:, 0].any()
    assert bonus[1, 1] == 1
    assert bonus[1, 6] == pytest.approx(math.exp(-5 / 8))  # one row and two columns away


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
    digests = {small_vit(clip, last).digest for last in LAST_BLOCKS}
    assert len(digests) == len(LAST_BLOCKS)
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
    with pytest.raises(ValueError, match="naclip, not 'key'"):
        small_vit(last_block="key")


@pytest.mark.parametrize(
    "name, pretrained, message",
    [
        ("vit-b-17", True, "unknown backbone 'vit-b-17'"),
        ("ViT-B-32", True, "say which weights.*openai"),
        ("ViT-B-32", "laion3b", "no weights 'laion3b', only .*openai.*, or those of a file"),
    ],
)
def test_unknown_names_and_weights_are_refused(name, pretrained, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(name, pretrained)


@pytest.fixture(scope="module")
def papers() -> PlainViT:
    """The paper's backbone with random weights, of seconds."""
    torch.manual_seed(1)
    return load_backbone("vit-b-16", pretrained=False)


@torch.no_grad()
def test_the_papers_backbone_with_random_weights(papers):
    vit = papers
    assert (type(vit), vit.dim, vit.stride, vit.last_block) == (PlainViT, 512, 16, "value")
    assert vit.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    assert vit.std == pytest.approx((0.2686, 0.2613, 0.2758), abs=1e-4)
    assert vit.model.visual.transformer.resblocks[0].mlp.gelu.__class__.__name__ == "QuickGELU"
    assert vit.dense(torch.randn(1, 3, 32, 48)).shape == (1, 512, 2, 3)
    assert vit.encode_text(["a cat", "a dog"]).shape == (2, 512)


def test_random_weights_are_the_same_at_every_load(papers):
    """All processes of a run need the same encoder, and so does a run that goes on."""
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert load_backbone("vit-b-16", pretrained=False).digest == papers.digest
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_may_be_those_of_a_file(tmp_path):
    random = load_backbone("ViT-B-32", pretrained=False)
    changed = {name: 2 * value for name, value in random.model.state_dict().items()}
    path = tmp_path / "weights.pt"
    torch.save(changed, path)
    loaded = load_backbone("ViT-B-32", str(path))
    assert loaded.digest != random.digest
    assert torch.equal(loaded.model.visual.proj, changed["visual.proj"])
    with pytest.raises(ValueError, match="lite comes with its weights"):
        load_backbone("lite", str(path))
