"""One sample of a shard: its image, its caption, and the text drawn for a step (choice D10)."""

import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mgca.data.shards.index import CAPTION_KEY
from mgca.data.texts import TextPool
from mgca.prompts import CLIP_TEMPLATES, is_unicode
from mgca.utils.images import ImageError, open_image, training_image

# What open_clip trains with, by default: scale of the area and ratio of the sides.
CROP_SCALE, CROP_RATIO = (0.9, 1.0), (3 / 4, 4 / 3)
_KEYS = 8  # of a .json without a caption, that are named


class CorruptSample(ValueError):
    """A sample that cannot be used; the message says why."""


def caption_of(text: bytes | None, details: bytes | None, key: str = CAPTION_KEY) -> str:
    """The caption in a ``.txt``, or where that holds none that can be read, in a ``.json``.

    Args:
        text: The bytes of the ``.txt``, None where there is none.
        details: The bytes of the ``.json``, None where there is none.
        key: The key of the ``.json`` under which the caption lies.

    Raises:
        CorruptSample: If there is no caption in either, or it is empty or not readable.
    """
    if text is None and details is None:
        raise CorruptSample("no caption")
    problem = None
    if text is not None:
        try:
            return _checked(text.decode("utf-8"))
        except UnicodeDecodeError as error:
            problem = CorruptSample(f"its caption is not UTF-8 ({error.reason})")
        except CorruptSample as error:
            problem = error
    if details is not None:
        try:
            return _checked(_entry(details, key))
        except CorruptSample as error:
            problem = problem or error
    raise problem


def _entry(details: bytes, key: str) -> object:
    """What a ``.json`` holds under a key."""
    try:
        content = json.loads(details)
    except UnicodeDecodeError as error:
        raise CorruptSample(f"its .json is not UTF-8 ({error.reason})") from error
    except (ValueError, RecursionError) as error:
        raise CorruptSample(f"its .json is damaged ({error})") from error
    if isinstance(content, dict) and key in content:
        return content[key]
    keys = ", ".join(list(content)[:_KEYS]) if isinstance(content, dict) else "no keys"
    raise CorruptSample(f"its .json has no {key} (it has {keys}; --caption-key names another)")


def _checked(caption: object) -> str:
    """A caption without the space around it, if it is text."""
    if not isinstance(caption, str) or not caption.strip():
        raise CorruptSample("its caption is empty")
    if not is_unicode(caption):
        raise CorruptSample("its caption is no Unicode text")
    return caption.strip()


@dataclass(frozen=True)
class Drawn:
    """A text that was drawn.

    Attributes:
        text: The caption, or one of the texts generated from its nouns.
        noun: The noun of the caption that it names; None for the caption.
        template: The number of the template that the noun was put into; None for the caption.
    """

    text: str
    noun: str | None = None
    template: int | None = None


def draw_text(caption: str, nouns: list[str], rule: str, generator: torch.Generator) -> Drawn:
    """A text drawn for a sample, as :meth:`mgca.data.texts.TextPool.draw` does for an image.

    Args:
        caption: The sample's caption.
        nouns: The nouns of the caption.
        rule: How to draw: ``"uniform"``, ``"original"`` or ``"nouns"``.
        generator: Source of the chance.
    """
    width = len(CLIP_TEMPLATES)
    generated = [tuple(range(1 + width * i, 1 + width * (i + 1))) for i in range(len(nouns))]
    # The pool of one image, whose texts are only written out where they are drawn.
    position = TextPool([], [[0]], [[generated]], [[]]).draw(0, rule, generator)
    if position == 0:
        return Drawn(caption)
    noun, template = divmod(position - 1, width)
    return Drawn(CLIP_TEMPLATES[template].format(nouns[noun]), nouns[noun], template)


def image_of(data: bytes | None, size: int, crop: str, generator: torch.Generator) -> Tensor:
    """The image (3, size, size) uint8 to train on.

    Args:
        data: The bytes of the image file.
        size: Side of the result, in pixels.
        crop: What to cut out: ``"centre"`` as :func:`mgca.utils.images.training_image`, or
            ``"random"``.
        generator: Source of the chance, for a random crop.

    Raises:
        CorruptSample: If there is none or it cannot be decoded.
    """
    if data is None:
        raise CorruptSample("no image")
    try:
        image = open_image(data)
    except ImageError as error:
        raise CorruptSample(str(error)) from error
    image = training_image(image, size) if crop == "centre" else _random(image, size, generator)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _random(image, size: int, generator: torch.Generator):
    """A random part of an image, resized; torchvision draws it, from torch's own generator."""
    from mgca.utils import torchvision as _torchvision

    _torchvision.make_importable()
    from PIL import Image
    from torchvision.transforms import RandomResizedCrop

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        top, left, height, width = RandomResizedCrop.get_params(image, CROP_SCALE, CROP_RATIO)
    part = image.crop((left, top, left + width, top + height))
    return part.resize((size, size), Image.Resampling.BICUBIC)
