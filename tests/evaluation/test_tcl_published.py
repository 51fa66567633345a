"""TCL as published, from a random checkpoint in the release's layout, against a slow forward."""

import copy
import math
import os
import subprocess
from collections import OrderedDict

import numpy as np
import pytest
import reference_tcl
import torch
from torch.nn import functional as F

from mgca.backbone import PlainViT
from mgca.config import SegmentConfig
from mgca.evaluation.baselines.models import TCLModel
from mgca.evaluation.baselines.tcl import TCLDecoder, TCLSegmenter, load_tcl, read_checkpoint
from mgca.inference.score_map import ScoreMap
from mgca.inference.segmentation import Segmentation
from mgca.weights import WeightsError

# isort: split
# After mgca.backbone, which lets them import beside a CPU build of torch.
import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

WIDTH, DIM, LAYERS = 12, 8, 3
ENCODER = "masker.image_encoder."
BLOCK = f"{ENCODER}backbone.transformer.resblocks.{LAYERS - 1}."


class Settings:
    """What the release's code keeps beside the weights: an object of another library."""

    def __init__(self):
        self.metadata = {"type": dict, "of": self.__class__}


@pytest.fixture(scope="module")
def backbone() -> PlainViT:
    torch.manual_seed(2)
    vision = CLIPVisionCfg(image_size=8, layers=LAYERS, width=WIDTH, head_width=6, patch_size=4)
    text = CLIPTextCfg(context_length=8, vocab_size=32, width=8, heads=2, layers=1)
    model = open_clip.CLIP(DIM, vision, text, quick_gelu=True).double().eval()
    with torch.no_grad():
        for parameter in model.visual.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return PlainViT("small", model, None, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def state(backbone) -> dict[str, torch.Tensor]:
    """A random state dict, keys and shapes as the release's code makes them."""
    shapes = {
        f"{BLOCK}attn.in_proj_weight": (3 * WIDTH, WIDTH),
        f"{BLOCK}attn.in_proj_bias": (3 * WIDTH,),
        f"{BLOCK}attn.out_proj.weight": (WIDTH, WIDTH),
        f"{BLOCK}attn.out_proj.bias": (WIDTH,),
        f"{BLOCK}ln_1.weight": (WIDTH,),
        f"{BLOCK}ln_1.bias": (WIDTH,),
        f"{BLOCK}mlp.c_fc.weight": (4 * WIDTH, WIDTH),
        f"{BLOCK}mlp.c_fc.bias": (4 * WIDTH,),
        f"{BLOCK}mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
        f"{BLOCK}mlp.c_proj.bias": (WIDTH,),
        f"{BLOCK}ln_2.weight": (WIDTH,),
        f"{BLOCK}ln_2.bias": (WIDTH,),
    }
    for stage in (0, 1):
        for part in ("conv", "conv2"):
            name = f"{ENCODER}decoder.decoder.net.{stage}.{part}."
            shapes |= {
                f"{name}norm.weight": (WIDTH,),
                f"{name}norm.bias": (WIDTH,),
                f"{name}conv.weight": (WIDTH, WIDTH, 3, 3),
                f"{name}conv.bias": (WIDTH,),
                f"{name}gate.gate": (),
            }
    shapes |= {
        f"{ENCODER}decoder.image_proj.proj": (WIDTH, DIM),
        f"{ENCODER}decoder.image_proj.ln.weight": (WIDTH,),
        f"{ENCODER}decoder.image_proj.ln.bias": (WIDTH,),
        "masker.sim2mask.w": (),
        "masker.sim2mask.b": (),
        "clip_text_encoder.clip_text.token_embedding.weight": (5, 3),
        "tcli_loss.logit_scale": (),
        "tclf_loss.logit_scale": (),
    }
    generator = torch.Generator().manual_seed(4)
    random = {
        key: 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        for key, shape in shapes.items()
    }
    visual = backbone.model.visual.state_dict()
    for key, value in visual.items():
        if key not in ("proj", "ln_post.weight", "ln_post.bias"):
            # Rounded, as in a copy that was trained in half precision.
            random[f"clip_image_encoder.clip_visual.{key}"] = value.half().float()
    random["clip_image_encoder.clip_proj.proj"] = visual["proj"]
    random["clip_image_encoder.clip_proj.ln.weight"] = visual["ln_post.weight"]
    random["clip_image_encoder.clip_proj.ln.bias"] = visual["ln_post.bias"]
    return random


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint as the release's code does, with what stands beside the weights."""

    def save(state, **more):
        beside = {
            "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
            "scaler": {},
            "step": 50_000,
            "config": Settings(),
            "metrics": {"val/avg_miou": np.float64(33.9)},
        }
        path = tmp_path / "tcl.pth"
        torch.save({"model": OrderedDict(state)} | beside | more, path)
        return path

    return save


def images(*size):
    return torch.randn(2, 3, *size, dtype=torch.float64)


@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
@pytest.mark.parametrize("kp_weight", [0.0, 0.3])
def test_it_is_the_published_network(backbone, state, save, size, kp_weight):
    segmenter = load_tcl(save(state), backbone, kp_weight=kp_weight)
    inputs, texts = images(*size), torch.randn(3, DIM, dtype=torch.float64)
    grid = (size[0] // 4, size[1] // 4)
    pixels = segmenter.pixels(inputs)
    assert pixels.shape == (2, DIM, 4 * grid[0], 4 * grid[1])
    found = segmenter.maps(inputs, texts)
    clip = {f"block.{key}": value for key, value in backbone.model.visual.state_dict().items()}
    for number in range(2):
        tokens = backbone.tokens(inputs)[number]
        expected = reference_tcl.published_pixels(tokens, grid, state, LAYERS - 1)
        torch.testing.assert_close(pixels[number].permute(1, 2, 0), expected)
        scores = reference_tcl.published_scores(expected, texts, state)
        if kp_weight:
            last = f"block.transformer.resblocks.{LAYERS - 1}"
            dense = [reference_tcl.value_only(token, clip, last) for token in tokens[1:]]
            dense = [
                reference_tcl.norm(x, clip, "block.ln_post") @ clip["block.proj"] for x in dense
            ]
            dense = torch.stack(dense).view(*grid, DIM)
            torch.testing.assert_close(segmenter.dense(inputs)[number].permute(1, 2, 0), dense)
            scores = reference_tcl.kp_scores(scores, dense, texts, kp_weight)
        torch.testing.assert_close(found[number], scores, rtol=1e-5, atol=1e-6)


def test_scores_of_cosines_are_those_of_the_maps(backbone, state, save):
    segmenter = load_tcl(save(state), backbone)
    assert segmenter.w == pytest.approx(state["masker.sim2mask.w"].item())
    inputs, texts = images(8, 8), F.normalize(torch.randn(3, DIM, dtype=torch.float64), dim=1)
    pixels = F.normalize(segmenter.pixels(inputs), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    scores = segmenter.scores(pixels @ texts.T)
    expected = segmenter.maps(inputs, texts).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(scores, expected)
    assert 0 < scores.min() and scores.max() < 1


def test_only_the_trained_copies_change_and_name_it(backbone, state, save):
    before = backbone.model.visual.transformer.resblocks[-1].ln_1.weight.clone()
    segmenter = load_tcl(save(state), backbone)
    assert torch.equal(backbone.model.visual.transformer.resblocks[-1].ln_1.weight, before)
    assert torch.equal(segmenter.block.ln_1.weight, state[f"{BLOCK}ln_1.weight"])
    again = load_tcl(save(state), backbone)
    assert again.digest == segmenter.digest != TCLSegmenter(backbone).digest
    trained = [*segmenter.block.parameters(), *segmenter.decoder.parameters()]
    assert not any(p.requires_grad for p in trained)


def test_the_published_sizes_are_the_defaults():
    with torch.device("meta"):
        decoder = TCLDecoder()
    # Four convolutions of 768 by 768 by 9 and the projection to 512, with norms and biases.
    expected = 4 * (768 * 768 * 9 + 3 * 768 + 1) + 2 * 768 + 768 * 512
    assert sum(p.numel() for p in decoder.parameters()) == expected


def test_a_block_under_number_0_is_the_same(backbone, state, save):
    renamed = {key.replace(BLOCK, f"{BLOCK[:-2]}0."): value for key, value in state.items()}
    assert load_tcl(save(renamed), backbone).digest == load_tcl(save(state), backbone).digest


def test_the_copies_of_clip_may_be_left_out_but_must_agree(backbone, state, save):
    bare = {key: value for key, value in state.items() if key.startswith("masker.")}
    assert load_tcl(save(bare), backbone).digest == load_tcl(save(state), backbone).digest
    other = state | {"clip_image_encoder.clip_visual.conv1.weight": torch.zeros(WIDTH, 3, 4, 4)}
    with pytest.raises(WeightsError, match="another CLIP than 'small'.*conv1.weight differs"):
        load_tcl(save(other), backbone)


def test_missing_unexpected_and_misshapen_tensors_are_named(backbone, state, save):
    wrong = dict(state)
    wrong.pop("masker.sim2mask.b")
    wrong["masker.extra"] = torch.zeros(1)
    wrong[f"{ENCODER}decoder.image_proj.proj"] = torch.zeros(WIDTH, DIM + 1)
    with pytest.raises(WeightsError) as error:
        load_tcl(save(wrong), backbone)
    for part in (
        "missing: masker.sim2mask.b;",
        "unexpected: masker.extra;",
        f"of another shape: {ENCODER}decoder.image_proj.proj (12, 9) instead of (12, 8)",
    ):
        assert part in str(error.value)
    two = state | {BLOCK.replace(f".{LAYERS - 1}.", ".1.") + "ln_1.weight": torch.zeros(WIDTH)}
    with pytest.raises(WeightsError, match="trains the transformer blocks 1, 2, not the last"):
        load_tcl(save(two), backbone)


@pytest.mark.parametrize(
    "content", [{"state_dict": {}}, [1, 2], {"model": {"a": 1}}, {"model": torch.zeros(2)}]
)
def test_foreign_checkpoints_are_refused(content, tmp_path, backbone):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r'other.pth has no tensors under "model"'):
        load_tcl(tmp_path / "other.pth", backbone)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"<html>"]
)
def test_damaged_files_are_named(backbone, state, save, damage):
    path = save(state)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match="tcl.pth is not a complete checkpoint"):
        load_tcl(path, backbone)
    with pytest.raises(WeightsError, match="no weights file"):
        load_tcl(path.with_name("none.pth"), backbone)


