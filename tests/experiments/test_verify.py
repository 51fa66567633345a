"""Verification finds what it is for: changed digits, swapped runs, dropped rows, other bits."""

import dataclasses
import json
import random
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tiny import Hashes
from tiny_scale import TinyScale

from mgca.cli import main
from mgca.data.scenes.sets import VALIDATION_SEED
from mgca.experiments import recompute, runner, scenes, verify
from mgca.experiments.report.page import find_project
from mgca.experiments.rows import published_rows, sample, select, timed
from mgca.experiments.runner import run_ablation
from mgca.utils.provenance import provenance

RESULTS = find_project() / "results"
MUTATIONS = 50


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


# What is published, changed: the numbers of a recorded computation are those of before the change.


@pytest.fixture(scope="module")
def recorded():
    """What a computation of all published runs gave: what was published."""
    rows = published_rows(RESULTS)
    found, here = {}, provenance({}, seed=0, data={}, seconds=0)
    for (folder, run), part in rows[~timed(rows)].groupby(["folder", "run"]):
        record = json.loads((RESULTS / folder / "runs" / f"{run}.json").read_text())
        values = recompute.measured(record)
        for row in part.itertuples():
            dataset = row.dataset if "measured" in record else f"{row.variant}/{row.dataset}"
            values[dataset, row.unit, row.metric] = row.value
        found[folder, run] = values, record | {"machine": here["machine"]}
    return rows, found


@pytest.fixture
def copied(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "results")
    return tmp_path / "results"


def verified(results: Path, found: dict) -> dict:
    return verify.verify(results, published_rows(results), lambda ways: found)


def test_a_page_of_many_names_has_a_short_title(recorded):
    rows, found = recorded
    few = rows[rows["run"] == next(run for folder, run in found if folder == "scenes")]
    report = verify.verify(RESULTS, few, lambda ways: found)
    assert verify.as_page([report | {"asked": "scenes/k"}]).startswith("## scenes/k, ")
    asked = " ".join(f"scenes/k/all/{seed}" for seed in range(10))
    page = verify.as_page([report | {"asked": asked}])
    assert page.startswith("## 1 runs by name, ") and f"\n* Asked for: `{asked}`.\n" in page


def test_a_page_shows_the_largest_differences(recorded):
    rows, found = recorded
    few = rows[rows["run"] == next(run for folder, run in found if folder == "scenes")]
    report = verify.verify(RESULTS, few, lambda ways: found)
    off = [
        {"name": f"n{i}", "published": 1, "computed": 2, "difference": i or None} for i in range(60)
    ]
    page = verify.as_page([report | {"differences": off}])
    assert "The largest 50 of 60 differences:" in page
    shown = re.findall(r"^\| `(n\d+)` ", page, re.M)
    assert shown == ["n0", *(f"n{i}" for i in range(59, 10, -1))]


def test_a_threshold_counts_where_a_set_has_a_background():
    rows = pd.DataFrame(columns=["name", "variant", "dataset", "unit", "metric", "value"])
    record = {"config": {}, "seed": 0, "data": {}, "background": {"background": 0.3}}
    now = record | {"background": {"background": 0.2}}
    found = verify._compared(("a", "b"), rows, record, {}, now, part=False)
    assert list(found["name"]) == ["a/runs/b.json/background"]
    del now["background"]
    assert verify._compared(("a", "b"), rows, record, {}, now, part=False).empty


def another_digit(text: str, chance: random.Random) -> str:
    """The text of a number with one of its digits changed."""
    place = chance.choice([i for i, character in enumerate(text) if character.isdigit()])
    digit = chance.choice([d for d in "0123456789" if d != text[place]])
    return text[:place] + digit + text[place + 1 :]


