"""Measure what a measurement takes in memory: with many windows, and on a large picture.

python benchmarks/memory.py [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# ppp is imported in functions: a child's peak starts at what its parent held when it was started.


def many_windows(n: int) -> dict[str, float]:
    """Measure `n` windows of scenes rendered on demand; return peak resident memory, in MiB."""
    from shared import small_network

    import ppp

    network, windows, coverage = small_network(n)
    before = _resident()
    measurement = ppp.measure(network.model, windows, network.layers, "zeros", coverage=coverage)
    if measurement.provenance["windows"] != n:
        raise RuntimeError(f"{measurement.provenance['windows']} windows measured, expected {n}")
    return {"before_mib": before, "peak_mib": _resident()}


def large_picture(side: int, n: int, bound_mib: int) -> dict[str, float]:
    """Measure `n` windows of one noise picture, `side` px wide; a bound of 0 is none."""
    import math

    import torch

    import ppp
    import ppp.measurement  # its code is no part of what a measurement adds
    from studies.networks import load_network

    # The coverage takes more memory than a measurement, so another process finds it.
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        reach = elsewhere.submit(_coverage).result()
    network = load_network("plane-resnet", "trained")
    pixels = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    windows = ppp.cut_windows({"noise": pixels}, network.window, reach, per_picture=n, seed=0)
    before, began = _resident(), time.process_time()
    memory = bound_mib * 2**20 or math.inf
    made = ppp.measure(
        network.model, windows, network.layers, "zeros", coverage=reach, memory=memory, groups=1
    ).provenance
    return {
        "added_mib": _resident() - before,
        "estimate_mib": made["memory_estimate"] / 2**20,
        "tiles": made["tiles"],
        "batch": made["batch_size"],
        "processor_seconds": time.process_time() - began,
    }


def _coverage() -> object:
    from shared import small_network

    return small_network(16)[2]


def _resident() -> float:
    """Return the largest resident memory so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


WORK = {work.__name__: work for work in (many_windows, large_picture)}


def alone(work: str, *numbers: int) -> dict[str, float]:
    """Do a piece of work in a process of its own."""
    command = [sys.executable, __file__, "--child", work, *map(str, numbers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Print the peaks, each of a process of its own, and their ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=256, help="windows")
    parser.add_argument("--many", type=int, default=4096, help="windows")
    parser.add_argument("--side", type=int, default=2048, help="of the large picture, px")
    parser.add_argument("--windows", type=int, default=256, help="in the large picture")
    parser.add_argument("--bounds", type=int, nargs="+", default=[256, 128, 64, 32, 16], help="MiB")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, *numbers = options.child
        print(json.dumps(WORK[work](*map(int, numbers))))
        return
    figures: dict[str, object] = {}
    for name, n in (("few", options.few), ("many", options.many)):
        found = alone("many_windows", n)
        figures |= {f"{name}_windows": n} | {f"{name}_{key}": v for key, v in found.items()}
    figures["many_to_few"] = figures["many_peak_mib"] / figures["few_peak_mib"]
    figures["large_picture"] = {
        f"bound of {bound} MiB" if bound else "no bound": alone(
            "large_picture", options.side, options.windows, bound
        )
        for bound in (0, *options.bounds)
    }
    from shared import report

    report(figures, options.output)


if __name__ == "__main__":
    main()
