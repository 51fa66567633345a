"""Finding shards: the index against webdataset itself, truncated files, and downloads."""

import functools
import gzip
import http.server
import io
import json
import os
import re
import socket
import tarfile
import threading
import time
import types
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shards import (  # noqa: F401
    COUNTS,
    STREAM,
    batches,
    cache,
    caption,
    joined,
    members,
    picture,
    write_shards,
    write_tar,
)

from mgca.data.shards import ShardError, Shards, StreamConfig, find_shards, remote
from mgca.data.shards import index as index_module
from mgca.data.shards.index import IMAGE_EXTENSIONS, cached_count, index_file, index_of, scan
from mgca.data.shards.remote import fetch
from mgca.data.shards.summary import absent_names, summarise

# --- The index -----------------------------------------------------------------------------------

TRICKY = [
    ("a.jpg", b"1"),
    ("a.txt", b"two"),
    ("folder.with.dots/b.jpg", b"3"),
    ("folder.with.dots/b.json", b"{}"),
    ("c.seg.jpg", b"another extension"),
    ("c.JPG", b"upper case"),
    ("c.TXT", b"text"),
    ("deep/er/d.webp", b""),
    ("no-extension", b"skipped"),
    (".hidden", b"skipped"),
    ("__meta__", b"skipped"),
    ("__meta__/e.jpg", b"skipped"),
    ("__f__.jpg", b"not skipped"),
    ("x" * 180 + ".png", b"long name"),
    ("y" * 90 + "/" + "z" * 120 + ".jpeg", b"long folder"),
    ("ünïcödé.jpg", b"name"),
    ("ünïcödé.txt", b"text"),
    ("a.jpg", b"the key comes back: another sample"),
]


def by_webdataset(path: Path) -> list[dict]:
    with open(path, "rb") as stream:
        source = [{"url": str(path), "stream": stream}]
        return list(
            webdataset.tariterators.group_by_keys(webdataset.tariterators.tar_file_expander(source))
        )


def assert_same_as_webdataset(path: Path) -> None:
    found, data = scan(path), path.read_bytes()
    expected = by_webdataset(path)
    assert found.keys == [sample["__key__"] for sample in expected]
    for number, sample in enumerate(expected):
        image = next((sample[e] for e in IMAGE_EXTENSIONS if e in sample), None)
        wanted = (image, sample.get("txt"), sample.get("json"))
        for column, own in zip((found.images, found.texts, found.details), wanted, strict=True):
            span = column[number]
            assert (None if span is None else data[span[0] : sum(span)]) == own


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_index_is_that_of_webdataset(tmp_path, kind):
    path = write_tar(tmp_path / "t.tar", TRICKY, kind)
    assert_same_as_webdataset(path)
    assert len(scan(path)) == 9


names = st.text(st.sampled_from("ab._/J"), min_size=1, max_size=6).map(
    lambda name: name.strip("/") or "a"
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, st.sampled_from([".jpg", ".txt", ".json", ""])), max_size=8))
def test_index_of_any_names(tmp_path_factory, drawn):
    full = list(dict.fromkeys(name + ending for name, ending in drawn))
    path = tmp_path_factory.mktemp("t") / "t.tar"
    write_tar(path, [(name, name.encode()) for name in full])
    try:
        expected = len(by_webdataset(path))
    except ValueError:
        with pytest.raises(ShardError, match="duplicate file name"):
            scan(path)
        return
    assert len(scan(path)) == expected
    assert_same_as_webdataset(path)


