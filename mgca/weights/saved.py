"""A trained model as a folder: ``config.json``, safetensors files, and a model card.

The folder holds what was trained and nothing else: ``decoder.safetensors``, and of ``lite`` its
alignment where that is not the published one. The frozen encoder is not copied; ``config.json``
names it together with its digest, the window, and the SHA-256 of each file. No file is ever
executed or unpickled. What is read here becomes a model in :mod:`mgca.model`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mgca.config import SegmentConfig, to_dict
from mgca.decoder import GatedConvDecoder
from mgca.utils.files import file_digest, write_text
from mgca.utils.settings import from_table
from mgca.weights import WeightsError, read_tensors, write_tensors
from mgca.weights.decoders import save_decoder

if TYPE_CHECKING:
    from mgca.backbone import Backbone

FORMAT = 1  # of config.json; a reader refuses any other
CONFIG, DECODER, ALIGNMENT = "config.json", "decoder.safetensors", "alignment.safetensors"

#: Tensors of a file by name, and its metadata.
Tensors = tuple[dict[str, Tensor], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The frozen encoder that a model was trained on, which is named and not copied.

    Attributes:
        name: Name of the backbone.
        pretrained: Its weights, as :func:`mgca.backbone.load_backbone` takes them.
        last_block: Variant of a vision transformer's last block.
        digest: Digest of what the dense features depend on.
        text_digest: Digest of the text encoder.
    """

    name: str
    pretrained: bool | str
    last_block: str
    digest: str
    text_digest: str


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """The content of a saved model's ``config.json``.

    Attributes:
        library: Always ``"mgca"``.
        format: Number of the format, ``FORMAT``.
        backbone: The encoder.
        segment: Sliding window and units.
        files: SHA-256 of each file by its name.
    """

    library: str
    format: int
    backbone: Encoder
    segment: SegmentConfig
    files: dict[str, str]

    def __post_init__(self) -> None:
        # Names are fixed, so that none leads out of the folder.
        if not self.files or not set(self.files) <= {DECODER, ALIGNMENT}:
            raise ValueError(f"its files are {sorted(self.files)}")


def write(
    folder: str | os.PathLike[str],
    backbone: "Backbone",
    segment: SegmentConfig,
    *,
    pretrained: bool | str = True,
    decoder: GatedConvDecoder | None = None,
    sigmoid: tuple[float, ...] | None = None,
    alignment: Tensors | None = None,
    run: str = "",
) -> Path:
    """Write ``config.json`` and the trained tensors of a model to a folder.

    Tensors are kept in half precision where that loses nothing, else in float32.

    Args:
        folder: The folder, which is made if need be.
        backbone: The frozen encoder, of which the name and the digests are kept.
        segment: Sliding window and units.
        pretrained: Weights of the encoder, as :func:`mgca.backbone.load_backbone` takes them.
        decoder: The trained decoder.
        sigmoid: Numbers ``w`` and ``b`` that TCL's objective learned with the decoder.
        alignment: Tensors and metadata of an alignment that is not the published one.
        run: Hash of the configuration that trained them, kept in the files.

    Raises:
        ValueError: If nothing is trained.
        OSError: If a file cannot be written.
    """
    folder, written = Path(folder), []
    if decoder is None and alignment is None:
        raise ValueError("nothing of this model is trained: it has no decoder to share")
    if decoder is not None:
        dtype = _smallest(decoder.state_dict())
        written.append(
            save_decoder(folder / DECODER, decoder, backbone, run=run, dtype=dtype, sigmoid=sigmoid)
        )
    if alignment is not None:
        state, meta = alignment
        dtype = _smallest(state)
        state = {key: value.to(dtype) for key, value in state.items()}
        written.append(write_tensors(folder / ALIGNMENT, state, meta | {"run": run}))
    config = SavedConfig(
        library="mgca",
        format=FORMAT,
        backbone=Encoder(
            name=backbone.name,
            pretrained=pretrained,
            last_block=backbone.last_block,
            digest=backbone.digest,
            text_digest=backbone.text_digest,
        ),
        segment=segment,
        files={path.name: file_digest(path) for path in written},
    )
    write_text(folder / CONFIG, json.dumps(to_dict(config), indent=1) + "\n")
    return folder


