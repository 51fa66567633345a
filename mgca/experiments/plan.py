"""What the paper's scale will take, before it starts: runs, hours, memory, disk, what is missing.

Hours are those of the device at hand: some steps of training, and an image of each benchmark, are
timed on it. Nothing is computed that a run would keep.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mgca.backbone import Backbone, load_backbone
from mgca.data.benchmarks import Benchmark, load_benchmark
from mgca.data.benchmarks.check import check
from mgca.data.masks import id_names
from mgca.decoder import GatedConvDecoder
from mgca.evaluation.metrics import Confusion, Contours
from mgca.experiments.grid import Variant, grid
from mgca.experiments.paper import PaperScale
from mgca.experiments.runner import missing
from mgca.model import Model
from mgca.training.checkpoint import latest
from mgca.training.estimate import GIB, Estimate, estimate
from mgca.utils.provenance import provenance

EXAMPLE = "hf download pixparse/cc3m-wds --repo-type dataset --local-dir {}"


@dataclass(frozen=True)
class Missing:
    """Something that runs need and that is not there.

    Attributes:
        what: What it is, and what is wrong with it.
        command: What gets it.
        needed: Whether runs cannot start without it; else columns of the tables stay empty.
    """

    what: str
    command: str
    needed: bool


@dataclass(frozen=True)
class PlannedRun:
    """A run of the tables.

    Attributes:
        table: The ablation whose table it stands in; the first, where there are several.
        variant: Name of the variant.
        seed: Seed of the run.
        run: Name of the run; empty where it depends on data that is missing.
        steps: Number of optimisation steps; 0 where nothing is trained.
        units: Number of units that it is measured with.
        state: ``"measured"``, ``"trained"``, ``"step N"`` of an interrupted training, or
            ``"to do"``.
    """

    table: str
    variant: str
    seed: int
    run: str
    steps: int
    units: int
    state: str


@dataclass(frozen=True)
class PlannedSet:
    """A benchmark.

    Attributes:
        name: Name of the benchmark.
        state: ``"complete"``, ``"N of M images"``, or what is wrong.
        images: Number of images that will be segmented.
        embedding: Seconds to embed an image, on the device at hand; None where not timed.
        unit: Seconds that each unit takes then.
    """

    name: str
    state: str
    images: int = 0
    embedding: float | None = None
    unit: float | None = None

    def hours(self, units: int) -> float:
        """Hours of a run that is measured with so many units."""
        return self.images * ((self.embedding or 0) + units * (self.unit or 0)) / 3600


@dataclass(frozen=True)
class Plan:
    """What the tables will take.

    Attributes:
        preset: Name of the preset.
        note: What will stand beside every number; empty for the paper's own training.
        devices: Number of devices that share a run.
        probed_on: The device at hand.
        runs: The runs of the tables, each once.
        sets: The eight benchmarks.
        training: What a training takes on each of its devices; None where it cannot be known.
        results: Folder of the tables.
        missing: What is missing.
    """

    preset: str
    note: str
    devices: int
    probed_on: str
    runs: tuple[PlannedRun, ...]
    sets: tuple[PlannedSet, ...]
    training: Estimate | None
    results: str
    missing: tuple[Missing, ...]

    @property
    def to_train(self) -> list[PlannedRun]:
        """The runs whose decoder is not trained to its end."""
        return [run for run in self.runs if run.steps and run.state not in ("measured", "trained")]

    @property
    def to_measure(self) -> list[PlannedRun]:
        """The runs that are not measured yet."""
        return [run for run in self.runs if run.state != "measured"]

    @property
    def training_hours(self) -> float | None:
        """Hours of the trainings, one after the other; None where nothing was timed."""
        if self.training is None or self.training.probe is None:
            return None
        left = sum(run.steps - _step(run.state) for run in self.to_train)
        return self.training.probe.step_seconds * left / 3600

    @property
    def measuring_hours(self) -> float | None:
        """Hours of the evaluations, one after the other; None where nothing was timed."""
        if all(each.unit is None for each in self.sets):
            return None
        each = [each.hours(run.units) for run in self.to_measure for each in self.sets]
        return sum(each) / self.devices

    @property
    def disk(self) -> int:
        """Bytes that the trainings will hold: checkpoints of one at a time, and their decoders."""
        if self.training is None:
            return 0
        return self.training.disk + 4 * self.training.trained * max(0, len(self.to_train) - 1)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        sums = {
            "training_hours": self.training_hours,
            "measuring_hours": self.measuring_hours,
            "disk": self.disk,
            "to_train": len(self.to_train),
            "to_measure": len(self.to_measure),
        }
        return asdict(self) | sums

    def __str__(self) -> str:
        done = len(self.runs) - len(self.to_measure)
        lines = [
            f"preset      {self.preset}" + f" ({self.note})" * bool(self.note),
            f"runs        {len(self.runs)}, of which {done} are measured; {len(self.to_train)} to "
            f"be trained, on {self.devices} device{'s' * (self.devices > 1)} each",
        ]
        lines += [
            f"            {run.table}: {run.variant}, seed {run.seed}: {run.state}"
            for run in self.to_measure
        ]
        lines += [f"benchmarks  {each.name:8}{each.state}" for each in self.sets]
        if self.training is not None:
            lines += ["each training, on each of its devices, before it has begun:"]
            lines += [f"  {line}" for line in str(self.training).splitlines()]
            lines += [f"disk        {self.disk / GIB:.2f} GiB for all trainings"]
        lines.append(f"probed on   {self.probed_on}")
        for what, hours in (
            ("training", self.training_hours),
            ("evaluation", self.measuring_hours),
        ):
            lines.append(f"{what:12}" + ("not timed" if hours is None else f"{hours:,.1f} hours"))
        lines.append(f"results     {self.results}")
        for each in self.missing:
            lines += [f"missing     {each.what}", f"            {each.command}"]
        return "\n".join(lines)


def _step(state: str) -> int:
    return int(state.split()[1]) if state.startswith("step ") else 0


def make_plan(
    tables: Sequence[str], scale: PaperScale, seeds: Sequence[int], *, probe: bool = True
) -> Plan:
    """What some tables of the paper's scale will take.

    Args:
        tables: Names of ablations.
        scale: The paper's scale.
        seeds: Seeds of the runs.
        probe: Whether to time steps of training and images.
    """
    lost: list[Missing] = []
    backbone = _encoder(scale, lost)
    shards = _has_shards(scale, lost)
    sets = [_set(name, scale, lost) for name in scale.datasets]
    training = None
    if backbone is not None and shards:
        try:
            trainer = scale.planned(scale.training, backbone, scale.one_of())
            training = estimate(trainer, scale.work, probe=probe)
            training.check(shared=trainer.process.device.type == "cpu")
        except (ValueError, OSError) as error:
            lost.append(Missing(f"training: {error}", "change the file as the message says", True))
    if backbone is not None and probe:
        sets = [_timed(each, scale, backbone) for each in sets]
    return Plan(
        preset=scale.file.preset,
        note=scale.note,
        devices=scale.file.devices,
        probed_on=provenance({}, seed=0, data={}, seconds=0)["device"],
        runs=tuple(_runs(tables, scale, seeds, known=shards, steps=training and training.steps)),
        sets=tuple(sets),
        training=training,
        results=str(scale.results),
        missing=tuple(lost),
    )


def _encoder(scale: PaperScale, lost: list[Missing]) -> Backbone | None:
    """The encoder; with random weights, which take the same time, where its own are missing."""
    block, choice = scale.training.last_block, scale.file.encoder
    try:
        return scale.backbone(0, block)
    except (OSError, ValueError) as error:
        weights = f", {choice.pretrained!r}" if choice.pretrained else ""
        load = f"load_backbone({choice.name!r}{weights})"
        get = f'python -c "from mgca.backbone import load_backbone; {load}", once, with a network'
        lost.append(Missing(str(error), get, True))
    try:
        return load_backbone(choice.name, False, last_block=block, **choice.options)
    except (OSError, ValueError, RuntimeError):
        return None


def _has_shards(scale: PaperScale, lost: list[Missing]) -> bool:
    try:
        return len(scale.shards) > 0
    except (ValueError, OSError, ImportError) as error:
        source = scale.file.shards.source
        lost.append(Missing(f"shards: {error}", EXAMPLE.format(source), True))
        return False


def _set(name: str, scale: PaperScale, lost: list[Missing]) -> PlannedSet:
    """A benchmark, checked."""
    one, root = load_benchmark(name), scale.file.benchmarks.get(name)
    if root is None:
        what = f"{name}: not named under [benchmarks], its columns stay empty"
        lost.append(Missing(what, _how(one, "DIR"), False))
        return PlannedSet(name, "not named")
    try:
        report = check(one, root)
    except (ValueError, OSError) as error:
        lost.append(Missing(str(error), _how(one, root), True))
        return PlannedSet(name, "missing")
    if not report.ok:
        problem = report.problems[0]
        what = f"{name}: {problem.kind}: {'; '.join(problem.examples)}"
        lost.append(Missing(what, problem.remedy, True))
        return PlannedSet(name, problem.kind)
    images = min(report.found, scale.file.plan.images or report.found)
    state = "complete" if not report.subset else f"{report.found} of {report.expected} images"
    return PlannedSet(name, state + f", {images} are taken" * (images < report.found), images)


def _how(one: Benchmark, root: str) -> str:
    prepare = f"; mgca data prepare {one.name} --root {root}" if one.conversion else ""
    return f"{one.where_to_get()}{prepare}; mgca data check {one.name} --root {root}"


def _timed(each: PlannedSet, scale: PaperScale, backbone: Backbone) -> PlannedSet:
    """A benchmark with the seconds that its first image takes."""
    if not each.images:
        return each
    decoder = GatedConvDecoder(backbone.dim, upsample=scale.training.upsample)
    model = Model(backbone, decoder, scale.segment()).to(scale.device)
    model.precision = scale.file.evaluation.precision
    data = scale.subject(each.name).data
    _, image, truth = data[0]
    model.texts(data.classes)  # once a run
    ids = len(id_names(data))
    times = []
    for counted in (False, True):  # the first call prepares
        began = time.perf_counter()
        embedded = model.embed(image)
        half = time.perf_counter()
        for unit in (None, 36):
            labels = model.segment(embedded, data.classes, unit).labels.cpu().numpy()
            # Shifted by a background, they are ids all the same.
            for counter in (Confusion(ids), Contours(ids)):
                counter.add(labels, truth)
        if counted:
            times = [half - began, (time.perf_counter() - half) / 2]
    embedding, unit = times
    return PlannedSet(each.name, each.state, each.images, embedding, unit)


def _runs(
    tables: Sequence[str], scale: PaperScale, seeds: Sequence[int], known: bool, steps: int | None
) -> list[PlannedRun]:
    """The runs of some tables, each once, with how far each is."""
    known = known or scale.has_started
    units: dict[Any, set] = {}
    chosen: dict[Any, tuple[str, Variant, int]] = {}
    for table in tables:
        for seed in seeds:
            for variant in grid(table, scale):
                key = variant.run(scale, seed) if known else (variant.train, variant.segment, seed)
                key = key if known or variant.train else (variant.last_block,)
                units.setdefault(key, set()).update(variant.units)
                chosen.setdefault(key, (table, variant, seed))
    left = {}
    if known:
        left = {
            variant.run(scale, seed): variant
            for table in tables
            for variant, seed in missing(table, scale, seeds, scale.results)
        }
    return [
        PlannedRun(
            table=table,
            variant=variant.name,
            seed=seed,
            run=key if known else "",
            steps=(steps or scale.training.steps or 0) if variant.train else 0,
            units=len(units[key]),
            state=_state(variant, scale, seed) if not known or key in left else "measured",
        )
        for key, (table, variant, seed) in chosen.items()
    ]


def _state(variant: Variant, scale: PaperScale, seed: int) -> str:
    if variant.train is None or not scale.has_started:
        return "to do"
    folder = scale.run_folder(scale.work, variant, seed)
    if (folder / "decoder.safetensors").is_file():
        return "trained"
    newest = latest(folder / "checkpoints")
    return f"step {int(newest.stem.removeprefix('step-'))}" if newest else "to do"
