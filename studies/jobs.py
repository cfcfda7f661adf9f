"""Run independent tasks, several at a time, each in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import TypeVar

import torch
from tqdm import tqdm

from ppp.errors import PPPError
from studies.parameters import check_whole

Task = TypeVar("Task")
Result = TypeVar("Result")


class KilledError(PPPError):
    """A process ended before its task did."""


def run(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    jobs: int = 1,
    threads: int = 1,
    progress: bool = False,
) -> Iterator[tuple[Task, Callable[[], Result]]]:
    """Call `function` on every task and give each result as soon as it is there.

    Whoever leaves the loop early, by an interrupt too, ends the tasks under way and begins no
    others.

    Parameters
    ----------
    function : callable
        Of a module, so that another process can import it.
    tasks : sequence
    jobs : int
        Processes, at least 1; with 1 the tasks run in this one, in their order.
    threads : int
        Of PyTorch in each, at least 1; this process has its own again after each task.
    progress : bool
        Show a bar.

    Yields
    ------
    task
    result : callable
        Returns the task's result, or raises what the task raised.

    Raises
    ------
    ParameterError
        A number of jobs or threads that cannot be.
    KilledError
        By ``result``: a process was killed. No task ends after that.

    Examples
    --------
    >>> [(task, result()) for task, result in run(abs, [-2, 3])]
    [(-2, 2), (3, 3)]
    """
    check_whole("jobs", jobs, 1)
    check_whole("threads", threads, 1)
    bar = partial(tqdm, desc="runs", total=len(tasks), unit="run", disable=not progress)
    if jobs == 1 or not tasks:
        return _here(function, tasks, threads, bar)
    return _elsewhere(function, tasks, jobs, threads, bar)


def run_all(
    function: Callable[[Task], str],
    tasks: Sequence[Task],
    name: Callable[[Task], str],
    *,
    jobs: int = 1,
    threads: int = 1,
    progress: bool = False,
) -> None:
    """Call `function` on every task and print the line that each returns.

    Parameters
    ----------
    function, tasks, jobs, threads, progress
        As for :func:`run`.
    name : callable
        Returns a task's name, for the message about its failure.

    Raises
    ------
    PPPError
        A task failed; the others went on. Or a process was killed.

    Examples
    --------
    >>> run_all(str, [1, 2], str)
    1
    2
    """
    failed = []
    for task, result in run(function, tasks, jobs=jobs, threads=threads, progress=progress):
        try:
            tqdm.write(result())
        except KilledError as error:
            raise PPPError(
                f"{error}; unfinished runs continue when the training is started again"
            ) from None
        except (PPPError, OSError) as error:
            failed.append(f"{name(task)}: {error}")
            tqdm.write(f"failed: {failed[-1]}")
    if failed:
        raise PPPError(f"{len(failed)} of {len(tasks)} runs failed; the first: {failed[0]}")


def _here(function, tasks, threads: int, bar):
    for task in bar(tasks):
        done, before = Future(), torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            done.set_result(function(task))
        except Exception as error:
            done.set_exception(error)
        finally:
            torch.set_num_threads(before)
        yield task, done.result


def _elsewhere(function, tasks, jobs: int, threads: int, bar):
    others = set(active_children())
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn"), _begin, (threads,))
    try:
        submitted = {pool.submit(function, task): task for task in tasks}
        # The pool's thread is woken before, not after, the last process is begun, and so may not
        # watch that one until something else wakes it.
        pool.submit(int)
        for done in bar(as_completed(submitted)):
            yield submitted.pop(done), partial(_result, done, jobs)
    except BaseException as error:  # GeneratorExit when the loop is left
        for process in set(active_children()) - others:
            process.terminate()
        if isinstance(error, BrokenProcessPool):  # before all tasks were submitted
            raise _killed(jobs) from None
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _result(done: Future, jobs: int):
    try:
        return done.result()
    except BrokenProcessPool:
        raise _killed(jobs) from None


def _killed(jobs: int) -> KilledError:
    return KilledError(
        f"a process was killed, perhaps for want of memory; give fewer jobs than {jobs}"
    )


def _begin(threads: int) -> None:
    """Prepare a process; an interrupt is its parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """End with a parent that is killed, and so cannot say so."""
    parent_process().join()
    os._exit(1)
