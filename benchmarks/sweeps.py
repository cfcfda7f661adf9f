"""How much of a sweep's time is not its runs', how two workers divide it, how fast tables come.

Prints JSON. A run is a notebook that computes for `--seconds` of processor time and has one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from companion.sweeps import conduct, state
from companion.sweeps.spec import Sweep
from ppp import files

BODY = """import json, time
from pathlib import Path
end = time.process_time() + {seconds}
while time.process_time() < end:
    sum(range(10_000))
Path(results, "numbers.json").write_text(json.dumps({{"n": n}}))
"""


def notebook(path: Path, seconds: float) -> None:
    v4 = nbformat.v4
    cells = [
        v4.new_markdown_cell("# Busy", id="title"),
        v4.new_code_cell('n = 4\nseed = 0\nresults = "results"', id="values"),
        v4.new_code_cell(BODY.format(seconds=seconds), id="body"),
    ]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def sweep(folder: Path, name: str, runs: int, table: str = "numbers.json") -> Sweep:
    path = folder / f"{name}.yaml"
    path.write_text(f"run: busy.ipynb\nseeds: {runs}\ntable: {table}\nlimits: {{threads: 1}}")
    return Sweep.read(path)


def workers(folder: Path, runs: int) -> dict[str, float]:
    """Run the same runs with one and with two workers."""
    wall, own = {}, {}
    for jobs in (1, 2):
        place = state.Folder(folder / f"workers-{jobs}")
        swept = sweep(folder, "workers", runs)
        begun = time.perf_counter()
        after = conduct.run(state.Status(swept, place), jobs=jobs, say=lambda line: None)
        wall[jobs] = time.perf_counter() - begun
        assert not after.todo, "a run failed"
        own[jobs] = sum(found.record["seconds"] for found in after.states.values())
    return {
        "runs": runs,
        "one_worker_seconds": wall[1],
        "two_workers_seconds": wall[2],
        "speedup_of_two_workers": wall[1] / wall[2],
        "run_seconds_one_worker": own[1] / runs,
        "run_seconds_two_workers": own[2] / runs,
        "overhead_seconds_a_run": (wall[1] - own[1]) / runs,
    }


def plan(folder: Path, runs: int) -> dict[str, float]:
    begun = time.perf_counter()
    swept = sweep(folder, "plan", runs)
    found = state.Status(swept, state.Folder(folder / "plan"))
    list(conduct.lines(found, conduct.plan(found), 2))
    planned = time.perf_counter()
    found.folder.path.mkdir()
    found.want()
    return {
        "runs": runs,
        "plan_seconds": planned - begun,
        "want_seconds": time.perf_counter() - planned,
    }


def gather(folder: Path, runs: int, rows: int) -> dict[str, float]:
    """Gather tables that are as if the runs had made them."""
    swept = sweep(folder, "gather", runs, "rows.csv")
    place = state.Folder(folder / "gather")
    found = state.Status(swept, place)
    draws = np.random.default_rng(0)
    layers = np.array(["layer1", "layer2", "layer3", "layer4"])[np.arange(rows) % 4]
    for run in swept.runs:
        frame = pd.DataFrame({"step": np.arange(rows), "layer": layers})
        frame["mae"], frame["snr"] = draws.normal(size=(2, rows))
        results = place.run(run.id) / "results"
        results.mkdir(parents=True)
        frame.to_csv(results / "rows.csv", index=False)
        record = {"key": found.key(run), "tables": {"rows.csv": files.sha256(results / "rows.csv")}}
        place.record(run.id).write_text(json.dumps(record))
    begun = time.perf_counter()
    fresh = state.Status(swept, place)
    fresh.gather()
    took = time.perf_counter() - begun
    assert len(pd.read_parquet(place.table)) == runs * rows
    return {"runs": runs, "rows_a_run": rows, "gather_seconds": took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--runs", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        notebook(folder / "busy.ipynb", options.seconds)
        found = {
            "plan": plan(folder, 1000),
            "gather": gather(folder, 200, 10_000),
            "workers": workers(folder, options.runs),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
