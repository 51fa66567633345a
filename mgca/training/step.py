"""The gradient of one training step, whose batch is shared by processes and cut into parts.

The contrast is over the whole batch however it is cut up. Where a process takes its images in parts
("gradient accumulation"), the logits of each part are computed twice: first without gradient, for
the losses of the whole batch and their gradient with respect to the logits, then with gradient, to
take it on to the decoder. Time grows by one forward pass of the decoder, memory is that of a part.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mgca.config import TrainConfig
from mgca.decoder import GatedConvDecoder, upsample2
from mgca.losses.objective import Objective
from mgca.training.distributed import gather_rows, mean_over_images
from mgca.training.resources import Process
from mgca.training.sources import Inputs


def pixel_embeddings(decoder: nn.Module, dense: Tensor, precision: str) -> Tensor:
    """Pixel embeddings ``P = D(E_v(x))`` (b, C, 2h, 2w) of dense features (b, C, h, w) (Eq. 1).

    The convolutions run in ``precision``; what they give is float32, which similarities and
    softmaxes over hundreds of pixels need.
    """
    kind = getattr(torch, precision)
    with torch.autocast(dense.device.type, kind, enabled=kind != torch.float32):
        pixels = decoder(dense.contiguous(memory_format=torch.channels_last))
    return pixels.float()


def backward(
    process: Process,
    config: TrainConfig,
    objective: Objective,
    decoder: nn.Module,
    inputs: Inputs,
    *,
    noise: Callable[[Tensor], Tensor] | None = None,
    micro_batch: int | None = None,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> dict[str, Tensor]:
    """Losses of the whole batch, and their gradient in the decoder's parameters.

    Loss and gradient are those of one process with all images, whatever the number of processes
    and parts, up to rounding. Call it on every process, each with its own images.

    Args:
        process: This process, one of those that share the batch.
        config: Configuration of the training.
        objective: The objective, whose total is minimised.
        decoder: The decoder, as the process set it up.
        inputs: Features, texts and more of this process's images, of any number but 0.
        noise: Function of pixel embeddings (b, C, H, W) that gives the noise (b, H, W) of an
            objective that takes whole batches.
        micro_batch: Number of images that pass through the decoder at a time; None for all. With
            ``hold_mean`` it must hold them all.
        scale: Function applied to the loss before its backward pass, as float16 needs it.

    Returns:
        Each term's loss and ``"total"``, the same on all processes, without gradient.
    """
    dense = inputs.dense
    if objective.whole_batch:
        pixels = _held(decoder, dense, dense, config)
        drawn = None if noise is None else noise(pixels)
        losses = objective(
            pixels, inputs.texts, exclude=inputs.exclude, images=inputs.images, noise=drawn
        )
        process.backward(scale(losses["total"]))
        return {name: loss.detach() for name, loss in losses.items()}
    all_texts, first = gather_rows(inputs.texts)
    parts = torch.arange(len(dense), device=dense.device).split(micro_batch or len(dense))

    def logits(part: Tensor) -> dict[str, Tensor]:
        pixels = _held(decoder, dense[part], dense, config)
        return objective.logits(pixels, all_texts, first + int(part[0]))

    def combined(rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses from this process's rows (b, B) of the logits and those of all others."""
        gathered = {name: gather_rows(own)[0] for name, own in rows.items()}
        return objective.combine(gathered, inputs.exclude)

    if len(parts) == 1:
        losses = combined(logits(parts[0]))
        process.backward(scale(losses["total"]))
        return {name: loss.detach() for name, loss in losses.items()}
    with torch.no_grad():
        rows = [logits(part) for part in parts]
    whole = {name: torch.cat([of[name] for of in rows]).requires_grad_() for name in rows[0]}
    losses = combined(whole)
    gradients = dict(
        zip(whole, torch.autograd.grad(losses["total"], list(whole.values())), strict=True)
    )
    for part in parts:
        # Processes exchange gradients once, after the last part.
        with process.no_backward_sync(decoder, enabled=part is not parts[-1]):
            again = logits(part)
            # Its gradient in the logits is the one found, so that in the parameters is, too.
            carried = [(again[name] * gradients[name][part]).sum() for name in again]
            process.backward(scale(torch.stack(carried).sum()))
    return {name: loss.detach() for name, loss in losses.items()}


def _held(decoder: nn.Module, part: Tensor, dense: Tensor, config: TrainConfig) -> Tensor:
    """Pixel embeddings of a part of the images, less their mean change where that is held."""
    pixels = pixel_embeddings(decoder, part, config.precision)
    return pixels - mean_change(pixels, dense, config.upsample) if config.hold_mean else pixels


def mean_change(pixels: Tensor, dense: Tensor, upsample: str) -> Tensor:
    """The mean difference (1, C, 1, 1) of pixel embeddings from the features they are made of.

    It is the mean over all pixels and over the images of all processes.

    Moving all pixels by one vector favours some texts everywhere. It is the easiest thing to learn
    where few subjects make up the data, and says nothing about any image.
    """
    return mean_over_images(pixels - upsample2(dense, upsample))


@torch.no_grad()
def move_into_bias(decoder: GatedConvDecoder, change: Tensor) -> None:
    """Take a mean change (C,) out of a decoder, through its last block's bias."""
    last = decoder.blocks[-1]
    last.conv.bias -= change[: decoder.learned] / torch.tanh(last.gate)
