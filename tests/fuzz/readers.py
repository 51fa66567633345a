"""Readers of pictures, words and configurations, with valid files of each."""

import contextlib
import dataclasses
import json
import os
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from harness import Target, encode, photo, put, require
from PIL import Image

import mgca.data.benchmarks
from mgca.cli import EXPECTED
from mgca.config import LossConfig, TrainConfig, config_hash
from mgca.data.benchmarks import load_benchmark, read_benchmark
from mgca.data.benchmarks.files import read_ids
from mgca.data.captions import load_captions
from mgca.data.masks import Masked
from mgca.data.shards import StreamConfig
from mgca.data.shards.sample import CorruptSample, caption_of
from mgca.data.texts import nouns
from mgca.prompts import named, read_classes, split_classes
from mgca.training.runs import RunConfig, load_run
from mgca.utils.images import ImageError, open_image

# --- Pictures ------------------------------------------------------------------------------------


@cache
def _pictures() -> list[bytes]:
    """One file per format and mode."""
    rgb, grey = photo(), photo().convert("L")
    palette, alpha = photo().quantize(7), photo().convert("RGBA")
    wide = Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10) * 1000)
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        encode(rgb, kind)
        for kind in ("JPEG", "PNG", "GIF", "BMP", "PPM", "TGA", "TIFF", "PCX", "SGI", "QOI", "DDS")
    ]
    files += [encode(rgb, kind) for kind in ("WEBP", "JPEG2000", "AVIF", "ICO", "ICNS", "IM")]
    files += [
        encode(grey, "PNG"),
        encode(photo().convert("1"), "PNG"),
        encode(alpha, "PNG"),
        encode(grey.convert("LA"), "PNG"),
        encode(palette, "PNG", transparency=bytes([0, 255, 9])),
        encode(palette, "GIF", transparency=3),
        encode(wide, "PNG"),
        encode(wide, "PNG", transparency=2000),
        encode(wide, "TIFF"),
        encode(rgb.convert("CMYK"), "JPEG"),
        encode(rgb.convert("CMYK"), "TIFF"),
        encode(rgb, "JPEG", exif=turned, progressive=True),
        encode(rgb, "PNG", exif=turned),
        encode(rgb, "TIFF", compression="tiff_deflate"),
        encode(rgb, "TIFF", compression="tiff_lzw"),
        encode(photo().convert("1"), "TIFF", compression="group4"),
        encode(grey.convert("F"), "TIFF"),
        encode(alpha, "WEBP", lossless=True),
        encode(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(180)]),
        encode(rgb, "GIF", save_all=True, append_images=[rgb.rotate(180)]),
        encode(rgb, "PNG", save_all=True, append_images=[rgb.rotate(180)]),
        encode(rgb, "MPO", save_all=True, append_images=[rgb.rotate(180)]),
        encode(photo().convert("1"), "XBM"),
        encode(rgb, "EPS"),
        b"P1 3 2\n0 1 0 1 0 1",
    ]
    return files


