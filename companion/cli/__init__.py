"""The command line, ``ppp``."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from companion import notebooks, processes
from companion.measure.request import whole
from ppp.errors import ParameterError, PPPError, first_words
from studies import parameters
from studies.storage import documents, outputs

if TYPE_CHECKING:
    from companion.book.build import Build
    from companion.sweeps.state import Status


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", help="path, name, a part of it, or place: extracting, 03")
    _change_arguments(parser, "change a parameter; a list is written a,b or [a, b]")
    parser.add_argument("--profile", default="standard", help="start from this profile")
    _output_arguments(parser, "default: runs/NAME-DIGEST")


def _output_arguments(
    parser: argparse.ArgumentParser, words: str, default: Path | None = None
) -> None:
    parser.add_argument("--output", type=Path, default=default, help=words)
    parser.add_argument(
        "--force", action="store_true", help="replace an earlier result of this command there"
    )


def _change_arguments(parser: argparse.ArgumentParser, words: str) -> None:
    parser.add_argument(
        "-p",
        dest="changes",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help=words,
    )


def _run(options: argparse.Namespace) -> None:
    notebook = notebooks.find(options.notebook)
    values = notebooks.defaults(notebook)
    changes = notebooks.profile_values(options.profile, notebook, values)
    asked = dict(options.changes)
    if "results" in asked:
        raise ParameterError("parameter results is set by the output folder; give --output")
    changes |= notebooks.merge(values, asked, text=True)
    settings = {name: value for name, value in (values | changes).items() if name != "results"}
    output = options.output or Path("runs", f"{notebook.stem}-{notebooks.digest(settings)}")
    try:
        with outputs.made(output, "ppp run", force=options.force) as folder:
            target = folder / notebook.name
            named = output / "results"
            notebooks.execute(notebook, target, changes, folder / "results", named)
            notebooks.render(target, target.with_suffix(".html"))
    except notebooks.NotebookFailed as error:
        raise _with_what_ran(error, output, notebook.name) from None
    page = output / f"{notebook.stem}.html"
    print(f"notebook  {output / notebook.name}\npage      {page}\nresults   {named}")


def _with_what_ran(
    error: notebooks.NotebookFailed, output: Path, name: str
) -> notebooks.NotebookFailed:
    """Keep a notebook as far as it got, in a folder beside the one that was to be made."""
    failed = output.with_name(f"{output.name}.failed")
    try:
        with outputs.made(failed, "ppp run", force=True) as folder:
            (folder / name).write_bytes(error.content)
        where = f"as far as it got: {failed / name}"
    except (PPPError, OSError) as other:
        where = f"as far as it got, it is not kept: {other}"
    return notebooks.NotebookFailed(f"{error}; {where}", error.reason)


def _params_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", help="path, name, a part of it, or place: extracting, 03")


def _params(options: argparse.Namespace) -> None:
    rows = [("name", "type", "default", "allowed", "meaning")]
    for name, value in notebooks.defaults(notebooks.find(options.notebook)).items():
        entry = parameters.lookup(name)
        kind = type(value).__name__
        rows.append((name, kind, repr(value), entry.kind.describe(), entry.meaning))
    _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    _book_arguments(parser)
    parser.add_argument("--cores", type=_whole, default=2, help="notebooks at a time; default: 2")


def _book_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names one build of the book."""
    parser.add_argument("--profile", default="standard", help="how much is computed")
    _change_arguments(
        parser,
        "a variant: change a parameter in every chapter that has it; padding stands for scheme "
        "and schemes",
    )
    parser.add_argument(
        "--variant", default="", metavar="TEXT", help="the same, as one text: 'NAME=VALUE ...'"
    )


def _wanted(options: argparse.Namespace) -> Build:
    from companion.book.build import Build

    parameters.check(profile=options.profile)
    changes = read_variant(options.variant) | dict(options.changes)
    wanted = Build(notebooks.ROOT, options.profile, changes)
    wanted.check()
    return wanted


_PAIR = re.compile(r"""(\w+)=("[^"]*"(?!\S)|'[^']*'(?!\S)|.*?)(?=\s+\w+=|\s*\Z)\s*""", re.DOTALL)


