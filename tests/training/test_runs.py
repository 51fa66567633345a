"""Configurations by name, from files and with changes; what a run is estimated to take."""

import dataclasses

import pytest

from mgca.config import LossConfig, TrainConfig, config_hash
from mgca.data.shards import StreamConfig
from mgca.losses import TCLConfig, make_objective
from mgca.training.runs import NAMED, RunConfig, load_objective, load_run, photos_training


def test_paper_is_the_defaults_and_the_defaults_are_the_papers():
    run = load_run("paper")
    assert run == RunConfig(train=TrainConfig(), stream=StreamConfig(), clip=None)
    train = run.train
    assert (train.batch_size, train.epochs, train.learning_rate) == (1024, 15, 1e-4)
    assert (train.backbone, train.weight_decay, train.captions) == ("vit-b-16", 0.05, "uniform")
    assert (train.loss.alpha, train.loss.alpha_neg, train.loss.k) == (0.4, 0.05, 0.06)
    assert (run.stream.size, run.stream.crop) == (224, "centre")


def test_every_name_loads_and_has_a_hash_of_its_own():
    assert len({config_hash(load_run(name)) for name in NAMED}) == len(NAMED)


def test_a_file_holds_what_is_not_the_papers(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'clip = 1\n[train]\nbatch_size = 512\n[train.loss]\nalpha = 0.3\n[stream]\ncrop = "random"'
    )
    run = load_run(path)
    assert run.clip == 1.0 and isinstance(run.clip, float)
    assert run.stream.crop == "random" and run.train.batch_size == 512
    expected = dataclasses.replace(
        TrainConfig(), batch_size=512, loss=dataclasses.replace(LossConfig(), alpha=0.3)
    )
    assert run.train == expected


def test_changes_apply_in_order():
    run = load_run(
        "paper",
        ["train.steps=7", "train.loss.measure=cosine", "clip = 2", "clip=none", "train.seed=3"],
    )
    assert (run.train.steps, run.train.loss.measure, run.clip, run.train.seed) == (
        *(7, "cosine", None),
        3,
    )
    assert load_run("paper", ["train.hold_mean=true"]).train.hold_mean is True


def test_a_value_that_is_the_same_makes_the_same_run():
    for change in ("train.epochs=15", "train.learning_rate=1e-4", "clip=none"):
        assert config_hash(load_run("paper", [change])) == config_hash(load_run("paper"))


@pytest.mark.parametrize(
    "change, message",
    [
        ("train.batchsize=4", "no value train.batchsize: known are backbone"),
        ("batch_size=4", "no value batch_size: known are clip, stream, train"),
        ("train.batch_size=many", "train.batch_size must be int, not 'many'"),
        ("train.batch_size=4.5", "train.batch_size must be int"),
        ("train.batch_size=true", "train.batch_size must be int"),
        ("train.steps=x", "train.steps must be int or none"),
        ("train.loss=3", "train.loss is a table"),
        ("train.loss.alpha=2", "alpha is a share"),
        ("train.precision=float8", "precision must be one of"),
        ("clip=0", "clip must be positive"),
        ("stream.lanes=0", "lanes and size must be positive"),
        ("train.batch_size", "expected NAME=VALUE"),
    ],
)
def test_changes_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        load_run("paper", [change])


def test_files_that_make_no_sense_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no configuration .*papr.*paper or photos"):
        load_run("papr")
    for name, text in {"broken": "clip = ", "code": "clip = __import__('os')"}.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{name}.toml is not TOML"):
            load_run(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not TOML"):
        load_run(path)


def test_photos_is_the_configuration_of_the_scale():
    """Less what needs all captions in memory; a run of it is published."""
    run = load_run("photos")
    assert run.train == dataclasses.replace(photos_training(), names=0.0, known=None)
    changes = ["train.precision=float32", "train.batch_size=16", "train.steps=200"]
    assert config_hash(load_run("photos", changes)) == "504c7f43f547"


MINE = """
from dataclasses import dataclass
from mgca.config import added
from mgca.losses import LossConfig, MGCA, objective

@dataclass(frozen=True, kw_only=True)
class Mine(LossConfig):
    margin: float = added(0.2)

@objective(Mine)
class MyLoss(MGCA):
    pass
"""


def test_an_objective_of_ones_own_is_a_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    run = load_run("photos", ["train.loss.margin=0.1", "train.loss.k=0.5"], path)
    loss = run.train.loss
    assert type(loss).__name__ == "Mine" and (loss.margin, loss.k) == (0.1, 0.5)
    assert loss.alpha == 0.2, "settings that both have are those of the configuration"
    assert type(make_objective(loss)).__name__ == "MyLoss"
    assert config_hash(load_run("photos", objective=path)) != config_hash(load_run("photos"))
    own = tmp_path / "run.toml"
    own.write_text("[train.loss]\nmargin = 0.3")
    assert load_run(own, objective=path).train.loss.margin == 0.3


def test_objectives_that_come_with_the_library_have_names():
    assert load_run("paper", objective="mgca") == load_run("paper")
    run = load_run("paper", ["train.loss.area=0.2"], "tcl")
    assert type(run.train.loss) is TCLConfig and run.train.loss.area == 0.2


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1", "registers 0 objectives"),
        (MINE + MINE.replace("Mine", "Other"), "registers 2 objectives"),
        ("import nothing_like_it", "cannot be run: ModuleNotFoundError"),
        ("class", "cannot be run: SyntaxError"),
    ],
)
def test_files_that_are_no_objective_are_named(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"mine.py {message}"):
        load_objective(path)
    with pytest.raises(FileNotFoundError, match="no objective .*none.py: give mgca or tcl, or a"):
        load_objective(tmp_path / "none.py")
