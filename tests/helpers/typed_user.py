"""What someone who uses the library writes: mypy --strict has nothing to say about it."""

from pathlib import Path

import torch
from torch import Tensor, nn

import ppp


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, 2, 1)).eval()


def main(folder: Path) -> str:
    model, layers, window = network(), ["0", "2"], 16
    inventory: ppp.Audit = ppp.audit(model, window)
    kinds: list[str] = [site.kind for site in inventory]
    swapped: nn.Module = ppp.with_padding(model, ppp.Scheme("reflect"))
    padded: Tensor = ppp.pad(torch.zeros(1, 3, 4, 4), (1, 0, 1, 0), "symmetric")
    features: dict[str, Tensor] = ppp.extract(swapped, padded, layers)

    coverage: ppp.Coverage = ppp.coverage(model, layers, (window, window))
    layer: ppp.LayerCoverage = coverage["2"]
    margin: tuple[int, int, int, int] = layer.margin
    proof: ppp.Completeness | None = layer.completeness
    height, width = ppp.size_needed(window, coverage)

    scenes: dict[str, Tensor] = {name: torch.rand(3, height + 40, width + 40) for name in "abcd"}
    windows: ppp.Windows = ppp.cut_windows(scenes, window, coverage, per_picture=4, seed=0)
    pictures: list[ppp.Picture] = list(windows)
    truth: ppp.Optimal = ppp.optimal(
        model, pictures[0].pixels, [int(y) for y in pictures[0].tops], [8] * 4, coverage
    )
    optimal: Tensor = truth.features()["2"]

    try:
        measured: ppp.Measurement = ppp.measure(
            model, windows, layers, ["zeros", "reflect"], coverage=coverage, keep=folder / "kept"
        )
    except ppp.PPPError as error:
        return str(error)
    result: ppp.LayerResult = measured["zeros", "2"]
    low, value, high = result.mae.low, result.mae.value, result.mae.high
    estimates: list[ppp.Estimate] = [result.snr, result.power]
    passed: bool | None = result.null_test.passed
    floors: float = ppp.mae_ppp(torch.from_numpy(result.pattern), result.sigma) - result.mae_floor

    path: Path = measured.save(folder)
    again: ppp.Measurement = ppp.Measurement.load(path)
    where: dict[str, object] = again.provenance
    everything = (kinds, features, margin, proof, optimal, low, value, high, estimates, passed)
    return f"{ppp.__version__} {len(everything)} {floors} {where['windows']} {again!r}"
