"""Nouns and embeddings computed once, and folders packed into shards."""

import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_shards import (
    COUNTS,
    STREAM,
    batches,
    cache,  # noqa: F401
    caption,
    joined,
    members,
    picture,
    shards,  # noqa: F401
    write_shards,
    write_tar,
)
from tiny import TinyBackbone

from mgca.data.captions import Captions, load_captions
from mgca.data.shards import ShardError, StreamConfig, find_shards, precompute, stream
from mgca.data.shards.index import scan
from mgca.data.shards.pack import pack
from mgca.data.shards.precompute import embed_texts, extract_nouns, plan_embeddings
from mgca.data.shards.texts import load_nouns
from mgca.data.texts import nouns
from mgca.prompts import CLIP_TEMPLATES
from mgca.utils.images import open_image, training_image

RULES = ["uniform", "original", "nouns"]


def run(found, rule: str = "uniform", **options) -> list:
    return list(batches(found, STREAM, batch_size=16, stop=6, captions=rule, **options))


# --- Nouns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("own_folder", [False, True])
def test_nouns_extracted_before_draw_the_same(shards, tmp_path, monkeypatch, rule, own_folder):  # noqa: F811
    folder = tmp_path / "nouns" if own_folder else None
    expected = joined([run(shards, rule)])
    assert extract_nouns(shards, folder=folder, workers=2) == len(COUNTS)
    monkeypatch.setattr(stream, "nouns", None)  # would fail if it were called
    assert joined([run(shards, rule, precomputed=folder)]) == expected


def test_extracted_nouns_are_those_of_each_caption(shards):  # noqa: F811
    extract_nouns(shards, workers=1)
    number = itertools.count()
    for name, place, count in zip(shards.names, shards.places, shards.counts, strict=True):
        found = load_nouns(name, scan(place), None)
        assert found == [nouns(caption(next(number))) for _ in range(count)]
    assert next(number) == sum(COUNTS) and found[-1] == ["bridge", "dog", "number"]


