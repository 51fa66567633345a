"""Polygons that drawings are made of: arrays (n, 2) of points, y down."""

from dataclasses import dataclass

import numpy as np

Points = np.ndarray


@dataclass(frozen=True)
class Part:
    """One polygon of a thing.

    Attributes:
        points: (n, 2), the corners of its outline.
        tone: What it is painted with: ``"body"``, ``"dark"`` and ``"light"`` follow the thing's
            own colour, all others are fixed.
        solid: Whether it belongs to the outline; what is not solid shows only inside of that.
    """

    points: Points
    tone: str = "body"
    solid: bool = True


def poly(*points: tuple[float, float]) -> Points:
    return np.array(points, float)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return poly((left, top), (right, top), (right, bottom), (left, bottom))


def arc(x: float, y: float, wide: float, high: float, start: float = 0, end: float = 360) -> Points:
    """Along an ellipse, degrees clockwise from the x axis."""
    turn = np.deg2rad(np.linspace(start, end, max(8, int(abs(end - start) / 12))))
    return np.stack([x + wide * np.cos(turn), y + high * np.sin(turn)], axis=1)


def band(x: float, y: float, outer: float, inner: float, start=0.0, end=360.0) -> Points:
    """A part of an annulus; a whole one is one polygon too, so that its hole stays open."""
    return np.concatenate(
        [arc(x, y, outer, outer, start, end), arc(x, y, inner, inner, end, start)]
    )


def turned(points: Points, degrees: float, x: float = 0, y: float = 0) -> Points:
    """Turned clockwise about a point."""
    turn = np.deg2rad(degrees)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return (points - (x, y)) @ matrix + (x, y)


def line(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    along = np.array([x1 - x0, y1 - y0])
    across = np.array([-along[1], along[0]]) / np.hypot(*along) * width / 2
    ends = np.array([[x0, y0], [x1, y1]])
    return np.concatenate([ends + across, ends[::-1] - across])


def mark(points: Points, tone: str = "dark") -> Part:
    """A part of the inner drawing."""
    return Part(points, tone, solid=False)
