import hashlib
import json
import platform
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from ppp.errors import PPPError, WeightsError
from studies.runs import Study, headed, joined
from studies.storage import outputs, tables as files


@dataclass(frozen=True)
class Run:
    """A run of two settings."""

    kind: str
    seed: int

    @property
    def stem(self) -> str:
        return f"{self.kind}-{self.seed}"


STUDY = Study("ppp test", Run, {"scores": "all-scores.csv.gz", "log": "logs.csv"}, {"log": 3})
RUNS = [Run("a", 0), Run("a", 1), Run("b", 0)]


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """What a run finds: numbers with many digits, and a log that only some runs have."""
    scores = pd.DataFrame({"shift": [0, 8], "score": [np.pi + run.seed, 1 / 3]})
    log = pd.DataFrame({"epoch": [1, 2], "loss": [np.e, np.nan]})
    return {"scores": scores, "log": log if run.kind == "a" else log.iloc[:0]}


@pytest.fixture
def folder(tmp_path):
    """A folder of finished runs."""
    folder = tmp_path / "runs"
    outputs.claim(folder, STUDY.command)
    for run in RUNS:
        STUDY.keep(run, folder, tables(run), 2.5 + run.seed)
    return folder


def refused(call, error=PPPError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(folder) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("[!.]*") if p.is_file()
    }


# ----------------------------------------------------------------------------- a single run


def test_the_key_is_what_a_run_is_made_of():
    assert STUDY.key == ("kind", "seed")


def test_a_run_that_is_not_finished_has_no_seconds(tmp_path):
    assert STUDY.seconds(RUNS[0], tmp_path) is None
    (tmp_path / "a-0").mkdir()
    (tmp_path / "a-0" / "scores.csv").write_text("half a ta")
    assert STUDY.seconds(RUNS[0], tmp_path) is None
    assert STUDY.seconds(RUNS[0], tmp_path / "no") is None


