"""The command ``mgca segment``: the files it writes, what it leaves alone, and how it exits."""

import dataclasses
import errno
import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import TinyBackbone

import mgca
from mgca.cli import loading, main
from mgca.cli.outputs import KINDS, Outputs, image_number, named_images
from mgca.config import SegmentConfig
from mgca.inference.scoring import REST, rules
from mgca.inference.segmentation import Segmentation
from mgca.model import Model

SMALL = SegmentConfig(short_side=64, window=64, stride=32)
CLASSES = ["cat", "wooden table", "sky"]
WORDS = ["--classes", "cat, wooden table,sky"]


@pytest.fixture
def model(monkeypatch):
    """The model that the command gets, whatever it asks for."""
    model = Model(TinyBackbone(), None, SMALL)
    monkeypatch.setattr(loading, "load_named", lambda *asked: (model, f"tiny {asked[0]}"))
    return model


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    """Three photographs below ``photos``, two of the same stem."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("a/x.jpg", "b/x.jpg", "b/x.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return tmp_path


@pytest.fixture
def segmented(monkeypatch, model):
    """Sizes of the images that went through the model."""
    found, segment = [], model.segment

    def counted(image, classes, **options):
        found.append(1)
        return segment(image, classes, **options)

    monkeypatch.setattr(model, "segment", counted)
    return found


def files(folder: Path) -> dict[str, str]:
    """Of all files below a folder the SHA-256."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*arguments: str) -> int:
    return main(["segment", *arguments, "--out", "out"])


def test_results_of_a_folder(folder, model, capsys):
    assert run("photos", *WORDS) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(
        r"3 classes: cat, wooden table, sky\n"
        r"3 images: 3 segmented in [\d.]+ s, 0 there already, 0 failed; results in out\n",
        out,
    )
    assert err == ""
    suffixes = (".json", ".labels.png", ".overlay.jpg")
    names = ("a/x.jpg", "b/x.jpg", "b/x.png")
    assert set(files(folder / "out")) == {n + s for n in names for s in suffixes}
    for name in names:
        expected = model.segment(folder / "photos" / name, CLASSES)
        base = f"out/{name}"
        labels = Image.open(f"{base}.labels.png")
        assert labels.mode == "P" and np.array_equal(np.asarray(labels), expected.to_numpy())
        assert Image.open(f"{base}.overlay.jpg").size == expected.overlay().size
        record = json.loads(Path(f"{base}.json").read_text())
        image = folder / "photos" / name
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        assert record["image"] == {
            "path": str(image),
            "sha256": digest,
            "width": 60,
            "height": 40,
        }
        chosen = record["settings"]
        assert chosen["mgca"] == mgca.__version__ and chosen["model"] == "tiny lite"
        assert chosen["classes"] == CLASSES and chosen["meta_points"] == 36
        assert chosen["background"] is None and chosen["backbone"] == model.backbone.digest
        assert [c["name"] for c in record["classes"]] == CLASSES
        means = expected.mean_scores()
        for entry in record["classes"]:
            assert entry["area"] == pytest.approx(expected.areas()[entry["name"]])
            assert entry["score"] == pytest.approx(means[entry["name"]], abs=1e-6)
        written = {k: v for k, v in files(folder / "out").items() if k.startswith(f"{name}.")}
        del written[f"{name}.json"]
        assert {f"{Path(name).parent}/{k}": v for k, v in record["files"].items()} == written


def test_all_kinds_of_files(folder, model):
    pytest.importorskip("pycocotools")
    chosen = ["--overlay", "png", "--rle", "--polygons", "--probabilities", "--confidence"]
    more = ["--meta-points", "pixels", "--background", "0.36"]
    assert run("photos/a", *WORDS, *chosen, *more) == 0
    base = "out/x.jpg"
    expected = model.segment("photos/a/x.jpg", CLASSES, None, background=0.36)
    assert expected.classes[0] == "background"
    assert np.array_equal(np.asarray(Image.open(f"{base}.labels.png")), expected.to_numpy())
    assert 0 < (expected.labels == 0).sum() < 2400
    picture = np.asarray(Image.open(f"{base}.overlay.png"))
    assert np.array_equal(picture, np.asarray(expected.overlay()))
    for kind in ("rle", "polygons"):
        found = json.loads(Path(f"{base}.{kind}.json").read_text())
        coco = expected.to_coco(image_number("x.jpg"), rle=kind == "rle")
        assert found["images"][0].pop("file_name") == "x.jpg"
        assert found == coco
    scores = model.segment("photos/a/x.jpg", CLASSES, None).scores
    softmax = (scores / model.backbone.temperature).softmax(0).numpy()
    with np.load(f"{base}.probabilities.npz") as archive:
        assert archive.files == CLASSES
        for name, values in zip(CLASSES, softmax, strict=True):
            assert archive[name].dtype == np.float16 and archive[name].shape == (40, 60)
            np.testing.assert_allclose(archive[name], values, rtol=0, atol=5e-4)
    picture = np.asarray(Image.open(f"{base}.confidence.png"))
    assert np.abs(picture / 255 - softmax.max(axis=0)).max() <= 0.5 / 255 + 1e-5
    record = json.loads(Path(f"{base}.json").read_text())
    assert [c["score"] is None for c in record["classes"]][0]
    assert len(record["files"]) == 6


