"""The claims ledger: every claim's verdict, computed from the shipped tables. [ours]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ppp.errors import ParameterError, PPPError, first_words, unknown
from studies import figures
from studies.bhv import analysis as confounders, design as bhv_design
from studies.claims import CLAIMS, NOT_TESTED, Verdict, claims
from studies.dynamics import analysis as dynamics, design as zoo
from studies.patterns import analysis as consistency, design as pattern_design
from studies.posenet import analysis as reliability, design as posenet_design

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA = zoo.DATA
"""The folder of the shipped tables."""
FAMILY = "resnet"
"""The family of the zoo whose runs decide; the chapters show the other one too."""


class VerdictChanged(PPPError):
    """A verdict is not the one that the ledger expects."""


def _variance(data: Path) -> Verdict:
    trials = posenet_design.trials(data / "posenet").query("part == 'trained'")
    return reliability.judge_variance(reliability.scores(trials))


def _confounders(data: Path) -> Verdict:
    return confounders.judge(confounders.levels(bhv_design.accuracies(data / "bhv")))


def _reliability(data: Path) -> Verdict:
    trials, patterns = (
        read(data / "posenet").query("part == 'trained'")
        for read in (posenet_design.trials, posenet_design.patterns)
    )
    accuracies = bhv_design.accuracies(data / "bhv")
    return reliability.judge_reliability(reliability.scores(trials, patterns, accuracies))


def _dynamics(data: Path, name: str) -> Verdict:
    rows = zoo.select(zoo.trajectories(data), FAMILY, zoo.PADDINGS, zoo.SEEDS[FAMILY])
    return dynamics.judge(name, rows)


def _consistency(data: Path, name: str) -> Verdict:
    read = partial(pattern_design.read, data=data / "patterns")
    return consistency.judge(name, consistency.Tables.select(read, FAMILY, "trained"))


JUDGES: dict[str, Callable[[Path], Verdict]] = {
    "C1": _variance,
    "C2": _confounders,
    **{name: partial(_consistency, name=name) for name in ("C3", "C4", "C5")},
    "C6": _reliability,
    "C7": partial(_consistency, name="C7"),
    **{name: partial(_dynamics, name=name) for name in ("C8", "C9", "C10", "C11")},
}
"""What computes each claim's verdict from a folder of tables."""


@dataclass(frozen=True)
class _Drawing:
    """How a claim's table becomes a figure: a point with its interval for each row."""

    label: tuple[str, ...]
    group: str | None
    value: str
    xlabel: str
    reference: float | str | None = None  # a value, or the name of one of the claim's numbers
    low: str = "low"
    high: str = "high"


_DRAWINGS = {
    "C1": _Drawing(
        ("setting",), "metric", "icc", "intraclass correlation over trials", "threshold"
    ),
    "C3": _Drawing(("layer",), "scheme", "mean", "correlation of two halves", "threshold"),
    "C4": _Drawing(("part",), "scheme", "mean", "share, correlation"),
    "C5": _Drawing(("part",), "scheme", "mean", "share of cells; its slope per doubling", 0.0),
    "C6": _Drawing(
        ("other",), "metric", "difference", "difference of the probabilities of contradiction", 0.0
    ),
    "C7": _Drawing(("scheme",), None, "mean", "correlation of two halves", "threshold"),
    "C8": _Drawing(
        ("padding",), "metric", "strength_mean", "steps to half of the final value",
        low="strength_low", high="strength_high",
    ),
    "C9": _Drawing(("padding",), "metric", "mean", "slope of log2(metric) on log2(step)", 0.0),
    "C10": _Drawing(("padding", "batch_norm"), "metric", "mean", "log2(final / initial)", 0.0),
    "C11": _Drawing(("padding",), "metric", "mean", "log2(trained / control), part (b)", 0.0),
}  # fmt: skip


