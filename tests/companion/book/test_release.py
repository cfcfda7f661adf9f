"""What is released: notebooks that install what they need, citations, an archive with hashes."""

import json
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest
import toy_notebooks
from checks import refused

from companion.book import release
from companion.book.plan import COMMAND, Build
from ppp import files
from studies.paths import ROOT
from studies.storage import outputs


def test_citations_come_from_one_file():
    entries = release.bibtex(ROOT / "CITATION.cff")
    assert "@inproceedings{lin2023," in entries and "Lin, Chieh Hubert and Tseng" in entries
    about = release.zenodo(ROOT / "CITATION.cff")
    assert about["version"] == release.citation(ROOT / "CITATION.cff")["version"]
    assert about["related_identifiers"][0]["identifier"] == "arXiv:2206.01202"


def test_version_is_the_same_everywhere():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert release.citation(ROOT / "CITATION.cff")["version"] == project["version"]


@pytest.mark.parametrize("text", ["{", "[]", "title: x"])
def test_a_broken_citation_file(tmp_path, text):
    path = tmp_path / "CITATION.cff"
    path.write_text(text)
    refused(release.citation, path, error=release.ReleaseError)


def test_first_cell_of_a_released_notebook_installs(monkeypatch):
    monkeypatch.setenv("PPP_REPOSITORY", "https://github.com/someone/ppp-companion")
    made = release.notebook(Build(ROOT), "extracting-ppp")
    nbformat.validate(made)
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert "pip" in code[0].source and "someone/ppp-companion" in code[0].source
    assert "parameters" in code[1].metadata["tags"]
    assert not any(cell.outputs for cell in code)


def commit(root):
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)


@pytest.mark.slow
def test_the_install_cell_installs(tmp_path):
    """In a fresh environment, from a small repository in the place of the real one."""
    repository = tmp_path / "repository"
    (repository / "ppp").mkdir(parents=True)
    (repository / "ppp" / "__init__.py").write_text("here = True\n")
    (repository / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "ppp-companion"\nversion = "1"\n[tool.setuptools]\npackages = ["ppp"]\n'
    )
    commit(repository)
    code = release.install(repository.as_uri())
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    done = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-Ec", f"{code}\nimport ppp\nprint(ppp.here)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n", done.stderr


def test_the_install_cell_says_what_is_missing(tmp_path):
    code = release.install("")
    lines = ["import importlib.util", "importlib.util.find_spec = lambda name: None", code]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode and "Put the folder ppp-companion" in done.stderr


# ---- the archive


@pytest.fixture
def built(tmp_path):
    """A small checkout whose book looks built and up to date."""
    root = tmp_path / "checkout"
    toy_notebooks.write(root / "notebooks" / "toy.ipynb", "Toy", "n = 8  # windows", "n")
    for folder in ("book", "exercises"):
        (root / folder).mkdir()
    toc = "format: jb-book\nroot: intro\nchapters: [{file: notebooks/toy}]\n"
    (root / "book" / "_toc.yml").write_text(toc)
    for name in ("CITATION.cff", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    shutil.copy(ROOT / "exercises" / "padding-schemes.md", root / "exercises" / "toy.md")
    (root / "profiles.yaml").write_text("standard: {}\n")
    (root / ".gitignore").write_text("build/\ndist/\n")
    commit(root)
    wanted = Build(root)
    outputs.claim(wanted.folder, COMMAND)
    html = wanted.folder / ".html-1"
    html.mkdir()
    (html / "index.html").write_text("<html></html>")
    wanted.html.symlink_to(html.name)
    wanted.executed("toy").parent.mkdir()
    shutil.copy(wanted.notebook("toy"), wanted.executed("toy"))
    wanted.results("toy").mkdir(parents=True)
    (wanted.results("toy") / "a.csv").write_text("a\n1\n")
    wanted.want()
    shutil.copytree(wanted.folder / "wanted", wanted.folder / "made")
    return wanted


def test_archive(built, tmp_path):
    archive = release.pack(built, tmp_path / "dist")
    assert release.check(archive) > 8
    with zipfile.ZipFile(archive) as packed:
        top = archive.stem
        names = {name.removeprefix(f"{top}/") for name in packed.namelist()}
        manifest = json.loads(packed.read(f"{top}/manifest.json"))
    assert {
        *("html/index.html", "results/toy/a.csv", "notebooks/toy.ipynb", "CITATION.cff"),
        *("exercises/student/toy.ipynb", "exercises/instructor/toy.ipynb", ".zenodo.json"),
        *("ppp-companion/notebooks/toy.ipynb", "ppp-companion/CITATION.cff", "manifest.json"),
    } <= names
    assert len(manifest["commit"]) == 40 and manifest["parameters"] == {"toy": {"n": "8"}}
    digest, name = (tmp_path / "dist" / f"{archive.name}.sha256").read_text().split()
    assert name == archive.name and digest == files.sha256(archive)
    first = archive.read_bytes()
    assert "--force" in refused(release.pack, built, tmp_path / "dist", error=outputs.OutputError)
    again = release.pack(built, tmp_path / "dist", force=True)
    assert again.read_bytes() == first  # the same bytes again
    assert sorted(path.name for path in (tmp_path / "dist").glob("[!.]*")) == [
        archive.name,
        f"{archive.name}.sha256",
    ]


def test_no_archive_from_stale_pages_or_a_changed_checkout(built, tmp_path):
    def said():
        return refused(release.pack, built, tmp_path / "dist", error=release.ReleaseError)

    extra = built.root / "notes.txt"
    extra.write_text("x")
    assert extra.name in said()
    extra.unlink()
    with (built.root / "CITATION.cff").open("a") as citation:
        citation.write("# another\n")
    assert "CITATION.cff: changed" in said()
    assert not list((tmp_path / "dist").glob("*"))


def test_an_archive_that_was_tampered_with(built, tmp_path):
    archive = release.pack(built, tmp_path / "dist")
    with zipfile.ZipFile(archive) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    for name in ("html/index.html", "more.txt"):
        with zipfile.ZipFile(archive, "w") as packed:
            for part, data in (parts | {f"{archive.stem}/{name}": b"other"}).items():
                packed.writestr(part, data)
        assert name in refused(release.check, archive, error=release.ReleaseError)
    archive.write_bytes(b"x")
    refused(release.check, archive, error=release.ReleaseError)
