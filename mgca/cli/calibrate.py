"""``mgca calibrate``: the threshold of the background for one's own model and images."""

from pathlib import Path
from typing import Annotated

import typer

from mgca.cli.declare import argument, option
from mgca.cli.loading import (
    MODEL,
    RESULTS,
    AsJson,
    Decoder,
    Device,
    ModelName,
    Pretrained,
    echo_json,
    examples,
    load_on,
    one_process,
)
from mgca.cli.sets import (
    Classes,
    Foreground,
    Images,
    Limit,
    Masks,
    MaskSuffix,
    own_folder,
    scenes,
    unit_numbers,
)

EXAMPLES = examples(
    'mgca calibrate --images photos --masks masks --classes "cat, sofa"',
    "mgca calibrate --images photos --masks masks --classes cat --foreground 255",
    "mgca calibrate things --model scenes --limit 50",
)


def calibrate(
    name: Annotated[
        str | None,
        argument(
            "SET",
            "things, drawn scenes; without it --images, --masks and --classes. Take images "
            "that you do not evaluate on.",
        ),
    ] = None,
    images: Images = None,
    masks: Masks = None,
    mask_suffix: MaskSuffix = ".png",
    classes: Classes = None,
    foreground: Foreground = None,
    limit: Limit = None,
    model: ModelName = "lite",
    decoder: Decoder = "mgca",
    pretrained: Pretrained = None,
    units: Annotated[
        list[str],
        option(
            "UNIT", "pixel, or a square number of meta-points; several times for several.", MODEL
        ),
    ] = ["pixel", "36"],  # noqa: B006
    device: Device = "auto",
    out: Annotated[
        Path | None,
        option("FILE", "Write mIoU at every threshold and temperature, a CSV.", RESULTS),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the background's threshold: the one with the largest mIoU on images with masks, whose
    id 0 is the background.

    What it prints goes behind --background and --temperature of the other commands.
    """
    one_process()
    chosen = unit_numbers(units)
    if name not in (None, "things"):
        raise typer.BadParameter(
            f"{name!r}: a threshold is chosen on images that are no benchmark and have a "
            "background: things, or your own"
        )
    if name is None:
        subject = own_folder(
            images,
            masks,
            classes,
            with_background=foreground is None,
            foreground=foreground,
            mask_suffix=mask_suffix,
            limit=limit,
        )
    elif any(given is not None for given in (images, masks, classes)):
        raise typer.BadParameter("give a SET, or --images, --masks and --classes, not both")
    else:
        subject = scenes(name, limit)
    loaded, variant = load_on(device, model, decoder, pretrained)
    from mgca.evaluation.thresholds import TEMPERATURES, choose, threshold_curve
    from mgca.utils.files import replacing

    own = round(loaded.backbone.temperature, 4)
    curves = threshold_curve(
        loaded,
        subject.data,
        chosen,
        temperatures=sorted({*TEMPERATURES, own}),
        words=subject.words,
    )
    threshold, temperature, miou = choose(curves)
    if out is not None:
        with replacing(out) as temporary:
            curves.to_csv(temporary, index=False)
    if as_json:
        echo_json({"background": threshold, "temperature": temperature, "miou": miou})
        return
    typer.echo(
        f"{variant} on {subject.name}: mIoU {miou:.2f}, the mean over {len(chosen)} units, with\n"
        f"--background {threshold:g} --temperature {temperature:g}"
    )
