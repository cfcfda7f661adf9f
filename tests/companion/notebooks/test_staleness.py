"""Keys: what a chapter depends on, what it does not, and whether the graph knows all that runs."""

import importlib
import json
import os
import sys

import nbformat
import pytest

from companion import notebooks
from companion.notebooks import staleness
from companion.notebooks.staleness import Library
from studies.paths import ROOT

MODULES = {
    "__init__": '_MODULES = {"pad": "padding"}\n\n\ndef __getattr__(name):\n    return name\n',
    "padding": (
        '"""Padding."""\nfrom ppp import metrics\n\nSCHEMES = ("zeros",)\n\n\n'
        'def pad(x):\n    """Pad it."""\n    return _fill(x)  # a comment\n\n\n'
        "def _fill(x):\n    return SCHEMES, x\n\n\ndef unused(x):\n    return metrics.mae(x)\n"
    ),
    "metrics": (
        "import numpy as np\n\n\ndef mae(x):\n    return np.abs(x)\n\n\ndef snr(x):\n"
        '    return x\n\n\nclass Table:\n    """Rows."""\n\n    name = "runs.csv"\n\n'
        "    def read(self):\n        return mae(1)\n\n\nmae(0)\n"
    ),
}


@pytest.fixture
def checkout(tmp_path):
    for name, text in MODULES.items():
        path = tmp_path / "ppp" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "runs.csv").write_text("a\n1\n")
    (tmp_path / "data" / "other.csv").write_text("a\n1\n")
    (tmp_path / "constraints.txt").write_text(
        "# pins\nnumpy==2.0\n\n# Of tests alone\npytest==8.0\n"
    )
    return tmp_path


def names(checkout, code):
    return {".".join(node) for node in Library(checkout).reached(code)}


def test_a_name_reaches_what_it_uses_and_no_more(checkout):
    reached = names(checkout, "import ppp\nppp.pad(1)")
    assert {"ppp.padding.pad", "ppp.padding._fill", "ppp.padding.SCHEMES"} <= reached
    # What runs when a module is imported counts, and with it what that calls.
    assert {"ppp.metrics.<module>", "ppp.metrics.mae"} <= reached
    assert not {"ppp.padding.unused", "ppp.metrics.snr", "ppp.metrics.Table"} & reached


@pytest.mark.parametrize(
    "code",
    [
        "from ppp.metrics import snr\nsnr(1)",
        "from ppp.metrics import snr as other\nother(1)",
        "import ppp.metrics as m\nm.snr(1)",
        "from ppp import metrics\nmetrics.snr(1)",
        "import ppp.metrics\nppp.metrics.snr(1)",
        "def f():\n    from ppp import metrics\n    return metrics.snr(1)",
        "from ppp import metrics\ng = [lambda: metrics.snr]",
        "from ppp import metrics\nh(metrics)",  # a module as a whole may be used in any way
    ],
)
def test_every_way_to_name_a_definition_is_seen(checkout, code):
    assert "ppp.metrics.snr" in names(checkout, code)


def write(path, source, parameters="n = 8  # windows\n"):
    v4 = nbformat.v4
    cells = [
        v4.new_code_cell(parameters, id="p", metadata={"tags": ["parameters"]}),
        v4.new_markdown_cell("Words.", id="w"),
        v4.new_code_cell(source, id="c"),
    ]
    nbformat.write(v4.new_notebook(cells=cells), path)
    return path


def key(checkout, source="from ppp.metrics import Table\nTable().read()", values=None):
    path = write(checkout / "toy.ipynb", source)
    return staleness.key(checkout, path, values or {}, Library(checkout))


