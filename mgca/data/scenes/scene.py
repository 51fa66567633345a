"""What scenes are made of, and the settings by which they differ."""

from dataclasses import dataclass

import numpy as np

from mgca.data.scenes.shapes import THINGS
from mgca.data.scenes.textures import STUFFS

COLOURS = {
    "red": (206, 38, 40),
    "orange": (240, 132, 24),
    "yellow": (246, 216, 40),
    "green": (38, 150, 62),
    "blue": (36, 78, 200),
    "purple": (124, 48, 164),
    "pink": (246, 140, 184),
    "brown": (122, 74, 36),
    "black": (34, 34, 38),
    "white": (240, 240, 236),
}
#: Things, then stuffs: the class ids of masks are places in it.
CLASSES = THINGS + STUFFS

# A thing is never seen in its two held-out colours, except in the open set.
_NAMES = tuple(COLOURS)
HELD_OUT = {
    thing: (_NAMES[k % 10], _NAMES[(k + (5 if k < 10 else 3)) % 10])
    for k, thing in enumerate(THINGS)
}

# Streams of random numbers of one scene.
COMPOSING, DRAWING, TELLING = range(3)


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What scenes are like.

    Attributes:
        size: Height and width of an image in pixels.
        things: Fewest and most things.
        stuffs: Fewest and most kinds of stuff.
        areas: Smallest and largest share of the image that a thing covers unless it is occluded.
        mean_area: Mean of that share; most things are smaller, few are much larger.
        visible: Share of the image from which on what is left of a thing counts as visible.
        turn: Largest rotation of a thing, in degrees to either side.
        light: Standard deviation of the logarithm of the brightness of an image.
        gradient: Largest relative change of the light from the centre to a side.
        grain: Largest standard deviation of the pixel noise, in levels of 255.
        attributes: Probability that a caption gives a thing's colour, and its size where that is
            remarkable.
        wrong: Share of a caption's names that are replaced by another of the same kind.
        held_out: Things have only their held-out colours, instead of only all others.
    """

    size: int = 112
    things: tuple[int, int] = (2, 5)
    stuffs: tuple[int, int] = (1, 3)
    areas: tuple[float, float] = (0.03, 0.40)
    mean_area: float = 0.10
    visible: float = 0.01
    turn: float = 25.0
    light: float = 0.12
    gradient: float = 0.25
    grain: float = 6.0
    attributes: float = 0.35
    wrong: float = 0.03
    held_out: bool = False

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"size is {self.size}, too small to tell things by: 32 or more")
        for name, low, high in (("things", 1, len(THINGS)), ("stuffs", 1, 3)):
            fewest, most = getattr(self, name)
            if not low <= fewest <= most <= high:
                raise ValueError(f"{name} is {fewest, most}, expected a range in {low} to {high}")
        if not 0 < self.areas[0] < self.mean_area < self.areas[1] <= 0.5:
            raise ValueError(
                f"expected 0 < smallest area < mean_area < largest area <= 0.5, "
                f"not {self.areas[0]}, {self.mean_area}, {self.areas[1]}"
            )
        if not 0 < self.visible <= self.areas[0]:
            raise ValueError(f"visible is {self.visible}, expected above 0 and up to areas[0]")
        for name in ("turn", "light", "gradient", "grain"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("attributes", "wrong"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")


@dataclass(frozen=True)
class Boundary:
    """A curve that parts stuffs; what lies below it, or right of it, is the next stuff.

    Lengths are shares of the side of the image; ``upright`` curves run from top to bottom.
    """

    upright: bool
    at: float
    slope: float
    swing: float
    waves: float
    phase: float


@dataclass(frozen=True)
class Thing:
    """A thing as it lies in the image; lengths are shares of the side of the image.

    Attributes:
        name: Name of what it is, which has one or more drawings.
        variant: Which of these drawings it is.
        colour: Name of its colour.
        area: Share of the image that it covers unless it is occluded.
        x: Centre of its box, from the left.
        y: Centre of its box, from the top.
        scale: Length of the drawing's unit.
        turn: Its rotation, clockwise, in degrees.
        mirrored: Whether left and right are exchanged.
    """

    name: str
    variant: int
    colour: str
    area: float
    x: float
    y: float
    scale: float
    turn: float
    mirrored: bool


@dataclass(frozen=True)
class Content:
    """A stuff or a thing as far as one sees it.

    Attributes:
        name: One of ``CLASSES``.
        colour: Name of a thing's colour; None for a stuff.
        area: Share of the image on which it is visible.
        x: Centre of what is visible, from the left, as a share of the side of the image; 0.5 if
            nothing is.
        y: Centre of what is visible, from the top, likewise.
        on: The stuff that most of what is visible of a thing hides; None for a stuff.
    """

    name: str
    colour: str | None
    area: float
    x: float
    y: float
    on: str | None


@dataclass(frozen=True)
class Scene:
    """What an image holds.

    Attributes:
        seed: Seed of the series that it is drawn from.
        index: Its number in that series.
        stuffs: Names of the kinds of stuff in it.
        boundaries: The boundaries between them, one fewer.
        things: The things, in the order of painting, so that the later ones hide the earlier.
        contents: The stuffs and then the things, as far as one sees them.
    """

    seed: int
    index: int
    stuffs: tuple[str, ...]
    boundaries: tuple[Boundary, ...]
    things: tuple[Thing, ...]
    contents: tuple[Content, ...]


def random(scene_seed: int, stream: int, index: int) -> np.random.Generator:
    """The random numbers of one stream of one scene.

    Raises:
        ValueError: If the seed or the index is negative.
    """
    if scene_seed < 0 or index < 0:
        raise ValueError(f"seed {scene_seed} and index {index} must not be negative")
    return np.random.default_rng([scene_seed, stream, index])
