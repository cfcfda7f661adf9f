"""What padding can touch: influence maps and margins, found with NaN in the place of padding."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ppp.certificate import Coverage, LayerCoverage
from ppp.completeness import prove
from ppp.errors import GridError, MarginError, PPPError
from ppp.extraction import Tap, plain, require_eval
from ppp.inventory import Key, Site, channel_joins, input_channels, input_shape, keyed, running
from ppp.operators import ModuleStack, PaddedCall, aten
from ppp.padding import Sides

#: Least pixels across a strip run, of which only the other axis is probed.
_STRIP = 128
#: Pixels along the shortest strip, and the longest: beyond, a margin counts as infinite.
_SHORTEST, _LARGEST = 256, 4096
#: Pixels by which one strip is longer than another: a multiple of what the network strides by.
_USUAL, _MOST = 32, 512


def coverage(
    model: nn.Module, layers: Sequence[str], input_size: int | tuple[int, int], *,
    receptive_fields: bool = False,
) -> Coverage:  # fmt: skip
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
    receptive_fields : bool
        Find size and offset of the receptive fields too: as many passes more as the stride has
        pixels.

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
    channels = input_channels(model, (height, width))
    model = _simple(model)
    probe = _Probe(model, layers, channels, (height, width))
    with plain():
        influence = probe.run((height, width), (True, True))
        vertical, horizontal = probe.margins(0), probe.margins(1)
        covered = []
        for layer in probe.tap.layers:
            (y, *rows, more), (x, *columns, wider) = vertical[layer], horizontal[layer]
            sides = (*columns, *rows)
            covered.append(LayerCoverage(layer, influence[layer], (y, x), sides, (more, wider)))
        result = Coverage(covered, (height, width), sites=probe.sites((height, width)))
        for layer, proof in prove(model, result).items():
            result[layer] = replace(result[layer], completeness=proof)
        if receptive_fields:
            fields = [probe.receptive_fields(axis, result) for axis in (0, 1)]
            for layer in result:
                sizes, offsets = zip(*(field[layer] for field in fields))
                result[layer] = replace(result[layer], receptive_field=sizes, offset=offsets)
    return result


def influence_by_site(model: nn.Module, coverage: Coverage) -> dict[tuple[Key, str], np.ndarray]:
    """Find the cells that each padding site alone can touch, by site and layer.

    Returns
    -------
    dict of (key, layer) to ndarray of bool, shape (H_k, W_k)
        Together they are the layer's influence map.

    Raises
    ------
    PPPError
        The coverage is of another network.

    Examples
    --------
    >>> net = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]).eval()
    >>> found = influence_by_site(net, coverage(net, ["1"], 8))
    >>> {module: int(cells.sum()) for ((module, *_), _), cells in found.items()}
    {'0': 48, '1': 28}
    """
    channels, found = input_channels(model, coverage.input_size), {}
    probe = _Probe(_simple(model), list(coverage), channels, coverage.input_size)
    with plain():
        for site in coverage.sites or ():
            maps = probe.run(coverage.input_size, (True, True), key=site.key)
            found |= {(site.key, layer): map_ for layer, map_ in maps.items()}
    for layer, covered in coverage.items():
        maps = [map_ for (_, name), map_ in found.items() if name == layer]
        shapes = {map_.shape for map_ in maps} | {covered.influence.shape}
        if len(shapes) > 1 or not np.array_equal(np.any(maps, 0), covered.influence):
            raise PPPError(
                f"this coverage is of another network: layer {layer!r} is not influenced as it says"
                "; make it with ppp.coverage"
            )
    return found


def _simple(model: nn.Module) -> nn.Module:
    """Return the network on the CPU in single precision, where NaN spreads as it should."""
    weight = next(model.parameters())
    if weight.device.type == "cpu" and weight.dtype == torch.float32:
        return model
    return copy.deepcopy(model).cpu().float()


class _Probe:
    """Runs of a network with NaN in its borders or in a line of its pixels."""

    def __init__(
        self, model: nn.Module, layers: Sequence[str], channels: int, size: tuple[int, int]
    ) -> None:
        self.model, self.tap, self.channels = model, Tap(model, layers), channels
        self.stack, self.size = ModuleStack(model), size
        #: The window's explicit paddings, joins that are none, and what operators stride by.
        self.amounts: dict[Key, Sides] = {}
        self.joins = channel_joins(model, channels, size)
        self.strided: set[tuple[int, int, int]] = set()
        #: Where NaN spreads, and whether to look for it at every operator, which takes long.
        self.spreads, self.explain = "", False
        self.calls: dict[tuple[int, int], dict[Key, tuple]] = {}
        self.strips: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {}

    def run(
        self, size: tuple[int, int], border: tuple[bool, bool],
        line: tuple[int, int] | None = None, key: Key | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """Return the NaN map of every layer: bool, (H_k, W_k).

        `border` says on which axes (rows, columns) padding is NaN, elsewhere it is zero; `key`
        at which site alone, and `line` an axis and which of its lines of pixels is NaN.
        """
        x = torch.zeros(1, self.channels, *size)
        if line is not None:
            x.select(2 + line[0], line[1]).fill_(torch.nan)
        rows, columns = (torch.nan if nan else 0.0 for nan in border)
        maps: dict[str, np.ndarray] = {}
        calls: dict[Key, tuple] = {}

        def fill(site: Key, call: PaddedCall) -> object:
            if site in self.joins:
                return NotImplemented
            if call.pads and call.input.ndim != 4:
                raise MarginError(
                    f"no margin can be told from {site[0]!r} ({type(self.stack.module).__name__}) "
                    f"on: it pads maps of {call.input.ndim} axes, which have no place in the "
                    "picture; choose layers before it"
                )
            shape = tuple(call.input.shape[-2:])
            if size == self.size:
                self.strided |= set(zip((0, 1), shape, call.stride))
                if call.kind == "pad" and call.fill != "joined":
                    self.amounts[site] = call.border
            calls[site] = shape, call.border, call.pads
            call = replace(call, border=self.amounts.get(site, call.border))
            return call.filled(rows, columns) if key in (None, site) else call.filled(0.0, 0.0)

        def consume(layer: str, output: Tensor) -> None:
            maps[layer] = output.isnan().any(1).any(0).numpy()
            self.calls[size] = dict(calls)

        try:
            with running(size), keyed(self.stack, fill, around=self._around):
                self.tap(x, consume)
        except PPPError:
            if size == self.size or not self.amounts:
                raise
            self.amounts = {}  # a map is made as large as another: amounts must follow the input's
            return self.run(size, border, line, key)
        return maps

    def _around(self, function: Callable, args: tuple, run: Callable[[], object]) -> object:
        """Keep NaN from other libraries' operators, which may read anywhere by it.

        Remember, if asked to explain, where a partly NaN input first became NaN everywhere.
        """
        if not self.calls and function in (aten.slice.Tensor, aten.pixel_unshuffle.default):
            cells, step = args[0].shape[-1], args[4:] if len(args) > 2 else args[1:]
            self.strided |= {(axis, cells, step[0]) for axis in (0, 1) if step}
        foreign = getattr(function, "namespace", "aten") not in ("aten", "prims")
        if not (foreign or self.explain):
            return run()
        tensors = [a for a in tree_leaves(args) if isinstance(a, Tensor) and a.is_floating_point()]
        kind = type(self.stack.module).__name__
        if foreign and any(bool(a.isnan().any()) for a in tensors):
            raise MarginError(
                f"no finite margin can be shown from {self.stack.name!r} ({kind}, {function}) on: "
                "an operator from outside PyTorch, which may read wherever its inputs point; "
                "choose layers before it"
            )
        partly = any(a.ndim > 2 and a.isnan().any() and not a.isnan().all() for a in tensors)
        out = run()
        result = out[0] if isinstance(out, tuple) and out else out  # norms return statistics too
        real = isinstance(result, Tensor) and result.is_floating_point() and result.numel()
        if partly and real and not self.spreads and result.isnan().all():
            operator = str(function).removeprefix("aten.").rpartition(".")[0]
            self.spreads = f"{self.stack.name!r} ({kind}, {operator})"
        return out

    def margins(self, axis: int) -> dict[str, tuple[int, int, int, int]]:
        """Return layer -> (stride, touched cells before and after, surplus) on an axis."""
        border = (axis == 0, axis == 1)
        found: dict[str, tuple[int, int, int, int]] = {}
        unit = self._unit()
        length = start = _multiple(_SHORTEST, unit)
        shortest = _strip(axis, start, unit)
        shorter, gaps = self.run(shortest, border), set()
        # what the first axis needed is tried at once on the second
        first = max((max(sizes[1]) for sizes in self.strips.values()), default=0)
        while length < _LARGEST and len(found) < len(self.tap.layers):
            length = max(length + min(length, _multiple(1024, unit)), first)
            size = _strip(axis, length, unit)
            self.strips[axis] = shortest, size
            longer = self.run(size, border)
            candidates = {}
            for layer in longer.keys() - found.keys():
                nan = longer[layer].any(1 - axis)
                stride = _stride(layer, length - start, len(nan) - shorter[layer].shape[axis])
                bands = _bands(nan)
                (gaps.discard if bands else gaps.add)(layer)
                if bands and length % stride == 0:
                    candidates[layer] = stride, bands, len(nan)
            lines = candidates and self.run(size, (False, False), (axis, 0))
            for layer, (stride, bands, cells) in candidates.items():
                if not lines[layer].all(1 - axis).all():
                    found[layer] = (stride, *bands, cells - int(length / stride))
        if missing := [layer for layer in self.tap.layers if layer not in found]:
            if missing[0] in gaps and not longer[missing[0]].all():
                raise _infinite(missing[0], ": padding reaches the middle of its map")
            self.explain = True
            self.run(size, border)
            self.run(size, (False, False), (axis, 0))
            where = f"; every cell is reached from {self.spreads} on" if self.spreads else ""
            why = f" up to {_LARGEST} px{where}; choose a layer before it"
            raise _infinite(missing[0], why)
        return found

    def _unit(self) -> int:
        """Return the pixels in whose multiples the maps of every stride grow by whole cells.

        What lies one after the other strides maps of different sizes.
        """
        steps = ([step for on, _, step in self.strided if on == axis] for axis in (0, 1))
        product = math.lcm(*map(math.prod, steps))
        usual = math.lcm(product, _USUAL)
        return usual if usual <= _MOST else min(product, _MOST)

    def receptive_fields(self, axis: int, found: Coverage) -> dict[str, tuple[int, float]]:
        """Return layer -> size and offset on an axis, from a line of NaN at every pixel in turn."""
        period, unit = found.stride[axis], self._unit()
        reach = max(found.margin[2 - 2 * axis : 4 - 2 * axis])
        reach += max(math.ceil(abs(c.surplus[axis]) * c.stride[axis]) for c in found.values())
        size = _strip(axis, _multiple(2 * (reach + 2 * period) + _STRIP, unit), unit)
        middle = size[axis] // 2 // period * period
        first, last = dict.fromkeys(found, math.inf), dict.fromkeys(found, -math.inf)
        for pixel in range(middle, middle + period):
            for layer, nan in self.run(size, (False, False), (axis, pixel)).items():
                cells = np.flatnonzero(nan.any(1 - axis))
                if len(cells):
                    stride = found[layer].stride[axis]
                    first[layer] = min(first[layer], math.ceil(pixel - stride * int(cells[-1])))
                    last[layer] = max(last[layer], math.floor(pixel - stride * int(cells[0])))
        return {k: (int(last[k] - first[k]) + 1, (first[k] + last[k]) / 2) for k in found}

    def sites(self, size: tuple[int, int]) -> tuple[Site, ...]:
        """Return every call that pads at the window's size, with the stride of its map."""
        found = []
        for key, (cells, border, pads) in self.calls[size].items():
            if pads:
                steps = self._step(key, 0), self._step(key, 1)
                others = [self.calls[s][key][1] for strips in self.strips.values() for s in strips]
                varies = key in self.amounts and any(other != border for other in others)
                found.append(Site(*key, cells, border, steps, varies))
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


