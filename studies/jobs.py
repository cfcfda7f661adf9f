"""Run independent tasks, several at a time, each in a process of its own."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from threading import Thread
from typing import Any

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor

from ppp.errors import PPPError
from studies.parameters import check_whole

# That tasks were broken off, or a process was replaced because it had grown, needs no warning;
# nor does what joblib clears away after a killed command.
warnings.filterwarnings("ignore", category=UserWarning, module=r"joblib\.")
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")


def run(
    function: Callable[[Any], Any], tasks: Sequence[Any], *, jobs: int = 1, threads: int = 1
) -> Iterator[tuple[Any, Any]]:
    """Call `function` on every task and give each result as soon as it is there.

    Whoever leaves the loop early, by an interrupt too, ends the tasks under way and begins no
    others; so does a task that raises.

    Parameters
    ----------
    function : callable
        Of a module, so that another process can import it.
    tasks : sequence
    jobs : int
        Tasks at the same time, at least 1; with 1 they run in this process, in their order.
    threads : int
        Of PyTorch in each, at least 1; this process has its own again after each task.

    Yields
    ------
    task
    result

    Raises
    ------
    ParameterError
        A number of jobs or threads that cannot be.
    PPPError
        A process was killed.

    Examples
    --------
    >>> list(run(abs, [-2, 3]))
    [(-2, 2), (3, 3)]
    """
    check_whole("jobs", jobs, 1)
    check_whole("threads", threads, 1)
    return _results(function, tasks, jobs, threads)


def _results(function, tasks, jobs: int, threads: int):
    calls = [delayed(_call)(function, threads, place, task) for place, task in enumerate(tasks)]
    start = {"initializer": _begin, "initargs": (os.getpid(),)}
    with parallel_config("loky", inner_max_num_threads=threads, **start):
        parallel = Parallel(jobs, return_as="generator_unordered", batch_size=1, max_nbytes=None)
    try:
        with closing(parallel(calls)) as results:
            for place, result in results:
                yield tasks[place], result
    except BrokenProcessPool:
        raise PPPError(
            f"a process was killed, perhaps for want of memory; give fewer jobs than {jobs}"
        ) from None
    finally:
        if jobs > 1:
            get_reusable_executor(reuse=True).shutdown(kill_workers=True)


def _call(function, threads: int, place: int, task):
    import torch  # not above: a process that is starting must soon be able to end with its parent

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return place, function(task)
    finally:
        torch.set_num_threads(before)


def _begin(parent: int) -> None:
    """Prepare a process: an interrupt is its parent's to handle, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.3)
    os._exit(1)
