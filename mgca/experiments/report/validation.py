"""What embeddings of scenes say of their pixels, by the exact masks: measures of the book's pages.

A map of scores is coarser than a mask; it is enlarged to the mask before it is compared.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional as F

from mgca.backbone.base import Backbone
from mgca.backbone.last_block import LAST_BLOCKS
from mgca.data.masks import MaskedSet
from mgca.data.scenes import CLASSES, THINGS
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.metrics import Confusion, Contours, count_components
from mgca.experiments.report.words import MASKCLIP, PLAIN
from mgca.inference.segmenter import Embedded
from mgca.model import Model
from mgca.utils.images import to_tensor

_SEEN = 0.01  # share of a scene below which a content is not asked for
_ATTENDS = {
    "trained": "all, as trained",
    "self": "itself",
    "correlative": "like queries and like keys",
    "queries": "like queries",
    "neighbours": "like keys, near by",
}
_FOUND = 0.1  # share of a content that that must be correct for it not to be lost


def trunk_features(backbone: Backbone, images: Sequence[Image.Image]) -> Tensor:
    """(n, F, h, w) features of the frozen convolutions below the small CLIP."""
    tensors = torch.stack([to_tensor(image, backbone.mean, backbone.std) for image in images])
    return torch.cat([backbone.trunk.features(part) for part in tensors.split(30)])


def similarities(pixels: Tensor, names: Tensor) -> Tensor:
    """Cosines (B, K, h, w) of pixel embeddings (B, C, h, w) with unit vectors (K, C) of words."""
    return torch.einsum("kc,nchw->nkhw", names, F.normalize(pixels, dim=1))


def correct_pixels(scores: Tensor, masks: np.ndarray) -> float:
    """Pixel accuracy: percent of all pixels whose word of the highest score is right.

    All pages of the book count so, over all pixels at the size of the masks.

    Args:
        scores: (B, K, h, w).
        masks: (B, H, W), index into the K words.
    """
    found = enlarged(scores, masks.shape[1:]).argmax(dim=1)
    return 100 * float((found.numpy() == masks).mean())


def correct_at(
    side: int,
    backbone: Backbone,
    pictures: Sequence[Image.Image],
    masks: np.ndarray,
    names: Tensor,
) -> float:
    """Percent of the pixels labelled correctly where scenes are enlarged or reduced.

    Args:
        side: The new side of the scenes.
        backbone: The encoder, without a decoder.
        pictures: The scenes.
        masks: (B, H, W), index into the words.
        names: (K, C) unit vectors of the words.
    """
    resized = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
    inputs = [to_tensor(image, backbone.mean, backbone.std) for image in resized]
    return correct_pixels(similarities(backbone.dense(torch.stack(inputs)), names), masks)


def enlarged(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps (B, K, h, w) at the size of a mask."""
    return F.interpolate(maps, tuple(shape), mode="bilinear")


def inside_beats_outside(score: Tensor, inside: np.ndarray) -> float:
    """Percent of the pairs of a pixel inside and one outside in which the one inside scores higher.

    Args:
        score: (h, w).
        inside: (H, W) bool, somewhere true and somewhere false.
    """
    ranks = rankdata(enlarged(score[None, None], inside.shape)[0, 0].numpy())[inside.ravel()]
    size = inside.sum()
    return 100 * float((ranks.sum() - size * (size + 1) / 2) / (size * (~inside).sum()))


def higher_inside(score: Tensor, inside: np.ndarray) -> float:
    """By how much the mean of a map (h, w) is higher inside a mask (H, W) than outside."""
    fine = enlarged(score[None, None], inside.shape)[0, 0]
    return (fine[inside].mean() - fine[~inside].mean()).item()


def found_by(
    directions: Mapping[str, Tensor], features: Tensor, masks: Sequence[np.ndarray]
) -> dict[str, float]:
    """How well directions in feature space point to what words name in scenes.

    Args:
        directions: (F,) by word, of :data:`mgca.data.scenes.CLASSES`.
        features: (B, F, h, w).
        masks: (H, W) each, index into ``CLASSES``.

    Returns:
        Mean of :func:`inside_beats_outside` over words and scenes, for ``"thing"`` and ``"stuff"``.
    """
    found: dict[str, list[float]] = {"thing": [], "stuff": []}
    for word, direction in directions.items():
        for feature, mask in zip(features, masks, strict=True):
            inside = mask == CLASSES.index(word)
            if _SEEN < inside.mean() < 1:
                score = torch.einsum("c,chw->hw", direction, feature)
                kind = "thing" if word in THINGS else "stuff"
                found[kind].append(inside_beats_outside(score, inside))
    return {kind: float(np.mean(values)) for kind, values in found.items()}


