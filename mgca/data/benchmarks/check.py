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
    impossible_ids,
    list_items,
    made_by,
    present_ids,
    read_ids,
)
from mgca.data.benchmarks.occurrence import describe, mistakes
from mgca.data.benchmarks.stamps import MANIFEST, Stamps, read_manifest, stat_of
from mgca.data.masks import IGNORE, DataError
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
    "255 where no pixel is ignored": "the ids are shifted by one, or of another set: {again}",
    "made for another set": "its ids mean other classes: {again}",
    "classes that never occur": "the masks are of another set, or their ids shifted: {again}",
    "ids of another set": "the masks are of another set, or their ids shifted: {again}",
    "numbers of objects": "they tell objects apart, not classes: take the masks of classes",
    "other size": "image and mask are of different releases: unpack both again ({get})",
    "picture on its side": "its EXIF tag turns it, but not its mask: remove the tag",
    "mask without image": "unpack the archive of images again ({get})",
    "other hash": "the file is not the one that MANIFEST.sha256 was made of",
    "missing file": "MANIFEST.sha256 lists it: copy the set again",
}


@dataclass(frozen=True)
class Problem:
    """A kind of problem that a check saw.

    Attributes:
        kind: What is wrong, in a few words.
        count: How often it occurs.
        examples: The first files, each with what is wrong with it.
        remedy: What to do about it.
    """

    kind: str
    count: int
    examples: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        more = f" and {self.count - len(self.examples)} more" * (self.count > len(self.examples))
        return f"{self.kind}: {'; '.join(self.examples)}{more}\n    {self.remedy}"