@pytest.mark.parametrize("function", [subprocess.check_call, os.system, eval])
def test_a_checkpoint_executes_nothing(state, save, tmp_path, function):
    mark = tmp_path / "executed"
    argument = {
        subprocess.check_call: ["touch", str(mark)],
        os.system: f"touch {mark}",
        eval: f"open({str(mark)!r}, 'w')",
    }[function]

    class Trap:
        def __reduce__(self):
            return function, (argument,)

    path = save(state, config=Trap())
    if function is os.system:  # PyTorch refuses its module by name
        with pytest.raises(WeightsError, match="not to be read without executing it"):
            read_checkpoint(path)
    else:
        assert set(read_checkpoint(path)) == set(state)
    assert not mark.exists()
    with pytest.raises(WeightsError):
        read_checkpoint(save(state, model=Trap()))
    assert not mark.exists()


def test_a_mixture_needs_both_maps_and_a_share(backbone):
    segmenter = TCLSegmenter(backbone, kp_weight=0.3)
    with pytest.raises(ValueError, match="give cosines and dense"):
        segmenter.scores(torch.zeros(1, 2, 4, 4))
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            TCLSegmenter(backbone, kp_weight=wrong)


@pytest.mark.parametrize("unit", [None, 4])
def test_as_a_model_it_has_units_and_its_own_background(backbone, state, save, unit):
    single = copy.deepcopy(backbone).float()
    single.encode_text = lambda texts: torch.tensor(
        [[math.sin(len(text) * (k + 1)) for k in range(DIM)] for text in texts]
    )
    segmenter = load_tcl(save(state), single)
    config = SegmentConfig(short_side=16, window=16, stride=8)
    model = TCLModel(segmenter, config=config)
    classes = ["cat", "a table", "some grass"]
    image = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    found = model.segment(image, classes, unit, background=0.5, rule="sigmoid")
    geometry, windows = model.windows(image)
    assert (model.backbone.mean, model.backbone.std) == (segmenter.mean, segmenter.std)
    if unit is None:
        maps = ScoreMap.of_maps(segmenter.maps(windows, model.texts(classes)))
        expected = Segmentation(geometry, classes, maps).scores
        torch.testing.assert_close(found.scores[1:], expected, rtol=0, atol=1e-5)
    else:
        units = model.scores(model.embed(image).pixels, model.texts(classes), 2)
        assert len(units.table) == 4 * len(windows)
    assert torch.equal(found.labels, found.scores.argmax(0))
    assert (found.scores[0] == 0.5).all()
    segmenter.kp_weight = 0.3
    with pytest.raises(ValueError, match="kp_weight"):
        TCLModel(segmenter)
