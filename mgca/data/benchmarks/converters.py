"""Which masks a benchmark needs and how each is made from what the download brings.

A conversion only plans: :mod:`mgca.data.benchmarks.prepare` runs the plan.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mgca.data.benchmarks import Benchmark, instances
from mgca.data.benchmarks.files import Item, list_items, made_by, read_ids
from mgca.data.masks import IGNORE, DataError

# Of a mask that is drawn: more than the largest of COCO, and not so much that it forbids anything.
DRAWN_BYTES = 32 * 1024

# The 91 things that COCO planned for, less those it never annotated, have these category ids.
_NEVER_ANNOTATED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
THINGS = tuple(i for i in range(1, 92) if i not in _NEVER_ANNOTATED)

# The ids of Cityscapes' labels whose trainIds are 0 to 18, in that order; others are not evaluated.
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


@dataclass(frozen=True)
class Task:
    """One mask to make.

    Attributes:
        output: Path of the mask.
        make: Function that computes its ids (H, W) uint8.
        size: About how many bytes the mask will take.
    """

    output: Path
    make: Callable[[], np.ndarray]
    size: int


@dataclass(frozen=True)
class Plan:
    """A conversion of a whole split.

    Attributes:
        source: What the masks are made from, in words; recorded in each and in the marker.
        tasks: One per mask.
        texts: Text files to write when all masks are there.
    """

    source: str
    tasks: list[Task]
    texts: dict[Path, str] = field(default_factory=dict)


def lookup(pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """A table (256,) from id to id; -1 for ids that are not among the pairs."""
    table = np.full(256, -1, dtype=np.int16)
    for old, new in pairs:
        table[old] = new
    return table


def _stuff_table() -> np.ndarray:
    """COCO-Stuff's pixel values, its category ids less 1, to 0 to 170.

    A map that holds a category that was never annotated counts from another number.
    """
    annotated = [i for i in range(182) if i + 1 not in _NEVER_ANNOTATED]
    return lookup([*((old, new) for new, old in enumerate(annotated)), (IGNORE, IGNORE)])


STUFF = _stuff_table()
# Everything but the 80 things is background, unlabelled pixels too: as GroupViT and TCL do it.
OBJECT = np.where(STUFF < 0, -1, np.where(STUFF < len(THINGS), STUFF + 1, 0)).astype(np.int16)
OBJECT_OF_STUFF = lookup([(i, i + 1 if i < len(THINGS) else 0) for i in [*range(171), IGNORE]])
# Without 255, which labelIds never hold and trainIds do.
CITYSCAPES = lookup(
    [
        *((i, IGNORE) for i in range(34)),
        *((old, new) for new, old in enumerate(_CITYSCAPES)),
    ]
)


def convert_ids(path: Path, table: np.ndarray, made_of: str | None = None) -> np.ndarray:
    """The ids (H, W) uint8 of a mask after a table of :func:`lookup`.

    Args:
        path: The mask, or map, as it is.
        table: What each of its ids becomes.
        made_of: The conversion by which the mask may have been made; None for a map that comes
            from an archive.

    Raises:
        DataError: If the mask cannot be read, was made by another conversion, or holds an id that
            the table does not.
    """
    ids = read_ids(path)
    if (other := made_by(path)) not in (None, made_of):
        raise DataError(f"{path}: is a mask that the conversion {other} made: take the original")
    wide = ids.max(initial=0) > 255 or ids.min(initial=0) < 0
    new = table[np.clip(ids, 0, 255)]
    if wide or (new < 0).any():
        wrong = ids[(new < 0) | (ids < 0) | (ids > 255)]
        raise DataError(f"{path}: id {int(wrong[0])} is none that this data set's masks hold")
    return new.astype(np.uint8)


def _from_maps(
    benchmark: Benchmark,
    items: list[Item],
    suffix: str,
    table: np.ndarray,
    made_of: str | None = None,
) -> list[Task] | None:
    """A task per item with a map of that suffix where its mask will be; None if there is no map.

    Args:
        benchmark: The benchmark whose masks are made.
        items: The images that need a mask.
        suffix: What follows an identifier in the name of a map.
        table: What each id of a map becomes.
        made_of: The conversion by which the maps may have been made, as in :func:`convert_ids`.

    Raises:
        FileNotFoundError: If there are maps of some items only.
    """
    maps = [_beside(benchmark, item, suffix) for item in items]
    missing = [path for path in maps if not path.is_file()]
    if len(missing) == len(maps):
        return None
    if missing:
        raise _missing(benchmark, f"map {missing[0]} ({len(missing)} of {len(maps)} are missing)")
    return [
        Task(item.mask, lambda raw=raw: convert_ids(raw, table, made_of), raw.stat().st_size)
        for item, raw in zip(items, maps, strict=True)
    ]


def _beside(benchmark: Benchmark, item: Item, suffix: str) -> Path:
    stem = item.mask.name.removesuffix(benchmark.layout.mask_suffix)
    return item.mask.with_name(stem + suffix)


def _missing(benchmark: Benchmark, what: str) -> FileNotFoundError:
    return FileNotFoundError(f"{benchmark.name}: no {what}; {benchmark.where_to_get()}")


def coco_stuff(benchmark: Benchmark, root: Path, source: str | None) -> Plan:
    """COCO-Stuff's maps (0 to 181) to the ids of the benchmark (0 to 170)."""
    _one_of(source, ("stuff",))
    items = list_items(benchmark, root)
    tasks = _from_maps(benchmark, items, ".png", STUFF)
    if tasks is None:
        raise _missing(benchmark, f"pixel map {_beside(benchmark, items[0], '.png')}")
    return Plan("COCO-Stuff's pixel maps", tasks)


