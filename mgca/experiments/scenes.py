"""The scenes scale: what its small CLIP and its decoder are trained with, and evaluated on."""

import functools
import os
from collections.abc import Mapping, Sequence

from mgca.backbone.hybrid import Hybrid, HybridConfig, load_hybrid
from mgca.config import LossConfig, SegmentConfig, TrainConfig, to_dict
from mgca.data.captions import Captions
from mgca.data.features import BatchImages, image_features, text_embeddings
from mgca.data.masks import MaskedSet
from mgca.data.scenes.scene import WorldConfig
from mgca.data.scenes.sets import (
    SYNONYMS,
    TEST_SEED,
    TRAINING_SEED,
    VALIDATION_SEED,
    evaluation_set,
    training_pairs,
)
from mgca.data.texts import TextPool, build_pool
from mgca.evaluation.evaluate import evaluate
from mgca.experiments.scale import Scale
from mgca.model import Model
from mgca.training.small_clip import ClipConfig
from mgca.training.sources import Cached
from mgca.utils.files import cache_folder
from mgca.utils.processes import threads
from mgca.weights import manifest

SIDE = 112  # of an image, in training and in evaluation
IMAGES = 4_000  # that the decoder trains on


def scenes_clip() -> ClipConfig:
    """The small CLIP's training at this scale."""
    return ClipConfig(sizes=HybridConfig(dim=96, enlarge=2), images=8_000, epochs=5, text_norm=1.5)


def scenes_training() -> TrainConfig:
    """The decoder's training at this scale: the paper's values, but for what is given here."""
    return TrainConfig(
        backbone="scenes",
        loss=LossConfig(alpha=0.34),
        learning_rate=6e-3,
        warmup=0.1,
        steps=150,
        batch_size=32,
        precision="bfloat16",
    )


class ScenesScale(Scale):
    """Procedural scenes: the small CLIP that comes with the project, captions of its world.

    Args:
        cache: Folder of features, as in :func:`mgca.utils.files.cache_folder`.
        seed: Seed of the evaluation sets; decisions are taken on another seed than results.
        images: Number of images in each evaluation set.
    """

    name = "scenes"
    datasets = ("things", "scenes", "open")
    groups = {"with background": ("things",), "without background": ("scenes",)}
    frozen = {
        "clip": "attention",
        "maskclip": "value",
        "sclip": "sclip",
        "clearclip": "clearclip",
        "naclip": "naclip",
    }
    threshold = 0.5
    synonyms = SYNONYMS

    def __init__(
        self,
        cache: str | os.PathLike | None = None,
        *,
        seed: int = TEST_SEED,
        images: int = 150,
    ) -> None:
        self.training = scenes_training()
        self.cache = cache_folder(cache).resolve()
        self._seed, self._images = seed, images
        self.settings = {
            # Not the digests of the drawn scenes: another processor may round a pixel otherwise,
            # and would then know none of the published runs. These are in the provenance.
            "clip": manifest().get("scenes-clip"),
            "world": to_dict(WorldConfig()),
            "training": [IMAGES, TRAINING_SEED],
            "evaluation": [images, seed],
            "background": self.threshold,
        }

    def prepare(self, blocks: Mapping[str, bool]) -> None:
        for last_block, trained in blocks.items():
            backbone = self.backbone(0, last_block)
            if trained:
                self.data(backbone)
            for data in self.sets():
                evaluate(
                    Model(backbone, config=self.segment()),
                    data,
                    units=(),
                    features=self.cache,
                    background=self.threshold,
                )

    def backbone(self, seed: int, last_block: str = "value") -> Hybrid:
        return load_hybrid("scenes", last_block=last_block)

    def data(self, backbone: Hybrid) -> Cached:
        # Whatever fills the cache, and on however many cores, its bits are the same.
        with threads(2):
            features = image_features(backbone, _pairs(), size=SIDE, folder=self.cache)
        pool = _pool()
        images = BatchImages(_pairs().images, SIDE, backbone.mean, backbone.std)
        return Cached(
            features, pool, text_embeddings(backbone, pool.texts, folder=self.cache), images
        )

    def sets(self, names: Sequence[str] = ()) -> list[MaskedSet]:
        names = names or self.datasets
        return [evaluation_set(name, self._images, seed=self._seed) for name in names]

    def digests(self, names: Sequence[str] = ()) -> dict[str, str]:
        # One of the sets has the name of the training pairs.
        return {"training": _pairs().digest} | {data.name: data.digest for data in self.sets(names)}

    def segment(self) -> SegmentConfig:
        """One window that is the image."""
        return SegmentConfig(short_side=SIDE, window=SIDE, stride=SIDE)

    def background(self, model: Model) -> dict[str, float]:
        return {"background": self.threshold, "temperature": model.backbone.temperature}

    def calibration(self) -> MaskedSet:
        return evaluation_set("things", self._images, seed=VALIDATION_SEED)


# Once per process: the runs of a worker share them.
@functools.cache
def _pairs() -> Captions:
    return training_pairs(IMAGES, TRAINING_SEED)


@functools.cache
def _pool() -> TextPool:
    return build_pool(_pairs().captions)
