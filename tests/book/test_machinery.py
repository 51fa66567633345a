"""What makes the book: notebooks executed when they must be, their pages, the finished site."""

import ast
import base64
import importlib.metadata
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import browser
import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
papermill = pytest.importorskip("papermill")
pytest.importorskip("sphinx")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import book_site  # noqa: E402
import execute  # noqa: E402
import one_page  # noqa: E402
import provenance_page  # noqa: E402
import publish  # noqa: E402
import status_page  # noqa: E402
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output  # noqa: E402
from publish import NotebookError  # noqa: E402

NOTEBOOK = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A page
#
# Some text.

# %%
1 + 1

# %%
print("two")
"""


@pytest.fixture
def folders(tmp_path):
    """A project of one notebook, with a library, results and a lock."""
    for name, text in {
        "notebooks/a.py": NOTEBOOK,
        "mgca/__init__.py": "VERSION = 1\n",
        "results/scenes/k.csv": "value,run\n1,abc\n",
        "requirements.lock": "torch==1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return execute.Folders(tmp_path)


@pytest.fixture
def executed(monkeypatch):
    """Stands for papermill: lists the notebooks executed, and whether all was to be computed."""
    ran = []

    def run(start, partial, **options):
        notebook = nbformat.read(start, as_version=4)
        ran.append((Path(start).name.split(".")[0], execute.os.environ.get("FRESH") == "1"))
        for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
            cell.outputs = [new_output("stream", name="stdout", text=f"run {len(ran)}, {number}")]
        nbformat.write(notebook, partial)

    monkeypatch.setattr(papermill, "execute_notebook", run)
    monkeypatch.delenv("MGCA_DATA", raising=False)
    monkeypatch.setenv("FRESH", "")
    return ran


def make(folders, **options):
    return execute.make_pages(folders, ["a"], **options)


def change(folders, name, text):
    (folders.root / name).write_text(text)


def test_the_second_time_nothing_is_executed(folders, executed):
    assert make(folders) == ["a"]
    page = (folders.pages / "a.ipynb").read_bytes()
    before = (folders.pages / "a.ipynb").stat().st_mtime_ns
    assert make(folders) == []
    assert executed == [("a", False)]
    assert (folders.pages / "a.ipynb").read_bytes() == page
    assert (folders.pages / "a.ipynb").stat().st_mtime_ns == before


def test_a_change_of_text_keeps_the_outputs(folders, executed):
    make(folders)
    change(folders, "notebooks/a.py", NOTEBOOK.replace("Some text", "Better words"))
    assert make(folders) == []
    page = nbformat.read(folders.pages / "a.ipynb", as_version=4)
    assert "Better words" in page.cells[0].source
    assert [cell.outputs[0].text for cell in page.cells[1:]] == ["run 1, 0", "run 1, 1"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notebooks/a.py", NOTEBOOK.replace("1 + 1", "1 + 2")),
        ("mgca/__init__.py", "VERSION = 2\n"),
        ("mgca/new.json", "{}"),
        ("results/scenes/k.csv", "value,run\n2,abc\n"),
        ("requirements.lock", "torch==2\n"),
    ],
)
def test_a_change_of_what_outputs_depend_on_executes(folders, executed, name, text):
    make(folders)
    change(folders, name, text)
    assert make(folders) == ["a"]


@pytest.fixture
def reading(executed, monkeypatch):
    """Stands for a notebook that reads what is listed, besides."""
    run, read = papermill.execute_notebook, ["mgca/__init__.py", "results/scenes/k.csv"]

    def reads(start, partial, **options):
        run(start, partial, **options)
        Path(os.environ[execute.kernel_reads.LIST]).write_text("\n".join(read))

    monkeypatch.setattr(papermill, "execute_notebook", reads)
    return read


@pytest.mark.parametrize(
    ("name", "text", "again"),
    [
        ("mgca/__init__.py", "VERSION = 2\n", True),
        ("mgca/page.py", "# A comment\n", False),
        ("results/scenes/k.csv", "value,run\n2,abc\n", True),
        ("results/scenes/areas.csv", "value\n3\n", False),
        # Whether there is a file is asked without opening it.
        ("results/scenes/new.csv", "value\n", True),
    ],
)
def test_what_a_notebook_did_not_read_does_not_matter(folders, reading, name, text, again):
    change(folders, "mgca/page.py", "")
    change(folders, "results/scenes/areas.csv", "value\n")
    make(folders)
    assert make(folders) == []
    change(folders, name, text)
    assert make(folders) == (["a"] if again else [])


def test_a_file_that_was_looked_for_matters(folders, reading):
    reading.append("mgca/new.json")
    make(folders)
    change(folders, "mgca/new.json", "{}")
    assert make(folders) == ["a"]


def test_a_notebook_that_started_another_python_depends_on_everything(folders, reading):
    reading.append(execute.kernel_reads.ANYTHING)
    make(folders)
    change(folders, "mgca/page.py", "# A comment\n")
    assert make(folders) == ["a"]


def test_results_that_changed_while_a_notebook_ran_beside_others(folders, reading, monkeypatch):
    """It may have read them before: only what it wrote itself is as it left it."""
    run = papermill.execute_notebook

    def changes(start, partial, **options):
        run(start, partial, **options)
        change(folders, "results/scenes/k.csv", "value,run\n9,abc\n")

    monkeypatch.setattr(papermill, "execute_notebook", changes)
    files = execute.contents(folders.root)
    execute._execute(folders, "a", fresh=False, computed=False, alone=False)
    assert execute.contents(folders.root) != files
    assert execute._stale(folders, ["a"]) == ["a"]
    reading.append(execute.kernel_reads.WROTE + "results/scenes/k.csv")
    change(folders, "results/scenes/k.csv", "value,run\n1,abc\n")
    execute._execute(folders, "a", fresh=False, computed=False, alone=False)
    assert execute._stale(folders, ["a"]) == []


READS = """
import os, subprocess, sys
root = os.getcwd()
sys.path.insert(0, sys.argv[1])
import kernel_reads
kernel_reads.record(root, "list")
sys.path.insert(0, root)
import mgca.a
open("results/k.csv").read()
os.listdir("results/runs")
try:
    open("results/gone.csv")
