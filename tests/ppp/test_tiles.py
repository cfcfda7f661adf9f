import numpy as np
import pytest
import torch
from torch import nn

import ppp
from ppp.errors import PPPError
from ppp.results import flat
from ppp.tiles import Bound, bound, pass_bytes
from ppp.windows import Picture, Windows

SIZE, LAYERS = 20, ["2", "4", "6"]
SCHEMES = [None, "reflect", "circular"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 4, 3, padding=1),
    ).eval()


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def reach(model):
    return ppp.coverage(model, LAYERS, SIZE)


@pytest.fixture(scope="module")
def windows(reach):
    draw = torch.Generator().manual_seed(0)
    scenes = {f"scene {i}": torch.randn(3, 200 + 30 * i, 260, generator=draw) for i in range(3)}
    return ppp.cut_windows(scenes, SIZE, reach, per_picture=30, seed=0)


@pytest.fixture(scope="module")
def least(model, reach):
    return pass_bytes(model, LAYERS, ppp.size_needed(SIZE, reach))


def close(first, second) -> None:
    """Equal up to float error: patterns, summaries, null tests and checkpoints."""
    assert list(first) == list(second)
    for key, result in first.items():
        other = second[key]
        np.testing.assert_allclose(result.pattern, other.pattern, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result.deviation, other.deviation, rtol=1e-4, atol=1e-5)
        assert result.null_test.cells == other.null_test.cells
        assert result.null_test.passed is other.null_test.passed
        for a, b in zip(result.checkpoints, other.checkpoints, strict=True):
            np.testing.assert_allclose(a.pattern, b.pattern, rtol=1e-4, atol=1e-5)
            same_summary(a.summary, b.summary)
        same_summary(result.summary, other.summary)


def same_summary(first, second) -> None:
    a, b = flat(first), flat(second)
    assert a["n"] == b["n"] and a["groups"] == b["groups"]
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-3, atol=1e-5)


# --- putting windows together ------------------------------------------------------------


@pytest.mark.parametrize("pixels", [900, 2000, 10_000, 40_000, 10**7])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_window_is_in_one_tile_and_each_tile_within_the_bound(pixels, seed):
    draw = np.random.default_rng(seed)
    tops, lefts = draw.integers(0, 50, (2, 60)) * 8
    tight = Bound((30, 30), pixels)
    tiles = tight.tiles(tops, lefts)
    assert sorted(np.concatenate(tiles)) == list(range(60))
    areas = [tight.area(tops[tile], lefts[tile]) for tile in tiles]
    assert max(areas) <= pixels
    # what fits is done at once, as without a bound; tiles cost no more than single windows
    assert len(tiles) == 1 if pixels == 10**7 else sum(areas) <= 60 * 900


def test_a_larger_bound_needs_fewer_tiles():
    tops, lefts = np.random.default_rng(0).integers(0, 50, (2, 200)) * 8
    counts = [len(Bound((30, 30), p).tiles(tops, lefts)) for p in (900, 10_000, 40_000, 10**6)]
    assert counts == sorted(counts, reverse=True) and counts[0] > 150 and counts[-1] == 1


@pytest.mark.parametrize(("pixels", "most"), [(20_000, 3), (10_000, 6), (5_000, 16)])
def test_tiles_are_filled_where_windows_are_dense(pixels, most):
    """Together they need 190 x 190 px, one by one five times as much."""
    tops, lefts = np.random.default_rng(0).integers(0, 21, (2, 200)) * 8
    full = Bound((30, 30), pixels)
    tiles = full.tiles(tops, lefts)
    assert len(tiles) <= most
    assert sum(full.area(tops[tile], lefts[tile]) for tile in tiles) < 2 * 190 * 190


def test_windows_that_fit_together_keep_their_order():
    (only,) = Bound((30, 30), 10**6).tiles(np.array([80, 0, 40]), np.array([0, 80, 40]))
    assert list(only) == [0, 1, 2]


# --- measuring in tiles ------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3, 8])
@pytest.mark.parametrize("checkpoints", [(), (2, 37, 60, 90)])
def test_tiles_change_nothing(model, windows, reach, least, times, checkpoints):
    options = {"coverage": reach, "checkpoints": checkpoints, "distributions": True}
    whole = ppp.measure(model, windows, LAYERS, SCHEMES, **options)
    tiled = ppp.measure(model, windows, LAYERS, SCHEMES, memory=times * least, **options)
    close(tiled, whole)
    assert whole.provenance["memory"] is None and whole.provenance["tiles"] == 3
    assert tiled.provenance["memory"] == times * least and tiled.provenance["tiles"] > 3


