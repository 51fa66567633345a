"""The optimiser of a run, its rate at each step, and the check that its gradient is finite."""

import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mgca.config import TrainConfig


class NotFinite(RuntimeError):
    """The loss or its gradient is not a finite number."""


class Schedule(Protocol):
    """The settings that a learning rate depends on, which every configuration of a training has."""

    learning_rate: float
    warmup: float


def learning_rate(config: Schedule, step: int, steps: int) -> float:
    """Rate of a step (from 0): a linear warm-up, then cosine decay to 0."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * done)) / 2


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, or Adam with its weight decay in the gradient (choice D9)."""
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def finite_gradient(
    model: nn.Module, loss: Tensor, step: int, advice: str, *, overflows: bool = False
) -> float:
    """Norm of the gradient of a step, after checking it and the loss.

    Args:
        model: The network that is trained, with its gradients.
        loss: Loss of the step.
        step: Number of the step, for the message.
        advice: Advice to the reader of the message.
        overflows: Whether a gradient may be infinite, as in float16, whose scaler leaves such a
            step out.

    Raises:
        NotFinite: If one of them is NaN or infinite, with the advice.
    """
    gradient = gradient_norm(model.parameters())
    if not (math.isfinite(loss.item()) and (math.isfinite(gradient) or overflows)):
        raise NotFinite(
            f"step {step}: the loss is {loss.item()} and its gradient's norm {gradient}. {advice}"
        )
    return gradient


def gradient_norm(parameters: Iterable[nn.Parameter]) -> float:
    """Norm of the gradient in all parameters; what a term left out would have learned has none."""
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms)).item()


def generator(*numbers: int) -> torch.Generator:
    """A random generator seeded by some numbers alone, such as a seed and a step.

    So a resumed run needs no state of a generator.
    """
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> 1))
