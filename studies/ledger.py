"""The claims ledger: every claim's verdict, computed from the shipped tables. [ours]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ppp.errors import ParameterError, PPPError, first_words, unknown
from studies import figures
from studies.bhv import analysis as bhv, design as bhv_design
from studies.claims import CLAIMS, NOT_TESTED, Claim, Verdict, claims
from studies.dynamics import analysis as dynamics, design as dynamics_design
from studies.patterns import analysis as patterns, design as patterns_design
from studies.posenet import analysis as posenet, design as posenet_design

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


_FORESTS: dict[str, tuple[list[str], str | None, str, str, float | str | None]] = {
    "C1": (["setting"], "metric", "icc", "intraclass correlation over trials", "threshold"),
    "C3": (["layer"], "scheme", "mean", "correlation of two halves", "threshold"),
    "C4": (["part"], "scheme", "mean", "share, correlation", None),
    "C5": (["part"], "scheme", "mean", "share of cells; its slope per doubling", 0.0),
    "C6": (
        ["other"], "metric", "difference", "difference of the probabilities of contradiction", 0.0
    ),
    "C7": (["scheme"], None, "mean", "correlation of two halves", "threshold"),
    "C8": (["padding"], "metric", "mean", "steps to half of the final value", None),
    "C9": (["padding"], "metric", "mean", "slope of log2(metric) on log2(step)", 0.0),
    "C10": (["padding", "batch_norm"], "metric", "mean", "log2(final / initial)", 0.0),
    "C11": (["padding"], "metric", "mean", "log2(trained / control), part (b)", 0.0),
}  # fmt: skip
"""How a claim's table becomes a figure with a point and its interval for each row: columns of the
label, of the group and of the value, the value's name, and a line at a value or a number of the
claim's."""


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
    names, group, value, xlabel, reference = _FORESTS[verdict.claim.id]
    rows = rows.rename(columns=lambda name: name.removeprefix("strength_"))  # C8
    rows = rows.assign(label=rows[names].astype(str).agg(", ".join, axis=1))
    reference = verdict.claim.numbers.get(reference, reference)
    options = {"group": group, "xlabel": xlabel, "reference": reference}
    return figures.forest(rows, "label", value, "low", "high", **options)


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