def test_folders_and_links_are_no_members(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for kind, name in [(tarfile.DIRTYPE, "f"), (tarfile.SYMTYPE, "l.jpg")]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            tar.addfile(member)
        for name, data in members(3):
            member = tarfile.TarInfo(f"f/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert_same_as_webdataset(tmp_path / "t.tar")
    assert scan(tmp_path / "t.tar").keys == ["f/000000003"]


def test_index_is_kept_and_checked(tmp_path, monkeypatch):
    (path,) = write_shards(tmp_path / "s", [5])
    first = find_shards(path, workers=1)
    kept = index_of(str(path), path)
    assert kept == scan(path)
    monkeypatch.setattr(index_module, "scan", None)  # would fail if it were called
    assert find_shards(path, workers=1) == first and index_of(str(path), path) == kept
    index_file(str(path)).write_text("{")
    monkeypatch.undo()
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path / "cache"))
    assert find_shards(path, workers=1) == first
    # Changed in place, to the same size: the time of change tells.
    time.sleep(0.02)
    write_tar(path, [member for number in range(5, 10) for member in members(number)])
    assert index_of(str(path), path).keys[0] == "000000005"


# --- Sources -------------------------------------------------------------------------------------


def test_sources(tmp_path, monkeypatch):
    paths = [str(path) for path in write_shards(tmp_path / "s", COUNTS)]
    whole = find_shards(tmp_path / "s")
    assert whole.counts == tuple(COUNTS) and len(whole) == 53
    assert whole.names == tuple(f"{n:05d}.tar" for n in range(5)) and list(whole.places) == paths
    monkeypatch.chdir(tmp_path)
    for source in ("s", "s/*.tar", "s/{00000..00004}.tar", paths, paths[::-1]):
        assert find_shards(source) == whole
    assert find_shards("s/{00000..00001}.tar") == whole.first(2) != whole
    assert whole.first(None) == whole.first(9) == whole
    assert whole.first(2).digest != whole.digest
    moved = tmp_path / "elsewhere"
    (tmp_path / "s").rename(moved)
    assert find_shards(moved).digest == whole.digest


def test_equal_names_in_two_folders(tmp_path):
    one, two = (write_shards(tmp_path / name / "train", [3])[0] for name in "ab")
    found = find_shards([str(two), str(one)])
    assert found.names == ("a/train/00000.tar", "b/train/00000.tar")


def test_the_split_train_of_a_set(tmp_path):
    for number, name in enumerate(["cc3m-train-0000", "cc3m-train-0001", "cc3m-validation-0000"]):
        write_tar(tmp_path / f"{name}.tar", members(number))
    info = {
        "splits": {
            split: {"name": split, "filenames": names, "shard_lengths": [1] * len(names)}
            for split, names in (
                ("train", ["cc3m-train-0000.tar", "cc3m-train-0001.tar"]),
                ("validation", ["cc3m-validation-0000.tar"]),
            )
        }
    }
    assert len(find_shards(tmp_path).names) == 3
    (tmp_path / "_info.json").write_text(json.dumps(info))
    assert find_shards(tmp_path).names == ("cc3m-train-0000.tar", "cc3m-train-0001.tar")
    (tmp_path / "cc3m-train-0001.tar").unlink()
    with pytest.raises(ShardError, match="cc3m-train-0001.tar: missing, of 2 shards that"):
        find_shards(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "no shards"),
        ("*.tar", "no shards: .* names no file"),
        ("missing.tar", "no shard /.*missing.tar"),
        ("{0..1}.tar", "2 of 2 shards cannot be used"),
        ([], "no shards"),
        (["a.tar", "./a.tar"], "a.tar is listed more than once"),
    ],
)
def test_no_such_shards(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShardError, match=message):
        find_shards(source or tmp_path)


# --- Damaged files -------------------------------------------------------------------------------


