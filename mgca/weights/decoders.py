"""A trained decoder as a file, and the decoder of such a file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mgca.decoder import GatedConvDecoder
from mgca.weights import WeightsError, write_tensors

if TYPE_CHECKING:
    from mgca.backbone import Backbone


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
        decoder = GatedConvDecoder(backbone.dim, upsample=meta.get("upsample", "bilinear"))
        decoder.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"the tensors are not those of a decoder: {error}") from error
    return decoder


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
    """Write a decoder that :func:`load` takes; the file appears complete or not at all.

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
