"""`ppp patterns`; what it shares with `ppp bhv` is tested there."""

from pathlib import Path

import pytest

from companion import cli
from studies.patterns import design


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the library, which does nothing here."""
    calls = []
    monkeypatch.setattr(
        design, "measure_design", lambda wanted, out, *, jobs: calls.append((wanted, out, jobs))
    )
    monkeypatch.setattr(design, "collect", lambda *given: calls.append(given))
    return calls


def test_without_options_everything_is_measured_and_collected(asked, capsys):
    assert cli.main(["patterns"]) == 0
    out, every = Path("runs/patterns"), design.runs()
    assert asked == [(every, out, 1), (out, out / "tables", every)]
    assert capsys.readouterr().out.startswith(f"{len(every)} runs in {out}; ")


def test_options_choose_runs(asked):
    options = "--family vgg --padding zeros --scheme randn --state trained --seed 2 --jobs 2"
    assert cli.main(["patterns", *options.split(), "--out", "o", "--data", "d"]) == 0
    wanted = design.runs(["vgg"], ["zeros", "randn"], ["trained"], [2])
    assert asked == [(wanted, Path("o"), 2), (Path("o"), Path("d"), wanted)]
    assert len(wanted) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--family rsnet", "unknown family 'rsnet'; did you mean 'resnet'?"),
        ("--state begun", "unknown state 'begun'"),
        ("--padding zeros --state initial", "no run of the design"),
        ("--seed 9", "seed = 9; expected a whole number, 0 to 4"),
        ("--jobs 0", "jobs = 0; expected a whole number of at least 1"),
    ],
)
def test_wrong_options_are_told_in_one_line(capsys, tmp_path, options, words):
    assert cli.main(["patterns", *options.split(), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("ppp: ") and printed.err.count("\n") == 1
    assert words in printed.err and not (tmp_path / "out").exists()