def test_what_is_kept_is_there(tmp_path):
    run = Run("a", 1)
    STUDY.keep(run, tmp_path / "deep" / "er", tables(run), 12.34, {"weights.bin": b"\x00\xff"})
    place = tmp_path / "deep" / "er" / "a-1"
    assert {p.name for p in place.iterdir()} == {
        "scores.csv", "log.csv", "weights.bin", "record.json",
    }  # fmt: skip
    assert (place / "weights.bin").read_bytes() == b"\x00\xff"
    found = pd.read_csv(place / "scores.csv", converters={"score": float})
    assert found.columns.tolist() == ["kind", "seed", "shift", "score"]
    assert found["kind"].tolist() == ["a", "a"] and found["seed"].tolist() == [1, 1]
    assert found["score"].tolist() == [np.pi + 1, 1 / 3]  # in full
    assert STUDY.seconds(run, tmp_path / "deep" / "er") == pytest.approx(12.3)
    record = json.loads((place / "record.json").read_text())
    for name, digest in record.pop("tables").items():
        assert digest == hashlib.sha256((place / f"{name}.csv").read_bytes()).hexdigest()
    assert record == {
        "kind": "a", "seed": 1, "seconds": 12.3, "torch": torch.__version__,
        "numpy": np.__version__, "python": platform.python_version(),
        "machine": platform.machine(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def test_a_missing_value_is_an_empty_cell(folder):
    assert (folder / "a-0" / "log.csv").read_text().splitlines()[2] == "a,0,2,"
    assert (folder / "b-0" / "log.csv").read_text() == "kind,seed,epoch,loss\n"


def test_the_record_comes_last(tmp_path, monkeypatch):
    usual, run = files.write_table, RUNS[0]

    def full(path, *given, **more):
        if path.name == "log.csv":
            raise OSError(28, "No space left on device")
        usual(path, *given, **more)

    monkeypatch.setattr(files, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        STUDY.keep(run, tmp_path, tables(run), 1.0)
    assert (tmp_path / "a-0" / "scores.csv").exists()
    assert STUDY.seconds(run, tmp_path) is None
    assert "1 of 1 runs are not finished" in refused(
        lambda: STUDY.collect(tmp_path, tmp_path / "data", [run])
    )
    monkeypatch.undo()
    STUDY.keep(run, tmp_path, tables(run), 1.0)
    assert STUDY.seconds(run, tmp_path) == 1


def test_a_run_that_is_kept_again_replaces_itself(folder):
    run, before = RUNS[0], contents(folder)
    other = tables(run)
    other["scores"]["score"] = 7.0
    STUDY.keep(run, folder, other, 99)
    assert pd.read_csv(folder / "a-0" / "scores.csv")["score"].tolist() == [7, 7]
    assert STUDY.seconds(run, folder) == 99
    changed = {name for name, content in contents(folder).items() if content != before[name]}
    assert changed == {"a-0/scores.csv", "a-0/record.json"}


@pytest.mark.parametrize("change", [lambda text: text[: len(text) // 2], lambda text: text[:-9]])
def test_a_table_that_is_not_what_the_run_wrote_is_refused(folder, tmp_path, change):
    path, data = folder / "a-1" / "scores.csv", tmp_path / "data"
    path.write_text(change(path.read_text()))
    assert f"{path} is damaged: it has SHA-256" in refused(
        lambda: STUDY.collect(folder, data, RUNS)
    )
    assert not data.exists()


def test_a_run_of_before_its_tables_were_hashed_is_collected(folder, tmp_path):
    path = folder / "a-1" / "record.json"
    record = json.loads(path.read_text())
    del record["tables"]
    path.write_text(json.dumps(record))
    assert STUDY.collect(folder, tmp_path / "data", RUNS) == len(RUNS)
    (folder / "a-1" / "scores.csv").write_text("score\n1\n")
    assert "has no column 'kind'" in refused(lambda: STUDY.collect(folder, tmp_path / "x", RUNS))


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"[]",
        b'{"seconds": 1, "tables": 3}',
        b"{}",
        b'{"seconds": "long"}',
        b'{"seconds": null}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_record_names_its_file_and_nothing_is_written(folder, tmp_path, content):
    path = folder / "a-1" / "record.json"
    path.write_bytes(content)
    data = tmp_path / "data"
    for call in (
        lambda: STUDY.seconds(RUNS[1], folder),
        lambda: STUDY.collect(folder, data, RUNS),
    ):
        said = refused(call, WeightsError)
        assert str(path) in said and "delete its folder to train again" in said
    assert STUDY.seconds(RUNS[0], folder) == 2.5
    assert not data.exists()


# ---------------------------------------------------------------------------------- collect


def test_collected_tables_hold_the_rows_of_all_runs(folder, tmp_path):
    data = tmp_path / "new" / "data"
    assert STUDY.collect(folder, data, RUNS) == 3
    assert {p.name for p in data.glob("[!.]*")} == {"all-scores.csv.gz", "logs.csv", "runs.csv"}
    found = pd.read_csv(data / "all-scores.csv.gz", dtype={"score": str})
    assert found["kind"].tolist() == list("aaaabb")
    assert found["seed"].tolist() == [0, 0, 1, 1, 0, 0]
    third = "0.3333333"  # seven digits
    assert found["score"].tolist() == ["3.141593", third, "4.141593", third, "3.141593", third]
    logs = (data / "logs.csv").read_text().splitlines()  # three digits
    assert logs == ["kind,seed,epoch,loss", "a,0,1,2.72", "a,0,2,", "a,1,1,2.72", "a,1,2,"]
    listed = pd.read_csv(data / "runs.csv")
    assert [Run(*row) for row in listed[["kind", "seed"]].itertuples(index=False)] == RUNS
    assert listed["seconds"].tolist() == [2.5, 3.5, 2.5]
    assert (listed["torch"] == torch.__version__).all()


def test_the_wanted_runs_and_their_order_are_those_of_the_tables(folder, tmp_path):
    assert STUDY.collect(folder, tmp_path, [RUNS[2], RUNS[0]]) == 2
    assert pd.read_csv(tmp_path / "runs.csv")["kind"].tolist() == ["b", "a"]
    assert pd.read_csv(tmp_path / "all-scores.csv.gz")["kind"].tolist() == list("bbaa")


def test_tables_without_a_row_keep_their_columns(folder, tmp_path):
    assert STUDY.collect(folder, tmp_path, [RUNS[2]]) == 1
    assert (tmp_path / "logs.csv").read_text() == "kind,seed,epoch,loss\n"


def test_the_same_runs_give_the_same_bytes_and_may_replace_themselves(folder, tmp_path):
    for name in ("x", "y", "x"):
        STUDY.collect(folder, tmp_path / name, RUNS)
    assert contents(tmp_path / "x") == contents(tmp_path / "y")
    assert len(contents(tmp_path / "x")) == 3


def test_unfinished_runs_are_counted_and_the_first_is_named(folder, tmp_path):
    for stem in ("a-1", "b-0"):
        (folder / stem / "record.json").unlink()
    data = tmp_path / "data"
    said = refused(lambda: STUDY.collect(folder, data, RUNS))
    assert said == f"2 of 3 runs are not finished in {folder}, the first: a-1; train them first"
    assert not data.exists()
    assert STUDY.collect(folder, data, RUNS[:1]) == 1


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b'a,b\n"1,2\n'])
def test_a_damaged_table_is_named_and_nothing_is_written(folder, tmp_path, content):
    path = folder / "b-0" / "scores.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    data = tmp_path / "data"
    assert str(path) in refused(lambda: STUDY.collect(folder, data, RUNS), WeightsError)
    assert not data.exists()


def test_tables_of_other_runs_are_not_replaced(folder, tmp_path):
    data = tmp_path / "data"
    STUDY.collect(folder, data, RUNS)
    before = contents(data)
    for wanted in (RUNS[1:], RUNS[2:], []):
        lost = sorted(run.stem for run in set(RUNS) - {*wanted})
        words = f"hold {len(lost)} other runs, such as {lost[0]}, which would be lost"
        for call in (STUDY.check, partial(STUDY.collect, folder)):
            assert words in refused(partial(call, data, wanted))
        assert contents(data) == before
    more = Run("c", 5)
    STUDY.keep(more, folder, tables(more), 1)
    assert STUDY.collect(folder, data, [*RUNS, more]) == 4


def test_check_says_nothing_where_nothing_would_be_lost(folder, tmp_path):
    assert STUDY.check(tmp_path / "no", RUNS) is None
    STUDY.collect(folder, tmp_path / "data", RUNS[:1])
    assert STUDY.check(tmp_path / "data", RUNS) is None
    assert STUDY.check(tmp_path / "data", [Run("a", 0)]) is None


@pytest.mark.parametrize("content", ["distance,time\n10,41.2\n", "kind\na\n", ""])
def test_a_list_of_something_else_is_not_replaced(folder, tmp_path, content):
    data = tmp_path / "data"
    data.mkdir()
    (data / "runs.csv").write_text(content)
    for call in (STUDY.check, partial(STUDY.collect, folder)):
        assert str(data / "runs.csv") in refused(partial(call, data, RUNS))
    assert contents(data) == {"runs.csv": content.encode()}


# ------------------------------------------------------------------------- headed and joined


def test_headed_puts_the_same_columns_first():
    given = {"x": pd.DataFrame({"v": [1.5, 2.5]}, index=[4, 9]), "y": pd.DataFrame({"w": ["q"]})}
    found = headed({"name": "n", "seed": 3}, given)
    assert list(found) == ["x", "y"]
    assert found["x"].to_dict("list") == {"name": ["n"] * 2, "seed": [3, 3], "v": [1.5, 2.5]}
    assert found["y"].to_numpy().tolist() == [["n", 3, "q"]]
    assert given["x"].columns.tolist() == ["v"]


def test_headed_gives_an_empty_table_its_columns():
    found = headed({"seed": 3}, {"x": pd.DataFrame({"v": [1.5]}).iloc[:0]})["x"]
    assert found.empty and found.columns.tolist() == ["seed", "v"]


def test_headed_keeps_the_rows_of_a_table_whose_labels_repeat():
    parts = pd.concat([pd.DataFrame({"v": [1]}), pd.DataFrame({"v": [2]})])  # both labelled 0
    assert headed({"seed": 3}, {"x": parts})["x"]["v"].tolist() == [1, 2]


def test_joined_numbers_its_rows_and_keeps_types_beside_empty_tables():
    one, two = pd.DataFrame({"n": [1], "v": [0.5]}), pd.DataFrame({"n": [2, 3], "v": [1, 2.5]})
    empty = pd.DataFrame({"n": [], "v": []}, dtype=object)
    found = joined(iter([empty, one, empty, two]))
    assert found.to_dict("list") == {"n": [1, 2, 3], "v": [0.5, 1, 2.5]}
    assert found.index.tolist() == [0, 1, 2]
    assert found["n"].dtype == one["n"].dtype and found["v"].dtype == float
    none = joined([empty, empty])
    assert none.empty and none.columns.tolist() == ["n", "v"]
