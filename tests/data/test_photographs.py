"""The sets of photographs, from small archives of the official layouts."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from mgca.cli import main
from mgca.data import photographs
from mgca.data.captions import load_captions
from mgca.data.masks import load_masked
from mgca.data.photographs import content_digest, ids, prepare_photographs

IDS = {
    "voc2012": {"val": "2007_1 2007_2", "train_extra": "2007_3"},
    "coco_object": {"val": "000000000007 000000000009", "val2017_ids": "000000000009"},
    "camvid": {"train": "01_a"},
    "flickr8k": {"train": "11_aa 22_bb", "val": "33_cc"},
}


def picture(path, seed=0, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def mask(path, *values, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.resize(np.array(values, dtype=np.uint8), size[::-1])
    Image.fromarray(labels).save(path)
    return labels


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """What the archives unpack to, COCO in a folder of its own."""
    known = {"ids": IDS, "digests": {}}
    monkeypatch.setattr(photographs, "_known", lambda: known)
    root = tmp_path / "archives"
    voc = root / "VOCdevkit" / "VOC2012"
    for name in ("2007_1", "2007_2", "2007_3", "2007_4"):
        picture(voc / "JPEGImages" / f"{name}.jpg")
        mask(voc / "SegmentationClass" / f"{name}.png", 0, 15, 255)
    coco = root / "coco"
    for split, number in (("train2017", 7), ("val2017", 9)):
        picture(coco / split / f"{number:012}.jpg")
        image = {"id": number, "height": 20, "width": 30}
        box = {"image_id": number, "id": 1, "category_id": 13, "area": 50.0}  # stop sign, thing 12
        box["segmentation"] = [[0, 0, 10, 0, 10, 5, 0, 5]]
        for kind, content in (
            ("instances", {"images": [image], "annotations": [box]}),
            ("captions", {"annotations": [{"image_id": number, "caption": "A sign.\n"}]}),
        ):
            path = coco / "annotations" / f"{kind}_{split}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content))
    picture(root / "CamVid" / "train" / "01_a.png")
    mask(root / "CamVid" / "trainannot" / "01_a.png", 0, 10, 11)
    rows = []
    for number, name in enumerate(("11_aa", "22_bb", "33_cc", "44_dd")):
        picture(root / "Flicker8k_Dataset" / f"{name}.jpg", number, size=(300, 200))
        rows += [f"{name}.jpg#{n}\tA dog , number {n} ." for n in range(2)]
    rows.append("broken.jpg.1#0\tA line of the official file .")
    (root / "Flickr8k.token.txt").write_text("\n".join(rows) + "\n")
    return root, known


def test_sets_are_built_and_can_be_read(archives, tmp_path):
    pytest.importorskip("pycocotools", reason="needs the extra benchmarks")
    root, known = archives
    out = tmp_path / "photos"
    built = prepare_photographs(root, out)
    assert [(one.name, one.images, one.missing) for one in built] == [
        ("voc2012", 3, ""),
        ("coco_object", 2, ""),
        ("camvid", 1, ""),
        ("flickr8k", 3, ""),
    ]
    voc, every = load_masked("voc21", out), load_masked("voc20-all", out)
    assert len(voc) == 2 and len(every) == 3
    original = root / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_1.jpg"
    assert voc.items[0][1].read_bytes() == original.read_bytes()
    coco = load_masked("coco81", out)
    assert set(np.unique(coco.mask(0))) == {0, 12} and (coco.mask(0)[:4, :9] == 12).all()
    assert [name for name, *_ in load_masked("coco80-val", out).items] == ["000000000009"]
    assert set(np.unique(load_masked("camvid", out).mask(0))) == {0, 10, 255}
    flickr = load_captions(out / "flickr8k" / "captions_train.tsv")
    assert flickr.captions == [[f"A dog , number {n} ." for n in range(2)]] * 2
    assert Image.open(flickr.images[0]).size == (224, 224)
    for name in IDS:
        for line in (out / name / "MANIFEST.sha256").read_text().splitlines():
            digest, path = line.split("  ")
            assert hashlib.sha256((out / name / path).read_bytes()).hexdigest() == digest

    # Again: what is there stays, and it is compared with what is known.
    image = out / "voc2012" / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_1.jpg"
    where = image.relative_to(out / "voc2012").as_posix()
    known["digests"] = {"voc2012": {where: content_digest(image), f"{where[:-5]}2.jpg": "other"}}
    before = image.stat().st_mtime_ns
    (voc, *_) = prepare_photographs(root, out)
    assert (voc.equal, voc.compared) == (1, 2) and image.stat().st_mtime_ns == before


def test_what_is_missing_is_said_with_its_terms(archives, tmp_path, capsys):
    root, _ = archives
    (root / "Flickr8k.token.txt").unlink()
    (root / "coco" / "annotations" / "captions_val2017.json").unlink()
    (root / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2007_2.jpg").unlink()
    out = tmp_path / "photos"
    words = ["data", "prepare", "photos", "--root", str(root)]
    assert main([*words, "--out", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "2007_2.jpg is missing; get it from http://host.robots.ox.ac.uk" in lines[0]
    assert "no annotations/captions_val2017.json" in lines[1] and "CC BY 4.0" in lines[1]
    assert lines[2].startswith("CamVid, as SegNet groups its classes: 1 images")
    assert "no Flickr8k.token.txt" in lines[3] and "by request" in lines[3]
    assert not (out / "voc2012").exists() and (out / "camvid" / "MANIFEST.sha256").is_file()
    assert main(words) == 2
    assert main(["data", "prepare", "city", "--root", str(root), "--out", str(out)]) == 2


def test_the_package_knows_which_images_they_are():
    assert [len(ids("voc2012", split)) for split in ("val", "train_extra")] == [297, 67]
    assert [len(ids("coco_object", split)) for split in ("val", "val2017_ids")] == [240, 137]
    assert len(ids("camvid", "train")) == 123
    assert [len(ids("flickr8k", split)) for split in ("train", "val")] == [7291, 300]
    assert set(ids("coco_object", "val2017_ids")) < set(ids("coco_object", "val"))


def test_the_copy_at_hand_is_the_one_that_is_known(data_root):
    known = photographs._known()["digests"]
    for name, files in known.items():
        path = next(iter(files))
        assert content_digest(data_root / name / path) == files[path]