except FileNotFoundError:
    pass
open("results/new.partial", "w").close()
os.replace("results/new.partial", "results/new.csv")
if os.fork() == 0:
    open("results/forked.csv")
    os._exit(0)
os.wait()
subprocess.run(["true"])
open("elsewhere").close()
if sys.argv[2:]:
    subprocess.run([sys.executable, "-c", ""])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_what_a_process_reads_is_listed(tmp_path):
    for name in ("mgca/__init__.py", "mgca/a.py", "results/k.csv", "results/runs/x", "elsewhere"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "results/forked.csv").touch()
    modules = {"mgca/__init__.py", "mgca/a.py"}
    own = {"results/k.csv", "results/runs", "results/gone.csv", "results/forked.csv"}
    for again in range(2):  # the second time from compiled modules
        run = [sys.executable, "-c", READS, str(ROOT / "book" / "_ext")]
        compiled = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run(run, cwd=tmp_path, env=compiled, check=True)
        read, written = execute.kernel_reads.read(tmp_path / "list")
        (tmp_path / "list").unlink()
        assert modules | own <= set(read), again
        assert {"results/new.csv"} <= written <= set(read) | {"results/new.partial"}
        assert not any("elsewhere" in name for name in read)
    subprocess.run([*run, "python"], cwd=tmp_path, check=True)
    assert execute.kernel_reads.read(tmp_path / "list")[0] is None


def test_notebooks_at_the_same_time(folders, monkeypatch):
    """In processes and kernels of their own; the first that fails is named."""
    monkeypatch.setenv("FRESH", "")
    change(folders, "notebooks/b.py", NOTEBOOK.replace("1 + 1", "2 + 2"))
    assert execute.make_pages(folders, ["a", "b"], jobs=2) == ["a", "b"]
    shown = [nbformat.read(folders.pages / f"{n}.ipynb", as_version=4).cells[1] for n in "ab"]
    assert [cell.outputs[0].data["text/plain"] for cell in shown] == ["2", "4"]
    change(folders, "notebooks/b.py", NOTEBOOK.replace("1 + 1", "1 / 0"))
    with pytest.raises(NotebookError, match=r"cell 2 of notebooks/b.py.*ZeroDivisionError"):
        execute.make_pages(folders, ["a", "b"], jobs=2)


def test_times_and_compiled_files_do_not_matter(folders, executed):
    make(folders)
    (folders.root / "mgca" / "__init__.py").touch()
    (folders.root / "mgca" / "__pycache__").mkdir()
    change(folders, "mgca/__pycache__/a.pyc", "x")
    assert make(folders) == []


def test_the_presence_of_data_matters(folders, executed, monkeypatch):
    make(folders)
    monkeypatch.setenv("MGCA_DATA", "/data")
    assert make(folders) == ["a"]


def test_fresh_executes_all_and_says_so(folders, executed):
    make(folders)
    assert make(folders, fresh=True) == ["a"]
    assert executed == [("a", False), ("a", True)]
    assert status_page.records(folders.root)["a"]["fresh"]
    assert make(folders) == []


