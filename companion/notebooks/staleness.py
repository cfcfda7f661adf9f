"""What a chapter was made from, as a key; a chapter is stale when its key has changed.

A key has a digest for every code cell, for every definition of `ppp` that the cells reach, for
every file of data that these name, for every parameter and for every pinned version. Comments,
docstrings and prose are in none of them: they change no result.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from companion import notebooks
from ppp import files
from ppp.errors import PPPError
from studies import parameters
from studies.pictures import datasets
from studies.storage import documents

Key = dict[str, dict[str, str]]
"""Ingredients by kind: kind -> name -> digest, or the value itself if it is short."""

WORDS = {
    "cells": "cell",
    "source": "definition",
    "files": "file",
    "parameters": "parameter",
    "pins": "pinned version",
}
"""What one ingredient of a kind is called; any other kind is called as it is."""

_BODY = "<module>"
Node = tuple[str, str]  # a module, and a name that its top level defines


def digest(text: str | bytes) -> str:
    """Return twelve hexadecimal digits that stand for a text."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:12]


@dataclass(frozen=True)
class Definition:
    """One definition at the top level of a module, as its syntax trees."""

    trees: tuple[ast.AST, ...]

    @cached_property
    def digest(self) -> str:
        return digest("\n".join(ast.dump(tree) for tree in self.trees))

    @cached_property
    def texts(self) -> set[str]:
        """Every short text in it: a name of a file, perhaps."""
        constants = (
            node.value
            for tree in self.trees
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
        )
        return {text for text in constants if isinstance(text, str) and len(text) < 100}


def _bare(tree: ast.AST) -> ast.AST:
    """Take docstrings and everything else that stands alone as a text out of a tree."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not _is_text(part)]
            node.body = kept or ([ast.Pass()] if body else [])
    return tree


def without_texts(code: str) -> str:
    """Return code without docstrings and comments, which change no result.

    Examples
    --------
    >>> without_texts("'Doc.'; n = 1  # one")
    'n = 1'
    """
    return ast.unparse(_bare(ast.parse(code)))


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


class Module:
    """A parsed module: its definitions, and what its names stand for."""

    def __init__(self, name: str, text: str, package: bool) -> None:
        self.name = name
        tree = _bare(ast.parse(text))
        found: dict[str, list[ast.AST]] = {}
        self.aliases: dict[str, list[str]] = {}
        for node in ast.walk(tree):
            self._imports(node)
        for node in tree.body:
            for defined in _defines(node) or [_BODY]:
                found.setdefault(defined, []).append(node)
        self.definitions = {key: Definition(tuple(trees)) for key, trees in found.items()}
        self.lazy = _lazy(tree) if package else {}

    def _imports(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for name in node.names:
                # `import a.b` binds a; `import a.b as c` binds a.b
                target = name.name if name.asname else name.name.partition(".")[0]
                self.aliases.setdefault(name.asname or target, []).append(target)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                dotted = f"{node.module}.{name.name}"
                self.aliases.setdefault(name.asname or name.name, []).append(dotted)


def _lazy(tree: ast.Module) -> dict[str, str]:
    """Return what a package's table `_MODULES` imports at first use: name -> module."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="_MODULES")], value=ast.Dict()):
                return ast.literal_eval(node.value)
    return {}


def _defines(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [
                n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)
            ]
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return [name]
    return []


