"""The harness: mmengine's Runner counts what evaluate() counts, goes on where it stopped, and says
which file is wrong."""

import dataclasses
import errno
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from test_benchmarks import image_path, lay_out, mask_path, save_mask
from tiny import TinyBackbone

if importlib.util.find_spec("mmseg") is None:
    pytest.skip("needs the extra benchmarks", allow_module_level=True)
# Before mmsegmentation, which it silences.
harness = importlib.import_module("mgca.evaluation.mmseg")

from mmengine import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmseg.apis import inference_model, init_model  # noqa: E402
from mmseg.models.data_preprocessor import SegDataPreProcessor  # noqa: E402
from mmseg.models.segmentors.base import BaseSegmentor  # noqa: E402
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from mmseg.utils import stack_batch  # noqa: E402

from mgca.config import SegmentConfig  # noqa: E402
from mgca.data.benchmarks import load_benchmark  # noqa: E402
from mgca.data.masks import DataError, Masked, load_folder, load_masked  # noqa: E402
from mgca.data.scenes.sets import evaluation_set  # noqa: E402
from mgca.decoder import GatedConvDecoder  # noqa: E402
from mgca.evaluation.evaluate import evaluate, unit_name  # noqa: E402
from mgca.evaluation.mmseg import evaluation as evaluation_module  # noqa: E402
from mgca.evaluation.mmseg import metric as metric_module  # noqa: E402
from mgca.evaluation.mmseg import run as run_module  # noqa: E402
from mgca.evaluation.mmseg.evaluation import (  # noqa: E402
    Evaluation,
    benchmark,
    confusion_table,
    masked,
    per_class,
)
from mgca.evaluation.mmseg.metric import UnitIoU  # noqa: E402
from mgca.evaluation.mmseg.run import run_test  # noqa: E402
from mgca.evaluation.mmseg.sets import MaskedImages  # noqa: E402
from mgca.evaluation.results import read_results  # noqa: E402
from mgca.model import Model  # noqa: E402
from mgca.utils.images import ImageError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("red", "green", "blue", "grey")
UNITS = (None, 4, 16)
SMALL = SegmentConfig(short_side=64, window=64, stride=32)
SIZES = [(60, 80), (90, 50), (64, 64), (33, 47), (48, 70)]


def tiny(seed: int = 0) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = GatedConvDecoder(16)
    torch.nn.init.constant_(decoder.blocks[0].gate, 0.5)
    return Model(TinyBackbone(seed), decoder, SMALL)


