"""``mgca train``: the decoder, on a scale that two cores serve or from webdataset shards."""

import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mgca.cli.declare import flag, option
from mgca.cli.loading import examples
from mgca.cli.verbosity import is_quiet, saying

if TYPE_CHECKING:
    from mgca.experiments.scale import Scale
    from mgca.training.resources import Resources
    from mgca.training.runs import RunConfig
    from mgca.training.trainer import Trainer

STOPPED = 130
# Panels of the help.
RUN, SHARDS, MACHINE, KEPT = "What is trained", "From shards", "On what", "What is kept"
EXAMPLES = examples(
    "mgca train --scale scenes",
    "mgca train --scale scenes --set train.loss.alpha=0.5",
    "mgca train --scale scenes --objective mine.py",
    "mgca train --shards cc3m --dry-run",
    "mgca train --shards cc3m --set train.batch_size=256 --micro-batch 32",
    "torchrun --nproc-per-node 4 -m mgca train --shards cc3m",
)


def _configurations() -> list[str]:
    return ["paper", "photos"]  # those of mgca.training.runs.NAMED, which takes seconds to import


def train(
    context: typer.Context,
    scale: Annotated[
        str | None,
        option(
            "NAME",
            "scenes or photos: train as published, evaluate, and compare.",
            RUN,
            autocompletion=lambda: ["scenes", "photos"],
        ),
    ] = None,
    shards: Annotated[
        str | None,
        option("SHARDS", "Folder, glob, '{000..331}' pattern or URL of the shards.", RUN),
    ] = None,
    config: Annotated[
        str | None,
        option(
            "NAME",
            "paper, photos, or a TOML file of what is not the paper's.",
            SHARDS,
            show_default="paper",
            autocompletion=_configurations,
        ),
    ] = None,
    objective: Annotated[
        str,
        option(
            "FILE",
            "mgca, tcl, or a Python file with a class of your own under @objective(...).",
            RUN,
            show_default="the configuration's",
        ),
    ] = "",
    changes: Annotated[
        list[str] | None,
        option("NAME=VALUE", "Change a value: train.batch_size=256.", RUN, name="--set"),
    ] = None,
    seed: Annotated[int | None, option("N", "Sets train.seed.", RUN, min=0)] = None,
    origin: Annotated[
        Path | None,
        option(
            "PATH",
            "Go on from the checkpoint of another run: a file, or its folder.",
            RUN,
            name="--from",
            exists=True,
        ),
    ] = None,
    pretrained: Annotated[
        str,
        option(
            "TAG",
            "Weights of an open_clip model: a tag or a file. Sets train.pretrained.",
            SHARDS,
            show_default=False,
        ),
    ] = "",
    precomputed: Annotated[
        Path | None,
        option(
            "DIR",
            "What `mgca data captions` wrote.",
            SHARDS,
            exists=True,
            file_okay=False,
            show_default="the cache",
        ),
    ] = None,
    corrupt_limit: Annotated[
        float, option("SHARE", "Of samples, that may be unreadable.", SHARDS, min=0, max=1)
    ] = 0.01,
    caption_key: Annotated[
        str, option("KEY", "Key of the samples' .json under which captions lie.", SHARDS)
    ] = "caption",
    random_weights: Annotated[
        bool,
        flag(
            "--random-weights", "An encoder of random weights, to see how long a run takes.", SHARDS
        ),
    ] = False,
    device: Annotated[str, option("NAME", "auto, cpu or cuda.", MACHINE)] = "auto",
    workers: Annotated[
        int | None,
        option(
            "N",
            "Reading processes per process.",
            SHARDS,
            min=0,
            show_default="as many as there are cores for",
        ),
    ] = None,
    micro_batch: Annotated[
        int | None,
        option(
            "N",
            "Images through the decoder at a time; the result is the same.",
            MACHINE,
            min=1,
            show_default="all of a process",
        ),
    ] = None,
    budget: Annotated[int | None, option("MIB", "Memory for the losses.", MACHINE, min=1)] = None,
    download_limit: Annotated[
        int | None, option("GIB", "For downloaded shards in the cache.", SHARDS, min=1)
    ] = None,
    out: Annotated[
        Path, option("DIR", "Runs go into a folder here, named by their configuration.", KEPT)
    ] = Path("runs"),
    checkpoint_every: Annotated[
        int | None,
        option("N", "Steps between checkpoints.", KEPT, min=1, show_default="50, of shards 500"),
    ] = None,
    keep: Annotated[int, option("N", "Newest checkpoints to keep.", KEPT, min=1)] = 2,
    milestone: Annotated[
        int | None, option("N", "Keep also what this number of steps divides.", KEPT, min=1)
    ] = None,
    probe: Annotated[bool, typer.Option(help="Time some steps before the run starts.")] = True,
    dry_run: Annotated[bool, flag("--dry-run", "Say what the run takes, and end.")] = False,
    as_json: Annotated[
        bool, flag("--json", "Print a line of JSON of what the run takes, and one at the end.")
    ] = False,
) -> None:
    """Train a decoder, and say first what it takes. The same command resumes a run.

    With --scale it takes minutes on two cores, and prints mIoU beside that of the published run.
    From shards on several GPUs or machines: torchrun --nproc-per-node 4 -m mgca train ...
    """
    from mgca.training.resources import Resources

    if (scale is None) == (shards is None):
        raise typer.BadParameter("give --scale scenes, --scale photos or --shards SHARDS")
    changes = list(changes or ())
    changes += [f"train.seed={seed}"] * (seed is not None)
    changes += [f"train.pretrained={json.dumps(pretrained)}"] * bool(pretrained)
    resources = Resources(
        accelerator=device,
        workers=workers,
        micro_batch=micro_batch,
        budget=None if budget is None else budget * 2**20,
        checkpoint_every=checkpoint_every or (500 if shards else 50),
        keep=keep,
        milestone=milestone,
        corrupt_limit=corrupt_limit,
        precomputed=precomputed,
        download_limit=None if download_limit is None else download_limit * 2**30,
    )
    start = None if origin is None else _checkpoint(origin)
    if scale is not None:
        if config or precomputed or random_weights or pretrained:
            raise typer.BadParameter(
                "a scale has a configuration, encoders and captions of its own: --config, "
                "--pretrained, --random-weights and --precomputed go with --shards"
            )
        if not is_quiet():
            context.with_resource(saying(logging.INFO))
        _on_scale(scale, objective, changes, resources, start, out, as_json, dry_run)
        return
    from mgca.training.runs import load_run

    run = load_run(config or "paper", changes, objective)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces each process
    _from_shards(
        context,
        str(shards),
        caption_key,
        run,
        resources,
        start,
        out,
        as_json,
        dry_run,
        random_weights,
        probe,
    )


