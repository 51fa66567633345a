"""The command ``mgca``.

Each group of commands is a module beside this one with a :class:`typer.Typer`, added below. Its
functions import what is heavy when they run, so that ``mgca --help`` is quick, and let errors pass:
:func:`main` prints those that a user can do something about.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import mgca
from mgca.cli import data, doctor, evaluate, explain, export, models, segment, train

# A wrong file, a full disk, a name that does not exist: the message is enough. All else is a
# mistake of ours, whose traceback is wanted.
EXPECTED = (ValueError, OSError, ImportError)
INTERRUPTED = 130

app = typer.Typer(
    help="Multi-grained cross-modal alignment: open-vocabulary segmentation from captions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(segment.segment)
app.command()(explain.explain)
app.command()(evaluate.evaluate)
app.command()(train.train)
app.add_typer(data.app, name="data")
app.command()(export.export)
app.command()(models.models)
app.command()(doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mgca {mgca.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass  # a callback without effect of its own: typer hangs the options of `mgca` on it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 for errors and for problems found, 2 for wrong usage, 130 after Ctrl-C.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="mgca")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == INTERRUPTED:
            print("mgca: interrupted; the same command goes on from here", file=sys.stderr)
        return code
    except EXPECTED as error:
        print(f"mgca: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