def read_variant(text: str) -> dict[str, str]:
    """Read ``NAME=VALUE NAME=VALUE``; a value may hold spaces, and may stand in quotes.

    Examples
    --------
    >>> read_variant("padding=constant(0.5) photos='my photos; n=3' n=64")
    {'padding': 'constant(0.5)', 'photos': 'my photos; n=3', 'n': '64'}
    """
    changes: dict[str, str] = {}
    place, text = 0, text.strip()
    while place < len(text):
        if not (pair := _PAIR.match(text, place)):
            raise ParameterError(f"variant {text[place:]!r}: expected NAME=VALUE, such as n=64")
        name, value = pair.groups()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        changes[name] = value[1:-1] if quoted else value
        place = pair.end()
    return changes


def _build(options: argparse.Namespace) -> None:
    from companion.book import build as book

    page = book.build(_wanted(options), whole("--cores", options.cores, 1))
    print(f"The book is at {page.relative_to(notebooks.ROOT)}")


def _pdf(options: argparse.Namespace) -> None:
    from companion.book import build as book

    pdf = book.pdf(_wanted(options))
    print(f"The book is at {pdf.relative_to(notebooks.ROOT)}")


def _why_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "page", help="a chapter: path, name, a part of it, or place; or book, all pages"
    )
    _book_arguments(parser)


def _why(options: argparse.Namespace) -> None:
    lines = _wanted(options).why(options.page)
    print(*lines or [f"{options.page} is up to date"], sep="\n")


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a folder that 'ppp run' wrote")
    parser.add_argument(
        "other", type=Path, nargs="?", metavar="RUN", help="another; default: what is published"
    )
    parser.add_argument(
        "--published",
        type=Path,
        help="the build of the book that counts as published; default: build/standard",
    )
    _output_arguments(parser, "default: RUN/compare.html")


def _compare(options: argparse.Namespace) -> None:
    from companion import compare

    page = options.output or (options.other or options.run) / "compare.html"
    published = options.published or notebooks.ROOT / "build" / "standard"
    second = compare.Run.read(options.other or options.run)
    outputs.check_page(page, force=options.force)
    if options.other:
        first = compare.Run.read(options.run)
    else:
        first = compare.Run.published(published, second.stem)
    found = compare.compare(first, second)
    outputs.write_page(page, found.html(), "ppp compare", force=options.force)
    for name, a, b in found.settings:
        print(f"parameter {name}: {a} -> {b}")
    for table in found.tables:
        print(f"table {table.name}: {table.says}")
    print(found.verdict, f"page      {page}", sep="\n")


def _course_arguments(parser: argparse.ArgumentParser) -> None:
    course = Path("build", "course")
    _output_arguments(parser, f"default: {course}", course)
    parser.add_argument(
        "--check",
        action="store_true",
        help="also prove every check: it accepts the solution and refuses typical wrong answers",
    )


def _course(options: argparse.Namespace) -> None:
    from companion import course

    sources = notebooks.ROOT / "exercises"
    outputs.check_free(options.output, course.COMMAND, force=options.force)
    if options.check:
        problems = [line for path in sorted(sources.glob("*.md")) for line in course.problems(path)]
        if problems:
            raise course.CourseError("; ".join(problems))
    written = course.build(sources, options.output, force=options.force)
    print(f"{_count(written, 'notebook')} in {options.output}: student and instructor")


def _release_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="standard", help="whose pages are released")
    _output_arguments(parser, "default: dist", Path("dist"))


def _release(options: argparse.Namespace) -> None:
    from companion.book import release
    from companion.book.build import Build

    parameters.check(profile=options.profile)
    build = Build(notebooks.ROOT, options.profile)
    archive = release.pack(build, options.output, force=options.force)
    print(f"{archive}: {_count(range(release.check(archive)), 'file')}, each with its SHA-256")


@dataclass(frozen=True)
class Command:
    """A subcommand: its help line, its arguments, and what it does."""

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


RUNS = Path("runs", "zoo")
_EVERY = {"action": "append", "help": "may be repeated; default: all"}


def _zoo_arguments(parser: argparse.ArgumentParser) -> None:
    _add(parser.add_subparsers(dest="action", required=True, metavar="ACTION"), ZOO)


def _zoo(options: argparse.Namespace) -> None:
    ZOO[options.action].run(options)


