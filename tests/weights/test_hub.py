"""Models on the hub, against a stand-in server: there and back, and everything that goes wrong."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import WRITER, Hub
from huggingface_hub import constants
from tiny import TinyBackbone

import mgca
import mgca.model
from mgca.backbone import load_backbone
from mgca.config import SegmentConfig
from mgca.decoder import GatedConvDecoder
from mgca.inference.scoring import rules
from mgca.model import Model
from mgca.weights import WeightsError, hub, saved, write_tensors
from mgca.weights.hub import HubError, parse_name

REPO = "someone/some-model"
CLASSES = ["cat", "dog", "wood"]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub without repositories, an empty cache, nobody logged in."""
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "tokens"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Backbones that load at once: ``tiny``, other weights under ``"other"``."""

    def load(name, pretrained=True, *, last_block="value"):
        if name != "tiny":
            return load_backbone(name, pretrained, last_block=last_block)
        return TinyBackbone({True: 0, False: 0, "other": 1}[pretrained])

    monkeypatch.setattr(mgca.model, "load_backbone", load)


def decoder(dim=16, half=True) -> GatedConvDecoder:
    """Every parameter away from where it starts; in half precision's numbers, or not."""
    new = GatedConvDecoder(dim, upsample="nearest")
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
            if half:
                parameter.copy_(parameter.half())
    return new


def tiny_model(seed=0, half=True) -> Model:
    config = SegmentConfig(short_side=64, window=64, stride=48, meta_points=9)
    return Model(TinyBackbone(seed), decoder(half=half), config)


def image() -> torch.Tensor:
    return torch.randint(256, (3, 70, 90), dtype=torch.uint8)


def files(tmp_path, model=None) -> dict[str, bytes]:
    folder = (model or tiny_model()).save(tmp_path / "made")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def changed(made: dict[str, bytes], **values) -> dict[str, bytes]:
    """The files with another configuration; a value of None takes the key out."""
    config = json.loads(made["config.json"]) | values
    config = {key: value for key, value in config.items() if value is not None}
    return made | {"config.json": json.dumps(config).encode()}


@pytest.mark.parametrize("half", [True, False])
def test_there_and_back(server, tiny, half):
    model = tiny_model(half=half)
    model.scoring = rules((10.1, -2.3))
    name = model.push_to_hub(
        REPO,
        token=WRITER,
        license="apache-2.0",
        data="4 drawings",
        metrics={"mIoU, drawings": 12.25},
        run="0123456789ab",
    )
    assert name == f"hf://{REPO}@{server.name(REPO, 1)}"
    stored = server.repositories[REPO][-1]
    assert sorted(stored) == ["README.md", "config.json", "decoder.safetensors"]
    parameters = sum(p.numel() for p in model.decoder.parameters())
    assert (len(stored["decoder.safetensors"]) < 3 * parameters) == half
    photo = image()
    for given in (f"hf://{REPO}", f"hf://{REPO}@main", name):
        loaded = mgca.load(given)
        assert loaded.config == model.config and loaded.trained == model.trained
        assert loaded.scoring["sigmoid"].learned == (10.1, -2.3)
        for rule in ("softmax", "sigmoid"):
            ours, theirs = (m.segment(photo, CLASSES, rule=rule) for m in (model, loaded))
            assert torch.equal(ours.labels, theirs.labels)
            assert torch.equal(ours.scores, theirs.scores)
    card = stored["README.md"].decode()
    assert card.startswith("---\n") and "license: apache-2.0\n" in card
    assert "library_name: mgca" in card and "| mIoU, drawings | 12.25 |" in card
    assert "4 drawings" in card and f'mgca.load("hf://{REPO}")' in card and "0123456789ab" in card
    assert hashlib.sha256(stored["decoder.safetensors"]).hexdigest() in card
    assert f"{parameters:,}" in card


def test_a_card_without_words_says_so(tiny, tmp_path):
    folder = tiny_model().save(tmp_path)
    card = saved.model_card(REPO, folder, data="", metrics={}, license=None, run="")
    assert "license" not in card.split("---")[1]
    assert card.count("Not stated") == 3 and "None given" in card


def test_the_decoder_can_be_left_out(server, tiny, tmp_path):
    server.commit(REPO, files(tmp_path))
    window = SegmentConfig(short_side=32, window=32, stride=32)
    model = mgca.load(f"hf://{REPO}", None, config=window)
    assert model.decoder is None and model.config == window
    for wrong in ({"decoder": "x.safetensors"}, {"pretrained": False}, {"pretrained": "tag"}):
        with pytest.raises(ValueError, match="of its own"):
            mgca.load(f"hf://{REPO}", **wrong)


