"""What lies where in a shard: a tar of images and captions, read by random access.

A shard is scanned once, from header to header without its images, and the result is kept in the
cache, named by the shard's place and checked against its size and time of change.
"""

import functools
import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mgca.utils.files import cache_folder, write_text

_VERSION = 2  # of the rules of the scan: an index that was made under others does not count
_CAPTION_RULE = 2  # of how a caption is read: what was computed under another does not count
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
CAPTION_KEY = "caption"  # of a .json, as img2dataset writes it
# Names that webdataset passes over: its own meta data.
_META = re.compile(r"__[^/]*__($|/)")
_END = 2 * tarfile.BLOCKSIZE
_KINDS = 10  # of members without a use, that are told apart

Span = tuple[int, int]


class ShardError(ValueError):
    """Shards that cannot be trained on; the message names them and says what to do."""


def need_webdataset() -> None:
    """Check that webdataset is installed.

    Raises:
        ImportError: If it is not, with the command that installs it.
    """
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'training from shards needs webdataset: pip install "mgca[train]"'
        ) from error


@dataclass(frozen=True)
class Index:
    """The samples of a shard, in their order in the tar.

    Attributes:
        keys: The name of each sample: its members' path up to the first dot of the file name.
        images: (offset, size) in bytes of each sample's image; None where it has none.
        texts: (offset, size) of each sample's ``.txt``; None where it has none.
        details: (offset, size) of each sample's ``.json``; None where it has none.
        bytes: Size of the shard.
        unused: Number of members that are neither, by extension; ``"*.jpg"`` stands for those
            whose name has further dots before it, which webdataset does not take for a ``.jpg``.
        caption_key: The key of the ``.json`` under which captions are looked for.
    """

    keys: list[str]
    images: list[Span | None]
    texts: list[Span | None]
    details: list[Span | None]
    bytes: int
    unused: dict[str, int] = field(default_factory=dict)
    caption_key: str = CAPTION_KEY

    def __len__(self) -> int:
        return len(self.keys)

    @functools.cached_property
    def digest(self) -> str:
        """12 hexadecimal digits that name the samples, where they lie in the shard, and how their
        captions are read; the shard's own place is no part of it."""
        parts = [_CAPTION_RULE, self.caption_key, *self._rows()]
        return hashlib.sha256(_dumps(parts).encode()).hexdigest()[:12]

    def _rows(self) -> list:
        return [self.keys, self.images, self.texts, self.details]


def scan(path: str | os.PathLike) -> Index:
    """Read the headers of a shard, and check that nothing is cut off.

    Members are grouped to samples by webdataset itself.

    Args:
        path: The shard's file.

    Raises:
        ShardError: If the file is missing, truncated, empty, compressed or not a tar.
    """
    from webdataset.tariterators import group_by_keys

    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(2)
            if not start:
                raise ShardError(f"{path} is empty (0 bytes): download it again")
            if start == b"\x1f\x8b":
                raise ShardError(f"{path} is compressed, and is read by random access: gunzip it")
            file.seek(0)
            samples = list(group_by_keys(_members(file, path, size)))
    except FileNotFoundError:
        raise ShardError(f"no shard {path}") from None
    except ShardError:
        raise
    except (ValueError, OSError) as error:
        # group_by_keys puts more than a message into the arguments of what it raises.
        reason = error.args[0] if isinstance(error, ValueError) else error
        raise ShardError(f"{path}: {reason}") from error

    def spans(*extensions: str) -> list[Span | None]:
        return [
            next((sample[extension] for extension in extensions if extension in sample), None)
            for sample in samples
        ]

    return Index(
        keys=[sample["__key__"] for sample in samples],
        images=spans(*IMAGE_EXTENSIONS),
        texts=spans("txt"),
        details=spans("json"),
        bytes=size,
        unused=_unused(samples),
    )


def _unused(samples: list[dict]) -> dict[str, int]:
    """Number of members that are no image, text or details, by extension."""
    known = {*IMAGE_EXTENSIONS, "txt", "json", "__key__", "__url__"}
    counts: Counter[str] = Counter()
    for sample in samples:
        for extension in sample.keys() - known:
            dotted, dot, last = extension.rpartition(".")
            counts[f"*.{last}" if dot else last] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_KINDS])