def _from_shards(
    context: typer.Context,
    shards: str,
    caption_key: str,
    run: "RunConfig",
    resources: "Resources",
    origin: Path | None,
    out: Path,
    as_json: bool,
    dry_run: bool,
    random_weights: bool,
    probe: bool,
) -> None:
    from mgca.backbone import BackboneUnavailable, load_backbone
    from mgca.config import config_hash
    from mgca.data.shards import find_shards
    from mgca.training.estimate import estimate
    from mgca.training.resources import launch
    from mgca.training.sources import Streamed
    from mgca.training.trainer import Trainer

    process = launch(resources, run.train)
    first = process.is_global_zero
    if first and not is_quiet():
        context.with_resource(saying(logging.INFO))  # a run of days is followed by its messages
    if not first:
        process.barrier()  # the first process scans the shards, and the others find what it wrote
    found = find_shards(shards, caption_key=caption_key)
    if first:
        process.barrier()
    weights: bool | str = run.train.pretrained or not random_weights
    try:
        backbone = load_backbone(run.train.backbone, weights, last_block=run.train.last_block)
    except BackboneUnavailable as error:
        raise OSError(str(error)) from error
    source = Streamed(found, run.stream)
    trainer = Trainer(run, backbone, source, resources, process=process, origin=origin)
    folder = out / (config_hash(trainer.config) + "-random" * random_weights)
    said = first and not as_json and (dry_run or not is_quiet())
    if said:
        typer.echo(f"run         {folder}")  # what follows is measured, and takes a while
        _warn_if_slow(trainer)
    expected = estimate(trainer, folder, probe=probe)
    if first and as_json:
        typer.echo(json.dumps({"run": str(folder), "hours": expected.hours} | asdict(expected)))
    elif said:
        typer.echo(str(expected))
    expected.check(shared=process.device.type == "cpu")
    if dry_run:
        return
    _train(trainer, folder)
    if first:
        decoder = str(folder / "decoder.safetensors")
        typer.echo(json.dumps({"decoder": decoder}) if as_json else decoder)


