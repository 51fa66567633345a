"""``mgca reproduce``: what it refuses at the start; ``make rehearse`` runs it."""

from pathlib import Path

import pytest

from mgca.cli import main
from mgca.experiments.paper_file import read_paper_file


def test_the_example_is_printed_and_can_be_read(tmp_path, capsys):
    assert main(["reproduce", "--example"]) == 0
    (tmp_path / "my.toml").write_text(capsys.readouterr().out)
    assert read_paper_file(tmp_path / "my.toml").preset == "full"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "--example prints one"),
        (["--config", "my.toml"], 1, "no file my.toml: copy"),
        (["--config", "my.toml", "--tables", "1,5"], 2, "numbers from 1 to 4"),
        (["--config", "my.toml", "--tables", "1,1"], 2, "numbers from 1 to 4"),
    ],
)
def test_wrong_use_is_refused(tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *words]) == code
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said and not list(Path().iterdir())


def test_nothing_is_started_where_something_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "my.toml").write_text(
        "preset = 'rehearsal'\n[encoder]\nrandom_weights = true\nname = 'no-such-model'\n"
        "[shards]\nsource = 'nowhere'\n[background]\nthreshold = 0.5\ntemperature = 0.1\n"
    )
    given = ["reproduce", "--config", str(tmp_path / "my.toml"), "--no-probe"]
    assert main(given) == 1
    out, err = capsys.readouterr()
    assert "missing     encoder: unknown backbone 'no-such-model'" in out
    assert "nothing is started: encoder: unknown backbone" in err and "hf download" in err
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]
    assert main([*given, "--dry-run"]) == 0
