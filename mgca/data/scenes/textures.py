"""Procedural textures of the ten stuffs, drawn once per process and then cropped and tinted."""

import functools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

SIDE = 256  # of a tile, in pixels of an image 112 pixels wide
VARIANTS = 3
WINDOW = 112  # of a tile that an image shows at scale 1
_SCALES = (0.78, 0.88, 1.0, 1.14, 1.3)
_SEED = 7  # of the tiles; scenes differ in what they cut from them

Array = np.ndarray


def _noise(rng: np.random.Generator, wide: float, high: float) -> Array:
    """(SIDE, SIDE) periodic Gaussian noise of unit variance, smoothed over so many pixels."""
    frequency = np.fft.fftfreq(SIDE) * np.pi * np.sqrt(2)
    decay = (frequency * high)[:, None] ** 2 + (frequency * wide)[None, :] ** 2
    values = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * np.exp(-decay)).real
    return (values - values.mean()) / values.std()


def _shaded(colour: tuple[int, int, int], shade: Array) -> Array:
    """(SIDE, SIDE, 3): a colour times 1 + shade."""
    return np.array(colour, float) * (1 + shade[..., None])


def _mixed(one: Array | tuple, other: Array | tuple, share: Array) -> Array:
    """(SIDE, SIDE, 3): so much of the other."""
    share = np.clip(share, 0, 1)[..., None]
    return np.asarray(one, float) * (1 - share) + np.asarray(other, float) * share


def _strokes(
    rng: np.random.Generator,
    background: tuple[int, int, int],
    colours: list[tuple[int, int, int]],
    *,
    number: int,
    length: tuple[float, float],
    angle: tuple[float, float],
    width: int,
) -> Array:
    """(SIDE, SIDE, 3): straight strokes, angles in degrees from the x axis."""
    image = Image.new("RGB", (SIDE, SIDE), background)
    draw = ImageDraw.Draw(image)
    for _ in range(number):
        x, y = rng.uniform(-8, SIDE + 8, 2)
        turn, reach = np.deg2rad(rng.uniform(*angle)), rng.uniform(*length)
        colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.8, 1.15)
        draw.line(
            (x, y, x + reach * np.cos(turn), y - reach * np.sin(turn)),
            fill=tuple(np.clip(colour, 0, 255).astype(int).tolist()),
            width=width,
        )
    return np.asarray(image, float)


def _grass(rng: np.random.Generator) -> Array:
    greens = [(70, 140, 45), (50, 112, 35), (104, 168, 62), (84, 150, 40)]
    return _strokes(
        rng, (44, 96, 34), greens, number=5200, length=(5, 12), angle=(65, 115), width=1
    )


def _water(rng: np.random.Generator) -> Array:
    y = np.arange(SIDE)[:, None]
    wave = np.sin(2 * np.pi * (y / 8 + 0.45 * _noise(rng, 14, 4)))
    crest = np.clip(wave - 0.35, 0, None) * (0.55 + 0.45 * (_noise(rng, 9, 2) > -0.3))
    depth = _shaded((38, 108, 150), 0.10 * _noise(rng, 40, 16))
    return _mixed(depth, (176, 220, 232), crest)


def _sand(rng: np.random.Generator) -> Array:
    y, x = np.mgrid[:SIDE, :SIDE]
    ripple = np.sin(2 * np.pi * ((y + 0.25 * x) / 21 + 0.35 * _noise(rng, 30, 20)))
    grain = 0.06 * rng.standard_normal((SIDE, SIDE))
    return _shaded((218, 186, 128), 0.055 * ripple + grain)


