"""The report of ``mgca doctor``, on machines that lack this or that."""

import importlib.metadata
import json
import shutil

import pytest
from hub_server import Hub
from huggingface_hub import constants

import mgca
from mgca.cli import doctor, main
from mgca.cli.doctor import FAIL, NOTE, OK, Finding
from mgca.weights import catalogue

# Packages that do not exist: nothing else asks for their versions.
REQUIRED = [
    "x-numbers==1.0",
    "x-tensors==2.0.0",
    'x-graphs==1.0; extra == "onnx"',
    'x-shards==3.0; extra == "train"',
    "x-range>=1",
]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Packages by version, an empty cache, a hub that answers, and a model that loads at once."""
    versions = {"x-numbers": "1.0", "x-tensors": "2.0.0+cpu", "x-graphs": "1.0"}
    real = importlib.metadata.version

    def version(name):
        return versions[name] if name in versions else real(name)

    class Lite:
        def segment(self, image, classes):
            self.labels = image[:, :, 0]
            return self

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRED)
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(mgca, "load", {"lite": Lite()}.__getitem__, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path / "mgca"))
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        yield versions


def states(findings) -> dict[str, str]:
    return {finding.name: finding.state for finding in findings}


def because(report) -> dict[str, str | None]:
    return {a.what.partition(":")[0]: a.because for a in report.abilities}


def test_a_sound_machine(environment, capsys):
    environment["x-shards"] = "3.0"
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    found = {(f["topic"], f["name"]): f for f in report["findings"]}
    assert found["packages", "versions"]["detail"] == "all 2 are as pinned"
    assert {name for topic, name in found if topic == "extras"} == {"onnx", "train"}
    assert found["core", "lite"]["detail"].endswith("an image of 64x64")
    assert found["hub", constants.ENDPOINT]["state"] == OK
    abilities = {a["what"]: a["because"] for a in report["abilities"]}
    # A download is no obstacle where the hub answers.
    assert abilities['vit-b-16: mgca.load("vit-b-16", decoder=None)'] is None
    assert abilities["train from shards: mgca train, mgca data shards"] is None
    assert found["weights", "open_clip_model.safetensors"]["state"] == NOTE


def test_the_report_in_words(environment, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    works, not_here = out.split("works here\n")[1].split("does not work here\n")
    assert "  lite: " in works and "  export to ONNX: mgca export\n" in works
    reason = 'because x-shards missing: pip install "mgca[train]"'
    assert f"train from shards: mgca train, mgca data shards, {reason}" in not_here
    assert out.endswith("the core works\n")


def test_versions_other_than_the_pinned(environment):
    environment["x-numbers"] = "2.0"
    del environment["x-tensors"]
    core, _ = doctor.pins()
    assert core == {"x-numbers": "1.0", "x-tensors": "2.0.0"}
    findings = list(doctor.check_packages(core))
    assert states(findings) == {"x-numbers": NOTE, "x-tensors": FAIL}
    assert findings[1].detail == "missing, pinned is 2.0.0: pip install x-tensors==2.0.0"
    assert not doctor.Report(tuple(findings), ()).ok
    environment["x-graphs"] = "2.0"
    (onnx, train) = doctor.check_extras(doctor.pins()[1])
    assert (onnx.state, onnx.detail) == (NOTE, "not as pinned: x-graphs 2.0, not 1.0")
    assert (train.state, train.name) == (NOTE, "train")


def test_without_an_installation_there_is_nothing_to_compare_with(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert doctor.pins() == ({}, {})
    assert states(doctor.check_packages({})) == {"mgca": NOTE}


def test_a_core_that_does_not_work(environment, monkeypatch, capsys):
    def broken(name):
        raise RuntimeError("a symbol is\n missing")

    monkeypatch.setattr(mgca, "load", broken)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "fail  lite: RuntimeError: a symbol is missing" in out
    assert 'vit-b-16: mgca.load("vit-b-16", decoder=None), because the core does not' in out
    assert out.endswith("the core does not work\n")


def test_a_hub_out_of_reach(environment, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert doctor.check_hub().detail == "not asked: HF_HUB_OFFLINE is set"
    reasons = because(doctor.diagnose())
    assert reasons["lite"] is None
    assert "needs a download of 598 MB" in reasons["vit-b-16"]
    assert "HF_HUB_OFFLINE is set" in reasons["vit-b-16"]
    assert "HF_HUB_OFFLINE is set" in reasons["models on the hub"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Hub() as hub:
        hub.status = 503
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        assert doctor.check_hub().detail == "answers with status 503: try later"
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port of "discard"
    found = doctor.check_hub()
    assert found.state == NOTE and found.detail.startswith("out of reach (")


def test_damaged_weights(environment, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    shutil.copytree(catalogue.WEIGHTS, folder)
    monkeypatch.setattr(catalogue, "WEIGHTS", folder)
    (folder / "scenes-mgca.safetensors").write_bytes(b"")
    report = doctor.diagnose()
    (bad,) = [finding for finding in report.findings if finding.state == FAIL]
    assert bad.name == "scenes-mgca.safetensors" and not report.ok
    reasons = because(report)
    assert reasons["lite"] is None and "expected 6955da415b1f" in reasons["scenes"]


def test_folders(environment, tmp_path, monkeypatch):
    found = {finding.name: finding for finding in doctor.check_folders()}
    assert set(states(found.values()).values()) == {OK}
    assert str(tmp_path / "mgca") in found["cache, $MGCA_CACHE"].detail
    assert not (tmp_path / "mgca").exists()  # a doctor leaves nothing behind
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path / "file" / "cache"))
    cache = next(doctor.check_folders())
    assert cache.state == NOTE and "cannot be written to" in cache.detail
    monkeypatch.setattr(doctor, "_LEAST_DISK", 2**70)
    assert doctor._writable(tmp_path)[1].endswith("little")


def test_little_memory(monkeypatch):
    monkeypatch.setattr(doctor, "_LEAST_MEMORY", 2**70)
    (memory,) = doctor.check_memory()
    assert memory.state == NOTE and "GiB free: large" in memory.detail


def test_torch_and_python_are_looked_at(monkeypatch):
    import torch

    found = {finding.name: finding for finding in doctor.check_torch()}
    assert set(states(found.values()).values()) == {OK}
    assert torch.__version__ in found["torch"].detail and "cpu" in found["devices"].detail
    monkeypatch.setattr(doctor, "_OLDEST_PYTHON", (99,))
    python, _ = doctor.check_python()
    assert isinstance(python, Finding) and python.state == FAIL
    monkeypatch.setitem(doctor.sys.modules, "torchvision", None)
    *_, vision = doctor.check_torch()
    assert (vision.name, vision.state) == ("torchvision", FAIL)
    monkeypatch.setitem(doctor.sys.modules, "torch", None)
    assert states(doctor.check_torch()) == {"torch": FAIL}
