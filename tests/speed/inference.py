"""Where the time of inference goes, and how near each part comes to the machine's limit.

``python tests/speed/inference.py`` prints the table and adds it to
``results/speed/<device>.csv``: one 448x448 window through ``lite`` and through a ViT-B/16 of random
weights, part by part; the same through ONNX Runtime; and beside them what large matrix products and
copies reach. Run it on a machine that does nothing else.
"""

import argparse
import contextlib
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from mgca.backbone import load_backbone
from mgca.config import config_hash
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.results import add_results, write_run
from mgca.inference.export import INPUT, Dense, export_onnx
from mgca.model import Model
from mgca.training.flops import (
    CAPTION,
    bandwidth,
    best_seconds,
    ceiling,
    count_bytes,
    count_flops,
    decoder_flops,
    image_flops,
    text_flops,
    unit_flops,
)
from mgca.units import semantic_units
from mgca.utils.provenance import provenance

CLASSES = ["person", "dog", "grass", "sky", "water", "building", "road", "tree", "car", "rock"]
CASE, SIDE, POINTS = "window 448", 448, 36
VIT = "vit-b-16 (random weights)"
BACKBONES = {"lite": "lite", VIT: "vit-b-16"}
CEILING = "ceiling"

# Case, metric and value.
Found = Iterator[tuple[str, str, float]]


def measured(function, device: str, repeats: int) -> float:
    return best_seconds(function, device, seconds=0, repeats=repeats)


def peak_mebibytes(device: str) -> float:
    """Peak memory so far, of this process or of its tensors on a GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    scale = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**20


def make_model(variant: str, device: str) -> Model:
    backbone = load_backbone(BACKBONES[variant], pretrained=variant != VIT)
    decoder = GatedConvDecoder(backbone.dim)
    for block in decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.1)
    model = Model(backbone, decoder)
    for network in model.networks:
        network.to(device)
    return model


def limits(device: str, repeats: int) -> Found:
    """What the machine reaches when it does one thing only."""
    for name in ("float32", "bfloat16"):
        yield name, "matmul_gflops", ceiling(device, getattr(torch, name)) / 1e9
    yield "copy", "memory_gb_per_s", bandwidth(device) / 1e9


def part(name: str, flops: float, seconds: float, moved: float) -> Found:
    """Work, speed and arithmetic intensity of a part."""
    yield name, "seconds", seconds
    yield name, "gflop", flops / 1e9
    yield name, "gflops", flops / 1e9 / seconds
    yield name, "flop_per_byte", flops / moved


@torch.inference_mode()
def window(variant: str, device: str, repeats: int) -> Found:
    """One window, part by part and in all; memory of the whole process."""
    model = make_model(variant, device)
    backbone = model.backbone
    image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
    before = peak_mebibytes(device)
    windows = model.windows(image)[1].to(device)
    features = model.features(windows)
    dense = backbone.project(features)
    pixels = model.pixels(features)
    side = int(POINTS**0.5)
    calls = {
        "encoder": lambda: backbone.dense(windows),
        "decoder": lambda: model.decoder(dense),
        "units": lambda: semantic_units(pixels, side),
        "text": lambda: backbone.encode_text([CAPTION]),
    }
    rows, columns = pixels.shape[2:]
    work = {
        "encoder": image_flops(backbone, SIDE),
        "decoder": decoder_flops(backbone.dim, rows, columns),
        "units": unit_flops(backbone.dim, rows * columns, POINTS),
        "text": text_flops(backbone),
    }
    seconds = {}
    for name, call in calls.items():
        seconds[name] = measured(call, device, repeats)
        yield from part(name, work[name], seconds[name], count_bytes(call))
    for name in ("encoder", "decoder", "units"):
        yield CASE, f"{name}_seconds", seconds[name]
    yield CASE, "units_over_decoder", seconds["units"] / seconds["decoder"]
    model.texts(CLASSES)
    embedded = model.embed(image)
    labels = measured(lambda: model.segment(embedded, CLASSES, POINTS).labels, device, repeats)
    yield CASE, "units_and_labels_seconds", labels
    whole = measured(lambda: model.segment(image, CLASSES, POINTS).labels, device, repeats)
    yield CASE, "whole_image_seconds", whole
    yield CASE, "memory_added_MiB", peak_mebibytes(device) - before
    yield CASE, "memory_MiB", peak_mebibytes(device)


@torch.inference_mode()
def reduced(variant: str, device: str, repeats: int) -> Found:
    """Encoder and decoder under autocast, and by how much pixel embeddings then differ."""
    model = make_model(variant, device)
    windows = torch.randn(1, 3, SIDE, SIDE, device=device)
    dense = model.backbone.dense(windows)
    exact = model.decoder(dense)
    kinds = ["bfloat16", "float16"] if device == "cuda" else ["bfloat16"]
    for name in kinds:
        # Nothing is yielded inside: on the way out and back in autocast would be lost.
        with torch.autocast(device, getattr(torch, name)):
            encoder = measured(lambda: model.backbone.dense(windows), device, repeats)
            decoder = measured(lambda: model.decoder(dense), device, repeats)
            found = model.decoder(model.backbone.dense(windows)).float()
        case = f"{CASE}, {name}"
        yield case, "encoder_seconds", encoder
        yield case, "decoder_seconds", decoder
        yield case, "relative_difference", float((found - exact).norm() / exact.norm())


@torch.inference_mode()
def through_onnx(variant: str, device: str, repeats: int) -> Found:
    """The exported file in ONNX Runtime beside PyTorch, on the CPU, with the same threads."""
    import onnxruntime

    model = make_model(variant, "cpu")
    network = Dense(model).eval()
    windows = torch.randn(1, 3, SIDE, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with contextlib.redirect_stdout(sys.stderr):
            export_onnx(model, path, size=SIDE)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    given = {INPUT: windows.numpy()}
    (found,) = session.run(None, given)
    expected = network(windows)
    onnx = measured(lambda: session.run(None, given), "cpu", repeats)
    own = measured(lambda: network(windows), "cpu", repeats)
    case = f"{CASE}, ONNX"
    yield case, "onnx_seconds", onnx
    yield case, "torch_seconds", own
    yield case, "onnx_over_torch", onnx / own
    worst = (torch.from_numpy(found) - expected).abs().max() / expected.abs().max()
    yield case, "largest_difference", float(worst)


def training(device: str, repeats: int, *, images: int = 16, dim: int = 512) -> Found:
    """The decoder forward and backward, for images of 224x224 at the paper's width."""
    decoder = GatedConvDecoder(dim).to(device)
    for block in decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.1)
    features = torch.randn(images, dim, 14, 14, device=device)

    def call() -> None:
        decoder(features).sum().backward()

    assert count_flops(call) == images * decoder_flops(dim, 28, 28, backward=True)
    work = images * decoder_flops(dim, 28, 28, backward=True)
    name = "decoder, forward and backward"
    yield from part(name, work, measured(call, device, repeats), count_bytes(call))


