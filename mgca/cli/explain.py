"""``mgca explain``: where a word is found in a photograph, and what its units are most like."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mgca.cli.declare import argument, flag, option
from mgca.cli.loading import (
    MODEL,
    AsJson,
    Decoder,
    Device,
    ModelName,
    Pretrained,
    echo_json,
    examples,
    load_on,
    read_lines,
)
from mgca.cli.verbosity import notice

EXAMPLES = examples(
    "mgca explain photo.jpg --word cat --out cat.png",
    "mgca explain photo.jpg --word cat --out cat.png --vocabulary words.txt",
)


def explain(
    image: Annotated[Path, argument("IMAGE", "A photograph.")],
    word: Annotated[str, option("WORD", "A word or phrase.")],
    out: Annotated[Path, option("FILE.png", "The figure; FILE.json beside it has the numbers.")],
    vocabulary: Annotated[
        Path | None,
        option(
            "FILE",
            "What units may be called, a word or phrase a line.",
            show_default="the classes of the benchmarks",
        ),
    ] = None,
    top: Annotated[int, option("N", "Words of each unit.", min=1)] = 5,
    model: ModelName = "lite",
    decoder: Decoder = "mgca",
    pretrained: Pretrained = None,
    meta_points: Annotated[
        int, option("N", "A square number of meta-points per window.", MODEL, min=1)
    ] = 36,
    device: Device = "auto",
    force: Annotated[bool, flag("--force", "Replace files that are not of this command.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw the similarity of a photograph to a word, by pixel and by unit, and name its units."""
    if out.suffix.lower() != ".png":
        raise typer.BadParameter(f"--out is the name of a .png file, not {out}")
    beside = out.with_suffix(".json")
    _refuse_others(image, out, beside, force)
    from mgca.data.benchmarks import known_names
    from mgca.inference.explain import explain
    from mgca.prompts import check_classes
    from mgca.utils.files import replacing, write_text
    from mgca.utils.images import open_image

    try:
        names = check_classes(known_names() if vocabulary is None else read_lines(vocabulary))
    except ImportError as error:
        raise ImportError(f"{error}, or give --vocabulary") from error
    photo = open_image(image)
    loaded, shown = load_on(device, model, decoder, pretrained)
    found = explain(loaded, photo, word, names, meta_points=meta_points, top=top)
    with replacing(out) as temporary:
        temporary.write_bytes(found.to_png())
    numbers = {"image": str(image), "model": shown, "meta_points": meta_points} | found.to_dict()
    write_text(beside, f"{json.dumps(numbers, indent=1, ensure_ascii=False)}\n")
    if as_json:
        echo_json({"figure": str(out), "numbers": str(beside)} | numbers)
        return
    for name, values in numbers["similarity"].items():
        typer.echo(f"{name:>5}: similarity {values['min']:.3f} to {values['max']:.3f}")
    notice(f"{out} and {beside}")


def _refuse_others(image: Path, out: Path, beside: Path, force: bool) -> None:
    """Keep the photograph, and files that this command has not written; its own it replaces."""
    if out.exists() and image.exists() and out.samefile(image):
        raise typer.BadParameter(f"--out {out} is the photograph itself")
    there = [path for path in (out, beside) if path.exists()]
    if there and not force and not _is_explanation(beside):
        raise FileExistsError(
            f"{there[0]} is there and not of mgca explain: choose another --out, or replace it "
            "with --force; nothing was written"
        )


def _is_explanation(file: Path) -> bool:
    try:
        return {"similarity", "meta_points"} <= set(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return False