def _repair_png(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what they now hold; other files as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def _image(data: bytes, folder: Path) -> None:
    path = put(folder, "photo.jpg", data)  # whatever it is
    pictures = []
    for source in (data, path):
        with contextlib.suppress(ImageError):
            pictures.append(open_image(source))
    if not pictures:
        raise ImageError("refused")
    require(len(pictures) == 2, "bytes and file are not the same")
    for picture in pictures:
        require(picture.mode == "RGB" and min(picture.size) > 0, f"{picture}")
        require(np.asarray(picture).shape == (picture.height, picture.width, 3), f"{picture}")
    require(pictures[0].tobytes() == pictures[1].tobytes(), "bytes and file are not the same")


def _masks() -> list[bytes]:
    ids = photo().convert("L").point(lambda value: value % 3)
    return [
        encode(ids, "PNG"),
        encode(photo().quantize(3), "PNG"),
        encode(Image.fromarray(np.asarray(ids).astype(np.uint16)), "PNG"),
        encode(ids.convert("1"), "PNG"),
        encode(photo(), "PNG"),
    ]


def _mask(data: bytes, folder: Path) -> None:
    path = put(folder, "photo.png", data)
    item = ("photo", path, path)
    found = Masked("fuzz", [item], ("a", "b", "c"), 0, "").mask(0)
    require(found.dtype == np.uint8 and set(np.unique(found)) <= {0, 1, 2, 255}, "unknown ids")
    require(read_ids(path).shape == found.shape, "two readings of one mask")


# --- Words ---------------------------------------------------------------------------------------


def _lists() -> list[bytes]:
    texts = (
        "cat, sofa, a wooden table",
        "cat\nsofa\n\n",
        "\ufeffcat\r\nBläue\r\n猫\n",
        "a\x00b,{}",
    )
    return [text.encode() for text in texts] + [b"caf\xe9,\xff", "cat".encode("utf-16")]


def _classes(data: bytes, folder: Path) -> None:
    """As an argument, which Python decodes with surrogates for what is no UTF-8, and as a file."""
    refused = 0
    file = put(folder, "classes.txt", data)
    for classes in (lambda: split_classes(os.fsdecode(data)), lambda: read_classes(file)):
        try:
            names = list(named(classes()))
        except ValueError:
            refused += 1
            continue
        require(len(set(names)) == len(names) > 0, f"not a list of classes: {names}")
        for name in names:
            require(name == name.strip() != "" and name.encode() != b"", f"no name: {name!r}")
    if refused == 2:
        raise ValueError("refused")


def _captions() -> list[bytes]:
    texts = ("a dog's bone", "Two men-at-arms ride bicycles", "猫 on a mat", "x" * 200, "o'-- '")
    details = ({"caption": "a cat"}, {"caption": 3}, {"key": "0"}, ["caption"], None)
    return [text.encode() for text in texts] + [json.dumps(d).encode() for d in details]


def _caption(data: bytes, folder: Path) -> None:
    """The text file of a sample, or its ``.json``; then its nouns."""
    refused = 0
    for given in ((data, None), (None, data)):
        try:
            text = caption_of(*given)
        except CorruptSample:
            refused += 1
            continue
        require(text == text.strip() != "" and text.encode() != b"", f"no caption: {text!r}")
        found = nouns(text)
        require(len(set(found)) == len(found) and all(len(n) > 1 for n in found), f"{found}")
    if refused == 2:
        raise CorruptSample("refused")


def _tables() -> list[bytes]:
    return [
        b"image\tcaption\na.jpg\ta cat\nb.jpg\ttwo dogs\na.jpg\tanother cat\n",
        "\ufeffimage\tsplit\tcaption\r\na.jpg\ttrain\t猫\r\n".encode(),
    ]


def _table(data: bytes, folder: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        put(folder, f"images/{name}", b"")
    found = load_captions(put(folder, "captions.tsv", data))
    require(len(found) > 0 and all(all(own) for own in found.captions), "an empty caption")


# --- Configurations ------------------------------------------------------------------------------

_TOML = """clip = 1.0
[train]
backbone = "lite"
batch_size = 512
epochs = 3
known = 0.8
[train.loss]
alpha = 0.3
detach_weights = true
[stream]
lanes = 8
"""


def _runs() -> list[bytes]:
    return [_TOML.encode(), b"", b"train.steps=10\ntrain.loss.alpha=0.3\nclip=none"]


def _run(data: bytes, folder: Path) -> None:
    """As a file, and line by line as changes."""
    refused = 0
    file = put(folder, "run.toml", data)
    changes = data.decode(errors="replace").split("\n")
    for given in ((file,), ("paper", changes)):
        try:
            run = load_run(*given)
        except ValueError:
            refused += 1
            continue
        require(len(config_hash(run)) == 12, "no hash")
        kinds = {LossConfig: run.train.loss, TrainConfig: run.train, StreamConfig: run.stream}
        for kind, part in (kinds | {RunConfig: run}).items():
            require(type(part) is kind, f"{part} is not a {kind.__name__}")
            values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
            require(kind(**values) == part, f"{part}")
    if refused == 2:
        raise ValueError("refused")


def _benchmarks() -> list[bytes]:
    folder = Path(mgca.data.benchmarks.__file__).parent
    return [path.read_bytes() for path in sorted(folder.glob("*.toml"))]


def _benchmark(data: bytes, folder: Path) -> None:
    found = read_benchmark(put(folder, "some.toml", data))
    require(type(found) is type(load_benchmark("voc")), "not a benchmark")
    require(0 < found.class_count < 257 and isinstance(found.where_to_get(), str), f"{found}")


READERS = [
    Target("image", _pictures, _image, (ImageError,), ("photo.jpg",), _repair_png),
    Target("mask", _masks, _mask, (ValueError,), ("photo.png",), _repair_png),
    Target("classes", _lists, _classes, (ValueError,), ("classes.txt",)),
    Target("caption", _captions, _caption, (CorruptSample,)),
    Target("captions-table", _tables, _table, EXPECTED, ("captions.tsv", "images/?.jpg")),
    Target("run-config", _runs, _run, (ValueError,), ("run.toml",)),
    Target("benchmark", _benchmarks, _benchmark, (ValueError,), ("some.toml",)),
]