def test_truncated_anywhere(tmp_path):
    whole = write_tar(
        tmp_path / "whole.tar", members(1) + members(2) + [("x" * 150 + ".jpg", b"3")]
    )
    data = whole.read_bytes()
    end = len(data.rstrip(b"\0"))
    end += -end % 512 + 1024  # the two blocks of zeros that end an archive
    cut = tmp_path / "cut.tar"
    expected = scan(whole)
    near = [block + offset for block in range(0, len(data), 512) for offset in (-1, 0, 1)]
    for size in sorted({*near, *range(0, len(data), 97)} & set(range(len(data)))):
        cut.write_bytes(data[:size])
        if size < end:
            with pytest.raises(ShardError, match=r"cut.tar (is empty|is not a tar|is truncated)"):
                scan(cut)
        else:
            assert scan(cut).keys == expected.keys


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 12), st.integers(1, 3))
def test_holes_are_found_or_lose_no_sample(tmp_path_factory, first, blocks):
    folder = tmp_path_factory.mktemp("t")
    path = write_tar(folder / "t.tar", members(1) + members(2))
    keys, data = scan(path).keys, bytearray(path.read_bytes())
    data[512 * first : 512 * (first + blocks)] = bytes(512 * blocks)
    path.write_bytes(data)
    try:
        assert scan(path).keys == keys
    except ShardError as error:
        assert str(path) in str(error)


def test_a_damaged_header_is_not_the_end(tmp_path):
    path = write_tar(tmp_path / "t.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")])
    data = bytearray(path.read_bytes())
    data[1024 + 100] ^= 0xFF  # in the mode of b.jpg
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"t.tar is damaged at byte 1024 of 10240: download it"):
        scan(path)


def test_all_damaged_shards_are_named_at_once(tmp_path):
    paths = write_shards(tmp_path, [2] * 7)
    data = paths[0].read_bytes()
    paths[0].write_bytes(b"")
    paths[1].write_bytes(data[:1000])
    paths[2].write_bytes(b"<html>not found</html>" * 100)
    paths[3].write_bytes(gzip.compress(data))
    paths[4].write_bytes(data + data)
    paths[5].write_bytes(data + bytes(2**20 - 512))
    for workers in (1, 2):
        with pytest.raises(ShardError) as caught:
            find_shards(tmp_path, workers=workers)
        lines = str(caught.value).splitlines()
        assert lines[0] == "6 of 7 shards cannot be used:"
        reasons = [
            "empty (0 bytes): download it again",
            "truncated",
            "not a tar",
            "compressed, and is read by random access: gunzip it",
            "bytes follow the end of the archive at 7168 of 20480. It is a download with holes",
            "zeros follow the end",
        ]
        for line, path, reason in zip(lines[1:], paths, reasons, strict=False):
            assert str(path) in line and reason in line
    for path in paths[:6]:
        path.unlink()
    assert find_shards(tmp_path).counts == (2,)


def test_a_duplicate_name_is_an_error(tmp_path):
    write_tar(tmp_path / "t.tar", members(1) + members(1))
    with pytest.raises(ShardError, match=r"t.tar: 000000001.jpg: duplicate file name"):
        find_shards(tmp_path)


# --- Holes, and counts at hand -------------------------------------------------------------------


def hole(path: Path, start: int, stop: int | None = None) -> None:
    """Overwrite a part of a file with zeros, as a download that left it out."""
    data = bytearray(path.read_bytes())
    data[start:stop] = bytes(len(data[start:stop]))
    path.write_bytes(data)


def test_a_shard_whose_second_half_is_zeros(tmp_path):
    (path,) = write_shards(tmp_path, [24])
    spans = scan(path).images
    hole(path, spans[12][0] - 512)  # from the header of the 13th sample on
    assert path.stat().st_size - spans[12][0] < 2**20  # which was once taken for padding
    with pytest.raises(ShardError, match=r"00000\.tar: \d+ zeros follow the end of the archive at"):
        find_shards(path)


@pytest.mark.parametrize("samples", [1, 3, 24])
@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_padding_of_any_length_is_none_of_a_hole(tmp_path, samples, kind):
    """From no record at all to a whole one, a tar that is as its writer left it passes."""
    path = tmp_path / "t.tar"
    for size in range(0, 11_000, 500):
        more = [(f"{n}.jpg", b"x" * size) for n in range(samples)]
        write_tar(path, more, kind)
        assert path.stat().st_size % tarfile.RECORDSIZE == 0 and len(scan(path)) == samples
        with open(path, "r+b") as file:  # what other writers leave: the two blocks alone
            last = sum(scan(path).images[-1])
            file.truncate(last + -last % 512 + 1024)
        assert len(scan(path)) == samples


