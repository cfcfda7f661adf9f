"""The claims ledger: every claim's verdict, computed from the shipped tables. [ours]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ppp.errors import ParameterError, PPPError, first_words, unknown
from studies.bhv import analysis as bhv, design as bhv_design
from studies.claims import CLAIMS, NOT_TESTED, Claim, Verdict, claims
from studies.dynamics import analysis as dynamics, design as dynamics_design
from studies.patterns import analysis as patterns, design as patterns_design
from studies.posenet import analysis as posenet, design as posenet_design

DATA = dynamics_design.DATA
"""The folder of the shipped tables."""
FAMILY = "resnet"
"""The family of the zoo whose runs decide; the chapters show the other one too."""


class VerdictChanged(PPPError):
    """A verdict is another one than the ledger's guard against regressions."""


def of_trained(data: Path, *names: str) -> list[pd.DataFrame]:
    """Read tables of the PosENet study, the rows of trained networks."""
    tables = (getattr(posenet_design, name)(data / "posenet") for name in names)
    return [table.query("part == 'trained'") for table in tables]


def _c1(data: Path) -> Verdict:
    return posenet.judge_variance(posenet.scores(*of_trained(data, "trials")))


def _c2(data: Path) -> Verdict:
    return bhv.judge(bhv.levels(bhv_design.accuracies(data / "bhv")))


def _c6(data: Path) -> Verdict:
    accuracies = bhv_design.accuracies(data / "bhv")
    tables = of_trained(data, "trials", "patterns")
    return posenet.judge_reliability(posenet.scores(*tables, accuracies))


def _dynamics(data: Path, name: str) -> Verdict:
    seeds = dynamics_design.SEEDS[FAMILY]
    rows = dynamics_design.trajectories(data)
    rows = dynamics_design.select(rows, FAMILY, dynamics_design.PADDINGS, seeds)
    return dynamics.judge(name, rows)


def _patterns(data: Path, name: str) -> Verdict:
    read = partial(patterns_design.read, data=data / "patterns")
    return patterns.judge(name, patterns.Tables.select(read, FAMILY, "trained"))


JUDGES: dict[str, Callable[[Path], Verdict]] = {
    "C1": _c1,
    "C2": _c2,
    **{name: partial(_patterns, name=name) for name in ("C3", "C4", "C5")},
    "C6": _c6,
    "C7": partial(_patterns, name="C7"),
    **{name: partial(_dynamics, name=name) for name in ("C8", "C9", "C10", "C11")},
}
"""What computes each claim's verdict from a folder of tables."""


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
    return [_judged(known[name], Path(data)) for name in known if not names or name in names]


def _judged(entry: Claim, data: Path) -> Verdict:
    if not entry.tested:
        return Verdict(entry, NOT_TESTED, pd.DataFrame(), "no test has been written")
    try:
        return JUDGES[entry.id](data)
    except PPPError:
        raise
    except Exception as error:  # a table of somebody else's can hold anything
        if data == DATA:
            raise
        raise PPPError(
            f"the tables in {data} cannot decide {entry.id} ({type(error).__name__}: "
            f"{first_words(error)}); expected those of the studies"
        ) from None


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return the ledger, one row per claim.

    Returns
    -------
    DataFrame
        claim (its number), says, verdict, because, chapter (a stem; empty without a test),
        guard (the verdict that the ledger holds against regressions), changed.

    Examples
    --------
    >>> table(judge(["C8"]))["changed"].item()
    False
    """
    rows = pd.DataFrame(
        [
            {
                "claim": verdict.claim.id,
                "says": verdict.claim.claim,
                "verdict": verdict.verdict,
                "because": verdict.because,
                "chapter": verdict.claim.chapter,
                "guard": verdict.claim.guard or NOT_TESTED,
            }
            for verdict in verdicts
        ]
    )
    return rows.assign(changed=rows["verdict"] != rows["guard"])


def require_unchanged(verdicts: Sequence[Verdict]) -> None:
    """Refuse verdicts that differ from the ledger's guard against regressions.

    Raises
    ------
    VerdictChanged
        Names the first, and says what to do.

    Examples
    --------
    >>> require_unchanged(judge(["C8"]))
    """
    rows = table(verdicts)
    for row in rows[rows["changed"]].itertuples():
        raise VerdictChanged(
            f"{row.claim} is {row.verdict!r} now ({row.because}), and was {row.guard!r}; if the "
            "new verdict is right, change `guard` in data/claims.yaml and give the `reason`"
        )