def test_a_notebook_that_read_older_results_is_executed_again(folders, executed, monkeypatch):
    change(folders, "notebooks/b.py", NOTEBOOK.replace("1 + 1", "2 + 2"))
    run = papermill.execute_notebook

    def writes(start, partial, **options):
        run(start, partial, **options)
        if Path(start).name.startswith("b") and executed[-1][1]:
            change(folders, "results/scenes/k.csv", "value,run\n3,abc\n")

    monkeypatch.setattr(papermill, "execute_notebook", writes)
    execute.make_pages(folders, ["a", "b"], fresh=True)
    # The second time it only reads, and is still told as computed anew.
    assert executed == [("a", True), ("b", True), ("a", False)]
    records = status_page.records(folders.root)
    assert (records["a"]["fresh"], records["b"]["fresh"], records["b"]["wrote"]) == (True,) * 3


def test_what_computing_took_is_told_where_it_was_read_again(folders, executed, monkeypatch):
    change(folders, "notebooks/b.py", NOTEBOOK.replace("1 + 1", "2 + 2"))
    run, clock = papermill.execute_notebook, [0.0]

    def writes(start, partial, **options):
        run(start, partial, **options)
        clock[0] += 100 if executed[-1][1] else 1
        if executed[-1] == ("b", True):
            change(folders, "results/scenes/k.csv", "value,run\n3,abc\n")

    monkeypatch.setattr(papermill, "execute_notebook", writes)
    monkeypatch.setattr(execute.time, "perf_counter", lambda: clock[0])
    execute.make_pages(folders, ["a", "b"], fresh=True)
    assert executed[-1] == ("a", False)
    assert status_page.records(folders.root)["a"]["seconds"] == 100
    # Without FRESH an execution is told as it was.
    change(folders, "notebooks/a.py", NOTEBOOK.replace("1 + 1", "3 + 3"))
    make(folders)
    record = status_page.records(folders.root)["a"]
    assert (record["fresh"], record["seconds"]) == (False, 1)


@pytest.mark.parametrize("times", [1, 2])
def test_pages_that_are_stale_at_the_end_are_named(folders, executed, monkeypatch, caplog, times):
    """A second notebook writes each time, or only the first time, what the first one has read."""
    change(folders, "notebooks/b.py", NOTEBOOK.replace("1 + 1", "2 + 2"))
    run = papermill.execute_notebook

    def writes(start, partial, **options):
        run(start, partial, **options)
        turns = [name for name, _ in executed].count("a")
        if executed[-1][0] == "b" or turns > 1:
            number = min(len(executed), 2 if times == 1 else 9)
            change(folders, "results/scenes/k.csv", f"value,run\n{number},abc\n")

    monkeypatch.setattr(papermill, "execute_notebook", writes)
    with caplog.at_level(logging.WARNING):
        execute.make_pages(folders, ["a", "b"])
    said = [record.getMessage() for record in caplog.records]
    if times == 1:
        assert not said
    else:
        (line,) = said
        assert "the last time: b. " in line
    # Executed twice, but nothing was asked to be computed anew.
    assert not any(record["fresh"] for record in status_page.records(folders.root).values())


def test_one_build_at_a_time(folders, executed, monkeypatch):
    """The second one ends with a message, and touches nothing."""
    monkeypatch.setattr(execute, "ROOT", folders.root)
    monkeypatch.setattr("mgca.utils.files._PATIENCE", 0)
    monkeypatch.setattr(execute, "_JOBS", 1)
    for name in ("MGCA_PROJECT", *execute._KEPT_MEMORY):
        monkeypatch.setenv(name, "")  # which it sets: the tests that follow have their own
    change(folders, "notebooks/b.py", NOTEBOOK)
    execute.main([])
    (folders.sources / "b.py").unlink()
    with execute.alone_in(folders.executed):
        with pytest.raises(SystemExit, match="another process works in"):
            execute.main([])
        assert (folders.pages / "b.ipynb").is_file()
    execute.main([])
    assert not (folders.pages / "b.ipynb").exists()
    assert (folders.pages / "a.ipynb").is_file()


def test_data_of_interactive_figures_comes_back_with_the_outputs(folders, executed, monkeypatch):
    run = papermill.execute_notebook

    def writes(start, partial, **options):
        run(start, partial, **options)
        (folders.interactive / "a").mkdir(parents=True)
        (folders.interactive / "a" / "map.js").write_text("data")

    monkeypatch.setattr(papermill, "execute_notebook", writes)
    make(folders)
    execute.shutil.rmtree(folders.interactive)
    assert make(folders) == []
    assert (folders.interactive / "a" / "map.js").read_text() == "data"


