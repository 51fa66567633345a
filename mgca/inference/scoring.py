"""The rules that turn scores into probabilities."""

import torch
from torch import Tensor


def sigmoid_scores(cosines: Tensor, w: float | Tensor, b: float | Tensor) -> Tensor:
    """``sigmoid(w cos + b)``: how surely a pixel belongs to a text's mask, of any shape."""
    return torch.sigmoid(w * cosines + b)
