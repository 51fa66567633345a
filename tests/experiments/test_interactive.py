"""Figures that a reader handles: their data as written, and how they behave in a browser."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from browser import launched, need_package
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mgca.experiments.report import interactive
from mgca.units import meta_point_index

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("notebooks", "results"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MGCA_PROJECT", str(tmp_path))
    return tmp_path


def read(path: Path) -> tuple[str, dict]:
    """Name and data of a script, as a browser gets them."""
    name, data = re.fullmatch(r'mgcaInteractive\("([^"]*)",(.*)\);\n', path.read_text()).groups()
    return name, json.loads(data)


def decoded(array: dict) -> np.ndarray:
    """The array of its encoding, as interactive.js reads it."""
    data = base64.b64decode(array["data"])
    if array["type"] == "runs":
        pairs = np.frombuffer(data, "<u2").reshape(-1, 2)
        flat = np.repeat(pairs[:, 0], pairs[:, 1])
    else:
        flat = np.frombuffer(data, {"uint8": "u1", "uint16": "<u2"}[array["type"]])
    return flat.reshape(array["shape"])


def tiny_picture() -> Image.Image:
    return Image.fromarray(np.full((40, 40, 3), (200, 30, 30), np.uint8))


def units_data() -> dict:
    """Two images of 4x4 cells: named by 1 and 4 meta-points and by the pixel."""
    quarters = np.repeat(np.repeat(np.arange(4, dtype=np.uint8).reshape(2, 2), 2, 0), 2, 1)
    steps = [
        {"points": 1, "assignment": quarters * 0, "named": np.array([1], np.uint8)},
        {"points": 2, "assignment": quarters, "named": np.array([0, 1, 1, 1], np.uint8)},
        {"points": None, "assignment": None, "named": np.eye(4, dtype=np.uint8)},
    ]
    for step, regions in zip(steps, (1, 2, 6), strict=True):
        step |= {"regions": regions, "right": 10.0 * regions}
    first = {
        "title": "first",
        "picture": tiny_picture(),
        "classes": ["<b>cat</b>", "sofa"],
        "colours": [[230, 159, 0], [86, 180, 233]],
        "truth": np.where(quarters == 0, 0, 255).astype(np.uint8),
        "steps": steps,
    }
    second = first | {"title": "second", "truth": None, "classes": ["sky", "tree"]}
    return {"start": 1, "images": [first, second]}


def similarity_data() -> dict:
    """One photograph of 2x3 pixels and two words."""
    maps = np.array([[[255, 0, 0], [0, 0, 51]], [[0, 255, 255], [255, 255, 102]]], np.uint8)
    photograph = {
        "title": "photo",
        "picture": tiny_picture(),
        "words": ["cat", "<i>sofa</i>"],
        "low": 0.0,
        "high": 0.5,
        "maps": {"pixel": maps, "4 meta-points": 255 - maps},
    }
    return {"photographs": [photograph]}


def ablation_data() -> dict:
    return {
        "ablations": [
            {
                "title": "rank",
                "axis": "k",
                "ticks": ["0", "0.06", "1"],
                "series": [{"name": "ours", "paper": False}, {"name": "the paper", "paper": True}],
            },
            {
                "title": "area",
                "axis": "alpha",
                "ticks": ["0.1"],
                "series": [{"name": "ours", "paper": False}],
            },
        ],
        "datasets": ["things", "scenes"],
        "metrics": ["mIoU (%)"],
        "rows": [
            [0, 0, 0, 0, 0, 20.0, 0.5, 3],
            [0, 0, 0, 0, 1, 24.0, 0.7, 3],
            [0, 0, 0, 0, 2, 22.0, 0.6, 3],
            [0, 0, 0, 1, 1, 37.1, None, 1],
            [1, 1, 0, 0, 0, 41.0, 0.1, 3],
        ],
    }


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        arrays.array_shapes(max_dims=3, max_side=30, min_side=0),
        elements=st.sampled_from([0, 1, 7, 255]),
    )
)
def test_an_array_comes_back_as_it_was(array):
    back = decoded(interactive._encoded(array))
    assert back.shape == array.shape
    assert (back == array).all()


def test_a_run_may_be_longer_than_its_counter():
    array = np.zeros(200_000, np.uint8)
    array[-1] = 255
    encoded = interactive._encoded(array)
    assert encoded["type"] == "runs"
    assert (decoded(encoded) == array).all()


def test_an_array_takes_the_shorter_of_its_two_forms():
    assert interactive._encoded(np.zeros(100, np.uint8))["type"] == "runs"
    assert interactive._encoded(np.arange(100, dtype=np.uint8))["type"] == "uint8"
    assert interactive._encoded(np.arange(100, dtype=np.uint16))["type"] == "uint16"


def test_data_is_a_script_below_the_project(project, monkeypatch):
    path = interactive.write("page/a-figure", {"words": ["é", np.float32(0.5)]})
    assert path == project / "_build" / "interactive" / "page" / "a-figure.js"
    assert read(path) == ("page/a-figure", {"words": ["é", 0.5]})
    assert path.read_bytes().isascii()  # whatever encoding a server says
    monkeypatch.chdir(project / "notebooks")
    assert interactive.write("page/a-figure", {}) == path


@pytest.mark.parametrize("name", ["figure", "../page/figure", "page/Figure", "page/a/b", "page/"])
def test_a_name_is_a_notebook_and_a_name(project, name):
    with pytest.raises(ValueError, match="<notebook>/<name>"):
        interactive.write(name, {})


@pytest.mark.parametrize(
    "value, error",
    [
        (np.zeros(3), TypeError),
        (np.zeros(3, np.int64), TypeError),
        ({1, 2}, TypeError),
        (float("nan"), ValueError),
        (np.random.default_rng(0).integers(0, 256, 800_000, np.uint8), ValueError),
    ],
)
def test_what_a_browser_could_not_use_is_refused_and_nothing_written(project, value, error):
    with pytest.raises(error):
        interactive.write("page/figure", {"value": value})
    assert not list((project / "_build").rglob("*")) or not (project / "_build").exists()


@pytest.fixture
def displayed(monkeypatch):
    import IPython.display

    outputs: list = []
    monkeypatch.setattr(IPython.display, "display", outputs.append)
    return outputs


def test_the_element_holds_a_picture_and_escaped_texts(project, displayed):
    interactive.write("page/figure", units_data())
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1])
    interactive.element(
        "units", "page/figure", fallback=figure, alt='a "b" <c>', caption="1 < 2 & 3"
    )
    (text,) = [output.data for output in displayed]
    assert '<mgca-figure kind="units" data="page/figure"' in text
    assert text.count("a &quot;b&quot; &lt;c&gt;") == 2
    assert "<figcaption>1 &lt; 2 &amp; 3</figcaption>" in text
    address = re.search(r'src="data:image/webp;base64,([^"]+)"', text).group(1)
    assert base64.b64decode(address)[8:12] == b"WEBP"
    assert not plt.fignum_exists(figure.number)


@pytest.mark.parametrize(
    "change, error",
    [
        ({"kind": "unit"}, ValueError),
        ({"alt": " "}, ValueError),
        ({"caption": ""}, ValueError),
        ({"name": "page/other"}, FileNotFoundError),
    ],
)
def test_an_element_that_could_not_work_is_refused(project, displayed, change, error):
    interactive.write("page/figure", {})
    given = {"kind": "units", "name": "page/figure", "alt": "a", "caption": "b"} | change
    kind, name = given.pop("kind"), given.pop("name")
    with pytest.raises(error):
        interactive.element(kind, name, fallback="<p>still</p>", **given)
    assert not displayed


def test_the_script_is_small_and_loads_nothing_from_elsewhere():
    script = (STATIC / "interactive.js").read_text()
    assert len(script.encode()) < 30_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\bfetch\(|\beval\(|innerHTML", script)


# ------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    with launched() as opened:
        yield opened


class Site:
    """A page as the book has it: notebooks/page.html beside _static and interactive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(STATIC, folder / "_static")
        (folder / "pages").mkdir()

    def page(self, *elements: str) -> str:
        """Address of a page with these elements, opened from the folder."""
        (self.folder / "interactive").unlink(missing_ok=True)
        (self.folder / "interactive").symlink_to(self.folder / "_build" / "interactive")
        path = self.folder / "pages" / "page.html"
        path.write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><title>page</title>'
            '<link rel="stylesheet" href="../_static/interactive.css">'
            '<script src="../_static/interactive.js"></script>'
            f"<body>{''.join(elements)}</body></html>"
        )
        return path.as_uri()


