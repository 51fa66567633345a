"""Files from elsewhere, damaged in many ways: read, or refused in the words that are documented."""

import io
import os

import harness
import mutations
import numpy as np
import pytest
from harness import Target, Violation, attempt
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("webdataset")

from targets import TARGETS

NAMES = list(TARGETS)
inputs = settings(settings.get_profile("fuzz" if os.environ.get("MGCA_FUZZ") == "1" else "test"))


@pytest.mark.parametrize("name", NAMES)
def test_valid_files_are_read(name, tmp_path):
    read = sum(attempt(TARGETS[name], data, tmp_path / "x") for data in TARGETS[name].seeds())
    assert read >= 0.6 * len(TARGETS[name].seeds())  # some seeds are refused, and valid files


@pytest.mark.parametrize("name", NAMES)
@inputs
@given(drawn=st.randoms(use_true_random=False))
def test_damaged_files(name, drawn, tmp_path_factory):
    attempt(TARGETS[name], mutations.mutated(name, drawn), tmp_path_factory.mktemp("f") / "x")


@pytest.mark.parametrize("name", NAMES)
@inputs
@given(data=st.binary(max_size=200))
def test_any_bytes(name, data, tmp_path_factory):
    attempt(TARGETS[name], data, tmp_path_factory.mktemp("f") / "x")


# What the harness itself finds.


def _hangs(*_):
    while True:
        pass


def _allocates(*_):
    np.ones(harness.MEMORY + 2**27, dtype=np.uint8)  # the system may take other pages meanwhile


BAD = {
    "an error": (lambda *_: {}["key"], "KeyError: 'key'"),
    "an error without words": (lambda *_: (_ for _ in ()).throw(ValueError), "without a word"),
    "a hang": (_hangs, "not read within 1 s"),
    "a file": (lambda _, folder: (folder / "x.partial").touch(), "leaves x.partial"),
    "memory": (_allocates, "takes 3.. MiB"),
}


@pytest.mark.parametrize("what", BAD)
def test_the_harness_finds(what, monkeypatch, tmp_path):
    run, message = BAD[what]
    if what == "memory" and not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("the peak of the memory can be reset on Linux only")
    target = Target("bad", list, run, (ValueError,))
    if what == "a hang":
        monkeypatch.setattr(harness, "CPU_SECONDS", 1)
    with pytest.raises(Violation, match=message):
        attempt(target, b"", tmp_path / "x")
    assert not list((tmp_path / "x").iterdir())


def test_repaired_files_are_valid_again():
    for name in ("image", "shard", "weights"):
        for data in TARGETS[name].seeds():
            assert TARGETS[name].repair(data) == data, name
    png = bytearray(harness.encode(harness.photo(), "PNG"))
    png[16:20] = (5).to_bytes(4, "big")
    repaired = TARGETS["image"].repair(bytes(png))
    assert repaired != png and Image.open(io.BytesIO(repaired)).width == 5
