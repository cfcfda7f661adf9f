import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from ppp.errors import PPPError
from ppp.metrics import (
    Moments,
    leave_one_out,
    mae_ppp,
    merged,
    noise_floor,
    separated,
    significant,
    snr_ppp,
    summarise,
)
from ppp.statistics import products, unbiased_power

DATASETS = 300
# Nominal 95 %. With 300 data sets the binomial standard error is 1.3 points, and Student's t with
# G - 1 degrees of freedom is conservative without a pattern: hence 93 to 99.5 %.
COVERED = (0.93, 0.995)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def moments(samples) -> Moments:
    return Moments().update(samples)


def summary(groups, sigma: float = 1.0, **options):
    """Summarise groups of samples of D, with optimal features of a known deviation."""
    scales = [moments(normal(2000, seed=90 + i) * sigma) for i in range(len(groups))]
    return summarise([moments(g) for g in groups], scales, **options)


# --- moments -----------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_any_split_equals_one_pass(seed, sizes):
    samples = normal(sum(sizes) + 2, 2, 3, 4, seed=seed) * 3 + 1000
    streamed, shards, start = Moments(), [], 0
    for size in [*sizes, 2]:
        part = samples[start : start + size]
        start += size
        if size:
            streamed.update(part)
        shards.append(moments(part) if size else Moments())
    for got in (streamed, merged(shards), merged(shards[::-1])):
        assert got.n == len(samples)
        np.testing.assert_allclose(got.mean, samples.numpy().mean(0), rtol=1e-12)
        np.testing.assert_allclose(got.variance, samples.numpy().var(0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("cells", [(3, 4), (40, 200, 30)])
def test_differences_are_those_of_the_maps(cells):
    samples, less = (normal(5, *cells, seed=seed).float() for seed in (0, 1))
    found, expected = Moments().update(samples, less), Moments().update(samples - less)
    assert torch.equal(found.mean, expected.mean) and torch.equal(found.m2, expected.m2)


def test_merging_leaves_the_parts_alone():
    parts = [moments(normal(5, 2, seed=i)) for i in range(4)]
    before = [(p.n, p.mean.clone(), p.m2.clone()) for p in parts]
    total = merged(parts)
    total.update(normal(3, 2, seed=9))
    list(leave_one_out(parts))
    for part, (n, mean, m2) in zip(parts, before):
        assert part.n == n and torch.equal(part.mean, mean) and torch.equal(part.m2, m2)


def test_float32_samples_are_summed_in_float64():
    samples = torch.randn(4000, 1, generator=seeded()) + 1e4
    got = Moments()
    for part in samples.split(7):
        got.update(part)
    np.testing.assert_allclose(got.variance, samples.double().numpy().var(0, ddof=1), rtol=1e-9)


def test_leaving_one_out_equals_merging_the_others():
    parts = [moments(normal(n, 3, seed=n)) for n in (2, 5, 3, 4)]
    for index, rest in enumerate(leave_one_out(parts)):
        expected = merged([p for i, p in enumerate(parts) if i != index])
        assert rest.n == expected.n
        torch.testing.assert_close(rest.mean, expected.mean)
        torch.testing.assert_close(rest.m2, expected.m2)


def test_a_cell_that_is_zero_in_all_others_stays_exactly_zero():
    groups = [torch.zeros(3, 1), normal(3, 1), torch.zeros(3, 1)]
    rest = list(leave_one_out([moments(g) for g in groups]))[1]
    assert float(rest.mean) == 0.0 and float(rest.m2) == 0.0


@pytest.mark.parametrize("n", [0, 1])
def test_a_variance_needs_two_samples(n):
    with pytest.raises(PPPError, match=f"at least 2 samples, got {n}"):
        _ = moments(normal(n, 2)).variance if n else Moments().variance


# --- closed forms ------------------------------------------------------------------------


def test_mae_in_units_of_sigma():
    assert mae_ppp(torch.tensor([[[1.0, -3.0]], [[0.0, 4.0]]]), 4.0) == 0.5
    assert np.isnan(mae_ppp(torch.ones(1, 1, 1), 0.0))


def test_snr_closed_forms():
    mean = torch.tensor([1.0, -2.0, 0.0, 0.0])
    variance = torch.tensor([4.0, 1.0, 9.0, 0.0])  # 1/2, 2, 0, and 0/0 counts as 0
    assert snr_ppp(mean, variance) == pytest.approx(2.5 / 4)
    assert snr_ppp(torch.ones(1), torch.zeros(1)) == np.inf
    assert torch.equal(mean, torch.tensor([1.0, -2.0, 0.0, 0.0]))


def test_the_summary_of_known_samples():
    d = torch.tensor([[[[2.0, 0.0]]], [[[4.0, 0.0]]]])  # mean 3 and 0, variance 2 and 0
    got = summarise([moments(d)], [moments(torch.tensor([0.0, 4.0]))])
    assert got.n == 2 and got.groups == 1
    assert got.sigma == pytest.approx(np.sqrt(8))
    assert got.mae_raw == 1.5 and got.mae.value == pytest.approx(1.5 / np.sqrt(8))
    assert got.snr.value == pytest.approx(3 / np.sqrt(2) / 2)
    assert got.snr_db == pytest.approx(20 * np.log10(got.snr.value))
    assert got.noise_power == 1.0
    assert got.power_windows == pytest.approx((9 - 2 / 2 + 0) / 2)
    assert got.share == pytest.approx(4 / 5)
    assert np.isnan(got.mae.low) and np.isnan(got.power.value)


def test_no_difference_at_all_gives_zeros():
    got = summary([torch.zeros(3, 2, 3, 3) for _ in range(5)])
    assert got.mae.value == got.snr.value == got.power.value == got.detected == got.share == 0
    assert got.mae_floor == got.snr_floor == 0 and got.snr_db == -np.inf
    assert (got.mae.low, got.mae.high) == (0, 0)


def test_too_few_samples_and_nan_are_refused():
    for d in (normal(1, 1, 2, 2), torch.full((3, 1, 2, 2), torch.nan)):
        with pytest.raises(PPPError) as caught:
            summary([d])
        assert "\n" not in str(caught.value)


def test_groups_without_samples_are_left_out():
    groups = [moments(normal(4, 1, 2, 2, seed=i)) for i in range(3)]
    scales = [moments(normal(9, seed=i)) for i in range(3)]
    expected = summarise(groups, scales)
    got = summarise([*groups, Moments()], [*scales, Moments()])
    assert got == expected and got.groups == 3


# --- pure noise --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [20, 3])
def test_pure_noise_sits_on_the_analytic_floor_and_the_sign_flips_find_it(size):
    groups = [normal(size, 8, 20, 20, seed=i) * 1.7 for i in range(10)]
    got = summary(groups, sigma=2.0)
    analytic = 1.7 * np.sqrt(2 / (np.pi * 10 * size))
    assert got.mae_raw == pytest.approx(analytic, rel=0.03)
    assert got.mae.value == pytest.approx(analytic / 2.0, rel=0.03)
    assert got.mae_floor == pytest.approx(got.mae.value, rel=0.05)
    assert got.snr_floor == pytest.approx(got.snr.value, rel=0.05)
    single = noise_floor([moments(torch.cat(groups))])
    assert float(single.mean()) == pytest.approx(analytic, rel=0.03)


def test_the_floor_ignores_the_pattern():
    noise = [normal(5, 4, 16, 16, seed=i) for i in range(10)]
    plain = noise_floor([moments(g) for g in noise])
    shifted = noise_floor([moments(g + 5.0) for g in noise])
    torch.testing.assert_close(plain, shifted)


def test_the_floor_knows_that_windows_of_a_group_are_correlated():
    groups = [normal(1, 4, 16, 16, seed=i) + 0.1 * normal(8, 4, 16, 16, seed=50 + i)
              for i in range(10)]  # fmt: skip
    total = merged([moments(g) for g in groups])
    floor = float(noise_floor([moments(g) for g in groups]).mean())
    assert floor == pytest.approx(float(total.mean.abs().mean()), rel=0.1)
    assert floor > 2 * float(noise_floor([total]).mean())  # the analytic one is blind to it


@pytest.mark.parametrize("sizes", [(5, 5), (3, 3, 3), (2, 9, 4, 5, 10), (18, 2)])
def test_the_floor_holds_for_few_and_unequal_groups(sizes):
    groups = [moments(normal(n, 8, 20, 20, seed=i)) for i, n in enumerate(sizes)]
    analytic = np.sqrt(2 / (np.pi * sum(sizes)))
    assert float(noise_floor(groups).mean()) == pytest.approx(analytic, rel=0.04)


def test_the_floor_is_deterministic():
    groups = [moments(normal(4, 2, 3, 3, seed=i)) for i in range(5)]
    assert torch.equal(noise_floor(groups), noise_floor(groups))


# --- power and its interval --------------------------------------------------------------


def coverage_rate(make, truth: float, groups: int = 10) -> tuple[float, float, float]:
    """Simulate data sets: (rate at which the interval covers, mean, standard error)."""
    hits, values = [], []
    for seed in range(DATASETS):
        estimate = unbiased_power(products(make(seed)))
        hits.append(estimate.low <= truth <= estimate.high)
        values.append(estimate.value)
    return np.mean(hits), np.mean(values), np.std(values) / np.sqrt(DATASETS)


@pytest.mark.parametrize("cells", [12, 400])
def test_the_interval_covers_zero_when_there_is_no_pattern(cells):
    rate, mean, error = coverage_rate(lambda seed: normal(10, cells, seed=seed), 0.0)
    assert COVERED[0] <= rate <= COVERED[1]
    assert abs(mean) < 4 * error


def test_a_single_cell_s_interval_is_conservative():
    """All pairs of groups share ten numbers: the interval is too wide, never too narrow."""
    rate, mean, error = coverage_rate(lambda seed: normal(10, 1, seed=seed), 0.0)
    assert rate >= COVERED[0] and abs(mean) < 4 * error


def test_cells_that_are_correlated_over_space_are_no_obstacle():
    def make(seed):
        maps = normal(10, 1, 24, 24, seed=seed)
        return torch.nn.functional.avg_pool2d(maps, 9, 1)

    rate, mean, error = coverage_rate(make, 0.0)
    assert COVERED[0] <= rate <= COVERED[1] and abs(mean) < 4 * error


def test_windows_correlated_inside_groups_bias_the_window_formula_but_not_the_groups():
    """Eight windows of a group share one random map: only G = 10 of 80 windows are independent."""
    hits, by_group, by_window = [], [], []
    for seed in range(DATASETS):
        shared = normal(10, 1, 1, 6, 6, seed=seed)
        windows = shared + 0.5 * normal(10, 8, 1, 6, 6, seed=1000 + seed)
        total = merged([moments(g) for g in windows])
        estimate = unbiased_power(products(windows.mean(1)))
        hits.append(estimate.low <= 0 <= estimate.high)
        by_group.append(estimate.value)
        by_window.append(float((total.mean.square() - total.variance / total.n).mean()))
    assert COVERED[0] <= np.mean(hits) <= COVERED[1]
    error = np.std(by_group) / np.sqrt(DATASETS)
    assert abs(np.mean(by_group)) < 4 * error
    # E[d^2] = 1/10 + 0.25/80, of which s^2/n accounts for about 1.25/80: biased by 0.09
    assert np.mean(by_window) == pytest.approx(0.1 - 1 / 80, rel=0.15)
    assert np.mean(by_window) > 20 * error


@pytest.mark.parametrize("strength", [0.1, 0.5, 3.0])
def test_a_pattern_s_power_is_recovered_with_nominal_coverage(strength):
    pattern = normal(60, seed=12345) * strength
    truth = float(pattern.square().mean())
    rate, mean, error = coverage_rate(lambda seed: pattern + normal(10, 60, seed=seed), truth)
    assert COVERED[0] <= rate <= COVERED[1]
    assert abs(mean - truth) < 4 * error


def test_groups_that_show_the_pattern_unequally_are_covered():
    """Group g shows (1 + e_g) times the pattern, and a map of its own: the mean pattern counts."""
    pattern = normal(60, seed=12345)
    truth = float(pattern.square().mean())

    def make(seed):
        gain = 1 + 0.5 * normal(10, 1, seed=5000 + seed)
        size = 0.3 + torch.rand(10, 1, generator=seeded(seed), dtype=torch.float64)
        return gain * pattern + size * normal(10, 60, seed=seed)

    rate, mean, error = coverage_rate(make, truth)
    assert COVERED[0] <= rate <= COVERED[1]
    assert abs(mean - truth) < 4 * error


def test_one_window_a_group_equals_the_window_formula():
    d = normal(12, 3, 4, 4)
    total = moments(d)
    expected = float((total.mean.square() - total.variance / total.n).mean())
    assert unbiased_power(products(d)).value == pytest.approx(expected, rel=1e-9)


def test_power_with_few_groups():
    assert np.isnan(unbiased_power(products(normal(1, 5))).value)
    for groups in (2, 3):
        estimate = unbiased_power(products(normal(groups, 5)))
        assert np.isfinite(estimate.value) and np.isnan(estimate.low) and np.isnan(estimate.high)
    d = normal(2, 5)
    assert unbiased_power(products(d)).value == pytest.approx(float((d[0] * d[1]).mean()))
    assert np.isfinite(unbiased_power(products(normal(4, 5))).low)


def test_a_higher_confidence_gives_a_wider_interval():
    d = normal(10, 50)
    narrow, wide = (unbiased_power(products(d), confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


# --- the jackknife -----------------------------------------------------------------------


@pytest.mark.nightly
def test_the_jackknife_interval_of_a_strong_pattern_covers_it():
    """MAE is smooth away from 0: with a pattern far above the noise the interval is nominal."""
    pattern = torch.where(normal(1, 6, 6, seed=7) > 0, 2.0, -2.0).double()
    hits = []
    for seed in range(DATASETS):
        groups = [moments(pattern + normal(3, 1, 6, 6, seed=seed * 10 + g)) for g in range(10)]
        scales = [Moments(10, torch.tensor(0.0).double(), torch.tensor(10.0).double())] * 10
        mae = summarise(groups, scales).mae
        sigma = np.sqrt(100 / 99)
        hits.append(mae.low <= 2.0 / sigma <= mae.high)
    assert COVERED[0] <= np.mean(hits) <= COVERED[1]


def test_equal_groups_have_an_interval_of_no_width():
    group = normal(5, 2, 3, 3)
    scales = [moments(normal(50, seed=1))] * 4
    got = summarise([moments(group) for _ in range(4)], scales)
    assert got.mae.low == pytest.approx(got.mae.high)
    assert got.snr.low == pytest.approx(got.snr.high)
    # s^2 = S n / (n - 1), S the same in every group: the correction removes the factor's 1/n
    raw, share = np.sqrt((1 - 1 / np.array([200, 150])) / (1 - 1 / 200))
    assert got.mae.centre / got.mae.value == pytest.approx(4 * raw - 3 * share)
    raw, share = np.sqrt((1 - 1 / np.array([20, 15])) / (1 - 1 / 20))
    assert got.snr.centre / got.snr.value == pytest.approx(4 * raw - 3 * share)


def test_intervals_hold_the_value_and_widen_with_confidence():
    groups = [normal(5, 2, 3, 3, seed=i) + 1 for i in range(6)]
    narrow, wide = summary(groups, confidence=0.8), summary(groups, confidence=0.99)
    for name in ("mae", "snr", "power"):
        a, b = getattr(narrow, name), getattr(wide, name)
        assert b.low < a.low < a.value == b.value < a.high < b.high


# --- detection ---------------------------------------------------------------------------


def test_detection_controls_the_false_discovery_rate():
    """1000 cells, 200 with an effect: the mean share of false discoveries is at most 5 %."""
    effect = torch.zeros(1000, dtype=torch.float64)
    effect[:200] = 0.6
    false, power = [], []
    for seed in range(100):
        found = significant(moments(effect + normal(40, 1000, seed=seed)))
        false.append(int(found[200:].sum()) / max(1, int(found.sum())))
        power.append(float(found[:200].double().mean()))
    error = np.std(false) / 10
    assert np.mean(false) < 0.05 + 2 * error and np.mean(power) > 0.5
    # Benjamini and Hochberg promise rate * share of true nulls: not much less either
    assert np.mean(false) > 0.04 - 2 * error


def test_without_any_effect_discoveries_are_rare():
    any_found = [bool(significant(moments(normal(20, 300, seed=s))).any()) for s in range(200)]
    assert np.mean(any_found) < 0.1  # nominal 5 %


def test_a_larger_rate_finds_no_less():
    m = moments(normal(20, 300) + 0.4)
    strict, loose = significant(m, 0.01), significant(m, 0.2)
    assert (loose | ~strict).all() and loose.sum() > strict.sum()


def test_cells_without_spread():
    found = significant(moments(torch.tensor([[0.0, 1.0]] * 3)))
    assert found.tolist() == [False, True]


def test_separated_finds_unpaired_differences():
    shift = torch.zeros(400, dtype=torch.float64)
    shift[:100] = 1.5
    false, power = [], []
    for seed in range(60):
        first = moments(shift + normal(30, 400, seed=seed))
        second = moments(3 * normal(60, 400, seed=900 + seed) / 3)
        found = separated(first, second)
        false.append(int(found[100:].sum()) / max(1, int(found.sum())))
        power.append(float(found[:100].double().mean()))
    assert np.mean(power) > 0.95 and np.mean(false) < 0.06
    same = moments(normal(30, 400))
    assert not separated(same, same).any()


def test_separated_agrees_with_scipy():
    a, b = normal(12, 50) + 0.8, 2 * normal(30, 50, seed=1)
    p = stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False).pvalue
    expected = stats.false_discovery_control(p) <= 0.05
    assert separated(moments(a), moments(b)).numpy().tolist() == expected.tolist()
    assert expected.any() and not expected.all()
