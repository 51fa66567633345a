"""The photos scales: from captions to rows of every set and its part, on a few real images."""

import dataclasses
import json

import pytest
import torch
from tiny import Hashes
from tiny_scale import folders, names

from mgca.backbone.lite import Lite
from mgca.data.captions import load_captions
from mgca.data.features import image_features
from mgca.data.masks import load_masked
from mgca.data.texts import build_pool
from mgca.evaluation.results import read_run
from mgca.experiments import load_scale, photos, publish
from mgca.experiments.grid import grid
from mgca.experiments.photos import Corpus, PhotosScale
from mgca.experiments.runner import missing, run_ablation
from mgca.weights import load_weights

NAMES = PhotosScale.datasets


@pytest.fixture
def corpus(data_root, tmp_path, monkeypatch):
    """Eight captioned photographs, and sentence embeddings that are random."""
    captions = load_captions(data_root / "flickr8k" / "captions_train.tsv").first(8)
    pool = build_pool(captions.captions, [[(1.0, "dog")]] * len(captions))
    torch.manual_seed(0)
    texts, of_names = torch.randn(len(pool.texts), 384), torch.randn(1000, 2, 384)
    features = image_features(Lite(pretrained=False), captions, folder=tmp_path / "features")
    made = Corpus(
        captions=captions,
        features=features,
        pool=pool,
        texts=torch.nn.functional.normalize(texts, dim=-1),
        names=torch.nn.functional.normalize(of_names, dim=-1),
        held_out=captions,
        validation=(features, torch.nn.functional.normalize(texts[:8], dim=-1)),
    )
    monkeypatch.setattr(photos, "_corpus", lambda root, cache: made)
    # The real one takes a minute for the prompts of so many classes.
    monkeypatch.setattr(
        Lite, "encode_text", lambda self, texts: self.from_sentences(Hashes()(texts))
    )
    return made


@pytest.fixture
def few(data_root, monkeypatch):
    """Of each set one image."""
    monkeypatch.setattr(photos, "load_masked", lambda name, root: load_masked(name, root).first(1))


def small(scale: PhotosScale, **encoder) -> PhotosScale:
    scale.encoder = dataclasses.replace(scale.encoder, epochs=1, batch_size=4, **encoder)
    scale.training = dataclasses.replace(scale.training, steps=1, batch_size=4)
    return scale


def test_heads_are_trained_measured_and_published(corpus, few, data_root, tmp_path, monkeypatch):
    scale = small(PhotosScale(data_root, tmp_path / "cache"))
    table = run_ablation("granularity", scale, [0], **folders(tmp_path))
    levels = ["image", "object", "region", "pixel", "object+region", "all"]
    assert list(table["variant"].unique()) == ["baseline", *levels]
    lines = table[table["metric"] == "miou"].groupby(["variant", "unit"])["dataset"].agg(set)
    assert len(lines) == 7 * 2 and all(found == set(NAMES) for found in lines)

    full = grid("granularity", scale)[-1].run(scale, 0)
    record = read_run(tmp_path / "results", full)
    assert set(record["data"]) == {"flickr8k", *NAMES}
    assert {"loss", "temperature", "R@1", "R@5", "softmax_pixels"} <= set(record["encoder"])

    monkeypatch.setattr("mgca.weights.FOLDER", tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    publish.lite(scale, tmp_path / "work")
    state, meta = load_weights("lite-alignment")
    backbone = Lite(pretrained=False)
    backbone.set_alignment(**state)
    assert meta["run"] == full and backbone.digest != scale.backbone(0).digest

    monkeypatch.setattr(photos, "align", None)
    again = run_ablation("granularity", scale, [0], **folders(tmp_path))
    assert again.equals(table)
    (tmp_path / "results" / "runs" / f"{full}.json").unlink()
    left = missing("granularity", scale, [0], tmp_path / "results")
    assert [v.name for v, _ in left] == ["all"]


def test_the_decoder_is_trained_on_top_of_the_head(corpus, few, data_root, tmp_path):
    scale = small(PhotosScale(data_root, tmp_path / "cache"))
    scale.decoder = dataclasses.replace(scale.decoder, steps=1, batch_size=4)
    backbone = scale.backbone(0)
    decoder, _ = scale.trained(scale.decoder, backbone, tmp_path / "run")
    alone = scale.backbone(0)
    assert scale.trained(scale.training, alone, tmp_path / "head")[0] is None
    assert decoder.learned == 384 and backbone.digest == alone.digest != scale.backbone(0).digest
    features = torch.randn(1, 1280, 2, 2).relu()
    assert decoder(backbone.project(features)).shape == (1, 1384, 4, 4)


def test_lite_has_no_last_attention_block(tmp_path):
    scale = PhotosScale(tmp_path, tmp_path)
    assert names("granularity", scale)[:3] == ["baseline", "image", "object"]
    with pytest.raises(ValueError, match="no last attention block"):
        scale.backbone(0, "attention")


def test_each_seed_is_aligned_once(tmp_path, monkeypatch):
    (tmp_path / "flickr8k").mkdir()
    (tmp_path / "flickr8k" / "captions_train.tsv").write_text("image\tcaption\n")
    seeds = []

    def align(config, backbone, corpus):
        seeds.append(config.seed)
        backbone.text_centre += 1 + config.seed
        backbone.temperature = 0.03
        return {"loss": float(config.seed)}

    monkeypatch.setattr(photos, "align", align)
    monkeypatch.setattr(photos, "_corpus", lambda root, cache: None)
    digests = []
    for seed in (0, 0, 1):
        scale = PhotosScale(tmp_path, tmp_path / "cache")
        backbone = scale.backbone(seed)
        assert backbone.temperature == 0.03 and backbone.text_centre[0] == 1 + seed
        assert scale.encoder_measured(seed) == {"loss": seed}
        digests.append(backbone.digest)
    assert seeds == [0, 1]
    assert digests[0] == digests[1]  # what a decoder of the seed was trained for


def test_results_are_read_without_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGCA_DATA", raising=False)
    scale = load_scale("photos", cache=tmp_path)
    assert len(missing("granularity", scale, [0], tmp_path)) == 7
    with pytest.raises(FileNotFoundError, match="set MGCA_DATA"):
        run_ablation("granularity", scale, [0], **folders(tmp_path))


def test_sets_are_pinned_to_their_data(data_root, tmp_path):
    scale = load_scale("photos", data=data_root, cache=tmp_path)
    assert tuple(data.name for data in scale.sets()) == scale.datasets
    assert set(scale.digests(scale.datasets)) == {"flickr8k", *scale.datasets}
    assert json.loads(json.dumps(scale.settings)) == scale.settings


def test_the_sets_hold_none_of_the_images_that_settings_were_chosen_on(data_root):
    for name, whole in (("voc20", "voc20-all"), ("coco80-val", "coco80"), ("camvid-odd", "camvid")):
        every, untouched = (load_masked(n, data_root) for n in (whole, name))
        assert untouched.source == every.source and untouched.classes == every.classes
        assert set(untouched.items) < set(every.items)
    chosen_on = {identifier for identifier, _, _ in load_masked("voc21-extra", data_root).items}
    assert not chosen_on & {i for i, _, _ in load_masked("voc20", data_root).items}
