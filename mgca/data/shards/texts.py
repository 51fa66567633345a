"""What is computed once of the captions of a shard: their nouns, and embeddings of their texts.

Files are named by the samples of a shard, whatever its place, and by the text encoder.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgca.config import config_hash
from mgca.data.shards.index import Index, ShardError, shards_folder
from mgca.data.shards.sample import Drawn
from mgca.utils.files import write_text
from mgca.weights import WeightsError, read_tensors, write_tensors


def _file(folder: Path | None, name: str, index: Index, ending: str) -> Path:
    stem = name.rpartition("/")[2].removesuffix(".tar")
    return (folder or shards_folder()) / f"{stem}-{index.digest}.{ending}"


def _tagger() -> str:
    return f"HanTa {version('HanTa')}"


def load_nouns(name: str, index: Index, folder: Path | None) -> list[list[str]] | None:
    """The nouns of each caption of a shard, empty for those that cannot be read; None if they were
    not extracted, or by another version of the tagger.

    Raises:
        ShardError: If the file is damaged.
    """
    path = _file(folder, name, index, "nouns.json")
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tagger, nouns = content["tagger"], content["nouns"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    if tagger != _tagger():
        return None
    if not isinstance(nouns, list) or len(nouns) != len(index) or not all(map(_is_words, nouns)):
        raise _damaged(path, f"not the nouns of {len(index)} captions")
    return nouns


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _damaged(path: Path, reason: object) -> ShardError:
    return ShardError(
        f"{path} is damaged ({reason}): delete it, and run `mgca data captions` again"
    )


def save_nouns(name: str, index: Index, folder: Path | None, nouns: list[list[str]]) -> None:
    """Keep the nouns of each caption of a shard."""
    text = json.dumps({"tagger": _tagger(), "nouns": nouns}, ensure_ascii=False)
    write_text(_file(folder, name, index, "nouns.json"), text)


def _read(path: Path, ndim: int, rows: int | None = None) -> tuple[Tensor, dict[str, str]]:
    """The embeddings of a file and its metadata, of so many dimensions and rows."""
    try:
        state, meta = read_tensors(path)
        embeddings = state["embeddings"]
    except (WeightsError, KeyError) as error:
        raise _damaged(path, error) from error
    if embeddings.ndim != ndim or (rows is not None and len(embeddings) != rows):
        raise _damaged(path, f"its embeddings are {tuple(embeddings.shape)}")
    return embeddings, meta


class Embeddings:
    """Embeddings of captions, by shard, and of all texts generated from nouns, in one vocabulary.

    Args:
        folder: Folder that holds them; by default the cache.
        text_digest: Digest of the text encoder.
    """

    def __init__(self, folder: Path | None, text_digest: str) -> None:
        self.folder = folder
        self.encoder = config_hash({"text": text_digest})
        self._vocabulary: tuple[dict[str, int], Tensor] | None = None

    @property
    def vocabulary_file(self) -> Path:
        """Where the vocabulary is kept."""
        return (self.folder or shards_folder()) / f"vocabulary-{self.encoder}.safetensors"

    def captions_file(self, name: str, index: Index) -> Path:
        """Where the captions of a shard are kept."""
        return _file(self.folder, name, index, f"captions-{self.encoder}.safetensors")

    def load(self, name: str, index: Index) -> Tensor | None:
        """Embeddings (n, C) of the captions of a shard, 0 for those that cannot be read; None if
        they were not computed.

        Raises:
            ShardError: If the file is damaged.
        """
        path = self.captions_file(name, index)
        return _read(path, 2, len(index))[0] if path.is_file() else None

    def save(self, name: str, index: Index, embeddings: Tensor) -> None:
        """Keep the embeddings (n, C) of the captions of a shard."""
        write_tensors(self.captions_file(name, index), {"embeddings": embeddings}, {})

    def vocabulary(self) -> tuple[dict[str, int], Tensor]:
        """The row of each noun, and the embeddings (nouns, templates, C).

        Raises:
            ShardError: If the file is damaged.
        """
        if self._vocabulary is None:
            if not self.vocabulary_file.is_file():
                return {}, torch.empty(0)
            embeddings, meta = _read(self.vocabulary_file, 3)
            try:
                rows = {noun: row for row, noun in enumerate(json.loads(meta["nouns"]))}
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise _damaged(self.vocabulary_file, error) from error
            if len(rows) != len(embeddings):
                raise _damaged(self.vocabulary_file, f"{len(rows)} nouns")
            self._vocabulary = rows, embeddings
        return self._vocabulary

    def save_vocabulary(self, nouns: list[str], embeddings: Tensor) -> None:
        """Keep the embeddings (nouns, templates, C) of the texts generated from nouns."""
        meta = {"nouns": json.dumps(nouns)}
        write_tensors(self.vocabulary_file, {"embeddings": embeddings}, meta)
        self._vocabulary = None

    def of(self, captions: Tensor | None, number: int, drawn: Drawn) -> Tensor | None:
        """The embedding (C) of a text drawn for a sample; None if it was not computed.

        Args:
            captions: What :meth:`load` gave for the shard.
            number: Position of the sample in the shard.
            drawn: The text that was drawn for it.
        """
        if captions is None:
            return None
        if drawn.noun is None:
            return captions[number]
        rows, embeddings = self.vocabulary()
        row = rows.get(drawn.noun)
        return None if row is None else embeddings[row, drawn.template]
