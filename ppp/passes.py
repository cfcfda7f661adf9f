"""Optimal passes: over a picture, or over tiles of it so that memory stays within a bound."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from ppp.certificate import Coverage, first_cells
from ppp.completeness import Trial
from ppp.errors import PictureError, PPPError, shown
from ppp.extraction import Tap, gather, layout
from ppp.inventory import Audit, input_channels, running
from ppp.truth import TrueMaps, Truth, aligned
from ppp.windows import Picture, size_needed

_MAP_FROM, _TRIM_FROM = -3, -1  # parameters of glibc's mallopt, in bytes


def machine(device: torch.device, root: str | Path = "/") -> float:
    """Return the bytes of memory there are: a GPU's, or what this process may use at most.

    That is the machine's, or the limit of a control group around the process where it is
    lower; infinity where the system does not tell.

    Examples
    --------
    >>> machine(torch.device("cpu")) > 2**20
    True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    found, groups = [math.inf], Path(root, "proc/self/cgroup")
    with suppress(AttributeError, OSError, ValueError):  # no such call, or name
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, kind, group = line.split(":", 2)  # of the second version of groups without a kind
        name = {"": "memory.max", "memory": "memory.limit_in_bytes"}.get(kind, "")
        for part in (PurePosixPath(group), *PurePosixPath(group).parents):
            with suppress(OSError, ValueError):  # no such file, or "max"
                limit = Path(root, "sys/fs/cgroup", kind, *part.parts[1:], name)
                found.append(int(limit.read_text()))
    return min(found)


