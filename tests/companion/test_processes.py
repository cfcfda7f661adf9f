"""How a command ends: on a signal, in library code, with its children, and they with it."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

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


@pytest.fixture
def waiting():
    """Return a function that starts a command with one child, and returns both."""
    started = []

    def start(child=SLEEP, waiting="time.sleep(60)", before=""):
        script = before + COMMAND.format(child=child, waiting=waiting)
        command = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        family = [command, psutil.Process(int(command.stdout.readline()))]
        started.extend(family)
        return family

    yield start
    for one in started:
        if is_running(one):
            one.kill()
    for one in started:
        one.wait()


def is_running(process):
    if isinstance(process, subprocess.Popen):
        return process.poll() is None
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def assert_ends(process, seconds=5):
    deadline = time.monotonic() + seconds
    while is_running(process):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "says"),
    [("SIGINT", "interrupted"), ("SIGTERM", "stopped"), ("SIGHUP", "stopped")],
)
def test_a_signal_is_answered_in_one_line_and_ends_the_child(waiting, number, says):
    command, child = waiting()
    command.send_signal(getattr(signal, number))
    assert_ends(command)
    assert command.returncode == 128 + getattr(signal, number)
    assert command.stderr.read() == f"ppp: {says}\n"
    assert_ends(child, 1)


@pytest.mark.parametrize(
    ("child", "busy"), [(STUBBORN, "time.sleep(60)"), pytest.param(SLEEP, BUSY, id="busy")]
)
def test_nothing_outlives_the_grace(waiting, child, busy):
    """Neither a child that ignores a signal, nor library code that no signal interrupts."""
    command, child = waiting(child, busy)
    time.sleep(0.3)
    command.send_signal(signal.SIGTERM)
    assert_ends(command, 7)
    assert command.returncode == 143 and command.stderr.read() == "ppp: stopped\n"
    assert_ends(child, 1)


def test_a_child_ends_with_a_command_that_is_killed(waiting):
    command, child = waiting(FOLLOWER)
    time.sleep(1)
    command.kill()
    assert_ends(child)


def test_an_interrupt_that_the_parent_ignores_is_ignored(waiting):
    """As in the background of a script; a child of the command still heeds it."""
    command, child = waiting(before=IGNORING)
    command.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert is_running(command) and is_running(child)
    child.send_signal(signal.SIGINT)
    assert_ends(child)
    command.send_signal(signal.SIGTERM)
    assert_ends(command)
    assert command.returncode == 143


def test_an_exit_code_is_passed_on_without_a_signal(waiting):
    command, child = waiting(waiting="child.wait()")
    child.kill()
    command.wait(10)
    assert command.returncode == 0 and command.stderr.read() == ""


def test_the_wheel_without_the_tooling_names_the_readme(tmp_path):
    """The library alone has no command; it says where that is."""
    import shutil

    from studies.paths import ROOT

    shutil.copytree(ROOT / "ppp", tmp_path / "ppp", ignore=shutil.ignore_patterns("__pycache__"))
    script = "import runpy; runpy.run_module('ppp', run_name='__main__')"
    done = subprocess.run(  # -S: no installed package, so no checkout either
        [sys.executable, "-S", "-c", script], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("ppp: ") and done.stderr.count("\n") == 1
    assert "README" in done.stderr
