"""The options that name a set with masks, which two commands share, and the set of such options."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgca.cli.declare import flag, option
from mgca.config import BACKGROUND

if TYPE_CHECKING:
    from mgca.evaluation.benchmark import Subject

SET = "Which set"  # panel of the help
SCENES = ("things", "scenes", "open")

Images = Annotated[Path | None, option("DIR", "Your images.", SET)]
Masks = Annotated[
    Path | None,
    option(
        "DIR", "Your masks: one channel of class ids, named as the images. 255 is ignored.", SET
    ),
]
MaskSuffix = Annotated[
    str,
    option("TEXT", "What follows an image's name in that of its mask: _mask.png, .tif ...", SET),
]
Classes = Annotated[
    str | None,
    option(
        "NAMES",
        "Names of the ids, in their order: commas between them, or a file with one a line. "
        "A class may have several words, as for mgca segment; before all others may stand those of "
        "the background.",
        SET,
    ),
]
IgnoreZero = Annotated[
    bool,
    flag(
        "--ignore-zero", "Id 0 of your masks is ignored as 255 is, and the classes begin at 1.", SET
    ),
]
Foreground = Annotated[
    int | None,
    option(
        "ID",
        "Your masks show one thing with this id, such as 255, and all else is background: one "
        "class, which is held against words for the rest.",
        SET,
        min=0,
        max=255,
    ),
]
Asked = Annotated[
    Path | None,
    option(
        "FILE",
        "Words that the classes of a SET are asked for as: one id a line, in their order, "
        "commas between its words. The background, where there is one, may have a line or none.",
        SET,
    ),
]
Limit = Annotated[
    int | None,
    option(
        "N",
        "Only the first so many images of scenes or of your folder.",
        SET,
        min=1,
        show_default="all",
    ),
]


def own_folder(
    images: Path | None,
    masks: Path | None,
    classes: str | None,
    *,
    with_background: bool = False,
    ignore_zero: bool = False,
    foreground: int | None = None,
    mask_suffix: str = ".png",
    limit: int | None = None,
) -> "Subject":
    """Images and masks of one's own, looked through before a model is loaded.

    Raises:
        typer.BadParameter: For options that are missing or do not go together.
        FileNotFoundError, DataError: If a file is missing, or masks are not what is expected.
    """
    if images is None or masks is None or classes is None:
        raise typer.BadParameter("give a SET, or --images, --masks and --classes")
    if with_background + ignore_zero + (foreground is not None) > 1:
        raise typer.BadParameter(
            "--with-background, --ignore-zero and --foreground are three ways to read a mask: one"
        )
    from mgca.data.masks import load_folder
    from mgca.evaluation import benchmark
    from mgca.evaluation.conventions import look_through

    words = class_words(classes)
    known = list(words)
    if with_background or foreground is not None:
        known = [name for name in known if name != BACKGROUND]
    data = load_folder(
        images,
        masks,
        known,
        background=with_background,
        ignore_zero=ignore_zero,
        foreground=foreground,
        mask_suffix=mask_suffix,
    ).first(limit)
    look_through(data)
    # As it was given: two folders may have the same last part.
    return benchmark.masked(data, Path(os.path.normpath(images)).as_posix()).asked(words)


def scenes(name: str, limit: int | None) -> "Subject":
    """A set of drawn scenes."""
    from mgca.data.scenes.sets import TEST_SEED, evaluation_set
    from mgca.evaluation import benchmark

    return benchmark.masked(evaluation_set(name, limit or 150, seed=TEST_SEED))


def class_words(given: str) -> dict[str, tuple[str, ...]]:
    """Words of classes: a line with commas between the classes, or the lines of a file."""
    from mgca.prompts import named, read_classes, split_classes

    path = Path(given)
    if not os.path.isfile(given):  # path.is_file refuses what is too long for a name
        if "," not in given and path.suffix == ".txt":
            raise FileNotFoundError(f"no file of classes {path}")
        return named(split_classes(given))
    return named(read_classes(path))


def unit_numbers(given: list[str]) -> list[int | None]:
    """Numbers of meta-points of the units that were given, None for the pixel unit."""
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
