"""Which pixels MGCA takes for positive and negative (Eq. 3, 6 and 7), and what they truly show.

:mod:`mgca.losses.levels` computes with these pixels; here are their positions, to be drawn. Of
scenes the masks are exact, so that they can be compared with what a text names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mgca.data.scenes import CLASSES, TEST_SEED, WorldConfig, captions, compose, render
from mgca.data.scenes.scene import TELLING, random
from mgca.losses.levels import area_in_pixels
from mgca.model import Model
from mgca.utils.images import to_tensor, training_image


def kept(scores: Tensor, area: float) -> Tensor:
    """The mask ``M_ij(a)`` of Eq. 3: the ``max(1, floor(a N))`` most similar pixels.

    Args:
        scores: (..., N) similarities.
        area: Share of the pixels that is kept.

    Returns:
        (..., N) bool, of the pixels that :func:`mgca.losses.levels.region_embeddings` averages.
    """
    index = scores.topk(area_in_pixels(area, scores.shape[-1]), dim=-1, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, True)


def by_rank(scores: Tensor, values: Tensor) -> Tensor:
    """What ``values`` are at the pixels in the order of falling ``scores``.

    Args:
        scores: (..., N) similarities.
        values: (..., N) values of the same pixels.

    Returns:
        (..., N); rank ``r`` of Eq. 7, which counts from 1, is at ``r - 1``.
    """
    return values.gather(-1, scores.argsort(dim=-1, descending=True, stable=True))


@dataclass(frozen=True)
class PhotoPairs:
    """Photographs with a caption each.

    Attributes:
        images: B square images.
        captions: A caption for each image.
        names: A word for each image, for the axes of figures.
    """

    images: list[Image.Image]
    captions: list[str]
    names: list[str]


def photo_pairs(size: int = 224) -> PhotoPairs:
    """Seven photographs of scikit-image and scikit-learn, with captions written for the book.

    Args:
        size: Side in pixels of the square that is cut from the middle of each.

    Raises:
        ImportError: If one of these two is missing: the extra ``book`` has both.
    """
    photographs = {
        "cat": ("a cat lying on a blanket", _photograph("chelsea")),
        "cup": ("a cup of coffee on a wooden table", _photograph("coffee")),
        "woman": ("a smiling woman in an orange space suit", _photograph("astronaut")),
        "motorcycle": ("a red motorcycle in a garage", _photograph("stereo_motorcycle")),
        "rocket": ("a rocket rises into the sky", _photograph("rocket")),
        "temple": ("a temple with red walls under the sky", _photograph("china.jpg")),
        "flower": ("a pink flower in the garden", _photograph("flower.jpg")),
    }
    return PhotoPairs(
        images=[training_image(photograph, size) for _, photograph in photographs.values()],
        captions=[caption for caption, _ in photographs.values()],
        names=list(photographs),
    )


def worded_photographs() -> dict[str, tuple[np.ndarray, list[str]]]:
    """The photographs of the quickstart by name, each with the words that are asked for there.

    Raises:
        ImportError: As :func:`photo_pairs`.
    """
    return {
        name: (photograph, words.split())
        for name, (photograph, words) in {
            "chelsea": (_photograph("chelsea"), "cat sofa wall dog"),
            "coffee": (_photograph("coffee"), "cup spoon table coffee plate"),
            "astronaut": (_photograph("astronaut"), "woman flag spacecraft spacesuit wall"),
            "motorcycle": (_photograph("stereo_motorcycle"), "motorcycle wall floor shelf helmet"),
            "rocket": (_photograph("rocket"), "rocket sky smoke fire tower"),
            "temple": (_photograph("china.jpg"), "temple sky tree people pavement"),
            "flower": (_photograph("flower.jpg"), "flower leaf grass bee"),
        }.items()
    }


def _photograph(name: str) -> np.ndarray:
    """(H, W, 3) uint8: a photograph of scikit-image, or a file of scikit-learn."""
    try:
        from skimage import data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError(f"the photographs need it ({error}): pip install 'mgca[book]'") from error

    if "." in name:
        return load_sample_image(name)
    found = getattr(data, name)()
    return found[0] if isinstance(found, tuple) else found  # a stereo pair and its disparity


@dataclass(frozen=True)
class ScenePairs:
    """Drawn scenes with a caption each and the exact mask that no training sees.

    Attributes:
        images: B images, H x W.
        captions: A caption for each image.
        masks: (B, H, W) uint8, index into :data:`mgca.data.scenes.CLASSES`.
    """

    images: list[Image.Image]
    captions: list[str]
    masks: np.ndarray


def scene_pairs(count: int, seed: int = TEST_SEED) -> ScenePairs:
    """The first scenes of a seed, by default of one that nothing was trained on.

    Args:
        count: Number of scenes.
        seed: Seed of the scenes.

    Raises:
        ValueError: If ``count`` is below 1, or the seed is negative.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1")
    config = WorldConfig()
    scenes = [compose(config, seed, index) for index in range(count)]
    drawn = [render(config, scene) for scene in scenes]
    return ScenePairs(
        images=[Image.fromarray(image) for image, _ in drawn],
        captions=[
            captions(config, scene, random(seed, TELLING, scene.index), 1)[0] for scene in scenes
        ],
        masks=np.stack([mask for _, mask in drawn]),
    )


