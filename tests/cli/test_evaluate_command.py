"""The command ``mgca evaluate``: what it prints, what it writes, and how it exits."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_benchmarks import lay_out
from tiny import TinyBackbone

from mgca.backbone import BackboneUnavailable
from mgca.cli import loading, main
from mgca.config import SegmentConfig
from mgca.data.masks import load_folder
from mgca.data.scenes.sets import TEST_SEED, evaluation_set
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.conventions import ranges
from mgca.evaluation.evaluate import evaluate
from mgca.evaluation.results import read_results
from mgca.inference.scoring import rest_of, rules
from mgca.model import Model, load
from mgca.weights import WeightsError
from mgca.weights.decoders import save_decoder

with_mmsegmentation = pytest.mark.skipif(
    importlib.util.find_spec("mmseg") is None, reason="needs the extra benchmarks"
)
SMALL = SegmentConfig(short_side=64, window=64, stride=32)
CLASSES = "red,green,blue"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(here, monkeypatch):
    """Every model is tiny; the list keeps those that were asked for."""
    asked = []

    def model(*arguments):
        asked.append(arguments)
        return Model(TinyBackbone(), None, SMALL), "tiny"

    monkeypatch.setattr(loading, "load_named", model)
    return asked


@pytest.fixture
def folder(here):
    """Three images in ``images``, their masks of ids 0 to 2 in ``masks``."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (here / name).mkdir()
    for number, size in enumerate([(60, 80), (90, 50), (64, 64)]):
        image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(here / "images" / f"{number}.png")
        mask = generator.integers(0, 3, size, dtype=np.uint8)
        Image.fromarray(mask).save(here / "masks" / f"{number}.png")
    return here


OWN = ["evaluate", "--images", "images", "--masks", "masks", "--classes", CLASSES]


