"""Training: one set of tests for both sources, resumable after anything, on any processes."""

import csv
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import trains
from safetensors.torch import load_file
from tiny import TinyBackbone
from trains import CONFIG, RESOURCES

from mgca.config import LossConfig, TrainConfig, added, config_hash
from mgca.data.shards import StreamConfig, batches, find_shards
from mgca.data.texts import known_pairs
from mgca.decoder import GatedConvDecoder, upsample2
from mgca.experiments.grid import tcl_training
from mgca.losses import MGCA, TCLConfig, mgca_loss, objective
from mgca.training.optimiser import NotFinite, gradient_norm, learning_rate
from mgca.training.resources import Alone, Resources, launch
from mgca.training.runs import RunConfig
from mgca.training.sources import Cached, Drawn, Streamed
from mgca.training.step import mean_change, pixel_embeddings
from mgca.training.trainer import Stopped, Trainer
from mgca.utils.files import file_digest
from mgca.weights import WeightsError, read_tensors
from mgca.weights.decoders import decoder_from

LEVELS = ("total", "object", "region", "pixel", "gradient")
SOURCES = ("cached", "streamed")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return trains.noise_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def cached():
    return trains.noise_features()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    # It takes seconds, which is no matter of these tests.
    monkeypatch.setattr("mgca.training.trainer.ceiling", lambda device, kind: 1e9)


def trainer(shards, config=CONFIG, backbone=None, **resources):
    """A run from shards on a tiny backbone."""
    resources = dataclasses.replace(RESOURCES, **resources)
    source = Streamed(find_shards(shards), config.stream)
    process = launch(resources, config.train)
    return Trainer(config, backbone or TinyBackbone(), source, resources, process=process)


@pytest.fixture(params=SOURCES)
def make(request, shards, cached):
    """A function that makes a run from features at hand, or from shards."""

    def made(config=CONFIG, *, origin=None, **resources):
        source = Streamed(find_shards(shards), config.stream) if streamed else cached
        resources = dataclasses.replace(RESOURCES, **resources)
        return Trainer(config, TinyBackbone(), source, resources, origin=origin)

    streamed = request.param == "streamed"

    return made


def changed(**values):
    return dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **values))


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


class Interrupted(Exception):
    pass


def interrupting(step):
    def interrupt(row):
        if row["step"] == step:
            raise Interrupted

    return interrupt


# Both sources.


