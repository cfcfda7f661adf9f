"""The tests on real networks, on tables whose outcome is known."""

import numpy as np
import pandas as pd
import pytest

from studies.claims import AGAINST, NOT_EVALUABLE, SUPPORTED, UNDERPOWERED, claim
from studies.pretrained import analysis, design

LAYERS, PHOTOGRAPHS = ("a", "b"), [f"p{i}" for i in range(12)]


def without(column, value, spread, network="efficientnet-lite0", state="trained", seed=0, **more):
    """Return rows of a mean over photographs, whole and without each."""
    each = value + spread * np.linspace(-1, 1, len(PHOTOGRAPHS))
    rests = [each.mean(), *((each.sum() - each) / (len(each) - 1))]
    head = {"network": network, "state": state, "seed": seed} | more
    parts = [
        pd.DataFrame(head | {"layer": layer, "picture": ["", *PHOTOGRAPHS], column: rests})
        for layer in LAYERS
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def tables(monkeypatch):
    """Tables by name, in the place of those that are shipped."""
    kept = {}
    monkeypatch.setattr(design, "read", lambda name, data: kept[name])
    return kept


def graded(test, name, part=""):
    rows = pd.concat(test("data", claim(name).real.numbers), ignore_index=True)
    return rows[rows["part"].str.startswith(part)]


def test_a_photograph_that_does_not_serve_a_layer_leaves_it_as_it_is():
    table = pd.DataFrame(
        {"layer": [1, 1, 1, 2, 2], "picture": [None, "x", "y", None, "x"], "r": [1.0, 2, 4, 10, 20]}
    )
    whole, rest = analysis.over_layers(table, "r")
    assert whole == 5.5
    assert rest.tolist() == [11, 7]


def test_the_interval_is_that_of_a_mean_over_photographs(tables):
    table = without("r", 0.8, 0.1)
    row = analysis._rows({"efficientnet-lite0": table}, "r").iloc[0]
    each = 0.8 + 0.1 * np.linspace(-1, 1, 12)
    from scipy import stats

    half = stats.t.ppf((1 + analysis.LEVEL) / 2, 11) * each.std(ddof=1) / np.sqrt(12)
    assert row["value"] == pytest.approx(0.8)
    assert (row["low"], row["high"]) == pytest.approx((0.8 - half, 0.8 + half))


@pytest.mark.parametrize(
    "r, p, grade",
    [
        (0.8, 0.001, SUPPORTED),
        (0.2, 0.001, AGAINST),
        (0.8, 0.9, AGAINST),
        (0.5, 0.001, UNDERPOWERED),
    ],
)
def test_c3_asks_for_the_gate_and_for_the_size(tables, r, p, grade):
    tables["without"] = without("r", r, 0.1).assign(share=0.5)
    tables["metrics"] = pd.DataFrame(
        {"network": "efficientnet-lite0", "state": "trained", "scheme": "zeros", "layer": range(5)}
    ).assign(pictures=12, p=p)
    assert graded(analysis.c3, "C3", "correlation")["grade"].tolist() == [grade]


def test_c4_takes_a_filter_for_a_bound_alone(tables):
    def areas(one, mean):
        parts = [
            without("area", value, 0.01, version=version, n=n)
            for version in ("all channels", "channel mean", "best channel")
            for n, value in ((1, one), (design.MAPS[-1], mean))
        ]
        return pd.concat(parts)

    tables["without"] = without("r", 0.9, 0.01)
    tables["visibility"] = areas(0.9, 0.95)
    rows = graded(analysis.c4, "C4")
    assert rows["grade"].tolist() == [NOT_EVALUABLE, SUPPORTED, SUPPORTED, SUPPORTED]
    tables["visibility"] = areas(0.6, 0.6)
    assert graded(analysis.c4, "C4")["grade"].tolist() == [AGAINST, AGAINST, AGAINST, SUPPORTED]


@pytest.mark.parametrize(
    "shares, value, slope",
    [((0.0, 0.2, 0.4), SUPPORTED, SUPPORTED), ((0.02, 0.01, 0.0), UNDERPOWERED, AGAINST)],
)
def test_c5_holds_few_photographs_against_nothing_but_a_falling_share(tables, shares, value, slope):
    parts = [
        without("separated", share, 0.001, n=n).assign(control=0.0)
        for n, share in zip(design.HALVES, shares)
    ]
    tables["distinguished"] = pd.concat(parts)
    rows = graded(analysis.c5, "C5")
    assert rows["grade"].tolist() == [value, slope]
    expected = np.polyfit(np.log2(design.HALVES), shares, 1)[0]
    assert rows["value"].iloc[1] == pytest.approx(expected)


def test_c10_compares_with_each_initialisation(tables, monkeypatch):
    monkeypatch.setattr(analysis, "SIDES", {"efficientnet-lite0": 1})
    parts = [without("mae", 4.0, 0.1)]
    parts += [without("mae", 1.0, 0.01, state="initial", seed=seed) for seed in range(5)]
    table = pd.concat(parts)
    tables["without"] = table.assign(raw=1 / table["mae"], snr=1.0)
    rows = graded(analysis.c10, "C10")
    assert rows["grade"].tolist() == [SUPPORTED, AGAINST, AGAINST]
    assert rows["value"].tolist() == pytest.approx([2, -2, 0], abs=0.01)


def test_a_layer_is_concentrated_where_few_channels_hold_half_of_the_power():
    table = pd.DataFrame({"channel": range(10), "power": [9.0, *[1.0] * 9], "sigma": 1.0})
    (row,) = analysis.concentration(table.assign(network="x", state="trained", layer="a")).to_dict(
        "records"
    )
    assert (row["half"], row["part"], row["expected"]) == (1, 0.1, 0.5)
