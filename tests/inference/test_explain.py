"""Explanations: maps are those of segmentations, and units those that the scores are made of."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyBackbone

from mgca.cli import loading, main
from mgca.config import SegmentConfig
from mgca.data.benchmarks import known_names
from mgca.inference.explain import explain
from mgca.model import Model

SMALL = SegmentConfig(short_side=64, window=64, stride=32)
VOCABULARY = ["cat", "dog", "sky", "grass"]


@pytest.fixture(scope="module")
def model():
    return Model(TinyBackbone(), None, SMALL)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 75, 3), dtype=np.uint8)


def test_maps_are_the_scores_of_a_segmentation(model, photo):
    found = explain(model, photo, " cat ", VOCABULARY, meta_points=9)
    assert found.word == "cat" and found.image.size == (75, 40)
    expected = model.segment(photo, ["cat"], None).scores[0]
    torch.testing.assert_close(torch.from_numpy(found.pixel), expected)
    expected = model.segment(photo, ["cat"], 9).scores[0]
    torch.testing.assert_close(torch.from_numpy(found.unit), expected)
    assert not np.allclose(found.pixel, found.unit)


def test_units_are_of_the_window_whose_centre_is_nearest(model, photo):
    found = explain(model, photo, "cat", VOCABULARY, meta_points=9)
    embedded = model.embed(photo)
    height, width = embedded.size
    assert found.units.shape == (height, width) == (64, 120)
    lefts = [box.left for box in embedded.boxes]
    assert len(lefts) == 3
    table, index = model.scores(embedded.pixels, model.texts(["cat"]), 3)
    for y in range(0, height, 5):
        for x in range(0, width, 3):
            distances = [abs(x + 0.5 - left - 32) for left in lefts]  # all are as high as the image
            near = [i for i, d in enumerate(distances) if d == min(distances)]
            # A position of the tiny backbone is 16 pixels wide.
            rows = [index[w, y // 16, (x - lefts[w]) // 16] for w in near]
            unit = found.units[y, x]
            assert any(
                found.similarity[unit] == pytest.approx(table[row, 0].item()) for row in rows
            )
    scale = np.array([width / 75, height / 40])
    for point, similarity in zip(found.points * scale, found.similarity, strict=True):
        x, y = point.astype(int)
        inside = [w for w, left in enumerate(lefts) if left <= x < left + 64]
        rows = [index[w, y // 16, (x - lefts[w]) // 16] for w in inside]
        assert any(similarity == pytest.approx(table[row, 0].item()) for row in rows)
    assert found.areas.sum() == pytest.approx(1) and (found.areas > 0).all()


def test_with_one_window_units_and_points_are_those_of_the_method(model):
    photo = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    found = explain(model, photo, "cat", VOCABULARY, meta_points=16)
    # As many meta-points as positions: each is the centre of its own unit.
    assert len(found.points) == 16
    columns, rows = np.meshgrid(np.arange(4), np.arange(4))
    expected = np.stack((columns, rows), axis=-1).reshape(16, 2) * 24 + 12
    np.testing.assert_allclose(found.points, expected)
    assert np.array_equal(found.units, np.kron(np.arange(16).reshape(4, 4), np.ones((16, 16))))
    for u, (x, y) in enumerate(found.points):
        assert found.units[int(y * 64 / 96), int(x * 64 / 96)] == u
    borders = np.zeros((64, 64), dtype=bool)
    borders[15:63:16] = borders[:, 15:63:16] = True
    assert np.array_equal(found.borders, borders)


def test_words_are_the_most_similar_of_the_vocabulary(model):
    photo = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    found = explain(model, photo, "house", VOCABULARY, meta_points=16, top=3)
    table = model.scores(model.embed(photo).pixels, model.texts(VOCABULARY), 4).table
    for row, words, similarity in zip(table, found.words, found.similarity, strict=True):
        best = row.argsort(descending=True)[:3].tolist()
        assert [word for word, _ in words] == [VOCABULARY[i] for i in best]
        assert [s for _, s in words] == pytest.approx(row[best].tolist())
        assert similarity not in row
    assert len(explain(model, photo, "cat", VOCABULARY, top=9).words[0]) == 4


def test_an_embedded_image_is_explained_alike(model, photo):
    once = explain(model, photo, "cat", VOCABULARY)
    again = explain(model, model.embed(photo), "cat", VOCABULARY)
    assert once.to_dict() == again.to_dict()


def test_json_lists_units_by_area(model, photo):
    found = explain(model, photo, "cat", VOCABULARY, meta_points=9)
    data = json.loads(json.dumps(found.to_dict()))
    areas = [unit["area"] for unit in data["units"]]
    assert areas == sorted(areas, reverse=True) and sum(areas) == pytest.approx(1)
    largest = int(found.areas.argmax())
    assert data["units"][0]["meta_point"] == found.points[largest].tolist()
    assert data["units"][0]["words"][0]["word"] == found.words[largest][0][0]
    assert data["similarity"]["pixel"]["max"] == pytest.approx(found.pixel.max())


@pytest.mark.parametrize("crowded", [False, True])
def test_the_figure_shows_what_was_found(model, photo, crowded):
    names = [f"{name}, as in a very long phrase" if crowded else name for name in VOCABULARY]
    found = explain(model, photo, "$c{$", names, meta_points=9)
    figure = found.figure()
    photograph, words, pixel, unit = figure.axes[:4]
    assert np.array_equal(photograph.collections[0].get_offsets(), found.points)
    assert np.array_equal(pixel.images[0].get_array(), found.pixel)
    assert np.array_equal(unit.images[0].get_array(), found.unit)
    assert pixel.images[0].get_clim() == unit.images[0].get_clim()
    scale = np.array(found.units.shape) / (40, 75)
    shown, boxes = set(), []
    for text in words.texts:
        x, y = text.get_position()
        number = found.units[int(y * scale[0]), int(x * scale[1])]
        assert text.get_text().replace("\n", " ") == found.words[number][0][0]
        shown.add(number)
        boxes.append(text.get_window_extent())
    # No word is over another; a unit without one is small, or its word would be over another.
    assert not any(box.count_overlaps(boxes[:place]) for place, box in enumerate(boxes))
    large = set(np.flatnonzero(found.areas > 0.01))
    assert shown <= large and found.areas.argmax() in shown
    assert bool(large - shown) == crowded
    assert found.to_png()[:4] == b"\x89PNG"  # with a word that is no formula


def test_the_names_that_are_known_are_those_of_the_benchmarks():
    pytest.importorskip("mmseg")
    names = known_names()
    assert {"cat", "aeroplane", "traffic light", "clouds", "chandelier"} <= set(names)
    assert len(set(names)) == len(names) > 250 and "background" not in names


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("cat", []), ValueError, "at least one"),
        ((" ", VOCABULARY), ValueError, "no name"),
        (("cat", ["dog", "dog"]), ValueError, "more than once"),
    ],
)
def test_words_that_cannot_be_are_refused(model, photo, arguments, error, message):
    with pytest.raises(error, match=message):
        explain(model, photo, *arguments)


@pytest.mark.parametrize("options", [{"meta_points": 35}, {"top": 0}])
def test_numbers_that_cannot_be_are_refused(model, photo, options):
    with pytest.raises(ValueError, match="must be"):
        explain(model, photo, "cat", VOCABULARY, **options)


@pytest.fixture
def here(tmp_path, monkeypatch, model, photo):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_named", lambda *asked: (model, "tiny"))
    Image.fromarray(photo).save("photo.png")
    Path("words.txt").write_text("\n".join(VOCABULARY))
    return tmp_path


def run(*arguments: str) -> int:
    return main(["explain", "photo.png", "--word", "cat", "--out", "cat.png", *arguments])


def test_the_command_writes_a_figure_and_its_numbers(here, model, photo, capsys):
    assert run("--vocabulary", "words.txt", "--meta-points", "9", "--top", "2") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "cat.png and cat.json"
    assert Image.open("cat.png").format == "PNG"
    data = json.loads(Path("cat.json").read_text())
    expected = explain(model, photo, "cat", VOCABULARY, meta_points=9, top=2).to_dict()
    assert data == {"image": "photo.png", "model": "tiny", "meta_points": 9, **expected}
    assert f"pixel: similarity {expected['similarity']['pixel']['min']:.3f} to" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "cat.jpg"], 2, "name of a .png file"),
        (["--vocabulary", "nowhere.txt"], 1, "nowhere.txt"),
        (["--vocabulary", "words.txt", "--meta-points", "35"], 1, "square"),
        (["--vocabulary", "words.txt", "--word", " "], 1, "no name"),
    ],
)
def test_what_cannot_be_is_an_error(here, capsys, arguments, code, message):
    assert run(*arguments) == code
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err
    assert not Path("cat.png").exists() and not Path("cat.json").exists()


def test_only_its_own_files_are_replaced(here, capsys):
    arguments = ("--vocabulary", "words.txt", "--meta-points", "4")
    photo = Path("photo.png").read_bytes()
    for force in ([], ["--force"]):
        assert run(*arguments, "--out", "photo.png", *force) == 2
        assert "is the photograph itself" in " ".join(capsys.readouterr().err.split())
    assert Path("photo.png").read_bytes() == photo and not Path("photo.json").exists()
    # A record of another command, then a picture without any.
    for name, text in (("cat.json", '{"classes": []}'), ("cat.json", "no JSON"), ("cat.png", "")):
        Path(name).write_text(text)
        assert run(*arguments) == 1
        assert f"{name} is there and not of mgca explain" in capsys.readouterr().err
        assert Path(name).read_text() == text
        Path(name).unlink()
    Path("cat.json").write_text("{}")
    assert run(*arguments, "--force") == 0
    assert run(*arguments) == 0  # its own


def test_without_mmsegmentation_a_vocabulary_is_asked_for(here, monkeypatch, capsys):
    for name in [n for n in sys.modules if n in ("mmseg", "mgca.data.benchmarks.datasets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("mgca.data.benchmarks.datasets", raising=False)
    monkeypatch.setitem(sys.modules, "mmseg", None)
    monkeypatch.setitem(sys.modules, "mmseg.datasets", None)
    assert run() == 1
    err = capsys.readouterr().err
    assert "pip install 'mgca[benchmarks]'" in err and "or give --vocabulary" in err
