"""PPP of every small network: all layers and schemes, halves of the data, growth with n. [ours]

A *run* is one network of the zoo in one state. :data:`STUDY` turns finished runs into the tables
that ``data/patterns`` ships; the functions at the end read them. The pictures are scikit-image's
photographs and independent scenes of the plane, one window each. Two halves of either share no
picture, and have other draws of random padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor, nn

from ppp.errors import ParameterError, unknown
from ppp.influence import Coverage
from ppp.measurement import measure
from ppp.results import PROOF, LayerResult, Measurement
from ppp.windows import Source, Windows, cut_windows, size_needed
from studies import paths
from studies.networks import (
    OPTIMAL,
    PLANE_MEAN,
    PLANE_STD,
    load_network,
    normalise,
    reach_of,
)
from studies.networks.names import PADDINGS, SEEDS
from studies.pictures.photographs import large_enough, photographs
from studies.pictures.plane import scenes
from studies.runs import Run, Study, joined
from studies.storage import tables as files

DATA = paths.data("patterns")
"""What is shipped."""
STATES = ("trained", "initial")
PHOTOGRAPHS, PLANE = "photographs", "plane"
PER_PHOTO = 64
"""Windows of a photograph."""
SIZES = {"resnet": (8, 32, 128, 512), "vgg": (8, 32, 128)}
"""Numbers of scenes in each half of the plane."""

_SCENES = (1 << 43, (1 << 43) + (1 << 20))  # first scene of each half
_WHOLE, _HALVES = 0, (1, 2)  # seeds of randn's draws
_BATCH = 32  # windows of these small networks a pass


@dataclass(frozen=True, order=True)
class NetworkState(Run):
    """One network in one state.

    Initial networks of a seed are the same whatever the padding: nothing has been trained, so no
    padding is their own. They are listed once, under the padding "optimal".
    """

    family: str
    padding: str
    state: str
    seed: int

    @property
    def tested(self) -> tuple[str, ...]:
        """Schemes under which halves are measured.

        The network's own; all five where there is none: before training, and for the control.
        """
        return PADDINGS if self.padding == OPTIMAL else (self.padding,)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Scenes in each half of the plane; none for the control, which has photographs only."""
        control = self.padding == OPTIMAL and self.state == "trained"
        return () if control else SIZES[self.family]


# ------------------------------------------------------------------------------ measuring


def windows_of_photographs(
    reach: Coverage, half: int | None = None, pictures: Sequence[Source] | None = None
) -> Windows:
    """Cut windows of photographs: of all that are large enough, or of every other one.

    Parameters
    ----------
    reach : Coverage
        It says how large a photograph must be.
    half : {0, 1}, optional
    pictures : sequence, optional
        By default those of scikit-image.
    """
    pictures = photographs() if pictures is None else pictures
    pictures, _ = large_enough(pictures, *size_needed(reach.input_size, reach))
    pictures = pictures if half is None else pictures[half::2]
    return cut_windows(
        pictures, reach.input_size, reach, per_picture=PER_PHOTO, seed=0, transform=normal
    )


def windows_of_scenes(reach: Coverage, n: int, half: int) -> Windows:
    """Cut one window from each of the first `n` scenes of a half.

    Parameters
    ----------
    reach : Coverage
    n : int
    half : {0, 1}
    """
    drawn = scenes(n, *size_needed(reach.input_size, reach), seed=_SCENES[half])
    return cut_windows(drawn, reach.input_size, reach, per_picture=1, seed=0, transform=normal)


def normal(pixels: Tensor) -> Tensor:
    """Normalise pixels as the small networks want them."""
    return normalise(pixels, PLANE_MEAN, PLANE_STD)


