"""Where the time of an evaluation goes, and what scoring units rather than pixels saves.

``python tests/speed/evaluation.py --data ../shared/data`` runs ``lite`` on images of VOC 2012,
prints two tables and adds them to ``results/speed/<device>.csv``. In the first, an image is taken
step by step through an evaluation, beside the loop itself. In the second, 20 and 171 classes are
labelled in the order of the method (scores upsampled, averaged, resized, argmax) and in ours, and
the labels that differ are counted, in float32 and in float64.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from inference import device_name
from torch import Tensor
from torch.nn import functional as F

import mgca
from mgca.config import config_hash
from mgca.data.benchmarks import classes, load_benchmark
from mgca.data.masks import Masked, load_masked
from mgca.evaluation.evaluate import State, evaluate
from mgca.evaluation.metrics import Confusion
from mgca.evaluation.mmseg import Areas
from mgca.evaluation.results import add_results, write_run
from mgca.inference.score_map import ScoreMap
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Embedded
from mgca.model import Model
from mgca.utils.provenance import provenance

NETWORK = ("encoder", "decoder", "units")


class Stopwatch:
    """Seconds by name, added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, name: str | None = None) -> None:
        now = time.perf_counter()
        if name:
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now


@torch.inference_mode()
def steps(model: Model, data: Masked) -> dict[str, float]:
    """Seconds an image of each step, with 36 units."""
    watch, texts = Stopwatch(), model.texts(data.classes)
    counters = Confusion(len(data.classes)), Areas(len(data.classes))
    for number in range(len(data)):
        watch.lap()
        _, image, truth = data[number]
        watch.lap("decode")
        geometry, windows = model.windows(image)
        watch.lap("resize and cut")
        features = model.features(windows)
        watch.lap("encoder")
        pixels = model.pixels(features)
        watch.lap("decoder")
        scores = model.scores(pixels, texts, 6)
        watch.lap("units")
        labels = Segmentation(geometry, data.classes, scores).labels
        watch.lap("scores to labels")
        for counter in counters:
            counter.add(labels.numpy(), truth)
        watch.lap("metric")
    return {name: seconds / len(data) for name, seconds in watch.seconds.items()}


def whole(model: Model, data: Masked) -> float:
    """Seconds an image of the whole evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder) / "counted.npz")
        counters = {"36": [Areas(len(data.classes))]}
        evaluate(model, data, (36,), counters=counters, state=state)
    return state.seconds / len(data)


def labels_in_order(embedded: Embedded, scores: ScoreMap) -> Tensor:
    """(H, W): every step of the method on every class, one after another."""
    maps = scores.table[scores.index].permute(0, 3, 1, 2)
    total = maps.new_zeros(maps.shape[1], *embedded.size)
    count = maps.new_zeros(embedded.size)
    for box, window in zip(embedded.boxes, maps, strict=True):
        whole = F.interpolate(window[None], embedded.padded, mode="bilinear", align_corners=False)
        area = (..., slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
        total[area] += whole[0, :, : box.height, : box.width]
        count[area] += 1
    size = (embedded.image.height, embedded.image.width)
    return F.interpolate((total / count)[None], size, mode="bilinear", align_corners=False)[
        0
    ].argmax(0)


@torch.inference_mode()
def orders(model: Model, data: Masked, names: list[str]) -> dict[str, float]:
    """Both orders, image by image in turn: seconds, their ratio, and pixels that differ."""
    watch, texts = Stopwatch(), model.texts(names)
    pixels = differ = differ64 = 0
    for number in range(len(data)):
        embedded = model.embed(data[number][1])
        for unit, side in (("pixel", None), ("36", 6)):
            scores = model.scores(embedded.pixels, texts, side)
            watch.lap()
            theirs = labels_in_order(embedded, scores)
            watch.lap(f"{unit} in order")
            ours = Segmentation(embedded, names, scores).labels
            watch.lap(f"{unit} as sums")
            differ += int((ours != theirs).sum())
            exact = scores._replace(table=scores.table.double())
            differ64 += int(
                (
                    Segmentation(embedded, names, exact).labels != labels_in_order(embedded, exact)
                ).sum()
            )
            pixels += ours.numel()
    found = {f"{name}_seconds": s / len(data) for name, s in watch.seconds.items()}
    for unit in ("pixel", "36"):
        ratio = watch.seconds[f"{unit} in order"] / watch.seconds[f"{unit} as sums"]
        found[f"{unit}_ratio"] = ratio
    shares = {"differing_per_million": differ, "differing_per_million_float64": differ64}
    return found | {name: 1e6 * count / pixels for name, count in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the real data sets")
    parser.add_argument("--images", type=int, default=25)
    parser.add_argument("--out", default="results/speed", help="folder of the table")
    parser.add_argument("--device", help="name of the table; by default made from the machine")
    given = parser.parse_args()
    began = time.perf_counter()
    model = mgca.load("lite")
    data = load_masked("voc20", given.data).first(given.images)
    steps(model, data.first(2))  # not counted
    parts = steps(model, data)
    total = sum(parts.values())
    found = {f"{name}_seconds".replace(" ", "_"): value for name, value in parts.items()}
    found["around_network_share"] = 1 - sum(parts[name] for name in NETWORK) / total
    found["images_per_second"] = 1 / total
    found["harness_images_per_second"] = 1 / whole(model, data)
    rows = {("lite, VOC 2012", "evaluation"): found}
    stuff = classes(load_benchmark("stuff"))
    for names in (list(data.classes), stuff):
        case = f"{len(names)} classes"
        rows["lite, VOC 2012", case] = orders(model, data, names)
    config = {"benchmark": "evaluation", "images": given.images, "set": data.digest}
    run = config_hash(config)
    table = []
    for (variant, case), values in rows.items():
        for metric, value in values.items():
            print(f"{variant:16} {case:12} {metric:34} {value:10.4f}")
            table.append(
                {"variant": variant, "dataset": case, "unit": "36", "seed": 0, "metric": metric}
                | {"value": round(value, 4), "run": run}
            )
    add_results(Path(given.out) / f"{given.device or device_name('cpu')}.csv", table)
    seconds = time.perf_counter() - began
    record = provenance(config, seed=0, data={data.name: data.digest}, seconds=seconds)
    write_run(given.out, run, record)


if __name__ == "__main__":
    main()
