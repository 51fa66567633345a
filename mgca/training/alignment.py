"""Train the linear alignment of ``lite``: pooled image features to the sentence encoder's space.

The map is linear in the features, so what it learns of the pooled feature of an image holds at
each position. It plays the part that CLIP's own training plays for ViT-B/16: image-level alignment
from captions, with the granularity gap that MGCA then closes.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.backbone.lite import Lite
from mgca.data.texts import TextPool
from mgca.evaluation.metrics import recall
from mgca.losses.levels import info_nce
from mgca.weights import write_tensors


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """Settings of the alignment's training, by AdamW with cosine decay.

    Attributes:
        epochs: Number of passes over the data.
        batch_size: Number of images in a batch.
        learning_rate: Learning rate at the start.
        weight_decay: Weight decay of AdamW.
        names: Weight of the second term, which makes the similarity of single positions to the
            names of ImageNet's classes agree with the trunk's own classifier there. It brings in
            words that the captions lack.
        positions: Positions drawn from each image for that term.
        seed: Seed of the random weights and of the order.
    """

    epochs: int = 15
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    names: float = 1.0
    positions: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.positions < 1:
            raise ValueError("epochs, batch_size and positions must be positive")
        if self.learning_rate <= 0 or min(self.names, self.weight_decay) < 0:
            raise ValueError("learning_rate must be positive, weights not negative")


def imagenet_names() -> list[str]:
    """The first name of each of ImageNet's 1000 classes, as WordNet has it."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return [info.index_to_description(index).split(",")[0].strip() for index in range(1000)]


