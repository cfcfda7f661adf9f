"""Is the pattern the same each time? Halves of the data, growth with n, claims C3, C4, C5 and C7.

The tests are described in ``data/claims.yaml``; the tables are those of
:mod:`studies.patterns.design`. [ours]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ppp.errors import ParameterError, unknown
from studies.claims import (
    INCONCLUSIVE,
    NOT_EVALUATED,
    NOT_REPRODUCED,
    REPRODUCED,
    Claim,
    Verdict,
    claim,
)
from studies.patterns.design import PHOTOGRAPHS, PLANE, own
from studies.stats import over_seeds

RANDN = "randn"
_LAYERS = 3  # layers that must agree
_FEWEST = 3  # seeds of an interval


@dataclass(frozen=True)
class Tables:
    """What the tests are computed from: networks of one family in one state.

    Attributes
    ----------
    metrics, growth, halves : DataFrame
        As :func:`studies.patterns.design.read` gives them.
    """

    metrics: pd.DataFrame
    growth: pd.DataFrame
    halves: pd.DataFrame

    @classmethod
    def select(cls, read: Callable[[str], pd.DataFrame], family: str, state: str) -> Tables:
        """Take the networks of a family and state, each under its own padding.

        Parameters
        ----------
        read : callable
            Returns a table by its name.
        family : {"resnet", "vgg"}
        state : {"trained", "initial"}
            Initial networks stay under every scheme.
        """
        wanted = {"family": family, "state": state}
        tables = (own(read(name)) for name in ("metrics", "growth", "halves"))
        return cls(*(t[(t[[*wanted]] == pd.Series(wanted)).all(axis=1)] for t in tables))


# ------------------------------------------------------------------------------ statistics


def halves_by_layer(halves: pd.DataFrame, data: str = PHOTOGRAPHS) -> pd.DataFrame:
    """Return the correlation of two halves, mean over seeds.

    Parameters
    ----------
    halves : DataFrame
        See :class:`Tables`.
    data : {"photographs", "plane", "photographs and plane"}
        Of scenes, the largest number counts.

    Returns
    -------
    DataFrame
        scheme, layer, n (seeds), mean, low, high (95 %).
    """
    rows = halves[halves["data"] == data]
    rows = rows[rows["n"] == rows.groupby(["scheme", "layer", "seed"])["n"].transform("max")]
    return _means(rows, "r", ["scheme", "layer"])


def obscurity(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the share P / (P + V) on photographs, mean over layers, then over seeds.

    Returns
    -------
    DataFrame
        scheme, n (seeds), mean, low, high (95 %).
    """
    rows = metrics[metrics["data"] == PHOTOGRAPHS]
    return _means(_over_layers(rows, "share"), "share", ["scheme"])


def revealed(halves: pd.DataFrame) -> pd.DataFrame:
    """Return the correlation of two halves of scenes by their number, mean over layers and seeds.

    Returns
    -------
    DataFrame
        scheme, scenes (in each half), n (seeds), mean, low, high (95 %).
    """
    rows = halves[halves["data"] == PLANE].rename(columns={"n": "scenes"})
    return _means(_over_layers(rows, "r", ["scenes"]), "r", ["scheme", "scenes"])


def distinguished(growth: pd.DataFrame, what: str = "separated") -> pd.DataFrame:
    """Return the share of cells told apart by the number of scenes, mean over layers and seeds.

    Parameters
    ----------
    growth : DataFrame
        See :class:`Tables`; its first half counts.
    what : {"separated", "detected"}
        Two unpaired samples, or paired differences.

    Returns
    -------
    DataFrame
        scheme, scenes, n (seeds), mean, low, high (95 %).
    """
    rows = growth[growth["half"] == 0].rename(columns={"n": "scenes"})
    return _means(_over_layers(rows, what, ["scenes"]), what, ["scheme", "scenes"])


