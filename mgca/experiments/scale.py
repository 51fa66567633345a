"""Scales: the same method at sizes that fit what is at hand.

A scale says what an experiment trains on and is evaluated on. ``"scenes"`` and ``"photos"`` run on
two cores; ``"paper"`` is the publication's own and is not run here.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgca.backbone import Backbone, load_backbone
from mgca.config import SegmentConfig, TrainConfig
from mgca.data.masks import MaskedSet
from mgca.model import Model
from mgca.training.sources import Cached


class NotRun(ValueError):
    """An experiment that this project does not run; the message says what it would take."""


class Scale(ABC):
    """The scale of an experiment: its backbone, training data and evaluation sets.

    Instances travel to worker processes: they hold names and folders, and read data when asked.

    Attributes:
        name: Name of the scale, and of its folder under ``results``.
        training: The published configuration of the full objective, with seed 0.
        datasets: Names of the sets with masks that a table is of.
        main: Names of the sets that the table ``main`` is of; those of ``datasets`` where empty.
        plain: Name of the dense features without a decoder in the table ``main``.
        groups: The sets over which a table gives a mean, by its heading.
        frozen: ``last_block`` of the methods that train nothing, by their names, ``"clip"`` among
            them.
        settings: JSON data of whatever else results depend on: part of a run's name.
        cache: Folder of features.
    """

    name: str
    training: TrainConfig
    datasets: tuple[str, ...]
    main: tuple[str, ...] = ()
    plain: str = "clip"
    groups: dict[str, tuple[str, ...]]
    frozen: dict[str, str]
    settings: dict[str, Any]
    cache: Path

    @property
    def baseline_block(self) -> str:
        """``last_block`` of the dense features that the network was trained with.

        It is ``training.last_block`` where the backbone has no last attention block.
        """
        return self.frozen["clip"]

    @abstractmethod
    def prepare(self, blocks: Mapping[str, bool], names: Sequence[str] = ()) -> None:
        """Compute and keep what runs share, so that workers find it.

        Args:
            blocks: The last blocks in use, and whether a decoder is trained on each.
            names: The sets that are evaluated on; those of ``datasets`` where empty.

        Raises:
            FileNotFoundError: If data is missing.
        """

    @abstractmethod
    def backbone(self, seed: int, last_block: str = "value") -> Backbone:
        """The frozen backbone of a seed.

        Raises:
            ValueError: If it has no such last block.
        """

    @abstractmethod
    def data(self, backbone: Backbone) -> Cached:
        """The data that the decoder trains on."""

    @abstractmethod
    def sets(self, names: Sequence[str] = ()) -> list[MaskedSet]:
        """Sets with masks by their names, in this order; those of ``datasets`` where empty."""

    @abstractmethod
    def digests(self, names: Sequence[str] = ()) -> dict[str, str]:
        """Digest of the manifest of the training data and of each of the sets, for provenance."""

    def encoder_measured(self, seed: int) -> dict[str, float]:
        """Measures of the encoder of a seed, by name, where each seed trains one; else none."""
        return {}

    def segment(self) -> SegmentConfig:
        """Windows and units of the evaluation; the paper's by default."""
        return SegmentConfig()

    @abstractmethod
    def background(self, model: Model) -> dict[str, float]:
        """Threshold and temperature of a model for the sets with a background class.

        Returns:
            ``"background"`` and ``"temperature"`` as :func:`mgca.evaluation.evaluate.evaluate`
            takes them.
        """

    @abstractmethod
    def calibration(self) -> MaskedSet:
        """A set with background to choose threshold and temperature on; no result is of it."""

    def published_backbone(self) -> Backbone:
        """The backbone of the decoder that comes with the project."""
        return load_backbone(self.training.backbone)
