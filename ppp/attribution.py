"""Which padding makes the pattern? Each site alone, and all but each. [ours]

A site's padding is switched on among true values, and off among padded ones. Networks are not
linear, so that neither effect adds up to the whole: what is left is called interaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ppp import display
from ppp.certificate import Completeness, Coverage
from ppp.errors import GridError, PictureError, PPPError, unknown
from ppp.extraction import Tap, exact_kernels, plain
from ppp.influence import influence_by_site
from ppp.inventory import Site, running
from ppp.measurement import branched, check_picture, prepared
from ppp.metrics import Moments, leave_one_out, mae_ppp, merged, noise_floor
from ppp.padding import Scheme
from ppp.passes import Bound, OptimalPasses, reused
from ppp.statistics import between, jackknife, products, unbiased_power
from ppp.truth import Truth
from ppp.windows import Windows


@dataclass
class Attribution:
    """What each padding site does to each layer.

    Attributes
    ----------
    sites : dict of str to Site
        By name: that of the module; where it pads in several calls, kind and number follow, as
        in ``"stem pad 1"``.
    patterns : dict of str to ndarray of float32, shape (C, H, W)
        The whole pattern d of each layer, as :func:`ppp.measure` estimates it.
    completeness : dict of str to Completeness
        How exactly true values at all sites gave each layer's optimal features, over all windows.
    passes : int
        Over every window: 2 S + 2, with S the sites that reach a layer.
    """

    sites: dict[str, Site]
    passes: int
    completeness: dict[str, Completeness]
    patterns: dict[str, np.ndarray] = field(default_factory=dict)
    _maps: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=dict)
    _effects: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    _left: list[dict[str, object]] = field(default_factory=list)

    def maps(self, site: str, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """Return d_only and d_without of a site: means of D, (C, H, W), float32."""
        for kind, given, known in (("site", site, self.sites), ("layer", layer, self.patterns)):
            if given not in known:
                raise PPPError(unknown(kind, given, known))
        only, without = self._maps[site, layer]
        return only, without

    def table(self) -> pd.DataFrame:
        """Return one row per site and layer, all 0 but for `without` where it does not reach.

        ``reached``: share of the layer's cells that the site can touch. ``mae_only``,
        ``mae_without``: mean magnitude over influenced cells, in units of sigma, beside what it
        would be without any pattern (``..._floor``). ``projection_only``: <d_only, d> / <d, d>.
        ``projection_without``: 1 - <d_without, d> / <d, d>, what goes with the site's padding.
        Bounds of intervals are in ``..._low`` and ``..._high``.
        """
        keys = [(name, layer) for name in self.sites for layer in self.patterns]
        return pd.DataFrame([self._effects[key] for key in keys])

    def interactions(self) -> pd.DataFrame:
        """Return one row per layer: its whole pattern, and what of it no site explains.

        ``interaction``: 1 less the sum of ``projection_only``; ``interaction_without``: less
        the sum of the others. ``mae`` and the unbiased ``power`` are over influenced cells; where
        the power's interval covers 0, there is nothing that could be attributed.
        """
        return pd.DataFrame(self._left)

    def __repr__(self) -> str:
        return f"Attribution({len(self.sites)} sites; layers {', '.join(self.patterns)})"

    def _repr_html_(self) -> str:
        return display.table(repr(self), self.table().to_dict("records"))


def attribute(
    model: nn.Module, windows: Windows, layers: Sequence[str], scheme: str | Scheme | None = None,
    *, coverage: Coverage | None = None, batch_size: int = 8, groups: int = 10,
    confidence: float = 0.95, seed: int = 0, memory: float | None = None,
    progress: Callable[[int], object] | None = None,
) -> Attribution:  # fmt: skip
    """Find which padding sites make the pattern of each layer.

    Every window runs as the network pads, with true values at all sites, which must give the
    optimal features, with each site alone padding, and with each alone mended: 2 S + 2 passes.

    Projections are ratios of products between mean maps of different pictures. Two means over
    the same windows share their noise, whose product would draw projections towards what happens
    in single windows. Intervals are jackknives over groups of pictures and need three; those of
    projections are centred on the value, as correcting it for the bias of a ratio adds more noise
    than it takes away. A layer whose unbiased power is not positive has no projections (NaN).

    Parameters
    ----------
    model, windows, layers, coverage, batch_size, groups, confidence, seed, memory, progress
        As in :func:`ppp.measure`; windows of at least two pictures.
    scheme : str, Scheme or None
        A test-time padding scheme, pools kept; None for the network's own. randn draws anew in
        every pass.

    Returns
    -------
    Attribution
        With ``.table()``, ``.interactions()`` and ``.maps(site, layer)``.

    Raises
    ------
    PPPError
        The network does not pad, or where no site is listed; a coverage of another network.
    GridError
        True values at all sites do not give the optimal features.
    LayerError, MarginError, PictureError, SwapError
        As :func:`ppp.measure`.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]).eval()
    >>> reach = ppp.coverage(net, ["1"], 16)
    >>> draw = torch.Generator().manual_seed(0)
    >>> scenes = {str(i): torch.rand(3, 32, 32, generator=draw) for i in range(4)}
    >>> windows = ppp.cut_windows(scenes, 16, reach, per_picture=4, seed=0)
    >>> found = ppp.attribute(net, windows, ["1"], coverage=reach)
    >>> found.passes, list(found.table()["module"])
    (6, ['0', '1'])
    >>> bool(abs(found.interactions()["interaction"][0]) < 1e-4)  # without a ReLU, there is none
    True
    """
    layers, coverage, inventory = prepared(
        model, windows, layers, coverage, batch_size, groups, confidence
    )
    if not coverage.sites:
        raise PPPError("the network pads nowhere at this window size: nothing to attribute")
    branches, _, audits = branched(model, [scheme], inventory, "keep", seed, windows.size)
    by_site = influence_by_site(model, coverage)
    reach = {
        layer: {site: by_site[site.key, layer].mean() for site in coverage.sites}
        for layer in layers
    }
    limit = Bound(
        memory, model, [inventory, *audits.values()], coverage, layers, groups, batch_size, False,
        {layer: np.count_nonzero([*shares.values()]) for layer, shares in reach.items()},
    )  # fmt: skip
    sums = _Sums(model, *branches.values(), coverage.only(layers), reach, groups, limit)
    with plain(), exact_kernels(), reused():
        for picture in windows:
            check_picture(picture, windows.size)
            for window_batch, optimal, truth in sums.passes.batches(picture):
                sums.step(picture.name, window_batch, optimal, truth)
                if progress:
                    progress(len(window_batch))
                del window_batch, optimal, truth  # before the next tile
        if len(sums.windows) < 2:
            raise PictureError(
                f"windows of {len(sums.windows)} picture(s) or group(s) of them given; projections "
                "compare pictures and need 2, their intervals 3"
            )
        return sums.result(confidence)


class _Sums:
    """Differences from the optimal features added up, by layer, group of pictures and pass."""

    def __init__(self, model, branch, coverage: Coverage, reach, groups, limit: Bound) -> None:
        self.listed, self.reach, self.groups = coverage.sites, reach, groups
        self.sites = tuple(s for s in self.listed if any(shares[s] for shares in reach.values()))
        self.coverage, coverage.sites = coverage, self.sites
        self.branch, self.tap = branch, Tap(branch, list(coverage), to_the_end=False)
        self.passes = OptimalPasses(model, list(coverage), coverage, limit, self.compare, True)
        self.compare({k: proof for k, c in coverage.items() if (proof := c.completeness)})
        weight = self.passes.weight
        tolerance = 1e-9 if weight.dtype == torch.float64 else 1e-4
        self.proofs = dict.fromkeys(coverage, Completeness(0.0, tolerance))
        self.cells = {
            layer: torch.from_numpy(np.flatnonzero(c.influence)).to(weight.device)
            for layer, c in coverage.items()
        }
        self.sums: dict[tuple, Tensor] = {}
        self.scales = {layer: [Moments() for _ in range(groups)] for layer in coverage}
        self.pictures: dict[str, int] = {}
        self.windows: Counter[int] = Counter()

    def compare(self, proofs: dict[str, Completeness]) -> None:
        """Refuse a network that pads where the list of sites does not say."""
        for layer, proof in proofs.items():
            if not proof.shown:
                raise PPPError(
                    f"the pattern cannot be attributed: up to layer {layer!r}, something pads that "
                    f"is not listed, seen first in {proof.module!r}; choose layers before it"
                )

    def step(self, name: str, x: Tensor, optimal: dict[str, Tensor], truth: Truth) -> None:
        """Run one batch of windows with every choice of sites and add its differences."""
        group = self.pictures.setdefault(name, len(self.pictures)) % self.groups
        self.windows[group] += len(x)
        mended: dict[str, Tensor] = {}

        def added(layer: str, output: Tensor) -> Tensor:
            """Return the sum over the windows, (C, influenced cells)."""
            cells = output.flatten(2)
            if len(self.cells[layer]) < cells.shape[2]:
                cells = cells.index_select(2, self.cells[layer])
            return cells.double().sum(0)

        def run(true: Sequence[Site], consume: Callable[[str, Tensor], object]) -> None:
            with running(self.coverage.input_size), truth.injected(true, self.branch):
                self.tap(x, consume)

        def compare(layer: str, output: Tensor) -> None:
            mended[layer], true = added(layer, output), optimal[layer]
            self.scales[layer][group].merge(Moments().update(true).pooled())
            worst = float((output - true).abs().max()) / float(true.abs().max() or 1.0)
            proof = replace(self.proofs[layer], relative=worst)
            if not proof.shown:
                raise GridError(
                    f"layer {layer!r}: with true values at all {len(self.sites)} sites, windows of "
                    f"{name!r} differ from the optimal features by {worst:.1e} of the largest; "
                    "something depends on the batch, or pads without being listed"
                )
            self.proofs[layer] = proof.both(self.proofs[layer])

        def work(site: Site | None, kind: str, true: Sequence[Site]) -> None:
            def add(layer: str, output: Tensor) -> None:
                if site is None or self.reach[layer][site]:
                    key = layer, site, kind, group
                    less = added(layer, output).sub_(mended[layer])
                    self.sums[key] = less.add_(self.sums.get(key, 0.0))

            run(true, add)

        run(self.sites, compare)
        work(None, "whole", ())
        for site in self.sites:
            work(site, "only", [other for other in self.sites if other is not site])
            work(site, "without", [site])

    def result(self, confidence: float) -> Attribution:
        """Turn the sums into maps, sizes and projections."""
        pads = Counter(site.module for site in self.listed)
        names = {}
        for site in self.listed:
            several = pads[site.module] > 1 or not site.module  # or the network's own forward
            call = f"{site.module} {site.kind} {site.number}".strip()
            names[call if several else site.module] = site
        found = Attribution(names, 2 * len(self.sites) + 2, self.proofs)

        def row(**named: Sequence[float]) -> dict[str, object]:
            columns: dict[str, object] = {}
            for name, (value, *left_out) in named.items():
                plug_in = name.startswith("mae")  # the others have no bias to correct
                estimate = jackknife(float(value), left_out, confidence, corrected=plug_in)
                columns |= zip((name, f"{name}_low", f"{name}_high"), vars(estimate).values())
            return columns

        for layer, proof in self.proofs.items():
            whole = d, found.patterns[layer], mae, floor = self._mean(layer, None, "whole")
            power = between(d, d)
            nothing = d * 0, found.patterns[layer] * 0, np.zeros_like(power), 0.0
            scale, left = np.where(power > 0, power, np.nan), {"only": 1.0, "without": 1.0}
            for name, site in names.items():
                reached = self.reach[layer][site]
                effect = {"module": site.module, "kind": site.kind, "call": site.number}
                effect |= {"layer": layer, "reached": reached}
                maps = found._maps[name, layer] = []
                for kind, unreached in (("only", nothing), ("without", whole)):
                    means, map_, size, low = self._mean(layer, site, kind) if reached else unreached
                    share = between(means, d) / scale if reached else nothing[2]
                    share = 1 - share if reached and kind == "without" else share
                    maps.append(map_)
                    left[kind] = left[kind] - share
                    effect |= row(**{f"mae_{kind}": size, f"projection_{kind}": share})
                    effect[f"mae_{kind}_floor"] = low
                found._effects[name, layer] = effect
            about = {"layer": layer, "n": self.windows.total(), "groups": len(self.windows)}
            about |= row(mae=mae) | {"mae_floor": floor, "sigma": self._sigma(layer)[0]}
            influenced = unbiased_power(products(d), confidence)
            about |= zip(("power", "power_low", "power_high"), vars(influenced).values())
            about |= row(interaction=left["only"], interaction_without=left["without"])
            found._left.append(about | {"completeness": str(proof)})
        return found

    def _mean(self, layer: str, site: Site | None, kind: str) -> tuple:
        """Return the groups' mean maps, (G, C x cells), that of all, its sizes and its floor."""
        groups, influence = sorted(self.windows), self.coverage[layer].influence
        n, every = [self.windows[group] for group in groups], self.windows.total()
        sums = [self.sums[layer, site, kind, group] for group in groups]
        means, total = [added / count for added, count in zip(sums, n)], sum(sums)
        rest = [(total - added) / (every - count) for added, count in zip(sums, n)]
        sigma = self._sigma(layer)
        mae = [mae_ppp(*pair) for pair in zip([total / every, *rest], sigma)]
        floor = noise_floor([Moments(*part, part[1] * 0) for part in zip(n, means)])
        map_ = np.zeros((len(total), influence.size), np.float32)
        map_[:, self.cells[layer].cpu()] = (total / every).cpu()
        maps = torch.stack(means).flatten(1), map_.reshape(-1, *influence.shape)
        return *maps, np.array(mae), mae_ppp(floor, sigma[0])

    def _sigma(self, layer: str) -> list[float]:
        """Return the standard deviation of the optimal features: of all, without each group."""
        scales = [self.scales[layer][group] for group in sorted(self.windows)]
        return [float(s.variance.sqrt()) for s in (merged(scales), *leave_one_out(scales))]
