"""The head's objective: the levels on what is learned, the contrast of images, and the classes."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from mgca.losses import mgca_loss
from mgca.losses.head import HeadConfig
from mgca.losses.objective import make_objective

NONE = {"object": 0.0, "region": 0.0, "pixel": 0.0}


@pytest.fixture
def batch():
    """Pixel embeddings of 6 learned channels and 5 classes, texts, and a backbone with classes."""
    torch.manual_seed(0)
    pixels = torch.randn(3, 11, 4, 5, dtype=torch.float64)
    pixels[:, 6:] = 0
    pixels[:, 6:, ::2, ::4] = torch.rand(3, 5, 2, 2, dtype=torch.float64)
    texts = torch.randn(3, 11, dtype=torch.float64)
    classes = F.normalize(torch.randn(5, 6, dtype=torch.float64), dim=1)
    return pixels, texts, SimpleNamespace(name="b", class_texts=classes, temperature=0.1)


def losses(config: HeadConfig, batch) -> dict[str, torch.Tensor]:
    pixels, texts, backbone = batch
    made = make_objective(config)
    made.prepare(backbone)
    return made(pixels, texts)


def test_levels_are_those_of_mgca_on_the_learned_channels(batch):
    pixels, texts, _ = batch
    ours = losses(HeadConfig(classes=0.0), batch)
    theirs = mgca_loss(pixels[:, :6], F.normalize(texts[:, :6], dim=1))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)


def test_image_level_is_the_contrast_of_means_with_captions(batch):
    pixels, texts, _ = batch
    ours = losses(HeadConfig(**NONE, image=2.0, classes=0.0, direction="image"), batch)
    logits = torch.stack(
        [
            torch.stack([torch.cosine_similarity(p.mean((1, 2))[:6], t[:6], dim=0) for t in texts])
            for p in pixels
        ]
    )
    expected = F.cross_entropy(logits / 0.07, torch.arange(3))
    torch.testing.assert_close(ours["image"], expected)
    torch.testing.assert_close(ours["total"], 2 * expected)


def test_classes_are_compared_where_they_are_known(batch):
    pixels, _, backbone = batch
    ours = losses(HeadConfig(**NONE, image=1.0, classes=0.5), batch)
    terms = []
    for image in pixels:
        for y in (0, 2):
            for x in (0, 4):
                here, roots = image[:6, y, x], image[6:, y, x]
                similar = torch.cosine_similarity(here, backbone.class_texts) / 0.1
                terms.append(-(roots**2 / (roots**2).sum() * similar.log_softmax(0)).sum())
    torch.testing.assert_close(ours["classes"], torch.stack(terms).mean())
    torch.testing.assert_close(ours["total"], ours["image"] + 0.5 * ours["classes"])


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="b has no head that is trained: only lite has"):
        make_objective(HeadConfig()).prepare(SimpleNamespace(name="b"))
    with pytest.raises(ValueError, match="nor all zero"):
        HeadConfig(**NONE)
    with pytest.raises(ValueError, match="must not be negative"):
        HeadConfig(classes=-1.0)
