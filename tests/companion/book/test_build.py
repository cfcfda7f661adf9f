"""Builds of a small book: what is made again and what is not, and what a build that dies leaves."""

import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import toy_notebooks
import yaml

from companion import notebooks
from companion.book import build as book, pages
from studies.paths import ROOT

PARAMETERS = """\
profile = "standard"  # how much is computed
n = 64  # number of windows
results = "results"  # folder
"""
BODY = """\
import json
from pathlib import Path
from ppp.errors import PPPError
Path(results).mkdir(parents=True, exist_ok=True)
Path(results, "numbers.json").write_text(json.dumps({"n": n, "profile": profile}))
Path(results, "counts.csv").write_text(f"scheme,n\\nzeros,{n}\\n")
assert n != 13, "an unlucky number"
if n == 66:
    raise PPPError("n = 66 is refused")
print("n =", n)
"""


def write(path, title, body=BODY):
    return toy_notebooks.write(path, title, PARAMETERS, body)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a book of two chapters; of the library only what the pipeline uses."""
    shutil.copytree(ROOT / "companion", tmp_path / "companion")
    (tmp_path / "ppp" / "experiments").mkdir(parents=True)
    (tmp_path / "ppp" / "__init__.py").touch()
    used = (
        "ppp/errors.py",
        "ppp/files.py",
        "ppp/experiments/__init__.py",
        "ppp/experiments/parameters.py",
        "ppp/experiments/datasets.py",
        "ppp/experiments/documents.py",
        "ppp/experiments/yaml_documents.py",
        "ppp/experiments/outputs.py",
        "ppp/experiments/downloads.py",
    )
    for name in (*used, "Snakefile", "constraints.txt", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    profiles(tmp_path, 8)
    write(tmp_path / "notebooks" / "01-toy.ipynb", "Toy")
    write(tmp_path / "notebooks" / "02-other.ipynb", "Other", BODY.replace('"n ="', '"other n ="'))
    (tmp_path / "book").mkdir()
    for name in ("_config.yml", "bibliography.bib"):
        shutil.copy(ROOT / "book" / name, tmp_path / "book")
    chapters = [{"file": f"notebooks/{stem}"} for stem in ("01-toy", "02-other")]
    chapters.append({"file": "parameters"})
    (tmp_path / "book" / "parameters.md").write_text("# Index of parameters\n\n@PARAMETERS@\n")
    toc = {"format": "jb-book", "root": "intro", "parts": [{"chapters": chapters}]}
    (tmp_path / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
    (tmp_path / "book" / "intro.md").write_text(
        "# Title\n\nMeasured on {{ toy_n }} windows, {{ other_n }} in the other, $x^2$.\n"
    )
    return tmp_path


def profiles(checkout, n):
    text = yaml.safe_dump({"quick": {stem: {"n": n} for stem in ("01-toy", "02-other")}})
    (checkout / "profiles.yaml").write_text(text)


def command(*arguments):
    return [sys.executable, "-m", "companion", *arguments]


def run(checkout, *arguments):
    return subprocess.run(command(*arguments), cwd=checkout, capture_output=True, text=True)


def build(checkout, *arguments):
    return run(checkout, "build", "--profile", "quick", *arguments)


def html(checkout):
    return checkout / "build" / "quick" / "html"


def contents(folder):
    folder = folder.resolve()
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ---- without a build


def test_a_cell_with_an_error_is_not_published(checkout):
    wanted = book.Build(checkout, "quick")
    path = wanted.folder / "notebooks" / "01-toy.ipynb"
    content = nbformat.read(write(path, "Toy"), 4)
    content.cells[2].outputs = [nbformat.v4.new_output("error", ename="E", evalue="bad")]
    nbformat.write(content, path)
    with pytest.raises(book.BookError, match="a cell shows an error"):
        pages.assemble(wanted, wanted.folder / "book")


def test_a_cell_that_is_not_python_is_named(checkout):
    write(checkout / "notebooks" / "01-toy.ipynb", "Toy", "if other n:\n    pass")
    with pytest.raises(book.PPPError, match="cell body is not Python"):
        book.Build(checkout, "quick").want()


def test_two_builds_at_once_are_refused(checkout):
    (checkout / "build").mkdir()
    with open(checkout / "build" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(book.PPPError, match="at work here"):
            book.build(book.Build(checkout, "quick"))


def test_a_source_that_changes_while_a_chapter_runs_is_noticed(checkout, monkeypatch):
    wanted = book.Build(checkout, "quick")

    def execute(notebook, output, values, results, named):
        write(output, "Toy")
        edit(notebook, "an unlucky number", "unlucky")

    monkeypatch.setattr(notebooks, "execute", execute)
    with pytest.raises(book.BookError, match="its sources changed while it ran"):
        wanted.run_chapter("01-toy")
    assert wanted.made("01-toy") is None


def test_what_a_variant_changes(checkout):
    variant = book.Build(checkout, "quick", {"n": "64"})
    variant.check()
    assert variant.values("01-toy") == {"n": 64, "profile": "quick"}
    assert variant.name.startswith("quick-n-64-")
    for changes, says in (
        ({"nn": "64"}, "unknown parameter 'nn'"),
        ({"n": "1"}, "an integer >= 2"),
        ({"results": "x"}, "unknown parameter 'results'"),
        ({"padding": "refelct"}, ""),  # no chapter here pads: nothing to refuse
    ):
        if says:
            with pytest.raises(book.PPPError, match=says):
                book.Build(checkout, "quick", changes).check()
    real = book.Build(ROOT, "quick", {"padding": "reflect"})
    real.check()
    assert real.values("extracting-ppp")["schemes"] == ["reflect"]
    assert real.values("training-dynamics")["scheme"] == "reflect"
    assert real.changed("claims-ledger") == {}
    with pytest.raises(book.PPPError, match="did you mean 'reflect'"):
        book.Build(ROOT, "quick", {"padding": "refelct"}).check()


def test_prose_of_the_source_replaces_that_of_the_executed_notebook(tmp_path):
    source = nbformat.read(write(tmp_path / "a.ipynb", "New words"), 4)
    executed = nbformat.read(write(tmp_path / "b.ipynb", "Old words"), 4)
    executed.cells[2].outputs = [nbformat.v4.new_output("stream", text="8")]
    injected = nbformat.v4.new_code_cell("n = 8", metadata={"tags": ["injected-parameters"]})
    executed.cells.insert(2, injected)
    merged = pages.with_prose(source, executed)
    assert [cell.source.splitlines()[0] for cell in merged.cells] == [
        "# New words",
        'profile = "standard"  # how much is computed',
        "n = 8",
        "import json",
    ]
    assert merged.cells[3].outputs[0].text == "8"


# ---- builds


@pytest.mark.slow
def test_book(checkout):
    """Build it, again, with new words, with a broken page, and with a failing notebook."""
    done = build(checkout)
    assert done.returncode == 0, done.stderr
    page = (html(checkout) / "intro.html").read_text()
    assert "Measured on 8 windows" in page
    assert 'src="_static/mathjax/tex-chtml.js"' in page
    assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=["']?https?:""", page)
    chapter = (html(checkout) / "notebooks" / "01-toy.html").read_text()
    words = re.sub(r"<[^>]*>", "", chapter)
    assert "ppp run 01-toy --profile quick" in words and 'counts.csv"' in chapter
    assert str(checkout) not in words  # no folder of this machine
    published = html(checkout).resolve()
    executed = checkout / "build" / "quick" / "notebooks" / "01-toy.ipynb"
    ran = executed.stat().st_mtime_ns
    assert run(checkout, "why", "01", "--profile", "quick").stdout == "01 is up to date\n"

    again = build(checkout)
    assert "Nothing to be done" in again.stderr
    assert html(checkout).resolve() == published

    # Times alone change nothing, and words no result.
    (checkout / "notebooks" / "01-toy.ipynb").touch()
    (checkout / "constraints.txt").touch()
    assert "Nothing to be done" in build(checkout).stderr
    edit(checkout / "notebooks" / "01-toy.ipynb", "In line", "On the line")
    assert run(checkout, "why", "01", "--profile", "quick").stdout == "01 is up to date\n"
    assert (
        "page notebooks/01-toy.ipynb: changed"
        in run(checkout, "why", "book", "--profile", "quick").stdout
    )
    assert build(checkout).returncode == 0
    assert executed.stat().st_mtime_ns == ran
    assert "On the line" in (html(checkout) / "notebooks" / "01-toy.html").read_text()

    # Of two chapters only the one that changed is run.
    other = checkout / "build" / "quick" / "notebooks" / "02-other.ipynb"
    stood = other.stat().st_mtime_ns
    edit(checkout / "profiles.yaml", "01-toy:\n    n: 8", "01-toy:\n    n: 9")
    why = run(checkout, "why", "01", "--profile", "quick")
    assert why.stdout == "parameter n: 8 -> 9\n"
    assert build(checkout).returncode == 0
    assert executed.stat().st_mtime_ns != ran and other.stat().st_mtime_ns == stood
    assert "Measured on 9 windows, 8 in" in (html(checkout) / "intro.html").read_text()

    intro = checkout / "book" / "intro.md"
    words = intro.read_text()
    intro.write_text("# Title\n\nMeasured on {{ toy_missing }} windows.\n")
    broken = build(checkout)
    assert broken.returncode == 2
    assert "toy_missing" in broken.stderr
    assert "Measured on 9 windows" in (html(checkout) / "intro.html").read_text()
    assert build(checkout).returncode == 2  # a broken page does not go green by itself
    intro.write_text(words)

    profiles(checkout, 13)
    failed = build(checkout)
    assert failed.returncode == 2
    assert "an unlucky number" in failed.stderr
    assert list((checkout / "build" / "quick" / "failed").glob("*.ipynb"))
    assert nbformat.read(executed, 4)  # the old one, whole
    assert "Measured on 9 windows" in (html(checkout) / "intro.html").read_text()


