"""Plan a sweep, and let Snakemake run what is missing of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import psutil

from companion import notebooks, processes
from companion.notebooks import staleness
from companion.quantities import show_bytes, show_seconds
from companion.sweeps import job
from companion.sweeps.spec import Run, Sweep, SweepError, show
from companion.sweeps.state import DONE, STALE, Status, living
from ppp.errors import PPPError
from studies import paths
from studies.storage import documents, outputs

WORKFLOW = Path(__file__).parent / "workflow.smk"
COMMAND = "ppp sweep"
CANCEL = 60
"""Seconds that Snakemake has to cancel the jobs of a cluster."""
CLUSTERS = {"slurm": Path(__file__).parent / "slurm"}
"""Shipped profiles of Snakemake, by name."""


# ---- the plan


def plan(status: Status, jobs: int) -> Iterator[str]:
    """Say in lines what is to be done, how long it may take, and how much it will leave."""
    sweep, limits, todo = status.sweep, status.sweep.limits, status.todo
    counts = Counter(state.state for state in status.states.values())
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    yield f"sweep     {sweep.name}: {sweep.target.name}, {len(sweep.runs)} runs ({states})"
    yield f"to do     {len(todo)} runs, {jobs} at a time, {limits.threads} threads each"
    for name in sweep.factors:
        levels = list(dict.fromkeys(show(run.settings[name]) for run in sweep.runs))
        more = f", ... ({len(levels)})" if len(levels) > 8 else ""
        yield f"factor    {name}: {', '.join(levels[:8])}{more}"
    seconds, disk, basis = estimate(status)
    took = space = "unknown"
    if seconds is not None:
        took = f"about {show_seconds(seconds / max(1, min(jobs, len(todo))))}"
        space = f"about {show_bytes(disk)}"
    there = next(path for path in (status.folder, *status.folder.parents) if path.exists())
    yield f"time      {took if todo else 'none'}; from {basis}"
    yield f"disk      {space if todo else 'none'}; {show_bytes(shutil.disk_usage(there).free)} free"
    memory = "no limit" if limits.memory is None else show_bytes(limits.memory)
    longest = "no limit" if limits.time is None else show_seconds(limits.time)
    yield f"limits    memory {memory}, time {longest}, GPU {'one each' if limits.gpu else 'none'}"
    yield f"folder    {status.folder}"


def estimate(status: Status) -> tuple[float | None, float | None, str]:
    """Estimate from finished runs that are most alike, else from the published chapter.

    Returns
    -------
    seconds : float or None
        Time of all runs that are to be done, one after another; None if nothing is known.
    disk : float or None
        Bytes that they will leave.
    basis : str
        What that was taken from.
    """
    target, todo = status.sweep.target, status.todo
    known = {id: one.record for id, one in status.states.items() if one.state in (DONE, STALE)}
    if known:
        costs = _alike(status.sweep, [run.id for run in todo], known)
        return *costs, f"finished runs with the most equal factors ({len(known)} in all)"
    built = paths.ROOT / "build" / target.profile
    executed = built / "notebooks" / target.source.name
    took = notebooks.seconds(notebooks.read(executed)) if executed.exists() else None
    if took is None:
        return None, None, "nothing yet: 'ppp sweep run --first 1' measures one run"
    left = [executed, *(built / "results" / target.source.stem).rglob("*")]
    disk = sum(path.stat().st_size for path in left if path.is_file())
    return took * len(todo), disk * len(todo), f"the chapter as built, profile {target.profile}"


def _alike(sweep: Sweep, todo: Sequence[str], known: Mapping[str, Mapping]) -> pd.Series:
    """Add up the costs of runs, each the mean of those known that share most of its factors."""
    levels = {run.id: [show(run.settings[name]) for name in sweep.factors] for run in sweep.runs}
    factors = pd.DataFrame.from_dict(levels, orient="index")
    costs = pd.DataFrame.from_dict(known, orient="index")[["seconds", "disk"]].astype(float)
    total = pd.Series({"seconds": 0.0, "disk": 0.0})
    for row, count in factors.loc[todo].value_counts().items():
        equal = (factors.loc[costs.index] == list(row)).sum(axis=1)
        total += count * costs[equal == equal.max()].mean()
    return total


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
    if not list(path.glob("config*.yaml")):
        known = f"{', '.join(CLUSTERS)}, or a folder with a profile of Snakemake, config.yaml"
        raise SweepError(f"--cluster {cluster!r}: expected {known}")
    return path.resolve()


def run(
    status: Status, *, jobs: int, first: int | None = None, cluster: str = "", say=print
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
    with outputs.working(status.folder, COMMAND):
        _fetch(status.todo[:first])
        status = status.again()
        # What another machine has begun may be dead there; if not, the lock of the run is held.
        todo = [run for run in status.todo if not living(status.states[run.id].record)][:first]
        status.want(todo)
        try:
            if todo:
                _snakemake(status, todo, jobs, cluster, say)
        except BaseException:
            with contextlib.suppress(PPPError, OSError):
                status.again().gather()
            raise
        after = status.again()
        after.gather()
    return after


def _snakemake(status: Status, todo: Sequence[Run], jobs: int, cluster: str, say) -> None:
    limits = status.sweep.limits
    command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(WORKFLOW)]
    command += ["--keep-going", "--nolock", "--rerun-triggers", "mtime", "--scheduler", "greedy"]
    command += ["--profile", "none"]
    if cluster:
        command += ["--jobs", str(jobs), "--workflow-profile", str(profile(cluster))]
    else:  # --resources: what all runs together may use of this machine
        command += ["--cores", str(jobs * limits.threads), "--workflow-profile", "none"]
        command += ["--resources", f"mem_mb={psutil.virtual_memory().total // 2**20}"]
        command += [f"gpu={len(job.gpus()) or jobs}"] if limits.gpu else []
    report = status.folder / "snakemake.log"
    with report.open("wb") as log:
        process = processes.start(command, cwd=status.folder, stdout=log, stderr=log)
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
    if left := [run for run in todo if run.id not in _ended(status)]:
        text = report.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        errors = [line for line in text if re.search(r"error|exception", line, re.IGNORECASE)]
        raise SweepError(
            f"{len(left)} of {len(todo)} runs were not run: Snakemake ended with code "
            f"{process.returncode}: {(errors or text)[-1].strip()} (all of it: {report})"
        )


def _follow(status, todo: Sequence[Run], process: subprocess.Popen, say) -> None:
    """Tell of every run that ends, until Snakemake does."""
    from tqdm import tqdm

    waiting, going = list(todo), True
    with tqdm(total=len(todo), desc=status.sweep.name, unit="run", disable=None) as bar:
        while going:
            going = process.poll() is None
            ended = _ended(status)
            for run in [run for run in waiting if run.id in ended]:
                waiting.remove(run)
                bar.update()
                (say if bar.disable else bar.write)(_said(status, run))
            if going:
                time.sleep(0.3)


def _ended(status: Status) -> set[str]:
    """Return the ids of the runs that have failed, or whose mark Snakemake has set."""
    paths = [*(status.folder / "failed").glob("*.json"), *(status.folder / "done").glob("run~*")]
    return {path.stem.removeprefix("run~") for path in paths}


def _said(status: Status, run: Run) -> str:
    """Say how a run ended."""
    if failure := staleness.load(status.folder / "failed" / f"{run.id}.json"):
        log = status.folder / "logs" / f"{run.id}.log"
        return f"failed    {run}: {failure.get('reason')} ({log})"
    record = staleness.load(status.folder / "runs" / run.id / "run.json") or {}
    return f"done      {run} ({show_seconds(record.get('seconds', 0))})"


def _fetch(runs: Sequence[Run]) -> None:
    """Fetch the weights that runs name, once, before any of them starts."""
    kinds = {"network": "weights", "networks": "weights"}
    asked = {
        (network, settings[weights])
        for settings in (run.settings for run in runs)
        for names, weights in kinds.items()
        if names in settings and weights in settings
        for network in ([*settings[names]] if names.endswith("s") else [settings[names]])
    }
    if any(weights not in ("random", "initial") for _, weights in asked):
        from studies import networks
        from studies.networks import own

        for name, weights in sorted(asked):
            fetch = own.fetch_timm if own.is_timm(name) else networks.fetch_weights
            fetch(name, weights)
