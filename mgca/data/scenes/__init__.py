"""A small world to learn from: images of things on stuff, told by captions, with exact masks.

The images are drawn, so that a model can be trained on them and measured in minutes on one core,
and everything that a caption leaves out is known.
"""

from mgca.data.scenes.paint import layout, render
from mgca.data.scenes.scene import CLASSES, COLOURS, HELD_OUT, Scene, WorldConfig
from mgca.data.scenes.sentences import Sentence, captions, sentences
from mgca.data.scenes.sets import (
    SYNONYMS,
    TEST_SEED,
    TRAINING_SEED,
    VALIDATION_SEED,
    SceneSet,
    described_area,
    evaluation_set,
    training_pairs,
)
from mgca.data.scenes.shapes import THINGS
from mgca.data.scenes.textures import STUFFS
from mgca.data.scenes.world import compose

__all__ = [
    "CLASSES",
    "COLOURS",
    "HELD_OUT",
    "STUFFS",
    "SYNONYMS",
    "TEST_SEED",
    "THINGS",
    "TRAINING_SEED",
    "VALIDATION_SEED",
    "Scene",
    "SceneSet",
    "Sentence",
    "WorldConfig",
    "captions",
    "compose",
    "described_area",
    "evaluation_set",
    "layout",
    "render",
    "sentences",
    "training_pairs",
]
