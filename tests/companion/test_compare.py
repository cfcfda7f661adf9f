"""A run beside another: what is aligned, what counts as different, and what is refused."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest

from companion import cli, compare
from studies import paths

FIGURE = (
    '<figure class="ppp-figure"><img src="data:image/png;base64,AAAA" alt="a">'
    "<figcaption>{}</figcaption></figure>"
)


def table(shift=0.0, n=64, half=0.1):
    frame = pd.DataFrame({"scheme": ["zeros", "reflect"], "layer": "layer1", "n": n})
    frame["mae"] = [1.0 + shift, 0.5]
    frame["mae_low"], frame["mae_high"] = frame["mae"] - half, frame["mae"] + half
    return frame


def write(folder, *, shift=0.0, n=64, stem="extracting-ppp", half=0.1):
    """Write a folder as ``ppp run`` does."""
    v4 = nbformat.v4
    shown = v4.new_output("display_data", data={"text/html": FIGURE.format(f"n = {n}")})
    cells = [
        v4.new_markdown_cell("# Extracting PPP", id="title"),
        v4.new_code_cell('n = 64  # windows\nseed = 0  # s\nresults = "x"  # f', id="p"),
        v4.new_code_cell(f"n = {n}\nresults = 'y'", id="i"),
        v4.new_code_cell("show()", id="figure", outputs=[shown]),
    ]
    cells[1].metadata["tags"] = ["parameters"]
    cells[2].metadata["tags"] = ["injected-parameters"]
    (folder / "results").mkdir(parents=True)
    nbformat.write(v4.new_notebook(cells=cells), folder / f"{stem}.ipynb")
    table(shift, n, half).to_csv(folder / "results" / "schemes.csv", index=False)
    numbers = {"mae": 1.0 + shift, "layer": "layer1"}
    (folder / "results" / "numbers.json").write_text(json.dumps(numbers))
    return folder


def both(tmp_path, **second):
    runs = [write(tmp_path / "a"), write(tmp_path / "b", **second)]
    return compare.compare(*(compare.Run.read(run) for run in runs))


def test_equal_runs_are_identical(tmp_path):
    found = both(tmp_path)
    assert found.settings == [] and found.numbers == []
    assert found.verdict == "Every table is identical."


@pytest.mark.parametrize(
    ("shift", "half", "exceeding"),
    [
        (0.13, 0.1, 0),  # within the root of the summed squares, 0.141
        (0.15, 0.1, 1),
        (-0.15, 0.1, 1),
        (0.15, 0.2, 0),
    ],
)
def test_a_difference_exceeds_its_interval(tmp_path, shift, half, exceeding):
    found = both(tmp_path, shift=shift, half=half)
    (schemes,) = found.tables
    assert (schemes.compared, schemes.exceeding) == (2, exceeding)
    assert f"{exceeding} of 2 values" in found.verdict
    first = dict(zip(schemes.head, schemes.rows[0]))
    if exceeding:  # what exceeds comes first
        assert first["scheme"] == "zeros" and first["interval"] == "exceeds"
        assert first["difference"] == f"{shift:+.3g}"


def test_halves_that_face_each_other_count():
    narrow = np.array([[2.0, 1.9, 2.1]])
    for interval, beyond in {(-9.0, 1.1): True, (0.9, 2.5): False, (np.nan, np.nan): False}.items():
        assert compare.exceeds(np.array([[1.0, *interval]]), narrow).all() == beyond


def test_rows_are_matched_by_name_where_counts_differ(tmp_path):
    found = both(tmp_path, n=128)
    assert found.settings == [("n", "64", "128")]
    (schemes,) = found.tables
    assert schemes.compared == 2 and "2 rows in both" in schemes.says


def test_rows_that_cannot_be_matched_are_said_to_be():
    twice = pd.concat([table(), table()])
    assert "cannot be matched" in compare.difference("t", twice, table()).says
    other = table().assign(scheme=["mean", "randn"])
    assert "cannot be matched" in compare.difference("t", other, table()).says
    assert "1 rows in both, 1 in only one" in compare.difference("t", table(1)[:1], table()).says


def test_values_without_intervals_are_counted():
    a = pd.DataFrame({"scheme": ["zeros", "mean"], "loss": [0.5, 0.25]})
    found = compare.difference("t", a, a.assign(loss=[0.5, 0.3]))
    assert "values that are not equal: 1" in found.says and found.compared == 0


def test_page_shows_both_figures_and_needs_no_network(tmp_path):
    found = both(tmp_path, n=128, shift=0.5)
    page = found.html()
    assert page.index("n = 64</figcaption>") < page.index("n = 128</figcaption>")
    assert "<script" not in page and 'src="http' not in page and "exceeds" in page


def test_command_beside_what_is_published(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write(tmp_path / "run", shift=0.5)
    built = write(tmp_path / "x")
    (tmp_path / "build" / "standard" / "notebooks").mkdir(parents=True)
    (tmp_path / "build" / "standard" / "results").mkdir()
    name = "extracting-ppp"
    (built / f"{name}.ipynb").rename(f"build/standard/notebooks/{name}.ipynb")
    (built / "results").rename(f"build/standard/results/{name}")
    assert cli.main(["compare", "run"]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 values with intervals differ by more than their intervals." in said
    assert "published (standard)" in (tmp_path / "run" / "compare.html").read_text()
    assert cli.main(["compare", "run"]) == 2
    assert "compare.html exists" in capsys.readouterr().err
    assert cli.main(["compare", "run", "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing"], "no such folder"),
        (["empty"], "0 notebooks"),
        (["run"], "build the book with 'make book'"),
        (["run", "other"], "expected two runs of one chapter"),
        (["run", "broken"], "not a notebook"),
    ],
)
def test_refusal_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    write(tmp_path / "run")
    write(tmp_path / "other", stem="bhv-confounders")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "extracting-ppp.ipynb").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["compare", *arguments]) == 2
    message = capsys.readouterr().err
    assert says in message and message.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
