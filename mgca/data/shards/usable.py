"""Which samples of a shard can be trained on, and why the others cannot."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mgca.data.shards.index import ShardError, is_remote
from mgca.data.shards.sample import CorruptSample
from mgca.data.shards.shard import OpenShard
from mgca.utils.images import ImageError, open_image

if TYPE_CHECKING:
    from mgca.data.shards.source import Shards

_TRIED = 1000  # samples of which one must be of use


def problems(shard: OpenShard, *, decode: bool) -> Iterator[str | None]:
    """For each sample of a shard, why it cannot be trained on; None if it can.

    Args:
        shard: The shard, open.
        decode: Whether to decode the images too, and not only to see that they are there.
    """
    index = shard.index
    repeated = {key for key, count in Counter(index.keys).items() if count > 1}
    for number, key in enumerate(index.keys):
        image = index.images[number]
        without_caption = index.texts[number] is None and index.details[number] is None
        if key in repeated and (image is None or without_caption):
            yield "its members do not follow one another in the tar"
        elif image is None or image[1] == 0:
            yield "no image" if image is None else "an empty image"
        else:
            yield _unreadable(shard, number, decode)


def _unreadable(shard: OpenShard, number: int, decode: bool) -> str | None:
    try:
        shard.caption(number)
        if decode:
            open_image(shard.image(number))
    except CorruptSample as error:
        return str(error)
    except ImageError as error:
        return f"an image that cannot be decoded ({error})"
    return None


class Reasons:
    """Reasons for which samples cannot be used, counted by kind, each with its first instance."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, reason: str, count: int = 1) -> None:
        """Count a reason; what it says in brackets is no part of its kind."""
        kind = reason.partition(" (")[0]
        self.counts[kind] += count
        self.first.setdefault(kind, reason)

    def lines(self) -> list[str]:
        """``"12 x no caption"``, the most frequent first."""
        return [f"{count:,} x {self.first[kind]}" for kind, count in self.counts.most_common()]


def require_usable(shards: "Shards") -> None:
    """Check that local shards have a sample to train on: the first one is enough.

    Args:
        shards: The shards; where one is remote and not yet fetched, nothing is asked.

    Raises:
        ShardError: If there is none among the first 1000; it counts why not.
    """
    reasons, unused = Reasons(), Counter()
    for position, place in enumerate(shards.places):
        if is_remote(place):
            return
        with shards.open(position) as shard:
            unused.update(shard.index.unused)
            for reason in problems(shard, decode=True):
                if reason is None:
                    return
                reasons.add(reason)
                if reasons.counts.total() == _TRIED:
                    break
        if reasons.counts.total() == _TRIED:
            break
    if tried := reasons.counts.total():
        first = "the first " * (tried < len(shards))
        raise ShardError(
            f"not one of {first}{tried:,} samples can be used, {shards.places[0]} and on: "
            f"{'; '.join(reasons.lines())}{describe_unused(unused)}"
        )


def describe_unused(unused: Mapping[str, int]) -> str:
    """A clause on members that belong to no sample as image or caption; empty if there are none.

    Args:
        unused: Number of such members by extension, as in
            :class:`mgca.data.shards.index.Index`.
    """
    if not unused:
        return ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in unused.items())
    clause = f"; members without a use: {kinds}"
    if any(kind.startswith("*.") for kind in unused):
        clause += (
            " (what follows the FIRST dot of a file's name is its extension, and what precedes it "
            "names the sample: rename IMG.0001.jpg to IMG_0001.jpg)"
        )
    return clause
