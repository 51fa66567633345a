"""What all commands share: exit codes, help, how much they say, JSON, and completion."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TinyBackbone
from typer.core import TyperGroup
from typer.main import get_command

from mgca.cli import RESUMING, commands, loading, main, verbosity
from mgca.cli.ablate import notebooks
from mgca.config import SegmentConfig
from mgca.model import Model
from mgca.weights import catalogue, load_weights


def every(command=None, path=()) -> dict[tuple[str, ...], object]:
    """All commands by the words that call them."""
    command = command or get_command(commands)
    if not isinstance(command, TyperGroup):
        return {path: command}
    found = {} if not path else {path: command}
    for name, below in command.commands.items():
        found |= every(below, (*path, name))
    return found


NAMES = sorted(every())
# Each with arguments that can work, and what is called when it works.
WORKS = {
    "segment": ("photo.png --classes a,b --out out", "mgca.model.Model.segment"),
    "explain": (
        "photo.png --word a --out a.png --vocabulary w.txt",
        "mgca.inference.explain.explain",
    ),
    "evaluate": (
        "things --limit 1 --units pixel --background 0.5",
        "mgca.evaluation.benchmark.Evaluation.compute",
    ),
    "calibrate": ("things --limit 1", "mgca.evaluation.thresholds.threshold_curve"),
    "export": ("scenes a.onnx --size 64", "mgca.inference.export.export_onnx"),
    "train": ("--shards shards --device cpu --no-probe --dry-run", "mgca.data.shards.find_shards"),
    "ablate": ("k", "mgca.cli.ablate._execute"),
    "experiment run": ("k", "mgca.experiments.runner.run_ablations"),
    "experiment thresholds": ("", "mgca.experiments.thresholds.scale_curves"),
    "experiment protocol": ("", "mgca.experiments.protocol.protocol_table"),
    "experiment timing": ("", "mgca.experiments.timing.seconds_per_image"),
    "verify": ("", "mgca.experiments.verify.inconsistencies"),
    "experiment intervals": ("", "mgca.experiments.intervals.image_intervals"),
    "experiment publish": ("scenes-decoders", "mgca.experiments.publish.scenes_decoders"),
    "reproduce": ("--config my.toml", "mgca.experiments.paper_file.read_paper_file"),
    "models": ("", "mgca.weights.catalogue.models"),
    "doctor": ("", "mgca.cli.doctor.diagnose"),
    "app": ("--no-open --port 0", "mgca.cli.app.server.check_installed"),
    "data list": ("", "mgca.data.benchmarks.load_benchmark"),
    "data check": ("voc --root .", "mgca.data.benchmarks.check.check"),
    "data prepare": ("city --root .", "mgca.data.benchmarks.prepare.prepare"),
    "data shards": ("shards", "mgca.data.shards.find_shards"),
    "data captions": ("shards", "mgca.data.shards.find_shards"),
    "data pack": ("c.tsv out", "mgca.data.captions.load_captions"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a photograph and words, and a tiny model whatever is asked for."""
    monkeypatch.chdir(tmp_path)
    model = Model(TinyBackbone(), None, SegmentConfig(short_side=64, window=64, stride=32))
    monkeypatch.setattr(loading, "load_named", lambda *_: (model, "tiny"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Path("w.txt").write_text("a\nb\n")
    Path("results").mkdir()
    return tmp_path


def test_every_command_is_among_those_below():
    assert {" ".join(name) for name in NAMES} == {*WORKS, "data", "experiment"}


@pytest.mark.parametrize("name", WORKS)
def test_exit_codes(here, monkeypatch, capsys, name):
    words, called = WORKS[name]
    given = [*name.split(), *words.split()]

    def raising(error):
        def raises(*_, **__):
            raise error

        return raises

    resumes = [name.split()[0]] in RESUMING
    further = "; the same command goes on from here" if resumes else ""
    assert main([*name.split(), "--nothing"]) == 2
    assert "--nothing" in capsys.readouterr().err
    for error, code, said in [
        (OSError("no more\ndisk"), 1, "mgca: no more disk\n"),
        (ValueError("not that"), 1, "mgca: not that\n"),
        (ImportError("not here"), 1, "mgca: not here\n"),
        (KeyboardInterrupt(), 130, f"mgca: interrupted{further}\n"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(called, raising(error))
            assert main(given) == code
        out, err = capsys.readouterr()
        if name == "segment" and code == 1:  # whatever it is, it is that of one file, and named
            said = said.replace("mgca: ", f"mgca: {Path('photo.png').resolve()}: ")
        assert err.endswith(said) and "Traceback" not in err
        if code == 1:
            assert err == said
    with monkeypatch.context() as patch:
        patch.setattr(called, raising(ZeroDivisionError("ours")))
        if name == "segment":
            assert main(given) == 1
            assert "photo.png: ours" in capsys.readouterr().err
        else:
            with pytest.raises(ZeroDivisionError):
                main(given)


def test_codes_are_documented(capsys):
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 done; 1 an error, or a problem found; 2 wrong usage; 130 interrupted" in shown
    table = sys.modules["mgca.cli"].__doc__.split("code  meaning")[1]
    codes = [line.split()[0] for line in table.splitlines() if line[:1].isdigit()]
    assert codes == ["0", "1", "2", "130"]


@pytest.mark.parametrize("name", [(), *NAMES], ids=" ".join)
def test_help_fits_80_columns_and_has_whole_examples(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    assert main([*name, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    command = every()[name] if name else get_command(commands)
    if name == ("data", "list"):
        assert not command.epilog  # nothing to choose
        return
    given = [line for line in command.epilog.splitlines() if line.startswith("  ")]
    assert given and all(line.strip().split()[0] in ("mgca", "torchrun") for line in given)
    shown = [line.rstrip() for line in lines]
    assert all(f" {line}" in shown for line in given)


def test_every_example_is_understood():
    """The options of an example are those of its command."""
    for name, command in every().items():
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        for line in (command.epilog or "").splitlines():
            words = line.split()
            if words[: len(name) + 1] != ["mgca", *name] or isinstance(command, TyperGroup):
                continue
            assert {word for word in words if word.startswith("-")} <= known, line


def test_every_command_that_reports_has_json():
    without = {
        " ".join(name)
        for name, command in every().items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    # Two are groups of commands, one is a page, one writes weights.
    assert without == {"app", "data", "experiment", "experiment publish"}


def test_every_command_can_be_quiet_or_verbose():
    for name, command in every().items():
        known = {option for parameter in command.params for option in parameter.opts}
        if not isinstance(command, TyperGroup):
            assert {"--quiet", "-q", "--verbose", "-v"} <= known, name


def test_reports_as_json(here, capsys):
    assert main(["data", "list", "--json"]) == 0
    (voc,) = [row for row in json.loads(capsys.readouterr().out) if row["name"] == "voc"]
    assert (voc["images"], voc["classes"], voc["conversion"]) == (1449, 21, None)
    arguments = ["explain", "photo.png", "--word", "a", "--out", "a.png", "--vocabulary", "w.txt"]
    assert main([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown.pop("figure"), shown.pop("numbers")) == ("a.png", "a.json")
    assert shown == json.loads(Path("a.json").read_text())


def test_an_export_as_json(here, monkeypatch, capsys):
    def write(model, path, *, size, run):
        path.write_bytes(b"123")
        return path

    reads = []
    real = load_weights
    monkeypatch.setattr("mgca.weights.load_weights", lambda name: reads.append(name) or real(name))
    monkeypatch.setattr("mgca.inference.export.export_onnx", write)
    assert main(["export", "scenes", "a.onnx", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    run = real("scenes-mgca")[1]["run"]
    about = {"file": "a.onnx", "bytes": 3, "window": 112, "run": run}
    assert shown == {"model": "scenes", "decoder": "mgca"} | about
    assert reads == ["scenes-mgca"]
    assert main(["-q", "export", "scenes", "a.onnx"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["export", "vit-b-16", "a.onnx"]) == 1
    assert "give --decoder none" in capsys.readouterr().err


# How much is said


def test_the_level_lasts_as_long_as_the_command(here, capsys):
    log = logging.getLogger("mgca")
    before = log.level
    seen = []
    for words, level in [
        ([], logging.WARNING),
        (["-q"], logging.ERROR),
        (["--quiet"], logging.ERROR),
        (["-v"], logging.INFO),
        (["--verbose"], logging.INFO),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mgca.weights.catalogue.models", lambda: seen.append(log.level) or [])
            assert main([*words, "models"]) == 0
        assert seen.pop() == level and log.level == before
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mgca.weights.catalogue.models", lambda: seen.append(log.level) or [])
            assert main(["models", *words]) == 0
        assert seen.pop() == level and log.level == before
    assert main(["-q", "models", "-v"]) == 2
    assert main(["-q", "-v", "models"]) == 2
    assert "--quiet does not go with --verbose" in capsys.readouterr().err
    assert log.level == before


def test_segment_has_the_same_options(here, capsys):
    words = "segment photo.png --classes a,b --out"
    said = {}
    for place, arguments in {
        "before": lambda option: [option, *words.split()],
        "after": lambda option: [*words.split()[:2], option, *words.split()[2:]],
    }.items():
        for option in ("-q", "-v"):
            assert main([*arguments(option), f"{place}{option}"]) == 0
            said[place, option] = capsys.readouterr().out
    assert said["before", "-q"] == said["after", "-q"] == ""
    assert said["before", "-v"].startswith("photo.png: ")
    assert said["before", "-v"].splitlines()[0] == said["after", "-v"].splitlines()[0]
    capsys.readouterr()
    assert main(["-q", *words.split(), "x", "--json"]) == 0
    assert "summary" in capsys.readouterr().out
    assert main(["-q", *words.split(), "x", "--verbose"]) == 2


def test_quiet_reports_are_still_printed(here, capsys):
    for words in (["data", "list"], ["data", "list", "--json"], ["models"]):
        assert main(words) == 0
        expected = capsys.readouterr().out
        assert main(["-q", *words]) == 0
        assert capsys.readouterr().out == expected != ""


def test_messages_of_the_library_go_to_standard_error(tmp_path):
    code = (
        "import logging, sys, mgca.weights.catalogue; log = logging.getLogger('mgca.x')\n"
        "mgca.weights.catalogue.models = lambda: [log.info('step'), log.warning('odd')][:0]\n"
        "from mgca.cli import main; sys.exit(main())"
    )
    for options, said in {"": "odd\n", "-v": "step\nodd\n", "-q": ""}.items():
        command = [sys.executable, "-c", code, *options.split(), "models", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", said)


def test_levels():
    assert verbosity.level_of(False, False) == logging.WARNING
    with verbosity.saying(logging.ERROR):
        assert verbosity.is_quiet() and not verbosity.is_verbose()
        with verbosity.saying(logging.INFO):
            assert verbosity.is_verbose() and not verbosity.is_quiet()
        assert verbosity.is_quiet()


# Completion


@pytest.fixture
def complete(monkeypatch, capsys):
    """What bash would be told after a line; a space at its end begins a new word."""

    def told(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        monkeypatch.setenv("_MGCA_COMPLETE", "complete_bash")
        main([])
        out, err = capsys.readouterr()
        assert err == ""
        return out.split()

    return told


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mgca seg", ["segment"]),
        ("mgca segment x.jpg --model ", ["lite", "scenes", "vit-b-16"]),
        ("mgca segment x.jpg --decoder n", ["none"]),
        ("mgca evaluate --model g", ["groupvit"]),
        ("mgca evaluate th", ["things"]),
        ("mgca data check voc", ["voc", "voc20"]),
        ("mgca train --config pa", ["paper"]),
        ("mgca export s", ["scenes"]),
        ("mgca ablate g", ["granularity"]),
    ],
)
def test_completion_in_bash(complete, line, expected):
    assert complete(line) == expected


def test_the_script_for_bash(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    # typer asks which shell it was started by, so it must be one.
    show = ["bash", "-c", f"'{sys.executable}' -m mgca --show-completion; exit $?"]
    script = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    (tmp_path / "c.sh").write_text(script)
    # As bash does it: the words so far, and the function that `complete` names.
    tell = (
        "source c.sh\n"
        "complete -p mgca; COMP_WORDS=(mgca doc) COMP_CWORD=1\n"
        f"_mgca_completion '{tmp_path}/mgca'; echo \"${{COMPREPLY[@]}}\""
    )
    (tmp_path / "mgca").write_text(f'#!/bin/sh\nexec {sys.executable} -m mgca "$@"\n')
    (tmp_path / "mgca").chmod(0o755)
    done = subprocess.run(["bash", "-c", tell], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "doctor", done.stderr
    assert "-F _mgca_completion mgca" in done.stdout


def test_completed_names_are_all_that_there_are():
    from mgca.experiments import load_scale
    from mgca.training.runs import NAMED

    known = [model.name for model in catalogue.models()]
    assert [*loading.OWN_MODELS, *loading.OTHER_METHODS] == known
    assert set(sys.modules["mgca.cli.train"]._configurations()) == set(NAMED)
    assert {"areas", "granularity", "k", "meta_points"} <= set(notebooks())
    for name in ("scenes", "photos"):
        assert load_scale(name).name == name


def test_completion_is_light():
    code = (
        "import sys; from mgca.cli import main; main(); "
        "print(sorted({'torch', 'numpy', 'PIL', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    )
    variables = {"COMP_WORDS": "mgca evaluate ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables | {"_MGCA_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
    )
    assert "things" in done.stdout.split() and done.stderr == "[]\n"
