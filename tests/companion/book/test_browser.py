"""Every page of a built book in headless Chromium: no network, nothing broken, readable by all.

The pages are those of ``PPP_HTML``, or of the build that was made last. Without a build, or without
Chromium, the tests are skipped; with ``PPP_REQUIRE_BROWSER=1`` they fail.
"""

import functools
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from companion.laboratory.page import MOST_BYTES as MOST_BYTES_OF_LABORATORY
from studies.paths import ROOT

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
MOST_BYTES = 3_000_000  # of a page with its figures
LABORATORY = "laboratory.html"  # which has a bound of its own

# Pages of Sphinx without content of their own.
MADE_BY_SPHINX = {"genindex.html", "search.html", "py-modindex.html", "index.html"}


def missing(what):
    if os.environ.get("PPP_REQUIRE_BROWSER") == "1":
        pytest.fail(what)
    pytest.skip(what)


def find_html():
    if given := os.environ.get("PPP_HTML"):
        return Path(given)
    built = [path for path in ROOT.glob("build/*/html") if (path / "index.html").exists()]
    return max(built, key=lambda path: path.lstat().st_mtime, default=None)


HTML = find_html()
PAGES = (
    sorted(
        path.relative_to(HTML).as_posix()
        for path in HTML.rglob("*.html")
        if path.name not in MADE_BY_SPHINX and "_static" not in path.parts
    )
    if HTML
    else []
)


@functools.cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(path):
    soup = parsed(path)
    return {tag["id"] for tag in soup.find_all(id=True)} | {
        tag["name"] for tag in soup.find_all("a", attrs={"name": True})
    }


def test_there_is_a_book_to_look_at():
    if not HTML:
        missing("no built book: run 'make book PROFILE=quick' first")
    assert {"intro.html", "glossary.html"} <= set(PAGES)


per_page = pytest.mark.parametrize("name", PAGES or [pytest.param("", marks=pytest.mark.skip)])


@per_page
def test_links_lead_somewhere(name):
    """Every file and every anchor that a page names is there."""
    page = HTML / name
    broken = []
    for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
        for found in parsed(page).find_all(tag, attrs={attribute: True}):
            url = urlsplit(found[attribute])
            if url.scheme in ("http", "https", "mailto", "data"):
                if tag != "a" and url.scheme != "data":
                    broken.append(found[attribute])
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page.resolve()
            if target.is_dir():
                target /= "index.html"
            if not target.exists() or (
                url.fragment
                and target.suffix == ".html"
                and unquote(url.fragment) not in anchors(target)
            ):
                broken.append(found[attribute])
    assert not broken


@per_page
def test_a_page_is_light(name):
    page = HTML / name
    figures = {
        (page.parent / unquote(tag["src"])).resolve()
        for tag in parsed(page).article.find_all("img", src=True)
        if not tag["src"].startswith("data:")
    }
    size = page.stat().st_size + sum(path.stat().st_size for path in figures)
    most = MOST_BYTES_OF_LABORATORY if name == LABORATORY else MOST_BYTES
    assert size <= most, f"{size:,} bytes"


@per_page
def test_figures_say_what_they_show_and_come_from(name):
    wanted = {"profile", "versions", "device", "commit", "run time"}
    for figure in parsed(HTML / name).find_all("figure", class_="ppp-figure"):
        assert len(figure.img["alt"]) > 40
        assert len(figure.figcaption.get_text()) > 20
        facts = {item.b.get_text() for item in figure.details.find_all("li") if item.b}
        assert wanted <= facts, sorted(wanted - facts)
        # Of a claim, the words above its figure state samples and seeds; some figures draw none.
        drawn = {"n", "seed", "seeds", "seeds_live", "scene_seed", "scene_seeds", "repeats"}
        words = figure.details.get_text()
        without = "no picture" in words or "from their definition" in words
        assert without or facts & (drawn | {"shipped", "claim"}), facts
        known = {"network", "networks", "trajectories", "photographs", "data", "tables", "timed"}
        assert facts & known, facts


@per_page
def test_every_table_can_be_downloaded(name):
    for table in parsed(HTML / name).find_all("table", class_="dataframe"):
        link = table.find_next("a", download=True)
        assert link and link["href"].endswith(".csv")


