"""How commands declare what they take: an argument, an option with a value, a flag."""

from typing import Any

import typer


def argument(metavar: str, about: str, **more: Any) -> Any:
    """What is given by its place.

    Args:
        metavar: What stands for its value in the help.
        about: What the help says of it.
        more: More of ``typer.Argument``.
    """
    return typer.Argument(metavar=metavar, help=about, **more)


def option(metavar: str, about: str, panel: str | None = None, name: str = "", **more: Any) -> Any:
    """An option with a value.

    Args:
        metavar: What stands for its value in the help.
        about: What the help says of it.
        panel: Panel of the help that it stands in.
        name: Its name, with dashes; empty: that of the parameter.
        more: More of ``typer.Option``.
    """
    names = [name] if name else []
    return typer.Option(*names, metavar=metavar, help=about, rich_help_panel=panel, **more)


def flag(name: str, about: str, panel: str | None = None) -> Any:
    """An option without a value.

    Args:
        name: Its name, with dashes.
        about: What the help says of it.
        panel: Panel of the help that it stands in.
    """
    return typer.Option(name, help=about, rich_help_panel=panel)
