"""Claims as data: judged on a table whose differences are known, said the same on every page."""

import dataclasses
import re

import pandas as pd
import pytest

pytest.importorskip("matplotlib")

from mgca.evaluation.results import COLUMNS, read_results
from mgca.experiments import load_scale
from mgca.experiments.grid import ABLATIONS, grid
from mgca.experiments.report import claims, verdicts
from mgca.experiments.report.page import find_project
from mgca.losses import LossConfig

OWN = LossConfig(alpha=0.4, alpha_neg=0.05, k=0.06)


def column(ablation: str, values: dict[tuple[str, str, str], list[float]]) -> claims.Column:
    """One set of lines: values over the seeds by variant, unit and metric."""
    rows = [
        (variant, "all sets", unit, seed, metric, value, "run")
        for (variant, unit, metric), seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return claims.Column("Tiny", "all sets", {ablation: table}, OWN)


def granularity(**means: float) -> claims.Column:
    levels = {"baseline": 10, "object": 20, "region": 25, "pixel": 30, "object+region": 32}
    means = levels | {"all": 40} | means
    values = {(name, "pixel", "miou"): [mean - 1, mean + 1] for name, mean in means.items()}
    values |= {
        (name, "pixel", metric): [value, value]
        for metric in ("components", "boundary_iou")
        for name, value in {"baseline": 4, "object+region": 3, "all": 5}.items()
    }
    return column("granularity", values)


def judged(one: claims.Column) -> dict[str, claims.Verdict]:
    (ablation,) = one.tables
    return {c.text: c.judge(one) for c in claims.CLAIMS if c.ablation == ablation and c.paper}


def test_a_claim_holds_beyond_the_spread_of_its_seeds():
    gain = claims.Claim(text="a", ablation="k", more="k={k:g}", less=("k=0",))
    for seeds, held in (([2.0, 4.0], True), ([0.5, 3.5], False), ([-1.0, -3.0], False)):
        lines = {("k=0.06", "pixel", "miou"): seeds, ("k=0", "pixel", "miou"): [0.0, 0.0]}
        verdict = gain.judge(column("k", lines))
        assert verdict.held is held
        assert verdict.difference.mean == pytest.approx(sum(seeds) / 2)


def test_being_the_best_is_being_better_than_the_nearest():
    found = judged(granularity())
    assert all(verdict.held for verdict in found.values())
    most = found["The pixel level brings most of the three"]
    assert (most.numbers, most.beside) == ("+5.00 ± 0.00", "against region")
    best = found["All three levels together are best"]
    assert (best.numbers, best.beside) == ("+8.00 ± 0.00", "against object+region")
    found = judged(granularity(region=31))
    assert not found["The pixel level brings most of the three"].held
    patches = found["Object and region level remove noisy patches (components, less is better)"]
    assert (patches.numbers, patches.beside) == ("+1.00 ± 0.00", "4.00 and 3.00")


def curve(name: str, values: dict[float, float], ending: str = "") -> dict:
    return {
        (f"{name}={at:g}{ending}", "pixel", "miou"): [value, value] for at, value in values.items()
    }


def test_curves():
    full = curve("alpha_neg", {0.05: 20, 0.8: 21})
    without = curve("alpha_neg", {0.05: 15, 0.8: 18}, ",no pixel")
    area = curve("alpha", {0.4: 20, 0.8: 22})
    one = column("areas", full | without | area)
    matters, small = judged(one).values()
    assert matters.held and matters.numbers == "1.00 with it, 3.00 without"
    assert not small.held and small.difference.mean == -3
    (own,) = (c.judge(one) for c in claims.CLAIMS if c.ablation == "areas" and not c.paper)
    assert not own.held and own.numbers == "0.8 minus the own 0.4: +2.00 ± 0.00"

    ranks = column("k", curve("k", {0: 20, 0.06: 23, 0.5: 24, 1: 22}))
    (between,) = (c.judge(ranks) for c in claims.CLAIMS if c.text.startswith("The best value"))
    assert between.held and between.beside == "k=0.5"
    assert between.numbers == "+4.00 ± 0.00 over k=0, +2.00 ± 0.00 over k=1"


@pytest.mark.parametrize("at_49, at_16, steps, marginal", [(24, 26, 5, True), (26, 29, 4, False)])
def test_units(at_49, at_16, steps, marginal):
    miou = {"pixel": 20, "121": 21, "81": 22, "64": 23, "49": at_49, "36": 25, "25": 25}
    values = {("all", unit, "miou"): [mean] for unit, mean in (miou | {"16": at_16}).items()}
    values |= {("all", unit, "components"): [n] for unit, n in {"pixel": 6, "36": 2}.items()}
    better, each, further, fewer = judged(column("meta_points", values)).values()
    assert better.held and better.numbers == "+5.00"
    assert each.held is (steps == 5) and each.numbers == f"{steps} of 5 steps"
    assert further.held is marginal
    assert fewer.held and fewer.beside == "6.00 and 2.00"


def test_an_ablation_and_the_page_of_what_held_say_the_same():
    one = granularity(region=31)
    text = verdicts.sentences("granularity", [one])
    table = verdicts.table([one])
    html = verdicts.html(table)
    shown = table[table["ablation"] == "granularity"]
    assert len(shown) == 7
    for claim, held, numbers in shown[["claim", "held", "shown"]].itertuples(index=False):
        (line,) = (line for line in text.splitlines() if f"* {claim}: " in line)
        assert f"**{'holds' if held else 'does not hold'}** ({numbers}" in line
        said = f"<b>{'held' if held else 'did not hold'}</b><br>{numbers}"
        assert re.search(rf"<tr><td>{re.escape(claim)}</td>.*?{re.escape(said)}", html)
    # The scale has no "maskclip", which three of our own lines compare with.
    assert "MaskCLIP" not in text


def test_what_was_not_run_is_said():
    table = verdicts.table([granularity()])
    others = table[table["ablation"] != "granularity"]
    assert set(others["shown"]) == {"not run"} and others["held"].isna().all()
    assert "7 of 7 claims held. 8 were not run." in verdicts.in_short(table)
    nothing = verdicts.table([claims.Column("Tiny", "all sets", {}, OWN)])
    assert verdicts.in_short(nothing) == "* **Tiny**: not run."
    assert "<td>not run</td>" in verdicts.html(nothing)


def test_a_claim_may_speak_of_some_sets_only():
    claim = next(c for c in claims.CLAIMS if c.ablation == "granularity")
    assert claim.applies(granularity())
    assert not dataclasses.replace(claim, sets=("other",)).applies(granularity())


@pytest.mark.parametrize("name", ["scenes", "photos"])
def test_every_claim_can_be_judged_on_what_is_published(name):
    scale = load_scale(name)
    folder = find_project() / "results" / name
    tables = {a: read_results(folder / f"{a}.csv") for a in ABLATIONS}
    columns = claims.columns_of(scale, tables)
    run = {a for a in claims.SOURCES if len(tables[a])}
    table = verdicts.table(columns)
    assert set(table.loc[table["held"].notna(), "ablation"]) == run
    names = {variant.name for ablation in claims.SOURCES for variant in grid(ablation, scale)}
    own = vars(scale.training.loss)
    for claim in claims.CLAIMS:
        if type(claim) is claims.Claim and "maskclip" not in claim.less:
            assert {n.format_map(own) for n in (claim.more, *claim.less)} <= names