def test_what_is_complete_is_not_computed_again(folder, segmented, capsys):
    assert run("photos", *WORDS) == 0
    before, times = files(folder / "out"), os.stat("out/a/x.jpg.labels.png").st_mtime_ns
    assert run("photos", *WORDS) == 0
    assert len(segmented) == 3 and files(folder / "out") == before
    assert os.stat("out/a/x.jpg.labels.png").st_mtime_ns == times
    assert "0 segmented" in capsys.readouterr().out.splitlines()[-1]
    Path("out/a/x.jpg.labels.png").unlink()
    Path("out/b/x.jpg.overlay.jpg").write_bytes(b"cut off")
    assert run("photos", *WORDS) == 0
    assert len(segmented) == 5 and files(folder / "out") == before


def test_other_kinds_are_added_to_what_is_there(folder, segmented):
    assert run("photos/a", *WORDS) == 0
    before = files(folder / "out")
    assert run("photos/a", *WORDS, "--probabilities", "--overlay", "none") == 0
    after = files(folder / "out")
    assert set(after) - set(before) == {"x.jpg.probabilities.npz"}
    record = json.loads(Path("out/x.jpg.json").read_text())
    kept = {name: digest for name, digest in after.items() if name != "x.jpg.json"}
    assert record["files"] == kept
    assert run("photos/a", *WORDS) == 0
    assert len(segmented) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["--meta-points", "16"], "meta_points 36, not 16"),
        (["--background", "0.3"], "background null, not 0.3"),
        (["--model", "scenes"], '"tiny lite", not "tiny scenes"'),
        (["--classes", "cat"], 'not ["cat"]'),
    ],
)
def test_results_of_other_settings_are_replaced_only_with_force(
    folder, segmented, capsys, change, reason
):
    assert run("photos", *WORDS, "--probabilities") == 0
    before = files(folder / "out")
    words = [] if change[0] == "--classes" else WORDS
    assert run("photos", *words, *change) == 1
    out, err = capsys.readouterr()
    assert reason in err and "(and 2 more images)" in err and "--force" in err
    assert err.count("\n") == 1 + ("only class" in err)
    assert files(folder / "out") == before and len(segmented) == 3
    assert run("photos", *words, *change, "--force") == 0
    after = files(folder / "out")
    # No probabilities of the earlier settings stay behind.
    assert set(after) == {name for name in before if not name.endswith(".npz")}
    assert after["a/x.jpg.json"] != before["a/x.jpg.json"]
    assert run("photos", *words, *change) == 0 and len(segmented) == 6


def test_results_of_another_image_of_the_name_are_not_replaced(folder, capsys):
    assert run("photos/a/x.jpg", *WORDS) == 0
    before = files(folder / "out")
    assert run("photos/b/x.jpg", *WORDS) == 1
    assert f"of another image, {folder}/photos/a/x.jpg" in capsys.readouterr().err
    assert files(folder / "out") == before
    assert run("photos/b/x.jpg", *WORDS, "--force") == 0
    assert files(folder / "out") != before


def test_files_of_unknown_origin_are_not_replaced(folder, capsys):
    Path("out/b").mkdir(parents=True)
    Path("out/b/x.png.labels.png").write_text("mine")
    assert run("photos", *WORDS) == 1
    assert "out/b/x.png.labels.png is there, without a record" in capsys.readouterr().err
    assert list(files(folder / "out")) == ["b/x.png.labels.png"]
    Path("out/b/x.png.labels.png").rename("out/b/x.png.json")
    assert run("photos", *WORDS) == 1


