"""The tests of claims C3, C4, C5 and C10 on real networks, and what the chapter draws. [ours]

Each is described in ``data/claims.yaml`` (``real``). Photographs are what is drawn; one network
of each kind is a fixed thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ppp.errors import WeightsError
from ppp.metrics import jackknife
from ppp.statistics import require_groups
from studies.claims import AGAINST, NOT_EVALUABLE, SUPPORTED, UNDERPOWERED, gated, rows_beside
from studies.pretrained import design
from studies.pretrained.design import HALVES, MAPS, OWN, SEEDS
from studies.pretrained.pictures import SIDES
from studies.stats import holm, two_way

LEVEL = 1 - 0.05 / len(SIDES)
"""Level of the intervals of a family of four networks (Bonferroni)."""
NORMALISATIONS = {"mae": "in units of sigma", "raw": "raw", "snr": "SNR"}


def over_layers(table: pd.DataFrame, value: str) -> tuple[float, np.ndarray]:
    """Average a quantity over layers: with all photographs, then without each in turn.

    Parameters
    ----------
    table : DataFrame
        Columns layer, picture (empty: none is left out), and `value`. A photograph that does not
        serve a layer leaves it as it is.
    value : str

    Examples
    --------
    >>> table = pd.DataFrame({"layer": 1, "picture": ["", "a", "b"], "r": [0.5, 0.4, 0.6]})
    >>> over_layers(table, "r")
    (0.5, array([0.4, 0.6]))
    """
    wide = table.assign(picture=table["picture"].fillna(""))
    wide = wide.pivot(index="picture", columns="layer", values=value)
    whole = wide.loc[""]
    return float(whole.mean()), wide.drop(index="").fillna(whole).mean(axis=1).to_numpy()


def _rows(tables: Mapping[str, pd.DataFrame], value: str) -> pd.DataFrame:
    """Return a row per network: mean over layers, with an interval over photographs."""
    rows = []
    for network, table in tables.items():
        whole, rest = over_layers(table, value)
        rows.append((network, *vars(jackknife(whole, rest, LEVEL, corrected=False)).values()))
    return pd.DataFrame(rows, columns=["row", "value", "low", "high"])


def _read(name: str, data: str | Path) -> pd.DataFrame:
    return design.read(name, Path(data) / design.DATA.name)


def _trained(name: str, data: str | Path) -> pd.DataFrame:
    table = _read(name, data)
    return table[table["state"] == "trained"]


def _by_network(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return dict(iter(table.groupby("network", sort=False)))


def gate(data: str | Path = design.DATA.parent) -> pd.DataFrame:
    """Return p of the sign-flip test of each trained network and layer, and after Holm.

    Columns: network, layer, pictures, p, p_holm.
    """
    table = _trained("metrics", data)
    table = table.loc[table["scheme"] == OWN, ["network", "layer", "pictures", "p"]]
    require_groups(len(table), int(table["pictures"].min()))
    return table.assign(p_holm=holm(table["p"])).reset_index(drop=True)


def c3(data: Path, numbers: Mapping[str, float]) -> Iterator[pd.DataFrame]:
    """Yield the rows of "every padding encodes a consistent pattern", for zeros."""
    found = gate(data)
    passed = (found["p_holm"] < 0.05).groupby(found["network"], sort=False).sum()
    tables = _by_network(_trained("without", data))
    for part, value, delta in (
        ("correlation of halves", "r", numbers["delta"]),
        ("share P / (P + V)", "share", numbers["delta_share"]),
    ):
        yield gated(rows_beside(part, _rows(tables, value), delta, most=1), passed)


def c4(data: Path, numbers: Mapping[str, float]) -> Iterator[pd.DataFrame]:
    """Yield the rows of "obscure except for zeros, and revealed with enough samples"."""
    areas = _trained("visibility", data)

    def rows(version: str, n: int) -> pd.DataFrame:
        chosen = areas[(areas["version"] == version) & (areas["n"] == n)]
        return _rows(_by_network(chosen), "area")

    one = rows_beside(
        "(a) one map, channel mean", rows("channel mean", 1), numbers["delta"], most=1
    )
    # A filter that knows the pattern bounds every eye from above: it can refute nothing.
    yield one.assign(grade=one["grade"].replace(SUPPORTED, NOT_EVALUABLE))
    revealed = numbers["delta_revealed"]
    for version in ("all channels", "channel mean"):
        part = f"(b) mean of {MAPS[-1]} maps, {version}"
        yield rows_beside(part, rows(version, MAPS[-1]), revealed, most=1)
    halves = _rows(_by_network(_trained("without", data)), "r")
    yield rows_beside("(b) correlation of halves", halves, revealed, most=1)


def c5(data: Path, numbers: Mapping[str, float]) -> Iterator[pd.DataFrame]:
    """Yield the rows of "the distributions become distinguishable"."""
    table = _trained("distinguished", data)
    table = table.assign(excess=table["separated"] - table["control"])
    last = table[table["n"] == HALVES[-1]]
    value = rows_beside(
        f"excess share after {HALVES[-1]} photographs",
        _rows(_by_network(last), "excess"),
        numbers["delta"],
    )
    # Few photographs that show nothing say nothing of many.
    yield value.assign(grade=value["grade"].replace(AGAINST, UNDERPOWERED))
    doublings = np.log2(HALVES) - np.log2(HALVES).mean()
    weights = pd.Series(doublings / np.square(doublings).sum(), HALVES)
    key = ["network", "layer", "picture"]
    table = table.assign(picture=table["picture"].fillna(""))
    slopes = (table["excess"] * table["n"].map(weights)).groupby([table[name] for name in key])
    slope = slopes.sum().rename("slope").reset_index()
    yield rows_beside(
        "its slope per doubling", _rows(_by_network(slope), "slope"), numbers["delta_slope"]
    )


def changes(
    network: str, metric: str, data: str | Path = design.DATA.parent
) -> tuple[np.ndarray, np.ndarray]:
    """Return log2(trained / initial) of a metric, mean over layers, for each initialisation.

    Parameters
    ----------
    network : str
    metric : {"mae", "raw", "snr"}
    data : path

    Returns
    -------
    ndarray, shape (seeds,), and ndarray, shape (seeds, photographs): the same without each.

    Raises
    ------
    WeightsError
        The tables lack one of the networks.
    """
    table = _read("without", data).query("network == @network")
    table = table.assign(value=np.log2(table[metric]))
    states = {key: over_layers(rows, "value") for key, rows in table.groupby(["state", "seed"])}
    if missing := {("trained", 0), *(("initial", seed) for seed in SEEDS)} - {*states}:
        state, seed = min(missing)
        raise WeightsError(
            f"no {state} {network} of seed {seed} in the tables; `ppp study pretrained` makes them"
        )
    whole, rest = states.pop(("trained", 0))
    return (
        np.array([whole - initial for initial, _ in states.values()]),
        np.array([rest - without for _, without in states.values()]),
    )


def c10(data: Path, numbers: Mapping[str, float]) -> Iterator[pd.DataFrame]:
    """Yield the rows of "stronger than in the initial state"."""
    for metric, units in NORMALISATIONS.items():
        rows = [
            (name, *vars(two_way(*changes(name, metric, data), LEVEL)).values()) for name in SIDES
        ]
        table = pd.DataFrame(rows, columns=["row", "value", "low", "high"])
        yield rows_beside(f"log2(trained / initial), {units}", table, numbers["delta"])


def concentration(table: pd.DataFrame) -> pd.DataFrame:
    """Say in how few channels the pattern lives. [ours]

    A channel's share is its unbiased power, where above 0, over that of all channels of its layer.

    Parameters
    ----------
    table : DataFrame
        Of :func:`studies.pretrained.design.channels`, with network, state and layer.

    Returns
    -------
    DataFrame
        network, state, layer, channels, half (the fewest channels that hold half of the power),
        part (of all channels), expected (the same part for the variance of the features).
    """
    rows = []
    for key, part in table.groupby(["network", "state", "layer"], sort=False):
        halves = [_fewest(part["power"].clip(lower=0)), _fewest(part["sigma"] ** 2)]
        rows.append((*key, len(part), halves[0], *(half / len(part) for half in halves)))
    names = ["network", "state", "layer", "channels", "half", "part", "expected"]
    return pd.DataFrame(rows, columns=names)


def _fewest(values: pd.Series) -> int:
    """Return how many of the largest values make up half of the sum."""
    shares = values.sort_values(ascending=False).cumsum() / values.sum()
    return int((shares < 0.5).sum()) + 1
