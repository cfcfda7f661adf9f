"""How a command ends: on a signal, in library code, with its children, and they with it."""

import contextlib
import signal
import subprocess
import sys
import time

import psutil
import pytest
from families import assert_gone, ended, living

COMMAND = """\
import sys, time
import click
from companion import cli, processes
from companion.__main__ import run

@click.command()
def wait():
    child = processes.start([sys.executable, "-c", {child!r}])
    print(child.pid, flush=True)
    {waiting}

cli.program.get_command = lambda context, name: wait
sys.argv = ["ppp", "wait"]
sys.exit(run())
"""
SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
FOLLOWER = f"from companion.processes import end_with_command; end_with_command(); {SLEEP}"
IGNORING = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
"""Runs no Python code for a long time, so that no handler of a signal is called."""


def begun(script):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", script], **pipes)


@pytest.fixture
def waiting():
    """Return a function that starts a command with one child, and returns both."""
    with contextlib.ExitStack() as stack:

        def start(child=SLEEP, waiting="time.sleep(60)", before=""):
            command = begun(before + COMMAND.format(child=child, waiting=waiting))
            stack.enter_context(ended(command))
            return command, psutil.Process(int(command.stdout.readline()))

        yield start


LOADING = """\
import sys, time

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "companion.cli":
            print("loading", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Finder)
from ppp.__main__ import run
sys.exit(run())
"""


def test_a_signal_is_answered_while_the_command_line_is_loaded():
    with ended(begun(LOADING)) as command:
        assert command.stdout.readline() == "loading\n"
        command.send_signal(signal.SIGINT)
        assert command.wait(5) == 130 and command.stderr.read() == "ppp: interrupted\n"


@pytest.mark.parametrize(
    ("number", "says"),
    [("SIGINT", "interrupted"), ("SIGTERM", "stopped"), ("SIGHUP", "stopped")],
)
def test_a_signal_is_answered_in_one_line_and_ends_the_child(waiting, number, says):
    command, child = waiting()
    command.send_signal(getattr(signal, number))
    assert_gone([command])
    assert command.wait(1) == 128 + getattr(signal, number)
    assert command.stderr.read() == f"ppp: {says}\n"
    assert_gone([child], 1)


@pytest.mark.parametrize(
    ("child", "busy"), [(STUBBORN, "time.sleep(60)"), pytest.param(SLEEP, BUSY, id="busy")]
)
def test_nothing_outlives_the_grace(waiting, child, busy):
    """Neither a child that ignores a signal, nor library code that no signal interrupts."""
    command, child = waiting(child, busy)
    time.sleep(0.3)
    command.send_signal(signal.SIGTERM)
    assert_gone([command], 7)
    assert command.wait(1) == 143 and command.stderr.read() == "ppp: stopped\n"
    assert_gone([child], 1)


def test_a_child_ends_with_a_command_that_is_killed(waiting):
    command, child = waiting(FOLLOWER)
    time.sleep(1)
    command.kill()
    assert_gone([child])


def test_an_interrupt_that_the_parent_ignores_is_ignored(waiting):
    """As in the background of a script; a child of the command still heeds it."""
    command, child = waiting(before=IGNORING)
    command.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert living([command, child]) == [command, child]
    child.send_signal(signal.SIGINT)
    assert_gone([child])
    command.send_signal(signal.SIGTERM)
    assert_gone([command])
    assert command.wait(1) == 143


def test_an_exit_code_is_passed_on_without_a_signal(waiting):
    command, child = waiting(waiting="child.wait()")
    child.kill()
    command.wait(10)
    assert command.wait(1) == 0 and command.stderr.read() == ""
