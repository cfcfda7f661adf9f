"""`ppp study NAME`, and the earlier names of these commands."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import pandas as pd
import pytest
from checks import contents, refused

from companion.cli import study as cli
from studies.bhv import design as bhv, variants
from studies.dynamics import design as zoo
from studies.runs import Study


def command(*words, of: click.Command = cli.study) -> None:
    with of.make_context("ppp", [str(word) for word in words]) as context:
        of.invoke(context)


@pytest.fixture
def asked(monkeypatch):
    """What the command asks of the study, which does nothing here."""
    calls = []

    def perform(self, runs, out, *, jobs, threads):
        calls.append((self.name, runs, out, jobs, threads))

    monkeypatch.setattr(Study, "perform", perform)
    for kind in (Study, zoo.Zoo):
        monkeypatch.setattr(kind, "check", lambda self, data, runs: calls.append((data, runs)))
        monkeypatch.setattr(kind, "collect", lambda self, *given: calls.append(given))
    return calls


@pytest.mark.parametrize("name", cli.STUDIES)
def test_without_options_the_whole_design_is_performed_and_collected(asked, capsys, name):
    command(name)
    out, runs = Path("runs", name), cli._study(name).runs()
    assert asked == [(out / "tables", runs), (name, runs, out, 1, 1), (out, out / "tables", runs)]
    lines = capsys.readouterr().out
    assert lines == f"{len(runs)} runs in {out}; their tables are in {out / 'tables'}\n"


@pytest.mark.parametrize(
    ("words", "selection"),
    [
        (
            "bhv --condition size-24 --condition block-6 --variant V --seed 4 --seed 0",
            {"condition": ["size-24", "block-6"], "variant": ["V"], "seed": [4, 0]},
        ),
        ("bhv block-6-V-seed0", {"stem": ["block-6-V-seed0"]}),
        ("posenet --part ridge --scheme randn", {"part": ["ridge"], "padding": ["randn"]}),
        (
            "patterns --family vgg --padding zeros --scheme randn --state trained",
            {"family": ["vgg"], "padding": ["zeros", "randn"], "state": ["trained"]},
        ),
        (
            "zoo --family vgg --padding zeros --seed 7",
            dict(family=["vgg"], padding=["zeros"], seed=[7]),
        ),
        ("survey vgg11 alexnet", {"model": ["alexnet", "vgg11"]}),
        ("survey --model vgg11", {"model": ["vgg11"]}),
    ],
)
def test_options_choose_runs_and_places(asked, words, selection):
    name, *words = words.split()
    command(name, "--jobs", 2, "--threads", 3, "--out", "my runs", "--data", "d", *words)
    runs, out, data = cli._study(name).runs(**selection), Path("my runs"), Path("d")
    assert asked == [(data, runs), (name, runs, out, 2, 3), (out, data, runs)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bhv --seed x", "seed = 'x'"),
        ("bhv --seed=-1", "seed = -1"),
        ("bhv --seed 10", "seed = 10; expected a whole number, 0 to 9"),
        ("bhv --variant S-zero --variant S-circle", "did you mean 'S-circular'"),
        ("posenet --jobs 0", "jobs = 0; expected a whole number of at least 1"),
        ("posenet --part vgg --seed 4", "no run of the study has this part and seed"),
        ("patterns --threads 0", "threads = 0"),
        ("zoo --seed 65536", "seed = 65536; expected a whole number, 0 to 65535"),
        ("zoo --scheme refelct", "did you mean 'reflect'"),
        ("survey resnet17", "unknown run 'resnet17'; did you mean 'resnet1"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, words, message):
    out = tmp_path / "out"
    assert message in refused(command, *words.split(), "--out", out)
    assert not out.exists()


@pytest.fixture
def tiny(monkeypatch):
    """Make the design of border handling three runs, each of which takes a moment."""
    few = replace(variants.PUBLISHED, epochs=1, n_train=20, n_validation=10, n_test=10, batch=10)
    condition = bhv.Condition(trials={"V": 2, "S-optimal": 1})
    monkeypatch.setattr(bhv, "CONDITIONS", {"published": condition})
    monkeypatch.setattr(bhv.Condition, "protocols", lambda *_: [few])
    monkeypatch.setattr(bhv, "pattern", partial(bhv.pattern, n=32))


def test_a_design_becomes_tables_and_goes_on(tiny, tmp_path, capsys, monkeypatch):
    out, data = tmp_path / "out", tmp_path / "data"
    command("bhv", "--variant", "V", "--seed", 1, "--out", out)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"1 run in {out}; their tables are in {out / 'tables'}"
    usual, trained = variants.train, []

    def train(name, protocols, data, seed):
        trained.append((name, seed))
        return usual(name, protocols, data, seed)

    monkeypatch.setattr(variants, "train", train)
    command("bhv", "--out", out, "--data", data)
    assert trained == [("V", 0), ("S-optimal", 0)]  # the third one was there
    assert len(pd.read_csv(data / "runs.csv")) == 3
    before = contents(data)
    assert set(before) == {".ppp.json", "runs.csv", *bhv.TABLES.values()}
    command("bhv", "--out", out, "--data", data)
    message = refused(command, "bhv", "--variant", "V", "--out", out, "--data", data)
    assert "such as published-S-optimal-seed0, which would be lost" in message
    assert len(trained) == 2 and contents(data) == before


def test_an_interrupt_says_how_to_go_on(tiny, monkeypatch, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(variants, "train", stop)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        command("bhv", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zoo_collect_and_verify(tmp_path, capsys):
    tiny = {"steps": 2, "batch": 2, "n_train": 4, "n_test": 8, "progress": False}
    settings = zoo.Settings("resnet", steps=2, batch=2, n_train=4)
    observer = zoo.Observer(settings, n_scenes=2, n_test=4, n_statistics=4)
    for lr, out in ((0.1, "runs"), (0.01, "others")):
        folder = tmp_path / out / settings.stem
        zoo.train("resnet", **tiny, lr=lr, folder=folder, observe=observer, observe_at=(2,))
    runs, data = tmp_path / "runs", tmp_path / "data"
    command("zoo", "collect", "--runs", runs, "--data", data)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == settings.stem and lines[1].startswith(f"1 run added to {data}")
    for options in ([], ["--accuracy", 8]):
        command("zoo", "verify", "--data", data, *options)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{settings.stem}: hash and weights match, accuracy")
        assert ("again" in lines[0]) == bool(options)
        assert lines[1:] == ["1 network verified"]
    others = ("zoo", "collect", "--runs", tmp_path / "others", "--data", data)
    assert "give --replace" in refused(command, *others)
    command(*others, "--replace")
    assert "no finished run" in refused(command, "zoo", "collect", "--runs", data, "--data", data)
    refused(command, "zoo", "verify", "--data", data, "--accuracy", "all")
    shutil.rmtree(data)
    assert "manifest.json" in refused(command, "zoo", "verify", "--data", data)


@pytest.mark.parametrize(
    ("earlier", "name", "words"),
    [(f"ppp {name}", name, "") for name in ("bhv", "posenet", "patterns", "survey")]
    + [("ppp zoo train", "zoo", "train"), ("ppp zoo", "zoo", "")],
)
def test_an_earlier_name_does_the_same_and_says_the_present_one(
    asked, capsys, earlier, name, words
):
    run = cli._study(name).runs()[0]
    seed = ["--seed", run.seed] if name != "survey" else [run.stem]
    command(*words.split(), *seed, "--out", "o", of=cli.ALIASES[name])
    aliased, asked[:] = asked[:], []
    assert capsys.readouterr().err == f"note: '{earlier}' is now 'ppp study {name}'\n"
    command(name, *seed, "--out", "o")
    assert aliased == asked and capsys.readouterr().err == ""


def test_earlier_names_of_zoo_verify_and_of_help_work(capsys, tmp_path):
    verify = ("verify", "--data", tmp_path)
    assert "manifest.json" in refused(command, *verify, of=cli.ALIASES["zoo"])
    with pytest.raises(click.exceptions.Exit):
        command("--help", of=cli.ALIASES["bhv"])
    assert "--condition" in capsys.readouterr().out