def draw(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image of 8x8 blocks, and a mask with ids 0 to 2 and 255: the last class does not occur."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    mask = generator.integers(0, 3, size, dtype=np.uint8)
    mask[:3] = 255
    return image, mask


@pytest.fixture
def folders(tmp_path):
    """Two folders with five images and their masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, size in enumerate(SIZES):
        image, mask = draw(number, size)
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def load(folders: Path, background: bool = False) -> Masked:
    return load_folder(folders / "images", folders / "masks", CLASSES, background=background)


def evaluation_of(folders: Path, model: Model | None = None, **options) -> Evaluation:
    return Evaluation(model or tiny(), "tiny", masked(load(folders)), (None, 16), **options)


@pytest.fixture
def embedded(monkeypatch):
    """The sizes of the images that a model has looked at in the harness, where they are tensors."""
    seen = []
    embed = Model.embed

    def noted(self, image):
        if torch.is_tensor(image):
            seen.append(tuple(image.shape[1:]))
        return embed(self, image)

    monkeypatch.setattr(Model, "embed", noted)
    return seen


def counts_of(confusions) -> dict[str, list]:
    return {unit: confusion.counts.tolist() for unit, confusion in confusions.items()}


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def times_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file lies where, and when it was written."""
    stats = {path: os.stat(folder / path) for path in files_below(folder)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


# What is counted


@pytest.mark.parametrize("background", [None, 0.3])
def test_counts_are_those_of_evaluate(folders, background):
    data, model = load(folders, background is not None), tiny()
    options = {"background": background, "temperature": 0.2}
    expected = evaluate(model, data, UNITS, **options)
    found = run_test(model, MaskedImages(data), CLASSES, UNITS, folders / "work", **options)
    assert list(found.confusions) == ["pixel", "4", "16"]
    assert counts_of(found.confusions) == counts_of(expected)
    different = {str(counts) for counts in counts_of(expected).values()}
    assert len(different) == 3
    if background is not None:
        predicted = expected["pixel"].counts.sum(0)
        assert predicted[0] > 0 and predicted[1:].any()


@pytest.mark.parametrize("name", ["things", "scenes"])
def test_counts_on_scenes(tmp_path, name):
    data = evaluation_set(name, 2)
    model = tiny()
    background = 0.2 if data.background else None
    expected = evaluate(model, data, (None, 16), background=background)
    found = run_test(
        model, MaskedImages(data), data.classes, (None, 16), tmp_path, background=background
    )
    assert counts_of(found.confusions) == counts_of(expected)


def test_mmsegmentations_mean_counts_classes_that_are_only_predicted(folders):
    found = run_test(tiny(), MaskedImages(load(folders)), CLASSES, UNITS, folders / "work")
    for unit, confusion in found.confusions.items():
        counts = confusion.counts.astype(float)
        hit, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
        # The last class is in no mask, but predicted: 0 for mmsegmentation, left out by ours.
        assert counts[3].sum() == 0 and union[3] > 0
        theirs = found.mmsegmentation[unit]
        assert theirs["mIoU"] == round(100 * (hit / union).mean(), 2)
        assert theirs["aAcc"] == round(100 * hit.sum() / counts.sum(), 2)
        assert theirs["mAcc"] == round(100 * (hit[:3] / counts.sum(1)[:3]).mean(), 2)
        assert confusion.miou == pytest.approx(100 * (hit / union)[:3].mean())


def metric_of(classes: int, predicted, truth, **options) -> tuple[UnitIoU, dict]:
    metric = UnitIoU("pixel", classes, **options)
    metric.dataset_meta = {"classes": [str(k) for k in range(classes)]}
    sample = {"pred_pixel": {"data": predicted[None]}, "gt_sem_seg": {"data": truth[None]}}
    metric.process({}, [sample])
    return metric, sample


def test_images_with_more_pixels_than_float32_counts():
    # All of one class but a few: 16.8 million pixels, 16,810,003 of them right.
    predicted, truth = torch.zeros(2, 4100, 4101, dtype=torch.uint8)
    predicted[0, :97] = 1
    metric, _ = metric_of(2, predicted, truth)
    found = metric.evaluate(1)
    assert metric.confusion.counts.tolist() == [[4100 * 4101 - 97, 97], [0, 0]]
    assert found["pixel/mIoU"] == 50.0 and found["pixel/miou"] > 99.9


def test_bands_of_rows_change_nothing(monkeypatch):
    predicted, truth = torch.randint(3, (2, 50, 70))
    expected = metric_of(3, predicted, truth)[0].evaluate(1)
    monkeypatch.setattr(metric_module, "_EXACT", 200)
    metric, _ = metric_of(3, predicted, truth)
    assert len(metric.results) == 25
    assert metric.evaluate(1) == expected


def test_counts_that_differ_from_mmsegmentations_are_an_error():
    metric, _ = metric_of(2, torch.zeros(4, 4).long(), torch.zeros(4, 4).long())
    metric.confusion.counts[0, 1] += 1
    with pytest.raises(RuntimeError, match="two counts of the union of each class differ"):
        metric.evaluate(1)


def test_a_metric_goes_on_from_earlier_counts():
    predicted, truth = torch.randint(3, (2, 50, 70))
    earlier, _ = metric_of(3, predicted[:20], truth[:20])
    later, _ = metric_of(3, predicted[20:], truth[20:], before=earlier.confusion.counts)
    assert later.evaluate(1) == metric_of(3, predicted, truth)[0].evaluate(1)


def test_a_metric_serves_for_another_test():
    predicted, truth = torch.randint(3, (2, 50, 70))
    metric, sample = metric_of(3, predicted, truth, before=np.eye(3, dtype=np.int64))
    metric.evaluate(1)
    metric.process({}, [sample])
    assert metric.evaluate(1) == metric_of(3, predicted, truth)[0].evaluate(1)
    assert metric.confusion.counts.sum() == 50 * 70


def test_all_pixels_ignored(folders):
    for path in (folders / "masks").iterdir():
        with Image.open(path) as image:
            Image.new("L", image.size, 255).save(path)
    record, found = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert all(np.isnan(confusion.miou) for confusion in found.values())
    assert np.isnan(record["mmsegmentation"]["pixel"]["mIoU"])


def test_workers_count_the_same(folders):
    data = MaskedImages(load(folders))
    alone = run_test(tiny(), data, CLASSES, (None,), folders / "alone")
    two = run_test(tiny(), data, CLASSES, (None,), folders / "two", workers=2)
    assert counts_of(two.confusions) == counts_of(alone.confusions)


def test_the_model_stays_on_its_device(folders, monkeypatch):
    # The Runner moves it to where it sees fit.
    moves = []
    to = BaseSegmentor.to
    monkeypatch.setattr(
        BaseSegmentor, "to", lambda self, device: moves.append(device) or to(self, device)
    )
    monkeypatch.setattr("mmengine.runner.runner.get_device", lambda: "cpu:0")
    run_test(tiny(), MaskedImages(load(folders)), CLASSES, (None,), folders / "work")
    assert moves == ["cpu:0", torch.device("cpu")]


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


# mmsegmentation's own tools


@pytest.fixture
def loaded(monkeypatch):
    """Arguments with which the segmentor loads its models; all are tiny."""
    given = []
    monkeypatch.setattr(
        "mgca.evaluation.mmseg.segmentor.load", lambda **options: given.append(options) or tiny()
    )
    return given


def segmentor_config(**options) -> dict:
    return {
        "type": "OpenVocabulary",
        "model": {"name": "lite", "decoder": None},
        "classes": list(CLASSES),
        "units": [None, 16],
        **options,
    }


def test_the_segmentor_is_built_from_a_configuration(loaded):
    segmentor = MODELS.build(segmentor_config(background=0.3))
    assert isinstance(segmentor, harness.OpenVocabulary)
    assert loaded == [{"name": "lite", "decoder": None}]
    assert segmentor.num_classes == 5
    assert len(list(segmentor.parameters())) == len(list(segmentor.model.backbone.parameters())) + (
        len(list(segmentor.model.decoder.parameters()))
    )
    metric = METRICS.build({"type": "UnitIoU", "unit": "pixel", "classes": 5})
    assert isinstance(metric, UnitIoU)


PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs"},
]


@pytest.mark.parametrize("background", [None, 0.3])
def test_inference_of_bgr_arrays(loaded, background):
    config = Config({"model": segmentor_config(background=background, temperature=0.2)})
    config.test_pipeline = PIPELINE
    segmentor = init_model(config, device="cpu")
    image, _ = draw(0, (60, 80))
    found = inference_model(segmentor, np.ascontiguousarray(image[..., ::-1]))
    for unit in (None, 16):
        expected = tiny().segment(image, CLASSES, unit, background, 0.2).labels
        assert torch.equal(found.get(f"pred_{unit_name(unit)}").data[0], expected)
    assert torch.equal(found.pred_sem_seg.data, found.pred_pixel.data)
    assert not torch.equal(found.pred_16.data, found.pred_pixel.data)
    swapped = tiny().segment(image[..., ::-1], CLASSES, None, background, 0.2).labels
    assert not torch.equal(found.pred_sem_seg.data[0], swapped)
    both = inference_model(segmentor, [image, image[::-1]])
    assert [sample.pred_sem_seg.data.shape for sample in both] == [(1, 60, 80)] * 2


def test_padding_of_a_batch_is_no_part_of_an_image():
    images = [torch.from_numpy(draw(k, size)[0].copy()) for k, size in enumerate(SIZES[:2])]
    samples = [SegDataSample(metainfo={"img_shape": i.shape[:2]}) for i in images]
    batch, _ = stack_batch([i.permute(2, 0, 1).float() for i in images], size=(96, 96), pad_val=7)
    segmentor = harness.OpenVocabulary(tiny(), CLASSES, (None,))
    found = segmentor(batch, samples, mode="predict")
    for image, sample in zip(images, found, strict=True):
        expected = tiny().segment(image.numpy(), CLASSES, None).labels
        assert torch.equal(sample.pred_sem_seg.data[0], expected)


def test_padding_of_the_preprocessor():
    images = [torch.from_numpy(draw(k, (60, 80))[0].copy()).permute(2, 0, 1) for k in range(2)]
    preprocessor = SegDataPreProcessor(test_cfg={"size_divisor": 32}, bgr_to_rgb=True)
    segmentor = harness.OpenVocabulary(tiny(), CLASSES, (None,), data_preprocessor=preprocessor)
    samples = [SegDataSample(metainfo={"img_shape": (60, 80)}) for _ in images]
    found = segmentor.test_step({"inputs": images, "data_samples": samples})
    for image, sample in zip(images, found, strict=True):
        expected = tiny().segment(image.flip(0), CLASSES, None).labels
        assert torch.equal(sample.pred_sem_seg.data[0], expected)
        assert tuple(sample.pad_shape) == (64, 96)


def test_without_samples_the_whole_image_counts():
    image = torch.from_numpy(draw(0, (60, 80))[0].copy()).permute(2, 0, 1)
    segmentor = harness.OpenVocabulary(tiny(), CLASSES, (None,))
    for mode in ("predict", "tensor"):
        (found,) = segmentor(image[None].float(), None, mode=mode)
        assert torch.equal(found.pred_sem_seg.data[0], tiny().segment(image, CLASSES, None).labels)


def test_scores_features_and_no_loss():
    image = torch.from_numpy(draw(0, (64, 64))[0].copy()).permute(2, 0, 1)
    segmentor = harness.OpenVocabulary(tiny(), CLASSES, (16,), 0.3, 0.2)
    scores = segmentor.encode_decode(image[None].float(), [SegDataSample()])
    expected = tiny().segment(image, CLASSES, 16, 0.3, 0.2).scores
    assert scores.shape == (1, 5, 64, 64) and torch.equal(scores[0], expected)
    assert torch.equal(
        segmentor.extract_feat(image[None].float()), TinyBackbone().dense(image[None].float())
    )
    with pytest.raises(TypeError, match=r"not trained on masks: see mgca\.training"):
        segmentor(image[None].float(), [SegDataSample()], mode="loss")


def test_a_configuration_file_of_mmengine(folders, loaded):
    source = f"""
custom_imports = dict(imports=["mgca.evaluation.mmseg"])
default_scope = "mmseg"
classes = {list(CLASSES)}
model = dict(
    type="OpenVocabulary", model=dict(name="lite"), classes=classes, units=[None, 16]
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BaseSegDataset",
        data_root={str(folders)!r},
        data_prefix=dict(img_path="images", seg_map_path="masks"),
        img_suffix=".png",
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    ),
)
test_evaluator = [
    dict(type="IoUMetric"),
    dict(type="UnitIoU", unit="pixel", classes=4),
    dict(type="UnitIoU", unit="16", classes=4),
]
test_cfg = dict(type="TestLoop")
log_level = "WARNING"
work_dir = {str(folders / "work")!r}
"""
    (folders / "config.py").write_text(source)
    found = Runner.from_cfg(Config.fromfile(folders / "config.py")).test()
    expected = evaluate(tiny(), load(folders), (None, 16))
    for unit, confusion in expected.items():
        assert found[f"{unit}/miou"] == confusion.miou
    assert float(f"{found['mIoU']:.2f}") == found["pixel/mIoU"] != found["16/mIoU"]


def test_what_is_registered():
    for registry, names in (
        (DATASETS, ("COCOObjectDataset", "PascalVOC20Dataset", "MaskedImages")),
        (TRANSFORMS, ("OpenImage", "OpenMask")),
        (MODELS, ("OpenVocabulary",)),
        (METRICS, ("UnitIoU",)),
    ):
        for name in names:
            assert registry.get(name) is getattr(harness, name)


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
    record, found = evaluation.compute(folders / "out", folders / "work")
    assert embedded == SIZES
    assert counts_of(found) == expected
    once, _ = evaluation_of(folders).compute(folders / "once", folders / "work once")
    assert record["mmsegmentation"] == once["mmsegmentation"]
    assert not list((folders / "work").rglob("counted.npz"))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_keeps_its_message_and_what_was_counted(folders, workers):
    mask = np.zeros(SIZES[3], np.uint8)
    mask[5, 5] = 4
    Image.fromarray(mask).save(folders / "masks" / "3.png")
    data = MaskedImages(load(folders))
    with pytest.raises(DataError) as caught:
        run_test(tiny(), data, CLASSES, (None,), folders / "work", workers=workers)
    path = folders / "masks" / "3.png"
    assert str(caught.value) == f"{path}: id 4 is not one of the 4 classes of images"
    with np.load(folders / "work" / "counted.npz") as kept:
        assert kept["done"] == 3 and kept["unit pixel"].sum() > 0
        assert kept["seconds"] > 0


def test_one_subject_serves_again_after_an_interruption(folders, monkeypatch, embedded):
    # What went on must not leave a shorter set behind for the next model.
    subject = masked(load(folders))
    process = UnitIoU.process

    def stop_after(images: int):
        left = [images]

        def counted(self, *arguments):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            process(self, *arguments)

        monkeypatch.setattr(UnitIoU, "process", counted)

    def evaluation(seed=0):
        return Evaluation(tiny(seed), "tiny", subject, (None,))

    run = evaluation().run
    for images in (2, 1):
        stop_after(images)
        with pytest.raises(KeyboardInterrupt):
            evaluation().compute(folders / "out", folders / "work")
    monkeypatch.setattr(UnitIoU, "process", process)
    embedded.clear()
    _, found = evaluation().compute(folders / "out", folders / "work")
    assert embedded == SIZES[3:]
    assert evaluation().run == run
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None,)))
    _, other = evaluation(1).compute(folders / "out", folders / "work")
    assert counts_of(other) == counts_of(evaluate(tiny(1), load(folders), (None,)))


