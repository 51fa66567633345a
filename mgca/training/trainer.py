"""Training from shards, on one process or many.

The loop is that of :mod:`mgca.training.train`, with images in the place of features at hand: same
schedule, optimizer and losses. :mod:`mgca.training.resources` has its processes and devices.
"""

import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import torch
from torch import Tensor

from mgca.backbone.base import Backbone
from mgca.config import config_hash, to_dict
from mgca.data.shards import Batch, ShardError, Shards, batches, steps_per_epoch
from mgca.decoder import GatedConvDecoder
from mgca.training.checkpoint import (
    append_metrics,
    latest,
    metrics_until,
    prune,
    resume,
    save_checkpoint,
    write_metrics,
)
from mgca.training.distributed import gather_numbers
from mgca.training.flops import ceiling, step_flops
from mgca.training.monitor import Meter, stop_signals
from mgca.training.resources import Fabric, Resources
from mgca.training.runs import RunConfig
from mgca.training.step import backward, mean_change, move_into_bias, pixel_embeddings
from mgca.training.train import (
    NotFinite,
    check_backbone,
    gradient_norm,
    learning_rate,
    make_optimizer,
)
from mgca.utils.files import alone_in, clear_temporaries, write_text
from mgca.utils.progress import progress
from mgca.utils.provenance import provenance
from mgca.weights.decoders import save_decoder

METRICS = [
    *("step", "rate", "total", "object", "region", "pixel", "gradient"),
    *("images", "corrupt", "images_per_second", "utilisation", "waiting", "seconds"),
]


class Stopped(RuntimeError):
    """A signal ended the run after a step, whose checkpoint is written."""


