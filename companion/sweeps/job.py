"""One run of a sweep: ``python -m companion.sweeps.job FOLDER ID``, as Snakemake starts it.

This process watches; a second one, which it starts, does the work. So a run that takes too much
memory or time, or is killed, still leaves a line that says so, and never half a result.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from companion import notebooks, processes
from companion.notebooks import staleness
from companion.quantities import show_bytes, show_seconds
from companion.sweeps import spec, state
from ppp import files
from ppp.errors import PPPError, first_words
from studies.pictures import datasets
from studies.storage import documents, outputs

LOOK = 0.2
"""Seconds between two looks at the time and memory of a run."""

LONGEST = 400
"""Characters of a reason that are kept; the log has all."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux

Record = dict[str, Any]
"""What is noted of a run: with a ``kind`` and a ``reason`` if it failed."""


def watch(folder: Path, id: str) -> int:
    """Perform a run, and note how it ended; return the exit code."""
    processes.end_with_command(lambda: os.kill(os.getpid(), signal.SIGTERM))
    os.environ.pop(processes.COMMAND, None)  # what this process starts ends with this one
    with processes.answering() as answer, contextlib.ExitStack() as stack:
        if not _hold(stack, [folder / "locks" / id]):
            print(f"run {id}: another process performs it", file=sys.stderr)
            return 1
        begun, started = time.monotonic(), folder / "started" / f"{id}.json"
        record: Record = {"host": socket.gethostname()}
        try:
            staleness.store(started, state.this_process())
            wanted = load_wanted(folder, id)
            limits = spec.Limits(**wanted["limits"])
            record |= {"threads": limits.threads, "device": _gpu(stack) if limits.gpu else "cpu"}
            record |= _perform(folder, id, limits, record["device"])
            if "kind" not in record:
                record["key"] = _key(wanted)
        except processes.Stopped:
            reason = f"stopped by {_name(answer.number)}: cancelled, or over a limit of the cluster"
            record |= {"kind": "stopped", "reason": reason}
        except Exception as error:
            record |= {"kind": "failed", "reason": _words(error)}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # only the note is left to write
        record.setdefault("seconds", round(time.monotonic() - begun, 3))
        try:
            _finish(folder, id, record)
        finally:
            started.unlink(missing_ok=True)
        return 1 if "kind" in record else 0


def load_wanted(folder: Path, id: str) -> dict[str, Any]:
    """Read what is wanted of a run."""
    paths = folder / "wanted.json", folder / "wanted" / f"{id}.json"
    common, own = (documents.read_json(path) for path in paths)
    return common | own | {"target": spec.target_of(Path(common["source"]), common["profile"])}


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _words(error: BaseException) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, notebooks.NotebookFailed):
        return first_words(PPPError(error.reason), LONGEST)
    kind = "" if isinstance(error, PPPError) else f"{type(error).__name__}: "
    return first_words(PPPError(f"{kind}{error}"), LONGEST)


def _key(wanted: dict[str, Any]) -> staleness.Key:
    """Return what a finished run depends on, unless something of it was changed meanwhile."""
    target = wanted["target"]
    if spec.given(wanted["settings"]) != wanted["given"]:
        raise PPPError("a file among its parameters changed; give 'ppp sweep run' again")
    edited = state.tree_state(notebooks.ROOT, target) != wanted["tree"]  # perhaps a comment alone
    if edited and target.ingredients(staleness.Library(notebooks.ROOT)) != wanted["ingredients"]:
        raise PPPError("its sources changed while the sweep ran; give 'ppp sweep run' again")
    return state.key(target, wanted["ingredients"], wanted["settings"], wanted["given"])


# ---- limits


