"""From pixel embeddings to a segmentation and its files.

:mod:`~mgca.inference.windows` cuts an image, :mod:`~mgca.inference.score_map` puts scores together,
and :class:`~mgca.inference.segmentation.Segmentation` is the result.
"""
