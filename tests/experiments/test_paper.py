"""The paper's scale from a file: what names a run, what is refused before it starts, the plan, and
the tables. ``make rehearse`` runs all of it."""

import dataclasses
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pandas as pd
import pytest
from test_benchmarks import lay_out, mask_path
from trains import noise_shards

from mgca.config import SegmentConfig, TrainConfig
from mgca.data.shards import ShardError
from mgca.evaluation.conventions import TCL_PROTOCOL
from mgca.evaluation.results import row
from mgca.experiments import load_scale, paper
from mgca.experiments.grid import grid
from mgca.experiments.paper import PaperScale
from mgca.experiments.paper_file import (
    PRESETS,
    Background,
    PaperFile,
    made_of,
    read_paper_file,
    table_of,
)
from mgca.experiments.paper_run import last_error
from mgca.experiments.paper_tables import beside_the_papers, papers_own
from mgca.experiments.plan import Plan, PlannedRun, PlannedSet, make_plan
from mgca.experiments.scale import NotRun
from mgca.training import estimate
from mgca.training.estimate import Estimate, Probe

EXAMPLE = Path(paper.__file__).with_name("paper.toml")
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 64,
        "layers": 1,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
FILE = """\
preset = "rehearsal"
{more}
[encoder]
name = "{model}"
model_config = "{model}.json"
random_weights = true
[shards]
source = "tars"
[background]
{background}
[train]
batch_size = {batch}
[stream]
lanes = 4
size = 64
[resources]
accelerator = "{accelerator}"
workers = 0
[benchmarks]
{benchmarks}
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    """A tiny model, shards of noise and a benchmark of three images."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "tiny-vit.json").write_text(json.dumps(MODEL))
    noise_shards(folder)
    lay_out("voc", folder / "voc")
    return folder


@pytest.fixture
def here(material, tmp_path, monkeypatch) -> Path:
    """The same, to be changed."""
    shutil.copytree(material, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paper, "_encoders", {})
    return tmp_path


def scale_of(folder: Path, **changes) -> PaperScale:
    values = {
        "more": "",
        "model": "tiny-vit",
        "background": "threshold = 0.5\ntemperature = 0.1",
        "batch": 8,
        "accelerator": "cpu",
        "benchmarks": 'voc = "voc"',
    }
    path = folder / "my.toml"
    path.write_text(FILE.format_map(values | changes))
    scale = load_scale("paper", config=path)
    assert isinstance(scale, PaperScale)
    return scale


def test_the_example_is_the_paper_s_and_says_what_the_defaults_are(tmp_path):
    path = shutil.copyfile(EXAMPLE, tmp_path / "my.toml")
    read, plain = read_paper_file(path), PaperFile()
    assert read.training() == TrainConfig() and read.note == ""
    places = ("results", "work", "shards", "benchmarks", "background")
    assert dataclasses.replace(read, **{p: getattr(plain, p) for p in places}) == plain
    assert read.segment == SegmentConfig(**TCL_PROTOCOL)
    assert read.results == str(tmp_path / "paper/results")
    assert set(read.benchmarks) == set(PaperScale.datasets)


