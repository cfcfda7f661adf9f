"""How much of a score is chance: PosENet, the BHV test and PPP under the same conditions.

A *score* is a metric's number for one network; its *setting* is what the metric leaves to choose,
PosENet's target or PPP's layer. A *trial* repeats the measurement of the same network with all
that it leaves to chance; a *run* is one network and one trial. The tests of claims C1 and C6 are
described in ``data/claims.yaml``. [ours]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations, product

import numpy as np
import pandas as pd
from scipy import stats

from ppp.errors import ParameterError
from ppp.metrics import Estimate
from studies.bhv import analysis as bhv
from studies.claims import Verdict, claim
from studies.stats import leave_one_out, sides

SPC, MAE, BHV = "PosENet SPC", "PosENet MAE", "BHV accuracy"
MAE_PPP, SNR_PPP = "MAE-PPP", "SNR-PPP"
METRICS = (SPC, MAE, BHV, MAE_PPP, SNR_PPP)
"""Names of the metrics, in the order of tables and figures."""
BHV_SCHEMES = {
    "S-zero": "zeros",
    "S-reflect": "reflect",
    "S-replicate": "replicate",
    "S-circular": "circular",
    "S-randn": "randn",
}
"""The variants of the BHV test that pad one cell by a scheme of the zoo."""

_COLUMNS = ["metric", "setting", "scheme", "seed", "trial", "value"]
_DIFFERENCES = ["metric", "other", "difference", "low", "high"]
_FEWEST = 3  # seeds of an interval that leaves one out


def scores(
    trials: pd.DataFrame | None = None,
    patterns: pd.DataFrame | None = None,
    accuracies: pd.DataFrame | None = None,
    images: str = "photographs",
) -> pd.DataFrame:
    """Bring the scores of all metrics into one form.

    Parameters
    ----------
    trials, patterns : DataFrame, optional
        Of one part, as :func:`studies.posenet.design.trials` and
        :func:`~studies.posenet.design.patterns` read them.
    accuracies : DataFrame, optional
        As :func:`studies.bhv.design.accuracies` reads them. Taken are the published
        protocol's accuracies on dissimilar images of the five variants that pad one cell (%).
    images : str
        What read-outs were tested on.

    Returns
    -------
    DataFrame
        metric, setting, scheme, seed (of the network), trial, value.

    Examples
    --------
    >>> from studies.bhv.design import accuracies
    >>> scores(accuracies=accuracies())["scheme"].nunique()
    5
    """
    parts = [pd.DataFrame(columns=_COLUMNS)]
    if trials is not None:
        long = trials[trials["images"] == images].rename(columns={"spc": SPC, "mae": MAE})
        long = long.melt(["padding", "seed", "trial", "target"], [SPC, MAE], "metric")
        parts.append(long.rename(columns={"padding": "scheme", "target": "setting"}))
    if accuracies is not None:
        rows = bhv.usual(accuracies)
        rows = rows[rows["variant"].isin(BHV_SCHEMES)]
        least = rows.groupby("variant")["seed"].nunique().min()
        rows = rows[rows["seed"] < least]  # seeds count from 0: those that all variants have
        rows = rows[["seed"]].assign(
            scheme=rows["variant"].map(BHV_SCHEMES), value=rows["dissimilar"]
        )
        parts.append(rows.assign(metric=BHV, setting="dissimilar", trial=0))
    if patterns is not None:
        long = patterns.rename(columns={"padding": "scheme", "layer": "setting"})
        parts.append(long.assign(metric=long["metric"].map({"mae": MAE_PPP, "snr": SNR_PPP})))
    rows = pd.concat([part[_COLUMNS] for part in parts if len(part)] or parts, ignore_index=True)
    order = rows["metric"].map(METRICS.index)
    return rows.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)


def arrays(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Arrange scores by metric as settings x schemes x seeds x trials.

    Parameters
    ----------
    rows : DataFrame
        As :func:`scores` gives it.

    Returns
    -------
    dict of str to ndarray, shape (settings, schemes, seeds, trials)
        Settings and schemes in the order of their appearance in `rows`, whatever the metric.

    Raises
    ------
    ParameterError
        A metric lacks a score, or has one twice.

    Examples
    --------
    >>> rows = pd.DataFrame({"metric": "SPC", "setting": "H", "scheme": ["a", "b"], "seed": 0})
    >>> arrays(rows.assign(trial=0, value=[0.5, 0.25]))["SPC"].shape
    (1, 2, 1, 1)
    """
    factors = ["setting", "scheme", "seed", "trial"]
    return {
        metric: balanced(part, factors, "value", metric, rows)
        for metric, part in rows.groupby("metric", sort=False)
    }


