"""The browser of the tests: which program it is, how it starts, and what happens without it."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")  # the first on the PATH is taken
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A request to another host is seen, and goes nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def need(what: str, there: object) -> None:
    """Skip the test unless it is there, or fail with MGCA_REQUIRE_BROWSER=1."""
    if there:
        return
    if os.environ.get("MGCA_REQUIRE_BROWSER") == "1":
        pytest.fail(f"needs {what} (MGCA_REQUIRE_BROWSER=1 forbids skipping)", pytrace=False)
    pytest.skip(f"needs {what}")


def need_package(name: str) -> None:
    """:func:`need` a package, by the name that it is imported by."""
    there = importlib.util.find_spec(name)
    need(f"the package {name}: pip install 'mgca[dev]'", there)


def program() -> str:
    """Path of Chromium, or of another browser of its kind; without one, as :func:`need`."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    need(f"a browser: one of {', '.join(PROGRAMS)} on the PATH", found)
    return found


@contextmanager
def launched() -> Iterator:
    """Playwright's browser, closed at the end. Until then its thread has a running event loop."""
    need_package("playwright")
    path = program()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
