"""``mgca models``: what can be loaded by name, and what of it is here."""

import typer

from mgca.cli.loading import AsJson, echo_json


def models(as_json: AsJson = False) -> None:
    """List the models: parameters, size, licence, hash and place of their files.

    Downloads nothing.
    """
    from mgca.weights.catalogue import models

    if as_json:
        echo_json([_shown(model) for model in models()])
        return
    for model in models():
        typer.echo(f"{model.name}: {model.about}\n  {model.use}")
        for part in model.parts:
            typer.echo(
                f"  {part.file}\n"
                f"    {part.about}\n"
                f"    {part.parameters:,} parameters, {part.bytes / 1e6:.1f} MB, "
                f"licence: {part.licence}\n"
                f"    SHA-256 {part.sha256 or 'not fixed by its source'}\n"
                f"    {part.place()}"
            )
        typer.echo()
    typer.echo(
        "Further: every model of open_clip.list_pretrained() for which a dense path is defined, "
        "trained decoders by their path, and hf://owner/name."
    )


def _shown(model) -> dict:
    files = [
        {
            "file": part.file,
            "about": part.about,
            "parameters": part.parameters,
            "bytes": part.bytes,
            "licence": part.licence,
            "sha256": part.sha256,
            "package": part.package,
            "repository": part.repository,
            "path": str(part.path()) if part.path() else None,
            "place": part.place(),
        }
        for part in model.parts
    ]
    about = {"name": model.name, "about": model.about, "use": model.use, "ready": model.ready}
    return about | {"files": files}
