"""Every metric, interval and test gives the known value of a planted pattern back.

Tolerances are four standard errors of the value asked for, from the planted noise; what is not
left to chance holds to float32.
"""

import numpy as np
import pytest
from planted import CORNER, DRAWS, Planted
from scipy import stats

import ppp
from ppp.statistics import halves, sign_flip_test

N, ERRORS = 64, 4.0  # pictures of one window each; standard errors
ROUNDING = 1e-6
VARIANTS = {
    "strong": (Planted((2.0,) * 4, (1.0,) * 4), "symmetric"),
    "weak": (Planted((0.5,) * 4, (1.0,) * 4), "symmetric"),
    "one channel": (Planted((0.0, 1.0, 0.0, 0.0), (0.5,) * 4), "symmetric"),
    "one corner": (Planted((1.0,) * 4, (0.5,) * 4, CORNER), "symmetric"),
    "none": (Planted((0.0,) * 4, (1.0,) * 4), "symmetric"),
    "none, skewed": (Planted((0.0,) * 4, (1.0,) * 4), "skewed"),
}
PATTERN = [name for name in VARIANTS if not name.startswith("none")]


def measured(planted, windows, **options):
    network = planted.network()
    reach = ppp.coverage(network, ["0"], windows.size)
    return ppp.measure(network, windows, ["0"], coverage=reach, groups=1000, **options)["0"]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    """The name of a variant, what is known of it, and what is measured."""
    planted, noise = VARIANTS[request.param]
    return request.param, planted, measured(planted, planted.windows(N, noise=noise, seed=1))


def folded(a, error) -> np.ndarray:
    """Expectation of ``|x|`` for x normal with mean a."""
    a, error = np.broadcast_arrays(np.asarray(a, float), np.asarray(error, float))
    return stats.foldnorm.mean(np.abs(a) / error, scale=error)


def test_it_is_vouched_for(variant):
    _, planted, found = variant
    assert found.null_test.passed and found.null_test.cells == round((1 - planted.influenced) * 144)
    assert found.completeness.shown and found.n == found.groups == N
    assert found.influenced == pytest.approx(planted.influenced)


def test_the_pattern_and_its_spread_are_the_planted_ones(variant):
    name, planted, found = variant
    border, (a, b) = (
        planted.border,
        (np.array(one)[:, None, None] for one in (planted.a, planted.b)),
    )
    error = ERRORS * np.abs(b * border) / np.sqrt(N)
    assert (np.abs(found.pattern - a * border) <= error + ROUNDING).all()
    kurtosis = 9 if "skewed" in name else 3  # of u; that of an exponential is 9
    relative = ERRORS * np.sqrt((kurtosis - 1) / N) / 2
    known = np.abs(b * border)
    assert (np.abs(found.deviation - known) <= relative * known + ROUNDING).all()
    assert not found.pattern[:, border == 0].any() and not found.deviation[:, border == 0].any()


def test_strength_in_all_three_normalisations(variant):
    _, planted, found = variant
    a, b = np.array(planted.a), np.array(planted.b)
    noise = b / np.sqrt(N)
    size = np.abs(planted.border).mean()
    expected, error = folded(a, noise).mean() * size, np.linalg.norm(noise) / 4 * size
    assert found.mae_raw == pytest.approx(expected, abs=ERRORS * error)
    assert found.sigma == pytest.approx(1, abs=ERRORS / np.sqrt(2 * N * 4 * 144))
    assert found.mae.value == pytest.approx(expected, abs=ERRORS * error + 0.01 * expected)
    assert found.mae_influenced.value == pytest.approx(found.mae.value / planted.influenced)
    touched = (np.abs(planted.border) > 0).mean()
    # 1 / s of n numbers is 1 + 3 / 4n too large, and uncertain by 1 / sqrt(2 n)
    ratio = (folded(a, noise) / b).mean() * touched
    spread = np.sqrt(np.sum(1 / N + (a / b) ** 2 / (2 * N))) / 4 * touched
    assert found.snr.value == pytest.approx(ratio * (1 + 0.75 / N), abs=ERRORS * spread)
    assert found.snr_influenced.value == pytest.approx(found.snr.value / planted.influenced)
    assert found.snr_db == pytest.approx(20 * np.log10(found.snr.value))


