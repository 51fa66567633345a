"""Evaluation: counts as by hand, one pass for all units, and features kept for another decoder."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import SIZES, counts_of, full_disk, load, tiny
from PIL import Image
from tiny import TinyBackbone

from mgca.data.masks import DataError, Masked
from mgca.decoder import GatedConvDecoder
from mgca.evaluation import evaluate as loop
from mgca.evaluation.evaluate import State, evaluate, measure, result_rows, unit_name
from mgca.evaluation.metrics import Confusion, Contours
from mgca.inference.scoring import rules
from mgca.model import Model
from mgca.utils.processes import threads

CLASSES = ("red", "green", "blue")


@pytest.fixture
def masked(tmp_path):
    generator = np.random.default_rng(0)
    items = []
    for number, (height, width) in enumerate([(60, 80), (90, 50), (33, 47)]):
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        mask = generator.integers(0, 3, (height, width), dtype=np.uint8)
        mask[:3] = 255
        paths = tmp_path / f"{number}.png", tmp_path / f"{number}-mask.png"
        for path, array in zip(paths, (image, mask), strict=True):
            Image.fromarray(array).save(path)
        items.append((str(number), *paths))
    return Masked("colours", items, CLASSES, 0, "digest")


def decoder_of(seed: int) -> GatedConvDecoder:
    torch.manual_seed(seed)
    decoder = GatedConvDecoder(16)
    for block in decoder.blocks:
        torch.nn.init.constant_(block.gate, 0.5)
    return decoder


def by_hand(model: Model, masked: Masked, unit: int | None) -> np.ndarray:
    counts = np.zeros((3, 3), dtype=int)
    for _, image, mask in masked:
        labels = model.segment(image, CLASSES, unit).labels.numpy()
        for true in range(3):
            for predicted in range(3):
                counts[true, predicted] += int(((mask == true) & (labels == predicted)).sum())
    return counts


def test_units_are_named_as_in_the_tables():
    assert (unit_name(None), unit_name(36)) == ("pixel", "36")


def test_counts_are_those_of_segmenting_each_image(masked):
    model = Model(TinyBackbone(), decoder_of(0))
    confusions = evaluate(model, masked, (None, 16))
    assert list(confusions) == ["pixel", "16"]
    for unit, name in ((None, "pixel"), (16, "16")):
        assert np.array_equal(confusions[name].counts, by_hand(model, masked, unit))
    assert not np.array_equal(confusions["pixel"].counts, confusions["16"].counts)


def test_kept_features_serve_another_decoder(masked, tmp_path, monkeypatch):
    first = Model(TinyBackbone(), decoder_of(0))
    before = evaluate(first, masked, features=tmp_path / "cache")
    again = evaluate(first, masked, features=tmp_path / "cache")
    second = Model(TinyBackbone(), decoder_of(1))
    plain = evaluate(second, masked)
    # From here on every feature has to come from the cache.
    monkeypatch.setattr(TinyBackbone, "features", lambda *_: pytest.fail("computed again"))
    other = evaluate(second, masked, features=tmp_path / "cache")
    assert np.array_equal(before["pixel"].counts, again["pixel"].counts)
    difference = np.abs(other["pixel"].counts - plain["pixel"].counts).sum()
    assert difference < 0.01 * plain["pixel"].counts.sum()  # features are kept in half precision
    assert not np.array_equal(other["pixel"].counts, before["pixel"].counts)


def test_features_of_other_threads_are_kept_apart(masked, tmp_path):
    """Their last bits are others, and a run must not read what it would not compute."""
    for number in (1, 2, 1):
        with threads(number):
            evaluate(Model(TinyBackbone()), masked, (), features=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_without_units_features_are_only_kept(masked, tmp_path, monkeypatch):
    model = Model(TinyBackbone())
    plain = evaluate(model, masked, (16,))
    assert evaluate(model, masked, (), features=tmp_path / "cache") == {}
    assert len(list((tmp_path / "cache").glob("*/*.npy"))) == len(masked)
    monkeypatch.setattr(TinyBackbone, "features", lambda *_: pytest.fail("computed again"))
    kept = evaluate(model, masked, (16,), features=tmp_path / "cache")
    assert kept["16"].counts.sum() == plain["16"].counts.sum()


@pytest.fixture
def with_background(masked):
    """The same images and masks, whose ids now are the background, red and green."""
    return dataclasses.replace(masked, background=True)


def test_a_background_is_what_no_class_is_probable_in(with_background):
    model = Model(TinyBackbone(), decoder_of(0))
    options = {"background": 0.45, "temperature": 0.5}
    confusions = evaluate(model, with_background, (None, 16), **options)
    for unit, name in ((None, "pixel"), (16, "16")):
        expected = np.zeros((4, 4), dtype=int)
        for _, image, mask in with_background:
            cosines = model.segment(image, CLASSES, unit).scores
            most, best = (cosines / 0.5).softmax(dim=0).max(dim=0)
            labels = torch.where(most > 0.45, 1 + best, 0).numpy()
            np.add.at(expected, (mask[mask != 255], labels[mask != 255]), 1)
        found = confusions[name].counts
        assert found.shape == (4, 4) and not found[3].any()  # no pixel is blue
        assert np.abs(found - expected).sum() <= 1e-3 * expected.sum()
        assert found[:, 0].sum() > 0 and found[:, 1:].sum() > 0
    other = evaluate(model, with_background, (None,), background=0.45, temperature=0.1)
    assert not np.array_equal(other["pixel"].counts, confusions["pixel"].counts)


@pytest.mark.parametrize("threshold, background", [(0.0, False), (1.0, True)])
def test_the_extremes_of_the_threshold(with_background, threshold, background):
    for confusion in evaluate(
        Model(TinyBackbone()), with_background, background=threshold
    ).values():
        predicted = confusion.counts.sum(axis=0)
        assert predicted.sum() > 0
        assert (predicted[0] > 0, predicted[1:].any()) == (background, not background)


@pytest.mark.parametrize("units", [(None, 16), ()])
def test_a_set_with_a_background_asks_for_the_threshold(with_background, units):
    with pytest.raises(ValueError, match="colours has a background: give the threshold"):
        evaluate(Model(TinyBackbone()), with_background, units, temperature=0.1)


def test_a_set_without_takes_no_notice_of_it(masked):
    model = Model(TinyBackbone(), decoder_of(0))
    plain = evaluate(model, masked)
    given = evaluate(model, masked, background=0.9, temperature=3.0)
    for name, confusion in plain.items():
        assert np.array_equal(given[name].counts, confusion.counts)


class Noted:
    """A counter that keeps what it is given."""

    tables = ()

    def __init__(self) -> None:
        self.maps = []

    def add(self, predicted, truth) -> None:
        self.maps.append((predicted, truth))


@pytest.mark.parametrize("background", [False, True])
def test_counters_are_given_labels_and_truth_of_each_image(masked, background):
    masked = dataclasses.replace(masked, background=background)
    noted = {unit: [Noted(), Noted()] for unit in ("pixel", "16")}
    confusions = evaluate(
        Model(TinyBackbone(), decoder_of(0)),
        masked,
        (None, 16),
        background=0.4,
        counters={**noted, "36": [Noted()]},
    )
    for unit, (first, second) in noted.items():
        again = Confusion(3 + background)
        for (labels, truth), (_, _, expected) in zip(first.maps, masked, strict=True):
            assert np.array_equal(truth, expected) and labels.shape == truth.shape
            again.add(labels, truth)
        assert np.array_equal(again.counts, confusions[unit].counts)
        assert len(second.maps) == len(masked)


def test_a_mask_that_does_not_fit_is_named(masked):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(masked.items[1][2])
    with pytest.raises(DataError, match=r"1-mask\.png: the mask is \(5, 5\)"):
        evaluate(Model(TinyBackbone()), masked)


def test_rows_of_the_results_table():
    confusion = Confusion(2)
    confusion.add(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    rows = result_rows({"36": confusion}, variant="v", dataset="d", seed=2, run="r")
    shared = {"variant": "v", "dataset": "d", "unit": "36", "seed": 2, "run": "r"}
    miou = 100 * (2 / 3 + 1 / 2) / 2
    assert rows == [
        shared | {"metric": "miou", "value": round(miou, 3)},
        shared | {"metric": "accuracy", "value": 75.0},
    ]


def test_sets_of_the_same_images_embed_them_once(masked):
    model = Model(TinyBackbone(), decoder_of(0))
    embedded = []
    embed = model.embed
    model.embed = lambda image: embedded.append(image) or embed(image)
    # Class 0 as the background of the one, and ignored in the other.
    things = dataclasses.replace(masked, name="things", classes=CLASSES[1:], background=True)
    others = things.without_background("others")
    assert things.source == others.source == masked.source == "colours"
    plain = [evaluate(model, s, (None, 16), background=0.4) for s in (things, others)]
    kept, embedded[:] = {}, []
    shared = [evaluate(model, s, (None, 16), background=0.4, kept=kept) for s in (things, others)]
    assert len(embedded) == len(masked)
    for ours, theirs in zip(shared, plain, strict=True):
        assert all(np.array_equal(ours[unit].counts, theirs[unit].counts) for unit in theirs)
    assert plain[0]["pixel"].counts.sum() > plain[1]["pixel"].counts.sum()


def test_every_rule_with_a_threshold_of_its_own_is_measured(masked, with_background):
    model = Model(TinyBackbone(), decoder_of(0))
    options = {"background": 0.4, "temperature": 0.5}
    plain = measure(model, with_background, (None, 16), background=options)
    model.scoring = rules((4.0, -0.5))
    rows = measure(model, with_background, (None, 16), background=options)
    expected = evaluate(model, with_background, (None, 16), background=0.5, rule="sigmoid")
    added = [row for row in rows if row not in plain]
    assert added == [
        {"dataset": "colours", "unit": unit, "metric": "miou_sigmoid", "value": round(c.miou, 3)}
        for unit, c in expected.items()
    ]
    assert [row for row in rows if row in plain] == plain
    # Without a background the rules differ in nothing that a table could say.
    assert measure(model, masked, (None,)) == measure(
        Model(TinyBackbone(), decoder_of(0)), masked, (None,)
    )


# Reading ahead, and going on


def test_workers_count_the_same_and_draw_nothing(folders):
    data = load(folders)
    alone = evaluate(tiny(), data, (None,))
    model = tiny()
    before = torch.get_rng_state()
    assert counts_of(evaluate(model, data, (None,), workers=2)) == counts_of(alone)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_keeps_its_message_and_what_was_counted(folders, workers):
    mask = np.zeros(SIZES[3], np.uint8)
    mask[5, 5] = 4
    Image.fromarray(mask).save(folders / "masks" / "3.png")
    state = State(folders / "counted.npz")
    with pytest.raises(DataError) as caught:
        evaluate(tiny(), load(folders), (None,), state=state, workers=workers)
    path = folders / "masks" / "3.png"
    assert str(caught.value).startswith(f"{path}: id 4 is not one of the 4 classes of images")
    with np.load(folders / "counted.npz") as kept:
        assert kept["done"] == 3 and kept["pixel 0 counts"].sum() > 0
        assert kept["seconds"] > 0


def interrupt_at(line: int, seen: list[int]):
    """A trace function that raises where the loop comes to its so manieth line."""

    def trace(frame, event, argument):
        if Path(frame.f_code.co_filename) != Path(loop.__file__):
            return None
        if event == "line":
            seen[0] += 1
            if seen[0] == line:
                raise KeyboardInterrupt
        return trace

    return trace


def test_going_on_from_any_line(folders, embedded):
    data = load(folders).first(3)
    model = tiny()

    def test(name: str, line: int = -1) -> tuple[dict, int]:
        seen, before = [0], sys.gettrace()
        state = State(folders / f"{name}.npz")
        contours = {unit: [Contours(4)] for unit in ("pixel", "4")}
        sys.settrace(interrupt_at(line, seen))
        try:
            found = evaluate(model, data, (None, 4), state=state, counters=contours)
        finally:
            sys.settrace(before)
        values = {unit: counters[0].boundary_iou for unit, counters in contours.items()}
        return (counts_of(found), values), seen[0]

    expected, lines = test("whole")
    assert lines > 100
    kept = set()
    for line in range(1, lines + 1, 5):
        with pytest.raises(KeyboardInterrupt):
            test(str(line), line)
        path = folders / f"{line}.npz"
        done = 0
        if path.is_file():
            with np.load(path) as counted:
                done = int(counted["done"])
        kept.add(done)
        embedded.clear()
        assert test(str(line))[0] == expected
        assert embedded == SIZES[done:3]
    assert kept == {0, 1, 2, 3}


def test_what_was_counted_is_saved_now_and_then(folders, monkeypatch):
    saved = []
    monkeypatch.setattr(loop, "_SAVE_EVERY", 0.0)
    save = State.save
    monkeypatch.setattr(State, "save", lambda self: saved.append(self._counted[0]) or save(self))
    evaluate(tiny(), load(folders), (None,), state=State(folders / "counted.npz"))
    assert saved == [1, 2, 3, 4, 5, 5]


def test_a_state_that_cannot_be_written(folders, monkeypatch):
    monkeypatch.setattr(loop, "_SAVE_EVERY", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", full_disk)
        with pytest.raises(OSError, match=r"cannot write .*counted\.npz: No space left on device"):
            evaluate(tiny(), load(folders), (None,), state=State(folders / "counted.npz"))
    assert not (folders / "counted.npz").exists()
