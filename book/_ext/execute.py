"""Execute the notebooks and make pages of them: ``python book/_ext/execute.py [NAME ...]``.

A notebook is executed when its code, a file of the library or of the results that it read, or the
pinned packages differ from those of its last execution, or with ``FRESH=1`` in the environment.
Otherwise its outputs are kept in ``_build/executed``, and only its text is new. Contents are
compared, not times: a fresh checkout with that folder executes nothing.

Two notebooks are executed at a time, each with as many threads as alone. With ``FRESH=1`` one is:
then they compute, several runs at a time, and read what others have written.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import jupytext
import kernel_reads
import nbformat
from nbformat import NotebookNode
from publish import NotebookError, check, downloadable, page

from mgca.utils.files import alone_in, replacing, write_text

log = logging.getLogger("execute")

ROOT = Path(__file__).resolve().parents[2]
RECORD = "mgca"  # key of an execution's record in the metadata of a kept notebook
_FORMAT = 2  # of what is kept; another number executes everything again
_JOBS = 2  # notebooks at a time
_LONGEST = ("training", "scenes_training")  # first, so that none is left alone at the end
# glibc gives the memory of large tensors back, and takes a sixth of the time to get it anew. It may
# move last bits, so what computes for results/ goes without.
_KEPT_MEMORY = {f"MALLOC_{name}_THRESHOLD_": str(2**30) for name in ("TRIM", "MMAP")}
_TRIES = 2  # of all notebooks: one may write results that another one reads


class Folders:
    """Where a project has its notebooks, and where what is made of them goes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources = root / "notebooks"
        self.pages = root / "book" / "notebooks"
        self.executed = root / "_build" / "executed"
        self.interactive = root / "_build" / "interactive"
        self.downloads = root / "_build" / "downloads"


def contents(root: Path) -> dict[str, str]:
    """The digest of every file that notebooks may read, by its path in the project."""
    found = [p for name in kernel_reads.FOLDERS for p in (root / name).rglob("*") if p.is_file()]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(found)
        if "__pycache__" not in path.parts and path.suffix != ".partial"
    }


def surroundings(root: Path) -> dict[str, str | bool | int]:
    """What every notebook depends on: the packages, and whether there is data."""
    return {
        "format": _FORMAT,
        "packages": hashlib.sha256((root / "requirements.lock").read_bytes()).hexdigest(),
        "data": bool(os.environ.get("MGCA_DATA")),
    }


def cache_key(
    notebook: NotebookNode,
    around: Mapping[str, str | bool | int],
    files: Mapping[str, str],
    read: Sequence[str] | None,
) -> str:
    """Digest of what an execution depends on: the notebook's code and what it found.

    Args:
        notebook: The notebook, of which only code counts.
        around: Its :func:`surroundings`.
        files: The project's :func:`contents`.
        read: The files that it read, there or not; None for all.
    """
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    found = dict(files) if read is None else {name: files.get(name) for name in read}
    if any(name.startswith("results") for name in found):
        # Whether there is a file can be asked without opening it.
        found["results"] = " ".join(name for name in files if name.startswith("results/"))
    return hashlib.sha256(json.dumps([around, kernel, code, found]).encode()).hexdigest()


