"""Captions of scenes as those of the web are: true but for a few slips, and far from complete."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mgca.data.scenes.scene import HELD_OUT, Content, Scene, WorldConfig
from mgca.data.scenes.shapes import THINGS
from mgca.data.scenes.textures import STUFFS

STUFF_RATE = 0.75  # of the probability of a thing of the same area
NAMED_AREA = 0.10  # share of the image at which a thing is named with a probability of 63 %
SMALL, LARGE = 0.05, 0.16  # visible areas from which on a thing is called so
APART = 0.15  # share of the image's side by which centres differ to be left, right, above, below

_PLACES = {
    "grass": "on",
    "water": "on",
    "sand": "on",
    "brick": "in front of",
    "wood": "on",
    "sky": "in",
    "snow": "in",
    "gravel": "on",
    "tile": "on",
    "straw": "on",
}


@dataclass(frozen=True)
class Sentence:
    """A caption and what it truly names.

    Attributes:
        text: The sentence itself.
        contents: Positions in the scene's ``contents`` of what it names by the right word.
        wrong: How many of its names are of things or stuffs that are not in the scene.
    """

    text: str
    contents: tuple[int, ...]
    wrong: int


def captions(
    config: WorldConfig, scene: Scene, rng: np.random.Generator, count: int = 2
) -> list[str]:
    """Captions of a scene, drawn independently; see :func:`sentences`.

    Raises:
        ValueError: If ``count`` is below 1, or nothing in the scene is visible.
    """
    return [sentence.text for sentence in sentences(config, scene, rng, count)]


def sentences(
    config: WorldConfig, scene: Scene, rng: np.random.Generator, count: int = 2
) -> list[Sentence]:
    """Captions of a scene with what they name.

    What is visible is named with a probability that grows with its area; at least one content is.
    What a sentence says of places, colours and sizes is true, but for the rare wrong word.

    Raises:
        ValueError: If ``count`` is below 1, or nothing in the scene is visible.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1")
    return [_sentence(config, scene, rng) for _ in range(count)]


def relation(one: Content, other: Content) -> str:
    """Where one content lies from another: by the centres of what is visible of them."""
    across, down = one.x - other.x, one.y - other.y
    if max(abs(across), abs(down)) < APART:
        return "next to"
    if abs(across) > abs(down):
        return "left of" if across < 0 else "right of"
    return "above" if down < 0 else "below"


def _sentence(config: WorldConfig, scene: Scene, rng: np.random.Generator) -> Sentence:
    chosen = _choose(config, scene, rng)
    spoken, wrong = {}, set()
    for k in chosen:
        content = scene.contents[k]
        name = content.name
        if rng.random() < config.wrong:
            name = _wrong_name(config, scene, content, rng)
            wrong |= {k} if name != content.name else set()
        spoken[k] = _Named(content, name, _attributes(config, content, rng))
    things = [spoken[k] for k in chosen if scene.contents[k].colour is not None]
    stuffs = [spoken[k] for k in chosen if scene.contents[k].colour is None]
    order = rng.permutation(len(things))
    patterns = _patterns(len(things), len(stuffs))
    text = patterns[rng.integers(len(patterns))]([things[k] for k in order], stuffs, rng)
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:] + "."
    return Sentence(text, tuple(k for k in chosen if k not in wrong), len(wrong))


def _choose(config: WorldConfig, scene: Scene, rng: np.random.Generator) -> list[int]:
    """Positions of the contents to be named."""
    areas = np.array([content.area for content in scene.contents])
    areas[areas < config.visible] = 0
    if not areas.any():
        raise ValueError("nothing in the scene is visible")
    rates = 1 - np.exp(-((areas / NAMED_AREA) ** 1.5))
    rates[: len(scene.stuffs)] *= STUFF_RATE
    chosen = np.flatnonzero(rng.random(len(areas)) < rates)
    if not len(chosen):
        chosen = [rng.choice(len(areas), p=areas / areas.sum())]
    return [int(k) for k in chosen]


def _wrong_name(
    config: WorldConfig, scene: Scene, content: Content, rng: np.random.Generator
) -> str:
    """Another of the same kind that is not in the scene and may have the content's colour.

    The right one if there is no other.
    """
    present = {content.name for content in scene.contents}
    if content.colour is None:
        others = [name for name in STUFFS if name not in present]
    else:
        others = [
            name
            for name in THINGS
            if name not in present and (content.colour in HELD_OUT[name]) == config.held_out
        ]
        others = others or [content.name]
    return others[rng.integers(len(others))]


