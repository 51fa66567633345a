"""Training from shards: equal to the small training, resumable after anything, on any processes."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import trains
from safetensors.torch import load_file
from tiny import TinyBackbone
from trains import CONFIG, RESOURCES

import mgca.training.train
from mgca.config import LossConfig, TrainConfig, config_hash
from mgca.data.shards import StreamConfig, batches, find_shards
from mgca.training.resources import Resources, make_fabric
from mgca.training.runs import RunConfig
from mgca.training.step import pixel_embeddings
from mgca.training.train import NotFinite, TrainingData
from mgca.training.trainer import METRICS, Engine, Stopped
from mgca.weights import WeightsError


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return trains.noise_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def engine(shards, config=CONFIG, backbone=None, **resources):
    resources = dataclasses.replace(RESOURCES, **resources)
    fabric = make_fabric(resources, config.train)
    return Engine(fabric, config, backbone or TinyBackbone(), find_shards(shards), resources)


def changed(**values):
    return dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **values))


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def process(*arguments, world=1):
    run = [sys.executable]
    if world > 1:
        run += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    return subprocess.run(
        [*run, trains.__file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The folder of an uninterrupted run in a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    done = process(shards, folder)
    assert not done.returncode, done.stderr
    return folder


def test_a_run_leaves_decoder_metrics_and_provenance(whole, shards):
    rows = rows_of(whole)
    assert [int(row["step"]) for row in rows] == list(range(8))
    assert list(rows[0]) == METRICS
    assert all(int(row["images"]) == 8 and row["corrupt"] == "0" for row in rows)
    assert all(0 <= float(row["waiting"]) <= 1 for row in rows)
    record = json.loads((whole / "run.json").read_text())
    assert record["data"] == {"shards": find_shards(shards).digest}
    assert record["processes"] == 1 and record["seed"] == 0
    assert len(record["commit"]) >= 7
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["step-000000006.safetensors", "step-000000008.safetensors"]


def test_it_is_the_small_training_on_the_same_batches(whole, shards, tmp_path, monkeypatch):
    """Every number of the two: losses, gradients, rates, and the decoder at the end."""
    backbone, train = TinyBackbone(), CONFIG.train
    stream = list(
        batches(find_shards(shards), CONFIG.stream, batch_size=8, seed=train.seed, stop=8)
    )
    images, keys, texts = {}, [], []
    for batch in stream:
        images |= dict(zip(batch.keys, batch.images, strict=True))
        keys.append(batch.keys)
        texts.append(batch.texts)
    names, spoken = sorted(images), sorted({text for own in texts for text in own})
    raw = torch.stack([images[name] for name in names]).float() / 255
    features = backbone.features((raw - 0.5) / 0.25).numpy()
    data = TrainingData(features, None, backbone.encode_text(spoken))
    monkeypatch.setattr(
        mgca.training.train,
        "batch_of",
        lambda config, data, step: (
            [names.index(key) for key in keys[step]],
            [spoken.index(text) for text in texts[step]],
        ),
    )
    mgca.training.train.train(train, backbone, data, tmp_path)
    for ours, theirs in zip(rows_of(whole), rows_of(tmp_path), strict=True):
        assert ours["rate"] == theirs["rate"]
        for name in ("total", "object", "region", "pixel", "gradient"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
    ours, theirs = (load_file(f / "decoder.safetensors") for f in (whole, tmp_path))
    moved = 0
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 1e-4, name
        moved += value.abs().sum()
    assert moved > 1


@pytest.mark.parametrize("step, where", [(3, "step"), (5, "step"), (1, "write"), (5, "write")])
def test_killed_at_any_time_it_ends_with_the_same_bits(whole, shards, tmp_path, step, where):
    killed = process(shards, tmp_path, step, where)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "decoder.safetensors").exists()
    if where == "write":
        assert list((tmp_path / "checkpoints").glob(".*")), "the half-written file"
    again = process(shards, tmp_path)
    assert not again.returncode, again.stderr
    # Step 1's checkpoint was the first: nothing to resume, and the run starts again.
    assert ("resuming" in again.stderr) == (step > 1)
    for name in ("decoder.safetensors", "checkpoints/step-000000008.safetensors"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert not list((tmp_path / "checkpoints").glob(".*"))
    steps = [(row["step"], row["total"]) for row in rows_of(tmp_path)]
    assert steps == [(row["step"], row["total"]) for row in rows_of(whole)]


def test_two_processes_learn_what_one_does(whole, shards, tmp_path):
    done = process(shards, tmp_path, world=2)
    assert not done.returncode, done.stderr[-3000:]
    for ours, theirs in zip(rows_of(tmp_path), rows_of(whole), strict=True):
        for name in ("total", "object", "region", "pixel", "gradient"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
    ours, theirs = (load_file(f / "decoder.safetensors") for f in (tmp_path, whole))
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 1e-4, name
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2


@pytest.mark.parametrize("resources", [{"micro_batch": 3}, {"budget": 2**20}, {"workers": 2}])
def test_resources_change_nothing_but_rounding(whole, shards, tmp_path, resources):
    engine(shards, **resources).run(tmp_path)
    for ours, theirs in zip(rows_of(tmp_path), rows_of(whole), strict=True):
        assert float(ours["total"]) == pytest.approx(float(theirs["total"]), rel=1e-4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_after_a_step_and_the_run_goes_on(whole, shards, tmp_path, number):
    before = signal.getsignal(number)

    def interrupt(row):
        if row["step"] == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="after step 3"):
        engine(shards).run(tmp_path, on_step=interrupt)
    assert signal.getsignal(number) == before
    assert (tmp_path / "checkpoints/step-000000004.safetensors").is_file()
    engine(shards).run(tmp_path)
    ours, theirs = (load_file(f / "decoder.safetensors") for f in (tmp_path, whole))
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 1e-4, name


def test_a_signal_to_all_processes_ends_the_run_with_a_checkpoint(shards, tmp_path):
    """As torchrun and schedulers send it, to those that read as well."""
    run = subprocess.Popen(
        [sys.executable, trains.__file__, str(shards), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "READERS": "2", "STEP_SECONDS": "1"},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert "Stopped: stopped after step" in said and "DataLoader" not in said
    done = len(rows_of(tmp_path))
    assert done < 8
    assert (tmp_path / f"checkpoints/step-{done:09}.safetensors").is_file()


def test_signals_are_left_alone_in_other_threads(shards, tmp_path):
    made = engine(shards, changed(steps=1))
    thread = threading.Thread(target=made.run, args=[tmp_path])
    thread.start()
    thread.join()
    assert (tmp_path / "decoder.safetensors").is_file()


def test_another_configuration_or_other_shards_are_refused(shards, tmp_path):
    engine(shards, changed(steps=2)).run(tmp_path)
    with pytest.raises(ValueError, match="train.learning_rate: 0.01 there, 0.5 here"):
        engine(shards, changed(steps=2, learning_rate=0.5)).run(tmp_path)
    fewer = engine(shards, changed(steps=2))
    fewer.shards = fewer.shards.first(3)
    with pytest.raises(ValueError, match="another configuration .shards: "):
        fewer.run(tmp_path)


def test_a_damaged_checkpoint_is_named(shards, tmp_path):
    engine(shards, changed(steps=2)).run(tmp_path)
    path = tmp_path / "checkpoints/step-000000002.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="step-000000002.* delete it"):
        engine(shards, changed(steps=2)).run(tmp_path)


def test_checkpoints_are_kept_by_the_rule(shards, tmp_path):
    engine(shards, checkpoint_every=1, keep=1, milestone=3).run(tmp_path)
    kept = sorted(int(p.stem[5:]) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [3, 6, 8]


def test_nan_stops_the_run_and_keeps_the_checkpoint(shards, tmp_path):
    made = engine(shards, checkpoint_every=1)
    encode = made.encode

    def broken(batch):
        dense, texts = encode(batch)
        return dense * (float("nan") if batch.step == 2 else 1), texts

    made.encode = broken
    with pytest.raises(NotFinite, match="step 2: the loss is nan"):
        made.run(tmp_path)
    assert (tmp_path / "checkpoints/step-000000002.safetensors").is_file()
    assert not (tmp_path / "decoder.safetensors").exists()


def test_float16s_scaler_is_used_and_kept(shards, tmp_path, monkeypatch):
    """On a CPU, where float16 is not allowed: the loss is scaled, the arithmetic stays float32."""
    config = changed(precision="float16", steps=4)
    monkeypatch.setattr(
        "mgca.training.step.pixel_embeddings",
        lambda decoder, dense, precision: pixel_embeddings(decoder, dense, "float32"),
    )
    monkeypatch.setattr("mgca.training.trainer.ceiling", lambda device, kind: 1e9)

    def made():
        fabric = make_fabric(RESOURCES, CONFIG.train)
        return Engine(fabric, config, TinyBackbone(), find_shards(shards), RESOURCES)

    first = made()
    assert first.scaler.is_enabled()
    first.run(tmp_path / "scaled")
    engine(shards, changed(steps=4)).run(tmp_path / "plain")
    scaled, plain = rows_of(tmp_path / "scaled"), rows_of(tmp_path / "plain")
    for ours, theirs in zip(scaled, plain, strict=True):
        for name in ("total", "gradient"):  # of the loss itself, and not of the scaled one
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
    again = made()
    again.scaler.scale(torch.ones(()))
    again.scaler.update(123.0)
    assert again.resume(tmp_path / "scaled" / "checkpoints") == 4
    assert again.scaler.get_scale() == first.scaler.get_scale() != 123.0


def test_two_runs_in_one_folder_are_refused(shards, tmp_path):
    def start_another(row):
        with pytest.raises(OSError, match="another process works in"):
            engine(shards).run(tmp_path)

    engine(shards, changed(steps=1)).run(tmp_path, on_step=start_another)
    engine(shards, changed(steps=1)).run(tmp_path)


def test_clipping_bounds_what_is_learned_from(shards, tmp_path):
    made = engine(shards, dataclasses.replace(changed(steps=1), clip=1e-3))
    norms = []
    made.optimizer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(mgca.training.train.gradient_norm(made.bare))
    )
    made.run(tmp_path)
    assert norms == [pytest.approx(1e-3, rel=1e-3)]
    # The metrics tell the gradient as it was.
    assert float(rows_of(tmp_path)[0]["gradient"]) > 1e-2


def test_a_held_mean_is_that_of_the_frozen_features(shards, tmp_path):
    config = changed(steps=6, hold_mean=True, warmup=0.0)
    free = engine(shards, changed(steps=6, warmup=0.0)).run(tmp_path / "free")
    made = engine(shards, config)
    held = made.run(tmp_path / "held")
    dense = torch.cat([made.encode(batch)[0] for batch in made.stream(0, made.per_epoch)])

    def change(decoder):
        return mgca.training.train.mean_change(decoder(dense), dense, "bilinear").abs().max()

    assert change(held) < 1e-5 < 1e-3 < change(free)
    with pytest.raises(ValueError, match="hold_mean needs the mean over the batch"):
        engine(shards, config, micro_batch=3).run(tmp_path / "parts")


def test_corrupt_samples_make_a_batch_smaller(shards, tmp_path):
    tars = tmp_path / "tars"
    tars.mkdir()
    for path in shards.glob("*.tar"):
        data = path.read_bytes()
        if path.name == "00000.tar":
            start = data.index(b"\x89PNG")
            data = data[:start] + b"\0" * 8 + data[start + 8 :]
        (tars / path.name).write_bytes(data)
    engine(tars, corrupt_limit=1.0).run(tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert sum(int(row["corrupt"]) for row in rows) >= 1
    assert all(int(row["images"]) + int(row["corrupt"]) == 8 for row in rows)


def test_a_finished_run_is_not_run_again(whole, shards, tmp_path):
    engine(shards).run(tmp_path)
    before = (tmp_path / "decoder.safetensors").read_bytes()
    steps = []
    engine(shards).run(tmp_path, on_step=steps.append)
    assert not steps
    assert (tmp_path / "decoder.safetensors").read_bytes() == before


def test_what_does_not_fit_is_refused_at_the_start(shards):
    with pytest.raises(ValueError, match="configuration is for vit-b-16"):
        engine(shards, RunConfig(stream=StreamConfig(lanes=4)))
    with pytest.raises(ValueError, match="not a multiple of lanes"):
        engine(shards, changed(batch_size=10))
    with pytest.raises(ValueError, match="do not fill a batch"):
        engine(shards, changed(batch_size=64))
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        engine(shards, changed(precision="float16"))
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        Resources(checkpoint_every=0)
    for values in ({"names": 0.3}, {"known": 0.6}):
        with pytest.raises(ValueError, match="small scales"):
            changed(**values)


def test_the_run_is_named_by_what_it_learns(shards, whole):
    assert config_hash(CONFIG) != config_hash(changed(loss=LossConfig(alpha=0.3)))
    assert json.loads((whole / "run.json").read_text())["config"]["train"]["steps"] == 8
    assert TrainConfig().precision == "float32" and Path(shards).is_dir()
