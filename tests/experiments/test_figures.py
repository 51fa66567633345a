"""Figures and tables of the book: what a notebook's output carries, and how a table is written."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgca.experiments.report import figures


@pytest.fixture
def shown(monkeypatch):
    """Collects what is displayed: (data, metadata) by output."""
    IPython = pytest.importorskip("IPython")
    outputs = []

    def display(data, *, metadata, raw):
        assert raw
        outputs.append((data, metadata))

    monkeypatch.setattr(IPython.display, "display", display)
    return outputs


@pytest.fixture(autouse=True)
def own_style():
    with plt.rc_context():
        yield
    plt.close("all")


def line():
    figure, axis = plt.subplots()
    axis.plot([1, 2], [3, 5], label="a")
    axis.legend()
    return figure


def picture():
    figure, axes = plt.subplots(1, 2, figsize=(6, 3))
    axes[0].imshow(np.eye(4))
    axes[1].plot([1, 2])
    return figure


def test_the_style_is_readable_and_the_book_s(monkeypatch):
    figures.use_style()
    for key in ("font.size", "axes.labelsize", "xtick.labelsize", "legend.fontsize"):
        assert plt.rcParams[key] >= 10
    assert plt.rcParams["figure.figsize"][0] <= 7
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert len(set(colours)) == len(colours) >= 7


def test_lines_are_an_svg_with_what_the_book_needs(shown):
    figure = line()
    figures.show(figure, caption="It rises.", alt="A line.", name="fig-a", results="scenes/k.csv")
    (data, metadata), (caption, of_caption) = shown
    assert list(data) == ["image/svg+xml", "text/plain"]
    assert data["text/plain"] == "A line."
    assert metadata["mgca"] == {
        "kind": "figure",
        "caption": "It rises.",
        "alt": "A line.",
        "name": "fig-a",
        "results": "scenes/k.csv",
    }
    assert caption["text/markdown"] == "It rises."
    assert of_caption == {"mgca": {"kind": "caption"}}
    width = float(re.search(r'width="([\d.]+)pt"', data["image/svg+xml"])[1])
    assert metadata["image/svg+xml"] == {"width": round(width / 72 * 96)}
    assert not plt.fignum_exists(figure.number)


def test_equal_figures_are_equal_files(shown):
    for _ in range(2):
        figures.show(line(), caption="c", alt="a")
    first, _, second, _ = shown
    assert first == second
    assert "<dc:date>" not in first[0]["image/svg+xml"]


def test_pixels_are_a_png_without_a_grid(shown):
    plt.rcParams["axes.grid"] = True
    figure = picture()
    figures.show(figure, caption="c", alt="a")
    data, metadata = shown[0]
    assert list(data) == ["image/png", "text/plain"]
    drawn = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    # 160 pixels to the inch, shown at 96.
    assert metadata["image/png"]["width"] == pytest.approx(drawn.width * 96 / 160, abs=1)
    visible = [axes.xaxis.get_gridlines()[0].get_visible() for axes in figure.axes]
    assert visible == [False, True]


def test_a_picture_is_shown_as_it_is(shown):
    figures.show(Image.new("RGB", (30, 20), "red"), caption="c", alt="a")
    data, metadata = shown[0]
    drawn = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert drawn.size == (30, 20) and metadata["image/png"] == {"width": 30}


def test_numbers_of_others_are_marked():
    frame = pd.DataFrame({"ours": [1], "paper, mIoU": [2], "published, VOC": [3]})
    marked = re.findall(r'<th scope="col"( class="paper")?>', figures.html_table(frame))
    assert [bool(m) for m in marked] == [False, True, True]


@pytest.mark.parametrize("values", [[3e-10, 1e-16], [1e6, 0.0042], [0.0, 2e-7]])
def test_no_number_reads_as_0_that_is_not(values):
    html = figures.html_table(pd.DataFrame({"x": values}))
    cells = [float(text) for text in re.findall(r"<td>([^<]*)</td>", html)]
    assert [cell == 0 for cell in cells] == [value == 0 for value in values]


def test_many_marks_are_a_png(shown):
    figure, axis = plt.subplots()
    axis.scatter(*np.random.default_rng(0).random((2, 5000)), c=np.arange(5000))
    figures.show(figure, caption="c", alt="a")
    assert list(shown[0][0]) == ["image/png", "text/plain"]


@pytest.mark.parametrize("wrong", [{"caption": " ", "alt": "a"}, {"caption": "c", "alt": "\n"}])
def test_a_figure_without_words_is_refused(shown, wrong):
    with pytest.raises(ValueError, match="alt|caption"):
        figures.show(line(), **wrong)
    assert shown == []


def test_a_table_is_shown_with_its_caption(shown):
    frame = pd.DataFrame({"a": [1, 2]})
    figures.table(frame, caption="Two rows.", results="scenes/k.csv")
    (data, metadata), (caption, _) = shown
    assert data["text/html"] == figures.html_table(frame)
    assert metadata["mgca"]["kind"] == "table"
    assert metadata["mgca"]["results"] == "scenes/k.csv"
    assert caption["text/plain"] == "Two rows."
    with pytest.raises(ValueError, match="caption"):
        figures.table(frame, caption="")


def cells(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def test_columns_of_the_paper_are_marked():
    frame = pd.DataFrame({"ours": [1.0], "paper, VOC": [2.0], "on paper": [3.0]})
    html = figures.html_table(frame)
    assert html.count('class="paper"') == 2  # the head and the cell
    assert cells(html)[0] == ["ours", "paper, VOC <small>as published</small>", "on paper"]


def test_numbers_of_a_column_have_the_same_decimals():
    frame = pd.DataFrame(
        {
            "exact": [9.4, 24.0],
            "long": [1 / 3, 20.0],
            "whole": [1.0, 2.0],
            "large": [123456.7, 1.2],
            "gap": [np.nan, 0.5],
        }
    )
    _, first, second = cells(figures.html_table(frame))
    assert first == ["9.4", "0.33", "1", "123457", ""]
    assert second == ["24.0", "20.00", "2", "1", "0.5"]


def test_missing_cells_are_empty_and_words_are_escaped():
    frame = pd.DataFrame({"<b>": ["a & b", None, "<i>"], "n": pd.array([1, None, 3], "Int64")})
    head, *rows = cells(figures.html_table(frame))
    assert head == ["&lt;b&gt;", "n"]
    assert rows == [["a &amp; b", "1"], ["", ""], ["&lt;i&gt;", "3"]]


@pytest.mark.parametrize(
    ("index", "heads"),
    [
        (pd.RangeIndex(2), []),
        (pd.Index([4, 7]), []),
        (pd.Index(["a", "b"]), ["", "a"]),
        (pd.Index([4, 7], name="k"), ["k", "4"]),
        (pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["m", "u"]), ["m", "u", "a", "1"]),
    ],
)
def test_an_index_that_only_counts_is_left_out(index, heads):
    html = figures.html_table(pd.DataFrame({"x": ["p", "q"]}, index=index))
    (head, first, _), levels = cells(html), len(heads) // 2
    assert [*head[:levels], *first[:levels]] == heads
    assert (head[levels:], first[levels:]) == (["x"], ["p"])
    assert html.count('<th scope="row">') == 2 * levels


def test_the_first_level_of_columns_spans_those_below_it():
    columns = pd.MultiIndex.from_tuples([("paper", "VOC"), ("paper", "COCO"), ("ours", "")])
    html = figures.html_table(pd.DataFrame([[1, 2, 3]], columns=columns, index=["a"]))
    assert cells(html)[1] == ["", "VOC", "COCO", "ours"]
    spanning = '<th scope="colgroup" colspan="2" class="paper">paper <small>as published</small>'
    assert f"<tr><td></td>{spanning}</th><td></td></tr>" in html
    assert html.count("as published") == 1 and html.count('<td class="paper">') == 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_no_number_is_off_by_more_than_half_its_last_digit(values):
    _, *rows = cells(figures.html_table(pd.DataFrame({"x": values})))
    for (text,), value in zip(rows, values, strict=True):
        if "e" in text:  # smaller than the last decimal of the column
            assert abs(float(text) - value) <= 0.051 * abs(value)
            continue
        decimals = len(text.partition(".")[2])
        assert decimals <= 8
        assert abs(float(text) - value) <= 0.5001 * 10**-decimals
        # Four digits at least of the largest, where it has them.
        if abs(value) == max(map(abs, values)) >= 1e-4:
            assert abs(float(text) - value) <= 0.6e-3 * abs(value)
