"""Training the decoder: one trainer, and where its batches come from.

:class:`~mgca.training.trainer.Trainer` holds the loop, :mod:`~mgca.training.sources` the data at
hand and the shards, :mod:`~mgca.training.step` the one step.
"""
