"""Scenes of several things on several kinds of stuff: what they hold.

A scene is a pure function of the configuration, a seed and an index.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mgca.data.scenes import shapes
from mgca.data.scenes.paint import extent, ground, layout
from mgca.data.scenes.scene import (
    COLOURS,
    COMPOSING,
    HELD_OUT,
    Boundary,
    Content,
    Scene,
    Thing,
    WorldConfig,
    random,
)
from mgca.data.scenes.shapes import THINGS
from mgca.data.scenes.textures import STUFFS

_TRIES = 6  # places that are tried for a thing


def compose(config: WorldConfig, seed: int, index: int) -> Scene:
    """Decide what a scene holds; things of which nearly nothing would be seen are left out.

    Raises:
        ValueError: If the seed or the index is negative.
    """
    rng = random(seed, COMPOSING, index)
    number = int(rng.integers(config.stuffs[0], config.stuffs[1] + 1))
    stuffs = [STUFFS[k] for k in rng.permutation(len(STUFFS))[:number]]
    stuffs.sort(key="sky".__ne__)  # the sky is above
    boundaries = _boundaries(rng, number, below="sky" in stuffs)
    number = int(rng.integers(config.things[0], config.things[1] + 1))
    names = [THINGS[k] for k in rng.permutation(len(THINGS))[:number]]
    things = _things(config, rng, names)
    scene = Scene(seed, index, tuple(stuffs), boundaries, things, ())
    contents = _contents(config, scene)
    seen = [content.area >= config.visible for content in contents[len(stuffs) :]]
    if not all(seen):
        visible = tuple(thing for thing, is_seen in zip(things, seen, strict=True) if is_seen)
        scene = replace(scene, things=visible)
        contents = _contents(config, scene)
    return replace(scene, contents=contents)


def _boundaries(rng: np.random.Generator, number: int, below: bool) -> tuple[Boundary, ...]:
    boundaries = []
    for k in range(number - 1):
        upright = bool(rng.random() < (0.3, 0.5)[k]) and not (below and k == 0)
        at = rng.uniform(0.35, 0.6)
        if k and upright == boundaries[0].upright:  # parts what the first has left
            boundaries[0] = replace(boundaries[0], at=boundaries[0].at - 0.12)
            at += 0.18
        swing, slope = rng.uniform(0.01, 0.05), rng.uniform(-0.15, 0.15)
        waves, phase = rng.uniform(0.5, 2), rng.uniform(0, 1)
        boundaries.append(Boundary(upright, at, slope, swing, waves, phase))
    return tuple(boundaries)


@functools.cache
def _colours(thing: str, held_out: bool) -> tuple[str, ...]:
    return tuple(colour for colour in COLOURS if (colour in HELD_OUT[thing]) == held_out)


def _things(
    config: WorldConfig, rng: np.random.Generator, names: Sequence[str]
) -> tuple[Thing, ...]:
    low, high = config.areas
    mean = (config.mean_area - low) / (high - low)
    things, boxes = [], []
    areas = low + (high - low) * rng.beta(0.8, 0.8 * (1 - mean) / mean, len(names))
    # Large things lie mostly behind small ones, or little would be seen of the small.
    order = np.argsort(-areas * rng.uniform(0.6, 1.6, len(names)))
    for name, area in zip(names, areas[order].tolist(), strict=True):
        allowed = _colours(name, config.held_out)
        drawing_of = int(rng.integers(shapes.VARIANTS))
        drawing = shapes.drawing(name, drawing_of)
        scale = float(np.sqrt(area / drawing.area))
        turn = float(rng.uniform(-config.turn, config.turn))
        colour, mirrored = allowed[rng.integers(len(allowed))], bool(rng.random() < 0.5)
        thing = Thing(name, drawing_of, colour, area, 0, 0, scale, turn, mirrored)
        low_x, low_y, high_x, high_y = extent(thing)
        fit = min(1, 0.98 / max(high_x - low_x, high_y - low_y))
        places = rng.random((_TRIES, 2))
        x = (0.5 * (1 - fit * (high_x - low_x)) * (2 * places[:, 0] - 1)) + 0.5
        y = (0.5 * (1 - fit * (high_y - low_y)) * (2 * places[:, 1] - 1)) + 0.5
        half = (0.5 * fit * (high_x - low_x), 0.5 * fit * (high_y - low_y))
        best = _freest(x, y, half, boxes)
        boxes.append((x[best], y[best], *half))
        # The turned box need not be centred where the drawing is.
        x_best = float(x[best]) - fit * (low_x + high_x) / 2
        y_best = float(y[best]) - fit * (low_y + high_y) / 2
        things.append(replace(thing, area=area * fit**2, x=x_best, y=y_best, scale=scale * fit))
    return tuple(things)


def _freest(
    x: np.ndarray, y: np.ndarray, half: tuple[float, float], boxes: list[tuple[float, ...]]
) -> int:
    """Which of the places overlaps least with the boxes (centre, half width, half height)."""
    if not boxes:
        return 0
    other_x, other_y, wide, high = np.array(boxes).T[:, :, None]
    across = half[0] + wide - np.abs(x - other_x)
    along = half[1] + high - np.abs(y - other_y)
    return int(np.argmin((across.clip(0) * along.clip(0)).sum(axis=0)))


@functools.cache
def _places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the centre of each pixel, flat, as shares of the side of the image."""
    y, x = np.divmod(np.arange(size * size), size)
    return (x + 0.5) / size, (y + 0.5) / size


def _contents(config: WorldConfig, scene: Scene) -> tuple[Content, ...]:
    seen = layout(config, scene)
    stuffs, number = len(scene.stuffs), len(scene.stuffs) + len(scene.things)
    hidden = np.bincount(
        (seen * np.uint8(stuffs) + ground(config, scene)).ravel(), minlength=number * stuffs
    )
    counts = hidden.reshape(number, stuffs)
    pixels = counts.sum(axis=1)
    centres = [
        np.where(pixels > 0, np.bincount(seen.ravel(), place, number) / pixels.clip(1), 0.5)
        for place in _places(config.size)
    ]
    contents = []
    for k in range(number):
        area, at_x, at_y = float(pixels[k]) / seen.size, float(centres[0][k]), float(centres[1][k])
        if k < stuffs:
            contents.append(Content(scene.stuffs[k], None, area, at_x, at_y, None))
        else:
            thing = scene.things[k - stuffs]
            on = scene.stuffs[int(counts[k].argmax())]
            contents.append(Content(thing.name, thing.colour, area, at_x, at_y, on))
    return tuple(contents)