def correlation(first: LayerResult, second: LayerResult) -> float:
    """Return Pearson's correlation of two estimates of a pattern.

    It runs over all channels and the cells that padding can touch; NaN if one estimate is
    constant there.

    Examples
    --------
    >>> import torch, ppp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
    >>> reach = ppp.coverage(net, ["0"], 16)
    >>> scene = {"noise": torch.rand(3, 64, 64)}
    >>> windows = ppp.cut_windows(scene, 16, reach, per_picture=8, seed=0)
    >>> result = ppp.measure(net, windows, ["0"])["0"]
    >>> round(correlation(result, result), 6)
    1.0
    """
    a, b = (part.pattern[:, part.influence].ravel().astype(float) for part in (first, second))
    if not (np.ptp(a) and np.ptp(b)):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def measure_run(model: nn.Module, run: NetworkState) -> dict[str, pd.DataFrame]:
    """Measure one network.

    Parameters
    ----------
    model : nn.Module
        Of the run's family.
    run : NetworkState

    Returns
    -------
    dict of str to DataFrame
        "metrics": data, and the columns of :meth:`ppp.results.Measurement.table`.
        "growth": scheme, layer and, for each half of the plane, that table's row after n
        scenes, plug_in (mean of d^2, the power with its bias) and separated. "halves": data,
        scheme, layer, n (windows in each half), r; for data "photographs and plane", the
        correlation of all photographs with the first half of the scenes. "maps": scheme,
        layer, row, column, value: channel mean of |d| on photographs (sigma), of networks
        that have a padding of their own. "channels": scheme, layer, channel, mae (mean
        |d|, sigma), power (unbiased, sigma^2), on scenes.
    """
    reach = reach_of(run.family)
    estimate = partial(_measured, model, reach)
    whole = estimate(windows_of_photographs(reach), PADDINGS, seed=_WHOLE)
    photos = [
        estimate(windows_of_photographs(reach, half), run.tested, seed=seed)
        for half, seed in enumerate(_HALVES)
    ]
    metrics, halves = [_table(whole).assign(data=PHOTOGRAPHS)], [_agreement(PHOTOGRAPHS, *photos)]
    growth, channels = [pd.DataFrame()], [pd.DataFrame()]
    for n in run.sizes:
        plane = [
            estimate(windows_of_scenes(reach, n, half), run.tested, seed=seed, marks=(n,))
            for half, seed in enumerate(_HALVES)
        ]
        growth += [_grown(part, half) for half, part in enumerate(plane)]
        halves.append(_agreement(PLANE, *plane))
        if n == run.sizes[-1]:
            metrics.append(_table(plane[0]).assign(data=PLANE))
            halves.append(_agreement(f"{PHOTOGRAPHS} and {PLANE}", whole, plane[0], run.tested))
            channels.append(_channels(plane[0]))
    return {
        "metrics": joined(metrics),
        "growth": joined(growth),
        "halves": joined(halves),
        "maps": _maps(whole, () if run.padding == OPTIMAL else run.tested),
        "channels": joined(channels),
    }


def _measured(model, reach, windows, schemes, *, seed, marks=()) -> Measurement:
    return measure(
        model,
        windows,
        list(reach),
        schemes,
        coverage=reach,
        batch_size=_BATCH,
        checkpoints=marks,
        distributions=bool(marks),
        seed=seed,
    )


def _table(measurement: Measurement) -> pd.DataFrame:
    return measurement.table().drop(columns=PROOF)


def _agreement(
    data: str, first: Measurement, second: Measurement, schemes: Sequence[str] | None = None
) -> pd.DataFrame:
    rows = [
        {
            "data": data,
            "scheme": key[0],
            "layer": key[1],
            "n": min(first[key].summary.n, second[key].summary.n),
            "r": correlation(first[key], second[key]),
        }
        for key in first
        if schemes is None or key[0] in schemes
    ]
    return pd.DataFrame(rows)


def _grown(measurement: Measurement, half: int) -> pd.DataFrame:
    table = _table(measurement).assign(half=half)
    biased = table["power_windows"] + table["noise_power"] / table["n"]
    apart = [result.checkpoints[-1].separated for result in measurement.values()]
    return table.assign(plug_in=biased, separated=apart)


