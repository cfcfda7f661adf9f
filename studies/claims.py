"""The paper's claims and the tests written for them before their results were seen.

They stand in ``data/claims.yaml``; the statistics are in the `analysis` module of each study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pandas as pd

from ppp.errors import DocumentError, ParameterError, first_words, unknown
from studies import paths
from studies.storage import yaml_documents

CLAIMS = paths.data("claims.yaml")

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
INCONCLUSIVE, NOT_EVALUATED = "inconclusive", "not evaluated at these parameters"
NOT_TESTED = "not tested yet"


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
    expected : str
        The verdict that the shipped tables give; another one fails the tests.
    reason : str
        Why `expected` was changed, if it was.
    chapter : str
        Stem of the notebook that shows it.
    numbers : dict of str to float
        Thresholds and other constants of the test.
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
    expected: str = ""
    reason: str = ""
    chapter: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)

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
            numbers = {k: v for k, v in entry.items() if isinstance(v, int | float)}
            texts = {k: " ".join(v.split()) for k, v in entry.items() if isinstance(v, str)}
            result[name] = Claim(name, numbers=numbers, **texts)
    except (AttributeError, TypeError) as error:
        raise DocumentError(f"claims {path}: not as expected ({first_words(error)})") from None
    return result


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
