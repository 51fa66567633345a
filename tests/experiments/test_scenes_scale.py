"""The scenes scale end to end with few images and a random backbone, and image-level accuracy."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from tiny import Hashes
from torch.nn import functional as F

from mgca.backbone.hybrid import Hybrid, HybridConfig
from mgca.config import to_dict
from mgca.data.scenes.scene import THINGS
from mgca.data.scenes.sets import VALIDATION_SEED, evaluation_set, training_pairs
from mgca.evaluation.evaluate import evaluate
from mgca.experiments import publish
from mgca.experiments import scenes as scale
from mgca.experiments.publish import embed_images, image_level
from mgca.experiments.scenes import SIDE, ScenesScale
from mgca.model import Model
from mgca.prompts import class_embeddings
from mgca.training.trainer import Trainer

SIZES = HybridConfig(dim=16, width=32, layers=1, heads=1, grid=SIDE // 16)
SETS = {"things": 21, "scenes": 30, "open": 50}


@pytest.fixture(autouse=True)
def quick_digests(monkeypatch):
    """Digests of sets draw less: other tests see to what they name."""
    monkeypatch.setattr("mgca.data.scenes.sets._PROBES", 1)


@pytest.fixture(scope="module")
def random_hybrid():
    """The same random weights whatever the last block."""
    made = {}

    def load(name: str, *, pretrained: bool = True, last_block: str = "value") -> Hybrid:
        if last_block not in made:
            torch.manual_seed(3)
            made[last_block] = Hybrid(name, SIZES, last_block=last_block)
        return made[last_block]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mgca.backbone.hybrid.SentenceEncoder", Hashes)
        for last_block in ("value", "attention"):
            load("scenes", last_block=last_block)
    return load


@pytest.fixture
def scenes(random_hybrid, monkeypatch, tmp_path):
    monkeypatch.setattr(scale, "load_hybrid", random_hybrid)
    monkeypatch.setattr(scale, "IMAGES", 6)
    for kept in (scale._pairs, scale._pool):
        kept.cache_clear()
    yield ScenesScale(tmp_path, seed=VALIDATION_SEED, images=2)
    for kept in (scale._pairs, scale._pool):
        kept.cache_clear()


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Call it, and from then on every feature has to come from the cache."""
    return lambda: monkeypatch.setattr(Hybrid, "tokens", lambda *_: pytest.fail("computed again"))


def test_sets_are_those_of_the_seed(scenes, tmp_path):
    sets = scenes.sets()
    assert [data.name for data in sets] == list(scenes.datasets) == list(SETS)
    assert [len(data.classes) + data.background for data in sets] == list(SETS.values())
    expected = [evaluation_set(name, 2, VALIDATION_SEED).digest for name in SETS]
    assert [data.digest for data in sets] == expected
    assert {len(data) for data in sets} == {2}
    for names in scenes.groups.values():
        assert set(names) <= set(scenes.datasets)
    other = [data.digest for data in ScenesScale(tmp_path, images=2).sets()]
    assert not set(other) & set(expected)


def test_every_set_has_a_digest_and_so_has_the_training(scenes):
    digests = scenes.digests()
    assert len(digests) == len(set(digests.values())) == 4
    assert training_pairs(6, 0).digest in digests.values()
    for data in scenes.sets():
        assert digests[data.name] == data.digest


def test_an_image_is_one_window(scenes):
    config = scenes.segment()
    model = Model(scenes.backbone(0), config=config)
    for data in scenes.sets():
        for _, image, _ in data:
            geometry, windows = model.windows(image)
            assert windows.shape == (1, 3, SIDE, SIDE) == (1, 3, *geometry.padded)
            assert image.size == geometry.size == (SIDE, SIDE)


@pytest.mark.parametrize("last_block", ["value", "attention"])
def test_every_set_can_be_evaluated(scenes, last_block):
    model = Model(scenes.backbone(0, last_block), config=scenes.segment())
    assert model.backbone.last_block == last_block
    background = scenes.background(model)
    assert set(background) == {"background", "temperature"}
    assert 0 <= background["background"] <= 1 and background["temperature"] > 0
    for data in scenes.sets():
        confusions = evaluate(model, data, (None, 36), **background)
        assert set(confusions) == {"pixel", "36"}
        for confusion in confusions.values():
            assert confusion.counts.shape == (SETS[data.name],) * 2
            assert confusion.counts.sum() == 2 * SIDE * SIDE
            assert 0 <= confusion.miou <= 100
    things = scenes.sets()[0]
    with pytest.raises(ValueError, match="things has a background"):
        evaluate(model, things)