def test_a_failing_cell_is_named_and_nothing_is_kept(folders, monkeypatch):
    change(folders, "notebooks/a.py", NOTEBOOK.replace('print("two")', "raise KeyError('gone')"))
    monkeypatch.setenv("FRESH", "")
    with pytest.raises(
        NotebookError, match=r"(?s)cell 3 of notebooks/a.py.*KeyError.*gone"
    ) as failure:
        make(folders)
    partial = Path(str(failure.value).rsplit(": ", 1)[1])
    came = [cell for cell in nbformat.read(partial, as_version=4).cells if cell.get("outputs")]
    assert came[0].outputs[0].data["text/plain"] == "2"
    assert not (folders.executed / "a.ipynb").exists()
    assert not (folders.pages / "a.ipynb").exists()


def figure(**changes):
    described = {"kind": "figure", "caption": "It rises.", "alt": "A line.", "name": "fig-a"}
    return new_output(
        "display_data",
        data={"image/svg+xml": "<svg/>"},
        metadata={"mgca": {**described, "results": None, **changes}},
    )


CAPTION = new_output(
    "display_data",
    data={"text/markdown": "It rises."},
    metadata={"mgca": {"kind": "caption"}},
)


def notebook(*outputs, tags=()):
    cell = new_code_cell("code", outputs=list(outputs), metadata={"tags": list(tags)})
    return new_notebook(cells=[new_markdown_cell("# A"), cell])


def test_a_figure_gets_its_caption_and_source(folders):
    _, cell = publish.page(notebook(figure(), CAPTION), folders.root).cells
    assert cell.metadata["mystnb"]["image"] == {"alt": "A line."}
    options = cell.metadata["mystnb"]["figure"]
    assert options["name"] == "fig-a"
    assert options["caption"] == "It rises."
    (output,) = cell.outputs
    assert "mgca" not in output.metadata


@pytest.mark.parametrize(
    ("source", "output", "prompt"),
    [
        ("x = draw()", figure(), "How this figure is drawn"),
        ("x = rows()", figure(kind="table"), "How this table is made"),
        ("import torch\nx = 1", None, "Imports and settings"),
        ("x = 1", None, "What the next figure needs"),
    ],
)
def test_what_is_folded_says_what_it_is(folders, source, output, prompt):
    made = notebook(*filter(None, [output]), tags=["hide-input"])
    made.cells[1].source = source
    cell = publish.page(made, folders.root).cells[1]
    assert cell.metadata["mystnb"]["code_prompt_show"] == prompt


def test_results_are_linked_and_must_exist(folders):
    page = publish.page(notebook(figure(results="scenes/k.csv")), folders.root)
    caption = page.cells[1].metadata["mystnb"]["figure"]["caption"]
    assert "<../../results/scenes/k.csv>" in caption
    assert "<results-scenes-k>" in caption
    with pytest.raises(NotebookError, match=r"cell 2.*results/scenes/gone.csv"):
        publish.page(notebook(figure(results="scenes/gone.csv")), folders.root)


def test_each_figure_of_a_cell_has_its_own_caption(folders):
    printed = new_output("stream", name="stdout", text="hello")
    table = figure(kind="table", caption="Rows.", name="")
    cells = publish.page(
        notebook(printed, figure(), CAPTION, table, printed, tags=["hide-input", "wide"]),
        folders.root,
    ).cells[1:]
    assert [cell.source for cell in cells] == ["code", *["# continued"] * 3]
    assert [cell.metadata["tags"] for cell in cells[1:]] == [["wide", "remove-input"]] * 3
    captions = [cell.metadata.get("mystnb", {}).get("figure", {}).get("caption") for cell in cells]
    assert [caption and caption.split("\n")[0] for caption in captions] == [
        None,
        "It rises.",
        "Rows.",
        None,
    ]
    assert cells[2].metadata["mystnb"]["figure"]["caption_before"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (new_output("error", ename="KeyError", evalue="k", traceback=[]), "failed with KeyError"),
        (new_output("stream", name="stderr", text="noise"), "stderr: noise"),
        (new_output("stream", name="stdout", text="a.py:1: UserWarning: old"), "UserWarning: old"),
        (figure(alt=" "), "no alternative text"),
    ],
)
def test_what_no_page_should_have_is_refused(folders, output, message):
    with pytest.raises(NotebookError, match=f"cell 2.*{message}"):
        publish.page(notebook(output), folders.root)


def test_an_error_that_the_page_shows_on_purpose_is_allowed(folders):
    error = new_output("error", ename="ValueError", evalue="k", traceback=[])
    publish.page(notebook(error, tags=["raises-exception"]), folders.root)


def test_the_notebook_to_download_installs_mgca_and_has_no_outputs():
    source = jupytext.reads(NOTEBOOK, fmt="py:percent")
    copy = publish.downloadable(source)
    nbformat.validate(copy)
    assert publish.REPOSITORY in copy.cells[0].source
    assert all(not cell.get("outputs") for cell in copy.cells)
    assert [cell.source for cell in copy.cells[1:]] == [cell.source for cell in source.cells]