def test_a_file_is_downloaded_once_and_then_offline(server, tiny, tmp_path, monkeypatch):
    server.commit(REPO, files(tmp_path))
    mgca.load(f"hf://{REPO}")
    gets = [asked for asked in server.asked if asked.startswith("GET")]
    mgca.load(f"hf://{REPO}")
    assert [asked for asked in server.asked if asked.startswith("GET")] == gets
    assert len(gets) == 2
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(server.asked)
    mgca.load(f"hf://{REPO}")
    assert len(server.asked) == asked
    with pytest.raises(HubError, match="not in the cache, and HF_HUB_OFFLINE"):
        mgca.load("hf://someone/other")


def test_all_files_are_of_one_commit(server, tiny, tmp_path, monkeypatch):
    first = server.commit(REPO, files(tmp_path / "1"))
    later = files(tmp_path / "2", tiny_model())
    download = hub._download

    def and_then_another_commit(repo, file, revision):
        path = download(repo, file, revision)
        if file == "config.json":
            server.commit(REPO, later)
        return path

    monkeypatch.setattr(hub, "_download", and_then_another_commit)
    old = mgca.load(f"hf://{REPO}")
    monkeypatch.setattr(hub, "_download", download)
    assert mgca.load(f"hf://{REPO}@{first}").trained == old.trained
    assert mgca.load(f"hf://{REPO}").trained != old.trained


def test_other_weights_of_the_backbone_are_named(server, tiny):
    model = tiny_model(seed=1)
    with pytest.raises(WeightsError, match="other weights"):
        model.push_to_hub(REPO, token=WRITER)
    assert server.asked == []
    model.pretrained = "other"
    loaded = mgca.load(model.push_to_hub(REPO, token=WRITER))
    assert loaded.backbone.digest == model.backbone.digest and loaded.pretrained == "other"


def test_what_is_not_the_model_when_loaded_again_is_not_uploaded(server, tiny, monkeypatch):
    other = tiny_model()
    monkeypatch.setattr(mgca.model, "_from_folder", lambda folder: other)
    with pytest.raises(WeightsError, match="it was not uploaded"):
        tiny_model().push_to_hub(REPO, token=WRITER)
    assert server.asked == []


def test_private_repositories(server, tiny, monkeypatch):
    model = tiny_model()
    name = model.push_to_hub(REPO, token=WRITER, private=True)
    assert REPO in server.private
    with pytest.raises(
        HubError, match=r"or it is private: check the name, or log in with `hf auth"
    ):
        mgca.load(name)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    assert mgca.load(name).trained == model.trained
    assert model.push_to_hub(REPO) != name


@pytest.mark.parametrize("token", [None, "hf_reader"])
def test_without_the_right_to_write(server, tiny, token):
    with pytest.raises(HubError, match=f"cannot upload to hf://{REPO}: .*hf auth login"):
        tiny_model().push_to_hub(REPO, token=token)


def test_what_is_not_there(server, tiny, tmp_path):
    with pytest.raises(HubError, match="cannot get config.json of .*there is no such repository"):
        mgca.load("hf://someone/nothing")
    server.commit(REPO, files(tmp_path))
    with pytest.raises(HubError, match="no such revision"):
        mgca.load(f"hf://{REPO}@v2")
    server.commit("someone/empty", {"README.md": b"# Empty"})
    with pytest.raises(HubError, match="no such file: it was not written by push_to_hub"):
        mgca.load("hf://someone/empty")
    server.gated.add(REPO)
    with pytest.raises(HubError, match="its owner grants access"):
        mgca.load(f"hf://{REPO}")


