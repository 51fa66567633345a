"""What the positives and negatives of MGCA truly show, measured on scenes whose masks are exact.

Names as in :mod:`mgca.experiments.report.correspondence`: B images with a text each, N pixel
embeddings of each image. Over the pairs of a batch means are taken batch by batch, as in training;
scenes that do not fill a last batch are left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.data.scenes import CLASSES, COLOURS, TEST_SEED, THINGS, WorldConfig, compose
from mgca.experiments.report.correspondence import (
    by_rank,
    contents,
    described,
    frozen_features,
    kept,
    named,
    scene_pairs,
)
from mgca.losses.levels import rank_in_region, region_embeddings, similarity
from mgca.model import Model
from mgca.weights.decoders import new_decoder

_THINGS = slice(0, len(THINGS))  # of the classes; the rest are stuffs
_LEAST = 20  # scenes over which a mistake is counted


@dataclass(frozen=True)
class Texts:
    """A text for each scene, and where it is true.

    Attributes:
        words: B texts.
        embeddings: (B, C).
        truth: (B, N), how much of each pixel shows what the scene's own text names.
    """

    words: list[str]
    embeddings: Tensor
    truth: Tensor

    @property
    def visible(self) -> Tensor:
        """(B,) bool: whether anything is seen of what a text names. A caption's word may be wrong,
        and then it names nothing."""
        return self.truth.sum(-1) > 0


class Scenes:
    """Scenes that nothing was trained on, as a model sees them before and after training.

    Attributes:
        images: B images.
        trained: (B, C, h, w) pixel embeddings.
        frozen: (B, C, h, w) pixel embeddings where training starts: a new decoder is upsampling and
            nothing else.
        shares: (B, classes, N), what each pixel shows, from
            :func:`mgca.experiments.report.correspondence.contents`.
        captions: A caption of each.
        single: Texts of one class each that the caption names, drawn at random.
    """

    def __init__(self, model: Model, count: int) -> None:
        """Draw scenes and embed them.

        Args:
            model: A model of the scenes scale.
            count: Number of scenes.
        """
        pairs = scene_pairs(count)
        self.backbone, self.images = model.backbone, pairs.images
        features = frozen_features(model, pairs.images)
        self.trained = model.pixels(features)
        start = Model(model.backbone, new_decoder(model.backbone))
        self.frozen = start.pixels(features)
        self.shares = contents(pairs.masks, self.trained.shape[-1])
        self.captions = self.texts(pairs.captions)
        generator = np.random.default_rng(0)
        self.single = self.texts(
            [f"a photo of a {CLASSES[generator.choice(named(text))]}" for text in pairs.captions]
        )

    def texts(self, words: list[str]) -> Texts:
        """A text for each scene, embedded."""
        truth = [described(s[None], [t])[0] for s, t in zip(self.shares, words, strict=True)]
        return Texts(words, self.backbone.encode_text(words), torch.cat(truth))

    def first(self, count: int, low: float, high: float) -> int:
        """The first scene whose caption names ``count`` contents that together are seen on a share
        of the image between ``low`` and ``high``."""
        return next(
            i
            for i, text in enumerate(self.captions.words)
            if len(named(text)) == count and low < self.captions.truth[i].mean() < high
        )


def own_scores(pixels: Tensor, texts: Tensor) -> Tensor:
    """(B, N): similarities of pixel embeddings (B, C, h, w) to each image's own text (B, C)."""
    return torch.einsum("bcn,bc->bn", pixels.flatten(2), texts)


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count - size + 1, size))


def foreign_pairs(
    pixels: Tensor, texts: Texts, shares: Tensor, batch: int, *, alpha: float, alpha_neg: float
) -> tuple[pd.DataFrame, np.ndarray]:
    """The negatives of a batch at object and at region level.

    Args:
        pixels: (B, C, h, w).
        texts: A text for each image.
        shares: (B, classes, N).
        batch: Images of a batch.
        alpha: Area of the object.
        alpha_neg: Area of the region.

    Returns:
        A row for each image and text of another, with the cosines ``"object level"`` and ``"region
        level"``, whether the text names something ``"in the image"``, and how much of it is ``"in
        the region"``; and the cosines of the pairs that belong together.
    """
    rows, positives = [], []
    others = ~torch.eye(batch, dtype=torch.bool)
    for now in _batches(len(pixels), batch):
        s = similarity(pixels[now], texts.embeddings[now])
        unit = F.normalize(texts.embeddings[now], dim=-1)
        own = s.diagonal(dim1=0, dim2=1).T[:, None]
        objects = F.normalize(region_embeddings(pixels[now], own, alpha)[:, 0], dim=-1)
        regions = F.normalize(region_embeddings(pixels[now], s, alpha_neg), dim=-1)
        truth, inside = described(shares[now], texts.words[now]), kept(s, alpha_neg)
        columns = {
            "object level": objects @ unit.T,
            "region level": torch.einsum("ijc,jc->ij", regions, unit),
            "in the image": (truth.mean(-1) > 0).float(),
            "in the region": (truth * inside).sum(-1) / inside.sum(-1),
        }
        rows.append(pd.DataFrame({k: v[others].numpy() for k, v in columns.items()}))
        positives.append(columns["object level"].diagonal())
    return pd.concat(rows, ignore_index=True), torch.cat(positives).numpy()


