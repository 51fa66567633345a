"""The losses of training: the three levels (Eq. 2 to 7), their sum (Eq. 8), and TCL's objective.

:mod:`~mgca.losses.levels` states the levels, :mod:`~mgca.losses.objective` the objective that the
trainer is given, and :mod:`~mgca.losses.lean` the same levels for large batches.
"""

from mgca.config import LossConfig, ObjectiveConfig
from mgca.losses.levels import (
    area_in_pixels,
    info_nce,
    object_logits,
    object_loss,
    pixel_logits,
    pixel_loss,
    rank_in_region,
    region_embeddings,
    region_logits,
    region_loss,
    similarity,
)
from mgca.losses.objective import MGCA, Objective, make_objective, mgca_loss, objective
from mgca.losses.tcl import TCLConfig, TCLObjective

__all__ = [
    "MGCA",
    "LossConfig",
    "Objective",
    "ObjectiveConfig",
    "TCLConfig",
    "TCLObjective",
    "area_in_pixels",
    "info_nce",
    "make_objective",
    "mgca_loss",
    "object_logits",
    "object_loss",
    "objective",
    "pixel_logits",
    "pixel_loss",
    "rank_in_region",
    "region_embeddings",
    "region_logits",
    "region_loss",
    "similarity",
]
