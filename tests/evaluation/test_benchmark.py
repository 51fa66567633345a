"""An evaluation from its name: computed once, taken up where it stopped, wrong files named."""

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from evaluated import (
    CLASSES,
    SIZES,
    SMALL,
    counts_of,
    draw,
    files_below,
    full_disk,
    interrupt_after,
    load,
    times_below,
    tiny,
)
from PIL import Image
from test_benchmarks import image_path, lay_out, mask_path, save_mask
from tiny import TinyBackbone

from mgca.data.benchmarks import load_benchmark
from mgca.data.masks import DataError, load_folder, load_masked
from mgca.evaluation import benchmark as benchmark_module
from mgca.evaluation.benchmark import Evaluation, benchmark, confusion_table, masked, per_class
from mgca.evaluation.evaluate import evaluate
from mgca.evaluation.metrics import Confusion
from mgca.evaluation.results import read_results
from mgca.model import Model
from mgca.utils.images import ImageError

with_mmsegmentation = pytest.mark.skipif(
    importlib.util.find_spec("mmseg") is None, reason="needs the extra benchmarks"
)


def evaluation_of(folders: Path, model: Model | None = None, **options) -> Evaluation:
    return Evaluation(model or tiny(), "tiny", masked(load(folders)), (None, 16), **options)


def test_all_pixels_ignored(folders):
    for path in (folders / "masks").iterdir():
        with Image.open(path) as image:
            Image.new("L", image.size, 255).save(path)
    with pytest.raises(DataError, match="images: every pixel of its masks is ignored"):
        evaluation_of(folders).compute(folders / "out", folders / "work")
    assert files_below(folders / "out") == []


def test_a_model_of_another_kind_stays_one(folders):
    class Backwards(Model):
        def scores(self, pixels, texts, side):
            scores = super().scores(pixels, texts, side)
            return scores._replace(table=-scores.table)

    plain = tiny()
    other = Backwards(plain.backbone, plain.decoder, SMALL)
    expected = evaluate(other, load(folders), (None, 16))
    _, found = evaluation_of(folders, other).compute(folders / "out", folders / "work")
    assert counts_of(found) == counts_of(expected)
    assert counts_of(found) != counts_of(evaluate(plain, load(folders), (None, 16)))


# Going on


def test_going_on_after_a_damaged_image(folders, embedded):
    expected = counts_of(evaluate(tiny(), load(folders), (None, 16)))
    path = folders / "images" / "2.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    embedded.clear()
    with pytest.raises(ImageError, match=r"images/2\.png: damaged"):
        evaluation_of(folders).compute(folders / "out", folders / "work")
    assert embedded == SIZES[:2]
    assert files_below(folders / "out") == []
    path.write_bytes(whole)
    evaluation = evaluation_of(folders)
    _, found = evaluation.compute(folders / "out", folders / "work")
    assert embedded == SIZES
    assert counts_of(found) == expected
    assert not list((folders / "work").rglob("counted.npz"))


def test_one_subject_serves_again_after_an_interruption(folders, monkeypatch, embedded):
    # What went on must not leave a shorter set behind for the next model.
    subject = masked(load(folders))
    process = Confusion.add

    def stop_after(images: int):
        left = [images]

        def counted(self, *arguments):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            process(self, *arguments)

        monkeypatch.setattr(Confusion, "add", counted)

    def evaluation(seed=0):
        return Evaluation(tiny(seed), "tiny", subject, (None,))

    run = evaluation().run
    for images in (2, 1):
        stop_after(images)
        with pytest.raises(KeyboardInterrupt):
            evaluation().compute(folders / "out", folders / "work")
    monkeypatch.setattr(Confusion, "add", process)
    embedded.clear()
    _, found = evaluation().compute(folders / "out", folders / "work")
    assert embedded == SIZES[3:]
    assert evaluation().run == run
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None,)))
    _, other = evaluation(1).compute(folders / "out", folders / "work")
    assert counts_of(other) == counts_of(evaluate(tiny(1), load(folders), (None,)))


@pytest.mark.parametrize("unit", [0, 1])
@pytest.mark.parametrize("before", [True, False])
def test_interrupted_between_two_units(folders, monkeypatch, embedded, unit, before):
    add, calls = Confusion.add, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        last = len(calls) == 2 * 2 + unit + 1  # the third image
        if last and before:
            raise KeyboardInterrupt
        add(self, *arguments)
        if last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Confusion, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluation_of(folders).compute(folders / "out", folders / "work")
    embedded.clear()
    _, found = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert embedded == SIZES[2:]
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None, 16)))


