"""``mgca train``: the decoder, from webdataset shards."""

from pathlib import Path
from typing import Annotated

import typer

STOPPED = 130


def train(
    shards: Annotated[
        str,
        typer.Option(help="Folder, glob, '{000..331}' pattern or URL of the shards."),
    ],
    config: Annotated[
        str, typer.Option(help="paper, photos, or a TOML file of what is not the paper's.")
    ] = "paper",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a value: train.batch_size=256."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Runs go into a folder here, named by their configuration.")
    ] = Path("runs"),
    micro_batch: Annotated[
        int | None,
        typer.Option(min=1, help="Images through the decoder at a time; the result is the same."),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Memory for the losses.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Reading processes per process.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    keep: Annotated[int, typer.Option(min=1, help="Newest checkpoints to keep.")] = 2,
    milestone: Annotated[
        int | None, typer.Option(min=1, help="Keep also what this number of steps divides.")
    ] = None,
    corrupt_limit: Annotated[
        float, typer.Option(min=0, max=1, help="Share of samples that may be unreadable.")
    ] = 0.01,
    precomputed: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="What `mgca data captions` wrote; or the cache."
        ),
    ] = None,
    download_limit: Annotated[
        int | None, typer.Option(min=1, metavar="GIB", help="For downloaded shards in the cache.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option(help="An encoder of random weights, to see how long a run takes.")
    ] = False,
    probe: Annotated[bool, typer.Option(help="Time some steps before the run starts.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run takes, and end.")
    ] = False,
) -> None:
    """Train a decoder from shards; say first what it takes. The same command resumes a run.

    On several GPUs or machines: torchrun --nproc-per-node 4 -m mgca train ...
    """
    import logging

    from mgca.backbone import BackboneUnavailable, load_backbone
    from mgca.config import config_hash
    from mgca.engine import Engine, Stopped
    from mgca.estimate import estimate
    from mgca.resources import Resources, make_fabric
    from mgca.runs import load_run
    from mgca.shards import find_shards
    from mgca.train import NotFinite
    from mgca.weights import WeightsError

    logging.basicConfig(level=logging.INFO, format="%(message)s")
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
    if not fabric.is_global_zero:
        logging.getLogger().setLevel(logging.WARNING)
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
    if fabric.is_global_zero:
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
        typer.echo(f"{folder / 'decoder.safetensors'}")
