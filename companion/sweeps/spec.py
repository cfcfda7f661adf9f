"""A sweep as its file states it: what runs, over which values, within which limits."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import operator
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
from studies import parameters, paths
from studies.pictures import datasets
from studies.storage import documents, yaml_documents

MEASURE = "measure"
"""In the place of a notebook: ``ppp measure``."""

NUMBERS = "numbers.json"

WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
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

    kind = name = MEASURE
    profile = ""
    table = "measurement.csv"
    how = ("batch_size", "memory")  # they change no number
    source = paths.ROOT / "companion" / "measure" / "run.py"

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


def target_of(source: Path, profile: str) -> Target:
    """Return what runs: a notebook, or the measurement, by its file."""
    return MeasureTarget() if source == MeasureTarget.source else NotebookTarget(source, profile)


# ---- parameters that name a file or a folder


def split_source(network: str) -> tuple[str, str, str]:
    """Split ``FILE.py:FACTORY`` into the file, a colon and the factory."""
    return network.rpartition(":") if ".py:" in network else (network, "", "")


def given(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the state of every file that a setting names, by its path."""
    names = [name for name in settings if _is_folder(name) or name.endswith("weights")]
    state = staleness.given({name: settings[name] for name in names})
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
    is_file = name == "network" and file.endswith(".py")
    if name.endswith("weights"):  # or a name: random, trained, IMAGENET1K_V1
        is_file = file.endswith(WEIGHTS) or "/" in file
    if not value or not (is_file or _is_folder(name)):
        return value
    there = (folder / documents.as_path(file, f"{name} =", SweepError)).resolve()
    if not is_file and value in datasets.SETS and not there.is_dir():
        return value
    if not (there.is_file() if is_file else there.is_dir()):
        what = f"no such {'file' if is_file else 'folder'}"
        raise SweepError(f"{name} = {shown(value)}: {what} ({there}); give one that is there")
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
    run = _text("run", content.get("run"), r".+", "a notebook, or measure")
    if run == MEASURE and "profile" in content:
        raise SweepError("profile: measure has none; give its options under 'set'")
    source, beside = MeasureTarget.source, path.parent / run
    if run != MEASURE:
        is_path = run.endswith(".ipynb") and beside.exists()
        source = (beside if is_path else notebooks.find(run)).resolve()
    target = target_of(source, str(content.get("profile", "standard")))
    for figure in _list("figures", content["figures"]) if "figures" in content else ():
        _check_figure(figure)
    table = content.get("table", target.table)
    limits = _limits(content["limits"]) if "limits" in content else Limits()
    return Sweep(
        path.resolve(),
        name,
        target,
        tuple(_runs(target, content, path.parent)),
        limits,
        _text("table", table, r"[\w.-]+\.csv|numbers\.json", _TABLE),
        text,
    )


_NAME = "letters, digits, '_', '-' and '.', at most 64; without 'name' it is the file's"
_TABLE = f"NAME.csv, a table of the results, or {NUMBERS}"


def _check_figure(given: Any) -> None:
    figure = {"y": None, "log": ""} | _mapping("figures", given, _FIGURE)
    for name, value in figure.items():
        pattern, expected = ("x?y?", "x, y or xy") if name == "log" else (r".+", "one name")
        _text(f"figures, {name}", value, pattern, expected)


def _limits(given: Any) -> Limits:
    content = _mapping("limits", given, [one.name for one in fields(Limits)])
    whole, yes = "a whole number of at least 1", "true or false"
    readers = {
        "threads": lambda where, text: int(_text(where, text, r"[1-9]\d{0,3}", whole)),
        "memory": lambda where, text: read_bytes(where, str(text)),
        "time": lambda where, text: read_seconds(where, str(text)),
        "gpu": lambda where, text: _text(where, text, "true|false", yes) == "true",
    }
    return Limits(**{name: readers[name](f"limits, {name}", content[name]) for name in content})


def _runs(target: Target, content: Values, folder: Path) -> Iterator[Run]:
    """Give every run: the grid, then the list; all of one seed before those of the next."""

    def read(where: str, values: Any) -> Values:
        return _read(target, where, _mapping(where, values), folder, taken)

    taken: dict[str, str] = {}
    fixed = read("set", content["set"]) if "set" in content else {}
    taken |= dict.fromkeys(fixed, "is under 'set' already")
    seeds = _seeds(target, content["seeds"]) if "seeds" in content else []
    if seeds:
        taken |= dict.fromkeys(("seed", "seeds"), "is what 'seeds' gives already")
    grid = _mapping("grid", content["grid"]) if "grid" in content else {}
    levels = [
        [read("grid", {name: value}) for value in _list(f"grid, {name}", values)]
        for name, values in grid.items()
    ]
    entries = _list("list", content["list"]) if "list" in content else []
    entries = [read(f"list, entry {number}", one) for number, one in enumerate(entries, start=1)]
    count = (math.prod(map(len, levels)) if levels else 0) + len(entries)
    if not count and not seeds:
        raise SweepError("no run: give 'grid', 'list' or 'seeds'")
    if max(count, 1) * max(len(seeds), 1) > MOST:
        raise SweepError(f"more than {MOST:,} runs; expected fewer: split the sweep")
    products = itertools.product(*levels) if levels else ()
    varied = [*(functools.reduce(operator.or_, parts) for parts in products), *entries]
    seen: dict[str, Run] = {}
    for seed, values in itertools.product(seeds or [{}], varied or [{}]):
        settings = target.base | fixed | values | seed
        if target.kind == MEASURE and not settings["network"]:
            raise SweepError("measure needs a value for 'network': give it under 'set'")
        run = Run(_id(target, settings), values | seed, settings)
        if run.id in seen:
            raise SweepError(f"the run ({run}) stands twice, also as ({seen[run.id]})")
        seen[run.id] = run
        yield run


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
    if isinstance(given, list):
        texts = [_text("seeds", one, r"\d{1,9}", "a list of seeds") for one in given]
    else:
        expected = "how many, from 1 to 99999, or a list of seeds"
        texts = range(int(_text("seeds", given, r"[1-9]\d{0,4}", expected)))
    if "seed" in target.base:
        return [{"seed": int(one)} for one in texts]
    if "seeds" in target.base:
        return [{"seeds": [int(one)]} for one in texts]
    raise SweepError(f"seeds: {target.name} has no parameter 'seed' or 'seeds'; leave it out")


def _text(where: str, given: Any, pattern: str, expected: str) -> str:
    if not isinstance(given, str) or not re.fullmatch(pattern, given):
        raise SweepError(f"{where} {shown(given)}: expected {expected}")
    return given


def _mapping(where: str, given: Any, known: Sequence[str] = ()) -> Values:
    if not isinstance(given, dict) or not given:
        raise SweepError(f"{where}: {shown(given)}; expected names with values")
    for name in given:
        if known and name not in known:
            raise SweepError(f"{where}: {unknown('key', name, known)}")
    return given


def _list(where: str, given: Any) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise SweepError(f"{where}: {shown(given)}; expected a list, [a, b]")
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
