"""``python -m mgca.scenes clip``: train the small CLIP of the scenes, anew or further.

``python -m mgca.scenes decoder``: train the decoder that ``mgca.load("scenes")`` takes.
"""

import argparse
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mgca.backbone.hybrid import Hybrid, hybrid_state
from mgca.backbone.lite import SentenceEncoder
from mgca.captions import build_pool
from mgca.clip import ClipConfig, train_clip
from mgca.config import config_hash, to_dict
from mgca.features import cache_folder, image_features, text_embeddings
from mgca.model import save_decoder
from mgca.results import add_results, provenance, write_run
from mgca.scenes.card import image_level
from mgca.scenes.scale import SIDE, ScenesScale, scenes_clip
from mgca.scenes.sets import TEST_SEED, TRAINING_SEED, training_pairs
from mgca.train import train
from mgca.weights import publish, write_tensors

log = logging.getLogger(__name__)


def clip(config: ClipConfig, work: Path, cache: Path) -> tuple[Hybrid, dict[str, float]]:
    """Train the small CLIP; the backbone and its training's last metrics."""
    pairs = training_pairs(config.images, TRAINING_SEED)
    backbone = Hybrid("scenes", config.sizes)
    features = image_features(backbone.trunk, pairs, size=SIDE, folder=cache)
    pool = build_pool(pairs.captions)
    sentences = text_embeddings(SentenceEncoder(), pool.texts, folder=cache)
    # In memory: an epoch reads the images in random order.
    trained = train_clip(config, backbone, np.array(features), pool, sentences, work)
    return backbone, trained


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands of this scale."""
    parser = argparse.ArgumentParser(prog="python -m mgca.scenes", description=__doc__)
    parser.add_argument("what", choices=("clip", "decoder"))
    parser.add_argument("--out", default="results/scenes", help="results folder")
    parser.add_argument("--work", default="_build/scenes", help="trained weights, checkpoints")
    parser.add_argument("--cache", default=None, help="features; $MGCA_CACHE or ~/.cache/mgca")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cache = cache_folder(given.cache)
    began = time.perf_counter()
    if given.what == "decoder":
        scale = ScenesScale(cache)
        run = config_hash(scale.training)
        backbone = scale.backbone(0)
        # A checkpoint of a decoder for another small CLIP must not be gone on with.
        folder = Path(given.work) / config_hash({"run": run, "backbone": backbone.digest})
        decoder = train(scale.training, backbone, scale.data(backbone), folder)
        publish(
            "scenes-mgca", save_decoder(folder / "half.safetensors", decoder, backbone, run=run)
        )
        return
    config = scenes_clip()
    run = config_hash(config)
    # A checkpoint of another drawing of the world must not be gone on with.
    drawn = training_pairs(config.images, TRAINING_SEED).digest
    folder = Path(given.work) / config_hash({"run": run, "world": drawn})
    backbone, trained = clip(config, folder, cache)
    seconds = time.perf_counter() - began
    state, meta = hybrid_state(backbone)
    write_tensors(folder / "clip.safetensors", state, meta | {"run": run})
    publish("scenes-clip", folder / "clip.safetensors")
    measured = image_level(backbone, 500, TEST_SEED)
    log.info("%s %s", trained, measured)
    record = provenance(
        to_dict(config), seed=config.seed, data={"training": drawn}, seconds=seconds
    )
    write_run(given.out, run, record | {"trained": trained})
    shutil.copyfile(folder / "metrics.csv", Path(given.out) / "runs" / f"{run}.csv")
    rows = [
        {
            "variant": "clip",
            "dataset": "scenes",
            "unit": "image",
            "seed": config.seed,
            "metric": metric,
            "value": round(value, 3),
            "run": run,
        }
        for metric, value in measured.items()
    ]
    add_results(Path(given.out) / "clip.csv", rows)


if __name__ == "__main__":
    main()
