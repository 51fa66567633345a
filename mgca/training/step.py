"""One step on a batch that lies on several processes, and passes through each in parts.

The contrast is over the whole batch however it is cut up. Where a process takes its images in parts
("gradient accumulation"), the logits of each part are computed twice: first without gradient, for
the losses of the whole batch and their gradient with respect to the logits, then with gradient, to
take it on to the decoder. Time grows by one forward pass of the decoder, memory is that of a part.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mgca.config import TrainConfig
from mgca.decoder import GatedConvDecoder, upsample2
from mgca.losses.objective import Objective, make_objective
from mgca.training.distributed import gather_rows, mean_over_images

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def pixel_embeddings(decoder: nn.Module, dense: Tensor, precision: str) -> Tensor:
    """``P = D(E_v(x))`` (b, C, 2h, 2w) in float32 of dense features (b, C, h, w) (Eq. 1).

    The convolutions run in the precision; similarities and softmaxes over hundreds of pixels need
    float32.
    """
    kind = getattr(torch, precision)
    with torch.autocast(dense.device.type, kind, enabled=kind != torch.float32):
        pixels = decoder(dense.contiguous(memory_format=torch.channels_last))
    return pixels.float()


def backward(
    fabric: "Fabric",
    config: TrainConfig,
    decoder: nn.Module,
    dense: Tensor,
    texts: Tensor,
    *,
    micro_batch: int | None = None,
    budget: int | None = None,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> dict[str, Tensor]:
    """Losses of the whole batch (Eq. 8), and their gradient in the decoder's parameters.

    Loss and gradient are those of one process with all images, whatever the number of processes
    and parts, up to rounding. Call it on every process, each with its own images.

    Args:
        fabric: That set the decoder up.
        decoder: As Fabric wrapped it.
        dense: (b, C, h, w) features of this process's images, of any number but 0.
        texts: (b, C) of their texts.
        micro_batch: Images to pass through the decoder at a time; None for all. With ``hold_mean``
            it must hold them all.
        budget: Bytes that the losses may hold beside their inputs, see
            :func:`mgca.losses.objective.mgca_loss`.
        scale: Of the loss before its backward pass, as float16 needs it.

    Returns:
        Each level's loss and ``"total"``, the same on all processes, without gradient.
    """
    objective = make_objective(config.loss)
    objective.budget = budget
    all_texts, first = gather_rows(texts)
    parts = torch.arange(len(dense), device=dense.device).split(micro_batch or len(dense))

    def logits(part: Tensor) -> dict[str, Tensor]:
        pixels = pixel_embeddings(decoder, dense[part], config.precision)
        if config.hold_mean:
            pixels = pixels - mean_change(pixels, dense, config.upsample)
        return objective.logits(pixels, all_texts, first + int(part[0]))

    if len(parts) == 1:
        losses = _losses(logits(parts[0]), objective)
        fabric.backward(scale(losses["total"]))
        return {name: loss.detach() for name, loss in losses.items()}
    with torch.no_grad():
        found = [logits(part) for part in parts]
    whole = {name: torch.cat([of[name] for of in found]).requires_grad_() for name in found[0]}
    losses = _losses(whole, objective)
    gradients = dict(
        zip(whole, torch.autograd.grad(losses["total"], list(whole.values())), strict=True)
    )
    for part in parts:
        # Processes exchange gradients once, after the last part.
        with fabric.no_backward_sync(decoder, enabled=part is not parts[-1]):
            again = logits(part)
            # Its gradient in the logits is the one found, so that in the parameters is, too.
            carried = [(again[name] * gradients[name][part]).sum() for name in again]
            fabric.backward(scale(torch.stack(carried).sum()))
    return {name: loss.detach() for name, loss in losses.items()}


def _losses(logits: dict[str, Tensor], objective: Objective) -> dict[str, Tensor]:
    """Losses from this process's rows (b, B) of the logits and those of all others."""
    return objective.combine({name: gather_rows(rows)[0] for name, rows in logits.items()})


def mean_change(pixels: Tensor, dense: Tensor, upsample: str) -> Tensor:
    """(1, C, 1, 1): by how much pixel embeddings differ on average from the features they are made
    of, whatever the image and the pixel, over the images of all processes.

    Moving all pixels by one vector favours some texts everywhere. It is the easiest thing to learn
    where few subjects make up the data, and says nothing about any image.
    """
    return mean_over_images(pixels - upsample2(dense, upsample))


@torch.no_grad()
def move_into_bias(decoder: GatedConvDecoder, change: Tensor) -> None:
    """Take a mean change (C,) out of a decoder, through its last block's bias."""
    last = decoder.blocks[-1]
    last.conv.bias -= change / torch.tanh(last.gate)
