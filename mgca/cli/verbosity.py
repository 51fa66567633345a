"""How much the commands say, on one scale: the level of the logger ``mgca``.

========  ===========  =========================================================================
option    level        what is said
========  ===========  =========================================================================
``-q``    ``ERROR``    errors, and what was asked for: lists, reports, numbers, ``--json``
          ``WARNING``  also what was written and where, and warnings
``-v``    ``INFO``     also the steps on the way, such as a line per image
========  ===========  =========================================================================

Both may stand before a command or after it. What was asked for goes to standard output, everything
that is logged to standard error.
"""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

log = logging.getLogger("mgca")

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors only, and reports that are asked for.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print also the steps on the way.")]


@contextmanager
def saying(level: int) -> Iterator[None]:
    """Set the level for the time of a command; the one before is the caller's."""
    before = log.level
    # Without effect where the process has handlers of its own, as under pytest.
    logging.basicConfig(format="%(message)s")
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


def level_of(quiet: bool, verbose: bool) -> int:
    """The level of the two options.

    Raises:
        typer.BadParameter: If both are given.
    """
    if quiet and verbose:
        raise typer.BadParameter("--quiet does not go with --verbose")
    return logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING


def speaking(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the two options, which mean the same as before its name."""

    @functools.wraps(command)
    def with_options(*, quiet: bool, verbose: bool, **given: Any) -> None:
        with saying(level_of(quiet or is_quiet(), verbose or is_verbose())):
            command(**given)

    signature = inspect.signature(command)
    options = {"quiet": Quiet, "verbose": Verbose}
    with_options.__signature__ = signature.replace(
        parameters=[
            *signature.parameters.values(),
            *(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
                )
                for name, annotation in options.items()
            ),
        ]
    )
    with_options.__annotations__ = command.__annotations__ | options
    return with_options


def is_quiet() -> bool:
    """Whether only errors are to be said."""
    return not log.isEnabledFor(logging.WARNING)


def is_verbose() -> bool:
    """Whether the steps on the way are to be said."""
    return log.isEnabledFor(logging.INFO)


def notice(text: object) -> None:
    """Say what was done, unless ``--quiet`` forbids it."""
    if not is_quiet():
        typer.echo(text)
