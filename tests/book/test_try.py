"""The page "Try it" in a browser: its arithmetic beside Python's, and what a reader does there."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import need
from crawl import PHONE, WIDER, served
from PIL import Image
from trying import trying

import mgca
from mgca.config import SegmentConfig
from mgca.inference import score_map, windows
from mgca.units import meta_point_index, semantic_units

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "book" / "extra"
MB = 1_000_000
LIMIT = 30 * MB


@pytest.fixture(scope="module")
def modules(browser, tmp_path_factory):
    """Evaluates JavaScript in which ``geometry``, ``units``, ``words`` are the page's modules."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "index.html").write_text("<!doctype html><title>modules</title>")
    (folder / "try").symlink_to(MODULES / "try")
    load = "".join(
        f"const {name} = await import('/try/{name}.js');" for name in ("geometry", "units", "words")
    )
    with served(folder) as address:
        page = browser.new_page()
        page.goto(address)
        yield lambda code, given=None: page.evaluate(f"async given => {{{load} {code}}}", given)
        page.close()


# ------------------------------------------------------------- the arithmetic, without a model


@pytest.mark.parametrize("size", [(37, 91), (100, 67), (300, 20)])
def test_the_resize_is_pillows(modules, size):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = windows.resized_size(*size, 40, 120)
    rgba = np.dstack([array, np.full(size, 255, np.uint8)])
    found = modules(
        """const [height, width] = geometry.resizedSize(given.height, given.width, given.config);
        const resizer = new geometry.Resizer(given.height, given.width, height, width);
        for (let top = 0; top < given.height; top += 16)
            resizer.feed(given.rgba.slice(4 * top * given.width, 4 * (top + 16) * given.width),
                top, given.width);
        return {size: [height, width], rgb: [...resizer.finish()]};""",
        {
            "height": size[0],
            "width": size[1],
            "config": {"short_side": 40, "long_side": 120},
            "rgba": rgba.ravel().tolist(),
        },
    )
    expected = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)
    assert found["size"] == [height, width]
    assert np.array_equal(np.array(found["rgb"]), np.asarray(expected).ravel())


@pytest.mark.parametrize("blend", ["equal", "middle"])
@pytest.mark.parametrize("size, resized", [(640, 448), (100, 448), (1333, 1020)])
def test_taps_are_those_of_the_score_map(modules, size, resized, blend):
    config = SegmentConfig()
    boxes = windows.window_boxes(448, resized, config.window, config.stride)
    lefts = tuple(box.left for box in boxes)
    taps = score_map.axis_taps(size, resized, lefts, 448, 448, 56, blend)
    expected = torch.zeros(size, len(lefts) * 56).scatter_add_(1, taps.index, taps.weight)
    found = modules(
        """const grid = geometry.windowStarts(given.resized, 448, 224);
        const taps = geometry.axisTaps(given.size, given.resized, grid, 448, 56, given.blend);
        return {starts: grid.starts, taps};""",
        {"size": size, "resized": resized, "blend": blend},
    )
    dense = torch.zeros_like(expected)
    for pixel, line in enumerate(found["taps"]):
        for place, weight in line:
            dense[pixel, place] += weight
    assert tuple(found["starts"]) == lefts
    torch.testing.assert_close(dense, expected, atol=1e-6, rtol=0)


def test_units_and_their_scores_are_pythons(modules):
    torch.manual_seed(0)
    pixels, texts = torch.randn(1, 6, 9, 7), torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    units = semantic_units(pixels, (3, 2))
    table = torch.nn.functional.normalize(units.units[0], dim=1) @ texts.t()
    maps = torch.nn.functional.normalize(pixels[0].flatten(1), dim=0).t() @ texts.t()
    found = modules(
        """const pixels = Float32Array.from(given.pixels), index = units.metaPointIndex(9, 7, 3, 2);
        const texts = given.texts.map(text => Float32Array.from(text));
        // Zeros at the meta-points: that each is in its own unit is for the function to see to.
        const average = units.averages(pixels, 6, Uint16Array.from(given.assignment), index);
        return {index, units: [...average], table: [...units.unitScores(average, texts, 6)],
            pixel: [...units.pixelScores(units.unitLength(pixels, 6), texts, 6)]};""",
        {
            "pixels": pixels.flatten().tolist(),
            "texts": texts.tolist(),
            "assignment": units.assignment.flatten()
            .scatter(0, meta_point_index(9, 7, (3, 2)), 0)
            .tolist(),
        },
    )
    assert found["index"] == meta_point_index(9, 7, (3, 2)).tolist()
    for name, expected in (("units", units.units[0]), ("table", table), ("pixel", maps)):
        torch.testing.assert_close(torch.tensor(found[name]), expected.flatten())


