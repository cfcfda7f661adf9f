"""The book: what it consists of, how its sources come together, how they become pages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from companion import notebooks, processes
from companion.notebooks import staleness
from ppp import files
from ppp.errors import ParameterError, PPPError, unknown
from studies.storage import outputs

_BUILD_BOOK = "from jupyter_book.cli.main import main; main()"


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

COMMAND = "ppp build"
MAKING = ".making-"
"""What the folders begin with in which something is made; a killed build leaves one behind."""

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
        profile = config.get("profile", "standard")
        changes = config.get("changes", {})  # Snakemake may have read it already
        return cls(
            root.resolve(), profile, json.loads(changes) if isinstance(changes, str) else changes
        )

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

    def notebook(self, stem: str) -> Path:
        return self.root / "notebooks" / f"{stem}.ipynb"

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
        for name in self.changes:
            if name == "results" or name not in {*known, PADDING}:
                raise ParameterError(unknown("parameter", name, {*known, PADDING} - {"results"}))
        for stem in self.stems:
            self.values(stem)

    # ---- keys

    @cached_property
    def _library(self) -> staleness.Library:
        return staleness.Library(self.root)

    def key(self, stem: str) -> staleness.Key:
        """Return what a chapter's results depend on."""
        return staleness.key(self.root, self.notebook(stem), self.values(stem), self._library)

    def keys(self) -> dict[str, staleness.Key]:
        """Return the keys of all chapters."""
        return {stem: self.key(stem) for stem in self.stems}

    def made(self, name: str) -> staleness.Key | None:
        """Return what a chapter, or the book, was made from; nothing if it was not made."""
        return staleness.load(self._made(name))

    def _made(self, name: str) -> Path:
        return self.folder / "made" / f"{name}.json"

    def _wanted(self, name: str) -> Path:
        return self.folder / "wanted" / f"{name}.json"

    def book_key(self, chapters: Mapping[str, staleness.Key]) -> staleness.Key:
        """Return what the pages depend on, given the keys of the chapters."""
        patterns = {
            "page": ("book/**/*", "notebooks/*.ipynb", "exercises/*.md", "*.md", "CITATION.cff"),
            "text of": ("ppp/**/*.py", "studies/**/*", "companion/**/*"),
        }
        found: staleness.Key = {}
        for kind, globs in patterns.items():
            paths = {path for pattern in globs for path in self.root.glob(pattern)}
            found[kind] = {
                path.relative_to(self.root).as_posix(): staleness.digest(path.read_bytes())
                for path in sorted(paths)
                if path.is_file() and "__pycache__" not in path.parts
            }
        found["chapter"] = {
            stem: staleness.digest(json.dumps(key, sort_keys=True))
            for stem, key in chapters.items()
        }
        found["address"] = {"repository": repository()}
        return found

    def want(self) -> None:
        """Write the keys of what is wanted, for Snakemake to compare."""
        outputs.claim(self.folder, COMMAND, "move it away, or run 'make clean'")
        chapters = self.keys()
        for stem in chapters:
            if not (self.executed(stem).is_file() and self.results(stem).is_dir()):
                self._made(stem).unlink(missing_ok=True)
        if not (self.html / "index.html").exists():
            self._made(BOOK).unlink(missing_ok=True)
        for name, key in {**chapters, BOOK: self.book_key(chapters)}.items():
            staleness.want(self._wanted(name), key, self._made(name))

    def why(self, page: str) -> list[str]:
        """Say what has changed since a page was made; nothing if nothing has.

        Parameters
        ----------
        page : str
            A chapter, as :func:`companion.notebooks.find` takes it, or ``book`` for all pages.
        """
        name = page if page == BOOK else notebooks.find(page, self.root / "notebooks").stem
        made = self.made(name)
        if made is None:
            return ["it has not been made"]
        wanted = self.book_key(self.keys()) if page == BOOK else self.key(name)
        return staleness.changes(made, wanted)

    # ---- making

    def run_chapter(self, stem: str) -> None:
        """Run a chapter and note what it was made from.

        A variant takes the chapter over from the plain build of its profile, if that was made
        from the same. One that refuses its changed parameters becomes a page that says so.

        Raises
        ------
        BookError
            A source changed while the chapter ran, so that nobody knows what it was made from.
        """
        key = self.key(stem)
        plain = Build(self.root, self.profile)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=MAKING) as fresh:
            output, results = Path(fresh, f"{stem}.ipynb"), Path(fresh, "results")
            if self.changes and plain.made(stem) == key:
                shutil.copytree(plain.results(stem), results)
                shutil.copy(plain.executed(stem), output)
            else:
                self._execute(stem, output, results)
            if Build(self.root, self.profile, self.changes).key(stem) != key:
                raise BookError(f"chapter {stem}: its sources changed while it ran; build again")
            self._made(stem).unlink(missing_ok=True)
            for new, place in ((output, self.executed(stem)), (results, self.results(stem))):
                place.parent.mkdir(parents=True, exist_ok=True)
                if place.is_dir():
                    os.replace(place, Path(fresh, "previous"))
                os.replace(new, place)
        staleness.store(self._made(stem), key)

    def _execute(self, stem: str, output: Path, results: Path) -> None:
        """Run a chapter; of one that fails, what it got to is kept in its place in ``failed``."""
        failed = self.folder / "failed" / f"{stem}.ipynb"
        failed.unlink(missing_ok=True)
        try:
            named = self.results(stem)
            notebooks.execute(self.notebook(stem), output, self.values(stem), results, named)
        except notebooks.NotebookError as error:
            if not self.changed(stem):
                raise
            self._refused(stem, output, str(error))
        except notebooks.NotebookFailed as error:
            files.write(failed, error.content)
            raise notebooks.NotebookFailed(f"{error}; as far as it got: {failed}") from None

    def executed(self, stem: str) -> Path:
        return self.folder / "notebooks" / f"{stem}.ipynb"

    def results(self, stem: str) -> Path:
        return self.folder / "results" / stem

    def _refused(self, stem: str, output: Path, reason: str) -> None:
        import nbformat

        title = nbformat.read(self.notebook(stem), as_version=4).cells[0].source.splitlines()[0]
        text = f"{title}\n\nThis chapter refuses the changed parameters:\n\n```text\n{reason}\n```"
        cell = nbformat.v4.new_markdown_cell(text, id="refused")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), output)

    def publish(self) -> None:
        """Assemble the sources, turn them into pages, and publish these."""
        from companion.book import pages

        wanted = staleness.load(self._wanted(BOOK))
        pages.assemble(self, self.folder / "book")
        render(self.folder / "book", self.html)
        staleness.store(self._made(BOOK), wanted)