def with_outputs(source: NotebookNode, kept: NotebookNode) -> NotebookNode:
    """The text of a notebook with the outputs of its last execution, which had the same code."""
    merged = nbformat.from_dict(source)
    of_source, of_kept = (
        [cell for cell in notebook.cells if cell.cell_type == "code"] for notebook in (merged, kept)
    )
    for new, old in zip(of_source, of_kept, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count
    return merged


def make_pages(
    folders: Folders, names: Iterable[str], *, fresh: bool = False, jobs: int = 1
) -> list[str]:
    """Bring the pages of some notebooks up to date.

    Args:
        folders: Where the project has them.
        names: The notebooks, without ".py".
        fresh: Execute all of them.
        jobs: Notebooks at a time, each in a process of its own where there are several.

    Returns:
        The names of those executed.

    Raises:
        NotebookError: If a cell fails, or an output may not be published.
    """
    names, done = list(names), []
    for attempt in range(_TRIES):
        computing = fresh and attempt == 0
        stale = names if computing else _stale(folders, names)
        # Only the first time: what the notebooks have just computed may be read.
        os.environ["FRESH"] = "1" if computing else ""
        again = [fresh and name in done for name in stale]
        if jobs == 1 or fresh:
            for name, computed in zip(stale, again, strict=True):
                _execute(folders, name, computed=computed, fresh=computing)
        else:
            _execute_at_once(folders, stale, jobs)
        done += [name for name in stale if name not in done]
        if not stale:
            break
    else:
        if stale := _stale(folders, names):
            log.warning(
                "results changed after these notebooks had read them, also the last time: %s. "
                "Their pages may show older ones: run it again",
                ", ".join(stale),
            )
    for name in names:
        log.info("%s %s", "executed" if name in done else "kept", name)
        _publish(folders, name)
    return done


def _stale(folders: Folders, names: Iterable[str]) -> list[str]:
    """The notebooks whose code or surroundings are not those of their last execution."""
    around, files = surroundings(folders.root), contents(folders.root)
    return [name for name in names if not _current(folders, name, around, files)]


def _read(folders: Folders, name: str) -> NotebookNode:
    path = folders.sources / f"{name}.py"
    if not path.is_file():
        raise NotebookError(f"there is no notebook {path}")
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # jupytext draws them at random, and pages would differ by it
    return notebook


def _kept(folders: Folders, name: str) -> NotebookNode | None:
    path = folders.executed / f"{name}.ipynb"
    return nbformat.read(path, as_version=4) if path.is_file() else None


def _current(
    folders: Folders, name: str, around: Mapping[str, str | bool | int], files: Mapping[str, str]
) -> bool:
    source, kept = _read(folders, name), _kept(folders, name)
    if kept is None:
        return False
    record = kept.metadata[RECORD]
    return record["key"] == cache_key(source, around, files, record.get("files"))


def _execute_at_once(folders: Folders, names: Sequence[str], jobs: int) -> None:
    """Execute notebooks, several at a time; the first that fails ends it all."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), _log) as pool:
        first = sorted(names, key=lambda name: name not in _LONGEST)
        waiting = [
            pool.submit(_execute, folders, name, fresh=False, computed=False, alone=False)
            for name in first
        ]
        try:
            for one in as_completed(waiting):
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _execute(
    folders: Folders, name: str, *, fresh: bool, computed: bool, alone: bool = True
) -> None:
    """Execute a notebook and keep it with its record.

    Args:
        folders: Where the project has it.
        name: The notebook, without ".py".
        fresh: It computes all that it shows.
        computed: It did so just before, and now only reads. Its numbers, and what they took, are
            those of that execution.
        alone: Nothing else is executed, so that what changed in the results it changed itself.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    from mgca.utils.provenance import provenance

    source = _read(folders, name)
    around, before = surroundings(folders.root), contents(folders.root)
    data_files = folders.interactive / name
    shutil.rmtree(data_files, ignore_errors=True)
    # Papermill saves after each cell, so that a failure shows how far the notebook came.
    partial = folders.root / "_build" / "notebooks" / f"{name}.partial.ipynb"
    partial.parent.mkdir(parents=True, exist_ok=True)
    start = partial.with_suffix(".start.ipynb")
    nbformat.write(source, start)
    reads = partial.with_suffix(".reads")
    reads.unlink(missing_ok=True)
    os.environ[kernel_reads.LIST] = str(reads)
    log.info("executing %s", name)
    began = time.perf_counter()
    try:
        papermill.execute_notebook(
            start, partial, kernel_name="python3", cwd=folders.sources, progress_bar=False
        )
        executed = nbformat.read(partial, as_version=4)
        check(executed)
    except DeadKernelError as error:
        raise NotebookError(
            f"the process of notebooks/{name}.py died, as for want of memory.\n"
            f"As far as it came: {partial}"
        ) from error
    except papermill.PapermillExecutionError as error:
        raise NotebookError(
            f"cell {error.cell_index + 1} of notebooks/{name}.py failed with {error.ename}: "
            f"{error.evalue}\nAs far as it came: {partial}"
        ) from error
    except NotebookError as error:
        raise NotebookError(f"notebooks/{name}.py: {error}\nThe outputs: {partial}") from error
    # The library as the notebook found it, and the results as it left them.
    read, written = kernel_reads.read(reads)
    now = {k: v for k, v in contents(folders.root).items() if k.startswith("results/")}
    own = now if alone else {k: v for k, v in now.items() if k in written}
    after = {k: v for k, v in before.items() if not alone or k in now or k.startswith("mgca/")}
    after |= own
    record = provenance({}, seed=0, data={}, seconds=time.perf_counter() - began)
    executed.metadata[RECORD] = {
        "key": cache_key(source, around, dict(sorted(after.items())), read),
        "files": read,
        "fresh": fresh or computed,
        "wrote": after != before,
        "data": bool(os.environ.get("MGCA_DATA")),
        **{
            field: record[field]
            for field in ("commit", "date", "device", "environment", "seconds", "threads")
        },
    }
    if computed:
        first = _kept(folders, name).metadata[RECORD]
        executed.metadata[RECORD] |= {key: first[key] for key in ("date", "seconds", "wrote")}
    executed.metadata.pop("papermill", None)
    for cell in executed.cells:
        cell.metadata.pop("papermill", None)
    copied = folders.executed / "interactive" / name
    shutil.rmtree(copied, ignore_errors=True)
    if data_files.is_dir():
        shutil.copytree(data_files, copied)
    with replacing(folders.executed / f"{name}.ipynb") as temporary:
        nbformat.write(executed, temporary)
    for path in (start, partial, reads):
        path.unlink(missing_ok=True)


def _publish(folders: Folders, name: str) -> None:
    source, kept = _read(folders, name), _kept(folders, name)
    try:
        published = page(with_outputs(source, kept), folders.root)
    except NotebookError as error:
        raise NotebookError(f"notebooks/{name}.py: {error}") from error
    for number, cell in enumerate(published.cells):
        cell.id = f"cell-{number}"
    _write_changed(folders.pages / f"{name}.ipynb", nbformat.writes(published))
    _write_changed(folders.downloads / f"{name}.ipynb", nbformat.writes(downloadable(source)))
    data_files = folders.interactive / name
    shutil.rmtree(data_files, ignore_errors=True)
    if (copied := folders.executed / "interactive" / name).is_dir():
        shutil.copytree(copied, data_files)


def _write_changed(path: Path, text: str) -> None:
    """Write a file, unless it says the same already: make goes by its time."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the pages of the notebooks named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="notebooks, without .py; all if none is named")
    given = parser.parse_args(arguments)
    _log()
    folders = Folders(ROOT)
    _set_up_kernel(folders.root / "_build" / "ipython")
    os.environ["MGCA_PROJECT"] = str(folders.root)  # whatever library the kernel imports
    names = given.names or sorted(path.stem for path in folders.sources.glob("*.py"))
    fresh = os.environ.get("FRESH") == "1"
    if not fresh:
        os.environ.update(_KEPT_MEMORY)
    try:
        with alone_in(folders.executed):
            done = make_pages(folders, names, fresh=fresh, jobs=_JOBS)
            if not given.names:
                _remove_others(folders, names)
    except (NotebookError, OSError) as error:
        raise SystemExit(str(error)) from error
    log.info("%d notebooks: %d executed, the others as before", len(names), len(done))


def _log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("papermill", "blib2to3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _set_up_kernel(folder: Path) -> None:
    """A profile of its own, in which the kernel does not warn that it listens on a local port.

    Kernels also list what they read, see :mod:`kernel_reads`.
    """
    os.environ["IPYTHONDIR"] = str(folder)
    settings = f"""\
get_config().IPKernelApp.log_level = 40
import os, sys
if "{kernel_reads.LIST}" in os.environ:
    sys.path.append({str(Path(__file__).parent)!r})
    import kernel_reads
    sys.path.pop()
    kernel_reads.record({str(ROOT)!r}, os.environ["{kernel_reads.LIST}"])
"""
    write_text(folder / "profile_default" / "ipython_kernel_config.py", settings)


def _remove_others(folders: Folders, names: Sequence[str]) -> None:
    """Remove what is left of notebooks that are gone."""
    for folder in (folders.pages, folders.executed, folders.downloads):
        for path in folder.glob("*.ipynb"):
            if path.stem not in names:
                path.unlink()
    for folder in (folders.interactive, folders.executed / "interactive"):
        for path in folder.glob("*"):
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path)


if __name__ == "__main__":
    main()
