"""The amended tests of the eleven claims: rows with their intervals, and their grades. [ours]

Each is described in ``data/claims.yaml`` (``amended``); the first tests stay with their studies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ppp.errors import ParameterError, unknown
from ppp.metrics import Estimate, jackknife
from ppp.statistics import halves, require_groups, sign_flip_test
from studies import figures, ledger
from studies.claims import (
    AGAINST,
    NOT_EVALUABLE,
    SUPPORTED,
    UNDERPOWERED,
    Amendment,
    Claim,
    Verdict,
    claim,
    gated,
    grade,
    rows_beside,
)
from studies.dynamics import analysis as dynamics, crossed, design as dynamics_design
from studies.evidence import design
from studies.networks.names import FRESH_SEEDS, PADDINGS
from studies.patterns import design as patterns_design
from studies.posenet import analysis as posenet, real
from studies.pretrained import analysis as pretrained
from studies.stats import holm, mean_interval, per_seed, share, two_way

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDN = "randn"
FAMILY_LEVEL = 1 - 0.05 / 5
"""Level of the intervals of a family of five schemes (Bonferroni)."""
_SET = "debian"


@dataclass(frozen=True)
class Graded:
    """The outcome of a claim's amended test, or of that on real networks.

    Attributes
    ----------
    claim : Claim
    test : Amendment, or str
        Which test; or why there is none.
    grade : str
        supported, against, mixed, underpowered, or not evaluable here.
    rows : DataFrame
        part, row, value, low, high, delta, grade; NaN where a quantity is undefined. Empty where
        there is no test.
    """

    claim: Claim
    test: Amendment | str
    grade: str
    rows: pd.DataFrame = field(repr=False)

    @property
    def effect(self) -> str:
        """The row that lies closest to its threshold, in half widths of its interval."""
        if self.rows.empty:
            return ""
        rows = self.rows.dropna(subset=["low", "high"])
        if rows.empty:
            row = self.rows.iloc[0]
            return f"{row['part']} {row['row']}: {row['value']:.3g} against {row['delta']:.3g}"
        wide = (rows["high"] - rows["low"]).clip(lower=1e-12)
        row = rows.loc[((rows["value"] - rows["delta"]).abs() / wide).idxmin()]
        return (
            f"{row['part']}, {row['row']}: {row['value']:.3g}\u00a0[{row['low']:.3g},\u00a0"
            f"{row['high']:.3g}] against {row['delta']:.3g}"
        )

    @property
    def because(self) -> str:
        """How many rows have which grade, by part; or why there is no test."""
        if isinstance(self.test, str):
            return self.test
        counts = self.rows.groupby(["part", "grade"], sort=False).size()
        texts = [
            f"{part}: " + ", ".join(f"{n} {name}" for name, n in counts[part].items())
            for part in counts.index.unique("part")
        ]
        return "; ".join(texts)


def judge(name: str, data: str | Path = ledger.DATA, *, real: bool = False) -> Graded:
    """Apply the amended test of a claim to the shipped tables, or that on real networks.

    Parameters
    ----------
    name : {"C1", ..., "C11"}
    data : path
    real : bool
        Whether the networks are those that were trained on real pictures.

    Raises
    ------
    ParameterError
        No such claim.
    WeightsError
        A table is missing or damaged.

    Examples
    --------
    >>> judge("C2").grade
    'supported'
    """
    if name not in _TESTS:
        raise ParameterError(unknown("claim", name, _TESTS))
    test, tests = (claim(name).real, _REAL) if real else (claim(name).amended, _TESTS)
    if isinstance(test, str):
        return Graded(claim(name), test, NOT_EVALUABLE, pd.DataFrame())
    rows = pd.concat(tests[name](Path(data), test.numbers), ignore_index=True)
    # Schemes in their usual order, whatever order their tables have.
    place = rows["row"].str.split(",").str[0].map({name: i for i, name in enumerate(PADDINGS)})
    parts = rows["part"].map({part: i for i, part in enumerate(rows["part"].unique())})
    rows = rows.iloc[np.lexsort((place.fillna(0), parts))].reset_index(drop=True)
    decides = rows["decides"] if "decides" in rows else rows["grade"]
    return Graded(claim(name), test, grade(decides), rows)


def beside(verdict: Verdict) -> str:
    """Return, for a page, the grade of a claim beside the verdict of its first test.

    Examples
    --------
    >>> beside(ledger.judge(["C2"])[0])[:17]
    '**C2: supported**'
    """
    new = judge(verdict.claim.id)
    return (
        f"**{new.claim.id}: {new.grade}** (amended test; {new.because}). First test: "
        f"*{verdict.verdict}*, {verdict.because}."
    )


def figure(graded: Graded) -> Figure:
    """Draw the rows of a claim with their intervals and thresholds, a panel for each part."""
    kinds = pd.CategoricalDtype([SUPPORTED, UNDERPOWERED, AGAINST, NOT_EVALUABLE])
    return figures.forest(
        graded.rows.astype({"grade": kinds}),
        "row",
        "value",
        "low",
        "high",
        group="grade",
        panel="part",
        reference="delta",
    )


def table(
    verdicts: Sequence[Verdict], graded: Sequence[Graded], real: Sequence[Graded]
) -> pd.DataFrame:
    """Return the ledger: first verdict, grade by kind of evidence, effect, a row per claim."""
    pairs = zip(verdicts, graded, real, strict=True)
    return pd.DataFrame(
        {
            "claim": new.claim.id,
            "says": new.claim.claim,
            "first verdict": old.verdict,
            "small networks": new.grade,
            "real networks": other.grade,
            "effect": new.effect,
            "effect (real)": other.effect,
            "because": new.because,
            "because (real)": other.because,
            "why": new.claim.amended.reason,
        }
        for old, new, other in pairs
    )


def require_unchanged(graded: Sequence[Graded]) -> None:
    """Refuse grades that differ from the ledger's guard against regressions.

    Raises
    ------
    ppp.errors.PPPError
        Names the first, and says what to do.

    Examples
    --------
    >>> require_unchanged([judge("C2")])
    """
    for one in graded:
        if isinstance(one.test, str):
            continue
        if one.grade != (guard := one.test.guard):
            raise ledger.VerdictChanged(
                f"{one.claim.id} is {one.grade!r} now ({one.because}), and was {guard!r}; if the "
                "new grade is right, change the test's `guard` in data/claims.yaml"
            )


# --------------------------------------------------------- photographs: C3, C4 (a), C7


@cache
def _maps(data: Path, state: str) -> dict[tuple[str, int, str], tuple]:
    """Return products, counts and spreads of each network (scheme, seed) and layer.

    Means are over the cells that padding can touch: in all others every map is 0.
    """
    names = ("pictures", "products", "metrics")
    pictures, products, metrics = (design.read(name, data / "evidence") for name in names)
    touched = metrics[metrics["family"] == "resnet"].groupby("layer")["influenced"].first()
    pictures, products = (
        t[(t["family"] == "resnet") & (t["state"] == state)] for t in (pictures, products)
    )
    if state == "trained":
        pictures, products = (t[t["scheme"] == t["padding"]] for t in (pictures, products))
    key, found = ["scheme", "seed", "layer"], {}
    pairs = dict(iter(products.groupby(key, sort=False)))
    for name, rows in pictures.groupby(key, sort=False):
        size, pair = len(rows), pairs[name]
        matrix = np.ones((size + 1, size + 1))
        matrix[pair["first"], pair["second"]] = matrix[pair["second"], pair["first"]] = pair[
            "value"
        ]
        matrix[-1, :-1] = matrix[:-1, -1] = rows["mean"]
        chosen = np.flatnonzero(rows["set"] == _SET)
        inside = np.append(chosen, size)
        of_touched = matrix[np.ix_(inside, inside)] / touched[name[-1]]
        of_touched[-1, -1] = 1
        n, spread = rows[["n", "spread"]].to_numpy()[chosen].T
        found[name] = of_touched, n, spread / touched[name[-1]]
    return found


@cache
def _shares(data: Path, state: str) -> dict[tuple, np.ndarray]:
    """Return each network's share in each layer, then those without each photograph."""
    found = {}
    for key, (products, n, spread) in _maps(data, state).items():
        values = [share(products, n, spread)]
        for i in range(len(n)):
            rest = np.delete(np.arange(len(n)), i)
            inside = np.append(rest, len(n))
            values.append(share(products[np.ix_(inside, inside)], n[rest], spread[rest]))
        found[key] = np.array(values)
    return found