def test_power_share_and_amplitude(variant):
    _, planted, found = variant
    a, b, size = np.array(planted.a), np.array(planted.b), np.square(planted.border).mean()
    power, noise = np.mean(a**2) * size, np.mean(b**2) * size
    error = np.sqrt(np.sum(4 * a**2 * b**2 / N + 2 * b**4 / (N * (N - 1)))) / 4 * size
    assert found.power.value == pytest.approx(power, abs=ERRORS * error)
    assert found.amplitude == pytest.approx(
        np.sign(found.power.value) * np.sqrt(abs(found.power.value))
    )
    if power > ERRORS * error:
        assert found.amplitude == pytest.approx(np.sqrt(power), abs=ERRORS * error / np.sqrt(power))
    # of the variance of u, that of skewed numbers most
    uncertain = ERRORS * noise * np.sqrt(8 / N / 4)
    assert found.noise_power == pytest.approx(noise, abs=uncertain)
    share = power / (power + noise)
    assert found.share == pytest.approx(share, abs=(ERRORS * error + share * uncertain) / noise)


def test_intervals_hold_the_truth_and_are_as_wide_as_the_noise_asks_for(variant):
    name, planted, found = variant
    a, b = np.array(planted.a), np.array(planted.b)
    size, square = np.abs(planted.border).mean(), np.square(planted.border).mean()
    power = np.mean(a**2) * square
    assert found.power.low <= power <= found.power.high
    error = np.sqrt(np.sum(4 * a**2 * b**2 / N + 2 * b**4 / (N * (N - 1)))) / 4 * square
    half = stats.t.ppf(0.975, N - 1) * error
    assert (found.power.high - found.power.low) / 2 == pytest.approx(half, rel=0.5)
    if name in ("strong", "one corner"):  # where |d| is far from 0 in every cell that e reaches
        assert found.mae.low <= np.mean(a) * size <= found.mae.high
        half = stats.t.ppf(0.975, N - 1) * np.linalg.norm(b) / np.sqrt(N) / 4 * size
        assert (found.mae.high - found.mae.low) / 2 == pytest.approx(half, rel=0.25)
        ratio = np.mean(a / b) * (planted.border != 0).mean()
        assert found.snr.low <= ratio <= found.snr.high


def test_the_tests_find_a_pattern_where_there_is_one_and_only_there(variant):
    name, planted, found = variant
    assert found.p == sign_flip_test(found.products)
    touched = (planted.border != 0).mean()
    if name in PATTERN:
        assert found.p == 1e-4  # the least of 9,999 flips
        there = np.mean(np.array(planted.a) != 0) * touched
        if name == "weak":  # four errors of the mean: a channel may be missed
            assert there / 2 < found.detected <= there
        else:
            assert found.detected == pytest.approx(there, abs=0.05 * touched)
    else:
        assert found.p > 0.05 and found.detected == 0
        assert found.mae_floor == pytest.approx(found.mae.value, rel=1)
        floor = folded(0, np.array(planted.b) / np.sqrt(N)).mean() * np.abs(planted.border).mean()
        assert found.mae_floor == pytest.approx(floor, rel=ERRORS * 0.76 / np.sqrt(4 * 8))


def test_halves_are_as_alike_as_pattern_and_noise_say(variant):
    _, planted, found = variant
    a, b = np.array(planted.a), np.array(planted.b)
    mean, square = np.mean(planted.border), np.square(planted.border).mean()
    signal = np.mean(a**2) * square - np.mean(a) ** 2 * mean**2
    noise = np.mean(b**2) * (square - mean**2 / 4) / (N / 2)
    expected = signal / (signal + noise)
    # the pattern is seen through N numbers a channel, shared by all halves
    error = (1 - expected**2) / np.sqrt(4) + 0.01
    assert halves(found.products, seed=1).mean() == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("noise", DRAWS)
