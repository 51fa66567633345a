"""Positions of positive and negative pixels, and what scenes truly show there."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mgca
from mgca.data.scenes import CLASSES, TEST_SEED, WorldConfig, captions, compose, render, sentences
from mgca.data.scenes.scene import TELLING, random
from mgca.experiments.report.correspondence import (
    by_rank,
    contents,
    cut_out,
    described,
    frozen_features,
    kept,
    named,
    photo_pairs,
    scene_pairs,
    worded_photographs,
)
from mgca.losses.levels import region_embeddings
from mgca.prompts import CLIP_TEMPLATES


@pytest.fixture(scope="module")
def pairs():
    return scene_pairs(12)


def distinct(*shape, seed=0):
    """Scores of which no two are equal."""
    generator = torch.Generator().manual_seed(seed)
    number = int(np.prod(shape))
    return (torch.randperm(number, generator=generator).double() - number / 2).view(shape) / 7


@settings(max_examples=40, deadline=None, derandomize=True)
@given(area=st.sampled_from([0.001, 0.05, 0.29, 0.4, 1.0]), seed=st.integers(0, 99))
def test_kept_pixels_are_those_that_the_losses_average(area, seed):
    scores = distinct(2, 3, 20, seed=seed)
    inside = kept(scores, area)
    assert inside.dtype == torch.bool
    assert (inside.sum(-1) == max(1, int(area * 20))).all()
    # The weights of the losses are the softmax over the pixels kept.
    weights = scores.masked_fill(~inside, -torch.inf).softmax(-1)
    pixels = torch.randn(
        2, 5, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    expected = torch.einsum("btn,bcn->btc", weights, pixels.flatten(2))
    torch.testing.assert_close(region_embeddings(pixels, scores, area), expected)


def test_ranks_fall_and_ties_keep_the_order_of_the_pixels():
    scores = torch.tensor([[0.1, 3.0, 2.0, 3.0]])
    values = torch.tensor([[10, 11, 12, 13]])
    assert by_rank(scores, values).tolist() == [[11, 13, 12, 10]]


def test_ranked_values_follow_each_row_of_scores():
    scores = distinct(3, 4, 11)
    torch.testing.assert_close(by_rank(scores, scores), scores.sort(-1, descending=True).values)


def test_pairs_are_the_scenes_of_the_world(pairs):
    config = WorldConfig()
    assert len(pairs.images) == len(pairs.captions) == len(pairs.masks) == 12
    for index in (0, 7):
        scene = compose(config, TEST_SEED, index)
        image, mask = render(config, scene)
        assert np.array_equal(np.asarray(pairs.images[index]), image)
        assert np.array_equal(pairs.masks[index], mask)
        told = captions(config, scene, random(TEST_SEED, TELLING, index))
        assert pairs.captions[index] == told[0]
    assert scene_pairs(2, seed=5).captions != pairs.captions[:2]


@pytest.mark.parametrize(("count", "seed"), [(0, 2), (1, -1)])
def test_pairs_that_cannot_be_drawn(count, seed):
    with pytest.raises(ValueError, match="expected at least 1|must not be negative"):
        scene_pairs(count, seed)


def test_photographs_with_a_caption_each():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    photos = photo_pairs(56)
    assert len(photos.images) == len(set(photos.captions)) == len(set(photos.names)) == 7
    assert {image.size for image in photos.images} == {(56, 56)}
    for name, caption in zip(photos.names, photos.captions, strict=True):
        assert name in caption.split()


def test_features_are_those_of_each_image_alone(pairs):
    model = mgca.load("scenes")
    features = frozen_features(model, pairs.images[:3])
    assert len(features) == 3 and model.pixels(features).shape[1] == model.backbone.dim
    for image, own in zip(pairs.images, features, strict=False):
        torch.testing.assert_close(frozen_features(model, [image])[0], own)
    # As the windows of inference are: this scene is one window.
    _, windows = model.windows(pairs.images[0])
    torch.testing.assert_close(model.features(windows)[0], features[0])


def test_what_a_caption_names_is_what_the_world_meant():
    """Right words are contents of the scene, wrong ones are not in it."""
    config = WorldConfig(wrong=0.3)
    wrong = 0
    for index in range(60):
        scene = compose(config, TEST_SEED, index)
        for told in sentences(config, scene, random(TEST_SEED, TELLING, index), 2):
            names = {CLASSES[k] for k in named(told.text)}
            meant = {scene.contents[k].name for k in told.contents}
            present = {content.name for content in scene.contents}
            assert names & present == meant
            assert len(names - present) <= told.wrong
            wrong += told.wrong
    assert wrong > 10


def test_names_are_whole_words_in_any_case():
    assert [CLASSES[k] for k in named("Brick, with a red STAR.")] == ["star", "brick"]
    assert named("a starfish on bricks") == ()


def test_templates_name_nothing():
    words = re.findall(r"[a-z]+", " ".join(CLIP_TEMPLATES).lower())
    assert not set(words) & set(CLASSES)


def test_contents_are_shares_of_the_area_of_a_pixel():
    masks = np.zeros((1, 4, 4), np.uint8)
    masks[0, 0, 2] = 3  # one of the four image pixels of the upper right pixel
    masks[0, 2:, :2] = 29  # the lower left pixel
    shares = contents(masks, 2)
    assert shares.shape == (1, len(CLASSES), 4)
    assert shares[0, 0].tolist() == [1, 0.75, 0, 1]
    assert shares[0, 3].tolist() == [0, 0.25, 0, 0]
    assert shares[0, 29].tolist() == [0, 0, 1, 0]


def test_shares_add_up(pairs):
    shares = contents(pairs.masks, 28)
    assert shares.shape == (12, len(CLASSES), 784)
    torch.testing.assert_close(shares.sum(1), torch.ones(12, 784))


def test_masks_that_do_not_divide():
    with pytest.raises(ValueError, match="5 x 4 do not divide into 2 x 2"):
        contents(np.zeros((1, 5, 4), np.uint8), 2)


def test_described_adds_the_classes_that_a_text_names(pairs):
    shares = contents(pairs.masks, 14)
    texts = ["a star on grass", "nothing at all", ", ".join(CLASSES)]
    truth = described(shares, texts)
    assert truth.shape == (12, 3, 196)
    star, grass = CLASSES.index("star"), CLASSES.index("grass")
    torch.testing.assert_close(truth[:, 0], shares[:, star] + shares[:, grass])
    assert not truth[:, 1].any()
    torch.testing.assert_close(truth[:, 2], torch.ones(12, 196))


def test_described_area_is_the_visible_area(pairs):
    config = WorldConfig()
    truth = described(contents(pairs.masks, 28), pairs.captions)
    for index in range(12):
        scene = compose(config, TEST_SEED, index)
        names = {CLASSES[k] for k in named(pairs.captions[index])}
        area = sum(content.area for content in scene.contents if content.name in names)
        assert truth[index, index].mean().item() == pytest.approx(area, abs=1e-5)


def test_cut_out_fades_the_rest():
    image = Image.fromarray(np.full((4, 4, 3), 100, np.uint8))
    mask = torch.tensor([False, True, False, False])
    picture = cut_out(image, mask, fade=0.8)
    assert picture.shape == (4, 4, 3) and picture.dtype == np.uint8
    assert (picture[:2, 2:] == 100).all()  # the upper right quarter
    assert (picture[:2, :2] == 224).all() and (picture[2:] == 224).all()
    assert (cut_out(image, mask, fade=0) == 100).all()


def test_photographs_have_their_words():
    pytest.importorskip("skimage")
    photographs = worded_photographs()
    assert len(photographs) == len(photo_pairs().names)
    for photograph, words in photographs.values():
        assert photograph.dtype == np.uint8
        assert photograph.shape[2] == 3
        assert len(words) == len(set(words)) > 3
