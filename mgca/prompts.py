"""Texts: the words of classes, and the prompt templates around them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, KeysView, Mapping, Sequence, Set
from pathlib import Path
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
#: Classes by one word each, or by their names and the words that each stands for.
ClassWords = Sequence[str] | Mapping[str, Sequence[str]]
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


def check_words(classes: ClassWords) -> dict[str, tuple[str, ...]]:
    """The words of each class by its name, stripped; of a class given by one word, that word.

    Raises:
        TypeError, ValueError: As :func:`check_classes`, for names and for words; and if two classes
            share a word, which could then be neither.
    """
    if not isinstance(classes, Mapping):
        return {name: (name,) for name in check_classes(classes)}
    names = check_classes(list(classes))
    words: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for name, given in zip(names, classes.values(), strict=True):
        several = [given] if isinstance(given, str) else list(given)
        # Said twice of one class does no harm; published files do so.
        stripped = [word.strip() if isinstance(word, str) else word for word in several]
        try:
            words[name] = tuple(check_classes(list(dict.fromkeys(stripped))))
        except ValueError as error:
            raise ValueError(f"words of {name!r}: {error}") from None
        for word in words[name]:
            if owner.setdefault(word, name) != name:
                raise ValueError(f"the word {word!r} is one of {owner[word]!r} and of {name!r}")
    return words


def named(groups: Iterable[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Classes named by the first of their words.

    Raises:
        ValueError: As :func:`check_words`.
    """
    groups = list(groups)
    check_classes([group[0] for group in groups])  # before a dictionary would merge two
    return check_words({group[0].strip(): group for group in groups})


def split_classes(text: str) -> list[list[str]]:
    """The words of each class of a line such as ``cat, sofa|couch|settee, "washer, dryer"``.

    Commas stand between classes and ``|`` between the words of one, but not inside of quotation
    marks around a word.

    Raises:
        ValueError: If a quotation mark is not closed.
    """
    return _split(text, between=",", within="|")


def read_classes(file: str | os.PathLike[str]) -> list[list[str]]:
    """The words of each class of a UTF-8 file: a class a line, its words with commas between them.

    The form that SCLIP and its successors keep class names in. Empty lines, and those that begin
    with ``#``, are left out. A word that has a comma stands in quotation marks; ``|`` does as well
    between words.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or it is no text.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not a UTF-8 text file ({error})") from error
    lines = [line.strip() for line in text.splitlines()]
    try:
        return [
            _split(line, between="", within=",|")[0]
            for line in lines
            if line and not line.startswith("#")
        ]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _split(text: str, *, between: str, within: str) -> list[list[str]]:
    """The words of the classes of a text, after the characters between classes and within one."""
    classes, quoted = [[""]], False
    for character in text:
        words = classes[-1]
        if character == '"' and (quoted or not words[-1].strip()):
            quoted = not quoted
        elif not quoted and character in between:
            classes.append([""])
        elif not quoted and character in within:
            words.append("")
        else:
            words[-1] += character
    if quoted:
        raise ValueError(f"a quotation mark is not closed: {text!r}")
    return [[word.strip() for word in words] for words in classes]


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
