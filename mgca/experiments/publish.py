"""``python -m mgca.experiments.publish clip``: train the small CLIP of the scenes, anew or further.

``python -m mgca.experiments.publish decoders``: make decoders of the ablations' first seed those
that come with the project; ``mgca.load("scenes")`` takes the one trained with all three losses.
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
from mgca.config import config_hash, to_dict
from mgca.data.features import image_features, text_embeddings
from mgca.data.scenes.sets import TEST_SEED, TRAINING_SEED, training_pairs
from mgca.data.texts import build_pool
from mgca.evaluation.results import add_results, write_run
from mgca.experiments.card import image_level
from mgca.experiments.grid import grid, published_name
from mgca.experiments.scenes import SIDE, ScenesScale, scenes_clip
from mgca.training.small_clip import ClipConfig, train_clip
from mgca.utils.files import cache_folder
from mgca.utils.provenance import provenance
from mgca.weights import WeightsError, publish, read_tensors, write_tensors
from mgca.weights.decoders import decoder_from, save_decoder

log = logging.getLogger(__name__)

# What the pictures of the book need: Fig. 5 adds the levels one after the other.
PUBLISHED = ("object", "object+region", "all")


def clip(config: ClipConfig, *, out: Path, work: Path, cache: Path) -> None:
    """Train the small CLIP, make it the one that comes with the project, and measure it."""
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
    # Before the weights change the tree, which would mark the commit as modified.
    record = provenance(
        to_dict(config),
        seed=config.seed,
        data={"training": pairs.digest},
        seconds=time.perf_counter() - began,
    )
    state, meta = hybrid_state(backbone)
    write_tensors(folder / "clip.safetensors", state, meta | {"run": run})
    publish("scenes-clip", folder / "clip.safetensors")
    measured = image_level(backbone, 500, TEST_SEED)
    log.info("%s %s", trained, measured)
    write_run(out, run, record | {"trained": trained})
    shutil.copyfile(folder / "metrics.csv", out / "runs" / f"{run}.csv")
    common = {"variant": "clip", "dataset": "scenes", "unit": "image"}
    common |= {"seed": config.seed, "run": run}
    rows = [common | {"metric": m, "value": round(v, 3)} for m, v in measured.items()]
    add_results(out / "clip.csv", rows)


def decoders(scale: ScenesScale, work: Path) -> None:
    """Publish the decoders of finished runs, in half precision.

    Raises:
        WeightsError: If one has not been trained.
    """
    for variant in grid("granularity", scale):
        if variant.name not in PUBLISHED:
            continue
        path = work / variant.run(scale, 0) / "decoder.safetensors"
        if not path.is_file():
            raise WeightsError(
                f"no decoder {path}: python -m mgca.experiments.runner granularity --fresh"
            )
        state, meta = read_tensors(path)
        backbone = scale.backbone(0, variant.last_block)
        decoder = decoder_from(state, meta, backbone)
        half = path.with_name("half.safetensors")
        save_decoder(half, decoder, backbone, run=meta["run"])
        publish(published_name(variant, scale), half)


def main(arguments: Sequence[str] | None = None) -> None:
    """The commands of this scale."""
    parser = argparse.ArgumentParser(prog="python -m mgca.experiments.publish", description=__doc__)
    parser.add_argument("what", choices=("clip", "decoders"))
    parser.add_argument("--out", default="results/scenes", help="results folder")
    parser.add_argument("--work", default="_build/scenes", help="trained weights, checkpoints")
    parser.add_argument("--cache", default=None, help="features; $MGCA_CACHE or ~/.cache/mgca")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work, cache = Path(given.work), cache_folder(given.cache)
    if given.what == "decoders":
        decoders(ScenesScale(cache), work)
    else:
        clip(scenes_clip(), out=Path(given.out), work=work, cache=cache)


if __name__ == "__main__":
    main()
