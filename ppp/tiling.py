"""Seamless inference in tiles: how wide they must overlap, and where they may lie. [ours]"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from ppp.certificate import Pixels
from ppp.errors import GridError, PPPError, shown
from ppp.extraction import exact_kernels, extract
from ppp.influence import coverage
from ppp.inventory import audit, input_channels, input_shape
from ppp.padding import Sides


@dataclass(frozen=True)
class Tiling:
    """Tiles of a picture whose features, put together, are those of the whole.

    Attributes
    ----------
    layer : str
    halo : (left, right, top, bottom)
        Pixels around a tile's own part that are run too, and thrown away; none at the border of
        the picture.
    step : (y, x)
        Own parts begin at multiples of it (px).
    stride : (y, x)
        Pixels between the layer's cells.
    tile : (height, width)
        Largest tile within the memory, with its halo (px).
    memory : int
        Bytes that it takes by estimate.
    difference : float
        Between tiles and whole when it was tried, in units of the largest feature.
    """

    layer: str
    halo: Sides
    step: tuple[int, int]
    stride: tuple[Pixels, Pixels]
    tile: tuple[int, int]
    memory: int
    difference: float = math.nan

    def __str__(self) -> str:
        (height, width), (y, x) = self.tile, self.step
        return (
            f"layer {self.layer!r}: tiles of {height} x {width} px ({self.memory / 2**20:,.0f} MiB "
            f"by estimate), own parts at multiples of {y} x {x} px, halo (left, right, top, bottom)"
            f" {self.halo} px; tiles and whole differ by {self.difference:.1e}"
        )

    def features(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the layer's map of pictures (N, C, H, W), run tile by tile."""
        rows = []
        for rows_read, rows_kept in self._parts(0, x.shape[2]):
            parts = []
            for columns_read, columns_kept in self._parts(1, x.shape[3]):
                map_ = extract(model, x[..., rows_read, columns_read], [self.layer])[self.layer]
                parts.append(map_[..., rows_kept, columns_kept])
            rows.append(torch.cat(parts, 3))
        return torch.cat(rows, 2)

    def _parts(self, axis: int, size: int) -> Iterator[tuple[slice, slice]]:
        """Yield the pixels of each tile on an axis, and the cells of its map that are kept."""
        step, stride = self.step[axis], Fraction(self.stride[axis])
        before, after = self.halo[2 - 2 * axis], self.halo[3 - 2 * axis]
        before, start = -(-before // step) * step, 0
        while start < size:
            first = max(0, start - before)
            if last := first + self.tile[axis] >= size:  # as large as the others
                first = max(0, min(first, -((self.tile[axis] - size) // step) * step))
            stop = size if last else (first + self.tile[axis] - after) // step * step
            end = None if last else int((stop - first) / stride)
            cells = slice(int((start - first) / stride), end)
            yield slice(first, size if last else stop + after), cells
            start = stop


def tiles(
    model: nn.Module, layer: str, memory: int, *, window: int | tuple[int, int] = 224
) -> Tiling:
    """Find the halo, the step and the largest square tile for inference without seams.

    It is tried: on noise, tiles and whole must give the same features.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    layer : str
        Whose map is wanted; with a finite margin.
    memory : int
        Bytes that a pass over one tile may hold, beside the weights.
    window : int or (height, width)
        An input size that the model runs on (px), from which the memory is estimated.

    Returns
    -------
    Tiling
        ``str()`` of it is the recipe; ``.features(model, x)`` follows it.

    Raises
    ------
    MarginError
        No finite margin.
    PPPError
        Too little memory for the halo and one step.
    GridError
        The tiles' features are others.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)).eval()
    >>> found = tiles(net, "1", 2**20)
    >>> found.halo, found.step
    ((4, 2, 4, 2), (2, 2))
    >>> x = torch.rand(1, 3, 300, 400)
    >>> bool((found.features(net, x) - net(x)).abs().max() < 1e-5)
    True
    """
    if type(memory) is not int or memory < 1:
        raise PPPError(f"memory is {shown(memory)}; expected bytes, a positive integer")
    shape = input_shape(window)
    reach = coverage(model, [layer], shape)
    left, right, top, bottom = reach.margin
    y, x = reach.stride
    lacking = [max(0, -cells * s) for cells, s in zip(reach[layer].surplus, reach[layer].stride)]
    bottom, right = bottom + math.ceil(lacking[0]), right + math.ceil(lacking[1])
    axes = (top, bottom, y), (left, right, x)
    least = [-(-before // s) * s + s + -(-after // s) * s for before, after, s in axes]
    pixel = audit(model, shape).peak / math.prod(shape)
    side = math.isqrt(int(memory / pixel))
    tile = side // y * y, side // x * x
    if tile[0] < least[0] or tile[1] < least[1]:
        need = math.ceil(max(least) ** 2 * pixel)
        raise PPPError(
            f"memory of {memory} bytes is too small: one step of layer {layer!r} with its halo, "
            f"{least[0]} x {least[1]} px, needs {need} bytes"
        )
    stride = reach[layer].stride
    halo = left, right, top, bottom
    found = Tiling(layer, halo, (y, x), stride, tile, int(pixel * math.prod(tile)))
    return replace(found, difference=_tried(model, replace(found, tile=tuple(least)), shape))


def _tried(model: nn.Module, small: Tiling, shape: tuple[int, int]) -> float:
    """Return how much tiles and whole differ on noise, with the smallest tiles."""
    weight, sides = next(model.parameters()), [2 * t + s for t, s in zip(small.tile, small.step)]
    seed, channels = torch.Generator().manual_seed(0), input_channels(model, shape)
    noise = torch.randn(1, channels, *sides, generator=seed).to(weight)
    with exact_kernels():
        whole = extract(model, noise, [small.layer])[small.layer]
        parts = small.features(model, noise)
    same = whole.shape == parts.shape
    difference = float((whole - parts).abs().max() / whole.abs().max()) if same else math.inf
    if not difference <= 1e-4:
        raise GridError(
            f"layer {small.layer!r}: tiles and whole differ by {difference:.1e} of the largest "
            "feature: the network pads by amounts that depend on the size, or by chance; take a "
            "layer before it, or another padding"
        )
    return difference
