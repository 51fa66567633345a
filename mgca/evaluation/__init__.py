"""Evaluation on images with masks, by one loop.

:func:`~mgca.evaluation.evaluate.evaluate` is the loop, :mod:`~mgca.evaluation.metrics` counts, and
:mod:`~mgca.evaluation.results` keeps tables.
"""
