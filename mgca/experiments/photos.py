"""The photos scale: captions of Flickr8k to train on, masks of VOC, COCO and CamVid.

The features of ``lite`` are aligned with the captions' sentence embeddings anew for each seed.
"""

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgca.backbone import Backbone
from mgca.backbone.lite import CLASSES_SHARE, HALF, LIKENESS, Lite
from mgca.config import TrainConfig, config_hash, to_dict
from mgca.data.captions import Captions, load_captions
from mgca.data.features import BatchImages, image_features, text_embeddings
from mgca.data.masks import MaskedSet, data_root, load_masked
from mgca.data.texts import TextPool, build_pool
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.evaluate import evaluate
from mgca.experiments.scale import Scale
from mgca.inference.scoring import Rule, rules
from mgca.model import Model
from mgca.training.alignment import (
    AlignConfig,
    imagenet_definitions,
    imagenet_names,
    recognised_names,
    retrieval,
    save_alignment,
    softmax_pixels,
    train_alignment,
)
from mgca.training.runs import head_training, photos_training
from mgca.training.sources import Cached
from mgca.utils.files import cache_folder, file_digest, write_text
from mgca.weights import read_tensors

#: What makes an embedding of the two halves.
_LITE = {"classes_share": CLASSES_SHARE, "likeness": LIKENESS, "half": HALF}


@dataclass(frozen=True)
class Corpus:
    """Captions, their images' features and their texts' embeddings.

    Attributes:
        captions: Captions of the training images, as read.
        features: (n, F, h, w) trunk features of the images.
        pool: Texts that training may draw.
        texts: (len(pool.texts), C) sentence embeddings, not centred.
        names: (1000, 2, C) sentence embeddings of a name of each of ImageNet's classes and of its
            definition, not centred.
        held_out: Captions of images kept out of the training.
        validation: Features of the images held out, and the sentence embeddings of their first
            captions.
    """

    captions: Captions
    features: np.ndarray
    pool: TextPool
    texts: Tensor
    names: Tensor
    held_out: Captions
    validation: tuple[np.ndarray, Tensor]


def load_corpus(
    root: str | os.PathLike, cache: str | os.PathLike | None = None, *, images: int | None = None
) -> Corpus:
    """The captions of Flickr8k with features and embeddings, computed or read from the cache.

    Args:
        root: Folder of the real data sets.
        cache: Folder for features and embeddings.
        images: Number of first images that are taken, for a quick look; None for all.

    Raises:
        FileNotFoundError: If the captions are not there.
    """
    backbone = Lite(pretrained=False)
    folder = Path(root) / "flickr8k"
    training = load_captions(folder / "captions_train.tsv").first(images)
    held_out = load_captions(folder / "captions_val.tsv").first(images)
    features = image_features(backbone, training, folder=cache)
    imagenet = imagenet_names()
    pool = build_pool(training.captions, recognised_names(backbone, features, imagenet))
    about = zip(imagenet, imagenet_definitions(), strict=True)
    pairs = [text for name, what in about for text in (f"a photo of a {name}.", what)]
    sentences = text_embeddings(backbone.text, pool.texts, folder=cache)
    return Corpus(
        captions=training,
        features=features,
        pool=pool,
        texts=sentences,
        names=text_embeddings(backbone.text, pairs, folder=cache).view(len(imagenet), 2, -1),
        held_out=held_out,
        validation=(
            image_features(backbone, held_out, folder=cache),
            text_embeddings(backbone.text, [texts[0] for texts in held_out.captions], folder=cache),
        ),
    )


def align(config: AlignConfig, backbone: Lite, corpus: Corpus) -> dict[str, float]:
    """Train the alignment in place and measure it.

    Returns:
        Loss and temperature, recall at 1 and 5 on the held-out images, and the share of the pixels
        that the softmax of Eq. 3 spreads over.
    """
    measured = train_alignment(
        config, backbone, corpus.features, corpus.pool, corpus.texts, corpus.names
    )
    features, texts = corpus.validation
    texts = backbone.from_sentences(texts)
    measured |= retrieval(backbone, features, texts)
    dense = backbone.project(torch.from_numpy(np.array(features[:256], dtype=np.float32)))
    return measured | {"softmax_pixels": softmax_pixels(dense, texts[:256])}


def training_data(backbone: Lite, corpus: Corpus) -> Cached:
    """The decoder's training data: features, and texts centred as the backbone encodes them."""
    images = BatchImages(corpus.captions.images, 224, backbone.mean, backbone.std)
    return Cached(corpus.features, corpus.pool, backbone.from_sentences(corpus.texts), images)


