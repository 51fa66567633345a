"""Claims as data: judged on a table whose differences are known, said the same on every page."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from tiny_scale import TinyScale

pytest.importorskip("matplotlib")

from mgca.evaluation.evaluate import unit_name
from mgca.evaluation.results import read_results
from mgca.experiments import load_scale
from mgca.experiments.grid import META_POINTS, grid
from mgca.experiments.intervals import image_intervals, read_intervals, write_intervals
from mgca.experiments.report import claims, judging, verdicts
from mgca.experiments.report.page import find_project
from mgca.experiments.report.tables import Difference, judge
from mgca.losses import LossConfig

OWN = LossConfig(alpha=0.4, alpha_neg=0.05, k=0.06)


def column(ablation: str, values: dict[tuple[str, str, str], list[float]]) -> judging.Column:
    """One set of lines: values over the seeds by variant, unit and metric."""
    table = pd.DataFrame(values)
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["variant", "unit", "metric"])
    return judging.Column("Tiny", "all sets", {ablation: table}, OWN)


# Over five seeds, around a mean: a spread that a difference of 0.1 is sure against.
NOISE = [-0.02, -0.01, 0.0, 0.01, 0.02]


def around(mean: float, turned: int = 0) -> list[float]:
    """Values with that mean; equal turns are equal noise, which a difference does not have."""
    return [mean + NOISE[(seed - turned) % len(NOISE)] for seed in range(len(NOISE))]


def granularity(**means: float) -> judging.Column:
    levels = {"baseline": 10, "object": 20, "region": 25, "pixel": 30, "object+region": 32}
    means = levels | {"all": 40} | means
    values = {
        (name, "pixel", "miou"): around(mean, turned)
        for turned, (name, mean) in enumerate(means.items())
    }
    values |= {
        (name, "pixel", metric): around(value, turned)
        for metric in ("components", "boundary_iou")
        for turned, (name, value) in enumerate(
            {"baseline": 4, "object+region": 3, "all": 5}.items()
        )
    }
    return column("granularity", values)


def judged(one: judging.Column) -> dict[str, judging.Verdict]:
    (ablation,) = one.tables
    found = judging.verdicts(claims.CLAIMS, [one])
    ours = {c.text: c.paper for c in claims.CLAIMS if c.ablation == ablation}
    return {text: said for (text, _), said in found.items() if ours[text]}


def gain(*differences: float, images: judging.OverImages | None = None) -> judging.Verdict:
    """The verdict on one claim of seeds with these differences."""
    claim = judging.Claim(text="a", ablation="k", more="k={k:g}", less=("k=0",))
    lines = {
        ("k=0.06", "pixel", "miou"): list(differences),
        ("k=0", "pixel", "miou"): [0.0] * len(differences),
    }
    one = dataclasses.replace(column("k", lines), images={"a": images} if images else {})
    return judging.verdicts([claim], [one])["a", "Tiny"]


def test_a_claim_holds_does_not_or_is_undecided():
    # By hand: mean 2, deviation 1, five seeds; t(4) at 0.975 is 2.776.
    sure = gain(0.5, 2, 2.5, 2, 3)
    assert sure.judged.verdict == "holds"
    spread = pd.Series([0.5, 2, 2.5, 2, 3]).std() * 2.7764451 / 5**0.5
    assert sure.judged.low == pytest.approx(2 - spread)
    assert sure.judged.high == pytest.approx(2 + spread)
    assert sure.numbers == f"+2.00 [{2 - spread:+.2f}, {2 + spread:+.2f}], 5 seeds"
    assert gain(-0.5, -2, -2.5, -2, -3).judged.verdict == "does not hold"
    # What passed by the rule of one deviation: 0.56 ± 0.51 of three seeds.
    thumb = gain(0.56 - 0.51, 0.56, 0.56 + 0.51)
    assert thumb.judged.verdict == "undecided" and thumb.above_spread
    assert not gain(0.5 - 0.51, 0.5, 0.5 + 0.51).above_spread and not gain(-1.0).above_spread
    assert gain(5.0).judged.verdict == "undecided" and gain(5.0).numbers == "+5.00, one seed"
    assert gain(2.0, 2.0).judged.verdict == "holds"  # nothing is trained: all seeds are one


def test_images_have_to_agree():
    sure = judging.OverImages(1.0, 3.0, 0.0004)
    assert gain(0.5, 2, 2.5, 2, 3, images=sure).judged.verdict == "holds"
    unsure = gain(0.5, 2, 2.5, 2, 3, images=judging.OverImages(-0.5, 4.5, 0.2))
    assert unsure.judged.verdict == "undecided"
    assert unsure.numbers.endswith("5 seeds; over images [-0.50, +4.50]")


def test_the_more_claims_the_surer_each_has_to_be():
    mean = Difference(1.0, 0.8, 5)  # p = 0.05 exactly at a deviation of 0.805
    assert mean.p == pytest.approx(0.0489, abs=1e-3)
    assert judge([mean])[0].verdict == "holds"
    other = Difference(0.1, 1.0, 5)
    both = judge([mean, other])
    assert [one.verdict for one in both] == ["undecided", "undecided"]
    assert both[0].low < 0 < judge([mean])[0].low
    surest = Difference(9.0, 0.1, 5)
    assert [one.verdict for one in judge([surest, mean])] == ["holds", "holds"]
    assert judge([mean], times=[2])[0].verdict == "undecided"


def test_being_the_best_is_being_better_than_the_nearest():
    found = judged(granularity())
    assert {said.judged.verdict for said in found.values()} == {"holds"}
    most = found["The pixel level brings most of the three"]
    assert most.judged.difference.mean == pytest.approx(5) and most.beside == "against region"
    best = found["All three levels together are best"]
    assert best.beside == "against object+region"
    found = judged(granularity(region=31))
    assert found["The pixel level brings most of the three"].judged.verdict == "does not hold"
    patches = found["Object and region level remove noisy patches (components, less is better)"]
    assert patches.judged.difference.mean == pytest.approx(1)
    assert patches.beside == "4.00 and 3.00"


def curve(name: str, values: dict[float, float], ending: str = "") -> dict:
    return {
        (f"{name}={at:g}{ending}", "pixel", "miou"): around(value, turned)
        for turned, (at, value) in enumerate(values.items())
    }


def test_curves():
    full = curve("alpha_neg", {0.05: 20, 0.8: 21})
    without = curve("alpha_neg", {0.05: 15, 0.8: 18}, ",no pixel")
    area = curve("alpha", {0.4: 20, 0.8: 22})
    one = column("areas", full | without | area)
    matters, small = judged(one).values()
    assert matters.judged.verdict == "holds"
    assert matters.beside == "1.00 with it, 3.00 without"
    assert small.judged.verdict == "does not hold"
    assert small.judged.difference.mean == pytest.approx(-3)
    said = judging.verdicts(claims.CLAIMS, [one])
    (own,) = (said[c.text, "Tiny"] for c in claims.CLAIMS if c.ablation == "areas" and not c.paper)
    assert own.judged.verdict == "does not hold" and own.judged.difference.mean == pytest.approx(-2)

    ranks = column("k", curve("k", {0: 20, 0.06: 23, 0.5: 24, 1: 22}))
    said = judging.verdicts(claims.CLAIMS, [ranks])
    (name,) = (c.text for c in claims.CLAIMS if c.text.startswith("The best value"))
    between = said[name, "Tiny"]
    assert between.judged.verdict == "holds" and between.beside.startswith("k=0.5 against k=")


@pytest.mark.parametrize(
    "at_49, at_16, steps, marginal", [(24, 26, 5, "holds"), (26, 29, 4, "does not hold")]
)
def test_units(at_49, at_16, steps, marginal):
    miou = {"pixel": 20, "121": 21, "81": 22, "64": 23, "49": at_49, "36": 25, "25": 25}
    lines = enumerate((miou | {"16": at_16}).items())
    values = {("all", unit, "miou"): around(mean, n) for n, (unit, mean) in lines}
    values |= {
        ("all", unit, "components"): around(n, n) for unit, n in {"pixel": 6, "36": 2}.items()
    }
    better, each, further, fewer = judged(column("meta_points", values)).values()
    assert better.judged.verdict == "holds"
    assert better.judged.difference.mean == pytest.approx(5)
    assert each.judged.verdict == ("holds" if steps == 5 else "does not hold")
    assert each.beside.endswith(f"{steps} of 5 steps rise")
    assert further.judged.verdict == marginal
    assert fewer.judged.verdict == "holds" and fewer.beside == "6.00 and 2.00"


def test_an_ablation_and_the_page_of_what_held_say_the_same():
    one = granularity(region=31)
    text = verdicts.sentences("granularity", [one])
    table = verdicts.table([one])
    html = verdicts.html(table)
    shown = table[table["ablation"] == "granularity"]
    assert len(shown) == 7
    for claim, verdict, numbers in shown[["claim", "verdict", "shown"]].itertuples(index=False):
        (line,) = (line for line in text.splitlines() if f"* {claim}: " in line)
        assert f"**{verdict}** ({numbers}" in line
        said = f"<b>{verdict}</b><br>{numbers}"
        assert re.search(rf"<tr><td>{re.escape(claim)}</td>.*?{re.escape(said)}", html)
    # The scale has no "maskclip", which three of our own lines compare with.
    assert "MaskCLIP" not in text


def test_what_was_not_run_is_said():
    table = verdicts.table([granularity()])
    others = table[table["ablation"] != "granularity"]
    assert set(others["verdict"]) == {"not run"}
    short = verdicts.in_short(table)
    assert "of 7 claims 7 hold, 0 do not, 0 are undecided. 8 were not run." in short
    nothing = verdicts.table([judging.Column("Tiny", "all sets", {}, OWN)])
    assert verdicts.in_short(nothing) == "* **Tiny**: not run."
    assert "<td>not run</td>" in verdicts.html(nothing)
    assert len(verdicts.by_both_rules(table)) == 7 and verdicts.by_both_rules(nothing).empty


def test_a_claim_may_speak_of_some_sets_only():
    claim = next(c for c in claims.CLAIMS if c.ablation == "granularity")
    assert claim.applies(granularity())
    assert not dataclasses.replace(claim, sets=("other",)).applies(granularity())


@pytest.mark.parametrize("name", ["scenes", "photos"])
def test_every_claim_can_be_judged_on_what_is_published(name):
    scale = load_scale(name)
    folder = find_project() / "results" / name
    tables = {a: read_results(folder / f"{a}.csv") for a in claims.SOURCES}
    columns = judging.columns_of(scale, tables, read_intervals(folder))
    run = {a for a in claims.SOURCES if len(tables[a])}
    table = verdicts.table(columns)
    assert set(table.loc[table["verdict"] != "not run", "ablation"]) == run
    names = {variant.name for ablation in claims.SOURCES for variant in grid(ablation, scale)}
    own = vars(scale.training.loss)
    for claim in claims.CLAIMS:
        if type(claim) is judging.Claim and "maskclip" not in claim.less:
            assert {n.format_map(own) for n in (claim.more, *claim.less)} <= names


def test_intervals_over_images_are_of_the_runs(tmp_path):
    """Two runs of ten images each, of which one is right in every image: it wins for sure."""
    scale = TinyScale(tmp_path)
    rng = np.random.default_rng(0)
    for variant in grid("granularity", scale):
        right = {"all": 90, "baseline": 10}.get(variant.name, 50)
        counts = {}
        for name in scale.datasets:
            hits = rng.integers(right, right + 5, size=(10, 1, 1)) * np.eye(3, dtype=int)
            for unit in map(unit_name, META_POINTS):
                counts[f"{name}/{unit}/confusion"] = hits + 10
                counts[f"{name}/{unit}/contours"] = np.full((10, 3, 3), 5)
                counts[f"{name}/{unit}/pieces"] = np.full((10, 2), 2)
        path = tmp_path / "work" / variant.run(scale, 0) / "images.npz"
        path.parent.mkdir(parents=True)
        np.savez_compressed(path, **counts)
    found = image_intervals(scale, [0, 1], tmp_path / "work", replicates=200)
    assert found["seeds"] == {"granularity": [0], "meta_points": [0]}  # of one run
    best = [one for one in found["claims"] if one["claim"] == "All three levels together are best"]
    assert [one["group"] for one in best] == list(scale.groups)
    assert all(0 < one["low"] <= one["mean"] <= one["high"] for one in best)
    assert all(one["p"] == pytest.approx(2 / 201, abs=1e-4) for one in best)
    write_intervals(tmp_path, found)
    assert read_intervals(tmp_path) == found["claims"]
    with pytest.raises(FileNotFoundError, match="mgca verify --all"):
        image_intervals(scale, [1], tmp_path / "work")
