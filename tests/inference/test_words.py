"""Several words for a class, words for the background, thresholds of single classes."""

import pytest
import torch
from PIL import Image
from tiny import TinyBackbone
from torch.nn import functional as F

from mgca.config import BACKGROUND, SegmentConfig
from mgca.inference.segmenter import check_background
from mgca.model import Model
from mgca.prompts import check_words, class_embeddings, named, read_classes, split_classes

WORDS = {"sofa": ("sofa", "couch", "settee"), "cat": ("cat",), "sky": ("sky", "cloud")}


def model(**options) -> Model:
    return Model(
        TinyBackbone(), config=SegmentConfig(short_side=64, window=64, stride=32, **options)
    )


@pytest.fixture
def photo() -> Image.Image:
    pixels = torch.randint(0, 256, (4, 6, 3), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy()).resize((96, 64), Image.Resampling.NEAREST)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("cat, sofa|couch | settee", [["cat"], ["sofa", "couch", "settee"]]),
        ('"washer, dryer", cat', [["washer, dryer"], ["cat"]]),
        ('basin|"sink, kitchen"|"a|b"', [["basin", "sink, kitchen", "a|b"]]),
        ("a wooden table,", [["a wooden table"], [""]]),
        ('a 5" pipe, "cat"', [['a 5" pipe'], ["cat"]]),
    ],
)
def test_a_line_of_classes(line, expected):
    assert split_classes(line) == expected


def test_a_file_as_published_ones_are(tmp_path):
    # Comments, words said twice and a number sign inside of a name.
    path = tmp_path / "cls_voc21.txt"
    path.write_text(
        "# VOC\n\nbackground, sky, wall, tree\naeroplane\n  person, person in shirt,person\n"
        '"washer, dryer", laundry\nLego #4\n',
        encoding="utf-8-sig",
    )
    assert named(read_classes(path)) == {
        "background": ("background", "sky", "wall", "tree"),
        "aeroplane": ("aeroplane",),
        "person": ("person", "person in shirt"),
        "washer, dryer": ("washer, dryer", "laundry"),
        "Lego #4": ("Lego #4",),
    }
    path.write_text('cat\n"washer, dryer\n')
    with pytest.raises(ValueError, match="cls_voc21.txt: a quotation mark is not closed"):
        read_classes(path)


@pytest.mark.parametrize(
    "classes, message",
    [
        ({"cat": []}, "words of 'cat': expected at least one"),
        ({"cat": ["cat", " "]}, "words of 'cat': class 1 has no name"),
        ({"cat": ["cat", 3]}, "words of 'cat': class 1 has no name"),
        ({"cat": ["cat", "pet"], "dog": ["pet"]}, "'pet' is one of 'cat' and of 'dog'"),
        ({" ": ["cat"]}, "class 0 has no name"),
        ({}, "at least one"),
    ],
)
def test_words_that_cannot_be(classes, message):
    with pytest.raises(ValueError, match=message):
        check_words(classes)


def test_two_lines_of_one_class_are_refused():
    with pytest.raises(ValueError, match="more than once: cat"):
        named([["cat", "kitten"], ["cat", "tom"]])


def test_a_class_has_the_largest_score_of_its_words(photo):
    words = [word for several in WORDS.values() for word in several]
    own = model()
    whole, single = (own.segment(photo, classes, None) for classes in (WORDS, words))
    assert whole.classes == tuple(WORDS)
    # Of a position before it is upsampled, as with units: of all of this image's centres.
    scores = own.scores(own.embed(photo).pixels, own.texts(words), None).table
    expected = torch.stack([part.amax(1) for part in scores.split([3, 1, 2], 1)], 1)
    assert torch.equal(whole._maps.table, expected)
    assert torch.equal(whole.labels, whole.scores.argmax(0))
    # And no word of another class is nearer at a position than the best of the own.
    best, owner = scores.argmax(1), torch.tensor([0, 0, 0, 1, 2, 2])
    assert torch.equal(owner[best], expected.argmax(1)) and len(best.unique()) > 3
    assert single.classes == tuple(words)


def test_or_the_score_of_the_mean_of_their_embeddings(photo):
    own = model(words="mean")
    embeddings = class_embeddings(own.backbone, ["sofa", "couch", "settee"])
    expected = F.normalize(embeddings.mean(0), dim=0)
    assert torch.equal(own.texts(WORDS)[0], expected)
    assert own.texts(WORDS).shape == (3, 16)
    torch.testing.assert_close(own.texts(WORDS)[1:2], own.texts(["cat"]))
    assert torch.equal(own.segment(photo, WORDS).labels, own.segment(photo, WORDS).scores.argmax(0))


