"""What is published beside the pages: notebooks that install what they need, and the archive."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from companion import course
from companion.book.plan import Build, repository
from companion.notebooks import KERNEL, prose
from companion.notebooks.numbers import numbers
from companion.templates import TEMPLATES
from ppp import files
from ppp.errors import PPPError
from studies.storage import outputs, yaml_documents

NAME = "ppp-companion"
COMMAND = "ppp release"
# The time of every file in an archive, so that equal contents give equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ReleaseError(PPPError):
    """A release that cannot be made from what is there."""


def install(repository: str) -> str:
    """Return the cell of a released notebook that installs what is missing."""
    template = TEMPLATES.get_template("book/install.py.j2")
    return template.render(name=NAME, repository=repository)


def notebook(build: Build, stem: str) -> nbformat.NotebookNode:
    """Return a chapter as it is released: its first cell installs what it needs, its prose quotes
    the results of this build, and it can be read without the book."""
    source = nbformat.read(build.notebook(stem), as_version=4)
    found: dict[str, int | float | str] = {}
    for chapter in build.stems:
        found |= numbers(build.results(chapter), chapter)
    for cell in source.cells:
        if cell.cell_type == "markdown":
            cell.source = prose.alone(cell.source, found)
    code = install(repository())
    cell = nbformat.v4.new_code_cell(code, id="install", metadata={"tags": ["install"]})
    first = next(i for i, cell in enumerate(source.cells) if cell.cell_type == "code")
    source.cells.insert(first, cell)
    source.metadata.kernelspec = {"name": KERNEL, "display_name": "Python 3", "language": "python"}
    return source


# ---- citing


_CITED = ("title", "version", "license", "authors", "preferred-citation")


def citation(path: Path) -> dict[str, Any]:
    """Read ``CITATION.cff``."""
    found = yaml_documents.read_yaml(path, "citation file", error=ReleaseError)
    given = found if isinstance(found, dict) else {}
    if lacking := [name for name in _CITED if name not in given]:
        raise ReleaseError(f"{path}: not a citation file: it lacks {', '.join(lacking)}")
    return found


def bibtex(path: Path) -> str:
    """Return BibTeX entries for the paper, first, and for this companion."""
    about = citation(path)
    return TEMPLATES.get_template("book/citation.bib.j2").render(
        about=about, paper=about["preferred-citation"]
    )


def zenodo(path: Path) -> dict[str, Any]:
    """Return the metadata that Zenodo reads from ``.zenodo.json``."""
    about = citation(path)
    paper = about["preferred-citation"]
    return {
        "title": about["title"],
        "version": about["version"],
        "upload_type": "software",
        "license": about["license"],
        "creators": [{"name": author["name"]} for author in about["authors"]],
        "description": f"A reproducible companion to: {paper['title']}",
        "keywords": about.get("keywords", []),
        "related_identifiers": [
            {"identifier": one["value"], "relation": "isSupplementTo"}
            for one in paper["identifiers"]
        ],
    }


# ---- the archive


def pack(build: Build, target: Path, *, force: bool = False) -> Path:
    """Pack pages, notebooks, results and sources into one archive, with hashes.

    Parameters
    ----------
    build : Build
        Up to date; a release is never made from stale pages.
    target : Path
        Folder that takes the archive and its hash.
    force : bool
        Replace an archive of this version that was made earlier.

    Returns
    -------
    Path
        ``ppp-companion-VERSION.zip``. In it one folder of that name: ``html``, ``notebooks``
        (released), ``results``, ``exercises``, ``ppp-companion`` (the sources), CITATION.cff,
        .zenodo.json, and ``manifest.json`` with the SHA-256 of every file.

    Raises
    ------
    ReleaseError
        The pages are missing or stale, or the checkout holds what no commit holds.
    """
    version = citation(build.root / "CITATION.cff")["version"]
    name = f"{NAME}-{version}"
    check_place(target, f"{name}.zip", force=force)
    if stale := build.why("book"):
        raise ReleaseError(f"{build.name}: the pages are not up to date ({stale[0]}); build first")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".release-") as working:
        top = Path(working, name)
        shutil.copytree(build.html.resolve(), top / "html")
        shutil.copytree(build.folder / "results", top / "results")
        (top / "notebooks").mkdir()
        for stem in build.stems:
            nbformat.write(notebook(build, stem), top / "notebooks" / f"{stem}.ipynb")
        course.build(build.root / "exercises", top / "exercises")
        sources(build.root, top / NAME)
        shutil.copy(build.root / "CITATION.cff", top)
        text = json.dumps(zenodo(build.root / "CITATION.cff"), indent=1)
        (top / ".zenodo.json").write_text(text, encoding="utf-8")
        manifest = {
            "name": name,
            "profile": build.profile,
            "commit": _git(build.root, "rev-parse", "HEAD"),
            "parameters": {stem: (build.made(stem) or {})["parameters"] for stem in build.stems},
            "pins": (build.made(build.stems[0]) or {})["pins"],
            "files": {path: files.sha256(top / path) for path in _files(top)},
        }
        (top / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        archive = Path(working, f"{name}.zip")
        _zip(top, archive)
        checksum = f"{files.sha256(archive)}  {archive.name}\n"
        contents = {archive.name: archive.read_bytes(), f"{archive.name}.sha256": checksum.encode()}
    outputs.update(target, contents, COMMAND, remedy="give another --output")
    return target / archive.name


def check_place(target: Path, archive: str, *, force: bool) -> None:
    """Refuse a folder in which the archive would replace another file."""
    names = {archive: None, f"{archive}.sha256": None}
    outputs.check_update(target, names, COMMAND, remedy="give another --output")
    if (target / archive).exists() and not force:
        raise outputs.OutputError(
            f"{target / archive} exists; give another --output, or --force to replace it"
        )


def sources(root: Path, target: Path) -> None:
    """Copy every file of the last commit; refuse if the checkout differs from it."""
    if changed := _git(root, "status", "--porcelain", "--untracked-files=normal"):
        first = changed.splitlines()[0].strip()
        raise ReleaseError(f"the checkout differs from its last commit ({first}); commit first")
    _git(root, "checkout-index", "--all", f"--prefix={target.absolute().as_posix()}/")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise ReleaseError(f"git {arguments[0]} failed: {reason}") from None
    return done.stdout.strip()


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def _zip(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in _files(folder):
            about = zipfile.ZipInfo(f"{folder.name}/{name}", _EPOCH)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.external_attr = 0o644 << 16
            packed.writestr(about, (folder / name).read_bytes())


def check(archive: Path) -> int:
    """Check an archive against its manifest and its own hash; return the number of files.

    Raises
    ------
    ReleaseError
        Names the first file that is missing, too many, or not what the manifest says.
    """
    try:
        packed = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise ReleaseError(f"{archive}: not an archive ({error})") from None
    with packed:
        top = archive.name.removesuffix(".zip")
        stated = json.loads(packed.read(f"{top}/manifest.json"))["files"]
        names = {name.removeprefix(f"{top}/") for name in packed.namelist()} - {"manifest.json"}
        if different := sorted(names ^ set(stated)):
            raise ReleaseError(f"{archive.name}: {different[0]} is not in both it and its manifest")
        for name, expected in stated.items():
            if hashlib.sha256(packed.read(f"{top}/{name}")).hexdigest() != expected:
                raise ReleaseError(f"{archive.name}: {name} is not what the manifest says")
    return len(stated)
