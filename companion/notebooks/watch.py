"""The program that a notebook runs in: a kernel that notes which of certain files it opens.

    python -P watch.py LOG PATH... -- ARGUMENTS OF THE KERNEL
    python -P watch.py --serve SOCKET PARENT

To LOG is added, followed by a NUL, the real path of each file at or below a PATH that Python
opens. Libraries that open files without Python, as Arrow does, cannot be seen from here.

With --serve it loads what takes notebooks long to load, once, and forks a kernel for each that
asks for one: a kernel like any other, but for what it finds loaded. Nothing of the checkout is
loaded before the fork, so that what its modules open is noted for the notebook that uses them.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence

LOADED = (
    "ipykernel.kernelapp torch torchvision scipy.stats pandas pyarrow.parquet seaborn skimage.io "
    "statsmodels.formula.api joblib safetensors.torch yaml"
)
"""What is loaded before a fork. Whatever else a notebook imports, its kernel loads."""


def watch(log: str, paths: Sequence[str]) -> None:
    """Note every file that is opened from now on, here and in processes forked from here."""
    places = [os.path.realpath(path) for path in paths]
    target = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    seen = set()

    def note(event: str, arguments: tuple) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path not in seen and any(f"{path}/".startswith(f"{place}/") for place in places):
            seen.add(path)
            os.write(target, os.fsencode(path) + b"\0")

    sys.addaudithook(note)


def load() -> None:
    """Load what kernels share; end this process if that cannot be done without a thread."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as a kernel
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of an allocator not in use
    try:
        for name in LOADED.split():
            importlib.import_module(name)
    except Exception:
        sys.exit()  # a kernel that imports it will say why
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit()  # a fork would lose them
    gc.freeze()


def end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, whatever either is doing then."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit()


def serve(address: str) -> list[str]:
    """Fork for each that asks; return in the new process, with the arguments it was asked for."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        load()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a kernel that has ended is gone at once
        server = os.getpid()
        while True:
            asking, _ = door.accept()
            with asking:
                arguments, environment, folder = json.loads(asking.makefile().readline())
                if kernel := os.fork():
                    asking.sendall(b"%d\n" % kernel)
                    continue
            end_with(server)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            sys.modules["numpy"].random.seed()  # what is drawn without a seed is nobody else's
            sys.modules["torch"].default_generator.seed()
            return arguments


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        end_with(int(sys.argv[3]))
        sys.argv[1:] = serve(sys.argv[2])
    end = sys.argv.index("--")
    watch(sys.argv[1], sys.argv[2:end])
    sys.argv[1 : end + 1] = []
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
