"""Is a benchmark's folder complete and sound? Asked before hours are spent on scoring it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
from PIL import Image

from mgca.data.benchmarks import Benchmark
from mgca.data.benchmarks.files import (
    Item,
    MaskModeError,
    default_workers,
    list_items,
    read_ids,
    unknown_ids,
)
from mgca.data.benchmarks.stamps import MANIFEST, Stamps, read_manifest, stat_of
from mgca.data.masks import DataError
from mgca.utils.files import file_digest
from mgca.utils.progress import progress

_EXAMPLES = 3
_ORIENTATION = 0x0112  # EXIF tag; from 5 on the picture lies on its side
_TAIL = 4096

# What to do about each kind of problem. The order is that of the report.
_REMEDIES = {
    "too many images": "the list is not that of the {split} split: take the official one",
    "listed twice": "take the official list",
    "missing image": "unpack the archive again ({get})",
    "unreadable image": "unpack the archive again ({get})",
    "cut off image": "unpack the archive again ({get})",
    "missing mask": "{masks}",
    "unreadable mask": "{masks}",
    "mask of other mode": "a mask has one channel of ids, or a palette; this is a picture of one",
    "unknown id": "the masks are of another release, or not converted: {masks}",
    "other size": "image and mask are of different releases: unpack both again ({get})",
    "picture on its side": "its EXIF tag turns it, but not its mask: remove the tag",
    "mask without image": "unpack the archive of images again ({get})",
    "other hash": "the file is not the one that MANIFEST.sha256 was made of",
    "missing file": "MANIFEST.sha256 lists it: copy the set again",
}


@dataclass(frozen=True)
class Problem:
    """A kind of problem: how often it occurs, the first files, what to do."""

    kind: str
    count: int
    examples: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        more = f" and {self.count - len(self.examples)} more" * (self.count > len(self.examples))
        return f"{self.kind}: {'; '.join(self.examples)}{more}\n    {self.remedy}"


@dataclass(frozen=True)
class Report:
    """What a check found.

    Attributes:
        benchmark, root: What was checked.
        expected: Images of the official split.
        found: Images that are listed.
        checked: Images that were looked at, with their masks; fewer where a limit was given.
        unchanged: How many of these an earlier check had passed, and nobody touched since.
        hashed: Files whose hash was compared with the manifest.
        problems: By kind; empty if all is well.
    """

    benchmark: str
    root: str
    expected: int
    found: int
    checked: int
    unchanged: int
    hashed: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    @property
    def subset(self) -> bool:
        """Whether images of the official split are missing from the list."""
        return self.found < self.expected

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {"ok": self.ok, "subset": self.subset, **asdict(self)}

    def __str__(self) -> str:
        lines = [f"{self.benchmark} in {self.root}: {self.found} images"]
        if self.subset:
            lines.append(
                f"  a subset: {self.found} of {self.expected} images; scores on it are not "
                "comparable with published ones"
            )
        seen = f"  {self.checked} images with their masks checked"
        seen += f", {self.unchanged} of them unchanged since an earlier check" * bool(
            self.unchanged
        )
        seen += f"; {self.hashed} files as in {MANIFEST}" * bool(self.hashed)
        lines.append(seen)
        lines += [f"  {problem}" for problem in self.problems]
        lines.append("  no problem" if self.ok else f"  {len(self.problems)} kinds of problems")
        return "\n".join(lines)


def check(
    benchmark: Benchmark,
    root: str | os.PathLike,
    *,
    limit: int | None = None,
    workers: int | None = None,
) -> Report:
    """Look at every image and mask.

    Of images the header and the end of the file are read, of masks everything. What passed is
    remembered in ``.mgca-check.json`` under the root by size and time of change, so that a second
    check, or one after an interruption, is quick.

    Args:
        limit: Only the first so many images, and no hashes.
        workers: Number of threads.

    Raises:
        FileNotFoundError: If the root, its folder of images or the list of images is missing.
        DataError: If no image is listed.
        ValueError: If the limit is not positive.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be positive, not {limit}")
    root = Path(root)
    items = list_items(benchmark, root)
    found: list[tuple[str, str]] = []  # (kind, file and what is wrong with it)
    if len(items) > benchmark.image_count:
        found.append(("too many images", f"{len(items)}, expected {benchmark.image_count}"))
    times = Counter(item.identifier for item in items)
    found += [("listed twice", name) for name, count in times.items() if count > 1]
    if benchmark.layout.split_file is None:
        found += _masks_without_image(benchmark, root, items)
    items = items[:limit]

    stamps = Stamps(root)
    passed = stamps.section(benchmark.name)
    manifest = root / MANIFEST
    workers = workers or default_workers()
    try:
        fresh = [item for item in items if not _is_unchanged(item, passed)]
        for item, own in _each(lambda item: _problems(benchmark, item), fresh, workers, "check"):
            found += [(kind, _under(root, text)) for kind, text in own]
            if own:
                passed.pop(item.identifier, None)
            else:
                passed[item.identifier] = _stamp(item)
        hashes = read_manifest(manifest) if limit is None and manifest.is_file() else {}
        known = stamps.section(MANIFEST)
        for name, wrong in _each(
            lambda name: _compare(root / name, hashes[name], known.get(name)),
            list(hashes),
            workers,
            "hashes",
        ):
            found += [(wrong, name)] if wrong else []
            if wrong:
                known.pop(name, None)
            else:
                known[name] = [*stat_of(root / name), hashes[name]]
    finally:
        stamps.save()

    return Report(
        benchmark=benchmark.name,
        root=os.fspath(root),
        expected=benchmark.image_count,
        found=len(times),
        checked=len(items),
        unchanged=len(items) - len(fresh),
        hashed=len(hashes),
        problems=tuple(_summarise(found, benchmark, root)),
    )