def test_extraction_goes_on_where_it_stopped(shards, monkeypatch):  # noqa: F811
    calls = []

    def interrupted(text: str) -> list[str]:
        calls.append(text)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return nouns(text)

    monkeypatch.setattr(precompute, "nouns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract_nouns(shards, workers=1)
    assert extract_nouns(shards, workers=1) == 3  # of nine samples and of none are done
    assert len(calls) == 15 + 44 and calls[15] == calls[9]
    assert extract_nouns(shards, workers=1) == 0 and len(calls) == 59


def test_nouns_of_another_tagger_or_of_other_samples_are_not_used(shards, monkeypatch):  # noqa: F811
    extract_nouns(shards, workers=1)
    index = scan(shards.places[0])
    assert load_nouns("00000.tar", index, None)
    write_tar(Path(shards.places[0]), [m for n in range(20, 29) for m in members(n)])
    assert load_nouns("00000.tar", scan(shards.places[0]), None) is None
    monkeypatch.setattr("mgca.data.shards.texts.version", lambda _: "0")
    assert load_nouns("00000.tar", index, None) is None


def test_extraction_passes_corrupt_captions_and_names_lost_shards(tmp_path):
    paths = write_shards(tmp_path / "s", [3, 3])
    write_tar(paths[0], [("a.txt", b"\xff"), ("b.jpg", b""), ("c.txt", b"a dog")])
    found = find_shards(tmp_path / "s")
    paths[1].write_bytes(paths[1].read_bytes()[:2000])
    with pytest.raises(ShardError, match=r"1 of 2 shards cannot be read:\s+.*00001.tar is trunc"):
        extract_nouns(found, workers=1)
    assert load_nouns("00000.tar", scan(paths[0]), None) == [[], [], ["dog"]]


# --- Embeddings ----------------------------------------------------------------------------------


def embed(found, backbone, **options) -> None:
    embed_texts(found, backbone, plan_embeddings(found, backbone, **options), **options)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("workers", [0, 2])
def test_embeddings_are_those_of_the_encoder(shards, tmp_path, rule, workers):  # noqa: F811
    backbone, folder = TinyBackbone(), tmp_path / "texts"
    extract_nouns(shards, folder=folder, workers=1)
    embed(shards, backbone, folder=folder)
    options = {"precomputed": folder, "workers": workers}
    taken = run(shards, rule, text_digest=backbone.text_digest, **options)
    for batch in taken:
        assert batch.embeddings.dtype == torch.float32
        assert torch.equal(batch.embeddings, backbone.encode_text(batch.texts))
    for other in (None, "another encoder"):
        without = run(shards, rule, text_digest=other, **options)
        assert all(batch.embeddings is None for batch in without)
        assert joined([without]) == joined([taken])


def test_only_new_texts_are_embedded(shards):  # noqa: F811
    backbone = TinyBackbone()
    extract_nouns(shards, workers=1)
    embed(shards.first(3), backbone)
    first, backbone.asked = backbone.asked, []
    embed(shards, backbone)
    captions = [caption(number) for number in range(sum(COUNTS))]
    words = {word for text in captions for word in nouns(text)}
    generated = [template.format(word) for word in words for template in CLIP_TEMPLATES]
    assert sorted(first + backbone.asked) == sorted(captions + generated)
    assert first and backbone.asked
    backbone.asked = []
    plan = plan_embeddings(shards, backbone)
    assert (plan.shards, plan.nouns, plan.captions, plan.needed) == ([], [], 0, 0)
    embed(shards, backbone)
    assert backbone.asked == []
    taken = run(shards, text_digest=backbone.text_digest)
    assert all(batch.embeddings is not None for batch in taken)


def test_embedding_is_resumed(shards, monkeypatch):  # noqa: F811
    backbone = TinyBackbone()
    extract_nouns(shards, workers=1)
    monkeypatch.setattr(precompute, "_NOUNS_AT_ONCE", 3)
    calls, encode = itertools.count(), backbone.encode_text

    def interrupted(texts):
        if next(calls) in (2, 5):
            raise KeyboardInterrupt
        return encode(texts)

    monkeypatch.setattr(backbone, "encode_text", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            embed(shards, backbone)
    embed(shards, backbone)
    assert len(backbone.asked) == len(set(backbone.asked))
    for batch in run(shards, text_digest=backbone.text_digest):
        assert torch.equal(batch.embeddings, encode(batch.texts))


def test_embeddings_of_some_shards_cover_some_batches(shards):  # noqa: F811
    backbone = TinyBackbone()
    extract_nouns(shards, workers=1)
    embed(shards.first(3), backbone)
    taken = run(shards, text_digest=backbone.text_digest, rule="original")
    covered = {f"{n:05d}.tar" for n in range(3)}
    for batch in taken:
        inside = all(key.partition("/")[0] in covered for key in batch.keys)
        assert (batch.embeddings is not None) == inside


def test_corrupt_samples_do_not_hide_embeddings(tmp_path):
    sound = [member for number in range(14) for member in members(number)]
    write_tar(tmp_path / "s" / "0.tar", [*sound, ("x.txt", b"a dog"), ("y.jpg", picture(1))])
    found = find_shards(tmp_path / "s")
    backbone = TinyBackbone()
    extract_nouns(found, workers=1)
    embed(found, backbone)
    # Of two workers that give a sample each, one has nothing to give at times.
    options = {"batch_size": 2, "stop": 8, "workers": 2, "text_digest": backbone.text_digest}
    taken = list(batches(found, StreamConfig(lanes=2, size=8), **options))
    assert sorted(len(batch.corrupt) for batch in taken) == [0] * 6 + [1, 1]
    for batch in taken:
        assert torch.equal(batch.embeddings, backbone.encode_text(batch.texts))


def test_embeddings_need_room_and_nouns(shards, monkeypatch):  # noqa: F811
    backbone = TinyBackbone()
    with pytest.raises(ShardError, match="00000.tar: its nouns are not extracted yet"):
        plan_embeddings(shards, backbone)
    extract_nouns(shards, workers=1)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4000))
    plan = plan_embeddings(shards, backbone)
    assert plan.captions == sum(COUNTS) and plan.nouns == sorted(plan.nouns)
    assert plan.needed == (sum(COUNTS) + 7 * len(plan.nouns)) * 16 * 4
    with pytest.raises(OSError, match="choose a folder on another disk with --out"):
        embed_texts(shards, backbone, plan)
    assert backbone.asked == []


