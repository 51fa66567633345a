"""The wheel and the source archive: complete, small, and the wheel works on its own."""

import email
import email.message
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys, setuptools.build_meta as b; b.build_wheel('out'); b.build_sdist('out')"
LARGEST = 15e6  # bytes


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder of both archives, built offline from a copy, so that the sources stay as they are."""
    copy = tmp_path_factory.mktemp("sources")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("mgca", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    result = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return copy / "out"


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
    assert {"mgca/py.typed", "mgca/photo_sets.json", "mgca/benchmarks/voc.toml"} <= names
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
    required = set(project["dependencies"])
    required |= {f'{pin}; extra == "{extra}"' for extra, pins in extras.items() for pin in pins}
    assert set(metadata.get_all("Requires-Dist")) == required


def test_the_wheel_works_from_where_it_is_unpacked(wheel, project, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
        (entries,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        assert "mgca = mgca.cli:main" in archive.read(entries).decode()
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    version = f"mgca {project['version']}"
    for command, expected in {
        "import mgca; print(mgca.__file__)": str(tmp_path / "mgca" / "__init__.py"),
        "import sys, mgca.cli; sys.exit(mgca.cli.main(['--version']))": version,
        "import mgca.catalogue as c; print({p.damage() for m in c.models() for p in m.parts})": (
            "{None}"
        ),
    }.items():
        result = subprocess.run(
            [sys.executable, "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (result.returncode, result.stdout.strip()) == (0, expected), result.stderr
