"""Images with masks, as they lie on disk, checked before use."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mgca.config import BACKGROUND
from mgca.prompts import check_classes
from mgca.utils.files import damaged, file_digest
from mgca.utils.images import open_image, refuse_programs

IGNORE = 255


class DataError(ValueError):
    """A data set that is not as it should be; the message says what to do."""


def read_mask(path: str | os.PathLike) -> tuple[str, np.ndarray]:
    """Pillow's mode of a mask, and what its file holds as it is there.

    Raises:
        DataError: If it cannot be read.
    """
    with damaged(DataError, f"{path}: not a readable mask"), Image.open(path) as image:
        refuse_programs(image, "the mask")
        return image.mode, np.array(image)


def data_root(folder: str | os.PathLike | None = None) -> Path | None:
    """The folder of the real data sets: the one given, $MGCA_DATA, or ../shared/data.

    None if none was given and the defaults are not there.

    Raises:
        FileNotFoundError: If the folder given, or $MGCA_DATA, does not exist.
    """
    chosen = folder or os.environ.get("MGCA_DATA")
    if chosen:
        if not Path(chosen).is_dir():
            raise FileNotFoundError(f"no data folder {chosen}")
        return Path(chosen)
    default = Path("../shared/data")
    return default if default.is_dir() else None


@dataclass(frozen=True)
class Masked:
    """Images with a class id for every pixel.

    Attributes:
        name: Name of the set.
        items: (identifier, image path, mask path) of each image.
        classes: Names that are asked for; ``masks`` holds their indices, or 255 for ignored.
        subtract: Subtracted from the ids on disk; negative results are ignored.
        digest: SHA-256 of the set's own manifest.
        background: Whether id 0 of ``masks`` is the background and class ``i`` is ``1 + i``.
        source: Names the images: sets of one source have the same under the same identifiers.
        foreground: Id on disk of the one class, which becomes 1; all else is background. None where
            ids are those of the classes.
    """

    name: str
    items: list[tuple[str, Path, Path]]
    classes: tuple[str, ...]
    subtract: int
    digest: str
    background: bool = False
    source: str = ""
    foreground: int | None = None

    def __post_init__(self) -> None:
        if not self.source:
            object.__setattr__(self, "source", self.name)

    def __len__(self) -> int:
        return len(self.items)

    def ids(self, index: int) -> np.ndarray:
        """The ids (H, W) of an image's mask as they are on disk.

        Raises:
            DataError: If the mask cannot be read, or has more than one channel.
        """
        path = self.items[index][2]
        _, ids = read_mask(path)
        if ids.ndim != 2 or ids.dtype.kind not in "bui":
            colours = ": its colours must be made ids" if ids.ndim == 3 else ""
            raise DataError(
                f"{path}: a mask has one channel of class ids, this has {ids.dtype} {ids.shape}"
                f"{colours}"
            )
        return ids.astype(np.int64)

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """The mask (H, W) uint8 of an image: indices into ``classes``, or 255.

        Args:
            index: Position of the image in the set.
            size: (H, W) of the image, to check the mask against.

        Raises:
            DataError: If the mask has another size, more than one channel, or unknown ids.
        """
        identifier, _, path = self.items[index]
        ids = self.ids(index)
        if size is not None and ids.shape != tuple(size):
            raise DataError(
                f"{path}: the mask is {ids.shape}, its image {identifier} is {tuple(size)}"
            )
        if self.foreground is not None:
            others = np.where(ids == IGNORE, IGNORE, 0)
            return np.where(ids == self.foreground, 1, others).astype(np.uint8)
        ignored = (ids == IGNORE) | (ids < self.subtract)
        ids -= self.subtract
        unknown = np.unique(ids[~ignored & (ids >= len(self.classes) + self.background)])
        if unknown.size:
            raise DataError(
                f"{path}: id {int(unknown[0]) + self.subtract} is not one of the "
                f"{len(self.classes)} classes of {self.name}"
            )
        return np.where(ignored, IGNORE, ids).astype(np.uint8)

    def __getitem__(self, index: int) -> tuple[str, Image.Image, np.ndarray]:
        """(identifier, image, mask) of an item."""
        identifier, path, _ = self.items[index]
        image = open_image(path)
        return identifier, image, self.mask(index, (image.height, image.width))

    def __iter__(self) -> Iterator[tuple[str, Image.Image, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def without_background(self, name: str) -> "Masked":
        """The same images with the background ignored, under another name.

        Raises:
            ValueError: If there is no background.
        """
        if not self.background:
            raise ValueError(f"{self.name} has no background")
        return dataclasses.replace(self, name=name, subtract=self.subtract + 1, background=False)

    def first(self, images: int | None) -> "Masked":
        """The first so many images; all of them for None."""
        if images is None or images >= len(self):
            return self
        return dataclasses.replace(self, items=self.items[:images])


def _specifications() -> dict[str, dict]:
    return json.loads((resources.files("mgca.data") / "photo_sets.json").read_text())


def load_masked(name: str, root: str | os.PathLike) -> Masked:
    """A set of real photographs by its name in ``photo_sets.json``, e.g. ``"voc20"``.

    Args:
        name: Name of the set.
        root: Folder that holds the data sets.

    Raises:
        ValueError: If the name is unknown.
        FileNotFoundError: If a list, an image or a mask is missing; the first is named.
    """
    specifications = _specifications()
    if name not in specifications:
        raise ValueError(f"unknown set {name!r}, only {', '.join(specifications)}")
    spec = specifications[name]
    if "like" in spec:
        spec = specifications[spec["like"]] | spec
    folder = Path(root) / spec["folder"]
    items = []
    for split in spec["splits"]:
        file = folder / split
        if not file.is_file():
            raise FileNotFoundError(f"{name}: no list of images {file}")
        for identifier in file.read_text().split()[spec.get("from", 0) :: spec.get("every", 1)]:
            image = folder / spec["images"].format(identifier)
            mask = folder / spec["masks"].format(identifier)
            for path in (image, mask):
                if not path.is_file():
                    raise FileNotFoundError(f"{name}: {path} is missing")
            items.append((identifier, image, mask))
    return Masked(
        name=name,
        items=items,
        classes=tuple(spec["classes"]),
        subtract=spec["subtract"],
        digest=file_digest(folder / "MANIFEST.sha256"),
        background=spec.get("background", False),
        source=specifications[name].get("like", name),
    )


def load_folder(
    images: str | os.PathLike,
    masks: str | os.PathLike,
    classes: Sequence[str],
    *,
    background: bool = False,
    ignore_zero: bool = False,
    foreground: int | None = None,
    mask_suffix: str = ".png",
) -> Masked:
    """A set made of a folder of images and one of masks with the same names.

    Args:
        images: Folder of pictures.
        masks: Folder of pictures with one channel of ids (a palette's indices, 8 or 16 bits): the
            index of a class, or with a background 0 for it and 1 + the index. 255 is ignored.
        classes: Names that are asked for, without "background".
        background: Whether id 0 is the background and the classes begin at 1.
        ignore_zero: Whether id 0 is ignored and the classes begin at 1.
        foreground: Id of the one class, where masks show one thing and all else is background.
        mask_suffix: What follows an image's name in that of its mask.

    Raises:
        FileNotFoundError: If a folder is missing, or an image has no mask; the first is named.
        DataError: If there is no image, two have the same name, or there are too many classes for
            ids below 255.
        ValueError: If class names are empty or repeated, or a foreground has not one class.
    """
    names = tuple(check_classes(classes))
    if foreground is not None and len(names) != 1:
        raise ValueError(f"one foreground has one class, not {len(names)}: {', '.join(names)}")
    if len(names) + background > IGNORE:
        raise DataError(f"{len(names)} classes, and ids go up to 254: 255 is ignored")
    images, masks = Path(images), Path(masks)
    for folder in (images, masks):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
    suffixes = set(Image.registered_extensions())
    items: dict[str, tuple[str, Path, Path]] = {}
    for path in sorted(images.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        mask = masks / f"{path.stem}{mask_suffix}"
        if not mask.is_file():
            raise FileNotFoundError(f"{path} has no mask {mask}")
        if path.stem in items:
            raise DataError(f"{items[path.stem][1]} and {path} would have the same mask")
        items[path.stem] = (path.stem, path, mask)
    if not items:
        raise DataError(f"no images in {images}")
    # Masks of one's own are edited, which need not change a file's size.
    digests = [[name, *map(file_digest, paths)] for name, *paths in items.values()]
    return Masked(
        name=images.resolve().name,
        items=list(items.values()),
        classes=names,
        subtract=int(ignore_zero),
        digest=hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
        background=background or foreground is not None,
        foreground=foreground,
    )


class MaskedSet(Protocol):
    """What is evaluated on: :class:`mgca.data.masks.Masked`, or a set of the scenes.

    Attributes:
        name: Name of the set.
        digest: Digest of its contents, which names them in records.
        classes: Names that are asked for.
        source: Names the images: sets of one source have the same under the same identifiers.
        background: Whether masks hold 0 for the background and 1 + the index of a class, or the
            index itself. 255 is ignored in both.
    """

    name: str
    digest: str
    source: str
    classes: tuple[str, ...]
    background: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[str, Image.Image, np.ndarray]: ...

    def __iter__(self) -> Iterator[tuple[str, Image.Image, np.ndarray]]: ...


def id_names(data: MaskedSet) -> tuple[str, ...]:
    """What the ids of a set's masks stand for, the background first where there is one."""
    return (BACKGROUND, *data.classes) if data.background else tuple(data.classes)
