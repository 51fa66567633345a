"""Work on captions that is done once: their nouns, and embeddings of all texts of a run.

One file per shard, written whole; a shard whose file is there is not done again.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mgca.backbone.base import Backbone
from mgca.data.shards.index import ShardError, shards_folder
from mgca.data.shards.sample import CorruptSample
from mgca.data.shards.shard import OpenShard
from mgca.data.shards.source import Shards
from mgca.data.shards.texts import Embeddings, load_nouns, save_nouns
from mgca.data.texts import nouns
from mgca.prompts import CLIP_TEMPLATES
from mgca.utils.processes import in_processes
from mgca.utils.progress import progress

_TEXTS_AT_ONCE = 2048
_NOUNS_AT_ONCE = 4096


def extract_nouns(shards: Shards, *, folder: Path | None = None, workers: int | None = None) -> int:
    """Extract the nouns of all captions, and keep them.

    Args:
        shards: The shards whose captions they are.
        folder: Folder to keep them in; by default the cache.
        workers: Number of processes, by default one per core.

    Returns:
        How many shards were not done before.

    Raises:
        ShardError: If shards cannot be read; all are named, and the others are done.
    """
    jobs = [(shards.only(position), folder) for position in range(len(shards.names))]
    results = in_processes(_extract_one, jobs, workers, desc="nouns", unit="shard")
    errors = [result for result in results if isinstance(result, str)]
    if errors:
        more = "".join(f"\n  {error}" for error in errors)
        raise ShardError(f"{len(errors)} of {len(jobs)} shards cannot be read:{more}")
    return sum(results)


def _extract_one(job: tuple[Shards, Path | None]) -> bool | str:
    """Whether the first of some shards was not done before, or what is wrong with it."""
    shards, folder = job
    try:
        with shards.open(0) as shard:
            if load_nouns(shards.names[0], shard.index, folder) is not None:
                return False
            words = [nouns(caption) if caption else [] for caption in _captions(shard)]
            save_nouns(shards.names[0], shard.index, folder, words)
    except ShardError as error:
        return str(error)
    return True


def _captions(shard: OpenShard) -> list[str | None]:
    """The captions of a shard; None for those that cannot be read."""
    captions = []
    for number in range(len(shard.index)):
        try:
            captions.append(shard.caption(number))
        except CorruptSample:
            captions.append(None)
    return captions


@dataclass(frozen=True)
class EmbeddingPlan:
    """What is to be embedded yet.

    Attributes:
        shards: Positions of the shards whose captions are to be embedded.
        captions: Number of these captions.
        nouns: Nouns whose texts are not in the vocabulary, sorted.
        needed: Bytes that it takes on the disk.
        free: Bytes that are free there.
        folder: Folder to keep the embeddings in.
    """

    shards: list[int]
    captions: int
    nouns: list[str]
    needed: int
    free: int
    folder: Path

    def __str__(self) -> str:
        return (
            f"embeddings of {self.captions:,} captions and of {len(self.nouns):,} nouns in "
            f"{len(CLIP_TEMPLATES)} templates: {self.needed / 2**30:.2f} GiB in {self.folder}, "
            f"{self.free / 2**30:.1f} GiB free"
        )


def plan_embeddings(
    shards: Shards, backbone: Backbone, *, folder: Path | None = None
) -> EmbeddingPlan:
    """What :func:`embed_texts` would compute, and the disk it takes.

    Args:
        shards: The shards whose captions they are.
        backbone: The encoder of the texts.
        folder: Folder to keep the embeddings in; by default the cache.

    Raises:
        ShardError: If the nouns of a shard were not extracted, or it cannot be read.
    """
    store = Embeddings(folder, backbone.text_digest)
    todo, words = [], set()
    for position, name in enumerate(shards.names):
        with shards.open(position) as shard:
            by_caption = load_nouns(name, shard.index, folder)
            if not store.captions_file(name, shard.index).is_file():
                todo.append(position)
        if by_caption is None:
            raise ShardError(f"{shards.places[position]}: its nouns are not extracted yet")
        words.update(word for caption in by_caption for word in caption)
    embedded, _ = store.vocabulary()
    captions = sum(shards.counts[position] for position in todo)
    fresh = sorted(words - set(embedded))
    texts = captions + len(fresh) * len(CLIP_TEMPLATES)
    # While it grows, the vocabulary lies there twice.
    copied = len(embedded) * len(CLIP_TEMPLATES) if fresh else 0
    target = folder or shards_folder()
    target.mkdir(parents=True, exist_ok=True)
    return EmbeddingPlan(
        shards=todo,
        captions=captions,
        nouns=fresh,
        needed=(texts + copied) * backbone.dim * 4,
        free=shutil.disk_usage(target).free,
        folder=target,
    )


def embed_texts(
    shards: Shards, backbone: Backbone, plan: EmbeddingPlan, *, folder: Path | None = None
) -> None:
    """Compute and keep float32 embeddings of all captions and of all texts made of their nouns.

    Args:
        shards: The shards whose captions they are.
        backbone: The encoder of the texts.
        plan: What :func:`plan_embeddings` gave for them.
        folder: Folder to keep the embeddings in, the one of the plan.

    Raises:
        OSError: If the disk has too little room; nothing is computed then.
        ShardError: If a shard cannot be read.
    """
    if plan.needed > 0.95 * plan.free:
        raise OSError(f"{plan}: choose a folder on another disk with --out, or make room")
    store = Embeddings(folder, backbone.text_digest)
    bar = progress(
        total=plan.captions + len(plan.nouns) * len(CLIP_TEMPLATES),
        desc=f"{backbone.name} texts",
        unit="text",
    )
    for start in range(0, len(plan.nouns), _NOUNS_AT_ONCE):
        words = plan.nouns[start : start + _NOUNS_AT_ONCE]
        texts = [template.format(word) for word in words for template in CLIP_TEMPLATES]
        new = _encode(backbone, texts, bar).view(len(words), len(CLIP_TEMPLATES), -1)
        embedded, before = store.vocabulary()
        store.save_vocabulary([*embedded, *words], torch.cat([before, new]) if embedded else new)
    for position in plan.shards:
        with shards.open(position) as shard:
            captions = _captions(shard)
            embeddings = torch.zeros(len(captions), backbone.dim)
            sound = [number for number, caption in enumerate(captions) if caption]
            if sound:
                embeddings[sound] = _encode(backbone, [captions[n] for n in sound], bar)
            store.save(shards.names[position], shard.index, embeddings)
    bar.close()


@torch.inference_mode()
def _encode(backbone: Backbone, texts: list[str], bar) -> Tensor:
    """Embeddings (n, C) float32 of texts."""
    parts = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        parts.append(backbone.encode_text(texts[start : start + _TEXTS_AT_ONCE]).float().cpu())
        bar.update(len(parts[-1]))
    return torch.cat(parts)
