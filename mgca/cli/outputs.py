"""The files that a segmentation of many images leaves: their names, what they hold, and whether
they are there already.

Beside the results of an image lies a record, NAME.json: what they were made of and with, and the
SHA-256 of each. It takes its place before the others do, so that an interrupted run leaves no file
that nothing accounts for; a result counts as there when its bytes are those of the record.
"""

import glob
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mgca
from mgca.config import BACKGROUND, to_dict
from mgca.inference.overlay import palette, png_bytes
from mgca.inference.segmentation import Segmentation
from mgca.model import Model
from mgca.utils.files import file_digest, replacing

LABELS, OVERLAY_PNG, OVERLAY_JPG = ".labels.png", ".overlay.png", ".overlay.jpg"
RLE, POLYGONS, PROBABILITIES = ".rle.json", ".polygons.json", ".probabilities.npz"
#: What the names of the files end with that an image can have.
KINDS = (LABELS, OVERLAY_PNG, OVERLAY_JPG, RLE, POLYGONS, PROBABILITIES)
RECORD = ".json"


def named_images(sources: Sequence[str]) -> dict[str, Path]:
    """The images of files, folders and patterns, under the names that their results get.

    An image's name is its path below the folder that all sources share, suffix included: of
    ``photos`` alone the path below it, of ``photos/a/x.jpg`` and ``photos/b/x.png`` ``a/x.jpg`` and
    ``b/x.png``. So no two images share a name. Folders are searched with all that is below them,
    for the suffixes that Pillow reads; hidden files and the results of this module are left out
    there and of patterns, but not where they are given by name. A link to nowhere counts as an
    image, so that its absence is noticed.

    Raises:
        FileNotFoundError: If a source does not exist, or there is no image in it.
    """
    shared, images = [], []
    for source in map(os.path.expanduser, map(os.fspath, sources)):
        if os.path.isdir(source):
            shared.append(source)
            found = _pictures(Path(source).rglob("*"))
        elif os.path.exists(source):
            shared.append(os.path.dirname(source))
            found = [Path(source)]
        elif glob.has_magic(source):
            shared.append(_fixed(source))
            found = _pictures(map(Path, glob.iglob(source, recursive=True)))
        else:
            raise FileNotFoundError(f"no image, folder or pattern {source}")
        if not found:
            raise FileNotFoundError(f"no image in {source}")
        images += found
    base = os.path.commonpath([os.path.abspath(folder) for folder in shared])
    absolute = dict.fromkeys(os.path.abspath(image) for image in images)
    return {Path(os.path.relpath(path, base)).as_posix(): Path(path) for path in absolute}


def _pictures(paths: Iterable[Path]) -> list[Path]:
    suffixes = set(Image.registered_extensions())
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in suffixes
        and not path.name.startswith(".")
        and not path.name.endswith(KINDS)
        and (path.is_file() or not path.exists())
    )


