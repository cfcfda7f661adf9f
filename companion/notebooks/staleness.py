"""What a chapter was made from, as a key; a chapter is stale when its key has changed.

A key has a digest for every code cell, for every module of the checkout that running the cells
may import, for every file of data that these open through :func:`studies.paths.data`, for every
parameter and for every pinned version. Comments, docstrings and prose are in none of them: they
change no result.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from companion.notebooks.modules import Library, Module, bare, digest, state
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


def without_texts(code: str) -> str:
    """Return code without docstrings and comments, which change no result.

    Examples
    --------
    >>> without_texts("'Doc.'; n = 1  # one")
    'n = 1'
    """
    return ast.unparse(bare(code))


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
    states = {str(path): state(path) for path in named if path.is_file()}
    return {name: digest(f"{size} {time}") for name, (size, time) in states.items()}


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
        before, word = made.get(kind, {}), WORDS.get(kind, kind)
        for name in {**after, **before}:
            old, new = before.get(name), after.get(name)
            if old is None or new is None:
                lines.append(f"{word} {name}: {'new' if old is None else 'no longer used'}")
            elif old != new:
                how = f"{old} -> {new}" if kind in ("parameters", "pins") else "changed"
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


def want(path: Path, wanted: Key, made: Path) -> bool:
    """Write what is wanted, with a time before everything that was made if that is the same.

    Tell whether it is not. Snakemake compares times; a key compares contents. The one follows
    from the other here.
    """
    if load(path) != wanted:
        store(path, wanted)
    if fresh := load(made) == wanted:
        os.utime(path, (_LONG_AGO, _LONG_AGO))
    elif path.stat().st_mtime <= _LONG_AGO:
        os.utime(path)
    return not fresh
