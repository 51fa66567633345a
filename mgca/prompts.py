"""Texts: prompt templates around class names, and captions made of a caption's nouns."""

import re
from collections import Counter
from collections.abc import KeysView, Mapping, Sequence, Set
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from mgca.backbone import Backbone

# CLIP's subset of seven templates; captions are generated with them from nouns (choice D10).
CLIP_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
#: The nine that classes are embedded with at inference, as in TCL's evaluation.
CLASS_TEMPLATES = (*CLIP_TEMPLATES, "a photo of many {}.", "a photo of {}s.")
_ARTICLE = re.compile(r"^(a|an|the)\s+", re.IGNORECASE)


def check_classes(classes: Sequence[str]) -> list[str]:
    """The class names, stripped of surrounding space.

    Raises:
        TypeError: If it is one string rather than a list of them, a dict of synonyms, or a set,
            whose order, and so the labels, would be another in each process.
        ValueError: If there is no name, or a name is empty, is no Unicode text, or occurs twice.
    """
    if isinstance(classes, str):
        raise TypeError(f"expected a list of class names, not one string: [{classes!r}]?")
    if isinstance(classes, Mapping | Set) and not isinstance(classes, KeysView):
        kind = type(classes).__name__
        what = "whose values would be left out" if isinstance(classes, Mapping) else "of no order"
        raise TypeError(f"expected a list of class names, not a {kind}, {what}")
    names = []
    for position, name in enumerate(classes):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"class {position} has no name: {name!r}")
        if not is_unicode(name):
            raise ValueError(f"class {position} is no Unicode text, write it in UTF-8: {name!r}")
        names.append(name.strip())
    if not names:
        raise ValueError("expected at least one class name")
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise ValueError(f"class names given more than once: {', '.join(twice)}")
    return names


def is_unicode(text: str) -> bool:
    """Whether a text can be written in UTF-8, which tokenizers need.

    A text with lone surrogates cannot; they come of command-line arguments that are no UTF-8 and
    of escapes in JSON.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_article(name: str) -> str:
    """A class name without "a", "an" or "the" before it, which is left to the template."""
    return _ARTICLE.sub("", name)


@torch.inference_mode()
def class_embeddings(
    backbone: "Backbone", classes: Sequence[str], templates: Sequence[str] = CLASS_TEMPLATES
) -> Tensor:
    """Embeddings of classes: unit vectors (K, C), each the mean over templates, normalised.

    The mean is that of normalised text embeddings. A leading article is left to the template: "a
    wooden table" becomes "a photo of the small wooden table.".

    Args:
        backbone: Backbone whose text encoder embeds the sentences.
        classes: Class names.
        templates: Sentences in which ``{}`` stands for the class name.

    Raises:
        ValueError, TypeError: As :func:`check_classes`.
    """
    names = [without_article(name) for name in check_classes(classes)]
    texts = [template.format(name) for name in names for template in templates]
    embeddings = F.normalize(backbone.encode_text(texts), dim=-1)
    return F.normalize(embeddings.view(len(names), len(templates), -1).mean(dim=1), dim=-1)
