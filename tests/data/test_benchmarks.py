"""The eight benchmarks: their facts, what mmsegmentation reads, and the check of a folder."""

import dataclasses
import hashlib
import json
import logging
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgca.config import SegmentConfig
from mgca.data.benchmarks import (
    Benchmark,
    benchmark_names,
    classes,
    converters,
    dataset_config,
    load_benchmark,
    read_benchmark,
)
from mgca.data.benchmarks import check as check_module
from mgca.data.benchmarks.check import check
from mgca.data.benchmarks.stamps import STAMPS
from mgca.data.masks import DataError

NAMES = ["voc", "context", "coco", "voc20", "c59", "stuff", "city", "ade"]
# The protocol's table: split, images, classes, background.
TABLE = {
    "voc": ("val", 1449, 21, True),
    "context": ("val", 5104, 60, True),
    "coco": ("val2017", 5000, 81, True),
    "voc20": ("val", 1449, 20, False),
    "c59": ("val", 5104, 59, False),
    "stuff": ("val2017", 5000, 171, False),
    "city": ("val", 500, 19, False),
    "ade": ("validation", 2000, 150, False),
}
IDENTIFIERS = {
    "city": ["ulm/ulm_000000_000001", "ulm/ulm_000000_000002", "bonn/bonn_000001_000003"]
}
SIZE = (6, 8)  # (H, W)


def lay_out(name: str, root: Path, *, masks: bool = True) -> list[str]:
    """A benchmark of three images in its official layout; returns the identifiers, sorted.

    Each mask holds 0, 1, the largest id of the benchmark, and 255 where that may be.
    """
    benchmark = load_benchmark(name)
    layout = benchmark.layout
    identifiers = sorted(IDENTIFIERS.get(name, ["2008_000001", "2008_000002", "2008_000003"]))
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    for identifier in identifiers:
        image = root / layout.images / f"{identifier}{layout.image_suffix}"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(image)
        if masks:
            save_mask(name, root, identifier, example_ids(name))
    if layout.split_file and masks:
        split = root / layout.split_file
        split.parent.mkdir(parents=True, exist_ok=True)
        split.write_text("".join(f"{identifier}\n" for identifier in identifiers))
    return identifiers


def mask_path(name: str, root: Path, identifier: str) -> Path:
    layout = load_benchmark(name).layout
    return root / layout.masks / f"{identifier}{layout.mask_suffix}"


def image_path(name: str, root: Path, identifier: str) -> Path:
    layout = load_benchmark(name).layout
    return root / layout.images / f"{identifier}{layout.image_suffix}"


def save_mask(name: str, root: Path, identifier: str, ids: np.ndarray | Image.Image) -> Path:
    path = mask_path(name, root, identifier)
    path.parent.mkdir(parents=True, exist_ok=True)
    (ids if isinstance(ids, Image.Image) else Image.fromarray(ids)).save(path)
    return path


def example_ids(name: str) -> np.ndarray:
    ids = np.zeros(SIZE, dtype=np.uint8)
    ids[0] = 1
    ids[1] = load_benchmark(name).last_id
    if load_benchmark(name).unlabelled:
        ids[2] = 255
    return ids


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


# Facts


def test_names():
    assert benchmark_names() == NAMES
    files = resources.files("mgca.data.benchmarks").iterdir()
    assert sorted(f.name for f in files if f.name.endswith(".toml")) == sorted(
        f"{name}.toml" for name in NAMES
    )
    with pytest.raises(ValueError, match="unknown benchmark 'pascal', only voc, context, coco, "):
        load_benchmark("pascal")


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_those_of_the_protocol(name):
    benchmark = load_benchmark(name)
    facts = (benchmark.split, benchmark.image_count, benchmark.class_count, benchmark.background)
    assert facts == TABLE[name]
    protocol = benchmark.protocol
    ours = SegmentConfig()
    for field in ("window", "stride", "short_side", "long_side"):
        assert getattr(protocol, field) == getattr(ours, field)
    assert protocol.statistics == "backbone"
    # Nobody has chosen them yet, on data that is not the benchmark.
    assert protocol.threshold is None and protocol.temperature is None
    published = {"voc": (0.95, 0.5), "context": (0.35, 0.5), "coco": (0.95, 0.5)}
    found = (protocol.groupvit_threshold, protocol.tcl_threshold)
    assert found == published.get(name, (None, None))
    assert all(archive.url.startswith("http") for archive in benchmark.source.archives)
    hashes = [archive.md5 for archive in benchmark.source.archives if archive.md5]
    assert all(len(md5) == 32 and int(md5, 16) for md5 in hashes)


