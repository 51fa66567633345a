"""Many images, one after the other: the next are read while one is segmented."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from mgca.config import grid_side
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Segmenter, check_background
from mgca.prompts import ClassWords, check_words
from mgca.utils.images import ImageSource, open_image


@dataclass(frozen=True)
class ImageFailure:
    """An image that could not be segmented.

    Attributes:
        image: The image as it was given.
        error: The error that it failed with.
    """

    image: ImageSource
    error: Exception


def segment_all(
    model: Segmenter,
    images: Iterable[ImageSource],
    classes: ClassWords,
    *,
    meta_points: int | None = 36,
    background: float | Mapping[str, float] | None = None,
    rule: str = "softmax",
    workers: int = 1,
) -> Iterator[Segmentation | ImageFailure]:
    """Segment images in their order; whatever goes wrong with one does not stop the others.

    Images are taken from the iterable as they are needed, and no more than ``workers`` of them
    are decoded ahead, so that memory does not grow with their number.

    Args:
        model: The model, as :func:`mgca.load` loads it.
        images: The images, each whatever :func:`mgca.utils.images.open_image` takes.
        classes: Class names, or their words by name, as for :meth:`mgca.model.Model.segment`.
        meta_points: Square number of meta-points per window, or None for the pixel unit.
        background: Threshold of the background, as for :meth:`mgca.model.Model.segment`.
        rule: Name of the rule that makes probabilities, likewise.
        workers: Number of threads that read and decode ahead; 0 reads each image when its turn
            comes.

    Yields:
        One result per image, in order: its segmentation, or why there is none.

    Raises:
        ValueError, TypeError: At the call, for classes or numbers that cannot be, and for one
            path in place of several.

    >>> import numpy as np
    >>> import mgca
    >>> images = [np.zeros((32, 48, 3), np.uint8), b"no picture"]
    >>> for result in segment_all(mgca.load("scenes"), images, ["sky", "grass"]):
    ...     print(type(result).__name__)
    Segmentation
    ImageFailure
    """
    names = check_words(classes)
    check_background(names, background)
    if meta_points is not None:
        grid_side(meta_points)
    if workers < 0:
        raise ValueError(f"workers must not be negative, not {workers}")
    if isinstance(images, (str, os.PathLike, bytes)):
        raise TypeError(f"expected several images, not one: [{images!r}]?"[:200])
    how = {"meta_points": meta_points, "background": background, "rule": rule}
    return _segment_all(model, images, names, how, workers)


def _segment_all(model, images, classes, how, workers):
    for image, opened in _opened(images, workers):
        if not isinstance(opened, Exception):
            try:
                opened = model.segment(opened, classes, **how)
            except Exception as error:  # whatever it is, it is this image's
                opened = error
        yield ImageFailure(image, opened) if isinstance(opened, Exception) else opened


def _opened(
    images: Iterable[ImageSource], workers: int
) -> Iterator[tuple[ImageSource, Image.Image | Exception]]:
    """The images, opened ahead by threads; decoders release the interpreter's lock."""
    if not workers:
        yield from map(_open, images)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="mgca-images") as pool:
        waiting: deque[Future] = deque()
        try:
            for image in images:
                waiting.append(pool.submit(_open, image))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also where the caller stops early
            for future in waiting:
                future.cancel()


def _open(image: ImageSource) -> tuple[ImageSource, Image.Image | Exception]:
    try:
        return image, open_image(image)
    except Exception as error:
        return image, error
