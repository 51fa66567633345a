"""``mgca explain``: where a word is found in a photograph, and what its units are most like."""

import json
from pathlib import Path
from typing import Annotated

import typer


def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A photograph.")],
    word: Annotated[str, typer.Option(metavar="WORD", help="A word or phrase.")],
    out: Annotated[
        Path,
        typer.Option(metavar="FILE.png", help="The figure; FILE.json beside it has the numbers."),
    ],
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What units may be called, a word or phrase a line.",
            show_default="the classes of the benchmarks",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Words of each unit.")] = 5,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="lite, scenes, vit-b-16, or a model of open_clip.")
    ] = "lite",
    decoder: Annotated[
        str, typer.Option(metavar="NAME", help="mgca, none, or the file of a trained decoder.")
    ] = "mgca",
    pretrained: Annotated[
        str | None, typer.Option(metavar="TAG", help="Of an open_clip model's weights.")
    ] = None,
    meta_points: Annotated[
        int, typer.Option(min=1, metavar="N", help="A square number of meta-points per window.")
    ] = 36,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1 ...")] = "cpu",
) -> None:
    """Draw the similarity of a photograph to a word, by pixel and by unit, and name its units."""
    if out.suffix.lower() != ".png":
        raise typer.BadParameter(f"--out is the name of a .png file, not {out}")
    from mgca.cli.evaluate import check_device, load_named
    from mgca.cli.segment import read_lines
    from mgca.explain import explain, known_names
    from mgca.files import replacing, write_text
    from mgca.images import open_image
    from mgca.prompts import check_classes

    try:
        names = check_classes(known_names() if vocabulary is None else read_lines(vocabulary))
    except ImportError as error:
        raise ImportError(f"{error}, or give --vocabulary") from error
    photo = open_image(image)
    check_device(device)
    loaded, shown = load_named(model, decoder, None, pretrained)
    for network in loaded.networks:
        network.to(device)
    found = explain(loaded, photo, word, names, meta_points=meta_points, top=top)
    with replacing(out) as temporary:
        temporary.write_bytes(found.to_png())
    numbers = {"image": str(image), "model": shown, "meta_points": meta_points}
    beside = out.with_suffix(".json")
    data = json.dumps(numbers | found.to_dict(), indent=1, ensure_ascii=False)
    write_text(beside, f"{data}\n")
    similarity = found.to_dict()["similarity"]
    for name, values in similarity.items():
        typer.echo(f"{name:>5}: similarity {values['min']:.3f} to {values['max']:.3f}")
    typer.echo(f"{out} and {beside}")