def test_read_benchmark_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_benchmark("voc").class_count = 20


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("class_count = 21", "", "class_count is missing"),
        ("class_count = 21", 'class_count = "21"', "class_count must be int, not '21'"),
        ("class_count = 21", "class_count = true", "class_count must be int, not True"),
        ("class_count = 21", "class_count = 0", "class_count must be positive"),
        ("class_count = 21", "class_count = 256", "ids above 254"),
        ("background = true", "background = 1", "background must be bool, not 1"),
        ("background = true", "background = false", "this benchmark does not have"),
        ("ignore_zero = false", "ignore_zero = true", "a background that is ignored"),
        ('split = "val"', 'split = "val"\nsplitt = "x"', "no value splitt: known are background"),
        ('split = "val"', 'split = "val"\nconversion = "x"', "conversion must be one of context"),
        ("stride = 224", "stride = 500", "stride must be positive and not exceed window"),
        ("stride = 224", "stride = 0", "stride must be positive and not exceed window"),
        ("short_side = 448", "short_side = 4480", "short_side must be positive"),
        ("window = 448", "window = 448.0", "protocol.window must be int, not 448.0"),
        ("common_ids = [0, 0]", "common_ids = [0, 21]", "common_ids must be the first and the"),
        ("common_ids = [0, 0]", "common_ids = [0]", "common_ids must be the first and the"),
        ("common_ids = [0, 0]", "common_ids = 0", "common_ids must be a list"),
        ("unlabelled = true\n", "", "unlabelled is missing"),
        ("window = 448", "window = 448\nthreshold = 1.5", r"threshold .* in \[0, 1\]"),
        ("window = 448", "window = 448\ntemperature = 0.0", "temperature must be positive"),
        ('statistics = "backbone"', 'statistics = "clip"', "statistics must be"),
        ('prompts = "class templates"', 'prompts = "80"', "prompts must be"),
        ('name = "VOCtrainval_11-May-2012.tar"', "", r"source.archives\[0\].name is missing"),
        ("[[source.archives]]", "[source.archives]", "source.archives must be a list"),
        ("[layout]", "[layout", "voc.toml: "),
    ],
)
def test_wrong_files_are_refused(tmp_path, old, new, reason):
    text = (resources.files("mgca.data.benchmarks") / "voc.toml").read_text()
    assert text.count(old) == 1
    (tmp_path / "voc.toml").write_text(text)
    assert read_benchmark(tmp_path / "voc.toml") == load_benchmark("voc")
    (tmp_path / "voc.toml").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"voc.toml.*{reason}|{reason}"):
        read_benchmark(tmp_path / "voc.toml")


# mmsegmentation


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_mmsegmentations_without_background(name):
    from mmseg.registry import DATASETS

    benchmark = load_benchmark(name)
    queries = classes(benchmark)
    names = DATASETS.get(benchmark.dataset).METAINFO["classes"]
    assert len(names) == benchmark.class_count
    assert len(DATASETS.get(benchmark.dataset).METAINFO["palette"]) == benchmark.class_count
    assert "background" not in queries
    assert queries == list(names[1:] if benchmark.background else names)
    assert len(queries) == benchmark.class_count - benchmark.background


