"""Options that commands share, which name a model and a device, and the loading of these."""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mgca.cli.declare import argument, flag, option

if TYPE_CHECKING:
    import torch

    from mgca.model import Model

MODEL, RESULTS = "Which model", "Results"  # panels of the help

OWN_MODELS = ("lite", "scenes", "vit-b-16")
OTHER_METHODS = ("groupvit", "tcl")  # to be measured, by `mgca evaluate` alone
NAMES = f"{', '.join(OWN_MODELS)}, a model of open_clip, or hf://owner/name."


def _model_names() -> list[str]:
    return list(OWN_MODELS)


def _decoder_names() -> list[str]:
    return ["mgca", "none"]


ModelName = Annotated[str, option("NAME", NAMES, MODEL, autocompletion=_model_names)]
ModelArgument = Annotated[str, argument("MODEL", NAMES, autocompletion=_model_names)]
Decoder = Annotated[
    str,
    option(
        "NAME",
        "mgca, none, a decoder's file, a checkpoint, or a run's folder.",
        MODEL,
        autocompletion=_decoder_names,
    ),
]
Pretrained = Annotated[str | None, option("TAG", "Of an open_clip model's weights.", MODEL)]
Device = Annotated[
    str, option("NAME", "auto (a GPU if there is one), cpu, cuda, cuda:1 ...", MODEL)
]
Affinity = Annotated[
    str,
    option(
        "NAME",
        "Map that units are grouped in: early, an earlier stage of the encoder, or timm:NAME, "
        "a vision transformer of timm.",
        MODEL,
        show_default="the pixel embeddings",
    ),
]
Words = Annotated[
    str,
    option(
        "RULE",
        "How several words make one class: largest, the score of its best word, or mean, that "
        "of the mean of their embeddings.",
        MODEL,
    ),
]
RuleName = Annotated[
    str,
    option(
        "NAME",
        "What the probability beside a threshold is: softmax over the classes; sigmoid, where "
        "it was learned, as by SigLIP and by decoders of TCL's objective; groupvit, its authors'.",
        MODEL,
        name="--rule",
    ),
]
Refine = Annotated[
    bool,
    flag(
        "--refine",
        "Let contours follow the image's own edges (PAMR), which takes some seconds an image.",
        MODEL,
    ),
]
Config = Annotated[
    Path | None, option("FILE", "TOML file that describes the scale paper.", show_default=False)
]
AsJson = Annotated[bool, flag("--json", "Print the result as JSON.")]


def examples(*commands: str) -> str:
    """The end of a command's help."""
    # The empty first line keeps the margin of the others.
    return "\n".join(["", "Examples:", "", *(f"  {command}" for command in commands)])


def echo_json(data: Any) -> None:
    """Print JSON for people and programs alike."""
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))


def seeds_of(text: str) -> list[int]:
    """The numbers of an option ``--seeds``.

    Raises:
        typer.BadParameter: If they are not different numbers with commas between them.
    """
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise typer.BadParameter(
            f"--seeds are different numbers with commas between them, such as 0,1,2, not {text!r}"
        )
    return seeds


def thresholds(given: str | None, classes: Sequence[str]) -> float | dict[str, float] | None:
    """The threshold of an option ``--background``: one for all classes, or with some of their own.

    Args:
        given: A number, ``NAME=NUMBER``, or several with commas between them; a number alone is of
            all the classes that none is given for.
        classes: Names of the classes.

    Raises:
        typer.BadParameter: If it is not of that form, or a number is no probability.
    """
    if given is None:
        return None
    usual, own = 0.0, {}
    for part in given.split(","):
        name, named, number = part.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 1 or (named and name.strip() not in classes):
            raise typer.BadParameter(
                f"a probability in [0, 1], or 0.5,cat=0.3 with a class's own, not {given!r}",
                param_hint="'--background'",
            )
        if named:
            own[name.strip()] = value
        else:
            usual = value
    return dict.fromkeys(classes, usual) | own if own else usual


