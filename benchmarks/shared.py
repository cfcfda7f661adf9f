"""What the benchmarks of the library share."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import ppp
from studies.networks import Network, load_network
from studies.pictures.plane import scenes

PER_PICTURE = 16


def alternate(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Run every piece of work in turn; return the least wall and processor seconds of each.

    Taking turns lets the noise of a shared machine hit all of them alike.
    """
    least = {name: {"wall": float("inf"), "processor": float("inf")} for name in work}
    for _ in range(repeats):
        for name, piece in work.items():
            began = time.perf_counter(), time.process_time()
            piece()
            spent = time.perf_counter() - began[0], time.process_time() - began[1]
            least[name] = {c: min(least[name][c], s) for c, s in zip(least[name], spent)}
    return least


def small_network(n: int) -> tuple[Network, ppp.Windows, ppp.Coverage]:
    """Return the shipped small ResNet with `n` windows of scenes that are rendered on demand."""
    network = load_network("plane-resnet", "trained")
    coverage = ppp.coverage(network.model, network.layers, network.window)
    height, width = ppp.size_needed(network.window, coverage)
    windows = ppp.cut_windows(
        scenes(n // PER_PICTURE, height + 64, width + 64, seed=0), network.window, coverage,
        per_picture=PER_PICTURE, seed=0, transform=network.prepare,
    )  # fmt: skip
    return network, windows, coverage


def report(figures: dict[str, object], output: Path | None) -> None:
    """Print figures as JSON, and write them if a file is given."""
    text = json.dumps(figures, indent=2)
    print(text)
    if output:
        output.write_text(f"{text}\n", encoding="utf-8")
