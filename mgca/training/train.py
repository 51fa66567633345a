"""Train the decoder on image-caption pairs: AdamW, warm-up and cosine, resumable bit for bit."""

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mgca.backbone.base import Backbone
from mgca.backbone.pooled import global_encoder
from mgca.config import TrainConfig, config_hash
from mgca.data.texts import TextPool, known_pairs
from mgca.decoder import GatedConvDecoder
from mgca.losses.objective import make_objective as objective_of
from mgca.losses.tcl import TCLConfig, TCLObjective, logistic_noise
from mgca.training.checkpoint import metrics_until, resume, save_checkpoint, write_metrics
from mgca.training.step import mean_change, move_into_bias, pixel_embeddings
from mgca.utils.progress import progress
from mgca.weights.decoders import save_decoder

METRICS = ["step", "rate", "total", "object", "region", "pixel", "gradient", "seconds"]
TCL_METRICS = [*METRICS[:3], "area", "feature", "image", "variation", *METRICS[-2:]]


class NotFinite(RuntimeError):
    """The loss or its gradient is not a finite number."""


class TrainingData(NamedTuple):
    """What a step draws from.

    Attributes:
        features: (n, F, h, w), the frozen trunk's features of each image.
        pool: Which texts each image may draw.
        texts: (len(pool.texts), C), their embeddings.
        images: Positions of images to these, normalised (B, 3, H, W), as TCL's objective takes
            them; MGCA's needs none.
    """

    features: np.ndarray
    pool: TextPool
    texts: Tensor
    images: Callable[[Sequence[int]], Tensor] | None = None


def total_steps(config: TrainConfig, images: int) -> int:
    """Optimisation steps of a run; a last batch of an epoch that is not full is left out.

    Raises:
        ValueError: If there are fewer images than a batch takes.
    """
    if images < config.batch_size:
        raise ValueError(
            f"{images} images do not fill a batch of {config.batch_size}: lower batch_size"
        )
    return config.steps or max(1, round(config.epochs * (images // config.batch_size)))


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Rate of a step (from 0): a linear warm-up, then cosine decay to 0."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def check_backbone(config: TrainConfig, backbone: Backbone) -> None:
    """Refuse a backbone other than the configuration's.

    Raises:
        ValueError: If it is another.
    """
    if (backbone.name, backbone.last_block) != (config.backbone, config.last_block):
        raise ValueError(
            f"the configuration is for {config.backbone} with last_block={config.last_block!r}, "
            f"the backbone is {backbone.name} with {backbone.last_block!r}"
        )


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, or Adam with its weight decay in the gradient (choice D9)."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def make_objective(
    config: TrainConfig, backbone: Backbone, data: TrainingData
) -> TCLObjective | None:
    """TCL's objective, which learns too; None for MGCA's, which has nothing to learn.

    Raises:
        ValueError: If the data lacks the images that TCL needs.
    """
    if not isinstance(config.loss, TCLConfig):
        return None
    if not config.loss.contrast:
        return TCLObjective(config.loss)
    if data.images is None:
        raise ValueError(
            "TCL's objective cuts images out by its masks, and the data has no images: give "
            "TrainingData images=, or TCLConfig contrast=0"
        )
    return TCLObjective(config.loss, global_encoder(backbone, config.precision))


def trained_part(decoder: GatedConvDecoder, objective: TCLObjective | None) -> nn.Module:
    """What the optimizer and checkpoints are about: the decoder, and what the objective learns."""
    if objective is None:
        return decoder
    return nn.ModuleDict({"decoder": decoder, "objective": objective})


def batch_of(config: TrainConfig, data: TrainingData, step: int) -> tuple[list[int], list[int]]:
    """Images and texts of a step. They depend on the seed and the step alone, so that a resumed
    run needs no state of a generator."""
    images = len(data.features)
    per_epoch = images // config.batch_size
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(images, generator=_generator(config.seed, 0, epoch))
    start = position * config.batch_size
    chosen = order[start : start + config.batch_size].tolist()
    generator = _generator(config.seed, 1, step)
    texts = [
        data.pool.draw(image, config.captions, generator, names=config.names) for image in chosen
    ]
    return chosen, texts


def _generator(*numbers: int) -> torch.Generator:
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> 1))


