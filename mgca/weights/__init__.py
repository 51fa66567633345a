"""Weights trained by this project: small safetensors files, checked against known hashes.

``manifest.json`` maps each name to its file's SHA-256; the model card is ``README.md`` beside it.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from mgca.utils.files import damaged, file_digest, replacing, write_text

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent
#: Encoders whose own head MGCA has trained: with it they need no decoder.
HEADS = ("lite",)


class WeightsError(RuntimeError):
    """A weights file is missing, damaged, or made for something else."""


def manifest() -> dict[str, str]:
    """SHA-256 of each weights file by its name."""
    return json.loads((FOLDER / "manifest.json").read_text())


def load_weights(name: str) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Tensors (float32) and metadata of weights that come with the project.

    Raises:
        WeightsError: If the name is unknown or the file is not the one the manifest names.
    """
    digests = manifest()
    path = FOLDER / f"{name}.safetensors"
    if name not in digests or not path.is_file():
        raise WeightsError(f"no weights {name!r}, only {', '.join(sorted(digests)) or 'none'}")
    digest = file_digest(path)
    if digest != digests[name]:
        raise WeightsError(
            f"{path} has SHA-256 {digest}, expected {digests[name]}: reinstall mgca, or check the "
            "file out again"
        )
    return read_tensors(path)


def publish(name: str, path: str | Path) -> None:
    """Copy a weights file to those that come with the project, and note its hash.

    Raises:
        WeightsError: If it is not a complete safetensors file.
    """
    read_tensors(path)
    published = FOLDER / f"{name}.safetensors"
    with replacing(published) as temporary:
        temporary.write_bytes(Path(path).read_bytes())
    digests = manifest() | {name: file_digest(published)}
    write_text(FOLDER / "manifest.json", json.dumps(digests, indent=1) + "\n")


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """Tensors (floating ones as float32) and metadata of a safetensors file.

    Raises:
        WeightsError: If the file is missing, truncated or not a safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no weights file {path}")
    with damaged(WeightsError, f"{path} is not a complete safetensors file"):
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}
            meta = _unpack(file.metadata() or {})
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, meta


def write_tensors(
    path: str | os.PathLike[str], state: dict[str, "Tensor"], meta: dict[str, Any]
) -> Path:
    """Write a safetensors file whole or not at all; equal contents give equal bytes.

    Raises:
        OSError: If it cannot be written.
    """
    from safetensors.torch import save_file  # torch with it, which a list of models needs not

    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with replacing(path) as temporary:
        try:
            # One entry: safetensors writes several in an order that changes from run to run.
            save_file(state, temporary, metadata={_META: json.dumps(meta, sort_keys=True)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    return Path(path)


_META = "mgca"


def _unpack(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata as :func:`write_tensors` packs it, or as it is."""
    if _META not in metadata:
        return metadata
    try:
        return dict(json.loads(metadata[_META]))
    except (ValueError, TypeError, RecursionError) as error:
        raise SafetensorError(f"its metadata is damaged ({error})") from error
