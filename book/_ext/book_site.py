"""Sphinx: what is done to the finished site, so that it is light and needs no other host.

Pictures become WebP where that is smaller, know their size, and load when they come into view;
pages load the scripts that they use; notebooks to download come without outputs.
"""

import base64
import hashlib
import html
import io
import os
import re
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import joblib
from book_icons import embed
from PIL import Image
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from mgca.utils.files import replacing

ROOT = Path(__file__).resolve().parents[2]

_IMAGE = re.compile(r"<img\b[^>]*>")
_SOURCE = re.compile(r'\bsrc="([^"]*)"')
_DATA = re.compile(r'\bsrc="data:image/(png|jpeg|webp);base64,([A-Za-z0-9+/=\s]+)"')
_SCRIPT = re.compile(r"[ \t]*<script\b[^>]*>.*?</script>\n?", re.DOTALL)
_STYLE = re.compile(r'[ \t]*<link\b[^>]*rel="stylesheet"[^>]*>\n?')
_FORMULA = re.compile(r'class="[^"]*\bmath\b')
_SVG_SIZE = re.compile(rb'<svg\b[^>]*?\bwidth="([\d.]+)(pt|px)?"[^>]*?\bheight="([\d.]+)')
_SVG_BOX = re.compile(rb'<svg\b[^>]*?\bviewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"')
_SVG_REVERSED = re.compile(rb'<svg\b[^>]*?\bheight="([\d.]+)(pt|px)?"[^>]*?\bwidth="([\d.]+)')

# Icons come from the fonts in the theme's style, see book_icons; nothing on a page runs code.
_UNUSED_SCRIPTS = ("scripts/fontawesome.js", "sphinx-thebe.js", "THEBE_JS_URL")
_UNUSED_STYLES = ("sphinx-thebe.css",)
_UNUSED_FILES = (
    "_static/scripts/fontawesome.js*",
    "_static/sphinx-thebe.*",
    "_static/locales",
    "_static/webpack-macros.html",
    "_static/sbt-webpack-macros.html",
    "_static/**/*.map",
    "_static/vendor/fontawesome",
)

# Roles of an older standard, and a name that the theme leaves out.
_MENDED = {
    'role="doc-biblioentry"': 'role="listitem"',
    '<summary><span class="toctree-toggle"': (
        '<summary aria-label="Pages below"><span class="toctree-toggle"'
    ),
}

_SMALLEST = 10_000  # bytes of a PNG that is worth another format
_LOSSLESS = 120_000  # bytes up to which a picture keeps every pixel
_QUALITY = 85


# What sends on from the folder to the first page. Its icon is empty and inside it: without one a
# browser asks for a file that is not there, and another would be given up halfway.
_SENDS_ON = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url={first}">
</head>
<body><a href="{first}">{title}</a></body>
</html>
"""


def finish(app: Sphinx, error: Exception | None) -> None:
    """Do all of it, once the pages are written."""
    if error is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    pages = {page: page.read_text(encoding="utf-8") for page in site.rglob("*.html")}
    embed(site, pages.values())
    for pattern in _UNUSED_FILES:
        for path in list(site.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    pages = {page: text for page, text in pages.items() if page.is_file()}
    copy_made_files(site, ROOT / "_build")
    for page, text in pages.items():
        pages[page] = extract_pictures(text, page.parent, site / "_images")
    renamed = compress_pictures(site / "_images", ROOT / "_build" / "webp")
    for page, text in pages.items():
        for old, new in renamed.items():
            text = text.replace(f"_images/{quote(old)}", f"_images/{quote(new)}")
        for old, new in _MENDED.items():
            text = text.replace(old, new)
        page.write_text(light_images(light_head(text), page.parent), encoding="utf-8")
    if (site / "index.html").is_file():
        sends_on = _SENDS_ON.format(
            title=html.escape(app.config.html_title),
            first=f"{app.config.root_doc}.html",
        )
        (site / "index.html").write_text(sends_on, encoding="utf-8")


def copy_made_files(site: Path, build: Path) -> None:
    """Bring the data of interactive figures, what the page "Try it" loads, and the notebooks to
    download, without outputs."""
    for name in ("interactive", "try"):
        if (build / name).is_dir():
            shutil.copytree(build / name, site / name, dirs_exist_ok=True)
    for copy in (site / "_sources" / "notebooks").glob("*.ipynb"):
        if (clean := build / "downloads" / copy.name).is_file():
            shutil.copyfile(clean, copy)


def extract_pictures(text: str, folder: Path, images: Path) -> str:
    """A page with the larger pictures inside its text as files, which load when they are seen.

    Args:
        folder: Of the page.
        images: Where the pictures go, named by their digest.
    """

    def extract(found: re.Match[str]) -> str:
        kind, data = found[1], base64.b64decode(found[2])
        if len(data) < _SMALLEST:
            return found[0]
        images.mkdir(exist_ok=True)
        path = images / f"{hashlib.sha256(data).hexdigest()}.{kind}"
        path.write_bytes(data)
        return f'src="{os.path.relpath(path, folder)}"'

    return _DATA.sub(extract, text)


def compress_pictures(images: Path, cache: Path) -> dict[str, str]:
    """Replace PNG files by WebP where that is smaller.

    Args:
        images: Folder of the site's pictures.
        cache: Keeps what was converted, by the digest of the PNG file and how it was converted.

    Returns:
        The new names by the old ones.
    """
    cache.mkdir(parents=True, exist_ok=True)
    made = {}
    for path in sorted(images.glob("*.png")):
        if path.stat().st_size >= _SMALLEST:
            asked = f"{_LOSSLESS} {_QUALITY} ".encode() + path.read_bytes()
            made[path] = cache / f"{hashlib.sha256(asked).hexdigest()}.webp"
    missing = [path for path, kept in made.items() if not kept.is_file()]
    # Threads, because Pillow gives Python's lock up while it compresses.
    with ThreadPoolExecutor(joblib.cpu_count()) as pool:
        for path, data in zip(missing, pool.map(as_webp, missing), strict=True):
            with replacing(made[path]) as temporary:
                temporary.write_bytes(data)
    renamed = {}
    for path, kept in made.items():
        if kept.stat().st_size < path.stat().st_size:
            smaller = path.with_suffix(".webp")
            shutil.copyfile(kept, smaller)
            path.unlink()
            renamed[path.name] = smaller.name
    return renamed


def as_webp(path: Path) -> bytes:
    """A picture as WebP: exact if that is small, as most drawings are, otherwise as photographs."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
    exact = io.BytesIO()
    picture.save(exact, "WEBP", lossless=True, quality=60, method=3)
    if exact.tell() <= _LOSSLESS:
        return exact.getvalue()
    lossy = io.BytesIO()
    picture.save(lossy, "WEBP", quality=_QUALITY, method=6)
    return min(exact.getvalue(), lossy.getvalue(), key=len)