class Library:
    """The modules of `ppp`, and which of their definitions a piece of code reaches."""

    def __init__(self, root: Path, packages: Sequence[str] = ("ppp", "studies")) -> None:
        self.root, self.packages = root, packages
        self._known: dict[tuple[ast.AST, ...], list[Node]] = {}
        self.modules: dict[str, Module] = {}
        for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            try:
                text = path.read_text(encoding="utf-8")
                self.modules[name] = Module(name, text, parts[-1] == "__init__")
            except (SyntaxError, ValueError) as error:
                raise PPPError(f"{path}: not a module of Python ({error})") from None

    def reached(self, code: str) -> dict[Node, Definition]:
        """Return every definition that `code` can reach, whichever way it goes.

        A name reaches what it stands for; a module that is handed on as a whole reaches all
        of its definitions; the statements at the top of an imported module always count.
        """
        start = Module("", code, package=False)
        found: dict[Node, Definition] = {}
        for definition in start.definitions.values():
            for node in self._references(start, definition):
                self._add(node, found)
        return found

    def _add(self, node: Node, found: dict[Node, Definition]) -> None:
        waiting = [node]
        while waiting:
            name, defined = waiting.pop()
            module = self.modules[name]
            if (name, defined) in found or defined not in module.definitions:
                continue
            definition = found[name, defined] = module.definitions[defined]
            waiting += self._references(module, definition)
            waiting += self._run_by_importing(name)

    def _run_by_importing(self, name: str) -> Iterator[Node]:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            yield ".".join(parts[:length]), _BODY

    def _references(self, module: Module, definition: Definition) -> list[Node]:
        """Return what a definition names; it is asked for every chapter, and found once."""
        if definition.trees not in self._known:
            found = {node for tree in definition.trees for node in self._within(module, tree)}
            self._known[definition.trees] = sorted(found)
        return self._known[definition.trees]

    def _within(self, module: Module, tree: ast.AST) -> Iterator[Node]:
        match tree:
            case ast.Import() | ast.ImportFrom():
                yield from self._imported(tree)
                return
            case ast.Attribute():
                chain = _chain(tree)
                if chain:
                    yield from self._named(module, chain)
                    return
            case ast.Name():
                yield from self._named(module, [tree.id])
                return
        for child in ast.iter_child_nodes(tree):
            yield from self._within(module, child)

    def _imported(self, tree: ast.Import | ast.ImportFrom) -> Iterator[Node]:
        names = [name.name for name in tree.names]
        if isinstance(tree, ast.ImportFrom):
            names = [f"{tree.module}.{name}" for name in names]
        for name in names:
            while name and name not in self.modules:
                name = name.rpartition(".")[0]
            if name:
                yield from self._run_by_importing(name)

    def _named(self, module: Module, chain: list[str]) -> Iterator[Node]:
        """Resolve ``a.b.c``, the first part of which is a name in `module`."""
        first, *rest = chain
        if first in module.definitions and module.name:
            yield module.name, first
        for target in module.aliases.get(first, []):
            yield from self._resolve(target.split(".") + rest)

    def _resolve(self, parts: list[str]) -> Iterator[Node]:
        if parts[0] not in self.packages:
            return
        name = ""
        while parts and (longer := f"{name}.{parts[0]}".lstrip(".")) in self.modules:
            name, parts = longer, parts[1:]
        yield from self._run_by_importing(name)
        module = self.modules[name]
        if not parts:  # the module as a whole, such as one that is handed to a function
            yield from ((name, defined) for defined in module.definitions)
        elif parts[0] in module.lazy:
            yield name, "__getattr__"
            yield from self._resolve([*name.split("."), module.lazy[parts[0]], *parts])
        elif parts[0] in module.definitions:
            yield name, parts[0]
        else:
            for target in module.aliases.get(parts[0], []):
                yield from self._resolve(target.split(".") + parts[1:])


def _chain(tree: ast.AST) -> list[str]:
    """Return the parts of ``a.b.c``, or nothing if it does not begin with a name."""
    parts = []
    while isinstance(tree, ast.Attribute):
        parts.append(tree.attr)
        tree = tree.value
    return [tree.id, *reversed(parts)] if isinstance(tree, ast.Name) else []


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
    settings = notebooks.defaults(notebook) | dict(values)
    found = ingredients(root, code_cells(notebook), library, f"notebook {notebook}")
    found["files"] |= given(settings)
    found["parameters"] = as_parameters(settings)
    return found


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
    digests = {}
    for name, source in cells.items():
        try:
            digests[name] = digest(ast.dump(ast.parse(source)))
        except SyntaxError as error:
            raise PPPError(f"{what}: cell {name} is not Python ({error})") from None
    reached = library.reached("\n\n".join(cells.values()))
    texts = set().union(*(definition.texts for definition in reached.values()), cells.values())
    return {
        "cells": digests,
        "source": {
            f"{module}.{name}": definition.digest
            for (module, name), definition in sorted(reached.items())
        },
        "files": _files(root, texts),
        "pins": _pins(root),
    }


def as_parameters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return parameters as a key holds them; where results go is none of them."""
    return {name: json.dumps(value) for name, value in settings.items() if name != "results"}


def code_cells(notebook: Path) -> dict[str, str]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return {
        cell.get("id", f"cell {number}"): "".join(cell["source"])
        for number, cell in enumerate(content["cells"])
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    }


def _files(root: Path, texts: set[str]) -> dict[str, str]:
    """Return the data that a text names: a file of `data` or `ppp`, or a folder with all of it."""
    named = [path for path in (root / "data").glob("*") if path.name in texts]
    styles = (path for path in (root / "studies").rglob("*") if path.suffix not in (".py", ".pyc"))
    named += [path for path in styles if path.is_file() and path.name in texts]
    files = (inside for path in named for inside in (path.rglob("*") if path.is_dir() else [path]))
    return {
        path.relative_to(root).as_posix(): _file_digest(path, path.stat().st_mtime_ns)
        for path in sorted(files)
        if path.is_file() and path.suffix != ".md"
    }


@functools.cache
def _file_digest(path: Path, time: int) -> str:
    """Return a file's digest; several chapters use the same data."""
    return digest(path.read_bytes())


def given(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the state of folders and files that are parameters: size and time of each file."""
    found = {}
    for name, value in settings.items():
        kind = parameters.lookup(name).kind
        if isinstance(kind, parameters.Folder) and kind.exists and value:
            paths: Iterable[Path] = sorted(datasets.located(value).rglob("*"))
        elif name.endswith("weights") and Path(str(value)).is_file():
            paths = [Path(value)]
        else:
            continue
        for path in paths:
            if path.is_file():
                about = path.stat()
                found[str(path)] = digest(f"{about.st_size} {about.st_mtime_ns}")
    return found


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