@pytest.fixture
def site(project, displayed):
    return Site(project)


@pytest.fixture
def element(displayed):
    """HTML of a figure with this data."""

    def make(kind: str, data: dict) -> str:
        interactive.write(f"page/{kind}", data)
        still = Image.new("RGB", (50, 20))
        interactive.element(
            kind, f"page/{kind}", fallback=still, alt=f"{kind} still", caption=f"About {kind}."
        )
        return displayed[-1].data

    return make


@pytest.fixture
def opened(browser, site):
    """Open a page; an error of a script or a request that leaves the folder fails the test."""
    wrong: list[str] = []
    contexts = []

    def go(*elements: str, width: int = 1000, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: m.type in ("error", "warning") and wrong.append(m.text))
        page.on("request", lambda r: r.url[:5] in ("file:", "data:") or wrong.append(r.url))
        page.goto(site.page(*elements))
        return page

    yield go
    for context in contexts:
        context.close()
    assert not wrong


def canvas_of(page) -> np.ndarray:
    """(H, W, 3) uint8: what is drawn on the canvas now."""
    drawn = page.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.split(",")[1]))).convert("RGB"))


def colour_at(page, x: float, y: float) -> list[int]:
    """RGB of the canvas at shares of its width and height."""
    drawn = canvas_of(page)
    return drawn[int(y * len(drawn)), int(x * len(drawn[0]))].tolist()


