"""Random networks, and a brute force that knows nothing of how coverage works.

python tests/helpers/random_networks.py [FIRST LAST]    # compare those seeds, print what disagrees
"""

from __future__ import annotations

import copy
import math
import random
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toys import Function

import ppp

Conv = nn.Conv2d
WIDTH = 4
FULL = 16  # the largest total stride
AROUND = 256  # pixels of true surroundings, more than any margin


class Sum(nn.Module):
    """A branch added to its input."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Branches(nn.Module):
    """Branches side by side, their channels joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _same_size(draw: random.Random) -> nn.Module:
    """Return a convolution that keeps the map's size."""
    rows, columns = draw.choice([(3, 3), (3, 3), (5, 5), (1, 3), (5, 1), (3, 5), (1, 1)])
    dilation = draw.choice([1, 1, 1, 2])
    mode = draw.choice(["zeros", "zeros", "zeros", "reflect", "replicate", "circular"])
    padding = draw.choice(
        ["same", (dilation * (rows // 2), dilation * (columns // 2))]
        if mode == "zeros"
        else [(dilation * (rows // 2), dilation * (columns // 2))]
    )
    return Conv(
        WIDTH,
        WIDTH,
        (rows, columns),
        padding=padding,
        dilation=dilation,
        padding_mode=mode,
        groups=draw.choice([1, 1, WIDTH]),
        bias=draw.random() < 0.5,
    )


def _explicit(draw: random.Random) -> nn.Module:
    """Return a padding that stands by itself, and a convolution that takes it up."""
    sides = tuple(draw.choice([0, 1, 2]) for _ in range(4))
    left, right, top, bottom = sides
    conv = Conv(WIDTH, WIDTH, (top + bottom + 1, left + right + 1))
    mode = draw.choice(["constant", "reflect", "replicate", "circular"])
    modules = (nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
    own = dict(zip(("constant", "reflect", "replicate", "circular"), modules))[mode](sides)
    called = Function(lambda x: F.pad(x, sides, mode), f"F.pad {sides} {mode}")
    ours = Function(lambda x: ppp.pad(x, sides, "symmetric"), f"ppp.pad {sides}")
    return nn.Sequential(draw.choice([own, called, ours]), conv)


def _coarser(draw: random.Random) -> nn.Module:
    return draw.choice(
        [
            Conv(WIDTH, WIDTH, 3, 2, 1),
            Conv(WIDTH, WIDTH, 2, 2),
            Conv(WIDTH, WIDTH, 7, 2, 3),
            Conv(WIDTH, WIDTH, 4, 2, 1),
            nn.MaxPool2d(3, 2, 1),
            nn.MaxPool2d(2, ceil_mode=draw.random() < 0.5),
            nn.AvgPool2d(3, 2, 1),
            nn.AvgPool2d(2),
            Function(lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), "F.max_pool2d ceil"),
            Function(lambda x: F.avg_pool2d(x, 3, 2, 1), "F.avg_pool2d"),
        ]
    )


def _finer(draw: random.Random) -> nn.Module:
    return draw.choice(
        [
            nn.Upsample(scale_factor=2),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Upsample(scale_factor=2, mode="bicubic"),
            nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1),
            nn.ConvTranspose2d(WIDTH, WIDTH, 3, 2, 1, output_padding=1),
            nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2),
            nn.Sequential(Conv(WIDTH, 4 * WIDTH, 1), nn.PixelShuffle(2)),
        ]
    )


def _other(draw: random.Random) -> nn.Module:
    activations = [nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.Tanh(), nn.LeakyReLU(0.1)]
    pools = [nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1)]
    return draw.choice([*activations, *pools, nn.BatchNorm2d(WIDTH)])


def network(seed: int) -> tuple[nn.Module, int]:
    """Return a network whose last module is its layer of interest, and a window."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    parts: list[nn.Module] = [Conv(3, WIDTH, 3, draw.choice([1, 2]), draw.choice([0, 1, 1, 2]))]
    stride = parts[0].stride[0]
    for _ in range(draw.randint(1, 5)):
        kind = draw.random()
        if kind < 0.25 and stride < FULL:
            parts.append(_coarser(draw))
            stride *= 2
        elif kind < 0.37 and stride > 1:
            parts.append(_finer(draw))
            stride //= 2
        elif kind < 0.5:
            parts.append(Sum(_same_size(draw), _other(draw), _same_size(draw)))
        elif kind < 0.6:
            parts.append(Branches(_same_size(draw), nn.Sequential(_other(draw), _same_size(draw))))
            parts.append(Conv(2 * WIDTH, WIDTH, 1))
        elif kind < 0.72:
            parts.append(_explicit(draw))
        elif kind < 0.85:
            parts.append(_other(draw))
        else:
            parts.append(_same_size(draw))
    return nn.Sequential(*parts).eval(), draw.choice([48, 64, 80, 96])


def neutral(model: nn.Module) -> nn.Module:
    """Return a copy in which every influence is positive, so that none can cancel out.

    With random weights the outermost influence sinks below float error; activations and
    maxima hide what they do not let through.
    """
    model = copy.deepcopy(model).double()
    generator = torch.Generator().manual_seed(1)
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv | nn.ConvTranspose2d):
            weight = module.weight.data
            weight.uniform_(0.5, 1.5, generator=generator).div_(weight[0].numel())
            if module.bias is not None:
                module.bias.data.zero_()
        new = None
        if isinstance(module, nn.ReLU | nn.SiLU | nn.Tanh | nn.LeakyReLU):
            new = nn.Identity()
        elif isinstance(module, nn.MaxPool2d):
            new = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
        elif isinstance(module, Function) and module.text == "F.max_pool2d ceil":
            new = nn.AvgPool2d(3, 2, ceil_mode=True)
        if new is not None:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], new)
    return model


@torch.no_grad()
def brute_force(model: nn.Module, window: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return the cells of a window that differ from a much larger picture's, and the bands.

    Bands (left, right, top, bottom): how many cells differ on each side of a large map.
    """
    model = neutral(model)
    whole = 2 * AROUND + 512
    picture = torch.rand(1, 3, whole, whole, generator=torch.Generator().manual_seed(2)).double()
    features = model(picture)[0]

    def touched(size: int) -> np.ndarray:
        crop = model(picture[..., AROUND : AROUND + size, AROUND : AROUND + size])[0]
        first = AROUND // 2 ** round(math.log2(whole / features.shape[1]))
        cells = features[:, first : first + crop.shape[1], first : first + crop.shape[2]]
        return ((crop - cells).abs().amax(0) > 1e-13 * float(cells.max())).numpy()

    large = touched(512)
    bands = []
    for line in (large[large.shape[0] // 2], large[:, large.shape[1] // 2]):
        clean = np.flatnonzero(~line)
        bands += [int(clean[0]), len(line) - 1 - int(clean[-1])]
    return touched(window), tuple(bands)


def compare(seed: int) -> str:
    """Say "right", "wrong ..." or "refused ..." of one seed."""
    model, window = network(seed)
    layer = str(len(model) - 1)
    try:
        layer_coverage = ppp.coverage(model, [layer], window)[layer]
    except ppp.PPPError as error:
        return f"refused {error}"
    influence, bands = brute_force(model, window)
    if not layer_coverage.completeness.shown:
        return f"wrong {layer_coverage.completeness}"
    if layer_coverage.touched != bands:
        return f"wrong touched {layer_coverage.touched}, by brute force {bands}"
    if not np.array_equal(layer_coverage.influence, influence):
        return f"wrong influence at {(layer_coverage.influence ^ influence).sum()} cells"
    return "right"


def main() -> None:
    first, last = (int(text) for text in sys.argv[1:3] or ("0", "200"))
    verdicts = {seed: compare(seed) for seed in range(first, last)}
    for seed, text in verdicts.items():
        if text != "right":
            print(seed, text[:300], flush=True)
    kinds = [text.partition(" ")[0] for text in verdicts.values()]
    print({kind: kinds.count(kind) for kind in ("right", "wrong", "refused")})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
