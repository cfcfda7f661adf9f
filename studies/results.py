"""What a notebook leaves behind: tables, figures, and the numbers that prose quotes."""

from __future__ import annotations

import functools
import json
import math
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch

from ppp.errors import PPPError
from ppp.metrics import Summary
from studies.storage import tables


def save_table(frame: pd.DataFrame, results: str | Path, name: str) -> None:
    """Write a table as ``results/name.csv``, whole or not at all.

    Parameters
    ----------
    frame : DataFrame
    results : path
        Folder; made if it does not exist.
    name : str
        File name without its ending.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_table(pd.DataFrame({"n": [2]}), folder, "counts")
    >>> (folder / "counts.csv").read_text()
    'n\\n2\\n'
    """
    tables.write_table(Path(results) / f"{name}.csv", frame, digits=None)


def save_numbers(results: str | Path, numbers: Mapping[str, int | float | str]) -> None:
    """Write ``results/numbers.json``: what pages of prose may quote by name.

    Raises
    ------
    PPPError
        A number that is not finite, by name.

    Examples
    --------
    >>> import tempfile
    >>> save_numbers(tempfile.mkdtemp(), {"n": 512})
    """
    plain = {}
    for name, value in numbers.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, float) and not math.isfinite(value):
            raise PPPError(f"number {name!r} is {value}; expected a finite number or a text")
        plain[name] = value
    text = json.dumps(plain, indent=1, sort_keys=True)
    tables.write(Path(results) / "numbers.json", text.encode())


def footer(**facts: object) -> dict[str, object]:
    """Return what a figure was computed from: `facts`, then versions, device and commit.

    Examples
    --------
    >>> list(footer(n=512))[0]
    'n'
    """
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "numpy")}
    device = f"{platform.machine()}, {torch.get_num_threads()} threads"
    return facts | {
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "python": platform.python_version(),
        "device": device,
        "commit": _commit(),
    }


@functools.cache
def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def metric_rows(layer: str, summary: Summary) -> list[dict[str, object]]:
    """Return one row per metric of a layer: value, interval, noise floor.

    Power is given in units of the layer's variance; share has no interval.
    """
    power, area = summary.power, summary.sigma**2 or 1.0
    return [
        {"layer": layer, "metric": metric} | dict(zip(("value", "low", "high", "floor"), values))
        for metric, *values in (
            ("mae", summary.mae.value, summary.mae.low, summary.mae.high, summary.mae_floor),
            ("snr", summary.snr.value, summary.snr.low, summary.snr.high, summary.snr_floor),
            ("power", power.value / area, power.low / area, power.high / area, 0.0),
            ("share", summary.share, None, None, 0.0),
            ("raw", summary.mae_raw, None, None, summary.mae_floor * summary.sigma),
        )
    ]
