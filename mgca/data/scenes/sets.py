"""Scenes as sets: image-caption pairs to train on, and images with masks to evaluate on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import overload

import numpy as np
from PIL import Image

from mgca.data.captions import Captions
from mgca.data.scenes.paint import render
from mgca.data.scenes.scene import CLASSES, HELD_OUT, TELLING, Scene, WorldConfig, random
from mgca.data.scenes.sentences import captions, sentences
from mgca.data.scenes.shapes import THINGS
from mgca.data.scenes.textures import STUFFS
from mgca.data.scenes.world import compose

TRAINING_SEED, VALIDATION_SEED, TEST_SEED = 0, 1, 2
CAPTIONS = 2  # of an image
SETS = ("things", "scenes", "open")

# What the open set calls the stuffs; no caption does.
SYNONYMS = {
    "grass": "lawn",
    "water": "lake",
    "sand": "beach",
    "brick": "masonry",
    "wood": "timber",
    "sky": "clouds",
    "snow": "ice",
    "gravel": "pebbles",
    "tile": "mosaic",
    "straw": "hay",
}
PHRASES = tuple(f"{colour} {thing}" for thing in THINGS for colour in HELD_OUT[thing])
_PROBES = 16  # scenes that a digest draws, to notice changes of the drawing


@dataclass(frozen=True)
class Pictures(Sequence):
    """Images of scenes, each rendered when it is asked for; a slice is of the same kind."""

    config: WorldConfig
    seed: int
    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, key: int) -> Image.Image: ...

    @overload
    def __getitem__(self, key: slice) -> "Pictures": ...

    def __getitem__(self, key):
        if isinstance(key, slice):
            return replace(self, indices=self.indices[key])
        return Image.fromarray(_drawn(self.config, self.seed, self.indices[key])[0])


def _drawn(config: WorldConfig, seed: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    return render(config, compose(config, seed, index))


def training_pairs(images: int, seed: int, config: WorldConfig | None = None) -> Captions:
    """So many images with captions; only the captions are made at once.

    Args:
        images: Number of images.
        seed: Seed of the scenes: another one gives other scenes.
        config: Settings of the world; the default ones for None.

    Returns:
        A data set whose ``images`` are rendered when asked for.

    Raises:
        ValueError: If ``images`` is below 1, the seed is negative, or the configuration is that of
            the held-out combinations.
    """
    config = config or WorldConfig()
    _check_number(images)
    if config.held_out:
        raise ValueError("held-out combinations are not for training")
    return Captions(
        name="scenes",
        images=Pictures(config, seed, range(images)),
        captions=[_captions(config, seed, index) for index in range(images)],
        digest=_digest("training", config, seed, images),
    )


def _check_number(images: int) -> None:
    if images < 1:
        raise ValueError(f"images is {images}, expected at least 1")


def _captions(config: WorldConfig, seed: int, index: int) -> list[str]:
    scene = compose(config, seed, index)
    return captions(config, scene, random(seed, TELLING, index), CAPTIONS)


def _digest(name: str, config: WorldConfig, seed: int, images: int) -> str:
    """SHA-256 of what names a set and of some of its scenes as they are drawn and told today."""
    named = {"set": name, "config": asdict(config), "seed": seed, "images": images}
    digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode())
    for index in range(_PROBES):
        image, mask = _drawn(config, seed, index)
        digest.update(image.tobytes() + mask.tobytes())
        digest.update("\n".join(_captions(config, seed, index)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class SceneSet:
    """Images with a class id for every pixel, drawn one after the other.

    Attributes:
        name: One of ``SETS``.
        config: Settings of the world that the scenes are drawn from.
        seed: Seed of the scenes.
        classes: Names that are asked for.
        images: Number of images.
        background: Whether masks hold 0 for what is none of the classes and 1 + class index
            otherwise, rather than the class index alone.
        digest: Names the set and how its scenes are drawn.
    """

    name: str
    config: WorldConfig
    seed: int
    classes: tuple[str, ...]
    images: int
    background: bool
    digest: str

    @property
    def source(self) -> str:
        """Every set has images of its own."""
        return self.name

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[str, Image.Image, np.ndarray]:
        """(identifier, image, mask (H, W) uint8) of an image."""
        scene = compose(self.config, self.seed, index)
        image, mask = render(self.config, scene)
        ids = _ids(self.name, scene)[mask]
        return f"{self.name}-{index:05d}", Image.fromarray(image), ids

    def __iter__(self) -> Iterator[tuple[str, Image.Image, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def first(self, images: int | None) -> "SceneSet":
        """The first so many images; all of them for None."""
        if images is None or images >= len(self):
            return self
        return replace(self, images=images)


def _ids(name: str, scene: Scene) -> np.ndarray:
    """(len(CLASSES),) uint8: a set's own ids of the contents of a scene."""
    ids = np.arange(len(CLASSES), dtype=np.uint8)
    if name == "things":
        return np.where(ids < len(THINGS), ids + 1, 0).astype(np.uint8)
    if name == "open":
        ids[len(THINGS) :] += len(PHRASES) - len(THINGS)
        for thing in scene.things:
            phrase = f"{thing.colour} {thing.name}"
            ids[THINGS.index(thing.name)] = PHRASES.index(phrase)
    return ids