def train(
    config: TrainConfig,
    backbone: Backbone,
    data: TrainingData,
    folder: str | os.PathLike,
    *,
    checkpoint_every: int = 50,
    on_step: Callable[[dict[str, float]], None] | None = None,
) -> GatedConvDecoder:
    """Train a decoder, or go on where an interrupted run of the same configuration stopped.

    Writes ``decoder.safetensors`` (float32), ``metrics.csv`` and, while it runs, a checkpoint into
    ``folder``. On one machine a resumed run ends with the same bits as an uninterrupted one.

    The file of a decoder trained with TCL's objective has the ``w`` and ``b`` that turn its cosines
    into scores, as ``sigmoid_weight`` and ``sigmoid_bias``.

    Args:
        config: Of the run.
        backbone: The frozen encoders.
        data: Features and texts.
        folder: Of this run alone.
        checkpoint_every: Steps between checkpoints.
        on_step: Called with the metrics of each step.

    Raises:
        ValueError: If the data does not fill a batch, or lacks the images that TCL needs, or the
            folder holds another configuration.
        NotFinite: If the loss is NaN or infinite; the last checkpoint is kept.
        OSError: If the folder cannot be written to.
    """
    check_backbone(config, backbone)
    if config.precision == "float16":
        raise ValueError("precision float16 is for training from shards, on a GPU: use bfloat16")
    folder = Path(folder)
    steps = total_steps(config, len(data.features))
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(config.seed)
    decoder = GatedConvDecoder(backbone.dim, upsample=config.upsample)
    # Normalising over channels and convolving in bfloat16: 1.3 times as fast in this layout.
    decoder.to(next(backbone.parameters()).device, memory_format=torch.channels_last)
    objective = make_objective(config, backbone, data)
    model = trained_part(decoder, objective).to(next(backbone.parameters()).device)
    optimizer = make_optimizer(config, model)
    checkpoint = folder / "checkpoint.safetensors"
    start = resume(checkpoint, config, model, optimizer)
    rows = metrics_until(folder / "metrics.csv", start)
    began = time.perf_counter()
    bar = progress(total=steps, initial=start, desc="training", unit="step")
    for step in range(start, steps):
        rate = learning_rate(config, step, steps)
        row = {"step": step, "rate": rate}
        row |= _step(config, backbone, decoder, optimizer, data, step, rate, objective)
        row["seconds"] = round(time.perf_counter() - began, 2)
        rows.append(row)
        if on_step:
            on_step(row)
        bar.set_postfix(loss=f"{row['total']:.3f}")
        bar.update()
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            columns = METRICS if objective is None else TCL_METRICS
            write_metrics(folder / "metrics.csv", columns, rows)
            save_checkpoint(checkpoint, config, model, optimizer, step + 1)
    bar.close()
    if config.hold_mean:
        _take_out_mean_change(decoder, backbone, data)
    save_decoder(
        folder / "decoder.safetensors",
        decoder,
        backbone,
        run=config_hash(config),
        dtype=torch.float32,
        sigmoid=objective.sigmoid() if objective is not None else None,
    )
    return decoder.requires_grad_(False).eval()


def _step(
    config: TrainConfig,
    backbone: Backbone,
    decoder: GatedConvDecoder,
    optimizer: torch.optim.Optimizer,
    data: TrainingData,
    step: int,
    rate: float,
    objective: TCLObjective | None = None,
) -> dict[str, float]:
    """One optimisation step; the losses and the gradient's norm.

    Args:
        objective: TCL's, which learns with the decoder; None for MGCA's.
    """
    images, texts = batch_of(config, data, step)
    device = next(decoder.parameters()).device
    with torch.no_grad():
        dense = backbone.project(torch.from_numpy(data.features[images]).to(device).float())
    pixels = pixel_embeddings(decoder, dense, config.precision)
    if config.hold_mean:
        pixels = pixels - mean_change(pixels, dense, decoder.upsample)
    exclude = None
    if config.known is not None:
        exclude = known_pairs(data.pool, data.texts, images, texts, config.known).to(device)
    drawn = data.texts[texts].to(device)
    if objective is None:
        losses = objective_of(config.loss)(pixels, drawn, exclude=exclude)
    else:
        noise = logistic_noise(pixels[:, 0].shape, _generator(config.seed, 2, step)).to(device)
        whole = data.images(images).to(device) if config.loss.contrast else None
        losses = objective(pixels, drawn, images=whole, noise=noise, exclude=exclude)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    gradient = finite_gradient(
        trained_part(decoder, objective),
        losses["total"],
        step,
        "Lower learning_rate, or use precision='float32'; the last checkpoint is from before this "
        "step",
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    values = {name: loss.item() for name, loss in losses.items()}
    return values | {"gradient": gradient}


def finite_gradient(model: nn.Module, loss: Tensor, step: int, advice: str) -> float:
    """Norm of the gradient of a step, after checking it and the loss.

    Raises:
        NotFinite: If one of them is NaN or infinite, with the advice.
    """
    gradient = gradient_norm(model)
    if not (math.isfinite(loss.item()) and math.isfinite(gradient)):
        raise NotFinite(
            f"step {step}: the loss is {loss.item()} and its gradient's norm {gradient}. {advice}"
        )
    return gradient


def gradient_norm(model: nn.Module) -> float:
    """Norm of the gradient in all parameters; what a term left out would have learned has none."""
    norms = [torch.linalg.vector_norm(p.grad) for p in model.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms)).item()


@torch.no_grad()
def _take_out_mean_change(
    decoder: GatedConvDecoder, backbone: Backbone, data: TrainingData, images: int = 256
) -> None:
    """Move the mean change over (some of) the training images into the last block's bias."""
    every = max(1, len(data.features) // images)
    device = next(decoder.parameters()).device
    changes = []
    for features in np.array_split(data.features[::every], max(1, images // 32)):
        if len(features):
            dense = backbone.project(torch.from_numpy(features.astype(np.float32)).to(device))
            changes.append(mean_change(decoder(dense), dense, decoder.upsample) * len(features))
    change = torch.stack(changes).sum(dim=0).flatten() / len(data.features[::every])
    move_into_bias(decoder, change)
