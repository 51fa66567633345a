"""Configurations: plain dataclasses whose defaults are the paper's values.

A run is named by the hash of its configuration. A field that comes later is declared with
:func:`added`, so that the runs that were made before keep their names. What the paper leaves open
is marked D1 to D12; the book's page "What the paper leaves open" lists the choices.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DIRECTIONS = ("both", "image", "text")
MEASURES = ("dot", "cosine")
POSITIONS = ("antialiased", "plain")
BACKGROUND = "background"
PRECISIONS = ("float32", "bfloat16", "float16")


class LastBlock(NamedTuple):
    """The variant of a vision transformer's last block: which of its parts are computed (D1).

    Attributes:
        attention: Kind of attention, ``"trained"``, ``"self"``, ``"correlative"``, ``"queries"`` or
            ``"neighbours"``.
        residual: Whether the residual branch around the attention is kept.
        mlp: Whether the MLP, with its own residual branch, is kept.
    """

    attention: str
    residual: bool
    mlp: bool


#: Last blocks by name, from CLIP's own to those of methods that train nothing. They stand here,
#: where a configuration is read without open_clip; :mod:`mgca.backbone.last_block` computes them.
LAST_BLOCKS = {
    "attention": LastBlock("trained", True, True),
    "value": LastBlock("self", True, True),
    "value-bare": LastBlock("self", False, False),
    "sclip": LastBlock("correlative", True, True),
    "clearclip": LastBlock("queries", False, False),
    "naclip": LastBlock("neighbours", False, False),
}


def added(default: Any) -> Any:
    """A dataclass field that came later: at its default it is no part of a run's name.

    Give it a default that changes nothing, such as the weight 0.0 of a new term; the runs that were
    made before it then stay what they are.

    Args:
        default: Value of the field where none is given.
    """
    return field(default=default, metadata={"added": True})


def _choice(config: object, name: str, allowed: Iterable[str]) -> None:
    value = getattr(config, name)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _share(config: object, name: str, *, zero: bool = True) -> None:
    value = getattr(config, name)
    if not (0 <= value <= 1) or (value == 0 and not zero):
        raise ValueError(
            f"{name} is a share and must lie in {'[' if zero else '('}0, 1], not {value}"
        )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Base class of the settings of a training objective.

    Each objective derives a class of its own, by which ``mgca.losses.objective`` finds it.
    """


