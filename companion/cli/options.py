"""What several commands share: kinds of values, options, and how a table is printed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ppp.errors import ParameterError, shown
from studies.storage import documents


class Command(click.Command):
    """A command whose help is shown in full in the list of commands, too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any("-p" in option.opts for option in self.params):
            args = _in_pairs(args)
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 45) -> str:
        return " ".join((self.help or "").split())


class Group(click.Group):
    """A command with commands of its own, such as ``ppp sweep run``."""

    command_class = Command
    get_short_help_str = Command.get_short_help_str


class _Path(click.ParamType):
    name = "path"

    def convert(self, value, param, ctx) -> Path:
        text = os.fspath(value)
        if text.startswith("--"):  # an option whose own value was forgotten
            raise ParameterError(f"{param.name} {shown(text)}: expected a path; write ./{text}")
        return documents.as_path(value, param.name)


class Whole(click.ParamType):
    """A whole number of at least, and at most, so much."""

    name = "integer"

    def __init__(self, *bounds: int) -> None:
        self.bounds = bounds or (0,)

    def convert(self, value, param, ctx) -> int:
        from studies.parameters import check_whole

        with contextlib.suppress(ValueError):
            value = int(value)
        return check_whole(param.opts[0].lstrip("-"), value, *self.bounds)


PATH = _Path()
WHOLE = Whole()


def output(help: str, default: Path | None = None) -> Callable[[Callable], Callable]:
    """Add ``--output`` and ``--force``."""
    force = click.option(
        "--force", is_flag=True, help="replace an earlier result of this command there"
    )
    place = click.option("--output", type=PATH, default=default, help=help)
    return lambda function: place(force(function))


def changes(help: str) -> Callable[[Callable], Callable]:
    """Add ``-p NAME VALUE`` or ``-p NAME=VALUE``, which may be repeated."""
    return click.option("-p", "changes", nargs=2, multiple=True, metavar="NAME VALUE", help=help)


def _in_pairs(words: Sequence[str]) -> list[str]:
    """Write every ``-p NAME=VALUE`` as ``-p NAME VALUE``.

    Examples
    --------
    >>> _in_pairs(["03", "-p", "n=64", "-p", "photos", "a=b", "-pscheme=constant(0.5)"])
    ['03', '-p', 'n', '64', '-p', 'photos', 'a=b', '-p', 'scheme', 'constant(0.5)']
    """
    pairs: list[str] = []
    rest = iter(words)
    for word in rest:
        name = ""
        if word == "-p":
            name = next(rest, "")
        elif word.startswith("-p") and "=" in word:
            word, name = "-p", word[2:]
        pairs.append(word)
        if not name:
            continue
        name, given, value = name.partition("=")
        value = value if given else next(rest, None)
        if value is None or (not given and value in ("-p", "--profile", "--output")):
            raise ParameterError(f"-p {name}: expected -p {name} VALUE or -p {name}=VALUE")
        pairs += [name, value]
    return pairs


def count(things: Sequence[object], name: str) -> str:
    """Return how many there are, in words.

    Examples
    --------
    >>> count(["a"], "run"), count([], "run")
    ('1 run', '0 runs')
    """
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print texts in columns.

    Examples
    --------
    >>> print_table([("name", "n"), ("a", "2")])
    name  n
    a     2
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