def slopes(growth: pd.DataFrame, what: str = "separated") -> pd.DataFrame:
    """Return the slope of that share against log2 of the number of scenes, mean over seeds.

    Returns
    -------
    DataFrame
        scheme, n (seeds), mean, low, high (95 %): share per doubling.
    """
    rows = growth[growth["half"] == 0].rename(columns={"n": "scenes"})
    rows = _over_layers(rows, what, ["scenes"])
    found = [
        {"scheme": scheme, "seed": seed, "slope": np.polyfit(np.log2(r["scenes"]), r[what], 1)[0]}
        for (scheme, seed), r in rows.groupby(["scheme", "seed"], sort=False)
        if len(r) > 1
    ]
    return _means(pd.DataFrame(found, columns=["scheme", "seed", "slope"]), "slope", ["scheme"])


def biases(growth: pd.DataFrame) -> pd.DataFrame:
    """Return the pattern's power by the number of scenes: plug-in beside unbiased.

    The two halves are averaged first.

    Returns
    -------
    DataFrame
        scheme, layer, scenes, estimate (plug-in or unbiased), n (seeds), mean, low, high (95 %),
        in units of the layer's variance.
    """
    rows = growth.rename(columns={"n": "scenes"})
    by, parts = ["scheme", "layer", "scenes", "estimate"], []
    for name, column in (("plug-in, mean d²", "plug_in"), ("unbiased", "power")):
        scaled = rows.assign(value=rows[column] / rows["sigma"] ** 2, estimate=name)
        scaled = scaled.groupby([*by, "seed"], sort=False)["value"].mean().reset_index()
        parts.append(_means(scaled, "value", by))
    return pd.concat(parts, ignore_index=True)


def _over_layers(rows: pd.DataFrame, value: str, by: list[str] | None = None) -> pd.DataFrame:
    keys = ["scheme", "seed", *(by or [])]
    return rows.groupby(keys, sort=False)[value].mean().reset_index()


