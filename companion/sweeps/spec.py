"""A sweep as its file states it: what runs, over which values, within which limits."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from companion import notebooks
from companion.measure.request import Request
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

    source: Path
    profile: str

    kind = "notebook"
    table = NUMBERS
    how = ()

    @property
    def run(self) -> str:
        return str(self.source)

    @property
    def name(self) -> str:
        return self.source.stem

    @cached_property
    def base(self) -> Values:
        """Every parameter with its value before the sweep changes any."""
        values = notebooks.defaults(self.source)
        changes = notebooks.profile_values(self.profile, self.source, values)
        return {name: value for name, value in (values | changes).items() if name != "results"}

    def read(self, name: str, value: Any) -> Any:
        return parameters.checked({name: value}, text=True)[name]

    def ingredients(self, library: staleness.Library) -> staleness.Key:
        cells = staleness.code_cells(self.source)
        return staleness.ingredients(library.root, cells, library, f"notebook {self.source}")

    def perform(self, settings: Mapping[str, Any], folder: Path, device: str) -> dict[str, str]:
        """Run it; the executed notebook and ``results`` come to lie in `folder`.

        Returns
        -------
        dict of str to str
            The SHA-256 of each module of the user's own that was imported, by its path.
        """
        notebooks.execute(self.source, folder / self.source.name, settings, folder / "results")
        return {}


@dataclass(frozen=True)
class MeasureTarget:
    """``ppp measure``: its parameters are the options of that command."""

    kind = run = name = MEASURE
    profile = ""
    table = "measurement.csv"
    how = ("batch_size", "memory")  # they change no number
    source = notebooks.ROOT / "companion" / "measure" / "run.py"

    _whole = ("per_photo", "window", "seed", "batch_size")
    _lists = ("layers", "schemes", "mean", "std")

    @cached_property
    def base(self) -> Values:
        """Every option but the device, which the limits decide."""
        settings = asdict(Request.from_settings({"network": ""}))
        return {name: value for name, value in settings.items() if name != "device"}

    def read(self, name: str, value: Any) -> Any:
        if isinstance(value, list) and name not in self._lists:
            raise ParameterError(f"{name} {shown(value)}: expected one value")
        if name == "network" and (not value or value.startswith("-")):
            raise ParameterError(f"network {shown(value)}: expected a name, or FILE.py:FACTORY")
        if name in self._whole and re.fullmatch(r"-?\d{1,18}", value):
            value = int(value)
        return asdict(Request.from_settings({"network": "", name: value}))[name]

    def ingredients(self, library: staleness.Library) -> staleness.Key:
        code = staleness.without_texts(self.source.read_text(encoding="utf-8"))
        return staleness.ingredients(library.root, {"companion.measure": code}, library, MEASURE)

    def perform(self, settings: Mapping[str, Any], folder: Path, device: str) -> dict[str, str]:
        """Measure; the folder of ``ppp measure`` comes to lie in `folder` as ``results``."""
        from companion.measure.run import measure

        values = {n: tuple(v) if isinstance(v, list) else v for n, v in settings.items()}
        request = Request(**values, device=device)
        network = measure(request, folder / "results", force=True).network
        source = Path(split_source(request.network)[0]).parent
        modules = network.provenance.get("modules", {})
        return {str(source / name): digest for name, digest in modules.items()}


Target = NotebookTarget | MeasureTarget


def target(run: str, profile: str) -> Target:
    """Return what runs: a notebook by its path, or ``measure``."""
    return MeasureTarget() if run == MEASURE else NotebookTarget(Path(run), profile)


# ---- parameters that name a file or a folder


def split_source(network: str) -> tuple[str, str, str]:
    """Split ``FILE.py:FACTORY`` into the file, a colon and the factory."""
    return network.rpartition(":") if ".py:" in network else (network, "", "")


def places(settings: Mapping[str, Any]) -> Values:
    """Return the settings that may name a file or a folder."""
    return {
        name: value
        for name, value in settings.items()
        if _is_folder(name) or name.endswith("weights") or name == "network"
    }


def given(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the state of every file that a setting names, by its path."""
    state = staleness.given({n: value for n, value in places(settings).items() if n != "network"})
    source = split_source(str(settings.get("network", "")))[0]
    if source.endswith(".py") and Path(source).is_file():
        state[source] = files.sha256(source)
    return state


