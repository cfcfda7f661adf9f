"""What padding can touch: influence maps, margins and the certificate of optimal padding."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppp.errors import MarginError, PPPError
from ppp.extraction import Consume, Tap
from ppp.inventory import first_line, input_channels, input_shape, require_eval
from ppp.operators import ModuleStack, PaddedCall, watch
from ppp.padding import Sides

_STRIP = 128
"""Pixels across a strip run: only the other axis is probed."""
_LARGEST = 4096
"""Pixels along a strip run beyond which a margin counts as infinite."""
_TOLERANCE = 1e-4
"""Float error of a feature, in units of the layer's largest."""


@dataclass(frozen=True)
class LayerCoverage:
    """What padding can touch in one layer.

    Attributes
    ----------
    layer : str
    influence : ndarray of bool, shape (H_k, W_k)
        True where padding can change the cell, at the window's size.
    stride : (y, x)
        Input pixels between neighbouring cells.
    touched : (left, right, top, bottom)
        Cells that padding can touch on each side of a large input.
    """

    layer: str
    influence: np.ndarray
    stride: tuple[int, int]
    touched: Sides

    @property
    def clean_fraction(self) -> float:
        """Share of cells that padding cannot touch, 0 to 1."""
        return float(1 - self.influence.mean())

    @property
    def margin(self) -> Sides:
        """Input pixels of true surroundings a window needs: (left, right, top, bottom)."""
        left, right, top, bottom = self.touched
        y, x = self.stride
        return left * x, right * x, top * y, bottom * y

    def certify(self, map_size: tuple[int, int], tops: np.ndarray, lefts: np.ndarray):
        """Certify that windows can be cut from a larger picture's map; return where.

        Parameters
        ----------
        map_size : (H, W)
            Cells of this layer's map of the larger picture, whose sides are multiples of
            the stride.
        tops, lefts : ndarray of int, shape (n,)
            Windows' offsets in the picture (px).

        Returns
        -------
        rows, columns : ndarray of int, shape (n,)
            First cell of each window. No cell of a cut-out is touched by padding.

        Raises
        ------
        MarginError
            A window that is misaligned with the stride, or whose surroundings are
            narrower than the margin.
        """
        starts = []
        for axis, offsets, side, before, after in (
            ("vertical", tops, 0, self.touched[2], self.touched[3]),
            ("horizontal", lefts, 1, self.touched[0], self.touched[1]),
        ):
            stride = self.stride[side]
            offsets = np.asarray(offsets)
            if (offsets % stride).any():
                wrong = int(offsets[offsets % stride != 0][0])
                raise MarginError(
                    f"window at {axis} offset {wrong} px is misaligned with layer {self.layer!r}: "
                    f"offsets must be multiples of its total stride {stride}"
                )
            first = offsets // stride
            lacking = max(
                before - int(first.min()),
                int(first.max()) + self.influence.shape[side] + after - map_size[side],
            )
            if lacking > 0:
                raise MarginError(
                    f"surroundings too narrow for layer {self.layer!r}: {lacking * stride} px more "
                    f"are needed on the {axis} axis (margin {before * stride} px before, "
                    f"{after * stride} px after the window)"
                )
            starts.append(first)
        return starts[0], starts[1]


class Coverage(dict[str, LayerCoverage]):
    """Layer name -> :class:`LayerCoverage`, with what all layers together need."""

    def __init__(
        self,
        layers: Sequence[LayerCoverage],
        input_size: tuple[int, int],
        stride: tuple[int, int] | None = None,
    ) -> None:
        super().__init__((layer.layer, layer) for layer in layers)
        self.input_size = input_size
        y, x = zip(*(layer.stride for layer in layers))
        self.stride = stride or (math.lcm(*y), math.lcm(*x))
        """Pixels (y, x) by whose multiples a window may move: a multiple of all layers'
        strides, larger where a layer enlarges a coarser map again."""

    @property
    def margin(self) -> Sides:
        """Largest margin of all layers: (left, right, top, bottom) in px."""
        left, right, top, bottom = (max(m) for m in zip(*(c.margin for c in self.values())))
        return left, right, top, bottom

    def table(self) -> pd.DataFrame:
        """Return one row per layer: map size, clean cells, stride and margins in px."""
        rows = []
        for name, layer in self.items():
            height, width = layer.influence.shape
            sides = dict(zip(("left", "right", "top", "bottom"), layer.margin))
            rows.append(
                {
                    "layer": name,
                    "height": height,
                    "width": width,
                    "clean_cells": int((~layer.influence).sum()),
                    "clean_fraction": layer.clean_fraction,
                    "stride": layer.stride[0],
                    **{f"margin_{side}": pixels for side, pixels in sides.items()},
                }
            )
        return pd.DataFrame(rows)


