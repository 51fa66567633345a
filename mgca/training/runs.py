"""Configurations of training: by name or from a TOML file, with changes and another objective."""

import dataclasses
import os
import sys
import tomllib
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgca.config import LossConfig, ObjectiveConfig, TrainConfig
from mgca.data.shards import StreamConfig
from mgca.losses.head import HeadConfig
from mgca.losses.objective import registered
from mgca.losses.tcl import TCLConfig
from mgca.utils.files import file_digest
from mgca.utils.settings import from_table


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a run from shards: with the shards, all that decides what it learns.

    Attributes:
        train: Settings of the training; the paper's values by default.
        stream: Settings of how batches are made of shards.
        clip: Largest norm of the gradient, or None. The paper states none.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, not {self.clip}")


def head_training() -> TrainConfig:
    """The training of the head of ``lite`` at the photos scale, by all three levels.

    It goes on from the head that the contrast of whole images has trained. ``alpha`` and ``known``
    are those of :func:`photos_training`.
    """
    return TrainConfig(
        backbone="lite",
        part="head",
        loss=HeadConfig(alpha=0.2),
        known=0.6,
        learning_rate=1e-3,
        weight_decay=0.1,
        warmup=0.1,
        epochs=1,
        batch_size=128,
        precision="bfloat16",
    )


def photos_training() -> TrainConfig:
    """The decoder's training at this scale: the paper's values, but for what is given here.

    ``alpha`` follows the paper's rule, the average area of what texts describe: in COCO's captioned
    images a named thing covers 0.18 and all the things a caption names 0.25 of the image. The
    captions are of few subjects, so that a batch of them has many texts that fit several images:
    hence ``known``, ``names`` from a broader vocabulary, and ``hold_mean``, without which the
    decoder learns little else than to favour some words everywhere. The batch, the steps and the
    rate are what two cores allow.
    """
    return TrainConfig(
        backbone="lite",
        loss=LossConfig(alpha=0.2),
        names=0.3,
        known=0.6,
        hold_mean=True,
        learning_rate=1e-3,
        warmup=0.1,
        steps=40,
        batch_size=64,
        precision="bfloat16",
    )


def _photos() -> RunConfig:
    """The photos scale, less what needs all captions in memory."""
    train = dataclasses.replace(photos_training(), names=0.0, known=None)
    return RunConfig(train=train, stream=StreamConfig(lanes=8))


#: Configurations that have a name, and what makes them.
NAMED = {"paper": RunConfig, "photos": _photos}
#: Objectives that come with the library, by name.
OBJECTIVES = {"mgca": LossConfig, "tcl": TCLConfig}


def load_run(
    name: str | os.PathLike, changes: Sequence[str] = (), objective: str | os.PathLike = ""
) -> RunConfig:
    """A configuration by name or from a TOML file, with some values changed.

    A file holds the values that are not the paper's, nested as the dataclasses are::

        clip = 1.0
        [train]
        batch_size = 512
        [train.loss]
        alpha = 0.3

    Args:
        name: Name of the configuration, one of :data:`NAMED`, or the path of a file.
        changes: Changes as :func:`changed` takes them.
        objective: The objective, as :func:`load_objective` takes it; empty for the configuration's
            own.

    Raises:
        FileNotFoundError: If there is neither such a configuration nor such a file.
        ValueError: For a file that is not TOML, an unknown name, or a value of the wrong type or
            out of its range.
    """
    named = NAMED.get(str(name))
    config = with_objective(named() if named else RunConfig(), objective)
    if not named:
        config = from_table(config, _read(Path(name)), str(name))
    return changed(config, changes)


def changed(config: RunConfig, changes: Sequence[str]) -> RunConfig:
    """A configuration with some values changed, in their order.

    Args:
        config: The configuration.
        changes: Changes such as ``"train.loss.alpha=0.3"``, the value in TOML's syntax; a word that
            is none of TOML's values is taken as text, and ``none`` as no value.

    Raises:
        ValueError: For an unknown name, or a value of the wrong type or out of its range.
    """
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, such as train.batch_size=256, not {change!r}")
        values: Any = _value(text.strip())
        for part in reversed(path.strip().split(".")):
            values = {part: values}
        config = from_table(config, values)
    return config


def with_objective(config: RunConfig, objective: str | os.PathLike) -> RunConfig:
    """A configuration with another objective, which takes over the settings that both have.

    Args:
        config: The configuration.
        objective: The objective, as :func:`load_objective` takes it; empty for the configuration's
            own.
    """
    if not objective:
        return config
    kind, before = load_objective(objective), config.train.loss
    values = {each.name: getattr(before, each.name) for each in dataclasses.fields(before)}
    loss = kind(**values) if issubclass(kind, type(before)) else kind()
    return dataclasses.replace(config, train=dataclasses.replace(config.train, loss=loss))


def load_objective(objective: str | os.PathLike) -> type[ObjectiveConfig]:
    """The configuration's class of an objective, which is registered afterwards.

    Args:
        objective: Name of the objective, one of :data:`OBJECTIVES`, or a Python file that registers
            one objective with ``@objective(...)``. The file is run.

    Raises:
        FileNotFoundError: If there is neither such an objective nor such a file.
        ValueError: If the file registers none, or several, or cannot be run.
    """
    if str(objective) in OBJECTIVES:
        return OBJECTIVES[str(objective)]
    path = Path(objective)
    if not path.is_file():
        raise FileNotFoundError(
            f"no objective {path}: give {' or '.join(OBJECTIVES)}, or a Python file with a class "
            "under @objective(...)"
        )
    before = set(registered())
    # Its classes are looked up by the name of their module, by dataclasses for one.
    module = types.ModuleType(f"objective_{path.stem}_{file_digest(path)[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        # Not imported: the bytecode of a file that was changed a moment ago may be an older one's.
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    new = [kind for kind in registered() if kind not in before]
    if len(new) != 1:
        raise ValueError(f"{path} registers {len(new)} objectives with @objective(...), not one")
    return new[0]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no configuration {path}: give {' or '.join(NAMED)}, or a TOML file"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested without end
        raise ValueError(f"{path} is not TOML: {error}") from error


def _value(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
