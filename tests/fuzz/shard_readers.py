"""Readers of shards and of what is kept in caches, with valid files of each."""

import contextlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from harness import Target, encode, photo, put, require, surroundings
from tiny import TinyBackbone
from weight_readers import repair_safetensors

from mgca.cli import EXPECTED
from mgca.data.captions import Captions
from mgca.data.features import features_file, image_features, text_embeddings
from mgca.data.shards import find_shards
from mgca.data.shards.index import index_file, index_of, scan
from mgca.data.shards.sample import CorruptSample, image_of
from mgca.data.shards.shard import OpenShard
from mgca.data.shards.texts import Embeddings, load_nouns, save_nouns

# --- Shards --------------------------------------------------------------------------------------


def tar_of(members: list[tuple[str, bytes | None]], kind: int) -> bytes:
    """A tar with two empty blocks at its end, and no more: a mutation of the 10 KiB that tar fills
    up would mostly change nothing."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if data is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = len(data or b"")
            tar.addfile(member, io.BytesIO(data or b""))
        end = tar.offset
    return file.getvalue()[:end] + b"\0" * 1024


@cache
def _samples() -> tuple[tuple[str, bytes], ...]:
    jpeg = encode(photo(), "JPEG")
    return (
        ("0.jpg", jpeg),
        ("0.txt", b"a cat on a mat"),
        ("1.png", encode(photo(), "PNG")[:90]),
        ("1.json", b'{"caption": "a dog"}'),
        ("ünï/2.webp", b""),
        ("ünï/2.txt", b"\xff"),
    )


@cache
def _shards() -> list[bytes]:
    long = "long/" * 40
    more = [(f"{long}3.jpg", b"1"), (f"{long}3.txt", b"two"), ("../4.jpg", None), ("4.txt", b"5")]
    kinds = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)
    return [tar_of([*_samples(), *more], kind) for kind in kinds]


def repair_tar(data: bytes) -> bytes:
    """Blocks that look like headers get the checksum of what they hold."""
    out = bytearray(data)
    for at in range(0, len(out) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            total = sum(out[at : at + tarfile.BLOCKSIZE])
            out[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(out)


def _shard(data: bytes, folder: Path) -> None:
    path = put(folder, "00000.tar", data)
    found = find_shards(path, workers=1)
    index = index_of(str(path), path)
    require(found.counts == (len(index),), f"{found.counts} and {len(index)} samples")
    with OpenShard(str(path)) as shard:
        for number in range(min(len(index), 8)):
            with contextlib.suppress(CorruptSample):
                require(shard.caption(number).encode() != b"", "an empty caption")
            with contextlib.suppress(CorruptSample):
                draw = torch.Generator().manual_seed(0)
                image = image_of(shard.image(number), 8, "centre", draw)
                require(image.shape == (3, 8, 8), f"{image.shape}")


@cache
def shard_bytes() -> bytes:
    return _shards()[0]


@contextlib.contextmanager
def _written_shard(folder: Path) -> Iterator[Path]:
    """A valid shard that is always of the same age."""
    path = put(folder, "00000.tar", shard_bytes())
    os.utime(path, ns=(0, 10**18))
    yield path


@cache
def _indices() -> list[bytes]:
    """The index kept of a shard, as :func:`_index` finds it: the place is put in there."""
    with tempfile.TemporaryDirectory() as name, surroundings(Path(name)):
        with _written_shard(Path(name)) as path:
            index_of(_PLACE, path)
            return [index_file(_PLACE).read_bytes()]


_PLACE = "somewhere/00000.tar"


def _index(data: bytes, folder: Path) -> None:
    """A damaged index is made again; it is never an error."""
    with _written_shard(folder) as path:
        kept = index_file(_PLACE)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(data)
        found = index_of(_PLACE, path)
        require(found.bytes == len(shard_bytes()), f"{found.bytes} bytes")
        lengths = {len(c) for c in (found.keys, found.images, found.texts, found.details)}
        require(len(lengths) == 1, f"columns of lengths {lengths}")
        # Numbers and names may be wrong, their kinds may not.
        require(all(isinstance(key, str) for key in found.keys), f"{found.keys}")


def _infos() -> list[bytes]:
    split = {"name": "train", "filenames": ["00000.tar"], "shard_lengths": [5]}
    return [json.dumps({"splits": {"train": split, "test": split}}).encode(), b"{}"]


def _info(data: bytes, folder: Path) -> None:
    with _written_shard(folder) as path:
        put(folder, "_info.json", data)
        found = find_shards(folder, workers=1)
        require(found.places == (str(path),) and found.counts == (len(scan(path)),), f"{found}")


# --- Caches --------------------------------------------------------------------------------------


def pairs() -> Captions:
    """Three images with captions."""
    return Captions("fuzz", [photo(40, 40)] * 3, [["a cat"]] * 3, "0")


@cache
def features_bytes() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((3, 3, 2, 2), dtype=np.float16))
    return file.getvalue()


def _features(data: bytes, folder: Path) -> None:
    backbone = TinyBackbone()
    own = pairs()
    path = features_file(backbone, own, size=32, folder=folder)
    path.write_bytes(data)
    found = image_features(backbone, own, size=32, folder=folder)
    whole = found.ndim == 4 and found.size == 3 * 3 * 2 * 2
    require(whole and len(found) == 3 and found.dtype == np.float16, f"{found.shape}")


def _partials() -> list[bytes]:
    """The state of a half-written cache, a zero byte, and the half-written file."""
    return [b'{"done": 1}\0' + features_bytes(), b'{"done": 3}\0']


def _partial(data: bytes, folder: Path) -> None:
    """Damage is computed again; it is never an error."""
    backbone, own = TinyBackbone(), pairs()
    path = features_file(backbone, own, size=32, folder=folder)
    state, _, values = data.partition(b"\0")
    path.with_suffix(".json").write_bytes(state)
    path.with_suffix(".partial").write_bytes(values)
    found = image_features(backbone, own, size=32, folder=folder)
    require(found.shape == (3, 3, 2, 2) and found.dtype == np.float16, f"{found.shape}")


def _embeddings() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        text_embeddings(TinyBackbone(), ["a cat"], folder=name)
        return [next(Path(name).iterdir()).read_bytes()]


def _texts(data: bytes, folder: Path) -> None:
    backbone, texts = TinyBackbone(), ["a cat"]
    text_embeddings(backbone, texts, folder=folder)
    next(folder.glob("texts-*")).write_bytes(data)
    found = text_embeddings(backbone, texts, folder=folder)
    require(found.shape == (1, 16) and found.dtype == torch.float32, f"{found}")


def _kept_nouns() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name, surroundings(Path(name)):
        with _written_shard(Path(name)) as path:
            index = scan(path)
            save_nouns("00000.tar", index, Path(name), [["cat"]] * len(index))
            return [next(Path(name).glob("*.nouns.json")).read_bytes()]


def _nouns(data: bytes, folder: Path) -> None:
    """The nouns kept of a shard."""
    with _written_shard(folder) as path:
        index = scan(path)
        save_nouns("00000.tar", index, folder, [])
        next(folder.glob("*.nouns.json")).write_bytes(data)
        found = load_nouns("00000.tar", index, folder)
        if found is not None:
            require(len(found) == len(index), f"nouns of {len(found)} of {len(index)} samples")
            require(all(isinstance(noun, str) for own in found for noun in own), f"{found}")


def _vocabularies() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        store = Embeddings(Path(name), "hashes")
        store.save_vocabulary(["cat", "dog"], torch.zeros(2, 7, 16))
        return [store.vocabulary_file.read_bytes()]


def _vocabulary(data: bytes, folder: Path) -> None:
    store = Embeddings(folder, "hashes")
    store.vocabulary_file.write_bytes(data)
    rows, embeddings = store.vocabulary()
    require(embeddings.ndim == 3 and len(embeddings) == len(rows), f"{embeddings.shape}")


_INDEX = "cache/shards/00000-*.index.json"

SHARD_READERS = [
    Target("shard", _shards, _shard, EXPECTED, ("00000.tar", _INDEX), repair_tar),
    Target("shard-index", _indices, _index, (), ("00000.tar", _INDEX)),
    Target("shard-info", _infos, _info, EXPECTED, ("00000.tar", "_info.json", _INDEX)),
    Target("features", lambda: [features_bytes()], _features, EXPECTED, ("features-*.npy",)),
    Target("features-partial", _partials, _partial, (), ("features-*.npy", ".alone/*")),
    Target(
        "text-embeddings",
        _embeddings,
        _texts,
        EXPECTED,
        ("texts-*.safetensors",),
        repair_safetensors,
    ),
    Target("nouns", _kept_nouns, _nouns, EXPECTED, ("00000.tar", "00000-*.nouns.json")),
    Target(
        "vocabulary", _vocabularies, _vocabulary, EXPECTED, ("vocabulary-*",), repair_safetensors
    ),
]