def _is_folder(name: str) -> bool:
    kind = parameters.PARAMETERS[name].kind if name in parameters.PARAMETERS else None
    return isinstance(kind, parameters.Folder) and kind.exists


def _placed(name: str, value: str, folder: Path) -> str:
    """Make the path of a file or folder whole, as seen from `folder`; it must be there."""
    file, colon, factory = split_source(value) if name == "network" else (value, "", "")
    if name == "network":
        is_file = file.endswith(".py")
    else:  # weights may also be a name: random, trained, IMAGENET1K_V1
        is_file = name.endswith("weights") and (file.endswith(WEIGHTS) or "/" in file)
    if not value or not (is_file or _is_folder(name)):
        return value
    there = (folder / documents.as_path(file, f"{name} =", SweepError)).resolve()
    if not is_file and value in datasets.SETS and not there.is_dir():
        return value
    if not (there.is_file() if is_file else there.is_dir()):
        what = "file" if is_file else "folder"
        raise SweepError(
            f"{name} = {shown(value)}: no such {what} ({there}); give one that is there"
        )
    return f"{there}{colon}{factory}"


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
    """Everything that a sweep's file states; `text` is the file itself."""

    path: Path
    name: str
    target: Target
    runs: tuple[Run, ...]
    limits: Limits
    table: str
    text: str

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
            return _sweep(path, _mapping("the file", content, _KEYS), text)
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


def _sweep(path: Path, content: Values, text: str) -> Sweep:
    name = _text("name", content.get("name", path.stem), r"\w[\w.-]{0,63}", _NAME)
    if "run" not in content:
        raise SweepError("'run' is missing; expected a notebook, or measure")
    run = _text("run", content["run"], r".+", "a notebook, or measure")
    if run == MEASURE and "profile" in content:
        raise SweepError("profile: measure has none; give its options under 'set'")
    if run != MEASURE:
        beside = path.parent / run
        is_path = run.endswith(".ipynb") and beside.exists()
        run = str(notebooks.find(str(beside) if is_path else run).resolve())
    runs = target(run, str(content.get("profile", "standard")))
    for figure in _list("figures", content.get("figures", [])):
        _check_figure(figure)
    return Sweep(
        path.resolve(),
        name,
        runs,
        tuple(_runs(runs, content, path.parent)),
        _limits(
            _mapping("limits", content.get("limits", {}), [one.name for one in fields(Limits)])
        ),
        _text("table", content.get("table", runs.table), r"[\w.-]+\.csv|numbers\.json", _TABLE),
        text,
    )


_NAME = "letters, digits, '_', '-' and '.', at most 64; without 'name' it is the file's"
_TABLE = f"NAME.csv, a table of the results, or {NUMBERS}"


def _check_figure(figure: Any) -> None:
    if "y" not in _mapping("figures", figure, _FIGURE):
        raise SweepError("figures: 'y' is missing")
    for name, value in figure.items():
        _text(f"figures, {name}", value, r".*", "one name")
    _text("figures, log", figure.get("log", ""), "x?y?", "x, y or xy")


def _limits(content: Values) -> Limits:
    whole, yes = "a whole number of at least 1", "true or false"
    memory, time = content.get("memory"), content.get("time")
    return Limits(
        int(_text("limits, threads", content.get("threads", "1"), r"[1-9]\d{0,3}", whole)),
        None if memory is None else read_bytes("limits, memory", str(memory)),
        None if time is None else read_seconds("limits, time", str(time)),
        _text("limits, gpu", content.get("gpu", "false"), "true|false", yes) == "true",
    )


def _runs(target: Target, content: Values, folder: Path) -> Iterator[Run]:
    """Give every run, all of one seed before those of the next."""
    fixed = _read(target, "set", _mapping("set", content.get("set", {})), folder, {})
    seeds = _seeds(target, content["seeds"]) if "seeds" in content else []
    taken = dict.fromkeys(fixed, "is under 'set' already")
    if seeds:
        taken |= dict.fromkeys(("seed", "seeds"), "is what 'seeds' gives already")
    varied = list(_varied(target, content, folder, taken))
    if not varied and not seeds:
        raise SweepError("no run: give 'grid', 'list' or 'seeds'")
    _check_count(len(varied or [{}]) * len(seeds or [{}]))
    seen: dict[str, Run] = {}
    for seed, values in itertools.product(seeds or [{}], varied or [{}]):
        settings = target.base | fixed | values | seed
        if target.kind == MEASURE and not settings["network"]:
            raise SweepError("measure needs a value for 'network': give it under 'set'")
        run = Run(_id(target, settings), values | seed, settings)
        if run.id in seen:
            raise SweepError(
                f"the run ({run}) stands twice, also as ({seen[run.id]}); leave one out"
            )
        seen[run.id] = run
        yield run


