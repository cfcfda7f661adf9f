"""Plan a sweep, and let Snakemake run what is missing of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from companion import notebooks, processes
from companion.notebooks import staleness
from companion.quantities import show_bytes, show_seconds
from companion.sweeps import job
from companion.sweeps.spec import NotebookTarget, Run, SweepError, show
from companion.sweeps.state import DONE, FAILED, MISSING, RUNNING, STALE, Status, living
from ppp import files
from ppp.errors import PPPError
from studies.storage import documents, outputs, yaml_documents

WORKFLOW = Path(__file__).parent / "workflow.smk"
COMMAND = "ppp sweep"
CANCEL = 60
"""Seconds that Snakemake has to cancel the jobs of a cluster."""
CLUSTERS = {"slurm": Path(__file__).parent / "slurm"}
"""Shipped profiles of Snakemake, by name."""


# ---- the plan


@dataclass(frozen=True)
class Plan:
    """What is to be done, how long it may take, and how much it will leave.

    Attributes
    ----------
    counts : dict of str to int
        Runs by state.
    seconds : float or None
        Time of all runs that are to be done, one after another; None if nothing is known.
    basis : str
        What that was taken from.
    disk : float or None
        Bytes that they will leave; None if nothing is known.
    free : int
        Bytes that are free there.
    """

    counts: dict[str, int]
    seconds: float | None
    basis: str
    disk: float | None
    free: int


def plan(status: Status) -> Plan:
    """Plan from what is known: finished runs that are most alike, else the published chapter."""
    counts = dict.fromkeys((DONE, STALE, FAILED, RUNNING, MISSING), 0)
    for state in status.states.values():
        counts[state.state] += 1
    records = {
        run.id: status.states[run.id].record
        for run in status.sweep.runs
        if status.states[run.id].state in (DONE, STALE)
    }
    todo = status.todo
    if records:
        seconds, disk = (_like(status, todo, records, what) for what in ("seconds", "disk"))
        basis = f"finished runs with the most equal factors ({len(records)} in all)"
    else:
        seconds, disk, basis = _published(status, len(todo))
    there = next(
        path for path in [status.folder.path, *status.folder.path.parents] if path.exists()
    )
    return Plan(counts, seconds, basis, disk, shutil.disk_usage(there).free)


def _like(status: Status, todo: Sequence[Run], records: dict, what: str) -> float:
    """Add up what the runs will take, each the mean of those that share most of its factors."""
    names = status.sweep.factors
    known = [run for run in status.sweep.runs if run.id in records]
    values = np.array([float(records[run.id].get(what) or 0) for run in known])
    codes: dict[str, int] = {}

    def coded(runs: Sequence[Run]) -> np.ndarray:
        texts = ([f"{name} {run.settings[name]}" for name in names] for run in runs)
        return np.array([[codes.setdefault(t, len(codes)) for t in row] for row in texts])

    wanted, there = coded(todo), coded(known)
    total = 0.0
    for row, count in zip(*np.unique(wanted, axis=0, return_counts=True)):
        equal = (there == row).sum(axis=1)
        total += count * values[equal == equal.max()].mean()
    return float(total)


def _published(status: Status, count: int) -> tuple[float | None, float | None, str]:
    """Take the published chapter's time and size for each run."""
    target = status.sweep.target
    unknown = "nothing yet: 'ppp sweep run --first 1' measures one run"
    if not isinstance(target, NotebookTarget):
        return None, None, unknown
    built = notebooks.ROOT / "build" / target.profile
    executed = built / "notebooks" / target.path.name
    if not executed.exists() or (took := notebooks.seconds(notebooks.read(executed))) is None:
        return None, None, unknown
    left = [executed, *(built / "results" / target.path.stem).rglob("*")]
    disk = sum(path.stat().st_size for path in left if path.is_file())
    return took * count, float(disk * count), f"the chapter as built, profile {target.profile}"


