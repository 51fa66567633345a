"""The scenes world: what is drawn, told and asked for agrees, and never changes by itself."""

import dataclasses
import pickle
import re

import numpy as np
import pytest
from tiny import TinyBackbone

from mgca.data.captions import Captions
from mgca.data.features import image_features
from mgca.data.scenes import (
    CLASSES,
    COLOURS,
    HELD_OUT,
    STUFFS,
    SYNONYMS,
    THINGS,
    WorldConfig,
    compose,
    described_area,
    evaluation_set,
    layout,
    render,
    sentences,
    training_pairs,
)
from mgca.data.scenes.scene import TELLING, random
from mgca.data.scenes.shapes import drawing
from mgca.data.scenes.textures import tile
from mgca.data.texts import nouns

CONFIG = WorldConfig()
TRUTHFUL = WorldConfig(wrong=0, attributes=1)
NUMBER = 150


@pytest.fixture(scope="module")
def scenes():
    return [compose(CONFIG, 0, index) for index in range(NUMBER)]


def told(config, scene, count=2):
    return sentences(config, scene, random(scene.seed, TELLING, scene.index), count)


def test_a_scene_depends_on_nothing_but_its_seed_and_index(scenes):
    image, mask = render(CONFIG, scenes[5])
    for index in (9, 5):
        again = compose(CONFIG, 0, index)
        image_again, mask_again = render(CONFIG, again)
    assert again == scenes[5]
    assert np.array_equal(image_again, image) and np.array_equal(mask_again, mask)
    assert told(CONFIG, again) == told(CONFIG, scenes[5])
    assert not np.array_equal(render(CONFIG, compose(CONFIG, 1, 5))[0], image)


@pytest.mark.parametrize("size", [48, 112, 130])
def test_image_and_mask_have_the_size_asked_for(size):
    config = WorldConfig(size=size)
    image, mask = render(config, compose(config, 0, 0))
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert mask.shape == (size, size) and mask.dtype == np.uint8


def test_names_do_not_contain_one_another():
    names = [*CLASSES, *COLOURS]
    assert not [(a, b) for a in names for b in names if a != b and a in b]
    assert (len(THINGS), len(STUFFS), len(COLOURS)) == (20, 10, 10)


def test_mask_layout_and_contents_agree(scenes):
    for scene in scenes[:40]:
        names = np.array([CLASSES.index(content.name) for content in scene.contents])
        seen = layout(CONFIG, scene)
        assert np.array_equal(render(CONFIG, scene)[1], names[seen])
        shares = np.bincount(seen.ravel(), minlength=len(names)) / seen.size
        assert shares == pytest.approx([content.area for content in scene.contents])


def test_things_are_painted_where_the_mask_says():
    quiet = WorldConfig(light=0, gradient=0, grain=0, stuffs=(1, 1), things=(1, 1))
    for index in range(10):
        scene = compose(quiet, 3, index)
        image, mask = render(quiet, scene)
        empty = dataclasses.replace(scene, things=())
        differs = (image != render(quiet, empty)[0]).any(axis=2)
        thing = mask < len(THINGS)
        assert differs[thing].mean() > 0.97
        assert differs[~thing].mean() < 0.05  # the smooth edge


def test_numbers_and_areas_are_in_range(scenes):
    things = [thing for scene in scenes for thing in scene.things]
    areas = np.array([thing.area for thing in things])
    assert 0.03 <= areas.min() and areas.max() <= 0.40
    assert areas.mean() == pytest.approx(0.10, abs=0.012)
    assert np.median(areas) < areas.mean()
    assert {len(scene.stuffs) for scene in scenes} == {1, 2, 3}
    assert {len(scene.things) for scene in scenes} >= {2, 3, 4, 5}
    assert max(len(scene.things) for scene in scenes) == 5
    seen = [c.area for scene in scenes for c in scene.contents if c.colour]
    assert min(seen) >= CONFIG.visible


def test_a_lone_thing_covers_its_area():
    config = WorldConfig(things=(1, 1))
    for index in range(30):
        scene = compose(config, 0, index)
        assert scene.contents[-1].area == pytest.approx(scene.things[0].area, rel=0.06)


def test_everything_has_a_drawing_of_its_own():
    assert len({tile(stuff, 0).tobytes() for stuff in STUFFS}) == len(STUFFS)
    assert len({drawing(thing, 0).points.tobytes() for thing in THINGS}) == len(THINGS)
    with pytest.raises(ValueError, match="no variant 0 of 'lamp'"):
        drawing("lamp", 0)
    with pytest.raises(ValueError, match="no variant 9 of 'sand'"):
        tile("sand", 9)


