"""One command for each study: ``ppp bhv``, ``ppp posenet``, ``ppp patterns``, survey and zoo."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import click

from companion.cli.options import PATH, WHOLE, Command, Group, Whole, count

ZOO = Path("runs", "zoo")


def _several(*names: str, **settings) -> Callable[[Callable], Callable]:
    return click.option(*names, multiple=True, help="may be repeated; default: all", **settings)


FAMILY = _several("--family", "families", metavar="FAMILY")
PADDING = _several("--padding", "--scheme", "paddings", metavar="PADDING")
SEED = _several("--seed", "seeds", metavar="SEED", type=WHOLE)
JOBS = click.option("--jobs", type=WHOLE, default=1, help="runs at a time; default: 1")
TABLES = click.option("--data", type=PATH, help="folder for the tables; default: OUT/tables")


def _out(folder: Path) -> Callable[[Callable], Callable]:
    return click.option("--out", type=PATH, default=folder, help=f"default: {folder}")


def _study(
    design: ModuleType,
    perform: Callable[..., None],
    wanted: Sequence[object],
    jobs: int,
    out: Path,
    data: Path | None,
    done: str = "trained",
) -> None:
    """Perform the runs of a study and make its tables."""
    tables = data or out / "tables"
    design.STUDY.check(tables, wanted)
    try:
        perform(wanted, out, jobs=jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"finished runs are kept; the others are {done} when the command is given again"
        ) from None
    design.collect(out, tables, wanted)
    print(f"{count(wanted, 'run')} in {out}; their tables are in {tables}")


@click.command(cls=Command)
@_several("--condition", "conditions", metavar="CONDITION")
@_several("--variant", "variants", metavar="VARIANT")
@SEED
@JOBS
@_out(Path("runs", "bhv"))
@TABLES
def bhv(conditions, variants, seeds, jobs, out, data) -> None:
    """Train the networks of the border-handling-variants study and make its tables; goes on where
    it was broken off."""
    from studies.bhv import design

    wanted = design.runs(conditions or None, variants or None, seeds or None)
    _study(design, design.train_design, wanted, jobs, out, data)


@click.command(cls=Command)
@_several("--part", "parts", metavar="PART")
@PADDING
@SEED
@JOBS
@_out(Path("runs", "posenet"))
@TABLES
def posenet(parts, paddings, seeds, jobs, out, data) -> None:
    """Train the read-outs of the PosENet study and make its tables; goes on where it was broken
    off."""
    from studies.posenet import design

    wanted = design.runs(parts or None, paddings or None, seeds or None)
    _study(design, design.train_design, wanted, jobs, out, data)


@click.command(cls=Command)
@FAMILY
@PADDING
@_several("--state", "states", metavar="STATE")
@SEED
@JOBS
@_out(Path("runs", "patterns"))
@TABLES
def patterns(families, paddings, states, seeds, jobs, out, data) -> None:
    """Measure PPP of every small network and make its tables; goes on where it was broken off."""
    from studies.patterns import design

    wanted = design.runs(families or None, paddings or None, states or None, seeds or None)
    _study(design, design.measure_design, wanted, jobs, out, data, done="measured")


@click.command(cls=Command)
@click.argument(
    "models", nargs=-1, metavar="[MODEL]...", help="such as resnet18; without, all of torchvision"
)
@JOBS
@_out(Path("runs", "survey"))
@TABLES
def survey(models, jobs, out, data) -> None:
    """Examine the networks of torchvision: which can be measured, where, and why not elsewhere;
    goes on where it was broken off."""
    from studies.survey import design

    _study(design, design.survey, design.runs(models), jobs, out, data, done="examined")


@click.group(cls=Group, no_args_is_help=False)
def zoo() -> None:
    """Train, collect or verify the small networks."""


@zoo.command()
@FAMILY
@PADDING
@SEED
@JOBS
@_out(ZOO)
@click.option(
    "--threads",
    type=WHOLE,
    default=1,
    help="of each run; the shipped weights come from 1, the default",
)
def train(families, paddings, seeds, jobs, out, threads) -> None:
    """Train and measure networks; goes on where it was broken off."""
    from studies.dynamics import design

    wanted = design.runs(families or None, paddings or None, seeds or None)
    try:
        design.train_zoo(wanted, out, jobs=jobs, threads=threads)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "unfinished runs continue when the command is given again"
        ) from None
    where = "" if out == ZOO else f" --runs {shlex.quote(str(out))}"
    print(f"{count(wanted, 'run')} in {out}; to ship them: ppp zoo collect{where}")


SHIPPED = click.option("--data", type=PATH, help="default: the shipped data")


@zoo.command()
@click.option("--runs", type=PATH, default=ZOO, help=f"default: {ZOO}")
@SHIPPED
@click.option("--replace", is_flag=True, help="also replace networks of the same name")
def collect(runs, data, replace) -> None:
    """Add finished runs to the shipped data."""
    from studies.dynamics import design

    place = data or design.DATA
    added = design.collect(runs, place, replace=replace)
    where = f" --data {shlex.quote(str(data))}" if data else ""
    print(*added, sep="\n")
    print(f"{count(added, 'run')} added to {place}; to check all: ppp zoo verify{where}")


@zoo.command()
@SHIPPED
@click.option(
    "--accuracy",
    type=Whole(0, 100_000),
    default=0,
    metavar="N",
    help="also compute each accuracy again, on N test windows",
)
def verify(data, accuracy) -> None:
    """Check the shipped networks."""
    from studies.dynamics import design

    lines = design.verify(data or design.DATA, n_test=accuracy)
    print(*lines, f"{count(lines, 'network')} verified", sep="\n")
