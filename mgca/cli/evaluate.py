"""``mgca evaluate``: a model on a benchmark, on scenes, or on a folder of one's own."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from mgca.cli.loading import (
    MODEL,
    NAMES,
    OTHER_METHODS,
    OWN_MODELS,
    RESULTS,
    AsJson,
    Decoder,
    Device,
    Pretrained,
    echo_json,
    examples,
    load_on,
    read_lines,
)

DEFAULT_UNITS = ["pixel", "36"]
SCENES = ("things", "scenes", "open")

SET = "Which set"  # panel of the help
EXAMPLES = examples(
    "mgca evaluate things --model scenes --limit 20 --background 0.5",
    'mgca evaluate --images photos --masks masks --classes "cat, sofa"',
    "mgca evaluate voc20 --root /data/voc2012 --per-class --json",
)


def _sets() -> list[str]:
    from mgca.data.benchmarks import benchmark_names

    return [*benchmark_names(), *SCENES]


def _models() -> list[str]:
    return [*OWN_MODELS, *OTHER_METHODS]


def evaluate(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="SET",
            help="A benchmark of `mgca data list`, with --root; or things, scenes or open, sets of "
            "drawn scenes that need no files. Without it: --images, --masks and --classes.",
            autocompletion=_sets,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the benchmark.", rich_help_panel=SET),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Your images.", rich_help_panel=SET)
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Your masks: PNGs of class ids, named as the images. 255 is ignored.",
            rich_help_panel=SET,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names of the ids, in their order: commas between them, or a file with one a "
            "line.",
            rich_help_panel=SET,
        ),
    ] = None,
    with_background: Annotated[
        bool,
        typer.Option(
            "--with-background",
            help="Id 0 of your masks is the background, and the classes begin at 1.",
            rich_help_panel=SET,
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default="all",
            help="Only the first so many images of scenes or of your folder.",
            rich_help_panel=SET,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"{NAMES} Other methods: groupvit, --pretrained being a repository or folder, and "
            "tcl, --decoder being its checkpoint.",
            autocompletion=_models,
            rich_help_panel=MODEL,
        ),
    ] = "lite",
    decoder: Decoder = "mgca",
    last_block: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of a vision transformer without decoder: attention (CLIP), value (MaskCLIP), "
            "sclip, clearclip or naclip.",
            show_default="value",
            rich_help_panel=MODEL,
        ),
    ] = None,
    pretrained: Pretrained = None,
    imagenet_statistics: Annotated[
        bool,
        typer.Option(
            "--imagenet-statistics",
            help="Normalise pixels as TCL's harness does, and not as the backbone was trained.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    units: Annotated[
        list[str],
        typer.Option(
            metavar="UNIT",
            help="pixel, or a square number of meta-points; several times for several.",
            rich_help_panel=MODEL,
        ),
    ] = DEFAULT_UNITS,
    background: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Threshold of the background on the largest probability.",
            show_default="the benchmark's, if one is chosen",
            rich_help_panel=MODEL,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            help="Of the softmax over classes, for the background.",
            show_default="the backbone's",
            rich_help_panel=MODEL,
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What that probability is: softmax over the classes; sigmoid, TCL's, for decoders "
            "trained with its objective; groupvit, that of its authors.",
            rich_help_panel=MODEL,
        ),
    ] = "softmax",
    device: Device = "cpu",
    workers: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Processes that read images ahead.", rich_help_panel=MODEL
        ),
    ] = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of results.", rich_help_panel=RESULTS)
    ] = Path("results/evaluation"),
    work: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of what is unfinished.", rich_help_panel=RESULTS),
    ] = Path("_build/evaluation"),
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of the model in the table.",
            show_default="made of its options",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--per-class", help="Print the IoU of each class.", rich_help_panel=RESULTS),
    ] = False,
    confusion: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the confusion matrix of each unit; x.csv becomes x-<unit>.csv.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    as_json: AsJson = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Compute again what is there.", rich_help_panel=RESULTS),
    ] = False,
) -> None:
    """Measure mIoU. What was measured before is not measured again; an interrupted call goes on."""
    chosen = _units(units)
    subject = _subject(name, root, images, masks, classes, with_background, limit)
    loaded, variant = load_on(device, model, decoder, pretrained, last_block)
    if model == "groupvit" and units == DEFAULT_UNITS:
        chosen = [None]  # its groups are units already
    if imagenet_statistics or _statistics(name) == "imagenet":
        from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

        loaded.backbone.mean, loaded.backbone.std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        variant += " imagenet statistics"
    threshold, own = _protocol(name, background, temperature)
    from mgca.evaluation.benchmark import Evaluation, confusion_table, per_class
    from mgca.utils.files import replacing

    evaluation = Evaluation(
        loaded,
        label or variant,
        subject,
        chosen,
        threshold=threshold,
        temperature=own,
        rule=rule,
    )
    record, found = evaluation.compute(out, work, workers=workers, fresh=fresh)
    if confusion is not None:
        for unit, counts in found.items():
            with replacing(confusion.with_name(f"{confusion.stem}-{unit}.csv")) as temporary:
                confusion_table(subject, counts).to_csv(temporary)
    classwise = per_class(subject, found).round(2)
    if as_json:
        values = {unit: {"miou": c.miou, "accuracy": c.accuracy} for unit, c in found.items()}
        shown = {"run": evaluation.run, "variant": evaluation.variant, "set": subject.name} | {
            "units": values,
            "mmsegmentation": record.get("mmsegmentation"),
            "complete": subject.complete,
            "background": evaluation.threshold,
            "temperature": evaluation.temperature,
            "rule": rule,
        }
        if each:
            shown["iou"] = json.loads(classwise.to_json())
        echo_json(shown)
        return
    typer.echo(f"{evaluation.variant} on {subject.name}, {len(classwise)} classes")
    if evaluation.threshold is not None:
        of = f" at temperature {evaluation.temperature:g}" if rule == "softmax" else f" ({rule})"
        typer.echo(f"background: largest probability at most {evaluation.threshold:g}{of}")
    for unit, counts in found.items():
        typer.echo(f"  {unit:>6}  mIoU {counts.miou:5.2f}  accuracy {counts.accuracy:5.2f}")
    if not subject.complete:
        typer.echo(
            "not a whole benchmark: mIoU is over the classes that occur, and compares with "
            "no published number"
        )
    if each:
        typer.echo(classwise.to_string())
    typer.echo(f"{out}/runs/{evaluation.run}.json says how these numbers came about")


def _subject(name, root, images, masks, classes, with_background, limit):
    from mgca.data.benchmarks import benchmark_names

    own = [option is not None for option in (images, masks, classes)]
    if name is not None and name not in (*benchmark_names(), *SCENES):
        raise typer.BadParameter(
            f"no set {name!r}, only {', '.join((*benchmark_names(), *SCENES))}"
        )
    if name is not None and with_background:
        raise typer.BadParameter("--with-background is for your own masks")
    if root is not None and name not in benchmark_names():
        raise typer.BadParameter("--root is for a benchmark")
    if limit is not None and name in benchmark_names():
        raise typer.BadParameter("--limit is for scenes and your own images, not a benchmark")
    from mgca.evaluation import benchmark

    if name is None:
        if not all(own):
            raise typer.BadParameter("give a SET, or --images, --masks and --classes")
        from mgca.data.masks import load_folder

        data = load_folder(images, masks, _classes(classes), background=with_background)
        return benchmark.masked(data.first(limit))
    if any(own):
        raise typer.BadParameter("give a SET, or --images, --masks and --classes, not both")
    if name in SCENES:
        from mgca.data.scenes.sets import TEST_SEED, evaluation_set

        return benchmark.masked(evaluation_set(name, limit or 150, seed=TEST_SEED))
    if root is None:
        raise typer.BadParameter(f"give the folder of {name}, --root")
    return benchmark.benchmark(name, root)


def _classes(given: str) -> list[str]:
    """Names with commas between them, or the lines of a file."""
    path = Path(given)
    if not os.path.isfile(given):  # path.is_file refuses what is too long for a name
        if "," not in given and path.suffix == ".txt":
            raise FileNotFoundError(f"no file of classes {path}")
        return given.split(",")
    return read_lines(path)


def _units(given: list[str]) -> list[int | None]:
    from mgca.config import grid_side

    units: list[int | None] = []
    for unit in given:
        try:
            units.append(None if unit == "pixel" else int(unit))
            if units[-1] is not None:
                grid_side(units[-1])
        except ValueError:
            raise typer.BadParameter(
                f"a unit is pixel or a square number of meta-points, not {unit!r}"
            ) from None
    return list(dict.fromkeys(units))


def _statistics(name: str | None) -> str:
    """The statistics of pixels that a benchmark declares."""
    from mgca.data.benchmarks import benchmark_names, load_benchmark

    return load_benchmark(name).protocol.statistics if name in benchmark_names() else "backbone"


def _protocol(
    name: str | None, background: float | None, temperature: float | None
) -> tuple[float | None, float | None]:
    """Threshold and temperature: as given, or else those of the benchmark."""
    from mgca.data.benchmarks import benchmark_names, load_benchmark

    if name in benchmark_names():
        protocol = load_benchmark(name).protocol
        background = protocol.threshold if background is None else background
        temperature = protocol.temperature if temperature is None else temperature
    return background, temperature
