"""Configurations of training from shards: by name or from a TOML file, with changes."""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgca.config import LossConfig, TrainConfig
from mgca.data.shards import StreamConfig
from mgca.utils.settings import from_table


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides what a run learns, together with its shards.

    Attributes:
        train: The paper's values by default.
        stream: How batches are made of shards.
        clip: Largest norm of the gradient, or None. The paper states none.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip must be positive, not {self.clip}")


def _photos() -> RunConfig:
    """``lite`` on photographs: the photos scale, less what needs all captions in memory."""
    train = TrainConfig(
        backbone="lite",
        loss=LossConfig(alpha=0.2),
        hold_mean=True,
        learning_rate=1e-3,
        warmup=0.1,
        steps=200,
        batch_size=32,
        precision="bfloat16",
    )
    return RunConfig(train=train, stream=StreamConfig(lanes=8))


#: Configurations that have a name, and what makes them.
NAMED = {"paper": RunConfig, "photos": _photos}


def load_run(name: str | os.PathLike, changes: Sequence[str] = ()) -> RunConfig:
    """A configuration by name or from a TOML file, with some values changed.

    A file holds the values that are not the paper's, nested as the dataclasses are::

        clip = 1.0
        [train]
        batch_size = 512
        [train.loss]
        alpha = 0.3

    Args:
        name: One of :data:`NAMED`, or the path of a file.
        changes: Such as ``"train.loss.alpha=0.3"``, the value in TOML's syntax; a word that is none
            of TOML's values is taken as text, and ``none`` as no value.

    Raises:
        FileNotFoundError: If there is neither such a configuration nor such a file.
        ValueError: For a file that is not TOML, an unknown name, or a value of the wrong type or
            out of its range.
    """
    if str(name) in NAMED:
        config = NAMED[str(name)]()
    else:
        config = from_table(RunConfig(), _read(Path(name)), str(name))
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, such as train.batch_size=256, not {change!r}")
        values: Any = _value(text.strip())
        for part in reversed(path.strip().split(".")):
            values = {part: values}
        config = from_table(config, values)
    return config


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
