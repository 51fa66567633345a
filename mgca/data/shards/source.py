"""Shards found: in a folder, by a pattern or behind URLs, counted and checked before use."""

import glob
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgca.data.shards.index import ShardError, cached_count, index_of, is_remote, need_webdataset
from mgca.data.shards.remote import fetch, fetch_json, remote_count
from mgca.utils.processes import in_processes
from mgca.utils.progress import progress

log = logging.getLogger(__name__)

_INFO = "_info.json"
_EXAMPLES = 3


@dataclass(frozen=True)
class Shards:
    """Shards, in the order of their names.

    Attributes:
        names: File names; with as much of the folder as tells them apart.
        places: Of each, its path or URL.
        counts: Of each, its number of samples.
    """

    names: tuple[str, ...]
    places: tuple[str, ...]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        """Samples of all shards."""
        return sum(self.counts)

    @property
    def digest(self) -> str:
        """SHA-256 of names and counts, which the order of training depends on."""
        rows = [list(row) for row in zip(self.names, self.counts, strict=True)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def first(self, shards: int | None) -> "Shards":
        """The first so many shards; all of them for None."""
        return Shards(self.names[:shards], self.places[:shards], self.counts[:shards])


def find_shards(
    source: str | os.PathLike | Sequence[str], *, workers: int | None = None, download: bool = False
) -> Shards:
    """Find shards, check that local ones are complete, and count their samples.

    The first time this scans the headers of every local shard; the indices are kept in the cache.

    Args:
        source: A folder, of which all ``*.tar`` are taken (where its ``_info.json`` has a split
            ``train``, the shards of that); a path or URL, with braces such as
            ``{00000..00331}`` or, for paths, ``*``; the URL of a folder that has an
            ``_info.json``; or a list of paths and URLs.
        workers: Number of processes that scan, by default one per core.
        download: Download remote shards whose number of samples nothing else says.

    Raises:
        ShardError: If there are none, a shard is listed twice, some are missing, truncated or not
            tars (all are named), or the number of samples of a remote one is not known.
        ImportError: If webdataset is not installed.
    """
    need_webdataset()
    places = sorted(_expand(source))
    names = _names(places)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ShardError(f"{twice} is listed more than once")
    local = [place for place in places if not is_remote(place)]
    remote = [place for place in places if is_remote(place)]
    counts = _count_local(local, workers) | _count_remote(remote, download)
    order = sorted(range(len(names)), key=names.__getitem__)
    return Shards(
        names=tuple(names[i] for i in order),
        places=tuple(places[i] for i in order),
        counts=tuple(counts[places[i]] for i in order),
    )


def _expand(source: str | os.PathLike | Sequence[str]) -> list[str]:
    """The paths, made absolute, and URLs that a source names."""
    from webdataset.shardlists import expand_urls

    if not isinstance(source, (str, os.PathLike)):
        places = [str(place) for place in source]
    elif is_remote(str(source)):
        bare = str(source).partition("?")[0]
        places = expand_urls(str(source)) if bare.endswith(".tar") else _remote_folder(str(source))
    elif os.path.isdir(source):
        return _folder(Path(source).absolute())
    else:
        patterns = expand_urls(str(source)) if "{" in str(source) else [str(source)]
        places = [
            found
            for pattern in patterns
            for found in ((glob.glob(pattern) if "*" in pattern else None) or [pattern])
        ]
    if not places or any("*" in place for place in places):
        raise ShardError(f"no shards: {source} names no file")
    return [place if is_remote(place) else os.path.abspath(place) for place in places]


def _folder(folder: Path) -> list[str]:
    present = {path.name: str(path) for path in folder.glob("*.tar")}
    try:
        splits = json.loads((folder / _INFO).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        splits = None
    train = _lengths(splits, "train")
    if train:
        if missing := sorted(set(train) - set(present)):
            raise ShardError(
                f"{_some(missing)}: missing, of {len(train)} shards that {folder / _INFO} names. "
                "Download them, or name the shards to train on with a pattern"
            )
        if others := set(present) - set(train):
            log.info("%s: %d shards are not of its split train", folder, len(others))
        return [present[name] for name in train]
    if not present:
        raise ShardError(f"no shards (*.tar) in {folder}")
    return list(present.values())


def _remote_folder(url: str) -> list[str]:
    train = _lengths(fetch_json(f"{url.rstrip('/')}/{_INFO}"), "train")
    if not train:
        raise ShardError(
            f"{url} has no {_INFO} that names the shards of a split train: give the shards "
            "themselves, with braces, as in {00000..00331}.tar"
        )
    return [f"{url.rstrip('/')}/{name}" for name in train]


def _lengths(info: Any, split: str | None = None) -> dict[str, int]:
    """Samples of each shard, by name, of one split or all of an ``_info.json``; empty if it is
    none."""
    try:
        splits = info["splits"]
        chosen = splits.values() if split is None else [splits[split]]
        return {
            str(name): int(count)
            for one in chosen
            for name, count in zip(one["filenames"], one["shard_lengths"], strict=True)
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return {}


def _names(places: Sequence[str]) -> list[str]:
    """File names, or where two are equal, paths from the folder that all have in common."""
    bare = [place.partition("?")[0] if is_remote(place) else place for place in places]
    names = [place.rpartition("/")[2] for place in bare]
    if len(set(names)) == len(names):
        return names
    split = [place.split("/") for place in bare]
    common = len(os.path.commonprefix([parts[:-1] for parts in split]))
    return ["/".join(parts[common:]) for parts in split]


def _count_local(places: list[str], workers: int | None) -> dict[str, int]:
    """Samples of each; scans those that the cache does not know."""
    counts = {place: cached_count(place) for place in places}
    unknown = [place for place, count in counts.items() if count is None]
    broken = []
    scanned = in_processes(_scan_one, unknown, workers, desc="index", unit="shard")
    for place, (count, error) in zip(unknown, scanned, strict=True):
        counts[place] = count
        if error:
            broken.append(error)
    if broken:
        more = "".join(f"\n  {error}" for error in broken)
        raise ShardError(f"{len(broken)} of {len(places)} shards cannot be used:{more}")
    return counts


def _scan_one(place: str) -> tuple[int, str | None]:
    """Number of samples and no error, or 0 and what is wrong."""
    try:
        return len(index_of(place, place)), None
    except ShardError as error:
        return 0, str(error)


def _count_remote(urls: list[str], download: bool) -> dict[str, int]:
    if not urls:
        return {}
    known = [cached_count(url) for url in urls]
    folders = sorted({url.partition("?")[0].rpartition("/")[0] for url in urls})
    lengths = {}
    if None in known:
        lengths = {folder: _lengths(fetch_json(f"{folder}/{_INFO}")) for folder in folders}

    def count(url: str) -> int | None:
        return remote_count(url, lengths.get(url.partition("?")[0].rpartition("/")[0], {}))

    with ThreadPoolExecutor(8) as threads:
        counts = dict(zip(urls, threads.map(count, urls), strict=True))
    unknown = [url for url, number in counts.items() if number is None]
    if unknown and not download:
        raise ShardError(
            f"{_some(unknown)}: the number of samples is not known, because there is neither "
            f"{_INFO} nor img2dataset's _stats.json beside them. `mgca data shards --download "
            "SHARDS` downloads and counts them"
        )
    for url in progress(iterable=unknown, desc="download", unit="shard"):
        counts[url] = len(fetch(url)[1])
    return counts


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _EXAMPLES
    return ", ".join(names[:_EXAMPLES]) + f" and {more} more" * (more > 0)
