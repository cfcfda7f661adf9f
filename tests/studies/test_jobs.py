import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from ppp.errors import ParameterError, PPPError
from studies import jobs
from studies.jobs import KilledError, run


def until(true, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Tasks, which a process of its own imports from here.


def work(task: str, folder: Path):
    """Do what the task says: say who does it, fail, wait for a file, or be killed."""
    (folder / f"begun-{task}").write_text(str(os.getpid()))
    if task.startswith("fail"):
        raise KeyError(task)
    if task.startswith("wait"):
        until((folder / "go").exists)
    if task.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    return task.upper(), os.getpid(), torch.get_num_threads()


# ------------------------------------------------------------------------------ in this one


def test_one_process_runs_the_tasks_in_order_and_only_when_asked(tmp_path):
    found = run(partial(work, folder=tmp_path), ["b", "a", "c"])
    assert not list(tmp_path.iterdir())
    task, result = next(found)
    assert task == "b" and result()[:2] == ("B", os.getpid())
    assert [path.name for path in tmp_path.iterdir()] == ["begun-b"]
    assert [(task, result()[0]) for task, result in found] == [("a", "A"), ("c", "C")]
    assert list(run(work, [])) == list(run(work, [], jobs=2)) == []


def test_one_process_has_the_threads_while_it_works_and_its_own_otherwise(tmp_path):
    before = torch.get_num_threads()
    other = before + 1
    seen = []
    for _, result in run(partial(work, folder=tmp_path), ["a", "fail"], threads=other):
        seen.append((result, torch.get_num_threads()))
    # a result that is asked for afterwards is still that of the threads that were wanted
    assert seen[0][0]()[2] == other and [mine for _, mine in seen] == [before, before]
    assert torch.get_num_threads() == before

    def stop(task):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(run(stop, [1], threads=other))
    assert torch.get_num_threads() == before


def test_one_process_goes_on_after_a_task_that_raised(tmp_path):
    results = dict(run(partial(work, folder=tmp_path), ["fail", "a"]))
    with pytest.raises(KeyError, match="fail"):
        results["fail"]()
    assert results["a"]()[0] == "A"


# ------------------------------------------------------------------------------ in several


def test_results_come_as_they_finish_and_a_failure_stops_no_other_task(tmp_path):
    mine, found = set(active_children()), []
    for task, result in run(
        partial(work, folder=tmp_path), ["wait", "fail", "a", "b"], jobs=2, threads=3
    ):
        found.append(task)
        if task == "fail":
            with pytest.raises(KeyError, match="fail"):
                result()
        else:
            text, process, threads = result()
            assert text == task.upper() and process != os.getpid() and threads == 3
        if task == "b":  # the last of the others, while the first waits
            (tmp_path / "go").touch()
    assert found == ["fail", "a", "b", "wait"]
    assert set(active_children()) == mine


def test_leaving_the_loop_ends_its_processes_and_begins_no_other_task(tmp_path):
    mine = set(active_children())
    tasks = ["a", "wait-1", "wait-2", "wait-3", "wait-4", "wait-5"]
    for task, _ in run(partial(work, folder=tmp_path), tasks, jobs=2):
        assert task == "a"
        until(lambda: len(list(tmp_path.glob("begun-wait-[12]"))) == 2)
        left = time.monotonic()
        break
    assert time.monotonic() - left < 60  # they would wait twice as long
    assert set(active_children()) == mine
    for path in tmp_path.glob("begun-*"):
        assert not alive(int(path.read_text()))
    assert not (tmp_path / "begun-wait-5").exists()


def test_a_killed_process_is_told_in_one_line(tmp_path):
    mine = set(active_children())
    with pytest.raises(KilledError, match="want of memory; give fewer jobs than 2") as caught:
        for _, result in run(partial(work, folder=tmp_path), ["wait", "killed"], jobs=2):
            result()
    # told at once, and not when the other task ends, which waits twice as long
    assert time.time() - (tmp_path / "begun-killed").stat().st_mtime < 60
    assert isinstance(caught.value, PPPError) and "\n" not in str(caught.value)
    assert set(active_children()) == mine


def test_a_process_killed_while_tasks_are_handed_out_is_told_too(monkeypatch):
    class Pool(jobs.ProcessPoolExecutor):
        def submit(self, *_):
            raise jobs.BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr(jobs, "ProcessPoolExecutor", Pool)
    with pytest.raises(KilledError, match="give fewer jobs than 2"):
        next(run(abs, [1], jobs=2))


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, {tests!r})
from studies.jobs import run
from test_jobs import work
if __name__ == "__main__":
    folder = Path({folder!r})
    for task, result in run(partial(work, folder=folder), ["wait", "a"], jobs=2):
        result()
        (folder / "done").touch()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGKILL", marks=pytest.mark.nightly)])
def test_an_interrupted_or_killed_program_leaves_no_process_behind(tmp_path, name):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    begun = [tmp_path / "begun-wait", tmp_path / "begun-a"]  # of one at work, and one without
    with subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            until(lambda: process.poll() is not None or (tmp_path / "done").exists())
            assert process.poll() is None
            sent = time.monotonic()
            # a terminal interrupts all processes of a program; a killer takes one
            (os.killpg if name == "SIGINT" else os.kill)(process.pid, signal.Signals[name])
            _, said = process.communicate(timeout=60)
            until(lambda: not any(alive(int(path.read_text())) for path in begun), 60)
            assert time.monotonic() - sent < 100  # they would wait longer
        finally:
            if any(alive(int(path.read_text())) for path in begun if path.exists()):
                os.killpg(process.pid, signal.SIGKILL)
    if name == "SIGINT":
        assert said.rstrip().endswith("KeyboardInterrupt") and said.count("Traceback") == 1


# -------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", ["jobs", "threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, None])
def test_wrong_numbers_are_refused_at_once(name, value):
    with pytest.raises(ParameterError, match=f"{name} = ") as caught:
        run(abs, [1], **{name: value})
    assert repr(value) in str(caught.value) and "\n" not in str(caught.value)
