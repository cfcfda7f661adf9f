"""The words of a figure's alt text: numbers, counts, and what was drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

Lines = dict[tuple[object, str | None, object], pd.DataFrame]
"""Lines by panel, kind and name, with the columns x, y, low, high and n."""


def described(fig: Figure, head: str, words: Iterable[str]) -> Figure:
    """Give a figure its alt text."""
    fig.ppp_alt = f"{head}. {'; '.join(words)}."  # type: ignore[attr-defined]
    return fig


def number(value: float) -> str:
    """Return a number in three digits, or a whole one in all of its.

    Examples
    --------
    >>> number(2048.0), number(0.12345)
    ('2048', '0.123')
    """
    if np.isnan(value):
        return "undefined"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"


def counted(n: int, noun: str) -> str:
    """Return a count in words.

    Examples
    --------
    >>> counted(1, "row"), counted(2, "row")
    ('1 row', '2 rows')
    """
    return f"{n} {noun}{'s' if n > 1 else ''}"


def spread(values: np.ndarray) -> tuple[float, float, float]:
    """Return least, mean and greatest of the values that are not NaN; NaN if there is none.

    Examples
    --------
    >>> spread(np.array([1.0, np.nan, 3.0]))
    (1.0, 2.0, 3.0)
    """
    known = values[~np.isnan(values)]
    if not known.size:
        return np.nan, np.nan, np.nan
    return float(np.min(known)), float(np.mean(known)), float(np.max(known))


def against(n: int, x: str, y: str, logx: bool) -> str:
    """Return what lines show."""
    return f"{counted(n, 'line')} of {y} against {x}" + " (logarithmic)" * logx


def in_panels(panels: list[object], col: str | None) -> str:
    """Return how many panels there are, if there are several."""
    return f" in {len(panels)} panels ({col})" if len(panels) > 1 else ""


def who(name: object, kind: str | None = None) -> str:
    """Return the name of a line, with its kind."""
    return ("all" if name is None else str(name)) + (f" ({kind})" if kind is not None else "")


def extent(values: pd.Series) -> str:
    """Return the least and the greatest value, once if they are equal."""
    return " to ".join(dict.fromkeys([number(values.min()), number(values.max())]))


def estimate(row: pd.Series, y: str, low: str | None, high: str | None) -> str:
    """Return a value with its interval, if it has one."""
    interval = ""
    if low is not None and high is not None and not np.isnan(row[low] + row[high]):
        interval = f" [{number(row[low])}, {number(row[high])}]"
    return number(row[y]) + interval


def ends(rows: pd.DataFrame, x: str, y: str, low: str | None, high: str | None) -> str:
    """Return the first and the last point of a line."""
    points = [row for _, row in rows.iloc[[0, -1]].iterrows()]
    texts = [f"{estimate(row, y, low, high)} at {number(row[x])}" for row in points]
    return ", ".join(dict.fromkeys(texts))


def repeats(lines: Lines, kind: str | None) -> str:
    """Return the number of units behind the points of one kind of line."""
    return extent(pd.concat([table["n"] for key, table in lines.items() if key[1] == kind]))


def of_lines(lines: Lines) -> list[str]:
    """Describe the lines of :func:`bands`, or only their range where they are many."""
    words = []
    if len(lines) <= 12:
        for (panel, kind, name), table in lines.items():
            name = name if panel is None else f"{panel}, {name}"
            words.append(f"{who(name, kind)}: {ends(table, 'x', 'y', 'low', 'high')}")
        return words
    for panel, kind in dict.fromkeys(key[:2] for key in lines):
        tables = {key[2]: table for key, table in lines.items() if key[:2] == (panel, kind)}
        texts = []
        for end in (0, -1):
            y = pd.Series({name: table["y"].iloc[end] for name, table in tables.items()})
            x = "/".join(dict.fromkeys(number(table["x"].iloc[end]) for table in tables.values()))
            low, high = (f"{number(y[name])} ({name})" for name in (y.idxmin(), y.idxmax()))
            texts.append(f"at {x} {low} to {high}")
        words.append(f"{who(panel, kind)}: {', '.join(dict.fromkeys(texts))}")
    return words


def of_cells(
    means: pd.DataFrame, known: pd.DataFrame, names: Mapping[str, list[object]], label: str
) -> list[str]:
    """Describe the cells of :func:`strips`, or only the range of each hue where they are many."""
    cells = pd.concat([means.assign(kind=""), known.assign(kind=f"{label} ")])
    cells = cells.reindex(columns=["panel", "hue", "x", "y", "low", "high", "n", "kind"])
    cells["text"] = cells["kind"] + [
        estimate(row, "y", "low", "high") + (f" (n {row['n']:.0f})" if row["n"] > 0 else "")
        for _, row in cells.iterrows()
    ]
    texts = cells.groupby(["panel", "hue", "x"])["text"].agg(" and ".join).reset_index()
    words = []
    if len(texts) <= 24:
        for (panel, hue), rows in texts.groupby(["panel", "hue"]):
            line = _together(names["panel"][panel], names["hue"][hue])
            at = [f"{text} at {names['x'][x]}" for x, text in zip(rows["x"], rows["text"])]
            words.append(f"{line}: " * bool(line) + ", ".join(at))
        return words
    for hue, rows in cells.groupby("hue"):
        ranges = []
        for kind, part in rows.groupby("kind"):
            points = [row for _, row in part.sort_values("y").iloc[[0, -1]].iterrows()]
            where = [_together(names["panel"][r["panel"]], names["x"][r["x"]]) for r in points]
            texts = [f"{number(row['y'])} ({place})" for row, place in zip(points, where)]
            ranges.append(kind + " to ".join(dict.fromkeys(texts)))
            if not kind:
                ranges.append(f"n {extent(part['n'])}")
        words.append(f"{who(names['hue'][hue])}: {', '.join(ranges)}")
    return words


def _together(*names: object) -> str:
    return ", ".join(str(name) for name in names if name is not None)
