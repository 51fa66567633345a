"""Training data at the paper's scale: images and captions in webdataset shards.

Shards are tars as img2dataset writes them. :func:`find_shards` checks and counts them,
:func:`batches` streams them, in an order that is a pure function of seed and step.
"""

from mgca.data.shards.index import ShardError
from mgca.data.shards.order import StreamConfig
from mgca.data.shards.source import Shards, find_shards
from mgca.data.shards.stream import CORRUPT_LIMIT, Batch, Share, batches, steps_per_epoch

__all__ = [
    "CORRUPT_LIMIT",
    "Batch",
    "ShardError",
    "Shards",
    "Share",
    "StreamConfig",
    "batches",
    "find_shards",
    "steps_per_epoch",
]
