"""Configurations by name, from files and with changes; what a run is estimated to take."""

import dataclasses

import pytest

from mgca.config import LossConfig, TrainConfig, config_hash
from mgca.data.shards import StreamConfig
from mgca.training.runs import NAMED, RunConfig, load_run


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