def run(capsys, *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(arguments) == code
    return capsys.readouterr()


def expected_of(folder, units=(None, 36), background=None, temperature=None, limit=None):
    data = load_folder(
        folder / "images",
        folder / "masks",
        CLASSES.split(","),
        background=background is not None,
    ).first(limit)
    model = Model(TinyBackbone(), None, SMALL)
    return evaluate(model, data, units, background=background, temperature=temperature)


# Results


def test_scenes_with_a_background(here, capsys):
    arguments = "evaluate things --model scenes --limit 3 --units pixel --units 16 --background 0.5"
    out, err = run(capsys, *arguments.split())
    lines = out.splitlines()
    data = evaluation_set("things", 3, seed=TEST_SEED)
    model = load("scenes")
    expected = evaluate(model, data, (None, 16), background=0.5)
    assert lines[0] == "scenes mgca on things, 21 classes"
    occurring = np.flatnonzero(expected["16"].counts.sum(1)).tolist()
    assert lines[1] == f"masks: ids {ranges(occurring)} occur, 0.0 % of the pixels are ignored"
    assert lines[2].startswith("background: largest probability at most 0.5 at temperature 0.0654")
    for line, (unit, confusion) in zip(lines[3:5], expected.items(), strict=True):
        words = line.split()
        assert words == [
            unit, "mIoU", f"{confusion.miou:.2f}", "accuracy", f"{confusion.accuracy:.2f}"
        ]  # fmt: skip
    # Things that are predicted where none is: mmsegmentation's mean is another.
    several = ", ".join(f"{c.miou_with_absent:.2f} ({unit})" for unit, c in expected.items())
    assert lines[5].startswith(f"mmsegmentation's mean is {several}: it counts a class that is")
    assert lines[6].startswith("not a whole benchmark")
    name = re.fullmatch(
        r"(results/evaluation/runs/\w{12}\.json) says how these numbers came about", lines[7]
    )
    assert len(lines) == 8 and err == ""
    record = json.loads((here / name[1]).read_text())
    assert record["config"]["set"] == ["things", data.digest, 3]
    table = read_results("results/evaluation/evaluation.csv")
    assert set(table["variant"]) == {"scenes mgca"} and len(table) == 6


@pytest.mark.parametrize("background", [None, 0.4])
def test_a_folder(folder, tiny, capsys, background):
    arguments = [*OWN, "--json", "--label", "mine"]
    if background is not None:
        arguments += ["--with-background", "--background", "0.4", "--temperature", "0.2"]
    out, err = run(capsys, *arguments, "--per-class", "--confusion", "tables/c.csv")
    assert err == ""
    shown = json.loads(out)
    expected = expected_of(folder, background=background, temperature=0.2)
    assert (shown["variant"], shown["set"], shown["complete"]) == ("mine", "images", False)
    assert shown["background"] == background
    names = ["background"] * (background is not None) + CLASSES.split(",")
    for unit, confusion in expected.items():
        assert shown["units"][unit] == {
            "miou": confusion.miou,
            "accuracy": confusion.accuracy,
            "miou_mmsegmentation": confusion.miou_with_absent,
        }
        assert shown["mmsegmentation"] is None  # it counts benchmarks
        iou = [None if np.isnan(x) else round(100 * x, 2) for x in confusion.iou]
        assert list(shown["iou"][unit].values()) == iou
        assert list(shown["iou"][unit]) == names
        table = pd.read_csv(folder / "tables" / f"c-{unit}.csv", index_col="true")
        assert list(table.index) == list(table.columns) == names
        assert np.array_equal(table.to_numpy(), confusion.counts)
    assert tiny == [("lite", "mgca", None, None)]
    again = json.loads(run(capsys, *arguments)[0])
    assert "iou" not in again and again["units"] == shown["units"]


def test_more_words_than_a_file_name_may_have_letters(folder, tiny, capsys):
    names = [*CLASSES.split(","), *(f"wooden table number {i}" for i in range(40))]
    arguments = [*OWN[:-1], ",".join(names), "--units", "36", "--per-class", "--json"]
    assert list(json.loads(run(capsys, *arguments)[0])["iou"]["36"]) == names


def test_each_class_and_a_limit(folder, tiny, capsys):
    (folder / "names.txt").write_text("\ufeffred\n green\nblue\n\n", encoding="utf-8")
    arguments = [*OWN[:-1], "names.txt", "--limit", "2", "--units", "36", "--per-class"]
    out, _ = run(capsys, *arguments)
    (expected,) = expected_of(folder, (36,), limit=2).values()
    lines = out.splitlines()
    assert lines[1] == "masks: ids 0-2 occur, 0.0 % of the pixels are ignored"
    assert lines[2].split()[:3] == ["36", "mIoU", f"{expected.miou:.2f}"]
    names = CLASSES.split(",")
    rows = [line.split() for line in lines[-4:-1]]
    assert rows == [[n, f"{100 * x:.2f}"] for n, x in zip(names, expected.iou, strict=True)]
    assert " pixel  mIoU" not in out


@with_mmsegmentation
def test_a_benchmark(here, tiny, capsys, monkeypatch):
    lay_out("voc", here / "data")
    arguments = ["evaluate", "voc", "--root", "data"]
    out, err = run(capsys, *arguments, code=1)
    assert out == "" and "mgca: voc has a background: give its threshold, --background" in err
    out, err = run(capsys, *arguments, "--background", "0.3")
    assert out.startswith("tiny on voc, 21 classes\n") and err == ""
    # A protocol that has chosen them is followed, unless told otherwise.
    from mgca.data import benchmarks

    chosen = benchmarks.load_benchmark("voc")
    protocol = chosen.protocol.__class__(
        **{**vars(chosen.protocol), "threshold": 0.25, "temperature": 0.5}
    )
    changed = chosen.__class__(**{**vars(chosen), "protocol": protocol})
    monkeypatch.setattr(benchmarks, "load_benchmark", lambda name: changed)
    out, _ = run(capsys, *arguments)
    assert "largest probability at most 0.25 at temperature 0.5\n" in out
    out, _ = run(capsys, *arguments, "--background", "0", "--temperature", "0.1")
    assert "largest probability at most 0 at temperature 0.1\n" in out


def test_imagenet_statistics(folder, capsys, monkeypatch):
    models = [Model(TinyBackbone(), None, SMALL) for _ in range(2)]
    monkeypatch.setattr(loading, "load_named", lambda *_: (models[0], "tiny"))
    out, _ = run(capsys, *OWN, "--imagenet-statistics", "--json")
    # TCL's, as its configuration has them.
    statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert (models[0].backbone.mean, models[0].backbone.std) == statistics
    models[1].backbone.mean, models[1].backbone.std = statistics
    shown = json.loads(out)
    assert shown["variant"] == "tiny imagenet statistics"
    expected = evaluate(models[1], load_folder("images", "masks", CLASSES.split(",")))
    for unit, confusion in expected.items():
        assert shown["units"][unit]["miou"] == confusion.miou
    assert expected["pixel"].miou != expected_of(folder)["pixel"].miou


def test_models(here, monkeypatch):
    torch.manual_seed(0)
    model, variant = loading.load_named("scenes", "none", None, None)
    assert model.decoder is None and variant == "scenes value"
    assert model.backbone.last_block == "value"
    model, variant = loading.load_named("scenes", "none", "attention", None)
    assert model.backbone.last_block == "attention" and variant == "scenes attention"
    save_decoder("own.safetensors", GatedConvDecoder(model.backbone.dim), load("scenes").backbone)
    model, variant = loading.load_named("scenes", "own.safetensors", None, None)
    assert variant == "scenes own" and not model.decoder.blocks[0].gate.any()
    given = []
    monkeypatch.setattr("mgca.model.load", lambda *a, **k: given.append((a, k)) or model)
    assert loading.load_named("RN50", "own.st", None, "openai")[1] == "RN50 openai own"
    assert loading.load_named("hf://a/b", "mgca", None, None)[1] == "hf://a/b mgca"
    loading.load_named("hf://a/b", "none", None, None)
    assert given == [
        (("RN50", "own.st"), {"pretrained": "openai"}),
        (("hf://a/b", "mgca"), {"pretrained": True}),
        (("hf://a/b", None), {"pretrained": True}),
    ]


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a SET, or --images, --masks and --classes"),
        (["--images", "images", "--masks", "masks"], "give a SET, or --images, --masks and"),
        (["things", *OWN[1:]], "give a SET, or --images, --masks and --classes, not both"),
        (["kitti", "--root", "."], "no set 'kitti', only voc, context, coco, voc20, c59, stuff"),
        (["voc"], "give the folder of voc, --root"),
        (["things", "--root", "."], "--root is for a benchmark"),
        ([*OWN[1:], "--root", "."], "--root is for a benchmark"),
        (["voc", "--root", ".", "--limit", "3"], "--limit is for scenes and your own images"),
        (["things", "--with-background"], "--with-background is for your own masks"),
        (["things", "--units", "17"], "pixel or a square number of meta-points, not '17'"),
        (["things", "--units", "many"], "pixel or a square number of meta-points, not 'many'"),
        (["things", "--units", "0"], "pixel or a square number of meta-points, not '0'"),
        (["things", "--limit", "0"], "Invalid value for '--limit': Input should be greater"),
        (["things", "--background", "1.5"], "'--background': a probability in [0, 1]"),
        (["things", "--background", "nan"], "Invalid value for '--background'"),
        (["things", "--device", "abacus"], "no device 'abacus' here"),
        (["things", "--device", "cuda:99"], "no device 'cuda:99' here"),
        (["things", "--last-block", "sclip"], "--last-block goes with --decoder none"),
    ],
)
def test_wrong_usage(folder, capsys, arguments, message):
    out, err = run(capsys, "evaluate", *arguments, code=2)
    words = " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())
    assert out == "" and message in words and "Traceback" not in err