def test_the_notebook_to_download_installs_what_notebooks_import():
    own, found = ["mgca"], set()
    while own:  # what mgca needs, and what that needs
        name = re.sub("[-_.]+", "-", own.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                own.append(needed.name)
    cell = publish.downloadable(new_notebook()).cells[0].source
    found |= set(re.findall(r"%pip install (.*)", cell)[-1].split())
    imported = {
        alias.name.split(".")[0]
        for path in (ROOT / "notebooks").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module)])
    }
    of = importlib.metadata.packages_distributions()
    there = sys.stdlib_module_names | {"IPython"} | {p.stem for p in ROOT.glob("notebooks/*.py")}
    missing = {
        name
        for name in imported - there
        if not found & {re.sub("[-_.]+", "-", package).lower() for package in of[name]}
    }
    assert not missing


def test_a_table_without_rows_has_a_section(folders):
    change(folders, "results/scenes/k.csv", "value,run\n")
    change(folders, "results/scenes/bare.csv", "")
    text = provenance_page.provenance(folders.root)
    assert "0 rows of `value`, `run`." in text
    assert "(results-scenes-bare)=" in text
    assert "From" not in text


def test_every_results_file_has_a_section_and_every_run_a_record():
    text = provenance_page.provenance(ROOT)
    files = [path.relative_to(ROOT / "results") for path in (ROOT / "results").rglob("*.csv")]
    assert files
    for path in files:
        assert text.count(f"({publish.label(path.as_posix())})=") == 1
        assert f"<../results/{path.as_posix()}>" in text
    assert "no record" not in text
    runs = {path.stem for path in (ROOT / "results").glob("*/runs/*.json")}
    assert set(re.findall(r'id="run-(\w+)"', text)) == runs
    assert set(re.findall(r'href="#run-(\w+)"', text)) <= runs
    assert len(text) < 600_000


def test_equal_results_make_equal_archives(folders):
    first = provenance_page.archive(folders.root)
    (folders.root / "results" / "scenes" / "k.csv").touch()
    assert provenance_page.archive(folders.root) == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.read("results/scenes/k.csv") == b"value,run\n1,abc\n"


def test_the_status_says_what_was_executed(folders, executed):
    change(folders, "notebooks/b.py", NOTEBOOK)
    make(folders)
    text = status_page.status(folders.root, ["intro", "notebooks/b", "notebooks/a"])
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert ["notebooks/b.ipynb" in rows[0], "no record" in rows[0]] == [True, True]
    assert "| computed |" in rows[1]
    assert "torch" in text and "without the real images" in text


def png(size, mode="RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 80).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_become_webp_where_that_is_smaller(tmp_path):
    images = tmp_path / "_images"
    images.mkdir()
    (images / "large.png").write_bytes(png((400, 300)))
    (images / "small.png").write_bytes(png((10, 10)))
    before = (images / "large.png").stat().st_size
    assert book_site.compress_pictures(images, tmp_path / "webp") == {"large.png": "large.webp"}
    assert sorted(path.name for path in images.iterdir()) == ["large.webp", "small.png"]
    assert (images / "large.webp").stat().st_size < before
    assert Image.open(images / "large.webp").size == (400, 300)


def test_a_picture_is_converted_once_whatever_its_name_and_time(tmp_path, monkeypatch):
    images, cache = tmp_path / "_images", tmp_path / "webp"
    converted = []
    convert = book_site.as_webp
    monkeypatch.setattr(
        book_site, "as_webp", lambda path: converted.append(path.name) or convert(path)
    )
    first, second = png((400, 300)), png((300, 400))

    def build(name: str, data: bytes) -> tuple[int, int]:
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir()
        (images / name).write_bytes(data)
        os.utime(images / name, (0, 0))  # older than what is kept, as after a checkout
        book_site.compress_pictures(images, cache)
        return Image.open(images / name.replace("png", "webp")).size

    assert [build("a.png", first), build("a.png", second)] == [(400, 300), (300, 400)]
    assert build("b.png", first) == (400, 300)
    assert converted == ["a.png", "a.png"]
    monkeypatch.setattr(book_site, "_QUALITY", 10)
    build("b.png", first)
    assert len(converted) == 3


def test_a_finished_site(tmp_path, monkeypatch):
    """Files that no page needs stay away, and a picture of any name is found again."""
    monkeypatch.setattr(book_site, "ROOT", tmp_path)
    site = tmp_path / "html"
    (site / "_images").mkdir(parents=True)
    (site / "_static").mkdir()
    (site / "_static" / "webpack-macros.html").write_text("<p>macros</p>")
    (site / "_images" / "my figure & 50%.png").write_bytes(png((400, 300)))
    tag = '<article><img src="_images/my%20figure%20%26%2050%25.png"></article>'
    (site / "page.html").write_text(tag)
    (site / "index.html").write_text('<meta http-equiv="Refresh" content="0; url=page.html" />')
    config = SimpleNamespace(html_title="A & B", root_doc="page")
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=site, config=config)
    book_site.finish(app, None)
    first = (site / "index.html").read_text()
    assert 'content="0; url=page.html"' in first and 'rel="icon" href="data:,"' in first
    assert "<title>A &amp; B</title>" in first
    assert not (site / "_static" / "webpack-macros.html").exists()
    text = (site / "page.html").read_text()
    assert 'src="_images/my%20figure%20%26%2050%25.webp" width="400" height="300"' in text
    assert [path.name for path in (site / "_images").iterdir()] == ["my figure & 50%.webp"]