@cache
def _correlations(data: Path) -> dict[tuple, np.ndarray]:
    """Return the same of the correlation of halves."""
    return {
        key: np.array([halves(alike, without=i).mean() for i in (None, *range(len(n)))])
        for key, (alike, n, _) in _maps(data, "trained").items()
    }


def _by_scheme(values: dict[tuple, np.ndarray]) -> pd.DataFrame:
    """Average over layers; interval over networks and photographs, a row per scheme.

    `values` hold, by scheme, seed and layer, the value and those without each photograph.
    """
    whole = pd.DataFrame(values).T.rename_axis(["scheme", "seed", "layer"])
    whole = whole.groupby(["scheme", "seed"], sort=False).mean()
    rows = []
    for scheme, part in whole.groupby("scheme", sort=False):
        numbers = part.to_numpy(float)
        rows.append((scheme, *vars(two_way(numbers[:, 0], numbers[:, 1:], FAMILY_LEVEL)).values()))
    return pd.DataFrame(rows, columns=["row", "value", "low", "high"])


@cache
def gate(data: Path) -> pd.Series:
    """Return in how many layers each scheme passes the sign-flip test, after Holm's correction."""
    maps = _maps(data, "trained")
    p = pd.Series({key: sign_flip_test(alike) for key, (alike, *_) in maps.items()})
    p.index.names = ["scheme", "seed", "layer"]
    pairs = (2 * p.groupby(["scheme", "layer"], sort=False).median()).clip(upper=1)
    require_groups(len(pairs), min(len(n) for _, n, _ in maps.values()))
    return (holm(pairs) < 0.05).groupby("scheme", sort=False).sum()


