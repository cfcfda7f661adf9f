"""What padding can touch: influence maps, margins and the certificate of optimal padding."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ppp.completeness import Completeness, prove
from ppp.errors import GridError, MarginError
from ppp.extraction import Tap, plain, require_eval
from ppp.inventory import input_channels, input_shape, running
from ppp.operators import ModuleStack, PaddedCall
from ppp.padding import Sides
from ppp.truth import Key, Site, keyed

_STRIP = 128
"""Pixels across a strip run: only the other axis is probed."""
_LARGEST = 4096
"""Pixels along a strip run beyond which a margin counts as infinite."""


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
    surplus : (y, x)
        Cells of a map beyond its input's pixels over the stride, negative without padding.
    completeness : Completeness or None
        Whether the network's listed sites explain all its padding up to this layer.
    """

    layer: str
    influence: np.ndarray
    stride: tuple[int, int]
    touched: Sides
    surplus: tuple[int, int] = (0, 0)
    completeness: Completeness | None = None

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
        left, right, top, bottom = self.touched
        height, width = self.influence.shape
        y, x = self.stride
        name = f"layer {self.layer!r}"
        rows = first_cells(name, "vertical", tops, y, (top, height + bottom), map_size[0])
        columns = first_cells(name, "horizontal", lefts, x, (left, width + right), map_size[1])
        return rows, columns


def first_cells(
    name: str, axis: str, offsets: np.ndarray, stride: int, reach: tuple[int, int], size: int
) -> np.ndarray:
    """Return the first cell of each window on an axis, or refuse one that has no place.

    Parameters
    ----------
    name, axis : str
        For the message.
    offsets : ndarray of int, shape (n,)
        Of the windows, in pixels.
    stride : int
        Pixels between cells.
    reach : (before, after)
        Cells needed before a window's first one, and from it on.
    size : int
        Cells there are.

    Raises
    ------
    MarginError
        A misaligned window, or too narrow surroundings.

    Examples
    --------
    >>> first_cells("layer '0'", "vertical", np.array([8, 12]), 4, (1, 9), 12)
    array([2, 3])
    """
    offsets = np.asarray(offsets)
    if (offsets % stride).any():
        raise MarginError(
            f"window at {axis} offset {int(offsets[offsets % stride != 0][0])} px is misaligned "
            f"with {name}: offsets must be multiples of its total stride {stride}"
        )
    first = offsets // stride
    lacking = max(reach[0] - int(first.min()), int(first.max()) + reach[1] - size)
    if lacking > 0:
        raise MarginError(
            f"surroundings too narrow for {name}: {lacking * stride} px more are needed on the "
            f"{axis} axis, {reach[0] * stride} px before a window and {reach[1] * stride} px from "
            "its first pixel on"
        )
    return first


class Coverage(dict[str, LayerCoverage]):
    """Layer name -> :class:`LayerCoverage`, with what all layers together need."""

    def __init__(
        self,
        layers: Sequence[LayerCoverage],
        input_size: tuple[int, int],
        stride: tuple[int, int] | None = None,
        sites: tuple[Site, ...] | None = None,
    ) -> None:
        super().__init__((layer.layer, layer) for layer in layers)
        self.input_size = input_size
        y, x = zip(*(layer.stride for layer in layers))
        self.stride = stride or (math.lcm(*y), math.lcm(*x))
        """Pixels (y, x) by whose multiples a window may move: a multiple of all layers'
        strides, larger where a layer enlarges a coarser map again."""
        self.sites = sites
        """Every call that pads at this size; None if they are not known."""

    def only(self, layers: Sequence[str]) -> Coverage:
        """Return the coverage of some of the layers."""
        return Coverage([self[name] for name in layers], self.input_size, self.stride, self.sites)

    def proofs(self, layers: Sequence[str]) -> dict[str, Completeness]:
        """Return the proofs of completeness of some layers, where there are any."""
        found = {name: self[name].completeness for name in layers}
        return {name: proof for name, proof in found.items() if proof is not None}

    @property
    def tail(self) -> tuple[int, int]:
        """Pixels (y, x) from a window's first to the last that its cells stand for."""
        y, x = (
            max(
                size,
                *((c.influence.shape[k] - c.surplus[k]) * c.stride[k] for c in self.values()),
            )
            for k, size in enumerate(self.input_size)
        )
        return y, x

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
                    "completeness": str(layer.completeness or "not tried"),
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
    strips give the margin on each side. Then a window of noise, with true values at every
    listed padding, must give on every cell what a larger picture gives there
    (:mod:`ppp.completeness`): nothing else pads, and the window may move by
    ``Coverage.stride``. It runs on the CPU.

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
        (squeeze-excitation, global pooling, attention, group norm, ...). The message names
        the layer and the module at which it happens.
    GridError
        Features depend on where a cell lies (a positional embedding, attention in windows),
        on the input's size (padding by an amount that depends on it) or on the batch.
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
    with plain():
        influence = probe.run((height, width), border=(True, True))
        axes = [probe.margins(axis) for axis in (0, 1)]
        layers_found = []
        for layer in probe.tap.layers:
            (y, top, bottom, rows), (x, left, right, columns) = (found[layer] for found in axes)
            sides, surplus = (left, right, top, bottom), (rows, columns)
            layers_found.append(LayerCoverage(layer, influence[layer], (y, x), sides, surplus))
        reach = Coverage(layers_found, (height, width), sites=probe.sites((height, width)))
        proofs = prove(model, reach)
    for layer, proof in proofs.items():
        reach[layer] = replace(reach[layer], completeness=proof)
    return reach