def _levels(part: pd.DataFrame, name: str, whole: pd.DataFrame) -> list[object]:
    """Return a factor's levels: numbers sorted, texts in the order in which `whole` has them."""
    if pd.api.types.is_numeric_dtype(part[name]):
        return sorted(part[name].unique())
    return [level for level in whole[name].unique() if (part[name] == level).any()]


def balanced(
    rows: pd.DataFrame,
    factors: Sequence[str],
    value: str,
    what: str,
    whole: pd.DataFrame | None = None,
) -> np.ndarray:
    """Arrange a column by factors, each combination of whose levels occurs exactly once.

    Parameters
    ----------
    rows : DataFrame
    factors : sequence of str
        Columns that become axes; their numbers are sorted, their texts keep their order.
    value : str
        Column of the values.
    what : str
        What they are, for an error.
    whole : DataFrame, optional
        Gives the order of texts; without it `rows` does.

    Raises
    ------
    ParameterError
        A combination is missing or occurs twice.
    """
    levels = [_levels(rows, name, rows if whole is None else whole) for name in factors]
    codes = [pd.Index(level).get_indexer(rows[name]) for level, name in zip(levels, factors)]
    shape = [len(level) for level in levels]
    cells = np.ravel_multi_index(codes, shape) if len(rows) else np.empty(0, int)
    if len(rows) != np.prod(shape) or len(np.unique(cells)) != len(cells) or not len(rows):
        raise ParameterError(
            f"{what}: {len(rows)} values for {' x '.join(map(str, shape))} combinations of "
            f"{', '.join(factors)}; expected each exactly once"
        )
    result = np.empty(int(np.prod(shape)))
    result[cells] = rows[value].to_numpy(float)
    return result.reshape(shape)


# --------------------------------------------------------------------------- repeatability