def _brick(rng: np.random.Generator) -> Array:
    y, x = np.mgrid[:SIDE, :SIDE]
    high, wide = 10, 22
    row = y // high
    along = x + (row % 2) * (wide // 2)
    shades = rng.normal(0, 0.11, (SIDE, SIDE))[row, along // wide]
    bricks = _shaded((168, 78, 56), shades + 0.04 * rng.standard_normal((SIDE, SIDE)))
    mortar = (y % high < 2) | (along % wide < 2)
    return _mixed(bricks, (206, 196, 182), mortar.astype(float))


def _wood(rng: np.random.Generator) -> Array:
    y = np.arange(SIDE)[:, None]
    high = 24
    plank = np.broadcast_to(y // high, (SIDE, SIDE))
    shades = rng.normal(0, 0.08, SIDE)[plank]
    rings = np.sin(2 * np.pi * (y / 7 + 0.8 * _noise(rng, 60, 5) + rng.uniform(0, 9, SIDE)[plank]))
    planks = _shaded((158, 106, 60), shades + 0.12 * rings + 0.05 * _noise(rng, 16, 0.6))
    return _mixed(planks, (62, 38, 22), np.broadcast_to((y % high < 2) * 0.9, (SIDE, SIDE)))


def _sky(rng: np.random.Generator) -> Array:
    blue = _shaded((92, 158, 226), 0.05 * _noise(rng, 60, 60))
    cloud = _noise(rng, 26, 11) + 0.35 * _noise(rng, 7, 5)
    return _mixed(blue, (246, 248, 250), (cloud - 0.35) * 0.9)


def _snow(rng: np.random.Generator) -> Array:
    drift = _mixed((234, 239, 247), (170, 192, 226), 0.30 + 0.36 * _noise(rng, 20, 8))
    glint = rng.random((SIDE, SIDE))
    drift[glint > 0.97] = (255, 255, 255)
    drift[glint < 0.02] = (160, 184, 218)
    return drift


def _gravel(rng: np.random.Generator) -> Array:
    image = Image.new("RGB", (SIDE, SIDE), (62, 60, 58))
    draw = ImageDraw.Draw(image)
    for _ in range(5200):
        x, y = rng.uniform(-4, SIDE + 4, 2)
        wide, high = rng.uniform(2.2, 4.6, 2)
        grey = rng.uniform(96, 198)
        fill = tuple(int(grey * t) for t in rng.normal((1.02, 1.0, 0.97), 0.025))
        box = (x - wide, y - high, x + wide, y + high)
        draw.ellipse(box, fill=fill, outline=(58, 56, 55))
    return np.asarray(image, float)


def _tile(rng: np.random.Generator) -> Array:
    y, x = np.mgrid[:SIDE, :SIDE]
    side = 16
    dark = ((x // side + y // side) % 2).astype(float)
    shades = rng.normal(0, 0.03, (SIDE, SIDE))[y // side, x // side]
    squares = _mixed((232, 228, 216), (84, 146, 140), dark) * (1 + shades[..., None])
    grout = (x % side == 0) | (y % side == 0)
    return _mixed(squares, (120, 118, 112), grout.astype(float))


def _straw(rng: np.random.Generator) -> Array:
    yellows = [(226, 192, 92), (206, 164, 66), (240, 214, 130), (182, 138, 52)]
    return _strokes(
        rng, (120, 84, 34), yellows, number=2600, length=(18, 42), angle=(-50, 50), width=2
    )


_DRAWN: dict[str, Callable[[np.random.Generator], Array]] = {
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "brick": _brick,
    "wood": _wood,
    "sky": _sky,
    "snow": _snow,
    "gravel": _gravel,
    "tile": _tile,
    "straw": _straw,
}
STUFFS = tuple(_DRAWN)


@functools.cache
def tile(stuff: str, variant: int) -> Image.Image:
    """A tile (SIDE, SIDE) RGB of a stuff; the same in every process.

    Raises:
        ValueError: If the stuff or the variant is unknown.
    """
    if stuff not in _DRAWN or not 0 <= variant < VARIANTS:
        raise ValueError(
            f"no variant {variant} of {stuff!r}: 0 to {VARIANTS - 1} of {', '.join(STUFFS)}"
        )
    rng = np.random.default_rng([_SEED, STUFFS.index(stuff), variant])
    return Image.fromarray(np.clip(_DRAWN[stuff](rng), 0, 255).astype(np.uint8))


@functools.cache
def _scaled(stuff: str, variant: int, size: int, scale: float) -> Array:
    """A tile enlarged for images of a size, kept because enlarging costs more than cutting."""
    side = max(size, round(SIDE * scale * size / WINDOW))
    return np.asarray(tile(stuff, variant).resize((side, side), Image.Resampling.BICUBIC))


def texture(stuff: str, size: int, rng: np.random.Generator) -> Array:
    """(size, size, 3) uint8: a part of a tile, enlarged or reduced by up to 1.3, tinted.

    Raises:
        ValueError: If the stuff is unknown.
    """
    variant, scale = int(rng.integers(VARIANTS)), _SCALES[rng.integers(len(_SCALES))]
    field = _scaled(stuff, variant, size, scale)
    top, left = rng.integers(0, len(field) - size + 1, 2)
    part = field[top : top + size, left : left + size]
    # In 128ths, whole numbers being several times as quick; the product fits into 16 bits.
    tint = np.rint(128 * rng.uniform(0.86, 1.12) * rng.uniform(0.95, 1.05, 3)).astype(np.uint16)
    return np.minimum((part * tint) >> 7, 255).astype(np.uint8)


@functools.cache
def _grain() -> Array:
    return np.random.default_rng([_SEED, 99]).standard_normal((512, 512, 3)).astype(np.float32)


def grain(size: int, rng: np.random.Generator) -> Array:
    """(size, size, 3) float32 pixel noise of unit variance, cut from one fixed field."""
    field = _grain()
    if size > len(field):
        return rng.standard_normal((size, size, 3), dtype=np.float32)
    top, left = rng.integers(0, len(field) - size + 1, 2)
    return field[top : top + size, left : left + size]
