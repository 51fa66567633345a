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

import mgca
from mgca.cli import main
from mgca.data.benchmarks import check as check_module

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