# ---- in the browser


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        missing("no Chromium here: install it (Debian: chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A page that was opened without a network, with everything that went wrong."""

    def __init__(self, browser, name, *, width=1300, javascript=True, query=""):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            offline=True,
            java_script_enabled=javascript,
        )
        self.page = self.context.new_page()
        self.trouble = []
        self.page.on("request", self._request)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("requestfailed", lambda one: self.trouble.append(f"failed: {one.url}"))
        self.page.goto((HTML / name).resolve().as_uri() + query, wait_until="load")

    def _request(self, request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.trouble.append(f"request: {request.url}")

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.trouble.append(f"console: {message.text}")

    def theme(self, name):
        self.page.evaluate(
            "name => { document.documentElement.dataset.theme = name;"
            " document.documentElement.dataset.mode = name; }",
            name,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


SHOWN_PICTURES = """[...document.querySelectorAll('article figure img')].flatMap(one => {
  const style = getComputedStyle(one);
  const shown = style.display !== 'none';
  return shown ? [[one.className, style.backgroundColor, style.filter, style.opacity]] : [];
})"""

# Contrast, names, order of headings, focus, by axe-core's families.
RULES = ["wcag2a", "wcag2aa", "cat.semantics"]
CODE_PAGE = "notebooks/padding-schemes.html"
# A list of citations gets roles from Docutils that are out of date.
OLD_ROLES = {"aria-deprecated-role", "aria-required-children"}


@pytest.mark.slow
@per_page
def test_page_in_the_browser(browser, name):
    """No request, no error; formulas set, pictures there; accessible; light, dark, on a phone."""
    with Visit(browser, name) as visit:
        formulas_are_set(visit.page)
        pictures_are_there(visit.page)
        assert not violations(visit.page, name, RULES, **{"color-contrast": {"enabled": False}})
        for theme in ("light", "dark"):
            visit.theme(theme)
            assert visit.page.evaluate(ONE_OF_EACH_LOOK) > 0
            assert not violations(visit.page, name, ["color-contrast"], "[data-look]"), theme
            # One picture of two is shown, without a filter; only what is drawn on white has a card.
            for drawn_for, *look in visit.page.evaluate(SHOWN_PICTURES):
                if (drawn_for, theme) == ("", "light"):  # on the page, which is white
                    continue
                assert drawn_for in ("", f"ppp-{theme}")
                card = "rgba(0, 0, 0, 0)" if drawn_for == "ppp-dark" else "rgb(255, 255, 255)"
                assert look == [card, "none", "1"], (theme, drawn_for)
        visit.page.set_viewport_size({"width": 360, "height": 800})
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{wide} px wide on a phone of 360 px: {too_wide(visit.page)}"
        assert not visit.trouble


@pytest.mark.slow
def test_text_without_contrast_is_found(browser):
    """One paragraph among many, one word of it, and what lies over something else."""
    with Visit(browser, "intro.html") as visit:
        for place in ("p:last-of-type", "p:first-of-type a", "p {position: absolute} p"):
            pale = visit.page.add_style_tag(
                content=f"article {place} {{color: #fafafa !important}}"
            )
            visit.page.evaluate(ONE_OF_EACH_LOOK)
            assert violations(visit.page, "intro.html", ["color-contrast"], "[data-look]"), place
            pale.evaluate("one => one.remove()")
        visit.page.evaluate(ONE_OF_EACH_LOOK)
        assert not violations(visit.page, "intro.html", ["color-contrast"], "[data-look]")


def formulas_are_set(page):
    if page.locator(".math").count():
        page.wait_for_function("window.MathJax && MathJax.startup && MathJax.startup.promise")
        page.evaluate("MathJax.startup.promise.then(() => true)")
        unset = page.evaluate(
            "[...document.querySelectorAll('.math')]"
            ".filter(one => !one.querySelector('mjx-container')).map(one => one.textContent)"
        )
        assert not unset
        assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


def pictures_are_there(page):
    page.evaluate(
        "Promise.all([...document.images].map(one => { one.loading = 'eager';"
        " return one.complete ? 1 : new Promise(done => one.onload = one.onerror = done); }))"
    )
    gone = page.evaluate(
        "[...document.images].filter(one => !one.naturalWidth && one.offsetParent)"
        ".map(one => one.src)"
    )
    assert not gone


# Marks one element of each look among those that hold text: two that agree in size, weight and
# colour, and lie on the same backgrounds, have the same contrast. One that leaves the flow may
# lie on anything: each is marked. It says how many there are.
ONE_OF_EACH_LOOK = """(() => {
  const looks = new Set();
  const walk = (one, behind, leaves) => {
    const style = getComputedStyle(one);
    const own = [style.backgroundColor, style.backgroundImage, style.opacity].join(" ");
    if (own !== "rgba(0, 0, 0, 0) none 1") behind += "|" + own;
    leaves ||= ["absolute", "fixed", "sticky"].includes(style.position);
    const look = [style.color, style.fontSize, style.fontWeight, style.textShadow, behind].join();
    const text = [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    const marked = text && one.checkVisibility() && (leaves || !looks.has(look));
    if (marked) looks.add(look);
    one.toggleAttribute("data-look", marked);
    for (const child of one.children) walk(child, behind, leaves);
  };
  walk(document.querySelector("article"), "", false);
  return document.querySelectorAll("[data-look]").length;
})()"""


def violations(page, name, rules, where="article", **changed):
    """Return what axe-core finds by these rules or families of rules."""
    axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    # Its preloading would be refused: it reads style sheets again, by a request.
    options = {"runOnly": rules, "resultTypes": ["violations"], "preload": False}
    options["rules"] = changed
    # Code has the same colours on every page, and thousands of pieces: one page stands for all.
    context = {"include": [[where]]}
    if name != CODE_PAGE:
        context["exclude"] = [[".highlight"]]
    found = axe_playwright.Axe().run(page, context=context, options=options)
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:120]} ({len(one['nodes'])})"
        for one in found.response["violations"]
        if not (name == "references.html" and one["id"] in OLD_ROLES)
    ]


