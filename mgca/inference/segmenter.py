"""What a model that segments offers, and the embedded image that it takes classes for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image
from torch import Tensor

from mgca.config import BACKGROUND, SegmentConfig
from mgca.inference.score_map import ScoreMap
from mgca.inference.windows import Box, pad_before
from mgca.prompts import ClassWords
from mgca.utils.images import ImageSource

if TYPE_CHECKING:
    from mgca.backbone import Backbone
    from mgca.decoder import GatedConvDecoder
    from mgca.inference.segmentation import Segmentation


@dataclass(frozen=True)
class Embedded:
    """The pixel embeddings of an image: computed once, whatever the classes and units.

    Attributes:
        image: The upright RGB original.
        size: (h, w) it was resized to.
        boxes: Windows on the resized image, each padded at the bottom and right to ``padded``.
        padded: (height, width) of a window as it went through the network.
        pixels: (n, C, H', W') pixel embeddings of the windows.
        blend: How windows that overlap are joined, as in :class:`~mgca.config.SegmentConfig`.
        padding: Where the windows' padding lies, likewise.
        affinity: (n, A, H', W') map that units are grouped in; None for the pixel embeddings.
    """

    image: Image.Image
    size: tuple[int, int]
    boxes: list[Box]
    padded: tuple[int, int]
    pixels: Tensor
    blend: str = "equal"
    padding: str = "corner"
    affinity: Tensor | None = None

    @property
    def grouped(self) -> dict[str, Tensor]:
        """The map as an argument of :meth:`Segmenter.scores`; empty where there is none."""
        return {} if self.affinity is None else {"affinity": self.affinity}

    @property
    def before(self) -> tuple[int, int]:
        """Pixels of padding (above, left) before the first of each window."""
        box = self.boxes[0]
        return (
            pad_before(box.height, self.padded[0], self.padding),
            pad_before(box.width, self.padded[1], self.padding),
        )


class Segmenter(Protocol):
    """Interface of a model that segments: of :class:`mgca.model.Model` and of baselines.

    Attributes:
        backbone: Frozen encoders.
        decoder: The trained decoder, or None.
        config: Sliding window and units.
        trained: JSON data that names what is trained; None if nothing is.
    """

    backbone: "Backbone"
    decoder: "GatedConvDecoder | None"
    config: SegmentConfig

    @property
    def trained(self) -> list[Any] | None: ...

    def embed(self, image: ImageSource) -> Embedded:
        """Pixel embeddings of an image."""

    def texts(self, classes: ClassWords) -> Tensor:
        """Embeddings (K, C) of the classes, or (W, C) of their words."""

    def scores(
        self, pixels: Tensor, texts: Tensor, side: int | None, affinity: Tensor | None = ...
    ) -> ScoreMap:
        """Similarities of pixel embeddings (n, C, H', W') to texts (K, C)."""

    def segment(
        self,
        image: ImageSource | Embedded,
        classes: ClassWords,
        meta_points: int | None = ...,
        background: float | Mapping[str, float] | None = ...,
        *,
        rule: str = ...,
    ) -> "Segmentation":
        """The segmentation of an image: a class for every pixel."""


def check_background(
    classes: Collection[str], background: float | Mapping[str, float] | None
) -> None:
    """Refuse a threshold that can give no background beside these classes.

    Args:
        classes: Names of the classes, or their words by name, as
            :func:`mgca.prompts.check_words` gives them.
        background: Threshold of all classes, or of each by its name.

    Raises:
        ValueError: If a background is asked for that no threshold can give.
    """
    if background is None:
        return
    each = background if isinstance(background, Mapping) else {"": background}
    for name, threshold in each.items():
        if name and (name not in classes or name == BACKGROUND):
            raise ValueError(f"a threshold for {name!r}, which is not one of the classes")
        if not 0 <= threshold <= 1:
            raise ValueError(f"background is a probability in [0, 1], not {threshold}")
    if BACKGROUND in classes:
        words = classes[BACKGROUND] if isinstance(classes, Mapping) else (BACKGROUND,)
        if tuple(words) == (BACKGROUND,):
            raise ValueError(
                "the class 'background' is the threshold's own; do not ask for it, or say by which "
                "words it is known: background|sky|wall"
            )
        if len(classes) == 1:
            raise ValueError("there is no class beside the background")
