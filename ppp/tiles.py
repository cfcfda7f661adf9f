"""Optimal passes: over a picture, or over tiles of it so that each stays within a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ppp.certificate import Coverage, first_cells
from ppp.completeness import Trial
from ppp.errors import PictureError, PPPError
from ppp.extraction import Tap, gather, layout
from ppp.inventory import input_channels, running
from ppp.windows import Picture, size_needed


@dataclass(frozen=True)
class Bound:
    """What one optimal pass may use, in bytes and in pixels.

    Attributes
    ----------
    need : (height, width)
        Pixels of one window with its surroundings.
    pixels : int
        Most input pixels of one pass.
    """

    need: tuple[int, int]
    pixels: int

    def area(self, tops: np.ndarray, lefts: np.ndarray) -> int:
        """Return the pixels that windows at these offsets need together."""
        return int((self.need[0] + np.ptp(tops)) * (self.need[1] + np.ptp(lefts)))

    def tiles(self, tops: np.ndarray, lefts: np.ndarray) -> list[np.ndarray]:
        """Put windows into tiles, each within the bound.

        What is too large is halved along its longer side, and so is what would cost more
        pixels than its windows one by one.

        Parameters
        ----------
        tops, lefts : ndarray of int, shape (n,)
            Offsets of the windows in one picture (px).

        Returns
        -------
        list of ndarray of int
            Indices of the windows of each tile; each window once. A single tile keeps the
            order that the windows are given in.

        Examples
        --------
        >>> bound = Bound((20, 20), 900)
        >>> bound.tiles(np.array([0, 90, 4, 92]), np.array([0, 90, 4, 90]))
        [array([0, 2]), array([1, 3])]
        """

        def halved(part: np.ndarray) -> list[np.ndarray]:
            single = self.need[0] * self.need[1]
            if self.area(tops[part], lefts[part]) <= min(self.pixels, len(part) * single):
                return [part]
            longer = max(tops[part], lefts[part], key=np.ptp)
            first, second = np.array_split(part[np.argsort(longer, kind="stable")], 2)
            return halved(first) + halved(second)

        every = np.arange(len(tops))
        return [every] if self.area(tops, lefts) <= self.pixels else halved(every)


def bound(model: nn.Module, layers: Sequence[str], coverage: Coverage, memory: int) -> Bound:
    """Turn bytes into pixels, by one pass over one window with its surroundings.

    Parameters
    ----------
    model, layers, coverage
        As in :func:`ppp.measure`.
    memory : int
        Bytes that one optimal pass may use.

    Raises
    ------
    PPPError
        No number of bytes, or too few for one window.

    Examples
    --------
    >>> import ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> bound(net, ["0"], ppp.coverage(net, ["0"], 16), 200_000)
    Bound(need=(18, 18), pixels=2380)
    """
    if type(memory) is not int or memory < 1:
        raise PPPError(f"memory is {memory!r}; expected bytes, a positive integer, or None")
    need = size_needed(coverage.input_size, coverage)
    least = pass_bytes(model, layers, need)
    if memory < least:
        raise PPPError(
            f"memory of {memory} bytes is too small: one window with its surroundings, "
            f"{need[0]} x {need[1]} px, needs {least} bytes; give at least that, or fewer layers"
        )
    return Bound(need, memory * need[0] * need[1] // least)


def pass_bytes(model: nn.Module, layers: Sequence[str], size: tuple[int, int]) -> int:
    """Estimate the bytes that one optimal pass over an input of this size uses.

    The input, the maps of all layers of interest, which are kept, and twice the largest
    input and output of a module without submodules: once for themselves, once for what
    else is alive beside them (a residual branch, an operator's own workspace). It is an
    estimate: an allocator may hold more than is asked for.

    Examples
    --------
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> pass_bytes(net, ["0"], (10, 10)) == 4 * 100 * (3 + 4 + 2 * (3 + 4))
    True
    """
    weight = next(model.parameters())
    x = torch.zeros(1, input_channels(model), *size, dtype=weight.dtype, device=weight.device)
    kept, largest = [x.nbytes], [0]

    def seen(module: nn.Module, inputs: tuple, output: object) -> None:
        if not any(module.children()):
            largest.append(sum(t.nbytes for t in (*inputs, output) if isinstance(t, Tensor)))

    with nn.modules.module.register_module_forward_hook(seen):
        Tap(model, layers)(x, lambda _layer, output: kept.append(output.nbytes))
    return sum(kept) + 2 * max(largest)


class OptimalPasses:
    """Passes over pictures, or over tiles of them, for the optimal features of windows.

    ``compare`` is called with the proof of completeness that a window of the first tile gives.
    """

    def __init__(self, model, layers, coverage: Coverage, limit: Bound | None, compare) -> None:
        self.tap, self.coverage = Tap(model, layers, to_the_end=False), coverage
        self.limit, self.compare = limit, compare
        self.weight = next(model.parameters())
        self.count, self.tried = 0, False
        self.layout = layout(model, layers, input_channels(model), *coverage.input_size)

    def batches(
        self, picture: Picture, size: int, ends: Sequence[int]
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield a picture's windows with each layer's optimal features of them, (n, C, H, W).

        A batch holds `size` windows at most; none reaches over the numbers of windows in `ends`.
        """
        tops, lefts = np.asarray(picture.tops), np.asarray(picture.lefts)
        self._check(picture, tops, lefts)
        parts, done = [np.arange(len(tops))], 0
        if self.limit and self.limit.area(tops, lefts) > self.limit.pixels:
            between = np.split(parts[0], ends)
            parts = [p[tile] for p in between for tile in self.limit.tiles(tops[p], lefts[p])]
        for part in parts:
            y, bottom = self._extent(tops[part], 0, picture.pixels.shape[1])
            x, right = self._extent(lefts[part], 1, picture.pixels.shape[2])
            pixels = picture.pixels[None, :, y:bottom, x:right].to(self.weight.device)
            pixels = pixels.contiguous(memory_format=self.layout)
            rows, columns = tops[part] - y, lefts[part] - x
            maps = self._pass(pixels, rows, columns)
            start, stops = 0, [*(end - done for end in ends), len(part)]
            while start < len(part):
                stop = min(start + size, *(stop for stop in stops if stop > start))
                b = slice(start, stop)
                windows = gather(pixels[0], rows[b], columns[b], self.coverage.input_size)
                windows = windows.contiguous(memory_format=self.layout)
                yield (
                    windows,
                    {
                        layer: gather(map_, i[b], j[b], self.coverage[layer].influence.shape)
                        for layer, (map_, i, j) in maps.items()
                    },
                )
                start = stop
            done += len(part)

    def _check(self, picture: Picture, tops: np.ndarray, lefts: np.ndarray) -> None:
        """Refuse pixels of another type, misaligned windows and narrow surroundings.

        For all layers at once; each one's own certificate is checked again on its map.
        """
        if picture.pixels.dtype != self.weight.dtype:
            raise PictureError(
                f"picture {picture.name!r} is {picture.pixels.dtype}, the network "
                f"{self.weight.dtype}; convert with pixels.to({self.weight.dtype})"
            )
        name = f"layers {list(self.coverage)} of picture {picture.name!r}"
        for axis, (word, offsets) in enumerate((("vertical", tops), ("horizontal", lefts))):
            stride = self.coverage.stride[axis]
            before, after = self.coverage.margin[2 - 2 * axis : 4 - 2 * axis]
            needed = -(-before // stride), -(-(self.coverage.tail[axis] + after) // stride)
            _, stop = self._extent(offsets, axis, picture.pixels.shape[1 + axis])
            first_cells(name, word, offsets, stride, needed, stop // stride)

    def _pass(
        self, pixels: Tensor, tops: np.ndarray, lefts: np.ndarray
    ) -> dict[str, tuple[Tensor, np.ndarray, np.ndarray]]:
        """Run the network; return each layer's map, and the windows' first cells in it."""
        maps: dict[str, tuple[Tensor, np.ndarray, np.ndarray]] = {}

        def keep(layer: str, output: Tensor) -> None:
            cells = self.coverage[layer].certify(tuple(output.shape[-2:]), tops, lefts)
            maps[layer] = (output[0].clone(), *cells)

        with running(tuple(pixels.shape[2:])):
            if self.tried:
                self.tap(pixels, keep)
            else:
                measured, place = self.coverage.only(self.tap.layers), (int(tops[0]), int(lefts[0]))
                trial = Trial(self.tap.model, measured, pixels, place)
                with trial.recorded():
                    self.tap(pixels, keep)
                self.compare(trial.verdict({k: trial.cut(k, m) for k, (m, *_) in maps.items()}))
                self.tried = True
        self.count += 1
        return maps

    def _extent(self, offsets: np.ndarray, axis: int, size: int) -> tuple[int, int]:
        """Return where the needed part of a picture starts and ends: multiples of the stride."""
        stride = self.coverage.stride[axis]
        before, after = self.coverage.margin[2 - 2 * axis : 4 - 2 * axis]
        start = max(0, (int(offsets.min()) - before) // stride * stride)
        stop = -(-(int(offsets.max()) + self.coverage.tail[axis] + after) // stride) * stride
        return start, min(stop, size - (size - start) % stride)
