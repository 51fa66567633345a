"""Checkpoints of a training run: weights, the optimizer's moments, the step, the configuration."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mgca.config import to_dict
from mgca.utils.files import replacing
from mgca.weights import WeightsError, read_tensors, write_tensors

log = logging.getLogger(__name__)

_MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam and AdamW, besides the step


def save_checkpoint(
    path: Path,
    config: Any,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write a checkpoint in one file, whole or not at all.

    Args:
        path: The file.
        config: The run's dataclass, or a dictionary; a run of another one is refused the file.
        model: Network whose parameters that take a gradient are kept.
        optimizer: Optimizer whose moments are kept.
        step: The step to go on with.
        scaler: Scaler of float16's loss.
    """
    state = {f"model.{key}": value for key, value in _trained(model).items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    meta = {"step": step, "config": to_dict(config)}
    if scaler is not None:
        meta["scaler"] = scaler.state_dict()
    write_tensors(path, state, meta)


def resume(
    path: Path,
    config: Any,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Load the checkpoint if there is one.

    Args:
        path: The file.
        config: Configuration that it must belong to; None for any.
        model: Network whose parameters are replaced.
        optimizer: Optimizer whose moments are replaced.
        scaler: Scaler of float16's loss.

    Returns:
        The step to go on with, 0 without a checkpoint.

    Raises:
        WeightsError: If the file is damaged.
        ValueError: If it belongs to another configuration; the differences are named.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        return 0
    try:
        state, meta = read_tensors(path)
    except WeightsError as error:
        raise WeightsError(f"{error}; delete it to start again") from error
    if not isinstance(meta.get("config"), dict):
        raise WeightsError(f"{path} is not a checkpoint; delete it to start again")
    differences = [] if config is None else _differences(meta["config"], to_dict(config))
    if differences:
        raise ValueError(
            f"{path} belongs to another configuration ({'; '.join(differences)}): use another "
            "folder, or delete this one"
        )
    # All of it is checked before any of it is loaded.
    expected = _shapes(_trained(model), optimizer, state)
    step, of_scaler = meta.get("step"), meta.get("scaler")
    whole = {key: value.shape for key, value in state.items()} == expected
    whole &= type(step) is int and step >= 0
    scaling = {} if scaler is None else scaler.state_dict()
    same_scaler = isinstance(of_scaler, dict) and of_scaler.keys() == scaling.keys()
    if scaler is not None and config is not None:
        whole &= same_scaler
    if not whole:
        raise WeightsError(f"{path} is not a checkpoint of this model; delete it to start again")
    with torch.no_grad():
        for key, value in _trained(model).items():
            value.copy_(state[f"model.{key}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
    if scaler is not None and same_scaler:
        scaler.load_state_dict(of_scaler)
    log.info("resuming %s at step %s", path.parent, step)
    return step


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.named_parameters() if value.requires_grad}


def _shapes(
    trained: dict[str, Tensor], optimizer: torch.optim.Optimizer, state: dict[str, Tensor]
) -> dict[str, torch.Size]:
    """Shapes of the tensors that a checkpoint with this state should have, by name.

    A parameter that has seen no gradient has no moments.
    """
    shapes = {f"model.{key}": value.shape for key, value in trained.items()}
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for index, value in enumerate(parameters):
        if any(key.startswith(f"optimizer.{index}.") for key in state):
            shapes |= {f"optimizer.{index}.{name}": value.shape for name in _MOMENTS}
            shapes[f"optimizer.{index}.step"] = torch.Size()
    return shapes


def _differences(theirs: dict, ours: dict, prefix: str = "") -> list[str]:
    """The differences of two configurations, each as "name: theirs there, ours here"."""
    found = []
    for key in sorted(set(theirs) | set(ours)):
        left, right = theirs.get(key), ours.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            found += _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}: {left} there, {right} here")
    return found


def latest(folder: Path) -> Path | None:
    """The checkpoint ``step-NUMBER.safetensors`` of a folder with the highest step, if any."""
    return max(folder.glob("step-*.safetensors"), key=_step_of, default=None)


def prune(folder: Path, keep: int, milestone: int | None = None) -> None:
    """Remove all checkpoints of a folder but the newest ``keep`` and the milestones.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of newest checkpoints that stay.
        milestone: Number of steps between checkpoints that stay for good; None for none.
    """
    newest_first = sorted(folder.glob("step-*.safetensors"), key=_step_of, reverse=True)
    for path in newest_first[keep:]:
        if milestone is None or _step_of(path) % milestone:
            path.unlink()


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def metrics_until(path: Path, step: int) -> list[dict[str, float]]:
    """Rows of a metrics file before a step; later ones are computed again.

    Raises:
        ValueError: If the file is damaged.
    """
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as lines:
            # A process that was killed may have left its last line unfinished.
            rows = [row for row in csv.DictReader(lines) if None not in row.values()]
        return [row for row in rows if int(row["step"]) < step]
    except (ValueError, KeyError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}): delete it, and it begins again at step {step}"
        ) from error


def write_metrics(path: Path, columns: Sequence[str], rows: Sequence[dict]) -> None:
    """Write the metrics of each step, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def append_metrics(path: Path, columns: Sequence[str], row: dict) -> None:
    """Add the metrics of one step, for those who watch."""
    with path.open("a", newline="") as lines:
        csv.DictWriter(lines, columns, restval="").writerow(row)
