"""``mgca export``: the dense model as an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import (
    MODEL,
    AsJson,
    Decoder,
    ModelArgument,
    Pretrained,
    check_published,
    echo_json,
    examples,
    load_named,
)
from mgca.cli.verbosity import notice

if TYPE_CHECKING:
    from mgca.model import Model

EXAMPLES = examples(
    "mgca export lite lite.onnx",
    "mgca export lite dense.onnx --decoder none --size 224",
)


def export(
    model: ModelArgument,
    out: Annotated[Path, argument("OUT.onnx", "The file to write.")],
    decoder: Decoder = "mgca",
    pretrained: Pretrained = None,
    size: Annotated[
        int | None,
        option(
            "PIXELS", "Side of the windows.", min=1, show_default="the model's own, 448 of most"
        ),
    ] = None,
    random: Annotated[
        bool,
        flag(
            "--random",
            "Random weights and a new decoder, to measure speed without a download.",
            MODEL,
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write encoder and decoder as one ONNX file: normalised windows to pixel embeddings."""
    from mgca.backbone import BackboneUnavailable
    from mgca.inference.export import export_onnx
    from mgca.weights import WeightsError

    if random and (pretrained is not None or decoder not in ("mgca", "none")):
        raise typer.BadParameter("--random goes with --decoder mgca or none, and no weights")
    try:
        loaded, run = _load(model, decoder, pretrained, random)
    except (BackboneUnavailable, WeightsError) as error:
        raise OSError(str(error)) from error
    written = export_onnx(loaded, out, size=size, run=run)
    side = size or loaded.config.window
    if as_json:
        about = {"file": str(written), "bytes": written.stat().st_size, "window": side, "run": run}
        echo_json({"model": model, "decoder": decoder} | about)
        return
    notice(f"{written}: {written.stat().st_size / 1e6:.1f} MB, windows of {side}x{side}")


def _load(name: str, decoder: str, pretrained: str | None, random: bool) -> "tuple[Model, str]":
    """The model, and the hash of the run that trained its decoder, "" where none is known."""
    from mgca.backbone import load_backbone
    from mgca.model import Model
    from mgca.weights import HEADS, load_weights
    from mgca.weights.decoders import decoder_from, new_decoder, read_decoder

    if random:
        backbone = load_backbone(name, False)
        return Model(
            backbone,
            None if decoder == "none" or name in HEADS else new_decoder(backbone),
        ), ""
    if decoder == "none" or name in HEADS and decoder == "mgca" or name.startswith("hf://"):
        return load_named(name, decoder, None, pretrained)[0], ""
    if decoder == "mgca":
        check_published(name)
    # As mgca.load, which does not say what else the decoder's file holds.
    state, meta = load_weights(f"{name}-mgca") if decoder == "mgca" else read_decoder(decoder)
    backbone = load_backbone(name, pretrained or True, last_block=meta.get("last_block", "value"))
    return Model(backbone, decoder_from(state, meta, backbone)), meta.get("run", "")
