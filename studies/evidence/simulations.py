"""How often do the tests and intervals err? Their size, power and coverage, simulated. [ours]

``python -m studies.evidence.simulations`` makes ``data/evidence/simulations.csv`` again, in a few
minutes. Simulated are mean maps of photographs, whose windows are correlated and which differ in
contrast; what networks with patterns of their own make of the same photographs; and values of
networks.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import linalg, stats
from torch import from_numpy

from ppp.errors import ParameterError
from ppp.statistics import Estimate, halves, jackknife, products, sign_flip_test, unbiased_power
from studies import paths
from studies.stats import mean_interval, two_way
from studies.storage import tables as files

FILE, DRAWS, SEED = "simulations.csv", 2000, 0
_DATA = paths.data("evidence").parent
"""What is shipped, and from what."""
KEY = ["rate", "what", "setting", "networks", "photographs", "nominal"]
NOMINAL, FAMILY = 0.95, 0.99
"""Levels of an interval, and of one in a family of five schemes."""
NETWORKS, PHOTOGRAPHS = (3, 5, 10), (8, 16, 32)
TESTED = [(5, 18), (5, 37)]
"""Networks and photographs of the amended tests."""

_CELLS, _WINDOWS, _OWN = 48, 16, 2.0  # standard deviation of what a window does not share
_PATTERN = np.sqrt(2) * np.sin(2 * np.pi * 7 * np.arange(_CELLS) / _CELLS)  # of power 1
_MEAN = float(np.abs(_PATTERN).mean())
_BLUR = linalg.circulant(np.r_[np.ones(5), np.zeros(_CELLS - 5)]) / np.sqrt(5)
_CONTRAST = 0.5  # of photographs, standard deviation of its logarithm
_NOISE = {
    "symmetric": lambda rng, *shape: rng.normal(size=shape) @ _BLUR,
    "each cell skewed": lambda rng, *shape: (rng.exponential(size=shape) - 1) @ _BLUR,
    "all cells skewed alike": lambda rng, n, _: (rng.exponential(size=(n, 1)) - 1) * _PATTERN,
}
"""Of mean 0 and variance 1; in the last two D and -D are not equally likely."""
_DIFFER = {
    "networks differ": (1, 0, 0), "photographs differ": (0, 1, 0), "both differ": (1, 1, 0),
    "each pair differs": (0, 0, 1), "all three": (1, 1, 1),
}  # fmt: skip
"""Parts of the error of a mean over networks and photographs."""
_STRENGTHS = {"no pattern": 0.0, "weak": 0.3, "medium": 1.0, "strong": 3.0}
_SPREADS = {"networks alike": 0.2, "networks unlike": 0.5}
"""Standard deviation between networks, of a strength's logarithm."""


def _means(rng, photographs: int, noise: str = "symmetric", strength: float = 0) -> np.ndarray:
    """Draw mean maps of photographs: pattern, what their windows share, the mean of the rest."""
    shared = _NOISE[noise](rng, photographs, _CELLS)
    own = rng.normal(0, _OWN / np.sqrt(_WINDOWS), (photographs, _CELLS))
    return strength * _PATTERN + rng.lognormal(0, _CONTRAST, (photographs, 1)) * (shared + own)


# Each draws once: in a setting, of so many networks and photographs, at a level.


def _flips(rng, setting, networks, photographs, level) -> bool:
    noise = (setting,) if setting in _NOISE else ("symmetric", _STRENGTHS[setting])
    return sign_flip_test(products(from_numpy(_means(rng, photographs, *noise)))) <= level


def _window_wise(rng, setting, networks, photographs, level) -> float:
    """Share of cells that a t-test over all windows finds, without any pattern."""
    shared = _NOISE[setting](rng, photographs, _CELLS)[:, None]
    windows = shared + rng.normal(0, _OWN, (photographs, _WINDOWS, _CELLS))
    return np.mean(stats.ttest_1samp(windows.reshape(-1, _CELLS), 0).pvalue <= level)


def _magnitude(rng, setting, networks, photographs, level, corrected: bool) -> Estimate:
    means = _means(rng, photographs, strength=_STRENGTHS[setting])
    rest = np.abs(means.sum(0) - means).mean(1) / (photographs - 1)
    return jackknife(np.abs(means.mean(0)).mean(), rest, level, corrected=corrected)


