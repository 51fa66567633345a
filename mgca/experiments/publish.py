"""Make the weights that come with the project, of both small scales: ``mgca experiment publish``.

What is published was trained before any of it was measured, with the first seed. The small CLIP of
the scenes is trained here, and its accuracy on images as a whole goes into ``clip.csv``; decoders
and the head of ``lite`` are those of finished runs of the tables.
"""

import logging
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.backbone.hybrid import Hybrid, hybrid_state
from mgca.backbone.lite import Lite, SentenceEncoder
from mgca.config import config_hash, to_dict
from mgca.data.features import image_features, text_embeddings
from mgca.data.scenes.scene import THINGS
from mgca.data.scenes.sets import TEST_SEED, TRAINING_SEED, evaluation_set, training_pairs
from mgca.data.texts import build_pool
from mgca.evaluation.metrics import recall
from mgca.evaluation.results import add_results, row, write_run
from mgca.experiments.grid import grid, published_name
from mgca.experiments.photos import PhotosScale
from mgca.experiments.scale import Scale
from mgca.experiments.scenes import SIDE, ScenesScale
from mgca.prompts import class_embeddings
from mgca.training.alignment import save_alignment
from mgca.training.small_clip import ClipConfig, train_clip
from mgca.utils.images import to_tensor
from mgca.utils.provenance import provenance
from mgca.weights import publish, read_tensors, write_tensors
from mgca.weights.decoders import decoder_from, save_decoder

log = logging.getLogger(__name__)

# What the pictures of the book need: Fig. 5 adds the levels one after the other.
DECODERS = ("object", "object+region", "all")


def scenes_clip(config: ClipConfig, *, out: Path, work: Path, cache: Path) -> None:
    """Train the small CLIP, measure it, and make it the one that comes with the project."""
    publish("scenes-clip", train_scenes_clip(config, out=out, work=work, cache=cache))


def train_scenes_clip(config: ClipConfig, *, out: Path, work: Path, cache: Path) -> Path:
    """Train the small CLIP and measure it.

    Args:
        config: Its training.
        out: Results folder of ``clip.csv`` and the run's record.
        work: Folder of checkpoints and weights.
        cache: Folder of features.

    Returns:
        The file of its weights.
    """
    began = time.perf_counter()
    run = config_hash(config)
    pairs = training_pairs(config.images, TRAINING_SEED)
    # A checkpoint of another drawing of the world must not be gone on with.
    folder = work / config_hash({"run": run, "world": pairs.digest})
    backbone = Hybrid("scenes", config.sizes)
    features = image_features(backbone.trunk, pairs, size=SIDE, folder=cache)
    pool = build_pool(pairs.captions)
    sentences = text_embeddings(SentenceEncoder(), pool.texts, folder=cache)
    # In memory: an epoch reads the images in random order.
    trained = train_clip(config, backbone, np.array(features), pool, sentences, folder)
    record = provenance(
        to_dict(config),
        seed=config.seed,
        data={"training": pairs.digest},
        seconds=time.perf_counter() - began,
    )
    path = folder / "clip.safetensors"
    state, meta = hybrid_state(backbone)
    write_tensors(path, state, meta | {"run": run})
    measured = image_level(backbone, 500, TEST_SEED)
    log.info("%s %s", trained, measured)
    write_run(out, run, record | {"trained": trained})
    shutil.copyfile(folder / "metrics.csv", out / "runs" / f"{run}.csv")
    rows = [row("clip", "scenes", "image", config.seed, m, v, run) for m, v in measured.items()]
    add_results(out / "clip.csv", rows)
    return path


def scenes_decoders(scale: ScenesScale, work: Path) -> None:
    """Publish decoders of the scenes' table ``granularity``, of the first seed, in half precision.

    Args:
        scale: The scale that they were trained at.
        work: Folder of the trained decoders.

    Raises:
        FileNotFoundError: If one has not been trained.
    """
    for variant in grid("granularity", scale):
        if variant.name not in DECODERS:
            continue
        path = _trained(variant.run(scale, 0), "decoder", scale, work)
        state, meta = read_tensors(path)
        backbone = scale.backbone(0, variant.last_block)
        decoder = decoder_from(state, meta, backbone)
        half = save_decoder(path.with_name("half.safetensors"), decoder, backbone, run=meta["run"])
        publish(published_name(variant, scale), half)


def _trained(run: str, what: str, scale: Scale, work: Path) -> Path:
    """The file of what a run of ``granularity`` trained.

    Raises:
        FileNotFoundError: If it has not been trained.
    """
    path = work / run / f"{what}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"no {what} {path}: mgca experiment run granularity --scale {scale.name} --seeds 0 "
            "--fresh --publish"
        )
    return path


def lite(scale: PhotosScale, work: Path) -> None:
    """Publish the head that all three levels have trained, of the first seed.

    Raises:
        FileNotFoundError: If it has not been trained.
    """
    run = grid("granularity", scale)[-1].run(scale, 0)
    path = _trained(run, "alignment", scale, work)
    backbone = Lite(pretrained=False)
    state, meta = read_tensors(path)
    backbone.set_alignment(**state)
    backbone.temperature = float(meta["temperature"])
    publish("lite-alignment", save_alignment(path.with_name("half.safetensors"), backbone, run=run))


@torch.inference_mode()
def embed_images(backbone: Hybrid, images: list, batch: int = 32) -> Tensor:
    """Image embeddings (n, C), unit vectors: open_clip's own, from the class token.

    Args:
        backbone: The small CLIP.
        images: PIL images of the size that the transformer was trained for.
        batch: Number of images that are embedded at a time.
    """
    parts = []
    for start in range(0, len(images), batch):
        tensors = [to_tensor(im, backbone.mean, backbone.std) for im in images[start:][:batch]]
        parts.append(backbone.model.visual(backbone.trunk.features(torch.stack(tensors))))
    return F.normalize(torch.cat(parts), dim=-1)


@torch.inference_mode()
def image_level(backbone: Hybrid, images: int, seed: int) -> dict[str, float]:
    """Image-level accuracy of the small CLIP, in percent.

    Args:
        backbone: The small CLIP.
        images: Number of scenes to measure on.
        seed: Seed of the scenes.

    Returns:
        ``top word present``: the class most similar to an image occurs in it. ``largest thing
        first``: the thing most similar to it is the largest in it. ``R@1``, ``R@5``: how often the
        first caption of an image is among the one or five captions, of as many, most similar to it.
    """
    scenes = evaluation_set("scenes", images, seed=seed)
    pictures, masks = zip(*((picture, mask) for _, picture, mask in scenes), strict=True)
    texts = class_embeddings(backbone, scenes.classes)
    scores = embed_images(backbone, list(pictures)) @ texts.t()
    areas = torch.stack(
        [torch.from_numpy(np.bincount(m.ravel(), minlength=len(texts))) for m in masks]
    )
    present = areas.gather(1, scores.argmax(dim=1, keepdim=True)) > 0
    things = slice(0, len(THINGS))
    largest = areas[:, things].argmax(dim=1) == scores[:, things].argmax(dim=1)
    pairs = training_pairs(images, seed)
    captions = F.normalize(backbone.encode_text([several[0] for several in pairs.captions]), dim=-1)
    scores = embed_images(backbone, [pairs.images[i] for i in range(images)]) @ captions.t()
    measured = {"top word present": present, "largest thing first": largest}
    shares = {name: 100 * float(hits.float().mean()) for name, hits in measured.items()}
    return shares | recall(scores)