def _perform(folder: Path, id: str, limits: spec.Limits, device: str) -> Record:
    """Start the process that works, within the limits; return what it noted."""
    work, log = folder / "work" / id, folder / "logs" / f"{id}.log"
    for path in work.glob("*"):  # of an earlier try only what a measurement can go on from is left
        if not path.name.endswith(".partial"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    work.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(exist_ok=True)
    gpu = device.removeprefix("cpu").removeprefix("cuda:")
    variables = {"CUDA_VISIBLE_DEVICES": gpu, "PPP_OFFLINE": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "companion.sweeps.job", "--work", str(folder), id]
    with log.open("wb") as out:
        options = {"stdout": out, "stderr": out, "cwd": notebooks.ROOT, "env": variables}
        code, record = within(limits, command, **options)
    if "kind" in record:
        return record
    noted = staleness.load(work / "run.json")
    return record | (noted or {"kind": "failed", "reason": f"its process ended with code {code}"})


def within(limits: spec.Limits, command: Sequence[str], **options: Any) -> tuple[int, Record]:
    """Run a command, and end it with all that it left behind, at the latest over a limit.

    Parameters
    ----------
    limits : Limits
    command : sequence of str
    **options
        Of :func:`companion.processes.start`.

    Returns
    -------
    code : int
        Negative: the signal that killed it.
    record : dict
        seconds; memory, the largest (bytes); kind and reason, if it was ended or killed.
    """
    with contextlib.suppress(OSError, AttributeError):  # be the parent of what it leaves behind
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    begun, record = time.monotonic(), {"seconds": 0.0, "memory": 0}
    process = processes.start(command, **options)
    try:
        while process.poll() is None and "kind" not in record:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
            used, took = memory(), time.monotonic() - begun
            record |= {"memory": max(record["memory"], used), "seconds": round(took, 3)}
            if limits.memory and used > limits.memory:
                amounts = f"{show_bytes(used)} of memory; allowed {show_bytes(limits.memory)}"
                record |= {"kind": "memory", "reason": f"used {amounts}: raise limits, memory"}
            elif limits.time and took > limits.time and process.returncode is None:
                reason = f"took more than {show_seconds(limits.time)}; raise limits, time"
                record |= {"kind": "time", "reason": reason}
    finally:
        processes.end_children(wait=0)
    if (code := process.returncode or 0) < 0 and "kind" not in record:
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        reason = f"its process was killed by {_name(-code)}{hint}"
        record |= {"kind": "killed", "reason": reason}
    return code, record


def memory() -> int:
    """Return the resident memory of everything that this process started, bytes.

    Pages that several processes share count in each.
    """
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_info().rss
    return total


def _finish(folder: Path, id: str, record: Record) -> None:
    """Put the results in their place, whole, or note why there are none."""
    work, failed = folder / "work" / id, folder / "failed" / f"{id}.json"
    if "kind" in record:
        staleness.store(failed, record)
        return
    for left in work.glob("*.partial"):
        shutil.rmtree(left)
    record["disk"] = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    staleness.store(work / "run.json", record)
    outputs.replace(work, folder / "runs" / id)
    failed.unlink(missing_ok=True)


# ---- where it runs


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name not in ("", "-1", "NoDevFiles")]
    try:
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def _gpu(stack: contextlib.ExitStack) -> str:
    """Hold one GPU that no other run of this machine holds; the processor, if there is none."""
    known = gpus()
    if not known:
        return "cpu"
    if "SLURM_JOB_ID" in os.environ:  # Slurm has given this run its own
        return f"cuda:{known[0]}"
    folder = datasets.cache() / "gpus"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # no other user may write there
    while not (lock := _hold(stack, [folder / name for name in known])):
        time.sleep(LOOK)
    return f"cuda:{lock.name}"


def _hold(stack: contextlib.ExitStack, locks: Sequence[Path]) -> Path | None:
    """Hold the first lock that no other process holds, for as long as `stack` lives."""
    for path in locks:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(outputs.InUse):
            stack.enter_context(outputs.held(path, "ppp sweep"))
            return path
    return None


# ---- the process that works


def work(folder: Path, id: str) -> int:
    """Do the work of a run in its folder below ``work``, and note there what came of it."""
    processes.end_with_command()
    wanted = load_wanted(folder, id)
    place, name = folder / "work" / id, wanted["table"]
    results = place / "results"
    device = "cuda" if os.environ["CUDA_VISIBLE_DEVICES"] else "cpu"
    try:
        target = wanted["target"]
        modules = target.perform(wanted["settings"], place, device)
        paths = [*sorted(results.glob("*.csv")), results / spec.NUMBERS]
        tables = {path.name: files.sha256(path) for path in paths if path.is_file()}
        if name not in tables:
            raise PPPError(f"it wrote no {name}; it wrote {', '.join(tables) or 'no table'}")
        state.read_rows(results / name)
        end = {"tables": tables, "modules": modules}
    except BaseException as error:
        traceback.print_exc()
        kind = "refused" if isinstance(error, PPPError) else "failed"
        end = {"kind": kind, "reason": _words(error)}
    staleness.store(place / "run.json", end)
    return 1 if "kind" in end else 0


if __name__ == "__main__":
    act = work if sys.argv[1] == "--work" else watch
    sys.exit(act(Path(sys.argv[-2]), sys.argv[-1]))
