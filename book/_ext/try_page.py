"""The generated parts of the page "Try it": its start, what it loads, and what was measured."""

import csv
import html
from pathlib import Path

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
    "try/model.onnx": "the model, weights in 16 bits",
    "try/words.bin.gz": "embeddings of the words, 14 bits a number",
    "try/words.txt": "the words",
    "onnxruntime/ort-wasm-simd-threaded.wasm.gz": "ONNX Runtime, compressed",
}


def loaded(root: Path) -> dict[str, int]:
    """Bytes of what the page loads once started, by name, the largest first; {} without it."""
    extra, built = root / "book" / "extra", root / "_build" / "try"
    if not (built / "about.json").is_file():
        return {}
    kinds = {extra / "onnxruntime": (".js", ".gz"), extra / "try": (".js", ".css", ".txt", ".gz")}
    kinds[built] = (".onnx", ".json", ".jpg")
    sizes = {
        f"{folder.name}/{path.name}": path.stat().st_size
        for folder, suffixes in kinds.items()
        for path in folder.iterdir()
        if path.suffix in suffixes
    }
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def start(root: Path) -> str:
    """The place where the page is handled."""
    size = sum(loaded(root).values())
    return START.format(size=size, alt=html.escape(ALT)) if size else MISSING


def sizes(root: Path) -> str:
    """A table of the sizes."""
    found = loaded(root)
    if not found:
        return ""
    rest = sum(size for name, size in found.items() if name not in WHAT)
    rows = {WHAT[name]: size for name, size in found.items() if name in WHAT}
    rows |= {"scripts and photographs": rest, "together": sum(found.values())}
    lines = (f"| {what} | {size / 1e6:.2f} |" for what, size in rows.items())
    return "\n".join(["| file | MB |", "|---|--:|", *lines])


def measured(root: Path) -> str:
    """What ``tests/book/try_report.py`` found on photographs."""
    path = root / RESULTS
    if not path.is_file():
        return "Not run."
    with path.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))

    def line(what: str, metric: str, unit: str, scale: float = 1) -> str:
        values = sorted(scale * float(row["value"]) for row in rows if row["metric"] == metric)
        spread = (values[0], values[len(values) // 2], values[-1])
        told = " | ".join(f"{value:.2f}" for value in spread)
        return f"| {what} | {told} | {unit} |"

    return "\n".join(
        [
            f"On {len({row['dataset'] for row in rows})} photographs:",
            "",
            "| | least | median | most | |",
            "|---|--:|--:|--:|---|",
            line("pixels with Python's label", "equal", "%", 100),
            line("first map after choosing a photograph", "first", "s"),
            line("map after a slider", "slider", "s"),
            line("memory of the page's process", "memory", "MB"),
        ]
    )
