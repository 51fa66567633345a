"""Object-, region- and pixel-level alignment of captions with images (Eq. 2 to 7).

Every level is a matrix of logits, one for each pair of an image and a text, and its loss is
:func:`info_nce` of them: ``object_logits`` and ``object_loss``, and so on. Pixel embeddings
``pixels`` (b, C, H, W) and text embeddings ``texts`` (T, C) are at the scale the encoders give them
(not normalised); image ``i`` is described by text ``first + i``. A loss is of the whole batch,
``b = T = B``.

:class:`mgca.losses.objective.MGCA` trains with these, and with the same in the form of
:mod:`mgca.losses.lean` where a batch is too large for them.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def similarity(pixels: Tensor, texts: Tensor, measure: str = "dot") -> Tensor:
    """``s_ij^n = <p_i^n, t_j>`` for every image, text and pixel (Eq. 2).

    Args:
        pixels: (B, C, H, W) pixel embeddings.
        texts: (T, C) text embeddings.
        measure: Similarity, ``"dot"``, or ``"cosine"`` to normalise both first (choice D3).

    Returns:
        (B, T, N) similarities.
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
        pixels: (B, C, H, W) pixel embeddings.
        scores: (B, T, N) similarities, of any number of texts per image.
        area: Share of the image that the region covers.
        detach_weights: Whether the gradient is stopped at the softmax.

    Returns:
        (B, T, C) embeddings of the regions.
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
        logits: (B, B) logits, a row for each image.
        direction: Direction of the cross-entropy, ``"both"``, ``"image"`` or ``"text"``.
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


def object_logits(
    pixels: Tensor,
    texts: Tensor,
    *,
    alpha: float = 0.4,
    temperature: float = 0.07,
    measure: str = "dot",
    detach_weights: bool = False,
    first: int = 0,
    scores: Tensor | None = None,
) -> Tensor:
    """Cosine of the object that an image's own text describes with every text (Eq. 5).

    Args:
        pixels: (b, C, H, W) pixel embeddings.
        texts: (T, C) text embeddings.
        alpha: Area of the object as a share of the image.
        temperature: Temperature of the contrast.
        measure: Similarity of pixels and texts (choice D3).
        detach_weights: No gradient through the softmax over pixels (choice D4).
        first: Text of the first image.
        scores: ``similarity(pixels, texts, measure)``, if it is already at hand.

    Returns:
        (b, T).
    """
    scores = similarity(pixels, texts, measure) if scores is None else scores
    objects = _positives(pixels, scores, alpha, detach_weights, first)
    return F.normalize(objects, dim=-1) @ F.normalize(texts, dim=-1).t() / temperature


def region_logits(
    pixels: Tensor,
    texts: Tensor,
    *,
    alpha: float = 0.4,
    alpha_neg: float = 0.05,
    temperature: float = 0.07,
    measure: str = "dot",
    detach_weights: bool = False,
    first: int = 0,
    scores: Tensor | None = None,
) -> Tensor:
    """Cosine of each text with the small region of an image that is most like it (Eq. 6).

    For an image's own text the region is the object of :func:`object_logits`, for every other the
    hard negative ``o_ij(alpha_neg)``.

    Args:
        pixels: (b, C, H, W) pixel embeddings.
        texts: (T, C) text embeddings.
        alpha: Area of the object as a share of the image.
        alpha_neg: Area of a hard negative region.
        temperature: Temperature of the contrast.
        measure: Similarity of pixels and texts (choice D3).
        detach_weights: No gradient through the softmax over pixels (choice D4).
        first: Text of the first image.
        scores: ``similarity(pixels, texts, measure)``, if it is already at hand.

    Returns:
        (b, T).
    """
    scores = similarity(pixels, texts, measure) if scores is None else scores
    texts = F.normalize(texts, dim=-1)
    objects = F.normalize(_positives(pixels, scores, alpha, detach_weights, first), dim=-1)
    regions = region_embeddings(pixels, scores, alpha_neg, detach_weights=detach_weights)
    negatives = torch.einsum("ijc,jc->ij", F.normalize(regions, dim=-1), texts)
    positives = (objects * texts[first : first + len(pixels)]).sum(dim=-1)
    return _with_own(negatives, positives, first) / temperature