def _means(rows: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    return over_seeds(rows, value, by).drop(columns=["effect", "p", "p_holm"])


# -------------------------------------------------------------------------------- profiles


def profile(maps: pd.DataFrame) -> pd.DataFrame:
    """Average maps over the cells at each distance to the border, by side.

    Parameters
    ----------
    maps : DataFrame
        layer, row, column, value, and any keys of several maps beside them.

    Returns
    -------
    DataFrame
        The keys, layer, side ("left", "right", "top", "bottom", "corner"), distance (cells to the
        nearest border, 0 next to it), value (mean). A cell belongs to the side that is nearest;
        where two adjacent ones are, to the corner; midway between opposite ones, to both.

    Examples
    --------
    >>> cells = [(0, 0, 3.0), (0, 1, 1.0), (0, 2, 3.0), (1, 0, 2.0), (1, 1, 0.0), (1, 2, 2.0)]
    >>> cells += [(2, 0, 3.0), (2, 1, 1.0), (2, 2, 3.0)]
    >>> maps = pd.DataFrame(cells, columns=["row", "column", "value"]).assign(layer="conv")
    >>> profile(maps).set_index(["side", "distance"])["value"].to_dict()["corner", 0]
    3.0
    """
    keys = [name for name in maps if name not in ("row", "column", "value")]
    ends = maps.groupby(keys)[["row", "column"]].transform("max")
    sides = {
        "left": maps["column"],
        "right": ends["column"] - maps["column"],
        "top": maps["row"],
        "bottom": ends["row"] - maps["row"],
    }
    across = np.minimum(sides["left"], sides["right"])
    down = np.minimum(sides["top"], sides["bottom"])
    nearest, corner = np.minimum(across, down), across == down
    cells = {side: (away == nearest) & ~corner for side, away in sides.items()} | {"corner": corner}
    table = maps.assign(distance=nearest)
    table = pd.concat([table[there].assign(side=side) for side, there in cells.items()])
    return table.groupby([*keys, "side", "distance"], sort=False)["value"].mean().reset_index()


def places(maps: pd.DataFrame) -> pd.DataFrame:
    """Compare the cells next to the border: corners with edges, and the four sides.

    Parameters
    ----------
    maps : DataFrame
        scheme, layer, seed, row, column, value.

    Returns
    -------
    DataFrame
        scheme, layer, "corner / edge" (of the means), "strongest / weakest side"; mean over seeds.
    """
    border = profile(maps[["scheme", "layer", "seed", "row", "column", "value"]])
    border = border[border["distance"] == 0]
    means = border.pivot_table(index=["scheme", "layer", "seed"], columns="side", values="value")
    sides = means[["left", "right", "top", "bottom"]]
    found = pd.DataFrame(
        {
            "corner / edge": means["corner"] / sides.mean(axis=1),
            "strongest / weakest side": sides.max(axis=1) / sides.min(axis=1),
        }
    )
    found = found.groupby(["scheme", "layer"]).mean()
    order = pd.MultiIndex.from_frame(border[["scheme", "layer"]].drop_duplicates())
    return found.loc[order].reset_index()


def map_agreement(maps: pd.DataFrame) -> pd.DataFrame:
    """Correlate maps of networks that differ in the seed alone.

    Channels of two networks are not the same, so the channel means of |d| are compared.

    Parameters
    ----------
    maps : DataFrame
        padding, scheme, layer, seed, row, column, value.

    Returns
    -------
    DataFrame
        padding, scheme, layer, pairs (of seeds), r (Pearson over cells, mean over pairs), least.
    """
    found = []
    for key, part in maps.groupby(["padding", "scheme", "layer"], sort=False):
        grid = part.pivot(index=["row", "column"], columns="seed", values="value")
        r = grid.corr().to_numpy()[np.triu_indices(grid.shape[1], 1)]
        if len(r):
            found.append((*key, len(r), r.mean(), r.min()))
    return pd.DataFrame(found, columns=["padding", "scheme", "layer", "pairs", "r", "least"])


def concentration(channels: pd.DataFrame) -> pd.DataFrame:
    """Say how many channels of a layer carry its pattern.

    Parameters
    ----------
    channels : DataFrame
        scheme, layer, channel, power (unbiased), and any keys beside them.

    Returns
    -------
    DataFrame
        The keys, scheme, layer, channels, half (the least share of channels that hold half of
        the power), strongest (share of the power in the strongest channel). Negative estimates
        count as 0.

    Examples
    --------
    >>> four = pd.DataFrame({"scheme": "zeros", "layer": "conv", "channel": range(4)})
    >>> concentration(four.assign(power=[3.0, 1.0, 1.0, 1.0]))["half"].item()
    0.25
    """
    keys = [name for name in channels if name not in ("channel", "power", "mae")]
    found = []
    for key, part in channels.groupby(keys, sort=False):
        power = np.sort(part["power"].clip(lower=0).to_numpy())[::-1]
        total = power.sum()
        row = dict(zip(keys, key)) | {"channels": len(power), "half": np.nan, "strongest": np.nan}
        if total > 0:
            reached = np.searchsorted(np.cumsum(power), total / 2) + 1
            row |= {"half": reached / len(power), "strongest": power[0] / total}
        found.append(row)
    return pd.DataFrame(found, columns=[*keys, "channels", "half", "strongest"])


# -------------------------------------------------------------------------------- verdicts


def judge(name: str, tables: Tables) -> Verdict:
    """Apply the test of one claim. [ours]

    Parameters
    ----------
    name : {"C3", "C4", "C5", "C7"}
    tables : Tables
        Of trained networks of one family.

    Returns
    -------
    Verdict

    Raises
    ------
    ParameterError
        A claim without a test here.

    Examples
    --------
    >>> from studies.patterns import design
    >>> judge("C3", Tables.select(design.read, "resnet", "trained")).claim.id
    'C3'
    """
    if name not in _TESTS:
        raise ParameterError(unknown("claim", name, _TESTS))
    entry = claim(name)
    seeds = tables.metrics.groupby("scheme")["seed"].nunique()
    if name == "C7":
        seeds = seeds[seeds.index == RANDN]
    if seeds.empty or seeds.min() < _FEWEST or (name != "C7" and len(seeds) < 5):
        because = f"{_FEWEST} seeds of every scheme are needed"
        return Verdict(entry, NOT_EVALUATED, pd.DataFrame(), because)
    return _TESTS[name](entry, tables)


def _c3(entry: Claim, tables: Tables) -> Verdict:
    rows = halves_by_layer(tables.halves)
    above, below = _sides(rows, entry.numbers["threshold"])
    up, down = (side.groupby(rows["scheme"], sort=False).sum() for side in (above, below))
    because = (
        "layers with the interval above the threshold: "
        + ", ".join(f"{n} ({scheme})" for scheme, n in up.items())
        + f"; below it: {int(down.sum())} in all"
    )
    return _decided(entry, rows, (up >= _LAYERS).all(), (down >= _LAYERS).any(), because)


def _c4(entry: Claim, tables: Tables) -> Verdict:
    share, halves = obscurity(tables.metrics), revealed(tables.halves)
    halves = halves[halves["scenes"] == halves["scenes"].max()].drop(columns="scenes")
    above, below = (s.set_axis(share["scheme"]) for s in _sides(share, entry.numbers["obscure"]))
    found, lost = _sides(halves, entry.numbers["revealed"])
    others = share["scheme"][share["scheme"] != "zeros"]
    yes = above["zeros"] and below[others].sum() >= 3 and found.all()
    no = below["zeros"] or above[others].sum() >= 2 or lost.any()
    because = (
        f"(a) the share is {_told(share)}; (b) the correlation of two halves lies above "
        f"{entry.numbers['revealed']:g} for {int(found.sum())} of {len(halves)} schemes"
    )
    rows = pd.concat([share.assign(part="(a) share"), halves.assign(part="(b) correlation")])
    return _decided(entry, rows.reset_index(drop=True), yes, no, because)


def _c5(entry: Claim, tables: Tables) -> Verdict:
    slope, share = slopes(tables.growth), distinguished(tables.growth)
    share = share[share["scenes"] == share["scenes"].max()].drop(columns="scenes")
    rising, falling = _sides(slope, 0.0)
    above, below = _sides(share, entry.numbers["threshold"])
    because = (
        f"the share rises for {int(rising.sum())} of {len(slope)} schemes and ends above "
        f"{entry.numbers['threshold']:g} for {int(above.sum())}; at the end it is {_told(share)}"
    )
    rows = pd.concat([slope.assign(part="slope"), share.assign(part="share at the end")])
    yes, no = rising.all() and above.all(), falling.any() or below.any()
    return _decided(entry, rows.reset_index(drop=True), yes, no, because)


def _c7(entry: Claim, tables: Tables) -> Verdict:
    rows = tables.metrics
    rows = rows[(rows["data"] == PHOTOGRAPHS) & (rows["scheme"] == RANDN)]
    layers = (rows["power_low"] > 0).groupby(rows["seed"]).sum()
    halves = tables.halves
    halves = halves[(halves["data"] == PHOTOGRAPHS) & (halves["scheme"] == RANDN)]
    r = _means(_over_layers(halves, "r"), "r", ["scheme"])
    above, below = _sides(r, entry.numbers["threshold"])
    enough = layers >= _LAYERS
    because = (
        f"(a) the power lies above 0 in {_LAYERS} layers or more for {int(enough.sum())} of "
        f"{len(layers)} networks; (b) the correlation of two halves is {_told(r)}"
    )
    yes, no = enough.all() and above.all(), enough.sum() < 3 or below.any()
    return _decided(entry, r, yes, no, because)


def _sides(rows: pd.DataFrame, threshold: float) -> tuple[pd.Series, pd.Series]:
    """Return which intervals lie wholly above a threshold, and which wholly below."""
    return rows["low"] > threshold, rows["high"] < threshold


def _told(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{r.mean:.2f}\u00a0[{r.low:.2f},\u00a0{r.high:.2f}] ({r.scheme})"
        for r in rows[["scheme", "mean", "low", "high"]].itertuples(index=False)
    )


def _decided(entry: Claim, rows: pd.DataFrame, yes: bool, no: bool, because: str) -> Verdict:
    verdict = NOT_REPRODUCED if no else REPRODUCED if yes else INCONCLUSIVE
    return Verdict(entry, verdict, rows, because)


_TESTS: dict[str, Callable[[Claim, Tables], Verdict]] = {
    "C3": _c3, "C4": _c4, "C5": _c5, "C7": _c7,
}  # fmt: skip