def test_a_bound_that_holds_every_picture_changes_no_bit(model, windows, reach):
    options = {"coverage": reach, "seed": 1}
    whole = ppp.measure(model, windows, LAYERS, [*SCHEMES, "randn"], **options)
    tiled = ppp.measure(model, windows, LAYERS, [*SCHEMES, "randn"], memory=10**9, **options)
    for key, result in whole.items():
        np.testing.assert_array_equal(result.pattern, tiled[key].pattern)
        assert result.summary == tiled[key].summary
    assert tiled.provenance["tiles"] == 3


def test_randn_draws_for_the_windows_tile_by_tile(model, windows, reach, least):
    """The same windows, given in the order of the tiles, make the same draws without tiles."""
    limit = bound(model, LAYERS, reach, 3 * least)
    ordered = []
    for picture in windows:
        order = np.concatenate(limit.tiles(picture.tops, picture.lefts))
        assert list(order) != sorted(order)
        ordered.append(
            Picture(picture.name, picture.pixels, picture.tops[order], picture.lefts[order])
        )
    schemes = ["randn", "zeros", "randn(border)"]
    whole = ppp.measure(model, Windows(ordered, SIZE), LAYERS, schemes, coverage=reach)
    tiled = ppp.measure(model, windows, LAYERS, schemes, coverage=reach, memory=3 * least)
    close(tiled, whole)


def test_randn_measures_the_same_pattern_in_tiles(model, windows, reach, least):
    whole = ppp.measure(model, windows, LAYERS, "randn", coverage=reach)
    tiled = ppp.measure(model, windows, LAYERS, "randn", coverage=reach, memory=3 * least)
    for key, result in whole.items():
        assert not np.array_equal(result.pattern, tiled[key].pattern)
        between = np.corrcoef(result.magnitude().ravel(), tiled[key].magnitude().ravel())[0, 1]
        assert between > 0.9
        assert result.summary.sigma == pytest.approx(tiled[key].summary.sigma, rel=1e-5)


def test_batches_reach_over_the_ends_of_tiles(model, windows, reach, least):
    done = []
    ppp.measure(
        model, windows, LAYERS, coverage=reach, memory=least, batch_size=8, progress=done.append
    )
    assert done == [8, 8, 8, 6] * 3


def test_no_pass_is_larger_than_the_bound(model, windows, reach, least):
    limit, seen = bound(model, LAYERS, reach, 4 * least), []
    handle = model[0].register_forward_hook(
        lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape[-2:]))
    )
    try:
        got = ppp.measure(model, windows, LAYERS, "zeros", coverage=reach, memory=4 * least)
    finally:
        handle.remove()
    passes = [shape for shape in seen if shape != (SIZE, SIZE)]
    assert max(height * width for height, width in passes[-got.provenance["tiles"] :]) <= (
        limit.pixels
    )
    assert got.provenance["tiles"] > 3


# --- refusals ----------------------------------------------------------------------------


def refused(model, windows, **options) -> str:
    with pytest.raises(PPPError) as caught:
        ppp.measure(model, windows, LAYERS, "zeros", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bound_too_small_for_one_window_says_what_one_needs(model, windows, reach, least):
    message = refused(model, windows, coverage=reach, memory=least - 1)
    assert f"{least - 1} bytes is too small" in message and f"needs {least} bytes" in message
    ppp.measure(model, windows, LAYERS, "zeros", coverage=reach, memory=least)


@pytest.mark.parametrize("memory", [0, -5, 1e9, "1GB", True])
def test_a_bound_that_is_no_number_of_bytes_is_refused(model, windows, reach, memory):
    assert repr(memory) in refused(model, windows, coverage=reach, memory=memory)


def test_misaligned_windows_are_refused_in_tiles_too(model, windows, reach, least):
    picture = next(iter(windows))
    bad = Picture("bad", picture.pixels, picture.tops + 2, picture.lefts)
    message = refused(model, Windows([bad], SIZE), coverage=reach, memory=least)
    assert "misaligned" in message and "'bad'" in message


def test_the_estimate_counts_what_is_kept_and_what_is_worked_on():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)).eval()
    pixels = 4 * 10 * 12
    assert pass_bytes(net, ["1"], (10, 12)) == pixels * (3 + 2 + 2 * (3 + 4))
    assert pass_bytes(net, ["0", "1"], (10, 12)) == pixels * (3 + 4 + 2 + 2 * (3 + 4))
    assert pass_bytes(net.double(), ["1"], (10, 12)) == 2 * pixels * (3 + 2 + 2 * (3 + 4))
    assert not any(module._forward_hooks for module in net.modules())
