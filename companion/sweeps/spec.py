"""A sweep as its file states it: what runs, over which values, within which limits."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from companion import notebooks
from companion.notebooks import staleness
from companion.quantities import read_bytes, read_seconds
from ppp import files
from ppp.errors import ParameterError, PPPError, first_words, shown, unknown
from studies import parameters
from studies.pictures import datasets
from studies.storage import documents, yaml_documents

MEASURE = "measure"
"""In the place of a notebook: ``ppp measure``."""

NUMBERS = "numbers.json"

MODULES = "modules.json"
"""In the folder of a run: the SHA-256 of each of the user's modules that were imported."""
WEIGHTS = (".safetensors", ".pth", ".pt")
"""What the names of files with weights end in; a test keeps it equal to the library's."""

MOST = 100_000
"""Runs that one sweep may have."""

Values = dict[str, Any]


class SweepError(PPPError):
    """A sweep that cannot be read, planned or run."""


# ---- what runs


@dataclass(frozen=True)
class NotebookTarget:
    """A notebook: its parameters are those of its parameters cell, on top of a profile."""

    path: Path
    profile: str

    kind = "notebook"
    table = NUMBERS

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def base(self) -> Values:
        """Every parameter with its value before the sweep changes any."""
        values = notebooks.defaults(self.path)
        changes = notebooks.profile_values(self.profile, self.path, values)
        return {name: value for name, value in (values | changes).items() if name != "results"}

    @cached_property
    def names(self) -> list[str]:
        return list(self.base)

    def read(self, name: str, value: Any) -> Any:
        return parameters.checked({name: value}, text=True)[name]

    def seed(self, seed: int) -> Values:
        if "seed" in self.names:
            return {"seed": seed}
        return {"seeds": [seed]} if "seeds" in self.names else {}

    how = ()

    def place(self, name: str) -> str:
        """Say whether a parameter is the place of something: folder, weights, or nothing."""
        kind = parameters.lookup(name).kind
        if isinstance(kind, parameters.Folder) and kind.exists:
            return "folder"
        return "weights" if name.endswith("weights") else ""

    def given(self, settings: Mapping[str, Any]) -> dict[str, str]:
        return staleness.given(settings)

    def ingredients(self, library: staleness.Library) -> staleness.Key:
        cells = staleness.code_cells(self.path)
        return staleness.ingredients(library.root, cells, library, f"notebook {self.path}")

    def imported(self, settings: Mapping[str, Any], folder: Path) -> dict[str, str]:
        return {}

    def sources(self) -> list[Path]:
        return [self.path]

    def perform(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Run it; the executed notebook and ``results`` come to lie in `folder`."""
        output = folder / self.path.name
        notebooks.execute(self.path, output, settings, folder / "results")


@dataclass(frozen=True)
class MeasureTarget:
    """``ppp measure``: its parameters are the options of that command."""

    kind = "measure"
    how = ("device", "batch_size", "memory")  # they change no number
    table = "measurement.csv"
    name = MEASURE
    profile = ""

    @cached_property
    def base(self) -> Values:
        settings = self._request({})
        settings.pop("network")
        return settings

    @cached_property
    def names(self) -> list[str]:
        return ["network", *(name for name in self.base if name != "device")]

    def read(self, name: str, value: Any) -> Any:
        if name == "network" and str(value).startswith("-"):
            raise ParameterError(f"network {shown(value)}: expected a name, or FILE.py:FACTORY")
        return self._request({name: value})[name]

    def _request(self, changes: Mapping[str, Any]) -> Values:
        from companion.measure.request import Request

        return asdict(Request.from_settings({"network": "none"} | dict(changes)))

    def seed(self, seed: int) -> Values:
        return {"seed": seed}

    def place(self, name: str) -> str:
        return {"photos": "folder", "weights": "weights", "network": "source"}.get(name, "")

    def given(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """Return the state of its files; which modules a network imports is known when it ran."""
        found = staleness.given({name: settings[name] for name in ("photos", "weights")})
        source = _source(str(settings["network"]))[0]
        if source.endswith(".py") and Path(source).is_file():
            found[source] = files.sha256(source)
        return found

    def imported(self, settings: Mapping[str, Any], folder: Path) -> dict[str, str]:
        """Return the SHA-256 of each module that a finished run's network imported, by path."""
        source = Path(_source(str(settings["network"]))[0])
        known = staleness.load(folder / MODULES) if source.suffix == ".py" else None
        return {str(source.resolve().parent / name): one for name, one in (known or {}).items()}

    def ingredients(self, library: staleness.Library) -> staleness.Key:
        code = staleness.without_texts(self.sources()[0].read_text(encoding="utf-8"))
        return staleness.ingredients(library.root, {"companion.measure": code}, library, MEASURE)

    def sources(self) -> list[Path]:
        return [notebooks.ROOT / "companion" / "measure" / "run.py"]

    def perform(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Measure; the folder of ``ppp measure`` comes to lie in `folder` as ``results``."""
        from companion.measure import request, run as measure

        measured = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
        }
        done = measure.measure(request.Request(**measured), folder / "results", force=True)
        if modules := done.network.provenance.get("modules"):
            staleness.store(folder / MODULES, modules)


Target = NotebookTarget | MeasureTarget


# ---- the file


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes
    ----------
    threads : int
    memory : int or None
        Bytes of all its processes together; None for no limit.
    time : float or None
        s; None for no limit.
    gpu : bool
        One GPU for each run, where there is one; otherwise the run uses processors.
    """

    threads: int = 1
    memory: int | None = None
    time: float | None = None
    gpu: bool = False


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes
    ----------
    id : str
        Twelve hexadecimal digits of its settings: the same settings, the same folder. A changed
        default of the notebook makes another run.
    factors : dict
        The parameters that the sweep varies, with this run's values.
    settings : dict
        All parameters.
    """

    id: str
    factors: Values
    settings: Values

    def __str__(self) -> str:
        return ", ".join(f"{name} = {show(value)}" for name, value in self.factors.items())


@dataclass(frozen=True)
class Sweep:
    """Everything that a sweep's file states."""

    path: Path
    name: str
    target: Target
    runs: tuple[Run, ...]
    limits: Limits
    table: str
    figures: tuple[dict[str, str], ...] = ()
    text: str = field(default="", repr=False)

    @property
    def factors(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in run.factors))

    @classmethod
    def read(cls, path: Path) -> Sweep:
        """Read and check a file; nothing is run and nothing written.

        Raises
        ------
        PPPError
            In one line: what is wrong, its value, what was expected.
        """
        path = documents.as_path(path, "sweep file", SweepError)
        most = yaml_documents.MOST_YAML
        text = documents.read_text(path, "sweep file", most=most, error=SweepError)
        content = yaml_documents.parse_yaml(text, str(path), loader=_Loader, error=SweepError)
        try:
            return _sweep(path, content, text)
        except PPPError as error:
            raise SweepError(f"{path}: {first_words(error, 1000)}") from None


class _Loader(yaml_documents.Texts):
    """Keeps every value a text, whose type the parameter knows; refuses a key given twice."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"{line}: a key that is no word")
            if key.value in seen:
                raise yaml.YAMLError(f"{line}: {key.value!r} stands twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_KEYS = ("name", "run", "profile", "set", "grid", "list", "seeds", "table", "limits", "figures")

_FIGURE = ("y", "x", "color", "log", "xlabel", "ylabel")


def _figure(given: Any) -> dict[str, str]:
    found = _mapping("figures", given, _FIGURE, need=("y",))
    for name, value in found.items():
        if not isinstance(value, str):
            raise SweepError(f"figures, {name} {shown(value)}: expected one name")
    if found.get("log", "") not in ("", "x", "y", "xy"):
        raise SweepError(f"figures, log {shown(found['log'])}: expected x, y or xy")
    return found


def _sweep(path: Path, content: Any, text: str) -> Sweep:
    if content is None:
        raise SweepError(f"the file is empty; expected {', '.join(_KEYS)}")
    known = _mapping("the file", content, _KEYS)
    if "run" not in known:
        raise SweepError("'run' is missing; expected a notebook, or measure")
    name = known.get("name", path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise SweepError(
            f"name {shown(name)}: expected letters, digits, '_', '-' and '.', at most 64; without "
            "'name' it is the file's"
        )
    target = _target(known, path.parent)
    return Sweep(
        path.resolve(),
        name,
        target,
        tuple(_runs(target, known, path.parent)),
        _limits(known.get("limits", {})),
        _table(known.get("table", target.table)),
        tuple(_figure(one) for one in _list("figures", known.get("figures", []))),
        text,
    )


def _target(known: Mapping[str, Any], folder: Path) -> Target:
    run, profile = known["run"], known.get("profile", "standard")
    if not isinstance(run, str):
        raise SweepError(f"run {shown(run)}: expected a notebook, or measure")
    if run == MEASURE:
        if "profile" in known:
            raise SweepError("profile: measure has none; give its options under 'set'")
        return MeasureTarget()
    beside = folder / run
    found = notebooks.find(str(beside) if run.endswith(".ipynb") and beside.exists() else run)
    return NotebookTarget(found.resolve(), str(profile))


def _runs(target: Target, known: Mapping[str, Any], folder: Path) -> Iterator[Run]:
    """Give every run, all of one seed before those of the next."""
    fixed = _read(target, "set", _mapping("set", known.get("set", {})), folder)
    seeds = [_seed(target, seed) for seed in _seeds(known["seeds"])] if "seeds" in known else []
    varied = list(_varied(target, known, folder, seeded=bool(seeds), fixed=fixed))
    if not varied and not seeds:
        raise SweepError("no run: give 'grid', 'list' or 'seeds'")
    if len(varied or [{}]) * len(seeds or [{}]) > MOST:
        raise SweepError(f"more than {MOST:,} runs; expected fewer: split the sweep")
    seen: dict[str, Run] = {}
    for seed, values in itertools.product(seeds or [{}], varied or [{}]):
        settings = target.base | fixed | values | seed
        if missing := [name for name in target.names if name not in settings]:
            raise SweepError(f"{target.name} needs a value for {missing[0]!r}: give it under 'set'")
        run = Run(_id(target, settings), values | seed, settings)
        if run.id in seen:
            raise SweepError(
                f"the run ({run}) stands twice, also as ({seen[run.id]}); leave one out"
            )
        seen[run.id] = run
        yield run


def _varied(
    target: Target, known: Mapping[str, Any], folder: Path, *, seeded: bool, fixed: Values
) -> Iterator[Values]:
    """Give the combinations of the grid, then the entries of the list."""
    taken = {"seed", "seeds"} if seeded else set()

    def check(where: str, names: Mapping[str, Any]) -> None:
        for name in names:
            if name in fixed:
                raise SweepError(f"{where}: {shown(name)} is under 'set' already; leave one out")
            if name in taken:
                raise SweepError(
                    f"{where}: {shown(name)} is what 'seeds' gives already; leave one out"
                )

    if "grid" in known:
        grid = _mapping("grid", known["grid"])
        check("grid", grid)
        if not grid:
            raise SweepError("grid is empty; expected parameters, each with a list of values")
        levels = []
        for name, values in grid.items():
            values = _list(f"grid, {name}", values)
            if not values:
                raise SweepError(f"grid, {name} is empty; expected at least one value")
            levels.append([_read(target, "grid", {name: one}, folder) for one in values])
        if _product(levels) > MOST:
            raise SweepError(f"more than {MOST:,} runs; expected fewer: split the sweep")
        for parts in itertools.product(*levels):
            yield {name: value for part in parts for name, value in part.items()}
    if "list" in known:
        entries = _list("list", known["list"])
        if not entries:
            raise SweepError("list is empty; expected a mapping of parameters for each run")
        for number, entry in enumerate(entries, start=1):
            entry = _mapping(f"list, entry {number}", entry)
            check(f"list, entry {number}", entry)
            yield _read(target, f"list, entry {number}", entry, folder)


def _product(levels: Sequence[Sequence[Any]]) -> int:
    count = 1
    for values in levels:
        count *= len(values)
    return count


def _read(target: Target, where: str, given: Mapping[str, Any], folder: Path) -> Values:
    """Return values in their parameters' types, paths seen from the sweep's file."""
    values = {}
    for name, value in given.items():
        if name == "results":
            raise ParameterError(f"{where}: parameter results is the sweep's to set; leave it out")
        if name == "device" and name not in target.names:
            raise ParameterError(f"{where}: device is what 'limits, gpu' says; leave it out")
        if name not in target.names:
            raise ParameterError(f"{where}: {unknown('parameter', name, target.names)}")
        if isinstance(value, dict) or value is None:
            raise ParameterError(f"{where}: {name} = {shown(value)}: expected a value or a list")
        try:
            values[name] = target.read(name, _placed(target, name, value, folder))
        except PPPError as error:
            raise ParameterError(f"{where}: {error}") from None
    return values


def _placed(target: Target, name: str, value: Any, folder: Path) -> Any:
    """Make the path of a file or folder whole, as seen from `folder`; it must be there."""
    place = target.place(name)
    if not place or not isinstance(value, str) or not value:
        return value
    file, colon, rest = _source(value) if place == "source" else (value, "", "")
    if place == "weights" and not (file.endswith(WEIGHTS) or "/" in file):
        return value  # a name: random, trained, IMAGENET1K_V1
    if place == "source" and not file.endswith(".py"):
        return value
    there = (folder / documents.as_path(file, f"{name} =", SweepError)).resolve()
    if place == "folder" and value in datasets.SETS and not there.is_dir():
        return value
    if not (there.is_dir() if place == "folder" else there.is_file()):
        what = "folder" if place == "folder" else "file"
        raise SweepError(
            f"{name} = {shown(value)}: no such {what} ({there}); give one that is there"
        )
    return f"{there}{colon}{rest}"


def _source(network: str) -> tuple[str, str, str]:
    """Split ``FILE.py:FACTORY`` into the file, a colon and the factory."""
    return network.rpartition(":") if ".py:" in network else (network, "", "")


def _seed(target: Target, seed: int) -> Values:
    """Return the parameter that takes a seed.

    Raises
    ------
    SweepError
        The notebook has none.
    """
    found = target.seed(seed)
    if not found:
        raise SweepError(f"seeds: {target.name} has no parameter 'seed' or 'seeds'; leave it out")
    return found


def _seeds(given: Any) -> list[int]:
    """Read a number of seeds, from 0 on, or a list of them."""
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(
        isinstance(one, str) and re.fullmatch(r"\d{1,9}", one) for one in texts
    ):
        raise SweepError(
            f"seeds {shown(given)}: expected a whole number, how many, or a list of seeds"
        )
    if not isinstance(given, list) and int(given) > MOST:
        raise SweepError(f"seeds {given}: more than {MOST:,} runs; expected fewer: split the sweep")
    seeds = [int(one) for one in texts] if isinstance(given, list) else list(range(int(given)))
    if not seeds:
        raise SweepError("seeds 0: expected at least 1")
    return seeds


def _limits(given: Any) -> Limits:
    known = _mapping("limits", given, [one.name for one in fields(Limits)])
    threads = known.get("threads", "1")
    if not isinstance(threads, str) or not re.fullmatch(r"[1-9]\d{0,3}", threads):
        raise SweepError(f"limits, threads {shown(threads)}: expected a whole number of at least 1")
    gpu = known.get("gpu", "false")
    if gpu not in ("true", "false"):
        raise SweepError(f"limits, gpu {shown(gpu)}: expected true or false")
    return Limits(
        int(threads),
        read_bytes("limits, memory", str(known["memory"])) if "memory" in known else None,
        read_seconds("limits, time", str(known["time"])) if "time" in known else None,
        gpu == "true",
    )


def _table(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.csv|numbers\.json", name):
        raise SweepError(
            f"table {shown(name)}: expected NAME.csv, a table of the results, or {NUMBERS}"
        )
    return name


def _mapping(where: str, given: Any, known: Sequence[str] = (), need: Sequence[str] = ()) -> Values:
    if not isinstance(given, dict):
        raise SweepError(f"{where}: {shown(given)}; expected names with values")
    for name in given:
        if known and name not in known:
            raise SweepError(f"{where}: {unknown('key', name, known)}")
    if missing := [name for name in need if name not in given]:
        raise SweepError(f"{where}: {missing[0]!r} is missing")
    return given


def _list(where: str, given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise SweepError(f"{where}: {shown(given)}; expected a list, [a, b]")
    return given


def _id(target: Target, settings: Mapping[str, Any]) -> str:
    told = {name: value for name, value in settings.items() if name not in target.how}
    text = json.dumps([target.kind, target.name, told], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def show(value: Any) -> str:
    """Return a value as a file or a table shows it.

    Examples
    --------
    >>> show(["zeros", "reflect"]), show(0.5)
    ('zeros,reflect', '0.5')
    """
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)