def test_every_changed_digit_is_found(copied, recorded):
    """One digit in each of 50 numbers drawn at random, half from tables and half from records."""
    rows, found = recorded
    assert verified(copied, found)["differences"] == []
    assert verify.inconsistencies(copied) == []
    chance, changed = random.Random(0), set()
    tables = {}
    for row in sample(rows, MUTATIONS // 2, seed=0).itertuples():
        path = copied / row.folder / f"{row.table}.csv"
        lines = tables.setdefault(path, path.read_text().splitlines())
        first = rows[(rows["folder"] == row.folder) & (rows["table"] == row.table)].index[0]
        header = lines[0].split(",")
        after = len(header) - header.index("miou" if "miou" in header else "value")
        # From the right: the name of a variant, and a knob's value, may have commas.
        cells = lines[row.Index - first + 1].rsplit(",", after)
        cells[1] = another_digit(cells[1], chance)
        assert float(cells[1]) != row.value
        lines[row.Index - first + 1] = ",".join(cells)
        changed.add(row.name)
    for path, lines in tables.items():
        path.write_text("\n".join(lines) + "\n")
    records = [
        path for path in sorted(copied.glob("*/runs/*.json")) if '"measured"' in path.read_text()
    ]
    for path in chance.sample(records, MUTATIONS - len(changed)):
        record = json.loads(path.read_text())
        row = chance.choice(record["measured"])
        before = row["value"]
        while row["value"] == before:  # 5.0 and 5.00 are one number
            row["value"] = float(another_digit(str(before), chance))
        path.write_text(json.dumps(record))
        where = path.relative_to(copied).as_posix()
        changed.add("/".join([where, row["dataset"], row["unit"], row["metric"]]))
    report = verified(copied, found)
    assert len(changed) == MUTATIONS
    assert {difference["name"] for difference in report["differences"]} == changed
    with pytest.raises(verify.Mismatch, match="50 are not"):
        verify.judge(report, None)
    assert verify.inconsistencies(copied)  # those of numbers that are kept twice


def test_of_the_protocol_only_what_was_asked_for_is_compared(recorded):
    rows, found = recorded
    table = rows[(rows["folder"] == "scenes") & (rows["table"] == "protocol")]
    one = table[(table["variant"] == "mgca of seed 3") & (table["dataset"] == "open")]
    key = ("scenes", table["run"].iloc[0])
    whole, record = found[key]
    config = record["config"]
    (own,) = [line for line in config["methods"] if line[:2] == ["mgca", 3]]
    sets = [line for line in config["sets"] if line[0] == "open"]
    made = config | {"methods": [own], "sets": sets}
    part = {k: v for k, v in whole.items() if k[0] == "mgca of seed 3/open"}

    def report(config, values=part):
        now = record | {"config": config, "data": {"open": record["data"]["open"]}}
        return verify.verify(RESULTS, one.iloc[:2], lambda ways: {key: (values, now)})

    said = report(made)
    assert said["rows"] == len(one) > 2 and not said["differences"]
    other = made | {"methods": [[*own[:3], "another digest"]]}
    assert [lost["name"][-6:] for lost in report(other)["differences"]] == ["config"]
    changed = part | {next(iter(part)): -1.0}
    assert len(report(made, changed)["differences"]) == 1


def edit(results: Path, table: str, change) -> None:
    path = results / f"{table}.csv"
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


def swap_rows(lines: list[str]) -> None:
    """Give two lines of other variants each other's run."""
    one, other = lines[1].rsplit(",", 1), lines[-1].rsplit(",", 1)
    lines[1], lines[-1] = f"{one[0]},{other[1]}", f"{other[0]},{one[1]}"


def test_swapped_runs_a_dropped_row_and_an_unknown_one_are_found(copied):
    for change, said in (
        (swap_rows, "of run"),
        (lambda lines: lines.pop(7), "the table not"),
        (lambda lines: lines.append(lines[5].replace("k=0,", "k=9,")), "no record of the grid"),
        (lambda lines: lines.append(lines[5]), "stands there twice"),
    ):
        before = (copied / "scenes" / "k.csv").read_text()
        edit(copied, "scenes/k", change)
        assert any(said in line for line in verify.inconsistencies(copied))
        (copied / "scenes" / "k.csv").write_text(before)
    one, other = sorted((copied / "scenes" / "runs").glob("*.json"))[:2]
    texts = one.read_text(), other.read_text()
    one.write_text(texts[1])
    other.write_text(texts[0])
    found = verify.inconsistencies(copied)
    assert sum("its configuration has another name" in line for line in found) == 2


def test_a_dropped_record_is_found(copied):
    run = published_rows(copied).query("table == 'k' and folder == 'scenes'")["run"].iloc[0]
    (copied / "scenes" / "runs" / f"{run}.json").unlink()
    assert any(f"no provenance of run {run}" in line for line in verify.inconsistencies(copied))


def test_rows_are_named_by_path_run_and_figure(tmp_path):
    rows = published_rows(RESULTS)
    assert not rows["name"].duplicated().any()
    table = select(rows, ["results/scenes/k.csv"], tmp_path)
    assert set(table["table"]) == {"k"} and set(table["folder"]) == {"scenes"}
    one = select(rows, [table["name"].iloc[3]], tmp_path)
    assert len(one) == 1 and one["value"].iloc[0] == table["value"].iloc[3]
    run = table["run"].iloc[0]
    assert set(select(rows, [run[:8]], tmp_path)["run"]) == {run}
    with pytest.raises(ValueError, match="nothing published is called 'scenes/kk'"):
        select(rows, ["scenes/kk"], tmp_path)
    with pytest.raises(ValueError, match="make notebooks executes them"):
        select(rows, ["fig-k"], tmp_path)
    described = {"name": "fig-k", "results": "scenes/k.csv"}, {"name": "fig-own", "results": None}
    outputs = [{"metadata": {"mgca": one}} for one in described]
    (tmp_path / "_build" / "executed").mkdir(parents=True)
    page = tmp_path / "_build" / "executed" / "k.ipynb"
    page.write_text(json.dumps({"cells": [{"outputs": outputs}, {}]}))
    assert select(rows, ["fig-k"], tmp_path).equals(table)
    with pytest.raises(ValueError, match="FRESH=1"):
        select(rows, ["fig-own"], tmp_path)


def test_a_sample_is_drawn_by_its_seed_and_without_times():
    rows = published_rows(RESULTS)
    drawn = sample(rows, 20, seed=3)
    assert len(drawn) == 20 and drawn.equals(sample(rows, 20, seed=3))
    assert not drawn.equals(sample(rows, 20, seed=4)) and not timed(drawn).any()


# The command, with a scale that computes in seconds.


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "images").mkdir()

    def load(name, **_):
        if name != "tiny":
            raise ValueError(name)
        return TinyScale(tmp_path / "images")

    monkeypatch.setattr(recompute, "load_scale", load)
    monkeypatch.setattr(verify, "load_scale", load)
    folders = {"out": tmp_path / "results" / "tiny", "work": tmp_path / "work"}
    table = run_ablation("meta_points", load("tiny"), [0], **folders)
    return table["run"].iloc[0]


