"""The order of training on shards: a pure function of seed and step.

In each epoch the shards are permuted, and the samples within each shard; one after the other they
are the sequence of all samples. It is cut into ``lanes`` contiguous segments of equal length, and
a batch takes the same number of consecutive samples of each. Nothing of this depends on
the number of processes or workers, which only share the lanes out.
"""

import bisect
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

CROPS = ("centre", "random")


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How batches are made of shards.

    Attributes:
        lanes: Number of segments of an epoch that a batch is drawn from. As many shards are open
            at a time; more lanes mix a batch of more shards.
        size: Side of the images, in pixels.
        crop: ``"centre"`` of the image at its shorter side, or ``"random"``, a crop of 90 to 100 %
            of its area as open_clip trains with. The paper states no augmentation.
    """

    lanes: int = 16
    size: int = 224
    crop: str = "centre"

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.size < 1:
            raise ValueError("lanes and size must be positive")
        if self.crop not in CROPS:
            raise ValueError(f"crop must be one of {', '.join(CROPS)}, not {self.crop!r}")


def generator(*parts: int | str) -> torch.Generator:
    """A generator that depends on these numbers and names alone."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


# Each lane uses one permutation of a shard at a time; 256 of 10,000 samples take 20 MB.
@functools.lru_cache(maxsize=256)
def _permutation(size: int, *parts: int | str) -> np.ndarray:
    return torch.randperm(size, generator=generator(*parts)).numpy()


@functools.lru_cache(maxsize=4)
def _shards(counts: tuple[int, ...], seed: int, epoch: int) -> tuple[list[int], list[int]]:
    """The shards in the order of an epoch, and where each starts in the sequence of all samples."""
    order = _permutation(len(counts), "shards", seed, epoch).tolist()
    return order, list(itertools.accumulate((counts[shard] for shard in order), initial=0))[:-1]


@dataclass(frozen=True)
class Order:
    """Which samples each step takes.

    Attributes:
        names: Names of the shards.
        counts: Number of samples of each shard.
        lanes: Number of segments that an epoch is cut into.
        batch_size: Size of the global batch, ``B``.
        seed: Seed of the permutations.

    Raises:
        ValueError: If lanes do not divide the batch, or the samples do not fill one.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    lanes: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.lanes:
            lower = self.batch_size // self.lanes * self.lanes
            fits = " or ".join(str(size) for size in (lower, lower + self.lanes) if size)
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of lanes {self.lanes}: make it "
                f"{fits}, or choose lanes that divide it"
            )
        if self.length < self.per_lane:
            raise ValueError(
                f"{sum(self.counts)} samples do not fill a batch of {self.batch_size} from "
                f"{self.lanes} lanes: lower batch_size, or add shards"
            )

    @property
    def length(self) -> int:
        """Samples of a lane, in an epoch."""
        return sum(self.counts) // self.lanes

    @property
    def per_lane(self) -> int:
        """Samples of a lane, in a batch."""
        return self.batch_size // self.lanes

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch; what does not fill one is left out of that epoch."""
        return self.length // self.per_lane

    def samples(self, step: int, lane: int) -> Iterator[tuple[int, int, int]]:
        """(epoch, position of the shard, position of the sample in its tar) of each sample that a
        step takes of a lane."""
        epoch, position = divmod(step, self.steps_per_epoch)
        shards, starts = _shards(self.counts, self.seed, epoch)
        first = lane * self.length + position * self.per_lane
        for place in range(first, first + self.per_lane):
            rank = bisect.bisect_right(starts, place) - 1
            shard = shards[rank]
            within = _permutation(
                self.counts[shard], "samples", self.seed, epoch, self.names[shard]
            )
            yield epoch, shard, int(within[place - starts[rank]])

    def lanes_of(self, rank: int, world: int, workers: int) -> list[range]:
        """The lanes of a process, shared out among its workers (none is like one).

        Raises:
            ValueError: If they cannot be shared out evenly.
        """
        if not 0 <= rank < world or workers < 0:
            raise ValueError(f"rank {rank} of {world} with {workers} workers: no such process")
        shares = world * max(workers, 1)
        if self.lanes % shares:
            raise ValueError(
                f"{self.lanes} lanes are not shared out evenly among {world} processes with "
                f"{max(workers, 1)} workers each: set workers so that {world} x workers divides "
                f"{self.lanes}, or lanes to a multiple of {shares}"
            )
        each = self.lanes // shares
        first = rank * (self.lanes // world)
        return [
            range(first + worker * each, first + (worker + 1) * each)
            for worker in range(max(workers, 1))
        ]
