"""What the protocol moves: every knob of an evaluation, for every method, on the sets of a scale.

No repository tells its readers how much of a published number is protocol. Here each knob is turned
alone, the others at the scale's own values, for methods that are measured in the same way: how far
a knob moves each of them, beside how far they are apart, and how often two change places.
``mgca experiment protocol --scale scenes`` writes ``protocol.csv``. What is trained is trained with
several seeds. The frozen encoder's features and the embeddings of the classes are kept, so that a
knob after the encoder costs seconds.
"""

import copy
import dataclasses
import itertools
import json
import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgca.backbone import UnsupportedBackbone
from mgca.backbone.affinity import EARLY, affinity_of
from mgca.config import config_hash, to_dict
from mgca.data.masks import MaskedSet, id_names
from mgca.evaluation.evaluate import evaluate, unit_name
from mgca.evaluation.intervals import bootstrap_interval, draws, resampled_miou
from mgca.evaluation.metrics import Confusion
from mgca.evaluation.results import write_run
from mgca.experiments.grid import grid
from mgca.experiments.knobs import Turn, turned_alone
from mgca.experiments.protocol_rows import COLUMNS
from mgca.experiments.runner import trained_model
from mgca.experiments.scale import Scale
from mgca.inference.scoring import rules
from mgca.model import Model
from mgca.prompts import CLASS_TEMPLATES
from mgca.utils.files import replacing, write_text
from mgca.utils.processes import threads
from mgca.utils.provenance import provenance
from mgca.weights.decoders import decoder_from, learned_sigmoid, read_decoder

log = logging.getLogger(__name__)

# What :func:`protocol_table` was asked for where it was published. On photographs only knobs that
# leave the windows as they are: the others take hours.
PUBLISHED: dict[str, dict[str, Any]] = {
    "scenes": {"limit": 20, "seeds": (0, 1, 2, 3, 4)},
    "photos": {
        "limit": 20,
        "without": (
            "refinement", "class names", "shorter side", "windows", "joining of windows", "size",
            "resize", "padding", "positions", "threshold",
        ),
    },
}  # fmt: skip
# Of what the grid ``benchmarks`` trains.
TRAINED = ("tcl", "mgca", "naclip+mgca")
UNITS: tuple[int | None, ...] = (None, 16, 36, 64)
_SAMPLES = 1_000