def test_the_slider_changes_units_and_says_so(opened, element):
    page = opened(element("units", units_data()))
    slider = page.get_by_role("slider", name="Meta-points")
    status = page.get_by_role("status").first
    assert "4 units: 2 regions of one class, 20.0\u00a0%" in status.inner_text()
    assert slider.get_attribute("aria-valuetext") == "4 meta-points"
    legend = page.locator(".mgca-legend")
    assert legend.inner_text().split() == ["sofa", "75", "%", "<b>cat</b>", "25", "%"]
    quarter, other = colour_at(page, 0.3, 0.1), colour_at(page, 0.8, 0.1)
    assert quarter[0] > quarter[2] and other[2] > other[0]  # orange, and blue
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert "1 units: 1 region of one class" in status.inner_text()
    assert colour_at(page, 0.3, 0.1) == colour_at(page, 0.8, 0.1)
    page.keyboard.press("End")
    assert "Each of 16 pixel embeddings by itself: 6 regions" in status.inner_text()
    assert slider.get_attribute("aria-valuetext").startswith("pixel")
    page.get_by_label("Image").select_option("second")
    assert "tree" in legend.inner_text()


def test_the_cursor_tells_of_a_unit_by_mouse_and_by_keys(opened, element):
    page = opened(element("units", units_data()))
    canvas, under = page.locator("canvas"), page.get_by_role("status").last
    page.get_by_label("borders of units").uncheck()
    page.get_by_label("meta-points", exact=True).uncheck()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.1 * box["height"])
    assert under.inner_text() == "Row 1, column 4: unit 2, 4 pixels, named sofa."
    assert min(colour_at(page, 0.5, 0.1)) > 240  # its edge
    assert min(colour_at(page, 0.75, 0.45)) < 240  # between two of its pixels
    page.mouse.move(0, 0)
    assert under.inner_text().startswith("Point at the picture")
    canvas.focus()
    page.keyboard.press("ArrowUp")  # the first key puts the cursor in the middle
    for _ in range(5):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowLeft")
    text = "Row 1, column 1: unit 1, 4 pixels, named <b>cat</b>; the mask says <b>cat</b>."
    assert under.inner_text() == text
    page.keyboard.press("Escape")
    assert under.inner_text().startswith("Point at the picture")


