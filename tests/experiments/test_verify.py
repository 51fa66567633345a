"""A part of the results, computed anew: equal bits on one machine, and differences noticed."""

import dataclasses

import pandas as pd
import pytest
from tiny import Hashes

from mgca.cli import main
from mgca.data.scenes.sets import VALIDATION_SEED
from mgca.evaluation.results import COLUMNS
from mgca.experiments import scenes, verify
from mgca.experiments.runner import run_ablation


@pytest.fixture
def small(monkeypatch):
    """The scenes scale, small enough to train and evaluate in seconds."""
    monkeypatch.setattr(scenes, "IMAGES", 8)
    monkeypatch.setattr("mgca.data.scenes.sets._PROBES", 1)
    monkeypatch.setattr("mgca.backbone.hybrid.SentenceEncoder", Hashes)
    for once in (scenes._pairs, scenes._pool):
        once.cache_clear()

    def make(cache):
        scale = scenes.ScenesScale(cache, seed=VALIDATION_SEED, images=1)
        scale.training = dataclasses.replace(scale.training, steps=2, batch_size=8)
        return scale

    yield make
    for once in (scenes._pairs, scenes._pool):
        once.cache_clear()


def test_two_runs_of_a_configuration_give_the_same_bits(small, tmp_path):
    """World, frozen features, training and evaluation, each from nothing."""
    tables, weights = [], []
    for name in ("first", "second"):
        folder = tmp_path / name
        table = run_ablation(
            "meta_points", small(folder / "cache"), [0], out=folder / "out", work=folder / "work"
        )
        tables.append((folder / "out" / "meta_points.csv").read_bytes())
        run = table["run"].iloc[0]
        weights.append((folder / "work" / run / "decoder.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert tables[0] == tables[1]
    assert len(set(table["unit"])) == 8 and set(table["dataset"]) == {"things", "scenes", "open"}


def rows(values, run="aaa"):
    return pd.DataFrame(
        [
            {
                "variant": "all",
                "dataset": "scenes",
                "unit": unit,
                "seed": 0,
                "metric": metric,
                "value": value,
                "run": run,
            }
            for (unit, metric), value in values.items()
        ],
        columns=COLUMNS,
    )


def test_differences_are_those_of_the_same_rows():
    published = rows({("pixel", "miou"): 40.0, ("36", "miou"): 42.0})
    computed = rows({("36", "miou"): 42.5, ("pixel", "miou"): 40.0})
    table = verify.compare(published, computed).set_index("unit")
    assert table.loc["pixel", "difference"] == 0
    assert table.loc["36", "difference"] == 0.5


def test_another_run_or_missing_rows_are_a_mismatch():
    published = rows({("pixel", "miou"): 40.0, ("36", "miou"): 42.0})
    with pytest.raises(verify.Mismatch, match="no run bbb"):
        verify.compare(published, rows({("pixel", "miou"): 40.0}, run="bbb"))
    with pytest.raises(verify.Mismatch, match="same rows"):
        verify.compare(published, rows({("pixel", "miou"): 40.0}))


@pytest.mark.parametrize(
    "same, change, fails",
    [
        (True, 0.0, False),
        (True, 0.001, True),
        (False, 0.9, False),
        (False, 1.1, True),
    ],
)
def test_identical_here_and_close_elsewhere(same, change, fails, tmp_path, monkeypatch, capsys):
    published = rows({("pixel", "miou"): 40.0, ("36", "miou"): 42.0, ("36", "components"): 3.0})
    published.to_csv(tmp_path / "meta_points.csv", index=False)
    computed = published.copy()
    computed.loc[computed["metric"] == "miou", "value"] += change
    monkeypatch.setattr(verify, "run_ablation", lambda *arguments, **folders: computed)
    monkeypatch.setattr(verify, "read_run", lambda out, run: {})
    monkeypatch.setattr(verify, "same_kind", lambda record: same)
    assert main(["experiment", "verify", "--results", str(tmp_path)]) == fails
    out, err = capsys.readouterr()
    assert ("differs by" in err) == fails and ("largest" in out) != fails
    assert "36" in out


def test_kinds_of_machines_differ_in_device_or_packages():
    here = verify.provenance({}, seed=0, data={}, seconds=0)
    assert verify.same_kind(here)
    assert not verify.same_kind(here | {"device": "another"})
    assert not verify.same_kind(here | {"environment": here["environment"] | {"torch": "1.0"}})
