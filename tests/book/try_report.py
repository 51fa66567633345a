"""The page "Try it" beside Python on many photographs, and what it takes.

``python tests/book/try_report.py PHOTOGRAPHS`` handles the page of the built book in Chromium, one
photograph after the other, with the words of a list, and compares the labels that it saves with
those of ``mgca.load("lite").segment``. Of each photograph the table has the share of pixels with
Python's label (``equal``), the seconds until the first map (``first``) and after a slider
(``slider``), and the MB of the browser's process (``memory``). ``--publish`` writes it into
results/browser, else it is in _build/browser.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # with browser.py

import pandas as pd  # noqa: E402
import psutil  # noqa: E402
from browser import launched  # noqa: E402
from crawl import served
from PIL import Image
from trying import trying

import mgca
from mgca.config import config_hash
from mgca.evaluation.evaluate import unit_name
from mgca.evaluation.results import COLUMNS, row, write_run
from mgca.utils.files import write_text
from mgca.utils.provenance import provenance

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("person", "dog", "cat", "car", "tree", "grass", "sky", "building", "table", "road")
SIDE, OTHER_SIDE = 6, 4  # of the grid of meta-points: the paper's, and the slider moved
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
LARGE = "24 megapixels"


def memory(children: list[psutil.Process]) -> float:
    """Megabytes of the largest of some processes: the one that computes."""
    sizes = []
    for child in children:
        try:
            sizes.append(child.memory_full_info().uss)
        except psutil.Error:  # it has ended
            continue
    return max(sizes, default=0) / 1e6


def photographs(given: list[Path], number: int) -> list[Path]:
    """As many photographs of some files and folders, evenly spread."""
    found = []
    for path in given:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [each for each in inside if each.suffix.lower() in SUFFIXES]
    number = min(number, len(found))
    return [found[n * len(found) // number] for n in range(number)]


def enlarged(path: Path, folder: Path) -> Path:
    """The photograph at 24 megapixels."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "large.jpg"
    with Image.open(path) as image:
        wide = image.width >= image.height
        image.convert("RGB").resize((6000, 4000) if wide else (4000, 6000)).save(target, quality=90)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", nargs="+", type=Path, help="files, or folders of them")
    parser.add_argument("--number", type=int, default=50, help="how many, evenly spread")
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="built book")
    parser.add_argument("--large", action="store_true", help="the first at 24 megapixels too")
    parser.add_argument("--publish", action="store_true", help="write into results/browser")
    arguments = parser.parse_args()
    chosen = photographs(arguments.photographs, arguments.number)
    if not chosen:
        parser.error(f"no photographs ({', '.join(SUFFIXES)}) there")
    out = ROOT / ("results" if arguments.publish else "_build") / "browser"
    named = [(path.name, path) for path in chosen]
    if arguments.large:
        named.append((LARGE, enlarged(chosen[0], ROOT / "_build" / "browser")))
    model = mgca.load("lite")
    began = time.perf_counter()
    config = {"benchmark": "browser", "words": WORDS, "photographs": [name for name, _ in named]}
    run, unit = config_hash(config), unit_name(OTHER_SIDE**2)
    rows = []
    with served(arguments.site) as address, launched() as browser:
        with trying(browser, address) as (page, requests):
            page.words(WORDS)
            for name, path in named:
                if rows:  # before the first photograph the slider is there, and moves nothing
                    page.meta_points(SIDE)
                first = page.photograph(path)
                slider = page.meta_points(OTHER_SIDE)
                taken = memory(psutil.Process().children(recursive=True))
                labels, _ = page.labels()
                expected = model.segment(path, WORDS, OTHER_SIDE**2).to_numpy()
                measured = {
                    "equal": float((labels == expected).mean()),
                    "first": first,
                    "slider": slider,
                    "memory": taken,
                }
                rows += [
                    row("lite", name, unit, 0, *each, run, digits=6) for each in measured.items()
                ]
                print(name, labels.shape, measured, flush=True)
            started, sent = page.started, sum(size for _, size in requests)
        version = browser.version
    record = provenance(config, seed=0, data={}, seconds=time.perf_counter() - began)
    facts = {
        "transferred_bytes": sent,
        "seconds_to_start": round(started, 1),
        "browser": version,
        "load": round(os.getloadavg()[0], 1),
    }
    write_run(out, run, record | facts)
    table = out / "photographs.csv"
    write_text(table, pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False))
    print(f"{table}: {len(named)} photographs, {sent / 1e6:.1f} MB transferred")
    return 0


if __name__ == "__main__":
    sys.exit(main())
