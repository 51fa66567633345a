"""The eight benchmarks: what each is, how it lies on disk, how it is scored.

One TOML file per benchmark holds the facts. :mod:`mgca.data.benchmarks.check` verifies a folder
against them, :mod:`mgca.data.benchmarks.prepare` makes the masks that a download does not bring.
"""

import os
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from mgca.utils.settings import from_table

# In the order of the paper's Table 1.
_NAMES = ("voc", "context", "coco", "voc20", "c59", "stuff", "city", "ade")

CONVERSIONS = ("context", "coco-object", "coco-stuff", "cityscapes")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the files of a benchmark lie under its root, and how they are named.

    Attributes:
        images: Folder of the images, under the root.
        masks: Folder of the masks, under the root.
        image_suffix: What follows an identifier in the name of an image. Where there are folders
            below (Cityscapes), they are part of the identifier.
        mask_suffix: What follows an identifier in the name of a mask.
        split_file: Lists the identifiers, one a line; None where all images of the folder count.
    """

    images: str
    masks: str
    image_suffix: str
    mask_suffix: str
    split_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a benchmark is scored.

    Attributes:
        prompts: ``"class templates"``, the nine of :data:`mgca.prompts.CLASS_TEMPLATES`.
        window: Side of the sliding window, in pixels of the resized image.
        stride: Distance from one window to the next, in pixels of the resized image.
        short_side: Pixels that an image's shorter side is resized to.
        long_side: Pixels that its longer side may have after that; else that side is resized to it.
        statistics: Mean and standard deviation of pixels: the ``"backbone"``'s own, or
            ``"imagenet"``'s, as TCL takes them.
        threshold: Largest softmax probability below which a pixel is background. None means not
            chosen; only for sets with background.
        temperature: Temperature of that softmax. None means not chosen; only for sets with
            background.
        groupvit_threshold: The threshold that GroupViT published, held against its softmax.
        tcl_threshold: The threshold that TCL published, held against its sigmoid scores.
    """

    prompts: str
    window: int
    stride: int
    short_side: int
    long_side: int
    statistics: str
    threshold: float | None = None
    temperature: float | None = None
    groupvit_threshold: float | None = None
    tcl_threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A file to download: its name, address and, where publicly known, size and MD5."""

    name: str
    url: str
    size: str | None = None
    md5: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a benchmark comes from: disk space, terms of use, whom to cite, what to download."""

    disk: str
    terms: str
    citation: str
    page: str
    archives: tuple[Archive, ...]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The facts of a benchmark: images, classes, what ids mean, files, protocol, where to get it.

    Attributes:
        name: Short name, e.g. ``"voc20"``; also that of its TOML file.
        title: Its full name, for people.
        dataset: Its class in mmsegmentation's registry.
        split: Name of the part that is scored.
        image_count: Number of images of the whole split.
        class_count: Number of classes that are scored, background included where it is one.
        background: Whether the first class is the background, which is never a text query.
        ignore_zero: Whether id 0 on disk is ignored, and class ``i`` is ``i + 1`` on disk.
        unlabelled: Whether masks on disk hold 255, for borders or pixels without a label.
        common_ids: First and last of the ids on disk of which nearly every mask holds one.
        layout: Where its files lie under its root.
        protocol: How it is scored.
        source: Where it comes from.
        notes: Pitfalls that people who use it should know.
        conversion: Which conversion makes the masks, None where the download brings them.
    """

    name: str
    title: str
    dataset: str
    split: str
    image_count: int
    class_count: int
    background: bool
    ignore_zero: bool
    unlabelled: bool
    common_ids: tuple[int, ...]
    layout: Layout
    protocol: Protocol
    source: Source
    notes: tuple[str, ...]
    conversion: str | None = None

    @property
    def last_id(self) -> int:
        """The largest id that a mask on disk may hold, besides 255."""
        return self.class_count - (not self.ignore_zero)

    @property
    def class_ids(self) -> range:
        """The ids on disk of the classes that are scored, without the background."""
        return range(int(self.background or self.ignore_zero), self.last_id + 1)

    def where_to_get(self) -> str:
        """One sentence: the archives to download, and the page that explains them."""
        names = ", ".join(archive.name for archive in self.source.archives)
        return f"get {names}, see {self.source.page}"


def benchmark_names() -> list[str]:
    """The eight benchmarks, in the order of the paper's tables."""
    return list(_NAMES)