@pytest.mark.parametrize("status", [403, 500])
def test_a_hub_that_refuses(server, tiny, status, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # it asks a failing hub several times
    server.status = status
    reason = {403: "without the right", 500: "answers with status 500: try again later"}[status]
    with pytest.raises(HubError, match=reason):
        mgca.load(f"hf://{REPO}")


def test_a_truncated_download_is_refused_and_made_good(server, tiny, tmp_path):
    server.commit(REPO, files(tmp_path))
    server.short = {"decoder.safetensors"}
    with pytest.raises(HubError, match="cannot get decoder.safetensors .*should be of size"):
        mgca.load(f"hf://{REPO}")
    server.short = set()
    assert mgca.load(f"hf://{REPO}").decoder is not None


def test_a_file_other_than_the_named_one_is_refused(server, tiny, tmp_path):
    made = files(tmp_path)
    damaged = bytearray(made["decoder.safetensors"])
    damaged[-1] ^= 1
    server.commit(REPO, made | {"decoder.safetensors": bytes(damaged)})
    with pytest.raises(WeightsError, match="SHA-256 .*, expected .*: delete the folder"):
        mgca.load(f"hf://{REPO}")


@pytest.mark.parametrize("key", ["digest", "text_digest"])
def test_another_backbone_is_refused(server, tiny, tmp_path, key):
    made = files(tmp_path)
    backbone = json.loads(made["config.json"])["backbone"]
    server.commit(REPO, changed(made, backbone=backbone | {key: "cells-0123456789ab"}))
    with pytest.raises(WeightsError, match=f"'tiny' with {key} cells-0123456789ab"):
        mgca.load(f"hf://{REPO}")


def test_a_decoder_of_another_backbone_is_refused(server, tiny, tmp_path):
    made = files(tmp_path / "1")
    other = files(tmp_path / "2", tiny_model(seed=1))
    config = {"files": json.loads(other["config.json"])["files"]}
    server.commit(
        REPO, changed(made | {"decoder.safetensors": other["decoder.safetensors"]}, **config)
    )
    with pytest.raises(WeightsError, match="this decoder was trained on the backbone"):
        mgca.load(f"hf://{REPO}")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"library": "transformers"}, 'lacks "library": "mgca"'),
        ({"format": 2}, "has format 2, this mgca reads 1: install"),
        ({"format": None}, "has format None"),
        ({"files": {}}, r"its files are \[\]"),
        ({"files": {"../decoder.safetensors": ""}}, "its files are"),
        ({"files": {"pytorch_model.bin": ""}}, "its files are"),
        ({"files": None}, "files is missing"),
        ({"backbone": {"name": "tiny"}}, "backbone.pretrained is missing"),
        ({"backbone": []}, "backbone is a table"),
        ({"segment": {"window": 0}}, "must be positive"),
        ({"segment": {"colour": 1}}, "no value segment.colour"),
        ({"segment": {"window": True}}, "segment.window must be int, not True"),
        ({"segment": {"window": 64.0}}, "segment.window must be int, not 64.0"),
    ],
)
def test_other_configurations_are_refused(server, tiny, tmp_path, values, message):
    server.commit(REPO, changed(files(tmp_path), **values))
    with pytest.raises(WeightsError, match=message):
        mgca.load(f"hf://{REPO}")
    assert not any("safetensors" in asked or "pytorch" in asked for asked in server.asked)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_configuration_is_refused(server, tiny, content):
    server.commit(REPO, {"config.json": content})
    with pytest.raises(WeightsError, match="is not the configuration of a model of mgca"):
        mgca.load(f"hf://{REPO}")


def test_unknown_backbones_are_refused(server, tiny, tmp_path):
    made = files(tmp_path)
    backbone = json.loads(made["config.json"])["backbone"]
    for name, reason in {"../x": "unknown backbone", "ViT-B-32": "say which weights"}.items():
        server.commit(REPO, changed(made, backbone=backbone | {"name": name}))
        with pytest.raises(WeightsError, match=f"its backbone cannot be loaded: .*{reason}"):
            mgca.load(f"hf://{REPO}")


def test_names():
    assert parse_name("hf://a-b/c.d_e") == ("a-b/c.d_e", None)
    assert parse_name("hf://a/b@refs/pr/1") == ("a/b", "refs/pr/1")
    for wrong in (
        "hf://a",
        "hf://a/b/c",
        "hf://a/b@",
        "hf:///b",
        "hf://a/b c",
        "a/b",
        "hf://a/b\n",
    ):
        with pytest.raises(ValueError, match="hf://owner/name"):
            parse_name(wrong)
    for wrong in ("a", "a/b@main", "hf://a/b"):
        with pytest.raises(ValueError, match="owner/name"):
            tiny_model().push_to_hub(wrong)


def test_nothing_trained_is_nothing_to_share():
    with pytest.raises(ValueError, match="nothing of this model is trained"):
        Model(TinyBackbone()).push_to_hub(REPO)