def lines(status: Status, found: Plan, jobs: int) -> Iterator[str]:
    """Give the plan in lines for people."""
    sweep, limits = status.sweep, status.sweep.limits
    shown = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
    yield f"sweep     {sweep.name}: {sweep.target.name}, {len(sweep.runs)} runs ({shown})"
    todo = status.todo
    yield f"to do     {len(todo)} runs, {jobs} at a time, {limits.threads} threads each"
    for name in sweep.factors:
        levels = list(dict.fromkeys(show(run.settings[name]) for run in sweep.runs))
        more = f", ... ({len(levels)})" if len(levels) > 8 else ""
        yield f"factor    {name}: {', '.join(levels[:8])}{more}"
    together = max(1, min(jobs, len(todo)))
    took = "unknown" if found.seconds is None else f"about {show_seconds(found.seconds / together)}"
    yield f"time      {took if todo else 'none'}; from {found.basis}"
    disk = "unknown" if found.disk is None else f"about {show_bytes(found.disk)}"
    yield f"disk      {disk if todo else 'none'}; {show_bytes(found.free)} free"
    memory = "no limit" if limits.memory is None else show_bytes(limits.memory)
    longest = "no limit" if limits.time is None else show_seconds(limits.time)
    yield f"limits    memory {memory}, time {longest}, GPU {'one each' if limits.gpu else 'none'}"
    yield f"folder    {status.folder.path}"


# ---- running


def default_jobs(threads: int) -> int:
    """Return how many runs fit on this machine's processors at a time."""
    allowed = getattr(os, "sched_getaffinity", None)
    return max(1, (len(allowed(0)) if allowed else os.cpu_count() or 1) // threads)


def profile(cluster: str) -> Path:
    """Return the folder of a profile of Snakemake, by name or by path.

    Raises
    ------
    SweepError
    """
    path = CLUSTERS.get(cluster) or documents.as_path(cluster, "--cluster", SweepError)
    if not any((path / name).is_file() for name in ("config.yaml", "config.v8+.yaml")):
        raise SweepError(
            f"--cluster {cluster!r}: expected {', '.join(CLUSTERS)}, or a folder with a profile of "
            "Snakemake, config.yaml"
        )
    return path.resolve()


def _executor(folder: Path) -> str:
    """Return the executor that a profile of Snakemake names."""
    for path in folder.glob("config*.yaml"):
        found = yaml_documents.read_yaml(path, "profile", error=SweepError)
        if isinstance(found, dict) and "executor" in found:
            return str(found["executor"])
    return ""


def run(
    status: Status,
    *,
    jobs: int,
    first: int | None = None,
    cluster: str = "",
    say: Callable[[str], object] = print,
) -> Status:
    """Run what is missing or stale, and gather the tables, whatever failed.

    Parameters
    ----------
    status : Status
        Of a moment ago.
    jobs : int
        Runs at a time.
    first : int, optional
        Only so many of what is to be done.
    cluster : str
        A profile of Snakemake, from :func:`profile`; without it, this machine.
    say : callable
        Told of every run that ends.

    Returns
    -------
    Status
        Afterwards.

    Raises
    ------
    SweepError
        Another command runs this sweep.
    """
    folder = status.folder
    with outputs.working(folder.path, COMMAND):
        _fetch(status.todo[:first])
        status = Status(status.sweep, folder, status.root)  # as things are now
        # What another machine has begun may be dead there; if not, the lock of the run is held.
        todo = [run for run in status.todo if not living(status.states[run.id].record)][:first]
        status.want(todo)
        try:
            if todo:
                ids = "\n".join(run.id for run in todo)
                files.write(folder.path / "todo.txt", ids.encode())
                _snakemake(status, todo, jobs, cluster, say)
        except BaseException:
            with contextlib.suppress(PPPError, OSError):
                Status(status.sweep, folder, status.root).gather()
            raise
        after = Status(status.sweep, folder, status.root)
        after.gather()
    return after


def _snakemake(status: Status, todo: Sequence[Run], jobs: int, cluster: str, say) -> None:
    limits, path = status.sweep.limits, status.folder.path
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW)]
    command += ["--directory", str(path)]
    command += ["--keep-going", "--nolock", "--rerun-triggers", "mtime", "--scheduler", "greedy"]
    command += ["--profile", "none"]
    if cluster:
        command += ["--jobs", str(jobs), "--workflow-profile", str(profile(cluster))]
        if _executor(profile(cluster)) == "slurm":
            command += ["--slurm-logdir", str(path / "slurm")]
    else:
        command += ["--cores", str(jobs * limits.threads), "--workflow-profile", "none"]
        command += _local_resources(limits)
    report = path / "snakemake.log"
    with report.open("wb") as log:
        process = processes.start(command, cwd=notebooks.ROOT, stdout=log, stderr=log)
        try:
            _follow(status, todo, process, say)
        except BaseException:
            if cluster:  # Snakemake cancels its jobs
                processes.be_patient(CANCEL + processes.GRACE)
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(CANCEL)
            processes.end_children(of=process.pid)
            raise
    if left := [run for run in todo if not _ended(status, run)]:
        _end_runs(status, left)
        said = report.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        errors = [line for line in said if re.search(r"error|exception", line, re.IGNORECASE)]
        raise SweepError(
            f"{len(left)} of {len(todo)} runs were not run: Snakemake ended with code "
            f"{process.returncode}: {(errors or said)[-1].strip()} (all of it: {report})"
        )