def _each(job: Callable[[Any], Any], inputs: list, workers: int, what: str) -> Iterator[tuple]:
    """(input, result) of each, in order, with a progress bar."""
    # Threads: decoding and hashing release the interpreter.
    results = joblib.Parallel(workers, prefer="threads", return_as="generator")(
        joblib.delayed(job)(value) for value in inputs
    )
    with progress(total=len(inputs), desc=what, unit="file") as bar:
        for value, result in zip(inputs, results, strict=True):
            yield value, result
            bar.update()


def _problems(benchmark: Benchmark, item: Item) -> list[tuple[str, str]]:
    """What is wrong with an image and its mask."""
    wrong, stored, shown = _problem_of_image(item.image)
    found = [wrong] if wrong else []
    try:
        ids = read_ids(item.mask)
    except FileNotFoundError:
        return [*found, ("missing mask", f"{item.mask}")]
    except MaskModeError as error:
        return [*found, ("mask of other mode", f"{error}")]
    except DataError as error:
        return [*found, ("unreadable mask", f"{error}")]
    unknown = unknown_ids(ids, benchmark.last_id)
    if unknown:
        some = ", ".join(map(str, unknown[:5])) + ", …" * (len(unknown) > 5)
        found.append(("unknown id", f"{item.mask}: {some}, expected 0 to {benchmark.last_id}"))
    if shown is not None and ids.shape != shown:
        kind = "picture on its side" if ids.shape == stored else "other size"
        found.append((kind, f"{item.mask}: {ids.shape}, its image {shown}"))
    return found


def _stamp(item: Item) -> list[int]:
    """Size and time of change of image and mask."""
    return [*stat_of(item.image), *stat_of(item.mask)]


def _is_unchanged(item: Item, passed: dict[str, list]) -> bool:
    try:
        return passed.get(item.identifier) == _stamp(item)
    except OSError:  # one of them is missing
        return False


Size = tuple[int, int]


def _problem_of_image(path: Path) -> tuple[tuple[str, str] | None, Size | None, Size | None]:
    """What is wrong, and the size (H, W) as stored and as shown; only header and end are read."""
    if not path.is_file():
        return ("missing image", f"{path}"), None, None
    try:
        with Image.open(path) as image:
            stored = shown = (image.height, image.width)
            # Of a PNG without the tag among its first blocks, Pillow would decode all pixels.
            if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5:
                shown = shown[::-1]
            kind = image.format
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read()
    except Exception as error:  # what a decoder raises at damaged bytes is anyone's guess
        return ("unreadable image", f"{path}: {error}"), None, None
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind, b"")
    # Neither mark occurs within the pixels of its format, nor in what cameras append.
    if end not in tail:
        return ("cut off image", f"{path}"), stored, shown
    return None, stored, shown


def _masks_without_image(benchmark: Benchmark, root: Path, items: list[Item]) -> list:
    expected = {item.mask for item in items}
    masks = (root / benchmark.layout.masks).rglob(f"*{benchmark.layout.mask_suffix}")
    others = sorted(p for p in masks if p not in expected and not p.name.startswith("."))
    return [("mask without image", _under(root, str(path))) for path in others]


def _compare(path: Path, digest: str, known: list | None) -> str | None:
    """The kind of problem with a file of the manifest, if any."""
    if not path.is_file():
        return "missing file"
    if known == [*stat_of(path), digest]:
        return None
    return None if file_digest(path) == digest else "other hash"


def _under(root: Path, text: str) -> str:
    """A message without the path of the root."""
    return text.replace(f"{root}{os.sep}", "")


def _summarise(found: list[tuple[str, str]], benchmark: Benchmark, root: Path):
    get = benchmark.where_to_get()
    masks = f"unpack the archive again ({get})"
    if benchmark.conversion:
        masks = f"mgca data prepare {benchmark.name} --root {root}"
    for kind, remedy in _REMEDIES.items():
        own = [text for one, text in found if one == kind]
        if own:
            what_to_do = remedy.format(get=get, masks=masks, split=benchmark.split)
            yield Problem(kind, len(own), tuple(own[:_EXAMPLES]), what_to_do)
