"""Decoders of checkpoints and runs, and the learning curve of a run."""

import dataclasses
import json

import pytest
import torch
import trains
from evaluated import SMALL, load
from tiny import TinyBackbone

from mgca.cli import loading, main
from mgca.config import config_hash
from mgca.evaluation.evaluate import evaluate
from mgca.evaluation.results import read_results
from mgca.experiments.grid import tcl_training
from mgca.inference.scoring import rules
from mgca.model import Model
from mgca.training.trainer import Trainer
from mgca.weights import WeightsError, read_tensors
from mgca.weights.decoders import (
    checkpoints,
    decoder_from,
    decoder_name,
    learned_sigmoid,
    read_decoder,
)

TRAIN = dataclasses.replace(trains.CONFIG.train, steps=4, seed=3)
RESOURCES = dataclasses.replace(trains.RESOURCES, checkpoint_every=2, keep=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of 4 steps, with checkpoints after 2 and 4."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    Trainer(TRAIN, TinyBackbone(), trains.noise_features(), RESOURCES).run(folder)
    return folder


def test_a_run_is_its_decoder_and_its_last_checkpoint_the_same(run):
    state, meta = read_decoder(run)
    last = read_decoder(run / "checkpoints/step-000000004.safetensors")
    first = read_decoder(run / "checkpoints/step-000000002.safetensors")
    expected, of_file = read_tensors(run / "decoder.safetensors")
    for key, value in expected.items():
        assert torch.equal(state[key], value) and torch.equal(last[0][key], value)
    assert any(not torch.equal(first[0][key], value) for key, value in expected.items())
    assert meta == of_file | {"seed": 3}
    assert (first[1]["step"], last[1]["step"]) == (2, 4)
    for known in (first[1], last[1]):
        assert {**of_file, "seed": 3, "step": known["step"]} == known
        assert known["run"] == config_hash(TRAIN)
    decoder_from(*first, TinyBackbone())
    with pytest.raises(WeightsError, match="this decoder was trained on the backbone 'tiny'"):
        decoder_from(*first, TinyBackbone(1))


def test_a_run_that_is_not_finished_is_its_newest_checkpoint(run, tmp_path):
    folder = tmp_path / "second"
    (folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(WeightsError, match="is not a run's folder: no decoder and no checkpoints"):
        read_decoder(folder)
    for step in (2, 4):
        name = f"checkpoints/step-{step:09}.safetensors"
        (folder / name).write_bytes((run / name).read_bytes())
    assert [step for step, _ in checkpoints(folder)] == [2, 4]
    assert read_decoder(folder)[1]["step"] == 4
    (folder / "run.json").write_text("{")
    (folder / "decoder.safetensors").write_bytes((run / "decoder.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"run\.json is not the record of a run"):
        read_decoder(folder)


def test_a_checkpoint_brings_what_its_objective_has_learned(tmp_path):
    config = tcl_training(TRAIN)
    Trainer(config, TinyBackbone(), trains.noise_features(), RESOURCES).run(tmp_path)
    state, meta = read_decoder(tmp_path / "checkpoints/step-000000004.safetensors")
    final = read_decoder(tmp_path)
    assert learned_sigmoid(meta) == learned_sigmoid(final[1]) != (10.0, -2.5)
    assert state.keys() == final[0].keys()


def test_decoders_are_named_after_their_run(run, tmp_path):
    assert decoder_name(run) == decoder_name(run / "decoder.safetensors") == "first"
    assert decoder_name(run / "checkpoints/step-000000020.safetensors") == "first step 20"
    assert decoder_name(tmp_path / "mine.safetensors") == "mine"


def tiny_of(name, decoder, last_block, pretrained):
    backbone = TinyBackbone()
    state, meta = read_decoder(decoder)
    own = decoder_from(state, meta, backbone)
    return Model(backbone, own, SMALL, rules(learned_sigmoid(meta))), decoder_name(decoder)


@pytest.fixture
def command(folders, monkeypatch):
    monkeypatch.chdir(folders)
    monkeypatch.setattr(loading, "load_named", tiny_of)
    return ["evaluate", "--images", "images", "--masks", "masks", "--units", "16"] + [
        "--classes",
        "red,green,blue,grey",
    ]


def test_a_learning_curve(run, command, folders, capsys):
    assert main([*command, "--checkpoints", str(run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    for row, (step, path) in zip(shown["rows"], checkpoints(run), strict=True):
        model, _ = tiny_of("", path, None, None)
        miou = evaluate(model, load(folders), (16,))["16"].miou
        assert (row["step"], row["unit"]) == (step, "16")
        assert row["miou"] == pytest.approx(miou, abs=0.001)
    assert (folders / shown["table"]).read_text().startswith("step,unit,miou,run\n2,16,")
    assert shown["table"] == "results/evaluation/first-images.csv"
    assert (folders / shown["figure"]).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    table = read_results("results/evaluation/evaluation.csv")
    assert set(table["variant"]) == {"first step 2", "first step 4"} and set(table["seed"]) == {3}
    # Nothing is computed twice, and the lines are for people too.
    assert main([*command, "--checkpoints", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == shown["figure"]
    assert main([*command, "--checkpoints", "images"]) == 1
    assert "has no checkpoints/step-NUMBER.safetensors" in capsys.readouterr().err
    assert main([*command, "--checkpoints", str(run), "--decoder", str(run)]) == 2


def test_the_seed_is_the_decoders_own(run, command, capsys):
    for decoder in (run, run / "decoder.safetensors"):
        assert main([*command, "--decoder", str(decoder)]) == 0
        assert capsys.readouterr().out.startswith("first on images, 4 classes\n")
    table = read_results("results/evaluation/evaluation.csv")
    assert len(table) == 3 and set(table["seed"]) == {3} and set(table["variant"]) == {"first"}
