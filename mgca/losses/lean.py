"""Every image of a batch against every text, a few images at a time.

The hard negatives of Eq. 6 are a region for each pair of image and text: (B, B, C) embeddings made
of (B, B, N) similarities, of which a loss needs one cosine per pair. Here the regions of a few
images exist at a time, are gathered from the few most similar pixels alone, and are made again in
the backward pass from the similarities and positions of those pixels, which is all that is kept.

:mod:`mgca.losses.levels` states the same level by level, in plain operations; tests hold both
together.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Bytes; more than this speeds nothing up on a CPU.
WORKSPACE = 256 * 2**20
#: On a GPU, which waits between small operations: 2.1 times as fast as with the above.
GPU_WORKSPACE = 2**30
_EPS = 1e-12  # of F.normalize


class Comparison(NamedTuple):
    """Settings of a comparison of images with texts: areas and ranks in numbers of pixels.

    Attributes:
        first: Index of the first image's text; image ``i`` is described by text ``first + i``.
        area: Size of the object, ``floor(alpha N)``.
        rank: 1-based rank of the semi-hard positive pixel.
        negative_area: Size of a hard negative region, 0 for none (no region level).
        negative_rank: 1-based rank of the hard negative pixel, 0 for none (no pixel level).
        cosine: Whether similarities are cosines rather than dot products (choice D3).
        detach_weights: Whether the gradient is stopped at the softmax over pixels (choice D4).
        budget: Bytes that may be held beside the inputs and their gradients; None for at most
            :func:`room` and no more than one (B, B, N) tensor of similarities at a time.
    """

    first: int
    area: int
    rank: int
    negative_area: int
    negative_rank: int
    cosine: bool = False
    detach_weights: bool = False
    budget: int | None = None

    @property
    def negatives(self) -> int:
        """Number of most similar pixels that the losses need of an image and another's text."""
        return max(self.negative_area, self.negative_rank)


class Compared(NamedTuple):
    """The objects and similarities of b images and T texts that the three losses are made of.

    Attributes:
        objects: (b, C), ``o_ii(alpha)``, the object that each image's own text describes.
        regions: (b, T), ``phi(o_ij(alpha_neg), t_j)`` and, for an image's own text,
            ``phi(o_ii(alpha), t_i)``; empty without a region level.
        ranked: (b, T), ``s_ij`` at the hard negative pixel and, for the own text, at the semi-hard
            positive one; empty without a pixel level.
    """

    objects: Tensor
    regions: Tensor
    ranked: Tensor


def compare(pixels: Tensor, texts: Tensor, comparison: Comparison) -> Compared:
    """Compare images with texts (Eq. 2 to 4, 6 and 7), differentiably in both.

    Computed in float32, or float64 if given, whatever the precision of the pixels.

    Args:
        pixels: (b, C, H, W) pixel embeddings; ``channels_last`` saves a copy.
        texts: (T, C) text embeddings, T >= b.
        comparison: Settings of the comparison.

    Raises:
        ValueError: If one image alone exceeds the budget, with what it takes.
    """
    with torch.autocast(pixels.device.type, enabled=False):
        return Compared(*_Compare.apply(pixels, texts, comparison))


def room(device: torch.device | str) -> int:
    """Bytes that comparing takes at a time on a device where no budget is given."""
    return GPU_WORKSPACE if torch.device(device).type == "cuda" else WORKSPACE