def test_one_word_each_is_a_list_of_words(photo):
    names = ["cat", "dog", "sky"]
    listed, mapped = (model().segment(photo, c) for c in (names, {n: [n] for n in names}))
    assert torch.equal(listed.scores, mapped.scores) and listed.classes == mapped.classes


def test_words_of_one_class_may_be_the_same_to_the_encoder(photo):
    own = model()
    own.backbone.encode_text = lambda texts: TinyBackbone().encode_text([t.lower() for t in texts])
    assert own.segment(photo, {"tv": ["tv", "TV"], "cat": ["cat"]}).classes == ("tv", "cat")
    with pytest.raises(ValueError, match="cannot tell 'TV' from 'tv'"):
        own.segment(photo, {"screen": ["TV"], "cat": ["cat"], "tv": ["tv"]})


@pytest.mark.parametrize("points", [None, 4])
@pytest.mark.parametrize("background", [0.0, 0.35, {"cat": 0.6}])
def test_words_of_the_background_are_background(photo, points, background):
    own = model()
    classes = {"cat": ["cat"], "dog": ["dog", "puppy"], BACKGROUND: ["sky", "wall"]}
    found = own.segment(photo, classes, points, background, temperature=0.3)
    assert found.classes == (BACKGROUND, "cat", "dog")
    assert torch.equal(found.labels, found.scores.argmax(0))
    # All three as classes: what the background's words win is background, whatever is reached.
    plain = own.segment(photo, {BACKGROUND: ["sky", "wall"], **classes}, points)
    won = plain.labels == 0
    assert won.any() and not found.labels[won].any()
    kept = found.labels > 0
    assert torch.equal(found.labels[kept], plain.labels[kept])
    assert kept.any() and (background == 0.0) == bool((kept | won).all())
    label, probability = found.confidence()
    assert int(label.max()) <= 1 and float(probability.max()) <= 1
    assert all(part.shape[1] == 2 for _, part in found.probabilities())
    assert set(found.mean_scores()) == {BACKGROUND, "cat", "dog"}


def test_a_class_has_a_threshold_of_its_own(photo):
    own = model()
    names = ["cat", "dog", "sky", "house"]
    label, probability = own.segment(photo, names, None).confidence(0.3)
    limits = {"cat": 0.2, "dog": 0.45, "house": 1.0}
    found = own.segment(photo, names, None, limits, temperature=0.3)
    limit = torch.tensor([limits.get(name, 0.0) for name in names])[label]
    assert torch.equal(found.labels, torch.where(probability > limit, label + 1, 0))
    assert torch.equal(found.labels, found.scores.argmax(0))
    counts = found.labels.unique().tolist()
    assert 0 in counts and len(counts) > 2
    same = own.segment(photo, names, None, dict.fromkeys(names, 0.4), temperature=0.3)
    assert torch.equal(same.labels, own.segment(photo, names, None, 0.4, temperature=0.3).labels)


def test_one_class_of_several_words_is_held_against_the_rest(photo):
    own = model()
    found = own.segment(photo, {"wood": ["tree", "a wall"]}, None, 0.1)
    asked = [text for text in own.backbone.asked if text.startswith("itap")]
    assert found.classes == (BACKGROUND, "wood")
    assert len(asked) == 2 + 8 and "itap of a tree." in asked[0]


@pytest.mark.parametrize(
    "classes, background, message",
    [
        (["cat", "dog"], {"cow": 0.5}, "threshold for 'cow', which is not one"),
        (["cat", "dog"], {"cat": 1.5}, r"in \[0, 1\], not 1.5"),
        ({BACKGROUND: ("sky",)}, 0.5, "no class beside the background"),
        ({BACKGROUND: (BACKGROUND,), "cat": ("cat",)}, 0.5, r"background\|sky\|wall"),
        ({BACKGROUND: ("sky",), "cat": ("cat",)}, {BACKGROUND: 0.5}, "threshold for 'background'"),
    ],
)
def test_backgrounds_that_cannot_be(classes, background, message):
    with pytest.raises(ValueError, match=message):
        check_background(classes, background)
