"""Configurations: the paper's values, what they refuse, and the hash that names a run."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from mgca.config import (
    LossConfig,
    ObjectiveConfig,
    SegmentConfig,
    TrainConfig,
    added,
    config_hash,
    grid_side,
    to_dict,
)
from mgca.experiments import load_scale
from mgca.experiments.grid import ABLATIONS, grid
from mgca.experiments.runner import missing
from mgca.losses.tcl import TCLConfig

RESULTS = Path(__file__).parents[2] / "results"


def test_defaults_are_the_papers():
    loss, train, segment = LossConfig(), TrainConfig(), SegmentConfig()
    assert (loss.object, loss.region, loss.pixel) == (1, 1, 1)
    assert (loss.alpha, loss.alpha_neg, loss.k, loss.temperature) == (0.4, 0.05, 0.06, 0.07)
    assert (train.learning_rate, train.weight_decay) == (1e-4, 0.05)
    assert (train.epochs, train.epochs * train.warmup, train.batch_size) == (15, 2, 1024)
    assert (train.optimizer, train.captions, train.upsample) == ("adamw", "uniform", "bilinear")
    assert (segment.short_side, segment.window, segment.stride) == (448, 448, 224)
    assert (segment.meta_points, segment.placement, segment.average) == (36, "centre", "raw")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"object": -1}, "weights"),
        ({"object": 0, "region": 0, "pixel": 0}, "all zero"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": -0.07}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"region": math.nan}, "weights"),
        ({"alpha": 0}, r"alpha .*\(0, 1\]"),
        ({"alpha": 1.01}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"alpha_neg": 0}, r"alpha_neg .*\(0, 1\]"),
        ({"alpha_neg": -0.1}, "alpha_neg"),
        ({"k": -0.1}, r"k .*\[0, 1\]"),
        ({"k_neg": 2}, "k_neg"),
        ({"measure": "euclidean"}, "dot, cosine"),
        ({"direction": "images"}, "both, image, text"),
    ],
)
def test_loss_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**wrong)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"batch_size": 1}, "at least 2"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": math.nan}, "epochs"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"steps": 0}, "steps"),
        ({"warmup": 1.5}, "warmup"),
        ({"names": -0.5}, "names"),
        ({"last_block": "query"}, "attention, value, value-bare, sclip"),
        ({"upsample": "bicubic"}, "bilinear, nearest"),
        ({"captions": "all"}, "uniform, original, nouns"),
        ({"optimizer": "sgd"}, "adamw, adam"),
        ({"precision": "float64"}, "float32, bfloat16"),
    ],
)
def test_train_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**wrong)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"short_side": 0}, "positive"),
        ({"stride": 0}, "positive"),
        ({"window": 100, "stride": 101}, "leave pixels out"),
        ({"meta_points": 35}, "square"),
        ({"meta_points": 0}, "square"),
        ({"placement": "middle"}, "centre, corner"),
        ({"average": "mean"}, "raw, normalised"),
    ],
)
def test_segment_config_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        SegmentConfig(**wrong)


def test_grid_side_is_the_root_of_squares_only():
    squares = {side * side: side for side in range(1, 60)}
    for number in range(-9, 3000):
        if number in squares:
            assert grid_side(number) == squares[number]
        else:
            with pytest.raises(ValueError, match=f"not {number}$"):
                grid_side(number)


def test_configurations_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 1


def test_hash_names_the_values_and_nothing_else():
    config = TrainConfig(steps=5, loss=LossConfig(k=0.1))
    names = {config_hash(config)}
    # The same from data that was through JSON, in another order of the keys.
    data = json.loads(json.dumps(to_dict(config)))
    assert config_hash(dict(reversed(data.items()))) == names.pop()
    changed = [
        TrainConfig(),
        TrainConfig(steps=5),
        TrainConfig(loss=LossConfig(k=0.1)),
        TrainConfig(steps=5, loss=LossConfig(k=0.2)),
        dataclasses.replace(config, seed=1),
        config,
    ]
    names = {config_hash(each) for each in changed}
    assert len(names) == len(changed)
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithEntropy(LossConfig):
    """LossConfig as it is once the library has a new term."""

    entropy: float = added(0.0)


WithEntropy.__module__ = LossConfig.__module__


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foreign(LossConfig):
    """Somebody's objective, with the fields of ours."""


def test_a_field_added_later_is_no_part_of_a_name_at_its_default():
    before = TrainConfig(loss=LossConfig(alpha=0.34), steps=3)
    same = dataclasses.replace(before, loss=WithEntropy(alpha=0.34))
    assert to_dict(same) == to_dict(before)
    assert config_hash(same) == config_hash(before)
    other = dataclasses.replace(same, loss=WithEntropy(alpha=0.34, entropy=0.1))
    assert to_dict(other)["loss"] == to_dict(before.loss) | {"entropy": 0.1}
    assert config_hash(other) != config_hash(before)


def test_no_published_run_is_missing_whatever_neutral_field_is_added():
    scale = load_scale("scenes")
    names = {
        ablation: [each.run(scale, 0) for each in grid(ablation, scale)] for ablation in ABLATIONS
    }
    loss = WithEntropy(**dataclasses.asdict(scale.training.loss))
    for training in (scale.training, dataclasses.replace(scale.training, loss=loss)):
        scale.training = training
        for ablation in ABLATIONS:
            assert [each.run(scale, 0) for each in grid(ablation, scale)] == names[ablation]
            assert not missing(ablation, scale, [0, 1, 2], RESULTS / "scenes")


def test_a_class_of_somebody_elses_is_another_run():
    assert to_dict(Foreign()) == to_dict(LossConfig()) | {"class": "Foreign"}
    assert config_hash(TrainConfig(loss=Foreign())) != config_hash(TrainConfig())
    data = json.loads(json.dumps(to_dict(TrainConfig(loss=Foreign()))))
    assert config_hash(data) == config_hash(TrainConfig(loss=Foreign()))


def test_every_objective_has_settings_of_one_kind():
    assert issubclass(LossConfig, ObjectiveConfig) and issubclass(TCLConfig, ObjectiveConfig)


def test_plain_data_holds_lists_and_dictionaries():
    assert to_dict({"a": (1, 2), "b": [SegmentConfig()], "c": {"d": SegmentConfig()}}) == {
        "a": [1, 2],
        "b": [to_dict(SegmentConfig())],
        "c": {"d": to_dict(SegmentConfig())},
    }