def test_a_tar_that_is_a_record_too_long(tmp_path):
    (path,) = write_shards(tmp_path, [3])
    path.write_bytes(path.read_bytes() + bytes(tarfile.RECORDSIZE))
    with pytest.raises(ShardError, match="zeros follow the end of the archive"):
        scan(path)


@pytest.mark.parametrize("named", ["folder", "pattern", "path"])
@pytest.mark.parametrize("said", ["_info.json", "00001_stats.json"])
def test_counts_at_hand_are_compared(tmp_path, said, named):
    paths = write_shards(tmp_path / "s", [3, 5, 4])
    if said == "_info.json":
        write_info(tmp_path / "s", {"00000.tar": 3, "00001.tar": 6, "00002.tar": 4})
    else:
        (tmp_path / "s" / said).write_text(json.dumps({"count": 9, "successes": 6}))
    sources = {"folder": tmp_path / "s", "pattern": f"{tmp_path}/s/*.tar", "path": [str(paths[1])]}
    for _ in range(2):  # also where the index is in the cache
        with pytest.raises(ShardError) as caught:
            find_shards(sources[named])
        file = tmp_path / "s" / said
        assert (
            f"{paths[1]} has 5 samples, and 6 by {said}: download it again, or remove {file} if"
            in (str(caught.value))
        )
        assert str(paths[0]) not in str(caught.value)
    file.write_text("{")  # damaged, it says nothing
    assert len(find_shards(sources[named])) == (5 if named == "path" else 12)


def test_a_hole_that_is_as_short_as_padding_is_told_by_the_counts(tmp_path):
    (path,) = write_shards(tmp_path, [4])
    hole(path, scan(path).images[3][0] - 512)  # the last of four samples, and less than a record
    assert len(scan(path)) == 3
    (tmp_path / "00000_stats.json").write_text(json.dumps({"successes": 4}))
    with pytest.raises(ShardError, match="has 3 samples, and 4 by 00000_stats.json"):
        find_shards(tmp_path)


def test_shards_that_left_their_statistics_behind(tmp_path):
    write_shards(tmp_path, [2, 2, 2])
    for number in range(3):
        (tmp_path / f"0000{number}_stats.json").write_text(json.dumps({"successes": 2}))
    assert len(find_shards(tmp_path)) == 6
    (tmp_path / "00001.tar").unlink()
    with pytest.raises(ShardError, match=r"00001\.tar: missing in .* which has their _stats\.json"):
        find_shards(tmp_path)
    assert len(find_shards(f"{tmp_path}/*.tar")) == 4  # a part may be wanted


def test_a_shard_that_changed_since_its_index_was_made(tmp_path):
    (path,) = write_shards(tmp_path, [24])
    whole = find_shards(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ShardError, match="truncated"):
        find_shards(path)
    with pytest.raises(ShardError, match="truncated"):
        whole.open(0)
    write_tar(path, members(1) + members(2))
    assert find_shards(path).counts == (2,)
    with pytest.raises(ShardError, match="has 2 samples, and 24 were expected"):
        whole.open(0)


def test_an_index_of_earlier_rules_is_made_again(tmp_path):
    (path,) = write_shards(tmp_path, [3])
    find_shards(path)
    file = index_file(str(path))
    file.write_text(file.read_text().replace('"version": 2', '"version": 1', 1))
    assert cached_count(str(path)) is None and find_shards(path).counts == (3,)


def test_links_do_not_list_a_shard_twice(tmp_path):
    (path,) = write_shards(tmp_path / "s" / "part", [3])
    (tmp_path / "s" / "part" / "up").symlink_to(tmp_path / "s")
    (tmp_path / "s" / "loop").symlink_to(tmp_path / "s" / "part")
    assert find_shards(tmp_path / "s" / "part").counts == (3,)
    with pytest.raises(ShardError, match=r"part/00000\.tar is the same file as .*loop/00000\.tar"):
        find_shards(f"{tmp_path}/s/*/*.tar")
    with pytest.raises(ShardError, match=r"00000\.tar is the same file as .*00000\.tar"):
        find_shards([str(path), f"{tmp_path}/s/part/up/part/00000.tar"])


