"""Whether memory stays flat while one process segments and segments.

``python tests/speed/soak.py`` segments 1,000 pictures with ``lite``. Sizes, words, units and
backgrounds change from one to the next. It adds the memory of the process to
``results/soak/memory.csv``, every 50 pictures after the first 100. What grows there grows in a
service that runs for weeks. Takes minutes on one core.
"""

import argparse
import gc
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

import mgca
from mgca.config import SegmentConfig, config_hash
from mgca.evaluation.results import add_results, write_run
from mgca.model import Model
from mgca.utils.progress import progress
from mgca.utils.provenance import provenance

WORDS = (
    "person dog cat horse sheep cow bird boat bus car train tree grass sky water sand rock road "
    "building window door table chair sofa bed lamp flower bottle cup book"
).split()
SIDES = (120, 320)  # pixels, of the pictures
WARM_UP, EVERY = 100, 50
FLAT = 1.05  # the largest over the smallest, after the warm-up


def picture(chance: random.Random) -> Image.Image:
    """Coloured patches, so that every window has several colours."""
    width, height = (chance.randint(*SIDES) for _ in range(2))
    coarse = np.frombuffer(chance.randbytes(9 * 12 * 3), dtype=np.uint8).reshape(9, 12, 3)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def segment_many(model: Model, pictures: int, *, seed: int = 0) -> Iterator[int]:
    """Segment so many pictures, and draw what was found; gives how many are done, after each."""
    chance = random.Random(seed)
    for done in range(1, pictures + 1):
        result = model.segment(
            picture(chance),
            chance.sample(WORDS, chance.randint(2, 4)),
            meta_points=chance.choice([None, 4, 36]),
            background=chance.choice([None, 0.3]),
        )
        result.labels, result.areas(), result.overlay()
        del result
        yield done


def resident() -> float:
    """Memory of this process in MiB, less what only waits to be collected."""
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def flatness(done: list[int], memory: list[float]) -> dict[str, float]:
    """The largest over the smallest, and the slope of a straight line in MiB per 1,000 pictures."""
    slope = float(np.polyfit(done, memory, 1)[0])
    return {"max_over_min": max(memory) / min(memory), "MiB_per_1000": 1000 * slope}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--out", default="results/soak", help="folder of the table")
    given = parser.parse_args()
    if given.pictures < WARM_UP + 2 * EVERY:
        parser.error(f"a slope needs {WARM_UP + 2 * EVERY} pictures or more")
    torch.set_num_threads(1)
    # Small windows: what is asked is whether memory grows, and not how fast a picture is.
    window = SegmentConfig(short_side=160, window=160, stride=80)
    model = mgca.load("lite", config=window)
    config = {"benchmark": "soak", "pictures": given.pictures, "sides": SIDES, "window": 160}
    run = config_hash(config)
    began = time.perf_counter()
    done, memory = [], []
    steps = segment_many(model, given.pictures)
    for number in progress(iterable=steps, total=given.pictures, unit="image"):
        if number >= WARM_UP and number % EVERY == 0:
            done.append(number)
            memory.append(resident())
    seconds = time.perf_counter() - began
    found = {(f"after {n:05d}", "memory_MiB"): value for n, value in zip(done, memory, strict=True)}
    found |= {("all", metric): value for metric, value in flatness(done, memory).items()}
    found["all", "images_per_second"] = given.pictures / seconds
    rows = [
        {"variant": "lite", "dataset": case, "unit": "all", "seed": 0, "metric": metric}
        | {"value": float(f"{value:.4g}"), "run": run}
        for (case, metric), value in found.items()
    ]
    for row in rows:
        print("{variant:8} {dataset:14} {metric:20} {value:12.6g}".format(**row))
    add_results(Path(given.out) / "memory.csv", rows)
    write_run(given.out, run, provenance(config, seed=0, data={}, seconds=seconds))
    if found["all", "max_over_min"] > FLAT:
        raise SystemExit(f"memory is not flat: it varies by more than {FLAT - 1:.0%}")


if __name__ == "__main__":
    main()
