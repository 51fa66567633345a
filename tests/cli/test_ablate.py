"""``mgca ablate``: what it refuses at the start, what reaches the notebook, and what it keeps."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest

from mgca.cli import ablate, main

NOTEBOOK = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Ablation: tiny

# %% tags=["parameters"]
scale = "scenes"
seeds = [0, 1, 2]
data = ""
jobs = -1

# %%
import json, os
from pathlib import Path

names = ("FRESH", "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG")
given = {name: os.environ.get(name) for name in names}
given |= {"scale": scale, "seeds": seeds, "data": data, "jobs": jobs, "cwd": str(Path.cwd())}
print(json.dumps(given))

# %%
assert jobs != 13, "thirteen"
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with two small notebooks, and another folder to work in."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("tiny", "other"):
        (folder / f"ablation_{name}.py").write_text(NOTEBOOK)
    found = {name: folder / f"ablation_{name}.py" for name in ("other", "tiny")}
    monkeypatch.setattr(ablate, "notebooks", lambda: found)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def executed(monkeypatch):
    """What would be executed: parameters, folder and freshness."""
    calls = []

    def execute(notebook, given, source, fresh, failed):
        calls.append((given, source.name, fresh))
        return "{}"

    monkeypatch.setattr(ablate, "_execute", execute)
    return calls


def test_the_real_thing(clone, capsys, monkeypatch):
    words = ["ablate", "tiny", "--seeds", "0,2", "-p", "jobs=2", "-p", "data=../data", "--json"]
    (clone / "data").mkdir()
    for name in ("FRESH", "JUPYTER_PREFER_ENV_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert main([*words, "--fresh"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and not {"FRESH", "JUPYTER_PREFER_ENV_PATH"} & set(os.environ)
    shown = json.loads(out)
    (done,) = shown["done"]
    assert (shown["scale"], shown["seeds"], done["ablation"]) == ("scenes", [0, 2], "tiny")
    assert done["notebook"] == "_build/ablations/ablation_tiny.ipynb" and done["seconds"] > 0
    notebook = nbformat.read(done["notebook"], as_version=4)
    nbformat.validate(notebook)
    (printed,) = [o.text for c in notebook.cells for o in c.get("outputs", ()) if "text" in o]
    assert json.loads(printed) == {
        **{"scale": "scenes", "seeds": [0, 2], "jobs": 2, "data": str(clone / "data")},
        **{"cwd": str(clone / "notebooks"), "FRESH": "1", "PYTHONHASHSEED": "0"},
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def test_a_cell_that_fails_leaves_what_was_there(clone, capsys):
    path = Path("pages/ablation_tiny.ipynb")
    path.parent.mkdir()
    path.write_text("before")
    assert main(["ablate", "tiny", "-p", "jobs=13", "--out", "pages"]) == 1
    out, err = capsys.readouterr()
    assert out == "tiny on scenes, seeds 0,1,2: ablation_tiny.py\n"
    failed = path.with_name("ablation_tiny.failed.ipynb")
    said = f"ablation_tiny.py: AssertionError: thirteen; {failed} shows how far it came"
    assert err == f"mgca: {said}\n"
    assert path.read_text() == "before" and set(path.parent.iterdir()) == {path, failed}
    assert "thirteen" in failed.read_text()
    assert main(["ablate", "tiny", "--out", "pages"]) == 0
    assert list(path.parent.iterdir()) == [path]


def test_several_once_each_in_the_order_given(clone, executed, capsys):
    assert main(["ablate", "tiny", "other", "tiny", "--out", "o", "--scale", "photos"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "tiny on photos",
        "o/ablation_tiny.ipynb",
        "other on photos",
        "o/ablation_other.ipynb",
    ]
    assert sorted(path.name for path in Path("o").iterdir()) == [
        "ablation_other.ipynb",
        "ablation_tiny.ipynb",
    ]
    given = {"scale": "photos", "seeds": [0, 1, 2]}
    names = [f"ablation_{name}.py" for name in ("tiny", "other")]
    assert executed == [(given, name, False) for name in names]
    assert main(["-q", "ablate", "tiny"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2", 2),
        ("-1", -1),
        ('"2"', "2"),
        ("two words", "two words"),
        ("a=b", "a=b"),
        ("[1, 2]", [1, 2]),
        ("true", True),
        ("", ""),
    ],
)
def test_values_are_json_or_text(value, expected):
    assert ablate._parameters([f"jobs={value}"]) == {"jobs": expected}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["wrong"], 2, "no ablation 'wrong', only other, tiny"),
        (["tiny", "wrong"], 2, "no ablation 'wrong'"),
        (["tiny", "--seeds", "0,x"], 2, "--seeds are different numbers"),
        (["tiny", "--seeds", "0,0"], 2, "--seeds are different numbers"),
        (["tiny", "--seeds", ""], 2, "--seeds are different numbers"),
        (["tiny", "--seeds=-1"], 2, "--seeds are different numbers"),
        (["tiny", "-p", "jobs"], 2, "expected NAME=VALUE"),
        (["tiny", "-p", "=2"], 2, "expected NAME=VALUE"),
        (["tiny", "-p", "seeds=[0]"], 2, "give --seeds instead"),
        (["tiny", "--scale", "photos", "-p", "data=2024"], 1, "2024"),
        (["tiny", "-p", "job=2"], 2, "no parameter 'job', only scale, seeds, data, jobs"),
        (["tiny", "--scale", "large"], 1, "unknown scale 'large'"),
        (["tiny", "--scale", "paper"], 1, "CC3M"),
        (["tiny", "--scale", "photos", "-p", "data=nowhere"], 1, "nowhere"),
        (["tiny", "--out", "file/pages"], 1, "mgca: file/pages: Not a directory"),
    ],
)
def test_what_cannot_be_is_said_before_a_kernel_starts(
    clone, executed, capsys, monkeypatch, arguments, code, message
):
    monkeypatch.setenv("COLUMNS", "200")
    Path("file").write_text("")
    assert main(["-q", "ablate", *arguments]) == code
    out, err = capsys.readouterr()
    assert message in err and out == "" and "Traceback" not in err
    assert not executed and not Path("_build").exists()


def test_without_a_clone_or_the_extra(clone, executed, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "papermill", None)
        assert main(["ablate", "tiny"]) == 1
    assert 'pip install "mgca[book]"' in capsys.readouterr().err
    monkeypatch.setattr(ablate, "notebooks", dict)
    assert main(["ablate", "tiny"]) == 1
    err = capsys.readouterr().err
    assert "clone" in err and "'.[book]'" in err and err.count("\n") == 1
    assert not executed


def test_the_notebooks_of_this_clone_have_these_parameters():
    for source in ablate.notebooks().values():
        ablate._prepared(source, {"scale": "", "seeds": "", "data": "", "jobs": 1})
