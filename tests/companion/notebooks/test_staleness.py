"""Keys: what a chapter depends on, what it does not, and whether they know all that is opened."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toy_notebooks
from checks import refused

from companion import notebooks
from companion.notebooks import staleness
from companion.notebooks.staleness import Library
from studies.paths import ROOT

FILES = {
    "ppp/__init__.py": '_MODULES = {"pad": "padding"}\n\n\ndef __getattr__(name):\n    ...\n',
    "ppp/padding.py": "def pad(x):\n    return x\n",
    "ppp/metrics.py": "import numpy as np\n\n\ndef mae(x):\n    return np.abs(x)\n",
    "studies/paths.py": "def data(name):\n    return name\n",
    "studies/survey.py": (
        "from typing import TYPE_CHECKING\n\nfrom ppp import metrics\nfrom studies import paths\n\n"
        'if TYPE_CHECKING:\n    import ppp.padding\n\nDATA = paths.data("survey")\n'
        'FOOTER = "torchvision"\n'
    ),
    "studies/survey.css": "p {}",
    "studies/style.txt": "a",
    "data/survey/runs.csv": "a\n1\n",
    "data/torchvision": "a\n1\n",
    "constraints.txt": "# pins\nnumpy==2.0\n\n# Of tests alone\npytest==8.0\n",
}


@pytest.fixture
def checkout(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def key(checkout, body="from studies import survey\nsurvey.DATA", values=None, parameters="n = 8"):
    path = toy_notebooks.write(checkout / "toy.ipynb", "Toy", parameters, body)
    return staleness.key(checkout, path, values or {}, Library(checkout))


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    "code",
    [
        "from ppp.padding import pad",
        "import ppp.padding as p",
        "from ppp import padding",
        "from ppp import pad",
        "from ppp import *\npad(1)",
        "import ppp as p\np.pad(1)",
        "def f():\n    from ppp import padding",
    ],
)
def test_every_way_to_import_a_module_is_seen(checkout, code):
    assert set(key(checkout, code)["source"]) == {"ppp", "ppp.padding"}


def test_a_key_holds_what_is_imported_and_the_data_that_this_opens(checkout):
    made = key(checkout)
    assert set(made["source"]) == {"ppp", "ppp.metrics", "studies.paths", "studies.survey"}
    assert set(made["files"]) == {"studies/survey.css", "data/survey/runs.csv"}
    made = key(checkout, 'from studies import paths\npaths.data("torchvision")')
    assert set(made["files"]) == {"data/torchvision"}
    body = 'from studies import paths\nname = "survey"\npaths.data(name)'
    assert "literal names" in refused(key, checkout, body)


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("ppp/metrics.py", "np.abs(x)", "np.abs(x) / 2", ["module ppp.metrics: changed"]),
        ("studies/survey.css", "p", "h1", ["file studies/survey.css: changed"]),
        ("data/survey/runs.csv", "1", "2", ["file data/survey/runs.csv: changed"]),
        ("constraints.txt", "2.0", "2.1", ["pinned version numpy: 2.0 -> 2.1"]),
        ("constraints.txt", "pytest==8.0", "pytest==8.1", []),
        ("data/torchvision", "1", "2", []),  # no more than a word in a footer
        ("studies/survey.py", "ppp.padding", "ppp", []),  # for types alone
    ],
)
def test_what_changes_a_result_changes_the_key(checkout, name, old, new, says):
    before = key(checkout)
    edit(checkout / name, old, new)
    assert staleness.changes(before, key(checkout)) == says


def test_cells_and_parameters_count_and_their_layout_does_not(checkout):
    before = key(checkout, "n + 1")
    assert key(checkout, "n  +  1  # again") == before
    assert staleness.changes(before, key(checkout, "n + 2")) == ["cell body: changed"]
    assert staleness.changes(before, key(checkout, "n + 1", {"n": 64})) == ["parameter n: 8 -> 64"]
    assert "cell body" in refused(key, checkout, "n +")


@pytest.mark.parametrize(
    ("parameter", "value", "path"),
    [("photos", "photos", "photos/a.png"), ("weights", "w.pth", "w.pth")],
)
def test_files_that_parameters_name_count(checkout, monkeypatch, parameter, value, path):
    monkeypatch.chdir(checkout)
    (checkout / "photos").mkdir()
    (checkout / path).write_bytes(b"1")

    def now():
        return key(checkout, "1", {parameter: value}, f'{parameter} = "photos"')

    before = now()
    assert now() == before
    (checkout / path).write_bytes(b"12")
    assert staleness.changes(before, now()) == [f"file {path}: changed"]
    other = checkout / "data" / "torchvision"
    assert staleness.undeclared(before, [checkout / path, other], checkout) == [other]


def test_a_key_that_is_wanted_is_younger_than_what_was_made_only_if_it_differs(tmp_path):
    wanted, made = tmp_path / "wanted.json", tmp_path / "made.json"
    old, new = {"parameters": {"n": "8"}}, {"parameters": {"n": "64"}}
    staleness.store(made, old)
    for one, younger in ((old, False), (new, True), (old, False), (new, True)):
        os.utime(made)
        staleness.want(wanted, one, made)
        time = wanted.stat().st_mtime_ns
        assert (time >= made.stat().st_mtime_ns) is younger
        staleness.want(wanted, one, made)  # a build that has nothing to do touches nothing
        assert wanted.stat().st_mtime_ns == time


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_key_counts_as_none(tmp_path, text):
    (tmp_path / "made.json").write_text(text)
    assert staleness.load(tmp_path / "made.json") is None


# ---- the real chapters

CHAPTERS = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
GRADED = {"bhv-confounders", "imagenet-networks", "posenet-variance"}
GRADED |= {"ppp-metrics", "training-dynamics"}
GRADED |= {"claims-ledger"}
"""Chapters that show grades, which are computed from the tables of several studies."""
LINE = "\nextra = 1\n"
EDITS = [  # file, what is replaced in it (nothing: something is appended), by what, what is stale
    ("ppp/passes.py", "", LINE, CHAPTERS - {"padding-schemes", "sweeps"}),
    ("ppp/passes.py", "", "\n# a comment\n", set()),
    ("ppp/passes.py", '"""', '"""Words. ', set()),
    ("studies/bhv/analysis.py", "", LINE, GRADED),
    ("studies/figures/turntable.py", "", LINE, {"extracting-ppp"}),
    ("studies/figures/turntable.css", "", "p {}", {"extracting-ppp"}),
    ("studies/ledger.py", "", LINE, GRADED),
    ("data/bhv/runs.csv", "", "\n", GRADED),
    ("data/posenet-real/runs.csv", "", "\n", GRADED),
    ("data/pretrained-adaptation/runs.csv", "", "\n", {"imagenet-networks"}),
    ("data/claims.yaml", "", "\n", GRADED | {"extracting-ppp"}),
    ("data/scale/curve.csv", "", "\n", {"paper-on-scale"}),
    (
        "data/torchvision/survey.csv",
        "",
        "\n",
        {"paper-on-scale", "your-own-network"},
    ),
    ("data/sweeps/window-size/table.parquet", "", "\n", {"sweeps"}),
    ("data/networks/manifest.json", "", "\n", CHAPTERS - {"sweeps"}),
    ("data/networks/README.md", "", "words", set()),
    ("data/urban100.txt", "", "\n", set()),
    ("constraints.txt", "\nnumpy==", "\nnumpy==9", CHAPTERS),
    ("constraints.txt", "", "\nof-tests==1\n", set()),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A copy of the checkout that may be edited, and the keys of its chapters."""
    root = tmp_path_factory.mktemp("real")
    for name in ("notebooks", "ppp", "studies", "data"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "constraints.txt", root)
    return root, chapter_keys(root)