def test_classes_that_mmsegmentation_lacks():
    assert classes(load_benchmark("voc20")) == classes(load_benchmark("voc"))
    assert classes(load_benchmark("c59")) == classes(load_benchmark("context"))
    assert classes(load_benchmark("coco")) == classes(load_benchmark("stuff"))[:80]
    assert classes(load_benchmark("coco"))[79] == "toothbrush"
    assert "diningtable" in classes(load_benchmark("voc"))


def test_another_mmsegmentation_is_noticed():
    fewer = dataclasses.replace(load_benchmark("city"), class_count=18)
    with pytest.raises(ValueError, match="has 19 classes, the first 'road', which are not"):
        classes(fewer)
    with pytest.raises(ValueError, match="no data set Nowhere"):
        classes(dataclasses.replace(fewer, dataset="Nowhere"))


@pytest.mark.parametrize("name", NAMES)
def test_mmsegmentation_reads_the_layout(tmp_path, name):
    from mmseg.registry import DATASETS

    identifiers = lay_out(name, tmp_path)
    benchmark = load_benchmark(name)
    data = DATASETS.build(dataset_config(benchmark, tmp_path))
    assert len(data) == len(identifiers)
    assert data.metainfo["classes"][-1] == classes(benchmark)[-1]
    for identifier, sample in zip(identifiers, data, strict=True):
        assert sample["inputs"].shape == (3, *SIZE)
        assert sample["data_samples"].seg_map_path == str(mask_path(name, tmp_path, identifier))
        ids = sample["data_samples"].gt_sem_seg.data.numpy()[0]
        last = benchmark.class_count - 1
        expected = [255, 0, last, 255] if benchmark.ignore_zero else [0, 1, last, 0]
        expected[3] = 255 if benchmark.unlabelled else expected[3]
        assert ids[[3, 0, 1, 2], 0].tolist() == expected


# The check


@pytest.mark.parametrize("name", NAMES)
def test_check_of_sound_sets(tmp_path, name):
    lay_out(name, tmp_path)
    report = check(load_benchmark(name), tmp_path)
    assert report.ok and report.subset
    assert (report.found, report.checked, report.expected) == (3, 3, TABLE[name][1])
    assert f"a subset: 3 of {TABLE[name][1]} images; scores on it are not" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True


def small(name: str, images: int = 3) -> Benchmark:
    return dataclasses.replace(load_benchmark(name), image_count=images)


def test_a_whole_set_is_not_a_subset(tmp_path):
    identifiers = lay_out("ade", tmp_path)
    save_mask("ade", tmp_path, identifiers[1], np.arange(151, dtype=np.uint8).reshape(1, 151))
    Image.new("RGB", (151, 1)).save(image_path("ade", tmp_path, identifiers[1]))
    report = check(small("ade"), tmp_path)
    assert report.ok and not report.subset
    assert "subset" not in str(report)
    report = check(small("ade", 2), tmp_path)
    assert kinds(report) == ["too many images"]
    assert report.problems[0].examples == ("3, expected 2",)