@pytest.mark.parametrize("damage", ["half", "empty", "text", "other unit"])
def test_damaged_counts(folders, monkeypatch, damage):
    with monkeypatch.context() as patched:
        interrupt_after(5, patched)
        with pytest.raises(KeyboardInterrupt):
            evaluation_of(folders).compute(folders / "out", folders / "work")
    (path,) = (folders / "work").rglob("counted.npz")
    if damage == "other unit":
        with np.load(path) as kept:
            np.savez(path, **{k: v for k, v in kept.items() if k != "16 0 counts"})
    else:
        whole = path.read_bytes()
        path.write_bytes(
            {"half": whole[: len(whole) // 2], "empty": b"", "text": b"counts"}[damage]
        )
    with pytest.raises(OSError, match=r"counted\.npz is damaged \(.*\): delete it to start again"):
        evaluation_of(folders).compute(folders / "out", folders / "work")
    path.unlink()
    _, found = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None, 16)))


@pytest.mark.parametrize("which, again", [("0", 5), ("4", 3)])
def test_a_counted_image_that_changes_is_counted_again(
    folders, monkeypatch, embedded, caplog, which, again
):
    with monkeypatch.context() as patched:
        interrupt_after(5, patched)  # within the third image
        with pytest.raises(KeyboardInterrupt):
            evaluation_of(folders).compute(folders / "out", folders / "work")
    path = folders / "masks" / f"{which}.png"
    with Image.open(path) as image:
        Image.new("L", image.size, 1).save(path)
    embedded.clear()
    _, found = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert len(embedded) == again
    assert ("starting again" in caplog.text) == (again == 5)
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None, 16)))


def test_a_finished_evaluation_is_not_computed_again(folders, monkeypatch):
    first = evaluation_of(folders)
    record, found = first.compute(folders / "out", folders / "work")
    before = times_below(folders / "out")
    monkeypatch.setattr(Model, "embed", lambda *_: pytest.fail("computed again"))
    again = evaluation_of(folders)
    assert again.run == first.run
    record_again, found_again = again.compute(folders / "out", folders / "work")
    assert record_again == json.loads(json.dumps(record))
    assert counts_of(found_again) == counts_of(found)
    assert list(found_again) == ["pixel", "16"]
    assert times_below(folders / "out") == before


def test_a_finished_evaluation_under_another_name_only_adds_rows(folders, monkeypatch):
    evaluation_of(folders).compute(folders / "out", folders / "work")
    monkeypatch.setattr(Model, "embed", lambda *_: pytest.fail("computed again"))
    subject = masked(load(folders))
    Evaluation(tiny(), "other", subject, (None, 16)).compute(folders / "out", folders / "work")
    table = read_results(folders / "out" / "evaluation.csv")
    assert table.groupby("variant").size().to_dict() == {"tiny": 6, "other": 6}


def test_fresh_computes_again(folders, embedded):
    evaluation_of(folders).compute(folders / "out", folders / "work")
    (path,) = (folders / "out" / "runs").glob("*.npz")
    eye = np.eye(4, dtype=int)
    np.savez(path, **{"pixel": eye, "16": eye, "ignored": eye[0, :1]})
    _, stale = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert stale["pixel"].counts.sum() == 4
    embedded.clear()
    _, found = evaluation_of(folders).compute(folders / "out", folders / "work", fresh=True)
    assert embedded == SIZES
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None, 16)))
    assert counts_of(evaluation_of(folders).result(folders / "out")[1]) == counts_of(found)


def test_fresh_takes_no_part_of_an_interrupted_one(folders, monkeypatch, embedded):
    with monkeypatch.context() as patched:
        interrupt_after(5, patched)
        with pytest.raises(KeyboardInterrupt):
            evaluation_of(folders).compute(folders / "out", folders / "work")
    embedded.clear()
    evaluation_of(folders).compute(folders / "out", folders / "work", fresh=True)
    assert embedded == SIZES


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_without_its_record_an_evaluation_is_not_finished(folders, embedded, suffix):
    evaluation = evaluation_of(folders)
    _, found = evaluation.compute(folders / "out", folders / "work")
    (folders / "out" / "runs" / f"{evaluation.run}{suffix}").unlink()
    assert evaluation.result(folders / "out") is None
    embedded.clear()
    _, again = evaluation.compute(folders / "out", folders / "work")
    assert embedded == SIZES and counts_of(again) == counts_of(found)
    assert evaluation.result(folders / "out") is not None


