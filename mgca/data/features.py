"""Features of a frozen encoder, computed once and kept on disk.

A cache file is named by the encoder, the data and the image size, so that a change of any of them
makes another file. Writing is resumed after an interruption; readers never see half a cache.
"""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from mgca.backbone.base import Backbone
from mgca.config import config_hash
from mgca.data.captions import Captions
from mgca.utils.files import alone_in, cache_folder, damaged, write_text
from mgca.utils.images import ImageSource, to_tensor, training_image
from mgca.utils.progress import progress
from mgca.weights import WeightsError, read_tensors, write_tensors

log = logging.getLogger(__name__)


class CacheError(ValueError):
    """A file of the cache is damaged; the message says which one to delete."""


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
    cache. What another process computes is waited for.

    Raises:
        FileNotFoundError, ImageError: If an image cannot be read.
        CacheError: If the file is damaged.
        OSError: If the disk has too little room; nothing is computed then.
    """
    path = features_file(backbone, data, size=size, folder=folder)
    if not path.is_file():
        with alone_in(path.parent / ".alone" / path.stem, wait=True):
            # Another process may have computed it while this one waited.
            if not path.is_file():
                _compute(backbone, data, size, batch, path)
    return _read(path, len(data))


def _compute(backbone: Backbone, data: Captions, size: int, batch: int, path: Path) -> None:
    """Compute what is missing of a file of features."""
    sample = backbone.features(_batch(backbone, data.images[:1], size))
    shape = (len(data), *sample.shape[1:])
    partial, state = path.with_suffix(".partial"), path.with_suffix(".json")
    values, done = _resume(partial, state, shape) or (_start(partial, shape), 0)
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


def _read(path: Path, images: int) -> np.ndarray:
    with damaged(CacheError, f"{path} is damaged", "delete it to compute it again"):
        values = _mapped(path)
    if values.ndim != 4 or len(values) != images:
        raise CacheError(
            f"{path} is damaged ({values.shape} of {images} images): delete it to compute it again"
        )
    return values


def _mapped(path: Path) -> np.memmap:
    """A file of float16, as its header says it is and no longer or shorter."""
    values = open_memmap(path, "r")
    size = path.stat().st_size
    if values.dtype != np.float16 or size != values.offset + values.nbytes:
        raise ValueError(f"{size} bytes, and its header says {values.dtype} {values.shape}")
    return values


def _batch(backbone: Backbone, images: Sequence[ImageSource], size: int) -> Tensor:
    return torch.stack(
        [to_tensor(training_image(image, size), backbone.mean, backbone.std) for image in images]
    )


def _resume(partial: Path, state: Path, shape: tuple[int, ...]) -> tuple[np.memmap, int] | None:
    """The partial file and how many images are in it; None if there is none, or it is damaged."""
    if not (partial.is_file() and state.is_file()):
        return None
    try:
        done = json.loads(state.read_text())["done"]
        # Not opened to be written yet: that would lengthen it to the size its header tells.
        shape_there = _mapped(partial).shape
    except Exception as error:  # as for mgca.utils.files.damaged
        log.warning("%s is damaged and computed from the start: %s", partial, error)
        return None
    if shape_there != shape or type(done) is not int or not 0 <= done <= shape[0]:
        log.warning("%s is not what was begun, and computed from the start", partial)
        return None
    log.info("resuming %s at image %d", partial, done)
    return open_memmap(partial, "r+"), done


def _start(partial: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new partial file, if there is room for it."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    needed = 2 * int(np.prod(shape))
    free = shutil.disk_usage(partial.parent).free
    if needed > 0.95 * free:
        raise OSError(
            f"the features take {needed / 2**30:.1f} GiB and {partial.parent} has "
            f"{free / 2**30:.1f} GiB free: set MGCA_CACHE to a folder on another disk"
        )
    return open_memmap(partial, "w+", dtype=np.float16, shape=shape)


@torch.inference_mode()
def text_embeddings(
    backbone: Backbone, texts: list[str], *, folder: str | os.PathLike | None = None
) -> Tensor:
    """Embeddings (n, C) float32 of texts by the backbone, kept on disk.

    Raises:
        CacheError: If the file is damaged.
    """
    key = config_hash({"text": backbone.text_digest, "texts": texts})
    path = cache_folder(folder) / f"texts-{key}.safetensors"
    if path.is_file():
        try:
            embeddings = read_tensors(path)[0]["embeddings"]
        except (WeightsError, KeyError) as error:
            raise CacheError(f"{path}: {error}: delete it to compute it again") from error
        if embeddings.ndim != 2 or len(embeddings) != len(texts):
            raise CacheError(f"{path} is damaged: delete it to compute it again")
        return embeddings
    parts = []
    bar = progress(total=len(texts), desc=f"{backbone.name} texts", unit="text")
    for start in range(0, len(texts), 2048):
        parts.append(backbone.encode_text(texts[start : start + 2048]).float().cpu())
        bar.update(len(parts[-1]))
    bar.close()
    embeddings = torch.cat(parts)
    write_tensors(path, {"embeddings": embeddings}, {})
    return embeddings


@dataclass(frozen=True)
class BatchImages:
    """Normalised training images, decoded when asked for.

    They are cropped as for :func:`mgca.data.features.image_features`, so that image and features
    agree.

    Attributes:
        images: Of a data set, in its order.
        size: Side in pixels.
        mean: Mean of each channel, for RGB in [0, 1].
        std: Standard deviation of each channel, for RGB in [0, 1].
    """

    images: Sequence[ImageSource]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, chosen: Sequence[int]) -> Tensor:
        """(len(chosen), 3, size, size) float32.

        Raises:
            FileNotFoundError, ImageError: If an image cannot be read.
        """
        return torch.stack(
            [
                to_tensor(training_image(self.images[index], self.size), self.mean, self.std)
                for index in chosen
            ]
        )
