"""Means over seeds: intervals, effect sizes, corrected tests. [ours]"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ppp.metrics import Estimate, jackknife
from ppp.statistics import unbiased_power


def over_seeds(frame: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Average over seeds, with Student's t interval and a test against 0.

    Parameters
    ----------
    frame : DataFrame
        One row per seed in each group.
    value : str
        Column to average.
    by : sequence of str
        Columns that make the groups.

    Returns
    -------
    DataFrame
        The columns `by`, n, mean, low, high (95 %), effect (mean over standard deviation
        between seeds), p (two-sided) and p_holm (Holm's correction over all rows). With one
        seed in a group all but mean and n are NaN.

    Examples
    --------
    >>> frame = pd.DataFrame({"padding": "zeros", "change": [1.0, 2.0, 3.0]})
    >>> row = over_seeds(frame, "change", ["padding"]).iloc[0]
    >>> float(row["mean"]), round(float(row["low"]), 2), float(row["effect"])
    (2.0, -0.48, 2.0)
    """
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        values = group[value].to_numpy(float)
        mean, low, high, p, effect = values.mean(), *[float("nan")] * 4
        deviation = values.std(ddof=1) if len(values) > 1 else float("nan")
        if deviation > 0:
            test = stats.ttest_1samp(values, 0.0)
            low, high = test.confidence_interval(0.95)
            p, effect = test.pvalue, mean / deviation
        elif deviation == 0:  # seeds agree to the digit
            low, high, p = mean, mean, float(mean == 0)
        rows.append((*key, len(values), mean, low, high, effect, p))
    table = pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high", "effect", "p"])
    return table.assign(p_holm=holm(table["p"]))


def holm(p: pd.Series) -> pd.Series:
    """Correct p-values for their number by Holm's method; missing ones stay missing.

    The numbers are those of statsmodels, which collects the interpreter's garbage at each call.

    Examples
    --------
    >>> holm(pd.Series([0.04, 0.01, float("nan")])).tolist()
    [0.04, 0.02, nan]
    """
    ordered = p.astype(float).dropna().sort_values()
    raised = (ordered * np.arange(len(ordered), 0, -1)).cummax().clip(upper=1)
    return raised.reindex(p.index)


def per_seed(frame: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Average each seed's rows, over layers for instance, before :func:`over_seeds`.

    Returns
    -------
    DataFrame
        The columns `by`, seed and `value`.
    """
    return frame.groupby([*by, "seed"], sort=False)[value].mean().reset_index()


def sides(rows: pd.DataFrame, threshold: float) -> tuple[pd.Series, pd.Series]:
    """Return which intervals lie wholly above a threshold, and which wholly below."""
    return rows["low"] > threshold, rows["high"] < threshold


def leave_one_out(value: float, left_out: Sequence[float], fewest: int = 3) -> Estimate:
    """Return a jackknife interval, 95 %, around a value; none of fewer than `fewest` parts.

    Examples
    --------
    >>> leave_one_out(2.0, [1.5, 2.5])
    Estimate(value=2.0, low=nan, high=nan)
    """
    if len(left_out) < fewest:
        return Estimate(value, float("nan"), float("nan"))
    return jackknife(value, left_out, 0.95, corrected=False)


def mean_interval(
    frame: pd.DataFrame, by: Sequence[str], value: str, confidence: float = 0.95
) -> pd.DataFrame:
    """Average `value` over independent rows, with Student's t interval.

    Returns
    -------
    DataFrame
        Columns of `by`, `value`, low, high and n; NaN bounds for n = 1.

    Examples
    --------
    >>> frame = pd.DataFrame({"scheme": ["zeros"] * 2, "error": [1.0, 3.0]})
    >>> float(mean_interval(frame, ["scheme"], "error")["error"].iloc[0])
    2.0
    """
    table = frame.groupby(list(by), sort=False)[value].agg(["mean", "sem", "count"]).reset_index()
    half = table["sem"] * stats.t.ppf((1 + confidence) / 2, (table["count"] - 1).clip(lower=1))
    table["low"], table["high"] = table["mean"] - half, table["mean"] + half
    return table.rename(columns={"mean": value, "count": "n"}).drop(columns="sem")


def readable(rows: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """Return a table of means over seeds as texts: mean [low, high], p after Holm.

    Examples
    --------
    >>> frame = pd.DataFrame({"padding": "zeros", "change": [1.0, 2.0, 3.0]})
    >>> readable(over_seeds(frame, "change", ["padding"])).iloc[0].tolist()[2:]
    ['2.00 [-0.48, 4.48]', '2.0', '0.074']
    """
    texts = rows.drop(columns=["mean", "low", "high", "effect", "p", "p_holm"])
    each = zip(rows["mean"], rows["low"], rows["high"])
    texts["mean [95 %]"] = [f"{m:.{digits}f} [{a:.{digits}f}, {b:.{digits}f}]" for m, a, b in each]
    texts["effect"] = [f"{value:.1f}" for value in rows["effect"]]
    texts["p (Holm)"] = ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in rows["p_holm"]]
    return texts


def two_way(whole: np.ndarray, without: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Interval of a mean over networks, for other networks and for other photographs.

    The jackknife's errors of leaving out each network and of leaving out each photograph, from
    all networks at once, are added; Student's t with the smaller number of degrees of freedom.
    For quantities without bias, or whose bias does not matter: the centre is their mean.

    Parameters
    ----------
    whole : ndarray, shape (networks,)
        The value of each network.
    without : ndarray, shape (networks, photographs)
        The same without each photograph in turn.
    confidence : float

    Returns
    -------
    Estimate
        NaN bounds with fewer than three networks or photographs.

    Examples
    --------
    >>> photographs = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [3.0, 4.0, 5.0]])
    >>> without = (photographs.sum(1, keepdims=True) - photographs) / 2
    >>> two_way(photographs.mean(1), without).value
    3.0
    """
    networks, pictures = without.shape
    value = whole.mean()
    if min(networks, pictures) < 3:
        return Estimate(float(value), float("nan"), float("nan"))
    left_out = without.mean(0)
    between = whole.var(ddof=1) / networks
    within = (pictures - 1) / pictures * np.square(left_out - left_out.mean()).sum()
    half = stats.t.ppf((1 + confidence) / 2, min(networks, pictures) - 1) * np.sqrt(
        between + within
    )
    return Estimate(float(value), float(value - half), float(value + half))


def share(products: np.ndarray, n: np.ndarray, spread: np.ndarray) -> float:
    """Return P / (P + V): the unbiased power over itself plus the variance over all windows.

    Parameters
    ----------
    products : ndarray, shape (G + 1, G + 1)
        Of :func:`ppp.statistics.products`.
    n, spread : ndarray, shape (G,)
        Windows of each photograph, and their squared deviations, mean over cells.
    """
    gram, power = products[:-1, :-1], unbiased_power(products).value
    between = n @ np.diag(gram) - n @ gram @ n / n.sum()
    variance = (spread.sum() + between) / (n.sum() - 1)
    return power / (power + variance)
