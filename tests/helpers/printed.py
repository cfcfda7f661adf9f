"""Every command and block of code that README, pages and exercises print."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from studies.paths import ROOT

FENCED = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2[ \t]*$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`((?:ppp|make|pip|papermill|bash|python) [^`\n]+)`(?!`)")
PROGRAMS = ("ppp", "make", "pip", "papermill", "bash", "git", "cd", "jupyter", "code")

NOT_CODE = {"", "text", "bibtex", "yaml", "console", "{eval-rst}", "{bibliography}", "{figure}"}
"""Fences that hold no Python; commands are looked for in those without a word, and in bash."""


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    language: str
    text: str


def pages() -> Iterator[tuple[str, str]]:
    """Yield name and text of README and its likes, the book's pages, chapters and exercises."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
    files += sorted((ROOT / "studies").rglob("*.md")) + sorted((ROOT / "data").rglob("*.md"))
    files += sorted((ROOT / "book").glob("*.md")) + sorted((ROOT / "exercises").glob("*.md"))
    for path in files:
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        yield path.relative_to(ROOT).as_posix(), "\n\n".join(prose)


def blocks() -> Iterator[Block]:
    """Yield every block; those of exercises that ``ppp course --check`` runs are left out."""
    for page, text in pages():
        for found in FENCED.finditer(text):
            language, *kind = found[3].split() or [""]
            if not (page.startswith("exercises/") and kind):
                yield Block(page, language, found[4])


def commands() -> dict[str, list[str]]:
    """Return every printed command, as it is typed, and the pages that print it."""
    found: dict[str, list[str]] = {}
    for page, text in pages():
        lines = [one for block in FENCED.finditer(text) if not block[3].strip().startswith("python")
                 for one in block[4].splitlines()]  # fmt: skip
        lines += INLINE.findall(FENCED.sub("", text))
        for line in lines:
            for command in _commands(line):
                found.setdefault(command, []).append(page)
    return found


def _commands(line: str) -> Iterator[str]:
    """Yield the commands of a line, without its comment."""
    line = re.split(r"\s#\s", f"{line} ")[0].strip()
    for command in line.split(" && "):
        if command.split(" ")[0] in PROGRAMS and " " in command:
            yield command


def words(command: str) -> list[str]:
    return shlex.split(command)
