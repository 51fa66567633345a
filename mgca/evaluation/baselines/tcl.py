"""TCL as published: its decoder on CLIP ViT-B/16, and the file of its released weights.

Cha, Mun and Roh, CVPR 2023 (arXiv 2212.00785); ``tcl.pth`` of the releases of
github.com/kakaobrain/tcl (MIT licence). Unlike MGCA's, the decoder works on the transformer's
tokens before CLIP's last normalisation and projection, of which it has trained copies, as of the
last block.
"""

import copy
import os
import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.backbone.base import state_digest
from mgca.backbone.last_block import last_block
from mgca.backbone.vit import PlainViT
from mgca.decoder import GatedConvBlock, upsample2
from mgca.inference.scoring import sigmoid_scores
from mgca.weights import WeightsError

# The release normalises images with these statistics, not with CLIP's.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Score of the background beside the sigmoid scores of the classes, without refinement by PAMR.
BACKGROUND_SCORE = 0.5
# Threshold and slope of the sigmoid over CLIP's own cosines, the release's constants.
_KP_COSINE, _KP_SLOPE = 0.25, 10.0

_MASKER = "masker.image_encoder."
_BLOCK = f"{_MASKER}backbone.transformer.resblocks."
_NET = f"{_MASKER}decoder.decoder.net."
_PROJECTION = f"{_MASKER}decoder.image_proj."
_CLIP = "clip_image_encoder."
# Frozen copies of CLIP, the temperatures of the contrasts, constants of the refinement.
_IGNORED = (_CLIP, "clip_text_encoder.", "tcli_loss.", "tclf_loss.", "pamr.")


