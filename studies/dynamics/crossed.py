"""The crossed design: networks trained with each scheme, tested with each. [ours]

What decides how strong PPP is: the scheme a network trained with, or the one it is tested with? The
amended test of claim C11, parts (b) and (c).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ppp.errors import ParameterError
from ppp.statistics import Estimate
from studies.dynamics.analysis import learnt
from studies.networks import MIXED, OPTIMAL, reach_of
from studies.stats import leave_one_out, per_seed

TRAINING, TESTING, MATCH = "scheme of training", "scheme of testing", "own scheme or not"
OTHER, SEED, REST = "other combinations", "seed", "rest"


def strengths(table: pd.DataFrame) -> pd.DataFrame:
    """Return the final strength of every network of one family under every scheme.

    Parameters
    ----------
    table : DataFrame
        Trajectories, see :func:`studies.dynamics.design.trajectories`.

    Returns
    -------
    DataFrame
        trained with, tested with, seed, and value: log2 of MAE-PPP per influenced cell, mean over
        the layers. MAE-PPP per influenced cell is that of all cells over the share of cells that
        padding can touch. Statistics of batch norm are re-estimated.
    """
    (family,) = table["family"].unique()
    touched = {name: 1 - layer.clean_fraction for name, layer in reach_of(family).items()}
    rows = table[(table["step"] == table["step"].max()) & (table["metric"] == "mae")]
    rows = rows[rows["batch_norm"] == "re-estimated"]
    rows = rows.assign(value=np.log2(rows["value"] / rows["layer"].map(touched)))
    rows = rows.rename(columns={"padding": "trained with", "test_padding": "tested with"})
    return per_seed(rows, "value", ["trained with", "tested with"])


def components(table: pd.DataFrame) -> pd.DataFrame:
    """Split the variance of a crossed design among its terms.

    The model of the a x a schemes and n seeds, of which no cell may be missing::

        value(i, j, s) = mean + training(i) + testing(j) + match [i = j] + other(i, j)
                         + seed(s) + rest(i, j, s)

    All terms are orthogonal in this layout, so that each has its own sum of squares SS:
    a n times the squared deviations of the means over i, and over j, from the whole mean, added
    up; (a - 1) n times the square of the mean of cells with i = j less that of the others; n times
    the squares of what these three leave of the means over seeds; a^2 times the squared deviations
    of the seeds' means; and what is left. A component is the mean square of a term over the a^2 n
    values, without the rest's share in it (method of moments): (SS - df MS) / (a^2 n), MS the mean
    square of the rest. It can be negative. That of the rest is MS.

    Parameters
    ----------
    table : DataFrame
        Of :func:`strengths`, of schemes that are both trained and tested with.

    Returns
    -------
    DataFrame
        term, df (degrees of freedom) and component, in squared units of the values.

    Raises
    ------
    ParameterError
        A cell of the design is missing.
    """
    wide = table.pivot_table(index="seed", columns=["trained with", "tested with"], values="value")
    schemes = [name for name in table["trained with"].unique() if name in set(table["tested with"])]
    wide = wide.reindex(columns=pd.MultiIndex.from_product([schemes, schemes]))
    n, a = len(wide), len(schemes)
    if (missing := int(wide.isna().sum(axis=None))) or min(n, a) < 2:
        raise ParameterError(
            f"crossed design: {a} schemes, {n} seeds, {missing} values missing; expected two or "
            "more of both, and none missing: each network tested with each scheme"
        )
    values = wide.to_numpy().reshape(n, a, a)
    cells = values.mean(0) - values.mean()
    training, testing, same = cells.mean(1), cells.mean(0), np.eye(a, dtype=bool)
    match = (same - 1 / a) * (cells[same].mean() - cells[~same].mean())
    other = cells - training[:, None] - testing - match
    seed = values.mean((1, 2)) - values.mean()
    rest = values - values.mean(0) - seed[:, None, None]
    squares = {
        TRAINING: (a - 1, n * a * np.square(training).sum()),
        TESTING: (a - 1, n * a * np.square(testing).sum()),
        MATCH: (1, n * np.square(match).sum()),
        OTHER: ((a - 1) ** 2 - 1, n * np.square(other).sum()),
        SEED: (n - 1, a * a * np.square(seed).sum()),
        REST: ((a * a - 1) * (n - 1), np.square(rest).sum()),
    }
    noise = squares[REST][1] / squares[REST][0]
    rows = [
        (term, df, noise if term == REST else (square - df * noise) / values.size)
        for term, (df, square) in squares.items()
    ]
    return pd.DataFrame(rows, columns=["term", "df", "component"])


def training_share(table: pd.DataFrame) -> Estimate:
    """Return how much of what the schemes do to the strength is the scheme of training's.

    The components of the scheme of training and of its match with the scheme of testing, over the
    same and that of the scheme of testing; negative ones count as 0. Interval: delete-one-seed
    jackknife, 95 %.

    Parameters
    ----------
    table : DataFrame
        Trajectories of one family; networks trained without one scheme (the controls) are left out.

    Returns
    -------
    Estimate
        NaN bounds with fewer than three seeds.
    """
    cells = strengths(table[~table["padding"].isin([MIXED, OPTIMAL])])
    parts = [_share(cells[cells["seed"] != seed]) for seed in cells["seed"].unique()]
    return leave_one_out(_share(cells), parts)


def _share(cells: pd.DataFrame) -> float:
    part = components(cells).set_index("term")["component"].clip(lower=0)
    trained = part[TRAINING] + part[MATCH]
    return float(trained / (trained + part[TESTING]))


def over_control(table: pd.DataFrame, metric: str) -> Estimate:
    """Return log2 of networks under their own scheme over the control with mixed padding under it.

    Mean over layers and schemes, then over seeds; interval: delete-one-seed jackknife, 95 %.

    Parameters
    ----------
    table : DataFrame
        Trajectories of one family.
    metric : {"mae", "snr"}

    Returns
    -------
    Estimate
        NaN bounds with fewer than three seeds.
    """
    rows = learnt(table, MIXED).query("metric == @metric")
    seeds = rows.groupby("seed")["ratio"].mean()
    return leave_one_out(seeds.mean(), [seeds.drop(seed).mean() for seed in seeds.index])
