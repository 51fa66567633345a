"""One batch over several processes: rows gathered from all of them, with their gradient."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_rows(rows: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes, in the order of their ranks, and the position of our first one.

    Each process may have another number of rows. The gradient of a row is the sum of what all
    processes make of it. Where every process computes the same loss of what was gathered and
    ``DistributedDataParallel`` averages the gradients of the parameters, that average is therefore
    the gradient that one process would find for the whole batch.

    Args:
        rows: (n, ...) with the same shape from the second dimension on everywhere.

    Returns:
        (sum of n, ...), and the position. Without process group: the rows themselves, and 0.
    """
    if not _several():
        return rows, 0
    sizes = [size for (size,) in gather_numbers([len(rows)], rows.device)]
    return _GatherRows.apply(rows, sizes), sum(sizes[: dist.get_rank()])


def mean_over_images(maps: Tensor) -> Tensor:
    """The mean (1, C, 1, 1) of maps (b, C, H, W) over pixels and the images of all processes."""
    if not _several():
        return maps.mean(dim=(0, 2, 3), keepdim=True)
    return gather_rows(maps.mean(dim=(2, 3)))[0].mean(dim=0)[None, :, None, None]


def gather_numbers(numbers: Sequence[int], device: torch.device | str) -> list[list[int]]:
    """The whole numbers that each process gives, in the order of the ranks."""
    if not _several():
        return [list(numbers)]
    own = torch.tensor(numbers, device=device)
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.stack(parts).tolist()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        # Collectives want the same shape everywhere.
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        first = sum(ctx.sizes[: dist.get_rank()])
        return gradient[first : first + ctx.sizes[dist.get_rank()]], None
