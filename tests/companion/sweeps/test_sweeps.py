"""Sweeps: files are read strictly; runs are performed, noted, judged by contents, gathered."""

import contextlib
import json
import os
import subprocess
import sys

import pandas as pd
import psutil
import pytest
import toy_notebooks
from checks import refused
from toy_sweeps import Toy, finish, reasons, states

from companion import cli
from companion.measure import request
from companion.notebooks import staleness
from companion.sweeps import conduct, job, spec, state
from companion.sweeps.spec import Sweep
from ppp import files
from ppp.errors import PPPError
from studies import networks, paths


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("sweeps"))


# ---- the file


def test_a_grid_with_seeds_and_a_list(toy):
    swept = toy.sweep("grid: {n: [2, 3]}\nseeds: 2\nset: {schemes: 'zeros,randn'}")
    factors = [one.factors for one in swept.runs]  # all of one seed come first
    assert factors == [{"n": n, "seed": seed} for seed in (0, 1) for n in (2, 3)]
    assert all(one.settings["schemes"] == ["zeros", "randn"] for one in swept.runs)
    assert "results" not in swept.runs[0].settings
    both = toy.sweep("grid: {n: [2, 3]}\nlist: [{n: 9, seed: 7}]")
    assert [one.factors for one in both.runs] == [{"n": 2}, {"n": 3}, {"n": 9, "seed": 7}]


def test_a_run_keeps_its_id_when_the_sweep_grows(toy):
    few = toy.sweep("grid: {n: [2, 3]}\nseeds: 2")
    more = toy.sweep("grid: {schemes: [[zeros]], n: [4, 3, 2]}\nseeds: [5, 1, 0]")
    assert {one.id for one in few.runs} < {one.id for one in more.runs}
    assert len({one.id for one in more.runs}) == 9
    shipped = Sweep.read(paths.ROOT / "data" / "sweeps" / "window-size" / "sweep.yaml")
    assert shipped.runs[0].id == "0402e0174b38"


