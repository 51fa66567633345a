"""The photos scale: from captions to rows of every set and its part, on a few real images."""

import dataclasses

import pandas as pd
import pytest
import torch

from mgca.backbone.lite import Lite
from mgca.data.captions import load_captions
from mgca.data.features import image_features
from mgca.data.masks import load_masked
from mgca.data.texts import build_pool
from mgca.evaluation.results import read_results, read_run
from mgca.experiments import photos
from mgca.experiments.photos import DATASETS, UNTOUCHED, Corpus, PhotosConfig, missing_runs

NAMES = [*DATASETS, *UNTOUCHED.values()]


@pytest.fixture
def corpus(data_root, tmp_path):
    """Eight captioned photographs, and sentence embeddings that are random."""
    captions = load_captions(data_root / "flickr8k" / "captions_train.tsv").first(8)
    pool = build_pool(captions.captions, [[(1.0, "dog")]] * len(captions))
    torch.manual_seed(0)
    texts, names = torch.randn(len(pool.texts), 384), torch.randn(1000, 2, 384)
    backbone = Lite(pretrained=False)
    features = image_features(backbone, captions, folder=tmp_path / "features")
    return Corpus(
        captions=captions,
        features=features,
        pool=pool,
        texts=torch.nn.functional.normalize(texts, dim=-1),
        names=torch.nn.functional.normalize(names, dim=-1),
        held_out=captions,
        validation=(features, torch.nn.functional.normalize(texts[:8], dim=-1)),
    )


def of_seed(seed: int) -> PhotosConfig:
    config = PhotosConfig.of_seed(seed)
    return PhotosConfig(
        align=dataclasses.replace(config.align, epochs=1, batch_size=4),
        train=dataclasses.replace(config.train, steps=1, batch_size=4),
    )


def test_a_seed_is_evaluated_on_every_set_and_its_part(corpus, data_root, tmp_path, monkeypatch):
    def few(name):
        """An image that is in the set alone, and one that is in its part, too."""
        items, part = load_masked(name, data_root).items, load_masked(UNTOUCHED[name], data_root)
        return [next(item for item in items if item not in part.items), part.items[0]]

    items = {name: few(name) for name in UNTOUCHED}
    items |= {part: items[name][1:] for name, part in UNTOUCHED.items()}
    items["camvid"] = load_masked("camvid", data_root).items[:1]
    monkeypatch.setattr(
        photos,
        "load_masked",
        lambda name, root: dataclasses.replace(load_masked(name, root), items=items[name]),
    )
    embedded = []
    embed = photos.Model.windows
    monkeypatch.setattr(
        photos.Model, "windows", lambda self, image: embedded.append(image) or embed(self, image)
    )
    folders = {name: tmp_path / name for name in ("out", "work", "window_cache")}
    photos.run_seed(of_seed(0), corpus, data_root, **folders)
    table = read_results(tmp_path / "out" / "main.csv")
    assert len(embedded) == 2 * (2 + 2 + 1)  # A part takes what its set has embedded.
    lines = table.groupby(["variant", "unit", "metric"])["dataset"].agg(set)
    assert len(lines) == 2 * 2 * 2 and all(found == set(NAMES) for found in lines)
    assert table["value"].between(0, 100).all()
    value = table[table["metric"] == "accuracy"].groupby("dataset")["value"].agg(list)
    assert value["voc20-all"] != value["voc20"]
    record = read_run(tmp_path / "out", of_seed(0).run("mgca"))
    assert set(record["data"]) == {"flickr8k", *NAMES}

    monkeypatch.setattr(photos, "align", None)
    photos.run_seed(of_seed(0), corpus, data_root, **folders)


def test_a_run_is_missing_until_every_set_is_there():
    config = of_seed(0)
    rows = [
        {"run": config.run(variant), "dataset": name}
        for variant in ("alignment", "mgca")
        for name in NAMES
    ]
    table = pd.DataFrame(rows)
    assert missing_runs(config, table, NAMES) == []
    assert missing_runs(config, table.iloc[:-1], NAMES) == ["mgca"]
    assert missing_runs(config, table.iloc[1:-1], NAMES) == ["alignment", "mgca"]
    assert missing_runs(config, table.iloc[1:-1], NAMES[1:-1]) == []
    assert missing_runs(of_seed(1), table, NAMES) == ["alignment", "mgca"]


def test_parts_hold_none_of_the_images_that_settings_were_chosen_on(data_root):
    for name, part in UNTOUCHED.items():
        whole, untouched = (load_masked(n, data_root) for n in (name, part))
        assert untouched.source == whole.source and untouched.classes == whole.classes
        assert set(untouched.items) < set(whole.items)
    chosen_on = {identifier for identifier, _, _ in load_masked("voc21-extra", data_root).items}
    assert not chosen_on & {i for i, _, _ in load_masked("voc20", data_root).items}
