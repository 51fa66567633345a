"""The command ``mgca``.

Each command is a module beside this one, registered below. Its functions import what is heavy when
they run, so that ``mgca --help`` is quick, and let errors pass: :func:`main` prints those that a
user can do something about.

Every command ends with one of these codes:

====  ==============================================================================================
code  meaning
====  ==============================================================================================
0     done, or there was nothing left to do
1     an error, or a problem was found: an image that cannot be read, a data set that is not
      complete, a core that does not work
2     wrong usage: nothing was done
130   interrupted, by Ctrl-C or by a signal to a training run: the same command goes on from there
====  ==============================================================================================
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

import mgca
from mgca.cli import (
    ablate,
    app,
    calibrate,
    data,
    doctor,
    evaluate,
    experiment,
    explain,
    export,
    models,
    reproduce,
    segment,
    train,
    verify,
)
from mgca.cli.loading import examples
from mgca.cli.verbosity import Quiet, Verbose, level_of, saying, speaking

# A wrong file, a full disk, a name that does not exist: the message is enough. All else is a
# mistake of ours, whose traceback is wanted.
EXPECTED = (ValueError, OSError, ImportError)
INTERRUPTED = 130
# Commands that keep what is finished.
RESUMING = [
    [name]
    for name in (
        "segment",
        "evaluate",
        "data",
        "train",
        "ablate",
        "experiment",
        "reproduce",
        "verify",
    )
]

USING, TRAINING, INSTALLATION = "Use a model", "Train", "This installation"  # panels of the help

commands = typer.Typer(
    help="Multi-grained cross-modal alignment: open-vocabulary segmentation from captions.",
    epilog=examples(
        'mgca segment photos/ --classes "cat, sofa, wooden table" --out segmented',
        "mgca explain photo.jpg --word cat --out cat.png",
    )
    + "\n\nExit codes: 0 done; 1 an error, or a problem found; 2 wrong usage; 130 interrupted,\n"
    "and the same command goes on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _add(function: Callable[..., None], panel: str, epilog: str = "") -> None:
    """Register a command; the lines of a paragraph of its docstring are made one, to be wrapped."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    commands.command(help=text, epilog=epilog, rich_help_panel=panel)(speaking(function))


_add(segment.segment, USING, segment.EXAMPLES)
_add(explain.explain, USING, explain.EXAMPLES)
_add(app.app, USING, examples("mgca app", "mgca app --model scenes --no-open --port 8000"))
_add(evaluate.evaluate, USING, evaluate.EXAMPLES)
_add(calibrate.calibrate, USING, calibrate.EXAMPLES)
_add(export.export, USING, export.EXAMPLES)
commands.add_typer(data.app, name="data", rich_help_panel=TRAINING)
_add(train.train, TRAINING, train.EXAMPLES)
commands.add_typer(experiment.app, name="experiment", rich_help_panel=TRAINING)
_add(ablate.ablate, TRAINING, ablate.EXAMPLES)
_add(reproduce.reproduce, TRAINING, reproduce.EXAMPLES)
_add(verify.verify, TRAINING, verify.EXAMPLES)
_add(models.models, INSTALLATION, examples("mgca models", "mgca models --json"))
_add(doctor.doctor, INSTALLATION, examples("mgca doctor", "mgca doctor --json"))


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mgca {mgca.__version__}")
        raise typer.Exit


@commands.callback()
def _options(
    context: typer.Context,
    quiet: Quiet = False,
    verbose: Verbose = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    context.with_resource(saying(level_of(quiet, verbose)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 for errors and for problems found, 2 for wrong usage, 130 after Ctrl-C.
    """
    try:
        commands(args=None if arguments is None else list(arguments), prog_name="mgca")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code == INTERRUPTED:
            words = [word for word in arguments or sys.argv[1:] if not word.startswith("-")]
            further = "; the same command goes on from here" if words[:1] in RESUMING else ""
            print(f"mgca: interrupted{further}", file=sys.stderr)
        return code
    except EXPECTED as error:
        print(f"mgca: {' '.join(_reason(error).split())}", file=sys.stderr)
        return 1
    return 0


def _reason(error: Exception) -> str:
    """The message of an error; for an error of the system without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