class PerImage:
    """A counter that keeps the confusion matrix and the labels of each image.

    Args:
        classes: Number of classes.
    """

    tables = ()  # nothing that an interrupted evaluation goes on from

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._counts: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, maps (H, W) of class ids."""
        one = Confusion(self._classes)
        one.add(predicted, truth)
        self._counts.append(one.counts)
        self._labels.append(predicted.astype(np.int16))

    @property
    def counts(self) -> np.ndarray:
        """(N, K, K) confusion matrices of the images."""
        return np.stack(self._counts)

    def changed(self, other: "PerImage") -> float:
        """Percent of the pixels that another counter of the same images labels otherwise."""
        pairs = list(zip(self._labels, other._labels, strict=True))
        return 100 * sum((a != b).sum() for a, b in pairs) / sum(a.size for a, _ in pairs)


def interval(one: np.ndarray, other: np.ndarray, samples: int = _SAMPLES) -> tuple[float, float]:
    """Paired interval of the difference in mIoU: images are drawn anew, the same for both.

    Args:
        one: (N, K, K) confusion matrices of the images.
        other: Those of the same images, evaluated otherwise.
        samples: Number of draws.
    """
    drawn = draws(len(one), samples)
    low, high, _ = bootstrap_interval(resampled_miou(one, drawn) - resampled_miou(other, drawn))
    return low, high


def methods(
    scale: Scale,
    seeds: Sequence[int],
    work: str | os.PathLike[str],
    only: Collection[tuple[str, int]] | None = None,
) -> dict[tuple[str, int], Model]:
    """The methods of a scale by name and seed: the frozen ones once, ``TRAINED`` with each seed.

    Args:
        scale: The scale.
        seeds: Seeds of what is trained; the first is that of the frozen ones.
        work: Folder of runs, in which what has been trained is found, and else trained.
        only: Those that are wanted; None for all.
    """
    found = {}
    for variant in grid("benchmarks", scale):
        if variant.train and variant.name not in TRAINED:
            continue
        for seed in seeds if variant.train else seeds[:1]:
            if only is not None and (variant.name, seed) not in only:
                continue
            folder = scale.run_folder(Path(work), variant, seed)
            found[variant.name, seed] = trained_model(variant, seed, scale, folder)
    return found


def protocol_table(
    scale: Scale,
    out: str | os.PathLike[str],
    names: Sequence[str] = (),
    *,
    work: str | os.PathLike[str],
    seeds: Sequence[int] = (0,),
    others: Mapping[str, str | os.PathLike[str]] | None = None,
    limit: int | None = None,
    without: Sequence[str] = (),
) -> pd.DataFrame:
    """Every knob at each of its values for every method of a scale: ``protocol.csv``, a record.

    Args:
        scale: The scale.
        out: Results folder.
        names: Names of the sets; the scale's own where empty.
        work: Folder of runs, in which what is trained and what is measured of each method on each
            set is kept, so that an interrupted call, or one with a further method, goes on.
        seeds: Seeds of what is trained.
        others: Files of further decoders by the name of the method; each says its last block.
        limit: Number of first images of each set; None for all.
        without: Knobs that are left alone.

    Raises:
        ValueError: If there is no such knob.
    """
    every = turned_alone(scale.segment(), without)
    with threads(scale.threads):
        chosen = methods(scale, seeds, work)
        for name, path in (others or {}).items():
            state, meta = read_decoder(path)
            backbone = scale.backbone(0, meta.get("last_block", "value"))
            decoder = decoder_from(state, meta, backbone)
            scoring = rules(learned_sigmoid(meta))
            chosen[name, 0] = Model(backbone, decoder, scale.segment(), scoring)
        table, record = _computed(scale, chosen, scale.sets(names), every, work, limit)
    write_run(out, table["run"].iloc[0], record)
    with replacing(Path(out) / "protocol.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def protocol_parts(
    scale: Scale,
    parts: Collection[tuple[str, int, str]],
    *,
    work: str | os.PathLike[str],
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
    without: Sequence[str] = (),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Some parts of the table alone, and their record; nothing is trained for the others.

    Args:
        scale: The scale.
        parts: Method, seed and set of each.
        work: As of :func:`protocol_table`, and all that follow.
    """
    every = turned_alone(scale.segment(), without)
    sets = [data for data in scale.sets() if data.name in {name for *_, name in parts}]
    with threads(scale.threads):
        chosen = methods(scale, seeds, work, {(method, seed) for method, seed, _ in parts})
        return _computed(scale, chosen, sets, every, work, limit, parts)


