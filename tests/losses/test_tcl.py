"""TCL's objective against loops, what a frozen encoder says of images, and training with both."""

import json
import math

import numpy as np
import pytest
import reference_tcl
import torch
from PIL import Image
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca.backbone.pooled import global_embedding, global_encoder
from mgca.config import LossConfig, config_hash, to_dict
from mgca.data.features import BatchImages
from mgca.experiments.grid import tcl_training
from mgca.experiments.photos import photos_training
from mgca.experiments.scenes import scenes_training
from mgca.inference.scoring import sigmoid_scores
from mgca.losses.tcl import TCLConfig, TCLObjective, logistic_noise, sampled_masks, total_variation

# isort: split
# After mgca.backbone, which lets them import beside a CPU build of torch.
import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from mgca.backbone import PlainViT
from mgca.backbone.hybrid import Hybrid, HybridConfig
from mgca.backbone.lite import Lite

LEARNED = ("w", "b", "feature_scale", "image_scale")
CAPTIONS = [["A dog runs."], ["Children on a beach."], ["A red bus."], ["A cat."], ["Snow."]]


# The objective.


def inputs(batch=3, channels=4, side=(2, 3), image=(6, 7)):
    """Pixels, texts, images, noise in float64, and a smooth encoder of the images."""
    kind = {"dtype": torch.float64}
    images = torch.randn(batch, 3, *image, **kind)
    matrix = torch.randn(3 * image[0] * image[1], channels, **kind)
    return (
        torch.randn(batch, channels, *side, **kind, requires_grad=True),
        torch.randn(batch, channels, **kind),
        {"images": images, "noise": torch.randn(batch, *side, **kind)},
        lambda x: torch.tanh(x.flatten(1) @ matrix / 4),
    )


def exclusion(batch=3):
    exclude = torch.zeros(batch, batch, dtype=torch.bool)
    exclude[0, 1] = exclude[2, 2] = True  # the diagonal stays a positive
    return exclude


@pytest.mark.parametrize("exclude", [None, exclusion()])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"area_prior": 0.1, "temperature": 0.5, "gumbel_temperature": 0.3, "w": 2.0, "b": 0.5},
        {"temperature": 0.001},  # the scale is at its bound
        {"area": 0.0, "contrast": 2.0, "variation": 0.5},
    ],
)
def test_terms_and_gradients_are_those_of_the_loops(values, exclude):
    config = TCLConfig(**values)
    pixels, texts, extra, encode = inputs()
    objective = TCLObjective(config, encode).double()
    learned = {name: getattr(objective, name) for name in LEARNED}
    variables = [pixels, *learned.values()]
    found = objective(pixels, texts, exclude=exclude, **extra)
    expected = reference_tcl.objective(
        pixels, texts, config, learned, encode=encode, exclude=exclude, **extra
    )
    assert set(found) == {"area", "feature", "image", "variation", "total"} - (
        set() if config.area else {"area"}
    )
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)
        options = {"retain_graph": True, "materialize_grads": True}
        ours = torch.autograd.grad(value, variables, **options)
        theirs = torch.autograd.grad(expected[name], variables, **options)
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("term", ["area", "feature", "variation"])
def test_the_smooth_terms_have_the_gradient_of_finite_differences(term):
    pixels, texts, _, _ = inputs(side=(2, 2))
    weights = {"area": 0.0, "contrast": 0.0, "variation": 0.0}
    weights["contrast" if term == "feature" else term] = 1.0

    def value(pixels, w, b, scale):
        objective = TCLObjective(TCLConfig(**weights), lambda x: x[:, 0, 0]).double()
        for name, tensor in zip(LEARNED, (w, b, scale, scale), strict=True):
            delattr(objective, name)
            setattr(objective, name, tensor)
        images = torch.ones(3, 3, 4, 4, dtype=torch.float64)
        return objective(pixels, texts, images=images)[term]

    numbers = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (3.0, -1.0, 1.0)]
    assert torch.autograd.gradcheck(value, (pixels, *numbers))


def test_sampled_masks_are_hard_and_their_gradient_is_the_soft_ones():
    logits = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    noise = torch.zeros_like(logits) + 0.3
    masks = sampled_masks(logits, noise, 0.5)
    assert torch.equal(masks.detach(), (logits > -0.3).double())
    soft = torch.sigmoid((logits.detach() + 0.3) / 0.5)
    (gradient,) = torch.autograd.grad(masks.sum(), logits)
    torch.testing.assert_close(gradient, soft * (1 - soft) / 0.5)


def test_masks_are_on_as_often_as_their_probability_says():
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([-2.0, 0.0, 1.0])[:, None].expand(-1, 40_000)
    masks = sampled_masks(logits, logistic_noise(logits.shape, generator))
    torch.testing.assert_close(masks.mean(1), torch.sigmoid(logits[:, 0]), rtol=0, atol=0.01)
    again = logistic_noise((3, 5), torch.Generator().manual_seed(7))
    assert torch.equal(again, logistic_noise((3, 5), torch.Generator().manual_seed(7)))


