"""The photos scales: from captions to rows of every set and its part, on a few real images."""

import dataclasses
import json

import pytest
import torch
from tiny import Hashes
from tiny_scale import folders, names

from mgca.backbone.hybrid import HybridConfig
from mgca.backbone.lite import Lite
from mgca.data.captions import load_captions
from mgca.data.features import image_features
from mgca.data.masks import load_masked
from mgca.data.texts import build_pool
from mgca.evaluation.results import read_run
from mgca.experiments import load_scale, photos, publish
from mgca.experiments.grid import grid
from mgca.experiments.photos import DATASETS, UNTOUCHED, Corpus, HybridScale, PhotosScale
from mgca.experiments.runner import missing, run_ablation
from mgca.weights import load_weights
from mgca.weights.decoders import decoder_from

NAMES = [*DATASETS, *UNTOUCHED.values()]


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
    monkeypatch.setattr(Lite, "encode_text", lambda self, texts: Hashes()(texts))
    monkeypatch.setattr("mgca.backbone.hybrid.SentenceEncoder", Hashes)
    return made


@pytest.fixture
def few(data_root, monkeypatch):
    """Of each set an image that is in the set alone, and one that is in its part, too."""

    def of(name):
        items, part = load_masked(name, data_root).items, load_masked(UNTOUCHED[name], data_root)
        return [next(item for item in items if item not in part.items), part.items[0]]

    items = {name: of(name) for name in UNTOUCHED}
    items |= {part: items[name][1:] for name, part in UNTOUCHED.items()}
    items["camvid"] = load_masked("camvid", data_root).items[:1]
    monkeypatch.setattr(
        photos,
        "load_masked",
        lambda name, root: dataclasses.replace(load_masked(name, root), items=items[name]),
    )


def small(scale: PhotosScale, **encoder) -> PhotosScale:
    scale.encoder = dataclasses.replace(scale.encoder, epochs=1, batch_size=4, **encoder)
    scale.training = dataclasses.replace(scale.training, steps=1, batch_size=4)
    return scale


