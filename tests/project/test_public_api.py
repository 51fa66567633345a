"""What ``import mgca`` costs and gives, and the types of the public interface."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mgca

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "timm", "open_clip", "numpy", "pandas", "matplotlib", "PIL")

LOADED = """
import contextlib, io, json, sys, time
start = time.perf_counter()
import mgca
seconds = time.perf_counter() - start
if sys.argv[2:]:
    from mgca.cli import main
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert main(sys.argv[2:]) == 0
    assert "mgca" in shown.getvalue()
print(json.dumps([seconds, [name for name in json.loads(sys.argv[1]) if name in sys.modules]]))
"""


def run(*words: str) -> tuple[float, list[str]]:
    """Seconds that ``import mgca`` took in a new process, and what is loaded after a command."""
    command = [sys.executable, "-c", LOADED, json.dumps(HEAVY), *words]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def test_the_import_is_quick_and_light():
    seconds, loaded = min(run() for _ in range(2))
    assert loaded == []
    assert seconds < 0.3


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["evaluate", "--help"]])
def test_help_loads_nothing_heavy(words):
    assert run(*words)[1] == []


def test_models_are_imported_where_they_are_built():
    rooms = "mgca.backbone, mgca.model, mgca.training.trainer, mgca.inference.segmentation"
    heavy = ("open_clip", "timm", "torchvision", "transformers", "torch._dynamo")
    code = f"import json, sys, {rooms}; print(json.dumps([n for n in {heavy} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def test_the_front_door():
    from mgca.inference.segmentation import Segmentation
    from mgca.model import Model, load

    assert (mgca.load, mgca.Model, mgca.Segmentation) == (load, Model, Segmentation)
    assert set(mgca.__all__) <= set(dir(mgca))
    assert mgca.config.SegmentConfig().window == 448
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mgca.nothing  # noqa: B018


def test_all_modules_that_are_named_exist():
    for name in mgca.__all__:
        if name not in ("load", "Model", "Segmentation", "__version__"):
            assert importlib.util.find_spec(f"mgca.{name}"), name


USE = """
import mgca

model = mgca.load("lite")
labels: str = model.segment("photo.jpg", ["cat"]).labels
model.segment(3.5, ["cat"])
"""


def mypy(*words: str) -> tuple[int, str]:
    """What mypy says; what it knows of files that are as they were stays in its own cache."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--no-error-summary", *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


@pytest.mark.skipif(not importlib.util.find_spec("mypy"), reason="needs mypy: the extra dev")
def test_types_of_the_public_interface(tmp_path):
    assert mypy() == (0, ""), "pyproject.toml says which files are judged"
    # Users of the package see these types: the mistakes are found, and no others.
    (tmp_path / "use.py").write_text(USE)
    code, out = mypy(str(tmp_path / "use.py"))
    lines = out.splitlines()
    assert (code, len(lines)) == (1, 2), out
    assert 'has type "Tensor", variable has type "str"' in lines[0]
    assert 'incompatible type "float"' in lines[1]