def test_held_out_colours_are_neither_seen_nor_told(scenes):
    assert all(len(set(colours)) == 2 for colours in HELD_OUT.values())
    noisy = WorldConfig(wrong=0.5, attributes=1)
    phrases = [f"{colour} {thing}" for thing in THINGS for colour in HELD_OUT[thing]]
    for scene in scenes:
        assert all(thing.colour not in HELD_OUT[thing.name] for thing in scene.things)
        for sentence in told(noisy, scene, 4):
            words = sentence.text.lower()
            assert not [phrase for phrase in phrases if phrase in words]
            assert not [word for word in SYNONYMS.values() if word in words]
    open_world = WorldConfig(held_out=True)
    for index in range(40):
        things = compose(open_world, 0, index).things
        assert all(thing.colour in HELD_OUT[thing.name] for thing in things)


def test_a_sentence_names_what_it_says_and_only_what_is_visible(scenes):
    for scene in scenes:
        for sentence in told(TRUTHFUL, scene):
            words = re.findall("[a-z]+", sentence.text.lower())
            named = {scene.contents[k].name for k in sentence.contents}
            assert named == set(words) & set(CLASSES) and named
            assert all(scene.contents[k].area >= CONFIG.visible for k in sentence.contents)
            assert sentence.wrong == 0


def test_attributes_and_relations_are_true(scenes):
    phrase = r"(?:a|an|the) (small |large )?(?:([a-z]+) )?"
    thing = phrase + f"({'|'.join(THINGS)})"
    pair = re.compile(f"{thing} (left of|right of|above|below|next to) {thing}")
    placed = re.compile(f"^{thing} (on|in|in front of) (?:the )?({'|'.join(STUFFS)})$")
    related = places = 0
    for scene in scenes:
        by_name = {content.name: content for content in scene.contents}
        for sentence in told(TRUTHFUL, scene, 6):
            text = sentence.text.lower().rstrip(".")
            for size, colour, name in re.findall(thing, text):
                assert colour == by_name[name].colour
                assert size != "small " or by_name[name].area <= 0.05
                assert size != "large " or by_name[name].area >= 0.16
            for found in pair.finditer(text):
                one, how, other = by_name[found[3]], found[4], by_name[found[7]]
                across, down = one.x - other.x, one.y - other.y
                near = max(abs(across), abs(down)) < 0.15
                true = {
                    "left of": across < 0,
                    "right of": across > 0,
                    "above": down < 0,
                    "below": down > 0,
                }
                assert near if how == "next to" else true[how] and not near
                related += 1
            if found := placed.match(text):
                assert by_name[found[3]].on == found[5]
                places += 1
    assert related > 50 and places > 10


def test_large_contents_are_named_more_often_and_wrong_words_are_rare(scenes):
    named, missed, wrong, right = [], [], 0, 0
    for scene in scenes:
        for sentence in told(CONFIG, scene, 10):
            wrong, right = wrong + sentence.wrong, right + len(sentence.contents)
            for k, content in enumerate(scene.contents):
                if content.colour:
                    (named if k in sentence.contents else missed).append(content.area)
    assert wrong / (wrong + right) == pytest.approx(CONFIG.wrong, abs=0.007)
    assert np.mean(named) > 1.5 * np.mean(missed)


def test_sentences_vary_and_their_nouns_are_found(scenes):
    found = asked = 0
    forms = set()
    for scene in scenes:
        for sentence in told(TRUTHFUL, scene):
            tagged = nouns(sentence.text)
            names = [scene.contents[k].name for k in sentence.contents]
            asked, found = asked + len(names), found + sum(name in tagged for name in names)
            known = "|".join((*CLASSES, *COLOURS, "small", "large"))
            forms.add(re.sub(rf"(\b({known}|a|an|and)\b|[,.]| )+", " # ", sentence.text.lower()))
    assert found / asked > 0.95
    assert len(forms) > 40


