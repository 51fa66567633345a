"""The paper's scale: an encoder of CLIP, captions in shards, the eight benchmarks.

What it is made of stands in a file, :mod:`mgca.experiments.paper_file`. Runs are named by what
decides their numbers, and what they leave is kept apart by what each part depends on: a decoder by
its training, an evaluation by all of :class:`mgca.evaluation.benchmark.Evaluation`. So a benchmark
that comes later, or another threshold, trains nothing again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mgca.backbone import Backbone, BackboneUnavailable, load_backbone
from mgca.config import SegmentConfig, TrainConfig, config_hash, to_dict
from mgca.data.benchmarks import benchmark_names, load_benchmark
from mgca.data.benchmarks.check import check
from mgca.data.benchmarks.files import list_items
from mgca.data.masks import Masked, MaskedSet
from mgca.data.shards import ShardError, Shards, find_shards
from mgca.evaluation.benchmark import Evaluation, Subject, benchmark
from mgca.evaluation.thresholds import choose, threshold_curve
from mgca.experiments.paper_file import PaperFile
from mgca.experiments.scale import Scale
from mgca.model import Model
from mgca.training.estimate import estimate
from mgca.training.resources import Alone, Process, check_precision
from mgca.training.runs import RunConfig
from mgca.training.sources import Streamed
from mgca.training.trainer import Trainer
from mgca.utils.devices import pick_device
from mgca.utils.files import cache_folder, file_digest, write_text

if TYPE_CHECKING:
    from mgca.experiments.grid import Variant

#: Methods that train nothing, by the last block that they keep of a vision transformer.
FROZEN = {
    "clip": "attention",
    "maskclip": "value",
    "sclip": "sclip",
    "clearclip": "clearclip",
    "naclip": "naclip",
}
# Encoders by what they are loaded from; the runs of a process share them.
_encoders: dict[str, Backbone] = {}


@dataclass(frozen=True)
class _OneOf(Alone):
    """One of several processes that are not there yet.

    Attributes:
        world_size: Their number.
    """

    world_size: int = 1


class PaperScale(Scale):
    """The paper's scale.

    Args:
        file: What it is made of.

    Attributes:
        file: What it is made of.
        process: This process among those that compute a run together; None for one alone.
    """

    name = "paper"
    groups = {
        "with background": ("voc", "context", "coco"),
        "without background": ("voc20", "c59", "stuff", "city", "ade"),
    }
    datasets = tuple(benchmark_names())

    def __init__(self, file: PaperFile) -> None:
        self.file = file
        self.process: Process | None = None
        self.training = file.training()
        self.cache = cache_folder().resolve()
        self.note, self.jobs = file.note, file.jobs
        # Tables of one preset are not those of another.
        self.results, self.work = Path(file.results) / file.preset, Path(file.work)
        self.places = {"out": self.results, "work": self.work}

    @property
    def threads(self) -> int:
        return torch.get_num_threads()  # as it is: no number here is compared bit by bit

    @cached_property
    def frozen(self) -> dict[str, str]:
        return FROZEN if self._is_transformer() else {"clip": "value"}

    @cached_property
    def settings(self) -> dict[str, Any]:
        file = self.file
        return {
            "encoder": self._encoder(),
            "data": self._data(),
            "background": to_dict(file.background),
            "images": file.plan.images,
            "precision": file.evaluation.precision,
        }

    def run_folder(self, work: Path, variant: "Variant", seed: int) -> Path:
        training = variant.trained_with(seed)
        key = {"encoder": self._encoder(), "last_block": variant.last_block}
        if training is None:
            return work / "runs" / f"frozen-{config_hash(key)}"
        return work / "runs" / config_hash(key | {"train": to_dict(training), "data": self._data()})

    def _encoder(self) -> dict[str, Any]:
        encoder = self.file.encoder
        config = encoder.model_config and file_digest(encoder.model_config)
        return to_dict(encoder) | {"model_config": config}

    def _data(self) -> dict[str, Any]:
        """What batches are made of, and how."""
        file = self.file
        return {"shards": self.shards_digest, "stream": to_dict(file.stream), "clip": file.clip}

    @property
    def _shards_file(self) -> Path:
        return self.work / f"shards-{config_hash(to_dict(self.file.shards))}.json"

    @cached_property
    def shards(self) -> Shards:
        """The shards, complete and counted.

        Raises:
            ShardError: If one is missing or damaged, or they are others than at the first start.
        """
        of = self.file.shards
        found, kept = find_shards(of.source, caption_key=of.caption_key), self._shards_file
        if not kept.is_file():
            write_text(kept, json.dumps({"digest": found.digest, "samples": len(found)}) + "\n")
        elif json.loads(kept.read_text(encoding="utf-8"))["digest"] != found.digest:
            raise ShardError(
                f"{of.source}: not the shards that runs in {self.work} were trained on: name "
                f"another folder, work =, or remove {kept} to train all of them anew"
            )
        return found

    @property
    def shards_digest(self) -> str:
        """The digest that the shards had at the first start: tables are read without them."""
        if self.has_started:
            return json.loads(self._shards_file.read_text(encoding="utf-8"))["digest"]
        return self.shards.digest

    @property
    def has_started(self) -> bool:
        """Whether the shards were looked at in its folder of work: runs have names then."""
        return self._shards_file.is_file()

    def _register(self) -> None:
        """Let open_clip know the model of one's own."""
        if path := self.file.encoder.model_config:
            import open_clip

            if not Path(path).is_file():
                raise FileNotFoundError(f"encoder.model_config: no file {path}")
            open_clip.add_model_config(path)
            if self.file.encoder.name not in open_clip.list_models():
                raise ValueError(
                    f"encoder.model_config: {path} describes no open_clip model: it needs "
                    "embed_dim, vision_cfg and text_cfg, and encoder.name is its name without .json"
                )

    def _is_transformer(self) -> bool:
        """Whether the encoder is a plain vision transformer, whose last block can be changed."""
        import open_clip

        from mgca.backbone import OPEN_CLIP_NAMES

        self._register()
        name, _ = OPEN_CLIP_NAMES.get(self.file.encoder.name, (self.file.encoder.name, None))
        vision = (open_clip.get_model_config(name) or {}).get("vision_cfg", {})
        return isinstance(vision.get("layers"), int) and "timm_model_name" not in vision

    def backbone(self, seed: int, last_block: str = "value") -> Backbone:
        choice = self.file.encoder
        key = json.dumps([to_dict(choice), last_block])
        if key not in _encoders:
            self._register()
            weights = choice.pretrained or not choice.random_weights
            try:
                _encoders[key] = load_backbone(
                    choice.name, weights, last_block=last_block, **choice.options
                )
            except BackboneUnavailable as error:
                raise OSError(f"encoder: {error}") from error
            except (ValueError, TypeError) as error:  # no such name, tag or option, no dense path
                raise ValueError(f"encoder: {error}") from error
        return _encoders[key]

    def data(self, backbone: Backbone) -> Streamed:
        return Streamed(self.shards, self.file.stream)

    def trainer(self, config: TrainConfig, backbone: Backbone) -> Trainer:
        """The training run of a decoder.

        Raises:
            ValueError: If memory or disk do not suffice for it, with what to change.
        """
        trainer = self.planned(config, backbone, self.process)
        expected = estimate(trainer, self.work, probe=False)
        expected.check(shared=trainer.process.device.type == "cpu")
        return trainer

    def planned(
        self, config: TrainConfig, backbone: Backbone, process: Process | None = None
    ) -> Trainer:
        """The training run of a decoder, of which is not known yet whether it will fit.

        Args:
            config: Configuration of the training.
            backbone: The frozen encoders.
            process: This process among those of the run; None for the only one.
        """
        run = RunConfig(train=config, stream=self.file.stream, clip=self.file.clip)
        process = process or Alone(self.device)
        check_precision(config, process.device)
        return Trainer(run, backbone, self.data(backbone), self.file.resources, process=process)

    def one_of(self) -> Process:
        """A process as each of those that share a run is, to see what it will need."""
        return _OneOf(self.device, self.file.devices)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.process.device if self.process else pick_device(self.file.resources.accelerator)

    def present(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in self.file.benchmarks)

    def prepare(self, blocks: Mapping[str, bool]) -> None:
        """Look at all that the runs need, before hours are spent.

        Raises:
            FileNotFoundError, ValueError, OSError: If a benchmark named in the file is not complete
                and sound, a shard is damaged, the encoder does not load, or disk or memory do not
                suffice; the message says what to do.
        """
        for name in self.present(self.datasets):
            report = check(load_benchmark(name), self.file.benchmarks[name])
            if not report.ok:
                problem = " ".join(str(report.problems[0]).split())
                raise ValueError(
                    f"{name} in {report.root}: {problem}; or leave {name} out of [benchmarks]"
                )
        if self.file.background.split:
            self.calibration()
        for last_block in blocks:
            self.backbone(0, last_block)
        if any(blocks.values()):
            _ = self.shards
            backbone = self.backbone(0, self.training.last_block)
            trainer = self.planned(self.training, backbone, self.one_of())
            estimate(trainer, self.work, probe=False).check(shared=self.device.type == "cpu")

    def subject(self, name: str) -> Subject:
        """A benchmark that the file names, or its first images where the preset takes no more."""
        return benchmark(name, self.file.benchmarks[name], self.file.plan.images)

    def sets(self, names: Sequence[str] = ()) -> list[MaskedSet]:
        return [self.subject(name).data for name in self.present(names or self.datasets)]

    def digests(self, names: Sequence[str] = ()) -> dict[str, str]:
        return {"shards": self.shards_digest} | {
            data.name: data.digest for data in self.sets(names)
        }

    def segment(self) -> SegmentConfig:
        return self.file.segment

    def calibration(self) -> Masked:
        """The images that threshold and temperature are chosen on.

        Raises:
            FileNotFoundError: If there is no such list, or an image of it is missing.
            ValueError: If the file has none, or an image is one of the benchmark's.
        """
        chosen = self.file.background
        if not chosen.split:
            raise ValueError("the file names threshold and temperature, and no images for them")
        from mgca.data.benchmarks import classes

        voc, root = load_benchmark("voc"), self.file.benchmarks.get("voc")
        if root is None:
            raise ValueError("background.split is a list of images of voc: name benchmarks.voc")
        path = Path(root) / chosen.split
        if not path.is_file():
            raise FileNotFoundError(f"background.split: no list {path}")
        scored = {item.identifier: item for item in list_items(voc, root)}
        names = path.read_text(encoding="utf-8").split()[: chosen.images]
        if both := [name for name in names if name in scored]:
            raise ValueError(
                f"background.split: {both[0]} of {path} is an image of the benchmark: thresholds "
                "are chosen on others"
            )
        layout = voc.layout
        items = [
            (
                name,
                Path(root) / layout.images / f"{name}{layout.image_suffix}",
                Path(root) / layout.masks / f"{name}{layout.mask_suffix}",
            )
            for name in names
        ]
        for _, *files in items:
            for file in files:
                if not file.is_file():
                    raise FileNotFoundError(f"background.split: {file} is missing")
        digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
        return Masked(f"voc, {path.stem}", items, tuple(classes(voc)), 0, digest, background=True)

    def background(self, model: Model) -> dict[str, float]:
        """Threshold and temperature of a model: the file's, or chosen on the file's images."""
        fixed = self.file.background
        if fixed.threshold is not None and fixed.temperature is not None:
            return {"background": fixed.threshold, "temperature": fixed.temperature}
        data = self.calibration()
        key = {
            "images": [data.name, data.digest, len(data)],
            "model": [model.backbone.digest, model.backbone.text_digest, model.trained],
            "segment": to_dict(model.config),
        }
        kept = self.work / "thresholds" / f"{config_hash(key)}.json"
        if not kept.is_file():
            model.precision = self.file.evaluation.precision
            curve = threshold_curve(model.to(self.device), data)
            threshold, temperature, miou = choose(curve)
            found = {"background": threshold, "temperature": temperature, "miou": miou}
            write_text(kept, json.dumps(found) + "\n")
        found = json.loads(kept.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("background", "temperature")}

    def measured(
        self,
        model: Model,
        names: Sequence[str],
        units: Sequence[int | None],
        background: dict[str, float],
        folder: Path,
    ) -> list[dict[str, Any]]:
        model.to(self.device).precision = self.file.evaluation.precision
        rows: list[dict[str, Any]] = []
        for name in names:
            evaluation = Evaluation(
                model,
                folder.name,
                self.subject(name),
                units,
                threshold=background["background"],
                temperature=background["temperature"],
                contours=True,
            )
            record, _ = evaluation.compute(
                folder / "evaluated", folder / "counted", workers=self.file.evaluation.workers
            )
            rows += record["measured"]
        return rows

    def join(self, variant: "Variant", seed: int, folder: Path) -> None:
        """Compute a run with a process for each of several devices, by ``torchrun``.

        Raises:
            RuntimeError: If they do not come to their end; what they printed is in ``log.txt``.
        """
        if self.file.devices == 1 or self.process is not None:
            return
        from mgca.experiments.paper_run import together

        together(self, variant, seed, folder)