def chapter_keys(root):
    library, folder = Library(root), root / "notebooks"
    return {stem: staleness.key(root, folder / f"{stem}.ipynb", {}, library) for stem in CHAPTERS}


def edited(real, name, change):
    """Return the chapters that are stale while a file of the copy is edited."""
    root, before = real
    path = root / name
    content = path.read_bytes()
    path.write_bytes(change(content))
    try:
        now = chapter_keys(root)
    finally:
        path.write_bytes(content)
    return {stem for stem in CHAPTERS if now[stem] != before[stem]}


@pytest.mark.parametrize(("name", "old", "new", "stale"), EDITS)
def test_an_edit_makes_exactly_those_chapters_stale_that_depend_on_it(real, name, old, new, stale):
    def change(content):
        if not old:
            return content + new.encode()
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    assert edited(real, name, change) == stale


@pytest.mark.parametrize(
    ("kind", "text", "stale"),
    [
        ("code", "\nextra = 1", True),
        ("code", "\n# a comment", False),
        ("markdown", "\nProse.", False),
        ("parameters", "\nprice = 3", True),
        ("parameters", "  # a comment", False),
    ],
)
def test_an_edit_of_a_chapter_makes_at_most_that_one_stale(real, kind, text, stale):
    def change(content):
        notebook = json.loads(content)
        cells = [
            cell
            for cell in notebook["cells"]
            if kind in (cell["cell_type"], *cell["metadata"].get("tags", []))
        ]
        cells[-1]["source"].append(text)
        return json.dumps(notebook).encode()

    found = edited(real, "notebooks/padding-schemes.ipynb", change)
    assert found == ({"padding-schemes"} if stale else set())