def test_the_command_computes_again_goes_on_and_reports(clone, capsys, monkeypatch):
    assert main(["verify", "tiny/meta_points/all/0"]) == 0
    out = capsys.readouterr().out
    assert "tables and records agree" in out and "numbers are identical." in out
    (report,) = Path("_build/verify").glob("*/report.json")
    found = json.loads(report.read_text())
    assert found["rows"] == found["identical"] > 96 and found["runs"][0]["same_kind"]
    assert "numbers are identical" in report.with_suffix(".md").read_text()

    # Again: what is there is not computed a second time. Another number is found all the same.
    monkeypatch.setattr(runner, "_compute", lambda *_: pytest.fail("computed again"))
    path = Path("results/tiny/runs") / f"{clone}.json"
    record = json.loads(path.read_text())
    record["measured"][0]["value"] += 1
    path.write_text(json.dumps(record))
    assert main(["verify", clone]) == 1
    assert "tables and records disagree in 1 places" in capsys.readouterr().err
    table = Path("results/tiny/meta_points.csv")
    rows = pd.read_csv(table, dtype={"unit": str})
    rows.loc[0, "value"] += 1  # in both, as a forger would
    rows.to_csv(table, index=False)
    assert main(["verify", clone]) == 1
    assert "2 are not" in capsys.readouterr().err


def test_what_cannot_be_computed_is_said(clone, capsys, monkeypatch):
    def fails(*_, **__):
        raise FileNotFoundError("the tiny scale needs its data sets: set MGCA_DATA")

    monkeypatch.setattr(recompute, "run_ablations", fails)
    assert main(["verify", "tiny"]) == 1
    assert "nothing could be compared: the tiny scale needs" in capsys.readouterr().err
    assert main(["verify", "--all", "--sample", "3"]) == 2
    assert main(["verify", "--results", "nowhere"]) == 1


def report_of(largest: float, same: bool, **values) -> dict:
    pair = {"name": "a", "published": 1.0, "computed": 1.0 + largest, "difference": largest}
    return {
        "rows": 2,
        "identical": 1 if largest else 2,
        "largest_miou": largest,
        "left_out": {},
        "differences": [pair] if largest else [],
        "runs": [{"same_kind": same, "largest_miou": largest}],
    } | values


def test_identical_here_and_within_what_was_measured_elsewhere(tmp_path):
    assert verify.judge(report_of(0.0, True), None) == "2 of 2 numbers are identical."
    with pytest.raises(verify.Mismatch, match="1 are not, first a"):
        verify.judge(report_of(0.001, True), 1.0)
    assert "within the 0.3" in verify.judge(report_of(0.2, False), 0.3)
    with pytest.raises(verify.Mismatch, match="more than the 0.3"):
        verify.judge(report_of(0.4, False), 0.3)
    assert "nothing was measured" in verify.judge(report_of(0.4, False), None)
    assert verify.measured_spread(tmp_path) is None
    (tmp_path / "verify").mkdir()
    for name, same, largest in (("a", False, 0.2), ("b", False, 0.25), ("c", True, 9.0)):
        (tmp_path / "verify" / f"{name}.json").write_text(json.dumps(report_of(largest, same)))
    assert verify.measured_spread(tmp_path) == 0.25


def test_kinds_of_machines_differ_in_more_than_the_name():
    here = provenance({}, seed=0, data={}, seconds=0)
    assert verify.same_kind(here, here)
    other = here["machine"] | {"instructions": "AVX2"}
    for change in (
        {"device": "another, 2 cores"},
        {"environment": here["environment"] | {"torch": "1.0"}},
        {"threads": here["threads"] + 1},
        {"machine": other},
    ):
        assert not verify.same_kind(here | change, here)
    old = {key: value for key, value in here.items() if key != "machine"}
    assert verify.same_kind(old, here)  # of a record that does not say