def test_the_exact_mask_is_offered_where_there_is_one(opened, element):
    page = opened(element("units", units_data()))
    colours = page.get_by_label("Colours")
    colours.select_option("exact mask")
    page.get_by_label("borders of units").uncheck()
    page.get_by_label("meta-points", exact=True).uncheck()
    assert colour_at(page, 0.9, 0.9) == [255, 255, 255]  # ignored
    assert colour_at(page, 0.1, 0.1) != [255, 255, 255]
    page.get_by_label("Image").select_option("second")
    assert colours.input_value() == "classes"


@pytest.mark.parametrize("points, size", [(2, 4), (3, 8), (6, 28), (5, 28)])
def test_meta_points_are_drawn_where_the_library_takes_them(opened, element, points, size):
    data = units_data()
    (own, _) = data["images"]
    assignment = np.zeros((size, size), np.uint8)
    named = np.zeros(points**2, np.uint8)
    step = {"points": points, "assignment": assignment, "named": named, "regions": 1, "right": None}
    data["images"] = [own | {"steps": [step], "truth": None}]
    data["start"] = 0
    page = opened(element("units", data))
    page.get_by_label("borders of units").uncheck()
    centres = meta_point_index(size, size, points)
    at = ((np.arange(size) + 0.5) * 720 / size).astype(int)
    white = canvas_of(page)[at][:, at].min(axis=2) > 240
    assert np.flatnonzero(white).tolist() == centres.tolist()


def test_runs_are_read_as_python_wrote_them(opened, element):
    data = units_data()
    (own, _) = data["images"]
    quarters = own["steps"][1]["assignment"].repeat(20, axis=0).repeat(20, axis=1)
    assert interactive._encoded(quarters)["type"] == "runs"
    step = own["steps"][1] | {"assignment": quarters, "named": np.array([0, 1, 1, 0], np.uint8)}
    data |= {"start": 0, "images": [own | {"steps": [step], "truth": None}]}
    page = opened(element("units", data))
    page.get_by_label("meta-points", exact=True).uncheck()
    corners = canvas_of(page)[20:-20:679, 20:-20:679]
    orange = corners[..., 0] > corners[..., 2]
    assert orange.tolist() == [[True, False], [False, True]]


def test_hovering_a_pixel_shows_its_similarities_and_a_word_its_map(opened, element):
    page = opened(element("similarity", similarity_data()))
    canvas, under = page.locator("canvas"), page.get_by_role("status")
    plain = colour_at(page, 0.1, 0.1)
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    assert under.inner_text() == "Row 2, column 3: <i>sofa</i>, 0.20; then cat, 0.10."
    cat, sofa = page.locator(".mgca-bars button").all()
    assert cat.locator(".mgca-number").inner_text() == "0.10"
    assert "mgca-best" in sofa.get_attribute("class")
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    assert under.inner_text() == "Row 2, column 3: <i>sofa</i>, 0.20; then cat, 0.10. Held."
    canvas.focus()
    page.keyboard.press("ArrowUp")
    assert under.inner_text().startswith("Row 1, column 3: <i>sofa</i>, 0.50")
    page.get_by_label("Unit").select_option("4 meta-points")
    assert under.inner_text().startswith("Row 1, column 3: cat, 0.50")
    cat.focus()
    page.keyboard.press("Enter")
    assert cat.get_attribute("aria-pressed") == "true"
    assert colour_at(page, 0.1, 0.1) != plain
    assert "cosine similarity to cat" in page.locator(".mgca-scale").inner_text()
    page.keyboard.press("Enter")
    assert colour_at(page, 0.1, 0.1) == plain


