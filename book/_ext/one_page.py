"""The book on one page, to print: ``python book/_ext/one_page.py``.

Writes ``_build/print/index.html`` and, where Chromium is installed, ``_build/print/mgca.pdf``. They
are for the reader's own use: the site does not carry them, since the PDF is larger than all of it.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

log = logging.getLogger("one_page")

ROOT = Path(__file__).resolve().parents[2]
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_OFFLINE = (
    "--headless",
    "--disable-gpu",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_LOADING = 60_000  # milliseconds of the page's own clock: until every formula is set


def build(root: Path, folder: Path) -> Path:
    """Build the single page into a folder that takes the place of the last one when complete.

    Raises:
        subprocess.CalledProcessError: If the book does not build.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".print-") as name:
        options = ["--config", str(root / "_config.yml"), "--path-output", name, "-n"]
        subprocess.run(
            [
                str(Path(sys.executable).with_name("jupyter-book")),
                "build",
                str(root / "book"),
                *options,
            ]
            + ["--builder", "custom", "--custom-builder", "singlehtml"],
            check=True,
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(Path(name) / "_build" / "singlehtml", folder)
    return folder / "index.html"


def print_page(page: Path, pdf: Path) -> bool:
    """Print a page with the browser there is; False if there is none."""
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *_OFFLINE, f"--user-data-dir={profile}", "--no-pdf-header-footer"]
            + [f"--virtual-time-budget={_LOADING}", f"--print-to-pdf={pdf}", page.as_uri()],
            check=True,
            stderr=subprocess.DEVNULL,
        )
    return True


def main() -> None:
    """Build the page, and the PDF if that can be done."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    page = build(ROOT, ROOT / "_build" / "print")
    pdf = page.with_name("mgca.pdf")
    if not print_page(page, pdf):
        log.warning("no Chromium, so no PDF; the page to print: %s", page)
        return
    log.info("The book to print: %s", pdf)


if __name__ == "__main__":
    main()
