"""Objectives: found by their configuration, made of terms, and the same in both forms."""

import sys
from dataclasses import dataclass

import pytest
import torch

from mgca.config import LossConfig, ObjectiveConfig, TrainConfig, added
from mgca.losses import (
    MGCA,
    Objective,
    TCLConfig,
    TCLObjective,
    make_objective,
    mgca_loss,
    object_loss,
    objective,
    pixel_loss,
    region_loss,
)


def pairs(images=4, dim=6, side=5):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(images, dim, side, side, generator=generator)
    return pixels, torch.randn(images, dim, generator=generator)


def test_the_objective_follows_from_the_class_of_its_configuration():
    assert type(make_objective(TrainConfig().loss)) is MGCA
    assert type(make_objective(TCLConfig(contrast=0.0))) is TCLObjective
    assert make_objective(LossConfig(alpha=0.3)).config == LossConfig(alpha=0.3)


def test_a_configuration_without_an_objective_says_what_to_write():
    @dataclass(frozen=True, kw_only=True)
    class Unknown(ObjectiveConfig):
        pass

    with pytest.raises(ValueError, match="no objective is registered for .*: put @objective"):
        make_objective(Unknown())


def test_the_sum_is_that_of_the_weighted_levels():
    pixels, texts = pairs()
    config = LossConfig(object=0.5, pixel=2.0)
    losses = mgca_loss(pixels, texts, config)
    levels = {"object": object_loss, "region": region_loss, "pixel": pixel_loss}
    for name, loss in levels.items():
        assert torch.equal(losses[name], loss(pixels, texts))
    expected = 0.5 * losses["object"] + losses["region"] + 2 * losses["pixel"]
    torch.testing.assert_close(losses["total"], expected)
    assert set(losses) == {*MGCA.terms, "total"}
    assert set(mgca_loss(pixels, texts, LossConfig(region=0.0))) == {"object", "pixel", "total"}


def test_what_is_found_under_the_name_of_the_loss_is_what_trains(monkeypatch):
    pixels, texts = pairs()
    monkeypatch.setattr(MGCA, "forward", lambda self, *given, **options: {"total": self.config})
    assert mgca_loss(pixels, texts) == {"total": LossConfig()}
    assert make_objective(LossConfig())(pixels, texts) == {"total": LossConfig()}


def test_a_term_of_ones_own_is_weighted_by_its_field_or_by_one():
    @dataclass(frozen=True, kw_only=True)
    class Weighted(LossConfig):
        cosine: float = added(0.0)

    @objective(Weighted)
    class WithCosine(MGCA):
        def logits(self, pixels, texts, first=0):
            means = pixels.mean(dim=(2, 3)) @ texts.t()
            return super().logits(pixels, texts, first) | {"cosine": means, "other": 2 * means}

    pixels, texts = pairs()
    losses = make_objective(Weighted(cosine=3.0))(pixels, texts)
    expected = mgca_loss(pixels, texts)["total"] + 3 * losses["cosine"] + losses["other"]
    torch.testing.assert_close(losses["total"], expected)


def test_an_objective_that_states_nothing_says_so():
    with pytest.raises(NotImplementedError, match="Objective states no logits"):
        Objective(LossConfig())(*pairs())


def test_large_batches_take_the_lean_form():
    """As the scales need it: scenes and photographs plain, the paper's batch lean."""
    forms = {size: MGCA().is_lean(*size) for size in [(32, 196), (64, 784), (1024, 784)]}
    assert list(forms.values()) == [False, False, True]
    assert not MGCA().is_lean(256, 1024) and MGCA().is_lean(257, 1024)  # 256 MiB, and more
    assert MGCA(budget=2**20).is_lean(2, 4) and not MGCA(lean=False).is_lean(1024, 784)


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(measure="cosine", detach_weights=True, direction="image", k_neg=0.25),
        LossConfig(object=0.0, region=0.0),
    ],
)
def test_both_forms_agree(config):
    assert MGCA(config).forms_agree(8, 6, 6)


@pytest.mark.parametrize("level", ["object", "region", "pixel"])
def test_a_level_that_was_changed_in_one_form_alone_is_noticed(level, monkeypatch):
    changed = sys.modules[MGCA.__module__]  # the decorator has the module's name
    stated = getattr(changed, f"{level}_logits")
    monkeypatch.setattr(changed, f"{level}_logits", lambda *a, **o: 1.01 * stated(*a, **o))
    assert not MGCA().forms_agree(8, 6, 6)
    monkeypatch.setattr(changed, f"{level}_logits", lambda *a, **o: stated(*a, **o).detach())
    assert not MGCA().forms_agree(8, 6, 6), "the gradient alone"


def test_half_precision_does_not_reach_the_similarities():
    pixels, texts = pairs()
    with torch.autocast("cpu", torch.bfloat16):
        inside = mgca_loss(pixels, texts)["object"]
    assert torch.equal(inside, mgca_loss(pixels, texts)["object"])
    half = mgca_loss(pixels.bfloat16(), texts)["total"]
    assert torch.equal(half, mgca_loss(pixels.bfloat16().float(), texts)["total"])
