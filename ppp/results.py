"""What a measurement gives: one result per scheme and layer, and what vouches for it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save

from ppp import display, files
from ppp.certificate import Completeness, Coverage, LayerCoverage
from ppp.errors import DocumentError, first_words
from ppp.inventory import Audit, PaddingSite, Site
from ppp.metrics import Estimate, Summary

#: Columns of a table of results that tell of the proof and hold no result.
PROOF = ["completeness", "completeness_relative"]
_NULL_TOLERANCE = 1e-4
_FORMAT = "ppp.Measurement 1"


@dataclass(frozen=True)
class NullTest:
    """Cells that padding cannot touch must not differ between the two branches.

    Attributes
    ----------
    cells : int
        Clean cells per channel; 0 means that the test cannot be made in this layer.
    largest : float
        Largest ``|D|`` on them.
    relative : float
        The same in units of the layer's largest ``|O|``; above 1e-4 the test fails.
    """

    cells: int
    largest: float
    relative: float

    @property
    def passed(self) -> bool | None:
        """Whether D is 0 up to float error; None without a clean cell."""
        return self.relative <= _NULL_TOLERANCE if self.cells else None

    def __str__(self) -> str:
        return {True: "passed", False: "failed", None: "no clean cell"}[self.passed]


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


@dataclass(frozen=True, kw_only=True)
class LayerResult(Summary):
    """PPP of one layer under one scheme: maps, and every metric of :class:`ppp.metrics.Summary`.

    ``result.mae``, ``result.snr`` and ``result.power`` are estimates with ``.value``, ``.low``
    and ``.high``; ``result.mae_floor`` is what the metric would be without any pattern.

    Attributes
    ----------
    scheme, layer : str
    pattern : ndarray of float32, shape (C, H, W)
        Estimate d of PPP = E[A - O].
    deviation : ndarray of float32, shape (C, H, W)
        Standard deviation s of D over windows.
    influence : ndarray of bool, shape (H, W)
        Cells that padding can touch.
    null_test : NullTest
    completeness : Completeness
        Whether the listed padding sites are all there are, on noise and on a photograph.
    products : ndarray of float64, shape (G + 1, G + 1)
        Of the groups' mean maps, see :func:`ppp.statistics.products`.
    spreads : ndarray of float64, shape (G, 2)
        Windows of each group, and their squared deviations from its mean, mean over cells.
    checkpoints : tuple of Checkpoint
    """

    scheme: str
    layer: str
    pattern: np.ndarray
    deviation: np.ndarray
    influence: np.ndarray
    null_test: NullTest
    completeness: Completeness
    products: np.ndarray
    spreads: np.ndarray
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def summary(self) -> Summary:
        """The metrics alone."""
        return Summary(**{entry.name: getattr(self, entry.name) for entry in fields(Summary)})

    def magnitude(self) -> np.ndarray:
        """Return the channel mean of ``|d|``, shape (H, W)."""
        return np.abs(self.pattern).mean(0)

    def __repr__(self) -> str:
        row = self._row()
        shown = ", ".join(f"{name} {row[name]}" for name in list(row)[3:])
        return f"LayerResult({self.scheme!r}, {self.layer!r}: {self.n} windows, {shown})"

    def _row(self) -> dict[str, object]:
        row = {"scheme": self.scheme, "layer": self.layer, "pattern": self.magnitude()}
        row |= {"MAE-PPP": self.mae, "SNR-PPP": self.snr}
        return row | {"null test": self.null_test, "completeness": self.completeness}

    def _repr_html_(self) -> str:
        return display.table(f"PPP, {self.n} windows", [self._row()])


class Measurement(dict[tuple[str, str], LayerResult]):
    """(scheme, layer) -> :class:`LayerResult`, and where it came from.

    With a single scheme, ``measurement["layer4"]`` works too.

    Attributes
    ----------
    provenance : dict
        How it was measured; JSON's types.
    audit : Audit
        Every padding of the network.
    coverage : Coverage
        What padding can touch in each layer.
    """

    provenance: dict[str, Any]
    audit: Audit
    coverage: Coverage

    def __getitem__(self, key: str | tuple[str, str]) -> LayerResult:
        schemes = {scheme for scheme, _ in self}
        if isinstance(key, str) and len(schemes) == 1:
            key = (*schemes, key)
        if key not in self:
            raise KeyError(f"{key!r}; known (scheme, layer): {', '.join(map(str, self))}")
        return super().__getitem__(key)

    def table(self) -> pd.DataFrame:
        """Return one row per scheme and layer, with interval bounds as columns."""
        rows = []
        for (scheme, layer), result in self.items():
            null = result.null_test
            row = {"scheme": scheme, "layer": layer, **flat(result), "clean_cells": null.cells}
            row |= {"null_largest": null.largest, "null_relative": null.relative}
            proof = str(result.completeness), result.completeness.relative
            rows.append(row | dict(zip(PROOF, proof)))
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        schemes = ", ".join(dict.fromkeys(scheme for scheme, _ in self))
        layers = ", ".join(dict.fromkeys(layer for _, layer in self))
        return f"Measurement(schemes {schemes}; layers {layers})"

    def _repr_html_(self) -> str:
        return display.table(repr(self), [result._row() for result in self.values()])

    def to_csv(self, path: str | Path) -> Path:
        """Write the table as CSV: a row for each scheme and layer, a column for each number."""
        self.table().to_csv(path, index=False)
        return Path(path)

    def to_html(self, path: str | Path) -> Path:
        """Write a page, one file, with the pattern of each scheme and layer as a picture."""
        page = f'<!doctype html><meta charset="utf-8"><title>PPP</title>{self._repr_html_()}\n'
        Path(path).write_text(page, encoding="utf-8")
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Write the whole measurement into one file, or nothing.

        The file is one of safetensors: every array by its scheme, layer and name, and everything
        else (metrics, checkpoints, proofs, audit, coverage, provenance) as JSON in its header.

        Parameters
        ----------
        path : path-like
            Of the file, replaced if it is there; of a folder, ``measurement.safetensors`` in it.

        Returns
        -------
        Path
            Of the file.

        Raises
        ------
        DocumentError
            A provenance that JSON does not know.
        OSError
            The file cannot be written; one that was there is as it was.

        Examples
        --------
        >>> import tempfile, torch, ppp
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1)).eval()
        >>> scene = {"noise": torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))}
        >>> reach = ppp.coverage(net, ["0"], 16)
        >>> windows = ppp.cut_windows(scene, 16, reach, per_picture=8, seed=0)
        >>> path = ppp.measure(net, windows, ["0"]).save(tempfile.mkdtemp())
        >>> ppp.Measurement.load(path)["0"].n
        8
        """
        arrays: dict[str, np.ndarray] = {}

        def plain(value: Any) -> dict[str, object]:
            if _KINDS.get(kind := type(value).__name__) is not type(value):
                raise DocumentError(f"a measurement with a {kind} in it cannot be saved")
            if isinstance(value, Fraction):
                return {"ppp": kind, "numerator": value.numerator, "denominator": value.denominator}
            entries = {"ppp": kind, **vars(value)}
            where = [str(entries[k]) for k in ("scheme", "layer") if k in entries]
            for name, entry in vars(value).items():
                if isinstance(entry, np.ndarray):
                    key = " ".join([f"{len(arrays):05}", *where, name])
                    arrays[key], entries[name] = entry, {"ppp": "array", "name": key}
            return entries

        content = {"results": list(self.values()), "provenance": self.provenance}
        content |= {"audit": list(self.audit), "runs": self.audit.runs}
        content |= {"layers": list(self.coverage.values()), "sites": self.coverage.sites}
        content |= {"input_size": self.coverage.input_size, "stride": self.coverage.stride}
        text = json.dumps(content, default=plain)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        header = {"format": _FORMAT, "sha256": _digest(text, arrays), "content": text}
        path = _file(path)
        files.write(path, save(arrays, header))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Measurement:
        """Read what :meth:`save` wrote; everything is as it was.

        Raises
        ------
        DocumentError
            There is no such file, it is damaged, or of another format.
        """
        path = _file(path)
        try:
            if not path.is_file():
                raise OSError("no such file")
            with safe_open(path, "np") as file:
                header = file.metadata() or {}
                if header.get("format") != _FORMAT:
                    raise ValueError(f"its format is {header.get('format')!r}, not {_FORMAT!r}")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _digest(header["content"], arrays) != header["sha256"]:
                raise ValueError("its digest is another")

            def whole(entry: dict[str, Any]) -> Any:
                kind = entry.pop("ppp", None)
                if kind is None or kind == "array":
                    return entry if kind is None else arrays[entry["name"]]
                values = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
                return _KINDS[kind](**values)

            content = json.loads(header["content"], object_hook=whole)
            result = cls(((r.scheme, r.layer), r) for r in content["results"])
            result.provenance, result.audit = content["provenance"], Audit(content["audit"])
            result.audit.runs = Counter(content["runs"])
            size, stride = tuple(content["input_size"]), tuple(content["stride"])
            result.coverage = Coverage(content["layers"], size, stride, tuple(content["sites"]))
        except Exception as error:
            raise DocumentError(
                f"{path} cannot be read as a saved measurement ({first_words(error, 120)})"
            ) from None
        return result


# What a saved measurement may hold besides arrays and JSON's own types.
_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (
    Checkpoint, Completeness, Estimate, Fraction, LayerCoverage, LayerResult, NullTest, PaddingSite,
    Site, Summary,
)}  # fmt: skip


def _file(path: str | Path) -> Path:
    return Path(path, "measurement.safetensors") if Path(path).is_dir() else Path(path)


def _digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        found.update(name.encode() + arrays[name].tobytes())
    return found.hexdigest()


def flat(summary: Summary) -> dict[str, float]:
    """Return a summary as columns: an estimate gives name, name_low and name_high."""
    row: dict[str, float] = {}
    derived = ["mae_influenced", "snr_influenced", "amplitude"]
    for name in [*(entry.name for entry in fields(Summary)), *derived]:
        value = getattr(summary, name)
        values = vars(value).values() if isinstance(value, Estimate) else [value]
        row |= zip((name, f"{name}_low", f"{name}_high"), values)
    return row
