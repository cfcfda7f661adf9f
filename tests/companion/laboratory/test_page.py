"""The laboratory's page in headless Chromium, from a file: all that a reader does with it."""

import os
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

import ppp
from companion.laboratory import MODES, networks, page
from studies.networks import reach_of
from studies.patterns import design

pytestmark = pytest.mark.nightly

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SHOTS = os.environ.get("PPP_SCREENSHOTS", "")
"""A folder for pictures of each mode, if somebody wants to look at them."""


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "laboratory.html"
    path.write_text(page.make(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium here: install it (Debian: chromium)")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, html):
    """Open the page without a network; whatever goes wrong in it fails the test."""
    contexts, trouble = [], []

    def opened(mode="", *, script="", width=1300, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, offline=True, **options
        )
        contexts.append(context)
        if script:
            context.add_init_script(script)
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.on("request", lambda one: trouble.append(one.url) if one.url != url else None)
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("console", lambda one: trouble.append(one.text) if one.type == "error" else None)
        url = html.as_uri()
        tab.goto(f"{url}#{mode}" if mode else url)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert not [one for one in trouble if not one.startswith(("data:", "blob:", html.as_uri()))]


def picture(tab, canvas):
    return tab.locator(f"#{canvas}").evaluate("one => one.toDataURL()")


def until(tab, condition, given=None, most=60):
    """Wait until an expression is true; Playwright's own waiting is refused by the page."""
    ends = time.monotonic() + most
    while not tab.evaluate(condition, given):
        assert time.monotonic() < ends, f"{condition}: not within {most} s"
        time.sleep(0.02)


def live(tab):
    """Wait until the worker has answered for the chosen window."""
    text = "by 0 at most"
    until(tab, "text => document.getElementById('explored').textContent.includes(text)", text)


def shot(tab, name):
    if SHOTS:
        tab.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def state(tab, *names):
    found = tab.evaluate("laboratory.state")
    return [found[name] for name in names]


# ---- what is on the screen


def test_a_result_is_there_at_once_and_the_live_one_is_the_same(visit):
    tab = visit(script="window.Worker = class { constructor() { throw new Error('none'); } };")
    until(tab, "document.documentElement.classList.contains('live')")
    assert "does not let the page compute" in tab.text_content("#said")
    beforehand = [tab.locator(f"#{name}").evaluate(VALUES) for name in "aod"]
    answers = tab.locator("#answers").inner_text()
    assert len({tuple(map(tuple, one)) for one in beforehand}) == 3
    tab = visit()
    live(tab)
    for name, values in zip("aod", beforehand):
        # JPEGs are decoded by two libraries, which may round a pixel differently.
        now = np.array(tab.locator(f"#{name}").evaluate(VALUES))
        assert np.abs(now - np.array(values)).max() <= 12, name
    assert tab.locator("#answers").inner_text() == answers


VALUES = """one => {
  const { data } = one.getContext('2d').getImageData(0, 0, one.width, one.height);
  return Array.from({ length: data.length / 4 }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
}"""


def test_without_scripts_there_are_a_still_picture_and_a_sentence(visit):
    tab = visit(java_script_enabled=False)
    assert tab.locator(".still img").is_visible()
    assert "scripts" in tab.locator(".still figcaption").inner_text()
    assert not tab.locator(".live-only").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1300])
