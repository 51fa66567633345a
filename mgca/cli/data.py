"""``mgca data``: the data sets of the benchmarks, and shards to train on."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The data sets of the benchmarks, and shards to train on.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="BENCHMARK", help="See `mgca data list`.")]
Root = Annotated[Path, typer.Option(help="Folder that holds what the archives unpack to.")]
Workers = Annotated[
    int | None, typer.Option(min=1, show_default="one per core", help="Number of threads.")
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SHARDS",
        help="A folder of shards, their paths or URLs, or a pattern such as "
        "'cc3m/{00000..00331}.tar'.",
    ),
]
Processes = Annotated[
    int | None, typer.Option(min=1, show_default="one per core", help="Number of processes.")
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


@app.command()
def shards(
    sources: Sources,
    download: Annotated[
        bool, typer.Option("--download", help="Download shards that cannot be counted otherwise.")
    ] = False,
    workers: Processes = None,
) -> None:
    """Check that shards are complete, and say what they hold."""
    from mgca.shards import find_shards
    from mgca.shards.summary import summarise

    typer.echo(summarise(find_shards(_source(sources), workers=workers, download=download)))


@app.command()
def captions(
    sources: Sources,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="the cache", help="Where to write.")
    ] = None,
    workers: Processes = None,
    embed: Annotated[
        str | None,
        typer.Option(metavar="BACKBONE", help="Also embed all texts: vit-b-16, lite, scenes ..."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="To embed on: cpu, cuda ...")] = "cpu",
) -> None:
    """Extract the nouns of all captions, once, before training on shards."""
    from mgca.cli.evaluate import check_device
    from mgca.shards import find_shards
    from mgca.shards.precompute import embed_texts, extract_nouns, plan_embeddings

    backbone = None
    if embed is not None:  # what is unknown here should not be found out after the nouns
        from mgca.backbone import BackboneUnavailable, load_backbone

        check_device(device)
        try:
            backbone = load_backbone(embed).to(device)
        except BackboneUnavailable as error:
            raise OSError(str(error)) from error
    found = find_shards(_source(sources), workers=workers)
    fresh = extract_nouns(found, folder=out, workers=workers)
    typer.echo(f"nouns of {len(found):,} captions, {fresh} of {len(found.names)} shards were new")
    if backbone is not None:
        plan = plan_embeddings(found, backbone, folder=out)
        typer.echo(plan)
        embed_texts(found, backbone, plan, folder=out)


@app.command()
def pack(
    file: Annotated[
        Path, typer.Argument(metavar="CAPTIONS.tsv", help="A table of image and caption.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="images beside the table", help="Of the images."),
    ] = None,
    samples_per_shard: Annotated[int, typer.Option(min=1, metavar="N", help="At most.")] = 1000,
    all_captions: Annotated[
        bool,
        typer.Option("--all-captions", help="A sample for each caption, not only the first."),
    ] = False,
) -> None:
    """Pack images with captions into shards."""
    from mgca.data import load_captions
    from mgca.shards.pack import pack

    number = pack(
        load_captions(file, images),
        out,
        samples_per_shard=samples_per_shard,
        all_captions=all_captions,
    )
    typer.echo(f"{number} shards in {out}")


def _source(sources: list[str]) -> str | list[str]:
    """One source may be a folder or a pattern; several are shards, as a shell lists them."""
    return sources[0] if len(sources) == 1 else sources


def _check(benchmark, root: Path, limit: int | None, workers: int | None, as_json: bool) -> None:
    """Print a report; end with code 1 if it lists problems."""
    from mgca.benchmarks.check import check

    report = check(benchmark, root, limit=limit, workers=workers)
    typer.echo(json.dumps(report.to_dict(), indent=1) if as_json else report)
    if not report.ok:
        raise typer.Exit(1)
