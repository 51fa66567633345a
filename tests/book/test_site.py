"""The built book in a browser: quiet, offline, light, accessible, and what reacts does react."""

import re
import time

import pytest
from crawl import PHONE, Visit, crawl, pages_of, served
from report import write_report

MIB = 2**20
# Of text compressed, so that MathJax, on pages with formulas, takes its part of the second.
FIRST_LIMIT, PAGE_LIMIT = 1.5 * MIB, 3 * MIB
SEARCHED = "granularity"
REACTING = 20  # seconds, as other tests may have the cores

# What axe-core finds in the theme and cannot be mended by a style: rule, part of the selector, why.
EXCEPTIONS: list[tuple[str, str, str]] = []


@pytest.fixture(scope="module")
def visits(site, chromium, address) -> list[Visit]:
    done = crawl(chromium, address, pages_of(site))
    write_report(site.parent / "site-report.csv", site, done)
    return done


def by_page(visits, wrong) -> str:
    """What is wrong, a line per page that has something."""
    found = {visit.page: wrong(visit) for visit in visits}
    return "\n".join(f"{page}: {some}" for page, some in found.items() if some)


# One test, so that with several workers one of them alone visits the pages.
def test_every_page(site, visits, subtests):
    with subtests.test("no errors in the console, no failed requests"):
        assert not (found := by_page(visits, lambda visit: visit.errors)), found
    with subtests.test("no request to another host"):
        assert not (found := by_page(visits, Visit.foreign)), found
    with subtests.test("every image has a text and a size"):
        bare = by_page(
            visits,
            lambda visit: [
                f"{image['source']} has no {'text' if not image['alt'] else 'size'}"
                for image in visit.images
                if not (image["alt"] and image["sized"])
            ],
        )
        assert not bare, bare
    with subtests.test("nothing scrolls a page sideways"):
        assert not (found := by_page(visits, lambda visit: visit.wider)), found
    with subtests.test("no page is heavy"):
        heavy = by_page(
            visits, lambda visit: visit.whole > PAGE_LIMIT and f"{visit.whole / MIB:.1f} MiB"
        )
        assert not heavy, heavy
    with subtests.test("the first page opens with little"):
        (first,) = (visit for visit in visits if visit.page == "index.html")
        assert first.opened < FIRST_LIMIT, f"{first.opened / MIB:.2f} MiB"
    with subtests.test("axe-core finds nothing"):
        assert not (found := by_page(visits, unexpected)), found


def test_a_visit_counts_compressed_text_and_may_come_at_any_time(tmp_path, chromium, browser):
    """As published, and while the browser of other tests is open."""
    script = "// the same line\n" * 10_000
    (tmp_path / "script.js").write_text(script)
    (tmp_path / "page.html").write_text('<!doctype html><script src="script.js"></script>')
    with served(tmp_path) as address:
        (visit,) = crawl(chromium, address, pages_of(tmp_path))
    assert [url.removeprefix(address) for url in visit.requests[:2]] == ["page.html", "script.js"]
    assert 0 < visit.opened < len(script) / 50


HEAD = '<!doctype html><html lang="en"><title>a page</title><link rel="icon" href="data:,">'
WRONG = """<style>
body { color: #000; background: #fff; }
.pale { color: #ccc; }
[data-theme=dark] .dim { color: #ddd; }
#narrow { max-width: 500px; overflow-x: auto; white-space: nowrap; }
#wide { width: 600px; }
</style>
<p class="pale">Hard to read.</p><p class="dim">Hard to read in the dark.</p>
<div id="narrow">some words in a line that does not break on a phone</div>
<div id="wide">.</div>
<img src="none.png"><img src="http://elsewhere.example/a.png" alt="from elsewhere">
"""


def test_a_visit_finds_what_is_wrong(tmp_path, chromium):
    lines = "<p>Easy to read.</p>" * 20
    for name, more in {"a": WRONG, "b": ""}.items():
        page = f"{HEAD}<main><h1>A page</h1>{lines}{more}</main></html>"
        (tmp_path / f"{name}.html").write_text(page)
    with served(tmp_path) as address:
        wrong, right = crawl(chromium, address, pages_of(tmp_path))
    assert not (right.errors or right.foreign() or right.images or right.wider or right.violations)
    assert wrong.foreign() == ["http://elsewhere.example/a.png"]
    assert any("none.png" in error for error in wrong.errors)
    assert [(image["alt"], image["sized"]) for image in wrong.images][0] == ("", False)
    assert list(wrong.wider) == ["360 px"] and "DIV" in wrong.wider["360 px"][0]
    found = {(view, rule, where) for view, rule, where, _ in wrong.violations}
    assert found == {
        ("1400 px", "image-alt", 'img[src$="none.png"]'),
        ("360 px", "scrollable-region-focusable", "#narrow"),
        ("360 px, dark", "color-contrast", ".pale"),
        ("360 px, dark", "color-contrast", ".dim"),
        ("1400 px, light", "color-contrast", ".pale"),
    }


def unexpected(visit: Visit) -> list[str]:
    """What axe-core found on a page, less the exceptions, one line for each rule and place."""
    return sorted(
        {
            f"\n  {rule} ({view}) {where}: {what[:200]}"
            for view, rule, where, what in visit.violations
            if not any(rule == known and part in where for known, part, _ in EXCEPTIONS)
        }
    )


