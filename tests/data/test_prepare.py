"""Making masks: tables of ids, drawing, run lengths; whole files only, and the rest next time."""

import errno
import json
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image, PngImagePlugin
from test_benchmarks import image_path, lay_out, mask_path

from mgca.data.benchmarks import classes, context, converters, files, instances, load_benchmark
from mgca.data.benchmarks import prepare as prepare_module
from mgca.data.benchmarks.check import check
from mgca.data.benchmarks.prepare import MARKER, prepare
from mgca.data.masks import DataError

# Run lengths and polygons


def encode_counts(counts: list[int]) -> str:
    """COCO's compressed run lengths, written from their description."""
    text = ""
    for position, count in enumerate(counts):
        value = count - counts[position - 2] if position > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if done else 32))
            if done:
                break
    return text


def slow_rle(counts: list[int], height: int, width: int) -> np.ndarray:
    """Pixel by pixel down the columns."""
    mask = np.zeros((height, width), dtype=bool)
    values = [run % 2 == 1 for run, count in enumerate(counts) for _ in range(count)]
    for index, value in enumerate(values):
        mask[index % height, index // height] = value
    return mask


def runs_of(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel().astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return counts if flat[0] == 0 else [0, *counts]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (60, 41)])
def test_run_lengths(share, height, width):
    mask = np.random.default_rng(3).random((height, width)) < share
    counts = runs_of(mask)
    for form in (counts, encode_counts(counts), encode_counts(counts).encode()):
        decoded = instances.decode_rle({"size": [height, width], "counts": form}, height, width)
        np.testing.assert_array_equal(decoded, mask)
    np.testing.assert_array_equal(slow_rle(counts, height, width), mask)


def test_known_string_of_run_lengths():
    # 6 is "6"; 1 is "1"; 40 takes two characters, 8 + 32 and 1; then differences to two before.
    expected = np.repeat([False, True, False, True, False], [6, 1, 40, 4, 49]).reshape(10, 10).T
    found = instances.decode_rle({"size": [10, 10], "counts": "61X139"}, 10, 10)
    np.testing.assert_array_equal(found, expected)
    # A negative difference: 3 - 5 = -2 has the sign bit.
    found = instances.decode_rle({"size": [13, 1], "counts": "154N"}, 13, 1)
    assert found[:, 0].astype(int).tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("rle", "reason"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "do not fill 2 x 2"),
        ({"size": [2, 2], "counts": [1, 4]}, "do not fill 2 x 2"),
        ({"size": [2, 2], "counts": [3, -1, 2]}, "not run lengths"),
        ({"size": [2, 2], "counts": [3.0, 1.0]}, "not run lengths"),
        # Of what these leave open, pycocotools would say whatever memory holds.
        ({"size": [2, 2], "counts": ""}, "cut off"),
        ({"size": [2, 2], "counts": "2"}, "do not fill 2 x 2"),
        ({"size": [2, 2], "counts": "12"}, "do not fill 2 x 2"),
        ({"size": [2, 2], "counts": "23"}, "do not fill 2 x 2"),
        ({"size": [2, 2], "counts": "4X"}, "cut off"),
        ({"size": [2, 2], "counts": "4 "}, "no string of COCO"),
        ({"size": [2, 2], "counts": "4é"}, "no string of COCO"),
        ({"size": [2, 2]}, "not run lengths"),
        ({"size": 4, "counts": [4]}, r"run lengths of 4 in an image of \[2, 2\]"),
        ({"size": [4, 1], "counts": [4]}, r"run lengths of \[4, 1\] in an image"),
    ],
)
def test_wrong_run_lengths(rle, reason):
    with pytest.raises(DataError, match=reason):
        instances.decode_rle(rle, 2, 2)


def test_without_pycocotools_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    for ask in (
        lambda: instances.decode_rle({"size": [1, 1], "counts": [1]}, 1, 1),
        lambda: instances.draw_polygons([], 1, 1),
    ):
        with pytest.raises(ImportError, match=r"need pycocotools .*pip install 'mgca\[benchmarks"):
            ask()


