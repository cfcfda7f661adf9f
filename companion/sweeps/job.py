"""One run of a sweep: ``python -m companion.sweeps.job FOLDER ID``, as Snakemake starts it.

This process watches; a second one, which it starts, does the work. So a run that takes too much
memory or time, or is killed, still leaves a line that says so, and never half a result.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from companion import notebooks, processes
from companion.notebooks import staleness
from companion.quantities import show_bytes, show_seconds
from companion.sweeps import spec, state
from ppp import files
from ppp.errors import PPPError
from studies.pictures import datasets
from studies.storage import outputs

LOOK = 0.2
"""Seconds between two looks at the time and memory of a run."""

LONGEST = 400
"""Characters of a reason that are kept; the log has all."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux

REFUSED = 2
"""Exit code of the process that works: the run refused its parameters."""


@dataclass(frozen=True)
class End:
    """How a run ended: nothing in `kind` if well."""

    kind: str
    reason: str
    seconds: float
    memory: int


class Stopped(BaseException):
    """Somebody wants this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def watch(folder: state.Folder, id: str) -> int:
    """Perform a run, and note how it ended; return the exit code."""
    _on_signals(_stop)
    _adopt()
    processes.end_with_command(lambda: os.kill(os.getpid(), signal.SIGTERM))
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        if not _held(folder.path / "locks" / id, stack):
            print(f"run {id}: another process performs it", file=sys.stderr)
            return 1
        device, wanted = "", {}
        try:
            wanted = state.load_wanted(folder, id)
            limits = spec.Limits(**wanted["limits"])
            folder.log(id).parent.mkdir(parents=True, exist_ok=True)
            files.write(folder.started(id), json.dumps(_whereabouts()).encode())
            device = stack.enter_context(_gpu(limits.gpu))
            _check_sources(wanted)
            end = _perform(folder, id, limits, device)
            if not end.kind:
                _check_sources(wanted)
        except Stopped as stop:
            reason = f"stopped by {_name(stop.number)}: cancelled, or over a limit of the cluster"
            end = End("stopped", reason, 0, 0)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            end = End("failed", f"{where}{error.strerror or error}", 0, 0)
        except Exception as error:
            known = isinstance(error, PPPError)
            end = End("failed", str(error) if known else f"{type(error).__name__}: {error}", 0, 0)
        _on_signals(signal.SIG_IGN)  # it is over; only the note is left to write
        record = {
            "seconds": round(end.seconds or time.monotonic() - begun, 3),
            "memory": end.memory,
            "host": socket.gethostname(),
            "finished": _now(),
        }
        try:
            if not end.kind:
                how = {"device": device or "cpu", "threads": limits.threads}
                _finish(folder, id, record | how | {"key": wanted["key"]})
            else:
                record |= {"kind": end.kind, "reason": end.reason, "log": str(folder.log(id))}
                files.write(folder.failure(id), json.dumps(record).encode())
        except OSError as error:
            print(f"run {id}: {error.filename}: {error.strerror or error}", file=sys.stderr)
            return 1
        finally:
            folder.started(id).unlink(missing_ok=True)
        return 1 if end.kind else 0


def _whereabouts() -> dict[str, object]:
    born = psutil.Process().create_time()
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": born, "started": _now()}


def _adopt() -> None:
    """Become the parent of every process that a run leaves behind, so that it can be ended."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _on_signals(action: Callable | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, action)


def _stop(number: int, frame: object) -> None:
    raise Stopped(number)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_sources(wanted: dict[str, Any]) -> None:
    """Refuse to go on if a result would depend on something other than what was noted."""
    target = _target(wanted)
    data = [notebooks.ROOT / name for name in wanted["data"]]
    if target.given(wanted["settings"]) != wanted["key"]["files"]:
        raise PPPError("a file among its parameters changed; give 'ppp sweep run' again")
    if state.sources_state(notebooks.ROOT, [*target.sources(), *data]) == wanted["sources"]:
        return
    # Something was edited, perhaps a comment: its contents decide.
    found = target.ingredients(staleness.Library(notebooks.ROOT))
    if staleness.digest(json.dumps(found, sort_keys=True)) != wanted["common"]:
        raise PPPError("its sources changed while the sweep ran; give 'ppp sweep run' again")


def _target(wanted: dict[str, Any]) -> spec.Target:
    if wanted["kind"] == spec.MeasureTarget.kind:
        return spec.MeasureTarget()
    return spec.NotebookTarget(Path(wanted["path"]), wanted["profile"])


def _perform(folder: state.Folder, id: str, limits: spec.Limits, device: str) -> End:
    """Start the process that works, and end it if it goes over a limit."""
    work = folder.work(id)
    _clean(work)
    command = [sys.executable, "-m", "companion.sweeps.job", "--work", str(folder.path), id]
    with folder.log(id).open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment(limits.threads, device),
            cwd=notebooks.ROOT,
            start_new_session=True,
        )
        begun, peak = time.monotonic(), 0
        try:
            while process.poll() is None:
                used = memory()
                peak, took = max(peak, used), time.monotonic() - begun
                if limits.memory and used > limits.memory:
                    reason = (
                        f"used {show_bytes(used)} of memory; allowed {show_bytes(limits.memory)}"
                    )
                    return End("memory", f"{reason}: raise limits, memory", took, peak)
                if limits.time and took > limits.time:
                    reason = f"took more than {show_seconds(limits.time)}; raise limits, time"
                    return End("time", reason, took, peak)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)
        finally:
            _end(process)
    took = time.monotonic() - begun
    if process.returncode == 0:
        return End("", "", took, peak)
    kind, reason = _reason(work, process.returncode)
    return End(kind, reason, took, peak)


