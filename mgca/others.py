"""GroupViT and the published TCL as models like any other: the same windows, classes and units."""

from torch import Tensor

from mgca.config import SegmentConfig
from mgca.groupvit import GroupViT
from mgca.model import Model
from mgca.score_map import ScoreMap
from mgca.tcl.published import TCLSegmenter


class GroupViTModel(Model):
    """GroupViT, whose groups are its units: each position takes the scores of its group.

    Args:
        backbone: As :func:`mgca.groupvit.load_groupvit` loads it.
        published: Score groups as the published numbers were measured (two softmaxes), rather than
            by their cosines as every other method here.
        config: As for :class:`~mgca.model.Model`.
    """

    def __init__(
        self,
        backbone: GroupViT,
        *,
        published: bool = False,
        config: SegmentConfig | None = None,
    ) -> None:
        super().__init__(backbone, None, config)
        self.published = published

    def features(self, windows: Tensor) -> Tensor:
        """The windows themselves: groups are found when they are scored."""
        return windows

    def pixels(self, features: Tensor) -> Tensor:
        return features

    def scores(self, pixels: Tensor, texts: Tensor, side: int | None) -> ScoreMap:
        """Scores of the groups of windows (n, 3, H, W).

        Raises:
            ValueError: If meta-points are asked for: there are no pixel embeddings to group.
        """
        if side is not None:
            raise ValueError("GroupViT has groups of its own, and no pixel embeddings to group")
        if self.published:
            return self.backbone.published(pixels, texts)
        return self.backbone.score_map(pixels, texts)


class TCLModel(Model):
    """TCL with its published decoder: pixel embeddings at four times the patches' resolution.

    Args:
        segmenter: As :func:`mgca.tcl.published.load_tcl` loads it.
        config: As for :class:`~mgca.model.Model`.

    Raises:
        ValueError: If CLIP's own maps are to be mixed in, which units have no place for.
    """

    def __init__(self, segmenter: TCLSegmenter, *, config: SegmentConfig | None = None) -> None:
        if segmenter.kp_weight:
            raise ValueError("kp_weight mixes maps, not units: 0, as in the published tables")
        super().__init__(segmenter.backbone, None, config)
        self.segmenter = segmenter
        self.backbone.mean, self.backbone.std = segmenter.mean, segmenter.std

    @property
    def sigmoid(self) -> tuple[float, float]:
        """``w`` and ``b`` of TCL's scores ``sigmoid(w cos + b)``."""
        return self.segmenter.w, self.segmenter.b

    def features(self, windows: Tensor) -> Tensor:
        """The windows themselves: decoding is part of :meth:`pixels`."""
        return windows

    def pixels(self, features: Tensor) -> Tensor:
        return self.segmenter.pixels(features)
