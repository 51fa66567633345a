"""Training from shards, end to end: on one process, on two, and on two that are killed.

``python tests/speed/end_to_end.py --data ../shared/data`` packs the captions of Flickr8k into
shards and runs ``mgca train`` on them three times at the photos scale, the last time killing all
processes at once, three times in the middle of a step, and starting the same command again. It
prints and adds to ``results/shards/end_to_end.csv`` how far losses and weights are apart, and keeps
the metrics of each step. What an interrupted call finished is not run again.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
from safetensors.torch import load_file

from mgca.config import config_hash, to_dict
from mgca.data.captions import load_captions
from mgca.data.shards import find_shards
from mgca.data.shards.pack import pack
from mgca.evaluation.results import add_results, write_run
from mgca.training.runs import load_run
from mgca.utils.provenance import provenance

CHANGES = ["train.precision=float32", "train.batch_size=16", "train.steps=200"]
KILLED_AFTER = (33, 97, 151)  # steps, each between two checkpoints
ONE, TWO, KILLED = "1 process", "2 processes", "2 processes, killed 3 times"
LEVELS = ["total", "object", "region", "pixel", "gradient"]


def command(shards: Path, out: Path, processes: int) -> list[str]:
    run = [sys.executable, "-m"]
    if processes > 1:
        run += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    run += ["mgca", "train", "--shards", str(shards), "--config", "photos", "--out", str(out)]
    run += ["--no-probe", "--checkpoint-every", "20", "--workers", "0"]
    return run + [word for change in CHANGES for word in ("--set", change)]


def metrics(folder: Path) -> pd.DataFrame:
    path = folder / "metrics.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame({"step": []})


def run(shards: Path, out: Path, processes: int, kill_after: int | None = None) -> None:
    """Run to the end, or until so many steps are done and the next is under way."""
    folder = out / config_hash(load_run("photos", CHANGES))
    if (folder / "run.json").is_file():
        return
    # One thread for each of two processes, two for one: the same cores.
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    child = subprocess.Popen(command(shards, out, processes), env=os.environ | threads)
    while child.poll() is None:
        time.sleep(0.5)
        if kill_after is not None and len(metrics(folder)) >= kill_after:
            # torchrun and every process of the run at once.
            launcher = psutil.Process(child.pid)
            for process in [launcher, *launcher.children(recursive=True)]:
                process.kill()
            child.wait()
    expected = 0 if kill_after is None else -signal.SIGKILL
    if child.returncode != expected:
        raise SystemExit(f"{out}: ended with {child.returncode}, not {expected}")


def compare(ours: Path, theirs: Path) -> dict[str, float]:
    """How far a run is from another, at most."""
    a, b = metrics(ours), metrics(theirs)
    found = {"steps": float(len(a))}
    for level in LEVELS:
        found[f"{level}_relative_difference"] = float(
            ((a[level] - b[level]) / b[level]).abs().max()
        )
    x, y = (load_file(folder / "decoder.safetensors") for folder in (ours, theirs))
    apart = sum(float((x[name] - y[name]).square().sum()) for name in y) ** 0.5
    found["weights_relative_difference"] = (
        apart / sum(float(value.square().sum()) for value in y.values()) ** 0.5
    )
    hashes = [
        hashlib.sha256((folder / "decoder.safetensors").read_bytes()).digest()
        for folder in (ours, theirs)
    ]
    return found | {"same_bits": float(hashes[0] == hashes[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    parser.add_argument("--work", type=Path, default="_build/end_to_end", help="shards and runs")
    parser.add_argument("--out", default="results/shards", help="folder of the table")
    given = parser.parse_args()
    began = time.perf_counter()
    shards = given.work / "shards"
    if not shards.is_dir():
        pack(
            load_captions(given.data / "flickr8k" / "captions_train.tsv"),
            shards,
            samples_per_shard=500,
        )
    config = load_run("photos", CHANGES)
    name = config_hash(config)
    outs = {variant: given.work / variant.replace(" ", "-") for variant in (ONE, TWO, KILLED)}
    run(shards, outs[ONE], 1)
    run(shards, outs[TWO], 2)
    for steps in KILLED_AFTER:
        if len(metrics(outs[KILLED] / name)) < steps:
            run(shards, outs[KILLED], 2, kill_after=steps)
    run(shards, outs[KILLED], 2)
    pairs = {TWO: ONE, KILLED: TWO}
    rows = []
    for variant, out in outs.items():
        table = metrics(out / name)
        found = {
            "first_loss": table["total"].iloc[0],
            "last_loss": table["total"].iloc[-20:].mean(),
            "images_per_second": table["images_per_second"].median(),
            "waiting": table["waiting"].median(),
        }
        if variant in pairs:
            found |= compare(out / name, outs[pairs[variant]] / name)
        for metric, value in found.items():
            row = {"variant": variant, "dataset": "flickr8k", "unit": "all", "seed": 0}
            rows.append(row | {"metric": metric, "value": float(f"{value:.4g}"), "run": name})
            print(f"{variant:30} {metric:34} {value:12.6g}")
        kept = Path(given.out) / "runs" / f"{name}-{variant.split(',')[0].replace(' ', '-')}.csv"
        if variant != KILLED:
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / name / "metrics.csv", kept)
    add_results(Path(given.out) / "end_to_end.csv", rows)
    data = {"flickr8k shards": find_shards(shards).digest}
    seconds = time.perf_counter() - began
    record = provenance(to_dict(config), seed=0, data=data, seconds=seconds)
    record["commits"] = {
        variant: json.loads((out / name / "run.json").read_text())["commit"]
        for variant, out in outs.items()
    }
    write_run(given.out, name, record)


if __name__ == "__main__":
    main()