def _runs_arguments(parser: argparse.ArgumentParser, out: Path) -> None:
    """Add what the commands that train many networks have in common."""
    parser.add_argument("--seed", dest="seeds", metavar="SEED", type=_whole, **_EVERY)
    _jobs_arguments(parser, out)


def _jobs_arguments(parser: argparse.ArgumentParser, out: Path) -> None:
    parser.add_argument("--jobs", type=_whole, default=1, help="runs at a time; default: 1")
    parser.add_argument("--out", type=Path, default=out, help=f"default: {out}")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", dest="families", metavar="FAMILY", **_EVERY)
    parser.add_argument("--padding", "--scheme", dest="paddings", metavar="PADDING", **_EVERY)
    _runs_arguments(parser, RUNS)
    parser.add_argument(
        "--threads",
        type=_whole,
        default=1,
        help="of each run; the shipped weights come from 1, the default",
    )


def _train(options: argparse.Namespace) -> None:
    from studies.dynamics import design as zoo

    wanted = zoo.runs(options.families, options.paddings, options.seeds)
    try:
        zoo.train_zoo(wanted, options.out, jobs=options.jobs, threads=options.threads)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "unfinished runs continue when the command is given again"
        ) from None
    where = "" if options.out == RUNS else f" --runs {shlex.quote(str(options.out))}"
    print(f"{_count(wanted, 'run')} in {options.out}; to ship them: ppp zoo collect{where}")


def _collect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, default=RUNS, help=f"default: {RUNS}")
    parser.add_argument("--data", type=Path, help="default: the shipped data")
    parser.add_argument(
        "--replace", action="store_true", help="also replace networks of the same name"
    )


def _collect(options: argparse.Namespace) -> None:
    from studies.dynamics import design as zoo

    data = options.data or zoo.DATA
    added = zoo.collect(options.runs, data, replace=options.replace)
    where = f" --data {shlex.quote(str(options.data))}" if options.data else ""
    print(*added, sep="\n")
    print(f"{_count(added, 'run')} added to {data}; to check all: ppp zoo verify{where}")


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="default: the shipped data")
    parser.add_argument(
        "--accuracy",
        type=_whole,
        default=0,
        metavar="N",
        help="also compute each accuracy again, on N test windows",
    )


def _verify(options: argparse.Namespace) -> None:
    from studies.dynamics import design as zoo

    n_test = whole("--accuracy", options.accuracy, 0, 100_000)
    lines = zoo.verify(options.data or zoo.DATA, n_test=n_test)
    print(*lines, f"{_count(lines, 'network')} verified", sep="\n")


def _claims_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="such as C8; without, all")
    parser.add_argument("--data", type=Path, help="folder of the tables; default: the shipped ones")


def _claims(options: argparse.Namespace) -> None:
    from studies import ledger

    verdicts = ledger.judge(options.claims, options.data or ledger.DATA)
    shown = ["claim", "verdict", "says", "because"]
    rows = ledger.table(verdicts)[shown]
    _print_table([tuple(shown), *rows.itertuples(index=False)])
    ledger.require_expected(verdicts)


def _bhv_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--condition", dest="conditions", metavar="CONDITION", **_EVERY)
    parser.add_argument("--variant", dest="variants", metavar="VARIANT", **_EVERY)
    _study_arguments(parser, Path("runs", "bhv"))


def _bhv(options: argparse.Namespace) -> None:
    from studies.bhv import design as bhv_design

    wanted = bhv_design.runs(options.conditions, options.variants, options.seeds)
    _study(bhv_design, bhv_design.train_design, wanted, options)


def _posenet_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--part", dest="parts", metavar="PART", **_EVERY)
    parser.add_argument("--padding", "--scheme", dest="paddings", metavar="PADDING", **_EVERY)
    _study_arguments(parser, Path("runs", "posenet"))


def _posenet(options: argparse.Namespace) -> None:
    from studies.posenet import design as posenet_design

    wanted = posenet_design.runs(options.parts, options.paddings, options.seeds)
    _study(posenet_design, posenet_design.train_design, wanted, options)


