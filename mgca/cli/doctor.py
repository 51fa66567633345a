"""What works on this machine, what does not, and why: the report of ``mgca doctor``."""

import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import typer

from mgca.cli.loading import AsJson, echo_json
from mgca.utils.files import cache_folder

if TYPE_CHECKING:
    from mgca.weights.catalogue import Named

OK, NOTE, FAIL = "ok", "note", "fail"
_GIB = 2**30
_HUB_SECONDS = 3.0
_LEAST_MEMORY, _LEAST_DISK = 2 * _GIB, 1 * _GIB
_OLDEST_PYTHON = (3, 11)
_PIN = re.compile(r"([\w.-]+)==([\w.!]+)(?:; extra == [\"']([\w-]+)[\"'])?")
# What each extra is for; others are named as they are.
_PURPOSES = {
    "train": "train from shards: mgca train, mgca data shards",
    "onnx": "export to ONNX: mgca export",
    "benchmarks": "evaluate with mmsegmentation's own metric",
    "formats": "write the formats of other tools",
    "app": "a page for one's own photographs: mgca app",
    "book": "execute the notebooks, also by mgca ablate, and build the book",
    "dev": "run the tests",
}


@dataclass(frozen=True)
class Finding:
    """The result of one check of the environment.

    Attributes:
        topic: Group of the check, such as the packages or the extras.
        name: Name of what was checked.
        state: State of it: ``"ok"``, ``"note"`` where something is other than it should be or not
            there, and ``"fail"`` where the core cannot work so.
        detail: Sentence on the result of the check, and on what to do about it.
    """

    topic: str
    name: str
    state: str
    detail: str


@dataclass(frozen=True)
class Ability:
    """Something that the library does, and the reason why not here; None where it does."""

    what: str
    because: str | None


@dataclass(frozen=True)
class Report:
    """The report of ``mgca doctor``: the results of all checks, and what works here."""

    findings: tuple[Finding, ...]
    abilities: tuple[Ability, ...]

    @property
    def ok(self) -> bool:
        """Whether the core works: its packages, its weights, and the model without network."""
        return all(finding.state != FAIL for finding in self.findings)

    def to_dict(self) -> dict:
        """The report as JSON data."""
        return {"ok": self.ok} | asdict(self)

    def __str__(self) -> str:
        lines, topic = [], None
        for finding in self.findings:
            if finding.topic != topic:
                topic = finding.topic
                lines.append(topic)
            lines.append(f"  {finding.state:4}  {finding.name}: {finding.detail}")
        lines.append("works here")
        lines += [f"  {a.what}" for a in self.abilities if a.because is None]
        lines.append("does not work here")
        lines += [f"  {a.what}, because {a.because}" for a in self.abilities if a.because]
        return "\n".join([*lines, "the core works" if self.ok else "the core does not work"])


def diagnose() -> Report:
    """Look at everything: some seconds, as a model is loaded and the hub asked if it answers."""
    core, extras = pins()
    findings = [
        *check_python(),
        *check_packages(core),
        *check_torch(),
        *check_memory(),
        *check_folders(),
        *check_extras(extras),
        check_hub(),
        *check_weights(),
        check_lite(),
    ]
    return Report(tuple(findings), tuple(_abilities(findings, extras)))


def pins() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Versions that mgca asks for: of its core, and by extra; empty where it is not installed."""
    try:
        required = importlib.metadata.requires("mgca") or []
    except importlib.metadata.PackageNotFoundError:
        return {}, {}
    core: dict[str, str] = {}
    extras: dict[str, dict[str, str]] = {}
    for line in required:
        match = _PIN.fullmatch(line)
        if match is not None:
            name, version, extra = match.groups()
            (core if extra is None else extras.setdefault(extra, {}))[name] = version
    return core, extras


def installed(package: str) -> str | None:
    """Version of a package, without the part that names a build ("+cpu"); None if it is missing."""
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def check_python() -> Iterator[Finding]:
    new_enough = sys.version_info >= _OLDEST_PYTHON
    detail = f"{platform.python_version()}, {sys.executable}"
    yield Finding("environment", "Python", OK if new_enough else FAIL, detail)
    cores = f"{psutil.cpu_count() or 'unknown number of'} cores"
    yield Finding("environment", "platform", OK, f"{platform.platform()}, {cores}")


def check_packages(core: dict[str, str]) -> Iterator[Finding]:
    """Each package of the core against its pin. A missing one fails, another version is a note."""
    if not core:
        yield Finding("packages", "mgca", NOTE, "is not installed: no versions to compare with")
    wrong = 0
    for name, wanted in core.items():
        found = installed(name)
        if found != wanted:
            wrong += 1
            state = FAIL if found is None else NOTE
            detail = f"{found or 'missing'}, pinned is {wanted}: pip install {name}=={wanted}"
            yield Finding("packages", name, state, detail)
    if core and not wrong:
        yield Finding("packages", "versions", OK, f"all {len(core)} are as pinned")


def check_torch() -> Iterator[Finding]:
    """Build and devices of torch, and whether torchvision's operators load beside it."""
    try:
        import torch
    except Exception as error:  # a broken build raises what its libraries raise
        yield Finding("torch", "torch", FAIL, _reason(error))
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield Finding("torch", "torch", OK, f"{torch.__version__}, built {build}")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    devices += ["mps"] * torch.backends.mps.is_available()
    yield Finding("torch", "devices", OK, ", ".join([*devices, "cpu"]))
    from mgca.utils import torchvision as _torchvision

    try:
        mended = _torchvision.make_importable()
        torchvision = importlib.import_module("torchvision")
    except Exception as error:
        yield Finding("torch", "torchvision", FAIL, _reason(error))
        return
    detail = (
        "its operators do not load beside this torch; its transforms, all that is used, work"
        if mended
        else "loads"
    )
    yield Finding("torch", "torchvision", OK, f"{torchvision.__version__}, {detail}")


