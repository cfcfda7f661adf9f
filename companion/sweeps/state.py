"""The folder of a sweep: what is wanted of it, what there is, and the one table of all of it.

::

    wanted.json      every run that the file asks for, with what its results depend on
    keys/DIGEST.json what they depend on whatever the parameters
    runs/ID/         a finished run: its results, and run.json
    failed/ID.json   why a run failed; logs/ID.log is what it printed
    work/ID/         a run under way, or what one that was broken off can go on from
    table.parquet    the rows of all finished runs
    runs.parquet     a row for every run: factors, state, reason, time, memory, place

Whether a run is up to date is told by contents alone. No time of a file and no clock is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from companion import notebooks, staleness
from companion.sweeps.spec import NUMBERS, Run, Sweep, SweepError, show
from ppp import files

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
    def wanted(self) -> Path:
        return self.path / "wanted.json"

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

    @cached_property
    def ingredients(self) -> staleness.Key:
        """What every run depends on, whatever its parameters."""
        return self.sweep.target.ingredients(staleness.Library(self.root))

    @cached_property
    def common(self) -> str:
        return staleness.digest(json.dumps(self.ingredients, sort_keys=True))

    def key(self, run: Run) -> dict[str, Any]:
        """Return what a run depends on: its parameters, files among them, and the common part."""
        paths = {
            name: value for name, value in run.settings.items() if self.sweep.target.is_path(name)
        }
        asked = json.dumps(paths)
        if asked not in self._given:
            self._given[asked] = self.sweep.target.given(run.settings)
        return {
            "common": self.common,
            "parameters": staleness.as_parameters(run.settings),
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
        record = staleness.load(self.folder.record(run.id))
        state, reason = DONE, ""
        if record is None:
            state = MISSING
        elif record.get("key") != self.key(run):
            state, reason = STALE, "; ".join(self._changes(record, run)[:3])
        elif damage := self._damage(run, record):
            state, reason, record = MISSING, damage, None
        if state == DONE:
            return State(DONE, "", record)
        if (failure := staleness.load(self.folder.failure(run.id))) is not None:
            return State(FAILED, str(failure.get("reason", "unknown")), failure)
        if (begun := staleness.load(self.folder.started(run.id))) is not None:
            return State(RUNNING, f"on {begun.get('host')}, process {begun.get('pid')}", begun)
        return State(state, reason, record or {})

    def _changes(self, record: Mapping[str, Any], run: Run) -> list[str]:
        made = record.get("key")
        if not isinstance(made, dict):
            return ["its record is damaged"]
        before = staleness.load(self.folder.path / "keys" / f"{made.get('common')}.json") or {}
        wanted = self.key(run)
        return staleness.changes(
            {**before, "parameters": made.get("parameters", {}), "file": made.get("files", {})},
            {**self.ingredients, "parameters": wanted["parameters"], "file": wanted["files"]},
        )

    def _damage(self, run: Run, record: Mapping[str, Any]) -> str:
        """Say what is wrong with the files of a finished run, or nothing."""
        path = self.folder.run(run.id) / "results" / self.sweep.table
        try:
            found = sha256(path)
        except OSError:
            return f"its table {self.sweep.table} is missing"
        tables = record.get("tables", {})
        if self.sweep.table not in tables:
            return f"its record does not know {self.sweep.table}"
        return "" if found == tables[self.sweep.table] else f"{self.sweep.table} was damaged"

    def want(self) -> None:
        """Write what is wanted, for the jobs to read, and take away the marks of what is not up
        to date."""
        files.write(self.folder.path / "keys" / f"{self.common}.json", _json(self.ingredients))
        target = self.sweep.target
        todo = {run.id for run in self.todo}
        for run in self.sweep.runs:
            mark = self.folder.done(run.id)
            if run.id in todo:
                for left in (mark, self.folder.failure(run.id), self.folder.started(run.id)):
                    left.unlink(missing_ok=True)
            else:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
        wanted = {
            "kind": target.kind,
            "path": str(target.sources()[0]),
            "profile": target.profile,
            "table": self.sweep.table,
            "limits": asdict(self.sweep.limits),
            "sources": sources_state(self.root, target.sources()),
            "runs": {
                run.id: {"says": str(run), "settings": run.settings, "key": self.key(run)}
                for run in self.sweep.runs
            },
        }
        files.write(self.folder.wanted, _json(wanted))

    # ---- tables

    def gather(self, *, stale: bool = False) -> tuple[Path, Path]:
        """Write the table of all finished runs, and the table of the runs; return both.

        Parameters
        ----------
        stale : bool
            Take in also the runs that are out of date; the table of the runs says which.

        Raises
        ------
        SweepError
            Two runs' tables do not fit together.
        """
        about = {b"ppp_sweep": self.sweep.text.encode(), b"ppp_name": self.sweep.name.encode()}
        parts, names = [], []
        for run in self.sweep.runs:
            if self.states[run.id].state in ((DONE, STALE) if stale else (DONE,)):
                parts.append(self._rows(run))
                names.append(run)
        if parts:
            _check_columns(parts, names)
        rows = pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
        _write(self.folder.table, rows.replace_schema_metadata(about))
        _write(self.folder.runs, self.run_table().replace_schema_metadata(about))
        return self.folder.table, self.folder.runs

    def _rows(self, run: Run) -> pa.Table:
        """Return a run's table, with its id and its factors before the table's own columns."""
        path = self.folder.run(run.id) / "results" / self.sweep.table
        read = _numbers(path) if self.sweep.table == NUMBERS else _csv(path)
        columns = {"run": run.id} | {
            name: show(value) if isinstance(value, (list, tuple)) else value
            for name, value in run.factors.items()
        }
        count = read.num_rows
        found = {
            name: pa.repeat(pa.scalar(value), count) if value is not None else pa.nulls(count)
            for name, value in columns.items()
        }
        for name in read.column_names:
            found[f"{name}_in_table" if name in columns else name] = read[name]
        return pa.table(found)

    def run_table(self) -> pa.Table:
        """Return a row for every run: factors, state, reason, time, memory, place."""
        rows = []
        for run in self.sweep.runs:
            state = self.states[run.id]
            record = state.record
            rows.append(
                {"run": run.id}
                | {
                    name: None if name not in run.factors else _cell(run.factors[name])
                    for name in self.sweep.factors
                }
                | {
                    "state": state.state,
                    "reason": state.reason,
                    "kind": record.get("kind", ""),
                    "seconds": record.get("seconds"),
                    "memory_bytes": record.get("memory"),
                    "disk_bytes": record.get("disk"),
                    "host": record.get("host"),
                    "device": record.get("device"),
                    "threads": record.get("threads"),
                }
            )
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return pa.table({name: _column(values) for name, values in columns.items()})


def _cell(value: Any) -> Any:
    return show(value) if isinstance(value, (list, tuple)) else value


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([None if value is None else str(value) for value in values])


def _check_columns(parts: list[pa.Table], runs: list[Run]) -> None:
    """Refuse columns that hold texts in one run and numbers in another, by name."""
    seen: dict[str, tuple[bool, Run]] = {}
    for part, run in zip(parts, runs):
        for entry in part.schema:
            if pa.types.is_null(entry.type):
                continue
            is_text = pa.types.is_string(entry.type) or pa.types.is_large_string(entry.type)
            first = seen.setdefault(entry.name, (is_text, run))
            if first[0] != is_text:
                raise SweepError(
                    f"column {entry.name!r} holds texts in one run and numbers in another: "
                    f"({first[1]}) and ({run}); give another 'table'"
                )


def _csv(path: Path) -> pa.Table:
    options = pyarrow.csv.ConvertOptions(
        null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    try:
        return pyarrow.csv.read_csv(path, convert_options=options)
    except pa.ArrowInvalid as error:
        if path.stat().st_size == 0:
            return pa.table({})
        raise SweepError(f"{path}: not a table ({str(error).splitlines()[0]})") from None


def _numbers(path: Path) -> pa.Table:
    from companion.book import read_numbers

    return pa.table({name: [value] for name, value in read_numbers(path.parent).items()})


def _write(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    files.write(path, sink.getvalue().to_pybytes())


def read_table(path: Path) -> pa.Table:
    """Read a table of a sweep.

    Raises
    ------
    SweepError
        It is missing or damaged.
    """
    try:
        return pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise SweepError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


# ---- small files


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources_state(root: Path, others: list[Path]) -> str:
    """Return a digest of size and time of every source, which tells whether one was edited."""
    paths = [*sorted((root / "ppp").rglob("*.py")), root / "constraints.txt", *others]
    about = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return staleness.digest(json.dumps(about))


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def load_wanted(folder: Folder) -> dict[str, Any]:
    """Read what is wanted of a folder.

    Raises
    ------
    SweepError
    """
    found = staleness.load(folder.wanted)
    if found is None or "runs" not in found:
        raise SweepError(f"{folder.wanted} cannot be read; give 'ppp sweep run' again")
    return found
