"""What coverage knows of each layer: the certificate of optimal padding, and its proof."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from ppp import display
from ppp.errors import MarginError
from ppp.inventory import Site
from ppp.padding import Sides

#: Pixels between two cells.
Pixels = int | Fraction


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


@dataclass(frozen=True)
class LayerCoverage:
    """What padding can touch in one layer.

    Attributes
    ----------
    layer : str
    influence : ndarray of bool, shape (H_k, W_k)
        True where padding can change the cell, at the window's size.
    stride : (y, x)
        Input pixels between neighbouring cells; a fraction where they are finer than pixels.
    touched : (left, right, top, bottom)
        Cells that padding can touch on each side of a large input.
    surplus : (y, x)
        Cells of a map beyond its input's pixels over the stride, negative without padding.
    completeness : Completeness or None
        Whether the network's listed sites explain all its padding up to this layer.
    receptive_field, offset : (y, x) or None
        Input pixels that can change a cell (the most, where cells differ), and the place of the
        centre of the first cell's, in pixels from the centre of the first; if asked for.
    """

    layer: str
    influence: np.ndarray
    stride: tuple[Pixels, Pixels]
    touched: Sides
    surplus: tuple[int, int] = (0, 0)
    completeness: Completeness | None = None
    receptive_field: tuple[int, int] | None = None
    offset: tuple[float, float] | None = None

    @property
    def clean_fraction(self) -> float:
        """Share of cells that padding cannot touch, 0 to 1."""
        return float(1 - self.influence.mean())

    @property
    def margin(self) -> Sides:
        """Input pixels of true surroundings a window needs: (left, right, top, bottom)."""
        left, right, top, bottom = self.touched
        y, x = self.stride
        sides = left * x, right * x, top * y, bottom * y
        left, right, top, bottom = map(math.ceil, sides)
        return left, right, top, bottom

    def __repr__(self) -> str:
        height, width = self.influence.shape
        cells = f"{height} x {width} cells, {self.clean_fraction:.1%} clean"
        complete = f"completeness {self.completeness or 'not tried'}"
        return f"LayerCoverage({self.layer!r}: {cells}, margin {self.margin}, {complete})"

    def certify(
        self, map_size: tuple[int, int], tops: np.ndarray, lefts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
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
    name: str, axis: str, offsets: np.ndarray, stride: Pixels, reach: tuple[int, int], size: int
) -> np.ndarray:
    """Return the first cell of each window on an axis, or refuse one that has no place.

    Parameters
    ----------
    name, axis : str
        For the message.
    offsets : ndarray of int, shape (n,)
        Of the windows, in pixels.
    stride : int or Fraction
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
    offsets, step = np.asarray(offsets), Fraction(stride)
    if (misaligned := offsets % step.numerator != 0).any():
        raise MarginError(
            f"window at {axis} offset {int(offsets[misaligned][0])} px is misaligned "
            f"with {name}: offsets must be multiples of its total stride {step.numerator}"
        )
    first = offsets // step.numerator * step.denominator
    lacking = max(reach[0] - int(first.min()), int(first.max()) + reach[1] - size)
    if lacking > 0:
        more, before, after = (math.ceil(cells * step) for cells in (lacking, *reach))
        raise MarginError(
            f"surroundings too narrow for {name}: {more} px more are needed on the "
            f"{axis} axis, {before} px before a window and {after} px from its first pixel on"
        )
    return first


def common(strides: Iterable[tuple[Pixels, Pixels]]) -> tuple[int, int]:
    """Return the least pixels (y, x) that are a whole number of cells of every stride.

    Examples
    --------
    >>> common([(Fraction(3, 2), 4), (2, Fraction(1, 2))])
    (6, 4)
    """
    y, x = (math.lcm(*(stride.numerator or 1 for stride in axis)) for axis in zip(*strides))
    return y, x


class Coverage(dict[str, LayerCoverage]):
    """Layer name -> :class:`LayerCoverage`, with what all layers together need.

    Attributes
    ----------
    input_size : (height, width)
        The window (px).
    stride : (y, x)
        Pixels by whose multiples a window may move: a multiple of all layers' strides,
        larger where a layer enlarges a coarser map again.
    sites : tuple of Site or None
        Every call that pads at this size; None if they are not known.
    """

    def __init__(
        self, layers: Sequence[LayerCoverage], input_size: tuple[int, int],
        stride: tuple[int, int] | None = None, sites: tuple[Site, ...] | None = None,
    ) -> None:  # fmt: skip
        super().__init__((layer.layer, layer) for layer in layers)
        self.input_size = input_size
        self.stride = stride or common(layer.stride for layer in layers)
        self.sites = sites

    def __repr__(self) -> str:
        window = f"windows of {self.input_size} px, stride {self.stride}, margin {self.margin}"
        return f"Coverage({window}; layers {', '.join(self)})"

    def _repr_html_(self) -> str:
        rows = [{"padding can touch": c.influence, "layer": repr(c)} for c in self.values()]
        return display.table(repr(self), rows)

    def only(self, layers: Sequence[str]) -> Coverage:
        """Return the coverage of some of the layers."""
        return Coverage([self[name] for name in layers], self.input_size, self.stride, self.sites)

    @property
    def tail(self) -> tuple[int, int]:
        """Pixels (y, x) from a window's first to the last that its cells stand for."""
        y, x = self.input_size
        for layer in self.values():
            height, width = layer.influence.shape
            y = max(y, math.ceil((height - layer.surplus[0]) * layer.stride[0]))
            x = max(x, math.ceil((width - layer.surplus[1]) * layer.stride[1]))
        return y, x

    @property
    def margin(self) -> Sides:
        """Largest margin of all layers: (left, right, top, bottom) in px."""
        left, right, top, bottom = (max(m) for m in zip(*(c.margin for c in self.values())))
        return left, right, top, bottom

    def table(self) -> pd.DataFrame:
        """Return one row per layer: map size, clean cells, stride, margins in px.

        And the receptive field's size and offset, if they were asked for; stride and these on
        the vertical axis.
        """
        rows = []
        for name, layer in self.items():
            height, width = layer.influence.shape
            row = {"layer": name, "height": height, "width": width}
            row |= {"clean_cells": int((~layer.influence).sum())}
            row |= {"clean_fraction": layer.clean_fraction, "stride": layer.stride[0]}
            if layer.receptive_field and layer.offset:
                row |= {"receptive_field": layer.receptive_field[0], "offset": layer.offset[0]}
            row |= {"completeness": str(layer.completeness or "not tried")}
            row |= zip(("margin_left", "margin_right", "margin_top", "margin_bottom"), layer.margin)
            rows.append(row)
        return pd.DataFrame(rows)
