"""Parameters of a notebook as papermill passes them, in a notebook that papermill executes."""

import pytest

from mgca.experiments.report.parameters import like

papermill = pytest.importorskip("papermill")
nbformat = pytest.importorskip("nbformat")
from nbformat.v4 import new_code_cell, new_notebook  # noqa: E402

DEFAULTS = """\
side = 6  # a comment
rate = 0.5
words = ["a", "b"]
patch = (7, 7)
folder = ""
steps = None
"""
SHOWS = """\
from mgca.experiments.report.page import open_page
open_page("any")
print([side, rate, words, patch, folder, steps])
"""


def executed(folder, given, defaults=DEFAULTS):
    """What the notebook prints with the parameters given."""
    first = [new_code_cell(defaults, metadata={"tags": ["parameters"]})] if defaults else []
    cells = [*first, new_code_cell(SHOWS)]
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "a.ipynb")
    done = papermill.execute_notebook(
        folder / "a.ipynb", folder / "b.ipynb", given, progress_bar=False, cwd=folder
    )
    return done.cells[-1].outputs[0]["text"].strip()


def test_each_has_the_type_of_its_default(tmp_path):
    given = {"side": "4", "rate": 1, "words": "[x, y]", "patch": "(1, 2)", "folder": 2024}
    shown = "[4, 1.0, ['x', 'y'], (1, 2), '2024', None]"
    assert executed(tmp_path, given | {"steps": "None"}) == shown


@pytest.mark.parametrize(
    ("given", "defaults", "message"),
    [
        ({"sides": 4}, DEFAULTS, "no parameter 'sides', only side, rate, words, patch"),
        ({"side": 1.5}, DEFAULTS, "side is such as 6, not 1.5"),
        ({"side": 4}, "", "no parameter 'side', and no other one"),
    ],
)
def test_what_a_notebook_does_not_take_is_refused(tmp_path, given, defaults, message):
    with pytest.raises(papermill.PapermillExecutionError, match=message):
        executed(tmp_path, given, defaults)


@pytest.mark.parametrize(
    ("default", "value", "expected"),
    [
        ([0, 1, 2], 0, [0]),
        ([0, 1, 2], "0,1", [0, 1]),
        ((7, 7), [1, 2], (1, 2)),
        (["object"], "pixel", ["pixel"]),
        (6, None, None),
        ("", None, ""),
        ("", "None", ""),
        (None, 3, 3),
        (0.5, "1e-3", 0.001),
    ],
)
def test_values_by_their_default(default, value, expected):
    found = like(default, value, "x")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("default", "value"), [(6, "six"), (6, True), ([0], "a,b"), (0.5, "half"), ((7, 7), [1.5])]
)
def test_what_is_of_another_type_is_refused(default, value):
    with pytest.raises(ValueError, match="x is such as"):
        like(default, value, "x")
