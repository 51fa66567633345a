"""What the protocol moves: every knob of an evaluation, for every method, on the sets of a scale.

No repository tells its readers how much of a published number is protocol. Here each knob is turned
alone, the others at the scale's own values, for methods that are measured in the same way: how far
a knob moves each of them, beside how far they are apart, and how often two change places.
``mgca experiment protocol --scale scenes`` writes ``protocol.csv``. The frozen encoder's features
are kept, so that a knob after the encoder costs seconds.
"""

import dataclasses
import itertools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mgca.backbone import UnsupportedBackbone
from mgca.backbone.affinity import EARLY, affinity_of
from mgca.config import SegmentConfig, config_hash, to_dict
from mgca.data.masks import MaskedSet, id_names
from mgca.evaluation.conventions import TCL_PROTOCOL
from mgca.evaluation.evaluate import evaluate, unit_name
from mgca.evaluation.results import write_run
from mgca.experiments.scale import Scale
from mgca.inference.scoring import rules
from mgca.model import Model
from mgca.prompts import CLASS_TEMPLATES, CLIP_TEMPLATES
from mgca.utils.files import replacing
from mgca.utils.provenance import provenance
from mgca.weights import load_weights, manifest
from mgca.weights.decoders import decoder_from, learned_sigmoid, read_decoder

log = logging.getLogger(__name__)

COLUMNS = [
    "method", "dataset", "knob", "value", "unit", "miou", "difference", "low", "high", "run",
]  # fmt: skip
USUAL = "usual"  # the value that a knob has in the published tables
UNITS: tuple[int | None, ...] = (None, 16, 36, 64)
_SAMPLES, _INTERVAL = 1_000, (2.5, 97.5)


@dataclass(frozen=True)
class Turn:
    """A knob at another value than the usual one.

    Attributes:
        knob: Name of the knob.
        value: Name of the value.
        segment: Fields of :class:`mgca.config.SegmentConfig` that differ.
        templates: Templates of class names; None for the usual ones.
        statistics: Statistics of pixels, ``"imagenet"``; None for the encoder's own.
        background: Threshold, of sets with a background; None for the scale's own.
    """

    knob: str
    value: str
    segment: Mapping[str, Any] = field(default_factory=dict)
    templates: tuple[str, ...] | None = None
    statistics: str | None = None
    background: float | None = None


def turns(usual: SegmentConfig) -> list[Turn]:
    """The knobs, each at its other values; units are measured with each of them."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    eighty = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    side, window = usual.short_side, usual.window
    larger = {"short_side": side * 3 // 2}
    return [
        Turn("templates", "1", templates=("a photo of a {}.",)),
        Turn("templates", "7", templates=CLIP_TEMPLATES),
        Turn("templates", "80", templates=eighty),
        Turn("statistics", "imagenet", statistics="imagenet"),
        Turn("shorter side", f"{side * 3 // 2}", larger),
        Turn("shorter side", f"{side // 2}", {"short_side": side // 2}),
        Turn("windows", f"{window // 2}, stride {window // 4}",
             {"window": window // 2, "stride": window // 4}),
        Turn("joining of windows", "middle", {"blend": "middle"}),
        *(Turn(name, value, {name: value}) for name, value in TCL_PROTOCOL.items()),
        Turn("average", "normalised", {"average": "normalised"}),
        Turn("placement", "corner", {"placement": "corner"}),
        Turn("affinity", "early", {"affinity": "early"}),
        *(Turn("threshold", f"{t:g}", background=t) for t in (0.0, 0.25, 0.75, 0.9)),
    ]  # fmt: skip


class PerImage:
    """A counter that keeps a confusion matrix for each image.

    Args:
        classes: Number of classes.
        ignore: Id of pixels that do not count.
    """

    tables = ("counts",)

    def __init__(self, classes: int, ignore: int = 255) -> None:
        self.ignore = ignore
        self.counts = np.zeros((0, classes, classes), dtype=np.int64)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Count an image, maps (H, W) of class ids."""
        classes = self.counts.shape[1]
        counted = truth != self.ignore
        flat = truth[counted].astype(np.int64) * classes + predicted[counted]
        one = np.bincount(flat, minlength=classes**2).reshape(1, classes, classes)
        self.counts = np.concatenate([self.counts, one])