def edit(checkout, name, old, new):
    path = checkout / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ppp/metrics.py", '"""Rows."""', '"""Rows of a table."""'),
        ("ppp/metrics.py", "return mae(1)", "return mae(1)  # the mean"),
        ("ppp/metrics.py", "return x\n", "return x + 1\n"),  # snr, which the cells do not reach
        ("data/other.csv", "1", "2"),
        ("constraints.txt", "pytest==8.0", "pytest==8.1"),
    ],
)
def test_what_changes_no_result_changes_no_key(checkout, name, old, new):
    before = key(checkout)
    edit(checkout, name, old, new)
    assert key(checkout) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("ppp/metrics.py", "np.abs(x)", "np.abs(x) / 2", "definition ppp.metrics.mae: changed"),
        ("data/runs.csv", "1", "2", "file data/runs.csv: changed"),
        ("constraints.txt", "2.0", "2.1", "pinned version numpy: 2.0 -> 2.1"),
    ],
)
def test_what_changes_a_result_changes_the_key(checkout, name, old, new, says):
    before = key(checkout)
    edit(checkout, name, old, new)
    assert staleness.changes(before, key(checkout)) == [says]


def test_cells_and_parameters_count_and_their_layout_does_not(checkout):
    before = key(checkout)
    assert key(checkout, "from ppp.metrics import Table\n\nTable().read()  # again") == before
    (line, *_) = staleness.changes(before, key(checkout, "from ppp.metrics import Table\nTable()"))
    assert line == "cell c: changed"
    assert staleness.changes(before, key(checkout, values={"n": 64})) == ["parameter n: 8 -> 64"]


def test_photographs_of_ones_own_count(checkout):
    photos = checkout / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(b"1")
    path = write(checkout / "toy.ipynb", "1", parameters='photos = ""  # folder\n')

    def now():
        return staleness.key(checkout, path, {"photos": str(photos)}, Library(checkout))

    before = now()
    assert now() == before
    (photos / "a.png").write_bytes(b"12")
    assert staleness.changes(before, now()) == [f"file {photos / 'a.png'}: changed"]


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


def test_a_broken_key_counts_as_none(tmp_path):
    path = tmp_path / "made.json"
    for text in ("{", "[]", ""):
        path.write_text(text)
        assert staleness.load(path) is None


# ---- the real library


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def library():
    return Library(ROOT)


def test_metrics_and_docstrings_of_the_real_library(library):
    """A chapter that measures reaches the metrics; one that only draws tables does not all."""
    keys = {path.stem: staleness.key(ROOT, path, {}, library)["source"] for path in NOTEBOOKS}
    assert "ppp.metrics.mae_ppp" in keys["extracting-ppp"]
    assert "ppp.metrics.mae_ppp" not in keys["padding-schemes"]
    assert "studies.bhv.variants.train" in keys["bhv-confounders"] or any(
        name.startswith("studies.bhv.variants.") for name in keys["bhv-confounders"]
    )
    assert not any(name.startswith("studies.bhv.variants.") for name in keys["padding-schemes"])


def test_everything_that_runs_is_in_the_key(library, tmp_path):
    """Run a chapter and watch: no function of `ppp` is called that its key does not hold."""
    path = ROOT / "notebooks" / "padding-schemes.ipynb"
    values = notebooks.defaults(path) | {"per_photo": 2, "results": str(tmp_path)}
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    for module in library.modules:  # so that what is called below is called by the cells
        importlib.import_module(module)
    called = set()
    package = str(ROOT / "ppp")

    def watch(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(package):
            module = frame.f_globals["__name__"]
            called.add((module, frame.f_code.co_qualname.split(".")[0]))

    names = {"display": lambda *_: None}
    sys.setprofile(watch)
    try:
        for cell in cells:
            if "parameters" in cell.metadata.get("tags", []):
                names |= values
            else:
                exec(cell.source, names)
    finally:
        sys.setprofile(None)
    reached = set(staleness.key(ROOT, path, {}, library)["source"])
    top = {f"{module}.{name}" for module, name in called if not name.startswith("<")}
    assert len(top) > 30
    assert top <= reached, sorted(top - reached)
    files = json.dumps(staleness.key(ROOT, path, {}, library)["files"])
    assert "data/networks/" in files and "data/bhv" not in files
