"""How a result came about: configuration, commit, environment, data, device, time."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "pillow")


def provenance(
    config: dict[str, Any], *, seed: int, data: dict[str, str], seconds: float
) -> dict[str, Any]:
    """The record of how a run came about: configuration, commit, environment, data, device, time.

    Args:
        config: Configuration of the run.
        seed: Seed of the run.
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


def _commit() -> str:
    """The commit of the source, marked where the tree has changes; "unknown" outside git."""
    package = Path(__file__).parents[1]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(package))
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
