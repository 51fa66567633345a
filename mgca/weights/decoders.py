"""A trained decoder as a file, and the decoder of such a file."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgca.backbone import Backbone
from mgca.decoder import GatedConvDecoder
from mgca.weights import WeightsError, write_tensors


def decoder_from(
    state: dict[str, Tensor], meta: dict[str, str], backbone: Backbone
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
    if "sigmoid_weight" in meta:
        try:
            decoder.sigmoid = float(meta["sigmoid_weight"]), float(meta["sigmoid_bias"])
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"the decoder's sigmoid is no two numbers: {error}") from error
    return decoder


def save_decoder(
    path: str | os.PathLike[str],
    decoder: GatedConvDecoder,
    backbone: Backbone,
    *,
    run: str = "",
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a decoder that :func:`load` takes; the file appears complete or not at all.

    Args:
        run: Hash of the configuration that trained it, kept in the file.

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
    if decoder.sigmoid:
        meta |= dict(zip(("sigmoid_weight", "sigmoid_bias"), decoder.sigmoid, strict=True))
    return write_tensors(path, state, meta)
