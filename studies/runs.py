"""Studies of many independent runs: each keeps a folder of its own, all become shipped tables."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ppp.errors import PPPError, WeightsError
from ppp.files import sha256
from studies import jobs as pool
from studies.storage import documents, outputs, tables as files

_RECORD = "record.json"


@dataclass(frozen=True)
class Study:
    """What the runs of a study leave behind, and where it goes.

    Attributes
    ----------
    command : str
        What performs it, such as ``ppp bhv``: folders and tables are known as its own.
    run : type
        A dataclass with one run's settings and a property ``stem``, the name of its folder.
    tables : mapping of str to str
        Name of a table in a run's folder, and the file that takes all runs' rows.
    digits : mapping of str to int
        Digits that are shipped, where not 7.

    Examples
    --------
    >>> from studies.bhv.design import STUDY
    >>> STUDY.key
    ('condition', 'variant', 'seed')
    """

    command: str
    run: Callable[..., Any]
    tables: Mapping[str, str]
    digits: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, ...]:
        """Names of a run's settings: the first columns of every table."""
        return tuple(item.name for item in fields(self.run))

    def seconds(self, run: Any, folder: str | Path) -> float | None:
        """Return how long a finished run took, or None if it is not finished."""
        place = Path(folder) / run.stem
        return self._record(place)["seconds"] if (place / _RECORD).exists() else None

    def keep(
        self,
        run: Any,
        folder: str | Path,
        tables: Mapping[str, pd.DataFrame],
        seconds: float,
        contents: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write a finished run; its record comes last, and makes it count as finished."""
        place, head = Path(folder) / run.stem, asdict(run)
        place.mkdir(parents=True, exist_ok=True)
        for name, content in (contents or {}).items():
            files.write(place / name, content)
        digests = {}
        for name, table in headed(head, tables).items():
            files.write_table(place / f"{name}.csv", table, digits=None)
            digests[name] = sha256(place / f"{name}.csv")
        facts = head | {"seconds": round(seconds, 1)} | _versions() | {"tables": digests}
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

    def perform(
        self,
        one: Callable[[Any, str | Path], float],
        wanted: Sequence[Any],
        folder: str | Path,
        *,
        jobs: int = 1,
    ) -> None:
        """Perform the runs that are not finished, each on one thread.

        Parameters
        ----------
        one : callable
            Of a module: takes a run and the folder, returns seconds; it leaves finished runs alone.
        wanted : sequence
        folder : path
            Takes one folder per run.
        jobs : int
            Runs at the same time.

        Raises
        ------
        PPPError
            A run failed; the others went on, and those that had finished are kept.
        """
        told = partial(_told, one=one, folder=folder)
        with outputs.working(folder, self.command, "give another --out"):
            pool.run_all(told, wanted, lambda run: run.stem, jobs=jobs, progress=True)

    def collect(self, folder: str | Path, data: str | Path, wanted: Sequence[Any]) -> int:
        """Gather finished runs into the tables that are shipped, and ``runs.csv``.

        Parameters
        ----------
        folder : path
            Holds one folder per run.
        data : path
            Takes the tables. Those that are there are replaced, if they hold no other runs.
        wanted : sequence
            Runs that must be there.

        Returns
        -------
        int
            Number of runs.

        Raises
        ------
        PPPError
            A run is not finished or cannot be read, or the tables that are there hold others;
            nothing is written then.
        """
        self.check(data, wanted)
        folder, data = Path(folder), Path(data)
        missing = [run for run in wanted if not (folder / run.stem / _RECORD).exists()]
        if missing:
            raise PPPError(
                f"{len(missing)} of {len(wanted)} runs are not finished in {folder}, the first: "
                f"{missing[0].stem}; train them first"
            )
        found = {
            name: joined(self.read(run, folder, name) for run in wanted) for name in self.tables
        }
        records = [self._record(folder / run.stem) for run in wanted]
        records = [{k: v for k, v in facts.items() if k != "tables"} for facts in records]
        contents = {
            file: files.packed(file, found[name], digits=self.digits.get(name, 7))
            for name, file in self.tables.items()
        }
        contents["runs.csv"] = files.packed("runs.csv", pd.DataFrame(records))
        outputs.update(data, contents, self.command)
        return len(wanted)

    def check(self, data: str | Path, wanted: Sequence[Any]) -> None:
        """Refuse to replace tables that hold runs other than those that are wanted.

        Raises
        ------
        PPPError
            Names one of them, or a file that the study did not write.
        """
        there = Path(data) / "runs.csv"
        if there.is_file():
            held = files.read_table(there)
            if not {*self.key} <= {*held.columns} or held[[*self.key]].isna().any(axis=None):
                raise PPPError(f"{there} is no list of runs; give another folder")
            held = {self.run(*row) for row in held[[*self.key]].itertuples(index=False)}
            if others := held - {*wanted}:
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
            told = str(error).removeprefix(f"{place / _RECORD} cannot be read: ")
            raise WeightsError(
                f"{place / _RECORD} cannot be read: {told}; delete its folder to train again"
            ) from None


def _told(run: Any, one: Callable[[Any, str | Path], float], folder: str | Path) -> str:
    return f"{run.stem}: {one(run, folder):.0f} s"


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


def _versions() -> dict[str, object]:
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
