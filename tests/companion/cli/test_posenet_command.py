"""`ppp posenet`; what it shares with `ppp bhv` is tested there."""

from pathlib import Path

import pytest

from companion import cli


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the library, which does nothing here."""
    from studies.posenet import design

    calls = []
    monkeypatch.setattr(
        design,
        "train_design",
        lambda wanted, out, *, jobs: calls.append((wanted, out, jobs)),
    )
    monkeypatch.setattr(design, "collect", lambda *given: calls.append(given))
    return calls


def command(*arguments) -> int:
    return cli.main(["posenet", *map(str, arguments)])


def test_without_options_the_whole_design_is_trained_and_collected(asked, capsys):
    from studies.posenet import design

    assert command() == 0
    out, every = Path("runs/posenet"), design.runs()
    assert asked == [(every, out, 1), (out, out / "tables", every)]
    said = capsys.readouterr().out
    assert said == f"{len(every)} runs in {out}; their tables are in {out / 'tables'}\n"


def test_options_choose_runs(asked):
    from studies.posenet import design

    options = "--part trained --part ridge --padding zeros --padding randn --seed 4 --jobs 2"
    assert command(*options.split(), "--out", "o", "--data", "d") == 0
    wanted = design.runs(["trained", "ridge"], ["zeros", "randn"], [4])
    out, data = Path("o"), Path("d")
    assert asked == [(wanted, out, 2), (out, data, wanted)] and len(wanted) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--part traned", "unknown part 'traned'; did you mean 'trained'?"),
        ("--padding circle", "unknown padding 'circle'; did you mean 'circular'?"),
        ("--part vgg --seed 4", "no run of the design"),
        ("--part pixels --padding zeros", "no run of the design"),
        ("--seed 5", "seed = 5; expected a whole number, 0 to 4"),
        ("--jobs 0", "jobs = 0; expected a whole number of at least 1"),
    ],
)
def test_wrong_options_are_told_in_one_line(capsys, tmp_path, options, words):
    out = tmp_path / "out"
    assert command(*options.split(), "--out", out) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("ppp: ") and printed.err.count("\n") == 1
    assert words in printed.err
    assert not out.exists()


def test_tables_of_other_runs_are_not_replaced(capsys, tmp_path):
    (tmp_path / "runs.csv").write_text("part,padding,seed\ntrained,zeros,0\n")
    assert command("--part", "pixels", "--out", tmp_path / "out", "--data", tmp_path) == 2
    told = capsys.readouterr().err
    assert "hold 1 other runs, such as trained-zeros-seed0, which would be lost" in told
    assert not (tmp_path / "out").exists()
