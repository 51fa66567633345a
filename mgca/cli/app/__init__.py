"""``mgca app``: a page for one's own photographs, in the browser of this machine and nowhere else.

:mod:`mgca.cli.app.view` computes what the page shows, :mod:`mgca.cli.app.page` lays it out with
gradio, and :mod:`mgca.cli.app.server` serves it. gradio is the extra ``app``.
"""

from typing import Annotated

import typer

from mgca.cli.declare import flag, option
from mgca.cli.loading import Decoder, Device, ModelName, Pretrained, Refine

PAGE = "The page"  # panel of the help


def app(
    model: ModelName = "lite",
    decoder: Decoder = "mgca",
    pretrained: Pretrained = None,
    device: Device = "auto",
    refine: Refine = False,
    port: Annotated[
        int, option("N", "Where the page is; 0: any that is free.", PAGE, min=0, max=65535)
    ] = 7860,
    max_upload: Annotated[int, option("MIB", "Size of a photograph.", PAGE, min=1)] = 50,
    browse: Annotated[bool, flag("--open/--no-open", "Open it in the browser.", PAGE)] = True,
) -> None:
    """Try words and units on a photograph, on a page in the browser; Ctrl-C ends it.

    The page is for this machine alone: no other reaches it, nothing leaves it, and uploads are
    deleted at the end. Needs gradio, the extra app.
    """
    from mgca.cli.app.server import address, check_installed, listen, serve
    from mgca.cli.loading import load_for_photographs

    check_installed()
    listener = listen(port)  # before the model is loaded, which takes longer
    with listener:
        loaded, shown = load_for_photographs(
            device, model, decoder, pretrained, refine="pamr" if refine else ""
        )
        typer.echo(f"{address(listener)} is the page; Ctrl-C ends it")
        serve(loaded, shown, listener, largest=max_upload * 2**20, browse=browse)
