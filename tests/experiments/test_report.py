"""What pages of the book compute of results: charts draw, and "not run" is never a constant."""

import re

import matplotlib
import pandas as pd
import pytest

pytest.importorskip("seaborn")
matplotlib.use("Agg")

import matplotlib.pyplot as plt

from mgca.config import TrainConfig
from mgca.evaluation.results import COLUMNS
from mgca.experiments import load_scale
from mgca.experiments.report import (
    background,
    charts,
    choices,
    explore,
    paper_scale,
    published,
    small_clip,
    speed,
    tables,
)
from mgca.experiments.report.ablation import AblationPage
from mgca.experiments.report.methods import Methods, count
from mgca.experiments.report.page import Page, open_page
from mgca.experiments.report.short_runs import fall, shortened


@pytest.fixture(autouse=True)
def own_style():
    with plt.rc_context():
        yield
    plt.close("all")


def evaluated(*lines: tuple[str, str, float]) -> pd.DataFrame:
    rows = [(name, data, "pixel", 0, "miou", value, "run") for name, data, value in lines]
    return pd.DataFrame(rows, columns=COLUMNS)


NOTHING = evaluated()
PAPER = open_page("any").paper


@pytest.mark.parametrize("name", published.OPTIONS)
def test_what_was_measured_takes_the_place_of_not_run(name):
    table = evaluated((published.OPTIONS[name][1], "voc20", 12.34), ("other", "c59", 1.0))
    shown = published.beside_ours(2, PAPER("table2.csv"), PAPER("others.csv"), table)
    here = shown["measured here"]
    assert here[name] == "VOC20 12.3"
    assert set(here.drop(name)) == {"not run", "–"}


def test_nothing_measured_is_not_run():
    for number in (1, 2):
        shown = published.beside_ours(
            number, PAPER(f"table{number}.csv"), PAPER("others.csv"), NOTHING
        )
        for name, here in shown["measured here"].items():
            assert here == ("not run" if name in published.OPTIONS else "–")


def test_the_best_unit_of_each_set_is_named():
    table = pd.concat([evaluated(("a", "voc", 1.0)), evaluated(("b", "voc", 2.0), ("b", "c", 3.0))])
    assert tables.measured_here(table, ["a", "b"], {"voc": "VOC", "d": "D"}) == "VOC 2.0"
    assert tables.measured_here(table, ["c"], {"voc": "VOC"}) == "not run"


def test_eight_benchmarks_are_a_mean_of_eight():
    mean = published.eight({n: PAPER(f"table{n}.csv") for n in (1, 2)}, PAPER("others.csv"))
    first, second = (PAPER(f"table{n}.csv").set_index("method").loc["MGCA"] for n in (1, 2))
    numbers = [first[name] for name in published.SETS[1]]
    numbers += [second[name] for name in published.SETS[2]]
    assert mean["MGCA"] == pytest.approx(sum(numbers) / 8)


def project(folder):
    for name in ("notebooks", "results/speed", "results/shards", "results/evaluation"):
        (folder / name).mkdir(parents=True)
    return folder


def test_what_the_paper_s_scale_lacks_is_read_from_results(tmp_path):
    page = open_page("any", project=project(tmp_path))
    text = paper_scale.not_run(page)
    assert "any GPU" in text and "CC3M" in text
    gpu = evaluated(("ceiling", "float32", 1.0))
    gpu.to_csv(tmp_path / "results/speed/nvidia-h100.csv", index=False)
    ours = evaluated((published.OPTIONS["MGCA"][1], "voc", 50.0))
    ours.to_csv(tmp_path / "results/evaluation/evaluation.csv", index=False)
    text = paper_scale.not_run(page)
    assert "any GPU" not in text and "CC3M" not in text
    assert text.endswith("a decoder of this scale was: VOC 50.0.")


@pytest.fixture(scope="module")
def scenes() -> Page:
    return open_page("any", "scenes", (0, 1, 2))


def ablation(name: str) -> AblationPage:
    return AblationPage(name, "scenes", (0, 1, 2))


def test_charts_of_ablations_draw():
    levels, areas, ranks = (ablation(name) for name in ("granularity", "areas", "k"))
    figure = charts.bars(levels.pixel, "variant", "dataset", rotation=20)
    assert len(figure.axes[0].get_xticklabels()) == levels.pixel["variant"].nunique()
    held = ranks.parameters(r"^(?P<parameter>\w+)=(?P<share>[\d.]+)$")
    assert len(charts.ranks(held, ["k", "k_neg"], ranks.groups).axes) == 2
    held = areas.parameters(r"^(?P<parameter>\w+)=(?P<share>[\d.]+)(?P<losses>,no pixel)?$")
    held = held.fillna({"losses": "all"})
    own = vars(areas.setting.training.loss)
    assert len(charts.areas(held, ["alpha_neg", "alpha"], areas.groups, own).axes) == 4
    points = ablation("meta_points")
    units = list(points.table["unit"].unique())
    metrics = {"miou": "mIoU", "components": "components"}
    assert len(charts.metrics_by_unit(points.means, metrics, units, points.groups).axes) == 2
    changes = choices.changes(ablation("choices"))
    figure = charts.points(changes, "instead", "sets", xlabel="points")
    assert len(figure.axes[0].get_yticks()) == changes["instead"].nunique()
    assert "**D2**" in choices.which_matter(changes)