def _maps(measurement: Measurement, schemes: Sequence[str]) -> pd.DataFrame:
    parts = [pd.DataFrame()]
    for (scheme, layer), result in measurement.items():
        if scheme in schemes:
            values = result.magnitude() / result.summary.sigma
            row, column = np.indices(values.shape).reshape(2, -1)
            head = {"scheme": scheme, "layer": layer, "row": row, "column": column}
            parts.append(pd.DataFrame(head | {"value": values.ravel()}))
    return joined(parts)


def _channels(measurement: Measurement) -> pd.DataFrame:
    parts = []
    for (scheme, layer), result in measurement.items():
        sigma, n = result.summary.sigma, result.summary.n
        pattern, deviation = (x.astype(float) / sigma for x in (result.pattern, result.deviation))
        head = {"scheme": scheme, "layer": layer, "channel": range(len(pattern))}
        strength = {
            "mae": np.abs(pattern).mean((1, 2)),
            "power": (pattern**2 - deviation**2 / n).mean((1, 2)),
        }
        parts.append(pd.DataFrame(head | strength))
    return joined(parts)


# ------------------------------------------------------------------------------------ runs


def full_design() -> list[NetworkState]:
    """List every network: each that is trained, and the initial ones once a seed."""
    return [
        NetworkState(family, padding, state, seed)
        for family in SEEDS
        for state in STATES
        for padding in (*PADDINGS, OPTIMAL)
        for seed in SEEDS[family]
        if state == "trained" or padding == OPTIMAL
    ]


def compute(run: NetworkState) -> dict[str, pd.DataFrame]:
    """Load and measure one network."""
    network = load_network(f"plane-{run.family}-{run.padding}", run.state, seed=run.seed)
    return measure_run(network.model, run)


DIGITS = {"metrics": 6, "growth": 6, "halves": 6, "maps": 4, "channels": 4}
TABLES = {name: f"{name}.csv.gz" for name in DIGITS}
STUDY = Study("patterns", NetworkState, full_design, compute, TABLES, DIGITS)


# --------------------------------------------------------------------------------- reading


def read(name: str, data: str | Path = DATA) -> pd.DataFrame:
    """Read one of the shipped tables.

    Parameters
    ----------
    name : {"metrics", "growth", "halves", "maps", "channels"}
        See :func:`measure_run`.
    data : path

    Returns
    -------
    DataFrame
        family, padding (that the network was trained with), state, seed, and the table's own
        columns.

    Raises
    ------
    ParameterError
        An unknown table.
    WeightsError
        It is missing or damaged.

    Examples
    --------
    >>> sorted(read("halves")["data"].unique())
    ['photographs', 'photographs and plane', 'plane']
    """
    if name not in TABLES:
        raise ParameterError(unknown("table", name, TABLES))
    return files.read_table(Path(data) / TABLES[name])


def own(table: pd.DataFrame) -> pd.DataFrame:
    """Keep what was measured under the scheme that the network was trained with.

    Initial networks, which have none, stay under every scheme, and the control goes.
    """
    initial = table["state"] == "initial"
    return table[initial | (table["scheme"] == table["padding"])]


def with_kind(table: pd.DataFrame) -> pd.DataFrame:
    """Name the kind of network in each row, in order: "trained", "initial" or "control".

    Trained networks stay under their own padding only.

    Examples
    --------
    >>> with_kind(read("metrics"))["kind"].unique().tolist()
    ['trained', 'initial', 'control']
    """
    control = (table["padding"] == OPTIMAL) & (table["state"] == "trained")
    kept = [
        own(table[table["state"] == "trained"]).assign(kind="trained"),
        table[table["state"] == "initial"].assign(kind="initial"),
        table[control].assign(kind="control"),
    ]
    return pd.concat(kept, ignore_index=True)
