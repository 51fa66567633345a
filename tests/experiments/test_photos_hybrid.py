"""The hybrid on photographs: from captions to a results table, on a handful of real images."""

import dataclasses

import pytest
import torch

from mgca.backbone.hybrid import HybridConfig
from mgca.data.captions import load_captions
from mgca.data.masks import load_masked
from mgca.data.texts import build_pool
from mgca.evaluation.results import read_results, read_run
from mgca.experiments import photos_hybrid
from mgca.experiments.photos import Corpus
from mgca.experiments.photos_hybrid import HybridRun


@pytest.fixture
def small(data_root, monkeypatch):
    """Eight captioned photographs, one street scene and a transformer of one block."""
    captions = load_captions(data_root / "flickr8k" / "captions_train.tsv").first(8)
    pool = build_pool(captions.captions, [[(1.0, "dog")]] * len(captions))
    texts = torch.nn.functional.normalize(torch.randn(len(pool.texts), 384), dim=-1)
    held_out = load_captions(data_root / "flickr8k" / "captions_val.tsv").first(2)
    corpus = Corpus(
        captions=captions,
        features=None,
        pool=pool,
        texts=texts,
        names=None,
        held_out=held_out,
        validation=(None, texts[:2]),
    )
    full = HybridRun.of_seed

    def of_seed(seed):
        run = full(seed)
        sizes = HybridConfig(dim=8, width=16, layers=2, heads=1)
        clip = dataclasses.replace(run.clip, sizes=sizes, epochs=1, batch_size=4)
        train = dataclasses.replace(run.train, steps=2, batch_size=4)
        return HybridRun(clip=clip, train=train)

    monkeypatch.setattr(HybridRun, "of_seed", of_seed)
    monkeypatch.setattr(photos_hybrid, "DATASETS", ("camvid",))
    monkeypatch.setattr(
        photos_hybrid, "load_masked", lambda name, root: load_masked(name, root).first(1)
    )
    return corpus


def test_a_seed_is_trained_evaluated_and_not_run_again(small, data_root, tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("out", "work", "cache")}
    photos_hybrid.run_seed(0, small, data_root, **folders)
    table = read_results(tmp_path / "out" / "hybrid.csv")
    assert set(table["variant"]) == {"hybrid", "hybrid maskclip", "hybrid mgca"}
    assert set(table["unit"]) == {"pixel", "36"} and set(table["dataset"]) == {"camvid"}
    assert table["value"].between(0, 100).all()
    record = read_run(tmp_path / "out", table["run"].iloc[0])
    assert set(record["data"]) == {"flickr8k", "camvid"} and "R@1" in record["clip"]
    # Value-only features are other features than those of the trained attention.
    miou = table[table["metric"] == "accuracy"].set_index(["variant", "unit"])["value"]
    assert miou["hybrid", "pixel"] != miou["hybrid maskclip", "pixel"]

    monkeypatch.setattr(photos_hybrid, "train_clip", None)
    photos_hybrid.run_seed(0, small, data_root, **folders)


def test_the_seed_is_that_of_both_trainings():
    run = HybridRun.of_seed(2)
    assert (run.clip.seed, run.train.seed) == (2, 2)
    assert run.train.backbone == photos_hybrid.NAME
