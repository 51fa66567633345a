"""``mgca experiment``: the tables of the scales, what stands beside them, and what is published."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import RESULTS, AsJson, Config, echo_json, examples, seeds_of
from mgca.cli.verbosity import notice, speaking

if TYPE_CHECKING:
    from mgca.config import TrainConfig
    from mgca.experiments.scale import Scale

TRAINED = "What is trained"  # a panel of the help
SCALES = ("scenes", "photos")
WEIGHTS = ("scenes-clip", "scenes-decoders", "lite")

app = typer.Typer(
    help="Repeat or add an experiment: tables, curves, times, and the weights that come with mgca.",
    no_args_is_help=True,
    epilog=examples(
        "mgca experiment run granularity k --scale scenes --jobs 2",
        "mgca experiment run main --scale photos --data DIR --publish",
        "mgca experiment publish scenes-decoders",
    ),
)


def _tables() -> list[str]:
    from mgca.experiments.grid import ABLATIONS

    return list(ABLATIONS)


ScaleName = Annotated[
    str,
    option(
        "NAME",
        "scenes or photos; for `run` also paper, with --config.",
        name="--scale",
        autocompletion=lambda: list(SCALES),
    ),
]
Data = Annotated[
    Path | None, option("DIR", "Data sets.", show_default="$MGCA_DATA, or ../shared/data")
]
Cache = Annotated[
    Path | None, option("DIR", "Features.", show_default="$MGCA_CACHE, or ~/.cache/mgca")
]
Publish = Annotated[
    bool,
    flag(
        "--publish", "Write into results/ of this clone, and not into _build/experiments.", RESULTS
    ),
]


@app.command(
    epilog=examples(
        "mgca experiment run granularity --seeds 0",
        "mgca experiment run --set train.loss.alpha=0.5",
        "mgca experiment run --objective mine.py",
        "mgca experiment run granularity --seeds 0 --fresh",
        "mgca experiment run main --scale photos --data DIR --publish",
    )
)
@speaking
def run(
    tables: Annotated[
        list[str] | None,
        argument(
            "TABLE...",
            "granularity, areas, k, meta_points, choices, benchmarks, main; one or several.",
            show_default="main",
            autocompletion=_tables,
        ),
    ] = None,
    scale: ScaleName = "scenes",
    seeds: Annotated[str, option("NUMBERS", "One run of each variant per seed.")] = "0,1,2",
    jobs: Annotated[int, option("N", "Runs at a time, in processes of a thread each.", min=1)] = 1,
    objective: Annotated[
        str,
        option(
            "FILE",
            "A Python file with an objective of your own, in place of MGCA's.",
            TRAINED,
            show_default=False,
        ),
    ] = "",
    changes: Annotated[
        list[str] | None,
        option(
            "NAME=VALUE",
            "Change a value of the training of all variants: train.loss.alpha=0.5.",
            TRAINED,
            name="--set",
        ),
    ] = None,
    config: Config = None,
    data: Data = None,
    cache: Cache = None,
    fresh: Annotated[
        bool, flag("--fresh", "Compute again what is there: minutes to hours.", RESULTS)
    ] = False,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Compute what the tables of a scale lack, and print their mIoU.

    What results/ of the clone holds counts as computed. An interrupted call goes on, and several
    at once share the work.
    """
    from mgca.experiments.runner import folders, run_ablations

    numbers = seeds_of(seeds)
    if publish and (objective or changes):
        raise typer.BadParameter("--publish is for the scale's own training")
    if objective and jobs > 1:
        raise typer.BadParameter("--objective goes with --jobs 1: processes do not share its file")
    places = folders(scale, publish=publish, fresh=fresh)
    subject = _load(scale, data, cache, config)
    if subject.places and (publish or objective or changes):
        raise typer.BadParameter("--config says where results lie, and what is trained")
    places = dict(subject.places) or places
    subject.training = _changed(subject.training, objective, changes or [])
    found = run_ablations(tables or ["main"], subject, numbers, jobs=jobs, fresh=fresh, **places)
    for name, table in found.items():
        paths = [places[key] / f"{name}.csv" for key in ("out", "published") if key in places]
        path, *_ = [path for path in paths if path.is_file()]
        notice(f"{name} on {scale}: {path}")
        if not as_json:
            _print_miou(table)
    if as_json:
        echo_json({name: table.to_dict("records") for name, table in found.items()})


