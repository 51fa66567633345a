"""Scales: the same method at sizes that fit what is at hand.

A scale says what an experiment trains on and is evaluated on. ``"scenes"`` and ``"photos"`` run on
two cores; ``"paper"`` is the publication's own and is not run here.
"""

import dataclasses
import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgca import photos
from mgca.backbone import Backbone, load_backbone
from mgca.backbone.lite import Lite
from mgca.config import SegmentConfig, TrainConfig, config_hash, to_dict
from mgca.data.masks import MaskedSet, data_root, load_masked
from mgca.evaluation.evaluate import evaluate
from mgca.model import Model
from mgca.training.alignment import AlignConfig, save_alignment
from mgca.training.train import TrainingData
from mgca.utils.files import cache_folder, file_digest
from mgca.weights import read_tensors


class NotRun(ValueError):
    """An experiment that this project does not run; the message says what it would take."""


class Scale(ABC):
    """Backbone, training data and evaluation sets of an experiment.

    Instances travel to worker processes: they hold names and folders, and read data when asked.

    Attributes:
        name: Of the folder under ``results``.
        training: The published configuration of the full objective, with seed 0.
        datasets: Names of the sets with masks.
        groups: The sets over which a table gives a mean, by its heading.
        frozen: ``last_block`` of the methods that train nothing, by their names, ``"clip"`` among
            them.
        settings: Whatever else results depend on, as JSON data: part of a run's name.
        cache: Folder of features.
    """

    name: str
    training: TrainConfig
    datasets: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    frozen: dict[str, str]
    settings: dict[str, Any]
    cache: Path

    @property
    def baseline_block(self) -> str:
        """``last_block`` of the dense features that the network was trained with;
        ``training.last_block`` where the backbone has no last attention block."""
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
    def data(self, backbone: Backbone) -> TrainingData:
        """What the decoder trains on."""

    @abstractmethod
    def sets(self) -> list[MaskedSet]:
        """The sets with masks, in the order of ``datasets``."""

    @abstractmethod
    def digests(self) -> dict[str, str]:
        """Digest of the manifest of each data set, for provenance."""

    def segment(self) -> SegmentConfig:
        """Windows and units of the evaluation; the paper's by default."""
        return SegmentConfig()

    @abstractmethod
    def background(self, model: Model) -> dict[str, float]:
        """Threshold and temperature of a model for the sets with a background class.

        Returns:
            ``"background"`` and ``"temperature"`` as :func:`mgca.evaluation.evaluate.evaluate` takes them.
        """

    @abstractmethod
    def calibration(self) -> MaskedSet:
        """A set with background to choose threshold and temperature on; no result is of it."""

    def published_backbone(self) -> Backbone:
        """The backbone of the decoder that comes with the project."""
        return load_backbone(self.training.backbone)


class PhotosScale(Scale):
    """Real photographs: ``lite`` with an alignment of each seed's own, captions of Flickr8k.

    ``voc20`` and ``coco80`` are the images of ``voc21`` and ``coco81`` with the background ignored.

    Args:
        data: Folder of the data sets, as in :func:`mgca.data.masks.data_root`.
        cache: Folder of features, as in :func:`mgca.utils.files.cache_folder`.
    """

    name = "photos"
    datasets = ("voc21", "voc20", "coco81", "coco80", "camvid")
    groups = {
        "with background": ("voc21", "coco81"),
        "without background": ("voc20", "coco80", "camvid"),
    }
    # The tower is convolutional: there is no last attention block to change.
    frozen = {"clip": "value"}
    # Chosen on the calibration set: results/photos/background.csv.
    threshold, temperature = 0.53, 0.03

    def __init__(
        self, data: str | os.PathLike | None = None, cache: str | os.PathLike | None = None
    ) -> None:
        self.training = photos.photos_training()
        self.settings = {
            "align": to_dict(AlignConfig()),
            "background": [self.threshold, self.temperature],
        }
        self.cache = cache_folder(cache).resolve()
        root = data_root(data)
        self._root = root.resolve() if root else None

    @property
    def root(self) -> Path:
        """Folder of the data sets.

        Raises:
            FileNotFoundError: If there is none.
        """
        if self._root is None:
            raise FileNotFoundError("the photos scale needs its data sets: set MGCA_DATA")
        return self._root

    def prepare(self, blocks: Mapping[str, bool]) -> None:
        _corpus(self.root, self.cache)
        model = Model(Lite(pretrained=False), config=self.segment())
        for data in self.sets():
            evaluate(model, data, units=(), features=self.cache, background=self.threshold)

    def backbone(self, seed: int, last_block: str = "value") -> Lite:
        if last_block != "value":
            raise ValueError(f"lite has no last attention block to use as {last_block!r}")
        config = dataclasses.replace(AlignConfig(), seed=seed)
        key = config_hash({"align": to_dict(config), "captions": self._captions_digest()})
        path = self.cache / f"alignment-{key}.safetensors"
        backbone = Lite(pretrained=False)
        if not path.is_file():
            photos.align(config, backbone, _corpus(self.root, self.cache))
            save_alignment(path, backbone, run=key)
        state, meta = read_tensors(path)
        backbone.set_alignment(state["weight"], state["bias"], state["text_centre"])
        backbone.temperature = float(meta["temperature"])
        return backbone

    def data(self, backbone: Lite) -> TrainingData:
        return photos.training_data(backbone, _corpus(self.root, self.cache))

    def sets(self) -> list[MaskedSet]:
        voc21, coco81 = (load_masked(name, self.root) for name in ("voc21", "coco81"))
        return [
            voc21,
            voc21.without_background("voc20"),
            coco81,
            coco81.without_background("coco80"),
            load_masked("camvid", self.root),
        ]

    def calibration(self) -> MaskedSet:
        return load_masked("voc21-extra", self.root)

    def background(self, model: Model) -> dict[str, float]:
        return {"background": self.threshold, "temperature": self.temperature}

    def digests(self) -> dict[str, str]:
        masks = {data.name: data.digest for data in self.sets()}
        return {"flickr8k": self._captions_digest()} | masks

    def _captions_digest(self) -> str:
        return file_digest(self.root / "flickr8k" / "captions_train.tsv")


@functools.lru_cache(maxsize=1)
def _corpus(root: Path, cache: Path) -> photos.Corpus:
    """Read once per process: the runs of a worker share it."""
    return photos.load_corpus(root, cache)


def load_scale(
    name: str,
    *,
    data: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
) -> Scale:
    """A scale by its name.

    Args:
        name: ``"scenes"`` or ``"photos"``.
        data: Folder of the real data sets, as in :func:`mgca.data.masks.data_root`; the scenes need none.
        cache: Folder of features, as in :func:`mgca.utils.files.cache_folder`.

    Raises:
        NotRun: For ``"paper"``.
        ValueError: For an unknown name.
        FileNotFoundError: If the data folder given does not exist.
    """
    if name == "photos":
        return PhotosScale(data, cache)
    if name == "scenes":
        from mgca.scenes.scale import ScenesScale

        return ScenesScale(cache)
    if name == "paper":
        raise NotRun(
            "the paper scale is not run: it needs OpenAI's weights of CLIP ViT-B/16, the 2.9 "
            "million pairs of CC3M (shards pixparse/cc3m-wds), the validation sets of VOC 2012, "
            "Pascal Context, COCO 2017 with COCO-Stuff, Cityscapes and ADE20K, and four GPUs of "
            "24 GiB, as the paper had, for each of its 15-epoch runs. Use the scales 'scenes' or "
            "'photos'"
        )
    raise ValueError(f"unknown scale {name!r}, only scenes, photos and paper")