def test_a_bad_image_does_not_stop_the_others(folder, capsys):
    Path("photos/b/w.jpg").write_text("a letter")
    assert run("photos", *WORDS) == 1
    out, err = capsys.readouterr()
    assert "4 images: 3 segmented" in out and "1 failed" in out
    assert err == f"mgca: {folder}/photos/b/w.jpg: not a picture in a format that Pillow reads\n"
    assert len(files(folder / "out")) == 9
    assert run("photos", *WORDS, "--quiet") == 1
    assert capsys.readouterr() == ("", err)


# A JPEG whose EXIF says that it lies on its side, and whose further tags point to nowhere.
DAMAGED_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\x87\x69\0\x04"


def test_the_rule_beside_the_threshold(folder, model, segmented, capsys):
    """The sigmoid of encoders that learned with one, as SigLIP did."""
    asked = [*WORDS, "--background", "0.5", "--rule", "sigmoid"]
    assert run("photos", *asked) == 1
    assert "is not one of this model's (softmax)" in capsys.readouterr().err and not segmented
    model.scoring |= rules((4.0, -0.5))
    assert run("photos", *asked) == 0
    photo = folder / "photos" / "a" / "x.jpg"
    expected = model.segment(photo, CLASSES, background=0.5, rule="sigmoid").to_numpy()
    assert np.array_equal(np.asarray(Image.open("out/a/x.jpg.labels.png")), expected)
    assert 0 < (expected == 0).mean() < 1
    record = json.loads(Path("out/a/x.jpg.json").read_text())
    assert record["settings"]["rule"] == "sigmoid"
    assert run("photos", *asked[:-2]) == 1  # results of another rule are not replaced
    assert "rule" in capsys.readouterr().err


def test_whatever_is_wrong_with_one_file_the_others_go_on(folder, model, capsys, monkeypatch):
    photo = Image.open("photos/b/x.png")
    photo.save("photos/b/exif.jpg", exif=DAMAGED_EXIF)
    photo.save(os.fsencode("photos/b/") + b"caf\xe9.png", "PNG")
    long = "x" * 246 + ".jpg"
    photo.save(f"photos/b/{long}")
    photo.save("photos/b/" + "y" * 230 + ".jpg")
    photo.save("photos/b/huge.png")
    segment = model.segment

    def running_out(image, *arguments, **options):
        if image.size == (7, 5):
            raise MemoryError
        return segment(image, *arguments, **options)

    photo.resize((7, 5)).save("photos/b/huge.png")
    monkeypatch.setattr(model, "segment", running_out)
    assert run("photos", *WORDS, "--rle", "--verbose") == 1
    out, err = capsys.readouterr()
    assert "8 images: 6 segmented" in out and "2 failed" in out
    assert f"mgca: {folder}/photos/b/huge.png: MemoryError\n" in err
    assert f"{long}" in err and "File name too long" in err and err.count("\n") == 2
    assert "caf\\udce9.png: " in out
    there = set(os.listdir(b"out/b"))
    assert b"caf\xe9.png.labels.png" in there and b"exif.jpg.labels.png" in there
    record = json.loads(Path(os.fsdecode(b"out/b/caf\xe9.png.json")).read_text())
    assert os.fsencode(record["image"]["path"]).endswith(b"caf\xe9.png")
    assert run("photos", *WORDS, "--rle", "--json") == 1  # and the names of results are known again
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["summary"]["there"] == 6 and lines[-1]["summary"]["failed"] == 2


def test_a_full_disk_ends_the_run(folder, monkeypatch, capsys):
    def full(*_):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise OSError("cannot write out/x: No space left on device") from error

    monkeypatch.setattr(Outputs, "write", full)
    assert run("photos", *WORDS) == 1
    out, err = capsys.readouterr()
    assert err == "mgca: cannot write out/x: No space left on device\n" and "images" not in out


