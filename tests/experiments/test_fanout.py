"""Several runs at a time: one whose process is killed is named, and does not stop the others."""

import importlib.util
import sys

import pytest
from tiny_scale import attempt

from mgca.experiments.fanout import Jobs, ended


def computed(tmp_path, **options) -> dict[str, str]:
    tasks = ["one", "failed", "two", "killed"]
    return dict(ended(attempt, tasks, tmp_path, folder=tmp_path / "jobs", **options))


@pytest.mark.slow
def test_a_killed_process_is_named(tmp_path):
    found = computed(tmp_path, jobs=2)
    assert set(found) == {"one", "failed", "two", "killed"}
    assert "was killed, perhaps for lack of memory" in found["killed"]
    # What had ended is told as it was.
    assert found["one"] == "" and (tmp_path / "one").is_file()


@pytest.mark.skipif(not importlib.util.find_spec("submitit"), reason="needs the extra cluster")
@pytest.mark.slow
def test_jobs_of_submitit(tmp_path):
    found = computed(tmp_path, submitted=Jobs(executor="local"))
    assert found["one"] == found["two"] == "" and found["failed"] == "it went wrong"
    assert "the same command goes on" in found["killed"]


def test_submitit_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r'pip install "mgca\[cluster\]"'):
        computed(tmp_path, submitted=Jobs(executor="slurm"))


def test_wrong_jobs_are_refused():
    with pytest.raises(ValueError, match="at_once must be at least 1"):
        Jobs(at_once=0)
    with pytest.raises(ValueError, match="not 'pbs'"):
        Jobs(executor="pbs")
