"""Means over seeds: intervals, effect sizes, corrections."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from studies.stats import holm, mean_interval, over_seeds, two_way


def test_means_over_seeds_have_students_interval_and_holms_correction():
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"padding": np.repeat(["a", "b"], 5), "change": draw.normal(1, 1, 10)})
    found = over_seeds(frame, "change", ["padding"])
    first = frame["change"][:5]
    low, high = stats.t.interval(0.95, 4, first.mean(), stats.sem(first))
    assert found.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx(
        [first.mean(), low, high]
    )
    smaller = found["p"].idxmin()
    assert found.loc[smaller, "p_holm"] == pytest.approx(2 * found.loc[smaller, "p"])
    single = over_seeds(frame.iloc[:1], "change", ["padding"])
    assert single["n"].tolist() == [1] and single["low"].isna().all()


def test_seeds_that_agree_to_the_digit_are_certain():
    frame = pd.DataFrame({"a": np.repeat(["none", "some"], 3), "change": [0.0] * 3 + [2.5] * 3})
    found = over_seeds(frame, "change", ["a"]).set_index("a")
    assert found.loc["none", ["low", "high", "p"]].tolist() == [0, 0, 1]
    assert found.loc["some", ["low", "high", "p"]].tolist() == [2.5, 2.5, 0]
    assert found["effect"].isna().all()  # no spread to divide by


def test_mean_interval_is_students_t_and_one_row_has_none():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    frame = pd.DataFrame({"scheme": ["zeros"] * 4 + ["randn"], "error": [*values, 2.0]})
    several, one = mean_interval(frame, ["scheme"], "error").to_dict("records")
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (several["low"], several["high"], several["n"]) == pytest.approx((low, high, 4))
    assert (one["error"], one["n"]) == (2.0, 1) and np.isnan([one["low"], one["high"]]).all()


def test_holms_correction_is_that_of_statsmodels():
    p = pd.Series(np.random.default_rng(0).random(40) ** 3)
    p[10:20] = p[0]  # ties
    assert holm(p).tolist() == multipletests(p, method="holm")[1].tolist()
    missing = holm(p.where(p.index != 3))
    assert missing.index.equals(p.index) and missing.isna().sum() == 1
    assert holm(pd.Series([], dtype=object)).empty


def test_a_two_way_interval_adds_the_errors_over_networks_and_photographs():
    draw = np.random.default_rng(0).normal(size=(4, 6))
    without = (draw.sum(1, keepdims=True) - draw) / 5
    estimate = two_way(draw.mean(1), without)
    error = np.sqrt(draw.mean(1).var(ddof=1) / 4 + draw.mean(0).var(ddof=1) / 6)
    half = stats.t.ppf(0.975, 3) * error
    assert estimate.value == pytest.approx(draw.mean())
    assert (estimate.low, estimate.high) == pytest.approx((draw.mean() - half, draw.mean() + half))


def test_a_two_way_interval_needs_three_of_each():
    assert np.isnan(two_way(np.ones(2), np.ones((2, 9))).low)
    assert np.isnan(two_way(np.ones(9), np.ones((9, 2))).high)