@cache
def load_benchmark(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        ValueError: If there is none of that name; the message lists the names.
    """
    if name not in _NAMES:
        raise ValueError(f"unknown benchmark {name!r}, only {', '.join(_NAMES)}")
    return read_benchmark(resources.files("mgca.data.benchmarks") / f"{name}.toml")


def read_benchmark(path: str | os.PathLike | Traversable) -> Benchmark:
    """A benchmark from a TOML file, named after the file.

    Raises:
        ValueError: If a field is missing, unknown, of another type, or impossible.
    """
    file = Path(path) if isinstance(path, str | os.PathLike) else path
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested without end
        raise ValueError(f"{file.name}: {error}") from error
    benchmark = from_table(Benchmark, {"name": Path(file.name).stem, **table}, file.name)
    for wrong in _mistakes(benchmark):
        raise ValueError(f"{file.name}: {wrong}")
    return benchmark


def _mistakes(benchmark: Benchmark):
    """What is impossible in a benchmark whose types are right."""
    protocol = benchmark.protocol
    for name in ("image_count", "class_count"):
        if getattr(benchmark, name) < 1:
            yield f"{name} must be positive"
    if benchmark.last_id > 254:
        yield "class_count: ids above 254 do not fit a mask beside 255, which is ignored"
    if benchmark.background and benchmark.ignore_zero:
        yield "a background that is ignored is no class: background and ignore_zero exclude another"
    ids = benchmark.common_ids
    if len(ids) != 2 or not 0 <= ids[0] <= ids[1] <= benchmark.last_id:
        yield "common_ids must be the first and the last of a range of ids that masks may hold"
    if benchmark.conversion is not None and benchmark.conversion not in CONVERSIONS:
        yield f"conversion must be one of {', '.join(CONVERSIONS)}"
    if protocol.prompts != "class templates":
        yield 'prompts must be "class templates"'
    if protocol.statistics not in ("backbone", "imagenet"):
        yield 'statistics must be "backbone" or "imagenet"'
    if not 0 < protocol.stride <= protocol.window:
        yield "stride must be positive and not exceed window"
    if not 0 < protocol.short_side <= protocol.long_side:
        yield "short_side must be positive and not exceed long_side"
    for name in ("threshold", "groupvit_threshold", "tcl_threshold", "temperature"):
        value = getattr(protocol, name)
        if value is None:
            continue
        if not benchmark.background:
            yield f"{name} is of the background, which this benchmark does not have"
        if name == "temperature" and not value > 0:
            yield "temperature must be positive"
        if name != "temperature" and not 0 <= value <= 1:
            yield f"{name} is a probability and must lie in [0, 1]"


def _mmseg_datasets():
    """The module that has registered all data sets, mmsegmentation's and ours."""
    try:
        from mgca.data.benchmarks import datasets
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the benchmarks need mmsegmentation ({error}): pip install 'mgca[benchmarks]'"
        ) from error
    return datasets


def classes(benchmark: Benchmark) -> list[str]:
    """The text queries: mmsegmentation's class names, unaltered, without "background".

    Raises:
        ImportError: If mmsegmentation is not installed.
    """
    names = list(_mmseg_datasets().class_names(benchmark.dataset))
    if len(names) != benchmark.class_count or (names[0] == "background") != benchmark.background:
        raise ValueError(
            f"{benchmark.dataset} of the installed mmsegmentation has {len(names)} classes, the "
            f"first {names[0]!r}, which are not those of {benchmark.name}"
        )
    return names[1:] if benchmark.background else names


def known_names() -> list[str]:
    """The class names of the eight benchmarks, each once.

    Raises:
        ImportError: If mmsegmentation, which has the names, is not installed.
    """
    names = (name.strip() for each in _NAMES for name in classes(load_benchmark(each)))
    return list(dict.fromkeys(names))


def dataset_config(benchmark: Benchmark, root: str | os.PathLike) -> dict[str, Any]:
    """What mmengine's ``DATASETS.build`` makes the data set of.

    Images come as they are, BGR uint8: the segmentor resizes them itself, so that the masks keep
    their size. Ids are reduced, where they are, by the data set's class.

    Raises:
        ImportError: If mmsegmentation is not installed.
    """
    _mmseg_datasets()
    layout = benchmark.layout
    # With their scope, types are found whatever the default scope is.
    return {
        "type": f"mmseg.{benchmark.dataset}",
        "data_root": os.fspath(root),
        "data_prefix": {"img_path": layout.images, "seg_map_path": layout.masks},
        "ann_file": layout.split_file or "",
        "test_mode": True,
        "pipeline": [
            {"type": "mmcv.LoadImageFromFile"},
            {"type": "mmseg.LoadAnnotations"},
            {"type": "mmseg.PackSegInputs"},
        ],
    }
