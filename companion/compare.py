"""A rerun beside the published chapter: what differs, and by more than its interval or not."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Sequence
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
        sources = [path for path in folder.glob("*.ipynb") if not path.stem.endswith(".failed")]
        if len(sources) != 1:
            raise CompareError(
                f"run {str(folder)!r}: {len(sources)} notebooks; expected the one of 'ppp run'"
            )
        source = sources[0]
        return cls(str(folder), notebooks.read(source), folder / "results", source.stem)

    @classmethod
    def published(cls, build: Path, stem: str) -> Run:
        """Read a chapter of a build of the book, such as ``build/standard``."""
        path = build / "notebooks" / f"{stem}.ipynb"
        if not path.is_file():
            raise CompareError(
                f"published chapter {stem}: {path} does not exist; build the book with "
                "'make book', or name another build with --published"
            )
        name = f"published ({build.name})"
        return cls(name, notebooks.read(path), build / "results" / stem, stem)

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
        return {path.stem: _table(path) for path in sorted(self.results.glob("*.csv"))}

    def numbers(self) -> dict[str, Any]:
        """Return the numbers that prose may quote."""
        return read_numbers(self.results)

    def figures(self) -> dict[tuple[str, int], str]:
        """Return its figures as HTML, by cell and place in the cell."""
        figures = {}
        for cell in self.notebook.cells:
            outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
            pages = ["".join(data.get("text/html", "")) for data in outputs]
            for number, html in enumerate(page for page in pages if "ppp-figure" in page):
                figures[cell.get("id", ""), number] = html
        return figures


def _table(path: Path) -> pd.DataFrame:
    content = documents.read_bytes(path, "table", most=None, error=CompareError)
    try:
        return pd.read_csv(io.BytesIO(content))
    except ValueError as error:
        raise CompareError(f"{path}: not a table ({first_words(error)})") from None


@dataclass(frozen=True)
class TableDifference:
    """What is different between two tables, those values first that exceed their intervals."""

    name: str
    says: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    compared: int = 0
    exceeding: int = 0
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
    ends = {name: (f"{name}_low", f"{name}_high") for name in names}
    pairs = {name: pair for name, pair in ends.items() if set(pair) <= set(names)}
    if "low" in names and "high" in names:
        before = names[: min(names.index("low"), names.index("high"))]
        fractions = [name for name in before if frame[name].dtype.kind == "f"]
        pairs |= {name: ("low", "high") for name in fractions[-1:]}
    return pairs


def exceeds(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where two estimates differ by more than their intervals allow.

    Parameters
    ----------
    a, b : array
        Shape (N, 3): an estimate, and the lower and upper end of its interval.

    Returns
    -------
    array of bool
        Whether ``|a - b|`` is larger than the root of the summed squares of the two
        half-widths that face each other [ours]; False where an end is missing.

    Examples
    --------
    >>> exceeds(np.array([[1.0, 0.0, 2.0]]), np.array([[3.0, 2.9, 3.1]]))
    array([ True])
    """
    (a, low_a, high_a), (b, low_b, high_b) = a.T, b.T
    half_a = np.where(b > a, high_a - a, a - low_a)
    half_b = np.where(b > a, b - low_b, high_b - b)
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
        return TableDifference(name, f"{len(a)} rows, identical.")
    aligned = _aligned(a, b)
    if aligned is None:
        says = (
            f"{len(a)} and {len(b)} rows that cannot be matched: no columns of names and counts "
            "tell the rows apart in both, or no row has its like."
        )
        return TableDifference(name, says)
    keys, joined = aligned
    alone = len(a) + len(b) - 2 * len(joined)
    says = f"{len(joined)} rows in both" + (f", {alone} in only one of them" if alone else "")
    columns = {
        column: ends
        for column, ends in intervals(a).items()
        if {column, *ends} <= set(b.columns) and not {column, *ends} & set(keys)
    }
    if not columns:
        both = [(one, f"{one} (2)") for one in a.columns if f"{one} (2)" in joined]
        changed = sum(len(joined[one].compare(joined[other])) for one, other in both)
        says += f"; no column has an interval; values that are not equal: {changed}."
        return TableDifference(name, says)
    rows = sorted(_rows(joined, keys, columns), key=lambda row: row[:2])
    exceeding = sum(not within for within, *_ in rows)
    says += f"; {exceeding} of {len(rows)} differences exceed their intervals."
    return TableDifference(
        name,
        says,
        head=[*keys, "value", "first", "second", "difference", "interval"],
        rows=[texts for *_, texts in rows[:MOST_ROWS]],
        compared=len(rows),
        exceeding=exceeding,
        shown="" if len(rows) <= MOST_ROWS else f", the first {MOST_ROWS} shown",
    )


def _rows(
    joined: pd.DataFrame, keys: list[str], columns: dict[str, tuple[str, str]]
) -> Iterator[tuple[bool, float, list[str]]]:
    """Yield, for each pair of values: within their intervals, minus the distance, and texts."""
    for column, ends in columns.items():
        first, second = (
            joined[[f"{name}{end}" for name in (column, *ends)]].to_numpy(float)
            for end in ("", " (2)")
        )
        beyond = exceeds(first, second)
        for i in np.flatnonzero(np.isfinite(np.hstack([first, second])).all(1)):
            change = second[i, 0] - first[i, 0]
            texts = [str(joined[key].iloc[i]) for key in keys]
            texts += [column, _estimate(*first[i]), _estimate(*second[i]), f"{change:+.3g}"]
            yield not beyond[i], -abs(change), [*texts, "exceeds" if beyond[i] else ""]


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
        if compared:
            values = f"{exceeding} of {compared} values with intervals"
            return f"{values} differ by more than their intervals."
        if self.tables and all("identical" in table.says for table in self.tables):
            return "Every table is identical."
        return "No value with an interval could be compared."

    def html(self) -> str:
        """Return the page that shows it."""
        a, b = self.first.figures(), self.second.figures()
        missing = '<p class="soft">not in this run</p>'
        pairs = [(Markup(a.get(key, missing)), Markup(b.get(key, missing))) for key in a | b]
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
    a, b, none = first.tables(), second.tables(), pd.DataFrame()
    return Comparison(
        first,
        second,
        [values[:3] for values in _different(first.settings, second.settings)],
        [difference(name, a.get(name, none), b.get(name, none)) for name in a | b],
        list(_different(first.numbers(), second.numbers())),
    )


def _different(a: dict[str, Any], b: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield what is not equal: its name, both values, and their difference if they have one."""
    for name in a | b:
        one, other = a.get(name), b.get(name)
        if one != other:
            numeric = {type(one), type(other)} <= {int, float} and math.isfinite(other - one)
            change = f"{other - one:+.3g}" if numeric else ""
            yield name, _shown(one), _shown(other), change


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
