"""The full design of the border-handling-variants study: every condition, variant and seed.

A *condition* changes factors of the published test. A run trains one variant from one seed in one
condition; :data:`STUDY` turns finished runs into the tables that ``data/bhv`` ships, and
:func:`accuracies` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as save_safetensors

from ppp.errors import ParameterError
from ppp.influence import coverage
from ppp.measurement import measure
from ppp.windows import Picture, Windows
from studies import jobs as pool, paths
from studies.bhv import variants as bhv
from studies.bhv.redgreen import PUBLISHED_IMAGES, PUBLISHED_SHIFT, RedGreen
from studies.bhv.variants import LONGER, VARIANTS, Protocol
from studies.networks import OPTIMAL
from studies.results import metric_rows
from studies.runs import Run, Study, headed, joined
from studies.storage import tables as files

DATA = paths.data("bhv")
"""What is shipped."""
MAIN = ("V", "S-zero", "S-circular", "F-zero")
"""The variants of the published test."""
OTHERS = ("S-circular-2", "S-reflect", "S-replicate", "S-randn")
SHIFTS = (0, 9, 10, 11, 12, 13, 14, 15, PUBLISHED_SHIFT)
"""Rows by which test images are moved on the published canvas; 0 is the similar test."""

_MEASURED_SEED = 2020  # of the images that PPP is measured on
_SURROUNDINGS = 16  # px, the widest margin, which F-zero has


@dataclass(frozen=True)
class Condition:
    """Factors of the test that are set together, and how often each variant is trained.

    Attributes
    ----------
    data : RedGreen
    trials : mapping of str to int
        Number of seeds by variant; seeds count from 0.
    shuffled : bool
        Whether batches are.
    splits : tuple of str
        Whence validation and test images come. Networks are kept for each after at most 50
        epochs.
    longer : tuple of str
        Splits for which networks of the published variants are also kept after longer training.
    """

    data: RedGreen = PUBLISHED_IMAGES
    trials: Mapping[str, int] = field(default_factory=dict)
    shuffled: bool = False
    splits: tuple[str, ...] = ("leaked",)
    longer: tuple[str, ...] = ()

    def protocols(self, variant: str) -> list[Protocol]:
        """Return the protocols that share the training of one variant."""
        lengths = [(split, {}) for split in self.splits]
        lengths += [(split, LONGER) for split in self.longer if variant in MAIN]
        return [Protocol(split, self.shuffled, **length) for split, length in lengths]

    @property
    def shifts(self) -> tuple[int, ...]:
        """Rows by which its test images are moved."""
        apart = self.data.apart
        return SHIFTS if apart == PUBLISHED_SHIFT else (0, apart)


_BOTH = ("leaked", "independent")
_TEN, _FIVE = dict.fromkeys(MAIN, 10), dict.fromkeys(MAIN, 5)
_HALF = RedGreen(0.5)
CONDITIONS = {
    "published": Condition(
        trials=_TEN | {"S-circular-2": 10} | dict.fromkeys(OTHERS[1:], 5) | {"S-optimal": 3},
        splits=_BOTH,
        longer=_BOTH,
    ),
    "canvas-0.25": Condition(RedGreen(0.25), _FIVE),
    "canvas-0.5": Condition(
        _HALF,
        _TEN | dict.fromkeys(OTHERS, 5) | {"S-optimal": 3, "F-optimal": 3},
        splits=_BOTH,
        longer=("independent",),
    ),
    "canvas-1": Condition(RedGreen(1.0), _FIVE),
    "canvas-noise": Condition(RedGreen("noise"), _FIVE),
    "canvas-photograph": Condition(RedGreen("photograph"), _FIVE),
    "shuffled": Condition(PUBLISHED_IMAGES, _TEN, True, _BOTH, ("independent",)),
    "canvas-0.5-shuffled": Condition(_HALF, _FIVE, True, _BOTH, ("independent",)),
    "block-6": Condition(RedGreen(block=6), _FIVE),
    "size-24": Condition(RedGreen(size=24), _FIVE),
}
"""The published condition, and those that change a factor or two of it."""


@dataclass(frozen=True, order=True)
class Training(Run):
    """One training: a condition, a variant and a seed."""

    condition: str
    variant: str
    seed: int


def condition_of(data: RedGreen, protocol: Protocol) -> str | None:
    """Name the condition whose networks learn from these images in this way, if there is one.

    Examples
    --------
    >>> condition_of(RedGreen(1), bhv.PUBLISHED), condition_of(RedGreen(0.9), bhv.PUBLISHED)
    ('canvas-1', None)
    """
    for name, condition in CONDITIONS.items():
        if condition.data == data and protocol.shares_training(condition.protocols("V")[0]):
            return name
    return None


def full_design() -> list[Training]:
    """List the trainings of every condition."""
    return [
        Training(name, variant, seed)
        for name, condition in CONDITIONS.items()
        for seed in range(max(condition.trials.values()))
        for variant, count in condition.trials.items()
        if seed < count
    ]


def compute(run: Training) -> dict[str, pd.DataFrame | bytes]:
    """Train, test and measure one network; return its tables, and the networks that it kept."""
    condition = CONDITIONS[run.condition]
    networks, log = bhv.train(
        run.variant, condition.protocols(run.variant), condition.data, run.seed
    )
    rows = [
        row
        for network in networks
        for row in accuracy_rows(network, condition.data, condition.shifts)
    ]
    tensors = {
        f"{network.protocol.split}/{network.protocol.epochs}/{name}": value.contiguous()
        for network in networks
        for name, value in network.model.state_dict().items()
    }
    return {
        "networks.safetensors": save_safetensors(tensors),
        "accuracy": pd.DataFrame(rows),
        "log": log,
        "pattern": pattern(networks[0].model, condition.data, run.variant),
    }


TABLES = {"accuracy": "accuracy.csv.gz", "pattern": "patterns.csv.gz", "log": "logs.csv.gz"}
STUDY = Study("bhv", Training, full_design, compute, TABLES, {"log": 5})


def accuracy_rows(
    network: bhv.Kept, data: RedGreen, shifts: Sequence[int]
) -> list[dict[str, object]]:
    """Return one row per shift: the network that was kept, and its accuracy."""
    head = {
        "split": network.protocol.split,
        "shuffled": network.protocol.shuffled,
        "epochs": network.protocol.epochs,
        "kept_epoch": network.epoch,
        "last_epoch": network.ended,
        "validation_loss": network.validation_loss,
    }
    accuracies = bhv.accuracies(network, shifts, data)
    return [head | {"shift": shift, "accuracy": value} for shift, value in accuracies.items()]


def pattern(model: torch.nn.Module, data: RedGreen, variant: str, n: int = 128) -> pd.DataFrame:
    """Measure PPP of every layer, and how much of it padding can reach.

    Half of the images have the training layout and half the other, so that the pattern is no
    trace of where the blocks are.

    Parameters
    ----------
    model : nn.Module
    data : RedGreen
    variant : str
        Of which the network is; nothing is measured where true surroundings are its padding.
    n : int
        Images, an even number.

    Returns
    -------
    DataFrame
        layer, cells, clean (share that padding cannot touch, 0 to 1), metric, value, low, high,
        floor; metrics mae, snr, power (in units of sigma squared) and share.
    """
    columns = ["layer", "cells", "clean", "metric", "value", "low", "high", "floor"]
    if VARIANTS[variant].scheme == OPTIMAL:
        return pd.DataFrame(columns=columns)
    around, corner = (_SURROUNDINGS,) * 2, np.array([_SURROUNDINGS])
    images = torch.cat(
        [
            data.images(n // 2, _MEASURED_SEED + moved, moved * data.apart, around)[0]
            for moved in (0, 1)
        ]
    )
    windows = Windows([Picture(str(i), x, corner, corner) for i, x in enumerate(images)], data.size)
    reach = coverage(model, bhv.LAYERS, data.size)
    measurement = measure(model, windows, bhv.LAYERS, coverage=reach, groups=16)
    rows = []
    for layer, covered in reach.items():
        head = {"cells": covered.influence.size, "clean": covered.clean_fraction}
        rows += [head | row for row in metric_rows(layer, measurement[layer].summary)]
    return pd.DataFrame(rows)[columns]


def train_live(
    variants: Sequence[str],
    seeds: Sequence[int],
    protocol: Protocol = bhv.PUBLISHED,
    data: RedGreen = PUBLISHED_IMAGES,
    shift: int = PUBLISHED_SHIFT,
    *,
    jobs: int = 1,
) -> dict[str, pd.DataFrame]:
    """Train variants now, under any conditions, and test and measure them.

    Parameters
    ----------
    variants, seeds : sequences
        Every variant is trained from every seed.
    protocol : Protocol
    data : RedGreen
    shift : int
        Rows by which the dissimilar test moves the blocks.
    jobs : int
        Trainings at the same time, each on one thread, so that the numbers do not depend on it.

    Returns
    -------
    dict of str to DataFrame
        "accuracy": variant, seed, kept_epoch, similar, dissimilar (percent). "pattern": variant,
        seed, and the columns of :func:`pattern`. "log": variant, seed, and those of
        :func:`studies.bhv.variants.train`.

    Raises
    ------
    ParameterError
        An unknown variant, or a shift off the canvas; before anything is trained.

    Examples
    --------
    >>> small = Protocol(epochs=1, n_train=40, n_validation=20, n_test=20, batch=20)
    >>> train_live(["V"], [0], small)["accuracy"].columns.tolist()
    ['variant', 'seed', 'kept_epoch', 'similar', 'dissimilar']
    """
    data.check_shift(shift)
    for name in variants:
        bhv.variant(name)
    tasks = [(variant, seed) for seed in seeds for variant in variants]
    if not tasks:
        raise ParameterError("nothing to train; give at least one variant and one seed")
    train = partial(_trained, protocol=protocol, data=data, shift=shift)
    tables = dict(pool.run(train, tasks, jobs=jobs))
    return {
        name: joined(tables[task][name] for task in tasks)
        for name in ("accuracy", "pattern", "log")
    }


def _trained(
    task: tuple[str, int], protocol: Protocol, data: RedGreen, shift: int
) -> dict[str, pd.DataFrame]:
    variant, seed = task
    (network,), log = bhv.train(variant, protocol, data, seed)
    accuracy = bhv.accuracies(network, (0, shift), data)
    percent = {"similar": 100 * accuracy[0], "dissimilar": 100 * accuracy[shift]}
    tables = {
        "accuracy": pd.DataFrame([{"kept_epoch": network.epoch, **percent}]),
        "pattern": pattern(network.model, data, variant),
        "log": log,
    }
    return headed({"variant": variant, "seed": seed}, tables)


def accuracies(data: str | Path = DATA) -> pd.DataFrame:
    """Read the accuracy of every network, one row per kept network and shift.

    Returns
    -------
    DataFrame
        condition, variant, seed; canvas, size and block (px), shuffled; split; epochs at most
        and those kept and ended after; validation_loss (nats); shift (rows; 0 is the similar
        test) and accuracy (percent).

    Raises
    ------
    WeightsError
        The file is missing or damaged.

    Examples
    --------
    >>> bool(accuracies()["accuracy"].max() <= 100)
    True
    """
    table = files.read_table(Path(data) / TABLES["accuracy"])
    factors = {
        name: {"canvas": str(c.data.canvas), "size": c.data.size, "block": c.data.block}
        for name, c in CONDITIONS.items()
    }
    factors = pd.DataFrame(factors).T.rename_axis("condition").reset_index()
    table["accuracy"] *= 100
    return table.merge(factors, on="condition", how="left")


def patterns(data: str | Path = DATA) -> pd.DataFrame:
    """Read the PPP of every layer of the networks that the published protocol keeps.

    Returns
    -------
    DataFrame
        condition, variant, seed, and the columns of :func:`pattern`.
    """
    return files.read_table(Path(data) / TABLES["pattern"])


def logs(data: str | Path = DATA) -> pd.DataFrame:
    """Read the training logs, one row per epoch: see :func:`studies.bhv.variants.train`."""
    return files.read_table(Path(data) / TABLES["log"])


def published(data: str | Path = DATA) -> pd.DataFrame:
    """Read the published accuracies (percent): variant, test, mean, deviation, source.

    Examples
    --------
    >>> published().query("variant == 'F-zero' and test == 'dissimilar'")["mean"].item()
    89.7
    """
    return files.read_table(Path(data) / "published.csv")
