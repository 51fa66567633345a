"""Pictures for figures: images under the colours of their classes, their legends, galleries."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Patch
from PIL import Image

from mgca.inference.overlay import palette
from mgca.inference.segmentation import Segmentation

#: Colour of a class that an image does not have.
ABSENT = (245, 245, 245)


def over(
    labels: np.ndarray, photo: Image.Image, colours: np.ndarray, opacity: float = 0.65
) -> np.ndarray:
    """(H, W, 3) uint8: an image under the colours (K, 3) of its labels (H, W)."""
    return ((1 - opacity) * np.asarray(photo) + opacity * colours[labels]).astype(np.uint8)


def own_colours(classes: Sequence[str], present: Sequence[int], others: Any = ABSENT) -> np.ndarray:
    """(256, 3) uint8: the colours of the classes that an image has, one for all others, and white
    for labels that are no class.

    Args:
        classes: All K classes.
        present: Indices of those that the image has, in the order of the palette.
        others: Colour of the others, or (K, 3) of them.
    """
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(classes)] = others
    colours[present] = palette([classes[k] for k in present])
    return colours


def square(photo: np.ndarray) -> Image.Image:
    """The square in the middle of a photograph (H, W, 3), which is one window of a model."""
    image = Image.fromarray(photo)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def dimmed(picture: Image.Image, inside: Any, cells: int) -> np.ndarray:
    """(H, W, 3) uint8: a square picture that is dark but for some of its pixel embeddings.

    Args:
        picture: The picture.
        inside: Indices of the pixel embeddings that stay bright, or bool for each.
        cells: Pixel embeddings along a side.
    """
    light = np.full(cells * cells, 0.25)
    light[np.asarray(inside)] = 1
    light = np.kron(light.reshape(cells, cells), np.ones((picture.height // cells,) * 2))
    return (np.asarray(picture) * light[..., None]).astype(np.uint8)


def coloured(result: Segmentation) -> np.ndarray:
    """(H, W, 3) uint8: a segmented photograph under the colours of its classes."""
    return over(result.labels.numpy(), result.image, palette(result.classes), 0.6)


def key(names: Sequence[str], colours: Any = None, *, edge: bool = False) -> list[Patch]:
    """Handles of a legend: a patch of each colour beside its name.

    Args:
        names: What the colours stand for.
        colours: (K, 3) RGB from 0 to 255; None: the colours of the names as classes.
        edge: Whether patches have a border, without which a pale one is not seen.
    """
    colours = np.asarray(palette(names) if colours is None else colours) / 255
    return [
        Patch(facecolor=colour, edgecolor="0.4" if edge else colour, label=name)
        for colour, name in zip(colours, names, strict=True)
    ]


def own_key(classes: Sequence[str], present: Sequence[int]) -> list[Patch]:
    """Handles of a legend for :func:`own_colours`: the classes of an image, and all others."""
    colours = [*own_colours(classes, present)[present], ABSENT]
    return key([*(classes[k] for k in present), "a class not there"], colours, edge=True)


def gallery(items: Sequence[tuple[Image.Image, str]], width: int) -> str:
    """Images with a text under each, as many in a row as fit, as HTML.

    Args:
        items: Images and their texts.
        width: Least width of an image in the units of a web page.
    """
    cells = []
    for image, text in items:
        file = io.BytesIO()
        image.save(file, format="WEBP", quality=85)
        data = base64.b64encode(file.getvalue()).decode()
        cells.append(
            f'<div><img alt="{html.escape(text)}" src="data:image/webp;base64,{data}" '
            f'width="{image.width}" height="{image.height}" '
            'style="display:block;width:100%;height:auto;margin:0">'
            f'<div style="font-size:0.85em;line-height:1.3">{html.escape(text)}</div></div>'
        )
    columns = f"grid-template-columns:repeat(auto-fill,minmax({width}px,1fr))"
    return f'<div style="display:grid;gap:12px;margin-bottom:1rem;{columns}">{"".join(cells)}</div>'