@pytest.mark.slow
def test_variant(checkout):
    """A variant lies beside the book, takes over what is the same, and says what refuses."""
    assert build(checkout).returncode == 0
    published = contents(html(checkout))
    done = build(checkout, "-p", "n", "66")
    assert done.returncode == 0, done.stderr
    (variant,) = (checkout / "build").glob("quick-n-66-*")
    first = (variant / "html" / "intro.html").read_text()
    assert "A variant of the book" in first and "refuses" in first
    chapter = (variant / "html" / "notebooks" / "01-toy.html").read_text()
    assert "n = 66 is refused" in chapter
    assert contents(html(checkout)) == published
    # The same values as published: nothing is run, the chapters are taken over.
    assert build(checkout, "-p", "n", "8").returncode == 0
    (same,) = (checkout / "build").glob("quick-n-8-*")
    name = Path("notebooks") / "01-toy.ipynb"
    assert (same / name).read_bytes() == (checkout / "build" / "quick" / name).read_bytes()


def whole(checkout, versions):
    """Check that the published pages are one whole version, and return it."""
    if not html(checkout).exists():
        return None
    pages_ = contents(html(checkout))
    first = pages_["intro.html"].decode()
    (n,) = [n for n in versions if f"Measured on {n} windows, {n} in" in first]
    for stem, words in (("01-toy", "n ="), ("02-other", "other n =")):
        assert f"{words} {n}\n".encode() in pages_[f"notebooks/{stem}.html"]
        assert pages_[f"_static/results/{stem}/counts.csv"] == f"scheme,n\nzeros,{n}\n".encode()
    assert {"search.html", "searchindex.js", "genindex.html"} <= set(pages_)
    for name, data in pages_.items():
        if name.endswith(".html") and not name.startswith("_static") and name != "index.html":
            assert data.rstrip().endswith(b"</html>"), name
    return n


