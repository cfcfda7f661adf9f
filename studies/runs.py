"""Studies of many independent runs: each keeps a folder of its own, all become shipped tables."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from ppp.errors import ParameterError, PPPError, WeightsError, unknown
from ppp.files import sha256
from studies import jobs as pool
from studies.parameters import check_whole
from studies.storage import documents, outputs, tables as files

_RECORD = "record.json"


@dataclass(frozen=True, order=True)
class Run:
    """Settings of one run, a field each: its first columns in every table.

    Examples
    --------
    >>> from studies.bhv.design import Training
    >>> Training("published", "V", 0).stem
    'published-V-seed0'
    """

    @property
    def stem(self) -> str:
        """Name of its folder."""
        values = {name: str(value) for name, value in asdict(self).items()}
        return "-".join(
            f"seed{value}" if name == "seed" else value for name, value in values.items()
        )


@dataclass(frozen=True)
class Study:
    """Many runs of one kind: which there are, what each computes, and where that goes.

    Attributes
    ----------
    name : str
        As in ``ppp study NAME``: folders and tables are known as that command's.
    run : type
        Of the runs, a subclass of :class:`Run`.
    design : callable
        Returns all runs, in the order of the tables. The values that they have are those that a
        selection may name.
    compute : callable
        Of a module. Takes a run and returns its tables by name, and files (bytes) by theirs.
    tables : mapping of str to str
        Name of a table in a run's folder, and the file that takes all runs' rows.
    digits : mapping of str to int
        Digits that are shipped, where not 7.
    largest_seed : int
        Up to which a run may have a seed that is not of the design; by default none may.

    Examples
    --------
    >>> from studies.bhv.design import STUDY
    >>> STUDY.command, STUDY.key
    ('ppp study bhv', ('condition', 'variant', 'seed'))
    """

    name: str
    run: type[Run]
    design: Callable[[], Iterable[Run]]
    compute: Callable[[Any], Mapping[str, pd.DataFrame | bytes]]
    tables: Mapping[str, str]
    digits: Mapping[str, int] = field(default_factory=dict)
    largest_seed: int = 0

    @property
    def command(self) -> str:
        """What performs it."""
        return f"ppp study {self.name}"

    @property
    def key(self) -> tuple[str, ...]:
        """Names of a run's settings: the first columns of every table."""
        return tuple(item.name for item in fields(self.run))

    def runs(self, **selection: Iterable[Any] | None) -> list[Any]:
        """List the runs of the design, or those that have some of its values.

        Parameters
        ----------
        **selection : iterables
            Values of a setting, or names of folders as ``stem``; all where None.

        Raises
        ------
        ParameterError
            An unknown value, or nothing left.

        Examples
        --------
        >>> from studies.bhv.design import STUDY
        >>> STUDY.runs(condition=["published"], variant=["V"], seed=[0])
        [Training(condition='published', variant='V', seed=0)]
        """
        runs = design = list(self.design())
        chosen = {name: [*values] for name, values in selection.items() if values is not None}
        for name, values in chosen.items():
            known = dict.fromkeys(getattr(run, name) for run in design)
            for value in values:
                if name == "seed":
                    check_whole(name, value, 0, self.largest_seed or max(known))
                elif value not in known:
                    raise ParameterError(unknown("run" if name == "stem" else name, value, known))
            if name == "seed" and self.largest_seed:
                runs = dict.fromkeys(replace(run, seed=seed) for run in runs for seed in values)
            runs = [run for run in runs if getattr(run, name) in values]
        if not runs:
            raise ParameterError(f"no run of the study has this {' and '.join(chosen)}")
        return runs

    def seconds(self, run: Any, folder: str | Path) -> float | None:
        """Return how long a finished run took, or None if it is not finished."""
        place = Path(folder) / run.stem
        return self._record(place)["seconds"] if (place / _RECORD).exists() else None

    def keep(
        self,
        run: Any,
        folder: str | Path,
        results: Mapping[str, pd.DataFrame | bytes],
        seconds: float,
    ) -> None:
        """Write a finished run; its record comes last, and makes it count as finished."""
        place, head, digests = Path(folder) / run.stem, asdict(run), {}
        place.mkdir(parents=True, exist_ok=True)
        for name, result in results.items():
            if isinstance(result, bytes):
                files.write(place / name, result)
                continue
            path = place / f"{name}.csv"
            files.write_table(path, headed(head, {name: result})[name], digits=None)
            digests[name] = sha256(path)
        facts = head | {"seconds": round(seconds, 1)} | versions() | {"tables": digests}
        files.write(place / _RECORD, (json.dumps(facts, indent=1) + "\n").encode())

    def read(self, run: Any, folder: str | Path, name: str) -> pd.DataFrame:
        """Read a table of a finished run.

        Raises
        ------
        PPPError
            It is missing, or is not what the run wrote.
        """
        place = Path(folder) / run.stem
        known = self._record(place).get("tables", {})  # the first runs have none
        return files.read_table(place / f"{name}.csv", columns=self.key, sha256=known.get(name, ""))

    def perform_one(self, run: Any, folder: str | Path) -> str:
        """Perform a run in its own folder, unless it is finished; return how it went."""
        if (seconds := self.seconds(run, folder)) is None:
            began = perf_counter()
            results = self.compute(run)
            seconds = perf_counter() - began
            self.keep(run, folder, results, seconds)
        return f"{seconds:.0f} s"

    def perform(
        self, runs: Sequence[Any], folder: str | Path, *, jobs: int = 1, threads: int = 1
    ) -> None:
        """Perform the runs that are not finished.

        Parameters
        ----------
        runs : sequence
        folder : path
            Takes one folder per run.
        jobs : int
            Runs at the same time.
        threads : int
            Of each. The results depend on it; the shipped ones come from 1.

        Raises
        ------
        PPPError
            A run failed; the others went on, and those that had finished are kept.
        """
        results = pool.run(partial(_attempt, self, folder), runs, jobs=jobs, threads=threads)
        failures = []
        with (
            outputs.working(folder, self.command, "give another --out"),
            contextlib.closing(results),
        ):
            for _, (done, line) in tqdm(results, "runs", len(runs), unit="run"):
                tqdm.write(line if done else f"failed: {line}")
                if not done:
                    failures.append(line)
        if failures:
            raise PPPError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")

    def collect(self, folder: str | Path, data: str | Path, runs: Sequence[Any]) -> None:
        """Gather finished runs into the tables that are shipped, and ``runs.csv``.

        Parameters
        ----------
        folder : path
            Holds one folder per run.
        data : path
            Takes the tables. Those that are there are replaced, if they hold no other runs.
        runs : sequence
            Runs that must be there.

        Raises
        ------
        PPPError
            A run is not finished or cannot be read, or the tables that are there hold others;
            nothing is written then.
        """
        self.check(data, runs)
        folder, data = Path(folder), Path(data)
        missing = [run for run in runs if self.seconds(run, folder) is None]
        if missing:
            raise PPPError(
                f"{len(missing)} of {len(runs)} runs are not finished in {folder}, the first: "
                f"{missing[0].stem}; train them first"
            )
        contents = {}
        for name, file in self.tables.items():
            table = joined(self.read(run, folder, name) for run in runs)
            contents[file] = files.packed(file, table, digits=self.digits.get(name, 7))
        records = pd.DataFrame(self._record(folder / run.stem) for run in runs)
        records = records.drop(columns="tables", errors="ignore")
        contents["runs.csv"] = files.packed("runs.csv", records)
        outputs.update(data, contents, self.command)

    def check(self, data: str | Path, runs: Sequence[Any]) -> None:
        """Refuse to replace tables that hold runs other than these.

        Raises
        ------
        PPPError
            Names one of them, or a file that the study did not write.
        """
        path = Path(data) / "runs.csv"
        if path.is_file():
            table = files.read_table(path)
            if not {*self.key} <= {*table.columns} or table[[*self.key]].isna().any(axis=None):
                raise PPPError(f"{path} is no list of runs; give another folder")
            rows = table[[*self.key]].itertuples(index=False)
            if others := {self.run(*row) for row in rows} - {*runs}:
                raise PPPError(
                    f"the tables in {data} hold {len(others)} other runs, such as "
                    f"{min(run.stem for run in others)}, which would be lost; give another folder"
                )
        names = dict.fromkeys([*self.tables.values(), "runs.csv"])
        outputs.check_update(Path(data), names, self.command)

    @staticmethod
    def _record(place: Path) -> dict[str, Any]:
        try:
            record = documents.read_json(place / _RECORD)
            if not isinstance(record.get("tables", {}), dict):
                raise ValueError("its tables are no names with hashes")
            return record | {"seconds": float(record["seconds"])}
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error).removeprefix(f"{place / _RECORD} cannot be read: ")
            raise WeightsError(
                f"{place / _RECORD} cannot be read: {reason}; delete its folder to train again"
            ) from None


def _attempt(study: Study, folder: str | Path, run: Any) -> tuple[bool, str]:
    try:
        return True, f"{run.stem}: {study.perform_one(run, folder)}"
    except (PPPError, OSError) as error:
        return False, f"{run.stem}: {error}"


def headed(
    head: Mapping[str, object], tables: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Put the same first columns before every table.

    Examples
    --------
    >>> headed({"seed": 3}, {"loss": pd.DataFrame({"value": [0.5]})})["loss"].columns.tolist()
    ['seed', 'value']
    """
    return {
        name: pd.concat([pd.DataFrame(head, index=table.index), table], axis=1)
        for name, table in tables.items()
    }


def joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put tables below each other; empty ones would make every column one of objects.

    Examples
    --------
    >>> len(joined([pd.DataFrame({"n": []}), pd.DataFrame({"n": [1]})]))
    1
    """
    tables = list(tables)
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def versions() -> dict[str, object]:
    """Return what a result depends on beside its settings: packages, machine, threads."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
