"""Batches streamed from shards, by worker processes or in this one."""

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mgca.data.shards.index import ShardError
from mgca.data.shards.order import Order, StreamConfig, generator
from mgca.data.shards.sample import CorruptSample, draw_text, image_of
from mgca.data.shards.shard import OpenShard
from mgca.data.shards.source import Shards
from mgca.data.shards.texts import Embeddings, load_nouns
from mgca.data.texts import nouns
from mgca.utils.processes import end_with_parent

log = logging.getLogger(__name__)

RULES = ("uniform", "original", "nouns")
# Share of samples that may be corrupt, asked of at least so many samples.
CORRUPT_LIMIT, CORRUPT_SEEN = 0.01, 1000
_EXAMPLES = 5


class Batch(NamedTuple):
    """What a process takes of the global batch of a step.

    Attributes:
        step: From 0, over all epochs.
        images: (n, 3, S, S) uint8.
        texts: One drawn for each image.
        keys: ``SHARD/KEY`` of each image.
        corrupt: Samples that are left out, each with its key and what is wrong with it.
        embeddings: (n, C) float32 of the texts, where they were computed beforehand; else None.
    """

    step: int
    images: Tensor
    texts: list[str]
    keys: list[str]
    corrupt: list[str]
    embeddings: Tensor | None


