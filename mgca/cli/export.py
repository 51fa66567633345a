"""``mgca export``: the dense model as an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="lite, scenes, vit-b-16, or a model of open_clip."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    decoder: Annotated[
        str, typer.Option(metavar="NAME", help="mgca, none, or the file of a trained decoder.")
    ] = "mgca",
    size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Side of the windows.",
            show_default="the model's own, 448 of most",
        ),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(metavar="TAG", help="Of an open_clip model's weights.")
    ] = None,
    random: Annotated[
        bool,
        typer.Option(
            "--random",
            help="Random weights and a new decoder, to measure speed without a download.",
        ),
    ] = False,
) -> None:
    """Write encoder and decoder as one ONNX file: normalised windows to pixel embeddings."""
    from mgca.backbone import BackboneUnavailable
    from mgca.export import export_onnx
    from mgca.weights import WeightsError

    if random and (pretrained is not None or decoder not in ("mgca", "none")):
        raise typer.BadParameter("--random goes with --decoder mgca or none, and no weights")
    try:
        loaded, run = _load(model, decoder, pretrained, random)
    except (BackboneUnavailable, WeightsError) as error:
        raise OSError(str(error)) from error
    written = export_onnx(loaded, out, size=size, run=run)
    side = size or loaded.config.window
    typer.echo(f"{written}: {written.stat().st_size / 1e6:.1f} MB, windows of {side}x{side}")


def _load(name: str, decoder: str, pretrained: str | None, random: bool):
    """The model, and the hash of the run that trained its decoder."""
    from mgca.backbone import load_backbone
    from mgca.decoder import GatedConvDecoder
    from mgca.model import Model, load
    from mgca.weights import load_weights, read_tensors

    if random:
        backbone = load_backbone(name, False)
        return Model(backbone, None if decoder == "none" else GatedConvDecoder(backbone.dim)), ""
    if decoder == "none":
        return load(name, None, pretrained=pretrained or True), ""
    loaded = load(name, decoder, pretrained=pretrained or True)
    meta = (load_weights(f"{name}-mgca") if decoder == "mgca" else read_tensors(decoder))[1]
    return loaded, meta.get("run", "")