def test_polygons_by_hand():
    square = [1, 1, 4, 1, 4, 3, 1, 3]
    drawn = instances.draw_polygons([square, [0, 4, 1, 4, 1, 5, 0, 5], [2, 2, 3, 3]], 5, 6)
    expected = np.zeros((5, 6), dtype=bool)
    expected[1:3, 1:4] = expected[4, 0] = True
    np.testing.assert_array_equal(drawn, expected)
    far = instances.draw_polygons([[-9, -9, -5, -9, -5, -5], [50, 1, 60, 1, 60, 4]], 5, 6)
    assert not far.any()
    for wrong in ([1, 2, 3], [[1, 2], [3, 4]], [1, 2, float("nan"), 4, 5, 6], [0, 1e12] * 3):
        with pytest.raises(DataError, match="a polygon of"):
            instances.draw_polygons([wrong], 5, 6)


def test_small_instances_lie_on_large_ones():
    def square(side, category, number):
        polygon = [0, 0, side, 0, side, side, 0, side]
        entry = {"segmentation": [polygon], "area": side * side, "iscrowd": 0}
        return {**entry, "category_id": category, "id": number}

    crowd = {"segmentation": {"size": [4, 4], "counts": [12, 4]}, "area": 4, "iscrowd": 1}
    annotations = [square(1, 7, 1), {**crowd, "category_id": 9, "id": 2}, square(3, 8, 3)]
    ids = instances.render(annotations, 4, 4, lambda category: category)
    assert ids.tolist() == [[7, 8, 8, 9], [8, 8, 8, 9], [8, 8, 8, 9], [0, 0, 0, 9]]
    annotations[1] = {**annotations[1], "segmentation": {"size": [2, 8], "counts": [16]}}
    with pytest.raises(DataError, match=r"annotation 2: run lengths of \[2, 8\]"):
        instances.render(annotations, 4, 4, lambda category: category)
    with pytest.raises(DataError, match="annotation 3: a segmentation that is neither"):
        instances.render([{**annotations[2], "segmentation": None}], 4, 4, int)


def test_drawn_masks_agree_with_those_given(data_root):
    content = json.loads((data_root / "coco_object/instances.json").read_text())
    ids = {category: number for number, category in enumerate(converters.THINGS, start=1)}
    for image in content["images"][::4]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        drawn = instances.render(own, image["height"], image["width"], ids.__getitem__)
        given = files.read_ids(data_root / f"coco_object/annotations/{image['id']:012d}.png")
        np.testing.assert_array_equal(drawn, given, err_msg=image["file_name"])


# Tables


def test_table_of_coco_stuff():
    table = converters.STUFF
    assert sorted(table[table >= 0]) == [*range(171), 255]
    # 11 and 90 are among the eleven things that were never annotated.
    assert [table[i] for i in (0, 10, 11, 12, 89, 90, 91, 181, 255)] == [
        *(0, 10, -1, 11, 79, -1, 80, 170, 255)
    ]
    assert (table[182:255] == -1).all() and (table < 0).sum() == 73 + 11


def test_table_of_coco_object():
    # As GroupViT: raw things 1 to 80, every other pixel background, unlabelled ones too.
    table = converters.OBJECT
    assert [table[i] for i in (0, 10, 12, 89, 91, 181, 255)] == [1, 11, 12, 80, 0, 0, 0]
    assert (table[182:255] == -1).all()
    assert table[11] == table[90] == -1
    known = np.flatnonzero((converters.STUFF >= 0) & (converters.STUFF < 171))
    through_stuff = converters.OBJECT_OF_STUFF[converters.STUFF[known]]
    np.testing.assert_array_equal(table[known], through_stuff)


def test_things_are_cocos_80():
    assert len(converters.THINGS) == 80
    assert converters.THINGS[0] == 1 and converters.THINGS[-1] == 90
    assert converters.THINGS[11] == 13  # stop sign; 12, street sign, was never annotated


