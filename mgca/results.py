"""Results: one tidy table per experiment, one provenance file per run.

``results/<scale>/<experiment>.csv`` has the columns of :data:`COLUMNS`;
``results/<scale>/runs/<run>.json`` says how a run came about. Both are written whole or not at all.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mgca.files import replacing, write_text

#: One row is one number, and the name of the run that it comes from.
COLUMNS = ["variant", "dataset", "unit", "seed", "metric", "value", "run"]
_KEY = COLUMNS[:5]
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "pillow")


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A results table; empty if the file does not exist yet.

    Raises:
        ValueError: If the columns are not those of a results table.
    """
    if not Path(path).is_file():
        return pd.DataFrame(columns=COLUMNS)
    table = pd.read_csv(path, dtype={"unit": str, "run": str, "variant": str, "dataset": str})
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} is not a results table: its columns are {list(table.columns)}")
    return table


def add_results(path: str | os.PathLike[str], rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Add rows to a results table; a row of the same variant, dataset, unit, seed and metric is
    replaced."""
    added = pd.DataFrame(list(rows), columns=COLUMNS).astype({"unit": str})
    present = read_results(path)
    table = pd.concat([present, added], ignore_index=True) if len(present) else added
    table = table.drop_duplicates(_KEY, keep="last").sort_values(_KEY, ignore_index=True)
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
    return table


def summary(table: pd.DataFrame, metric: str = "miou") -> pd.DataFrame:
    """Mean, standard deviation and number of seeds by variant, unit and dataset."""
    chosen = table[table["metric"] == metric]
    grouped = chosen.groupby(["variant", "unit", "dataset"])["value"]
    return grouped.agg(["mean", "std", "count"]).reset_index()


def provenance(
    config: dict[str, Any], *, seed: int, data: dict[str, str], seconds: float
) -> dict[str, Any]:
    """How a run came about: configuration, commit, environment, data, device, time.

    Args:
        data: Digest of each data set's manifest by name.
        seconds: Wall time of the run.
    """
    return {
        "config": config,
        "seed": seed,
        "commit": _commit(),
        "data": data,
        "environment": {
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "device": _device(),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_run(folder: str | os.PathLike[str], run: str, record: dict[str, Any]) -> Path:
    """Write ``<folder>/runs/<run>.json``."""
    path = Path(folder) / "runs" / f"{run}.json"
    write_text(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return path


def read_run(folder: str | os.PathLike[str], run: str) -> dict[str, Any]:
    """The provenance of a run.

    Raises:
        FileNotFoundError: If there is none.
    """
    path = Path(folder) / "runs" / f"{run}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no provenance of run {run}: {path}")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _commit() -> str:
    """The commit of the source, marked where the tree has changes; "unknown" outside git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
        return git("rev-parse", "HEAD") + ("-modified" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            model = names[0].split(":", 1)[1].strip()
    return f"{model}, {os.cpu_count()} cores"
