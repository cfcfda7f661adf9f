"""What a piece of code depends on: the modules that it may import, the data that these open.

Nothing is run: imports, wherever they stand, and calls of :func:`studies.paths.data` are read
from the source.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from ppp import files
from ppp.errors import PPPError

DOOR = ("paths.data", "studies.paths.data")
"""What data is opened through, as code calls it; its literal names say which."""


def digest(text: str | bytes) -> str:
    """Return twelve hexadecimal digits that stand for a text."""
    return files.digest(text.encode() if isinstance(text, str) else text)[:12]


def bare(code: str) -> ast.Module:
    """Parse code and leave out what no run depends on: texts alone, imports for types alone."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if not _idle(part)] or [ast.Pass()]
    return tree


def _idle(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return not node.orelse and ast.unparse(node.test).endswith("TYPE_CHECKING")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


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
            tree = bare(code)
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
                case (
                    ast.Assign(targets=[ast.Name(id="_MODULES")], value=ast.Dict() as table)
                    | ast.AnnAssign(target=ast.Name(id="_MODULES"), value=ast.Dict() as table)
                ):
                    module.lazy = ast.literal_eval(table)
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
            path.relative_to(self.root).as_posix(): _file_digest(path, state(path))
            for path in sorted(every)
            if path.is_file() and path.suffix != ".md"
        }


def _beside(source: Path) -> list[Path]:
    """Return the style sheets and scripts of a module; a package has those of no module in it."""
    modules = {one.stem for one in source.parent.glob("*.py")}
    others = (one for one in source.parent.glob("[!.]*.*") if one.suffix not in (".py", ".typed"))
    return [
        one for one in others if source.stem == (one.stem if one.stem in modules else "__init__")
    ]


def state(path: Path) -> tuple[int, int]:
    """Return size and time of a file."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _module(path: Path) -> Module:
    return _parsed(path, state(path))


@functools.cache
def _parsed(path: Path, about: tuple[int, int]) -> Module:
    """Return a module as it was in a state; several chapters import the same."""
    return Module.read(path.read_text(encoding="utf-8"), path)


@functools.cache
def _file_digest(path: Path, about: tuple[int, int]) -> str:
    """Return a file's digest; several chapters use the same data."""
    return digest(path.read_bytes())
