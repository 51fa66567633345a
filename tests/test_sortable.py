"""Tables that a reader sorts: every cell is there without a script, and no address is loaded."""

import json
import re

import pandas as pd
import pytest

from mgca.report import sortable

pytest.importorskip("itables")


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "method": ["a & b", "b", "c"],
            "unit": ["pixel", "36", "36"],
            "VOC": ["9.4 ± 0.2", "24.6", "not run"],
            "gain": ["+1.0", "-0.5", "–"],
            "note": ["x", "y", "z"],
        }
    ).set_index(["method", "unit"])


def test_every_cell_is_in_the_plain_table(table):
    plain = re.search(r'_fallback">(<table.*?</table>)', sortable(table).data, re.DOTALL).group(1)
    for cell in ("a &amp; b", "9.4 ± 0.2", "not run", "-0.5", "–", "z"):
        assert f">{cell}</td>" in plain
    heads = re.findall(r"<th\b[^>]*>(.*?)</th>", plain, re.DOTALL)
    assert [re.sub(r"<sup>.*</sup>", "", head) for head in heads] == [
        "method",
        "unit",
        "VOC",
        "gain",
        "note",
    ]


def test_cells_that_begin_with_a_number_are_sorted_as_numbers(table):
    definitions = re.search(r'"columnDefs": (\[.*\]),\n', sortable(table).data).group(1)
    (definition,) = json.loads(definitions)
    assert definition["targets"] == [1, 2, 3]  # unit, VOC and gain, not method and note
    assert "parseFloat" in definition["render"]


def test_nothing_is_loaded_and_the_order_is_that_of_the_table(table):
    data = sortable(table).data
    assert not re.search(r'(src|import\b.*|from) ?["\']https?:', data)
    assert '"order": []' in data
    assert '"paging": false' in data


def test_an_index_without_a_name_is_left_out(table):
    data = sortable(table.reset_index()).data
    assert "method</th>" in data
    assert ">index</th>" not in data
