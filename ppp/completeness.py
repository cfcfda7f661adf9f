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
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ppp.errors import GridError, PPPError
from ppp.extraction import Tap
from ppp.inventory import input_channels, running
from ppp.truth import Truth

if TYPE_CHECKING:
    from ppp.influence import Coverage

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Float error of a feature, in units of the layer's largest."""
_LARGEST = 128
"""Pixels (or a layer's stride, if that is more) by which every layer must move."""


@dataclass(frozen=True)
class Completeness:
    """Whether the listed padding sites explain all of a layer's padding.

    Attributes
    ----------
    relative : float
        Largest difference, on any cell, between the features of a window whose sites all
        have their true values and those of the larger picture; in units of the largest.
    tolerance : float
        What float error may make of it.
    module : str
        Where the proof fails: the first module whose output differs. Empty if it holds.

    Examples
    --------
    >>> print(Completeness(0.02, 1e-9, "stem"))
    not shown: something else pads, seen first in 'stem'
    """

    relative: float
    tolerance: float
    module: str = ""

    @property
    def shown(self) -> bool:
        return self.relative <= self.tolerance

    def __str__(self) -> str:
        if self.shown:
            return "shown"
        return f"not shown: something else pads, seen first in {self.module!r}"

    def both(self, other: Completeness) -> Completeness:
        """Return the weaker of two proofs of one layer."""
        return max(self, other, key=lambda proof: proof.relative / proof.tolerance)