def imagenet_definitions() -> list[str]:
    """The definition of each of ImageNet's 1000 classes, as WordNet has it."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    detailed = (info.index_to_description(index, detailed=True) for index in range(1000))
    return [text.partition(": ")[2] for text in detailed]


@torch.inference_mode()
def recognised_names(
    backbone: Lite, features: np.ndarray, names: list[str], top: int = 5
) -> list[list[tuple[float, str]]]:
    """Probabilities and names of what the trunk's own classifier recognises in each image."""
    found = []
    for maps in features:
        pooled = torch.from_numpy(np.asarray(maps, dtype=np.float32)).mean(dim=(1, 2))
        best = backbone.classifier(pooled).softmax(dim=-1).topk(top)
        found.append(
            [
                (p, names[i])
                for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        )
    return found


def sample_features(features: np.ndarray, positions: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pooled features (n, F) of every image and features (n * positions, F) of random positions."""
    generator = np.random.default_rng(seed)
    pooled, single = [], []
    for maps in features:
        flat = np.asarray(maps, dtype=np.float32).reshape(len(maps), -1)
        pooled.append(flat.mean(axis=1))
        single.append(flat[:, generator.integers(0, flat.shape[1], positions)].T)
    return torch.from_numpy(np.stack(pooled)), torch.from_numpy(np.concatenate(single))


def text_centre(pool: TextPool, texts: Tensor) -> Tensor:
    """(C,): the mean of the captions' and of the other texts' embeddings, each half."""
    originals = torch.tensor(sorted({i for own in pool.originals for i in own}))
    other = torch.ones(len(texts), dtype=torch.bool)
    other[originals] = False
    return (texts[originals].mean(dim=0) + texts[other].mean(dim=0)) / 2


def train_alignment(
    config: AlignConfig,
    backbone: Lite,
    features: np.ndarray,
    pool: TextPool,
    texts: Tensor,
    names: Tensor,
) -> dict[str, float]:
    """Train ``backbone``'s alignment in place.

    Args:
        backbone: A ``lite`` whose alignment may be random.
        features: (n, F, h, w) trunk features of the training images.
        pool: The captions of each image.
        texts: Sentence embeddings (len(pool.texts), C) of the pool's texts, not centred.
        names: Sentence embeddings (1000, texts, C) of what names or defines the classifier's
            classes.

    Returns:
        The last ``"loss"`` and the learned ``"temperature"``.
    """
    torch.manual_seed(config.seed)
    pooled, single = sample_features(features, config.positions, config.seed)
    mean, std = pooled.mean(dim=0), pooled.std(dim=0).clamp(min=1e-6)
    pooled = (pooled - mean) / std
    with torch.no_grad():
        soft = backbone.classifier(single).softmax(dim=-1)
    single = (single - mean) / std
    centre = text_centre(pool, texts)
    texts = F.normalize(texts - centre, dim=-1)
    names = F.normalize(F.normalize(names - centre, dim=-1).mean(dim=1), dim=-1)
    captions = [torch.tensor(own) for own in pool.originals]

    linear = nn.Linear(pooled.shape[1], backbone.learned)
    log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    optimizer = torch.optim.AdamW(
        [
            {"params": linear.parameters(), "weight_decay": config.weight_decay},
            {"params": [log_scale], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )
    per_epoch = len(pooled) // config.batch_size
    if not per_epoch:
        raise ValueError(f"{len(pooled)} images do not fill a batch of {config.batch_size}")
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * per_epoch)
    loss = torch.zeros(())
    for _ in range(config.epochs):
        order = torch.randperm(len(pooled))
        for chosen in order[: per_epoch * config.batch_size].split(config.batch_size):
            drawn = [captions[i][torch.randint(len(captions[i]), ())] for i in chosen.tolist()]
            scale = log_scale.exp().clamp(max=100)
            image = F.normalize(linear(pooled[chosen]), dim=-1)
            loss = info_nce(scale * image @ texts[torch.stack(drawn)].t())
            if config.names:
                at = torch.randint(len(single), (config.batch_size,))
                dense = F.normalize(linear(single[at]), dim=-1)
                loss = loss + config.names * F.cross_entropy(scale * dense @ names.t(), soft[at])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    backbone.temperature = float(1 / log_scale.detach().exp().clamp(max=100))
    weight = linear.weight.detach() / std
    parts = {
        "weight": weight,
        "bias": linear.bias.detach() - weight @ mean,
        "text_centre": centre,
        "class_texts": names,
    }
    # Half precision, as the weights are kept on disk: a loaded backbone is then the trained one.
    backbone.set_alignment(**{name: part.half().float() for name, part in parts.items()})
    return {"loss": loss.item(), "temperature": backbone.temperature}


def softmax_pixels(dense: Tensor, texts: Tensor) -> float:
    """Effective share of the pixels that the softmax of Eq. 3 spreads over, averaged over images.

    The exponential of its entropy, divided by the number of pixels: 1 is flat, 1/N saturated.

    Args:
        dense: (n, C, h, w) dense features.
        texts: (n, C) embeddings, of the text of each image.
    """
    scores = torch.einsum("nc,nchw->nhw", texts, dense).flatten(1)
    entropy = torch.special.entr(scores.softmax(dim=1)).sum(dim=1)
    return float(entropy.exp().mean() / scores.shape[1])


def save_alignment(path: str | os.PathLike, backbone: Lite, *, run: str = "") -> Path:
    """Write the alignment (float16) as ``lite`` loads it."""
    state = {key: value.cpu().half() for key, value in backbone.alignment().items()}
    return write_tensors(path, state, {"temperature": repr(backbone.temperature), "run": run})


@torch.inference_mode()
def retrieval(backbone: Lite, features: np.ndarray, texts: Tensor) -> dict[str, float]:
    """Image-to-text recall at 1 and 5, in percent, of pooled dense features.

    Args:
        backbone: The backbone whose alignment is measured.
        features: (n, F, h, w) trunk features of the images.
        texts: (n, C) embeddings, of the one caption of each image.
    """
    pooled = torch.from_numpy(np.asarray(features, dtype=np.float32).mean(axis=(2, 3)))
    image = F.normalize(backbone.project(pooled[:, :, None, None])[:, :, 0, 0], dim=-1)
    return recall(image @ F.normalize(texts, dim=-1).t())
