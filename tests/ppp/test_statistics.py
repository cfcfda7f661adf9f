"""What the products of pictures' mean maps say, against plain computations."""

import numpy as np
import pytest
import torch
from checks import refused

from ppp import statistics
from ppp.errors import PPPError
from ppp.statistics import (
    Estimate,
    fewest_groups,
    halves,
    jackknife,
    products,
    require_groups,
    sign_flip_test,
    unbiased_power,
)


def maps(groups, *, pattern=0.0, seed=0, cells=40):
    noise = torch.randn(groups, 2, cells, generator=torch.Generator().manual_seed(seed))
    return noise.double() + pattern * torch.linspace(-1, 2, cells).double()


def power(means):
    pairs = [(a * b).mean() for i, a in enumerate(means) for j, b in enumerate(means) if i != j]
    return float(torch.stack(pairs).mean())


def test_power_is_the_mean_product_of_different_pictures():
    means = maps(6, pattern=1.0)
    assert unbiased_power(products(means)).value == pytest.approx(power(means), rel=1e-12)


@pytest.mark.parametrize("groups", [2, 3, 7])
def test_every_flip_of_signs_is_tried_for_few_pictures(groups):
    means = maps(groups, pattern=0.2)
    signs = torch.cartesian_prod(*[torch.tensor([1.0, -1.0])] * groups).double()
    flipped = [power(means * one[:, None, None]) for one in signs]
    expected = np.mean(np.array(flipped) >= power(means) - 1e-12)
    assert sign_flip_test(products(means)) == pytest.approx(expected)


def test_random_flips_agree_with_all_of_them(monkeypatch):
    table = products(maps(12, pattern=0.16))
    exact = sign_flip_test(table)
    monkeypatch.setattr("ppp.statistics._EXACT", 5)
    statistics._signs.cache_clear()
    assert 0.001 < exact < 0.2
    assert sign_flip_test(table, seed=3) == pytest.approx(exact, abs=0.01)
    assert sign_flip_test(table, seed=3) == sign_flip_test(table, seed=3)


def test_a_strong_pattern_has_the_least_p_value_that_there_is():
    assert sign_flip_test(products(maps(10, pattern=5.0))) == 2**-9
    assert sign_flip_test(products(maps(30, pattern=5.0))) == 1 / 10_000
    assert np.isnan(sign_flip_test(products(maps(1))))


@pytest.mark.parametrize(("tests", "groups"), [(1, 6), (5, 8), (25, 10), (100, 12)])
def test_a_family_of_tests_needs_so_many_pictures(tests, groups):
    assert fewest_groups(tests) == groups
    assert tests * 2.0 ** (1 - groups) <= 0.05 < tests * 2.0 ** (2 - groups)
    require_groups(tests, groups)
    said = refused(require_groups, tests, groups - 1)
    assert f"{tests} tests" in said and f"need {groups} pictures, got {groups - 1}" in said


@pytest.mark.parametrize("groups", [4, 9])
def test_halves_are_correlated_as_numpy_does(groups):
    means = maps(groups, pattern=1.0)
    rng = np.random.default_rng(5)
    expected = []
    for _ in range(3):
        order = rng.permutation(groups)
        parts = order[: groups // 2], order[groups // 2 : groups // 2 * 2]
        first, second = (means[part].mean(0).ravel().numpy() for part in parts)
        expected.append(np.corrcoef(first, second)[0, 1])
    np.testing.assert_allclose(halves(products(means), 3, seed=5), expected, rtol=1e-9)


def test_halves_of_what_has_none_are_refused():
    assert "two halves need 4 pictures" in refused(halves, products(maps(3)), error=PPPError)
    constant = products(torch.ones(6, 2, 5))
    assert "constant" in refused(halves, constant, error=PPPError)


def test_halves_without_a_picture_are_the_same_halves():
    means, rng, expected = maps(9, pattern=1.0), np.random.default_rng(5), []
    for _ in range(3):
        order = rng.permutation(9)
        parts = ([i for i in half if i != 2] for half in (order[:4], order[4:8]))
        first, second = (means[part].sum(0).ravel().numpy() for part in parts)
        expected.append(np.corrcoef(first, second)[0, 1])
    found = halves(products(means), 3, seed=5, without=2)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_products_are_those_of_numpy_from_a_list_too():
    means = maps(5)
    flat = np.vstack([means.flatten(1).numpy(), np.ones(80)])
    for given in (means, list(means), (one.float().double() for one in means.float())):
        found = products(given)
        assert found.dtype == np.float64 and found.shape == (6, 6)
        np.testing.assert_allclose(found, flat @ flat.T / 80, rtol=1e-6, atol=1e-8)


def test_the_jackknife_removes_a_bias_of_one_over_n():
    """The variance with n in its denominator is (n - 1) / n of the unbiased one."""
    values = np.random.default_rng(0).normal(size=7)
    left_out = [np.delete(values, i).var() for i in range(7)]
    corrected = jackknife(values.var(), left_out, 0.95)
    assert corrected.value == values.var() and corrected.centre == pytest.approx(values.var(ddof=1))
    plain = jackknife(values.var(), left_out, 0.95, corrected=False)
    assert plain.centre == pytest.approx(values.var())
    assert plain.high - plain.low == pytest.approx(corrected.high - corrected.low)


def test_a_jackknife_of_what_is_not_finite_has_no_interval():
    found = jackknife(1.0, [1.0, np.inf], 0.95)
    assert found.value == 1 and np.isnan([found.low, found.high, found.centre]).all()


def test_an_estimate_in_other_units():
    assert Estimate(2.0, 1.0, 4.0) / 0.5 == Estimate(4.0, 2.0, 8.0)
    assert Estimate(2.0, 1.0, 4.0).centre == 2.5
    assert np.isnan([*vars(Estimate(2.0, 1.0, 4.0) / 0).values()]).all()
    without = Estimate(2.0) / 2
    assert without.value == 1 and np.isnan([without.low, without.high]).all()