#: What makes of the features (1, F, h, w) of an image its pixel embeddings (1, C, h, w) and an
#: embedding (C,) of the whole image, or None: then it is their mean.
Encoder = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def encoders(
    clip: Backbone, backbone: Backbone, decoders: Mapping[str, GatedConvDecoder]
) -> dict[str, Encoder]:
    """The small CLIP as it is, with its last layer changed, and with decoders on top.

    Args:
        clip: The backbone as it was trained.
        backbone: The backbone with its last layer changed.
        decoders: Trained decoders by title.
    """

    def plain(trunk: Tensor) -> tuple[Tensor, Tensor]:
        # What CLIP itself takes for the image is its class token.
        return clip.project(clip.from_trunk(trunk)), clip.model.visual(trunk)[0]

    def with_decoder(decoder: Callable[[Tensor], Tensor]) -> Encoder:
        return lambda trunk: (decoder(backbone.project(backbone.from_trunk(trunk))), None)

    changed = {MASKCLIP: with_decoder(lambda dense: dense)}
    trained = {title: with_decoder(decoder) for title, decoder in decoders.items()}
    return {PLAIN: plain, **changed, **trained}


def granularity(
    encoders: Mapping[str, Encoder],
    trunks: Tensor,
    masks: Sequence[np.ndarray],
    names: Tensor,
) -> pd.DataFrame:
    """Percent of right answers to questions about whole images, contents and pixels.

    Args:
        encoders: By title, as :func:`encoders` gives them.
        trunks: (B, F, h, w).
        masks: (H, W) each, index into the words.
        names: (K, C) unit vectors of the words.

    Returns:
        A row for each encoder with the columns ``"image"``, percent of the images whose most
        similar word is in them; ``"region"``, percent of the pixels that lie in a content to whose
        mean its own word is the most similar; and ``"pixel"``, percent of the pixels to which it
        is.
    """
    rows = []
    for mask, trunk in zip(masks, trunks.split(1), strict=True):
        for title, encode in encoders.items():
            coarse, whole = encode(trunk)
            pixels = enlarged(coarse, mask.shape)[0].flatten(1)  # (C, N)
            whole = pixels.mean(dim=1) if whole is None else whole
            rows.append((title, "image", float((names @ whole).argmax().item() in mask)))
            found = enlarged(similarities(coarse, names), mask.shape)[0].argmax(dim=0).flatten()
            for number in np.unique(mask):
                within = torch.from_numpy(mask.ravel() == number)
                mean = pixels[:, within].mean(dim=1)
                share, right = within.float().mean(), (found[within] == number).float().mean()
                named = float((names @ mean).argmax() == number)
                rows.append((title, "region", float(share * named)))
                rows.append((title, "pixel", float(share * right)))
    table = pd.DataFrame(rows, columns=["encoder", "asked", "right"])
    sums = table.groupby(["encoder", "asked"])["right"].sum().unstack()
    means = 100 * sums / len(masks)
    return means.loc[list(encoders), ["image", "region", "pixel"]]


def words_used(
    model: Model, embedded: Sequence[Embedded], masks: Sequence[np.ndarray], points: int | None
) -> tuple[float, float]:
    """Mean number of words that a segmentation uses, and the percentage of contents among them.

    Args:
        model: The model that names the pixels.
        embedded: Scenes as the model has embedded them.
        masks: (H, W) each, index into :data:`mgca.data.scenes.CLASSES`.
        points: Number of meta-points; None: the pixel unit.
    """
    used, share = [], []
    for scene, mask in zip(embedded, masks, strict=True):
        labels = np.unique(model.segment(scene, CLASSES, points).labels.numpy())
        used.append(len(labels))
        share.append(np.isin(np.unique(mask), labels).mean())
    return float(np.mean(used)), 100 * float(np.mean(share))


