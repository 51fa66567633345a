"""ONNX export: equal to the model for any number of windows, complete, and honest about itself."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from test_vit import small_vit
from tiny import TinyBackbone
from typer.testing import CliRunner

import mgca
from mgca.cli.export import export
from mgca.config import SegmentConfig
from mgca.decoder import GatedConvDecoder
from mgca.inference.export import export_onnx
from mgca.model import Model
from mgca.weights import load_weights

onnx = pytest.importorskip("onnx", reason="needs the extra [onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

pytestmark = pytest.mark.slow

# Of the largest embedding; the two add the same numbers up in another order.
TOLERANCE = 1e-5


def open_decoder(dim: int, **options) -> GatedConvDecoder:
    """A decoder whose gates are open, so that its blocks count."""
    decoder = GatedConvDecoder(dim, **options)
    for block in decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.5)
    return decoder


def tiny(**options) -> Model:
    config = SegmentConfig(short_side=64, window=64, stride=32)
    return Model(TinyBackbone(), open_decoder(16, **options), config)


def session(path) -> "onnxruntime.InferenceSession":
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def check_parity(model: Model, path, side: int) -> None:
    """The file gives what the model gives, also for numbers of windows it was not traced with."""
    running = session(path)
    for number in (1, 2, 3):
        windows = torch.randn(number, 3, side, side)
        with torch.inference_mode():
            expected = model.pixels(model.features(windows))
        (found,) = running.run(["pixels"], {"windows": windows.numpy()})
        assert found.shape == tuple(expected.shape)
        worst = np.abs(found - expected.numpy()).max()
        assert worst <= TOLERANCE * float(expected.abs().max())


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
def test_a_small_model_and_its_metadata(tmp_path, upsample):
    model = tiny(upsample=upsample)
    path = export_onnx(model, tmp_path / "deep" / "tiny.onnx", run="0123456789ab")
    assert [p.name for p in path.parent.iterdir()] == ["tiny.onnx"]
    check_parity(model, path, 64)
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert [float(v) for v in said["mean"].split()] == [0.5] * 3
    assert [float(v) for v in said["std"].split()] == [0.25] * 3
    assert (said["size"], said["stride"], said["name"]) == ("64", "16", "tiny")
    assert said["backbone_digest"] == model.backbone.digest
    assert (said["decoder"], said["decoder_run"]) == (model.trained[0], "0123456789ab")
    assert said["mgca_version"] == mgca.__version__ and "terms" in said["licence"]
    assert float(said["temperature"]) == pytest.approx(0.07)


def test_without_a_decoder_at_another_size(tmp_path):
    model = Model(TinyBackbone())
    path = export_onnx(model, tmp_path / "dense.onnx", size=48)
    check_parity(model, path, 48)
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (said["decoder"], said["decoder_run"]) == ("none", "")


@pytest.mark.parametrize("last_block", ["value", "naclip"])
def test_a_vision_transformer(tmp_path, last_block):
    vit = small_vit(last_block=last_block).float()
    # Of another size than its positions were trained for.
    model = Model(vit, open_decoder(24))
    check_parity(model, export_onnx(model, tmp_path / "vit.onnx", size=48), 48)


def test_lite(tmp_path):
    model = mgca.load("lite")
    check_parity(model, export_onnx(model, tmp_path / "lite.onnx", size=64), 64)


@pytest.mark.parametrize("size", [8, 40, 63])
def test_sizes_that_do_not_fit_are_refused(tmp_path, size):
    with pytest.raises(ValueError, match=f"multiple of 16, not {size}"):
        export_onnx(tiny(), tmp_path / "tiny.onnx", size=size)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "tiny.onnx"
    path.write_text("before")

    def refuse(*_, **__):
        raise onnx.checker.ValidationError("not sound")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError):
        export_onnx(tiny(), path)
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["tiny.onnx"]


def test_a_network_too_large_for_a_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mgca.inference.export._LIMIT", 100)
    with pytest.raises(ValueError, match="do not fit"):
        export_onnx(tiny(), tmp_path / "tiny.onnx")
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_fixes_the_number_of_windows_is_refused(tmp_path):
    class Fixed(TinyBackbone):
        def features(self, images):
            return super().features(images) + torch.ones(len(images), 1, 1, 1)

    with pytest.raises(ValueError, match="tiny cannot be exported for any number of windows"):
        export_onnx(Model(Fixed()), tmp_path / "tiny.onnx", size=32)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'pip install "mgca\[onnx\]"'):
        export_onnx(tiny(), tmp_path / "tiny.onnx")


@pytest.fixture
def command():
    import typer

    app = typer.Typer()
    app.command()(export)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_command_and_the_scenes_model(command, tmp_path):
    path = tmp_path / "scenes.onnx"
    result = command("scenes", path, "--size", 64)
    assert result.exit_code == 0, result.output
    assert "windows of 64x64" in result.output
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert said["decoder_run"] == load_weights("scenes-mgca")[1]["run"] != ""
    check_parity(mgca.load("scenes"), path, 64)


def test_command_without_weights(command, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        "mgca.inference.export.export_onnx",
        lambda model, path, **options: made.append((model, options)) or write(path),
    )

    def write(path):
        path.write_bytes(b"1")
        return path

    assert command("scenes", tmp_path / "a", "--random").exit_code == 0
    assert command("scenes", tmp_path / "b", "--random", "--decoder", "none").exit_code == 0
    (new, options), (bare, _) = made
    assert options == {"size": None, "run": ""} and bare.decoder is None
    assert all(float(block.gate) == 0 for block in new.decoder.blocks)
    assert new.backbone.digest != mgca.load("scenes").backbone.digest
    for wrong in (["--decoder", "x.safetensors"], ["--pretrained", "openai"]):
        assert command("scenes", tmp_path / "c", "--random", *wrong).exit_code == 2
    assert not (tmp_path / "c").exists()
    missing = command("scenes", tmp_path / "c", "--decoder", tmp_path / "none.safetensors")
    assert isinstance(missing.exception, OSError) and "no weights file" in str(missing.exception)


def test_the_command_is_quick_to_import():
    code = "import sys, mgca.cli.export; assert not {'torch', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