def repeatability(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the intraclass correlation of networks over trials, per metric and setting.

    ICC(A,1): two-way random effects, absolute agreement, one trial. 1 if every trial gives a
    network the same score, 0 if a score says nothing about the network.

    Parameters
    ----------
    rows : DataFrame
        As :func:`scores` gives it.

    Returns
    -------
    DataFrame
        metric, setting, networks, trials, icc, low and high (95 %), which are missing if a score
        is, or all are equal. Fewer than two networks, two trials or five scores have no row.

    Raises
    ------
    ParameterError
        See :func:`arrays`.

    Examples
    --------
    >>> rows = pd.DataFrame({"value": [0.1, 0.2, 0.3, 0.8, 0.9, 0.7], "scheme": list("aaabbb")})
    >>> rows = rows.assign(metric="SPC", setting="H", seed=0, trial=[0, 1, 2] * 2)
    >>> round(float(repeatability(rows)["icc"].item()), 2)
    0.95
    """
    table = []
    for (metric, setting), part in rows.groupby(["metric", "setting"], sort=False):
        grid = balanced(part, ["scheme", "seed", "trial"], "value", f"{metric}, {setting}")
        grid = grid.reshape(-1, grid.shape[-1])
        networks, trials = grid.shape
        if min(networks, trials) < 2 or grid.size < 5:
            continue
        low = high = value = float("nan")
        if np.isfinite(grid).all() and np.ptp(grid):
            value, low, high = _icc(grid)
        table.append((metric, setting, networks, trials, value, low, high))
    columns = ["metric", "setting", "networks", "trials", "icc", "low", "high"]
    return pd.DataFrame(table, columns=columns)


def _icc(grid: np.ndarray) -> tuple[float, float, float]:
    """Return ICC(A,1) of scores, networks x trials, and its interval: McGraw and Wong (1996)."""
    if (grid == grid[:, :1]).all():  # every trial repeats the first: no mean square but one
        return 1.0, 1.0, 1.0
    n, k = grid.shape
    mean, networks, trials = grid.mean(), grid.mean(1), grid.mean(0)
    rest = (grid - networks[:, None]) - (trials - mean)
    between = k * ((networks - mean) ** 2).sum() / (n - 1)  # mean squares
    across = n * ((trials - mean) ** 2).sum() / (k - 1)
    error = (rest**2).sum() / ((n - 1) * (k - 1))
    icc = (between - error) / (between + (k - 1) * error + k / n * (across - error))
    first, second = k * icc * across, (n * (1 + (k - 1) * icc) - k * icc) * error
    freedom = (n - 1) * (k - 1) * (first + second) ** 2 / ((n - 1) * first**2 + second**2)
    both = k * across + (k * n - k - n) * error
    least = stats.f.ppf(0.975, n - 1, freedom)
    most = stats.f.ppf(0.975, freedom, n - 1)
    low = n * (between - least * error) / (least * both + n * between)
    high = n * (most * between - error) / (both + n * most * between)
    return float(icc), float(low), float(high)


# -------------------------------------------------------------------------- contradictions


def contradiction(values: np.ndarray) -> np.ndarray:
    """Return the probability that two runs order two schemes oppositely.

    A run takes one network of each scheme, at random, and one trial of each; two runs share no
    network. Equal scores, and scores that are not finite, count half.

    Parameters
    ----------
    values : ndarray, shape (settings, schemes, seeds, trials)
        At least two schemes and two seeds.

    Returns
    -------
    ndarray, shape (settings, pairs)
        0, if a pair's order is certain, to 0.5, if it is chance; above, if seeds alternate.
        Pairs as :func:`itertools.combinations` lists them.

    Raises
    ------
    ParameterError
        Fewer schemes or seeds.

    Examples
    --------
    >>> contradiction(np.array([[[[1.0], [2.0]], [[3.0], [4.0]]]])).tolist()
    [[0.0]]
    """
    _, schemes, seeds, _ = values.shape
    if schemes < 2 or seeds < 2:
        raise ParameterError(
            f"{schemes} schemes and {seeds} seeds; two of each are needed to compare two runs"
        )
    values, pairs = np.where(np.isfinite(values), values, np.nan), []
    for first, second in combinations(range(schemes), 2):
        above = _share_above(values[:, first], values[:, second])
        # The mean product over pairs of entries that share neither row nor column.
        apart = above.sum((1, 2)) ** 2 + np.square(above).sum((1, 2))
        apart -= np.square(above.sum(1)).sum(1) + np.square(above.sum(2)).sum(1)
        both = apart / (seeds * (seeds - 1)) ** 2
        pairs.append(2 * (above.mean((1, 2)) - both))
    return np.stack(pairs, axis=1)


def _share_above(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the share of pairs of trials in which `a` exceeds `b`, a tie or NaN counting half.

    Both are settings x seeds x trials; the result is settings x seeds of a x seeds of b.
    """
    a, b = a[:, :, None, :, None], b[:, None, :, None, :]
    return ((a > b) + 0.5 * ~((a > b) | (a < b))).mean((3, 4))


def contradictions(rows: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`contradiction` of every metric, setting and pair of schemes.

    Returns
    -------
    DataFrame
        metric, setting, first, second, probability.
    """
    table, values = [], arrays(rows)
    for metric, part in rows.groupby("metric", sort=False):
        settings = _levels(part, "setting", rows)
        pairs = combinations(_levels(part, "scheme", rows), 2)
        for (setting, pair), p in zip(product(settings, pairs), contradiction(values[metric]).flat):
            table.append((metric, setting, *pair, p))
    columns = ["metric", "setting", "first", "second", "probability"]
    return pd.DataFrame(table, columns=columns)


def disagreement(rows: pd.DataFrame, one: str = SPC, other: str = MAE) -> pd.DataFrame:
    """Tell how often two scores of the same trials disagree about which network has more.

    Pairs of networks of different schemes, in the same trial. A tie counts half.

    Parameters
    ----------
    rows : DataFrame
        As :func:`scores` gives it.
    one, other : str
        Metrics; `one` is higher, and `other` lower, the more position information there is.

    Returns
    -------
    DataFrame
        setting; runs, the share of pairs of single runs (0 to 1); schemes, the share of pairs of
        schemes whose means disagree.

    Raises
    ------
    ParameterError
        The two metrics have not the same settings, schemes, seeds and trials in number.

    Examples
    --------
    >>> rows = pd.DataFrame({"scheme": ["a", "b"] * 2, "value": [1, 2, 1, 2], "seed": 0})
    >>> rows = rows.assign(metric=["SPC", "SPC", "MAE", "MAE"], setting="H", trial=0)
    >>> disagreement(rows, "SPC", "MAE")["runs"].item()
    1.0
    """
    values = arrays(rows)
    a, b = values[one], -values[other]
    if a.shape != b.shape:
        raise ParameterError(
            f"{one} and {other} have {a.shape} and {b.shape} settings, schemes, seeds and trials; "
            "expected the same"
        )
    settings = _levels(rows[rows["metric"] == one], "setting", rows)
    means = [x.mean((2, 3))[..., None, None] for x in (a, b)]
    frame = {"setting": settings, "runs": _opposed(a, b), "schemes": _opposed(*means)}
    return pd.DataFrame(frame)


def _opposed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the share of pairs of networks that two scores order oppositely, per setting."""
    shares = []
    for first, second in combinations(range(a.shape[1]), 2):
        signs = [np.sign(x[:, first, :, None] - x[:, second, None]) for x in (a, b)]
        shares.append((1 - signs[0] * signs[1]).mean((1, 2, 3)) / 2)
    return np.mean(shares, axis=0)


# -------------------------------------------------------------------------------- variance

_SCHEME, _SETTING, _SEED, _TRIAL, _IMAGE = "scheme", "setting", "seed", "trial", "image"
COMPONENTS = {
    "scheme": "padding scheme",
    "scheme x setting": "padding scheme, other at each target",
    "setting": "target",
    "network": "network seed",
    "trial": "read-out seed",
    "image": "image",
    "rest": "read-out seed x image",
}
"""Components of variance, and what they are in PosENet's scores."""


def components(values: np.ndarray, factors: Sequence[str]) -> dict[tuple[str, ...], float]:
    """Estimate variance components of a balanced crossed design: analysis of variance.

    Every factor and every interaction is a random effect. Their variances are solved for from
    the expected mean squares (Cornfield & Tukey 1956), as generalisability theory does.

    Parameters
    ----------
    values : ndarray
        One axis per factor, one value per cell.
    factors : sequence of str
        Names of the axes.

    Returns
    -------
    dict of tuple of str to float
        Variance by term, an interaction being a tuple of several names. Unbiased, so that a
        term without an effect is as often below 0 as above. Factors with one level have none.

    Examples
    --------
    >>> found = components(np.array([[1.0, 1.0], [3.0, 3.0]]), ["network", "trial"])
    >>> found["network",], found["network", "trial"]
    (2.0, 0.0)
    """
    axes = [axis for axis, size in enumerate(values.shape) if size > 1]
    terms = list(chain.from_iterable(combinations(axes, k) for k in range(1, len(axes) + 1)))
    squares = {}
    for term in terms:
        part = values
        for axis in axes:
            mean = part.mean(axis, keepdims=True)
            part = part - mean if axis in term else mean
        repeats = values.size / part.size
        freedom = np.prod([values.shape[axis] - 1 for axis in term])
        squares[term] = repeats * np.square(part).sum() / freedom
    variances = {}
    for term in terms:
        inside = np.prod([values.shape[axis] for axis in axes if axis not in term])
        above = (t for t in terms if set(term) <= set(t))
        signed = sum((-1) ** (len(t) - len(term)) * squares[t] for t in above)
        variances[tuple(factors[axis] for axis in term)] = float(signed / inside)
    return variances


def variance_components(values: np.ndarray, factors: Sequence[str]) -> pd.DataFrame:
    """Group the terms of :func:`components` by what they mean, with intervals.

    Parameters
    ----------
    values : ndarray
        One axis per factor.
    factors : sequence of str
        Some of scheme, setting, seed, trial, image.

    Returns
    -------
    DataFrame
        component (see :data:`COMPONENTS`), variance, share of the sum of all, 0 to 1; its ends
        low and high (95 %), by leaving out one network seed at a time, cut at 0 and 1 (missing
        without that factor, or with fewer than three seeds).
        A variance below 0 counts as 0 in the shares.

    Examples
    --------
    >>> draw = np.random.default_rng(0).normal(size=(5, 4, 20))
    >>> found = variance_components(draw, ["scheme", "seed", "trial"]).set_index("component")
    >>> bool(found.loc["trial", "share"] > 0.9)
    True
    """
    whole = _grouped(components(values, factors))
    seeds = _without_each(values, factors.index(_SEED)) if _SEED in factors else ()
    left_out = [_shares(_grouped(components(part, factors))) for part in seeds]
    rows = []
    for name, share in _shares(whole).items():
        interval = leave_one_out(share, [part[name] for part in left_out])
        low, high = np.clip([interval.low, interval.high], 0, 1)
        rows.append((name, whole[name], share, low, high))
    return pd.DataFrame(rows, columns=["component", "variance", "share", "low", "high"])


def _grouped(terms: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    sums = dict.fromkeys(COMPONENTS, 0.0)
    for term, variance in terms.items():
        sums[_component(term)] += variance
    there = {_component(term) for term in terms}
    return {name: value for name, value in sums.items() if name in there}


def _shares(variances: Mapping[str, float]) -> dict[str, float]:
    clipped = {name: max(variance, 0.0) for name, variance in variances.items()}
    whole = sum(clipped.values()) or float("nan")
    return {name: variance / whole for name, variance in clipped.items()}


def _component(term: Sequence[str]) -> str:
    if _IMAGE in term:
        return "rest" if _TRIAL in term else "image"
    if _TRIAL in term:
        return "trial"
    if _SEED in term:
        return "network"
    if _SCHEME in term:
        return "scheme x setting" if _SETTING in term else "scheme"
    return "setting"


def of_windows(windows: pd.DataFrame, score: str) -> tuple[np.ndarray, list[str]]:
    """Arrange the scores of single test windows for :func:`variance_components`.

    Parameters
    ----------
    windows : DataFrame
        As :func:`studies.posenet.design.windows` reads it.
    score : {"spc", "mae"}

    Returns
    -------
    values : ndarray, shape (schemes, seeds, trials, targets, windows)
        Without windows that some trial has no rank correlation for.
    factors : list of str
    """
    factors = ["padding", "seed", "trial", "target", "window"]
    values = balanced(windows, factors, score, score)
    defined = np.isfinite(values).all((0, 1, 2, 3))
    return values[..., defined], [_SCHEME, _SEED, _TRIAL, _SETTING, _IMAGE]


def between_schemes(values: np.ndarray) -> np.ndarray:
    """Return the share of one run's variance that lies between schemes, per setting.

    Parameters
    ----------
    values : ndarray, shape (settings, schemes, seeds, trials)

    Returns
    -------
    ndarray, shape (settings,)
        0 to 1: the intraclass correlation of schemes, one run of each.

    Examples
    --------
    >>> between_schemes(np.array([[[[1.0], [1.0]], [[3.0], [3.0]]]])).tolist()
    [1.0]
    """
    shares = []
    for part in values:
        terms = components(part, [_SCHEME, _SEED, _TRIAL])
        between = max(terms.pop((_SCHEME,)), 0.0)
        whole = between + sum(max(variance, 0.0) for variance in terms.values())
        shares.append(between / whole if whole else float("nan"))
    return np.array(shares)


# --------------------------------------------------------------------- the reliability table


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the reliability table: one row per metric, intervals at 95 %.

    Parameters
    ----------
    rows : DataFrame
        As :func:`scores` gives it.

    Returns
    -------
    DataFrame
        metric; settings, schemes, seeds, trials (numbers); icc, the mean over settings of
        :func:`repeatability`, and its icc_least and icc_most; contradicted, the mean of
        :func:`contradictions` with contradicted_low and _high; between, the mean share of
        :func:`between_schemes`, with between_low and _high; agreement, Kendall's coefficient of
        concordance W (0 to 1) of the settings about the order of the schemes. Intervals leave
        out one seed at a time. What cannot be computed is missing.
    """
    icc = repeatability(rows).groupby("metric")["icc"].agg(["mean", "min", "max"])
    icc.columns = ["icc", "icc_least", "icc_most"]
    table = []
    for metric, values in arrays(rows).items():
        row = {"metric": metric} | dict(
            zip(["settings", "schemes", "seeds", "trials"], values.shape)
        )
        for name, statistic in (("contradicted", _contradicted), ("between", _between)):
            interval = Estimate(*[float("nan")] * 3)
            if min(values.shape[1:3]) > 1:
                interval = leave_one_out(statistic(values), _each(statistic, values))
            low, high = np.clip([interval.low, interval.high], 0, 1)
            row |= {name: interval.value, f"{name}_low": low, f"{name}_high": high}
        table.append(row | {"agreement": concordance(values.mean((2, 3)))})
    return pd.DataFrame(table).join(icc, on="metric")


def concordance(means: np.ndarray) -> float:
    """Return Kendall's coefficient of concordance of several rankings, corrected for ties.

    Parameters
    ----------
    means : ndarray, shape (rankings, things)

    Returns
    -------
    float
        1 if all rankings are the same, near 0 if they have nothing in common; NaN for one
        ranking, fewer than three things, or values that are not finite.

    Examples
    --------
    >>> concordance(np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]]))
    1.0
    """
    rankings, things = means.shape
    tied = (means == means[:, :1]).all()
    if rankings < 2 or things < 3 or tied or not np.isfinite(means).all():
        return float("nan")
    # Friedman's statistic is W times its greatest value.
    statistic = stats.friedmanchisquare(*means.T).statistic
    return float(statistic / (rankings * (things - 1)))


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Compare how often PPP and the other metrics contradict themselves.

    Returns
    -------
    DataFrame
        metric (one of PPP), other, difference of the mean probabilities of contradiction (PPP's
        less the other's), low, high (95 %, delete-one-seed jackknife).

    Raises
    ------
    ParameterError
        Metrics with different seeds.
    """
    values = arrays(rows)
    seeds = rows.groupby("metric")["seed"].agg(lambda seeds: tuple(sorted(set(seeds))))
    if seeds.nunique() > 1:
        raise ParameterError(f"the metrics have different seeds: {seeds.to_dict()}")
    whole = {metric: _contradicted(part) for metric, part in values.items()}
    parts = {metric: np.array(_each(_contradicted, part)) for metric, part in values.items()}
    table = []
    for metric, other in product((MAE_PPP, SNR_PPP), (SPC, MAE, BHV)):
        if metric in values and other in values:
            interval = leave_one_out(whole[metric] - whole[other], parts[metric] - parts[other])
            table.append((metric, other, interval.value, interval.low, interval.high))
    return pd.DataFrame(table, columns=_DIFFERENCES)