def coverage(
    model: nn.Module, layers: Sequence[str], input_size: int | tuple[int, int]
) -> Coverage:
    """Find the cells that padding can touch, per layer.

    Every padding of the network (of modules, of function calls, of pools, of ceil_mode)
    is filled with NaN; a NaN in a map is a cell that padding can influence [ours]. Long
    strips give the margin on each side. Every layer must also move with its input: random
    pixels that are moved by ``Coverage.stride`` give the same features, moved; that stride
    is doubled, up to 128 px, until they do. It runs on the CPU in float32.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    layers : sequence of str
        As in ``model.named_modules()``; each gives maps (N, C, H, W).
    input_size : int or (height, width)
        The window (px).

    Returns
    -------
    Coverage

    Raises
    ------
    MarginError
        A layer without a finite margin: some cell of every input depends on all pixels
        (squeeze-excitation, global pooling, attention, group norm, ...), or its features
        depend on where it lies (a positional embedding, attention in windows). The message
        names the layer and, in the first case, the module at which it happens.
    LayerError, PPPError
        Unknown layer; a model in train mode or that does not run at this size.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> coverage(net, ["0"], 5)["0"].margin
    (1, 1, 1, 1)
    """
    height, width = input_shape(input_size)
    require_eval(model)
    input_channels(model)  # refuses a model without one
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        model = copy.deepcopy(model).cpu().float()
    probe = _Probe(model, layers)
    influence = probe.run((height, width), border=(True, True))
    axes = [probe.margins(axis) for axis in (0, 1)]
    found = []
    for layer in probe.tap.layers:
        (stride_y, top, bottom), (stride_x, left, right) = axes[0][layer], axes[1][layer]
        found.append(
            LayerCoverage(layer, influence[layer], (stride_y, stride_x), (left, right, top, bottom))
        )
    reach = Coverage(found, (height, width))
    steps = probe.period(reach, 0), probe.period(reach, 1)
    return Coverage(found, (height, width), steps)