@pytest.mark.parametrize(
    "suffix, content", [(".json", None), (".json", b"{}"), (".npz", None), (".npz", b"")]
)
def test_a_damaged_record_is_an_error(folders, suffix, content):
    evaluation = evaluation_of(folders)
    evaluation.compute(folders / "out", folders / "work")
    path = folders / "out" / "runs" / f"{evaluation.run}{suffix}"
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    with pytest.raises(DataError, match=r"\.npz or the \.json beside it is damaged .*--fresh"):
        evaluation.compute(folders / "out", folders / "work")
    evaluation.compute(folders / "out", folders / "work", fresh=True)
    assert evaluation.result(folders / "out") is not None


# What an evaluation is named by, and its tables


def test_the_name_depends_on_what_the_numbers_depend_on(folders):
    def run(model=None, units=(None,), data=None, **options):
        subject = masked(data or load(folders))
        return Evaluation(model or tiny(), "v", subject, units, **options).run

    torch.manual_seed(0)
    model = tiny()
    other = tiny()
    other.decoder.upsample = "nearest"
    other.decoder.load_state_dict(model.decoder.state_dict())
    statistics = Model(TinyBackbone(), model.decoder, SMALL)
    statistics.backbone.mean = (0.4, 0.5, 0.6)
    background = load(folders, True)
    runs = [
        run(model),
        run(other),
        run(statistics),
        run(Model(TinyBackbone(), None, SMALL)),
        run(Model(TinyBackbone(1), model.decoder, SMALL)),
        run(Model(TinyBackbone(), model.decoder)),
        run(model, (None, 16)),
        run(model, data=load(folders).first(2)),
        run(model, data=dataclasses.replace(load(folders), classes=CLASSES[::-1])),
        run(model, data=background, threshold=0.3),
        run(model, data=background, threshold=0.4),
        run(model, data=background, threshold=0.3, temperature=0.5),
    ]
    assert len(set(runs)) == len(runs)
    assert run(model, threshold=0.3, temperature=0.5) == runs[0]  # no background, no effect
    with Image.open(folders / "masks" / "0.png") as image:
        ids = np.array(image)
    size = (folders / "masks" / "0.png").stat().st_size
    ids[10] = ids[10, ::-1]
    Image.fromarray(ids).save(folders / "masks" / "0.png")
    with (folders / "masks" / "0.png").open("ab") as file:
        file.write(b"\0" * max(0, size - (folders / "masks" / "0.png").stat().st_size))
    assert run(model) not in runs


def test_a_mask_that_changes_but_not_its_size(folders):
    before = load(folders).digest
    path = folders / "masks" / "0.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert load(folders).digest != before


def test_a_background_needs_its_threshold(folders):
    with pytest.raises(ValueError, match=r"images has a background: give its .*--background"):
        Evaluation(tiny(), "v", masked(load(folders, True)))


def test_tables(folders):
    subject = masked(load(folders, True))
    evaluation = Evaluation(tiny(), "v", subject, (None, 16), threshold=0.3, temperature=0.2)
    record, found = evaluation.compute(folders / "out", folders / "work")
    classwise = per_class(subject, found)
    assert list(classwise.columns) == ["pixel", "16"]
    assert list(classwise.index) == ["background", *CLASSES]
    assert classwise["16"].mean() == pytest.approx(found["16"].miou)
    assert classwise.loc[["blue", "grey"]].isna().all(axis=None)
    table = confusion_table(subject, found["pixel"])
    assert table.loc["red", "green"] == found["pixel"].counts[1, 2] > 0
    rows = read_results(folders / "out" / "evaluation.csv").set_index(["unit", "metric"])["value"]
    assert len(rows) == 6
    for unit, confusion in found.items():
        assert rows[unit, "miou"] == round(confusion.miou, 3)
        assert rows[unit, "accuracy"] == round(confusion.accuracy, 3)
        assert rows[unit, "miou_mmsegmentation"] == round(confusion.miou_with_absent, 3)
    assert "mmsegmentation" not in record
    kept = json.loads((folders / "out" / "runs" / f"{evaluation.run}.json").read_text())
    assert kept["config"]["background"] == 0.3 and kept["config"]["temperature"] == 0.2
    assert kept["data"] == {"images": subject.data.digest} and kept["complete"] is False