def test_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere; get VOCtrainval_11-May"):
        check(load_benchmark("voc"), tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder .*leftImg8bit/val; get leftImg8bit_tr"):
        check(load_benchmark("city"), tmp_path)


def test_wrong_root_names_the_right_one(tmp_path):
    root = tmp_path / "sets" / "voc"
    lay_out("voc", root)
    for wrong in (tmp_path / "sets", root / "VOCdevkit", root / "VOCdevkit/VOC2012"):
        with pytest.raises(FileNotFoundError, match=f"the right root seems to be {root}$"):
            check(load_benchmark("voc"), wrong)


def test_missing_list(tmp_path):
    lay_out("voc", tmp_path)
    split = tmp_path / load_benchmark("voc").layout.split_file
    split.write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: lists no image"):
        check(load_benchmark("voc"), tmp_path)
    split.write_bytes(b"\xff\xfe2")
    with pytest.raises(DataError, match=r"val\.txt: not a text file"):
        check(load_benchmark("voc"), tmp_path)
    split.unlink()
    with pytest.raises(FileNotFoundError, match=r"no list of images .*val\.txt; get VOCtrainval"):
        check(load_benchmark("voc"), tmp_path)
    lay_out("context", tmp_path, masks=False)
    with pytest.raises(FileNotFoundError, match=r"val\.txt; mgca data prepare context --root "):
        check(load_benchmark("context"), tmp_path)


def test_no_image(tmp_path):
    (tmp_path / "images/validation").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no image \*\.jpg in .*images/validation; get ADE"):
        check(load_benchmark("ade"), tmp_path)


def test_cut_off_and_repeated_list(tmp_path):
    lay_out("voc", tmp_path)
    split = tmp_path / load_benchmark("voc").layout.split_file
    split.write_text("2008_000001\n2008_000002\n2008_0000")
    report = check(load_benchmark("voc"), tmp_path)
    assert kinds(report) == ["missing image", "missing mask"]
    assert report.problems[0].examples == ("VOCdevkit/VOC2012/JPEGImages/2008_0000.jpg",)
    split.write_text("2008_000001\n2008_000001\n")
    assert kinds(check(load_benchmark("voc"), tmp_path)) == ["listed twice"]


@pytest.mark.parametrize("name", ["ade", "city"])
def test_missing_masks_say_what_to_do(tmp_path, name):
    identifiers = lay_out(name, tmp_path)
    for identifier in identifiers[:2]:
        mask_path(name, tmp_path, identifier).unlink()
    report = check(load_benchmark(name), tmp_path)
    (problem,) = report.problems
    assert (problem.kind, problem.count) == ("missing mask", 2)
    relative = mask_path(name, tmp_path, identifiers[0]).relative_to(tmp_path)
    assert problem.examples[0] == str(relative)
    prepared = f"mgca data prepare city --root {tmp_path}"
    assert problem.remedy == prepared if name == "city" else "unpack" in problem.remedy


def test_mask_without_image(tmp_path):
    identifiers = lay_out("stuff", tmp_path)
    image_path("stuff", tmp_path, identifiers[0]).unlink()
    report = check(load_benchmark("stuff"), tmp_path)
    assert kinds(report) == ["mask without image"] and report.found == 2


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "unreadable image"), (b"a letter", "unreadable image"), (-40, "cut off image")],
)
@pytest.mark.parametrize("name", ["ade", "city"])  # JPEG and PNG
def test_damaged_image(tmp_path, name, content, kind):
    identifier = lay_out(name, tmp_path)[1]
    path = image_path(name, tmp_path, identifier)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:content])
    report = check(load_benchmark(name), tmp_path)
    assert kinds(report) == [kind]
    assert report.problems[0].examples[0].startswith(str(path.relative_to(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"a letter", -30])
def test_damaged_mask(tmp_path, content):
    identifier = lay_out("ade", tmp_path)[1]
    path = mask_path("ade", tmp_path, identifier)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:content])
    assert kinds(check(load_benchmark("ade"), tmp_path)) == ["unreadable mask"]


@pytest.mark.parametrize("name", NAMES)
def test_unknown_ids(tmp_path, name):
    identifier = lay_out(name, tmp_path)[2]
    last = load_benchmark(name).last_id
    ids = np.full(SIZE, last, dtype=np.uint8)
    ids[3, 3] = last + 1
    path = save_mask(name, tmp_path, identifier, ids)
    (problem,) = check(load_benchmark(name), tmp_path).problems
    assert problem.kind == "unknown id" and last + 1 != 255
    assert problem.examples == (f"{path.relative_to(tmp_path)}: {last + 1}, expected 0 to {last}",)