def test_table_of_cityscapes():
    table = converters.CITYSCAPES
    evaluated = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert table[evaluated].tolist() == list(range(19))
    assert set(table[[i for i in range(34) if i not in evaluated]]) == {255}
    assert (table[34:] == -1).all()  # 255 too, which trainIds hold and labelIds do not


def test_context_classes_are_mmsegmentations():
    assert list(context.CLASSES) == classes(load_benchmark("c59"))
    numbers = list(context.CLASSES.values())
    assert numbers == sorted(set(numbers)) and numbers[-1] <= 459


def test_context_labels_of_another_release(caplog):
    names = {number: f" {name}" for name, number in context.CLASSES.items()}
    ids = context.class_ids({1: "accordion", **names}, "labels.txt")
    assert ids[2] == 1 and ids[458] == 59 and len(ids) == 59
    with pytest.raises(DataError, match="the class 'aeroplane' has number 1, expected number 2"):
        context.class_ids({**names, 2: "x", 1: "aeroplane"}, "labels.txt")
    with pytest.raises(DataError, match="the class 'wood' is missing, expected number 458"):
        context.class_ids({k: v for k, v in names.items() if k != 458}, "labels.txt")
    assert context.class_ids({**names, 397: "diningtable"}, "labels.txt")[397] == ids[397]
    assert "number 397 is called 'diningtable', taken as 'table'" in caplog.text


# Whole sets in their official layout


RAW = np.array([[0, 12, 89, 91], [181, 255, 10, 13]], dtype=np.uint8)
LABELS = np.array([[0, 7, 33, 26], [1, 11, 4, 18]], dtype=np.uint8)