def test_what_is_left_out_is_said(folder, capsys):
    for name in ("1.heic", "2.HEIC", "notes.txt", "scan.pdf", "film.mpg", "README", ".hidden"):
        Path("photos", name).write_text("")
    Path("photos/again").symlink_to(folder / "photos")
    assert run("photos", *WORDS) == 0
    out, err = capsys.readouterr()
    assert "3 images: 3 segmented" in out
    assert err == (
        "mgca: warning: left out: 2 .heic, 1 .mpg, 1 .pdf, 1 .txt, 1 links to folders, 1 without a "
        "suffix; pillow-heif reads HEIC photographs: pip install pillow-heif\n"
    )
    assert run("photos", *WORDS, "--json") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert summary["left_out"][".heic"] == 2 and summary["classes"] == CLASSES
    # Results among the photographs are nothing that was left out.
    assert main(["segment", "photos/a", *WORDS, "--out", "photos/a"]) == 0
    assert named_images(["photos/a"])[1] == {}
    capsys.readouterr()
    assert run("photos/*.heic", *WORDS) == 1
    assert "no image in photos/*.heic, only 1 .heic; pillow-heif" in capsys.readouterr().err


def test_patterns_end_where_links_lead_in_circles(folder):
    for name in ("up", "here"):
        Path("photos/a", name).symlink_to(folder / "photos")
    expected = ["a/x.jpg", "b/x.jpg", "b/x.png"]
    for source in ("photos", "photos/**/*.*", "photos/**", f"{folder}/photos/**/x.*"):
        assert sorted(named_images([source])[0]) == expected
    Path("photos/.thumbs").mkdir()
    Path("photos/.thumbs/x.jpg").write_text("")
    assert sorted(named_images(["photos/**/*.jpg"])[0]) == ["a/x.jpg", "b/x.jpg"]
    assert sorted(named_images(["photos/.thumbs/*.jpg"])[0]) == ["x.jpg"]


@pytest.mark.parametrize(
    ("line", "warned"),
    [
        ("0: background", True),
        ("cat;dog", True),
        ("3 cats", False),
        ("Lego #4", False),
        ("traffic light: red", False),
    ],
)
def test_lines_that_look_like_several_names_are_warned_of(folder, capsys, line, warned):
    Path("words.txt").write_text(f"tree\n{line}\n")
    assert run("photos/a", "--classes-file", "words.txt") == 0
    out, err = capsys.readouterr()
    assert (f"{line!r} is taken as one phrase" in err) == warned
    assert f"2 classes: tree, {line}\n" in out


def test_one_class_alone_is_warned_of_and_with_a_threshold_held_against_the_rest(folder, capsys):
    assert run("photos/a", "--classes", "cat") == 0
    assert "'cat' is the only class" in capsys.readouterr().err
    assert run("photos/a", "--classes", "cat", "--background", "0.2", "--force") == 0
    assert capsys.readouterr().err == ""
    record = json.loads(Path("out/x.jpg.json").read_text())
    assert [entry["name"] for entry in record["classes"]] == ["background", "cat"]
    assert record["settings"]["rest"] == list(REST)


def test_words_that_are_one_to_the_encoder_are_refused(folder, capsys):
    assert run("photos/a", "--classes", "sky, the sky") == 1
    assert "cannot tell 'sky' from 'the sky': leave one out" in capsys.readouterr().err


def test_no_label_changes_along_the_edge_of_a_window_for_that_reason(folder, model):
    """The command weights windows towards their middle; the paper's protocol has them equal."""
    assert model.config.blend == "equal"
    assert run("photos/a", *WORDS) == 0
    record = json.loads(Path("out/x.jpg.json").read_text())
    assert record["settings"]["windows"]["blend"] == "middle"
    expected = dataclasses.replace(model.embed("photos/a/x.jpg"), blend="middle")
    labels = np.asarray(Image.open("out/x.jpg.labels.png"))
    assert np.array_equal(labels, model.segment(expected, CLASSES).to_numpy())


def test_a_link_to_nowhere_is_named(folder, capsys):
    link = Path("photos/b/w.jpg")
    link.symlink_to("a/x.jpg")  # beside the link there is none
    for there in range(2):
        assert run("photos", *WORDS) == 1
        out, err = capsys.readouterr()
        assert f"4 images: {3 - 3 * there} segmented" in out and "1 failed" in out
        assert err == f"mgca: no image {folder}/photos/b/w.jpg\n"
    link.unlink()
    link.symlink_to("../a/x.jpg")
    assert run("photos", *WORDS) == 0 and "1 segmented" in capsys.readouterr().out
    # What came of it before remains, though it cannot be read again.
    link.unlink()
    link.symlink_to("nowhere.jpg")
    assert run("photos", *WORDS) == 0 and "4 there already" in capsys.readouterr().out


