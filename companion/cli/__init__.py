"""The command line, ``ppp``: its commands, and the one line that becomes of an error."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Sequence

import click
from click.exceptions import Exit, NoSuchCommand, NoSuchOption

from companion import processes
from ppp.errors import PPPError, first_words, unknown

COMMANDS = {
    "notebooks": ("run", "params"),
    "book": ("build", "why", "compare", "pdf", "course", "release"),
    "measure": ("measure", "tiles"),
    "data": ("claims", "fetch"),
    "sweep": ("sweep",),
    "study": ("study", "bhv", "posenet", "patterns", "survey", "zoo"),
}
"""Module beside this one -> the commands in it; it is loaded when one of them is asked for."""


class _Program(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in COMMANDS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, names in COMMANDS.items():
            if cmd_name in names:
                return getattr(importlib.import_module(f"{__name__}.{module}"), cmd_name)
        return None


def _print_version(context: click.Context, option: click.Parameter, asked: bool) -> None:
    from importlib import metadata

    if asked:
        try:
            print("ppp", metadata.version("ppp-companion"))
        except metadata.PackageNotFoundError:
            print("ppp (not installed)")
        context.exit()


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
VERSION = {"is_flag": True, "is_eager": True, "expose_value": False, "callback": _print_version}


@click.group("ppp", cls=_Program, context_settings=HELP, no_args_is_help=False)
@click.option("--version", help="Show the version and exit.", **VERSION)
def program() -> None:
    """Position information from padding."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done; 1: a notebook's code failed; 2: the request, or a file, was at fault; 70: a fault of
    this program; 128 and the signal's number: stopped. All but 0 are explained by one line on
    the standard error.
    """
    with processes.answering() as answer:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        except SystemExit:
            raise
        except BaseException as error:
            # A library may have made something else of the interrupt.
            if answer.number or isinstance(error, KeyboardInterrupt):
                words = error.args[:1] if isinstance(error, KeyboardInterrupt) else ()
                _say("interrupted" if answer.number in (0, signal.SIGINT) else "stopped", *words)
                return 128 + (answer.number or signal.SIGINT)
            _say(_fault(error))
            return 70


def _run(arguments: Sequence[str]) -> int:
    try:
        with program.make_context("ppp", list(arguments)) as context:
            program.invoke(context)
        if sys.stdout:
            sys.stdout.flush()
    except Exit as end:  # after --help
        return end.exit_code
    except (click.UsageError, PPPError) as error:
        _say(_usage(error) if isinstance(error, click.UsageError) else str(error))
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}")
        return 2
    except RuntimeError as error:
        from companion.notebooks import NotebookFailed

        if not isinstance(error, NotebookFailed):
            raise
        print(error, file=sys.stderr)
        return 1
    return 0


def _usage(error: click.UsageError) -> str:
    """Say what is wrong with the words of a command, and what was expected."""
    context = error.ctx
    match error:
        case NoSuchCommand():
            text = unknown("command", error.command_name, context.command.list_commands(context))
        case NoSuchOption():
            names = [name for one in context.command.get_params(context) for name in one.opts]
            options = [name for name in names if name.startswith("-")]
            text = unknown("option", error.option_name, options)
        case _:
            text = first_words(ValueError(error.format_message())).rstrip(".")
    return f"{text}; see {context.command_path} --help" if context else text


def _say(*words: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be listening
        print("ppp: " + "; ".join(words), file=sys.stderr, flush=True)


def _fault(error: BaseException) -> str:
    """Keep the traceback of what nobody foresaw in a file, and say where."""
    import tempfile
    import traceback

    line = f"{type(error).__name__}: {first_words(error)}: this is a fault of ppp; please report it"
    try:
        handle, path = tempfile.mkstemp(prefix="ppp-fault-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(shlex.join(["ppp", *sys.argv[1:]]) + "\n")
            traceback.print_exception(error, file=file)
    except OSError:
        return line
    return f"{line}, with {path}"
