"""Processes of a test's own, forked from one that has imported PyTorch and nothing else.

A Python that is started anew imports for seconds, which is what most such tests would take. These
processes are as new: they have threads, signals and an environment of their own, and may be killed.
"""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["lightning_fabric", "mgca.training.trainer"])
_SECONDS = 300


class Done(NamedTuple):
    """A process that has ended: its exit code, that of the signal below 0, and what it said."""

    returncode: int
    stderr: str


def start(
    target: Callable, *arguments: object, said: Path, **environment: str
) -> multiprocessing.Process:
    """Start a function of a module in a process.

    Args:
        target: The function.
        arguments: Its arguments.
        said: File of what the process writes to its standard error.
        environment: Variables besides those of this process.
    """
    everything = dict(os.environ) | environment
    process = _CONTEXT.Process(target=_main, args=(target, arguments, said, everything))
    process.start()
    return process


def ended(process: multiprocessing.Process, said: Path) -> Done:
    """Wait for the end of a process."""
    process.join(_SECONDS)
    assert process.exitcode is not None, f"still running: {said.read_text()[-3000:]}"
    return Done(process.exitcode, said.read_text())


def run(target: Callable, *arguments: object, said: Path) -> Done:
    """Run a function in a process, as :func:`start`."""
    return ended(start(target, *arguments, said=said), said)


def run_together(target: Callable, *arguments: object, world: int, folder: Path) -> Sequence[Done]:
    """Run a function in several processes that find each other as those of ``torchrun`` do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    common |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_RANK": "0"}
    files = [folder / f"said-{rank}.txt" for rank in range(world)]
    processes = [
        start(target, *arguments, said=said, **common, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank, said in enumerate(files)
    ]
    return [ended(*each) for each in zip(processes, files, strict=True)]


def _main(target: Callable, arguments: tuple, said: Path, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with said.open("w") as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    torch.set_num_threads(1)
    try:
        target(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
