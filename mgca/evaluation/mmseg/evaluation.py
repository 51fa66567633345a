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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mmseg.registry import DATASETS
from torch.utils.data import Dataset

from mgca.config import SegmentConfig, config_hash, to_dict
from mgca.data.benchmarks import classes as text_queries
from mgca.data.benchmarks import dataset_config, load_benchmark
from mgca.data.benchmarks.files import list_items
from mgca.data.benchmarks.stamps import stat_of
from mgca.data.masks import DataError, Masked, MaskedSet, id_names
from mgca.evaluation.evaluate import unit_name
from mgca.evaluation.metrics import Confusion
from mgca.evaluation.mmseg.run import run_test
from mgca.evaluation.mmseg.sets import PIPELINE, MaskedImages
from mgca.evaluation.results import add_results, read_results, read_run, write_run
from mgca.model import Model
from mgca.prompts import CLASS_TEMPLATES
from mgca.utils.files import replacing
from mgca.utils.provenance import provenance


@dataclass(frozen=True)
class Subject:
    """What is evaluated on.

    Attributes:
        name: In the tables.
        dataset: As the Runner takes it.
        classes: Names that are asked for, without "background".
        background: Whether the first id is the background.
        digest: Names the images and masks.
        stamps: One per image, which changes when it or its mask does.
        complete: Whether it is the whole set, and numbers compare with published ones.
        segment: Resizing and windows.
    """

    name: str
    dataset: Dataset
    classes: tuple[str, ...]
    background: bool
    digest: str
    stamps: tuple[tuple, ...]
    complete: bool
    segment: SegmentConfig | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all the ids, the background included."""
        return id_names(self)


def benchmark(name: str, root: str | os.PathLike) -> Subject:
    """One of the eight benchmarks.

    Raises:
        ValueError: If there is no such benchmark, or its list names no image.
        FileNotFoundError: If one of its files is missing.
    """
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
    sizes = [
        [(os.path.relpath(path, root), path.stat().st_size) for path in (item.image, item.mask)]
        for item in items
    ]
    return Subject(
        name,
        dataset,
        tuple(text_queries(chosen)),
        chosen.background,
        hashlib.sha256(json.dumps(sizes).encode()).hexdigest(),
        tuple(_stamp(item.image, item.mask) for item in items),
        len(items) == chosen.image_count,
        SegmentConfig(
            short_side=protocol.short_side,
            long_side=protocol.long_side,
            window=protocol.window,
            stride=protocol.stride,
        ),
    )


def _stamp(*paths: Path) -> tuple:
    """Changes when one of the files does."""
    return tuple((path.name, *stat_of(path)) for path in paths)


def masked(data: MaskedSet) -> Subject:
    """A set of this project: of the scenes, or :func:`mgca.data.masks.load_folder`."""
    if isinstance(data, Masked):
        stamps = tuple(_stamp(image, mask) for _, image, mask in data.items)
    else:
        stamps = ((data.digest,),) * len(data)  # drawn, not read
    return Subject(
        data.name, MaskedImages(data), data.classes, data.background, data.digest, stamps, False
    )


class Evaluation:
    """One model on one subject.

    Args:
        model: To be evaluated, with the subject's windows.
        variant: Its name in the tables.
        subject: What it is evaluated on.
        units: Numbers of meta-points, None for the pixel unit.
        threshold, temperature, rule: Of the background, as in
            :meth:`mgca.model.Model.segment`; without effect for sets without.

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
        threshold: float | None = None,
        temperature: float | None = None,
        rule: str = "softmax",
    ) -> None:
        if rule not in model.scoring:
            raise ValueError(f"this model's rules are {', '.join(model.scoring)}, not {rule!r}")
        if subject.background and threshold is None:
            raise ValueError(
                f"{subject.name} has a background: give its threshold, --background. The paper "
                "states none; the book's page on the background says how ours was chosen"
            )
        self.model = copy.copy(model)
        if subject.segment:
            points = model.config.meta_points
            self.model.config = dataclasses.replace(subject.segment, meta_points=points)
        self.variant, self.subject, self.units = variant, subject, tuple(units)
        self.threshold = threshold if subject.background else None
        self.temperature = model.backbone.temperature if temperature is None else temperature
        self.rule = rule
        backbone = self.model.backbone
        self.config = {
            "model": type(model).__name__,
            "backbone": [backbone.name, backbone.digest, backbone.text_digest],
            "statistics": [list(backbone.mean), list(backbone.std)],
            "decoder": self.model.trained,
            "segment": to_dict(dataclasses.replace(self.model.config, meta_points=None)),
            "units": [unit_name(unit) for unit in units],
            "set": [subject.name, subject.digest, len(subject.dataset)],
            "classes": list(subject.classes),
            "templates": list(CLASS_TEMPLATES),
            "background": self.threshold,
            "temperature": self.temperature if subject.background else None,
            # That of GroupViT changes scores too, and not only the background.
            "rule": rule if subject.background or rule == "groupvit" else None,
        }
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
        try:
            with np.load(path) as kept:
                confusions = {unit_name(unit): kept[unit_name(unit)] for unit in self.units}
            record = read_run(out, self.run)
            if "mmsegmentation" not in record:
                raise KeyError("mmsegmentation")
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} or the .json beside it is damaged ({error}): evaluate afresh, --fresh"
            ) from error
        found = {}
        for unit, counts in confusions.items():
            found[unit] = Confusion(len(counts))
            found[unit].counts = counts
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
            workers: Processes that read images ahead.
            fresh: Compute again.

        Raises:
            FileNotFoundError, ImageError, DataError: If an image or a mask cannot be used; the
                next call goes on from there.
            OSError: If a folder cannot be written to.
        """
        done = None if fresh else self.result(out)
        if done:
            self._tabulate(out, *done)
            return done
        folder = self._folder(work)
        if fresh:
            (folder / "counted.npz").unlink(missing_ok=True)
        # At the start rather than hours in.
        for place in (Path(out) / "runs", folder):
            place.mkdir(parents=True, exist_ok=True)
        read_results(Path(out) / "evaluation.csv")
        tested = run_test(
            self.model,
            self.subject.dataset,
            self.subject.classes,
            self.units,
            folder,
            background=self.threshold,
            temperature=self.temperature,
            rule=self.rule,
            workers=workers,
            name=self.subject.name,
            stamps=self.subject.stamps,
        )
        record = provenance(
            self.config,
            seed=0,
            data={self.subject.name: self.subject.digest},
            seconds=tested.seconds,
        )
        record |= {"mmsegmentation": tested.mmsegmentation, "complete": self.subject.complete}
        with replacing(Path(out) / "runs" / f"{self.run}.npz") as temporary:
            with temporary.open("wb") as file:
                np.savez(file, **{u: c.counts for u, c in tested.confusions.items()})
        self._tabulate(out, record, tested.confusions)
        write_run(out, self.run, record)
        (folder / "counted.npz").unlink(missing_ok=True)
        return record, tested.confusions

    def _folder(self, work: str | os.PathLike) -> Path:
        """Of what is unfinished. The images' digest is no part of its name: a damaged image may be
        mended in between, and the stamps tell whether those counted are as they were."""
        name, _, images = self.config["set"]
        return Path(work) / config_hash(self.config | {"set": [name, images]})

    def _tabulate(
        self, out: str | os.PathLike, record: dict[str, Any], confusions: dict[str, Confusion]
    ) -> None:
        """Write the rows into the table, unless they are there."""
        path = Path(out) / "evaluation.csv"
        present = {tuple(map(str, row)) for row in read_results(path).itertuples(index=False)}
        rows = self._rows(record, confusions)
        if not all(tuple(map(str, row.values())) in present for row in rows):
            add_results(path, rows)

    def _rows(self, record: dict[str, Any], confusions: dict[str, Confusion]) -> list[dict]:
        values = {
            (unit, metric): value
            for unit, confusion in confusions.items()
            for metric, value in (
                ("miou", confusion.miou),
                ("accuracy", confusion.accuracy),
                ("miou_mmsegmentation", record["mmsegmentation"][unit]["mIoU"]),
            )
        }
        return [
            {
                "variant": self.variant,
                "dataset": self.subject.name,
                "unit": unit,
                "seed": 0,
                "metric": metric,
                "value": round(value, 3),
                "run": self.run,
            }
            for (unit, metric), value in values.items()
        ]


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