def _end_runs(status: Status, runs: Sequence[Run]) -> None:
    """End what runs of a Snakemake that is no longer there."""
    begun = (staleness.load(status.folder.started(run.id)) or {} for run in runs)
    watchers = [found for one in begun if (found := living(one))]
    for watcher in watchers:
        with contextlib.suppress(psutil.Error):
            watcher.terminate()
    psutil.wait_procs(watchers, 30)


def _local_resources(limits) -> list[str]:
    """Return what all runs together may use of this machine."""
    found = []
    if limits.memory:
        found.append(f"mem_mb={psutil.virtual_memory().total // 2**20}")
    if limits.gpu and (gpus := job.gpus()):
        found.append(f"gpu={len(gpus)}")
    return ["--resources", *found] if found else []


def _ended(status: Status, run: Run) -> bool:
    return status.folder.done(run.id).exists() or status.folder.failure(run.id).exists()


def _follow(status, todo: Sequence[Run], process: subprocess.Popen, say) -> None:
    """Tell of every run that ends, until Snakemake does."""
    from tqdm import tqdm

    waiting = {run.id: run for run in todo}
    with tqdm(total=len(todo), desc=status.sweep.name, unit="run", disable=None) as bar:
        going = True
        while going:
            going = process.poll() is None
            for id, run in list(waiting.items()):
                if _ended(status, run):
                    del waiting[id]
                    bar.update()
                    if bar.disable:
                        say(_said(status, run))
                    else:
                        bar.write(_said(status, run))
            if going:
                time.sleep(0.3)


def _said(status: Status, run: Run) -> str:
    failure = staleness.load(status.folder.failure(run.id))
    if failure is not None:
        return f"failed    {run}: {failure.get('reason')} ({status.folder.log(run.id)})"
    record = staleness.load(status.folder.record(run.id)) or {}
    return f"done      {run} ({show_seconds(record.get('seconds', 0))})"


def _fetch(runs: Sequence[Run]) -> None:
    """Fetch the weights that runs name, once, before any of them starts."""
    asked: set[tuple[str, str]] = set()
    for run in runs:
        for name, value in run.settings.items():
            if name.endswith(("network", "networks")):
                kinds = [one for one in run.settings if one.endswith("weights")]
                if name.startswith("imagenet_"):
                    kinds = [one for one in kinds if one.startswith("imagenet_")]
                weights = [run.settings[one] for one in kinds]
                asked |= set(
                    itertools.product(value if isinstance(value, list) else [value], weights)
                )
    if any(weights not in ("random", "initial") for _, weights in asked):
        from studies import networks

        for name, weights in sorted(asked):
            networks.fetch_weights(name, weights)
