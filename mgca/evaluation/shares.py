"""An evaluation's images, shared out among the processes that ``torchrun`` started.

Process ``r`` of ``W`` counts the images ``r``, ``r + W``, ... Counts are whole numbers: their sum
over the processes is what one process would have counted, bit for bit. Images cost about the same,
so nothing is balanced. mmengine's launcher would start the same processes and share batches out
with copies of the last images, to be cut off again afterwards; here nothing needs cutting.
"""

import atexit
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from mgca.utils.processes import exit_with_parent


def join() -> int:
    """Join the other processes that ``torchrun`` started, if it did; this one's rank among them."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group("gloo")  # what is exchanged is counted on the CPU
        atexit.register(dist.destroy_process_group)
        exit_with_parent()  # torchrun's processes outlive it where it is killed
    return place()[0]


def place() -> tuple[int, int]:
    """This process's rank among those that evaluate together, and their number."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def own(items: Sequence[Any]) -> Sequence[Any]:
    """The items that this process takes."""
    rank, world = place()
    return items[rank::world]


def add_up(arrays: Iterable[np.ndarray]) -> None:
    """Replace whole numbers, in place, by their sum over all processes."""
    if place()[1] == 1:
        return
    for array in arrays:
        total = torch.from_numpy(array).to(_device())
        dist.all_reduce(total)
        array[...] = total.cpu().numpy()


def agreed(value: bool) -> bool:
    """What the first process says, so that all do the same."""
    if place()[1] == 1:
        return value
    said = torch.tensor([int(value)], device=_device())
    dist.broadcast(said, src=0)
    return bool(said.item())


def _device() -> str:
    """Where the group exchanges numbers: NCCL does so on GPUs only."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
