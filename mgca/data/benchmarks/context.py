"""The masks of PASCAL Context: 59 classes of its 459, the rest background.

From ``trainval_merged.json``, as mmsegmentation and TCL have them, or from the original ``.mat``
files. The JSON is a later release of the annotations, so masks of the two need not be equal.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mgca.data.benchmarks import Benchmark
from mgca.data.benchmarks.converters import DRAWN_BYTES, Plan, Task, read_json
from mgca.data.benchmarks.files import list_items, require_root
from mgca.data.benchmarks.instances import decode_rle
from mgca.data.masks import DataError
from mgca.utils.files import damaged

log = logging.getLogger(__name__)

# The classes in the order of the benchmark, 1 to 59, with their numbers among the 459.
CLASSES = {
    "aeroplane": 2,
    "bag": 9,
    "bed": 18,
    "bedclothes": 19,
    "bench": 22,
    "bicycle": 23,
    "bird": 25,
    "boat": 31,
    "book": 33,
    "bottle": 34,
    "building": 44,
    "bus": 45,
    "cabinet": 46,
    "car": 59,
    "cat": 65,
    "ceiling": 68,
    "chair": 72,
    "cloth": 80,
    "computer": 85,
    "cow": 98,
    "cup": 104,
    "curtain": 105,
    "dog": 113,
    "door": 115,
    "fence": 144,
    "floor": 158,
    "flower": 159,
    "food": 162,
    "grass": 187,
    "ground": 189,
    "horse": 207,
    "keyboard": 220,
    "light": 232,
    "motorbike": 258,
    "mountain": 259,
    "mouse": 260,
    "person": 284,
    "plate": 295,
    "platform": 296,
    "pottedplant": 308,
    "road": 324,
    "rock": 326,
    "sheep": 347,
    "shelves": 349,
    "sidewalk": 354,
    "sign": 355,
    "sky": 360,
    "snow": 366,
    "sofa": 368,
    "table": 397,
    "track": 415,
    "train": 416,
    "tree": 420,
    "truck": 424,
    "tvmonitor": 427,
    "wall": 440,
    "water": 445,
    "window": 454,
    "wood": 458,
}
_JSON = "VOCdevkit/VOC2010/trainval_merged.json"
_MATS = "VOCdevkit/VOC2010/trainval"
_LABELS = "VOCdevkit/VOC2010/labels.txt"


def context(benchmark: Benchmark, root: Path, source: str | None) -> Plan:
    """The masks from the JSON where it is, else from the ``.mat`` files."""
    if source not in (None, "json", "mat"):
        raise ValueError(f"unknown source {source!r}, only json, mat")
    root = require_root(benchmark, root)
    file = root / _JSON
    if source != "mat" and file.is_file():
        return _from_json(benchmark, root, file)
    if source != "json" and (root / _MATS).is_dir():
        return _from_mats(benchmark, root)
    choices = {"json": file, "mat": root / _MATS, None: f"{file}, nor {root / _MATS}"}
    raise FileNotFoundError(f"{benchmark.name}: no {choices[source]}; {benchmark.where_to_get()}")


def class_ids(names: Mapping[int, str], place: str | Path) -> dict[int, int]:
    """From a number among the 459 to the benchmark's 1 to 59, for the classes it has.

    Args:
        names: The file's own name of each number, against which ours are held.
        place: The file, to name it in errors.

    Raises:
        DataError: If a class has another number there than expected, or its number is not listed:
            the file is of another release. A new name under the old number is only logged.
    """
    numbers = {name.strip(): number for number, name in names.items()}
    for name, number in CLASSES.items():
        if numbers.get(name, number) != number or number not in names:
            problem = f"has number {numbers[name]}" if name in numbers else "is missing"
            raise DataError(
                f"{place}: the class {name!r} {problem}, expected number {number}; "
                "is it a list of other labels?"
            )
        if name not in numbers:
            log.warning(
                "%s: number %d is called %r, taken as %r", place, number, names[number], name
            )
    return {number: position for position, number in enumerate(CLASSES.values(), start=1)}


def _from_json(benchmark: Benchmark, root: Path, file: Path) -> Plan:
    content = read_json(file, ("images", "annos_segmentation", "categories"))
    names = {entry["category_id"]: entry["name"] for entry in content["categories"]}
    ids = class_ids(names, file)
    images = {
        Path(image["file_name"]).stem: image
        for image in content["images"]
        if image["phase"] == benchmark.split
    }
    split = root / benchmark.layout.split_file
    texts = {}
    if split.is_file():  # a part of the split may be wanted
        chosen = [item.identifier for item in list_items(benchmark, root)]
        strange = [name for name in chosen if name not in images]
        if strange:
            raise DataError(
                f"{split}: {len(strange)} of {len(chosen)} are no {benchmark.split} images of "
                f"{file}, first {strange[0]}; delete the list to have it made anew"
            )
    else:
        chosen = sorted(images)
        texts[split] = "".join(f"{name}\n" for name in chosen)
    of_image: dict[int, list[dict]] = {}
    for annotation in content["annos_segmentation"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)

    def task(name: str) -> Task:
        image = images[name]
        annotations = of_image.get(image["image_id"], [])

        def make() -> np.ndarray:
            mask = np.zeros((image["height"], image["width"]), dtype=np.uint8)
            for annotation in annotations:  # in the order of the file, later ones on top
                try:
                    inside = decode_rle(annotation["segmentation"], *mask.shape)
                except DataError as error:
                    raise DataError(f"{file}: an annotation of {name}: {error}") from error
                mask[inside] = ids.get(annotation["category_id"], 0)
            return mask

        output = root / benchmark.layout.masks / f"{name}{benchmark.layout.mask_suffix}"
        return Task(output, make, DRAWN_BYTES)

    return Plan("trainval_merged.json", [task(name) for name in chosen], texts)


def _from_mats(benchmark: Benchmark, root: Path) -> Plan:
    labels = root / _LABELS
    if not labels.is_file():
        raise FileNotFoundError(f"{benchmark.name}: no {labels}; it comes with the .mat files")
    names = {}
    for line in labels.read_text(encoding="utf-8").splitlines():
        number, colon, name = line.partition(":")
        if line.strip() and not (colon and number.strip().isdigit()):
            raise DataError(f"{labels}: expected lines such as '1: accordion', got {line!r}")
        if colon:
            names[int(number)] = name
    table = np.zeros(2**16, dtype=np.uint8)
    for number, position in class_ids(names, labels).items():
        table[number] = position
    tasks = []
    for item in list_items(benchmark, root):
        file = root / _MATS / f"{item.identifier}.mat"
        if not file.is_file():
            raise FileNotFoundError(f"{benchmark.name}: no {file}; {benchmark.where_to_get()}")
        tasks.append(Task(item.mask, lambda file=file: table[read_mat(file)], DRAWN_BYTES))
    return Plan("the original .mat files", tasks)


def read_mat(file: Path) -> np.ndarray:
    """The numbers among the 459 (H, W) uint16 of a ``.mat`` file.

    Raises:
        DataError: If it is not such a file.
    """
    from scipy.io import loadmat

    with damaged(DataError, f"{file}: not a .mat file with a LabelMap"):
        numbers = loadmat(file)["LabelMap"]
    if numbers.ndim != 2 or numbers.dtype.kind not in "ui" or numbers.max(initial=0) > 459:
        raise DataError(f"{file}: its LabelMap is not of the 459 labels")
    return numbers.astype(np.uint16)
