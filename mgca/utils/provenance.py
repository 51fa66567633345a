"""How a result came about: configuration, commit, environment, data, device, time."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil
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
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "seconds": round(seconds, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def machine() -> dict[str, Any]:
    """What of this machine decides bits, and what else names it.

    Numbers are sums, whose order depends on the instructions that PyTorch chose for this processor,
    on the libraries of its matrix products, and on the number of threads (``threads`` of the
    record). ``memory`` in GiB and ``system`` decide no bits.

    Returns:
        ``instructions`` ("AVX512", ...), ``blas``, ``kernels`` of the matrix products of NumPy and
        SciPy, ``memory`` and ``system``. Records of before this was kept have none of it.
    """
    return {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas(),
        "kernels": _kernels(),
        "memory": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def _blas() -> str:
    """The library of PyTorch's matrix products, and that of its convolutions."""
    built = torch.__config__.show()
    name = re.search(r"BLAS_INFO=(\w+)", built)
    versions = re.findall(r"(?:Math Kernel Library Version|MKL-DNN) (v?[\w.]+)", built)
    return " ".join([name.group(1) if name else "unknown", *versions])


def _kernels() -> list[str]:
    """The libraries that NumPy and SciPy multiply with, each with the kernel it chose.

    Empty where threadpoolctl, which looks for them, is not installed.
    """
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    # OpenCV brings a library of its own, which is there once something has imported it.
    libraries = [
        found
        for found in threadpool_info()
        if found["user_api"] == "blas" and "opencv" not in found["filepath"]
    ]
    return sorted({f"{found['internal_api']} {found.get('architecture')}" for found in libraries})


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