def check_device(name: str) -> "torch.device":
    """The device of a name, as :func:`mgca.utils.devices.pick_device` says.

    Raises:
        typer.BadParameter: If torch does not have it here.
    """
    from mgca.utils.devices import pick_device

    try:
        return pick_device(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def one_process() -> None:
    """Refuse to be one of several processes, each of which would do the whole.

    Raises:
        typer.BadParameter: If ``torchrun`` started several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        raise typer.BadParameter(
            "each of these processes would do the whole: start one, without torchrun"
        )


def seed_of(decoder: str) -> int:
    """Seed of the run that trained a decoder, as its record or its checkpoint says; 0 where none
    does."""
    from mgca.weights.decoders import read_decoder

    if decoder in ("mgca", "none") or not (
        Path(decoder).suffix == ".safetensors" or Path(decoder).is_dir()
    ):
        return 0
    return int(read_decoder(decoder)[1].get("seed", 0))


def load_on(
    device: str, name: str, decoder: str, pretrained: str | None, last_block: str | None = None
) -> "tuple[Model, str]":
    """The model of :func:`load_named` on a device, which is checked first, and its name."""
    chosen = check_device(device)
    model, shown = load_named(name, decoder, last_block, pretrained)
    return model.to(chosen), shown


def configured(model: "Model", **fields: str) -> "Model":
    """The model with fields of its configuration set, and with what they need loaded.

    Raises:
        OSError: If weights cannot be had.
        ValueError: If a field cannot have its value.
    """
    from mgca.backbone import BackboneUnavailable

    model.config = dataclasses.replace(model.config, **fields)
    try:
        model.grouping  # noqa: B018 - now, and not at the first image
    except BackboneUnavailable as error:
        raise OSError(str(error)) from error
    return model


def load_for_photographs(
    device: str, name: str, decoder: str, pretrained: str | None, **fields: str
) -> "tuple[Model, str]":
    """The model of :func:`load_on` with windows that leave no straight seams at their edges.

    Of the rows and columns of ten photographs, at the inner edges of windows labels change in 24 %
    where windows count equally, as the paper's protocol has it, in 6 % where they are weighted
    towards their middle, and in 4 % elsewhere.
    """
    model, shown = load_on(device, name, decoder, pretrained)
    return configured(model, blend="middle", **fields), shown


def load_named(
    name: str, decoder: str, last_block: str | None, pretrained: str | None
) -> "tuple[Model, str]":
    """The model, and its name in tables and records.

    Args:
        name: Name of the model, as the option ``--model`` takes it.
        decoder: The decoder, ``"mgca"``, ``"none"``, or a file; for ``"tcl"`` its checkpoint.
        last_block: Variant of the last block, for a vision transformer without decoder; None for
            its own.
        pretrained: Tag of open_clip; for ``"groupvit"`` a repository or folder.

    Raises:
        OSError: If weights cannot be had, or were not trained for this encoder.
        typer.BadParameter: For options that do not go together.
    """
    from mgca.backbone import BackboneUnavailable, load_backbone
    from mgca.model import Model, load
    from mgca.weights import HEADS, WeightsError
    from mgca.weights.decoders import decoder_name

    weights = pretrained or True
    shown = f"{name} {pretrained}" if pretrained else name
    published = name.startswith("hf://")
    if last_block is not None and (published or decoder != "none"):
        raise typer.BadParameter(
            "a decoder knows the last block it was trained on: --last-block goes with "
            "--decoder none, and with no model of hf://"
        )
    try:
        if name == "groupvit":
            from mgca.evaluation.baselines.groupvit import CHECKPOINT, load_groupvit
            from mgca.evaluation.baselines.models import GroupViTModel

            return GroupViTModel(load_groupvit(pretrained or CHECKPOINT)), shown
        if name == "tcl":
            from mgca.evaluation.baselines.models import TCLModel
            from mgca.evaluation.baselines.tcl import load_tcl

            if decoder in ("mgca", "none"):
                raise typer.BadParameter("--model tcl needs its checkpoint, --decoder tcl.pth")
            return TCLModel(load_tcl(decoder)), shown
        if decoder == "mgca" and name in HEADS:
            return load(name, decoder, pretrained=weights), shown
        if decoder == "none" and not published:
            block = last_block or "value"
            return Model(load_backbone(name, weights, last_block=block)), f"{shown} {block}"
        if decoder == "mgca" and not published:
            check_published(name)
        loaded = load(name, None if decoder == "none" else decoder, pretrained=weights)
    except (BackboneUnavailable, WeightsError) as error:
        raise OSError(str(error)) from error
    block = loaded.backbone.last_block
    if loaded.decoder is None:
        return loaded, f"{shown} {block}"
    trained = "mgca" if decoder == "mgca" else decoder_name(decoder)
    return loaded, f"{shown} {trained}" if block == "value" else f"{shown} {block}+{trained}"


def check_published(name: str) -> None:
    """Refuse a model for which no decoder comes with the project.

    Raises:
        OSError: With the options that there are.
        ValueError: If there is no such model.
    """
    from mgca.backbone import check_known
    from mgca.weights import manifest

    if f"{name}-mgca" not in manifest():
        check_known(name)
        raise OSError(
            f"no trained decoder for {name!r} comes with the project: give --decoder none, for its "
            "dense features, or the file of a decoder that was trained on it"
        )


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file that are not empty.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or it is no text.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a UTF-8 text file ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