def test_same_configuration_same_bits(make, tmp_path):
    for name in ("a", "b"):
        make().run(tmp_path / name)
    first, second = (tmp_path / name / "decoder.safetensors" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    make(changed(seed=1)).run(tmp_path / "c")
    assert (tmp_path / "c" / "decoder.safetensors").read_bytes() != first.read_bytes()


@pytest.mark.parametrize("stop", [2, 5])
@pytest.mark.parametrize("loss", [LossConfig(), TCLConfig()])
def test_a_resumed_run_ends_with_the_same_bits(make, tmp_path, stop, loss):
    config = changed(loss=loss)
    make(config).run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        make(config).run(tmp_path / "part", on_step=interrupting(stop))
    seen = []
    make(config).run(tmp_path / "part", on_step=seen.append)
    assert seen[0]["step"] == stop - stop % 2
    for name in ("decoder.safetensors", "checkpoints/step-000000008.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    timed = {"seconds", "images_per_second", "utilisation", "waiting"}
    rows = [
        [{k: v for k, v in row.items() if k not in timed} for row in rows_of(tmp_path / name)]
        for name in ("part", "whole")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 8


def test_a_finished_run_is_not_run_again(make, tmp_path):
    make().run(tmp_path)
    before = [(tmp_path / name).read_bytes() for name in ("decoder.safetensors", "metrics.csv")]
    make().run(tmp_path, on_step=lambda row: pytest.fail("a step was run"))
    after = [(tmp_path / name).read_bytes() for name in ("decoder.safetensors", "metrics.csv")]
    assert before == after


def test_it_learns(make, tmp_path):
    rows = []
    config = changed(steps=45, captions="original")
    decoder = make(config, checkpoint_every=50).run(tmp_path, on_step=rows.append)
    first, last = (np.mean([row["total"] for row in part]) for part in (rows[:10], rows[-10:]))
    assert last < 0.9 * first
    assert all(torch.tanh(block.gate).abs() > 1e-3 for block in decoder.blocks)


def test_the_decoder_file_loads_on_its_backbone_only(make, tmp_path):
    backbone = TinyBackbone()
    decoder = make(changed(steps=2)).run(tmp_path)
    state, meta = read_tensors(tmp_path / "decoder.safetensors")
    x = torch.randn(1, backbone.dim, 4, 4)
    assert torch.equal(decoder_from(state, meta, backbone)(x), decoder(x))
    with pytest.raises(WeightsError, match="trained on the backbone"):
        decoder_from(state, meta | {"backbone_digest": "other"}, backbone)


def test_levels_left_out_are_not_in_the_metrics(make, tmp_path):
    rows = []
    only = changed(loss=LossConfig(object=0, region=0), steps=2)
    make(only).run(tmp_path, on_step=rows.append)
    assert {"pixel", "total"} <= set(rows[0]) and not {"object", "region"} & set(rows[0])
    assert rows[0]["pixel"] == pytest.approx(rows[0]["total"])
    assert rows_of(tmp_path)[0]["object"] == ""


@dataclass(frozen=True, kw_only=True)
class WithEntropy(LossConfig):
    entropy: float = added(0.1)


@objective(WithEntropy)
class EntropyLoss(MGCA):
    """MGCA with a term of somebody's own, of which it says nothing in ``terms``."""

    def combine(self, logits, exclude=None):
        losses = super().combine(logits, exclude)
        share = logits["pixel"].softmax(dim=-1)
        entropy = -(share * share.log()).sum(dim=-1).mean()
        total = losses["total"] + self.config.entropy * entropy
        return losses | {"entropy": entropy, "total": total}


def test_a_term_of_ones_own_trains_through_checkpoints(make, tmp_path):
    config = changed(loss=WithEntropy())
    make(config).run(tmp_path / "whole")
    rows = rows_of(tmp_path / "whole")
    assert len(rows) == 8 and all(float(row["entropy"]) > 0 for row in rows)
    plain = {name: float(rows[0][name]) for name in ("object", "region", "pixel", "entropy")}
    expected = plain["object"] + plain["region"] + plain["pixel"] + 0.1 * plain["entropy"]
    assert float(rows[0]["total"]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(Interrupted):
        make(config).run(tmp_path / "part", on_step=interrupting(5))
    make(config).run(tmp_path / "part")
    assert [row["entropy"] for row in rows_of(tmp_path / "part")] == [r["entropy"] for r in rows]
    with pytest.raises(ValueError, match=r"loss.class: EntropyLoss|loss.class: WithEntropy there"):
        make().run(tmp_path / "part")


def test_parts_change_nothing_but_rounding(make, tmp_path):
    make(changed(steps=4)).run(tmp_path / "whole")
    make(changed(steps=4), micro_batch=3).run(tmp_path / "parts")
    for ours, theirs in zip(rows_of(tmp_path / "parts"), rows_of(tmp_path / "whole"), strict=True):
        assert float(ours["total"]) == pytest.approx(float(theirs["total"]), rel=1e-4)


def test_nan_stops_the_run_and_keeps_the_checkpoint(make, tmp_path, monkeypatch):
    made = make(checkpoint_every=1)
    encode = type(made.source).encode

    def broken(source, place, batch, images=False):
        inputs = encode(source, place, batch, images)
        return inputs._replace(dense=inputs.dense * (torch.nan if batch.step == 2 else 1))

    monkeypatch.setattr(type(made.source), "encode", broken)
    with pytest.raises(NotFinite, match="step 2: the loss is nan.*goes on from .*step-000000002"):
        made.run(tmp_path)
    assert (tmp_path / "checkpoints/step-000000002.safetensors").is_file()
    assert not (tmp_path / "decoder.safetensors").exists()


def test_advice_fits_the_run(make):
    said = make(changed(precision="bfloat16"))._advice()
    assert "Lower learning_rate (0.01), set clip or use precision='float32'" in said
    said = make(dataclasses.replace(CONFIG, clip=1.0))._advice()
    assert "Lower learning_rate (0.01) or lower clip (1)" in said and "float32" not in said


def test_a_run_goes_on_from_the_checkpoint_of_another(make, tmp_path):
    make().run(tmp_path / "first")
    origin = tmp_path / "first/checkpoints/step-000000006.safetensors"
    made, steps = make(changed(learning_rate=1e-3), origin=origin), []
    made.run(tmp_path / "second", on_step=steps.append)
    assert [row["step"] for row in steps] == [6, 7]
    record = json.loads((tmp_path / "second/run.json").read_text())
    assert record["origin"] == str(origin)
    assert record["config"]["train"]["origin"] == file_digest(origin)[:12]
    # The weights, and the optimizer's moments, are those of the checkpoint; the name is another.
    same = make(origin=origin)
    assert config_hash(same.config) != config_hash(CONFIG)
    same.run(tmp_path / "third")
    whole, third = (load_file(tmp_path / n / "decoder.safetensors") for n in ("first", "third"))
    assert all(torch.equal(whole[name], third[name]) for name in whole)
    with pytest.raises(ValueError, match="is of step 6, and the run has 4 steps"):
        make(changed(steps=4), origin=origin).run(tmp_path / "fourth")


def test_another_configuration_is_refused(make, tmp_path):
    make(changed(steps=2)).run(tmp_path)
    other = changed(steps=2, loss=LossConfig(alpha=0.3), learning_rate=0.5)
    with pytest.raises(ValueError, match=r"learning_rate: 0.01 there, 0.5 here; .*alpha: 0.4"):
        make(other).run(tmp_path)


def test_a_damaged_checkpoint_is_named(make, tmp_path):
    make(changed(steps=2)).run(tmp_path)
    path = tmp_path / "checkpoints/step-000000002.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="step-000000002.* delete it"):
        make(changed(steps=2)).run(tmp_path)


def test_another_backbone_than_the_configurations_is_refused(make):
    for wrong in ({"backbone": "vit-b-16"}, {"last_block": "attention"}):
        with pytest.raises(ValueError, match="the configuration is for"):
            make(changed(**wrong))


def test_checkpoints_are_kept_by_the_rule(make, tmp_path):
    make(checkpoint_every=1, keep=1, milestone=3).run(tmp_path)
    kept = sorted(int(p.stem[5:]) for p in (tmp_path / "checkpoints").iterdir())
    assert kept == [3, 6, 8]


def test_bfloat16_trains_in_float32_weights(make, tmp_path):
    make(changed(precision="bfloat16", steps=2)).run(tmp_path)
    state = load_file(tmp_path / "decoder.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_clipping_bounds_what_is_learned_from(make, tmp_path):
    made = make(dataclasses.replace(changed(steps=1), clip=1e-3))
    norms = []
    made.optimizer.register_step_pre_hook(
        lambda *_: norms.append(gradient_norm(made.decoder.parameters()))
    )
    made.run(tmp_path)
    assert norms == [pytest.approx(1e-3, rel=1e-3)]
    # The metrics tell the gradient as it was.
    assert float(rows_of(tmp_path)[0]["gradient"]) > 1e-2


def test_a_held_mean_is_that_of_the_frozen_features(make, tmp_path):
    config = changed(steps=6, hold_mean=True, warmup=0.0)
    free = make(changed(steps=6, warmup=0.0)).run(tmp_path / "free")
    made = make(config)
    held = made.run(tmp_path / "held")
    dense = torch.cat(list(made.source.sample(made.place, 256)))
    assert not torch.allclose(held(dense), upsample2(dense))

    def change(decoder):
        return mean_change(decoder(dense), dense, "bilinear").abs().max()

    assert change(held) < 1e-5 < 1e-3 < change(free)
    with pytest.raises(ValueError, match="hold_mean needs the mean over the batch"):
        make(config, micro_batch=3)


def test_a_held_mean_gives_no_reward_to_moving_all_pixels(make):
    for hold in (True, False):
        made = make(changed(hold_mean=hold))
        torch.nn.init.constant_(made.decoder.blocks[-1].gate, 0.1)
        made.step(next(made.batches(0, 1)), 0.0)
        assert (made.decoder.blocks[-1].conv.bias.grad.abs().max() > 1e-5) != hold


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_after_a_step_and_the_run_goes_on(make, tmp_path, number):
    before = signal.getsignal(number)
    make().run(tmp_path / "whole")

    def interrupt(row):
        if row["step"] == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="after step 3"):
        make().run(tmp_path / "part", on_step=interrupt)
    assert signal.getsignal(number) == before
    assert (tmp_path / "part/checkpoints/step-000000004.safetensors").is_file()
    make().run(tmp_path / "part")
    ours, theirs = (tmp_path / name / "decoder.safetensors" for name in ("part", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_two_runs_in_one_folder_are_refused(make, tmp_path):
    def start_another(row):
        with pytest.raises(OSError, match="another process works in"):
            make().run(tmp_path)

    make(changed(steps=1)).run(tmp_path, on_step=start_another)
    make(changed(steps=1)).run(tmp_path)


def test_signals_are_left_alone_in_other_threads(make, tmp_path):
    made = make(changed(steps=1))
    thread = threading.Thread(target=made.run, args=[tmp_path])
    thread.start()
    thread.join()
    assert (tmp_path / "decoder.safetensors").is_file()


def test_a_lean_form_that_no_longer_agrees_is_not_used(make, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(MGCA, "is_lean", lambda self, *size: self.lean is not False)
    agreeing = make(changed(steps=2))
    agreeing.run(tmp_path / "a")
    assert agreeing.objective.lean is None and not caplog.records
    stated = sys.modules[MGCA.__module__].region_logits
    monkeypatch.setattr(
        sys.modules[MGCA.__module__], "region_logits", lambda *a, **o: 2 * stated(*a, **o)
    )
    monkeypatch.setattr("mgca.training.trainer.WORKSPACE", 4 * 8 * 64 * 3)
    with caplog.at_level(logging.WARNING):
        made = make(changed(steps=2))
    made.run(tmp_path / "b")
    assert "training with the levels, 3 images at a time" in caplog.text
    assert made.objective.lean is False and made.micro_batch == 3
    first = [float(rows_of(tmp_path / name)[0]["region"]) for name in ("a", "b")]
    assert first[0] != pytest.approx(first[1], rel=1e-2)


# Features at hand.


def test_mgcas_training_is_bit_for_bit_two_plain_steps(cached, tmp_path):
    config = TrainConfig(backbone="tiny", steps=2, batch_size=3, learning_rate=1e-2, known=0.5)
    backbone = TinyBackbone()
    trained = Trainer(config, backbone, dataclasses.replace(cached, images=None)).run(tmp_path)
    torch.manual_seed(config.seed)
    decoder = GatedConvDecoder(backbone.dim).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-2, weight_decay=0.05)
    for step in range(2):
        drawn = cached.drawn(config, step)
        dense = backbone.project(torch.from_numpy(cached.features[drawn.keys]).float())
        pixels = decoder(dense.contiguous(memory_format=torch.channels_last))
        exclude = known_pairs(cached.pool, cached.texts, drawn.keys, drawn.texts, 0.5)
        optimizer.zero_grad()
        texts = cached.texts[drawn.texts]
        mgca_loss(pixels, texts, config.loss, exclude=exclude)["total"].backward()
        optimizer.param_groups[0]["lr"] = learning_rate(config, step, 2)
        optimizer.step()
    for ours, plain in zip(trained.parameters(), decoder.parameters(), strict=True):
        assert torch.equal(ours, plain)
    state, _ = read_tensors(tmp_path / "checkpoints/step-000000002.safetensors")
    assert {k.removeprefix("model.") for k in state if k.startswith("model.")} == {
        name for name, _ in decoder.named_parameters()
    }


def test_columns_of_the_small_scales(cached, tmp_path):
    Trainer(CONFIG.train, TinyBackbone(), cached).run(tmp_path)
    assert list(rows_of(tmp_path)[0]) == ["step", "rate", *LEVELS, "seconds"]


def test_tcls_objective_is_trained_and_its_scores_are_kept(cached, tmp_path):
    rows, backbone = [], TinyBackbone()
    config = dataclasses.replace(CONFIG.train, steps=5, batch_size=3, known=0.9, hold_mean=True)
    config = tcl_training(config)
    decoder = Trainer(config, backbone, cached).run(tmp_path, on_step=rows.append)
    state, meta = read_tensors(tmp_path / "decoder.safetensors")
    w, b = meta["sigmoid_weight"], meta["sigmoid_bias"]
    assert w != 10.0 and b != -2.5
    assert meta["run"] == config_hash(config)
    x = torch.randn(1, backbone.dim, 3, 3)
    assert torch.equal(decoder_from(state, meta, backbone)(x), decoder(x))
    terms = ["total", "area", "feature", "image", "variation"]
    expected = ["step", "rate", *terms, "gradient", "seconds"]
    assert list(rows[0]) == list(rows_of(tmp_path)[0]) == expected
    kept, _ = read_tensors(tmp_path / "checkpoints/step-000000005.safetensors")
    learned = {f"model.objective.{name}" for name in ("w", "b", "feature_scale", "image_scale")}
    assert learned <= set(kept) and kept["model.objective.w"].item() == w
    moments = {key.split(".")[1] for key in kept if key.startswith("optimizer.")}
    assert len(moments) == len(list(decoder.parameters())) + 4


def test_tcls_objective_learns(cached, tmp_path):
    rows = []
    config = tcl_training(dataclasses.replace(CONFIG.train, steps=45, captions="original"))
    Trainer(config, TinyBackbone(), cached).run(tmp_path, on_step=rows.append)
    first, last = (np.mean([row["total"] for row in part]) for part in (rows[:10], rows[-10:]))
    assert last < 0.9 * first


def test_images_are_needed_for_the_contrast_alone(cached, tmp_path):
    without = dataclasses.replace(cached, images=None)
    config = tcl_training(dataclasses.replace(CONFIG.train, steps=2))
    with pytest.raises(ValueError, match=r"the data has none: give Cached images="):
        Trainer(config, TinyBackbone(), without)
    rows = []
    config = dataclasses.replace(config, loss=TCLConfig(contrast=0.0))
    Trainer(config, TinyBackbone(), without).run(tmp_path, on_step=rows.append)
    assert not {"feature", "image"} & set(rows[0]) and rows[0]["gradient"] > 0


def test_an_objective_of_whole_batches_is_not_cut_up(make):
    with pytest.raises(ValueError, match="TCLObjective takes whole batches"):
        make(changed(loss=TCLConfig()), micro_batch=2)


def test_float16_is_for_gpus(cached):
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        Trainer(dataclasses.replace(CONFIG.train, precision="float16"), TinyBackbone(), cached)


# Shards.


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """The folder of an uninterrupted run in a process of its own."""
    folder = tmp_path_factory.mktemp("whole")
    done = forked.run(trains.main, shards, folder, said=folder / "said.txt")
    assert not done.returncode, done.stderr
    return folder


def test_a_run_leaves_decoder_metrics_and_provenance(whole, shards):
    rows = rows_of(whole)
    assert [int(row["step"]) for row in rows] == list(range(8))
    measures = ["images", "corrupt", "images_per_second", "utilisation", "waiting"]
    assert list(rows[0]) == ["step", "rate", *LEVELS, *measures, "seconds"]
    assert all(int(row["images"]) == 8 and row["corrupt"] == "0" for row in rows)
    assert all(0 <= float(row["waiting"]) <= 1 for row in rows)
    record = json.loads((whole / "run.json").read_text())
    assert record["data"] == {"shards": find_shards(shards).digest}
    assert record["processes"] == 1 and record["seed"] == 0
    assert len(record["commit"]) >= 7
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["step-000000006.safetensors", "step-000000008.safetensors"]


def test_it_is_the_small_training_on_the_same_batches(whole, shards, tmp_path):
    """Every number of the two: losses, gradients, rates, and the decoder at the end."""
    backbone, train = TinyBackbone(), CONFIG.train
    stream = list(
        batches(find_shards(shards), CONFIG.stream, range(8), batch_size=8, seed=train.seed)
    )
    images, keys, texts = {}, [], []
    for batch in stream:
        images |= dict(zip(batch.keys, batch.images, strict=True))
        keys.append(batch.keys)
        texts.append(batch.texts)
    names, spoken = sorted(images), sorted({text for own in texts for text in own})
    raw = torch.stack([images[name] for name in names]).float() / 255

    class AsStreamed(Cached):
        def drawn(self, train, step):
            return Drawn(
                step,
                [names.index(key) for key in keys[step]],
                [spoken.index(text) for text in texts[step]],
            )

    features = backbone.features((raw - 0.5) / 0.25).numpy()
    data = AsStreamed(features, None, backbone.encode_text(spoken))
    Trainer(train, backbone, data).run(tmp_path)
    for ours, theirs in zip(rows_of(whole), rows_of(tmp_path), strict=True):
        assert ours["rate"] == theirs["rate"]
        for name in LEVELS:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
    ours, theirs = (load_file(f / "decoder.safetensors") for f in (whole, tmp_path))
    moved = 0
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 1e-4, name
        moved += value.abs().sum()
    assert moved > 1


@pytest.mark.parametrize("step, where", [(3, "step"), (5, "step"), (1, "write"), (5, "write")])
def test_killed_at_any_time_it_ends_with_the_same_bits(whole, shards, tmp_path, step, where):
    said = tmp_path / "said.txt"
    killed = forked.run(trains.main, shards, tmp_path, (step, where), said=said)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "decoder.safetensors").exists()
    if where == "write":
        assert list((tmp_path / "checkpoints").glob(".*")), "the half-written file"
    again = forked.run(trains.main, shards, tmp_path, said=said)
    assert not again.returncode, again.stderr
    # Step 1's checkpoint was the first: nothing to resume, and the run starts again.
    assert ("resuming" in again.stderr) == (step > 1)
    for name in ("decoder.safetensors", "checkpoints/step-000000008.safetensors"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert not list((tmp_path / "checkpoints").glob(".*"))
    steps = [(row["step"], row["total"]) for row in rows_of(tmp_path)]
    assert steps == [(row["step"], row["total"]) for row in rows_of(whole)]


def test_two_processes_learn_what_one_does(whole, shards, tmp_path):
    """Started as a user does, with torchrun."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run += [trains.__file__, str(shards), str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, env=environment)
    assert not done.returncode, done.stderr[-3000:]
    for ours, theirs in zip(rows_of(tmp_path), rows_of(whole), strict=True):
        for name in LEVELS:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
    ours, theirs = (load_file(f / "decoder.safetensors") for f in (tmp_path, whole))
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max() < 1e-4, name
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2


@pytest.mark.parametrize("resources", [{"budget": 2**20}, {"workers": 2}])
def test_resources_change_nothing_but_rounding(whole, shards, tmp_path, resources):
    trainer(shards, **resources).run(tmp_path)
    for ours, theirs in zip(rows_of(tmp_path), rows_of(whole), strict=True):
        assert float(ours["total"]) == pytest.approx(float(theirs["total"]), rel=1e-4)


def test_a_signal_to_all_processes_ends_the_run_with_a_checkpoint(shards, tmp_path):
    """As torchrun and schedulers send it, to those that read as well."""
    code = "import sys, trains; trains.main(*sys.argv[1:], readers=2, pause=1)"
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(shards), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
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


def test_other_shards_are_refused_with_what_changed(shards, tmp_path):
    trainer(shards, changed(steps=2)).run(tmp_path)
    fewer = Streamed(find_shards(shards).first(3), CONFIG.stream)
    made = Trainer(changed(steps=2), TinyBackbone(), fewer, RESOURCES)
    with pytest.raises(
        ValueError, match="data.samples: 30 there, 24 here; data.shards: 4 there, 3"
    ):
        made.run(tmp_path)


def test_float16s_scaler_is_used_and_kept(shards, tmp_path, monkeypatch):
    """On a CPU, where float16 is not allowed: the loss is scaled, the arithmetic stays float32."""
    config = changed(precision="float16", steps=4)
    monkeypatch.setattr(
        "mgca.training.step.pixel_embeddings",
        lambda decoder, dense, precision: pixel_embeddings(decoder, dense, "float32"),
    )

    def made():
        source = Streamed(find_shards(shards), CONFIG.stream)
        process = Alone(torch.device("cpu"))
        return Trainer(config, TinyBackbone(), source, RESOURCES, process=process)

    first = made()
    assert first.scaler.is_enabled()
    first.run(tmp_path / "scaled")
    trainer(shards, changed(steps=4)).run(tmp_path / "plain")
    scaled, plain = rows_of(tmp_path / "scaled"), rows_of(tmp_path / "plain")
    for ours, theirs in zip(scaled, plain, strict=True):
        for name in ("total", "gradient"):  # of the loss itself, and not of the scaled one
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4)
    again = made()
    again.scaler.scale(torch.ones(()))
    again.scaler.update(123.0)
    assert again.resume(tmp_path / "scaled" / "checkpoints") == 4
    assert again.scaler.get_scale() == first.scaler.get_scale() != 123.0


def test_corrupt_samples_make_a_batch_smaller(shards, tmp_path):
    tars = tmp_path / "tars"
    tars.mkdir()
    for path in shards.glob("*.tar"):
        data = path.read_bytes()
        if path.name == "00000.tar":
            start = data.index(b"\x89PNG")
            data = data[:start] + b"\0" * 8 + data[start + 8 :]
        (tars / path.name).write_bytes(data)
    trainer(tars, corrupt_limit=1.0).run(tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert sum(int(row["corrupt"]) for row in rows) >= 1
    assert all(int(row["images"]) + int(row["corrupt"]) == 8 for row in rows)


def test_what_does_not_fit_is_refused_at_the_start(shards):
    with pytest.raises(ValueError, match="configuration is for vit-b-16"):
        trainer(shards, RunConfig(stream=StreamConfig(lanes=4)))
    with pytest.raises(ValueError, match="not a multiple of lanes"):
        trainer(shards, changed(batch_size=10))
    with pytest.raises(ValueError, match="do not fill a batch"):
        trainer(shards, changed(batch_size=64))
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        trainer(shards, changed(precision="float16"))
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        Resources(checkpoint_every=0)
    for values in ({"names": 0.3}, {"known": 0.6}):
        with pytest.raises(ValueError, match="small scales"):
            trainer(shards, changed(**values))


def test_the_run_is_named_by_what_it_learns(shards, whole):
    assert config_hash(CONFIG) != config_hash(changed(loss=LossConfig(alpha=0.3)))
    assert json.loads((whole / "run.json").read_text())["config"]["train"]["steps"] == 8
    assert TrainConfig().precision == "float32" and Path(shards).is_dir()
