"""Segmentations in other tools' formats: what they say is what the labels say."""

import base64
import doctest
import io
import math
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from tiny import TinyBackbone

import mgca.inference.formats
import mgca.inference.polygons
import mgca.inference.segmentation
from mgca.config import SegmentConfig
from mgca.inference.overlay import palette
from mgca.inference.polygons import polygons
from mgca.inference.score_map import ScoreMap
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Embedded
from mgca.inference.windows import window_boxes
from mgca.model import Model

SMALL = SegmentConfig(short_side=64, window=64, stride=32)


@pytest.fixture(scope="module")
def model():
    return Model(TinyBackbone(), None, SMALL)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def of_labels(labels: np.ndarray, classes: list[str], **options) -> Segmentation:
    """A segmentation with exactly these labels, background aside."""
    height, width = labels.shape
    maps = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), len(classes))
    windows = Embedded(
        Image.new("RGB", (width, height)),
        (height, width),
        window_boxes(height, width, 1000, 1000),
        (height, width),
        torch.empty(0),
    )
    scores = ScoreMap.of_maps(maps.permute(2, 0, 1)[None].float())
    return Segmentation(windows, classes, scores, **options)


def drawn(found: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """How many polygons cover each pixel: its centre is inside if a ray crosses an odd number."""
    count = np.zeros((height, width), dtype=int)
    for y in range(height):
        for x in range(width):
            for corners in found:
                after = np.roll(corners, -1, axis=0)
                rising = (corners[:, 1] > y + 0.5) != (after[:, 1] > y + 0.5)
                count[y, x] += (rising & (corners[:, 0] > x + 0.5)).sum() % 2
    return count


MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda size: arrays(bool, size))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(mask=MASKS)
def test_polygons_cover_each_pixel_of_the_mask_once(mask):
    found = polygons(mask)
    assert np.array_equal(drawn(found, *mask.shape), mask)
    for corners in found:
        after = np.roll(corners, -1, axis=0)
        twice_area = (corners[:, 0] * after[:, 1] - after[:, 0] * corners[:, 1]).sum()
        assert twice_area > 0  # clockwise where y points down
        step = after - corners
        assert ((step != 0).sum(axis=1) == 1).all()
        assert ((step != 0) != (np.roll(step, 1, axis=0) != 0)).any(axis=1).all()  # each one turns


def test_a_region_with_two_holes_is_cut_at_each():
    mask = np.ones((5, 9), dtype=bool)
    mask[2, 2] = mask[1:4, 6] = False
    mask[0, 0] = False  # no hole
    assert len(polygons(mask)) == 3
    pocket = np.ones((4, 4), dtype=bool)
    pocket[0, 0] = pocket[1, 1] = False  # open at a corner, so that nothing need be cut
    assert len(polygons(pocket)) == 1
    assert len(polygons(np.eye(3, dtype=bool))) == 3
    assert polygons(np.zeros((3, 3))) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(labels=arrays(np.uint8, (7, 9), elements=st.integers(0, 3)), rle=st.booleans())
def test_coco_comes_back_as_the_same_masks(labels, rle):
    coder = pytest.importorskip("pycocotools.mask")
    classes = ["cat", "dog", "sky", "grass"]
    found = of_labels(labels, classes).to_coco(image_id=5, rle=rle)
    assert found["images"] == [{"id": 5, "width": 9, "height": 7}]
    assert [c["name"] for c in found["categories"]] == classes
    back = np.full((7, 9), 255)
    for annotation in found["annotations"]:
        mask = annotation["segmentation"]
        if not rle:
            mask = coder.merge(coder.frPyObjects(mask, 7, 9))
        decoded = coder.decode(mask).astype(bool)
        assert (back[decoded] == 255).all()
        back[decoded] = annotation["category_id"] - 1
        assert annotation["area"] == decoded.sum() and annotation["image_id"] == 5
        assert annotation["bbox"] == coder.toBbox(coder.encode(np.asfortranarray(decoded))).tolist()
    assert np.array_equal(back, labels)


