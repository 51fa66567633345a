"""The table of the protocol: rows of every knob, its intervals, and what is read from it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_scale import TinyScale

from mgca.evaluation.evaluate import evaluate
from mgca.experiments import protocol
from mgca.experiments.knobs import USUAL, turns
from mgca.experiments.protocol import PerImage, interval, protocol_parts, protocol_table
from mgca.experiments.protocol_rows import (
    as_rows,
    over_seeds,
    part_named,
    read_protocol,
    spread,
    turned_around,
)
from mgca.experiments.report import protocol as report
from mgca.model import Model
from mgca.utils.processes import threads


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    scale = TinyScale(folder)
    scale.prepare({})
    how = {"work": folder / "work", "seeds": (0, 1)}
    table = protocol_table(scale, folder / "results", ["things"], **how)
    return scale, folder, table


def test_each_knob_of_each_method_is_a_row_of_what_evaluate_counts(computed):
    scale, folder, table = computed
    read = read_protocol(folder / "results")
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert not len(read_protocol(folder / "nowhere"))
    # tiny has no early stage, and its classes no synonyms
    known = {turn.knob for turn in turns(scale.segment())} - {"affinity", "class names"}
    assert set(table["knob"]) == known | {USUAL}
    assert set(table["method"]) == {*scale.frozen, "tcl", "mgca"}
    trained = table["method"].isin(["tcl", "mgca"])
    assert set(table["seed"][trained]) == {0, 1} and set(table["seed"][~trained]) == {0}
    data, background = scale.sets(["things"])[0], {"temperature": 0.5}
    side = scale.segment().short_side * 2 // 3
    smaller = {"short_side": side, "window": side, "stride": side // 2}
    for value, config, threshold in [  # noqa: B007 - the query's
        (USUAL, scale.segment(), 0.35),
        ("0.75", scale.segment(), 0.75),
        ("centre", dataclasses.replace(scale.segment(), padding="centre", **smaller), 0.35),
        ("normalised", dataclasses.replace(scale.segment(), average="normalised"), 0.35),
    ]:
        model = Model(scale.backbone(0, "attention"), None, config)
        how = {"background": threshold, "features": scale.cache}
        found = evaluate(model, data, (16,), **how, **background)
        row = table.query("method == 'clip' and value == @value and unit == '16'").iloc[0]
        assert row["miou"] == pytest.approx(found["16"].miou, abs=6e-4)
    usual = table[table["knob"] == USUAL]
    assert (usual[["difference", "low", "high", "changed"]] == 0).all(axis=None)
    others = table[table["knob"] == "statistics"]
    assert (others["difference"] != 0).any()
    assert scale.backbone(0).mean == (0.5,) * 3


def test_a_part_is_that_of_the_whole_and_trains_nothing_else(computed, tmp_path):
    scale, _, table = computed
    parts = {("mgca", 1, "things"), ("clip", 0, "things")}
    how = {"work": tmp_path / "work", "seeds": (0, 1)}
    found, record = protocol_parts(scale, parts, **how)
    whole = table[
        [key in parts for key in zip(table.method, table.seed, table.dataset, strict=True)]
    ]
    pd.testing.assert_frame_equal(
        found.drop(columns="run").reset_index(drop=True),
        whole.drop(columns="run").reset_index(drop=True),
        check_dtype=False,
    )
    assert len(list((tmp_path / "work").glob("*/decoder.safetensors"))) == 1
    assert [method for method, *_ in record["config"]["methods"]] == ["clip", "mgca"]
    names = as_rows(found)[["variant", "dataset"]].agg("/".join, axis=1)
    assert {part_named(name) for name in names} == parts


def test_it_computes_with_the_threads_of_the_scale(computed, tmp_path, monkeypatch):
    scale, measured, seen = computed[0], protocol._measured, []
    monkeypatch.setattr(
        protocol, "_measured", lambda *a: seen.append(torch.get_num_threads()) or measured(*a)
    )
    with threads(2):
        _, record = protocol_parts(scale, {("clip", 0, "things")}, work=tmp_path)
    assert seen == [1] and record["threads"] == 1


def test_a_knob_may_be_left_alone(computed):
    scale, folder, table = computed
    how = {"work": folder / "work", "seeds": (0,), "limit": 2}
    knobs = {turn.knob for turn in turns(scale.segment())}
    left = protocol_table(scale, folder / "less", ["things"], **how, without=knobs - {"average"})
    assert set(left["knob"]) == {USUAL, "average"}
    with pytest.raises(ValueError, match="no such knob: colour; only templates"):
        protocol_table(scale, folder / "less", ["things"], **how, without=["colour"])
    with pytest.raises(ValueError, match="compared with"):
        protocol_table(scale, folder / "less", ["things"], **how, without=["size"])


def test_what_is_measured_is_not_measured_again(computed, monkeypatch):
    scale, folder, table = computed
    (folder / "results" / "protocol.csv").unlink()
    monkeypatch.setattr(protocol, "evaluate", None)
    how = {"work": folder / "work", "seeds": (0, 1)}
    again = protocol_table(scale, folder / "results", ["things"], **how)
    pd.testing.assert_frame_equal(again, table)


def test_each_class_is_asked_for_by_both_of_its_words(computed, monkeypatch):
    scale, _, _ = computed
    data = scale.sets(["things"])[0]
    assert protocol._words(scale, data) == {}
    one, *others = data.classes
    monkeypatch.setattr(scale, "synonyms", {"other": one})
    assert protocol._words(scale, data) == {one: (one, "other")} | {n: (n,) for n in others}


def test_intervals_and_changes_are_of_the_same_images():
    predicted = np.array([[0, 1], [1, 1]])
    counters = [PerImage(2), PerImage(2)]
    for counter, ids in zip(counters, (predicted, 1 - predicted), strict=True):
        counter.add(ids, predicted)
        counter.add(predicted, np.array([[0, 1], [1, 255]]))
    assert counters[0].counts.tolist() == [[[1, 0], [0, 3]], [[1, 0], [0, 2]]]
    assert counters[0].changed(counters[1]) == 50.0
    assert interval(counters[0].counts, counters[0].counts) == (0.0, 0.0)
    # Right in every image, and wrong in every image: whatever is drawn, all of it apart.
    right, wrong = np.zeros((5, 2, 2), dtype=int), np.zeros((5, 2, 2), dtype=int)
    right[:, 0, 0], right[:, 1, 1], wrong[:, 0, 1], wrong[:, 1, 0] = 3, 4, 3, 4
    assert interval(right, wrong) == (100.0, 100.0)


def test_what_the_table_says():
    rows = [
        ("one", "usual", "usual", 10.0), ("two", "usual", "usual", 12.0),
        ("one", "templates", "1", 13.0), ("two", "templates", "1", 11.0),
        ("one", "templates", "80", 11.0), ("two", "templates", "80", 13.0),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "knob", "value", "miou"])
    table = table.assign(dataset="things", unit="36", seed=0, low=0.0, high=0.0, changed=0.0)
    table["difference"] = table["miou"] - table["method"].map({"one": 10.0, "two": 12.0})
    line = spread(table).loc[("things", "36", "templates")]
    assert (line["one"], line["two"], line["methods"]) == (3.0, 2.0, 2.0)
    turned = turned_around(table).set_index("knob")
    assert turned.loc["templates"].tolist() == [2, 1]


def test_what_the_page_says_of_the_table():
    rows = [
        ("one", "usual", 10.0, 0.0), ("two", "usual", 12.0, 0.0),
        ("one", "resize", 13.0, 3.0), ("two", "resize", 12.5, 0.5),
        ("one", "affinity", 11.0, 1.0), ("two", "affinity", 11.9, -0.1),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "knob", "miou", "difference"])
    table = table.assign(dataset="things", unit="36", value="x", changed=4.0, seed=0)
    table = table.assign(low=table["difference"] - 1, high=table["difference"] + 1)
    said = report.findings(table, "36")
    assert "resize (1.8), affinity (0.6)" in said and "methods are 2.0 points apart" in said
    assert "is 3.0: resize, of one" in said and "Of 2 pairs of methods, 1 change places" in said
    assert report.prepared(table, "36").loc[("resize", "things")].tolist() == [4.0, 1.75, 3.0]
    shown = report.affinity(table).loc[("things", "36")]
    assert (shown["one", "own"], shown["one", "other"], shown["two", "other"]) == (10, 11, 11.9)


def test_seeds_are_one_row_and_a_reader_turns_each_knob():
    rows = [
        ("one", 0, "usual", "usual", 10.0, 0.0), ("two", 0, "usual", "usual", 12.0, 0.0),
        ("two", 1, "usual", "usual", 14.0, 0.0), ("one", 0, "templates", "1", 11.0, 1.0),
        ("two", 0, "templates", "1", 12.0, 0.0), ("two", 1, "templates", "1", 10.0, -4.0),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "seed", "knob", "value", "miou", "difference"])
    table = table.assign(dataset="things", unit="36", changed=4.0)
    table = table.assign(low=table["difference"] - 1, high=table["difference"] + 1)
    means = over_seeds(table).set_index(["method", "knob"])
    two = means.loc[("two", "templates")]
    assert (two["seeds"], two["miou"], two["difference"]) == (2, 11.0, -2.0)
    assert (two["low"], two["high"], two["std"]) == (-5.0, 1.0, pytest.approx(2**0.5))
    # one is below two, by 3 points, and then at its mean
    assert turned_around(table)["turned"].tolist() == [0]
    assert spread(table).loc[("things", "36", "templates")].tolist() == [1.0, 2.0, 3.0]
    data = report.choices(table)
    assert [knob["ticks"] for knob in data["ablations"]] == [["usual", "1"]]
    assert data["rows"] == [
        [0, 0, 0, 0, 0, 10.0, None, 1], [0, 0, 0, 1, 0, 13.0, 1.414, 2],
        [0, 0, 0, 0, 1, 11.0, None, 1], [0, 0, 0, 1, 1, 11.0, 1.414, 2],
    ]  # fmt: skip
    figure = report.draw_spread(table, "36")
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [1.0, 2.0, 3.0]
