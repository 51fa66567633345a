"""The page "Try it" handled as a reader does, for its tests and its report."""

import io
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import numpy as np
from PIL import Image

WAITING = 120_000  # milliseconds: other tests may have the cores
READY = "document.getElementById('mgca-try').dataset"


class Trying:
    """A page that was started.

    Args:
        page: Playwright's page, at "Try it".
    """

    def __init__(self, page) -> None:
        self.page = page
        start = monotonic()
        page.click(".try-start")
        page.wait_for_selector(".try-ready")
        self.started = monotonic() - start

    def words(self, words: Sequence[str]) -> None:
        """Ask for these words and no others."""
        while self.page.locator(".try-remove").count():
            self.page.locator(".try-remove").first.click()
        self.page.fill("#try-word", ", ".join(words))
        self.page.click(".try-form button")
        self.wait()

    def photograph(self, path: Path) -> float:
        """Choose a photograph; seconds until its first map."""
        self._forget("first")
        self.page.set_input_files("#try-file", path)
        return self._told("first")

    def meta_points(self, side: int) -> float:
        """Move the slider to this many meta-points along each side; seconds until the map."""
        self._forget("next")
        self.page.evaluate(
            """side => {
                const slider = document.getElementById("try-points");
                for (slider.value = 0; ; slider.stepUp()) {
                    slider.dispatchEvent(new Event("input"));
                    if (slider.nextElementSibling.value === String(side * side)) break;
                    if (slider.value === slider.max) throw new Error("no such number");
                }
            }""",
            side,
        )
        self.wait()
        return self._told("next")

    def background(self, threshold: float | None) -> None:
        """Set the threshold of the background, or take it away."""
        self.page.set_checked("#try-background", threshold is not None)
        if threshold is not None:
            self.page.evaluate(
                """value => {
                    const slider = document.getElementById("try-threshold");
                    slider.value = value;
                    slider.dispatchEvent(new Event("input"));
                }""",
                threshold,
            )
        self.wait()

    def labels(self) -> tuple[np.ndarray, str]:
        """The labels as they are saved, and the names of the classes in the file."""
        with self.page.expect_download() as download:
            self.page.click("text=Save the labels")
        image = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
        return np.array(image), image.text["classes"]

    def wait(self) -> None:
        """Until all that was asked for is shown."""
        self.page.wait_for_function(f"{READY}.state === 'ready'")

    def _forget(self, name: str) -> None:
        self.page.evaluate(f"() => {{ delete {READY}.{name} }}")

    def _told(self, name: str) -> float:
        self.page.wait_for_function(f"{READY}.{name}")
        return float(self.page.evaluate(f"{READY}.{name}"))


@contextmanager
def trying(browser, address: str, **context):
    """The page, started, in a context of its own, and the requests that it made: (url, bytes)."""
    opened = browser.new_context(accept_downloads=True, **context)
    opened.set_default_timeout(WAITING)
    page = opened.new_page()
    requests: list[tuple[str, int]] = []

    def note(request) -> None:
        requests.append((request.url, request.sizes()["responseBodySize"]))

    page.on("requestfinished", note)
    page.on("requestfailed", lambda request: requests.append((request.url, 0)))
    page.goto(f"{address}try.html")
    yield Trying(page), requests
    opened.close()
