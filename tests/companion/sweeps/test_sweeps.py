"""Sweeps: files are read strictly; runs are kept, refused, killed, damaged, and gathered."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import toy_notebooks

from companion import cli, notebooks
from companion.measure import request
from companion.sweeps import conduct, job, spec
from companion.sweeps.spec import MeasureTarget, Sweep
from companion.sweeps.state import Folder, Status
from ppp.errors import PPPError
from studies.storage import outputs

BODY = """import json, os, time
from pathlib import Path
n, seed
if n == 5:
    raise RuntimeError("five is bad")
if n == 6:
    from studies import parameters
    parameters.check(n=1)
if n == 7:
    kept = bytearray(700 * 2**20)
    time.sleep(60)
if n == 8:
    Path(results, "begun").touch()
    time.sleep(60)
if n == 9:
    os.kill(os.getppid(), 9)
    time.sleep(60)
folder = Path(results)
(folder / "numbers.json").write_text(json.dumps({
    "square": n * n + seed / 10,
    "gpu": os.environ["CUDA_VISIBLE_DEVICES"],
    "threads": int(os.environ["OMP_NUM_THREADS"]),
    "offline": os.environ["PPP_OFFLINE"],
}))
rows = [f"{i},{i * n + seed},{'' if i else 'text'}" for i in range(3)]
(folder / "rows.csv").write_text("\\n".join(["i,n,word", *rows]))
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Return a folder with a notebook that squares, fails, is refused, grows, sleeps or dies."""
    folder = tmp_path_factory.mktemp("sweeps")
    values = 'n = 4\nseed = 0\nschemes = ["zeros"]\nphotos = ""\nresults = "results"'
    toy_notebooks.write(folder / "toy.ipynb", "Toy", values, BODY)
    toy_notebooks.write(folder / "seedless.ipynb", "Toy", 'n = 4\nresults = "results"', "n")
    return folder


def sweep(folder, text, name="s"):
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\n{text}", encoding="utf-8")
    return Sweep.read(path)


def status(swept, place):
    return Status(swept, Folder(place))


def run(swept, place, jobs=2, **options):
    return conduct.run(status(swept, place), jobs=jobs, say=lambda line: None, **options)


def states(found):
    return [found.states[one.id].state for one in found.sweep.runs]


# ---- the file


def test_a_grid_with_seeds_gives_all_of_one_seed_first(toy):
    found = sweep(toy, "run: toy.ipynb\ngrid: {n: [2, 3]}\nseeds: 2\nset: {schemes: 'zeros,randn'}")
    assert [one.factors for one in found.runs] == [
        {"n": 2, "seed": 0},
        {"n": 3, "seed": 0},
        {"n": 2, "seed": 1},
        {"n": 3, "seed": 1},
    ]
    assert all(one.settings["schemes"] == ["zeros", "randn"] for one in found.runs)
    assert "results" not in found.runs[0].settings


def test_a_run_keeps_its_id_when_the_sweep_grows(toy):
    few = sweep(toy, "run: toy.ipynb\ngrid: {n: [2, 3]}\nseeds: 2")
    more = sweep(toy, "run: toy.ipynb\ngrid: {schemes: [[zeros]], n: [4, 3, 2]}\nseeds: [5, 1, 0]")
    assert {one.id for one in few.runs} < {one.id for one in more.runs}
    assert len({one.id for one in more.runs}) == 9


def test_grid_and_list_add_up(toy):
    found = sweep(toy, "run: toy.ipynb\ngrid: {n: [2, 3]}\nlist: [{n: 9, seed: 7}]")
    assert [one.factors for one in found.runs] == [{"n": 2}, {"n": 3}, {"n": 9, "seed": 7}]


def test_a_folder_is_seen_from_the_file(toy, monkeypatch, tmp_path):
    (toy / "pictures").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    found = sweep(toy, "run: toy.ipynb\nset: {photos: pictures}\ngrid: {n: [2]}")
    assert found.runs[0].settings["photos"] == str(toy / "pictures")


def test_measure_takes_the_options_of_its_command(toy):
    text = (
        "run: measure\nset: {network: resnet18}\ngrid: {window: [64, 96], memory: [1G]}\nseeds: 2"
    )
    found = sweep(toy, text)
    assert len(found.runs) == 4 and found.table == "measurement.csv"
    assert found.runs[0].settings == MeasureTarget().base | {
        "network": "resnet18",
        "window": 64,
        "memory": 2**30,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grid: {n: [2]}", "'run' is missing"),
        ("run: toy.ipynb\ngird: {n: [2]}", "unknown key 'gird'; did you mean 'grid'"),
        ("run: tyo", "unknown notebook 'tyo'"),
        (
            "run: toy.ipynb\ngrid: {scheems: [2]}",
            "grid: unknown parameter 'scheems'; did you mean 'schemes'",
        ),
        ("run: toy.ipynb\nset: {seeed: 1}\nseeds: 1", "set: unknown parameter 'seeed'"),
        ("run: toy.ipynb\ngrid: {n: [1]}", "grid: parameter n = '1': expected an integer >= 2"),
        ("run: toy.ipynb\ngrid: {schemes: [refelct]}", "did you mean 'reflect'"),
        ("run: toy.ipynb\ngrid: {}", "grid is empty"),
        ("run: toy.ipynb\ngrid:", "grid: ''; expected names with values"),
        ("run: toy.ipynb\ngrid: {n: []}", "grid, n is empty"),
        ("run: toy.ipynb\ngrid: {n: 4}", "grid, n: '4'; expected a list"),
        ("run: toy.ipynb\nlist: []", "list is empty"),
        ("run: toy.ipynb\nlist: [4]", "list, entry 1: '4'; expected names with values"),
        ("run: toy.ipynb", "no run: give 'grid', 'list' or 'seeds'"),
        ("run: toy.ipynb\ngrid: {n: [4, 04]}", "the run (n = 4) stands twice, also as (n = 4)"),
        ("run: toy.ipynb\ngrid: {n: [4]}\nlist: [{n: 4}]", "stands twice"),
        ("run: toy.ipynb\nset: {n: 2}\ngrid: {n: [2]}", "'n' is under 'set' already"),
        ("run: toy.ipynb\ngrid: {seed: [2]}\nseeds: 2", "'seed' is what 'seeds' gives already"),
        ("run: toy.ipynb\ngrid: {results: [a]}", "parameter results is the sweep's"),
        ("run: toy.ipynb\ngrid: {n: [{a: 1}]}", "expected a value or a list"),
        ("run: toy.ipynb\ngrid: {n: [2], n: [3]}", "'n' stands twice"),
        ("run: toy.ipynb\nseeds: 0", "seeds 0: expected at least 1"),
        ("run: toy.ipynb\nseeds: [1, 1]", "stands twice"),
        ("run: toy.ipynb\nseeds: -1", "seeds '-1': expected a whole number"),
        ("run: seedless.ipynb\nseeds: 2", "seedless has no parameter 'seed' or 'seeds'"),
        ("run: toy.ipynb\nseeds: 2\ntable: ../x.csv", "table '../x.csv': expected NAME.csv"),
        (
            "run: toy.ipynb\nseeds: 2\nlimits: {memory: lots}",
            "limits, memory 'lots': expected bytes",
        ),
        ("run: toy.ipynb\nseeds: 2\nlimits: {time: 90}", "limits, time '90': expected a time"),
        ("run: toy.ipynb\nseeds: 2\nlimits: {threads: 0}", "limits, threads '0'"),
        ("run: toy.ipynb\nseeds: 2\nlimits: {gpu: maybe}", "limits, gpu 'maybe': expected true"),
        ("run: toy.ipynb\nseeds: 2\nlimits: {cpu: 1}", "limits: unknown key 'cpu'"),
        ("run: toy.ipynb\nseeds: 2\nfigures: [{x: n}]", "figures: 'y' is missing"),
        ("run: toy.ipynb\nseeds: 2\nprofile: fast", "unknown profile 'fast'"),
        ("run: measure\nseeds: 2", "measure needs a value for 'network'"),
        ("run: measure\nset: {network: a}\nseeds: 2\nprofile: quick", "measure has none"),
        ("run: measure\nset: {network: a, window: x}\nseeds: 2", "--window 'x': expected a whole"),
        ("run: toy.ipynb\nseeds: 200000", "more than 100,000 runs"),
        ("run: toy.ipynb\nseeds: 99999999", "more than 100,000 runs"),
        ("run: toy.ipynb\ngrid: {[n]: [1]}", "a key that is no word"),
        ("run: toy.ipynb\nset: {photos: nowhere}\nseeds: 1", "photos = 'nowhere': no such folder"),
        (
            "run: toy.ipynb\nset: {photos: ~nobodyx/a}\nseeds: 1",
            "photos = '~nobodyx/a': no such user",
        ),
        ("run: measure\nset: {network: a, photos: no}\nseeds: 1", "photos = 'no': no such folder"),
        ("run: measure\nset: {network: a, weights: a.pt}\nseeds: 1", "weights = 'a.pt': no such"),
        ("run: measure\nset: {network: a.py:f}\nseeds: 1", "network = 'a.py:f': no such file"),
        ("run: measure\nset: {network: -x}\nseeds: 1", "network '-x': expected a name"),
        ("run: measure\nset: {network: a, device: cpu}\nseeds: 1", "device is what 'limits, gpu'"),
        ("run: toy.ipynb\nseeds: 2\nlimits: {memory: 0.5}", "limits, memory '0.5'"),
        ("run: toy.ipynb\nseeds: 2\nlimits: {time: 99999999999 d}", "limits, time '9999"),
        ("run: toy.ipynb\nseeds: 2\nfigures: [{y: [n]}]", "figures, y ['n']: expected one name"),
        ("run: toy.ipynb\nseeds: 2\nfigures: [{y: n, log: z}]", "figures, log 'z'"),
        (f"run: toy.ipynb\nset: {{photos: {'a' * 5000}}}\nseeds: 1", "too long for a path"),
        (f"run: toy.ipynb\n{'a' * 900}: 1", "unknown key 'aaa"),
        (f"run: toy.ipynb\ngrid: {{n: [{'9' * 5000}]}}", "expected an integer >= 2"),
        (f"run: toy.ipynb\nlimits: {{memory: '{'9' * 5000}'}}\nseeds: 1", "expected bytes"),
        ("run: toy.ipynb\nlimits: &a [*a]\nseeds: 1", "not YAML ('a' holds itself)"),
        (
            "run: toy.ipynb\nlimits:\n- &a0 [b, b, b, b, b, b, b, b, b]\n"
            + "".join(f"- &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9)),
            "with its aliases written out",
        ),
        ("run: [", "not YAML"),
        ("- a", "not YAML"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(toy, capsys, text, says):
    path = toy / "bad.yaml"
    path.write_text(f"name: bad\n{text}", encoding="utf-8")
    assert cli.main(["sweep", "plan", str(path)]) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith(f"ppp: {path}: ") and said.count("\n") == 1
    assert len(said) < 1500
    assert not (toy / "runs").exists()


def test_a_missing_file_and_bad_options_are_refused_in_one_line(toy, capsys):
    path = toy / "good.yaml"
    path.write_text("run: toy.ipynb\nseeds: 1")
    for words, says in [
        (["plan", str(toy / "none.yaml")], "none.yaml cannot be read: No such file"),
        (["plan", str(path), "--jobs", "0"], "jobs = 0; expected a whole number"),
        (["run", str(path), "--first", "x"], "first = 'x'; expected a whole number"),
        (
            ["run", str(path), "--cluster", "slrum"],
            "--cluster 'slrum': expected slurm, or a folder",
        ),
        (
            ["table", str(path), "--output", str(toy / "no")],
            "no sweep has run there; first: ppp sweep run",
        ),
    ]:
        assert cli.main(["sweep", *words]) == 2
        said = capsys.readouterr().err
        assert says in said and said.count("\n") == 1


# ---- runs


@pytest.fixture(scope="module")
def first(toy):
    """Return a sweep that has been run once: two good runs, one that fails, one refused."""
    text = "run: toy.ipynb\ngrid: {n: [2, 3, 5, 6]}\ntable: rows.csv\nlimits: {threads: 1}"
    swept = sweep(toy, text, "first")
    return swept, toy / "out" / "first", run(swept, toy / "out" / "first")


def test_a_failed_run_leaves_its_log_and_the_others_go_on(first):
    swept, place, after = first
    assert states(after) == ["done", "done", "failed", "failed"]
    _, _, bad, refused = swept.runs
    assert after.states[bad.id].reason == "RuntimeError: five is bad"
    assert "five is bad" in after.folder.log(bad.id).read_text()
    assert "parameter n = 1: expected an integer >= 2" in after.states[refused.id].reason
    assert after.states[refused.id].record["kind"] == "refused"
    assert not list(place.glob("started/*"))


def test_the_table_has_the_rows_of_all_finished_runs(first):
    swept, place, _ = first
    table = pd.read_parquet(place / "table.parquet")
    assert list(table) == ["run", "n", "i", "n_in_table", "word"]
    assert table["n"].tolist() == [2, 2, 2, 3, 3, 3]
    assert table["n_in_table"].tolist() == [0, 2, 4, 0, 3, 6]
    assert table["word"].isna().tolist() == [False, True, True] * 2
    runs = pd.read_parquet(place / "runs.parquet")
    assert runs["run"].tolist() == [one.id for one in swept.runs]
    assert runs["state"].tolist() == ["done", "done", "failed", "failed"]
    good = runs[runs["state"] == "done"]
    assert (good["seconds"] > 0).all() and (good["memory_bytes"] > 2**20).all()
    assert (good["device"] == "cpu").all() and (good["threads"] == 1).all()


def test_only_what_is_missing_is_run_again(first, toy):
    swept, place, _ = first
    before = {path: path.stat().st_mtime_ns for path in place.glob("runs/*/run.json")}
    text = swept.text.replace("[2, 3, 5, 6]", "[2, 3, 4]")
    path = toy / "grown.yaml"
    path.write_text(text)
    found = status(Sweep.read(path), place)
    assert [str(one) for one in found.todo] == ["n = 4"]
    said = []
    after = conduct.run(found, jobs=1, say=said.append)
    assert states(after) == ["done"] * 3
    assert len(said) == 1 and said[0].startswith("done      n = 4 (")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    nothing = conduct.run(status(Sweep.read(path), place), jobs=1, say=said.append)
    assert nothing.todo == [] and len(said) == 1


def test_no_clock_is_asked(first):
    swept, place, _ = first
    for when in (0, 4_000_000_000):
        for path in [place, *place.rglob("*")]:
            os.utime(path, (when, when))
        assert states(status(swept, place))[:2] == ["done", "done"]


def test_damage_is_seen_and_mended(first):
    swept, place, _ = first
    good, other = swept.runs[:2]
    folder = Folder(place)
    table = folder.run(good.id) / "results" / "rows.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:-4])
    record = folder.record(other.id)
    record.write_bytes(record.read_bytes()[:40])
    damaged = status(swept, place)
    assert states(damaged)[:2] == ["missing", "missing"]
    assert damaged.states[good.id].reason == "rows.csv was damaged"
    damaged.gather()
    assert pd.read_parquet(place / "table.parquet").empty
    after = run(swept, place)
    assert states(after)[:2] == ["done", "done"]
    assert table.read_bytes() == whole
    assert len(pd.read_parquet(place / "table.parquet")) == 6


def test_the_same_sweep_gives_the_same_bytes(first, toy):
    swept, place, _ = first
    run(swept, toy / "out" / "again")
    assert (toy / "out" / "again" / "table.parquet").read_bytes() == (
        place / "table.parquet"
    ).read_bytes()


def test_a_changed_notebook_makes_its_runs_stale(toy):
    toy_notebooks.write(toy / "edited.ipynb", "Toy", 'n = 4\nresults = "results"', BODY.replace(
        "n, seed", "seed = 1"
    ))  # fmt: skip
    swept = sweep(toy, "run: edited.ipynb\ngrid: {n: [2]}", "edited")
    place = toy / "out" / "edited"
    assert states(run(swept, place)) == ["done"]
    toy_notebooks.write(toy / "edited.ipynb", "Toy", 'n = 4\nresults = "results"', BODY.replace(
        "n, seed", "seed = 2"
    ))  # fmt: skip
    found = status(Sweep.read(swept.path), place)
    assert states(found) == ["stale"]
    assert found.states[swept.runs[0].id].reason == "cell body: changed"
    found.gather()
    assert pd.read_parquet(place / "table.parquet").empty
    found.gather(stale=True)
    assert pd.read_parquet(place / "table.parquet")["square"].tolist() == [4.1]
    assert states(run(Sweep.read(swept.path), place)) == ["done"]
    assert pd.read_parquet(place / "table.parquet")["square"].tolist() == [4.2]


def test_limits_are_kept_and_a_killed_run_says_so(toy):
    text = "run: toy.ipynb\ngrid: {n: [7, 9, 2]}\nlimits: {memory: 600M}"
    swept = sweep(toy, text, "limits")
    after = run(swept, toy / "out" / "limits")
    assert states(after) == ["failed", "failed", "done"]
    large, killed, good = (after.states[one.id] for one in swept.runs)
    assert re.match(r"used .* MiB of memory; allowed 600 MiB: raise limits, memory", large.reason)
    assert large.record["kind"] == "memory" and large.record["memory"] > 600 * 2**20
    assert killed.record["kind"] == "killed" and "SIGKILL" in killed.reason
    assert good.record["memory"] < 600 * 2**20


def test_a_run_over_its_time_ends(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [8]}\nlimits: {time: 3 s}", "slow")
    begun = time.monotonic()
    after = run(swept, toy / "out" / "slow")
    assert time.monotonic() - begun < 40
    assert after.states[swept.runs[0].id].reason == "took more than 3 s; raise limits, time"
    assert not sleepers(toy / "out" / "slow")


def sleepers(place):
    """Return the processes that still work for a sweep."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(place) in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def command(swept, place, *words):
    line = [sys.executable, "-m", "companion", "sweep", "run", str(swept.path)]
    return subprocess.Popen(
        [*line, "--output", str(place), *words],
        cwd=notebooks.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interrupted_sweeps_go_on(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [2, 8]}", "interrupted")
    place = toy / "out" / "interrupted"
    process = command(swept, place, "--jobs", "2")
    wait_for(lambda: list(place.glob("work/*/results/begun")) and list(place.glob("runs/*")))
    with pytest.raises(PPPError, match="'ppp sweep' is at work here"):
        run(swept, place)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finished runs are kept and in the table; the same command goes on" in said
    wait_for(lambda: not sleepers(place))
    assert states(status(swept, place)) == ["done", "failed"]
    assert pd.read_parquet(place / "table.parquet")["n"].tolist() == [2]
    assert "stopped by SIG" in status(swept, place).states[swept.runs[1].id].reason


def test_a_killed_watcher_takes_its_run_along(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [8]}", "orphan")
    place = toy / "out" / "orphan"
    found = status(swept, place)
    place.mkdir(parents=True)
    found.want(swept.runs)
    id = swept.runs[0].id
    watcher = subprocess.Popen(
        [sys.executable, "-m", "companion.sweeps.job", str(place), id], cwd=notebooks.ROOT
    )
    wait_for(lambda: list(place.glob("work/*/results/begun")))
    assert states(status(swept, place)) == ["running"]
    watcher.kill()
    watcher.wait()
    wait_for(lambda: not sleepers(place), 20)
    assert not Folder(place).run(id).exists() and not Folder(place).done(id).exists()
    (left,) = status(swept, place).states.values()
    assert left.state == "missing" and left.reason.startswith("was broken off on ")


def test_changed_sources_are_noticed(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [2]}", "moved")
    place = toy / "out" / "moved"
    found = status(swept, place)
    place.mkdir(parents=True)
    found.want(swept.runs)
    wanted = json.loads(found.folder.common.read_text())
    id = swept.runs[0].id
    line = [sys.executable, "-m", "companion.sweeps.job", str(place), id]
    found.folder.common.write_text(json.dumps(wanted | {"sources": "1", "common": "other"}))
    assert subprocess.run(line, cwd=notebooks.ROOT).returncode == 1
    assert "its sources changed while the sweep ran" in status(swept, place).states[id].reason
    found.folder.common.write_text(json.dumps(wanted | {"sources": "a comment was edited"}))
    assert subprocess.run(line, cwd=notebooks.ROOT).returncode == 0
    assert states(status(swept, place)) == ["done"]


def test_a_missing_table_is_named(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [2]}\ntable: rwos.csv", "tables")
    after = run(swept, toy / "out" / "tables")
    reason = after.states[swept.runs[0].id].reason
    assert reason == "it wrote no rwos.csv; it wrote rows.csv, numbers.json"


def notebook(toy, name, body):
    values = 'n = 4\nseed = 0\nwindow = 7\ncanvas = 0.5\nweights = "random"\nresults = "results"'
    start = "from pathlib import Path\nrows = Path(results, 'rows.csv')\n"
    toy_notebooks.write(toy / f"{name}.ipynb", "Toy", values, start + body)


def test_columns_of_several_kinds_become_texts(toy):
    notebook(toy, "mixed", "rows.write_text('a,b\\n%s,1.50\\n' % ('x' if n == 3 else 1))")
    text = "run: mixed.ipynb\nlist: [{n: 2, canvas: 0.5}, {n: 3, canvas: noise}]\ntable: rows.csv"
    place = toy / "out" / "mixed"
    assert states(run(sweep(toy, text, "mixed"), place)) == ["done"] * 2
    table = pd.read_parquet(place / "table.parquet")
    assert table["a"].tolist() == ["1", "x"] and table["b"].tolist() == [1.5] * 2
    assert table["canvas"].tolist() == ["0.5", "noise"] and table["n"].tolist() == [2, 3]


def test_a_factor_that_a_run_leaves_out_has_its_default(toy):
    notebook(toy, "unlike", "rows.write_text(f'n,n_in_table,window\\n1,{10 * n},99\\n')")
    text = "run: unlike.ipynb\nlist: [{n: 2}, {window: 5}]\ntable: rows.csv"
    place = toy / "out" / "unlike"
    assert states(run(sweep(toy, text, "unlike"), place)) == ["done"] * 2
    table = pd.read_parquet(place / "table.parquet")
    assert table["n"].tolist() == [2, 4] and table["window"].tolist() == [7, 5]
    assert table["n_in_table_in_table"].tolist() == [1, 1]
    assert table["n_in_table"].tolist() == [20, 40]
    assert table["window_in_table"].tolist() == [99, 99]
    assert pd.read_parquet(place / "runs.parquet")["window"].tolist() == [7, 5]


def test_a_run_whose_table_is_none_fails_and_the_others_are_gathered(toy):
    body = "rows.write_text({2: 'a,a\\n1,2\\n', 3: 'a,b\\n1\\n', 4: 'a,b\\n'}[n])"
    notebook(toy, "ragged", body)
    place = toy / "out" / "ragged"
    after = run(
        sweep(toy, "run: ragged.ipynb\ngrid: {n: [2, 3, 4]}\ntable: rows.csv", "ragged"), place
    )
    assert states(after) == ["failed", "failed", "done"]
    twice, ragged, _ = (after.states[one.id].reason for one in after.sweep.runs)
    assert twice == "rows.csv is not a table (its column 'a' stands twice)"
    assert ragged.startswith("rows.csv is not a table (CSV parse error")
    assert len(pd.read_parquet(place / "table.parquet")) == 0


def test_a_file_that_changes_during_a_run_fails_it(toy):
    body = "import os, time\nPath(weights).write_text('B')\nrows.write_text('a\\n1\\n')"
    notebook(toy, "changing", body)
    (toy / "net.pt").write_text("A")
    text = "run: changing.ipynb\nset: {weights: net.pt}\nseeds: 1\ntable: rows.csv"
    after = run(sweep(toy, text, "changing"), toy / "out" / "changing")
    assert after.states[after.sweep.runs[0].id].reason.startswith("a file among its parameters")


def test_a_child_that_outlives_its_parents_is_ended(toy):
    body = (
        "import os, subprocess\n"
        "subprocess.Popen(['sleep', '3021'], start_new_session=True)\n"
        "os.kill(os.getppid(), 40 if n == 3 else 9)\nimport time\ntime.sleep(60)"
    )
    notebook(toy, "orphans", body)
    after = run(sweep(toy, "run: orphans.ipynb\ngrid: {n: [2, 3]}", "orphans"), toy / "out" / "o")
    first, second = (after.states[one.id].reason for one in after.sweep.runs)
    assert "killed by SIGKILL" in first and "killed by signal 40" in second
    assert not [p for p in psutil.process_iter(["cmdline"]) if "3021" in (p.info["cmdline"] or [])]


def test_a_snakemake_that_dies_is_noticed_and_a_second_sweep_waits_for_the_first(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [2, 8]}", "dies")
    place = toy / "out" / "dies"
    process = command(swept, place, "--jobs", "1")
    wait_for(lambda: list(place.glob("started/*.json")))
    (engine,) = [
        child for child in psutil.Process(process.pid).children() if "snakemake" in child.cmdline()
    ]
    engine.kill()
    _, said = process.communicate(timeout=90)
    assert process.returncode == 2 and "runs were not run: Snakemake ended with code -9" in said
    wait_for(lambda: not sleepers(place))

    process = command(swept, place, "--jobs", "1")
    wait_for(lambda: list(place.glob("started/*.json")))
    process.kill()
    process.communicate()
    wait_for(lambda: not sleepers(place))
    while True:  # as long as one of its children lives, it holds the sweep
        with contextlib.suppress(PPPError):
            run(swept, place, first=0)
            break
    wait_for(lambda: "running" not in states(status(swept, place)), 10)


def test_two_processes_never_perform_one_run(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [8]}", "twice")
    place = toy / "out" / "twice"
    place.mkdir(parents=True)
    status(swept, place).want(swept.runs)
    line = [sys.executable, "-m", "companion.sweeps.job", str(place), swept.runs[0].id]
    first = subprocess.Popen(line, cwd=notebooks.ROOT)
    wait_for(lambda: list(place.glob("work/*/results/begun")))
    second = subprocess.run(line, cwd=notebooks.ROOT, capture_output=True, text=True)
    assert second.returncode == 1 and "another process performs it" in second.stderr
    assert list(place.glob("work/*/results/begun"))
    first.terminate()
    assert first.wait(60) == 1


def test_a_run_that_another_machine_began_and_left_is_run_again(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [2]}", "elsewhere")
    place = toy / "out" / "elsewhere"
    outputs.claim(place, "ppp sweep")
    left = Folder(place).started(swept.runs[0].id)
    left.parent.mkdir(parents=True)
    left.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid(), "born": 0}))
    assert states(status(swept, place)) == ["running"]
    assert states(run(swept, place)) == ["done"]