# Wrong input


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((64, 64), 4, np.uint8), r"masks/2\.png: id 4 is not one of the 4 classes"),
        (np.zeros((64, 63), np.uint8), r"masks/2\.png: the mask is \(64, 63\), its image 2 is"),
        (np.zeros((64, 64, 3), np.uint8), r"masks/2\.png: a mask has one channel of class ids"),
        (np.full((64, 64), 300, np.uint16), r"masks/2\.png: id 300 is not one of the 4 classes"),
        (None, r"masks/2\.png: not a readable mask"),
    ],
)
def test_masks_of_a_folder_that_are_wrong(folders, mask, message):
    path = folders / "masks" / "2.png"
    if mask is None:
        path.write_bytes(path.read_bytes()[:60])
    else:
        Image.fromarray(mask).save(path)
    with pytest.raises(DataError, match=message):
        evaluation_of(folders).compute(folders / "out", folders / "work")


def test_masks_of_other_modes_count_the_same(folders):
    expected = counts_of(evaluate(tiny(), load(folders), (None,)))
    for number, path in enumerate(sorted((folders / "masks").iterdir())):
        with Image.open(path) as image:
            ids = np.array(image)
        if number % 2:
            Image.fromarray(ids.astype(np.uint16)).save(path)
        else:
            palette = Image.fromarray(ids).convert("P")
            palette.putpalette(list(range(255, -1, -1)) * 3)
            palette.putdata(ids.ravel())
            palette.save(path)
        with Image.open(path) as image:
            assert image.mode == ("I;16" if number % 2 else "P")
    assert counts_of(evaluation_of(folders).compute(folders / "o", folders / "w")[1]) != {}
    found = evaluate(tiny(), load(folders), (None,))
    assert counts_of(found) == expected


def test_images_of_other_modes(folders):
    folder = folders / "images"
    image = Image.fromarray(draw(0, SIZES[0])[0])
    (folder / "0.png").unlink()
    image.convert("CMYK").save(folder / "0.jpg")
    image = Image.fromarray(draw(1, SIZES[1])[0])
    image.convert("L").save(folder / "1.png")
    # Lies on its side in the file; the mask is that of the upright image.
    upright = Image.fromarray(draw(2, (64, 40))[0])
    (folder / "2.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "2.JPG", exif=exif, format="JPEG")
    Image.fromarray(draw(2, (64, 40))[1]).save(folders / "masks" / "2.png")
    sizes = [(i.height, i.width) for _, i, _ in load(folders)]
    assert sizes == [*SIZES[:2], (64, 40), *SIZES[3:]]
    expected = Confusion(4)
    for (_, path, _), (_, _, mask) in zip(load(folders).items, load(folders), strict=True):
        expected.add(tiny().segment(path, CLASSES, None).labels.numpy(), mask)
    found = evaluate(tiny(), load(folders), (None,))
    assert np.array_equal(found["pixel"].counts, expected.counts)


def test_folders_that_are_wrong(folders):
    images, masks = folders / "images", folders / "masks"
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        load_folder(images, folders / "nowhere", CLASSES)
    (folders / "empty").mkdir()
    (folders / "empty" / "notes.txt").write_text("no image")
    (folders / "empty" / ".hidden.png").write_text("no image")
    with pytest.raises(DataError, match="no images in .*empty"):
        load_folder(folders / "empty", masks, CLASSES)
    with pytest.raises(ValueError, match="class names given more than once: red"):
        load_folder(images, masks, ["red", "red"])
    many = [f"class {k}" for k in range(256)]
    assert len(load_folder(images, masks, many[:255])) == 5
    for names, background in ((many, False), (many[:255], True)):
        with pytest.raises(DataError, match="classes, and ids go up to 254: 255 is ignored"):
            load_folder(images, masks, names, background=background)
    # Between the two in the alphabet is another.
    shutil.copy(images / "0.png", images / "0.bmp")
    shutil.copy(images / "0.png", images / "0.c.png")
    shutil.copy(masks / "0.png", masks / "0.c.png")
    with pytest.raises(DataError, match=r"0\.bmp and .*0\.png would have the same mask"):
        load_folder(images, masks, CLASSES)
    (masks / "4.png").unlink()
    (images / "0.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"4\.png has no mask .*masks/4\.png"):
        load_folder(images, masks, CLASSES)


@with_mmsegmentation
@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("voc", np.full((6, 8), 77, np.uint8), "the mask has ids outside 0 to 20: check the set"),
        ("ade", np.full((6, 8), 151, np.uint8), "the mask has ids outside 0 to 149"),
        ("voc", np.zeros((6, 7), np.uint8), r"the mask is \(6, 7\), its image \(6, 8\)"),
        ("voc", np.zeros((6, 8, 3), np.uint8), "a mask has one channel of class ids"),
        ("voc", np.full((6, 8), 257, np.uint16), "the mask has ids up to 257, beyond 8 bits"),
        ("voc", None, "not a readable mask"),
    ],
)
def test_masks_of_a_benchmark_that_are_wrong(tmp_path, name, mask, message):
    identifier = lay_out(name, tmp_path)[1]
    if mask is None:
        mask_path(name, tmp_path, identifier).write_bytes(b"x")
    else:
        save_mask(name, tmp_path, identifier, mask)
    evaluation = Evaluation(tiny(), "v", benchmark(name, tmp_path), (None,), threshold=0.3)
    with pytest.raises(DataError, match=rf"{identifier}\.png: {message}"):
        evaluation.compute(tmp_path / "out", tmp_path / "work")
    (path,) = (tmp_path / "work").rglob("counted.npz")
    with np.load(path) as kept:
        assert kept["done"] == 1


