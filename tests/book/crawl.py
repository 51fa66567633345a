"""Every page of the built book in one browser: what it loads, how it fits, what axe-core finds."""

import asyncio
import gzip
import io
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from browser import FLAGS

AT_ONCE = 4
SETTLING = 300  # milliseconds, for scripts that react to another width or theme
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 360, "height": 800}
VIEWS = ((DESK, "light"), (PHONE, "dark"))
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa"]}
# Contrast takes the most time by far: it is looked at of fewer texts, in both themes.
CONTRAST = "color-contrast"
WITHOUT_CONTRAST = {"runOnly": RULES, "rules": {CONTRAST: {"enabled": False}}}
# What the theme and the width change of a page: its colours, and what of it scrolls.
ONLY_CONTRAST = {"runOnly": {"type": "rule", "values": [CONTRAST]}}
ONLY_SCROLLING = {"runOnly": {"type": "rule", "values": ["scrollable-region-focusable"]}}
# Outlines of letters by the thousand, and MathML that is never seen: axe-core need not look at
# them. A formula stays as large as it is.
NO_LETTERS = """() => document.querySelectorAll("mjx-container > svg, mjx-assistive-mml")
    .forEach(drawing => drawing.replaceChildren())"""
# Leaves out the texts that look like two before them, on this page or another, because the
# elements they are in have the same classes and styles; and what is empty then. Two, because rows
# of tables take turns.
THIN = """seen => {
    const places = /^(DIV|NAV|ASIDE|DIALOG|FORM)$/;  // those whose ids style sheets name
    for (const node of [...document.body.querySelectorAll("*")].reverse()) {
        if (node.children.length || /^(IMG|INPUT|CANVAS|SELECT)$/.test(node.tagName)) continue;
        const empty = !node.textContent.trim();
        if (empty && !node.id) node.remove();  // scripts look for some that have an id
        if (empty) continue;
        let way = "";
        for (let up = node; up !== document.body; up = up.parentElement)
            way += `${up.tagName} ${places.test(up.tagName) ? up.id : ""} `
                + `${up.getAttribute("class")} ${up.getAttribute("style")}/`;
        seen[way] = (seen[way] || 0) + 1;
        if (seen[way] > 2) node.remove();
    }
    return seen;
}"""

IMAGES = """() => [...document.images].map(image => ({
    source: image.getAttribute("src").slice(0, 100),
    alt: (image.getAttribute("alt") || "").trim(),
    sized: image.hasAttribute("width") && image.hasAttribute("height")
}))"""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# What reaches over the right edge without being cut off or scrolled by something around it.
CULPRITS = """() => {
    const edge = document.documentElement.clientWidth + 1;
    const inside = node => {
        for (let up = node.parentElement; up && up !== document.body; up = up.parentElement)
            if (getComputedStyle(up).overflowX !== "visible") return true;
        return false;
    };
    return [...document.body.querySelectorAll("*")]
        .filter(node => node.getBoundingClientRect().right > edge && !inside(node))
        .slice(0, 3).map(node => `${node.tagName}.${node.className}`.slice(0, 80));
}"""
# Pictures that load when they come into view do so, wherever they are.
WHOLE_PAGE = """async () => {
    for (const image of document.images) image.loading = "eager";
    await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
    return [...document.images].filter(image => !image.naturalWidth).map(image => image.src);
}"""
THEME = "theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})"


@dataclass
class Visit:
    """What a page did.

    Attributes:
        page: Path of the page below the site.
        opened: Bytes that came until it was loaded, text compressed.
        whole: The same with all its pictures.
        requests: Addresses asked for.
        errors: Messages of the console, exceptions, failed requests, pictures that did not come.
        images: ``source``, ``alt`` and ``sized`` of each.
        wider: By view, what reaches over the page's edge.
        violations: Of axe-core, by view: rule, where, and what is wrong.
    """

    page: str
    opened: int = 0
    whole: int = 0
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    images: list[dict] = field(default_factory=list)
    wider: dict[str, list[str]] = field(default_factory=dict)
    violations: list[tuple[str, str, str, str]] = field(default_factory=list)

    def foreign(self) -> list[str]:
        """Requests to another host."""
        return [url for url in self.requests if not _is_local(url)]


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob", "file", "about") or parts.hostname == "127.0.0.1"


def pages_of(site: Path) -> list[str]:
    """The pages, as paths below the site; not those of scripts and fonts."""
    every = (path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    return sorted(page for page in every if not page.startswith(("_static/", "_sources/")))


@cache
def _compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), 6)


