from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from companion import cli
from ppp.errors import PPPError


@pytest.fixture
def tiny(monkeypatch):
    """A design of three runs, each of which takes a moment."""
    from studies.bhv import design
    from studies.bhv.variants import PUBLISHED

    few = replace(PUBLISHED, epochs=1, n_train=20, n_validation=10, n_test=10, batch=10)
    condition = design.Condition(trials={"V": 2, "S-optimal": 1})
    monkeypatch.setattr(design, "CONDITIONS", {"published": condition})
    monkeypatch.setattr(design.Condition, "protocols", lambda *_: [few])
    monkeypatch.setattr(design, "pattern", partial(design.pattern, n=32))


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the library, which does nothing here."""
    from studies.bhv import design

    calls = []
    monkeypatch.setattr(
        design, "train_design", lambda wanted, out, *, jobs: calls.append((wanted, out, jobs))
    )
    monkeypatch.setattr(design, "collect", lambda *given: calls.append(given))
    return calls


def command(*arguments) -> int:
    return cli.main(["bhv", *map(str, arguments)])


def last_line(capsys, code: int, *arguments) -> str:
    """Run the command, which fails in one line after the progress of its runs."""
    assert command(*arguments) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said and said.count("ppp: ") == 1
    line = said.splitlines()[-1]
    assert line.startswith("ppp: ")
    return line


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def test_without_options_the_whole_design_is_trained_and_collected(asked, capsys):
    from studies.bhv import design

    assert command() == 0
    out, every = Path("runs/bhv"), design.runs()
    assert asked == [(every, out, 1), (out, out / "tables", every)]
    said = capsys.readouterr().out
    assert said == "314 runs in runs/bhv; their tables are in runs/bhv/tables\n"


def test_options_choose_runs(asked):
    from studies.bhv import design

    options = "--condition size-24 --condition block-6 --variant V --variant F-zero --seed 4"
    assert command(*options.split(), "--seed", 0, "--jobs", 2, "--out", "o", "--data", "d") == 0
    wanted = design.runs(["size-24", "block-6"], ["V", "F-zero"], [0, 4])
    out, data = Path("o"), Path("d")
    assert asked == [(wanted, out, 2), (out, data, wanted)] and len(wanted) == 8


def test_a_design_becomes_tables_and_goes_on(tiny, tmp_path, capsys, monkeypatch):
    from studies.bhv import design, variants

    out, data = tmp_path / "out", tmp_path / "data"
    assert command("--variant", "V", "--seed", 1, "--out", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"1 run in {out}; their tables are in {out / 'tables'}"
    table = design.accuracies(out / "tables")
    assert set(table["variant"]) == {"V"} and set(table["seed"]) == {1} and len(table) == 9

    usual, trained = variants.train, []

    def train(name, protocols, data, seed):
        trained.append((name, seed))
        return usual(name, protocols, data, seed)

    monkeypatch.setattr(variants, "train", train)
    assert command("--out", out, "--data", data) == 0
    assert trained == [("V", 0), ("S-optimal", 0)]  # the third one was there
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == f"3 runs in {out}; their tables are in {data}"
    assert len(pd.read_csv(data / "runs.csv")) == 3
    before = contents(data)
    assert set(before) == {*design.TABLES.values(), "runs.csv"}
    assert command("--out", out, "--data", data) == 0
    assert len(trained) == 2 and contents(data) == before
    capsys.readouterr()

    line = last_line(capsys, 2, "--variant", "V", "--out", out, "--data", data)
    assert "hold 1 other runs, such as published-S-optimal-seed0, which would be lost" in line
    assert contents(data) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--seed x", "seed = 'x'; expected a whole number"),
        ("--seed=-1", "seed = -1; expected a whole number"),
        ("--seed 10", "seed = 10; expected a whole number, 0 to 9"),
        ("--condition publishd", "did you mean 'published'"),
        ("--variant S-zero --variant S-circle", "did you mean 'S-circular'"),
        ("--condition size-24 --variant F-optimal", "no run of the design"),
        ("--jobs 0", "jobs = 0; expected a whole number of at least 1"),
        ("--jobs two", "jobs = 'two'"),
    ],
)
def test_wrong_options_are_told_in_one_line(capsys, tmp_path, options, words):
    out = tmp_path / "out"
    assert command(*options.split(), "--out", out) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("ppp: ") and printed.err.count("\n") == 1
    assert words in printed.err
    assert not out.exists()


def test_a_failed_run_is_told_in_one_line_and_gives_no_tables(tiny, tmp_path, capsys, monkeypatch):
    from studies.bhv import variants

    def train(*_):
        raise PPPError("an unlucky number")

    monkeypatch.setattr(variants, "train", train)
    line = last_line(capsys, 2, "--variant", "V", "--out", tmp_path / "out")
    first = "published-V-seed0: an unlucky number"
    assert line == f"ppp: 2 of 2 runs failed; the first: {first}"
    assert not (tmp_path / "out" / "tables").exists()


def test_a_file_in_the_place_of_the_folder_is_told_in_one_line(tiny, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_text("a thesis")
    line = last_line(capsys, 2, "--variant", "V", "--seed", 0, "--out", out)
    assert f"{out} is no folder; give another --out" in line
    assert out.read_text() == "a thesis"


def test_an_interrupt_says_how_to_go_on(monkeypatch, tmp_path, capsys):
    from studies.bhv import design

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(design, "train_design", stop)
    assert command("--out", tmp_path / "out") == 130
    assert capsys.readouterr().err == (
        "ppp: interrupted; finished runs are kept; the others are trained when the command is "
        "given again\n"
    )
    assert not (tmp_path / "out").exists()
