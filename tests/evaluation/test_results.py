"""Results tables and provenance: their form, replacing and adding, and what is published."""

import re
from pathlib import Path

import pandas as pd
import pytest

from mgca.config import config_hash
from mgca.evaluation.results import COLUMNS, add_results, read_results, read_run, summary, write_run
from mgca.experiments import protocol_rows, thresholds
from mgca.utils.provenance import provenance
from mgca.weights import FOLDER, load_weights, manifest

PUBLISHED = Path(__file__).parents[2] / "results"
TABLES = sorted(PUBLISHED.glob("photos/*.csv"))


def row(**changes):
    base = {"variant": "mgca", "dataset": "voc20", "unit": "36", "seed": 0}
    return base | {"metric": "miou", "value": 10.0, "run": "abc"} | changes


def test_rows_are_added_and_replaced(tmp_path):
    path = tmp_path / "main.csv"
    assert read_results(path).empty
    add_results(path, [row(), row(seed=1, value=14.0)])
    table = add_results(path, [row(value=12.0, run="def"), row(unit="pixel", value=1.0)])
    assert list(read_results(path).columns) == COLUMNS
    pd.testing.assert_frame_equal(read_results(path), table, check_dtype=False)
    kept = table[(table["unit"] == "36") & (table["seed"] == 0)]
    assert kept["value"].tolist() == [12.0] and kept["run"].tolist() == ["def"]
    assert len(table) == 3


def test_summary_over_seeds(tmp_path):
    table = add_results(
        tmp_path / "t.csv", [row(), row(seed=1, value=14.0), row(metric="accuracy")]
    )
    only = summary(table).iloc[0]
    assert (only["mean"], only["count"]) == (12.0, 2)
    assert only["std"] == pytest.approx(8**0.5)


def test_a_table_of_another_form_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a results table"):
        read_results(tmp_path / "t.csv")


def test_provenance_is_complete_and_read_back(tmp_path):
    record = provenance({"steps": 3}, seed=1, data={"set": "digest"}, seconds=2.5)
    assert {"config", "seed", "commit", "data", "environment", "device", "seconds"} <= set(record)
    assert re.fullmatch(r"[0-9a-f]{40}(-modified)?|unknown", record["commit"])
    write_run(tmp_path, "abc", record)
    assert read_run(tmp_path, "abc") == record
    with pytest.raises(FileNotFoundError, match="no provenance of run def"):
        read_run(tmp_path, "def")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_every_published_number_has_its_provenance(path):
    own = {"background.csv": (thresholds.COLUMNS, 6), "protocol.csv": (protocol_rows.COLUMNS, 6)}
    if path.name in own:  # columns of their own, the first of which name a row
        columns, keys = own[path.name]
        table = pd.read_csv(path, dtype={"unit": str})
        assert list(table.columns) == columns
        assert not table.duplicated(columns[:keys]).any() and table["miou"].notna().all()
    else:
        table = read_results(path)
        assert not table.duplicated(COLUMNS[:5]).any() and table["value"].notna().all()
    for run in table["run"].unique():
        record = read_run(path.parent, run)
        assert config_hash(record["config"]) == run
        assert set(table.loc[table["run"] == run, "seed"]) == {record["seed"]}
        assert set(table.loc[table["run"] == run, "dataset"]) <= set(record["data"])


def test_published_heads_have_the_same_seeds_in_every_line():
    table = read_results(PUBLISHED / "photos" / "granularity.csv")
    table = table[table["metric"] == "miou"]
    seeds = table.groupby(["variant", "dataset", "unit"])["seed"].apply(frozenset)
    levels = {"image", "object", "region", "pixel", "object+region", "all"}
    assert set(seeds.index.get_level_values("variant")) == {"baseline", *levels}
    assert len(seeds) == 7 * 3 * 2 and len(set(seeds)) == 1 and len(seeds.iloc[0]) >= 2


def test_published_weights_are_those_of_seed_0():
    table = read_results(PUBLISHED / "photos" / "granularity.csv")
    first = table[table["seed"] == 0].groupby("variant")["run"].first()
    assert load_weights("lite-alignment")[1]["run"] == first["all"]
    assert sum((FOLDER / f"{name}.safetensors").stat().st_size for name in manifest()) < 12e6
    card = (FOLDER / "README.md").read_text()
    assert all(digest in card for digest in manifest().values())
