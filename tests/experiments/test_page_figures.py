"""Figures of single pages: that they draw what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import mgca
from mgca.data.scenes import CLASSES, TEST_SEED, WorldConfig, compose, evaluation_set, sentences
from mgca.data.scenes.scene import TELLING, random
from mgca.experiments.report import (
    figures,
    level_figures,
    overlays,
    page_figures,
    truth,
    unit_steps,
    world,
)
from mgca.experiments.scenes import ScenesScale

WORDS = ("sand", "boat", "tree")
MARKS = {"easy": ("C0", "o"), "semi-hard": ("C1", "*"), "hardest": ("C2", "s")}


@pytest.fixture(autouse=True)
def own_style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    return mgca.load("scenes", config=ScenesScale().segment())


def picture(side=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def halves(side=8):
    labels = np.zeros((side, side), int)
    labels[: side // 4] = 1
    return labels


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def names(legend):
    return [text.get_text() for text in legend.texts]


def test_a_photograph_stands_beside_its_segmentations(model):
    _, scene, _ = evaluation_set("scenes", 1, seed=TEST_SEED)[0]
    embedded = model.embed(scene)
    results = {title: model.segment(embedded, WORDS, n) for title, n in (("a", None), ("b", 36))}
    large = page_figures.photo_row("a scene", results, large=True)
    assert len(large.axes) == 4 and large.axes[-1].get_legend() is not None
    figure = page_figures.photo_row("a scene", results)
    assert titles(figure) == ["a scene", "a", "b"]
    assert (figure.axes[0].images[0].get_array() == np.asarray(scene)).all()
    assert (figure.axes[2].images[0].get_array() == overlays.coloured(results["b"])).all()
    assert names(figure.legends[0]) == list(WORDS)


def test_outlined_maps_have_one_scale_if_it_has_a_name():
    rows = [{"a": drawn(4, 4), "b": 5 * drawn(4, 4, seed=1)}]
    figure = page_figures.outlined(rows, [halves() == 1], 2.5)
    assert titles(figure) == ["a", "b"]
    first, second = (axis.images[0] for axis in figure.axes)
    assert first.get_clim() != second.get_clim()
    assert first.get_extent() == [0, 8, 8, 0]
    *axes, bar = page_figures.outlined(rows, [halves() == 1], 2.5, colorbar="mean").axes
    reach = rows[0]["b"].abs().max().item()
    assert [axis.images[0].get_clim() for axis in axes] == [pytest.approx((-reach, reach))] * 2
    assert all(len(axis.collections) == 2 for axis in axes)
    assert bar.get_xlabel() == "mean"


def test_lines_of_granularity():
    answers = pd.DataFrame({"image": [90, 80], "pixel": [20, 50]}, index=["CLIP", "all"])
    (axis,) = page_figures.granularity_lines(answers).axes
    assert names(axis.get_legend()) == ["CLIP", "all"]
    assert axis.lines[1].get_ydata().tolist() == [80, 50]


def test_words_of_what_is_not_there_are_grey():
    labels = halves() * 2  # tree, which is not in the mask
    named_by = {"pixels": labels, "units": halves(), "groups": halves()}
    figure = page_figures.named_pieces(picture(), halves(), named_by, WORDS)
    scene, mask, legend, named = figure.axes[:4]
    assert [axis.get_title() for axis in (scene, mask, named)] == ["scene", "truth", "pixels"]
    # The largest content first.
    assert names(legend.get_legend()) == ["sand", "boat", "not in the scene"]
    shown = np.asarray(named.images[0].get_array())
    assert (shown[0, 0] == 220).all()
    assert not (mask.images[0].get_array() == 220).all(axis=-1).any()


def test_photographs_have_a_row_each(model):
    photographs = [(np.asarray(picture(112, seed)), WORDS[seed:]) for seed in (0, 1)]
    figure = page_figures.photographs_by_unit(model, photographs, {"4": 4, "pixels": None})
    assert titles(figure) == ["4", "pixels", "", ""]
    assert [names(part.legends[0]) for part in figure.subfigs] == [list(WORDS), list(WORDS[1:])]


def test_pairs_are_chosen_by_similarity():
    image, scores = picture(28), drawn(4, 49)
    hardness = torch.eye(4) + torch.tensor([[0, 0.1, 0.3, 0.2]] * 4)  # the third is hardest
    captions = ["a", "b", "c", "d"]
    figure = page_figures.choice_of_pairs(image, captions, scores, hardness, 1, (10, 3), 2)
    assert titles(figure) == [
        "image 1",
        "own caption",
        "object, pixel",
        "hard regions",
        "caption 2",
        "hard region, pixel",
    ]
    _, own, positive, frame, other, negative = figure.axes
    assert np.allclose(own.images[0].get_array(), scores[1].view(7, 7))
    assert np.allclose(other.images[0].get_array(), scores[2].view(7, 7))
    assert own.images[0].get_clim() == other.images[0].get_clim()
    assert (frame.lines[0].get_xdata()[0], frame.lines[0].get_ydata()[0]) == (2, 1)
    # The pixel of rank 2 of its own caption, and the first of the other's.
    for axis, pixel in ((positive, scores[1].topk(2).indices[1]), (negative, scores[2].argmax())):
        place = (4 * (pixel % 7) + 2, 4 * (pixel // 7) + 2)
        assert axis.lines[0].get_xydata()[0].tolist() == list(place)
    bright = overlays.dimmed(image, scores[1].topk(10).indices, 7)
    assert (positive.images[0].get_array() == bright).all()


def test_a_patch_is_marked_in_every_panel():
    attention, embeddings = torch.rand(16), {"a": drawn(16, 5), "b": drawn(16, 5, seed=1)}
    scene = (picture(), halves() == 1, "boat")
    figure = page_figures.attention_of_patch(*scene, 6, attention, embeddings)
    *axes, _ = figure.axes
    assert titles(figure)[3:6] == ["its content: boat", "alike, a", "alike, b"]
    for axis in axes:
        assert axis.lines[0].get_xydata().tolist() == [[5, 3]]
    assert np.allclose(axes[1].images[0].get_array(), attention.view(4, 4))
    cosines = axes[5].images[0].get_array().ravel()
    assert cosines[6] == pytest.approx(1)
    expected = torch.cosine_similarity(embeddings["b"][6], embeddings["b"][9], dim=0).item()
    assert cosines[9] == pytest.approx(expected, abs=1e-6)


def test_positions_are_compared_with_the_middle():
    grids = [drawn(4, 3), drawn(16, 3)]
    lines = {"as they are": {56: 10, 112: 40}, "set to 0": {56: 9, 112: 30}}
    first, second, axis = page_figures.positions(grids, lines, 8).axes
    assert first.images[0].get_array().ravel()[3] == pytest.approx(1)
    assert second.images[0].get_array().ravel()[10] == pytest.approx(1)
    assert axis.lines[1].get_ydata().tolist() == [9, 30]
    assert names(axis.get_legend()) == list(lines)


def test_gates_open_from_zero():
    curve = pd.DataFrame(
        {"gate 1": [0.1, 0.2], "gate 2": [-0.1, -0.2], "a": [1, 2], "b": [0, 3], "c": [0.0, 4]},
        index=[1, 2],
    )
    gates, gradients = page_figures.opening_gates(curve, ("a", "b", "c")).axes
    assert gates.lines[0].get_ydata() == pytest.approx([0, *np.tanh([0.1, 0.2])])
    assert np.isnan(gradients.lines[1].get_ydata()[0])  # a zero is not on a logarithmic axis
    assert names(gradients.get_legend()) == ["a", "b", "c"]


def test_maps_beside_a_scene_have_one_scale():
    maps = {"nearest": drawn(4, 4), "bilinear": 2 * drawn(4, 4, seed=1)}
    figure = page_figures.scene_and_maps(picture(), maps, halves() == 1)
    assert titles(figure) == ["scene", *maps]
    low, high = (f(own.numpy() for own in maps.values()) for f in (lowest, highest))
    for axis in figure.axes[1:]:
        assert axis.images[0].get_clim() == pytest.approx((low, high))
        assert len(axis.collections) == 2


def lowest(maps):
    return min(own.min() for own in maps)


def highest(maps):
    return max(own.max() for own in maps)


# The levels


def test_quality_before_and_after_training():
    quality = {
        ("a", name): drawn(3, 3, seed=seed) for seed, name in enumerate(("frozen", "trained"))
    }
    (axis,) = level_figures.quality_curves([0.1, 0.5, 1], quality, {"a": 0.25}, 0.34).axes
    assert axis.get_title() == "text: a (25 % of the image)"
    assert np.allclose(axis.lines[0].get_ydata(), quality["a", "trained"][:, 0])
    assert np.allclose(axis.lines[5].get_ydata(), quality["a", "frozen"][:, 2])
    assert names(axis.get_legend()) == [
        "precision",
        "recall",
        "weighted precision",
        "before training",
    ]


def test_mistakes_have_a_row_each():
    rows = pd.DataFrame(
        {"word": ["a", "b"], "content": ["c", "d"], "image": [0.1, 0.2], "region": [0.5, 0.4]}
    ).assign(before=[0.3, 0.45])
    (axis,) = level_figures.mistakes(rows).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a → c", "b → d"]
    lines, image, before, region = axis.collections
    assert region.get_offsets().tolist() == [[0.5, 0], [0.4, 1]]
    assert before.get_offsets().tolist() == [[0.3, 0], [0.45, 1]]
    assert len(lines.get_segments()) == 2


def test_positives_are_marked_at_their_ranks():
    scores, ranks = [drawn(16, seed=seed) for seed in (0, 1)], (1, 3, 9)
    shown = [(picture(8, seed), f"caption {seed}", scores[seed], ranks) for seed in (0, 1)]
    figure = level_figures.positive_pixels(shown, MARKS)
    image, curve = figure.axes[2:]
    assert image.get_title() == "“caption 1”"
    falling = scores[1].sort(descending=True)
    assert np.allclose(curve.lines[0].get_ydata(), falling.values)
    for rank, on_image, on_curve in zip(ranks, image.collections, curve.collections, strict=True):
        pixel = falling.indices[rank - 1].item()
        assert on_image.get_offsets().tolist() == [[2 * (pixel % 4) + 1, 2 * (pixel // 4) + 1]]
        assert np.allclose(on_curve.get_offsets(), [[rank, falling.values[rank - 1]]])
    assert names(figure.axes[1].get_legend()) == list(MARKS)


def test_trust_is_marked_on_its_curve():
    centres = np.array([1.0, 10.0, 100.0])
    right = {"a": ([0.9, 0.7, 0.1], [0.5, 0.4, 0.1], 0.3)}
    (axis,) = level_figures.trust_curves(centres, right, (1, 10, 100), MARKS).axes
    heights = [mark.get_offsets()[0, 1] for mark in axis.collections]
    assert heights == pytest.approx([0.9, 0.7, 0.1])
    after, before, chance = axis.lines
    assert before.get_ydata().tolist() == [0.5, 0.4, 0.1]
    assert chance.get_ydata()[0] == 0.3


def test_foreign_pixels_are_the_most_similar():
    scores = drawn(2, 5, 16)
    marks = {"rocket": (4, "C0", "o"), "cup": (1, "C1", "D")}
    figure = level_figures.foreign_pixels([picture(), picture(seed=1)], scores, marks)
    for axis, own in zip(figure.axes, scores, strict=True):
        for mark, (text, *_) in zip(axis.collections, marks.values(), strict=True):
            pixel = own[text].argmax().item()
            place = [2 * (pixel % 4) + 1, 2 * (pixel // 4) + 1]
            assert mark.get_offsets().tolist() == [place]
    assert names(figure.legends[0]) == ["“rocket”", "“cup”"]


def test_a_look_alike_is_of_a_scene_without_the_word(model):
    with torch.no_grad():
        scenes = truth.Scenes(model, 6)
    content = int(scenes.shares.mean(-1)[0].argmax())
    word = next(k for k in range(len(CLASSES)) if scenes.shares[0, k].sum() == 0)
    cut, share = level_figures.look_alike(scenes, word, content, scenes.single.embeddings[0], 1.0)
    # Over the whole image: nothing is faded, and the share is that of the image.
    assert (cut == np.asarray(scenes.images[0])).all()
    assert share == pytest.approx(scenes.shares[0, content].mean().item())


# Units


def test_units_are_drawn_over_the_scene(model):
    data = evaluation_set("scenes", 1, seed=TEST_SEED)
    _, scene, mask = data[0]
    assignment = np.arange(784).reshape(28, 28) // 196
    named = dict.fromkeys(("pixels named", "4 units named", "1 unit named"), mask)
    figure = unit_steps.steps_figure(scene, mask, data.classes, assignment, named)
    assert titles(figure)[:3] == ["meta-points", "4 units", "exact mask"]
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    assert (shown[2] == shown[3]).all()
    dots = figure.axes[0].collections[0].get_offsets().tolist()
    # Centres of a 2 x 2 grid: rows and columns 7 and 21 of 28, four pixels of the scene each.
    assert dots == [[x, y] for y in (29.5, 85.5) for x in (29.5, 85.5)]
    present = [data.classes[k] for k in np.unique(mask)]
    assert names(figure.legends[0]) == [*present, "a class not there"]

    other = mask.copy()
    other[:20] = (other[0, 0] + 1) % len(data.classes)
    by_choice = {"same": mask, "another": other}
    points = [np.array([0]), np.array([29])]
    figure = unit_steps.choices_figure(scene, mask, data.classes, mask, by_choice, points)
    assert [len(axis.collections) for axis in figure.axes] == [1, 3]  # dots, and two outlines
    assert figure.axes[1].collections[-1].get_offsets().tolist() == [[5.5, 5.5]]


def test_the_curve_has_a_line_for_pixels():
    curve = pd.DataFrame(
        {"miou": [10.0, 30.0, 25.0], "components": [0.5, 2.0, 3.0]}, index=["1", "36", "pixel"]
    )
    above, below = unit_steps.unit_curve(curve).axes
    assert above.lines[0].get_xydata().tolist() == [[1, 10], [36, 30]]
    assert above.lines[1].get_ydata()[0] == 25
    assert below.lines[1].get_ydata()[0] == 3


def test_published_runs_stand_beside_the_paper_s():
    rows = [
        {"dataset": dataset, "variant": "all", "unit": unit, "seed": seed, "metric": metric}
        | {"value": 10.0 * seed + len(unit)}
        for dataset in ("with background", "without background")
        for unit in ("36", "pixel")
        for seed in (0, 1)
        for metric in ("miou", "components")
    ]
    paper = pd.DataFrame(
        {"meta_points": [3136, 36], "avg_with_bg": [37.1, 38.8], "avg_without_bg": [33.7, 35.5]}
    )
    table = unit_steps.published_table(pd.DataFrame(rows), paper)
    assert list(table.index) == ["36", "pixel"]
    assert table.loc["pixel", "mIoU, with background"] == "10.0 ± 7.1"
    assert table.loc["36", "regions, without"] == "7.00 ± 7.07"
    assert table.loc["pixel", "paper: mIoU, without"] == 33.7


# The world


@pytest.fixture(scope="module")
def told():
    config = WorldConfig()
    composed = [compose(config, 0, index) for index in range(40)]
    drawing = [random(0, TELLING, scene.index) for scene in composed]
    pairs = zip(composed, drawing, strict=True)
    return config, composed, [sentences(config, scene, own, 2) for scene, own in pairs]


def test_a_scene_is_drawn_step_by_step(told):
    config, composed, _ = told
    scene = next(scene for scene in composed if len(scene.things) == 4)
    figure = world.steps_figure(config, scene)
    assert titles(figure)[1:7] == [
        *(f"+ {t.name}" for t in scene.things),
        "light and noise",
        "mask",
    ]
    assert names(figure.axes[7].get_legend()) == [content.name for content in scene.contents]


def test_the_scene_that_is_told_is_rich(told):
    _, composed, sentences_ = told
    scene, own = world.telling(composed, sentences_)
    assert len(scene.contents) >= 5
    assert {len(sentence.contents) for sentence in own} <= {2, 3}


def test_bars_and_histograms_of_the_world(told):
    pytest.importorskip("seaborn")
    _, composed, sentences_ = told
    table = world.frequencies(composed)
    images, pixels = world.frequency_bars(table).axes
    for axis, column in ((images, "size"), (pixels, "sum")):
        widths = sorted(bar.get_width() for bar in axis.patches if bar.get_width() > 0)
        assert widths == pytest.approx(sorted(table[column]))
    whole, single = world.described_areas(composed, sentences_)
    (axis,) = world.area_histogram({"whole": whole, "single": single}, 0.34).axes
    assert names(axis.get_legend()) == ["whole", "single", "α = 0.34"]
    assert axis.lines[-1].get_xdata()[0] == 0.34


def test_the_card_knows_the_longest_caption():
    table = world.card(WorldConfig(), [["A boat.", "A red boat on the water."], ["A tree."]], 0)
    assert table.loc["captions"].item() == "English, the longest of the first 3 has 6 words"
    assert table.loc["images"].item() == "112 × 112, RGB, drawn"