def test_the_plot_reads_its_numbers_to_mouse_keys_and_tables(opened, element):
    page = opened(element("ablation", ablation_data()))
    chart, under = page.locator(".mgca-chart svg"), page.get_by_role("status")
    chart.locator(".mgca-marker").nth(3).wait_for(state="attached")  # drawn a moment later
    assert chart.locator(".mgca-marker").count() == 4
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"] + 20, box["y"] + 60)
    assert under.inner_text() == "k 0.06: ours 24.0 ± 0.7 (3 seeds); the paper 37.1."
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert under.inner_text() == "k 1: ours 22.0 ± 0.6 (3 seeds)."
    page.keyboard.press("Home")
    assert under.inner_text() == "k 0: ours 20.0 ± 0.5 (3 seeds)."
    page.get_by_text("What is drawn, as a table").click()
    table = page.get_by_role("table")
    assert table.get_by_role("row").nth(2).inner_text().split("\t") == [
        "0.06",
        "24.0 ± 0.7",
        "37.1",
    ]
    page.get_by_label("the paper").uncheck()
    assert chart.locator(".mgca-marker").count() == 3
    assert "37.1" not in table.inner_text()
    page.get_by_label("Ablation", exact=True).select_option("area")
    assert under.inner_text().startswith("There are no numbers")
    page.get_by_label("Data set").select_option("scenes")
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert under.inner_text() == "alpha 0.1: ours 41.0 ± 0.1 (3 seeds)."


KINDS = {"units": units_data, "similarity": similarity_data, "ablation": ablation_data}


def test_without_scripts_and_on_paper_the_picture_stands_there(opened, element):
    texts = [element(kind, data()) for kind, data in KINDS.items()]
    page = opened(*texts, java_script_enabled=False)
    for kind in KINDS:
        assert page.get_by_role("img", name=f"{kind} still").is_visible()
        assert page.get_by_text(f"About {kind}.").is_visible()
    page = opened(*texts)
    page.locator(".mgca-live").nth(2).wait_for()
    assert not page.get_by_role("img", name="units still").is_visible()
    page.emulate_media(media="print")
    assert page.get_by_role("img", name="units still").is_visible()
    assert not page.locator(".mgca-live").first.is_visible()


def test_data_is_asked_for_when_the_figure_comes_near(opened, element):
    page = opened('<div style="height:5000px"></div>', element("ablation", ablation_data()))
    page.wait_for_timeout(200)
    assert page.locator("script").count() == 1
    page.mouse.wheel(0, 5000)
    page.locator(".mgca-chart svg").wait_for()
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("data", ["", 'mgcaInteractive("page/units",{"start":0,"images":[]});'])
def test_data_that_is_missing_or_broken_leaves_the_picture(browser, site, element, data):
    text = element("units", units_data())
    file = site.folder / "_build" / "interactive" / "page" / "units.js"
    file.write_text(data) if data else file.unlink()
    page = browser.new_page()
    with page.expect_console_message(lambda m: m.text.startswith("A figure stays a picture")):
        page.goto(site.page(text))
    assert page.get_by_role("img", name="units still").is_visible()
    assert page.locator(".mgca-live").count() == 0
    page.close()


def test_a_page_without_figures_is_left_alone(opened):
    page = opened("<p>text</p>")
    assert page.locator("script").count() == 1
    assert page.locator("body").inner_html().strip() == "<p>text</p>"


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_scrolls_nothing_sideways(opened, element, kind):
    page = opened(element(kind, KINDS[kind]()), width=360)
    page.locator(".mgca-live :is(canvas, svg[tabindex])").wait_for()
    widths = "[document.documentElement.scrollWidth, innerWidth]"
    scrolled, inner = page.evaluate(widths)
    assert scrolled <= inner == 360


def test_axe_finds_nothing_in_either_theme(opened, element):
    need_package("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    texts = [element(kind, data()) for kind, data in KINDS.items()]
    for scheme in ("light", "dark"):
        style = f"<style>:root {{ color-scheme: {scheme} }}</style>"
        page = opened(style, "<main><h1>Page</h1>", *texts, "</main>")
        page.locator(".mgca-live").nth(2).wait_for()
        page.get_by_text("What is drawn, as a table").click()
        violations = axe.run(page, options={"preload": False}).response["violations"]
        assert not violations, [(v["id"], [n["html"] for n in v["nodes"]]) for v in violations]
