"""The command line, notebook parameters, and the pipeline, on small notebooks made here."""

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
import toy_notebooks
import yaml

from companion import cli, notebooks
from companion.book import build
from ppp.errors import ParameterError
from ppp.padding import SCHEMES
from studies import parameters

PARAMETERS = """\
profile = "standard"  # how much is computed
n = 64  # number of windows
photograph = "coffee"
schemes = ["zeros", "reflect"]
results = "results"
"""
BODY = """\
import json
from pathlib import Path
Path(results).mkdir(parents=True, exist_ok=True)
Path(results, "numbers.json").write_text(json.dumps({"n": n, "profile": profile}))
assert n != 13, "an unlucky number"
print(n, schemes, photograph)
"""


def write(path, cell=PARAMETERS, body=BODY, tags=("parameters",)):
    return toy_notebooks.write(path, "Toy", cell, body, tags)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkout with one notebook, which is also the working directory."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    profiles = {"quick": {"01-toy": {"n": 8}}, "standard": None, "paper": {}}
    (tmp_path / "profiles.yaml").write_text(yaml.safe_dump(profiles))
    return write(tmp_path / "notebooks" / "01-toy.ipynb")


def everything(folder):
    return sorted(path for path in folder.rglob("*"))


# ---- the registry


def test_registry_knows_the_names_of_the_library():
    from studies.bhv import variants

    assert parameters.SCHEMES == SCHEMES
    assert tuple(variants.VARIANTS) == parameters.VARIANTS
    assert tuple(variants.PROTOCOLS) == parameters.PROTOCOLS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profile", "paper"),
        ("n", 2),
        ("scheme", "constant(0.5)"),
        ("schemes", ["zeros", "randn(border)"]),
        ("layers", []),
        ("layer", "features.30"),
        ("checkpoints", [2, 8, 64]),
        ("photos", ""),
        ("weights", "IMAGENET1K_V2"),
        ("amount", 0),
        ("seed", 0),
    ],
)
def test_check_accepts(name, value):
    assert parameters.checked({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("profile", "quik", "did you mean 'quick'"),
        ("nn", 3, "unknown parameter 'nn'"),
        ("scheem", "zeros", "did you mean 'scheme'"),
        ("n", 1, "an integer >= 2"),
        ("n", True, "an integer >= 2"),
        ("n", "3", "an integer >= 2"),
        ("n", 3.0, "an integer >= 2"),
        ("seed", 2**32, "<= 4294967295"),
        ("scheme", "refelct", "did you mean 'reflect'"),
        ("scheme", "constant(x)", "expected a number in the brackets"),
        ("scheme", None, "unknown padding None"),
        ("schemes", "zeros", "a list"),
        ("schemes", [], "a list"),
        ("schemes", ["zeros", "zeros"], "comes twice"),
        ("checkpoints", [8, 2], "increasing order"),
        ("photos", "/no/such/folder", "no such folder"),
        ("layer", "layer 3", "a layer's name"),
        ("network", "", "a name"),
        ("network", "a\nb", "a name"),
        ("results", "", "a folder"),
    ],
)
def test_check_refuses_in_one_line(name, value, says):
    with pytest.raises(ParameterError) as caught:
        parameters.check(**{name: value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_float_kind():
    kind = parameters.Float(0, 1)
    assert kind.check(1) == 1.0 and isinstance(kind.check(1), float)
    assert kind.parse("1e-3") == 0.001
    for wrong in (True, "x", float("nan"), 2):
        with pytest.raises(ValueError, match="a number >= 0, <= 1"):
            kind.parse(wrong)


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("1", 1.0), ("0", 0.0), ("noise", "noise")]
)
def test_a_canvas_is_a_value_or_a_texture(text, value):
    for found in (
        parameters.checked({"canvas": text}, text=True)["canvas"],
        parameters.checked({"canvas": value})["canvas"],
    ):
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "says", "text"),
    [
        ("nois", "did you mean 'noise'", (False, True)),
        ("1.5", "<= 1", (True,)),
        ("0.5", "unknown canvas '0.5'", (False,)),
        ("nan", "<= 1", (True,)),
        (1.5, "<= 1", (False, True)),
        (-0.1, ">= 0", (False, True)),
        (float("nan"), "<= 1", (False, True)),
        (True, "<= 1", (False, True)),
        (None, "<= 1", (False, True)),
    ],
)
def test_no_other_canvas_is_accepted(value, says, text):
    for one in text:
        with pytest.raises(ParameterError) as caught:
            parameters.checked({"canvas": value}, text=one)
        assert says in str(caught.value) and "\n" not in str(caught.value)


