import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from checks import refused

from ppp.errors import ParameterError
from studies.jobs import run
from studies.paths import ROOT


def until(true, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def workers() -> set[int]:
    """Return the processes at work for this one; joblib's own tracker goes on."""
    children = psutil.Process().children(recursive=True)
    return {one.pid for one in children if "LokyProcess" in " ".join(one.cmdline())}


# A task, which a process of its own imports from here.


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
    results = run(partial(work, folder=tmp_path), ["b", "a", "c"])
    assert not list(tmp_path.iterdir())
    task, result = next(results)
    assert task == "b" and result[:2] == ("B", os.getpid())
    assert [path.name for path in tmp_path.iterdir()] == ["begun-b"]
    assert [(task, result[0]) for task, result in results] == [("a", "A"), ("c", "C")]
    assert list(run(work, [])) == list(run(work, [], jobs=2)) == []


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_one_process_has_the_threads_while_it_works_and_its_own_otherwise(tmp_path, error):
    before = torch.get_num_threads()
    for _, result in run(partial(work, folder=tmp_path), ["a"], threads=before + 1):
        assert result[2] == before + 1 and torch.get_num_threads() == before

    def fail(task):
        raise error(task)

    with pytest.raises(error, match="c"):
        next(run(fail, ["c"], threads=before + 1))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["jobs", "threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, None])
def test_wrong_numbers_are_refused_at_once(name, value):
    message = refused(run, abs, [1], error=ParameterError, **{name: value})
    assert name in message and repr(value) in message


# ------------------------------------------------------------------------------ in several


@pytest.mark.slow
def test_results_come_as_they_finish_and_leaving_the_loop_ends_all(tmp_path):
    tasks, finished = ["wait-0", "a", "b", "wait-1", "wait-2", "wait-3", "wait-4"], []
    for task, (text, process, threads) in run(
        partial(work, folder=tmp_path), tasks, jobs=2, threads=3
    ):
        finished.append(task)
        assert text == task.upper() and process != os.getpid() and threads == 3
        if task == "b":
            until((tmp_path / "begun-wait-1").exists)
            left = time.monotonic()
            break
    assert finished == ["a", "b"]
    assert time.monotonic() - left < 60  # they would wait twice as long
    assert not workers() and not (tmp_path / "begun-wait-4").exists()


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Let new processes find a PyTorch that is loaded at once; none computes with it here."""
    folder = tmp_path / "stand-in"
    folder.mkdir()
    (folder / "torch.py").write_text("get_num_threads, set_num_threads = int, int\n")
    monkeypatch.syspath_prepend(folder)
    path = [str(folder), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


@pytest.mark.parametrize("end", ["fail", "killed"])
def test_a_failed_task_and_a_killed_process_end_the_others(tmp_path, quick, end):
    results = run(partial(work, folder=tmp_path), ["wait", end], jobs=2)
    if end == "fail":
        with pytest.raises(KeyError, match="fail"):
            next(results)
    else:
        assert "fewer jobs than 2" in refused(next, results)
    # told at once, and not when the other task ends, which waits twice as long
    assert time.time() - (tmp_path / f"begun-{end}").stat().st_mtime < 60
    assert not workers()


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
        (folder / "done").touch()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGKILL", marks=pytest.mark.nightly)])
def test_an_interrupted_or_killed_program_leaves_no_process_behind(tmp_path, quick, name):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    begun = [tmp_path / "begun-wait", tmp_path / "begun-a"]  # of one at work, and one without
    with subprocess.Popen(
        [sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            there = [tmp_path / "done", *begun]
            until(lambda: process.poll() is not None or all(path.exists() for path in there))
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
    assert "resource_tracker" not in said
    if name == "SIGINT":
        assert said.rstrip().endswith("KeyboardInterrupt") and said.count("Traceback") == 1
