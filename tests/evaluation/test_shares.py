"""An evaluation on several processes counts what one process counts, image by image."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shared_out
from evaluated import files_below, load, tiny

from mgca.evaluation.benchmark import Evaluation, masked

pytestmark = pytest.mark.slow


def launched(folder: Path, *words: str, code: int = 0) -> list[dict]:
    """What each of two processes says, started as a user would, with torchrun."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*run, shared_out.__file__, str(folder), *words],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert bool(done.returncode) == bool(code), done.stderr[-3000:]
    return [] if code else [json.loads(path.read_text()) for path in folder.glob("said-*.json")]


def test_two_processes_count_what_one_does_and_go_on(folders):
    evaluation = Evaluation(tiny(), "tiny", masked(load(folders)), (None, 16), contours=True)
    record, found = evaluation.compute(folders / "alone", folders / "work")
    # The disk is gone before the second image of either.
    launched(folders, "1", code=1)
    assert not (folders / "out" / "evaluation.csv").exists()
    both = launched(folders)
    assert sorted(each.pop("seen") for each in both) == [[2, 4], [3]]
    expected = {unit: confusion.counts.tolist() for unit, confusion in found.items()}
    assert both == 2 * [expected | {"measured": record["measured"]}]
    assert files_below(folders / "out") == files_below(folders / "alone")
    assert not list((folders / "work").rglob("*.npz"))
    # Finished: nobody counts again, on one process either. Both took next to no time, so that the
    # record of one is given another.
    (finished,) = (folders / "out").rglob("*.json")
    known = json.loads(finished.read_text())
    finished.write_text(json.dumps(known | {"seconds": record["seconds"] + 1}))
    again, _ = evaluation.compute(folders / "out", folders / "work")
    assert again["seconds"] != record["seconds"] and again["measured"] == record["measured"]
