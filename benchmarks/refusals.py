"""How long a request that cannot work takes to be refused, beside the start of its kernel.

python benchmarks/refusals.py [--repeats 3]

Least processor seconds, user and system, of the whole command.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

REQUESTS = {
    "unknown parameter": ["run", "03", "-p", "nn=8"],
    "empty folder of photographs": ["run", "01", "-p", "photos={empty}"],
    "amount too large for a scheme": ["run", "01", "-p", "amount=96"],
    "unknown photograph": ["run", "01", "-p", "photograph=cofee"],
    "unknown network": ["run", "02", "-p", "network=resnet5"],
    "unknown layer": ["run", "03", "-p", "layer=layer9"],
}
IMPORTS = "import torch, torchvision, pandas, matplotlib.pyplot, ppp.measurement, studies.figures"


def seconds(command: list[str], expected: int) -> float:
    """Return the processor seconds of a command, which must end with an exit code."""
    before = os.times()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    after = os.times()
    assert done.returncode == expected, done.stderr
    used = (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )
    return used


def main() -> None:
    """Print a line for each request."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as empty:
        for name, words in REQUESTS.items():
            command = ["-m", "companion", *(word.format(empty=empty) for word in words)]
            print(f"{name:30} {min(seconds(command, 2) for _ in range(repeats)):5.1f} s")
    kernel = min(seconds(["-c", IMPORTS], 0) for _ in range(repeats))
    print(f"{'what a kernel imports at least':30} {kernel:5.1f} s")


if __name__ == "__main__":
    main()
