"""Tables that a reader sorts: every cell is there without a script, and no address is loaded."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from mgca.experiments.report.figures import html_table
from mgca.experiments.report.tables import sortable

pytest.importorskip("IPython")

SCRIPT = Path(__file__).resolve().parents[2] / "book" / "_static" / "tables.js"
# Just enough of a browser's page for the script: elements with children, attributes and listeners.
PAGE = """
class Element {
  constructor(tag, text = "") {
    Object.assign(this, { tag, text, childNodes: [], attributes: {} });
  }
  get textContent() { return this.text + this.childNodes.map((node) => node.textContent).join(""); }
  append(...nodes) {
    for (const node of nodes) {
      this.childNodes = this.childNodes.filter((other) => other !== node).concat(node);
    }
  }
  get cells() { return this.childNodes; }
  get rows() { return this.childNodes; }
  setAttribute(name, value) { this.attributes[name] = value; }
  getAttribute(name) { return this.attributes[name] ?? null; }
  removeAttribute(name) { delete this.attributes[name]; }
  addEventListener(event, listener) { this.click = listener; }
}
const make = (tag, children) => {
  const element = new Element(tag);
  element.append(...children);
  return element;
};
const row = (texts) => make("tr", texts.map((text) => make("td", [new Element("text", text)])));
const { heads, rows, clicks } = JSON.parse(process.argv[2]);
const table = { tHead: make("thead", [row(heads)]), tBodies: [make("tbody", rows.map(row))] };
globalThis.ResizeObserver = class { observe() {} };
globalThis.document = {
  addEventListener: (event, listener) => { globalThis.start = listener; },
  querySelectorAll: (selector) => (selector === "table.sortable" ? [table] : []),
  createElement: (tag) => new Element(tag),
};
require(process.argv[3]);
start();
for (const place of clicks) table.tHead.rows[0].cells[place].childNodes.at(-1).click();
console.log(JSON.stringify({
  rows: table.tBodies[0].rows.map((line) => line.cells.map((cell) => cell.textContent)),
  sorted: table.tHead.rows[0].cells.map((head) => head.getAttribute("aria-sort")),
  buttons: table.tHead.rows[0].cells.map((head) => head.childNodes.at(-1).tag),
}));
"""


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "method": ["a & b", "b", "c"],
            "unit": ["pixel", "36", "36"],
            "VOC": ["9.4 ± 0.2", "24.6", "not run"],
            "note": ["x", "y", "z"],
        }
    ).set_index(["method", "unit"])


def test_it_is_a_plain_table_that_loads_nothing(table):
    data = sortable(table).data
    assert data == html_table(table)
    assert re.match(r'<table class="[^"]*\bsortable\b', data)
    assert "<script" not in data and "http" not in data
    for cell in ("a &amp; b", "9.4 ± 0.2", "not run", "z"):
        assert f">{cell}</t" in data


@pytest.fixture(scope="module")
def clicked(tmp_path_factory):
    """Click heads of a table, one after the other; returns its state after the last."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    page = tmp_path_factory.mktemp("page") / "page.js"
    page.write_text(PAGE)

    def click(heads, rows, *clicks):
        given = json.dumps({"heads": heads, "rows": rows, "clicks": clicks})
        run = subprocess.run(
            [node, str(page), given, str(SCRIPT)], capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return click


HEADS = ["name", "value"]
ROWS = [["b", "9.4 ± 0.2"], ["a", "24.6"], ["", "not run"], ["c", "−1.5"], ["d", "1,234"]]


def test_numbers_are_sorted_as_numbers_largest_first(clicked):
    state = clicked(HEADS, ROWS, 1)
    assert [row[1] for row in state["rows"]] == ["1,234", "24.6", "9.4 ± 0.2", "−1.5", "not run"]
    assert state["sorted"] == [None, "descending"]
    assert state["buttons"] == ["button", "button"]


def test_a_second_click_turns_the_order_and_what_is_no_number_stays_last(clicked):
    state = clicked(HEADS, ROWS, 1, 1)
    assert [row[1] for row in state["rows"]] == ["−1.5", "9.4 ± 0.2", "24.6", "1,234", "not run"]
    assert state["sorted"] == [None, "ascending"]


def test_words_are_sorted_from_the_first_and_empty_cells_are_last(clicked):
    state = clicked(HEADS, ROWS, 1, 0)
    assert [row[0] for row in state["rows"]] == ["a", "b", "c", "d", ""]
    assert state["sorted"] == ["ascending", None]


def test_rows_stay_together(clicked):
    state = clicked(HEADS, ROWS, 1, 0, 1)
    assert sorted(state["rows"]) == sorted(ROWS)
