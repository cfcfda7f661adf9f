"""Sweeps of a small notebook, for the tests by day and by night."""

import time
from pathlib import Path

import psutil
import toy_notebooks

from companion.notebooks import staleness
from companion.sweeps import conduct, state
from companion.sweeps.spec import Sweep, given
from ppp import files

VALUES = """n = 4
seed = 0
window = 7
canvas = 0.5
schemes = ["zeros"]
photos = ""
weights = "random"
results = "results"
"""
BODY = """import json, os, subprocess, time
from pathlib import Path
folder = Path(results)
if n == 5:
    raise RuntimeError("five is bad")
if n == 6:
    from studies import parameters
    parameters.check(n=1)
if n == 8:
    (folder / "begun").touch()
    time.sleep(60)
if n == 9:
    subprocess.Popen(["sleep", "3021"], start_new_session=True)
    os.kill(os.getppid(), 9)
    time.sleep(60)
if n == 10:
    Path(weights).write_text("B")
(folder / "numbers.json").write_text(json.dumps({
    "square": n * n + seed / 10,
    "gpu": os.environ["CUDA_VISIBLE_DEVICES"],
    "threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
    "offline": os.environ["PPP_OFFLINE"],
}))
rows = [f"{i},{i * n + seed},{'' if i else 'text'}" for i in range(3)]
(folder / "rows.csv").write_text("\\n".join(["i,n,word", *rows]))
"""


class Toy:
    """A folder with a notebook that squares, fails, is refused, sleeps or dies, and its sweeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        toy_notebooks.write(folder / "toy.ipynb", "Toy", VALUES, BODY)

    def sweep(self, text: str, name: str = "s") -> Sweep:
        path = self.folder / f"{name}.yaml"
        path.write_text(f"name: {name}\nrun: toy.ipynb\n{text}", encoding="utf-8")
        return Sweep.read(path)

    def status(self, swept: Sweep, place: str = "", body: str = "1") -> state.Status:
        """Return the state of a sweep whose sources are a digest, so that none are read."""
        status = state.Status(swept, self.folder / "out" / (place or swept.name))
        status.sources = "tree", {"cells": {"body": body}, "files": {}}
        return status

    def run(self, swept: Sweep, place: str = "", jobs: int = 2, **options) -> state.Status:
        status = state.Status(swept, self.folder / "out" / (place or swept.name))
        return conduct.run(status, jobs=jobs, say=lambda line: None, **options)


def finish(status: state.Status, number: int, rows: str = "i\n1\n", **about) -> Path:
    """Leave behind what a run does that has ended well with these rows; return its table."""
    run, name = status.sweep.runs[number], status.sweep.table
    table = status.folder / "runs" / run.id / "results" / name
    files.write(table, rows.encode())
    key = state.key(status.sweep.target, status.sources[1], run.settings, given(run.settings))
    record = {"key": key, "tables": {name: files.sha256(table)}} | about
    staleness.store(table.parents[1] / "run.json", {"seconds": 1.0, "disk": 1.0} | record)
    return table


def states(status):
    return [status.states[one.id].state for one in status.sweep.runs]


def reasons(status):
    return [status.states[one.id].reason for one in status.sweep.runs]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)
    return found


def workers(place):
    """Return the processes that work for a sweep."""
    known = [(one, one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    return [one for one, words in known if str(place) in " ".join(words)]
