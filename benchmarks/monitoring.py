"""What a monitor of PPP costs a training: its share of the processor time of the steps between.

python benchmarks/monitoring.py [--every 500] [--windows 64] [--repeats 3]

The small residual network in batches of 32, as it is trained for the zoo, with zeros; five layers,
its own padding, coverage known. Least processor seconds of some repeats, one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from ppp.monitoring import Monitor
from studies.dynamics import design
from studies.networks import load_network
from studies.networks.training import Settings, _Work


def least(work: Callable[[], object], repeats: int) -> float:
    """Return the least processor seconds of some repeats, after one that does not count."""
    found = []
    for _ in range(repeats + 1):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found[1:])


def main() -> None:
    """Print the two times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings("resnet", "zeros")
    work = _Work(settings, "cpu")
    pixels = torch.randn(settings.batch, 3, 96, 96)
    labels = torch.arange(settings.batch) % 8
    step = least(lambda: [work.advance(pixels, labels) for _ in range(5)], asked.repeats) / 5
    network = load_network("plane-resnet", "random")
    scenes = design.windows_to_measure("resnet", asked.windows // 8)
    reach = design.Observer(settings).reach
    monitor = Monitor(network.model, scenes, network.layers, every=asked.every, coverage=reach)
    once = least(lambda: monitor.measure(0), asked.repeats)
    share = 100 * once / (asked.every * step)
    print(f"a step: {1000 * step:.0f} ms; {asked.windows} windows: {once:.2f} s")
    print(f"every {asked.every} steps: {share:.2f} % of the training (target: at most 2)")


if __name__ == "__main__":
    main()
