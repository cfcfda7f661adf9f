"""How a command ends: by a signal, with its children, and they with it.

A command answers INT, TERM and HUP by :class:`Stopped`, an interrupt. Whatever it is doing, it
and all its descendants are gone within :data:`GRACE` seconds. A descendant that outlives a command
that was killed ends itself: :func:`end_with_command`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

GRACE = 4.0
"""Seconds that a stopped command has to put things in order."""

COMMAND = "PPP_COMMAND"
"""In the environment of descendants: host, process and time of birth of their command."""

_LOOK = 0.3
"""Seconds between two looks at whether a command is still there."""


class Stopped(KeyboardInterrupt):
    """Somebody wants this command to end: by Ctrl-C, by ``kill``, or by closing the terminal."""


class Answer:
    """Which signal a command has been sent, and how long it may take to end.

    Attributes
    ----------
    number : int
        0 as long as there was none.
    grace : float
        Seconds; a command that has jobs to cancel elsewhere gives itself more.
    """

    def __init__(self) -> None:
        self.number, self.grace, self.over = 0, GRACE, threading.Event()


_answers = [Answer()]


@contextlib.contextmanager
def answering() -> Iterator[Answer]:
    """Raise :class:`Stopped` at the first INT, TERM or HUP, and end this process if that fails.

    A signal that the parent ignores, as ``nohup`` does, stays ignored. The program may be deep
    in a library that lets no Python code run: another thread sees to it that it ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Answer()
        return
    named = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    numbers = [one for one in named if one and signal.getsignal(one) is not signal.SIG_IGN]
    answer = Answer()

    def stop(number: int, frame: object) -> None:
        if not answer.number:
            answer.number = number
            raise Stopped

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = {number: signal.signal(number, stop) for number in numbers}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watch = threading.Thread(target=_insist, args=(reading, answer, numbers), daemon=True)
    watch.start()
    _answers.append(answer)
    try:
        yield answer
    finally:
        _answers.remove(answer)
        answer.over.set()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        watch.join(1)


def _insist(reading: int, answer: Answer, numbers: Sequence[int]) -> None:
    """End this process and its children some time after a signal, unless it ends by itself."""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while (byte := pipe.read(1)) and byte[0] not in numbers:
            pass
    begun = time.monotonic()
    while byte and not answer.over.wait(0.2):
        if time.monotonic() > begun + answer.grace:
            end_children(wait=0)
            os.write(2, b"ppp: stopped\n")
            os._exit(128 + byte[0])


def be_patient(seconds: float) -> None:
    """Give the command that runs more time to end after a signal."""
    _answers[-1].grace = seconds


# ---------------------------------------------------------------------------- children


def environment() -> dict[str, str]:
    """Return what a child finds in its environment: its command, and the locks it inherits."""
    import psutil

    from studies.storage import outputs

    born = psutil.Process().create_time()
    own = f"{socket.gethostname()} {os.getpid()} {born!r}"
    command = os.environ.get(COMMAND, own)  # a descendant passes on the command's
    return outputs.environment() | {COMMAND: command}


def start(command: Sequence[str], env: Mapping[str, str] | None = None, **options: Any):
    """Start a child that holds our locks, whose interrupts are ours to give; return its Popen.

    Parameters
    ----------
    command : sequence of str
    env : mapping of str to str, optional
        On top of the environment.
    **options
        Of :class:`subprocess.Popen`.
    """
    import subprocess

    from studies.storage import outputs

    main = threading.current_thread() is threading.main_thread()
    ignoring = main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignoring:  # the child would inherit it, and never heed an interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command,
            env={**os.environ, **(env or {}), **environment()},
            pass_fds=outputs.descriptors(),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            **options,
        )
    finally:
        if ignoring:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def run(command: Sequence[str], env: Mapping[str, str] | None = None, **options: Any) -> int:
    """Run a child to its end and return its exit code; whatever ends us, ends it.

    Examples
    --------
    >>> import sys
    >>> run([sys.executable, "-c", "raise SystemExit(3)"])
    3
    """
    process = start(command, env, **options)
    try:
        return process.wait()
    except BaseException:
        end_children(of=process.pid)
        raise


def end_children(wait: float = 1.5, of: int | None = None) -> None:
    """End every descendant of this process: politely, and after `wait` seconds for good.

    Parameters
    ----------
    wait : float
    of : int, optional
        Only this child and its descendants.
    """
    import psutil

    def family() -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            head = psutil.Process(of)
            return [head, *head.children(recursive=True)][not of :]
        return []

    members = family()
    for one in members if wait else ():
        with contextlib.suppress(psutil.Error):
            one.terminate()
    psutil.wait_procs(members, wait)
    for _ in range(20):  # a family may have grown meanwhile
        members = [one for one in {*members, *family()} if _lives(one)]
        if not members:
            return
        for one in members:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(members, 0.2)


def _lives(process: psutil.Process) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end_with_command(end: Callable[[], object] | None = None) -> None:
    """See to it, in a thread, that this process ends when its command is gone.

    Parameters
    ----------
    end : callable, optional
        What ends it; by default it and its descendants are killed.
    """
    host, _, about = os.environ.get(COMMAND, "").partition(" ")
    if host == socket.gethostname():  # else nobody's descendant, or a cluster's
        number, _, born = about.partition(" ")
        end_with(int(number), end, float(born))


def end_with(
    number: int, end: Callable[[], object] | None = None, born: float | None = None
) -> None:
    """See to it, in a thread, that this process ends when another one is gone.

    Parameters
    ----------
    number : int
        Of that process.
    end : callable, optional
        What ends this one; by default it and its descendants are killed.
    born : float, optional
        When that process began, should another have got its number meanwhile.
    """
    threading.Thread(target=_follow, args=(number, end, born), daemon=True).start()


def _follow(number: int, end: Callable[[], object] | None, born: float | None) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(number)
        while born in (None, process.create_time()) and _lives(process):
            time.sleep(_LOOK)
    if end:
        end()
    else:
        end_children(wait=1)
        os._exit(128 + signal.SIGTERM)
