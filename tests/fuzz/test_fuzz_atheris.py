"""Each target a few hundred times under fuzzing guided by coverage, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import attempt

pytest.importorskip(
    "atheris",
    reason="needs atheris, which has builds for Linux on x86-64 and Python 3.11 to 3.13",
)
pytest.importorskip("webdataset")

from targets import TARGETS

SCRIPT = Path(__file__).with_name("atheris_run.py")
RUNS = 200


def run(*command: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )


@pytest.mark.fuzz
def test_every_target(tmp_path):
    result = run(SCRIPT, "--runs", RUNS, "--out", tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    counts = re.findall(r"number_of_executed_units: (\d+)", result.stderr)
    assert len(counts) == len(TARGETS) and min(map(int, counts)) >= RUNS
    assert not list(tmp_path.glob("*-crash-*"))
    for name in TARGETS:
        # Instrumented code is what makes an input worth keeping.
        assert len(list((tmp_path / f"{name}-corpus").iterdir())) > len(TARGETS[name].seeds()), name


def test_a_target_that_breaks_is_named(tmp_path):
    """A target whose documented errors are taken away, which every damaged input then breaks."""
    program = (
        "import dataclasses, sys; sys.path[:0] = sys.argv[1:3]; import targets, atheris_run; "
        "old = targets.TARGETS['metrics']; "
        "targets.TARGETS['metrics'] = dataclasses.replace(old, expected=()); "
        "sys.argv[1:] = ['metrics', 'classes', '--runs', '100', '--out', sys.argv[3]]; "
        "sys.exit(atheris_run.main())"
    )
    result = run("-c", program, SCRIPT.parent, SCRIPT.parent.parent, tmp_path)
    assert result.returncode == 1 and "broken: metrics;" in result.stderr, result.stderr[-3000:]
    (crash,) = tmp_path.glob("metrics-crash-*")
    assert not attempt(TARGETS["metrics"], crash.read_bytes(), tmp_path / "x")