def _on_scale(
    name: str,
    objective: str,
    changes: list[str],
    resources: "Resources",
    origin: Path | None,
    out: Path,
    as_json: bool,
    dry_run: bool,
) -> None:
    from mgca.config import config_hash
    from mgca.evaluation.evaluate import evaluate
    from mgca.experiments import load_scale
    from mgca.inference.scoring import rules
    from mgca.model import Model
    from mgca.training.resources import launch
    from mgca.training.runs import RunConfig, changed, with_objective
    from mgca.training.trainer import Trainer
    from mgca.utils.processes import threads

    if any(change.partition(".")[0].strip() == "stream" for change in changes):
        raise typer.BadParameter("stream is of shards: a scale has its features at hand")
    scale = load_scale(name)
    run = changed(with_objective(RunConfig(train=scale.training), objective), changes)
    if resources.accelerator == "auto":
        resources = replace(resources, accelerator="cpu")  # as the published runs
    published = _published(scale, run.train.seed)
    if not as_json and not is_quiet():
        typer.echo(_expected_time(published))
    if dry_run:
        return
    began = time.perf_counter()
    # One thread, as the published runs have: last bits depend on how many add numbers up.
    with threads(1):
        backbone = scale.backbone(run.train.seed, run.train.last_block)
        process = launch(resources, run.train)
        source = scale.data(backbone)
        trainer = Trainer(run, backbone, source, resources, process=process, origin=origin)
        if not as_json and not is_quiet():
            _warn_if_slow(trainer)
        folder = out / config_hash(trainer.config)
        _train(trainer, folder)
        scoring = rules(trainer.objective.sigmoid())
        model = Model(trainer.backbone, trainer.decoder, scale.segment(), scoring)
        background = scale.background(model)
        found = {}
        for data in scale.sets():
            ((_, confusion),) = evaluate(
                model, data, (None,), features=scale.cache, **background
            ).items()
            found[data.name] = round(confusion.miou, 3)
    decoder = str(folder / "decoder.safetensors")
    if as_json:
        seconds = round(time.perf_counter() - began, 1)
        numbers = {"miou": found, "published": published.get("miou"), "seconds": seconds}
        typer.echo(json.dumps({"decoder": decoder} | numbers))
        return
    typer.echo("\n".join(_compared(found, published, run.train.seed)))
    typer.echo(f"{decoder}, in {(time.perf_counter() - began) / 60:.1f} minutes")


def _train(trainer: "Trainer", folder: Path) -> None:
    """Run to the end; what ends it early is told in one line."""
    from mgca.training.optimiser import NotFinite
    from mgca.training.trainer import Stopped
    from mgca.weights import WeightsError

    try:
        trainer.run(folder)
    except Stopped as stopped:
        if trainer.process.is_global_zero:
            typer.echo(stopped, err=True)
        raise typer.Exit(STOPPED) from None
    except (NotFinite, WeightsError) as error:
        raise OSError(str(error)) from error


def _checkpoint(path: Path) -> Path:
    """A checkpoint, or the newest of a run's folder."""
    from mgca.training.checkpoint import latest

    if path.is_file():
        return path
    newest = latest(path / "checkpoints") or latest(path)
    if newest is None:
        raise FileNotFoundError(f"no checkpoint step-NUMBER.safetensors in {path}")
    return newest


def _warn_if_slow(trainer: "Trainer") -> None:
    """Say where the device has no units for the configured precision."""
    import torch

    from mgca.training.flops import slowness

    precision = trainer.train.precision
    times = slowness(trainer.process.device, getattr(torch, precision))
    if precision != "float32" and times > 2:
        typer.echo(
            f"{precision} takes {times:.0f} times as long as float32 on this device: "
            "--set train.precision=float32"
        )


def _published(scale: "Scale", seed: int) -> dict:
    """Seconds and mIoU, by set, of the published run of a seed; empty where there is none."""
    from mgca.evaluation.results import read_run
    from mgca.experiments.grid import grid

    (variant,) = (each for each in grid("granularity", scale) if each.name == "all")
    try:
        record = read_run(Path("results") / scale.name, variant.run(scale, seed))
    except FileNotFoundError:
        return {}
    miou = {
        row["dataset"]: row["value"]
        for row in record["measured"]
        if (row["unit"], row["metric"]) == ("pixel", "miou")
    }
    return {"seconds": record["seconds"], "miou": miou}


def _expected_time(published: dict) -> str:
    if not published:
        return "some minutes; there is no published run of this seed here to compare with"
    minutes = max(1, round(published["seconds"] / 60))
    return (
        f"about {minutes} minute{'s' * (minutes > 1)} by the published run; the first time a few "
        "more, for features that are kept"
    )


def _compared(found: dict[str, float], published: dict, seed: int) -> list[str]:
    """A table of mIoU, the published run above this one."""
    rows = {"this run": found}
    if published:
        rows = {f"published, MGCA, seed {seed}": published["miou"]} | rows
    lines = [f"{'mIoU, pixel unit':26}" + "".join(f"{name:>9}" for name in found)]
    for row, values in rows.items():
        numbers = (f"{values[name]:9.2f}" if name in values else f"{'-':>9}" for name in found)
        lines.append(f"{row:26}" + "".join(numbers))
    return lines
