"""What a chapter was made from, as a key; a chapter is stale when its key has changed.

A key has a digest for every code cell, for every module of the checkout that running the cells
may import, for every file of data that these open through :func:`studies.paths.data`, for every
parameter and for every pinned version. Comments, docstrings and prose are in none of them: they
change no result.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from companion.notebooks.sources import code_cells, defaults
from ppp import files
from ppp.errors import PPPError
from studies import parameters, paths
from studies.pictures import datasets
from studies.storage import documents

Key = dict[str, dict[str, str]]
"""Ingredients by kind: kind -> name -> digest, or the value itself if it is short."""

WORDS = {
    "cells": "cell",
    "source": "module",
    "files": "file",
    "parameters": "parameter",
    "pins": "pinned version",
}
"""What one ingredient of a kind is called; any other kind is called as it is."""

DOOR = ("paths.data", "studies.paths.data")
"""What data is opened through, as code calls it; its literal names say which."""


def digest(text: str | bytes) -> str:
    """Return twelve hexadecimal digits that stand for a text."""
    return files.digest(text.encode() if isinstance(text, str) else text)[:12]


# ---- modules


def _bare(code: str) -> ast.Module:
    """Parse code and leave out what no run depends on: texts alone, imports for types alone."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if not _idle(part)] or [ast.Pass()]
    return tree


def _idle(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    return types and not node.orelse


def without_texts(code: str) -> str:
    """Return code without docstrings and comments, which change no result.

    Examples
    --------
    >>> without_texts("'Doc.'; n = 1  # one")
    'n = 1'
    """
    return ast.unparse(_bare(code))


@dataclass
class Module:
    """A piece of code, for what it makes results depend on.

    Attributes
    ----------
    digest : str
        Of its syntax tree.
    imports : set of str
        Dotted names, wherever in it they are imported.
    words : set of str
        Every name and attribute.
    data : set of str
        Files and folders below ``data`` that it opens.
    lazy : dict of str to str
        The table ``_MODULES`` of a package: a name -> the module it is imported from at first use.
    """

    digest: str
    imports: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    lazy: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, code: str, where: object) -> Module:
        """Parse code, or refuse in one line what cannot be understood."""
        try:
            tree = _bare(code)
        except (SyntaxError, ValueError) as error:
            raise PPPError(f"{where}: not Python ({error})") from None
        module = cls(digest(ast.dump(tree)))
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=names):
                    module.imports |= {one.name for one in names}
                case ast.ImportFrom(module=str(start), names=names):
                    module.imports |= {f"{start}.{one.name}" for one in names}
                    module.words |= {one.name for one in names}
                case ast.Name(id=word) | ast.Attribute(attr=word):
                    module.words.add(word)
                case ast.Assign(targets=[ast.Name(id="_MODULES")], value=ast.Dict()):
                    module.lazy = ast.literal_eval(node.value)
                case ast.Call(func=ast.Attribute(attr="data"), args=names):
                    if ast.unparse(node.func) in DOOR:
                        module.data.add(_literal(names, where))
        return module


def _literal(names: Sequence[ast.expr], where: object) -> str:
    try:
        return "/".join(ast.literal_eval(name) for name in names)
    except (ValueError, TypeError):
        raise PPPError(f"{where}: paths.data takes literal names, which say what is read") from None


class Library:
    """The modules of a checkout, and which of them a piece of code may import."""

    def __init__(self, root: Path, packages: Sequence[str] = ("ppp", "studies")) -> None:
        self.root = root
        self.sources = {
            ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
            for package in packages
            for path in sorted((root / package).rglob("*.py"))
        }

    def reached(self, code: Module) -> dict[str, Module]:
        """Return every module that a piece of code may import, whichever way it goes."""
        found: dict[str, Module] = {}
        waiting = [code]
        while waiting:
            module = waiting.pop()
            for dotted in module.imports:
                for name in self._imported(dotted, module.words):
                    if name not in found:
                        found[name] = _module(self.sources[name])
                        waiting.append(found[name])
        return dict(sorted(found.items()))

    def _imported(self, dotted: str, words: Set[str]) -> Iterator[str]:
        """Yield the modules that an import runs, and those it runs lazily for certain words."""
        parts = dotted.split(".")
        names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
        known = [name for name in names if name in self.sources]
        yield from known
        for package in known[-1:]:
            lazy = _module(self.sources[package]).lazy
            yield from (f"{package}.{lazy[word]}" for word in lazy.keys() & words)

    def files(self, reached: Mapping[str, Module], code: Module) -> dict[str, str]:
        """Return the files that modules and a piece of code open: path -> digest."""
        named = [path for name in reached for path in _beside(self.sources[name])]
        opened = set(code.data).union(*(module.data for module in reached.values()))
        named += [self.root / "data" / name for name in opened]
        every = {one for path in named for one in (path.rglob("*") if path.is_dir() else [path])}
        return {
            path.relative_to(self.root).as_posix(): _file_digest(path, path.stat().st_mtime_ns)
            for path in sorted(every)
            if path.is_file() and path.suffix != ".md"
        }


def _beside(source: Path) -> list[Path]:
    """Return style sheets and scripts of a module; a package has those of no module in it."""
    others = (one for one in source.parent.glob("[!.]*.*") if one.suffix not in (".py", ".typed"))
    return [
        one
        for one in others
        if one.stem == source.stem
        or (source.stem == "__init__" and not one.with_suffix(".py").exists())
    ]


