"""The built book for its tests: where it lies, a server that shows it, and a browser."""

import os
from pathlib import Path

import pytest
from browser import launched, need, need_package, program
from crawl import served

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built book: _build/html, or $MGCA_SITE."""
    folder = Path(os.environ.get("MGCA_SITE") or ROOT / "_build" / "html").resolve()
    need(f"the built book, {folder}/index.html: run make book", (folder / "index.html").is_file())
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    for package in ("playwright", "axe_playwright_python"):
        need_package(package)
    return program()


@pytest.fixture(scope="module")
def browser(chromium):
    """The browser, for tests that handle a page."""
    with launched() as opened:
        yield opened


@pytest.fixture(scope="session")
def address(site: Path):
    """Where the book is served, with a slash at the end."""
    with served(site) as url:
        yield url