def _c3(data: Path, numbers) -> Iterator[pd.DataFrame]:
    passed = gate(data)
    for part, values, delta in (
        ("correlation of halves", _correlations(data), numbers["delta"]),
        ("share P / (P + V)", _shares(data, "trained"), numbers["delta_share"]),
    ):
        yield gated(rows_beside(part, _by_scheme(values), delta, most=1), passed)


def _c7(data: Path, numbers) -> Iterator[pd.DataFrame]:
    for rows in _c3(data, numbers):
        yield rows[rows["row"] == RANDN]
    initial = _shares(data, "initial")
    trained = {key: found for key, found in _shares(data, "trained").items() if key[0] == RANDN}
    table = _by_scheme({key: found - initial[key] for key, found in trained.items()})
    yield gated(rows_beside("share less initial", table, numbers["delta_excess"]), gate(data))


def _c4(data: Path, numbers) -> Iterator[pd.DataFrame]:
    areas = design.read("visibility", data / "evidence")
    areas = areas[(areas["family"] == "resnet") & (areas["version"] != "best channel")]
    areas["without"] = areas["without"].fillna("")
    for part, n in (("(a) one map", 1), ("(b) mean of 64 maps", design.MAPS[-1])):
        for version, rows in areas[areas["n"] == n].groupby("version", sort=False):
            by_picture = rows.groupby(["scheme", "seed", "layer"], sort=False)["area"]
            table = _by_scheme({key: each.to_numpy() for key, each in by_picture})
            if n > 1:
                yield rows_beside(f"{part}, {version}", table, numbers["delta_revealed"], most=1)
                continue
            graded = rows_beside(f"{part}, {version}", table, numbers["delta"], above=False, most=1)
            # A filter that knows the pattern bounds every eye from above: it can refute nothing.
            zeros = graded["row"] == "zeros"
            refuted = {AGAINST: NOT_EVALUABLE}
            graded["grade"] = graded["grade"].replace(refuted)
            if version == "channel mean":
                swap = {SUPPORTED: AGAINST}
                graded.loc[zeros, "grade"] = graded.loc[zeros, "grade"].replace(swap)
            yield graded if version == "channel mean" else graded[~zeros]
    halves = patterns_design.read("halves", data / "patterns")
    halves = halves.query("family == 'resnet' and state == 'trained' and data == 'plane'")
    halves = halves[(halves["scheme"] == halves["padding"]) & (halves["n"] == halves["n"].max())]
    table = _over_seeds(halves.rename(columns={"scheme": "row"}), "r", FAMILY_LEVEL)
    yield rows_beside(
        "(b) correlation of halves of 512 scenes", table, numbers["delta_revealed"], most=1
    )


