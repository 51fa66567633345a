"""``mgca data``: the data sets of the benchmarks, and shards to train on."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import AsJson, check_device, echo_json, examples
from mgca.cli.verbosity import notice, speaking

if TYPE_CHECKING:
    from mgca.data.benchmarks import Benchmark

BENCHMARKS, SHARDS = "Benchmarks", "Shards"  # panels of the help
PHOTOS = "photos"  # no benchmark: the sets of the photos scale

app = typer.Typer(
    help="The data sets of the benchmarks, and shards to train on.",
    no_args_is_help=True,
    epilog=examples(
        "mgca data check voc20 --root /data/voc2012",
        "mgca data pack captions.tsv shards",
        "mgca data captions shards --embed lite",
    ),
)


def _benchmarks() -> list[str]:
    from mgca.data.benchmarks import benchmark_names

    return benchmark_names()


Name = Annotated[str, argument("BENCHMARK", "See `mgca data list`.", autocompletion=_benchmarks)]
Root = Annotated[Path, option("DIR", "Folder that holds what the archives unpack to.")]
Workers = Annotated[
    int | None, option("N", "Number of threads.", min=1, show_default="one per core")
]
Sources = Annotated[
    list[str],
    argument(
        "SHARDS",
        "A folder of shards, their paths or URLs, or a pattern such as 'cc3m/{00000..00331}.tar'.",
    ),
]
CaptionKey = Annotated[str, option("KEY", "Key of the samples' .json under which captions lie.")]
Processes = Annotated[
    int | None, option("N", "Number of processes.", min=1, show_default="one per core")
]


@app.command("list", rich_help_panel=BENCHMARKS)
@speaking
def list_benchmarks(as_json: AsJson = False) -> None:
    """List the benchmarks."""
    from mgca.data.benchmarks import benchmark_names, load_benchmark

    benchmarks = [load_benchmark(name) for name in benchmark_names()]
    if as_json:
        echo_json(
            [
                {
                    "name": benchmark.name,
                    "title": benchmark.title,
                    "split": benchmark.split,
                    "images": benchmark.image_count,
                    "classes": benchmark.class_count,
                    "conversion": benchmark.conversion,
                }
                for benchmark in benchmarks
            ]
        )
        return
    for benchmark in benchmarks:
        typer.echo(
            f"{benchmark.name:8} {benchmark.image_count:5} images "
            f"{benchmark.class_count:4} classes  {benchmark.title}, {benchmark.split}"
            + ", needs `mgca data prepare`"
            * (benchmark.conversion is not None)
        )


@app.command(
    rich_help_panel=BENCHMARKS, epilog=examples("mgca data check voc20 --root /data/voc2012 --json")
)
@speaking
def check(
    name: Name,
    root: Root,
    limit: Annotated[
        int | None, option("N", "Only the first so many images.", min=1, show_default="all")
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Verify that images and masks are complete and sound. Exit code 1 if they are not."""
    from mgca.data.benchmarks import load_benchmark

    _check(load_benchmark(name), root, limit, workers, as_json, {})