def _power(rng, setting, networks, photographs, level) -> Estimate:
    means = _means(rng, photographs, strength=_STRENGTHS[setting])
    return unbiased_power(products(from_numpy(means)), level)


def _crossed(rng, setting, networks, photographs, level) -> Estimate:
    shapes = (networks, 1), (1, photographs), (networks, photographs)
    parts = zip(_DIFFER[setting], shapes)
    values = sum(np.sqrt(part * np.prod(shape)) * rng.normal(size=shape) for part, shape in parts)
    rest = (values.sum(1, keepdims=True) - values) / (photographs - 1)
    return two_way(values.mean(1), rest, level)


def _of_maps(rng, setting, networks, photographs, level, what: Callable) -> Estimate:
    """Interval of what is computed of the maps of networks, each with a pattern of its own."""
    contrast, noise = rng.lognormal(0, _CONTRAST, (photographs, 1)), _NOISE["symmetric"]
    common, values = noise(rng, photographs, _CELLS), []
    for strength in rng.lognormal(0, _SPREADS[setting], networks):
        pattern = _PATTERN + noise(rng, 1, _CELLS)
        pattern *= strength / np.sqrt(np.square(pattern).mean())
        own = rng.normal(0, _OWN / np.sqrt(_WINDOWS), (photographs, _CELLS))
        shared = (common + noise(rng, photographs, _CELLS)) / np.sqrt(2)
        values.append(what(products(from_numpy(pattern + contrast * (shared + own))), contrast))
    whole, *rest = np.transpose(values)
    return two_way(whole, np.transpose(rest), level)


def _shares(alike: np.ndarray, contrast: np.ndarray) -> list[float]:
    """Return P / (P + V) of all photographs, then without each."""
    every, found = np.arange(len(contrast)), []
    inside = (_OWN * contrast) ** 2 * (_WINDOWS - 1)  # expected squared deviations
    for kept in (every, *(np.delete(every, i) for i in every)):
        gram = alike[np.ix_(kept, kept)]
        own, every_pair, n = np.trace(gram), gram.sum(), len(kept)
        variance = (inside[kept].sum() + _WINDOWS * (own - every_pair / n)) / (_WINDOWS * n - 1)
        found.append(1 / (1 + variance * n * (n - 1) / (every_pair - own)))
    return found


def _expected_share(strength: float) -> float:
    return 1 / (1 + np.exp(2 * _CONTRAST**2) * (1 + _OWN**2) / strength**2)


def _correlations(alike: np.ndarray, contrast: np.ndarray) -> list[float]:
    return [halves(alike, 20, without=i).mean() for i in (None, *range(len(contrast)))]


def _student(rng, setting, networks, photographs, level) -> Estimate:
    table = pd.DataFrame({"all": 0, "value": getattr(rng, setting)(size=networks)})
    return Estimate(*mean_interval(table, ["all"], "value", level).loc[0, ["value", "low", "high"]])


def _log_ratio(rng, setting, networks, photographs, level) -> Estimate:
    """Ratio of two means over networks, as a logarithm; corrected for bias at 95 % alone."""
    values = rng.lognormal(0, _SPREADS[setting], (2, networks))
    without = (np.delete(values, i, axis=1) for i in (*range(networks), []))
    *rest, whole = (float(np.diff(np.log2(part.mean(1)))[0]) for part in without)
    return jackknife(whole, rest, level, corrected=level == NOMINAL)


