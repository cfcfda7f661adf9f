"""Optimal padding, site by site: true values in the place of every padded one. [ours]

While a larger picture runs, what lies around a window's part of the map is kept at every
padding site; when the window runs, it is put where the network would pad.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from fractions import Fraction

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from ppp.certificate import Coverage
from ppp.errors import GridError, PPPError
from ppp.extraction import Tap, copies, exact_kernels, gather, require_eval
from ppp.inventory import Key, Site, keyed
from ppp.operators import ModuleStack, PaddedCall, aten
from ppp.padding import Sides

#: Whether windows run with true values at every site: there is no pattern to correct then.
ALL_TRUE: ContextVar[bool] = ContextVar("ALL_TRUE", default=False)


def aligned(model: nn.Module, sites: Iterable[Site]) -> AbstractContextManager[None]:
    """Have a larger picture padded by the window's amounts, where they depend on the size."""
    varying = {site.key: site for site in sites if site.varies}

    def align(key: Key, call: PaddedCall) -> object:
        site = varying.get(key)
        if site is None:
            return NotImplemented
        # the operator itself, which others that watch see too
        return call.run(aten.constant_pad_nd(call.input, site.border))

    return keyed(ModuleStack(model), align) if varying else nullcontext()


class Truth:
    """True values around windows of one picture, at the padding sites of a network."""

    def __init__(
        self, model: nn.Module, sites: Iterable[Site], tops: Sequence[int], lefts: Sequence[int]
    ) -> None:
        self.model, self.sites = model, {site.key: site for site in sites}
        self.tops, self.lefts = np.asarray(tops), np.asarray(lefts)
        self.values: dict[Key, tuple[Tensor, Sides]] = {}

    def recorded(self, fill: float | None = None) -> AbstractContextManager[None]:
        """Keep the true values while the picture runs; `fill` takes the place of its padding."""

        def record(key: Key, call: PaddedCall) -> object:
            if key not in self.sites:
                return NotImplemented
            self._keep(self.sites[key], call.input[0])
            if self.sites[key].varies:
                return call.run(F.pad(call.input, self.sites[key].border))
            if fill is None or call.fill == "zeros" or not call.pads:
                return NotImplemented  # as the network does by itself, the fastest
            return call.run(F.pad(call.input, call.border, value=fill))

        return keyed(ModuleStack(self.model), record)

    def _keep(self, site: Site, map_: Tensor) -> None:
        starts, rings = [], []
        for axis, offsets in enumerate((self.tops, self.lefts)):
            stride = site.stride[axis]
            if not stride or any(Fraction(int(o)) % stride for o in offsets):
                return  # no place in the picture's map: the site keeps its own padding
            first = np.array([int(Fraction(int(o)) / stride) for o in offsets])
            before, after = site.border[2:] if axis == 0 else site.border[:2]
            rest = map_.shape[1 + axis] - site.size[axis] - int(first.max())
            if rest < 0:
                return
            rings.append((min(max(before, 0), int(first.min())), min(max(after, 0), rest)))
            starts.append(first - rings[-1][0])
        (top, bottom), (left, right) = rings
        shape = top + site.size[0] + bottom, left + site.size[1] + right
        self.values[site.key] = gather(map_, *starts, shape), (left, right, top, bottom)

    def require_all(self) -> None:
        """Refuse sites without true values: their map does not follow the picture's."""
        for key, site in self.sites.items():
            if key not in self.values:
                raise GridError(
                    f"no true values at {site.module!r} ({site.kind}): its map does not follow the "
                    "picture's; choose layers before it"
                )

    @contextmanager
    def injected(
        self, chosen: Iterable[Site] | None = None, model: nn.Module | None = None
    ) -> Iterator[None]:
        """Put them in the place of padding while the windows run, at all or chosen sites."""
        keys = self.sites if chosen is None else {site.key for site in chosen}

        def inject(key: Key, call: PaddedCall) -> object:
            if key not in keys or key not in self.values:
                return NotImplemented
            (whole, ring), (n, *shape) = self.values[key], call.input.shape
            if shape != [whole.shape[1], *self.sites[key].size] or n < len(whole):
                return NotImplemented
            if n > len(whole):
                whole = whole[[i if i < len(whole) else 0 for i in range(n)]]
            elif call.kind == "pad":  # what it gives is the padded map itself
                whole = whole.clone()
            if call.border != ring:
                whole = F.pad(whole, [need - held for need, held in zip(call.border, ring)])
            unread = [min(0, need) for need in call.border]
            inside = F.pad(call.input, unread) if any(unread) else call.input
            left, _, top, _ = (max(0, need) for need in call.border)
            height, width = inside.shape[-2:]
            whole[..., top : top + height, left : left + width] = inside
            return call.run(whole)

        before = ALL_TRUE.set(self.sites.keys() <= set(keys))
        try:
            with keyed(ModuleStack(model or self.model), inject):
                yield
        finally:
            ALL_TRUE.reset(before)


