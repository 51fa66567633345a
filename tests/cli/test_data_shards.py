"""``mgca data shards``, ``captions`` and ``pack``."""

import json

import pytest
from test_shards import COUNTS, cache, caption, members, picture, write_shards, write_tar  # noqa: F401
from tiny import TinyBackbone

import mgca.backbone
from mgca.cli import main
from mgca.data.shards import StreamConfig, batches, find_shards


def test_shards_are_summarised(tmp_path, capsys):
    write_shards(tmp_path / "s", COUNTS)
    write_tar(tmp_path / "s" / "x.tar", [("a.jpg", b""), ("b.txt", b"only text"), *members(60)])
    assert main(["data", "shards", str(tmp_path / "s"), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "6 shards, 00000.tar to x.tar\n56 samples, 0 to 21 per shard" in out
    assert find_shards(tmp_path / "s").digest[:12] in out
    assert "1 samples without image" in out and "1 samples without caption" in out
    assert f"captions such as\n  {caption(0)}\n  {caption(1)}" in out


def test_shards_that_a_shell_lists(tmp_path, capsys):
    paths = write_shards(tmp_path, [2, 3, 4])
    assert main(["data", "shards", *map(str, paths[1:])]) == 0
    assert "2 shards, 00001.tar to 00002.tar\n7 samples" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["shards", "captions"])
def test_damaged_shards_end_with_code_1(tmp_path, capsys, command):
    paths = write_shards(tmp_path, [3, 3, 3])
    for path in paths[:2]:
        path.write_bytes(path.read_bytes()[:3000])
    assert main(["data", command, str(tmp_path), "--workers", "1"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert all(f"{path} is truncated" in err for path in paths[:2]) and str(paths[2]) not in err


def test_captions_with_embeddings(tmp_path, capsys, monkeypatch):
    write_shards(tmp_path / "s", COUNTS)
    backbone = TinyBackbone()
    monkeypatch.setattr(mgca.backbone, "load_backbone", lambda name: {"tiny": backbone}[name])
    out = tmp_path / "texts"
    arguments = ["data", "captions", str(tmp_path / "s"), "--out", str(out), "--workers", "1"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "nouns of 53 captions, 5 of 5 shards were new\n"
    assert main([*arguments, "--embed", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "nouns of 53 captions, 0 of 5 shards were new"
    plan = "embeddings of 53 captions and of 8 nouns in 7 templates: 0.00 GiB in"
    assert lines[1].startswith(plan)
    taken = batches(
        find_shards(tmp_path / "s"),
        StreamConfig(lanes=8, size=8),
        batch_size=8,
        stop=2,
        precomputed=out,
        text_digest=backbone.text_digest,
    )
    assert all(batch.embeddings is not None for batch in taken)


def test_an_unknown_backbone_or_device_is_found_out_first(tmp_path, capsys):
    write_shards(tmp_path / "s", [2])
    arguments = ["data", "captions", str(tmp_path / "s"), "--out", str(tmp_path / "t"), "--embed"]
    assert main([*arguments, "nothing"]) == 1
    assert "unknown backbone 'nothing'" in capsys.readouterr().err
    assert main([*arguments, "lite", "--device", "nothing"]) == 2
    assert not (tmp_path / "t").exists()


def test_pack(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for number in range(5):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(picture(number))
    rows = [f"{n}.jpg\t{text} {n}" for n in range(5) for text in ("a dog", "a cat")]
    (tmp_path / "c.tsv").write_text("image\tcaption\n" + "\n".join(rows))
    arguments = ["data", "pack", str(tmp_path / "c.tsv"), str(tmp_path / "out")]
    assert main([*arguments, "--samples-per-shard", "2"]) == 0
    assert capsys.readouterr().out == f"3 shards in {tmp_path / 'out'}\n"
    assert find_shards(tmp_path / "out").counts == (2, 2, 1)
    assert main(arguments) == 1
    assert "not empty" in capsys.readouterr().err
    arguments[3] = str(tmp_path / "all")
    assert main([*arguments, "--all-captions"]) == 0
    assert find_shards(tmp_path / "all").counts == (10,)
    assert json.loads((tmp_path / "all" / "00000_stats.json").read_text())["count"] == 10