def _patterns_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--family", dest="families", metavar="FAMILY", **_EVERY)
    parser.add_argument("--padding", "--scheme", dest="paddings", metavar="PADDING", **_EVERY)
    parser.add_argument("--state", dest="states", metavar="STATE", **_EVERY)
    _study_arguments(parser, Path("runs", "patterns"))


def _patterns(options: argparse.Namespace) -> None:
    from studies.patterns import design

    wanted = design.runs(options.families, options.paddings, options.states, options.seeds)
    _study(design, design.measure_design, wanted, options, done="measured")


def _survey_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="such as resnet18; without, all of torchvision"
    )
    _jobs_arguments(parser, Path("runs", "survey"))
    _data_argument(parser)


def _survey(options: argparse.Namespace) -> None:
    from studies.survey import design as survey

    _study(survey, survey.survey, survey.runs(options.models), options, done="examined")


def _study_arguments(parser: argparse.ArgumentParser, out: Path) -> None:
    _runs_arguments(parser, out)
    _data_argument(parser)


def _data_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="folder for the tables; default: OUT/tables")


def _study(
    design: ModuleType,
    perform: Callable[..., None],
    wanted: Sequence[object],
    options: argparse.Namespace,
    done: str = "trained",
) -> None:
    """Perform the runs of a study and make its tables."""
    tables = options.data or options.out / "tables"
    design.STUDY.check(tables, wanted)
    try:
        perform(wanted, options.out, jobs=options.jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"finished runs are kept; the others are {done} when the command is given again"
        ) from None
    design.collect(options.out, tables, wanted)
    print(f"{_count(wanted, 'run')} in {options.out}; their tables are in {tables}")


def _measure_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("network", help="of torchvision, a shipped one (plane-...), FILE.py:FACTORY, timm:NAME")
    add("--weights", default="random", help="a weights name, or a file; default: random")
    add("--layers", default="auto", help="auto, or a,b,c; default: auto")
    add("--schemes", default="own", help="a,b,c; own, the default: the network as it is")
    add("--photos", default="", metavar="FOLDER", help="default: those of scikit-image")
    add("--per-photo", type=_whole, default=64, metavar="N", help="windows of each; default: 64")
    add("--window", type=_whole, metavar="PX", help="side of the input; default: the network's")
    add("--mean", metavar="R,G,B", help="of the normalisation; default: the network's")
    add("--std", metavar="R,G,B", help="of the normalisation; default: the network's")
    add("--seed", type=_whole, default=0, help="of windows and random weights; default: 0")
    add("--device", default="cpu", help="cpu, the default, or cuda")
    add("--batch-size", type=_whole, default=8, metavar="N", help="windows a pass; default: 8")
    add("--memory", metavar="BYTES", help="bound of a pass over a whole photograph, such as 2G")
    _output_arguments(parser, "folder that is made; default: runs/measure-NAME-DIGEST")


def _measure(options: argparse.Namespace) -> None:
    from companion.measure.request import Request

    given = {name: getattr(options, name) for name in Request.__dataclass_fields__}
    request = Request.from_settings(given)  # refused before PyTorch is loaded
    from companion.measure import report, run as measure

    output = options.output or request.output()
    measured = measure.measure(request, output, force=options.force)
    _print_table(report.rows(measured.measurement))
    print(f"report    {output / 'report.html'}")


def _sweep_arguments(parser: argparse.ArgumentParser) -> None:
    _add(parser.add_subparsers(dest="action", required=True, metavar="ACTION"), SWEEP)


def _sweep(options: argparse.Namespace) -> None:
    SWEEP[options.action].run(options)


def _sweep_file_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", type=Path, help="a file, sweep.yaml: what runs, over which values")
    parser.add_argument("--output", type=Path, help="folder; default: runs/sweeps/NAME")


def _sweep_status(options: argparse.Namespace) -> Status:
    from companion.sweeps.spec import Sweep
    from companion.sweeps.state import OUT, Status

    sweep = Sweep.read(options.sweep)
    return Status(sweep, (options.output or OUT / sweep.name).absolute())


def _sweep_jobs_arguments(parser: argparse.ArgumentParser) -> None:
    _sweep_file_arguments(parser)
    parser.add_argument(
        "--jobs", type=_whole, metavar="N", help="runs at a time; default: one for each processor"
    )