def test_every_mode_fits_and_can_be_read(visit, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = visit(width=width, color_scheme=scheme)
    live(tab)
    for mode in MODES:
        tab.click(f"nav a[href='#{mode}']")
        tab.locator(f"#{mode}").wait_for()
        if mode == "guess":
            tab.locator("#board button").first.wait_for()
        if mode == "corner":
            until(tab, "document.querySelectorAll('.strip i').length === 4 * 29")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, mode
        rules = {"runOnly": ["wcag2a", "wcag2aa", "cat.semantics"], "preload": False}
        found = axe.run(tab, options={**rules, "resultTypes": ["violations"]}).response
        broken = [(one["id"], one["nodes"][0]["html"][:90]) for one in found["violations"]]
        assert broken == [], mode
        shot(tab, f"{mode}-{width}-{scheme}")


# ---- exploring


def test_dragging_moves_the_window_by_strides_and_is_answered(visit):
    tab = visit()
    live(tab)
    tab.locator("#photograph").scroll_into_view_if_needed()
    box = tab.locator("#photograph").bounding_box()
    top, left = state(tab, "top", "left")
    scale = box["width"] / tab.evaluate("document.getElementById('photograph').width")
    x, y = (box["x"] + (left + 48) * scale, box["y"] + (top + 48) * scale)
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 20 * scale, y + 12 * scale)
    assert state(tab, "top", "left") == [top + 16, left - 16]
    spent = []
    for step in range(12):
        spent.append(tab.evaluate(ANSWERED, [x + (-20 + 16 * (step % 2)) * scale, y]))
    tab.mouse.up()
    print(f"dragging is answered after {sorted(spent)[6]:.0f} ms (median of 12)")
    assert sorted(spent)[6] < 1000
    moved = state(tab, "top", "left")
    tab.mouse.move(x, y)
    assert state(tab, "top", "left") == moved


# Moves the pointer and waits for another map A - O; says after how many milliseconds it is there.
ANSWERED = """([clientX, clientY]) => new Promise((answered) => {
  const map = document.getElementById("d"), before = map.toDataURL(), began = performance.now();
  const options = { clientX, clientY, pointerId: 1, bubbles: true };
  document.getElementById("photograph").dispatchEvent(new PointerEvent("pointermove", options));
  const look = () => {
    if (map.toDataURL() === before) requestAnimationFrame(look);
    else answered(performance.now() - began);
  };
  look();
})"""


def test_the_keyboard_moves_the_window_and_stops_at_the_edge(visit):
    tab = visit()
    live(tab)
    tab.focus("#photograph")
    top, left = state(tab, "top", "left")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowUp")
    assert state(tab, "top", "left") == [top - 16, left + 16]
    for _ in range(30):
        tab.keyboard.press("ArrowLeft")
    assert state(tab, "left") == [48]  # px of surroundings, which the network needs
    assert "48 px from the left" in tab.get_attribute("#photograph", "aria-label")


def test_a_finger_moves_the_window_and_guesses(visit):
    tab = visit(width=390, has_touch=True)
    live(tab)
    tab.locator("#photograph").scroll_into_view_if_needed()
    box, before = tab.locator("#photograph").bounding_box(), state(tab, "top", "left")
    tab.touchscreen.tap(box["x"] + 5, box["y"] + 5)
    assert state(tab, "top", "left") == [48, 48] != before
    tab.tap("nav a[href='#guess']")
    assert state(tab, "layer") == ["layer4"]
    tab.tap("#board button:nth-child(15)")
    assert "You said row 3, column 3" in tab.text_content("#guessed")


def test_layer_channel_and_padding_are_shown(visit):
    tab = visit()
    live(tab)
    seen = {picture(tab, "d")}
    tab.select_option("#channel", "3")
    assert tab.text_content("#d-name") == "A − O"
    seen.add(picture(tab, "d"))
    tab.select_option("#padding", "circular")
    until(tab, "document.getElementById('explored').textContent.includes('circular')")
    seen.add(picture(tab, "d"))
    tab.select_option("#layer", "layer4")
    until(tab, "document.getElementById('explored').textContent.includes('36 of the 36')")
    tab.select_option("#network", "optimal")
    until(tab, "before => document.getElementById('d').toDataURL() !== before", picture(tab, "d"))
    assert len(seen) == 3


# ---- the reader's own photograph


def saved(path, size, **options):
    draw = np.random.default_rng(0).integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), "u1")
    Image.fromarray(draw).resize(size, Image.Resampling.BICUBIC).save(path, **options)
    return path


