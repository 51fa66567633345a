"""Execute the notebooks and make pages of them: ``python book/_ext/execute.py [NAME ...]``.

A notebook is executed when its code, the library, the results or the pinned packages differ from
those of its last execution, or with ``FRESH=1`` in the environment. Otherwise its outputs are kept
in ``_build/executed``, and only its text is new. Contents are compared, not times: a fresh checkout
with that folder executes nothing.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from publish import NotebookError, check, downloadable, page

from mgca.utils.files import alone_in, replacing, write_text

log = logging.getLogger("execute")

ROOT = Path(__file__).resolve().parents[2]
RECORD = "mgca"  # key of an execution's record in the metadata of a kept notebook
_FORMAT = 1  # of what is kept; another number executes everything again
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


def digest(root: Path, names: Sequence[str]) -> str:
    """Of files and folders of a project: their paths and contents."""
    found = [p for name in names for p in [root / name, *(root / name).rglob("*")] if p.is_file()]
    total = hashlib.sha256()
    for path in sorted(found):
        if "__pycache__" in path.parts or path.suffix == ".partial":
            continue
        total.update(path.relative_to(root).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def surroundings(root: Path) -> dict[str, str | bool | int]:
    """What every notebook depends on: library, packages, results, and whether there is data."""
    return {
        "format": _FORMAT,
        "library": digest(root, ("mgca", "requirements.lock")),
        "results": digest(root, ("results",)),
        "data": bool(os.environ.get("MGCA_DATA")),
    }


def cache_key(notebook: NotebookNode, around: dict[str, str | bool | int]) -> str:
    """Digest of what an execution depends on: the code of the notebook and :func:`surroundings`."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    return hashlib.sha256(json.dumps([around, kernel, code]).encode()).hexdigest()


def with_outputs(source: NotebookNode, kept: NotebookNode) -> NotebookNode:
    """The text of a notebook with the outputs of its last execution, which had the same code."""
    merged = nbformat.from_dict(source)
    of_source, of_kept = (
        [cell for cell in notebook.cells if cell.cell_type == "code"] for notebook in (merged, kept)
    )
    for new, old in zip(of_source, of_kept, strict=True):
        new.outputs, new.execution_count = old.outputs, old.execution_count
    return merged


def make_pages(folders: Folders, names: Iterable[str], *, fresh: bool = False) -> list[str]:
    """Bring the pages of some notebooks up to date.

    Args:
        names: Of the notebooks, without ".py".
        fresh: Execute all of them.

    Returns:
        The names of those executed.

    Raises:
        NotebookError: If a cell fails, or an output may not be published.
    """
    names, done = list(names), []
    for attempt in range(_TRIES):
        computing = fresh and attempt == 0
        stale = names if computing else _stale(folders, names)
        for name in stale:
            # Only the first time: what the notebooks have just computed may be read.
            os.environ["FRESH"] = "1" if computing else ""
            _execute(folders, name, computed=fresh and name in done, fresh=computing)
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
    around = surroundings(folders.root)
    return [name for name in names if not _current(folders, name, around)]


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


def _current(folders: Folders, name: str, around: dict[str, str | bool | int]) -> bool:
    kept = _kept(folders, name)
    key = cache_key(_read(folders, name), around)
    return kept is not None and kept.metadata[RECORD]["key"] == key


def _execute(folders: Folders, name: str, *, fresh: bool, computed: bool) -> None:
    """Execute a notebook and keep it with its record.

    Args:
        fresh: It computes all that it shows.
        computed: It did so just before, and now only reads. Its numbers, and what they took, are
            those of that execution.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    from mgca.utils.provenance import provenance

    source = _read(folders, name)
    before = surroundings(folders.root)
    data_files = folders.interactive / name
    shutil.rmtree(data_files, ignore_errors=True)
    # Papermill saves after each cell, so that a failure shows how far the notebook came.
    partial = folders.root / "_build" / "notebooks" / f"{name}.partial.ipynb"
    partial.parent.mkdir(parents=True, exist_ok=True)
    start = partial.with_suffix(".start.ipynb")
    nbformat.write(source, start)
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
    # The library as the notebook found it, the results as it left them.
    after = before | {"results": surroundings(folders.root)["results"]}
    record = provenance({}, seed=0, data={}, seconds=time.perf_counter() - began)
    executed.metadata[RECORD] = {
        "key": cache_key(source, after),
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
    for path in (start, partial):
        path.unlink()


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
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for noisy in ("papermill", "blib2to3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    folders = Folders(ROOT)
    _set_up_kernel(folders.root / "_build" / "ipython")
    os.environ["MGCA_PROJECT"] = str(folders.root)  # whatever library the kernel imports
    names = given.names or sorted(path.stem for path in folders.sources.glob("*.py"))
    try:
        with alone_in(folders.executed):
            done = make_pages(folders, names, fresh=os.environ.get("FRESH") == "1")
            if not given.names:
                _remove_others(folders, names)
    except (NotebookError, OSError) as error:
        raise SystemExit(str(error)) from error
    log.info("%d notebooks: %d executed, the others as before", len(names), len(done))


def _set_up_kernel(folder: Path) -> None:
    """A profile of its own, in which the kernel does not warn that it listens on a local port."""
    os.environ["IPYTHONDIR"] = str(folder)
    settings = "get_config().IPKernelApp.log_level = 40\n"
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
