"""Training from shards: the order, what a step holds, and that processes do not matter."""

import gc
import io
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("webdataset")

from mgca.data import shards as streamed
from mgca.data.shards import Batch, ShardError, Shards, Share, StreamConfig, find_shards
from mgca.data.shards import steps_per_epoch as steps_of
from mgca.data.shards.index import index_of
from mgca.data.shards.order import Order, generator
from mgca.data.shards.remote import Evicted
from mgca.data.shards.sample import draw_text
from mgca.data.shards.shard import OpenShard
from mgca.data.texts import build_pool, nouns
from mgca.prompts import CLIP_TEMPLATES
from mgca.utils.images import training_image


def batches(
    shards: Shards, stream: StreamConfig, *, start: int = 0, stop: int, **options
) -> Iterator[Batch]:
    """The batches of steps ``start`` to ``stop``, with options of a share among the others."""
    share = {f.name: options.pop(f.name) for f in fields(Share) if f.name in options}
    return streamed.batches(shards, stream, range(start, stop), share=Share(**share), **options)


WORDS = ("dog", "cat", "horse", "bridge", "tree", "boat", "bus")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("MGCA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(number: int, kind: str = "JPEG") -> bytes:
    """A small picture that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def caption(number: int) -> str:
    first, second = WORDS[number % 7], WORDS[(number // 7) % 7]
    return f"the {first} beside a {second} is number {number}"


def write_tar(path: Path, members: list[tuple[str, bytes]], kind=tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def members(number: int) -> list[tuple[str, bytes]]:
    key = f"{number:09d}"
    return [
        (f"{key}.jpg", picture(number)),
        (f"{key}.json", json.dumps({"caption": "not this one", "key": key}).encode()),
        (f"{key}.txt", caption(number).encode()),
    ]


def write_shards(folder: Path, counts: list[int]) -> list[Path]:
    numbers = itertools.count()
    return [
        write_tar(
            folder / f"{shard:05d}.tar",
            [member for _ in range(count) for member in members(next(numbers))],
        )
        for shard, count in enumerate(counts)
    ]


STREAM = StreamConfig(lanes=8, size=8)
COUNTS = [9, 0, 21, 5, 18]


@pytest.fixture
def shards(tmp_path) -> Shards:
    write_shards(tmp_path / "shards", COUNTS)
    return find_shards(tmp_path / "shards", workers=1)


def joined(parts: list[list[Batch]]) -> list[tuple]:
    """The global batches of several processes."""
    return [
        (
            step[0].step,
            torch.cat([b.images for b in step]).numpy().tobytes(),
            [text for b in step for text in b.texts],
            [key for b in step for key in b.keys],
        )
        for step in zip(*parts, strict=True)
    ]


# --- The order -----------------------------------------------------------------------------------


def slow_epoch(order: Order, epoch: int) -> list[list[tuple[int, int]]]:
    """The lanes of an epoch, written out."""
    shards = torch.randperm(
        len(order.counts), generator=generator("shards", order.seed, epoch)
    ).tolist()
    sequence = []
    for shard in shards:
        seeded = generator("samples", order.seed, epoch, order.names[shard])
        for sample in torch.randperm(order.counts[shard], generator=seeded).tolist():
            sequence.append((shard, sample))
    length = len(sequence) // order.lanes
    return [sequence[lane * length : (lane + 1) * length] for lane in range(order.lanes)]


orders = st.builds(
    lambda counts, lanes, each, seed: (counts, lanes, each, seed),
    st.lists(st.integers(0, 12), min_size=1, max_size=6),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 2**40),
)


@settings(max_examples=60, deadline=None)
@given(orders)
def test_order_is_the_sequence_cut_into_lanes(drawn):
    counts, lanes, each, seed = drawn
    assume(sum(counts) // lanes >= each)
    names = tuple(f"{i}.tar" for i in range(len(counts)))
    order = Order(names, tuple(counts), lanes, lanes * each, seed)
    steps = order.steps_per_epoch
    assert steps == sum(counts) // lanes // each
    for epoch in (0, 3):
        expected = slow_epoch(order, epoch)
        seen = []
        for step, lane in itertools.product(range(steps), range(lanes)):
            found = list(order.samples(epoch * steps + step, lane))
            assert {e for e, _, _ in found} == {epoch}
            samples = [(shard, sample) for _, shard, sample in found]
            assert samples == expected[lane][step * each : (step + 1) * each]
            seen += samples
        assert len(set(seen)) == len(seen) == steps * lanes * each
        if sum(counts) == steps * lanes * each:
            assert Counter(shard for shard, _ in seen) == Counter(dict(enumerate(counts)))


def test_order_changes_with_epoch_and_seed():
    def taken(seed: int, epoch: int) -> list:
        order = Order(("a", "b"), (40, 40), 4, 8, seed)
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        return [
            place[1:] for step in steps for lane in range(4) for place in order.samples(step, lane)
        ]

    runs = [taken(0, 0), taken(0, 1), taken(1, 0)]
    assert all(a != b for a, b in itertools.combinations(runs, 2))
    assert all(sorted(run) == sorted(runs[0]) for run in runs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 20}, "batch_size 20 is not a multiple of lanes 8: make it 16 or 24"),
        ({"batch_size": 4}, "make it 8, or"),
        ({"batch_size": 64}, "53 samples do not fill a batch of 64 from 8 lanes"),
        ({"workers": 3}, "set workers so that 1 x workers divides 8, or lanes to a multiple of 3"),
        ({"world": 2, "workers": 8}, "lanes to a multiple of 16"),
        ({"rank": 2, "world": 2}, "no such process"),
        ({"captions": "all"}, "captions must be one of uniform, original, nouns, not 'all'"),
    ],
)
def test_numbers_that_do_not_fit(shards, options, message):
    with pytest.raises(ValueError, match=message):
        batches(shards, STREAM, **{"batch_size": 16, "stop": 1} | options)


@pytest.mark.parametrize("wrong", [{"lanes": 0}, {"size": 0}, {"crop": "left"}])
def test_stream_config_is_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StreamConfig(**wrong)


# --- What a step holds ---------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_processes_and_workers_do_not_matter(shards, world, workers):
    alone = joined([list(batches(shards, STREAM, batch_size=16, stop=7))])
    state = torch.get_rng_state()
    parts = [
        list(
            batches(shards, STREAM, batch_size=16, stop=7, rank=rank, world=world, workers=workers)
        )
        for rank in range(world)
    ]
    assert joined(parts) == alone
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_anywhere_gives_the_rest(shards, workers):
    steps = steps_of(shards, 16, STREAM)
    assert steps == 3  # 53 samples, 6 in a lane
    whole = joined([list(batches(shards, STREAM, batch_size=16, stop=8))])
    for start in (0, 1, 2, 3, 5, 8) if workers == 0 else (4,):
        rest = list(batches(shards, STREAM, batch_size=16, start=start, stop=8, workers=workers))
        assert joined([rest]) == whole[start:]


def test_an_epoch_takes_each_sample_once_where_sizes_divide(tmp_path):
    write_shards(tmp_path / "shards", [7, 9])
    shards = find_shards(tmp_path / "shards")
    stream = StreamConfig(lanes=4, size=8)
    assert steps_of(shards, 8, stream) == 2
    for epoch in range(2):
        taken = list(batches(shards, stream, batch_size=8, start=2 * epoch, stop=2 * epoch + 2))
        keys = [key for batch in taken for key in batch.keys]
        assert sorted(keys) == sorted(
            f"{n // 7:05d}.tar/{n:09d}" if n < 7 else f"00001.tar/{n:09d}" for n in range(16)
        )


def test_images_and_texts_are_those_of_the_key(shards):
    for batch in batches(shards, STREAM, batch_size=16, stop=3):
        assert batch.images.shape == (16, 3, 8, 8) and batch.images.dtype == torch.uint8
        for image, text, key in zip(batch.images, batch.texts, batch.keys, strict=True):
            number = int(key.rpartition("/")[2])
            expected = np.asarray(training_image(picture(number), 8))
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
            generated = {t.format(n) for n in nouns(caption(number)) for t in CLIP_TEMPLATES}
            assert text in generated | {caption(number)}


def test_rules(shards):
    def texts(rule: str) -> list[str]:
        taken = batches(shards, STREAM, batch_size=16, stop=6, captions=rule)
        return [text for batch in taken for text in batch.texts]

    assert all(" is number " in text for text in texts("original"))
    assert not any(" is number " in text for text in texts("nouns"))
    mixed = sum(" is number " in text for text in texts("uniform"))
    assert 0.15 < mixed / 96 < 0.6


def test_random_crops(shards):
    stream = StreamConfig(lanes=8, size=8, crop="random")
    state = torch.get_rng_state()
    first, again = (
        torch.cat([b.images for b in batches(shards, stream, batch_size=16, stop=3, workers=w)])
        for w in (0, 2)
    )
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    centre, texts = zip(
        *[(b.images, b.texts) for b in batches(shards, STREAM, batch_size=16, stop=3)], strict=True
    )
    assert not torch.equal(first, torch.cat(centre))
    random = [b.texts for b in batches(shards, stream, batch_size=16, stop=3)]
    assert random == list(texts)  # the crop has a generator of its own


def test_texts_and_crops_depend_on_seed_epoch_shard_and_key(tmp_path):
    """The same picture and caption everywhere: only the draws tell samples apart."""
    same = [
        (f"{key}.{end}", data)
        for key in "abcdefgh"
        for end, data in (("jpg", picture(0)), ("txt", caption(0).encode()))
    ]
    for shard in range(2):
        write_tar(tmp_path / "s" / f"{shard}.tar", same)
    found = find_shards(tmp_path / "s")
    stream = StreamConfig(lanes=2, size=8, crop="random")
    drawn = {
        (seed, epoch, key[0], key[-1]): (text, image.numpy().tobytes())
        for seed in (0, 1)
        for epoch, batch in enumerate(batches(found, stream, batch_size=16, stop=2, seed=seed))
        for key, text, image in zip(batch.keys, batch.texts, batch.images, strict=True)
    }
    assert len(drawn) == 2 * 2 * 2 * 8
    for place in range(4):
        values = sorted({key[place] for key in drawn})
        rest = sorted({key[:place] + key[place + 1 :] for key in drawn})
        for what in (0, 1):
            columns = [
                [drawn[key[:place] + (value,) + key[place:]][what] for key in rest]
                for value in values
            ]
            assert all(a != b for a, b in itertools.combinations(columns, 2))


def test_a_random_crop_has_nine_tenths_of_the_area():
    from mgca.data.shards.sample import image_of

    # Each pixel says where it is: red grows to the right, green downwards.
    ramp = np.zeros((200, 200, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(200), np.arange(200)[:, None]
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, format="PNG")
    areas = []
    for number in range(50):
        image = image_of(file.getvalue(), 32, "random", generator(number)).float()
        width, height = ((image[c].amax() - image[c].amin()) * 32 / 31 for c in (0, 1))
        areas.append(float(width * height) / 200**2)
    assert 0.85 < min(areas) and max(areas) < 1.03 and np.std(areas) > 0.01


# --- The text drawn (D10) ------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["uniform", "original", "nouns"])
def test_draws_are_those_of_the_pool(rule):
    for number in range(40):
        text = caption(number) if number % 4 else "so green"  # a caption without nouns
        pool = build_pool([[text]])
        expected = pool.texts[pool.draw(0, rule, generator("text", number))]
        assert draw_text(text, nouns(text), rule, generator("text", number)).text == expected


def test_draws_are_uniform():
    text, words = "a dog, a cat and a horse", ["dog", "cat", "horse"]
    drawn = [
        draw_text(text, words, "uniform", generator("text", 0, epoch, "00000.tar", f"{key}"))
        for epoch in range(20)
        for key in range(200)
    ]
    for values, classes in (
        ([d.noun for d in drawn], 4),
        ([d.template for d in drawn if d.noun], len(CLIP_TEMPLATES)),
    ):
        expected = len(values) / classes
        counts = Counter(values)
        assert len(counts) == classes
        # The 99.9 % quantile of chi-square with 6 degrees of freedom is 22.5.
        assert sum((n - expected) ** 2 / expected for n in counts.values()) < 22.5


# --- Corrupt samples -----------------------------------------------------------------------------


def corrupted(number: int) -> tuple[list[tuple[str, bytes]], str | None]:
    """Members of a sample, and what is wrong with it."""
    key = f"{number:09d}"
    image, text = (f"{key}.jpg", picture(number)), (f"{key}.txt", caption(number).encode())
    details = json.dumps({"caption": caption(number)}).encode()
    kinds = [
        ([text], "no image"),
        ([image], "no caption"),
        ([(image[0], image[1][:200]), text], "damaged or not readable"),
        ([(image[0], b"not an image"), text], "not a picture in a format"),
        ([(image[0], b""), text], "empty (0 bytes)"),
        ([image, (text[0], b" \n")], "its caption is empty"),
        ([image, (text[0], b"\xff\xfe")], "not UTF-8"),
        ([image, (f"{key}.json", b'{"caption": "a d')], "its .json is damaged"),
        ([image, (f"{key}.json", b'{"url": "x"}')], "its .json has no caption (it has url; "),
        ([image, (f"{key}.json", b'{"caption": null}')], "its caption is empty"),
        ([image, (f"{key}.json", b"[1]")], "its .json has no caption"),
        ([image, (f"{key}.json", b"\xff{")], "not UTF-8"),
        ([image, (text[0], b" "), (f"{key}.json", b"[1]")], "its caption is empty"),
        ([image, (f"{key}.json", details)], None),
        ([image, (text[0], b"\n"), (f"{key}.json", details)], None),
        ([image, (text[0], b"\xff\xfe"), (f"{key}.json", details)], None),
    ]
    return kinds[number] if number < len(kinds) else (members(number), None)


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_samples_are_left_out_and_named(tmp_path, workers, caplog):
    samples = [corrupted(number) for number in range(32)]
    write_tar(tmp_path / "s" / "00000.tar", [m for found, _ in samples for m in found])
    shards = find_shards(tmp_path / "s")
    assert shards.counts == (32,)
    taken = list(
        batches(
            shards,
            StreamConfig(lanes=2, size=8),
            batch_size=8,
            stop=4,
            workers=workers,
            corrupt_limit=1,
        )
    )
    wrong = {f"00000.tar/{n:09d}": why for n, (_, why) in enumerate(samples) if why}
    found = dict(text.split(": ", 1) for batch in taken for text in batch.corrupt)
    assert found.keys() == wrong.keys() and len(wrong) == 13
    assert all(wrong[key] in reason for key, reason in found.items())
    keys = [key for batch in taken for key in batch.keys]
    assert sorted([*keys, *wrong]) == [f"00000.tar/{n:09d}" for n in range(32)]
    for batch in taken:
        assert len(batch.images) == len(batch.texts) == len(batch.keys) == 8 - len(batch.corrupt)
    assert len(caplog.messages) == 5 and "leaves out 00000.tar/" in caplog.text


def test_a_batch_may_be_all_corrupt(tmp_path):
    write_shards(tmp_path / "s", [4])
    shards = find_shards(tmp_path / "s")
    write_tar(tmp_path / "s" / "00000.tar", [(f"{n}.jpg", b"") for n in range(4)])
    (batch,) = batches(shards, StreamConfig(lanes=2, size=8), batch_size=4, stop=1)
    assert batch.images.shape == (0, 3, 8, 8) and len(batch.corrupt) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_corrupt_samples(tmp_path, workers):
    sound = [member for number in range(100) for member in members(number)]
    broken = [(f"x{n}.jpg", b"") for n in range(12)]
    write_tar(tmp_path / "s" / "0.tar", sound + broken)
    shards = find_shards(tmp_path / "s")

    def run(limit: float) -> list[Batch]:
        options = {"batch_size": 112, "stop": 1, "workers": workers}
        stream = StreamConfig(lanes=1, size=8)
        return list(batches(shards, stream, corrupt_limit=limit, **options))

    # The share is asked of 1000 samples at least: 12 of them are 1.2 %.
    assert len(run(0.012)[0].corrupt) == 12
    with pytest.raises(ShardError, match=r"12 of 112 samples are corrupt, more than 1.1%: 0.tar/x"):
        run(0.011)


# --- Errors and ends of workers ------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_goes_or_changes(tmp_path, workers):
    paths = write_shards(tmp_path / "s", [8, 8])
    shards = find_shards(tmp_path / "s")
    stream = StreamConfig(lanes=2, size=8)
    options = {"batch_size": 8, "stop": 2, "workers": workers}
    paths[1].rename(tmp_path / "away")
    with pytest.raises(ShardError) as caught:
        list(batches(shards, stream, **options))
    assert str(caught.value) == f"no shard {paths[1]}"
    write_tar(paths[1], [member for number in range(7) for member in members(number)])
    with pytest.raises(ShardError, match="00001.tar has 7 samples, and 8 were expected"):
        list(batches(shards, stream, **options))


def test_workers_end_with_an_iteration_that_is_left(shards):
    gc.collect()  # what an earlier test's error still holds on to
    others = {child.pid for child in multiprocessing.active_children()}
    taken = batches(shards, STREAM, batch_size=16, stop=10**6, workers=2)
    next(taken)
    workers = {child.pid for child in multiprocessing.active_children()} - others
    assert len(workers) == 2
    taken.close()
    del taken
    assert not workers & {child.pid for child in multiprocessing.active_children()}


SCRIPT = """
import json, sys
from mgca.data.shards import Share, StreamConfig, batches, find_shards
import multiprocessing
found = find_shards(sys.argv[1])
stream, share = StreamConfig(lanes=8, size=8), Share(workers=2)
taken = batches(found, stream, range(10**6), batch_size=16, share=share)
first = [next(taken) for _ in range(4)]
pids = [child.pid for child in multiprocessing.active_children()]
print(json.dumps([pids, [b.texts for b in first], [b.keys for b in first]]), flush=True)
for _ in taken: pass
"""


def test_another_process_draws_the_same_and_takes_its_workers_with_it(shards):
    """With other hashes of strings; killed, it leaves no process and no shared memory behind."""
    folder = Path(shards.places[0]).parent
    environment = os.environ | {"PYTHONHASHSEED": "77"}
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], stdout=subprocess.PIPE, env=environment
    ) as process:
        pids, texts, keys = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    own = list(batches(shards, STREAM, batch_size=16, stop=4))
    assert texts == [b.texts for b in own] and keys == [b.keys for b in own]
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)
    if before:
        assert not [n for n in set(os.listdir("/dev/shm")) - before if str(process.pid) in n]


POOL = """
import multiprocessing, threading, time
from mgca.utils.processes import in_processes
def tell():
    while len(children := multiprocessing.active_children()) < 2:
        time.sleep(0.05)
    time.sleep(0.2)
    print(*(child.pid for child in children), flush=True)
threading.Thread(target=tell, daemon=True).start()
in_processes(time.sleep, [60] * 4, 2)
"""


def test_processes_that_work_on_captions_end_with_their_parent():
    with subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 60
    while any(map(_alive, pids)):
        assert time.monotonic() < deadline, "processes outlive their parent"
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_download_that_others_removed_is_fetched_again(shards, monkeypatch):
    """Where room is short, a shard may go between its download and its reading."""
    place, gone = shards.places[0], []

    def fetch(url, limit):
        if len(gone) < 1:
            gone.append("before it was indexed")
            raise Evicted(f"{url} was removed")
        if len(gone) < 2:
            gone.append("before it was opened")
            return Path("/nowhere/00000.tar"), index_of(place, place)
        return Path(place), index_of(place, place)

    monkeypatch.setattr("mgca.data.shards.shard.fetch", fetch)
    monkeypatch.setattr("mgca.data.shards.shard.is_remote", lambda place: True)
    with OpenShard(place, shards.counts[0]) as shard:
        assert len(shard.index) == shards.counts[0]
    assert len(gone) == 2
    monkeypatch.setattr(
        "mgca.data.shards.shard.fetch", lambda *_: (Path("/nowhere.tar"), index_of(place, place))
    )
    with pytest.raises(ShardError, match="cannot be opened"):
        OpenShard(place)