def figure(verdict: Verdict) -> Figure | None:
    """Draw the statistics that decide a claim: its verdict's table.

    Returns
    -------
    Figure or None
        None for an empty table.

    Examples
    --------
    >>> figure(judge(["C9"])[0]).ppp_alt.partition(",")[0]
    'slope of log2(metric) on log2(step) with intervals'
    """
    rows = verdict.table
    if not len(rows):
        return None
    if verdict.claim.id == "C2":
        named = ["orders flipped", "uses flipped"]
        texts = rows.set_index("factor")[named]
        counts = texts.map(lambda text: int(text.partition(" ")[0]))
        return figures.heatmap(counts, label="answers that flipped", annotations=texts)
    how = _DRAWINGS[verdict.claim.id]
    label = rows[how.label[0]].astype(str)
    for column in how.label[1:]:
        label = label + ", " + rows[column].astype(str)
    return figures.forest(
        rows.assign(label=label),
        "label",
        how.value,
        how.low,
        how.high,
        group=how.group,
        xlabel=how.xlabel,
        reference=verdict.claim.numbers.get(how.reference, how.reference),
    )


def judge(
    names: Sequence[str] | None = None, data: str | Path = DATA, listed: str | Path = CLAIMS
) -> list[Verdict]:
    """Compute the verdicts of claims from tables.

    Parameters
    ----------
    names : sequence of str, optional
        Such as C8; without them all.
    data : path
        Holds ``posenet/``, ``bhv/``, ``patterns/`` and ``dynamics/``.
    listed : path
        The ledger.

    Returns
    -------
    list of Verdict
        In the ledger's order. A claim without a test is not tested yet.

    Raises
    ------
    ParameterError
        An unknown claim.
    WeightsError
        A table is missing or damaged.

    Examples
    --------
    >>> judge(["C8"])[0].verdict
    'reproduced'
    """
    known = claims(listed)
    for name in names or ():
        if name not in known:
            raise ParameterError(unknown("claim", name, known))
    verdicts = []
    for name, entry in known.items():
        if names and name not in names:
            continue
        if entry.tested:
            verdicts.append(_judged(name, Path(data)))
        else:
            verdicts.append(Verdict(entry, NOT_TESTED, pd.DataFrame(), "no test has been written"))
    return verdicts


def _judged(name: str, data: Path) -> Verdict:
    try:
        return JUDGES[name](data)
    except PPPError:
        raise
    except Exception as error:  # a table of somebody else's can hold anything
        if data == DATA:
            raise
        raise PPPError(
            f"the tables in {data} cannot decide {name} ({type(error).__name__}: "
            f"{first_words(error)}); expected those of the studies"
        ) from None


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the ledger, one row per claim.

    Returns
    -------
    DataFrame
        claim (its number), says, verdict, because, chapter (a stem; empty without a test),
        expected (the verdict that the ledger expects), changed.

    Examples
    --------
    >>> table(judge(["C8"]))["changed"].item()
    False
    """
    rows = [
        {
            "claim": verdict.claim.id,
            "says": verdict.claim.claim,
            "verdict": verdict.verdict,
            "because": verdict.because,
            "chapter": verdict.claim.chapter,
            "expected": verdict.claim.expected or NOT_TESTED,
            "changed": verdict.verdict != (verdict.claim.expected or NOT_TESTED),
        }
        for verdict in verdicts
    ]
    return pd.DataFrame(rows)


def require_expected(verdicts: Sequence[Verdict]) -> None:
    """Refuse verdicts that the ledger does not expect.

    Raises
    ------
    VerdictChanged
        Names the first, and says what to do.

    Examples
    --------
    >>> require_expected(judge(["C8"]))
    """
    rows = table(verdicts)
    for row in rows[rows["changed"]].itertuples():
        raise VerdictChanged(
            f"{row.claim} is {row.verdict!r} now ({row.because}), and {row.expected!r} was "
            "expected; if the new verdict is right, change `expected` in data/claims.yaml and "
            "give the `reason`"
        )
