"""Sphinx: pages made while the book is built, tables with captions, listings, a page's buttons."""

import ast
import textwrap
from pathlib import Path
from typing import Any

import try_page
from checks_page import compute, verified
from docutils import nodes
from provenance_page import ARCHIVE, archive, provenance
from publish import REPOSITORY
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude
from sphinx.transforms import SphinxTransform
from status_page import status

ROOT = Path(__file__).resolve().parents[2]
BRANCH = "notebooks"  # of the repository: it has the notebooks as Colab and Binder open them


class captioned_table(nodes.General, nodes.Element):
    """A table below its caption."""


class table_caption(nodes.General, nodes.Element):
    """The caption of a table, and where its numbers come from."""


class CaptionTables(SphinxTransform):
    """Make figures that hold a table into tables: with the caption first, and not counted among the
    figures."""

    default_priority = 200  # before figures are numbered

    def apply(self, **kwargs: Any) -> None:
        for figure in list(self.document.findall(nodes.figure)):
            if "mgca-table" not in figure["classes"]:
                continue
            caption, rest = table_caption(), []
            for child in figure.children:
                if isinstance(child, nodes.caption):
                    caption += nodes.paragraph("", "", *child.children)
                elif isinstance(child, nodes.legend):
                    legend = nodes.container(classes=["legend"])
                    legend += child.children
                    caption += legend
                else:
                    rest.append(child)
            table = captioned_table("", caption, *rest, **figure.attributes)
            for identifier in table["ids"]:
                self.document.ids[identifier] = table
            figure.replace_self(table)


class Listing(LiteralInclude):
    """A function or class of the library as ``literalinclude`` has it, less the docstrings."""

    def run(self) -> list[nodes.Node]:
        found = super().run()
        for block in (block for node in found for block in node.findall(nodes.literal_block)):
            block.rawsource = without_docstrings(block.astext())
            block.children = [nodes.Text(block.rawsource)]
        return found


def without_docstrings(source: str) -> str:
    """Code from its left margin, without the docstrings that the reference shows."""
    source = textwrap.dedent(source)
    lines = source.splitlines()
    left_out = set()
    for node in ast.walk(ast.parse(source)):
        described = ast.FunctionDef | ast.ClassDef
        if isinstance(node, described) and ast.get_docstring(node) and len(node.body) > 1:
            start, end = node.body[0].lineno - 1, node.body[0].end_lineno
            left_out |= set(range(start, end + (not lines[end].strip())))
    return "\n".join(line for n, line in enumerate(lines) if n not in left_out)


def fill_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the generated part into the pages that have one."""
    for page, mark, text in (
        ("status", "<!-- status -->", lambda: status(ROOT, _in_order(app))),
        ("provenance", "<!-- provenance -->", lambda: provenance(ROOT)),
        ("verified", "<!-- verified -->", lambda: verified(ROOT)),
        ("impact", "<!-- compute -->", lambda: compute(ROOT)),
        ("try", "<!-- try -->", lambda: try_page.start(ROOT)),
        ("try", "<!-- try sizes -->", lambda: try_page.sizes(ROOT)),
        ("try", "<!-- try measured -->", lambda: try_page.measured(ROOT)),
    ):
        if docname == page:
            source[0] = source[0].replace(mark, text())


def _in_order(app: Sphinx) -> list[str]:
    """The book's documents in the order of its table of contents."""
    site_map = app.config.external_site_map

    def below(docname: str) -> list[str]:
        children = site_map[docname].child_files() if docname in site_map else []
        return [docname, *(name for child in children for name in below(str(child)))]

    return below(site_map.root.docname)


def set_buttons(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Let "edit" lead to the source of a notebook, and add buttons that run it elsewhere."""
    if not pagename.startswith("notebooks/"):
        return
    address = REPOSITORY.removeprefix("https://github.com/")
    groups = [button for button in context["header_buttons"] if button["type"] == "group"]
    for button in (button for group in groups for button in group["buttons"]):
        if button.get("label") == "source-edit-button":
            button["url"] = f"{REPOSITORY}/edit/main/{pagename}.py"
    links = {
        "Colab": f"https://colab.research.google.com/github/{address}/blob/{BRANCH}/{pagename}.ipynb",
        "Binder": f"https://mybinder.org/v2/gh/{address}/{BRANCH}?urlpath=lab/tree/{pagename}.ipynb",
    }
    icons = {"Colab": "logo_colab.png", "Binder": "logo_binder.svg"}
    context["header_buttons"].append(
        {
            "type": "group",
            "tooltip": "Run this page elsewhere",
            "icon": "fas fa-rocket",
            "label": "launch-buttons",
            "buttons": [
                {
                    "type": "link",
                    "text": name,
                    "tooltip": f"Run on {name}",
                    "icon": f"_static/images/{icons[name]}",
                    "url": url,
                }
                for name, url in links.items()
            ],
        }
    )


def write_archive(app: Sphinx, error: Exception | None) -> None:
    """Publish all results in one file."""
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / ARCHIVE).write_bytes(archive(ROOT))


def _html(tag: str) -> tuple[Any, Any]:
    """Visitor functions of a node that is one element."""

    def visit(self: Any, node: nodes.Element) -> None:
        self.body.append(self.starttag(node, tag))

    def depart(self: Any, node: nodes.Element) -> None:
        self.body.append(f"</{tag}>\n")

    return visit, depart


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_node(captioned_table, html=_html("figure"))
    app.add_node(table_caption, html=_html("figcaption"))
    app.add_directive("listing", Listing)
    app.add_transform(CaptionTables)
    app.connect("source-read", fill_page)
    app.connect("html-page-context", set_buttons, priority=900)  # after the theme's own buttons
    app.connect("build-finished", write_archive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