def test_modes_of_masks(tmp_path):
    first, second, third = lay_out("ade", tmp_path)
    ids = example_ids("ade")
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette([7, 7, 7] * 256)  # colours that are no ids
    save_mask("ade", tmp_path, first, palette)
    save_mask("ade", tmp_path, second, ids.astype(np.uint16))
    save_mask("ade", tmp_path, third, Image.new("1", SIZE[::-1]))
    assert Image.open(mask_path("ade", tmp_path, first)).mode == "P"
    assert Image.open(mask_path("ade", tmp_path, second)).mode.startswith("I")
    assert check(load_benchmark("ade"), tmp_path).ok
    wide = ids.astype(np.uint16)
    wide[4, 4] = 256  # would be 0 in 8 bits
    save_mask("ade", tmp_path, second, wide)
    assert kinds(check(load_benchmark("ade"), tmp_path)) == ["unknown id"]
    save_mask("ade", tmp_path, second, Image.fromarray(ids).convert("RGB"))
    assert kinds(check(load_benchmark("ade"), tmp_path)) == ["mask of other mode"]


def test_sizes(tmp_path):
    first, second, _ = lay_out("ade", tmp_path)
    save_mask("ade", tmp_path, first, np.zeros((6, 7), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = image_path("ade", tmp_path, second)
    Image.open(path).save(path, exif=exif)
    report = check(load_benchmark("ade"), tmp_path)
    assert kinds(report) == ["other size", "picture on its side"]
    assert report.problems[0].examples[0].endswith("(6, 7), its image (6, 8)")


def test_examples_are_few_and_counted(tmp_path):
    folder = tmp_path / "images/validation"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (2, 2)).save(folder / f"{number}.jpg")
    report = check(load_benchmark("ade"), tmp_path)
    assert report.problems[0].count == 5 and len(report.problems[0].examples) == 3
    assert "and 2 more" in str(report)


def test_limit(tmp_path):
    identifiers = lay_out("ade", tmp_path)
    mask_path("ade", tmp_path, identifiers[1]).unlink()
    report = check(load_benchmark("ade"), tmp_path, limit=1)
    assert report.ok and (report.checked, report.found) == (1, 3)
    assert not check(load_benchmark("ade"), tmp_path, limit=2).ok
    with pytest.raises(ValueError, match="limit must be positive, not 0"):
        check(load_benchmark("ade"), tmp_path, limit=0)


def test_second_check_reads_only_what_changed(tmp_path, monkeypatch):
    identifiers = lay_out("ade", tmp_path)
    mask_path("ade", tmp_path, identifiers[0]).write_bytes(b"x")
    assert not check(load_benchmark("ade"), tmp_path).ok
    read = []
    original = check_module.read_ids
    monkeypatch.setattr(check_module, "read_ids", lambda path: read.append(path) or original(path))
    report = check(load_benchmark("ade"), tmp_path, workers=1)
    assert not report.ok and report.unchanged == 2  # a problem is never remembered as none
    assert read == [mask_path("ade", tmp_path, identifiers[0])]
    save_mask("ade", tmp_path, identifiers[0], example_ids("ade"))
    save_mask("ade", tmp_path, identifiers[1], np.full(SIZE, 200, dtype=np.uint8))
    report = check(load_benchmark("ade"), tmp_path)
    assert report.unchanged == 1 and kinds(report) == ["unknown id"]


def test_stamps_are_of_one_benchmark(tmp_path):
    first = lay_out("voc", tmp_path)[0]
    assert check(load_benchmark("voc"), tmp_path).ok
    assert check(load_benchmark("voc20"), tmp_path).unchanged == 0
    sound = (tmp_path / STAMPS).read_text()
    for damaged in (
        "[1, 2",
        "[]",
        "{}",
        '{"version": 2, "voc": []}',
        '{"version": 2, "voc": {"2008_000001": 7, "2008_000002": [], "2008_000003": ["a"]}}',
        sound.replace(": 2", ": 1", 1),
    ):
        assert damaged != sound
        (tmp_path / STAMPS).write_text(damaged)
        assert check(load_benchmark("voc"), tmp_path).unchanged == 0
    assert check(load_benchmark("voc"), tmp_path).unchanged == 3
    mask_path("voc", tmp_path, first).unlink()
    assert kinds(check(load_benchmark("voc"), tmp_path)) == ["missing mask"]


def test_interrupted_check_goes_on(tmp_path, monkeypatch):
    lay_out("ade", tmp_path)
    original = check_module.read_ids
    calls = []

    def interrupt(path):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(check_module, "read_ids", interrupt)
    with pytest.raises(KeyboardInterrupt):
        check(load_benchmark("ade"), tmp_path, workers=1)
    assert check(load_benchmark("ade"), tmp_path, workers=1).unchanged == 2


def test_read_only_root(tmp_path, caplog):
    lay_out("ade", tmp_path)
    tmp_path.chmod(0o555)
    try:
        with caplog.at_level(logging.WARNING):
            report = check(load_benchmark("ade"), tmp_path)
    finally:
        tmp_path.chmod(0o755)
    assert report.ok and not (tmp_path / STAMPS).exists()
    (record,) = caplog.records
    assert "the next check will look at everything again" in record.getMessage()


def test_manifest(tmp_path):
    identifiers = lay_out("ade", tmp_path)
    masks = [mask_path("ade", tmp_path, identifier) for identifier in identifiers]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(tmp_path)}\n"
        for path in masks
    ]
    manifest = tmp_path / "MANIFEST.sha256"
    manifest.write_text("".join(lines))
    report = check(load_benchmark("ade"), tmp_path)
    assert report.ok and report.hashed == 3
    ids = example_ids("ade")
    ids[5] = 3  # as sound as before, but another
    save_mask("ade", tmp_path, identifiers[0], ids)
    report = check(load_benchmark("ade"), tmp_path)
    assert kinds(report) == ["other hash"] and report.unchanged == 2
    assert report.problems[0].examples == (f"annotations/validation/{identifiers[0]}.png",)
    manifest.write_text(lines[1] + lines[2].replace(".png", ".bmp"))
    assert kinds(check(load_benchmark("ade"), tmp_path)) == ["missing file"]
    for wrong in ("abc  x.png\n", f"{'0' * 64}  ../x.png\n", f"{'0' * 64}  /x.png\n"):
        manifest.write_text(lines[0] + wrong)
        with pytest.raises(DataError, match=r"MANIFEST\.sha256, line 2: not a hash"):
            check(load_benchmark("ade"), tmp_path)