def test_windows_of_a_picture_that_share_their_noise_deceive_no_test(noise):
    """24 pictures of 8 windows, which have 4/5 of the variance in common; there is no pattern."""
    planted, pictures, each, shared = Planted((0.0,) * 64, (1.0,) * 64), 24, 8, 0.8
    windows = planted.windows(pictures, each, noise=noise, shared=shared, seed=2)
    found = measured(planted, windows)
    square, size = np.square(planted.border).mean(), np.abs(planted.border).mean()
    of_mean = shared + (1 - shared) / each  # variance of a picture's mean
    assert (found.n, found.groups) == (pictures * each, pictures)
    assert np.isnan(found.detected) and found.p > 0.05
    error = of_mean * square * np.sqrt(2 / (pictures * (pictures - 1)) / 64)
    assert found.power.value == pytest.approx(0, abs=ERRORS * error)
    assert found.power.low <= 0 <= found.power.high
    biased = square * (of_mean - 1 / each) / pictures
    assert found.power_windows == pytest.approx(biased, abs=ERRORS * error) and biased > 4 * error
    floor = np.sqrt(2 / np.pi * of_mean / pictures) * size
    assert found.mae_floor == pytest.approx(floor, rel=ERRORS * 0.76 / np.sqrt(64))


def test_where_the_surroundings_are_guessed_right_nothing_is_left():
    planted = VARIANTS["strong"][0]
    found = measured(planted, planted.windows(12, seed=3), schemes="reflect")
    assert not found.pattern.any() and not found.deviation.any()
    assert found.mae.value == found.power.value == found.amplitude == found.detected == 0
    assert found.p == 1 and found.influenced == pytest.approx(planted.influenced)


# --- single maps -------------------------------------------------------------------------

MAPS = 300  # windows of the template, and as many that are judged
SEEN = {
    "visible": Planted((0.5,) * 4, (0.2,) * 4),
    "hidden": Planted((0.1,) * 4, (0.1,) * 4),
    "one channel": Planted((0.0, 0.0, 0.5, 0.0), (0.1,) * 4),
    "one corner": Planted((1.0,) * 4, (0.5,) * 4, CORNER),
    "channels of two signs": Planted((0.5, -0.5, 0.5, -0.5), (0.2,) * 4),
    "none": Planted((0.0,) * 4, (0.5,) * 4),
}


@pytest.fixture(scope="module", params=SEEN)
def seen(request):
    planted = SEEN[request.param]
    parts = [planted.windows(MAPS // 2, 2, seed=s, name=f"part {s}") for s in (4, 5)]
    return planted, ppp.visibility(planted.network(), *parts, ["0"])["0"]


@pytest.mark.parametrize("version", ["all channels", "best channel", "channel mean"])
@pytest.mark.parametrize("n", [1, 4])
def test_the_area_of_single_maps_is_that_of_two_normal_distributions(seen, version, n):
    planted, found = seen
    expected, count = planted.areas(n)[version], MAPS // n
    # Hanley & McNeil 1982; and the template's weights are uncertain by a few per cent
    one, two = expected / (2 - expected), 2 * expected**2 / (1 + expected)
    terms = expected * (1 - expected) + (count - 1) * (one + two - 2 * expected**2)
    error = np.sqrt(terms) / count
    assert found.area(version, n) == pytest.approx(expected, abs=ERRORS * error + 0.01)


def test_the_best_channel_is_the_one_with_the_pattern(seen):
    planted, found = seen
    if np.count_nonzero(planted.a) == 1:
        assert found.channel == np.flatnonzero(planted.a)[0]
    assert found.algorithmic.keys() == found.optimal.keys() and len(found.pictures) == MAPS
