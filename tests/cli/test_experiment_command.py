"""``mgca experiment``: where it writes, what it prints, and what it refuses at the start."""

from pathlib import Path

import pandas as pd
import pytest
from tiny_scale import TinyScale

from mgca import experiments
from mgca.cli import main
from mgca.evaluation.results import read_results
from mgca.experiments import grid
from mgca.weights import manifest


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with an empty ``results``, and a tiny scale whatever is asked for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("results").mkdir()
    Path("images").mkdir()
    scale = TinyScale(tmp_path / "images")
    monkeypatch.setattr(experiments, "load_scale", lambda name, **_: scale)
    monkeypatch.setattr(grid, "META_POINTS", (None, 16))
    return scale


def test_a_table_goes_into_the_build_until_it_is_published(clone, capsys):
    words = ["experiment", "run", "meta_points", "--scale", "tiny", "--seeds", "0,1"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    table = read_results("_build/experiments/tiny/meta_points.csv")
    assert set(table["seed"]) == {0, 1} and not list(Path("results").iterdir())
    assert out.startswith("meta_points on tiny: _build/experiments/tiny/meta_points.csv\n")
    values = table[(table["metric"] == "miou") & (table["unit"] == "16")].groupby("dataset")
    for _, value in values["value"]:
        assert f"{value.mean():.2f} ± {value.std():.2f}" in out

    assert main([*words, "--publish"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("meta_points on tiny: results/tiny/meta_points.csv\n")
    pd.testing.assert_frame_equal(read_results("results/tiny/meta_points.csv"), table)


def test_times_and_curves_go_there_too(clone, capsys, monkeypatch):
    row = {"variant": "clip", "dataset": "things", "unit": "36", "value": 0.25}
    asked = []
    monkeypatch.setattr(
        "mgca.experiments.timing.seconds_per_image",
        lambda scale, out, **options: asked.append((out, options)) or [row],
    )
    assert main(["experiment", "timing", "--scale", "tiny", "--images", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["clip", "36", "things", "0.2500", "s"]
    assert out[1:] == ["_build/experiments/tiny/benchmarks.csv"]
    assert asked == [
        (Path("_build/experiments/tiny"), {"published": Path("results/tiny"), "images": 1})
    ]
    monkeypatch.setattr(
        "mgca.experiments.thresholds.scale_curves",
        lambda scale, out: pd.DataFrame(
            {"variant": ["a"], "unit": ["36"], "temperature": [0.5], "threshold": [0.25]}
        ).assign(miou=31.0),
    )
    assert main(["experiment", "thresholds", "--scale", "tiny"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "best: threshold 0.25, temperature 0.5, mIoU 31.00\n"
        "_build/experiments/tiny/background.csv\n"
    )
    assert not list(Path("results").iterdir())


OBJECTIVE = """
from dataclasses import dataclass

from mgca.config import added
from mgca.losses import LossConfig, MGCA, objective


@dataclass(frozen=True, kw_only=True)
class Doubled(LossConfig):
    factor: float = added(2.0)


@objective(Doubled)
class DoubledLoss(MGCA):
    def logits(self, pixels, texts, first=0):
        logits = super().logits(pixels, texts, first)
        return logits | {"region": self.config.factor * logits["region"]}
"""


def test_another_training_stands_beside_the_scales_own(clone, capsys):
    Path("mine.py").write_text(OBJECTIVE)
    words = ["experiment", "run", "--scale", "tiny", "--seeds", "0"]
    tables = {}
    for name, given in {
        "own": [],
        "alpha": ["--set", "train.loss.alpha=0.6"],
        "mine": ["--objective", "mine.py"],
        "as it was": ["--objective", "mine.py", "--set", "train.loss.factor=1.0"],
    }.items():
        assert main([*words, *given]) == 0
        table = read_results("_build/experiments/tiny/main.csv").set_index("variant")
        assert list(dict.fromkeys(table.index)) == ["clip", "maskclip", "mgca"]
        tables[name] = table
        clone.training = TinyScale(clone.folder).training
    frozen = {name: tuple(t.loc[["clip", "maskclip"], "run"]) for name, t in tables.items()}
    assert len(set(frozen.values())) == 1
    assert len({tuple(t.loc["mgca", "run"]) for t in tables.values()}) == 4
    values = {name: tuple(t.loc["mgca", "value"]) for name, t in tables.items()}
    assert values["as it was"] == values["own"]
    assert not list(Path("results").iterdir())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("run --set train.loss.alpha=2", 1, "alpha"),
        ("run --set clip=1", 2, "train.NAME=VALUE, not 'clip=1'"),
        ("run --objective tcl", 2, "TCLConfig is no LossConfig"),
        ("run --objective mine.py", 1, "no objective mine.py"),
        ("run --objective mine.py --jobs 2", 2, "--objective goes with --jobs 1"),
        ("run --set train.steps=3 --publish", 2, "--publish is for the scale's own training"),
        ("run alpha", 1, "unknown ablation 'alpha', only granularity"),
        ("run k --seeds 0,0", 2, "--seeds are different numbers"),
        ("publish vit", 2, "no weights 'vit', only scenes-clip, scenes-decoders, lite"),
        ("publish scenes-decoders", 1, "mgca experiment run granularity --scale tiny --seeds 0"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(clone, capsys, words, code, message):
    before = manifest()
    assert main(["-q", "experiment", *words.split()]) == code
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and out == ""
    assert manifest() == before and not Path("_build").exists()


def test_without_a_clone_nothing_can_be_published(clone, capsys):
    Path("results").rmdir()
    assert main(["experiment", "run", "k", "--publish"]) == 1
    assert "no folder results to publish in: go to that of a clone" in capsys.readouterr().err


def test_a_scale_that_is_not_run_says_what_it_would_take(capsys):
    assert main(["experiment", "run", "k", "--scale", "paper"]) == 1
    assert "CC3M" in capsys.readouterr().err