def _varied(
    target: Target, content: Values, folder: Path, taken: Mapping[str, str]
) -> Iterator[Values]:
    """Give the combinations of the grid, then the entries of the list."""
    levels = []
    for name, values in _mapping("grid", content.get("grid", {})).items():
        values = _list(f"grid, {name}", values, need="at least one value")
        levels.append([_read(target, "grid", {name: one}, folder, taken) for one in values])
    if "grid" in content and not levels:
        raise SweepError("grid is empty; expected parameters, each with a list of values")
    _check_count(math.prod(map(len, levels)))
    for parts in itertools.product(*levels) if levels else ():
        yield {name: value for part in parts for name, value in part.items()}
    if "list" in content:
        entries = _list("list", content["list"], need="a mapping of parameters for each run")
        for number, entry in enumerate(entries, start=1):
            where = f"list, entry {number}"
            yield _read(target, where, _mapping(where, entry), folder, taken)


_OURS = {"results": "the sweep's to set", "device": "what 'limits, gpu' says"}


def _read(
    target: Target, where: str, given: Values, folder: Path, taken: Mapping[str, str]
) -> Values:
    """Return values in their parameters' types, paths seen from the sweep's file."""
    values = {}
    for name, value in given.items():
        if name in taken:
            raise SweepError(f"{where}: {shown(name)} {taken[name]}; leave one out")
        if name not in target.base and name in _OURS:
            raise SweepError(f"{where}: {name} is {_OURS[name]}; leave it out")
        if name not in target.base:
            raise SweepError(f"{where}: {unknown('parameter', name, target.base)}")
        if isinstance(value, dict):
            raise SweepError(f"{where}: {name} = {shown(value)}: expected a value or a list")
        try:
            placed = _placed(name, value, folder) if isinstance(value, str) else value
            values[name] = target.read(name, placed)
        except PPPError as error:
            raise SweepError(f"{where}: {error}") from None
    return values


def _seeds(target: Target, given: Any) -> list[Values]:
    """Read a number of seeds, from 0 on, or a list of them: the parameter that takes each."""
    texts = given if isinstance(given, list) else [given]
    for text in texts:
        _text("seeds", text, r"\d{1,9}", "a whole number, how many, or a list of seeds")
    numbers = [int(text) for text in texts] if isinstance(given, list) else range(int(given))
    if not numbers:
        raise SweepError(f"seeds {shown(given)}: expected at least 1")
    _check_count(len(numbers))
    if "seed" in target.base:
        return [{"seed": number} for number in numbers]
    if "seeds" in target.base:
        return [{"seeds": [number]} for number in numbers]
    raise SweepError(f"seeds: {target.name} has no parameter 'seed' or 'seeds'; leave it out")


def _check_count(count: int) -> None:
    if count > MOST:
        raise SweepError(f"more than {MOST:,} runs; expected fewer: split the sweep")


def _text(where: str, given: Any, pattern: str, expected: str) -> str:
    if not isinstance(given, str) or not re.fullmatch(pattern, given):
        raise SweepError(f"{where} {shown(given)}: expected {expected}")
    return given


def _mapping(where: str, given: Any, known: Sequence[str] = ()) -> Values:
    if not isinstance(given, dict):
        raise SweepError(f"{where}: {shown(given)}; expected names with values")
    for name in given:
        if known and name not in known:
            raise SweepError(f"{where}: {unknown('key', name, known)}")
    return given


def _list(where: str, given: Any, need: str = "") -> list[Any]:
    if not isinstance(given, list):
        raise SweepError(f"{where}: {shown(given)}; expected a list, [a, b]")
    if need and not given:
        raise SweepError(f"{where} is empty; expected {need}")
    return given


def _id(target: Target, settings: Mapping[str, Any]) -> str:
    values = {name: value for name, value in settings.items() if name not in target.how}
    text = json.dumps([target.kind, target.name, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def show(value: Any) -> str:
    """Return a value as a file or a table shows it.

    Examples
    --------
    >>> show(["zeros", "reflect"]), show(0.5)
    ('zeros,reflect', '0.5')
    """
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
