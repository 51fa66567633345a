"""The result files of many segmented images: their names, their content and their records.

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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import mgca
from mgca.config import BACKGROUND, to_dict
from mgca.inference.overlay import palette, png_bytes
from mgca.inference.scoring import rest_of
from mgca.inference.segmentation import Segmentation
from mgca.model import Model
from mgca.prompts import ClassWords, check_words
from mgca.utils.files import file_digest, replacing
from mgca.utils.images import HEIC, picture_suffixes

LABELS, OVERLAY_PNG, OVERLAY_JPG = ".labels.png", ".overlay.png", ".overlay.jpg"
RLE, POLYGONS, PROBABILITIES = ".rle.json", ".polygons.json", ".probabilities.npz"
CONFIDENCE = ".confidence.png"
#: What the names of the files end with that an image can have.
KINDS = (LABELS, OVERLAY_PNG, OVERLAY_JPG, RLE, POLYGONS, PROBABILITIES, CONFIDENCE)
RECORD = ".json"


def named_images(sources: Sequence[str]) -> tuple[dict[str, Path], Counter[str]]:
    """The images of files, folders and patterns, under the names that their results get.

    An image's name is its path below the folder that all sources share, suffix included: of
    ``photos`` alone the path below it, of ``photos/a/x.jpg`` and ``photos/b/x.png`` ``a/x.jpg`` and
    ``b/x.png``. So no two images share a name. Folders are searched with all that is below them,
    for the suffixes of photographs; hidden files and the results of this module are left out there
    and of patterns, but not where they are given by name. A link to nowhere counts as an image, so
    that its absence is noticed; a link to a folder is not followed, as it may lead in a circle.

    Returns:
        The images, and how many other files there are by suffix.

    Raises:
        FileNotFoundError: If a source does not exist, or there is no image in it.
    """
    shared: list[str] = []
    images: list[Path] = []
    others: Counter[str] = Counter()
    for source in map(os.path.expanduser, map(os.fspath, sources)):
        if os.path.isdir(source):
            shared.append(source)
            found = _pictures(Path(source).rglob("*"), others)
        elif os.path.exists(source):
            shared.append(os.path.dirname(source))
            found = [Path(source)]
        elif glob.has_magic(source):
            fixed = _fixed(source)
            shared.append(fixed)
            found = _pictures(_matches(fixed, source), others)
        else:
            raise FileNotFoundError(f"no image, folder or pattern {source}")
        if not found:
            beside = f", only {left_out(others)}" if others else ""
            raise FileNotFoundError(f"no image in {source}{beside}")
        images += found
    base = os.path.commonpath([os.path.abspath(folder) for folder in shared])
    absolute = dict.fromkeys(os.path.abspath(image) for image in images)
    named = {Path(os.path.relpath(path, base)).as_posix(): Path(path) for path in absolute}
    return named, others


def _pictures(paths: Iterable[Path], others: Counter[str]) -> list[Path]:
    """The photographs among paths, sorted; all other files are counted by suffix."""
    suffixes, found = picture_suffixes(), []
    for path in paths:
        is_result = path.name.endswith(KINDS) or (
            path.name.endswith(RECORD) and Path(path.stem).suffix.lower() in suffixes
        )
        if path.name.startswith(".") or is_result:
            continue
        if path.is_dir():
            if path.is_symlink():
                others["links to folders"] += 1
        elif path.suffix.lower() in suffixes:
            found.append(path)
        else:
            others[path.suffix.lower() or "without a suffix"] += 1
    return sorted(found)


def left_out(others: Counter[str]) -> str:
    """A phrase for people that counts the files that :func:`named_images` left out."""
    words = ", ".join(f"{number} {suffix}" for suffix, number in sorted(others.items()))
    heic = "; pillow-heif reads HEIC photographs: pip install pillow-heif"
    return words + heic * bool(HEIC & others.keys())


def _matches(fixed: str, pattern: str) -> Iterator[Path]:
    """The paths of a pattern below its fixed folders; links to folders are not followed."""
    rest = Path(pattern).relative_to(fixed)
    if rest.name == "**":  # of which pathlib gives the folders alone
        rest /= "*"
    hidden = any(part.startswith(".") for part in rest.parts)
    for path in Path(fixed).glob(str(rest)):
        parts = path.relative_to(fixed).parts
        if hidden or not any(part.startswith(".") for part in parts):
            yield path


def _fixed(pattern: str) -> str:
    """The folders of a pattern before the first that has a wildcard."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return os.path.join(*parts[:fixed]) if fixed else ""