def save(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def lay_out_raw(name: str, root: Path) -> list[str]:
    """Images and what the masks are made from, as the archives bring them."""
    identifiers = lay_out(name, root, masks=False)
    for number, identifier in enumerate(identifiers):
        Image.new("RGB", (4, 2)).save(image_path(name, root, identifier))
        mask = mask_path(name, root, identifier)
        stem = mask.name.removesuffix(load_benchmark(name).layout.mask_suffix)
        if name in ("stuff", "coco"):
            save(mask.with_name(f"{stem}.png"), np.roll(RAW, number, axis=1))
        elif name == "city":
            save(mask.with_name(f"{stem}_gtFine_labelIds.png"), np.roll(LABELS, number, axis=1))
    if name in ("context", "c59"):
        write_context(root, identifiers)
    return identifiers


def write_context(root: Path, identifiers: list[str], **changes) -> Path:
    """A small trainval_merged.json: an aeroplane, on it a table and an accordion."""
    numbers = {"accordion": 1, **context.CLASSES}
    images, annotations = [], []
    for number, identifier in enumerate([*identifiers, "2010_000009"]):
        phase = "val" if identifier in identifiers else "train"
        entry = {"file_name": f"{identifier}.jpg", "image_id": number, "phase": phase}
        images.append({**entry, "height": 2, "width": 4})
        for category, counts in ((2, [0, 8]), (397, [2, 2, 4]), (1, [6, 2])):
            rle = {"size": [2, 4], "counts": encode_counts(counts)}
            annotations.append({"image_id": number, "category_id": category, "segmentation": rle})
    content = {
        "images": images,
        "annos_segmentation": annotations,
        "categories": [{"category_id": v, "name": k} for k, v in numbers.items()],
        "annos_occlusion": [],
        **changes,
    }
    file = root / "VOCdevkit/VOC2010/trainval_merged.json"
    file.write_text(json.dumps(content))
    return file


TABLE_ID = list(context.CLASSES).index("table") + 1
EXPECTED = {
    "stuff": [[0, 11, 79, 80], [170, 255, 10, 12]],
    "coco": [[1, 12, 80, 0], [0, 0, 11, 13]],
    "city": [[255, 0, 18, 13], [255, 2, 255, 255]],
    "context": [[1, TABLE_ID, 1, 0], [1, TABLE_ID, 1, 0]],
    "c59": [[1, TABLE_ID, 1, 0], [1, TABLE_ID, 1, 0]],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_masks_are_made_and_pass_the_check(tmp_path, name):
    identifiers = lay_out_raw(name, tmp_path)
    benchmark = load_benchmark(name)
    done = prepare(benchmark, tmp_path)
    assert (done.written, done.kept) == (3, 0)
    mask = Image.open(mask_path(name, tmp_path, identifiers[0]))
    assert mask.mode == "L" and np.array(mask).tolist() == EXPECTED[name]
    report = check(benchmark, tmp_path)
    assert report.ok and report.found == 3
    marker = json.loads((tmp_path / MARKER).read_text())
    assert marker[benchmark.conversion] == {"source": done.source, "masks": 3}
    again = prepare(benchmark, tmp_path)
    assert (again.written, again.kept) == (0, 3)
    assert "3 were there already" in str(again)
    left = [p.name for p in tmp_path.rglob(".*")]
    assert sorted(left) == [".mgca-check.json", ".mgca-prepared.json"]


def test_stuff_and_coco_share_a_root(tmp_path):
    first = lay_out_raw("stuff", tmp_path)[0]
    prepare(load_benchmark("stuff"), tmp_path)
    prepare(load_benchmark("coco"), tmp_path)
    assert (
        check(load_benchmark("stuff"), tmp_path).ok and check(load_benchmark("coco"), tmp_path).ok
    )
    assert set(json.loads((tmp_path / MARKER).read_text())) == {"coco-stuff", "coco-object"}
    ids = files.read_ids(mask_path("coco", tmp_path, first))
    # Without the raw maps the converted ones do, and give the same.
    for path in (tmp_path / "annotations/val2017").iterdir():
        if "TrainIds" not in path.name or path.name.endswith("_instanceTrainIds.png"):
            path.unlink()
    prepare(load_benchmark("coco"), tmp_path)
    np.testing.assert_array_equal(files.read_ids(mask_path("coco", tmp_path, first)), ids)


@pytest.mark.parametrize("name", ["voc", "ade"])
def test_nothing_to_convert(tmp_path, name):
    lay_out(name, tmp_path)
    done = prepare(load_benchmark(name), tmp_path)
    assert done.source is None and "nothing to convert" in str(done)
    assert not (tmp_path / MARKER).exists()
    with pytest.raises(ValueError, match="nothing to convert, so there is no source"):
        prepare(load_benchmark(name), tmp_path, source="stuff")


def write_instances(root: Path, identifiers: list[str], **changes) -> Path:
    square = [0, 0, 2, 0, 2, 2, 0, 2]
    content = {
        "images": [
            {"id": n, "file_name": f"{name}.jpg", "height": 2, "width": 4}
            for n, name in enumerate(identifiers)
        ],
        "annotations": [
            {"id": 5, "image_id": 0, "category_id": 90, "area": 4, "segmentation": [square]},
            {"id": 6, "image_id": 0, "category_id": 13, "area": 2}
            | {"segmentation": {"size": [2, 4], "counts": [6, 2]}},
        ],
        "categories": [{"id": i, "name": "?"} for i in converters.THINGS],
        **changes,
    }
    file = root / "annotations/instances_val2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def test_coco_object_from_instances(tmp_path):
    identifiers = lay_out("coco", tmp_path, masks=False)
    write_instances(tmp_path, identifiers)
    done = prepare(load_benchmark("coco"), tmp_path)
    assert done.source == "COCO's instances"
    first, second, _ = (files.read_ids(mask_path("coco", tmp_path, i)) for i in identifiers)
    assert first.tolist() == [[80, 80, 0, 12]] * 2 and not second.any()


def test_source_can_be_chosen_and_masks_do_not_mix(tmp_path):
    identifiers = lay_out_raw("coco", tmp_path)
    write_instances(tmp_path, identifiers)
    coco = load_benchmark("coco")
    assert prepare(coco, tmp_path).source == "COCO-Stuff's pixel maps"
    chosen = prepare(coco, tmp_path, source="instances")
    assert (chosen.source, chosen.written) == ("COCO's instances", 3)
    assert (
        files.read_ids(mask_path("coco", tmp_path, identifiers[0])).tolist()
        == [[80, 80, 0, 12]] * 2
    )
    assert json.loads((tmp_path / MARKER).read_text())["coco-object"]["source"] == chosen.source
    with pytest.raises(ValueError, match="unknown source 'png', only stuff, instances"):
        prepare(coco, tmp_path, source="png")


def test_masks_of_other_programs_stay(tmp_path):
    identifiers = lay_out_raw("city", tmp_path)
    own = np.full((2, 4), 5, dtype=np.uint8)
    save(mask_path("city", tmp_path, identifiers[0]), own)
    done = prepare(load_benchmark("city"), tmp_path)
    assert (done.written, done.kept) == (2, 1)
    assert (files.read_ids(mask_path("city", tmp_path, identifiers[0])) == 5).all()
    # But not if they are not masks of this set, or half of one.
    save(mask_path("city", tmp_path, identifiers[0]), own + 20)
    path = mask_path("city", tmp_path, identifiers[1])
    path.write_bytes(path.read_bytes()[:-30])
    assert prepare(load_benchmark("city"), tmp_path).written == 2


def copy_masks(of: str, to: str, root: Path, identifiers: list[str]) -> None:
    """Give masks that were made for one benchmark another's file names."""
    for identifier in identifiers:
        target = mask_path(to, root, identifier)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(mask_path(of, root, identifier).read_bytes())


@pytest.mark.parametrize(("of", "to"), [("coco", "stuff"), ("stuff", "coco")])
def test_masks_of_one_set_do_not_pass_as_anothers(tmp_path, of, to):
    identifiers = lay_out_raw(of, tmp_path)
    prepare(load_benchmark(of), tmp_path)
    copy_masks(of, to, tmp_path, identifiers)
    report = check(load_benchmark(to), tmp_path)
    (problem,) = [p for p in report.problems if p.kind == "made for another set"]
    assert problem.count == 3
    conversion = load_benchmark(of).conversion
    assert problem.examples[0].endswith(f".png: made by the conversion {conversion}")
    done = prepare(load_benchmark(to), tmp_path)
    assert (done.written, done.kept) == (3, 0)
    assert files.read_ids(mask_path(to, tmp_path, identifiers[0])).tolist() == EXPECTED[to]
    assert check(load_benchmark(to), tmp_path).ok


@pytest.mark.parametrize("name", ["ade", "voc"])  # whose masks nobody makes
def test_converted_masks_do_not_pass_where_none_are_made(tmp_path, name):
    identifiers = lay_out(name, tmp_path)
    lay_out_raw("city", tmp_path)
    prepare(load_benchmark("city"), tmp_path)
    made = mask_path("city", tmp_path, "ulm/ulm_000000_000001").read_bytes()
    mask_path(name, tmp_path, identifiers[0]).write_bytes(made)
    kinds = [problem.kind for problem in check(load_benchmark(name), tmp_path).problems]
    assert "made for another set" in kinds


def test_masks_are_not_made_of_masks_of_another_set(tmp_path):
    identifiers = lay_out_raw("coco", tmp_path)
    prepare(load_benchmark("coco"), tmp_path)
    maps = [tmp_path / f"annotations/val2017/{identifier}.png" for identifier in identifiers]
    # COCO-Object's masks where COCO-Stuff's would serve as a source.
    copy_masks("coco", "stuff", tmp_path, identifiers)
    for path, identifier in zip(maps, identifiers, strict=True):
        path.unlink()
        mask_path("coco", tmp_path, identifier).unlink()
    made = r"_labelTrainIds\.png: is a mask that the conversion coco-object made: take the original"
    with pytest.raises(DataError, match=made):
        prepare(load_benchmark("coco"), tmp_path, workers=1)
    # And where the original map should be.
    for path, identifier in zip(maps, identifiers, strict=True):
        path.write_bytes(mask_path("stuff", tmp_path, identifier).read_bytes())
    with pytest.raises(DataError, match=r"\.png: is a mask that the conversion coco-object made"):
        prepare(load_benchmark("stuff"), tmp_path, workers=1)


def test_masks_that_do_not_say_what_their_ids_mean_are_made_again(tmp_path):
    identifiers = lay_out_raw("stuff", tmp_path)
    prepare(load_benchmark("stuff"), tmp_path)
    path = mask_path("stuff", tmp_path, identifiers[0])
    info = PngImagePlugin.PngInfo()  # as they were made at first
    info.add_text("mgca-made-from", "COCO-Stuff's pixel maps")
    Image.fromarray(np.zeros((2, 4), dtype=np.uint8)).save(path, pnginfo=info)
    assert prepare(load_benchmark("stuff"), tmp_path).written == 1
    assert files.read_ids(path).tolist() == EXPECTED["stuff"]


def test_shifted_masks_are_made_again(tmp_path):
    identifiers = lay_out_raw("context", tmp_path)
    prepare(load_benchmark("context"), tmp_path)
    shifted = np.array([[0, TABLE_ID - 1, 0, 255]] * 2, dtype=np.uint8)
    for identifier in identifiers:
        save(mask_path("context", tmp_path, identifier), shifted)
    report = check(load_benchmark("c59"), tmp_path)
    assert [problem.kind for problem in report.problems] == ["255 where no pixel is ignored"]
    assert prepare(load_benchmark("c59"), tmp_path).written == 3
    assert (
        files.read_ids(mask_path("context", tmp_path, identifiers[0])).tolist() == EXPECTED["c59"]
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["city", "context"])
def test_interrupted_in_the_middle(tmp_path, monkeypatch, name, workers):
    identifiers = lay_out_raw(name, tmp_path)
    benchmark = load_benchmark(name)
    original = files.Image.Image.save
    saved = []

    def interrupt(image, path, *arguments, **options):
        saved.append(path)
        if len(saved) == 2:
            Path(path).write_bytes(b"\x89PNG half of a file")
            raise KeyboardInterrupt
        return original(image, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files.Image.Image, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(benchmark, tmp_path, workers=workers)
    folder = tmp_path / benchmark.layout.masks
    written = [p for p in folder.rglob("*") if p.is_file() and "labelIds" not in p.name]
    assert len(saved) >= 2 and 1 <= len(written) < 3
    for path in written:
        files.read_ids(path)
    # What is not finished does not look finished.
    assert not (tmp_path / MARKER).exists()
    if name == "context":
        with pytest.raises(FileNotFoundError, match="mgca data prepare context"):
            check(benchmark, tmp_path)
    else:
        assert not check(benchmark, tmp_path).ok
    done = prepare(benchmark, tmp_path, workers=workers)
    assert (done.written, done.kept) == (3 - len(written), len(written))
    assert check(benchmark, tmp_path).ok
    assert len(identifiers) == 3


def test_marker_goes_before_the_work_starts(tmp_path, monkeypatch):
    identifiers = lay_out_raw("city", tmp_path)
    prepare(load_benchmark("city"), tmp_path)
    mask_path("city", tmp_path, identifiers[0]).unlink()

    def fail(*arguments, **options):
        raise OSError(errno.EIO, "broken disk")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_ids", fail)
        with pytest.raises(OSError, match="broken disk"):
            prepare(load_benchmark("city"), tmp_path)
    assert json.loads((tmp_path / MARKER).read_text()) == {}
    (tmp_path / MARKER).write_text("{not json")
    prepare(load_benchmark("city"), tmp_path)
    assert "cityscapes" in json.loads((tmp_path / MARKER).read_text())


def test_full_disk_is_noticed_before(tmp_path, monkeypatch):
    lay_out_raw("context", tmp_path)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(prepare_module.psutil, "disk_usage", lambda path: usage(1000))
    with pytest.raises(OSError, match=r"the masks take about 0 MiB and 0 MiB are free") as caught:
        prepare(load_benchmark("context"), tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / load_benchmark("context").layout.masks).exists()


def test_disk_that_fills_up(tmp_path, monkeypatch):
    lay_out_raw("city", tmp_path)

    def full(image, path, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.Image.Image, "save", full)
        with pytest.raises(OSError, match=r"cannot write .*_labelTrainIds\.png: No space left"):
            prepare(load_benchmark("city"), tmp_path, workers=1)
    assert not list(tmp_path.rglob("*TrainIds*"))
    assert prepare(load_benchmark("city"), tmp_path).written == 3


def test_read_only_root(tmp_path):
    lay_out_raw("city", tmp_path)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="the folder is read-only"):
            prepare(load_benchmark("city"), tmp_path)
        assert not list(tmp_path.rglob("*TrainIds*"))
        tmp_path.chmod(0o755)
        prepare(load_benchmark("city"), tmp_path)
        tmp_path.chmod(0o555)
        assert prepare(load_benchmark("city"), tmp_path).kept == 3  # nothing to write
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("stuff", r"no pixel map .*annotations/val2017/2008_000001\.png; get val2017\.zip"),
        ("coco", r"no pixel map .*2008_000001\.png, nor .*instances_val2017\.json; get val2017"),
        ("city", r"no mask .*bonn_000001_000003_gtFine_labelIds\.png; get leftImg8bit_train"),
        ("context", r"no .*trainval_merged\.json, nor .*VOC2010/trainval; get VOCtrainval_03"),
    ],
)
def test_missing_sources_are_named(tmp_path, name, missing):
    lay_out(name, tmp_path, masks=False)
    with pytest.raises(FileNotFoundError, match=missing):
        prepare(load_benchmark(name), tmp_path)


