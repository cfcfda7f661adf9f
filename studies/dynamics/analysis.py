"""When PPP forms in training, how it grows, whether it is learnt: statistics of the zoo. [ours]

Every function takes the table that :func:`studies.dynamics.design.trajectories` reads. The tests
of the claims C8 to C11 are described in ``data/claims.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ppp.errors import ParameterError, unknown
from studies.claims import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, Claim, Verdict, claim
from studies.dynamics.design import layers_of
from studies.networks import OPTIMAL
from studies.pictures.plane import SHAPES
from studies.stats import leave_one_out, over_seeds, per_seed, sides

CHANCE = 1 / len(SHAPES)
"""Accuracy of a network that knows nothing."""
METRICS = ("mae", "snr")
"""Metrics of the claims' tests: both must pass."""


def own(table: pd.DataFrame, batch_norm: str = "re-estimated") -> pd.DataFrame:
    """Return the rows of networks under the padding they trained with.

    Parameters
    ----------
    table : DataFrame
        Trajectories.
    batch_norm : {"re-estimated", "running"}

    Examples
    --------
    >>> from studies.dynamics import design
    >>> bool((own(design.trajectories())["padding"] == "optimal").any())
    False
    """
    same = (table["test_padding"] == table["padding"]) & (table["batch_norm"] == batch_norm)
    return table[same & table["layer"].notna()]


def with_amplitude(table: pd.DataFrame) -> pd.DataFrame:
    """Append the metric "rms": root mean square of PPP in units of sigma, without noise's share.

    It is the square root of the unbiased power, of its size with its sign where noise makes the
    power negative. Unlike MAE-PPP and SNR-PPP it has no noise floor: without any pattern it
    lies around 0.

    Examples
    --------
    >>> table = pd.DataFrame({"metric": ["power"], "value": [0.04], "low": [-0.01], "high": [0.09]})
    >>> with_amplitude(table)["value"].tolist()
    [0.04, 0.2]
    """
    rows = table[table["metric"] == "power"].assign(metric="rms")
    for end in ("value", "low", "high"):
        rows[end] = np.sign(rows[end]) * np.sqrt(rows[end].abs())
    return pd.concat([table, rows], ignore_index=True)


def half_time(steps: Sequence[float], values: Sequence[float]) -> float:
    """Return the step from which on `values` stay at or above half of their last one.

    Interpolated between the given steps on the scale log2(1 + step).

    Parameters
    ----------
    steps, values : sequences of the same length
        In order of the steps, which are at least 0.

    Returns
    -------
    float
        0 if no value lies below; NaN if the last one is not positive.

    Examples
    --------
    >>> half_time([0, 1, 3, 7], [0.0, 0.2, 0.6, 1.0])
    2.363585661014858
    >>> half_time([0, 1, 3], [0.7, 0.6, 1.0])
    0.0
    """
    scale, values = np.log2(1 + np.asarray(steps, float)), np.asarray(values, float)
    half = values[-1] / 2
    if not half > 0:
        return float("nan")
    below = np.flatnonzero(values < half)
    if not len(below):
        return 0.0
    i = below[-1]
    part = (half - values[i]) / (values[i + 1] - values[i])
    return float(2 ** (scale[i] + part * (scale[i + 1] - scale[i])) - 1)


