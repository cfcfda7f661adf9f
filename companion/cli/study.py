"""``ppp study NAME``: perform the runs of a study and make its tables; and its earlier names."""

from __future__ import annotations

import functools
import importlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from companion.cli.options import PATH, WHOLE, Command, Group, Whole, count

if TYPE_CHECKING:
    from studies.runs import Study

STUDIES = {
    "bhv": ("studies.bhv.design", "Train the networks of the border-handling-variants study."),
    "posenet": ("studies.posenet.design", "Train the read-outs of the PosENet study."),
    "patterns": ("studies.patterns.design", "Measure PPP of every small network."),
    "zoo": ("studies.dynamics.design", "Train and measure the small networks."),
    "survey": (
        "studies.survey.design",
        "Examine the networks of torchvision: which can be measured, where, and why not elsewhere.",
    ),
}
"""Name of a study -> the module that holds its ``STUDY``, loaded when it is used; what it does."""


def _study(name: str) -> Study:
    return importlib.import_module(STUDIES[name][0]).STUDY


@functools.cache
def _options(name: str) -> list[click.Option]:
    """Return an option for each setting of a study's runs."""
    return [
        click.Option(
            [key, f"--{key}", *(["--scheme"] if key == "padding" else [])],
            type=WHOLE if key == "seed" else str,
            metavar=key.upper(),
            multiple=True,
            help="may be repeated; default: all",
        )
        for key in _study(name).key
    ]


class _Options(click.Command):
    """A command whose options are known when they are asked for, and not before."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*_options(self.name), *super().get_params(ctx)]


class _Performed(_Options, Command):
    pass


class _Zoo(_Options, Group):
    pass


def _perform(name: str, jobs: int, threads: int, out: Path, data: Path | None, **selection) -> None:
    study, tables = _study(name), data or out / "tables"
    runs = study.runs(**{key: values or None for key, values in selection.items()})
    study.check(tables, runs)
    try:
        study.perform(runs, out, jobs=jobs, threads=threads)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("finished runs are kept; the same command goes on") from None
    study.collect(out, tables, runs)
    print(f"{count(runs, 'run')} in {out}; their tables are in {tables}")


def _command(name: str) -> click.Command:
    """Make the command of a study; that of the zoo has commands of its own."""
    out = Path("runs", name)
    threads = "of each run; the shipped results come from 1, the default"
    parameters = [
        click.Option(["--jobs"], type=WHOLE, default=1, help="runs at a time; default: 1"),
        click.Option(["--threads"], type=WHOLE, default=1, help=threads),
        click.Option(["--out"], type=PATH, default=out, help=f"default: {out}"),
        click.Option(["--data"], type=PATH, help="folder for the tables; default: OUT/tables"),
    ]
    help = f"{STUDIES[name][1]} Make its tables; go on where it was broken off."
    if name != "zoo":
        run = click.Argument(["stem"], nargs=-1, metavar="[RUN]...", help="names; default: all")
        callback = functools.partial(_perform, name)
        return _Performed(name, params=[*parameters, run], callback=callback, help=help)

    @click.pass_context
    def callback(context: click.Context, **options) -> None:
        if not context.invoked_subcommand:
            _perform(name, **options)

    options = {"invoke_without_command": True, "no_args_is_help": False}
    return _Zoo(name, params=parameters, callback=callback, help=help, **options)


study = Group("study", help="Perform the runs of a study, and make its tables.")
for _name in STUDIES:
    study.add_command(_command(_name))

SHIPPED = click.option("--data", type=PATH, help="default: the shipped data")


@study.commands["zoo"].command()
@click.option("--runs", type=PATH, default=Path("runs", "zoo"), help="default: runs/zoo")
@SHIPPED
@click.option("--replace", is_flag=True, help="also replace networks of the same name")
def collect(runs: Path, data: Path | None, replace: bool) -> None:
    """Add finished runs to the shipped data."""
    from studies.dynamics import design

    place = data or design.DATA
    added = design.STUDY.collect(runs, place, replace=replace)
    where = f" --data {shlex.quote(str(data))}" if data else ""
    print(*added, sep="\n")
    print(f"{count(added, 'run')} added to {place}; to check all: ppp study zoo verify{where}")


@study.commands["zoo"].command()
@SHIPPED
@click.option(
    "--accuracy",
    type=Whole(0, 100_000),
    default=0,
    metavar="N",
    help="also compute each accuracy again, on N test windows",
)
def verify(data: Path | None, accuracy: int) -> None:
    """Check the shipped networks."""
    from studies.dynamics import design

    lines = design.verify(data or design.DATA, n_test=accuracy)
    print(*lines, f"{count(lines, 'network')} verified", sep="\n")


def _alias(name: str) -> click.Command:
    """Make the command of an earlier name, which says the present one."""
    unread = {"ignore_unknown_options": True, "allow_interspersed_args": False}

    @click.command(name, cls=Command, context_settings=unread, add_help_option=False)
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def alias(context: click.Context, words: tuple[str, ...]) -> None:
        earlier = f"ppp {name}"
        if name == "zoo" and words[:1] == ("train",):
            earlier, words = "ppp zoo train", words[1:]
        print(f"note: {earlier!r} is now 'ppp study {name}'", file=sys.stderr)
        with study.make_context("ppp study", [name, *words], parent=context.parent) as inner:
            study.invoke(inner)

    alias.help = f"The earlier name of ppp study {name}."
    return alias


ALIASES = {name: _alias(name) for name in STUDIES}
bhv, posenet, patterns, zoo, survey = ALIASES.values()
