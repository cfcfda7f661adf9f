"""``ppp sweep``: a notebook, or a measurement, over many values."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from companion.cli.options import PATH, Group, Whole, count
from ppp.errors import PPPError

if TYPE_CHECKING:
    from companion.sweeps.state import Status


@click.group(cls=Group, no_args_is_help=False)
def sweep() -> None:
    """Run a notebook, or a measurement, over many values, here or on a cluster."""


FILE = click.argument("sweep", type=PATH, help="a file, sweep.yaml: what runs, over which values")
OUTPUT = click.option("--output", type=PATH, help="folder; default: runs/sweeps/NAME")
JOBS = click.option(
    "--jobs", type=Whole(1), metavar="N", help="runs at a time; default: one for each processor"
)


def _status(sweep, output) -> Status:
    from companion.sweeps.spec import Sweep
    from companion.sweeps.state import OUT, Status

    asked = Sweep.read(sweep)
    return Status(asked, (output or OUT / asked.name).absolute())


@sweep.command()
@FILE
@OUTPUT
@JOBS
def plan(sweep, output, jobs) -> None:
    """Say how many runs there are, and what they will take."""
    from companion.sweeps import conduct

    status = _status(sweep, output)
    jobs = jobs or conduct.default_jobs(status.sweep.limits.threads)
    print(*conduct.plan(status, jobs), sep="\n")


@sweep.command()
@FILE
@OUTPUT
@JOBS
@click.option("--first", type=Whole(1), metavar="N", help="only N of what is to be done")
@click.option(
    "--cluster",
    default="",
    metavar="PROFILE",
    help="slurm, or a folder with a profile of Snakemake; without, this machine",
)
def run(sweep, output, jobs, first, cluster) -> None:
    """Run what is missing or out of date, and gather the table."""
    from companion.sweeps import conduct

    if cluster:
        conduct.profile(cluster)
    status = _status(sweep, output)
    jobs = jobs or conduct.default_jobs(status.sweep.limits.threads)
    try:
        after = conduct.run(status, jobs=jobs, first=first, cluster=cluster)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "finished runs are kept and in the table; the same command goes on"
        ) from None
    _report(after)


@sweep.command()
@FILE
@OUTPUT
@click.option("--stale", is_flag=True, help="take in runs that are out of date")
def table(sweep, output, stale) -> None:
    """Gather the table of what is finished, while others run."""
    from studies.storage import outputs

    status = _status(sweep, output)
    if not outputs.check_claim(status.folder, "ppp sweep"):
        raise PPPError(f"{status.folder}: no sweep has run there; first: ppp sweep run {sweep}")
    status.gather(stale=stale)
    _report(status)


def _report(status: Status) -> None:
    """Say what there is, and fail if a run has."""
    runs, failed = status.sweep.runs, 0
    for run in runs:
        now = status.states[run.id]
        failed += now.state == "failed"
        if now.state in ("failed", "running"):
            print(f"{now.state:<9} {run}: {now.reason}")
    print(f"done      {len(runs) - len(status.todo)} of {count(runs, 'run')}")
    print(f"table     {status.table}\nruns      {status.runs}")
    print(f"page      ppp run sweeps -p sweep {shlex.quote(str(status.folder))}")
    if failed:
        raise PPPError(f"{failed} of {count(runs, 'run')} failed; the reasons are above")
