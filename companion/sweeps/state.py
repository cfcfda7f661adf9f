"""The folder of a sweep: what is wanted of it, what there is, and the one table of all of it.

::

    wanted.json      what all runs have in common; wanted/ID.json a run that is to be done
    keys/DIGEST.json what results depend on whatever the parameters
    runs/ID/         a finished run: its results, run.json, and modules.json: what its network
                     imported of the user's own
    failed/ID.json   why a run failed; logs/ID.log is what it printed
    work/ID/         a run under way, or what one that was broken off can go on from
    table.parquet    the rows of all finished runs
    runs.parquet     a row for every run: factors, state, reason, time, memory, place

Whether a run is up to date is told by contents, and by the size and time of files that are
parameters: each is the one that was noted, or not. Nothing is compared with a clock.
"""

from __future__ import annotations

import contextlib
import json
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
from companion.notebooks import staleness
from companion.sweeps.spec import NUMBERS, Run, Sweep, SweepError, show
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


@dataclass(frozen=True)
class Folder:
    """The folder of a sweep."""

    path: Path

    def run(self, id: str) -> Path:
        return self.path / "runs" / id

    def record(self, id: str) -> Path:
        return self.run(id) / "run.json"

    def failure(self, id: str) -> Path:
        return self.path / "failed" / f"{id}.json"

    def started(self, id: str) -> Path:
        return self.path / "started" / f"{id}.json"

    def work(self, id: str) -> Path:
        return self.path / "work" / id

    def log(self, id: str) -> Path:
        return self.path / "logs" / f"{id}.log"

    def done(self, id: str) -> Path:
        """Return the mark that Snakemake asks for; it is there when the run is up to date."""
        return self.path / "done" / id

    @property
    def common(self) -> Path:
        return self.path / "wanted.json"

    def wanted(self, id: str) -> Path:
        return self.path / "wanted" / f"{id}.json"

    @property
    def table(self) -> Path:
        return self.path / "table.parquet"

    @property
    def runs(self) -> Path:
        return self.path / "runs.parquet"


