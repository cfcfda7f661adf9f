"""Notebooks are found, and their parameters read, without running them."""

import nbformat
import pytest
import toy_notebooks
from checks import refused

from companion import notebooks
from companion.notebooks.numbers import NumbersError, numbers
from ppp.errors import ParameterError, PPPError

PARAMETERS = """\
profile = "standard"  # how much is computed
n = 64
schemes = ["zeros", "reflect"]
results = "results"
"""


def write(path, cell=PARAMETERS, tags=("parameters",)):
    return toy_notebooks.write(path, "Toy", cell, "print(n)", tags)


def test_defaults_keep_the_order_of_the_cell(tmp_path):
    values = notebooks.defaults(write(tmp_path / "toy.ipynb"))
    assert list(values.items()) == [
        ("profile", "standard"),
        ("n", 64),
        ("schemes", ["zeros", "reflect"]),
        ("results", "results"),
    ]
    asked = {"n": "3", "schemes": "[randn, mean]"}
    assert notebooks.merge(values, asked, text=True) == {"n": 3, "schemes": ["randn", "mean"]}
    for other in ("nn", "scheme"):  # the second is known, but no parameter of this notebook
        assert other in refused(notebooks.merge, values, {other: 3}, error=ParameterError)


@pytest.mark.parametrize(
    ("cell", "tags", "words"),
    [
        (PARAMETERS, (), "0 code cells"),
        ("n = 2 + 2", ("parameters",), "name = literal"),
        ("n = 2\nn = 3", ("parameters",), "line 2"),
        ("n: int = 2", ("parameters",), "name = literal"),
        ("n = ", ("parameters",), "name = literal"),
        ("speed = 3", ("parameters",), "unknown parameter 'speed'"),
        ("n = 1", ("parameters",), "an integer >= 2"),
    ],
)
def test_another_parameters_cell_is_refused(tmp_path, cell, tags, words):
    path = write(tmp_path / "x.ipynb", cell, tags)
    said = refused(notebooks.defaults, path, error=PPPError)
    assert words in said and "x.ipynb" in said


def test_two_parameters_cells_are_refused(tmp_path):
    path = write(tmp_path / "x.ipynb")
    content = nbformat.read(path, 4)
    content.cells[2].metadata["tags"] = ["parameters"]
    nbformat.write(content, path)
    assert "2 code cells" in refused(notebooks.defaults, path, error=notebooks.NotebookError)


def test_what_is_no_notebook_is_refused(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text("{")
    assert "x.ipynb" in refused(notebooks.defaults, path, error=notebooks.NotebookError)


def test_find(tmp_path):
    chapter, other = (
        write(tmp_path / f"{name}.ipynb") for name in ("padding-schemes", "paper-on-scale")
    )
    names = ("padding-schemes", "01", "1", "01-padding-schemes", "padd", "schemes", str(chapter))
    assert [notebooks.find(name, tmp_path) for name in names] == [chapter] * len(names)
    assert notebooks.find("b", tmp_path) == other  # an appendix
    for name, words in {
        "pa": "it fits padding-schemes, paper-on-scale",
        "pading-schemes": "did you mean 'padding-schemes'",
        "09": "known: padding-schemes",
    }.items():
        assert words in refused(notebooks.find, name, tmp_path, error=notebooks.NotebookError)


def test_numbers_for_prose(tmp_path):
    assert numbers(tmp_path, "extracting-ppp") == {}
    file = tmp_path / "numbers.json"
    file.write_text('{"n": 64, "mae": "0.12"}')
    assert numbers(tmp_path, "extracting-ppp") == {
        "extracting_ppp_n": 64,
        "extracting_ppp_mae": "0.12",
    }
    for wrong in ("[1]", '{"a": NaN}', '{"a": {"b": 1}}', '{"a b": 1}', '{"a": true}', "{"):
        file.write_text(wrong)
        assert str(file) in refused(numbers, tmp_path, "extracting-ppp", error=NumbersError)
