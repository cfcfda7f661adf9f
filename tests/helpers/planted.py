"""A network with a planted pattern: every statistic of its padding is known in closed form.

One convolution with zero padding. Its input holds maps that are constant in a scene, on which a
kernel of sum 0 gives the border map e: 0 inside, known values where it reaches the padding. Further
channels pass through it, a white texture that hides the pattern in one map. So in channel c

    O = texture_c,    D = e * (a_c + b_c * u_c),

with u_c a number of mean 0 and variance 1 that each window carries: d = a e and s = |b e|.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from toys import sequential

import ppp

SIZE = 12  # px of a window, and cells of its map
_BLOCK = SIZE + 4  # px of a scene for one window, in whole

EDGE = torch.tensor([[1.0, 1.0, 1.0], [1.0, -8.0, 1.0], [1.0, 1.0, 1.0]]) / 8
"""A mean of neighbours less the cell: -3/8 on the edges, -5/8 in the corners."""
CORNER = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
"""1 in the upper left corner alone, though every cell at the border reads the padding."""

DRAWS = {
    "symmetric": lambda draw, *shape: draw.normal(size=shape),
    "skewed": lambda draw, *shape: draw.exponential(size=shape) - 1,
}


@dataclass(frozen=True)
class Planted:
    """A planted pattern, and what is known of it.

    Attributes
    ----------
    a, b : tuple of float
        Of each channel: strength of the pattern, and of the noise of a window.
    kernel : Tensor
        ``EDGE`` or ``CORNER``.
    """

    a: tuple[float, ...]
    b: tuple[float, ...]
    kernel: Tensor = EDGE

    def network(self) -> nn.Module:
        """Return the network, whose layer is "0"; the last input channel is all ones."""
        count = len(self.a)
        conv = nn.Conv2d(2 * count + 1, count, 3, padding=1, bias=False)
        with torch.no_grad():
            conv.weight.zero_()
            for c in range(count):
                conv.weight[c, c, 1, 1] = 1
                conv.weight[c, count + c] = self.b[c] * self.kernel
                conv.weight[c, -1] = self.a[c] * self.kernel
        return nn.Sequential(conv).eval()

    def windows(
        self, pictures: int, per_picture: int = 1, *, noise: str = "symmetric",
        shared: float = 0.0, seed: int = 0, name: str = "picture",
    ) -> ppp.Windows:  # fmt: skip
        """Draw pictures, rows of scenes with one window each.

        `shared` is the part of the variance of u that the windows of a picture have in common.
        """
        draw, count, made = np.random.default_rng(seed), len(self.a), []
        for index in range(pictures):
            u = np.sqrt(shared) * DRAWS[noise](draw, 1, count)
            u = u + np.sqrt(1 - shared) * DRAWS[noise](draw, per_picture, count)
            flat = _exact(np.repeat(u.T, _BLOCK, axis=1))[:, None].expand(-1, _BLOCK, -1)
            texture = _exact(draw.normal(size=flat.shape))
            pixels = torch.cat([texture, flat, torch.ones(1, *flat.shape[1:])])
            lefts = 2 + _BLOCK * np.arange(per_picture)
            made.append(ppp.Picture(f"{name} {index}", pixels, np.full(per_picture, 2), lefts))
        return ppp.Windows(made, SIZE)

    @property
    def border(self) -> np.ndarray:
        """The border map e, float64."""
        ones = torch.ones(1, 1, SIZE, SIZE, dtype=torch.float64)
        kernel = self.kernel.double()[None, None]
        return F.conv2d(ones, kernel, padding=1)[0, 0].numpy()

    @property
    def influenced(self) -> float:
        """Share of cells that read the padding."""
        return 1 - ((SIZE - 2) / SIZE) ** 2

    def areas(self, n: int = 1) -> dict[str, float]:
        """Area under the ROC curve of a filter that knows the pattern, for means of n maps.

        Scores are normal: both have the texture's variance, the algorithmic ones also that of u.
        """
        a, b, size = np.array(self.a), np.array(self.b), np.sum(self.border**2)
        best = int(np.argmax(a / np.sqrt(2 + b**2 * size)))

        def found(a: np.ndarray, b: np.ndarray, texture: float = 1) -> float:
            spread = np.sqrt((2 * texture * np.sum(a**2) + size * np.sum((a * b) ** 2)) / n)
            return float(stats.norm.cdf(np.sum(a**2) * np.sqrt(size) / spread)) if a.any() else 0.5

        mean = np.array([a.mean()]), np.array([np.linalg.norm(b) / len(b)])
        return {
            "all channels": found(a, b),
            "best channel": found(a[[best]], b[[best]]),
            "channel mean": found(*mean, 1 / len(a)),
        }


@dataclass(frozen=True)
class TwoSites:
    """Two convolutions that pad, each with a planted pattern of its own, and what comes behind.

    In channel c, site i gives e_i (a_ic + b_ic u_ic), with e_i the border map of its kernel and u
    a number of mean 0 and variance 1 that each window carries. Layer "0" shows what the first
    gives, on top of a texture, layer "1" what both give, layer "2" what `last` makes of it.

    Attributes
    ----------
    a, b : pair of tuple of float
        Of each site and channel: strength of the pattern, and of the noise of a window.
    kernels : pair of Tensor
    texture : tuple of float
        Of each channel.
    last : callable
        Of maps; by default it changes nothing.
    """

    a: tuple[tuple[float, ...], tuple[float, ...]]
    b: tuple[tuple[float, ...], tuple[float, ...]]
    texture: tuple[float, ...]
    kernels: tuple[Tensor, Tensor] = (EDGE, EDGE)
    last: Callable[[Tensor], Tensor] = lambda maps: maps

    def network(self) -> nn.Module:
        """Return the network; the last input channel is all ones."""
        count = len(self.texture)
        first = nn.Conv2d(3 * count + 1, 2 * count + 1, 3, padding=1, bias=False)
        second = nn.Conv2d(2 * count + 1, count, 3, padding=1, bias=False)
        with torch.no_grad():
            first.weight.zero_()
            second.weight.zero_()
            first.weight[-1, -1, 1, 1] = 1
            for c in range(count):
                first.weight[count + c, 2 * count + c, 1, 1] = 1
                for site, conv in enumerate((first, second)):
                    conv.weight[c, c, 1, 1] = 1
                    conv.weight[c, count + c] = self.b[site][c] * self.kernels[site]
                    conv.weight[c, -1] = self.a[site][c] * self.kernels[site]
        return sequential(first, second, self.last)

    def windows(self, pictures: int, per_picture: int = 1, seed: int = 0) -> ppp.Windows:
        """Draw pictures, rows of scenes with one window each."""
        draw, made = np.random.default_rng(seed), []
        strength = np.array(self.texture)[:, None, None]
        for index in range(pictures):
            u = draw.normal(size=(2 * len(strength), per_picture))
            flat = _exact(np.repeat(u, _BLOCK, axis=1))[:, None].expand(-1, _BLOCK, -1)
            texture = _exact(strength * draw.normal(size=(len(strength), *flat.shape[1:])))
            pixels = torch.cat([texture, flat, torch.ones(1, *flat.shape[1:])])
            lefts = 2 + _BLOCK * np.arange(per_picture)
            made.append(ppp.Picture(f"picture {index}", pixels, np.full(per_picture, 2), lefts))
        return ppp.Windows(made, SIZE)

    @property
    def borders(self) -> tuple[np.ndarray, np.ndarray]:
        """The border maps e of both sites, float64."""
        first, second = (Planted((), (), kernel).border for kernel in self.kernels)
        return first, second

    @property
    def patterns(self) -> np.ndarray:
        """What each site gives without noise, a e: (2, C, H, W), float64."""
        return np.array([np.multiply.outer(a, e) for a, e in zip(self.a, self.borders)])


def _exact(values: np.ndarray) -> Tensor:
    """Round to steps of which float32 holds every sum: where D is 0, no rounding noise is left."""
    return torch.from_numpy(np.round(values * 256) / 256).float()
