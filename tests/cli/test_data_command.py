"""The command ``mgca data``: what it prints, where, and how it exits."""

import json
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from test_benchmarks import SIZE, image_path, lay_out, mask_path, save_mask
from test_prepare import lay_out_raw
from test_shards import COUNTS, batches, cache, caption, members, picture, write_shards, write_tar  # noqa: F401
from tiny import TinyBackbone

import mgca
import mgca.backbone
from mgca.cli import main
from mgca.data.benchmarks import check as check_module
from mgca.data.shards import StreamConfig, find_shards

ROOT = Path(__file__).resolve().parents[2]


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mgca {mgca.__version__}\n"


def test_list(capsys):
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[1].split()[:5] == ["context", "5104", "images", "60", "classes"]
    needs = [line.split()[0] for line in lines if line.endswith("needs `mgca data prepare`")]
    assert needs == ["context", "coco", "c59", "stuff", "city"]


def test_check_of_a_sound_set(tmp_path, capsys):
    lay_out("voc", tmp_path)
    assert main(["data", "check", "voc", "--root", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "a subset: 3 of 1449 images" in out and "no problem" in out and err == ""


def test_check_with_problems(tmp_path, capsys):
    identifier = lay_out("voc", tmp_path)[0]
    save_mask("voc", tmp_path, identifier, np.full(SIZE, 77, dtype=np.uint8))
    assert main(["data", "check", "voc", "--root", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"] and report["problems"][0]["kind"] == "unknown id"
    assert main(["data", "check", "voc", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "2008_000001.png: 77, expected 0 to 20" in out and "unpack the archive again" in out
    image_path("voc", tmp_path, identifier).unlink()
    arguments = ["data", "check", "voc", "--root", str(tmp_path), "--limit", "1"]
    assert main(arguments) == 1
    assert "1 images with their masks checked" in capsys.readouterr().out


def test_prepare_ends_with_the_check(tmp_path, capsys):
    lay_out_raw("city", tmp_path)
    assert main(["data", "prepare", "city", "--root", str(tmp_path), "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("city: 3 masks made from Cityscapes' labelIds, 0 were there already\n")
    assert "a subset: 3 of 500 images" in out
    image_path("city", tmp_path, "ulm/ulm_000000_000001").write_bytes(b"x")
    assert main(["data", "prepare", "city", "--root", str(tmp_path)]) == 1
    assert "unreadable image: leftImg8bit/val/ulm/ulm" in capsys.readouterr().out


def test_prepare_of_what_needs_none(tmp_path, capsys):
    lay_out("ade", tmp_path)
    assert main(["data", "prepare", "ade", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "nothing to convert" in out and "no problem" in out


def test_source_reaches_the_conversion(tmp_path, capsys):
    lay_out_raw("coco", tmp_path)
    arguments = ["data", "prepare", "coco", "--root", str(tmp_path), "--source"]
    assert main([*arguments, "instances"]) == 1
    assert "instances_val2017.json; get" in capsys.readouterr().err
    assert main([*arguments, "stuff"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "check", "kitti", "--root", "."], "mgca: unknown benchmark 'kitti', only voc,"),
        (["data", "check", "voc", "--root", "nowhere"], "mgca: voc (PASCAL VOC 2012): no folder"),
        (["data", "prepare", "city", "--root", "nowhere"], "mgca: city (Cityscapes): no folder"),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(message)


def test_errors_of_the_disk_are_one_line(tmp_path, monkeypatch, capsys):
    lay_out("ade", tmp_path)

    def broken(path):
        raise OSError("two\nlines")

    monkeypatch.setattr(check_module, "read_ids", broken)
    assert main(["data", "check", "ade", "--root", str(tmp_path), "--workers", "1"]) == 1
    assert capsys.readouterr().err == "mgca: two lines\n"


def test_our_own_mistakes_keep_their_traceback(tmp_path, monkeypatch):
    lay_out("ade", tmp_path)

    def wrong(path):
        raise ZeroDivisionError

    monkeypatch.setattr(check_module, "read_ids", wrong)
    with pytest.raises(ZeroDivisionError):
        main(["data", "check", "ade", "--root", str(tmp_path), "--workers", "1"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "check"],
        ["data", "check", "voc"],
        ["data", "check", "voc", "--root", ".", "--limit", "0"],
        ["data", "check", "voc", "--root", ".", "--wrong"],
        ["data", "download"],
        ["wrong"],
        [],
    ],
)
def test_wrong_usage(arguments, capsys):
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_interrupted(tmp_path, monkeypatch, capsys):
    lay_out("ade", tmp_path)

    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(check_module, "read_ids", interrupt)
    assert main(["data", "check", "ade", "--root", str(tmp_path), "--workers", "1"]) == 130
    assert capsys.readouterr().err.endswith("interrupted; the same command goes on from here\n")


def test_ctrl_c_while_threads_write(tmp_path):
    # The real thing: a signal, threads at work, nothing half-written, and the rest next time.

    identifiers = lay_out_raw("city", tmp_path)
    folders = [image_path("city", tmp_path, identifiers[0]).parent]
    folders.append(mask_path("city", tmp_path, identifiers[0]).parent)
    for folder in folders:
        (file,) = folder.iterdir()
        for number in range(150):
            end = file.name.removeprefix("bonn_000001_000003")
            shutil.copy(file, folder / f"bonn_000002_{number:06d}{end}")
    slow = (
        "import signal, sys, time, mgca.data.benchmarks.converters as c; f = c.convert_ids\n"
        # A shell without job control has the processes behind it ignore Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "c.convert_ids = lambda *a: (time.sleep(0.02), f(*a))[1]\n"
        "from mgca.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", slow, "data", "prepare", "city", "--root", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while len(list(folders[1].glob("*TrainIds.png"))) < 20:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("mgca: interrupted; the same command goes on from here\n")
    assert "Traceback" not in err
    left = [path for path in folders[1].iterdir() if path.name.startswith(".")]
    assert left == [] and not (tmp_path / ".mgca-prepared.json").exists()
    assert len(list(folders[1].glob("*TrainIds.png"))) < 151
    assert main(["data", "prepare", "city", "--root", str(tmp_path)]) == 0


def test_help_is_light():
    code = (
        "import sys; from mgca.cli import main; code = main(['data', 'check', '--help']); "
        "heavy = {'torch', 'numpy', 'mmseg', 'PIL', 'joblib'} & set(sys.modules); "
        "sys.exit(str(sorted(heavy)) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "BENCHMARK" in done.stdout


def test_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "mgca", "data", "check", "x", "--root", "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("mgca: unknown benchmark 'x'")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"mgca": "mgca.cli:main"}


# Shards


def test_shards_are_summarised(tmp_path, capsys):
    write_shards(tmp_path / "s", COUNTS)
    write_tar(tmp_path / "s" / "x.tar", [("a.jpg", b""), ("b.txt", b"only text"), *members(60)])
    assert main(["data", "shards", str(tmp_path / "s"), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "6 shards, 00000.tar to x.tar\n56 samples, 0 to 21 per shard" in out
    assert find_shards(tmp_path / "s").digest[:12] in out
    assert "54 of 56 samples with an image and a caption\n" in out
    assert "  left out: 1 x no image\n" in out and "  left out: 1 x an empty image\n" in out
    assert f"captions such as\n  {caption(0)}\n  {caption(1)}" in out


def test_a_hole_in_a_shard_ends_with_code_1(tmp_path, capsys):
    (path,) = write_shards(tmp_path, [24])
    statistics = {"count": 24, "successes": 24}
    (tmp_path / "00000_stats.json").write_text(json.dumps(statistics))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert main(["data", "shards", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"{path}" in err and "download" in err


def test_a_set_without_a_usable_sample_ends_with_code_1(tmp_path, capsys):
    key = [
        (f"{n}.{end}", data)
        for n in range(3)
        for end, data in (("jpg", picture(n)), ("json", b'{"text": "a dog"}'))
    ]
    write_tar(tmp_path / "key" / "0.tar", key)
    for command in ("shards", "captions"):
        arguments = ["data", command, str(tmp_path / "key"), "--workers", "1"]
        assert main(arguments) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        assert "not one of 3 samples can be used" in err and "it has text; --caption-key" in err
        assert main([*arguments, "--caption-key", "text"]) == 0
        assert "3 samples" in capsys.readouterr().out or command == "captions"
    dots = [(f"IMG.{n:04}.jpg", picture(n)) for n in range(12)]
    write_tar(tmp_path / "dots" / "0.tar", [*dots, ("IMG.0000.txt", b"a dog")])
    assert main(["data", "shards", str(tmp_path / "dots")]) == 1
    assert "rename IMG.0001.jpg to IMG_0001.jpg" in capsys.readouterr().err


def test_shards_as_json(tmp_path, capsys):
    write_shards(tmp_path / "s", [2, 3])
    write_tar(tmp_path / "s" / "00003.tar", [("b.txt", b"only text")])
    assert main(["data", "shards", str(tmp_path / "s"), "--json", "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "digest": find_shards(tmp_path / "s").digest,
        "samples": 6,
        "usable": 5,
        "left_out": {"no image": 1},
        "absent": ["00002.tar"],
        "shards": {"00000.tar": 2, "00001.tar": 3, "00003.tar": 1},
    }


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
