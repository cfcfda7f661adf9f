"""Proof that a network's list of padding sites is complete. [ours]

Every listed site of a window gets its true values, cut out of a pass over a larger picture,
whatever that pass does at its own border. If the features then equal the larger pass's own
on every cell, nothing else pads, and the cells of window and picture lie at the same places.
The window runs beside another picture, so that what depends on the batch shows too.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ppp.certificate import Completeness, Coverage, common
from ppp.errors import GridError, PPPError
from ppp.extraction import Finished, Tap, copies
from ppp.inventory import input_channels, running
from ppp.truth import Truth

#: Pixels (or a layer's stride, if that is more) by which every layer must move.
_LARGEST = 128


class Trial:
    """One window of one larger picture, with which completeness is tried."""

    def __init__(
        self, model: nn.Module, coverage: Coverage, picture: Tensor, place: Sequence[int], fill=None
    ) -> None:
        self.model, self.coverage, self.picture, self.place = model, coverage, picture, place
        self.fill, self.tap = fill, Tap(model, list(coverage), to_the_end=False)
        self.truth = Truth(model, coverage.sites, place[:1], place[1:])
        rows, columns = (slice(o, o + size) for o, size in zip(place, coverage.input_size))
        window = picture[:, :, rows, columns]
        self.window = torch.cat([window, 0.5 * window.flip(0, 2, 3) + 0.25 * window.roll(1, 3)])
        #: Float error of a feature, in units of the layer's largest.
        self.tolerance = 1e-9 if picture.dtype == torch.float64 else 1e-4

    def recorded(self) -> AbstractContextManager[None]:
        """Keep true values while the larger picture runs, which the caller sees to."""
        return self.truth.recorded(self.fill)

    def larger(self) -> dict[str, Tensor]:
        """Run the larger picture; return the window's part of every layer."""
        with self.recorded():
            maps = copies(self.tap, self.picture)
        return {layer: self.cut(layer, map_[0]) for layer, map_ in maps.items()}

    def cut(self, layer: str, map_: Tensor) -> Tensor:
        """Return the window's part of the picture's map, (C, H, W)."""
        cells = self.coverage[layer]
        y, x = (int(o // stride) for o, stride in zip(self.place, cells.stride))
        height, width = cells.influence.shape
        return map_[:, y : y + height, x : x + width]

    def compare(self, expected: dict[str, Tensor]) -> tuple[dict, dict]:
        """Run the window with its true values; return each layer's proof and differences by cell.

        A proof that fails does not name the module yet.
        """
        with self.truth.injected():
            maps = copies(self.tap, self.window)
        found = {layer: _differences(maps[layer][0], map_) for layer, map_ in expected.items()}
        worst = {k: math.inf if d is None else float(d.max()) for k, d in found.items()}
        return {k: Completeness(value, self.tolerance) for k, value in worst.items()}, found

    def verdict(self, expected: dict[str, Tensor]) -> dict[str, Completeness]:
        """Compare every layer; where one differs, name the module at which it begins.

        Raises
        ------
        GridError
            The features differ in the middle of a map too: no padding can be the reason.
        """
        proofs, differences = self.compare(expected)
        first = next((layer for layer, proof in proofs.items() if not proof.shown), None)
        if first is None:
            return proofs
        module, relative = self._first_that_differs() or (first, differences[first])
        if relative is None or not self._middle_agrees(relative):
            height, width = self.coverage.input_size
            y, x = least_steps(self.coverage)
            uneven = height % y or width % x
            other = f", or try a window of a multiple of {y} x {x} px" if uneven else ""
            raise GridError(
                f"layer {first!r} depends on where a cell lies, on the input's size or on the "
                f"batch: even with true values at all padding, module {module!r} gives other "
                f"features on a {height} x {width} window than on a larger picture there; choose "
                f"a layer before it{other}"
            )
        return {k: p if p.shown else replace(p, module=module) for k, p in proofs.items()}

    def _middle_agrees(self, relative: Tensor) -> bool:
        rows, columns = (slice(-(-size // 4), size - -(-size // 4)) for size in relative.shape)
        middle = relative[rows, columns]
        return middle.numel() > 0 and bool((middle <= self.tolerance).all())

    def _first_that_differs(self) -> tuple[str, Tensor] | None:
        """Return the first module to end whose output differs, and by how much on each cell."""
        maps: dict[str, list[Tensor]] = defaultdict(list)
        with self.truth.injected():
            self._every_output(self.window, lambda name, map_: maps[name].append(map_))
        differing: list[tuple[str, Tensor]] = []

        def compare(name: str, whole: Tensor) -> None:
            relative = self._closest(maps[name].pop(0), whole) if maps[name] else None
            if relative is not None and not bool((relative <= self.tolerance).all()):
                differing.append((name, relative))
                raise Finished

        with self.recorded():
            self._every_output(self.picture, compare)
        return differing[0] if differing else None

    def _every_output(self, x: Tensor, seen: Callable[[str, Tensor], None]) -> None:
        """Call ``seen(module, map)`` for every map, its channels added up with odd weights."""
        names = {module: name for name, module in self.model.named_modules()}

        def look(module: nn.Module, _inputs: object, out: object) -> None:
            maps = isinstance(out, Tensor) and out.ndim == 4 and out.is_floating_point()
            if maps and names.get(module):
                channels = torch.arange(out.shape[1], dtype=out.dtype, device=out.device)
                added = torch.tensordot(channels.add(1).cos(), out[0].detach(), 1)
                seen(names[module], added[None])

        with nn.modules.module.register_module_forward_hook(look):
            self.tap(x, lambda *_: None)

    def _closest(self, map_: Tensor, whole: Tensor) -> Tensor | None:
        """Compare a map with the part of the picture's that is most like it."""
        _, height, width = map_.shape
        more = whole.shape[1] - height, whole.shape[2] - width
        starts = []
        for axis, place in enumerate(self.place):  # one cell more or less where a map is odd
            pixels = self.picture.shape[2 + axis] - self.coverage.input_size[axis]
            near = place * more[axis] / pixels
            most = min(more[axis], int(near + 1.5))
            starts.append(range(max(0, math.ceil(near - 1.5)), most + 1))
        parts = (whole[:, y : y + height, x : x + width] for y, x in itertools.product(*starts))
        found = [relative for p in parts if (relative := _differences(map_, p)) is not None]
        return min(found, key=lambda relative: float(relative.mean()), default=None)


def _differences(map_: Tensor, expected: Tensor) -> Tensor | None:
    """Return the largest difference on each cell, relative; None of maps of two shapes."""
    if map_.shape != expected.shape or not map_.numel():
        return None
    peak = float(expected.abs().max())
    difference = (map_ - expected).abs().amax(0)
    return torch.where(difference.isnan(), math.inf, difference) / (peak or 1.0)


def prove(model: nn.Module, coverage: Coverage) -> dict[str, Completeness]:
    """Try completeness on noise; return each layer's proof, and set ``coverage.stride``.

    The window lies at an odd multiple of the stride. A map that was enlarged from a coarser
    one moves only by the coarser stride: where the grids do not coincide, the stride is
    doubled, up to 128 px. Both passes run in double precision, in single where the network
    allows no other.

    Raises
    ------
    GridError
        The grids coincide at no multiple.
    """
    try:
        return _at_some_stride(copy.deepcopy(model).double(), coverage)
    except PPPError:
        raise
    except Exception:  # a part that stays in single precision, or that cannot be copied
        with running(coverage.input_size):
            return _at_some_stride(model, coverage)


def least_steps(coverage: Coverage) -> tuple[int, int]:
    """Return the least common multiple (y, x) of the strides of all layers and sites."""
    return common(part.stride for part in (*coverage.values(), *coverage.sites))


def _at_some_stride(model: nn.Module, coverage: Coverage) -> dict[str, Completeness]:
    coverage.stride = y, x = least_steps(coverage)
    most = max(0, math.ceil(math.log2(_LARGEST / max(y, x))))
    try:
        trial = on_noise(model, coverage)
        return trial.verdict(trial.larger())
    except GridError:
        if not _moved(model, coverage, (y << most, x << most)):
            raise
    pairs = sorted(itertools.product(range(most + 1), repeat=2), key=lambda p: (max(p), sum(p)))
    steps = ((y << rows, x << columns) for rows, columns in pairs[1:])
    return next(filter(None, (_moved(model, coverage, step) for step in steps)))


def _moved(model: nn.Module, coverage: Coverage, step: tuple[int, int]) -> dict[str, Completeness]:
    """Return the proofs with another stride if all hold, none otherwise."""
    coverage.stride = step
    trial = on_noise(model, coverage)
    proofs, _ = trial.compare(trial.larger())
    return proofs if all(proof.shown for proof in proofs.values()) else {}


def on_noise(model: nn.Module, coverage: Coverage) -> Trial:
    """Return a trial with a window of noise, at an odd multiple of ``coverage.stride``."""
    sites = [site for site in coverage.sites if all(site.stride)]
    place, shape = [], []
    for axis, step in enumerate(coverage.stride):
        before = max([site.border[2 - 2 * axis] * site.stride[axis] for site in sites], default=0)
        place.append((math.ceil(before / step) // 2 * 2 + 1) * step)
        ends = [(s.size[axis] + s.border[3 - 2 * axis]) * s.stride[axis] for s in sites]
        shape.append(math.ceil((place[axis] + max([coverage.tail[axis], *ends])) / step) * step)
    weight = next(model.parameters())
    shape = [1, input_channels(model, coverage.input_size), *shape]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Trial(model, coverage, noise.to(weight.dtype), tuple(place), fill=0.0)
