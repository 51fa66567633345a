"""The page that says when, where and with what each notebook of the book was executed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECORD = "mgca"  # in the metadata of a notebook in _build/executed


def records(root: Path) -> dict[str, dict[str, Any] | None]:
    """The record of the last execution by notebook; None where there is none."""
    found: dict[str, dict[str, Any] | None] = {}
    for source in sorted((root / "notebooks").glob("*.py")):
        kept = root / "_build" / "executed" / f"{source.stem}.ipynb"
        notebook = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else None
        found[source.stem] = notebook and {
            **notebook["metadata"][RECORD],
            "reads": _reads_results(notebook["cells"]),
        }
    return found


def status(root: Path, pages: Iterable[str]) -> str:
    """The status of the notebooks among some pages, in Markdown.

    Args:
        pages: Names of the book's documents, in its order.
    """
    found = records(root)
    names = [page.removeprefix("notebooks/") for page in pages if page.startswith("notebooks/")]
    rows, places = [], []
    for name in names:
        record = found.get(name)
        if record is None:
            rows.append(f"| [](notebooks/{name}.ipynb) | no record | | | | |")
            continue
        place = _place(record)
        if place not in places:
            places.append(place)
        commit = record["commit"]
        short = commit[:12] + ("-modified" if commit.endswith("-modified") else "")
        rows.append(
            f"| [](notebooks/{name}.ipynb) | {record['seconds']:.0f} | "
            f"{record['date'].replace('T', ' ')[:16]} | {_numbers(record)} | `{short}` | "
            f"{places.index(place) + 1} |"
        )
    head = "| page | seconds | executed (UTC) | its numbers | commit | environment |"
    table = "\n".join([head, "|---|--:|---|---|---|--:|", *rows])
    listed = "\n".join(f"{number}. {place}" for number, place in enumerate(places, 1))
    return f"{table}\n\n## Environments\n\n{listed}\n" if places else f"{table}\n"


def _place(record: dict[str, Any]) -> str:
    """Machine and packages of an execution, in words."""
    packages = ", ".join(f"{name} {version}" for name, version in record["environment"].items())
    data = "with the real images" if record["data"] else "without the real images"
    return f"{record['device']}, {record['threads']} threads, {data}; {packages}."


def _numbers(record: dict[str, Any]) -> str:
    """Where the numbers of a page come from."""
    if record["fresh"]:
        return "all computed anew"
    if record["wrote"]:
        return "`results/`, what it lacked computed"
    return "`results/`, and computed" if record["reads"] else "computed"


def _reads_results(cells: Iterable[dict[str, Any]]) -> bool:
    """Whether the code of a notebook names the results folder."""
    code = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return '"results"' in code or "results=" in code
