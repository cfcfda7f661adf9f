"""Means over seeds: intervals, effect sizes, corrected tests. [ours]"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests


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
    found = pd.DataFrame(rows, columns=[*by, "n", "mean", "low", "high", "effect", "p"])
    known = found["p"].notna()
    found["p_holm"] = float("nan")
    if known.any():
        found.loc[known, "p_holm"] = multipletests(found.loc[known, "p"], method="holm")[1]
    return found


def readable(rows: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """Return a table of means over seeds as texts: mean [low, high], p after Holm.

    Examples
    --------
    >>> frame = pd.DataFrame({"padding": "zeros", "change": [1.0, 2.0, 3.0]})
    >>> readable(over_seeds(frame, "change", ["padding"])).iloc[0].tolist()[2:]
    ['2.00 [-0.48, 4.48]', '2.0', '0.074']
    """
    shown = rows.drop(columns=["mean", "low", "high", "effect", "p", "p_holm"])
    each = zip(rows["mean"], rows["low"], rows["high"])
    shown["mean [95 %]"] = [f"{m:.{digits}f} [{a:.{digits}f}, {b:.{digits}f}]" for m, a, b in each]
    shown["effect"] = [f"{value:.1f}" for value in rows["effect"]]
    shown["p (Holm)"] = ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in rows["p_holm"]]
    return shown