KILLS = int(os.environ.get("PPP_KILLS", "20"))


def timeless(pages_):
    """Leave out of pages how long their chapters ran, which no two builds share."""
    number = rb'"\d+": (\[[\d, ]*\]|\d+)(, )?'  # in the search index
    return {
        name: re.sub(rb"\d+(\.\d+)? s\b|\d+ min \d+ s|" + number, b"", data)
        for name, data in pages_.items()
        if not name.startswith(("_sources", "_static/notebooks")) and name != ".buildinfo"
    }


@pytest.mark.nightly
def test_a_killed_build_loses_and_spoils_nothing(checkout, tmp_path_factory):
    """Kill builds at random times: the pages stay whole, and the next build completes."""
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "checkout"
    shutil.copytree(checkout, undisturbed)
    draw = random.Random(0)
    began = time.monotonic()
    assert build(checkout).returncode == 0
    usual = time.monotonic() - began
    n, published, killed, finished = 8, 8, 0, 0
    while killed < KILLS:
        n += 1 if n != 12 else 2  # 13 is unlucky
        profiles(checkout, n)
        running = subprocess.Popen(
            command("build", "--profile", "quick"),
            cwd=checkout,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            running.wait(draw.uniform(0, usual))
            finished += 1
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            killed += 1
        found = whole(checkout, range(8, n + 1))
        assert found in (published, n), "neither the pages from before nor the new ones"
        published = found
        for path in (checkout / "build" / "quick" / "notebooks").glob("[!.]*.ipynb"):
            nbformat.validate(nbformat.read(path, 4))  # a finished chapter is a whole one
        if killed % 5 == 0 and published != n:
            assert build(checkout).returncode == 0  # and the next build completes
            published = whole(checkout, range(8, n + 1))
            assert published == n
    assert build(checkout).returncode == 0
    profiles(undisturbed, n)
    assert build(undisturbed).returncode == 0
    assert timeless(contents(html(checkout))) == timeless(contents(html(undisturbed)))
    left = sorted(path.name for path in (checkout / "build" / "quick").iterdir())
    assert [name for name in left if name.startswith(".making-")] == []
    assert len([name for name in left if name.startswith(".html-")]) == 1
    print(f"killed {killed} of {killed + finished} builds, which take {usual:.1f} s undisturbed")


@pytest.mark.slow
def test_two_builds_at_once(checkout):
    """One of them builds the book, the other says that one does."""
    both = [
        subprocess.Popen(
            command("build", "--profile", "quick"),
            cwd=checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [one.communicate()[0] for one in both]
    assert sorted(one.returncode for one in both) == [0, 2]
    (refused,) = [text for one, text in zip(both, said) if one.returncode]
    assert refused.count("\n") == 1 and "'ppp build' is at work here (process " in refused
    assert whole(checkout, [8]) == 8


@pytest.fixture
def small_disk(checkout):
    """A disk of its own under ``build``, to be filled or made read-only."""
    folder = checkout / "build"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk cannot be mounted here: that takes the superuser")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.nightly
def test_a_full_disk(checkout, small_disk):
    """The build fails and says why, the pages stay; with room again it completes."""
    assert build(checkout).returncode == 0
    before = contents(html(checkout))
    profiles(checkout, 9)
    free = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - 200_000))
    full = build(checkout)
    assert full.returncode == 2 and "No space left on device" in full.stderr
    assert contents(html(checkout)) == before
    filler.unlink()
    assert build(checkout).returncode == 0
    assert whole(checkout, [8, 9]) == 9


@pytest.mark.nightly
def test_a_read_only_folder(checkout, small_disk):
    assert build(checkout).returncode == 0
    before = contents(html(checkout))
    profiles(checkout, 9)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = build(checkout)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "Read-only file system" in done.stderr
    assert contents(html(checkout)) == before
