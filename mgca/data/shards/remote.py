"""Shards behind a URL: fetched whole by webdataset, into the cache.

A server that is away for a while ends no run: it is asked again, at growing intervals, for two
minutes; one that answers with an error of its own (HTTP 5xx) is asked by curl for one.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mgca.data.shards.index import Index, ShardError, cached_count, index_of, shards_folder

log = logging.getLogger(__name__)

T = TypeVar("T")

_ABANDONED = 3600  # seconds after which nobody is taken to write to a partial download any more
PATIENCE = 120.0  # seconds for which a server that is away is asked again
FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0  # seconds between two attempts, doubled each time


def download_name(url: str) -> str:
    """Name of a download: that of the file, and a hash, because other sets have the same names."""
    name = url.partition("?")[0].rpartition("/")[2]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"


class Evicted(ShardError):
    """Another process made room in the cache by removing a shard that was just about to be read."""


def fetch(url: str, limit: int | None = None) -> tuple[Path, Index]:
    """A shard behind a URL: the path of a complete copy in the cache, and its index.

    Args:
        url: Address of the shard.
        limit: Bytes that all downloads may take together, or None. The oldest go first. It should
            hold more than one shard per lane, else shards in use are downloaded again and again.

    Raises:
        ShardError: If it cannot be fetched, or what was fetched is not a complete tar; the
            next call fetches it again.
        Evicted: If it was removed again meanwhile; likewise.
    """
    from webdataset.cache import FileCache

    folder = shards_folder() / "downloads"
    partial = f"{download_name(url)}.temp"
    cache = FileCache(
        str(folder), url_to_name=download_name, validator=None, cache_size=limit or -1
    )
    for old in folder.glob(f"{partial}*"):
        with suppress(FileNotFoundError):  # its process has finished it
            if time.time() - old.stat().st_mtime > _ABANDONED:
                old.unlink()
    try:
        path = Path(_patiently(lambda: cache.get_file(url), url))
    except FileNotFoundError as error:
        raise ShardError(f"{url}: webdataset downloads with curl, which is missing") from error
    except (OSError, ValueError) as error:
        raise ShardError(f"{url} cannot be fetched: {_for_good(error)}") from error
    finally:
        # What webdataset calls its partial file. It takes its final name only when it is whole.
        (folder / f"{partial}{os.getpid()}").unlink(missing_ok=True)
    try:
        return path, index_of(url, path)
    except ShardError as error:
        if not path.exists():
            raise Evicted(
                f"{url} was removed from the cache before it was read: raise the limit of downloads"
            ) from error
        path.unlink()
        raise ShardError(f"{url}: what it gives is not a complete tar ({error})") from error


def fetch_json(url: str) -> Any | None:
    """The content of a JSON file behind a URL; None if there is no such file, or it is no JSON.

    Args:
        url: Address of the file.

    Raises:
        ShardError: If the server cannot be reached.
    """
    from webdataset.gopen import gopen

    def read() -> bytes:
        with gopen(url) as stream:
            return stream.read()

    try:
        return json.loads(_patiently(read, url))
    except (OSError, ValueError, RecursionError) as error:
        if _is_away(error):
            raise ShardError(f"{url} cannot be fetched: {_for_good(error)}") from error
        log.debug("no %s: %s", url, error)
        return None


def _patiently(job: Callable[[], T], url: str) -> T:
    """What a job gives; while the server is away, it is begun again for :data:`PATIENCE` seconds.

    Raises:
        OSError: What the job raises, for good.
    """
    end, wait = time.monotonic() + PATIENCE, FIRST_WAIT
    while True:
        try:
            return job()
        except OSError as error:
            left = end - time.monotonic()
            if not _is_away(error) or left <= 0:
                raise
            wait = min(wait, left)
            log.warning("%s: %s, asked again in %.0f s", url, _reason(error), wait)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def remote_count(url: str, lengths: dict[str, int]) -> int | None:
    """Number of samples of a shard behind a URL; None if nothing says it.

    Asked are an index made earlier, the set's ``_info.json`` and the statistics that img2dataset
    writes beside each shard.

    Args:
        url: Address of the shard.
        lengths: Number of samples of each shard that ``_info.json`` lists, by name.

    Raises:
        ShardError: If the server cannot be reached.
    """
    indexed = cached_count(url)
    if indexed is not None:
        return indexed
    base, mark, query = url.partition("?")
    name = base.rpartition("/")[2]
    if name in lengths:
        return lengths[name]
    return successes(fetch_json(f"{base.removesuffix('.tar')}_stats.json{mark}{query}"))


def successes(statistics: Any) -> int | None:
    """The number of samples that img2dataset's statistics of a shard give; None if they do not.

    Args:
        statistics: The content of its ``_stats.json``.
    """
    count = statistics.get("successes") if isinstance(statistics, dict) else None
    return count if type(count) is int else None


# Exit codes of curl, in words: those of a server that is away, which may pass, and others.
_AWAY = {
    6: "unknown host",
    7: "no connection",
    18: "the transfer ended early",
    28: "no answer in time",
    35: "no secure connection",
    52: "an empty answer",
    55: "the connection broke",
    56: "the connection broke",
}
_CURL = _AWAY | {22: "HTTP error"}


def _exit_code(error: Exception) -> int | None:
    """curl's exit code, which webdataset writes into its error."""
    match = re.search(r"exit (\d+) ", str(error))
    return int(match[1]) if match else None


def _is_away(error: Exception) -> bool:
    return _exit_code(error) in _AWAY


def _reason(error: Exception) -> str:
    code = _exit_code(error)
    if code not in _CURL:
        return str(error)
    return f"{_CURL[code]} (curl's exit code {code})"


def _for_good(error: Exception) -> str:
    """The reason, and how long the server was asked."""
    asked = f", asked for {PATIENCE:.0f} s" * _is_away(error)
    return f"{_reason(error)}{asked}"
