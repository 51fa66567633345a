"""Each defect that fuzzing has found, as the smallest input that shows it."""

import io
import json
import math
import os
import subprocess
import tarfile

import numpy as np
import pytest
import torch
from harness import encode, limits, photo
from PIL import EpsImagePlugin, Image
from tiny import TinyBackbone

pytest.importorskip("webdataset")

import shard_readers
from targets import TARGETS
from weight_readers import network

from mgca.backbone.lite import Lite, take_alignment
from mgca.config import grid_side
from mgca.data.benchmarks import read_benchmark
from mgca.data.benchmarks.files import read_ids
from mgca.data.features import CacheError, features_file, image_features, text_embeddings
from mgca.data.masks import DataError, Masked
from mgca.data.shards import ShardError, find_shards
from mgca.data.shards.index import index_file, index_of, scan
from mgca.data.shards.sample import CorruptSample, caption_of
from mgca.data.shards.texts import Embeddings, load_nouns, save_nouns
from mgca.data.texts import nouns
from mgca.prompts import check_classes
from mgca.training.checkpoint import metrics_until, resume
from mgca.training.runs import load_run
from mgca.utils.images import ImageError, open_image
from mgca.weights import WeightsError, read_tensors, saved, write_tensors
from mgca.weights.decoders import learned_sigmoid


def test_postscript_is_not_executed(monkeypatch, tmp_path):
    def executed(*_, **__):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(subprocess, "check_call", executed)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", executed)
    data = encode(photo(), "EPS")
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    for source in (data, path, Image.open(io.BytesIO(data))):
        with pytest.raises(ImageError, match="PostScript is a program"):
            open_image(source)
    with pytest.raises(DataError, match="PostScript"):
        Masked("m", [("i", path, path)], ("a",), 0, "").mask(0)
    with pytest.raises(DataError, match="PostScript"):
        read_ids(path)


def test_classes_that_are_no_unicode_text():
    for name in (os.fsdecode(b"caf\xe9"), "\ud800", "a\udfffb"):
        with pytest.raises(ValueError, match="class 1 is no Unicode text"):
            check_classes(["cat", name])


DEEP = b"[" * 100_000


def test_captions_in_odd_json():
    with pytest.raises(CorruptSample, match="damaged"):
        caption_of(None, b'{"caption": ' + DEEP)
    with pytest.raises(CorruptSample, match="no Unicode text"):
        caption_of(None, b'{"caption": "a \\ud800 cat"}')
    assert caption_of(None, b'{"caption": "\\ud83d\\ude00"}') == "😀"


def test_nouns_of_endless_captions():
    assert nouns("a cat " + "very " * 996 + "big dog") == ["cat", "dog"]
    assert nouns("a cat " + "very " * 997 + "big dog") == ["cat"]


@pytest.mark.parametrize("huge", ["1" + "0" * 400, "9" * 5000, DEEP.decode()])
def test_numbers_and_nesting_without_end_in_configurations(huge, tmp_path):
    file = tmp_path / "some.toml"
    file.write_text(f"clip = {huge}")
    with pytest.raises(ValueError, match="clip|TOML"):
        load_run(file)
    with pytest.raises(ValueError, match="clip"):
        load_run("paper", [f"clip={huge}"])
    text = TARGETS["benchmark"].seeds()[0].decode()
    assert "threshold = " in text or "temperature" in text or "[protocol]" in text
    file.write_text(text.replace("[protocol]", f"[protocol]\ntcl_threshold = {huge}"))
    with pytest.raises(ValueError, match="some.toml"):
        read_benchmark(file)


@pytest.mark.parametrize("points", [10**400, 10**400 + 1, math.inf, math.nan, -1, 0, 2.25, 35])
def test_meta_points_without_end(points):
    if points == 10**400:
        assert grid_side(points) == 10**200
        return
    with pytest.raises(ValueError, match="must be a square"):
        grid_side(points)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": ["decoder.safetensors"]},
        {"files": "decoder.safetensors"},
        {"segment": {"meta_points": math.inf}},
        {"segment": {"meta_points": 36.0}},
        {"segment": {"short_side": 448.5}},
        {"segment": {"stride": True}},
        {"segment": ["short_side"]},
    ],
)
def test_configurations_of_models(changes, tmp_path):
    config = json.loads(TARGETS["model-config"].seeds()[0]) | changes
    path = tmp_path / saved.CONFIG
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="not the configuration of a model"):
        saved.read_config(path)