# What the ids of all masks say


def put_masks(name: str, root: Path, masks: list[np.ndarray]) -> None:
    """As many images and masks as are given, in the benchmark's layout."""
    layout = load_benchmark(name).layout
    for number, ids in enumerate(masks):
        identifier = f"{'ulm/ulm_' if name == 'city' else ''}{number:06d}"
        path = image_path(name, root, identifier)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", ids.shape[::-1]).save(path)
        save_mask(name, root, identifier, ids.astype(np.uint8))
    if layout.split_file:
        split = root / layout.split_file
        split.parent.mkdir(parents=True, exist_ok=True)
        split.write_text("".join(f"{number:06d}\n" for number in range(len(masks))))


def typical(name: str, number: int) -> np.ndarray:
    """The ids of a small mask as a benchmark has them: what is common, and a class of its own."""
    benchmark = load_benchmark(name)
    ids = np.full((8, 8), benchmark.common_ids[0])
    ids[:2] = 0 if benchmark.class_ids[0] else ids[0]
    ids[2:5] = [*benchmark.class_ids][(7 * number + 3) % len(benchmark.class_ids) if number else -1]
    ids[5, 5] = 255 if benchmark.unlabelled else ids[7, 7]
    return ids


def shifted(ids: np.ndarray) -> np.ndarray:
    """Classes from 0 on, and what was 0 or ignored 255."""
    return np.where((ids == 0) | (ids == 255), 255, ids - 1)


def as_things(ids: np.ndarray) -> np.ndarray:
    """COCO-Object's ids of a mask of COCO-Stuff: 1 to 80, all else 0."""
    return np.where(ids < 80, ids + 1, 0)


def as_stuff(ids: np.ndarray) -> np.ndarray:
    """Ids of COCO-Stuff's things of a mask of COCO-Object, without stuff."""
    return np.where(ids == 0, 255, ids - 1)