# --- Samples that can be used --------------------------------------------------------------------


def dotted(number: int) -> list[tuple[str, bytes]]:
    return [(f"IMG.{number:04}.{name.partition('.')[2]}", data) for name, data in members(number)]


def apart(count: int) -> list[tuple[str, bytes]]:
    """All images first, then all captions."""
    return sorted((m for n in range(count) for m in members(n)), key=lambda m: m[0][-3:] != "jpg")


def no_caption_key(number: int) -> list[tuple[str, bytes]]:
    (image, data), *_ = members(number)
    details = {"text": caption(number), "url": "x"}
    return [(image, data), (image.replace("jpg", "json"), json.dumps(details).encode())]


def flat(parts: list[list]) -> list:
    return [member for part in parts for member in part]


UNUSABLE = {
    "dots": (
        flat([dotted(number) for number in range(12)]),
        "not one of 1 samples can be used, .*: 1 x no image; members without a use: "
        r"12 \*\.jpg, 12 \*\.json, 12 \*\.txt \(what follows the FIRST dot .* IMG_0001\.jpg\)",
    ),
    "apart": (
        apart(5),
        "not one of 10 samples can be used, .*: 10 x its members do not follow one another",
    ),
    "key": (
        flat([no_caption_key(number) for number in range(5)]),
        r"5 samples .*: 5 x its \.json has no caption \(it has text, url; --caption-key names ano",
    ),
    "format": (
        [("a.tif", b"1"), ("a.txt", b"a dog"), ("b.tif", b"1"), ("b.txt", b"a cat")],
        "2 samples can be used, .*: 2 x no image; members without a use: 2 tif$",
    ),
    "broken": (
        [("a.jpg", b"1"), ("a.txt", b"a dog"), ("b.jpg", b""), ("b.txt", b"a cat")],
        r"1 x an image that cannot be decoded \(.*\); 1 x an empty image",
    ),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_a_set_without_one_usable_sample(tmp_path, what):
    content, message = UNUSABLE[what]
    write_tar(tmp_path / "00000.tar", [])
    write_tar(tmp_path / "00001.tar", content)
    with pytest.raises(ShardError, match=message) as caught:
        find_shards(tmp_path)
    assert re.sub(r" and on: .*|not one of .*used, ", "", str(caught.value)).endswith("00000.tar")
    write_tar(tmp_path / "00001.tar", content + members(99))
    assert len(find_shards(tmp_path)) > 1


def test_only_the_first_thousand_are_asked(tmp_path):
    write_tar(tmp_path / "0.tar", [(f"{n}.txt", b"a dog") for n in range(1001)] + members(2000))
    with pytest.raises(ShardError, match="not one of the first 1,000 samples can be used"):
        find_shards(tmp_path)


def test_another_key_of_captions(tmp_path):
    write_tar(tmp_path / "0.tar", flat([no_caption_key(number) for number in range(8)]))
    found = find_shards(tmp_path, caption_key="text")
    taken = batches(found, StreamConfig(lanes=2, size=8), batch_size=8, stop=1, captions="original")
    assert sorted(next(taken).texts) == sorted(caption(number) for number in range(8))
    assert found.first(1) == found and found.first(1).caption_key == "text"
    usual = Shards(found.names, found.places, found.counts)
    assert usual.digest != found.digest
    # What is computed of captions of one key is not taken for that of another.
    assert usual.open(0).index.digest != found.open(0).index.digest
    with pytest.raises(ShardError, match=r"its \.json has no title \(it has text, url"):
        find_shards(tmp_path, caption_key="title")


def test_a_summary_says_what_is_left_out_and_why(tmp_path):
    write_tar(
        tmp_path / "00000.tar",
        [
            *flat([members(number) for number in range(5)]),
            ("a.jpg", picture(1)),
            ("b.txt", b"only text"),
            ("c.jpg", b""),
            ("c.txt", b"a dog"),
            ("d.jpg", picture(1)),
            ("d.json", b'{"title": "x"}'),
            *dotted(7),
            *apart(2)[:2],  # whose keys were there before
        ],
    )
    write_tar(tmp_path / "00003.tar", members(8))
    write_tar(tmp_path / "00002.tar", members(9))
    for workers in (1, 2):
        summary = summarise(find_shards(tmp_path), workers)
        assert (summary.local, summary.usable) == (14, 7)
        assert summary.left_out == {
            "its members do not follow one another in the tar": 2,
            "no image": 2,
            "no caption": 1,
            "an empty image": 1,
            "its .json has no caption (it has title; --caption-key names another)": 1,
        }
        assert summary.unused == {"*.json": 1, "*.jpg": 1, "*.txt": 1}
        assert summary.absent == ("00001.tar",)
        assert summary.captions == tuple(caption(number) for number in range(3))
    text = str(summary)
    assert "missing in their numbers: 00001.tar\n14 samples, 1 to 12 per shard" in text
    assert "7 of 14 samples with an image and a caption\n  left out: 2 x " in text
    assert "  members without a use: 1 *.jpg, 1 *.json, 1 *.txt (what follows the FIRST" in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["0.tar", "1.tar"], []),
        (["00007.tar", "00009.tar", "00010.tar"], ["00008.tar"]),
        (["a-1.tar", "a-3.tar", "b-5.tar"], ["a-2.tar"]),
        (["train-000001-2.tar", "x.tar"], []),
        (["00000.tar", "99999.tar"], []),  # no series
    ],
)
def test_names_missing_in_a_series(given, expected):
    assert absent_names(given) == expected