class Status:
    """A sweep beside its folder: which runs are up to date, and what the others lack."""

    def __init__(self, sweep: Sweep, folder: Folder, root: Path = notebooks.ROOT) -> None:
        self.sweep, self.folder, self.root = sweep, folder, root
        self._given: dict[str, dict[str, str]] = {}
        self._hashes: dict[str, str] = {}

    @cached_property
    def ingredients(self) -> staleness.Key:
        """What every run depends on, whatever its parameters."""
        before = sources_state(self.root, self.sweep.target.sources())
        found = self.sweep.target.ingredients(staleness.Library(self.root))
        if sources_state(self.root, self.sweep.target.sources()) != before:
            raise SweepError("the sources are being changed; give the command again")
        return found

    @cached_property
    def data(self) -> list[str]:
        """Files of data that the runs may read, below the checkout."""
        return sorted(self.ingredients["files"])

    @cached_property
    def sources(self) -> str:
        """Size and time of every source and file of data, at the time of `ingredients`."""
        return sources_state(self.root, [*self.sweep.target.sources(), *self._data_paths()])

    def _data_paths(self) -> list[Path]:
        return [self.root / name for name in self.data]

    @cached_property
    def common(self) -> str:
        return staleness.digest(json.dumps(self.ingredients, sort_keys=True))

    def key(self, run: Run) -> dict[str, Any]:
        """Return what a run depends on: its parameters, files among them, and the common part."""
        target = self.sweep.target
        paths = {name: value for name, value in run.settings.items() if target.place(name)}
        asked = json.dumps(paths)
        if asked not in self._given:
            self._given[asked] = target.given(run.settings)
        return {
            "common": self.common,
            "parameters": staleness.as_parameters(
                {name: value for name, value in run.settings.items() if name not in target.how}
            ),
            "files": self._given[asked],
        }

    @cached_property
    def states(self) -> dict[str, State]:
        """Return the state of every run, by its id."""
        return {run.id: self._state(run) for run in self.sweep.runs}

    @property
    def todo(self) -> list[Run]:
        """Return the runs that are not up to date."""
        return [run for run in self.sweep.runs if self.states[run.id].state != DONE]

    def _state(self, run: Run) -> State:
        record = _record(self.folder.record(run.id))
        state, reason = DONE, ""
        if record is None:
            state = MISSING
        elif record.get("key") != self.key(run):
            state, reason = STALE, "; ".join(self._changes(record, run)[:3])
        elif changed := self._changed_modules(run):
            state, reason = STALE, "; ".join(changed[:3])
        elif damage := self._damage(run, record):
            state, reason, record = MISSING, damage, None
        if state == DONE:
            return State(DONE, "", record)
        if (failure := staleness.load(self.folder.failure(run.id))) is not None:
            return State(FAILED, str(failure.get("reason", "unknown")), failure)
        if (begun := staleness.load(self.folder.started(run.id))) is not None:
            if not begun_here(begun) or living(begun):
                return State(RUNNING, f"on {begun.get('host')}, process {begun.get('pid')}", begun)
            state, reason = MISSING, f"was broken off on {begun.get('host')}"
        return State(state, reason, record or {})

    def _changes(self, record: Mapping[str, Any], run: Run) -> list[str]:
        made = record["key"]
        before = staleness.load(self.folder.path / "keys" / f"{made.get('common')}.json") or {}
        wanted = self.key(run)
        return staleness.changes(
            {**before, "parameters": made.get("parameters", {}), "file": made.get("files", {})},
            {**self.ingredients, "parameters": wanted["parameters"], "file": wanted["files"]},
        )

    def _changed_modules(self, run: Run) -> list[str]:
        """Say which of the modules that a finished run's network imported are others now."""
        found = []
        modules = self.sweep.target.imported(run.settings, self.folder.run(run.id))
        for path, known in modules.items():
            if path not in self._hashes:
                there = Path(path).is_file()
                self._hashes[path] = files.sha256(path) if there else "gone"
            if self._hashes[path] != known:
                how = "gone" if self._hashes[path] == "gone" else "changed"
                found.append(f"module {path}: {how}")
        return found

    def _damage(self, run: Run, record: Mapping[str, Any]) -> str:
        """Say what is wrong with the files of a finished run, or nothing."""
        path = self.folder.run(run.id) / "results" / self.sweep.table
        try:
            found = files.sha256(path)
        except OSError:
            return f"its table {self.sweep.table} is missing"
        known = record["tables"].get(self.sweep.table)
        return "" if found == known else f"{self.sweep.table} was damaged"

    def want(self, todo: Sequence[Run]) -> None:
        """Write down what is to be done, for the jobs to read, and take away its marks."""
        files.write(self.folder.path / "keys" / f"{self.common}.json", _json(self.ingredients))
        target = self.sweep.target
        common = {
            "kind": target.kind,
            "path": str(target.sources()[0]),
            "profile": target.profile,
            "table": self.sweep.table,
            "limits": asdict(self.sweep.limits),
            "common": self.common,
            "data": self.data,
            "sources": self.sources,
        }
        files.write(self.folder.common, _json(common))
        for run in todo:
            for left in (self.folder.done(run.id), self.folder.failure(run.id)):
                left.unlink(missing_ok=True)
            wanted = {"settings": run.settings, "key": self.key(run)}
            files.write(self.folder.wanted(run.id), _json(wanted))

    # ---- tables

    def gather(self, *, stale: bool = False) -> tuple[Path, Path]:
        """Write the table of all finished runs, and the table of the runs; return both.

        Parameters
        ----------
        stale : bool
            Take in also the runs that are out of date; the table of the runs says which.
        """
        about = {b"ppp_sweep": self.sweep.text.encode(), b"ppp_name": self.sweep.name.encode()}
        wanted = (DONE, STALE) if stale else (DONE,)
        read: list[tuple[Run, pa.Table]] = []
        for run in self.sweep.runs:
            if self.states[run.id].state in wanted:
                try:
                    read.append((run, read_rows(self._results(run))))
                except SweepError as error:
                    self.states[run.id] = State(FAILED, str(error), {})
        _write(self.folder.runs, self.run_table().replace_schema_metadata(about))
        if texts := _mixed(rows for _, rows in read):
            read = [(run, read_rows(self._results(run), texts)) for run, _ in read]
        parts = self._with_factors(read)
        rows = pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
        _write(self.folder.table, rows.replace_schema_metadata(about))
        return self.folder.table, self.folder.runs

    def _results(self, run: Run) -> Path:
        return self.folder.run(run.id) / "results" / self.sweep.table

    def _factor(self, name: str, runs: Sequence[Run]) -> pa.Array:
        """Return a factor's value in each run, also where the run leaves it at its default."""
        return _column([_cell(run.settings[name]) for run in runs])

    def _with_factors(self, read: Sequence[tuple[Run, pa.Table]]) -> list[pa.Table]:
        """Put a run's id and factors before its table's own columns."""
        runs = [run for run, _ in read]
        factors = {name: self._factor(name, runs) for name in self.sweep.factors}
        own = {name for _, rows in read for name in rows.column_names}
        renamed = {}
        for name in ("run", *factors):
            fresh = name
            while fresh in own or fresh in factors:
                fresh += "_in_table"
            renamed[name] = fresh
            own.add(fresh)
        parts = []
        for number, (run, rows) in enumerate(read):
            columns = {"run": pa.repeat(pa.scalar(run.id), rows.num_rows)}
            for name, values in factors.items():
                columns[name] = pa.repeat(values[number], rows.num_rows)
            for name in rows.column_names:
                columns[renamed.get(name, name)] = rows[name]
            parts.append(pa.table(columns))
        return parts

    def run_table(self) -> pa.Table:
        """Return a row for every run: factors, state, reason, time, memory, place."""
        runs = self.sweep.runs
        states = [self.states[run.id] for run in runs]
        columns = {"run": pa.array([run.id for run in runs])}
        columns |= {name: self._factor(name, runs) for name in self.sweep.factors}
        columns["state"] = pa.array([one.state for one in states])
        columns["reason"] = pa.array([one.reason for one in states])
        for name, what in {
            "kind": "kind",
            "seconds": "seconds",
            "memory_bytes": "memory",
            "disk_bytes": "disk",
            "host": "host",
            "device": "device",
            "threads": "threads",
        }.items():
            columns[name] = _column([one.record.get(what) for one in states])
        return pa.table(columns)