# Variant and measurement. Each runs in a process of its own, so that its peak memory is its own.
PARTS = {
    CEILING: (CEILING, limits),
    **{name: (name, partial(window, name)) for name in BACKBONES},
    "training": (VIT, training),
    **{f"{name}, reduced": (name, partial(reduced, name)) for name in BACKBONES},
    **{f"{name}, ONNX": (name, partial(through_onnx, name)) for name in BACKBONES},
}


def device_name(device: str) -> str:
    """Of the table, such as ``cpu-2-cores``."""
    if device == "cpu":
        return f"cpu-{os.cpu_count()}-cores"
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


def rows_of(found: dict[tuple[str, str, str], float], run: str) -> list[dict]:
    """Rows of the results table, and with them each part's share of the ceiling."""
    most = found[CEILING, "float32", "matmul_gflops"]
    rows = dict(found)
    for (variant, case, metric), value in found.items():
        if metric == "gflops":
            rows[variant, case, "share_of_ceiling"] = value / most
        if variant == VIT and metric == "units_over_decoder":
            rows["units", "window 448, ViT-B/16", metric] = value
    return [
        {"variant": variant, "dataset": case, "unit": "36", "seed": 0, "metric": metric}
        | {"value": float(f"{value:.4g}"), "run": run}
        for (variant, case, metric), value in rows.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="only this part, in this process")
    parser.add_argument("--out", default="results/speed", help="folder of the table")
    parser.add_argument("--device", help="name of the table; by default made from the machine")
    parser.add_argument("--repeats", type=int, default=7, help="the quickest of so many counts")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.part:
        torch.manual_seed(0)
        for found in PARTS[given.part][1](device, given.repeats):
            print(*found, sep="\t")
        return
    began = time.perf_counter()
    config = {"benchmark": "inference", "parts": list(PARTS), "repeats": given.repeats}
    run = config_hash(config)
    values = {}
    for name, (variant, _) in PARTS.items():
        command = [sys.executable, __file__, "--part", name, "--repeats", str(given.repeats)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in lines.splitlines():
            case, metric, value = line.split("\t")
            values[variant, case, metric] = float(value)
    rows = rows_of(values, run)
    for row in rows:
        print("{variant:26} {dataset:30} {metric:26} {value:12.6g}".format(**row))
    add_results(Path(given.out) / f"{given.device or device_name(device)}.csv", rows)
    record = provenance(config, seed=0, data={}, seconds=time.perf_counter() - began)
    write_run(given.out, run, record)


if __name__ == "__main__":
    main()
