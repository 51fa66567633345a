"""How long a window and a training step take, side by side in one run.

``python tests/benchmarks/speed.py`` prints the table and writes ``results/speed/<device>.csv``:
one 448x448 window through ``lite`` and through a ViT-B/16 of random weights, and the three losses,
forward and backward, beside the decoder's own at B = 64, N = 784, C = 512.
"""

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mgca.backbone import load_backbone
from mgca.config import config_hash
from mgca.decoder import GatedConvDecoder
from mgca.losses import mgca_loss
from mgca.model import Model
from mgca.results import add_results, provenance, write_run

CLASSES = ["person", "dog", "grass", "sky", "water", "building", "road", "tree", "car", "rock"]


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Best of some calls, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_mebibytes() -> float:
    """Peak memory of this process so far."""
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def window(name: str) -> dict[str, float]:
    """One window through a backbone, a decoder and its units; memory of the whole process."""
    backbone = load_backbone(name, pretrained=name == "lite")
    model = Model(backbone, GatedConvDecoder(backbone.dim))
    image = torch.randint(0, 256, (3, 448, 448), dtype=torch.uint8)
    geometry, windows = model.windows(image)
    before = peak_mebibytes()
    features = model.features(windows)
    with torch.inference_mode():
        dense = backbone.project(features)
        result = {
            "encoder_seconds": seconds(lambda: backbone.dense(windows), 5),
            "decoder_seconds": seconds(lambda: model.decoder(dense), 5),
        }
    model.texts(CLASSES)
    embedded = model.embed(image)
    result["units_and_labels_seconds"] = seconds(
        lambda: model.segment(embedded, CLASSES, 36).labels, 5
    )
    result["whole_image_seconds"] = seconds(lambda: model.segment(image, CLASSES, 36).labels, 3)
    return result | {"memory_added_MiB": peak_mebibytes() - before, "memory_MiB": peak_mebibytes()}


def losses(batch: int = 64, dim: int = 512) -> dict[str, float]:
    """The three losses and the decoder at N = 784, forward and backward."""
    torch.manual_seed(0)
    decoder = GatedConvDecoder(dim)
    for block in decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.1)
    features, texts = torch.randn(batch, dim, 14, 14), torch.randn(batch, dim)
    pixels = decoder(features).detach().requires_grad_()

    def of_losses() -> None:
        mgca_loss(pixels, texts)["total"].backward()

    def of_decoder() -> None:
        decoder(features).sum().backward()

    result = {"losses_seconds": seconds(of_losses, 3), "decoder_seconds": seconds(of_decoder, 2)}
    ratio = result["losses_seconds"] / result["decoder_seconds"]
    return result | {"losses_over_decoder": ratio, "memory_MiB": peak_mebibytes()}


PARTS = {
    "lite": ("window 448", lambda: window("lite")),
    "vit-b-16 (random weights)": ("window 448", lambda: window("vit-b-16")),
    "losses": ("B=64 N=784 C=512", losses),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="only this part, in this process")
    parser.add_argument("--out", default="results/speed", help="folder of the table")
    parser.add_argument("--device", default="cpu-2-cores", help="name of the table")
    given = parser.parse_args()
    if given.part:
        for metric, value in PARTS[given.part][1]().items():
            print(f"{metric}\t{value}")
        return
    began = time.perf_counter()
    config = {"benchmark": "speed", "parts": {name: part[0] for name, part in PARTS.items()}}
    run = config_hash(config)
    rows = []
    for name, (case, _) in PARTS.items():
        # Each part in a process of its own, so that its peak memory is its own.
        command = [sys.executable, __file__, "--part", name]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for line in lines.splitlines():
            metric, value = line.split("\t")
            print(f"{name:28} {case:18} {metric:26} {float(value):10.3f}", flush=True)
            rows.append(
                {"variant": name, "dataset": case, "unit": "36", "seed": 0, "metric": metric}
                | {"value": round(float(value), 4), "run": run}
            )
    add_results(Path(given.out) / f"{given.device}.csv", rows)
    record = provenance(config, seed=0, data={}, seconds=time.perf_counter() - began)
    write_run(given.out, run, record)


if __name__ == "__main__":
    main()