@dataclass(frozen=True)
class Report:
    """The outcome of a check: what was looked at, and the problems that were seen.

    Attributes:
        benchmark: Name of the benchmark.
        root: Folder that was checked.
        expected: Number of images of the official split.
        found: Number of images that are listed.
        checked: Number of images that were looked at, with their masks; fewer than are listed
            where a limit was given.
        unchanged: How many of these an earlier check had passed, and nobody touched since.
        hashed: Number of files whose hash was compared with the manifest.
        ids: One line on the ids that occur in the masks, and the classes that never do.
        problems: The problems, by kind; empty if all is well.
    """

    benchmark: str
    root: str
    expected: int
    found: int
    checked: int
    unchanged: int
    hashed: int
    ids: str
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
        lines += [seen, f"  {self.ids}"]
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
    """Look at every image and mask of a benchmark, and at the ids that occur in all masks together.

    Of images the header and the end of the file are read, of masks everything. What passed is
    remembered in ``.mgca-check.json`` under the root by size and time of change, so that a second
    check, or one after an interruption, is quick.

    Args:
        benchmark: The benchmark whose files they are.
        root: Folder that holds what its archives unpack to.
        limit: Look at the first so many images only, and at no hashes.
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
    wrong: list[tuple[str, str]] = []  # (kind, file and what is wrong with it)
    if len(items) > benchmark.image_count:
        wrong.append(("too many images", f"{len(items)}, expected {benchmark.image_count}"))
    times = Counter(item.identifier for item in items)
    wrong += [("listed twice", name) for name, count in times.items() if count > 1]
    if benchmark.layout.split_file is None:
        wrong += _masks_without_image(benchmark, root, items)
    items = items[:limit]

    stamps = Stamps(root)
    passed = stamps.section(benchmark.name)
    manifest = root / MANIFEST
    workers = workers or default_workers()
    try:
        fresh = [item for item in items if not _is_unchanged(item, passed)]
        stale = {item.identifier for item in fresh}
        present = [
            passed[item.identifier][_STAT:] for item in items if item.identifier not in stale
        ]
        for item, (problems, ids) in _each(
            lambda item: _problems(benchmark, item), fresh, workers, "check"
        ):
            wrong += [(kind, _under(root, text)) for kind, text in problems]
            present += [ids] if ids is not None else []
            if problems:
                passed.pop(item.identifier, None)
            else:
                passed[item.identifier] = [*_stamp(item), *ids]
        hashes = read_manifest(manifest) if limit is None and manifest.is_file() else {}
        hashed = stamps.section(MANIFEST)
        for name, kind in _each(
            lambda name: _compare(root / name, hashes[name], hashed.get(name)),
            list(hashes),
            workers,
            "hashes",
        ):
            if kind:
                wrong.append((kind, name))
                hashed.pop(name, None)
            else:
                hashed[name] = [*stat_of(root / name), hashes[name]]
    finally:
        stamps.save()
    whole = len(present) == len(times) == benchmark.image_count
    wrong += mistakes(present, benchmark, whole=whole, part=limit is not None)

    return Report(
        benchmark=benchmark.name,
        root=os.fspath(root),
        expected=benchmark.image_count,
        found=len(times),
        checked=len(items),
        unchanged=len(items) - len(fresh),
        hashed=len(hashes),
        ids=describe(present, benchmark),
        problems=tuple(_summarise(wrong, benchmark, root)),
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


def _problems(benchmark: Benchmark, item: Item) -> tuple[list[tuple[str, str]], list[int] | None]:
    """What is wrong with an image and its mask, and the ids of the mask; None if it has none."""
    problem, stored, upright = _problem_of_image(item.image)
    wrong = [problem] if problem else []
    try:
        ids = read_ids(item.mask)
    except FileNotFoundError:
        return [*wrong, ("missing mask", f"{item.mask}")], None
    except MaskModeError as error:
        return [*wrong, ("mask of other mode", f"{error}")], None
    except DataError as error:
        return [*wrong, ("unreadable mask", f"{error}")], None
    present = present_ids(ids)
    unknown = impossible_ids(present, benchmark)
    if unknown == [IGNORE]:
        wrong.append(("255 where no pixel is ignored", f"{item.mask}"))
    elif unknown:
        some = ", ".join(map(str, unknown[:5])) + ", …" * (len(unknown) > 5)
        wrong.append(("unknown id", f"{item.mask}: {some}, expected 0 to {benchmark.last_id}"))
    conversion = made_by(item.mask)
    if conversion not in (None, benchmark.conversion):
        wrong.append(("made for another set", f"{item.mask}: made by the conversion {conversion}"))
    if upright is not None and ids.shape != upright:
        kind = "picture on its side" if ids.shape == stored else "other size"
        wrong.append((kind, f"{item.mask}: {ids.shape}, its image {upright}"))
    return wrong, present


def _stamp(item: Item) -> list[int]:
    """Size and time of change of image and mask."""
    return [*stat_of(item.image), *stat_of(item.mask)]


_STAT = 4  # numbers of a stamp; in what is remembered, the ids of the mask follow


def _is_unchanged(item: Item, passed: dict[str, list]) -> bool:
    earlier = passed.get(item.identifier)
    if not isinstance(earlier, list) or not all(type(number) is int for number in earlier):
        return False
    try:
        return earlier[:_STAT] == _stamp(item)
    except OSError:  # one of them is missing
        return False


Size = tuple[int, int]


def _problem_of_image(path: Path) -> tuple[tuple[str, str] | None, Size | None, Size | None]:
    """What is wrong, and the size (H, W) as stored and as shown; only header and end are read."""
    if not path.is_file():
        return ("missing image", f"{path}"), None, None
    try:
        with Image.open(path) as image:
            stored = upright = (image.height, image.width)
            # Of a PNG without the tag among its first blocks, Pillow would decode all pixels.
            if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5:
                upright = stored[::-1]
            kind = image.format
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            tail = file.read()
    except Exception as error:  # as for mgca.utils.files.damaged
        return ("unreadable image", f"{path}: {error}"), None, None
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind, b"")
    # Neither mark occurs within the pixels of its format, nor in what cameras append.
    if end not in tail:
        return ("cut off image", f"{path}"), stored, upright
    return None, stored, upright


def _masks_without_image(benchmark: Benchmark, root: Path, items: list[Item]) -> list:
    expected = {item.mask for item in items}
    masks = (root / benchmark.layout.masks).rglob(f"*{benchmark.layout.mask_suffix}")
    others = sorted(p for p in masks if p not in expected and not p.name.startswith("."))
    return [("mask without image", _under(root, str(path))) for path in others]


def _compare(path: Path, digest: str, earlier: list | None) -> str | None:
    """The kind of problem with a file of the manifest, if any.

    Args:
        path: The file to look at.
        digest: Its SHA-256 in the manifest.
        earlier: Its size, time of change and SHA-256 when it was last compared.
    """
    if not path.is_file():
        return "missing file"
    if earlier == [*stat_of(path), digest]:
        return None
    return None if file_digest(path) == digest else "other hash"


def _under(root: Path, text: str) -> str:
    """A message without the path of the root."""
    return text.replace(f"{root}{os.sep}", "")


def _summarise(wrong: list[tuple[str, str]], benchmark: Benchmark, root: Path) -> Iterator[Problem]:
    """The problems by kind, each with what to do about it."""
    get = benchmark.where_to_get()
    masks = f"unpack the archive again ({get})"
    again = masks
    if benchmark.conversion:
        masks = f"mgca data prepare {benchmark.name} --root {root}"
        again = f"delete them, then {masks}"
    for kind, remedy in _REMEDIES.items():
        examples = [text for one, text in wrong if one == kind]
        if examples:
            what_to_do = remedy.format(get=get, masks=masks, again=again, split=benchmark.split)
            yield Problem(kind, len(examples), tuple(examples[:_EXAMPLES]), what_to_do)
