"""The table of the protocol: rows of every knob, its intervals, and what is read from it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tiny_scale import TinyScale

from mgca.evaluation.evaluate import evaluate
from mgca.evaluation.metrics import Confusion
from mgca.experiments.protocol import (
    USUAL,
    PerImage,
    interval,
    miou,
    protocol_table,
    spread,
    turned_around,
    turns,
)
from mgca.model import Model


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    scale = TinyScale(folder)
    scale.prepare({})
    return scale, folder, protocol_table(scale, folder / "results", ["things"])


def test_each_knob_of_each_method_is_a_row_of_what_evaluate_counts(computed):
    scale, folder, table = computed
    assert list(pd.read_csv(folder / "results" / "protocol.csv").columns) == list(table.columns)
    known = {turn.knob for turn in turns(scale.segment())} - {"affinity"}  # tiny has no early stage
    assert set(table["knob"]) == known | {USUAL}
    assert set(table["method"]) == set(scale.frozen)
    data, background = scale.sets(["things"])[0], {"temperature": 0.5}
    for value, config, threshold in [  # noqa: B007 - the query's
        (USUAL, scale.segment(), 0.35),
        ("0.75", scale.segment(), 0.75),
        ("centre", dataclasses.replace(scale.segment(), padding="centre"), 0.35),
        ("normalised", dataclasses.replace(scale.segment(), average="normalised"), 0.35),
    ]:
        model = Model(scale.backbone(0, "attention"), None, config)
        found = evaluate(model, data, (16,), background=threshold, **background)
        row = table.query("method == 'clip' and value == @value and unit == '16'").iloc[0]
        assert row["miou"] == pytest.approx(found["16"].miou, abs=6e-4)
    usual = table[table["knob"] == USUAL]
    assert (usual[["difference", "low", "high"]] == 0).all(axis=None)
    others = table[table["knob"] == "statistics"]
    assert (others["difference"] != 0).any()
    assert scale.backbone(0).mean == (0.5,) * 3


def test_confusions_of_single_images_add_up():
    random = np.random.default_rng(1)
    counter, whole = PerImage(4), Confusion(4)
    for _ in range(5):
        truth = random.choice([0, 1, 2, 255], (6, 7))
        predicted = random.integers(0, 4, (6, 7))
        counter.add(predicted, truth)
        whole.add(predicted, truth)
    assert np.array_equal(counter.counts.sum(0), whole.counts)
    assert miou(counter.counts.sum(0)) == pytest.approx(whole.miou)
    assert interval(counter.counts, counter.counts) == (0.0, 0.0)
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
    table = table.assign(dataset="things", unit="36")
    line = spread(table).loc[("things", "36", "templates")]
    assert (line["one"], line["two"], line["methods"]) == (3.0, 2.0, 2.0)
    turned = turned_around(table).set_index("knob")
    assert turned.loc["templates"].tolist() == [2, 1]
