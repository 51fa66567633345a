"""The grids behind the tables: the variants of each ablation, and the runs of each variant."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from mgca.config import SegmentConfig, TrainConfig, config_hash, to_dict
from mgca.experiments.scale import Scale
from mgca.losses.head import HeadConfig
from mgca.losses.tcl import TCLConfig

ABLATIONS = ("granularity", "areas", "k", "meta_points", "choices", "benchmarks", "main")
UNITS = (None, 36)
META_POINTS = (None, 16, 25, 36, 49, 64, 81, 121)
ALPHA = (0.05, 0.1, 0.2, 0.4, 0.8)
ALPHA_NEG = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
K = (0.0, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
K_NEG = (0.0, 0.06, 0.25, 1.0)
# What the paper leaves open: D2, D9 and D10; D3, D4 and D5; D11 and D12.
TRAINING_CHOICES = (
    ("upsample", "nearest"),
    ("optimizer", "adam"),
    ("captions", "original"),
    ("captions", "nouns"),
)
LOSS_CHOICES = (
    ("measure", "cosine"),
    ("detach_weights", True),
    ("direction", "image"),
    ("direction", "text"),
)
UNIT_CHOICES = (("placement", "corner"), ("average", "normalised"))


@dataclass(frozen=True)
class Variant:
    """A line of an ablation's table.

    Attributes:
        name: Name of the variant, unique within the ablation.
        train: The decoder's training, whatever its seed; None for no decoder.
        last_block: Variant of the backbone's last block.
        units: Numbers of meta-points that the table shows, None for the pixel unit.
        segment: Values, by name, that differ from the scale's way of segmenting.
    """

    name: str
    train: TrainConfig | None
    last_block: str
    units: tuple[int | None, ...] = UNITS
    segment: tuple[tuple[str, str], ...] = ()

    def segmenting(self, scale: Scale) -> SegmentConfig:
        """Settings of inference with which the variant segments at a scale."""
        return dataclasses.replace(scale.segment(), **dict(self.segment))

    def trained_with(self, seed: int) -> TrainConfig | None:
        """The decoder's training with a seed."""
        return self.train and dataclasses.replace(self.train, seed=seed)

    def config(self, scale: Scale, seed: int) -> dict[str, Any]:
        """Everything that the variant's numbers depend on at a scale."""
        training = self.trained_with(seed)
        return {
            "scale": scale.name,
            "seed": seed,
            "train": to_dict(training) if training else None,
            "last_block": self.last_block,
            "segment": to_dict(self.segmenting(scale)),
            "sets": list(scale.datasets),
            "settings": scale.settings,
        }

    def run(self, scale: Scale, seed: int) -> str:
        """Name of the run behind the variant; equal configurations are one run."""
        return config_hash(self.config(scale, seed))


def grid(ablation: str, scale: Scale) -> list[Variant]:
    """The variants of an ablation. The scale's own values are among those of each parameter.

    Args:
        ablation: Name of the ablation: ``"granularity"`` (Table 3), ``"areas"`` and ``"k"``
            (Fig. 7), ``"meta_points"`` (Table 4), ``"choices"``, another value of each choice that
            the paper leaves open and no other ablation varies, ``"benchmarks"``, every method that
            can be run at the scale, or ``"main"``, the decoder beside what it is trained on.

    Raises:
        ValueError: If there is no such ablation.
    """
    full = scale.training
    full_loss, block = full.loss, full.last_block

    def variant(
        name: str,
        units: tuple[int | None, ...] = UNITS,
        block: str = block,
        **loss: float | str | bool,
    ) -> Variant:
        loss = dataclasses.replace(full_loss, **loss)
        return Variant(name, dataclasses.replace(full, loss=loss, last_block=block), block, units)

    def frozen(name: str) -> list[Variant]:
        """Dense features as the network was trained with, and as the decoder is trained on."""
        blocks = {scale.baseline_block: name}
        blocks.setdefault(block, "maskclip")
        return [Variant(name, None, block) for block, name in blocks.items()]

    if ablation == "main":
        trained = {"mgca": full, "decoder": scale.decoder}
        return [
            *frozen(scale.plain),
            *(Variant(name, t, block) for name, t in trained.items() if t),
        ]
    if ablation == "granularity":
        none = {"object": 0.0, "region": 0.0, "pixel": 0.0}
        return [
            *frozen("baseline"),
            *([variant("image", **none, image=1.0)] if isinstance(full_loss, HeadConfig) else []),
            variant("object", region=0.0, pixel=0.0),
            variant("region", object=0.0, pixel=0.0),
            variant("pixel", object=0.0, region=0.0),
            variant("object+region", pixel=0.0),
            variant("all"),
        ]
    if ablation == "areas":
        negative = sorted({*ALPHA_NEG, full_loss.alpha_neg})
        return [
            *(variant(f"alpha_neg={a:g}", alpha_neg=a) for a in negative),
            *(variant(f"alpha_neg={a:g},no pixel", alpha_neg=a, pixel=0.0) for a in negative),
            *(variant(f"alpha={a:g}", alpha=a) for a in sorted({*ALPHA, full_loss.alpha})),
        ]
    if ablation == "k":
        return [
            *(variant(f"k={k:g}", k=k) for k in sorted({*K, full_loss.k})),
            *(variant(f"k_neg={k:g}", k_neg=k) for k in sorted({*K_NEG, full_loss.k_neg})),
        ]
    if ablation == "meta_points":
        return [variant("all", META_POINTS)]
    if ablation == "choices":
        return [
            variant("chosen"),
            *(
                Variant(f"{name}={value}", dataclasses.replace(full, **{name: value}), block)
                for name, value in TRAINING_CHOICES
            ),
            *(variant(f"{name}={value}", **{name: value}) for name, value in LOSS_CHOICES),
            *(
                Variant(f"{name}={value}", full, block, segment=((name, value),))
                for name, value in UNIT_CHOICES
            ),
        ]
    if ablation == "benchmarks":
        other = [name for name, own_block in scale.frozen.items() if own_block != block]
        return [
            *(Variant(name, None, block) for name, block in scale.frozen.items()),
            Variant("tcl", tcl_training(full), block),
            variant("mgca"),
            *(variant(f"{name}+mgca", block=scale.frozen[name]) for name in other),
        ]
    raise ValueError(f"unknown ablation {ablation!r}, only {', '.join(ABLATIONS)}")


def tcl_training(training: TrainConfig, **values: float) -> TrainConfig:
    """A training that differs from the given one in its objective alone.

    Backbone, decoder, texts, batch, steps, rate and seed stay; so do the pairs known to match,
    which are no negatives of TCL either, and a held mean.

    Args:
        training: Training of a scale, such as ``load_scale("scenes").training``.
        values: Fields of :class:`TCLConfig` with values other than the published ones.

    Raises:
        ValueError: If a value is out of range.
    """
    return dataclasses.replace(training, loss=TCLConfig(**values))


def published_name(variant: Variant, scale: Scale) -> str:
    """Name of a variant's weights among those that come with the project."""
    return f"{scale.training.backbone}-{'mgca' if variant.name == 'all' else variant.name}"
