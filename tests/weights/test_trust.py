"""No file that the library reads is executed: its sources call nothing that would."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Modules whose reading executes, or that serve nothing else.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "ctypes"}
NAMES = {"eval", "exec", "compile", "__import__"}
METHODS = {
    "extractall": "a member's name may lead out of the folder",
    "unpack_archive": "a member's name may lead out of the folder",
    "read_pickle": "unpickles",
    "mktemp": "another process may make the file first",
}
# Of modules, by the name that they are called by.
CALLS = {
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "joblib.load",
    "os.popen",
    "os.system",
    "torch.hub.load",
    "torch.jit.load",
    "jit.load",
    "hub.load_state_dict_from_url",
}
KEYWORDS = {
    "allow_pickle": False,
    "trust_remote_code": False,
    "shell": False,
    "weights_only": True,
}
# What is allowed where, and why.
JUSTIFIED = {
    # An objective of one's own, which `mgca train --objective FILE` is told to run.
    ("mgca/training/runs.py", "exec"),
    ("mgca/training/runs.py", "compile"),
    # The class of the error that torch.load raises; nothing is unpickled with it.
    ("mgca/evaluation/baselines/tcl.py", "from pickle import UnpicklingError"),
}


def found(source: str, file: str) -> Iterator[str]:
    """Each forbidden thing in a source, with its line."""
    for node in ast.walk(ast.parse(source)):
        for what in _of(node):
            if (file, ast.unparse(node)) not in JUSTIFIED:
                yield f"{file}:{node.lineno} {what}"


def _of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (f"imports {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
    elif isinstance(node, ast.ImportFrom):
        if (node.module or "").split(".")[0] in MODULES:
            yield f"imports from {node.module}"
        yield from (f"imports {a.name}" for a in node.names if a.name in METHODS)
        if node.module in ("torch", "joblib", "yaml"):
            yield from (f"imports {a.name}" for a in node.names if "load" in a.name)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield node.id
    elif isinstance(node, ast.Attribute) and node.attr in METHODS:
        yield f"{ast.unparse(node)}: {METHODS[node.attr]}"
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name in CALLS:
            yield name
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "torch.load" and "weights_only" not in given:
            yield "torch.load without weights_only=True"
        for keyword, safe in KEYWORDS.items():
            value = given.get(keyword)
            if value is not None and not (isinstance(value, ast.Constant) and value.value is safe):
                yield f"{keyword} is not {safe}"


def test_the_library_executes_no_file():
    files = sorted((ROOT / "mgca").rglob("*.py"))
    assert len(files) > 80
    bad = [
        what
        for path in files
        for what in found(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]
    assert bad == []


def test_what_is_justified_is_still_there():
    for file, line in JUSTIFIED:
        assert line in (ROOT / file).read_text()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "from dill import load",
        "eval('1')",
        "run = exec",
        "__import__('os')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "from torch import load",
        "np.load(path, allow_pickle=True)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "from shutil import unpack_archive",
        "yaml.load(text)",
        "joblib.load(path)",
        "pd.read_pickle(path)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "torch.hub.load(repository, name)",
    ],
)
def test_each_of_these_would_be_found(source):
    assert len(list(found(source, "x.py"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile(pattern)",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "json.load(file)",
        "yaml.safe_load(text)",
        "subprocess.run(['git', 'status'])",
        "torch.compile(model)",
        "mgca.load('lite')",
    ],
)
def test_these_are_harmless(source):
    assert list(found(source, "x.py")) == []


def test_a_pickle_in_the_place_of_weights_is_refused(tmp_path):
    """Every way in: nothing that the file names is called."""
    import pickle

    import torch

    from mgca.evaluation.baselines.tcl import read_checkpoint
    from mgca.weights import WeightsError, read_tensors

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError):
        read_tensors(path)
    for content in (Bomb(), {"model": Bomb()}):
        torch.save(content, path)
        with pytest.raises(WeightsError):
            read_tensors(path)
        with pytest.raises(WeightsError):
            read_checkpoint(path)
    assert not (tmp_path / "executed").exists()
