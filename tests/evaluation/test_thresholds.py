"""The curve over thresholds is what evaluating anew at each threshold gives."""

import numpy as np
import pytest
from PIL import Image
from tiny import TinyBackbone

from mgca.data.masks import Masked
from mgca.evaluation.evaluate import evaluate, unit_name
from mgca.evaluation.thresholds import choose, threshold_curve
from mgca.model import Model

CLASSES = ("red", "green", "blue")


@pytest.fixture
def things(tmp_path) -> Masked:
    generator = np.random.default_rng(0)
    items = []
    for number, size in enumerate([(60, 80), (50, 40)]):
        image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        mask = generator.integers(0, 3, size, dtype=np.uint8)  # class 3 does not occur
        mask[:3] = 255
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
        for path, array in zip(paths, (image, mask), strict=True):
            Image.fromarray(array).save(path)
        items.append((str(number), *paths))
    return Masked("things", items, CLASSES, 0, "digest", background=True)


def test_the_curve_is_evaluating_at_each_threshold(things):
    model = Model(TinyBackbone())
    thresholds, temperatures, units = np.array([0, 0.35, 0.4, 0.5, 1]), (0.3, 1.0), (None, 16)
    curve = threshold_curve(model, things, units, temperatures, thresholds)
    assert len(curve) == 20
    assert curve["miou"].nunique() > 8
    for row in curve.itertuples():
        unit = None if row.unit == "pixel" else int(row.unit)
        found = evaluate(
            model, things, (unit,), background=row.threshold, temperature=row.temperature
        )
        assert row.miou == pytest.approx(found[unit_name(unit)].miou, abs=1e-3)


def test_a_set_without_background_has_no_threshold(things):
    whole = things.without_background("others")
    with pytest.raises(ValueError, match="others has no background"):
        threshold_curve(Model(TinyBackbone()), whole)


def test_one_pair_is_chosen_for_all_lines(things):
    model = Model(TinyBackbone())
    thresholds = np.array([0, 0.35, 0.4, 0.5])
    curve = threshold_curve(model, things, (None, 16), (0.3, 1.0), thresholds)
    threshold, temperature, mean = choose(curve)
    means = {
        (t, h): np.mean([row.miou for row in rows.itertuples()])
        for (t, h), rows in curve.groupby(["temperature", "threshold"])
    }
    assert mean == pytest.approx(max(means.values()))
    assert means[temperature, threshold] == pytest.approx(mean)
