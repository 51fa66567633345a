"""``mgca data``: the data sets of the benchmarks."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The data sets of the benchmarks.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="BENCHMARK", help="See `mgca data list`.")]
Root = Annotated[Path, typer.Option(help="Folder that holds what the archives unpack to.")]
Workers = Annotated[
    int | None, typer.Option(min=1, show_default="one per core", help="Number of threads.")
]


@app.command("list")
def list_benchmarks() -> None:
    """List the benchmarks."""
    from mgca.benchmarks import benchmark_names, load_benchmark

    for name in benchmark_names():
        benchmark = load_benchmark(name)
        typer.echo(
            f"{name:8} {benchmark.image_count:5} images {benchmark.class_count:4} classes  "
            f"{benchmark.title}, {benchmark.split}"
            + ", needs `mgca data prepare`"
            * (benchmark.conversion is not None)
        )


@app.command()
def check(
    name: Name,
    root: Root,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, show_default="all", help="Only the first so many images.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Verify that images and masks are complete and sound. Exit code 1 if they are not."""
    from mgca.benchmarks import load_benchmark

    _check(load_benchmark(name), root, limit, workers, as_json)


@app.command()
def prepare(
    name: Name,
    root: Root,
    source: Annotated[
        str | None,
        typer.Option(
            show_default="the first that is there",
            help="What to make masks from: stuff or instances (coco), json or mat (context, c59).",
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """Make the masks that the download does not bring, then check. Downloads nothing."""
    from mgca.benchmarks import load_benchmark
    from mgca.benchmarks.prepare import prepare

    benchmark = load_benchmark(name)
    typer.echo(prepare(benchmark, root, workers=workers, source=source))
    _check(benchmark, root, None, workers, as_json=False)


def _check(benchmark, root: Path, limit: int | None, workers: int | None, as_json: bool) -> None:
    """Print a report; end with code 1 if it lists problems."""
    from mgca.benchmarks.check import check

    report = check(benchmark, root, limit=limit, workers=workers)
    typer.echo(json.dumps(report.to_dict(), indent=1) if as_json else report)
    if not report.ok:
        raise typer.Exit(1)