def _members(file, path: str | os.PathLike, size: int) -> Iterator[dict]:
    """The regular members of a tar as webdataset's ``tar_file_iterator`` gives them, but with
    their place in place of their bytes."""
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # tarfile keeps them all
                if member.size < 0 or tar.offset <= member.offset:
                    raise ShardError(_damaged(path, member.offset, size))  # it would never end
                end = max(end, member.offset_data + (member.size if member.isreg() else 0))
                if not member.isreg() or _META.match(member.name):
                    continue
                if member.issparse():
                    raise ShardError(f"{path}: {member.name} is a sparse file: write it without -S")
                place = (member.offset_data, member.size)
                yield {"fname": member.name, "data": place, "__url__": str(path)}
            stopped = tar.offset
    except tarfile.ReadError as error:
        if end == 0:
            raise ShardError(f"{path} is not a tar ({error}): download it again") from error
        raise ShardError(_truncated(path, size)) from error
    except ShardError:
        raise
    except Exception as error:  # as for mgca.utils.files.damaged
        reason = f"{type(error).__name__}: {error}"
        raise ShardError(f"{path} is damaged ({reason}): download it again") from error
    # tarfile ends at the first thing that is not a header, be it the archive's end or not.
    file.seek(stopped)
    rest = file.read(_END + tarfile.RECORDSIZE)
    if end > size or len(rest) < _END:
        raise ShardError(_truncated(path, size))
    if any(rest[:_END]):
        raise ShardError(_damaged(path, stopped, size))
    # Whatever wrote it, a tar ends with the two blocks, and zeros that fill a record.
    longest = -(-(stopped + _END) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    if any(rest) or size > longest:
        what = "bytes" if any(rest) else "zeros"
        raise ShardError(
            f"{path}: {size - stopped - _END} {what} follow the end of the archive at {stopped} of "
            f"{size}. It is a download with holes, to be repeated, or several tars in one, to be "
            "kept apart"
        )


def _truncated(path: str | os.PathLike, size: int) -> str:
    return f"{path} is truncated, it ends after {size} bytes in the midst of it: download it again"


def _damaged(path: str | os.PathLike, at: int, size: int) -> str:
    return f"{path} is damaged at byte {at} of {size}: download it again"


def cached_count(place: str) -> int | None:
    """Number of samples of a shard, from an index made earlier that still holds; else None.

    Args:
        place: Path or URL of the shard; what is behind a URL is taken not to change.
    """
    head = _head(place)
    return head["count"] if head and (is_remote(place) or head["stamp"] == _stamp(place)) else None


def index_of(place: str, path: str | os.PathLike) -> Index:
    """The index of a shard, from the cache or by :func:`scan`, which fills the cache.

    Args:
        place: Path or URL that names the shard.
        path: File that holds it: the same path, or a copy of what the URL gives.

    Raises:
        ShardError: As :func:`scan`.
    """
    head, stamp = _head(place), _stamp(path)
    if head and stamp and head["stamp"] == stamp:
        cached = _cached(place, head, stamp[0])
        if cached is not None:
            return cached
    index = scan(path)
    head = {"version": _VERSION, "place": place, "stamp": stamp, "count": len(index)}
    head["unused"] = index.unused
    write_text(index_file(place), f"{json.dumps(head)}\n{_dumps(index._rows())}\n")
    return index


def shards_folder() -> Path:
    """Where indices, nouns and downloaded shards are kept."""
    return cache_folder() / "shards"


def index_file(place: str) -> Path:
    """Where the index of a shard is kept; the file need not be there."""
    stem = Path(place).name.removesuffix(".tar")
    return shards_folder() / f"{stem}-{hashlib.sha256(place.encode()).hexdigest()[:12]}.index.json"


def is_remote(place: str) -> bool:
    """Whether a place is a URL."""
    return place.startswith(("http://", "https://"))


def _head(place: str) -> dict | None:
    """The first line of the cached index of a shard, None if there is none."""
    try:
        with index_file(place).open(encoding="utf-8") as lines:
            head = json.loads(next(lines))
        valid = (head["place"], head["version"]) == (place, _VERSION)
        return head if valid and "stamp" in head and type(head["count"]) is int else None
    except (OSError, ValueError, KeyError, TypeError, StopIteration, RecursionError):
        return None


def _cached(place: str, head: dict, size: int) -> Index | None:
    """The cached index of a shard of this size, after its first line; None if it is damaged."""
    try:
        with index_file(place).open(encoding="utf-8") as lines:
            next(lines)
            keys, *columns = json.loads(next(lines))
        spans = [[None if span is None else _span(*span, size) for span in c] for c in columns]
        unused = {str(kind): int(count) for kind, count in head["unused"].items()}
        index = Index(keys, *spans, bytes=size, unused=unused)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration):
        return None
    except (OverflowError, RecursionError):  # an endless number, or nested without end
        return None
    sound = {len(column) for column in (keys, *spans)} == {head["count"]}
    return index if sound and all(isinstance(key, str) for key in keys) else None


def _span(offset: int, length: int, size: int) -> Span:
    if not (type(offset) is type(length) is int and 0 <= offset <= offset + length <= size):
        raise ValueError(f"no part of {size} bytes: {offset}, {length}")
    return offset, length


def _stamp(path: str | os.PathLike) -> list[int] | None:
    """Size and time of change (ns) of a file; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _dumps(rows: list) -> str:
    return json.dumps(rows, separators=(",", ":"))
