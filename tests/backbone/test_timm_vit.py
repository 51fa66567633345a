"""Dense features of timm's vision transformers: an image of one patch has its own embedding."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgca.backbone import PlainViT, TimmViT, UnsupportedBackbone, load_backbone
from mgca.backbone.pooled import global_embedding
from mgca.inference.scoring import SIGMOID, sigmoid_scores
from mgca.model import Model

# isort: split
# After mgca.backbone, which lets them import beside a CPU build of torch.
import open_clip
import open_clip.timm_model
import timm
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.timm_model import TimmModel

STATISTICS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
SMALL = {"embed_dim": 64, "num_heads": 4, "depth": 2}
# Of each family of open_clip its smallest member, or one of its blocks at a smaller width.
FAMILIES = {
    "SigLIP": ("vit_base_patch16_siglip_224", {"pool": "map", "proj": "none"}, SMALL),
    "SigLIP2 so400m": ("vit_so400m_patch14_siglip_224", {"pool": "map", "proj": "none"}, SMALL),
    "PE-Core": ("vit_pe_core_tiny_patch16_384", {"pool": "map", "proj": None}, {"depth": 2}),
    "EVA01": ("eva_giant_patch14_224", {"pool": "token", "proj": None}, SMALL),
    "EVA02": ("eva02_base_patch16_clip_224", {"pool": "token", "proj": None}, SMALL),
    "EVA02-E": ("eva02_enormous_patch14_clip_224", {"pool": "token", "proj": None}, SMALL),
    "MobileCLIP-B": ("vit_base_mci_224", {"pool": "token", "proj": None}, {"depth": 2}),
    "MobileCLIP2-L": ("vit_large_patch14_clip_224", {"pool": "token", "proj": None}, SMALL),
    "ViTamin": ("vitamin_small_224", {"pool": "", "proj": "linear"}, {"depth": 2}),
    "average": ("vit_medium_patch16_gap_256", {"pool": "", "proj": "linear"}, SMALL),
}


@pytest.fixture
def backbone(request, monkeypatch):
    """A function that gives a family's backbone with a last block."""
    name, options, smaller = FAMILIES[request.param]
    create = timm.create_model
    monkeypatch.setattr(
        open_clip.timm_model.timm, "create_model", lambda *a, **k: create(*a, **k, **smaller)
    )
    width = smaller.get("embed_dim", 768)
    size = width if options["proj"] == "none" else 24
    visual = TimmModel(name, size, image_size=224, **options).eval()
    for parameter in visual.parameters():  # also where training starts at 0 or at 1
        parameter.data += 0.02 * torch.randn_like(parameter)
    return lambda last="value": TimmViT(
        request.param, model_of(visual), None, last_block=last, **STATISTICS
    )


def model_of(visual) -> nn.Module:
    """A model whose texts are never asked for."""
    model = nn.Module()
    model.visual = visual
    model.logit_scale = nn.Parameter(torch.tensor(3.0))
    return model


each_family = pytest.mark.parametrize("backbone", FAMILIES, indirect=True)


