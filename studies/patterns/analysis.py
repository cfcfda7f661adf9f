"""Is the pattern the same each time? Halves of the data, growth with n, claims C3, C4, C5 and C7.

The tests are described in ``data/claims.yaml``; the tables are those of
:mod:`studies.patterns.design`. [ours]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ppp.certificate import Coverage
from ppp.errors import ParameterError, unknown
from studies.claims import Claim, Verdict, claim
from studies.patterns.design import PHOTOGRAPHS, PLANE, own
from studies.stats import over_seeds, per_seed, sides

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
        tables = (own(read(name)) for name in ("metrics", "growth", "halves"))
        return cls(*(t[(t["family"] == family) & (t["state"] == state)] for t in tables))


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
    return _means(per_seed(rows, "share", ["scheme"]), "share", ["scheme"])


def revealed(halves: pd.DataFrame) -> pd.DataFrame:
    """Return the correlation of two halves of scenes by their number, mean over layers and seeds.

    Returns
    -------
    DataFrame
        scheme, scenes (in each half), n (seeds), mean, low, high (95 %).
    """
    rows = halves[halves["data"] == PLANE].rename(columns={"n": "scenes"})
    by = ["scheme", "scenes"]
    return _means(per_seed(rows, "r", by), "r", by)


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
    return _means(_of_first_half(growth, what), what, ["scheme", "scenes"])


def slopes(growth: pd.DataFrame, what: str = "separated") -> pd.DataFrame:
    """Return the slope of that share against log2 of the number of scenes, mean over seeds.

    Returns
    -------
    DataFrame
        scheme, n (seeds), mean, low, high (95 %): share per doubling.
    """
    rows = _of_first_half(growth, what)
    fitted = [
        (scheme, seed, np.polyfit(np.log2(run["scenes"]), run[what], 1)[0])
        for (scheme, seed), run in rows.groupby(["scheme", "seed"], sort=False)
        if len(run) > 1
    ]
    return _means(pd.DataFrame(fitted, columns=["scheme", "seed", "slope"]), "slope", ["scheme"])


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
        parts.append(_means(per_seed(scaled, "value", by), "value", by))
    return pd.concat(parts, ignore_index=True)


def _of_first_half(growth: pd.DataFrame, what: str) -> pd.DataFrame:
    rows = growth[growth["half"] == 0].rename(columns={"n": "scenes"})
    return per_seed(rows, what, ["scheme", "scenes"])


def _means(rows: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    return over_seeds(rows, value, by).drop(columns=["effect", "p", "p_holm"])


# -------------------------------------------------------------------------------- profiles


def with_influenced(table: pd.DataFrame, coverage: Coverage) -> pd.DataFrame:
    """Append both metrics over the cells that padding can touch, by which layers are compared.

    All other cells are masked to 0, so that it is the mean over all cells divided by their share.

    Parameters
    ----------
    table : DataFrame
        layer; mae, snr, their bounds and floors, over all cells.
    coverage : Coverage
        Of these layers, at the window's size.

    Returns
    -------
    DataFrame
        Further columns influenced (share of cells), mae_influenced, mae_influenced_low, ...

    Examples
    --------
    >>> from studies.networks import reach_of
    >>> from studies.patterns import design
    >>> table = with_influenced(design.own(design.read("metrics").head()), reach_of("resnet"))
    >>> table[["mae", "influenced", "mae_influenced"]].iloc[0].round(3).tolist()
    [0.014, 0.082, 0.172]
    """
    share = table["layer"].map({name: one.influence.mean() for name, one in coverage.items()})
    ends = [(metric, end) for metric in ("mae", "snr") for end in ("", "_low", "_high", "_floor")]
    more = {f"{metric}_influenced{end}": table[metric + end] / share for metric, end in ends}
    return table.assign(influenced=share, **more)


def profile(maps: pd.DataFrame) -> pd.DataFrame:
    """Average maps over the cells at each distance to the border, by side.

    Parameters
    ----------
    maps : DataFrame
        layer, row, column, value, and any keys of several maps beside them.

    Returns
    -------
    DataFrame
        The keys, layer, side ("left", "right", "top", "bottom", "diagonal"), distance (cells to the
        nearest border, 0 next to it), value (mean). A cell belongs to the side that is nearest;
        where two adjacent ones are, to the diagonal; midway between opposite ones, to both.

    Examples
    --------
    >>> cells = [(0, 0, 3.0), (0, 1, 1.0), (0, 2, 3.0), (1, 0, 2.0), (1, 1, 0.0), (1, 2, 2.0)]
    >>> cells += [(2, 0, 3.0), (2, 1, 1.0), (2, 2, 3.0)]
    >>> maps = pd.DataFrame(cells, columns=["row", "column", "value"]).assign(layer="conv")
    >>> profile(maps).set_index(["side", "distance"])["value"].to_dict()["diagonal", 0]
    3.0
    """
    keys = [name for name in maps if name not in ("row", "column", "value")]
    ends = maps.groupby(keys)[["row", "column"]].transform("max")
    away = {
        "left": maps["column"],
        "right": ends["column"] - maps["column"],
        "top": maps["row"],
        "bottom": ends["row"] - maps["row"],
    }
    across = np.minimum(away["left"], away["right"])
    down = np.minimum(away["top"], away["bottom"])
    nearest, diagonal = np.minimum(across, down), across == down
    cells = {side: (far == nearest) & ~diagonal for side, far in away.items()}
    cells["diagonal"] = diagonal
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
        scheme, layer, "corner / edge" (of the means; the corner
        cells are the diagonals' ends), "strongest / weakest side"; mean over seeds.
    """
    border = profile(maps[["scheme", "layer", "seed", "row", "column", "value"]])
    border = border[border["distance"] == 0]
    means = border.pivot_table(index=["scheme", "layer", "seed"], columns="side", values="value")
    edges = means[["left", "right", "top", "bottom"]]
    ratios = pd.DataFrame({"corner / edge": means["diagonal"] / edges.mean(axis=1)})
    ratios["strongest / weakest side"] = edges.max(axis=1) / edges.min(axis=1)
    order = pd.MultiIndex.from_frame(border[["scheme", "layer"]].drop_duplicates())
    return ratios.groupby(["scheme", "layer"]).mean().loc[order].reset_index()


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
    rows = []
    for key, part in maps.groupby(["padding", "scheme", "layer"], sort=False):
        grid = part.pivot(index=["row", "column"], columns="seed", values="value")
        r = grid.corr().to_numpy()[np.triu_indices(grid.shape[1], 1)]
        if len(r):
            rows.append((*key, len(r), r.mean(), r.min()))
    return pd.DataFrame(rows, columns=["padding", "scheme", "layer", "pairs", "r", "least"])


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
    rows = []
    for key, part in channels.groupby(keys, sort=False):
        power = np.sort(part["power"].clip(lower=0).to_numpy())[::-1]
        half = strongest = np.nan
        if power.sum() > 0:
            half = (np.searchsorted(np.cumsum(power), power.sum() / 2) + 1) / len(power)
            strongest = power[0] / power.sum()
        rows.append((*key, len(power), half, strongest))
    return pd.DataFrame(rows, columns=[*keys, "channels", "half", "strongest"])


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
        return entry.not_evaluated(f"{_FEWEST} seeds of every scheme are needed")
    return _TESTS[name](entry, tables)


