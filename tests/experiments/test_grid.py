"""The grids: what the tables compare, and which of their lines are one run."""

import dataclasses

import pytest
from tiny_scale import TinyScale, names

from mgca.config import to_dict
from mgca.experiments import load_scale
from mgca.experiments.grid import ABLATIONS, grid
from mgca.experiments.scale import NotRun
from mgca.losses.tcl import TCLConfig


@pytest.fixture
def scale(tmp_path):
    return TinyScale(tmp_path)


def test_the_grids_hold_what_the_paper_varies(scale):
    assert names("granularity", scale) == [
        *("baseline", "maskclip", "object", "region", "pixel", "object+region", "all")
    ]
    assert names("k", scale)[:3] == ["k=0", "k=0.03", "k=0.06"]
    assert {"k=1", "k_neg=0.25"} <= set(names("k", scale))
    areas = names("areas", scale)
    assert {"alpha_neg=0.05", "alpha_neg=0.8,no pixel", "alpha=0.05", "alpha=0.3"} <= set(areas)
    (units,) = grid("meta_points", scale)
    assert units.units == (None, 16, 25, 36, 49, 64, 81, 121)
    for ablation in ABLATIONS:
        assert len(set(names(ablation, scale))) == len(names(ablation, scale))
    with pytest.raises(ValueError, match="unknown ablation 'alpha'"):
        grid("alpha", scale)


def test_variants_change_what_they_name_and_nothing_else(scale):
    by_name = {v.name: v for ablation in ABLATIONS for v in grid(ablation, scale)}
    own = scale.training.loss
    for name, expected in {
        "object": {"region": 0, "pixel": 0},
        "object+region": {"pixel": 0},
        "alpha_neg=0.2,no pixel": {"alpha_neg": 0.2, "pixel": 0},
        "alpha=0.1": {"alpha": 0.1},
        "k=0.5": {"k": 0.5},
        "k_neg=0.06": {"k_neg": 0.06},
        "all": {},
    }.items():
        loss = dataclasses.replace(own, **expected)
        assert by_name[name].train == dataclasses.replace(scale.training, loss=loss)
    assert (by_name["baseline"].train, by_name["baseline"].last_block) == (None, "attention")
    assert (by_name["maskclip"].train, by_name["maskclip"].last_block) == (None, "value")


def test_the_open_choices_change_what_they_name_and_nothing_else(scale):
    chosen, *others = grid("choices", scale)
    assert chosen.train == scale.training and chosen.segmenting(scale) == scale.segment()
    training, segmenting = to_dict(scale.training), to_dict(scale.segment())
    for variant in others:
        name, value = variant.name.split("=")
        changed = {
            key
            for before, after in (
                (training, to_dict(variant.train)),
                (training["loss"], to_dict(variant.train.loss)),
                (segmenting, to_dict(variant.segmenting(scale))),
            )
            for key in before
            if key != "loss" and before[key] != after[key]
        }
        assert changed == {name}
        everything = training | training["loss"] | segmenting
        assert str(everything[name]) != value
        assert variant.config(scale, 0)["segment"] == to_dict(variant.segmenting(scale))
        assert variant.run(scale, 0) != chosen.run(scale, 0)
    assert {v.name for v in others} == {
        *("upsample=nearest", "optimizer=adam", "captions=original", "captions=nouns"),
        *("measure=cosine", "detach_weights=True", "direction=image", "direction=text"),
        *("placement=corner", "average=normalised"),
    }


def test_equal_configurations_are_one_run(scale):
    runs = {v.name: v.run(scale, 0) for ablation in ABLATIONS for v in grid(ablation, scale)}
    own = ("all", "chosen", "mgca", "alpha_neg=0.05", "alpha=0.3", "k=0.06", "k_neg=0")
    same = {runs[name] for name in own}
    assert len(same) == 1
    assert runs["clip"] == runs["baseline"]
    assert runs["object+region"] == runs["alpha_neg=0.05,no pixel"]
    assert len(set(runs.values())) == len(runs) - 8
    everything = grid("granularity", scale)[-1]
    assert everything.run(scale, 1) != everything.run(scale, 0)
    scale.settings = {"images": 3}
    assert everything.run(scale, 0) not in same


def test_the_benchmarks_hold_every_method_of_a_scale(scale):
    variants = {variant.name: variant for variant in grid("benchmarks", scale)}
    assert list(variants) == ["clip", "maskclip", "sclip", "tcl", "mgca", "clip+mgca", "sclip+mgca"]
    assert [v.train is None for v in variants.values()] == [True] * 3 + [False] * 4
    blocks = {name: variant.last_block for name, variant in variants.items()}
    assert blocks["sclip"] == blocks["sclip+mgca"] == "sclip"
    assert blocks["tcl"] == blocks["mgca"] == "value"
    assert variants["sclip+mgca"].train.last_block == "sclip"
    assert variants["sclip+mgca"].train.loss == variants["mgca"].train.loss == scale.training.loss
    assert isinstance(variants["tcl"].train.loss, TCLConfig)
    assert variants["mgca"].run(scale, 0) == grid("granularity", scale)[-1].run(scale, 0)


def test_the_main_table_sets_the_decoder_beside_what_it_is_trained_on(scale):
    plain, values, full = grid("main", scale)
    assert [v.name for v in (plain, values, full)] == ["clip", "maskclip", "mgca"]
    assert full.run(scale, 0) == grid("granularity", scale)[-1].run(scale, 0)
    scale.plain = "alignment"
    scale.frozen = {"clip": "value"}
    plain, full = grid("main", scale)
    assert (plain.name, plain.train, full.train) == ("alignment", None, scale.training)
    assert full.config(scale, 0)["sets"] == list(scale.datasets)


def test_what_cannot_be_run_says_what_it_takes():
    with pytest.raises(NotRun, match=r"CLIP ViT-B/16.*CC3M.*GPUs"):
        load_scale("paper")
    with pytest.raises(ValueError, match="unknown scale 'small'"):
        load_scale("small")
