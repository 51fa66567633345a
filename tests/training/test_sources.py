"""What a step draws of the features at hand: by seed and step alone, texts by the rule."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import TinyBackbone

from mgca.config import TrainConfig
from mgca.data.texts import build_pool, known_pairs
from mgca.training.resources import Alone, Resources
from mgca.training.sources import Cached, Place

CAPTIONS = [
    ["A dog runs over the grass.", "A brown dog plays."],
    ["Two children on a beach.", "Kids and the sea."],
    ["A man rides a bicycle.", "A cyclist on a road."],
    ["A red bus in a street.", "The bus stops."],
    ["Running quickly.", "Snow on a mountain."],
    ["A cat sleeps on a sofa.", "A cat and a cushion."],
]
NAMES = [[(0.7, "beagle"), (0.2, "lawn mower")]] * len(CAPTIONS)


@pytest.fixture(scope="module")
def backbone():
    return TinyBackbone()


@pytest.fixture(scope="module")
def data(backbone):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(len(CAPTIONS), 3, 96, 96, generator=generator)
    pool = build_pool(CAPTIONS, NAMES)
    features = backbone.features(images).numpy().astype(np.float16)
    return Cached(features, pool, backbone.encode_text(pool.texts), lambda i: images[list(i)])


@pytest.fixture
def config(backbone):
    return TrainConfig(
        backbone=backbone.name, steps=7, batch_size=3, learning_rate=1e-2, names=0.3, known=0.99
    )


def place(config, backbone):
    return Place(config, backbone, Alone(torch.device("cpu")), Resources())


def test_a_last_batch_that_is_not_full_is_left_out(data):
    assert [data.steps_per_epoch(size) for size in (2, 4, 6)] == [3, 1, 1]
    with pytest.raises(ValueError, match="6 images do not fill a batch of 8"):
        data.steps_per_epoch(8)


def test_an_epoch_sees_each_image_once_and_texts_belong_to_their_images(config, backbone, data):
    steps = list(data.batches(place(config, backbone), 0, 2))
    assert [batch.step for batch in steps] == [0, 1]
    assert sorted(image for batch in steps for image in batch.keys) == list(range(6))
    for batch in steps:
        for image, text in zip(batch.keys, batch.texts, strict=True):
            generated = [i for own in data.pool.generated[image] for filled in own for i in filled]
            named = [i for _, filled in data.pool.names[image] for i in filled]
            assert text in {*data.pool.originals[image], *generated, *named}
    other = dataclasses.replace(config, seed=1)
    assert list(data.batches(place(other, backbone), 0, 2)) != steps
    assert list(data.batches(place(config, backbone), 1, 2)) == steps[1:]


def test_what_a_step_computes_with(config, backbone, data):
    drawn = data.drawn(config, 1)
    inputs = data.encode(place(config, backbone), drawn)
    dense = backbone.project(torch.from_numpy(data.features[drawn.keys]).float())
    assert torch.equal(inputs.dense, dense)
    assert torch.equal(inputs.texts, data.texts[drawn.texts])
    known = known_pairs(data.pool, data.texts, drawn.keys, drawn.texts, 0.99)
    assert torch.equal(inputs.exclude, known) and inputs.images is None
    free = place(dataclasses.replace(config, known=None), backbone)
    assert data.encode(free, drawn).exclude is None
    assert torch.equal(data.encode(free, drawn, images=True).images, data.images(drawn.keys))


def test_a_sample_goes_through_all_images(config, backbone, data):
    dense = torch.cat(list(data.sample(place(config, backbone), 256)))
    assert torch.equal(dense, backbone.project(torch.from_numpy(data.features).float()))
    assert sum(map(len, data.sample(place(config, backbone), 3))) == 3


@pytest.mark.parametrize("rule", ["uniform", "original", "nouns"])
def test_texts_are_drawn_by_the_rule(data, rule):
    pool = data.pool
    drawn = {pool.draw(0, rule, torch.Generator().manual_seed(i)) for i in range(300)}
    originals = set(pool.originals[0])
    generated = {i for own in pool.generated[0] for filled in own for i in filled}
    expected = {"uniform": originals | generated, "original": originals, "nouns": generated}
    assert drawn == expected[rule]


def test_the_caption_is_as_likely_as_each_noun():
    pool = build_pool([["A dog and a cat."]])
    generator = torch.Generator().manual_seed(0)
    drawn = [pool.draw(0, "uniform", generator) for _ in range(3000)]
    assert np.mean([text == pool.originals[0][0] for text in drawn]) == pytest.approx(
        1 / 3, abs=0.03
    )


def test_a_caption_without_nouns_stands_for_itself():
    pool = build_pool([["Running quickly."]])
    assert pool.generated == [[[]]]
    assert pool.draw(0, "nouns", torch.Generator().manual_seed(0)) == pool.originals[0][0]


def test_names_take_the_place_of_captions_at_their_share(data):
    pool = data.pool
    generator = torch.Generator().manual_seed(0)
    beagle, mower = (set(filled) for _, filled in pool.names[0])
    drawn = [pool.draw(0, "original", generator, names=0.5) for _ in range(4000)]
    assert np.mean([text in beagle for text in drawn]) == pytest.approx(0.5 * 7 / 9, abs=0.03)
    assert np.mean([text in mower for text in drawn]) == pytest.approx(0.5 * 2 / 9, abs=0.03)


def test_known_pairs_are_those_of_an_images_own_texts(data):
    pool = data.pool
    images, texts = [0, 2], [pool.originals[0][1], pool.originals[2][0], pool.originals[3][0]]
    known = known_pairs(pool, data.texts, images, texts, 0.999)
    assert known.tolist() == [[True, False, False], [False, True, False]]
    assert known_pairs(pool, data.texts, images, texts, -1.0).all()