def miou(counts: np.ndarray) -> np.ndarray:
    """Mean IoU in percent of confusion matrices (..., K, K), over the classes that occur."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, predicted = counts.sum(-1), counts.sum(-2)
    iou = np.where(truth > 0, hit / np.maximum(truth + predicted - hit, 1), np.nan)
    return 100 * np.nanmean(iou, axis=-1)


def interval(one: np.ndarray, other: np.ndarray, samples: int = _SAMPLES) -> tuple[float, float]:
    """Paired interval of the difference in mIoU: images are drawn anew, the same for both.

    Args:
        one: (N, K, K) confusion matrices of the images.
        other: Those of the same images, evaluated otherwise.
        samples: Number of draws.
    """
    draws = np.random.default_rng(0).multinomial(len(one), np.full(len(one), 1 / len(one)), samples)
    means = [miou(np.tensordot(draws, each, axes=1)) for each in (one, other)]
    low, high = np.percentile(means[0] - means[1], _INTERVAL)
    return float(low), float(high)


def methods(scale: Scale) -> dict[str, Model]:
    """The methods of a scale that need no training: frozen ones, and the published decoder."""
    found = {
        name: Model(scale.backbone(0, block), None, scale.segment())
        for name, block in scale.frozen.items()
    }
    published = scale.published_backbone()
    name = f"{scale.training.backbone}-mgca"
    if name in manifest():
        state, meta = load_weights(name)
        found["mgca"] = Model(published, decoder_from(state, meta, published), scale.segment())
    return found


def protocol_table(
    scale: Scale,
    out: str | os.PathLike[str],
    names: Sequence[str] = (),
    *,
    others: Mapping[str, str | os.PathLike[str]] | None = None,
    limit: int | None = None,
) -> pd.DataFrame:
    """Every knob at each of its values for every method of a scale: ``protocol.csv``, a record.

    Args:
        scale: The scale.
        out: Results folder.
        names: Names of the sets; the scale's own where empty.
        others: Files of further decoders by the name of the method, such as those of
            ``mgca experiment run benchmarks`` in its folder of runs; each says its last block.
        limit: Number of first images of each set; None for all.
    """
    began = time.perf_counter()
    chosen = methods(scale)
    for name, path in (others or {}).items():
        state, meta = read_decoder(path)
        backbone = scale.backbone(0, meta.get("last_block", "value"))
        decoder = decoder_from(state, meta, backbone)
        chosen[name] = Model(backbone, decoder, scale.segment(), rules(learned_sigmoid(meta)))
    sets = scale.sets(names)
    every = [Turn(USUAL, USUAL), *turns(scale.segment())]
    config = {
        "scale": scale.name,
        "settings": scale.settings,
        "methods": {n: [m.backbone.digest, m.trained] for n, m in chosen.items()},
        "sets": [[data.name, data.digest, limit or len(data)] for data in sets],
        "turns": [to_dict(turn) for turn in every],
        "units": [unit_name(unit) for unit in UNITS],
    }
    run = config_hash(config)
    rows = []
    for (method, model), data in itertools.product(chosen.items(), sets):
        usual: dict[str, np.ndarray] = {}
        for turn in every:
            if turn.background is not None and not data.background:
                continue
            if "affinity" in turn.segment and not _has_early_stage(model):
                continue
            found = _counted(scale, model, data, turn, limit)
            usual = usual or found
            for unit, counts in found.items():
                low, high = interval(counts, usual[unit])
                value = float(miou(counts.sum(0)))
                rows.append([
                    method, data.name, turn.knob, turn.value, unit, round(value, 3),
                    round(value - float(miou(usual[unit].sum(0))), 3),
                    round(low, 3), round(high, 3), run,
                ])  # fmt: skip
            log.info("%s on %s: %s %s", method, data.name, turn.knob, turn.value)
    table = pd.DataFrame(rows, columns=COLUMNS)
    record = provenance(
        config,
        seed=0,
        data={data.name: data.digest for data in sets},
        seconds=time.perf_counter() - began,
    )
    write_run(out, run, record)
    with replacing(Path(out) / "protocol.csv") as temporary:
        table.to_csv(temporary, index=False)
    return table


def _counted(
    scale: Scale, model: Model, data: MaskedSet, turn: Turn, limit: int | None
) -> dict[str, np.ndarray]:
    """Confusion matrices (N, K, K) of the images with a knob turned, by unit."""
    turned = Model(
        model.backbone,
        model.decoder,
        dataclasses.replace(model.config, **turn.segment),
        model.scoring,
    )
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
            data if limit is None else _First(data, limit),
            UNITS,
            # Kept by trunk and windows, which do not name other statistics.
            features=None if turn.statistics else scale.cache,
            counters={unit: [counter] for unit, counter in counters.items()},
            **background,
        )
    finally:
        turned.backbone.mean, turned.backbone.std = own
    return {unit: counter.counts for unit, counter in counters.items()}


def _has_early_stage(model: Model) -> bool:
    try:
        affinity_of(EARLY, model.backbone)
    except UnsupportedBackbone:
        return False
    return True


class _First:
    """The first images of a set."""

    def __init__(self, data: MaskedSet, count: int) -> None:
        self._data, self._count = data, min(count, len(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._data[index]

    def __iter__(self) -> Any:
        return (self._data[index] for index in range(self._count))


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """How far each knob moves each method, in points of mIoU: largest minus smallest, usual one
    among them; beside it, under ``"methods"``, how far the methods are apart with all as usual.

    Returns:
        A line for each set, unit and knob; a column for each method.
    """
    keys = ["dataset", "unit"]
    usual = table[table["knob"] == USUAL]
    lines = []
    for knob, part in table[table["knob"] != USUAL].groupby("knob", sort=False):
        both = pd.concat([part, usual.merge(part[[*keys, "method"]].drop_duplicates())])
        moved = both.groupby([*keys, "method"])["miou"].agg(lambda each: each.max() - each.min())
        lines.append(moved.unstack("method").assign(knob=knob))
    apart = usual.groupby(keys)["miou"].agg(lambda each: each.max() - each.min())
    return pd.concat(lines).assign(methods=apart).set_index("knob", append=True)


def turned_around(table: pd.DataFrame) -> pd.DataFrame:
    """How often two methods change places when a knob is turned, as a share of their pairs.

    Returns:
        Columns ``knob``, ``pairs`` and ``turned``, the number of pairs over all sets, units and
        values, and of those whose order is another one than with all as usual.
    """
    usual = table[table["knob"] == USUAL].set_index(["dataset", "unit", "method"])["miou"]
    counts: dict[str, list[int]] = {}
    keys = ["knob", "value", "dataset", "unit"]
    for (knob, _, dataset, unit), part in table[table["knob"] != USUAL].groupby(keys, sort=False):
        now = part.set_index("method")["miou"]
        before = usual[dataset, unit]
        for one, other in itertools.combinations(now.index, 2):
            count = counts.setdefault(knob, [0, 0])
            count[0] += 1
            count[1] += bool((now[one] - now[other]) * (before[one] - before[other]) < 0)
    rows = [[knob, pairs, turned] for knob, (pairs, turned) in counts.items()]
    return pd.DataFrame(rows, columns=["knob", "pairs", "turned"])
