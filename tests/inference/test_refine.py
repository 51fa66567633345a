"""PAMR, against its definition computed pixel by pixel, and through a model."""

import dataclasses
import math

import pytest
import torch
from tiny import TinyBackbone

from mgca.config import SegmentConfig
from mgca.inference.refine import DILATIONS, pamr
from mgca.model import Model


def by_hand(image: torch.Tensor, masks: torch.Tensor, dilations, iterations: int) -> torch.Tensor:
    """Each pixel in turn: the softmax over its neighbours of their likeness, and their mean."""
    channels, height, width = image.shape

    def inside(y: int, x: int) -> tuple[int, int]:
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    for _ in range(iterations):
        out = torch.zeros_like(masks)
        for y in range(height):
            for x in range(width):
                steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
                all_ = [inside(y + d * a, x + d * b) for d in dilations for a, b in steps]
                near = [
                    inside(y + d * a, x + d * b)
                    for d in dilations
                    for a, b in steps
                    if (a, b) != (0, 0)
                ]
                likeness = []
                for place in near:
                    terms = []
                    for c in range(channels):
                        around = torch.stack([image[(c, *p)] for p in all_])
                        sigma = around.std(correction=1)
                        difference = (image[c, y, x] - image[(c, *place)]).abs()
                        terms.append(-difference / (1e-8 + 0.1 * sigma))
                    likeness.append(sum(terms) / channels)
                weights = torch.stack(likeness).softmax(0)
                for weight, (i, j) in zip(weights, near, strict=True):
                    out[:, y, x] += weight * masks[:, i, j]
        masks = out
    return masks


def test_pamr_is_what_its_definition_says():
    torch.manual_seed(0)
    image = torch.rand(3, 5, 4, dtype=torch.float64)
    masks = torch.rand(2, 5, 4, dtype=torch.float64).softmax(dim=0)
    refined = pamr(image, masks, iterations=2, dilations=(1, 2))
    torch.testing.assert_close(refined, by_hand(image, masks, (1, 2), 2))
    torch.testing.assert_close(refined.sum(0), torch.ones(5, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="the image is"):
        pamr(image, masks[:, 1:])


def test_a_mask_ends_where_the_colour_does():
    """Half the image is bright; scores that overlap the edge by three pixels are drawn back."""
    image = torch.zeros(3, 40, 40)
    image[:, :, 20:] = 1
    bright = torch.zeros(40, 40)
    bright[:, 17:] = 1
    refined = pamr(image, torch.stack([1 - bright, bright]))
    assert refined.argmax(0).eq(image[0].long()).all()
    assert math.isclose(float(refined.sum(0).std()), 0, abs_tol=1e-5) and max(DILATIONS) == 24


def test_segments_are_refined_when_asked():
    classes, photo = ["red", "green", "blue"], torch.rand(3, 40, 60)
    model = Model(TinyBackbone(), config=SegmentConfig(short_side=32, window=32, stride=16))
    plain, same = (model.segment(photo, classes, refine=each) for each in (None, ""))
    refined = model.segment(photo, classes, refine="pamr")
    assert torch.equal(plain.labels, same.labels)
    assert refined.labels.shape == plain.labels.shape and refined.classes == plain.classes
    torch.testing.assert_close(refined.scores.sum(0), torch.ones(plain.labels.shape))
    model.config = dataclasses.replace(model.config, refine="pamr")
    assert torch.equal(model.segment(photo, classes).scores, refined.scores)
    with pytest.raises(ValueError, match="refine must be one of , pamr, not 'crf'"):
        model.segment(photo, classes, refine="crf")
