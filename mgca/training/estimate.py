"""An estimate of what a run takes, before it starts: memory, hours, disk.

FLOPs and bytes are arithmetic; the time is measured on the device at hand.
"""

import copy
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from torch import nn

from mgca.losses.lean import room
from mgca.losses.objective import MGCA
from mgca.training.distributed import gather_numbers
from mgca.training.sources import Inputs, Streamed
from mgca.training.step import pixel_embeddings

if TYPE_CHECKING:
    from mgca.training.trainer import Trainer

PROBE_STEPS, PROBE_SECONDS = 20, 60.0
# Maps of C float32 numbers a pixel that decoder and losses hold at once, forward and backward:
# measured in float32, and a test measures it again.
DECODER_MAPS = 11
# Tensors of similarities that the levels as stated hold at once: results/speed.
PLAIN_TENSORS = 18
GIB = 2**30


@dataclass(frozen=True)
class Probe:
    """Time measured before a run, of the slowest process.

    Attributes:
        steps: Number of times that a part of a step was run.
        part_seconds: Median time of a part.
        parts: Number of parts in a step.
        read_images: Images that the process reads in a second, over all its workers.
        step_seconds: Time of a step of the run, reading included.
    """

    steps: int
    part_seconds: float
    parts: int
    read_images: float
    step_seconds: float


@dataclass(frozen=True)
class Estimate:
    """The memory, time and disk that a run will take.

    Attributes:
        trained: Number of parameters that are trained.
        frozen: Number of parameters that are not.
        samples: Number of samples in the data.
        epoch_steps: Number of steps in an epoch.
        steps: Number of steps in the run.
        batch: Number of images in a step, over all processes.
        processes: Number of processes that share them.
        flops: FLOPs of an image with its text, in a step.
        memory: Bytes of a process by purpose; on a CPU the processes share what is available.
        available: Bytes free on the device.
        disk: Bytes that the run's folder will hold.
        free: Bytes that are free there.
        ceiling: FLOP/s of all devices in large matrix products.
        probe: Measured time, None where it was not wanted.
    """

    trained: int
    frozen: int
    samples: int
    epoch_steps: int
    steps: int
    batch: int
    processes: int
    flops: float
    memory: dict[str, int]
    available: int
    disk: int
    free: int
    ceiling: float
    probe: Probe | None

    @property
    def hours(self) -> float | None:
        return None if self.probe is None else self.probe.step_seconds * self.steps / 3600

    def check(self, *, shared: bool) -> None:
        """Refuse a run that will not fit.

        Args:
            shared: Whether all processes share the available memory, as on one machine's CPU.

        Raises:
            ValueError: If memory or disk do not suffice, with what to change.
        """
        needed = sum(self.memory.values()) * (self.processes if shared else 1)
        if needed > self.available:
            raise ValueError(
                f"the run takes about {needed / GIB:.1f} GiB of memory, and "
                f"{self.available / GIB:.1f} GiB are available: set a smaller micro_batch, which "
                "changes nothing but time, or a budget"
            )
        if self.disk > self.free:
            raise ValueError(
                f"the run's folder takes {self.disk / GIB:.2f} GiB, and {self.free / GIB:.2f} GiB "
                "are free: keep fewer checkpoints, or choose another disk"
            )

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.memory.items())
        lines = [
            f"parameters  {self.trained:,} trained, {self.frozen:,} frozen",
            f"steps       {self.steps:,} of {self.batch:,} images on {self.processes} "
            f"process{'es' * (self.processes > 1)}; {self.epoch_steps:,} make an epoch of "
            f"{self.samples:,} samples",
            f"work        {self.flops / 1e9:.1f} GFLOP an image, "
            f"{self.flops * self.batch * self.steps / 1e15:,.1f} PFLOP in all; the devices reach "
            f"{self.ceiling / 1e12:.2f} TFLOP/s in matrix products",
            f"memory      {sum(self.memory.values()) / GIB:.2f} GiB a process ({parts}); "
            f"{self.available / GIB:.1f} GiB available",
            f"disk        {self.disk / GIB:.2f} GiB; {self.free / GIB:.1f} GiB free",
        ]
        if self.probe is None:
            return "\n".join([*lines, "time        not probed"])
        probe = self.probe
        speed = self.batch / probe.step_seconds
        return "\n".join(
            [
                *lines,
                f"time        {self.hours:,.1f} hours, {probe.step_seconds:.2f} s a step, "
                f"{speed:.1f} images/s, {speed * self.flops / self.ceiling:.0%} of the ceiling",
                f"            (from {probe.steps} runs of a part, {probe.part_seconds:.2f} s each, "
                f"{probe.parts} to a step; reading {probe.read_images:.0f} images/s a process)",
            ]
        )


