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

from companion.notebooks import staleness
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


def status(folder: Path, name: str, runs: int, table: str = "numbers.json") -> state.Status:
    """Return a sweep of so many runs in which nothing has run yet."""
    path = folder / f"{name}.yaml"
    path.write_text(f"run: busy.ipynb\nseeds: {runs}\ntable: {table}\nlimits: {{threads: 1}}")
    return state.Status(Sweep.read(path), folder / name)


def workers(folder: Path, runs: int) -> dict[str, float]:
    """Run the same runs with one and with two workers."""
    wall, own = {}, {}
    for jobs in (1, 2):
        begun = time.perf_counter()
        after = conduct.run(status(folder, f"{jobs}", runs), jobs=jobs, say=lambda line: None)
        assert not after.todo, "a run failed"
        wall[jobs] = time.perf_counter() - begun
        own[jobs] = sum(one.record["seconds"] for one in after.states.values())
    overhead = (wall[1] - own[1]) / runs
    return {"speedup_of_two_workers": wall[1] / wall[2], "overhead_seconds_a_run": overhead}


def gather(folder: Path, runs: int, rows: int) -> float:
    """Return the time that tables take which are as if the runs had made them, s."""
    made = status(folder, "gather", runs, "rows.csv")
    frame = pd.DataFrame({"mae": np.random.default_rng(0).normal(size=rows), "layer": "layer1"})
    content = frame.to_csv().encode()
    for run in made.sweep.runs:
        place = made.folder / "runs" / run.id
        files.write(place / "results" / "rows.csv", content)
        key = state.key(made.sweep.target, made.sources[1], run.settings, {})
        record = {"key": key, "tables": {"rows.csv": files.digest(content)}}
        staleness.store(place / "run.json", record)
    begun = time.perf_counter()
    made.again().gather()
    took = time.perf_counter() - begun
    assert len(pd.read_parquet(made.table)) == runs * rows
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--runs", type=int, default=16)
    options = parser.parse_args()
    values = 'n = 4\nseed = 0\nresults = "results"'
    code = BODY.format(seconds=options.seconds)
    cell = nbformat.v4.new_code_cell
    cells = [cell(values, metadata={"tags": ["parameters"]}), cell(code)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / "busy.ipynb")
        begun = time.perf_counter()
        list(conduct.plan(status(folder, "plan", 1000), 2))
        times = {"plan_seconds_of_1000_runs": time.perf_counter() - begun}
        times["gather_seconds_of_200_tables_of_10000_rows"] = gather(folder, 200, 10_000)
        times["workers"] = workers(folder, options.runs)
    print(json.dumps(times, indent=1))


if __name__ == "__main__":
    main()