# --- Behind a URL --------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what was asked; of some it sends the first bytes."""

    asked: list[str]
    failing: list[int]  # what it answers first: HTTP codes, or 0 for no answer at all

    def do_GET(self) -> None:
        self.asked.append(self.path.lstrip("/"))
        if self.failing:
            code = self.failing.pop()
            if code:
                self.send_error(code)
            self.close_connection = True
            return
        path = Path(self.translate_path(self.path))
        if not path.name.startswith(("cut", "short")) or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        self.send_response(200)
        if path.name.startswith("cut"):  # a connection that breaks; else an end nobody notices
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:1500])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(folder, URL, list of what was asked) of a server."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []
    handler = type("Own", (Handler,), {"asked": asked, "failing": []})
    monkeypatch.setattr(remote, "PATIENCE", 0.5)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.05)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    ) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def write_info(folder: Path, counts: dict[str, int]) -> None:
    train = {"filenames": list(counts), "shard_lengths": list(counts.values())}
    (folder / "_info.json").write_text(json.dumps({"splits": {"train": train}}))


STREAM2 = StreamConfig(lanes=2, size=8)


@pytest.mark.parametrize("workers", [0, 2])
def test_remote_shards_are_those_on_disk(server, workers):
    folder, url, asked = server
    write_shards(folder, [9, 7])
    write_info(folder, {"00000.tar": 9, "00001.tar": 7})
    local = find_shards(f"{folder}/*.tar")
    remote = find_shards(url)
    assert remote == find_shards(f"{url}/{{00000..00001}}.tar")
    assert (remote.names, remote.counts, remote.digest) == (local.names, local.counts, local.digest)
    assert set(asked) == {"_info.json"}
    options = {"batch_size": 8, "stop": 4, "workers": workers}
    on_disk, fetched = (
        joined([list(batches(shards, STREAM2, **options))]) for shards in (local, remote)
    )
    assert fetched == on_disk
    asked.clear()
    again = find_shards(url + "/{00000..00001}.tar")
    assert joined([list(batches(again, STREAM2, **options))]) == on_disk and again == remote
    assert asked == []