class Engine:
    """A run: what it learns, what it learns from, and where it stands.

    Args:
        fabric: Of :func:`mgca.training.resources.make_fabric`.
        config: Of the run.
        backbone: The frozen encoders.
        shards: Images and captions.
        resources: What the run takes.

    Raises:
        ValueError: If the configuration asks for what shards cannot give, or does not fit them or
            the backbone.
    """

    def __init__(
        self,
        fabric: Fabric,
        config: RunConfig,
        backbone: Backbone,
        shards: Shards,
        resources: Resources | None = None,
    ) -> None:
        train = config.train
        check_backbone(train, backbone)
        self.fabric, self.config, self.shards = fabric, config, shards
        self.resources = resources or Resources()
        if train.hold_mean and (self.resources.micro_batch or self.local_batch) < self.local_batch:
            raise ValueError(
                "hold_mean needs the mean over the batch before its first logits: take the images "
                "of a process in one part (no micro_batch), or give it more processes"
            )
        self.per_epoch = steps_per_epoch(shards, train.batch_size, config.stream)
        self.steps = train.steps or max(1, round(train.epochs * self.per_epoch))
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(train.seed)  # the decoder starts the same everywhere
        decoder = GatedConvDecoder(backbone.dim, upsample=train.upsample)
        decoder.to(memory_format=torch.channels_last)
        self.backbone = backbone.to(fabric.device)
        self.decoder, self.optimizer = fabric.setup(decoder, make_optimizer(train, decoder))
        self.scaler = torch.amp.GradScaler(fabric.device.type, enabled=train.precision == "float16")

    @property
    def workers(self) -> int:
        """Reading processes of this process: those asked for, or as many as share its lanes."""
        if self.resources.workers is not None:
            return self.resources.workers
        local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        cores = joblib.cpu_count() // local
        lanes = self.config.stream.lanes // self.fabric.world_size
        # With a core for itself and one for them, a process reads best on its own.
        return max(n for n in range(1, max(cores, 1) + 1) if lanes % n == 0) if cores > 2 else 0

    @property
    def local_batch(self) -> int:
        """Images of a batch that are this process's, before corrupt ones are left out."""
        return self.config.train.batch_size // self.fabric.world_size

    @property
    def bare(self) -> GatedConvDecoder:
        """The decoder, out of Fabric's wrapping."""
        return self.decoder.module

    def stream(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's share of the batches of some steps."""
        train = self.config.train
        return batches(
            self.shards,
            self.config.stream,
            batch_size=train.batch_size,
            captions=train.captions,
            seed=train.seed,
            start=start,
            stop=stop,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            workers=self.workers,
            corrupt_limit=self.resources.corrupt_limit,
            precomputed=self.resources.precomputed,
            text_digest=self.backbone.text_digest,
            download_limit=self.resources.download_limit,
        )

    def random_batch(self, images: int) -> Batch:
        """A batch of noise, to see how long it takes."""
        side = self.config.stream.size
        noise = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
        return Batch(0, noise, ["a photo of noise."] * images, [""] * images, [], None)

    @torch.no_grad()
    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Dense features (b, C, h, w) and text embeddings (b, C) of a batch, in float32."""
        device, backbone = self.fabric.device, self.backbone
        mean, std = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (backbone.mean, backbone.std)
        )
        kind = getattr(torch, self.config.train.precision)
        # A GPU encodes several times as fast in half precision; a CPU's features stay those that
        # are cached for the small scales.
        half = device.type == "cuda" and kind != torch.float32
        with torch.autocast(device.type, kind, enabled=half):
            dense = torch.cat(
                [
                    backbone.dense((part.to(device).float() / 255 - mean) / std)
                    for part in batch.images.split(self.resources.micro_batch or self.local_batch)
                ]
            )
            texts = batch.embeddings
            if texts is None:
                texts = backbone.encode_text(batch.texts)
        return dense.float(), texts.to(device).float()

    def step(self, batch: Batch, rate: float) -> dict[str, float]:
        """One optimisation step of all processes.

        Returns:
            The losses of the whole batch and the norm of their gradient.

        Raises:
            NotFinite: If one of them is NaN or infinite; the parameters are as before then.
            ShardError: If no sample of this process can be read.
        """
        if not batch.keys:
            raise ShardError(
                f"step {batch.step}: all samples of this process are corrupt: {batch.corrupt[0]}"
            )
        dense, texts = self.encode(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses = backward(
            self.fabric,
            self.config.train,
            self.decoder,
            dense,
            texts,
            micro_batch=self.resources.micro_batch,
            budget=self.resources.budget,
            scale=self.scaler.scale,
        )
        optimizer = self.optimizer.optimizer
        self.scaler.unscale_(optimizer)
        gradient = gradient_norm(self.bare)
        total = losses["total"].item()
        # In float16 a gradient may overflow: the scaler leaves such a step out and scales less.
        if not (math.isfinite(total) and (math.isfinite(gradient) or self.scaler.is_enabled())):
            raise NotFinite(
                f"step {batch.step}: the loss is {total} and its gradient's norm {gradient}. Lower "
                "learning_rate, set clip, or use precision='float32'; the last checkpoint is from "
                "before this step"
            )
        if self.config.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.bare.parameters(), self.config.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(optimizer)
        self.scaler.update()
        return {name: loss.item() for name, loss in losses.items()} | {"gradient": gradient}

    def run(
        self, folder: str | os.PathLike, *, on_step: Callable[[dict], None] | None = None
    ) -> GatedConvDecoder:
        """Train to the end, from the start or from where an interrupted run stopped.

        Writes into the folder, which every process must see: ``checkpoints/``, ``metrics.csv``
        (a row per step), and at the end ``decoder.safetensors`` and ``run.json``, its provenance.
        On one machine a resumed run ends with the same bits as an uninterrupted one.

        Args:
            folder: Of this run alone.
            on_step: Called on the first process with the metrics of each step.

        Raises:
            ValueError: If the folder holds another configuration.
            WeightsError: If its newest checkpoint is damaged.
            ShardError: If a shard cannot be read, or too many samples.
            NotFinite: If the loss is NaN or infinite; the checkpoints are kept.
            Stopped: After SIGTERM, SIGUSR1 or Ctrl-C; a checkpoint is written then.
            OSError: If the folder cannot be written to, or another process trains in it.
        """
        if not self.fabric.is_global_zero:
            return self._run(Path(folder), on_step)
        with alone_in(folder):
            return self._run(Path(folder), on_step)

    def _run(self, folder: Path, on_step: Callable[[dict], None] | None) -> GatedConvDecoder:
        train, first = self.config.train, self.fabric.is_global_zero
        checkpoints = folder / "checkpoints"
        start = self.resume(checkpoints)
        rows = metrics_until(folder / "metrics.csv", start)
        if first:
            write_metrics(folder / "metrics.csv", METRICS, rows)
        meter = Meter(self.flops, self.ceiling, float(rows[-1]["seconds"]) if rows else 0.0)
        bar = progress(total=self.steps, initial=start, desc="training", unit="step")
        bar.disable = bar.disable or not first
        with stop_signals() as stopped:
            for batch in meter.timed(self.stream(start, self.steps)):
                rate = learning_rate(train, batch.step, self.steps)
                row = {"step": batch.step, "rate": rate} | self.step(batch, rate)
                # Asked of all, so that all stop after the same step.
                numbers = [len(batch.keys), len(batch.corrupt), int(stopped.is_set())]
                images, corrupt, stop = map(
                    sum, zip(*gather_numbers(numbers, self.fabric.device), strict=True)
                )
                row |= {"images": images, "corrupt": corrupt} | meter.row(images)
                done = batch.step + 1
                if first:
                    append_metrics(folder / "metrics.csv", METRICS, row)
                    if on_step:
                        on_step(row)
                bar.set_postfix(
                    loss=f"{row['total']:.3f}",
                    images_s=f"{row['images_per_second']:.0f}",
                    utilisation=f"{row['utilisation']:.0%}",
                )
                bar.update()
                if done % self.resources.checkpoint_every == 0 or done == self.steps or stop:
                    self.save(checkpoints, done)
                if stop and done < self.steps:
                    raise Stopped(f"stopped after step {batch.step}: the same command goes on")
        bar.close()
        if train.hold_mean:
            self.take_out_mean_change()
        if first:
            name = config_hash(self.config)
            save_decoder(
                folder / "decoder.safetensors",
                self.bare,
                self.backbone,
                run=name,
                dtype=torch.float32,
            )
            record = provenance(
                to_dict(self.config),
                seed=train.seed,
                data={"shards": self.shards.digest},
                seconds=time.perf_counter() - meter.began,
            )
            record["processes"] = self.fabric.world_size
            write_text(folder / "run.json", json.dumps(record, indent=1, sort_keys=True) + "\n")
        self.fabric.barrier()
        return self.bare.requires_grad_(False).eval()

    def resume(self, folder: Path) -> int:
        """Load the newest checkpoint of a folder; the step to go on with, 0 without one."""
        if self.fabric.is_global_zero:
            clear_temporaries(folder)
        self.fabric.barrier()
        path = latest(folder)
        if path is None:
            return 0
        return resume(path, self._checked(), self.bare, self.optimizer.optimizer, self.scaler)

    def save(self, folder: Path, step: int) -> None:
        """Write a checkpoint from the first process, and remove those that the rule lets go."""
        if self.fabric.is_global_zero:
            save_checkpoint(
                folder / f"step-{step:09}.safetensors",
                self._checked(),
                self.bare,
                self.optimizer.optimizer,
                step,
                self.scaler,
            )
            prune(folder, self.resources.keep, self.resources.milestone)
        self.fabric.barrier()

    @functools.cached_property
    def flops(self) -> float:
        """FLOPs of an image with its text in a step."""
        return step_flops(self)

    @functools.cached_property
    def ceiling(self) -> float:
        """FLOP/s of all devices together in large matrix products, in the run's precision."""
        own = ceiling(self.fabric.device, getattr(torch, self.config.train.precision))
        return own * self.fabric.world_size

    def _checked(self) -> dict:
        """What must be the same when a run goes on: the configuration and the data."""
        return to_dict(self.config) | {"shards": self.shards.digest}

    @torch.no_grad()
    def take_out_mean_change(self, images: int = 256) -> None:
        """Move the mean change over some training images into the last block's bias."""
        steps = min(self.per_epoch, -(-images // self.config.train.batch_size))
        total, images = 0, 0
        for batch in self.stream(0, steps):
            dense, _ = self.encode(batch)
            pixels = pixel_embeddings(self.bare, dense, "float32")
            numbers = gather_numbers([len(batch.keys)], dense.device)
            here = sum(n for (n,) in numbers)
            total = total + here * mean_change(pixels, dense, self.bare.upsample)
            images += here
        move_into_bias(self.bare, total.flatten() / images)
