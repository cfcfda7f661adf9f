"""The tables of a sweep: every run's rows, every run's end, and figures by factor. [ours]

A *sweep* runs one notebook, or ``ppp measure``, over many values of its parameters. The parameters
that it varies are its *factors*, the values of one its *levels*. ``ppp sweep run`` writes
``table.parquet``, the rows of all finished runs, and ``runs.parquet``, a row for each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from ppp.errors import DocumentError, PPPError, first_words, unknown
from studies import figures, paths
from studies.padding.surroundings import mean_interval
from studies.storage import documents, yaml_documents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHIPPED = paths.data("sweeps", "window-size")

ABOUT_A_RUN = (
    *("state", "reason", "kind", "seconds", "memory_bytes", "disk_bytes"),
    *("host", "device", "threads"),
)
"""Columns of ``runs.parquet`` that are no factor."""

REPETITIONS = ("seed", "seeds")
"""Factors that repeat a run: intervals are over them."""


@dataclass(frozen=True)
class SweepTables:
    """What a sweep left behind.

    Attributes
    ----------
    name : str
    spec : str
        Its file, as it was.
    table : DataFrame
        Rows of all finished runs: ``run``, the factors, then the columns of the run's own table.
    runs : DataFrame
        A row for each run: ``run``, the factors, then :data:`ABOUT_A_RUN`.
    """

    name: str
    spec: str
    table: pd.DataFrame
    runs: pd.DataFrame

    @property
    def factors(self) -> list[str]:
        """Return the names of the factors, repetitions last."""
        names = [name for name in self.runs if name not in ("run", *ABOUT_A_RUN)]
        return sorted(names, key=lambda name: name in REPETITIONS)

    @property
    def seeds(self) -> list:
        """Return the seeds of the runs; none if the sweep does not vary them."""
        found = [self.runs[name] for name in REPETITIONS if name in self.runs]
        return sorted(found[0].dropna().unique().tolist()) if found else []

    def states(self) -> pd.DataFrame:
        """Count runs and add up time, by state.

        Returns
        -------
        DataFrame
            state, runs, hours (of all of them together), longest (s), memory (largest, MiB).
        """
        groups = self.runs.groupby("state", sort=False)
        states = pd.DataFrame({"runs": groups.size(), "hours": groups["seconds"].sum() / 3600})
        states["longest"] = groups["seconds"].max()
        states["memory"] = groups["memory_bytes"].max() / 2**20
        return states.reset_index()

    def failures(self) -> pd.DataFrame:
        """Count the reasons why runs are not done, each with one run that shows it.

        Returns
        -------
        DataFrame
            state, reason, runs, and the factors of the first such run.
        """
        left = self.runs[self.runs["state"] != "done"]
        groups = left.groupby(["state", "reason"], sort=False)
        first = groups.first()[self.factors].apply(_said, axis=1).rename("such as")
        return pd.concat([groups.size().rename("runs"), first], axis=1).reset_index()

    def by_factor(
        self, y: str, x: str, color: str | None = None, *, log: str = "", **labels: str
    ) -> Figure:
        """Draw a column of the table over the levels of one factor.

        Each pale point or line is the mean of one run's rows; what is drawn strongly is the mean
        over runs with Student's 95 % interval. Runs differ in all factors but `x` and `color`.

        Parameters
        ----------
        y : str
            Column with numbers.
        x : str
            Factor, or another column.
        color : str, optional
            Factor or column that tells lines apart.
        log : str
            Logarithmic axes: "x", "y" or "xy".
        **labels : str
            xlabel, ylabel: axis labels with units; the column names without them.

        Raises
        ------
        PPPError
            No run is finished, an unknown column, or one without numbers.

        Examples
        --------
        >>> load().by_factor("mae", "window", "layer").ppp_alt.partition(" of ")[0]
        '5 lines'
        """
        rows, unit = self._means(y, x, color)
        labels = {"xlabel": x, "ylabel": y} | labels
        if pd.api.types.is_numeric_dtype(rows[x]) and rows[x].nunique() > 2:
            rows["all"] = "all"
            scales = {"logx": "x" in log, "logy": "y" in log}
            return figures.bands(rows, x, y, color or "all", unit=unit, **scales, **labels)
        rows[x] = rows[x].astype(str)
        return figures.trials(rows, x, y, color, unit=unit, **labels)

    def slopes(self, y: str, x: str, color: str | None = None) -> pd.DataFrame:
        """Fit y as a power of x: the slope of log y over log x.

        One line is fitted to each combination of the factors other than `x`; the mean of their
        slopes comes with Student's 95 % interval over the combinations.

        Returns
        -------
        DataFrame
            `color` (if any), slope, low, high, n (number of combinations).

        Raises
        ------
        PPPError
            As :meth:`by_factor`; or a value at or below 0, which has no logarithm.

        Examples
        --------
        >>> load().slopes("mae", "window", "layer").columns.tolist()
        ['layer', 'slope', 'low', 'high', 'n']
        """
        rows, unit = self._means(y, x, color)
        for name in (x, y):
            if not pd.api.types.is_numeric_dtype(rows[name]) or (rows[name] <= 0).any():
                raise PPPError(f"slopes: {name!r} has values that are no numbers above 0")
        keys = [color] if color else []
        fits = rows.groupby([*keys, unit], sort=False).apply(_slope, x=x, y=y).rename("slope")
        fits = fits.dropna().reset_index()
        fits["all"] = "all"
        means = mean_interval(fits, keys or ["all"], "slope")
        return means[[*keys, "slope", "low", "high", "n"]]

    def _means(self, y: str, x: str, color: str | None) -> tuple[pd.DataFrame, str]:
        """Average each run's rows at a level of `x` and `color`; name what tells runs apart."""
        if self.table.empty:
            raise PPPError(f"sweep {self.name!r}: no run is finished, so that there is no figure")
        for name in filter(None, (y, x, color)):
            if name not in self.table:
                raise PPPError(f"figure: {unknown('column', name, self.table)}")
        if y in (x, color) or "run" in (x, y, color):
            raise PPPError(f"figure: y {y!r} over x {x!r}: expected a column over another factor")
        if not pd.api.types.is_numeric_dtype(self.table[y]):
            raise PPPError(f"figure: column {y!r} holds no numbers; expected one that does")
        keys = list(dict.fromkeys(filter(None, (x, color))))
        rows = self.table.groupby(["run", *keys], sort=False, dropna=False)[y].mean().reset_index()
        others = [name for name in self.factors if name not in keys]
        unit = ", ".join(others) or "run"
        unit += " (levels)" if unit in (y, *keys) else ""
        if others:
            about = self.table.drop_duplicates("run").set_index("run")[others]
            rows[unit] = about.loc[rows["run"]].apply(_said, axis=1).to_numpy()
        else:
            rows[unit] = rows["run"]
        return rows, unit