def _cell(value: Any) -> Any:
    return show(value) if isinstance(value, (list, tuple)) else value


def _column(values: list[Any]) -> pa.Array:
    """Return values as one column: of texts, if they are of several kinds."""
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
    if path.name == NUMBERS:
        return _numbers(path, texts)
    options = pyarrow.csv.ConvertOptions(
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        column_types={name: pa.string() for name in texts},
    )
    try:
        if documents.regular(path, error=SweepError).stat().st_size == 0:
            return pa.table({})
        found = pyarrow.csv.read_csv(path, convert_options=options)
    except pa.ArrowException as error:
        raise SweepError(f"{path.name} is not a table ({str(error).splitlines()[0]})") from None
    twice = [name for name, count in Counter(found.column_names).items() if count > 1]
    if twice:
        raise SweepError(f"{path.name} is not a table (its column {twice[0]!r} stands twice)")
    return found


def _numbers(path: Path, texts: Collection[str]) -> pa.Table:
    from companion.notebooks.numbers import NumbersError, read_numbers

    try:
        values = read_numbers(path.parent)
    except NumbersError as error:
        raise SweepError(f"{path.name} is not a table ({str(error).partition(': ')[2]})") from None
    return pa.table(
        {name: _column([str(one) if name in texts else one]) for name, one in values.items()}
    )


def _mixed(tables: Iterable[pa.Table]) -> set[str]:
    """Name the columns that hold numbers in one table and something else in another."""
    kinds: dict[str, set[str]] = {}
    for table in tables:
        for entry in table.schema:
            if not pa.types.is_null(entry.type):
                number = pa.types.is_integer(entry.type) or pa.types.is_floating(entry.type)
                kinds.setdefault(entry.name, set()).add("number" if number else str(entry.type))
    return {name for name, found in kinds.items() if len(found) > 1}


def _write(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    files.write(path, sink.getvalue().to_pybytes())


# ---- small files


def sources_state(root: Path, others: Sequence[Path]) -> str:
    """Return a digest of size and time of every source, which tells whether one was edited."""
    about = []
    for path in [
        *sorted((root / "ppp").rglob("*.py")),
        *sorted((root / "studies").rglob("*.py")),
        root / "constraints.txt",
        *others,
    ]:
        try:
            found = path.stat()
            about.append((path.name, found.st_size, found.st_mtime_ns))
        except OSError:  # just now being replaced
            about.append((path.name, 0, 0))
    return staleness.digest(json.dumps(about))


def _record(path: Path) -> dict[str, Any] | None:
    """Read the record of a finished run; nothing if it is missing or damaged."""
    found = staleness.load(path)
    parts = [(found or {}).get(name) for name in ("key", "tables")]
    if not all(isinstance(part, dict) for part in parts):
        return None
    inside = [parts[0].get(name) for name in ("parameters", "files")]
    return found if all(isinstance(part, dict) for part in inside) else None


def begun_here(begun: Mapping[str, Any]) -> bool:
    """Tell whether a run was begun on this machine, whose processes can be asked."""
    return begun.get("host") == socket.gethostname()


def living(begun: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process of this machine that performs a run, if it is still there."""
    try:
        process = psutil.Process(int(begun["pid"]))
        there = process.create_time() == begun["born"] and process.status() != psutil.STATUS_ZOMBIE
        return process if there and begun_here(begun) else None
    except (psutil.Error, KeyError, TypeError, ValueError):
        return None


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def load_wanted(folder: Folder, id: str) -> dict[str, Any]:
    """Read what is wanted of a run.

    Raises
    ------
    SweepError
    """
    parts = [staleness.load(path) for path in (folder.common, folder.wanted(id))]
    if None in parts:
        raise SweepError(f"{folder.wanted(id)} cannot be read; give 'ppp sweep run' again")
    return parts[0] | parts[1]