class TrueMaps(Truth):
    """A picture's whole maps at the padding sites: true values around any window of it."""

    def __init__(self, model: nn.Module, sites: Iterable[Site]) -> None:
        super().__init__(model, sites, (), ())
        self.maps: dict[Key, Tensor] = {}

    def _keep(self, site: Site, map_: Tensor) -> None:
        self.maps[site.key] = map_.clone()  # a later operation may change it in place

    def around(self, tops: np.ndarray, lefts: np.ndarray) -> Truth:
        """Return the true values around some windows."""
        truth = Truth(self.model, self.sites.values(), tops, lefts)
        for key, map_ in self.maps.items():
            truth._keep(self.sites[key], map_)
        truth.require_all()
        return truth


class Optimal:
    """Windows of one picture, able to run with true values at any of their padding sites.

    Attributes
    ----------
    maps : dict of str to Tensor, each of shape (n, C_k, H_k, W_k)
        The layers' features under optimal padding, cut out of the picture's own.
    sites : tuple of Site
        Every call that pads when a window runs, in order.
    """

    def __init__(self, truth: Truth, windows: Tensor, maps: dict[str, Tensor]) -> None:
        self.truth, self.windows, self.maps = truth, windows, maps
        self.sites = tuple(truth.sites.values())

    def __repr__(self) -> str:
        maps = ", ".join(self.maps)
        return f"Optimal({len(self.windows)} windows, {len(self.sites)} sites; {maps})"

    def features(
        self, true: Iterable[Site] | None = None, model: nn.Module | None = None
    ) -> dict[str, Tensor]:
        """Return the layers' features of the windows, with true values at some sites.

        Parameters
        ----------
        true : iterable of Site, optional
            Sites that get their true values, by default all; at the others the network
            pads as it does. With none, the features are those of algorithmic padding.
        model : nn.Module, optional
            The network under another scheme, from :func:`ppp.with_padding` with pools kept.
        """
        with exact_kernels(), self.truth.injected(true, model):
            return copies(Tap(model or self.truth.model, list(self.maps)), self.windows)


def optimal(
    model: nn.Module, pixels: Tensor, tops: Sequence[int], lefts: Sequence[int], coverage: Coverage
) -> Optimal:
    """Run a picture once, and keep what optimal padding of its windows needs at every site.

    Parameters
    ----------
    model : nn.Module
        In eval mode.
    pixels : Tensor, shape (C, H, W)
        The picture; sides that are multiples of ``coverage.stride``.
    tops, lefts : sequence of int
        Offsets of the windows, for example of a :class:`ppp.Picture` from
        :func:`ppp.cut_windows`.
    coverage : Coverage
        Of the layers of interest at the windows' size, from :func:`ppp.coverage`.

    Returns
    -------
    Optimal
        With ``.maps``, ``.sites`` and ``.features(sites)``.

    Raises
    ------
    MarginError
        A misaligned window, or too narrow surroundings.

    Examples
    --------
    One site at a time shows what each contributes:

    >>> import torch, ppp
    >>> net = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]).eval()
    >>> reach = ppp.coverage(net, ["1"], 16)
    >>> truth = optimal(net, torch.rand(3, 24, 24), [4], [4], reach)
    >>> bool((truth.features()["1"] - truth.maps["1"]).abs().max() < 1e-5)
    True
    >>> only_the_second_pads = truth.features(truth.sites[:1])["1"] - truth.maps["1"]
    >>> bool((only_the_second_pads[..., 1:-1, 1:-1].abs() < 1e-5).all())
    True
    """
    require_eval(model)
    if coverage.sites is None:
        raise PPPError("this coverage names no padding sites; make it with ppp.coverage")
    if pixels.ndim != 3:
        raise PPPError(f"pixels have shape {tuple(pixels.shape)}; expected a picture (C, H, W)")
    truth = Truth(model, coverage.sites, tops, lefts)
    maps: dict[str, Tensor] = {}

    def consume(layer: str, output: Tensor) -> None:
        places = coverage[layer].certify(tuple(output.shape[-2:]), truth.tops, truth.lefts)
        maps[layer] = gather(output[0], *places, coverage[layer].influence.shape)

    with exact_kernels(), truth.recorded():
        Tap(model, list(coverage))(pixels[None], consume)
    truth.require_all()
    return Optimal(truth, gather(pixels, truth.tops, truth.lefts, coverage.input_size), maps)