def read(
    folder: str | os.PathLike[str],
) -> tuple[SavedConfig, Tensors | None, Tensors | None]:
    """The saved model that :func:`write` wrote to a folder, every file checked against its hash.

    Returns:
        The configuration; tensors and metadata of the decoder; those of the alignment. None for
        what the model does not have.

    Raises:
        WeightsError: If a file is missing, damaged, or not one of a model of this format.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG)
    for file, sha256 in config.files.items():
        path = folder / file
        if not path.is_file():
            raise WeightsError(f"no weights file {path}")
        if (digest := file_digest(path)) != sha256:
            raise WeightsError(
                f"{path} has SHA-256 {digest}, expected {sha256}: delete the folder {folder} and "
                "what its links point to, and load again"
            )
    decoder, alignment = (
        read_tensors(folder / file) if file in config.files else None
        for file in (DECODER, ALIGNMENT)
    )
    return config, decoder, alignment


def read_config(path: Path) -> SavedConfig:
    """The content of a ``config.json``, checked.

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
        return from_table(SavedConfig, config)
    except ValueError as error:
        raise WeightsError(f"{wrong}: {error}") from error


def model_card(
    repo: str,
    folder: str | Path,
    *,
    data: str,
    metrics: Mapping[str, float],
    license: str | None,
    run: str,
) -> str:
    """The README of a repository, for the files of :func:`write`."""
    from huggingface_hub import ModelCardData

    folder = Path(folder)
    config = read_config(folder / CONFIG)
    encoder = config.backbone
    about = ModelCardData(
        library_name="mgca",
        pipeline_tag="image-segmentation",
        license=license,
        tags=["mgca", "open-vocabulary-segmentation"],
    )
    rows = []
    for file, sha256 in config.files.items():
        parameters = sum(value.numel() for value in read_tensors(folder / file)[0].values())
        rows.append(f"| `{file}` | {parameters:,} | `{sha256}` |")
    numbers = [f"| {key} | {value:g} |" for key, value in metrics.items()]
    return "\n".join(
        [
            f"---\n{about.to_yaml()}\n---\n",
            f"# {repo.partition('/')[2]}\n",
            "Open-vocabulary semantic segmentation with MGCA (arXiv:2403.03707): what was trained "
            f"on top of the frozen encoders of `{encoder.name}`, which are not included.\n",
            "```python",
            "import mgca\n",
            f'model = mgca.load("hf://{repo}")',
            'model.segment("photo.jpg", ["cat", "a wooden table"]).overlay()',
            "```\n",
            "| file | parameters | SHA-256 |\n|---|---|---|",
            *rows,
            f"\n**Encoders.** `{encoder.name}`, weights `{encoder.pretrained}`, last block "
            f"`{encoder.last_block}`, digest `{encoder.digest}`. Their "
            "own terms apply.\n",
            f"**Data.** {data or 'Not stated.'}\n",
            "**Numbers.** " + ("" if numbers else "None given.") + "\n",
            *(["| measure | value |\n|---|---|", *numbers, ""] if numbers else []),
            f"**Licence.** {license or 'Not stated: ask the owner before you use the weights.'}\n",
            f"**Run.** {f'`{run}`' if run else 'Not stated.'}",
            "",
        ]
    )


def _smallest(state: Mapping[str, Tensor]) -> torch.dtype:
    """float16 where it holds every value, else float32."""
    exact = all(torch.equal(value, value.half().to(value.dtype)) for value in state.values())
    return torch.float16 if exact else torch.float32
