"""Training of the small CLIP: it learns, resumes bit for bit, and leaves weights as promised."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mgca.training.small_clip
from mgca.backbone.hybrid import Hybrid, HybridConfig
from mgca.data.texts import TextPool
from mgca.training.checkpoint import metrics_until
from mgca.training.optimiser import NotFinite
from mgca.training.small_clip import ClipConfig, train_clip
from mgca.weights import read_tensors

SIZES = HybridConfig(dim=8, width=32, layers=1, heads=1, grid=4)
CONFIG = ClipConfig(
    sizes=SIZES,
    epochs=3,
    batch_size=4,
    learning_rate=3e-3,
    pixel_norm=3.0,
    text_norm=7.0,
)
IMAGES = 9  # one more than the batches of an epoch take


@pytest.fixture
def backbone(monkeypatch):
    # Sentences are embedded before the training, which never asks for the encoder.
    monkeypatch.setattr("mgca.backbone.hybrid.SentenceEncoder", nn.Identity)
    return Hybrid("scenes", SIZES)


@pytest.fixture(scope="module")
def toy():
    """Images of a pattern each, two captions per image, and a text of nouns not to be drawn."""
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(IMAGES, 112, 4, 4, generator=generator).half().numpy()
    own = torch.randn(IMAGES, 1, 384, generator=generator)
    captions = own + 0.3 * torch.randn(IMAGES, 2, 384, generator=generator)
    sentences = torch.cat([captions.flatten(0, 1), torch.randn(1, 384, generator=generator)])
    originals = [[2 * i, 2 * i + 1] for i in range(IMAGES)]
    filled = [[[(2 * IMAGES,)]] * 2] * IMAGES
    pool = TextPool([str(i) for i in range(len(sentences))], originals, filled, [[]] * IMAGES)
    return features, pool, nn.functional.normalize(sentences, dim=1)


def bits(backbone: Hybrid) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in backbone.model.state_dict().items()}


def test_it_learns(backbone, toy, tmp_path):
    result = train_clip(dataclasses.replace(CONFIG, epochs=25), backbone, *toy, tmp_path)
    rows = metrics_until(tmp_path / "metrics.csv", 10**6)
    assert [int(row["epoch"]) for row in rows] == list(range(25))
    assert [int(row["step"]) for row in rows] == list(range(1, 50, 2))
    losses = [float(row["loss"]) for row in rows]
    assert losses[0] > 1.0 and result["loss"] == losses[-1] < 0.3 * losses[0]
    # From the weights themselves: each image is most similar to one of its own captions.
    features, pool, sentences = toy
    with torch.no_grad():
        images = backbone.model.visual(torch.from_numpy(features).float())
        texts = nn.functional.normalize(backbone.model.text(sentences[: 2 * IMAGES]), dim=1)
    found = (images @ texts.t()).argmax(dim=1) // 2
    assert (found == torch.arange(IMAGES)).float().mean() > 0.8


def test_only_captions_are_drawn(backbone, toy, tmp_path, monkeypatch):
    features, pool, sentences = toy
    seen = []

    def loss(model, images, texts, real=mgca.training.small_clip._loss):
        for image, text in zip(images, texts, strict=True):
            i = next(i for i, f in enumerate(features) if np.array_equal(f, image.numpy()))
            position = next(p for p, s in enumerate(sentences) if torch.equal(s, text))
            assert position in pool.originals[i]
            seen.append((i, position))
        return real(model, images, texts)

    monkeypatch.setattr(mgca.training.small_clip, "_loss", loss)
    train_clip(dataclasses.replace(CONFIG, epochs=8), backbone, *toy, tmp_path)
    for epoch in range(8):
        drawn = [image for image, _ in seen[8 * epoch : 8 * epoch + 8]]
        assert len(set(drawn)) == 8
    assert len({tuple(seen[8 * epoch : 8 * epoch + 8]) for epoch in range(8)}) == 8
    assert len(set(seen)) > 1.5 * IMAGES


def test_same_configuration_same_bits(backbone, toy, tmp_path):
    first = train_clip(CONFIG, backbone, *toy, tmp_path / "a")
    expected, digest = bits(backbone), backbone.digest
    # The second run starts from trained weights, and must not be the better for it.
    assert train_clip(CONFIG, backbone, *toy, tmp_path / "b") == first
    assert bits(backbone) == expected and backbone.digest == digest
    for name in ("checkpoint.safetensors", "metrics.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    train_clip(dataclasses.replace(CONFIG, seed=1), backbone, *toy, tmp_path / "c")
    assert bits(backbone) != expected and backbone.digest != digest


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("where", ["_loss", "write_metrics", "save_checkpoint"])
def test_a_resumed_run_ends_with_the_same_bits(backbone, toy, tmp_path, monkeypatch, where):
    whole = train_clip(CONFIG, backbone, *toy, tmp_path / "whole")
    expected = bits(backbone)
    # In the second epoch: amid it, before its metrics are written, and between these and the
    # checkpoint.
    calls, stop = [], 4 if where == "_loss" else 2
    real = getattr(mgca.training.small_clip, where)

    def interrupt(*arguments):
        calls.append(where)
        if len(calls) == stop:
            raise Interrupted
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(mgca.training.small_clip, where, interrupt)
        with pytest.raises(Interrupted):
            train_clip(CONFIG, backbone, *toy, tmp_path / "part")
    assert read_tensors(tmp_path / "part" / "checkpoint.safetensors")[1]["step"] == 2

    steps, loss = [], mgca.training.small_clip._loss
    with monkeypatch.context() as patch:
        patch.setattr(
            mgca.training.small_clip, "_loss", lambda *given: steps.append(given) or loss(*given)
        )
        assert train_clip(CONFIG, backbone, *toy, tmp_path / "part") == whole
    assert len(steps) == 4
    assert bits(backbone) == expected
    for name in ("checkpoint.safetensors", "metrics.csv"):
        one, other = tmp_path / "whole" / name, tmp_path / "part" / name
        assert one.read_bytes() == other.read_bytes()


def test_a_finished_run_is_not_run_again(backbone, toy, tmp_path, monkeypatch):
    first = train_clip(CONFIG, backbone, *toy, tmp_path)
    expected = bits(backbone)
    mgca.training.small_clip._initialise(backbone.model, CONFIG)
    monkeypatch.setattr(mgca.training.small_clip, "_loss", lambda *_: pytest.fail("a step was run"))
    assert train_clip(CONFIG, backbone, *toy, tmp_path) == first
    assert bits(backbone) == expected


def test_a_folder_of_another_configuration_is_refused(backbone, toy, tmp_path):
    train_clip(CONFIG, backbone, *toy, tmp_path)
    other = dataclasses.replace(
        CONFIG, learning_rate=1e-2, sizes=dataclasses.replace(SIZES, heads=2)
    )
    backbone.config = other.sizes
    with pytest.raises(
        ValueError, match=r"\(learning_rate: 0.003 there, 0.01 here; sizes.heads: 1 there, 2 here\)"
    ):
        train_clip(other, backbone, *toy, tmp_path)


def test_images_must_fill_a_batch(backbone, toy, tmp_path):
    config = dataclasses.replace(CONFIG, batch_size=IMAGES + 1)
    with pytest.raises(ValueError, match="9 images do not fill a batch of 10"):
        train_clip(config, backbone, *toy, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"weight_decay": -0.1},
        {"pixel_norm": 0.0},
        {"text_norm": -1.0},
    ],
)
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(ValueError, match="positive"):
        dataclasses.replace(CONFIG, **wrong)


def nan(loss: Tensor, model: nn.Module) -> Tensor:
    return loss * torch.nan


def infinite_gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """The loss itself stays finite."""
    return loss + (model.logit_scale - model.logit_scale.detach()).sqrt()


@pytest.mark.parametrize("poison", [nan, infinite_gradient])
def test_what_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    backbone, toy, tmp_path, monkeypatch, poison
):
    train_clip(CONFIG, backbone, *toy, tmp_path / "whole")
    expected, calls = bits(backbone), []

    def loss(model, *given, real=mgca.training.small_clip._loss):
        calls.append(given)
        value = real(model, *given)
        # The last step of an epoch: unnoticed, it would get into the checkpoint.
        return poison(value, model) if len(calls) == 4 else value

    with monkeypatch.context() as patch:
        patch.setattr(mgca.training.small_clip, "_loss", loss)
        with pytest.raises(NotFinite, match=r"step 3: the loss is .*Lower learning_rate"):
            train_clip(CONFIG, backbone, *toy, tmp_path / "part")
    state, meta = read_tensors(tmp_path / "part" / "checkpoint.safetensors")
    assert meta["step"] == 2 and all(value.isfinite().all() for value in state.values())
    train_clip(CONFIG, backbone, *toy, tmp_path / "part")
    assert bits(backbone) == expected


def test_weights_are_left_as_they_are_kept(backbone, toy, tmp_path):
    result = train_clip(CONFIG, backbone, *toy, tmp_path)
    features, _, sentences = toy
    pixels = backbone.project(backbone.from_trunk(torch.from_numpy(features).float()))
    assert pixels.norm(dim=1).square().mean().sqrt() == pytest.approx(3.0, rel=5e-3)
    texts = backbone.model.text(sentences)
    assert texts.norm(dim=1).square().mean().sqrt() == pytest.approx(7.0, rel=5e-3)
    for parameter in backbone.model.parameters():
        assert torch.equal(parameter, parameter.half().float())
        assert not parameter.requires_grad
    # Temperature and digests are those of the weights as they are now.
    assert result["temperature"] == backbone.temperature
    assert backbone.temperature == pytest.approx(float((-backbone.model.logit_scale).exp()))
    before = backbone.digest, backbone.text_digest
    backbone.refresh()
    assert (backbone.digest, backbone.text_digest) == before


def test_norms_change_no_direction(backbone, toy, tmp_path):
    features, sentences = torch.from_numpy(toy[0]).float(), toy[2]
    found = []
    for norms in ({"pixel_norm": 1.0, "text_norm": 2.0}, {"pixel_norm": 30.0, "text_norm": 1.0}):
        train_clip(dataclasses.replace(CONFIG, **norms), backbone, *toy, tmp_path / str(norms))
        pixels = backbone.project(backbone.from_trunk(features))
        found.append((pixels, backbone.model.text(sentences)))
    (pixels, texts), (more, fewer) = found
    torch.testing.assert_close(more, 30 * pixels, rtol=0.02, atol=0.05)
    torch.testing.assert_close(fewer, texts / 2, rtol=0.02, atol=0.005)


def test_matrices_decay_and_nothing_else(backbone):
    decaying, others = mgca.training.small_clip._groups(backbone.model, CONFIG)
    assert (decaying["weight_decay"], others["weight_decay"]) == (CONFIG.weight_decay, 0)
    assert {p.ndim for p in others["params"]} == {0, 1} and len(decaying["params"]) > 4
    everything = list(backbone.model.parameters())
    assert len(decaying["params"]) + len(others["params"]) == len(everything)
    assert any(p is backbone.model.logit_scale for p in others["params"])


def test_a_configuration_of_other_sizes_or_without_names_is_refused(backbone, toy, tmp_path):
    other = dataclasses.replace(CONFIG, sizes=dataclasses.replace(SIZES, dim=4))
    with pytest.raises(ValueError, match="the configuration is for"):
        train_clip(other, backbone, *toy, tmp_path)
    with pytest.raises(ValueError, match="recognised names"):
        train_clip(dataclasses.replace(CONFIG, names=0.5), backbone, *toy, tmp_path)
    for wrong in ({"names": 1.5}, {"warmup": -0.1}, {"learning_rate": float("nan")}):
        with pytest.raises(ValueError, match="must"):
            dataclasses.replace(CONFIG, **wrong)