def _computed(
    scale: Scale,
    chosen: Mapping[tuple[str, int], Model],
    sets: Sequence[MaskedSet],
    every: Sequence[Turn],
    work: str | os.PathLike[str],
    limit: int | None,
    only: Collection[tuple[str, int, str]] | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of some methods on some sets, or of these parts of them alone, and their record."""
    config = {
        "scale": scale.name,
        "settings": scale.settings,
        "methods": [[*n, m.backbone.digest, m.trained] for n, m in chosen.items()],
        "sets": [[data.name, data.digest, limit or len(data)] for data in sets],
        "turns": [to_dict(turn) for turn in every],
        "units": [unit_name(unit) for unit in UNITS],
    }
    run = config_hash(config)
    rows, seconds = [], 0.0
    # By text encoder. Copies of one model share the embeddings of the classes.
    first: dict[str, Model] = {}
    for number, data in enumerate(map(_Read, sets, itertools.repeat(limit))):
        for (method, seed), model in chosen.items():
            if only is not None and (method, seed, data.name) not in only:
                continue
            same_texts = first.setdefault(model.backbone.text_digest, model)
            own = [model.backbone.digest, model.trained]
            own = {"methods": own, "sets": config["sets"][number]}
            path = Path(work, f"protocol-{config_hash(config | own)}.json")
            if path.is_file():
                part = json.loads(path.read_text())
            else:
                part = _measured(scale, same_texts, model, data, every)
                write_text(path, json.dumps(part))
            rows += [[method, seed, data.name, *row, run] for row in part["rows"]]
            seconds += part["seconds"]
    digests = {data.name: data.digest for data in sets}
    record = provenance(config, seed=0, data=digests, seconds=seconds)
    return pd.DataFrame(rows, columns=COLUMNS), record


def _measured(
    scale: Scale, same_texts: Model, model: Model, data: "_Read", every: Sequence[Turn]
) -> dict[str, Any]:
    """The rows of a method on a set, without what names both, and the seconds that they took."""
    began = time.perf_counter()
    rows = []
    done: dict[str, dict[str, PerImage]] = {}
    for turn in every:
        if not _has_meaning(scale, turn, data, model):
            continue
        turned = copy.copy(same_texts)
        turned.backbone, turned.decoder = model.backbone, model.decoder
        turned.scoring = model.scoring
        found = done[turn.value] = _counted(scale, turned, data, turn)
        for unit, counter in found.items():
            reference = done[turn.against][unit]
            counts, before = counter.counts, reference.counts
            numbers = [_miou(counts), _miou(counts) - _miou(before), *interval(counts, before)]
            numbers.append(counter.changed(reference))
            shown = [round(float(number), 3) for number in numbers]
            rows.append([turn.knob, turn.value, unit, *shown])
        log.info("%s: %s %s", data.name, turn.knob, turn.value)
    return {"rows": rows, "seconds": time.perf_counter() - began}


def _miou(counts: np.ndarray) -> float:
    """Mean IoU in percent of all images, of their confusion matrices (N, K, K)."""
    return float(resampled_miou(counts, np.ones((1, len(counts))))[0])


def _counted(scale: Scale, turned: Model, data: "_Read", turn: Turn) -> dict[str, PerImage]:
    """What a model makes of the images with a knob turned, by unit."""
    turned.config = dataclasses.replace(turned.config, **turn.segment)
    turned.templates = turn.templates or CLASS_TEMPLATES
    background = scale.background(turned)
    if turn.background is not None:
        background["background"] = turn.background
    counters = {unit_name(unit): PerImage(len(id_names(data))) for unit in UNITS}
    own = turned.backbone.mean, turned.backbone.std
    try:
        if turn.statistics == "imagenet":
            from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

            turned.backbone.mean, turned.backbone.std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        evaluate(
            turned,
            data,
            UNITS,
            words=_words(scale, data) if turn.synonyms else None,
            # Kept by trunk and windows, which do not name other statistics.
            features=None if turn.statistics else scale.cache,
            counters={unit: [counter] for unit, counter in counters.items()},
            **background,
        )
    finally:
        turned.backbone.mean, turned.backbone.std = own
    return counters


def _has_meaning(scale: Scale, turn: Turn, data: "_Read", model: Model) -> bool:
    """Whether a knob is one of this set and this model."""
    if turn.synonyms:
        return bool(_words(scale, data))
    if "affinity" in turn.segment:
        try:
            affinity_of(EARLY, model.backbone)
        except UnsupportedBackbone:
            return False
    return turn.background is None or data.background


def _words(scale: Scale, data: "_Read") -> dict[str, tuple[str, ...]]:
    """The classes of a set, each with the scale's other word for it; empty where it has none."""
    other = dict(scale.synonyms) | {word: name for name, word in scale.synonyms.items()}
    if not other.keys() & set(data.classes):
        return {}
    return {name: (name, other[name]) if name in other else (name,) for name in data.classes}


class _Read:
    """The first images of a set, each read, or drawn, once."""

    def __init__(self, data: MaskedSet, count: int | None) -> None:
        self._data, self._count = data, min(count or len(data), len(data))
        self._items: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if index not in self._items:
            self._items[index] = self._data[index]
        return self._items[index]
