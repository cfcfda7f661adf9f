"""Sweeps whose processes are killed at odd moments, and what else takes a run of its own."""

import contextlib
import os
import signal
import subprocess
import sys

import pandas as pd
import psutil
import pytest
import toy_notebooks
from checks import refused
from toy_sweeps import BODY, VALUES, Toy, reasons, states, wait_for, workers

from companion import notebooks
from companion.notebooks import staleness
from companion.sweeps import conduct, state
from ppp.errors import PPPError
from studies.storage import documents, outputs

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("sweeps"))


def job(status):
    """Give the command that performs the first run of a sweep, as Snakemake does."""
    status.folder.mkdir(parents=True)
    status.want(status.sweep.runs)
    return [sys.executable, "-m", "companion.sweeps.job", status.folder, status.sweep.runs[0].id]


def real(toy, text, name):
    return state.Status(toy.sweep(text, name), toy.folder / "out" / name)


def test_a_run_says_why_it_failed_and_the_others_go_on(toy):
    text = "grid: {n: [8, 9, 2]}\nlimits: {time: 40 s, memory: 2G}"
    after = toy.run(toy.sweep(text, "reasons"))
    assert states(after) == ["failed", "failed", "done"]
    late, killed, _ = reasons(after)
    assert late == "took more than 40 s; raise limits, time" and "killed by SIGKILL" in killed
    assert not [p for p in psutil.process_iter(["cmdline"]) if "3021" in (p.info["cmdline"] or [])]
    (toy.folder / "net.pt").write_text("A")
    changed = toy.run(toy.sweep("set: {weights: net.pt}\ngrid: {n: [10]}", "changed"))
    assert reasons(changed)[0].startswith("a file among its parameters changed")


def test_a_folder_may_have_any_name_and_the_bytes_are_the_same(toy):
    swept = toy.sweep("grid: {n: [2, 3]}\ntable: rows.csv", "bytes")
    one, other = toy.run(swept, "one"), toy.run(swept, "a{b} {run} h #x: 'k' \"ü\"", jobs=1)
    assert states(one) == states(other) == ["done"] * 2
    assert one.table.read_bytes() == other.table.read_bytes()
    toy_notebooks.write(toy.folder / "toy.ipynb", "Toy", VALUES, f"# A comment.\n{BODY}")
    assert states(one.again()) == ["done"] * 2
    toy_notebooks.write(toy.folder / "toy.ipynb", "Toy", VALUES, f"n + 1\n{BODY}")
    assert states(one.again()) == ["stale"] * 2 and "changed" in reasons(one.again())[0]
    missing = toy.run(toy.sweep("grid: {n: [4]}\ntable: rwos.csv", "tables"))
    assert reasons(missing) == ["it wrote no rwos.csv; it wrote rows.csv, numbers.json"]


def test_each_run_has_a_gpu_of_its_own(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("PPP_CACHE", str(tmp_path))
    after = toy.run(toy.sweep("grid: {n: [2, 3]}\nlimits: {gpu: true}", "gpus"))
    devices = pd.read_parquet(after.runs)["device"].tolist()
    assert pd.read_parquet(after.table)["gpu"].tolist() == [name[-1] for name in devices]
    assert set(devices) <= {"cuda:0", "cuda:1"}


def test_interrupted_sweeps_go_on(toy):
    swept = toy.sweep("grid: {n: [2, 8]}", "interrupted")
    place = toy.folder / "out" / "interrupted"
    line = [sys.executable, "-m", "companion", "sweep", "run", str(swept.path)]
    line += ["--output", str(place), "--jobs", "2"]
    process = subprocess.Popen(line, cwd=notebooks.ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(place.glob("work/*/results/begun")) and list(place.glob("runs/*")))
    refused(toy.run, swept, error=outputs.InUse)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130 and "the same command goes on" in said
    wait_for(lambda: not workers(place))
    status = state.Status(swept, place)
    assert states(status) == ["done", "failed"] and "stopped by SIG" in reasons(status)[1]
    assert pd.read_parquet(place / "table.parquet")["n"].tolist() == [2]


def test_a_killed_watcher_takes_its_run_along(toy):
    status = real(toy, "grid: {n: [8]}", "orphan")
    watcher = subprocess.Popen(job(status), cwd=notebooks.ROOT)
    wait_for(lambda: list(status.folder.glob("work/*/results/begun")))
    assert states(status) == ["running"]
    watcher.kill()
    watcher.wait()
    wait_for(lambda: not workers(status.folder), 20)
    assert reasons(status.again())[0].startswith("was broken off on ")


def test_two_processes_never_perform_one_run(toy):
    status = real(toy, "grid: {n: [8]}", "twice")
    line = job(status)
    first = subprocess.Popen(line, cwd=notebooks.ROOT)
    wait_for(lambda: list(status.folder.glob("work/*/results/begun")))
    second = subprocess.run(line, cwd=notebooks.ROOT, capture_output=True, text=True)
    assert second.returncode == 1 and "another process performs it" in second.stderr
    assert list(status.folder.glob("work/*/results/begun"))
    first.terminate()
    assert first.wait(10) == 1 and "stopped by SIGTERM" in reasons(status.again())[0]


def test_changed_sources_are_noticed(toy):
    status = real(toy, "grid: {n: [2]}", "moved")
    line, wanted = job(status), status.folder / "wanted.json"
    about = documents.read_json(wanted)
    staleness.store(wanted, about | {"tree": "1", "ingredients": {}})
    assert subprocess.run(line, cwd=notebooks.ROOT).returncode == 1
    assert "its sources changed while the sweep ran" in reasons(status.again())[0]
    staleness.store(wanted, about | {"tree": "a comment was edited"})
    assert subprocess.run(line, cwd=notebooks.ROOT).returncode == 0
    assert states(status.again()) == ["done"]


def test_what_was_begun_elsewhere_is_run_again(toy):
    status = real(toy, "grid: {n: [2]}", "elsewhere")
    staleness.store(status.folder / "started" / f"{status.sweep.runs[0].id}.json", {"host": "x"})
    outputs.claim(status.folder.with_name("other"), conduct.COMMAND)
    os.rename(status.folder.with_name("other") / ".ppp.json", status.folder / ".ppp.json")
    assert states(status) == ["running"]
    assert states(toy.run(status.sweep)) == ["done"]


def test_a_snakemake_that_dies_is_noticed_and_a_second_sweep_waits_for_the_first(toy):
    swept = toy.sweep("grid: {n: [2, 8]}", "dies")
    place = toy.folder / "out" / "dies"
    line = [sys.executable, "-m", "companion", "sweep", "run", swept.path, "--output", place]
    options = {"cwd": notebooks.ROOT, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*line, "--jobs", "1"], **options)
    wait_for(lambda: list(place.glob("started/*.json")))
    children = psutil.Process(process.pid).children()
    (engine,) = [one for one in children if "snakemake" in one.cmdline()]
    engine.kill()
    _, said = process.communicate(timeout=90)
    assert process.returncode == 2 and "runs were not run: Snakemake ended with code -9" in said
    wait_for(lambda: not workers(place))

    process = subprocess.Popen([*line, "--jobs", "1"], **options)
    wait_for(lambda: list(place.glob("started/*.json")))
    process.kill()
    process.communicate()
    wait_for(lambda: not workers(place))
    while True:  # as long as one of its children lives, it holds the sweep
        with contextlib.suppress(PPPError):
            toy.run(swept, "dies", first=0)
            break
    wait_for(lambda: "running" not in states(state.Status(swept, place)), 10)