def compared(
    named: Mapping[str, Sequence[np.ndarray]], masks: Sequence[np.ndarray], classes: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Over- and under-segmentation of several segmentations of the same scenes.

    Args:
        named: Labels (H, W) of the scenes by title.
        masks: (H, W) each.
        classes: Number of classes.

    Returns:
        A row for each title with mIoU, boundary IoU, connected regions over those of the masks, and
        the percentage of contents of which less than a tenth of the pixels is correct; and a
        row for each scene with the percentage of its pixels that are right by title.
    """
    rows, right = {}, {}
    for title, labels in named.items():
        confusion, contours, lost = Confusion(classes), Contours(classes), []
        for own, truth in zip(labels, masks, strict=True):
            confusion.add(own, truth)
            contours.add(own, truth)
            lost += [(own[truth == k] == k).mean() < _FOUND for k in np.unique(truth)]
        rows[title] = {
            "mIoU (%)": confusion.miou,
            "boundary IoU (%)": contours.boundary_iou,
            "regions / those of the mask": contours.components,
            "contents lost (%)": 100 * np.mean(lost),
        }
        right[title] = [
            100 * (own == truth).mean() for own, truth in zip(labels, masks, strict=True)
        ]
    return pd.DataFrame.from_dict(rows, orient="index"), pd.DataFrame(right)


def count_regions(named: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """How many connected regions of one class images have, as text.

    Args:
        named: For each image by name its labels (H, W) by title.
    """
    texts = []
    for name, labels in named.items():
        regions = (f"{count_components(own)} ({title})" for title, own in labels.items())
        texts.append(f"{name} {', '.join(regions)}")
    return "; ".join(texts)


class Patches:
    """The patches of scenes, and what embeddings say of them.

    Attributes:
        named: (B, side * side) class at the centre of each patch.
    """

    def __init__(self, masks: Sequence[np.ndarray], side: int) -> None:
        """Take the scenes apart.

        Args:
            masks: (H, H) each.
            side: Patches along a side of a scene.
        """
        self.masks = masks
        step = masks[0].shape[0] // side
        centres = np.stack([mask[step // 2 :: step, step // 2 :: step] for mask in masks])
        self.named = torch.from_numpy(centres).long().flatten(1)

    def alike(self, embeddings: Tensor) -> tuple[float, float]:
        """Mean cosine of two patches (B, N, C) of one content, and of two of different ones."""
        same = self.named[:, :, None] == self.named[:, None, :]
        others = ~torch.eye(same.shape[1], dtype=torch.bool)
        unit = F.normalize(embeddings, dim=-1)
        cosines = unit @ unit.transpose(1, 2)
        return cosines[same & others].mean().item(), cosines[~same].mean().item()

    def labelled(self, embeddings: Tensor, texts: Tensor) -> tuple[float, float]:
        """Percent of the pixels that are labelled correctly, and of the patches that are labelled
        as anything in the scene.

        Args:
            embeddings: (B, N, C).
            texts: (K, C) unit vectors of the words.
        """
        side = round(embeddings.shape[1] ** 0.5)
        scores = similarities(embeddings.transpose(1, 2).unflatten(2, (side, side)), texts)
        pairs = zip(scores.argmax(dim=1).numpy(), self.masks, strict=True)
        somewhere = float(np.mean([np.isin(words, mask) for words, mask in pairs]))
        return correct_pixels(scores, np.stack(self.masks)), 100 * somewhere


def last_blocks(embeddings: Mapping[str, Tensor], patches: Patches, texts: Tensor) -> pd.DataFrame:
    """Choices of the last block, what they are, and what they know of patches.

    Args:
        embeddings: (B, N, C) of the patches by name of the choice.
        patches: The patches.
        texts: (K, C) unit vectors of the words.
    """
    rows = {}
    for name, own in embeddings.items():
        kind, (within, between) = LAST_BLOCKS[name], patches.alike(own)
        rows[name] = {
            "attends to": _ATTENDS[kind.attention],
            "residual, MLP": "yes" if kind.residual else "no",
            "cosine, same content": round(within, 2),
            "cosine, different": round(between, 2),
            "pixels labelled correctly, %": round(patches.labelled(own, texts)[0], 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("last block")


def segmented(
    models: Mapping[str, tuple[Model, int | None, Mapping[str, float]]],
    data: MaskedSet,
    images: Sequence[Image.Image],
) -> dict[str, list[np.ndarray]]:
    """Labels (H, W) of images of a set by the title of a model.

    Args:
        models: Model, unit, and threshold and temperature of the background, by title, as
            :func:`mgca.experiments.report.pictures.models_at_hand` gives them.
        data: The set.
        images: Some of its images.
    """
    named = {}
    for title, (model, unit, background) in models.items():
        options = background if data.background else {}
        results = (model.segment(image, data.classes, unit, **options) for image in images)
        named[title] = [result.labels.numpy() for result in results]
    return named