def test_folders_may_have_any_name(toy):
    swept = sweep(toy, "run: toy.ipynb\ngrid: {n: [2]}", "names")
    assert states(run(swept, toy / "out" / "a{b} {run} h #x: 'k' \"ü\"")) == ["done"]


def test_another_table_of_the_same_runs_needs_no_run(toy):
    text = "run: toy.ipynb\ngrid: {n: [2]}"
    place = toy / "out" / "other"
    assert states(run(sweep(toy, text, "other"), place)) == ["done"]
    assert status(sweep(toy, f"{text}\ntable: rows.csv", "other"), place).todo == []


# ---- machines


def test_each_run_has_a_gpu_of_its_own_and_no_network(toy, monkeypatch, tmp_path):
    fake = tmp_path / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 0\necho 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PPP_CACHE", str(tmp_path))
    text = "run: toy.ipynb\ngrid: {n: [2, 3]}\nlimits: {gpu: true, threads: 1}"
    swept = sweep(toy, text, "gpus")
    place = toy / "out" / "gpus"
    (tmp_path / "gpus").mkdir()
    with outputs.held(tmp_path / "gpus" / "0", "ppp sweep"):  # another one's, the first GPU
        after = run(swept, place)
    assert (tmp_path / "gpus").stat().st_uid == os.getuid()
    runs = pd.read_parquet(place / "runs.parquet")
    assert states(after) == ["done", "done"] and runs["device"].tolist() == ["cuda:1"] * 2
    table = pd.read_parquet(place / "table.parquet")
    assert table["gpu"].tolist() == ["1", "1"] and table["threads"].tolist() == [1, 1]
    assert table["offline"].tolist() == ["1", "1"]


