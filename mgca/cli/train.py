"""``mgca train``: the decoder, from webdataset shards."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mgca.cli.loading import examples
from mgca.cli.verbosity import is_quiet, saying

STOPPED = 130
RUN, MACHINE, KEPT = "What is trained", "On what", "What is kept"  # panels of the help
EXAMPLES = examples(
    "mgca train --shards cc3m --dry-run",
    "mgca train --shards cc3m --set train.batch_size=256 --micro-batch 32",
    "torchrun --nproc-per-node 4 -m mgca train --shards cc3m",
)


def _configurations() -> list[str]:
    return ["paper", "photos"]  # those of mgca.training.runs.NAMED, which takes seconds to import


def train(
    context: typer.Context,
    shards: Annotated[
        str,
        typer.Option(
            metavar="SHARDS",
            help="Folder, glob, '{000..331}' pattern or URL of the shards.",
            rich_help_panel=RUN,
        ),
    ],
    config: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="paper, photos, or a TOML file of what is not the paper's.",
            autocompletion=_configurations,
            rich_help_panel=RUN,
        ),
    ] = "paper",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Change a value: train.batch_size=256.",
            rich_help_panel=RUN,
        ),
    ] = None,
    precomputed: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="DIR",
            help="What `mgca data captions` wrote.",
            show_default="the cache",
            rich_help_panel=RUN,
        ),
    ] = None,
    corrupt_limit: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Of samples, that may be unreadable.",
            rich_help_panel=RUN,
        ),
    ] = 0.01,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="An encoder of random weights, to see how long a run takes.",
            rich_help_panel=RUN,
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="auto, cpu or cuda.", rich_help_panel=MACHINE)
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Reading processes per process.",
            show_default="as many as there are cores for",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Images through the decoder at a time; the result is the same.",
            show_default="all of a process",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, metavar="MIB", help="Memory for the losses.", rich_help_panel=MACHINE),
    ] = None,
    download_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="GIB",
            help="For downloaded shards in the cache.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Runs go into a folder here, named by their configuration.",
            rich_help_panel=KEPT,
        ),
    ] = Path("runs"),
    checkpoint_every: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Steps between checkpoints.", rich_help_panel=KEPT),
    ] = 500,
    keep: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Newest checkpoints to keep.", rich_help_panel=KEPT),
    ] = 2,
    milestone: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Keep also what this number of steps divides.",
            rich_help_panel=KEPT,
        ),
    ] = None,
    probe: Annotated[bool, typer.Option(help="Time some steps before the run starts.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run takes, and end.")
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print a line of JSON of what the run takes, and one at the end."
        ),
    ] = False,
) -> None:
    """Train a decoder from shards; say first what it takes. The same command resumes a run.

    On several GPUs or machines: torchrun --nproc-per-node 4 -m mgca train ...
    """
    from mgca.backbone import BackboneUnavailable, load_backbone
    from mgca.config import config_hash
    from mgca.data.shards import find_shards
    from mgca.training.estimate import estimate
    from mgca.training.optimiser import NotFinite
    from mgca.training.resources import Resources, make_fabric
    from mgca.training.runs import load_run
    from mgca.training.trainer import Engine, Stopped
    from mgca.weights import WeightsError

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process
    run = load_run(config, changes or ())
    resources = Resources(
        accelerator=device,
        workers=workers,
        micro_batch=micro_batch,
        budget=None if budget is None else budget * 2**20,
        checkpoint_every=checkpoint_every,
        keep=keep,
        milestone=milestone,
        corrupt_limit=corrupt_limit,
        precomputed=precomputed,
        download_limit=None if download_limit is None else download_limit * 2**30,
    )
    fabric = make_fabric(resources, run.train)
    if fabric.is_global_zero and not is_quiet():
        context.with_resource(saying(logging.INFO))  # a run of days is followed by its messages
    if not fabric.is_global_zero:
        fabric.barrier()  # the first process scans the shards, and the others find what it wrote
    found = find_shards(shards)
    if fabric.is_global_zero:
        fabric.barrier()
    try:
        backbone = load_backbone(
            run.train.backbone, pretrained=not random_weights, last_block=run.train.last_block
        )
    except BackboneUnavailable as error:
        raise OSError(str(error)) from error
    engine = Engine(fabric, run, backbone, found, resources)
    folder = out / (config_hash(run) + "-random" * random_weights)
    expected = estimate(engine, folder, probe=probe)
    if fabric.is_global_zero and as_json:
        typer.echo(json.dumps({"run": str(folder), "hours": expected.hours} | asdict(expected)))
    elif fabric.is_global_zero and (dry_run or not is_quiet()):
        typer.echo(f"run         {folder}\n{expected}")
    expected.check(shared=fabric.device.type == "cpu")
    if dry_run:
        return
    try:
        engine.run(folder)
    except Stopped as stopped:
        if fabric.is_global_zero:
            typer.echo(stopped, err=True)
        raise typer.Exit(STOPPED) from None
    except (NotFinite, WeightsError) as error:
        raise OSError(str(error)) from error
    if fabric.is_global_zero:
        decoder = str(folder / "decoder.safetensors")
        typer.echo(json.dumps({"decoder": decoder}) if as_json else decoder)
