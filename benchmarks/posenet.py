"""Training PosENet's read-outs: ours against recomputing the frozen features in every epoch.

Same network, windows, initial weights, order of batches and protocol, same machine, in one run.
The plain way is the published code's in today's PyTorch: for every target and seed, in every
epoch, run the frozen network, resize and stack its maps, train the read-out, resize its map to
the target. Ours computes features once (their time counts) and trains all targets of a seed
together.

python benchmarks/posenet.py [--network plane-resnet-zeros] [--seeds 2] [--threads 1]
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppp.extraction import extract, gather
from ppp.measurement import exact_kernels
from studies.posenet import design, readout as posenet


def plain(
    model: nn.Module, pixels: Tensor, layers: list[str], wanted: Tensor, seed: int
) -> nn.Module:
    """Train one read-out as one would write it down; return it."""
    protocol = posenet.PUBLISHED
    channels = sum(map_.shape[1] for map_ in extract(model, pixels[:1], layers).values())
    readout = posenet.ReadOut(channels, protocol, seed).train()
    optimiser = torch.optim.SGD(
        readout.parameters(), protocol.lr, protocol.momentum, weight_decay=protocol.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, protocol.drops, 0.1)
    order = torch.Generator().manual_seed(seed)
    for _ in range(protocol.epochs):
        for chosen in torch.randperm(len(pixels), generator=order).split(protocol.batch):
            maps = _stacked(model, pixels[chosen], layers)
            small = readout(maps)[:, None]
            drawn = F.interpolate(small, size=wanted.shape, mode="bilinear", align_corners=True)
            loss = F.mse_loss(drawn[:, 0], wanted.expand(len(chosen), -1, -1))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return readout.eval()


def _stacked(model: nn.Module, pixels: Tensor, layers: list[str]) -> Tensor:
    size = posenet.PUBLISHED.feature_size
    maps = extract(model, pixels, layers).values()
    resized = [
        F.interpolate(map_, size=(size, size), mode="bilinear", align_corners=True) for map_ in maps
    ]
    return torch.cat(resized, 1)


def main() -> None:
    """Print the two times, their ratio for one trial, and how far the results differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="plane-resnet-zeros")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, layers, reach, pictures = design.loaded(options.network)
    windows = pictures.training(reach)
    pixels = torch.cat([gather(p.pixels, p.tops, p.lefts, windows.size) for p in windows])
    seeds, name = list(range(options.seeds)), "H"
    with exact_kernels():
        began = time.perf_counter()
        slow = plain(model, pixels, layers, posenet.target(name), seeds[0])
        middle = time.perf_counter()
        maps = posenet.features(model, windows, layers)
        fast = posenet.train(maps, posenet.TARGETS, seeds)
        ours = (time.perf_counter() - middle) / (len(seeds) * len(posenet.TARGETS))
        with torch.no_grad():
            drawn = F.interpolate(
                slow(maps[:32])[:, None], size=(224, 224), mode="bilinear", align_corners=True
            )
    apart = float((drawn[:, 0] - fast.predict(maps[:32], seeds[0], name)).abs().max())
    print(
        f"plain {middle - began:.1f} s a trial, ours {ours:.2f} s a trial of "
        f"{len(seeds) * len(posenet.TARGETS)}, features included: "
        f"{(middle - began) / ours:.0f} times as fast; painted maps differ by at most {apart:.1e}"
    )


if __name__ == "__main__":
    main()
