"""How many samples shards have, by their own headers and by what is said beside them.

A set may say it in ``_info.json``, and img2dataset does in a ``_stats.json`` beside each shard.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mgca.data.shards.index import ShardError, cached_count, index_of
from mgca.data.shards.remote import fetch, fetch_json, remote_count, successes
from mgca.data.shards.usable import describe_unused
from mgca.utils.processes import in_processes
from mgca.utils.progress import progress

INFO, STATS = "_info.json", "_stats.json"
_EXAMPLES = 3


def count_local(places: list[str], workers: int | None) -> dict[str, int]:
    """Samples of each; scans those that the cache does not know.

    Raises:
        ShardError: If some cannot be used, or have another number of samples than is said beside
            them; all are named.
    """
    counts = {place: cached_count(place) for place in places}
    unknown = [place for place, count in counts.items() if count is None]
    broken = []
    scanned = in_processes(_scan_one, unknown, workers, desc="index", unit="shard")
    for place, (count, error) in zip(unknown, scanned, strict=True):
        counts[place] = count
        if error:
            broken.append(error)
            del counts[place]
    broken += _other_counts(counts)
    if broken:
        more = "".join(f"\n  {error}" for error in broken)
        raise ShardError(f"{len(broken)} of {len(places)} shards cannot be used:{more}")
    return counts


def _other_counts(counts: dict[str, int]) -> Iterator[str]:
    """A message for each local shard of which a file beside it says another number of samples."""
    lengths = {
        folder: shard_lengths(read_json(folder / INFO))
        for folder in {Path(place).parent for place in counts}
    }
    for place, count in counts.items():
        path = Path(place)
        statistics = path.with_name(path.name.removesuffix(".tar") + STATS)
        said = {
            path.parent / INFO: lengths[path.parent].get(path.name),
            statistics: successes(read_json(statistics)),
        }
        for file, expected in said.items():
            if expected not in (None, count):
                unused = describe_unused(index_of(place, place).unused)
                yield (
                    f"{place} has {count:,} samples, and {expected:,} by {file.name}: download it "
                    f"again, or remove {file} if the shard was changed on purpose{unused}"
                )
                break


def _scan_one(place: str) -> tuple[int, str | None]:
    """Number of samples and no error, or 0 and what is wrong."""
    try:
        return len(index_of(place, place)), None
    except ShardError as error:
        return 0, str(error)


def count_remote(urls: list[str], download: bool) -> dict[str, int]:
    if not urls:
        return {}
    indexed = [cached_count(url) for url in urls]
    folders = sorted({url.partition("?")[0].rpartition("/")[0] for url in urls})
    lengths = {}
    if None in indexed:
        lengths = {folder: shard_lengths(fetch_json(f"{folder}/{INFO}")) for folder in folders}

    def count(url: str) -> int | None:
        return remote_count(url, lengths.get(url.partition("?")[0].rpartition("/")[0], {}))

    with ThreadPoolExecutor(8) as threads:
        counts = dict(zip(urls, threads.map(count, urls), strict=True))
    unknown = [url for url, number in counts.items() if number is None]
    if unknown and not download:
        raise ShardError(
            f"{first_of(unknown)}: the number of samples is not known, because there is neither "
            f"{INFO} nor img2dataset's _stats.json beside them. `mgca data shards --download "
            "SHARDS` downloads and counts them"
        )
    for url in progress(iterable=unknown, desc="download", unit="shard"):
        counts[url] = len(fetch(url)[1])
    return counts


def shard_lengths(info: Any, split: str | None = None) -> dict[str, int]:
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


def read_json(path: Path) -> Any | None:
    """The content of a JSON file; None if there is none, or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def first_of(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _EXAMPLES
    return ", ".join(names[:_EXAMPLES]) + f" and {more} more" * (more > 0)