def binary(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == ids[0, 0], 0, 255)


def objects(ids: np.ndarray) -> np.ndarray:
    """Numbers of objects in place of classes, as in VOC's SegmentationObject."""
    numbered = ids.copy()
    numbered[2:5, :4], numbered[2:5, 4:] = 1, 2
    return numbered


def label_ids(ids: np.ndarray) -> np.ndarray:
    """Cityscapes' labelIds of its trainIds, 255 being the car's own bonnet."""
    return np.array([*converters._CITYSCAPES, *[0] * 236, 1])[ids]


IGNORED, ANOTHER, NEVER = (
    "255 where no pixel is ignored",
    "ids of another set",
    "classes that never occur",
)


@pytest.mark.parametrize(
    ("name", "of", "change", "expected"),
    [
        ("context", "context", shifted, [IGNORED]),
        ("c59", "context", shifted, [IGNORED]),
        ("ade", "ade", shifted, [IGNORED]),
        ("coco", "coco", shifted, [IGNORED, ANOTHER]),
        ("voc", "voc", shifted, [ANOTHER]),  # where 255 is legal
        ("voc20", "voc", shifted, [ANOTHER]),
        ("stuff", "stuff", as_things, [ANOTHER]),
        ("stuff", "coco", lambda ids: ids, [ANOTHER]),
        ("stuff", "coco", as_stuff, [ANOTHER]),
        ("coco", "stuff", lambda ids: ids, ["unknown id", ANOTHER]),
        ("context", "voc", lambda ids: ids, [IGNORED]),
        ("ade", "voc", lambda ids: ids, [IGNORED]),
        ("voc", "context", lambda ids: ids, ["unknown id"]),
        ("voc", "voc", objects, ["numbers of objects"]),
        ("voc", "voc", binary, [NEVER]),
        ("context", "context", binary, [IGNORED, NEVER, ANOTHER]),
        ("coco", "coco", binary, [IGNORED, NEVER]),
        ("stuff", "stuff", binary, [ANOTHER]),
        ("ade", "ade", binary, [IGNORED, NEVER, ANOTHER]),
        ("city", "city", shifted, [ANOTHER]),
        ("city", "city", label_ids, ["unknown id", ANOTHER]),
        ("ade", "ade", lambda ids: ids + 1, ["unknown id"]),
    ],
)
def test_masks_of_another_set_or_convention(tmp_path, name, of, change, expected):
    sound = [typical(of, number) for number in range(7)]
    if of == name:
        put_masks(name, tmp_path, sound)
        report = check(load_benchmark(name), tmp_path)
        assert report.ok, str(report)
    put_masks(name, tmp_path, [change(ids) for ids in sound])
    report = check(load_benchmark(name), tmp_path)
    assert kinds(report) == expected
    assert not check(load_benchmark(name), tmp_path, limit=2).ok or expected in (
        [NEVER],
        ["numbers of objects"],
    )


def test_remedies_do_not_keep_what_is_wrong(tmp_path):
    put_masks("stuff", tmp_path, [typical("coco", number) for number in range(7)])
    (problem,) = check(load_benchmark("stuff"), tmp_path).problems
    assert problem.remedy.endswith(f"delete them, then mgca data prepare stuff --root {tmp_path}")
    assert problem.examples == ("0 of 7 masks hold an id of 81 to 170, and nearly all should",)


def test_the_check_says_which_ids_it_saw(tmp_path):
    put_masks("voc", tmp_path, [typical("voc", number) for number in range(2)])
    expected = "ids that occur: 0, 11, 20, 255; classes that never do: 1 to 10, 12 to 19, 18 of 20"
    for _ in range(2):  # as well when an earlier check has passed them
        report = check(load_benchmark("voc"), tmp_path)
        assert report.ids == expected and f"\n  {expected}\n" in str(report)
    assert report.unchanged == 2 and report.to_dict()["ids"] == expected
    # One that is wrong counts with those that passed before.
    put_masks("voc", tmp_path, [typical("voc", 0), np.full((8, 8), 4)])
    assert check(load_benchmark("voc"), tmp_path).ids.startswith("ids that occur: 0, 4, 20, 255;")


