"""Readers of weights, of folders of a model, and of checkpoints, with valid files of each."""

import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import torch
from harness import Target, put, require
from tiny import TinyBackbone

import mgca.model
from mgca.cli import EXPECTED
from mgca.config import SegmentConfig
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.baselines.tcl import read_checkpoint
from mgca.inference.scoring import rules
from mgca.model import Model
from mgca.training.checkpoint import metrics_until, resume, save_checkpoint, write_metrics
from mgca.weights import WeightsError, read_tensors, saved
from mgca.weights.decoders import decoder_from, learned_sigmoid, save_decoder

# What they document; the commands make an OSError of it.
_OF_WEIGHTS = (WeightsError,)
SIGMOID = (1.5, -0.5)


def _decoder() -> GatedConvDecoder:
    torch.manual_seed(0)
    return GatedConvDecoder(16, blocks=2)


@cache
def _made(which: str) -> bytes:
    """Valid files, made once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if which == "decoder":
            path = save_decoder(folder / "d", _decoder(), TinyBackbone(), sigmoid=SIGMOID)
        elif which in ("saved config", "saved decoder"):
            config = SegmentConfig(short_side=64, meta_points=9)
            model = Model(TinyBackbone(), _decoder(), config, rules(SIGMOID))
            file = saved.CONFIG if which == "saved config" else saved.DECODER
            path = model.save(folder / "model") / file
        elif which == "checkpoint":
            net, optimizer = network()
            net(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            path = folder / "c"
            save_checkpoint(path, {"rate": 0.1}, net, optimizer, 1)
        elif which == "published":
            path = folder / "p"
            torch.save({"model": {"w": torch.ones(3)}, "config": {"name": "tcl"}}, path)
        else:
            path = folder / "m.csv"
            write_metrics(path, ["step", "total"], [{"step": s, "total": 0.5} for s in range(4)])
        return path.read_bytes()


def repair_safetensors(data: bytes) -> bytes:
    """A file whose first number is the length of the header that follows."""
    try:
        end = json.JSONDecoder().raw_decode(data[8:100_000].decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return data
    while end % 8 and data[8 + end : 9 + end] == b" ":
        end += 1
    return struct.pack("<Q", end) + data[8:]


def _weights(data: bytes, folder: Path) -> None:
    state, meta = read_tensors(put(folder, "decoder.safetensors", data))
    size = sum(value.numel() * value.element_size() for value in state.values())
    require(size <= 16 * len(data), f"{len(data)} bytes became {size}")
    require(isinstance(meta, dict), f"{meta}")
    decoder = decoder_from(state, meta, TinyBackbone())
    sigmoid = learned_sigmoid(meta)
    require(sigmoid is None or len(sigmoid) == 2, f"{sigmoid}")
    require(decoder(torch.ones(1, 16, 2, 2)).shape == (1, 16, 4, 4), "not a decoder")


def _folder(data: bytes, folder: Path) -> None:
    """The configuration of a model, beside its decoder."""
    put(folder, saved.DECODER, _made("saved decoder"))
    put(folder, saved.CONFIG, data)
    segment = saved.read_config(folder / saved.CONFIG).segment
    for name in ("short_side", "long_side", "window", "stride"):
        value = getattr(segment, name)
        require(type(value) is int and value > 0, f"{name} is {value!r}")
    original = mgca.model.load_backbone
    # Any name is the tiny backbone, so that what follows is reached.
    mgca.model.load_backbone = lambda *_, **__: TinyBackbone()
    try:
        model = mgca.model.load(folder)
    finally:
        mgca.model.load_backbone = original
    require(model.config == segment, f"{model.config}")


def network() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    return net, torch.optim.AdamW(net.parameters())


def _checkpoint(data: bytes, folder: Path) -> None:
    net, optimizer = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    file = put(folder, "checkpoint.safetensors", data)
    try:
        step = resume(file, {"rate": 0.1}, net, optimizer)
    except (ValueError, WeightsError):
        same = all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
        require(same and not optimizer.state_dict()["state"], "refused, and half loaded")
        raise
    require(type(step) is int and step >= 0, f"step {step!r}")
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()  # moments of the right shapes


def _metrics(data: bytes, folder: Path) -> None:
    for row in metrics_until(put(folder, "metrics.csv", data), 3):
        require(int(row["step"]) < 3, f"{row}")


def _published(data: bytes, folder: Path) -> None:
    state = read_checkpoint(put(folder, "tcl.pth", data))
    require(all(isinstance(value, torch.Tensor) for value in state.values()), "not tensors")


WEIGHT_READERS = [
    Target(
        "weights",
        lambda: [_made("decoder")],
        _weights,
        _OF_WEIGHTS,
        ("decoder.safetensors",),
        repair_safetensors,
    ),
    Target(
        "model-config",
        lambda: [_made("saved config")],
        _folder,
        _OF_WEIGHTS,
        ("*.json", saved.DECODER),
    ),
    Target(
        "checkpoint",
        lambda: [_made("checkpoint")],
        _checkpoint,
        (ValueError, WeightsError),
        ("checkpoint.safetensors",),
        repair_safetensors,
    ),
    Target("metrics", lambda: [_made("metrics")], _metrics, EXPECTED, ("metrics.csv",)),
    Target("published", lambda: [_made("published")], _published, _OF_WEIGHTS, ("tcl.pth",)),
]
