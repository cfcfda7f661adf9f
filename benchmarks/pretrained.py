"""Measure what measurements of networks that others trained cost, in time and in memory.

python benchmarks/pretrained.py [--repeats N] [--profile] [--output FILE]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from shared import alternate, report

import ppp
from ppp.extraction import Tap, gather, layout
from studies.networks import load_network
from studies.networks.names import PADDINGS
from studies.pictures.plane import Scene

PICTURES = {"efficientnet-lite0": (1408, 1408), "hed-vgg16": (480, 720)}
"""Height and width of the picture (px)."""
WINDOWS = {"efficientnet-lite0": 64, "hed-vgg16": 16}
BATCH = 8


def coverage_of(name: str) -> ppp.Coverage:
    """Find what padding touches in a network's layers of interest."""
    network = load_network(name, "random")
    return ppp.coverage(network.model, network.layers, network.window)


class Work:
    """A network on windows of one picture: measured, and its bare passes to the last layer."""

    def __init__(self, name: str, windows: int) -> None:
        network = load_network(name, "random")  # published weights take as long
        self.model, self.layers, self.window = network.model, network.layers, network.window
        # It takes more memory than a measurement, so another process finds it.
        with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
            self.coverage = elsewhere.submit(coverage_of, name).result()
        self.windows = ppp.cut_windows(
            [Scene(0, "disc", 0, 0, *PICTURES[name])], self.window, self.coverage,
            per_picture=windows, seed=0, transform=network.prepare,
        )  # fmt: skip
        (self.picture,) = list(self.windows)
        if len(self.windows) < windows:
            raise RuntimeError(f"{len(self.windows)} windows in the picture, expected {windows}")
        self.branches = [
            ppp.with_padding(self.model, scheme, generator=torch.Generator().manual_seed(0))
            for scheme in PADDINGS
        ]

    def measure(self, coverage: ppp.Coverage | None = None) -> ppp.Measurement:
        """Measure under five schemes; without `coverage` it is found on the way."""
        return ppp.measure(
            self.model, self.windows, self.layers, PADDINGS, coverage=coverage, batch_size=BATCH
        )

    def bare(self, format: torch.memory_format) -> None:
        """Run the network on the picture, and under each scheme on the same batches."""
        places = self.picture.tops, self.picture.lefts
        branches = [Tap(branch, self.layers[-1:], to_the_end=False) for branch in self.branches]
        pixels = self.picture.pixels[None].contiguous(memory_format=format)
        with torch.inference_mode():
            Tap(self.model, self.layers[-1:], to_the_end=False)(pixels, lambda *_: None)
            for start in range(0, len(self.windows), BATCH):
                part = (side[start : start + BATCH] for side in places)
                x = gather(self.picture.pixels, *part, (self.window, self.window))
                for branch in branches:
                    branch(x.contiguous(memory_format=format), lambda *_: None)


def ratios(work: Work, repeats: int) -> dict[str, object]:
    """Compare the processor seconds of a measurement with those of its bare passes."""
    format = layout(work.model, work.layers, 3, work.window, work.window)
    spent = alternate(
        {
            "bare": lambda: work.bare(torch.contiguous_format),
            "bare, as measured": lambda: work.bare(format),
            "measured": work.measure,
            "measured, coverage given": lambda: work.measure(work.coverage),
        },
        repeats,
    )
    s = {name: clocks["processor"] for name, clocks in spent.items()}
    return {
        "windows": len(work.windows),
        "memory_format": str(format),
        "bare_seconds": s["bare"],
        "to_bare": s["measured"] / s["bare"],
        "to_bare_coverage_given": s["measured, coverage given"] / s["bare"],
        "coverage_given_to_bare_in_this_format": s["measured, coverage given"]
        / s["bare, as measured"],
    }


def memory() -> dict[str, object]:
    """Measure all five layers of HED with the default bound, in this process."""
    work = Work("hed-vgg16", WINDOWS["hed-vgg16"])
    before = _resident()
    made = work.measure(work.coverage).provenance
    status = Path("/proc/self/status")
    swapped = [line for line in status.read_text().splitlines() if line.startswith("VmSwap")]
    return {
        "before_mib": before,
        "added_mib": _resident() - before,
        "estimate_mib": made["memory_estimate"] / 2**20,
        "bound_mib": made["memory"] / 2**20,
        "tiles": made["tiles"],
        "swapped": swapped[0].split(":")[1].strip() if swapped else "not told",
    }


def _resident() -> float:
    """Return the largest resident memory so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Print the ratios as JSON; with --profile, where the time of a measurement goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="profile instead of timing")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(memory()))
        return
    work = Work("efficientnet-lite0", WINDOWS["efficientnet-lite0"])
    if options.profile:
        with cProfile.Profile() as profile:
            work.measure(work.coverage)
        pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(30)
        return
    figures = {"efficientnet-lite0": ratios(work, options.repeats)}
    child = [sys.executable, __file__, "--memory"]
    done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
    report(figures | {"hed-vgg16": json.loads(done.stdout)}, options.output)


if __name__ == "__main__":
    main()
