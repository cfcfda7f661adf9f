"""The confounders of the border-handling-variants test: statistics of the full design.

Every function takes the table that :func:`studies.bhv.design.accuracies` reads. The
test of claim C2 is described in ``data/claims.yaml``. [ours]
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ppp.errors import ParameterError
from studies.bhv import variants
from studies.bhv.design import MAIN
from studies.bhv.redgreen import PUBLISHED_SHIFT
from studies.bhv.variants import LONGER
from studies.claims import Verdict, claim
from studies.stats import holm, leave_one_out, over_seeds, sides

PUBLISHED = "as published"
"""Name of the level that changes nothing."""
PAIRS = tuple(combinations(MAIN, 2))
"""Pairs of the published variants."""

EPOCHS = variants.PUBLISHED.epochs
"""Epochs of the published protocol, at most."""

_FEWEST = 3  # seeds of a mean
_CONDITIONS = {  # condition: factor and level
    "canvas-0.25": ("canvas", "0.25"),
    "canvas-0.5": ("canvas", "0.5"),
    "canvas-1": ("canvas", "1"),
    "canvas-noise": ("canvas", "noise"),
    "canvas-photograph": ("canvas", "photograph"),
    "shuffled": ("shuffling", "every epoch"),
    "block-6": ("block size", "6 px"),
    "size-24": ("canvas size", "24 px"),
}
# The published variants with the same amount of padding; V, which has none, stays out.
_AMOUNTS = {
    "1 cell": {"S-zero": "S-zero", "S-circular": "S-circular", "F-zero": "S-zero"},
    "2 cells": {"S-zero": "F-zero", "S-circular": "S-circular-2", "F-zero": "F-zero"},
}


def outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """Put the similar and the dissimilar test of each kept network side by side.

    Returns
    -------
    DataFrame
        One row per kept network and shift above 0; similar, dissimilar, and loss, the difference
        of the two (percent and percentage points).

    Examples
    --------
    >>> from studies.bhv.design import accuracies
    >>> bool((outcomes(accuracies())["shift"] == 0).any())
    False
    """
    same = ["condition", "variant", "seed", "split", "epochs"]
    similar = table[table["shift"] == 0].set_index(same)["accuracy"].rename("similar")
    moved = table[table["shift"] > 0].join(similar, on=same)
    moved = moved.rename(columns={"accuracy": "dissimilar"})
    return moved.assign(loss=moved["similar"] - moved["dissimilar"])


def levels(table: pd.DataFrame) -> pd.DataFrame:
    """List the outcomes at which one factor is changed, and those of the published test.

    Returns
    -------
    DataFrame
        factor, level, variant, seed, similar, dissimilar, loss. At a level of the factor
        "amount", a variant's rows are those of its scheme with that amount of padding.

    Examples
    --------
    >>> from studies.bhv.design import accuracies
    >>> levels(accuracies())["factor"].nunique()
    9
    """
    every = outcomes(table)
    published = _usual(every)
    parts = [(PUBLISHED, PUBLISHED, published)]
    parts += [(*named, _usual(every, condition)) for condition, named in _CONDITIONS.items()]
    for shift, rows in _under(every).groupby("shift"):
        if shift < PUBLISHED_SHIFT:
            parts.append(("shift", f"{shift} rows", rows))
    longer = LONGER["epochs"]
    parts.append(("splits", "independent", _usual(every, split="independent")))
    parts.append(("training", f"{longer} epochs", _usual(every, epochs=longer)))
    for level, taken in _AMOUNTS.items():
        for variant, source in taken.items():
            rows = published[published["variant"] == source].assign(variant=variant)
            parts.append(("amount", level, rows))
    columns = ["factor", "level", "variant", "seed", "similar", "dissimilar", "loss"]
    frames = [rows.assign(factor=factor, level=level)[columns] for factor, level, rows in parts]
    return pd.concat(frames, ignore_index=True)


def usual(table: pd.DataFrame, condition: str = "published") -> pd.DataFrame:
    """Return the outcomes under the published protocol and shift in one condition."""
    return _usual(outcomes(table), condition)


def _under(
    every: pd.DataFrame, condition: str = "published", split: str = "leaked", epochs: int = EPOCHS
) -> pd.DataFrame:
    """Return the outcomes of one condition and protocol."""
    same = (every["condition"] == condition) & (every["split"] == split)
    return every[same & (every["epochs"] == epochs)]


def _usual(every: pd.DataFrame, *condition: str, **protocol: object) -> pd.DataFrame:
    """Return the outcomes of one condition and protocol after the full move."""
    rows = _under(every, *condition, **protocol)
    return rows[rows["shift"] == rows["shift"].max()]


def effects(levels: pd.DataFrame) -> pd.DataFrame:
    """Return how much each level changes the accuracy on the dissimilar images.

    Networks are paired by seed, so by their initial weights.

    Parameters
    ----------
    levels : DataFrame
        As :func:`levels` gives it.

    Returns
    -------
    DataFrame
        As :func:`studies.stats.over_seeds`, in percentage points, by factor, level and
        variant.
    """
    key = ["variant", "seed"]
    base = levels[levels["factor"] == PUBLISHED].set_index(key)["dissimilar"].rename("published")
    rows = levels[levels["factor"] != PUBLISHED].join(base, on=key)
    change = (rows["dissimilar"] - rows["published"]).round(9)  # what rounding leaves is no change
    rows = rows.assign(change=change).dropna(subset=["change"])
    return over_seeds(rows, "change", ["factor", "level", "variant"])


def orders(levels: pd.DataFrame) -> pd.DataFrame:
    """Compare every pair of variants on the dissimilar images, at every level.

    Returns
    -------
    DataFrame
        factor, level, first, second; difference of their means (percentage points), p of Welch's
        test, p_holm over all rows; answer: which is better, or "" if it is not significant;
        reversals: share of pairs of runs, one of each, in which the order is not the published
        one (ties count half); flipped: whether the answer contradicts the published condition's.
    """
    rows = []
    for (factor, level), here in levels.groupby(["factor", "level"], sort=False):
        runs = {name: part["dissimilar"].to_numpy() for name, part in here.groupby("variant")}
        for first, second in PAIRS:
            a, b = runs.get(first, np.empty(0)), runs.get(second, np.empty(0))
            if min(len(a), len(b)) >= _FEWEST:
                difference = a.mean() - b.mean()
                rows.append((factor, level, first, second, difference, _welch(a, b), _delta(a, b)))
    columns = ["factor", "level", "first", "second", "difference", "p", "delta"]
    result = pd.DataFrame(rows, columns=columns)
    result["p_holm"] = holm(result["p"])
    better = np.sign(result["difference"])
    sure = better * (result["p_holm"] < 0.05)
    result["answer"] = result["first"].where(sure > 0, result["second"]).where(sure != 0, "")
    pair = result[["first", "second"]].apply(tuple, axis=1)
    base = result["factor"] == PUBLISHED
    published, published_sure = (pair.map(dict(zip(pair[base], s[base]))) for s in (better, sure))
    result["flipped"] = published_sure.fillna(0) * sure < 0
    result["reversals"] = (1 - published * result["delta"]) / 2
    return result.drop(columns="delta")


def _delta(a: np.ndarray, b: np.ndarray) -> float:
    """Return Cliff's delta: how many more pairs of `a` and `b` have a greater `a`, -1 to 1."""
    return np.sign(a[:, None] - b[None, :]).mean()