# Errors


def one_line(capsys, *arguments: str) -> str:
    out, err = run(capsys, *arguments, code=1)
    assert out == "" and err.count("\n") == 1 and err.startswith("mgca: ")
    return err[6:-1]


def test_errors_are_one_line(folder, tiny, capsys):
    def error(*arguments):
        return one_line(capsys, *arguments)

    assert error("evaluate", "voc", "--root", "no").startswith("voc (PASCAL VOC 2012): no folder")
    wrong = [*OWN[:-1], "no.txt"]
    assert error(*wrong) == "no file of classes no.txt"
    assert error(*OWN[:-1], "images/0.png").startswith("images/0.png: not a UTF-8 text file")
    assert error(*OWN[:-1], "red,,blue") == "class 1 has no name: ''"
    assert error(*OWN[:2], "masks/no", *OWN[3:]) == "no folder masks/no"
    assert error(*OWN[:-1], "red,green") == (
        "masks/0.png: id 2 is not one of the 2 classes of images"
    )
    assert "--background" in error(*OWN, "--with-background")
    assert "temperature must be positive" in error(
        *OWN, "--with-background", "--background", "0.5", "--temperature", "0"
    )
    (folder / "images" / "1.png").write_bytes(b"x")
    assert error(*OWN) == "images/1.png: not a picture in a format that Pillow reads"
    assert error(*OWN, "--workers", "1") == (
        "images/1.png: not a picture in a format that Pillow reads"
    )
    (folder / "images" / "1.png").unlink()
    (folder / "file").write_text("")
    for option in ("--out", "--work"):
        assert "file" in error(*OWN, option, "file")