def test_a_drawing_keeps_every_pixel(tmp_path):
    drawing = Image.new("RGB", (500, 400), "white")
    drawing.paste((0, 114, 178), (50, 50, 300, 200))
    drawing.save(tmp_path / "a.png")
    webp = Image.open(io.BytesIO(book_site.as_webp(tmp_path / "a.png"))).convert("RGB")
    assert webp.tobytes() == drawing.tobytes()


def test_images_know_their_size_and_load_when_seen(tmp_path):
    (tmp_path / "a.png").write_bytes(png((40, 30)))
    (tmp_path / "b.svg").write_text('<svg height="72pt" width="144pt" viewBox="0 0 1 1"></svg>')
    page = '<img src="a.png"><article><img alt="x" src="a.png" /><img src="b.svg"><img src="?">'
    tags = re.findall("<img[^>]*>", book_site.light_images(page, tmp_path))
    assert ['width="40" height="30"' in tag for tag in tags] == [True, True, False, False]
    assert 'width="192" height="96"' in tags[2]
    assert ['loading="lazy"' in tag for tag in tags] == [False, False, True, True]
    assert 'alt="x"' in tags[1]


def test_pictures_inside_a_page_become_files(tmp_path):
    data = base64.b64encode(png((200, 200))).decode()
    tiny = base64.b64encode(png((5, 5))).decode()
    page = "".join(f'<img src="data:image/png;base64,{code}">' for code in (data, tiny))
    page += "<code>src=&quot;data:image/png;base64,{code}&quot;</code>"
    (tmp_path / "notebooks").mkdir()
    made = book_site.extract_pictures(page, tmp_path / "notebooks", tmp_path / "_images")
    (path,) = (tmp_path / "_images").iterdir()
    assert path.read_bytes() == base64.b64decode(data)
    assert f'src="../_images/{path.name}"' in made
    assert tiny in made and "{code}" in made


def test_pages_load_what_they_use():
    head = (
        '<script defer src="_static/scripts/fontawesome.js?d=1"></script>\n'
        '<script>window.MathJax = {"options": 1}</script>\n'
        '<script defer="defer" src="_static/../mathjax/tex.js"></script>\n'
        '<script>const THEBE_JS_URL = "https://unpkg.com/thebe"</script>\n'
        '<link rel="stylesheet" type="text/css" href="_static/sphinx-thebe.css" />\n'
        '<link rel="stylesheet" href="book.css" /><script src="tables.js"></script>\n'
    )
    plain = book_site.light_head(head + "<p>Words</p>")
    for name in ("fontawesome", "MathJax", "mathjax", "thebe"):
        assert name not in plain
    assert "book.css" in plain and "tables.js" in plain
    formula = book_site.light_head(head + '<span class="math notranslate">x</span>')
    assert "mathjax/tex.js" in formula and "window.MathJax" in formula


def test_icons_that_occur_are_inside_the_style(tmp_path):
    import book_icons
    import pydata_sphinx_theme
    from fontTools.ttLib import TTFont

    theme = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
    for name in ("styles", "vendor"):
        execute.shutil.copytree(theme / name, tmp_path / "_static" / name)
    book_icons.embed(tmp_path, ['<i class="fas fa-rocket"></i>'])
    style = (tmp_path / book_icons.STYLE).read_text()
    assert "fontawesome/webfonts" not in style
    solid, *others = re.findall(r"data:font/woff;base64,([^)]*)", style)
    assert len(others) == 2
    codes = set(TTFont(io.BytesIO(base64.b64decode(solid))).getBestCmap())
    assert 0xF135 in codes  # the rocket
    assert len(codes) < 60


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text())