def test_some_maps_are_missing(tmp_path):
    identifiers = lay_out_raw("stuff", tmp_path)
    mask_path("stuff", tmp_path, identifiers[1]).with_name(f"{identifiers[1]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"map .*{identifiers[1]}\.png \(1 of 3 are"):
        prepare(load_benchmark("stuff"), tmp_path)
    assert not list(tmp_path.rglob("*TrainIds*"))


@pytest.mark.parametrize(
    ("name", "wrong"),
    # Beyond the last; things that were never annotated; 255, which trainIds hold and labelIds not.
    [("stuff", 182), ("coco", 200), ("city", 34), ("stuff", 11), ("coco", 90), ("city", 255)],
)
def test_maps_of_another_set(tmp_path, name, wrong):
    lay_out_raw(name, tmp_path)
    raw = next(p for p in (tmp_path).rglob("*2008_000002.png" if name != "city" else "*labelIds*"))
    for ids in (np.full((2, 4), wrong, np.uint8), np.full((2, 4), 300, np.uint16)):
        save(raw, ids)
        with pytest.raises(DataError, match=rf"{raw}: id {ids[0, 0]} is none that"):
            prepare(load_benchmark(name), tmp_path, workers=1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"categories": [{"id": 1, "name": "person"}]}, "its categories are not the 80 of"),
        ({"images": []}, r"does not list 2008_000001\.jpg"),
        ("[1", "not JSON, or cut off"),
        ("[1]", "has no images, annotations, categories"),
    ],
)
def test_wrong_instances(tmp_path, change, reason):
    identifiers = lay_out("coco", tmp_path, masks=False)
    if isinstance(change, str):
        write_instances(tmp_path, identifiers).write_text(change)
    else:
        write_instances(tmp_path, identifiers, **change)
    with pytest.raises(DataError, match=rf"instances_val2017\.json: {reason}"):
        prepare(load_benchmark("coco"), tmp_path)


