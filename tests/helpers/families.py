"""Processes that tests start, and all that descend from them."""

import contextlib
import time

import psutil


def family(process):
    """Return a process and its descendants; none if it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        head = psutil.Process(process.pid)
        return [head, *head.children(recursive=True)]
    return []


def living(processes):
    """Return those that still run."""
    alive = []
    for one in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(one.pid)
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(one)
    return alive


def assert_gone(processes, seconds=5):
    """Give them some time to end."""
    deadline = time.monotonic() + seconds
    while living(processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert living(processes) == []


@contextlib.contextmanager
def ended(process):
    """See to it that nothing is left of a process and what it started."""
    members = family(process)
    try:
        yield process
    finally:
        members += family(process)
        for one in living(members):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()
