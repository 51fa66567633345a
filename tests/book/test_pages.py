"""The built book read as files: links and anchors, the way through the pages, and its weight."""

import re
from collections import defaultdict
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from crawl import pages_of

from mgca.utils.files import write_text

# MiB of the site: without what the page "Try it" loads when it is started, and with it.
SITE_LIMIT, WITH_TRY_LIMIT, MIB = 23, 60, 2**20
# Made by Sphinx, and on no reader's way.
APART = ("genindex.html", "py-modindex.html", "search.html", "index.html")


class Page(HTMLParser):
    """A page's links and the anchors that it offers."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.files: list[str] = []
        self.anchors = {"", "top"}  # known to every browser
        self.next: str | None = None
        self.sidebar: list[str] = []
        self._depth = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "nav":
            self._depth = int("bd-links" in given.get("class", "") or self._depth > 0)
        address = given.get("href")
        if tag == "a" and address is not None:
            self.links.append(address)
            if "right-next" in given.get("class", "").split():
                self.next = address
            if self._depth:
                self.sidebar.append(address)
        elif tag == "link" and address and given.get("rel") in ("stylesheet", "icon"):
            self.files.append(address)
        if tag in ("img", "script", "source") and given.get("src"):
            self.files.append(given["src"])

    def handle_endtag(self, tag):
        if tag == "nav":
            self._depth = 0


class Book:
    """All pages of a site."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = {name: Page(folder / name) for name in pages_of(folder)}

    @cached_property
    def first(self) -> str:
        """The page that index.html sends on to, or index.html itself."""
        text = (self.folder / "index.html").read_text(encoding="utf-8")
        found = re.search(r'http-equiv="Refresh"[^>]*url=([^"]+)"', text, re.IGNORECASE)
        return found.group(1) if found else "index.html"

    def target(self, page: str, link: str) -> tuple[str, str]:
        """File below the site and anchor that a link of a page leads to."""
        parts = urlsplit(urljoin(f"/{page}", link))
        return unquote(parts.path).lstrip("/") or "index.html", unquote(parts.fragment)


@pytest.fixture(scope="module")
def book(site):
    return Book(site)


def is_external(link: str) -> bool:
    return bool(re.match(r"(https?:)?//|mailto:|data:|javascript:", link))


def test_internal_links_and_anchors_exist(book):
    broken = []
    for name, page in book.pages.items():
        for link in {*page.links, *page.files}:
            if is_external(link):
                continue
            file, anchor = book.target(name, link)
            if not (book.folder / file).is_file():
                broken.append(f"{name}: no file for {link}")
            elif file in book.pages and anchor not in book.pages[file].anchors:
                broken.append(f"{name}: no anchor for {link}")
    assert not broken, "\n".join(sorted(broken))


def test_external_links_are_listed_and_well_formed(book):
    """Not fetched; the list is for those who want to."""
    where = defaultdict(list)
    for name, page in book.pages.items():
        for link in page.links:
            if is_external(link):
                where[link].append(name)
    lines = [f"{link}\t{len(pages)}\t{sorted(pages)[0]}\n" for link, pages in sorted(where.items())]
    write_text(book.folder.parent / "external-links.tsv", "".join(lines))
    wrong = [
        link
        for link in where
        if re.match(r"https?:", link) and not re.fullmatch(r"[\w.-]+\.\w+", urlsplit(link).netloc)
    ]
    assert not wrong


def test_nothing_that_a_page_loads_lies_elsewhere(book):
    elsewhere = {
        f"{name}: {file}"
        for name, page in book.pages.items()
        for file in page.files
        if is_external(file) and not file.startswith("data:")
    }
    assert not elsewhere


def test_next_leads_through_every_page(book):
    way, page = [book.first], book.pages[book.first]
    while page.next is not None:
        name, _ = book.target(way[-1], page.next)
        assert name not in way, f"{name} comes a second time"
        way.append(name)
        page = book.pages[name]
    assert set(way) == set(book.pages) - set(APART) | {book.first}


def test_the_sidebar_has_every_page(book):
    for start in (book.first, max(book.pages, key=lambda name: name.count("/"))):
        listed = {book.target(start, link)[0] for link in book.pages[start].sidebar}
        missing = set(book.pages) - set(APART) - listed - {start}
        assert not missing, start


def test_the_site_is_light(site):
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    heavy = sorted(sizes, key=lambda path: -sizes[path])[:10]
    listed = ", ".join(f"{path.relative_to(site)} {sizes[path] / MIB:.1f}" for path in heavy)
    whole = sum(sizes.values()) / MIB
    apart = (path for path in sizes if path.relative_to(site).parts[0] in ("try", "onnxruntime"))
    without = whole - sum(sizes[path] for path in apart) / MIB
    assert whole < WITH_TRY_LIMIT, f"the heaviest, in MiB: {listed}"
    assert without < SITE_LIMIT, f"the heaviest, in MiB: {listed}"
