"""Run by test_distributed.py in several processes: losses and gradients of batches that lie on
them; alone it makes the same of the whole batch."""

import torch
import torch.distributed as dist
from torch.nn import functional as F

from mgca.config import LossConfig, TrainConfig
from mgca.decoder import GatedConvDecoder
from mgca.losses.objective import MGCA
from mgca.training.distributed import gather_rows
from mgca.training.resources import Resources, launch
from mgca.training.sources import Inputs
from mgca.training.step import backward, pixel_embeddings

IMAGES, DIM = 11, 16
# Images of each process: as even as they go, and not at all.
CUTS = {
    1: {"even": [11], "uneven": [11]},
    2: {"even": [6, 5], "uneven": [2, 9]},
    4: {"even": [3, 3, 3, 2], "uneven": [1, 5, 2, 3]},
}
CASES = {
    "paper": ({}, None),
    "cosine": ({"loss": LossConfig(measure="cosine", alpha_neg=0.1)}, None),
    "image": ({"loss": LossConfig(direction="image", region=0.0)}, None),
    "held": ({"hold_mean": True}, None),
    "parts": ({}, 2),
}


def batch():
    generator = torch.Generator().manual_seed(5)
    dense = torch.randn(IMAGES, DIM, 5, 5, generator=generator)
    return dense, torch.randn(IMAGES, DIM, generator=generator)


def decoder():
    torch.manual_seed(1)
    made = GatedConvDecoder(DIM)
    for block in made.blocks:
        torch.nn.init.constant_(block.gate, 0.3)
    return made


def main(out):
    config = TrainConfig()
    fabric = launch(Resources(accelerator="cpu"), config)
    found = {}
    for cut, sizes in CUTS[fabric.world_size].items():
        dense, texts = (whole.split(sizes)[fabric.global_rank] for whole in batch())
        for name, (changes, part) in CASES.items():
            wrapped = fabric.setup(decoder())
            of_case = TrainConfig(**changes)
            losses = backward(
                fabric,
                of_case,
                MGCA(of_case.loss),
                wrapped,
                Inputs(dense, texts),
                micro_batch=part,
            )
            for level, loss in losses.items():
                found[f"{cut} {name} {level}"] = loss
            for parameter, value in getattr(wrapped, "module", wrapped).named_parameters():
                found[f"{cut} {name} {parameter}"] = value.grad
        # Texts that learn get their gradient through the gathering too.
        learned = texts.clone().requires_grad_()
        every, first = gather_rows(learned)
        pixels = pixel_embeddings(decoder(), dense, "float32")
        objective = MGCA(config.loss)
        rows = objective.logits(pixels, every, first)
        objective.combine({k: gather_rows(v)[0] for k, v in rows.items()})["total"].backward()
        gradient = learned.grad / fabric.world_size  # as DistributedDataParallel averages
        size = max(sizes)
        padded = F.pad(gradient, (0, 0, 0, size - len(gradient)))
        parts = [torch.empty_like(padded) for _ in sizes]
        if fabric.world_size > 1:
            dist.all_gather(parts, padded)
        else:
            parts = [padded]
        found[f"{cut} texts"] = torch.cat([p[:n] for p, n in zip(parts, sizes, strict=True)])
    torch.save(found, f"{out}-{fabric.global_rank}.pt")
