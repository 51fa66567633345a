"""The icons of the theme that the site uses, inside its style sheet.

The theme brings 1.5 MB of icons. A site opened from a disk has another reason for this: there, some
browsers do not let a page load a font from another folder.
"""

import base64
import io
import re
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

STYLE = Path("_static/styles/pydata-sphinx-theme.css")

_NAMED = re.compile(r"\.fa-([\w-]+)::?before(?=[^{}]*\{[^{}]*content:\s*\"\\([0-9a-f]+))")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_CODE = re.compile(r"\"\\([0-9a-f]{4})\s?\"")
_SOURCE = re.compile(r"src:url\(([^)]*/([\w-]+))\.woff2\)[^;}]*")


def embed(site: Path, pages: Iterable[str]) -> None:
    """Put the fonts of the icons into the style sheet, with those that occur and no others.

    Args:
        site: The folder of the built site. Nothing is done if it has no such style sheet.
        pages: The text of its pages.
    """
    path = site / STYLE
    if not path.is_file():
        return
    style = path.read_text(encoding="utf-8")
    named = {name: int(code, 16) for name, code in _NAMED.findall(style)}
    scripts = (p.read_text(encoding="utf-8") for p in path.parent.parent.glob("scripts/*-theme.js"))
    names = {name for text in (*pages, *scripts) for name in re.findall(r"\bfa-([\w-]+)", text)}
    codes = {named[name] for name in names if name in named}
    # And those that the style itself uses, as for admonitions.
    for selector, body in _RULE.findall(style):
        if ".fa-" not in selector:
            codes |= {int(code, 16) for code in _CODE.findall(body)}
            # Some are written as the character itself.
            codes |= {ord(letter) for letter in body if "\ue000" <= letter <= "\uf8ff"}

    def embedded(found: re.Match[str]) -> str:
        font = path.parent / f"{found[1]}.ttf"
        data = base64.b64encode(_subset(font.read_bytes(), codes)).decode()
        return f'src:url(data:font/woff;base64,{data}) format("woff")'

    path.write_text(_SOURCE.sub(embedded, style), encoding="utf-8")


def _subset(font: bytes, codes: set[int]) -> bytes:
    """A font with some of its characters, as WOFF."""
    opened = TTFont(io.BytesIO(font))
    chosen = subset.Subsetter(subset.Options(notdef_outline=True))
    chosen.populate(unicodes=codes)
    chosen.subset(opened)
    opened.flavor = "woff"
    buffer = io.BytesIO()
    opened.save(buffer)
    return buffer.getvalue()
