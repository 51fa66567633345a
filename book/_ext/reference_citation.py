"""Directives of the page on citing: the software's BibTeX, and one result named in full.

They are made of ``CITATION.cff`` and of ``results``, so that nothing is typed a second time.
"""

import csv
import json
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
TABLE, ROW = "scenes/meta_points.csv", ("all", "scenes", "36", "0", "miou")


def setup(app):
    app.add_directive("mgca-citation", Software)
    app.add_directive("mgca-example-result", ExampleResult)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Software(SphinxDirective):
    """The BibTeX entry of this software."""

    def run(self) -> list[nodes.Node]:
        source = ROOT / "CITATION.cff"
        self.env.note_dependency(str(source))
        facts = yaml.safe_load(source.read_text(encoding="utf-8"))
        authors = " and ".join(_author(author) for author in facts["authors"])
        fields = {
            "title": f"{{{facts['title']}}}",
            "author": authors,
            "year": self.config.copyright,
            "version": facts["version"],
            "license": facts["license"],
            "url": facts["repository-code"],
        }
        width = max(map(len, fields))
        lines = ",\n".join(f"  {key:{width}} = {{{value}}}" for key, value in fields.items())
        return [_code(f"@software{{mgca,\n{lines}\n}}", "bibtex")]


class ExampleResult(SphinxDirective):
    """A row of a results table with its run and commit, as one would write it."""

    def run(self) -> list[nodes.Node]:
        with (ROOT / "results" / TABLE).open(encoding="utf-8", newline="") as file:
            rows = {tuple(row[:5]): row for row in csv.reader(file)}
        value, run = rows[ROW][5:]
        scale = TABLE.split("/")[0]
        record = json.loads((ROOT / "results" / scale / "runs" / f"{run}.json").read_text())
        variant, dataset, unit, seed, _ = ROW
        text = (
            f"mIoU {float(value):.1f} % on the set {dataset}: results/{TABLE}, variant {variant}, "
            f"{unit} meta-points, seed {seed}; run {run}, commit {record['commit'][:12]} of mgca."
        )
        return [nodes.block_quote("", nodes.paragraph(text, text))]


def _author(author: dict[str, str]) -> str:
    """A group has a name, which BibTeX must not take apart."""
    if "name" in author:
        return f"{{{author['name']}}}"
    return f"{author['family-names']}, {author['given-names']}"


def _code(text: str, language: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language=language)
