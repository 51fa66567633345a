"""The adaptive semantic unit: pixels grouped around a grid of meta-points."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class SemanticUnits(NamedTuple):
    """The semantic units of a batch of pixel embeddings.

    Attributes:
        assignment: (B, H, W) int64, the unit of each pixel; units are numbered row by row over the
            grid.
        units: (B, G, C), the embedding of each unit. No unit is empty: a meta-point is in its own.
    """

    assignment: Tensor
    units: Tensor


def meta_point_index(
    height: int, width: int, grid: int | tuple[int, int], placement: str = "centre"
) -> Tensor:
    """Flat pixel indices of a uniform grid of meta-points (choice D11).

    Args:
        height: Rows of the pixel map.
        width: Columns of the pixel map.
        grid: Number of meta-points along each side, or (rows, columns).
        placement: Where the meta-points lie: ``"centre"`` takes the centre of each of the grid's
            cells, ``"corner"`` spreads the points from the first to the last row and column.

    Returns:
        (rows * columns,) int64, row by row.

    Raises:
        ValueError: If the grid is empty or finer than the pixel map.
    """
    rows, columns = (grid, grid) if isinstance(grid, int) else grid
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(
            f"a grid of {rows}x{columns} meta-points does not fit a map of {height}x{width} pixels"
        )
    if placement not in ("centre", "corner"):
        raise ValueError(f"placement must be 'centre' or 'corner', not {placement!r}")

    def along(points: int, size: int) -> Tensor:
        if placement == "centre" or points == 1:
            return torch.div(
                (2 * torch.arange(points) + 1) * size, 2 * points, rounding_mode="floor"
            )
        return torch.linspace(0, size - 1, points).round().long()

    return (along(rows, height)[:, None] * width + along(columns, width)[None, :]).flatten()


def semantic_units(
    pixels: Tensor,
    grid: int | tuple[int, int],
    *,
    placement: str = "centre",
    average: str = "raw",
    affinity: Tensor | None = None,
) -> SemanticUnits:
    """Assign each pixel to its most similar meta-point and average each set of pixels.

    Section 3.3 of the paper. With as many meta-points as pixels each pixel is its own unit, and the
    prediction is exactly the per-pixel one.

    Args:
        pixels: (B, C, H, W) pixel embeddings.
        grid: Number of meta-points along each side, or (rows, columns).
        placement: Where the meta-points lie in their cells (choice D11).
        average: What is averaged, ``"raw"`` the embeddings as they are, ``"normalised"`` their
            directions (choice D12).
        affinity: (B, A, H, W) map whose similarities group the pixels, such as another encoder's;
            by default the pixel embeddings themselves. What is averaged are these in any case.

    Returns:
        :class:`SemanticUnits` with ``assignment`` (B, H, W) and ``units`` (B, rows * columns, C).
    """
    if average not in ("raw", "normalised"):
        raise ValueError(f"average must be 'raw' or 'normalised', not {average!r}")
    batch, dim, height, width = pixels.shape
    index = meta_point_index(height, width, grid, placement).to(pixels.device)
    flat = pixels.flatten(2)  # (B, C, N)
    unit_length = F.normalize(flat, dim=1)
    space = unit_length if affinity is None else F.normalize(affinity.flatten(2), dim=1)
    points = space[:, :, index]  # (B, C, G)
    # The indices of max are those of argmax, which takes four times as long across rows.
    assignment = torch.einsum("bcg,bcn->bgn", points, space).max(dim=1).indices  # (B, N)

    # A meta-point is its own most similar pixel. Saying so keeps rounding, ties and zero embeddings
    # from leaving a unit empty, and makes units of single pixels exactly the per-pixel prediction.
    assignment[:, index] = torch.arange(index.numel(), device=pixels.device)

    members = (flat if average == "raw" else unit_length).transpose(1, 2)  # (B, N, C)
    groups = index.numel()
    first = torch.arange(batch, device=pixels.device)[:, None] * groups
    into = (assignment + first).flatten()
    sums = members.new_zeros(batch * groups, dim).index_add_(0, into, members.reshape(-1, dim))
    counts = torch.bincount(into, minlength=batch * groups)
    units = (sums / counts[:, None]).view(batch, groups, dim)
    return SemanticUnits(assignment.view(batch, height, width), units)