class _Pages(SimpleHTTPRequestHandler):
    """Sends text compressed, as GitHub Pages does: sizes are those of the published book."""

    protocol_version = "HTTP/1.1"  # connections stay open

    def send_head(self):
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        kind = self.guess_type(path)
        if not (path.is_file() and re.search(r"^text/|javascript|json|xml", kind)):
            return super().send_head()
        data = _compressed(path)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return io.BytesIO(data)

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A page that was closed before its last answer is no error."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address at which a folder is served meanwhile, with a slash at the end."""
    with _Server(("127.0.0.1", 0), partial(_Pages, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def crawl(chromium: str, address: str, pages: list[str]) -> list[Visit]:
    """Visit pages, a few at a time.

    It does so in a thread of its own: while Playwright's synchronous interface is open, as in a
    fixture of another test, its thread has a running event loop and takes no second one.

    Args:
        chromium: The browser's program.
        address: Of the site, with a slash at the end.
        pages: Paths below it.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _crawl(chromium, address, pages)).result()


async def _crawl(chromium: str, address: str, pages: list[str]) -> list[Visit]:
    from playwright.async_api import async_playwright

    turn = asyncio.Semaphore(AT_ONCE)
    seen: dict[str, int] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)

        async def one(page: str) -> Visit:
            async with turn:
                # A context of its own, so that nothing is there from another page.
                context = await browser.new_context(viewport=DESK, reduced_motion="reduce")
                try:
                    return await _visit(await context.new_page(), address, page, seen)
                finally:
                    await context.close()

        try:
            return await asyncio.gather(*map(one, pages))
        finally:
            await browser.close()


async def _visit(tab, address: str, page: str, seen: dict[str, int]) -> Visit:
    """Visit a page.

    Args:
        seen: How often the colours of a text were looked at on the pages before, by the elements
            that it is in.
    """
    from axe_playwright_python.base import AXE_SCRIPT

    visit = Visit(page)
    sizes = watch(tab, visit)
    tab.set_default_timeout(60_000)
    # index.html sends on to the first page at once.
    await tab.goto(address + page, wait_until="networkidle" if page == "index.html" else "load")
    visit.opened = await _sum(sizes)
    await tab.evaluate(AXE_SCRIPT)
    missing = await tab.evaluate(WHOLE_PAGE)
    visit.errors += [f"no picture: {source}" for source in missing]
    visit.images = await tab.evaluate(IMAGES)
    await tab.evaluate(NO_LETTERS)
    for view, theme in VIEWS:
        await _look(tab, view, theme)
        name = f"{view['width']} px"
        if await tab.evaluate(WIDER) > 0:
            visit.wider[name] = await tab.evaluate(CULPRITS)
        rules = WITHOUT_CONTRAST if view == DESK else ONLY_SCROLLING
        visit.violations += await _violations(tab, name, rules)
    seen |= await tab.evaluate(THIN, seen)
    for view, theme in reversed(VIEWS):  # the last one is still shown
        if view == DESK:
            await _look(tab, view, theme)
        visit.violations += await _violations(tab, f"{view['width']} px, {theme}", ONLY_CONTRAST)
    visit.whole = await _sum(sizes)
    return visit


async def _look(tab, view: dict[str, int], theme: str) -> None:
    await tab.set_viewport_size(view)
    await tab.evaluate(THEME, theme)
    await tab.wait_for_timeout(SETTLING)


def watch(tab, visit: Visit) -> list:
    """Note what a tab asks for and complains of; the list returned grows with what has ended."""
    ended: list = []
    tab.on("request", lambda request: visit.requests.append(request.url))
    tab.on("requestfinished", lambda request: ended.append(request))
    tab.on(
        "requestfailed", lambda request: visit.errors.append(f"{request.failure}: {request.url}")
    )
    tab.on("pageerror", lambda error: visit.errors.append(str(error)))
    tab.on("console", lambda message: _heard(message, visit))
    return ended


def _heard(message, visit: Visit) -> None:
    if message.type == "error":
        visit.errors.append(f"{message.text} ({message.location.get('url', '')})")


async def _sum(requests: list) -> int:
    sizes = await asyncio.gather(*(request.sizes() for request in list(requests)))
    return sum(size["responseBodySize"] for size in sizes)


async def _violations(tab, view: str, rules: dict) -> list[tuple[str, str, str, str]]:
    """What axe-core finds: view, rule, where, what is wrong."""
    # Preloading would fetch the style sheets once more, some of them by wrong addresses.
    options = rules | {"resultTypes": ["violations"], "preload": False}
    found = await tab.evaluate("options => axe.run(document, options)", options)
    return [
        (
            view,
            rule["id"],
            " ".join(map(str, node["target"])),
            " ".join(node["failureSummary"].split()),
        )
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
