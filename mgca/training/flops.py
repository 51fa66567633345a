"""FLOPs and bytes of each part of the method, and the most that a machine can do.

A FLOP is one multiplication or one addition of a matrix product, a convolution or an attention;
what is done element by element (norms, activations, softmax, sorting) is not counted, as is usual.
The dense features of a plain ViT-B/16 take 35.3 GFLOP at 224x224 pixels and 157.6 at 448x448; with
the value-only last block (choice D1), which has no queries, no keys and no products of the two,
34.7 and 153.8.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from mgca.config import TrainConfig
from mgca.losses.levels import area_in_pixels

if TYPE_CHECKING:
    from mgca.backbone import Backbone

# Of a caption's usual length. CLIP's text encoder pads to its context, so that it does not matter.
CAPTION = "a brown dog runs through the tall grass with a red ball in its mouth"


def count_flops(function: Callable[[], object]) -> float:
    """FLOPs of a call, which is made."""
    with _plain_attention(), FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())


def count_bytes(function: Callable[[], object]) -> float:
    """Bytes that the operations of a call read and write, if none finds its input in a cache.

    The call is made. Views move nothing.
    """
    with _Traffic() as traffic:
        function()
    return float(traffic.bytes)


@torch.no_grad()
def image_flops(backbone: "Backbone", size: int) -> float:
    """FLOPs of the dense features of one image of ``size`` x ``size`` pixels."""
    like = next(backbone.parameters())
    image = torch.zeros(1, 3, size, size, device=like.device, dtype=like.dtype)
    return count_flops(lambda: backbone.dense(image))


@torch.no_grad()
def text_flops(backbone: "Backbone", caption: str = CAPTION) -> float:
    """FLOPs of the embedding of one caption; where texts are not padded, its length matters."""
    return count_flops(lambda: backbone.encode_text([caption]))


def decoder_flops(
    dim: int, height: int, width: int, *, blocks: int = 2, backward: bool = False
) -> float:
    """FLOPs of the decoder's convolutions for one image.

    Args:
        dim: Number of channels ``C``.
        height: Rows of the map of pixel embeddings.
        width: Columns of the map of pixel embeddings.
        blocks: Number of gated convolution blocks.
        backward: Whether the gradients of inputs and weights are counted too, which cost as much
            each.
    """
    forward = 2.0 * blocks * 9 * dim**2 * height * width
    return 3 * forward if backward else forward


def unit_flops(dim: int, pixels: int, meta_points: int) -> float:
    """FLOPs of the semantic units of one window: every pixel with every meta-point."""
    return 2.0 * meta_points * pixels * dim


def loss_flops(
    images: int,
    texts: int,
    pixels: int,
    dim: int,
    *,
    alpha: float = 0.4,
    alpha_neg: float = 0.05,
    backward: bool = True,
) -> float:
    """FLOPs of the three losses of images against texts (Eq. 2 to 7).

    Counted is what the equations need: regions of the pixels that they keep, and no product with a
    weight that is 0.

    Args:
        images: Number of images ``B``.
        texts: Number of texts ``T`` of all processes together.
        pixels: Number of pixels ``N`` of an image.
        dim: Number of channels ``C``.
        alpha: Area of an object, as a share of the image.
        alpha_neg: Area of a hard negative region, as a share of the image.
        backward: Whether the gradient of the pixel embeddings is counted too. Texts have none.
    """
    pairs = images * texts
    # Of a pair that belongs together the object is kept, of every other a hard negative region.
    kept = images * area_in_pixels(alpha, pixels)
    kept += (pairs - images) * area_in_pixels(alpha_neg, pixels)
    similarities = 2.0 * pairs * pixels * dim  # Eq. 2
    regions = 2.0 * kept * dim  # Eq. 4, weights at hand
    cosines = 2 * 2.0 * pairs * dim  # Eq. 5 and 6
    forward = similarities + regions + cosines
    if not backward:
        return forward
    # From regions back to their weights, to the pixels directly, and through the similarities.
    return forward + 3 * regions + cosines


@torch.no_grad()
def ceiling(device: torch.device | str, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """FLOP/s of a device in large matrix products.

    The same product is computed as such and as a 1x1 convolution, for which torch has other
    libraries; the best of all that fit in ``seconds`` counts. Where a device is slow in a precision
    the products are smaller, so that it takes some seconds at most.
    """
    side = 8192 if torch.device(device).type == "cuda" else _affordable(dtype, seconds / 2)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    image = a.t().reshape(1, side, side // 32, 32).contiguous(memory_format=torch.channels_last)
    kernel = b.reshape(side, side, 1, 1).contiguous(memory_format=torch.channels_last)
    quickest = min(
        best_seconds(lambda: torch.mm(a, b, out=out), device, seconds / 2),
        best_seconds(lambda: F.conv2d(image, kernel), device, seconds / 2),
    )
    return 2.0 * side**3 / quickest


def _affordable(dtype: torch.dtype, seconds: float, most: int = 2048) -> int:
    """Side of the largest matrices, up to ``most``, that a processor multiplies in ``seconds``."""
    side = 128
    while side < most:
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        torch.mm(a, b)  # the first call prepares
        began = time.perf_counter()
        torch.mm(a, b)
        if 8 * (time.perf_counter() - began) > seconds:
            break
        side *= 2
    return side


def slowness(device: torch.device | str, dtype: torch.dtype, side: int = 256) -> float:
    """How many times as long a matrix product takes in a precision as in float32.

    Some processors compute in half precision without units for it, a hundred times as slowly.
    """
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    half = a.to(dtype), b.to(dtype)
    own, plain = (
        best_seconds(lambda pair=pair: torch.mm(*pair), device, 0.0) for pair in (half, (a, b))
    )
    return own / plain


def bandwidth(device: torch.device | str, seconds: float = 1.0) -> float:
    """Bytes/s that a device reads and writes when it copies 256 MiB, far more than a cache holds.

    The best of the copies that fit in ``seconds`` counts.
    """
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.nbytes / best_seconds(lambda: target.copy_(source), device, seconds)


def best_seconds(
    function: Callable[[], object],
    device: torch.device | str = "cpu",
    seconds: float = 1.0,
    repeats: int = 3,
) -> float:
    """Seconds of the quickest call of a function.

    It is called as often as fits in ``seconds``, but at least ``repeats`` times, after one call
    that is not counted.
    """
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    function()
    wait()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < repeats or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        function()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as matrix products: torch's fused kernels are not all known to its counter."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of every operation's tensors, inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for value in tree_iter((args, kwargs, out)):
                if isinstance(value, Tensor):
                    # An expanded tensor has more elements than it has in memory.
                    self.bytes += min(value.nbytes, value.untyped_storage().nbytes())
        return out


def step_flops(config: TrainConfig, backbone: "Backbone", size: int) -> float:
    """FLOPs of an image with its text in a training step.

    Counted are the frozen encoders forward, and decoder and losses forward and backward, without
    what is computed twice to save memory.

    Args:
        config: Configuration of the training.
        backbone: The frozen encoders.
        size: Side of an image in pixels.
    """
    rows = 2 * size // backbone.stride
    return (
        image_flops(backbone, size)
        + text_flops(backbone)
        + decoder_flops(backbone.learned or backbone.dim, rows, rows, backward=True)
        + loss_flops(1, config.batch_size, rows * rows, backbone.dim)
    )
