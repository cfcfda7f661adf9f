"""A rerun beside the published chapter: what differs, and by more than its interval or not."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
from markupsafe import Markup

from companion import notebooks
from companion.notebooks.numbers import read_numbers
from companion.templates import TEMPLATES
from ppp.errors import PPPError, first_words
from studies.storage import documents

MOST_ROWS = 200
"""Of a table, how many rows are shown: those that exceed their intervals come first."""


class CompareError(PPPError):
    """Two runs that cannot be put beside each other."""


@dataclass(frozen=True)
class Run:
    """A chapter that was run: its name here, the executed notebook and its results."""

    name: str
    notebook: nbformat.NotebookNode
    results: Path
    stem: str

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a folder that ``ppp run`` wrote.

        Raises
        ------
        CompareError
            No folder, or not one run in it.
        """
        if not folder.is_dir():
            raise CompareError(f"run {str(folder)!r}: no such folder; 'ppp run' writes one")
        found = [path for path in folder.glob("*.ipynb") if not path.stem.endswith(".failed")]
        if len(found) != 1:
            raise CompareError(
                f"run {str(folder)!r}: {len(found)} notebooks; expected the one of 'ppp run'"
            )
        return cls._read(str(folder), found[0], folder / "results")

    @classmethod
    def published(cls, build: Path, stem: str) -> Run:
        """Read a chapter of a build of the book, such as ``build/standard``."""
        path = build / "notebooks" / f"{stem}.ipynb"
        if not path.is_file():
            raise CompareError(
                f"published chapter {stem}: {path} does not exist; build the book with "
                "'make book', or name another build with --published"
            )
        return cls._read(f"published ({build.name})", path, build / "results" / stem)

    @classmethod
    def _read(cls, name: str, path: Path, results: Path) -> Run:
        return cls(name, notebooks.read(path), results, path.stem)

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters it ran with."""
        import ast

        values: dict[str, Any] = {}
        for cell in self.notebook.cells:
            if {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
                for line in ast.parse(cell.source).body:
                    if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                        values[line.targets[0].id] = ast.literal_eval(line.value)
        return {name: value for name, value in values.items() if name != "results"}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return its tables by name."""
        found = {}
        for path in sorted(self.results.glob("*.csv")):
            content = documents.read_bytes(path, "table", most=None, error=CompareError)
            try:
                found[path.stem] = pd.read_csv(io.BytesIO(content))
            except ValueError as error:
                raise CompareError(f"{path}: not a table ({first_words(error)})") from None
        return found

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that prose may quote."""
        return read_numbers(self.results)

    def figures(self) -> dict[tuple[str, int], str]:
        """Return its figures as HTML, by cell and place in the cell."""
        found = {}
        for cell in self.notebook.cells:
            shown = (
                "".join(output.get("data", {}).get("text/html", ""))
                for output in cell.get("outputs", [])
            )
            for number, html in enumerate(one for one in shown if "ppp-figure" in one):
                found[cell.get("id", ""), number] = html
        return found


@dataclass(frozen=True)
class TableDifference:
    """What is different between two tables."""

    name: str
    says: str
    head: list[str]
    rows: list[list[str]]
    compared: int
    exceeding: int
    shown: str = ""


def intervals(frame: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return the columns that have an interval, with the two that hold its ends.

    ``x`` with ``x_low`` and ``x_high``; and where the ends are just ``low`` and ``high``, the
    nearest column of fractions before them.

    Examples
    --------
    >>> intervals(pd.DataFrame({"mae": [0.1], "mae_low": [0.0], "mae_high": [0.2]}))
    {'mae': ('mae_low', 'mae_high')}
    >>> intervals(pd.DataFrame({"n": [1], "error": [0.1], "low": [0.0], "high": [0.2]}))
    {'error': ('low', 'high')}
    """
    names = list(frame.columns)
    found = {
        name: (f"{name}_low", f"{name}_high")
        for name in names
        if f"{name}_low" in names and f"{name}_high" in names
    }
    if "low" in names and "high" in names:
        before = names[: min(names.index("low"), names.index("high"))]
        floats = [name for name in before if frame[name].dtype.kind == "f"]
        if floats:
            found[floats[-1]] = ("low", "high")
    return found


