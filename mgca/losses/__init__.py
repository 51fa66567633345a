"""What training minimises: the three levels (Eq. 2 to 7), their sum (Eq. 8), and TCL's objective.

:mod:`~mgca.losses.levels` states the levels, :mod:`~mgca.losses.objective` the objective that the
trainer is given, and :mod:`~mgca.losses.lean` the same levels for large batches.
"""

from mgca.losses.levels import (
    area_in_pixels,
    info_nce,
    object_loss,
    pixel_loss,
    rank_in_region,
    region_embeddings,
    region_loss,
    similarity,
)
from mgca.losses.objective import logits_of, losses_of, mgca_loss, plain_loss

__all__ = [
    "area_in_pixels",
    "info_nce",
    "logits_of",
    "losses_of",
    "mgca_loss",
    "object_loss",
    "pixel_loss",
    "plain_loss",
    "rank_in_region",
    "region_embeddings",
    "region_loss",
    "similarity",
]
