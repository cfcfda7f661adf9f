"""A sweep on a real cluster: Slurm, two nodes of this machine, one drained, a job killed."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
import slurm_node
import toy_notebooks
import yaml
from toy_sweeps import wait_for

from companion import notebooks
from companion.sweeps import conduct
from companion.sweeps.spec import Sweep
from companion.sweeps.state import Status

SEEDS = int(os.environ.get("PPP_SLURM_SEEDS", "2"))  # 4 make 24 runs; 2 are enough every day
RUNS = 6 * SEEDS
BODY = """import time
from contextlib import suppress
from pathlib import Path
run = Path(results).parent
sweep = run.parents[1]
with suppress(FileNotFoundError):  # once, if the test asks for it
    (sweep / "wait").rename(sweep / f"waits-{run.name}")
    time.sleep(300)
rows = [f"{i},{(i + seed) ** n % 9973}" for i in range(100)]
Path(results, "rows.csv").write_text("\\n".join(["i,value", *rows]))
time.sleep(1)
"""
FILE = f"""run: toy.ipynb
grid: {{n: [2, 3, 4, 5, 6, 7]}}
seeds: {SEEDS}
table: rows.csv
limits: {{memory: 400M, time: 5 min, gpu: true}}
"""
REASON = slurm_node.missing()
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        bool(REASON) and "PPP_REQUIRE_SLURM" not in os.environ,
        reason=f"no Slurm cluster can be started here: {REASON}",
    ),
]


def profile(folder):
    """Write the shipped profile with what this cluster wants; return its folder."""
    shipped = yaml.safe_load((conduct.CLUSTERS["slurm"] / "config.yaml").read_text())
    shipped["default-resources"] |= {"mem_mb": 300, "slurm_partition": slurm_node.PARTITION}
    wanted = shipped | {
        "slurm-status-command": "squeue",
        "slurm-no-account": True,
        "slurm-init-seconds-before-status-checks": 1,
        "latency-wait": 5,
    }
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(wanted))
    return str(folder)


def test_a_sweep_on_slurm_survives_a_drained_node_and_a_killed_job(tmp_path_factory, capsys):
    folder = tmp_path_factory.mktemp("slurm")
    toy_notebooks.write(folder / "toy.ipynb", "Toy", 'n = 4\nseed = 0\nresults = "results"', BODY)
    path = folder / "sweep.yaml"
    path.write_text(FILE)
    sweep = Sweep.read(path)
    there, here = Status(sweep, folder / "there"), Status(sweep, folder / "here")
    line = [sys.executable, "-m", "companion", "sweep", "run", str(path), "--jobs", "4"]
    line += ["--output", str(there.folder), "--cluster", profile(folder / "profile")]
    log = [f"nodes of Slurm, two CPUs each; {RUNS} runs, 4 at a time"]
    begun = time.monotonic()

    def note(text):
        log.append(f"{time.monotonic() - begun:6.1f} s  {text}")

    def finished():
        return list((there.folder / "runs").glob("*/run.json"))

    with slurm_node.running(folder / "node", nodes=2, cpus=2, gpus=2) as slurm:
        options = {"cwd": notebooks.ROOT, "env": slurm.environment, "text": True}
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(line, **options)
        try:
            wait_for(lambda: len(finished()) >= 4, 240)
            slurm.drain("node1")
            before = {job.id for job in slurm.jobs() if job.node}
            note(f"node1 drained after {len(finished())} runs")
            (there.folder / "wait").touch()
            (waits,) = wait_for(lambda: list(there.folder.glob("waits-*")), 240)
            slow = next(run for run in sweep.runs if waits.name.endswith(run.id))
            victim = next(job for job in slurm.jobs("RUNNING") if slow.id in job.comment)
            slurm.cancel(victim.id)
            note(f"job {victim.id} killed on {victim.node}")
            said, _ = process.communicate(timeout=400)
        finally:
            process.kill()
        note(f"sweep ended: exit code {process.returncode}")
        states = there.again().states
        failed = [run for run in sweep.runs if states[run.id].state != "done"]
        assert process.returncode == 2 and failed == [slow], said
        assert "SIGTERM" in states[slow.id].reason and f"1 of {RUNS} runs failed" in said
        note(f"{slow}: {states[slow.id].reason}")
        later = {job.node for job in slurm.jobs() if job.id not in before}
        assert later == {"node2"}, "a job went to the drained node"
        assert len(pd.read_parquet(there.table)) == 100 * (RUNS - 1)

        slurm.resume("node1")
        again = subprocess.run(line, timeout=200, **options)
        note(f"again: exit code {again.returncode}")
        assert again.returncode == 0 and again.stdout.count("done      n = ") == 1, again.stdout
    runs = pd.read_parquet(there.runs)
    assert not there.again().todo and set(runs["device"]) <= {"cuda:0", "cuda:1"}
    local = conduct.run(here, jobs=2, say=lambda text: None)
    assert not local.todo and set(pd.read_parquet(here.runs)["device"]) == {"cpu"}
    assert there.table.read_bytes() == here.table.read_bytes()
    note(f"table of {len(pd.read_parquet(there.table))} rows equals the local run's, byte by byte")
    with capsys.disabled():
        print("\n" + "\n".join(log))