@torch.no_grad()
@each_family
def test_an_image_of_one_patch_has_the_models_own_embedding(backbone):
    vit = backbone()
    visual, trunk = vit.model.visual, vit.model.visual.trunk
    images = torch.randn(2, 3, vit.stride, vit.stride)
    dense = vit.dense(images)
    assert dense.shape == (2, vit.dim, 1, 1)
    if not trunk.num_prefix_tokens:
        assert torch.equal(dense[:, :, 0, 0], visual(images))
        return
    # With a class token: an additive mask under which no token of the last block sees another.
    tokens, also = vit.tokens(images)
    count = tokens.shape[1]
    alone = torch.full((count, count), -math.inf).fill_diagonal_(0)
    after = trunk.norm(trunk.blocks[-1](tokens, attn_mask=alone, **also))
    expected = visual.head(trunk.forward_head(after[:, trunk.num_prefix_tokens :]))
    torch.testing.assert_close(dense[:, :, 0, 0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
@each_family
def test_whole_images_and_other_sizes(backbone):
    vit = backbone()
    visual = vit.model.visual
    assert torch.equal(vit.embed(images := torch.randn(1, 3, 224, 224)), visual(images))
    assert torch.equal(global_embedding(vit, images), visual(images))
    for rows, columns in ((2, 3), (5, 1), (2, 3)):
        size = (rows * vit.stride, columns * vit.stride)
        dense = vit.dense(torch.randn(1, 3, *size))
        assert dense.shape == (1, vit.dim, rows, columns) and dense.isfinite().all()
    with pytest.raises(ValueError, match=f"multiples of {vit.stride}"):
        vit.dense(torch.zeros(1, 3, vit.stride + 1, vit.stride))


def attended_by_hand(kind, size, prefix):
    """SCLIP's, ClearCLIP's and NACLIP's attention in the place of torch's, as matrices."""
    place = torch.tensor([(y, x) for y in range(size[0]) for x in range(size[1])]).float()
    near = torch.zeros(prefix + len(place), prefix + len(place))
    near[prefix:, prefix:] = torch.exp(-(torch.cdist(place, place) ** 2) / (2 * 5.0**2))

    def attention(query, key, value, **_):
        scale = query.shape[-1] ** -0.5
        queries, keys = query @ query.mT * scale, key @ key.mT * scale
        weights = {
            "sclip": lambda: queries.softmax(-1) + keys.softmax(-1),
            "clearclip": lambda: queries.softmax(-1),
            "naclip": lambda: (keys + near).softmax(-1),
        }
        return weights[kind]() @ value

    return attention


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sclip", "clearclip", "naclip"])
@each_family
def test_other_last_blocks_are_timms_with_another_attention(backbone, kind, monkeypatch):
    vit = backbone(kind)
    trunk, size = vit.model.visual.trunk, (2, 3)
    images = torch.randn(1, 3, size[0] * vit.stride, size[1] * vit.stride)
    found, (tokens, also) = vit.features(images), vit.tokens(images)
    prefix, block = trunk.num_prefix_tokens, trunk.blocks[-1]
    by_hand = attended_by_hand(kind, size, prefix)
    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", by_hand)
        if kind == "sclip":
            after = block(tokens, **also)
        elif type(block).__name__ == "EvaBlockPostNorm":
            after = block.norm1(block.attn(tokens, **also))
        else:
            after = block.attn(block.norm1(tokens), **also)
            after = (
                after * getattr(block, "gamma_1", None)
                if getattr(block, "gamma_1", None) is not None
                else after
            )
            after = block.ls1(after) if hasattr(block, "ls1") else after
    expected = trunk.norm(after)[:, prefix:].mT.unflatten(2, size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("size", [224, 448])
@pytest.mark.parametrize("family", ["SigLIP", "PE-Core", "EVA02", "MobileCLIP-B", "ViTamin"])
def test_whole_models_give_maps_of_the_right_size(family, size, monkeypatch):
    # Nothing is computed on this device.
    for module in ("base", "timm_vit"):
        monkeypatch.setattr(f"mgca.backbone.{module}.state_digest", lambda module: "shapes")
    name, options, _ = FAMILIES[family]
    with torch.device("meta"):
        visual = TimmModel(name, 768, image_size=224, **options).eval()
        model = model_of(visual)
        model.logit_scale = nn.Parameter(torch.tensor(3.0, device="cpu"))
        vit = TimmViT(family, model, None, **STATISTICS)
        assert vit.stride == 16
        assert vit.dense(torch.zeros(1, 3, size, size)).shape == (
            1,
            vit.dim,
            size // 16,
            size // 16,
        )


def test_other_blocks_are_refused():
    relative = TimmModel("vit_relpos_medium_patch16_cls_224", 24, pool="", proj="linear")
    with pytest.raises(UnsupportedBackbone, match="^odd-model: its last block, RelPosBlock"):
        TimmViT("odd-model", model_of(relative), None, **STATISTICS)
    with pytest.raises(ValueError, match="naclip, not 'key'"):
        TimmViT("odd-model", model_of(relative), None, last_block="key", **STATISTICS)


def coca() -> open_clip.CLIP:
    vision = CLIPVisionCfg(
        layers=2, width=64, head_width=32, patch_size=8, image_size=32, attentional_pool=True,
        attn_pooler_heads=4, attn_pooler_queries=5, output_tokens=True,
    )  # fmt: skip
    text = CLIPTextCfg(context_length=16, width=32, heads=2, layers=1)
    model = open_clip.CLIP(24, vision, text).eval()
    for parameter in model.visual.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def test_coca_pools_each_position_as_if_it_were_the_image():
    model = coca()
    vit = PlainViT("coca", model, None, **STATISTICS)
    visual = model.visual
    features = vit.features(torch.randn(1, 3, 16, 24))
    joint = vit.project(features)
    assert joint.shape == (1, 24, 2, 3)
    for y in range(2):
        for x in range(3):
            alone = visual.attn_pool(features[:, :, y, x][:, None])  # an answer per query
            expected = visual.ln_post(alone)[:, 0] @ visual.proj
            torch.testing.assert_close(joint[:, :, y, x], expected, rtol=1e-5, atol=1e-5)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(global_embedding(vit, images), visual(images)[0])


@pytest.fixture
def siglip(monkeypatch, tmp_path):
    """A name of SigLIP, with a small tower and a small tokenizer in the place of the real files."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", "a", "cat", "dog", "café"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<pad>"
    )
    fast.save_pretrained(tmp_path)
    config = copy.deepcopy(open_clip.get_model_config("ViT-B-16-SigLIP"))  # open_clip keeps parts
    config["vision_cfg"]["timm_model_name"] = "vit_tiny_patch16_224"
    config["embed_dim"] = 192
    config["text_cfg"] |= {
        "width": 192, "heads": 3, "layers": 1, "hf_tokenizer_name": str(tmp_path),
    }  # fmt: skip
    for place in (open_clip.factory, open_clip):
        monkeypatch.setattr(place, "get_model_config", lambda *_: config)
    create = timm.create_model
    monkeypatch.setattr(
        open_clip.timm_model.timm,
        "create_model",
        lambda name, **k: create(
            name, **k | ({"depth": 2, "class_token": False} if name.startswith("vit") else {})
        ),
    )
    return "ViT-B-16-SigLIP"


@torch.no_grad()
def test_siglip_by_name_through_the_real_loading_code(siglip):
    vit = load_backbone(siglip, pretrained=False)
    assert isinstance(vit, TimmViT) and vit.dense(torch.zeros(1, 3, 32, 48)).shape == (1, 192, 2, 3)
    # open_clip's own tokenizer lowers the text and takes its punctuation away.
    assert torch.equal(vit.tokenizer(["A Cat!"]), vit.tokenizer(["a cat"]))
    assert vit.tokenizer(["A, Cat."])[0, :2].tolist() == [2, 3]
    torch.testing.assert_close(vit.encode_text(["A DOG!"]), vit.encode_text(["a dog"]))
    scale, bias = vit.sigmoid
    assert (scale, bias) == pytest.approx((1 / 0.07, -10.0))  # as open_clip begins
    model = Model(vit)
    cosines = torch.tensor([[0.9, 1.1]])
    rule = model.scoring[SIGMOID]
    assert not rule.softmax and rule.threshold == 0.5
    assert torch.equal(rule.scores(cosines), sigmoid_scores(cosines, scale, bias))
    assert "sigmoid" not in Model(load_backbone("scenes", pretrained=False)).scoring
