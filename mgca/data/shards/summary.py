"""A summary of shards: what they hold, how much of it can be used, and why the rest cannot."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mgca.data.shards.counts import first_of
from mgca.data.shards.index import cached_count, is_remote
from mgca.data.shards.source import Shards
from mgca.data.shards.usable import Reasons, describe_unused, problems
from mgca.utils.processes import in_processes

_CAPTIONS = 3


@dataclass(frozen=True)
class Summary:
    """What shards hold.

    Attributes:
        shards: The shards that it is of.
        local: Number of samples that lie on this machine; of the others only the number is known.
        bytes: Size of the local shards.
        usable: Number of local samples with an image and a caption that can be read.
        left_out: Number of the other local samples, by what is wrong with them.
        unused: Number of members that are neither image nor caption, by extension, as in
            :class:`mgca.data.shards.index.Index`.
        absent: Names of shards that are missing in the numbers of the others.
        captions: The first captions.
    """

    shards: Shards
    local: int
    bytes: int
    usable: int
    left_out: dict[str, int]
    unused: dict[str, int]
    absent: tuple[str, ...]
    captions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "digest": self.shards.digest,
            "samples": len(self.shards),
            "usable": self.usable,
            "left_out": self.left_out,
            "absent": list(self.absent),
            "shards": self.shards.counts_by_name(),
        }

    def __str__(self) -> str:
        shards = self.shards
        lines = [f"{len(shards.names)} shards, {shards.names[0]} to {shards.names[-1]}"]
        if self.absent:
            lines.append(f"missing in their numbers: {first_of(self.absent)}")
        lines.append(
            f"{len(shards):,} samples, {min(shards.counts):,} to {max(shards.counts):,} per shard"
        )
        lines.append(f"digest {shards.digest[:12]}")
        remote = [place for place in shards.places if is_remote(place)]
        if remote:
            indexed = sum(cached_count(place) is not None for place in remote)
            lines.append(f"{len(remote)} of them remote, {indexed} indexed")
        if len(remote) < len(shards.places):
            lines.append(f"{self.bytes / 2**30:.2f} GiB, all complete")
            of = f" of {self.local:,}" * (self.usable < self.local)
            lines.append(f"{self.usable:,}{of} samples with an image and a caption")
            lines += [f"  left out: {count:,} x {why}" for why, count in self.left_out.items()]
            if self.unused:
                lines.append(f"  {describe_unused(self.unused).removeprefix('; ')}")
            lines += ["captions such as", *(f"  {caption}" for caption in self.captions)]
        return "\n".join(lines)


def summarise(shards: Shards, workers: int | None = None) -> Summary:
    """Read all captions of local shards, and see that the images are there.

    Args:
        shards: The shards to look into.
        workers: Number of processes, by default one per core.

    Raises:
        ShardError: If a shard cannot be read.
    """
    local = [number for number, place in enumerate(shards.places) if not is_remote(place)]
    contents = in_processes(
        _look_into, [shards.only(number) for number in local], workers, desc="samples", unit="shard"
    )
    reasons, unused, captions = Reasons(), Counter(), []
    for content in contents:
        unused.update(content.unused)
        captions += content.captions[: _CAPTIONS - len(captions)]
        for reason, count in content.reasons:
            reasons.add(reason, count)
    return Summary(
        shards=shards,
        local=sum(shards.counts[number] for number in local),
        bytes=sum(content.bytes for content in contents),
        usable=sum(shards.counts[number] for number in local) - reasons.counts.total(),
        left_out={reasons.first[kind]: n for kind, n in reasons.counts.most_common()},
        unused=dict(unused),
        absent=tuple(absent_names(shards.names)),
        captions=tuple(captions),
    )


@dataclass(frozen=True)
class _Content:
    """What one shard holds, as in :class:`Summary`."""

    bytes: int
    unused: dict[str, int]
    reasons: list[tuple[str, int]]
    captions: list[str]


def _look_into(shards: Shards) -> _Content:
    """What the first of some shards holds."""
    reasons, captions = Reasons(), []
    with shards.open(0) as shard:
        for number, reason in enumerate(problems(shard, decode=False)):
            if reason is not None:
                reasons.add(reason)
            elif len(captions) < _CAPTIONS:
                captions.append(shard.caption(number))
        return _Content(
            shard.index.bytes,
            shard.index.unused,
            [(reasons.first[kind], count) for kind, count in reasons.counts.items()],
            captions,
        )


def absent_names(names: Sequence[str]) -> list[str]:
    """Names that are missing where others are numbered: ``00001.tar`` of ``00000`` to ``00002``.

    Args:
        names: Names of shards, of which the last number in each is taken for its own.
    """
    numbered: dict[tuple[str, str, int], set[int]] = {}
    for name in names:
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", name)
        if match:
            start, digits, end = match.groups()
            numbered.setdefault((start, end, len(digits)), set()).add(int(digits))
    return [
        f"{start}{number:0{width}}{end}"
        for (start, end, width), numbers in numbered.items()
        if max(numbers) - min(numbers) < 2 * len(numbers)  # else they are no series
        for number in range(min(numbers), max(numbers))
        if number not in numbers
    ]