def repository() -> str:
    """Return the address of the project's repository, as the environment gives it, or nothing."""
    return os.environ.get("PPP_REPOSITORY", "").rstrip("/")


def render(sources: Path, html: Path) -> None:
    """Turn assembled sources into pages, and publish them if there was not one warning.

    A second build of the same folder does not repeat its warnings, so that every build
    starts in an empty one. `html` is a link to a folder of pages; it changes from one folder to
    the next in a single step, so that at any moment either all pages are the old ones or all new.

    Raises
    ------
    BookError
        The build gave a warning or failed; its own report went to the screen.
    """
    html.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=html.parent, prefix=MAKING) as fresh:
        command = [sys.executable, "-c", _BUILD_BOOK, "build", str(sources), "--all", "-q"]
        command += ["-W", "--keep-going", "--path-output", fresh]
        # Its closing words name the folder that is about to move.
        if processes.run(command, stdout=subprocess.DEVNULL):
            raise BookError(f"the pages were not published: see the warnings above ({sources})")
        replace_by_link(Path(fresh, "_build", "html"), html)


def replace_by_link(fresh: Path, link: Path) -> None:
    """Let `link` point to the folder `fresh`, which moves beside it; what it was goes."""
    target = Path(tempfile.mkdtemp(dir=link.parent, prefix=f".{link.name}-"))
    os.replace(fresh, target)
    target.chmod(0o755)
    following = link.with_name(f".{link.name}.link")
    following.unlink(missing_ok=True)
    following.symlink_to(target.name)
    if link.exists() and not link.is_symlink():
        os.replace(link, tempfile.mkdtemp(dir=link.parent, prefix=f".{link.name}-"))
    os.replace(following, link)
    for old in link.parent.glob(f".{link.name}-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


WANTED = "PPP_WANTED"
"""In the environment of Snakemake: the keys have been written just now."""


def build(wanted: Build, cores: int = 2) -> Path:
    """Run what is out of date of the notebooks, one on each core; then the pages.

    Returns
    -------
    Path
        The first page.

    Raises
    ------
    BookError
        A step failed, or another build of this checkout is going on.
    """
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--rerun-incomplete"]
    # The lock here goes with the process, however that ends; Snakemake's own stays after a kill.
    command += ["--force-use-threads", "--nolock", "--quiet", "rules", "host"]
    command += ["--rerun-triggers", "mtime", "--config", f"profile={wanted.profile}"]
    command += [f"changes={json.dumps(dict(wanted.changes))!r}"]
    with locked(wanted.root):
        wanted.want()
        for left in wanted.folder.glob(f"{MAKING}*"):
            shutil.rmtree(left, ignore_errors=True)
        # A notebook has one processor, and so one thread, unless the environment says otherwise.
        known = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), WANTED: "1"}
        if processes.run(command, known, cwd=wanted.root):
            raise BookError(f"the book ({wanted.name}) was not built; the reason is above")
    return wanted.html / "index.html"


_TEX = ("xelatex", "latexmk")
_PDF = "ppp-companion.pdf"


def pdf(wanted: Build) -> Path:
    """Set a book that has been built with LaTeX; return the file.

    Raises
    ------
    BookError
        LaTeX is missing, the chapters are not up to date, or LaTeX failed.
    """
    from companion.book import pages

    if missing := [name for name in _TEX if shutil.which(name) is None]:
        raise BookError(
            f"{' and '.join(missing)} not found; install LaTeX (on Debian: texlive-xetex "
            "texlive-latex-extra texlive-fonts-recommended texlive-fonts-extra latexmk)"
        )
    with locked(wanted.root):
        for stem in wanted.stems:
            if stale := wanted.why(stem):
                raise BookError(f"chapter {stem}: {stale[0]}; build the book first")
        sources = wanted.folder / "printed"
        pages.assemble(wanted, sources, printed=True)
        with tempfile.TemporaryDirectory(dir=wanted.folder, prefix=MAKING) as fresh:
            command = [sys.executable, "-c", _BUILD_BOOK, "build", str(sources), "--all", "-q"]
            command += ["--builder", "pdflatex", "--path-output", fresh]
            log = wanted.folder / "pdf.log"
            with log.open("w") as report:
                code = processes.run(command, stdout=report, stderr=subprocess.STDOUT)
            made = sorted(Path(fresh, "_build", "latex").glob("*.pdf"))
            if code or len(made) != 1:
                raise BookError(f"LaTeX failed; its report is {log}")
            os.replace(made[0], wanted.folder / _PDF)
    return wanted.folder / _PDF


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the one lock of the folder of builds, or refuse."""
    (root / "build").mkdir(exist_ok=True)
    with outputs.held(root / "build" / outputs.LOCK, COMMAND):
        yield
