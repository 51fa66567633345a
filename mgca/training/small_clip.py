"""Train the small CLIP: image transformer and text map by contrast with captions, resumable.

The trunk and the sentence encoder are frozen and come before: their outputs are computed once.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.backbone.hybrid import Hybrid, HybridConfig
from mgca.data.texts import TextPool
from mgca.losses.levels import info_nce
from mgca.training.checkpoint import metrics_until, resume, save_checkpoint, write_metrics
from mgca.training.optimiser import finite_gradient, learning_rate
from mgca.utils.progress import progress

METRICS = ["epoch", "step", "loss", "temperature"]


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Settings of the small CLIP's training, by AdamW with warm-up and cosine decay.

    Attributes:
        sizes: Sizes of the network.
        images: Number of image-caption pairs in the corpus, for the record.
        epochs: Number of passes over the data.
        batch_size: Number of image-text pairs in a batch.
        learning_rate: Highest learning rate, reached at the end of the warm-up.
        weight_decay: Weight decay of AdamW.
        names: Share of the texts drawn that are recognised names in place of captions.
        warmup: Share of the steps with a linearly rising rate.
        pixel_norm: Root mean square norm that dense features are scaled to afterwards. The
            contrast normalises them and texts, so that it leaves both norms free, and the dot
            products of MGCA (Eq. 2) depend on them; 10 is about OpenAI's CLIP's.
        text_norm: Root mean square norm that text embeddings are scaled to afterwards.
        seed: Seed of the random weights and of the order.
    """

    sizes: HybridConfig = field(default_factory=HybridConfig)
    images: int = 8_000
    epochs: int = 5
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    names: float = 0.0
    warmup: float = 0.1
    pixel_norm: float = 10.0
    text_norm: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError("epochs must be positive, and a batch holds at least two pairs")
        if not (min(self.learning_rate, self.pixel_norm, self.text_norm) > 0 <= self.weight_decay):
            raise ValueError("rates and norms must be positive, weight_decay not negative")
        if not (0 <= self.names <= 1 and 0 <= self.warmup <= 1):
            raise ValueError("names and warmup are shares and must lie in [0, 1]")


def train_clip(
    config: ClipConfig,
    backbone: Hybrid,
    features: np.ndarray,
    pool: TextPool,
    sentences: Tensor,
    folder: str | os.PathLike,
) -> dict[str, float]:
    """Train ``backbone`` in place, or go on after the last whole epoch of an interrupted run.

    Args:
        backbone: The hybrid, whose transformer and text map are trained from random weights.
        features: (n, 112, grid, grid) trunk features of the training images.
        pool: The captions of each image.
        sentences: (len(pool.texts), 384) sentence embeddings of the pool's texts.
        folder: Folder of this run alone, for checkpoints and metrics.

    Returns:
        Loss of the last epoch and the temperature.

    Raises:
        ValueError: If the images do not fill a batch, the backbone has other sizes, names are asked
            for and the pool has none, or the folder holds another configuration.
        NotFinite: If the loss is NaN or infinite; the last checkpoint is kept.
    """
    per_epoch = len(features) // config.batch_size
    if not per_epoch:
        raise ValueError(f"{len(features)} images do not fill a batch of {config.batch_size}")
    if config.sizes != backbone.config:
        raise ValueError(
            f"the configuration is for {config.sizes}, the backbone is {backbone.config}"
        )
    if config.names and not all(pool.names):
        raise ValueError("names= draws recognised names, and some images of the pool have none")
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(config.seed)
    model = backbone.model
    _initialise(model, config)
    model.requires_grad_(True)
    optimizer = torch.optim.AdamW(_groups(model, config), lr=config.learning_rate)
    steps = config.epochs * per_epoch
    folder = Path(folder)
    checkpoint = folder / "checkpoint.safetensors"
    start = resume(checkpoint, config, model, optimizer)
    rows = metrics_until(folder / "metrics.csv", start)
    bar = progress(total=steps, initial=start, desc="small CLIP", unit="step")
    for epoch in range(start // per_epoch, config.epochs):
        # Each epoch has a generator of its own, so that a resumed run draws what it would have.
        generator = torch.Generator().manual_seed(1000 * config.seed + epoch)
        order = torch.randperm(len(features), generator=generator)[: per_epoch * config.batch_size]
        total = 0.0
        for position, chosen in enumerate(order.split(config.batch_size)):
            drawn = [
                pool.draw(i, "original", generator, names=config.names) for i in chosen.tolist()
            ]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch * per_epoch + position, steps)
            loss = _loss(model, torch.from_numpy(features[chosen.numpy()]), sentences[drawn])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            advice = "Lower learning_rate; the last checkpoint is from before this epoch"
            finite_gradient(model, loss, epoch * per_epoch + position, advice)
            optimizer.step()
            total += loss.item()
            bar.set_postfix(loss=f"{loss.item():.3f}")
            bar.update()
        temperature = float(1 / model.logit_scale.detach().exp().clamp(max=100))
        step = (epoch + 1) * per_epoch
        rows.append(
            {"epoch": epoch, "step": step - 1, "loss": total / per_epoch}
            | {"temperature": temperature}
        )
        write_metrics(folder / "metrics.csv", METRICS, rows)
        save_checkpoint(checkpoint, config, model, optimizer, step)
    bar.close()
    backbone.freeze()
    _scale(backbone, features, sentences, config)
    backbone.refresh()
    return {"loss": float(rows[-1]["loss"]), "temperature": backbone.temperature}


def _initialise(model: nn.Module, config: ClipConfig) -> None:
    """Random weights from the seed, as open_clip's layers draw them."""
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for block in model.visual.transformer.resblocks:
        block.attn._reset_parameters()
    width = config.sizes.width
    for parameter in (
        model.visual.class_embedding,
        model.visual.positional_embedding,
        model.visual.proj,
    ):
        nn.init.normal_(parameter, std=width**-0.5)
    nn.init.constant_(model.logit_scale, math.log(1 / 0.07))


def _groups(model: nn.Module, config: ClipConfig) -> list[dict]:
    """Matrices decay; norms, biases and the temperature do not, as in open_clip."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _loss(model: nn.Module, features: Tensor, sentences: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        images = model.visual(features.float())
    images = F.normalize(images.float(), dim=-1)
    texts = F.normalize(model.text(sentences), dim=-1)
    return info_nce(model.logit_scale.exp().clamp(max=100) * images @ texts.t())


@torch.no_grad()
def _scale(backbone: Hybrid, features: np.ndarray, sentences: Tensor, config: ClipConfig) -> None:
    """Give dense features and texts the configured norms; weights are rounded as they are kept."""
    model = backbone.model
    sample = torch.from_numpy(features[:: max(1, len(features) // 64)]).float()
    pixels = backbone.project(backbone.from_trunk(sample))
    model.visual.proj *= config.pixel_norm / pixels.square().sum(dim=1).mean().sqrt()
    texts = model.text(sentences[:: max(1, len(sentences) // 4096)])
    factor = config.text_norm / texts.square().sum(dim=1).mean().sqrt()
    model.text.weight *= factor
    model.text.bias *= factor
    # A loaded backbone is then exactly the trained one.
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())