def test_a_word_that_is_not_there_offers_the_nearest(modules):
    found = modules(
        """const table = new words.Words(["bear", "cat", "horse", "polar bear", "table"]);
        return {tidy: words.Words.tidy("  A  Polar bear "), swapped: table.nearest("hosre"),
            part: table.nearest("wooden table"), none: table.nearest("xylophone"),
            typed: table.suggestions("the be")};"""
    )
    assert found == {
        "tidy": "polar bear",
        "swapped": ["horse"],
        "part": ["table"],
        "none": [],
        "typed": ["bear", "polar bear"],
    }


# ------------------------------------------------------------- the page of the built book


@pytest.fixture(scope="module")
def whole(site, address):
    """Address of a site that has the model."""
    need("the page's model: run make try and make book", (site / "try" / "model.onnx").is_file())
    return address


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Photographs of several kinds, and the words asked for."""
    skdata = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("photographs")
    coffee, cat = Image.fromarray(skdata.coffee()), Image.fromarray(skdata.chelsea())
    cat.resize((1804, 1200)).save(folder / "large.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    coffee.save(folder / "turned.jpg", quality=95, exif=turned)
    faded = cat.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").resize(cat.size))
    faded.save(folder / "faded.png")
    return {
        "large.png": ["cat", "wall", "grass"],
        "turned.jpg": ["cup", "spoon", "table", "floor"],
        "faded.png": ["cat", "sky"],
    }, folder


@pytest.mark.slow
def test_labels_are_pythons(whole, browser, photographs):
    """A few here; ``try_report.py`` looks at many."""
    model = mgca.load("lite")
    asked, folder = photographs
    shares = {}
    with trying(browser, whole) as (page, _):
        for name, words in asked.items():
            page.words(words)
            page.photograph(folder / name)
            for case, given, points, threshold in (
                ("units", words, 36, None),
                ("background", words, 16, 0.4),
                ("alone", words[:1], 36, 0.5),
            ):
                page.words(given)
                page.meta_points(math.isqrt(points))
                page.background(threshold)
                labels, classes = page.labels()
                result = model.segment(folder / name, given, points, threshold)
                expected = result.to_numpy()
                assert labels.shape == expected.shape
                assert classes == "; ".join(f"{n} {each}" for n, each in enumerate(result.classes))
                shares[name, case] = (labels == expected).mean()
            page.background(None)
    # Weights and words are rounded: what is left is where two words are nearly even.
    assert min(shares.values()) > 0.995, shares


def test_a_reader_on_a_phone(whole, browser):
    """Little before it is started, nothing from elsewhere, nothing sent, and all fits."""
    from axe_playwright_python.sync_playwright import Axe

    methods = []
    with trying(browser, whole, viewport=PHONE) as (handled, requests):
        page = handled.page
        page.on("request", lambda request: methods.append(request.method))
        page.click(".try-ready button >> nth=1")
        page.wait_for_function(
            "[...document.querySelectorAll('.try-word small')].filter("
            "share => share.textContent.includes('%')).length === 3"
        )
        handled.wait()

        page.hover(".try-word >> nth=0")
        page.wait_for_selector("figcaption >> text=similarity to “cat”")
        page.hover(".try-views canvas >> nth=0")
        page.wait_for_selector(".try-under >> text=Under the pointer")

        page.fill("#try-word", "zorse")
        page.click(".try-form button")
        told = page.text_content(".try-told")
        assert "“zorse” is not among the 6,000 words" in told and "horse" in told
        page.click(".try-told >> text=horse >> nth=0")
        handled.wait()
        assert page.locator(".try-word").count() == 4

        assert page.evaluate(WIDER) <= 0
        found = Axe().run(page, context={"include": [["#mgca-try"]]}).response["violations"]
        assert not found, [each["id"] for each in found]
    assert all(url.startswith((whole, "blob:", "data:")) for url, _ in requests)
    assert set(methods) <= {"GET"}
    assert sum(size for _, size in requests) < LIMIT


def test_little_is_loaded_before_it_is_started(whole, browser):
    page = browser.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{whole}try.html", wait_until="networkidle")
    assert "MB" in page.text_content(".try-start")
    assert not [url for url in asked if url.endswith((".onnx", ".gz", "worker.js"))]
    page.close()


def test_without_webassembly_there_is_a_picture_and_a_sentence(whole, browser):
    page = browser.new_page()
    page.add_init_script("delete globalThis.WebAssembly")
    page.goto(f"{whole}try.html")
    assert page.is_visible(".try-lacking") and page.is_visible("#mgca-try figure img")
    assert page.locator(".try-start").count() == 0
    page.close()


def test_what_is_no_photograph_says_so(whole, browser, tmp_path):
    (tmp_path / "text.png").write_text("no photograph")
    Image.new("RGB", (2000, 200)).save(tmp_path / "long.png")
    with trying(browser, whole) as (handled, _):
        for name, told in (("text.png", "no photograph that"), ("long.png", "too long and narrow")):
            handled.page.set_input_files("#try-file", tmp_path / name)
            handled.page.wait_for_selector(f".try-status >> text={told}")


# ------------------------------------------------------------- what make try makes


@pytest.fixture(scope="module")
def assets():
    pytest.importorskip("onnx")
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    import try_assets

    return try_assets


def test_weights_are_kept_as_whole_numbers(assets):
    """Each is off by half a step of its output channel at most."""
    import onnx
    import onnxruntime

    make, kind = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 32)).astype(np.float32)
    weight[3] = 0
    graph = make.make_graph(
        [make.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "product",
        [make.make_tensor_value_info("x", kind.FLOAT, [32, 32])],
        [make.make_tensor_value_info("y", kind.FLOAT, [32, 16])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)
    assets.short_weights(model)
    onnx.checker.check_model(model, full_check=True)
    kinds = {each.name: each.data_type for each in model.graph.initializer}
    assert kinds == {"w_whole": kind.INT16, "w_step": kind.FLOAT}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": np.eye(32, dtype=np.float32)})
    step = np.abs(weight).max(axis=1) / 32767
    assert (np.abs(found.T - weight) <= (0.5 + 1e-2) * step[:, None]).all()


def test_the_nearest_meta_points_are_those_of_the_units(assets):
    import onnxruntime

    torch.manual_seed(0)
    pixels = torch.randn(1, 5, 12, 8)
    index = meta_point_index(12, 8, 3)
    session = onnxruntime.InferenceSession(assets.nearest_point().SerializeToString())
    unit = torch.nn.functional.normalize(pixels[0].flatten(1), dim=0)
    given = {"pixels": unit.numpy(), "index": index.numpy()}
    (assignment,) = session.run(None, given)
    expected = semantic_units(pixels, 3).assignment[0].flatten()
    assert np.array_equal(assignment, expected)


@pytest.mark.parametrize("parts", [[24], [16, 8]])
def test_the_table_is_off_by_half_a_step(assets, modules, parts):
    """A part with small numbers has small steps."""
    torch.manual_seed(0)
    rows = torch.randn(7, 24)
    rows[:, :16] *= 0.01 if len(parts) > 1 else 1
    rows = torch.nn.functional.normalize(rows, dim=1)
    found = modules(
        """const table = new words.Embeddings(Int8Array.from(given.bytes).buffer, given.facts);
        return [0, 1, 2, 3, 4, 5, 6].map(number => [...table.of(number)]);""",
        {
            "bytes": np.frombuffer(assets.quantised(rows, parts), np.int8).tolist(),
            "facts": {"words": 7, "parts": parts},
        },
    )
    for part, expected in zip(
        torch.tensor(found).split(parts, 1), rows.split(parts, 1), strict=True
    ):
        half = expected.abs().amax() / 8191 / 2
        torch.testing.assert_close(part, expected, atol=1.1 * half.item(), rtol=1e-4)


def test_another_text_encoder_asks_for_another_table(assets):
    model = mgca.load("lite")
    key = assets.table_key(model)
    model.backbone.text_centre += 1e-3
    assert assets.table_key(model) != key


def test_the_committed_table_is_current(assets):
    if not assets.TABLE.is_file():
        pytest.skip("needs the table of the words: run make try")
    facts = json.loads(assets.TABLE_FACTS.read_text())
    words = assets.WORDS.read_text().split("\n")[:-1]
    assert facts["words"] == len(words) == len(set(words))
    assert assets.table_is_current(mgca.load("lite")), "run make try and commit book/extra/try"


def test_the_runtime_is_the_one_whose_digests_are_told():
    import gzip
    import hashlib

    folder = MODULES / "onnxruntime"
    told = json.loads((folder / "source.json").read_text())["sha256"]
    for name, digest in told.items():
        path, packed = folder / name, folder / f"{name}.gz"
        data = gzip.decompress(packed.read_bytes()) if packed.is_file() else path.read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
