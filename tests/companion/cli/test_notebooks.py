"""``ppp run`` and ``ppp params`` on a small notebook, and the words of a command line."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import toy_notebooks
import yaml
from checks import contents

from companion import cli, notebooks
from studies import paths

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


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkout with one notebook, which is also the working directory."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    profiles = {"quick": {"toy": {"n": 8}}, "standard": None, "paper": {"toy": {"nn": 3}}}
    (tmp_path / "profiles.yaml").write_text(yaml.safe_dump(profiles))
    (tmp_path / "taken").write_text("a file where the folder should be")
    return toy_notebooks.write(tmp_path / "notebooks" / "toy.ipynb", "Toy", PARAMETERS, BODY)


def test_params(toy, capsys):
    assert cli.main(["params", "toy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "type", "default", "allowed", "meaning"]
    (row,) = [line for line in lines if line.startswith("n ")]
    assert "int" in row and "64" in row and "an integer >= 2" in row
    column = lines[0].index("meaning")
    assert all(line[column - 2 : column].strip() == "" for line in lines)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run toy -p nn 8", "unknown parameter 'nn'; did you mean 'n'"),
        ("run toy -p n -1", "parameter n = '-1'"),
        ("run toy -p schemes [zeros,refelct]", "did you mean 'reflect'"),
        ("run toy -p results x", "--output"),
        ("run toy --profile quik", "did you mean 'quick'"),
        ("run toy --profile paper", "profiles.yaml, paper, toy: unknown parameter 'nn'"),
        ("run toy --output notebooks", "holds 'toy.ipynb', which 'ppp run' did not make"),
        ("run toy --output taken", "taken"),
        ("run tyo", "did you mean 'toy'"),
        ("rum toy", "unknown command 'rum'; did you mean 'run'"),
        ("", "Missing command; see ppp --help"),
        ("sweep plam x", "unknown command 'plam'; did you mean 'plan'"),
        ("run", "Missing argument 'NOTEBOOK'; see ppp run --help"),
        ("run toy toy", "unexpected extra argument (toy)"),
        ("run toy -p n", "-p n: expected -p n VALUE or -p n=VALUE"),
        ("run toy -p n --output x", "-p n: expected"),
        ("run toy -p", "'-p' requires 2 arguments"),
        ("run toy -p nn=8", "unknown parameter 'nn'"),
        ("run toy -p n=", "parameter n = ''"),
        ("run toy --profile quick -p profile=paper", "expected one of them"),
        ("run toy --outptu x", "unknown option '--outptu'; did you mean '--output'"),
        ("build --profile standart", "did you mean 'standard'"),
        ("build --cores two", "cores = 'two'; expected a whole number of at least 1"),
        (f"sweep plan x --jobs {'9' * 5000}", "jobs = "),
        (f"run {'x' * 5000}", "path"),
        ("run \udc80 --output \ud800", "output '\\ud800'"),
    ],
)
def test_a_refusal_is_one_line_and_writes_nothing(toy, capfd, line, words):
    before = contents(toy.parents[1])
    assert cli.main(line.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("ppp: ") and err.count("\n") == 1 and len(err) < 2000
    assert words in err
    assert contents(toy.parents[1]) == before


def test_run_writes_notebook_page_and_results(toy, capsys):
    assert cli.main(["run", "toy", "--profile", "quick", "-p", "schemes", "mean"]) == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("toy-") and len(folder.name) == len("toy-12345678")
    assert sorted(path.name for path in folder.iterdir()) == [
        ".ppp.json",
        "results",
        "toy.html",
        "toy.ipynb",
    ]
    executed = nbformat.read(folder / "toy.ipynb", 4)
    assert executed.cells[-1].outputs[0].text == "8 ['mean'] coffee\n"
    numbers = json.loads((folder / "results" / "numbers.json").read_text())
    assert numbers == {"n": 8, "profile": "quick"}
    assert str(folder) in capsys.readouterr().out
    page = (folder / "toy.html").read_text()
    assert "coffee" in page and "MathJax = {tex" in page
    assert not re.search(r"""<(script|link|img|iframe)[^>]*(src|href)=["']?https?:""", page)
    assert nbformat.read(toy, 4).cells[1].source == PARAMETERS.strip() + "\n"


@pytest.mark.parametrize("asked", ["-p profile quick", "-p profile=quick", "--profile quick"])
def test_the_profile_as_a_parameter_brings_its_values(toy, asked):
    line = f"run toy {asked} -p schemes=[zeros,mean] -pphotograph=a=b.png --output out"
    assert cli.main(line.split()) == 0
    executed = nbformat.read("out/toy.ipynb", 4)
    assert executed.cells[-1].outputs[0].text == "8 ['zeros', 'mean'] a=b.png\n"
    assert json.loads(Path("out/results/numbers.json").read_text()) == {"n": 8, "profile": "quick"}


def test_a_failing_notebook_leaves_the_result_before_it(toy, capsys, tmp_path):
    output = tmp_path / "with {brace}"
    assert cli.main(["run", "toy", "--output", str(output)]) == 0
    before = contents(output)
    capsys.readouterr()
    assert cli.main(["run", "toy", "-p", "n", "13", "--output", str(output), "--force"]) == 1
    message = capsys.readouterr().err
    assert "an unlucky number" in message and "AssertionError" in message
    failed = tmp_path / "with {brace}.failed" / "toy.ipynb"
    assert f"as far as it got: {failed}" in message
    assert "an unlucky number" in failed.read_text()
    assert contents(output) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_fault_of_the_program_keeps_its_traceback(toy, capsys, monkeypatch):
    def fail(name):
        raise ZeroDivisionError("three\nlines\nof it")

    monkeypatch.setattr(notebooks, "find", fail)
    assert cli.main(["params", "toy"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("ppp: ZeroDivisionError: three lines of it") and err.count("\n") == 1
    report = Path(err.split()[-1])
    assert "Traceback" in report.read_text()
    report.unlink()


@pytest.mark.parametrize("option", ["--version", "--help", "-h"])
def test_questions_are_answered(option, capsys):
    assert cli.main([option]) == 0
    assert "ppp" in capsys.readouterr().out
