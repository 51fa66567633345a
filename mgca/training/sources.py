"""Where batches come from: features at hand, or shards. Both depend on seed and step alone."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import joblib
import numpy as np
import torch
from torch import Tensor

from mgca.backbone.base import Backbone
from mgca.config import TrainConfig
from mgca.data.shards import (
    Batch,
    ShardError,
    Shards,
    Share,
    StreamConfig,
    batches,
    steps_per_epoch,
)
from mgca.data.texts import TextPool, known_pairs
from mgca.training.optimiser import generator
from mgca.training.resources import Process, Resources


class Place(NamedTuple):
    """The run that batches are for, and where it takes place.

    Attributes:
        train: Configuration of the training.
        backbone: The frozen encoders, on the process's device.
        process: This process among those of the run.
        resources: Resources of the run.
    """

    train: TrainConfig
    backbone: Backbone
    process: Process
    resources: Resources

    @property
    def local_batch(self) -> int:
        """Number of images of a batch that this process takes, before corrupt ones are left out."""
        return self.train.batch_size // self.process.world_size

    def inputs(self, features: Tensor) -> Tensor:
        """What the trained part takes of trunk features (b, F, h, w): these for a head, the dense
        features (b, C, h, w) for a decoder."""
        return features if self.train.part == "head" else self.backbone.project(features)


class Inputs(NamedTuple):
    """The inputs of a training step: features and texts of the images of one process.

    Attributes:
        dense: (b, C, h, w) float32, the frozen features that the trained part takes.
        texts: (b, C) float32, the embedding of a text of each image.
        exclude: (b, b) bool, pairs that are no negatives, or None.
        images: (b, 3, H, W) normalised images, where the objective needs them, else None.
    """

    dense: Tensor
    texts: Tensor
    exclude: Tensor | None = None
    images: Tensor | None = None


class Drawn(NamedTuple):
    """The batch of a step: which of the images and texts at hand it is made of.

    Attributes:
        step: Number of the step, from 0.
        keys: Positions of the images.
        texts: Positions of their texts in the pool.
        corrupt: Number of samples that are left out: none.
    """

    step: int
    keys: list[int]
    texts: list[int]
    corrupt: tuple[str, ...] = ()


class Source(Protocol):
    """Interface of a source of a run's batches.

    Attributes:
        measures: Columns of ``metrics.csv`` that are worth keeping beside the losses.
        digests: Digest of the data by name, for the record of a run.
        identity: JSON data that must be the same when a run goes on.
    """

    @property
    def measures(self) -> tuple[str, ...]: ...
    @property
    def digests(self) -> dict[str, str]: ...
    @property
    def identity(self) -> dict[str, object]: ...

    def __len__(self) -> int:
        """Number of images in the source."""
        ...

    def check(self, place: Place, images: bool) -> None:
        """Refuse a run that this source cannot serve.

        Args:
            place: The run.
            images: Whether its objective needs the images themselves.
        """
        ...

    def grid(self, backbone: Backbone) -> tuple[int, int]:
        """Rows and columns of the dense features of an image."""
        ...

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in an epoch."""
        ...

    def batches(self, place: Place, start: int, stop: int) -> Iterator[Batch | Drawn]:
        """This process's share of the batches of some steps."""
        ...

    def encode(self, place: Place, batch: Batch | Drawn, images: bool = False) -> Inputs:
        """The inputs of a step, computed from its batch.

        Args:
            place: The run.
            batch: This process's share of the batch.
            images: Whether the images themselves are among the inputs.
        """
        ...

    def sample(self, place: Place, images: int) -> Iterator[Tensor]:
        """Dense features of about ``images`` images, some at a time."""
        ...


