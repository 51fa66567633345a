"""What shards hold, in a few lines."""

from mgca.data.shards.index import cached_count, index_of, is_remote
from mgca.data.shards.sample import CorruptSample
from mgca.data.shards.shard import OpenShard
from mgca.data.shards.source import Shards

_EXAMPLES = 3


def summarise(shards: Shards) -> str:
    """Numbers of shards and samples, bytes, samples without image or caption, and some captions.

    Of remote shards that were not downloaded only the number of samples is known.
    """
    local = [place for place in shards.places if not is_remote(place)]
    lines = [f"{len(shards.names)} shards, {shards.names[0]} to {shards.names[-1]}"]
    lines.append(
        f"{len(shards):,} samples, {min(shards.counts):,} to {max(shards.counts):,} per shard"
    )
    lines.append(f"digest {shards.digest[:12]}")
    if len(local) < len(shards.places):
        remote = [place for place in shards.places if is_remote(place)]
        cached = sum(cached_count(place) is not None for place in remote)
        lines.append(f"{len(remote)} of them remote, {cached} indexed")
    if local:
        indices = [index_of(place, place) for place in local]
        lines.append(f"{sum(index.bytes for index in indices) / 2**30:.2f} GiB, all complete")
        for what, missing in (
            ("image", sum(index.images.count(None) for index in indices)),
            ("caption", sum(_without_caption(index) for index in indices)),
        ):
            if missing:
                lines.append(f"{missing:,} samples without {what}, which training leaves out")
        lines += ["captions such as", *(f"  {caption}" for caption in _captions(local[0]))]
    return "\n".join(lines)


def _without_caption(index) -> int:
    pairs = zip(index.texts, index.details, strict=True)
    return sum(text is None and details is None for text, details in pairs)


def _captions(place: str) -> list[str]:
    """The first captions of a shard, or why they cannot be read."""
    shown = []
    with OpenShard(place) as shard:
        for number in range(min(_EXAMPLES, len(shard.index))):
            try:
                shown.append(shard.caption(number))
            except CorruptSample as error:
                shown.append(f"({shard.index.keys[number]}: {error})")
    return shown