def settings_of(
    model: Model,
    name: str,
    classes: ClassWords,
    meta_points: int | None,
    background: float | Mapping[str, float] | None,
    rule: str = "softmax",
) -> dict[str, Any]:
    """All that labels depend on besides the image, as JSON data.

    Args:
        model: The model.
        name: Name of the model, for people.
        classes: Class names, or their words by name, as for :meth:`mgca.model.Model.segment`.
        meta_points: Square number of meta-points per window, or None for the pixel unit.
        background: Threshold of the background, as for :meth:`mgca.model.Model.segment`.
        rule: Name of the rule that makes probabilities, likewise.

    Raises:
        ValueError: If the model does not have the rule.
    """
    words, softmax = check_words(classes), model.rule_named(rule).softmax
    alone = background is not None and len(words) == 1 and softmax
    several = {name: own for name, own in words.items() if own != (name,)}
    data = {
        "mgca": mgca.__version__,
        "model": name,
        "backbone": model.backbone.digest,
        "decoder": model.trained,
        "classes": list(words),
        **({"words": several} if several else {}),
        "meta_points": meta_points,
        "background": background,
        **({"rule": rule} if rule != "softmax" else {}),
        "temperature": model.backbone.temperature,
        **({"rest": rest_of(*words, *next(iter(words.values())))} if alone else {}),
        "windows": {k: v for k, v in to_dict(model.config).items() if k != "meta_points"},
    }
    return json.loads(json.dumps(data))


class Outputs:
    """The result files of one image.

    Args:
        folder: Folder of all results; those of ``a/x.jpg`` are ``folder/a/x.jpg.labels.png`` ...
        name: Name of the image, as :func:`named_images` gives it.
        image: File of the image.
        settings: Settings that labels depend on, as :func:`settings_of` gives them.
        kinds: Kinds of files that are wanted, of :data:`KINDS`.
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
        """The reason why the files may not be written over what is there; None where they may."""
        found = self._found()
        if found is None:
            # Which says no, and no error, of a name that is too long.
            foreign = [path for path in self.files if os.path.exists(path)]
            return f"{foreign[0]} is there, without a record of its origin" if foreign else None
        try:
            digest = file_digest(self.image)
        except OSError:  # said of this image alone, when it is to be read
            return None
        if found["image"]["sha256"] != digest:
            return f"{self.record} is of another image, {found['image']['path']}"
        theirs, ours = found["settings"], self.settings
        other = [key for key in ours | theirs if theirs.get(key) != ours.get(key)]
        if other:
            key = other[0]
            has, wanted = _short(theirs.get(key)), _short(ours.get(key))
            return f"{self.record} has {key} {has}, not {wanted}"
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
            temporary.write_bytes(json_bytes(record, indent=1) + b"\n")
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
        elif kind == CONFIDENCE:
            probability = segmentation.confidence()[1].numpy()
            path.write_bytes(png_bytes(Image.fromarray((255 * probability).round().astype("u1"))))
        elif kind == PROBABILITIES:
            write_probabilities(path, segmentation)
        else:
            found = segmentation.to_coco(image_number(self.name), rle=kind == RLE)
            found["images"][0]["file_name"] = self.name
            path.write_bytes(json_bytes(found))


def json_bytes(data: Any, *, indent: int | None = None) -> bytes:
    """The bytes of JSON data in UTF-8; parts of file names that are not UTF-8 are escaped."""
    return json.dumps(data, indent=indent, ensure_ascii=False).encode("utf-8", "backslashreplace")


def image_number(name: str) -> int:
    """A COCO id for the image of this name: positive, below 2^40, and hardly ever another's.

    So the data sets of several images can be joined by concatenating their lists.
    """
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:5], "big") + 1


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
