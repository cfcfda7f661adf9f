"""Measure what the proof of completeness costs.

python benchmarks/completeness.py [--repeats N] [--before CHECKOUT]

With a checkout of an earlier version, both versions take turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

import ppp
from studies.networks import load_network
from studies.pictures.plane import scenes

NETWORKS = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "mobilenet_v2": ("features.3", "features.6", "features.17"),
}
WINDOW = 224
WINDOWS = 512


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval()


def coverage(name: str) -> Callable[[], object]:
    model = network(name)
    return lambda: ppp.coverage(model, NETWORKS[name], WINDOW)


def measuring() -> Callable[[], object]:
    """Return the measurement of a small network, its coverage known."""
    net = load_network("plane-resnet", "trained")
    reach = ppp.coverage(net.model, net.layers, net.window)
    height, width = ppp.size_needed(net.window, reach)
    pictures = {
        scene.name: scene.pixels()
        for scene in scenes(WINDOWS // 16, height + 64, width + 64, seed=0)
    }
    windows = ppp.cut_windows(
        pictures, net.window, reach, per_picture=16, seed=0, transform=net.prepare
    )
    return lambda: ppp.measure(net.model, windows, net.layers, "reflect", coverage=reach)


def two_passes(name: str) -> Callable[[], object]:
    """Return the two passes of the proof, bare: nothing watched, nothing looked at."""
    from ppp.completeness import on_noise  # not in earlier versions
    from ppp.extraction import Tap

    model = network(name)
    trial = on_noise(copy.deepcopy(model).double(), ppp.coverage(model, NETWORKS[name], WINDOW))
    tap = Tap(trial.model, NETWORKS[name])

    def run() -> None:
        tap(trial.picture, lambda *_: None)
        tap(trial.window, lambda *_: None)

    return run


WORK = {**{f"coverage {name}": (coverage, name) for name in NETWORKS}, "measuring": (measuring,)}


def work_on_demand() -> None:
    """Do the piece of work that each line of the input names; answer with its seconds."""
    pieces: dict[str, Callable[[], object]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in pieces:
            make, *arguments = WORK[name]
            pieces[name] = make(*arguments)
            pieces[name]()
        began = time.process_time()
        pieces[name]()
        print(time.process_time() - began, flush=True)


def worker(checkout: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--worker"],
        env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        cwd=checkout,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def alternate(work: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Do every piece in turn; return the least seconds of each."""
    least = dict.fromkeys(work, float("inf"))
    for _ in range(repeats):
        for name, piece in work.items():
            least[name] = min(least[name], piece())
    return least


def against(checkout: Path, repeats: int) -> dict[str, float]:
    """Compare with an earlier version: seconds of each, and the ratios that have a bound."""
    here = Path(__file__).resolve().parents[1]
    workers = {"before": worker(checkout), "now": worker(here)}

    def asked(version: str, name: str) -> Callable[[], float]:
        def ask() -> float:
            process = workers[version]
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        return ask

    figures = {}
    for name in WORK:
        many = repeats * (5 if name == "measuring" else 1)
        least = alternate({v: asked(v, name) for v in workers}, many)
        figures |= {f"{name}, {version}": seconds for version, seconds in least.items()}
        figures[f"{name}, now to before"] = least["now"] / least["before"]
    for process in workers.values():
        process.stdin.close()
        process.wait()
    return figures


def timed(piece: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        began = time.process_time()
        piece()
        return time.process_time() - began

    return run


def main() -> None:
    """Print seconds and ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.worker:
        return work_on_demand()
    figures: dict[str, float] = {}
    for name in NETWORKS:
        pieces = {"coverage": timed(coverage(name)), "two passes": timed(two_passes(name))}
        least = alternate(pieces, options.repeats)
        figures |= {f"{name}, {piece}": seconds for piece, seconds in least.items()}
    if options.before:
        found = against(options.before.resolve(), options.repeats)
        figures |= found
        for name in NETWORKS:
            more = found[f"coverage {name}, now"] - found[f"coverage {name}, before"]
            figures[f"{name}, more than before to two passes"] = (
                more / figures[f"{name}, two passes"]
            )
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
