"""The book: what it consists of, how its sources come together, how they become pages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from companion import notebooks
from ppp.errors import PPPError

_BUILD_BOOK = "from jupyter_book.cli.main import main; main()"


class BookError(PPPError):
    """A book that cannot be assembled, or pages with warnings."""


def stems(toc: Path) -> list[str]:
    """Return the stems of the notebooks that a table of contents lists, in its order."""
    from sphinx_external_toc.parsing import parse_toc_yaml

    return [
        Path(page).name for page in parse_toc_yaml(toc) if Path(page).parent.name == "notebooks"
    ]


def sources(root: Path) -> list[Path]:
    """Return the files, other than itself, on which a notebook's outputs depend."""
    patterns = ("ppp/**/*.py", "ppp/**/*.mplstyle", "data/**/*", "constraints.txt")
    files = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(root) for path in files)


def values(root: Path, profile: str, stem: str) -> dict[str, object]:
    """Return the parameters that a profile sets in one notebook of the book."""
    notebook = root / "notebooks" / f"{stem}.ipynb"
    return notebooks.profile_values(profile, notebook, notebooks.defaults(notebook))


def numbers(results: Path, stem: str) -> dict[str, int | float | str]:
    """Read the numbers that prose may quote from a notebook's results.

    Parameters
    ----------
    results : Path
        The notebook's results folder. If it holds ``numbers.json``, a flat object from names
        to numbers or texts, each becomes a substitution.
    stem : str
        ``03-extracting-ppp`` gives each name the prefix ``extracting_ppp_``.

    Raises
    ------
    BookError
        Not such an object, or a name that is no identifier.
    """
    path = results / "numbers.json"
    if not path.exists():
        return {}
    prefix = re.sub(r"\W+", "_", re.sub(r"^\d+-", "", stem))
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_a_number)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        for name, value in found.items():
            if not name.isidentifier() or type(value) not in (int, float, str):
                raise ValueError(f"{name!r} is {value!r}")
    except ValueError as error:
        raise BookError(
            f"{path}: expected names with one finite number or text each ({error})"
        ) from None
    return {f"{prefix}_{name}": value for name, value in found.items()}


def _not_a_number(text: str) -> float:
    raise ValueError(f"{text} is no finite number")


def assemble(sources: Path, executed: Sequence[Path], results: Path, target: Path) -> None:
    """Put the book's sources, executed notebooks and results together in one folder.

    Parameters
    ----------
    sources : Path
        The folder with ``_config.yml``, ``_toc.yml`` and the pages of prose.
    executed : sequence of Path
        Executed notebooks, which go to ``notebooks/``.
    results : Path
        Folder with one folder per notebook, ``STEM/``; they go to ``results/STEM/``.
    target : Path
        What is there already is replaced.

    Raises
    ------
    BookError
        An executed notebook holds an error, or two notebooks claim the same number.
    """
    import nbformat

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(sources, target)
    (target / "notebooks").mkdir(exist_ok=True)
    substitutions: dict[str, int | float | str] = {}
    for path in executed:
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    raise BookError(
                        f"notebook {path}: a cell shows an error ({output.ename}: "
                        f"{output.evalue}); no such page is published"
                    )
        shutil.copy(path, target / "notebooks")
        if (results / path.stem).is_dir():
            shutil.copytree(results / path.stem, target / "results" / path.stem)
        new = numbers(results / path.stem, path.stem)
        if twice := sorted(new.keys() & substitutions):
            raise BookError(f"notebook {path}: the number {twice[0]} exists already")
        substitutions |= new
    config = yaml.safe_load((target / "_config.yml").read_text(encoding="utf-8"))
    config.setdefault("parse", {})["myst_substitutions"] = substitutions
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (target / "_config.yml").write_text(text, encoding="utf-8")


def render(sources: Path, html: Path) -> None:
    """Turn assembled sources into pages, and publish them if there was not one warning.

    A second build of the same folder does not repeat its warnings, so that every build
    starts in an empty one. What stood at `html` stays there until the new pages are whole.

    Raises
    ------
    BookError
        The build gave a warning or failed; its own report went to the screen.
    """
    html.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=html.parent, prefix=".html-") as fresh:
        command = [sys.executable, "-c", _BUILD_BOOK, "build", str(sources), "--all", "-q"]
        command += ["-W", "--keep-going", "--path-output", fresh]
        # Its closing words name the folder that is about to move.
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise BookError(f"the pages were not published: see the warnings above ({sources})")
        if html.exists():
            os.replace(html, Path(fresh, "previous"))
        os.replace(Path(fresh, "_build", "html"), html)


def build(root: Path, profile: str, cores: int = 2) -> Path:
    """Run what is out of date of the notebooks and pages; return the first page.

    Raises
    ------
    BookError
        A step failed, or another build of this checkout is going on.
    """
    import fcntl

    folder = root / "build"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--rerun-incomplete"]
    # The lock here goes with the process, however that ends; Snakemake's own stays after a kill.
    command += [
        "--force-use-threads",
        "--nolock",
        "--quiet",
        "rules",
        "host",
        "--config",
        f"profile={profile}",
    ]
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BookError(f"another build is going on in {folder}; wait for its end") from None
        if subprocess.run(command, cwd=root).returncode:
            raise BookError(f"the book ({profile}) was not built; the reason is above")
    return folder / profile / "html" / "index.html"