def test_everything_is_computed_anew_each_month(workflow):
    triggers = workflow[True]  # YAML reads "on" as a truth value
    (schedule,) = triggers["schedule"]
    assert re.fullmatch(r"\d+ \d+ \d+ \* \*", schedule["cron"])
    assert "workflow_dispatch" in triggers
    fresh = workflow["jobs"]["fresh"]
    (build,) = [step for step in fresh["steps"] if step.get("run") == "make book"]
    assert build["env"] == {"FRESH": "1"}
    assert "gh pr create" in fresh["steps"][-1]["run"]
    assert "schedule" in fresh["if"]


@pytest.mark.parametrize("changed", [["runs/a.json"], ["runs/a.json", "k.csv"]])
def test_new_dates_of_the_same_results_are_not_proposed(workflow, tmp_path, changed):
    """The step runs where a remote repository is a folder, and `gh` says what it is asked."""
    project, remote, programs = (tmp_path / name for name in ("project", "remote", "programs"))
    (project / "results/scenes/runs").mkdir(parents=True)
    programs.mkdir()
    (programs / "gh").write_text('#!/bin/sh\necho "$@" > "$ASKED"\n')
    (programs / "gh").chmod(0o755)
    names = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "ASKED": str(tmp_path / "asked"),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "GITHUB_RUN_ID": "1",
        "GITHUB_SHA": "0123",
    }

    def shell(script: str) -> None:
        options = {"cwd": project, "env": names, "capture_output": True, "text": True}
        done = subprocess.run(["bash", "-e", "-c", script], **options)
        assert done.returncode == 0, done.stderr

    for name in ("runs/a.json", "k.csv"):
        (project / "results/scenes" / name).write_text("before")
    identity = "-c user.name=a -c user.email=a@example.org"
    shell(f"git init -q --bare {remote}; git init -q; git remote add origin {remote}")
    shell(f"git add .; git {identity} commit -qm start")
    for name in changed:
        (project / "results/scenes" / name).write_text("anew")
    shell(workflow["jobs"]["fresh"]["steps"][-1]["run"])
    summary = (tmp_path / "summary.md").read_text()
    proposed = "k.csv" in changed
    assert ("The results are the same." in summary) is not proposed
    assert (tmp_path / "asked").exists() is proposed


def test_the_published_book_was_tried_in_a_browser(workflow):
    steps = workflow["jobs"]["build"]["steps"]
    (tried,) = (n for n, step in enumerate(steps) if "pytest" in step.get("run", ""))
    assert "tests/book" in steps[tried]["run"]
    assert steps[tried]["env"] == {"MGCA_REQUIRE_BROWSER": "1"}
    (made,) = (n for n, step in enumerate(steps) if step.get("run") == "make book")
    uploads = [n for n, step in enumerate(steps) if "upload-" in step.get("uses", "")]
    assert made < tried < min(uploads)


def test_the_book_is_printed_and_tried_by_the_same_browsers():
    assert one_page._BROWSERS == browser.PROGRAMS


def test_jobs_may_do_only_what_they_need(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    allowed = {name: job.get("permissions", {}) for name, job in workflow["jobs"].items()}
    assert allowed == {
        "build": {},
        "deploy": {"pages": "write", "id-token": "write"},
        "notebooks": {"contents": "write"},
        "fresh": {"contents": "write", "pull-requests": "write"},
    }
    # What a pull request runs may write nothing.
    for name in ("deploy", "notebooks"):
        assert "github.event_name == 'push'" in workflow["jobs"][name]["if"]


def test_the_cache_is_named_by_what_outputs_depend_on(workflow):
    (cache,) = [
        step["with"]
        for step in workflow["jobs"]["build"]["steps"]
        if step.get("uses", "").startswith("actions/cache@")
    ]
    for name in ("notebooks/*.py", "mgca/**", "results/**", "requirements.lock"):
        assert f"'{name}'" in cache["key"]
    assert "_build/executed" in cache["path"]
    assert cache["restore-keys"].strip() == "executed-"


def test_actions_are_pinned(workflow):
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))


def test_listings_have_no_docstrings():
    import book_pages

    source = '''\
    def f(x):
        """What it does.

        Args:
            x: A number.
        """

        # Why.
        def g():
            "Inner."
            return """kept"""

        return g
'''
    bare = 'def f(x):\n    # Why.\n    def g():\n        return """kept"""\n\n    return g'
    assert book_pages.without_docstrings(source) == bare
    only = 'class E(Error):\n    """Alone it is the body."""'
    assert book_pages.without_docstrings(only) == only


def test_the_buttons_open_the_branch_that_the_workflow_writes(workflow):
    import book_pages

    pushed = workflow["jobs"]["notebooks"]["steps"][-1]["run"]
    assert f"git push --force origin {book_pages.BRANCH}\n" in pushed
    context = {
        "header_buttons": [
            {"type": "group", "buttons": [{"label": "source-edit-button", "url": "wrong"}]}
        ]
    }
    book_pages.set_buttons(None, "notebooks/k", "page.html", context, None)
    edit, launch = context["header_buttons"]
    assert edit["buttons"][0]["url"] == f"{publish.REPOSITORY}/edit/main/notebooks/k.py"
    assert len(launch["buttons"]) == 2
    for button in launch["buttons"]:
        assert f"/{book_pages.BRANCH}" in button["url"]
        assert button["url"].endswith("notebooks/k.ipynb")


