"""What a notebook opens with: its project from any folder, its parameters in any form."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

import matplotlib.pyplot as plt

import mgca
from mgca.experiments.report.page import find_project, fresh, open_page
from mgca.experiments.report.parameters import listed, one, whole_numbers

ROOT = Path(mgca.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No setting of the surroundings, and a current folder below another that has results too."""
    for name in ("MGCA_PROJECT", "MGCA_DATA", "FRESH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "results").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with plt.rc_context():
        yield


def project_at(folder: Path) -> Path:
    for name in ("notebooks", "results/scenes"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "results" / "scenes" / "k.csv", folder / "results" / "scenes")
    return folder


def installed_at(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(mgca, "__file__", str(folder / "site-packages" / "mgca" / "__init__.py"))


def test_the_project_is_the_library_s_wherever_a_notebook_runs():
    assert find_project() == ROOT
    page = open_page("any", "scenes", 0)
    assert page.results == ROOT / "results" / "scenes"
    assert page.work == ROOT / "_build" / "scenes"
    assert len(page.read("scenes/k.csv"))


def test_another_project_is_named(tmp_path, monkeypatch):
    other = project_at(tmp_path / "other")
    assert find_project(other) == find_project("../other") == other
    assert open_page("any", project=other).results == other / "results"
    monkeypatch.setenv("MGCA_PROJECT", str(other))
    assert find_project() == other
    with pytest.raises(FileNotFoundError, match="elsewhere is no project"):
        find_project(tmp_path / "elsewhere")


def test_an_installed_library_looks_above_the_current_folder(tmp_path, monkeypatch):
    installed_at(tmp_path, monkeypatch)
    page = open_page("any")  # needs no project until it reads results
    with pytest.raises(FileNotFoundError, match="MGCA_PROJECT"):
        page.read("scenes/k.csv")
    other = project_at(tmp_path / "other")
    for folder in (other, other / "notebooks"):
        monkeypatch.chdir(folder)
        assert len(open_page("any").read("scenes/k.csv"))
        assert open_page("any").read("scenes/none.csv").empty


@pytest.mark.parametrize(
    "value, expected",
    [
        (0, (0,)),
        ("0", (0,)),
        ("0,1", (0, 1)),
        (" 0, 1 ", (0, 1)),
        ("[0, 1]", (0, 1)),
        ("(2,)", (2,)),
        ([0, 1], (0, 1)),
        (range(2), (0, 1)),
    ],
)
def test_seeds_as_papermill_passes_them(value, expected):
    assert open_page("any", "scenes", value).seeds == whole_numbers(value) == expected


@pytest.mark.parametrize("value", ["", [], "a", "0,0", -1, 1.5, None, "None", "[0", True])
def test_what_is_no_seed_is_refused(value):
    with pytest.raises(ValueError, match="seeds are different whole numbers such as 0,1,2"):
        open_page("any", "scenes", value)


@pytest.mark.parametrize(
    "value",
    ["object,pixel", "[object, pixel]", '["object", "pixel"]', "['object', 'pixel']"]
    + [["object", "pixel"], ("object", "pixel")],
)
def test_names_as_papermill_passes_them(value):
    assert listed(value) == ("object", "pixel")
    assert listed("pixel") == ("pixel",)


def test_none_and_fresh(monkeypatch):
    assert [one(value) for value in (None, "None", "", 3)] == [None, None, "", 3]
    assert not fresh()
    for value, expected in {"1": True, "0": False, "": False, "true": True}.items():
        monkeypatch.setenv("FRESH", value)
        assert fresh() is open_page("any").fresh is expected


def test_a_folder_is_looked_for_here_and_then_in_the_project(tmp_path, monkeypatch):
    other = project_at(tmp_path / "other")
    monkeypatch.setenv("MGCA_PROJECT", str(other))
    assert open_page("any").data is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert open_page("any").data == tmp_path / "shared" / "data"  # beside the project
    monkeypatch.setenv("MGCA_DATA", "sets")
    assert open_page("any").data == Path("sets")  # which a scale that needs it will refuse
    (other / "sets").mkdir()
    assert open_page("any", data="sets").data == open_page("any").data == other / "sets"
    (tmp_path / "elsewhere" / "sets").mkdir()
    assert open_page("any", data="sets").data == tmp_path / "elsewhere" / "sets"
    with pytest.raises(FileNotFoundError, match="no folder nowhere, neither from"):
        _ = open_page("any", data="nowhere").data
