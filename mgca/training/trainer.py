"""Training of the decoder: any objective, from features at hand or from shards, resumable.

``Trainer(config, backbone, source).run(folder)`` is all training there is.
:mod:`mgca.training.sources` has the batches, :mod:`mgca.training.step` the step,
:mod:`mgca.training.resources` the processes and devices.
"""

import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from mgca.backbone.base import Backbone
from mgca.backbone.lite import Head, Lite
from mgca.backbone.pooled import global_encoder
from mgca.config import TrainConfig, config_hash, to_dict
from mgca.data.shards import Batch
from mgca.losses.lean import WORKSPACE
from mgca.losses.objective import MGCA, make_objective
from mgca.losses.tcl import logistic_noise
from mgca.training.alignment import save_alignment
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
from mgca.training.optimiser import finite_gradient, generator, learning_rate, make_optimizer
from mgca.training.resources import Alone, Process, Resources, check_precision
from mgca.training.runs import RunConfig
from mgca.training.sources import Drawn, Place, Source
from mgca.training.step import backward, mean_change, move_into_bias
from mgca.utils.devices import allow_tf32
from mgca.utils.files import alone_in, clear_temporaries, file_digest, write_text
from mgca.utils.progress import progress
from mgca.utils.provenance import provenance
from mgca.weights.decoders import new_decoder, save_decoder

log = logging.getLogger(__name__)


class Stopped(RuntimeError):
    """A signal ended the run after a step, whose checkpoint is written."""