def _sweep_jobs(options: argparse.Namespace, threads: int) -> int:
    from companion.sweeps import conduct

    jobs = conduct.default_jobs(threads) if options.jobs is None else options.jobs
    return whole("--jobs", jobs, 1)


def _sweep_plan(options: argparse.Namespace) -> None:
    from companion.sweeps import conduct

    status = _sweep_status(options)
    jobs = _sweep_jobs(options, status.sweep.limits.threads)
    print(*conduct.plan(status, jobs), sep="\n")


def _sweep_run_arguments(parser: argparse.ArgumentParser) -> None:
    _sweep_jobs_arguments(parser)
    parser.add_argument("--first", type=_whole, metavar="N", help="only N of what is to be done")
    parser.add_argument(
        "--cluster",
        default="",
        metavar="PROFILE",
        help="slurm, or a folder with a profile of Snakemake; without, this machine",
    )


def _sweep_run(options: argparse.Namespace) -> None:
    from companion.sweeps import conduct

    first = None if options.first is None else whole("--first", options.first, 1)
    if options.cluster:
        conduct.profile(options.cluster)
    status = _sweep_status(options)
    jobs = _sweep_jobs(options, status.sweep.limits.threads)
    try:
        after = conduct.run(status, jobs=jobs, first=first, cluster=options.cluster)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "finished runs are kept and in the table; the same command goes on"
        ) from None
    _sweep_told(after)


def _sweep_told(status: Status) -> None:
    """Say what there is, and fail if a run has."""
    failed = 0
    for run in status.sweep.runs:
        found = status.states[run.id]
        failed += found.state == "failed"
        if found.state in ("failed", "running"):
            print(f"{found.state:<9} {run}: {found.reason}")
    left = len(status.todo)
    done = len(status.sweep.runs) - left
    print(f"done      {done} of {_count(status.sweep.runs, 'run')}")
    print(f"table     {status.table}\nruns      {status.runs}")
    print(f"page      ppp run sweeps -p sweep {shlex.quote(str(status.folder))}")
    if failed:
        raise PPPError(
            f"{failed} of {_count(status.sweep.runs, 'run')} failed; the reasons are above"
        )


def _sweep_table_arguments(parser: argparse.ArgumentParser) -> None:
    _sweep_file_arguments(parser)
    parser.add_argument("--stale", action="store_true", help="take in runs that are out of date")


def _sweep_table(options: argparse.Namespace) -> None:
    status = _sweep_status(options)
    if not outputs.check_claim(status.folder, "ppp sweep"):
        raise PPPError(
            f"{status.folder}: no sweep has run there; first: ppp sweep run {options.sweep}"
        )
    status.gather(stale=options.stale)
    _sweep_told(status)


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", metavar="SET|LIST", help="urban100, or a file of lines URL [SHA256] [NAME]")
    add("--to", metavar="FOLDER", help="default, for a set: the cache, where its name is known")
    add("--jobs", type=_whole, default=4, metavar="N", help="files at a time; default: 4")