@pytest.mark.parametrize("confusion", ["file/c.csv", "images/taken.csv"])
def test_a_confusion_matrix_that_cannot_be_written(folder, tiny, capsys, confusion):
    (folder / "file").write_text("")
    for unit in ("pixel", "36"):
        (folder / "images" / f"taken-{unit}.csv").mkdir()
    message = one_line(capsys, *OWN, "--confusion", confusion)
    assert message.startswith(f"cannot write {confusion[:-4]}-pixel.csv: ")


def test_models_that_cannot_be_had(here, capsys, monkeypatch):
    error = one_line(capsys, "evaluate", "things", "--decoder", "no.safetensors")
    assert "no.safetensors" in error
    error = one_line(capsys, "evaluate", "things", "--model", "x", "--decoder", "none")
    assert error.startswith("unknown backbone 'x': give lite, scenes, vit-b-16")
    error = one_line(capsys, "evaluate", "things", "--model", "ltie")
    assert error.startswith("unknown backbone 'ltie': give lite, scenes, vit-b-16")
    error = one_line(capsys, "evaluate", "things", "--model", "vit-b-16")
    assert error.startswith("no trained decoder for 'vit-b-16' comes with the project")

    def unavailable(*_, **__):
        raise BackboneUnavailable("not in the cache\nConnect to the network")

    monkeypatch.setattr("mgca.backbone.load_backbone", unavailable)
    error = one_line(capsys, "evaluate", "things", "--model", "vit-b-16", "--decoder", "none")
    assert error == "not in the cache Connect to the network"