def _module(path: Path) -> Module:
    return _parsed(path, path.stat().st_mtime_ns)


@functools.cache
def _parsed(path: Path, time: int) -> Module:
    """Return a module as it was at a time; several chapters import the same."""
    return Module.read(path.read_text(encoding="utf-8"), path)


@functools.cache
def _file_digest(path: Path, time: int) -> str:
    """Return a file's digest; several chapters use the same data."""
    return digest(path.read_bytes())


# ---- keys


def key(root: Path, notebook: Path, values: Mapping[str, Any], library: Library) -> Key:
    """Return what a notebook's results depend on.

    Parameters
    ----------
    root : Path
        The checkout.
    notebook : Path
        A source.
    values : mapping of str to object
        The parameters that are set, from :func:`companion.notebooks.merge`.
    library : Library
        Of the same checkout.
    """
    settings = defaults(notebook) | dict(values)
    made = ingredients(root, code_cells(notebook), library, f"notebook {notebook}")
    made["files"] |= given(settings)
    made["parameters"] = as_parameters(settings)
    return made


def ingredients(root: Path, cells: Mapping[str, str], library: Library, what: str) -> Key:
    """Return what results depend on, whatever the parameters: cells, source, files, pins.

    Parameters
    ----------
    root : Path
        The checkout.
    cells : mapping of str to str
        Pieces of code by name.
    library : Library
        Of the same checkout.
    what : str
        What the cells belong to, for the message about one that is not Python.
    """
    trees = {}
    try:
        for name, source in cells.items():
            trees[name] = ast.parse(source, f"cell {name}")
    except SyntaxError as error:
        raise PPPError(f"{what}: not Python: {error}") from None
    code = Module.read("\n\n".join(cells.values()), what)
    reached = library.reached(code)
    return {
        "cells": {name: digest(ast.dump(tree)) for name, tree in trees.items()},
        "source": {name: module.digest for name, module in reached.items()},
        "files": library.files(reached, code),
        "pins": _pins(root),
    }


def as_parameters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as a key holds them; where results go is none of them."""
    return {name: json.dumps(value) for name, value in settings.items() if name != "results"}


def given(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the state of folders and files that are parameters: size and time of each file."""
    named: list[Path] = []
    for name, value in settings.items():
        kind = parameters.lookup(name).kind
        if isinstance(kind, parameters.Folder) and kind.exists and value:
            named += sorted(datasets.located(value).rglob("*"))
            named += [paths.DATA / f"{value}.txt"] if value in datasets.SETS else []
        elif name.endswith("weights"):
            named.append(Path(str(value)))
    about = {str(path): path.stat() for path in named if path.is_file()}
    return {name: digest(f"{one.st_size} {one.st_mtime_ns}") for name, one in about.items()}


def undeclared(made: Key, opened: Iterable[Path], root: Path) -> list[Path]:
    """Return which of the files that were opened a key does not hold."""
    known = {(root / name).resolve() for name in made["files"]}
    return sorted(path for path in opened if path not in known)


_TESTS_ALONE = "# Of tests alone"


def _pins(root: Path) -> dict[str, str]:
    """Return the pinned versions that a result may depend on, and Python's."""
    text = (root / "constraints.txt").read_text(encoding="utf-8").partition(_TESTS_ALONE)[0]
    pins = dict(line.split("==") for line in text.splitlines() if re.match(r"[\w.-]+==", line))
    return pins | {"python": ".".join(map(str, sys.version_info[:2]))}


def changes(made: Key, wanted: Key) -> list[str]:
    """Say in a line each what is different in what is wanted from what was made.

    Examples
    --------
    >>> changes({"parameters": {"n": "8"}}, {"parameters": {"n": "64"}, "pins": {"numpy": "2"}})
    ['parameter n: 8 -> 64', 'pinned version numpy: new']
    """
    lines = []
    for kind, after in wanted.items():
        word, before = WORDS.get(kind, kind), made.get(kind, {})
        for name in [*after, *(name for name in before if name not in after)]:
            if name not in before:
                lines.append(f"{word} {name}: new")
            elif name not in after:
                lines.append(f"{word} {name}: no longer used")
            elif before[name] != after[name]:
                shown = kind in ("parameters", "pins")
                how = f"{before[name]} -> {after[name]}" if shown else "changed"
                lines.append(f"{word} {name}: {how}")
    return lines


def load(path: Path) -> Key | None:
    """Read a key, or nothing if there is none that can be read."""
    try:
        return documents.read_json(path)
    except PPPError:
        return None


def store(path: Path, made: Any) -> None:
    """Write a key, whole or not at all."""
    files.write(path, json.dumps(made, indent=1).encode())


_LONG_AGO = 946_684_800  # the year 2000, s


def want(path: Path, wanted: Key, made: Path) -> None:
    """Write what is wanted, with a time before everything that was made if that is the same.

    Snakemake compares times; a key compares contents. The one follows from the other here.
    """
    if load(path) != wanted:
        store(path, wanted)
    if load(made) == wanted:
        os.utime(path, (_LONG_AGO, _LONG_AGO))
    elif path.stat().st_mtime <= _LONG_AGO:
        os.utime(path)
