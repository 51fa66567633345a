"""The head of lite through the trainer: it learns, resumes to the bit, and is what is written."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from tiny import Hashes, TinyBackbone
from torch.nn import functional as F

from mgca.backbone.lite import Lite
from mgca.data.texts import build_pool
from mgca.training.runs import head_training
from mgca.training.sources import Cached
from mgca.training.trainer import Stopped, Trainer
from mgca.weights import read_tensors

STEPS = 12


@pytest.fixture
def start():
    """A ``lite`` with a random alignment, and 16 captioned images whose features are noise."""
    torch.manual_seed(0)
    backbone = Lite(pretrained=False)
    features = torch.rand(16, 1280, 3, 4).half().numpy()
    pool = build_pool([[f"number {i} is a cat"] for i in range(16)], [[(1.0, "cat")]] * 16)
    sentences = F.normalize(torch.randn(len(pool.texts), 384), dim=1)
    classes = F.normalize(torch.randn(1000, 384), dim=1)
    backbone.set_alignment(text_centre=sentences.mean(0), class_texts=classes)
    return backbone, Cached(features, pool, backbone.from_sentences(sentences))


def config(**values):
    return dataclasses.replace(
        head_training(), captions="original", batch_size=8, steps=STEPS, **values
    )


def trained(start, folder, on_step=None) -> dict[str, torch.Tensor]:
    backbone, data = start
    Trainer(config(), backbone, data).run(folder, on_step=on_step)
    return {key: value.clone() for key, value in backbone.alignment().items()}


def test_a_head_learns_resumes_and_is_written(start, tmp_path):
    before = {key: value.clone() for key, value in start[0].alignment().items()}
    losses = []
    whole = trained(start, tmp_path / "whole", lambda row: losses.append(row["total"]))
    # Two steps are an epoch: the same images.
    assert sum(losses[-2:]) < sum(losses[:2]) and len(losses) == STEPS
    assert not torch.equal(whole["weight"], before["weight"])
    assert torch.equal(whole["class_texts"], before["class_texts"])
    state, meta = read_tensors(tmp_path / "whole" / "alignment.safetensors")
    assert all(torch.equal(state[key], whole[key].half().float()) for key in state)
    assert float(meta["temperature"]) == start[0].temperature

    start[0].set_alignment(**before)

    def interrupted(row):
        if row["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        trained(start, tmp_path / "parts", interrupted)
    again = trained(start, tmp_path / "parts")
    assert all(torch.equal(again[key], whole[key]) for key in whole)


def test_what_has_no_head_is_refused(start):
    backbone = TinyBackbone()
    pool = build_pool([["a cat"]] * 8)
    data = Cached(np.zeros((8, 3, 4, 4), np.float16), pool, Hashes()(pool.texts))
    with pytest.raises(ValueError, match="part='head' is for the backbone lite"):
        Trainer(config(backbone=backbone.name), backbone, data)
    with pytest.raises(ValueError, match="hold_mean=false"):
        Trainer(config(hold_mean=True), *start)