def shown_in_regions(pixels: Tensor, texts: Tensor, shares: Tensor, area: float) -> Tensor:
    """(B, T, classes): shares of the classes in the region of an image most like each text.

    Args:
        pixels: (B, C, h, w).
        texts: (T, C).
        shares: (B, classes, N).
        area: Area of the region.
    """
    inside = kept(similarity(pixels, texts), area).float()
    return torch.einsum("icn,iwn->iwc", shares, inside) / inside.sum(-1, keepdim=True)


def mistakes(trained: Tensor, frozen: Tensor, shares: Tensor) -> pd.DataFrame:
    """What the region for a word shows where the word is not in the image.

    Args:
        trained: (B, classes, classes) from :func:`shown_in_regions` for a text of each class.
        frozen: The same before training.
        shares: (B, classes, N).

    Returns:
        A row for each ``"word"`` and ``"content"``, most frequent first: the mean share of the
        content in the ``"region"``, so ``"before"`` training, and in the ``"image"``, over the
        images that have the content and not the word; and whether the content is a ``"thing"``.
    """
    present = shares.amax(-1) > 0.5  # at least one pixel shows mostly this
    rows = []
    for word, content in np.ndindex(len(CLASSES), len(CLASSES)):
        where = (shares[:, word].sum(-1) == 0) & present[:, content]
        if word != content and where.sum() >= _LEAST:
            rows.append(
                {
                    "word": CLASSES[word],
                    "content": CLASSES[content],
                    "region": trained[where, word, content].mean().item(),
                    "before": frozen[where, word, content].mean().item(),
                    "image": shares[where, content].mean().item(),
                    "thing": content < len(THINGS),
                }
            )
    return pd.DataFrame(rows).sort_values("region", ascending=False)


def things_in_regions(shown: Tensor, shares: Tensor) -> float:
    """How much of the regions for absent things shows things at all, on average.

    Args:
        shown: (B, classes, classes) from :func:`shown_in_regions`.
        shares: (B, classes, N).
    """
    absent = shares[:, _THINGS].sum(-1) == 0
    return shown[:, _THINGS, _THINGS].sum(-1)[absent].mean().item()


def colour_in_regions(scenes: Scenes, area: float) -> tuple[float, float, float]:
    """How far a colour in a text draws the region to things of that colour.

    Over texts of things that are not in an image which has something else of the colour.

    Args:
        scenes: The first scenes of the test seed.
        area: Area of the region.

    Returns:
        Mean share that things of the colour have of the image, of the region for the thing without
        a colour, and of that for the thing with the colour.
    """
    shares, world = scenes.shares, WorldConfig()
    shows = torch.zeros(len(shares), len(COLOURS), shares.shape[-1])  # a thing of the colour
    for i in range(len(shares)):
        for thing in compose(world, TEST_SEED, i).things:
            shows[i, list(COLOURS).index(thing.colour)] += shares[i, CLASSES.index(thing.name)]
    absent = shares[:, _THINGS].sum(-1) == 0

    def regions(texts: Sequence[str]) -> Tensor:
        return kept(similarity(scenes.trained, scenes.backbone.encode_text(list(texts))), area)

    plain = regions([f"a photo of a {thing}" for thing in THINGS])
    rows = []
    for number, colour in enumerate(COLOURS):
        coloured = regions([f"a photo of a {colour} {thing}" for thing in THINGS])
        where = absent & (shows[:, number].amax(-1) > 0.5)[:, None]
        here = shows[:, None, number]
        of_image = here.mean(-1).expand(-1, len(THINGS))[where]
        of_regions = ((here * of).sum(-1)[where] / of.sum(-1)[where] for of in (plain, coloured))
        rows.append((of_image, *of_regions))
    image, without, with_colour = (torch.cat(own).mean().item() for own in zip(*rows, strict=True))
    return image, without, with_colour


