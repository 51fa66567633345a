"""``mgca models``: what can be loaded by name, and what of it is here."""

import dataclasses
from collections import Counter
from typing import Annotated

import typer

from mgca.cli.declare import flag
from mgca.cli.loading import AsJson, echo_json


def models(
    every: Annotated[
        bool, flag("--all", "All checkpoints of open_clip: usable or why not, window, patch, size.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models: parameters, size, licence, hash and place of their files.

    Downloads nothing.
    """
    if every:
        _every(as_json)
        return
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
        "Further: the models of open_clip, which --all lists; trained decoders by their path, and "
        "hf://owner/name."
    )


def _every(as_json: bool) -> None:
    """The checkpoints of open_clip, a line each."""
    from mgca.backbone.checkpoints import checkpoints

    found = checkpoints()
    if as_json:
        echo_json([dataclasses.asdict(each) for each in found])
        return
    for each in found:
        size = f"{each.parameters / 1e6:,.0f} M" if each.parameters else "-"
        typer.echo(
            f"{each.name:<36} {each.tag:<34} {each.window or '-':>4} {each.patch or '-':>3} "
            f"{size:>8}  {each.licence or '-':<13} {each.why_not}".rstrip()
        )
    usable = [each for each in found if not each.why_not]
    families = Counter(each.family for each in found)
    of_them = Counter(each.family for each in usable)
    typer.echo()
    for family, count in families.most_common():
        typer.echo(f"{family:<20} {of_them[family]:>3} of {count:>3} usable")
    typer.echo(
        f"\n{len(usable)} of {len(found)} checkpoints are usable: --model NAME --pretrained TAG.\n"
        "Name, tag, side of the images and of the patches in pixels, parameters, licence of the "
        "weights as their authors state it; - where it was not looked up"
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