def too_wide(page):
    """Return the elements that reach beyond a phone, the innermost first."""
    return page.evaluate(
        "[...document.querySelectorAll('article *')].filter(one => "
        "one.getBoundingClientRect().right > 360 && getComputedStyle(one).position !== 'absolute')"
        ".map(one => one.tagName + '.' + one.className).slice(-3)"
    )


@pytest.mark.slow
def test_search_finds_without_a_network(browser):
    with Visit(browser, "search.html", query="?q=jackknife") as visit:
        visit.page.wait_for_selector("#search-results li a", timeout=20_000)
        found = visit.page.locator("#search-results li a").all_inner_texts()
        assert len(found) >= 2
        assert not visit.trouble


@pytest.mark.slow
def test_keyboard_reaches_the_content(browser):
    """The first stop of the keyboard is the link that skips to the content."""
    with Visit(browser, "intro.html") as visit:
        visit.page.keyboard.press("Tab")
        href = visit.page.evaluate("document.activeElement.getAttribute('href')")
        assert href == "#main-content"
        visit.page.keyboard.press("Enter")
        assert visit.page.evaluate("location.hash") == "#main-content"


@pytest.mark.slow
def test_figure_1_can_be_turned_and_stepped_through(browser):
    name = "notebooks/extracting-ppp.html"
    with Visit(browser, name) as visit:
        box = visit.page.locator(".ppp-turntable")
        canvas, said = box.locator("canvas"), box.locator("output")
        assert box.is_visible() and not visit.page.locator(".ppp-still").first.is_visible()

        def picture():
            return canvas.evaluate("one => one.toDataURL()")

        before, words = picture(), said.inner_text()
        canvas.focus()
        visit.page.keyboard.press("ArrowRight")
        turned = picture()
        assert turned != before and said.inner_text() == words
        slider = box.locator("input[type=range]")
        slider.focus()
        visit.page.keyboard.press("ArrowLeft")
        stepped = picture()
        assert stepped != turned and said.inner_text() != words
        for field in ("layer", "scheme"):
            options = box.locator(f"select[name={field}] option").all_inner_texts()
            words = said.inner_text()
            box.locator(f"select[name={field}]").select_option(options[-1])
            assert options[-1] in said.inner_text() and said.inner_text() != words
        assert not visit.trouble
    with Visit(browser, name, javascript=False) as visit:
        assert visit.page.locator(".ppp-still img").first.is_visible()
        assert not visit.page.locator(".ppp-turntable").is_visible()