def test_damaged_annotation_is_named(tmp_path):
    identifiers = lay_out("coco", tmp_path, masks=False)
    wrong = {"id": 7, "image_id": 0, "category_id": 1, "area": 1, "segmentation": [[1, 2, 3]]}
    write_instances(tmp_path, identifiers, annotations=[wrong])
    with pytest.raises(DataError, match=r"2008_000001\.jpg: annotation 7: a polygon of 3 numbers"):
        prepare(load_benchmark("coco"), tmp_path, workers=1)


# PASCAL Context


def test_context_lists_the_validation_images(tmp_path):
    identifiers = lay_out_raw("context", tmp_path)
    prepare(load_benchmark("context"), tmp_path)
    split = tmp_path / load_benchmark("context").layout.split_file
    assert split.read_text().split() == identifiers
    # Both benchmarks use the same masks.
    assert prepare(load_benchmark("c59"), tmp_path).kept == 3
    assert check(load_benchmark("c59"), tmp_path).ok


def test_context_of_a_part(tmp_path):
    identifiers = lay_out_raw("context", tmp_path)
    split = tmp_path / load_benchmark("context").layout.split_file
    split.parent.mkdir(parents=True)
    split.write_text(f"{identifiers[1]}\n")
    assert prepare(load_benchmark("context"), tmp_path).written == 1
    assert split.read_text() == f"{identifiers[1]}\n"
    split.write_text("2010_000009\n")  # an image for training
    with pytest.raises(DataError, match="1 of 1 are no val images .* first 2010_000009; delete"):
        prepare(load_benchmark("context"), tmp_path)