def _welch(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 and np.ptp(b) == 0:  # no spread: certain
        return float(a[0] == b[0])
    return float(stats.ttest_ind(a, b, equal_var=False).pvalue)


def location_use(levels: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Tell at every level which variants lose more than `margin` by moving the blocks.

    Returns
    -------
    DataFrame
        factor, level, variant, n, loss (percentage points) and its interval low and high, whose
        level is 95 % after Bonferroni's correction over all rows; answer: "uses location",
        "does not", or "" where the interval holds the margin; flipped: whether the answer
        contradicts the published condition's.
    """
    groups = [
        (key, here["loss"].to_numpy())
        for key, here in levels.groupby(["factor", "level", "variant"], sort=False)
        if key[2] in MAIN and len(here) >= _FEWEST
    ]
    rows = []
    for key, values in groups:
        half = stats.t.ppf(1 - 0.025 / len(groups), len(values) - 1) * stats.sem(values)
        rows.append((*key, len(values), values.mean(), values.mean() - half, values.mean() + half))
    columns = ["factor", "level", "variant", "n", "loss", "low", "high"]
    result = pd.DataFrame(rows, columns=columns)
    result["answer"] = np.select(sides(result, margin), ["uses location", "does not"], "")
    base = result[result["factor"] == PUBLISHED].set_index("variant")["answer"]
    published = result["variant"].map(lambda name: base.get(name, ""))
    given = (result["answer"] != "") & (published != "")
    result["flipped"] = given & (result["answer"] != published)
    return result


def judge(levels: pd.DataFrame) -> Verdict:
    """Apply the test of claim C2. [ours]

    Parameters
    ----------
    levels : DataFrame
        As :func:`levels` gives it.

    Returns
    -------
    Verdict
        Its table has one row per factor: how many answers flipped and how many are significant
        at all, at which levels any flipped, and guilt.
    """
    entry = claim("C2")
    order, use = orders(levels), location_use(levels, entry.numbers["margin"])
    rows = []
    for factor, here in levels[levels["factor"] != PUBLISHED].groupby("factor", sort=False):
        row = {"factor": factor, "levels": here["level"].nunique()}
        flips = []
        for what, answers in (("orders", order), ("uses", use)):
            part = answers[answers["factor"] == factor]
            row[f"{what} flipped"] = f"{part['flipped'].sum()} of {len(part)}"
            row[f"{what} decided"] = f"{(part['answer'] != '').sum()} of {len(part)}"
            flips += part.loc[part["flipped"], "level"].tolist()
        rows.append(row | {"at": ", ".join(dict.fromkeys(flips)), "guilty": bool(flips)})
    table = pd.DataFrame(rows)
    counts = levels.loc[levels["factor"] == PUBLISHED, "variant"].value_counts()
    if table.empty or counts.reindex(MAIN, fill_value=0).min() < _FEWEST:
        because = f"the published condition needs {_FEWEST} seeds of {', '.join(MAIN)}"
        return entry.not_evaluated(because, table)
    guilty = table.loc[table["guilty"], "factor"].tolist()
    because = f"{len(guilty)} of {len(table)} factors are guilty: {', '.join(guilty) or 'none'}"
    return entry.decide(table, len(guilty) >= 2, not guilty, because)


FACTORS = ("variant", "canvas", "shuffled", "split", "shift")
"""Factors of the factorial design."""


def factorial(table: pd.DataFrame, shifts: tuple[int, int] = (PUBLISHED_SHIFT, 12)) -> pd.DataFrame:
    """Return the outcomes of the factorial part: every combination of five factors.

    Variant (the published four), canvas (0 or 0.5), shuffled or not, split, and shift, after
    at most 50 epochs; with the seeds that all combinations have.

    Examples
    --------
    >>> from studies.bhv.design import accuracies
    >>> factorial(accuracies()).groupby(list(FACTORS)).size().nunique()
    1
    """
    rows = outcomes(table)
    rows = rows[
        rows["variant"].isin(MAIN)
        & (rows["epochs"] == EPOCHS)
        & rows["shift"].isin(shifts)
        & rows["condition"].isin(["published", "canvas-0.5", "shuffled", "canvas-0.5-shuffled"])
    ]
    cells = [set(here["seed"]) for _, here in rows.groupby(list(FACTORS))]
    common = set.intersection(*cells) if len(cells) == 2**4 * len(MAIN) else set()
    return rows[rows["seed"].isin(common)].reset_index(drop=True)


def variance_shares(rows: pd.DataFrame, order: int = 3) -> pd.DataFrame:
    """Split the variance of the dissimilar accuracy between factors and their interactions.

    An analysis of variance (type II) with all interactions of up to `order` factors. Networks
    are tested several times, so its p-values would be too small and are not given; intervals
    come from leaving out one seed at a time, on the scale of the logit. The residual holds the
    seeds and the interactions of more factors.

    Parameters
    ----------
    rows : DataFrame
        As :func:`factorial` gives it.
    order : int
        Largest number of factors in an interaction.

    Returns
    -------
    DataFrame
        term, share of the sum of squares (0 to 1), low and high (95 %), largest first.
    """
    seeds = sorted(rows["seed"].unique())
    whole = _shares(rows, order)
    parts = [_shares(rows[rows["seed"] != seed], order) for seed in seeds] if len(seeds) > 1 else []
    table = []
    for term, share in whole.items():
        interval = leave_one_out(_logit(share), [_logit(part[term]) for part in parts], fewest=2)
        table.append((term, share, expit(interval.low), expit(interval.high)))
    result = pd.DataFrame(table, columns=["term", "share", "low", "high"])
    return result.sort_values("share", ascending=False, ignore_index=True)


def _logit(share: float) -> float:
    """Put a share on a scale without bounds."""
    return logit(np.clip(share, 1e-12, 1 - 1e-12))


def _shares(rows: pd.DataFrame, order: int) -> pd.Series:
    formula = "dissimilar ~ (" + " + ".join(f"C({name})" for name in FACTORS) + f") ** {order}"
    squares = anova_lm(ols(formula, rows).fit("qr"), typ=2)["sum_sq"]
    squares.index = [
        term.replace("C(", "").replace(")", "").replace(":", " × ") for term in squares.index
    ]
    return squares / squares.sum()


def rankings(table: pd.DataFrame) -> pd.DataFrame:
    """Rank the published variants by their dissimilar accuracy under every combination.

    Returns
    -------
    DataFrame
        condition, split, epochs, shift; the mean of each variant (percent); reversed, the
        number of the six pairs whose order is not the published condition's (a tie counts half);
        tau, Kendall's tau-b with that order, NaN if all are equal.

    Raises
    ------
    ParameterError
        The published condition is not among them.
    """
    rows = outcomes(table)
    rows = rows[rows["variant"].isin(MAIN)]
    key = ["condition", "split", "epochs", "shift"]
    means = rows.pivot_table(index=key, columns="variant", values="dissimilar")
    means = means.reindex(columns=list(MAIN)).dropna()
    published = ("published", "leaked", EPOCHS, PUBLISHED_SHIFT)
    if published not in means.index:
        raise ParameterError("no ranking without the published condition and its four variants")
    base = means.loc[published]
    usual = _signs(base)
    result = means.assign(
        reversed=[((1 - _signs(row) * usual) / 2).sum() for _, row in means.iterrows()],
        tau=[stats.kendalltau(base, row).statistic for _, row in means.iterrows()],
    ).reset_index()
    result["condition"] = pd.Categorical(result["condition"], table["condition"].unique())
    ascending = [True, True, True, False]
    result = result.sort_values(key, ascending=ascending, ignore_index=True)
    return result.astype({"condition": table["condition"].dtype})


def _signs(means: pd.Series) -> np.ndarray:
    """Return the order of each pair of variants: 1, 0 or -1."""
    return np.array([np.sign(means[first] - means[second]) for first, second in PAIRS])
