"""How fast a network comes to terms with a padding: controls trained 50 steps further. [ours]

A description beside the verdicts: no claim is decided on it. The table is in ``data/adaptation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from studies import paths
from studies.dynamics.design import Observer, SmallNetwork, train_run
from studies.networks import MIXED, OPTIMAL, load_network
from studies.networks.names import FRESH_SEEDS, PADDINGS, SEEDS
from studies.networks.training import Settings, load_run, train
from studies.runs import Run, Study
from studies.storage import tables

DATA = paths.data("adaptation")
"""What is shipped."""
FAMILY, STEPS = "resnet", 50

_TABLE = "adapted.csv.gz"


@dataclass(frozen=True, order=True)
class Adaptation(Run):
    """A control, how it was trained, and the scheme that it is trained further with."""

    control: str
    scheme: str
    seed: int


def full_design() -> list[Adaptation]:
    """List the controls of both kinds under each scheme."""
    return [
        Adaptation(control, scheme, seed)
        for control, seeds in ((OPTIMAL, SEEDS[FAMILY]), (MIXED, FRESH_SEEDS[FAMILY]))
        for scheme in PADDINGS
        for seed in seeds
    ]


def trained(run: Adaptation) -> nn.Module:
    """Return a trained control: a shipped one, or one in ``runs/zoo``, trained there if need be."""
    if run.control == OPTIMAL:
        return load_network(f"plane-{FAMILY}-{OPTIMAL}", "trained", seed=run.seed).model
    place = Path("runs", "zoo")
    stem = SmallNetwork(FAMILY, run.control, run.seed).stem
    if (place / stem / "record.json").exists():  # however often it was measured
        return load_run(place / stem).model
    return train_run(FAMILY, run.control, run.seed, place, progress=False).model


def compute(run: Adaptation) -> dict[str, pd.DataFrame]:
    """Train a control further, on the first of its own training windows, and measure it.

    The learning rate is constant, and the one with which every run of the zoo begins: a 25th of
    the peak, below which the recipe never trains a network that does not know its task yet.

    Returns
    -------
    dict of str to DataFrame
        "adapted": step (0 and 50), layer, metric (mae, snr), value and accuracy, under the scheme
        that it is trained further with, at batch-norm statistics re-estimated under this scheme.
    """
    settings = Settings(FAMILY, run.scheme, run.seed, steps=STEPS)
    rows = train(
        FAMILY, padding=run.scheme, seed=run.seed, steps=STEPS, n_test=1, progress=False,
        start=trained(run), observe=Observer(settings, ends=False), observe_at=(0, STEPS),
    ).rows  # fmt: skip
    columns = ["step", "layer", "metric", "value", "accuracy"]
    return {"adapted": pd.DataFrame(rows).query("metric in ('mae', 'snr')")[columns]}


STUDY = Study("adaptation", Adaptation, full_design, compute, {"adapted": _TABLE}, {"adapted": 5})


def changes(table: pd.DataFrame) -> pd.DataFrame:
    """Compare controls after the further steps to themselves before.

    Returns
    -------
    DataFrame
        control, scheme, seed; before and after (accuracy), and change: log2 of MAE-PPP after over
        before, mean over layers.
    """
    key = ["control", "scheme", "seed"]
    mae = table[table["metric"] == "mae"].assign(log=lambda rows: np.log2(rows["value"]))
    wide = mae.pivot_table(index=key, columns="step", values=["log", "accuracy"], sort=False)
    found = wide["accuracy"][[0, STEPS]].set_axis(["before", "after"], axis=1)
    return found.assign(change=wide["log"][STEPS] - wide["log"][0]).reset_index()


def read(data: str | Path = DATA) -> pd.DataFrame:
    """Read the shipped table: control, scheme, seed, and the columns of :func:`compute`."""
    return tables.read_table(Path(data) / _TABLE)
