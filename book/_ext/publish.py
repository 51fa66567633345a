"""From an executed notebook to a page of the book: captions, checks, and a copy to download."""

import logging
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from mgca.experiments.report.figures import METADATA

log = logging.getLogger("execute")

_PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
#: Where the project is published; the one place that a fork changes, with what a test names.
REPOSITORY: str = _PROJECT["project"]["urls"]["Repository"]
# Such as "UserWarning: ...", and what Python's warnings put before it.
_WARNING = re.compile(r"^.*\b\w*Warning: .*$", re.MULTILINE)
_HIDING = {"hide-input", "remove-input", "hide-cell"}
_INSTALL = f"""\
# Where mgca is missing, as on Colab: get the project with its results, and install it. If the
# session asks to be restarted, restart it and run this cell again. The project's folder is not
# called mgca, which Python would take for the package.
import importlib.util
import os

project = os.path.abspath("mgca-project")
found = importlib.util.find_spec("mgca")
if found is None or found.origin is None:  # a folder of that name is no package
    if not os.path.isdir(project):
        !git clone --quiet --depth 1 {REPOSITORY} "{{project}}"
    %pip install --quiet "{{project}}"
if any(importlib.util.find_spec(name) is None for name in ("seaborn", "skimage", "sklearn")):
    %pip install --quiet seaborn scikit-image scikit-learn
if os.path.isdir(project):
    os.environ["MGCA_PROJECT"] = project
"""


class NotebookError(ValueError):
    """A notebook cannot become a page; the message says which cell and why."""


def check(notebook: NotebookNode) -> None:
    """Refuse outputs that no page should have.

    Raises:
        NotebookError: For an error, for what went to stderr, and for warnings.
    """
    for number, cell, output in _outputs(notebook):
        if output.output_type == "error" and "raises-exception" not in cell.metadata.get(
            "tags", ()
        ):
            raise NotebookError(f"cell {number} failed with {output.ename}: {output.evalue}")
        if output.get("name") == "stderr":
            raise NotebookError(f"cell {number} wrote to stderr: {output.text.strip()[:500]}")
        said = output.get("text") or output.get("data", {}).get("text/plain", "")
        if warning := _WARNING.search(said):
            raise NotebookError(f"cell {number} shows a warning: {warning[0].strip()[:500]}")


def page(notebook: NotebookNode, root: Path) -> NotebookNode:
    """The notebook as the book reads it: every figure and table with its caption and source.

    Args:
        notebook: Executed. It is not changed.
        root: Of the project, which holds ``results``.

    Raises:
        NotebookError: If an output may not be published, a figure has no alternative text, or the
            file of its numbers does not exist.
    """
    check(notebook)
    published = nbformat.from_dict(notebook)
    published.metadata = nbformat.from_dict(
        {
            key: notebook.metadata[key]
            for key in ("kernelspec", "language_info")
            if key in notebook.metadata
        }
    )
    published.cells = [
        part
        for number, cell in enumerate(published.cells, 1)
        for part in (_parts(cell, number, root) if cell.cell_type == "code" else [cell])
    ]
    return published


def downloadable(source: NotebookNode) -> NotebookNode:
    """The notebook to run elsewhere: without outputs, and with a first cell that installs mgca."""
    copy = nbformat.from_dict(source)
    copy.metadata = nbformat.from_dict({"kernelspec": source.metadata.get("kernelspec", {})})
    copy.cells = [new_code_cell(_INSTALL, id="install"), *copy.cells]
    copy.nbformat_minor = max(copy.nbformat_minor, 5)
    return copy


def label(results: str) -> str:
    """The label of a results file on the page of provenance: scenes/k.csv is results-scenes-k."""
    return "results-" + re.sub(r"[^a-z0-9]+", "-", results.removesuffix(".csv").lower())


def _outputs(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode, NotebookNode]]:
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            yield number, cell, output


def _parts(cell: NotebookNode, number: int, root: Path) -> list[NotebookNode]:
    """A cell as one or more, each with one captioned output at most: captions belong to cells."""
    parts, captioned = [cell], False
    outputs, cell.outputs = cell.outputs, []
    for output in outputs:
        described = output.get("metadata", {}).pop(METADATA, None)
        if described and described["kind"] == "caption":
            continue  # for readers of the notebook itself
        if (captioned or described) and parts[-1].outputs:
            parts.append(_continued(cell))
        if described:
            # A fresh cell even where nothing is above it but code: what follows is not captioned.
            parts[-1].metadata["mystnb"] = _options(described, number, root)
        elif any(kind.startswith("image/") for kind in output.get("data", ())):
            log.warning(
                "  cell %d: a picture without mgca.experiments.report.figures.show has no caption",
                number,
            )
        captioned = bool(described)
        parts[-1].outputs.append(output)
    if "hide-input" in cell.metadata.get("tags", ()):
        shown = cell.metadata.get("mystnb", {})
        cell.metadata["mystnb"] = shown | {"code_prompt_show": _prompt(cell.source, shown)}
    return parts


def _prompt(source: str, options: dict[str, Any]) -> str:
    """What stands where code is folded: whether it draws, only imports, or computes."""
    if "image" in options:
        return "How this figure is drawn"
    if "figure" in options:
        return "How this table is made"
    imports = source.startswith(("import ", "from "))
    return "Imports and settings" if imports else "What the next figure needs"


def _continued(cell: NotebookNode) -> NotebookNode:
    """A cell for further outputs of a cell, with its tags but for those about the code."""
    tags = [tag for tag in cell.metadata.get("tags", ()) if tag not in _HIDING]
    # MyST-NB leaves out a cell without code, with its outputs.
    return new_code_cell("# continued", metadata={"tags": [*tags, "remove-input"]})


def _options(described: dict[str, Any], number: int, root: Path) -> dict[str, Any]:
    """The options of MyST-NB for a captioned output."""
    results, caption = described["results"], described["caption"].strip()
    if results is not None:  # else it was computed on the page
        if not (root / "results" / results).is_file():
            raise NotebookError(f"cell {number}: there is no file results/{results}")
        caption += (
            f"\n\nNumbers: {{download}}`{results} <../../results/{results}>`, "
            f"{{ref}}`how they came about <{label(results)}>`."
        )
    figure = {"caption": caption, "classes": f"mgca-{described['kind']}"}
    if described["name"]:
        figure["name"] = described["name"]
    if described["kind"] == "table":
        return {"figure": {**figure, "caption_before": True}}
    if not described.get("alt", "").strip():
        raise NotebookError(f"cell {number}: the figure has no alternative text, give show() alt=")
    return {"figure": figure, "image": {"alt": described["alt"]}}
