"""What the paper's training takes on the device at hand, on random ViT-B/16 weights.

``python tests/speed/paper.py --data ../shared/data`` packs Flickr8k into shards, times parts
of the paper's step on them as ``mgca train --config paper`` does before it starts, and extrapolates
to the paper's 38.4 million pairs; with ``--minutes`` it then trains for so long, and measures speed
and memory. It prints the numbers and adds them to ``results/shards/paper.csv``.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch
from inference import VIT, device_name

from mgca.backbone import load_backbone
from mgca.config import config_hash, to_dict
from mgca.data.captions import load_captions
from mgca.data.shards import find_shards
from mgca.data.shards.pack import pack
from mgca.evaluation.results import add_results, write_run
from mgca.training.estimate import GIB, estimate
from mgca.training.resources import Resources, launch
from mgca.training.runs import load_run
from mgca.training.sources import Streamed
from mgca.training.trainer import Stopped, Trainer
from mgca.utils.provenance import provenance

PAIRS = 2_560_000


class _Enough(Exception):
    pass


def trained(trainer: Trainer, minutes: float) -> dict[str, float]:
    """Median speed and most memory of some minutes' training."""
    rows, began = [], time.perf_counter()

    def watch(row: dict) -> None:
        rows.append(row)
        if time.perf_counter() - began > 60 * minutes:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        try:
            trainer.run(folder, on_step=watch)
        except (_Enough, Stopped):
            pass
    found = {
        name: statistics.median(row[name] for row in rows[1:] or rows)
        for name in ("images_per_second", "utilisation", "waiting")
    }
    found |= {"steps": len(rows), "first_loss": rows[0]["total"], "last_loss": rows[-1]["total"]}
    if trainer.process.device.type == "cuda":
        found["peak_GiB"] = torch.cuda.max_memory_allocated() / GIB
    return {f"trained_{name}": value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    parser.add_argument("--work", type=Path, default="_build/end_to_end", help="folder of shards")
    parser.add_argument("--out", default="results/shards", help="folder of the table")
    parser.add_argument("--minutes", type=float, default=0.0, help="of training after the probe")
    parser.add_argument("--micro-batch", type=int, default=None)
    parser.add_argument("--precision", help="by default bfloat16 on a GPU, float32 without one")
    given = parser.parse_args()
    began = time.perf_counter()
    shards = given.work / "shards"
    if not shards.is_dir():
        captions = load_captions(given.data / "flickr8k" / "captions_train.tsv")
        pack(captions, shards, samples_per_shard=500)
    gpu = torch.cuda.is_available()
    precision = given.precision or ("bfloat16" if gpu else "float32")
    config = load_run("paper", [f"train.precision={precision}"])
    steps = round(config.train.epochs * (PAIRS // config.train.batch_size))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    resources = Resources(micro_batch=given.micro_batch or (None if gpu else 64))
    process = launch(resources, config.train)
    backbone = load_backbone("vit-b-16", pretrained=False)
    found = find_shards(shards)
    source = Streamed(found, config.stream)
    trainer = Trainer(config, backbone, source, resources, process=process)
    expected = estimate(trainer, given.work)
    print(expected)
    values = {
        "hours": expected.hours,
        "step_seconds": expected.probe.step_seconds,
        "images_per_second": config.train.batch_size / expected.probe.step_seconds,
        "memory_GiB": sum(expected.memory.values()) / GIB,
        "gflop_per_image": expected.flops / 1e9,
        "ceiling_gflops": expected.ceiling / 1e9,
        "parts": expected.probe.parts,
        "read_images_per_second": expected.probe.read_images,
    }
    values["utilisation"] = values["images_per_second"] * expected.flops / expected.ceiling
    if given.minutes:
        values |= trained(trainer, given.minutes)
    device = device_name("cuda" if gpu else "cpu")
    # The same configuration is measured on several devices.
    described = {"benchmark": "paper", "device": device, **to_dict(config)}
    run, rows = config_hash(described), []
    for metric, value in values.items():
        row = {"variant": VIT, "dataset": f"{device}, {precision}", "unit": "all", "seed": 0}
        rows.append(row | {"metric": metric, "value": float(f"{value:.4g}"), "run": run})
        print(f"{metric:28} {value:12.5g}")
    add_results(Path(given.out) / "paper.csv", rows)
    data = {"flickr8k shards": found.digest}
    seconds = time.perf_counter() - began
    write_run(given.out, run, provenance(described, seed=0, data=data, seconds=seconds))


if __name__ == "__main__":
    main()