def test_photographs_stand_beside_scenes(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    lines = [("k=0", "voc20", 30.0), ("k=1", "voc20", 31.5), ("k_neg=1", "voc20", 29.0)]
    folder = tmp_path / "results" / "photos"
    folder.mkdir(parents=True)
    evaluated(*lines).assign(seed=4, unit="pixel").to_csv(folder / "k.csv", index=False)
    page = AblationPage("k", "scenes", (0, 1), given_project=tmp_path)
    other = page.beside("photos")
    assert (other.scale, other.seeds, len(other.table)) == ("photos", (4,), 3)
    assert other.beside("photos") is None and page.beside("paper") is None
    shown, judged = [], []
    monkeypatch.setattr(AblationPage, "show_verdict", lambda self: judged.append(self.scale))
    monkeypatch.setattr(
        "mgca.experiments.report.figures.table",
        lambda table, **about: shown.append((table, about)),
    )
    page.show_photographs({"The rank": {"rows": ("rank", r"^k=(.*)$")}})
    ((table, about),) = shown
    assert table["voc20"].tolist() == ["30.0", "31.5"] and list(table.index) == ["0", "1"]
    assert about["results"] == "photos/k.csv"
    assert about["caption"].startswith("The rank, on photographs, 1 seed: mIoU")
    AblationPage("areas", "scenes", (0,), given_project=tmp_path).show_photographs({"x": {}})
    assert len(shown) == 1 and judged == ["photos"]


def test_best_of_each():
    lines = [("a", "x", 1.0), ("b", "x", 3.0), ("a", "y", 5.0), ("b", "y", 4.0)]
    found = tables.best_of_each(evaluated(*lines), "variant", over="a", marked=True)
    assert found == (
        "X: best is **b** with 3.0, +2.0 over the a. Y: best is **a** with 5.0, +0.0 over the a"
    )


def test_methods_of_a_scale():
    page = open_page("any")
    methods = Methods(load_scale("scenes"), page.read("scenes/benchmarks.csv"))
    shown = methods.overview()
    group = methods.groups[0]
    (of_set,) = methods.setting.groups[group]
    rows = methods.table[(methods.table["dataset"] == of_set) & (methods.table["unit"] == "36")]
    rows = rows[(rows["metric"] == "miou") & (rows["variant"] == "mgca")]["value"]
    assert shown.loc[("MGCA", "36 units"), of_set].startswith(f"{rows.mean():.1f}")
    assert not methods.times.index.isin(methods.lines.index).any()
    gain = methods.gain(("mgca", "36"), ("mgca", "pixel"), group)
    by_seed = methods.gains_by_seed()
    ours = by_seed[(by_seed["variant"] == "MGCA") & (by_seed["dataset"] == group)]["gain"]
    assert gain.mean == pytest.approx(ours.mean()) and gain.std == pytest.approx(ours.std())
    frozen = methods.gain(("clip", "36"), ("clip", "pixel"), group)
    assert frozen.std == pytest.approx(0) and frozen.p == 0  # every seed has the same
    assert methods.gain(("no such", "36"), ("clip", "pixel"), group) is None
    *_, said = methods.against_tcl()[0]
    assert re.fullmatch(r"[+-]\d+\.\d\d \[.*\], 3 seeds, (holds|does not hold|undecided)", said)
    cells = pd.Series(["+1, holds", "-1, does not hold", "not run"])
    assert count(cells) == "1 of 2"
    names = [methods.word(name) for name in methods.names]
    figure = charts.gains(by_seed, names, methods.groups, "points")
    assert len(figure.axes[0].get_yticks()) == len(methods.names)
    pixel = methods.miou[methods.miou["unit"] == "pixel"]
    figure = charts.before_and_after(pixel, methods.decoders, methods.groups)
    for axis, group in zip(figure.axes, methods.groups, strict=True):
        frozen = pixel[(pixel["dataset"] == group) & (pixel["variant"] == "clip")]["value"]
        assert axis.lines[0].get_xdata()[0] == pytest.approx(frozen.mean())
    assert len(methods.changes()) == len(methods.groups) * len(methods.decoders)


def test_speed_and_the_paper_s_scale_draw():
    folder = open_page("any").results / "speed"
    for table in speed.devices(folder).values():
        parts, ceilings = speed.parts_of(table), speed.ceilings(table)
        assert len(speed.times(parts)) == len(parts)
        assert speed.roofline(parts, *ceilings).axes
        assert "GFLOP/s in float32" in speed.under_the_roof(parts, *ceilings)
    gone = speed.targets({"none": NOTHING})
    assert set(gone["measured"]) == {"not run"} and len(gone) == len(speed.TARGETS)
    batch = pd.Series([16.0, 32.0, 64.0])
    figure = paper_scale.growth(batch.to_numpy(), batch**2, 2.0)
    measured, fitted, square = (line.get_ydata() for line in figure.axes[0].lines)
    assert fitted == pytest.approx(square) and measured == pytest.approx(square)


def test_sizes_by_hand():
    sizes = paper_scale.Sizes(batch=4, side=32, pixels=16, channels=8)
    exchanged = sizes.exchanged()["MB a step"].astype(float)
    assert exchanged.iloc[-1] == pytest.approx(4e-6 * (4 * 8 + 6 * 16 + paper_scale.DECODER), 1e-2)
    tensors = paper_scale.Sizes(1024, 224, 784).tensors(313, 39).set_index("tensor")["GiB"]
    assert float(tensors["similarities"]) == pytest.approx(4 * 1024**2 * 784 / 2**30, abs=0.005)
    took = paper_scale.hours(image=1e12, seen=3.6e6).set_index(["card", "numbers"])
    hours = 1e12 * 3.6e6 / (35.6e12 * 0.5) / 3600
    assert float(took.loc[("RTX 3090", "float32"), "hours, one card"]) == round(hours, 1)


def test_thresholds():
    rows = [
        ("dense", "pixel", threshold, temperature, 10 * threshold + temperature, "run")
        for threshold in (0.2, 0.4, 0.6)
        for temperature in (1.0, 2.0)
    ]
    columns = ["variant", "unit", "threshold", "temperature", "miou", "run"]
    own = background.Thresholds(pd.DataFrame(rows, columns=columns), 0.4, 1.1)
    (line,) = own.lines().itertuples()
    assert own.near == 1.0 and "curves of 1 stand here" in own.where
    assert own.lines()["chosen pair"].item() == 5 and own.lines()["lost"].item() == 3
    assert list(own.temperatures()["best threshold"]) == [0.6, 0.6]
    assert "between 3.0 and 3.0 points" in own.cost()
    both = pd.concat([own.curves, own.curves.assign(unit="36")])
    figure = background.Thresholds(both, 0.4, 1.1).draw()
    assert [axis.get_title() for axis in figure.axes] == ["dense, pixel", "dense, 36 units"]


def test_the_ablations_to_handle(scenes):
    data = explore.ablations(scenes)
    assert len(data["ablations"]) == 6
    number = next(i for i, a in enumerate(data["ablations"]) if "positive pixel" in a["title"])
    ticks = data["ablations"][number]["ticks"]
    assert ticks == sorted(ticks, key=float)
    table = scenes.read("scenes/k.csv")
    chosen = table[(table["variant"] == f"k={ticks[0]}") & (table["metric"] == "miou")]
    chosen = chosen[(chosen["unit"] == "pixel") & (chosen["dataset"] == "things")]["value"]
    (row,) = (r for r in data["rows"] if r[:5] == [number, 0, 0, 0, 0])
    assert row[5:] == [round(chosen.mean(), 3), round(chosen.std(), 3), len(chosen)]
    assert len(explore.draw_ablations(data).axes) == 6


def test_losses_and_short_runs():
    steps = range(20)
    levels = ("total", "object", "region", "pixel")
    run = pd.DataFrame({"step": steps} | {level: list(steps) for level in levels})
    assert len(charts.losses(run, smooth=10).axes) == 4
    assert len(charts.losses(run.assign(seed=0)).axes) == 4
    off = charts.losses(run.drop(columns="region"), smooth=10).axes[2]
    assert off.get_title() == "region" and not off.lines[0].get_ydata().any()
    assert fall(run["total"], 10) == (0.5, 18.5)
    short = shortened(TrainConfig(), ("pixel",), steps=3)
    assert (short.steps, short.loss.object, short.loss.pixel) == (3, 0.0, 1.0)
    for wrong in ((), ("pixels",)):
        with pytest.raises(ValueError, match="losses are some of object, region, pixel"):
            shortened(TrainConfig(), wrong)
    assert small_clip.epochs(pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]}), 3.0).axes


def test_groups_beside_one_another():
    rows = [
        (v, g, u, s, "miou", 1.0, "r") for v in "ab" for g in "xy" for u in "pq" for s in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    figure = charts.bars_by_group(table, ["x", "y"], order=["a", "b"], hue_order=["p", "q"])
    assert [axis.get_title() for axis in figure.axes] == ["x", "y"]
