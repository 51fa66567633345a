"""``mgca evaluate``: a model on a benchmark, on scenes, or on a folder of one's own."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import (
    MODEL,
    NAMES,
    OTHER_METHODS,
    OWN_MODELS,
    RESULTS,
    Affinity,
    AsJson,
    Decoder,
    Device,
    Pretrained,
    RuleName,
    Words,
    configured,
    echo_json,
    examples,
    load_on,
    one_process,
    seed_of,
    thresholds,
)
from mgca.cli.sets import (
    SCENES,
    SET,
    Asked,
    Classes,
    Foreground,
    IgnoreZero,
    Images,
    Limit,
    Masks,
    MaskSuffix,
    class_words,
    own_folder,
    scenes,
    unit_numbers,
)

if TYPE_CHECKING:
    from mgca.evaluation.benchmark import Evaluation

DEFAULT_UNITS = ["pixel", "36"]
# How the masks of one's own folder are read, unless told otherwise.
OWN = {
    "with_background": False,
    "ignore_zero": False,
    "foreground": None,
    "mask_suffix": ".png",
}
EXAMPLES = examples(
    "mgca evaluate things --model scenes --limit 20 --background 0.5",
    'mgca evaluate --images photos --masks masks --classes "cat, sofa"',
    "mgca evaluate things --model scenes --checkpoints runs/NAME --background 0.5",
    "mgca evaluate voc20 --root /data/voc2012 --per-class --json",
    "torchrun --nproc-per-node 4 -m mgca evaluate voc20 --root /data/voc2012",
)


def _sets() -> list[str]:
    from mgca.data.benchmarks import benchmark_names

    return [*benchmark_names(), *SCENES]


def _models() -> list[str]:
    return [*OWN_MODELS, *OTHER_METHODS]


def evaluate(
    name: Annotated[
        str | None,
        argument(
            "SET",
            "A benchmark of `mgca data list`, with --root; or things, scenes or open, sets of "
            "drawn scenes that need no files. Without it: --images, --masks and --classes.",
            autocompletion=_sets,
        ),
    ] = None,
    root: Annotated[Path | None, option("DIR", "Folder of the benchmark.", SET)] = None,
    images: Images = None,
    masks: Masks = None,
    mask_suffix: MaskSuffix = ".png",
    classes: Classes = None,
    words_file: Asked = None,
    with_background: Annotated[
        bool,
        flag(
            "--with-background",
            "Id 0 of your masks is the background, and the classes begin at 1.",
            SET,
        ),
    ] = False,
    ignore_zero: IgnoreZero = False,
    foreground: Foreground = None,
    limit: Limit = None,
    model: Annotated[
        str,
        option(
            "NAME",
            f"{NAMES} Other methods: groupvit, --pretrained being a repository or folder, and "
            "tcl, --decoder being its checkpoint.",
            MODEL,
            autocompletion=_models,
        ),
    ] = "lite",
    decoder: Decoder = "mgca",
    last_block: Annotated[
        str | None,
        option(
            "NAME",
            "Of a vision transformer without decoder: attention (CLIP), value (MaskCLIP), "
            "sclip, clearclip or naclip.",
            MODEL,
            show_default="value",
        ),
    ] = None,
    pretrained: Pretrained = None,
    imagenet_statistics: Annotated[
        bool,
        flag(
            "--imagenet-statistics",
            "Normalise pixels as TCL's harness does, and not as the backbone was trained.",
            MODEL,
        ),
    ] = False,
    tcl_protocol: Annotated[
        bool,
        flag(
            "--tcl-protocol",
            "Resize images, pad windows and interpolate positions as TCL's harness does.",
            MODEL,
        ),
    ] = False,
    units: Annotated[
        list[str],
        option(
            "UNIT", "pixel, or a square number of meta-points; several times for several.", MODEL
        ),
    ] = DEFAULT_UNITS,
    affinity: Affinity = "",
    words: Words = "largest",
    background: Annotated[
        str | None,
        option(
            "P",
            "Threshold of the background on the largest probability; 0.5,cat=0.3 has another "
            "for cat.",
            MODEL,
            show_default="the benchmark's, if one is chosen",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        option(
            "T",
            "Of the softmax over classes, for the background.",
            MODEL,
            show_default="the backbone's",
        ),
    ] = None,
    rule: RuleName = "softmax",
    device: Device = "auto",
    workers: Annotated[int, option("N", "Processes that read images ahead.", MODEL, min=0)] = 0,
    out: Annotated[Path, option("DIR", "Folder of results.", RESULTS)] = Path("results/evaluation"),
    work: Annotated[Path, option("DIR", "Folder of what is unfinished.", RESULTS)] = Path(
        "_build/evaluation"
    ),
    label: Annotated[
        str | None,
        option("NAME", "Of the model in the table.", RESULTS, show_default="made of its options"),
    ] = None,
    each: Annotated[bool, flag("--per-class", "Print the IoU of each class.", RESULTS)] = False,
    confusion: Annotated[
        Path | None,
        option(
            "FILE", "Write the confusion matrix of each unit; x.csv becomes x-<unit>.csv.", RESULTS
        ),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        option("RUN", "mIoU of each checkpoint of a run's folder, as a table and a figure.", MODEL),
    ] = None,
    as_json: AsJson = False,
    fresh: Annotated[bool, flag("--fresh", "Compute again what is there.", RESULTS)] = False,
) -> None:
    """Measure mIoU. What was measured before is not measured again; an interrupted call goes on.

    Several GPUs share the images out: torchrun --nproc-per-node 4 -m mgca evaluate ...
    """
    from mgca.evaluation import shares

    shares.join()
    units = unit_numbers(units)
    subject = _subject(
        name,
        root,
        limit,
        images,
        masks,
        classes,
        with_background=with_background,
        ignore_zero=ignore_zero,
        foreground=foreground,
        mask_suffix=mask_suffix,
    )
    if words_file is not None:
        if name is None:
            raise typer.BadParameter(
                "--words-file is for a SET: --classes takes the words of yours"
            )
        subject = subject.asked(class_words(str(words_file)))
    if model == "groupvit" and units == unit_numbers(DEFAULT_UNITS):
        units = [None]  # its groups are units already
    given = thresholds(background, subject.data.classes)
    threshold, own = _protocol(name, given, temperature)
    from mgca.evaluation.benchmark import Evaluation, confusion_table, per_class
    from mgca.evaluation.conventions import TCL_PROTOCOL
    from mgca.utils.files import replacing

    def evaluation_of(decoder: str) -> "Evaluation":
        loaded, variant = load_on(device, model, decoder, pretrained, last_block)
        if imagenet_statistics or _statistics(name) == "imagenet":
            from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

            loaded.backbone.mean, loaded.backbone.std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
            variant += " imagenet statistics"
        protocol = TCL_PROTOCOL if tcl_protocol else {}
        configured(loaded, words=words, affinity=affinity, **protocol)
        variant += " tcl protocol" * tcl_protocol + f" grouped in {affinity}" * bool(affinity)
        return Evaluation(
            loaded,
            label or variant,
            subject,
            units,
            threshold=threshold,
            temperature=own,
            rule=rule,
            seed=seed_of(decoder),
        )

    if checkpoints is not None:
        one_process()
        _curve(checkpoints, decoder, evaluation_of, out, work, workers, fresh, as_json)
        return
    evaluation = evaluation_of(decoder)
    record, found = evaluation.compute(out, work, workers=workers, fresh=fresh)
    if shares.place()[0]:
        return
    if confusion is not None:
        for unit, counts in found.items():
            with replacing(confusion.with_name(f"{confusion.stem}-{unit}.csv")) as temporary:
                confusion_table(subject, counts).to_csv(temporary)
    classwise = per_class(subject, found).round(2)
    if as_json:
        shown = {"run": evaluation.run, "variant": evaluation.variant, "set": subject.name} | {
            "units": {
                unit: {
                    "miou": c.miou,
                    "accuracy": c.accuracy,
                    "miou_mmsegmentation": c.miou_with_absent,
                }
                for unit, c in found.items()
            },
            "mmsegmentation": record.get("mmsegmentation"),
            "complete": subject.complete,
            "background": evaluation.threshold,
            "temperature": evaluation.temperature,
            "rule": rule,
            "ignored": next(iter(found.values())).share_ignored,
        }
        if each:
            shown["iou"] = json.loads(classwise.to_json())
        echo_json(shown)
        return
    typer.echo(f"{evaluation.variant} on {subject.name}, {len(classwise)} classes")
    _say_what_occurs(found)
    if evaluation.threshold is not None:
        of = f" at temperature {evaluation.temperature:g}" if rule == "softmax" else f" ({rule})"
        typer.echo(f"background: largest probability at most {_shown(evaluation.threshold)}{of}")
    for unit, counts in found.items():
        typer.echo(f"  {unit:>6}  mIoU {counts.miou:5.2f}  accuracy {counts.accuracy:5.2f}")
    theirs = {unit: f"{c.miou_with_absent:.2f}" for unit, c in found.items()}
    if any(theirs[unit] != f"{counts.miou:.2f}" for unit, counts in found.items()):
        several = ", ".join(f"{value} ({unit})" for unit, value in theirs.items())
        typer.echo(
            f"mmsegmentation's mean is {several}: it counts a class that is predicted but occurs "
            "in no mask as 0, ours leaves it out"
        )
    if not subject.complete:
        typer.echo(
            "not a whole benchmark: mIoU is over the classes that occur, and compares with "
            "no published number"
        )
    if each:
        typer.echo(classwise.to_string())
    typer.echo(f"{out}/runs/{evaluation.run}.json says how these numbers came about")


def _shown(threshold: float | dict[str, float]) -> str:
    """A threshold, or those of the classes."""
    if isinstance(threshold, dict):
        return ", ".join(f"{value:g} ({name})" for name, value in threshold.items())
    return f"{threshold:g}"


def _say_what_occurs(found) -> None:
    """The share of pixels that are ignored, and the ids that occur."""
    from mgca.evaluation.conventions import ranges

    counts = next(iter(found.values()))
    occurring = [index for index, pixels in enumerate(counts.counts.sum(1)) if pixels]
    typer.echo(
        f"masks: ids {ranges(occurring)} occur, {100 * counts.share_ignored:.1f} % of the pixels "
        "are ignored"
    )


def _curve(run, decoder, evaluation_of, out, work, workers, fresh, as_json) -> None:
    """mIoU of each checkpoint of a run: a table, a figure, and the lines of both."""
    from mgca.evaluation.curve import draw, learning_curve

    if decoder != "mgca":
        raise typer.BadParameter("--checkpoints names the decoders: no --decoder beside it")
    table, name = learning_curve(run, evaluation_of, out, work, workers=workers, fresh=fresh)
    path = out / f"{name}.csv"
    figure = draw(table, path.with_suffix(".png"), name)
    if as_json:
        echo_json({"table": str(path), "figure": str(figure), "rows": table.to_dict("records")})
        return
    typer.echo(table.pivot(index="step", columns="unit", values="miou").to_string())
    typer.echo(f"{path}\n{figure}")


def _subject(name, root, limit, images, masks, classes, **reading):
    from mgca.data.benchmarks import benchmark_names

    known = (*benchmark_names(), *SCENES)
    if name is not None and name not in known:
        raise typer.BadParameter(f"no set {name!r}, only {', '.join(known)}")
    if root is not None and name not in benchmark_names():
        raise typer.BadParameter("--root is for a benchmark")
    if limit is not None and name in benchmark_names():
        raise typer.BadParameter("--limit is for scenes and your own images, not a benchmark")
    if name is None:
        return own_folder(images, masks, classes, limit=limit, **reading)
    for given, usual in OWN.items():
        if reading[given] != usual:
            raise typer.BadParameter(f"--{given.replace('_', '-')} is for your own masks")
    if any(given is not None for given in (images, masks, classes)):
        raise typer.BadParameter("give a SET, or --images, --masks and --classes, not both")
    if name in SCENES:
        return scenes(name, limit)
    if root is None:
        raise typer.BadParameter(f"give the folder of {name}, --root")
    from mgca.evaluation.benchmark import benchmark

    return benchmark(name, root)


def _statistics(name: str | None) -> str:
    """The statistics of pixels that a benchmark declares."""
    from mgca.data.benchmarks import benchmark_names, load_benchmark

    return load_benchmark(name).protocol.statistics if name in benchmark_names() else "backbone"


def _protocol(
    name: str | None, background: float | dict[str, float] | None, temperature: float | None
) -> tuple[float | dict[str, float] | None, float | None]:
    """Threshold and temperature: as given, or else those of the benchmark."""
    from mgca.data.benchmarks import benchmark_names, load_benchmark

    if name in benchmark_names():
        protocol = load_benchmark(name).protocol
        background = protocol.threshold if background is None else background
        temperature = protocol.temperature if temperature is None else temperature
    return background, temperature