def _fixed(pattern: str) -> str:
    """The folders of a pattern before the first that has a wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join(*parts[:fixed]) if fixed else ""


def settings_of(
    model: Model,
    name: str,
    classes: Sequence[str],
    meta_points: int | None,
    background: float | None,
) -> dict[str, Any]:
    """All that labels depend on besides the image, as JSON data.

    Args:
        name: Of the model, for people.
        classes, meta_points, background: As for :meth:`mgca.model.Model.segment`.
    """
    data = {
        "mgca": mgca.__version__,
        "model": name,
        "backbone": model.backbone.digest,
        "decoder": model.trained,
        "classes": list(classes),
        "meta_points": meta_points,
        "background": background,
        "temperature": model.backbone.temperature,
        "windows": {k: v for k, v in to_dict(model.config).items() if k != "meta_points"},
    }
    return json.loads(json.dumps(data))


class Outputs:
    """The files of one image.

    Args:
        folder: Where all results go; those of ``a/x.jpg`` are ``folder/a/x.jpg.labels.png`` ...
        name: Of the image, as :func:`named_images` gives it.
        image: Its file.
        settings: As :func:`settings_of` gives them.
        kinds: Which files are wanted, of :data:`KINDS`.
    """

    def __init__(
        self, folder: Path, name: str, image: Path, settings: dict[str, Any], kinds: Sequence[str]
    ) -> None:
        self.name, self.image, self.settings = name, image, settings
        self._folder, self._kinds = folder, kinds
        self.record = self._path(RECORD)

    @property
    def files(self) -> list[Path]:
        """The files wanted and the record."""
        return [*map(self._path, self._kinds), self.record]

    def conflict(self) -> str | None:
        """Why the files may not be written over what is there; None where they may."""
        found = self._found()
        if found is None:
            foreign = [path for path in self.files if path.exists()]
            return f"{foreign[0]} is there, without a record of its origin" if foreign else None
        try:
            digest = file_digest(self.image)
        except OSError:  # said of this image alone, when it is to be read
            return None
        if found["image"]["sha256"] != digest:
            return f"{self.record} is of another image, {found['image']['path']}"
        theirs, ours = found["settings"], self.settings
        other = [key for key in ours if theirs.get(key) != ours[key]]
        if other:
            key = other[0]
            return f"{self.record} has {key} {_short(theirs.get(key))}, not {_short(ours[key])}"
        return None

    def complete(self) -> bool:
        """Whether all files wanted are there, of this image and settings; see :meth:`conflict`."""
        found = self._found()
        files = found["files"] if found else {}
        return found is not None and all(_intact(self._path(k), files) for k in self._kinds)

    def write(self, segmentation: Segmentation) -> dict[str, Any]:
        """Write the files and their record, which is returned; replace what is there.

        Raises:
            OSError: If one cannot be written. Then none is.
        """
        before = self._found()
        kept: dict[str, str] = {}
        if before is not None and self.conflict() is None:  # made with other kinds wanted
            kept = {
                name: digest
                for name, digest in before["files"].items()
                if _intact(self.record.with_name(name), before["files"])
            }
        with ExitStack() as stack:
            written = {}
            for kind in self._kinds:
                path = self._path(kind)
                temporary = stack.enter_context(replacing(path))
                self._write(kind, temporary, segmentation)
                written[path.name] = file_digest(temporary)
            record = self._describe(segmentation) | {
                "files": dict(sorted((kept | written).items()))
            }
            # The last to be entered is the first to be left, and to take its place.
            temporary = stack.enter_context(replacing(self.record))
            temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
        for name in before["files"] if before is not None else ():
            if name not in record["files"] and name.startswith(f"{self.record.stem}."):
                self.record.with_name(name).unlink(missing_ok=True)
        return record

    def _path(self, kind: str) -> Path:
        return self._folder / f"{self.name}{kind}"

    def _found(self) -> dict[str, Any] | None:
        """The record that is there; None without one."""
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        ours = isinstance(found, dict) and {"image", "settings", "files"} <= found.keys()
        return found if ours else None

    def _describe(self, segmentation: Segmentation) -> dict[str, Any]:
        table = segmentation.to_pandas()
        colours = palette(segmentation.classes).tolist()
        return {
            "image": {
                "path": os.fspath(self.image),
                "sha256": file_digest(self.image),
                "width": segmentation.image.width,
                "height": segmentation.image.height,
            },
            "settings": self.settings,
            "classes": [
                {
                    "label": label,
                    "name": row["class"],
                    "colour": colours[label],
                    "pixels": int(row["pixels"]),
                    "area": row["area"],
                    # JSON has no NaN.
                    "score": None if np.isnan(row["score"]) else row["score"],
                }
                for label, row in table.iterrows()
            ],
        }

    def _write(self, kind: str, path: Path, segmentation: Segmentation) -> None:
        if kind == LABELS:
            path.write_bytes(png_bytes(segmentation.to_pil()))
        elif kind == OVERLAY_PNG:
            path.write_bytes(png_bytes(segmentation.overlay()))
        elif kind == OVERLAY_JPG:
            buffer = io.BytesIO()
            segmentation.overlay().save(buffer, format="JPEG", quality=90)
            path.write_bytes(buffer.getvalue())
        elif kind == PROBABILITIES:
            write_probabilities(path, segmentation)
        else:
            found = segmentation.to_coco(image_number(self.name), rle=kind == RLE)
            found["images"][0]["file_name"] = self.name
            path.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def image_number(name: str) -> int:
    """A COCO id for the image of this name: positive, below 2^40, and hardly ever another's.

    So the data sets of several images can be joined by concatenating their lists.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:5], "big") + 1


def write_probabilities(path: Path, segmentation: Segmentation) -> None:
    """Write the probability of each class, (H, W) float16 under its name, as an npz archive.

    They are gathered in a file beside it, because those of many classes at the size of a
    photograph do not fit into memory. The same probabilities give the same bytes.
    """
    names = [name for name in segmentation.classes if name != BACKGROUND]
    height, width = segmentation.labels.shape
    with tempfile.TemporaryFile(dir=path.parent) as file:
        maps = np.memmap(file, np.float16, "w+", shape=(len(names), height * width))
        for pixels, probabilities in segmentation.probabilities():
            maps[:, pixels.numpy()] = probabilities.t().numpy()
        with zipfile.ZipFile(path, "w") as archive:
            for name, values in zip(names, maps, strict=True):
                member = zipfile.ZipInfo(f"{name}.npy")
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, values.reshape(height, width))


def _intact(path: Path, files: dict[str, str]) -> bool:
    return path.is_file() and files.get(path.name) == file_digest(path)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"
