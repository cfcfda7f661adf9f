"""The machinery of all studies, on a small one of its own."""

import hashlib
import json
import os
import platform
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from checks import contents, refused

from ppp.errors import ParameterError, PPPError, WeightsError
from studies.runs import Run, Study, headed, joined
from studies.storage import outputs, tables as files


@dataclass(frozen=True, order=True)
class Small(Run):
    """A run of two settings."""

    kind: str
    seed: int


def compute(run: Small) -> dict[str, pd.DataFrame | bytes]:
    """Numbers with many digits, a log that only some runs have, and a file."""
    if run.kind == os.environ.get("UNLUCKY"):
        raise PPPError("an unlucky kind")
    scores = pd.DataFrame({"shift": [0, 8], "score": [np.pi + run.seed, 1 / 3]})
    log = pd.DataFrame({"epoch": [1, 2], "loss": [np.e, np.nan]})
    log = log if run.kind == "a" else log.iloc[:0]
    return {"scores": scores, "log": log, "weights.bin": b"\x00\xff"}


RUNS = [Small("a", 0), Small("a", 1), Small("b", 0)]


def design() -> list[Small]:
    return RUNS


TABLES = {"scores": "all-scores.csv.gz", "log": "logs.csv"}
STUDY = Study("test", Small, design, compute, TABLES, {"log": 3})


@pytest.fixture
def folder(tmp_path):
    """A folder of finished runs."""
    folder = tmp_path / "runs"
    outputs.claim(folder, STUDY.command)
    for run in RUNS:
        STUDY.keep(run, folder, compute(run), 2.5 + run.seed)
    return folder


# -------------------------------------------------------------------------- choosing the runs


def test_runs_are_chosen_by_their_settings_and_names():
    assert STUDY.runs() == STUDY.runs(kind=None) == RUNS
    assert STUDY.runs(kind=["a", "a"], seed=iter([0])) == RUNS[:1]
    assert STUDY.runs(stem=["b-seed0", "a-seed1"]) == RUNS[1:]  # in the order of the design
    free = replace(STUDY, largest_seed=99)
    assert free.runs(kind=["b"], seed=[7, 0]) == [Small("b", 7), Small("b", 0)]
    assert free.runs(seed=[7, 7]) == [Small("a", 7), Small("b", 7)]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"kind": ["a", "c"]}, "unknown kind 'c'; known: a, b"),
        ({"stem": ["a-sed0"]}, "unknown run 'a-sed0'; did you mean 'a-seed0'?"),
        ({"seed": [2]}, "seed = 2; expected a whole number, 0 to 1"),
        ({"seed": ["0"]}, "seed = '0'; expected a whole number, 0 to 1"),
        ({"seed": [True]}, "seed = True"),
        ({"kind": ["b"], "seed": [1]}, "no run of the study has this kind and seed"),
        ({"kind": []}, "no run of the study has this kind"),
    ],
)
def test_what_the_design_does_not_have_is_refused(selection, message):
    assert refused(STUDY.runs, error=ParameterError, **selection).startswith(message)


# ---------------------------------------------------------------------------- performing them


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_others_go_on_when_a_run_fails_and_the_next_call_performs_what_is_missing(
    tmp_path, monkeypatch, capsys, jobs
):
    folder = tmp_path / "runs"
    monkeypatch.setenv("UNLUCKY", "a")
    message = refused(STUDY.perform, RUNS, folder, jobs=jobs)
    assert message.startswith("2 of 3 runs failed; the first: a-seed")
    assert message.endswith(": an unlucky kind")
    assert [path.name for path in folder.glob("[!.]*")] == ["b-seed0"]
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == [
        "b-seed0: 0 s", *(f"failed: a-seed{seed}: an unlucky kind" for seed in (0, 1)),
    ]  # fmt: skip
    before = contents(folder)
    monkeypatch.delenv("UNLUCKY")
    STUDY.perform(RUNS, folder, threads=2)
    after = contents(folder)
    assert {name: after[name] for name in before} == before  # b was not performed again
    for run in RUNS:
        assert {path.name for path in (folder / run.stem).iterdir()} == {
            "scores.csv", "log.csv", "weights.bin", "record.json",
        }  # fmt: skip
    assert json.loads(after["a-seed1/record.json"])["threads"] == 2
    monkeypatch.setenv("UNLUCKY", "b")
    STUDY.perform(RUNS, folder)
    assert contents(folder) == after