def _contradicted(values: np.ndarray) -> float:
    return float(contradiction(values).mean())


def _between(values: np.ndarray) -> float:
    return float(between_schemes(values).mean())


def _without_each(values: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    for seed in range(values.shape[axis] if values.shape[axis] >= _FEWEST else 0):
        yield np.delete(values, seed, axis)


def _each(statistic: Callable[[np.ndarray], float], values: np.ndarray) -> list[float]:
    return [statistic(part) for part in _without_each(values, 2)]


# -------------------------------------------------------------------------------- verdicts


def judge_variance(rows: pd.DataFrame) -> Verdict:
    """Apply the test of claim C1. [ours]

    Parameters
    ----------
    rows : DataFrame
        As :func:`scores` gives it, of trained networks under the published protocol.

    Returns
    -------
    Verdict
        Its table is :func:`repeatability` of PosENet's two scores, with the interval's place:
        below or above the threshold, or across.
    """
    entry = claim("C1")
    table = repeatability(rows[rows["metric"].isin([SPC, MAE])])
    threshold = entry.numbers["threshold"]
    table["place"] = np.select(sides(table, threshold), ["above", "below"], "across")
    places = pd.crosstab(table["metric"], table["place"])
    places = places.reindex(index=[SPC, MAE], columns=["below", "above", "across"], fill_value=0)
    if places.sum(axis=1).min() < 3:
        return entry.not_evaluated("both scores of three targets are needed", table)
    below, above = places["below"], places["above"]
    because = (
        f"the interval lies below {threshold:g} for {below[SPC]} (SPC) and {below[MAE]} (MAE) "
        f"targets, above it for {above[SPC]} and {above[MAE]}"
    )
    return entry.decide(table, below.min() >= 3, above.min() >= 3, because)


def judge_reliability(rows: pd.DataFrame) -> Verdict:
    """Apply the test of claim C6. [ours]

    Parameters
    ----------
    rows : DataFrame
        As :func:`scores` gives it, of all five metrics and the same seeds.

    Returns
    -------
    Verdict
        Its table is :func:`differences`.
    """
    entry = claim("C6")
    seeds = rows.groupby("metric")["seed"].nunique()
    if set(rows["metric"]) != set(METRICS) or seeds.min() < _FEWEST:
        because = f"all five metrics and {_FEWEST} seeds are needed"
        return entry.not_evaluated(because, pd.DataFrame(columns=_DIFFERENCES))
    table = differences(rows)
    above, below = sides(table, 0)
    because = (
        f"PPP contradicts itself less often, with the whole interval, in {below.sum()} of "
        f"{len(table)} comparisons, and more often in {above.sum()}"
    )
    return entry.decide(table, below.all(), above.any(), because)


def against(table: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Return columns of :func:`summary` as texts, value [low, high], under other names."""
    texts = table[["metric"]].copy()
    for name, title in names.items():
        texts[title] = [f"{v:.2f}" if np.isfinite(v) else "–" for v in table[name]]
        if f"{name}_low" in table:
            ends = zip(table[f"{name}_low"], table[f"{name}_high"])
            texts[title] += [
                f"\u00a0[{low:.2f},\u00a0{high:.2f}]" if np.isfinite(low) else ""
                for low, high in ends
            ]
    return texts