def light_head(text: str) -> str:
    """A page without the scripts and styles that it does not use."""
    unused = list(_UNUSED_SCRIPTS)
    if not _FORMULA.search(text):
        unused += ["mathjax/", "window.MathJax"]

    def kept(names: list[str]) -> Callable[[re.Match[str]], str]:
        return lambda found: "" if any(name in found[0][:400] for name in names) else found[0]

    return _STYLE.sub(kept(list(_UNUSED_STYLES)), _SCRIPT.sub(kept(unused), text))


def light_images(text: str, folder: Path) -> str:
    """A page whose images say how large they are, so that nothing moves, and load when needed.

    Args:
        folder: Of the page.
    """
    start = max(text.find("<article"), 0)
    first = True

    def complete(found: re.Match[str]) -> str:
        nonlocal first
        tag, source = found[0].rstrip("/> "), _SOURCE.search(found[0])
        size = image_size(html.unescape(source[1]), folder) if source else None
        if size and not re.search(r"\s(width|height)=", tag):
            tag += f' width="{size[0]}" height="{size[1]}"'
        if found.start() >= start and "loading=" not in tag:
            tag += "" if first else ' loading="lazy"'
            first = False
        if "decoding=" not in tag:
            tag += ' decoding="async"'
        return f"{tag}>"

    return _IMAGE.sub(complete, text)


def image_size(source: str, folder: Path) -> tuple[int, int] | None:
    """Width and height in pixels of the image at an address, None if it is not of the site."""
    if source.startswith("data:image/"):
        data = base64.b64decode(source.partition(",")[2])
    elif (path := folder / unquote(source.partition("?")[0])).is_file():
        data = path.read_bytes()
    else:
        return None
    if b"<svg" in data[:2000]:
        return _svg_size(data)
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def _svg_size(data: bytes) -> tuple[int, int] | None:
    if found := _SVG_SIZE.search(data):
        width, unit, height = found.groups()
    elif found := _SVG_REVERSED.search(data):
        height, unit, width = found.groups()
    elif found := _SVG_BOX.search(data):
        (width, height), unit = found.groups(), None
    else:
        return None
    pixels = 96 / 72 if unit == b"pt" else 1
    return round(float(width) * pixels), round(float(height) * pixels)


def write_at_once(app: Sphinx, _: BuildEnvironment) -> None:
    """Let pages be written several at a time, for which Jupyter Book has no option.

    They are read one after the other: where a class is told of on two pages, Sphinx would take the
    page that was read last. Elsewhere than on Linux a fork of a process with threads may end.
    """
    if sys.platform == "linux":
        app.parallel = joblib.cpu_count() + 1  # one of which only hands pages out


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("env-updated", write_at_once)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