@dataclass(frozen=True, kw_only=True)
class LossConfig(ObjectiveConfig):
    """Settings of MGCA's objective (Eq. 3 to 8).

    Attributes:
        object: Weight of the object level (D8); 0 leaves the level out.
        region: Weight of the region level (D8); 0 leaves the level out.
        pixel: Weight of the pixel level (D8); 0 leaves the level out.
        alpha: Area of the object that a caption describes, as a share of the image. The paper's
            value is the average area of text-described regions in its training data.
        alpha_neg: Area of a hard negative region, as a share of the image.
        k: Rank of the semi-hard positive pixel, as a share of the object (D6).
        k_neg: Rank of the hard negative pixel, as a share of the object's area (D7).
        temperature: Temperature of the contrast at object and region level.
        measure: Similarity of pixels and texts in Eq. 2, ``"dot"`` or ``"cosine"`` (D3).
        detach_weights: Whether the gradient is stopped at the softmax over pixels (D4).
        direction: Direction of the cross-entropy, ``"both"``, ``"image"`` or ``"text"`` (D5).
    """

    object: float = 1.0
    region: float = 1.0
    pixel: float = 1.0
    alpha: float = 0.4
    alpha_neg: float = 0.05
    k: float = 0.06
    k_neg: float = 0.0
    temperature: float = 0.07
    measure: str = "dot"
    detach_weights: bool = False
    direction: str = "both"

    def __post_init__(self) -> None:
        weights = (self.object, self.region, self.pixel)
        if not (all(0 <= w < math.inf for w in weights) and any(weights)):
            raise ValueError("the weights of the levels must not be negative, nor all zero")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be positive, not {self.temperature}")
        _share(self, "alpha", zero=False)
        _share(self, "alpha_neg", zero=False)
        _share(self, "k")
        _share(self, "k_neg")
        _choice(self, "measure", MEASURES)
        _choice(self, "direction", DIRECTIONS)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run of the decoder.

    Attributes:
        backbone: Name of the frozen backbone.
        last_block: Variant of a ViT's last block, one of :data:`LAST_BLOCKS` (D1).
        upsample: The decoder's upsampling, ``"bilinear"`` or ``"nearest"`` (D2).
        loss: Settings of the objective, MGCA's or, for comparison, TCL's.
        captions: Which texts are drawn, ``"uniform"`` among the caption and those generated from
            its nouns, only the ``"original"`` or only the ``"nouns"`` (D10).
        names: Share of the texts drawn that name what the backbone's own classifier recognises
            in the image, in place of a caption. The paper has none (0).
        known: Similarity to one of an image's own texts above which another's text counts as known
            to describe the image, and is not its negative. The paper has none (None).
        hold_mean: Keep the mean pixel embedding where the frozen features have it: the mean change
            of a batch is taken out before the losses, that of the data out of the trained
            decoder. The paper does not (False).
        optimizer: Name of the optimizer, ``"adamw"`` (decoupled weight decay) or ``"adam"`` (D9).
        learning_rate: Highest learning rate, reached at the end of the warm-up.
        weight_decay: Weight decay of the optimizer.
        warmup: Share of the steps with a linearly rising rate; cosine decay follows.
        epochs: Passes over the data; ignored where ``steps`` is set.
        steps: Number of optimisation steps, or None for ``epochs``.
        batch_size: Number ``B`` of image-text pairs in a batch, over all processes together.
        precision: Number format of the decoder's convolutions, ``"float32"``, ``"bfloat16"`` or,
            on GPUs, ``"float16"``.
        seed: Seed of the order of the data and of the texts drawn.
        pretrained: Tag, or file, of the weights of an open_clip model; empty for the weights that
            the backbone comes with.
        origin: Digest of the checkpoint of another run that this one goes on from; empty for none.
        part: What is trained: the gated convolution ``"decoder"`` on the frozen dense features, or
            the ``"head"`` of ``lite``, its map into the joint space, on the frozen trunk's.
    """

    backbone: str = "vit-b-16"
    last_block: str = "value"
    upsample: str = "bilinear"
    loss: ObjectiveConfig = field(default_factory=LossConfig)
    captions: str = "uniform"
    names: float = 0.0
    known: float | None = None
    hold_mean: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup: float = 2 / 15
    epochs: float = 15
    steps: int | None = None
    batch_size: int = 1024
    precision: str = "float32"
    seed: int = 0
    pretrained: str = added("")
    origin: str = added("")
    part: str = added("decoder")

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError("contrastive training needs a batch of at least 2 image-text pairs")
        if not (0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf):
            raise ValueError("learning_rate must be positive and weight_decay not negative")
        if not 0 < self.epochs < math.inf or (self.steps is not None and self.steps < 1):
            raise ValueError("epochs and steps must be positive")
        _share(self, "warmup")
        _share(self, "names")
        if self.known is not None:
            _share(self, "known")
        _choice(self, "last_block", LAST_BLOCKS)
        _choice(self, "upsample", ("bilinear", "nearest"))
        _choice(self, "captions", ("uniform", "original", "nouns"))
        _choice(self, "optimizer", ("adamw", "adam"))
        _choice(self, "precision", PRECISIONS)
        _choice(self, "part", ("decoder", "head"))


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Settings of inference: the sliding window and the semantic units.

    Attributes:
        short_side: Shorter side, in pixels, that an image is resized to with its ratio kept.
        long_side: Longest side, in pixels, that the resized image may have; an image that would
            exceed it is made smaller.
        window: Side of the sliding window, in pixels of the resized image.
        stride: Step between windows, in pixels of the resized image.
        meta_points: Square number of meta-points per window, or None for the pixel unit.
        placement: Where meta-points lie in their cells, ``"centre"`` or ``"corner"`` (D11).
        average: Whether a unit averages the embeddings of its pixels as they are, ``"raw"``, or
            their directions, ``"normalised"`` (D12).
        blend: How windows that overlap are joined: ``"equal"``, their mean, as the paper's protocol
            and all published numbers have it, or ``"middle"``, weighted towards the middle of
            each, so that no label changes along a window's edge for that reason alone.
        resize: Bilinear filter that images are resized by: ``"pillow"``, its own, which averages
            where it shrinks, or ``"opencv"``, its own, which looks at four pixels.
        padding: Where a window is padded whose side is no multiple of the encoder's stride:
            ``"corner"``, at the bottom and right, or ``"centre"``, on both sides.
        positions: How positional embeddings are resized for another grid, bicubic both:
            ``"antialiased"``, as open_clip does, or ``"plain"``.
        affinity: Map that pixels are grouped in: the empty string for the pixel embeddings
            themselves, as the paper has it, or a name that
            :func:`mgca.backbone.affinity.affinity_of` knows.
        words: How several words make the score of one class: ``"largest"``, the largest of theirs,
            which serves words of one meaning and words of many things alike, or ``"mean"``, that of
            the mean of their embeddings.
        refine: ``"pamr"`` to let contours follow the image's own edges
            (:mod:`mgca.inference.refine`); empty for the scores as they are, as in every table.
    """

    short_side: int = 448
    long_side: int = 2048
    window: int = 448
    stride: int = 224
    meta_points: int | None = 36
    placement: str = "centre"
    average: str = "raw"
    blend: str = added("equal")
    resize: str = added("pillow")
    padding: str = added("corner")
    positions: str = added("antialiased")
    affinity: str = added("")
    words: str = added("largest")
    refine: str = added("")

    def __post_init__(self) -> None:
        if min(self.short_side, self.long_side, self.window, self.stride) < 1:
            raise ValueError("short_side, long_side, window and stride must be positive")
        if self.stride > self.window:
            raise ValueError("a stride longer than the window would leave pixels out")
        if self.meta_points is not None:
            grid_side(self.meta_points)
        _choice(self, "placement", ("centre", "corner"))
        _choice(self, "average", ("raw", "normalised"))
        _choice(self, "blend", ("equal", "middle"))
        _choice(self, "refine", ("", "pamr"))
        _choice(self, "resize", ("pillow", "opencv"))
        _choice(self, "padding", ("corner", "centre"))
        _choice(self, "positions", POSITIONS)
        _choice(self, "words", ("largest", "mean"))


