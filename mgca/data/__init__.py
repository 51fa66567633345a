"""What is trained on and evaluated on: captions, masks, features.

:mod:`~mgca.data.scenes` is the drawn world, :mod:`~mgca.data.shards` reads webdataset shards, and
:mod:`~mgca.data.benchmarks` knows the eight sets of the paper.
"""
