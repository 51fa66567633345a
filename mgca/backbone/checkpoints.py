"""The checkpoints of open_clip: which can be used here, and why others cannot.

All is read from open_clip's own configurations: nothing is built and nothing is downloaded.
"""

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Modules of timm whose towers have no dense path, and why.
_REFUSED = {
    "swin_transformer": "its windows of attention shift, and its map has channels last",
    "vision_transformer_relpos": "its last block is not a standard attention block",
}
#: Licences of weights by what their tag or the name of their model begins with, as their authors
#: state them; of others the page of the weights has to be asked.
_LICENCES = (
    ("openai", "MIT"),
    ("laion", "MIT"),
    ("webli", "Apache-2.0"),
    ("metaclip", "CC-BY-NC-4.0"),
)
#: Families of towers by a part of the name of their network in timm, the first that fits.
_TIMM = {
    "siglip": "SigLIP, SigLIP 2",
    "pe_core": "PE-Core",
    "eva_giant": "EVA01",
    "eva02_enormous": "EVA02-E",
    "eva02": "EVA02",
    "vitamin": "ViTamin",
    "mci_224": "MobileCLIP-B",
    "patch14_clip": "MobileCLIP2-L",
    "fastvit": "MobileCLIP, others",
    "convnext": "ConvNeXt",
}
_PARAMETERS = Path(__file__).with_name("open_clip_parameters.json")


@dataclass(frozen=True)
class Checkpoint:
    """Weights that open_clip knows.

    Attributes:
        name: Name of the model, as :func:`mgca.backbone.load_backbone` takes it.
        tag: Tag of the weights.
        family: Kind of the image tower: ``"CLIP ViT"``, ``"ResNet"``, ``"CoCa"``, ``"SigLIP,
            SigLIP 2"`` and the like.
        why_not: Why they cannot be used here; empty where they can.
        window: Side in pixels of the images that they were trained with.
        patch: Side in pixels of a patch, where the configuration says so.
        parameters: Number of parameters, where it was counted.
        licence: Licence of the weights, where it is known.
    """

    name: str
    tag: str
    family: str
    why_not: str
    window: int | None
    patch: int | None
    parameters: int | None
    licence: str | None


def checkpoints() -> list[Checkpoint]:
    """All checkpoints of open_clip, by the name of the model."""
    import open_clip

    counted = json.loads(_PARAMETERS.read_text(encoding="utf-8"))
    found = []
    for name, tag in sorted(open_clip.list_pretrained()):
        vision = _vision(name)
        window, patch = vision.get("image_size", 224), vision.get("patch_size")
        if patch is None:
            in_name = re.search(r"patch(\d+)", vision.get("timm_model_name", ""))
            patch = int(in_name[1]) if in_name else None
        licence = next((own for start, own in _LICENCES if tag.startswith(start)), None)
        found.append(
            Checkpoint(
                name, tag, _family(vision), why_not(name), window, patch, counted.get(name), licence
            )
        )
    return found


def _family(vision: dict[str, Any]) -> str:
    if tower := vision.get("timm_model_name"):
        return next((family for part, family in _TIMM.items() if part in tower), "others")
    if vision.get("attentional_pool"):
        return "CoCa"
    return "ResNet" if isinstance(vision.get("layers"), list) else "CLIP ViT"


def why_not(name: str) -> str:
    """Why a model of open_clip has no dense features, by its configuration; empty if it has.

    A configuration of one's own may still be refused when it is built.
    """
    vision = _vision(name)
    if "timm_model_name" in vision:
        from timm.models import is_model, model_entrypoint

        if not is_model(vision["timm_model_name"]):
            return f"this version of timm has no {vision['timm_model_name']}"
        module = model_entrypoint(vision["timm_model_name"]).__module__.rpartition(".")[2]
        if module in _REFUSED:
            return _REFUSED[module]
        if vision.get("timm_pool") in ("abs_attn", "rot_attn"):
            return "its attention pooling is fixed to one image size and mixes positions"
        return ""
    if (
        vision.get("attentional_pool") in ("parallel", "cascade")
        or vision.get("pool_type") == "none"
    ):
        return "its pooling leaves single tokens outside the joint space"
    if vision.get("block_type") == "custom" or vision.get("qk_norm"):
        return "its last block is not a standard attention block"
    return ""


def nearest(name: str, count: int = 3) -> list[str]:
    """The names most like one that is unknown or cannot be used, among those that can."""
    import open_clip

    usable = {known.casefold(): known for known in open_clip.list_models() if not why_not(known)}
    close = difflib.get_close_matches(name.casefold(), usable, count, cutoff=0.5)
    return [usable[each] for each in close]


def _vision(name: str) -> dict[str, Any]:
    import open_clip

    return (open_clip.get_model_config(name) or {}).get("vision_cfg", {})