def test_lite_and_its_own_alignment_there_and_back(server, tmp_path):
    bare = mgca.load("lite", None)
    with pytest.raises(ValueError, match="nothing of this model is trained"):
        bare.save(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    backbone = bare.backbone
    old = {key: value.clone() for key, value in backbone.alignment().items()}
    backbone.temperature = 0.0625
    alone = bare.save(tmp_path / "alone")
    backbone.set_alignment(weight=old["weight"] * 1.01, text_centre=old["text_centre"] * 0.5)
    model = Model(backbone, GatedConvDecoder(backbone.dim, learned=backbone.learned))
    loaded = mgca.load(model.push_to_hub(REPO, token=WRITER))
    assert "alignment.safetensors" in server.repositories[REPO][-1]
    photo = image()
    ours, theirs = (m.segment(photo, CLASSES) for m in (model, loaded))
    assert torch.equal(ours.labels, theirs.labels) and torch.equal(ours.scores, theirs.scores)
    assert loaded.backbone.temperature == 0.0625
    # The published alignment at another temperature is another one too.
    assert sorted(p.name for p in alone.iterdir()) == ["alignment.safetensors", "config.json"]
    assert mgca.load(alone).decoder is None


def test_a_folder_is_loaded_as_a_name_is(tiny, tmp_path, monkeypatch):
    model, photo = tiny_model(), image()
    folder = model.save(tmp_path / "lite", run="0123456789ab")
    expected = model.segment(photo, CLASSES).labels
    for name in (folder, str(folder)):
        loaded = mgca.load(name)
        assert loaded.trained == model.trained and loaded.config == model.config
        assert torch.equal(loaded.segment(photo, CLASSES).labels, expected)
    assert mgca.load(folder, None).decoder is None
    with pytest.raises(ValueError, match="of its own"):
        mgca.load(folder, pretrained=False)
    # A folder that is called as a model is does not take its place, unless its path is written.
    monkeypatch.chdir(tmp_path)
    assert mgca.load("./lite").backbone.name == "tiny"
    assert mgca.load("lite").backbone.name == "lite"
    with pytest.raises(ValueError, match="unknown backbone 'nowhere'"):
        mgca.load("nowhere")
    (folder / "decoder.safetensors").unlink()
    with pytest.raises(WeightsError, match="no weights file .*decoder.safetensors"):
        mgca.load(folder)


def test_what_was_written_before_is_read(tiny, tmp_path):
    """Format 1 as models on the hub have it, written out by hand."""
    made = files(tmp_path)
    backbone = TinyBackbone()
    config = {
        "library": "mgca",
        "format": 1,
        "backbone": {
            "name": "tiny",
            "pretrained": True,
            "last_block": "value",
            "digest": backbone.digest,
            "text_digest": backbone.text_digest,
        },
        "segment": {
            "short_side": 64,
            "long_side": 2048,
            "window": 64,
            "stride": 48,
            "meta_points": 9,
            "placement": "centre",
            "average": "raw",
        },
        "files": {"decoder.safetensors": hashlib.sha256(made["decoder.safetensors"]).hexdigest()},
    }
    assert json.loads(made["config.json"]) == config
    (tmp_path / "made" / "config.json").write_text(json.dumps(config))
    assert mgca.load(tmp_path / "made").config == tiny_model().config


def test_what_is_no_alignment_is_refused(tiny, tmp_path):
    folder = tiny_model().save(tmp_path)
    written = write_tensors(folder / "alignment.safetensors", {"weight": torch.zeros(1)}, {})
    names = {"alignment.safetensors": hashlib.sha256(written.read_bytes()).hexdigest()}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"files": names}))
    with pytest.raises(WeightsError, match="'tiny' has no alignment"):
        mgca.load(folder)
    config["backbone"]["name"] = "lite"
    (folder / "config.json").write_text(json.dumps(config | {"files": names}))
    with pytest.raises(WeightsError, match="not those of an alignment"):
        mgca.load(folder)


THERE_AND_BACK = """
import torch
import mgca
import mgca.model
from mgca.decoder import GatedConvDecoder
from mgca.model import Model
from tiny import TinyBackbone

mgca.model.load_backbone = lambda *_, **__: TinyBackbone()
model = Model(TinyBackbone(), GatedConvDecoder(16))
name = model.push_to_hub("someone/tiny")
assert mgca.load(name).trained == model.trained
print(name)
"""


def test_there_and_back_in_a_process_of_its_own(tmp_path):
    """As users do it: the endpoint, the cache and the token are environment variables."""
    with Hub() as server:
        environment = os.environ | {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path),
            "HF_TOKEN": WRITER,
            "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": os.pathsep.join(
                map(str, (Path(__file__).parent, Path(__file__).parents[1]))
            ),
            "HF_HUB_DISABLE_XET": "1",
        }
        result = subprocess.run(
            [sys.executable, "-W", "error:::mgca", "-c", THERE_AND_BACK],
            env=environment,
            capture_output=True,
            text=True,
        )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"hf://someone/tiny@{server.name('someone/tiny', 1)}"