@with_mmsegmentation
def test_an_image_of_a_benchmark_that_is_damaged(tmp_path):
    identifier = lay_out("voc", tmp_path)[1]
    image_path("voc", tmp_path, identifier).write_bytes(b"x")
    evaluation = Evaluation(tiny(), "v", benchmark("voc", tmp_path), (None,), threshold=0.3)
    with pytest.raises(ImageError, match=rf"{identifier}\.jpg: not a picture"):
        evaluation.compute(tmp_path / "out", tmp_path / "work")


@with_mmsegmentation
@pytest.mark.parametrize("name", ["voc", "context", "coco", "voc20", "c59", "stuff", "city", "ade"])
@pytest.mark.filterwarnings("error")
def test_benchmarks_in_their_layout(tmp_path, name):
    lay_out(name, tmp_path)
    subject = benchmark(name, tmp_path)
    assert not subject.complete and len(subject.data) == len(subject.stamps) == 3
    assert (subject.names[0] == "background") == subject.data.background
    evaluation = Evaluation(tiny(), "v", subject, (None,), threshold=0.3)
    assert evaluation.model.config.window == 448
    _, found = evaluation.compute(tmp_path / "out", tmp_path / "work")
    # A mask has a row of 1, a row of the last id, three of 0, and one of 255 where that may be.
    zero_counts = name not in ("voc20", "c59", "ade")
    truth = found["pixel"].counts.sum(1)
    rows = 5 + (not load_benchmark(name).unlabelled) if zero_counts else 2
    assert truth.sum() == 3 * 8 * rows
    assert truth[1 if zero_counts else 0] == truth[-1] == 3 * 8


@with_mmsegmentation
@pytest.mark.parametrize("missing", [image_path, mask_path])
def test_a_file_of_a_benchmark_that_is_missing(tmp_path, missing):
    identifier = lay_out("ade", tmp_path)[2]
    path = missing("ade", tmp_path, identifier)
    path.unlink()
    # Without a list, an image that is missing is one that is not in the set.
    if missing is image_path:
        assert len(benchmark("ade", tmp_path).data) == 2
        return
    with pytest.raises(FileNotFoundError, match=rf"ade: {path} is missing: run 'mgca data check"):
        benchmark("ade", tmp_path)


@with_mmsegmentation
def test_the_wrong_root_of_a_benchmark(tmp_path):
    lay_out("voc", tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="the right root seems to be .*data"):
        benchmark("voc", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"voc .*: no folder .*nowhere; get VOCtrainval"):
        benchmark("voc", tmp_path / "nowhere")
    (tmp_path / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"voc: no list of images .*val\.txt"):
        benchmark("voc", tmp_path / "data")
    with pytest.raises(ValueError, match="unknown benchmark 'kitti'"):
        benchmark("kitti", tmp_path)