def check_memory() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    detail = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    if memory.available < _LEAST_MEMORY:
        yield Finding("machine", "memory", NOTE, f"{detail}: large photographs need 2 GiB")
    else:
        yield Finding("machine", "memory", OK, detail)


def check_folders() -> Iterator[Finding]:
    """Caches and the temporary folder: whether they can be written to, and their free space."""
    from huggingface_hub import constants

    folders = {
        "cache, $MGCA_CACHE": cache_folder(),
        "hub's cache, $HF_HUB_CACHE": Path(constants.HF_HUB_CACHE),
        "temporary files, $TMPDIR": Path(tempfile.gettempdir()),
    }
    for name, folder in folders.items():
        yield Finding("machine", name, *_writable(folder))


def _writable(folder: Path) -> tuple[str, str]:
    """State and detail of a folder, or of the parent in which it would be made."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free
    except OSError as error:
        return NOTE, f"{folder} cannot be written to: {error.strerror or error}"
    detail = f"{folder}, {free / _GIB:.1f} GiB free"
    return (OK, detail) if free >= _LEAST_DISK else (NOTE, f"{detail}: little")


def check_extras(extras: dict[str, dict[str, str]]) -> Iterator[Finding]:
    """Which extras are installed, and the command for those that are not."""
    for extra, wanted in extras.items():
        missing = [name for name in wanted if installed(name) is None]
        if missing:
            detail = f'{", ".join(missing)} missing: pip install "mgca[{extra}]"'
            yield Finding("extras", extra, NOTE, detail)
            continue
        other = [f"{n} {installed(n)}, not {v}" for n, v in wanted.items() if installed(n) != v]
        detail = f"not as pinned: {', '.join(other)}" if other else "installed"
        yield Finding("extras", extra, NOTE if other else OK, detail)


def check_hub() -> Finding:
    """Whether the Hugging Face hub answers; only downloads need it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    topic, name = "hub", constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return Finding(topic, name, NOTE, "not asked: HF_HUB_OFFLINE is set")
    try:
        status = get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS).status_code
    except Exception as error:  # of a client that has changed its library twice
        return Finding(topic, name, NOTE, f"out of reach ({_reason(error)})")
    if status >= 500:
        return Finding(topic, name, NOTE, f"answers with status {status}: try later")
    return Finding(topic, name, OK, "answers")


def check_weights() -> list[Finding]:
    """The files of all models against their hashes."""
    from mgca.weights.catalogue import models

    findings = []
    for part in dict.fromkeys(part for model in models() for part in model.parts):
        damage = part.damage()
        here = part.path() is not None
        state = FAIL if damage else OK if here else NOTE
        checked = "" if not here else ", as known" if part.sha256 else ", no known hash"
        findings.append(Finding("weights", part.file, state, damage or part.place() + checked))
    return findings


def check_lite() -> Finding:
    """Whether the model that needs no network segments an image."""

    def segment() -> str:
        import numpy as np

        import mgca

        image = np.zeros((64, 64, 3), dtype=np.uint8)
        labels = mgca.load("lite").segment(image, ["sky", "grass"]).labels
        return f'mgca.load("lite") segments an image of {labels.shape[1]}x{labels.shape[0]}'

    return Finding("core", "lite", *_tried(segment))


def _tried(work: Callable[[], str]) -> tuple[str, str]:
    try:
        return OK, work()
    except Exception as error:  # whatever is wrong with an environment is to be reported
        return FAIL, _reason(error)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _abilities(findings: list[Finding], extras: dict[str, dict[str, str]]) -> Iterator[Ability]:
    from mgca.weights.catalogue import models

    by_topic = {(finding.topic, finding.name): finding for finding in findings}
    core = by_topic["core", "lite"]
    stopped = None if core.state == OK else "the core does not work"
    hub = next(finding for finding in findings if finding.topic == "hub")
    for model in models():
        yield Ability(f"{model.name}: {model.use}", stopped or _missing(model, by_topic, hub))
    unreachable = None if hub.state == OK else f"{hub.name}: {hub.detail}"
    yield Ability("models on the hub: hf://owner/name", stopped or unreachable)
    for extra in extras:
        finding = by_topic["extras", extra]
        because = finding.detail if "missing" in finding.detail else None
        yield Ability(_PURPOSES.get(extra, f"the extra {extra}"), because)
    devices = by_topic.get(("torch", "devices"))
    alone = devices is None or devices.detail == "cpu"
    yield Ability("computing on a GPU", "torch sees none" if alone else None)


def _missing(model: "Named", by_topic: dict[tuple[str, str], Finding], hub: Finding) -> str | None:
    """The reason why a model cannot be loaded; None if it can, be it after a download."""
    for part in model.parts:
        finding = by_topic["weights", part.file]
        if finding.state == FAIL:
            return finding.detail
        if part.path() is None and hub.state != OK:
            return f"it {part.place()}, and {hub.name}: {hub.detail}"
    return None


def doctor(as_json: AsJson = False) -> None:
    """Check the environment, the weights and the caches. Exit code 1 if the core does not work."""
    report = diagnose()
    if as_json:
        echo_json(report.to_dict())
    else:
        typer.echo(report)
    if not report.ok:
        raise typer.Exit(1)
