"""The full design of the PosENet study: every part, network, trial and target.

A *part* trains read-outs on some networks of the zoo in one way; beside the read-outs, some
parts measure PPP as often, on as many windows of the same photographs. A run is one network of
one part. :data:`STUDY` turns finished runs into the tables that ``data/posenet`` ships, and
:func:`trials`, :func:`windows`, and :func:`patterns` read them. [ours]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ppp.errors import ParameterError, PictureError, unknown
from ppp.influence import Coverage, coverage
from ppp.measurement import measure
from ppp.swapping import with_generator
from ppp.windows import Picture, Windows, cut_windows, size_needed
from studies import jobs as pool, paths
from studies.networks import (
    OPTIMAL,
    PLANE_MEAN,
    PLANE_STD,
    Network,
    load_network,
    normalise,
    reach_of,
)
from studies.networks.names import PADDINGS, SEEDS
from studies.parameters import check_whole
from studies.pictures.photographs import Photograph, large_enough, photographs
from studies.pictures.plane import scenes
from studies.posenet import readout as posenet
from studies.posenet.readout import PROTOCOLS, TARGETS, Protocol, Trials
from studies.results import metric_rows
from studies.runs import Run, Study, headed, joined
from studies.storage import tables as files

DATA = paths.data("posenet")
"""What is shipped."""
N = 512
"""Windows that a read-out is trained on, and PPP measured on."""
RIDGE = "ridge"
"""Stands for a protocol: the read-out is fitted in closed form."""
PIXELS = "pixels"
"""Stands for a network: read-outs of the pixels themselves ("PosENet alone")."""

_SCENES = 1 << 42  # first seed of the scenes that read-outs are tested on
_AROUND = 64  # px of surroundings of scenes, black, white and noise; a multiple of both strides
_TEST_SEED, _TRAIN_SEED = 1, 0  # of the places of windows; trials of PPP have their own seeds
_TESTED = {"photographs": 32, "plane": 16, "black": 1, "white": 1, "noise": 8}


@dataclass(frozen=True)
class Part:
    """Networks that are treated alike.

    Attributes
    ----------
    meaning : str
    paddings, seeds : tuples
        Of the networks.
    readout : {"published", "longer", "ridge"}
    trials : int
        Of every target.
    family : {"resnet", "vgg"}
    state : {"trained", "initial"}
    tested : {"own", "optimal"}
        Padding under which features are computed.
    measured : int
        Trials of PPP.
    """

    meaning: str
    paddings: tuple[str, ...] = PADDINGS
    seeds: tuple[int, ...] = SEEDS["resnet"]
    readout: str = "published"
    trials: int = 20
    family: str = "resnet"
    state: str = "trained"
    tested: str = "own"
    measured: int = 0


PARTS = {
    "trained": Part("trained networks, published protocol", measured=20),
    "pixels": Part("no network, published protocol", (PIXELS,), (0,)),
    "ridge": Part("trained networks, closed-form read-out", readout="ridge", trials=1),
    "surrounded": Part(
        "trained networks under optimal padding", (*PADDINGS, OPTIMAL), trials=5, tested=OPTIMAL
    ),
    "longer": Part("trained networks, longer protocol", readout="longer", trials=2),
    "initial": Part("initial networks, published protocol", state="initial", measured=20),
    "vgg": Part("trained networks of the other family", seeds=SEEDS["vgg"], trials=3, family="vgg"),
    "pixels-ridge": Part("no network, closed form", (PIXELS,), (0,), "ridge", 1),
    "pixels-longer": Part("no network, longer protocol", (PIXELS,), (0,), "longer", 3),
}
"""The parts of the design."""


@dataclass(frozen=True, order=True)
class PartNetwork(Run):
    """One network of one part."""

    part: str
    padding: str
    seed: int


# -------------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class Pictures:
    """Where windows come from: one half of the photographs to train on, the other to test on.

    Attributes
    ----------
    photos : str
        A folder, or "" for scikit-image's.
    mean, std : tuples of 3 floats
        Normalisation of the network.
    """

    photos: str = ""
    mean: tuple[float, float, float] = PLANE_MEAN
    std: tuple[float, float, float] = PLANE_STD

    def training(self, reach: Coverage, n: int = N, seed: int = _TRAIN_SEED) -> Windows:
        """Cut about `n` windows, equally many from each training photograph.

        Raises
        ------
        PictureError
            Fewer than two photographs that hold a window and its surroundings.
        """
        half = self._halves(reach)[0]
        return self._cut(half, reach, max(1, n // len(half)), seed)

    def tests(self, reach: Coverage) -> dict[str, Windows]:
        """Return the test windows of each kind of image, see :data:`studies.parameters.IMAGES`."""
        half = self._halves(reach)[1]
        size = reach.input_size[0]
        draw = torch.Generator().manual_seed(_TEST_SEED)
        side = size + 2 * _AROUND
        plane = scenes(_TESTED["plane"], side, side, seed=_SCENES)
        made = {
            "plane": [(scene.name, scene.pixels()) for scene in plane],
            "black": [("black", torch.zeros(3, side, side))],
            "white": [("white", torch.ones(3, side, side))],
            "noise": [
                (f"noise-{i}", torch.rand(3, side, side, generator=draw))
                for i in range(_TESTED["noise"])
            ],
        }
        corner = np.array([_AROUND])
        per_picture = max(1, _TESTED["photographs"] // len(half))
        return {"photographs": self._cut(half, reach, per_picture, _TEST_SEED)} | {
            kind: Windows(
                [Picture(name, self._normal(x), corner, corner) for name, x in pairs], size
            )
            for kind, pairs in made.items()
        }

    def _halves(self, reach: Coverage) -> tuple[list[Photograph], list[Photograph]]:
        height, width = size_needed(reach.input_size, reach)
        large, small = large_enough(photographs(self.photos), height, width)
        if len(large) < 2:
            raise PictureError(
                f"{len(large)} of {len(large) + len(small)} photographs have the {height} x "
                f"{width} px that a window and its surroundings need; give at least two, to train "
                "on one and test on another"
            )
        return large[0::2], large[1::2]

    def _cut(self, pictures, reach: Coverage, per_picture: int, seed: int) -> Windows:
        return cut_windows(
            pictures,
            reach.input_size,
            reach,
            per_picture=per_picture,
            seed=seed,
            transform=self._normal,
        )

    def _normal(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, self.mean, self.std)


# ---------------------------------------------------------------------------------- trials


@dataclass(frozen=True)
class Features:
    """Frozen features of a network: what read-outs are trained on, and tested on.

    Attributes
    ----------
    training : Tensor, shape (n, C, s, s)
    tests : dict of str to Tensor
    pictures : dict of str to list of str
        The picture that each test window comes from.
    """

    training: Tensor
    tests: dict[str, Tensor]
    pictures: dict[str, list[str]]


def features_of(
    model: nn.Module | None,
    layers: Sequence[str],
    reach: Coverage,
    pictures: Pictures,
    *,
    n: int = N,
    size: int = posenet.PUBLISHED.feature_size,
    optimal: bool = False,
    seed: int = 0,
) -> Features:
    """Compute all features that the trials of one network need.

    Parameters
    ----------
    model : nn.Module or None
        None for the pixels.
    layers : sequence of str
    reach : Coverage
        Of the layers; it says where windows may lie.
    pictures : Pictures
    n, size : int
        Training windows, and side of the grid.
    optimal : bool
        Under optimal padding instead of the network's own.
    seed : int
        Of a stochastic padding's draws, which are frozen with the features.
    """
    if model is not None:
        model = with_generator(model, torch.Generator().manual_seed(seed))
    compute = partial(
        posenet.features, model, layers=layers, size=size, surrounded=reach if optimal else None
    )
    tests = pictures.tests(reach)
    return Features(
        compute(pictures.training(reach, n)),
        {kind: compute(windows) for kind, windows in tests.items()},
        {kind: [p.name for p in windows for _ in p.tops] for kind, windows in tests.items()},
    )


def read_outs(
    maps: Tensor, targets: Sequence[str], seeds: Sequence[int], protocol: Protocol | str
) -> Trials:
    """Train read-outs by a protocol or its name, or fit them in closed form ("ridge").

    Raises
    ------
    ParameterError
        An unknown protocol; and see :func:`~studies.posenet.readout.train`.
    """
    chosen = _protocol(protocol)
    if protocol == RIDGE:
        return posenet.ridge(maps, targets, chosen)
    return posenet.train(maps, targets, seeds, chosen)


def _protocol(protocol: Protocol | str) -> Protocol:
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in (*PROTOCOLS, RIDGE):
        raise ParameterError(unknown("protocol", protocol, (*PROTOCOLS, RIDGE)))
    return PROTOCOLS.get(protocol, posenet.PUBLISHED)


def evaluated(readouts: Trials, features: Features) -> dict[str, pd.DataFrame]:
    """Score every trial on every kind of image.

    Returns
    -------
    dict of str to DataFrame
        "trials": trial, target, images, n windows, how many of them have no rank correlation
        because the painted map is constant (undefined), spc and mae (means over windows; spc
        is missing if all are undefined), and their standard deviations between windows.
        "windows": trial, target, window, picture, spc, mae, on photographs.
    """
    trials, windows = [], []
    for seed in readouts.seeds:
        for name in readouts.targets:
            for kind, maps in features.tests.items():
                spc, mae = posenet.scores(
                    readouts.predict(maps, seed, name), readouts.painted[name]
                )
                head = {"trial": seed, "target": name}
                defined = spc[np.isfinite(spc)]
                trials.append(
                    head
                    | {
                        "images": kind,
                        "n": len(mae),
                        "undefined": len(mae) - len(defined),
                        "spc": defined.mean() if len(defined) else None,
                        "mae": mae.mean(),
                        "spc_deviation": defined.std(ddof=1) if len(defined) > 1 else None,
                        "mae_deviation": mae.std(ddof=1) if len(mae) > 1 else None,
                    }
                )
                if kind == "photographs":
                    windows.append(
                        pd.DataFrame(
                            head
                            | {"window": range(len(mae)), "picture": features.pictures[kind]}
                            | {"spc": spc, "mae": mae}
                        )
                    )
    return {"trials": pd.DataFrame(trials), "windows": joined(windows)}


def measured(
    model: nn.Module,
    reach: Coverage,
    pictures: Pictures,
    seeds: Sequence[int],
    n: int = N,
) -> pd.DataFrame:
    """Measure PPP once per seed, on windows drawn anew from the training photographs.

    Returns
    -------
    DataFrame
        trial, layer, metric (mae or snr), value, floor.
    """
    rows = []
    for seed in seeds:
        windows = pictures.training(reach, n, seed)
        ppp = measure(model, windows, list(reach), coverage=reach, batch_size=32, seed=seed)
        for layer in reach:
            rows += [{"trial": seed} | row for row in metric_rows(layer, ppp[layer].summary)]
    table = pd.DataFrame(rows, columns=["trial", "layer", "metric", "value", "floor"])
    return table[table["metric"].isin(["mae", "snr"])].reset_index(drop=True)


# ------------------------------------------------------------------------------------ runs


def full_design() -> list[PartNetwork]:
    """List the networks of every part."""
    return [
        PartNetwork(name, padding, seed)
        for name, part in PARTS.items()
        for seed in part.seeds
        for padding in part.paddings
    ]


def compute(run: PartNetwork) -> dict[str, pd.DataFrame]:
    """Train and test the read-outs of one network, and measure it; return the tables."""
    part = PARTS[run.part]
    model, layers, reach, pictures = None, (), reach_of(part.family), Pictures()
    if run.padding != PIXELS:
        name = f"plane-{part.family}-{run.padding}"
        model, layers = load_network(name, part.state, seed=run.seed).model, list(reach)
    features = features_of(
        model, layers, reach, pictures, optimal=part.tested == OPTIMAL, seed=run.seed
    )
    readouts = read_outs(features.training, TARGETS, range(part.trials), part.readout)
    tables = evaluated(readouts, features)
    if run.part != "trained":
        tables["windows"] = tables["windows"].iloc[:0]
    return tables | {"ppp": measured(model, reach, pictures, range(part.measured))}


TABLES = {"trials": "trials.csv.gz", "windows": "windows.csv.gz", "ppp": "ppp.csv.gz"}
STUDY = Study("posenet", PartNetwork, full_design, compute, TABLES, {"windows": 4, "trials": 6})


@dataclass(frozen=True)
class Live:
    """Trials of one network that have just been trained."""

    network: str
    trials: Trials
    table: pd.DataFrame
    patterns: pd.DataFrame


def train_live(
    networks: Sequence[str],
    targets: Sequence[str] = TARGETS,
    seeds: Sequence[int] = (0,),
    protocol: Protocol | str = "published",
    *,
    weights: str = "trained",
    seed: int = 0,
    n: int = N,
    photos: str | os.PathLike[str] = "",
    jobs: int = 1,
) -> list[Live]:
    """Train read-outs on networks now, and measure their PPP.

    Parameters
    ----------
    networks : sequence of str
        Names as :func:`studies.networks.load_network` takes them, or "pixels".
    targets, seeds, protocol
        See :func:`studies.posenet.readout.train`; or the protocol "ridge".
    weights : str
    seed : int
        Of the networks.
    n : int
        Training windows.
    photos : path
        A folder of photographs, or "" for scikit-image's.
    jobs : int
        Networks at the same time, each on one thread, so that numbers do not depend on it.

    Returns
    -------
    list of Live
        One per network. Its tables have network before the columns of :func:`evaluated` and
        :func:`measured`.

    Raises
    ------
    PPPError
        Of :func:`~studies.networks.load_network` and the functions above.
    """
    for name in targets:
        if name not in TARGETS:
            raise ParameterError(unknown("target", name, TARGETS))
    for number in seeds:
        check_whole("seed", number, 0, 2**32 - 1)
    _protocol(protocol)
    task = partial(
        _trained, targets=tuple(targets), seeds=tuple(seeds), protocol=protocol, weights=weights,
        seed=seed, n=n, photos=os.fspath(photos),
    )  # fmt: skip
    live = dict(pool.run(task, list(networks), jobs=jobs))
    return [live[name] for name in networks]


def _trained(name, targets, seeds, protocol, weights, seed, n, photos) -> Live:
    model, layers, reach, pictures = loaded(name, weights, seed, photos)
    size = _protocol(protocol).feature_size
    features = features_of(model, layers, reach, pictures, n=n, size=size, seed=seed)
    readouts = read_outs(features.training, targets, seeds, protocol)
    tables = {"trials": evaluated(readouts, features)["trials"]}
    if model is not None:
        tables["ppp"] = measured(model, reach, pictures, seeds, n)
    tables = headed({"network": name}, tables)
    return Live(name, readouts, tables["trials"], tables.get("ppp", pd.DataFrame()))


def loaded(
    name: str, weights: str = "trained", seed: int = 0, photos: str = ""
) -> tuple[nn.Module | None, list[str], Coverage, Pictures]:
    """Load what :func:`features_of` needs: a network, or "pixels" for none, and pictures.

    Parameters
    ----------
    name, weights, seed
        See :func:`studies.networks.load_network`.
    photos : str
        A folder of photographs, or "" for scikit-image's.

    Returns
    -------
    model : nn.Module or None
    layers : list of str
    reach : Coverage
    pictures : Pictures

    Raises
    ------
    ParameterError
        A network without layers of interest.
    PPPError
        Of :func:`~studies.networks.load_network`.

    Examples
    --------
    >>> loaded("plane-resnet-zeros")[1]
    ['relu', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    if name == PIXELS:
        return None, [], reach_of("resnet"), Pictures(photos)
    network: Network = load_network(name, weights, seed=seed)
    if not network.layers:
        raise ParameterError(
            f"network {name!r} has no layer of interest; a read-out needs at least one"
        )
    reach = coverage(network.model, network.layers, network.window)
    pictures = Pictures(photos, network.mean, network.std)
    return network.model, list(network.layers), reach, pictures


# --------------------------------------------------------------------------------- reading


def trials(data: str | Path = DATA) -> pd.DataFrame:
    """Read the scores of every trial, one row per kind of image.

    Returns
    -------
    DataFrame
        part, padding, seed (of the network); family, state, tested, readout; and the columns
        of "trials" in :func:`evaluated`.

    Examples
    --------
    >>> trials().groupby("part")["trial"].nunique()["trained"].item()
    20
    """
    return _described(files.read_table(Path(data) / TABLES["trials"]))


def windows(data: str | Path = DATA) -> pd.DataFrame:
    """Read the scores of every test photograph's window, of the part "trained"."""
    return files.read_table(Path(data) / TABLES["windows"])


def patterns(data: str | Path = DATA) -> pd.DataFrame:
    """Read PPP of every trial: part, padding, seed, and the columns of :func:`measured`."""
    return _described(files.read_table(Path(data) / TABLES["ppp"]))


def _described(table: pd.DataFrame) -> pd.DataFrame:

    for column in ("family", "state", "tested", "readout"):
        table[column] = table["part"].map(
            {name: getattr(part, column) for name, part in PARTS.items()}
        )
    return table