def _over_seeds(table: pd.DataFrame, value: str, level: float = 0.95) -> pd.DataFrame:
    """Average over layers, then over seeds, by row."""
    seeds = per_seed(table, value, ["row"])
    return mean_interval(seeds, ["row"], value, level).rename(columns={value: "value"})


def _c5(data: Path, numbers) -> Iterator[pd.DataFrame]:
    table = design.read("scenes", data / "evidence").rename(columns={"scheme": "row"})
    table["excess"] = table["separated"] - table["control"]
    last = table[table["n"] == table["n"].max()]
    value = _over_seeds(last, "excess", FAMILY_LEVEL)
    yield rows_beside(
        f"excess share after {int(last['n'].iloc[0])} scenes", value, numbers["delta"]
    )
    runs = table.groupby(["row", "seed", "layer"], sort=False)
    slopes = runs[["n", "excess"]].apply(
        lambda run: np.polyfit(np.log2(run["n"]), run["excess"], 1)[0]
    )
    slope = _over_seeds(slopes.rename("slope").reset_index(), "slope", FAMILY_LEVEL)
    yield rows_beside("its slope per doubling", slope, numbers["delta_slope"])


# ------------------------------------------------------- the first tests, translated: C1, C2, C6


def _c1(data: Path, numbers) -> Iterator[pd.DataFrame]:
    rows = posenet.scores(*ledger.of_trained(data, "trials"))
    for label, part in (
        ("all five paddings", rows),
        ("without zeros", rows[rows["scheme"] != "zeros"]),
    ):
        table = posenet.repeatability(part[part["metric"].isin([posenet.SPC, posenet.MAE])])
        table = table.assign(row=table["metric"] + ", " + table["setting"], value=table["icc"])
        graded = rows_beside(label, table, numbers["delta"], above=False)
        # Three targets of both scores decide a set.
        counts = pd.crosstab(table["metric"], graded["grade"]).min()
        sets = [name for name in (SUPPORTED, AGAINST) if counts.get(name, 0) >= 3]
        yield graded.assign(decides=sets[0] if sets else UNDERPOWERED)


def _c2(data: Path, numbers) -> Iterator[pd.DataFrame]:
    table = ledger.JUDGES["C2"](data).table
    guilty = table["guilty"].sum()
    named = SUPPORTED if guilty >= 2 else UNDERPOWERED if guilty else AGAINST
    row = f"of {len(table)} factors"
    yield _frame([(row, guilty, np.nan, np.nan)]).assign(part="guilty", delta=2, grade=named)


def _c6(data: Path, numbers) -> Iterator[pd.DataFrame]:
    table = ledger.JUDGES["C6"](data).table
    table = table.assign(row=table["metric"] + " less " + table["other"], value=table["difference"])
    yield rows_beside("probability of contradiction", table, numbers["delta"], above=False)


# ------------------------------------------------------------------- training: C8 to C11


@cache
def _fresh(data: Path) -> pd.DataFrame:
    rows = dynamics_design.trajectories(data, fresh=True)
    return rows[(rows["family"] == "resnet") & rows["seed"].isin(FRESH_SEEDS["resnet"])]


def _excess(data: Path) -> pd.DataFrame:
    """Return the excess over the initial value, in the last layer: rows of padding and metric."""
    table = dynamics.own(_fresh(data))
    deepest = dynamics_design.layers_of(table)[-1]
    table = table[(table["layer"] == deepest) & table["metric"].isin(dynamics.METRICS)]
    run = ["padding", "metric", "seed"]
    first = table[table["step"] == 0].set_index(run)["value"]
    table = table.join(first.rename("initial"), on=run)
    row = table["padding"] + ", " + table["metric"]
    return table.assign(excess=table["value"] - table["initial"], row=row)