def test_interrupted_and_going_on(folder, tiny, capsys, monkeypatch):
    expected = expected_of(folder)
    segment, calls = Model.segment, []

    def interrupted(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:  # the second unit of the second image
            raise KeyboardInterrupt
        return segment(self, *arguments, **options)

    monkeypatch.setattr(Model, "segment", interrupted)
    out, err = run(capsys, *OWN, code=130)
    assert out == "" and err.endswith("mgca: interrupted; the same command goes on from here\n")
    assert "Traceback" not in err
    out, err = run(capsys, *OWN, "--json")
    assert len(calls) == 4 + 2 * 2 and err == ""
    shown = json.loads(out)["units"]
    assert {u: v["miou"] for u, v in shown.items()} == {u: c.miou for u, c in expected.items()}


def test_fresh(folder, tiny, capsys, monkeypatch):
    run(capsys, *OWN)
    segment, calls = Model.segment, []
    monkeypatch.setattr(Model, "segment", lambda *a, **k: calls.append(1) or segment(*a, **k))
    run(capsys, *OWN)
    assert not calls
    run(capsys, *OWN, "--fresh")
    assert len(calls) == 3 * 2


# The command itself


def test_help_is_light_and_fits_80_columns():
    code = (
        "import sys; from mgca.cli import main; main(['--help']); "
        "code = main(['evaluate', '--help']); "
        "heavy = {'torch', 'numpy', 'mmseg', 'PIL', 'pandas', 'timm'} & set(sys.modules); "
        "sys.exit(str(sorted(heavy)) if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"evaluate +Measure mIoU\.", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 80
    for option in ("--root", "--with-background", "--imagenet-statistics", "--per-class"):
        assert option in done.stdout  # whole, not cut to fit


@with_mmsegmentation
def test_a_process_of_its_own_is_quiet(here):
    # mmsegmentation prints, mmcv warns, a worker could do either; and nothing has set a scope yet.
    lay_out("ade", here / "data")
    code = (
        "import sys; from mgca.cli import loading, main; from tiny import TinyBackbone; "
        "from mgca.model import Model; "
        "loading.load_named = lambda *_: (Model(TinyBackbone()), 'tiny'); sys.exit(main())"
    )
    arguments = "evaluate ade --root data --units 4 --workers 1 --json"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split()],
        capture_output=True,
        text=True,
        cwd=here,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(json.loads(done.stdout)["units"]) == ["4"]


def test_groupvit_has_units_of_its_own_and_tcl_needs_its_checkpoint(tmp_path, capsys, monkeypatch):
    asked = []

    def load_groupvit(name):
        asked.append(name)
        raise WeightsError("no such folder")

    monkeypatch.setattr("mgca.evaluation.baselines.groupvit.load_groupvit", load_groupvit)
    common = ["evaluate", "things", "--limit", "1", "--background", "0.5"]
    assert main([*common, "--model", "groupvit", "--pretrained", "here"]) == 1
    assert main([*common, "--model", "groupvit"]) == 1
    assert asked == ["here", "nvidia/groupvit-gcc-yfcc"]
    assert main([*common, "--model", "tcl"]) == 2
    assert "needs its checkpoint" in capsys.readouterr().err
    assert main([*common, "--model", "scenes", "--rule", "sigmoid"]) == 1
    assert "one of this model's (softmax)" in capsys.readouterr().err


def test_tcls_own_rule(tmp_path, capsys):
    model = load("scenes")
    model.scoring = rules((12.0, -2.0))
    path = save_decoder(
        tmp_path / "tcl.safetensors", model.decoder, model.backbone, sigmoid=(12.0, -2.0)
    )
    command = ["evaluate", "things", "--limit", "2", "--model", "scenes", "--decoder", str(path)]
    command += ["--background", "0.5", "--units", "16", "--json"]
    command += ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    found = {}
    for rule in ("softmax", "sigmoid"):
        assert main([*command, "--rule", rule]) == 0
        found[rule] = json.loads(capsys.readouterr().out)
    assert found["sigmoid"]["run"] != found["softmax"]["run"]
    data = evaluation_set("things", 2, seed=TEST_SEED)
    expected = evaluate(model, data, (16,), background=0.5, rule="sigmoid")["16"]
    assert found["sigmoid"]["units"]["16"]["miou"] == pytest.approx(expected.miou)


def test_scenes_and_folders_need_no_extra(folder):
    code = (
        "import json, sys; sys.modules['mmseg'] = sys.modules['mmengine'] = None; "
        "from mgca.cli import main; print([main(words) for words in json.loads(sys.argv[1])])"
    )
    scenes = "evaluate things --model scenes --limit 1 --units 16 --background 0.5"
    own = [*OWN, "--model", "scenes", "--workers", "1"]
    commands = json.dumps([scenes.split(), own, ["evaluate", "voc", "--root", "."]])
    done = subprocess.run(
        [sys.executable, "-c", code, commands], capture_output=True, text=True, cwd=folder
    )
    assert done.stdout.splitlines()[-1] == "[0, 0, 1]"
    assert "pip install 'mgca[benchmarks]'" in done.stderr and done.stderr.count("\n") == 1


# What masks mean


def write_masks(folder, change, **options) -> None:
    """Change the ids of every mask of a folder."""
    for path in sorted((folder / "masks").iterdir()):
        with Image.open(path) as image:
            ids = np.array(image)
        Image.fromarray(change(ids)).save(path, **options)


def test_two_evaluations_of_one_name_leave_all_their_rows(folder, tiny, capsys):
    # Two decoders called alike, on two folders of the same last part.
    for place in ("first", "second"):
        (folder / place).mkdir()
        for name in ("images", "masks"):
            shutil.copytree(folder / name, folder / place / name)
    write_masks(folder / "second", np.flipud)
    runs = set()
    for place in ("first", "second"):
        for units in (["--units", "4"], ["--units", "16"]):
            command = [*OWN[:2], f"{place}/images", "--masks", f"{place}/masks", *OWN[5:], *units]
            runs.add(json.loads(run(capsys, *command, "--label", "mine", "--json")[0])["run"])
    table = read_results("results/evaluation/evaluation.csv")
    table = table[table["metric"] == "miou"]
    assert len(runs) == len(table) == 4 and set(table["run"]) == runs
    assert sorted(table["dataset"]) == ["first/images"] * 2 + ["second/images"] * 2
    # Under one name, one set and one unit too: the run tells them apart.
    command = [*OWN[:2], "first/images", "--masks", "first/masks", *OWN[5:], "--label", "mine"]
    write_masks(folder / "first", np.fliplr)
    run(capsys, *command, "--units", "4")
    again = read_results("results/evaluation/evaluation.csv")
    alike = again[(again["dataset"] == "first/images") & (again["unit"] == "4")]
    assert alike.groupby("metric").size().tolist() == [2, 2, 2]


def test_masks_of_0_and_255_are_doubted(folder, tiny, capsys, caplog):
    write_masks(folder, lambda ids: np.where(ids, 255, 0).astype(np.uint8))
    out, _ = run(capsys, *OWN)
    (doubt,) = caplog.messages
    assert doubt.startswith("the masks of images hold 0, 255 only, and 255 is ignored: if it is")
    assert "--foreground 255" in doubt
    share = np.mean(np.concatenate([m.ravel() == 255 for _, _, m in load_folder(
        "images", "masks", CLASSES.split(",")
    )]))  # fmt: skip
    assert f"masks: ids 0 occur, {100 * share:.1f} % of the pixels are ignored" in out


def test_one_foreground_against_the_background(folder, tiny, capsys):
    write_masks(folder, lambda ids: np.where(ids == 2, 255, 0).astype(np.uint8))
    arguments = [*OWN[:-1], "red", "--foreground", "255", "--units", "16", "--background", "0.2"]
    shown = json.loads(run(capsys, *arguments, "--json", "--confusion", "c.csv")[0])
    model = Model(TinyBackbone(), None, SMALL)
    counts = np.zeros((2, 2), dtype=int)
    for path in sorted((folder / "images").iterdir()):
        labels = model.segment(path, ["red"], 16, 0.2).labels.numpy()
        with Image.open(folder / "masks" / path.name) as image:
            np.add.at(counts, (np.array(image) // 255, labels), 1)
    table = pd.read_csv("c-16.csv", index_col="true")
    assert list(table.columns) == list(table.index) == ["background", "red"]
    assert table.to_numpy().tolist() == counts.tolist() and (counts > 0).all()
    iou = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    assert shown["units"]["16"]["miou"] == pytest.approx(100 * iou.mean())
    assert shown["ignored"] == 0
    record = json.loads((folder / f"results/evaluation/runs/{shown['run']}.json").read_text())
    assert record["config"]["ids"] == "255 is the foreground"
    assert record["config"]["rest"] == rest_of("red")
    assert json.loads(run(capsys, *arguments, "--json")[0]) == shown  # as it was kept
    message = one_line(capsys, *OWN, "--foreground", "255", "--background", "0.2")
    assert message == "one foreground has one class, not 3: red, green, blue"


def test_classes_of_several_words_and_words_of_the_background(folder, tiny, capsys):
    (folder / "words.txt").write_text("background, sky\nred, crimson\ngreen\nblue, navy\n")
    given = [*OWN[:-1], "words.txt", "--with-background", "--units", "pixel", "--json"]
    write_masks(folder, lambda ids: (ids + 1).astype(np.uint8))
    shown = json.loads(run(capsys, *given)[0])
    record = json.loads((folder / f"results/evaluation/runs/{shown['run']}.json").read_text())
    assert shown["background"] is None and record["config"]["classes"] == CLASSES.split(",")
    words = {"background": ["background", "sky"], "red": ["red", "crimson"]}
    words |= {"green": ["green"], "blue": ["blue", "navy"]}
    assert record["config"]["words"] == words
    data = load_folder("images", "masks", CLASSES.split(","), background=True)
    right = counted = 0
    for _, image, truth in data:
        labels = Model(TinyBackbone(), None, SMALL).segment(image, words, None).labels.numpy()
        right, counted = right + (labels == truth).sum(), counted + (truth != 255).sum()
    assert shown["units"]["pixel"]["accuracy"] == pytest.approx(100 * right / counted)
    other = json.loads(run(capsys, *given, "--background", "0.1,red=0.9", "--words", "mean")[0])
    assert other["run"] != shown["run"]
    assert other["background"] == {"red": 0.9, "green": 0.1, "blue": 0.1}
    (folder / "words.txt").write_text("background, sky\nred\n")
    scenes = ["evaluate", "things", "--words-file", "words.txt"]
    assert one_line(capsys, *scenes).startswith("2 lines of words, and things has")


def test_ids_that_begin_at_one(folder, tiny, capsys):
    expected = json.loads(run(capsys, *OWN, "--json")[0])
    write_masks(folder, lambda ids: ids + 1)
    message = one_line(capsys, *OWN)
    assert message.startswith("the masks of images hold 1-3, and the first of 3 classes is 0: ")
    assert "--ignore-zero" in message and "--with-background" in message
    shown = json.loads(run(capsys, *OWN, "--ignore-zero", "--json")[0])
    assert shown["units"] == expected["units"] and shown["run"] != expected["run"]
    # The same files, where 0 occurs and is ignored or is a class: two evaluations.
    write_masks(folder, lambda ids: ids - 1)
    ignoring = json.loads(run(capsys, *OWN, "--ignore-zero", "--json")[0])
    assert ignoring["run"] not in (shown["run"], expected["run"]) and ignoring["ignored"] > 0.2


def test_other_names_and_formats_of_masks(folder, tiny, capsys):
    expected = json.loads(run(capsys, *OWN, "--json")[0])
    for path in list((folder / "masks").iterdir()):
        with Image.open(path) as image:
            image.save(path.with_name(f"{path.stem}_mask.tif"))
        path.unlink()
    assert "has no mask masks/0.png" in one_line(capsys, *OWN)
    shown = json.loads(run(capsys, *OWN, "--mask-suffix", "_mask.tif", "--json")[0])
    assert shown["units"] == expected["units"]


def test_masks_that_cannot_be_meant(folder, tiny, capsys):
    write_masks(folder, lambda ids: np.full_like(ids, 255))
    assert one_line(capsys, *OWN).startswith(
        "the masks of images hold 255, all of which is ignored"
    )
    write_masks(folder, lambda ids: np.zeros_like(ids))
    message = one_line(capsys, *OWN[:-1], "red", "--foreground", "255")
    assert message == "the masks of images hold 0, and never 255, the foreground"
    write_masks(folder, lambda ids: np.stack([ids] * 3, axis=-1))
    assert one_line(capsys, *OWN).endswith("(60, 80, 3): its colours must be made ids")


# Decoders, checkpoints and runs


def test_one_process_alone_draws_a_curve(folder, tiny, capsys, monkeypatch):
    monkeypatch.setattr("mgca.evaluation.shares.join", lambda: 0)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    out, err = run(capsys, *OWN, "--checkpoints", str(folder), code=2)
    assert out == "" and "start one, without torchrun" in " ".join(err.replace("│", " ").split())


def test_the_device_is_the_gpu_if_there_is_one(folder, tiny, capsys, monkeypatch):
    from mgca.utils import devices

    run(capsys, *OWN)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    _, err = run(capsys, *OWN, code=2)
    assert "no device 'cuda' here" in err
    run(capsys, *OWN, "--device", "cpu")