@dataclass(frozen=True)
class _Named:
    """A content with the words for it."""

    content: Content
    name: str
    attributes: str

    @property
    def bare(self) -> str:
        return f"{self.attributes} {self.name}".strip()

    @property
    def a(self) -> str:
        return f"{'an' if self.bare[0] in 'aeiou' else 'a'} {self.bare}"


def _attributes(config: WorldConfig, content: Content, rng: np.random.Generator) -> str:
    if content.colour is None:
        return ""
    words = []
    remarkable = not SMALL < content.area < LARGE
    if remarkable and rng.random() < config.attributes:
        words.append("small" if content.area <= SMALL else "large")
    if rng.random() < config.attributes:
        words.append(content.colour)
    return " ".join(words)


_Pattern = Callable[[list[_Named], list[_Named], np.random.Generator], str]


def _list(phrases: list[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _all(named: list[_Named]) -> str:
    return _list([one.a for one in named])


def _names(stuffs: list[_Named]) -> str:
    return _list([one.name for one in stuffs])


def _is(things: list[_Named]) -> str:
    return "is" if len(things) == 1 else "are"


def _where(things: list[_Named], stuffs: list[_Named], rng: np.random.Generator) -> str:
    """``"on the grass"`` if all the things are, else nothing stronger than ``"by the grass"``."""
    phrases = []
    for stuff in stuffs:
        article = "the " if stuff.name == "sky" or rng.random() < 0.4 else ""
        inside = all(thing.content.on == stuff.content.name for thing in things)
        near = "under" if stuff.content.name == "sky" else ("by", "near")[rng.integers(2)]
        phrases.append(f"{_PLACES[stuff.content.name] if inside else near} {article}{stuff.name}")
    return " and ".join(phrases)


def _related(things: list[_Named], rng: np.random.Generator) -> str:
    """Two things and how they lie; what further there is, after that."""
    one, other, *more = things
    article = "the" if rng.random() < 0.5 else "a"
    second = f"the {other.bare}" if article == "the" else other.a
    text = f"{one.a} {relation(one.content, other.content)} {second}"
    return f"{text}, with {_all(more)}" if more else text


_ONLY_THINGS: list[_Pattern] = [
    lambda t, s, rng: _all(t),
    lambda t, s, rng: f"a photo of {_all(t)}",
    lambda t, s, rng: f"there {_is(t)} {_all(t)}",
    lambda t, s, rng: f"a picture with {_all(t)}",
    lambda t, s, rng: f"this is {_all(t)}",
    lambda t, s, rng: f"we can see {_all(t)} here",
    lambda t, s, rng: f"look at the {_list([one.bare for one in t])}",
]
_ONLY_STUFFS: list[_Pattern] = [
    lambda t, s, rng: f"a photo of {_names(s)}",
    lambda t, s, rng: f"a view of the {_names(s)}",
    lambda t, s, rng: f"some {_names(s)}",
    lambda t, s, rng: f"here we see {_names(s)}",
]
_BOTH: list[_Pattern] = [
    lambda t, s, rng: f"{_all(t)} {_where(t, s, rng)}",
    lambda t, s, rng: f"a photo of {_all(t)} {_where(t, s, rng)}",
    lambda t, s, rng: f"there {_is(t)} {_all(t)} {_where(t, s, rng)}",
    lambda t, s, rng: f"{_where(t, s, rng)} there {_is(t)} {_all(t)}",
    lambda t, s, rng: f"{_names(s)} with {_all(t)}",
    lambda t, s, rng: f"some {_names(s)} and {_all(t)}",
    lambda t, s, rng: f"a view of the {_names(s)} with {_all(t)}",
    lambda t, s, rng: f"a picture of {_all(t)} with {_names(s)} around",
    lambda t, s, rng: f"we saw {_all(t)} {_where(t, s, rng)}",
    lambda t, s, rng: f"the {_list([one.bare for one in t])} {_where(t, s, rng)}",
]
_TWO: list[_Pattern] = [
    lambda t, s, rng: _related(t, rng),
    lambda t, s, rng: f"a photo of {_related(t, rng)}",
    lambda t, s, rng: f"there is {_related(t, rng)}",
]
_TWO_AND_STUFF: list[_Pattern] = [
    lambda t, s, rng: f"{_related(t, rng)} {_where(t, s, rng)}",
    lambda t, s, rng: f"{_names(s)}, and {_related(t, rng)}",
    lambda t, s, rng: f"{_where(t, s, rng)} there is {_related(t, rng)}",
]


def _patterns(things: int, stuffs: int) -> list[_Pattern]:
    if not things:
        return _ONLY_STUFFS
    if not stuffs:
        return _ONLY_THINGS + (_TWO * 2 if things > 1 else [])
    return _BOTH + (_TWO_AND_STUFF * 2 if things > 1 else [])