def exceeds(
    a: np.ndarray, b: np.ndarray, ends_a: tuple[Any, Any], ends_b: tuple[Any, Any]
) -> np.ndarray:
    """Return where two estimates differ by more than their intervals allow.

    Parameters
    ----------
    a, b : array
        Shape (N,), estimates.
    ends_a, ends_b : pair of arrays
        Lower and upper ends of their intervals.

    Returns
    -------
    array of bool
        Whether ``|a - b|`` is larger than the root of the summed squares of the two
        half-widths that face each other [ours]; False where an end is missing.

    Examples
    --------
    >>> wide, narrow = (np.array([0.0]), np.array([2.0])), (np.array([2.9]), np.array([3.1]))
    >>> exceeds(np.array([1.0]), np.array([3.0]), wide, narrow)
    array([ True])
    """
    up = b > a
    half_a = np.where(up, ends_a[1] - a, a - ends_a[0])
    half_b = np.where(up, b - ends_b[0], ends_b[1] - b)
    with np.errstate(invalid="ignore"):
        return np.abs(a - b) > np.hypot(half_a, half_b)


def _aligned(a: pd.DataFrame, b: pd.DataFrame) -> tuple[list[str], pd.DataFrame] | None:
    """Join two tables by the columns that tell their rows apart; nothing if none do."""
    shared = [name for name in a.columns if name in b.columns]
    texts = [name for name in shared if a[name].dtype.kind in "OSUb" or a[name].dtype.name == "str"]
    whole = [name for name in shared if a[name].dtype.kind == b[name].dtype.kind == "i"]
    for keys in ([name for name in shared if name in texts or name in whole], texts):
        if keys and not a.duplicated(keys).any() and not b.duplicated(keys).any():
            joined = a.merge(b, on=keys, suffixes=("", " (2)"))
            if len(joined):
                return keys, joined
    return None


def difference(name: str, a: pd.DataFrame, b: pd.DataFrame) -> TableDifference:
    """Compare two tables row by row, where their columns of names and counts agree."""
    if a.equals(b):
        return TableDifference(name, f"{len(a)} rows, identical.", [], [], 0, 0)
    found = _aligned(a, b)
    if found is None:
        says = (
            f"{len(a)} and {len(b)} rows that cannot be matched: no columns of names and counts "
            "tell the rows apart in both, or no row has its like."
        )
        return TableDifference(name, says, [], [], 0, 0)
    keys, joined = found
    having = {
        column: ends
        for column, ends in intervals(a).items()
        if {column, *ends} <= set(b.columns) and not {column, *ends} & set(keys)
    }
    alone = len(a) + len(b) - 2 * len(joined)
    says = f"{len(joined)} rows in both" + (f", {alone} in only one of them" if alone else "")
    if not having:
        changed = _changed(joined, keys)
        says += f"; no column has an interval; values that are not equal: {changed}."
        return TableDifference(name, says, [], [], 0, 0)
    rows, compared = [], 0
    for column, (low, high) in having.items():
        values = [joined[one].to_numpy(float) for one in (column, f"{column} (2)")]
        ends = [
            (joined[f"{low}{end}"].to_numpy(float), joined[f"{high}{end}"].to_numpy(float))
            for end in ("", " (2)")
        ]
        beyond = exceeds(*values, *ends)
        usable = np.isfinite(values).all(0) & np.isfinite(ends).all((0, 1))
        compared += int(usable.sum())
        for i in np.flatnonzero(usable):
            rows.append(
                (
                    not beyond[i],
                    -abs(values[1][i] - values[0][i]),
                    [str(joined[key].iloc[i]) for key in keys]
                    + [column]
                    + [_estimate(values[k][i], ends[k][0][i], ends[k][1][i]) for k in (0, 1)]
                    + [f"{values[1][i] - values[0][i]:+.3g}", "" if not beyond[i] else "exceeds"],
                )
            )
    rows.sort(key=lambda row: row[:2])
    exceeding = sum(not within for within, *_ in rows)
    says += f"; {exceeding} of {compared} differences exceed their intervals."
    head = [*keys, "value", "first", "second", "difference", "interval"]
    shown = "" if len(rows) <= MOST_ROWS else f", the first {MOST_ROWS} shown"
    return TableDifference(
        name, says, head, [row[2] for row in rows[:MOST_ROWS]], compared, exceeding, shown
    )


