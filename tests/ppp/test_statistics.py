"""What the products of pictures' mean maps say, against plain computations."""

import numpy as np
import pytest
import torch
from checks import refused

from ppp import statistics
from ppp.errors import PPPError
from ppp.statistics import fewest_groups, halves, products, sign_flip_test, unbiased_power


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
