"""The figure to turn: what is drawn is what was given, in one text, within its size."""

import base64
import json
import re

import numpy as np
import pytest
from checks import refused

from studies import figures
from studies.figures import turntable


def surfaces(layers=("relu", "layer1"), schemes=("zeros", "randn"), numbers=(8, 32), size=5):
    draw = np.random.default_rng(0)
    return [
        turntable.Surface(layer, scheme, n, draw.random((size, size)), draw.random((size, size)))
        for layer in layers
        for scheme in schemes
        for n in numbers
    ]


def page(given):
    still = figures.gallery({"a": np.eye(4)})
    return turntable.as_page(given, still, "Turn < it", {"seed": 0}, unit="σ")


def data(text):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1])


def test_every_surface_is_in_the_page_as_it_was_given():
    given = surfaces()
    held = data(page(given))
    assert held["n"] == [8, 32] and held["unit"] == "σ"
    assert len(held["maps"]) == len(given)
    for one, found in zip(given, held["maps"]):
        assert (found["layer"], found["scheme"], found["n"]) == (one.layer, one.scheme, one.n)
        for name, top, values in (
            ("pattern", "highest", one.pattern),
            ("floor", "floor_highest", one.floor),
        ):
            steps = np.frombuffer(base64.b64decode(found[name]), np.uint8).reshape(5, 5)
            assert np.abs(steps / 255 * found[top] - values).max() <= found[top] / 500
        border = np.concatenate([one.pattern[[0, -1]].ravel(), one.pattern[1:-1, [0, -1]].ravel()])
        assert found["border"] == pytest.approx(border.mean(), rel=1e-3)
        assert found["floor_mean"] == pytest.approx(one.floor.mean(), rel=1e-3)


def test_page_holds_everything_it_needs_and_its_still():
    text = page(surfaces())
    assert not re.search(r"""(src|href)=["']https?:""", text) and "import(" not in text
    assert text.count("<img") == 2 and 'alt="1 picture.' in text
    assert "Turn &lt; it" in text and "<b>seed</b>: 0" in text
    assert re.findall(r"<option[^>]*>(\w+)", text) == ["relu", "layer1", "zeros", "randn"]


def test_a_map_of_nothing_and_one_without_an_inside():
    flat = np.zeros((2, 2))
    (found,) = data(page([turntable.Surface("layer1", "zeros", 8, flat, flat)]))["maps"]
    assert found["highest"] == 0 and found["inside"] == found["border"] == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "one for each choice"),
        (surfaces()[:1] * 2, "2 surfaces for 1 layers"),
        (surfaces()[:-1], "7 surfaces for 2 layers, 2 schemes and 2 numbers of windows"),
        (surfaces(size=400), "expected 1,000,000 at most"),
    ],
)
def test_surfaces_that_do_not_fit_are_refused(given, says):
    assert says in refused(page, given)


@pytest.mark.parametrize(
    ("pattern", "floor", "says"),
    [
        (np.ones((3, 3)), np.ones((3, 4)), "expected the same (H, W)"),
        (np.ones((2, 3, 3)), np.ones((2, 3, 3)), "average over the channels"),
        (np.ones((1, 3)), np.ones((1, 3)), "at least 2 x 2"),
        (
            -np.ones((3, 3)),
            np.ones((3, 3)),
            "pattern of layer1, zeros has a value that is negative",
        ),
        (np.ones((3, 3)), np.full((3, 3), np.nan), "floor of layer1, zeros"),
    ],
)
def test_a_surface_that_is_none_is_refused(pattern, floor, says):
    assert says in refused(turntable.Surface, "layer1", "zeros", 8, pattern, floor)
