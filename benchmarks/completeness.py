"""Measure what the proof of completeness costs, and what a refusal by proof does.

python benchmarks/completeness.py [--repeats N]
"""

from __future__ import annotations

import argparse
import copy

import torch
import torchvision
from shared import alternate, report

import ppp
from ppp.completeness import on_noise, prove

NETWORKS = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "densenet121": tuple(f"features.denseblock{block}" for block in range(1, 5)),
    "mobilenet_v2": ("features.3", "features.6", "features.17"),
}
WINDOW = 224


def ratios(name: str, repeats: int) -> dict[str, float]:
    """Compare coverage, its proof and a proof that fails with the two bare passes of a proof."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(weights=None).eval()
    coverage = ppp.coverage(model, NETWORKS[name], WINDOW)
    trial = on_noise(copy.deepcopy(model).double(), coverage)
    hiding = copy.deepcopy(model)
    hiding.get_submodule(NETWORKS[name][0]).register_forward_hook(
        lambda _module, _inputs, output: output + output.roll(1, 3)
    )

    def two_passes() -> None:
        for x in (trial.picture, trial.window):
            trial.tap(x, lambda *_: None)

    work = {
        "coverage": lambda: ppp.coverage(model, NETWORKS[name], WINDOW),
        "proof": lambda: prove(model, coverage),
        "proof that fails": lambda: prove(hiding, coverage),
        "two passes": two_passes,
    }
    spent = {k: s["processor"] for k, s in alternate(work, repeats).items()}
    bare = spent.pop("two passes")
    figures = {f"{k} to two passes": round(seconds / bare, 2) for k, seconds in spent.items()}
    return figures | {"coverage seconds": round(spent["coverage"], 2)}


def main() -> None:
    """Print the ratios of processor seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report({name: ratios(name, options.repeats) for name in NETWORKS}, None)


if __name__ == "__main__":
    main()
