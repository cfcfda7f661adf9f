"""What a training run of the zoo costs: seconds per step, and per measurement.

python benchmarks/training.py [--threads 1 2]
"""

from __future__ import annotations

import argparse
import time

import torch

from ppp.measurement import measure
from studies.dynamics import design
from studies.networks import FAMILIES, load_network
from studies.networks.training import Settings, _Work


def step_seconds(family: str, padding: str, steps: int = 6) -> float:
    """Time one training step on a batch of noise; the first two do not count."""
    settings = Settings(family, padding)
    work = _Work(settings, "cpu")
    side = 96 + sum(work.model.surroundings)
    pixels = torch.randn(settings.batch, 3, side, side)
    labels = torch.arange(settings.batch) % 8
    for step in range(steps + 2):
        if step == 2:
            began = time.perf_counter()
        work.advance(pixels, labels)
    return (time.perf_counter() - began) / steps


def measuring_seconds(family: str, n_scenes: int = 64) -> float:
    """Time one network on 512 windows: five layers, one scheme, coverage given."""
    network = load_network(f"plane-{family}", "random")
    windows = design.windows_to_measure(family, n_scenes)
    reach = design.Observer(Settings(family)).reach
    began = time.perf_counter()
    measure(network.model, windows, network.layers, coverage=reach)
    return time.perf_counter() - began


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    for threads in parser.parse_args().threads:
        torch.set_num_threads(threads)
        for family in FAMILIES:
            for padding in ("zeros", "circular", "randn", "optimal"):
                seconds = step_seconds(family, padding)
                print(
                    f"{family:6} {padding:8} {threads} threads: {1000 * seconds:4.0f} ms a step, "
                    f"{seconds * Settings.steps:4.0f} s in {Settings.steps} steps",
                    flush=True,
                )
            print(f"{family:6} 512 windows measured in {measuring_seconds(family):.1f} s")


if __name__ == "__main__":
    main()
