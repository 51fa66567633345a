"""The files of a benchmark: which there should be, and masks in and out."""

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from PIL import Image, PngImagePlugin

from mgca.data.benchmarks import Benchmark
from mgca.data.masks import IGNORE, DataError, read_mask
from mgca.utils.files import replacing

# Say in the PNG what a mask was made from, and by which conversion, that is, what its ids mean: no
# run goes on from masks of another source, and none passes as a mask of another set.
_MADE_FROM, _MADE_BY = "mgca-made-from", "mgca-made-by"


class MaskModeError(DataError):
    """A picture that does not hold one class id per pixel."""


@dataclass(frozen=True)
class Item:
    """An image of a benchmark and its mask, by paths that need not exist."""

    identifier: str
    image: Path
    mask: Path


def default_workers() -> int:
    """One thread per core; more than eight would wait for the disk."""
    return min(8, joblib.cpu_count())


def require_root(benchmark: Benchmark, root: str | os.PathLike) -> Path:
    """The root, if it is a folder that holds the benchmark's folder of images.

    Raises:
        FileNotFoundError: If not; the message says what to do, and names a folder nearby that would
            be the root.
    """
    root = Path(root)
    what = f"{benchmark.name} ({benchmark.title})"
    if not root.is_dir():
        raise FileNotFoundError(f"{what}: no folder {root}; {benchmark.where_to_get()}")
    folder = root / benchmark.layout.images
    if folder.is_dir():
        return root
    below = sorted(entry for entry in root.iterdir() if entry.is_dir())
    for other in (*below, *root.resolve().parents[:4]):
        if (other / benchmark.layout.images).is_dir():
            raise FileNotFoundError(
                f"{what}: no folder {folder}; the right root seems to be {other}"
            )
    raise FileNotFoundError(f"{what}: no folder {folder}; {benchmark.where_to_get()}")


def list_items(benchmark: Benchmark, root: str | os.PathLike) -> list[Item]:
    """The images that count, in the order of the split file or of their names.

    Raises:
        FileNotFoundError: If the root is not that of the benchmark, or the split file is missing.
        DataError: If there is no image, or the split file is not text.
    """
    root = require_root(benchmark, root)
    layout = benchmark.layout
    folder = root / layout.images
    if layout.split_file is None:
        # Hidden files are what file managers leave behind; mmsegmentation skips them too.
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob(f"*{layout.image_suffix}")
            if not path.name.startswith(".")
        )
        identifiers = [name.removesuffix(layout.image_suffix) for name in names]
        if not identifiers:
            raise DataError(
                f"{benchmark.name}: no image *{layout.image_suffix} in {folder}; "
                f"{benchmark.where_to_get()}"
            )
    else:
        identifiers = _read_split(benchmark, root)
    return [
        Item(
            identifier,
            folder / f"{identifier}{layout.image_suffix}",
            root / layout.masks / f"{identifier}{layout.mask_suffix}",
        )
        for identifier in identifiers
    ]


def _read_split(benchmark: Benchmark, root: Path) -> list[str]:
    file = root / benchmark.layout.split_file
    if not file.is_file():
        how = (
            f"mgca data prepare {benchmark.name} --root {root} makes it"
            if benchmark.conversion
            else benchmark.where_to_get()
        )
        raise FileNotFoundError(f"{benchmark.name}: no list of images {file}; {how}")
    try:
        identifiers = file.read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not a text file ({error})") from error
    if not identifiers:
        raise DataError(f"{file}: lists no image")
    return identifiers


def require_writable(folder: Path) -> None:
    """Refuse a folder whose mode forbids everybody to write.

    The superuser could write there all the same, but such a folder is meant to stay as it is.

    Raises:
        PermissionError: If it is such a folder.
    """
    if not folder.stat().st_mode & 0o222:
        raise PermissionError(errno.EACCES, "the folder is read-only", os.fspath(folder))


def read_ids(path: str | os.PathLike) -> np.ndarray:
    """The ids (H, W) of a mask as integers, of whatever width the file has; of a palette, indices.

    Raises:
        FileNotFoundError: If there is no such file.
        MaskModeError: If it has several channels, or fractions.
        DataError: If it cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no mask {path}")
    mode, ids = read_mask(path)
    if ids.ndim != 2 or ids.dtype.kind not in "bui":
        raise MaskModeError(f"{path}: a mask has one channel of class ids, this has mode {mode}")
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def present_ids(ids: np.ndarray) -> list[int]:
    """The ids that occur in a mask, sorted."""
    if ids.dtype == np.uint8:
        return np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()
    return np.unique(ids).tolist()


def impossible_ids(present: Iterable[int], benchmark: Benchmark) -> list[int]:
    """Those of the ids that no correct mask of a benchmark holds."""
    return [
        number
        for number in present
        if not (0 <= number <= benchmark.last_id or (number == IGNORE and benchmark.unlabelled))
    ]


def write_ids(path: str | os.PathLike, ids: np.ndarray, *, made_from: str, made_by: str) -> None:
    """Write a mask (H, W) uint8 as a PNG of one channel, whole or not at all.

    Args:
        path: File to write the mask to.
        ids: The ids of its pixels.
        made_from: Words for what it was made from, which the PNG keeps.
        made_by: Name of the conversion, which says what the ids mean; the PNG keeps it too.

    Raises:
        OSError: If it cannot be written; the message names it.
    """
    info = PngImagePlugin.PngInfo()
    info.add_text(_MADE_FROM, made_from)
    info.add_text(_MADE_BY, made_by)
    with replacing(path) as temporary:
        Image.fromarray(ids).save(temporary, format="PNG", pnginfo=info)


def made_by(path: Path) -> str | None:
    """The conversion that made a mask, None where the mask does not say.

    Raises:
        OSError: If it is missing or no picture.
    """
    with Image.open(path) as image:  # the text lies before the pixels, which are not read
        return image.info.get(_MADE_BY)


def is_finished(path: Path, benchmark: Benchmark, made_from: str) -> bool:
    """Whether a mask needs not be made again: readable, of possible ids, and of no other source.

    A mask that does not say what it was made from is another program's, and stays.
    """
    try:
        ids = read_ids(path)
    except (FileNotFoundError, DataError):
        return False
    with Image.open(path) as image:
        made = (image.info.get(_MADE_FROM), image.info.get(_MADE_BY))
    by_others, by_us = (None, None), (made_from, benchmark.conversion)
    return made in (by_others, by_us) and not impossible_ids(present_ids(ids), benchmark)