def test_a_file_in_place_of_the_folder_of_results(folder, capsys, segmented):
    before = files(folder)
    assert main(["segment", "photos", *WORDS, "--out", "photos/a/x.jpg"]) == 2
    assert "is a file" in capsys.readouterr().err
    assert not segmented and files(folder) == before


def test_json_lines(folder, capsys):
    Path("photos/w.jpg").write_text("a letter")
    assert run("photos/b", *WORDS) == 0
    capsys.readouterr()
    assert run("photos/b", "photos/a", "photos/w.jpg", *WORDS, "--json") == 1
    out, err = capsys.readouterr()
    *lines, last = map(json.loads, out.splitlines())
    # With more folders images have other names, and so other results.
    assert [(line["name"], line["status"]) for line in lines] == [
        ("b/x.jpg", "written"),
        ("b/x.png", "written"),
        ("a/x.jpg", "written"),
        ("w.jpg", "failed"),
    ]
    assert sum(lines[0]["areas"].values()) == pytest.approx(1) and "letter" not in err
    assert "not a picture" in lines[3]["error"] and all(Path(f).exists() for f in lines[0]["files"])
    summary = last["summary"]
    assert (summary["images"], summary["written"], summary["failed"]) == (4, 3, 1)
    # What was asked for is no news that --quiet would leave out.
    assert run("photos/b", "photos/a", *WORDS, "--json", "--quiet") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["status"] == "there" and "areas" not in first


def test_verbose_names_the_largest_classes(folder, capsys):
    assert run("photos/a", *WORDS, "-v") == 0
    assert re.match(r"x\.jpg: (cat|wooden table|sky) \d+ %", capsys.readouterr().out)
    assert run("photos/a", *WORDS, "-v") == 0
    assert capsys.readouterr().out.startswith("x.jpg: was there already\n")


def test_an_interrupted_write_leaves_nothing_half(folder, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Segmentation, "overlay", full)
        assert run("photos/a", *WORDS) == 1
    assert files(folder / "out") == {}
    assert run("photos/a", *WORDS) == 0


def test_killed_between_two_files_goes_on(folder, monkeypatch):
    replace = Path.replace

    def killed(self, target):
        if str(target).endswith(".overlay.jpg"):
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        assert run("photos/a", *WORDS) == 130
    assert set(files(folder / "out")) <= {"x.jpg.json", "x.jpg.labels.png"}
    assert run("photos/a", *WORDS) == 0  # and needs no --force
    assert len(files(folder / "out")) == 3


def test_classes_from_a_file(folder, model):
    Path("words.txt").write_text("\ufeffcat\n\nwooden table\r\nsky \n", encoding="utf-8")
    assert run("photos/a", "--classes-file", "words.txt") == 0
    assert json.loads(Path("out/x.jpg.json").read_text())["settings"]["classes"] == CLASSES


def test_words_of_classes_and_thresholds_of_their_own(folder, capsys):
    Path("words.txt").write_text("# mine\nbackground, sky\ncat, kitten\nwooden table\n")
    options = ["--background", "0.1,cat=0.3", "--words", "mean", "--json"]
    assert run("photos/a", "--classes-file", "words.txt", *options) == 0
    by_file = json.loads(Path("out/x.jpg.json").read_text())
    settings = by_file["settings"]
    assert settings["classes"] == ["background", "cat", "wooden table"]
    assert settings["words"] == {"background": ["background", "sky"], "cat": ["cat", "kitten"]}
    assert settings["background"] == {"cat": 0.3, "wooden table": 0.1}
    assert settings["windows"]["words"] == "mean"
    assert [c["name"] for c in by_file["classes"]] == settings["classes"]
    # The same on the command line: nothing is computed again.
    capsys.readouterr()
    words = "background|sky, cat|kitten, wooden table"
    assert run("photos/a", "--classes", words, *options) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]["there"] == 1


