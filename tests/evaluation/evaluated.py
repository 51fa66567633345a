"""A folder of images and masks, and what an evaluation leaves; shared by the tests of the room."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TinyBackbone

from mgca.config import SegmentConfig
from mgca.data.masks import Masked, load_folder
from mgca.decoder import GatedConvDecoder
from mgca.model import Model

CLASSES = ("red", "green", "blue", "grey")
UNITS = (None, 4, 16)
SMALL = SegmentConfig(short_side=64, window=64, stride=32)
SIZES = [(60, 80), (90, 50), (64, 64), (33, 47), (48, 70)]


def tiny(seed: int = 0) -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = GatedConvDecoder(16)
    torch.nn.init.constant_(decoder.blocks[0].gate, 0.5)
    return Model(TinyBackbone(seed), decoder, SMALL)


def draw(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image of 8x8 blocks, and a mask with ids 0 to 2 and 255: the last class does not occur."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    image = blocks.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]]
    mask = generator.integers(0, 3, size, dtype=np.uint8)
    mask[:3] = 255
    return image, mask


@pytest.fixture
def folders(tmp_path):
    """Two folders with five images and their masks."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, size in enumerate(SIZES):
        image, mask = draw(number, size)
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def load(folders: Path, background: bool = False) -> Masked:
    return load_folder(folders / "images", folders / "masks", CLASSES, background=background)


@pytest.fixture
def embedded(monkeypatch):
    """The sizes of the images that a model has looked at."""
    seen = []
    embed = Model.embed

    def noted(self, image):
        seen.append((image.height, image.width))
        return embed(self, image)

    monkeypatch.setattr(Model, "embed", noted)
    return seen


def interrupt_after(images: int, monkeypatch) -> None:
    segment, left = Model.segment, [images]

    def interrupted(self, *arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return segment(self, *arguments, **options)

    monkeypatch.setattr(Model, "segment", interrupted)


def counts_of(confusions) -> dict[str, list]:
    return {unit: confusion.counts.tolist() for unit, confusion in confusions.items()}


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def times_below(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file lies where, and when it was written."""
    stats = {path: os.stat(folder / path) for path in files_below(folder)}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
