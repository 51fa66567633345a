"""What must hold of every file that is read, and the harness that checks it.

A target takes bytes and an empty folder, writes the bytes where the library looks for them, and
reads them. :func:`attempt` runs it and checks that it gives a result or a documented error, in
bounded time and memory, and leaves no file behind.
"""

import contextlib
import fnmatch
import io
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

CPU_SECONDS = 10  # of one input: a hang, and not a busy machine
MEMORY = 256 * 2**20  # bytes that one input may take
PIXELS = 2_000_000  # twice as many are refused, so that every input is quick


class Violation(AssertionError):
    """A property that an input breaks."""


class Hang(BaseException):
    """The time of an input is over; not an Exception, so that no reader takes it for damage."""


@dataclass(frozen=True)
class Target:
    """A reader of files.

    Attributes:
        name: Of the target.
        seeds: Valid files.
        run: Reads bytes, in a folder of its own.
        expected: Errors that it documents.
        files: Patterns of the files that it may leave.
        repair: Makes checksums and lengths of a mutated file right, where its format has some.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes, Path], None]
    expected: tuple[type[Exception], ...]
    files: tuple[str, ...] = ()
    repair: Callable[[bytes], bytes] | None = None


def attempt(target: Target, data: bytes, folder: Path) -> bool:
    """Run a target on an input, in a folder without files, which has none again afterwards.

    Returns:
        Whether the input was read; it was refused otherwise.

    Raises:
        Violation: If anything happens that should not.
    """
    name = target.name
    folder.mkdir(parents=True, exist_ok=True)
    read = True
    try:
        with surroundings(folder), limits(f"{name}, {len(data)} bytes"):
            try:
                target.run(data, folder)
            except target.expected as error:
                read = False
                if not str(error).strip():
                    raise Violation(f"{name}: {type(error).__name__} without a word") from error
            except (Violation, Warning):
                raise
            except Exception as error:
                raise Violation(f"{name}: {type(error).__name__}: {error}") from error
        left = [path.relative_to(folder).as_posix() for path in _files(folder)]
        wrong = [path for path in left if not any(fnmatch.fnmatch(path, p) for p in target.files)]
        if wrong:
            raise Violation(f"{name} leaves {', '.join(wrong)}")
    finally:
        for path in _files(folder):
            path.unlink()
    return read


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """A cache of the input's own, a low limit of pixels, and no messages."""
    before, most = os.environ.get("MGCA_CACHE"), Image.MAX_IMAGE_PIXELS
    os.environ["MGCA_CACHE"] = str(folder / "cache")
    Image.MAX_IMAGE_PIXELS = PIXELS
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", module="mgca")
            yield
    finally:
        logging.disable(logging.NOTSET)
        Image.MAX_IMAGE_PIXELS = most
        os.environ.pop("MGCA_CACHE")
        if before is not None:
            os.environ["MGCA_CACHE"] = before


@contextlib.contextmanager
def limits(what: str) -> Iterator[None]:
    """Bounds of time, counted in this process's own seconds, and of memory."""

    def stop(*_: object) -> None:
        raise Hang

    handler = signal.signal(signal.SIGPROF, stop)
    start = _peak(reset=True)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    except Hang as error:
        raise Violation(f"{what}: not read within {CPU_SECONDS} s") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    taken = _peak() - start
    if taken > MEMORY:
        raise Violation(f"{what}: takes {taken / 2**20:.0f} MiB")


def _peak(*, reset: bool = False) -> int:
    """Largest memory of the process so far in bytes, or since it was reset; 0 but on Linux."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def require(condition: bool, what: str) -> None:
    """Check a property of what was read."""
    if not condition:
        raise Violation(what)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@cache
def photo(height: int = 12, width: int = 17) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