def test_a_folder_is_seen_from_the_file(toy, monkeypatch, tmp_path):
    (toy.folder / "pictures").mkdir()
    (toy.folder / "pictures" / "a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    swept = toy.sweep("set: {photos: pictures}\ngrid: {n: [2]}")
    assert swept.runs[0].settings["photos"] == str(toy.folder / "pictures")


def measured(toy, text, name="measured"):
    path = toy.folder / f"{name}.yaml"
    path.write_text(f"run: measure\n{text}")
    return Sweep.read(path)


def test_measure_takes_the_options_of_its_command(toy):
    text = "set: {network: resnet18}\ngrid: {window: [64, 96], memory: [1G]}\nseeds: 2"
    swept = measured(toy, text)
    assert len(swept.runs) == 4 and swept.table == "measurement.csv"
    changes = {"network": "resnet18", "window": 64, "memory": 2**30, "seed": 0}
    assert swept.runs[0].settings == swept.target.base | changes


BAD = [
    ("# run: nothing\ngrid: {n: [2]}", "run None: expected"),
    ("run: tyo", "unknown notebook 'tyo'"),
    ("gird: {n: [2]}", "unknown key 'gird'; did you mean 'grid'"),
    ("name: a/b\nseeds: 1", "name 'a/b': expected"),
    ("profile: fast\nseeds: 2", "unknown profile 'fast'"),
    ("grid: {scheems: [2]}", "grid: unknown parameter 'scheems'; did you mean 'schemes'"),
    ("set: {seeed: 1}\nseeds: 1", "set: unknown parameter 'seeed'"),
    ("grid: {n: [1]}", "grid: parameter n = '1': expected"),
    (f"grid: {{n: [{'9' * 5000}]}}", "grid: parameter n = '999"),
    ("grid: {schemes: [refelct]}", "did you mean 'reflect'"),
    ("grid: {n: [{a: 1}]}", "n = {'a': '1'}: expected"),
    ("grid: {results: [a]}", "grid: results is the sweep's"),
    ("grid: {}", "grid: {}; expected"),
    ("grid: {n: []}", "grid, n: []; expected"),
    ("grid: {n: 4}", "grid, n: '4'; expected"),
    ("grid: {n: [2], n: [3]}", "'n' stands twice"),
    ("grid: {[n]: [1]}", "a key that is no word"),
    ("list: []", "list: []; expected"),
    ("table: a.csv", "no run: give 'grid', 'list' or 'seeds'"),
    ("grid: {n: [4, 04]}", "the run (n = 4) stands twice, also as (n = 4)"),
    ("set: {n: 2}\ngrid: {n: [2]}", "'n' is under 'set' already"),
    ("grid: {seed: [2]}\nseeds: 2", "'seed' is what 'seeds' gives already"),
    ("seeds: 0", "seeds '0': expected"),
    ("seeds: -1", "seeds '-1': expected"),
    ("seeds: [1, 1]", "stands twice"),
    ("seeds: 99999999", "seeds '99999999': expected"),
    ("grid: {n: [2, 3]}\nseeds: 99999", "more than 100,000 runs"),
    ("run: seedless.ipynb\nseeds: 2", "seedless has no parameter 'seed' or 'seeds'"),
    ("seeds: 2\ntable: ../x.csv", "table '../x.csv': expected"),
    ("seeds: 2\nlimits: {memory: lots}", "limits, memory 'lots': expected"),
    ("seeds: 2\nlimits: {time: 90}", "limits, time '90': expected"),
    ("seeds: 2\nlimits: {threads: 0}", "limits, threads '0': expected"),
    ("seeds: 2\nlimits: {gpu: maybe}", "limits, gpu 'maybe': expected"),
    ("seeds: 2\nlimits: {cpu: 1}", "limits: unknown key 'cpu'"),
    ("seeds: 2\nfigures: [{x: n}]", "figures, y None: expected"),
    ("seeds: 2\nfigures: [{y: [n]}]", "figures, y ['n']: expected"),
    ("seeds: 2\nfigures: [{y: n, log: z}]", "figures, log 'z': expected"),
    ("run: measure\nseeds: 2", "measure needs a value for 'network'"),
    ("run: measure\nset: {network: a}\nseeds: 2\nprofile: quick", "measure has none"),
    ("run: measure\nset: {network: a, window: x}\nseeds: 2", "window = 'x'; expected"),
    ("run: measure\nset: {network: a, seed: -1}\ngrid: {window: [9]}", "seed = -1; expected"),
    ("run: measure\nset: {network: a, memory: [1G]}\nseeds: 2", "memory ['1G']: expected"),
    ("run: measure\nset: {network: -x}\nseeds: 1", "network '-x': expected"),
    ("run: measure\nset: {network: a, device: cpu}\nseeds: 1", "device is what 'limits, gpu'"),
    ("run: measure\nset: {network: a.py:f}\nseeds: 1", "network = 'a.py:f': no such file"),
    ("run: measure\nset: {network: a, photos: no}\nseeds: 1", "photos = 'no': no such folder"),
    ("run: measure\nset: {network: a, weights: a.pt}\nseeds: 1", "weights = 'a.pt': no such"),
    ("set: {photos: nowhere}\nseeds: 1", "photos = 'nowhere': no such folder"),
    ("- a", "not YAML"),
]


@pytest.mark.parametrize(("text", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_in_one_line(toy, text, says):
    path = toy.folder / "bad.yaml"
    toy_notebooks.write(toy.folder / "seedless.ipynb", "Toy", 'n = 4\nresults = "results"', "n")
    path.write_text(text if "run:" in text or not text else f"run: toy.ipynb\n{text}", "utf-8")
    message = refused(Sweep.read, path)
    assert says in message and str(path) in message


def test_only_a_regular_file_is_a_sweep_and_options_are_checked(toy, capsys):
    os.mkfifo(toy.folder / "pipe.yaml")
    (toy.folder / "latin.yaml").write_bytes(b"run: \xff")
    path = toy.sweep("seeds: 1", "good").path
    for words, says in [
        (["plan", toy.folder / "pipe.yaml"], "it is a pipe"),
        (["plan", toy.folder], "it is a folder"),
        (["plan", toy.folder / "latin.yaml"], "not UTF-8"),
        (["plan", "~no-such-user/a.yaml"], "no such user"),
        (["plan", "a" * 5000], "too long"),
        (["plan", toy.folder / "none.yaml"], "none.yaml cannot be read: No such file"),
        (["plan", path, "--jobs", "0"], "jobs = 0"),
        (["run", path, "--first", "x"], "first = 'x'"),
        (["run", path, "--cluster", "slrum"], "--cluster 'slrum'"),
        (["table", path, "--output", toy.folder / "no"], "no sweep has run there"),
    ]:
        assert cli.main(["sweep", *map(str, words)]) == 2
        message = capsys.readouterr().err
        assert says in message and message.startswith("ppp: ") and message.count("\n") == 1


# ---- runs


@pytest.fixture(scope="module")
def first(toy):
    """Return a sweep that has been run once: two good runs, one that fails, one refused."""
    text = "grid: {n: [2, 3, 5, 6]}\ntable: rows.csv\nlimits: {threads: 1}"
    return toy.run(toy.sweep(text, "first"))


@pytest.mark.slow
def test_a_failed_run_leaves_its_log_and_the_others_go_on(first):
    runs = first.sweep.runs
    assert states(first) == ["done", "done", "failed", "failed"]
    assert reasons(first)[2] == "RuntimeError: five is bad"
    assert "five is bad" in (first.folder / "logs" / f"{runs[2].id}.log").read_text()
    assert "parameter n = 1" in reasons(first)[3]
    assert first.states[runs[3].id].record["kind"] == "refused"
    assert not list(first.folder.glob("started/*"))
    assert pd.read_parquet(first.table)["n"].tolist() == [2, 2, 2, 3, 3, 3]
    table = pd.read_parquet(first.runs)
    assert table["run"].tolist() == [one.id for one in runs]
    assert table["state"].tolist() == states(first) and (table["device"] == "cpu").all()
    good = table[table["state"] == "done"]
    assert (good["seconds"] > 0).all() and (good["memory_bytes"] > 2**20).all()
    numbers = first.folder / "runs" / runs[1].id / "results" / "numbers.json"
    about = {"square": 9.0, "gpu": "", "threads": 1, "offline": "1"}
    assert json.loads(numbers.read_text()) == about


@pytest.mark.slow
def test_only_what_is_missing_is_run_again_whatever_the_time(first, toy):
    before = {path: path.read_bytes() for path in first.folder.glob("runs/*/run.json")}
    for path in [first.folder, *first.folder.rglob("*")]:
        os.utime(path, (4_000_000_000, 4_000_000_000))
    grown = toy.sweep("grid: {n: [2, 3, 4]}\ntable: rows.csv\nlimits: {threads: 1}", "grown")
    status = state.Status(grown, first.folder)
    assert [str(one) for one in status.todo] == ["n = 4"]
    said = []
    after = conduct.run(status, jobs=1, say=said.append)
    assert states(after) == ["done"] * 3 and len(said) == 1
    assert said[0].startswith("done      n = 4 (")
    assert {path: path.read_bytes() for path in before} == before


WITHIN = """
import json, sys
from companion.sweeps import job, spec
for limits, command in json.loads(sys.argv[1]):
    print(json.dumps(job.within(spec.Limits(**limits), command)))
"""


def test_a_run_over_a_limit_or_killed_ends_with_all_it_left_and_says_so():
    grow = "kept = bytearray(300 * 2**20); import time; time.sleep(60)"
    cases = [
        ({"time": 0.3}, ["sleep", "60"]),
        ({"memory": 200 * 2**20}, [sys.executable, "-c", grow]),
        ({}, ["sh", "-c", "setsid sleep 3021 & kill -9 $$"]),
        ({}, ["sh", "-c", "kill -40 $$"]),
        ({}, ["sh", "-c", "exit 3"]),
    ]
    # In a process that has no other children.
    line = [sys.executable, "-c", WITHIN, json.dumps(cases)]
    done = subprocess.run(line, cwd=paths.ROOT, capture_output=True, text=True, check=True)
    codes, records = zip(*map(json.loads, done.stdout.splitlines()))
    late, large, killed, odd, ended = records
    assert (codes[2], codes[4]) == (-9, 3) and "kind" not in ended
    assert [one["kind"] for one in records[:4]] == ["time", "memory", "killed", "killed"]
    assert late["reason"] == "took more than 0.3 s; raise limits, time" and late["seconds"] < 20
    assert "allowed 200 MiB: raise limits, memory" in large["reason"]
    assert large["memory"] > 200 * 2**20
    assert "SIGKILL" in killed["reason"] and "signal 40" in odd["reason"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if "3021" in (p.info["cmdline"] or [])]


# ---- what there is


def test_a_run_is_up_to_date_by_contents(toy):
    swept = toy.sweep("grid: {n: [2, 3]}\ntable: rows.csv", "contents")
    status = toy.status(swept)
    finish(status, 0)
    assert states(status) == ["done", "missing"] and status.todo == [swept.runs[1]]
    edited = toy.status(swept, body="2")
    assert states(edited) == ["stale", "missing"] and reasons(edited)[0] == "cell body: changed"
    edited.gather()
    assert pd.read_parquet(edited.table).empty
    edited.gather(stale=True)
    assert pd.read_parquet(edited.table)["i"].tolist() == [1]
    assert states(toy.status(toy.sweep("grid: {n: [2, 3]}", "s"), "contents"))[0] == "missing"


def test_damage_is_seen(toy):
    status = toy.status(toy.sweep("grid: {n: [2, 3, 4]}\ntable: rows.csv", "damage"))
    cut, gone, broken = (finish(status, number) for number in range(3))
    cut.write_text("i")
    gone.unlink()
    record = broken.parents[1] / "run.json"
    record.write_bytes(record.read_bytes()[:40])
    assert states(status) == ["missing"] * 3
    assert reasons(status)[:2] == ["rows.csv was damaged", "its table rows.csv is missing"]


def test_a_folder_of_the_version_before_is_stale_and_can_be_gathered(toy):
    status = toy.status(toy.sweep("grid: {n: [2]}\ntable: rows.csv", "before"))
    finish(status, 0, key={"common": "0123456789ab", "parameters": {"n": "2"}, "files": {}})
    assert states(status) == ["stale"] and "earlier version" in reasons(status)[0]
    status.gather(stale=True)
    assert len(pd.read_parquet(status.table)) == 1


def test_a_run_that_another_process_performs(toy):
    swept = toy.sweep("grid: {n: [2, 3, 4]}", "elsewhere")
    status = toy.status(swept)
    here = state.this_process()
    for run, about in zip(swept.runs, [here, here | {"born": 0}, here | {"host": "elsewhere"}]):
        staleness.store(status.folder / "started" / f"{run.id}.json", about)
    assert states(status) == ["running", "missing", "running"]
    assert reasons(status)[1].startswith("was broken off on ")
    assert state.living(here) and not state.living(here | {"host": "elsewhere"})


# ---- tables


def gathered(toy, text, name, rows):
    """Gather what runs left behind; return the status and the table."""
    status = toy.status(toy.sweep(f"{text}\ntable: rows.csv", name))
    for number, one in enumerate(rows):
        finish(status, number, one)
    status.gather()
    return status, pd.read_parquet(status.table)


def test_columns_of_several_kinds_become_texts(toy):
    text = "list: [{n: 2, canvas: 0.5}, {n: 3, canvas: noise}]"
    _, table = gathered(toy, text, "mixed", ["a,b,c\n1,1.50,\n", "a,b,c\nx,1,w\n"])
    assert table["a"].tolist() == ["1", "x"] and table["b"].tolist() == [1.5, 1]
    assert table["c"].isna().tolist() == [True, False]
    assert table["canvas"].tolist() == ["0.5", "noise"] and table["n"].tolist() == [2, 3]


def test_a_factor_has_its_default_where_it_is_left_out_and_goes_before_a_column(toy):
    rows = [f"n,n_in_table,window\n1,{10 * n},99\n" for n in (2, 4)]
    status, table = gathered(toy, "list: [{n: 2}, {window: 5}]", "unlike", rows)
    columns = ["run", "n", "window", "n_in_table_in_table", "n_in_table"]
    columns.append("window_in_table_in_table")
    assert list(table) == columns
    assert table[columns[1:]].values.tolist() == [[2, 7, 1, 20, 99], [4, 5, 1, 40, 99]]
    assert pd.read_parquet(status.runs)["window"].tolist() == [7, 5]


def test_what_is_no_table_is_a_failure_and_the_others_are_gathered(toy):
    rows = ["a,a\n1,2\n", "a,b\n1\n", "a,b\n1,2\n"]
    status, table = gathered(toy, "grid: {n: [2, 3, 4]}", "ragged", rows)
    assert states(status) == ["failed", "failed", "done"] and len(table) == 1
    twice, ragged, _ = reasons(status)
    assert "'a' stands twice" in twice and ragged.startswith("rows.csv is not a table (CSV")


def test_numbers_are_a_row_for_each_run(toy):
    status = toy.status(toy.sweep("grid: {n: [2, 3]}", "numbers"))
    finish(status, 0, '{"a": 1, "b": "x"}')
    finish(status, 1, '{"a": NaN}')
    status.gather()
    assert pd.read_parquet(status.table)[["a", "b"]].values.tolist() == [[1, "x"]]
    assert reasons(status)[1].startswith("numbers.json is not a table (expected names")


# ---- machines


def test_a_run_holds_a_gpu_of_its_own(monkeypatch, tmp_path):
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 0\necho 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PPP_CACHE", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with contextlib.ExitStack() as one, contextlib.ExitStack() as other:
        assert (job._gpu(one), job._gpu(other)) == ("cuda:0", "cuda:1")
        assert (tmp_path / "gpus").stat().st_uid == os.getuid()
        one.close()
        assert job._gpu(one) == "cuda:0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert job._gpu(contextlib.ExitStack()) == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert job._gpu(contextlib.ExitStack()) == "cuda:3"  # Slurm's to give


def test_weights_are_fetched_once_before_any_run(toy, monkeypatch):
    asked = []
    monkeypatch.setattr(networks, "fetch_weights", lambda *names: asked.append(names))
    swept = measured(toy, "set: {weights: trained}\ngrid: {network: [resnet18, vgg11]}\nseeds: 6")
    conduct._fetch(swept.runs)
    assert asked == [("resnet18", "trained"), ("vgg11", "trained")]

    def refuse(name, weights):
        raise PPPError(f"{name} cannot be reached")

    monkeypatch.setattr(networks, "fetch_weights", refuse)
    status = toy.status(swept)
    assert "resnet18" in refused(conduct.run, status, jobs=1)
    assert not status.folder.exists()


NET = """\
from torch import nn
from parts.slopes import slope
def make(): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(slope))
"""


def test_a_measurement_is_a_run_and_stale_when_a_module_of_its_network_changed(toy):
    slopes = toy.folder / "parts" / "slopes.py"
    files.write(slopes, b"slope = 0.1\n")
    (toy.folder / "net.py").write_text(NET)
    text = "set: {network: 'net.py:make', per_photo: 1, layers: '1'}\ngrid: {window: [16]}"
    status = toy.status(measured(toy, text))
    (run,) = status.sweep.runs
    place = toy.folder / "out" / "one"
    modules = status.sweep.target.perform(run.settings, place, "cpu")
    assert modules == {str(slopes): files.sha256(slopes)}
    table = place / "results" / status.sweep.table
    finish(status, 0, table.read_text(), modules=modules)
    assert states(status) == ["done"]
    status.gather()
    gathered = pd.read_parquet(status.table)
    assert gathered["layer"].tolist() == [1] and (gathered["mae"] > 0).all()
    slopes.write_text("slope = 0.9\n")
    assert reasons(toy.status(status.sweep)) == [f"module {slopes}: changed"]
    slopes.unlink()
    assert reasons(toy.status(status.sweep)) == [f"module {slopes}: gone"]
    (toy.folder / "net.py").write_text(f"{NET}\n")
    assert "net.py" in reasons(toy.status(status.sweep))[0]


def test_names_of_weights_end_as_in_the_library():
    from ppp.measurement import OWN

    assert (spec.WEIGHTS, request.OWN) == (networks.SUFFIXES, OWN)


# ---- the plan


def test_the_plan_counts_and_estimates_from_the_runs_that_are_most_alike(toy):
    status = toy.status(toy.sweep("grid: {n: [2, 4]}\nseeds: 2\ntable: rows.csv", "alike"))
    assert conduct.estimate(status)[:2] == (None, None)
    finish(status, 0, seconds=1.0, disk=5)
    finish(status, 1, seconds=100.0, disk=7)
    status = toy.status(status.sweep)
    assert conduct.estimate(status)[:2] == (101.0, 12.0)
    text = "\n".join(conduct.plan(status, 2))
    assert "4 runs (2 done, 2 missing)" in text and "to do     2 runs, 2 at a time" in text
    assert "time      about 50 s; from finished runs" in text