def _grown(table: pd.DataFrame) -> pd.Series:
    """Say of each row whether the interval over seeds of the final excess excludes 0."""
    final = table[table["step"] == table["step"].max()]
    ends = mean_interval(final, ["row"], "excess").set_index("row")
    return (ends["low"] > 0) | (ends["high"] < 0)


def _c8(data: Path, numbers) -> Iterator[pd.DataFrame]:
    table = _excess(data)
    runs = table.groupby(["row", "seed"], sort=False)[["step", "excess"]]
    times = runs.apply(lambda run: dynamics.half_time(run["step"], run["excess"]))
    logs = np.log2(1 + times).rename("log").reset_index()
    rows = _over_seeds(logs, "log")
    rows[["value", "low", "high"]] = (2 ** rows[["value", "low", "high"]] - 1).clip(lower=0)
    undefined = (
        ~_grown(table)[rows["row"]].to_numpy()
        | times.isna().groupby("row").any()[rows["row"]].to_numpy()
    )
    rows.loc[undefined, ["value", "low", "high"]] = np.nan
    limit = numbers["delta"] * table["step"].max()
    yield rows_beside("steps to half of the final excess", rows, limit, above=False)


def _c9(data: Path, numbers) -> Iterator[pd.DataFrame]:
    table = _excess(data)
    ends = [int(numbers["first_step"]), table["step"].max()]
    wide = table.pivot_table(index=["row", "seed"], columns="step", values="excess", sort=False)[
        ends
    ]
    grown, rows = _grown(table), []
    for row, values in wide.groupby("row", sort=False):
        ratio = partial(_log_ratio_of_means, values.to_numpy())
        left_out = [ratio(np.delete(np.arange(len(values)), i)) for i in range(len(values))]
        estimate = jackknife(ratio(slice(None)), left_out, FAMILY_LEVEL, corrected=False)
        rows.append((row, *vars(estimate if grown[row] else Estimate(np.nan)).values()))
    table = pd.DataFrame(rows, columns=["row", "value", "low", "high"])
    yield rows_beside(f"log2(excess at the end / at step {ends[0]})", table, numbers["delta"])


def _log_ratio_of_means(values: np.ndarray, seeds) -> float:
    early, late = values[seeds].mean(0)
    return float(np.log2(late / early)) if early > 0 and late > 0 else np.nan


def _c10(data: Path, numbers) -> Iterator[pd.DataFrame]:
    table = dynamics.changes(_fresh(data)).query("batch_norm == 're-estimated'")
    for metric, units in (("mae", "in units of sigma"), ("raw", "raw"), ("snr", "SNR")):
        part = table[table["metric"] == metric].rename(columns={"padding": "row"})
        yield rows_beside(
            f"log2(final / initial), {units}",
            _over_seeds(part, "change", FAMILY_LEVEL),
            numbers["delta"],
        )


def _c11(data: Path, numbers) -> Iterator[pd.DataFrame]:
    table = _fresh(data)
    schemes = table[table["padding"].isin(PADDINGS)]
    ratios = {metric: dynamics.dependence(schemes, metric) for metric in dynamics.METRICS}
    rows = [(name, found["ratio"], found["low"], found["high"]) for name, found in ratios.items()]
    yield rows_beside("(a) spread over change", _frame(rows), numbers["delta"], above=False)
    part = crossed.training_share(table)
    yield rows_beside(
        "(b) share of training", _frame([("mae", *vars(part).values())]), numbers["delta_share"]
    )
    rows = [
        (metric, *vars(crossed.over_control(table, metric)).values()) for metric in dynamics.METRICS
    ]
    yield rows_beside("(c) log2(own / control)", _frame(rows), numbers["delta_ratio"])


def _frame(rows: Sequence[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["row", "value", "low", "high"])


_TESTS: dict[str, Callable] = {
    "C1": _c1, "C2": _c2, "C3": _c3, "C4": _c4, "C5": _c5, "C6": _c6, "C7": _c7, "C8": _c8,
    "C9": _c9, "C10": _c10, "C11": _c11,
}  # fmt: skip

_REAL: dict[str, Callable] = {
    "C1": real.c1, "C3": pretrained.c3, "C4": pretrained.c4, "C5": pretrained.c5,
    "C10": pretrained.c10,
}  # fmt: skip
