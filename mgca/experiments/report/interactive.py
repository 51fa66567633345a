"""Figures that a reader handles in the browser: their data, and the element that shows them.

A page that is opened from a folder may not fetch files, but it may load scripts. So the data of a
figure is a script, ``interactive/<notebook>/<name>.js``, of one call with JSON data. What draws it
is ``book/_static/interactive.js``. Where that script does not run, in Jupyter or on paper, the
element shows the picture that it contains.

Kinds of figures and what their data holds; pictures (:class:`PIL.Image.Image`) and arrays of uint8
or uint16 may stand anywhere in it. Maps are (h, w), row by row.

``"units"``
    ``start``, the step shown first, and ``images``, a list of ``title``, ``picture``, ``classes``
    (names), ``colours`` (RGB of each), ``truth`` (map of class indices, 255 where none; or None)
    and ``steps``. A step has ``points`` along a side (None: each pixel is its own unit),
    ``assignment`` (map of unit indices; None with it), ``named`` (class index of each unit, or of
    each pixel as a map), ``regions`` (their number) and ``right`` (percent, or None).
``"similarity"``
    ``photographs``, a list of ``title``, ``picture``, ``words``, ``low`` and ``high`` (the
    similarities that 0 and 255 stand for) and ``maps``: by the name of the unit, (words, h, w).
``"ablation"``
    ``ablations`` (``title``, ``axis`` and, in order, ``ticks`` and ``series``), ``datasets``,
    ``metrics``, and ``rows`` of indices into these six and ``mean``, ``std`` (or None), ``count``.
    A series has ``name`` and ``paper``, whether its numbers are the paper's. ``what`` is what one
    of the first is called where it is no ablation.
"""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from mgca.experiments.report.page import find_project
from mgca.utils.files import write_text

#: What a figure can be.
KINDS = ("units", "similarity", "ablation")
#: Bytes of a figure's data.
LARGEST = 1_000_000
_NAME = re.compile(r"[a-z0-9_]+/[a-z0-9_-]+")
_QUALITY = 88  # of WebP
_LONGEST_RUN = 65_535  # a length is a uint16


def write(name: str, payload: dict[str, Any]) -> Path:
    """Write the data of a figure, whole or not at all.

    Args:
        name: ``"<notebook>/<name>"``, in lower case.
        payload: See the kinds above.

    Returns:
        The file, ``_build/interactive/<notebook>/<name>.js`` below the project.

    Raises:
        ValueError: If the name is not of that form, a number is NaN or infinite, or the data takes
            more than :data:`LARGEST` bytes.
        TypeError: For an array of another type, or an object that JSON does not have.
    """
    path = _path(name)
    data = json.dumps(payload, default=_encoded, allow_nan=False, separators=(",", ":"))
    script = f"mgcaInteractive({json.dumps(name)},{data});\n"
    if len(script) > LARGEST:
        raise ValueError(
            f"the data of {name} takes {len(script):,} bytes, more than {LARGEST:,}: use fewer or "
            "smaller maps and pictures"
        )
    write_text(path, script)
    return path


def element(
    kind: str, name: str, *, fallback: Figure | Image.Image | str, alt: str, caption: str
) -> None:
    """Show a figure whose data :func:`write` has written.

    Args:
        kind: One of :data:`KINDS`.
        name: As in :func:`write`.
        fallback: What is shown without the script: a figure, which is closed, a picture, or HTML.
        alt: What is drawn, for those who do not see it.
        caption: What it shows. Plain text.

    Raises:
        ValueError: If the kind is unknown, or ``alt`` or ``caption`` is empty.
        FileNotFoundError: If there is no data of that name.
    """
    from IPython.display import HTML, display

    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}, only {', '.join(KINDS)}")
    if not (alt.strip() and caption.strip()):
        raise ValueError(f"{name} needs a text for those who do not see it, and a caption")
    if not _path(name).is_file():
        raise FileNotFoundError(f"no data of {name}: call write({name!r}, ...) first")
    text = html.escape(alt)
    if isinstance(fallback, str):
        still = f'<div role="group" aria-label="{text}">{fallback}</div>'
    else:
        still = f'<img alt="{text}" style="max-width:100%" src="{_address(fallback)}">'
    display(
        HTML(
            f'<mgca-figure kind="{kind}" data="{name}" label="{text}"><figure>'
            f'<div class="mgca-still">{still}</div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure></mgca-figure>"
        )
    )


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ValueError(f'name must be "<notebook>/<name>" in lower case, not {name!r}')
    return find_project() / "_build" / "interactive" / f"{name}.js"


def _encoded(value: Any) -> Any:
    """What JSON lacks, as what interactive.js reads."""
    if isinstance(value, Image.Image):
        return _address(value)
    if isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.uint16):
        return _array(value)
    if isinstance(value, np.generic):
        return value.item()
    kind = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"an interactive figure holds arrays of uint8 and uint16, no {kind}")


def _array(array: np.ndarray) -> dict[str, Any]:
    """Its bytes in base64, or those of its runs where they are fewer."""
    plain = array.astype(array.dtype.newbyteorder("<")).tobytes()
    runs = _runs(array.ravel()).tobytes()
    fewer = len(runs) < len(plain)
    return {
        "type": "runs" if fewer else array.dtype.name,
        "shape": list(array.shape),
        "data": base64.b64encode(runs if fewer else plain).decode(),
    }


def _runs(flat: np.ndarray) -> np.ndarray:
    """(r, 2) little-endian uint16: values and how often each follows itself."""
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + 1 if flat.size else flat))
    lengths = np.diff(starts, append=flat.size)
    parts = -(-lengths // _LONGEST_RUN)
    split = np.full(parts.sum(), _LONGEST_RUN)
    split[np.cumsum(parts) - 1] = lengths - (parts - 1) * _LONGEST_RUN
    return np.stack([np.repeat(flat[starts], parts), split], axis=1).astype("<u2")


def _address(picture: Figure | Image.Image) -> str:
    """A picture as a data address of WebP."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        import matplotlib.pyplot as plt

        picture.savefig(buffer, format="webp", dpi=160, pil_kwargs={"quality": _QUALITY})
        plt.close(picture)  # or Jupyter would show it once more
    else:
        picture.convert("RGB").save(buffer, format="WEBP", quality=_QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