def coco_object(benchmark: Benchmark, root: Path, source: str | None) -> Plan:
    """COCO's things over a background: from COCO-Stuff's maps, else from the instances."""
    _one_of(source, ("stuff", "instances"))
    items = list_items(benchmark, root)
    if source != "instances":
        for suffix, table, made_of in (
            (".png", OBJECT, None),
            ("_labelTrainIds.png", OBJECT_OF_STUFF, "coco-stuff"),
        ):
            tasks = _from_maps(benchmark, items, suffix, table, made_of)
            if tasks is not None:
                return Plan("COCO-Stuff's pixel maps", tasks)
    file = root / "annotations" / "instances_val2017.json"
    maps = f"pixel map {_beside(benchmark, items[0], '.png')}"
    if source == "stuff":
        raise _missing(benchmark, maps)
    if not file.is_file():
        raise _missing(benchmark, str(file) if source else f"{maps}, nor {file}")
    return Plan("COCO's instances", _instance_tasks(items, file))


def _instance_tasks(items: list[Item], file: Path) -> list[Task]:
    content = read_json(file, ("images", "annotations", "categories"))
    if tuple(sorted(category["id"] for category in content["categories"])) != THINGS:
        raise DataError(f"{file}: its categories are not the 80 of COCO's instances")
    ids = {category: number for number, category in enumerate(THINGS, start=1)}
    images = {image["file_name"]: image for image in content["images"]}
    of_image: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)

    def task(item: Item) -> Task:
        if item.image.name not in images:
            raise DataError(f"{file}: does not list {item.image.name}")
        image = images[item.image.name]
        annotations = of_image.get(image["id"], [])

        def make() -> np.ndarray:
            try:
                return instances.render(
                    annotations, image["height"], image["width"], ids.__getitem__
                )
            except DataError as error:
                raise DataError(f"{file}, {item.image.name}: {error}") from error

        return Task(item.mask, make, DRAWN_BYTES)

    return [task(item) for item in items]


def read_json(file: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Those entries of a JSON file; the others are dropped, for they can take gigabytes.

    Raises:
        DataError: If it is not JSON, damaged, or lacks one of them.
    """
    try:
        with file.open(encoding="utf-8") as text:
            content = json.load(text)
    except ValueError as error:
        raise DataError(f"{file}: not JSON, or cut off ({error})") from error
    lost = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lost:
        raise DataError(f"{file}: has no {', '.join(lost)}; is it another file of that name?")
    return {key: content[key] for key in keys}


def cityscapes(benchmark: Benchmark, root: Path, source: str | None) -> Plan:
    """The label ids (0 to 33) of Cityscapes to its 19 trainIds."""
    _one_of(source, ("labels",))
    items = list_items(benchmark, root)
    tasks = _from_maps(benchmark, items, "_gtFine_labelIds.png", CITYSCAPES)
    if tasks is None:
        raise _missing(benchmark, f"mask {_beside(benchmark, items[0], '_gtFine_labelIds.png')}")
    return Plan("Cityscapes' labelIds", tasks)


def _one_of(source: str | None, known: tuple[str, ...]) -> None:
    if source is not None and source not in known:
        raise ValueError(f"unknown source {source!r}, only {', '.join(known)}")
