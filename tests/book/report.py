"""The maintainers' record of the built book: one row per page, ``_build/site-report.csv``.

``python tests/book/report.py`` visits the pages and writes it; the test of the site does both too.
"""

import csv
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # with browser.py

from browser import program  # noqa: E402
from crawl import Visit, crawl, pages_of, served

from mgca.utils.files import write_text

COLUMNS = "page bytes opened whole requests errors images wider violations".split()


def write_report(path: Path, site: Path, visits: list[Visit]) -> None:
    """Write it: sizes in bytes, ``opened`` and ``whole`` as in :class:`crawl.Visit`, and counts."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for visit in visits:
        counts = map(
            len, (visit.requests, visit.errors, visit.images, visit.wider, visit.violations)
        )
        size = (site / visit.page).stat().st_size
        rows.writerow([visit.page, size, visit.opened, visit.whole, *counts])
    write_text(path, text.getvalue())


def main() -> int:
    """Visit the site, ``_build/html`` or the folder given, and write the report."""
    root = Path(__file__).resolve().parents[2]
    site = Path(sys.argv[1]) if sys.argv[1:] else root / "_build" / "html"
    with served(site) as address:
        visits = crawl(program(), address, pages_of(site))
    write_report(root / "_build" / "site-report.csv", site, visits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
