"""The book is built: chapters are run, their pages made and published, set for paper."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from companion import notebooks, processes
from companion.book.plan import (
    BOOK,
    COMMAND,
    LABORATORY,
    MAKE_LABORATORY,
    BookError,
    Build,
)
from companion.notebooks import staleness
from ppp import files
from studies.storage import outputs

MAKING = ".making-"
"""What the folders begin with in which something is made; a killed build leaves one behind."""


def run_chapter(build: Build, stem: str) -> None:
    """Run a chapter and note what it was made from.

    A variant takes the chapter over from the plain build of its profile, if that was made
    from the same. One that refuses its changed parameters becomes a page that says so.

    Raises
    ------
    BookError
        The chapter opened a file that its key does not hold; or a source changed while it ran,
        so that nobody knows what it was made from.
    """
    key = build.key(stem)
    plain = Build(build.root, build.profile)
    build.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build.folder, prefix=MAKING) as fresh:
        output, results = Path(fresh, f"{stem}.ipynb"), Path(fresh, "results")
        if build.changes and plain.made(stem) == key:
            shutil.copytree(plain.results(stem), results)
            shutil.copy(plain.executed(stem), output)
        else:
            _check_opened(build, stem, key, _execute(build, stem, output, results))
        if build.key(stem) != key:
            raise BookError(f"chapter {stem}: its sources changed while it ran; build again")
        build.note("made", stem).unlink(missing_ok=True)
        for new, place in ((output, build.executed(stem)), (results, build.results(stem))):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                os.replace(place, Path(fresh, "previous"))
            os.replace(new, place)
    staleness.store(build.note("made", stem), key)


def _execute(build: Build, stem: str, output: Path, results: Path) -> list[Path]:
    """Run a chapter and return what it opened; of one that fails, keep what it got to."""
    failed = build.failure(stem).with_suffix(".ipynb")
    failed.unlink(missing_ok=True)
    try:
        named = build.results(stem)
        return notebooks.execute(build.notebook(stem), output, build.values(stem), results, named)
    except notebooks.NotebookError as error:
        if not build.changed(stem):
            raise
        _refused(build.notebook(stem), output, str(error))
        return []
    except notebooks.NotebookFailed as error:
        files.write(failed, error.content)
        raise notebooks.NotebookFailed(f"{error}; as far as it got: {failed}") from None


def _refused(notebook: Path, output: Path, reason: str) -> None:
    import nbformat

    title = nbformat.read(notebook, as_version=4).cells[0].source.splitlines()[0]
    text = f"{title}\n\nThis chapter refuses the changed parameters:\n\n```text\n{reason}\n```"
    cell = nbformat.v4.new_markdown_cell(text, id="refused")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), output)


def _check_opened(build: Build, stem: str, key: staleness.Key, opened: list[Path]) -> None:
    """Refuse results that depend on a file without anybody knowing; `ppp why` repeats it."""
    build.failure(stem).unlink(missing_ok=True)
    root = build.root
    unknown = staleness.undeclared(key, opened, root)
    names = [str(one.relative_to(root) if one.is_relative_to(root) else one) for one in unknown]
    if names:
        reason = (
            f"chapter {stem} opened {', '.join(names)}, which nothing declares; open data through "
            'studies.paths.data("..."), and a file of your own by `photos`, `weights` or `sweep`'
        )
        files.write(build.failure(stem), reason.encode())
        raise BookError(reason)


def make_laboratory(build: Build) -> None:
    """Make the page in which a network runs, and note what it was made from.

    Raises
    ------
    BookError
        It was not made, or a source changed meanwhile.
    """
    key, plain = build.key(LABORATORY), Build(build.root, build.profile)
    with tempfile.TemporaryDirectory(dir=build.folder, prefix=MAKING) as fresh:
        page = Path(fresh, build.laboratory.name)
        if build.changes and plain.made(LABORATORY) == key:
            shutil.copy(plain.laboratory, page)
        elif processes.run([sys.executable, "-c", MAKE_LABORATORY, str(page)], cwd=build.root):
            raise BookError("the laboratory was not made; the reason is above")
        if build.key(LABORATORY) != key:
            raise BookError("the laboratory: its sources changed while it was made; build again")
        os.replace(page, build.laboratory)
    staleness.store(build.note("made", LABORATORY), key)


def publish(build: Build, cores: int = 1) -> None:
    """Assemble the sources, turn them into pages, and publish these."""
    from companion.book import pages

    wanted = staleness.load(build.note("wanted", BOOK))
    pages.assemble(build, build.folder / "book")
    render(build.folder / "book", build.html, cores)
    staleness.store(build.note("made", BOOK), wanted)


# Jupyter Book's own command has no word for the number of processes.
_RENDER = """\
import sys
from jupyter_book.sphinx import build_sphinx

sources, target, cores = sys.argv[1:]
settings = {"external_toc_path": f"{sources}/_toc.yml", "latex_individualpages": False}
gate = {"freshenv": True, "warningiserror": True, "keep_going": True, "quiet": True}
places = {"noconfig": True, "path_config": f"{sources}/_config.yml", "confoverrides": settings}
sys.exit(bool(build_sphinx(sources, target, jobs=int(cores), **places, **gate)))
"""


def render(sources: Path, html: Path, cores: int = 1) -> None:
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
        command = [sys.executable, "-c", _RENDER, str(sources), f"{fresh}/html", str(cores)]
        if processes.run(command, stdout=subprocess.DEVNULL):
            raise BookError(f"the pages were not published: see the warnings above ({sources})")
        replace_by_link(Path(fresh, "html"), html)


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
        for left in wanted.folder.glob(f"{MAKING}*"):
            shutil.rmtree(left, ignore_errors=True)
        if not (stale := wanted.want()):
            print("Nothing to be done: all pages are up to date.", file=sys.stderr)
            return wanted.html / "index.html"
        # A notebook has one processor, and so one thread, unless the environment says otherwise.
        known = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), WANTED: "1"}
        with contextlib.ExitStack() as stack:
            if stale != [BOOK]:
                from companion.notebooks import kernels

                known |= stack.enter_context(kernels.warm(wanted.root, known))
            if processes.run(command, known, cwd=wanted.root):
                raise BookError(f"the book ({wanted.name}) was not built; the reason is above")
    return wanted.html / "index.html"


_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
_TEX = ("xelatex", "latexmk")
_PDF = "ppp-companion.pdf"


def pdf(wanted: Build) -> Path:
    """Set a book that has been built with LaTeX; return the file.

    Raises
    ------
    BookError
        LaTeX is missing, the chapters are not up to date, or LaTeX failed.
    """
    if missing := [name for name in _TEX if shutil.which(name) is None]:
        raise BookError(
            f"{' and '.join(missing)} not found; install LaTeX (on Debian: texlive-xetex "
            "texlive-latex-extra texlive-fonts-recommended texlive-fonts-extra latexmk)"
        )
    with locked(wanted.root):
        for stem in wanted.stems:
            if stale := wanted.why(stem):
                raise BookError(f"chapter {stem}: {stale[0]}; build the book first")
        from companion.book import pages

        sources = wanted.folder / "printed"
        pages.assemble(wanted, sources, printed=True)
        with tempfile.TemporaryDirectory(dir=wanted.folder, prefix=MAKING) as fresh:
            command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(sources), "--all", "-q"]
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