class _Probe:
    """Runs of a network with NaN in its borders or in a line of its pixels."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self.model, self.tap = model, Tap(model, layers)
        self.channels = input_channels(model)
        self.stack = ModuleStack(model)
        self.spreads: str | None = None

    def run(
        self,
        size: tuple[int, int],
        *,
        border: tuple[bool, bool],
        line: int | None = None,
        explain: bool = False,
    ) -> dict[str, np.ndarray]:
        """Return the NaN map of every layer: bool, (H_k, W_k).

        `border` says on which axes (rows, columns) padding is NaN, elsewhere it is zero;
        `line` is the axis whose first line of pixels is NaN. `explain` looks at the result
        of every operator, which takes several times as long.
        """
        x = torch.zeros(1, self.channels, *size)
        if line is not None:
            x.select(2 + line, 0).fill_(torch.nan)
        rows, columns = (torch.nan if nan else 0.0 for nan in border)
        maps: dict[str, np.ndarray] = {}

        def replace(call: PaddedCall) -> object:
            if border[0] == border[1]:
                return call.run(F.pad(call.input, call.border, value=rows))
            left, right, top, bottom = call.border
            padded = F.pad(call.input, (0, 0, top, bottom), value=rows)
            return call.run(F.pad(padded, (left, right, 0, 0), value=columns))

        def consume(layer: str, output: Tensor) -> None:
            maps[layer] = output.isnan().any(1).any(0).numpy()

        with self.stack.watching(), watch(replace, self._after if explain else None):
            self._pass(x, consume)
        return maps

    def _pass(self, x: Tensor, consume: Consume) -> None:
        try:
            self.tap(x, consume)
        except PPPError:
            raise
        except Exception as error:
            height, width = x.shape[2:]
            raise PPPError(
                f"the model does not run on a {height} x {width} input: {first_line(error)}"
            ) from error

    def _after(self, function: object, args: tuple, out: object) -> object:
        """Remember where a partly NaN input first became NaN everywhere."""
        result = out[0] if isinstance(out, tuple) and out else out  # norms return statistics too
        if self.spreads is None and isinstance(result, Tensor) and result.is_floating_point():
            maps = [
                a for a in args if isinstance(a, Tensor) and a.is_floating_point() and a.ndim > 2
            ]
            partly = any(a.isnan().any() and not a.isnan().all() for a in maps)
            if partly and result.numel() and result.isnan().all():
                operator = str(function).removeprefix("aten.").rpartition(".")[0]
                kind = type(self.stack.module).__name__
                self.spreads = f"{self.stack.name!r} ({kind}, {operator})"
        return out

    def margins(self, axis: int) -> dict[str, tuple[int, int, int]]:
        """Return layer -> (stride, touched cells before, touched cells after) on an axis."""
        border = (axis == 0, axis == 1)
        cells: dict[int, dict[str, int]] = {}
        found: dict[str, tuple[int, int, int]] = {}
        length = 256
        while length <= _LARGEST and len(found) < len(self.tap.layers):
            size = (length, _STRIP) if axis == 0 else (_STRIP, length)
            touched = {k: m.any(1 - axis) for k, m in self.run(size, border=border).items()}
            cells[length] = {layer: len(nan) for layer, nan in touched.items()}
            half = cells.get(length // 2)
            lines = self.run(size, border=(False, False), line=axis) if half else {}
            for layer, nan in touched.items():
                if half is None or layer in found:
                    continue
                stride = self._stride(layer, length // 2, cells[length][layer] - half[layer])
                reached = lines[layer].all(axis=1 - axis)
                if length % stride == 0 and not nan.all() and not reached.all():
                    found[layer] = (stride, *self._bands(layer, nan))
            length *= 2
        for layer in self.tap.layers:
            if layer not in found:
                self.run(size, border=border, explain=True)
                self.run(size, border=(False, False), line=axis, explain=True)
                where = f"; every cell is reached from {self.spreads} on" if self.spreads else ""
                raise MarginError(
                    f"layer {layer!r} has no finite margin up to {_LARGEST} px{where}; "
                    "choose a layer before it"
                )
        return found

    def period(self, reach: Coverage, axis: int) -> int:
        """Return by how many pixels the input must move for every layer to move with it."""
        before, after = reach.margin[2:] if axis == 0 else reach.margin[:2]
        step, other = reach.stride[axis], reach.stride[1 - axis]
        largest = step
        while largest < _STRIP:
            largest *= 2
        length = -(-(before + after) // largest) * largest + 2 * largest
        across = -(-_STRIP // other) * other
        size = (length + largest, across) if axis == 0 else (across, length + largest)
        x = torch.randn(1, self.channels, *size, generator=torch.Generator().manual_seed(0))
        here: dict[str, Tensor] = {}
        unlike: dict[str, float] = {}

        def compare(layer: str, output: Tensor) -> None:
            first, last = reach[layer].touched[2:] if axis == 0 else reach[layer].touched[:2]
            cells = step // reach[layer].stride[axis]
            count = output.shape[2 + axis] - first - last - cells
            expected = here[layer].narrow(2 + axis, first + cells, count)
            largest = float((output.narrow(2 + axis, first, count) - expected).abs().max())
            if not largest <= _TOLERANCE * float(expected.abs().max()):
                unlike[layer] = largest

        with watch(lambda call: call.run(F.pad(call.input, call.border))):
            self._pass(
                x.narrow(2 + axis, 0, length),
                lambda layer, output: here.__setitem__(layer, output.clone()),
            )
            while step <= largest:
                unlike.clear()
                self._pass(x.narrow(2 + axis, step, length), compare)
                if not unlike:
                    return step
                step *= 2
        layer = next(name for name in self.tap.layers if name in unlike)
        raise MarginError(
            f"layer {layer!r} depends on where a cell lies: moved by {largest} px, its features "
            f"differ by up to {unlike[layer]:.3g} far from all padding (a positional embedding, "
            "or attention in windows that start at the border?); choose a layer before it"
        )

    @staticmethod
    def _stride(layer: str, pixels: int, cells: int) -> int:
        if cells <= 0 or pixels % cells:
            raise MarginError(
                f"layer {layer!r} has no finite margin: its map grows by {cells} cells for "
                f"{pixels} px more input, which is no whole stride (resized to a fixed size?)"
            )
        return pixels // cells

    @staticmethod
    def _bands(layer: str, nan: np.ndarray) -> tuple[int, int]:
        clean = np.flatnonzero(~nan)
        if nan[clean[0] : clean[-1] + 1].any():
            raise MarginError(
                f"layer {layer!r} has no finite margin: padding reaches the middle of its map"
            )
        return int(clean[0]), len(nan) - 1 - int(clean[-1])
