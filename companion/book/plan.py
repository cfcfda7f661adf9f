"""A build of the book: which chapters it has, where its parts lie, from what they are made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from companion import notebooks
from companion.notebooks import staleness
from ppp.errors import ParameterError, PPPError, unknown
from studies.storage import outputs


class BookError(PPPError):
    """A book that cannot be assembled, or pages with warnings."""


def stems(toc: Path) -> list[str]:
    """Return the stems of the notebooks that a table of contents lists, in its order."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    return [
        Path(page).name for page in parse_toc_yaml(toc) if Path(page).parent.name == "notebooks"
    ]


BOOK = "book"
"""Among the names of chapters: all pages together."""

LABORATORY = "laboratory"
"""Among them: the page in which a network runs, in a book whose checkout has its data."""

MAKE_LABORATORY = """\
import sys
from pathlib import Path

from companion.laboratory import page
from ppp import files

files.write(Path(sys.argv[1]), page.make().encode())
"""
"""What makes it, in a process of its own, into the file that is its argument."""

COMMAND = "ppp build"
PADDING = "padding"
"""In a variant, short for `scheme` and `schemes` wherever a chapter has them."""


@dataclass(frozen=True)
class Build:
    """One build of the book: a profile, and for a variant the parameters that it changes.

    Everything that is made lies in `folder`: ``wanted`` and ``made`` (keys), ``notebooks`` and
    ``results`` (of the chapters), ``book`` (the assembled sources) and ``html`` (the pages).
    """

    root: Path
    profile: str = "standard"
    changes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path, config: Mapping[str, Any]) -> Build:
        """Return the build that Snakemake's configuration asks for."""
        changes = config.get("changes", {})
        if isinstance(changes, str):  # Snakemake may have read it already
            changes = json.loads(changes)
        return cls(root.resolve(), config.get("profile", "standard"), changes)

    @property
    def name(self) -> str:
        """What its folder is called.

        Examples
        --------
        >>> Build(Path("."), "quick").name
        'quick'
        >>> Build(Path("."), "quick", {"n": "64"}).name
        'quick-n-64-64dca9'
        """
        if not self.changes:
            return self.profile
        words = "-".join(f"{name}-{value}" for name, value in self.changes.items())
        short = re.sub(r"\W+", "-", words).strip("-")[:40]
        return f"{self.profile}-{short}-{notebooks.digest(self.changes)[:6]}"

    @property
    def folder(self) -> Path:
        return self.root / "build" / self.name

    @property
    def html(self) -> Path:
        return self.folder / "html"

    @cached_property
    def stems(self) -> list[str]:
        return stems(self.root / "book" / "_toc.yml")

    @property
    def parts(self) -> list[str]:
        """What is made before the pages: the chapters, and the laboratory if there is one."""
        there = (self.root / "data" / LABORATORY).is_dir()
        return [*self.stems, LABORATORY] if there else self.stems

    def notebook(self, stem: str) -> Path:
        return self.root / "notebooks" / f"{stem}.ipynb"

    def executed(self, stem: str) -> Path:
        return self.folder / "notebooks" / f"{stem}.ipynb"

    def results(self, stem: str) -> Path:
        return self.folder / "results" / stem

    @property
    def laboratory(self) -> Path:
        return self.folder / f"{LABORATORY}.html"

    def failure(self, stem: str) -> Path:
        """Return the file that says what a chapter opened without declaring it, if it did."""
        return self.folder / "failed" / f"{stem}.txt"

    # ---- parameters

    def changed(self, stem: str) -> dict[str, str]:
        """Return what a variant changes in one chapter, as text."""
        names = notebooks.defaults(self.notebook(stem))
        changes = {}
        for name, value in self.changes.items():
            meant = ("scheme", "schemes") if name == PADDING else (name,)
            changes |= {one: value for one in meant if one in names}
        return changes

    def values(self, stem: str) -> dict[str, Any]:
        """Return the parameters that the build sets in one chapter."""
        notebook = self.notebook(stem)
        values = notebooks.defaults(notebook)
        changes = notebooks.profile_values(
            self.profile, notebook, values, self.root / "profiles.yaml"
        )
        return changes | notebooks.merge(values, self.changed(stem), text=True)

    def check(self) -> None:
        """Refuse a variant that no chapter has a parameter for, or with a value it may not take."""
        known = {name for stem in self.stems for name in notebooks.defaults(self.notebook(stem))}
        known = known - {"results"} | {PADDING}
        for name in self.changes:
            if name not in known:
                raise ParameterError(unknown("parameter", name, known))
        for stem in self.stems:
            self.values(stem)

    # ---- keys

    def key(self, stem: str) -> staleness.Key:
        """Return what a chapter's results depend on, or the laboratory."""
        if stem == LABORATORY:
            library = staleness.Library(self.root, ("ppp", "studies", "companion"))
            return staleness.ingredients(self.root, {"make": MAKE_LABORATORY}, library, stem)
        library = staleness.Library(self.root)
        return staleness.key(self.root, self.notebook(stem), self.values(stem), library)

    def keys(self) -> dict[str, staleness.Key]:
        """Return the keys of all chapters and of the laboratory."""
        return {stem: self.key(stem) for stem in self.parts}

    def made(self, name: str) -> staleness.Key | None:
        """Return what a chapter, or the book, was made from; nothing if it was not made."""
        return staleness.load(self.note("made", name))

    def note(self, kind: str, name: str) -> Path:
        """Return the file of a key, ``wanted`` or ``made``."""
        return self.folder / kind / f"{name}.json"

    def book_key(self, chapters: Mapping[str, staleness.Key]) -> staleness.Key:
        """Return what the pages depend on, given the keys of the chapters."""
        patterns = {
            "page": ("book/**/*", "notebooks/*.ipynb", "exercises/*.md", "*.md", "CITATION.cff"),
            "text of": ("ppp/**/*.py", "studies/**/*", "companion/**/*"),
        }
        key: staleness.Key = {}
        for kind, globs in patterns.items():
            paths = {path for pattern in globs for path in self.root.glob(pattern)}
            key[kind] = {
                path.relative_to(self.root).as_posix(): staleness.digest(path.read_bytes())
                for path in sorted(paths)
                if path.is_file() and "__pycache__" not in path.parts
            }
        key["chapter"] = {
            stem: staleness.digest(json.dumps(one, sort_keys=True))
            for stem, one in chapters.items()
        }
        return key | {"address": {"repository": repository()}}

    def want(self) -> list[str]:
        """Write the keys of what is wanted, for Snakemake to compare; return what is stale."""
        outputs.claim(self.folder, COMMAND, "move it away, or run 'make clean'")
        chapters = self.keys()
        for stem in self.stems:
            if not (self.executed(stem).is_file() and self.results(stem).is_dir()):
                self.note("made", stem).unlink(missing_ok=True)
        if not self.laboratory.is_file():
            self.note("made", LABORATORY).unlink(missing_ok=True)
        if not (self.html / "index.html").exists():
            self.note("made", BOOK).unlink(missing_ok=True)
        keys = {**chapters, BOOK: self.book_key(chapters)}
        return [
            name
            for name, key in keys.items()
            if staleness.want(self.note("wanted", name), key, self.note("made", name))
        ]

    def why(self, page: str) -> list[str]:
        """Say what has changed since a page was made; nothing if nothing has.

        Parameters
        ----------
        page : str
            A chapter, as :func:`companion.notebooks.find` takes it, ``laboratory``, or ``book``
            for all pages.
        """
        made_alone = page in (BOOK, LABORATORY)
        name = page if made_alone else notebooks.find(page, self.root / "notebooks").stem
        if (made := self.made(name)) is None:
            lines = ["it has not been made"]
        else:
            wanted = self.book_key(self.keys()) if page == BOOK else self.key(name)
            lines = staleness.changes(made, wanted)
        failure = self.failure(name)
        return [failure.read_text("utf-8"), *lines] if lines and failure.exists() else lines


def repository() -> str:
    """Return the address of the project's repository, as the environment gives it, or nothing."""
    return os.environ.get("PPP_REPOSITORY", "").rstrip("/")
