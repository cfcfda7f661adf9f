"""The paper's claims and the tests written for them before their results were seen.

They stand in ``data/claims.yaml``; the statistics are in the `analysis` module of each study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from ppp.errors import DocumentError, ParameterError, first_words, unknown
from studies import paths
from studies.storage import yaml_documents

CLAIMS = paths.data("claims.yaml")

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_EVALUATED = "inconclusive", "not evaluated at these parameters"
NOT_TESTED = "not tested yet"

SUPPORTED, AGAINST, MIXED = "supported", "against", "mixed"
UNDERPOWERED, NOT_EVALUABLE = "underpowered", "not evaluable here"

_LAYERS = 3  # in which a row must pass the gate


@dataclass(frozen=True)
class Amendment:
    """A second test of a claim whose first one could not decide; it gives a grade.

    Attributes
    ----------
    reason : str
        Why the first test was amended.
    known : str
        What had been seen when this one was written.
    uses : str
        The photographs, scenes or networks that decide, which the first test did not use.
    statistic, grades : str
        What is computed, and how its rows are graded.
    would_change : str
        What else would change our mind; it decides nothing.
    because : dict of str to str
        The reason of each smallest effect of interest, by its name in `numbers`.
    numbers : dict of str to float
        Smallest effects of interest, ``delta`` and others, and constants of the test.
    guard : str
        The grade of the shipped tables, as a claim's.
    """

    reason: str
    known: str
    uses: str
    statistic: str
    grades: str
    would_change: str
    because: Mapping[str, str]
    numbers: Mapping[str, float]
    guard: str = ""

    def markdown(self) -> str:
        """Return the test as a paragraph of text for a page."""
        deltas = [
            f"{name.replace('_', ' ')} = {value:g}"
            + (f" ({self.because[name]})" if name in self.because else "")
            for name, value in self.numbers.items()
        ]
        lines = {
            "Why the test was amended": self.reason,
            "Known when the amendment was written": self.known,
            "Decided on": self.uses,
            "Statistic": self.statistic,
            "Smallest effect of interest": "; ".join(deltas),
            "Grades": self.grades,
            "What would change our mind": self.would_change,
        }
        return "\n\n".join(f"*{name}.* {text}" for name, text in lines.items())


@dataclass(frozen=True)
class Claim:
    """A claim and its test.

    Attributes
    ----------
    id : str
        C1 to C11.
    claim, words, where : str
        In short; in the paper's own words; and where they stand.
    statistic, reproduced, not_reproduced : str
        What is computed, and the conditions of the two verdicts; else it is inconclusive. Empty
        as long as no test has been written.
    known : str
        What had been seen when the test was written.
    beside_it : str
        What is reported with it and decides nothing.
    guard : str
        The verdict of the shipped tables, added with them. It predicts nothing: it guards against
        regressions, since another verdict fails the tests.
    reason : str
        Why `guard` was changed, if it was.
    chapter : str
        Stem of the notebook that shows it.
    numbers : dict of str to float
        Thresholds and other constants of the test.
    amended : Amendment or None
        A second test.
    real : Amendment or str
        The test on networks that were trained on real pictures, or why there is none.
    """

    id: str
    claim: str
    words: str
    where: str
    statistic: str = ""
    reproduced: str = ""
    not_reproduced: str = ""
    known: str = ""
    beside_it: str = ""
    guard: str = ""
    reason: str = ""
    chapter: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    amended: Amendment | None = None
    real: Amendment | str = ""

    @property
    def tested(self) -> bool:
        """Whether a test of it has been written down."""
        return bool(self.statistic)

    def decide(self, table: pd.DataFrame, yes: bool, no: bool, because: str) -> Verdict:
        """Return the verdict of its two conditions: `no` outweighs `yes`, else inconclusive."""
        verdict = NOT_REPRODUCED if no else REPRODUCED if yes else INCONCLUSIVE
        return Verdict(self, verdict, table, because)

    def not_evaluated(self, because: str, table: pd.DataFrame | None = None) -> Verdict:
        """Return that the tables are not enough for the test."""
        return Verdict(self, NOT_EVALUATED, pd.DataFrame() if table is None else table, because)

    def markdown(self) -> str:
        """Return the test as a paragraph of text for a page."""
        words = " ".join(self.words.split())
        if not self.tested:
            return (
                f"**{self.id}. {self.claim}** The paper: “{words}” ({self.where}).\n\n"
                "No test has been written down yet."
            )
        numbers = {k.replace("_", " ").capitalize(): v for k, v in self.numbers.items()}
        lines = [
            f"**{self.id}. {self.claim}** The paper: “{words}” ({self.where}).",
            f"*Statistic.* {self.statistic}",
            *(f"*{name}:* {value:g}." for name, value in numbers.items()),
            f"*Reproduced if:* {self.reproduced}",
            f"*Not reproduced if:* {self.not_reproduced}",
            *([f"*Beside it:* {self.beside_it}"] if self.beside_it else []),
            f"*Known when this was written:* {self.known}",
        ]
        return "\n\n".join(" ".join(line.split()) for line in lines)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a claim's test.

    Attributes
    ----------
    claim : Claim
    verdict : str
        reproduced, not reproduced, inconclusive, not evaluated at these parameters, or, for a claim
        without a test, not tested yet.
    table : DataFrame
        The statistics that decide, one row each.
    because : str
        The rows or numbers that decided, in a sentence.
    """

    claim: Claim
    verdict: str
    table: pd.DataFrame = field(repr=False)
    because: str = ""