class PhotosScale(Scale):
    """Real photographs: ``lite`` with an alignment of each seed's own, captions of Flickr8k.

    What a variant trains is the head of ``lite``, from the alignment of the seed, which is of image
    level: Table 3's question asked of the encoder itself. The table ``main`` has the decoder on top
    of that. Nothing was tried on the images of ``datasets``.

    Args:
        data: Folder of the data sets, as in :func:`mgca.data.masks.data_root`.
        cache: Folder of features, as in :func:`mgca.utils.files.cache_folder`.
    """

    name = "photos"
    plain = "alignment"
    # Settings were chosen on the other images at hand: VOC's of its train split, COCO's that are
    # not of val2017, and every second frame of CamVid.
    datasets = ("voc20", "coco80-val", "camvid-odd")
    groups = {"without background": datasets}
    # The tower is convolutional: there is no last attention block to change.
    frozen = {"clip": "value"}
    # What the encoder of each seed is trained with.
    encoder = AlignConfig()
    # Chosen on the calibration set: results/photos/background.csv.
    threshold, temperature = 0.21, 0.1

    def __init__(
        self, data: str | os.PathLike | None = None, cache: str | os.PathLike | None = None
    ) -> None:
        self.training = head_training()
        self.decoder = photos_training()
        self.settings = {"align": to_dict(self.encoder), "lite": _LITE}
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
            raise FileNotFoundError(f"the {self.name} scale needs its data sets: set MGCA_DATA")
        return self._root

    def _of_seed(self, seed: int) -> AlignConfig:
        return dataclasses.replace(self.encoder, seed=seed)

    def train_encoder(self, seed: int, path: Path) -> dict[str, float]:
        """Train the encoder of a seed, write its weights, and measure it."""
        backbone = Lite(pretrained=False)
        measured = align(self._of_seed(seed), backbone, _corpus(self.root, self.cache))
        save_alignment(path, backbone, run=path.stem)
        return measured

    def trained_encoder(self, seed: int) -> Path:
        """Weights of the encoder of a seed, which are trained where the cache does not have them.

        Beside them lies a JSON file of the same name with what was measured of the encoder.
        """
        align = to_dict(self._of_seed(seed))
        config = {"align": align, "lite": _LITE, "captions": self._captions_digest()}
        path = self.cache / f"{self.name}-{config_hash(config)}.safetensors"
        measured = path.with_suffix(".json")
        if not (path.is_file() and measured.is_file()):
            write_text(measured, json.dumps(self.train_encoder(seed, path), indent=1) + "\n")
        return path

    def encoder_measured(self, seed: int) -> dict[str, float]:
        return json.loads(self.trained_encoder(seed).with_suffix(".json").read_text("utf-8"))

    def backbone(self, seed: int, last_block: str = "value") -> Backbone:
        if last_block != "value":
            raise ValueError(f"lite has no last attention block to use as {last_block!r}")
        backbone = Lite(pretrained=False)
        state, meta = read_tensors(self.trained_encoder(seed))
        backbone.set_alignment(**state)
        backbone.temperature = float(meta["temperature"])
        return backbone

    def prepare(self, blocks: Mapping[str, bool], names: Sequence[str] = ()) -> None:
        _corpus(self.root, self.cache)
        model = Model(Lite(pretrained=False), config=self.segment())
        for data in self.sets(names):
            evaluate(model, data, units=(), features=self.cache, background=self.threshold)

    def data(self, backbone: Backbone) -> Cached:
        return training_data(backbone, _corpus(self.root, self.cache))

    def trained(
        self, config: TrainConfig, backbone: Backbone, folder: Path
    ) -> tuple[GatedConvDecoder | None, dict[str, Rule]]:
        if config.part == "decoder":
            head = dataclasses.replace(self.training, seed=config.seed)
            self.trained(head, backbone, folder / "head")
            return super().trained(config, backbone, folder)
        path = folder / "alignment.safetensors"
        if not path.is_file():
            self.trainer(config, backbone).run(folder)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        backbone.set_alignment(**read_tensors(path)[0])
        return None, rules()

    def sets(self, names: Sequence[str] = ()) -> list[MaskedSet]:
        return [load_masked(name, self.root) for name in names or self.datasets]

    def calibration(self) -> MaskedSet:
        return load_masked("voc21-extra", self.root)

    def background(self, model: Model) -> dict[str, float]:
        return {"background": self.threshold, "temperature": self.temperature}

    def digests(self, names: Sequence[str] = ()) -> dict[str, str]:
        masks = {data.name: data.digest for data in self.sets(names)}
        return {"flickr8k": self._captions_digest()} | masks

    def _captions_digest(self) -> str:
        return file_digest(self.root / "flickr8k" / "captions_train.tsv")


@functools.lru_cache(maxsize=1)
def _corpus(root: Path, cache: Path) -> Corpus:
    """The corpus, read once per process: the runs of a worker share it."""
    return load_corpus(root, cache)