def test_context_of_damaged_annotations(tmp_path):
    identifiers = lay_out_raw("context", tmp_path)
    rle = {"size": [4, 2], "counts": [8]}
    entry = {"image_id": 0, "category_id": 2, "segmentation": rle}
    write_context(tmp_path, identifiers, annos_segmentation=[entry])
    with pytest.raises(DataError, match=r"an annotation of 2008_000001: run lengths of \[4, 2\]"):
        prepare(load_benchmark("context"), tmp_path, workers=1)


def test_context_from_mat_files(tmp_path):
    identifiers = lay_out_raw("context", tmp_path)
    folder = tmp_path / "VOCdevkit/VOC2010"
    (folder / "trainval").mkdir()
    numbers = np.array([[2, 397, 458, 1], [459, 0, 9, 420]], dtype=np.uint16)
    for identifier in identifiers:
        scipy.io.savemat(folder / f"trainval/{identifier}.mat", {"LabelMap": numbers})
    context59 = load_benchmark("context")
    with pytest.raises(FileNotFoundError, match=r"no .*labels\.txt; it comes with the \.mat"):
        prepare(context59, tmp_path, source="mat")
    names = {**{v: k for k, v in context.CLASSES.items()}, 1: "accordion", 459: "wool"}
    lines = [f"{number}: {name}\n" for number, name in sorted(names.items())]
    (folder / "labels.txt").write_text("".join(lines))
    with pytest.raises(FileNotFoundError, match=r"no list of images .*SegmentationContext/val"):
        prepare(context59, tmp_path, source="mat")
    prepare(context59, tmp_path)  # the JSON comes first, and brings the list
    done = prepare(context59, tmp_path, source="mat")
    assert (done.source, done.written) == ("the original .mat files", 3)
    ids = files.read_ids(mask_path("context", tmp_path, identifiers[0]))
    tree = list(context.CLASSES).index("tree") + 1
    assert ids.tolist() == [[1, TABLE_ID, 59, 0], [0, 0, 2, tree]]
    mask_path("context", tmp_path, identifiers[0]).unlink()
    (folder / f"trainval/{identifiers[0]}.mat").write_bytes(b"MATLAB")
    with pytest.raises(DataError, match=r"\.mat: not a \.mat file with a LabelMap"):
        prepare(context59, tmp_path, source="mat", workers=1)
    (folder / "labels.txt").write_text("accordion\n")
    with pytest.raises(DataError, match="expected lines such as '1: accordion', got 'accordion'"):
        prepare(context59, tmp_path, source="mat")
    with pytest.raises(ValueError, match="unknown source 'png', only json, mat"):
        prepare(context59, tmp_path, source="png")
