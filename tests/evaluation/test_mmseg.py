"""What mmsegmentation sees of this project: segmentor, sets and metric in its own tools, and its
count of pixels as a counter of our loop."""

import importlib.util

import numpy as np
import pytest
import torch
from evaluated import (
    CLASSES,
    SIZES,
    UNITS,
    counts_of,
    draw,
    load,
    tiny,
)
from tiny import TinyBackbone

if importlib.util.find_spec("mmseg") is None:
    pytest.skip("needs the extra benchmarks", allow_module_level=True)
# Before mmsegmentation, which it silences.
mmseg = importlib.import_module("mgca.evaluation.mmseg")

from mmengine import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from mmseg.apis import inference_model, init_model  # noqa: E402
from mmseg.models.data_preprocessor import SegDataPreProcessor  # noqa: E402
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from mmseg.utils import stack_batch  # noqa: E402

from mgca.data.scenes.sets import evaluation_set  # noqa: E402
from mgca.evaluation.evaluate import evaluate, unit_name  # noqa: E402
from mgca.evaluation.metrics import Confusion  # noqa: E402
from mgca.evaluation.mmseg import Areas, MaskedImages, UnitIoU  # noqa: E402

# The loop and mmengine's Runner


def run_test(model, data, units, folder, background=None, temperature=None) -> dict:
    """What ``Runner.test()`` finds of a set of ours."""
    names = [unit_name(unit) for unit in units]
    classes = len(data.classes) + data.background
    metrics = [UnitIoU(unit, classes) for unit in names]
    runner = Runner(
        model=mmseg.OpenVocabulary(
            model,
            data.classes,
            units,
            background,
            temperature,
            data_preprocessor=SegDataPreProcessor(),
        ),
        work_dir=str(folder),
        test_dataloader={
            "dataset": MaskedImages(data),
            "batch_size": 1,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        },
        test_evaluator=metrics,
        test_cfg={"type": "TestLoop"},
        default_scope="mmseg",
        log_level="WARNING",
        experiment_name=f"{data.name}-{background}",
    )
    found = runner.test()
    return {metric.unit: (metric.confusion, found) for metric in metrics}


@pytest.mark.parametrize("name", ["folder", "folder with background", "things", "scenes"])
def test_the_runner_counts_what_the_loop_counts(folders, name):
    if name.startswith("folder"):
        data = load(folders, name != "folder")
    else:
        data = evaluation_set(name, 2)
    options = {"background": 0.3 if data.background else None, "temperature": 0.2}
    counters = {unit_name(unit): [Areas(len(data.classes) + data.background)] for unit in UNITS}
    ours = evaluate(tiny(), data, UNITS, counters=counters, **options)
    assert len({str(counts) for counts in counts_of(ours).values()}) == 3
    for unit, (confusion, found) in run_test(tiny(), data, UNITS, folders / "w", **options).items():
        assert (confusion.counts == ours[unit].counts).all()
        assert found[f"{unit}/miou"] == ours[unit].miou
        # mmsegmentation's own mean, from its own counts, wherever they were made.
        theirs = counters[unit][0].metrics(ours[unit])
        assert theirs == {key: float(found[f"{unit}/{key}"]) for key in ("aAcc", "mIoU", "mAcc")}
        assert theirs["mIoU"] == round(ours[unit].miou_with_absent, 2)


def test_mmsegmentations_mean_counts_classes_that_are_only_predicted(folders):
    counters = {unit_name(unit): [Areas(4)] for unit in UNITS}
    for unit, confusion in evaluate(tiny(), load(folders), UNITS, counters=counters).items():
        counts = confusion.counts.astype(float)
        hit, union = counts.diagonal(), counts.sum(0) + counts.sum(1) - counts.diagonal()
        # The last class is in no mask, but predicted: 0 for mmsegmentation, left out by ours.
        assert counts[3].sum() == 0 and union[3] > 0
        theirs = counters[unit][0].metrics(confusion)
        assert theirs["mIoU"] == round(100 * (hit / union).mean(), 2)
        assert theirs["aAcc"] == round(100 * hit.sum() / counts.sum(), 2)
        assert theirs["mAcc"] == round(100 * (hit[:3] / counts.sum(1)[:3]).mean(), 2)
        assert confusion.miou == pytest.approx(100 * (hit / union)[:3].mean())
        assert confusion.miou_with_absent == pytest.approx(100 * (hit / union).mean())


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
    expected = mmseg.areas(predicted, truth, 3, 255)
    monkeypatch.setattr(mmseg, "_EXACT", 200)
    assert torch.equal(mmseg.areas(predicted, truth, 3, 255), expected)


