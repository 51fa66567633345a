"""GroupViT and the published TCL as models like any other: the same windows, classes and units."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mgca.config import BACKGROUND, SegmentConfig
from mgca.evaluation.baselines.groupvit import GroupViT
from mgca.evaluation.baselines.tcl import TCLSegmenter
from mgca.inference.score_map import ScoreMap
from mgca.inference.scoring import Rule, rules
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Embedded
from mgca.model import Model
from mgca.prompts import ClassWords, check_classes
from mgca.utils.images import ImageSource


class GroupViTModel(Model):
    """GroupViT, whose groups are its units: each position takes the scores of its group.

    Args:
        backbone: As :func:`mgca.evaluation.baselines.groupvit.load_groupvit` loads it.
        config: As for :class:`~mgca.model.Model`.
    """

    def __init__(self, backbone: GroupViT, *, config: SegmentConfig | None = None) -> None:
        # What scores groups as its authors do is no function of cosines: see segment.
        scoring = rules() | {"groupvit": Rule(softmax=False)}
        super().__init__(backbone, None, config, scoring)
        self.config = dataclasses.replace(self.config, meta_points=None)

    def features(self, windows: Tensor) -> Tensor:
        """The windows themselves: groups are found when they are scored."""
        return windows

    def pixels(self, features: Tensor) -> Tensor:
        return features.to(next(self.backbone.parameters()).device)

    def scores(
        self, pixels: Tensor, texts: Tensor, side: int | None, affinity: Tensor | None = None
    ) -> ScoreMap:
        """Cosine similarities of the groups of windows (n, 3, H, W) to the classes.

        Raises:
            ValueError: If meta-points are asked for: there are no pixel embeddings to group.
        """
        if side is not None:
            raise ValueError("GroupViT has groups of its own, and no pixel embeddings to group")
        return self.backbone.score_map(pixels, texts)

    @torch.inference_mode()
    def segment(
        self,
        image: ImageSource | Embedded,
        classes: ClassWords,
        meta_points: int | None = None,
        background: float | Mapping[str, float] | None = None,
        temperature: float | None = None,
        rule: str = "softmax",
    ) -> Segmentation:
        """As :meth:`Model.segment`; ``rule="groupvit"`` scores groups as its authors do.

        Its background is a matter of groups and not of pixels, and its two softmaxes are at the
        temperature of the training: :func:`mgca.evaluation.baselines.groupvit.published_scores`.
        """
        if rule != "groupvit":
            return super().segment(image, classes, meta_points, background, temperature, rule)
        if isinstance(classes, Mapping) or isinstance(background, Mapping):
            raise ValueError("its authors' rule takes one word a class and one threshold")
        names = check_classes(classes)
        embedded = image if isinstance(image, Embedded) else self.embed(image)
        scores = self.backbone.published(embedded.pixels, self.texts(names), background)
        return Segmentation(embedded, names if background is None else (BACKGROUND, *names), scores)


class TCLModel(Model):
    """TCL with its published decoder: pixel embeddings at four times the patches' resolution.

    Args:
        segmenter: As :func:`mgca.evaluation.baselines.tcl.load_tcl` loads it.
        config: As for :class:`~mgca.model.Model`.

    Raises:
        ValueError: If CLIP's own maps are to be mixed in, which units have no place for.
    """

    def __init__(self, segmenter: TCLSegmenter, *, config: SegmentConfig | None = None) -> None:
        if segmenter.kp_weight:
            raise ValueError("kp_weight mixes maps, not units: 0, as in the published tables")
        super().__init__(segmenter.backbone, None, config, rules((segmenter.w, segmenter.b)))
        self.segmenter = segmenter
        self.backbone.mean, self.backbone.std = segmenter.mean, segmenter.std

    def features(self, windows: Tensor) -> Tensor:
        """The windows themselves: decoding is part of ``pixels``."""
        return windows

    def pixels(self, features: Tensor) -> Tensor:
        return self.segmenter.pixels(features.to(next(self.backbone.parameters()).device))

    @property
    def networks(self) -> list[nn.Module]:
        return [self.backbone, self.segmenter.block, self.segmenter.decoder]

    @property
    def trained(self) -> list:
        return [self.segmenter.digest, self.segmenter.w, self.segmenter.b]
