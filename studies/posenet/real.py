"""PosENet on networks that others trained on real pictures: claim C1's test on these. [ours]

Read-outs of a trained network are held against those of the same network before training. Every
other photograph gives the windows to train on, the rest those to test on; a trial trains on half
of the former, drawn anew. The table is in ``data/posenet-real``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ppp.influence import coverage
from ppp.metrics import jackknife
from ppp.windows import cut_windows
from studies import paths
from studies.claims import rows_beside
from studies.networks import Network, load_network
from studies.pictures.photographs import Photograph
from studies.posenet import readout as posenet
from studies.posenet.analysis import MAE, SPC
from studies.posenet.design import Features, evaluated
from studies.pretrained.design import re_estimated
from studies.pretrained.pictures import measured, reduced
from studies.runs import Run, Study, joined
from studies.storage import tables

DATA = paths.data("posenet-real")
"""What is shipped."""
NETWORKS, STATES = ("efficientnet-lite0", "hed-vgg16"), ("trained", "initial")
TRIALS = 20
"""Of every target, as for the small networks."""
WINDOWS = 12
"""Of a training photograph; so many that the whole study takes about 18 minutes of one core, which
was reckoned before any score had been seen."""
LEVEL = 1 - 0.05 / 4
"""Of the intervals: two networks, two scores (Bonferroni)."""

_TABLE = "trials.csv.gz"


@dataclass(frozen=True, order=True)
class NetworkState(Run):
    """A network as it was trained, or before (seed 0)."""

    network: str
    state: str


def full_design() -> list[NetworkState]:
    """List both networks, trained and initial."""
    return [NetworkState(network, state) for network in NETWORKS for state in STATES]


def halves() -> tuple[list[Photograph], list[Photograph]]:
    """Return the photographs to train on, and those to test on."""
    every = list(measured())
    return every[0::2], every[1::2]


def drawn(trial: int, photos: int) -> list[int]:
    """Return which half of the training photographs a trial sees."""
    return np.random.default_rng(trial).permutation(photos)[: photos // 2].tolist()


def compute(run: NetworkState) -> dict[str, pd.DataFrame]:
    """Train and test the read-outs of one network by the published protocol.

    Returns
    -------
    dict of str to DataFrame
        "trials": as :func:`studies.posenet.design.evaluated` gives it, on one window of each test
        photograph.
    """
    network = load_network(run.network, run.state)
    model = network.model if run.state == "trained" else re_estimated(network)
    training, test = halves()
    maps = [_features(network, model, photo, WINDOWS, n) for n, photo in enumerate(training)]
    tested = torch.cat([_features(network, model, photo, 1, n) for n, photo in enumerate(test)])
    names = [photo.name for photo in test]
    features = Features(tested[:0], {"photographs": tested}, {"photographs": names})
    rows = []
    for trial in range(TRIALS):
        seen = torch.cat([maps[n] for n in drawn(trial, len(maps))])
        readouts = posenet.train(seen, posenet.TARGETS, [trial])
        rows.append(evaluated(readouts, features)["trials"])
    return {"trials": joined(rows)}


def _features(
    network: Network, model: nn.Module, photo: Photograph, windows: int, seed: int
) -> Tensor:
    """Compute the features of windows in random places; they need no surroundings."""
    free = coverage(nn.Sequential(nn.Conv2d(3, 1, 1)).eval(), ["0"], network.window)
    cut = cut_windows(
        reduced([photo], network.name), network.window, free, per_picture=windows, seed=seed,
        transform=network.prepare,
    )  # fmt: skip
    return posenet.features(model, cut, network.layers, batch=8)


STUDY = Study("posenet-real", NetworkState, full_design, compute, {"trials": _TABLE}, {"trials": 6})


def read(data: str | Path = DATA) -> pd.DataFrame:
    """Read the shipped table: network, state, and the columns of :func:`compute`."""
    return tables.read_table(Path(data) / _TABLE)


# -------------------------------------------------------------------------------- the test


def ratios(trials: pd.DataFrame) -> pd.DataFrame:
    """Hold the spread between trials against the difference that training makes.

    Parameters
    ----------
    trials : DataFrame
        As :func:`read` gives it.

    Returns
    -------
    DataFrame
        row (network and score), value: the standard deviation between trials on the trained
        network over the difference of the means of trained and initial, both as root mean squares
        over targets; low and high: delete-one-trial jackknife of its logarithm. NaN where a score
        is missing.

    Examples
    --------
    >>> scores = {"spc": [0.7, 0.8, 0.9, 0.2, 0.3, 0.1], "mae": [0.1, 0.2, 0.3, 0.4, 0.4, 0.4]}
    >>> trials = pd.DataFrame(scores).assign(network="a", target="H", trial=[0, 1, 2] * 2)
    >>> ratios(trials.assign(state=["trained"] * 3 + ["initial"] * 3))["value"].round(3).tolist()
    [0.167, 0.5]
    """
    rows = []
    for network, part in trials.groupby("network", sort=False):
        for score, name in (("spc", SPC), ("mae", MAE)):
            wide = part.pivot(index="trial", columns=["state", "target"], values=score)
            columns = pd.MultiIndex.from_product([STATES, part["target"].unique()])
            pair = wide.reindex(columns=columns).to_numpy(float)
            pair = pair.reshape(len(wide), len(STATES), -1).swapaxes(0, 1)
            left_out = [_log_ratio(np.delete(pair, i, axis=1)) for i in range(len(wide))]
            found = jackknife(_log_ratio(pair), left_out, LEVEL, corrected=False)
            rows.append((f"{network}, {name}", *np.exp([found.value, found.low, found.high])))
    return pd.DataFrame(rows, columns=["row", "value", "low", "high"])


def _log_ratio(pair: np.ndarray) -> float:
    """Return the logarithm from scores, (trained and initial, trials, targets)."""
    spread = pair[0].var(axis=0, ddof=1).mean()
    difference = np.square(pair[0].mean(axis=0) - pair[1].mean(axis=0)).mean()
    return float(np.log(spread / difference) / 2)


def c1(data: Path, numbers: Mapping[str, float]) -> Iterator[pd.DataFrame]:
    """Grade the rows of C1 on real networks."""
    table = ratios(read(Path(data) / DATA.name))
    yield rows_beside("spread between trials over trained less initial", table, numbers["delta"])