def claims(path: str | Path = CLAIMS) -> dict[str, Claim]:
    """Read the claims, by id.

    Examples
    --------
    >>> claims()["C8"].claim
    'PPP forms early in training.'
    """
    listed = yaml_documents.read_yaml(path, "claims")
    result = {}
    try:
        for name, entry in listed.items():
            texts, numbers = _texts_and_numbers(entry)
            tests = {
                kind: _amendment(entry[kind])
                for kind in ("amended", "real")
                if isinstance(entry.get(kind), dict)
            }
            result[name] = Claim(name, numbers=numbers, **tests, **texts)
    except (AttributeError, TypeError) as error:
        raise DocumentError(f"claims {path}: not as expected ({first_words(error)})") from None
    return result


def _texts_and_numbers(entry: Mapping) -> tuple[dict[str, str], dict[str, float]]:
    texts = {k: " ".join(v.split()) for k, v in entry.items() if isinstance(v, str)}
    return texts, {k: v for k, v in entry.items() if isinstance(v, int | float)}


def _amendment(entry: Mapping) -> Amendment:
    texts, numbers = _texts_and_numbers(entry)
    names = [name for name in texts if name.startswith("because")]
    because = {name.replace("because", "delta"): texts.pop(name) for name in names}
    return Amendment(**texts, because=because, numbers=numbers)


def grades(rows: pd.DataFrame, delta: float, *, above: bool = True) -> pd.Series:
    """Grade each row by where its interval lies beside the smallest effect of interest.

    Parameters
    ----------
    rows : DataFrame
        Columns low and high; NaN where the quantity is undefined.
    delta : float
        The smallest effect of interest.
    above : bool
        Whether the claim says that the value lies above it, or below.

    Returns
    -------
    Series of str
        supported, against, underpowered, or not evaluable here.

    Examples
    --------
    >>> rows = pd.DataFrame({"low": [0.6, 0.4, 0.1, np.nan], "high": [0.7, 0.6, 0.2, np.nan]})
    >>> grades(rows, 0.5).tolist()
    ['supported', 'underpowered', 'against', 'not evaluable here']
    """
    higher, lower = rows["low"] > delta, rows["high"] < delta
    conditions = [
        rows[["low", "high"]].isna().any(axis=1),
        *((higher, lower) if above else (lower, higher)),
    ]
    named = np.select(conditions, [NOT_EVALUABLE, SUPPORTED, AGAINST], UNDERPOWERED)
    return pd.Series(named, rows.index)


def rows_beside(
    part: str, table: pd.DataFrame, delta: float, *, above: bool = True, most: float = np.inf
) -> pd.DataFrame:
    """Grade rows: columns row, value, low, high; an interval ends where no value can lie."""
    table = table[["row", "value", "low", "high"]].assign(part=part, delta=delta)
    table["high"] = table["high"].clip(upper=most)
    return table.assign(grade=grades(table, delta, above=above))


def gated(rows: pd.DataFrame, passed: pd.Series) -> pd.DataFrame:
    """Lower the grades of rows that pass the gate in too few layers (`passed`), or in none."""
    layers = rows["row"].map(passed)
    few = (rows["grade"] == SUPPORTED) & (layers < _LAYERS)
    named = rows["grade"].mask(few, UNDERPOWERED).mask(layers == 0, AGAINST)
    return rows.assign(grade=named, passed=layers)


def grade(rows: pd.Series) -> str:
    """Return the grade of a claim from those of its rows.

    Examples
    --------
    >>> grade(pd.Series(["supported", "underpowered"])), grade(pd.Series(["supported", "against"]))
    ('underpowered', 'mixed')
    """
    seen = set(rows) - {NOT_EVALUABLE}
    if not seen:
        return NOT_EVALUABLE
    if {SUPPORTED, AGAINST} <= seen or MIXED in seen:
        return MIXED
    return seen.pop() if len(seen) == 1 else UNDERPOWERED


def claim(name: str) -> Claim:
    """Return one claim.

    Raises
    ------
    ParameterError
        No such claim.

    Examples
    --------
    >>> claim("C8").numbers["threshold"]
    0.25
    """
    known = _shipped()
    if name not in known:
        raise ParameterError(unknown("claim", name, known))
    return known[name]


@cache
def _shipped() -> dict[str, Claim]:
    return claims()