@pytest.fixture
def tab(browser):
    """A tab of its own, in which no script may fail."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    opened = context.new_page()
    opened.set_default_timeout(20_000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert not errors


def pages_with(site, pattern: str) -> list[str]:
    """The pages whose text has this."""
    return [
        page
        for page in pages_of(site)
        if re.search(pattern, (site / page).read_text(encoding="utf-8"))
    ]


def test_three_pages_opened_from_the_folder(site, browser):
    """Without a server, as after a download."""
    notebooks = [page for page in pages_of(site) if page.startswith("notebooks/")]
    for page in ("index.html", "method.html", *notebooks[:1]):
        context = browser.new_context()
        tab = context.new_page()
        asked, wrong = [], []
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("requestfailed", lambda request, wrong=wrong: wrong.append(request.url))
        tab.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
        # index.html sends on to the first page at once.
        tab.goto((site / page).as_uri(), wait_until="networkidle")
        if page == "method.html":  # formulas are set without a network too
            tab.wait_for_selector("mjx-container svg")
        context.close()
        assert not wrong, page
        assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), page


def test_next_and_previous(tab, address):
    tab.goto(address)
    tab.wait_for_selector("a.right-next")
    title = tab.title()
    tab.click("a.right-next")
    tab.wait_for_function("title => document.title !== title", arg=title)
    tab.click("a.left-prev")
    tab.wait_for_function("title => document.title === title", arg=title)


def test_the_sidebar_opens_on_a_phone(tab, address):
    tab.set_viewport_size(PHONE)
    tab.goto(address)
    links = tab.locator("nav.bd-links a:visible")
    assert links.count() == 0
    tab.locator("button.primary-toggle:visible").first.click()
    links.first.wait_for()


def test_the_search_finds_a_word(tab, address):
    tab.goto(f"{address}search.html?q={SEARCHED}")
    tab.get_by_text("Search finished").wait_for()  # it shows the pages one after the other
    found = tab.locator("#search-results li a").evaluate_all("links => links.map(a => a.href)")
    assert any("method.html" in link or "intro.html" in link for link in found)


def test_the_theme_can_be_changed(tab, address):
    tab.goto(address)
    shade = "() => getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(3):  # auto, light and dark
        tab.locator(".theme-switch-button:visible").first.click()
        seen.add(tab.evaluate(shade))
    assert len(seen) == 2


SORT = """table => [...table.tBodies[0].rows].map(row => row.cells[COLUMN].textContent.trim())"""


def test_tables_sort(tab, site, address):
    pages = pages_with(site, r'<table[^>]*class="[^"]*\bsortable\b')
    if not pages:
        pytest.skip("no page has a sortable table")
    tab.goto(address + pages[0])
    table = tab.locator("table.sortable").first
    buttons = table.locator("thead th button")
    rows = table.locator("tbody tr").count()
    assert rows > 1 and buttons.count() > 0
    for column in range(buttons.count()):
        read = SORT.replace("COLUMN", str(column))
        head = table.locator("thead th").nth(column)
        orders = []
        for _ in range(2):
            buttons.nth(column).focus()
            tab.keyboard.press("Enter")
            direction = head.get_attribute("aria-sort")
            assert direction in ("ascending", "descending")
            texts = table.evaluate(read)
            numbers = [number(text) for text in texts if number(text) is not None]
            if len(numbers) == len(texts):
                assert numbers == sorted(numbers, reverse=direction == "descending")
            orders.append(direction)
        assert len(set(orders)) == 2


def number(text: str) -> float | None:
    """The number that a cell begins with."""
    found = re.match(r"[+-]?\d[\d,]*(\.\d+)?", text.replace("\N{MINUS SIGN}", "-"))
    return float(found.group().replace(",", "")) if found else None


def test_interactive_figures_react(tab, site, address):
    """Each becomes ready when it comes into view, and shows something else after its first control
    was used with the keyboard."""
    pages = pages_with(site, "<mgca-figure ")
    if not pages:
        pytest.skip("no page has an interactive figure")
    for page in pages:
        tab.goto(address + page)
        figures = tab.locator("mgca-figure")
        for place in range(figures.count()):
            figure = figures.nth(place)
            figure.scroll_into_view_if_needed()
            figure.locator(".mgca-live").wait_for(state="visible")
            control = figure.locator(".mgca-live :is(input, select, button)").first
            control.wait_for(state="visible")
            before = shown(figure)
            use(tab, control)
            end = time.monotonic() + REACTING
            while shown(figure) == before:
                assert time.monotonic() < end, f"{page}: figure {place + 1} does not react"
                tab.wait_for_timeout(50)


def shown(figure) -> list[str]:
    """What a figure shows: its text and drawings, and the pictures on its canvases."""
    return figure.evaluate(
        """figure => [
            ...[...figure.querySelectorAll(".mgca-live svg, .mgca-live [role=status]")]
                .map(node => node.outerHTML),
            ...[...figure.querySelectorAll("canvas")].map(canvas => canvas.toDataURL())
        ]"""
    )


def use(tab, control) -> None:
    """Change a control by the keyboard; a slider at its end goes back."""
    kind = control.evaluate("control => control.type")
    control.focus()
    if kind in ("checkbox", "radio"):
        tab.keyboard.press("Space")
    elif kind == "range":
        at_end = control.evaluate("control => control.value === control.max")
        tab.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
    elif kind == "select-one":
        at_end = control.evaluate("box => box.selectedIndex === box.options.length - 1")
        tab.keyboard.press("ArrowUp" if at_end else "ArrowDown")
    else:
        tab.keyboard.press("Enter")
