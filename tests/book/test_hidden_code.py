"""What a page of the book hides is short: longer code stands in the library, under a name."""

import ast
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.py"))
HIDDEN = {"hide-input", "remove-input", "remove-cell"}
MOST = 10
_SHOWS = {"show", "table", "element", "Markdown"}  # their captions and texts are prose


def lines(source: str) -> int:
    """Lines of code: imports aside, and a call that shows something, with its words, as one."""
    tree = ast.parse(source)
    counted = {
        line
        for number, text in enumerate(source.splitlines(), start=1)
        if text.strip() and not text.strip().startswith("#")
        for line in [number]
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            counted -= set(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            if (name if isinstance(name, str) else getattr(name, "id", "")) in _SHOWS:
                counted -= set(range(node.lineno + 1, node.end_lineno + 1))
    return len(counted)


def test_lines_are_counted():
    assert lines("import a\nfrom b import (\n    c,\n)\n\n# why\nx = (\n    1\n)\n") == 3
    assert lines('y = 2\nfigures.show(\n    draw(y),\n    caption="a"\n    "b",\n)\n') == 2
    assert lines('Markdown(\n    f"{1}"\n)\n') == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_hidden_cells_are_short(path):
    for number, cell in enumerate(jupytext.read(path).cells):
        if cell.cell_type == "code" and HIDDEN & set(cell.metadata.get("tags", [])):
            assert lines(cell.source) <= MOST, (
                f"cell {number} of notebooks/{path.name} hides {lines(cell.source)} lines: move "
                f"what is more than {MOST} into mgca/experiments/report\n{cell.source[:200]}"
            )
