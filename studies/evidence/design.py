"""What the amended tests of C3, C4, C5 and C7 are decided on: 45 photographs, many scenes. [ours]

Every small network is measured on scikit-image's photographs and on those of the set debian,
each reduced to a shorter side of 512 px. What the pictures' mean maps have in common is kept
as their products, so that each picture can be left out afterwards. The tables are in
``data/evidence``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import ppp
from ppp.certificate import Coverage
from ppp.extraction import Tap, exact_kernels
from ppp.metrics import Moments, separated
from ppp.results import PROOF, Measurement
from ppp.windows import Windows, size_needed
from studies import paths
from studies.networks import OPTIMAL, load_network, reach_of
from studies.patterns.design import NetworkState, full_design, normal, windows_of_photographs
from studies.pictures.photographs import Reduced, photographs
from studies.pictures.plane import SHAPES, render_windows
from studies.runs import Study, joined
from studies.storage import tables as files

DATA = paths.data("evidence")
"""What is shipped."""
SETS = {"scikit-image": "", "debian": "debian"}
"""Sets of photographs, and what :func:`studies.pictures.photographs.photographs` calls them."""
SHORTER_SIDE = 512
"""Pixels to which photographs are reduced; smaller ones stay as they are."""
MAPS = (1, 2, 4, 8, 16, 32, 64)
"""Maps that are averaged before their visibility is judged."""
SCENES = (8, 32, 128, 512, 2048, 8192)
"""Numbers of scenes after which distributions are compared."""
FAMILY = "resnet"
"""The family whose distributions are compared on scenes."""

_FIRST = {"algorithmic": 1 << 44, "optimal": 3 << 43, "control": 1 << 45}  # first scene of a part
_BATCH = 32


# ------------------------------------------------------------------------------ photographs


@cache
def _reduced(name: str) -> tuple[Reduced, ...]:
    return tuple(Reduced(photo, SHORTER_SIDE) for photo in photographs(SETS[name]))


def windows(reach: Coverage, name: str, half: int | None = None) -> Windows:
    """Cut windows of the photographs of a set: of all, or of every other one.

    Parameters
    ----------
    reach : Coverage
    name : {"scikit-image", "debian"}
    half : {0, 1}, optional
    """
    return windows_of_photographs(reach, half, _reduced(name))


def of_photographs(model: nn.Module, run: NetworkState) -> dict[str, pd.DataFrame]:
    """Measure a network on all photographs, each a group of its own.

    Returns
    -------
    dict of str to DataFrame
        "metrics": the columns of :meth:`ppp.Measurement.table`. "pictures": scheme, layer,
        number, picture, set, n, spread (squared deviations from the picture's mean, mean over
        cells) and mean (of its mean map). "products": scheme, layer, first and second (numbers of
        pictures), value (mean over channels and cells of the product of their mean maps).
    """
    reach = reach_of(run.family)
    parts = {name: windows(reach, name) for name in SETS}
    every = Windows(lambda: (p for part in parts.values() for p in part), reach.input_size)
    measured = _measure(model, every, run.tested, reach)
    named = {picture.name: name for name, part in parts.items() for picture in part}
    return {
        "metrics": measured.table().drop(columns=PROOF),
        "pictures": joined(_pictures(measured, named)),
        "products": joined(_products(measured)),
    }


def _measure(model, chosen, schemes, reach, **more) -> Measurement:
    how = {"coverage": reach, "batch_size": _BATCH, "groups": 1000, "seed": 0}
    return ppp.measure(model, chosen, list(reach), schemes, **how, **more)


def _pictures(measured: Measurement, named: dict[str, str]) -> Iterator[pd.DataFrame]:
    for (scheme, layer), result in measured.items():
        head = {"scheme": scheme, "layer": layer, "number": range(len(named))}
        head |= {"picture": list(named), "set": named.values()}
        n, spread = result.spreads.T
        tail = {"n": n.astype(int), "spread": spread, "mean": result.products[-1, :-1]}
        yield pd.DataFrame(head | tail)


def _products(measured: Measurement) -> Iterator[pd.DataFrame]:
    for (scheme, layer), result in measured.items():
        first, second = np.triu_indices(len(result.spreads))
        pairs = {"first": first, "second": second, "value": result.products[first, second]}
        yield pd.DataFrame({"scheme": scheme, "layer": layer} | pairs)


def of_single_maps(model: nn.Module, run: NetworkState) -> pd.DataFrame:
    """Judge single maps of a network under its own padding, on the set debian.

    Returns
    -------
    DataFrame
        scheme, layer, version, n (maps that are averaged), without (a picture, or empty), area.
    """
    reach, (scheme,) = reach_of(run.family), run.tested
    template, tested = (windows(reach, "debian", half) for half in (0, 1))
    how = {"coverage": reach, "batch_size": _BATCH, "seed": 0}
    seen = ppp.visibility(model, template, tested, list(reach), scheme, **how)
    rows = []
    for layer, result in seen.items():
        for version in result.optimal:
            for n in MAPS:
                left_out = [[], *([p] for p in np.unique(result.pictures) if n in (1, MAPS[-1]))]
                for without in left_out:
                    area = result.area(version, n, without)
                    rows.append((scheme, layer, version, n, "".join(without), area))
    return pd.DataFrame(rows, columns=["scheme", "layer", "version", "n", "without", "area"])


# ----------------------------------------------------------------------------------- scenes


@cache
def _rendered(part: str, side: int) -> Tensor:
    """Render the scenes of a part, eight bits a channel as a camera gives them."""
    pixels, corner = torch.empty(SCENES[-1], 3, side, side, dtype=torch.uint8), -(side - 96) // 2
    for start in range(0, len(pixels), 256):
        turn = np.arange(start, min(start + 256, len(pixels)))
        shapes = [SHAPES[i % len(SHAPES)] for i in turn]
        place = np.full(len(turn), corner)
        drawn = render_windows(_FIRST[part] + turn, shapes, place, place, side)
        pixels[turn] = drawn.mul_(255).round_().byte()
    return pixels


def of_scenes(model: nn.Module, run: NetworkState) -> pd.DataFrame:
    """Compare the distributions of features on independent scenes, one window each.

    Features under the network's own padding on one part of the scenes, under optimal padding on
    another, and under optimal padding on a third, the control.

    Returns
    -------
    DataFrame
        scheme, layer, n (scenes in each part), separated and control (share of influenced
        cells at which the first part, or the third, differs from the second: Welch's test,
        false-discovery rate 5 %), error (standard error of the mean difference of the first
        two, mean over influenced cells, in units of sigma).
    """
    reach, (scheme,) = reach_of(run.family), run.tested
    padded = ppp.with_padding(model, scheme, generator=torch.Generator().manual_seed(0))
    marks = zip(*(_distributions(part, padded, model, reach) for part in _FIRST))
    rows = []
    for n, kept in zip(SCENES, marks):
        for layer in reach:
            padded_cells, true, control = (moments[layer] for moments in kept)
            every = true.pooled()
            sigma = float((every.m2 / every.n).sqrt())
            error = ((padded_cells.variance + true.variance) / n).sqrt().mean()
            shares = [float(separated(a, true).double().mean()) for a in (padded_cells, control)]
            rows.append((scheme, layer, n, *shares, float(error) / sigma))
    return pd.DataFrame(rows, columns=["scheme", "layer", "n", "separated", "control", "error"])


def _distributions(part, padded, model, reach) -> Iterator[dict[str, Moments]]:
    """Yield the moments of the influenced cells after each number of scenes."""
    window, (side, _) = reach.input_size[0], size_needed(reach.input_size, reach)
    algorithmic = part == "algorithmic"
    tap, start = (
        Tap(padded if algorithmic else model, list(reach)),
        np.array([(side - window) // 2]),
    )
    pixels = _rendered(part, window if algorithmic else side)
    moments = {layer: Moments() for layer in reach}

    def add(layer: str, maps: Tensor) -> None:
        touched = torch.from_numpy(reach[layer].influence)
        if not algorithmic:
            (row,), (column,) = reach[layer].certify(tuple(maps.shape[-2:]), start, start)
            height, width = touched.shape
            maps = maps[..., row : row + height, column : column + width]
        moments[layer].update(maps[..., touched])

    with exact_kernels():
        for first, last in zip((0, *SCENES), SCENES):
            for batch in pixels[first:last].split(_BATCH):
                tap(normal(batch.float() / 255), add)
            yield {layer: Moments().merge(cells) for layer, cells in moments.items()}


# ------------------------------------------------------------------------------------ study


def compute(run: NetworkState) -> dict[str, pd.DataFrame]:
    """Load and measure one network."""
    model = load_network(f"plane-{run.family}-{run.padding}", run.state, seed=run.seed).model
    tables = of_photographs(model, run) | dict.fromkeys(("visibility", "scenes"), pd.DataFrame())
    if run.padding != OPTIMAL:
        tables["visibility"] = of_single_maps(model, run)
        if run.family == FAMILY:
            tables["scenes"] = of_scenes(model, run)
    return tables


DIGITS = {"metrics": 6, "pictures": 5, "products": 6, "visibility": 6, "scenes": 6}
TABLES = {name: f"{name}.csv.gz" for name in DIGITS}
STUDY = Study("evidence", NetworkState, full_design, compute, TABLES, DIGITS)


def read(name: str, data: str | Path = DATA) -> pd.DataFrame:
    """Read one of the shipped tables: see :func:`compute` and what it calls."""
    return files.read_table(Path(data) / TABLES[name])