def _slope(rows: pd.DataFrame, x: str, y: str) -> float:
    enough = rows[x].nunique() > 1
    return float(np.polyfit(np.log(rows[x]), np.log(rows[y]), 1)[0]) if enough else float("nan")


def _said(levels: pd.Series) -> str:
    return ", ".join(f"{name} {value}" for name, value in levels.items())


def wanted_figures(tables: SweepTables) -> list[dict[str, str]]:
    """Return what is to be drawn: every y over its x, or over each factor that repeats nothing.

    Examples
    --------
    >>> [(one["y"], one["x"]) for one in wanted_figures(load())]
    [('mae', 'window'), ('mae', 'network')]
    """
    what = f"sweep {tables.name!r}"
    spec = yaml_documents.parse_yaml(tables.spec, what, loader=yaml_documents.Texts)
    asked = spec.get("figures", []) if isinstance(spec, dict) else []
    over = [name for name in tables.factors if name not in REPETITIONS] or tables.factors
    return [
        one | {"x": x}
        for one in asked
        if isinstance(one, dict) and "y" in one
        for x in ([one["x"]] if "x" in one else over)
    ]


def load(folder: str | Path = "") -> SweepTables:
    """Read what a sweep left in its folder.

    Parameters
    ----------
    folder : path
        Of ``ppp sweep run``; empty for the shipped sweep.

    Raises
    ------
    PPPError
        A table is missing or damaged.

    Examples
    --------
    >>> load().factors
    ['network', 'window', 'seed']
    """
    folder = documents.as_path(folder, "folder") if folder else SHIPPED
    runs, about = _read(folder / "runs.parquet", ["run", *ABOUT_A_RUN])
    table, _ = _read(folder / "table.parquet", [])
    name, spec = about.get("ppp_name", folder.name), about.get("ppp_sweep", "")
    return SweepTables(name, spec, table, runs)


def _read(path: Path, columns: Sequence[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Read a table that must have some columns, and what is written beside it."""
    try:
        table = pyarrow.parquet.read_table(documents.regular(path))
        if lacking := [name for name in columns if name not in table.column_names]:
            raise DocumentError(f"it has no column {lacking[0]!r}")
        metadata = table.schema.metadata or {}
        about = {key.decode(): text.decode() for key, text in metadata.items()}
        return table.to_pandas(), about
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = first_words(error).removeprefix(f"{path} cannot be read: ")
        raise PPPError(
            f"{path} cannot be read ({reason}); give the folder that 'ppp sweep run' wrote, or run "
            "'ppp sweep table'"
        ) from None
