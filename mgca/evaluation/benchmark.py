"""An evaluation from its name: what is evaluated on what, once, with where it came from.

An evaluation is named by the hash of all that its numbers depend on. Its record and its confusion
matrices are kept under that name, so that asking again costs nothing, and an interrupted one goes
on.
"""

import copy
import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch.utils.data import Dataset

from mgca.config import BACKGROUND, SegmentConfig, config_hash, to_dict
from mgca.data.benchmarks import classes as text_queries
from mgca.data.benchmarks import dataset_config, load_benchmark
from mgca.data.benchmarks.files import list_items
from mgca.data.benchmarks.stamps import stat_of
from mgca.data.masks import IGNORE, DataError, Masked, MaskedSet, id_names
from mgca.evaluation import shares
from mgca.evaluation.evaluate import WINDOWS, State, evaluate, measured_rows, unit_name
from mgca.evaluation.metrics import Confusion, Contours
from mgca.evaluation.results import add_results, read_results, read_run, row, write_run
from mgca.inference.scoring import SOFTMAX, rest_of
from mgca.model import Model
from mgca.prompts import CLASS_TEMPLATES, check_words
from mgca.utils.files import replacing
from mgca.utils.provenance import provenance


@dataclass(frozen=True)
class Subject:
    """What is evaluated on.

    Attributes:
        name: Name in the tables.
        data: Images with masks.
        stamps: One for each image, which changes when it or its mask does.
        complete: Whether it is the whole of a benchmark, so that numbers compare with published
            ones.
        segment: Resizing and windows, those of :data:`WINDOWS`; None for the model's own.
        mmsegmentation: Whether mmsegmentation counts too.
        words: Words that the classes are asked for as, by name, the background's among them where
            it has some; None for the names themselves.
    """

    name: str
    data: MaskedSet
    stamps: tuple[tuple, ...]
    complete: bool = False
    segment: SegmentConfig | None = None
    mmsegmentation: bool = False
    words: Mapping[str, tuple[str, ...]] | None = None

    def asked(self, words: Mapping[str, Sequence[str]]) -> "Subject":
        """The subject with words for its classes.

        Args:
            words: Words in the order of the ids, under whatever names; the background's are first
                where there are as many as ids.

        Raises:
            DataError: If there are not as many as classes.
        """
        given = list(words.values())
        names = self.names if len(given) == len(self.names) else self.data.classes
        if len(given) != len(names):
            raise DataError(
                f"{len(given)} lines of words, and {self.name} has {len(names)} classes"
            )
        chosen = check_words(dict(zip(names, given, strict=True)))
        several = any(own != (name,) for name, own in chosen.items())
        return dataclasses.replace(self, words=chosen if several else None)

    @property
    def ids(self) -> str:
        """How ids on disk are read, where it is not as usual."""
        if getattr(self.data, "foreground", None) is not None:
            return f"{self.data.foreground} is the foreground"
        return "0 is ignored" if getattr(self.data, "subtract", 0) else ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all the ids, the background included."""
        return id_names(self.data)


class BenchmarkSet:
    """A set of mmsegmentation as one of this project, a :class:`mgca.data.masks.MaskedSet`.

    Args:
        name: Name of the benchmark.
        dataset: The set, with the transforms of ``mgca.evaluation.mmseg.PIPELINE``.
        classes: Names that are asked for, without "background".
        background: Whether the first id is the background.
        digest: Name of the images and masks.
        length: Number of its first images that are taken.
    """

    def __init__(
        self,
        name: str,
        dataset: Dataset,
        classes: Sequence[str],
        background: bool,
        digest: str,
        length: int,
    ) -> None:
        self.name = self.source = name
        self.dataset, self.digest, self.length = dataset, digest, length
        self.classes, self.background = tuple(classes), background

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[str, Image.Image, np.ndarray]:
        """Identifier, image and mask (H, W) of an item.

        Raises:
            FileNotFoundError, ImageError, DataError: If the image or its mask cannot be used.
        """
        item = self.dataset[index]
        sample = item["data_samples"]
        ids, last = sample.gt_sem_seg.data[0].numpy(), len(id_names(self)) - 1
        if ((ids != IGNORE) & (ids > last)).any():
            raise DataError(
                f"{sample.seg_map_path}: the mask has ids outside 0 to {last}: check the set with "
                f"'mgca data check {self.name}'"
            )
        image = Image.fromarray(item["inputs"].permute(1, 2, 0).numpy())
        return Path(sample.img_path).stem, image, ids

    def __iter__(self) -> Iterator[tuple[str, Image.Image, np.ndarray]]:
        return (self[index] for index in range(len(self)))


def benchmark(name: str, root: str | os.PathLike, limit: int | None = None) -> Subject:
    """One of the eight benchmarks.

    Args:
        name: Name of the benchmark.
        root: Folder that its files lie in.
        limit: Number of first images that are taken, for a quick look; None for all.

    Raises:
        ImportError: If mmsegmentation is not installed.
        ValueError: If there is no such benchmark, or its list names no image.
        FileNotFoundError: If one of its files is missing.
    """
    from mgca.evaluation.mmseg import DATASETS, PIPELINE

    chosen = load_benchmark(name)
    items = list_items(chosen, root)
    for item in items:
        for path in (item.image, item.mask):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{name}: {path} is missing: run 'mgca data check {name} --root {root}'"
                )
    dataset = DATASETS.build(dataset_config(chosen, root) | {"pipeline": PIPELINE})
    if len(dataset) != len(items):
        raise ValueError(f"{name}: mmsegmentation finds {len(dataset)} images, not {len(items)}")
    protocol = chosen.protocol
    items = items[:limit]
    sizes = [
        [(os.path.relpath(path, root), path.stat().st_size) for path in (item.image, item.mask)]
        for item in items
    ]
    digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
    return Subject(
        name,
        BenchmarkSet(name, dataset, text_queries(chosen), chosen.background, digest, len(items)),
        tuple(_stamp(item.image, item.mask) for item in items),
        complete=len(items) == chosen.image_count,
        segment=SegmentConfig(
            short_side=protocol.short_side,
            long_side=protocol.long_side,
            window=protocol.window,
            stride=protocol.stride,
        ),
        mmsegmentation=True,
    )


def masked(data: MaskedSet, name: str | None = None) -> Subject:
    """A set of this project: of the scenes, or :func:`mgca.data.masks.load_folder`.

    Args:
        data: The set.
        name: Name in the tables; by default the set's own.
    """
    if isinstance(data, Masked):
        stamps = tuple(_stamp(image, mask) for _, image, mask in data.items)
    else:
        stamps = ((data.digest,),) * len(data)  # drawn, not read
    return Subject(name or data.name, data, stamps)


def _stamp(*paths: Path) -> tuple:
    """Changes when one of the files does."""
    return tuple((path.name, *stat_of(path)) for path in paths)


class Evaluation:
    """One model on one subject.

    Args:
        model: Model to be evaluated, with the subject's windows.
        variant: Its name in the tables.
        subject: What it is evaluated on.
        units: Numbers of meta-points, None for the pixel unit.
        threshold: Threshold of the background; without effect for sets without.
        temperature: Temperature of the softmax over classes, by default the backbone's.
        rule: Name of the rule that makes probabilities, as in :meth:`mgca.model.Model.segment`.
        seed: Seed of the run that trained the model.
        contours: Whether the record has all the metrics of
            :func:`mgca.evaluation.evaluate.measure`, under ``"measured"``.

    Raises:
        ValueError: If the set has a background and no threshold is given, or the model does not
            have the rule.
    """

    def __init__(
        self,
        model: Model,
        variant: str,
        subject: Subject,
        units: Sequence[int | None] = (None, 36),
        *,
        threshold: float | Mapping[str, float] | None = None,
        temperature: float | None = None,
        rule: str = SOFTMAX,
        seed: int = 0,
        contours: bool = False,
    ) -> None:
        softmax, data = model.rule_named(rule).softmax, subject.data
        if data.background and threshold is None and BACKGROUND not in (subject.words or ()):
            raise ValueError(
                f"{subject.name} has a background: give its threshold, --background. "
                "'mgca calibrate' finds it on images of your own"
            )
        self.model = copy.copy(model)
        if subject.segment:
            windows = {name: getattr(subject.segment, name) for name in WINDOWS}
            self.model.config = dataclasses.replace(model.config, **windows)
        self.variant, self.subject, self.units = variant, subject, tuple(units)
        self.threshold = threshold if data.background else None
        self.temperature = model.backbone.temperature if temperature is None else temperature
        self.rule, self.seed, self.contours = rule, seed, contours
        backbone = self.model.backbone
        self.config = {
            "model": type(model).__name__,
            "backbone": [backbone.name, backbone.digest, backbone.text_digest],
            "statistics": [list(backbone.mean), list(backbone.std)],
            "decoder": self.model.trained,
            "segment": to_dict(dataclasses.replace(self.model.config, meta_points=None)),
            "units": [unit_name(unit) for unit in units],
            "set": [data.name, data.digest, len(data)],
            "classes": list(data.classes),
            "templates": list(CLASS_TEMPLATES),
            "background": self.threshold,
            "temperature": self.temperature if data.background else None,
            # That of GroupViT changes scores too, and not only the background.
            "rule": rule if data.background or rule == "groupvit" else None,
        }
        # What is not the default alone, so that the names of other evaluations stay.
        if subject.ids:
            self.config["ids"] = subject.ids
        words = subject.words or check_words(data.classes)
        if subject.words:
            self.config["words"] = to_dict(dict(words))
        if model.precision != "float32":
            self.config["precision"] = model.precision
        if data.background and len(words) == 1 and softmax:
            self.config["rest"] = rest_of(data.classes[0], *words[data.classes[0]])
        self.run = config_hash(self.config)

    def result(self, out: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Confusion]] | None:
        """The record and the confusion matrices, if the evaluation is finished.

        Raises:
            DataError: If one of their files is damaged.
        """
        path = Path(out) / "runs" / f"{self.run}.npz"
        # The record is written last: without it, the evaluation is not finished.
        if not (path.is_file() and path.with_suffix(".json").is_file()):
            return None
        found = {}
        try:
            with np.load(path) as kept:
                for name in map(unit_name, self.units):
                    counts = kept[name]
                    found[name] = Confusion(len(counts))
                    found[name].counts, found[name].ignored = counts, kept["ignored"]
            record = read_run(out, self.run)
            if "complete" not in record:
                raise KeyError("complete")
            if self.contours and "measured" not in record:
                return None
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} or the .json beside it is damaged ({error}): evaluate afresh, --fresh"
            ) from error
        return record, found

    def compute(
        self,
        out: str | os.PathLike,
        work: str | os.PathLike,
        *,
        workers: int = 0,
        fresh: bool = False,
    ) -> tuple[dict[str, Any], dict[str, Confusion]]:
        """The record and the confusion matrices; computed if ``out`` does not hold them.

        Writes ``<out>/evaluation.csv``, the record, and the confusion matrices.

        Args:
            out: Results folder.
            work: Folder of what is unfinished.
            workers: Number of processes that read images ahead.
            fresh: Whether to compute again what is there.

        Raises:
            FileNotFoundError, ImageError, DataError: If an image or a mask cannot be used; the
                next call goes on from there.
            OSError: If a folder cannot be written to.
        """
        rank, world = shares.place()
        done = None if fresh else self.result(out)
        if shares.agreed(done is not None) and done:
            if not rank:
                self._tabulate(out, done[1])
            return done
        share = "counted.npz" if world == 1 else f"counted-{rank}-of-{world}.npz"
        state = State(self._folder(work) / share, shares.own(self.subject.stamps))
        if fresh:
            state.path.unlink(missing_ok=True)
        # At the start rather than hours in.
        for place in (Path(out) / "runs", state.path.parent):
            place.mkdir(parents=True, exist_ok=True)
        read_results(Path(out) / "evaluation.csv")
        data = self.subject.data
        theirs, contours = self._theirs(), {}
        if self.contours:
            contours = {unit_name(n): Contours(len(self.subject.names)) for n in self.units}
        confusions = evaluate(
            self.model,
            data,
            self.units,
            words=self.subject.words,
            background=self.threshold,
            temperature=self.temperature,
            rule=self.rule,
            counters={
                unit: [each[unit] for each in (theirs, contours) if each]
                for unit in map(unit_name, self.units)
            },
            state=state,
            workers=workers,
        )
        record = provenance(
            self.config, seed=self.seed, data={data.name: data.digest}, seconds=state.seconds
        )
        record |= {"complete": self.subject.complete}
        if theirs:
            record["mmsegmentation"] = {
                unit: counter.metrics(confusions[unit]) for unit, counter in theirs.items()
            }
        if contours:
            record["measured"] = measured_rows(
                self.subject.name, self.subject.names, confusions, contours
            )
        if not rank:
            self._keep(out, record, confusions)
        state.path.unlink(missing_ok=True)
        return record, confusions

    def _keep(
        self, out: str | os.PathLike, record: dict[str, Any], confusions: dict[str, Confusion]
    ) -> None:
        """Write the confusion matrices, the rows of the table, and last the record."""
        with replacing(Path(out) / "runs" / f"{self.run}.npz") as temporary:
            with temporary.open("wb") as file:
                ignored = next(iter(confusions.values())).ignored
                np.savez(file, ignored=ignored, **{u: c.counts for u, c in confusions.items()})
        self._tabulate(out, confusions)
        write_run(out, self.run, record)

    def _theirs(self) -> dict[str, Any]:
        """mmsegmentation's counters by unit; none for sets that are not its own."""
        if not self.subject.mmsegmentation:
            return {}
        from mgca.evaluation.mmseg import Areas

        return {unit_name(unit): Areas(len(self.subject.names)) for unit in self.units}

    def _folder(self, work: str | os.PathLike) -> Path:
        """Of what is unfinished. The images' digest is no part of its name: a damaged image may be
        mended in between, and the stamps tell whether those counted are as they were."""
        name, _, images = self.config["set"]
        return Path(work) / config_hash(self.config | {"set": [name, images]})

    def _tabulate(self, out: str | os.PathLike, confusions: dict[str, Confusion]) -> None:
        """Write the rows into the table, unless they are there."""
        path = Path(out) / "evaluation.csv"
        present = {tuple(map(str, line)) for line in read_results(path).itertuples(index=False)}
        rows = [
            row(self.variant, self.subject.name, unit, self.seed, metric, value, self.run)
            for unit, confusion in confusions.items()
            for metric, value in (
                ("miou", confusion.miou),
                ("accuracy", confusion.accuracy),
                ("miou_mmsegmentation", confusion.miou_with_absent),
            )
        ]
        if not all(tuple(map(str, line.values())) in present for line in rows):
            add_results(path, rows, keep_runs=True)


def per_class(subject: Subject, confusions: dict[str, Confusion]) -> pd.DataFrame:
    """Intersection over union of each class in percent, by unit; NaN where it does not occur."""
    return pd.DataFrame(
        {unit: 100 * confusion.iou for unit, confusion in confusions.items()},
        index=pd.Index(subject.names, name="class"),
    )


def confusion_table(subject: Subject, confusion: Confusion) -> pd.DataFrame:
    """Pixels by true class (rows) and predicted class (columns)."""
    return pd.DataFrame(
        confusion.counts, index=pd.Index(subject.names, name="true"), columns=subject.names
    )
