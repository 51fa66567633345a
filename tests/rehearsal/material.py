"""What the rehearsal works on: a tiny open_clip model, shards, and the eight benchmarks in their
official layouts, made of the real images at hand.

VOC, COCO-Object, COCO-Stuff and ADE20K have their own images and masks. Two have no image here, and
their masks are **relabelled**: Context's are VOC's, under Context's names, and Cityscapes' are
CamVid's, frames of another town cut to its shape. But for COCO-Object, whose masks are drawn from
its instances, all are made half as wide and high, which saves time.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from mgca.data.benchmarks import classes, load_benchmark
from mgca.data.benchmarks.prepare import prepare
from mgca.data.captions import load_captions
from mgca.data.shards.pack import pack

MODEL = "rehearsal-vit"
#: ViT with two blocks and windows of its own size; texts of two blocks. 448 x 448 windows are four
#: times its own, so that positions are resized as CLIP's are.
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 112,
        "layers": 2,
        "width": 64,
        "head_width": 16,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
#: Context's names of VOC's classes that have others there.
CONTEXT = {"diningtable": "table"}
#: labelIds of Cityscapes for CamVid's eleven classes, in their order.
CITYSCAPES = (23, 11, 17, 7, 8, 21, 20, 13, 26, 24, 33)
_VOC = "VOCdevkit/VOC2012"


def model_file(folder: Path) -> Path:
    """The model as the JSON file that open_clip registers."""
    path = folder / f"{MODEL}.json"
    path.write_text(json.dumps(CONFIG))
    return path


def shards(data: Path, folder: Path, images: int = 96, each: int = 24) -> Path:
    """The first images of Flickr8k with their captions, in four shards."""
    captions = load_captions(data / "flickr8k" / "captions_train.tsv")
    pack(captions.first(images), folder, samples_per_shard=each)
    return folder


def benchmarks(data: Path, folder: Path, images: int = 1) -> dict[str, Path]:
    """The eight benchmarks with so many images each; the root of each by its name."""
    voc, context = folder / "voc2012", folder / "voc2010"
    roots = {"voc": voc, "voc20": voc, "context": context, "c59": context}
    _voc(data, voc, images)
    _context(data, context, images)
    for name, make in {"coco": _coco, "stuff": _stuff, "city": _city, "ade": _ade}.items():
        roots[name] = folder / name
        make(data, roots[name], images)
    return roots


def _voc(data: Path, root: Path, images: int) -> None:
    source, target = data / "voc2012" / _VOC, root / _VOC
    for split in ("val", "train_extra"):
        names = (source / f"ImageSets/Segmentation/{split}.txt").read_text().split()[:images]
        listed = target / f"ImageSets/Segmentation/{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names) + "\n")
        for name in names:
            _half(source / f"JPEGImages/{name}.jpg", target / f"JPEGImages/{name}.jpg")
            _half(
                source / f"SegmentationClass/{name}.png", target / f"SegmentationClass/{name}.png"
            )


def _context(data: Path, root: Path, images: int) -> None:
    source = data / "voc2012" / _VOC
    ids = {name: 1 + place for place, name in enumerate(classes(load_benchmark("c59")))}
    table = np.zeros(256, dtype=np.uint8)
    for place, name in enumerate(classes(load_benchmark("voc"))):
        table[1 + place] = ids[CONTEXT.get(name, name)]
    layout = load_benchmark("context").layout
    names = (source / "ImageSets/Segmentation/val.txt").read_text().split()[-images:]
    listed = root / str(layout.split_file)
    listed.parent.mkdir(parents=True)
    listed.write_text("\n".join(names) + "\n")
    for name in names:
        _half(source / f"JPEGImages/{name}.jpg", root / layout.images / f"{name}.jpg")
        made = root / layout.masks / f"{name}.png"
        _half(source / f"SegmentationClass/{name}.png", made)
        with Image.open(made) as mask:
            _save(table[np.array(mask)], made)


def _coco(data: Path, root: Path, images: int) -> None:
    """Images and instances as COCO brings them; ``mgca data prepare`` makes the masks."""
    source = data / "coco_object"
    names = (source / "val2017_ids.txt").read_text().split()[:images]
    for name in names:
        file = f"{int(name):012}.jpg"
        _copy(source / "images" / file, root / "images" / "val2017" / file)
    (root / "annotations").mkdir()
    _copy(source / "instances.json", root / "annotations" / "instances_val2017.json")
    prepare(load_benchmark("coco"), root)


def _stuff(data: Path, root: Path, images: int) -> None:
    source = data / "coco_stuff164k"
    for path in sorted((source / "images" / "val2017").iterdir())[:images]:
        _half(path, root / "images" / "val2017" / path.name)
        mask = f"annotations/val2017/{path.stem}_labelTrainIds.png"
        _half(source / mask, root / mask)


def _city(data: Path, root: Path, images: int) -> None:
    """Frames and labelIds as Cityscapes brings them; ``mgca data prepare`` makes the trainIds."""
    source, table = data / "camvid", np.zeros(256, dtype=np.uint8)
    table[: len(CITYSCAPES)] = CITYSCAPES
    for path in sorted((source / "images").iterdir())[:images]:
        with Image.open(path) as image, Image.open(source / f"annotations/{path.stem}.png") as mask:
            box = (0, 60, 480, 300)  # twice as wide as high
            frame, ids = image.crop(box), table[np.array(mask.crop(box))]
        place = f"camvid/camvid_{path.stem}"
        images_at = root / "leftImg8bit/val" / f"{place}_leftImg8bit.png"
        images_at.parent.mkdir(parents=True, exist_ok=True)
        frame.convert("RGB").save(images_at)
        _save(ids, root / "gtFine/val" / f"{place}_gtFine_labelIds.png")
    prepare(load_benchmark("city"), root)


def _ade(data: Path, root: Path, images: int) -> None:
    for path in sorted((data / "ade20k_sample/images/validation").iterdir())[:images]:
        _half(path, root / "images/validation" / path.name)
        mask = f"annotations/validation/{path.stem}.png"
        _half(data / "ade20k_sample" / mask, root / mask)


def _half(source: Path, target: Path) -> None:
    """A picture, or a mask, which is a PNG, at half its width and height."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        size = (image.width // 2, image.height // 2)
        how = Image.Resampling.NEAREST if source.suffix == ".png" else Image.Resampling.BICUBIC
        image.resize(size, how).save(target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _save(ids: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)