def test_an_interrupt_keeps_what_is_finished_and_no_folder_without_anything(tmp_path):
    def interrupted(run):
        if run.kind == "b":
            raise KeyboardInterrupt
        return compute(run)

    study, folder = replace(STUDY, compute=interrupted), tmp_path / "runs"
    with pytest.raises(KeyboardInterrupt):
        study.perform(RUNS, folder)
    assert {path.name for path in folder.iterdir()} == {".ppp.json", "a-seed0", "a-seed1"}
    with pytest.raises(KeyboardInterrupt):
        study.perform(RUNS[2:], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_of_somebody_else_is_refused_and_wrong_jobs_make_none(tmp_path):
    (tmp_path / "thesis.txt").touch()
    assert "thesis.txt" in refused(STUDY.perform, RUNS, tmp_path)
    assert "jobs = 0" in refused(STUDY.perform, RUNS, tmp_path / "runs", jobs=0)
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt"}


@pytest.mark.parametrize("name", ["bhv", "posenet", "patterns", "survey"])
def test_a_folder_of_an_earlier_name_of_the_command_is_gone_on_with(tmp_path, name):
    study = replace(STUDY, name=name)
    outputs.claim(tmp_path, f"ppp {name}")
    study.perform(RUNS, tmp_path)
    study.collect(tmp_path, tmp_path / "data", RUNS)
    assert "is of 'ppp study " in refused(STUDY.perform, RUNS, tmp_path)


# ----------------------------------------------------------------------------- a single run


def test_what_is_kept_is_there(tmp_path):
    run, folder = Small("a", 1), tmp_path / "deep" / "er"
    STUDY.keep(run, folder, compute(run), 12.34)
    place = folder / "a-seed1"
    assert (place / "weights.bin").read_bytes() == b"\x00\xff"
    scores = pd.read_csv(place / "scores.csv", converters={"score": float})
    assert scores.columns.tolist() == ["kind", "seed", "shift", "score"]
    assert scores["kind"].tolist() == ["a", "a"] and scores["seed"].tolist() == [1, 1]
    assert scores["score"].tolist() == [np.pi + 1, 1 / 3]  # in full
    assert STUDY.seconds(run, folder) == pytest.approx(12.3)
    record = json.loads((place / "record.json").read_text())
    for name, digest in record.pop("tables").items():
        assert digest == hashlib.sha256((place / f"{name}.csv").read_bytes()).hexdigest()
    assert record == {
        "kind": "a", "seed": 1, "seconds": 12.3, "torch": torch.__version__,
        "numpy": np.__version__, "python": platform.python_version(),
        "machine": platform.machine(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def test_the_record_comes_last(tmp_path, monkeypatch):
    usual, run = files.write_table, RUNS[0]

    def full(path, *given, **more):
        if path.name == "log.csv":
            raise OSError(28, "No space left on device")
        usual(path, *given, **more)

    monkeypatch.setattr(files, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        STUDY.keep(run, tmp_path, compute(run), 1.0)
    assert (tmp_path / "a-seed0" / "scores.csv").exists()
    assert STUDY.seconds(run, tmp_path) is None
    assert "1 of 1 runs are not finished" in refused(
        lambda: STUDY.collect(tmp_path, tmp_path / "data", [run])
    )
    monkeypatch.undo()
    STUDY.keep(run, tmp_path, compute(run), 1.0)
    assert STUDY.seconds(run, tmp_path) == 1


@pytest.mark.parametrize("change", [lambda text: text[: len(text) // 2], lambda text: text[:-9]])
def test_a_table_that_is_not_what_the_run_wrote_is_refused(folder, tmp_path, change):
    path, data = folder / "a-seed1" / "scores.csv", tmp_path / "data"
    path.write_text(change(path.read_text()))
    assert f"{path} is damaged: it has SHA-256" in refused(STUDY.collect, folder, data, RUNS)
    assert not data.exists()


def test_a_run_of_before_its_tables_were_hashed_is_collected(folder, tmp_path):
    path = folder / "a-seed1" / "record.json"
    record = json.loads(path.read_text())
    del record["tables"]
    path.write_text(json.dumps(record))
    STUDY.collect(folder, tmp_path / "data", RUNS)
    (folder / "a-seed1" / "scores.csv").write_text("score\n1\n")
    assert "has no column 'kind'" in refused(STUDY.collect, folder, tmp_path / "x", RUNS)


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'{"seconds": 1, "tables": 3}', b"{}", b'{"seconds": null}', b"\xff\xfe"],
)
def test_a_damaged_record_names_its_file_and_nothing_is_written(folder, tmp_path, content):
    path = folder / "a-seed1" / "record.json"
    path.write_bytes(content)
    data = tmp_path / "data"
    for call in (partial(STUDY.seconds, RUNS[1]), partial(STUDY.perform_one, RUNS[1])):
        message = refused(call, folder, error=WeightsError)
        assert str(path) in message and "delete its folder to train again" in message
    refused(STUDY.collect, folder, data, RUNS, error=WeightsError)
    assert STUDY.seconds(RUNS[0], folder) == 2.5
    assert not data.exists()


# ---------------------------------------------------------------------------------- collect


def test_collected_tables_hold_the_rows_of_all_runs(folder, tmp_path):
    data = tmp_path / "new" / "data"
    STUDY.collect(folder, data, RUNS)
    assert {p.name for p in data.glob("[!.]*")} == {"all-scores.csv.gz", "logs.csv", "runs.csv"}
    rows = pd.read_csv(data / "all-scores.csv.gz", dtype={"score": str})
    assert rows["kind"].tolist() == list("aaaabb")
    assert rows["seed"].tolist() == [0, 0, 1, 1, 0, 0]
    third = "0.3333333"  # seven digits
    assert rows["score"].tolist() == ["3.141593", third, "4.141593", third, "3.141593", third]
    logs = (data / "logs.csv").read_text().splitlines()  # three digits
    assert logs == ["kind,seed,epoch,loss", "a,0,1,2.72", "a,0,2,", "a,1,1,2.72", "a,1,2,"]
    listed = pd.read_csv(data / "runs.csv")
    assert [Small(*row) for row in listed[["kind", "seed"]].itertuples(index=False)] == RUNS
    assert listed["seconds"].tolist() == [2.5, 3.5, 2.5]
    assert (listed["torch"] == torch.__version__).all()


def test_the_wanted_runs_and_their_order_are_those_of_the_tables(folder, tmp_path):
    STUDY.collect(folder, tmp_path, [RUNS[2], RUNS[0]])
    assert pd.read_csv(tmp_path / "runs.csv")["kind"].tolist() == ["b", "a"]
    assert pd.read_csv(tmp_path / "all-scores.csv.gz")["kind"].tolist() == list("bbaa")
    STUDY.collect(folder, tmp_path / "b", RUNS[2:])
    assert (tmp_path / "b" / "logs.csv").read_text() == "kind,seed,epoch,loss\n"


def test_the_same_runs_give_the_same_bytes_and_may_replace_themselves(folder, tmp_path):
    for name in ("x", "y", "x"):
        STUDY.collect(folder, tmp_path / name, RUNS)
    assert contents(tmp_path / "x") == contents(tmp_path / "y")
    assert len(contents(tmp_path / "x")) == 4


def test_unfinished_runs_are_counted_and_the_first_is_named(folder, tmp_path):
    for stem in ("a-seed1", "b-seed0"):
        (folder / stem / "record.json").unlink()
    data = tmp_path / "data"
    said = refused(STUDY.collect, folder, data, RUNS)
    assert said == f"2 of 3 runs are not finished in {folder}, the first: a-seed1; train them first"
    assert not data.exists()
    STUDY.collect(folder, data, RUNS[:1])


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b'a,b\n"1,2\n'])
def test_a_damaged_table_is_named_and_nothing_is_written(folder, tmp_path, content):
    path = folder / "b-seed0" / "scores.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    data = tmp_path / "data"
    assert str(path) in refused(STUDY.collect, folder, data, RUNS, error=WeightsError)
    assert not data.exists()


def test_tables_of_other_runs_are_not_replaced(folder, tmp_path):
    data = tmp_path / "data"
    STUDY.collect(folder, data, RUNS)
    before = contents(data)
    for runs in (RUNS[1:], RUNS[2:], []):
        lost = sorted(run.stem for run in set(RUNS) - {*runs})
        words = f"hold {len(lost)} other runs, such as {lost[0]}, which would be lost"
        for call in (STUDY.check, partial(STUDY.collect, folder)):
            assert words in refused(call, data, runs)
        assert contents(data) == before
    more = Small("c", 5)
    STUDY.keep(more, folder, compute(more), 1)
    STUDY.collect(folder, data, [*RUNS, more])


@pytest.mark.parametrize("content", ["distance,time\n10,41.2\n", "kind\na\n", ""])
def test_a_list_of_something_else_is_not_replaced(folder, tmp_path, content):
    data = tmp_path / "data"
    data.mkdir()
    (data / "runs.csv").write_text(content)
    for call in (STUDY.check, partial(STUDY.collect, folder)):
        assert str(data / "runs.csv") in refused(call, data, RUNS)
    assert contents(data) == {"runs.csv": content.encode()}


# ------------------------------------------------------------------------- headed and joined


def test_headed_puts_the_same_columns_first():
    given = {"x": pd.DataFrame({"v": [1.5, 2.5]}, index=[4, 4]), "y": pd.DataFrame({"w": ["q"]})}
    given["none"] = given["x"].iloc[:0]
    rows = headed({"name": "n", "seed": 3}, given)
    assert list(rows) == ["x", "y", "none"]
    assert rows["none"].empty and rows["none"].columns.tolist() == ["name", "seed", "v"]
    assert rows["x"].to_dict("list") == {"name": ["n"] * 2, "seed": [3, 3], "v": [1.5, 2.5]}
    assert rows["y"].to_numpy().tolist() == [["n", 3, "q"]]
    assert given["x"].columns.tolist() == ["v"]


def test_joined_numbers_its_rows_and_keeps_types_beside_empty_tables():
    one, two = pd.DataFrame({"n": [1], "v": [0.5]}), pd.DataFrame({"n": [2, 3], "v": [1, 2.5]})
    empty = pd.DataFrame({"n": [], "v": []}, dtype=object)
    rows = joined(iter([empty, one, empty, two]))
    assert rows.to_dict("list") == {"n": [1, 2, 3], "v": [0.5, 1, 2.5]}
    assert rows.index.tolist() == [0, 1, 2]
    assert rows["n"].dtype == one["n"].dtype and rows["v"].dtype == float
    none = joined([empty, empty])
    assert none.empty and none.columns.tolist() == ["n", "v"]
