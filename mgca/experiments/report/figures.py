"""Figures and tables of the book: one style, a caption, a text for those who do not see them.

A notebook shows a picture and, below it, its caption. The output that holds the picture carries
caption, alternative text, name and the file of its numbers as metadata, under the key
:data:`METADATA`; the book is made from these.
"""

import base64
import io
import struct
from html import escape
from itertools import groupby
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from mgca.inference.overlay import png_bytes

#: The key of an output's metadata that holds caption, alternative text, name and results.
METADATA = "mgca"

_DPI = 160  # of pictures made of pixels; a caption's width in the book has about 110 to the inch
_CSS_DPI = 96  # what a browser takes for an inch
_LARGEST_SVG = 200_000  # bytes; beyond it a picture of pixels is smaller
_DIGITS = 4  # of a number that the notebook has not rounded


def use_style() -> None:
    """Draw every figure from here on in the style of the book."""
    plt.style.use("mgca.experiments.report.figures")  # figures.mplstyle, beside this module


def show(
    figure: Figure | Image.Image,
    *,
    caption: str,
    alt: str,
    name: str = "",
    results: str | None = None,
) -> None:
    """Show a figure with its caption, and close it.

    It becomes an SVG if it is made of lines, and a PNG if it contains pixels or very many marks.

    Args:
        figure: Of matplotlib, or a picture as it is.
        caption: What the figure shows, one or two sentences in MyST's inline Markdown.
        alt: What is drawn, for those who do not see it.
        name: Label of the figure in the book.
        results: The file below ``results/`` that the numbers come from, as ``"scenes/k.csv"``;
            None if the notebook has computed them.

    Raises:
        ValueError: If the caption or the alternative text is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs alt: say what is drawn, for those who do not see it")
    description = _description("figure", caption, name, results) | {"alt": alt}
    if isinstance(figure, Image.Image):
        data, size = _encoded(png_bytes(figure)), {"width": figure.width}
    else:
        for axes in figure.axes:
            if axes.images:
                axes.grid(False)  # a grid would lie over the pixels
        try:
            data, size = _picture(figure)
        finally:
            # Otherwise the notebook would show it once more at the end of the cell.
            plt.close(figure)
    (mime,) = data
    _display({**data, "text/plain": alt}, {METADATA: description, mime: size}, caption)


def table(frame: pd.DataFrame, *, caption: str, name: str = "", results: str | None = None) -> None:
    """Show a table with its caption. In the book its columns can be sorted.

    Args:
        frame: As for :func:`html_table`.
        caption: What the table shows, as for :func:`show`.
        name: Label that texts refer to, as for :func:`show`.
        results: The file that the numbers come from, as for :func:`show`.

    Raises:
        ValueError: If the caption is empty.
    """
    description = _description("table", caption, name, results)
    data = {"text/html": html_table(frame), "text/plain": frame.to_string()}
    _display(data, {METADATA: description}, caption)


def html_table(frame: pd.DataFrame) -> str:
    """A frame as a plain HTML table, which the book's script makes sortable.

    Columns whose name begins with "paper" or "published" are marked as numbers of others. Cells
    that begin with a number are sorted by it, so that "9.4 ± 0.2" comes before "24.6".

    Args:
        frame: Its index is shown, unless it only counts the rows; it may have several levels, as
            may the columns: the first of them then spans those below it. A missing value is an
            empty cell.
    """
    shown = frame.copy()
    shown.columns = [_heading(column) for column in frame.columns]
    heads = 0
    counts = frame.index.nlevels == 1 and pd.api.types.is_numeric_dtype(frame.index)
    if not counts or frame.index.name is not None:
        names = ["" if name is None else str(name) for name in frame.index.names]
        shown = pd.concat([frame.index.to_frame(index=False), shown.reset_index(drop=True)], axis=1)
        shown.columns = [*names, *map(_heading, frame.columns)]
        heads = len(names)
    texts = [_texts(shown.iloc[:, place]) for place in range(shown.shape[1])]
    paper = [str(column).startswith(_PUBLISHED) for column in shown.columns]
    names = list(shown.columns)
    above = ""
    if frame.columns.nlevels > 1:
        names[heads:] = [_heading(column[1:]) or column[0] for column in frame.columns]
        above = f"<tr>{_spanning(frame.columns, heads)}</tr>\n"
    notes = [_NOTE if marked and not above else "" for marked in paper]
    head = "".join(
        f'<th scope="col"{_class(marked)}>{escape(column)}{note}</th>'
        for column, marked, note in zip(names, paper, notes, strict=True)
    )
    rows = "\n".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(text)}</th>'
            if place < heads
            else f"<td{_class(paper[place])}>{escape(text)}</td>"
            for place, text in enumerate(row)
        )
        + "</tr>"
        for row in zip(*texts, strict=True)
    )
    return (
        f'<table class="dataframe sortable">\n<thead>\n{above}<tr>{head}</tr>\n</thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table>"
    )


_PUBLISHED = ("paper", "published")
_NOTE = " <small>as published</small>"


def _spanning(columns: pd.MultiIndex, heads: int) -> str:
    """The cells of a row of heads that each span the columns of one first level."""
    cells = "<td></td>" * heads
    for first, own in groupby(columns, key=lambda column: column[0]):
        own = list(own)
        if own == [(first, *[""] * (columns.nlevels - 1))]:
            cells += "<td></td>"
            continue
        marked = str(first).startswith(_PUBLISHED)
        cells += f'<th scope="colgroup" colspan="{len(own)}"{_class(marked)}>{escape(str(first))}'
        cells += f"{_NOTE if marked else ''}</th>"
    return cells


def _class(paper: bool) -> str:
    return ' class="paper"' if paper else ""


def _heading(column: Any) -> str:
    """The name of a column; the levels of one with several stand behind one another."""
    levels = column if isinstance(column, tuple) else (column,)
    return ", ".join(str(level) for level in levels if str(level))


def _texts(column: pd.Series) -> list[str]:
    """The cells of a column; its floating-point numbers all have the same number of decimals."""
    if not pd.api.types.is_float_dtype(column):
        return [
            "" if missing else str(value)
            for value, missing in zip(column, column.isna(), strict=True)
        ]
    values = column.to_numpy(dtype=float)
    finite = values[np.isfinite(values)]
    largest = np.abs(finite).max(initial=0)
    before = int(np.floor(np.log10(largest))) + 1 if largest else 1
    most = min(max(0, _DIGITS - before), 2 * _DIGITS)
    atol = 1e-9 * largest
    exact = (d for d in range(most) if np.allclose(np.round(finite, d), finite, rtol=0, atol=atol))
    decimals = next(exact, most)
    least = 0.5 * 10.0**-decimals  # what is smaller would read as 0
    return [
        ""
        if value != value
        else f"{value:.1e}"
        if 0 < abs(value) < least
        else f"{value:.{decimals}f}"
        for value in values
    ]


def _description(kind: str, caption: str, name: str, results: str | None) -> dict[str, Any]:
    if not caption.strip():
        raise ValueError(f"a {kind} needs a caption: say what it shows")
    return {"kind": kind, "caption": caption, "name": name, "results": results}


def _picture(figure: Figure) -> tuple[dict[str, str], dict[str, int]]:
    """The figure by its type, and its width in the units of a web page."""
    # Without a salt, the names inside an SVG would differ from run to run; the date does too.
    with plt.rc_context({"svg.hashsalt": METADATA}):
        svg = _saved(figure, format="svg", metadata={"Date": None})
    if len(svg) <= _LARGEST_SVG and b"<image " not in svg:
        width = float(svg.split(b'width="', 1)[1].split(b"pt", 1)[0]) / 72
        return {"image/svg+xml": svg.decode()}, {"width": round(width * _CSS_DPI)}
    png = _saved(figure, format="png", dpi=_DPI)
    (pixels,) = struct.unpack(">I", png[16:20])  # the header of every PNG begins with its width
    return _encoded(png), {"width": round(pixels / _DPI * _CSS_DPI)}


def _encoded(png: bytes) -> dict[str, str]:
    return {"image/png": base64.b64encode(png).decode()}


def _saved(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, bbox_inches="tight", pad_inches=0.05, **options)
    return buffer.getvalue()


def _display(data: dict[str, str], metadata: dict[str, Any], caption: str) -> None:
    from IPython.display import display

    display(data, metadata=metadata, raw=True)
    # For who reads the notebook itself: the book takes the caption from the metadata instead.
    display(
        {"text/markdown": caption, "text/plain": caption},
        metadata={METADATA: {"kind": "caption"}},
        raw=True,
    )
