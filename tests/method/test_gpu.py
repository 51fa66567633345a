"""On a GPU all is as on a CPU, but for rounding; and the same from run to run, to the bit."""

import dataclasses

import numpy as np
import pytest
import torch
import trains
from evaluated import UNITS, folders, load, tiny
from tiny import TinyBackbone

from mgca.backbone import load_backbone
from mgca.config import LossConfig, SegmentConfig
from mgca.data.shards import find_shards
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.evaluate import evaluate
from mgca.losses import MGCA, TCLConfig
from mgca.model import Model
from mgca.training.optimiser import NotFinite
from mgca.training.resources import launch
from mgca.training.sources import Streamed
from mgca.training.trainer import Trainer
from mgca.units import semantic_units
from mgca.utils.devices import allow_tf32, pick_device

__all__ = ["folders"]
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = "cuda"


@pytest.fixture(autouse=True)
def exact():
    """float32 is float32."""
    allow_tf32(pick_device(GPU), False)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return trains.noise_shards(tmp_path_factory.mktemp("shards"))


def pairs(images: int = 6, dim: int = 32, side: int = 12):
    pixels = torch.randn(images, dim, side, side, dtype=torch.float64)
    return pixels, torch.randn(images, dim, dtype=torch.float64)


def losses(pixels, texts, *, lean):
    """Losses and the gradients of their sum, on the CPU in float64."""
    inputs = [x.detach().requires_grad_() for x in (pixels, texts)]
    found = MGCA(LossConfig(), lean=lean)(*inputs)
    gradients = torch.autograd.grad(found["total"], inputs)
    return [x.detach().cpu().double() for x in (*found.values(), *gradients)]


@pytest.mark.parametrize("kind, within", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("lean", [False, True])
def test_losses_and_gradients_are_the_plain_ones(kind, within, lean):
    given = pairs()
    found = losses(*(x.to(GPU, kind) for x in given), lean=lean)
    for ours, plain in zip(found, losses(*given, lean=False), strict=True):
        assert (ours - plain).norm() <= within * plain.norm()


@pytest.mark.parametrize("lean", [False, True])
def test_losses_are_the_same_bits_every_time(lean):
    given = [x.to(GPU, torch.float32) for x in pairs(48, 64, 14)]
    first = losses(*given, lean=lean)
    assert all(map(torch.equal, first, losses(*given, lean=lean)))


@pytest.mark.parametrize("average", ["raw", "normalised"])
def test_units_are_the_same(average):
    pixels = torch.randn(3, 24, 28, 28, dtype=torch.float64)
    assignment, units = semantic_units(pixels, 6, average=average)
    on_gpu = semantic_units(pixels.to(GPU), 6, average=average)
    assert torch.equal(on_gpu[0].cpu(), assignment)
    torch.testing.assert_close(on_gpu[1].cpu(), units, rtol=1e-10, atol=1e-12)


def trained(folder, shards, *, device=GPU, until=None, cached=False, **values):
    """The decoder of a short run; interrupted before a step where ``until`` names one."""
    train = dataclasses.replace(trains.CONFIG.train, **values)
    config = dataclasses.replace(trains.CONFIG, train=train)
    resources = dataclasses.replace(trains.RESOURCES, accelerator=device)
    source = trains.noise_features() if cached else Streamed(find_shards(shards), config.stream)
    process = launch(resources, train)
    trainer = Trainer(config, TinyBackbone(), source, resources, process=process)

    def interrupt(row):
        if row["step"] == until:
            raise KeyboardInterrupt

    try:
        decoder = trainer.run(folder, on_step=interrupt)
    except KeyboardInterrupt:
        return None
    return {name: value.cpu() for name, value in decoder.state_dict().items()}


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("loss", [LossConfig(), TCLConfig()])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, shards, cached, loss):
    options = {"cached": cached, "loss": loss}
    whole = trained(tmp_path / "whole", shards, **options)
    assert same(whole, trained(tmp_path / "again", shards, **options))
    assert trained(tmp_path / "part", shards, until=5, **options) is None
    assert same(whole, trained(tmp_path / "part", shards, **options))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_resumes_too(tmp_path, shards, precision):
    whole = trained(tmp_path / "whole", shards, precision=precision)
    assert trained(tmp_path / "part", shards, until=5, precision=precision) is None
    assert same(whole, trained(tmp_path / "part", shards, precision=precision))


def test_training_ends_where_a_cpu_does(tmp_path, shards):
    ours = trained(tmp_path / "gpu", shards)
    theirs = trained(tmp_path / "cpu", shards, device="cpu")
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_a_loss_that_is_not_finite_stops_training(tmp_path, shards, monkeypatch):
    def broken(self, pixels, texts, first=0):
        return {"object": pixels.sum() * torch.full((len(pixels), len(texts)), torch.nan).to(GPU)}

    monkeypatch.setattr(MGCA, "logits", broken)
    with pytest.raises(NotFinite):
        trained(tmp_path, shards)


@pytest.mark.parametrize("last_block", ["value", "naclip"])
@pytest.mark.parametrize("points", [None, 36])
def test_labels_of_the_papers_encoder(last_block, points):
    backbone = load_backbone("vit-b-16", pretrained=False, last_block=last_block)
    model = Model(backbone, GatedConvDecoder(backbone.dim), SegmentConfig())
    image = np.random.default_rng(0).integers(0, 256, (28, 40, 3), dtype=np.uint8)
    image = image.repeat(16, 0).repeat(16, 1)
    classes = ["dog", "cat", "grass", "sky", "a red car"]
    expected = model.segment(image, classes, points)
    found = model.to(GPU).segment(image, classes, points)
    assert (found.labels.cpu() == expected.labels).float().mean() >= 0.998
    torch.testing.assert_close(found.scores.cpu(), expected.scores, rtol=0, atol=2e-3)


def test_evaluation_counts_what_a_cpu_does(folders):
    masked, model = load(folders), tiny()
    expected = evaluate(model, masked, UNITS)
    found = evaluate(model.to(GPU), masked, UNITS)
    for unit, confusion in expected.items():
        moved = np.abs(confusion.counts - found[unit].counts).sum()
        assert moved <= 0.004 * confusion.counts.sum()