@pytest.mark.parametrize("name", NAMES)
def test_in_a_whole_set_each_class_occurs(tmp_path, name):
    last = load_benchmark(name).last_id
    whole = np.arange(last + 1).reshape(1, -1)
    put_masks(name, tmp_path, [whole, whole, whole])
    assert check(small(name), tmp_path).ok
    put_masks(name, tmp_path, [np.minimum(whole, last - 1)] * 3)
    report = check(small(name), tmp_path)
    assert kinds(report) == [NEVER]
    low = load_benchmark(name).common_ids[0]
    seen = f"{last} in none of 3 masks, which hold 0 to {last - 1}"
    assert report.problems[0].examples == (seen,) and low < last
    # Of a part of the set that is said, and no problem.
    report = check(small(name, 4), tmp_path)
    assert report.ok and f"never do: {last}, 1 of" in report.ids


def test_links_to_folders_are_not_followed_in_circles(tmp_path):
    identifiers = lay_out("city", tmp_path)
    folder = tmp_path / load_benchmark("city").layout.images
    (folder / "again").symlink_to(folder)
    (folder / "ulm" / "up").symlink_to(tmp_path)
    masks = tmp_path / load_benchmark("city").layout.masks
    (masks / "again").symlink_to(masks)
    report = check(load_benchmark("city"), tmp_path)
    assert report.ok and report.found == len(identifiers)


# The real data, through links: the check writes into its root


def linked(root: Path, source: Path) -> Path:
    for entry in source.iterdir():
        (root / entry.name).symlink_to(entry)
    return root


@pytest.mark.parametrize(
    ("name", "folder", "images", "hashed"),
    [
        ("voc", "voc2012", 297, 731),
        ("stuff", "coco_stuff164k", 14, 30),
        ("ade", "ade20k_sample", 3, 7),
    ],
)
def test_real_sets(data_root, tmp_path, name, folder, images, hashed):
    root = linked(tmp_path, data_root / folder)
    report = check(load_benchmark(name), root)
    assert report.ok and report.subset, str(report)
    assert (report.found, report.hashed) == (images, hashed)
    assert check(load_benchmark(name), root).unchanged == images


def test_real_masks_of_coco_object_are_none_of_coco_stuff(data_root, tmp_path):
    source = data_root / "coco_object"
    for folder, suffix, ending in (
        ("images", ".jpg", ".jpg"),
        ("annotations", ".png", "_labelTrainIds.png"),
    ):
        (tmp_path / folder / "val2017").mkdir(parents=True)
        for path in sorted((source / folder).glob(f"*{suffix}"))[:20]:
            name = path.name.removesuffix(suffix) + ending
            (tmp_path / folder / "val2017" / name).symlink_to(path)
    report = check(load_benchmark("stuff"), tmp_path)
    assert report.checked == 20 and kinds(report) == [ANOTHER]


def test_real_ids_as_mmsegmentation_reads_them(data_root):
    from mmseg.registry import DATASETS

    benchmark = load_benchmark("voc20")
    data = DATASETS.build(dataset_config(benchmark, data_root / "voc2012"))
    sample = data[0]["data_samples"]
    ids = np.array(Image.open(sample.seg_map_path)).astype(int)
    expected = np.where((ids == 0) | (ids == 255), 255, ids - 1)
    np.testing.assert_array_equal(sample.gt_sem_seg.data.numpy()[0], expected)
    assert set(np.unique(expected)) - {255}


def test_every_toml_is_packaged():
    pyproject = Path(__file__).resolve().parents[2] / "pyproject.toml"
    settings = tomllib.loads(pyproject.read_text())["tool"]["setuptools"]["package-data"]
    assert "**/*.toml" in settings["mgca"]