def evaluation_set(
    name: str, images: int = 200, seed: int = VALIDATION_SEED, config: WorldConfig | None = None
) -> SceneSet:
    """A set with masks; every set has images of its own.

    Args:
        name: ``"things"``: the things on a background of stuff. ``"scenes"``: things and stuffs.
            ``"open"``: things in the colours that training leaves out, asked for by colour and
            name, and stuffs, asked for by words that training leaves out.
        images: Number of images.
        seed: ``VALIDATION_SEED`` or ``TEST_SEED``.
        config: Settings of the world, but for ``held_out``, which follows the name; the default
            ones for None.

    Raises:
        ValueError: If the name is unknown, ``images`` is below 1, or the seed is negative.
    """
    if name not in SETS:
        raise ValueError(f"unknown set {name!r}, only {', '.join(SETS)}")
    _check_number(images)
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    config = replace(config or WorldConfig(), held_out=name == "open")
    own_seed = int.from_bytes(hashlib.sha256(f"{name}-{seed}".encode()).digest()[:8])
    classes = {
        "things": THINGS,
        "scenes": CLASSES,
        "open": PHRASES + tuple(SYNONYMS[stuff] for stuff in STUFFS),
    }
    return SceneSet(
        name=name,
        config=config,
        seed=own_seed,
        classes=classes[name],
        images=images,
        background=name == "things",
        digest=_digest(name, config, own_seed, images),
    )


def described_area(
    images: int, seed: int = TRAINING_SEED, config: WorldConfig | None = None
) -> dict[str, float]:
    """Mean share of the image that texts describe; a wrong word describes nothing.

    Returns:
        ``"caption"``: of all that a caption names. ``"content"``: of one thing or stuff that it
        names. ``"text"``: of what training draws, a caption or one of its names uniformly.

    Raises:
        ValueError: If ``images`` is below 1 or the seed is negative.
    """
    config = config or WorldConfig()
    _check_number(images)
    whole, single, drawn = [], [], []
    for index in range(images):
        scene = compose(config, seed, index)
        rng = random(seed, TELLING, index)
        for sentence in sentences(config, scene, rng, CAPTIONS):
            # Visible areas are disjoint, so that the union's is their sum.
            areas = [scene.contents[k].area for k in sentence.contents]
            texts = [sum(areas), *areas, *[0.0] * sentence.wrong]
            whole.append(texts[0])
            single += areas
            drawn.append(float(np.mean(texts)))
    means = {"caption": whole, "content": single, "text": drawn}
    return {name: float(np.mean(values)) for name, values in means.items()}