def test_counts_of_remote_shards(server):
    folder, url, asked = server
    paths = write_shards(folder, [3, 4])
    pattern = f"{url}/{{00000..00001}}.tar"
    (folder / "00000_stats.json").write_text(json.dumps({"count": 9, "successes": 3}))
    with pytest.raises(ShardError, match=r"00001.tar: the number of samples .* --download"):
        find_shards(pattern)
    assert find_shards(pattern, download=True).counts == (3, 4)
    assert asked.count("00001.tar") == 1 and "00000.tar" not in asked
    asked.clear()
    (folder / "00000_stats.json").unlink()
    with pytest.raises(ShardError, match=r"00000.tar: the number"):
        find_shards(pattern)
    with pytest.raises(ShardError, match="has no _info.json that names the shards"):
        find_shards(url)
    write_info(folder, {paths[0].name: 2})
    wrong = find_shards(pattern)
    assert wrong.counts == (2, 4)
    with pytest.raises(ShardError, match="00000.tar has 3 samples, and 2 were expected"):
        list(batches(wrong, STREAM2, batch_size=4, stop=1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.tar", r"gone.tar cannot be fetched: HTTP error"),
        ("cut.tar", r"cut.tar cannot be fetched: the transfer ended early"),
        ("short.tar", r"short.tar: what it gives is not a complete tar .* is truncated"),
        ("page.tar", r"page.tar: what it gives is not a complete tar .* is not a tar"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_fetched(server, cache, name, message, workers):  # noqa: F811
    folder, url, asked = server
    write_tar(folder / "cut.tar", members(1))
    write_tar(folder / "short.tar", members(1))
    (folder / "page.tar").write_text("<html>sorry</html>")
    write_info(folder, {name: 1})
    found = find_shards(f"{url}/{name}")
    stream = StreamConfig(lanes=1, size=8)
    with pytest.raises(ShardError, match=f"^{url}/{message}"):
        list(batches(found, stream, batch_size=1, stop=1, workers=workers))
    left = [path for path in cache.rglob("*") if path.is_file()]
    assert left == []  # no half file, and none that would be taken for a whole one
    assert cached_count(f"{url}/{name}") is None


@pytest.mark.parametrize("failing", [[0, 0], [503]])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_server_that_is_away_for_a_while_ends_no_run(server, caplog, failing, workers):
    folder, url, asked = server
    write_shards(folder, [4])
    write_info(folder, {"00000.tar": 4})
    found = find_shards(url)
    caplog.clear()
    # In this process, of which readers are copies; the server's handler is shared by reference.
    handler = server_handler(asked)
    handler.failing[:] = failing
    options = {"batch_size": 4, "stop": 1, "workers": workers}
    (batch,) = batches(found, StreamConfig(lanes=1, size=8), **options)
    assert len(batch.keys) == 4 and handler.failing == []
    assert asked.count("00000.tar") == len(failing) + 1
    if failing == [0, 0] and not workers:
        message = f"{url}/00000.tar: an empty answer (curl's exit code 52), asked again in 0 s"
        assert caplog.messages == [message] * 2


def test_a_server_that_starts_late(server, monkeypatch):
    folder, url, asked = server
    write_shards(folder, [4])
    write_info(folder, {"00000.tar": 4})
    handler = server_handler(asked)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(remote, "PATIENCE", 60.0)
    waits = []
    late = functools.partial(handler, directory=str(folder))

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            running.append(http.server.ThreadingHTTPServer(("127.0.0.1", port), late))
            threading.Thread(target=running[0].serve_forever, args=(0.05,)).start()

    running: list[http.server.ThreadingHTTPServer] = []
    monkeypatch.setattr(remote, "time", clock(sleep=wait))
    try:
        assert find_shards(f"http://127.0.0.1:{port}").counts == (4,)
        assert waits == [0.05, 0.1, 0.2, 0.4]  # growing
    finally:
        for one in running:
            one.shutdown()
            one.server_close()


def test_a_server_that_stays_away(server, monkeypatch):
    _, url, asked = server
    server_handler(asked).failing[:] = [0] * 100
    slept = []
    seconds = iter(range(10**6))  # one passes each time that somebody looks
    own = clock(sleep=slept.append, monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr(remote, "time", own)
    monkeypatch.setattr(remote, "PATIENCE", 6.0)
    for source in (url, f"{url}/0.tar"):
        asked.clear()
        with pytest.raises(ShardError, match=r"_info\.json cannot be .* 52\), asked for 6 s"):
            find_shards(source)
        assert len(asked) == 6
    asked.clear()
    with pytest.raises(ShardError, match=r"0\.tar cannot be fetched: an empty answer .* for 6 s"):
        fetch(f"{url}/0.tar")
    assert len(asked) == 6 and max(slept) <= 6


def test_what_is_not_there_is_not_asked_for_again(server, monkeypatch):
    _, url, asked = server
    monkeypatch.setattr(remote, "time", clock(sleep=None))  # would fail if it were called
    with pytest.raises(ShardError, match="HTTP error"):
        fetch(f"{url}/gone.tar")
    assert asked == ["gone.tar"]


def clock(**changes) -> types.SimpleNamespace:
    """The module ``time`` with other functions, for one module only."""
    own = {"sleep": time.sleep, "monotonic": time.monotonic, "time": time.time}
    return types.SimpleNamespace(**own | changes)


def server_handler(asked: list[str]) -> type[Handler]:
    """The class of the running server that keeps what is asked in this list."""
    return next(kind for kind in Handler.__subclasses__() if kind.asked is asked)


def test_equal_names_of_two_servers_are_two_downloads(server):
    folder, url, _ = server
    for part, number in (("a", 1), ("b", 2)):
        write_tar(folder / part / "0.tar", members(number))
    keys = [fetch(f"{url}/{part}/0.tar")[1].keys for part in "ab"]
    assert keys == [["000000001"], ["000000002"]]


def test_a_download_that_was_replaced_is_indexed_again(server, cache):  # noqa: F811
    folder, url, _ = server
    (path,) = write_shards(folder, [3])
    copy, first = fetch(f"{url}/00000.tar")
    write_tar(path, [member for number in (7, 8, 9) for member in members(number)])
    copy.unlink()
    time.sleep(0.02)
    second, index = fetch(f"{url}/00000.tar")
    assert second == copy and index.bytes == first.bytes
    assert index.keys == ["000000007", "000000008", "000000009"]


def test_downloads_are_limited(server, cache, monkeypatch):  # noqa: F811
    folder, url, asked = server
    write_shards(folder, [3, 3, 3])
    monkeypatch.setattr("webdataset.cache.LRUCleanup.cleanup", _without_waiting())
    for number in range(3):
        fetch(f"{url}/0000{number}.tar", limit=30_000)
    kept = list((cache / "shards" / "downloads").iterdir())
    assert sum(path.stat().st_size for path in kept) == 2 * 20_480
    assert fetch(f"{url}/00000.tar")[1].keys == ["000000000", "000000001", "000000002"]
    assert asked.count("00000.tar") == 2


def _without_waiting():
    from webdataset.cache import LRUCleanup

    original = LRUCleanup.cleanup

    def cleanup(self) -> None:
        self.interval = None
        original(self)

    return cleanup


def test_a_partial_file_of_a_killed_process_is_removed(server, cache):  # noqa: F811
    folder, url, _ = server
    write_shards(folder, [3])
    path, _ = fetch(f"{url}/00000.tar")
    old = path.with_name(f"{path.name}.temp1")
    old.write_bytes(b"half")
    fetch(f"{url}/00000.tar")
    assert old.exists()  # another process may be writing it
    os.utime(old, (0, 0))
    fetch(f"{url}/00000.tar")
    assert not old.exists() and path.exists()


def test_without_webdataset(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ImportError, match=r'pip install "mgca\[train\]"'):
        find_shards(tmp_path)