def _fetch(options: argparse.Namespace) -> None:
    from studies.pictures import datasets

    try:
        datasets.fetch(options.what, options.to, jobs=options.jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what has arrived is kept; the same command goes on") from None


def _whole(text: str) -> int | str:
    """Return a whole number, or the text for the library to refuse in its own words."""
    try:
        return int(text)
    except ValueError:
        return text


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


ZOO = {
    "train": Command(
        "train and measure networks; goes on where it was broken off", _train_arguments, _train
    ),
    "collect": Command("add finished runs to the shipped data", _collect_arguments, _collect),
    "verify": Command("check the shipped networks", _verify_arguments, _verify),
}
SWEEP = {
    "plan": Command(
        "say how many runs there are, and what they will take", _sweep_jobs_arguments, _sweep_plan
    ),
    "run": Command(
        "run what is missing or out of date, and gather the table", _sweep_run_arguments, _sweep_run
    ),
    "table": Command(
        "gather the table of what is finished, while others run",
        _sweep_table_arguments,
        _sweep_table,
    ),
}
COMMANDS = {
    "run": Command("run a notebook with your parameters", _run_arguments, _run),
    "params": Command("list the parameters of a notebook", _params_arguments, _params),
    "build": Command("build the book, or a variant of it", _build_arguments, _build),
    "why": Command("say why a page is out of date", _why_arguments, _why),
    "compare": Command(
        "put a run beside the published chapter, or beside another run",
        _compare_arguments,
        _compare,
    ),
    "pdf": Command("set the built book with LaTeX", _book_arguments, _pdf),
    "course": Command(
        "write the exercises for students and instructors", _course_arguments, _course
    ),
    "release": Command("pack the built book, with hashes", _release_arguments, _release),
    "claims": Command(
        "compute the verdict of every claim of the paper; fails if one is not as expected",
        _claims_arguments,
        _claims,
    ),
    "bhv": Command(
        "train the networks of the border-handling-variants study and make its tables; goes on "
        "where it was broken off",
        _bhv_arguments,
        _bhv,
    ),
    "posenet": Command(
        "train the read-outs of the PosENet study and make its tables; goes on where it was "
        "broken off",
        _posenet_arguments,
        _posenet,
    ),
    "measure": Command(
        "measure PPP of a network, your own too, and write a report; goes on where it was "
        "broken off",
        _measure_arguments,
        _measure,
    ),
    "fetch": Command(
        "fetch photographs: a set, or the addresses of a list; goes on where it was broken off",
        _fetch_arguments,
        _fetch,
    ),
    "patterns": Command(
        "measure PPP of every small network and make its tables; goes on where it was broken off",
        _patterns_arguments,
        _patterns,
    ),
    "survey": Command(
        "examine the networks of torchvision: which can be measured, where, and why not "
        "elsewhere; goes on where it was broken off",
        _survey_arguments,
        _survey,
    ),
    "sweep": Command(
        "run a notebook, or a measurement, over many values, here or on a cluster",
        _sweep_arguments,
        _sweep,
    ),
    "zoo": Command("train, collect or verify the small networks", _zoo_arguments, _zoo),
}


def _version() -> str:
    try:
        return version("ppp-companion")
    except PackageNotFoundError:
        return "(not installed)"


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the words of a command."""

    def error(self, message: str) -> NoReturn:
        raise ParameterError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ppp", description="Position information from padding.")
    parser.add_argument("--version", action="version", version=f"ppp {_version()}")
    _add(parser.add_subparsers(dest="command", required=True, metavar="COMMAND"), COMMANDS)
    return parser


def _add(subparsers, commands: dict[str, Command]) -> None:
    for name, command in commands.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        command.arguments(subparser)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    0: done; 1: a notebook's code failed; 2: the request, or a file, was at fault; 70: a fault of
    this program; 128 and the signal's number: stopped. All but 0 are explained by one line on
    the standard error.
    """
    with processes.answering() as answer:
        try:
            return _main(arguments)
        except SystemExit:
            raise
        except BaseException as error:
            # A library may have made something else of the interrupt.
            if answer.number or isinstance(error, KeyboardInterrupt):
                words = error.args[:1] if isinstance(error, KeyboardInterrupt) else ()
                _say("interrupted" if answer.number in (0, signal.SIGINT) else "stopped", *words)
                return 128 + (answer.number or signal.SIGINT)
            _say(_ours(error))
            return 70


def _main(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
        for name, value in vars(options).items():
            if isinstance(value, Path):
                setattr(options, name, documents.as_path(value, name))
        COMMANDS[options.command].run(options)
        if sys.stdout:
            sys.stdout.flush()
    except notebooks.NotebookFailed as error:
        print(error, file=sys.stderr)
        return 1
    except PPPError as error:
        _say(str(error))
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}")
        return 2
    return 0


def _say(*words: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening
        print("ppp: " + "; ".join(words), file=sys.stderr, flush=True)


def _ours(error: BaseException) -> str:
    """Keep the traceback of what nobody foresaw in a file, and say where."""
    import tempfile
    import traceback

    line = f"{type(error).__name__}: {first_words(error)}"
    try:
        handle, path = tempfile.mkstemp(prefix="ppp-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(shlex.join(["ppp", *sys.argv[1:]]) + "\n")
            traceback.print_exception(error, file=file)
    except OSError:
        return f"{line}: this is a fault of ppp; please report it"
    return f"{line}: this is a fault of ppp; please report it, with {path}"