def test_what_runs_share_is_prepared(scenes, nothing_is_computed):
    scenes.prepare({"value": True, "attention": False})
    nothing_is_computed()
    data = scenes.data(scenes.backbone(0))
    assert data.features.shape == (6, 32, 7, 7) and data.texts.shape == (len(data.pool.texts), 16)
    assert np.isfinite(data.features).all() and data.texts.isfinite().all()
    assert len(data.pool.originals) == 6
    for last_block in (scenes.training.last_block, scenes.baseline_block):
        model = Model(scenes.backbone(0, last_block), config=scenes.segment())
        for masked in scenes.sets():
            evaluate(model, masked, features=scenes.cache, **scenes.background(model))
    scenes.prepare({"value": True, "attention": False})


def test_its_configuration_trains_on_its_data(scenes, tmp_path):
    backbone = scenes.backbone(0, scenes.training.last_block)
    config = dataclasses.replace(scenes.training, steps=2, batch_size=4)
    decoder = Trainer(config, backbone, scenes.data(backbone)).run(tmp_path / "run")
    model = Model(backbone, decoder, scenes.segment())
    _, image, mask = next(iter(scenes.sets()[0]))
    labels = model.segment(image, ["a boat", "grass"]).labels
    assert labels.shape == mask.shape


def test_it_travels_to_other_processes(scenes):
    again = pickle.loads(pickle.dumps(scenes))
    assert [data.digest for data in again.sets()] == [data.digest for data in scenes.sets()]
    assert again.training == scenes.training and again.cache == scenes.cache


def test_settings_name_what_results_depend_on(scenes, tmp_path, monkeypatch):
    def settings(**options):
        return json.dumps(ScenesScale(tmp_path, **options).settings, sort_keys=True)

    first = settings()
    assert settings() == first
    found = {first, settings(images=3), settings(seed=VALIDATION_SEED)}
    monkeypatch.setattr(scale, "IMAGES", 7)
    found.add(settings())
    monkeypatch.setattr(ScenesScale, "threshold", 0.123)
    found.add(settings())
    monkeypatch.setattr(scale, "manifest", lambda: {"scenes-clip": "other weights"})
    found.add(settings())
    assert len(found) == 6


def test_the_small_clip_is_made_for_images_of_this_size():
    config = scale.scenes_clip()
    assert config.sizes.grid * 16 == config.sizes.enlarge * SIDE
    json.dumps(to_dict(config))


# Image-level accuracy


def test_image_embeddings_are_open_clips_own(random_hybrid):
    backbone = random_hybrid("scenes")
    pictures = list(training_pairs(3, VALIDATION_SEED).images)
    found = embed_images(backbone, pictures, batch=2)
    assert found.shape == (3, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    for picture, embedding in zip(pictures, found, strict=True):
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        pixels = (pixels - backbone.mean[0]) / backbone.std[0]
        expected = backbone.model.visual(backbone.trunk.features(pixels[None]))[0]
        torch.testing.assert_close(embedding, expected / expected.norm(), rtol=1e-3, atol=1e-4)


METRICS = ["top word present", "largest thing first", "R@1", "R@5"]


def test_image_level_accuracy_is_in_percent(random_hybrid):
    measured = image_level(random_hybrid("scenes"), 4, VALIDATION_SEED)
    assert list(measured) == METRICS
    assert all(value in (0, 25, 50, 75, 100) for value in measured.values())
    assert measured["R@1"] <= measured["R@5"] == 100  # of four


@pytest.mark.parametrize(
    "rank, shift, expected",
    [(0, 0, (100, 100, 100, 100)), (1, 1, (100, 0, 0, 100)), (-1, 5, (0, 0, 0, 0))],
)
def test_image_level_accuracy_of_known_embeddings(
    random_hybrid, monkeypatch, rank, shift, expected
):
    """Images with the embedding of their ``rank``-th largest thing, then of another's caption."""
    backbone, images = random_hybrid("scenes"), 8
    data = evaluation_set("scenes", images, seed=VALIDATION_SEED)
    areas = [np.bincount(mask.ravel(), minlength=len(data.classes)) for _, _, mask in data]
    things = [area[: len(THINGS)] for area in areas]
    chosen = [np.argsort(-area, kind="stable")[rank] for area in things]
    assert all((area[k] > 0) == (rank >= 0) for area, k in zip(things, chosen, strict=True))
    names = class_embeddings(backbone, data.classes)[chosen]
    own = [captions[0] for captions in training_pairs(images, VALIDATION_SEED).captions]
    assert len(set(own)) == images
    captions = F.normalize(backbone.encode_text(own), dim=-1)
    # As many captions as the shift says are more similar to an image than its own.
    rings = torch.eye(images)
    scores = sum(0.9**k * rings.roll(k, dims=1) for k in range(images))
    # Each image is compared with captions, at a level of its own, not a caption with images.
    scores = scores.roll(shift, dims=0) * torch.linspace(1, 9, images)[:, None]
    found = scores @ torch.linalg.pinv(captions).t()
    given = iter([names, found])
    monkeypatch.setattr(publish, "embed_images", lambda *_: next(given))
    measured = image_level(backbone, images, VALIDATION_SEED)
    assert tuple(measured[name] for name in METRICS) == pytest.approx(expected)