@app.command(
    rich_help_panel=BENCHMARKS,
    epilog=examples(
        "mgca data prepare city --root /data/cityscapes",
        "mgca data prepare photos --root /data/archives --out /data/photos",
    ),
)
@speaking
def prepare(
    name: Annotated[
        str,
        argument(
            "BENCHMARK",
            "See `mgca data list`; or photos, the sets of the photos scale.",
            autocompletion=lambda: [*_benchmarks(), PHOTOS],
        ),
    ],
    root: Root,
    out: Annotated[Path | None, option("DIR", "Where photos are written.")] = None,
    source: Annotated[
        str | None,
        option(
            "NAME",
            "What to make masks from: stuff or instances (coco), json or mat (context, c59).",
            show_default="the first that is there",
        ),
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Make the masks that the download does not bring, then check. Downloads nothing.

    The photos are built from what the archives of VOC 2012, COCO 2017, CamVid and Flickr8k unpack
    to, and compared with the copy that was measured on. Exit code 1 if an archive is missing.
    """
    if name == PHOTOS:
        if out is None or source is not None or workers is not None:
            raise typer.BadParameter("photos takes --root and --out, and nothing else")
        _prepare_photos(root, out, as_json)
        return
    if out is not None:
        raise typer.BadParameter("--out is for photos: masks are made where the images are")
    from mgca.data.benchmarks import load_benchmark
    from mgca.data.benchmarks.prepare import prepare

    benchmark = load_benchmark(name)
    made = prepare(benchmark, root, workers=workers, source=source)
    if not as_json:
        typer.echo(made)
    _check(benchmark, root, None, workers, as_json, {"prepared": asdict(made)})


@app.command(
    rich_help_panel=SHARDS,
    epilog=examples("mgca data shards cc3m", "mgca data shards 'cc3m/{00000..00331}.tar' --json"),
)
@speaking
def shards(
    sources: Sources,
    download: Annotated[
        bool, flag("--download", "Download shards that cannot be counted otherwise.")
    ] = False,
    workers: Processes = None,
    caption_key: CaptionKey = "caption",
    as_json: AsJson = False,
) -> None:
    """Check that shards are complete, and say what they hold and how much of it can be used."""
    from mgca.data.shards import find_shards
    from mgca.data.shards.summary import summarise

    chosen = find_shards(
        _source(sources), workers=workers, download=download, caption_key=caption_key
    )
    summary = summarise(chosen, workers)
    if as_json:
        echo_json(summary.to_dict())
    else:
        typer.echo(summary)


@app.command(
    rich_help_panel=SHARDS,
    epilog=examples("mgca data captions cc3m --embed vit-b-16 --device cuda"),
)
@speaking
def captions(
    sources: Sources,
    out: Annotated[Path | None, option("DIR", "Where to write.", show_default="the cache")] = None,
    workers: Processes = None,
    embed: Annotated[
        str | None, option("BACKBONE", "Also embed all texts: vit-b-16, lite, scenes ...")
    ] = None,
    device: Annotated[str, option("NAME", "To embed on: cpu, cuda ...")] = "cpu",
    caption_key: CaptionKey = "caption",
    as_json: AsJson = False,
) -> None:
    """Extract the nouns of all captions, once, before training on shards."""
    from mgca.data.shards import find_shards
    from mgca.data.shards.precompute import embed_texts, extract_nouns, plan_embeddings

    backbone = None
    if embed is not None:  # what is unknown here should not be found out after the nouns
        from mgca.backbone import BackboneUnavailable, load_backbone

        check_device(device)
        try:
            backbone = load_backbone(embed).to(device)
        except BackboneUnavailable as error:
            raise OSError(str(error)) from error
    chosen = find_shards(_source(sources), workers=workers, caption_key=caption_key)
    fresh = extract_nouns(chosen, folder=out, workers=workers)
    done = {"captions": len(chosen), "shards": len(chosen.names), "new_shards": fresh}
    if not as_json:
        notice(f"nouns of {len(chosen):,} captions, {fresh} of {len(chosen.names)} shards were new")
    if backbone is not None:
        plan = plan_embeddings(chosen, backbone, folder=out)
        if not as_json:
            notice(plan)
        embed_texts(chosen, backbone, plan, folder=out)
        done["embedded"] = {
            "captions": plan.captions,
            "nouns": len(plan.nouns),
            "bytes": plan.needed,
            "folder": str(plan.folder),
        }
    if as_json:
        echo_json(done)


@app.command(
    rich_help_panel=SHARDS, epilog=examples("mgca data pack captions.tsv shards --images photos")
)
@speaking
def pack(
    file: Annotated[Path, argument("CAPTIONS.tsv", "A table of image and caption.")],
    out: Annotated[Path, argument("OUT", "A new folder.")],
    images: Annotated[
        Path | None, option("DIR", "Of the images.", show_default="images beside the table")
    ] = None,
    samples_per_shard: Annotated[int, option("N", "At most.", min=1)] = 1000,
    all_captions: Annotated[
        bool, flag("--all-captions", "A sample for each caption, not only the first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pack images with captions into shards."""
    from mgca.data.captions import load_captions
    from mgca.data.shards.pack import pack

    number = pack(
        load_captions(file, images),
        out,
        samples_per_shard=samples_per_shard,
        all_captions=all_captions,
    )
    if as_json:
        echo_json({"shards": number, "folder": str(out)})
    else:
        notice(f"{number} shard{'s' * (number != 1)} in {out}")


def _prepare_photos(root: Path, out: Path, as_json: bool) -> None:
    """Build the development sets, and say of each what became of it."""
    from mgca.data.photographs import prepare_photographs

    built = prepare_photographs(root, out)
    if as_json:
        echo_json([asdict(one) for one in built])
    for one in () if as_json else built:
        typer.echo(one)
    if any(one.missing for one in built):
        raise typer.Exit(1)
    if not as_json:
        notice(f"export MGCA_DATA={out.resolve()}")


def _source(sources: list[str]) -> str | list[str]:
    """One source may be a folder or a pattern; several are shards, as a shell lists them."""
    return sources[0] if len(sources) == 1 else sources


def _check(
    benchmark: "Benchmark",
    root: Path,
    limit: int | None,
    workers: int | None,
    as_json: bool,
    before: dict[str, object],
) -> None:
    """Print a report, and what was done before it; end with code 1 if it lists problems."""
    from mgca.data.benchmarks.check import check

    report = check(benchmark, root, limit=limit, workers=workers)
    if as_json:
        echo_json(before | report.to_dict())
    else:
        typer.echo(report)
    if not report.ok:
        raise typer.Exit(1)
