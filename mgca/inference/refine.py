"""Pixel-adaptive mask refinement (PAMR): the contours of a segmentation follow the image's edges.

Araslanov and Roth, "Single-stage semantic segmentation from image labels", CVPR 2020, section 4.3,
with the ten iterations and six dilations that TCL and NACLIP report. Nothing of it is trained.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.inference.score_map import ScoreMap
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Embedded
from mgca.inference.windows import Box
from mgca.utils.images import to_tensor

ITERATIONS = 10
DILATIONS = (1, 2, 4, 8, 12, 24)
# How many standard deviations of its neighbourhood a difference of colours counts by.
_SPREAD = 0.1


def refined(
    embedded: Embedded, maps: ScoreMap, temperature: float | None
) -> tuple[Embedded, ScoreMap]:
    """The probabilities of an image's classes, refined at the size that it was resized to.

    Args:
        embedded: The image and its windows.
        maps: Scores of the windows' positions.
        temperature: Temperature of the softmax over classes that gives probabilities of scores;
            None where they are probabilities already.

    Returns:
        The image as one window of a position per pixel, and the probabilities of these.
    """
    height, width = embedded.size
    classes = maps.table.shape[1]
    small = dataclasses.replace(embedded, image=embedded.image.resize((width, height)))
    found = Segmentation(small, [""] * classes, maps, temperature=temperature)
    masks = torch.empty(height * width, classes)
    for pixels, values in found.probabilities():
        masks[pixels] = values
    colours = to_tensor(small.image, (0.0,) * 3, (1.0,) * 3)
    masks = pamr(colours, masks.t().contiguous().view(-1, height, width))
    whole = dataclasses.replace(
        embedded, boxes=[Box(0, 0, height, width)], padded=(height, width), pixels=torch.empty(0)
    )
    return whole, ScoreMap.of_maps(masks[None])


def pamr(
    image: Tensor,
    masks: Tensor,
    *,
    iterations: int = ITERATIONS,
    dilations: Sequence[int] = DILATIONS,
) -> Tensor:
    """Masks in which each pixel has become like the neighbours that look like it.

    A step replaces a pixel's values by the mean of its eight neighbours' at each dilation, weighted
    by the softmax over them of ``-|x_i - x_j| / (0.1 sigma_i)``, averaged over the channels, where
    ``sigma_i`` is the standard deviation of the colours around the pixel. At the border the nearest
    pixel stands for what lies outside.

    Args:
        image: (C, H, W) colours, in any unit.
        masks: (K, H, W) scores of the classes.
        iterations: Number of steps.
        dilations: Distances of the neighbours, in pixels.

    Returns:
        (K, H, W), of the same sums over the classes where they are 1.

    Raises:
        ValueError: If image and masks are of different sizes.
    """
    if image.shape[1:] != masks.shape[1:]:
        raise ValueError(
            f"the image is {tuple(image.shape[1:])} pixels, the masks {tuple(masks.shape[1:])}"
        )
    # The pixel itself counts for its spread, and at every dilation.
    around = [n for d in dilations for n in (*_neighbours(image, d), image)]
    count, mean = len(around), torch.stack(around).mean(dim=0)
    spread = torch.zeros_like(image)
    for neighbour in around:
        spread += (neighbour - mean).square()
    spread = (spread / (count - 1)).sqrt()
    weights = torch.stack(
        [
            -((image - neighbour).abs() / (1e-8 + _SPREAD * spread)).mean(dim=0)
            for d in dilations
            for neighbour in _neighbours(image, d)
        ]
    ).softmax(dim=0)
    for _ in range(iterations):
        masks = _step(masks, weights, dilations)
    return masks


def _step(masks: Tensor, weights: Tensor, dilations: Sequence[int]) -> Tensor:
    out = torch.zeros_like(masks)
    by_neighbour = iter(weights)
    for dilation in dilations:
        for neighbour in _neighbours(masks, dilation):
            out.addcmul_(neighbour, next(by_neighbour))
    return out


def _neighbours(values: Tensor, dilation: int) -> Iterator[Tensor]:
    """The eight neighbours (C, H, W) of each position at a distance, row by row."""
    height, width = values.shape[1:]
    padded = F.pad(values[None], (dilation,) * 4, mode="replicate")[0]
    for row in (0, dilation, 2 * dilation):
        for column in (0, dilation, 2 * dilation):
            if (row, column) != (dilation, dilation):
                yield padded[:, row : row + height, column : column + width]
