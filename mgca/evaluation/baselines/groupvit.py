"""GroupViT (Xu et al., CVPR 2022): learned groups as units, for comparison with ours.

A vision transformer with group tokens. Two grouping stages assign the patches of an image to 64
segments and these to 8 groups; a group has an embedding in the joint space, and what it is called
is the class whose text embedding is nearest. The weights are downloaded, or read from a folder.

How groups become scores differs between three sources, and all three are here:

* :func:`unit_scores`: cosines of the groups, each patch in its largest group. The rule of this
  project's own units, with GroupViT's in their place.
* :func:`published_scores`: the rule behind the published numbers, that of GroupViT's repository
  (github.com/NVlabs/GroupViT, ``segmentation/evaluation/group_vit_seg.py``).
* :func:`soft_scores`: that of ``transformers``, whose ``segmentation_logits`` mix the groups'
  cosines by their shares.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.backbone import BackboneUnavailable, UnsupportedBackbone
from mgca.backbone.base import check_texts, state_digest
from mgca.inference.score_map import ScoreMap
from mgca.utils.network import from_hub
from mgca.weights import WeightsError

CHECKPOINT = "nvidia/groupvit-gcc-yfcc"
# The one prompt that the published numbers were measured with, as ``class_embeddings`` takes it.
TEMPLATES = ("a photo of a {}.",)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_WEIGHTS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_SMALL_FILES = ["*.json", "merges.txt"]
_LIKELY = 5  # classes of an image that its groups may be of
_LARGEST_SCALE = 100.0
_TEXTS_AT_ONCE = 256


class Grouping(NamedTuple):
    """What GroupViT finds in images, whatever they are compared with.

    Attributes:
        shares: (n, G, h, w) share of each patch in each group; over the groups they sum to 1.
        groups: (n, G, C) embeddings of the groups, not normalised.
        images: (n, C) embeddings of the images, not normalised.
    """

    shares: Tensor
    groups: Tensor
    images: Tensor


class GroupViT(nn.Module):
    """A frozen GroupViT and the text encoder that it was trained with.

    It has the attributes of :class:`mgca.backbone.Backbone`, and no dense features in the joint
    space: only groups are there.

    Args:
        name: What it is called in results and messages.
        model: A ``transformers.GroupViTModel``.
        tokenizer: A ``transformers.CLIPTokenizer``.
        mean, std: Per-channel statistics of RGB in [0, 1] that images are normalised with.

    Attributes:
        dim: Channels C of the joint space.
        stride: Side of a patch, in pixels.
        groups_per_image: Number G of groups.
        window: Side of the sliding window and of an image's shorter side, in pixels. GroupViT is
            trained at 224 and evaluated at 448, with windows half a side apart.
        temperature: Of the softmax over classes, at least 1/100.
        trunk_digest, digest, text_digest: Name the weights behind the grouping, behind the
            embeddings of the groups too, and behind those of the texts.

    Raises:
        UnsupportedBackbone: If patches or training images are not square, or nothing is grouped.
    """

    window: int = 448

    def __init__(
        self,
        name: str,
        model: nn.Module,
        tokenizer,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        vision = model.config.vision_config
        if not isinstance(vision.patch_size, int) or not isinstance(vision.image_size, int):
            raise UnsupportedBackbone(f"{name}: its patches and its images must be square")
        stages = zip(vision.num_group_tokens, vision.num_output_groups, strict=False)
        grouping = [outputs for tokens, outputs in stages if tokens]
        if not grouping:
            raise UnsupportedBackbone(f"{name}: none of its stages groups anything")
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.mean, self.std = tuple(mean), tuple(std)
        self.dim, self.stride = model.config.projection_dim, vision.patch_size
        self.groups_per_image = grouping[-1]
        self.context = model.config.text_config.max_position_embeddings
        self.temperature = 1 / min(model.logit_scale.exp().item(), _LARGEST_SCALE)
        self.requires_grad_(False).eval()
        self.trunk_digest = state_digest(model.vision_model)
        self.digest = f"{self.trunk_digest}-{state_digest(model.visual_projection)}"
        texts = (model.text_model, model.text_projection)
        self.text_digest = "-".join(state_digest(part) for part in texts)

    def train(self, mode: bool = True) -> "GroupViT":
        """Stay in evaluation mode, where groups are not drawn at random."""
        return super().train(False)

    def grouping(self, images: Tensor) -> Grouping:
        """Groups of normalised images (n, 3, H, W); (h, w) is (H, W) over the stride.

        Positional embeddings are interpolated bicubically to the patches of the image, square or
        not, as in GroupViT's repository. The model of ``transformers`` has the interpolation but
        no argument that asks for it, so its parts are called one by one.

        Raises:
            ValueError: If H or W is not a multiple of the stride.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride or not (height and width):
            raise ValueError(
                f"{self.name} takes images whose sides are multiples of {self.stride}, "
                f"not {height}x{width}"
            )
        vision = self.model.vision_model
        patches = vision.embeddings(images, interpolate_pos_encoding=True)
        encoded = vision.encoder(patches, output_attentions=True, return_dict=True)
        # One matrix (n, groups, members) for each grouping stage, a softmax over its groups.
        first, *later = encoded.attentions
        shares = first
        for stage in later:
            shares = stage @ shares
        tokens = vision.layernorm(encoded.last_hidden_state)
        project = self.model.visual_projection
        return Grouping(
            shares.unflatten(2, (height // self.stride, width // self.stride)),
            project(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2]),
            project(tokens.mean(dim=1)),
        )

    def groups(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Group (n, h, w) int64 of each patch, and embeddings (n, G, C) of the groups.

        Args, Raises: As :meth:`grouping`.
        """
        grouping = self.grouping(images)
        return grouping.shares.argmax(dim=1), grouping.groups

    def score_map(self, windows: Tensor, texts: Tensor) -> ScoreMap:
        """:func:`unit_scores` of windows (n, 3, H, W) and class embeddings (K, C)."""
        return unit_scores(self.grouping(windows), texts)

    def published(
        self, windows: Tensor, texts: Tensor, background: float | None = None
    ) -> ScoreMap:
        """:func:`published_scores` of windows (n, 3, H, W) and class embeddings (K, C)."""
        return published_scores(
            self.grouping(windows), texts, windows.shape[-2:], self.temperature, background
        )

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text embeddings (n, C), not normalised. Texts beyond the context are cut there.

        Raises:
            ValueError, TypeError: As :func:`mgca.backbone.base.check_texts`.
        """
        texts = check_texts(texts)
        parts = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = self.tokenizer(
                texts[start : start + _TEXTS_AT_ONCE],
                padding=True,
                truncation=True,
                max_length=self.context,
                return_tensors="pt",
            ).to(self.model.device)
            parts.append(self.model.get_text_features(**tokens).pooler_output)
        return torch.cat(parts)


def unit_scores(grouping: Grouping, texts: Tensor) -> ScoreMap:
    """Cosines of the groups as units: every patch takes the scores of its largest group.

    Args:
        texts: Unit vectors (K, C).

    Returns:
        Cosines (n·G, K), and the row (n, h, w) of each patch.
    """
    cosines = F.normalize(grouping.groups, dim=-1) @ texts.T
    return ScoreMap(cosines.flatten(0, 1), _rows(grouping.shares))


def published_scores(
    grouping: Grouping,
    texts: Tensor,
    size: tuple[int, int],
    temperature: float,
    background: float | None = None,
) -> ScoreMap:
    """The rule that GroupViT's published numbers were measured with.

    From ``GroupViTSegInference.encode_decode`` of its repository. Shares are resized bilinearly to
    the pixels, and a pixel belongs to the group with the largest. A group's score of a class is the
    product of two softmaxes at the training temperature: over all classes, and over the five that
    the embedding of the whole window is nearest to, 0 for the others. Averaged over windows, the
    highest score wins.

    Where there is a background, it comes first and is 1 for the groups whose highest score is below
    ``background``, or below the highest of the window if that is lower, and else 0. The thresholds
    of the repository are 0.95 for VOC and COCO-Object, and 0.35 for Context.

    Args:
        texts: Unit vectors (K, C), in the repository of the prompt in ``TEMPLATES``.
        size: (H, W) of the windows, in pixels.
        temperature: Of both softmaxes.
        background: The threshold, or None for no background class.

    Returns:
        Scores (n·G, K), or (n·G, 1 + K) with a background, and the row (n, H, W) of each pixel.

    Raises:
        ValueError: If the threshold is not in [0, 1].
    """
    if background is not None and not 0 <= background <= 1:
        raise ValueError(f"background is a probability in [0, 1], not {background}")
    logits = F.normalize(grouping.groups, dim=-1) @ texts.T / temperature
    nearest = F.normalize(grouping.images, dim=-1) @ texts.T
    likely = nearest.topk(min(_LIKELY, len(texts)), dim=1).indices
    unlikely = torch.ones_like(nearest, dtype=torch.bool).scatter(1, likely, False)
    among_likely = logits.masked_fill(unlikely[:, None], -torch.inf).softmax(dim=-1)
    scores = logits.softmax(dim=-1) * among_likely
    if background is not None:
        best = scores.amax(dim=-1, keepdim=True)
        threshold = best.amax(dim=1, keepdim=True).clamp(max=background)
        scores = torch.cat([(best < threshold).to(scores.dtype), scores], dim=-1)
    shares = F.interpolate(grouping.shares, tuple(size), mode="bilinear", align_corners=False)
    return ScoreMap(scores.flatten(0, 1), _rows(shares))


def soft_scores(grouping: Grouping, texts: Tensor) -> Tensor:
    """Cosines of the groups mixed by their shares in each patch, (n, K, h, w).

    Resized bilinearly to the pixels, and times the square of the logit scale, they are the
    ``segmentation_logits`` of ``transformers``.

    Args:
        texts: Unit vectors (K, C).
    """
    cosines = F.normalize(grouping.groups, dim=-1) @ texts.T
    return torch.einsum("ngk,nghw->nkhw", cosines, grouping.shares)


def _rows(shares: Tensor) -> Tensor:
    """Of shares (n, G, h, w), the row (n, h, w) of each position in a table (n·G, ...)."""
    images, groups = shares.shape[:2]
    first = groups * torch.arange(images, device=shares.device)
    return shares.argmax(dim=1) + first[:, None, None]


def load_groupvit(name: str | os.PathLike = CHECKPOINT, *, revision: str | None = None) -> GroupViT:
    """Load a frozen GroupViT.

    The statistics of images are those of ``preprocessor_config.json``, ImageNet's without one.
    Weights are read from ``model.safetensors``; without one, from the tensors of
    ``pytorch_model.bin``, and no code in it is run.

    Args:
        name: A repository of the Hugging Face hub, or a folder with the files of one.
        revision: Branch, tag or commit of the repository; by default its main branch.

    Raises:
        mgca.backbone.BackboneUnavailable: If the files are neither in the cache nor to be had.
        mgca.weights.WeightsError: If a file is missing or damaged, or another model's.
        mgca.backbone.UnsupportedBackbone: As :class:`GroupViT`.
    """
    folder = Path(name) if Path(name).is_dir() else _fetch(str(name), revision)
    _check(folder)
    # mgca.backbone, imported above, lets transformers import torchvision.
    from transformers import CLIPTokenizer, GroupViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model, report = GroupViTModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    # Of a damaged vocabulary, tokenizers raises no narrower class.
    except Exception as error:
        raise WeightsError(f"{folder} holds no complete GroupViT: {error}") from error
    # What is missing would be left at random.
    missing = sorted(report["missing_keys"])
    if missing:
        raise WeightsError(f"{folder}: the weights lack {len(missing)} tensors, {missing[0]} first")
    return GroupViT(str(name), model, tokenizer, **_statistics(folder))


def _fetch(name: str, revision: str | None) -> Path:
    """The folder of the cache with a repository's files, downloaded where they are not in it."""
    from huggingface_hub import snapshot_download

    # Not left to transformers: without safetensors it asks a service of the hub to convert them.
    with from_hub(f"the files of {name}, which is no folder here either", BackboneUnavailable):
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=[*_SMALL_FILES, _WEIGHTS])
        )
        if not (folder / _WEIGHTS).is_file():
            snapshot_download(name, revision=revision, allow_patterns=[_PICKLED])
    return folder


def _check(folder: Path) -> None:
    """A folder is refused before transformers takes random weights or an empty vocabulary for it.

    Raises:
        WeightsError: If a file is missing, or it is another model's.
    """
    vocabulary = ("tokenizer.json vocab.json", "tokenizer.json merges.txt")
    for wanted in ("config.json", f"{_WEIGHTS} {_PICKLED}", *vocabulary):
        if not any((folder / name).is_file() for name in wanted.split()):
            raise WeightsError(f"{folder} has no {wanted.replace(' ', ' or ')}")
    kind = _read(folder / "config.json").get("model_type")
    if kind != "groupvit":
        raise WeightsError(f"{folder} holds a model of type {kind!r}, not 'groupvit'")


def _statistics(folder: Path) -> dict[str, Sequence[float]]:
    """Mean and standard deviation that a folder says images are normalised with."""
    path = folder / "preprocessor_config.json"
    found = _read(path) if path.is_file() else {}
    return {key: found[f"image_{key}"] for key in ("mean", "std") if found.get(f"image_{key}")}


def _read(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        WeightsError: If it is not one.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is not an object of settings")
    return found