def test_training_pairs_are_lazy_captions():
    data = training_pairs(12, 0)
    assert isinstance(data, Captions)
    assert (len(data), data.name) == (12, "scenes")
    assert all(len(own) == 2 and all(own) for own in data.captions)
    whole = [np.asarray(image) for image in data.images]
    assert data.images[3].size == (112, 112) and data.images[3].mode == "RGB"
    assert np.array_equal(np.asarray(data.images[-1]), whole[-1])
    later = pickle.loads(pickle.dumps(data.images[4:9]))
    assert len(later) == 5
    assert all(np.array_equal(np.asarray(a), b) for a, b in zip(later, whole[4:9], strict=True))
    with pytest.raises(IndexError):
        data.images[12]
    fewer = data.first(5)
    assert len(fewer) == 5 and fewer.captions == data.captions[:5]
    assert training_pairs(5, 0).captions == fewer.captions


def test_features_of_scenes_can_be_computed(tmp_path):
    data = training_pairs(5, 0)
    features = image_features(TinyBackbone(), data, size=112, batch=2, folder=tmp_path)
    assert features.shape == (5, 3, 7, 7)
    assert np.isfinite(features).all()


def test_digests_name_everything_that_matters():
    digests = {
        training_pairs(2, 0).digest,
        training_pairs(3, 0).digest,
        training_pairs(2, 1).digest,
        training_pairs(2, 0, WorldConfig(grain=5)).digest,
        evaluation_set("things", 2).digest,
        evaluation_set("scenes", 2).digest,
        evaluation_set("scenes", 2, seed=2).digest,
    }
    assert len(digests) == 7
    assert training_pairs(2, 0).digest == training_pairs(2, 0, WorldConfig()).digest


def test_digest_follows_the_drawing(monkeypatch):
    before = evaluation_set("scenes", 2).digest
    monkeypatch.setitem(COLOURS, "red", (10, 20, 30))
    assert evaluation_set("scenes", 2).digest != before


@pytest.mark.parametrize(
    ("name", "classes", "background"),
    [("things", 20, True), ("scenes", 30, False), ("open", 50, False)],
)
def test_evaluation_sets(name, classes, background):
    data = evaluation_set(name, 12, seed=2)
    assert (len(data), len(data.classes), data.background) == (12, classes, background)
    assert len(set(data.classes)) == classes
    items = list(data)
    assert len({identifier for identifier, _, _ in items}) == 12
    for index, (_, image, mask) in enumerate(items):
        scene = compose(data.config, data.seed, index)
        assert mask.dtype == np.uint8 and mask.shape == (image.height, image.width)
        asked = ("", *data.classes) if background else data.classes
        names = {asked[k] for k in np.unique(mask)}
        things = {f"{t.colour} {t.name}" if name == "open" else t.name for t in scene.things}
        stuffs = [c.name for c in scene.contents if c.colour is None and c.area]
        if name == "things":
            stuffs = [""] * bool(stuffs)
        elif name == "open":
            stuffs = [SYNONYMS[stuff] for stuff in stuffs]
        assert names == things | set(stuffs)
    again = list(data.first(3))
    assert len(again) == 3 and np.array_equal(again[2][2], items[2][2])
    assert data.first(None) is data


def test_every_set_has_images_of_its_own():
    seeds = {evaluation_set(n, 1, seed).seed for n in ("things", "scenes") for seed in (1, 2)}
    assert len(seeds) == 4


def test_a_name_describes_less_than_a_caption():
    areas = described_area(200)
    assert 0.05 < areas["content"] < areas["text"] < areas["caption"] < 1
    assert described_area(200) == areas


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 8}, "size is 8"),
        ({"things": (3, 2)}, r"things is \(3, 2\)"),
        ({"stuffs": (1, 4)}, r"stuffs is \(1, 4\)"),
        ({"mean_area": 0.5}, "smallest area < mean_area"),
        ({"visible": 0.2}, "visible is 0.2"),
        ({"turn": -1}, "turn is -1"),
        ({"wrong": 1.5}, "wrong is 1.5"),
    ],
)
def test_impossible_worlds_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        WorldConfig(**wrong)


def test_bad_arguments_are_refused(scenes):
    with pytest.raises(ValueError, match="must not be negative"):
        compose(CONFIG, -1, 0)
    with pytest.raises(ValueError, match="images is 0"):
        training_pairs(0, 0)
    with pytest.raises(ValueError, match="not for training"):
        training_pairs(1, 0, WorldConfig(held_out=True))
    with pytest.raises(ValueError, match="unknown set 'stuffs'"):
        evaluation_set("stuffs")
    with pytest.raises(ValueError, match="images is 0"):
        evaluation_set("things", 0)
    with pytest.raises(ValueError, match="seed is -1"):
        evaluation_set("things", 1, -1)
    with pytest.raises(ValueError, match="count is 0"):
        told(CONFIG, scenes[0], 0)