def test_a_decoder_with_a_damaged_sigmoid(tmp_path):
    path = tmp_path / "d"
    path.write_bytes(TARGETS["weights"].seeds()[0])
    _, meta = read_tensors(path)
    assert learned_sigmoid(meta) == (1.5, -0.5)
    for bias in (None, [], "b"):
        with pytest.raises(WeightsError, match="sigmoid"):
            learned_sigmoid(meta | {"sigmoid_bias": bias})
    del meta["sigmoid_bias"]
    with pytest.raises(WeightsError, match="sigmoid"):
        learned_sigmoid(meta)


def test_an_alignment_with_a_damaged_temperature(tmp_path):
    backbone = Lite(pretrained=False)
    state = backbone.alignment()
    for temperature in (None, [], "warm", "nan", "inf", "0", -1):
        path = write_tensors(tmp_path / "a", state, {"temperature": temperature})
        with pytest.raises(WeightsError, match="lacks a temperature"):
            take_alignment(backbone, *read_tensors(path))
    path = write_tensors(path, state, {"temperature": "0.5"})
    take_alignment(backbone, *read_tensors(path))
    assert backbone.temperature == 0.5


def test_metadata_nested_without_end(tmp_path):
    header = json.dumps({"__metadata__": {"mgca": DEEP.decode()}}).encode()
    path = tmp_path / "w"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        read_tensors(path)


def _damaged_checkpoints():
    """What to change of the tensors and of the metadata."""
    wide = {"model.weight": torch.ones(1)}  # which would be copied to every weight
    yield wide, {}
    yield {"model.weight": None}, {}
    yield {"model.other": torch.ones(1)}, {}
    yield {"optimizer.0.exp_avg": None}, {}
    yield {"optimizer.1.exp_avg_sq": torch.ones(3)}, {}
    yield {"optimizer.7.step": torch.ones(())}, {}
    yield {"optimizer.x": torch.ones(())}, {}
    for step in (None, "1", 1.0, -1):
        yield {}, {"step": step}
    yield {}, {"config": None}
    yield {}, {"config": []}


@pytest.mark.parametrize("tensors, values", list(_damaged_checkpoints()))
def test_damaged_checkpoints(tensors, values, tmp_path):
    path = tmp_path / "c"
    path.write_bytes(TARGETS["checkpoint"].seeds()[0])
    state, meta = read_tensors(path)
    state = {key: value for key, value in (state | tensors).items() if value is not None}
    write_tensors(path, state, meta | values)
    net, optimizer = network()
    before = net.weight.clone()
    with pytest.raises(WeightsError, match="not a checkpoint.*delete it to start again"):
        resume(path, {"rate": 0.1}, net, optimizer)
    assert torch.equal(net.weight, before) and not optimizer.state_dict()["state"]


def test_a_checkpoint_without_the_scaler(tmp_path):
    path = tmp_path / "c"
    path.write_bytes(TARGETS["checkpoint"].seeds()[0])
    scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(WeightsError, match="not a checkpoint of this model"):
        resume(path, {"rate": 0.1}, *network(), scaler)


@pytest.mark.parametrize("text", ["steps,total\n0,1\n", "step,total\nx,1\n", "step\n\xff\0"])
def test_damaged_metrics(text, tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="m.csv is damaged"):
        metrics_until(path, 3)


def tar(*headers: tuple[dict, bytes]) -> bytes:
    """A tar of headers with these fields, each as it is, and what follows each."""
    parts = []
    for fields, body in headers:
        member = tarfile.TarInfo(fields.pop("name", "a.jpg"))
        member.type = fields.pop("type", tarfile.REGTYPE)
        block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        size = fields.pop("size", b"%011o\0" % len(body))
        block[124:136] = size if isinstance(size, bytes) else size.to_bytes(12, "big", signed=True)
        if not isinstance(size, bytes):
            block[124] |= 0x80
        parts.append(bytes(block) + body + b"\0" * (-len(body) % 512))
    return shard_readers.repair_tar(b"".join(parts) + b"\0" * 1024)


