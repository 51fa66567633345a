"""The page of ``mgca app``: its answers, who may ask, and how it behaves in a browser."""

import asyncio
import base64
import dataclasses
import http.client
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from browser import launched, need_package
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from tiny import TinyBackbone

from mgca.cli import main
from mgca.cli.app import server
from mgca.cli.app.view import LONGEST, Photographs, View, paragraph, split_words
from mgca.config import SegmentConfig
from mgca.model import Model

SMALL = SegmentConfig(short_side=64, window=64, stride=32)
# Of gradio: one lets the page write Python files, the other says that it is somewhere else.
SWITCHES = {"GRADIO_VIBE_MODE": "1", "GRADIO_ROOT_PATH": "/elsewhere"}
SCRIPT = '<img src=x onerror="window.ran = 1">'


@pytest.fixture
def model():
    return Model(TinyBackbone(), None, SMALL)


@pytest.fixture
def embedded(model, monkeypatch):
    """How often an image went through the model."""
    times, embed = [], model.embed
    monkeypatch.setattr(model, "embed", lambda image: times.append(1) or embed(image))
    return times


@pytest.fixture
def photo(tmp_path):
    return picture(tmp_path / "photo.png", 0)


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 60)) -> str:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return str(path)


class Elements(HTMLParser):
    """The names of the elements of an answer, its text and its messages."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text, self.alerts = "", 0
        self.feed(answer)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.alerts += ("role", "alert") in attributes

    def handle_data(self, data):
        self.text += data


def test_a_map_with_the_shares_of_its_words(model, photo):
    found = Elements(View(model).segmentation(photo, "cat, wooden table,sky,", 2, False, 0))
    areas = model.segment(photo, ["cat", "wooden table", "sky"], 4).areas()
    for name, area in areas.items():
        assert f" {name}{100 * area:.1f} %" in found.text or not area
    assert "4 meta-points per window, 2 × 2; no background" in found.text
    assert found.names.count("img") == 1 and not found.alerts


def test_units_pixels_and_background_are_those_asked_for(model, photo):
    view, words = View(model), ["cat", "sky"]
    for side, pixels, threshold in ((1, False, 0), (1, True, 0), (3, False, 0.7)):
        text = Elements(view.segmentation(photo, "cat,sky", side, pixels, threshold)).text
        points = None if pixels else side**2
        areas = model.segment(photo, words, points, threshold or None).areas()
        assert all(f"{name}{100 * area:.1f} %" in text for name, area in areas.items() if area)
    assert "background up to a probability of 0.7" in text
    assert "Every pixel on its own" in Elements(view.segmentation(photo, "a", 2, True, 0)).text


def test_hints_before_there_is_something_to_answer(model, photo):
    view = View(model)
    for answer in (
        view.segmentation(None, "cat", 2, False, 0),
        view.segmentation(photo, " , ", 2, False, 0),
        view.similarity(None, "cat", 2, False),
        view.similarity(photo, ",\n", 2, False),
    ):
        found = Elements(answer)
        assert found.names == ["p"] and not found.alerts


@pytest.mark.parametrize(
    ("words", "threshold", "said"),
    [
        ("cat, sky, cat", 0, "class names given more than once: cat"),
        ("cat, background", 0.5, "do not ask for it"),
        ("x" * (LONGEST + 1), 0, f"more than {LONGEST} characters"),
        (f"{SCRIPT}, {SCRIPT}", 0, SCRIPT),
    ],
)
def test_what_cannot_be_answered_is_said_before_the_image_is_read(
    model, photo, embedded, tmp_path, words, threshold, said
):
    found = Elements(View(model).segmentation(photo, words, 2, False, threshold))
    assert found.alerts == 1 and said in found.text
    assert set(found.names) == {"p", "strong"}
    assert not embedded
    path, answer = View(model).labels(photo, words, 2, False, threshold, tmp_path)
    assert path is None and said in Elements(answer).text


def test_a_file_that_is_no_picture_is_named_without_its_folder(model, tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    view = View(model)
    for answer in (
        view.segmentation(str(text), "cat", 2, False, 0),
        view.similarity(str(text), "cat", 2, False),
        view.labels(str(text), "cat", 2, False, 0, tmp_path)[1],
    ):
        found = Elements(answer)
        assert found.alerts == 1
        assert found.text == "text.jpg: not a picture in a format that Pillow reads"


def test_mistakes_of_ours_are_raised(model, photo, monkeypatch):
    monkeypatch.setattr(model, "embed", lambda image: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        View(model).segmentation(photo, "cat", 2, False, 0)


@given(st.text("<>/&;\"'=ab ,{}$é\n", max_size=40))
@example(SCRIPT)
def test_nothing_typed_becomes_an_element(text):
    assert Elements(paragraph(text)).names == ["p"]
    view = View(Model(TinyBackbone(), None, SMALL))
    answer = Elements(view.segmentation("/no/file", f"{text},{text}", 2, False, 0))
    assert set(answer.names) <= {"p", "strong"}
    with suppress(ValueError):  # which the view answers, as above
        assert all(name == name.strip() for name in split_words(text))


def test_words_with_markup_are_text_in_maps(model, photo, tmp_path):
    view = View(model)
    for answer in (
        view.segmentation(photo, SCRIPT, 2, False, 0),
        view.similarity(photo, SCRIPT, 2, False),
        view.labels(photo, SCRIPT, 2, False, 0, tmp_path)[1],
    ):
        assert "<img src=x" not in answer and "&lt;img src=x" in answer


def test_an_image_is_embedded_once_and_few_are_kept(model, embedded, tmp_path):
    view = View(model)
    files = [picture(tmp_path / f"{i}.png", i) for i in range(5)]
    for side in (1, 2, 3):
        view.segmentation(files[0], "cat, sky", side, False, 0)
        view.similarity(files[0], "tree", side, False)
        view.labels(files[0], "cat, sky", side, False, 0, tmp_path)
    assert len(embedded) == 1
    for file in (*files[1:4], files[0], files[4], files[0]):  # the second is the oldest, and goes
        view.segmentation(file, "cat", 1, False, 0)
    assert len(embedded) == 5
    view.segmentation(files[1], "cat", 1, False, 0)
    assert len(embedded) == 6


def test_labels_are_of_the_full_size_though_the_map_is_small(model, tmp_path):
    file = picture(tmp_path / "wide.png", 0, (300, 1200))
    view, words = View(model), ["cat", "sky"]
    shown = re.search(r'base64,([^"]+)"', view.segmentation(file, "cat, sky", 2, False, 0))[1]
    with Image.open(io.BytesIO(base64.b64decode(shown))) as small:
        assert small.size == (900, 225)
    assert Photographs(model).shown(file).image.size == (900, 225)
    path, answer = view.labels(file, "cat, sky", 2, False, 0.6, tmp_path)
    assert path.name == "wide.labels.png"
    expected = model.segment(file, words, 4, 0.6)
    with Image.open(path) as labels:
        assert np.array_equal(np.asarray(labels), expected.to_numpy())
    assert "0 background, 1 cat, 2 sky" in answer
    assert view.labels(None, "cat", 2, False, 0, tmp_path)[0] is None


def test_similarity_is_that_of_the_word(model, photo):
    text = Elements(View(model).similarity(photo, "tree", 2, False)).text
    scores = model.segment(photo, ["tree"], 4).scores
    low, high = re.search(r"from (-?[\d.]+)\s+to (-?[\d.]+)\.", text).groups()
    assert (float(low), float(high)) == pytest.approx(
        (scores.min().item(), scores.max().item()), abs=6e-4
    )


def test_one_word_may_have_commas_and_lines(model, photo):
    found = View(model).similarity(photo, "tall,\n tree", 2, False)
    assert found == View(model).similarity(photo, "tall tree", 2, False)


def test_a_word_equally_similar_everywhere(model, tmp_path):
    grey = tmp_path / "grey.png"
    Image.new("RGB", (64, 64), "grey").save(grey)
    assert not Elements(View(model).similarity(str(grey), "tree", 2, False)).alerts


# Who may ask.


def sent(scope: dict, headers: dict[str, str], port: int = 7860) -> list[dict]:
    """What the guard, before an application that answers all, sends to a request."""
    messages = []

    async def application(scope, receive, send):
        await send({"type": f"{scope['type']}.response.start", "status": 200, "headers": []})

    async def send(message):
        messages.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = scope | {"headers": raw, "server": ("127.0.0.1", port)}
    # In a thread of its own: the browser's runs an event loop already.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, server.Guard(application)(scope, None, send)).result()
    return messages


def asked(
    headers: dict[str, str], method: str = "GET", path: str = "/", port: int = 7860
) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of the answer to a request."""
    first = sent({"type": "http", "method": method, "path": path}, headers, port)[0]
    return first["status"], dict(first["headers"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:7860"}, 200),
        ({"Host": "localhost:7860", "Origin": "http://localhost:7860"}, 200),
        ({"Host": "127.0.0.1:7860", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:7860", "Origin": "http://127.0.0.1:9000"}, 403),
        ({"Host": "127.0.0.1:7860", "Origin": "null"}, 403),
        ({"Host": "evil.example:7860"}, 403),  # a name that was turned to this machine
        ({"Host": "127.0.0.1"}, 403),
        ({}, 403),
    ],
)
def test_pages_of_other_hosts_are_refused(headers, status):
    assert asked(headers)[0] == status
    socket = sent({"type": "websocket", "path": "/"}, headers)[0]["type"]
    assert socket == ("websocket.response.start" if status == 200 else "websocket.close")


@pytest.mark.parametrize(
    ("port", "host", "status"),
    [(80, "127.0.0.1", 200), (80, "localhost:80", 200), (80, "evil.example", 403)],
)
def test_browsers_leave_out_the_port_80(port, host, status):
    assert asked({"Host": host}, port=port)[0] == status
    assert asked({"Host": host, "Origin": f"http://{host}"}, port=port)[0] == status
    assert asked({"Host": host, "Origin": "http://evil.example"}, port=port)[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_page_asks_for_is_refused_but_for_links_to_the_page(site):
    link = {
        "Host": "127.0.0.1:7860",
        "Sec-Fetch-Site": site,
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert asked(link)[0] == 200
    for changed in (
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Mode": "cors"},
        {"Host": "evil.example:7860"},
        {"Origin": "http://evil.example"},
    ):
        assert asked(link | changed)[0] == 403
    assert asked(link, "POST")[0] == asked(link, path="/gradio_api/info")[0] == 403
    assert sent({"type": "websocket", "path": "/"}, link)[0]["type"] == "websocket.close"
    for own in ("same-origin", "none"):
        assert asked(link | {"Sec-Fetch-Site": own}, "POST", "/any")[0] == 200


def held(paths: list[str], monkeypatch) -> dict[str, float]:
    """Seconds for which the answers to requests, sent one after the other, are held back."""
    clock, waited = [0.0], {}

    async def sleep(seconds):
        clock[0] += seconds

    monkeypatch.setattr(server.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(server.asyncio, "sleep", sleep)

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask():
        handler = server.Unhurried(application)
        for path in paths:
            before, messages = clock[0], []

            async def send(message, messages=messages):
                messages.append(message["type"])

            await handler({"type": "http", "path": path}, None, send)
            assert messages == ["http.response.start", "http.response.body"]
            waited[path] = clock[0] - before
            clock[0] += 0.03

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, ask()).result()
    return waited


def test_an_event_waits_until_the_page_knows_that_the_stream_before_it_has_ended(monkeypatch):
    first, stream, upload = "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/upload"
    assert held([first, stream, upload], monkeypatch) == {first: 0, stream: 0, upload: 0}
    waited = held([stream, upload, first], monkeypatch)
    assert waited == {stream: 0, upload: 0, first: pytest.approx(0.1 - 0.06)}
    assert held([stream, "/1", "/2", "/3", "/4", first], monkeypatch)[first] == 0


def test_that_a_server_begins_is_nobodys_request():
    assert sent({"type": "lifespan"}, {})[0]["type"] == "lifespan.response.start"


def test_no_other_page_has_a_hold_of_this_one():
    headers = asked({"Host": "127.0.0.1:7860"})[1]
    assert headers[b"cross-origin-resource-policy"] == b"same-origin"
    assert headers[b"cross-origin-opener-policy"] == b"same-origin"


def test_the_browser_is_told_to_load_nothing_of_other_hosts():
    policy = asked({"Host": "127.0.0.1:7860"})[1][b"content-security-policy"].decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'self' data: blob:"
    assert rules["frame-ancestors"] == "'none'"
    assert not re.search(r"https?:|\*", policy)


def test_the_page_is_at_this_machines_own_address_alone():
    with server.listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert server.address(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert (
            "--host"
            not in subprocess.run(
                [sys.executable, "-m", "mgca", "app", "--help"], capture_output=True, text=True
            ).stdout
        )


def test_a_port_in_use(capsys, monkeypatch):
    monkeypatch.setattr(server, "check_installed", lambda: None)
    with server.listen(0) as listener:
        port = listener.getsockname()[1]
        assert main(["app", "--port", str(port), "--no-open"]) == 1
    error = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1" in error and "--port" in error


def test_without_gradio(capsys, monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    assert main(["app", "--no-open"]) == 1
    assert "pip install 'mgca[app]'" in capsys.readouterr().err


class Stopped:
    """In the place of a server."""

    should_exit = False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_server_and_not_the_process(number):
    # Whatever the shell that runs the tests has set aside.
    before, stopped = signal.signal(number, signal.default_int_handler), Stopped()
    try:
        with server._ended_by_signals(stopped):
            assert not stopped.should_exit
            signal.raise_signal(number)
        assert stopped.should_exit
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_signals_that_the_shell_has_set_aside_remain_so():
    before, stopped = signal.signal(signal.SIGHUP, signal.SIG_IGN), Stopped()
    try:
        with server._ended_by_signals(stopped):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not stopped.should_exit


def test_the_environment_turns_on_nothing_of_gradio():
    with mock.patch.dict(os.environ, SWITCHES | {"GRADIO_ALLOWED_PATHS": "/"}):
        with server._private_folder() as folder:
            left = {name: os.environ[name] for name in os.environ if name.startswith("GRADIO_")}
    assert left == {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}


@pytest.mark.parametrize(
    ("error", "text", "said"),
    [
        (None, "Cancel 1 running task(s), timeout graceful shutdown exceeded", False),
        (asyncio.CancelledError(), "Exception in ASGI application", False),
        (ValueError(), "Exception in ASGI application", True),
        (None, "ASGI callable returned without completing response.", True),
    ],
)
def test_that_a_window_was_left_open_is_no_error(error, text, said):
    trouble = error and (type(error), error, None)
    record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, text, (), trouble)
    assert server._worth_saying(record) == said


# In a browser.

START = """
import sys
sys.path.insert(0, sys.argv[1])
import socket

connect = socket.socket.connect


def local(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        print("left the machine:", address, file=sys.stderr, flush=True)
        raise OSError(f"no network, asked for {address}")
    return connect(self, address)


socket.socket.connect = local
socket.socket.connect_ex = lambda self, address: local(self, address) or 0

import torch

torch.set_num_threads(1)
from tiny import TinyBackbone

from mgca.cli import loading, main
from mgca.config import SegmentConfig
from mgca.model import Model

small = SegmentConfig(short_side=64, window=64, stride=32)
loading.load_on = lambda *asked: (Model(TinyBackbone(), None, small), "tiny")
sys.exit(main(["app", "--port", "0", "--no-open", "--max-upload", "1"]))
"""


def started(folder: Path) -> tuple[subprocess.Popen, str]:
    """The command in a process of its own, with its temporary files in a folder."""
    need_package("gradio")
    environment = os.environ | {"TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"} | SWITCHES
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(Path(__file__).parents[1])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    line = process.stdout.readline()
    found = re.match(r"(http://127\.0\.0\.1:\d+/) ", line)
    if found is None:
        process.kill()
        pytest.fail(f"{line}{process.communicate()[1]}", pytrace=False)
    return process, found[1]


def ask(address: str, method: str, path: str, *what) -> http.client.HTTPResponse:
    """The page's answer to a request that is no browser's."""
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"))
    connection.request(method, path, *what)
    return connection.getresponse()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Address of the page, and the folder of its temporary files; what must hold at its end."""
    folder = tmp_path_factory.mktemp("temporary")
    process, address = started(folder)
    try:
        yield address, folder
        left_open = ask(address, "GET", "/gradio_api/heartbeat/window")  # as each window does
        assert left_open.status == 200 and left_open.readline() == b"data: ALIVE\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0
    assert (out, err) == ("", "")
    assert not list(folder.glob("mgca-app-*"))  # uploads went with it


@pytest.fixture(scope="module")
def browser():
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser, site):
    """The page, opened; nothing it asks for may lie elsewhere, and nothing may go wrong in it."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(90_000)  # it takes a tenth of it where nothing else runs
    page = context.new_page()
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: line.type == "error" and wrong.append(line.text))
    page.goto(site[0])
    page.get_by_label("Words").wait_for()
    yield page
    context.close()
    assert asked and not [url for url in asked if not url.startswith((site[0], "data:", "blob:"))]
    assert wrong == []


def upload(page, file) -> None:
    page.locator("input[type=file]").first.set_input_files(file)


def rows(page) -> dict[str, str]:
    """The legend: of each word its share."""
    cells = [text.removeprefix("■ ") for text in page.locator(".answer td").all_inner_texts()]
    return dict(zip(cells[::2], cells[1::2], strict=True))


def shares(photo, words: list[str], *settings) -> dict[str, str]:
    config = dataclasses.replace(SMALL, blend="middle")  # as the commands for photographs have it
    areas = Model(TinyBackbone(), None, config).segment(photo, words, *settings).areas()
    return {name: f"{100 * area:.1f} %" for name, area in areas.items() if area}


def expect_rows(page, expected: dict[str, str]) -> None:
    """Wait until the legend is the one expected."""
    for _ in range(300):
        if rows(page) == expected:
            break
        page.wait_for_timeout(100)
    assert rows(page) == expected
    settle(page)


def settle(page) -> None:
    """Wait until a tab that came up, and an answer that came, change nothing any longer."""
    page.wait_for_timeout(500)


def similar_to(page, word: str) -> None:
    page.get_by_role("tab", name="One word").click()
    settle(page)  # a field that comes up has its value set
    page.get_by_label("Any word").fill(word)
    page.keyboard.press("Enter")
    page.get_by_alt_text(f"similarity to {word}").wait_for()
    settle(page)


def test_from_an_upload_to_labels(page, photo, tmp_path):
    upload(page, photo)
    page.get_by_label("Words").fill("cat, wooden table, sky")
    page.keyboard.press("Enter")
    words = ["cat", "wooden table", "sky"]
    expect_rows(page, shares(photo, words, 36))
    assert page.locator(".answer img").get_attribute("alt").startswith("segmentation into ")

    # The sliders, by keyboard: from the words on to the grid, and from there to the threshold.
    page.get_by_label("Words").focus()
    focused = page.locator("input[type=range]:focus")
    for steps, key, value in ((4, "ArrowLeft", "2"), (90, "ArrowRight", "0.9")):
        page.keyboard.press("Tab")
        for _ in range(6):
            if not focused.count():
                page.keyboard.press("Tab")
        for _ in range(steps):
            focused.press(key)
        assert focused.input_value() == value
        expect_rows(page, shares(photo, words, 4, 0.9 if value == "0.9" else None))
    page.get_by_text("4 meta-points per window").wait_for()
    assert "background" in rows(page)
    page.get_by_label("Every pixel on its own").check()
    expect_rows(page, shares(photo, words, None, 0.9))

    page.get_by_role("button", name="Labels as a PNG file").click()
    page.get_by_text("0 background, 1 cat, 2 wooden table, 3 sky").wait_for()
    with page.expect_download() as download:
        page.locator("a[download]").first.click()
    expected = Model(TinyBackbone(), None, SMALL).segment(photo, words, None, 0.9)
    with Image.open(download.value.path()) as labels:
        assert np.array_equal(np.asarray(labels), expected.to_numpy())
    # They stay when the words are left as they are, the answer to which is there before the next's.
    page.get_by_label("Words").focus()
    page.get_by_label("Words").blur()
    similar_to(page, "tree")
    page.get_by_role("tab", name="All words").click()
    page.get_by_text("0 background, 1 cat, 2 wooden table, 3 sky").wait_for(timeout=30_000)
    assert page.locator("a[download]").count()
    # Labels of other words are not offered any longer.
    page.get_by_label("Words").fill("cat, sky")
    page.keyboard.press("Enter")
    page.locator("a[download]").first.wait_for(state="detached")


def test_what_is_typed_is_text(page, photo):
    words = [SCRIPT, "{{value}}", "${window.ran = 1}", "<b>bold</b>"]
    upload(page, photo)
    page.get_by_label("Words").fill(", ".join(words))
    page.keyboard.press("Enter")
    expect_rows(page, shares(photo, words, 36))
    page.get_by_label("Words").fill(f"{SCRIPT}, {SCRIPT}")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text(SCRIPT).wait_for()
    similar_to(page, SCRIPT)
    assert page.evaluate("window.ran") is None
    assert page.locator('.answer img[src="x"], .answer b').count() == 0


def test_switches_in_the_environment_do_not_count(site):
    with ask(site[0], "GET", "/config") as answer:
        config = json.load(answer)
    assert config["root"] == site[0].rstrip("/") and not config["vibe_mode"]
    with ask(site[0], "GET", "/gradio_api/vibe-code") as answer:
        assert answer.status == 403


def test_another_page_may_link_to_this_one_and_no_more(browser, site):
    context = browser.new_context()
    other = context.new_page()
    with other.expect_response(f"{site[0]}theme.css") as style:
        link = f'<a href="{site[0]}">the page</a>'
        other.set_content(f'{link}<link rel="stylesheet" href="{site[0]}theme.css">')
    assert style.value.status == 403
    other.get_by_text("the page").click()
    other.get_by_label("Words").wait_for(timeout=90_000)
    context.close()


def test_uploads_that_are_refused(page, site, tmp_path):
    page.get_by_label("Words").fill("cat, sky")
    large, text = tmp_path / "large.png", tmp_path / "text.jpg"
    large.write_bytes(bytes(2**20 + 1))
    text.write_text("no picture")
    upload(page, large)
    page.get_by_text("exceed the maximum allowed size").wait_for()
    upload(page, text)
    page.get_by_role("alert").get_by_text("text.jpg: not a picture").wait_for()
    assert "Traceback" not in page.inner_text("body")
    # Nor does the limit hold in the page alone.
    begin = '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    for size, status in ((2**20 + 1, 413), (2**10, 200)):
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        body = begin.encode() + bytes(size) + b"\r\n--x--\r\n"
        with ask(site[0], "POST", "/gradio_api/upload", body, kind) as answer:
            assert answer.status == status


def test_uploads_are_this_users_alone(page, site, photo):
    upload(page, photo)
    page.get_by_label("Words").fill("cat")
    page.keyboard.press("Enter")
    expect_rows(page, {"cat": "100.0 %"})
    (private,) = site[1].glob("mgca-app-*")
    assert private.stat().st_mode & 0o077 == 0
    assert {path.name for path in site[1].rglob("photo.png")} == {"photo.png"}
    assert all(path.is_relative_to(private) for path in site[1].rglob("photo.png"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(page, site, photo, scheme):
    need_package("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    page.goto(f"{site[0]}?__theme={scheme}")
    page.get_by_label("Words").wait_for()
    assert Axe().run(page).generate_report().startswith("Found 0 ")
    upload(page, photo)
    page.get_by_label("Words").fill("cat, sky")
    page.keyboard.press("Enter")
    expect_rows(page, shares(photo, ["cat", "sky"], 36))
    # While an answer is on its way, the one before is pale.
    page.wait_for_function("!document.querySelector('.pending')")
    page.wait_for_timeout(500)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_the_page_fits_a_telephone(page, photo):
    page.set_viewport_size({"width": 360, "height": 700})
    upload(page, photo)
    page.get_by_label("Words").fill("cat, a rather long phrase for one class of a photograph, sky")
    page.keyboard.press("Enter")
    page.locator(".answer td").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
