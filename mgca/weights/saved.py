"""A trained model as a folder: ``config.json``, safetensors files, and a model card.

The folder holds what was trained and nothing else: ``decoder.safetensors``, and of ``lite`` its
alignment where that is not the published one. The frozen encoder is not copied; ``config.json``
names it together with its digest, the window, and the SHA-256 of each file. No file is ever
executed or unpickled.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgca.backbone import Backbone, load_backbone
from mgca.backbone.lite import Lite
from mgca.config import SegmentConfig, to_dict
from mgca.inference.scoring import SIGMOID, rules
from mgca.model import Model
from mgca.utils.files import write_text
from mgca.weights import WeightsError, load_weights, read_tensors, write_tensors
from mgca.weights.decoders import decoder_from, learned_sigmoid, save_decoder

FORMAT = 1  # of config.json; a reader refuses any other
CONFIG, DECODER, ALIGNMENT = "config.json", "decoder.safetensors", "alignment.safetensors"


def save_folder(model: Model, folder: str | Path, *, run: str = "") -> Path:
    """Write ``config.json`` and the trained tensors of a model to a folder.

    Tensors are kept in half precision where that loses nothing, else in float32.

    Raises:
        ValueError: If nothing of the model is trained.
        OSError: If a file cannot be written.
    """
    folder = Path(folder)
    backbone, written = model.backbone, []
    alignment = _own_alignment(backbone)
    if model.decoder is None and alignment is None:
        raise ValueError("nothing of this model is trained: it has no decoder to share")
    if model.decoder is not None:
        dtype = _smallest(model.decoder.state_dict())
        sigmoid = model.scoring[SIGMOID].learned if SIGMOID in model.scoring else None
        written.append(
            save_decoder(
                folder / DECODER, model.decoder, backbone, run=run, dtype=dtype, sigmoid=sigmoid
            )
        )
    if alignment is not None:
        dtype = _smallest(alignment)
        state = {key: value.to(dtype) for key, value in alignment.items()}
        meta = {"temperature": repr(backbone.temperature), "run": run}
        written.append(write_tensors(folder / ALIGNMENT, state, meta))
    config = {
        "library": "mgca",
        "format": FORMAT,
        "backbone": {
            "name": backbone.name,
            "pretrained": model.pretrained,
            "last_block": backbone.last_block,
            "digest": backbone.digest,
            "text_digest": backbone.text_digest,
        },
        "segment": to_dict(model.config),
        "files": {path.name: _sha256(path) for path in written},
    }
    write_text(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    return folder


def load_folder(
    folder: str | Path, *, decoder: bool = True, config: SegmentConfig | None = None
) -> Model:
    """The model that :func:`save_folder` wrote, every file checked against its hash.

    Raises:
        WeightsError: If a file is damaged or not one of a model that can be loaded here.
        BackboneUnavailable: If the backbone's own weights cannot be had.
    """
    folder = Path(folder)
    read = read_config(folder / CONFIG)
    for file, sha256 in read["files"].items():
        path = folder / file
        if not path.is_file():
            raise WeightsError(f"no weights file {path}")
        if (found := _sha256(path)) != sha256:
            raise WeightsError(
                f"{path} has SHA-256 {found}, expected {sha256}: delete the folder {folder} and "
                "what its links point to, and load again"
            )
    backbone = _load_backbone(read["backbone"], aligned=ALIGNMENT in read["files"])
    if ALIGNMENT in read["files"]:
        _set_alignment(backbone, folder / ALIGNMENT)
    for key in ("digest", "text_digest"):
        expected, here = read["backbone"][key], getattr(backbone, key)
        if expected != here:
            raise WeightsError(
                f"{folder / CONFIG} is for the backbone {backbone.name!r} with {key} {expected}, "
                f"and here it has {here}: other weights, or another version of the package"
            )
    trained, sigmoid = None, None
    if decoder and DECODER in read["files"]:
        state, meta = read_tensors(folder / DECODER)
        trained, sigmoid = decoder_from(state, meta, backbone), learned_sigmoid(meta)
    model = Model(backbone, trained, config or read["segment"], rules(sigmoid))
    model.pretrained = read["backbone"]["pretrained"]
    return model


def model_card(
    repo: str,
    folder: str | Path,
    *,
    data: str,
    metrics: Mapping[str, float],
    license: str | None,
    run: str,
) -> str:
    """The README of a repository, for the files of :func:`save_folder`."""
    from huggingface_hub import ModelCardData

    folder = Path(folder)
    config = read_config(folder / CONFIG)
    name = config["backbone"]["name"]
    about = ModelCardData(
        library_name="mgca",
        pipeline_tag="image-segmentation",
        license=license,
        tags=["mgca", "open-vocabulary-segmentation"],
    )
    rows = []
    for file, sha256 in config["files"].items():
        parameters = sum(value.numel() for value in read_tensors(folder / file)[0].values())
        rows.append(f"| `{file}` | {parameters:,} | `{sha256}` |")
    numbers = [f"| {key} | {value:g} |" for key, value in metrics.items()]
    return "\n".join(
        [
            f"---\n{about.to_yaml()}\n---\n",
            f"# {repo.partition('/')[2]}\n",
            "Open-vocabulary semantic segmentation with MGCA (arXiv:2403.03707): what was trained "
            f"on top of the frozen encoders of `{name}`, which are not included.\n",
            "```python",
            "import mgca\n",
            f'model = mgca.load("hf://{repo}")',
            'model.segment("photo.jpg", ["cat", "a wooden table"]).overlay()',
            "```\n",
            "| file | parameters | SHA-256 |\n|---|---|---|",
            *rows,
            f"\n**Encoders.** `{name}`, weights `{config['backbone']['pretrained']}`, last block "
            f"`{config['backbone']['last_block']}`, digest `{config['backbone']['digest']}`. Their "
            "own terms apply.\n",
            f"**Data.** {data or 'Not stated.'}\n",
            "**Numbers.** " + ("" if numbers else "None given.") + "\n",
            *(["| measure | value |\n|---|---|", *numbers, ""] if numbers else []),
            f"**Licence.** {license or 'Not stated: ask the owner before you use the weights.'}\n",
            f"**Run.** {f'`{run}`' if run else 'Not stated.'}",
            "",
        ]
    )


def read_config(path: Path) -> dict[str, Any]:
    """A checked ``config.json``, ``segment`` as a :class:`SegmentConfig`.

    Raises:
        WeightsError: If it is not one that this version reads.
    """
    wrong = f"{path} is not the configuration of a model of mgca"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{wrong}: {error}") from error
    if not isinstance(config, dict) or config.get("library") != "mgca":
        raise WeightsError(f'{wrong}: it lacks "library": "mgca"')
    if config.get("format") != FORMAT:
        raise WeightsError(
            f"{path} has format {config.get('format')!r}, this mgca reads {FORMAT}: "
            "install the version that wrote it"
        )
    try:
        backbone, files = config["backbone"], config["files"]
        kinds = dict.fromkeys(("name", "last_block", "digest", "text_digest"), str)
        for key, kind in (kinds | {"pretrained": (bool, str)}).items():
            if not isinstance(backbone[key], kind):
                raise TypeError(f"{key} is {backbone[key]!r}")
        # Names are fixed, so that none leads out of the folder.
        if not isinstance(files, dict) or not files or not set(files) <= {DECODER, ALIGNMENT}:
            raise ValueError(f"its files are {sorted(files)}")
        for key, value in config["segment"].items():
            if isinstance(value, bool | float):  # which would pass for whole numbers
                raise TypeError(f"{key} is {value!r}")
        config["segment"] = SegmentConfig(**config["segment"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{wrong}: {error}") from error
    return config


def _load_backbone(wanted: dict[str, Any], *, aligned: bool) -> Backbone:
    """The backbone of a configuration; without its own alignment if another will replace that."""
    try:
        return load_backbone(
            wanted["name"],
            False if aligned else wanted["pretrained"],
            last_block=wanted["last_block"],
        )
    except ValueError as error:
        raise WeightsError(f"its backbone cannot be loaded: {error}") from error


def _own_alignment(backbone: Backbone) -> dict[str, Tensor] | None:
    """The alignment of a ``lite`` that is not the published one; None of all else."""
    if not isinstance(backbone, Lite):
        return None
    own = {key: value.detach().cpu() for key, value in backbone.alignment().items()}
    published, meta = load_weights("lite-alignment")
    same = all(torch.equal(own[key], published[key]) for key in own)
    return None if same and float(meta["temperature"]) == backbone.temperature else own


def _set_alignment(backbone: Backbone, path: Path) -> None:
    """Put the tensors of a file into a ``lite``.

    Raises:
        WeightsError: If they are not an alignment, or it is another backbone.
    """
    state, meta = read_tensors(path)
    if not isinstance(backbone, Lite):
        raise WeightsError(f"{path}: the backbone {backbone.name!r} has no alignment")
    shapes = {key: value.shape for key, value in backbone.alignment().items()}
    if {key: value.shape for key, value in state.items()} != shapes:
        raise WeightsError(f"{path}: the tensors are not those of an alignment")
    try:
        temperature = float(meta["temperature"])
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} lacks a temperature ({error})") from error
    backbone.set_alignment(**state)
    backbone.temperature = temperature


def _smallest(state: Mapping[str, Tensor]) -> torch.dtype:
    """float16 where it holds every value, else float32."""
    exact = all(torch.equal(value, value.half().to(value.dtype)) for value in state.values())
    return torch.float16 if exact else torch.float32


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
