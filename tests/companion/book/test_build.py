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
from checks import contents, refused

from companion import notebooks
from companion.book import build as book, pages
from companion.book.plan import BookError, Build
from ppp.errors import ParameterError
from studies.paths import ROOT
from studies.storage import outputs

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


CHAPTERS = ("toy", "other")


def write(path, title, body=BODY):
    return toy_notebooks.write(path, title, PARAMETERS, body)


@pytest.fixture
def checkout(tmp_path):
    """A checkout with this library, and a book of two small chapters."""
    for name in ("companion", "ppp", "studies"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "constraints.txt", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    profiles(tmp_path, 8)
    write(tmp_path / "notebooks" / "toy.ipynb", "Toy")
    write(tmp_path / "notebooks" / "other.ipynb", "Other", BODY.replace('"n ="', '"other n ="'))
    for folder in ("book", "data"):
        (tmp_path / folder).mkdir()
    for name in ("_config.yml", "bibliography.bib"):
        shutil.copy(ROOT / "book" / name, tmp_path / "book")
    linked = ("parameters", "open", "ten-lines")  # by the box at the head of each chapter
    listed = [{"file": name} for name in ("notebooks/toy", "notebooks/other", *linked)]
    toc = {"format": "jb-book", "root": "intro", "parts": [{"chapters": listed}]}
    (tmp_path / "book" / "_toc.yml").write_text(yaml.safe_dump(toc))
    (tmp_path / "book" / "parameters.md").write_text("# Index of parameters\n\n@PARAMETERS@\n")
    for name in linked[1:]:
        (tmp_path / "book" / f"{name}.md").write_text(f"# A page\n\nCalled {name}.\n")
    (tmp_path / "book" / "intro.md").write_text(
        "# Title\n\nMeasured on {{ toy_n }} windows, {{ other_n }} in the other, $x^2$.\n"
    )
    (tmp_path / "data" / "a.csv").write_text("a\n1\n")
    return tmp_path


def profiles(checkout, n):
    text = yaml.safe_dump({"quick": {stem: {"n": n} for stem in CHAPTERS}})
    (checkout / "profiles.yaml").write_text(text)


def command(*arguments):
    return [sys.executable, "-m", "companion", *arguments]


def options(checkout):
    """Return how a process starts in a checkout, with the library of that checkout."""
    return {"cwd": checkout, "env": os.environ | {"PYTHONPATH": str(checkout)}, "text": True}


def run(checkout, *arguments):
    return subprocess.run(command(*arguments), capture_output=True, **options(checkout))


def build(checkout, *arguments):
    return run(checkout, "build", "--profile", "quick", *arguments)


def why(checkout, page):
    return run(checkout, "why", page, "--profile", "quick").stdout


def html(checkout):
    return checkout / "build" / "quick" / "html"


def published(checkout):
    return contents(html(checkout).resolve())


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ---- without a build


def test_a_cell_with_an_error_is_not_published(checkout):
    wanted = Build(checkout, "quick")
    content = nbformat.read(write(wanted.executed("toy"), "Toy"), 4)
    content.cells[2].outputs = [nbformat.v4.new_output("error", ename="E", evalue="bad")]
    nbformat.write(content, wanted.executed("toy"))
    assert "E: bad" in refused(pages.assemble, wanted, wanted.folder / "book", error=BookError)


def test_a_cell_that_is_not_python_is_named(checkout):
    write(checkout / "notebooks" / "toy.ipynb", "Toy", "if other n:\n    pass")
    assert "cell body" in refused(Build(checkout, "quick").want)


def test_two_builds_at_once_are_refused(checkout):
    (checkout / "build").mkdir()
    with open(checkout / "build" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(book.build, Build(checkout, "quick"), error=outputs.OutputError)


@pytest.mark.parametrize("opened", [[], ["data/a.csv"]])
def test_a_chapter_whose_ingredients_are_not_known_is_refused(checkout, monkeypatch, opened):
    """A source changed while it ran, or it opened a file that nothing declares."""
    wanted = Build(checkout, "quick")

    def execute(notebook, output, values, results, named):
        write(output, "Toy")
        if not opened:
            edit(notebook, "an unlucky number", "unlucky")
        return [checkout / name for name in opened]

    monkeypatch.setattr(notebooks, "execute", execute)
    said = refused(book.run_chapter, wanted, "toy", error=BookError)
    assert all(name in said for name in ["toy", *opened])
    assert wanted.made("toy") is None
    assert wanted.why("toy") == [*([said] if opened else []), "it has not been made"]


def test_what_a_variant_changes(checkout):
    variant = Build(checkout, "quick", {"n": "64"})
    variant.check()
    assert variant.values("toy") == {"n": 64, "profile": "quick"}
    assert variant.name.startswith("quick-n-64-")
    Build(checkout, "quick", {"padding": "refelct"}).check()  # no chapter here pads
    for changes, says in (
        ({"nn": "64"}, "unknown parameter 'nn'"),
        ({"n": "1"}, "an integer >= 2"),
        ({"results": "x"}, "unknown parameter 'results'"),
    ):
        assert says in refused(Build(checkout, "quick", changes).check, error=ParameterError)


def test_what_a_variant_changes_in_the_real_book():
    real = Build(ROOT, "quick", {"padding": "reflect"})
    real.check()
    assert real.values("extracting-ppp")["schemes"] == ["reflect"]
    assert real.values("training-dynamics")["scheme"] == "reflect"
    assert real.changed("claims-ledger") == {}
    assert "'reflect'" in refused(Build(ROOT, "quick", {"padding": "refelct"}).check)


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


LABORATORY = """\
from studies import paths


def make():
    return paths.data("laboratory", "weights.txt").read_text()
"""


def laboratory(checkout):
    """Give a checkout the data of a laboratory, and a page that is made of nothing else."""
    (checkout / "companion" / "laboratory" / "page.py").write_text(LABORATORY)
    (checkout / "data" / "laboratory").mkdir()
    (checkout / "data" / "laboratory" / "weights.txt").write_text("<p>1</p>")


def test_the_laboratory_is_stale_when_what_it_is_made_from_has_changed(checkout):
    wanted = Build(checkout, "quick")
    assert "laboratory" not in wanted.want()  # without its data there is none
    laboratory(checkout)
    assert "laboratory" in wanted.want()
    book.make_laboratory(wanted)
    assert wanted.laboratory.read_text() == "<p>1</p>"
    assert wanted.why("laboratory") == [] and "laboratory" not in wanted.want()
    (checkout / "studies" / "claims.py").write_text("n = 1\n")  # which it does not use
    assert wanted.why("laboratory") == []
    edit(checkout / "companion" / "laboratory" / "view.js", "use strict", "use  strict")
    (checkout / "data" / "laboratory" / "weights.txt").write_text("<p>2</p>")
    changed = ["companion/laboratory/view.js", "data/laboratory/weights.txt"]
    assert wanted.why("laboratory") == [f"file {name}: changed" for name in changed]
    book.make_laboratory(wanted)
    variant = Build(checkout, "quick", {"n": "64"})
    variant.want()
    (checkout / "companion" / "laboratory" / "page.py").write_text("def make():\n    1 / 0\n")
    assert "not made" in refused(book.make_laboratory, wanted, error=book.BookError)
    assert wanted.laboratory.read_text() == "<p>2</p>"
    (checkout / "companion" / "laboratory" / "page.py").write_text(LABORATORY)
    book.make_laboratory(variant)
    assert variant.laboratory.read_text() == "<p>2</p>"


# ---- builds


def pages_at(checkout, n, other):
    assert f"Measured on {n} windows, {other} in" in (html(checkout) / "intro.html").read_text()


@pytest.mark.slow
def test_book(checkout):
    """Build it, again, with new words, with a broken page, and with a failing notebook."""
    laboratory(checkout)
    done = build(checkout)
    assert done.returncode == 0, done.stderr
    pages_at(checkout, 8, 8)
    assert (html(checkout) / "laboratory.html").read_text() == "<p>1</p>"
    page = (html(checkout) / "intro.html").read_text()
    assert 'src="_static/mathjax/tex-chtml.js"' in page
    assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=["']?https?:""", page)
    chapter = html(checkout) / "notebooks" / "toy.html"
    words = re.sub(r"<[^>]*>", "", chapter.read_text())
    assert "ppp run toy --profile quick" in words and 'counts.csv"' in chapter.read_text()
    assert str(checkout) not in words  # no folder of this machine
    first = html(checkout).resolve()
    toy, other = (Build(checkout, "quick").executed(stem) for stem in CHAPTERS)
    ran, stood = toy.stat().st_mtime_ns, other.stat().st_mtime_ns
    assert why(checkout, "toy") == "toy is up to date\n"

    # Times alone change nothing.
    (checkout / "notebooks" / "toy.ipynb").touch()
    (checkout / "constraints.txt").touch()
    nothing = build(checkout)
    assert nothing.returncode == 0 and "Nothing to be done" in nothing.stderr
    assert html(checkout).resolve() == first

    # Of two chapters the one is run whose parameter changed, not that whose words did. The
    # pages are published together, and not while one of them is broken.
    edit(checkout / "notebooks" / "other.ipynb", "In line", "On the line")
    edit(checkout / "profiles.yaml", "  toy:\n    n: 8", "  toy:\n    n: 9")
    assert why(checkout, "toy") == "parameter n: 8 -> 9\n"
    assert why(checkout, "other") == "other is up to date\n"
    intro = checkout / "book" / "intro.md"
    words = intro.read_text()
    intro.write_text("# Title\n\nMeasured on {{ toy_missing }} windows.\n")
    broken = build(checkout)
    assert broken.returncode == 2 and "toy_missing" in broken.stderr
    assert why(checkout, "book") != "book is up to date\n"  # it does not go green by itself
    pages_at(checkout, 8, 8)
    intro.write_text(words)
    assert build(checkout).returncode == 0
    assert toy.stat().st_mtime_ns != ran and other.stat().st_mtime_ns == stood
    assert "On the line" in (html(checkout) / "notebooks" / "other.html").read_text()
    pages_at(checkout, 9, 8)

    profiles(checkout, 13)
    failed = build(checkout)
    assert failed.returncode == 2 and "an unlucky number" in failed.stderr
    assert list((checkout / "build" / "quick" / "failed").glob("*.ipynb"))
    assert nbformat.read(toy, 4)  # the old one, whole
    pages_at(checkout, 9, 8)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["{{ missing }}", "[](missing.md)"], ids=["read", "written"])
def test_pages_with_a_warning_are_never_published(tmp_path, broken):
    """Not by several processes, which begin at six pages, and not the second time."""
    sources = tmp_path / "book"
    sources.mkdir()
    for name in ("_config.yml", "bibliography.bib"):
        shutil.copy(ROOT / "book" / name, sources)
    names = [f"page{number}" for number in range(8)]
    toc = {"format": "jb-book", "root": names[0], "chapters": [{"file": one} for one in names[1:]]}
    (sources / "_toc.yml").write_text(yaml.safe_dump(toc))
    for name in names:
        (sources / f"{name}.md").write_text(f"# {name}\n\n[](page1.md)\n")
    book.render(sources, tmp_path / "html", 2)
    before = contents((tmp_path / "html").resolve())
    (sources / "page5.md").write_text(f"# Broken\n\n{broken}\n")
    for _ in range(2):
        assert str(sources) in refused(book.render, sources, tmp_path / "html", 2, error=BookError)
        assert contents((tmp_path / "html").resolve()) == before


READS = """\
from studies import paths
paths.data("a.csv").read_text()
"""
OPENS = f"""{READS}
open(paths.DATA / "b.csv").close()
open(network).close()
"""
RUN = """\
from pathlib import Path
from companion.book import build, plan
build.run_chapter(plan.Build(Path.cwd(), "quick"), "toy")
"""


@pytest.mark.slow
def test_a_chapter_may_open_the_data_that_it_declares_and_no_other(checkout):
    """What a kernel opened is compared with the key, and `ppp why` names the files."""
    for name in ("data/b.csv", "own.csv"):
        (checkout / name).write_text("b\n1\n")

    def chapter(body):
        cell = f'{PARAMETERS}network = "own.csv"  # a parameter that is no file\n'
        toy_notebooks.write(checkout / "notebooks" / "toy.ipynb", "Toy", cell, body)
        command = [sys.executable, "-c", RUN]
        done = subprocess.run(command, capture_output=True, **options(checkout))
        return done.returncode, done.stderr, why(checkout, "toy")

    code, _, reason = chapter(READS)
    assert (code, reason) == (0, "toy is up to date\n")
    (checkout / "data" / "a.csv").write_text("a\n2\n")
    assert why(checkout, "toy") == "file data/a.csv: changed\n"
    code, said, reason = chapter(OPENS)
    assert code == 1
    assert "opened data/b.csv, own.csv" in said and "opened data/b.csv, own.csv" in reason
    assert "cell body: changed" in reason


@pytest.mark.nightly
def test_variant(checkout):
    """A variant lies beside the book, takes over what is the same, and says what refuses."""
    assert build(checkout).returncode == 0
    before = published(checkout)
    done = build(checkout, "-p", "n", "66")
    assert done.returncode == 0, done.stderr
    (variant,) = (checkout / "build").glob("quick-n-66-*")
    first = (variant / "html" / "intro.html").read_text()
    assert "A variant of the book" in first and "refuses" in first
    assert "n = 66 is refused" in (variant / "html" / "notebooks" / "toy.html").read_text()
    assert published(checkout) == before
    # The same values as published: nothing is run, the chapters are taken over.
    assert build(checkout, "-p", "n", "8").returncode == 0
    (same,) = (checkout / "build").glob("quick-n-8-*")
    name = Path("notebooks", "toy.ipynb")
    assert (same / name).read_bytes() == (checkout / "build" / "quick" / name).read_bytes()


def whole(checkout, versions):
    """Check that the published pages are one whole version, and return it."""
    if not html(checkout).exists():
        return None
    pages_ = published(checkout)
    first = pages_["intro.html"].decode()
    (n,) = [n for n in versions if f"Measured on {n} windows, {n} in" in first]
    for stem, words in (("toy", "n ="), ("other", "other n =")):
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
    n, last, killed, finished = 8, 8, 0, 0
    while killed < KILLS:
        n += 1 if n != 12 else 2  # 13 is unlucky
        profiles(checkout, n)
        running = subprocess.Popen(
            command("build", "--profile", "quick"),
            **options(checkout),
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
        assert found in (last, n), "neither the pages from before nor the new ones"
        last = found
        for path in (checkout / "build" / "quick" / "notebooks").glob("[!.]*.ipynb"):
            nbformat.validate(nbformat.read(path, 4))  # a finished chapter is a whole one
        if killed % 5 == 0 and last != n:
            assert build(checkout).returncode == 0  # and the next build completes
            last = whole(checkout, range(8, n + 1))
            assert last == n
    assert build(checkout).returncode == 0
    profiles(undisturbed, n)
    assert build(undisturbed).returncode == 0
    assert timeless(published(checkout)) == timeless(published(undisturbed))
    left = sorted(path.name for path in (checkout / "build" / "quick").iterdir())
    assert [name for name in left if name.startswith(".making-")] == []
    assert len([name for name in left if name.startswith(".html-")]) == 1
    print(f"killed {killed} of {killed + finished} builds, which take {usual:.1f} s undisturbed")


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
def test_a_disk_that_is_full_or_read_only(checkout, small_disk):
    """The build fails and says why, the pages stay; with room again it completes."""
    assert build(checkout).returncode == 0
    before = published(checkout)
    profiles(checkout, 9)
    free = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * max(0, free.f_bavail * free.f_frsize - 200_000))
    full = build(checkout)
    assert full.returncode == 2 and "No space left on device" in full.stderr
    assert published(checkout) == before
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = build(checkout)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "Read-only file system" in done.stderr
    assert published(checkout) == before
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert build(checkout).returncode == 0
    assert whole(checkout, [8, 9]) == 9