def _reason(work: Path, code: int) -> tuple[str, str]:
    try:
        noted = json.loads((work / "failure.json").read_bytes())
        return noted["kind"], noted["reason"]
    except (OSError, ValueError, KeyError):
        pass
    if code < 0:
        hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return "killed", f"its process was killed by {_name(-code)}{hint}"
    return "failed", f"its process ended with code {code}"


def _clean(work: Path) -> None:
    """Leave of an earlier try only what a measurement can go on from."""
    work.mkdir(parents=True, exist_ok=True)
    for left in work.iterdir():
        if left.name.endswith(".partial"):
            continue
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def memory() -> int:
    """Return the resident memory of everything that this process started, bytes.

    Pages that several processes share count in each.
    """
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_info().rss
    return total


def _end(process: subprocess.Popen) -> None:
    """End everything that this process started."""
    while family := psutil.Process().children(recursive=True):
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.poll()
        gone, _ = psutil.wait_procs([one for one in family if one.pid != process.pid], 5)
        if len(gone) == len(family):
            break
        if process.returncode is not None and not _living():
            break
    process.wait()


def _living() -> bool:
    found = psutil.Process().children(recursive=True)
    return any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in found)


def _finish(folder: state.Folder, id: str, record: dict[str, Any]) -> None:
    """Put the results in their place, whole, and set the mark for Snakemake."""
    work = folder.work(id)
    for left in work.glob("*.partial"):
        shutil.rmtree(left)
    paths = [path for path in sorted(work.rglob("*")) if path.is_file()]
    record["disk"] = sum(path.stat().st_size for path in paths)
    results = work / "results"
    tables = [path for path in [*results.glob("*.csv"), results / spec.NUMBERS] if path.is_file()]
    record["tables"] = {path.name: files.sha256(path) for path in tables}
    files.write(work / "run.json", json.dumps(record).encode())
    outputs.replace(work, folder.run(id))
    folder.failure(id).unlink(missing_ok=True)
    folder.done(id).parent.mkdir(parents=True, exist_ok=True)
    folder.done(id).touch()


# ---- where it runs


def environment(threads: int, device: str) -> dict[str, str]:
    """Return what a run finds in its environment: its threads, its GPU, and no network."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "CUDA_VISIBLE_DEVICES": device.removeprefix("cuda:"),
        "PPP_OFFLINE": "1",
        "PYTHONUTF8": "1",
    }


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1" and name != "NoDevFiles"]
    try:
        asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split() if done.returncode == 0 else []


@contextlib.contextmanager
def _gpu(wanted: bool) -> Iterator[str]:
    """Hold one GPU that no other run of this machine holds; nothing if none is wanted or there."""
    found = gpus() if wanted else []
    if not found:
        yield ""
    elif "SLURM_JOB_ID" in os.environ:  # Slurm has given this run its own
        yield f"cuda:{found[0]}"
    else:
        with contextlib.ExitStack() as stack:
            place = _own_folder()
            while not (held := next((one for one in found if _held(place / one, stack)), "")):
                time.sleep(LOOK)
            yield f"cuda:{held}"


def _own_folder() -> Path:
    """Return a folder that no other user of this machine can write, for the locks of its GPUs."""
    place = datasets.cache() / "gpus"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return place


def _held(path: Path, stack: contextlib.ExitStack) -> bool:
    """Hold a lock for as long as `stack` lives, unless another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        stack.enter_context(outputs.held(path, "ppp sweep"))
    except outputs.InUse:
        return False
    return True


# ---- the process that works


def work(folder: state.Folder, id: str) -> int:
    """Do the work of a run in its folder below ``work``; return the exit code."""
    from threading import Thread

    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    wanted = state.load_wanted(folder, id)
    settings = dict(wanted["settings"])
    if wanted["limits"]["gpu"] and "device" in settings:
        settings["device"] = "cuda" if os.environ["CUDA_VISIBLE_DEVICES"] else "cpu"
    place = folder.work(id)
    try:
        _target(wanted).perform(settings, place)
        table = place / "results" / wanted["table"]
        if not table.is_file():
            there = [path.name for path in sorted(table.parent.glob("*.csv"))]
            there += [spec.NUMBERS] if (table.parent / spec.NUMBERS).is_file() else []
            shown = ", ".join(there) or "no table"
            raise PPPError(f"it wrote no {wanted['table']}; it wrote {shown}")
        state.read_rows(table)
    except PPPError as error:
        return _failed(place, "refused", str(error), REFUSED)
    except notebooks.NotebookFailed as error:
        print(error)
        return _failed(place, "failed", error.reason, 1)
    except BaseException as error:
        import traceback

        traceback.print_exc()
        return _failed(place, "failed", f"{type(error).__name__}: {error}".splitlines()[0], 1)
    return 0


def _failed(place: Path, kind: str, reason: str, code: int) -> int:
    print(reason)
    words = " ".join(reason.split())
    content = {"kind": kind, "reason": words if len(words) <= LONGEST else f"{words[:LONGEST]}..."}
    files.write(place / "failure.json", json.dumps(content).encode())
    return code


def _end_with(parent: int) -> None:
    """End when the process that watches is gone: it cannot say so if it was killed."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    act = watch
    if arguments[:1] == ["--work"]:
        act, arguments = work, arguments[1:]
    path, id = arguments
    return act(state.Folder(Path(path)), id)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