def test_a_photograph_is_chosen_dropped_reduced_or_refused_in_a_sentence(visit, tmp_path):
    tab = visit()
    live(tab)
    tab.set_input_files("#file", saved(tmp_path / "mine.png", (401, 300)))
    until(tab, "laboratory.state.picture === 'mine.png'")
    live(tab)
    assert "401 x 300 px; 400 x 288 px are used. It stays" in tab.text_content("#said")
    tab.set_input_files("#file", saved(tmp_path / "huge.jpg", (5000, 3000)))
    until(tab, "laboratory.state.picture === 'huge.jpg'")
    live(tab)
    assert "it is reduced, and 640 x 384 px" in tab.text_content("#said")
    tab.set_input_files("#file", saved(tmp_path / "long.png", (2400, 200)))
    until(tab, "laboratory.state.picture === 'long.png'")
    assert "it is reduced, and 640 x 192 px" in tab.text_content("#said")
    (tmp_path / "words.png").write_text("no picture")
    tab.set_input_files("#file", tmp_path / "words.png")
    until(tab, "document.getElementById('said').textContent.includes('no picture')")
    tab.set_input_files("#file", saved(tmp_path / "small.png", (500, 150)))
    until(tab, "document.getElementById('said').textContent.includes('192 x 192')")
    assert state(tab, "picture") == ["long.png"]
    content = saved(tmp_path / "dropped.png", (300, 300)).read_bytes()
    tab.evaluate(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
          const options = { dataTransfer: data, bubbles: true, cancelable: true };
          document.body.dispatchEvent(new DragEvent("drop", options));
        }""",
        list(content),
    )
    until(tab, "laboratory.state.picture === 'dropped.png'")
    live(tab)


# ---- play


def test_play_gives_what_measure_gives_on_the_same_windows(visit):
    tab = visit("play")
    tab.select_option("#layer", "layer3")
    tab.click("#play-button")
    until(tab, "laboratory.played && laboratory.played.n >= 30")
    tab.click("#play-button")
    played = tab.evaluate(
        "(({ mean, floor, ...rest }) => ({ ...rest, mean: [...mean] }))(laboratory.played)"
    )
    drawn = tab.evaluate(
        """n => {
          const { data, pictures } = laboratory;
          const chosen = data.pictures.map(({ name }) => pictures.get(name));
          const plain = chosen.map(({ name, height, width, rgb }) => (
            { name, height, width, rgb: [...rgb] }));
          return [plain, [...drawnWindows(data.reach, chosen, 1)].slice(0, n)];
        }""",
        played["n"],
    )
    pictures = []
    for one in drawn[0]:
        pixels = torch.tensor(one["rgb"]).view(one["height"], one["width"], 3).permute(2, 0, 1)
        own = [place for place in drawn[1] if place["name"] == one["name"]]
        tops, lefts = (np.array([place[axis] for place in own]) for axis in ("top", "left"))
        pictures.append(ppp.Picture(one["name"], design.normal(pixels / 255), tops, lefts))
    reach = reach_of("resnet").only(["layer3"])
    found = ppp.measure(
        networks.residual("zeros"), ppp.Windows(pictures, 96), ["layer3"], "zeros", coverage=reach
    )["layer3"]
    print(f"n = {played['n']}: MAE-PPP {played['mae']:.6f}, ppp.measure {found.mae.value:.6f}")
    assert played["mae"] == pytest.approx(found.mae.value, rel=1e-4)
    assert played["maeFloor"] == pytest.approx(found.mae_floor, rel=0.25)
    assert np.abs(np.array(played["mean"]) - found.pattern.ravel()).max() < 1e-4 * found.sigma
    words = tab.text_content("#played")
    assert f"n = {played['n']} windows of 6 photographs" in words
    assert "Correlation with the shipped pattern: 0." in words
    shot(tab, "play")


def test_play_goes_on_starts_again_and_ends(visit):
    tab = visit("play")
    tab.check("#alone")
    tab.select_option("#picture", "astronaut")
    tab.click("#play-button")
    until(tab, "laboratory.played && laboratory.played.n > 3")
    tab.click("#play-button")
    tab.wait_for_timeout(500)
    paused = tab.evaluate("laboratory.played.n")
    tab.wait_for_timeout(500)
    assert tab.evaluate("laboratory.played.n") == paused
    tab.click("#play-button")
    whole = tab.evaluate("(({ tops, lefts }) => tops.length * lefts.length)(laboratory.places())")
    until(tab, "whole => laboratory.played.n === whole", whole)
    assert "all windows that there are" in tab.text_content("#played")
    first = tab.evaluate("laboratory.played.mae")
    assert tab.text_content("#play-button") == "Play"
    tab.click("#again")
    until(tab, "laboratory.played.n < 9")
    until(tab, "whole => laboratory.played.n === whole", whole)
    # The same windows in another order: zeros padding draws nothing.
    assert tab.evaluate("laboratory.played.mae") == pytest.approx(first, rel=1e-9)


def test_who_wants_less_motion_sees_fewer_steps(visit):
    tab = visit("play", reduced_motion="reduce")
    tab.evaluate(
        """() => { const said = document.getElementById('played'); window.seen = [];
          new MutationObserver(() => seen.push(Number(/n = (\\d+)/.exec(said.textContent)[1])))
            .observe(said, { childList: true, characterData: true, subtree: true }); }"""
    )
    tab.click("#play-button")
    until(tab, "window.seen.includes(16)")
    assert tab.evaluate("[...new Set(seen)].filter(n => n && n & (n - 1))") == []


# ---- the games


def test_a_cell_is_guessed_by_keyboard_and_the_score_is_kept(visit):
    tab = visit("guess")
    tab.locator("#board button").first.wait_for()
    assert tab.locator("#board button").count() == 36 and tab.locator(".clues figure").count() == 6
    tab.locator("#board button").first.focus()
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        tab.keyboard.press(key)
    assert "You said row 2, column 2" in tab.text_content("#guessed")
    for way in ("A", "O"):
        tab.check(f"input[name=way][value={way}]")
        tab.locator("#board .hidden").wait_for(state="detached")
        tab.locator("#board button").nth(3).click()
        tab.locator("#board .hidden").wait_for()
    rows = tab.locator("#score tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["A − O, layer4", "A, layer4", "O, layer4"]
    assert all("of 1" in row and row.endswith("3 %") for row in rows)
    tab.select_option("#padding", "randn")
    assert "No pattern is shipped" in tab.text_content("#guessed")


def test_full_convolution_is_right_on_black_and_fails_on_grey(visit):
    tab = visit("corner")
    until(tab, "document.querySelectorAll('.strip i').length === 4 * 29")
    counts = {
        (name, one): int(tab.text_content(f"#count-{name}-{one}").split("right in ")[1].split()[0])
        for name in networks.CANVASES
        for one in (0, 1)
    }
    assert counts["black", 0] == counts["black", 1] == 29
    assert counts["grey", 0] < 29 and counts["grey", 1] < 29
    assert tab.text_content("#says-grey").endswith("right.")
    tab.locator("#row").fill("26")
    assert tab.text_content("#says-grey").endswith("wrong.")
    assert tab.text_content("#says-black").endswith("right.")
    tab.select_option("#order", "1")
    assert tab.text_content("#says-grey").endswith("right.")


def test_the_exercises_show_their_answers(visit):
    tab = visit()
    live(tab)
    buttons = tab.locator("[data-set]")
    buttons.nth(0).click()
    assert state(tab, "layer", "network") == ["layer2", "zeros"]
    buttons.nth(1).click()
    until(tab, "laboratory.played && laboratory.played.n >= 2")
    assert state(tab, "network", "padding", "layer") == ["optimal", "zeros", "layer4"]
    time.sleep(0.3)
    buttons.nth(2).click()
    tab.locator("#board button").first.wait_for()
    assert tab.locator("#guess").is_visible() and not tab.locator("#play").is_visible()
    for answer in tab.locator("ol details").all():
        answer.locator("summary").click()
        assert len(answer.locator("p").inner_text()) > 100
    shot(tab, "exercises")
