"""Object-, region- and pixel-level alignment of captions with images (Eq. 2 to 8).

Every function takes pixel embeddings ``pixels`` (B, C, H, W) and text embeddings ``texts`` (B, C),
text ``j`` describing image ``j``, both at the scale the encoders give them (not normalised).

``object_loss``, ``region_loss`` and ``pixel_loss`` say in plain operations what is computed;
``mgca_loss`` computes the same from :mod:`mgca.losses.lean`, for batches of any size.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def similarity(pixels: Tensor, texts: Tensor, measure: str = "dot") -> Tensor:
    """``s_ij^n = <p_i^n, t_j>`` for every image, text and pixel (Eq. 2).

    Args:
        pixels: (B, C, H, W). texts: (T, C).
        measure: ``"dot"``, or ``"cosine"`` to normalise both first (choice D3).

    Returns:
        (B, T, N).
    """
    flat = pixels.flatten(2)  # (B, C, N)
    if measure == "cosine":
        flat, texts = F.normalize(flat, dim=1), F.normalize(texts, dim=1)
    return torch.matmul(texts, flat)


def area_in_pixels(area: float, pixels: int) -> int:
    """``max(1, floor(a N))``: the size of a region that covers the share ``area`` of an image."""
    # The small term keeps 0.29 * 100 = 28.999999999999996 from losing the pixel it should have.
    return min(pixels, max(1, math.floor(area * pixels + 1e-9)))


def rank_in_region(share: float, size: int) -> int:
    """1-based rank of the pixel that lies at ``share`` of a sorted region of ``size`` pixels."""
    return min(size, max(1, math.ceil(share * size - 1e-9)))


def region_embeddings(
    pixels: Tensor, scores: Tensor, area: float, *, detach_weights: bool = False
) -> Tensor:
    """``o_ij(a)``: the softmax-weighted mean of the most similar share of the pixels (Eq. 3, 4).

    The mask keeps the ``area`` largest scores and carries no gradient; the softmax ``A`` does,
    unless ``detach_weights`` (choice D4). ``A M`` renormalised is the softmax over the pixels
    kept, and that is what is computed.

    Args:
        pixels: (B, C, H, W). scores: (B, T, N), any number of texts per image.

    Returns:
        (B, T, C).
    """
    size = area_in_pixels(area, scores.shape[-1])
    top, index = scores.topk(size, dim=-1, sorted=False)
    weights = top.softmax(dim=-1)
    if detach_weights:
        weights = weights.detach()
    # Scattered into (B, T, N), so that one matrix product replaces gathering (B, T, size, C).
    weights = torch.zeros_like(scores).scatter(-1, index, weights)
    return torch.matmul(weights, pixels.flatten(2).transpose(1, 2))


def info_nce(logits: Tensor, direction: str = "both", exclude: Tensor | None = None) -> Tensor:
    """Cross-entropy of a (B, B) matrix of image-text logits whose diagonal holds the pairs.

    ``"image"`` contrasts each image with all texts (rows), ``"text"`` each text with all images
    (columns), ``"both"`` is their mean (choice D5).

    Args:
        exclude: (B, B) bool, pairs off the diagonal that are no negatives, because the text is
            known to describe the image too. None: every other pair is a negative.
    """
    if exclude is not None:
        eye = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(exclude & ~eye, -torch.inf)
    target = torch.arange(logits.shape[0], device=logits.device)
    if direction == "image":
        return F.cross_entropy(logits, target)
    if direction == "text":
        return F.cross_entropy(logits.t(), target)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def _positives(pixels: Tensor, scores: Tensor, alpha: float, detach_weights: bool) -> Tensor:
    """``o_ii(alpha)`` (B, C): the object that each image's own text describes."""
    own = scores.diagonal(dim1=0, dim2=1).t()  # (B, N): s_ii
    return region_embeddings(pixels, own[:, None], alpha, detach_weights=detach_weights)[:, 0]