def interrupt_at(line: int, seen: list[int]):
    """A trace function that raises where the harness comes to its so manieth line."""

    def trace(frame, event, argument):
        if Path(frame.f_code.co_filename).parent.name != "mmseg":
            return None
        if event == "line":
            seen[0] += 1
            if seen[0] == line:
                raise KeyboardInterrupt
        return trace

    return trace


def test_going_on_from_any_line(folders, embedded):
    data = MaskedImages(load(folders).first(3))
    model = tiny()

    def test(folder: str, line: int = -1) -> tuple[dict, int]:
        seen, before = [0], sys.gettrace()
        sys.settrace(interrupt_at(line, seen))
        try:
            found = run_test(model, data, CLASSES, (None, 4), folders / folder)
        finally:
            sys.settrace(before)
        return counts_of(found.confusions), seen[0]

    expected, lines = test("whole")
    assert lines > 150
    kept = set()
    for line in range(1, lines + 1, 23):
        embedded.clear()
        with pytest.raises(KeyboardInterrupt):
            test(str(line), line)
        path = folders / str(line) / "counted.npz"
        done = 0
        if path.is_file():
            with np.load(path) as counted:
                done = int(counted["done"])
        kept.add(done)
        embedded.clear()
        assert test(str(line))[0] == expected
        assert embedded == SIZES[done:3]
    assert kept == {0, 1, 2, 3}