class TCLDecoder(nn.Module):
    """Stages of x2 upsampling (nearest) and two gated convolution blocks, then the joint space.

    Args:
        width: Channels of the transformer's tokens. dim: Of the joint space.
        stages: Each doubles the resolution.
    """

    def __init__(self, width: int = 768, dim: int = 512, *, stages: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GatedConvBlock(width) for _ in range(2 * stages))
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, dim))
        nn.init.normal_(self.proj, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Patch tokens (n, width, h, w) to pixel embeddings (n, dim, 4 h, 4 w) for two stages."""
        for number, block in enumerate(self.blocks):
            if number % 2 == 0:
                tokens = upsample2(tokens, "nearest")
            tokens = block(tokens)
        # Position by position, on channels last.
        return (self.norm(tokens.permute(0, 2, 3, 1)) @ self.proj).permute(0, 3, 1, 2)


class TCLSegmenter:
    """The published model: pixel embeddings of images, and scores of their cosines to texts.

    Args:
        backbone: The frozen CLIP that it was trained on; its own ``last_block`` plays no part.
        kp_weight: Share of CLIP's own value-only features in the scores: 0.0 in the published
            tables, 0.3 in the release's tuned configuration.

    Attributes:
        block: The masker's own last transformer block, used value-only.
        decoder: The :class:`TCLDecoder`.
        w, b: Of ``sigmoid(w cos + b)``.
        mean, std: That images are to be normalised with, ImageNet's.

    Raises:
        ValueError: If ``kp_weight`` is not in [0, 1].
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, backbone: PlainViT, *, kp_weight: float = 0.0) -> None:
        if not 0 <= kp_weight <= 1:
            raise ValueError(f"kp_weight is a share and must lie in [0, 1], not {kp_weight}")
        visual = backbone.model.visual
        width, dim = visual.proj.shape
        self.backbone = backbone
        self.kp_weight = kp_weight
        self.block = copy.deepcopy(visual.transformer.resblocks[-1])
        self.decoder = TCLDecoder(width, dim).to(visual.proj)
        self.decoder.requires_grad_(False).eval()
        self.w, self.b = 10.0, -2.5

    @property
    def digest(self) -> str:
        """Names what the pixel embeddings depend on."""
        trained = nn.ModuleDict({"block": self.block, "decoder": self.decoder})
        return f"{self.backbone.trunk_digest}-tcl-{state_digest(trained)}"

    @torch.no_grad()
    def pixels(self, images: Tensor) -> Tensor:
        """Pixel embeddings (n, C, 4 h, 4 w), not normalised, of normalised images (n, 3, H, W).

        Args:
            images: Of sides that the stride divides, ``h = H / stride``.
        """
        return self._pixels(self.backbone.tokens(images), self._size(images))

    @torch.no_grad()
    def dense(self, images: Tensor) -> Tensor:
        """CLIP's own value-only dense features (n, C, h, w), which ``kp_weight`` mixes in."""
        return self._dense(self.backbone.tokens(images), self._size(images))

    def scores(self, cosines: Tensor, dense: Tensor | None = None) -> Tensor:
        """Scores in [0, 1] of cosine similarities.

        Args:
            cosines: Of pixel embeddings to texts: of any shape, (n, K, H', W') where
                ``kp_weight`` is not 0.
            dense: (n, K, h, w), those of :meth:`dense`; needed where ``kp_weight`` is not 0.

        Raises:
            ValueError: If ``dense`` is needed and not there.
        """
        scores = sigmoid_scores(cosines, self.w, self.b)
        if not self.kp_weight:
            return scores
        if dense is None or cosines.ndim != 4:
            raise ValueError("kp_weight mixes in CLIP's own maps: give cosines and dense as maps")
        own = torch.sigmoid(_KP_SLOPE * (dense - _KP_COSINE))
        own = F.interpolate(own, cosines.shape[-2:], mode="bilinear", align_corners=False)
        return self.kp_weight * own + (1 - self.kp_weight) * scores

    @torch.no_grad()
    def maps(self, images: Tensor, texts: Tensor) -> Tensor:
        """Scores (n, K, 4 h, 4 w) of images (n, 3, H, W) for class embeddings (K, C)."""
        tokens, size = self.backbone.tokens(images), self._size(images)
        cosines = _cosines(self._pixels(tokens, size), texts)
        dense = _cosines(self._dense(tokens, size), texts) if self.kp_weight else None
        return self.scores(cosines, dense)

    def _size(self, images: Tensor) -> tuple[int, int]:
        rows, columns = (side // self.backbone.stride for side in images.shape[-2:])
        return rows, columns

    def _pixels(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        patches = last_block(self.block, tokens, size, "value")
        return self.decoder(patches.transpose(1, 2).unflatten(2, size))

    def _dense(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        block = self.backbone.model.visual.transformer.resblocks[-1]
        patches = last_block(block, tokens, size, "value")
        return self.backbone.project(patches.transpose(1, 2).unflatten(2, size))


def _cosines(pixels: Tensor, texts: Tensor) -> Tensor:
    """(n, K, h, w)."""
    texts = F.normalize(texts, dim=-1).to(pixels.dtype)
    return torch.einsum("nchw,kc->nkhw", F.normalize(pixels, dim=1), texts)


def load_tcl(
    path: str | os.PathLike, backbone: PlainViT | None = None, *, kp_weight: float = 0.0
) -> TCLSegmenter:
    """The model of a checkpoint in the layout of the release.

    Args:
        path: Of ``tcl.pth``.
        backbone: CLIP ViT-B/16 with OpenAI's weights; loaded if None.
        kp_weight: As for :class:`TCLSegmenter`.

    Raises:
        WeightsError: If the file is missing, damaged or something else, names what is missing or
            unexpected, or was trained on another CLIP.
        mgca.backbone.BackboneUnavailable: If the backbone's weights cannot be had.
        ValueError: If ``kp_weight`` is not in [0, 1].
    """
    theirs = read_checkpoint(path)
    if backbone is None:
        from mgca.backbone import load_backbone

        backbone = load_backbone("vit-b-16")
    segmenter = TCLSegmenter(backbone, kp_weight=kp_weight)
    theirs = _one_block(path, theirs)
    block, decoder = segmenter.block.state_dict(), segmenter.decoder.state_dict()
    names = {f"{_BLOCK}N.{key}": value for key, value in block.items()}
    names |= {_released_name(key): value for key, value in decoder.items()}
    names |= {"masker.sim2mask.w": torch.empty(()), "masker.sim2mask.b": torch.empty(())}
    _compare(path, names, theirs)
    _check_clip(path, backbone, theirs)
    with torch.no_grad():
        for name, value in names.items():
            # A state dict's tensors are the parameters' own memory.
            value.copy_(theirs[name])
    segmenter.w = names["masker.sim2mask.w"].item()
    segmenter.b = names["masker.sim2mask.b"].item()
    return segmenter


class _Inert:
    """Stands for every class and function that a checkpoint names; does nothing.

    The release's code keeps its configuration, objects of another library, beside the weights.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors under ``"model"`` of a checkpoint of PyTorch. Nothing in it is executed.

    Raises:
        WeightsError: If there is no such file, or it is damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in names]):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError:
        # Without PyTorch's own message: it advises to execute what the file holds.
        raise WeightsError(f"{path} is damaged, or not to be read without executing it") from None
    except Exception as error:  # what PyTorch raises at damaged bytes is anyone's guess
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is not a complete checkpoint of PyTorch: {reason}") from error
    model = saved.get("model") if isinstance(saved, dict) else None
    if not isinstance(model, dict) or not all(isinstance(v, Tensor) for v in model.values()):
        raise WeightsError(f'{path} has no tensors under "model": it is not a checkpoint of TCL')
    return model


def _released_name(key: str) -> str:
    """What the release calls a tensor of :class:`TCLDecoder`."""
    part, _, rest = key.partition(".")
    if part == "blocks":
        number, _, rest = rest.partition(".")
        stage, second = divmod(int(number), 2)
        rest = "gate.gate" if rest == "gate" else rest
        return f"{_NET}{stage}.conv{'2' if second else ''}.{rest}"
    return f"{_PROJECTION}ln.{rest}" if part == "norm" else f"{_PROJECTION}{key}"


def _one_block(path: str | os.PathLike, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, the number of the one transformer block that is trained replaced by N.

    It keeps its number in CLIP, 11 in ViT-B/16.
    """
    pattern = re.compile(rf"{re.escape(_BLOCK)}(\d+)\.")
    numbers = {match[1] for match in map(pattern.match, state) if match}
    if len(numbers) > 1:
        raise WeightsError(
            f"{path} trains the transformer blocks {', '.join(sorted(numbers))}, not the last alone"
        )
    return {pattern.sub(f"{_BLOCK}N.", key): value for key, value in state.items()}


def _compare(path: str | os.PathLike, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Refuse a checkpoint that lacks tensors, has unknown ones or some of another shape."""
    missing = sorted(set(ours) - set(theirs))
    unexpected = sorted(k for k in set(theirs) - set(ours) if not k.startswith(_IGNORED))
    shapes = [
        f"{key} {tuple(theirs[key].shape)} instead of {tuple(value.shape)}"
        for key, value in ours.items()
        if key in theirs and theirs[key].shape != value.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    problems = [f"{problem}: {_first(keys)}" for problem, keys in found.items() if keys]
    if problems:
        raise WeightsError(f"{path} is not a checkpoint of TCL. {'; '.join(problems)}")


def _first(keys: list[str], number: int = 5) -> str:
    more = f" and {len(keys) - number} more" if len(keys) > number else ""
    return ", ".join(keys[:number]) + more


def _check_clip(path: str | os.PathLike, backbone: PlainViT, theirs: dict[str, Tensor]) -> None:
    """Refuse a backbone that differs from the frozen copy of CLIP, where the checkpoint has one."""
    for key, value in backbone.model.visual.state_dict().items():
        moved = key.startswith("ln_post.") or key == "proj"
        name = f"clip_proj.{key.replace('ln_post.', 'ln.')}" if moved else f"clip_visual.{key}"
        copied = theirs.get(_CLIP + name)
        # Roomy enough for a copy in half precision.
        if copied is not None and not (
            copied.shape == value.shape
            and torch.allclose(copied.to(value), value, rtol=1e-2, atol=1e-3)
        ):
            raise WeightsError(
                f"{path} was trained on another CLIP than {backbone.name!r}: {_CLIP}{name} differs"
            )