def _multiple(least: int, unit: int) -> int:
    return -(-least // unit) * unit


def _strip(axis: int, length: int, unit: int) -> tuple[int, int]:
    across = _multiple(_STRIP, unit)
    return (length, across) if axis == 0 else (across, length)


def _infinite(layer: str, why: str) -> MarginError:
    return MarginError(f"layer {layer!r} has no finite margin{why}")


def _stride(layer: str, pixels: int, cells: int) -> int | Fraction:
    stride = Fraction(pixels, cells) if cells > 0 else Fraction(0)
    if not stride or (stride.denominator > 1 and stride.numerator > _USUAL):
        grows = f": its map grows by {cells} cells for {pixels} px more input"
        raise _infinite(layer, f"{grows}, which is no whole stride (resized to a fixed size?)")
    return stride if stride.denominator > 1 else stride.numerator


def _bands(nan: np.ndarray) -> tuple[int, int] | None:
    """Return the cells before and after the part that no padding touches, None without one.

    What padding touches may have gaps: the clean part is the one much longer than all others.
    """
    edges = np.flatnonzero(np.diff(nan, prepend=True, append=True))
    lengths = edges[1::2] - edges[::2]
    if not len(lengths) or lengths.max() <= 2 * max(np.sort(lengths)[:-1], default=0):
        return None
    longest = 2 * int(lengths.argmax())
    return int(edges[longest]), len(nan) - int(edges[longest + 1])
