"""What the page shows, as HTML: a map of the words, the similarity to one word, or a message.

All that a person typed, or named a file, is escaped here.
"""

import base64
import dataclasses
import html
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from mgca.inference.formats import html_page
from mgca.inference.overlay import png_bytes
from mgca.inference.segmentation import Segmentation
from mgca.inference.segmenter import Embedded, check_background
from mgca.model import Model
from mgca.prompts import ClassWords, named, split_classes
from mgca.utils.images import open_image

#: Characters of all words together.
LONGEST = 2000
_SHOWN = 900  # pixels along the longer side of a picture on the page
_KEPT = 4  # photographs whose embeddings are kept
_COLOURS = matplotlib.colormaps["viridis"]


class Photographs:
    """Embeddings of the photographs looked at last, so that other words and units cost little."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._kept: OrderedDict[str, Embedded] = OrderedDict()

    def shown(self, file: str) -> Embedded:
        """The embedded photograph of a file, with a small original: labels are of its size.

        Args:
            file: Path of the photograph. The same path is the same photograph.

        Raises:
            FileNotFoundError, ImageError: As :func:`mgca.utils.images.open_image`.
        """
        if file not in self._kept:
            embedded = self._model.embed(open_image(file))
            small = embedded.image.copy()
            small.thumbnail((_SHOWN, _SHOWN))
            self._kept[file] = dataclasses.replace(embedded, image=small)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(file)
        return self._kept[file]

    def full(self, file: str) -> Embedded:
        """The same with the original, which is read again: it may take half a gigabyte."""
        return dataclasses.replace(self.shown(file), image=open_image(file))


class View:
    """The answers of the page to what is set on it.

    Arguments are what the page's controls hold: ``file`` the path of the upload, or None; ``words``
    a line of text; ``side`` that of the grid of meta-points; ``pixels`` whether there are no units;
    and ``threshold`` that of the background, 0 for none. Errors that a person can do something
    about are answers, too; all others are mistakes of ours and are raised.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._photographs = Photographs(model)

    def segmentation(
        self, file: str | None, words: str, side: int, pixels: bool, threshold: float
    ) -> str:
        """The photograph under the colours of its words, beside their shares, as HTML."""

        def answer(file: str) -> str:
            classes = _checked(split_words(words), threshold)
            embedded = self._photographs.shown(file)
            found = self._segment(embedded, classes, side, pixels, threshold)
            return html_page(found) + paragraph(f"{_unit(side, pixels)}; {_background(threshold)}.")

        if file is None:
            return paragraph("Choose a photograph, then type what may be in it.")
        if not words.replace(",", " ").strip():
            return paragraph("Type what may be in the photograph, and press Enter.")
        return _answered(answer, file)

    def similarity(self, file: str | None, word: str, side: int, pixels: bool) -> str:
        """The cosine similarity of the photograph to one word, in colours, as HTML."""

        def answer(file: str) -> str:
            ((name, *_),) = split_words(word).values()
            embedded = self._photographs.shown(file)
            found = self._segment(embedded, split_words(word), side, pixels, 0)
            scores = found.scores[0].numpy()
            low, high = float(scores.min()), float(scores.max())
            picture = _picture(
                (scores - low) / ((high - low) or 1), f"similarity to {name}", "max-width:100%"
            )
            strip = np.linspace(0, 1, 256)[None].repeat(12, axis=0)
            bar = _picture(strip, "colours from the least to the most similar", "width:10em")
            return (
                picture
                + paragraph(f"Cosine similarity, from {low:.3f}", bar, f"to {high:.3f}.")
                + paragraph(f"{_unit(side, pixels)}.")
            )

        word = " ".join(word.replace(",", " ").split())
        if file is None or not word:
            return paragraph("Choose a photograph, type one word, and press Enter.")
        return _answered(answer, file)

    def labels(
        self,
        file: str | None,
        words: str,
        side: int,
        pixels: bool,
        threshold: float,
        folder: Path,
    ) -> tuple[Path | None, str]:
        """Labels at the photograph's full size: a palette image below a folder, and a message."""

        def answer(file: str) -> str:
            classes = _checked(split_words(words), threshold)
            embedded = self._photographs.full(file)
            found = self._segment(embedded, classes, side, pixels, threshold)
            path = Path(tempfile.mkdtemp(dir=folder)) / f"{Path(file).stem}.labels.png"
            path.write_bytes(png_bytes(found.to_pil()))
            written.append(path)
            numbers = ", ".join(f"{i} {name}" for i, name in enumerate(found.classes))
            return paragraph(f"The pixels of the file are numbers: {numbers}.")

        if file is None or not words.replace(",", " ").strip():
            return None, paragraph("Choose a photograph and type its words first.")
        written: list[Path] = []
        text = _answered(answer, file)
        return (written[0] if written else None), text

    def _segment(
        self, embedded: Embedded, classes: ClassWords, side: int, pixels: bool, threshold: float
    ) -> Segmentation:
        points = None if pixels else int(side) ** 2
        return self._model.segment(embedded, classes, points, threshold or None)


def split_words(text: str) -> dict[str, tuple[str, ...]]:
    """The words of each class of a line, as :func:`mgca.prompts.split_classes`.

    A comma too many does no harm.

    Raises:
        ValueError: If they are longer than :data:`LONGEST` characters, or cannot be.
    """
    if len(text) > LONGEST:
        raise ValueError(f"more than {LONGEST} characters of words: mgca segment takes more")
    return named(words for words in split_classes(text.replace("\n", ",")) if any(words))


def _checked(classes: dict[str, tuple[str, ...]], threshold: float) -> dict[str, tuple[str, ...]]:
    """The classes, refused before an image is embedded for nothing."""
    check_background(classes, threshold or None)
    return classes


def _answered(answer: Callable[[str], str], file: str) -> str:
    try:
        return answer(file)
    except (ValueError, OSError, MemoryError) as error:
        # Where the upload lies tells a person nothing; its name does.
        text = (" ".join(str(error).split()) or "not enough memory").replace(file, Path(file).name)
        return f'<p role="alert"><strong>{html.escape(text)}</strong></p>'


def paragraph(before: str, picture: str = "", after: str = "") -> str:
    """A line of text, around a picture that is HTML already."""
    return f"<p>{html.escape(before)} {picture} {html.escape(after)}</p>"


def _unit(side: int, pixels: bool) -> str:
    if pixels:
        return "Every pixel on its own"
    return f"{int(side) ** 2} meta-points per window, {int(side)} × {int(side)}"


def _background(threshold: float) -> str:
    return f"background up to a probability of {threshold:g}" if threshold else "no background"


def _picture(values: np.ndarray, described: str, style: str) -> str:
    """Values (H, W) in [0, 1] as an HTML image."""
    coloured = (_COLOURS(values)[..., :3] * 255).round().astype(np.uint8)
    data = base64.b64encode(png_bytes(Image.fromarray(coloured))).decode("ascii")
    alt = html.escape(described, quote=True)
    return f'<img style="display:inline;{style}" alt="{alt}" src="data:image/png;base64,{data}">'
