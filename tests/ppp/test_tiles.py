import numpy as np
import pytest
from checks import refused
from torch import nn
from toys import LAYERS, scenes

import ppp
from ppp.results import flat
from ppp.tiles import Bound, bound, pass_bytes

SIZE, SCHEMES = 20, [None, "reflect", "circular"]


@pytest.fixture(scope="module")
def windows(coverage):
    return ppp.cut_windows(scenes(2, 200, 260), SIZE, coverage, per_picture=30, seed=0)


@pytest.fixture(scope="module")
def least(model, coverage):
    return pass_bytes(model, LAYERS, ppp.size_needed(SIZE, coverage))


def close(first, second) -> None:
    """Equal up to float error: patterns, metrics, null tests and checkpoints."""
    assert list(first) == list(second)
    for key, result in first.items():
        other = second[key]
        np.testing.assert_allclose(result.pattern, other.pattern, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.deviation, other.deviation, rtol=1e-4, atol=1e-5)
        assert result.null_test.cells == other.null_test.cells
        assert result.null_test.passed is other.null_test.passed
        pairs = list(zip(result.checkpoints, other.checkpoints, strict=True))
        for a, b in pairs:
            np.testing.assert_allclose(a.pattern, b.pattern, rtol=1e-4, atol=1e-5)
        for a, b in [(result, other), *((a.summary, b.summary) for a, b in pairs)]:
            assert (a.n, a.groups) == (b.n, b.groups)
            values = (list(flat(summary).values()) for summary in (a, b))
            np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-5)


# --- putting windows together ------------------------------------------------------------


@pytest.mark.parametrize("pixels", [900, 2000, 10_000, 40_000, 10**7])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_window_is_in_one_tile_and_each_tile_within_the_bound(pixels, seed):
    tops, lefts = np.random.default_rng(seed).integers(0, 50, (2, 60)) * 8
    tight = Bound((30, 30), pixels)
    tiles = tight.tiles(tops, lefts)
    assert sorted(np.concatenate(tiles)) == list(range(60))
    areas = [tight.area(tops[tile], lefts[tile]) for tile in tiles]
    assert max(areas) <= pixels
    # what fits is done at once, in the order given; tiles cost no more than single windows
    single = len(tiles) == 1 and list(tiles[0]) == list(range(60))
    assert single if pixels == 10**7 else sum(areas) <= 60 * 900


@pytest.mark.parametrize(("pixels", "most"), [(20_000, 4), (10_000, 8), (5_000, 32)])
def test_tiles_are_filled_where_windows_are_dense(pixels, most):
    """Together they need 190 x 190 px, one by one five times as much."""
    tops, lefts = np.random.default_rng(0).integers(0, 21, (2, 200)) * 8
    full = Bound((30, 30), pixels)
    tiles = full.tiles(tops, lefts)
    assert len(tiles) <= most
    assert sum(full.area(tops[tile], lefts[tile]) for tile in tiles) < 2.2 * 190 * 190


# --- measuring in tiles ------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3, 8])
@pytest.mark.parametrize("checkpoints", [(), (5, 37, 60)])
def test_tiles_change_nothing(model, windows, coverage, least, times, checkpoints):
    options = {"coverage": coverage, "checkpoints": checkpoints}
    whole = ppp.measure(model, windows, LAYERS, SCHEMES, **options)
    tiled = ppp.measure(model, windows, LAYERS, SCHEMES, memory=times * least, **options)
    close(tiled, whole)
    assert whole.provenance["memory"] is None and whole.provenance["tiles"] == 2
    assert tiled.provenance["memory"] == times * least and tiled.provenance["tiles"] > 2


def test_a_bound_that_holds_every_picture_changes_no_bit(model, windows, coverage):
    options = {"coverage": coverage, "seed": 1}
    whole = ppp.measure(model, windows, LAYERS, [*SCHEMES, "randn"], **options)
    tiled = ppp.measure(model, windows, LAYERS, [*SCHEMES, "randn"], memory=10**9, **options)
    assert tiled.table().equals(whole.table()) and tiled.provenance["tiles"] == 2
    assert all(np.array_equal(r.pattern, tiled[key].pattern) for key, r in whole.items())


def test_randn_draws_for_the_windows_tile_by_tile(model, windows, coverage, least):
    """The same windows, given in the order of the tiles, make the same draws without tiles."""
    limit = bound(model, LAYERS, coverage, 3 * least)
    ordered = []
    for picture in windows:
        for tile in limit.tiles(picture.tops, picture.lefts):
            places = picture.tops[tile], picture.lefts[tile]
            ordered.append(ppp.Picture(picture.name, picture.pixels, *places))
    assert len(ordered) > 2
    schemes = ["randn", "zeros", "randn(border)"]
    whole = ppp.measure(model, ppp.Windows(ordered, SIZE), LAYERS, schemes, coverage=coverage)
    tiled = ppp.measure(model, windows, LAYERS, schemes, coverage=coverage, memory=3 * least)
    close(tiled, whole)


def test_no_pass_is_larger_than_the_bound(model, windows, coverage, least):
    limit, seen = bound(model, LAYERS, coverage, 4 * least), []
    handle = model[0].register_forward_hook(
        lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape[-2:]))
    )
    try:
        got = ppp.measure(model, windows, LAYERS, "zeros", coverage=coverage, memory=4 * least)
    finally:
        handle.remove()
    tiles = got.provenance["tiles"]
    passes = [height * width for height, width in seen if (height, width) != (SIZE, SIZE)]
    assert tiles > 2 and max(passes[-tiles:]) <= limit.pixels


# --- refusals ----------------------------------------------------------------------------


def test_a_bound_too_small_for_one_window_says_what_one_needs(model, windows, coverage, least):
    options = {"coverage": coverage, "memory": least - 1}
    assert f"needs {least} bytes" in refused(ppp.measure, model, windows, LAYERS, **options)
    ppp.measure(model, windows, LAYERS, "zeros", coverage=coverage, memory=least)


@pytest.mark.parametrize("memory", [0, -5, 1e9, "1GB", True])
def test_a_bound_that_is_no_number_of_bytes_is_refused(model, windows, coverage, memory):
    options = {"coverage": coverage, "memory": memory}
    assert repr(memory) in refused(ppp.measure, model, windows, LAYERS, **options)


def test_the_estimate_counts_what_is_kept_and_what_is_worked_on():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)).eval()
    pixels = 4 * 10 * 12
    assert pass_bytes(net, ["1"], (10, 12)) == pixels * (3 + 2 + 2 * (3 + 4))
    assert pass_bytes(net, ["0", "1"], (10, 12)) == pixels * (3 + 4 + 2 + 2 * (3 + 4))
    assert pass_bytes(net.double(), ["1"], (10, 12)) == 2 * pixels * (3 + 2 + 2 * (3 + 4))