def frozen_features(model: Model, images: Sequence[Image.Image]) -> Tensor:
    """Features (B, F, h, w) of the frozen trunk, of images that all have one size."""
    mean, std = model.backbone.mean, model.backbone.std
    return model.features(torch.stack([to_tensor(image, mean, std) for image in images]))


def named(text: str) -> tuple[int, ...]:
    """Which of :data:`mgca.data.scenes.CLASSES` a text names, each once; colours and places
    aside."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return tuple(k for k, name in enumerate(CLASSES) if name in words)


def contents(masks: np.ndarray, side: int) -> Tensor:
    """What the pixels of Eq. 1 show: shares of their areas, by class.

    Args:
        masks: (B, H, W), index into ``CLASSES``.
        side: Pixel embeddings along a side of an image.

    Returns:
        (B, len(CLASSES), side * side) float32, of sum 1 over the classes.

    Raises:
        ValueError: If the sides of the masks are not multiples of ``side``.
    """
    height, width = masks.shape[1:]
    if height % side or width % side:
        raise ValueError(f"masks of {height} x {width} do not divide into {side} x {side} pixels")
    one_hot = F.one_hot(torch.from_numpy(masks).long(), len(CLASSES)).permute(0, 3, 1, 2)
    return F.avg_pool2d(one_hot.float(), (height // side, width // side)).flatten(2)


def described(shares: Tensor, texts: Sequence[str]) -> Tensor:
    """How much of each pixel shows what a text names, for every image and text.

    Args:
        shares: (B, len(CLASSES), N) from :func:`contents`.
        texts: T texts.

    Returns:
        (B, T, N) float32, of the shape of :func:`mgca.losses.levels.similarity`.
    """
    names = torch.zeros(len(texts), len(CLASSES))
    for row, text in zip(names, texts, strict=True):
        row[list(named(text))] = 1
    return torch.matmul(names.to(shares), shares)


def cut_out(image: Image.Image, mask: Tensor, *, fade: float = 0.75) -> np.ndarray:
    """An image with all pixels but the masked ones faded to white, for figures.

    Args:
        image: A square image.
        mask: (N,) bool for its n x n = N pixel embeddings.
        fade: How far the others are faded, from 0, the image as it is, to 1, where they are white.

    Returns:
        (H, W, 3) uint8.
    """
    side = round(len(mask) ** 0.5)
    square = Image.fromarray(mask.view(side, side).numpy())
    inside = np.asarray(square.resize(image.size, Image.Resampling.NEAREST))
    picture = np.asarray(image.convert("RGB"), np.float32)
    faded = picture * (1 - fade) + 255 * fade
    return np.where(inside[..., None], picture, faded).round().astype(np.uint8)
