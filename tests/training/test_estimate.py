"""What a run is expected to take, and `mgca train` from the command line."""

import dataclasses
import itertools
import json

import pytest
import torch
import trains
from tiny import TinyBackbone
from torch.profiler import ProfilerActivity, profile
from trains import CONFIG, RESOURCES

import mgca.training.estimate
from mgca.cli import main
from mgca.config import config_hash
from mgca.data.shards import find_shards
from mgca.decoder import GatedConvDecoder
from mgca.losses import MGCA
from mgca.training.estimate import DECODER_MAPS, GIB, Estimate, Probe, estimate, measure
from mgca.training.monitor import Meter
from mgca.training.resources import launch
from mgca.training.sources import Streamed
from mgca.training.step import pixel_embeddings
from mgca.training.trainer import Trainer


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return trains.noise_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def trainer(shards):
    source = Streamed(find_shards(shards), CONFIG.stream)
    process = launch(RESOURCES, CONFIG.train)
    return Trainer(CONFIG, TinyBackbone(), source, RESOURCES, process=process)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_decoder_and_losses_hold_no_more_than_is_estimated(precision):
    images, dim, side = 8, 64, 16
    decoder = GatedConvDecoder(dim).to(memory_format=torch.channels_last)
    dense = torch.randn(images, dim, side // 2, side // 2)
    dense, texts = dense.contiguous(memory_format=torch.channels_last), torch.randn(images, dim)

    def step():
        decoder.zero_grad(set_to_none=True)
        MGCA(lean=True)(pixel_embeddings(decoder, dense, precision), texts)["total"].backward()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step()
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    most = max(itertools.accumulate(event.nbytes() for event in events))
    weights = 4 * sum(p.numel() for p in decoder.parameters())  # and their gradient
    assert 0.5 <= (most - weights) / (4 * images * dim * side**2) / DECODER_MAPS <= 1


def test_an_estimate_counts_what_there_is(trainer, tmp_path):
    expected = estimate(trainer, tmp_path / "not" / "there", probe=False)
    assert expected.trained == sum(p.numel() for p in trainer.decoder.parameters())
    assert expected.frozen == 48
    assert (expected.samples, expected.epoch_steps, expected.steps) == (30, 3, 8)
    assert (expected.batch, expected.processes) == (8, 1)
    assert expected.probe is None and expected.hours is None
    # Two checkpoints that are kept and one that is being written, and the decoder.
    assert expected.disk == pytest.approx(
        3 * 12 * expected.trained + 4 * expected.trained, abs=2000
    )
    assert "time        not probed" in str(expected)


def test_work_is_that_of_the_parts(trainer):
    # 8x8 pixel embeddings of 16 channels: two 3x3 convolutions, forward and twice that backward.
    convolutions = 3 * 2 * 2 * 9 * 16 * 16 * 64
    assert convolutions < trainer.flops < 1.5 * convolutions


def test_memory_grows_with_the_part_and_is_held_by_a_budget(trainer):
    whole = mgca.training.estimate.memory(trainer)
    trainer.micro_batch = 2
    parts = mgca.training.estimate.memory(trainer)
    assert parts["activations"] * 4 == whole["activations"]
    trainer.resources = dataclasses.replace(trainer.resources, budget=12345)
    trainer.objective.budget = 12345
    assert mgca.training.estimate.memory(trainer)["losses"] == 12345


def test_a_probe_times_parts_and_leaves_the_run_alone(trainer):
    before = {name: value.clone() for name, value in trainer.decoder.state_dict().items()}
    probe = measure(trainer, steps=3, seconds=20)
    assert probe.steps == 3 and probe.parts == 1
    assert 0 < probe.part_seconds < 5 and probe.read_images > 1
    # Without workers, reading comes on top of computing.
    assert probe.step_seconds == pytest.approx(probe.part_seconds + 8 / probe.read_images)
    for name, value in trainer.decoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in trainer.decoder.parameters())
    trainer.micro_batch = 3
    assert measure(trainer, steps=2, seconds=20).parts == 3


def made(**changes):
    values = {
        **{"trained": 10, "frozen": 20, "samples": 100, "epoch_steps": 10, "steps": 7200},
        **{"batch": 10, "processes": 2, "flops": 1e9, "memory": {"a": GIB, "b": GIB}},
        **{"available": 3 * GIB, "disk": 5, "free": 6, "ceiling": 1e12},
        "probe": Probe(20, 0.25, 2, 500.0, 0.5),
    }
    return Estimate(**values | changes)


def test_hours_follow_from_the_probe():
    assert made().hours == pytest.approx(1.0)
    text = str(made())
    for part in ("1.0 hours", "0.50 s a step", "20.0 images/s", "2% of the ceiling", "2.00 GiB a"):
        assert part in text


def test_what_does_not_fit_is_refused_with_advice():
    made().check(shared=False)
    with pytest.raises(ValueError, match="4.0 GiB of memory, and 3.0 GiB .* smaller micro_batch"):
        made().check(shared=True)
    with pytest.raises(ValueError, match="keep fewer checkpoints"):
        made(disk=7).check(shared=False)


def test_the_meter_tells_speed_and_waiting():
    meter = Meter(flops=1e9, ceiling=1e12, seconds=100.0)
    (item,) = meter.timed([3])
    row = meter.row(50)
    assert item == 3 and row["seconds"] >= 100 and 0 <= row["waiting"] <= 1
    assert row["utilisation"] == pytest.approx(row["images_per_second"] * 1e-3, rel=0.01, abs=1e-3)


@pytest.fixture
def command(shards, tmp_path, monkeypatch):
    """`mgca train` of a tiny backbone; the configuration is written as a user would."""
    monkeypatch.setattr("mgca.backbone.load_backbone", lambda *a, **o: TinyBackbone())
    config = tmp_path / "run.toml"
    config.write_text(
        '[train]\nbackbone = "tiny"\nsteps = 3\nbatch_size = 8\n[stream]\nlanes = 4\nsize = 64\n'
    )

    def run(*words):
        shared = ["--shards", str(shards), "--config", str(config), "--out", str(tmp_path / "o")]
        return main(["train", *shared, "--device", "cpu", "--workers", "0", *words])

    return run


def test_train_says_what_it_takes_and_trains(command, tmp_path, capsys):
    assert command("--no-probe") == 0
    shown = capsys.readouterr().out
    for line in ("run  ", "parameters  ", "steps       3 of 8", "work  ", "memory  ", "disk  "):
        assert line in shown
    (folder,) = (tmp_path / "o").iterdir()
    assert f"{folder}/decoder.safetensors" in shown
    assert json.loads((folder / "run.json").read_text())["config"]["train"]["steps"] == 3
    assert folder.name == config_hash(json.loads((folder / "run.json").read_text())["config"])


def test_a_dry_run_writes_nothing(command, tmp_path, capsys):
    assert command("--dry-run") == 0
    assert "hours" in capsys.readouterr().out
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--set", "train.batchsize=4"], "no value train.batchsize"),
        (["--set", "train.batch_size=10"], "not a multiple of lanes"),
        (["--set", "train.backbone=lite"], "the configuration is for lite"),
        (["--config", "papr"], "no configuration papr"),
        (["--shards", "/nowhere"], "/nowhere"),
        (["--set", "train.precision=float16"], "needs a GPU"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    command, tmp_path, capsys, words, message
):
    assert command("--no-probe", *words) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
