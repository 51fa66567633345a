"""Making the masks that a benchmark needs and its download does not bring.

Each mask is written whole; those that are there and in order are kept, so that an interrupted
preparation goes on where it stopped. Lists of images, and last the marker, are written when all
masks are there: what is not finished never looks as if it were.
"""

import errno
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from mgca.data.benchmarks import Benchmark
from mgca.data.benchmarks.context import context
from mgca.data.benchmarks.converters import Plan, Task, cityscapes, coco_object, coco_stuff
from mgca.data.benchmarks.files import (
    default_workers,
    is_finished,
    require_root,
    require_writable,
    write_ids,
)
from mgca.utils.files import write_text
from mgca.utils.progress import progress

MARKER = ".mgca-prepared.json"

_PLANS: dict[str, Callable[[Benchmark, Path, str | None], Plan]] = {
    "context": context,
    "coco-object": coco_object,
    "coco-stuff": coco_stuff,
    "cityscapes": cityscapes,
}


@dataclass(frozen=True)
class Prepared:
    """What a preparation did.

    Attributes:
        benchmark: Name of the benchmark.
        source: What the masks were made from; None where there was nothing to convert.
        written: Number of masks that were made.
        kept: Number of masks that were there already.
    """

    benchmark: str
    source: str | None
    written: int = 0
    kept: int = 0

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.benchmark}: nothing to convert, the masks are used as they come"
        return (
            f"{self.benchmark}: {self.written} masks made from {self.source}, "
            f"{self.kept} were there already"
        )


def prepare(
    benchmark: Benchmark,
    root: str | os.PathLike,
    *,
    workers: int | None = None,
    source: str | None = None,
) -> Prepared:
    """Make the masks of a benchmark that are missing, from what its download brings.

    Args:
        benchmark: The benchmark whose masks are needed.
        root: Folder that holds what its archives unpack to.
        workers: Number of threads; by default one per core.
        source: What to make them from, where there is a choice: ``"stuff"`` or ``"instances"`` for
            COCO-Object, ``"json"`` or ``"mat"`` for PASCAL Context. By default the first of the
            two that is at hand.

    Raises:
        FileNotFoundError: If a file is missing that the masks are made from.
        DataError: If such a file is damaged or another than expected.
        ValueError: If there is no such source.
        OSError: If the disk has too little space, or a file cannot be written.
    """
    root = require_root(benchmark, root)
    if benchmark.conversion is None:
        if source is not None:
            raise ValueError(f"{benchmark.name}: nothing to convert, so there is no source")
        return Prepared(benchmark.name, None)
    plan = _PLANS[benchmark.conversion](benchmark, root, source)
    absent = [task for task in plan.tasks if not task.output.exists()]
    if absent:
        require_writable(root)
    _require_space(root, sum(task.size for task in absent))
    marker = _read_marker(root)
    before = marker.pop(benchmark.conversion, None)
    if before is not None and (absent or before["source"] != plan.source):
        _write_marker(root, marker)

    def run(task: Task) -> bool:
        if is_finished(task.output, benchmark, plan.source):
            return False
        if task.output.parent.is_dir():
            require_writable(task.output.parent)
        write_ids(
            task.output, task.make(), made_from=plan.source, made_by=str(benchmark.conversion)
        )
        return True

    bar = progress(total=len(plan.tasks), desc=f"masks of {benchmark.name}", unit="mask")
    written = 0
    # Threads: decoding and encoding release the interpreter, and the annotations are shared. Where
    # it is interrupted, masks that are being written are waited for: none is left half-written.
    with bar, ThreadPoolExecutor(workers or default_workers()) as pool:
        for was_written in pool.map(run, plan.tasks):
            written += was_written
            bar.update()
    for path, text in plan.texts.items():
        write_text(path, text)
    marker[benchmark.conversion] = {"source": plan.source, "masks": len(plan.tasks)}
    if marker != _read_marker(root):
        _write_marker(root, marker)
    return Prepared(benchmark.name, plan.source, written, len(plan.tasks) - written)


def _require_space(root: Path, needed: int) -> None:
    free = psutil.disk_usage(os.fspath(root)).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the masks take about {needed / 2**20:.0f} MiB and {free / 2**20:.0f} MiB are free",
            os.fspath(root),
        )


def _read_marker(root: Path) -> dict[str, dict]:
    """The conversions that were finished under this root."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
        return {name: dict(entry) for name, entry in marker.items() if entry["source"]}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # none, or not ours


def _write_marker(root: Path, marker: dict[str, dict]) -> None:
    require_writable(root)
    write_text(root / MARKER, json.dumps(marker, indent=1, sort_keys=True) + "\n")
