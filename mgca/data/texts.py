"""Texts to train on: captions, and captions generated from their nouns (choice D10)."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgca.prompts import CLIP_TEMPLATES


@dataclass(frozen=True)
class TextPool:
    """Every text that training may draw, and which image may draw which.

    Attributes:
        texts: All texts, each once.
        originals: For each image and caption, the position of the caption in ``texts``.
        generated: For each image and caption, one tuple of positions per noun, one per template.
        names: For each image, the probability and the positions, one per template, of names that
            a classifier recognises in it; empty without a classifier.
    """

    texts: list[str]
    originals: list[list[int]]
    generated: list[list[list[tuple[int, ...]]]]
    names: list[list[tuple[float, tuple[int, ...]]]]

    def draw(self, image: int, rule: str, generator: torch.Generator, *, names: float = 0.0) -> int:
        """Position of a text drawn for an image.

        A caption of the image is drawn first, then one text uniformly among it and those
        generated from its nouns, one per noun with a template drawn at random.

        Args:
            image: Position of the image in the pool.
            rule: How to draw: ``"uniform"``, ``"original"`` (captions only) or ``"nouns"``
                (generated only, where the caption has a noun).
            generator: Source of the chance.
            names: Probability that a recognised name takes the caption's place, drawn by the
                classifier's probabilities.
        """

        def below(size: int) -> int:
            return int(torch.randint(size, (), generator=generator))

        if names and float(torch.rand((), generator=generator)) < names:
            weights = torch.tensor([probability for probability, _ in self.names[image]])
            positions = self.names[image][int(torch.multinomial(weights, 1, generator=generator))][
                1
            ]
            return positions[below(len(positions))]
        caption = below(len(self.originals[image]))
        by_noun = self.generated[image][caption]
        if rule == "original" or not by_noun:
            return self.originals[image][caption]
        choice = below(len(by_noun) + (rule == "uniform"))
        if choice == len(by_noun):
            return self.originals[image][caption]
        templates = by_noun[choice]
        return templates[below(len(templates))]

    def describing(self, image: int) -> list[int]:
        """Positions of an image's own texts: its captions, and one per noun and name."""
        words = [filled for caption in self.generated[image] for filled in caption]
        words += [filled for _, filled in self.names[image]]
        return self.originals[image] + [filled[-1] for filled in dict.fromkeys(words)]


def known_pairs(
    pool: TextPool, embeddings: Tensor, images: Sequence[int], texts: Sequence[int], above: float
) -> Tensor:
    """(images, texts) bool: which texts are, nearly or exactly, known to describe which images.

    Args:
        pool: The texts of all images.
        embeddings: (len(pool.texts), C), the embeddings of the pool's texts.
        images: Positions of the images in the pool.
        texts: Positions of the texts in the pool.
        above: Cosine similarity to one of the image's own texts from which on a text counts.
    """
    unit = F.normalize(embeddings[list(texts)], dim=-1)
    rows = [
        (F.normalize(embeddings[pool.describing(image)], dim=-1) @ unit.t()).amax(dim=0) >= above
        for image in images
    ]
    return torch.stack(rows)


def build_pool(
    captions: Sequence[Sequence[str]],
    recognised: Sequence[Sequence[tuple[float, str]]] | None = None,
) -> TextPool:
    """The pool of all captions and of the texts made of their nouns and of recognised names.

    Args:
        captions: The captions of each image, any number.
        recognised: The names that a classifier recognised in each image, each after its
            probability.
    """
    positions: dict[str, int] = {}

    def position(text: str) -> int:
        return positions.setdefault(text, len(positions))

    def filled(word: str) -> tuple[int, ...]:
        return tuple(position(template.format(word)) for template in CLIP_TEMPLATES)

    originals = [[position(caption) for caption in image] for image in captions]
    generated = [[[filled(n) for n in nouns(caption)] for caption in image] for image in captions]
    found_in = recognised or [[]] * len(captions)
    names = [[(p, filled(name)) for p, name in image] for image in found_in]
    return TextPool(list(positions), originals, generated, names)


NOUN_TAGS = ("NN1", "NN2", "NN0")
_WORD = re.compile(r"[A-Za-zÀ-ÖØ-öø-ÿ][A-Za-zÀ-ÖØ-öø-ÿ'-]*")
_LONGEST_WORD = 50  # the tagger's time grows with the square of a word's length
_MOST_WORDS = 1000  # and its memory with their number; captions have tens of them


@functools.cache
def _tagger() -> Any:
    from HanTa import HanoverTagger

    return HanoverTagger.HanoverTagger("morphmodel_en.pgz")


def nouns(caption: str) -> list[str]:
    """The nouns of an English caption as singular dictionary forms, each once, in order.

    Words after the first thousand are not looked at.
    """
    words = [word for word in _WORD.findall(caption) if len(word) <= _LONGEST_WORD][:_MOST_WORDS]
    if not words:
        return []
    tagged = _tagger().tag_sent(words, taglevel=1)
    lemmas = (lemma.lower() for _, lemma, tag in tagged if tag in NOUN_TAGS)
    return list(dict.fromkeys(noun for noun in lemmas if len(noun) > 1))
