"""Shards found: in a folder, by a pattern or behind URLs, counted and checked before use."""

import glob
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgca.data.shards.counts import (
    INFO,
    STATS,
    count_local,
    count_remote,
    first_of,
    read_json,
    shard_lengths,
)
from mgca.data.shards.index import CAPTION_KEY, ShardError, is_remote, need_webdataset
from mgca.data.shards.remote import fetch_json
from mgca.data.shards.shard import OpenShard
from mgca.data.shards.usable import require_usable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shards:
    """Shards, in the order of their names.

    Attributes:
        names: The file name of each; with as much of the folder as tells them apart.
        places: The path or URL of each.
        counts: The number of samples of each.
        caption_key: The key of the samples' ``.json`` under which captions lie.
    """

    names: tuple[str, ...]
    places: tuple[str, ...]
    counts: tuple[int, ...]
    caption_key: str = CAPTION_KEY

    def __len__(self) -> int:
        """Samples of all shards."""
        return sum(self.counts)

    @property
    def digest(self) -> str:
        """SHA-256 of names and counts, which the order of training depends on, and of the key of
        captions where it is not the usual one."""
        rows: list = [list(row) for row in zip(self.names, self.counts, strict=True)]
        if self.caption_key != CAPTION_KEY:
            rows.append(self.caption_key)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def first(self, shards: int | None) -> "Shards":
        """The first so many shards; all of them for None."""
        return self._part(slice(shards))

    def only(self, position: int) -> "Shards":
        """The one shard at that position in ``names``."""
        return self._part(slice(position, position + 1))

    def _part(self, part: slice) -> "Shards":
        return Shards(self.names[part], self.places[part], self.counts[part], self.caption_key)

    def open(self, position: int, download_limit: int | None = None) -> OpenShard:
        """Open one of the shards.

        Args:
            position: Position of the shard in ``names``.
            download_limit: Bytes that all downloads may take together, or None.

        Raises:
            ShardError: As :class:`mgca.data.shards.shard.OpenShard`, also where the number of its
                samples has changed.
        """
        return OpenShard(
            self.places[position],
            self.counts[position],
            download_limit,
            caption_key=self.caption_key,
        )

    def counts_by_name(self) -> dict[str, int]:
        """The number of samples of each shard, by its name."""
        return dict(zip(self.names, self.counts, strict=True))


def find_shards(
    source: str | os.PathLike | Sequence[str],
    *,
    workers: int | None = None,
    download: bool = False,
    caption_key: str = CAPTION_KEY,
) -> Shards:
    """Find shards, check that local ones are complete, and count their samples.

    The first time this scans the headers of every local shard; the indices are kept in the cache.
    Counts are held against those of ``_info.json`` and img2dataset's ``_stats.json`` beside them.

    Args:
        source: A folder, of which all ``*.tar`` are taken (where its ``_info.json`` has a split
            ``train``, the shards of that); a path or URL, with braces such as
            ``{00000..00331}`` or, for paths, ``*``; the URL of a folder that has an
            ``_info.json``; or a list of paths and URLs.
        workers: Number of processes that scan, by default one per core.
        download: Download remote shards whose number of samples nothing else says.
        caption_key: The key of the samples' ``.json`` under which captions lie.

    Raises:
        ShardError: If there are none, a shard is listed twice, some are missing, truncated, not
            tars or of fewer samples than is said beside them (all are named), the number of samples
            of a remote one is not known, or no sample can be used.
        ImportError: If webdataset is not installed.
    """
    need_webdataset()
    places = sorted(_expand(source))
    names = _names(places)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ShardError(f"{twice} is listed more than once")
    _refuse_links(places)
    local = [place for place in places if not is_remote(place)]
    remote = [place for place in places if is_remote(place)]
    counts = count_local(local, workers) | count_remote(remote, download)
    order = sorted(range(len(names)), key=names.__getitem__)
    shards = Shards(
        names=tuple(names[i] for i in order),
        places=tuple(places[i] for i in order),
        counts=tuple(counts[places[i]] for i in order),
        caption_key=caption_key,
    )
    require_usable(shards)
    return shards


def _refuse_links(places: list[str]) -> None:
    """Refuse two paths of one file, as a pattern finds them through links to folders."""
    earlier: dict[str, str] = {}
    for place in places:
        if not is_remote(place):
            other = earlier.setdefault(os.path.realpath(place), place)
            if other != place:
                raise ShardError(f"{place} is the same file as {other}: name it once")


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
            place
            for pattern in patterns
            for place in ((glob.glob(pattern) if "*" in pattern else None) or [pattern])
        ]
    if not places or any("*" in place for place in places):
        raise ShardError(f"no shards: {source} names no file")
    return [place if is_remote(place) else os.path.abspath(place) for place in places]


def _folder(folder: Path) -> list[str]:
    """The shards of a folder: those of its split ``train``, or all of them."""
    present = {path.name: str(path) for path in folder.glob("*.tar")}
    train = shard_lengths(read_json(folder / INFO), "train")
    if train:
        if missing := sorted(set(train) - set(present)):
            raise ShardError(
                f"{first_of(missing)}: missing, of {len(train)} shards that {folder / INFO} names. "
                "Download them, or name the shards to train on with a pattern"
            )
        if others := set(present) - set(train):
            log.info("%s: %d shards are not of its split train", folder, len(others))
        return [present[name] for name in train]
    if not present:
        raise ShardError(f"no shards (*.tar) in {folder}")
    counted = {f"{path.name.removesuffix(STATS)}.tar" for path in folder.glob(f"*{STATS}")}
    if missing := sorted(counted - set(present)):
        raise ShardError(
            f"{first_of(missing)}: missing in {folder}, which has their {STATS}. Download them, or "
            "name the shards to train on with a pattern"
        )
    return list(present.values())


def _remote_folder(url: str) -> list[str]:
    train = shard_lengths(fetch_json(f"{url.rstrip('/')}/{INFO}"), "train")
    if not train:
        raise ShardError(
            f"{url} has no {INFO} that names the shards of a split train: give the shards "
            "themselves, with braces, as in {00000..00331}.tar"
        )
    return [f"{url.rstrip('/')}/{name}" for name in train]


def _names(places: Sequence[str]) -> list[str]:
    """File names, or where two are equal, paths from the folder that all have in common."""
    bare = [place.partition("?")[0] if is_remote(place) else place for place in places]
    names = [place.rpartition("/")[2] for place in bare]
    if len(set(names)) == len(names):
        return names
    split = [place.split("/") for place in bare]
    common = len(os.path.commonprefix([parts[:-1] for parts in split]))
    return ["/".join(parts[common:]) for parts in split]
