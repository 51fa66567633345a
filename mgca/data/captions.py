"""Image-caption pairs, as they lie on disk, checked before use."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgca.data.masks import DataError
from mgca.utils.files import file_digest
from mgca.utils.images import ImageSource


@dataclass(frozen=True)
class Captions:
    """Images with captions.

    Attributes:
        name: For messages and provenance.
        images: One path per image.
        captions: The captions of each image, at least one.
        digest: SHA-256 over the captions file, which names the images.
    """

    name: str
    images: Sequence[ImageSource]
    captions: list[list[str]]
    digest: str

    def __len__(self) -> int:
        return len(self.images)

    def first(self, images: int | None) -> "Captions":
        """The first so many images; all of them for None."""
        if images is None or images >= len(self):
            return self
        digest = f"{self.digest}-first-{images}"
        return Captions(self.name, self.images[:images], self.captions[:images], digest)


def load_captions(file: str | os.PathLike, images: str | os.PathLike | None = None) -> Captions:
    """Read a tab-separated file with the columns ``image`` and ``caption``, any number per image.

    Args:
        file: UTF-8, with a header line.
        images: Folder of the images; by default ``images`` beside the file.

    Raises:
        FileNotFoundError: If the file or one of the images is missing.
        DataError: If the file is not such a table, or a caption is empty.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no captions file {file}")
    folder = Path(images) if images else file.parent / "images"
    by_image = _captions_by_image(file)
    names = sorted(by_image)
    # One look at the folder is quicker than one at each of millions of images.
    present = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
    missing = [name for name in names if name not in present and not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(names)} images of {file} are not in {folder}, "
            f"first {missing[0]}"
        )
    return Captions(
        name=file.stem,
        images=[folder / name for name in names],
        captions=[by_image[name] for name in names],
        digest=file_digest(file),
    )


def _captions_by_image(file: Path) -> dict[str, list[str]]:
    by_image: dict[str, list[str]] = {}
    try:
        # Spreadsheets put a mark in front of UTF-8, which utf-8-sig skips.
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            if not {"image", "caption"} <= set(rows.fieldnames or ()):
                raise DataError(f"{file}: expected the tab-separated columns image and caption")
            for row in rows:
                place = f"{file}, line {rows.line_num}"
                if None in row:
                    raise DataError(f"{place}: more columns than the header; a tab in a caption?")
                image, caption = ((row[key] or "").strip() for key in ("image", "caption"))
                if not image:
                    raise DataError(f"{place}: no image")
                if not caption:
                    raise DataError(f"{place}: empty caption of {image}")
                by_image.setdefault(image, []).append(caption)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a UTF-8 text table ({error})") from error
    if not by_image:
        raise DataError(f"{file}: no captions")
    return by_image
