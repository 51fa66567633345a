"""What the losses and a training step take, side by side with what they are compared with.

``python tests/speed/training.py`` prints the table and adds it to
``results/speed/<device>.csv``: time and memory of the three losses at N = 784 and C = 512, beside
the decoder's forward and backward pass and beside the losses in plain operations; a training step
at the paper's configuration beside its unavoidable parts; and how the time grows with the batch.
Run it on a machine that does nothing else.
"""

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from inference import VIT, device_name, measured
from torch.profiler import ProfilerActivity, profile

from mgca.backbone import load_backbone
from mgca.config import LossConfig, TrainConfig, config_hash
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.results import add_results, write_run
from mgca.losses.objective import MGCA
from mgca.training.flops import CAPTION
from mgca.training.step import pixel_embeddings
from mgca.utils.provenance import provenance

DIM, SIDE = 512, 28
LOSSES = "losses"
BATCHES = {"cpu": (64, 128), "cuda": (256, 1024)}
GROWING = {"cpu": (16, 32, 64, 128, 256), "cuda": (64, 128, 256, 512, 1024)}
STEP_BATCH = {"cpu": 64, "cuda": 256}
CONFIG = LossConfig()

# Case, metric and value.
Found = Iterator[tuple[str, str, float]]


def make_decoder(device: str) -> GatedConvDecoder:
    decoder = GatedConvDecoder(DIM)
    for block in decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.1)
    return decoder.to(device, memory_format=torch.channels_last)


