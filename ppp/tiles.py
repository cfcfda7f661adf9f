"""Tiles: windows of a picture, put together so that one optimal pass stays within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ppp.errors import PPPError
from ppp.extraction import Tap
from ppp.influence import Coverage
from ppp.inventory import input_channels
from ppp.windows import size_needed

_STRIPS = 32
"""Most strips of windows that a picture is divided into."""


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
        """Put windows into tiles, each within the bound, with few pixels in all.

        Windows are taken strip by strip from the top, each from left to right. A window
        joins a tile as long as the bound allows it, or only where that costs no more pixels
        than a tile of its own. Of both ways, at several heights of the strips, the one with
        the fewest pixels is taken.

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
        if self.area(tops, lefts) <= self.pixels:
            return [np.arange(len(tops))]
        heights = sorted({int(np.ptp(tops)) // strips for strips in range(1, _STRIPS + 1)} | {0})
        choices = [
            self._strips(tops, lefts, height, sparing)
            for height in heights
            for sparing in (False, True)
        ]
        return min(choices, key=lambda parts: sum(self.area(tops[p], lefts[p]) for p in parts))

    def _strips(
        self, tops: np.ndarray, lefts: np.ndarray, height: int, sparing: bool
    ) -> list[np.ndarray]:
        found, single = [], self.need[0] * self.need[1]
        rest = np.argsort(tops, kind="stable")
        while len(rest):
            inside = tops[rest] <= tops[rest[0]] + height
            strip, rest = rest[inside], rest[~inside]
            strip = strip[np.argsort(lefts[strip], kind="stable")]
            start, area = 0, single
            for stop in range(1, len(strip)):
                joint = self.area(tops[strip[start : stop + 1]], lefts[strip[start : stop + 1]])
                if joint > (min(self.pixels, area + single) if sparing else self.pixels):
                    found.append(strip[start:stop])
                    start, joint = stop, single
                area = joint
            found.append(strip[start:])
        return found


def bound(model: nn.Module, layers: Sequence[str], reach: Coverage, memory: int) -> Bound:
    """Turn bytes into pixels, by one pass over one window with its surroundings.

    Parameters
    ----------
    model, layers, reach
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
    need = size_needed(reach.input_size, reach)
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

    def seen(_module: nn.Module, inputs: tuple, output: object) -> None:
        largest.append(sum(t.nbytes for t in (*inputs, output) if isinstance(t, Tensor)))

    leaves = [module for module in model.modules() if not any(module.children())]
    handles = [module.register_forward_hook(seen) for module in leaves]
    try:
        Tap(model, layers)(x, lambda _layer, output: kept.append(output.nbytes))
    finally:
        for handle in handles:
            handle.remove()
    return sum(kept) + 2 * max(largest)