class Trial:
    """One window of one larger picture, with which completeness is tried."""

    def __init__(
        self,
        model: nn.Module,
        reach: Coverage,
        picture: Tensor,
        place: tuple[int, int],
        fill: float | None = None,
    ) -> None:
        self.model, self.reach, self.picture, self.place = model, reach, picture, place
        self.fill, self.tap = fill, Tap(model, list(reach), to_the_end=False)
        self.truth = Truth(model, reach.sites, place[:1], place[1:])
        rows, columns = (slice(o, o + size) for o, size in zip(place, reach.input_size))
        window = picture[:, :, rows, columns]
        self.window = torch.cat([window, 0.5 * window.flip(0, 2, 3) + 0.25 * window.roll(1, 3)])
        self.tolerance = _TOLERANCE.get(picture.dtype, 1e-4)

    def recorded(self):
        """Keep true values while the larger picture runs, which the caller sees to."""
        return self.truth.recorded(self.fill)

    def larger(self) -> dict[str, Tensor]:
        """Run the larger picture; return the window's part of every layer."""
        expected: dict[str, Tensor] = {}
        with self.recorded():
            self.tap(self.picture, lambda layer, out: expected.__setitem__(layer, out[0].clone()))
        return {layer: self.cut(layer, map_) for layer, map_ in expected.items()}

    def cut(self, layer: str, map_: Tensor) -> Tensor:
        cells = self.reach[layer]
        y, x = (o // stride for o, stride in zip(self.place, cells.stride))
        height, width = cells.influence.shape
        return map_[:, y : y + height, x : x + width]

    def differences(self, expected: dict[str, Tensor]) -> dict[str, Tensor | None]:
        """Run the window with its true values; return each layer's differences by cell."""
        found: dict[str, Tensor] = {}
        with self.truth.injected():
            self.tap(self.window, lambda layer, out: found.__setitem__(layer, out[0].clone()))
        return {layer: _differences(found[layer], map_) for layer, map_ in expected.items()}

    def proofs(self, differences: dict[str, Tensor | None]) -> dict[str, Completeness]:
        worst = {k: math.inf if d is None else float(d.max()) for k, d in differences.items()}
        return {layer: Completeness(value, self.tolerance) for layer, value in worst.items()}

    def verdict(self, expected: dict[str, Tensor]) -> dict[str, Completeness]:
        """Compare every layer; where one differs, name the module at which it begins.

        Raises
        ------
        GridError
            The features differ in the middle of a map too: no padding can be the reason.
        """
        differences = self.differences(expected)
        proofs = self.proofs(differences)
        first = next((layer for layer, proof in proofs.items() if not proof.shown), None)
        if first is None:
            return proofs
        module, relative = self._first_that_differs() or (first, differences[first])
        if relative is None or not self._middle_agrees(relative):
            height, width = self.reach.input_size
            y, x = least_steps(self.reach)
            uneven = height % y or width % x
            other = f", or try a window of a multiple of {y} x {x} px" if uneven else ""
            raise GridError(
                f"layer {first!r} depends on where a cell lies, on the input's size or on the "
                f"batch: even with true values at all padding, module {module!r} gives other "
                f"features on a {height} x {width} window than on a larger picture there; choose "
                f"a layer before it{other}"
            )
        return {
            layer: proof if proof.shown else replace(proof, module=module)
            for layer, proof in proofs.items()
        }

    def _middle_agrees(self, relative: Tensor) -> bool:
        rows, columns = (slice(-(-size // 4), size - -(-size // 4)) for size in relative.shape)
        middle = relative[rows, columns]
        return middle.numel() > 0 and bool((middle <= self.tolerance).all())

    def _first_that_differs(self) -> tuple[str, Tensor] | None:
        """Return the first module to end whose output differs, and by how much on each cell."""
        maps: dict[tuple[str, int], Tensor] = {}
        with self.truth.injected():
            self._every_output(self.window, lambda key, out: maps.__setitem__(key, out.clone()))
        differing: list[tuple[str, Tensor]] = []

        def compare(key: tuple[str, int], whole: Tensor) -> None:
            if differing or key not in maps:
                return
            relative = self._closest(maps.pop(key), whole)
            if relative is not None and not bool((relative <= self.tolerance).all()):
                differing.append((key[0], relative))

        with self.recorded():
            self._every_output(self.picture, compare)
        return differing[0] if differing else None

    def _every_output(self, x: Tensor, seen: Callable[[tuple[str, int], Tensor], None]) -> None:
        count: Counter[str] = Counter()

        def hook(name: str):
            def look(_module: nn.Module, _inputs: object, out: object) -> None:
                if isinstance(out, Tensor) and out.ndim == 4 and out.is_floating_point():
                    seen((name, count[name]), out.detach()[0])
                    count[name] += 1

            return look

        handles = [
            module.register_forward_hook(hook(name))
            for name, module in self.model.named_modules()
            if name
        ]
        try:
            self.tap(x, lambda *_: None)
        finally:
            for handle in handles:
                handle.remove()

    def _closest(self, map_: Tensor, whole: Tensor) -> Tensor | None:
        """Compare a map with the part of the picture's that is most like it."""
        starts = []
        for axis, (place, step) in enumerate(zip(self.place, self.reach.stride)):
            pixels = self.picture.shape[2 + axis] - self.reach.input_size[axis]
            more = whole.shape[1 + axis] - map_.shape[1 + axis]
            strides = (Fraction(step, parts) for parts in range(1, 4 * step + 1))
            starts.append(
                {
                    int(place / stride)
                    for stride in strides
                    if abs(more - pixels / stride) < 1.5 and place / stride <= more
                }
            )
        height, width = map_.shape[1:]
        found = [
            _differences(map_, whole[:, y : y + height, x : x + width])
            for y in starts[0]
            for x in starts[1]
        ]
        found = [relative for relative in found if relative is not None]
        return min(found, key=lambda relative: float(relative.mean()), default=None)


def _differences(map_: Tensor, expected: Tensor) -> Tensor | None:
    """Return the largest difference on each cell, relative; None of maps of two shapes."""
    if map_.shape != expected.shape or not map_.numel():
        return None
    peak = float(expected.abs().max())
    difference = (map_ - expected).abs().amax(0)
    return torch.where(difference.isnan(), math.inf, difference) / (peak or 1.0)


def prove(model: nn.Module, reach: Coverage) -> dict[str, Completeness]:
    """Try completeness on noise; return each layer's proof, and set ``reach.stride``.

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
        return _at_some_stride(copy.deepcopy(model).double(), reach)
    except PPPError:
        raise
    except Exception:  # a part that stays in single precision, or that cannot be copied
        with running(reach.input_size):
            return _at_some_stride(model, reach)


def least_steps(reach: Coverage) -> tuple[int, int]:
    """Return the least common multiple (y, x) of the strides of all layers and sites."""
    y, x = (
        math.lcm(
            *(layer.stride[axis] for layer in reach.values()),
            *(site.stride[axis].numerator for site in reach.sites if site.stride[axis]),
        )
        for axis in (0, 1)
    )
    return y, x


def _at_some_stride(model: nn.Module, reach: Coverage) -> dict[str, Completeness]:
    reach.stride = y, x = least_steps(reach)
    most = max(0, math.ceil(math.log2(_LARGEST / max(y, x))))
    try:
        trial = on_noise(model, reach)
        return trial.verdict(trial.larger())
    except GridError:
        if not _moved(model, reach, (y << most, x << most)):
            raise
    pairs = sorted(
        itertools.product(range(most + 1), repeat=2), key=lambda pair: (max(pair), sum(pair))
    )
    steps = ((y << rows, x << columns) for rows, columns in pairs[1:])
    return next(filter(None, (_moved(model, reach, step) for step in steps)))


def _moved(model: nn.Module, reach: Coverage, step: tuple[int, int]) -> dict[str, Completeness]:
    """Return the proofs with another stride if all hold, none otherwise."""
    reach.stride = step
    trial = on_noise(model, reach)
    proofs = trial.proofs(trial.differences(trial.larger()))
    return proofs if all(proof.shown for proof in proofs.values()) else {}


def on_noise(model: nn.Module, reach: Coverage) -> Trial:
    """Return a trial with a window of noise, at an odd multiple of ``reach.stride``."""
    sites = [site for site in reach.sites if all(site.stride)]
    place, shape = [], []
    for axis, step in enumerate(reach.stride):
        before = max([site.border[2 - 2 * axis] * site.stride[axis] for site in sites], default=0)
        place.append((math.ceil(before / step) // 2 * 2 + 1) * step)
        needed = [
            (site.size[axis] + site.border[3 - 2 * axis]) * site.stride[axis] for site in sites
        ]
        shape.append(math.ceil((place[axis] + max([reach.tail[axis], *needed])) / step) * step)
    weight = next(model.parameters())
    noise = torch.randn(
        1, input_channels(model), *shape, generator=torch.Generator().manual_seed(0)
    )
    return Trial(model, reach, noise.to(weight.dtype), tuple(place), fill=0.0)