def test_pycocotools_reads_it(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    labels = np.array([[0, 0, 2], [0, 1, 2]], dtype=np.uint8)
    data = of_labels(labels, ["cat", "dog", "sky"]).to_coco()
    api = coco.COCO()
    api.dataset = data
    api.createIndex()
    masks = {a["category_id"]: api.annToMask(a) for a in api.loadAnns(api.getAnnIds())}
    assert all(np.array_equal(masks[k + 1], labels == k) for k in range(3))


def test_ids_of_coco_are_the_same_with_a_background_and_no_other_images():
    labels = np.array([[0, 1]], dtype=np.uint8)
    plain = of_labels(labels, ["cat", "dog"])
    kept = of_labels(labels, ["cat", "dog"], background=0.0)
    assert kept.labels.tolist() == [[1, 2]]
    assert plain.to_coco() == kept.to_coco()
    ids = [a["id"] for i in (1, 2, 3) for a in plain.to_coco(image_id=i)["annotations"]]
    assert ids == [1, 2, 3, 4, 5, 6]
    nothing = of_labels(labels, ["cat", "dog"], background=1.0).to_coco()
    assert nothing["annotations"] == [] and len(nothing["categories"]) == 2


def test_the_example_of_the_docstring():
    assert doctest.testmod(mgca.inference.polygons) == (0, 1)


@pytest.mark.parametrize(("classes", "mode", "dtype"), [(256, "P", "u1"), (257, "I;16", "u2")])
def test_label_images_come_back_from_png(classes, mode, dtype):
    labels = np.random.default_rng(0).integers(0, classes, (6, 50))
    labels[0, 0] = classes - 1
    found = of_labels(labels, [f"class {k}" for k in range(classes)])
    assert found.to_numpy().dtype == np.dtype(dtype)
    assert np.array_equal(found.to_numpy(), labels)
    buffer = io.BytesIO()
    found.to_pil().save(buffer, "PNG")
    back = Image.open(buffer)
    assert back.mode == mode and np.array_equal(np.asarray(back), labels)
    if mode == "P":
        assert np.array_equal(np.asarray(back.convert("RGB")), palette(found.classes)[labels])


def test_table_counts_the_labels(model, photo):
    found = model.segment(photo, ["cat", "dog", "sky"], 16, background=0.36)
    table = found.to_pandas()
    assert list(table["class"]) == ["background", "cat", "dog", "sky"]
    assert table.index.name == "label" and table["pixels"].sum() == 40 * 60
    cosines = model.segment(photo, ["cat", "dog", "sky"], 16).scores
    for label, row in table.iterrows():
        mask = found.labels == label
        assert row["pixels"] == mask.sum() and row["area"] == pytest.approx(row["pixels"] / 2400)
        if label == 0 or not mask.any():
            assert math.isnan(row["score"])
        else:
            assert row["score"] == pytest.approx(cosines[label - 1][mask].mean().item(), abs=1e-6)


def test_the_mean_score_of_many_pixels_is_of_some_spread_evenly(monkeypatch, model, photo):
    found = model.segment(photo, ["cat", "dog"], None)
    expected = {}
    for k, name in enumerate(found.classes):
        values = found.scores[k][found.labels == k]
        chosen = [i * len(values) // 7 for i in range(7)]
        expected[name] = values[chosen].mean().item()
    monkeypatch.setattr(mgca.inference.segmentation, "_LOOKUP", 7)
    assert found.mean_scores() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("background", [None, 0.3])
def test_probabilities_are_the_softmax_over_the_classes(model, photo, background):
    scores = model.segment(photo, ["cat", "dog", "sky"], 16).scores
    expected = (scores / model.backbone.temperature).softmax(0).flatten(1)
    found = torch.full_like(expected, -1)
    result = model.segment(photo, ["cat", "dog", "sky"], 16, background=background)
    for pixels, values in result.probabilities():
        found[:, pixels] = values.t()
    torch.testing.assert_close(found, expected)


def test_supervision_has_the_masks_of_the_labels():
    pytest.importorskip("supervision")
    labels = np.array([[0, 0, 0, 2], [0, 0, 0, 2]], dtype=np.uint8)
    found = of_labels(labels, ["cat", "dog", "sky"], background=0.0)
    detections = found.to_supervision()
    assert detections.class_id.tolist() == [1, 3]
    assert detections.data["class_name"].tolist() == ["cat", "sky"]
    assert np.array_equal(detections.mask, [labels == 0, labels == 2])
    assert detections.xyxy.tolist() == [[0, 0, 2, 1], [3, 0, 3, 1]]
    back = np.zeros_like(labels)
    for mask, label in zip(detections.mask, detections.class_id, strict=True):
        back[mask] = label
    assert np.array_equal(back, found.to_numpy())
    assert len(of_labels(labels, ["cat", "dog", "sky"], background=1.0).to_supervision()) == 0


def test_mmseg_has_the_labels(model, photo):
    pytest.importorskip("mmseg")
    found = model.segment(photo, ["cat", "dog"])
    sample = found.to_mmseg()
    assert torch.equal(sample.pred_sem_seg.data, found.labels[None])
    assert sample.metainfo["classes"] == ("cat", "dog")
    assert sample.metainfo["ori_shape"] == (40, 60)


@pytest.mark.parametrize(
    ("module", "convert", "extra"),
    [
        ("pycocotools", lambda s: s.to_coco(), "formats"),
        ("supervision", lambda s: s.to_supervision(), "formats"),
        ("mmseg.structures", lambda s: s.to_mmseg(), "benchmarks"),
    ],
)
def test_a_missing_tool_is_named_with_its_extra(monkeypatch, module, convert, extra):
    for name in [n for n in sys.modules if n.split(".")[0] == module.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    found = of_labels(np.zeros((2, 2), dtype=np.uint8), ["cat"])
    with pytest.raises(ImportError, match=re.escape(f"pip install 'mgca[{extra}]'")):
        convert(found)
    assert found.to_coco(rle=False)["annotations"][0]["segmentation"] == [[0, 0, 2, 0, 2, 2, 0, 2]]


def test_a_representation_is_a_line():
    few = of_labels(np.zeros((2, 4), dtype=np.uint8), ["cat", "sky"])
    assert repr(few) == "<Segmentation of 4x2 pixels into cat, sky>"
    many = of_labels(np.zeros((2, 4), dtype=np.uint8), [f"c{k}" for k in range(10)])
    assert repr(many).endswith("into c0, c1, c2, c3, c4, c5, c6, c7 and 2 more>")


def test_notebooks_show_the_picture_and_the_areas():
    labels = np.array([[1, 1, 1, 0]] * 2, dtype=np.uint8)
    found = of_labels(labels, ["<b>cat</b>", 'a "dog"', "sky"])
    page = found._repr_html_()
    assert "&lt;b&gt;cat" in page and "<b>" not in page and "sky" not in page
    rows = re.findall(r"rgb\((\d+),(\d+),(\d+)\).*?([\d.]+) %", page)
    assert [row[3] for row in rows] == ["75.0", "25.0"]
    assert [int(v) for v in rows[0][:3]] == palette(found.classes)[1].tolist()
    assert 'alt="segmentation into a &quot;dog&quot;, &lt;b&gt;cat&lt;/b&gt;"' in page
    assert found._repr_png_()[:4] == b"\x89PNG"


def test_pages_stay_small_whatever_the_image_and_the_classes(monkeypatch):
    monkeypatch.setattr(mgca.inference.formats, "_SHOWN", 90)
    labels = np.arange(130 * 100).reshape(130, 100) % 200
    page = of_labels(labels, [f"class {k}" for k in range(200)])._repr_html_()
    assert page.count("<tr>") == 25 and "and 176 more" in page
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])
    assert Image.open(io.BytesIO(picture)).size == (69, 90)


def test_every_kind_of_image_gives_the_same_labels(model, photo, tmp_path):
    path, buffer = tmp_path / "photo.png", io.BytesIO()
    Image.fromarray(photo).save(path)
    Image.fromarray(photo).save(buffer, "PNG")
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    kinds = [path, str(path), buffer.getvalue(), Image.fromarray(photo), tensor, tensor / 255]
    expected = model.segment(photo, ["cat", "dog", "sky"]).labels
    assert len(expected.unique()) > 1
    for image in kinds:
        assert torch.equal(model.segment(image, ["cat", "dog", "sky"]).labels, expected)
