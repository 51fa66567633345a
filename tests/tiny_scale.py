"""A scale of a few random images, for the tests of what is computed, kept and written."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import TinyBackbone

from mgca.config import LossConfig, SegmentConfig, TrainConfig
from mgca.data.masks import Masked
from mgca.data.texts import build_pool
from mgca.experiments.grid import grid
from mgca.experiments.scale import Scale
from mgca.model import Model
from mgca.training.sources import Cached

CAPTIONS = [["A dog runs."], ["Two children."], ["A red bus."], ["A cat on a sofa."]]
CLASSES = ("dog", "bus", "grass")


class TinyScale(Scale):
    """A few random images. Workers write into ``folder`` which backbones they asked for."""

    name = "tiny"
    datasets = ("things", "stuff")
    groups = {"with background": ("things",), "both": ("things", "stuff")}
    frozen = {"clip": "attention", "maskclip": "value", "sclip": "sclip"}

    def __init__(self, folder: Path, fails: tuple[int, str] | None = None) -> None:
        self.training = TrainConfig(
            backbone="tiny", steps=2, batch_size=2, learning_rate=1e-2, loss=LossConfig(alpha=0.3)
        )
        self.settings = {"images": 2}
        self.cache = folder / "cache"
        self.folder = folder
        self.fails = fails

    def prepare(self, blocks: dict[str, bool]) -> None:
        self._note("prepared")
        generator = np.random.default_rng(0)
        for name in self.datasets:
            for number, size in enumerate([(48, 64), (64, 40)]):
                path = self.folder / f"{name}-{number}.png"
                Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
                mask = generator.integers(0, 3, size, dtype=np.uint8)
                Image.fromarray(mask).save(path.with_suffix(".mask.png"))

    def backbone(self, seed: int, last_block: str = "value") -> TinyBackbone:
        self._note(f"{seed} {last_block}")
        if self.fails == (seed, last_block):
            raise RuntimeError("no such backbone today")
        backbone = TinyBackbone(seed)
        backbone.last_block = last_block
        return backbone

    def data(self, backbone: TinyBackbone) -> Cached:
        images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        pool = build_pool(CAPTIONS)
        features = backbone.features(images).numpy().astype(np.float16)
        texts = backbone.encode_text(pool.texts)
        return Cached(features, pool, texts, images=lambda chosen: images[list(chosen)])

    def sets(self, names: Sequence[str] = ()) -> list[Masked]:
        return [self._set(name) for name in names or self.datasets]

    def _set(self, name: str) -> Masked:
        paths = [self.folder / f"{name}-{number}.png" for number in range(2)]
        items = [(path.stem, path, path.with_suffix(".mask.png")) for path in paths]
        return Masked(name, items, CLASSES, 0, "digest", background=name == "things")

    def digests(self, names: Sequence[str] = ()) -> dict[str, str]:
        return dict.fromkeys(names or self.datasets, "digest")

    def segment(self) -> SegmentConfig:
        return SegmentConfig(short_side=64, long_side=96, window=64, stride=32)

    def background(self, model: Model) -> dict[str, float]:
        return {"background": 0.35, "temperature": 0.5}

    def calibration(self) -> Masked:
        return self._set("things")

    def published_backbone(self) -> TinyBackbone:
        return self.backbone(0)

    def _note(self, line: str) -> None:
        with (self.folder / "notes").open("a") as file:
            file.write(line + "\n")

    def notes(self) -> list[str]:
        """What was asked for since the last look."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.is_file() else []
        path.unlink(missing_ok=True)
        return lines


def folders(folder: Path) -> dict[str, Path]:
    """Where a test computes: arguments of :func:`mgca.experiments.runner.run_ablations`."""
    return {"out": folder / "results", "work": folder / "work"}


def names(ablation: str, scale: Scale) -> list[str]:
    """Names of the variants of an ablation."""
    return [variant.name for variant in grid(ablation, scale)]


def attempt(task: str, marks: Path) -> tuple[str, str]:
    """A run by the name of what becomes of it, for processes that must find it in a module."""
    if task == "killed":
        # After the others have ended and their ends were told.
        end = time.monotonic() + 60
        while not (marks / "two").is_file() and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)
    (marks / task).touch()
    return task, "it went wrong" if task == "failed" else ""
