"""The built book for its tests: where it lies, a server that shows it, and a browser."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from crawl import served

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = os.environ.get("MGCA_REQUIRE_BROWSER") == "1"


def _without(reason: str) -> None:
    if REQUIRED:
        pytest.fail(f"{reason} (MGCA_REQUIRE_BROWSER=1 forbids skipping)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built book: _build/html, or $MGCA_SITE."""
    folder = Path(os.environ.get("MGCA_SITE") or ROOT / "_build" / "html").resolve()
    if not (folder / "index.html").is_file():
        _without(f"needs the built book, and there is no {folder}/index.html: run make book")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    for package in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(package) is None:
            _without(f"{package} is not installed: pip install 'mgca[dev]'")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        _without("needs Chromium, and there is no such program")
    return found


@pytest.fixture(scope="session")
def address(site: Path):
    """Where the book is served, with a slash at the end."""
    with served(site) as url:
        yield url
