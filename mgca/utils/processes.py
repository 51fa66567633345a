"""Worker processes that end with the process that started them, however it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import joblib
import psutil
import torch

from mgca.utils.progress import progress


def end_with_parent(*_: Any) -> None:
    """Leave signals to the parent, and exit when it is gone. To be called in a worker.

    Launchers and schedulers send them to all processes of a group; the parent then finishes its
    step, for which it may need what this worker reads.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    exit_with_parent()


def exit_with_parent(other: int | None = None) -> None:
    """Exit within a second of the end of the process that started this one.

    Args:
        other: Number of another process whose end is waited for; None for the parent.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent if other is None else psutil.pid_exists(other):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int | None, **bar: str
) -> list[Any]:
    """The results of a function for each item, in order, computed in processes, with progress.

    Args:
        function: Function of a module, so that processes can find it.
        items: Its arguments.
        workers: Number of processes, by default one per core; with 1 there is only this one.
        bar: Options of the progress bar.
    """
    workers = min(workers or joblib.cpu_count(), len(items))
    if workers <= 1:
        return [function(item) for item in progress(iterable=items, **bar)]
    pool = ProcessPoolExecutor(workers, initializer=end_with_parent)
    try:
        return list(progress(iterable=pool.map(function, items), total=len(items), **bar))
    finally:
        # After an interruption, what has begun is finished and the rest is left.
        pool.shutdown(cancel_futures=True)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """A context in which torch computes with ``number`` threads.

    The number decides the order in which threads add numbers up, and with it the last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
