"""Training: the schedule, what a step draws, resuming bit for bit, and what stops a run."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import TinyBackbone

from mgca.config import LossConfig, TrainConfig
from mgca.data.texts import build_pool, known_pairs
from mgca.decoder import GatedConvDecoder, upsample2
from mgca.training.train import (
    NotFinite,
    TrainingData,
    _step,
    batch_of,
    learning_rate,
    make_optimizer,
    mean_change,
    total_steps,
    train,
)
from mgca.weights import WeightsError, read_tensors
from mgca.weights.decoders import decoder_from

CAPTIONS = [
    ["A dog runs over the grass.", "A brown dog plays."],
    ["Two children on a beach.", "Kids and the sea."],
    ["A man rides a bicycle.", "A cyclist on a road."],
    ["A red bus in a street.", "The bus stops."],
    ["Running quickly.", "Snow on a mountain."],
    ["A cat sleeps on a sofa.", "A cat and a cushion."],
]
NAMES = [[(0.7, "beagle"), (0.2, "lawn mower")]] * len(CAPTIONS)


@pytest.fixture(scope="module")
def backbone():
    return TinyBackbone()


@pytest.fixture(scope="module")
def data(backbone):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(len(CAPTIONS), 3, 96, 96, generator=generator)
    pool = build_pool(CAPTIONS, NAMES)
    features = backbone.features(images).numpy().astype(np.float16)
    return TrainingData(features, pool, backbone.encode_text(pool.texts))


@pytest.fixture
def config(backbone):
    return TrainConfig(
        backbone=backbone.name, steps=7, batch_size=3, learning_rate=1e-2, names=0.3, known=0.99
    )


def test_the_rate_warms_up_and_decays_to_nothing():
    config = TrainConfig(learning_rate=2.0, warmup=0.2)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[19] == pytest.approx(2.0)
    assert rates[20] == pytest.approx(2.0) and rates[60] == pytest.approx(1.0)
    assert all(a >= b for a, b in zip(rates[19:], rates[20:], strict=False))
    assert 0 <= rates[-1] < 1e-2


def test_steps_of_a_run():
    assert total_steps(TrainConfig(epochs=15, batch_size=1024), 2_560_000) == 15 * 2500
    assert total_steps(TrainConfig(steps=9, batch_size=4), 6) == 9
    with pytest.raises(ValueError, match="do not fill a batch of 8"):
        total_steps(TrainConfig(batch_size=8), 6)


def test_an_epoch_sees_each_image_once_and_texts_belong_to_their_images(config, data):
    steps = [batch_of(config, data, step) for step in range(2)]
    images = [image for chosen, _ in steps for image in chosen]
    assert sorted(images) == list(range(6))
    for chosen, texts in steps:
        for image, text in zip(chosen, texts, strict=True):
            generated = [i for own in data.pool.generated[image] for filled in own for i in filled]
            named = [i for _, filled in data.pool.names[image] for i in filled]
            assert text in {*data.pool.originals[image], *generated, *named}
    other = dataclasses.replace(config, seed=1)
    assert [batch_of(other, data, step) for step in range(2)] != steps
    assert [batch_of(config, data, step) for step in range(2)] == steps


@pytest.mark.parametrize("rule", ["uniform", "original", "nouns"])
def test_texts_are_drawn_by_the_rule(data, rule):
    pool = data.pool
    drawn = {pool.draw(0, rule, torch.Generator().manual_seed(i)) for i in range(300)}
    originals = set(pool.originals[0])
    generated = {i for own in pool.generated[0] for filled in own for i in filled}
    expected = {"uniform": originals | generated, "original": originals, "nouns": generated}
    assert drawn == expected[rule]


def test_the_caption_is_as_likely_as_each_noun():
    pool = build_pool([["A dog and a cat."]])
    generator = torch.Generator().manual_seed(0)
    drawn = [pool.draw(0, "uniform", generator) for _ in range(3000)]
    assert np.mean([text == pool.originals[0][0] for text in drawn]) == pytest.approx(
        1 / 3, abs=0.03
    )


def test_a_caption_without_nouns_stands_for_itself(data):
    pool = build_pool([["Running quickly."]])
    assert pool.generated == [[[]]]
    assert pool.draw(0, "nouns", torch.Generator().manual_seed(0)) == pool.originals[0][0]


def test_names_take_the_place_of_captions_at_their_share(data):
    pool = data.pool
    generator = torch.Generator().manual_seed(0)
    beagle, mower = (set(filled) for _, filled in pool.names[0])
    drawn = [pool.draw(0, "original", generator, names=0.5) for _ in range(4000)]
    assert np.mean([text in beagle for text in drawn]) == pytest.approx(0.5 * 7 / 9, abs=0.03)
    assert np.mean([text in mower for text in drawn]) == pytest.approx(0.5 * 2 / 9, abs=0.03)


def test_known_pairs_are_those_of_an_images_own_texts(data):
    pool = data.pool
    images, texts = [0, 2], [pool.originals[0][1], pool.originals[2][0], pool.originals[3][0]]
    known = known_pairs(pool, data.texts, images, texts, 0.999)
    assert known.tolist() == [[True, False, False], [False, True, False]]
    assert known_pairs(pool, data.texts, images, texts, -1.0).all()


def test_same_configuration_same_bits(config, backbone, data, tmp_path):
    for name in ("a", "b"):
        train(config, backbone, data, tmp_path / name)
    first, second = (tmp_path / name / "decoder.safetensors" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    train(dataclasses.replace(config, seed=1), backbone, data, tmp_path / "c")
    assert (tmp_path / "c" / "decoder.safetensors").read_bytes() != first.read_bytes()


@pytest.mark.parametrize("stop", [2, 5])
def test_a_resumed_run_ends_with_the_same_bits(config, backbone, data, tmp_path, stop):
    whole = tmp_path / "whole"
    train(config, backbone, data, whole, checkpoint_every=2)

    class Interrupted(Exception):
        pass

    def interrupt(row):
        if row["step"] == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(config, backbone, data, tmp_path / "part", checkpoint_every=2, on_step=interrupt)
    seen = []
    train(config, backbone, data, tmp_path / "part", checkpoint_every=2, on_step=seen.append)
    assert seen[0]["step"] == stop - stop % 2
    for name in ("decoder.safetensors", "checkpoint.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (whole / name).read_bytes()
    columns = [line.rsplit(",", 1)[0] for line in (whole / "metrics.csv").read_text().splitlines()]
    resumed = (tmp_path / "part" / "metrics.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[0] for line in resumed] == columns
    assert len(columns) == 1 + 7


def test_a_finished_run_is_not_run_again(config, backbone, data, tmp_path):
    train(config, backbone, data, tmp_path)
    train(config, backbone, data, tmp_path, on_step=lambda row: pytest.fail("a step was run"))


def test_it_learns(config, backbone, data, tmp_path):
    rows = []
    long = dataclasses.replace(config, steps=60, captions="original", names=0.0, known=None)
    decoder = train(long, backbone, data, tmp_path, on_step=rows.append)
    first, last = (np.mean([row["total"] for row in part]) for part in (rows[:10], rows[-10:]))
    assert last < 0.9 * first
    assert all(torch.tanh(block.gate).abs() > 1e-3 for block in decoder.blocks)


def test_the_decoder_file_loads_on_its_backbone_only(config, backbone, data, tmp_path):
    decoder = train(config, backbone, data, tmp_path)
    state, meta = read_tensors(tmp_path / "decoder.safetensors")
    loaded = decoder_from(state, meta, backbone)
    x = torch.randn(1, backbone.dim, 4, 4)
    assert torch.equal(loaded(x), decoder(x))
    with pytest.raises(WeightsError, match="trained on the backbone"):
        decoder_from(state, meta | {"backbone_digest": "other"}, backbone)


def test_levels_left_out_are_not_in_the_metrics(config, backbone, data, tmp_path):
    only = dataclasses.replace(config, loss=LossConfig(object=0, region=0))
    rows = []
    train(only, backbone, data, tmp_path, on_step=rows.append)
    assert {"pixel", "total"} <= set(rows[0]) and not {"object", "region"} & set(rows[0])
    assert rows[0]["pixel"] == pytest.approx(rows[0]["total"])


def test_nan_stops_the_run_and_keeps_the_checkpoint(config, backbone, data, tmp_path):
    texts = data.texts.clone()
    _, poisoned = batch_of(config, data, 4)
    early = {text for step in range(4) for text in batch_of(config, data, step)[1]}
    texts[[text for text in poisoned if text not in early][0]] = torch.nan
    with pytest.raises(NotFinite, match=r"step 4: the loss is nan.*Lower learning_rate"):
        train(
            dataclasses.replace(config, known=None),
            backbone,
            data._replace(texts=texts),
            tmp_path,
            checkpoint_every=2,
        )
    assert read_tensors(tmp_path / "checkpoint.safetensors")[1]["step"] == 4
    assert not (tmp_path / "decoder.safetensors").exists()


def test_a_folder_of_another_configuration_is_refused(config, backbone, data, tmp_path):
    train(config, backbone, data, tmp_path)
    other = dataclasses.replace(config, loss=LossConfig(alpha=0.3), learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"learning_rate: 0.01 there, 0.001 here; loss.alpha: 0.4"):
        train(other, backbone, data, tmp_path)


def test_a_truncated_checkpoint_is_named(config, backbone, data, tmp_path):
    train(config, backbone, data, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match=r"checkpoint.safetensors.*delete it to start again"):
        train(config, backbone, data, tmp_path)


def test_another_backbone_than_the_configurations_is_refused(config, backbone, data, tmp_path):
    for wrong in ({"backbone": "vit-b-16"}, {"last_block": "attention"}):
        with pytest.raises(ValueError, match="the configuration is for"):
            train(dataclasses.replace(config, **wrong), backbone, data, tmp_path)


def test_bfloat16_trains_in_float32_weights(config, backbone, data, tmp_path):
    train(dataclasses.replace(config, precision="bfloat16"), backbone, data, tmp_path)
    state = load_file(tmp_path / "decoder.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_held_mean_is_that_of_the_frozen_features(config, backbone, data, tmp_path):
    dense = backbone.project(torch.from_numpy(data.features).float())

    def change(**options):
        run = dataclasses.replace(config, steps=20, **options)
        decoder = train(run, backbone, data, tmp_path / str(len(options)))
        pixels = decoder(dense)
        assert not torch.allclose(pixels, upsample2(dense))
        return mean_change(pixels, dense, "bilinear").abs().max()

    assert change(hold_mean=True) < 1e-5 < 1e-3 < change()


def test_a_held_mean_gives_no_reward_to_moving_all_pixels(config, backbone, data):
    decoder = GatedConvDecoder(backbone.dim)
    torch.nn.init.constant_(decoder.blocks[-1].gate, 0.1)
    optimizer = make_optimizer(config, decoder)
    bias = decoder.blocks[-1].conv.bias
    for hold, moved in ((True, False), (False, True)):
        run = dataclasses.replace(config, hold_mean=hold)
        _step(run, backbone, decoder, optimizer, data, 0, 0.0)
        assert (bias.grad.abs().max() > 1e-5) == moved


def test_adam_puts_weight_decay_into_the_gradient():
    decoder = GatedConvDecoder(4)
    assert type(make_optimizer(TrainConfig(), decoder)) is torch.optim.AdamW
    optimizer = make_optimizer(TrainConfig(optimizer="adam"), decoder)
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.param_groups[0]["weight_decay"] == 0.05