def steps_per_epoch(shards: Shards, batch_size: int, stream: StreamConfig) -> int:
    """Whole batches in an epoch.

    Raises:
        ValueError: If lanes do not divide the batch, or the samples do not fill one.
    """
    return Order(shards.names, shards.counts, stream.lanes, batch_size, 0).steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of each batch that one process reads, and how it reads it.

    Attributes:
        rank: Number of this process, from 0.
        world: Number of processes that share a batch.
        workers: Number of processes that read for this one; with 0 it reads itself.
        corrupt_limit: Share of the samples seen in one pass that may be corrupt, of 1000 at least.
        precomputed: Folder that ``mgca data captions`` wrote to; by default the cache. Nouns that
            are not there are extracted by the workers.
        text_digest: Digest of the encoder whose text embeddings to give, where they are there.
        download_limit: Bytes that downloaded shards may take in the cache, or None.
    """

    rank: int = 0
    world: int = 1
    workers: int = 0
    corrupt_limit: float = CORRUPT_LIMIT
    precomputed: str | os.PathLike | None = None
    text_digest: str | None = None
    download_limit: int | None = None


def batches(
    shards: Shards,
    stream: StreamConfig,
    steps: range,
    *,
    batch_size: int,
    captions: str = "uniform",
    seed: int = 0,
    share: Share = Share(),  # noqa: B008, it is frozen
) -> Iterator[Batch]:
    """The batches of some steps, as far as they are one process's share.

    What a step holds depends on the seed and the step alone: a run that is resumed repeats and
    skips nothing, and the batches of all processes, one after the other, are the same however
    many processes and workers there are.

    Args:
        shards: The shards to read.
        stream: How batches are made of them.
        steps: The steps, from 0 and over all epochs.
        batch_size: Size of the batch of all processes together.
        captions: Which texts are drawn: ``"uniform"``, ``"original"`` or ``"nouns"``, as in
            :class:`mgca.config.TrainConfig`.
        seed: Seed of the order, the texts and the crops.
        share: The part of each batch that this process reads.

    Raises:
        ValueError: If the numbers do not fit each other; the message says which to change.
        ShardError: If a shard cannot be read, or too many samples are corrupt.
    """
    if captions not in RULES:
        raise ValueError(f"captions must be one of {', '.join(RULES)}, not {captions!r}")
    order = Order(shards.names, shards.counts, stream.lanes, batch_size, seed)
    lanes = order.lanes_of(share.rank, share.world, share.workers)
    parts = _Parts(_Reader(shards, stream, order, captions, share), lanes, steps)
    loaded = _load(parts, share.workers) if share.workers else iter(parts)
    return _collect(loaded, steps, len(lanes), share.corrupt_limit)


class _Part(NamedTuple):
    """What one worker contributes to a step; as in :class:`Batch`."""

    images: Tensor
    texts: list[str]
    keys: list[str]
    corrupt: list[str]
    embeddings: Tensor | None


def _collect(
    parts: Generator[_Part | ShardError, None, None], steps: range, shares: int, limit: float
) -> Iterator[Batch]:
    """Join the parts of each step, and watch over the share of corrupt samples."""
    seen, corrupt = 0, []
    with closing(parts):
        for step in steps:
            batch = _join(step, [_sound(next(parts)) for _ in range(shares)])
            seen += len(batch.keys) + len(batch.corrupt)
            for sample in batch.corrupt:
                corrupt.append(sample)
                if len(corrupt) <= _EXAMPLES:
                    log.warning("step %d leaves out %s", step, sample)
            if len(corrupt) > limit * max(seen, CORRUPT_SEEN):
                raise ShardError(
                    f"{len(corrupt)} of {seen} samples are corrupt, more than {limit:.1%}: "
                    f"{'; '.join(corrupt[:_EXAMPLES])}. Make the shards again, or raise the limit"
                )
            yield batch


def _sound(part: _Part | ShardError) -> _Part:
    if isinstance(part, ShardError):
        # Not itself: raised, it would refer to frames that refer to it, and live on.
        raise ShardError(str(part))
    return part


def _join(step: int, parts: list[_Part]) -> Batch:
    images, texts, keys, corrupt, embeddings = zip(*parts, strict=True)
    return Batch(
        step=step,
        images=torch.cat(images) if len(parts) > 1 else images[0],
        texts=sum(texts, []),
        keys=sum(keys, []),
        corrupt=sum(corrupt, []),
        embeddings=_all_or_none(embeddings, keys),
    )


def _all_or_none(embeddings: Sequence[Tensor | None], keys: Sequence[list[str]]) -> Tensor | None:
    """The embeddings of all parts that have samples; None if one has none."""
    used = [part for part, names in zip(embeddings, keys, strict=True) if names]
    return torch.cat(used) if used and all(part is not None for part in used) else None


def _load(parts: "_Parts", workers: int) -> Generator[_Part | ShardError, None, None]:
    """The parts, read by processes, which end with this generator."""
    loader = DataLoader(
        parts,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=end_with_parent,
        # The loader seeds its workers with a number that it would take from torch's own generator.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        del iterator  # which stops the workers


def _as_it_is(part: _Part) -> _Part:
    return part


class _Parts(IterableDataset):
    """The parts of each step that one worker reads; in the loader, workers take turns, so that
    parts come in the order of the lanes."""

    def __init__(self, reader: "_Reader", shares: list[range], steps: range) -> None:
        self.reader, self.shares, self.steps = reader, shares, steps

    def __iter__(self) -> Generator[_Part | ShardError, None, None]:
        worker = get_worker_info()
        lanes = self.shares[worker.id if worker else 0]
        try:
            for step in self.steps:
                yield self.reader.part(step, lanes)
        except ShardError as error:
            # Raised by a worker, it would arrive inside the text of a traceback.
            yield error
        finally:
            self.reader.close()


class _Reader:
    """Reads samples; keeps the shard open that each lane is in."""

    def __init__(
        self,
        shards: Shards,
        stream: StreamConfig,
        order: Order,
        rule: str,
        share: Share,
    ) -> None:
        self.shards, self.stream, self.order, self.rule = shards, stream, order, rule
        self.folder = None if share.precomputed is None else Path(share.precomputed)
        self.download_limit = share.download_limit
        self.embeddings = Embeddings(self.folder, share.text_digest) if share.text_digest else None
        self.open: dict[int, _Current] = {}

    def part(self, step: int, lanes: range) -> _Part:
        """What a step takes of some lanes."""
        size = self.stream.size
        images, texts, keys, corrupt, vectors = [], [], [], [], []
        for lane in lanes:
            for epoch, position, number in self.order.samples(step, lane):
                current = self._current(lane, position)
                name, key = self.shards.names[position], current.shard.index.keys[number]
                seeds = (self.order.seed, epoch, name, key)
                try:
                    caption = current.shard.caption(number)
                    image = image_of(
                        current.shard.image(number),
                        size,
                        self.stream.crop,
                        generator("crop", *seeds),
                    )
                except CorruptSample as error:
                    corrupt.append(f"{name}/{key}: {error}")
                    continue
                words = nouns(caption) if current.nouns is None else current.nouns[number]
                drawn = draw_text(caption, words, self.rule, generator("text", *seeds))
                images.append(image)
                texts.append(drawn.text)
                keys.append(f"{name}/{key}")
                if self.embeddings:
                    vectors.append(self.embeddings.of(current.captions, number, drawn))
        return _Part(
            torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8),
            texts,
            keys,
            corrupt,
            torch.stack(vectors) if vectors and all(v is not None for v in vectors) else None,
        )

    def _current(self, lane: int, position: int) -> "_Current":
        current = self.open.get(lane)
        if current is None or current.position != position:
            if current is not None:
                self.open.pop(lane).shard.close()
            name = self.shards.names[position]
            shard = self.shards.open(position, self.download_limit)
            current = self.open[lane] = _Current(
                position,
                shard,
                load_nouns(name, shard.index, self.folder),
                self.embeddings.load(name, shard.index) if self.embeddings else None,
            )
        return current

    def close(self) -> None:
        """Close all shards."""
        while self.open:
            self.open.popitem()[1].shard.close()


class _Current(NamedTuple):
    """The shard that a lane is in, and what was computed of its captions beforehand."""

    position: int
    shard: OpenShard
    nouns: list[list[str]] | None
    captions: Tensor | None
