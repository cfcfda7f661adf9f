"""Measure that the memory a measurement takes does not depend on the number of windows.

python benchmarks/memory.py [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

PER_PICTURE = 16


def peak(n: int) -> dict[str, float]:
    """Measure `n` windows of scenes rendered on demand; return peak resident memory, in MiB."""
    # Imported here: a child's peak starts at what its parent held when it was started.
    import ppp
    from ppp.experiments.networks import load_network
    from ppp.experiments.plane import scenes

    network = load_network("plane-resnet", "trained")
    reach = ppp.coverage(network.model, network.layers, network.window)
    height, width = ppp.size_needed(network.window, reach)
    windows = ppp.cut_windows(
        scenes(n // PER_PICTURE, height + 64, width + 64, seed=0),
        network.window,
        reach,
        per_picture=PER_PICTURE,
        seed=0,
        transform=network.prepare,
    )
    before = _resident()
    measurement = ppp.measure(network.model, windows, network.layers, "zeros", coverage=reach)
    if measurement.provenance["windows"] != n:
        raise RuntimeError(f"{measurement.provenance['windows']} windows measured, expected {n}")
    return {"before": before, "peak": _resident()}


def _resident() -> float:
    """Return the largest resident memory so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Print the peaks, each of a process of its own, and their ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=256, help="windows")
    parser.add_argument("--many", type=int, default=4096, help="windows")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(peak(options.child)))
        return
    figures: dict[str, float] = {}
    for name, n in (("few", options.few), ("many", options.many)):
        command = [sys.executable, __file__, "--child", str(n)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        figures |= {f"{name}_windows": n, f"{name}_peak_mib": found["peak"]}
        figures |= {f"{name}_before_mib": found["before"]}
    figures["many_to_few"] = figures["many_peak_mib"] / figures["few_peak_mib"]
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