@dataclass(frozen=True, eq=False)
class Cached:
    """Features at hand, and the texts that each image may draw: the small scales.

    Attributes:
        features: (n, F, h, w), the frozen trunk's features of each image.
        pool: Texts that each image may draw.
        texts: (len(pool.texts), C), embeddings of these texts.
        images: Function of positions that gives the normalised images (B, 3, H, W) there, for an
            objective that needs them; MGCA's does not.
    """

    features: np.ndarray
    pool: TextPool
    texts: Tensor
    images: Callable[[Sequence[int]], Tensor] | None = None

    measures = ()

    @property
    def digests(self) -> dict[str, str]:
        return {}

    @property
    def identity(self) -> dict[str, object]:
        return {"images": len(self), "texts": len(self.texts)}

    def __len__(self) -> int:
        return len(self.features)

    def check(self, place: Place, images: bool) -> None:
        if place.process.world_size > 1:
            raise ValueError("features at hand are for one process: train without torchrun")
        if images and self.images is None:
            raise ValueError(
                "the objective needs the images themselves, and the data has none: give "
                "Cached images=, or, for TCL's, contrast=0"
            )

    def grid(self, backbone: Backbone) -> tuple[int, int]:
        height, width = self.features.shape[-2:]
        return height, width

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole batches in an epoch; a last one that is not full is left out.

        Raises:
            ValueError: If there are fewer images than a batch takes.
        """
        if len(self) < batch_size:
            raise ValueError(
                f"{len(self)} images do not fill a batch of {batch_size}: lower batch_size"
            )
        return len(self) // batch_size

    def batches(self, place: Place, start: int, stop: int) -> Iterator[Drawn]:
        for step in range(start, stop):
            yield self.drawn(place.train, step)

    def drawn(self, train: TrainConfig, step: int) -> Drawn:
        """Images and texts of a step."""
        epoch, position = divmod(step, self.steps_per_epoch(train.batch_size))
        order = torch.randperm(len(self), generator=generator(train.seed, 0, epoch))
        begin = position * train.batch_size
        chosen = order[begin : begin + train.batch_size].tolist()
        texts = generator(train.seed, 1, step)
        draw = [self.pool.draw(i, train.captions, texts, names=train.names) for i in chosen]
        return Drawn(step, chosen, draw)

    @torch.no_grad()
    def encode(self, place: Place, batch: Drawn, images: bool = False) -> Inputs:
        train, device = place.train, place.process.device
        features = torch.from_numpy(self.features[batch.keys]).to(device).float()
        exclude = None
        if train.known is not None:
            exclude = known_pairs(self.pool, self.texts, batch.keys, batch.texts, train.known)
            exclude = exclude.to(device)
        return Inputs(
            place.inputs(features),
            self.texts[batch.texts].to(device),
            exclude,
            self.images(batch.keys).to(device) if images and self.images else None,
        )

    @torch.no_grad()
    def sample(self, place: Place, images: int) -> Iterator[Tensor]:
        some = self.features[:: max(1, len(self) // images)]
        for features in np.array_split(some, max(1, images // 32)):
            if len(features):
                moved = torch.from_numpy(features.astype(np.float32)).to(place.process.device)
                yield place.inputs(moved)


@dataclass(frozen=True)
class Streamed:
    """Images and captions in shards: the paper's scale.

    Attributes:
        shards: The shards, as :func:`mgca.data.shards.find_shards` gives them.
        stream: Settings of how batches are made of them.
    """

    shards: Shards
    stream: StreamConfig

    measures = ("images", "corrupt", "images_per_second", "utilisation", "waiting")

    @property
    def digests(self) -> dict[str, str]:
        return {"shards": self.shards.digest}

    @property
    def identity(self) -> dict[str, object]:
        number, digest = len(self.shards.names), self.shards.digest[:12]
        return {"shards": number, "samples": len(self), "their digest": digest}

    def __len__(self) -> int:
        return len(self.shards)

    def check(self, place: Place, images: bool) -> None:
        if place.train.names or place.train.known is not None:
            raise ValueError(
                "names and known need all captions in memory: they are for the small scales, set "
                "train.names=0 and train.known=none"
            )

    def grid(self, backbone: Backbone) -> tuple[int, int]:
        side = self.stream.size // backbone.stride
        return side, side

    def steps_per_epoch(self, batch_size: int) -> int:
        return steps_per_epoch(self.shards, batch_size, self.stream)

    def workers(self, place: Place) -> int:
        """Number of processes that read for this one: as asked, or as many as share its lanes."""
        if place.resources.workers is not None:
            return place.resources.workers
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        cores = joblib.cpu_count() // local
        lanes = self.stream.lanes // place.process.world_size
        # With a core for itself and one for them, a process reads best on its own.
        return max(n for n in range(1, max(cores, 1) + 1) if lanes % n == 0) if cores > 2 else 0

    def batches(self, place: Place, start: int, stop: int) -> Iterator[Batch]:
        train, resources = place.train, place.resources
        return batches(
            self.shards,
            self.stream,
            range(start, stop),
            batch_size=train.batch_size,
            captions=train.captions,
            seed=train.seed,
            share=Share(
                rank=place.process.global_rank,
                world=place.process.world_size,
                workers=self.workers(place),
                corrupt_limit=resources.corrupt_limit,
                precomputed=resources.precomputed,
                text_digest=place.backbone.text_digest,
                download_limit=resources.download_limit,
            ),
        )

    def noise(self, images: int) -> Batch:
        """A batch of random images, with which a step is timed."""
        side = self.stream.size
        pixels = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
        return Batch(0, pixels, ["a photo of noise."] * images, [""] * images, [], None)

    @torch.no_grad()
    def encode(self, place: Place, batch: Batch, images: bool = False) -> Inputs:
        """The inputs of a step, computed from its batch.

        Raises:
            ShardError: If no sample of this process can be read.
        """
        if not batch.keys:
            raise ShardError(
                f"step {batch.step}: all samples of this process are corrupt: {batch.corrupt[0]}"
            )
        device, backbone = place.process.device, place.backbone
        mean, std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (backbone.mean, backbone.std)
        )

        def normalised(part: Tensor) -> Tensor:
            return (part.to(device).float() / 255 - mean) / std

        parts = batch.images.split(place.resources.micro_batch or place.local_batch)
        kind = getattr(torch, place.train.precision)
        # A GPU encodes several times as fast in half precision; a CPU's features stay those that
        # are cached for the small scales.
        half = device.type == "cuda" and kind != torch.float32
        with torch.autocast(device.type, kind, enabled=half):
            dense = torch.cat([place.inputs(backbone.features(normalised(p))) for p in parts])
            texts = batch.embeddings
            if texts is None:
                texts = backbone.encode_text(batch.texts)
        return Inputs(
            dense.float(),
            texts.to(device).float(),
            images=normalised(batch.images) if images else None,
        )

    def sample(self, place: Place, images: int) -> Iterator[Tensor]:
        steps = -(-images // place.train.batch_size)
        steps = min(self.steps_per_epoch(place.train.batch_size), steps)
        for batch in self.batches(place, 0, steps):
            yield self.encode(place, batch).dense
