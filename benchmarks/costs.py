"""Measure the cost curve: how the time of a measurement grows, and whether unit costs explain it.

python benchmarks/costs.py [--repeats N] [--output data/scale/curve.csv]

Whole measurements against windows, schemes, layers and the side of the picture, beside the times of
their parts alone: processor seconds of one thread, the fastest of the repeats.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from shared import report

from studies import runs
from studies.scale import measured
from studies.storage import tables


def main() -> None:
    """Print how far measured and predicted times are apart, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    curve = measured.cost_curve(measured.along_axes(), options.repeats)
    if options.output:
        described = curve.assign(repeats=options.repeats, **runs.versions())
        options.output.parent.mkdir(parents=True, exist_ok=True)
        tables.write_table(options.output, described, digits=4)
    ratio = curve["measured"] / curve["predicted"]
    found = {f"measured to predicted, {k}": getattr(ratio, k)() for k in ("min", "median", "max")}
    found |= {f"overhead, {k}": getattr(curve["overhead"], k)() for k in ("min", "max")}
    shares = curve[[*measured.PARTS]].sum() / curve["predicted"].sum()
    found |= {f"share of {part}": share for part, share in shares.items()}
    report(
        {k: round(float(v), 3) for k, v in found.items()} | {"load": round(os.getloadavg()[0], 1)},
        None,
    )


if __name__ == "__main__":
    main()