# A disk that is full or read-only


@pytest.mark.parametrize("what", ["npz", "csv", "json"])
def test_a_disk_that_is_full_when_results_are_written(folders, monkeypatch, what):
    evaluation = evaluation_of(folders)
    expected = counts_of(evaluate(tiny(), load(folders), (None, 16)))

    def half(file, **arrays):
        file.write(b"half") if "done" not in arrays else savez(file, **arrays)
        if "done" not in arrays:
            full_disk()

    savez = np.savez
    with monkeypatch.context() as patched:
        if what == "npz":
            patched.setattr(np, "savez", half)
        elif what == "csv":
            patched.setattr(pd.DataFrame, "to_csv", full_disk)
        else:
            patched.setattr(benchmark_module, "write_run", full_disk)
        with pytest.raises(OSError, match="No space left on device"):
            evaluation.compute(folders / "out", folders / "work")
    left = {"npz": [], "csv": ["npz"], "json": ["csv", "npz"]}[what]
    assert [name[-3:] for name in files_below(folders / "out")] == left
    assert evaluation.result(folders / "out") is None
    with monkeypatch.context() as patched:
        patched.setattr(Model, "embed", lambda *_: pytest.fail("computed again"))
        _, found = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert counts_of(found) == expected
    assert len(read_results(folders / "out" / "evaluation.csv")) == 6
    assert counts_of(evaluation.result(folders / "out")[1]) == expected


def test_results_that_cannot_be_written_are_noticed_first(folders, embedded):
    (folders / "file").write_text("")
    for out, work in (("file", "work"), ("out", "file")):
        with pytest.raises(OSError, match="file"):
            evaluation_of(folders).compute(folders / out, folders / work)
    (folders / "out" / "evaluation.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"evaluation\.csv is not a results table"):
        evaluation_of(folders).compute(folders / "out", folders / "work")
    assert embedded == []


# Real photographs


def short_voc(data_root: Path, root: Path, images: int) -> Path:
    """VOC 2012 with a split of a few images."""
    real = data_root / "voc2012/VOCdevkit/VOC2012"
    folder = root / "VOCdevkit/VOC2012"
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (folder / name).symlink_to(real / name)
    lines = (real / "ImageSets/Segmentation/val.txt").read_text().splitlines()[:images]
    (folder / "ImageSets/Segmentation/val.txt").write_text("\n".join(lines) + "\n")
    return root


@with_mmsegmentation
@pytest.mark.parametrize("name, own", [("voc", "voc21"), ("voc20", "voc20")])
def test_voc_is_counted_as_our_own_reading_of_it(data_root, tmp_path, name, own):
    subject = benchmark(name, short_voc(data_root, tmp_path / "root", 4))
    model = Model(TinyBackbone())
    evaluation = Evaluation(model, "v", subject, (None, 36), threshold=0.2, temperature=0.1)
    _, found = evaluation.compute(tmp_path / "out", tmp_path / "work")
    data = load_masked(own, data_root).first(4)
    assert data.classes == subject.data.classes
    options = {"background": 0.2, "temperature": 0.1}
    expected = evaluate(model, data, (None, 36), **options)
    assert counts_of(found) == counts_of(expected)
    assert len(np.unique(found["pixel"].counts.nonzero()[0])) > 1
    assert not subject.complete


@with_mmsegmentation
@pytest.mark.parametrize("name, images, shift", [("stuff", 14, 0), ("ade", 3, 1)])
def test_samples_of_other_benchmarks(data_root, tmp_path, name, images, shift):
    root = data_root / {"stuff": "coco_stuff164k", "ade": "ade20k_sample"}[name]
    subject = benchmark(name, root)
    assert len(subject.data) == images
    evaluation = Evaluation(Model(TinyBackbone()), "v", subject, (36,))
    _, found = evaluation.compute(tmp_path / "out", tmp_path / "work")
    truth = np.zeros(256, dtype=int)
    for path in (root / "annotations").rglob("*.png"):
        with Image.open(path) as image:
            ids = np.array(image)
        truth += np.bincount(ids.ravel(), minlength=256)
    assert found["36"].counts.sum(1).tolist() == truth[shift : shift + len(subject.names)].tolist()
    assert len(subject.names) == {"stuff": 171, "ade": 150}[name]
