"""PPP of networks that others trained on real pictures, on real photographs. [ours]

Each network is measured as it was trained and at five initialisations, under five schemes, in
five layers. Photographs are the units: a layer is measured on all that are large enough for it.
The tables are in ``data/pretrained``.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import ppp
from ppp.certificate import Coverage
from ppp.metrics import Moments, leave_one_out, mae_ppp, merged, separated, snr_ppp, summarise
from ppp.statistics import halves, products
from studies import paths
from studies.networks import Network, load_network
from studies.networks.names import PADDINGS
from studies.pictures.photographs import Reduced
from studies.pretrained import edges
from studies.pretrained.pictures import SIDES, apart, by_layers, measured, reduced
from studies.runs import Run, Study
from studies.stats import share
from studies.storage import tables as files

DATA = paths.data("pretrained")
"""What is shipped."""
OWN = "zeros"
"""What all these networks were trained with."""
SEEDS = range(5)
"""Of the initial networks."""
PER_PHOTO = {"hed-vgg16": 8}
"""Windows of a photograph, where not 16."""
MAPS = (1, 2, 4, 8, 16)
"""Maps that are averaged before their visibility is judged."""
HALVES = (4, 8, 15)
"""Photographs in each part when mean features of two parts are compared."""
DIVISIONS = 20
"""Random divisions into two parts."""
REGIONS = ("top", "bottom", "left", "right", "corner", "inside")
"""Of a map: the outermost rows and columns of cells, the four corner cells, the rest."""

_BATCH = 8
_ENOUGH = 50  # photographs
_STATISTICS = 16  # windows of a photograph from which batch norm is re-estimated


@dataclass(frozen=True, order=True)
class NetworkState(Run):
    """A network as it was trained (seed 0), or initial."""

    network: str
    state: str
    seed: int


def design() -> list[NetworkState]:
    """List all runs: the trained networks first."""
    trained = [NetworkState(name, "trained", 0) for name in SIDES]
    return trained + [NetworkState(name, "initial", s) for s in SEEDS for name in SIDES]


def re_estimated(network: Network, pictures: Sequence[Reduced] | None = None) -> nn.Module:
    """Return a copy with batch-norm statistics of photographs that are not measured.

    Parameters
    ----------
    network : Network
    pictures : sequence of Reduced, optional
        By default those set apart: 16 windows of each, in random places (seed 0).
    """
    model, draw = copy.deepcopy(network.model), np.random.default_rng(0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    if not norms:
        return model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over all batches
    pictures = reduced(apart(), network.name) if pictures is None else pictures
    with torch.no_grad():
        model.train()
        for picture in pictures:
            pixels, side = network.prepare(picture.pixels()), network.window
            tops, lefts = (draw.integers(s - side + 1, size=_STATISTICS) for s in pixels.shape[1:])
            places = zip(tops, lefts)
            model(torch.stack([pixels[:, t : t + side, s : s + side] for t, s in places]))
    return model.eval()


class Collected:
    """What a measurement leaves of each photograph, on the cells that padding can touch.

    Attributes
    ----------
    differences : dict of (scheme, layer) to dict of picture to Moments
        Of D = A - O, cells (C, touched).
    optimal : dict of layer to dict of picture to Tensor
        Mean of O, (C, touched).
    scales : dict of layer to dict of picture to Moments
        Of O over windows and all cells, per channel.
    """

    def __init__(self, reach: Coverage, own: str = OWN) -> None:
        self.own = own
        self.touched = {name: torch.from_numpy(layer.influence) for name, layer in reach.items()}
        self.differences: dict[tuple[str, str], dict[str, Moments]] = defaultdict(dict)
        self.optimal: dict[str, dict[str, Moments]] = defaultdict(dict)
        self.scales: dict[str, dict[str, Moments]] = defaultdict(dict)
        self._picture = ""

    def add(self, picture: str, scheme: str, layer: str, maps: Tensor, optimal: Tensor) -> None:
        """Take the maps of a batch of windows, as :func:`ppp.measure` gives them."""
        if picture != self._picture:
            self._settle()
            self._picture = picture
        touched = self.touched[layer]
        true = optimal[..., touched]
        kept = self.differences[scheme, layer].setdefault(picture, Moments())
        kept.merge(Moments().update(maps[..., touched], true))
        if scheme == self.own:
            self.optimal[layer].setdefault(picture, Moments()).merge(Moments().update(true))
            variance, mean = torch.var_mean(optimal, (0, 2, 3), correction=0)
            n = optimal.numel() // optimal.shape[1]
            one = Moments(n, mean.double(), variance.double() * n)
            self.scales[layer].setdefault(picture, Moments()).merge(one)

    def _settle(self) -> None:
        """Keep what the picture before has left in float32: it is much, and final."""
        for parts in (*self.differences.values(), *self.optimal.values()):
            if kept := parts.get(self._picture):
                kept.mean, kept.m2 = kept.mean.float(), kept.m2.float()

    def parts(self, scheme: str, layer: str) -> list[Moments]:
        """Return the moments of D of each photograph."""
        parts = self.differences[scheme, layer].values()
        return [Moments(part.n, part.mean.double(), part.m2.double()) for part in parts]

    @property
    def layers(self) -> list[str]:
        """The layers that some photograph served."""
        return [layer for layer in self.touched if self.differences.get((self.own, layer))]

    def pooled(self, layer: str) -> list[Moments]:
        """Return the moments of O over all channels, one for each photograph."""
        return [_over_channels(scale) for scale in self.scales[layer].values()]


def _over_channels(scale: Moments) -> Moments:
    mean = scale.mean.mean()
    m2 = scale.m2.sum() + scale.n * (scale.mean - mean).square().sum()
    return Moments(scale.n * scale.mean.numel(), mean, m2)


def collect(
    network: Network, model: nn.Module, reach: Coverage, pictures: Sequence[Reduced],
    per_photo: int, schemes: Sequence[str] = PADDINGS, seed: int = 0,
) -> Collected:  # fmt: skip
    """Measure a network on photographs: each layer on those that can serve it."""
    found = Collected(reach, schemes[0])
    for layers, group in by_layers(pictures, reach, network).items():
        cover = reach.only(layers)
        chosen = ppp.cut_windows(
            group, network.window, cover, per_picture=per_photo, seed=seed,
            transform=network.prepare,
        )  # fmt: skip
        ppp.measure(
            model, chosen, layers, schemes, coverage=cover, batch_size=_BATCH, groups=2, seed=seed,
            maps=found.add,
        )  # fmt: skip
    return found


# --------------------------------------------------------------------------------- tables


def metrics(found: Collected) -> pd.DataFrame:
    """Return every metric, per influenced cell: a row for each scheme and layer.

    Columns: scheme, layer, pictures, windows; mae, snr and power with their 95 % intervals (_low,
    _high; jackknife over photographs), raw (mean |d|), p (sign flips), noise_power (V), share
    (P / (P + V)), r (correlation of halves), sigma, mae_floor, snr_floor, influenced.
    """
    rows = []
    for scheme, layer in found.differences:
        parts = found.parts(scheme, layer)
        summary = summarise(parts, found.pooled(layer), pictures=len(parts))
        row = {"scheme": scheme, "layer": layer, "pictures": len(parts), "windows": summary.n}
        for name in ("mae", "snr", "power"):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), _three(getattr(summary, name))))
        names = ("p", "noise_power", "share", "sigma", "mae_floor", "snr_floor")
        row |= {"raw": summary.mae_raw} | {name: getattr(summary, name) for name in names}
        alike = products([part.mean for part in parts])
        row["r"] = halves(alike).mean() if len(parts) > 3 else np.nan
        row["influenced"] = float(found.touched[layer].double().mean())
        rows.append(row)
    return pd.DataFrame(rows)


def _three(estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def without(found: Collected) -> pd.DataFrame:
    """Return the metrics under the own padding without each photograph in turn.

    Columns: layer, picture (empty: none is left out), mae, raw, snr, r, share.
    """
    rows = []
    for layer in found.layers:
        names = list(found.differences[found.own, layer])
        differences, scales = found.parts(found.own, layer), found.pooled(layer)
        alike = products([part.mean for part in differences])
        n, spread = np.array([(part.n, float(part.m2.mean())) for part in differences]).T
        rests = [(merged(differences), merged(scales))]
        rests += zip(leave_one_out(differences), leave_one_out(scales))
        for left, (rest, scale) in zip((None, *range(len(names))), rests):
            kept = np.arange(len(names)) != (-1 if left is None else left)
            inside = np.append(kept, True)
            rows.append(
                {
                    "layer": layer,
                    "picture": "" if left is None else names[left],
                    "mae": mae_ppp(rest.mean, float(scale.variance.sqrt())),
                    "raw": float(rest.mean.abs().mean()),
                    "snr": snr_ppp(rest.mean, rest.variance),
                    "r": halves(alike, without=left).mean(),
                    "share": share(alike[np.ix_(inside, inside)], n[kept], spread[kept]),
                }
            )
    return pd.DataFrame(rows)


def distinguished(found: Collected) -> pd.DataFrame:
    """Compare photographs' mean features under the own padding with other photographs' true ones.

    Columns: layer, n (photographs in each part), picture (left out, or empty), separated and
    control (share of influenced cells at which the first part, or its true features, differ from
    the second: Welch's test, false-discovery rate 5 %; mean over the divisions).
    """
    rows = []
    for layer in found.layers:
        names = list(found.optimal[layer])
        true = torch.stack([found.optimal[layer][name].mean.double() for name in names])
        padded = true + torch.stack([part.mean for part in found.parts(found.own, layer)])
        draw = np.random.default_rng(0)
        orders = [draw.permutation(len(names)).tolist() for _ in range(DIVISIONS)]
        for n in HALVES:
            if 2 * n > len(names) - 1:
                continue
            seen: dict[tuple, tuple[float, float]] = {}
            for left in (-1, *range(len(names))):
                shares = []
                for order in orders:
                    part = tuple([i for i in order if i != left][: 2 * n])
                    if part not in seen:
                        first, second = list(part[:n]), list(part[n:])
                        seen[part] = tuple(
                            float(
                                separated(_sample(a[first]), _sample(true[second])).double().mean()
                            )
                            for a in (padded, true)
                        )
                    shares.append(seen[part])
                rows.append((layer, n, names[left] if left >= 0 else "", *np.mean(shares, 0)))
    return pd.DataFrame(rows, columns=["layer", "n", "picture", "separated", "control"])


def _sample(maps: Tensor) -> Moments:
    return Moments().update(maps)


def channels(found: Collected) -> pd.DataFrame:
    """Return the unbiased power of each channel under the own padding.

    Columns: layer, channel, power (over influenced cells), sigma (of the channel).
    """
    rows = []
    for layer in found.layers:
        power = _unbiased(found.parts(found.own, layer)).mean(1)
        sigma = merged(list(found.scales[layer].values())).variance.sqrt()
        for channel, (p, s) in enumerate(zip(power.tolist(), sigma.tolist())):
            rows.append((layer, channel, p, s))
    return pd.DataFrame(rows, columns=["layer", "channel", "power", "sigma"])


def _unbiased(parts) -> Tensor:
    """Return the mean product of two photographs' mean maps, cell by cell, (C, touched)."""
    means = torch.stack([part.mean for part in parts])
    n = len(means)
    return (means.sum(0).square() - means.square().sum(0)) / (n * (n - 1))


def regions(found: Collected) -> pd.DataFrame:
    """Return the unbiased power on the four sides, in the corners, and inside of a map.

    Columns: scheme, layer, region (of :data:`REGIONS`), power (mean over channels and cells; in
    cells that padding cannot touch it is 0).
    """
    rows = []
    for scheme, layer in found.differences:
        touched = found.touched[layer]
        power = torch.zeros(touched.shape, dtype=torch.float64)
        power[touched] = _unbiased(found.parts(scheme, layer)).mean(0)
        inner = slice(1, -1)
        corners = power[[0, 0, -1, -1], [0, -1, 0, -1]]
        parts_of = (power[0, inner], power[-1, inner], power[inner, 0], power[inner, -1], corners)
        for name, cells in zip(REGIONS, (*parts_of, power[inner, inner])):
            rows.append((scheme, layer, name, float(cells.mean())))
    return pd.DataFrame(rows, columns=["scheme", "layer", "region", "power"])


def single_maps(
    network: Network, model: nn.Module, reach: Coverage, pictures: Sequence[Reduced], per_photo: int
) -> pd.DataFrame:
    """Judge single maps under the own padding; template and test photographs take turns.

    Columns: layer, version, n (maps that are averaged), picture (left out, or empty), area.
    """
    rows = []
    for layers, served in _alike(by_layers(pictures, reach, network), list(reach)):
        cover = reach.only(layers)
        template, tested = (
            ppp.cut_windows(
                served[half::2], network.window, cover, per_picture=per_photo, seed=0,
                transform=network.prepare,
            )
            for half in (0, 1)
        )  # fmt: skip
        how = {"coverage": cover, "batch_size": _BATCH, "groups": 2}
        for layer, seen in ppp.visibility(model, template, tested, layers, OWN, **how).items():
            for version in seen.optimal:
                for n in (n for n in MAPS if n <= len(seen.pictures)):
                    names = np.unique(seen.pictures).tolist() if n in (MAPS[0], MAPS[-1]) else []
                    for left in ([], *([name] for name in names)):
                        rows.append((layer, version, n, "".join(left), seen.area(version, n, left)))
    return pd.DataFrame(rows, columns=["layer", "version", "n", "picture", "area"])


def _alike(groups, layers: list[str]) -> list[tuple[list[str], list[Reduced]]]:
    """Return layers with the photographs that serve them, the last layer alone where it has few."""
    last = groups.get(tuple(layers), [])
    if len(last) >= _ENOUGH or len(layers) == 1:
        return [(layers, last)]
    others = [p for names, group in groups.items() if len(names) >= len(layers) - 1 for p in group]
    return [(layers[:-1], others), *([(layers[-1:], last)] if len(last) > 3 else [])]


# ---------------------------------------------------------------------------------- study


def compute(
    run: NetworkState, pictures: Sequence[Reduced] | None = None, per_photo: int | None = None
) -> dict[str, pd.DataFrame]:
    """Load and measure one network.

    Parameters
    ----------
    run : NetworkState
    pictures : sequence of Reduced, optional
        By default all photographs of :func:`studies.pretrained.pictures.measured`.
    per_photo : int, optional
        Windows of each.
    """
    network = load_network(run.network, run.state, seed=run.seed)
    model = network.model if run.state == "trained" else re_estimated(network)
    pictures = reduced(measured(), run.network) if pictures is None else pictures
    per_photo = per_photo or PER_PHOTO.get(run.network, 16)
    reach = ppp.coverage(model, list(network.layers), network.window)
    found = collect(network, model, reach, pictures, per_photo)
    tables = {"metrics": metrics(found), "without": without(found)}
    tables |= dict.fromkeys([*TABLES][2:], pd.DataFrame())
    if run.seed == 0:
        tables |= {"channels": channels(found), "regions": regions(found)}
    if run.state == "trained":
        tables["distinguished"] = distinguished(found)
        del found
        tables["visibility"] = single_maps(network, model, reach, pictures, per_photo)
        if run.network == "hed-vgg16":
            tables["edges"] = edges.of_photograph(network)
            tables["edge_pattern"] = edges.mean_difference(network, pictures)
    return tables


_NAMES = ("metrics", "without", "distinguished", "channels", "regions", "visibility")
DIGITS = dict.fromkeys(_NAMES, 6) | {"edges": 3, "edge_pattern": 3}
TABLES = {name: f"{name}.csv.gz" for name in DIGITS}
STUDY = Study("pretrained", NetworkState, design, compute, TABLES, DIGITS)


def read(name: str, data: str | Path = DATA) -> pd.DataFrame:
    """Read one of the shipped tables: "metrics", "without", ...; see the functions above."""
    return files.read_table(Path(data) / TABLES[name])
