"""The hybrid of the scenes, trained on real captions: does it serve photographs better than lite?

``python -m mgca.experiments.photos_hybrid`` trains the small CLIP and MGCA's decoder on the
captions of the photos scale and evaluates on the same real masks. It writes
``results/photos/hybrid.csv`` with the variants ``hybrid`` (plain dense features), ``hybrid
maskclip`` and ``hybrid mgca``, to be read beside ``main.csv``. What has been run already, by the
hash of its configuration, is not run again.
"""

import argparse
import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mgca.backbone.hybrid import Hybrid, HybridConfig
from mgca.config import TrainConfig, config_hash, to_dict
from mgca.data.features import image_features
from mgca.data.masks import load_masked
from mgca.data.texts import TextPool
from mgca.evaluation.evaluate import evaluate, result_rows
from mgca.evaluation.metrics import recall
from mgca.evaluation.results import add_results, read_results, write_run
from mgca.experiments.photos import DATASETS, UNITS, Corpus, load_corpus, photos_training
from mgca.model import Model
from mgca.training.small_clip import ClipConfig, train_clip
from mgca.training.train import TrainingData, train
from mgca.utils.files import cache_folder
from mgca.utils.provenance import provenance

log = logging.getLogger(__name__)

NAME = "photos-hybrid"


@dataclass(frozen=True, kw_only=True)
class HybridRun:
    """One run: the small CLIP and the decoder on top of it."""

    clip: ClipConfig
    train: TrainConfig

    @classmethod
    def of_seed(cls, seed: int) -> "HybridRun":
        """The configuration with a seed. A third of the texts are names that the image encoder's
        own classifier recognises, as in the training of the decoder: captions lack many words."""
        return cls(
            clip=ClipConfig(
                sizes=HybridConfig(dim=256),
                images=7_291,
                epochs=6,
                names=0.3,
                text_norm=1.0,
                seed=seed,
            ),
            train=dataclasses.replace(photos_training(), backbone=NAME, seed=seed),
        )


def text_map(backbone: Hybrid, sentences: torch.Tensor) -> torch.Tensor:
    """Sentence embeddings (n, 384) as the backbone encodes them: (n, C)."""
    with torch.inference_mode():
        return backbone.model.text(sentences)


def retrieval(backbone: Hybrid, features: np.ndarray, sentences: torch.Tensor) -> dict[str, float]:
    """Image-to-text recall at 1 and 5, in percent, by the class token.

    Args:
        features: (n, 112, h, w) of the trunk. sentences: (n, 384), the one caption of each image.
    """
    with torch.inference_mode():
        images = backbone.model.visual(torch.from_numpy(np.array(features, dtype=np.float32)))
    texts = F.normalize(text_map(backbone, sentences), dim=-1)
    return recall(F.normalize(images, dim=-1) @ texts.t())


def run_seed(seed: int, corpus: Corpus, root: Path, *, out: Path, work: Path, cache: Path) -> None:
    """Train and evaluate one seed; adds its rows to ``<out>/hybrid.csv``."""
    config = HybridRun.of_seed(seed)
    run = config_hash(config)
    if run in set(read_results(out / "hybrid.csv")["run"]):
        return
    began = time.perf_counter()
    folder = work / run
    backbone = Hybrid(NAME, config.clip.sizes)
    features = np.array(image_features(backbone.trunk, corpus.captions, folder=cache))
    measured = train_clip(
        config.clip, backbone, features, corpus.pool, corpus.texts, folder / "clip"
    )
    held_out = image_features(backbone.trunk, corpus.held_out, folder=cache)
    measured |= retrieval(backbone, held_out, corpus.validation[1])
    log.info("small CLIP: %s", measured)
    data = _decoder_data(backbone, features, corpus.pool, corpus.texts)
    decoder = train(config.train, backbone, data, folder / "decoder")
    plain = Hybrid(NAME, config.clip.sizes, last_block="attention")
    plain.model.load_state_dict(backbone.model.state_dict())
    plain.refresh()
    rows = []
    masked = [load_masked(name, root) for name in DATASETS]
    for data_set in masked:
        for variant, model in (
            ("hybrid", Model(plain)),
            ("hybrid maskclip", Model(backbone)),
            ("hybrid mgca", Model(backbone, decoder)),
        ):
            confusions = evaluate(model, data_set, UNITS, features=cache)
            rows += result_rows(
                confusions, variant=variant, dataset=data_set.name, seed=seed, run=run
            )
            log.info("%s on %s: %s", variant, data_set.name, rows[-2 * len(UNITS) :])
    digests = {"flickr8k": corpus.captions.digest} | {m.name: m.digest for m in masked}
    seconds = time.perf_counter() - began
    record = provenance(to_dict(config), seed=seed, data=digests, seconds=seconds)
    write_run(out, run, record | {"clip": measured})
    add_results(out / "hybrid.csv", rows)


@torch.inference_mode()
def _decoder_data(
    backbone: Hybrid, trunk: np.ndarray, pool: TextPool, sentences: torch.Tensor
) -> TrainingData:
    """The frozen features of the decoder's training, from those of the trunk."""
    parts = [
        backbone.from_trunk(torch.from_numpy(block).float()).half().numpy()
        for block in np.array_split(trunk, max(1, len(trunk) // 32))
    ]
    return TrainingData(np.concatenate(parts), pool, text_map(backbone, sentences))


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m mgca.experiments.photos_hybrid``: the measured runs, or those of other seeds."""
    parser = argparse.ArgumentParser(
        prog="python -m mgca.experiments.photos_hybrid", description=main.__doc__
    )
    parser.add_argument("--data", required=True, help="folder of the real data sets")
    parser.add_argument("--out", default="results/photos", help="results folder")
    parser.add_argument("--work", default="_build/photos", help="trained weights and checkpoints")
    parser.add_argument("--cache", default=None, help="features; $MGCA_CACHE or ~/.cache/mgca")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cache = cache_folder(given.cache)
    corpus = load_corpus(given.data, cache)
    for seed in given.seeds:
        run_seed(
            seed,
            corpus,
            Path(given.data),
            out=Path(given.out),
            work=Path(given.work),
            cache=cache,
        )


if __name__ == "__main__":
    main()