def _c3(entry: Claim, tables: Tables) -> Verdict:
    rows = halves_by_layer(tables.halves)
    above, below = sides(rows, entry.numbers["threshold"])
    up, down = (side.groupby(rows["scheme"], sort=False).sum() for side in (above, below))
    because = (
        "layers with the interval above the threshold: "
        + ", ".join(f"{n} ({scheme})" for scheme, n in up.items())
        + f"; below it: {int(down.sum())} in all"
    )
    return entry.decide(rows, (up >= _LAYERS).all(), (down >= _LAYERS).any(), because)


def _c4(entry: Claim, tables: Tables) -> Verdict:
    share, halves = obscurity(tables.metrics), _at_most_scenes(revealed(tables.halves))
    above, below = (s.set_axis(share["scheme"]) for s in sides(share, entry.numbers["obscure"]))
    revealing, lost = sides(halves, entry.numbers["revealed"])
    others = share["scheme"][share["scheme"] != "zeros"]
    yes = above["zeros"] and below[others].sum() >= 3 and revealing.all()
    no = below["zeros"] or above[others].sum() >= 2 or lost.any()
    because = (
        f"(a) the share is {_in_words(share)}; (b) the correlation of two halves lies above "
        f"{entry.numbers['revealed']:g} for {int(revealing.sum())} of {len(halves)} schemes"
    )
    return entry.decide(_parts({"(a) share": share, "(b) correlation": halves}), yes, no, because)


def _c5(entry: Claim, tables: Tables) -> Verdict:
    slope, share = slopes(tables.growth), _at_most_scenes(distinguished(tables.growth))
    rising, falling = sides(slope, 0.0)
    above, below = sides(share, entry.numbers["threshold"])
    because = (
        f"the share rises for {int(rising.sum())} of {len(slope)} schemes and ends above "
        f"{entry.numbers['threshold']:g} for {int(above.sum())}; at the end it is "
        f"{_in_words(share)}"
    )
    yes, no = rising.all() and above.all(), falling.any() or below.any()
    return entry.decide(_parts({"slope": slope, "share at the end": share}), yes, no, because)


def _c7(entry: Claim, tables: Tables) -> Verdict:
    rows, halves = (
        table[(table["data"] == PHOTOGRAPHS) & (table["scheme"] == RANDN)]
        for table in (tables.metrics, tables.halves)
    )
    layers = (rows["power_low"] > 0).groupby(rows["seed"]).sum()
    r = _means(per_seed(halves, "r", ["scheme"]), "r", ["scheme"])
    above, below = sides(r, entry.numbers["threshold"])
    enough = layers >= _LAYERS
    because = (
        f"(a) the power lies above 0 in {_LAYERS} layers or more for {int(enough.sum())} of "
        f"{len(layers)} networks; (b) the correlation of two halves is {_in_words(r)}"
    )
    yes, no = enough.all() and above.all(), enough.sum() < 3 or below.any()
    return entry.decide(r, yes, no, because)


def _at_most_scenes(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["scenes"] == rows["scenes"].max()].drop(columns="scenes")


def _parts(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([t.assign(part=name) for name, t in tables.items()], ignore_index=True)


def _in_words(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{r.mean:.2f}\u00a0[{r.low:.2f},\u00a0{r.high:.2f}] ({r.scheme})"
        for r in rows[["scheme", "mean", "low", "high"]].itertuples(index=False)
    )


_TESTS: dict[str, Callable[[Claim, Tables], Verdict]] = {
    "C3": _c3, "C4": _c4, "C5": _c5, "C7": _c7,
}  # fmt: skip