def _pax(**values: object) -> tuple[dict, bytes]:
    lines = b""
    for key, value in values.items():
        line = f" {key}={value}\n"
        lines += f"{len(line) + 2}{line}".encode()
    return {"type": tarfile.XHDTYPE}, lines


# The 483rd byte says that a list of parts follows.
SPARSE = tar(({"type": b"S"}, b""))[:482] + b"\1" + b"\0" * 29
ODD_TARS = {
    "ends before it begins": tar(({"size": -1024}, b"")),
    "begins again": tar(
        ({"name": "x"}, b"1"), ({"name": "x"}, b"2"), ({"name": "x", "size": -1536}, b"")
    ),
    "by its extended header": tar(_pax(size=-1024), ({}, b"")),
    "larger than any file": tar(({"size": 2**80}, b"")),
    "a name larger than the memory": tar(({"type": b"L", "size": 2**62}, b"")),
    "names of names": tar(*[({"type": tarfile.GNUTYPE_LONGNAME}, b"x" * 120) for _ in range(1200)]),
    "a sparse file cut off": shard_readers.repair_tar(SPARSE),
}


@pytest.mark.parametrize("what", ODD_TARS)
def test_odd_tars(what, tmp_path):
    path = tmp_path / "00000.tar"
    path.write_bytes(ODD_TARS[what])
    with (
        limits(what),
        pytest.raises(ShardError, match=r"00000\.tar .*(damaged|truncated|not a tar)"),
    ):
        scan(path)


@pytest.fixture
def shard(tmp_path, monkeypatch):
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "00000.tar"
    path.write_bytes(shard_readers.shard_bytes())
    return path


def _changed_index(changes: dict, rows=None):
    def change(text: str) -> str:
        head, own = (json.loads(line) for line in text.splitlines())
        return f"{json.dumps(head | changes)}\n{json.dumps(own if rows is None else rows(own))}\n"

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "[]\n[]\n",
        lambda text: text.splitlines()[0],
        lambda text: text[:-20],
        lambda text: DEEP.decode() + "\n",
        lambda text: text.splitlines()[0] + "\n" + DEEP.decode(),
        _changed_index({"count": "4"}),
        _changed_index({"count": 1}),
        _changed_index({"stamp": None}),
        _changed_index({}, lambda rows: rows[:3]),
        _changed_index({}, lambda rows: [rows[0][:1], *rows[1:]]),
        _changed_index({}, lambda rows: [[1] * len(rows[0]), *rows[1:]]),
        _changed_index({}, lambda rows: [rows[0], [[0, -1]] * len(rows[0]), *rows[2:]]),
        _changed_index({}, lambda rows: [rows[0], [[0, 10**9]] * len(rows[0]), *rows[2:]]),
        _changed_index({}, lambda rows: [rows[0], [[0, "1"]] * len(rows[0]), *rows[2:]]),
        _changed_index({}, lambda rows: [rows[0], [[1]] * len(rows[0]), *rows[2:]]),
    ],
)
def test_a_damaged_index_is_made_again(change, shard):
    expected = index_of(str(shard), shard)
    kept = index_file(str(shard))
    before = kept.read_text()
    kept.write_text(change(before))
    assert index_of(str(shard), shard) == expected
    assert find_shards(shard, workers=1).counts in ((len(expected),), (1,))
    assert len(kept.read_text()) > 0


@pytest.mark.parametrize(
    "lengths, names",
    [([math.inf], ["00000.tar"]), ([1], [5]), (["x"], ["00000.tar"]), (5, ["00000.tar"])],
)
def test_damaged_lists_of_shards(lengths, names, shard):
    info = {"splits": {"train": {"filenames": names, "shard_lengths": lengths}}}
    (shard.parent / "_info.json").write_text(json.dumps(info))
    try:
        assert find_shards(shard.parent, workers=1).places == (str(shard),)
    except ShardError as error:
        assert "5: missing" in str(error)
    (shard.parent / "_info.json").write_bytes(DEEP)
    assert find_shards(shard.parent, workers=1).places == (str(shard),)


