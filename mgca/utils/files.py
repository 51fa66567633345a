"""Files that are written whole or not at all."""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_TEMPORARY = ".partial"
# Seconds: the readers of a process that was killed hold a lock for a second longer.
_PATIENCE = 3


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    Raises:
        OSError: If the file cannot be written, with its path. What can be known beforehand, such
            as a folder that cannot be made, is checked before the block runs.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Cut, as the name of a file may have no more than 255 bytes.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:20]}.", suffix=_TEMPORARY
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def alone_in(folder: str | os.PathLike, *, wait: bool = False) -> Iterator[None]:
    """A context in which this process alone holds a folder.

    The system lets it go when the process ends, however it ends.

    Args:
        folder: It is made where it is missing.
        wait: Whether to wait for another process that holds it.

    Raises:
        BlockingIOError: If another process holds it and is not waited for.
        OSError: If it cannot be locked.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", fallback_to_soft=False)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout as error:
            if not wait:
                raise BlockingIOError(
                    f"another process works in {folder}: wait for it, or end it"
                ) from error
            log.info("waiting for another process, which works in %s", folder)
        except OSError as error:
            raise OSError(
                f"{folder} cannot be locked ({error.strerror}): choose a folder on another disk"
            ) from error
    try:
        yield
    finally:
        lock.release()


def clear_temporaries(folder: str | os.PathLike) -> None:
    """Remove what :func:`replacing` left in a folder when its process was killed."""
    for path in Path(folder).glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextmanager
def damaged(kind: type[Exception], message: str, remedy: str = "") -> Iterator[None]:
    """A context in which a file is decoded, and whose errors become one of the class ``kind``.

    What a decoder raises at damaged bytes is anyone's guess, so all of it is taken; errors of the
    kind itself pass as they are.

    Args:
        kind: The class of the error.
        message: Message that says which file it is, and what it is not.
        remedy: Advice to the reader of the message.
    """
    try:
        yield
    except kind:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise kind(f"{message} ({reason}){f': {remedy}' if remedy else ''}") from error


def file_digest(path: str | os.PathLike) -> str:
    """SHA-256 of a file, to name the data behind a result."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder(folder: str | os.PathLike | None = None) -> Path:
    """The folder of caches: the one given, $MGCA_CACHE, or ~/.cache/mgca."""
    return Path(folder or os.environ.get("MGCA_CACHE") or Path.home() / ".cache" / "mgca")
