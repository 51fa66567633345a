"""The knobs of the protocol: what of an evaluation may be turned while its method stays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mgca.config import SegmentConfig
from mgca.evaluation.conventions import TCL_PROTOCOL
from mgca.prompts import CLIP_TEMPLATES

USUAL = "usual"  # the value that a knob has in the published tables


@dataclass(frozen=True)
class Turn:
    """A knob at another value than the usual one.

    Attributes:
        knob: Name of the knob.
        value: Name of the value.
        segment: Fields of :class:`mgca.config.SegmentConfig` that differ.
        templates: Templates of class names; None for the usual ones.
        statistics: Statistics of pixels, ``"imagenet"``; None for the encoder's own.
        synonyms: Whether each class is also asked for by the scale's other word for it.
        background: Threshold, of sets with a background; None for the scale's own.
        against: Value of the turn before it that it is compared with.
    """

    knob: str
    value: str
    segment: Mapping[str, Any] = field(default_factory=dict)
    templates: tuple[str, ...] | None = None
    statistics: str | None = None
    synonyms: bool = False
    background: float | None = None
    against: str = USUAL


def turns(usual: SegmentConfig) -> list[Turn]:
    """The knobs, each at its other values; units are measured with each of them."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    eighty = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    side, window = usual.short_side, usual.window
    larger = {"short_side": side * 3 // 2}
    # A size at which an image is resized and padded, and positions are interpolated.
    smaller, size = {"short_side": side * 2 // 3, "window": side * 2 // 3}, f"{side * 2 // 3}"
    smaller["stride"] = smaller["window"] // 2
    return [
        Turn("templates", "1", templates=("a photo of a {}.",)),
        Turn("templates", "7", templates=CLIP_TEMPLATES),
        Turn("templates", "80", templates=eighty),
        Turn("class names", "synonyms, largest", synonyms=True),
        Turn("class names", "synonyms, mean", {"words": "mean"}, synonyms=True),
        Turn("statistics", "imagenet", statistics="imagenet"),
        Turn("shorter side", f"{side * 3 // 2}", larger),
        Turn("shorter side", f"{side // 2}", {"short_side": side // 2}),
        Turn("windows", f"{window // 2}, stride {window // 4}",
             {"window": window // 2, "stride": window // 4}),
        Turn("joining of windows", "middle", {"blend": "middle"}),
        Turn("size", size, smaller),
        *(
            Turn(name, value, {**smaller, name: value}, against=size)
            for name, value in TCL_PROTOCOL.items()
        ),
        Turn("average", "normalised", {"average": "normalised"}),
        Turn("placement", "corner", {"placement": "corner"}),
        Turn("affinity", "early", {"affinity": "early"}),
        Turn("refinement", "pamr", {"refine": "pamr"}),
        *(Turn("threshold", f"{t:g}", background=t) for t in (0.0, 0.25, 0.75, 0.9)),
    ]  # fmt: skip


def turned_alone(usual: SegmentConfig, without: Sequence[str] = ()) -> list[Turn]:
    """The usual values, then all knobs at all their others, less those that are left alone.

    Raises:
        ValueError: If there is no such knob, or others are compared with it.
    """
    turned = turns(usual)
    known = dict.fromkeys(turn.knob for turn in turned)
    if unknown := set(without) - set(known):
        raise ValueError(f"no such knob: {', '.join(sorted(unknown))}; only {', '.join(known)}")
    every = [Turn(USUAL, USUAL), *(turn for turn in turned if turn.knob not in without)]
    values = {turn.value for turn in every}
    if alone := sorted({turn.against for turn in every} - values):
        raise ValueError(f"others are compared with {', '.join(alone)}: leave that in, too")
    return every