# ---- reading a notebook


def test_defaults_and_merge(toy):
    values = notebooks.defaults(toy)
    assert list(values) == ["profile", "n", "photograph", "schemes", "results"]
    asked = {"n": "3", "schemes": "[randn, mean]", "photograph": "no"}
    assert notebooks.merge(values, asked, text=True) == {
        "n": 3,
        "schemes": ["randn", "mean"],
        "photograph": "no",  # YAML 1.1 would make it False
    }
    assert notebooks.merge(values, {"schemes": "mean"}, text=True) == {"schemes": ["mean"]}


TEXTS = ["set #2", "!tag x", "a: b", "'set'", '"set"', "- a", "&a", "*a", "a%b", "{a}", "no", "1e3"]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_taken_as_they_stand(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(text).mkdir()
    values = {"photos": "", "weights": "random"}
    asked = {"photos": text, "weights": f"{text}.pth"}
    assert notebooks.merge(values, asked, text=True) == asked


@pytest.mark.parametrize(
    "text",
    [
        "zeros,constant(0.5)",
        " zeros, constant(0.5) ",
        "[zeros, constant(0.5)]",
        "[ 'zeros', \"constant(0.5)\" , ]",
    ],
)
def test_lists_are_written_with_brackets_or_without(text):
    found = notebooks.merge({"schemes": []}, {"schemes": text}, text=True)
    assert found == {"schemes": ["zeros", "constant(0.5)"]}
    assert notebooks.merge({"layers": []}, {"layers": "[]"}, text=True) == {"layers": []}


@pytest.mark.parametrize("text", ["[set #2, b]", "[a b, c]", "!t a", "a,,b", "[a, [b]]", "&a b"])
def test_values_of_lists_are_taken_as_they_stand(text):
    with pytest.raises(ParameterError, match="expected a name"):
        notebooks.merge({"networks": []}, {"networks": text}, text=True)


@pytest.mark.parametrize(
    ("cell", "tags", "says"),
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
def test_unusable_parameters_cell(tmp_path, cell, tags, says):
    with pytest.raises((notebooks.NotebookError, ParameterError), match=says):
        notebooks.defaults(write(tmp_path / "x.ipynb", cell, tags=tags))


def test_two_parameters_cells_are_refused(toy):
    content = nbformat.read(toy, 4)
    content.cells[2].metadata["tags"] = ["parameters"]
    nbformat.write(content, toy)
    with pytest.raises(notebooks.NotebookError, match="2 code cells"):
        notebooks.defaults(toy)


def test_not_a_notebook(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text("{")
    with pytest.raises(notebooks.NotebookError, match="not a notebook") as caught:
        notebooks.defaults(path)
    assert "\n" not in str(caught.value)


def test_find(toy):
    write(toy.with_name("02-tool.ipynb"))
    assert [notebooks.find(name) for name in ("01", "01-toy", "toy", str(toy))] == [toy] * 4
    with pytest.raises(notebooks.NotebookError, match="ambiguous; it fits 01-toy, 02-tool"):
        notebooks.find("to")
    with pytest.raises(notebooks.NotebookError, match="did you mean '01-toy'"):
        notebooks.find("01-tyo")


# ---- the command line


def test_params(toy, capsys):
    assert cli.main(["params", "01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "type", "default", "allowed", "meaning"]
    (row,) = [line for line in lines if line.startswith("n ")]
    assert "int" in row and "64" in row and "an integer >= 2" in row
    column = lines[0].index("meaning")
    assert all(line[column - 2 : column].strip() == "" for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-p", "nn", "8"], "unknown parameter 'nn'; did you mean 'n'"),
        (["-p", "scheme", "zeros"], "did you mean 'schemes'"),
        (["-p", "n", "1"], "parameter n = '1'"),
        (["-p", "n", "true"], "an integer >= 2"),
        (["-p", "schemes", "[zeros, refelct]"], "did you mean 'reflect'"),
        (["-p", "schemes", "[zeros"], "unknown padding '[zeros'"),
        (["-p", "n", "9" * 10_000], "expected an integer >= 2"),
        (["-p", "n", str(2**63)], "expected an integer >= 2"),
        (["-p", "photograph", "~no-such-user/x"], "expected a name"),
        (["-p", "results", "x"], "--output"),
        (["--profile", "quik"], "did you mean 'quick'"),
        (["--output", "notebooks"], "holds '01-toy.ipynb', which 'ppp run' did not make"),
    ],
)
def test_refusal_is_one_line_and_writes_nothing(toy, capsys, arguments, says):
    before = everything(toy.parents[1])
    assert cli.main(["run", "01", *arguments]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.startswith("ppp: ") and message.count("\n") == 1
    assert everything(toy.parents[1]) == before


def test_missing_notebook_and_usage(toy, capsys):
    assert cli.main(["run", "09"]) == 2
    assert "known: 01-toy" in capsys.readouterr().err
    assert cli.main(["rum"]) == 2
    message = capsys.readouterr().err
    assert "invalid choice: 'rum'" in message and message.count("\n") == 1
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0


def test_unknown_parameter_in_a_profile(toy, capsys):
    Path("profiles.yaml").write_text("quick: {01-toy: {nn: 3}}")
    assert cli.main(["run", "01", "--profile", "quick"]) == 2
    assert "profiles.yaml, quick, 01-toy: unknown parameter 'nn'" in capsys.readouterr().err


def test_run_writes_notebook_page_and_results(toy, capsys):
    assert cli.main(["run", "toy", "--profile", "quick", "-p", "schemes", "mean"]) == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("01-toy-") and len(folder.name) == len("01-toy-12345678")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".ppp.json",
        "01-toy.html",
        "01-toy.ipynb",
        "results",
    ]
    executed = nbformat.read(folder / "01-toy.ipynb", 4)
    assert executed.cells[-1].outputs[0].text == "8 ['mean'] coffee\n"
    numbers = json.loads((folder / "results" / "numbers.json").read_text())
    assert numbers == {"n": 8, "profile": "quick"}
    assert str(folder) in capsys.readouterr().out
    page = (folder / "01-toy.html").read_text()
    assert "coffee" in page and "MathJax = {tex" in page
    assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=["']?https?:""", page)
    assert nbformat.read(toy, 4).cells[1].source == PARAMETERS.strip() + "\n"


def test_failing_notebook_leaves_no_result(toy, capsys, tmp_path):
    output = tmp_path / "with {brace}"
    assert cli.main(["run", "01", "--output", str(output)]) == 0
    kept = (output / "01-toy.ipynb").read_bytes()
    capsys.readouterr()
    assert cli.main(["run", "01", "-p", "n", "13", "--output", str(output), "--force"]) == 1
    message = capsys.readouterr().err
    assert "an unlucky number" in message and "AssertionError" in message
    failed = tmp_path / "with {brace}.failed" / "01-toy.ipynb"
    assert f"as far as it got: {failed}" in message
    assert "an unlucky number" in failed.read_text()
    # What an earlier run left is whole, and still that run's.
    assert (output / "01-toy.ipynb").read_bytes() == kept
    assert json.loads((output / "results" / "numbers.json").read_text())["n"] == 64
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_output_that_cannot_be_written(toy, capsys):
    Path("taken").write_text("a file where the folder should be")
    assert cli.main(["run", "01", "--output", "taken"]) == 2
    message = capsys.readouterr().err
    assert "taken" in message and message.count("\n") == 1
    assert Path("taken").read_text() == "a file where the folder should be"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_read_only_output_folder(toy, capsys):
    Path("locked").mkdir(mode=0o500)
    assert cli.main(["run", "01", "--output", "locked/run"]) == 2
    assert "Permission denied" in capsys.readouterr().err


# ---- the book


def test_numbers(tmp_path):
    assert build.numbers(tmp_path, "extracting-ppp") == {}
    file = tmp_path / "numbers.json"
    file.write_text('{"n": 64, "mae": "0.12"}')
    assert build.numbers(tmp_path, "extracting-ppp") == {
        "extracting_ppp_n": 64,
        "extracting_ppp_mae": "0.12",
    }
    for wrong in ("[1]", '{"a": NaN}', '{"a": {"b": 1}}', '{"a b": 1}', '{"a": true}', "{"):
        file.write_text(wrong)
        with pytest.raises(build.BookError, match=r"numbers\.json"):
            build.numbers(tmp_path, "extracting-ppp")


def test_unknown_profile_is_refused_before_building(capsys):
    assert cli.main(["build", "--profile", "standart"]) == 2
    assert "did you mean 'standard'" in capsys.readouterr().err