def half_times(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per run, layer and metric, when half of the strength and accuracy is reached.

    Returns
    -------
    DataFrame
        padding, seed, layer, metric, strength and accuracy (steps; accuracy above chance).

    Examples
    --------
    >>> from studies.dynamics import design
    >>> list(half_times(design.trajectories()).columns)
    ['padding', 'seed', 'layer', 'metric', 'strength', 'accuracy']
    """
    rows = []
    for key, run in _runs(own(table)):
        strength = half_time(run["step"], run["value"])
        accuracy = half_time(run["step"], run["accuracy"] - CHANCE)
        rows.append((*key, strength, accuracy))
    return pd.DataFrame(rows, columns=[*_KEY, "strength", "accuracy"])


def slopes(table: pd.DataFrame, first_step: int) -> pd.DataFrame:
    """Return, per run, layer and metric, how the strength grows late in training.

    Parameters
    ----------
    table : DataFrame
    first_step : int
        Above 0; measurements from this step on count, of which there must be three.

    Returns
    -------
    DataFrame
        padding, seed, layer, metric and slope: of log2(value) on log2(step) by least squares.
        1 means in proportion to the steps, 0 no growth.
    """
    rows = []
    for key, run in _runs(own(table)):
        late = run[(run["step"] >= first_step) & (run["step"] > 0)]
        if len(late) < 3:
            raise ParameterError(
                f"first_step = {first_step}: {len(late)} measurements from there on; a slope "
                "needs 3"
            )
        rows.append((*key, np.polyfit(np.log2(late["step"]), np.log2(late["value"]), 1)[0]))
    return pd.DataFrame(rows, columns=[*_KEY, "slope"])


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """Return, per run, layer and metric, initial and final strength and log2 of their ratio.

    Returns
    -------
    DataFrame
        padding, seed, layer, metric, batch_norm (of both states), initial, final, change.
    """
    frames = []
    for batch_norm in ("running", "re-estimated"):
        if not len(rows := own(table, batch_norm)):
            continue
        ends = rows[rows["step"].isin([0, rows["step"].max()])]
        wide = ends.pivot_table(index=_KEY, columns="step", values="value", sort=False)
        wide = wide[sorted(wide.columns)].set_axis(["initial", "final"], axis=1)
        frames.append(wide.reset_index().assign(batch_norm=batch_norm))
    pairs = pd.concat(frames, ignore_index=True)
    return pairs.assign(change=_log_ratio(pairs["final"], pairs["initial"]))


def learnt(table: pd.DataFrame, without: str = OPTIMAL) -> pd.DataFrame:
    """Compare networks that trained with a scheme to the control, both under that scheme.

    The control has the same initial weights and saw the same windows.

    Parameters
    ----------
    table : DataFrame
    without : {"optimal", "mixed"}
        Padding of the control: it trained with true surroundings, or with another scheme in each
        batch.

    Returns
    -------
    DataFrame
        padding, seed, layer, metric, trained, control, and ratio: log2(trained / control).
    """
    final = table[table["step"] == table["step"].max()]
    trained = own(final).rename(columns={"value": "trained"})
    control = final[(final["padding"] == without) & (final["batch_norm"] == "re-estimated")]
    control = control.dropna(subset="layer").drop(columns="padding")
    control = control.rename(columns={"test_padding": "padding", "value": "control"})
    pairs = trained[[*_KEY, "trained"]].merge(control[[*_KEY, "control"]], on=_KEY)
    return pairs.assign(ratio=_log_ratio(pairs["trained"], pairs["control"]))


def _log_ratio(above: pd.Series, below: pd.Series) -> pd.Series:
    """Return log2(above / below), NaN where one of them is not positive."""
    return np.log2((above / below).where((above > 0) & (below > 0)))


def dependence(table: pd.DataFrame, metric: str) -> dict[str, float]:
    """Compare the spread between schemes with the change by learning.

    Parameters
    ----------
    table : DataFrame
    metric : str

    Returns
    -------
    dict of str to float
        ``spread``: standard deviation over schemes (k - 1 in the denominator) of the mean
        log2(final strength); ``spread_initial``: the same of the initial networks; ``change``:
        root mean square over schemes of the mean log2(final / initial), and ``common``, the
        mean of them: the change that schemes have in common; ``ratio`` = spread / change with
        its 95 % interval ``low``, ``high`` from a delete-one-seed jackknife of log2(ratio), NaN
        with fewer than three seeds.
    """
    pairs = changes(table)
    pairs = pairs[(pairs["metric"] == metric) & (pairs["batch_norm"] == "re-estimated")]
    logs = np.log2(pairs.set_index(["padding", "seed", "layer"])[["initial", "final"]])
    cells = logs.groupby(["padding", "seed"]).mean()
    initial, final = (cells[name].unstack("seed") for name in ("initial", "final"))
    if final.isna().any(axis=None) or len(final) < 2:
        raise ParameterError("every scheme needs the same seeds, and there must be two schemes")
    seeds = final.columns
    whole = _spread_and_change(initial, final)
    parts = []
    if len(seeds) > 2:
        rest = [seeds.drop(seed) for seed in seeds]
        parts = [_spread_and_change(initial[others], final[others]) for others in rest]
    ratio = whole["spread"] / whole["change"]
    left_out = np.log2([part["spread"] / part["change"] for part in parts])
    log = leave_one_out(np.log2(ratio), left_out)
    return whole | {"ratio": ratio, "low": float(2**log.low), "high": float(2**log.high)}


def _spread_and_change(initial: pd.DataFrame, final: pd.DataFrame) -> dict[str, float]:
    """Compare log2(strength), schemes x seeds, before and after training."""
    before, after = initial.mean(axis=1), final.mean(axis=1)
    return {
        "spread": float(after.std()),
        "spread_initial": float(before.std()),
        "change": float(np.sqrt(np.square(after - before).mean())),
        "common": float((after - before).mean()),
    }


def afterwards(table: pd.DataFrame, deepest: str, first_step: int) -> pd.DataFrame:
    """Return the statistics of C9 to C11 for RMS-PPP, which has no noise floor.

    Written after the results were seen; part of no verdict. Runs whose RMS-PPP is not
    positive drop out, as ``n`` shows.

    Returns
    -------
    DataFrame
        As :func:`~studies.stats.over_seeds`, by padding and statistic: the slope in the
        deepest layer, and over the layers the mean log2 of trained / initial, control / initial,
        trained / control.
    """
    rms = table[table["metric"] == "rms"]
    late = own(rms[(rms["value"] > 0) & (rms["layer"] == deepest)])
    after = changes(rms).query("batch_norm == 're-estimated'")
    pairs = learnt(rms).merge(after[["padding", "seed", "layer", "initial"]])
    pairs["grown"] = _log_ratio(pairs["control"], pairs["initial"])
    parts = {
        f"slope in {deepest}": slopes(late, first_step).rename(columns={"slope": "value"}),
        "log2(trained / initial)": after.rename(columns={"change": "value"}),
        "log2(control / initial)": pairs.rename(columns={"grown": "value"}),
        "log2(trained / control)": pairs.rename(columns={"ratio": "value"}),
    }
    by = ["statistic", "padding"]
    frames = [frame.assign(statistic=name)[[*by, "seed", "value"]] for name, frame in parts.items()]
    frame = per_seed(pd.concat(frames), "value", by).dropna(subset="value")
    return over_seeds(frame, "value", by)


def ends(changes: pd.DataFrame, metric: str, layer: str) -> pd.DataFrame:
    """Return initial and final strength as rows: padding, seed, state and value.

    Parameters
    ----------
    changes : DataFrame
        Of :func:`changes`; rows with re-estimated statistics are taken.
    metric, layer : str
    """
    rows = changes.query("metric == @metric and layer == @layer and batch_norm == 're-estimated'")
    return rows.melt(["padding", "seed"], ["initial", "final"], "state", "value")


def swapped(table: pd.DataFrame, metric: str, layer: str) -> pd.DataFrame:
    """Return final accuracy and strength of every network under every test-time padding.

    Returns
    -------
    DataFrame
        trained with, tested with, seed, accuracy, and strength: NaN under optimal padding,
        where PPP is 0 by definition.
    """
    final = table[(table["step"] == table["step"].max()) & (table["batch_norm"] == "running")]
    rows = final[final["layer"].isna() | ((final["metric"] == metric) & (final["layer"] == layer))]
    names = {"padding": "trained with", "test_padding": "tested with", "value": "strength"}
    rows = rows.rename(columns=names)
    schemes = rows.loc[rows["tested with"] != OPTIMAL, "tested with"].unique()
    order = pd.CategoricalDtype([*schemes, OPTIMAL], ordered=True)
    rows = rows.astype({"trained with": order, "tested with": order})
    columns = ["trained with", "tested with", "seed", "accuracy", "strength"]
    return rows.sort_values(columns[:3])[columns].reset_index(drop=True)


def times_side_by_side(verdict: Verdict) -> pd.DataFrame:
    """Return C8's table with one row per padding and quantity, as a forest plot needs it.

    Accuracy comes once, strength once per metric, in the column "half of".
    """
    parts = []
    for metric, rows in verdict.table.groupby("metric", sort=False):
        for what in ("strength", "accuracy") if not parts else ("strength",):
            part = rows[["padding"]].assign(**{"half of": metric if what == "strength" else what})
            for end in ("mean", "low", "high"):
                part[end] = rows[f"{what}_{end}"]
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


# -------------------------------------------------------------------------------- claims


def judge(name: str, table: pd.DataFrame) -> Verdict:
    """Apply the test of one claim to the runs of one family. [ours]

    Parameters
    ----------
    name : {"C8", "C9", "C10", "C11"}
    table : DataFrame
        Trajectories of one family.

    Returns
    -------
    Verdict

    Raises
    ------
    ParameterError
        A claim without a test here, or runs of several families.

    Examples
    --------
    >>> from studies.dynamics import design
    >>> table = design.trajectories()
    >>> judge("C8", table[table["family"] == "resnet"]).claim.id
    'C8'
    """
    if name not in _TESTS:
        raise ParameterError(unknown("claim", name, _TESTS))
    if table["family"].nunique() != 1:
        raise ParameterError(f"{table['family'].nunique()} families; expected the runs of one")
    table = table[table["metric"].isin(METRICS) | table["metric"].isna()]
    verdict = _TESTS[name](claim(name), table, layers_of(table)[-1])
    if 0 < verdict.table["n"].min() < 3:
        return verdict.claim.not_evaluated("fewer than three seeds", verdict.table)
    return verdict


def _c8(entry: Claim, table: pd.DataFrame, deepest: str) -> Verdict:
    share, by = entry.numbers["threshold"], ["padding", "metric"]
    limit = share * table["step"].max()
    times = half_times(table[table["layer"] == deepest])
    parts = []
    for what in ("strength", "accuracy"):
        part = over_seeds(times.assign(log=np.log2(1 + times[what])), "log", by).set_index(by)
        steps = (2 ** part[["mean", "low", "high"]] - 1).clip(lower=0)
        parts.append(steps.add_prefix(f"{what}_"))
    rows = pd.concat([part["n"], *parts], axis=1).reset_index()
    ends = rows[["strength_low", "strength_high"]].set_axis(["low", "high"], axis=1)
    late, early = sides(ends, limit)
    where = f"step {limit:g}, {share:.0%} of training"
    verdict = _decided(entry, rows, early, late, f"an interval below {where}", "one above it")
    before = int((rows["strength_high"] == 0).sum())
    because = (
        f"{verdict.because}; in {before} of them half of the final value is there before the first "
        "step, in every run"
    )
    return replace(verdict, because=because)


def _c9(entry: Claim, table: pd.DataFrame, deepest: str) -> Verdict:
    runs = slopes(table[table["layer"] == deepest], int(entry.numbers["first_step"]))
    return _signs(entry, runs, "slope", ["padding", "metric"])


def _c10(entry: Claim, table: pd.DataFrame, deepest: str) -> Verdict:
    return _signs(entry, changes(table), "change", ["padding", "metric", "batch_norm"])


def _c11(entry: Claim, table: pd.DataFrame, deepest: str) -> Verdict:
    signs = _signs(entry, learnt(table), "ratio", ["padding", "metric"])
    if signs.table.empty:
        return entry.not_evaluated("no control run", pd.DataFrame({"n": [0]}))
    if own(table)["padding"].nunique() < 2:
        return entry.not_evaluated("one scheme has no spread", signs.table)
    ratios = pd.DataFrame([{"metric": metric, **dependence(table, metric)} for metric in METRICS])
    verdict = signs.verdict
    if (ratios["low"] > 1).any():
        verdict = NOT_REPRODUCED
    elif verdict == REPRODUCED and not (ratios["high"] < 1).all():
        verdict = INCONCLUSIVE
    texts = [f"{r.ratio:.2f} [{r.low:.2f}, {r.high:.2f}] ({r.metric})" for r in ratios.itertuples()]
    because = f"(a) the ratio is {', '.join(texts)}; (b) {signs.because}"
    return replace(signs, verdict=verdict, because=because)


def _signs(entry: Claim, runs: pd.DataFrame, value: str, by: list[str]) -> Verdict:
    """Ask of each mean over layers and seeds whether it lies significantly above 0."""
    rows = over_seeds(per_seed(runs, value, by), value, by)
    significant = rows["p_holm"] < 0.05
    up, down = significant & (rows["mean"] > 0), significant & (rows["mean"] < 0)
    return _decided(entry, rows, up, down, "a mean significantly above 0", "one below it")


def _decided(entry: Claim, rows: pd.DataFrame, yes, no, yes_words: str, no_words: str) -> Verdict:
    """Reproduced if all rows speak for the claim, not reproduced if one speaks against it."""
    by = "padding, metric and batch norm" if "batch_norm" in rows else "padding and metric"
    because = (
        f"{yes.sum()} of {len(rows)} combinations of {by} have {yes_words}, {no.sum()} {no_words}"
    )
    return entry.decide(rows, yes.all(), no.any(), because)


_TESTS: dict[str, Callable[[Claim, pd.DataFrame, str], Verdict]] = {
    "C8": _c8, "C9": _c9, "C10": _c10, "C11": _c11,
}  # fmt: skip
_KEY = ["padding", "seed", "layer", "metric"]


def _runs(rows: pd.DataFrame):
    return ((key, run.sort_values("step")) for key, run in rows.groupby(_KEY, sort=False))
