"""The wheel and the source archive: complete, small, and the wheel works on its own."""

import email
import email.message
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys, setuptools.build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"
LARGEST = 15e6  # bytes


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder of both archives, built offline from a copy, so that the sources stay as they are;
    the wheel from what is in the source archive, as others build it."""
    copy = tmp_path_factory.mktemp("sources")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("mgca", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    out = copy / "out"
    _build("sdist", copy, out)
    (archive,) = out.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(copy / "unpacked", filter="data")
    (unpacked,) = (copy / "unpacked").iterdir()
    _build("wheel", unpacked, out)
    return out


def _build(kind: str, sources: Path, out: Path) -> None:
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    result = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def metadata(wheel) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def sources() -> set[str]:
    """Every file of the package, as git would have it."""
    files = (path for path in (ROOT / "mgca").rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        known = json.loads(archive.read("mgca/weights/manifest.json"))
        for name, sha256 in known.items():
            content = archive.read(f"mgca/weights/{name}.safetensors")
            assert hashlib.sha256(content).hexdigest() == sha256
    assert names == sources()
    # Named, because both could lack them alike.
    assert {"mgca/py.typed", "mgca/data/photo_sets.json", "mgca/data/benchmarks/voc.toml"} <= names
    assert wheel.stat().st_size < LARGEST


def test_the_source_archive_holds_the_package(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources() | {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert not any(name.startswith("tests") for name in names)
    assert path.stat().st_size < LARGEST


def test_metadata_is_that_of_the_project(metadata, project):
    assert metadata["Name"] == project["name"] and metadata["Version"] == project["version"]
    assert metadata["Requires-Python"] == project["requires-python"]
    assert metadata["License-Expression"] == project["license"]
    extras = project["optional-dependencies"]
    assert set(metadata.get_all("Provides-Extra")) == set(extras)
    required = set(map(Requirement, project["dependencies"]))
    for extra, lines in extras.items():
        for line in lines:
            name, _, marker = line.partition(";")
            only = f'({marker.strip()}) and extra == "{extra}"' if marker else f'extra == "{extra}"'
            required.add(Requirement(f"{name}; {only}"))
    assert set(map(Requirement, metadata.get_all("Requires-Dist"))) == required


# Installed


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """A photograph that ships with scikit-image."""
    data = pytest.importorskip("skimage.data", reason="needs the extra book")
    path = tmp_path_factory.mktemp("photo") / "chelsea.jpg"
    Image.fromarray(data.chelsea()[::2, ::2]).save(path)
    return path


def test_installed_in_a_fresh_environment(wheel, project, photo, tmp_path):
    """What pip installs works by itself; only the pinned dependencies are those of this process.

    A ``.pth`` file lends them, so that nothing is downloaded. Packages of the same name in the
    fresh environment come first, and this clone is not among those that are lent.
    """
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    lent = sorted({sysconfig.get_paths()[name] for name in ("purelib", "platlib")})
    Path(own, "dependencies.pth").write_text("\n".join(lent))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "MGCA_"))}
    clean |= {"HF_HUB_OFFLINE": "1", "PIP_CONFIG_FILE": os.devnull, "OMP_NUM_THREADS": "1"}

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(word) for word in command], cwd=tmp_path, env=clean, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # --ignore-installed: the lent packages have mgca too, and are not to be touched.
    options = "--no-deps --no-index --no-build-isolation --ignore-installed --quiet"
    run(python, "-m", "pip", "install", *options.split(), wheel)
    mgca = tmp_path / "env" / "bin" / "mgca"
    assert run(mgca, "--version") == f"mgca {project['version']}\n"
    where = run(python, "-c", "import mgca; print(mgca.__file__)").strip()
    assert where == str(Path(own, "mgca", "__init__.py"))
    found = {model["name"]: model for model in json.loads(run(mgca, "models", "--json"))}
    assert found["lite"]["ready"] and found["scenes"]["ready"]
    (head,) = [f for f in found["lite"]["files"] if f["file"] == "lite-alignment.safetensors"]
    assert head["path"] == str(Path(own, "mgca", "weights", "lite-alignment.safetensors"))
    said = run(mgca, "segment", photo, "--classes", "cat, sky", "--out", "out", "-v")
    assert said.startswith("chelsea.jpg: ") and "1 segmented" in said
    with Image.open(tmp_path / "out" / "chelsea.jpg.labels.png") as labels:
        assert labels.size == (226, 150)
    assert run(mgca, "doctor").endswith("the core works\n")
    done = subprocess.run([mgca, "ablate", "k"], env=clean, capture_output=True, text=True)
    assert done.returncode == 1 and "run this in a clone" in done.stderr


# Extras


HINT = re.compile(r"""pip install ['"]?(?:mgca|\.)\[([\w,-]+)\]""")
# Of each extra a command that needs it, or one of its packages at least.
NEEDS = {
    "app": "app --no-open --port 0",
    "benchmarks": "evaluate voc --root .",
    "book": "ablate k",
    "formats": "segment photo.jpg --classes a,b --rle --out out",
    "onnx": "export scenes scenes.onnx",
    "train": "data shards shards",
}
WITHOUT = """
import contextlib, importlib, io, json, pkgutil, sys
blocked, commands = json.loads(sys.argv[1])
sys.modules |= dict.fromkeys(blocked)
import mgca
from mgca.cli import main
messages = {}
for module in pkgutil.walk_packages(mgca.__path__, "mgca."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        messages[module.name] = str(error)
for name, words in commands.items():
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(words.split())
    messages[name] = f"{code} {said.getvalue()}"
print(json.dumps(messages))
"""


def normal(name: str) -> str:
    """A name of a distribution as PyPI compares it, without what follows it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def core_distributions(project) -> set[str]:
    """What an installation without extras brings, with all that it pulls in."""
    found, waiting = set(), [normal(pin) for pin in project["dependencies"]]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another machine
            continue
        waiting += [normal(line) for line in lines if "extra ==" not in line]
    return found


def packages_of_extras(project) -> set[str]:
    """What is imported of the packages that only extras bring."""
    extras = {normal(pin) for pins in project["optional-dependencies"].values() for pin in pins}
    only = extras - core_distributions(project)
    return {
        package
        for package, owners in importlib.metadata.packages_distributions().items()
        if {normal(owner) for owner in owners} & only
    }


def test_messages_name_extras_that_exist(project):
    extras = set(project["optional-dependencies"])
    for path in sorted((ROOT / "mgca").rglob("*.py")):
        for named in HINT.findall(path.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras, path


def test_what_an_extra_brings_is_asked_for_by_its_name(project, tmp_path):
    extras = set(project["optional-dependencies"])
    assert set(NEEDS) == extras - {"cluster", "dev"}  # the first by a configuration, see fanout
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.jpg")
    (tmp_path / "shards").mkdir()
    blocked = sorted(packages_of_extras(project))
    assert {"onnx", "mmseg", "papermill", "webdataset", "pycocotools"} <= set(blocked)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps([blocked, NEEDS])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    messages = json.loads(done.stdout)
    for behind in ("mgca.cli.app.page", "mgca.data.benchmarks.datasets"):
        messages.pop(behind, None)  # imported by functions that say it, see the commands
    for extra in NEEDS:
        assert messages[extra].startswith("1 mgca: ")
        assert HINT.findall(messages.pop(extra)) == [extra]
    # Modules that cannot even be imported say so too, and what the core needs is not among them.
    for module, message in messages.items():
        assert set(HINT.findall(message)) & extras, f"{module}: {message}"
    core = {"ablations", "cli", "export", "formats", "model", "segment", "train"}
    assert not core & {module.split(".")[1] for module in messages}