class Trainer:
    """A training run of a decoder: its configuration, its data and its state.

    Args:
        config: Configuration of the run: a training, or one with its stream and clipping.
        backbone: The frozen encoders.
        source: Source of the batches.
        resources: Resources of the run.
        process: This process among those of the run; by default the only one, on the backbone's
            device.
        origin: Checkpoint of another run to go on from, where this one has none of its own.

    Raises:
        ValueError: If the configuration asks for what the source cannot give, or does not fit it or
            the backbone.
    """

    def __init__(
        self,
        config: TrainConfig | RunConfig,
        backbone: Backbone,
        source: Source,
        resources: Resources | None = None,
        *,
        process: Process | None = None,
        origin: str | os.PathLike | None = None,
    ) -> None:
        if origin is not None:
            config = _from_origin(config, file_digest(origin)[:12])
        self.config, self.source, self.origin = config, source, origin
        self.folder: Path | None = None
        self.train = train = config.train if isinstance(config, RunConfig) else config
        self.clip = config.clip if isinstance(config, RunConfig) else None
        _check_backbone(train, backbone)
        if process is None:
            process = Alone(next(backbone.parameters()).device)
            check_precision(train, process.device)
        self.process, self.resources = process, resources or Resources()
        self.micro_batch = self.resources.micro_batch
        self.backbone = backbone.to(process.device)
        self.place = Place(train, self.backbone, process, self.resources)
        self.per_epoch = source.steps_per_epoch(train.batch_size)
        self.steps = train.steps or max(1, round(train.epochs * self.per_epoch))
        # Where the decoder's outputs have 8 or 11 bits, TF32's 11 are enough for the losses.
        allow_tf32(process.device, train.precision != "float32")
        torch.use_deterministic_algorithms(True)
        # It would also fill every new tensor, to show where something reads what was never written.
        torch.utils.deterministic.fill_uninitialized_memory = process.device.type != "cuda"
        torch.manual_seed(train.seed)  # the decoder starts the same everywhere
        self.decoder = self._part()
        # Normalising over channels and convolving in bfloat16: 1.3 times as fast in this layout.
        self.decoder.to(process.device, memory_format=torch.channels_last)
        self.objective = make_objective(train.loss).to(process.device)
        self.objective.budget = self.resources.budget
        if self.objective.needs_images:
            self.objective.encode = global_encoder(self.backbone, train.precision)
        self.objective.prepare(self.backbone)
        source.check(self.place, self.objective.needs_images)
        self._check_parts()
        self.model = self._trained_part()
        self.optimizer = make_optimizer(train, self.model)
        self.wrapped = process.setup(self.decoder)
        float16 = train.precision == "float16"
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=float16)
        self._settle_form()

    def _part(self) -> nn.Module:
        """What is trained.

        Raises:
            ValueError: If the backbone has no head that can be trained, or its mean is to be held.
        """
        backbone, train = self.backbone, self.train
        if train.part == "decoder":
            return new_decoder(backbone, train.upsample)
        if not isinstance(backbone, Lite) or train.hold_mean:
            raise ValueError("part='head' is for the backbone lite, with hold_mean=false")
        return Head(backbone, torch.cat(list(self.source.sample(self.place, 256))))

    def _check_parts(self) -> None:
        """Refuse to cut up a batch that must be whole."""
        whole = (self.micro_batch or self.place.local_batch) >= self.place.local_batch
        if self.train.hold_mean and not whole:
            raise ValueError(
                "hold_mean needs the mean over the batch before its first logits: take the images "
                "of a process in one part (no micro_batch), or give it more processes"
            )
        learns = any(True for _ in self.objective.parameters())
        several = self.process.world_size > 1 or not whole
        if several and (self.objective.whole_batch or learns):
            raise ValueError(
                f"{type(self.objective).__name__} takes whole batches: train it on one process, "
                "with no micro_batch"
            )

    def _trained_part(self) -> nn.Module:
        """The networks that the optimizer and checkpoints hold: decoder and learned objective."""
        if not any(True for _ in self.objective.parameters()):
            return self.decoder
        return nn.ModuleDict({"decoder": self.decoder, "objective": self.objective})

    def batches(self, start: int, stop: int) -> Iterator[Batch | Drawn]:
        """This process's share of the batches of some steps."""
        return self.source.batches(self.place, start, stop)

    def step(self, batch: Batch | Drawn, rate: float) -> dict[str, float]:
        """One optimisation step of all processes.

        Returns:
            The losses of the whole batch and the norm of their gradient.

        Raises:
            NotFinite: If one of them is NaN or infinite; the parameters are as before then.
            ShardError: If no sample of this process can be read.
        """
        inputs = self.source.encode(self.place, batch, self.objective.needs_images)
        self.optimizer.zero_grad(set_to_none=True)
        losses = backward(
            self.process,
            self.train,
            self.objective,
            self.wrapped,
            inputs,
            noise=functools.partial(self._noise, batch.step),
            micro_batch=self.micro_batch,
            scale=self.scaler.scale,
        )
        self.scaler.unscale_(self.optimizer)
        gradient = finite_gradient(
            self.model,
            losses["total"],
            batch.step,
            self._advice(),
            overflows=self.scaler.is_enabled(),
        )
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: loss.item() for name, loss in losses.items()} | {"gradient": gradient}

    def _noise(self, step: int, pixels: Tensor) -> Tensor:
        """The noise of a step, for an objective that draws masks."""
        shape = pixels[:, 0].shape
        return logistic_noise(shape, generator(self.train.seed, 2, step)).to(pixels.device)

    def _advice(self) -> str:
        """Advice to somebody whose loss is not finite."""
        advice = [f"lower learning_rate ({self.train.learning_rate:g})"]
        if isinstance(self.config, RunConfig):
            advice.append("set clip" if self.clip is None else f"lower clip ({self.clip:g})")
        if self.train.precision != "float32":
            advice.append("use precision='float32'")
        choices = ", ".join(advice[:-1]) + (" or " * (len(advice) > 1)) + advice[-1]
        last = latest(self.folder / "checkpoints") if self.folder else None
        goes_on = "there is no checkpoint yet"
        if last is not None:
            goes_on = f"a run with other values goes on from {last} (--from, or origin=)"
        return f"{choices[0].upper()}{choices[1:]}; {goes_on}"

    def run(
        self, folder: str | os.PathLike, *, on_step: Callable[[dict], None] | None = None
    ) -> nn.Module:
        """Train to the end, from the start or from where an interrupted run stopped.

        Writes into the folder, which every process must see: ``checkpoints/``, ``metrics.csv``
        (a row per step), and at the end ``decoder.safetensors`` and ``run.json``, its provenance.
        On one machine a resumed run ends with the same bits as an uninterrupted one.

        Args:
            folder: Folder of this run alone.
            on_step: Function that is called on the first process with the metrics of each step.

        Raises:
            ValueError: If the folder holds another configuration.
            WeightsError: If its newest checkpoint is damaged.
            ShardError: If a shard cannot be read, or too many samples.
            NotFinite: If the loss is NaN or infinite; the checkpoints are kept.
            Stopped: After SIGTERM, SIGUSR1 or Ctrl-C; a checkpoint is written then.
            OSError: If the folder cannot be written to, or another process trains in it.
        """
        if not self.process.is_global_zero:
            return self._run(Path(folder), on_step)
        with alone_in(folder):
            return self._run(Path(folder), on_step)

    def _run(self, folder: Path, on_step: Callable[[dict], None] | None) -> nn.Module:
        first, self.folder = self.process.is_global_zero, folder
        checkpoints, metrics = folder / "checkpoints", folder / "metrics.csv"
        start = self.resume(checkpoints)
        rows = metrics_until(metrics, start)
        columns: list[str] = []
        speed = (self.flops, self.ceiling) if "utilisation" in self.source.measures else (0.0, 1.0)
        meter = Meter(*speed, float(rows[-1]["seconds"]) if rows else 0.0)
        bar = progress(total=self.steps, initial=start, desc="training", unit="step")
        bar.disable = bar.disable or not first
        with stop_signals() as stopped:
            for batch in meter.timed(self.batches(start, self.steps)):
                rate = learning_rate(self.train, batch.step, self.steps)
                losses = self.step(batch, rate)
                # Asked of all, so that all stop after the same step.
                numbers = [len(batch.keys), len(batch.corrupt), int(stopped.is_set())]
                images, corrupt, stop = map(
                    sum, zip(*gather_numbers(numbers, self.process.device), strict=True)
                )
                row = {"step": batch.step, "rate": rate, "images": images, "corrupt": corrupt}
                row |= losses | meter.row(images)
                bar.set_postfix(
                    loss=f"{row['total']:.3f}", images_s=f"{row['images_per_second']:.0f}"
                )
                bar.update()
                if first:
                    if not columns:
                        columns = self.columns(losses)
                        kept = [{k: v for k, v in old.items() if k in columns} for old in rows]
                        write_metrics(metrics, columns, kept)
                    row = {name: row[name] for name in columns if name in row}
                    append_metrics(metrics, columns, row)
                    if on_step:
                        on_step(row)
                done = batch.step + 1
                if done % self.resources.checkpoint_every == 0 or done == self.steps or stop:
                    self.save(checkpoints, done)
                if stop and done < self.steps:
                    raise Stopped(f"stopped after step {batch.step}: the same command goes on")
        bar.close()
        if self.train.hold_mean:
            self.take_out_mean_change()
        if first:
            self._write(folder, time.perf_counter() - meter.began)
        self.process.barrier()
        return self.decoder.requires_grad_(False).eval()

    def _write(self, folder: Path, seconds: float) -> None:
        """The decoder or the head, and how it came about."""
        if isinstance(self.decoder, Head):
            self.decoder.install()
            save_alignment(
                folder / "alignment.safetensors", self.backbone, run=config_hash(self.config)
            )
        else:
            self._write_decoder(folder)
        record = provenance(
            to_dict(self.config), seed=self.train.seed, data=self.source.digests, seconds=seconds
        )
        record["processes"] = self.process.world_size
        if self.origin is not None:
            record["origin"] = str(self.origin)
        write_text(folder / "run.json", json.dumps(record, indent=1, sort_keys=True) + "\n")

    def _write_decoder(self, folder: Path) -> None:
        save_decoder(
            folder / "decoder.safetensors",
            self.decoder,
            self.backbone,
            run=config_hash(self.config),
            dtype=torch.float32,
            sigmoid=self.objective.sigmoid(),
        )

    def columns(self, losses: dict[str, float]) -> list[str]:
        """Columns of ``metrics.csv``: the objective's terms, and what is worth measuring."""
        names = ("total", *self.objective.terms, *losses)
        terms = [name for name in dict.fromkeys(names) if name != "gradient"]
        return ["step", "rate", *terms, "gradient", *self.source.measures, "seconds"]

    def _settle_form(self) -> None:
        """Take the plain form of the losses where the lean one would be used but differs from it.

        Somebody has changed one of the two then, and the levels as stated are what counts.
        """
        times = 1 if self.train.part == "head" else 2
        rows, columns = (times * side for side in self.source.grid(self.backbone))
        objective, texts = self.objective, self.train.batch_size
        if not isinstance(objective, MGCA) or not objective.is_lean(texts, rows * columns):
            return
        if objective.forms_agree(self.backbone.dim, rows, columns):
            return
        objective.lean = False
        part = max(1, WORKSPACE // (4 * texts * rows * columns))
        local = self.place.local_batch
        if not self.train.hold_mean and not objective.whole_batch:
            self.micro_batch = min(self.micro_batch or local, part)
        log.warning(
            "mgca.losses.lean no longer computes what mgca.losses.levels states: training with the "
            "levels, %d images at a time, which takes more time and memory",
            min(self.micro_batch or local, local),
        )

    def resume(self, folder: Path) -> int:
        """Load the newest checkpoint of a folder; the step to go on with, 0 without one."""
        if self.process.is_global_zero:
            clear_temporaries(folder)
        self.process.barrier()
        path, config = latest(folder), self._identity()
        if path is None and self.origin is not None:
            path, config = Path(self.origin), None
        if path is None:
            return 0
        step = resume(path, config, self.model, self.optimizer, self.scaler)
        if step > self.steps:
            raise ValueError(f"{path} is of step {step}, and the run has {self.steps} steps")
        return step

    def save(self, folder: Path, step: int) -> None:
        """Write a checkpoint from the first process, and remove those that the rule lets go."""
        if self.process.is_global_zero:
            save_checkpoint(
                folder / f"step-{step:09}.safetensors",
                self._identity(),
                self.model,
                self.optimizer,
                step,
                self.scaler,
            )
            prune(folder, self.resources.keep, self.resources.milestone)
        self.process.barrier()

    def _identity(self) -> dict:
        """JSON data that must be the same when a run goes on: configuration, encoders and data."""
        return to_dict(self.config) | {
            "encoders": [self.backbone.digest, self.backbone.text_digest],
            "data": self.source.identity,
        }

    @functools.cached_property
    def flops(self) -> float:
        """FLOPs of an image with its text in a step."""
        rows, _ = self.source.grid(self.backbone)
        return step_flops(self.train, self.backbone, rows * self.backbone.stride)

    @functools.cached_property
    def ceiling(self) -> float:
        """FLOP/s of all devices together in large matrix products, in the run's precision."""
        own = ceiling(self.process.device, getattr(torch, self.train.precision))
        return own * self.process.world_size

    @torch.no_grad()
    def take_out_mean_change(self, images: int = 256) -> None:
        """Move the mean change over some training images into the last block's bias."""
        changes, number = [], 0
        for dense in self.source.sample(self.place, images):
            some = sum(n for (n,) in gather_numbers([len(dense)], dense.device))
            change = mean_change(self.decoder(dense), dense, self.decoder.upsample)
            changes.append(change * some)
            number += some
        move_into_bias(self.decoder, torch.stack(changes).sum(dim=0).flatten() / number)


def _from_origin(config: TrainConfig | RunConfig, digest: str) -> TrainConfig | RunConfig:
    """The configuration of a run that goes on from a checkpoint of another, so named."""
    if isinstance(config, TrainConfig):
        return dataclasses.replace(config, origin=digest)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, origin=digest))


def _check_backbone(config: TrainConfig, backbone: Backbone) -> None:
    """Refuse a backbone other than the configuration's.

    Raises:
        ValueError: If it is another.
    """
    if (backbone.name, backbone.last_block) != (config.backbone, config.last_block):
        raise ValueError(
            f"the configuration is for {config.backbone} with last_block={config.last_block!r}, "
            f"the backbone is {backbone.name} with {backbone.last_block!r}"
        )