def test_the_main_table_holds_every_set_and_its_part(corpus, few, data_root, tmp_path, monkeypatch):
    scale = small(PhotosScale(data_root, tmp_path / "cache"))
    embedded = []
    pixels = photos.Model.pixels
    monkeypatch.setattr(
        photos.Model, "pixels", lambda self, features: embedded.append(0) or pixels(self, features)
    )
    table = run_ablation("main", scale, [0], **folders(tmp_path))
    # A part takes what its set has embedded. Once without a model, for the features of all.
    assert len(embedded) == 7 + 2 * (2 + 2 + 1)
    lines = table[table["metric"] == "miou"].groupby(["variant", "unit"])["dataset"].agg(set)
    assert len(lines) == 2 * 2 and all(found == set(NAMES) for found in lines)
    assert set(table["variant"]) == {"alignment", "mgca"}
    value = table[table["metric"] == "accuracy"].groupby("dataset")["value"].agg(list)
    assert value["voc20-all"] != value["voc20"]

    full = grid("main", scale)[-1].run(scale, 0)
    record = read_run(tmp_path / "results", full)
    assert set(record["data"]) == {"flickr8k", *NAMES}
    assert {"loss", "temperature", "R@1", "R@5", "softmax_pixels"} <= set(record["encoder"])
    assert len((tmp_path / "results" / "runs" / f"{full}.csv").read_text().splitlines()) == 2

    monkeypatch.setattr("mgca.weights.FOLDER", tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    publish.lite(scale, tmp_path / "work")
    plain = grid("main", scale)[0].run(scale, 0)
    for name, run in (("lite-alignment", plain), ("lite-mgca", full)):
        assert load_weights(name)[1]["run"] == run
    decoder_from(*load_weights("lite-mgca"), scale.backbone(0))

    monkeypatch.setattr(photos, "align", None)
    again = run_ablation("main", scale, [0], **folders(tmp_path))
    assert again.equals(table) and len(embedded) == 7 + 2 * (2 + 2 + 1)
    (tmp_path / "results" / "runs" / f"{full}.json").unlink()
    assert [v.name for v, _ in missing("main", scale, [0], tmp_path / "results")] == ["mgca"]
    assert len(missing("main", scale, [1], tmp_path / "results")) == 2


def test_the_hybrid_is_trained_and_evaluated(corpus, data_root, tmp_path, monkeypatch):
    sizes = HybridConfig(dim=8, width=16, layers=2, heads=1)
    scale = small(HybridScale(data_root, tmp_path / "cache"), sizes=sizes)
    scale.main = ("camvid",)
    monkeypatch.setattr(photos, "load_masked", lambda name, root: load_masked(name, root).first(1))
    table = run_ablation("main", scale, [0], **folders(tmp_path))
    assert list(table["variant"].unique()) == ["clip", "maskclip", "mgca"]
    assert set(table["unit"]) == {"pixel", "36"} and set(table["dataset"]) == {"camvid"}
    record = read_run(tmp_path / "results", table["run"].iloc[0])
    assert set(record["data"]) == {"flickr8k", "camvid"} and "R@1" in record["encoder"]
    # Value-only features are other features than those of the trained attention.
    accuracy = table[table["metric"] == "accuracy"].set_index(["variant", "unit"])["value"]
    assert accuracy["clip", "pixel"] != accuracy["maskclip", "pixel"]

    monkeypatch.setattr(photos, "train_clip", None)
    assert scale.backbone(0).digest == scale.backbone(0).digest != scale.backbone(0, "attention")


def test_the_hybrid_is_the_photos_with_another_encoder(tmp_path):
    lite, hybrid = (load_scale(name, cache=tmp_path) for name in ("photos", "photos-hybrid"))
    assert hybrid.training == dataclasses.replace(lite.training, backbone="photos-hybrid")
    assert hybrid.main == lite.main and set(hybrid.datasets) <= set(lite.datasets)
    assert hybrid.settings["background"] == lite.settings["background"]
    runs = {v.run(s, seed) for s in (lite, hybrid) for v in grid("main", s) for seed in (0, 1)}
    assert len(runs) == (2 + 3) * 2
    assert names("granularity", hybrid)[:3] == ["baseline", "maskclip", "object"]


def test_lite_has_no_last_attention_block(tmp_path):
    scale = PhotosScale(tmp_path, tmp_path)
    assert names("granularity", scale)[:2] == ["baseline", "object"]
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
    assert len(missing("granularity", scale, [0], tmp_path)) == 6
    with pytest.raises(FileNotFoundError, match="set MGCA_DATA"):
        run_ablation("granularity", scale, [0], **folders(tmp_path))


def test_sets_are_pinned_to_their_data(data_root, tmp_path):
    scale = load_scale("photos", data=data_root, cache=tmp_path)
    for chosen in (scale.datasets, scale.main):
        assert tuple(data.name for data in scale.sets(chosen)) == chosen
        assert set(scale.digests(chosen)) == {"flickr8k", *chosen}
    assert json.loads(json.dumps(scale.settings)) == scale.settings


def test_sets_without_background_are_those_with_it_less_the_background(data_root, tmp_path):
    sets = {data.name: data for data in load_scale("photos", data=data_root).sets()}
    for name, whole in (("voc20", "voc21"), ("coco80", "coco81")):
        assert sets[name] == sets[whole].without_background(name)


def test_parts_hold_none_of_the_images_that_settings_were_chosen_on(data_root):
    for name, part in UNTOUCHED.items():
        whole, untouched = (load_masked(n, data_root) for n in (name, part))
        assert untouched.source == whole.source and untouched.classes == whole.classes
        assert set(untouched.items) < set(whole.items)
    chosen_on = {identifier for identifier, _, _ in load_masked("voc21-extra", data_root).items}
    assert not chosen_on & {i for i, _, _ in load_masked("voc20", data_root).items}
