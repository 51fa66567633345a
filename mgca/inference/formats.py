"""Segmentations in the formats of other tools.

:class:`mgca.inference.segmentation.Segmentation` has them as methods.
Tools that not everybody has are imported when they are asked for, and an error names the extra that
brings them.
"""

import base64
import html
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mgca.config import BACKGROUND
from mgca.inference.overlay import palette

if TYPE_CHECKING:
    import pandas as pd
    from mmseg.structures import SegDataSample
    from supervision import Detections

    from mgca.inference.segmentation import Segmentation

_SHOWN = 900  # pixels along the longer side of a picture in a notebook
_ROWS = 24  # of the table beside it


def label_array(segmentation: "Segmentation") -> np.ndarray:
    """(H, W) labels as uint8, or uint16 for more than 256 classes."""
    kind = np.uint8 if len(segmentation.classes) <= 256 else np.uint16
    return segmentation.labels.numpy().astype(kind)


def label_image(segmentation: "Segmentation") -> Image.Image:
    """Labels as a palette image in the overlay's colours; 16-bit grey for more than 256 classes."""
    image = Image.fromarray(label_array(segmentation))
    if image.mode == "L":
        image.putpalette(palette(segmentation.classes).tobytes())  # makes it a palette image
    return image


def table(segmentation: "Segmentation") -> "pd.DataFrame":
    """One row per class, indexed by its label: name, pixels, share of the image, mean score."""
    import pandas as pd

    areas = segmentation.areas()
    pixels = segmentation.labels.numel()
    return pd.DataFrame(
        {
            "class": list(areas),
            "pixels": [round(area * pixels) for area in areas.values()],
            "area": list(areas.values()),
            "score": list(segmentation.mean_scores().values()),
        }
    ).rename_axis("label")


def coco(segmentation: "Segmentation", image_id: int = 1, *, rle: bool = True) -> dict[str, Any]:
    """The segmentation as a COCO data set of one image: an annotation for each class that occurs.

    ``category_id`` counts the classes asked for from 1, the same with and without a background,
    which is not annotated. An annotation's ``id`` is unique among images whose ids differ.

    Args:
        segmentation: The segmentation.
        image_id: Number of the image.
        rle: Whether masks are run lengths, as COCO stores what has holes; or else polygons along
            the pixels' edges, which :func:`mgca.inference.polygons.polygons` cuts where there are
            holes. Both are exact.

    Raises:
        ImportError: If run lengths are asked for and pycocotools is not installed.
    """
    encode = run_length_encoder() if rle else _polygon_lists
    labels = segmentation.labels.numpy()
    named = [(i, name) for i, name in enumerate(segmentation.classes) if name != BACKGROUND]
    annotations = []
    for category, (label, _) in enumerate(named, start=1):
        mask = labels == label
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        left, top = int(columns[0]), int(rows[0])
        annotations.append(
            {
                "id": (image_id - 1) * len(named) + category,
                "image_id": image_id,
                "category_id": category,
                "iscrowd": 0,
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "segmentation": encode(mask),
            }
        )
    height, width = labels.shape
    return {
        "images": [{"id": image_id, "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, (_, name) in enumerate(named, start=1)],
    }


def run_length_encoder() -> Callable[[np.ndarray], dict[str, Any]]:
    """A function that turns a mask (H, W) into COCO's compressed run lengths.

    Raises:
        ImportError: If pycocotools is not installed.
    """
    try:
        from pycocotools import mask as coder
    except ModuleNotFoundError as error:
        raise _missing("run lengths need pycocotools", "formats", error) from error

    def encode(mask: np.ndarray) -> dict[str, Any]:
        encoded = coder.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {
            "size": list(map(int, encoded["size"])),
            "counts": encoded["counts"].decode("ascii"),
        }

    return encode


def _polygon_lists(mask: np.ndarray) -> list[list[int]]:
    from mgca.inference.polygons import polygons

    return [corners.ravel().tolist() for corners in polygons(mask)]


def detections(segmentation: "Segmentation") -> "Detections":
    """supervision's detections: a mask and a box for each class that occurs, background aside.

    ``class_id`` is the label, and ``data["class_name"]`` the name.

    Raises:
        ImportError: If supervision is not installed.
    """
    try:
        from supervision import Detections, mask_to_xyxy
    except ModuleNotFoundError as error:
        raise _missing("this format needs supervision", "formats", error) from error
    labels = segmentation.labels.numpy()
    present = [i for i in np.unique(labels).tolist() if segmentation.classes[i] != BACKGROUND]
    masks = labels[None] == np.array(present).reshape(-1, 1, 1)
    return Detections(
        xyxy=mask_to_xyxy(masks).reshape(-1, 4).astype(np.float32),
        mask=masks,
        class_id=np.array(present, dtype=int),
        data={"class_name": np.array([segmentation.classes[i] for i in present], dtype=str)},
    )


def seg_data_sample(segmentation: "Segmentation") -> "SegDataSample":
    """mmsegmentation's sample: labels as ``pred_sem_seg`` (1, H, W), classes in ``metainfo``.

    Raises:
        ImportError: If mmsegmentation is not installed.
    """
    try:
        from mgca.utils.torchvision import make_importable

        make_importable()
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample
    except ModuleNotFoundError as error:
        raise _missing("this format needs mmsegmentation", "benchmarks", error) from error
    size = tuple(segmentation.labels.shape)
    sample = SegDataSample(
        metainfo={"ori_shape": size, "img_shape": size, "classes": segmentation.classes}
    )
    sample.set_data({"pred_sem_seg": PixelData(data=segmentation.labels[None])})
    return sample


def _missing(what: str, extra: str, error: ModuleNotFoundError) -> ImportError:
    return ImportError(f"{what} ({error}): pip install 'mgca[{extra}]'")


def html_page(segmentation: "Segmentation") -> str:
    """The picture under the colours of its classes beside a table of those that occur."""
    labels = segmentation.labels.numpy()
    colours = palette(segmentation.classes)
    coloured = Image.fromarray(colours[labels])
    picture = Image.blend(segmentation.image, coloured, 0.6)
    picture.thumbnail((_SHOWN, _SHOWN))
    areas = segmentation.areas()
    names = sorted((name for name in areas if areas[name]), key=lambda name: -areas[name])
    rows = []
    for name in names[:_ROWS]:
        red, green, blue = colours[segmentation.classes.index(name)].tolist()
        square = f'<span style="color:rgb({red},{green},{blue})">&#9632;</span>'
        rows.append(
            f"<tr><td>{square} {html.escape(name)}</td>"
            f'<td style="text-align:right">{100 * areas[name]:.1f} %</td></tr>'
        )
    if len(names) > _ROWS:
        rows.append(f"<tr><td>and {len(names) - _ROWS} more</td><td></td></tr>")
    described = html.escape(f"segmentation into {', '.join(names[:_ROWS])}", quote=True)
    file = io.BytesIO()
    picture.save(file, format="WEBP", quality=85)  # a tenth of a PNG, in every saved notebook
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">'
        f'<img style="max-width:100%;height:auto" width="{picture.width}" '
        f'height="{picture.height}" alt="{described}" src="data:image/webp;base64,{data}">'
        # The class under which the book, like Jupyter, keeps a table readable in dark colours.
        f'<table class="dataframe">{"".join(rows)}</table></div>'
    )
