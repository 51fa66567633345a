"""Features of a frozen encoder, computed once and kept on disk.

A cache file is named by the encoder, the data and the image size, so that a change of any of them
makes another file. Writing is resumed after an interruption; readers never see half a cache.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from mgca.backbone.base import Backbone
from mgca.config import config_hash
from mgca.data import Captions
from mgca.files import write_text
from mgca.images import ImageSource, open_image, to_tensor
from mgca.progress import progress
from mgca.weights import write_tensors

log = logging.getLogger(__name__)


def cache_folder(folder: str | os.PathLike | None = None) -> Path:
    """Where caches lie: the folder given, $MGCA_CACHE, or ~/.cache/mgca."""
    return Path(folder or os.environ.get("MGCA_CACHE") or Path.home() / ".cache" / "mgca")


@contextmanager
def threads(number: int) -> Iterator[None]:
    """So many threads within: the order in which they add numbers up, and with it the last bits,
    depends on how many they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def training_image(image: ImageSource, size: int) -> Image.Image:
    """A training image: its shorter side resized to ``size``, then the centre cropped."""
    image = open_image(image)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def features_file(
    backbone: Backbone, data: Captions, *, size: int = 224, folder: str | os.PathLike | None = None
) -> Path:
    """Where :func:`image_features` keeps what it computes; the file need not be there."""
    key = config_hash({"trunk": backbone.trunk_digest, "data": data.digest, "size": size})
    return cache_folder(folder) / f"features-{key}.npy"


@torch.inference_mode()
def image_features(
    backbone: Backbone,
    data: Captions,
    *,
    size: int = 224,
    batch: int = 32,
    folder: str | os.PathLike | None = None,
) -> np.ndarray:
    """Trunk features (n, F, h, w) float16 of every image, as a read-only memory map.

    ``backbone.project`` takes them to the joint space, so that backbones with one trunk share a
    cache.

    Raises:
        FileNotFoundError, ImageError: If an image cannot be read.
        OSError: If the disk has too little room; nothing is computed then.
    """
    path = features_file(backbone, data, size=size, folder=folder)
    if path.is_file():
        return np.load(path, mmap_mode="r")
    sample = backbone.features(_batch(backbone, data.images[:1], size))
    shape = (len(data), *sample.shape[1:])
    partial, state = path.with_suffix(".partial"), path.with_suffix(".json")
    done = _resume(partial, state, shape)
    values = open_memmap(partial, "r+" if done else "w+", dtype=np.float16, shape=shape)
    bar = progress(total=len(data), initial=done, desc=f"{backbone.name} features", unit="image")
    for start in range(done, len(data), batch):
        images = _batch(backbone, data.images[start : start + batch], size)
        values[start : start + len(images)] = backbone.features(images).half().cpu().numpy()
        bar.update(len(images))
        if (start // batch) % 16 == 15:
            values.flush()
            write_text(state, json.dumps({"done": start + len(images)}))
    bar.close()
    values.flush()
    partial.replace(path)
    state.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r")


def _batch(backbone: Backbone, images: Sequence[ImageSource], size: int) -> Tensor:
    return torch.stack(
        [to_tensor(training_image(image, size), backbone.mean, backbone.std) for image in images]
    )


def _resume(partial: Path, state: Path, shape: tuple[int, ...]) -> int:
    """Images already in the partial file; checks that there is room for the others."""
    if partial.is_file() and state.is_file():
        done = json.loads(state.read_text())["done"]
        log.info("resuming %s at image %d", partial, done)
        return done
    partial.parent.mkdir(parents=True, exist_ok=True)
    needed = 2 * int(np.prod(shape))
    free = shutil.disk_usage(partial.parent).free
    if needed > 0.95 * free:
        raise OSError(
            f"the features take {needed / 2**30:.1f} GiB and {partial.parent} has "
            f"{free / 2**30:.1f} GiB free: set MGCA_CACHE to a folder on another disk"
        )
    return 0


@torch.inference_mode()
def text_embeddings(
    backbone: Backbone, texts: list[str], *, folder: str | os.PathLike | None = None
) -> Tensor:
    """Embeddings (n, C) float32 of texts by the backbone, kept on disk."""
    key = config_hash({"text": backbone.text_digest, "texts": texts})
    path = cache_folder(folder) / f"texts-{key}.safetensors"
    if path.is_file():
        return load_file(path)["embeddings"]
    parts = []
    bar = progress(total=len(texts), desc=f"{backbone.name} texts", unit="text")
    for start in range(0, len(texts), 2048):
        parts.append(backbone.encode_text(texts[start : start + 2048]).float().cpu())
        bar.update(len(parts[-1]))
    bar.close()
    embeddings = torch.cat(parts)
    write_tensors(path, {"embeddings": embeddings}, {})
    return embeddings