def trust(pixels: Tensor, texts: Texts, edges: np.ndarray) -> list[float]:
    """By bins of the rank, how often the pixel shows what its text, if anything, names.

    Args:
        pixels: (B, C, h, w).
        texts: A text for each image.
        edges: Edges of the bins; ranks count from 1.
    """
    right = by_rank(own_scores(pixels, texts.embeddings), texts.truth)[texts.visible].mean(0)
    pairs = zip(edges, edges[1:], strict=False)
    return [right[low - 1 : high - 1].mean().item() for low, high in pairs]


def positives_at(rank: int, pixels: Tensor, texts: Texts, batch: int) -> tuple[float, float, float]:
    """The positive pixel at a rank: its mean similarity, how hard the loss pulls at it (one minus
    the probability of the pair), and how often it shows what its text names.

    Args:
        rank: Rank of the positive among the pixels of the image, from 1.
        pixels: (B, C, h, w).
        texts: A text for each image.
        batch: Images of a batch.
    """
    rows = []
    for now in _batches(len(pixels), batch):
        s = similarity(pixels[now], texts.embeddings[now])
        own = s.diagonal(dim1=0, dim2=1).T
        positive = own.sort(-1, descending=True).values[:, rank - 1]
        z = torch.where(torch.eye(batch, dtype=torch.bool), positive[:, None], s.amax(-1))
        z = z / math.sqrt(pixels.shape[1])
        pull = 1 - (z.softmax(0) + z.softmax(1)).diagonal() / 2
        rows.append(torch.stack([positive, pull, by_rank(own, texts.truth[now])[:, rank - 1]]))
    similar, pull, right = torch.cat(rows, dim=1)
    right = right[texts.visible[: len(right)]]
    return similar.mean().item(), pull.mean().item(), right.mean().item()


def wrong_negatives(rank: int, scenes: Scenes, texts: Texts, batch: int) -> float:
    """How often the pixel of an image at a rank of a foreign text shows what that text names.

    Args:
        rank: Rank of the negative, from 1.
        scenes: The images.
        texts: A text for each image.
        batch: Images of a batch.
    """
    wrong = []
    for now in _batches(len(scenes.trained), batch):
        scores = similarity(scenes.trained[now], texts.embeddings[now])
        shown = by_rank(scores, described(scenes.shares[now], texts.words[now]))[..., rank - 1]
        wrong.append(shown[~torch.eye(batch, dtype=torch.bool)])
    return torch.cat(wrong).mean().item()


def positives(
    scenes: Scenes, kinds: Mapping[str, Texts], shares: Sequence[float], size: int, batch: int
) -> pd.DataFrame:
    """The positive pixel at several shares ``k`` of the object, a row each.

    Args:
        scenes: The images.
        kinds: A text for each image by kind; similarity and pull are those of the last kind.
        shares: The shares.
        size: Pixels of the object.
        batch: Images of a batch.
    """
    rows = {}
    for share in shares:
        rank = rank_in_region(share, size)
        rows[f"{share:g}"] = row = {"rank": rank}
        for kind, texts in kinds.items():
            similar, pull, right = positives_at(rank, scenes.trained, texts, batch)
            row[f"right, {kind} (%)"] = round(100 * right, 1)
        row |= {"similarity": round(similar, 1), "pull": round(pull, 3)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("k")


def negatives(
    scenes: Scenes, kinds: Mapping[str, Texts], shares: Sequence[float], size: int, batch: int
) -> pd.DataFrame:
    """How often the negative pixel is wrong at several shares ``k_neg``, as :func:`positives`."""
    rows = {}
    for share in shares:
        rank = rank_in_region(share, size)
        rows[f"{share:g}"] = row = {"rank": rank}
        for kind, texts in kinds.items():
            wrong = wrong_negatives(rank, scenes, texts, batch)
            row[f"wrong, {kind} (%)"] = round(100 * wrong, 1)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("k_neg")


def false_negatives(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """How often a hard negative is truly a positive, and its mean cosine then and otherwise.

    Args:
        rows: Rows of :func:`foreign_pairs` by kind of text.
    """
    table = {}
    for kind, own in rows.items():
        most, cosines = own["in the region"] > 0.5, own["region level"]
        table[kind] = {
            "names something in the image (%)": f"{100 * own['in the image'].mean():.0f}",
            "names most of the region (%)": f"{100 * most.mean():.0f}",
            "cosine, then": f"{cosines[most].mean():.2f}",
            "cosine, otherwise": f"{cosines[~most].mean():.2f}",
        }
    return pd.DataFrame.from_dict(table, orient="index").rename_axis("text of another scene")
