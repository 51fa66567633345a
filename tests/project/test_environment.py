"""The files that describe the environment agree with each other and with what is installed."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import jupytext
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!]+)")


def read_pin(line: str) -> tuple[str, str]:
    """Split "Name==1.0" into the name as PyPI compares it and the version; refuse all else.

    A local version such as "+cpu" is refused too: it would tie the pin to one kind of machine.
    """
    match = PIN.fullmatch(line)
    assert match, f"not an exact pin: {line!r}"
    return re.sub(r"[-_.]+", "-", match[1]).lower(), match[2]


def read_pins(lines: list[str]) -> dict[str, str]:
    """Read pins and refuse a package that is named twice."""
    pins = [read_pin(line) for line in lines]
    names = [name for name, _ in pins]
    assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})
    return dict(pins)


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def direct(pyproject) -> dict[str, str]:
    """The direct dependencies: those of the library and those of every extra."""
    project = pyproject["project"]
    extras = project["optional-dependencies"].values()
    return read_pins(sum(extras, start=project["dependencies"]))


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return read_pins([line for line in lines if not line.startswith("#")])


@pytest.fixture(scope="module")
def conda() -> list:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_extras_are_the_documented_ones(pyproject):
    assert set(pyproject["project"]["optional-dependencies"]) == {
        "book",
        "benchmarks",
        "train",
        "onnx",
        "formats",
        "app",
        "dev",
    }


def test_lock_holds_every_direct_pin(direct, lock):
    assert {name: lock.get(name) for name in direct} == direct


def test_lock_holds_the_build_backend(pyproject, lock):
    # mgca is installed without build isolation, so the lock must bring what builds it.
    backend = read_pins(pyproject["build-system"]["requires"])
    assert {name: lock.get(name) for name in backend} == backend


def test_lock_leaves_out_pip_and_mgca(lock):
    assert not {"pip", "mgca"} & set(lock)


def test_lock_is_what_is_installed(lock):
    # The part after "+" is dropped: the same torch pin is a CPU or a CUDA build, see the lock.
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in lock}
    assert installed == lock


def test_conda_has_the_same_direct_pins(direct, conda):
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert read_pins([line for line in pip if not line.startswith("--")]) == direct
    assert [line for line in pip if line.startswith("--")] == [
        "--constraint requirements.lock",
        "--editable .",
    ]


def test_conda_has_the_oldest_supported_python(pyproject, conda):
    (python,) = [e for e in conda if isinstance(e, str) and e.startswith("python=")]
    assert ">=" + python.removeprefix("python=") == pyproject["project"]["requires-python"]


def test_make_installs_the_lock():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^\$\(VENV\)/\.lock-installed: requirements\.lock$", makefile, re.M)
    installs = re.findall(r"pip install(.*)", makefile)
    assert len(installs) == 2
    assert installs[0].endswith(" -r requirements.lock")
    assert "--no-deps" in installs[1]


def test_pre_commit_runs_the_locked_ruff(lock):
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pins = [pin for hook in hooks for pin in hook.get("additional_dependencies", ())]
    assert {pin for pin in pins if pin.startswith("ruff")} == {f"ruff=={lock['ruff']}"}


def test_version_is_the_same_everywhere(pyproject):
    version = pyproject["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert importlib.metadata.version("mgca") == version


def test_notebooks_are_percent_sources_in_the_book():
    # Hidden files and what .gitignore names are an editor's or an interpreter's, not sources.
    found = [p for p in (ROOT / "notebooks").iterdir() if p.name[0] not in "._"]
    assert found
    assert [p.name for p in found if p.suffix != ".py"] == []
    for path in found:
        notebook = jupytext.read(path)
        form = notebook.metadata["jupytext"]["text_representation"]["format_name"]
        assert form == "percent", path.name
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
    pages = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert {f"notebooks/{p.stem}" for p in found} <= pages
