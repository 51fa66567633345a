"""Run as a process of its own by test_trainer.py: a short run from shards on a tiny backbone.

``python trains.py SHARDS OUT`` is what torchrun runs.
"""

import dataclasses
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

from mgca.config import TrainConfig
from mgca.data.captions import Captions
from mgca.data.shards import StreamConfig, find_shards
from mgca.data.shards.pack import pack
from mgca.data.texts import build_pool
from mgca.losses import MGCA
from mgca.training.resources import Resources, launch
from mgca.training.runs import RunConfig
from mgca.training.sources import Cached, Streamed
from mgca.training.trainer import Trainer

SUBJECTS = ["dog", "cat", "bus", "tree", "house", "boat", "horse"]

CONFIG = RunConfig(
    train=TrainConfig(backbone="tiny", steps=8, batch_size=8, learning_rate=1e-2),
    stream=StreamConfig(lanes=4, size=64),
)
RESOURCES = Resources(accelerator="cpu", workers=0, checkpoint_every=2)


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


def noise_features(images: int = 30) -> Cached:
    """Features of as many images of noise, with the same captions, and the images themselves."""
    backbone = TinyBackbone()
    pixels = torch.randn(images, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    pool = build_pool([[f"A {SUBJECTS[n % 7]} near a {SUBJECTS[n // 7]}."] for n in range(images)])
    features = backbone.features(pixels).numpy().astype(np.float16)
    return Cached(features, pool, backbone.encode_text(pool.texts), lambda i: pixels[list(i)])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: int, where: str) -> None:
    """Kill this process in a step's backward pass, or in the writing of the checkpoint after it."""
    seen = []
    stated, save_file = MGCA.logits, safetensors.torch.save_file

    def logits(*args, **options):
        found = stated(*args, **options)
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
        MGCA.logits = logits
    else:
        MGCA.logits = lambda *a, **o: seen.append(0) or stated(*a, **o)
        safetensors.torch.save_file = save


def main(
    shards: str | Path,
    out: str | Path,
    dies: tuple[int, str] | None = None,
    *,
    readers: int = 0,
    pause: float = 0,
) -> None:
    """Train.

    Args:
        shards: Folder of the shards.
        out: Folder of the run.
        dies: The process kills itself in the backward pass of this step, ``"step"``, or halfway
            through the writing of the checkpoint after it, ``"write"``; None: it does not.
        readers: Processes that read.
        pause: Seconds of rest after each step.
    """
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    if dies:
        die_at(*dies)
    source = Streamed(find_shards(shards, workers=1), CONFIG.stream)
    resources = dataclasses.replace(RESOURCES, workers=readers)
    process = launch(resources, CONFIG.train)
    trainer = Trainer(CONFIG, TinyBackbone(), source, resources, process=process)
    trainer.run(out, on_step=lambda row: time.sleep(pause))


if __name__ == "__main__":
    main(*sys.argv[1:])