def test_without_a_gpu_the_processor_serves(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert job.gpus() == []
    with job._gpu(True) as device:
        assert device == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with job._gpu(True) as device:
        assert device == "cuda:3" and job.environment(1, device)["CUDA_VISIBLE_DEVICES"] == "3"


def test_weights_are_fetched_once_before_any_run(toy, monkeypatch):
    from studies import networks

    asked = []
    monkeypatch.setattr(networks, "fetch_weights", lambda *names: asked.append(names))
    text = "run: measure\nset: {weights: trained}\ngrid: {network: [resnet18, vgg11]}\nseeds: 6"
    found = status(sweep(toy, text, "weights"), toy / "out" / "weights")
    conduct._fetch(found.todo)
    assert asked == [("resnet18", "trained"), ("vgg11", "trained")]


def test_weights_that_cannot_be_had_stop_the_sweep_at_once(toy, monkeypatch):
    from studies import networks

    def refuse(name, weights):
        raise PPPError(f"{name} cannot be reached")

    monkeypatch.setattr(networks, "fetch_weights", refuse)
    text = "run: measure\nset: {weights: trained, network: resnet18}\nseeds: 2"
    place = toy / "out" / "unreachable"
    with pytest.raises(PPPError, match="resnet18 cannot be reached"):
        run(sweep(toy, text, "unreachable"), place)
    assert not (place / "logs").exists()


def test_a_measurement_is_a_run(toy):
    text = (
        "run: measure\nset: {network: plane-resnet, per_photo: 1, layers: layer1}\n"
        "grid: {window: [48]}"
    )
    swept = sweep(toy, text, "measured")
    after = run(swept, toy / "out" / "measured")
    assert states(after) == ["done"]
    table = pd.read_parquet(toy / "out" / "measured" / "table.parquet")
    assert table["layer"].tolist() == ["layer1"] and table["window"].tolist() == [48]
    again = toy / "out" / "measured" / "runs" / swept.runs[0].id / "results" / "measurement.csv"
    assert len(table) == len(pd.read_csv(again)) and (table["mae"] > 0).all()


NET = """\
from torch import nn
from parts.slopes import slope
def make(): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(slope))
"""


def test_a_run_is_stale_when_a_module_of_its_network_changed(toy):
    (toy / "parts").mkdir()
    slopes, unused = toy / "parts" / "slopes.py", toy / "unused.py"
    (toy / "net.py").write_text(NET)
    slopes.write_text("slope = 0.1\n")
    unused.write_text("")
    text = "run: measure\nset: {network: 'net.py:make', per_photo: 1, layers: '1'}\n"
    swept = sweep(toy, f"{text}grid: {{window: [16]}}", "own")
    place = toy / "out" / "own"
    assert states(run(swept, place)) == ["done"]
    unused.write_text("# edited\n")
    assert states(status(swept, place)) == ["done"]
    before = (toy / "out" / "own" / "table.parquet").read_bytes()
    slopes.write_text("slope = 0.9\n")
    found = status(swept, place)
    assert states(found) == ["stale"]
    assert found.states[swept.runs[0].id].reason == f"module {slopes}: changed"
    assert states(run(swept, place)) == ["done"]
    assert (toy / "out" / "own" / "table.parquet").read_bytes() != before
    slopes.unlink()
    assert status(swept, place).states[swept.runs[0].id].reason == f"module {slopes}: gone"


def test_only_a_regular_file_is_a_sweep(toy, capsys):
    os.mkfifo(toy / "pipe.yaml")
    (toy / "latin.yaml").write_bytes(b"run: \xff")
    for path, says in [
        (toy / "pipe.yaml", "it is a pipe"),
        ("/dev/zero", "it is a device"),
        (toy, "it is a folder"),
        (toy / "latin.yaml", "not UTF-8"),
        ("~no-such-user/a.yaml", "no such user"),
        ("a" * 5000, "too long"),
    ]:
        assert cli.main(["sweep", "plan", str(path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("ppp: sweep") and says in said and said.count("\n") == 1


def test_names_of_weights_end_as_in_the_library():
    from ppp.measurement import OWN
    from studies import networks

    assert (spec.WEIGHTS, request.OWN) == (networks.SUFFIXES, OWN)


# ---- the plan


def test_the_plan_counts_and_estimates(first, capsys, monkeypatch):
    swept, place, _ = first
    found = status(swept, place)
    planned = conduct.plan(found)
    assert planned.counts == {"done": 2, "stale": 0, "failed": 2, "running": 0, "missing": 0}
    took = [found.states[one.id].record["seconds"] for one in swept.runs[:2]]
    assert planned.seconds == pytest.approx(sum(took))  # each of two takes the mean of both
    said = "\n".join(conduct.lines(found, planned, 2))
    assert "4 runs (2 done, 2 failed)" in said and "to do     2 runs, 2 at a time" in said


def test_estimates_come_from_the_runs_that_are_most_alike(toy):
    text = "run: toy.ipynb\ngrid: {n: [2, 4]}\nseeds: 2"
    found = status(sweep(toy, text, "alike"), toy / "out" / "alike")
    fast, slow, *_ = found.sweep.runs
    records = {fast.id: {"seconds": 1.0}, slow.id: {"seconds": 100.0}}
    assert conduct._like(found, found.sweep.runs[2:], records, "seconds") == 101.0
