"""Scales: the same method at sizes that fit what is at hand.

A scale says what an experiment trains on and is evaluated on. ``"scenes"`` and ``"photos"`` run on
two cores; ``"paper"`` is the publication's own, on what a configuration names.
"""

import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mgca.backbone import Backbone, load_backbone
from mgca.config import SegmentConfig, TrainConfig
from mgca.data.masks import MaskedSet
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.evaluate import IMAGES, measure
from mgca.experiments.fanout import Jobs
from mgca.inference.scoring import Rule, rules
from mgca.inference.segmenter import Embedded
from mgca.model import Model
from mgca.training.sources import Source
from mgca.training.trainer import Trainer
from mgca.utils.files import replacing
from mgca.weights import read_tensors
from mgca.weights.decoders import decoder_from, learned_sigmoid

if TYPE_CHECKING:
    from mgca.experiments.grid import Variant


class NotRun(ValueError):
    """An experiment that this project does not run; the message says what it would take."""


class Scale(ABC):
    """The scale of an experiment: its backbone, training data and evaluation sets.

    Instances travel to worker processes: they hold names and folders, and read data when asked.

    Attributes:
        name: Name of the scale, and of its folder under ``results``.
        training: The published configuration of the full objective, with seed 0.
        datasets: Names of the sets with masks that a table is of.
        plain: Name of the dense features without a decoder in the table ``main``.
        groups: The sets over which a table gives a mean, by its heading.
        frozen: ``last_block`` of the methods that train nothing, by their names, ``"clip"`` among
            them.
        settings: JSON data of whatever else results depend on: part of a run's name.
        cache: Folder of features.
        decoder: Training of a decoder on top of what ``training`` trains, for the table ``main``;
            None where that is the decoder.
        note: What has to be said beside every number; empty for nothing.
        places: Folders of results and of unfinished work, by the names that
            :func:`mgca.experiments.runner.run_ablations` has for them; empty: those of the clone.
        jobs: Where runs are computed; None: as the caller says.
        threads: Number of threads that a run computes with; last bits depend on it.
        synonyms: Another word for each of some classes, for the table of the protocol.
    """

    name: str
    training: TrainConfig
    datasets: tuple[str, ...]
    plain: str = "clip"
    groups: dict[str, tuple[str, ...]]
    frozen: dict[str, str]
    settings: dict[str, Any]
    cache: Path
    decoder: TrainConfig | None = None
    note: str = ""
    places: Mapping[str, Path] = {}
    jobs: Jobs | None = None
    threads: int = 1
    synonyms: Mapping[str, str] = {}

    @property
    def baseline_block(self) -> str:
        """``last_block`` of the dense features that the network was trained with.

        It is ``training.last_block`` where the backbone has no last attention block.
        """
        return self.frozen["clip"]

    @abstractmethod
    def prepare(self, blocks: Mapping[str, bool]) -> None:
        """Compute and keep what runs share, so that workers find it.

        Args:
            blocks: The last blocks in use, and whether a decoder is trained on each.

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
    def data(self, backbone: Backbone) -> Source:
        """The data that the decoder trains on."""

    @abstractmethod
    def sets(self, names: Sequence[str] = ()) -> list[MaskedSet]:
        """Sets with masks by their names, in this order; those of ``datasets`` where empty."""

    @abstractmethod
    def digests(self, names: Sequence[str] = ()) -> dict[str, str]:
        """Digest of the manifest of the training data and of each of the sets, for provenance."""

    def present(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the sets that are at hand: numbers of the others are not expected."""
        return tuple(names)

    def run_folder(self, work: Path, variant: "Variant", seed: int) -> Path:
        """Folder below ``work`` of a run's decoder, checkpoints and whatever else it leaves."""
        return work / variant.run(self, seed)

    def join(self, variant: "Variant", seed: int, folder: Path) -> None:  # noqa: B027
        """Have other processes compute a run, where the scale has several for each.

        What they have computed lies in the folder, and :meth:`trained` and :meth:`measured` then
        find it there.
        """

    def trained(
        self, config: TrainConfig, backbone: Backbone, folder: Path
    ) -> tuple[GatedConvDecoder | None, dict[str, Rule]]:
        """The decoder kept in a folder, or else trained, or trained further, and its rules.

        None in its place where a variant trains a part of the backbone, which then has it.
        """
        path, decoder = folder / "decoder.safetensors", None
        if not path.is_file():
            decoder = self.trainer(config, backbone).run(folder)
            # Three times the size of the decoder, and of no use to a run that has ended.
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        state, meta = read_tensors(path)
        return decoder or decoder_from(state, meta, backbone), rules(learned_sigmoid(meta))

    def trainer(self, config: TrainConfig, backbone: Backbone) -> Trainer:
        """The training run of a decoder."""
        return Trainer(config, backbone, self.data(backbone))

    def measured(
        self,
        model: Model,
        names: Sequence[str],
        units: Sequence[int | None],
        background: dict[str, float],
        folder: Path,
    ) -> list[dict[str, Any]]:
        """All metrics of a model on sets, as :func:`mgca.evaluation.evaluate.measure` gives them.

        Args:
            model: Model to be measured.
            names: Names of the sets.
            units: Numbers of meta-points, None for the pixel unit.
            background: What :meth:`background` says of the model.
            folder: Folder of the run.
        """
        sets = self.sets(names)
        left = Counter(data.source for data in sets)
        embeddings: dict[tuple[str, str], Embedded] = {}
        rows: list[dict[str, Any]] = []
        images: dict[str, np.ndarray] = {}
        for data in sets:
            rows += measure(
                model,
                data,
                units,
                background=background,
                features=self.cache,
                kept=embeddings if embeddings or left[data.source] > 1 else None,
                images=images,
            )
            left[data.source] -= 1
            if not left[data.source]:
                embeddings.clear()
        with replacing(folder / IMAGES) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{key: t.astype(np.int32) for key, t in images.items()})
        return rows

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
