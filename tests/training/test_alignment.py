"""The alignment of lite: it learns, and what is saved is what was trained."""

import hashlib
import math

import numpy as np
import pytest
import torch

from mgca.backbone.lite import Lite
from mgca.data.texts import build_pool
from mgca.training.alignment import (
    AlignConfig,
    imagenet_definitions,
    imagenet_names,
    recognised_names,
    retrieval,
    save_alignment,
    softmax_pixels,
    text_centre,
    train_alignment,
)
from mgca.weights import read_tensors

SUBJECTS = ["dog", "beach", "bicycle", "bus", "mountain", "cat", "kitchen", "horse"]


@pytest.fixture(scope="module")
def world():
    """64 images whose features are those of their one subject, and noise."""
    backbone = Lite(pretrained=False)
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.rand(len(SUBJECTS), 1280, 1, 1, generator=generator)
    subject = torch.arange(64) % len(SUBJECTS)
    noise = 0.3 * torch.rand(64, 1280, 3, 3, generator=generator)
    features = (prototypes[subject] + noise).numpy().astype(np.float16)
    pool = build_pool([[f"There is a {SUBJECTS[i]}."] for i in subject])
    texts = backbone.text(pool.texts).detach()
    names = backbone.text(imagenet_names()[:1000]).detach()[:, None]
    return backbone, features, pool, texts, names


def test_alignment_learns_and_what_is_saved_is_what_was_trained(world, tmp_path):
    backbone, features, pool, texts, names = world
    config = AlignConfig(epochs=30, batch_size=16, names=0.1)
    measured = train_alignment(config, backbone, features, pool, texts, names)
    assert measured["temperature"] == backbone.temperature
    own = backbone.from_sentences(texts[[own[0] for own in pool.originals]])
    assert retrieval(backbone, features[:8], own[:8])["R@1"] == 100
    assert torch.equal(backbone.text_centre, text_centre(pool, texts).half().float())

    path = save_alignment(tmp_path / "a.safetensors", backbone, run="r")
    again = save_alignment(tmp_path / "b.safetensors", backbone, run="r")
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()
    state, meta = read_tensors(path)
    for name, value in backbone.alignment().items():
        assert torch.equal(state[name], value)
    assert float(meta["temperature"]) == backbone.temperature

    digest = backbone.digest
    backbone.set_alignment(weight=state["weight"] * 2)
    assert backbone.digest != digest


def test_too_few_images_for_a_batch(world):
    backbone, features, pool, texts, names = world
    with pytest.raises(ValueError, match="do not fill a batch of 512"):
        train_alignment(AlignConfig(), backbone, features, pool, texts, names)


def test_recognised_names_are_the_classifiers(world):
    backbone, features, *_ = world
    known = imagenet_names()
    found = recognised_names(backbone, features[:2], known, top=3)
    pooled = torch.from_numpy(features[0].astype(np.float32)).mean(dim=(1, 2))
    probabilities = backbone.classifier(pooled).softmax(dim=-1)
    assert [name for _, name in found[0]] == [known[i] for i in probabilities.topk(3).indices]
    assert found[0][0][0] == pytest.approx(float(probabilities.max()))


def test_names_and_definitions_of_imagenet():
    names, definitions = imagenet_names(), imagenet_definitions()
    assert len(names) == 1000 and names[0] == "tench" and names[207] == "golden retriever"
    assert len(definitions) == 1000 and all(definitions)
    assert definitions[151].startswith("an old breed of tiny short-haired dog")


def test_share_of_the_softmax():
    flat = torch.ones(2, 4, 5, 5)
    texts = torch.ones(2, 4)
    assert softmax_pixels(flat, texts) == pytest.approx(1)
    peaked = flat.clone()
    peaked[:, :, 2, 3] = 100
    assert softmax_pixels(peaked, texts) == pytest.approx(1 / 25)
    half = torch.zeros(1, 1, 1, 2)
    half[..., 1] = math.log(3)  # probabilities 1/4 and 3/4
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert softmax_pixels(half, torch.ones(1, 1)) == pytest.approx(math.exp(entropy) / 2)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"names": -1.0}])
def test_bad_configurations(wrong):
    with pytest.raises(ValueError):
        AlignConfig(**wrong)