@app.command(epilog=examples("mgca experiment thresholds --scale photos --data DIR"))
@speaking
def thresholds(
    scale: ScaleName = "scenes",
    data: Data = None,
    cache: Cache = None,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Draw the mIoU at every threshold of the background, on images that are no benchmark."""
    from mgca.evaluation.thresholds import choose
    from mgca.experiments.runner import folders
    from mgca.experiments.thresholds import scale_curves

    out = folders(scale, publish=publish)["out"]
    threshold, temperature, miou = choose(scale_curves(_load(scale, data, cache), out))
    if as_json:
        echo_json({"threshold": threshold, "temperature": temperature, "miou": miou})
    else:
        typer.echo(f"best: threshold {threshold:.2f}, temperature {temperature:g}, mIoU {miou:.2f}")
    notice(out / "background.csv")


@app.command(
    epilog=examples(
        "mgca experiment protocol --scale scenes --images 20 --seeds 0,1,2,3,4",
        "mgca experiment protocol --scale scenes --decoder mine=decoder.safetensors",
    )
)
@speaking
def protocol(
    sets: Annotated[
        list[str] | None, argument("SET...", "Sets of the scale.", show_default="all its own")
    ] = None,
    scale: ScaleName = "scenes",
    decoder: Annotated[
        list[str] | None,
        option(
            "NAME=FILE",
            "A further method: a decoder trained at this scale; several times for several.",
        ),
    ] = None,
    images: Annotated[
        int | None, option("N", "First images of each set.", min=1, show_default="all")
    ] = None,
    seeds: Annotated[str, option("NUMBERS", "Seeds of the methods that are trained.")] = "0",
    without: Annotated[
        list[str] | None,
        option("KNOB", "A knob that is left alone, such as refinement; several times for several."),
    ] = None,
    data: Data = None,
    cache: Cache = None,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Measure what each knob of the protocol moves, for every method of a scale.

    Methods that are trained are trained first. An interrupted call goes on, and one with a further
    method or seed measures that alone.
    """
    from mgca.experiments.protocol import protocol_table
    from mgca.experiments.protocol_rows import spread, turned_around
    from mgca.experiments.runner import folders

    others = {}
    for given in decoder or ():
        name, _, path = given.rpartition("=")
        if not name or not Path(path).exists():
            raise typer.BadParameter(
                f"--decoder is NAME=FILE with a file that exists, not {given!r}"
            )
        others[name] = path
    places = folders(scale, publish=publish)
    out, subject = places["out"], _load(scale, data, cache)
    how = {"work": places["work"], "seeds": seeds_of(seeds), "others": others, "limit": images}
    table = protocol_table(subject, out, sets or (), **how, without=without or ())
    turned = turned_around(table)
    if as_json:
        echo_json({"rows": table.to_dict("records"), "turned": turned.to_dict("records")})
    else:
        typer.echo(spread(table).round(2).to_string())
        typer.echo(turned.to_string(index=False))
    notice(out / "protocol.csv")


@app.command(epilog=examples("mgca experiment timing --scale scenes --images 20"))
@speaking
def timing(
    scale: ScaleName = "scenes",
    images: Annotated[int, option("N", "Images of each set.", min=1)] = 5,
    data: Data = None,
    cache: Cache = None,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Measure how long every method of a scale takes, on a machine that does nothing else."""
    from mgca.experiments.runner import folders
    from mgca.experiments.timing import seconds_per_image

    places = folders(scale, publish=publish)
    out, published = places["out"], places.get("published")
    subject = _load(scale, data, cache)
    rows = seconds_per_image(subject, out, published=published, images=images)
    if as_json:
        echo_json(rows)
    for row in () if as_json else rows:
        typer.echo(f"{row['variant']:16} {row['unit']:>6} {row['dataset']:8} {row['value']:.4f} s")
    notice(out / "benchmarks.csv")


@app.command(epilog=examples("mgca experiment intervals --scale scenes --publish"))
@speaking
def intervals(
    scale: ScaleName = "scenes",
    seeds: Annotated[str, option("NUMBERS", "Seeds whose runs are taken.")] = "0,1,2,3,4",
    work: Annotated[
        Path | None, option("DIR", "Folder of the runs' decoders.", show_default="_build/SCALE")
    ] = None,
    publish: Publish = False,
    as_json: AsJson = False,
) -> None:
    """Draw images again from what each run counted, and say how sure the claims are of them."""
    from mgca.experiments.intervals import image_intervals, write_intervals
    from mgca.experiments.runner import folders

    numbers, places = seeds_of(seeds), folders(scale, publish=publish)
    found = image_intervals(_load(scale, None, None), numbers, work or places["work"])
    path = write_intervals(places["out"], found)
    if as_json:
        echo_json(found)
    for one in () if as_json else found["claims"]:
        ends = f"[{one['low']:+.2f}, {one['high']:+.2f}]"
        typer.echo(f"{one['mean']:+.2f} {ends:16} {one['group']}: {one['claim']}")
    notice(path)


@app.command(epilog=examples("mgca experiment publish scenes-decoders"))
@speaking
def publish(
    weights: Annotated[
        str,
        argument(
            "WEIGHTS",
            "scenes-clip, which is trained for it; scenes-decoders or lite, of the runs of "
            "granularity or main.",
            autocompletion=lambda: list(WEIGHTS),
        ),
    ],
    data: Data = None,
    cache: Cache = None,
) -> None:
    """Make what was trained in this clone the weights that come with the project."""
    from mgca.experiments import publish as publishing
    from mgca.experiments.runner import folders
    from mgca.experiments.scenes import scenes_clip

    if weights not in WEIGHTS:
        raise typer.BadParameter(f"no weights {weights!r}, only {', '.join(WEIGHTS)}")
    name = "photos" if weights == "lite" else "scenes"
    scale, places = _load(name, data, cache), folders(name, publish=True)
    if weights == "scenes-clip":
        publishing.scenes_clip(scenes_clip(), cache=scale.cache, **places)
    else:
        getattr(publishing, weights.replace("-", "_"))(scale, places["work"])


def _load(name: str, data: Path | None, cache: Path | None, config: Path | None = None) -> "Scale":
    from mgca.experiments import load_scale

    return load_scale(name, data=data, cache=cache, config=config)


def _changed(training: "TrainConfig", objective: str, changes: list[str]) -> "TrainConfig":
    """A scale's training with what was asked for in it changed."""
    from mgca.config import LossConfig
    from mgca.training.runs import RunConfig, changed, with_objective

    if other := [change for change in changes if not change.strip().startswith("train.")]:
        raise typer.BadParameter(f"a scale has a training only, train.NAME=VALUE, not {other[0]!r}")
    run = changed(with_objective(RunConfig(train=training), objective), changes)
    if not isinstance(run.train.loss, LossConfig):
        raise typer.BadParameter(
            f"the tables vary MGCA's losses, and {type(run.train.loss).__name__} is no LossConfig: "
            "mgca train --scale trains with any objective"
        )
    return run.train


def _print_miou(table) -> None:
    """Mean and deviation over the seeds, a line for each variant and unit."""
    from mgca.evaluation.results import summary

    means = summary(table)
    means["mIoU"] = [
        f"{mean:.2f}" + (f" ± {std:.2f}" if count > 1 else "")
        for mean, std, count in zip(means["mean"], means["std"], means["count"], strict=True)
    ]
    shown = means.pivot(index=["variant", "unit"], columns="dataset", values="mIoU")
    lines = table[["variant", "unit"]].drop_duplicates().itertuples(index=False, name=None)
    typer.echo(shown.reindex(index=list(lines), columns=table["dataset"].unique()).to_string())