def _changed(joined: pd.DataFrame, keys: list[str]) -> int:
    pairs = [
        (joined[name], joined[f"{name} (2)"])
        for name in joined.columns
        if f"{name} (2)" in joined.columns
    ]
    return sum(int((~((a == b) | (a.isna() & b.isna()))).sum()) for a, b in pairs)


def _estimate(value: float, low: float, high: float) -> str:
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


@dataclass(frozen=True)
class Comparison:
    """Two runs of one chapter, compared."""

    first: Run
    second: Run
    settings: list[tuple[str, str, str]]
    tables: list[TableDifference]
    numbers: list[tuple[str, str, str, str]]

    @property
    def verdict(self) -> str:
        """How many differences exceed their intervals, in a sentence."""
        compared = sum(table.compared for table in self.tables)
        exceeding = sum(table.exceeding for table in self.tables)
        if not compared:
            same = all("identical" in table.says for table in self.tables)
            return (
                "Every table is identical."
                if same and self.tables
                else ("No value with an interval could be compared.")
            )
        return (
            f"{exceeding} of {compared} values with intervals differ by more than their intervals."
        )

    def html(self) -> str:
        """Return the page that shows it."""
        a, b = self.first.figures(), self.second.figures()
        missing = Markup('<p class="soft">not in this run</p>')
        pairs = [
            (Markup(a[key]) if key in a else missing, Markup(b[key]) if key in b else missing)
            for key in [*a, *(key for key in b if key not in a)]
        ]
        title = self.first.notebook.cells[0].source.splitlines()[0].lstrip("# ")
        return TEMPLATES.get_template("compare.html.j2").render(
            title=title,
            names=(self.first.name, self.second.name),
            settings=self.settings,
            verdict=self.verdict,
            tables=self.tables,
            numbers=self.numbers,
            figures=pairs,
        )


def compare(first: Run, second: Run) -> Comparison:
    """Put two runs of one chapter beside each other.

    Raises
    ------
    CompareError
        They are runs of different chapters.
    """
    if first.stem != second.stem:
        raise CompareError(
            f"{first.name} is a run of {first.stem}, {second.name} of {second.stem}; "
            "expected two runs of one chapter"
        )
    return Comparison(
        first,
        second,
        list(_pairs(first.settings, second.settings)),
        [difference(name, *both) for name, both in _both(first.tables(), second.tables())],
        [
            (name, a, b, _minus(first.numbers().get(name), second.numbers().get(name)))
            for name, a, b in _pairs(first.numbers(), second.numbers())
        ],
    )


def _both(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in [*a, *(name for name in b if name not in a)]:
        empty = pd.DataFrame()
        yield name, (a.get(name, empty), b.get(name, empty))


def _pairs(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name in [*a, *(name for name in b if name not in a)]:
        if a.get(name) != b.get(name):
            yield name, _shown(a.get(name)), _shown(b.get(name))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _minus(a: Any, b: Any) -> str:
    numeric = (int, float)
    if type(a) in numeric and type(b) in numeric and math.isfinite(b - a):
        return f"{b - a:+.3g}"
    return ""
