"""A trained decoder as a file, and the decoder of such a file, of a checkpoint, or of a run."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mgca.config import config_hash
from mgca.decoder import GatedConvDecoder
from mgca.weights import WeightsError, read_tensors, write_tensors

if TYPE_CHECKING:
    from mgca.backbone import Backbone


def read_decoder(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a decoder, and what is known of it, as :func:`decoder_from` takes them.

    Args:
        path: A decoder's file, a checkpoint of a run, or a run's folder: its decoder, or where it
            has none yet its newest checkpoint.

    Returns:
        Tensors by name, and the metadata; ``"seed"`` is that of the run, where its record or the
        checkpoint says so, and ``"step"`` the step of a checkpoint.

    Raises:
        WeightsError: If the file is missing or damaged, or the folder is not a run's.
    """
    path = Path(path)
    if path.is_dir():
        newest = max(checkpoints(path), default=None)
        final = path / "decoder.safetensors"
        if not final.is_file() and newest is None:
            raise WeightsError(f"{path} is not a run's folder: no decoder and no checkpoints in it")
        path = final if final.is_file() or newest is None else newest[1]
    state, meta = read_tensors(path)
    config = meta.get("config")
    if not isinstance(config, dict):
        record = path.parent / "run.json"
        try:
            seed = json.loads(record.read_text())["seed"] if record.is_file() else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{record} is not the record of a run ({error!r})") from error
        return state, meta if seed is None else meta | {"seed": seed}
    train = config.get("train", config)
    model = {key.removeprefix("model."): value for key, value in state.items()}
    # Beside the decoder lie what the objective has learned, and the optimizer's moments.
    parts = {key.removeprefix("decoder."): value for key, value in model.items()}
    kept = ("backbone", "last_block", "upsample", "seed")
    known = {key: train[key] for key in kept if key in train} | {"step": meta.get("step")}
    known["run"] = config_hash({k: v for k, v in config.items() if k not in ("encoders", "data")})
    if "encoders" in config:
        known["backbone_digest"] = config["encoders"][0]
    if "objective.w" in model:
        known["sigmoid_weight"] = model["objective.w"].item()
        known["sigmoid_bias"] = model["objective.b"].item()
    return {key: value for key, value in parts.items() if key.startswith("blocks.")}, known


def checkpoints(run: str | os.PathLike[str]) -> Iterator[tuple[int, Path]]:
    """Step and file of each checkpoint of a run's folder, milestones included."""
    for path in sorted((Path(run) / "checkpoints").glob("step-*.safetensors")):
        step = path.stem.removeprefix("step-")
        if step.isdigit():
            yield int(step), path


def decoder_name(path: str | os.PathLike[str]) -> str:
    """What a decoder is called in tables: after its run's folder where its file has no name of its
    own, and by its step where it is a checkpoint."""
    path = Path(os.path.abspath(path))
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name} step {path.stem.removeprefix('step-').lstrip('0')}"
    if path.is_dir():
        return path.name
    return path.parent.name if path.stem == "decoder" else path.stem


def decoder_from(
    state: dict[str, Tensor], meta: dict[str, str], backbone: "Backbone"
) -> GatedConvDecoder:
    """The decoder of saved tensors, after checking that it was trained on this backbone.

    Raises:
        WeightsError: If it was not, or if the tensors are not a decoder's.
    """
    if meta.get("backbone_digest") != backbone.digest:
        raise WeightsError(
            f"this decoder was trained on the backbone {meta.get('backbone', 'unknown')!r} "
            f"({meta.get('backbone_digest', 'no digest')}), not on {backbone.name!r} "
            f"({backbone.digest})"
        )
    try:
        decoder = new_decoder(backbone, meta.get("upsample", "bilinear"))
        decoder.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"the tensors are not those of a decoder: {error}") from error
    return decoder


def new_decoder(backbone: "Backbone", upsample: str = "bilinear") -> GatedConvDecoder:
    """An untrained decoder for a backbone, of the channels that it may change.

    Args:
        backbone: Backbone that it is for.
        upsample: Interpolation of the upsampling, as for :class:`mgca.decoder.GatedConvDecoder`.
    """
    return GatedConvDecoder(backbone.dim, upsample=upsample, learned=backbone.learned)


def learned_sigmoid(meta: dict[str, str]) -> tuple[float, float] | None:
    """Weight and bias of TCL's scores, which a decoder trained with TCL's objective brings.

    Args:
        meta: Metadata of a decoder's file.

    Raises:
        WeightsError: If the metadata holds something else than two numbers.
    """
    if "sigmoid_weight" not in meta:
        return None
    try:
        return float(meta["sigmoid_weight"]), float(meta["sigmoid_bias"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"the decoder's sigmoid is no two numbers: {error}") from error


def save_decoder(
    path: str | os.PathLike[str],
    decoder: GatedConvDecoder,
    backbone: "Backbone",
    *,
    run: str = "",
    dtype: torch.dtype = torch.float16,
    sigmoid: tuple[float, ...] | None = None,
) -> Path:
    """Write a decoder that :func:`mgca.model.load` takes; the file appears complete or not at all.

    Args:
        path: File to write.
        decoder: The trained decoder.
        backbone: Backbone that it was trained on.
        run: Hash of the configuration that trained it, kept in the file.
        dtype: Precision of the tensors in the file.
        sigmoid: Weight and bias of TCL's scores, if its objective trained the decoder.

    Raises:
        OSError: If it cannot be written.
    """
    state = {key: value.to(dtype) for key, value in decoder.state_dict().items()}
    meta: dict[str, Any] = {
        "backbone": backbone.name,
        "backbone_digest": backbone.digest,
        "last_block": backbone.last_block,
        "upsample": decoder.upsample,
        "run": run,
    }
    if sigmoid is not None:
        meta |= dict(zip(("sigmoid_weight", "sigmoid_bias"), sigmoid, strict=True))
    return write_tensors(path, state, meta)