def pixel_logits(
    pixels: Tensor,
    texts: Tensor,
    *,
    alpha: float = 0.4,
    k: float = 0.06,
    k_neg: float = 0.0,
    measure: str = "dot",
    first: int = 0,
    scores: Tensor | None = None,
) -> Tensor:
    """Similarity of each text with one pixel of an image, the hard one of its rank (Eq. 7).

    Args:
        pixels: (b, C, H, W) pixel embeddings.
        texts: (T, C) text embeddings.
        alpha: Area of the object, within which positives are ranked.
        k: Rank of the semi-hard positive as a share of the object: 0 is the most trustworthy
            pixel, 1 the hardest (choice D6).
        k_neg: Rank of the hard negative, likewise as a share of the object's area: 0 is the
            hardest (choice D7).
        measure: Similarity of pixels and texts (choice D3).
        first: Text of the first image.
        scores: ``similarity(pixels, texts, measure)``, if it is already at hand.

    Returns:
        (b, T).
    """
    scores = similarity(pixels, texts, measure) if scores is None else scores
    size = area_in_pixels(alpha, scores.shape[-1])
    positives = _ranked(_own(scores, first), rank_in_region(k, size))
    negatives = _ranked(scores, rank_in_region(k_neg, size))
    return _with_own(negatives, positives, first) / math.sqrt(pixels.shape[1])


def object_loss(
    pixels: Tensor,
    texts: Tensor,
    *,
    direction: str = "both",
    exclude: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Align the object that a caption describes with the caption (Eq. 3 to 5).

    Args:
        pixels: (B, C, H, W) pixel embeddings.
        texts: (B, C) text embeddings.
        direction: Cross-entropy over rows, columns or both (choice D5).
        exclude: Pairs that are no negatives, as in :func:`info_nce`.
        options: Options of :func:`object_logits`.

    Raises:
        ValueError: If the shapes do not fit each other.
    """
    check_pairs(pixels, texts)
    return info_nce(object_logits(pixels, texts, **options), direction, exclude)


def region_loss(
    pixels: Tensor,
    texts: Tensor,
    *,
    direction: str = "both",
    exclude: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Push away, in every other image, the small region most like the caption (Eq. 6).

    Arguments and errors are those of :func:`object_loss`, options those of :func:`region_logits`.
    """
    check_pairs(pixels, texts)
    return info_nce(region_logits(pixels, texts, **options), direction, exclude)


def pixel_loss(
    pixels: Tensor,
    texts: Tensor,
    *,
    direction: str = "both",
    exclude: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """Contrast the semi-hard positive pixel with the hard negative pixels (Eq. 7).

    Arguments and errors are those of :func:`object_loss`, options those of :func:`pixel_logits`.
    """
    check_pairs(pixels, texts)
    return info_nce(pixel_logits(pixels, texts, **options), direction, exclude)


def check_pairs(pixels: Tensor, texts: Tensor) -> None:
    """Refuse images and texts that do not make a batch of pairs.

    Raises:
        ValueError: With both shapes.
    """
    if pixels.ndim != 4 or texts.ndim != 2 or pixels.shape[:2] != texts.shape:
        raise ValueError(
            "expected pixels (B, C, H, W) and texts (B, C) of the same B and C, "
            f"got {tuple(pixels.shape)} and {tuple(texts.shape)}"
        )


def _own(scores: Tensor, first: int) -> Tensor:
    """``s_ii`` (b, N): the similarities of each image's own text."""
    return scores[:, first : first + len(scores)].diagonal(dim1=0, dim2=1).t()


def _positives(
    pixels: Tensor, scores: Tensor, alpha: float, detach_weights: bool, first: int
) -> Tensor:
    """``o_ii(alpha)`` (b, C): the object that each image's own text describes."""
    to_own_text = _own(scores, first)[:, None]
    return region_embeddings(pixels, to_own_text, alpha, detach_weights=detach_weights)[:, 0]


def _ranked(scores: Tensor, rank: int) -> Tensor:
    """The ``rank``-th largest (1-based) along the last dimension."""
    if rank == 1:
        return scores.amax(dim=-1)
    return scores.topk(rank, dim=-1, sorted=True).values[..., -1]


def _with_own(others: Tensor, own: Tensor, first: int) -> Tensor:
    """(b, T): ``others`` with what belongs to each image's own text in its place."""
    places = torch.arange(others.shape[1], device=others.device)
    return torch.where(places == places[first : first + len(own), None], own[:, None], others)
