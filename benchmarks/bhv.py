"""Training many initialisations of the border-handling network: ours against a plain loop.

Same protocol, same seeds, same accuracy, same machine, in one run. The plain loop is the
published code's way in today's PyTorch: one initialisation after the other, whole batches, every
core in every operation, PyTorch's own padding. Ours counts the start of its processes.

python benchmarks/bhv.py [--variants V F-zero] [--epochs 20] [--seeds 2] [--cores 2]
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from studies import jobs
from studies.bhv import variants
from studies.bhv.redgreen import PUBLISHED_IMAGES


def plain(name: str, seed: int, epochs: int) -> float:
    """Train as one would write it down; return the accuracy on the validation images (%)."""
    variant, sizes = variants.VARIANTS[name], ((3, 32, 1), (32, 32, 2), (32, 64, 2), (64, 64, 2))
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs, stride in sizes:
        padding = {"padding": variant.amount, "padding_mode": variant.scheme}
        layers += [nn.Conv2d(inputs, outputs, 3, stride, bias=False, **padding), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 2))
    images, labels = PUBLISHED_IMAGES.images(2000, 1988)
    images = images.contiguous()
    optimiser = torch.optim.Adadelta(
        model.parameters(), lr=1.0, rho=0.9, eps=1e-6, weight_decay=5e-5
    )
    for _ in range(epochs):
        for start in range(0, 2000, 200):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(images[start : start + 200]), labels[start : start + 200])
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            scores = torch.cat([model(batch) for batch in images[:1000].split(200)])
    return 100 * float((scores.argmax(1) == labels[:1000]).double().mean())


def ours(task: tuple[str, int], epochs: int) -> float:
    """Train with the library; return the same accuracy."""
    _, log = variants.train(task[0], variants.Protocol(epochs=epochs), seed=task[1])
    return 100 * float(log["leaked_accuracy"].iloc[-1])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ["V", "S-zero", "S-circular", "S-circular-2", "F-zero"]
    parser.add_argument("--variants", nargs="+", default=default, choices=default)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    seeds, total = range(options.seeds), [0.0, 0.0]
    for name in options.variants:
        torch.set_num_threads(options.cores)
        began = time.perf_counter()
        slow = [plain(name, seed, options.epochs) for seed in seeds]
        middle = time.perf_counter()
        tasks = [(name, seed) for seed in seeds]
        train = partial(ours, epochs=options.epochs)
        fast = dict(jobs.run(train, tasks, jobs=options.cores))
        times = middle - began, time.perf_counter() - middle
        total = [a + b for a, b in zip(total, times)]
        apart = max(abs(a - fast[task]) for a, task in zip(slow, tasks))
        print(
            f"{name:13} plain {times[0]:5.1f} s, ours {times[1]:5.1f} s: "
            f"{times[0] / times[1]:.1f} times as fast; accuracies differ by {apart:.1f} points",
            flush=True,
        )
    print(f"all together {total[0] / total[1]:.1f} times as fast")


if __name__ == "__main__":
    main()
