"""TCL (Cha et al., CVPR 2023): the method that MGCA is closest to, for comparison.

Two things are here. :class:`TCLObjective` trains the decoder of this project, at its scales, with
the objective of TCL instead of MGCA's: whatever differs is then the objective's doing.
:mod:`mgca.tcl.published` is the architecture as published, for the released weights.
"""

import dataclasses

from mgca.config import TrainConfig
from mgca.tcl.loss import TCLConfig, TCLObjective, sigmoid_scores

__all__ = ["TCLConfig", "TCLObjective", "sigmoid_scores", "tcl_training"]


def tcl_training(training: TrainConfig, **values: float) -> TrainConfig:
    """A training that differs from the given one in its objective alone.

    Backbone, decoder, texts, batch, steps, rate and seed stay; so do the pairs known to match,
    which are no negatives of TCL either, and a held mean.

    Args:
        training: Of a scale, such as ``load_scale("scenes").training``.
        values: Fields of :class:`TCLConfig` other than as published.

    Raises:
        ValueError: If a value is out of range.
    """
    return dataclasses.replace(training, loss=TCLConfig(**values))
