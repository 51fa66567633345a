"""The generated parts of the page "Try it": its start, what it loads, and what was measured."""

import csv
import html
import json
from pathlib import Path
from typing import Any

RESULTS = "results/browser/photographs.csv"
ALT = "A photograph of a temple under the colours of three words, beside their legend."
MISSING = """```{note}
This build of the book has no model for the browser: `make try` makes it.
```
"""
# The sentence is replaced by the button where a browser has what the page needs.
START = """```{{raw}} html
<link rel="stylesheet" href="try/try.css">
<div id="mgca-try" data-bytes="{size}">
<figure><img src="try/example.webp" alt="{alt}">
<figcaption>A photograph, three words, and the word of each pixel.</figcaption></figure>
<p class="try-lacking">This page needs a browser with WebAssembly and scripts, opened from a web
server: <code>python -m http.server</code> in the folder of the book is enough.</p>
</div>
<script type="module" src="try/page.js"></script>
```
"""
WHAT = {
    "try/model.onnx": "the model, weights in float16",
    "try/words.bin.gz": "embeddings of the words, one byte a number",
    "try/words.txt": "the words",
    "onnxruntime/ort-wasm-simd-threaded.wasm.gz": "ONNX Runtime, compressed",
}


def about(root: Path) -> dict[str, Any] | None:
    """What ``make try`` wrote of the files that it made; None without them."""
    path = root / "_build" / "try" / "about.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def start(root: Path) -> str:
    """The place where the page is handled."""
    facts = about(root)
    if facts is None:
        return MISSING
    return START.format(size=sum(facts["bytes"].values()), alt=html.escape(ALT))


def sizes(root: Path) -> str:
    """The size of every file that is loaded."""
    facts = about(root)
    if facts is None:
        return ""
    rows = [
        f"| {WHAT.get(name, f'`{name}`')} | {size / 1e6:.2f} |"
        for name, size in sorted(facts["bytes"].items(), key=lambda item: -item[1])
    ]
    whole = f"| together | {sum(facts['bytes'].values()) / 1e6:.2f} |"
    return "\n".join(["| file | MB |", "|---|--:|", *rows, whole])


def measured(root: Path) -> str:
    """What ``tests/book/try_report.py`` found on photographs."""
    path = root / RESULTS
    if not path.is_file():
        return "Not run."
    with path.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))

    def column(name: str) -> list[float]:
        return sorted(float(row[name]) for row in rows if row[name])

    def line(what: str, name: str, unit: str, scale: float = 1) -> str:
        values = [scale * value for value in column(name)]
        spread = (values[0], values[len(values) // 2], values[-1])
        told = " | ".join(f"{value:.2f}" for value in spread)
        return f"| {what} | {told} | {unit} |"

    pixels = sum(int(row["pixels"]) for row in rows)
    equal = sum(float(row["equal"]) * int(row["pixels"]) for row in rows)
    return "\n".join(
        [
            f"On {len(rows)} photographs {100 * equal / pixels:.2f} % of all pixels have the label"
            " that `model.segment` gives in Python.",
            "",
            "| | least | median | most | |",
            "|---|--:|--:|--:|---|",
            line("pixels with Python's label", "equal", "%", 100),
            line("first map after choosing a photograph", "first", "s"),
            line("map after a slider", "slider", "s"),
            line("memory of the page's process", "memory", "MB"),
        ]
    )