DAMAGED_NPY = {
    "empty": b"",
    "an archive": b"PK\x03\x04",
    "its header is open": b"\x93NUMPY\x01\x00\x02\x00{'",
    "too short": shard_readers.features_bytes()[:-2],
    "too long": shard_readers.features_bytes() + b"\0",
    "another type": shard_readers.features_bytes().replace(b"<f2", b"<i2"),
    "other images": shard_readers.features_bytes().replace(b"(3, 3, 2, 2)", b"(9, 1, 2, 2)"),
    "fewer axes": shard_readers.features_bytes().replace(b"(3, 3, 2, 2)", b"(3, 12)     "),
}


@pytest.mark.parametrize("what", DAMAGED_NPY)
def test_damaged_features(what, tmp_path):
    backbone, data = TinyBackbone(), shard_readers.pairs()
    path = features_file(backbone, data, size=32, folder=tmp_path)
    path.write_bytes(DAMAGED_NPY[what])
    with pytest.raises(CacheError, match=f"{path} is damaged.*delete it to compute it again"):
        image_features(backbone, data, size=32, folder=tmp_path)
    # Half written, it is computed from the start.
    path.rename(path.with_suffix(".partial"))
    path.with_suffix(".json").write_text('{"done": 2}')
    right = image_features(backbone, data, size=32, folder=tmp_path / "other")
    assert np.array_equal(image_features(backbone, data, size=32, folder=tmp_path), right)


@pytest.mark.parametrize(
    "state", ["", "{", "[]", '{"done": -1}', '{"done": 4}', '{"done": "1"}', '{"done": true}']
)
def test_damaged_states_of_features(state, tmp_path):
    backbone, data = TinyBackbone(), shard_readers.pairs()
    path = features_file(backbone, data, size=32, folder=tmp_path)
    path.with_suffix(".partial").write_bytes(shard_readers.features_bytes())
    path.with_suffix(".json").write_text(state)
    found = image_features(backbone, data, size=32, folder=tmp_path)
    assert found.any(axis=(1, 2, 3)).all()  # the zeros of the partial file are not taken


def test_damaged_text_embeddings(tmp_path):
    def read():
        return text_embeddings(TinyBackbone(), ["a cat"], folder=tmp_path)

    right = read()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CacheError, match="delete it"):
        read()
    for state in (
        {"other": right},
        {"embeddings": right[None]},
        {"embeddings": right.repeat(2, 1)},
    ):
        write_tensors(path, state, {})
        with pytest.raises(CacheError, match="delete it"):
            read()
    path.write_bytes(whole)
    assert torch.equal(read(), right)


def test_damaged_nouns_and_embeddings(shard, tmp_path):
    index = scan(shard)
    right = [["cat"]] * len(index)
    save_nouns("00000.tar", index, tmp_path, right)
    assert load_nouns("00000.tar", index, tmp_path) == right
    for wrong in (right[1:], [["cat", 1]] * len(index), "cat", [None] * len(index)):
        save_nouns("00000.tar", index, tmp_path, wrong)
        with pytest.raises(ShardError, match="nouns.json is damaged.*mgca data captions"):
            load_nouns("00000.tar", index, tmp_path)
    (path,) = tmp_path.glob("*.nouns.json")
    for text in ("", "[]", "{}", DEEP.decode()):
        path.write_text(text)
        with pytest.raises(ShardError, match="nouns.json is damaged"):
            load_nouns("00000.tar", index, tmp_path)
    store = Embeddings(tmp_path, "hashes")
    store.save("00000.tar", index, torch.zeros(len(index), 16))
    assert store.load("00000.tar", index).shape == (len(index), 16)
    for wrong in (torch.zeros(len(index) + 1, 16), torch.zeros(len(index))):
        store.save("00000.tar", index, wrong)
        with pytest.raises(ShardError, match="is damaged"):
            store.load("00000.tar", index)
    store.captions_file("00000.tar", index).write_bytes(b"")
    with pytest.raises(ShardError, match="is damaged"):
        store.load("00000.tar", index)
    for words, vectors in ((["cat"], torch.zeros(2, 7, 16)), (["cat", "dog"], torch.zeros(2, 16))):
        store.save_vocabulary(words, vectors)
        with pytest.raises(ShardError, match="vocabulary.* is damaged"):
            store.vocabulary()
    write_tensors(store.vocabulary_file, {"embeddings": torch.zeros(2, 7, 16)}, {})
    with pytest.raises(ShardError, match="vocabulary.* is damaged"):
        store.vocabulary()
