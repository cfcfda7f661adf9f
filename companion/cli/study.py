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
    "bhv": ("bhv.design", "Train the networks of the border-handling-variants study."),
    "posenet": ("posenet.design", "Train the read-outs of the PosENet study."),
    "posenet-real": ("posenet.real", "Train read-outs of networks that others trained."),
    "patterns": ("patterns.design", "Measure PPP of every small network."),
    "evidence": ("evidence.design", "Measure what the amended tests of the claims are decided on."),
    "pretrained": ("pretrained.design", "Measure networks that were trained on real pictures."),
    "pretrained-adaptation": ("pretrained.adaptation", "Adapt one of these to other paddings."),
    "zoo": ("dynamics.design", "Train and measure the small networks."),
    "adaptation": ("dynamics.adaptation", "Train controls further, with each padding."),
    "survey": ("survey.design", "Examine torchvision's networks: which can be measured, or not."),
}
"""Name of a study -> where it is in ``studies``, loaded when it is used; and what it does."""


def _study(name: str) -> Study:
    return importlib.import_module(f"studies.{STUDIES[name][0]}").STUDY


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


class _Command(Command):
    """A command whose options are known when they are asked for, and not before."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*_options(self.name), *super().get_params(ctx)]


class _Zoo(_Command, Group):
    """The command of the zoo has commands of its own."""


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
    """Make the command of a study."""

    @click.option("--jobs", type=WHOLE, default=1, help="runs at a time; default: 1")
    @click.option(
        "--threads",
        type=WHOLE,
        default=1,
        help="of each run; the shipped results come from 1, the default",
    )
    @click.option("--out", type=PATH, default=Path("runs", name), help=f"default: runs/{name}")
    @click.option("--data", type=PATH, help="folder for the tables; default: OUT/tables")
    @click.pass_context
    def perform(context: click.Context, **options) -> None:
        if not context.invoked_subcommand:
            _perform(name, **options)

    help = f"{STUDIES[name][1]} Make its tables; go on where it was broken off."
    if name == "zoo":
        free = {"invoke_without_command": True, "no_args_is_help": False}
        return click.group(name, cls=_Zoo, help=help, **free)(perform)
    runs = click.argument("stem", nargs=-1, metavar="[RUN]...", help="names; default: all")
    return click.command(name, cls=_Command, help=help)(runs(perform))


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


_EARLIER = ("bhv", "posenet", "patterns", "zoo", "survey")
ALIASES = {name: _alias(name) for name in _EARLIER}
bhv, posenet, patterns, zoo, survey = ALIASES.values()