def test_make_compares_contents():
    makefile = (ROOT / "Makefile").read_text()
    assert "$(NOTEBOOKS) $(EXECUTED): notebooks ;" in makefile
    assert re.search(r"^notebooks:.*\n\t\$\(BIN\)/python book/_ext/execute.py$", makefile, re.M)


@pytest.fixture
def built(tmp_path):
    """Runs `make book` of a small project and says whether the book was built by it.

    The names of its folder and of that of the data have a space. Programs of the environment stand
    for the real ones: the one executes what `EXECUTE` says.
    """
    clone, data = tmp_path / "a clone", tmp_path / "my data"
    data.mkdir()
    for name in ("book/notebooks", "mgca", "notebooks", "results/scenes", ".venv/bin"):
        (clone / name).mkdir(parents=True)
    for name in ("_config.yml", "CITATION.cff", "requirements.lock", "pyproject.toml"):
        (clone / name).touch()
    (clone / "requirements-cuda.lock").touch()
    for name in ("notebooks/a.py", "results/scenes/k.csv", "results/scenes/areas.csv"):
        (clone / name).touch()
    shutil.copy(ROOT / "Makefile", clone)
    python = '#!/bin/sh\nmkdir -p _build/executed\neval "$EXECUTE"\n'
    python += f'test "$MGCA_DATA" = "{data}" && test "$IPYTHONDIR" = "{clone}/_build/ipython"'
    python += ' && test -z "$PYTHONDONTWRITEBYTECODE"\n'
    book = "#!/bin/sh\nmkdir -p _build/html\ntouch _build/html/index.html\necho BUILT\n"
    for name, text in {"python": python, "jupyter-book": book}.items():
        (clone / ".venv/bin" / name).write_text(text)
        (clone / ".venv/bin" / name).chmod(0o755)
    for path in clone.rglob("*"):
        os.utime(path, (1e9, 1e9))
    (clone / "_build/try").mkdir(parents=True)
    (clone / "_build/try/about.json").touch()
    stamps = (".python", ".half-0", ".half-1", ".lock-installed", ".mgca-installed")
    for place, name in enumerate(stamps):
        (clone / ".venv" / name).touch()
        os.utime(clone / ".venv" / name, (1.1e9 + place,) * 2)

    def run(execute: str = "") -> bool:
        names = {
            key: text
            for key, text in os.environ.items()
            if "MAKE" not in key and key != "MGCA_DATA"
        }
        done = subprocess.run(
            ["make", "book"],
            cwd=clone,
            env=names
            | {"EXECUTE": execute, "MGCA_DATA": "../my data", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        # The clock of a file system stands still for milliseconds: what is changed after this has
        # a later time than the page.
        later, page = clone / "later", clone / "_build/html/index.html"
        later.touch()
        while later.stat().st_mtime_ns <= page.stat().st_mtime_ns:
            time.sleep(0.001)
            later.touch()
        return "BUILT" in done.stdout

    return run


WRITES = "touch _build/executed/a.ipynb book/notebooks/a.ipynb"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_book_is_built_when_something_in_it_changed(built):
    assert built(WRITES)
    assert not built()
    # Executed anew with equal outputs: when and where is told on a page.
    assert built("touch _build/executed/a.ipynb")
    assert not built()
    assert built("touch book/notebooks/a.ipynb")
    assert not built()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_book_is_built_when_results_were_removed(built, tmp_path):
    assert built(WRITES)
    (tmp_path / "a clone/results/scenes/areas.csv").unlink()
    assert built()
    assert not built()


ADDRESS = "The address is this repository's"


@pytest.mark.parametrize("published", [True, False])
def test_another_repository_than_the_one_named_is_not_published(workflow, published):
    """Its links, buttons and notebooks would lead elsewhere."""
    (step,) = [s for s in workflow["jobs"]["build"]["steps"] if s.get("name") == ADDRESS]
    server, _, name = publish.REPOSITORY.rpartition("github.com/")
    here = {
        "GITHUB_SERVER_URL": f"{server}github.com",
        "GITHUB_REPOSITORY": name if published else "someone/fork",
    }
    done = subprocess.run(
        ["bash", "-ec", step["run"]],
        cwd=ROOT,
        env=os.environ | here,
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if published else 1), done.stderr
    assert published or ("someone/fork" in done.stdout and publish.REPOSITORY in done.stdout)
