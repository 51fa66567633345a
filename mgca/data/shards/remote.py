"""Shards behind a URL: fetched whole by webdataset, into the cache."""

import hashlib
import json
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from mgca.data.shards.index import Index, ShardError, cached_count, index_of, shards_folder

log = logging.getLogger(__name__)

_ABANDONED = 3600  # seconds after which nobody is taken to write to a partial download any more


def download_name(url: str) -> str:
    """Name of a download: that of the file, and a hash, because other sets have the same names."""
    name = url.partition("?")[0].rpartition("/")[2]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"


class Evicted(ShardError):
    """Another process made room in the cache by removing a shard that was just about to be read."""


def fetch(url: str, limit: int | None = None) -> tuple[Path, Index]:
    """A shard behind a URL: the path of a complete copy in the cache, and its index.

    Args:
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
        path = Path(cache.get_file(url))
    except FileNotFoundError as error:
        raise ShardError(f"{url}: webdataset downloads with curl, which is missing") from error
    except (OSError, ValueError) as error:
        raise ShardError(f"{url} cannot be fetched: {_reason(error)}") from error
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
    """What a JSON file behind a URL holds; None if there is none."""
    from webdataset.gopen import gopen

    try:
        with gopen(url) as stream:
            return json.loads(stream.read())
    except (OSError, ValueError, RecursionError) as error:
        log.debug("no %s: %s", url, error)
        return None


def remote_count(url: str, lengths: dict[str, int]) -> int | None:
    """Number of samples of a shard behind a URL; None if nothing says it.

    Asked are an index made earlier, the set's ``_info.json`` and the statistics that img2dataset
    writes beside each shard.

    Args:
        lengths: Of ``_info.json``, by name.
    """
    known = cached_count(url)
    if known is not None:
        return known
    base, mark, query = url.partition("?")
    name = base.rpartition("/")[2]
    if name in lengths:
        return lengths[name]
    statistics = fetch_json(f"{base.removesuffix('.tar')}_stats.json{mark}{query}")
    count = statistics.get("successes") if isinstance(statistics, dict) else None
    return count if isinstance(count, int) else None


# Exit codes of curl that say more in words.
_CURL = {6: "unknown host", 7: "no connection", 18: "the transfer ended early", 22: "HTTP error"}


def _reason(error: Exception) -> str:
    text = str(error)
    for code, meaning in _CURL.items():
        if f"exit {code} " in text:
            return f"{meaning} (curl's exit code {code})"
    return text
