"""Measure what the attribution to padding sites costs beyond its bare passes.

python benchmarks/attribution.py [--output FILE] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from pathlib import Path

import torch
from shared import alternate, report

import ppp
from ppp.extraction import gather
from studies.networks import load_network
from studies.pictures.plane import Scene

PICTURES, SIDE, BATCH = 2, 1024, 8


class Work:
    """Five layers of a ResNet-18 on windows of two pictures: attributed, and its bare passes."""

    def __init__(self, windows: int) -> None:
        network = load_network("resnet18", "random")
        self.model, self.layers, self.window = network.model, network.layers, network.window
        self.coverage = ppp.coverage(self.model, self.layers, self.window)
        pictures = [Scene(seed, "disc", 0, 0, SIDE, SIDE) for seed in range(PICTURES)]
        self.windows = ppp.cut_windows(
            pictures, self.window, self.coverage, per_picture=windows // PICTURES, seed=0,
            transform=network.prepare,
        )  # fmt: skip
        self.pictures = list(self.windows)
        self.passes = 2 + 2 * len(self.coverage.sites)

    def attribute(self) -> None:
        """Attribute the pattern of every layer, the coverage given."""
        found = ppp.attribute(
            self.model, self.windows, self.layers, coverage=self.coverage, batch_size=BATCH
        )
        if found.passes != self.passes:
            raise RuntimeError(f"{found.passes} passes, expected {self.passes}")

    def bare_windows(self, passes: int) -> None:
        """Run the network on the same batches and look at nothing."""
        with torch.no_grad():
            for picture in self.pictures:
                for start in range(0, len(picture.tops), BATCH):
                    part = (side[start : start + BATCH] for side in (picture.tops, picture.lefts))
                    x = gather(picture.pixels, *part, (self.window, self.window))
                    for _ in range(passes):
                        self.model(x)

    def bare_pictures(self) -> None:
        """Run the network on the pictures."""
        with torch.no_grad():
            for picture in self.pictures:
                self.model(picture.pixels[None])


def main() -> None:
    """Print the ratios as JSON; with --profile, where the time of an attribution goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="profile instead of timing")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = Work(options.windows)
    if options.profile:
        with cProfile.Profile() as profile:
            work.attribute()
        pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(30)
        return
    spent = alternate(
        {
            "attributed": work.attribute,
            "bare windows": lambda: work.bare_windows(work.passes),
            "bare pictures": work.bare_pictures,
        },
        options.repeats,
    )
    s = {name: clocks["processor"] for name, clocks in spent.items()}
    figures = {"windows": len(work.windows), "passes": work.passes}
    figures |= {"bare_seconds": s["bare windows"]}
    figures["to_bare_windows"] = s["attributed"] / s["bare windows"]
    figures["to_bare"] = s["attributed"] / (s["bare windows"] + s["bare pictures"])
    report(figures, options.output)


if __name__ == "__main__":
    main()
