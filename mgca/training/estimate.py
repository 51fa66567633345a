"""What a run will take, before it starts: memory, hours, disk.

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
from torch import Tensor

from mgca.losses.lean import WORKSPACE
from mgca.losses.objective import make_objective
from mgca.training.distributed import gather_numbers
from mgca.training.step import pixel_embeddings

if TYPE_CHECKING:
    from mgca.training.trainer import Engine

PROBE_STEPS, PROBE_SECONDS = 20, 60.0
# Maps of C float32 numbers a pixel that decoder and losses hold at once, forward and backward:
# measured in float32, and a test measures it again.
DECODER_MAPS = 11
GIB = 2**30


@dataclass(frozen=True)
class Probe:
    """Time measured before a run, of the slowest process.

    Attributes:
        steps: How often a part of a step was run.
        part_seconds: Median time of a part.
        parts: Parts in a step.
        read_images: Images that the process reads in a second, over all its workers.
        step_seconds: Of a step of the run, reading included.
    """

    steps: int
    part_seconds: float
    parts: int
    read_images: float
    step_seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        trained, frozen: Numbers of parameters.
        samples, epoch_steps, steps: Of the data, of an epoch, of the run.
        batch, processes: Images of a step, and processes that share them.
        flops: Of an image with its text, in a step.
        memory: Bytes of a process by purpose; on a CPU the processes share what is available.
        available: Bytes free on the device.
        disk, free: Bytes that the run's folder will hold, and that are free there.
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


def estimate(engine: "Engine", folder: Path, *, probe: bool = True) -> Estimate:
    """Estimate a run; called on every process.

    Args:
        folder: Of the run.
        probe: Whether to time some steps.
    """
    train, backbone = engine.config.train, engine.backbone
    trained = sum(p.numel() for p in engine.bare.parameters())
    checkpoint = 3 * 4 * trained  # weights and two moments
    held = engine.resources.keep + 1  # a new one is whole before an old one goes
    if engine.resources.milestone:
        held += engine.steps // engine.resources.milestone
    return Estimate(
        trained=trained,
        frozen=sum(p.numel() for p in backbone.parameters()),
        samples=len(engine.shards),
        epoch_steps=engine.per_epoch,
        steps=engine.steps,
        batch=train.batch_size,
        processes=engine.fabric.world_size,
        flops=engine.flops,
        memory=memory(engine),
        available=_available(engine.fabric.device),
        disk=held * checkpoint + 4 * trained + 200 * engine.steps,
        free=shutil.disk_usage(_existing(folder)).free,
        ceiling=engine.ceiling,
        probe=measure(engine) if probe else None,
    )


def memory(engine: "Engine") -> dict[str, int]:
    """Bytes of a process by purpose, for the largest things that are held at once."""
    train, backbone, side = engine.config.train, engine.backbone, engine.config.stream.size
    local = engine.local_batch
    part = min(engine.resources.micro_batch or local, local)
    pixels, dim = (2 * side // backbone.stride) ** 2, backbone.dim
    parameters = sum(p.numel() for p in backbone.parameters())
    trained = sum(p.numel() for p in engine.bare.parameters())
    similarities = 4 * part * train.batch_size * pixels
    losses = engine.resources.budget or min(similarities, WORKSPACE) + similarities // 10
    return {
        "encoders": 4 * parameters,
        "decoder and optimizer": 16 * trained,
        "images and features": local * (3 * side**2 + dim * pixels) + part * 4 * 3 * side**2,
        "activations": 4 * DECODER_MAPS * part * dim * pixels,
        "losses": losses,
    }


def measure(engine: "Engine", steps: int = PROBE_STEPS, seconds: float = PROBE_SECONDS) -> Probe:
    """Time parts of a step on random images and texts, then the reading of real ones.

    Runs until the number of steps or the time is reached, at least twice. The run's own decoder is
    left as it is. On a CPU a part has at most 8 images: time is proportional to them there.
    """
    local, device = engine.local_batch, engine.fabric.device
    wanted = min(engine.resources.micro_batch or local, local)
    part = min(wanted, 8) if device.type == "cpu" else wanted
    decoder = copy.deepcopy(engine.bare)
    batch = engine.random_batch(part)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (
        len(times) <= steps and time.perf_counter() - began < seconds
    ):  # the first is not counted
        before = _now(device)
        _part(engine, decoder, *engine.encode(batch), twice=wanted < local)
        times.append(_now(device) - before)
    parts = -(-local // part)
    own = statistics.median(times[1:])
    slowest = max(us for (us,) in gather_numbers([round(1e6 * own)], device)) / 1e6
    read = _reading(engine, seconds / 3)
    computing, reading = slowest * parts, local / read
    # Reading goes on beside the computing, where processes of its own do it.
    together = max(computing, reading) if engine.workers else computing + reading
    return Probe(len(times) - 1, slowest, parts, read, together)


def _part(engine: "Engine", decoder, dense: Tensor, texts: Tensor, *, twice: bool) -> None:
    """Decoder and losses of some images against as many texts as a batch has."""
    train = engine.config.train
    objective = make_objective(train.loss)
    objective.budget = engine.resources.budget
    repeats = -(-train.batch_size // len(texts))
    every = texts.repeat(repeats, 1)[: train.batch_size]
    for last in (False, True)[not twice :]:
        with torch.set_grad_enabled(last):
            pixels = pixel_embeddings(decoder, dense, train.precision)
            found = objective.logits(pixels, every)
    torch.stack([logits.mean() for logits in found.values()]).sum().backward()


def _reading(engine: "Engine", seconds: float) -> float:
    """Images that this process reads in a second, once its workers have started."""
    images, began = 0, time.perf_counter()
    for batch in engine.stream(0, min(engine.steps, 3 + 2 * engine.workers)):
        images += len(batch.keys)
        if batch.step == 0 and engine.steps > 1:
            images, began = 0, time.perf_counter()  # starting workers is not counted
        elif time.perf_counter() - began > seconds:
            break
    return max(images, 1) / (time.perf_counter() - began)


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
