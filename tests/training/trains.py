"""Run as a process of its own by test_engine.py: a short run from shards on a tiny backbone.

``python trains.py SHARDS OUT [STEP step|write]``: with the last two the process kills itself, in
the backward pass of that step or halfway through the writing of the checkpoint after it.
"""

import logging
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from tiny import TinyBackbone

import mgca.training.step
from mgca.config import TrainConfig
from mgca.data.captions import Captions
from mgca.data.shards import StreamConfig, find_shards
from mgca.data.shards.pack import pack
from mgca.training.resources import Resources, make_fabric
from mgca.training.runs import RunConfig
from mgca.training.trainer import Engine

SUBJECTS = ["dog", "cat", "bus", "tree", "house", "boat", "horse"]

CONFIG = RunConfig(
    train=TrainConfig(backbone="tiny", steps=8, batch_size=8, learning_rate=1e-2),
    stream=StreamConfig(lanes=4, size=64),
)
RESOURCES = Resources(
    accelerator="cpu", workers=int(os.environ.get("READERS", 0)), checkpoint_every=2
)


def noise_shards(folder: Path) -> Path:
    """30 images of noise with captions, in 4 shards."""
    rng = np.random.default_rng(0)
    images, captions = [], []
    for number in range(30):
        path = folder / f"{number:02}.png"
        small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((72, 64), Image.Resampling.NEAREST).save(path)
        images.append(path)
        captions.append([f"A {SUBJECTS[number % 7]} near a {SUBJECTS[number // 7]}."])
    pack(Captions("noise", images, captions, "digest"), folder / "tars", samples_per_shard=8)
    return folder / "tars"


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: int, where: str) -> None:
    """Kill this process in a step's backward pass, or in the writing of the checkpoint after it."""
    seen = []
    logits_of, save_file = mgca.training.step.logits_of, safetensors.torch.save_file

    def logits(*args, **options):
        found = logits_of(*args, **options)
        seen.append(found)
        if len(seen) == step + 1:
            for value in found.values():
                value.register_hook(lambda gradient: kill())
        return found

    def save(state, path, **options):
        save_file(state, path, **options)
        if len(seen) == step + 1:
            data = Path(path).read_bytes()
            Path(path).write_bytes(data[: len(data) // 2])
            kill()

    if where == "step":
        mgca.training.step.logits_of = logits
    else:
        mgca.training.step.logits_of = lambda *a, **o: seen.append(0) or logits_of(*a, **o)
        safetensors.torch.save_file = save


def main(shards: str, out: str, step: str = "", where: str = "") -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    if step:
        die_at(int(step), where)
    fabric = make_fabric(RESOURCES, CONFIG.train)
    engine = Engine(fabric, CONFIG, TinyBackbone(), find_shards(shards, workers=1), RESOURCES)
    pause = float(os.environ.get("STEP_SECONDS", 0))
    engine.run(out, on_step=lambda row: time.sleep(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