def pairs(batch: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel embeddings, laid out as the decoder does, and texts."""
    pixels = torch.randn(batch, DIM, SIDE, SIDE, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last).requires_grad_()
    return pixels, torch.randn(batch, DIM, device=device)


def lean_loss(pixels: torch.Tensor, texts: torch.Tensor, config: LossConfig, **options) -> dict:
    return MGCA(config, lean=True, **options)(pixels, texts)


def plain_loss(pixels: torch.Tensor, texts: torch.Tensor, config: LossConfig) -> dict:
    return MGCA(config, lean=False)(pixels, texts)


def backward_of(loss: Callable, pixels: torch.Tensor, texts: torch.Tensor, **options) -> None:
    pixels.grad = None
    loss(pixels, texts, CONFIG, **options)["total"].backward()


def extra_bytes(function: Callable[[], object], pixels: torch.Tensor) -> int:
    """Most that a call holds at once, beside its inputs and the gradient that it leaves."""
    function()
    pixels.grad = None
    if pixels.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        most = torch.cuda.max_memory_allocated() - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
            function()
        events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
        events.sort(key=lambda event: event.start_ns())
        most = max(itertools.accumulate(event.nbytes() for event in events))
    return most - pixels.numel() * pixels.element_size()


def losses(batch: int, device: str, repeats: int) -> Found:
    """The losses beside the decoder and beside the plain losses, taking turns."""
    case = f"B={batch} N={SIDE**2} C={DIM}"
    decoder = make_decoder(device)
    features = torch.randn(batch, DIM, SIDE // 2, SIDE // 2, device=device)
    features = features.contiguous(memory_format=torch.channels_last)
    pixels, texts = pairs(batch, device)

    def of_decoder() -> None:
        decoder.zero_grad(set_to_none=True)
        decoder(features).sum().backward()

    own = measured(partial(backward_of, lean_loss, pixels, texts), device, repeats)
    decoding = measured(of_decoder, device, max(1, repeats // 3))
    yield case, "losses_seconds", own
    yield case, "decoder_seconds", decoding
    yield case, "losses_over_decoder", own / decoding
    if device == "cpu":  # on a GPU the plain losses of large batches do not fit
        plain = measured(partial(backward_of, plain_loss, pixels, texts), device, repeats)
        yield case, "plain_losses_seconds", plain
        yield case, "plain_over_losses", plain / own
    similarities = 4 * batch * batch * SIDE**2
    extra = extra_bytes(partial(backward_of, lean_loss, pixels, texts), pixels)
    yield case, "losses_peak_MiB", extra / 2**20
    yield case, "losses_peak_over_similarity", extra / similarities
    if device == "cpu":
        extra = extra_bytes(partial(backward_of, plain_loss, pixels, texts), pixels)
        yield case, "plain_losses_peak_over_similarity", extra / similarities
    for budget in (8, 32):
        options = {"budget": budget * 2**20}
        call = partial(backward_of, lean_loss, pixels, texts, **options)
        case_of = f"{case}, budget {budget} MiB"
        try:
            yield case_of, "losses_peak_MiB", extra_bytes(call, pixels) / 2**20
        except ValueError:  # one image alone takes more
            continue
        yield case_of, "losses_seconds", measured(call, device, repeats)


def growth(device: str, repeats: int) -> Found:
    """Time of the losses against the batch, and the exponent of the power that fits it."""
    times = []
    for batch in GROWING[device]:
        call = partial(backward_of, lean_loss, *pairs(batch, device))
        times.append(measured(call, device, repeats))
        yield f"B={batch} N={SIDE**2} C={DIM}", "losses_seconds", times[-1]
    exponent = np.polyfit(np.log(GROWING[device]), np.log(times), 1)[0]
    case = f"B={GROWING[device][0]}..{GROWING[device][-1]} N={SIDE**2} C={DIM}"
    yield case, "scaling_exponent_batch", exponent


def step(device: str, repeats: int) -> Found:
    """A training step at 224x224 beside the parts that no implementation can leave out.

    The floor is the frozen encoders' forward passes and the decoder's own forward and backward
    pass; a step adds the losses, the optimizer and what holds them together.
    """
    batch = STEP_BATCH[device]
    precision = "float32" if device == "cpu" else "bfloat16"
    kind = getattr(torch, precision)
    backbone = load_backbone("vit-b-16", pretrained=False).to(device)
    decoder = make_decoder(device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-4)
    images = torch.randn(batch, 3, 224, 224, device=device)
    captions = [CAPTION] * batch
    config = TrainConfig()

    @torch.no_grad()
    def encode() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(device, kind, enabled=kind != torch.float32):
            dense, texts = backbone.dense(images), backbone.encode_text(captions)
        return dense.float(), texts.float()

    dense, texts = encode()

    def decode() -> None:
        decoder.zero_grad(set_to_none=True)
        pixel_embeddings(decoder, dense, precision).sum().backward()

    def whole() -> None:
        dense, texts = encode()
        optimizer.zero_grad(set_to_none=True)
        pixels = pixel_embeddings(decoder, dense, precision)
        lean_loss(pixels, texts, config.loss)["total"].backward()
        optimizer.step()

    repeats = max(2, repeats // 3)
    case = f"B={batch} at 224, {precision}"
    parts = {"encoders": encode, "decoder": decode, "step": whole}
    seconds = {name: measured(call, device, repeats) for name, call in parts.items()}
    for name, value in seconds.items():
        yield case, f"{name}_seconds", value
    yield case, "step_over_floor", seconds["step"] / (seconds["encoders"] + seconds["decoder"])
    yield case, "images_per_second", batch / seconds["step"]
    pixels = pixel_embeddings(decoder, dense, precision).detach().requires_grad_()
    call = partial(backward_of, lean_loss, pixels, texts)
    yield case, "losses_over_step", measured(call, device, repeats) / seconds["step"]


def parts_of(device: str) -> dict[str, tuple[str, Callable]]:
    """Variant and measurement by name; each runs in a process of its own."""
    return {
        **{f"{LOSSES} {batch}": (LOSSES, partial(losses, batch)) for batch in BATCHES[device]},
        "growth": (LOSSES, growth),
        "step": (f"step, {VIT}", step),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", help="only this part, in this process")
    parser.add_argument("--out", default="results/speed", help="folder of the table")
    parser.add_argument("--device", help="name of the table; by default made from the machine")
    parser.add_argument("--repeats", type=int, default=7, help="the quickest of so many counts")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.part:
        torch.manual_seed(0)
        for found in parts_of(device)[given.part][1](device, given.repeats):
            print(*found, sep="\t", flush=True)
        return
    began = time.perf_counter()
    config = {"benchmark": "training", "parts": list(parts_of(device)), "repeats": given.repeats}
    run, rows = config_hash(config), []
    for name, (variant, _) in parts_of(device).items():
        command = [sys.executable, __file__, "--part", name, "--repeats", str(given.repeats)]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in lines.splitlines():
            case, metric, value = line.split("\t")
            rows.append(
                {"variant": variant, "dataset": case, "unit": "all", "seed": 0, "metric": metric}
                | {"value": float(f"{float(value):.4g}"), "run": run}
            )
            print("{variant:32} {dataset:34} {metric:34} {value:10.4g}".format(**rows[-1]))
    add_results(Path(given.out) / f"{given.device or device_name(device)}.csv", rows)
    record = provenance(config, seed=0, data={}, seconds=time.perf_counter() - began)
    write_run(given.out, run, record)


if __name__ == "__main__":
    main()