def workspace(
    comparison: Comparison, images: int, texts: int, pixels: int, dim: int, most: int = WORKSPACE
) -> tuple[int, bool]:
    """How many images to compare at a time, and whether their most similar pixels are kept.

    Those that are not kept are computed again in the backward pass.

    Args:
        comparison: Settings of the comparison.
        images: Number of images.
        texts: Number of texts.
        pixels: Number of pixels ``N`` of an image.
        dim: Number of channels ``C``.
        most: Bytes that are taken at a time where the comparison has no budget.

    Raises:
        ValueError: If one image alone exceeds the budget.
    """
    best = comparison.negatives * texts + comparison.area
    kept = images * best * 6  # a float32 similarity and an int16 position
    # The backward pass holds most: weights, their gradient and that of the similarities, a region
    # and its gradient for each text, and the image's own gradient.
    single = 4 * (3 * texts * pixels + 3 * texts * dim + 3 * pixels * dim) + 20 * best
    single += 4 * 3 * pixels * dim * comparison.cosine
    if comparison.budget is None:
        whole = 4 * images * texts * pixels
        return max(1, min(images, min(most, whole) // single)), True
    keep = kept + single <= comparison.budget
    left = comparison.budget - kept * keep
    if left < single:
        raise ValueError(
            f"a budget of {comparison.budget / 2**20:.1f} MiB is too small for the losses: one "
            f"image and {texts} texts take {single / 2**20:.1f} MiB"
        )
    return min(images, left // single), keep


class _Best(NamedTuple):
    """The pixels most like each text, the largest similarity first.

    Attributes:
        top: (c, T, negatives) similarities.
        index: (c, T, negatives) which pixels these similarities are of.
        own_top: (c, area) similarities to each image's own text.
        own_index: (c, area) which pixels these similarities are of.
    """

    top: Tensor
    index: Tensor
    own_top: Tensor
    own_index: Tensor

    def short(self, pixels: int) -> "_Best":
        """The same with indices in the smallest integer type that counts ``pixels`` pixels."""
        kind = torch.int16 if pixels <= 2**15 else torch.int32
        return self._replace(index=self.index.to(kind), own_index=self.own_index.to(kind))

    def long(self) -> "_Best":
        return self._replace(index=self.index.long(), own_index=self.own_index.long())


class _Chunk:
    """Some consecutive images, and the texts they are compared with.

    Attributes:
        members: (c, N, C) pixel embeddings, float32 or float64.
        keys: The same, normalised where similarity is the cosine.
        texts: (T, C) text embeddings that pixels are compared with.
        unit: (T, C) unit vectors of the texts, which regions are compared with.
        rows: Which of all the texts these are.
        own: Indices (image, text) of the pairs that belong together.
    """

    def __init__(self, pixels: Tensor, texts: Tensor, start: int, spec: Comparison) -> None:
        first = spec.first + start
        # Without negatives only the own texts count.
        self.rows = slice(None) if spec.negatives else slice(first, first + len(pixels))
        texts = texts[self.rows].to(_precision(texts))
        self.spec = spec
        self.members = _rows(pixels).to(_precision(pixels)).contiguous()
        self.unit = F.normalize(texts, dim=-1)
        self.texts, self.keys = texts, self.members
        if spec.cosine:
            self.texts, self.keys = self.unit, F.normalize(self.members, dim=-1)
        images = torch.arange(len(pixels), device=pixels.device)
        self.own = (images, images + (first if spec.negatives else 0))

    def best(self) -> _Best:
        scores = torch.matmul(self.texts, self.keys.transpose(1, 2))  # (c, T, N), Eq. 2
        top, index = scores.topk(self.spec.negatives, dim=-1)
        return _Best(top, index, *scores[self.own].topk(self.spec.area, dim=-1))

    def regions(self, best: _Best) -> Tensor:
        """(c, T, C): ``o_ii(alpha)`` for the own texts, ``o_ij(alpha_neg)`` for the others."""
        regions = self.members.new_zeros(len(self.members), len(self.texts), self.members.shape[-1])
        area = self.spec.negative_area
        if area:
            regions = self._gathered(best.top[..., :area], best.index[..., :area])
        regions[self.own] = self._gathered(best.own_top[:, None], best.own_index[:, None])[:, 0]
        return regions

    def _gathered(self, top: Tensor, index: Tensor) -> Tensor:
        """Weighted sums (c, T, C) of the pixels at ``index`` (c, T, area), Eq. 3 and 4."""
        images, pixels, dim = self.members.shape
        firsts = torch.arange(0, images * pixels, pixels, device=index.device)
        sums = F.embedding_bag(
            (index + firsts[:, None, None]).flatten(0, 1),
            self.members.view(-1, dim),
            per_sample_weights=top.softmax(dim=-1).flatten(0, 1),
            mode="sum",
        )
        return sums.view(images, -1, dim)

    def weights(self, best: _Best) -> Tensor:
        """(c, T, N): ``A M / sum(A M)`` of Eq. 4, the weight of each pixel in each region."""
        weights = self.members.new_zeros(len(self.members), len(self.texts), self.members.shape[1])
        area = self.spec.negative_area
        if area:
            weights.scatter_(-1, best.index[..., :area], best.top[..., :area].softmax(dim=-1))
        objects = weights.new_zeros(len(weights), weights.shape[-1])
        weights[self.own] = objects.scatter_(-1, best.own_index, best.own_top.softmax(dim=-1))
        return weights

    def ranked(self, best: _Best) -> tuple[Tensor, Tensor]:
        """(c, T): the similarity that stands for each pair (Eq. 7), and the pixel it is of."""
        place = self.spec.negative_rank - 1
        values, index = best.top[..., place].clone(), best.index[..., place].clone()
        values[self.own] = best.own_top[:, self.spec.rank - 1]
        index[self.own] = best.own_index[:, self.spec.rank - 1]
        return values, index


class _Compare(torch.autograd.Function):
    # What a chunk takes is held by a function of its own, so that it is gone when the next begins.

    @staticmethod
    def forward(ctx, pixels: Tensor, texts: Tensor, spec: Comparison):
        images, dim, height, width = pixels.shape
        most = room(pixels.device)
        size, keep = workspace(spec, images, len(texts), height * width, dim, most)
        starts = range(0, images, size)
        chunks = [_compared(pixels[s : s + size], texts, s, spec, keep) for s in starts]
        ctx.save_for_backward(pixels, texts)
        ctx.spec, ctx.size, ctx.kept = spec, size, [best for _, best in chunks]
        return tuple(map(torch.cat, zip(*(compared for compared, _ in chunks), strict=True)))

    @staticmethod
    @once_differentiable
    def backward(ctx, of_objects: Tensor, of_regions: Tensor, of_ranked: Tensor):
        pixels, texts = ctx.saved_tensors
        of_pixels = torch.empty_like(pixels)
        wide = texts.to(_precision(texts))
        of_texts, of_unit = torch.zeros_like(wide), torch.zeros_like(wide)
        learned = (of_texts, of_unit) if ctx.needs_input_grad[1] else None
        for number, start in enumerate(range(0, len(pixels), ctx.size)):
            images = slice(start, start + ctx.size)
            chunk = _Chunk(pixels[images], texts, start, ctx.spec)
            given = Compared(of_objects[images], of_regions[images], of_ranked[images])
            of_chunk = _gradient(chunk, ctx.kept[number], given, learned)
            of_pixels[images].copy_(of_chunk.unflatten(1, pixels.shape[2:]).permute(0, 3, 1, 2))
            del chunk, of_chunk
        if learned is None:
            return of_pixels, None, None
        of_texts += _through_normalize(wide, F.normalize(wide, dim=-1), of_unit)
        return of_pixels, of_texts.to(texts.dtype), None


def _compared(
    pixels: Tensor, texts: Tensor, start: int, spec: Comparison, keep: bool
) -> tuple[Compared, _Best | None]:
    """The comparison of some images, and their most similar pixels if they are to be kept."""
    chunk = _Chunk(pixels, texts, start, spec)
    best = chunk.best()
    regions = chunk.regions(best)
    nothing = regions.new_empty(0)
    compared = Compared(
        objects=regions[chunk.own],
        regions=(F.normalize(regions, dim=-1) * chunk.unit).sum(dim=-1)
        if spec.negative_area
        else nothing,
        ranked=chunk.ranked(best)[0] if spec.negative_rank else nothing,
    )
    return compared, best.short(chunk.members.shape[1]) if keep else None


def _gradient(
    chunk: _Chunk, kept: _Best | None, given: Compared, learned: tuple[Tensor, Tensor] | None
) -> Tensor:
    """Gradient (c, N, C) of some images' pixel embeddings, given that of what was compared.

    Args:
        chunk: The images and the texts they are compared with.
        kept: Their most similar pixels, or None to compute them again.
        given: Gradient of what was compared.
        learned: Two tensors (T, C) to which the gradients of the texts are added, of those that
            pixels are compared with and of those that regions are; None if texts take none.
    """
    spec = chunk.spec
    best = chunk.best() if kept is None else kept.long()
    regions = chunk.regions(best)
    of_regions = torch.zeros_like(regions)
    if spec.negative_area:
        # The cosine's derivative by a region o is (t - cos o) / |o|, with t and o of length 1.
        norms = regions.norm(dim=-1, keepdim=True).clamp_min(_EPS)
        unit = regions / norms
        of_cosines = given.regions[..., None]
        if learned:
            learned[1][chunk.rows] += (unit * of_cosines).sum(dim=0)
        cosines = (unit * chunk.unit).sum(dim=-1, keepdim=True)
        of_regions = unit.mul_(cosines).neg_().add_(chunk.unit).mul_(of_cosines / norms)
    of_regions[chunk.own] += given.objects
    weights = chunk.weights(best)
    of_members = torch.bmm(weights.transpose(1, 2), of_regions)
    if spec.detach_weights:
        of_scores = torch.zeros_like(weights)
    else:
        # Through the softmax, whose weights are 0 outside the region.
        of_scores = torch.bmm(of_regions, chunk.members.transpose(1, 2))
        of_scores.sub_((of_regions * regions).sum(dim=-1, keepdim=True)).mul_(weights)
    if spec.negative_rank:
        index = chunk.ranked(best)[1][..., None]
        at = of_scores.gather(-1, index) + given.ranked[..., None]
        of_scores.scatter_(-1, index, at)
    if learned:
        change = torch.einsum("ctn,cnd->td", of_scores, chunk.keys)
        learned[1 if spec.cosine else 0][chunk.rows] += change
    del weights, regions, of_regions
    of_keys = torch.matmul(of_scores.transpose(1, 2), chunk.texts)
    if spec.cosine:
        of_keys = _through_normalize(chunk.members, chunk.keys, of_keys)
    return of_members.add_(of_keys)


def _precision(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _rows(pixels: Tensor) -> Tensor:
    """(c, C, H, W) as (c, N, C), a view where the memory allows, as in ``channels_last``."""
    return pixels.permute(0, 2, 3, 1).flatten(1, 2)


def _through_normalize(vectors: Tensor, unit: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of vectors, given that of their directions."""
    norms = vectors.norm(dim=-1, keepdim=True).clamp_min(_EPS)
    return (gradient - unit * (unit * gradient).sum(dim=-1, keepdim=True)) / norms
