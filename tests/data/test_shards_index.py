"""Finding shards: the index against webdataset itself, truncated files, and downloads."""

import functools
import gzip
import http.server
import io
import json
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shards import COUNTS, STREAM, cache, joined, members, write_shards, write_tar  # noqa: F401

from mgca.data.shards import ShardError, StreamConfig, batches, find_shards
from mgca.data.shards import index as index_module
from mgca.data.shards.index import IMAGE_EXTENSIONS, cached_count, index_file, index_of, scan
from mgca.data.shards.remote import fetch

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
    paths[5].write_bytes(data + bytes(2**20))
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
            "bytes follow the end",
            "a download with holes",
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


# --- Behind a URL --------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what was asked; of some it sends the first bytes."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path.lstrip("/"))
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
    handler = type("Own", (Handler,), {"asked": asked})
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
