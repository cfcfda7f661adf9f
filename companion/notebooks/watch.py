"""The program that a notebook runs in: a kernel that notes which of certain files it opens.

    python -P watch.py LOG PATH... -- ARGUMENTS OF THE KERNEL

To LOG is added, followed by a NUL, the real path of each file at or below a PATH that Python
opens. Libraries that open files without Python, as Arrow does, cannot be seen from here.
"""

import os
import sys
from collections.abc import Sequence


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


if __name__ == "__main__":
    end = sys.argv.index("--")
    watch(sys.argv[1], sys.argv[2:end])
    sys.argv[1 : end + 1] = []
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
