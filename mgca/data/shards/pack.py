"""A folder of images with captions, packed into shards as img2dataset lays them out."""

import io
import json
import os
import shutil
import tempfile
from pathlib import Path

from mgca.data.captions import Captions
from mgca.data.shards.index import IMAGE_EXTENSIONS, need_webdataset
from mgca.utils.images import open_image
from mgca.utils.progress import progress


def pack(
    data: Captions,
    folder: str | os.PathLike,
    *,
    samples_per_shard: int = 1000,
    all_captions: bool = False,
) -> int:
    """Write shards ``00000.tar`` ... into a new folder, each beside its ``_stats.json``.

    Images are copied as they are, except those of formats that shards do not have, which become
    PNG. Equal data gives equal bytes.

    Args:
        data: The images, and the captions of each.
        folder: Folder to write to, which appears when all shards are written; it must not be
            there, or be empty.
        samples_per_shard: Number of samples in each shard; the last one may have fewer.
        all_captions: Whether to write one sample for each caption rather than for the first of each
            image.

    Returns:
        The number of shards.

    Raises:
        ImportError: If webdataset is not installed.
        ValueError: If ``samples_per_shard`` is not positive.
        OSError: If there is something in the folder, or it cannot be written.
    """
    need_webdataset()
    if samples_per_shard < 1:
        raise ValueError(f"samples_per_shard must be positive, not {samples_per_shard}")
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there, and not empty: name a new folder")
    samples = [
        (image, caption)
        for image, captions in zip(data.images, data.captions, strict=True)
        for caption in captions[: None if all_captions else 1]
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        starts = range(0, len(samples), samples_per_shard)
        bar = progress(total=len(samples), desc="pack", unit="sample")
        for number, start in enumerate(starts):
            part = samples[start : start + samples_per_shard]
            _write(temporary, number, part, digits=max(4, len(str(samples_per_shard - 1))))
            bar.update(len(part))
        bar.close()
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(starts)


def _write(folder: Path, number: int, samples: list[tuple[Path, str]], *, digits: int) -> None:
    """One shard, and its statistics."""
    from webdataset import TarWriter

    with TarWriter(
        str(folder / f"{number:05d}.tar"), encoder=False, user="", group="", mode=0o644, mtime=0
    ) as tar:
        for position, (path, caption) in enumerate(samples):
            key = f"{number:05d}{position:0{digits}d}"
            extension, image = _image(Path(path))
            details = {"caption": caption, "key": key, "image": Path(path).name}
            tar.write(
                {
                    "__key__": key,
                    extension: image,
                    "txt": caption.encode(),
                    "json": json.dumps(details, ensure_ascii=False).encode(),
                }
            )
    statistics = {"count": len(samples), "successes": len(samples)}
    (folder / f"{number:05d}_stats.json").write_text(json.dumps(statistics), encoding="utf-8")


def _image(path: Path) -> tuple[str, bytes]:
    """The extension and bytes of an image file, as PNG if shards have no such extension."""
    extension = path.suffix.lower().removeprefix(".")
    if extension in IMAGE_EXTENSIONS:
        return extension, path.read_bytes()
    file = io.BytesIO()
    open_image(path).save(file, format="PNG")
    return "png", file.getvalue()
