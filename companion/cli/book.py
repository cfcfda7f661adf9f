"""The commands of the book: build it, ask why, set it, compare, teach, release."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from companion.cli.options import PATH, Command, Whole, changes, count, output
from ppp.errors import ParameterError, shown

if TYPE_CHECKING:
    from companion.book.plan import Build


PROFILE = click.option("--profile", default="standard", help="how much is computed")
CHANGES = changes(
    "a variant: change a parameter, also NAME=VALUE, in every chapter that has it; padding stands "
    "for scheme and schemes"
)
TEXT = click.option(
    "--variant", default="", metavar="TEXT", help="the same, as one text: 'NAME=VALUE ...'"
)


def variant(function: Callable) -> Callable:
    """Add what names one build of the book."""
    return PROFILE(CHANGES(TEXT(function)))


def _asked(profile: str, variant: str = "", changes: tuple[tuple[str, str], ...] = ()) -> Build:
    from companion.book.plan import Build
    from studies import parameters, paths

    parameters.check(profile=profile)
    asked = Build(paths.ROOT, profile, read_variant(variant) | dict(changes))
    asked.check()
    return asked


_PAIR = re.compile(
    r"""(\w+)=(?:"([^"]*)"(?!\S)|'([^']*)'(?!\S)|(.*?))(?=\s+\w+=|\s*\Z)\s*""", re.DOTALL
)


def read_variant(text: str) -> dict[str, str]:
    """Read ``NAME=VALUE NAME=VALUE``; a value may hold spaces, and may stand in quotes.

    Examples
    --------
    >>> read_variant("padding=constant(0.5) photos='my photos; n=3' n=64")
    {'padding': 'constant(0.5)', 'photos': 'my photos; n=3', 'n': '64'}
    """
    text = text.strip()
    pairs = list(_PAIR.finditer(text))
    if "".join(pair[0] for pair in pairs) != text:
        raise ParameterError(f"variant {shown(text)}: expected NAME=VALUE, such as n=64")
    return {pair[1]: pair[2] or pair[3] or pair[4] or "" for pair in pairs}


@click.command(cls=Command)
@variant
@click.option("--cores", type=Whole(1), default=2, help="notebooks at a time; default: 2")
def build(cores, **asked) -> None:
    """Build the book, or a variant of it."""
    from companion.book import build as book

    wanted = _asked(**asked)
    print(f"The book is at {book.build(wanted, cores).relative_to(wanted.root)}")


@click.command(cls=Command)
@variant
def pdf(**asked) -> None:
    """Set the built book with LaTeX."""
    from companion.book import build as book

    wanted = _asked(**asked)
    print(f"The book is at {book.pdf(wanted).relative_to(wanted.root)}")


@click.command(cls=Command)
@click.argument(
    "page",
    help="a chapter: path, name, a part of it, or place; laboratory; or book, all pages",
)
@variant
def why(page, **asked) -> None:
    """Say why a page is out of date."""
    print(*_asked(**asked).why(page) or [f"{page} is up to date"], sep="\n")


@click.command(cls=Command)
@click.argument("run", type=PATH, metavar="RUN", help="a folder that 'ppp run' wrote")
@click.argument(
    "other", type=PATH, required=False, metavar="[RUN]", help="another; default: what is published"
)
@click.option(
    "--published",
    type=PATH,
    help="the build of the book that counts as published; default: build/standard",
)
@output("default: RUN/compare.html")
def compare(run, other, published, output, force) -> None:
    """Put a run beside the published chapter, or beside another run."""
    from companion.compare import Run, compare
    from studies import paths
    from studies.storage import outputs

    page = output or (other or run) / "compare.html"
    second = Run.read(other or run)
    outputs.check_page(page, force=force)
    if other:
        first = Run.read(run)
    else:
        first = Run.published(published or paths.ROOT / "build" / "standard", second.stem)
    comparison = compare(first, second)
    outputs.write_page(page, comparison.html(), "ppp compare", force=force)
    for name, a, b in comparison.settings:
        print(f"parameter {name}: {a} -> {b}")
    for table in comparison.tables:
        print(f"table {table.name}: {table.says}")
    print(comparison.verdict, f"page      {page}", sep="\n")


@click.command(cls=Command)
@output("default: build/course", Path("build", "course"))
@click.option(
    "--check",
    is_flag=True,
    help="also prove every check: it accepts the solution and refuses typical wrong answers",
)
def course(output, force, check) -> None:
    """Write the exercises for students and instructors."""
    from companion import course
    from studies import paths
    from studies.storage import outputs

    sources = paths.ROOT / "exercises"
    outputs.check_free(output, course.COMMAND, force=force)
    if check:
        problems = []
        for path in sorted(sources.glob("*.md")):
            sheet = course.read(path)
            with contextlib.redirect_stdout(None):  # the tables of stubs and solutions
                problems += course.verify(sheet)
            print(f"checked   {path.stem}: {count(sheet.exercises, 'exercise')}", flush=True)
        if problems:
            raise course.CourseError("; ".join(problems))
    written = course.build(sources, output, force=force)
    print(f"{count(written, 'notebook')} in {output}: student and instructor")


@click.command(cls=Command)
@click.option("--profile", default="standard", help="whose pages are released")
@output("default: dist", Path("dist"))
def release(profile, output, force) -> None:
    """Pack the built book, with hashes."""
    from companion.book import release

    archive = release.pack(_asked(profile), output, force=force)
    print(f"{archive}: {count(range(release.check(archive)), 'file')}, each with its SHA-256")