def estimate(trainer: "Trainer", folder: Path, *, probe: bool = True) -> Estimate:
    """Estimate a run; called on every process.

    Args:
        trainer: The run.
        folder: Folder of the run.
        probe: Whether to time some steps.
    """
    train, backbone = trainer.train, trainer.backbone
    trained = sum(p.numel() for p in trainer.decoder.parameters())
    checkpoint = 3 * 4 * trained  # weights and two moments
    held = trainer.resources.keep + 1  # a new one is whole before an old one goes
    if trainer.resources.milestone:
        held += trainer.steps // trainer.resources.milestone
    return Estimate(
        trained=trained,
        frozen=sum(p.numel() for p in backbone.parameters()),
        samples=len(trainer.source),
        epoch_steps=trainer.per_epoch,
        steps=trainer.steps,
        batch=train.batch_size,
        processes=trainer.process.world_size,
        flops=trainer.flops,
        memory=memory(trainer),
        available=_available(trainer.process.device),
        disk=held * checkpoint + 4 * trained + 200 * trainer.steps,
        free=shutil.disk_usage(_existing(folder)).free,
        ceiling=trainer.ceiling,
        probe=measure(trainer) if probe else None,
    )


def memory(trainer: "Trainer") -> dict[str, int]:
    """Bytes of a process by purpose, for the largest things that are held at once."""
    train, backbone, side = trainer.train, trainer.backbone, _streamed(trainer).stream.size
    local = trainer.place.local_batch
    part = min(trainer.micro_batch or local, local)
    pixels, dim = (2 * side // backbone.stride) ** 2, backbone.dim
    parameters = sum(p.numel() for p in backbone.parameters())
    trained = sum(p.numel() for p in trainer.decoder.parameters())
    similarities = 4 * part * train.batch_size * pixels
    if isinstance(trainer.objective, MGCA) and trainer.objective.is_lean(train.batch_size, pixels):
        most = min(similarities, room(trainer.process.device))
        losses = trainer.resources.budget or most + similarities // 10
    else:
        losses = PLAIN_TENSORS * similarities
    return {
        "encoders": 4 * parameters,
        "decoder and optimizer": 16 * trained,
        "images and features": local * (3 * side**2 + dim * pixels) + part * 4 * 3 * side**2,
        "activations": 4 * DECODER_MAPS * part * dim * pixels,
        "losses": losses,
    }


def measure(trainer: "Trainer", steps: int = PROBE_STEPS, seconds: float = PROBE_SECONDS) -> Probe:
    """Time parts of a step on random images and texts, then the reading of real ones.

    Runs until the number of steps or the time is reached, at least twice. The run's own decoder is
    left as it is. On a CPU a part has at most 8 images: time is proportional to them there.
    """
    local, device = trainer.place.local_batch, trainer.process.device
    wanted = min(trainer.micro_batch or local, local)
    part = min(wanted, 8) if device.type == "cpu" else wanted
    decoder = copy.deepcopy(trainer.decoder)
    source = _streamed(trainer)
    batch, workers = source.noise(part), source.workers(trainer.place)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (
        len(times) <= steps and time.perf_counter() - began < seconds
    ):  # the first is not counted
        before = _now(device)
        inputs = source.encode(trainer.place, batch, trainer.objective.needs_images)
        _part(trainer, decoder, inputs, twice=wanted < local)
        times.append(_now(device) - before)
    parts = -(-local // part)
    own = statistics.median(times[1:])
    slowest = max(us for (us,) in gather_numbers([round(1e6 * own)], device)) / 1e6
    read = _reading(trainer, seconds / 3, workers)
    computing, reading = slowest * parts, local / read
    # Reading goes on beside the computing, where processes of its own do it.
    together = max(computing, reading) if workers else computing + reading
    return Probe(len(times) - 1, slowest, parts, read, together)


def _part(trainer: "Trainer", decoder: nn.Module, inputs: Inputs, *, twice: bool) -> None:
    """Decoder and losses of some images against as many texts as a batch has."""
    train = trainer.train
    objective = copy.deepcopy(trainer.objective)
    if objective.whole_batch:
        pixels = pixel_embeddings(decoder, inputs.dense, train.precision)
        noise = torch.zeros_like(pixels[:, 0])
        objective(pixels, inputs.texts, images=inputs.images, noise=noise)["total"].backward()
        return
    repeats = -(-train.batch_size // len(inputs.texts))
    every = inputs.texts.repeat(repeats, 1)[: train.batch_size]
    for last in (False, True)[not twice :]:
        with torch.set_grad_enabled(last):
            pixels = pixel_embeddings(decoder, inputs.dense, train.precision)
            rows = objective.logits(pixels, every)
    torch.stack([logits.mean() for logits in rows.values()]).sum().backward()


def _reading(trainer: "Trainer", seconds: float, workers: int) -> float:
    """Images that this process reads in a second, once its workers have started."""
    images, began = 0, time.perf_counter()
    for batch in trainer.batches(0, min(trainer.steps, 3 + 2 * workers)):
        images += len(batch.keys)
        if batch.step == 0 and trainer.steps > 1:
            images, began = 0, time.perf_counter()  # starting workers is not counted
        elif time.perf_counter() - began > seconds:
            break
    return max(images, 1) / (time.perf_counter() - began)


def _streamed(trainer: "Trainer") -> Streamed:
    """The run's source, which must be shards: only runs from shards are estimated."""
    if not isinstance(trainer.source, Streamed):
        raise TypeError("only a run from shards is estimated")
    return trainer.source


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _available(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = Path(folder).resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
