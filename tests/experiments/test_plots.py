"""Figures of pictures, maps and matrices: that they draw what they are given."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from mgca.experiments.report import figures, overlays, plots
from mgca.experiments.report.plots import Panel
from mgca.inference.overlay import palette

WORDS = ("sand", "boat", "tree", "water")


@pytest.fixture(autouse=True)
def own_style():
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")


def picture(side=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mask(side=8):
    """Three contents: half of the second word, three eighths of the third, the rest the fourth."""
    labels = np.full((side, side), 1)
    labels[side // 2 :] = 2
    labels[-side // 8 :] = 3
    return labels


def test_over_blends_each_pixel_with_the_colour_of_its_label():
    image, labels, colours = picture(), mask(), palette(WORDS)
    blended = overlays.over(labels, image, colours, 0.25)
    for y, x in np.ndindex(8, 8):
        pairs = zip(np.asarray(image)[y, x], colours[labels[y, x]], strict=True)
        assert blended[y, x].tolist() == [int(0.75 * int(a) + 0.25 * int(b)) for a, b in pairs]


def test_own_colours_are_the_palette_of_what_is_there():
    present = [3, 1]
    colours = overlays.own_colours(WORDS, present)
    assert colours.dtype == np.uint8
    assert (colours[present] == palette(["water", "boat"])).all()
    assert (colours[[0, 2]] == overlays.ABSENT).all()
    greys = np.arange(4)[:, None]
    assert overlays.own_colours(WORDS, present, greys)[2].tolist() == [2, 2, 2]


def test_keys_name_colours():
    handles = overlays.key(WORDS)
    assert [handle.get_label() for handle in handles] == list(WORDS)
    for handle, colour in zip(handles, palette(WORDS), strict=True):
        assert np.allclose(handle.get_facecolor()[:3], colour / 255)
        assert handle.get_edgecolor() == handle.get_facecolor()
    *own, others = overlays.own_key(WORDS, [1, 2])
    assert [handle.get_label() for handle in own] == ["boat", "tree"]
    assert others.get_label() == "a class not there"
    assert np.allclose(others.get_facecolor()[:3], np.array(overlays.ABSENT) / 255)
    assert others.get_edgecolor()[:3] == to_rgb("0.4")


def test_the_square_is_in_the_middle():
    photo = np.arange(5 * 8 * 3, dtype=np.uint8).reshape(5, 8, 3)
    assert (np.asarray(overlays.square(photo)) == photo[:, 1:6]).all()
    assert (np.asarray(overlays.square(photo.swapaxes(0, 1))) == photo.swapaxes(0, 1)[1:6]).all()


def test_a_dimmed_picture_is_bright_at_its_pixel_embeddings():
    image = picture()
    dimmed = overlays.dimmed(image, [5], 4)  # second row, second column of cells of 2 x 2
    bright = np.zeros((8, 8), bool)
    bright[2:4, 2:4] = True
    assert (dimmed[bright] == np.asarray(image)[bright]).all()
    assert (dimmed[~bright] == np.asarray(image)[~bright] // 4).all()
    assert (overlays.dimmed(image, bright.ravel(), 8) == dimmed).all()


def test_a_gallery_holds_its_pictures_and_texts():
    flat = Image.new("RGB", (16, 8), (200, 30, 30))
    html = overlays.gallery([(flat, "red & wide"), (flat, "again")], width=70)
    assert html.count("<img") == 2
    assert "red &amp; wide" in html
    assert "minmax(70px,1fr)" in html
    data = re.search(r"base64,([^\"]+)", html).group(1)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)
    assert shown.shape == (8, 16, 3)
    assert abs(shown - np.asarray(flat, int)).max() < 12  # WebP of quality 85


def test_panels_draw_their_pictures_in_rows():
    maps = torch.arange(16.0).view(4, 4)
    limits = {"vmin": 0, "vmax": 20}
    rows = [[Panel(picture(), "a picture"), None], [Panel(maps, below="m", options=limits)] * 2]
    legend = overlays.key(WORDS)
    figure = plots.panels(rows, (5, 4), side=8, colorbar="cosine", legend=legend, columns=2)
    first, left_free, map_, _, bar = figure.axes
    assert (first.images[0].get_array() == np.asarray(picture())).all()
    assert first.get_title() == "a picture"
    assert not first.axison
    assert left_free.axison
    assert not left_free.images
    assert (map_.images[0].get_array() == maps.numpy()).all()
    assert map_.images[0].get_extent() == [0, 8, 8, 0]  # as wide as the picture
    assert first.images[0].get_extent() == [-0.5, 7.5, 7.5, -0.5]
    assert map_.images[0].get_clim() == (0, 20)
    assert [text.get_text() for text in map_.texts] == ["m"]
    assert bar.get_ylabel() == "cosine"
    assert [text.get_text() for text in figure.legends[0].texts] == list(WORDS)
    figure.draw_without_rendering()


def test_an_outline_is_drawn_where_there_is_a_border():
    inside = mask() == 2
    for outline, lines in ((None, 0), (inside, 2), (np.zeros_like(inside), 0)):
        (axis,) = plots.panels([[Panel(picture(), outline=outline)]], (2, 2)).axes
        assert len(axis.collections) == lines


def test_maps_of_words_show_the_largest_contents_on_one_scale():
    maps = {name: torch.randn(4, 4, 4, generator=torch.manual_seed(0)) for name in ("old", "new")}
    maps["new"] = maps["new"] * 3
    figure = plots.word_maps(maps, WORDS, mask(), largest=2)
    *axes, bar = figure.axes
    titles = [axis.get_title() for axis in axes]
    assert titles == ["boat, old", "tree, old", "boat, new", "tree, new"]
    less = {name: own - own.mean(dim=0) for name, own in maps.items()}
    assert np.allclose(axes[3].images[0].get_array(), less["new"][2])
    reach = max(own[[1, 2]].abs().max().item() for own in less.values())
    for axis in axes:
        assert np.allclose(axis.images[0].get_clim(), (-reach, reach))
        assert len(axis.collections) == 2  # the outline
    assert bar.get_xlabel() == "cosine minus its mean over words"


def test_a_sheet_has_a_column_and_a_legend_for_each_image():
    images, masks = [picture(seed=seed) for seed in (0, 1)], [mask(), np.zeros((8, 8), int)]
    named = {"pixel": [mask(), mask()], "unit": [masks[1], masks[1]]}
    figure = plots.scene_sheet(images, masks, named, WORDS)
    axes = np.array(figure.axes).reshape(5, 2)
    assert [axis.get_ylabel() for axis in axes[:4, 0]] == ["image", "mask", "pixel", "unit"]
    assert not any(axis.get_ylabel() for axis in axes[:, 1])
    # The second image has only sand; what else is named there is in the one colour of all others.
    colours = overlays.own_colours(WORDS, [0])
    expected = overlays.over(mask(), images[1], colours)
    assert (axes[2, 1].images[0].get_array() == expected).all()
    legends = [[text.get_text() for text in axis.get_legend().texts] for axis in axes[4]]
    assert legends == [
        ["boat", "tree", "water", "a class not there"],
        ["sand", "a class not there"],
    ]


def test_matrices_share_a_scale_and_show_their_numbers():
    values = {"a": torch.tensor([[0.5, -0.001], [0.1, -0.2]]), "b": torch.eye(2) / 4}
    labels = {"rows": "image", "columns": "caption", "colorbar": "cosine"}
    figure = plots.matrices(values, ("x", "y"), (6, 3), **labels, numbers=True, rotation=40)
    first, second, bar = figure.axes
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-0.5, 0.5)
    assert [text.get_text() for text in first.texts] == ["0.50", "0.00", "0.10", "-0.20"]
    assert [text.get_color() for text in first.texts] == ["white", "black", "black", "black"]
    assert first.texts[1].get_position() == (1, 0)  # x is the column
    assert (first.get_title(), first.get_ylabel(), second.get_xlabel()) == ("a", "image", "caption")
    assert bar.get_xlabel() == "cosine"


def test_a_framed_cell_is_at_its_row_and_column():
    _, axis = plt.subplots()
    plots.framed(axis, torch.zeros(12, 12), (2, 7), rows="i", columns="j")
    (frame,) = axis.lines
    assert (frame.get_xdata()[0], frame.get_ydata()[0]) == (7, 2)
    assert axis.get_xticks().tolist() == [0, 5, 10]


def test_heat_crosses_what_is_left_out():
    pytest.importorskip("seaborn")
    table, crossed = np.arange(6).reshape(2, 3), np.zeros((2, 3), bool)
    crossed[1, 0] = True
    axis, bar = plots.heat(table, "ab", "xyz", (4, 3), crossed=crossed, colorbar="times").axes
    (cross,) = axis.texts
    assert (cross.get_text(), cross.get_position()) == ("×", (0.5, 1.5))
    shown = axis.collections[0].get_array().reshape(2, 3)
    assert (shown.mask == crossed).all()
    assert (shown.data == table)[~crossed].all()
    assert bar.get_ylabel() == "times"


def test_a_histogram_is_a_density_for_each_sample():
    samples = {"narrow": np.array([0.5, 0.6]), "wide": np.array([0.1, 1.5, 1.6])}
    (axis,) = plots.histogram(samples, np.array([0.0, 1.0, 2.0]), ("C0", "C1")).axes
    heights = [step.get_xy()[:, 1].max() for step in axis.patches]
    assert sorted(heights) == pytest.approx([2 / 3, 1])
    labels = [text.get_text() for text in axis.get_legend().texts]
    assert labels == ["narrow", "wide"]


def test_marks_lie_in_the_middle_of_their_cells():
    assert plots.centre(5, 4, 112) == (1.5 * 28, 1.5 * 28)
    x, y = plots.centre(np.array([0, 7]), 4, 112)
    assert (x.tolist(), y.tolist()) == ([14, 98], [14, 42])
    _, axis = plt.subplots()
    plots.ring(axis, 3, 4)
    assert [line.get_xydata().tolist() for line in axis.lines] == [[[3, 4]]] * 2
    plots.mark(axis, 1, 2, ("#56B4E9", "*"), "semi-hard")
    plots.dots(axis, np.array([0, 7]), 4, 112)
    mark, dots = axis.collections
    assert mark.get_offsets().tolist() == [[1, 2]]
    assert mark.get_label() == "semi-hard"
    # Pixel 0 of an image lies from -0.5 to 0.5.
    assert dots.get_offsets().tolist() == [[13.5, 13.5], [97.5, 41.5]]


def test_quotations_are_wrapped():
    assert plots.quoted("a red motorcycle in a garage", 16) == "“a red motorcycle\nin a garage”"
