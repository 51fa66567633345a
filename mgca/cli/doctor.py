"""``mgca doctor``: what works on this machine, and what does not."""

import typer

from mgca.cli.loading import AsJson, echo_json


def doctor(as_json: AsJson = False) -> None:
    """Check the environment, the weights and the caches. Exit code 1 if the core does not work."""
    from mgca.cli.diagnosis import diagnose

    report = diagnose()
    if as_json:
        echo_json(report.to_dict())
    else:
        typer.echo(report)
    if not report.ok:
        raise typer.Exit(1)
