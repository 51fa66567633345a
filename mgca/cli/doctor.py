"""``mgca doctor``: what works on this machine, and what does not."""

import json
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check the environment, the weights and the caches. Exit code 1 if the core does not work."""
    from mgca.doctor import diagnose

    report = diagnose()
    typer.echo(json.dumps(report.to_dict(), indent=1) if as_json else report)
    if not report.ok:
        raise typer.Exit(1)
