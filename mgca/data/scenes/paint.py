"""Scenes drawn: where each of their contents is seen, the image and its mask."""

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mgca.data.scenes import shapes, textures
from mgca.data.scenes.scene import (
    CLASSES,
    COLOURS,
    DRAWING,
    Boundary,
    Scene,
    Thing,
    WorldConfig,
    random,
)

_FIXED = {
    "brown": (116, 76, 44),
    "cream": (240, 224, 190),
    "glass": (176, 214, 236),
    "gold": (242, 196, 60),
    "ink": (30, 28, 32),
    "white": (248, 248, 248),
}
_FINE = 3  # things are drawn so many times as large and then reduced


def outline(thing: Thing) -> np.ndarray:
    """(n, 2) points of all parts, as shares of the side of the image."""
    turn = np.deg2rad(thing.turn)
    cos, sin = thing.scale * np.cos(turn), thing.scale * np.sin(turn)
    matrix = np.array([[cos, sin], [-sin, cos]])
    if thing.mirrored:
        matrix[0] *= -1
    return shapes.drawing(thing.name, thing.variant).points @ matrix + (thing.x, thing.y)


def extent(thing: Thing) -> list[float]:
    """Left, top, right and bottom of the solid parts."""
    points = outline(thing)[shapes.solid(thing.name, thing.variant)]
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


@dataclass(frozen=True)
class _Patch:
    """Where a thing is drawn: the pixel box, its parts' polygons and its cover in 255ths."""

    left: int
    top: int
    size: tuple[int, int]
    polygons: list[list[float]]
    cover: Image.Image


# To compose a scene is to draw its masks, and whoever renders it next needs them again.
@functools.lru_cache(maxsize=32)
def _patch(size: int, thing: Thing) -> _Patch:
    points = outline(thing) * size
    solid = points[shapes.solid(thing.name, thing.variant)]
    low = np.floor(solid.min(axis=0)).astype(int)
    sides = np.ceil(solid.max(axis=0)).astype(int) - low + 1
    fine = (points - low) * _FINE
    drawing = shapes.drawing(thing.name, thing.variant)
    starts = (0, *drawing.ends[:-1])
    polygons = [
        fine[start:end].ravel().tolist() for start, end in zip(starts, drawing.ends, strict=True)
    ]
    wide, high = sides.tolist()
    cover = Image.new("L", (_FINE * wide, _FINE * high))
    draw = ImageDraw.Draw(cover)
    for part, polygon in zip(drawing.parts, polygons, strict=True):
        if part.solid:
            draw.polygon(polygon, fill=255)
    return _Patch(*low.tolist(), (wide, high), polygons, cover.reduce(_FINE))


def _half_covered(cover: Image.Image) -> Image.Image:
    return cover.convert("1", dither=Image.Dither.NONE)


@functools.lru_cache(maxsize=4)
def _ground(size: int, boundaries: tuple[Boundary, ...]) -> np.ndarray:
    along = (np.arange(size) + 0.5) / size
    ground = np.zeros((size, size), np.uint8)
    for k, b in enumerate(boundaries):
        curve = b.at + b.slope * (along - 0.5)
        curve = curve + b.swing * np.sin(2 * np.pi * (b.waves * along + b.phase))
        beyond = along[:, None] > curve[None, :]
        ground[(beyond.T if b.upright else beyond) & (ground == k)] = k + 1
    ground.flags.writeable = False
    return ground


def ground(config: WorldConfig, scene: Scene) -> np.ndarray:
    """(H, W) uint8, read-only: which of the scene's stuffs lies at each pixel."""
    return _ground(config.size, scene.boundaries)


def layout(config: WorldConfig, scene: Scene) -> np.ndarray:
    """(H, W) uint8: which of the scene's contents one sees at each pixel."""
    canvas = Image.fromarray(ground(config, scene))
    for k, thing in enumerate(scene.things, start=len(scene.stuffs)):
        patch = _patch(config.size, thing)
        canvas.paste(k, (patch.left, patch.top), _half_covered(patch.cover))
    return np.array(canvas)


def _tones(colour: str, rng: np.random.Generator) -> dict[str, tuple[int, int, int]]:
    """What a thing of the colour is painted with."""
    body = np.clip(np.array(COLOURS[colour]) * rng.uniform(0.88, 1.1) + rng.normal(0, 9, 3), 0, 255)
    dark = body * 0.55 if body.mean() > 60 else body + 62
    light = body + 0.5 * (255 - body) if body.mean() < 215 else body * 0.82
    tones = {"body": body, "dark": dark, "light": light if body.mean() > 60 else body + 110}
    return {**_FIXED, **{tone: tuple(value.astype(int).tolist()) for tone, value in tones.items()}}


def render(config: WorldConfig, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene.

    Returns:
        The image (H, W, 3) uint8, and the mask (H, W) uint8 of indices into ``CLASSES``.
    """
    rng = random(scene.seed, DRAWING, scene.index)
    stuff_at = ground(config, scene)
    picture = textures.texture(scene.stuffs[0], config.size, rng)
    for k, stuff in enumerate(scene.stuffs[1:], start=1):
        layer = textures.texture(stuff, config.size, rng)
        np.copyto(picture, layer, where=(stuff_at == k)[..., None])
    canvas = Image.fromarray(picture)
    ids = np.array([CLASSES.index(name) for name in scene.stuffs], np.uint8)
    mask = Image.fromarray(ids[stuff_at])
    for thing in scene.things:
        patch = _patch(config.size, thing)
        tones = _tones(thing.colour, rng)
        paint = Image.new("RGB", tuple(_FINE * side for side in patch.size), tones["body"])
        draw = ImageDraw.Draw(paint)
        drawing = shapes.drawing(thing.name, thing.variant)
        for part, polygon in zip(drawing.parts, patch.polygons, strict=True):
            draw.polygon(polygon, fill=tones[part.tone])
        place = (patch.left, patch.top)
        canvas.paste(paint.reduce(_FINE), place, patch.cover)
        mask.paste(CLASSES.index(thing.name), place, _half_covered(patch.cover))
    return _lit(config, np.asarray(canvas), rng), np.array(mask)


def _lit(config: WorldConfig, picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture under a light that differs from image to image, with pixel noise."""
    along = np.linspace(-1, 1, config.size, dtype=np.float32)
    slope = rng.uniform(-config.gradient, config.gradient, 2).astype(np.float32) / 2
    light = 1 + slope[0] * along[:, None] + slope[1] * along
    tint = np.exp(rng.normal(0, config.light) + rng.normal(0, 0.25 * config.light, 3))
    lit = picture * (light[..., None] * tint.astype(np.float32))
    lit += textures.grain(config.size, rng) * np.float32(rng.uniform(0, config.grain))
    return np.clip(lit, 0, 255).astype(np.uint8)
