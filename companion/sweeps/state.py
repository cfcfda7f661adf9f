"""The folder of a sweep: what is wanted of it, what there is, and the one table of all of it.

::

    wanted/ID.json   a run that is to be done; wanted.json what all of them have in common
    runs/ID/         a finished run: its results, and run.json
    failed/ID.json   why a run failed; logs/ID.log is what it printed
    started/ID.json  which process performs a run
    work/ID/         a run under way, or what one that was broken off can go on from
    table.parquet    the rows of all finished runs
    runs.parquet     a row for every run: factors, state, reason, time, memory, place

Whether a run is up to date is told by contents, and by the size and time of files that are
parameters: each is the one that was noted, or not. Nothing is compared with a clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from companion import notebooks
from companion.notebooks import numbers, staleness
from companion.sweeps.spec import NUMBERS, Run, Sweep, SweepError, Target, given, show
from ppp import files
from studies.storage import documents

DONE, STALE, FAILED, MISSING, RUNNING = "done", "stale", "failed", "missing", "running"

OUT = Path("runs", "sweeps")


@dataclass(frozen=True)
class State:
    """What there is of one run.

    Attributes
    ----------
    state : str
        done, stale (something it depends on has changed), failed, running, or missing.
    reason : str
        Why it is not done.
    record : dict
        What its end noted: seconds, memory, host, device.
    """

    state: str
    reason: str
    record: Mapping[str, Any]


class Status:
    """A sweep beside its folder: which runs are up to date, and what the others lack."""

    def __init__(self, sweep: Sweep, folder: Path, root: Path = notebooks.ROOT) -> None:
        self.sweep, self.folder, self.root = sweep, folder, root
        self.table, self.runs = folder / "table.parquet", folder / "runs.parquet"

    def again(self) -> Status:
        """Look once more."""
        return Status(self.sweep, self.folder, self.root)

    @cached_property
    def sources(self) -> tuple[str, staleness.Key]:
        """What every run depends on whatever its parameters, as :func:`tree_state` and in full."""
        target = self.sweep.target
        # In this order: an edit from now on is noticed when a run ends.
        return tree_state(self.root, target), target.ingredients(staleness.Library(self.root))

    @cached_property
    def states(self) -> dict[str, State]:
        """Return the state of every run, by its id."""
        return {run.id: self._state(run) for run in self.sweep.runs}

    @property
    def todo(self) -> list[Run]:
        """Return the runs that are not up to date."""
        return [run for run in self.sweep.runs if self.states[run.id].state != DONE]

    def _state(self, run: Run) -> State:
        record = staleness.load(self.folder / "runs" / run.id / "run.json")
        match record:
            case {"tables": dict(), "key": {"parameters": dict(), "files": dict()}}:
                if changes := self._changes(run, record):
                    state, reason = STALE, "; ".join(changes[:3])
                elif damage := self._damage(run, record):
                    state, reason, record = MISSING, damage, {}
                else:
                    return State(DONE, "", record)
            case _:
                state, reason, record = MISSING, "", {}
        if (failure := staleness.load(self.folder / "failed" / f"{run.id}.json")) is not None:
            return State(FAILED, str(failure.get("reason", "unknown")), failure)
        if (begun := staleness.load(self.folder / "started" / f"{run.id}.json")) is not None:
            where = begun.get("host")
            if where != socket.gethostname() or living(begun):
                return State(RUNNING, f"on {where}, process {begun.get('pid')}", begun)
            state, reason = MISSING, f"was broken off on {where}"
        return State(state, reason, record)

    def _changes(self, run: Run, record: Mapping[str, Any]) -> list[str]:
        """Say what a finished run depends on that is another now."""
        if "common" in record["key"]:
            return ["an earlier version of ppp performed it"]
        wanted = key(self.sweep.target, self.sources[1], run.settings, given(run.settings))
        changes = staleness.changes(record["key"], wanted)
        for path, before in record.get("modules", {}).items():
            now = files.sha256(path) if Path(path).is_file() else "gone"
            if now != before:
                changes.append(f"module {path}: {'gone' if now == 'gone' else 'changed'}")
        return changes

    def _damage(self, run: Run, record: Mapping[str, Any]) -> str:
        """Say what is wrong with the table of a finished run, or nothing."""
        name, path = self.sweep.table, self._results(run)
        if not path.is_file():
            return f"its table {name} is missing"
        return "" if files.sha256(path) == record["tables"].get(name) else f"{name} was damaged"

    def want(self, todo: Sequence[Run]) -> None:
        """Write down what is to be done, for the jobs to read, and take away old marks."""
        sweep, (tree, ingredients) = self.sweep, self.sources
        common = {"source": str(sweep.target.source), "profile": sweep.target.profile}
        common |= {"table": sweep.table, "limits": asdict(sweep.limits)}
        common |= {"tree": tree, "ingredients": ingredients}
        staleness.store(self.folder / "wanted.json", common)
        for run in todo:
            for left in (f"done/run~{run.id}", f"failed/{run.id}.json"):
                (self.folder / left).unlink(missing_ok=True)
            wanted = {"settings": run.settings, "given": given(run.settings)}
            staleness.store(self.folder / "wanted" / f"{run.id}.json", wanted)
        files.write(self.folder / "todo.csv", "\n".join(["run", *(r.id for r in todo)]).encode())

    # ---- tables

    def gather(self, *, stale: bool = False) -> None:
        """Write the table of all finished runs, and the table of the runs.

        Parameters
        ----------
        stale : bool
            Take in also the runs that are out of date; the table of the runs says which.
        """
        tables: dict[int, pa.Table] = {}
        for number, run in enumerate(self.sweep.runs):
            if self.states[run.id].state in ((DONE, STALE) if stale else (DONE,)):
                try:
                    tables[number] = read_rows(self._results(run))
                except SweepError as error:
                    self.states[run.id] = State(FAILED, str(error), {})
        if texts := _mixed(tables.values()):
            tables = {n: read_rows(self._results(self.sweep.runs[n]), texts) for n in tables}
        runs = self.run_table()
        parts = _with_factors(runs.select(["run", *self.sweep.factors]), tables)
        rows = pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
        about = {b"ppp_sweep": self.sweep.text.encode(), b"ppp_name": self.sweep.name.encode()}
        for path, table in ((self.runs, runs), (self.table, rows)):
            sink = pa.BufferOutputStream()
            table = table.replace_schema_metadata(about)
            pyarrow.parquet.write_table(table, sink, compression="zstd")
            files.write(path, sink.getvalue().to_pybytes())

    def _results(self, run: Run) -> Path:
        return self.folder / "runs" / run.id / "results" / self.sweep.table

    def run_table(self) -> pa.Table:
        """Return a row for every run: factors, state, reason, time, memory, place.

        A factor has its value also in a run that leaves it at its default.
        """
        names = {"memory": "memory_bytes", "disk": "disk_bytes"}
        rows = []
        for run in self.sweep.runs:
            state, factors = self.states[run.id], {n: run.settings[n] for n in self.sweep.factors}
            row = {"run": run.id} | factors | {"state": state.state, "reason": state.reason}
            for name in ("kind", "seconds", "memory", "disk", "host", "device", "threads"):
                row[names.get(name, name)] = state.record.get(name)
            rows.append(row)
        return pa.table({name: _column([row[name] for row in rows]) for name in rows[0]})


def _with_factors(factors: pa.Table, tables: Mapping[int, pa.Table]) -> list[pa.Table]:
    """Put a run's id and factors before its table's own columns; one of the same name gives way."""
    taken = {*factors.column_names, *(name for one in tables.values() for name in one.column_names)}
    suffix = "_in_table"
    while any(f"{name}{suffix}" in taken for name in factors.column_names):
        suffix += "_in_table"
    renamed = {name: f"{name}{suffix}" for name in factors.column_names}
    parts = []
    for number, table in tables.items():
        columns = {name: pa.repeat(factors[name][number], len(table)) for name in renamed}
        own = {renamed.get(name, name): table[name] for name in table.column_names}
        parts.append(pa.table(columns | own))
    return parts


def _column(values: list[Any]) -> pa.Array:
    """Return values as one column: of texts, if they are of several kinds."""
    values = [show(value) if isinstance(value, (list, tuple)) else value for value in values]
    if len({type(value) for value in values if value is not None} - {int, float}) <= 1:
        with contextlib.suppress(pa.ArrowException, OverflowError):
            return pa.array(values)
    return pa.array([None if value is None else str(value) for value in values])


def read_rows(path: Path, texts: Collection[str] = ()) -> pa.Table:
    """Read the table that a run left behind: a CSV, or numbers.json as one row.

    Parameters
    ----------
    path : Path
    texts : collection of str
        Columns that are read as texts.

    Raises
    ------
    SweepError
        It is no table, in one line.
    """
    options = pyarrow.csv.ConvertOptions(
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        column_types={name: pa.string() for name in texts},
    )
    try:
        if path.name == NUMBERS:
            values = numbers.read_numbers(path.parent)
            return pa.table({n: _column([str(v) if n in texts else v]) for n, v in values.items()})
        if documents.regular(path, error=SweepError).stat().st_size == 0:
            return pa.table({})
        table = pyarrow.csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, numbers.NumbersError) as error:
        reason = str(error).splitlines()[0].removeprefix(f"{path}: ")
        raise SweepError(f"{path.name} is not a table ({reason})") from None
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise SweepError(f"{path.name} is not a table (its column {twice[0]!r} stands twice)")
    return table


def _mixed(tables: Iterable[pa.Table]) -> set[str]:
    """Name the columns that hold numbers in one table and something else in another."""
    kinds: dict[str, set[str]] = {}
    for entry in (entry for table in tables for entry in table.schema):
        if not pa.types.is_null(entry.type):
            number = pa.types.is_integer(entry.type) or pa.types.is_floating(entry.type)
            kinds.setdefault(entry.name, set()).add("number" if number else str(entry.type))
    return {name for name, known in kinds.items() if len(known) > 1}


# ---- what a run depends on


def key(
    target: Target, ingredients: staleness.Key, settings: Mapping[str, Any], given: dict[str, str]
) -> staleness.Key:
    """Return everything that a run's results depend on, as a chapter's key has it."""
    numeric = {name: value for name, value in settings.items() if name not in target.how}
    files = {"files": ingredients["files"] | given}
    return ingredients | files | {"parameters": staleness.as_parameters(numeric)}


def tree_state(root: Path, target: Target) -> str:
    """Return a digest of size and time of every source and file of data, to notice an edit."""
    paths = {target.source, root / "constraints.txt"}
    for top in ("ppp", "studies", "data"):
        paths |= {path for path in (root / top).rglob("*") if path.suffix != ".pyc"}
    about = []
    for path in sorted(paths):
        with contextlib.suppress(OSError):  # just now being replaced
            if path.is_file():
                about.append((str(path), path.stat().st_size, path.stat().st_mtime_ns))
    return files.digest(json.dumps(about).encode())


# ---- who performs it


def this_process() -> dict[str, Any]:
    """Return what :func:`living` asks for."""
    born = psutil.Process().create_time()
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": born}


def living(begun: Mapping[str, Any]) -> bool:
    """Tell whether the process that performs a run is one of this machine, and still there."""
    with contextlib.suppress(psutil.Error, KeyError, TypeError, ValueError):
        process = psutil.Process(int(begun["pid"]))
        same = (begun["host"], begun["born"]) == (socket.gethostname(), process.create_time())
        return same and process.status() != psutil.STATUS_ZOMBIE
    return False