def _cases() -> Iterator[tuple]:
    """Yield rate, what, setting, networks, photographs, nominal level, truth; how to draw one."""
    alone, both = [(1, g) for g in PHOTOGRAPHS], [*product(NETWORKS, PHOTOGRAPHS), *TESTED]
    networks, family = [(n, 1) for n in NETWORKS], (NOMINAL, FAMILY)
    plain, corrected = (partial(_magnitude, corrected=chosen) for chosen in (False, True))
    shares, correlations = (partial(_of_maps, what=what) for what in (_shares, _correlations))
    power, mean = ({k: s**p * m for k, s in _STRENGTHS.items()} for p, m in ((2, 1), (1, _MEAN)))
    expected = {k: stats.lognorm(s).expect(_expected_share) for k, s in _SPREADS.items()}
    equal, of_draws = dict.fromkeys(_SPREADS, 0), {"normal": 0, "exponential": 1}
    for rate, what, settings, sizes, levels, once in (
        ("size", "t-test of windows", {"symmetric": None}, alone, [0.05], _window_wise),
        ("size", "sign flips", dict.fromkeys(_NOISE), alone, [0.05], _flips),
        ("power", "sign flips", {"weak": None, "medium": None}, alone, [0.05], _flips),
        ("coverage", "unbiased power", power, alone, [NOMINAL], _power),
        ("coverage", "mean |d|, plug-in", mean, alone, [NOMINAL], plain),
        ("coverage", "mean |d|, corrected", mean, alone, [NOMINAL], corrected),
        ("coverage", "two-way", dict.fromkeys(_DIFFER, 0), both, family, _crossed),
        ("coverage", "two-way, share", expected, TESTED, family, shares),
        ("coverage", "two-way, halves", dict.fromkeys(_SPREADS), TESTED, family, correlations),
        ("coverage", "Student's t", of_draws, networks, family, _student),
        ("coverage", "jackknife, networks", equal, networks, family, _log_ratio),
    ):
        for (setting, truth), (n, g), level in product(settings.items(), sizes, levels):
            yield rate, what, setting, n, g, level, truth, once


def simulate(draws: int = DRAWS, seed: int = SEED) -> pd.DataFrame:
    """Draw every case anew.

    Parameters
    ----------
    draws : int
        Of each case.
    seed : int

    Returns
    -------
    DataFrame
        rate ("size" or "power" of a test, "coverage" of an interval), what, setting, networks and
        photographs (1 where there is no other), nominal (level), value, low, high (95 % interval of
        its Monte-Carlo error, Wilson), draws, seed.
    """
    rows = []
    for *key, truth, once in _cases():
        rng = np.random.default_rng([seed, zlib.crc32(repr(key).encode())])
        found = [once(rng, *key[2:]) for _ in range(draws)]
        if isinstance(found[0], Estimate):  # without a known truth: of what they expect
            truth = np.mean([one.value for one in found]) if truth is None else truth
            found = [one.low <= truth <= one.high for one in found]
        value = float(np.mean(found))
        error = stats.binomtest(round(value * draws), draws).proportion_ci(method="wilson")
        rows.append((*key, value, error.low, error.high, draws, seed))
    return pd.DataFrame(rows, columns=[*KEY, "value", "low", "high", "draws", "seed"])


def read(data: str | Path = _DATA) -> pd.DataFrame:
    """Read the shipped table: see :func:`simulate`."""
    return files.read_table(Path(data, "evidence", FILE), columns=[*KEY, "value"])


def covered(
    what: str, networks: int = 1, photographs: int = 1, *, nominal: float = NOMINAL,
    setting: str | None = None, data: str | Path = _DATA,
) -> float:  # fmt: skip
    """Return the level at which an interval may be printed.

    That is the nominal one, unless it misses more than twice as often as it says (an interval of
    95 % that covers less than 90 %): then what it was found to cover.

    Parameters
    ----------
    what : str
        As in the table.
    networks, photographs : int
        Of the interval; where that was not simulated, the next smaller number was.
    nominal : float
    setting : str, optional
        One of the table; by default the one in which the interval covers least.
    data : path

    Raises
    ------
    ParameterError
        Nothing like it was simulated.

    Examples
    --------
    >>> covered("two-way", 5, 37)
    0.95
    """
    table = read(data).query("rate == 'coverage' and what == @what and nominal == @nominal")
    table = table[(table["networks"] <= networks) & (table["photographs"] <= photographs)]
    table = table[table["setting"] == setting] if setting else table
    for name in ("networks", "photographs"):
        table = table[table[name] == table[name].max()]
    if table.empty:
        raise ParameterError(f"{FILE} has no coverage of {what!r}, {networks} x {photographs}")
    found = float(table["value"].min())
    return found if 1 - found > 2 * (1 - nominal) else nominal


if __name__ == "__main__":
    files.write_table(paths.data("evidence") / FILE, simulate())
