"""The file that describes the paper's scale: what is trained on what, where, and for how long.

``paper.toml`` beside this module is an example with every key. A file holds what is not the
default; unknown names and values of another type are refused, with the place.
"""

import dataclasses
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgca.config import PRECISIONS, SegmentConfig, TrainConfig, to_dict
from mgca.data.benchmarks import benchmark_names
from mgca.data.shards import StreamConfig
from mgca.data.shards.index import CAPTION_KEY, is_remote
from mgca.evaluation.conventions import TCL_PROTOCOL
from mgca.experiments.fanout import Jobs
from mgca.training.resources import Resources
from mgca.utils.settings import from_table


@dataclass(frozen=True)
class Preset:
    """How much of the paper's training and evaluation is done.

    Attributes:
        said: What stands beside every number.
        epochs: Passes over the data, where no steps are given.
        steps: Number of optimisation steps; None for whole epochs.
        images: Number of first images of each benchmark; None for all.
    """

    said: str = ""
    epochs: float = 15
    steps: int | None = None
    images: int | None = None


PRESETS = {
    "full": Preset(),
    "day": Preset("preset day: 3,750 steps, 500 images a set", steps=3750, images=500),
    "hour": Preset("preset hour, a smoke run: 100 steps, 20 images a set", steps=100, images=20),
    "rehearsal": Preset("rehearsal, random weights", steps=20),
}


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """The frozen encoder.

    Attributes:
        name: Name of the backbone, as :func:`mgca.backbone.load_backbone` takes it.
        pretrained: Tag, or file, of its weights; empty for those that the backbone comes with.
        model_config: JSON file of an open_clip model of one's own, whose name is the file's.
        random_weights: Random weights in place of trained ones: to see whether all works.
        options: Further arguments of :func:`mgca.backbone.load_backbone`, by name.
    """

    name: str = "vit-b-16"
    pretrained: str = ""
    model_config: str = ""
    random_weights: bool = False
    options: dict[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShardsOf:
    """The images and captions.

    Attributes:
        source: A folder, pattern or URL, as :func:`mgca.data.shards.find_shards` takes it.
        caption_key: The key of the samples' ``.json`` under which captions lie.
    """

    source: str = ""
    caption_key: str = CAPTION_KEY


@dataclass(frozen=True, kw_only=True)
class Background:
    """How a pixel becomes background, in the sets that have one.

    Either a threshold and a temperature, the same for all models; or a list of images of ``voc``
    that the benchmark does not hold, on which both are chosen for each model.

    Attributes:
        threshold: Largest probability below which a pixel is background.
        temperature: Temperature of the softmax over classes.
        split: List of images below the root of ``voc``, such as that of its training split.
        images: Number of first images of that list that are used.
    """

    threshold: float | None = None
    temperature: float | None = None
    split: str = ""
    images: int = 200

    def __post_init__(self) -> None:
        given = [value for value in (self.threshold, self.temperature) if value is not None]
        if len(given) == 1 or bool(given) == bool(self.split):
            raise ValueError(
                "background: give threshold and temperature, or a split of voc to choose them on"
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"background.threshold must lie in [0, 1], not {self.threshold}")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"background.temperature must be positive, not {self.temperature}")
        if self.images < 1:
            raise ValueError("background.images must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How models are measured.

    Attributes:
        precision: Number format of image encoder and decoder.
        workers: Number of processes that read images ahead, for each process.
    """

    precision: str = "float32"
    workers: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS or self.workers < 0:
            raise ValueError(
                f"evaluation: precision is one of {', '.join(PRECISIONS)}, and workers not negative"
            )


@dataclass(frozen=True, kw_only=True)
class PaperFile:
    """The paper's scale as a file describes it; relative paths are relative to the file.

    Attributes:
        preset: How much is trained and evaluated, one of ``PRESETS``.
        results: Folder of tables and records.
        work: Folder of checkpoints, decoders and evaluations.
        devices: Number of devices that share a run, in a process each.
        encoder: The frozen encoder.
        shards: Images and captions to train on.
        benchmarks: Folder of each benchmark by its name; those that are not named are left out.
        background: How a pixel becomes background.
        train: Training; steps and epochs are the preset's, the backbone is the encoder.
        stream: How batches are made of shards.
        clip: Largest norm of the gradient, or none.
        segment: How models segment, images prepared as TCL's harness does; the window is each
            benchmark's own.
        evaluation: How models are measured.
        resources: Resources of each training process.
        jobs: Where runs are computed, and how many at a time.
    """

    preset: str = "full"
    results: str = "paper/results"
    work: str = "paper/work"
    devices: int = 1
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    shards: ShardsOf = field(default_factory=ShardsOf)
    benchmarks: dict[str, str] = field(default_factory=dict)
    background: Background = field(default_factory=lambda: Background(threshold=0.5, temperature=1))
    train: TrainConfig = field(default_factory=TrainConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    clip: float | None = None
    segment: SegmentConfig = field(default_factory=lambda: SegmentConfig(**TCL_PROTOCOL))
    evaluation: Measuring = field(default_factory=Measuring)
    resources: Resources = field(default_factory=lambda: Resources(checkpoint_every=500))
    jobs: Jobs = field(default_factory=Jobs)

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset is one of {', '.join(PRESETS)}, not {self.preset!r}")
        if self.devices < 1:
            raise ValueError(f"devices must be at least 1, not {self.devices}")
        if self.train.batch_size % self.devices:
            raise ValueError(
                f"{self.devices} devices do not share a batch of {self.train.batch_size} evenly"
            )
        if self.preset == "rehearsal" and not self.encoder.random_weights:
            raise ValueError('the preset "rehearsal" is for encoder.random_weights = true')
        others = [name for name in self.benchmarks if name not in benchmark_names()]
        if others:
            names = ", ".join(benchmark_names())
            raise ValueError(f"benchmarks: no benchmark {others[0]!r}, only {names}")

    @property
    def plan(self) -> Preset:
        """How much is trained and evaluated."""
        return PRESETS[self.preset]

    @property
    def note(self) -> str:
        """What stands beside every number; empty for the paper's own training."""
        random = self.encoder.random_weights and "random weights" not in self.plan.said
        return ", ".join(filter(None, [self.plan.said, "random weights" * random]))

    def training(self) -> TrainConfig:
        """The full objective's training, with seed 0."""
        return dataclasses.replace(
            self.train,
            backbone=self.encoder.name,
            pretrained=self.encoder.pretrained,
            epochs=self.plan.epochs,
            steps=self.plan.steps,
            seed=0,
        )


def read_paper_file(path: str | os.PathLike) -> PaperFile:
    """The paper's scale as a TOML file describes it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not TOML, lacks something, or has an unknown name or a value that will
            not do; the message says where.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}: copy {Path(__file__).with_name('paper.toml')} and fill it in"
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested without end
        raise ValueError(f"{path} is not TOML: {error}") from error
    for part, names in _ELSEWHERE.items():
        for name in sorted(names.keys() & table.get(part, {}).keys()):
            raise ValueError(f"{path}: {part}.{name} is not given here: {names[name]}")
    if "background" not in table or not table.get("shards", {}).get("source"):
        raise ValueError(
            f"{path} lacks {'[background]' if 'background' not in table else 'shards.source'}: "
            f"{Path(__file__).with_name('paper.toml')} shows what it is"
        )
    return _absolute(made_of(table, str(path)), path.resolve().parent)


def made_of(table: dict[str, Any], source: str = "") -> PaperFile:
    """The description that a table of values is, as a file or :func:`table_of` has it.

    Raises:
        ValueError: For an unknown name or a value that will not do.
    """
    # Built whole: half of the two ways to a background is none.
    background = from_table(Background, table["background"], source, "background")
    rest = {name: value for name, value in table.items() if name != "background"}
    return dataclasses.replace(from_table(PaperFile(), rest, source), background=background)


def table_of(file: PaperFile) -> dict[str, Any]:
    """A description as a table of values, JSON data, from which :func:`made_of` makes the same."""
    # Segmenting whole: what to_dict leaves out is another default than this scale's.
    return to_dict(file) | {"segment": dataclasses.asdict(file.segment)}


_PRESET = "the preset says how long is trained"
_ELSEWHERE = {
    "train": {
        "epochs": _PRESET,
        "steps": _PRESET,
        "seed": "seeds are an option of the command",
        "backbone": "it is encoder.name",
        "pretrained": "it is encoder.pretrained",
    }
}


def _absolute(file: PaperFile, folder: Path) -> PaperFile:
    """The same with paths that mean the same from any folder."""

    def place(text: str) -> str:
        if not text or is_remote(text):
            return text
        return os.path.normpath(folder / Path(text).expanduser())

    encoder, tag = file.encoder, file.encoder.pretrained
    if tag and Path(place(tag)).is_file():
        tag = place(tag)
    resources = file.resources
    if resources.precomputed:
        precomputed = place(str(resources.precomputed))
        resources = dataclasses.replace(resources, precomputed=precomputed)
    model_config = place(encoder.model_config)
    return dataclasses.replace(
        file,
        results=place(file.results),
        work=place(file.work),
        encoder=dataclasses.replace(encoder, pretrained=tag, model_config=model_config),
        shards=dataclasses.replace(file.shards, source=place(file.shards.source)),
        benchmarks={name: place(root) for name, root in file.benchmarks.items() if root},
        resources=resources,
    )