def object_loss(
    pixels: Tensor,
    texts: Tensor,
    *,
    alpha: float = 0.4,
    temperature: float = 0.07,
    measure: str = "dot",
    detach_weights: bool = False,
    direction: str = "both",
    exclude: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """Align the object that a caption describes with the caption (Eq. 3 to 5).

    Args:
        pixels: (B, C, H, W) pixel embeddings. texts: (B, C) text embeddings.
        alpha: Area of the object as a share of the image.
        temperature: Of the contrast.
        measure, detach_weights, direction: Choices D3, D4 and D5.
        exclude: Pairs that are no negatives, as in :func:`info_nce`.
        scores: ``similarity(pixels, texts, measure)``, if it is already at hand.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    scores = _scores(pixels, texts, measure, scores)
    objects = _positives(pixels, scores, alpha, detach_weights)
    logits = F.normalize(objects, dim=-1) @ F.normalize(texts, dim=-1).t()
    return info_nce(logits / temperature, direction, exclude)


def region_loss(
    pixels: Tensor,
    texts: Tensor,
    *,
    alpha: float = 0.4,
    alpha_neg: float = 0.05,
    temperature: float = 0.07,
    measure: str = "dot",
    detach_weights: bool = False,
    direction: str = "both",
    exclude: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """Push away, in every other image, the small region most like the caption (Eq. 6).

    The positives are those of :func:`object_loss`; the hard negative of image ``i`` and text ``j``
    is ``o_ij(alpha_neg)``. Arguments and errors as there.
    """
    scores = _scores(pixels, texts, measure, scores)
    texts = F.normalize(texts, dim=-1)
    objects = F.normalize(_positives(pixels, scores, alpha, detach_weights), dim=-1)
    regions = region_embeddings(pixels, scores, alpha_neg, detach_weights=detach_weights)
    negatives = torch.einsum("ijc,jc->ij", F.normalize(regions, dim=-1), texts)
    positives = (objects * texts).sum(dim=-1)
    return info_nce(_with_diagonal(negatives, positives) / temperature, direction, exclude)


def pixel_loss(
    pixels: Tensor,
    texts: Tensor,
    *,
    alpha: float = 0.4,
    k: float = 0.06,
    k_neg: float = 0.0,
    measure: str = "dot",
    direction: str = "both",
    exclude: Tensor | None = None,
    scores: Tensor | None = None,
) -> Tensor:
    """Contrast the semi-hard positive pixel with the hard negative pixels (Eq. 7).

    Args:
        alpha: Area of the object, within which positives are ranked.
        k: Rank of the semi-hard positive as a share of the object: 0 is the most trustworthy
            pixel, 1 the hardest (choice D6).
        k_neg: Rank of the hard negative, likewise as a share of the object's area: 0 is the
            hardest (choice D7).

    The other arguments and errors are those of :func:`object_loss`.
    """
    scores = _scores(pixels, texts, measure, scores)
    size = area_in_pixels(alpha, scores.shape[-1])
    own = scores.diagonal(dim1=0, dim2=1).t()  # (B, N): s_ii
    positives = _ranked(own, rank_in_region(k, size))
    negatives = _ranked(scores, rank_in_region(k_neg, size))
    logits = _with_diagonal(negatives, positives) / math.sqrt(pixels.shape[1])
    return info_nce(logits, direction, exclude)


def _scores(pixels: Tensor, texts: Tensor, measure: str, scores: Tensor | None) -> Tensor:
    """The similarities at hand, or computed after checking that the shapes fit."""
    if scores is None:
        _check(pixels, texts)
        scores = similarity(pixels, texts, measure)
    return scores


def _check(pixels: Tensor, texts: Tensor) -> None:
    """Shapes that fit each other."""
    if pixels.ndim != 4 or texts.ndim != 2 or pixels.shape[:2] != texts.shape:
        raise ValueError(
            "expected pixels (B, C, H, W) and texts (B, C) of the same B and C, "
            f"got {tuple(pixels.shape)} and {tuple(texts.shape)}"
        )


def _ranked(scores: Tensor, rank: int) -> Tensor:
    """The ``rank``-th largest (1-based) along the last dimension."""
    if rank == 1:
        return scores.amax(dim=-1)
    return scores.topk(rank, dim=-1, sorted=True).values[..., -1]


def _with_diagonal(off: Tensor, diagonal: Tensor) -> Tensor:
    """The square matrix ``off`` with its diagonal replaced."""
    eye = torch.eye(off.shape[0], dtype=torch.bool, device=off.device)
    return torch.where(eye, diagonal[:, None], off)