def test_counts_that_differ_from_mmsegmentations_are_an_error():
    ids = np.zeros((4, 4), np.uint8)
    counters = Confusion(2), Areas(2)
    for counter in counters:
        counter.add(ids, ids)
    counters[0].counts[0, 1] += 1
    with pytest.raises(RuntimeError, match="two counts of the union of each class differ"):
        counters[1].metrics(counters[0])
    metric, _ = metric_of(2, *torch.zeros(2, 4, 4).long())
    metric.confusion.counts[0, 1] += 1
    with pytest.raises(RuntimeError, match="two counts of the union of each class differ"):
        metric.evaluate(1)


def test_a_metric_serves_for_another_test():
    predicted, truth = torch.randint(3, (2, 50, 70))
    metric, sample = metric_of(3, predicted, truth)
    metric.evaluate(1)
    metric.process({}, [sample])
    assert metric.evaluate(1) == metric_of(3, predicted, truth)[0].evaluate(1)
    assert metric.confusion.counts.sum() == 50 * 70


# mmsegmentation's own tools


@pytest.fixture
def loaded(monkeypatch):
    """Arguments with which the segmentor loads its models; all are tiny."""
    given = []
    monkeypatch.setattr(
        "mgca.evaluation.mmseg.load", lambda **options: given.append(options) or tiny()
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


PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs"},
]


def test_the_segmentor_is_built_from_a_configuration(loaded):
    segmentor = MODELS.build(segmentor_config(background=0.3))
    assert isinstance(segmentor, mmseg.OpenVocabulary)
    assert loaded == [{"name": "lite", "decoder": None}]
    assert segmentor.num_classes == 5
    assert len(list(segmentor.parameters())) == len(list(segmentor.model.backbone.parameters())) + (
        len(list(segmentor.model.decoder.parameters()))
    )
    metric = METRICS.build({"type": "UnitIoU", "unit": "pixel", "classes": 5})
    assert isinstance(metric, UnitIoU)


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
    segmentor = mmseg.OpenVocabulary(tiny(), CLASSES, (None,))
    found = segmentor(batch, samples, mode="predict")
    for image, sample in zip(images, found, strict=True):
        expected = tiny().segment(image.numpy(), CLASSES, None).labels
        assert torch.equal(sample.pred_sem_seg.data[0], expected)


def test_padding_of_the_preprocessor():
    images = [torch.from_numpy(draw(k, (60, 80))[0].copy()).permute(2, 0, 1) for k in range(2)]
    preprocessor = SegDataPreProcessor(test_cfg={"size_divisor": 32}, bgr_to_rgb=True)
    segmentor = mmseg.OpenVocabulary(tiny(), CLASSES, (None,), data_preprocessor=preprocessor)
    samples = [SegDataSample(metainfo={"img_shape": (60, 80)}) for _ in images]
    found = segmentor.test_step({"inputs": images, "data_samples": samples})
    for image, sample in zip(images, found, strict=True):
        expected = tiny().segment(image.flip(0), CLASSES, None).labels
        assert torch.equal(sample.pred_sem_seg.data[0], expected)
        assert tuple(sample.pad_shape) == (64, 96)


def test_without_samples_the_whole_image_counts():
    image = torch.from_numpy(draw(0, (60, 80))[0].copy()).permute(2, 0, 1)
    segmentor = mmseg.OpenVocabulary(tiny(), CLASSES, (None,))
    for mode in ("predict", "tensor"):
        (found,) = segmentor(image[None].float(), None, mode=mode)
        assert torch.equal(found.pred_sem_seg.data[0], tiny().segment(image, CLASSES, None).labels)


def test_scores_features_and_no_loss():
    image = torch.from_numpy(draw(0, (64, 64))[0].copy()).permute(2, 0, 1)
    segmentor = mmseg.OpenVocabulary(tiny(), CLASSES, (16,), 0.3, 0.2)
    scores = segmentor.encode_decode(image[None].float(), [SegDataSample()])
    expected = tiny().segment(image, CLASSES, 16, 0.3, 0.2).scores
    assert scores.shape == (1, 5, 64, 64) and torch.equal(scores[0], expected)
    assert torch.equal(
        segmentor.extract_feat(image[None].float()), TinyBackbone().dense(image[None].float())
    )
    with pytest.raises(TypeError, match="not trained on masks: see mgca train"):
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
            assert registry.get(name) is getattr(mmseg, name)