def test_more_words_than_a_file_name_may_have_letters(folder):
    names = [f"wooden table number {i}" for i in range(40)]
    assert run("photos/a", "--classes", ", ".join(names)) == 0
    assert json.loads(Path("out/x.jpg.json").read_text())["settings"]["classes"] == names


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give --classes or"),
        ([*WORDS, "--classes-file", "w"], 2, "give --classes or"),
        (["--classes", "cat,,dog"], 1, "class 1 has no name"),
        (["--classes", ""], 2, "names no class"),
        (["--classes", __file__], 2, "--classes-file"),
        (["--classes", "cat,cat"], 1, "more than once: cat"),
        (["--classes", "cat,background", "--background", "0.5"], 1, "do not ask for it"),
        ([*WORDS, "--background", "1.5"], 2, "probability in [0, 1]"),
        ([*WORDS, "--background", "dog=0.5"], 2, "or 0.5,cat=0.3"),
        ([*WORDS, "--background", "high"], 2, "probability in [0, 1]"),
        ([*WORDS, "--words", "best"], 1, "words must be one of largest, mean"),
        (["--classes", "cat|dog,dog"], 1, "'dog' is one of 'cat' and of 'dog'"),
        (["--classes", 'cat,"dog'], 1, "quotation mark is not closed"),
        (["--classes-file", "nowhere.txt"], 1, "mgca: nowhere.txt: No such file"),
        ([*WORDS, "--meta-points", "35"], 2, "square number"),
        ([*WORDS, "--meta-points", "many"], 2, "square number"),
        ([*WORDS, "--overlay", "gif"], 2, "jpg, png or none"),
        ([*WORDS, "--device", "cuda:99"], 2, "no device"),
        ([*WORDS, "--quiet", "--verbose"], 2, "--quiet does not go with --verbose"),
        ([*WORDS, "nowhere"], 1, "no image, folder or pattern nowhere"),
        ([*WORDS, "photos/*.gif"], 1, "no image in photos/*.gif"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    folder, capsys, segmented, arguments, code, message
):
    assert run("photos", *arguments) == code
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert message in shown and "Traceback" not in shown
    assert not segmented and not Path("out").exists()


def test_results_among_the_images_are_not_segmented(folder, segmented):
    for _ in range(2):
        assert main(["segment", "photos", *WORDS, "--overlay", "png", "--out", "photos"]) == 0
    assert len(segmented) == 3


def test_names_are_paths_below_what_the_sources_share(folder):
    def names(*sources):
        return sorted(named_images(sources)[0])

    assert names("photos") == ["a/x.jpg", "b/x.jpg", "b/x.png"]
    assert names("photos/a") == names("photos/a/x.jpg") == names("photos/a/*.jpg") == ["x.jpg"]
    assert names("photos/a/x.jpg", "photos/b/x.png") == ["a/x.jpg", "b/x.png"]
    assert names("photos/*/x.jpg") == ["a/x.jpg", "b/x.jpg"]
    assert names("photos/**/*.png") == ["b/x.png"]
    assert names("photos", "photos/a", str(folder / "photos/b/x.png")) == names("photos")
    assert named_images(["photos/a"]) == ({"x.jpg": folder / "photos/a/x.jpg"}, {})
    Path("photos/.hidden.jpg").write_text("")
    Path("photos/notes.txt").write_text("")
    assert names("photos") == ["a/x.jpg", "b/x.jpg", "b/x.png"]
    assert names("photos/notes.txt") == ["notes.txt"]  # given by name
    Path("photos/[1].jpg").write_text("")
    assert names("photos/[1].jpg") == ["[1].jpg"]  # a file and no pattern


PARTS = st.sampled_from(["a", "b", "x.jpg", "x.png"])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(chosen=st.sets(st.lists(PARTS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=5))
def test_no_two_images_have_results_of_one_name(tmp_path_factory, chosen):
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for parts in chosen:
        path = folder.joinpath(*(f"in {part}" for part in parts[:-1]), f"{parts[-1]}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        paths.append(path)
    found, _ = named_images(list(map(str, paths)))
    assert sorted(found.values()) == sorted(paths)
    results = [name + kind for name in found for kind in (*KINDS, ".json")]
    assert len(set(results)) == len(results)


def test_image_numbers_are_json_safe_and_differ():
    numbers = {image_number(f"{k}.jpg") for k in range(2000)}
    assert len(numbers) == 2000 and min(numbers) > 0 and max(numbers) * 8000 < 2**53


def test_with_the_small_model_of_scenes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    arguments = ["photo.png", "--classes", "sky, grass", "--model", "scenes", "--out", "."]
    assert main(["segment", *arguments]) == 0
    assert "1 image: 1 segmented" in capsys.readouterr().out
    labels = np.asarray(Image.open("photo.png.labels.png"))
    model = mgca.load("scenes")
    assert np.array_equal(labels, model.segment(pixels, ["sky", "grass"]).to_numpy())