@pytest.mark.nightly
def test_a_key_knows_every_module_that_a_chapter_loads():
    """Run what a chapter imports, and compare with the modules that were loaded by it."""
    path = ROOT / "notebooks" / "extracting-ppp.ipynb"
    made = staleness.key(ROOT, path, {}, Library(ROOT))["source"]
    tree = ast.parse("\n".join(notebooks.code_cells(path).values()))
    lines = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    code = "\n".join([*map(ast.unparse, lines), "import sys", "ppp.measure", "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    loaded = {name for name in done.stdout.split() if name.split(".")[0] in ("ppp", "studies")}
    assert "ppp.measurement" in loaded
    assert loaded <= set(made), sorted(loaded - set(made))


# ---- what is really opened

SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for package in ("ppp", "studies")
    for path in sorted((ROOT / package).rglob("*.py"))
}
ESCAPES = re.compile(
    r"(\w+\.)*(safe_open|load_file|memory_map|memmap|fromfile|from_file|read_parquet|read_feather"
    r"|read_orc|read_hdf)|h5py\.File|torch\.load|(pa|pyarrow)\.\w+\.read_\w+"
)
"""Readers that open a file without Python, so that no hook sees it."""
ALLOWED = {
    "safe_open(path, 'np')": "a measurement of a caller's",
    "safe_open(path, 'pt')": "patterns of the folder data/dynamics, or of a caller's",
    "pyarrow.parquet.read_table(documents.regular(path))": "a sweep that is shipped, or a caller's",
    "torch.load(path, map_location='cpu', weights_only=True)": "the state of a caller's training",
    "load_file(model, weights)": "of studies.networks, which reads bytes",
}


def test_readers_that_no_hook_sees_are_known():
    """Each gets its path through the door or from its caller."""
    calls = {
        ast.unparse(node)
        for text in SOURCES.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ESCAPES.fullmatch(ast.unparse(node.func))
    }
    assert {call for call in calls if "io.BytesIO(" not in call} == set(ALLOWED)


def test_all_of_data_is_opened_through_the_door():
    """The lists of sets of photographs count where a parameter names a set."""
    around = re.compile(r"paths\.DATA|import DATA|[\"']data[\"']\s*[/)]")
    users = {name for name, text in SOURCES.items() if around.search(text)}
    assert users == {"studies/pictures/datasets.py"}


WATCHED = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from companion.notebooks.watch import watch
watch("log", ["data", "w.pth"])
open("data/a"), open(b"data/a"), os.open("w.pth", 0), open("other"), open("database")
os.chdir("data")
open("b"), open("link")
if not os.fork():
    open("c")
    os._exit(0)
os.wait()
open(0, closefd=False)
"""


def test_the_watch_notes_each_file_once(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("data/a", "data/b", "data/c", "w.pth", "other", "database"):
        (tmp_path / name).touch()
    (tmp_path / "data" / "link").symlink_to("../other")  # leads out
    command = [sys.executable, "-c", WATCHED, str(ROOT)]
    subprocess.run(command, cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
    noted = (tmp_path / "log").read_bytes().decode().split("\0")
    names = [str(Path(one).relative_to(tmp_path.resolve())) for one in noted if one]
    assert names == ["data/a", "w.pth", "data/b", "data/c"]