# --- Packing -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Captions:
    """Seven images of several formats with two captions each."""
    (tmp_path / "images").mkdir()
    kinds = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "JPEG", "PNG"]
    lines = ["image\tcaption"]
    for number, kind in enumerate(kinds):
        name = f"{number}.{'JPG' if number == 5 else kind.lower()}"
        (tmp_path / "images" / name).write_bytes(picture(number, kind))
        lines += [f"{name}\t{caption(number)}", f"{name}\tthe second — {number}"]
    (tmp_path / "c.tsv").write_text("\n".join(lines), encoding="utf-8")
    return load_captions(tmp_path / "c.tsv")


@pytest.mark.parametrize("all_captions", [False, True])
def test_packed_samples_are_those_of_the_folder(folder, tmp_path, all_captions):
    out = tmp_path / "new" / "out"
    number = pack(folder, out, samples_per_shard=3, all_captions=all_captions)
    found = find_shards(out)
    captions = [c for own in folder.captions for c in own[: 2 if all_captions else 1]]
    assert number == len(found.names) == -(-len(captions) // 3) and len(found) == len(captions)
    images = [image for image in folder.images for _ in range(1 + all_captions)]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        name for n in range(number) for name in (f"{n:05d}.tar", f"{n:05d}_stats.json")
    )
    position = 0
    for shard, (place, count) in enumerate(zip(found.places, found.counts, strict=True)):
        index, data = scan(place), Path(place).read_bytes()
        assert json.loads((out / f"{shard:05d}_stats.json").read_text())["successes"] == count
        for n in range(count):
            assert index.keys[n] == f"{shard:05d}{n:04d}"
            image, text, details = (
                data[span[0] : sum(span)]
                for span in (index.images[n], index.texts[n], index.details[n])
            )
            source = Path(images[position])
            if source.suffix in (".bmp", ".gif"):
                assert image.startswith(b"\x89PNG")
            else:
                assert image == source.read_bytes()
            assert np.array_equal(np.asarray(open_image(image)), np.asarray(open_image(source)))
            assert text.decode() == captions[position]
            assert json.loads(details)["caption"] == captions[position]
            position += 1


def test_packing_twice_gives_the_same_bytes(folder, tmp_path):
    for name in "ab":
        pack(folder, tmp_path / name, samples_per_shard=4)
    for one in sorted((tmp_path / "a").iterdir()):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes()
    assert os.stat(tmp_path / "a").st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_packing_is_whole_or_not_at_all(folder, tmp_path):
    Path(folder.images[5]).write_bytes(b"")
    Path(folder.images[5]).rename(tmp_path / "images" / "5.bmp")
    folder.images[5] = tmp_path / "images" / "5.bmp"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="empty"):
        pack(folder, tmp_path / "out", samples_per_shard=2)
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(FileExistsError, match="full is there, and not empty"):
        pack(folder, tmp_path / "full")
    with pytest.raises(ValueError, match="samples_per_shard"):
        pack(folder, tmp_path / "out", samples_per_shard=0)


def test_photographs_packed_and_streamed(data_root, tmp_path):
    """Pixels as the features of small data sets are made of."""
    data = load_captions(data_root / "flickr8k" / "captions_val.tsv").first(24)
    pack(data, tmp_path / "flickr", samples_per_shard=10)
    found = find_shards(tmp_path / "flickr")
    options = {"batch_size": 8, "stop": 3, "captions": "original"}
    taken = list(batches(found, StreamConfig(lanes=4), **options))
    keys = [key for batch in taken for key in batch.keys]
    assert len(set(keys)) == 24
    images = torch.cat([batch.images for batch in taken])
    texts = [text for batch in taken for text in batch.texts]
    for key, image, text in zip(keys, images, texts, strict=True):
        shard, _, name = key.partition(".tar/")
        number = 10 * int(shard) + int(name[5:])
        expected = np.asarray(training_image(data.images[number], 224))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
        assert text == data.captions[number][0]


def test_a_grey_image_becomes_rgb(tmp_path):
    file = tmp_path / "grey.png"
    Image.fromarray(np.full((9, 9), 77, dtype=np.uint8)).save(file)
    write_tar(tmp_path / "s" / "0.tar", [("a.png", file.read_bytes()), ("a.txt", b"grey")])
    (batch,) = batches(
        find_shards(tmp_path / "s"), StreamConfig(lanes=1, size=8), batch_size=1, stop=1
    )
    assert torch.equal(batch.images, torch.full((1, 3, 8, 8), 77, dtype=torch.uint8))
