"""The book's sources: spelling, the modules and commands of the reference, the glossary."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
# On their own page, or not for use by others.
# The commands have a page of their own, made of their help.
NOT_LISTED = re.compile(r"mgca\.cli(\..*)?|(.*\.)?_.*")


@pytest.mark.skipif(not importlib.util.find_spec("codespell_lib"), reason="needs codespell")
def test_spelling():
    """Words that are right all the same stand in book/spelling.txt."""
    files = [*BOOK.glob("*.md"), *BOOK.glob("api/*.md"), *ROOT.glob("notebooks/*.py")]
    files += [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("mgca/**/*.py")]
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words", str(BOOK / "spelling.txt")]
    found = subprocess.run([*command, *map(str, files)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr


def test_every_module_is_in_the_reference_once(monkeypatch):
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    reference = importlib.import_module("reference_api")
    listed = []
    for page in BOOK.glob("api/*.md"):
        source = [page.read_text(encoding="utf-8")]
        reference._write_out(None, page.stem, source)
        below = re.findall(r"^\.\. automodule:: (\S+)$", source[0], re.MULTILINE)
        assert re.findall(r"^   (mgca[\w.]*)$", source[0], re.MULTILINE) == below, page.name
        assert re.findall(r"^## (mgca[\w.]*)$", source[0], re.MULTILINE) == below, page.name
        listed += below
    assert len(listed) == len(set(listed))
    files = (path.relative_to(ROOT).with_suffix("") for path in ROOT.glob("mgca/**/*.py"))
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files}
    # The package itself is what the first page of the reference is about.
    left_out = {m for m in modules if NOT_LISTED.fullmatch(m)} - set(listed)
    assert set(listed) == modules - left_out - {"mgca"}


def test_the_glossary_is_in_order_and_its_terms_exist():
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    block = text.split("```{glossary}\n")[1].split("```")[0]
    terms = re.findall(r"^(\S.*)$", block, re.MULTILINE)
    assert terms == sorted(terms, key=str.lower)
    for page in [*BOOK.glob("*.md"), *ROOT.glob("notebooks/*.py")]:
        for used in re.findall(r"\{term\}`([^`]+)`", page.read_text(encoding="utf-8")):
            # A comment's line break inside of it is that of a notebook's source.
            named = re.sub(r"\s*\n#?\s*", " ", used)
            shown = re.fullmatch(r".*<(.+)>", named)
            name = (shown.group(1) if shown else named).lower()
            assert name in map(str.lower, terms), page.name


@pytest.fixture
def reference_cli(monkeypatch):
    """The extension that makes the page of the commands."""
    monkeypatch.syspath_prepend(str(BOOK / "_ext"))
    return importlib.import_module("reference_cli")


def test_every_command_and_option_has_a_place(reference_cli):
    from typer.main import get_command

    from mgca.cli import commands

    def options(command) -> set[str]:
        return {name for p in command.params if p.param_type_name == "option" for name in p.opts}

    group = get_command(commands)
    pages = dict(reference_cli.all_commands(group, group.context_class(group, info_name="mgca")))
    names = {path: set() for path in pages}
    for path, (command, lines) in pages.items():
        text = "\n".join(lines)
        assert f"```{{program}} {path}" in text
        heads = re.findall(r"^```\{option\} (.*)$", text, re.MULTILINE)
        names[path] = {name for head in heads for name in re.findall(r"(?<!\S)--?[\w-]+", head)}
        assert options(command) <= names[path], path
    assert {"mgca", "mgca segment", "mgca data check"} <= set(pages)
    assert "--classes" in names["mgca segment"]
    assert "--version" in names["mgca"]


def test_the_numbers_of_the_front_page_are_those_of_the_results():
    tables = pytest.importorskip("mgca.experiments.report.tables")
    from mgca.evaluation.results import read_results

    results = read_results(ROOT / "results" / "scenes" / "granularity.csv")
    shown = tables.mean_and_std(results)["scenes"]
    front = (BOOK / "intro.md").read_text(encoding="utf-8")
    part = " ".join(front.split("## What came out")[1].split("##")[0].split())
    mgca, units = shown["all", "pixel"], shown["all", "36"]
    assert f"MGCA has {mgca} mIoU per pixel and {units} with its units" in part
    frozen = {name: shown[name, "pixel"].split(" ±")[0] for name in ("maskclip", "baseline")}
    assert f"has {frozen['maskclip']}, and plain CLIP {frozen['baseline']}" in part
