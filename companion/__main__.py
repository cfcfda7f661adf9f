"""Where ``ppp`` begins: a signal is answered by a line even while the rest is being loaded."""

import contextlib
import os
import signal
import sys


def run() -> int:
    """Run the command line and return its exit code."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from companion.cli import main

    code = main()
    if code >= 128:  # stopped: no thread that is left may hold it up, no child outlive it
        from companion.processes import end_children

        end_children(wait=0.5)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    return code


def _leave(number: int, frame: object) -> None:
    os.write(2, b"ppp: interrupted\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(run())