@pytest.mark.parametrize("positions", ["plain", "antialiased"])
def test_processes_are_told_how_to_segment(positions):
    segment = SegmentConfig(**TCL_PROTOCOL | {"positions": positions})
    file = PaperFile(segment=segment)
    assert made_of(json.loads(json.dumps(table_of(file)))) == file


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("[train]\nsteps = 5", "train.steps is not given here: the preset says"),
        ("[train]\nbackbone = 'x'", "it is encoder.name"),
        ("[train]\nbatch = 5", "no value train.batch: known are"),
        ("preset = 'week'", "preset is one of full, day, hour, rehearsal"),
        ("preset = 'rehearsal'", "is for encoder.random_weights = true"),
        ("devices = 3", "3 devices do not share a batch of 1024 evenly"),
        ("[benchmarks]\nvoc12 = '/x'", "no benchmark 'voc12', only voc, context"),
        ("[jobs]\nexecutor = 'pbs'", "executor is"),
        ("[evaluation]\nprecision = 'int8'", "precision is one of"),
        ("x = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path, wrong, message):
    path = tmp_path / "my.toml"
    before, bar, table = wrong.partition("[")
    rest = "[shards]\nsource = 'cc3m'\n[background]\nthreshold = 0.5\ntemperature = 0.1\n"
    path.write_text(f"{before}\n{rest}{bar}{table}\n")
    with pytest.raises(ValueError, match=rf"my\.toml.*{message.replace('[', '.')}"):
        read_paper_file(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[shards]\nsource = 'cc3m'\n", r"lacks \[background\]"),
        ("[background]\nthreshold = 0.5\ntemperature = 1\n", "lacks shards.source"),
        ("[shards]\nsource = 'a'\n[background]\nthreshold = 0.5\n", "give threshold and temp"),
    ],
)
def test_what_has_to_be_given(tmp_path, text, message):
    (tmp_path / "my.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_paper_file(tmp_path / "my.toml")
    with pytest.raises(FileNotFoundError, match=r"copy .*paper\.toml"):
        read_paper_file(tmp_path / "other.toml")
    with pytest.raises(NotRun, match="--config FILE"):
        load_scale("paper")
    with pytest.raises(ValueError, match="for the scale paper, not for scenes"):
        load_scale("scenes", config=tmp_path / "my.toml")


def test_every_preset_but_the_paper_s_own_is_named():
    assert [name for name, preset in PRESETS.items() if not preset.said] == ["full"]
    assert all(name in preset.said for name, preset in PRESETS.items() if preset.said)


def names(scale: PaperScale, seed: int = 0) -> dict[str, tuple[str, str]]:
    """Name and folder of each run of Table 3."""
    return {
        variant.name: (variant.run(scale, seed), scale.run_folder(Path(), variant, seed).name)
        for variant in grid("granularity", scale)
    }


def test_what_names_a_run_and_what_names_its_decoder(here):
    before = names(scale_of(here))
    assert len(set(before.values())) == len(before)
    same = {
        "more": "devices = 2\nresults = 'elsewhere'",
        "benchmarks": 'voc = "voc"\nade = "ade"',
    }
    assert names(scale_of(here, **same)) == before
    # Another threshold is another number of the same decoder.
    other = names(scale_of(here, background="threshold = 0.4\ntemperature = 0.1"))
    assert {name: folder for name, (_, folder) in other.items()} == {
        name: folder for name, (_, folder) in before.items()
    }
    assert not {run for run, _ in other.values()} & {run for run, _ in before.values()}
    # Another batch or seed is another decoder; what is frozen stays where it is.
    for changed in (names(scale_of(here, batch=16)), names(scale_of(here), seed=1)):
        assert changed["all"][1] != before["all"][1]
        assert changed["baseline"][1] == before["baseline"][1]


def test_a_set_that_is_missing_is_not_waited_for(here):
    scale = scale_of(here)
    assert scale.present(scale.datasets) == ("voc",)
    assert [data.name for data in scale.sets()] == ["voc"]


BLOCKS = {"value": True}


def test_all_is_looked_at_before_hours_are_spent(here):
    scale_of(here).prepare(BLOCKS)


def test_a_benchmark_with_a_missing_file(here):
    mask_path("voc", here / "voc", "2008_000002").unlink()
    with pytest.raises(ValueError, match=r"voc in .*missing mask: .*2008_000002.*leave voc out"):
        scale_of(here).prepare(BLOCKS)


def test_a_shard_that_ends_early_and_shards_that_were_exchanged(here):
    shard = here / "tars" / "00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ShardError, match=r"00001\.tar.*truncated"):
        scale_of(here).prepare(BLOCKS)
    shard.write_bytes(whole)
    scale_of(here).prepare(BLOCKS)
    for path in (here / "tars").glob("00001*"):
        path.unlink()
    with pytest.raises(ShardError, match="not the shards that runs in .* were trained on"):
        scale_of(here).prepare(BLOCKS)
    # What was measured can be read all the same.
    assert names(scale_of(here))["all"]


def test_an_encoder_that_does_not_load(here):
    (here / "no-vit.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no-vit\.json describes no open_clip model"):
        scale_of(here, model="no-vit").prepare(BLOCKS)
    with pytest.raises(FileNotFoundError, match=r"no file .*other-vit\.json"):
        scale_of(here, model="other-vit").prepare(BLOCKS)


def test_a_wrong_tag():
    file = PaperFile(encoder=dataclasses.replace(PaperFile().encoder, pretrained="openay"))
    with pytest.raises(ValueError, match=r"encoder: .*no weights 'openay', only openai"):
        PaperScale(file).backbone(0)


def test_a_full_disk(here, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(ValueError, match=r"GiB are free: .*another disk"):
        scale_of(here).prepare(BLOCKS)


def test_images_for_the_threshold_are_no_benchmark_s(here):
    split = "VOCdevkit/VOC2012/ImageSets/Segmentation/"
    background = f"split = '{split}val.txt'"
    with pytest.raises(ValueError, match="2008_000001 of .* is an image of the benchmark"):
        scale_of(here, background=background).prepare(BLOCKS)
    with pytest.raises(FileNotFoundError, match=r"no list .*train\.txt"):
        scale_of(here, background=f"split = '{split}train.txt'").prepare(BLOCKS)
    with pytest.raises(ValueError, match="give threshold and temperature, or a split"):
        Background(threshold=0.5, temperature=0.1, split="val.txt")


def test_the_plan_names_what_is_missing_and_what_gets_it(here):
    shutil.rmtree(here / "tars")
    scale = scale_of(here, benchmarks='voc = "voc"\ncity = "nowhere"')
    plan = make_plan(["granularity"], scale, [0], probe=False)
    needed = [each for each in plan.missing if each.needed]
    assert [each.what.split(":")[0] for each in needed] == ["shards", "city (Cityscapes)"]
    assert "hf download" in needed[0].command and "mgca data prepare city" in needed[1].command
    assert len(plan.missing) == 2 + 6 and len(plan.runs) == 7
    assert {run.state for run in plan.runs} == {"to do"} and plan.training_hours is None
    assert "missing     ade: not named under [benchmarks]" in str(plan)
    assert json.loads(json.dumps(plan.to_dict()))["to_train"] == 5


def test_hours_of_a_plan_are_its_steps_and_images():
    runs = [
        PlannedRun("granularity", "baseline", 0, "a", 0, 2, "to do"),
        PlannedRun("granularity", "object", 0, "b", 1000, 2, "step 400"),
        PlannedRun("granularity", "pixel", 0, "c", 1000, 2, "trained"),
        PlannedRun("granularity", "all", 0, "d", 1000, 8, "measured"),
    ]
    sets = (PlannedSet("voc", "complete", 1449, embedding=0.5, unit=0.25), PlannedSet("ade", "x"))
    training = Estimate(
        trained=10**6, frozen=0, samples=1, epoch_steps=1, steps=1000, batch=8, processes=2,
        flops=1.0, memory={}, available=1, disk=5 * 10**7, free=1, ceiling=1.0,
        probe=Probe(2, 1.0, 1, 1.0, step_seconds=3.0),
    )  # fmt: skip
    plan = Plan("day", "", 2, "here", tuple(runs), sets, training, "results", ())
    assert plan.training_hours == pytest.approx(3.0 * 600 / 3600)
    assert plan.measuring_hours == pytest.approx(3 * 1449 * (0.5 + 2 * 0.25) / 3600 / 2)
    assert plan.disk == 5 * 10**7 and len(plan.to_measure) == 3


def rows(variant: str, unit: str, value: float, sets=PaperScale.datasets) -> list[dict]:
    return [
        row(variant, name, unit, seed, "miou", value + place + 2 * seed, "run")
        for place, name in enumerate(sets)
        for seed in (0, 1)
    ]


def test_tables_have_the_paper_s_rows_then_ours():
    scale = PaperScale(PaperFile(preset="hour"))
    lines = rows("clip", "pixel", 10) + rows("clip", "36", 0) + rows("mgca", "36", 30)
    table = beside_the_papers(1, scale, pd.DataFrame(lines), papers_own(1))
    assert table["method"].tolist()[-3:] == ["MGCA", "CLIP", "MGCA, 36 units"]
    assert table["source"].tolist()[-2:] == 2 * [f"here, {PRESETS['hour'].said}"]
    assert (table["source"] == "the paper").sum() == 12
    # Positions 0, 1 and 2, and the second seed 2 points above the first.
    last = table.iloc[-1]
    assert last[["voc", "context", "coco", "avg"]].tolist() == [31, 32, 33, 32]
    assert (last["seeds"], last["std"]) == (2, 1.41)
    units = pd.DataFrame(rows("all", "pixel", 1) + rows("all", "16", 2, ["voc", "context"]))
    fourth = beside_the_papers(4, scale, units)
    assert fourth["meta_points"].tolist() == [3136, 16]
    # A mean over a part of the sets would pass for one over all.
    assert fourth["avg_with_bg"].isna().tolist() == [False, True]
    levels = pd.DataFrame(rows("object+region", "pixel", 1) + rows("all", "pixel", 2))
    third = beside_the_papers(3, scale, levels)
    assert third[["object", "region", "pixel"]].to_numpy().tolist() == [[1, 1, 0], [1, 1, 1]]


def test_the_error_of_several_processes_is_found_in_what_they_print(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text(
        "[rank1]: Traceback (most recent call last):\n"
        "[rank1]: mgca.data.shards.index.ShardError: 00001.tar is truncated\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    )
    assert last_error(log) == "mgca.data.shards.index.ShardError: 00001.tar is truncated"
    log.write_text("W0101 Sending process 12 closing signal SIGTERM\n")
    assert last_error(log) == "a process was killed, perhaps for lack of memory"