@pytest.mark.parametrize("unit", ["pixel", "16"])
@pytest.mark.parametrize("before", [True, False])
def test_interrupted_between_two_units(folders, monkeypatch, embedded, unit, before):
    process, calls = UnitIoU.process, []

    def interrupted(self, *arguments):
        if self.unit != unit:
            return process(self, *arguments)
        calls.append(unit)
        if len(calls) == 3 and before:
            raise KeyboardInterrupt
        process(self, *arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(UnitIoU, "process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluation_of(folders).compute(folders / "out", folders / "work")
    monkeypatch.setattr(UnitIoU, "process", process)
    embedded.clear()
    _, found = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert embedded == SIZES[2:]
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None, 16)))


def test_what_was_counted_is_saved_now_and_then(folders, monkeypatch):
    saved = []
    monkeypatch.setattr(run_module, "_SAVE_EVERY", 0.0)
    save = run_module._State.save
    monkeypatch.setattr(
        run_module._State, "save", lambda self: saved.append(self.counted[0]) or save(self)
    )
    run_test(tiny(), MaskedImages(load(folders)), CLASSES, (None,), folders / "work")
    assert saved == [1, 2, 3, 4, 5, 5]


def interrupt_after(images: int, monkeypatch) -> None:
    segment, left = Model.segment, [images]

    def interrupted(self, *arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return segment(self, *arguments, **options)

    monkeypatch.setattr(Model, "segment", interrupted)


@pytest.mark.parametrize("damage", ["half", "empty", "text", "other unit"])
def test_damaged_counts(folders, monkeypatch, damage):
    with monkeypatch.context() as patched:
        interrupt_after(5, patched)
        with pytest.raises(KeyboardInterrupt):
            evaluation_of(folders).compute(folders / "out", folders / "work")
    (path,) = (folders / "work").rglob("counted.npz")
    if damage == "other unit":
        with np.load(path) as kept:
            np.savez(path, **{k: v for k, v in kept.items() if k != "unit 16"})
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
    np.savez(path, **{"pixel": np.eye(4, dtype=int), "16": np.eye(4, dtype=int)})
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
        assert rows[unit, "miou_mmsegmentation"] == record["mmsegmentation"][unit]["mIoU"]
    kept = json.loads((folders / "out" / "runs" / f"{evaluation.run}.json").read_text())
    assert kept["config"]["background"] == 0.3 and kept["config"]["temperature"] == 0.2
    assert kept["data"] == {"images": subject.digest} and kept["complete"] is False


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
    found = run_test(tiny(), MaskedImages(load(folders)), CLASSES, (None,), folders / "work")
    assert counts_of(found.confusions) == expected


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
    found = run_test(tiny(), MaskedImages(load(folders)), CLASSES, (None,), folders / "work")
    assert counts_of(found.confusions) == counts_of(evaluate(tiny(), load(folders), (None,)))


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


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("voc", np.full((6, 8), 77, np.uint8), "the truth has ids outside 0 to 20. Check the set"),
        ("ade", np.full((6, 8), 151, np.uint8), "the truth has ids outside 0 to 149"),
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


def test_an_image_of_a_benchmark_that_is_damaged(tmp_path):
    identifier = lay_out("voc", tmp_path)[1]
    image_path("voc", tmp_path, identifier).write_bytes(b"x")
    evaluation = Evaluation(tiny(), "v", benchmark("voc", tmp_path), (None,), threshold=0.3)
    with pytest.raises(ImageError, match=rf"{identifier}\.jpg: not a picture"):
        evaluation.compute(tmp_path / "out", tmp_path / "work")


@pytest.mark.parametrize("name", ["voc", "context", "coco", "voc20", "c59", "stuff", "city", "ade"])
@pytest.mark.filterwarnings("error")
def test_benchmarks_in_their_layout(tmp_path, name):
    lay_out(name, tmp_path)
    subject = benchmark(name, tmp_path)
    assert not subject.complete and len(subject.dataset) == len(subject.stamps) == 3
    assert (subject.names[0] == "background") == subject.background
    evaluation = Evaluation(tiny(), "v", subject, (None,), threshold=0.3)
    assert evaluation.model.config.window == 448
    _, found = evaluation.compute(tmp_path / "out", tmp_path / "work")
    # Each mask has a row of 1, a row of the last id, one of 255 where that may be, the rest of 0.
    zero_counts = name not in ("voc20", "c59", "ade")
    truth = found["pixel"].counts.sum(1)
    assert truth.sum() == 3 * 8 * (6 - load_benchmark(name).unlabelled if zero_counts else 2)
    assert truth[1 if zero_counts else 0] == truth[-1] == 3 * 8


@pytest.mark.parametrize("missing", [image_path, mask_path])
def test_a_file_of_a_benchmark_that_is_missing(tmp_path, missing):
    identifier = lay_out("ade", tmp_path)[2]
    path = missing("ade", tmp_path, identifier)
    path.unlink()
    # Without a list, an image that is missing is one that is not in the set.
    if missing is image_path:
        assert len(benchmark("ade", tmp_path).dataset) == 2
        return
    with pytest.raises(FileNotFoundError, match=rf"ade: {path} is missing: run 'mgca data check"):
        benchmark("ade", tmp_path)


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


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
            patched.setattr(evaluation_module, "write_run", full_disk)
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


def test_a_disk_that_is_full_while_counting(folders, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "_SAVE_EVERY", 0.0)
        patched.setattr(np, "savez", full_disk)
        with pytest.raises(OSError, match=r"cannot write .*counted\.npz: No space left on device"):
            evaluation_of(folders).compute(folders / "out", folders / "work")
    assert not [name for name in files_below(folders / "work") if "counted" in name]
    _, found = evaluation_of(folders).compute(folders / "out", folders / "work")
    assert counts_of(found) == counts_of(evaluate(tiny(), load(folders), (None, 16)))


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


@pytest.mark.parametrize("name, own", [("voc", "voc21"), ("voc20", "voc20")])
def test_voc_is_counted_as_our_own_reading_of_it(data_root, tmp_path, name, own):
    subject = benchmark(name, short_voc(data_root, tmp_path / "root", 4))
    model = Model(TinyBackbone())
    evaluation = Evaluation(model, "v", subject, (None, 36), threshold=0.2, temperature=0.1)
    _, found = evaluation.compute(tmp_path / "out", tmp_path / "work")
    data = load_masked(own, data_root).first(4)
    assert data.classes == subject.classes
    options = {"background": 0.2, "temperature": 0.1}
    expected = evaluate(model, data, (None, 36), **options)
    assert counts_of(found) == counts_of(expected)
    assert len(np.unique(found["pixel"].counts.nonzero()[0])) > 1
    assert not subject.complete


@pytest.mark.parametrize("name, images, shift", [("stuff", 14, 0), ("ade", 3, 1)])
def test_samples_of_other_benchmarks(data_root, tmp_path, name, images, shift):
    root = data_root / {"stuff": "coco_stuff164k", "ade": "ade20k_sample"}[name]
    subject = benchmark(name, root)
    assert len(subject.dataset) == images
    evaluation = Evaluation(Model(TinyBackbone()), "v", subject, (36,))
    _, found = evaluation.compute(tmp_path / "out", tmp_path / "work")
    truth = np.zeros(256, dtype=int)
    for path in (root / "annotations").rglob("*.png"):
        with Image.open(path) as image:
            ids = np.array(image)
        truth += np.bincount(ids.ravel(), minlength=256)
    assert found["36"].counts.sum(1).tolist() == truth[shift : shift + len(subject.names)].tolist()
    assert len(subject.names) == {"stuff": 171, "ade": 150}[name]
