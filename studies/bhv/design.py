"""The full design of the border-handling-variants study: every condition, variant and seed.

A *condition* changes factors of the published test. A run trains one variant from one seed in one
condition; :func:`collect` turns finished runs into the tables that ``data/bhv`` ships, and
:func:`accuracies` reads them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save as save_safetensors

from ppp.errors import ParameterError, unknown
from ppp.influence import coverage
from ppp.measurement import measure
from ppp.windows import Picture, Windows
from studies import jobs as pool, paths
from studies.bhv import variants as bhv
from studies.bhv.redgreen import PUBLISHED_IMAGES, PUBLISHED_SHIFT, RedGreen
from studies.bhv.variants import LONGER, VARIANTS, Protocol
from studies.networks import OPTIMAL
from studies.networks.training import check_whole
from studies.results import metric_rows
from studies.runs import Study, headed, joined
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
        asked = [(split, {}) for split in self.splits]
        asked += [(split, LONGER) for split in self.longer if variant in MAIN]
        return [Protocol(split, self.shuffled, **more) for split, more in asked]

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
class Run:
    """One training: a condition, a variant and a seed."""

    condition: str
    variant: str
    seed: int

    @property
    def stem(self) -> str:
        """Name of its folder."""
        return f"{self.condition}-{self.variant}-seed{self.seed}"


TABLES = {"accuracy": "accuracy.csv.gz", "pattern": "patterns.csv.gz", "log": "logs.csv.gz"}
STUDY = Study("ppp bhv", Run, TABLES, {"log": 5})


def runs(
    conditions: Iterable[str] | None = None,
    variants: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
) -> list[Run]:
    """List the runs of the full design, or those of some conditions, variants and seeds.

    Raises
    ------
    ParameterError
        An unknown condition or variant, or nothing left.

    Examples
    --------
    >>> runs(["published"], ["V"], [0])
    [Run(condition='published', variant='V', seed=0)]
    """
    conditions, variants = (
        None if names is None else list(names) for names in (conditions, variants)
    )
    for what, names, known in (
        ("condition", conditions, CONDITIONS), ("variant", variants, VARIANTS)
    ):  # fmt: skip
        for name in names or ():
            if name not in known:
                raise ParameterError(unknown(what, name, known))
    most = max(count for c in CONDITIONS.values() for count in c.trials.values())
    seeds = None if seeds is None else set(seeds)
    for seed in seeds or ():
        check_whole("seed", seed, 0, most - 1)
    found = [
        Run(condition, variant, seed)
        for condition in dict.fromkeys(CONDITIONS if conditions is None else conditions)
        for seed in range(max(CONDITIONS[condition].trials.values()))
        for variant, count in CONDITIONS[condition].trials.items()
        if seed < count
        and (variants is None or variant in variants)
        and (seeds is None or seed in seeds)
    ]
    if not found:
        raise ParameterError("no run of the design has these conditions, variants and seeds")
    return found


def train_run(run: Run, folder: str | Path) -> float:
    """Train, test and measure one network in its own folder, unless that has been done.

    Returns
    -------
    float
        Seconds it took.
    """
    if (seconds := STUDY.seconds(run, folder)) is not None:
        return seconds
    condition, began = CONDITIONS[run.condition], time.perf_counter()
    protocols = condition.protocols(run.variant)
    kept, log = bhv.train(run.variant, protocols, condition.data, run.seed)
    rows = [row for one in kept for row in accuracy_rows(one, condition.data, condition.shifts)]
    tables = {
        "accuracy": pd.DataFrame(rows),
        "log": log,
        "pattern": pattern(kept[0].model, condition.data, run.variant),
    }
    tensors = {
        f"{one.protocol.split}/{one.protocol.epochs}/{name}": value.contiguous()
        for one in kept
        for name, value in one.model.state_dict().items()
    }
    seconds = time.perf_counter() - began
    STUDY.keep(run, folder, tables, seconds, {"networks.safetensors": save_safetensors(tensors)})
    return seconds


def accuracy_rows(kept: bhv.Kept, data: RedGreen, shifts: Sequence[int]) -> list[dict[str, object]]:
    """Return one row per shift: what was kept, and its accuracy."""
    head = {
        "split": kept.protocol.split,
        "shuffled": kept.protocol.shuffled,
        "epochs": kept.protocol.epochs,
        "kept_epoch": kept.epoch,
        "last_epoch": kept.ended,
        "validation_loss": kept.validation_loss,
    }
    found = bhv.accuracies(kept, shifts, data)
    return [head | {"shift": shift, "accuracy": value} for shift, value in found.items()]


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
    found = measure(model, windows, bhv.LAYERS, coverage=reach, groups=16)
    rows = []
    for layer, covered in reach.items():
        head = {"cells": covered.influence.size, "clean": covered.clean_fraction}
        rows += [head | row for row in metric_rows(layer, found[layer].summary)]
    return pd.DataFrame(rows)[columns]


def train_design(wanted: Sequence[Run], folder: str | Path, *, jobs: int = 1) -> None:
    """Train the runs that are not finished: :meth:`studies.runs.Study.perform`."""
    STUDY.perform(train_run, wanted, folder, jobs=jobs)


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
    asked = [(variant, seed) for seed in seeds for variant in variants]
    if not asked:
        raise ParameterError("nothing to train; give at least one variant and one seed")
    found = {}
    for task, result in pool.run(
        partial(_trained, protocol=protocol, data=data, shift=shift), asked, jobs=jobs
    ):
        found[task] = result()
    return {
        name: joined(found[task][name] for task in asked) for name in ("accuracy", "pattern", "log")
    }


def _trained(
    task: tuple[str, int], protocol: Protocol, data: RedGreen, shift: int
) -> dict[str, pd.DataFrame]:
    variant, seed = task
    (kept,), log = bhv.train(variant, protocol, data, seed)
    right = bhv.accuracies(kept, (0, shift), data)
    percent = {"similar": 100 * right[0], "dissimilar": 100 * right[shift]}
    tables = {
        "accuracy": pd.DataFrame([{"kept_epoch": kept.epoch, **percent}]),
        "pattern": pattern(kept.model, data, variant),
        "log": log,
    }
    return headed({"variant": variant, "seed": seed}, tables)


def collect(folder: str | Path, data: str | Path, wanted: Sequence[Run] | None = None) -> int:
    """Gather finished runs, by default the full design, into the tables that are shipped.

    Returns
    -------
    int
        Number of runs.

    Raises
    ------
    PPPError
        See :meth:`studies.runs.Study.collect`.
    """
    return STUDY.collect(folder, data, runs() if wanted is None else wanted)


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