class Bound:
    """The bound on a measurement's memory, and what keeps it: small batches, pictures in tiles.

    Everything is estimated from passes over one window in which operators were watched. An
    allocator may hold more than is asked for.

    Parameters
    ----------
    memory, model, coverage, layers, distributions
        As in :func:`ppp.measure`.
    audits : sequence of Audit
        Of the network as it is, and of the network under each scheme.
    groups : int
        Most groups of pictures.
    batch : int
        Windows per batch that are wished for.
    sites : mapping of str to int, optional
        Of :func:`ppp.attribute`, which keeps true values at every site: how many of them reach
        each layer.

    Attributes
    ----------
    memory : int or None
        Bytes that the measurement may add to the process, None without a bound.
    batch : int
        Windows per batch.
    need : (height, width)
        Pixels of one window with its surroundings.
    pixels : float
        Most input pixels of one optimal pass.

    Raises
    ------
    PPPError
        No number of bytes, or too few for one window.
    """

    def __init__(
        self, memory: float | None, model, audits: Sequence[Audit], coverage: Coverage, layers,
        groups: int, batch: int, distributions: bool, sites: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        if memory not in (None, math.inf) and (type(memory) is not int or memory < 1):
            raise PPPError(
                f"memory is {shown(memory)}; expected bytes, a positive integer, None for a "
                "quarter of the machine's, or math.inf for no bound"
            )
        weight, schemes = next(model.parameters()), len(audits) - 1
        maps = [audits[0].outputs[layer] for layer in layers]
        every, largest = (8 / weight.element_size() * size for size in (sum(maps), max(maps)))
        # throughout: sums and results; true values of the trial; sums and change of a batch
        self.fixed = (schemes + 2 * distributions * (schemes + 1)) * every + audits[0].padded
        self.fixed, self.group, self.cells = self.fixed + 5 * largest, 2 * schemes * every, largest
        self.window = max(found.peak for found in audits) + 2 * sum(maps)
        area = math.prod(coverage.input_size)
        self.kept, self.working = sum(maps) / area, audits[0].peak / area
        if sites is not None:
            kept = {
                k: audits[0].outputs[k] / weight.element_size() * (1 + 2 * sites[k]) for k in sites
            }
            self.group = sum(8 * n * float(coverage[k].influence.mean()) for k, n in kept.items())
            self.fixed += 4 * sum(kept.values())
            self.window += audits[0].padded
            self.kept += audits[0].padded / area
        self.need, self.batch, self.source = size_needed(coverage.input_size, coverage), 1, "given"
        own, whole = math.prod(self.need), machine(weight.device)
        least = self.held(own, groups)
        if memory is None:
            memory = max(whole / 4, least)
            self.source = f"a quarter of {_mib(whole)}, or the least that it takes"
        if memory < least:
            raise PPPError(
                f"memory of {memory} bytes is too small: the sums and one window with its "
                f"surroundings, {self.need[0]} x {self.need[1]} px, need {least} bytes; give at "
                "least that, or fewer layers, schemes or groups"
            )
        room = memory - self.fixed - groups * self.group
        most = min(batch * self.window, room / 2, room - self.kept * own)
        self.batch = max(min(2, batch), int(most // self.window))
        beside = (room - self.window * max(2, self.batch)) / self.kept
        self.pixels = min(room / (self.kept + self.working), beside)
        self.memory = None if memory == math.inf else int(memory)

    def held(self, pixels: float, groups: int) -> int:
        """Return the bytes held at once with passes over so many pixels, and groups of pictures."""
        batch = self.window * max(2, self.batch)  # the trial is of two windows
        at_work = self.kept * pixels + max(self.working * pixels, batch)
        closing = 2 * (groups + 6) * self.cells
        return math.ceil(self.fixed + groups * self.group + max(closing, at_work))

    def said(self, held: int, tiled: int) -> str:
        """Say what was held, under which bound, and what the bound changed."""
        limit = f"at most {_mib(self.memory)}, {self.source}" if self.memory else "no bound"
        tiles = "tiles: equal up to float error, but for randn's draws" if tiled else "tiles"
        return (
            f"{_mib(held)} by estimate ({limit}), beside coverage, pictures and PyTorch's own "
            f"caches; batches of {self.batch} windows, {tiled} pictures in {tiles}"
        )


def _mib(amount: float) -> str:
    return f"{amount / 2**20:,.0f} MiB"


def tiles(
    tops: np.ndarray, lefts: np.ndarray, need: tuple[int, int], pixels: float
) -> list[np.ndarray]:
    """Put windows into tiles, each within the bound.

    What is too large is halved along its longer side, and so is what would cost more
    pixels than its windows one by one.

    Parameters
    ----------
    tops, lefts : ndarray of int, shape (n,)
        Offsets of the windows in one picture (px).
    need : (height, width)
        Pixels of one window with its surroundings.
    pixels : float
        Most pixels of a tile.

    Returns
    -------
    list of ndarray of int
        Indices of the windows of each tile; each window once. A single tile keeps the
        order that the windows are given in.

    Examples
    --------
    >>> tiles(np.array([0, 90, 4, 92]), np.array([0, 90, 4, 90]), (20, 20), 900)
    [array([0, 2]), array([1, 3])]
    """
    height, width = need

    def halved(part: np.ndarray, most: float) -> list[np.ndarray]:
        rows, columns = tops[part], lefts[part]
        if (height + np.ptp(rows)) * (width + np.ptp(columns)) <= min(pixels, most):
            return [part]
        order = part[np.argsort(max(rows, columns, key=np.ptp), kind="stable")]
        halves = np.array_split(order, 2)
        return [tile for half in halves for tile in halved(half, len(half) * height * width)]

    return halved(np.arange(len(tops)), math.inf)


def _mallopt() -> Callable[[int, int], int]:
    """Return glibc's switch of its own parameters, or what does nothing."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, "mallopt", lambda *_: 0)  # another C library has none


@contextmanager
def _mapped(wanted: bool) -> Iterator[None]:
    """Have glibc give back what is free, and meanwhile each larger block as soon as it is."""
    threshold = _mallopt() if wanted else lambda *_: 0
    if threshold(_MAP_FROM, 2**20):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        yield
    finally:
        threshold(_MAP_FROM, 2**25)  # where glibc's own comes to with large maps


@contextmanager
def reused() -> Iterator[None]:
    """Have glibc keep what one pass frees for the next one, instead of mapping it anew."""
    threshold = _mallopt()
    threshold(_MAP_FROM, 2**25)
    threshold(_TRIM_FROM, 2**31 - 1)
    try:
        yield
    finally:
        threshold(_TRIM_FROM, 2**26)  # where glibc's own comes to with large maps


class OptimalPasses:
    """Passes over pictures, or over tiles of them, for the optimal features of windows.

    ``compare`` is called with the proof of completeness that a window of the first tile gives.
    With ``true``, the true values at every padding site are kept too.
    """

    def __init__(
        self, model, layers, coverage: Coverage, limit: Bound, compare, true: bool = False
    ) -> None:
        self.tap, self.coverage = Tap(model, layers, to_the_end=False), coverage
        self.limit, self.compare, self.weight = limit, compare, next(model.parameters())
        size = coverage.input_size
        self.layout = layout(model, layers, input_channels(model, size), *size)
        left, right, top, bottom = coverage.margin
        after = coverage.tail[0] + bottom, coverage.tail[1] + right
        #: Stride, and pixels needed before a window and from its first one on; by axis.
        self.reach = list(zip(coverage.stride, (top, left), after))
        self.true = TrueMaps(model, coverage.sites) if true else None
        #: Passes, pictures that took several, and the pixels of the largest pass.
        self.count, self.tiled, self.largest, self.tried = 0, 0, 0, False

    def batches(
        self, picture: Picture, ends: Sequence[int] = ()
    ) -> Iterator[tuple[Tensor, dict, Truth | None]]:
        """Yield a picture's windows with each layer's optimal features of them, (n, C, H, W).

        And with the true values around them, if these are kept. No batch is larger than the
        bound's, nor reaches over the numbers of windows in `ends`.
        """
        tops, lefts = np.asarray(picture.tops), np.asarray(picture.lefts)
        self._check(picture, tops, lefts)
        bound, batch = (self.limit.need, self.limit.pixels), self.limit.batch
        parts, done = tiles(tops, lefts, *bound), 0
        if len(parts) > 1:
            self.tiled += 1
            between = np.split(np.arange(len(tops)), ends)
            parts = [p[tile] for p in between for tile in tiles(tops[p], lefts[p], *bound)]
        for part in parts:
            y, bottom = self._extent(tops[part], 0, picture.pixels.shape[1])
            x, right = self._extent(lefts[part], 1, picture.pixels.shape[2])
            pixels = picture.pixels[None, :, y:bottom, x:right].to(self.weight.device)
            pixels = pixels.contiguous(memory_format=self.layout)
            rows, columns = tops[part] - y, lefts[part] - x
            with _mapped(len(parts) > 1):
                maps = self._pass(pixels, rows, columns)
            inside = [end - done for end in ends if done < end < done + len(part)]
            for piece in np.split(np.arange(len(part)), inside):
                for b in np.split(piece, range(batch, len(piece), batch)):
                    cuts = {
                        layer: gather(map_, i[b], j[b], self.coverage[layer].influence.shape)
                        for layer, (map_, i, j) in maps.items()
                    }
                    windows = gather(pixels[0], rows[b], columns[b], self.coverage.input_size)
                    truth = self.true.around(rows[b], columns[b]) if self.true else None
                    yield windows.contiguous(memory_format=self.layout), cuts, truth
            done += len(part)
            del maps, cuts, truth  # before the next tile

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
            stride, before, after = self.reach[axis]
            needed = -(-before // stride), -(-after // stride)
            _, stop = self._extent(offsets, axis, picture.pixels.shape[1 + axis])
            first_cells(name, word, offsets, stride, needed, stop // stride)

    def _pass(self, pixels: Tensor, tops: np.ndarray, lefts: np.ndarray) -> dict[str, tuple]:
        """Run the network; return each layer's map, and the windows' first cells in it."""
        maps: dict[str, tuple[Tensor, np.ndarray, np.ndarray]] = {}

        def keep(layer: str, output: Tensor) -> None:
            cells = self.coverage[layer].certify(tuple(output.shape[-2:]), tops, lefts)
            maps[layer] = (output[0].clone(), *cells)

        same = aligned(self.tap.model, self.coverage.sites)
        kept = self.true.recorded() if self.true else same
        with running(tuple(pixels.shape[2:])):
            if self.tried:
                with kept:
                    self.tap(pixels, keep)
            else:
                measured, place = self.coverage.only(self.tap.layers), (int(tops[0]), int(lefts[0]))
                trial = Trial(self.tap.model, measured, pixels, place)
                with trial.recorded(), kept:
                    self.tap(pixels, keep)
                self.compare(trial.verdict({k: trial.cut(k, m) for k, (m, *_) in maps.items()}))
                self.tried = True
        self.count += 1
        self.largest = max(self.largest, pixels[0, 0].numel())
        return maps

    def _extent(self, offsets: np.ndarray, axis: int, size: int) -> tuple[int, int]:
        """Return where the needed part of a picture starts and ends: multiples of the stride."""
        stride, before, after = self.reach[axis]
        start = max(0, (int(offsets.min()) - before) // stride * stride)
        stop = -(-(int(offsets.max()) + after) // stride) * stride
        return start, min(stop, size - (size - start) % stride)
