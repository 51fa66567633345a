"""``mgca train --scale`` on a scale of a few random images, and the guide "Change a loss"."""

import json
import re
from pathlib import Path
from textwrap import dedent, indent

import pytest
from safetensors.torch import load_file
from tiny_scale import TinyScale

from mgca.cli import main
from mgca.config import config_hash
from mgca.evaluation.results import write_run
from mgca.experiments.grid import grid

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scale(tmp_path, monkeypatch):
    made = TinyScale(tmp_path)
    made.prepare({})
    monkeypatch.setattr("mgca.experiments.load_scale", lambda name: made)
    monkeypatch.chdir(tmp_path)
    return made


def train(*words):
    return main(["train", "--scale", "tiny", *words])


def folder_of(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_one_run_is_trained_evaluated_and_kept_apart_from_results(scale, tmp_path, capsys):
    assert train() == 0
    shown = capsys.readouterr().out
    assert "no published run of this seed here" in shown
    lines = shown.splitlines()
    heading = next(n for n, line in enumerate(lines) if line.startswith("mIoU, pixel unit"))
    assert lines[heading].split()[-2:] == ["things", "stuff"]
    assert re.fullmatch(r"this run +\d+\.\d\d +\d+\.\d\d", lines[heading + 1])
    folder = folder_of(tmp_path)
    assert f"{folder.name}/decoder.safetensors, in " in lines[-1]
    assert json.loads((folder / "run.json").read_text())["config"]["train"]["steps"] == 2
    assert not (tmp_path / "results").exists()


def test_it_stands_beside_the_published_run_of_the_seed(scale, tmp_path, capsys):
    (full,) = (each for each in grid("granularity", scale) if each.name == "all")
    measured = [
        {"dataset": "things", "unit": "pixel", "metric": "miou", "value": 12.345},
        {"dataset": "things", "unit": "36", "metric": "miou", "value": 99.0},
    ]
    record = {"seconds": 150.0, "measured": measured}
    write_run(tmp_path / "results/tiny", full.run(scale, 1), record)
    before = sorted((tmp_path / "results").rglob("*"))
    assert train("--seed", "1") == 0
    shown = capsys.readouterr().out
    assert "about 2 minutes by the published run" in shown
    assert re.search(r"published, MGCA, seed 1 +12\.3[45] +-\n", shown)
    assert sorted((tmp_path / "results").rglob("*")) == before
    record = json.loads((folder_of(tmp_path) / "run.json").read_text())
    assert record["config"]["train"]["seed"] == 1
    assert train("--json", "--seed", "1") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["published"] == {"things": 12.345} and set(told["miou"]) == {"things", "stuff"}


def test_a_changed_value_is_another_run(scale, tmp_path, capsys):
    assert train() == 0
    assert train("--set", "train.loss.alpha=0.5") == 0
    first, second = (
        json.loads((folder / "run.json").read_text()) for folder in (tmp_path / "runs").iterdir()
    )
    alphas = {run["config"]["train"]["loss"]["alpha"] for run in (first, second)}
    assert alphas == {0.3, 0.5}


def test_a_run_goes_on_from_the_folder_of_another(scale, tmp_path, capsys):
    assert train() == 0
    first = folder_of(tmp_path)
    assert train("--set", "train.steps=3", "--from", str(first)) == 0
    (second,) = (each for each in (tmp_path / "runs").iterdir() if each != first)
    record = json.loads((second / "run.json").read_text())
    assert record["origin"].endswith("checkpoints/step-000000002.safetensors")
    assert (second / "metrics.csv").read_text().splitlines()[1].startswith("2,")
    assert train("--from", str(tmp_path)) == 1
    assert "no checkpoint step-NUMBER" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--set", "stream.size=64"], "stream is of shards"),
        (["--config", "paper"], "--random-weights and --precomputed go"),
        (["--random-weights"], "--random-weights and --precomputed go"),
        (["--objective", "none.py"], "no objective none.py"),
        (["--set", "train.loss.margin=1"], "no value train.loss.margin"),
        (["--set", "train.backbone=lite"], "the configuration is for lite"),
        (["--shards", "x"], "give --scale scenes, --scale photos or --shards"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(scale, tmp_path, capsys, words, message):
    assert train(*words) != 0
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "runs").exists()


def test_the_guide_to_change_a_loss_runs_as_written(scale, tmp_path, capsys):
    guide = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n((?:(?!```).)*@objective.*?)```", guide, re.DOTALL).group(1)
    (tmp_path / "mine.py").write_text(dedent(code))
    (words,) = set(re.findall(r"`mgca (train --scale scenes --objective [^`]*)`", guide))
    assert main(words.replace("scenes", "tiny").split()) == 0
    with_margin = folder_of(tmp_path)
    record = json.loads((with_margin / "run.json").read_text())
    assert record["config"]["train"]["loss"]["class"] == "Margin"
    assert record["config"]["train"]["loss"]["margin"] == 0.1
    assert train() == 0
    (plain,) = (each for each in (tmp_path / "runs").iterdir() if each != with_margin)
    ours, theirs = (
        (folder / "metrics.csv").read_text().splitlines()[1].split(",")
        for folder in (with_margin, plain)
    )
    header = (plain / "metrics.csv").read_text().splitlines()[0].split(",")
    by_name = dict(zip(header, zip(ours, theirs, strict=True), strict=True))
    assert by_name["object"][0] == by_name["object"][1], (
        "the first step's other levels are as before"
    )
    assert float(by_name["region"][0]) > float(by_name["region"][1]), "a margin is harder to win by"
    moved = (load_file(folder / "decoder.safetensors") for folder in (with_margin, plain))
    ours, theirs = moved
    assert any((ours[name] != theirs[name]).any() for name in ours)


def test_the_guides_term_runs_as_written_and_is_a_column(scale, tmp_path):
    guide = (ROOT / ".github/CONTRIBUTING.md").read_text(encoding="utf-8")
    loss, term = map(dedent, re.findall(r"```python\n(.*?)```", guide, re.DOTALL))
    (field,) = re.findall(r"`(entropy: float = [^`]*)`", guide)
    head, data, rest = re.match(
        "(.*?)(@dataclass.*?)    margin[^\n]*(.*)", loss, re.DOTALL
    ).groups()
    kind = rest.split("    def logits")[0]
    (tmp_path / "mine.py").write_text(head + data + f"    {field}" + kind + indent(term, "    "))
    assert train("--objective", "mine.py") == 0
    names, first, *_ = (folder_of(tmp_path) / "metrics.csv").read_text().splitlines()
    row = dict(zip(names.split(","), map(float, first.split(",")), strict=True))
    levels = row["object"] + row["region"] + row["pixel"]
    assert row["entropy"] > 0
    assert row["total"] == pytest.approx(levels + 0.1 * row["entropy"], rel=1e-4)


def test_runs_are_named_by_their_configuration(scale, tmp_path):
    assert train() == 0
    record = json.loads((folder_of(tmp_path) / "run.json").read_text())
    assert folder_of(tmp_path).name == config_hash(record["config"])
    assert not {"pretrained", "origin"} & set(record["config"]["train"])


def test_shards_with_another_key_of_captions_are_trained_on(tmp_path, monkeypatch, capsys):
    def asked(source, **options):
        raise ValueError(f"{source} by {options['caption_key']}")

    monkeypatch.setattr("mgca.data.shards.find_shards", asked)
    assert main(["train", "--shards", "tars", "--caption-key", "text"]) == 1
    assert capsys.readouterr().err == "mgca: tars by text\n"