def grid_side(meta_points: int) -> int:
    """The number of meta-points along each side of a square grid of ``meta_points``.

    Raises:
        ValueError: If the number is not a positive square.
    """
    # No float holds every square, nor every number that a user may write.
    whole = 0 < meta_points < math.inf and meta_points == int(meta_points)
    side = math.isqrt(int(meta_points)) if whole else 0
    if not whole or side * side != meta_points:
        raise ValueError(f"meta_points must be a square such as 16, 25 or 36, not {meta_points}")
    return side


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration, a dataclass or a dictionary, as plain JSON data.

    Fields declared with :func:`added` are left out where they have their default. A class that does
    not belong to this library adds its own name under ``"class"``: it means something else than the
    class it derives from, even with the same fields.
    """
    if isinstance(config, dict):
        return {key: _plain(value) for key, value in config.items()}
    values = {
        each.name: _plain(getattr(config, each.name))
        for each in dataclasses.fields(config)
        if not (each.metadata.get("added") and getattr(config, each.name) == each.default)
    }
    kind = type(config)
    ours = kind.__module__.split(".")[0] == __name__.split(".")[0]
    return values if ours else values | {"class": kind.__name__}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) or isinstance(value, dict):
        return to_dict(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def config_hash(config: Any) -> str:
    """The name of a run: 12 hexadecimal digits of the configuration's SHA-256."""
    text = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