def test_the_released_values_are_the_defaults():
    objective = TCLObjective()
    assert objective.sigmoid() == (10.0, -2.5)
    assert objective.feature_scale.exp().item() == pytest.approx(1 / 0.07)
    assert len(list(objective.parameters())) == 4
    scores = sigmoid_scores(torch.tensor([0.25, 1.0]), *objective.sigmoid())
    torch.testing.assert_close(scores, torch.tensor([0.5, 1 / (1 + math.exp(-7.5))]))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"area_prior": 0}, r"area_prior .*\(0, 1\]"),
        ({"area_prior": math.nan}, "area_prior"),
        ({"area": -1}, "weights"),
        ({"variation": math.inf}, "weights"),
        ({"area": 0, "contrast": 0, "variation": 0}, "all zero"),
        ({"w": 0}, "w must be positive"),
        ({"b": math.nan}, "b finite"),
        ({"temperature": 0}, "temperature"),
        ({"gumbel_temperature": -1}, "gumbel_temperature"),
    ],
)
def test_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        TCLConfig(**wrong)


def test_wrong_shapes_and_missing_images_are_refused():
    pixels, texts, extra, encode = inputs()
    objective = TCLObjective(encode=encode).double()
    with pytest.raises(ValueError, match="needs the images"):
        objective(pixels, texts)
    with pytest.raises(ValueError, match="needs the images"):
        TCLObjective().double()(pixels, texts, **extra)
    with pytest.raises(ValueError, match="of the same B and C"):
        objective(pixels, texts[:2], **extra)
    with pytest.raises(ValueError, match="expected 3 images"):
        objective(pixels, texts, images=extra["images"][:2])
    with pytest.raises(ValueError, match="sides of 2 or more"):
        total_variation(torch.zeros(2, 1, 5))


# The frozen encoders.


def small_vit(**vision) -> PlainViT:
    config = CLIPVisionCfg(image_size=32, layers=2, width=64, head_width=32, patch_size=8, **vision)
    text = CLIPTextCfg(context_length=16, width=32, heads=2, layers=1)
    model = open_clip.CLIP(24, config, text).double().eval()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return PlainViT("small", model, None, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize(
    "vision",
    [
        {},
        {"ls_init_value": 0.3},
        {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True},
    ],
)
def test_a_transformer_gives_open_clips_own_embedding(vision):
    backbone = small_vit(**vision)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found = global_embedding(backbone, images)
    torch.testing.assert_close(found, backbone.model.visual(images))
    assert global_embedding(backbone, torch.zeros(1, 3, 16, 40).double()).shape == (1, 24)


def test_gradient_reaches_the_images_and_nothing_else():
    backbone = small_vit()
    masks = torch.rand(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    encode = global_encoder(backbone)
    assert torch.autograd.gradcheck(lambda m: encode(F.interpolate(m, (16, 16)) * images), masks)
    encode(F.interpolate(masks, (16, 16)) * images).sum().backward()
    assert all(p.grad is None for p in backbone.parameters())


@pytest.fixture
def no_sentences(monkeypatch):
    """Backbones without their sentence encoder, which takes most of the time to make."""
    for module in ("hybrid", "lite"):
        monkeypatch.setattr(f"mgca.backbone.{module}.SentenceEncoder", torch.nn.Identity)


@pytest.mark.parametrize("kind", ["hybrid", "lite"])
def test_towers_with_folded_norms_give_their_own_embedding(no_sentences, kind):
    if kind == "lite":
        backbone = Lite(pretrained=False)
        images = torch.randn(2, 3, 64, 96)
        pooled = backbone.features(images).mean(dim=(2, 3), keepdim=True)
        expected = backbone.project(pooled)[:, :, 0, 0]
    else:
        sizes = HybridConfig(dim=8, width=32, layers=2, heads=2, grid=4, enlarge=2)
        backbone = Hybrid("small", sizes)
        images = torch.randn(2, 3, 32, 32)
        expected = backbone.model.visual(backbone.trunk.features(images))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    masked = images.clone().requires_grad_()
    found = global_embedding(backbone, masked)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    found.square().sum().backward()
    assert masked.grad.abs().sum() > 0
    rough = global_encoder(backbone, "bfloat16")(images)
    assert rough.dtype == torch.float32
    assert F.cosine_similarity(rough, expected).min() > 0.99
    after = backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_other_towers_give_the_projection_of_the_mean():
    backbone, images = TinyBackbone(), torch.randn(2, 3, 64, 32)
    expected = backbone.dense(images).mean(dim=(2, 3))
    torch.testing.assert_close(global_embedding(backbone, images), expected)


def test_batches_are_cropped_like_the_features(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    loader = BatchImages([tmp_path / "a.png", colours[:32, :32]], 32, (0.5,) * 3, (0.25,) * 3)
    images = loader([1, 0, 1])
    assert images.shape == (3, 3, 32, 32) and torch.equal(images[0], images[2])
    whole = torch.from_numpy(colours[:32, :32]).permute(2, 0, 1) / 255
    torch.testing.assert_close(images[0], (whole - 0.5) / 0.25)


def test_names_of_the_published_runs_stay():
    assert config_hash(scenes_training()) == "9ef4a9b56337"
    assert config_hash(photos_training()) == "834fb6cfdb5c"
    assert json.loads(json.dumps(to_dict(scenes_training())))["loss"] == to_dict(
        LossConfig(alpha=0.34)
    )


@pytest.mark.parametrize("training", [scenes_training(), photos_training()])
def test_only_the_objective_differs(training):
    ours, theirs = to_dict(training), to_dict(tcl_training(training))
    assert {key for key in ours if ours[key] != theirs[key]} == {"loss"}
    assert set(theirs["loss"]) & set(ours["loss"]) == {"temperature"}
    assert config_hash(training) != config_hash(tcl_training(training))
    prior = tcl_training(training, area_prior=0.2).loss
    assert prior == TCLConfig(area_prior=0.2)
