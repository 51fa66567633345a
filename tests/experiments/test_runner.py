"""Computing what a table lacks, once, whatever runs, stops, fails or changes; and reading it."""

import json
import shutil
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_scale import CLASSES, TinyScale, folders, names

from mgca.evaluation.evaluate import IMAGES, measure
from mgca.evaluation.metrics import Confusion, Contours
from mgca.evaluation.results import COLUMNS, read_results, read_run
from mgca.experiments import changes, runner
from mgca.experiments.grid import grid
from mgca.experiments.report import ablation as ablation_page
from mgca.experiments.report.pictures import models_at_hand, pictures
from mgca.experiments.report.tables import (
    difference,
    group_means,
    mean_and_std,
    provenance_table,
    with_group_means,
)
from mgca.experiments.runner import AblationError, missing, run_ablation, run_ablations
from mgca.experiments.timing import seconds_per_image
from mgca.model import Model
from mgca.utils.files import alone_in


@pytest.fixture
def scale(tmp_path):
    return TinyScale(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Granularity, computed once for the tests that only read it; tests that write copy it."""
    folder = tmp_path_factory.mktemp("done")
    torch.manual_seed(0)
    table = run_ablation("granularity", TinyScale(folder), [0, 1], **folders(folder))
    return folder, table


def copy(done, tmp_path: Path, **options) -> TinyScale:
    for source in done[0].iterdir():
        if source.is_dir():
            shutil.copytree(source, tmp_path / source.name)
        elif source.suffix == ".png":
            shutil.copyfile(source, tmp_path / source.name)
    return TinyScale(tmp_path, **options)


def test_the_table_holds_what_the_runs_measured(done):
    folder, table = done
    scale = TinyScale(folder)
    assert list(table.columns) == COLUMNS
    assert set(table["seed"]) == {0, 1} and set(table["unit"]) == {"pixel", "36"}
    assert list(table["variant"].unique()) == names("granularity", scale)
    written = read_results(folder / "results" / "granularity.csv")
    pd.testing.assert_frame_equal(written, table, check_dtype=False)
    for variant in grid("granularity", scale):
        record = read_run(folder / "results", variant.run(scale, 1))
        assert record["config"] == json.loads(json.dumps(variant.config(scale, 1)))
        assert (record["seed"], record["threads"]) == (1, 1)
        assert record["data"] == scale.digests() and record["seconds"] >= 0
        units = {row["unit"] for row in record["measured"]}
        assert units == (
            {"pixel", "16", "25", "36", "49", "64", "81", "121"}
            if variant.name == "all"
            else {"pixel", "36"}
        )
    assert {"iou:background", "iou:dog"} <= set(table[table["dataset"] == "things"]["metric"])
    assert "iou:background" not in set(table[table["dataset"] == "stuff"]["metric"])
    assert missing("granularity", scale, [0, 1], folder / "results") == []


def test_each_backbone_was_asked_for_once_per_run(done):
    notes = (done[0] / "notes").read_text().splitlines()
    # Once more for each seed, before the runs.
    assert notes.count("prepared") == 1
    assert notes.count("0 value") == notes.count("1 value") == 7
    assert notes.count("0 attention") == notes.count("1 attention") == 1


def test_nothing_missing_computes_and_writes_nothing(done, tmp_path):
    scale = copy(done, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.*")}
    again = run_ablation("granularity", scale, [0, 1], **folders(tmp_path))
    pd.testing.assert_frame_equal(again, done[1])
    assert scale.notes() == []
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.*")}
    one = run_ablation("granularity", scale, [1], **folders(tmp_path))
    assert set(one["seed"]) == {1}
    assert set(read_results(tmp_path / "results" / "granularity.csv")["seed"]) == {0, 1}


def test_a_run_of_one_table_is_a_run_of_the_others(done, tmp_path):
    scale = copy(done, tmp_path)
    points = run_ablation("meta_points", scale, [0, 1], **folders(tmp_path))
    assert scale.notes() == []
    shared = ["dataset", "unit", "seed", "metric", "value", "run"]
    ours = points[points["unit"].isin(["pixel", "36"])][shared]
    theirs = done[1][(done[1]["variant"] == "all") & ~done[1]["metric"].str.startswith("iou:")]
    key = ["dataset", "unit", "seed", "metric"]
    pd.testing.assert_frame_equal(
        ours.sort_values(key, ignore_index=True),
        theirs[shared].sort_values(key, ignore_index=True),
    )
    assert {variant.name for variant, _ in missing("k", scale, [0], tmp_path / "results")} == {
        *(n for n in names("k", scale) if n not in ("k=0.06", "k_neg=0"))
    }


def test_only_what_is_missing_is_computed(done, tmp_path):
    scale = copy(done, tmp_path)
    pixel = next(v for v in grid("granularity", scale) if v.name == "pixel")
    (tmp_path / "results" / "runs" / f"{pixel.run(scale, 1)}.json").unlink()
    assert missing("granularity", scale, [0, 1], tmp_path / "results") == [(pixel, 1)]
    again = run_ablation("granularity", scale, [0, 1], **folders(tmp_path))
    assert scale.notes() == ["prepared", "1 value", "1 value"]
    pd.testing.assert_frame_equal(again, done[1])


def test_an_interrupted_grid_goes_on(done, tmp_path, monkeypatch):
    scale = TinyScale(tmp_path)
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute(*arguments)

    compute = runner._compute
    monkeypatch.setattr(runner, "_compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_ablation("granularity", scale, [0, 1], **folders(tmp_path), jobs=1)
    kept = list((tmp_path / "results" / "runs").iterdir())
    assert len(kept) == 3
    assert read_results(tmp_path / "results" / "granularity.csv")["run"].nunique() == 3
    table = run_ablation("granularity", scale, [0, 1], **folders(tmp_path))
    assert len(calls) == 4 + 14 - 3
    pd.testing.assert_frame_equal(table, done[1])


def test_fresh_computes_everything_again(done, tmp_path):
    scale = copy(done, tmp_path)
    for decoder in (tmp_path / "work").glob("*/decoder.safetensors"):
        decoder.write_bytes(b"from another time")
    again = run_ablation("granularity", scale, [0, 1], **folders(tmp_path), fresh=True)
    assert len(scale.notes()) == 1 + 2 + 14
    pd.testing.assert_frame_equal(again, done[1])


def test_a_failed_run_is_named_and_the_others_are_kept(tmp_path):
    scale = TinyScale(tmp_path, fails=(1, "attention"))
    match = "1 of 14 runs failed\ngranularity, variant baseline, seed 1: .*no such backbone today"
    with pytest.raises(AblationError, match=match):
        run_ablation("granularity", scale, [0, 1], **folders(tmp_path))
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 13
    table = read_results(tmp_path / "results" / "granularity.csv")
    assert len(table[["variant", "seed"]].drop_duplicates()) == 13
    scale.fails = None
    run_ablation("granularity", scale, [0, 1], **folders(tmp_path))
    assert len(scale.notes()) == (1 + 2 + 14) + (1 + 1 + 1)


def test_numbers_do_not_depend_on_how_many_run_at_a_time(done, tmp_path):
    scale = TinyScale(tmp_path)
    table = run_ablation("granularity", scale, [1], **folders(tmp_path), jobs=2)
    of_the_seed = done[1][done[1]["seed"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, of_the_seed)
    for path in (tmp_path / "work").glob("*/decoder.safetensors"):
        assert path.read_bytes() == (done[0] / "work" / path.parent.name / path.name).read_bytes()


def test_threads_are_as_before(tmp_path):
    torch.set_num_threads(2)
    try:
        run_ablation("meta_points", TinyScale(tmp_path), [0], **folders(tmp_path))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_variants_that_the_grid_no_longer_has_leave_the_table(done, tmp_path):
    scale = copy(done, tmp_path)
    path = tmp_path / "results" / "granularity.csv"
    lines = path.read_text().replace("maskclip", "a former variant")
    path.write_text(lines)
    run_ablation("granularity", scale, [0], **folders(tmp_path))
    assert "a former variant" not in set(read_results(path)["variant"])
    pd.testing.assert_frame_equal(read_results(path), done[1], check_dtype=False)


def test_several_tables_at_once_share_their_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("mgca.experiments.grid.K", (0.0,))
    monkeypatch.setattr("mgca.experiments.grid.K_NEG", ())
    scale = TinyScale(tmp_path)
    tables = run_ablations(["k", "meta_points"], scale, [0], **folders(tmp_path), fresh=True)
    assert list(tables) == ["k", "meta_points"]
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 2
    assert list(tables["k"]["variant"].unique()) == ["k=0", "k=0.06", "k_neg=0"]


def test_measures_are_those_of_segmenting_each_image(scale):
    scale.prepare({})
    model = Model(scale.backbone(0), None, scale.segment())
    things = scale.sets()[0]
    rows = measure(model, things, [16], background=scale.background(model))
    contours = Contours(4)
    for _, image, truth in things:
        labels = model.segment(image, CLASSES, 16, **scale.background(model)).labels
        contours.add(labels.numpy(), truth)
    values = {row["metric"]: row["value"] for row in rows}
    assert {(row["dataset"], row["unit"]) for row in rows} == {("things", "16")}
    assert values["boundary_iou"] == round(contours.boundary_iou, 3)
    assert values["components"] == round(contours.components, 3)
    classes = [value for metric, value in values.items() if metric.startswith("iou:")]
    assert values["miou"] == pytest.approx(np.mean(classes), abs=1e-3)


def test_models_at_hand_are_those_that_need_no_training(done, tmp_path):
    folder, _ = done
    scale = TinyScale(tmp_path)
    columns = {"frozen": ("baseline", None), "+ pixel": ("pixel", None), "units": ("pixel", 36)}
    there = models_at_hand("granularity", columns, scale, 0, folder / "work")
    assert list(there) == list(columns)
    model, unit, options = there["units"]
    assert model.decoder is not None and model.config == scale.segment()
    assert (unit, options) == (36, scale.background(model))
    assert there["frozen"][0].decoder is None
    assert there["frozen"][0].backbone.last_block == "attention"
    assert list(models_at_hand("granularity", columns, scale, 0, tmp_path)) == ["frozen"]


@pytest.fixture
def page_of(done, tmp_path, monkeypatch):
    """Opens granularity as a notebook in a folder of a project does, less the decoders named."""
    matplotlib = pytest.importorskip("matplotlib")
    display = pytest.importorskip("IPython.display")
    shown = []
    monkeypatch.setattr(display, "display", lambda data, **_: shown.append(data))
    scale = copy(done, tmp_path)
    shutil.move(tmp_path / "results", tmp_path / "moved")
    shutil.move(tmp_path / "moved", tmp_path / "results" / "tiny")
    shutil.move(tmp_path / "work", tmp_path / "_build" / "tiny")
    for name in ("notebooks", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("MGCA_PROJECT", str(tmp_path))
    for name in ("FRESH", "MGCA_DATA"):
        monkeypatch.delenv(name, raising=False)
    asked = []
    monkeypatch.setattr(
        "mgca.experiments.report.page.load_scale",
        lambda *names, **options: asked.append(options) or scale,
    )

    def page(seeds, without: str = "", **options):
        if without:
            (variant,) = (v for v in grid("granularity", scale) if v.name == without)
            shutil.rmtree(tmp_path / "_build" / "tiny" / variant.run(scale, 1))
        return ablation_page.open_ablation("granularity", "tiny", seeds, **options)

    with matplotlib.rc_context():
        yield SimpleNamespace(open=page, shown=shown, asked=asked, scale=scale)
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("seeds", [[1], "[1]", 1, "1"])
def test_a_page_reads_what_was_measured(page_of, done, tmp_path, seeds):
    page_of.scale.notes()
    page = page_of.open(seeds, data="there", jobs=1)
    assert page_of.scale.notes() == []  # Nothing was prepared, no backbone was made.
    assert page_of.asked == [{"data": tmp_path / "there", "config": None}]
    assert (page.seeds, page.file) == ((1,), "tiny/granularity.csv")
    assert (page.results, page.work) == (tmp_path / "results/tiny", tmp_path / "_build/tiny")
    assert set(page.table["seed"]) == {1}
    assert len(page.table) == sum(done[1]["seed"] == 1)
    page.show_runs()
    runs = page_of.shown[0]
    for variant in grid("granularity", page_of.scale):
        assert variant.run(page_of.scale, 1) in runs["text/html"]
    page_of.open(seeds)
    assert page_of.asked[1] == {"data": None, "config": None}


def test_a_page_says_which_pictures_are_left_out(page_of):
    page = page_of.open([1], without="pixel")
    columns = {"frozen": ("baseline", None), "+ pixel": ("pixel", None), "all": ("all", 36)}
    page.show_pictures(columns, "What it says.")
    figure, *_, absent = page_of.shown
    assert set(figure) & {"image/png", "image/svg+xml"}
    assert "Left out, because their decoders are not at hand: + pixel. To train" in absent.data
    assert "mgca experiment run granularity --scale tiny --seeds 1 --fresh" in absent.data


def test_a_page_without_its_images_says_so(page_of, tmp_path):
    page = page_of.open([1])
    (tmp_path / "things-0.png").unlink()
    page.show_pictures({"frozen": ("baseline", None)}, "What it says.")
    (text,) = page_of.shown
    assert text.data.startswith("No pictures: ") and "things-0.png" in text.data


def test_reading_a_table(done):
    folder, table = done
    groups = group_means(table, TinyScale.groups)
    miou = table[(table["metric"] == "miou") & (table["unit"] == "pixel")]
    values = miou.set_index(["variant", "dataset", "seed"])["value"].unstack()
    both = values.loc["all"].mean()
    gain = difference(groups, ("all", "pixel"), ("baseline", "pixel"), "both")
    expected = both - values.loc["baseline"].mean()
    assert gain.mean == pytest.approx(expected.mean()) and gain.std == pytest.approx(expected.std())
    assert str(gain) == f"{gain.mean:+.2f} ± {gain.std:.2f}" and gain.seeds == 2
    shown = mean_and_std(groups)
    assert shown.loc[("all", "pixel"), "both"] == f"{both.mean():.1f} ± {both.std():.1f}"
    assert list(shown.columns) == ["with background", "both"]
    lines = with_group_means(table, TinyScale.groups)
    assert list(mean_and_std(lines).columns) == ["things", "stuff", "both"]
    assert with_group_means(table, {"with background": ("things",)}) is table
    with pytest.raises(KeyError):
        difference(groups, ("all", "pixel"), ("none", "pixel"), "both")
    runs = provenance_table(table, folder / "results")
    assert len(runs) == 14 and (runs["seconds"] >= 0).all()


def test_runs_count_their_images_one_by_one(done):
    folder, table = done
    scale = TinyScale(folder)
    for variant in grid("granularity", scale)[:2]:
        run = variant.run(scale, 0)
        rows = table[(table["run"] == run) & (table["metric"] == "miou")]
        with np.load(folder / "work" / run / IMAGES) as kept:
            for row in rows.itertuples():
                counts = kept[f"{row.dataset}/{row.unit}/confusion"]
                assert len(counts) == 2  # images
                found = Confusion(counts.shape[1])
                found.counts += counts.sum(axis=0)
                assert found.miou == pytest.approx(row.value, abs=5e-4)


def test_pictures_have_a_row_for_each_model(done):
    scale = TinyScale(done[0])
    model = Model(scale.backbone(0), None, scale.segment())
    options = scale.background(model)
    models = {"one": (model, None, options), "two": (model, 16, options)}
    figure = pictures(scale.sets()[0], models, (1,))
    titles = [axis.get_ylabel() for axis in figure.axes[:-1]]  # the last one is the legend's
    assert titles == ["image", "mask", "one", "two"]


def test_times_stay_in_the_table_whatever_is_computed_later(scale, tmp_path):
    scale.prepare({})
    out = folders(tmp_path)["out"]
    rows = seconds_per_image(scale, out, images=1, units=(None, 16), cores=1)
    methods = [variant.name for variant in grid("benchmarks", scale)]
    assert {(r["variant"], r["dataset"], r["unit"]) for r in rows} == {
        (name, data, unit)
        for name in methods
        for data in scale.datasets
        for unit in ("pixel", "16")
    }
    assert all(row["value"] > 0 for row in rows)
    assert read_run(out, rows[0]["run"])["config"]["timing"] == 1
    run_ablation("benchmarks", scale, [0], **folders(tmp_path))
    table = read_results(out / "benchmarks.csv")
    assert len(table[table["metric"] == "seconds_per_image"]) == len(rows)
    assert list(table["variant"].unique()) == methods
    tcl = table[(table["variant"] == "tcl") & (table["metric"] == "miou_sigmoid")]
    assert set(tcl["dataset"]) == {"things"} and set(tcl["unit"]) == {"pixel", "36"}
    elsewhere = tmp_path / "elsewhere"
    seconds_per_image(scale, elsewhere, published=out, images=1, units=(None,), cores=1)
    assert list(read_results(elsewhere / "benchmarks.csv")["variant"].unique()) == methods
    again = seconds_per_image(scale, out, images=1, units=(None,), cores=1)
    table = read_results(out / "benchmarks.csv")
    assert len(table[table["metric"] == "seconds_per_image"]) == len(again)


# What is published, and the code behind it


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def published(done, tmp_path):
    """A clone with published results, and where an experiment in it reads and writes."""
    scale = copy(done, tmp_path)
    (tmp_path / "results").rename(tmp_path / "published")
    (tmp_path / "results").mkdir()
    (tmp_path / "published").rename(tmp_path / "results" / "tiny")
    where = runner.folders("tiny", project=tmp_path)
    assert where["out"] == tmp_path / "_build" / "experiments" / "tiny"
    return SimpleNamespace(scale=scale, results=tmp_path / "results" / "tiny", where=where)


def test_what_is_published_counts_as_computed(published, done):
    before = contents(published.results)
    table = run_ablation("granularity", published.scale, [0, 1], **published.where)
    pd.testing.assert_frame_equal(table, done[1])
    assert published.scale.notes() == [] and not published.where["out"].exists()
    (variant,) = (v for v in grid("granularity", published.scale) if v.name == "pixel")
    lost = published.results / "runs" / f"{variant.run(published.scale, 1)}.json"
    lost.unlink()
    table = run_ablation("granularity", published.scale, [0, 1], **published.where)
    pd.testing.assert_frame_equal(table, done[1])
    assert contents(published.results) == {p: b for p, b in before.items() if p != lost}
    assert [p.name for p in (published.where["out"] / "runs").iterdir()] == [lost.name]
    published.scale.notes()
    run_ablation("granularity", published.scale, [0, 1], **published.where)
    assert published.scale.notes() == []


def test_fresh_leaves_what_is_published_as_it_was(published, done, tmp_path):
    before, decoders = contents(published.results), contents(tmp_path / "work")
    where = runner.folders("tiny", fresh=True, project=tmp_path)
    table = run_ablation("granularity", published.scale, [0], fresh=True, **where)
    assert len(published.scale.notes()) == 1 + 1 + 7
    assert contents(published.results) == before and contents(tmp_path / "work") == decoders
    assert set(table["seed"]) == {0} and len(list((where["out"] / "runs").iterdir())) == 7
    # The pictures of the book take what lies under the names of published runs.
    assert where["work"] != published.where["work"]


def test_publishing_writes_into_the_results_of_a_clone(published, tmp_path):
    where = runner.folders("tiny", publish=True, project=tmp_path)
    assert where == {"out": published.results, "work": tmp_path / "_build" / "tiny"}
    with pytest.raises(FileNotFoundError, match="no folder .*results to publish in"):
        runner.folders("tiny", publish=True, project=tmp_path / "elsewhere")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A package under git, the code of the method in it, and whoever uses it runs a table."""
    package = tmp_path / "source" / "mgca"
    for name in ("losses/levels.py", "training/step.py", "decoder.py", "units.py", "model.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("one = 1\n")
    monkeypatch.setattr(changes, "PACKAGE", package)

    def git(*words: str) -> str:
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        words = ("git", "-C", str(package), *names, *words)
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    return SimpleNamespace(package=package, git=git)


def test_a_changed_loss_is_told_where_published_runs_are_read(published, source, caplog):
    def said() -> str:
        caplog.clear()
        run_ablation("granularity", published.scale, [0, 1], **published.where)
        return caplog.text

    levels = source.package / "losses" / "levels.py"
    assert said() == ""  # no git here
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        source.git(*words)
    (source.package / "model.py").write_text("two = 2\n")
    assert said() == ""  # nothing that training depends on
    levels.write_text("two = 2\n")
    record = read_run(
        published.results, read_results(published.results / "granularity.csv")["run"][0]
    )
    assert (
        f"14 runs are of commit {record['commit'][:12]}, without the changes in losses/levels.py; "
        "--fresh computes them again"
    ) in said()
    source.git("commit", "-qam", "two")
    assert said() == ""
    # A clone knows what its origin has.
    source.git("update-ref", "refs/remotes/origin/HEAD", "HEAD~")
    assert "14 runs are" in said() and "losses/levels.py" in said()


def test_a_run_by_the_changed_code_is_not_warned_of(published, source, caplog, tmp_path):
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        source.git(*words)
    (source.package / "decoder.py").write_text("two = 2\n")
    where = published.where | {"published": None}
    run_ablation("meta_points", published.scale, [0], **where)
    assert caplog.text == ""
    run_ablation("meta_points", published.scale, [0], **where)
    assert caplog.text == "" and published.scale.notes().count("prepared") == 1
    (source.package / "decoder.py").write_text("three = 3\n")
    run_ablation("meta_points", published.scale, [0], **where)
    assert "1 run is of commit" in caplog.text and "computes it again" in caplog.text


def test_two_at_once_do_not_compute_a_run_twice(tmp_path, monkeypatch):
    """A second call starts when the first has begun, and finds the run when that has ended."""
    scale, began, go_on = TinyScale(tmp_path), threading.Event(), threading.Event()
    compute, computed = runner._compute, []

    def slow(*arguments):
        computed.append(arguments)
        began.set()
        assert go_on.wait(60)
        return compute(*arguments)

    monkeypatch.setattr(runner, "_compute", slow)
    monkeypatch.setattr("mgca.utils.files._PATIENCE", 0.1)
    monkeypatch.setattr("mgca.utils.files.log.info", lambda *_: go_on.set())  # the second one waits
    tables = {}

    def call(number: int) -> None:
        tables[number] = run_ablation("meta_points", scale, [0], **folders(tmp_path))

    first, second = (threading.Thread(target=call, args=(n,)) for n in (1, 2))
    first.start()
    assert began.wait(60)
    second.start()
    for thread in (first, second):
        thread.join(120)
    assert len(computed) == 1
    pd.testing.assert_frame_equal(tables[1], tables[2])


def test_what_another_computes_is_left_to_the_end(tmp_path, monkeypatch):
    scale, order, compute = TinyScale(tmp_path), [], runner._compute

    def noted(task, *arguments):
        order.append(task.variant.name)
        return compute(task, *arguments)

    monkeypatch.setattr(runner, "_compute", noted)
    monkeypatch.setattr("mgca.utils.files._PATIENCE", 0.1)
    where, (first, *others) = folders(tmp_path), grid("granularity", scale)
    with ExitStack() as other:
        other.enter_context(alone_in(Path(where["work"]) / ".alone" / first.run(scale, 0)))
        # Only once nothing else is left is it waited for: then the other one ends.
        monkeypatch.setattr("mgca.utils.files.log.info", lambda *_: other.close())
        table = run_ablation("granularity", scale, [0], **where)
    assert order == [*(variant.name for variant in others), first.name]
    assert set(table["variant"]) == set(order)


class Growing(TinyScale):
    """A scale of which a set is not at hand at first."""

    at_hand: tuple[str, ...] = ("things",)

    def present(self, names):
        return tuple(name for name in names if name in self.at_hand)


def test_a_set_that_comes_later_trains_nothing_again(tmp_path):
    scale = Growing(tmp_path)
    first = run_ablation("meta_points", scale, [0], **folders(tmp_path))
    assert set(first["dataset"]) == {"things"}
    (decoder,) = (tmp_path / "work").glob("*/decoder.safetensors")
    written = decoder.stat().st_mtime_ns
    scale.at_hand = scale.datasets
    both = run_ablation("meta_points", scale, [0], **folders(tmp_path))
    assert set(both["dataset"]) == {"things", "stuff"} and set(both["run"]) == set(first["run"])
    assert decoder.stat().st_mtime_ns == written
    of_things = both[both["dataset"] == "things"].reset_index(drop=True)
    assert of_things.equals(first.reset_index(drop=True))
