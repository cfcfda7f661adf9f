"""What a measurement gives: one result per scheme and layer, and what vouches for it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from ppp.completeness import Completeness
from ppp.influence import Coverage
from ppp.inventory import Audit
from ppp.metrics import Estimate, Summary

PROOF = ["completeness", "completeness_relative"]
"""Columns of a table of results that tell of the proof and hold no result."""
_NULL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class NullTest:
    """Cells that padding cannot touch must not differ between the two branches.

    Attributes
    ----------
    cells : int
        Clean cells per channel; 0 means that the test cannot be made in this layer.
    largest : float
        Largest |D| on them.
    relative : float
        The same in units of the layer's largest |O|; above 1e-4 the test fails.
    """

    cells: int
    largest: float
    relative: float

    @property
    def passed(self) -> bool | None:
        """Whether D is 0 up to float error; None without a clean cell."""
        return self.relative <= _NULL_TOLERANCE if self.cells else None


@dataclass(frozen=True)
class Checkpoint:
    """The estimate after the first `n` windows.

    `pattern` is the channel mean of ``|d|``, shape (H, W), and `floor` what it would be without
    any pattern (:func:`ppp.metrics.noise_floor`); with ``distributions``,
    `algorithmic` and `optimal` are the channel means of the mean features, and
    `separated` the share of cells at which the two samples, taken as unpaired, differ at a
    false-discovery rate of 5 %.
    """

    summary: Summary
    pattern: np.ndarray
    floor: np.ndarray
    algorithmic: np.ndarray | None = None
    optimal: np.ndarray | None = None
    separated: float = float("nan")


@dataclass(frozen=True)
class LayerResult:
    """PPP of one layer under one scheme.

    Attributes
    ----------
    scheme, layer : str
    pattern : ndarray of float32, shape (C, H, W)
        Estimate d of PPP = E[A - O].
    deviation : ndarray of float32, shape (C, H, W)
        Standard deviation s of D over windows.
    influence : ndarray of bool, shape (H, W)
        Cells that padding can touch.
    summary : Summary
        The metrics.
    null_test : NullTest
    completeness : Completeness
        Whether the listed padding sites are all there are, on noise and on a photograph.
    checkpoints : tuple of Checkpoint
    """

    scheme: str
    layer: str
    pattern: np.ndarray
    deviation: np.ndarray
    influence: np.ndarray
    summary: Summary
    null_test: NullTest
    completeness: Completeness
    checkpoints: tuple[Checkpoint, ...] = ()

    def magnitude(self) -> np.ndarray:
        """Return the channel mean of ``|d|``, shape (H, W)."""
        return np.abs(self.pattern).mean(0)


class Measurement(dict[tuple[str, str], LayerResult]):
    """(scheme, layer) -> :class:`LayerResult`, and where it came from.

    With a single scheme, ``measurement["layer4"]`` works too.
    """

    provenance: dict[str, object]
    audit: Audit
    coverage: Coverage

    def __missing__(self, layer: object) -> LayerResult:
        schemes = {scheme for scheme, _ in self}
        if len(schemes) == 1 and (next(iter(schemes)), layer) in self:
            return self[next(iter(schemes)), layer]
        known = ", ".join(map(str, self))
        raise KeyError(f"{layer!r}; known (scheme, layer): {known}")

    def table(self) -> pd.DataFrame:
        """Return one row per scheme and layer, with interval bounds as columns."""
        rows = []
        for (scheme, layer), result in self.items():
            null = result.null_test
            row = {"scheme": scheme, "layer": layer} | flat(result.summary)
            row |= {
                "clean_cells": null.cells,
                "null_largest": null.largest,
                "null_relative": null.relative,
                "completeness": str(result.completeness),
                "completeness_relative": result.completeness.relative,
            }
            rows.append(row)
        return pd.DataFrame(rows)


def flat(summary: Summary) -> dict[str, float]:
    """Return a summary as columns: an estimate gives name, name_low and name_high."""
    row: dict[str, float] = {}
    for entry in fields(summary):
        value = getattr(summary, entry.name)
        if isinstance(value, Estimate):
            row |= {entry.name: value.value, f"{entry.name}_low": value.low}
            row[f"{entry.name}_high"] = value.high
        else:
            row[entry.name] = value
    return row
