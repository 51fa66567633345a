"""Outlines and inner drawings of the twenty things, as polygons that any scale and turn can draw.

Coordinates run from about -1 to 1, x to the right and y down, before :func:`drawing` centres them.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mgca.data.scenes.outlines import Part, Points, arc, band, box, line, mark, poly, turned

VARIANTS = 3


@dataclass(frozen=True)
class Drawing:
    """A thing about the centre of its box.

    Attributes:
        points: (n, 2) of all parts, one after the other.
        ends: The position in ``points`` at which each part ends.
        parts: The parts in the order of painting.
        area: Area of the union of the solid parts, in squared units of ``points``.
    """

    points: Points
    ends: tuple[int, ...]
    parts: tuple[Part, ...]
    area: float


def _star_points(outer: float, inner: float) -> Points:
    turn = np.deg2rad(np.arange(10) * 36 - 90)
    radius = np.where(np.arange(10) % 2, inner, outer)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=1)


def _star(vary: float) -> list[Part]:
    inner = 0.40 + 0.08 * vary
    return [
        Part(_star_points(1, inner)),
        mark(_star_points(0.62, 0.62 * inner), "light"),
        mark(_star_points(0.30, 0.30 * inner)),
    ]


def _heart(vary: float) -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 48)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    outline = np.stack([16 * np.sin(t) ** 3, -y * (0.95 + 0.15 * vary)], axis=1) / 16
    dots = [(x / 2.4 + 0.2 * (row % 2), row / 3) for row in range(-3, 4) for x in range(-3, 4)]
    return [Part(outline), *(mark(arc(x, y, 0.09, 0.09), "light") for x, y in dots)]


def _ball(vary: float) -> list[Part]:
    seam = 0.07
    return [
        Part(arc(0, 0, 1, 1)),
        mark(band(-1.35 + 0.2 * vary, 0, 1.0, 1.0 - seam), "dark"),
        mark(band(1.35 - 0.2 * vary, 0, 1.0, 1.0 - seam), "dark"),
        mark(box(-1, -seam / 2, 1, seam / 2)),
        mark(box(-seam / 2, -1, seam / 2, 1)),
        mark(arc(-0.36, -0.5, 0.16, 0.12), "light"),
    ]


def _cross(vary: float) -> list[Part]:
    half = 0.32 + 0.07 * vary
    inner = half * 0.45
    squares = [(0, 0), *((s * r, 0) for s in (-1, 1) for r in (0.36, 0.72))]
    squares += [(y, x) for x, y in squares[1:]]
    return [
        Part(box(-1, -half, 1, half)),
        Part(box(-half, -1, half, 1)),
        *(
            mark(
                turned(box(x - 0.13, y - 0.13, x + 0.13, y + 0.13), 45, x, y),
                "light",
            )
            for x, y in squares
        ),
        mark(box(-inner / 2, -inner / 2, inner / 2, inner / 2)),
    ]


def _ring(vary: float) -> list[Part]:
    inner = 0.56 + 0.08 * vary
    spokes = [mark(band(0, 0, 1, inner, a, a + 18), "light") for a in range(0, 360, 45)]
    return [Part(band(0, 0, 1, inner)), *spokes]


def _moon(vary: float) -> list[Part]:
    bite = 0.42 + 0.12 * vary
    meet = np.rad2deg(np.arccos((1 + bite**2 - 0.86**2) / (2 * bite)))
    far = np.rad2deg(np.arctan2(np.sin(np.deg2rad(meet)), np.cos(np.deg2rad(meet)) - bite))
    outline = np.concatenate(
        [
            arc(0, 0, 1, 1, meet, 360 - meet),
            arc(bite, 0, 0.86, 0.86, 360 - far, far),
        ]
    )
    craters = [(-0.72, 0.1, 0.12), (-0.5, -0.55, 0.11), (-0.45, 0.62, 0.1), (-0.66, -0.22, 0.07)]
    return [Part(outline), *(mark(arc(x, y, r, r)) for x, y, r in craters)]


def _house(vary: float) -> list[Part]:
    eaves = -0.12 + 0.12 * vary
    windows = []
    for x in (-0.44, 0.44):
        windows += [
            mark(box(x - 0.2, eaves + 0.2, x + 0.2, eaves + 0.6), "glass"),
            mark(box(x - 0.03, eaves + 0.2, x + 0.03, eaves + 0.6), "ink"),
            mark(box(x - 0.2, eaves + 0.37, x + 0.2, eaves + 0.43), "ink"),
        ]
    return [
        Part(box(0.4, -0.95, 0.62, -0.2), "brown"),
        Part(box(-0.8, eaves, 0.8, 0.95)),
        Part(poly((-1, eaves), (0, -1), (1, eaves)), "dark"),
        *windows,
        mark(box(-0.15, 0.42, 0.15, 0.95), "brown"),
    ]


def _tree(vary: float) -> list[Part]:
    wide = 0.72 + 0.12 * vary
    layers = [(-1.0, -0.25, 0.62), (-0.62, 0.2, 0.82), (-0.2, 0.68, 1.0)]
    parts = [Part(box(-0.13, 0.6, 0.13, 1.05), "brown")]
    for top, bottom, share in reversed(layers):
        reach = wide * share
        parts.append(Part(poly((0, top), (reach, bottom), (-reach, bottom))))
        edge = poly(
            (-reach, bottom),
            (reach, bottom),
            (reach * 0.7, bottom - 0.14),
            (-reach * 0.7, bottom - 0.14),
        )
        parts.append(mark(edge))
    return parts


def _fish(vary: float) -> list[Part]:
    high = 0.46 + 0.08 * vary
    scales = [(x / 5, y / 4.5 + 0.11 * (x % 2)) for x in range(-3, 2) for y in range(-2, 3)]
    return [
        Part(poly((0.45, 0), (1.05, -0.48), (0.92, 0), (1.05, 0.48)), "dark"),
        Part(poly((-0.3, -0.3), (0.1, -0.75), (0.35, -0.2)), "dark"),
        Part(arc(-0.2, 0, 0.82, high)),
        *(mark(band(x, y, 0.12, 0.07, -80, 80)) for x, y in scales),
        mark(arc(-0.68, -0.1, 0.13, 0.13), "white"),
        mark(arc(-0.7, -0.1, 0.065, 0.065), "ink"),
    ]


def _mushroom(vary: float) -> list[Part]:
    stem = 0.26 + 0.06 * vary
    dots = [(-0.58, -0.22, 0.13), (-0.1, -0.62, 0.17), (0.5, -0.38, 0.15), (0.1, -0.2, 0.1)]
    return [
        Part(poly((-stem, 0), (stem, 0), (stem * 1.3, 0.95), (-stem * 1.3, 0.95)), "cream"),
        Part(arc(0, 0.08, 1, 1.05, 180, 360)),
        *(mark(arc(x, y, r, r), "light") for x, y, r in dots),
    ]


def _arrow(vary: float) -> list[Part]:
    half, neck = 0.26, 0.15 + 0.15 * vary
    chevrons = [
        mark(
            poly(
                (x, -0.3), (x + 0.13, -0.3), (x + 0.33, 0), (x + 0.13, 0.3), (x, 0.3), (x + 0.2, 0)
            ),
            "light",
        )
        for x in (-0.95, -0.6, -0.25)
    ]
    outline = poly(
        (-1, -half), (neck, -half), (neck, -0.72), (1, 0), (neck, 0.72), (neck, half), (-1, half)
    )
    return [Part(outline), *chevrons]


def _flower(vary: float) -> list[Part]:
    petals = 6
    turns = [360 * k / petals for k in range(petals)]
    petal, vein = (
        arc(0, -0.62, 0.3 + 0.05 * vary, 0.42),
        line(0, -0.35, 0, -0.85, 0.06),
    )
    return [
        *(Part(turned(petal, turn)) for turn in turns),
        Part(arc(0, 0, 0.4, 0.4)),
        *(mark(turned(vein, turn)) for turn in turns),
        mark(arc(0, 0, 0.29, 0.29), "gold"),
        *(mark(turned(arc(0, -0.15, 0.05, 0.05), turn), "brown") for turn in turns),
    ]


def _kite(vary: float) -> list[Part]:
    middle = -0.3 + 0.1 * vary
    top, right, low, left = (0, -1), (0.66, middle), (0, 0.62), (-0.66, middle)
    centre = (0, middle)
    tail = [(0, 0.6), (0.16, 0.78), (-0.1, 0.96), (0.12, 1.14), (0, 1.3)]
    parts = [Part(line(*a, *b, 0.07), "ink") for a, b in zip(tail, tail[1:], strict=False)]
    for x, y in tail[1:4]:
        bow = poly(
            (x - 0.17, y - 0.1), (x + 0.17, y + 0.1), (x + 0.17, y - 0.1), (x - 0.17, y + 0.1)
        )
        parts.append(Part(bow, "dark"))
    return parts + [
        Part(poly(top, right, low, left)),
        mark(poly(top, right, centre), "light"),
        mark(poly(left, centre, low), "light"),
        mark(line(*top, *low, 0.05), "ink"),
        mark(line(*left, *right, 0.05), "ink"),
    ]


def _key(vary: float) -> list[Part]:
    teeth = [(0.52, 0.46 + 0.08 * vary), (0.84, 0.38)]
    return [
        Part(band(-0.58, 0, 0.5, 0.24)),
        Part(box(-0.14, -0.13, 1.04, 0.13)),
        *(Part(box(x - 0.11, 0, x + 0.11, y)) for x, y in teeth),
        mark(band(-0.58, 0, 0.42, 0.34), "light"),
        mark(box(-0.1, -0.04, 1.0, 0.04)),
    ]


def _cup(vary: float) -> list[Part]:
    foot = 0.46 + 0.08 * vary
    return [
        Part(band(0.62, 0.02, 0.42, 0.22, -100, 110)),
        Part(poly((-0.72, -0.7), (0.72, -0.7), (foot, 0.85), (-foot, 0.85))),
        mark(box(-1, -0.12, 0.74, 0.08), "light"),
        mark(box(-1, 0.28, 0.74, 0.48), "light"),
        Part(arc(0, -0.7, 0.72, 0.2), "light"),
        mark(arc(0, -0.68, 0.6, 0.13), "brown"),
    ]


def _boat(vary: float) -> list[Part]:
    mast = -0.04 + 0.1 * vary
    return [
        Part(box(mast - 0.05, -1, mast + 0.05, 0.4), "brown"),
        Part(poly((mast + 0.05, -0.98), (mast + 0.05, 0.26), (0.82, 0.26)), "white"),
        Part(poly((mast - 0.05, -0.72), (mast - 0.05, 0.26), (-0.66, 0.26)), "light"),
        Part(poly((-1, 0.36), (1, 0.36), (0.62, 0.92), (-0.62, 0.92))),
        mark(box(-1, 0.36, 1, 0.47)),
        *(mark(arc(x, 0.65, 0.09, 0.09), "white") for x in (-0.4, 0, 0.4)),
    ]


def _leaf(vary: float) -> list[Part]:
    high = 0.5 + 0.07 * vary
    t = np.linspace(0, np.pi, 16)
    upper = np.stack([-np.cos(t), -high * np.sin(t) ** 1.5], axis=1)
    veins = [
        mark(line(x, 0, x + 0.34, side * high * 0.86, 0.05))
        for x in (-0.65, -0.3, 0.05, 0.4)
        for side in (-1, 1)
    ]
    return [
        Part(line(0.85, 0, 1.4, 0.1, 0.11), "dark"),
        Part(np.concatenate([upper, (upper * (1, -1))[::-1]])),
        mark(line(-0.95, 0, 1, 0, 0.07)),
        *veins,
    ]


def _bell(vary: float) -> list[Part]:
    t = np.linspace(0, 1, 14)
    side = 0.32 + 0.1 * vary + (0.5 - 0.1 * vary) * t**2.6
    right = np.stack([side, -0.45 + 1.05 * t], axis=1)
    dome = arc(0, -0.45, 0.32 + 0.1 * vary, 0.38, 180, 360)
    return [
        Part(band(0, -0.88, 0.18, 0.09), "dark"),
        Part(arc(0, 0.74, 0.2, 0.2), "ink"),
        Part(np.concatenate([dome, right, (right * (-1, 1))[::-1]])),
        mark(box(-1, 0.12, 1, 0.24), "light"),
        Part(box(-0.88, 0.54, 0.88, 0.72), "dark"),
    ]


def _butterfly(vary: float) -> list[Part]:
    parts = []
    for side in (-1, 1):
        upper = turned(
            arc(side * 0.55, -0.36, 0.56, 0.38 + 0.05 * vary),
            -side * 32,
            side * 0.55,
            -0.36,
        )
        lower = turned(arc(side * 0.42, 0.4, 0.42, 0.32), side * 38, side * 0.42, 0.4)
        parts += [
            Part(upper),
            Part(lower, "light"),
            mark(arc(side * 0.66, -0.44, 0.2, 0.2), "dark"),
            mark(arc(side * 0.66, -0.44, 0.1, 0.1), "white"),
            mark(arc(side * 0.48, 0.46, 0.13, 0.13), "dark"),
            Part(line(side * 0.03, -0.5, side * 0.26, -0.98, 0.06), "ink"),
        ]
    return [*parts, Part(arc(0, 0.02, 0.1, 0.64), "ink")]


def _umbrella(vary: float) -> list[Part]:
    edge, depth = 0.1, 0.95 + 0.1 * vary
    dome = arc(0, edge, 1, depth, 180, 360)
    scallops = [arc(x, edge, 0.25, 0.15, 0, -180) for x in (0.75, 0.25, -0.25, -0.75)]
    panels = [mark(poly((0, -1), (x, edge + 0.1), (x + 0.5, edge + 0.1)), "light") for x in (-1, 0)]
    return [
        Part(box(-0.05, -1, 0.05, 0.9), "brown"),
        Part(band(0.2, 0.86, 0.25, 0.14, 0, 180), "brown"),
        Part(np.concatenate([dome, *scallops])),
        *panels,
        Part(box(-0.05, depth * -1 - 0.05, 0.05, -0.8), "brown"),
    ]


_DRAWN: dict[str, Callable[[float], list[Part]]] = {
    "star": _star,
    "heart": _heart,
    "ball": _ball,
    "cross": _cross,
    "ring": _ring,
    "moon": _moon,
    "house": _house,
    "tree": _tree,
    "fish": _fish,
    "mushroom": _mushroom,
    "arrow": _arrow,
    "flower": _flower,
    "kite": _kite,
    "key": _key,
    "cup": _cup,
    "boat": _boat,
    "leaf": _leaf,
    "bell": _bell,
    "butterfly": _butterfly,
    "umbrella": _umbrella,
}
THINGS = tuple(_DRAWN)


@functools.cache
def drawing(thing: str, variant: int) -> Drawing:
    """The drawing of a thing; its variants differ in their proportions.

    Raises:
        ValueError: If the thing or the variant is unknown.
    """
    if thing not in _DRAWN or not 0 <= variant < VARIANTS:
        raise ValueError(
            f"no variant {variant} of {thing!r}: 0 to {VARIANTS - 1} of {', '.join(THINGS)}"
        )
    parts = _DRAWN[thing](variant / (VARIANTS - 1))
    solid = np.concatenate([part.points for part in parts if part.solid])
    low, high = solid.min(axis=0), solid.max(axis=0)
    points = np.concatenate([part.points for part in parts]) - (low + high) / 2
    ends = tuple(np.cumsum([len(part.points) for part in parts]).tolist())
    return Drawing(points, ends, tuple(parts), _union_area(parts, low, high))


def _union_area(parts: list[Part], low: Points, high: Points) -> float:
    pixels = 200  # to a unit
    size = tuple(np.ceil((high - low) * pixels).astype(int).tolist())
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for part in parts:
        if part.solid:
            draw.polygon(((part.points - low) * pixels).ravel().tolist(), fill=1)
    return float(np.asarray(canvas).sum()) / pixels**2


@functools.cache
def solid(thing: str, variant: int) -> np.ndarray:
    """(n,) bool: which of a drawing's points belong to its outline.

    Raises:
        ValueError: If the thing or the variant is unknown.
    """
    parts = drawing(thing, variant).parts
    return np.concatenate([np.full(len(part.points), part.solid) for part in parts])
