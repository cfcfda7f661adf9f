"""Measure what a measurement costs beyond the forward passes it cannot do without.

python benchmarks/extraction.py [--output FILE] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from pathlib import Path

import torch
import torchvision
from shared import alternate, report, small_network

import ppp
from ppp.extraction import Tap, gather, layout
from studies.networks import load_network
from studies.pictures.plane import Scene

LAYERS = ("layer1", "layer2", "layer3", "layer4")
SCHEMES = ("zeros", "reflect", "replicate", "circular", "randn")
WINDOW, PICTURE = 224, 1024
SMALL_WINDOWS = 512
DEPTHWISE = {"mobilenet_v2": "features.17", "mnasnet1_0": "layers.14"}


class Extraction:
    """Four layers of a ResNet-50 on windows of one picture, in three ways."""

    def __init__(self, n: int, naive_windows: int, batch_size: int) -> None:
        network = load_network("resnet50", "random")
        self.model = network.model
        self.naive_windows, self.batch_size = min(n, naive_windows), batch_size
        self.coverage = ppp.coverage(self.model, LAYERS, WINDOW)
        picture = Scene(0, "disc", 0, 0, PICTURE, PICTURE)
        self.windows = ppp.cut_windows(
            [picture], WINDOW, self.coverage, per_picture=n, seed=0, transform=network.prepare
        )
        (self.picture,) = list(self.windows)
        self.branches = [
            ppp.with_padding(self.model, scheme, generator=torch.Generator().manual_seed(0))
            for scheme in SCHEMES
        ]

    def measure(self, schemes=SCHEMES, *, coverage=None) -> None:
        """Do what :func:`ppp.measure` does; without `coverage` it is found on the way."""
        ppp.measure(
            self.model, self.windows, LAYERS, schemes,
            coverage=coverage, batch_size=self.batch_size,
        )  # fmt: skip

    def bare_picture(self) -> None:
        """Run the optimal branch on the picture, and look at nothing."""
        with torch.no_grad():
            self.model(self.picture.pixels[None])

    def bare_windows(self) -> None:
        """Run the algorithmic branches on the same batches and look at nothing."""
        places = self.picture.tops, self.picture.lefts
        with torch.no_grad():
            for start in range(0, len(self.windows), self.batch_size):
                part = (side[start : start + self.batch_size] for side in places)
                x = gather(self.picture.pixels, *part, (WINDOW, WINDOW))
                for branch in self.branches:
                    branch(x)

    def naive(self) -> None:
        """Run each window, and the crop that holds it and its surroundings, by itself."""
        tap, optimal = Tap(self.branches[1], LAYERS), Tap(self.model, LAYERS)
        stride, (left, _, top, _) = self.coverage.stride, self.coverage.margin
        height, width = ppp.size_needed(WINDOW, self.coverage)
        for y, x in zip(self.picture.tops[: self.naive_windows], self.picture.lefts):
            first = y - -(-top // stride[0]) * stride[0], x - -(-left // stride[1]) * stride[1]
            crop = gather(self.picture.pixels, [first[0]], [first[1]], (height, width))
            window = gather(self.picture.pixels, [y], [x], (WINDOW, WINDOW))
            optimal(crop, lambda *_: None)
            tap(window, lambda *_: None)


def ratios(extraction: Extraction, repeats: int) -> dict[str, object]:
    """Time everything in turn and compare."""
    known = extraction.coverage
    spent = alternate(
        {
            "bare windows": extraction.bare_windows,
            "bare picture": extraction.bare_picture,
            "five": extraction.measure,
            "five, coverage given": lambda: extraction.measure(coverage=known),
            "one": lambda: extraction.measure("reflect"),
            "one, coverage given": lambda: extraction.measure("reflect", coverage=known),
            "naive": extraction.naive,
            "coverage": lambda: ppp.coverage(extraction.model, LAYERS, WINDOW),
        },
        repeats,
    )
    n = len(extraction.windows)
    more = n / extraction.naive_windows
    figures: dict[str, object] = {"windows": n, "naive_windows": extraction.naive_windows}
    figures |= {"batch_size": extraction.batch_size, "threads": torch.get_num_threads()}
    for clock in ("wall", "processor"):
        s = {work: clocks[clock] for work, clocks in spent.items()}
        given = ", coverage given"
        bare = s["bare windows"] + s["bare picture"]
        figures[clock] = {
            "five_schemes_to_bare": s["five"] / bare,
            "five_schemes_to_bare_coverage_given": s[f"five{given}"] / bare,
            "five_schemes_to_bare_windows": s["five"] / s["bare windows"],
            "coverage_seconds": s["coverage"],
            "naive_to_one_scheme": s["naive"] * more / s["one"],
            "naive_to_one_scheme_coverage_given": s["naive"] * more / s[f"one{given}"],
            "bare_seconds_per_window_and_scheme": s["bare windows"] / n / len(SCHEMES),
        }
    return figures


def depthwise(name: str, batch_size: int, repeats: int = 8) -> dict[str, object]:
    """Compare a network's passes with its channels first and last in memory."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    x = torch.randn(batch_size, 3, WINDOW, WINDOW)
    last = x.contiguous(memory_format=torch.channels_last)
    work = {
        k: lambda m=m: ppp.extract(model, m, DEPTHWISE[name])
        for k, m in (("first", x), ("last", last))
    }
    spent = {k: s["processor"] for k, s in alternate(work, repeats).items()}
    first, other = (ppp.extract(model, m, DEPTHWISE[name]) for m in (x, last))
    equal = torch.equal(*(maps[DEPTHWISE[name]] for maps in (first, other)))
    chosen = layout(model, [DEPTHWISE[name]], 3, WINDOW, WINDOW) == torch.channels_last
    return {"last_to_first": spent["last"] / spent["first"], "bit_equal": equal, "chosen": chosen}


def main() -> None:
    """Print the ratios as JSON; with --profile, where the time of a measurement goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--naive-windows", type=int, default=16, help="timed, then scaled up")
    parser.add_argument("--batch-size", type=int, default=8, help="small is fast on a CPU")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, help="of PyTorch; 1 suits a busy machine")
    parser.add_argument("--output", type=Path, help="JSON file")
    parser.add_argument("--profile", action="store_true", help="profile instead of timing")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    extraction = Extraction(options.windows, options.naive_windows, options.batch_size)
    if options.profile:
        with cProfile.Profile() as profile:
            extraction.measure(coverage=extraction.coverage)
        pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(30)
        return
    figures = ratios(extraction, options.repeats)
    figures["depthwise"] = {name: depthwise(name, options.batch_size) for name in DEPTHWISE}
    net, windows, _ = small_network(SMALL_WINDOWS)
    small = {"small": lambda: ppp.measure(net.model, windows, net.layers, "reflect", batch_size=32)}
    spent = alternate(small, options.repeats)["small"]["wall"]
    report(figures | {f"small_network_{SMALL_WINDOWS}_windows_seconds": spent}, options.output)


if __name__ == "__main__":
    main()