class _Probe:
    """Runs of a network with NaN in its borders or in a line of its pixels."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        self.model, self.tap = model, Tap(model, layers)
        self.channels = input_channels(model)
        self.stack = ModuleStack(model)
        self.spreads: str | None = None
        self.calls: dict[tuple[int, int], dict[Key, tuple]] = {}
        self.strips: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {}

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

        calls: dict[Key, tuple] = {}
        before_it: list[int] = []

        def fill(key: Key, call: PaddedCall) -> object:
            calls[key] = tuple(call.input.shape[-2:]), call.border, call.pads
            if not call.pads:
                return NotImplemented
            if border[0] == border[1]:
                return call.run(F.pad(call.input, call.border, value=rows))
            left, right, top, bottom = call.border
            padded = F.pad(call.input, (0, 0, top, bottom), value=rows)
            return call.run(F.pad(padded, (left, right, 0, 0), value=columns))

        def consume(layer: str, output: Tensor) -> None:
            maps[layer] = output.isnan().any(1).any(0).numpy()
            before_it.append(len(calls))

        after = self._after if explain else None
        with running(size), keyed(self.stack, fill, before=self._before, after=after):
            self.tap(x, consume)
        self.calls[size] = dict(itertools.islice(calls.items(), before_it[-1]))
        return maps

    def _before(self, function: object, args: tuple) -> None:
        """Keep NaN from operators that other libraries bring: they may read anywhere by it."""
        if getattr(function, "namespace", "aten") in ("aten", "prims"):
            return
        tensors = [a for a in tree_leaves(args) if isinstance(a, Tensor) and a.is_floating_point()]
        if any(bool(a.isnan().any()) for a in tensors):
            kind = type(self.stack.module).__name__
            raise MarginError(
                f"no finite margin can be shown from {self.stack.name!r} ({kind}, {function}) on: "
                "an operator from outside PyTorch, which may read wherever its inputs point; "
                "choose layers before it"
            )

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

    def margins(self, axis: int) -> dict[str, tuple[int, int, int, int]]:
        """Return layer -> (stride, touched cells before and after, surplus) on an axis."""
        border = (axis == 0, axis == 1)
        cells: dict[int, dict[str, int]] = {}
        found: dict[str, tuple[int, int, int, int]] = {}
        length = 256
        while length <= _LARGEST and len(found) < len(self.tap.layers):
            size = (length, _STRIP) if axis == 0 else (_STRIP, length)
            touched = {k: m.any(1 - axis) for k, m in self.run(size, border=border).items()}
            cells[length] = {layer: len(nan) for layer, nan in touched.items()}
            half = cells.get(length // 2)
            if half:
                shorter = (length // 2, _STRIP) if axis == 0 else (_STRIP, length // 2)
                self.strips[axis] = shorter, size
            lines = self.run(size, border=(False, False), line=axis) if half else {}
            for layer, nan in touched.items():
                if half is None or layer in found:
                    continue
                stride = self._stride(layer, length // 2, cells[length][layer] - half[layer])
                reached = lines[layer].all(axis=1 - axis)
                if length % stride == 0 and not nan.all() and not reached.all():
                    surplus = len(nan) - length // stride
                    found[layer] = (stride, *self._bands(layer, nan), surplus)
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

    def sites(self, size: tuple[int, int]) -> tuple[Site, ...]:
        """Return every call that pads at the window's size, with the stride of its map."""
        found = []
        for key, (cells, border, pads) in self.calls[size].items():
            if pads:
                strides = (self._step(key, axis) for axis in (0, 1))
                found.append(Site(*key, cells, border, tuple(strides)))
        return tuple(found)

    def _step(self, key: Key, axis: int) -> Fraction:
        """Return the pixels between the cells of a call's input; 0 if there is no such step."""
        short, long = self.strips[axis]
        try:
            cells = self.calls[long][key][0][axis] - self.calls[short][key][0][axis]
        except KeyError:
            raise GridError(
                f"layers {list(self.tap.layers)}: {key[0]!r} pads ({key[1]}) at one input size "
                "and not at another, so that a window and a larger picture are worked on in "
                "different ways; choose layers before it"
            ) from None
        return Fraction(long[axis] - short[axis], cells) if cells > 0 else Fraction(0)

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
